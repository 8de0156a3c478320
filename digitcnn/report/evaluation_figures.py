"""Figures of chapter 3, and its larger tables. They show what they are given."""

from __future__ import annotations

import textwrap

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..predictions import Predictions
from ..sources import TITLES
from ..stats import mcnemar
from . import estimate, number, percent, points, times
from .evaluation import cross_entropy
from .improvements import Augmented
from .style import DATA_COLOUR, WIDTH, show_image

WRONG, RIGHT, LABEL = "#D55E00", "#0072B2", "#009E73"


def loss_comparison(histories: dict[str, dict[str, pd.DataFrame]]) -> Figure:
    """Validation and test loss per epoch of all networks in one panel.

    Args:
        histories: data set name to split name to a frame with ``epoch`` and ``loss`` (nats).
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 2.7))
    for name, history in histories.items():
        for split, line in (("train", ":"), ("validation", "--"), ("test", "-")):
            axis.plot(
                history[split]["epoch"],
                history[split]["loss"],
                line,
                color=DATA_COLOUR[name],
                linewidth=1.4,
                label=f"{TITLES[name]}, {split}",
            )
    axis.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    figure.legend(loc="outside right center")
    return figure


def gallery(
    images: np.ndarray,
    rows: list[tuple[str, np.ndarray]],
    captions: np.ndarray | None = None,
    columns: int = 9,
) -> Figure:
    """Rows of images, each with a heading on its left; a row may hold fewer than `columns`.

    Args:
        images: uint8 (N, 3, 32, 32).
        rows: heading and positions in `images`.
        captions: a short line for each of the N images, drawn over it.
    """
    left, unit = 0.95, (WIDTH - 0.95) / columns
    high = unit + (0.14 if captions is not None else 0.0)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(WIDTH, high * len(rows)), squeeze=False, layout="none"
    )
    figure.subplots_adjust(
        left=left / WIDTH,
        right=1,
        bottom=0,
        top=1 - (high - unit) / (high * len(rows)) if captions is not None else 1,
        wspace=0.08,
        hspace=0.08 if captions is None else 0.25,
    )
    for line, (heading, positions) in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, position in zip(line, positions, strict=False):
            show_image(axis, images[position])
            if captions is not None:
                size = min(6.2, 9.2 * unit)
                axis.set_title(captions[position], fontsize=size, pad=1.5)
        box = line[0].get_position()
        text = "\n".join(textwrap.wrap(heading, 15))
        figure.text(0, (box.y0 + box.y1) / 2, text, fontsize=7.5, va="center", linespacing=1.15)
    return figure


def difficulty(shares: dict[str, pd.Series], rates: dict[str, pd.DataFrame]) -> Figure:
    """How frequent each attribute is (left), and the error rate by their number (right).

    Args:
        shares: data set name to attribute to its `Estimate` among all test images.
        rates: data set name to the frame of `digitcnn.report.attributes.by_count`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.9), width_ratios=(1.05, 1))
    for offset, (name, found) in enumerate(shares.items()):
        heights = np.arange(len(found)) + (offset - 0.5) * 0.36
        widths = [100 * estimate.value for estimate in found]
        left.barh(heights, widths, 0.36, color=DATA_COLOUR[name], label=TITLES[name])
        for height, width in zip(heights, widths, strict=True):
            left.annotate(
                f"{width:.1f}", (width, height), xytext=(2, 0), textcoords="offset points",
                va="center", fontsize=6.5,
            )  # fmt: skip
    first = next(iter(shares.values()))
    left.set_yticks(range(len(first)), [textwrap.fill(name, 16) for name in first.index])
    left.set(xlabel="test images that have it (%)")
    left.set_xlim(0, left.get_xlim()[1] * 1.12)
    left.invert_yaxis()
    left.grid(axis="y", visible=False)
    left.legend()
    for name, frame in rates.items():
        enough = frame[frame["images"] >= 100]
        _with_intervals(
            right, enough["attributes"], list(enough["error_rate"]), DATA_COLOUR[name], "o-"
        )
    right.set(xlabel="number of attributes that an image has", ylabel="error rate (%)")
    right.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    right.set_yscale("symlog", linthresh=0.1, linscale=0.4)
    right.set_ylim(bottom=0)
    right.yaxis.set_major_locator(mpl.ticker.FixedLocator([0, 0.1, 0.3, 1, 3, 10, 30, 100]))
    right.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    right.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    return figure


def _with_intervals(axis, positions, estimates, colour, marker, horizontal=False, label=None):
    """Points with their 95 % intervals, in per cent."""
    values = 100 * np.array([tuple(estimate) for estimate in estimates]).reshape(-1, 3)
    spread = np.abs(values[:, 1:] - values[:, :1]).T
    style = {"color": colour, "markersize": 4, "linewidth": 1.1, "capsize": 2, "label": label}
    if horizontal:
        axis.errorbar(values[:, 0], positions, xerr=spread, fmt=marker, **style)
    else:
        axis.errorbar(positions, values[:, 0], yerr=spread, fmt=marker, **style)


