"""Store: every result that is kept, with what it was made from.

`stored` makes a function keep what it returns, named arrays, in ``cache/<name>.npz``. The file
says what it depends on: the function with everything of this package that it reaches
(`digitcnn.reach`), and its inputs, as tokens that can be looked up again without computing
anything (`digest_of`). What is read while it is made is watched: a file that no token names is an
error. A change of either makes the result stale, and the file can say what
changed, without torch. A checksum of the arrays notices an edited file. A formula over a result is
best an entry, or a plain function, of its own: changing it then needs no weights.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import files, observe, reach, runs
from .files import DigitcnnError

Arrays = dict[str, np.ndarray]
# Libraries that decide about digits of a result, by the module that shows that one is in use.
LIBRARIES = {
    "numpy": "numpy", "scipy": "scipy", "scikit-learn": "sklearn", "torch": "torch",
    "umap-learn": "umap", "pillow": "PIL",
}  # fmt: skip
# What a result depends on by its tokens, so that the code which looks it up does not count.
NOT_CODE = (
    "files", "store", "sources.Source", "division.pool", "division.labels",
    "division.split_indices", "config.RunConfig", "runs.get", "runs.registry", "runs.stale",
    "runs.reason", "runs.read_record", "manifests.manifest", "manifests.has_manifest",
    "manifests.split_sizes", "config.kept_answers", "checkpoints.ensure", "checkpoints.load_model",
    "inference.network",    "results.record", "results.history", "results.answers",
)  # fmt: skip


def weights(run: str | runs.RunConfig) -> str:
    """The token of a trained network."""
    return f"weights {runs.get(run).id}"


def images(data: str, split: str = "test", division: str = "pooled") -> str:
    """The token of a split of a data set, images and labels."""
    return f"images {data} {split} {division}"


def result(name: str) -> str:
    """The token of another stored result, by its file's name below ``cache/`` without ending."""
    return f"result {name}"


def asset(path: str) -> str:
    """The token of a file of the project."""
    return f"file {path}"


def digest_of(token: str) -> str:
    """The present digest of what a token names.

    Raises `DigitcnnError` if there is no such thing now: a run that is missing or stale, a data
    set that was never read, a file that is gone.
    """
    kind, _, rest = token.partition(" ")
    if kind == "weights":
        run = runs.get(rest)
        if why := runs.stale(run):
            raise DigitcnnError(f"The run {run.id} is {why}: run `digitcnn train {run.id}`.")
        return runs.read_record(run)["weights_sha256"][:16]
    if kind == "images":
        data, split, division = rest.split()
        part = runs.split_sizes(data, division)[split]["indices_sha256"]
        return files.fingerprint(runs.manifest(data)["digest"], part)
    if kind == "result":
        path = files.cache_path(*f"{rest}.npz".split("/"))
        if not path.is_file():
            raise files.unusable(path, "is missing", "`make report` makes it again")
        return read(path, only_about=True)[1]["checksum"][:16]
    if kind == "file":
        path = files.project_root() / rest
        if not path.is_file():
            raise DigitcnnError(f"{rest} is missing: bring it back from the repository.")
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    if kind == "value":
        return rest
    raise DigitcnnError(f"{token!r} is not a valid token of a stored result.")


class Stored:
    """A function whose results are kept; call it to have one, made if need be."""

    def __init__(
        self,
        function: Callable[..., Arrays],
        name: Callable[..., str],
        inputs: Callable[..., list[str]],
        committed: bool,
    ):
        functools.update_wrapper(self, function)
        self._function, self._name, self._inputs = function, name, inputs
        self._folder = "" if committed else "local/"
        module = function.__module__.partition(".")[2]
        self.root = f"{module}.{function.__qualname__}"

    def path(self, *args: object) -> Path:
        """Where the result for these arguments lies."""
        return files.cache_path(*f"{self._folder}{self._name(*args)}.npz".split("/"))

    def __call__(self, *args: object) -> Arrays:
        """The result, from its file if it is current, else made and kept.

        Raises `DigitcnnError` if the file is damaged; nothing in it can be executed.
        """
        path, tokens = self.path(*args), self._inputs(*args)
        self._provide(tokens)
        if not stale(path, tokens):
            return read(path)[0]
        with files.lock(f"{self._folder}{self._name(*args)}".replace("/", "-")):
            if stale(path, tokens):  # another process may have made it meanwhile
                with observe.reading() as opened:
                    arrays = self._function(*args)
                if unnamed := _unnamed(opened, tokens):
                    raise DigitcnnError(
                        f"{self.root} read {unnamed}, which its inputs do not name: add it there."
                    )
                write(path, arrays, self.root, tokens)
        return read(path)[0]

    def load(self, *args: object) -> Arrays:
        """The result from its file. Raises `DigitcnnError` if it is missing or stale."""
        path = self.path(*args)
        if why := stale(path, self._inputs(*args)):
            raise files.unusable(path, f"is {why}", "`make report` makes it again")
        return read(path)[0]

    @staticmethod
    def _provide(tokens: list[str]) -> None:
        """Train runs and read data sets that the tokens name and that have never been seen."""
        for token in tokens:
            kind, _, rest = token.partition(" ")
            if kind == "weights" and runs.stale(runs.get(rest)):
                from . import checkpoints  # imports torch

                checkpoints.ensure(rest)
            elif kind == "images" and not runs.has_manifest(rest.split()[0]):
                from . import division

                division.pool(rest.split()[0])


