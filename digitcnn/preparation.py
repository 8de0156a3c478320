"""Preparation: the digit in a picture of one's own, brought into a data set's form.

`ink` finds the digit. Pieces of it are joined where a stroke broke off, and its strokes are drawn
neither too thin nor too thick for its size. Then MNIST's own recipe follows (LeCun et al. 1998):
white on black, scaled into 20 x 20 pixels with its aspect kept, and put into the middle by its
centre of mass. For SVHN it is dark on light in a square with a margin, and a digit that fills the
picture already is left as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from .files import DigitcnnError
from .ink import AROUND, Look, look
from .pictures import SIZE, fitted

HOW = ("auto", "none")
LIKE = {"mnist": "it is as MNIST's images are", "svhn": "it is as SVHN's images are"}
BOX = 20  # pixels of the longer side of MNIST's digits
UNEVEN, TANGLE = 0.08, 115  # see `is_cluttered`
STROKE = (3.5, 5.0)  # plausible widths in that box
GAP, SLACK = 7.0, 0.45  # in that box, see `joined`
SQUARE, WHOLE = 1.5, 0.7  # SVHN's square, of the digit's longer side; a digit that fills a picture
PAPER = (225, 35)  # grey values of the ground and of the ink before the SVHN network


@dataclass(frozen=True)
class Prepared:
    """A digit as a network gets it.

    Attributes:
        image: uint8 (3, 32, 32).
        box: where the digit is in the picture, (left, top, right, bottom) as shares of its width
            and height; None if the picture was taken whole.
        note: what has to be said: why it was taken whole, or that other digits are there.
        blank: whether no ink was found.
        cluttered: whether the ground is too uneven, or the ink too tangled, for a digit.
    """

    image: np.ndarray
    box: tuple[float, float, float, float] | None = None
    note: str = ""
    blank: bool = False
    cluttered: bool = False


def prepare_for(
    names: Iterable[str], pixels: np.ndarray, how: str = "auto", every: bool = False
) -> dict[str, list[Prepared]]:
    """The digit of a picture uint8 (H, W, 3) in the form of each data set, ``mnist`` or ``svhn``.

    A picture that is already as the data set's images are is taken untouched; one without ink, and
    with ``how="none"`` every picture, is taken whole. With `every`, all digits from left to right.
    Raises `DigitcnnError`.
    """
    if how not in HOW:
        raise DigitcnnError(f"There is no preparation {how!r}: choose one of {', '.join(HOW)}.")
    found = None
    prepared = {}
    for name in names:
        if how == "none":
            prepared[name] = [Prepared(fitted(pixels))]
        elif is_like(pixels, name):
            prepared[name] = [Prepared(fitted(pixels), note=f"taken as it is: {LIKE[name]}")]
        else:
            found = found or look(pixels)
            prepared[name] = _prepared(found, pixels, name, every)
    return prepared


def _prepared(found: Look, pixels: np.ndarray, name: str, every: bool) -> list[Prepared]:
    """The digits that were found, or the whole picture if there are none."""
    numbers = found.digits()
    if not numbers:
        return [Prepared(fitted(pixels), note="no ink was found", blank=True)]
    note = f"the largest of {len(numbers)} digits" if len(numbers) > 1 and not every else ""
    numbers.sort(key=lambda number: found.boxes[number][1].start if every else number)
    height, width = found.mask.shape
    prepared = []
    for number in numbers if every else numbers[:1]:
        y, x = found.boxes[number]
        box = (x.start / width, y.start / height, x.stop / width, y.stop / height)
        image = mnist_image(found, number) if name == "mnist" else svhn_image(found, number, pixels)
        clutter = is_cluttered(found, number)
        prepared.append(Prepared(image, box, note, cluttered=clutter))
    return prepared


def preparation_steps(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What is done to a picture uint8 (H, W, 3), step by step, for a figure.

    Returns, by title, arrays (H, W) or (H, W, 3), uint8 or float in [0, 1]: the picture, its ground
    removed, the ink found, and what each network gets. Raises `DigitcnnError` if there is no ink.
    """
    found = look(pixels)
    if not found.boxes:
        raise DigitcnnError("No ink was found in the picture: there are no steps to show.")
    forms = {
        f"for {name.upper()}": digits[0].image.transpose(1, 2, 0)
        for name, digits in prepare_for(LIKE, pixels).items()
    }
    return {
        "picture": found.pixels,
        "ground removed": 1 - np.clip(found.depth / found.depth.max(), 0, 1),
        "ink found": 1.0 - found.mask,
    } | forms


def is_like(pixels: np.ndarray, name: str) -> bool:
    """Whether a picture uint8 (H, W, 3) is already as a data set's images are.

    MNIST's are grey, 28 x 28 (or padded to 32 x 32), black at the border, white at their brightest,
    19 or 20 pixels long with the centre of mass in the middle pixel. SVHN's are 32 x 32 in colour,
    with as many different colours as only a photograph has. All images of each set are.
    """
    height, width = pixels.shape[:2]
    if name == "svhn":
        if (height, width) != (SIZE, SIZE):
            return False
        colours = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1])
        return len(np.unique(colours)) >= 200 and bool(np.ptp(pixels, 2).any())
    if (height, width) == (SIZE, SIZE):
        inner = pixels[2:-2, 2:-2]
        if pixels.sum(dtype=int) != inner.sum(dtype=int):
            return False
        pixels = inner
    if pixels.shape[:2] != (28, 28) or np.ptp(pixels, 2).any() or pixels.max() < 250:
        return False
    grey = pixels[..., 0].astype(float)
    rows, columns = (np.flatnonzero(grey.any(axis)) for axis in (1, 0))
    if not 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20:
        return False
    return all(abs(centre - 14) < 0.55 for centre in ndimage.center_of_mass(grey))


