"""Figures of chapter 4: maps, class pairs, confusion, controls, scores. They draw what is given."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from ..sources import TITLES
from .figures import seed_dots
from .style import CLASS_COLOURS, DATA_COLOUR, WIDTH

CLASSES = 10
GREY = "#b8b8b8"
SCORE_TITLES = {
    "probability": "largest softmax probability",
    "energy": "logsumexp of the logits",
    "distance": "negative feature distance",
}


def class_maps(
    panels: dict[str, tuple[np.ndarray, np.ndarray]], wrong: np.ndarray | None = None
) -> Figure:
    """Maps side by side, coloured by class.

    Args:
        panels: by title, coordinates (N, 2) and classes (N,).
        wrong: bool (N,), the misclassified samples, marked in every panel.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 0.4 * WIDTH))
    for axis, (title, (points, classes)) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        colours = np.array(CLASS_COLOURS)[classes]
        _points(axis, points, colours)
        if wrong is not None:
            style = {"marker": "x", "c": "black", "linewidths": 0.4, "rasterized": True}
            axis.scatter(*points[wrong].T, s=5, **style)
        _class_names(axis, points, classes)
        axis.set_title(title)
    _class_legend(figure, crosses=wrong is not None)
    return figure


def joint_maps(
    points: np.ndarray, origin: np.ndarray, classes: np.ndarray, names: tuple[str, str]
) -> Figure:
    """One map twice: coloured by data set (`origin` (N,) indexes `names`) and by class."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.52 * WIDTH))
    palette = np.array([mpl.colors.to_rgb(DATA_COLOUR[name]) for name in names])
    _points(left, points, palette[origin])
    left.set_title("by data set")
    _points(right, points, np.array(CLASS_COLOURS)[classes])
    _class_names(right, points[origin == 0], classes[origin == 0])
    right.set_title(f"by true class (names at {TITLES[names[0]]}'s classes)")
    _class_legend(figure, {TITLES[name]: DATA_COLOUR[name] for name in names})
    return figure


def _class_legend(figure: Figure, more: dict | None = None, crosses: bool = False) -> None:
    entries = {name: _dot(colour) for name, colour in (more or {}).items()}
    entries |= {str(digit): _dot(colour) for digit, colour in enumerate(CLASS_COLOURS)}
    if crosses:
        mark = mpl.lines.Line2D([], [], marker="x", color="black", ls="", ms=4)
        entries["misclassified"] = mark
    style = {"handletextpad": 0, "columnspacing": 1, "loc": "outside lower center"}
    figure.legend(entries.values(), entries.keys(), ncols=len(entries), **style)


def _dot(colour: str) -> mpl.lines.Line2D:
    return mpl.lines.Line2D([], [], marker="o", color=colour, ls="", ms=4)


def _points(axis: plt.Axes, points: np.ndarray, colours: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(points))  # no class lies on top of the others
    size = np.clip(12000 / len(points), 0.5, 8)
    style = {"s": size, "linewidths": 0, "alpha": 0.7, "rasterized": True}
    axis.scatter(*points[order].T, c=colours[order], **style)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for side in ("top", "right"):
        axis.spines[side].set_visible(True)
    axis.spines[:].set_color(GREY)


def class_anchors(points: np.ndarray, classes: np.ndarray) -> dict[int, np.ndarray]:
    """Where to write the name of each class that has a cluster: the densest spot of the class.

    A class has a cluster if it makes up most of the points (N, 2) around that spot.
    """
    radius = 0.04 * np.ptp(points, axis=0).max()
    everything, anchors = cKDTree(points), {}
    for digit in np.unique(classes):
        members = points[classes == digit]
        spots = members[:: max(1, len(members) // 300)]
        inside = cKDTree(members).query_ball_point(spots, radius, return_length=True)
        densest = spots[inside.argmax()]
        near = everything.query_ball_point(densest, radius, return_length=True)
        if inside.max() > 0.5 * near and inside.max() > 0.02 * len(members):
            around = np.linalg.norm(members - densest, axis=1) <= radius
            anchors[int(digit)] = members[around].mean(0)
    return anchors


def _class_names(axis: plt.Axes, points: np.ndarray, classes: np.ndarray) -> None:
    halo = [effects.withStroke(linewidth=2.5, foreground="white")]
    for digit, (x, y) in class_anchors(points, classes).items():
        style = {"ha": "center", "va": "center", "path_effects": halo, "fontweight": "bold"}
        axis.text(x, y, str(digit), fontsize=12, **style)


def pair_scatter(pairs: dict[str, pd.DataFrame], named: int = 5) -> Figure:
    """Confusion against separation of the 45 pairs of classes, by model; the worst are named."""
    figure, axes = plt.subplots(1, len(pairs), figsize=(WIDTH, 2.7))
    for axis, (model, frame) in zip(axes, pairs.items(), strict=True):
        style = {"s": 14, "color": DATA_COLOUR[model], "alpha": 0.8}
        axis.scatter(frame["trained"], 100 * frame["rate"], **style)
        axis.set(title=f"{TITLES[model]} model", xlabel="silhouette of the two classes")
        worst = frame[frame["confused"] > 0].head(named)
        spread = max(100 * frame["rate"].max(), 1e-9)
        last = np.inf
        for row in worst.sort_values("rate", ascending=False).itertuples():
            height = min(100 * row.rate, last - 0.085 * spread)  # names keep their distance
            last = height
            axis.annotate(
                f"{row.a}–{row.b}", (row.trained, 100 * row.rate),
                (frame["trained"].max() + 0.02, height), fontsize=8, va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": GREY},
            )  # fmt: skip
        axis.set_xlim(right=frame["trained"].max() + 0.06)
        axis.set_ylim(-0.05 * spread, 1.08 * spread)
    axes[0].set_ylabel("samples of the pair confused (%)")
    return figure


def confusion_matrices(matrices: dict[str, np.ndarray]) -> Figure:
    """Confusion matrices (10, 10) by title, in per cent of each true class."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(WIDTH, 3.7))
    for axis, (title, counts) in zip(axes, matrices.items(), strict=True):
        shares = 100 * counts / counts.sum(1, keepdims=True).clip(min=1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = "white" if share > 55 else "black"
                text = f"{share:.0f}"
                axis.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
        axis.set(title=title, xlabel="predicted", ylabel="true")
        axis.set(xticks=range(CLASSES), yticks=range(CLASSES))
        axis.tick_params(length=0)
        axis.grid(False)
    return figure


def control_chart(examples: dict[str, np.ndarray], accuracy: pd.DataFrame) -> Figure:
    """A row a control: changed example images, and the accuracy of both models.

    Args:
        examples: by control, uint8 images (n, 3, 32, 32).
        accuracy: fractions; controls in rows, models in columns.
    """
    rows = len(accuracy)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 0.36 * rows + 0.75), width_ratios=(1, 1.05)
    )
    height = 36
    strips = []
    for images in examples.values():
        framed = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=255)
        strips.append(np.concatenate(list(framed.transpose(0, 2, 3, 1)), axis=1))
    left.imshow(np.concatenate(strips), interpolation="nearest", aspect="equal", rasterized=True)
    left.set_yticks([height * (row + 0.5) for row in range(rows)], list(examples))
    left.set_xticks([])
    left.tick_params(length=0)
    left.grid(False)
    left.spines[:].set_visible(False)
    positions = np.arange(rows)
    right.hlines(positions, 100 * accuracy.min(1), 100 * accuracy.max(1), color=GREY, lw=1)
    for model in accuracy.columns:
        values = 100 * accuracy[model].to_numpy()
        other = 100 * accuracy.drop(columns=model).to_numpy()[:, 0]
        style = {"color": DATA_COLOUR[model], "s": 22, "zorder": 3}
        right.scatter(values, positions, label=f"{TITLES[model]} model", **style)
        for value, against, row in zip(values, other, positions, strict=True):
            higher = value >= against
            right.annotate(
                f"{value:.1f}", (value, row), (6 if higher else -6, 0), fontsize=7.5,
                textcoords="offset points", va="center", ha="left" if higher else "right",
                color=DATA_COLOUR[model],
            )  # fmt: skip
    right.axhline(0.5, color="black", lw=0.6, ls=":")
    right.set(xlim=(-14, 116), ylim=(rows - 0.5, -0.5), yticks=[], xlabel="accuracy (%)")
    right.set_xticks(range(0, 101, 25))
    right.spines["left"].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def training_chart(results: pd.DataFrame) -> Figure:
    """Accuracy and macro recall on SVHN by setting of the training: a dot a seed, and the mean.

    Args:
        results: the frame of `digitcnn.report.cross_dataset.training_controls`.
    """
    settings = list(dict.fromkeys(results["setting"]))
    part = results[results["data"] == "svhn"]
    rows = [settings.index(setting) for setting in part["setting"]]
    size = (WIDTH, 0.8 + 0.22 * len(settings))
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True)
    for axis, column, title in zip(
        axes, ("accuracy", "recall"), ("accuracy", "macro recall"), strict=True
    ):
        seed_dots(axis, rows, 100 * part[column].to_numpy(), DATA_COLOUR["mnist"])
        axis.set_xlabel(f"{title} on SVHN (%)")
        axis.set_yticks(range(len(settings)), settings)
    axes[0].invert_yaxis()
    return figure


