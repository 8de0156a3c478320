"""Origins of images: official set, photograph, writer, and what else of these was learned from.

Facts about the data alone; what they have to do with errors is asked in `origin_errors`.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import division, files, runs, store
from ..files import DigitcnnError
from . import attributes

# SVHN's crops lie in the official files photograph by photograph, from left to right, and reach
# into the neighbouring digit: what two crops share is seen in the second further to the left.
# At half the resolution, so in steps of two pixels, to the left, and up or down: the boxes of one
# number are not quite level. Around the best place single pixels are tried.
SHIFTS, RISES = range(3, 13), range(-2, 3)
CONTROLS, APART = 20_000, 20  # pairs of crops of one file that lie at least so far apart
FALSE = 0.01  # of these, at most this share may match
THRESHOLDS = np.arange(70, 96)  # hundredths of the correlation, of which the lowest is taken

WRITERS_FILE = "mnist_writers.npz"
STUDENTS = 4  # NIST's series hsf_4; the others were written by employees of the Census Bureau


def _whole(name: str) -> list[str]:
    return [store.images(name, split) for split in runs.SPLITS]


# Photographs


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How well pictures match others that lie further to the right, float32 (N,) in [-1, 1].

    The largest normalised cross-correlation of the grey values where both overlap, searched from
    coarse to fine over shifts of 6 to 24 pixels; -1 where there is no contrast.

    Args:
        first, second: uint8 (N, 3, 32, 32).
    """
    first, second = (part.mean(1, dtype=np.float32) for part in (first, second))
    small = [part.reshape(-1, 16, 2, 16, 2).mean((2, 4)) for part in (first, second)]
    places = list(itertools.product(SHIFTS, RISES))
    coarse = np.array([_correlation(*small, *place) for place in places]).argmax(0)
    best = np.full(len(first), -1, np.float32)
    for number in np.unique(coarse):
        at, (shift, rise) = np.flatnonzero(coarse == number), places[number]
        fine = [
            _correlation(first[at], second[at], 2 * shift + right, 2 * rise + down)
            for right, down in itertools.product((-1, 0, 1), repeat=2)
        ]
        best[at] = np.max(fine, axis=0)
    return best


def _correlation(first: np.ndarray, second: np.ndarray, shift: int, rise: int) -> np.ndarray:
    """Normalised cross-correlation (N,) of where pictures (N, s, s) overlap when moved."""
    side = first.shape[-1]
    left = first[:, max(rise, 0) : side + min(rise, 0), shift:]
    right = second[:, max(-rise, 0) : side + min(-rise, 0), : side - shift]
    left, right = (part.reshape(len(part), -1) for part in (left, right))
    left, right = (part - part.mean(1, keepdims=True) for part in (left, right))
    length = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.where(length > 1, np.einsum("ij,ij->i", left, right) / np.maximum(length, 1), -1)


