"""Data: images and labels as tensors, of the splits of a data set and of parts of these.

Which images a run learns from and is judged on is part of its key.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from . import files, runs
from .config import SPLITS
from .division import SEED, divide, pool, split_indices
from .sources import Source


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


def select(source: Source, indices: np.ndarray) -> Split:
    """The samples at `indices` of the pool."""
    return Split(
        torch.from_numpy(source.images[indices]), torch.from_numpy(source.labels[indices]), indices
    )


def stratified_subset(split: Split, size: int) -> Split:
    """`size` samples of a split with its class shares kept, in pool order, whatever the run's seed.

    So runs that differ in the seed differ in nothing but what is random in training.
    """
    if size >= len(split):
        return split
    chosen, _ = train_test_split(
        np.arange(len(split)), train_size=size, random_state=SEED, stratify=split.labels.numpy()
    )
    return split.take(np.sort(chosen))


def class_subset(split: Split, counts: dict[int, int | None], seed: int) -> Split:
    """`counts[c]` random samples of each class c (None: all of them), in pool order.

    They are the first of one permutation per seed and class, so that of two subsets with the same
    seed the larger holds the smaller, whatever the other classes.
    """
    labels = split.labels.numpy()
    chosen = []
    for digit, count in sorted(counts.items()):
        members = np.flatnonzero(labels == digit)
        chosen.append(np.random.default_rng([seed, digit]).permutation(members)[:count])
    return split.take(np.sort(np.concatenate(chosen)))


def training_part(config: runs.RunConfig, source: Source) -> Split:
    """The samples that a run learns from: the whole training split or the configured part."""
    split = select(source, divide(source, config.split)["train"])
    if config.class_counts:
        return class_subset(split, dict(config.class_counts), config.seed)
    return stratified_subset(split, config.train_size) if config.train_size else split


def held_out_part(config: runs.RunConfig, source: Source, name: str) -> Split:
    """A held-out split, restricted to the classes that the run learns."""
    split = select(source, divide(source, config.split)[name])
    if config.class_counts:
        return class_subset(split, {digit: None for digit, _ in config.class_counts}, config.seed)
    return split


def load(name: str, split: str, division: str = "pooled") -> Split:
    """One split of a data set. Raises `DigitcnnError` if the data is missing or damaged."""
    if split not in SPLITS:
        raise files.DigitcnnError(
            f"There is no split {split!r}: choose one of {', '.join(SPLITS)}."
        )
    return select(pool(name), split_indices(name, division)[split])
