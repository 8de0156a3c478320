"""Figures of chapter 3. They show what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..sources import TITLES
from ..stats import Estimate
from .audit import Seen
from .evaluation import Shown
from .style import DATA_COLOUR, RIGHT, SIZE, WIDTH, WRONG
from .values import UNIT

SIDE, ABOVE, BESIDE = 32, 9, 3  # pixels: of an image, of the line above it, between two


def gallery(
    rows: list[Shown], looked_at: dict[int, bool] | None = None, columns: int = 10
) -> Figure:
    """Rows of images, each with a heading on its left and a short line above every image.

    Args:
        looked_at: positions whose images get a mark: a dot where true, else a ring.
    """
    looked_at = looked_at or {}
    rows = rows or [Shown("none", np.zeros((0, 3, 32, 32), np.uint8), [], np.zeros(0, int))]
    across, down = columns * (SIDE + BESIDE), len(rows) * (SIDE + ABOVE)
    margin = 40
    sheet = np.full((down, across, 3), 255, np.uint8)
    figure, axis = plt.subplots(figsize=(WIDTH, WIDTH * down / (across + margin)), layout="none")
    figure.subplots_adjust(0, 0, 1, 1)
    for number, row in enumerate(rows):
        top = number * (SIDE + ABOVE) + ABOVE
        head, _, more = row.heading.partition("\n")
        axis.text(-margin, top + SIDE / 2 - 1, head, va="bottom", weight="bold")
        axis.text(-margin, top + SIDE / 2 + 1, more, va="top", fontsize=SIZE - 1.5)
        shown = zip(row.images[:columns], row.lines, row.positions.tolist(), strict=False)
        for place, (image, line, position) in enumerate(shown):
            left = place * (SIDE + BESIDE)
            sheet[top : top + SIDE, left : left + SIDE] = image.transpose(1, 2, 0)
            axis.text(left + SIDE / 2, top - 1.5, line, ha="center", fontsize=SIZE - 1.5)
            if position in looked_at:
                inside = WRONG if looked_at[position] else "none"
                axis.plot(left + SIDE - 2, top - 4, "o", color=WRONG, markersize=2.5,
                          markerfacecolor=inside, markeredgewidth=0.6)  # fmt: skip
    axis.imshow(sheet, interpolation="nearest", aspect="equal")
    axis.set(xlim=(-margin - 1, across), ylim=(down, 0))
    axis.set_axis_off()
    return figure


def confusion_matrices(counts: dict[str, np.ndarray]) -> Figure:
    """The errors of each confusion, a panel a data set; what is right is grey, on the diagonal.

    Args:
        counts: data set name to int (10, 10), rows true classes and columns answered ones.
    """
    figure, axes = plt.subplots(1, len(counts), figsize=(WIDTH, WIDTH / 2 + 0.15))
    for axis, (name, matrix) in zip(axes, counts.items(), strict=True):
        errors = np.where(np.eye(10, dtype=bool), 0, matrix)
        axis.imshow(np.sqrt(errors), cmap="Greys", vmax=1.3 * np.sqrt(max(errors.max(), 1)))
        for row, column in np.argwhere(errors):
            dark = errors[row, column] > 0.5 * errors.max()
            axis.text(column, row, errors[row, column], ha="center", va="center", fontsize=6.5,
                      color="1" if dark else "0")  # fmt: skip
        for digit in range(10):
            axis.text(digit, digit, f"{matrix[digit, digit]:,}", ha="center", va="center",
                      color="0.2", fontsize=6.5)  # fmt: skip
        axis.set_title(TITLES[name], color=DATA_COLOUR[name])
        axis.set(xlabel="answered", xticks=range(10), yticks=range(10))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel("true class")
    return figure


def probability_maps(rows: list[tuple[Shown, np.ndarray, np.ndarray]]) -> Figure:
    """Images, each above the probabilities of the ten classes; the true class is filled black.

    Args:
        rows: a heading with its images, and their probabilities (n, 10), scaled (bars) and raw
            (lines).
    """
    columns = max(len(probabilities) for _, probabilities, _ in rows)
    figure, axes = plt.subplots(
        2 * len(rows), columns, figsize=(WIDTH, 1.35 * len(rows)), squeeze=False,
        height_ratios=(1.5, 1) * len(rows),
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (row, probabilities, raw) in enumerate(rows):
        pictures, bars = axes[2 * number], axes[2 * number + 1]
        figure.text(0, 1 - (number + 0.5) / len(rows), row.heading, rotation=90, va="center",
                    ha="right", weight="bold", fontsize=SIZE)  # fmt: skip
        for place, (image, line, shares, unscaled) in enumerate(
            zip(row.images, row.lines, probabilities, raw, strict=True)
        ):
            pictures[place].imshow(image.transpose(1, 2, 0))
            surest = min(100 * shares.max(), 99.9)  # none is certain
            title = f"{line}, {surest:.1f}{UNIT}%"
            pictures[place].set_title(
                title, fontsize=SIZE - 1, loc="center", weight="normal", pad=2
            )
            true = int(line.split(" ")[0])
            colours = ["0" if digit == true else "0.7" for digit in range(10)]
            bars[place].set_axis_on()
            bars[place].bar(range(10), shares, color=colours, width=0.8)
            digits = np.arange(10)
            bars[place].hlines(unscaled, digits - 0.4, digits + 0.4, color=WRONG, linewidth=0.8)
            bars[place].set(ylim=(0, 1), yticks=(0, 1), xticks=range(10))
            bars[place].set_yticklabels(("0", "1") if place == 0 else ("", ""))
            bars[place].tick_params(length=1.5, labelsize=5.5, pad=1)
    return figure


def class_f1(found: dict[str, dict[int, Estimate]]) -> Figure:
    """F1 of each class with its interval, lowest on top, a panel a data set.

    Args:
        found: data set name to class to its `Estimate`, in the order shown.
    """
    figure, axes = plt.subplots(1, len(found), figsize=(WIDTH, 1.9))
    for axis, (name, scores) in zip(axes, found.items(), strict=True):
        values = 100 * np.array([tuple(score) for score in scores.values()])
        rows = np.arange(len(values))
        axis.errorbar(
            values[:, 0], rows, xerr=np.abs(values[:, 1:] - values[:, :1]).T, fmt="o",
            color=DATA_COLOUR[name], markersize=3, elinewidth=0.8,
        )  # fmt: skip
        axis.set_yticks(rows, list(scores))
        axis.set_title(TITLES[name], color=DATA_COLOUR[name])
        axis.set(xlabel="F1 (%)")
        axis.tick_params(axis="y", length=0)
        axis.invert_yaxis()
    axes[0].set_ylabel("class")
    return figure


def codes(found: dict[str, dict[str, Seen]], least: float = 0.04) -> Figure:
    """Codes that readers gave to errors and to images read as labelled, a panel a data set.

    Args:
        found: data set name to code to `audit.Seen`; shown are those given to a share of `least`.
    """
    figure, axes = plt.subplots(1, len(found), figsize=(WIDTH, 2.2))
    for axis, (name, seen) in zip(axes, found.items(), strict=True):
        shown = {c: s for c, s in seen.items() if max(s.errors, s.correct) >= least}
        order = sorted(shown, key=lambda code: -shown[code].errors)
        kinds = (("errors", "errors", DATA_COLOUR[name], -0.14),
                 ("correct", "read as labelled", RIGHT, 0.14))  # fmt: skip
        for key, words, colour, shift in kinds:
            for row, code in enumerate(order):
                share = getattr(shown[code], key)
                ends = 100 * np.array([[share - share.low], [share.high - share]])
                axis.errorbar(100 * share, row + shift, xerr=ends, fmt="o", color=colour,
                              markersize=3, elinewidth=0.8)  # fmt: skip
            axis.text(0.98, 0.12 - 0.6 * shift, words, color=colour, ha="right",
                      transform=axis.transAxes)  # fmt: skip
        axis.set_yticks(range(len(order)), order)
        axis.set_title(TITLES[name], color=DATA_COLOUR[name])
        axis.set(xlabel="share that has it (%)", xlim=(0, None))
        axis.tick_params(axis="y", length=0)
        axis.invert_yaxis()
    return figure
