"""Causes: measured properties of images that may explain errors, and probable label errors.

Each property is a yes-or-no measurement that can be made on every sample, wrong or right, so that
its frequency among errors has a control. Thresholds were set by looking at validation images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from .. import data, predictions, store
from ..predictions import Predictions
from ..stats import proportion, ratio
from . import evaluation

LOW_CONTRAST = 0.25  # of the distance from black to white
BLURRED = 0.20  # of an image's contrast from pixel to pixel; a sharp edge has about 0.5
SMALL, OFF_CENTRE = 16, 6.0  # pixels
TALL, WIDE = 12, 22  # pixels: a piece at the side that may be a digit; one that holds two
CLOSE = 0.2  # calibrated probability
REFERENCES = 10_000  # training images that the nearest one is searched in
PLANTED = 0.02  # share of labels changed on purpose

# Name: what it says of a sample. The first five need the image only, the last two the network.
PROPERTIES = {
    "low contrast": f"contrast (2nd to 98th percentile of grey) under {LOW_CONTRAST:.2f} of black "
    "to white",
    "blurred": f"steepest edges (98th percentile) under {BLURRED:.2f} of the contrast a pixel",
    "neighbour": f"a piece at least {TALL} px tall at the left or right border beside the central "
    f"piece, or the central piece itself reaches that border and is at least {WIDE} px wide",
    "small or off-centre": f"central piece under {SMALL} px tall, or its box over {OFF_CENTRE:.0f} "
    "px off the centre",
    "resembles another class": f"the most correlated of {REFERENCES:,} training images has "
    "another label",
    "ambiguous pair": f"the label is one of the two most probable classes, and the second of them "
    f"has at least {CLOSE:.1f}",
    "probable label error": "the network is as sure of another class as it is, on average, of "
    "that class's own samples (confident learning)",
}
FROM_IMAGE = list(PROPERTIES)[:5]
NONE = "unexplained"

_ROW, _COLUMN = np.mgrid[:32, :32] - 15.5
_CENTRAL = np.exp(-(_ROW**2 + _COLUMN**2) / (2 * 5.0**2))


def tones(images: np.ndarray) -> np.ndarray:
    """Each image along its own principal colour axis, float32 (N, 32, 32).

    Centred on 0; black to white is 1. A digit is seen that differs from its ground in hue only.
    """
    pixels = images.reshape(len(images), 3, -1).astype(np.float32) / 255
    pixels -= pixels.mean(2, keepdims=True)
    axis = np.linalg.eigh(pixels @ pixels.transpose(0, 2, 1))[1][:, None, :, -1]
    return (axis @ pixels / np.sqrt(3)).reshape(-1, *images.shape[2:])


def foreground(tone: np.ndarray) -> np.ndarray:
    """The rarer of the two groups of pixels by Otsu's threshold (1979), bool (N, 32, 32)."""
    values = np.sort(tone.reshape(len(tone), -1), axis=1).astype(np.float64)
    below = np.arange(1, values.shape[1])
    above = values.shape[1] - below
    sums = values.cumsum(1)
    gap = (sums[:, -1:] - sums[:, :-1]) / above - sums[:, :-1] / below
    best = (below * above * gap**2).argmax(1)[:, None]
    threshold = np.take_along_axis(values, best, 1)
    bright = tone > threshold[:, :, None]
    return bright ^ (bright.mean((1, 2), keepdims=True) > 0.5)


def pieces(mask: np.ndarray) -> tuple[int, float, bool]:
    """Height and off-centre distance (px) of the central piece of (32, 32); is there a neighbour?

    Pieces are 8-connected; the central one has the most pixels under a Gaussian of 5 px.
    """
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return 0, 16.0, False
    central = ndimage.sum_labels(_CENTRAL, labels, np.arange(1, count + 1)).argmax()
    boxes = ndimage.find_objects(labels)
    rows, columns = boxes[central]
    distance = np.hypot(*((part.start + part.stop - 32) / 2 for part in (rows, columns)))

    def beside(number: int, box: tuple[slice, slice]) -> bool:
        at_side = box[1].start == 0 or box[1].stop == 32
        long = box[1].stop - box[1].start >= WIDE if number == central else True
        return at_side and long and box[0].stop - box[0].start >= TALL

    return rows.stop - rows.start, distance, any(map(beside, range(count), boxes))


