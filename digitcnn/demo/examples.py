"""Example pictures to click, drawn on the spot: each stands for one thing that a photograph does.

They need neither a data set nor a file, and are the same each time.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 160  # pixels


def examples() -> dict[str, np.ndarray]:
    """Pictures uint8 (3, `SIDE`, `SIDE`) by what they show."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE

    def painted(ink: np.ndarray, paper: tuple, paint: tuple, shade: float = 0) -> np.ndarray:
        light = (1 - shade * (x + y) / 2)[..., None]
        picture = np.array(paper) * (1 - ink) + np.array(paint) * ink
        noise = random.normal(0, 2, (SIDE, SIDE, 1))
        return (picture * light + noise).clip(0, 255).astype(np.uint8).transpose(2, 0, 1)

    stripes = np.clip(8 * np.sin(40 * x + 6 * np.sin(7 * y)), 0, 1)[..., None]
    return {
        "a pen on paper in the shade": painted(_three(), (238, 236, 228), (30, 40, 110), 0.5),
        "print, light on dark": painted(_print("7", 120), (38, 84, 62), (232, 235, 226)),
        "small and in a corner": painted(_print("5", 44, (34, 126)), (240,) * 3, (20,) * 3),
        "a house number": painted(_print("24", 100), (150, 40, 36), (240, 222, 180), 0.2),
        "no digit": painted(stripes, (196, 160, 110), (120, 84, 50)),
    }


def _print(text: str, size: int, middle: tuple[int, int] = (SIDE // 2, SIDE // 2)) -> np.ndarray:
    """Printed ink in [0, 1], (`SIDE`, `SIDE`, 1)."""
    image = Image.new("L", (SIDE, SIDE))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text(middle, text, 255, font, anchor="mm")
    return np.asarray(image, np.float32)[..., None] / 255


def _three() -> np.ndarray:
    """A 3 in two strokes of a pen, as `_print`."""
    image = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    draw.arc((52, 28, 106, 80), 200, 90, 255, 9)
    draw.arc((44, 71, 110, 136), 270, 160, 255, 9)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)), np.float32)[..., None] / 255
