"""Chapter 1: what the two data sets are like, from stored results; needs neither data nor torch."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from .. import runs, store
from ..runs import SPLITS
from ..sources import TITLES

DIGITS = range(10)
EACH = 2  # sample images of each class and split, as the assignment asks
BINS = 64  # steps of the grey values' histogram
DRAWN = 3000  # images of each data set in the scatter of mean and contrast


def _whole(name: str) -> list[str]:
    return [store.images(name, split) for split in SPLITS]


@store.stored(lambda name, split: f"dataset/first-{name}-{split}",
              lambda name, split: [store.images(name, split)])  # fmt: skip
def first_of_each_class(name: str, split: str) -> dict[str, np.ndarray]:
    """The first `EACH` images of each class in a split: ``images`` uint8 (10, 2, 3, 32, 32)."""
    from .. import data

    samples = data.load(name, split)
    labels, images = samples.labels.numpy(), samples.images.numpy()
    return {"images": np.stack([images[labels == digit][:EACH] for digit in DIGITS])}


def samples(name: str) -> dict[str, np.ndarray]:
    """`first_of_each_class` by split."""
    return {split: first_of_each_class(name, split)["images"] for split in SPLITS}


@store.stored(lambda name: f"dataset/pixels-{name}", _whole)
def pixels(name: str) -> dict[str, np.ndarray]:
    """Statistics of the pixels in [0, 1].

    ``mean`` and ``std`` float64 (3, 3) by split and channel; of the training images ``histogram``
    float64 (`BINS`,), the share of grey values in equal steps; ``drawn`` float32 (n, 2), mean and
    contrast (standard deviation of the grey values) of at most `DRAWN` random images; ``contrast``,
    the median contrast of all.
    """
    from .. import data

    found: dict[str, list] = {"mean": [], "std": []}
    for split in SPLITS:
        images = data.load(name, split).images.numpy()
        parts = images.reshape(len(images), 3, -1)
        found["mean"].append([parts[:, c].mean(dtype=float) / 255 for c in range(3)])
        found["std"].append([parts[:, c].std(dtype=float) / 255 for c in range(3)])
        if split == "train":
            grey = images.astype(np.uint16).sum(1).reshape(len(images), -1)  # 0 to 765
            counts = np.bincount(grey.ravel() * BINS // 766, minlength=BINS)
            each = np.stack([grey.mean(1), grey.std(1)], axis=1) / 765
    chosen = np.random.default_rng(runs.SEED).permutation(len(each))[:DRAWN]
    return {
        **{name: np.array(values) for name, values in found.items()},
        "histogram": counts / counts.sum(),
        "drawn": each[chosen].astype("f4"),
        "contrast": np.array(np.median(each[:, 1])),
    }


def intensity(name: str) -> pd.DataFrame:
    """Mean and standard deviation of the pixels in [0, 1] by split (rows) and channel."""
    kept = pixels(name)
    columns = [f"{what} {channel}" for what in ("mean", "std") for channel in "RGB"]
    table = np.concatenate([kept["mean"], kept["std"]], axis=1)
    return pd.DataFrame(table, index=pd.Index(SPLITS, name="split"), columns=columns)


@store.stored(lambda name: f"dataset/copies-{name}", _whole)
def copies(name: str) -> dict[str, np.ndarray]:
    """Exact copies (equal in every value) in the pool and across the boundaries of the splits.

    ``pool``: images beyond the first of each set of equal ones; ``validation`` and ``test``: images
    of that split with an equal one in the training split; ``conflicting``: sets of equal images
    with different labels.
    """
    from .. import division

    source, indices = division.pool(name), division.split_indices(name)
    digests = pd.Series([hashlib.blake2b(image.tobytes()).digest() for image in source.images])
    group = digests.groupby(digests).ngroup().to_numpy()
    learned = np.unique(group[indices["train"]])
    labels_per_group = pd.Series(source.labels).groupby(group).nunique()
    counts = {
        "pool": len(group) - group.max() - 1,
        "validation": np.isin(group[indices["validation"]], learned).sum(),
        "test": np.isin(group[indices["test"]], learned).sum(),
        "conflicting": (labels_per_group > 1).sum(),
    }
    return {name: np.array(int(count)) for name, count in counts.items()}


@store.stored(lambda name: f"dataset/origin-{name}", _whole)
def origin(name: str) -> dict[str, np.ndarray]:
    """The share of each split's images that the official division has in its test set."""
    from .. import division

    official = division.labels(name).official_test
    return {s: np.array(official[at].mean()) for s, at in division.split_indices(name).items()}


def split_sizes() -> pd.DataFrame:
    """Number of images by data set (rows) and split (columns), with the total."""
    rows = {}
    for name, title in TITLES.items():
        parts = runs.split_sizes(name)
        rows[title] = {split: parts[split]["images"] for split in SPLITS}
    frame = pd.DataFrame(rows).T.rename_axis("data set")
    return frame.assign(total=frame.sum(axis=1))


def class_counts(name: str) -> pd.DataFrame:
    """Number of images by class (rows) and split (columns)."""
    parts = runs.split_sizes(name)
    counts = {split: parts[split]["class_counts"] for split in SPLITS}
    return pd.DataFrame(counts, index=pd.Index(DIGITS, name="class"))


def stratification_error(name: str) -> float:
    """Largest difference between a class's share in a split and in the pool, in [0, 1]."""
    counts = class_counts(name)
    shares, pooled = counts / counts.sum(), counts.sum(axis=1) / counts.to_numpy().sum()
    return float(shares.sub(pooled, axis=0).abs().to_numpy().max())