@store.stored("origins/photographs", lambda: _whole("svhn"))
def matches() -> dict[str, np.ndarray]:
    """`similarity` in hundredths, int8: ``next`` (N - 1,) of each SVHN crop with the one after it
    in the pool, ``control`` (n,) of random pairs that lie `APART`, within an official file each."""
    source = division.pool("svhn")
    count, random = len(source.labels), np.random.default_rng(runs.SEED)
    pairs = random.integers(0, count, (2, 2 * CONTROLS))
    apart = np.abs(pairs[0] - pairs[1]) >= APART
    same = source.official_test[pairs[0]] == source.official_test[pairs[1]]
    pairs = pairs[:, apart & same][:, :CONTROLS]
    successive = np.arange(count - 1), np.arange(1, count)

    def hundredths(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        parts = [
            similarity(source.images[first[at : at + 500]], source.images[second[at : at + 500]])
            for at in range(0, len(first), 500)
        ]
        return np.floor(100 * np.concatenate(parts)).astype(np.int8)

    return {"next": hundredths(*successive), "control": hundredths(*pairs)}


class Photographs(NamedTuple):
    """Which SVHN crops come from one photograph, as far as the pictures tell.

    Attributes:
        threshold: of the correlation, in [0, 1].
        number: of each crop of the pool, which photograph it is from, int64 (N,).
        size: how many crops that photograph has, int64 (N,).
        found: number of photographs, by official set.
    """

    threshold: float
    number: np.ndarray
    size: np.ndarray
    found: dict[str, int]


def photographs(threshold: float | None = None) -> Photographs:
    """SVHN's crops by photograph: a run of crops of which each matches the next.

    The threshold is the lowest of `THRESHOLDS` that at most `FALSE` of the control pairs reach; no
    label and no error enters.
    """
    kept, official_test = matches(), division.labels("svhn").official_test
    reached = (kept["control"][:, None] >= THRESHOLDS).mean(0)
    least = THRESHOLDS[np.argmax(reached <= FALSE)] if (reached <= FALSE).any() else THRESHOLDS[-1]
    least = int(least if threshold is None else round(100 * threshold))
    linked = (kept["next"] >= least) & (official_test[1:] == official_test[:-1])
    number = np.concatenate([[0], np.cumsum(~linked)])
    sets = {"train": ~official_test, "test": official_test}
    return Photographs(
        least / 100,
        number,
        np.bincount(number)[number],
        {name: len(np.unique(number[chosen])) for name, chosen in sets.items()},
    )


# Writers


def _read_writers() -> tuple[np.ndarray, np.ndarray]:
    """Writer and series of MNIST's images, (70000,) each, in the order of the pool."""
    root = files.data_root()
    if files.profile() == "quick":
        from .. import toy

        return toy.writers()
    if (path := root / WRITERS_FILE).is_file():
        with np.load(files.noted(path), allow_pickle=False) as kept:
            both = [np.concatenate([kept[f"{part}_{what}"] for part in ("train", "test")])
                    for what in ("writer", "series")]  # fmt: skip
        return both[0], both[1]
    from torchvision.datasets import QMNIST

    try:
        targets = [QMNIST(str(root), what, compat=False).targets for what in ("train", "test10k")]
    except (RuntimeError, OSError) as error:
        raise DigitcnnError(
            f"Nothing in {files.shown(root)} says who wrote MNIST's digits: have torchvision "
            'download it, once `QMNIST(root, what="train", download=True)` and once with '
            '`what="test10k"`, root being that folder.'
        ) from error
    rows = np.concatenate([part.numpy() for part in targets])
    if not np.array_equal(rows[:, 0], division.labels("mnist").labels):
        raise DigitcnnError(
            f"QMNIST in {files.shown(root)} is not in MNIST's order: delete it and download it."
        )
    return rows[:, 2], rows[:, 1]


@store.stored("origins/writers", lambda: _whole("mnist"))
def writers() -> dict[str, np.ndarray]:
    """Who wrote each MNIST image: ``writer`` uint16 (N,) and NIST ``series`` uint8 (N,), by pool.

    From the labels of QMNIST (Yadav and Bottou 2019, arXiv 1905.10498), which need not be there
    once this is stored.
    """
    writer, series = _read_writers()
    return {"writer": writer.astype(np.uint16), "series": series.astype(np.uint8)}


# What is known of each image


def groups(name: str) -> np.ndarray:
    """Of each image of the pool a number shared by images that belong together, int64 (N,).

    SVHN's photographs, MNIST's writers.
    """
    return photographs().number if name == "svhn" else writers()["writer"].astype(np.int64)


def learned_from(name: str, group: np.ndarray | None = None) -> np.ndarray:
    """How many training images are of the `groups` of each image of the pool, int64 (N,)."""
    group = groups(name) if group is None else group
    training = division.split_indices(name)["train"]
    return np.bincount(group[training], minlength=group.max() + 1)[group]


def composition(name: str, split: str) -> pd.DataFrame:
    """What is known of a split's images, the label and the network aside: bool, a column each.

    `attributes.ATTRIBUTES`, the official set, and the kinship with training images.
    """
    at = division.split_indices(name)[split]
    frame = attributes.of_images(name, split)
    frame["official test"] = division.labels(name).official_test[at]
    if name == "svhn":
        frame["photograph in training"] = learned_from(name)[at] > 0
    else:
        frame["student's hand"] = writers()["series"][at] == STUDENTS
    return frame
