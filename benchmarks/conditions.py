"""Pictures with a digit in them as people make them, generated: what `pictures.py` measures on.

Printed digits come from the fonts of this machine, by family in two disjoint groups (`FAMILIES`);
handwriting comes from MNIST's test images, in two disjoint halves, by writer where it is known who
wrote them. What was tuned saw the part ``tune`` only, with seeds of its own; the table is measured
on the part ``measure``. Every picture is a file's content.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from digitcnn import sources

FAMILIES = {  # Debian: fonts-liberation, fonts-freefont-ttf, fonts-open-sans, fonts-roboto, …
    "tune": (
        "Cabin", "Caladea", "Cantarell", "Clear Sans", "Comfortaa", "Courier Prime", "Dosis",
        "Ecolier_court", "Fira Code", "FreeSans", "FreeSerif", "Go", "Humor Sans", "Karla", "Lato",
        "Liberation Sans Narrow", "PT Sans", "PT Serif", "Sora",
        "Tuffy",
    ),
    "measure": (
        "Andika", "Averia Sans GWF", "B612", "Breip", "Carlito", "Comic Neue", "DejaVu Sans",
        "DejaVu Serif", "DkgHandwriting", "FreeMono", "Gentium Basic", "Hack", "Inconsolata",
        "JetBrains Mono", "Junction", "Liberation Mono", "Liberation Sans", "Liberation Serif",
        "Linux Libertine O", "Manrope", "Noto Mono", "Old Standard TT", "Open Sans", "Play",
        "Quattrocento", "Quicksand", "Roboto", "Ubuntu-Title",
    ),
}  # fmt: skip
KINDS = ("printed", "handwritten")
ROUND = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
GLYPH = 160  # pixels of a glyph's longer side, before it is placed


# Digits ----------------------------------------------------------------------------------------


@cache
def font_files(part: str) -> list[list[str]]:
    """The font files of each family of a part that this machine has."""
    from matplotlib import font_manager

    found: dict[str, list[str]] = {}
    for path in sorted(font_manager.findSystemFonts()):
        try:
            family = ImageFont.truetype(path, 20).getname()[0]
        except OSError:
            continue
        if family in FAMILIES[part]:
            found.setdefault(family, []).append(path)
    if len(found) < len(FAMILIES[part]) / 2:
        sys.exit(f"Only {len(found)} of the {len(FAMILIES[part])} font families are installed.")
    return list(found.values())


def printed(digit: int, part: str, random: np.random.Generator) -> np.ndarray:
    """A digit of a random font: ink in [0, 1], trimmed, its longer side `GLYPH` pixels."""
    families = font_files(part)
    paths = families[random.integers(len(families))]
    font = ImageFont.truetype(paths[random.integers(len(paths))], GLYPH)
    canvas = Image.new("L", (3 * GLYPH, 3 * GLYPH))
    ImageDraw.Draw(canvas).text((GLYPH, GLYPH), str(digit), 255, font)
    return trimmed(np.asarray(canvas) / 255)


@cache
def handwriting(part: str, writers: str | None) -> dict[int, np.ndarray]:
    """MNIST test images (N, 28, 28) of a part's writers, by digit."""
    mnist = sources.read("mnist")
    test = np.flatnonzero(mnist.official_test)
    of = np.load(writers)["test_writer"] if writers else np.arange(len(test)) // 20
    names = np.unique(of)
    chosen = np.random.default_rng(16).permutation(names)[: len(names) // 2]
    mine = np.isin(of, chosen) == (part == "tune")
    images, labels = mnist.images[test[mine], 0, 2:30, 2:30], mnist.labels[test[mine]]
    return {digit: images[labels == digit] for digit in range(10)}


def handwritten(
    digit: int, part: str, random: np.random.Generator, writers: str | None
) -> np.ndarray:
    """A digit of MNIST's test images, enlarged smoothly, in the form of `printed`."""
    images = handwriting(part, writers)[digit]
    small = Image.fromarray(images[random.integers(len(images))])
    large = np.asarray(small.resize((336, 336), Image.Resampling.BICUBIC)) / 255
    return trimmed(np.clip((large - 0.5) * 3 + 0.5, 0, 1))


def trimmed(ink: np.ndarray) -> np.ndarray:
    """Ink cut to its box and resized so that its longer side is `GLYPH`."""
    rows, columns = (np.flatnonzero((ink > 0.3).any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return resized(ink, GLYPH)


def resized(ink: np.ndarray, side: int) -> np.ndarray:
    """Ink resized so that its longer side is `side`."""
    height, width = (max(1, round(side * n / max(ink.shape))) for n in ink.shape)
    image = Image.fromarray((255 * ink).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) / 255


def thinned(ink: np.ndarray, width: float) -> np.ndarray:
    """The middle line of each stroke, drawn with a pen `width` pixels wide."""
    line = np.pad(ink > 0.5, 8)
    while True:  # Zhang and Suen 1984
        before = line.sum()
        for first in (True, False):
            n = [np.roll(line, shift, (0, 1)) for shift in ROUND]
            around = sum(each.astype(int) for each in n)
            turns = sum((~n[i] & n[(i + 1) % 8]).astype(int) for i in range(8))
            north, east, south, west = n[0], n[2], n[4], n[6]
            corner = ~(north & east & south) & ~(east & south & west)
            if not first:
                corner = ~(north & east & west) & ~(north & south & west)
            line = line & ~((around >= 2) & (around <= 6) & (turns == 1) & corner)
        if line.sum() == before:
            break
    return np.clip(width / 2 + 0.5 - ndimage.distance_transform_edt(~line), 0, 1)


# Conditions ------------------------------------------------------------------------------------


def place(
    ink: np.ndarray, size: tuple[int, int], side: float, at: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """Ink on a canvas of `size` (width, height): longer side `side` of the shorter edge, centre
    `at` (x, y) as shares of what is free."""
    ink = resized(ink, max(4, round(side * min(size))))
    canvas = np.zeros(size[::-1], np.float32)
    top = round(at[1] * (size[1] - ink.shape[0]))
    left = round(at[0] * (size[0] - ink.shape[1]))
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return canvas


def mixed(ink: np.ndarray, paper: object, pen: object) -> np.ndarray:
    """Colours float (H, W, 3) in 0 to 255: `paper` where there is no ink, `pen` where it is."""
    paper, pen = np.asarray(paper, np.float32), np.asarray(pen, np.float32)
    return paper + (pen - paper) * np.float32(ink)[..., None]


def encoded(pixels: np.ndarray, kind: str = "PNG", **more) -> bytes:
    """A picture file's content."""
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, kind, **more)
    return buffer.getvalue()


def anywhere(random: np.random.Generator) -> tuple[float, float]:
    return tuple(random.uniform(0.08, 0.92, 2))


def drawing(size: int, side: float, black: bool = True, centred: bool = True) -> Callable:
    """A clean drawing on a square canvas."""

    def draw(ink, random):
        at = (0.5, 0.5) if centred else anywhere(random)
        canvas = place(ink, (size, size), side, at)
        return encoded(mixed(canvas, *((255, 0) if black else (0, 255))) * np.ones(3))

    return draw


def transparent(ink, random):
    canvas = place(ink, (280, 280), 0.6)
    pixels = np.zeros((280, 280, 4))
    pixels[..., 3] = 255 * canvas
    return encoded(pixels)


def exif_rotated(ink, random):
    orientation = (3, 6, 8)[random.integers(3)]
    pixels = mixed(place(ink, (280, 320), 0.6), 255, 0) * np.ones(3)
    pixels = np.rot90(pixels, {3: 2, 6: 1, 8: 3}[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(pixels, "JPEG", quality=90, exif=exif)


def paint(ink, random):
    thin = thinned(ink, random.uniform(1.5, 5))
    return encoded(mixed(place(thin, (1152, 648), 0.5, anywhere(random)), 255, 0) * np.ones(3))


def pencil(ink, random):
    canvas = place(thinned(ink, random.uniform(2, 8)), (400, 400), 0.6, anywhere(random))
    pressure = ndimage.zoom(random.uniform(0.35, 1, (5, 5)), 80, order=1)
    paper = random.uniform(225, 250)
    pixels = paper - random.uniform(30, 110) * canvas * pressure
    pixels = pixels + random.normal(0, 2, pixels.shape)
    return encoded(pixels[..., None] * np.ones(3), "JPEG", quality=85)


def light(size: tuple[int, int], random: np.random.Generator, shadow: bool) -> np.ndarray:
    """Uneven light (H, W, 1): a lamp from one side and, if asked, a shadow with a soft edge."""
    y, x = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
    angle = random.uniform(0, 2 * np.pi)
    field = 0.78 + random.uniform(0.05, 0.2) * (x * np.cos(angle) + y * np.sin(angle))
    if shadow:
        angle, soft = random.uniform(0, 2 * np.pi), random.uniform(0.01, 0.15)
        distance = x * np.cos(angle) + y * np.sin(angle) - random.uniform(0, 0.6)
        field *= 1 - random.uniform(0.25, 0.55) / (1 + np.exp(-distance / soft * 3))
    return np.float32(field)[..., None]


def camera(pixels, random, noise: tuple[float, float], blur: tuple[float, float]) -> bytes:
    """Blur, noise and JPEG compression."""
    pixels = ndimage.gaussian_filter(np.float32(pixels), (*[random.uniform(*blur)] * 2, 0))
    grain = random.standard_normal(pixels.shape, np.float32)
    pixels += np.float32(random.uniform(*noise)) * grain
    return encoded(pixels, "JPEG", quality=int(random.integers(70, 95)))


def pen_colour(random) -> np.ndarray:
    return np.array(
        [(25, 25, 30), (20, 30, 95), (110, 25, 30)][random.choice(3, p=[0.5, 0.35, 0.15])]
    )


def photograph(ink, random):
    size = ((640, 480), (480, 640))[random.integers(2)]
    ink = ndimage.rotate(ink, random.uniform(-8, 8), order=1)
    canvas = place(ink, size, random.uniform(0.25, 0.5), anywhere(random))
    paper = 255 * np.array([1, 0.98, random.uniform(0.85, 1)])
    return camera(
        mixed(canvas, paper, pen_colour(random)) * light(size, random, True),
        random, (2, 7), (0.6, 1.6),
    )  # fmt: skip


def tilted(ink, random):
    """A sheet seen from the side: perspective, turned up to 12 degrees, a lamp."""
    canvas = place(ink, (640, 480), random.uniform(0.3, 0.55), tuple(random.uniform(0.3, 0.7, 2)))
    image = Image.fromarray((255 * canvas).astype(np.uint8)).rotate(random.uniform(-12, 12), 2)
    w, h = image.size
    inset = random.uniform(0, 0.22, 8) * np.array([w, h] * 4)
    corners = np.array([0, 0, 0, h, w, h, w, 0]) + inset * [1, 1, 1, -1, -1, -1, -1, 1]
    image = image.transform((w, h), Image.Transform.QUAD, tuple(corners), 2)
    paper = 255 * np.array([1, random.uniform(0.9, 1), random.uniform(0.8, 1)])
    pixels = mixed(np.asarray(image) / 255, paper, pen_colour(random))
    return camera(pixels * light((w, h), random, False), random, (2, 8), (0.6, 2.0))


def webcam(ink, random):
    """Small, blurred and noisy."""
    canvas = place(ink, (320, 240), random.uniform(0.3, 0.6), anywhere(random))
    pixels = mixed(canvas, 235, pen_colour(random)) * light((320, 240), random, False)
    return camera(pixels, random, (10, 22), (1.0, 2.2))


def coloured(ink, random):
    """Any ink on any paper whose brightness differs by at least a quarter of the range."""
    while True:
        paper, pen = random.uniform(0, 255, (2, 3))
        if abs((paper - pen) @ (0.299, 0.587, 0.114)) > 64:
            break
    return encoded(
        mixed(place(ink, (300, 300), random.uniform(0.3, 0.7), anywhere(random)), paper, pen)
    )


def tight(ink, random):
    """Cut to the digit's own box, 16 to 64 pixels, either polarity."""
    side = int(random.integers(16, 65))
    canvas = resized(ink, side)
    square = np.zeros((side, side))
    top, left = (side - canvas.shape[0]) // 2, (side - canvas.shape[1]) // 2
    square[top : top + canvas.shape[0], left : left + canvas.shape[1]] = canvas
    pixels = 255 * (square if random.random() < 0.5 else 1 - square)
    return encoded(pixels[..., None] * np.ones(3))


def board(ink, random):
    """Chalk on a blackboard, lit from one side."""
    canvas = place(ink, (640, 480), random.uniform(0.3, 0.6), anywhere(random))
    grain = np.clip(ndimage.gaussian_filter(random.normal(0, 1, canvas.shape), 1) * 1.2 + 0.8, 0, 1)
    pixels = mixed(canvas * grain, (40, 62, 52), (225, 225, 215)) * light((640, 480), random, False)
    return camera(pixels, random, (2, 6), (0.5, 1.2))


def table(ink, random):
    """A sheet of paper on a darker table, turned a little."""
    size = (640, 480)
    canvas = place(ink, size, random.uniform(0.25, 0.4), tuple(random.uniform(0.4, 0.6, 2)))
    sheet = np.zeros(size[::-1])
    sheet[56:424, 88:552] = 1
    angle = random.uniform(-10, 10)
    canvas, sheet = (
        ndimage.rotate(each, angle, order=1, reshape=False) for each in (canvas, sheet)
    )
    wood = np.array([random.uniform(60, 130)] * 3) * (1.1, 0.85, 0.65)
    grain = ndimage.gaussian_filter(random.normal(0, 1, size[::-1]), (1, 30))
    ground = mixed(sheet, wood, (245, 243, 235)) + 60 * (1 - sheet[..., None]) * grain[..., None]
    pixels = ground + (pen_colour(random) - ground) * canvas[..., None]
    return camera(pixels * light(size, random, False), random, (2, 6), (0.6, 1.6))


def squared(ink, random):
    """Squared paper, photographed: blue lines through the digit."""
    size, step = (640, 480), int(random.integers(24, 48))
    lines = np.zeros(size[::-1])
    lines[random.integers(step) :: step] = lines[:, random.integers(step) :: step] = 1
    lines = ndimage.rotate(
        np.pad(lines, 100, "wrap"), random.uniform(-3, 3), order=1, reshape=False
    )
    pixels = mixed(random.uniform(0.3, 0.6) * lines[100:-100, 100:-100], 248, (90, 140, 210))
    canvas = place(ink, size, random.uniform(0.3, 0.6), anywhere(random))[..., None]
    pixels = pixels + (pen_colour(random) - pixels) * canvas
    return camera(pixels * light(size, random, False), random, (2, 5), (0.6, 1.2))


CONDITIONS: dict[str, Callable] = {
    "white on black, centred": drawing(280, 0.7, black=False),
    "black on white, centred": drawing(280, 0.7),
    "30 % of the canvas": drawing(280, 0.3),
    "15 % of the canvas": drawing(280, 0.15),
    "off-centre": drawing(280, 0.45, centred=False),
    "transparent PNG, black ink": transparent,
    "phone photograph, uncut": photograph,
    "rotated by EXIF": exif_rotated,
    "Paint, thin brush": paint,
    "pencil, low contrast": pencil,
    "seen from the side": tilted,
    "webcam: noise and blur": webcam,
    "coloured ink and paper": coloured,
    "cut tightly, 16 to 64 pixels": tight,
    "chalk on a blackboard": board,
    "sheet on a table": table,
    "squared paper": squared,
    "white on black, 15 %": drawing(280, 0.15, black=False, centred=False),
}


@dataclass
class Batch:
    """Generated pictures' contents and labels."""

    contents: list[bytes]
    labels: np.ndarray


def generate(condition: str, kind: str, part: str, count: int, writers: str | None) -> Batch:
    """The same pictures at each call; `part` is ``tune`` or ``measure``."""
    random = np.random.default_rng([zlib.crc32(f"{part} {condition} {kind}".encode()), 16])
    labels = np.arange(count) % 10
    contents = []
    for digit in labels.tolist():
        if kind == "printed":
            ink = printed(digit, part, random)
        else:
            ink = handwritten(digit, part, random, writers)
        contents.append(CONDITIONS[condition](ink, random))
    return Batch(contents, labels)
