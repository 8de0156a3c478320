"""Provenance: what each frozen chapter was made from, and which no longer fit.

Quarto's freeze looks at the text of a chapter alone. So the executor (``tools/execute.py``) lays
a record beside a chapter's frozen pages: what was observed while it was executed (files, modules,
libraries, options; see `digitcnn.observe`) and the digest of each page and figure. `state` compares
it with what is there now. Needs no torch.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.metadata
import json
import re
import stat
from pathlib import Path
from typing import NamedTuple

from . import files, reach

RECORD = "record.json"
PAGES = ("execute-results/html.json", "execute-results/typ.json")  # a file per format
_version = functools.cache(importlib.metadata.version)
_CELL = re.compile(r"^[\t >]*```+\s*\{python\b", re.MULTILINE)


class Freshness(enum.Enum):
    """How a document's frozen results stand to what they were made from."""

    CURRENT = "current"
    MISSING = "missing"
    STALE = "stale"


class State(NamedTuple):
    """A document's freshness, and what changed, a phrase each."""

    freshness: Freshness
    changes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the document can be rendered as it is frozen."""
        return self.freshness is Freshness.CURRENT

    def __str__(self) -> str:
        more = f" and {len(self.changes) - 1} more" if len(self.changes) > 1 else ""
        why = f": {self.changes[0]}{more}" if self.changes else ""
        return self.freshness.value + why


def documents() -> list[str]:
    """The book's documents with Python cells, without ``.qmd``, relative to the project."""
    root = files.project_root()
    found = [root / "index.qmd", *sorted((root / "chapters").glob("*.qmd"))]
    return [
        path.relative_to(root).with_suffix("").as_posix()
        for path in found
        if path.is_file() and _CELL.search(path.read_text(encoding="utf-8"))
    ]


def checked(document: str) -> str:
    """Return a document's name if it is safe in a path; else raise `DigitcnnError`."""
    for part in document.split("/"):
        files.checked_name(part, "chapter name")
    return document


def frozen(document: str) -> Path:
    """The folder of a document's frozen results."""
    return files.project_root() / "_freeze" / checked(document)


def aside(document: str) -> Path:
    """Where a document's old results lie between the two renames of an exchange."""
    return files.project_root().joinpath("cache", "local", "aside", document.replace("/", "-"))


def put_back() -> list[str]:
    """Put back the results that an exchange which was killed left aside; the documents' names."""
    back = []
    if any(aside(document).is_dir() for document in documents()):
        with files.lock("exchange"):
            for document in documents():
                if aside(document).is_dir() and not frozen(document).is_dir():
                    frozen(document).parent.mkdir(parents=True, exist_ok=True)
                    aside(document).rename(frozen(document))
                    back.append(document)
    return back


def source_digest(document: str) -> str:
    """The digest that Quarto's freezer gives a document (MD5, with LF line endings)."""
    text = (files.project_root() / f"{checked(document)}.qmd").read_bytes()
    return hashlib.md5(text.replace(b"\r\n", b"\n")).hexdigest()


def file_digest(path: Path) -> str | None:
    """Digest of a file's content; None if it is not there."""
    try:
        now = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(now.st_mode):
        return None
    return _digest(path, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_size)


