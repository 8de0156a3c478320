"""Style: what all figures share. Colours, type, and how an image is shown."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

WIDTH = 7.0  # inches: the text width of the PDF
# Okabe and Ito's palette, told apart by colour-blind readers too.
DATA_COLOUR = {"mnist": "#0072B2", "svhn": "#D55E00"}
SPLIT_COLOUR = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73"}
CLASS_COLOURS = sns.color_palette("tab10", 10)


def set_style() -> None:
    """Seaborn's ticks with type that is readable in print at the PDF's text width."""
    sns.set_theme(style="ticks", palette="colorblind", font_scale=0.85)
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.2),
            "figure.constrained_layout.use": True,
            "figure.dpi": 160,
            "savefig.dpi": 160,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.35,
            "grid.linewidth": 0.6,
            "font.size": 9,
            "axes.titlesize": 10,
            "legend.frameon": False,
            "svg.fonttype": "path",
        }
    )


def show_image(axis: plt.Axes, image: np.ndarray, title: str = "", colour: str = "black") -> None:
    """Draw one uint8 (3, 32, 32) image without axes, with a small title."""
    axis.imshow(np.asarray(image).transpose(1, 2, 0), interpolation="nearest")
    axis.set_title(title, fontsize=7, pad=2, color=colour)
    axis.set_axis_off()
