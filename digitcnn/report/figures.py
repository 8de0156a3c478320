"""Figures of chapter 1 and of the appendix. They draw what they are given."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..sources import TITLES
from .style import DATA_COLOUR, WIDTH


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
        right.text(x + 0.16, y + 0.1, TITLES[name], color=DATA_COLOUR[name], weight="bold")
    middle = {name: kept["histogram"][20] for name, kept in pixels.items()}
    for name, share in middle.items():
        place = (0.5, 100 * share * (0.45 if share == min(middle.values()) else 1.5))
        left.text(*place, TITLES[name], color=DATA_COLOUR[name], ha="center", weight="bold")
    left.set(yscale="log", xlabel="grey value", ylabel="share of all pixels (%)", xlim=(0, 1))
    left.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    right.set(xlabel="mean of an image", ylabel="standard deviation of an image", xlim=(0, 1))
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
        axis.set_title(title.replace(" ", "\n", 1), fontsize=8)  # side by side they would touch
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.spines[:].set(visible=True, color="0.6", linewidth=0.6)
    return figure
