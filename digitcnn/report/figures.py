"""Figures of chapters 1 and 2. They draw what they are given."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..sources import TITLES
from .style import DATA_COLOUR, SPLIT_COLOUR, WIDTH


def sample_grid(samples: dict[str, np.ndarray]) -> Figure:
    """The first images of each class by split, a column a class, each with its label.

    Args:
        samples: split name to uint8 (10, count, 3, 32, 32).
    """
    count = next(iter(samples.values())).shape[1]
    side, gap, apart = 32, 10, 8  # pixels: an image, its label above it, between splits
    high = count * (side + gap) + apart
    sheet = np.full((len(samples) * high - apart, 10 * (side + 3) - 3, 3), 255, np.uint8)
    figure, axis = plt.subplots(figsize=(WIDTH, WIDTH * sheet.shape[0] / (sheet.shape[1] + 22)))
    for block, (split, images) in enumerate(samples.items()):
        for row in range(count):
            top = block * high + row * (side + gap) + gap
            for digit in range(10):
                left = digit * (side + 3)
                picture = images[digit, row].transpose(1, 2, 0)
                sheet[top : top + side, left : left + side] = picture
                axis.text(left + side / 2, top - 2, f"label {digit}", ha="center", fontsize=7)
        middle = block * high + (high - apart + gap) / 2
        axis.text(-6, middle, split, rotation=90, ha="right", va="center", weight="bold")
    axis.imshow(sheet, interpolation="nearest")
    axis.set_axis_off()
    return figure


def class_distribution(counts: dict[str, pd.DataFrame]) -> Figure:
    """Number of images by class and split, a panel a data set, with the numbers of the pool.

    Args:
        counts: data set name to a frame with classes as rows and splits as columns.
    """
    figure, axes = plt.subplots(1, len(counts), figsize=(WIDTH, 2.5), sharey=True)
    for axis, (name, frame) in zip(axes, counts.items(), strict=True):
        bottom = np.zeros(len(frame))
        for split, alpha in zip(frame.columns, (1.0, 0.6, 0.3), strict=True):
            axis.bar(frame.index, frame[split] / 1000, 0.75, bottom, color=DATA_COLOUR[name],
                     alpha=alpha, linewidth=0, label=split)  # fmt: skip
            bottom = bottom + frame[split] / 1000
        for digit, top in enumerate(bottom):
            axis.annotate(f"{1000 * top:,.0f}", (digit, top), xytext=(0, 1.5), ha="center",
                          textcoords="offset points", fontsize=5.8)  # fmt: skip
        axis.set(title=TITLES[name], xlabel="class", xticks=frame.index)
        axis.tick_params(axis="x", length=0)
    axes[0].yaxis.set_major_locator(mpl.ticker.MultipleLocator(5))
    axes[0].set_ylabel("images (thousands)")
    axes[-1].legend(loc="upper right")
    return figure


def intensity(pixels: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Grey-value histograms (left) and mean against contrast of single images (right).

    Args:
        pixels: data set name to what `digitcnn.report.dataset.pixels` gives.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.3))
    for name, kept in pixels.items():
        edges = np.linspace(0, 1, len(kept["histogram"]) + 1)
        left.stairs(100 * kept["histogram"], edges, color=DATA_COLOUR[name], linewidth=1.2)
        right.scatter(*kept["drawn"].T, s=2, alpha=0.25, color=DATA_COLOUR[name], linewidths=0,
                      rasterized=True)  # fmt: skip
        x, y = kept["drawn"].mean(0)
        right.text(x, y + 0.13, TITLES[name], color=DATA_COLOUR[name], ha="center", weight="bold")
    middle = {name: kept["histogram"][20] for name, kept in pixels.items()}
    for name, share in middle.items():
        place = (0.5, 100 * share * (0.45 if share == min(middle.values()) else 1.5))
        left.text(*place, TITLES[name], color=DATA_COLOUR[name], ha="center", weight="bold")
    left.set(yscale="log", xlabel="grey value", ylabel="share of all pixels (%)", xlim=(0, 1))
    left.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    right.set(xlabel="mean of an image", ylabel="its standard deviation", xlim=(0, 1))
    return figure


def architecture(blocks: pd.DataFrame) -> Figure:
    """The network as a row of boxes: height for resolution, width for channels.

    Args:
        blocks: the columns ``block``, ``layers``, ``shape`` (channels, height, width) and
            ``parameters``.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 2.9))
    colours = {"block": "#56B4E9", "residual": "#0072B2", "feature": "#E69F00", "output": "#D55E00"}
    step, centre = 1.5, 0.0
    boxes = [("input", "values\nin [0; 1]", (3, 32, 32), 0), *blocks.itertuples(index=False)]
    for position, (name, layers, shape, parameters) in enumerate(boxes):
        height = 0.55 + 1.75 * (shape[1] / 32 if len(shape) == 3 else shape[0] / 180)
        width = 0.16 + 0.42 * shape[0] / 128 if len(shape) == 3 else 0.2
        x = position * step
        colour = colours.get(name.split(" ")[0], "0.8")
        axis.add_patch(
            plt.Rectangle((x - width / 2, centre - height / 2), width, height, color=colour)
        )
        size = " × ".join(map(str, shape))
        axis.text(
            x,
            1.34,
            name.replace(" layer", "\nlayer"),
            ha="center",
            va="bottom",
            fontsize=7,
            weight="bold",
        )
        axis.text(x, 1.3, size, ha="center", va="top", fontsize=6.5, color="0.25")
        lines = layers
        for before, after in ((", ", "\n"), (" (", "\n("), (" + ", "\n+ "), ("ly c", "ly\nc")):
            lines = lines.replace(before, after)
        if parameters:
            lines += f"\n{parameters:,}"
        axis.text(x, -1.3, lines, ha="center", va="top", fontsize=6.2, linespacing=1.25)
        if position:
            axis.annotate(
                "",
                xy=(x - 0.42, centre),
                xytext=(x - step + 0.42, centre),
                arrowprops={"arrowstyle": "-|>", "color": "0.4", "linewidth": 0.9},
            )
        if name.startswith("residual"):
            axis.annotate(
                "",
                xy=(x + 0.38, 0.16),
                xytext=(x - 0.38, 0.16),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": "#D55E00",
                    "linewidth": 1.1,
                    "connectionstyle": "arc3,rad=-0.9",
                },
            )
    axis.set(xlim=(-0.75, step * (len(boxes) - 1) + 0.75), ylim=(-2.5, 1.65))
    axis.set_axis_off()
    return figure


