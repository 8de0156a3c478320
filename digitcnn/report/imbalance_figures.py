"""Figures of chapter 5. They show what they are given."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ..runs import CASES, PAIR
from ..sources import TITLES
from .imbalance import MITIGATIONS, OTHER, OWN
from .style import CLASS_COLOURS, DATA_COLOUR, SIZE, WIDTH

CASE = {case: f"case {case[-1]}" for case in CASES}
COLOUR = {digit: CLASS_COLOURS[digit] for digit in PAIR}
PANELS = [*OWN.items(), *OTHER.items()]  # which model on which data set
ROWS = {
    "case1": "case 1: 50 + 1,000",
    **{f"case1-{kind}": words for kind, words in MITIGATIONS.items()},
    "few": "50 + 50",
    "mirrored": "1,000 + 50",
    "balanced": "525 + 525",
    "many": "1,000 + 1,000",
    "case3-short": "all, as few steps",
    "case2": "case 2: 500 + 1,000",
    "case3": "case 3: all, all steps",
}


def recalls(found: pd.DataFrame, rows: dict[str, str], panels: list[tuple[str, str]]) -> Figure:
    """Recall of both digits on test: a dot per seed, a bar for the mean.

    Args:
        found: `digitcnn.report.imbalance.table` of the test splits.
        rows: its cases that are shown, with their titles (`CASE` or `ROWS`).
        panels: which model on which data set, of `PANELS`.
    """
    height = 0.8 + (0.3 if len(rows) < 5 else 0.21) * len(rows)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, height), sharey=True)
    for axis, (model, name) in zip(axes, panels, strict=True):
        part = found[(found["model"] == model) & (found["data"] == name)]
        for digit, shift in zip(PAIR, (-0.17, 0.17), strict=True):
            style = {"color": COLOUR[digit]}
            for row, case in enumerate(rows):
                values = 100 * part.loc[part["case"] == case, f"recall_{digit}"]
                axis.plot(values, [row + shift] * len(values), "o", ms=2.5, **style)
                axis.plot(values.mean(), row + shift, "|", ms=8, mew=1.4, **style)
                if row == 0 and axis is axes[1]:
                    side = 1 if digit == PAIR[0] else -1  # between the two
                    at = max(side * values) * side, row + shift
                    axis.annotate(f"‘{digit}’", at, xytext=(5 * side, 0), va="center",
                                  ha="left" if side > 0 else "right",
                                  textcoords="offset points", **style)  # fmt: skip
        title = TITLES[model] if model == name else f"{TITLES[model]}\non {TITLES[name]}"
        axis.set_title(title, color=DATA_COLOUR[model])
        axis.margins(x=0.15)
        axis.set(xlabel="recall (%)", ylim=(len(rows) - 0.5, -0.5))
        axis.set_yticks(range(len(rows)), rows.values())
        axis.tick_params(axis="y", length=0)
    return figure


def maps(model: str, found: dict[str, SimpleNamespace]) -> Figure:
    """Maps, a row per test split, a column per case; what is read correctly is paler.

    Args:
        model: the data set that the networks were trained on.
        found: by data set, a `digitcnn.report.imbalance_features.maps`. Rings: its training images
            of the digit 1.
    """
    figure, axes = plt.subplots(
        len(found), 3, figsize=(WIDTH, 1.5 * len(found)), sharex="row", sharey="row", squeeze=False
    )
    for axis, case in zip(axes[0], CASE.values(), strict=True):
        axis.set_title(f"{TITLES[model]} network, {case}")
    for row, (name, these) in zip(axes, found.items(), strict=True):
        for axis, (case, points) in zip(row, these.points.items(), strict=True):
            wrong = these.predicted[case] != these.labels
            shown = np.flatnonzero(~these.training)
            shown = np.random.default_rng(0).permutation(shown)  # no digit covers the other
            colours = np.array([to_rgb(COLOUR[digit]) for digit in these.labels[shown]])
            colours[~wrong[shown]] = 1 - 0.45 * (1 - colours[~wrong[shown]])  # paler
            colours[wrong[shown]] *= 0.8
            few = wrong[shown] & (wrong[shown].mean() < 0.2)  # these would be lost among the others
            axis.scatter(*points[shown].T, s=1 + 2 * few, c=colours, lw=0, rasterized=True)
            if case == "case1":
                at = these.training & (these.labels == 1)
                axis.scatter(*points[at].T, s=9, facecolors="none", edgecolors="0", lw=0.4,
                             rasterized=True)  # fmt: skip
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(True)
        row[0].set_ylabel(f"{TITLES[name]} digits", fontsize=SIZE)
    return figure