def _unnamed(opened: set[str], tokens: list[str]) -> str:
    """The first of the files that were read, by its name, which no token stands for; empty if none.

    Code counts by `reach`, data sets by their manifests, and a run by its weights. Another result
    needs no token where all of its own inputs are named.
    """
    named, waiting = set(), list(tokens)
    while waiting:
        kind, _, rest = waiting.pop().partition(" ")
        if kind == "weights":
            run = runs.get(rest)
            named |= {runs.weights_path(run), runs.answers_path(run)}
            named |= {runs.metrics_path(run, split) for split in ("train", *run.held_out)}
            named.add(files.cache_path("data", f"{run.data}.json"))  # by which its key is judged
        elif kind == "images":
            data = rest.split()[0]
            named |= {files.cache_path("data", f"{data}.{ending}") for ending in ("json", "npz")}
        elif kind == "result":
            path = files.cache_path(*f"{rest}.npz".split("/"))
            named.add(path)
            waiting += read(path, only_about=True)[1]["inputs"]  # by which it is judged
        elif kind == "file":
            named.add(files.project_root() / rest)
    root, cache = files.project_root(), files.cache_path()
    for path in sorted(map(Path, opened)):
        inside = path.relative_to(root).parts if path.is_relative_to(root) else (".",)
        ignored = any(part.startswith(".") or part == "__pycache__" for part in inside)
        ignored |= path.suffix == ".py" or path.is_relative_to(files.data_root())
        ignored |= bool({cache / "runs", cache / "local" / "locks"} & set(path.parents))
        if ignored or path in named or not path.is_file():
            continue
        others = {cache / "answers", cache / "data"} & set(path.parents)
        if path.is_relative_to(cache) and path.suffix == ".npz" and not others:
            if read(path, only_about=True)[1]["inputs"].keys() <= set(tokens):
                continue
        return "/".join(inside)
    return ""


def stored(
    name: Callable[..., str] | str,
    inputs: Callable[..., list[str]] = lambda *args: [],
    committed: bool = True,
) -> Callable[[Callable[..., Arrays]], Stored]:
    """Decorator: keep what a function of plain arguments returns.

    Args:
        name: from the arguments to the file's name below ``cache/``, without ending.
        inputs: from the arguments to the tokens of all that the function reads: `weights`,
            `images`, `result`, `asset`, or ``value …`` for what is given by value.
        committed: whether the file is part of the repository; others lie in ``cache/local/``.
    """
    named = name if callable(name) else lambda *args: name
    return lambda function: Stored(function, named, inputs, committed)


def write(path: Path, arrays: Arrays, root: str, tokens: list[str]) -> None:
    """Write a result with what it was made from, whole or not at all.

    Args:
        root: the function that made it, as ``module.name``; of several, with spaces between.
    """
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    about = {
        "root": root,
        "code": reach.digests(tuple(root.split()), without=NOT_CODE),
        "inputs": {token: digest_of(token) for token in tokens},
        "libraries": {
            name: importlib.metadata.version(name)
            for name, module in LIBRARIES.items()
            if module in sys.modules
        },
        "profile": files.profile(),
        "checksum": checksum(arrays),
        "name": _name(path),
    }
    about["seal"] = files.fingerprint(about)
    files.remove_leftovers(path)
    text = json.dumps(about, sort_keys=True)
    files.write_arrays(path, {"about": np.array(text)} | arrays)


def _name(path: Path) -> str:
    """A result's path below ``cache/``, by which one in the place of another is noticed."""
    return path.as_posix().rpartition("/cache/")[2]


def read(path: Path, only_about: bool = False) -> tuple[Arrays, dict]:
    """Arrays of a stored result and what it was made from. Raises `DigitcnnError` if damaged."""
    arrays = files.read_arrays(path, *(["about"] if only_about else []))
    try:
        about = json.loads(str(arrays.pop("about")))
        whole = about.pop("seal") == files.fingerprint(about)
        whole = whole and (only_about or about["checksum"] == checksum(arrays))
    except (KeyError, ValueError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise files.unusable(path, "is damaged", "delete it, and `make report` makes it again")
    return arrays, about


def stale(path: Path, tokens: list[str] | None = None) -> str:
    """Why a stored result does not count: ``missing``, ``stale: …`` by name; empty if it does.

    Where the tokens of its inputs are known, they have to be the recorded ones. Raises
    `DigitcnnError` if the file is damaged.
    """
    if not path.is_file():
        return "missing"
    _, about = read(path, only_about=True)
    if (name := about.get("name", _name(path))) != _name(path):  # older files do not say it
        return f"stale: it is {name} under another name"
    if about["profile"] != files.profile():
        return f"stale: made in the {about['profile']} profile"
    try:
        now = reach.digests(tuple(about["root"].split()), without=NOT_CODE)
    except LookupError:
        return f"stale: {about['root']} is gone"
    if now != about["code"]:
        module = about["root"].split()[0].rpartition(".")[0]
        return f"stale: {runs.changed_code(about['code'], now)} changed ({module})"
    if tokens is not None and set(tokens) != about["inputs"].keys():
        return "stale: the list of its inputs changed"
    for token, digest in about["inputs"].items():
        try:
            if digest_of(token) != digest:
                return f"stale: {token} changed"
        except DigitcnnError as error:
            return f"stale: {str(error).removesuffix('.')}"
    return ""


def checksum(arrays: Arrays) -> str:
    """SHA-256 of named arrays, their byte order included; of a single number as of a list."""
    lists = {name: np.atleast_1d(value) for name, value in arrays.items()}
    return files.arrays_digest(lists, "{0.dtype.str}")
