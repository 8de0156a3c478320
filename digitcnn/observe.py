"""Observe: what a chapter's kernel reads and loads while the chapter is executed.

The executor calls `start` before the first cell and `seen` after the last. Files are seen by an
audit hook on ``open``; where compiled code opens a file unseen, its caller reports it with
`report`. Modules and libraries are those that were imported. No cell is parsed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_opened: set[str] = set()
_written: set[str] = set()
_notes: dict[str, list] = {}
_active = False


def start() -> None:
    """Begin to observe; once per process, as an audit hook cannot be taken away."""
    global _active
    if not _active:
        _active = True
        sys.addaudithook(_hook)


def report(path: str | Path) -> None:
    """Say that a file was read that Python did not open itself."""
    _opened.add(os.path.abspath(path))


def note(kind: str, what: object) -> None:
    """Keep something, as JSON can hold it, that goes into the chapter's record under `kind`."""
    _notes.setdefault(kind, []).append(what)


def _hook(event: str, arguments: tuple) -> None:
    if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path, mode, flags = arguments
    path = os.path.abspath(os.fsdecode(path))
    writing = any(sign in mode for sign in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
    (_written if writing else _opened).add(path)


def seen() -> str:
    """Everything observed so far, as JSON: ``opened`` and ``written`` files, project ``modules``
    by dotted name, imported ``libraries`` with their versions, and each kind of `note`."""
    from importlib import metadata

    package = __name__.partition(".")[0]
    tops = {name.partition(".")[0] for name in sys.modules}
    owners = metadata.packages_distributions()
    libraries = sorted({owner for top in tops for owner in owners.get(top, ())} - {package})
    modules = sorted(
        name.partition(".")[2]
        for name, module in sys.modules.items()
        if (name + ".").startswith(package + ".") and getattr(module, "__file__", None)
    )
    return json.dumps(
        {
            "opened": sorted(_opened),
            "written": sorted(_written),
            "modules": [name for name in modules if name != "observe"],
            "libraries": {name: metadata.version(name) for name in libraries},
            "notes": _notes,
        }
    )