def causes(tables: dict[str, pd.DataFrame]) -> Figure:
    """Share of each attribute among errors and among correct samples, a panel a data set.

    Args:
        tables: data set name to the frame of `digitcnn.report.attributes.table`.
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 3.5))
    for axis, (data, table) in zip(axes, tables.items(), strict=True):
        rows = np.arange(len(table))
        for column, colour, label, offset in (
            ("among_errors", WRONG, "misclassified", -0.12),
            ("among_correct", RIGHT, "correct (control)", 0.12),
        ):
            _with_intervals(axis, rows + offset, list(table[column]), colour, "o", True, label)
        axis.set_yticks(rows, [textwrap.fill(name, 16) for name in table.index], fontsize=7.5)
        axis.set(title=TITLES[data], xlabel="share that has it (%)", xlim=(-3, 103))
        axis.invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def confusion_matrices(counts: dict[str, np.ndarray]) -> Figure:
    """Counts (left) and percentages of the true class (right), a row a data set.

    The colour shows errors only, as the diagonal would hide them.
    """
    figure, axes = plt.subplots(len(counts), 2, figsize=(WIDTH, 3.45 * len(counts)))
    for line, (name, matrix) in zip(axes, counts.items(), strict=True):
        share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        for axis, values, kind in (
            (line[0], matrix, "counts"),
            (line[1], share, "% of true class"),
        ):
            errors = np.where(np.eye(len(values), dtype=bool), np.nan, values).astype(float)
            highest = max(np.nanmax(errors), 1e-9)
            axis.imshow(np.sqrt(errors), cmap="Oranges", vmin=0, vmax=np.sqrt(highest) * 1.15)
            for row, column in np.ndindex(values.shape):
                value = values[row, column]
                if value:
                    axis.text(
                        column, row, _short(value, kind), ha="center", va="center",
                        fontsize=6.2, weight="bold" if row == column else "normal",
                        color="white" if row != column and value > 0.75 * highest else "black",
                    )  # fmt: skip
            axis.set(title=f"{TITLES[name]}: {kind}", xlabel="predicted", ylabel="true")
            axis.set_xticks(range(len(values)))
            axis.set_yticks(range(len(values)))
            axis.grid(visible=False)
    return figure


def _short(value: float, kind: str) -> str:
    if kind == "counts":
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2f}".lstrip("0")


def probability_maps(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
) -> Figure:
    """Each image beside its ten softmax probabilities, three to a line.

    Args:
        images: uint8 (N, 3, 32, 32), N.
        labels: true classes (N,), marked green; a wrong predicted class is orange.
        probabilities: (N, 10).
    """
    lines = -(-len(images) // 3)
    figure, axes = plt.subplots(
        lines, 6, figsize=(WIDTH, 1.25 * lines), width_ratios=(1, 1.25) * 3, squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for place, (image, label, shares) in enumerate(zip(images, labels, probabilities, strict=True)):
        picture, bars = axes.flat[2 * place : 2 * place + 2]
        said = int(shares.argmax())
        title = f"{label} read as {said}"
        show_image(picture, image)
        picture.set_title(title, fontsize=7, pad=3, color=WRONG if said != label else "black")
        colours = [
            LABEL if digit == label else WRONG if digit == said else "0.6" for digit in range(10)
        ]
        bars.set_axis_on()
        bars.bar(range(10), 100 * shares, color=colours, width=0.8)
        bars.set(xticks=range(10), yticks=(0, 50, 100), ylim=(0, 108))
        bars.tick_params(labelsize=6, length=2, pad=1.5)
        bars.set_title(f"{100 * shares[said]:.1f} %", fontsize=7, pad=3)
        bars.grid(axis="x", visible=False)
    return figure


def class_f1(frames: dict[str, pd.DataFrame]) -> Figure:
    """F1 of each class with its interval, lowest on top, a panel a data set."""
    figure, axes = plt.subplots(1, len(frames), figsize=(WIDTH, 2.6))
    for axis, (name, frame) in zip(axes, frames.items(), strict=True):
        rows = np.arange(len(frame))
        _with_intervals(axis, rows, list(frame["f1"]), DATA_COLOUR[name], "o", horizontal=True)
        axis.set_yticks(rows, frame["digit"])
        axis.set(title=TITLES[name], xlabel="F1 (%)", ylabel="class")
        axis.invert_yaxis()
    return figure


def reliability(frames: dict[str, dict[str, pd.DataFrame]]) -> Figure:
    """Accuracy against confidence, before and after scaling, a panel a data set.

    Args:
        frames: data set name to kind (``raw``, ``scaled``) to a frame of
            `digitcnn.report.evaluation.reliability`.
    """
    figure, axes = plt.subplots(1, len(frames), figsize=(WIDTH, 3.3), sharey=True)
    for axis, (name, kinds) in zip(axes, frames.items(), strict=True):
        axis.plot([0, 100], [0, 100], color="0.5", linewidth=0.9, linestyle="--")
        for (kind, frame), colour, marker in zip(kinds.items(), (WRONG, RIGHT), "so", strict=True):
            estimates = frame[["accuracy", "low", "high"]].to_numpy()
            _with_intervals(
                axis, 100 * frame["confidence"], estimates, colour, f"{marker}-", label=kind
            )
        axis.set(title=TITLES[name], xlabel="confidence (%)", xlim=(0, 102), ylim=(0, 104))
    axes[0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def coverage(
    curves: dict[str, tuple[np.ndarray, np.ndarray]], points: dict[str, pd.DataFrame]
) -> Figure:
    """Error rate of the kept samples by coverage, with the points chosen on validation."""
    figure, axis = plt.subplots(figsize=(WIDTH, 2.0))
    for name, (share, accuracy) in curves.items():
        # Beyond a few hundred points a curve only grows the file.
        at = np.unique(np.linspace(len(share) // 2, len(share) - 1, 400).astype(int))
        axis.plot(
            100 * share[at], 100 * (1 - accuracy[at]), color=DATA_COLOUR[name], label=TITLES[name]
        )
        chosen = points[name]
        axis.plot(
            [100 * estimate.value for estimate in chosen["coverage"]],
            [100 * (1 - estimate.value) for estimate in chosen["accuracy"]],
            "o", color=DATA_COLOUR[name], markersize=5,
        )  # fmt: skip
    axis.set(xlabel="coverage: share of images answered (%)", ylabel="error rate among them (%)")
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure


# Tables


def cause_table(table: pd.DataFrame) -> pd.DataFrame:
    """The frame of `digitcnn.report.attributes.table` as shown."""

    def shown_ratio(row: pd.Series) -> str:
        if row["errors"] and not row["among_correct"].value:  # the ratio has no upper end
            return f"> {number(row['ratio'].low)}"
        return times(row["ratio"])

    return pd.DataFrame(
        {
            "attribute": table.index,
            "errors": table["errors"],
            "in excess": [f"{round(v):d}".replace("-", "\u2212") for v in table["excess"]],
            "of errors": [percent(e.value, 1) for e in table["among_errors"]],
            "of correct": [percent(e.value, 1) for e in table["among_correct"]],
            "ratio (95 %)": [shown_ratio(row) for _, row in table.iterrows()],
        }
    )


def class_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `digitcnn.report.evaluation.per_class` as shown."""
    shown = frame.assign(support=frame["support"].map(number))
    for column in ("precision", "recall", "f1"):
        shown[column] = [estimate(each, 1) for each in frame[column]]
    return shown.rename(columns={"f1": "F1", "digit": "class"})


