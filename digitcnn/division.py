"""Division: one pool a data set, its labels, and which of its images belong to which split.

The division of the report, ``pooled``, splits the official train and test sets together 70/10/20,
stratified, so figures on it are not directly comparable with published ones; those on the division
``official`` are. Labels are stored, so that neither the images nor torch are needed for them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from . import files, runs, sources
from .config import SPLITS
from .sources import Source

SEED = 42
POOLED_SHARES = (0.7, 0.1, 0.2)
OFFICIAL_VALIDATION = 0.1  # of the official training images


def pooled_division(labels: np.ndarray, official_test: np.ndarray) -> list[np.ndarray]:
    """Train 70 %, validation 10 %, test 20 % of all images, stratified; where they come from is
    ignored."""
    train, validation, test = POOLED_SHARES
    everything = np.arange(len(labels))
    learned, rest = train_test_split(
        everything, train_size=train, random_state=SEED, stratify=labels
    )
    share = validation / (validation + test)
    return [
        learned,
        *train_test_split(rest, train_size=share, random_state=SEED, stratify=labels[rest]),
    ]


def official_division(labels: np.ndarray, official_test: np.ndarray) -> list[np.ndarray]:
    """The official test set, and a stratified tenth of the official training set for validation."""
    given = np.flatnonzero(~official_test)
    learned, validation = train_test_split(
        given, test_size=OFFICIAL_VALIDATION, random_state=SEED, stratify=labels[given]
    )
    return [learned, validation, np.flatnonzero(official_test)]


DIVISIONS = {"pooled": pooled_division, "official": official_division}


def divide(source: Source | Labels, division: str) -> dict[str, np.ndarray]:
    """Sorted pool indices of each of `SPLITS`."""
    parts = DIVISIONS[division](source.labels, source.official_test)
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True)}


# What is read once per process, and told to the rest of the project


class Labels(NamedTuple):
    """Of all images of a data set, in the order of the pool."""

    labels: np.ndarray
    """int64 (N,), the digit 0 to 9."""
    official_test: np.ndarray
    """bool (N,), whether the image is in the official test set."""


@functools.lru_cache(maxsize=4)
def _pool(name: str, profile: str, root: str) -> Source:
    source = sources.read(name)
    _record_manifest(name, source)
    return source


def pool(name: str) -> Source:
    """The pooled data set; read once per process."""
    return _pool(sources.checked(name), files.profile(), str(files.data_root()))


@functools.lru_cache(maxsize=4)
def _labels(name: str, profile: str, results: str) -> Labels:
    path = files.cache_path("data", f"{name}.npz")
    if not (runs.has_manifest(name) and path.is_file()):
        source = pool(name)
        return Labels(source.labels, source.official_test)
    kept = files.read_arrays(path)
    if str(kept.get("digest")) != runs.manifest(name)["digest"]:
        raise files.unusable(path, "is damaged", f"delete it and run `digitcnn data {name}`")
    return Labels(kept["labels"].astype(np.int64), kept["official_test"])


def labels(name: str) -> Labels:
    """The labels of the pool; stored beside the manifest, so that they need no data set."""
    return _labels(sources.checked(name), files.profile(), str(files.results_root()))


@functools.lru_cache(maxsize=8)
def _indices(name: str, division: str, profile: str, results: str) -> dict[str, np.ndarray]:
    return divide(labels(name), division)


def split_indices(name: str, division: str = "pooled") -> dict[str, np.ndarray]:
    """Sorted pool indices of each split of a data set; needs its labels alone."""
    if division not in DIVISIONS:
        raise files.DigitcnnError(
            f"There is no division {division!r}: choose one of {', '.join(DIVISIONS)}."
        )
    return _indices(sources.checked(name), division, files.profile(), str(files.results_root()))


def _record_manifest(name: str, source: Source) -> None:
    """Write ``cache/data/<name>.json``, from which keys are made where the data is absent.

    The manifest of a data set that is known already stays as it is, whichever copy was read: what
    it says of the copy is which one the stored results were made from.
    """
    kept = files.cache_path("data", f"{name}.npz")
    known = False
    if runs.has_manifest(name):
        with contextlib.suppress(files.DigitcnnError):  # damaged, a conflict of git for one
            manifest = runs.manifest(name)
            known = manifest["digest"] == source.identity
            known = known and manifest["divisions"].keys() == DIVISIONS.keys()
    if known and kept.is_file():
        return
    arrays = {"labels": source.labels.astype("u1"), "official_test": source.official_test}
    files.write_arrays(kept, arrays | {"digest": np.array(source.identity)})
    if known:
        return
    files.write_json(
        files.cache_path("data", f"{name}.json"),
        {
            "name": name,
            "copy": source.copy,
            "file_md5": source.file_md5,
            "images": len(source.labels),
            "official_test": int(source.official_test.sum()),
            "digest": source.identity,
            "divisions": {
                division: {
                    split: {
                        "images": len(part),
                        "indices_sha256": hashlib.sha256(part.astype("<i8").tobytes()).hexdigest(),
                        "class_counts": np.bincount(source.labels[part], minlength=10).tolist(),
                    }
                    for split, part in divide(source, division).items()
                }
                for division in DIVISIONS
            },
        },
    )
