"""Preparation: the digit in a picture of one's own, brought into a data set's form.

A digit is ink on a ground that surrounds it. The ground is what a brush wider than any stroke
leaves (a morphological closing), so that uneven light and shadows belong to it; what is darker is
ink (in the negative, if the picture deviates from its border towards bright). Ink counts where it
reaches two fifths of its own strength nearby, pieces close to each other are one digit, and the
one with most ink is taken. Its strokes are drawn neither too thin nor too thick for its size; then
MNIST's own recipe follows (LeCun et al. 1998): scaled into 20 x 20 pixels with its aspect kept,
and put into the middle by its centre of mass. For SVHN it is a square with a margin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from .files import DigitcnnError
from .pictures import SIZE, fitted

HOW = ("auto", "none")
LIKE = {"mnist": "it is as MNIST's images are", "svhn": "it is as SVHN's images are"}
WORK = (256, 512)  # pixels of the longer side of what is searched, at least and at most
BRUSH = 0.35  # width of the closing, as a share of the shorter side
INK = 0.05  # least depth of ink below its ground, as a share of the range from black to white
FAINT, NEARBY = (
    0.07,
    0.03,
)  # least depth as a share of the deepest; what is near, of the longer side
EDGE = 0.4  # share of its own depth nearby at which ink begins
SMOOTH = (0.5, 1.5)  # least and greatest standard deviation of the smoothing, in pixels
BESIDE, ABOVE = 0.08, 0.35  # gaps between pieces of one digit, as shares of its longer side
MOST = 40  # pieces that are looked at, those with most ink
SPECK = 0.01  # ink of a piece that is ignored, as a share of the greatest piece's
BOX = 20  # MNIST's
SHEET = (0.2, 0.8)  # least share of the picture, and of a rectangle
UNEVEN, TANGLE = 0.12, 130  # see `is_cluttered`
STROKE = (3.5, 5.0)  # plausible widths in that box
GAP, SLACK = 7.0, 0.45  # in that box, for the pieces of a broken stroke
SQUARE, WHOLE = 1.5, 0.7  # SVHN's square, of the digit's longer side; a digit that fills a picture
PAPER = (225, 35)  # grey values of the ground and of the ink before the SVHN network
GREY = np.float32([0.299, 0.587, 0.114])
AROUND = np.ones((3, 3))


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
        draw = mnist_image if name == "mnist" else svhn_image
        clutter = is_cluttered(found, number)
        prepared.append(Prepared(draw(found, number), box, note, cluttered=clutter))
    return prepared


def preparation_steps(pixels: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """What is done to a picture uint8 (H, W, 3), step by step, for a figure.

    Returns, by title, arrays (H, W) or (H, W, 3), uint8 or float in [0, 1]: the picture, its ground
    removed, the ink found, the digit in its box, and what the network gets. Raises `DigitcnnError`
    if there is no ink.
    """
    found = look(pixels)
    if not found.boxes:
        raise DigitcnnError("No ink was found in the picture: there are no steps to show.")
    y, x = found.boxes[0]
    return {
        "picture": found.pixels,
        "ground removed": 1 - np.clip(found.depth / found.depth.max(), 0, 1),
        "ink found": 1.0 - found.mask,
        "digit": 1.0 - (found.labels[y, x] == 0),
        "as the network gets it": prepare_for([name], pixels)[name][0].image.transpose(1, 2, 0),
    }


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


@dataclass
class Look:
    """What was seen in a picture, stage by stage, each of the searched picture's size.

    Attributes:
        pixels: uint8 (H, W, 3), the picture, enlarged or reduced.
        dark: float (H, W), its channel with the greatest contrast, ink darker than its ground.
        ground: float (H, W).
        depth: float (H, W), how far below the ground, as a share of it.
        mask: bool (H, W), where ink is.
        labels: int (H, W), the number of the digit that the ink belongs to, or -1.
        boxes: of each digit, slices of rows and columns; the one with most ink first.
    """

    pixels: np.ndarray
    dark: np.ndarray
    ground: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    boxes: list[tuple[slice, slice]]

    def digits(self) -> list[int]:
        """Numbers of the digits: of what is written, all that is about as large as the largest."""
        sides = [max(y.stop - y.start, x.stop - x.start) for y, x in self.boxes]
        return [number for number, side in enumerate(sides) if side > 0.4 * sides[0]]


def look(pixels: np.ndarray) -> Look:
    """Find ink in a picture uint8 (H, W, 3), on a sheet of paper in it if there is one."""
    pixels = searched(pixels)
    paper = only_sheet(pixels)
    found = None if paper is None else ink_in(paper)
    return found if found and found.boxes else ink_in(pixels)


def only_sheet(pixels: np.ndarray) -> np.ndarray | None:
    """The picture with a sheet's colours going on where a table was; None if there is no sheet.

    A sheet is what stands out from the border, is a fifth of the picture or more, and fills most
    of a rectangle, turned by up to 20 degrees, even without the holes that ink leaves in it.
    """
    dark, *_ = one_channel(pixels)
    border = np.median(dark[outline(dark)])
    pieces, count = ndimage.label(dark < (border + dark.min()) / 2)
    if not count:
        return None
    region = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    sheet = ndimage.binary_fill_holes(region)
    if sheet.mean() < SHEET[0] or region.sum() < SHEET[1] * sheet.sum():
        return None
    y, x = np.nonzero(sheet)
    areas = []
    for angle in np.radians(np.arange(-20, 21, 2)):
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        areas.append((np.ptp(along) + 1) * (np.ptp(across) + 1))
    if sheet.sum() < SHEET[1] * min(areas):
        return None
    inside = ndimage.distance_transform_edt(np.pad(sheet, 1))[1:-1, 1:-1]
    outside = inside < 0.03 * max(sheet.shape)
    nearest = ndimage.distance_transform_edt(outside, return_distances=False, return_indices=True)
    return pixels[tuple(nearest)]


def ink_in(pixels: np.ndarray) -> Look:
    """Find ink in a picture uint8 (H, W, 3) of the size that is searched."""
    dark, bright, noise, margin = one_channel(pixels)
    brush = max(3, round(BRUSH * min(dark.shape)))
    beyond = {"mode": "edge"} if margin is None else {"constant_values": margin}
    wide = np.pad(dark, brush, **beyond)
    ground = ndimage.minimum_filter(ndimage.maximum_filter(wide, brush), brush)
    ground = ground[brush:-brush, brush:-brush]
    depth = ground - dark
    if not bright:  # less light, less contrast
        depth /= np.maximum(ground, 0.2)
        noise /= max(0.2, float(np.quantile(ground, 0.1)))
    depth -= np.quantile(depth, 0.3)  # a closing lies above noise
    found = Look(pixels, dark, ground, depth, depth > 2, np.full(depth.shape, -1), [])
    deepest = np.quantile(depth, 0.999)
    if deepest > max(INK, 6 * noise):
        found.mask = ink_mask(depth, deepest, max(4 * noise, FAINT * deepest))
        group(found)
    return found


def searched(pixels: np.ndarray) -> np.ndarray:
    """The picture with its longer side within `WORK`."""
    height, width = pixels.shape[:2]
    scale = np.clip(max(height, width), *WORK) / max(height, width)
    if scale == 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def one_channel(pixels: np.ndarray) -> tuple[np.ndarray, bool, float, float | None]:
    """Grey, red, green or blue, whichever deviates most from the picture's border.

    Returns float (H, W) in [0, 1] in which ink is dark, smoothed the more the noisier it is;
    whether ink was bright; the noise that is left, as a standard deviation; and the ground's value
    beyond the border: the border's own if it has one, else None.
    """
    colour = pixels.astype(np.float32) / 255
    grey = colour @ GREY
    sigma = float(np.clip(50 * noise_of(grey), *SMOOTH))
    edge = max(1, round(0.02 * min(grey.shape)))
    best = -1.0
    for noisy, weight in ((grey, 1.3), *((colour[..., i], 1) for i in range(3))):
        channel = ndimage.gaussian_filter(noisy, sigma)
        sides = (channel[:edge], channel[-edge:], channel[:, :edge], channel[:, -edge:])
        border = np.concatenate([side.ravel() for side in sides])
        middle = float(np.median(border))
        low, high = np.quantile(channel, [0.001, 0.999]) - middle
        deviation = max(-low, high)
        if weight * deviation > best:
            best, bright = weight * deviation, bool(high > -low)
            even = np.mean(np.abs(border - middle) < 0.15 * deviation) > 0.5
            chosen, margin = (channel, noisy), middle if even else None
    channel, noisy = chosen
    noise = noise_of(noisy) / (1 + 2 * sigma)
    if bright:
        return 1 - channel, True, noise, None if margin is None else 1 - margin
    return channel, False, noise, margin


def noise_of(channel: np.ndarray) -> float:
    """The standard deviation of a channel's noise, estimated from its finest detail."""
    return 1.6 * float(np.median(np.abs(channel - ndimage.uniform_filter(channel, 3))))