def is_cluttered(found: Look, number: int) -> bool:
    """Whether what was found as a digit lies among other things, or is a tangle.

    What is left of the ground is, in the root mean square, at most 0.06 of the ink's depth in 99
    of 100 generated pictures of a digit, and the ink's outline at most 103 pixels of MNIST's box.
    The other digits of a number are no clutter.
    """
    y, x = found.boxes[number]
    ink = found.labels == number
    digits = np.isin(found.labels, found.row(number))
    blur = max(3, round(found.scale))  # a small picture's edges are as wide as its pixels
    rest = np.where(ndimage.maximum_filter(digits, 2 * blur + 1), 0, np.maximum(found.depth, 0))
    uneven = np.sqrt((rest**2).mean()) / found.depth[ink].mean()
    scale = BOX / max(y.stop - y.start, x.stop - x.start)
    smooth = ndimage.gaussian_filter(np.pad(ink[y, x], 2).astype(np.float32), 0.4 / scale) > 0.5
    outline_length = (smooth & ~ndimage.binary_erosion(smooth)).sum() * scale
    return bool(uneven > UNEVEN or outline_length > TANGLE)


def strokes(found: Look, number: int) -> np.ndarray:
    """The ink of a digit, float (h, w) in [0, 1], whole and its strokes of a plausible width."""
    y, x = found.boxes[number]
    scale = BOX / max(y.stop - y.start, x.stop - x.start)
    thin, thick = STROKE
    ink = np.pad(found.labels[y, x] == number, round(2 * thin / scale))
    inside = ndimage.distance_transform_edt(ink)
    width = 4 * inside[ink].mean() * scale  # the mean distance to the edge is a quarter of it
    if width > thick:
        shrink = min((width - thick) / 2 / scale, inside.max() - 1)  # something is left
        return np.clip(inside - shrink, 0, 1)
    grow = max(0, thin - width) / 2 / scale
    return np.clip(1 + grow - ndimage.distance_transform_edt(~joined(ink, scale)), 0, 1)


def joined(ink: np.ndarray, scale: float) -> np.ndarray:
    """Ink bool (h, w) whose pieces are joined where a stroke was too thin to be seen.

    Two pieces are joined where the way from one to the other is shortest, or longer by no more
    than `SLACK`: a 6 of two arcs is joined above and below. `scale` is MNIST's box by pixels.
    """
    pieces, count = ndimage.label(ink, AROUND)
    size = np.bincount(pieces.ravel())
    large = [piece for piece in range(1, count + 1) if size[piece] > 0.1 * ink.sum()]
    away = {piece: ndimage.distance_transform_edt(pieces != piece) for piece in large}
    for one, other in itertools.combinations(large, 2):
        way = away[one] + away[other]
        if way.min() < GAP / scale:
            ink = ink | (way <= way.min() + SLACK / scale)
    return ink


def trimmed(ink: np.ndarray) -> np.ndarray:
    """Ink (h, w) without its empty margin."""
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def mnist_image(found: Look, number: int) -> np.ndarray:
    """A digit by LeCun's recipe: uint8 (3, 32, 32)."""
    ink = trimmed(strokes(found, number))
    size = [max(1, round(BOX * n / max(ink.shape))) for n in ink.shape[::-1]]
    small = Image.fromarray(np.uint8(255 * ink)).resize(size, Image.Resampling.BICUBIC)
    small = ndimage.gaussian_filter(np.pad(np.asarray(small), 1), 0.5)
    image = np.zeros((SIZE, SIZE), np.uint8)
    centre = ndimage.center_of_mass(small.astype(float))
    top, left = (
        int(np.clip(round(SIZE / 2 - c), 0, SIZE - n))
        for c, n in zip(centre, small.shape, strict=True)
    )
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return np.repeat(image[None], 3, axis=0)


def svhn_image(found: Look, number: int, pixels: np.ndarray) -> np.ndarray:
    """The square around a digit, a margin included: uint8 (3, 32, 32).

    What fills the picture `pixels` already is taken whole, as a photograph of a house number is.
    """
    y, x = found.boxes[number]
    side = max(y.stop - y.start, x.stop - x.start)
    if side > WHOLE * max(found.mask.shape):
        return fitted(pixels)
    ink = trimmed(strokes(found, number))
    square = round(SQUARE * max(ink.shape))
    margins = [((square - n) // 2, square - n - (square - n) // 2) for n in ink.shape]
    paper, pen = PAPER
    drawn: Any = np.uint8(paper + (pen - paper) * np.pad(ink, margins))  # NumPy: an array
    return fitted(np.repeat(drawn[..., None], 3, axis=2))
