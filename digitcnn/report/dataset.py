"""Chapter 1: what the two data sets are like, from stored results; needs neither data nor torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import runs, store
from ..runs import SPLITS
from ..sources import RECROPPED, TITLES
from .values import Average, Count, Number, Share

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


def tied(name: str) -> Number:
    """Correlation of an image's mean grey value with its contrast, over those drawn."""
    return Number(np.corrcoef(pixels(name)["drawn"].T.astype(float))[0, 1])


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


def counts_table() -> pd.DataFrame:
    """`class_counts` of both data sets side by side, as shown."""
    both = {title: class_counts(name) for name, title in TITLES.items()}
    frame = pd.concat(both, axis=1)
    return frame.set_axis([f"{title} {split}" for title, split in frame.columns], axis=1)


def channels() -> pd.DataFrame:
    """Mean and standard deviation of the training split's pixels in [0, 1], a row a data set."""
    columns = [f"{what} {channel}" for what in ("mean", "deviation") for channel in "RGB"]
    rows = {
        title: np.concatenate([pixels(name)[what][0] for what in ("mean", "std")])
        for name, title in TITLES.items()
    }
    return pd.DataFrame(rows, index=columns).T.rename_axis("data set")


@dataclass(frozen=True)
class Facts:
    """What chapter 1 says of a data set.

    Attributes:
        copy: which copy was read, as a sentence.
        images: of the pool; `train`, `validation` and `test` are the shares of the splits.
        official_test: share of our test split that comes from the official test set.
        leaks: held-out images of which training has an exact copy.
        twins: images of the pool of which there is an exact copy before it.
        conflicting: sets of exact copies with different labels.
        commonest, rarest: classes by their number in the pool; `ratio` is that of the numbers.
        majority: share of the commonest class.
        uneven: largest difference of a class's share in a split and in the pool, in points.
        black: share of the grey values in the darkest of the histogram's steps.
        contrast: median standard deviation of the grey values of a training image, in [0, 1].
        compared, equal: images of our copy of SVHN held against the official file once, and those
            equal in every value.
    """

    copy: str
    images: Count
    train: Share
    validation: Share
    test: Share
    official_test: Share
    leaks: Count
    twins: Count
    conflicting: Count
    commonest: int
    rarest: int
    ratio: Number
    majority: Share
    uneven: Number
    black: Average
    contrast: Number
    compared: Count
    equal: Count


def facts(name: str) -> Facts:
    """The numbers of chapter 1, for a data set."""
    counts, repeated = class_counts(name), copies(name)
    by_class, total = counts.sum(axis=1), int(counts.to_numpy().sum())
    official = round(float(origin(name)["test"]) * counts["test"].sum())
    darkest = float(pixels(name)["histogram"][0])
    away = (counts / counts.sum()).sub(by_class / total, axis=0).abs().to_numpy().max()
    return Facts(
        copy=runs.manifest(name)["copy"],
        images=Count(total),
        **{split: Share(counts[split].sum(), total) for split in SPLITS},
        official_test=Share(official, counts["test"].sum()),
        leaks=Count(repeated["validation"] + repeated["test"]),
        twins=Count(repeated["pool"]),
        conflicting=Count(repeated["conflicting"]),
        commonest=int(by_class.idxmax()),
        rarest=int(by_class.idxmin()),
        ratio=Number(by_class.max() / by_class.min(), 2),
        majority=Share(by_class.max(), total),
        uneven=Number(100 * away, 3),
        black=Average((darkest, darkest, darkest)),
        contrast=Number(float(pixels(name)["contrast"]), 2),
        compared=Count(RECROPPED[0]),
        equal=Count(RECROPPED[1]),
    )
