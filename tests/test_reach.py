"""Reach: what counts in a run's key and what does not, on copies of the package."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import one_sentence

from digitcnn import files, reach, runs

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "digitcnn"
KEYED = (
    "augmentation",
    "data",
    "division",
    "model",
    "sources",
    "training",
)  # where what decides is defined today


def clear() -> None:
    """Forget what was read, as a new process does."""
    for cached in (reach.module, reach._definition, reach._local_imports, runs._code):
        cached.cache_clear()


class Copy:
    """A copy of the package that can be edited."""

    def __init__(self, folder: Path):
        self.folder = folder

    def text(self, module: str) -> str:
        return (self.folder / f"{module}.py").read_text("utf-8")

    def write(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(textwrap.dedent(text), "utf-8")
        clear()

    def edit(self, module: str, old: str, new: str, everywhere: bool = False) -> None:
        text = self.text(module)
        assert old in text and old != new, (module, old)
        self.write(module, text.replace(old, new, -1 if everywhere else 1))

    def codes(self) -> dict[str, str]:
        """What the code contributes to the key of each registered run."""
        clear()
        return {name: files.fingerprint(runs.code(run)) for name, run in runs.registry().items()}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty package in the place of this one."""
    folder = tmp_path / "digitcnn"
    folder.mkdir()
    monkeypatch.setattr(reach, "_PACKAGE", folder)
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    yield Copy(folder)
    monkeypatch.undo()
    clear()


@pytest.fixture
def package(empty):
    """A copy of this package in its place."""
    for path in PACKAGE.rglob("*.py"):
        copied = empty.folder / path.relative_to(PACKAGE)
        copied.parent.mkdir(exist_ok=True)
        shutil.copy(path, copied)
    clear()
    return empty


@pytest.fixture(scope="module")
def today():
    """The codes of all registered runs as the package stands."""
    clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITCNN_PROFILE", "full")
        return Copy(PACKAGE).codes()


def test_a_copy_has_the_same_codes(package, today):
    assert package.codes() == today
    assert len(set(today.values())) > 20  # of different data, optimisers, augmentations, …


def test_what_is_reached_is_what_decides():
    clear()
    for run in runs.registry().values():
        reached = runs.code(run)
        assert {"learn", "Training", "DigitCNN", "stage", "CLASSES", "select"} < reached.keys()
        assert not {"RunConfig", "Source", "RECIPE", "load", "compute"} & reached.keys()
        assert not any("#" in name or name.startswith("module ") for name in reached), run.id
        # No two definitions with one name, no name that cannot be resolved.


# What does not count


def move_the_model(package: Copy) -> None:
    (package.folder / "model.py").rename(package.folder / "network.py")
    for path in package.folder.rglob("*.py"):
        path.write_text(
            re.sub(r"\.model import", ".network import", path.read_text("utf-8")), "utf-8"
        )
    clear()
    assert "from .network import" in package.text("training")


def move_a_helper(package: Copy) -> None:
    """`_uniform` goes to a module of its own, under another name there and back again."""
    text = package.text("augmentation")
    found = re.search(r"def _uniform\(.*?\n\n\n", text, re.DOTALL)[0]
    package.write("noise", f"import torch\nfrom torch import Tensor\n\n\n{found}")
    package.write("between", "from .noise import _uniform as uniform\n")
    text = text.replace(found, "").replace(
        "from torch import Tensor\n",
        "from torch import Tensor\n\nfrom .between import uniform as _uniform\n",
    )
    package.write("augmentation", text)


def move_a_constant(package: Copy) -> None:
    package.edit("model", "\nCLASSES = 10\n", "\nfrom . import sizes\nfrom .sizes import CLASSES\n")
    package.write("sizes", "CLASSES = 10\n")


def rename_an_import(package: Copy) -> None:
    package.edit("training", "functional as F", "functional as functions")
    package.write("training", re.sub(r"\bF\.", "functions.", package.text("training")))
    package.edit("training", "import CLASSES, DigitCNN", "import CLASSES as TEN, DigitCNN")
    package.write("training", re.sub(r"\bCLASSES\b(?! as)", "TEN", package.text("training")))


