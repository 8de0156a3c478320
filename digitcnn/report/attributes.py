"""Attributes of images that do not see the label.

Each attribute is a yes-or-no measurement on the picture alone, made on every sample, wrong or
right, so that its frequency among errors has a control. They and their thresholds were fixed by
looking at validation images, before any error was counted; that one is more frequent among errors
is an association, not a cause.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from .. import store
from ..stats import proportion, ratio

LOW_CONTRAST = 0.25  # of the distance from black to white
BLURRED = 0.20  # of an image's contrast from pixel to pixel; a sharp edge has about 0.5
SMALL, OFF_CENTRE = 16, 6  # pixels
TALL, WIDE = 12, 22  # pixels: a piece at the side that may be a digit; one that holds two

# Name: what it says of an image. No label, no network.
ATTRIBUTES = {
    "low contrast": f"contrast (2nd to 98th percentile of grey) under {LOW_CONTRAST:.2f} of black "
    "to white",
    "blurred": f"steepest edges (98th percentile) under {BLURRED:.2f} of the contrast a pixel",
    "neighbour": f"a piece at least {TALL} px tall at the left or right border beside the central "
    f"piece, or the central piece itself reaches that border and is at least {WIDE} px wide",
    "small or off-centre": f"central piece under {SMALL} px tall, or its box over {OFF_CENTRE} "
    "px off the centre",
}

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


@store.stored(
    lambda data_name, split: f"evaluation/{data_name}-{split}-measured",
    lambda data_name, split: [store.images(data_name, split)],
)
def measurements(data_name: str, split: str) -> dict[str, np.ndarray]:
    """`measure` of a whole split."""
    from .. import data

    images = data.load(data_name, split).images.numpy()
    parts = [measure(images[start : start + 2000]) for start in range(0, len(images), 2000)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def of_images(data_name: str, split: str = "test") -> pd.DataFrame:
    """The `ATTRIBUTES` of each image of a split, bool, a column each."""
    measured = measurements(data_name, split)
    columns = (
        measured["contrast"] < LOW_CONTRAST,
        measured["sharpness"] < BLURRED,
        measured["neighbour"],
        (measured["height"] < SMALL) | (measured["distance"] > OFF_CENTRE),
    )
    return pd.DataFrame(dict(zip(ATTRIBUTES, columns, strict=True)))


def table(has: pd.DataFrame, wrong: np.ndarray) -> pd.DataFrame:
    """A row an attribute (index): how frequent it is among errors and among correct samples.

    Columns: ``errors`` (that have it), ``excess`` (how many more than if it were as frequent as
    among correct samples), the shares ``among_errors``, ``among_correct`` and ``among_all``, and
    the first two's ``ratio`` (all `Estimate`).
    """
    rows = {}
    for name, column in has.items():
        shares = column[wrong].sum(), wrong.sum(), column[~wrong].sum(), (~wrong).sum()
        rows[name] = {
            "errors": int(shares[0]),
            "excess": shares[0] - shares[1] * shares[2] / max(shares[3], 1),
            "among_errors": proportion(*shares[:2]),
            "among_correct": proportion(*shares[2:]),
            "among_all": proportion(column.sum(), len(column)),
            "ratio": ratio(*shares),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
