"""Ink: what is written in a picture, and which of it is one digit.

A digit is ink on a ground that surrounds it. The ground is what a brush wider than any stroke
leaves (a morphological closing), so that uneven light and shadows belong to it; what is darker is
ink, in the negative if the picture deviates from its border towards bright. Ink counts where it
reaches two fifths of its own strength nearby. Pieces close to each other are one digit, and the
digit with most ink that does not leave the picture comes first. Where a sheet of paper lies on a
table, the paper goes on in place of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

WORK = (256, 512)  # pixels of the longer side of what is searched, at least and at most
SHEET = (0.2, 0.8)  # least share of the picture, and of a rectangle
BRUSH = 0.35  # width of the closing, as a share of the shorter side
SMOOTH = (0.5, 1.5)  # least and greatest standard deviation of the smoothing, in pixels
DUST = 30  # pixels of the searched picture that no digit is smaller than
INK = 0.05  # least depth of ink below its ground, as a share of the range from black to white
FAINT = 0.07  # least depth of ink, as a share of the deepest
NEARBY = 0.03  # what is near, as a share of the longer side
TINY = 4  # enlargement from which a picture holds little but a digit: 64 pixels or fewer
PIXELS = 2.0  # what is near at least, in pixels of the picture before it was enlarged
EDGE = 0.4  # share of its own depth nearby at which ink begins
BESIDE, ABOVE = 0.08, 0.35  # gaps between pieces of one digit, as shares of its longer side
MOST = 40  # pieces that are looked at, those with most ink
SPECK = 0.01  # ink of a piece that is ignored, as a share of the greatest piece's
GREY = np.float32([0.299, 0.587, 0.114])  # type: ignore[arg-type]  # NumPy takes a list
AROUND = np.ones((3, 3))


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
        scale: pixels of the searched picture for one of the original.
    """

    pixels: np.ndarray
    dark: np.ndarray
    ground: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    boxes: list[tuple[slice, slice]]
    scale: float = 1.0

    def digits(self) -> list[int]:
        """Numbers of the digits: of what is written, all that is about as large as the largest."""
        sides = [max(y.stop - y.start, x.stop - x.start) for y, x in self.boxes]
        return [number for number, side in enumerate(sides) if side > 0.4 * sides[0]]

    def row(self, number: int) -> list[int]:
        """A digit and those beside it that are about as high: the digits of one number."""
        top, bottom = self.boxes[number][0].start, self.boxes[number][0].stop
        return [
            other
            for other in self.digits()
            if min(bottom, self.boxes[other][0].stop) - max(top, self.boxes[other][0].start)
            > 0.7 * max(bottom - top, self.boxes[other][0].stop - self.boxes[other][0].start)
        ]


def look(pixels: np.ndarray) -> Look:
    """Find ink in a picture uint8 (H, W, 3), on a sheet of paper in it if there is one."""
    original, pixels = pixels, searched(pixels)
    scale = max(pixels.shape) / max(original.shape)
    channel = one_channel(pixels)
    # What stands out from a tiny picture is a bold digit rather than a sheet with a digit on it.
    paper = only_sheet(pixels, channel[0]) if scale < TINY else None
    found = None if paper is None else ink_in(paper, one_channel(paper), scale)
    return found if found and found.boxes else ink_in(pixels, channel, scale)


def only_sheet(pixels: np.ndarray, dark: np.ndarray) -> np.ndarray | None:
    """The picture with a sheet's colours going on where a table was; None if there is no sheet.

    `dark` is its channel as `one_channel` gives it. A sheet is what stands out from the border, is
    a fifth of the picture or more, and fills most of a rectangle, turned by up to 20 degrees, even
    without the holes that ink leaves in it.
    """
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


def ink_in(pixels: np.ndarray, channel: tuple, scale: float) -> Look:
    """Find ink in a picture uint8 (H, W, 3) of the size that is searched, enlarged by `scale`.

    `channel` is what `one_channel` gives for it.
    """
    dark, bright, noise, margin = channel
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
    found = Look(pixels, dark, ground, depth, depth > 2, np.full(depth.shape, -1), [], scale)
    deepest = extremes(depth)[1]
    if deepest > max(INK, 6 * noise):
        found.mask = ink_mask(depth, deepest, max(4 * noise, FAINT * deepest), scale)
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
    colours = range(3 if np.ptp(pixels, 2).any() else 0)  # of a grey picture all are the same
    for noisy, weight in ((grey, 1.3), *((colour[..., i], 1) for i in colours)):
        channel = ndimage.gaussian_filter(noisy, sigma)
        sides = (channel[:edge], channel[-edge:], channel[:, :edge], channel[:, -edge:])
        border = np.concatenate([side.ravel() for side in sides])
        middle = float(np.median(border))
        low, high = (extreme - middle for extreme in extremes(channel))
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


def extremes(channel: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest value of a channel, but for the `DUST` beyond them."""
    few = min(DUST, channel.size - 1)
    ranked = np.partition(channel, (few, channel.size - 1 - few), axis=None)
    return float(ranked[few]), float(ranked[-1 - few])


def noise_of(channel: np.ndarray) -> float:
    """The standard deviation of a channel's noise, estimated from its finest detail."""
    return 1.6 * float(np.median(np.abs(channel - ndimage.uniform_filter(channel, 3))))


def ink_mask(depth: np.ndarray, deepest: float, least: float, scale: float) -> np.ndarray:
    """Where ink is: bool (H, W).

    Faint ink counts where it goes on from strong ink, unless it runs out of the picture, as a
    shadow does. In a tiny picture the edge of a stroke is as wide as the pixels that it was
    enlarged from, so what is near is wider; and there strokes may run out of the picture.
    """
    nearby = max(3, round(NEARBY * max(depth.shape)), round(PIXELS * scale))
    faint = depth > np.maximum(least, EDGE * ndimage.maximum_filter(depth, nearby))
    strong = faint & (depth > 0.5 * deepest)
    pieces, count = ndimage.label(ndimage.maximum_filter(faint, nearby), AROUND)
    goes_on, leaves = np.zeros((2, count + 1), bool)
    goes_on[pieces[strong]] = True
    leaves[pieces[faint & outline(faint)]] = True
    if scale >= TINY:
        leaves[pieces[strong & outline(faint)]] = False
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