def import_a_module(package: Copy) -> None:
    package.edit("training", "from .data import held_out_part, training_part", "from . import data")
    for name in ("held_out_part", "training_part"):
        package.edit("training", f"{name}(config", f"data.{name}(config")


def edit_what_is_not_reached(package: Copy) -> None:
    for module in ("checkpoints", "grid", "status", "store", "files", "cli"):
        package.edit(module, "\n\n\n", "\n\nEDITED = 1\n\n\n")
        package.write(module, re.sub(r"\breturn\b", "return not", package.text(module)))
    package.edit("data", "random.seed(seed)", "random.seed(seed + 1)")
    package.edit("data", "def load(", "def load(more, ")
    package.edit("sources", '"mnist": (60_000, 10_000)', '"mnist": (60_001, 10_000)')
    package.edit("sources", "SAME_DATA = {", 'SAME_DATA = {"more": "x", ')
    package.edit("training", "torch.backends.mps.is_available()", "False")  # in pick_device
    package.edit("runs", 'GROUPS = ("main"', 'GROUPS = ("first", "main"')


def annotate(package: Copy) -> None:
    package.edit("training", "def stage(resolutions: tuple[tuple[int, float], ...], share: float)",
                 "def stage(resolutions: list, share)")  # fmt: skip
    package.edit("training", "    end = 0.0\n", "    end: float = 0.0\n")
    package.edit("training", "def _moving_average(decay: float) -> Callable[..., None]:",
                 "def _moving_average(decay: float) -> Callable[[list], None]:")  # fmt: skip
    package.edit("model", "CLASSES = 10", "CLASSES: int = 10")


def comment(package: Copy) -> None:
    for module in KEYED:
        source = package.text(module)
        package.write(module, "# a comment\n\n" + source.replace('"""', '"""Changed. '))
        package.write(module, package.text(module).replace("Changed. \n", "\n"))
        assert package.text(module) != source


def write_otherwise(package: Copy) -> None:
    """Other quotes, brackets, line breaks and line ends, and no docstrings."""
    for module in KEYED:
        tree = ast.parse(package.text(module))
        for node in ast.walk(tree):
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef
            if isinstance(node, kinds) and ast.get_docstring(node) and node.body[1:]:
                del node.body[0]
        text = ast.unparse(tree).replace("\n", "\r\n")
        (package.folder / f"{module}.py").write_bytes(text.encode())
    clear()


def add_entries(package: Copy) -> None:
    package.edit("training", "OPTIMIZERS = {", 'OPTIMIZERS = {\n    "lion": torch.optim.Adam,')
    package.edit("training", "SCHEDULES = {", 'SCHEDULES = {\n    "linear": lambda a, b: a / b,')
    package.edit(
        "augmentation", '    "affine": affine,\n', '    "affine": affine,\n    "no": shift,\n'
    )
    package.edit("model", '    "relu": nn.ReLU,\n', '    "mish": nn.Mish,\n    "relu": nn.ReLU,\n')
    package.edit("division", "DIVISIONS = {", 'DIVISIONS = {"all": lambda labels, test: [], ')
    package.edit("sources", "POOLS = {", 'POOLS = {"usps": _whole_labels, ')


