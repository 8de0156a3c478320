"""Provenance: what each frozen chapter was made from, and which have to be made again.

Quarto's freeze looks at the text of a chapter alone. So every chapter ends by recording what it
reached: the modules of this package, as syntax trees, and the files below ``cache/`` and
``models/`` that it read. Before a render, `thaw` compares the records with what is there now and
deletes the frozen results of the chapters that no longer fit (`digitcnn.status` calls it). Needs
no torch.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import hashlib
import re
import shutil
import time
from pathlib import Path

from . import BEGAN, files, runs

_PACKAGE = Path(__file__).parent
_CELL = re.compile(r"^```\{python\}.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NOT_IN_KEY = ("key", "seconds", "longest")


def documents() -> list[str]:
    """The book's documents with Python cells, without ``.qmd``, relative to the project."""
    root = files.project_root()
    found = [root / "index.qmd", *sorted((root / "chapters").glob("*.qmd"))]
    return [
        path.relative_to(root).with_suffix("").as_posix()
        for path in found
        if path.is_file() and _CELL.search(path.read_text(encoding="utf-8"))
    ]


def frozen(document: str) -> Path:
    """The folder of a document's frozen results."""
    return files.project_root() / "_freeze" / document


@functools.cache
def imported(source: str) -> frozenset[str]:
    """Modules of this package that Python source imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("digitcnn." if node.level else "") + (node.module or "")
            paths = [f"{base.rstrip('.')}.{alias.name}" for alias in node.names] + [base]
        else:
            continue
        for path in paths:
            package, _, rest = path.partition(".")
            module = rest.split(".")[0]
            if package == "digitcnn" and (_PACKAGE / f"{module}.py").is_file():
                names.add(module)
    return frozenset(names)


def code(document: str) -> str:
    """The Python code of a document's cells, without magics. Raises for an unsafe name."""
    path = files.project_root() / f"{_checked(document)}.qmd"
    if not path.is_file():
        raise files.DigitcnnError(f"There is no chapter {files.shown(path)}: check its name.")
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^\s*[%!].*$", "", "\n".join(_CELL.findall(text)), flags=re.MULTILINE)


def reached(document: str) -> set[str]:
    """Modules of this package that a document's cells reach, directly or through others."""
    try:
        waiting, known = set(imported(code(document))), set()
    except SyntaxError as error:
        raise files.DigitcnnError(
            f"{document}.qmd has a cell that is no valid Python ({error.msg}): mend it."
        ) from error
    while waiting:
        module = waiting.pop()
        known.add(module)
        source = (_PACKAGE / f"{module}.py").read_text(encoding="utf-8")
        waiting |= imported(source) - known
    return known - {"provenance"}  # which records, and shapes no result


def module_digest(module: str) -> str:
    """Fingerprint of a module's syntax tree."""
    return _digest((_PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


@functools.cache
def _digest(source: str) -> str:
    return files.fingerprint(runs.syntax(source))


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def record_path(document: str) -> Path:
    """Where the record of a document's last execution lies. Raises for an unsafe name."""
    return files.cache_path("chapters", f"{Path(_checked(document)).name}.json")


def _checked(document: str) -> str:
    for part in document.split("/"):
        files.checked_name(part, "chapter name")
    return document


def kept(name: str) -> bool:
    """Whether a file is a stored result of the repository; ``.gitignore`` says which are not."""
    if not name.startswith(("cache/", "models/")) or name.startswith("cache/chapters/"):
        return False
    found = True
    ignored = files.project_root() / ".gitignore"
    for line in ignored.read_text("utf-8").splitlines() if ignored.is_file() else ():
        pattern = line.removeprefix("!") + ("*" if line.endswith("/") else "")
        if fnmatch.fnmatchcase(f"/{name}", pattern):
            found = line.startswith("!")  # the last match decides
    return found


def read_record(document: str) -> dict:
    """A document's record; empty if there is none or it is damaged, which its key tells."""
    try:
        about = files.read_json(record_path(document))
    except files.DigitcnnError:
        return {}
    made_from = {name: value for name, value in about.items() if name not in _NOT_IN_KEY}
    return about if about.get("key") == files.fingerprint(made_from) else {}


def record(document: str) -> dict:
    """Write and return what `document`, executed in this process, was made from.

    With it go the wall times in seconds of this execution and of the longest so far, which is
    that with all cached results to be made.
    """
    root, read = files.results_root(), {}
    for path in sorted(files.noted_reads()):
        if path.is_relative_to(root) and path.is_file():
            name = path.relative_to(root).as_posix()
            if kept(name):
                read[name] = _file_digest(path)
    about = {
        "document": document,
        "profile": files.profile(),
        "cells": files.fingerprint(code(document)),
        "modules": {module: module_digest(module) for module in sorted(reached(document))},
    }
    previous = read_record(document)
    if all(previous.get(name) == value for name, value in about.items()):
        # The PDF's execution finds the results that the HTML's has just cached, and so does not
        # read what they were made from.
        for name, digest in previous["files"].items():
            if (root / name).is_file() and _file_digest(root / name) == digest:
                read.setdefault(name, digest)
    about["files"] = read
    about["key"] = files.fingerprint(about)
    if previous.get("key") != about["key"]:  # the time alone is no reason to write
        seconds = round(time.monotonic() - BEGAN, 1)
        longest = max(seconds, previous.get("longest", previous.get("seconds", 0)))
        times = {"seconds": seconds, "longest": longest}
        files.write_json(record_path(document), about | times)
    return about


def read_page(path: Path) -> dict:
    """A document's frozen results for one format; empty if they are damaged."""
    try:
        return files.read_json(path)
    except files.DigitcnnError:
        return {}


def changes(document: str) -> list[str]:
    """What changed since `document` was executed, as words; empty if its results still fit."""
    about = read_record(document)
    if not about:
        return ["there is no valid record of what it was made from"]
    found = []
    for page in sorted((frozen(document) / "execute-results").glob("*.json")):
        if about["key"] not in read_page(page).get("result", {}).get("markdown", ""):
            found.append(f"{files.shown(page)} is of another execution or damaged")
    modules = {module: module_digest(module) for module in reached(document)}
    for module in sorted(modules.keys() | about["modules"].keys()):
        if modules.get(module) != about["modules"].get(module):
            found.append(f"digitcnn/{module}.py changed")
    for name, digest in about["files"].items():
        path = files.results_root() / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif _file_digest(path) != digest:
            found.append(f"{name} changed")
    return found


def thaw() -> list[str]:
    """Delete the frozen results of documents that no longer fit; a line for each, with why."""
    lines = []
    if files.profile() == "quick":  # is never frozen
        return lines
    for document in documents():
        if frozen(document).is_dir() and (found := changes(document)):
            shutil.rmtree(frozen(document))
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            lines.append(f"{document} is executed again: {found[0]}{more}.")
    return lines
