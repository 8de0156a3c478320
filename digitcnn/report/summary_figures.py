"""The figure of the first page. It shows what it is given."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.figure import Figure, SubFigure

from ..runs import CASES
from ..sources import TITLES
from .evaluation import Shown
from .style import CLASS_COLOURS, DATA_COLOUR, SIZE, WIDTH
from .summary import Features


def first_page(
    curves: dict[str, dict[str, dict[str, pd.DataFrame]]],
    confused: dict[str, list[Shown]],
    features: dict[str, Features],
    rare: dict[str, SimpleNamespace],
) -> Figure:
    """The report in four panels, from values by data set.

    Args:
        curves: as from `experiments.curves`.
        confused, features: as from `summary`.
        rare: as from `imbalance.judged`, own test split.
    """
    figure = plt.figure(figsize=(WIDTH, 2.8))
    (a, b), (c, d) = figure.subfigures(2, 2, width_ratios=(1.05, 1), height_ratios=(1, 1))
    for panel, title in zip(
        (a, b, c, d),
        ("(b) Test errors (%), by epoch", "(c) Frequent confusions",
         "(d) Features, by class", "(e) 1s found (%), by 1s : 2s in training"),
        strict=True,
    ):  # fmt: skip
        panel.suptitle(title, fontsize=SIZE + 0.5, weight="bold", x=0.02, ha="left")
    _curves(a, curves)
    _pictures(b, confused)
    _maps(c, features)
    _recalls(d, rare)
    return figure


def _curves(panel: SubFigure, curves: dict[str, dict[str, dict[str, pd.DataFrame]]]) -> None:
    """Test errors by epoch, a line for each training."""
    axis = panel.subplots()
    for name, trainings in curves.items():
        for history in trainings.values():
            epochs, errors = history["test"]["epoch"], 100 * (1 - history["test"]["accuracy"])
            axis.plot(epochs, errors, color=DATA_COLOUR[name], linewidth=0.8)
        half = len(epochs) // 2
        axis.text(epochs.iloc[half], 1.25 * errors.iloc[half:].max(), TITLES[name],
                  color=DATA_COLOUR[name], weight="bold", ha="center", va="bottom")  # fmt: skip
    axis.set(yscale="log", xlim=(0, None))
    axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(mpl.ticker.NullLocator())


def _pictures(panel: SubFigure, confused: dict[str, list[Shown]]) -> None:
    """A row of pictures for each confusion, its name in the data set's colour."""
    rows = [(name, row) for name, found in confused.items() for row in found]
    columns = max((len(row.images) for _, row in rows), default=1)
    axes = panel.subplots(
        max(len(rows), 1), columns, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02}
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (name, row) in zip(axes, rows, strict=False):
        for axis, image in zip(line, row.images, strict=False):
            axis.imshow(image.transpose(1, 2, 0), interpolation="nearest")
        head = row.heading.partition("\n")[0]
        line[0].text(-0.15, 0.74, head, transform=line[0].transAxes, ha="right", va="center",
                     color=DATA_COLOUR[name], weight="bold")  # fmt: skip
        line[0].text(-0.15, 0.14, TITLES[name], transform=line[0].transAxes, ha="right",
                     va="center", fontsize=SIZE - 1.5)  # fmt: skip


def _maps(panel: SubFigure, features: dict[str, Features]) -> None:
    """A point for each test image, a colour and a number for each class."""
    axes = panel.subplots(1, len(features))
    for axis, (name, (points, labels)) in zip(np.atleast_1d(axes), features.items(), strict=True):
        axis.scatter(*points.T, s=0.4, linewidths=0, c=np.array(CLASS_COLOURS)[labels],
                     rasterized=True)  # fmt: skip
        for digit in np.unique(labels):
            middle = np.median(points[labels == digit], axis=0)
            outline = [patheffects.withStroke(linewidth=1.6, foreground="white")]
            axis.annotate(
                str(digit), middle, xytext=(6, 5), textcoords="offset points", ha="center",
                va="center", weight="bold", path_effects=outline,
            )  # fmt: skip
        axis.set_title(TITLES[name], color=DATA_COLOUR[name], loc="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def _recalls(panel: SubFigure, rare: dict[str, SimpleNamespace]) -> None:
    """Recall of '1' in the three cases, a dot for each training, a line through the means."""
    axis = panel.subplots()
    for name, found in rare.items():
        cases = [getattr(found, case).recall_1 for case in CASES]
        axis.plot(range(len(cases)), [100 * case for case in cases], color=DATA_COLOUR[name])
        for place, case in enumerate(cases):
            axis.plot([place] * len(case.values), 100 * np.array(case.values), "o",
                      color=DATA_COLOUR[name], markersize=2.5, alpha=0.7)  # fmt: skip
        axis.annotate(TITLES[name], (0, 100 * cases[0]), xytext=(7, -3), va="top", weight="bold",
                      textcoords="offset points", color=DATA_COLOUR[name])  # fmt: skip
    counts = ["all" if one is None else f"{one} : {two:,}" for one, two in CASES.values()]
    axis.set_xticks(range(len(counts)), counts)
    axis.set(xlim=(-0.25, len(counts) - 0.7))
    axis.margins(y=0.15)