def measure(images: np.ndarray) -> dict[str, np.ndarray]:
    """Measurements of uint8 images (N, 3, 32, 32), each (N,).

    ``contrast`` in [0, 1], ``sharpness`` (the steepest edges as a share of the contrast per
    pixel), ``height`` and ``distance`` in pixels, ``neighbour`` as bool.
    """
    tone = tones(images)
    low, high = np.percentile(tone, [2, 98], axis=(1, 2))
    contrast = high - low
    steepness = np.hypot(*np.gradient(tone, axis=(1, 2)))
    edges = np.percentile(steepness, 98, axis=(1, 2))
    found = [pieces(mask) for mask in foreground(tone)]
    height, distance, neighbour = (np.array(column) for column in zip(*found, strict=True))
    return {
        "contrast": contrast.astype(np.float16),
        "sharpness": (edges / np.maximum(contrast, 1e-6)).astype(np.float16),
        "height": height.astype(np.int8),
        "distance": distance.astype(np.float16),
        "neighbour": neighbour,
    }


def nearest_labels(images: np.ndarray, references: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Label of the reference image with the highest pixel correlation with each image, (N,)."""

    def standardised(batch: np.ndarray) -> np.ndarray:
        flat = tones(batch).reshape(len(batch), -1)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

    known = standardised(references)
    # The sign of a principal axis is arbitrary, and so is a house number's polarity.
    parts = [
        np.abs(standardised(images[start : start + 1000]) @ known.T).argmax(1)
        for start in range(0, len(images), 1000)
    ]
    return labels[np.concatenate(parts)].astype(np.int8)


@store.stored(
    lambda data_name, split: f"evaluation/{data_name}-{split}-measured",
    lambda data_name, split: [store.images(data_name, part) for part in (split, "train")],
)
def measurements(data_name: str, split: str) -> dict[str, np.ndarray]:
    """`measure` and ``nearest`` (`nearest_labels` in the training split) of a split."""
    images = data.load(data_name, split).images.numpy()
    known = data.stratified_subset(data.load(data_name, "train"), REFERENCES)
    nearest = nearest_labels(images, known.images.numpy(), known.labels.numpy())
    parts = [measure(images[start : start + 2000]) for start in range(0, len(images), 2000)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joined | {"nearest": nearest}


def properties(
    labels: np.ndarray,
    probabilities: np.ndarray,
    measured: dict[str, np.ndarray],
    thresholds: np.ndarray,
) -> pd.DataFrame:
    """The `PROPERTIES` of each sample, bool, a column each.

    Args:
        labels: of the split, (N,).
        probabilities: (N, 10), calibrated on validation.
        measured: the split's `measurements`.
        thresholds: `class_thresholds` of the validation split.
    """
    ranked = np.sort(probabilities, axis=1)
    columns = (
        measured["contrast"] < LOW_CONTRAST,
        measured["sharpness"] < BLURRED,
        measured["neighbour"],
        (measured["height"] < SMALL) | (measured["distance"] > OFF_CENTRE),
        measured["nearest"] != labels,
        (ranked[:, -2] >= CLOSE) & (probabilities[np.arange(len(labels)), labels] >= ranked[:, -2]),
        label_issues(probabilities, labels, thresholds),
    )
    return pd.DataFrame(dict(zip(PROPERTIES, columns, strict=True)))


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean probability of each class among the samples that carry its label, (10,).

    The thresholds of confident learning (Northcutt et al. 2021, eq. 2). A class without samples
    gets 1.
    """
    means = [
        probabilities[labels == digit, digit].mean() if (labels == digit).any() else 1.0
        for digit in range(probabilities.shape[1])
    ]
    return np.array(means)


def label_issues(
    probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Whether a label is probably wrong, bool (N,): confident learning (Northcutt et al. 2021).

    A sample counts for the most probable of the classes whose threshold its probability reaches
    (their eq. 1, the confident joint); it is suspected if that class is not its label. The
    probabilities have to be out of sample.
    """
    reaching = np.where(probabilities >= thresholds, probabilities, -1.0)
    return (reaching.max(1) >= 0) & (reaching.argmax(1) != labels)


def strongest_issues(p: Predictions, suspected: np.ndarray, count: int) -> np.ndarray:
    """At most `count` suspected positions, lowest probability of the label first."""
    positions = np.flatnonzero(suspected)
    return positions[np.argsort(p.probabilities[positions, p.labels[positions]])][:count]


def planted_labels(
    probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray, seed: int = data.SEED
) -> tuple[int, int]:
    """How many of the labels changed on purpose are suspected, and how many were changed.

    A positive control of `label_issues`: `PLANTED` of the labels get another random class.
    """
    generator = np.random.default_rng(seed)
    changed = generator.choice(len(labels), max(1, round(PLANTED * len(labels))), replace=False)
    planted = labels.copy()
    planted[changed] = (labels[changed] + generator.integers(1, 10, len(changed))) % 10
    return int(label_issues(probabilities, planted, thresholds)[changed].sum()), len(changed)


def supported(has: pd.DataFrame, wrong: np.ndarray) -> list[str]:
    """The properties that are more frequent among errors beyond doubt, strongest first.

    Beyond doubt: the lower end of the ratio's 95 % interval is above 1; it also ranks them.
    """
    lower = {name: ratio(*_shares(column, wrong)).low for name, column in has.items()}
    return sorted((name for name in lower if lower[name] > 1), key=lambda name: -lower[name])


def _shares(column: pd.Series, wrong: np.ndarray) -> tuple[int, int, int, int]:
    return column[wrong].sum(), wrong.sum(), column[~wrong].sum(), (~wrong).sum()


def sort_errors(has: pd.DataFrame, order: list[str]) -> np.ndarray:
    """The one property each sample is sorted to, (N,): the first it has in `order`, or `NONE`."""
    flags = has[order].to_numpy()
    names = np.array([*order, NONE], dtype=object)
    first = flags.argmax(1) if order else 0
    return names[np.where(flags.any(1), first, len(order))]


def table(has: pd.DataFrame, wrong: np.ndarray, order: list[str]) -> pd.DataFrame:
    """A row a property, those in `order` first, then `NONE`: its frequency among errors and else.

    Columns: ``cause``, ``errors`` (that have it), ``excess`` (how many more than if it were as
    frequent as among correct samples), ``sorted`` (to it, see `sort_errors`), the shares
    ``among_errors`` and ``among_correct``, and their ``ratio`` (`Estimate`).
    """
    sorted_to = sort_errors(has, order)
    columns = {name: has[name] for name in [*order, *has.columns.difference(order, sort=False)]}
    columns[NONE] = pd.Series(sorted_to == NONE)
    rows = []
    for name, column in columns.items():
        shares = _shares(column, wrong)
        rows.append(
            {
                "cause": name,
                "errors": int(shares[0]),
                "excess": np.nan
                if name == NONE
                else shares[0] - shares[1] * shares[2] / max(shares[3], 1),
                "sorted": int((wrong & (sorted_to == name)).sum()),
                "among_errors": proportion(*shares[:2]),
                "among_correct": proportion(*shares[2:]),
                "ratio": ratio(*shares),
            }
        )
    return pd.DataFrame(rows)


def by_count(has: pd.DataFrame, wrong: np.ndarray) -> pd.DataFrame:
    """Error rate by the number of properties `FROM_IMAGE` that an image has (`Estimate`)."""
    number = has[FROM_IMAGE].sum(axis=1).to_numpy()
    rows = [
        {
            "properties": int(value),
            "images": int((number == value).sum()),
            "errors": int(wrong[number == value].sum()),
            "error_rate": proportion(wrong[number == value].sum(), (number == value).sum()),
        }
        for value in np.unique(number)
    ]
    return pd.DataFrame(rows)


class Explained(NamedTuple):
    """The properties of a model's own test images, and its errors sorted by them.

    Attributes:
        has: bool, a row a test image, a column for each of `PROPERTIES`.
        order: those that are `supported` on the validation split, strongest first.
        table: see `table`, by cause.
        by_count: see `by_count`.
        shares: of the test images that have each property (`Estimate`).
        planted: see `planted_labels`.
    """

    has: pd.DataFrame
    order: list[str]
    table: pd.DataFrame
    by_count: pd.DataFrame
    shares: pd.Series
    planted: tuple[int, int]


def explained(name: str) -> Explained:
    """What the errors of a data set's model on its own test split have in common."""
    validation, test = (predictions.predict(name, name, split) for split in ("validation", "test"))
    scaled = evaluation.calibrated(validation, test)
    thresholds = class_thresholds(scaled.validation, validation.labels)
    known = measurements(name, "validation")
    known = properties(validation.labels, scaled.validation, known, thresholds)
    has = properties(test.labels, scaled.test, measurements(name, "test"), thresholds)
    order = supported(known, validation.wrong)
    return Explained(
        has,
        order,
        table(has, test.wrong, order).set_index("cause", drop=False),
        by_count(has, test.wrong),
        pd.Series({column: proportion(has[column].sum(), len(has)) for column in has}),
        planted_labels(scaled.test, test.labels, thresholds),
    )


def cause_rows(found: Explained, p: Predictions, count: int = 9) -> list[tuple[str, np.ndarray]]:
    """For each supported property, and `NONE`, a heading and positions of errors sorted to it."""
    sorted_to = sort_errors(found.has, found.order)
    return [
        (
            f"{name} ({found.table.loc[name, 'sorted']})",
            evaluation.examples(p.wrong & (sorted_to == name), p, count),
        )
        for name in [*found.order, NONE]
    ]
