"""Make the assignment's notebook, executed: `make submission` puts it into the archive.

Its text and cells are those of ``tools/assignment2/``; where a marker names definitions of the
module, their real source becomes the cell. ``DIGITCNN_PROFILE=quick`` makes it from toy data.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import environment  # noqa: E402
import offline  # noqa: E402

from digitcnn import runs, status  # noqa: E402
from digitcnn.files import DigitcnnError  # noqa: E402
from digitcnn.runs import RunConfig  # noqa: E402

ROOT = environment.ROOT
NAME = "Assignment-2.ipynb"
LARGEST = 3_000_000  # bytes
MARKER = re.compile(r"^# %%(?: +(\[markdown\]|source|needs)(?: +(.*))?)?$", re.MULTILINE)
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def source(module: str, names: Iterable[str]) -> str:
    """The source of top-level definitions of a module of the package, with their comments.

    Args:
        module: its dotted name below ``digitcnn``.
        names: of classes, functions and constants, in the order in which they are to stand.
    """
    path = ROOT / "digitcnn" / f"{module.replace('.', '/')}.py"
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        name = getattr(targets[0], "name", None) or getattr(targets[0], "id", None)
        name = name or getattr(getattr(node, "target", None), "id", None)  # x: int = 1
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) - 1
        while first and lines[first - 1].startswith("#"):
            first -= 1
        found[name] = "\n".join(lines[first : node.end_lineno])
    if absent := [name for name in names if name not in found]:
        raise DigitcnnError(f"digitcnn/{path.name} defines no {absent[0]}: fix tools/assignment2/.")
    parts = [found[name] for name in names]
    text = "".join(
        part + ("\n" if "\n" not in part + after else "\n\n\n")
        for part, after in zip(parts, [*parts[1:], ""], strict=True)
    )
    return f"# From {path.relative_to(ROOT).as_posix()}\n{text.strip()}"


def needed(group: str) -> list[RunConfig]:
    """The runs whose results the cells marked ``needs GROUP`` show."""
    every = [run for run in runs.registry().values() if run.group == group]
    return [run for run in every if runs.keeps_weights(run)] if group == "imbalance" else every


def hours(absent: list[RunConfig]) -> str:
    """What training some runs would take, in words."""
    jobs = min(status.cores(), len(absent))
    return status.duration(status.together(sum(map(status.seconds, absent)), jobs))


def cells(draft: bool = False) -> list:
    """The notebook's cells, not executed.

    Raises `DigitcnnError` with names and hours if runs are missing; with `draft`, a sentence
    stands in the place of cells that need them.
    """
    from nbformat import v4

    made, lacking = [], {}
    for path in sorted((HERE / "assignment2").glob("*.py")):
        kinds = MARKER.split(path.read_text(encoding="utf-8"))[1:]
        for kind, about, text in zip(kinds[::3], kinds[1::3], kinds[2::3], strict=True):
            text = text.strip()
            if kind == "[markdown]":
                made.append(v4.new_markdown_cell(re.sub(r"(?m)^# ?", "", text)))
            elif kind == "source":
                module, _, names = about.partition(": ")
                made.append(v4.new_code_cell(source(module, names.split())))
                made[-1].metadata["digitcnn"] = about
            elif kind == "needs" and (absent := [r for r in needed(about) if runs.stale(r)]):
                lacking[about] = absent
                words = f"*Not here yet: the results of {len(absent)} runs that are to be trained.*"
                made.append(v4.new_markdown_cell(words))
            else:
                made.append(v4.new_code_cell(text))
    if lacking := lacking | {"main": [r for r in map(runs.get, runs.MAIN) if runs.reason(r)]}:
        absent = [run for group in lacking.values() for run in group]
        if absent and (lacking["main"] or not draft):
            names = ", ".join(run.id for run in absent[:4]) + (", …" if absent[4:] else "")
            raise DigitcnnError(
                f"The notebook lacks the results of {len(absent)} runs ({names}): train them with "
                f"`digitcnn train {' '.join(g for g, r in lacking.items() if r)}`, about "
                f"{hours(absent)}."
            )
    for number, cell in enumerate(made):
        cell.id = f"cell-{number}"
    return made


def check(book) -> None:
    """Raise `DigitcnnError` unless every cell of the module's source is still what it says."""
    for cell in book.cells:
        if about := cell.metadata.get("digitcnn"):
            module, _, names = about.partition(": ")
            if cell.source != source(module, names.split()):
                raise DigitcnnError(
                    f"The notebook's cell with {names} is not what digitcnn.{module} holds now: "
                    "make it again."
                )


def execute(book, folder: Path, tell: Callable[[int, int], None] = lambda done, of: None) -> None:
    """Run all cells in a fresh kernel of this Python that starts in `folder`.

    Raises `DigitcnnError` that names the cell and the error. What is written to stderr (progress
    of downloads, warnings) is not kept.
    """
    with offline.kernel(NAME, folder, dict(os.environ)) as run:
        for number, cell in enumerate(book.cells, start=1):
            if cell.cell_type == "code":
                first = next((line for line in cell.source.splitlines() if line.strip()), "")
                done = run(cell.source, f"cell {first!r}")
                cell.execution_count = done.execution_count
                cell.outputs = [o for o in done.outputs if o.get("name") != "stderr"]
            tell(number, len(book.cells))


def build(draft: bool = False, tell: Callable[[int, int], None] = lambda done, of: None) -> str:
    """The executed notebook as text, without a name; the same results give the same text."""
    import nbformat

    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    book = nbformat.v4.new_notebook(cells=cells(draft), metadata=metadata)
    execute(book, ROOT, tell)
    check(book)
    nbformat.validate(book)
    text = nbformat.writes(book) + "\n"
    if len(text.encode()) > LARGEST:
        raise DigitcnnError(
            f"The notebook has {len(text.encode()) / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}: "
            "draw less or smaller figures in tools/assignment2/."
        )
    return text


def titled(text: str, who: str) -> str:
    """The notebook with a line below its title that says whose it is."""
    import nbformat

    book = nbformat.reads(text, 4)
    title, _, rest = book.cells[0].source.partition("\n")
    line = re.sub(r"([\\`*_<>\[\]])", r"\\\1", who)
    book.cells[0].source = f"{title}\n\n**{line}**\n{rest}"
    return nbformat.writes(book) + "\n"