def score_histograms(
    scores: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], auroc: dict[str, pd.Series]
) -> Figure:
    """Distributions of each score (columns) of each model (rows) on its own and the other's test.

    Args:
        scores: by model and score, the values on the (own, other) data set.
        auroc: by model, the area under the ROC curve of each score.
    """
    columns = len(next(iter(scores.values())))
    figure, axes = plt.subplots(len(scores), columns, figsize=(WIDTH, 4), squeeze=False)
    for axis, score in zip(axes[-1], next(iter(scores.values())), strict=True):
        axis.set_xlabel(SCORE_TITLES[score], fontsize=8)
    for row, (model, found) in zip(axes, scores.items(), strict=True):
        names = (model, *(name for name in TITLES if name != model))
        for axis, (score, samples) in zip(row, found.items(), strict=True):
            low, high = np.percentile(np.concatenate(samples), [0.2, 100])
            edges = np.linspace(low, high, 41)
            for name, values in zip(names, samples, strict=True):
                share, _ = np.histogram(values.clip(low, high), edges)
                style = {"fill": True, "alpha": 0.45, "color": DATA_COLOUR[name]}
                axis.stairs(100 * share / len(values), edges, label=TITLES[name], **style)
            axis.set_title(f"AUROC {auroc[model][score]:.4f}", fontsize=9)
        row[0].set_ylabel(f"{TITLES[model]} model\nsamples (%)")
    colours = [_dot(DATA_COLOUR[name]) for name in TITLES]
    titles = [f"{title} test images" for title in TITLES.values()]
    figure.legend(colours, titles, ncols=2, loc="outside lower center")
    return figure
