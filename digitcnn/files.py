"""Files: where they are, written whole or not at all, one writer at a time.

This module knows no machine learning and imports nothing heavy, so that the command line,
the pre-render step and the renderer start at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PROFILES = ("full", "quick")
LEFT_OUT = "left-out.json"  # of a submission, which holds neither all models nor all results
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,79}")


class DigitcnnError(Exception):
    """Something the user can mend; its text is one sentence with the remedy."""


class Interrupted(DigitcnnError):
    """Work was stopped by Ctrl-C after it had been saved; the text says how to go on."""


def profile() -> str:
    """The active profile, from ``DIGITCNN_PROFILE``: ``full`` (default) or ``quick``."""
    name = os.environ.get("DIGITCNN_PROFILE") or "full"
    if name not in PROFILES:
        raise DigitcnnError(
            f"DIGITCNN_PROFILE is {name!r}: set it to one of {', '.join(PROFILES)}, or unset it."
        )
    return name


HOME = Path(__file__).resolve().parent.parent  # of this copy of the project


def project_root() -> Path:
    """The folder of ``_quarto.yml``; ``DIGITCNN_ROOT`` replaces it (tests, copies)."""
    return _folder_from_environment("DIGITCNN_ROOT", HOME)


def data_root() -> Path:
    """Where the downloaded data sets lie: ``DIGITCNN_DATA``, else ``data/`` in the project."""
    return _folder_from_environment("DIGITCNN_DATA", project_root() / "data")


def _folder_from_environment(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    if not value:
        return default
    if not value.isprintable():
        raise DigitcnnError(f"{variable} holds control characters: set it to a plain folder name.")
    try:
        folder = Path(value).expanduser().resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            folder.stat()
        return folder
    except (RuntimeError, OSError) as error:  # ~somebody, a loop of links, a name that is too long
        raise DigitcnnError(
            f"{variable} is {value!r}, which leads nowhere: set it to a plain folder name."
        ) from error


def results_root() -> Path:
    """The folder that holds ``cache/`` and ``models/`` of the active profile.

    The quick profile has a tree of its own, so its results cannot enter the full report.
    """
    return project_root() / "_quick" if profile() == "quick" else project_root()


def cache_path(*parts: str) -> Path:
    """A path below the active profile's ``cache/``."""
    return results_root().joinpath("cache", *parts)


def checkpoints_root() -> Path:
    """Where unfinished training lies: ``DIGITCNN_CHECKPOINTS``, else in ``cache/local/``.

    That of the quick profile, whose runs have the same names, is kept apart from the other.
    """
    inside = cache_path("local", "checkpoints")
    folder = _folder_from_environment("DIGITCNN_CHECKPOINTS", inside)
    return folder / "quick" if folder != inside and profile() == "quick" else folder


def model_path(file_name: str) -> Path:
    """A path in the active profile's ``models/``."""
    return results_root() / "models" / file_name


def shown(path: Path) -> str:
    """`path` as the user would type it: relative to the project where that is possible."""
    try:
        return path.resolve().relative_to(project_root()).as_posix()
    except (ValueError, RuntimeError):  # elsewhere, or a loop of links
        return str(path)


def unusable(path: Path, why: str, remedy: str = "delete it and run `make train`") -> DigitcnnError:
    """The sentence on a file that cannot be used: why, and what to do about it."""
    return DigitcnnError(f"{shown(path)} {why}: {remedy}.")


def left_out() -> dict[str, str]:
    """The digests of the files that a submission was packed without, by path; elsewhere none."""
    path = project_root() / LEFT_OUT
    return read_json(path, "unpack the submission again") if path.is_file() else {}


def has(path: Path) -> bool:
    """Whether a file is there, or absent only because the submission was packed without it."""
    return path.is_file() or shown(path) in left_out()


def checked_name(name: str, what: str) -> str:
    """Return `name` if it is a plain lower-case name that is safe in a path; else refuse it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise DigitcnnError(
            f"{name!r} is no {what}: use lower-case letters, digits, '-' and '.', at most 80."
        )
    return name


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all: temporary name, flushed to disk, then ``os.replace``.

    Raises `DigitcnnError` when the folder cannot be written or the disk is full; the file that
    was there before is then untouched and no temporary file is left.
    """
    payload = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".part", dir=path.parent
        )
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C, too, leaves nothing behind
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise DigitcnnError(
            f"Cannot write {shown(path)} ({error.strerror or error}): free some disk space or make "
            "the folder writable, then start again; nothing was changed."
        ) from error


def remove_leftovers(path: Path) -> None:
    """Remove what a process that was killed while it wrote `path` left; call under its lock."""
    for left in path.parent.glob(f".{path.name}.*.part"):
        left.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, remedy: str = "run `make train` to make it") -> dict:
    """Read a JSON object. Raises `DigitcnnError`, with the remedy, if it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise unusable(path, "is missing", remedy) from None
    except (OSError, ValueError, RecursionError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise unusable(path, f"cannot be read ({what})", f"delete it, then {remedy}") from error
    if not isinstance(value, dict):
        raise unusable(path, "is damaged", f"delete it, then {remedy}")
    return value


def noted(path: Path) -> Path:
    """Return `path`: what is read is observed (`digitcnn.observe`); stored results name this."""
    return path


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as a compressed npz file, whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its types know no names
    write_whole(path, buffer.getvalue())


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file, all or those of these names; none at all if it is damaged.

    Nothing in it can be executed.
    """
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names or archive.files}
    except Exception:  # zipfile and NumPy raise a dozen kinds on damaged bytes
        return {}


def arrays_digest(arrays: dict[str, np.ndarray], about: str = "torch.{0.dtype.name}") -> str:
    """SHA-256 of named arrays: names, types (as `about` formats an array), shapes and bytes."""
    sha = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        sha.update(f"{name} {about.format(value)} {value.shape};".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()


def file_md5(path: Path) -> str:
    """MD5 of a file, as the data sets' publishers pin it (hexadecimal)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def fingerprint(*parts: object) -> str:
    """SHA-256 (first 16 hexadecimal digits) of JSON-serialisable `parts`."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the named lock of this results tree; it dies with the process that owns it."""
    from filelock import FileLock, Timeout

    path = cache_path("local", "locks", f"{name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        owner = FileLock(path)
        try:
            owner.acquire(timeout=0)
        except Timeout:
            say(f"{name}: another process is working on it; waiting for it to finish.")
            owner.acquire()
    except OSError as error:
        raise DigitcnnError(
            f"Cannot lock {shown(path)} ({error.strerror or error}): make the folder writable."
        ) from error
    try:
        yield
    finally:
        owner.release()


def say(line: str) -> None:
    """Print a progress line to the terminal, never into a rendered document.

    A Jupyter kernel captures ``sys.stderr``; ``sys.__stderr__`` is the process's own.
    """
    stream = sys.__stderr__
    if stream is not None:
        print(line, file=stream, flush=True)