def ink_mask(depth: np.ndarray, deepest: float, least: float) -> np.ndarray:
    """Where ink is: bool (H, W).

    Faint ink counts where it goes on from strong ink, unless it runs out of the picture.
    """
    nearby = max(3, round(NEARBY * max(depth.shape)))
    faint = depth > np.maximum(least, EDGE * ndimage.maximum_filter(depth, nearby))
    strong = faint & (depth > 0.5 * deepest)
    pieces, count = ndimage.label(ndimage.maximum_filter(faint, nearby), AROUND)
    goes_on, leaves = np.zeros((2, count + 1), bool)
    goes_on[pieces[strong]] = True
    leaves[pieces[faint & outline(faint)]] = True
    return faint & (goes_on & ~leaves)[pieces] | strong


def outline(picture: np.ndarray) -> np.ndarray:
    """True at the border of an array (H, W)."""
    border = np.ones(picture.shape, bool)
    border[1:-1, 1:-1] = False
    return border


def group(found: Look) -> None:
    """Join pieces of ink that are close to each other, and sort them by their ink.

    What touches the border is taken only if what has most ink does.
    """
    pieces, count = ndimage.label(found.mask, AROUND)
    if not count:
        return
    ink = ndimage.sum_labels(found.depth, pieces, range(1, count + 1))
    leaves = np.isin(range(1, count + 1), pieces[outline(pieces)])
    weight = ink * np.where(leaves, 0.2, 1)
    first = weight.argmax()
    boxes = np.array([(y.start, x.start, y.stop, x.stop) for y, x in ndimage.find_objects(pieces)])
    side = (boxes[first, 2:] - boxes[first, :2]).max()
    usable = (weight > SPECK * weight[first]) & (leaves[first] | ~leaves)
    # Enlarged by half of the gap that may lie between them, the boxes of one digit overlap.
    # Digits of one number are equally high: what is less high may lie further beside.
    high = boxes[:, 2] - boxes[:, 0] > 0.7 * (boxes[first, 2] - boxes[first, 0])
    beside = np.where(high, BESIDE, ABOVE)
    above = np.full(count, ABOVE)
    grown = boxes + side / 2 * np.stack([-above, -beside, above, beside], 1)
    digits: list[list[int]] = []
    for piece in [piece for piece in np.argsort(-weight)[:MOST] if usable[piece]]:
        mine = [piece]
        while near := [each for each in digits if _overlap(grown, mine, each)]:
            for each in near:
                digits.remove(each)
                mine += each
        digits.append(mine)
    digits.sort(key=lambda members: -weight[members].sum())
    lookup = np.full(count + 1, -1)
    for number, members in enumerate(digits):
        lookup[np.array(members) + 1] = number
        (top, left), (bottom, right) = boxes[members, :2].min(0), boxes[members, 2:].max(0)
        found.boxes.append((slice(top, bottom), slice(left, right)))
    found.labels = lookup[pieces]


