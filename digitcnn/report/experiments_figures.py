"""Figures of chapter 2. They draw what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ..sources import TITLES
from .experiments import GROUPS, NORMALISATION, Setting, Tried
from .network import Stage
from .style import DATA_COLOUR, SIZE, SPLIT_COLOUR, SPLIT_LINE, WIDTH, WRONG

LAYER_COLOUR = {
    "conv 3 × 3": "0.78", "linear": "0.78", "max-pool": "0.88", "softmax": "0.88", "flatten": "0.88"
}  # fmt: skip
ACCURACIES = (50, 60, 70, 80, 82, 84, 85, 86, 88, 90, 91, 92, 93, 94, 95, 96, 97, 98, 98.5, 98.8,
              99, 99.1, 99.2, 99.3, 99.4, 99.5)  # ticks, per cent  # fmt: skip


def architecture(stages: list[Stage]) -> Figure:
    """The network: a column of layers for each stage, on top its output to scale, below its size.

    An output is drawn as high as its map has pixels and as wide as the root of its channels.
    """
    stages = [Stage("input", ("[0, 1]",), (3, 32, 32), 0), *stages]
    figure, axis = plt.subplots(figsize=(WIDTH, 2.75), layout="none")
    figure.subplots_adjust(0, 0, 1, 1)
    step, tallest, small = 0.42, max(len(stage.layers) for stage in stages), SIZE - 1.5
    below = -0.45 - step * tallest
    for x, (name, layers, shape, count) in enumerate(stages):
        high = max(1.5 * (shape[1] if len(shape) == 3 else 1) / 32, 0.1)  # else a hair line
        wide = 0.09 + 0.055 * np.sqrt(shape[0])
        axis.add_patch(plt.Rectangle((x - wide / 2, 0.85 - high / 2), wide, high, fc="0.35"))
        axis.text(x, 1.95, name, ha="center", va="top", weight="bold", fontsize=SIZE - 1)
        for row, layer in enumerate(layers):
            y, look = -0.35 - step * row, "round,pad=0.02,rounding_size=0.06"
            fill = LAYER_COLOUR.get(layer, "1")
            corner, size = (x - 0.44, y - 0.3), (0.88, 0.28)
            axis.add_patch(FancyBboxPatch(corner, *size, look, fc=fill, ec="0.5", lw=0.5))
            axis.text(x, y - 0.16, layer, ha="center", va="center", fontsize=small)
        size = " × ".join(map(str, shape))
        axis.text(x, below, size, ha="center", va="top", fontsize=small)
        axis.text(x, below - 0.32, f"{count:,}", ha="center", va="top", fontsize=small)
        if x:
            arrow = {"arrowstyle": "->", "lw": 0.6, "color": "0.3"}
            axis.annotate("", (x - 0.36, 0.85), (x - 0.64, 0.85), arrowprops=arrow)
    axis.set(xlim=(-0.5, len(stages) - 0.5), ylim=(below - 0.62, 2))
    axis.set_axis_off()
    return figure


def curves(found: dict[str, dict[str, dict[str, pd.DataFrame]]], floor: float) -> Figure:
    """Accuracy, loss, and macro precision and recall per epoch, a column a data set.

    Every training is drawn, the first one boldly; precision and recall of the first alone. The axes
    begin at the second epoch's values.

    Args:
        found: data set name to run to split to its metrics, see `experiments.curves`.
        floor: loss that is marked, see `experiments.Model`.
    """
    figure, axes = plt.subplots(3, len(found), figsize=(WIDTH, 5), sharex=True)
    for (accuracy, loss, averages), (name, trainings) in zip(axes.T, found.items(), strict=True):
        for number, (run, history) in reversed(list(enumerate(trainings.items()))):
            look = {"lw": 0.5, "alpha": 0.6} if number else {"lw": 1.2}
            for split, table in history.items():
                style = {"color": SPLIT_COLOUR[split], "ls": SPLIT_LINE[split], **look}
                words = split.replace("train", "training") if run == name else None
                accuracy.plot(table["epoch"], 100 * table["accuracy"], label=words, **style)
                loss.plot(table["epoch"], table["loss"], **style)
        held_out = [history[split] for split in ("validation", "test")]
        for split, table in zip(("validation", "test"), held_out, strict=True):
            for score, colour, width in (("precision", "0.65", 2), ("recall", "0", 0.8)):
                averages.plot(table["epoch"], 100 * table[score], SPLIT_LINE[split], color=colour,
                              lw=width, label=f"{split} {score}")  # fmt: skip
        _from_second(accuracy, [100 * table["accuracy"] for table in history.values()])
        _from_second(averages, [100 * t[m] for t in held_out for m in ("precision", "recall")])
        loss.set_ylim(0, 1.05 * max(history["train"]["loss"].iloc[1:], default=1))
        loss.axhline(floor, color="0.7", lw=0.6, zorder=0)
        accuracy.set_title(TITLES[name], color=DATA_COLOUR[name])
        averages.set(xlabel="epoch", xticks=range(0, len(history["train"]) + 1, 10))
    names = ("accuracy (%)", "cross-entropy (nats)", "macro average (%)")
    for axis, words in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(words)
    axes[0, 0].legend(loc="lower right")
    axes[2, 1].legend(loc="lower right")
    return figure


def _from_second(axis: plt.Axes, lines: list[pd.Series]) -> None:
    """Let an axis begin at the lowest value from the second epoch on."""
    low = min(line.iloc[1:].min() if len(line) > 1 else line.min() for line in lines)
    room = max(max(line.max() for line in lines) - low, 0.1)
    axis.set_ylim(low, low + 1.05 * room)


def experiments(found: dict[str, Tried]) -> Figure:
    """Validation accuracy of every setting and seed, a column a data set, on an axis of errors.

    A dot is a seed, a bar the mean of those that trained, a cross a seed that did not. The recipe
    and a line at its mean have the data set's colour; black is what differs beyond chance. Without
    batch normalisation so much is lost that these settings have axes of their own, below.
    """
    settings = next(iter(found.values())).settings
    bands: list[dict[str, str]] = [{}, {}]  # what stands beside each row, by setting or group
    for name, one in settings.items():
        rows = bands[one.group == NORMALISATION]
        if one.group:
            rows.setdefault(f"group {one.group}", GROUPS.get(one.group, one.group))
        rows[name] = one.label
    figure, axes = plt.subplots(
        2, len(found), figsize=(WIDTH, 1.1 + 0.158 * sum(map(len, bands))), sharey="row",
        height_ratios=[len(rows) for rows in bands], squeeze=False,
    )  # fmt: skip
    for row, (band, rows) in zip(axes, enumerate(bands), strict=True):
        for axis, (data, tried) in zip(row, found.items(), strict=True):
            _settings(axis, tried, list(rows), DATA_COLOUR[data])
            axis.set_title("" if band else TITLES[data], color=DATA_COLOUR[data])
            axis.set_xlabel("validation accuracy (%)" if band else "")
        row[0].set_yticks(range(len(rows)), list(rows.values()))
        for text, name in zip(row[0].get_yticklabels(), rows, strict=True):
            bold = name == "recipe" or name.startswith("group ")
            text.set_weight("bold" if bold else "normal")
        row[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _settings(axis: plt.Axes, tried: Tried, rows: list[str], colour: str) -> None:
    """The settings among `rows`, each in its row."""
    shown = {name: one for name, one in tried.settings.items() if name in rows}
    every = [_error_axis(v) for one in shown.values() for v in _trained(one)]
    low, high = min(every, default=0), max(every, default=1)
    room = max(high - low, 0.2)
    edge = low - 0.08 * room  # left of it are the seeds that did not train
    for name, one in shown.items():
        shade = colour if name == "recipe" else "0" if one.beyond else "0.6"
        values, place = _trained(one), rows.index(name)
        at = [_error_axis(v) for v in values]
        axis.plot(at, [place] * len(values), "o", color=shade, ms=2.8, mew=0)
        if values:
            axis.plot(_error_axis(np.mean(values)), place, "|", color=shade, ms=8, mew=1)
        crosses = edge - room * (0.04 + 0.06 * np.arange(one.failed))
        axis.plot(crosses, [place] * one.failed, "x", color=WRONG, ms=3, mew=0.9)
    if not tried.recipe.failed and "recipe" in rows:
        axis.axvline(_error_axis(tried.recipe.accuracy), color=colour, lw=0.6, zorder=0)
    failed = any(one.failed for one in shown.values())
    if failed:
        axis.axvline(edge, color="0.8", lw=0.6)
    ticks: dict[float, str] = {}
    for tick in ACCURACIES:
        at = _error_axis(tick / 100)
        if low <= at <= high and at - max(ticks, default=-9) > room / 7:
            ticks[at] = f"{tick:g}"
    axis.set_xticks(list(ticks), list(ticks.values()))
    left = edge - 0.2 * room if failed else edge
    axis.set_xlim(left, high + 0.04 * room)
    axis.tick_params(axis="y", length=0)


def _trained(one: Setting) -> list[float]:
    """Accuracies of the seeds that trained: the best ones, as many as did not fail."""
    return sorted(one.accuracy.values)[one.failed :]


def _error_axis(accuracy: float) -> float:
    """Where an accuracy in [0, 1] lies: halving the error is a step of the same length anywhere."""
    return -float(np.log10(max(1 - accuracy, 1e-4)))