@pytest.mark.parametrize(
    "change",
    [move_the_model, move_a_helper, move_a_constant, rename_an_import, import_a_module,
     edit_what_is_not_reached, annotate, comment, write_otherwise, add_entries],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_what_leaves_every_key(package, today, change):
    change(package)
    assert package.codes() == today


def keys_of(folder: Path, **variables: str) -> dict[str, str]:
    """The keys that a process of its own computes, of the package in `folder`."""
    code = (
        "import json, sys\nfrom digitcnn import runs\n"
        "print(json.dumps({name: runs.key(run) for name, run in runs.registry().items()}))\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120,
        env=kept | {"PYTHONPATH": str(folder), "DIGITCNN_ROOT": str(ROOT)} | variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_module_moved_a_field_and_an_entry_added_a_function_annotated(package):
    """All at once, as a process of its own sees it, keys with data and configuration included."""
    expected = keys_of(ROOT)
    for change in (add_entries, annotate, comment, move_the_model):
        change(package)
    package.edit(
        "config", "    evaluate_every_epoch: bool = True\n",
        "    evaluate_every_epoch: bool = True\n"
        '    cutmix: float = dataclasses.field(default=0.0, metadata={"neutral": 0.0})\n',
    )  # fmt: skip
    assert keys_of(package.folder.parent) == expected
    package.edit("network", "padding=1", "padding=2")
    assert not set(keys_of(package.folder.parent).values()) & set(expected.values())


def test_a_later_field_is_left_out_at_its_neutral_value_alone():
    def later(default: float) -> type:
        field = dataclasses.field(default=default, metadata={"neutral": 0.0})
        return dataclasses.make_dataclass(
            "Later", [("cutmix", float, field)], bases=(runs.RunConfig,), frozen=True
        )

    run = runs.MAIN["svhn"]
    for default in (0.0, 0.5):  # whatever the default becomes
        kind = later(default)
        assert runs.configuration(kind(**vars(run), cutmix=0.0)) == runs.configuration(run)
        assert runs.configuration(kind(**vars(run), cutmix=0.5))["cutmix"] == 0.5
    assert runs.configuration(later(0.5)(**vars(run)))["cutmix"] == 0.5


# What counts, and for which runs


def everything(run: runs.RunConfig) -> bool:
    return True


def names(kind: str) -> Callable[[runs.RunConfig], bool]:
    return lambda run: kind in (run.optimizer, run.schedule, run.activation, run.split, run.data,
                                *run.augmentation)  # fmt: skip


COUNTS = [
    # defaults
    ("model", "padding=1", "padding=0", everything),
    ("model", "dropout: float = 0.0,", "dropout: float = 0.1,", everything),
    ("model", 'activation: str = "relu",', 'activation: str = "gelu",', everything),
    ("training", "epoch: int = 0\n) -> Metrics:\n    \"\"\"Metrics of a model",
     "epoch: int = 1\n) -> Metrics:\n    \"\"\"Metrics of a model", everything),
    ("training", "0.2 * steps", "0.3 * steps", names("one-cycle")),
    # constants in other modules
    ("model", "FEATURES = 128", "FEATURES = 64", everything),
    ("model", "CLASSES = 10", "CLASSES = 11", everything),
    ("division", "(0.7, 0.1, 0.2)", "(0.6, 0.2, 0.2)", names("pooled")),
    ("division", "OFFICIAL_VALIDATION = 0.1", "OFFICIAL_VALIDATION = 0.2", names("official")),
    ("division", "SEED = 42", "SEED = 43", everything),
    ("training", "EVALUATION_BATCH = 100", "EVALUATION_BATCH = 1000", everything),
    # from the files to the pool
    ("sources", "(2, 2), (2, 2)", "(1, 3), (2, 2)", names("mnist")),
    ("sources", "axis=1)", "axis=2)", names("mnist")),
    ("sources", "part.labels for part", "part.labels + 1 for part", names("svhn")),
    ("sources", "[False, True]", "[True, False]", everything),
    # origins of imports
    ("training", "import torch.nn.functional as F", "import torch.functional as F", everything),
    ("model", "import torch.nn.functional as F", "import torch.ao.nn as F", everything),
    ("division", "from sklearn.model_selection import", "from sklearn.utils import", everything),
    ("training", "from .data import held_out_part", "from .elsewhere import held_out_part",
     everything),
    ("training", "from torch.optim.swa_utils", "from torch.optim.average", everything),
    # bodies, two calls deep
    ("augmentation", "torch.rand(shape) * 2 - 1", "torch.rand(shape) * 2 - 0.9",
     lambda run: bool(run.augmentation)),
    ("augmentation", 'padding_mode="border"', 'padding_mode="zeros"', names("affine")),
    ("training", "@torch.no_grad()\n    def update", "def update", everything),
    ("training", "self.averaged.module, images", "self.model, images", everything),
    ("training", "if parameter.ndim > 1:\n                parameter.data",
     "if parameter.ndim > 2:\n                parameter.data", everything),
    ("model", "return x + transformed if", "return x - transformed if", everything),
    ("division", "stratify=labels\n", "stratify=None\n", names("pooled")),
    ("data", "permutation(members)[:count]", "permutation(members)[-count:]", everything),
    # entries of tables
    ("augmentation", "pixel - middle).abs() < 4", "pixel - middle).abs() < 5", names("erase")),
    ("augmentation", "behind = 0.5 *", "behind = 0.6 *", names("ground")),
    ("augmentation", "share = 0.15 + 0.85", "share = 0.05 + 0.95", names("contrast")),
    ("augmentation", "3, 1, 1, limit=0.4", "3, 1, 1, limit=0.5", names("colours")),
    ("augmentation", "3, 1, 1, limit=0.09", "3, 1, 1, limit=0.1", names("colour")),
    ("training", "torch.optim.Adam(groups", "torch.optim.Adamax(groups", names("adam")),
    ("training", "nesterov=True", "nesterov=False", names("sgd")),
    ("training", "0.001 + 0.999 *", "0.01 + 0.99 *", names("cosine")),
    ("model", '"gelu": nn.GELU', '"gelu": nn.Mish', names("gelu")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "old", "new", "whom"), COUNTS, ids=[f"{c[0]}: {c[2][:30]!r}" for c in COUNTS]
)
def test_what_changes_the_keys_of_the_runs_that_it_decides(package, today, module, old, new, whom):
    package.write("elsewhere", "def held_out_part(config, source, name):\n    return None\n")
    package.edit(module, old, new)
    changed = {name for name, code in package.codes().items() if code != today[name]}
    expected = {name for name, run in runs.registry().items() if whom(run)}
    assert expected and changed == expected


def counted(node: ast.AST):
    """The nodes of a definition that count: no docstrings, annotations and raised errors."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST) and not isinstance(part, ast.Raise):
                yield part
                yield from counted(part)


@pytest.mark.parametrize("name", KEYED)
def test_every_number_operator_and_name_counts(name):
    """Each constant, operator, attribute and name of what is reached, changed one at a time."""
    clear()
    reached = {part for run in runs.registry().values() for part in runs.code(run)}
    module, changed = reach.module(name), 0
    for definition in sorted(reached & module.definitions.keys()):
        for statement in module.definitions[definition]:

            def digest(statement=statement) -> str:
                return files.fingerprint(reach._Tree(module).plain(statement))

            first = digest()
            for number, node in enumerate(counted(statement)):
                kept = copy.copy(node.__dict__)
                if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
                    node.value = node.value + 1
                elif isinstance(node, ast.BinOp):
                    node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
                elif isinstance(node, ast.Attribute):
                    node.attr += "_"
                elif isinstance(node, ast.Name):
                    node.id += "_"
                else:
                    continue
                if number % 8 == 0:  # one in eight of some thousand
                    assert digest() != first, ast.dump(node)
                    changed += 1
                node.__dict__.update(kept)
            assert digest() == first
    assert changed > 5


# The rules one by one, on small packages


def of(root: str, **options) -> dict[str, str]:
    clear()
    return reach.digests((root,), **options)


def test_a_name_that_cannot_be_resolved_counts_its_whole_module(empty):
    empty.write("a", "from . import b\nx = 1\ndef f():\n    return mystery(b.gone)\n")
    empty.write("b", "y = 1\n")
    first = of("a.f")
    assert first.keys() == {"f", "module a", "module b"}
    empty.edit("a", "x = 1", "x = 2")
    second = of("a.f")
    assert first["f"] == second["f"] and first["module a"] != second["module a"]
    empty.edit("b", "y = 1", "y = 2")
    assert of("a.f")["module b"] != second["module b"]


def test_a_module_that_is_half_typed_is_one_sentence(empty):
    """And a byte order mark, which some editors write, counts for nothing."""
    empty.write("a", "x = 1\n")
    first = of("a.x")
    empty.write("a", "\ufeffx = 1\n")
    assert of("a.x") == first
    for content in (b"x = (1\n", b"x = '\xe9'\n"):
        (empty.folder / "a.py").write_bytes(content)
        with pytest.raises(files.DigitcnnError, match=r"digitcnn/a\.py is not valid") as caught:
            of("a.x")
        one_sentence(caught.value)


def test_texts_of_errors_and_docstrings_do_not_count_but_that_one_is_raised_does(empty):
    empty.write("a", 'def f(x):\n    """Says."""\n    if x:\n        raise ValueError("no")\n')
    first = of("a.f")
    empty.edit("a", '"no"', 'f"never {x}, {unknown}"')
    assert of("a.f") == first
    empty.edit("a", "Says", "Says more")
    assert of("a.f") == first
    empty.edit("a", "raise ValueError(", "print(")
    assert of("a.f") != first


def test_the_origin_of_an_import_counts_not_the_name_that_it_gets(empty):
    empty.write("a", "from numpy import sort as s\ndef f(x):\n    return s(x)\n")
    first = of("a.f")
    empty.write("a", "import numpy as n\ndef f(x):\n    return n.sort(x)\n")
    assert of("a.f") == first
    empty.write("a", "def f(x):\n    from numpy import sort\n    return sort(x)\n")
    inside = of("a.f")
    empty.write("a", "def f(x):\n    from numpy import argsort as sort\n    return sort(x)\n")
    assert of("a.f") != inside
    empty.write("a", "from pandas import sort as s\ndef f(x):\n    return s(x)\n")
    assert of("a.f") != first
    empty.write("a", "def f(x):\n    return sorted(x)\n")
    assert of("a.f") != first


@pytest.mark.parametrize(
    "statement",
    ["LIMIT = {}", "LIMIT: int = {}", "LIMIT, other = {}, 1", "LIMIT = []\nLIMIT.append({})",
     "LIMIT = [0]\nLIMIT[0] = {}", "LIMIT = 0\nLIMIT += {}", "if True:\n    LIMIT = {}",
     "try:\n    LIMIT = {}\nexcept OSError:\n    LIMIT = 0", "for LIMIT in range({}):\n    pass",
     "with open('x') as LIMIT:\n    LIMIT = {}", "class LIMIT:\n    size = {}",
     "if {}:\n    LIMIT = 1\nelse:\n    LIMIT = 2",
     "if {}:\n    if 0:\n        def LIMIT():\n            pass", "def LIMIT(size={}):\n    pass",
     "LIMIT = lambda: {}"],
)  # fmt: skip
def test_however_a_constant_is_made_it_counts(empty, statement):
    empty.write("a", f"{statement.format(1)}\ndef f():\n    return LIMIT\n")
    first = of("a.f")
    assert not any(name.startswith("module") for name in first)
    empty.write("a", f"{statement.format(2)}\ndef f():\n    return LIMIT\n")
    assert of("a.f") != first


def test_local_names_lead_nowhere(empty):
    empty.write(
        "a",
        """
        hidden = 1
        def f(hidden, *, b=hidden_default):
            return [hidden for other in b for hidden in other] + list(map(lambda other: other, b))
        hidden_default = 3
        other = 4
    """,
    )
    assert of("a.f").keys() == {"f", "hidden_default"}


def test_a_method_does_not_see_the_names_of_its_class(empty):
    empty.write(
        "a",
        """
        size = 1
        class C:
            size = 2
            twice = size * 2
            def g(self):
                return size
    """,
    )
    first = of("a.C")
    assert first.keys() == {"C", "size"}
    empty.edit("a", "size = 1", "size = 3")
    assert of("a.C")["size"] != first["size"]


def test_of_two_definitions_with_one_name_each_counts(empty):
    empty.write("a", "from . import b\ndef f():\n    return g() + b.g()\ndef g():\n    return 1\n")
    empty.write("b", "def g():\n    return 2\n")
    first = of("a.f")
    assert first.keys() == {"f", "g", "g#2"}
    # Exchanged, everything has the same digest but for which is meant where.
    empty.edit("a", "g() + b.g()", "b.g() + g()")
    assert of("a.f") != first
    empty.edit("a", "b.g() + g()", "g() + b.g()")
    assert of("a.f") == first


def test_of_a_table_the_chosen_entries_count_whatever_their_order(empty):
    table = 'def f():\n    return T\none = 1\ntwo = 2\nT = {{"a": one, "b": two{}}}\n'
    empty.write("a", table.format(""))
    chosen = {"entries": {"T": frozenset({"a", "b"})}}
    first, alone = of("a.f", **chosen), of("a.f", entries={"T": frozenset({"a"})})
    assert alone.keys() == {"f", "T", "one"}
    empty.edit("a", '"a": one, "b": two', '"c": 3, "b": two, "a": one')
    assert of("a.f", **chosen) == first and of("a.f") != first
    empty.edit("a", "two = 2", "two = 3")
    assert of("a.f", entries={"T": frozenset({"a"})}) == alone
    empty.edit("a", "T = {", "T = {**one, ")  # what may hold any entry counts
    assert of("a.f", entries={"T": frozenset({"a"})}) != alone


def test_what_is_left_out_is_not_followed(empty):
    empty.write(
        "a", "from . import b\ndef f():\n    return g(), b.h()\ndef g():\n    return x\nx = 1\n"
    )
    empty.write("b", "def h():\n    return 1\n")
    assert of("a.f").keys() == {"f", "g", "x", "h"}
    assert of("a.f", without=("a.g", "b")).keys() == {"f"}


def test_a_root_that_is_gone_is_an_error(empty):
    empty.write("a", "x = 1\n")
    for root in ("a.f", "b.f"):
        with pytest.raises(LookupError, match="is not defined"):
            of(root)


def test_what_is_imported_counts_whatever_is_edited_later(package):
    """A process takes its keys from the code that it runs."""
    run = runs.MAIN["mnist"]
    reach.read_now()
    first = runs.code(run)
    for module in KEYED:
        path = package.folder / f"{module}.py"
        path.write_text(path.read_text("utf-8").replace("1", "2"), "utf-8")
    for cached in (reach._definition, runs._code):
        cached.cache_clear()
    assert runs.code(run) == first
    clear()
    assert runs.code(run) != first


def other_pythons() -> list[str]:
    """Interpreters of other versions: on the path, or beside this one as pyenv lays them."""
    beside = Path(sys.base_prefix).parent.glob("3.*/bin/python3")
    found = {version: shutil.which(f"python3.{version}") for version in range(11, 20)}
    found |= {int(path.parts[-3].split(".")[1]): str(path) for path in beside}
    mine = sys.version_info.minor
    return [p for version, p in sorted(found.items()) if p and version > 10 and version != mine]


def test_other_pythons_compute_the_same_keys():
    code = (
        "from digitcnn import files, runs\n"
        "print(files.fingerprint([runs.code(run) for run in runs.registry().values()]))"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN_")}
    clear()
    expected = files.fingerprint([runs.code(run) for run in runs._registry("full").values()])
    tried = 0
    for python in other_pythons():
        done = subprocess.run(
            [python, "-B", "-c", code], cwd=ROOT, capture_output=True, text=True, env=kept,
            timeout=120,
        )  # fmt: skip
        if "pyenv: " not in done.stderr:  # which stands for versions that are not active
            assert done.stdout.strip() == expected, (python, done.stderr)
            tried += 1
    if not tried:
        pytest.skip("no other Python here")
