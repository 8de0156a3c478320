"""Figures of chapter 4: maps, confusions across data sets, controls, the gap. They draw what is
given."""

from __future__ import annotations

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from ..sources import TITLES
from .controls import Effects
from .cross_dataset import Gap
from .representation import OTHER, Panel
from .style import CLASS_COLOURS, DATA_COLOUR, SIZE, WIDTH
from .values import MINUS, UNIT

HALO = [effects.withStroke(linewidth=1.8, foreground="white")]


def maps(rows: list[list[Panel]]) -> Figure:
    """Maps in rows, with the colours of the classes below; misread images are black."""
    size = (WIDTH, WIDTH / len(rows[0]) * len(rows) + 0.25)
    dots = 140 if len(rows) == 1 else 100  # an inch, of the clouds, so that a figure stays small
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=size, squeeze=False, dpi=dots)
    for axis, panel in zip(axes.flat, [panel for row in rows for panel in row], strict=True):
        _map(axis, panel)
    legend = {str(digit): colour for digit, colour in enumerate(CLASS_COLOURS)}
    if any(panel.wrong is not None for row in rows for panel in row):
        legend["misread"] = "black"
    marks = [plt.Line2D([], [], marker="o", color=c, ls="", ms=3.5) for c in legend.values()]
    style = {"ncols": 11, "handletextpad": -0.3, "columnspacing": 0.8, "borderpad": 0}
    figure.legend(marks, legend, loc="outside lower center", **style)
    return figure


def _map(axis: plt.Axes, panel: Panel) -> None:
    points, data = panel.points, panel.shown.data
    palette = [DATA_COLOUR[name] for name in data] if panel.by == "data" else CLASS_COLOURS
    colours = np.array([to_rgb(colour) for colour in palette])[panel.groups]
    order = np.random.default_rng(0).permutation(len(points))  # no group covers the others
    size = float(np.clip(6000 / len(order), 0.2, 6))
    style = {"linewidths": 0, "antialiased": False, "rasterized": True}  # smaller without grey
    axis.scatter(*points[order].T, s=size, c=colours[order], **style)
    if panel.wrong is not None:
        marks = float(np.clip(500 / max(panel.wrong.sum(), 1), 1, 4))
        axis.scatter(*points[panel.wrong].T, s=marks, color="black", **style)
    style = {"weight": "bold", "fontsize": SIZE + 1, "path_effects": HALO}
    if panel.by == "data":
        for place, name in enumerate(data):
            spot = {"x": 0.97, "y": 0.11 - 0.08 * place, "transform": axis.transAxes}
            axis.text(s=TITLES[name], ha="right", color=palette[place], **spot, **style)
    else:
        for digit, (x, y) in class_anchors(points, panel.groups).items():
            axis.text(x, y, str(digit), ha="center", va="center", **style)
    axis.set_title(panel.title)
    axis.set(xticks=[], yticks=[])
    axis.margins(0.02)
    axis.spines[:].set_visible(True)
    axis.spines[:].set_color("0.8")


