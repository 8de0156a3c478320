"""Manifests: what is known of a data set without reading it, from ``cache/data/<data>.json``.

`digitcnn.division` writes them; a run's key is made from them.
"""

from __future__ import annotations

import functools
from pathlib import Path

from . import files
from .config import SPLITS

MANIFEST_NAMES = {"name", "copy", "file_md5", "images", "official_test", "digest", "divisions"}
PART_NAMES = {"images", "indices_sha256", "class_counts"}


def has_manifest(data: str) -> bool:
    """Whether the data set has been read once, so that `manifest` can tell about it."""
    return files.cache_path("data", f"{data}.json").is_file()


def manifest(data: str) -> dict:
    """What ``cache/data/<data>.json`` records of a data set (see `digitcnn.data`).

    Raises `DigitcnnError` if it is missing or damaged; its counts have to add up.
    """
    path = files.cache_path("data", f"{data}.json")
    try:
        state = path.stat()
    except OSError:
        return _manifest(data, path, 0, 0)
    return _manifest(data, path, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=8)
def _manifest(data: str, path: Path, modified: int, inode: int) -> dict:
    """A manifest as its file stands at a moment; `status` asks for it thousands of times."""
    found = files.read_json(path, remedy=f"run `digitcnn data {data}` to make it")
    try:
        whole = isinstance(found["digest"], str) and found.keys() <= MANIFEST_NAMES
        for division in found["divisions"].values():
            total = sum(part["images"] for part in division.values())
            whole = whole and division.keys() == set(SPLITS) and found.get("images", total) == total
            for part in division.values():
                whole = whole and part.keys() <= PART_NAMES
                whole = whole and isinstance(part["indices_sha256"], str)
                whole = whole and sum(part.get("class_counts", [])) in (0, part["images"])
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise files.unusable(path, "is damaged", f"run `digitcnn data {data}` to make it again")
    return found


def split_sizes(data: str, division: str = "pooled") -> dict[str, dict]:
    """What the manifest says of each split: ``images``, ``class_counts``, ``indices_sha256``."""
    divisions = manifest(data)["divisions"]
    if division not in divisions:
        path = files.cache_path("data", f"{data}.json")
        remedy = f"run `digitcnn data {data}` to make it again"
        raise files.unusable(path, f"knows no division {division!r}", remedy)
    return divisions[division]