def _overlap(boxes: np.ndarray, some: list[int], others: list[int]) -> bool:
    """Whether the box around some boxes (top, left, bottom, right) overlaps that around others."""
    start = np.maximum(boxes[some, :2].min(0), boxes[others, :2].min(0))
    return bool((start < np.minimum(boxes[some, 2:].max(0), boxes[others, 2:].max(0))).all())


def is_cluttered(found: Look, number: int) -> bool:
    """Whether what was found as a digit lies among other things, or is a tangle.

    The root mean square of what is left of the ground, as a share of the ink's depth, is 0.09 at
    most in nearly all photographs of a digit; the ink's outline is hardly ever longer than 110
    pixels of MNIST's box.
    """
    y, x = found.boxes[number]
    ink = found.labels == number
    rest = np.where(ndimage.maximum_filter(ink, 7), 0, np.maximum(found.depth, 0))
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


def svhn_image(found: Look, number: int) -> np.ndarray:
    """The square around a digit, a margin included: uint8 (3, 32, 32).

    What fills the picture already is taken whole, as a photograph of a house number is.
    """
    y, x = found.boxes[number]
    side = max(y.stop - y.start, x.stop - x.start)
    if side > WHOLE * max(found.mask.shape):
        return fitted(found.pixels)
    ink = trimmed(strokes(found, number))
    square = round(SQUARE * max(ink.shape))
    margins = [((square - n) // 2, square - n - (square - n) // 2) for n in ink.shape]
    paper, pen = PAPER
    drawn = np.uint8(paper + (pen - paper) * np.pad(ink, margins))
    return fitted(np.repeat(drawn[..., None], 3, axis=2))
