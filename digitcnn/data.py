"""Data: pooled, split 70/10/20 with stratification, and subsets of the training split.

The official train and test sets are pooled before the split, so figures of this report are not
directly comparable with published ones. Part of every run's key.
"""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from . import files, sources

SEED = 42
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, 3, 32, 32), labels int64 (N,), and their indices in the pool, int64 (N,)."""

    images: Tensor
    labels: Tensor
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> Split:
        """The samples at `positions` of this split, as a new split."""
        at = torch.from_numpy(np.asarray(positions))
        return Split(self.images[at], self.labels[at], self.indices[positions])


def seed_everything(seed: int = SEED) -> None:
    """Seed Python's ``random``, NumPy's global generator and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def split_indices(labels: np.ndarray, seed: int = SEED) -> dict[str, np.ndarray]:
    """Sorted pool indices of each split: 70 % train, 10 % validation, 20 % test, stratified."""
    everything = np.arange(len(labels))
    train, rest = train_test_split(
        everything, train_size=SPLITS["train"], random_state=seed, stratify=labels
    )
    share = SPLITS["validation"] / (SPLITS["validation"] + SPLITS["test"])
    validation, test = train_test_split(
        rest, train_size=share, random_state=seed, stratify=labels[rest]
    )
    return {"train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}


@functools.lru_cache(maxsize=4)
def _pool(name: str, profile: str, root: str) -> tuple[sources.Source, dict[str, np.ndarray]]:
    source = sources.read(name)
    indices = split_indices(source.labels)
    _record_manifest(name, source, indices)
    return source, indices


def pool(name: str) -> tuple[sources.Source, dict[str, np.ndarray]]:
    """The pooled data set and the indices of its splits; read once per process."""
    return _pool(sources.checked(name), files.profile(), str(files.data_root()))


def load(name: str, split: str) -> Split:
    """One split of a data set. Raises `DigitcnnError` if the data is missing or damaged."""
    if split not in SPLITS:
        raise files.DigitcnnError(
            f"There is no split {split!r}: choose one of {', '.join(SPLITS)}."
        )
    source, indices = pool(name)
    chosen = indices[split]
    return Split(
        torch.from_numpy(source.images[chosen]), torch.from_numpy(source.labels[chosen]), chosen
    )


def _record_manifest(name: str, source: sources.Source, indices: dict[str, np.ndarray]) -> None:
    """Write ``cache/data/<name>.json``, from which keys are made where the data is absent."""
    manifest = {
        "name": name,
        "copy": source.copy,
        "file_md5": source.file_md5,
        "images": len(source.labels),
        "official_test": int(source.official_test.sum()),
        "digest": source.digest(),
        "split": {
            split: {
                "images": len(chosen),
                "indices_sha256": hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest(),
                "class_counts": np.bincount(source.labels[chosen], minlength=10).tolist(),
            }
            for split, chosen in indices.items()
        },
    }
    path = files.cache_path("data", f"{name}.json")
    if not path.is_file() or files.read_json(path) != manifest:
        files.write_json(path, manifest)


def stratified_subset(split: Split, size: int, seed: int = SEED) -> Split:
    """`size` samples of a split with its class shares kept, in pool order."""
    if size >= len(split):
        return split
    chosen, _ = train_test_split(
        np.arange(len(split)), train_size=size, random_state=seed, stratify=split.labels.numpy()
    )
    return split.take(np.sort(chosen))


def class_subset(split: Split, counts: dict[int, int | None], seed: int) -> Split:
    """`counts[c]` random samples of each class c (None: all of them), in pool order."""
    generator = np.random.default_rng(seed)
    labels = split.labels.numpy()
    chosen = []
    for digit, count in sorted(counts.items()):
        members = np.flatnonzero(labels == digit)
        if count is not None:
            members = generator.choice(members, size=min(count, len(members)), replace=False)
        chosen.append(members)
    return split.take(np.sort(np.concatenate(chosen)))
