"""Observe: what is read and loaded while a chapter is executed, or a stored result is made.

The executor calls `start` before the first cell and `seen` after the last; the store watches the
making of a result with `reading`. Files are seen by an audit hook on ``open``; where compiled code
opens a file unseen, its caller reports it with `report`. Modules and libraries are those that were
imported. Nothing is parsed for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_opened: set[str] = set()
_written: set[str] = set()
_watching: list[set[str]] = []  # of each `reading` that goes on, what it has seen
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
    for seen_so_far in [_opened, *_watching]:
        seen_so_far.add(os.path.abspath(path))


@contextlib.contextmanager
def reading() -> Iterator[set[str]]:
    """The absolute paths of the files that are opened for reading inside, filled as they are."""
    start()
    found: set[str] = set()
    _watching.append(found)
    try:
        yield found
    finally:
        _watching[:] = [each for each in _watching if each is not found]


def note(kind: str, what: object) -> None:
    """Keep something, as JSON can hold it, that goes into the chapter's record under `kind`."""
    _notes.setdefault(kind, []).append(what)


def _hook(event: str, arguments: tuple) -> None:
    if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path, mode, flags = arguments
    path = os.path.abspath(os.fsdecode(path))
    writing = any(sign in mode for sign in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
    for seen_so_far in [_written] if writing else [_opened, *_watching]:
        seen_so_far.add(path)


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
