"""Style: what all figures share. Typeface, colours, and how an image is shown."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib import font_manager

WIDTH = 4.8  # inches: the text width of the PDF, so that type is printed in the size set here
SIZE = 8.5  # points; the text has 11
FONTS = Path(__file__).resolve().parents[2] / "assets" / "fonts"  # the text's typeface
# The data sets' colours are Okabe and Ito's blue and vermilion and stand for nothing else.
DATA_COLOUR = {"mnist": "#0072B2", "svhn": "#D55E00"}
SPLIT_COLOUR = {"train": "0.4", "validation": "0.3", "test": "0.0"}
SPLIT_LINE = {"train": ":", "validation": "--", "test": "-"}
RIGHT, WRONG = "0.35", "#811340"
# The ten classes, found by a search for the largest smallest distance (CIELAB) between any two, and
# to the data sets' colours, with and without each kind of colour blindness; a test simulates
# these (Machado et al. 2009).
CLASS_COLOURS = (
    "#811340", "#11ecb3", "#9861ff", "#94bbff", "#abd76d",
    "#dbd624", "#c26d5c", "#9e8197", "#633a00", "#0429f9",
)  # fmt: skip


def set_style() -> None:
    """The report's typeface, thin lines, no frame."""
    for path in sorted(FONTS.glob("*.otf")):
        font_manager.fontManager.addfont(path)
    sns.set_theme(style="ticks", palette="colorblind")
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, 2.4),
            "figure.constrained_layout.use": True,
            "figure.dpi": 200,
            "savefig.dpi": 200,  # of what is drawn as pixels within a vector figure
            "font.family": ["Libertinus Serif", "DejaVu Sans"],
            "font.size": SIZE,
            "axes.labelsize": SIZE,
            "axes.titlesize": SIZE + 0.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "xtick.labelsize": SIZE - 0.5,
            "ytick.labelsize": SIZE - 0.5,
            "legend.fontsize": SIZE - 0.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "axes.edgecolor": "0.3",
            "axes.grid": False,
            "grid.linewidth": 0.4,
            "grid.color": "0.88",
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.minor.width": 0.4,
            "ytick.minor.width": 0.4,
            "xtick.major.size": 3,
            "ytick.major.size": 3,
            "xtick.minor.size": 1.5,
            "ytick.minor.size": 1.5,
            "xtick.color": "0.2",
            "ytick.color": "0.2",
            "lines.linewidth": 1.2,
            "lines.markersize": 3.5,
            "legend.frameon": False,
            "svg.fonttype": "path",
        }
    )
