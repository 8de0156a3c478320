"""What the figures share: a typeface that has every sign, colours that all readers tell apart."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager

from digitcnn.report import style

# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB to what is seen.
SEEN = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of linear sRGB (3,)."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
              [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip
    x, y, z = np.cbrt(to_xyz @ linear / [0.95047, 1.0, 1.08883])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str, seen: np.ndarray) -> float:
    colours = (np.array(mpl.colors.to_rgb(colour)) for colour in (one, other))
    linear = (np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in colours)
    a, b = (lab(np.clip(np.asarray(seen) @ part, 1e-6, 1)) for part in linear)
    return float(np.linalg.norm(a - b))


@pytest.mark.parametrize("kind", SEEN)
def test_classes_and_data_sets_are_told_apart_by_all_eyes(kind):
    colours = [*style.CLASS_COLOURS, *style.DATA_COLOUR.values()]
    closest = min(distance(a, b, SEEN[kind]) for a, b in itertools.combinations(colours, 2))
    assert closest > 19  # of the usual ten (tab10) two are 7 apart under deuteranopia


def test_the_usual_ten_colours_would_fail():
    tab10 = [mpl.colors.to_hex(colour) for colour in mpl.colormaps["tab10"].colors]
    pairs = itertools.combinations(tab10, 2)
    assert min(distance(a, b, SEEN["deuteranopia"]) for a, b in pairs) < 10


def test_figures_have_the_typeface_of_the_text_and_its_signs():
    style.set_style()
    path = font_manager.findfont("Libertinus Serif", fallback_to_default=False)
    signs = font_manager.get_font(path).get_charmap()
    assert {ord(sign) for sign in "0123456789−±→≥≤×…–—’‘“”\u202f%"} <= signs.keys()