def candidate_table(augmented: dict[str, Augmented]) -> pd.DataFrame:
    """Validation accuracy of each set of views, a column a data set; bold: chosen."""
    rows = []
    for name in max((found.table.index for found in augmented.values()), key=len):
        number_of = (found.table["views"].get(name, 0) for found in augmented.values())
        row = {"views": name, "number": max(map(int, number_of))}
        for data_name, found in augmented.items():
            known = name in found.table.index
            text = percent(found.table.loc[name, "accuracy"]) if known else "–"
            row[TITLES[data_name]] = f"**{text}**" if name == found.chosen else text
        rows.append(row)
    return pd.DataFrame(rows)


def augmented_column(plain: Predictions, found: Augmented) -> dict[str, str]:
    """What test-time augmentation does to the test split, by measure."""
    change, (before, after) = mcnemar(plain.wrong, found.test.wrong), found.seconds
    value, low, high = map(points, change.difference)
    entropies = [cross_entropy(p.probabilities, p.labels) for p in (plain, found.test)]
    return {
        "views": f"{found.chosen} ({found.table.loc[found.chosen, 'views']})",
        "accuracy without": percent(1 - plain.wrong.mean()),
        "accuracy with": percent(1 - found.test.wrong.mean()),
        "difference": f"{value} ({low} to {high})",
        "errors mended; new errors": f"{change.mended}; {change.made}",
        "McNemar's p": f"{change.p_value:.2g}" if change.p_value >= 1e-4 else "< 0.0001",
        "cross-entropy without": f"{entropies[0]:.4f}",
        "cross-entropy with": f"{entropies[1]:.4f}",
        "processor seconds per 1,000 images, without": f"{before:.2f}",
        "processor seconds per 1,000 images, with": f"{after:.2f}",
    }