def learning_curves(histories: dict[str, dict[str, pd.DataFrame]], metric: str) -> Figure:
    """One metric per epoch for every split, a panel a data set.

    Args:
        histories: data set name to split name to a frame with ``epoch`` and the metric.
        metric: ``loss`` (logarithmic axis) or a fraction, drawn as an error 1 − metric (same).
    """
    figure, axes = plt.subplots(1, len(histories), figsize=(WIDTH, 2.7))
    for axis, (name, history) in zip(axes, histories.items(), strict=True):
        for split, table in history.items():
            values = table[metric] if metric == "loss" else 100 * (1 - table[metric])
            axis.plot(
                table["epoch"],
                values,
                color=SPLIT_COLOUR[split],
                label=split,
                linewidth=1.5,
                linestyle="-" if split != "test" else ":",
            )
        axis.set(title=TITLES[name], xlabel="epoch", yscale="log")
        axis.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        axis.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        low, high = axis.get_ylim()
        if high / low < 30:  # fewer than one and a half decades need more than the powers of ten
            axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes[0].set_ylabel("cross-entropy (nats)" if metric == "loss" else f"100 − {metric} (%)")
    count = len(next(iter(histories.values())))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=count)
    return figure


def precision_recall(histories: dict[str, dict[str, pd.DataFrame]]) -> Figure:
    """Macro precision (solid) and recall (dashed) per epoch, a panel a data set."""
    figure, axes = plt.subplots(1, len(histories), figsize=(WIDTH, 2.7))
    for axis, (name, history) in zip(axes, histories.items(), strict=True):
        lowest = []
        for split in ("validation", "test"):
            for metric, line in (("precision", "-"), ("recall", "--")):
                table = history[split]
                axis.plot(
                    table["epoch"],
                    100 * table[metric],
                    line,
                    color=SPLIT_COLOUR[split],
                    label=f"{split} {metric}",
                    linewidth=1.3,
                )
                lowest.append(100 * table[metric].iloc[min(2, len(table) - 1) :].min())
        top = 100 * max(history[split]["precision"].max() for split in ("validation", "test"))
        span = max(top - min(lowest), 0.05)
        axis.set(title=TITLES[name], xlabel="epoch")
        axis.set_ylim(min(lowest) - 0.1 * span, top + 0.1 * span)
    axes[0].set_ylabel("macro average (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def seed_dots(axis: plt.Axes, rows: list[int], values: np.ndarray, colour: str) -> None:
    """A dot for each value in its row, and a bar for the mean of a row."""
    axis.plot(values, rows, "o", color=colour, markersize=3.5, alpha=0.75)
    for row, mean in pd.Series(values).groupby(list(rows)).mean().items():
        axis.plot([mean], [row], "|", color=colour, markersize=11, mew=2)


def experiment(results: pd.DataFrame) -> Figure:
    """Validation accuracy of each setting: a dot a seed, a bar for the mean, a panel a data set.

    Args:
        results: the columns ``setting``, ``data``, ``accuracy`` and ``recipe`` (drawn in colour).
    """
    settings = list(dict.fromkeys(results["setting"]))
    names = list(dict.fromkeys(results["data"]))
    size = (WIDTH, 0.85 + 0.2 * len(settings))
    figure, axes = plt.subplots(1, len(names), figsize=size, sharey=True)
    for axis, name in zip(axes, names, strict=True):
        part = results[results["data"] == name]
        for recipe, colour in ((True, DATA_COLOUR[name]), (False, "0.45")):
            points = part[part["recipe"] == recipe]
            rows = [settings.index(setting) for setting in points["setting"]]
            seed_dots(axis, rows, 100 * points["accuracy"].to_numpy(), colour)
        means = 100 * part.groupby("setting")["accuracy"].mean()
        # Settings that failed would squeeze the others together: cut the axis, mark them.
        width = max(0.5, means.max() - 100 * part["accuracy"].median())
        left = max(100 * part["accuracy"].min(), means.max() - 4 * width) - 0.2
        for setting, mean in means[means < left].items():
            axis.annotate(
                f"◀ {mean:.1f}", (left, settings.index(setting)), va="center", fontsize=7,
                color="#D55E00", xytext=(3, 0), textcoords="offset points",
            )  # fmt: skip
        axis.set(title=TITLES[name], xlabel="validation accuracy (%)")
        axis.set_xlim(left, None)
        axis.set_yticks(range(len(settings)), settings)
    axes[0].invert_yaxis()
    for text, setting in zip(axes[0].get_yticklabels(), settings, strict=True):
        if results[results["setting"] == setting]["recipe"].any():
            text.set_weight("bold")
    return figure


def preparation(stages: dict[str, np.ndarray]) -> Figure:
    """The steps of a picture's preparation, a panel each, all equally high.

    Args:
        stages: title to an array (H, W) or (H, W, 3), as `preparation.preparation_steps` gives.
    """
    widths = [stage.shape[1] / stage.shape[0] for stage in stages.values()]
    figure, axes = plt.subplots(
        1, len(stages), figsize=(WIDTH, WIDTH / sum(widths) + 0.2), width_ratios=widths
    )
    for axis, (title, stage) in zip(axes, stages.items(), strict=True):
        axis.imshow(stage, cmap="gray", vmin=0, vmax=255 if stage.dtype == np.uint8 else 1)
        axis.set_title(title, fontsize=8)
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.spines[:].set(visible=True, color="0.6", linewidth=0.6)
    return figure