@functools.lru_cache(maxsize=2000)  # documents share files: `status` would read each many times
def _digest(path: Path, *as_it_stands: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def counts(path: Path) -> str | None:
    """The name under which a file that was read counts, relative to the project; None if not.

    The environment, caches of Python and of others, frozen results and data sets do not count (of
    a data set its manifest does), nor do this package's modules, which count as syntax trees.
    """
    root = files.project_root()
    if not path.is_relative_to(root):
        return None
    name = path.relative_to(root).as_posix()
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    made = parts[0] in ("_freeze", "_book", "_quick", "data", "site_libs")
    module = parts[0] == "digitcnn" and name.endswith(".py")
    return None if hidden or made or module or name.startswith("cache/local/") else name


def committed(name: str) -> bool:
    """Whether a file, by its path in the project, is a stored result of the repository.

    All below ``cache/`` and ``models/`` are, but for ``cache/local/`` and what is being written.
    """
    inside = name.startswith(("cache/", "models/")) and not name.startswith("cache/local/")
    return inside and not Path(name).name.startswith(".")


def read_record(folder: Path) -> dict:
    """The record in a folder of frozen results; empty if there is none or it is damaged."""
    try:
        about = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        seal = about.pop("seal")
    except (OSError, ValueError, AttributeError, KeyError):
        return {}
    return about if seal == files.fingerprint(about) else {}


def options_digest() -> str:
    """Digest of the options in Quarto's configuration that say how cells are executed."""
    root = files.project_root()
    paths = sorted([*root.glob("_quarto*.yml"), *root.glob("chapters/_metadata.yml")])
    return _options_digest(tuple((path.name, path.read_text("utf-8")) for path in paths))


@functools.lru_cache(maxsize=2)  # asked of each document
def _options_digest(texts: tuple[tuple[str, str], ...]) -> str:
    import yaml

    found = {}
    for name, text in texts:
        about = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
        options = {
            "options": _executing(about),
            "formats": {name: _executing(own) for name, own in (about.get("format") or {}).items()},
        }
        if any(options.values()):  # a submission's profile has none
            found[name] = options
    return files.fingerprint(found)


def _executing(options: dict | str) -> dict:
    """Of options (or "default"), those that say how cells are executed."""
    kinds = ("execute", "jupyter", "engine", "echo", "eval")
    found = options.items() if isinstance(options, dict) else ()
    return {k: v for k, v in found if k in kinds or k.startswith("fig-")}


def frozen_files(folder: Path) -> dict[str, str | None]:
    """The digest of each frozen page and figure by its name in a folder of frozen results."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in paths
        if path.name != RECORD
    }


def changes(document: str, folder: Path | None = None) -> list[str]:
    """What changed since a document was executed, a phrase each; empty if its results still fit.

    Args:
        folder: the frozen results to judge, default those in ``_freeze``.
    """
    folder = folder or frozen(document)
    about = read_record(folder)
    if not about:
        return ["there is no valid record of what it was made from"]
    found = []
    now = frozen_files(folder)
    for name, digest in about["frozen"].items():
        if now.get(name) != digest:
            found.append(f"its frozen {name} {'changed' if name in now else 'is missing'}")
    found += [f"its frozen {name} was added" for name in now.keys() - about["frozen"].keys()]
    if about["source"] != source_digest(document):
        found.append("its text changed")
    if about["profile"] != files.profile():
        found.append(f"it was executed in the {about['profile']} profile")
    if about["options"] != options_digest():
        found.append("options in _quarto.yml or _metadata.yml changed")
    for name, digest in about["modules"].items():
        if reach.text_digest(name) == about.get("texts", {}).get(name):
            continue  # not a letter changed, so nothing has to be parsed
        if (current := reach.module_digest(name)) != digest:
            found.append(f"digitcnn/{name.replace('.', '/')}.py {_how(current)}")
    for name, digest in about["files"].items():
        current = file_digest(files.project_root() / name) or files.left_out().get(name)
        if current != digest:
            found.append(f"{name} {_how(current)}")
    return found + [f"{name} has another version" for name in other_libraries(about)]


def _how(current: str | None) -> str:
    return "is missing" if current is None else "changed"


def other_libraries(about: dict) -> list[str]:
    """Libraries of a record that have another version here, where all of them are installed."""
    try:
        return [n for n, v in about.get("libraries", {}).items() if _version(n) != v]
    except importlib.metadata.PackageNotFoundError:
        return []


def state(document: str) -> State:
    """How a document's frozen results stand to what they were made from."""
    folder = frozen(document)
    if not all((folder / page).is_file() for page in PAGES):
        return State(Freshness.MISSING)
    if found := changes(document):
        return State(Freshness.STALE, tuple(found))
    return State(Freshness.CURRENT)
