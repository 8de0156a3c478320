"""The rooms of the package and the order of imports: core, report, demo."""

import ast
from pathlib import Path

import pytest

import digitcnn

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "digitcnn"
# Of the core, each module may import those that stand before it.
ORDER = (
    "files", "reach", "observe", "config", "manifests", "runs", "toy", "sources", "division",
    "results", "predictions", "data", "augmentation", "model", "training", "tensors", "checkpoints",
    "provenance", "store", "status", "accept", "grid", "cluster", "pictures", "inference", "ink",
    "preparation", "rejection", "stats", "doctor",
)  # fmt: skip
DOORS = ("cli", "__main__", "prediction_table")  # what a person types opens all rooms
# Longer than a reader takes in at one sitting; to be divided, and none to be added.
LONG = {"training.py"}


def rooms() -> dict[str, list[Path]]:
    found = {"core": sorted(PACKAGE.glob("*.py"))}
    for room in ("report", "demo"):
        found[room] = sorted((PACKAGE / room).rglob("*.py"))
    return found


def imported(path: Path, top_level: bool = False) -> set[str]:
    """What a file imports of this package, dotted within it: all, or at its top level alone."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level else ast.walk(tree)
    folder = path.relative_to(PACKAGE).parent.parts
    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = [*folder[: len(folder) - (node.level - 1)], *filter(None, [node.module])]
            elif (node.module or "").split(".")[0] == "digitcnn":
                base = node.module.split(".")[1:]
            else:
                continue
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def test_the_core_knows_neither_report_nor_demo():
    for path in rooms()["core"]:
        if path.stem not in DOORS:
            known = {name.split(".")[0] for name in imported(path)}
            assert not known & {"report", "demo"}, path.name


def test_report_and_demo_do_not_know_each_other_but_for_stored_results():
    for path in rooms()["report"]:
        assert not any(name.startswith("demo") for name in imported(path)), path.name


def test_a_module_of_the_core_imports_only_what_stands_above_it():
    modules = {path.stem for path in rooms()["core"]} - {"__init__", *DOORS}
    assert modules == set(ORDER)
    for position, name in enumerate(ORDER):
        known = {part.split(".")[0] for part in imported(PACKAGE / f"{name}.py", top_level=True)}
        assert known & modules <= set(ORDER[:position]), name


@pytest.mark.parametrize("name", digitcnn.__all__)
def test_what_the_package_offers_is_there_and_in_its_docstring(name):
    assert callable(getattr(digitcnn, name))
    assert f"`{name}`" in digitcnn.__doc__


def test_no_file_is_longer_than_a_reader_takes_in_at_one_sitting():
    paths = [p for p in [*PACKAGE.rglob("*"), *(ROOT / "tools").rglob("*")] if p.is_file()]
    counted = {p: len(p.read_text("utf-8").splitlines()) for p in paths if p.suffix in (
        ".py", ".js", ".css", ".lua", ".typ", ".html")}  # fmt: skip
    assert {path.name for path, lines in counted.items() if lines > 400} <= LONG