def class_anchors(points: np.ndarray, classes: np.ndarray) -> dict[int, np.ndarray]:
    """Where to write the name of each class that has a cluster: the densest spot of the class.

    A class has a cluster if it makes up most of the points (N, 2) around that spot, and is at least
    one in a hundred of all.
    """
    radius = 0.04 * np.ptp(points, axis=0).max()
    everything, anchors = cKDTree(points), {}
    for digit in np.unique(classes):
        members = points[classes == digit]
        spots = members[:: max(1, len(members) // 300)]
        inside = cKDTree(members).query_ball_point(spots, radius, return_length=True)
        densest = spots[inside.argmax()]
        near = everything.query_ball_point(densest, radius, return_length=True)
        seen = len(members) >= 0.01 * len(points) and inside.max() > 0.02 * len(members)
        if seen and inside.max() > 0.5 * near:
            around = np.linalg.norm(members - densest, axis=1) <= radius
            anchors[int(digit)] = members[around].mean(0)
    return anchors


def confusion_matrices(counts: dict[str, np.ndarray]) -> Figure:
    """Confusions across data sets in per cent of each true class, and below how all are answered.

    Args:
        counts: name of the model to int (10, 10), rows true classes.
    """
    figure, axes = plt.subplots(1, len(counts), figsize=(WIDTH, WIDTH / 2 + 0.35))
    for axis, (model, matrix) in zip(axes, counts.items(), strict=True):
        shares = 100 * matrix / matrix.sum(1, keepdims=True).clip(min=1)
        total = 100 * matrix.sum(0) / max(matrix.sum(), 1)
        shown = np.vstack([shares, np.full(10, np.nan), total])
        axis.imshow(np.nan_to_num(shown), cmap="Greys", vmin=0, vmax=130)
        for row, column in np.argwhere(shown >= 1):
            share, style = shown[row, column], {"ha": "center", "va": "center", "fontsize": 6.5}
            axis.text(
                column, row, f"{share:.0f}", color="white" if share > 70 else "black", **style
            )
        other = next(name for name in TITLES if name != model)
        axis.set_title(f"{TITLES[model]} model on {TITLES[other]}")
        axis.set_yticks([*range(10), 11], [*map(str, range(10)), "all"])
        axis.set(xticks=range(10), xlabel="answered")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel("true class")
    return figure


def controls(panels: dict[str, tuple[np.ndarray, list[str], Effects]]) -> Figure:
    """Changed pictures, and what each and each two of the changes add to the macro recall.

    Args:
        panels: title to examples uint8 (1 + k + 1, n, 3, 32, 32), the unchanged first and two
            changes together last, their names, and effects.
    """
    figure, axes = plt.subplots(
        len(panels), 2, figsize=(WIDTH, 2.4 * len(panels)), width_ratios=(1, 2.6), squeeze=False
    )
    for (left, right), (title, (examples, names, found)) in zip(axes, panels.items(), strict=True):
        padded = np.pad(examples, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
        sheet = padded.transpose(0, 3, 1, 4, 2).reshape(34 * len(padded), -1, 3)
        left.imshow(sheet, interpolation="none")
        left.set_yticks(34 * (np.arange(len(padded)) + 0.5), names)
        none = np.full(len(found.controls), np.nan)
        shown = np.vstack([none, found.gains, none])  # in the same rows
        filled = np.nan_to_num(shown)  # cells without a colour would get a grey edge when scaled
        right.imshow(filled, cmap="Greys", vmin=0, vmax=80, aspect="auto")
        for row, column in np.argwhere(~np.isnan(shown)):
            value = f"{shown[row, column]:+z.1f}".replace("-", MINUS)
            weight = "bold" if row == column + 1 else "normal"
            right.text(column, row, value, ha="center", va="center", weight=weight, fontsize=7)
        right.set_xticks(range(len(found.controls)), found.controls, rotation=25, ha="right",
                         rotation_mode="anchor")  # fmt: skip
        right.set_title(title)
        left.set_xticks([])
        right.set_yticks([])
        for axis in (left, right):
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
    return figure


def gap(found: dict[str, Gap]) -> Figure:
    """What closes how much of each model's gap to the one that knows the data, and what is left.

    Changed training has a panel of its own, since its gap is another one.
    """
    panels = []
    for model, each in found.items():
        title = f"{TITLES[model]} model on {TITLES[OTHER[model]]}"
        for kind, words in (("pictures", "changed pictures"), ("training", "changed training")):
            parts = [part for part in each.parts if part.name.startswith(kind)]
            if parts:
                left = 1 - each.left if kind == "pictures" else None
                panels.append((model, f"{title}, {words}", parts, left))
    rows = [len(parts) + (left is not None) for *_, parts, left in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH, 0.22 * sum(rows) + 1.4), height_ratios=rows, sharex=True
    )
    lowest = min(part.low for each in found.values() for part in each.parts)
    for axis, (model, title, parts, closed) in zip(axes, panels, strict=True):
        colour, names = DATA_COLOUR[model], [part.name.partition(": ")[2] for part in parts]
        for row, part in enumerate(parts):
            share, low, high = (100 * value for value in (part.share, part.low, part.high))
            axis.plot([0, share], [row, row], color=colour, lw=3, solid_capstyle="butt", alpha=0.4)
            axis.plot([low, high], [row, row], color=colour, lw=0.8)
            axis.plot(share, row, "o", color=colour, ms=3.5)
            for seed in part.seeds:
                axis.plot(100 * seed, row + 0.3, "|", color=colour, ms=3.5, mew=0.7)
        if closed is not None:
            best, last = 100 * closed, len(parts)
            axis.plot([best, 100], [last, last], color="0.75", lw=6, solid_capstyle="butt")
            axis.text((best + 100) / 2, last, f"{100 - best:.0f}{UNIT}%", ha="center", va="center")
            names.append("left open")
        axis.set_yticks(range(len(names)), names)
        axis.set(ylim=(len(names) - 0.4, -0.6), xlim=(min(-5, 100 * lowest), 101))
        axis.axvline(0, color="0.3", lw=0.6)
        axis.set_title(title, color=colour)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
    axes[-1].set_xlabel("share of the gap in macro recall (%)")
    return figure
