"""Provenance: what each frozen chapter was made from, and which have to be made again.

Quarto's freeze looks at the text of a chapter alone. So every chapter ends by recording what it
reached: the modules of this package, as syntax trees, and the files below ``cache/`` and
``models/`` that it read. Before a render, `thaw` compares the records with what is there now and
deletes the frozen results of the chapters that no longer fit. Needs no torch.
"""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
import sys
import time
from pathlib import Path

from . import files, runs

_PACKAGE = Path(__file__).parent
_CELL = re.compile(r"^```\{python\}.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NOT_RESULTS = ("checkpoints", "features", "locks", "chapters")  # made on the way, not shown
_began = time.monotonic()


def documents() -> list[str]:
    """The book's documents with Python cells, without ``.qmd``, relative to the project."""
    root = files.project_root()
    found = [root / "index.qmd", *sorted((root / "chapters").glob("*.qmd"))]
    return [
        path.relative_to(root).with_suffix("").as_posix()
        for path in found
        if path.is_file() and _CELL.search(path.read_text(encoding="utf-8"))
    ]


def imported(source: str) -> set[str]:
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
    return names


def reached(document: str) -> set[str]:
    """Modules of this package that a document's cells reach, directly or through others."""
    text = (files.project_root() / f"{document}.qmd").read_text(encoding="utf-8")
    cells = "\n".join(_CELL.findall(text))
    waiting, known = imported(re.sub(r"^\s*[%!].*$", "", cells, flags=re.MULTILINE)), set()
    while waiting:
        module = waiting.pop()
        known.add(module)
        source = (_PACKAGE / f"{module}.py").read_text(encoding="utf-8")
        waiting |= imported(source) - known
    return known - {"provenance"}  # which records, and shapes no result


def module_digest(module: str) -> str:
    """Fingerprint of a module's syntax tree."""
    return files.fingerprint(runs.syntax((_PACKAGE / f"{module}.py").read_text(encoding="utf-8")))


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def record_path(document: str) -> Path:
    """Where the record of a document's last execution lies."""
    return files.cache_path("chapters", f"{Path(document).name}.json")


def record(document: str) -> dict:
    """Write and return what `document`, executed in this process, was made from."""
    root = files.results_root()
    read = {}
    for path in sorted(files.noted_reads()):
        if path.is_relative_to(root) and path.is_file():
            name = path.relative_to(root)
            if name.parts[0] in ("cache", "models") and name.parts[1] not in _NOT_RESULTS:
                read[name.as_posix()] = _file_digest(path)
    about = {
        "document": document,
        "profile": files.profile(),
        "modules": {module: module_digest(module) for module in sorted(reached(document))},
        "files": read,
    }
    about["key"] = files.fingerprint(about)
    path = record_path(document)
    previous = files.read_json(path) if path.is_file() else {}
    if previous.get("key") != about["key"]:  # the time alone is no reason to write
        files.write_json(path, about | {"seconds": round(time.monotonic() - _began, 1)})
    return about


def changes(document: str) -> list[str]:
    """What changed since `document` was executed, as words; empty if its results still fit."""
    path = record_path(document)
    if not path.is_file():
        return ["there is no record of what it was made from"]
    about = files.read_json(path)
    found = []
    modules = {module: module_digest(module) for module in reached(document)}
    for module in sorted(modules.keys() | about.get("modules", {}).keys()):
        if modules.get(module) != about.get("modules", {}).get(module):
            found.append(f"digitcnn/{module}.py changed")
    for name, digest in about.get("files", {}).items():
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
        frozen = files.project_root() / "_freeze" / document
        if frozen.is_dir() and (found := changes(document)):
            shutil.rmtree(frozen)
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            lines.append(f"{document} is executed again: {found[0]}{more}.")
    return lines


def main() -> int:
    """The book's pre-render step."""
    try:
        for line in thaw():
            print(line, flush=True)
    except files.DigitcnnError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
