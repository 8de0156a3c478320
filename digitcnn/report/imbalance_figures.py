"""Figures and the large table of chapter 5. They show what is given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.core.groupby import DataFrameGroupBy

from ..sources import TITLES
from . import spread
from .figures import seed_dots
from .imbalance import CaseMaps, Scores
from .style import DATA_COLOUR, WIDTH

CASE_TITLES = {
    "case1": "case 1",
    "case2": "case 2",
    "case3": "case 3",
    "few": "50 + 50",
    "mirrored": "1,000 + 50",
    "balanced": "525 + 525",
    "many": "1,000 + 1,000",
    "case1-weighted": "case 1, weighted loss",
    "case1-oversampled": "case 1, oversampled",
    "case3-short": "case 3, as few steps as case 1",
}
DIGIT_COLOUR = {1: "#CC79A7", 2: "#009E73"}  # apart from the data sets' colours
RING_COLOUR = {1: "#5A1040", 2: "#00543F"}
MITIGATION_TITLES = {
    "none": "none",
    "weighted": "weighted loss",
    "oversampled": "oversampling",
    "prior": "threshold by the prior",
    "validation": "threshold by validation",
}


MEASURES = {
    "accuracy": "accuracy",
    "recall_1": "recall of '1'",
    "precision_1": "precision of '1'",
    "recall_2": "recall of '2'",
    "precision_2": "precision of '2'",
    "precision": "macro precision",
    "balanced": "macro recall (balanced accuracy)",
    "f1": "macro F1",
    "roc_auc": "ROC-AUC × 100",
    "outside": "other digits (count)",
}


def metrics_table(
    by_case: DataFrameGroupBy, cases: list[str], test: dict[str, str]
) -> pd.DataFrame:
    """`MEASURES` as rows, model and case as columns: mean ± standard deviation over the seeds.

    Args:
        by_case: `digitcnn.report.imbalance.results`, grouped by model, case and data.
        cases: which of them.
        test: by model, the test split that it sees.
    """
    columns = {}
    for model, name in test.items():
        for case in cases:
            part = by_case.get_group((model, case, name))
            columns[f"{TITLES[model]} {CASE_TITLES[case]}"] = [
                spread(part[m], 0, 1) if m == "outside" else spread(part[m], 2) for m in MEASURES
            ]
    frame = pd.DataFrame(columns, index=pd.Index(MEASURES.values(), name="measure"))
    return frame.map(lambda text: text.replace(" ", "\u00a0"))


def curves(histories: dict[tuple[str, str], dict[str, pd.DataFrame]]) -> Figure:
    """Loss (top) and accuracy (bottom) over the epochs, a column a data set, a colour a case.

    Args:
        histories: by data set and case, the metrics by split; dashed: training.
    """
    names = list(dict.fromkeys(name for name, _ in histories))
    figure, axes = plt.subplots(2, len(names), figsize=(WIDTH, 4.2), sharex=True, sharey="row")
    palette = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, 3))
    for (name, case), history in histories.items():
        column = names.index(name)
        colour = palette[list(CASE_TITLES).index(case)]
        for row, measure in enumerate(("loss", "accuracy")):
            for split, line in (("train", ":"), ("validation", "-")):
                table = history[split]
                values = table[measure] if row == 0 else 100 * table[measure]
                label = CASE_TITLES[case] if split == "validation" else None
                axes[row, column].plot(table["epoch"], values, line, color=colour, label=label)
        axes[0, column].set_title(TITLES[name])
    axes[0, 0].set(ylabel="loss (nats)", yscale="log")
    axes[1, 0].set_ylabel("accuracy (%)")
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles += [plt.Line2D([], [], color="grey", ls=line) for line in ("-", ":")]
    labels += ["validation", "training"]
    figure.legend(handles, labels, ncols=5, loc="outside lower center")
    return figure


def confusions(counts: dict[tuple[str, str, str], np.ndarray]) -> Figure:
    """Confusion matrices (2, 3): rows of panels (model, data), columns cases; row percentages."""
    rows = list(dict.fromkeys(key[:2] for key in counts))
    cases = list(dict.fromkeys(key[2] for key in counts))
    figure, axes = plt.subplots(len(rows), len(cases), figsize=(WIDTH, 1.35 * len(rows) + 0.5))
    for (model, name, case), table in counts.items():
        axis = axes[rows.index((model, name)), cases.index(case)]
        share = 100 * table / table.sum(1, keepdims=True)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(share):
            text = f"{table[row, column]:,}\n{value:.1f} %"
            colour = "white" if value > 55 else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        axis.set(xticks=range(3), xticklabels=["1", "2", "other"], yticks=range(2))
        axis.set_yticklabels(["1", "2"])
        axis.tick_params(length=0)
        axis.grid(False)
        if case == cases[0]:
            axis.set_ylabel(f"{TITLES[model]} model,\n{TITLES[name]} test: true", fontsize=8)
        if (model, name) == rows[0]:
            axis.set_title(CASE_TITLES[case])
        if (model, name) == rows[-1]:
            axis.set_xlabel("predicted")
    return figure


def shares(table: pd.DataFrame, true_share: dict[str, float]) -> Figure:
    """Share of images called 1 against the share of 1 in training, a panel a test set.

    Args:
        table: rows of `digitcnn.report.imbalance.results`.
        true_share: by test set, the true share of 1 (dashed).
    """
    figure, axes = plt.subplots(1, len(true_share), figsize=(WIDTH, 2.9), sharey=True)
    for axis, (name, truth) in zip(axes, true_share.items(), strict=True):
        axis.axhline(100 * truth, color="black", lw=0.8, ls="--", label="true share")
        for model, colour in DATA_COLOUR.items():
            rows = table[(table["data"] == name) & (table["model"] == model)]
            cases = rows[rows["case"].isin(["case1", "case2", "case3"])]
            means = cases.groupby("train_share")["share"].mean()
            label = f"{TITLES[model]} model"
            axis.plot(100 * means.index, 100 * means, color=colour, lw=1, label=label)
            axis.scatter(100 * cases["train_share"], 100 * cases["share"], s=14, color=colour)
            few = rows[rows["case"] == "balanced"]
            style = {"s": 20, "facecolors": "none", "edgecolors": colour, "marker": "s"}
            axis.scatter(100 * few["train_share"], 100 * few["share"], **style)
        axis.set(title=f"{TITLES[name]} test images", xlabel="share of 1 in training (%)")
    axes[0].set_ylabel("images called 1 (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], marker="s", ls="", mfc="none", color="grey"))
    figure.legend(handles, [*labels, CASE_TITLES["balanced"]], ncols=4, loc="outside lower center")
    return figure


def margins(samples: dict[tuple[str, str], Scores]) -> Figure:
    """Distribution of the logit margin by true class: rows of panels models, columns cases.

    Args:
        samples: by model and case, the scores on the own test split.
    """
    models = list(dict.fromkeys(model for model, _ in samples))
    cases = list(dict.fromkeys(case for _, case in samples))
    figure, axes = plt.subplots(
        len(models), len(cases), figsize=(WIDTH, 3.6), sharex="row", squeeze=False
    )
    for (model, case), found in samples.items():
        margin, labels = found.margin, found.labels
        axis = axes[models.index(model), cases.index(case)]
        limit = max(np.abs(each.margin).max() for (m, _), each in samples.items() if m == model)
        edges = np.linspace(-limit, limit, 41)
        for digit, colour in DIGIT_COLOUR.items():
            share, _ = np.histogram(margin[labels == digit], edges)
            style = {"fill": True, "alpha": 0.5, "color": colour, "label": f"true {digit}"}
            axis.stairs(100 * share / max(1, (labels == digit).sum()), edges, **style)
        axis.axvline(0, color="black", lw=0.8, ls="--")
        if model == models[0]:
            axis.set_title(CASE_TITLES[case])
        if model == models[-1]:
            axis.set_xlabel("logit of 1 − logit of 2")
        if case == cases[0]:
            axis.set_ylabel(f"{TITLES[model]} model\nimages (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=2, loc="outside lower center")
    return figure


def case_maps(maps: dict[str, CaseMaps]) -> Figure:
    """Aligned maps: rows of panels test sets, columns cases.

    Args:
        maps: by test set, a `digitcnn.report.imbalance.CaseMaps`. Rings in case 1: its training
            images; crosses: test images that are misclassified.
    """
    cases = list(next(iter(maps.values())).points)
    figure, axes = plt.subplots(
        len(maps), len(cases), figsize=(WIDTH, 2.35 * len(maps) + 0.4), sharex="row", sharey="row"
    )
    for row, (name, found) in zip(np.atleast_2d(axes), maps.items(), strict=True):
        test = ~found.training
        for axis, case in zip(row, cases, strict=True):
            points = found.points[case]
            colours = np.array([DIGIT_COLOUR[label] for label in found.labels])
            order = np.random.default_rng(0).permutation(np.flatnonzero(test))
            style = {"s": 4, "linewidths": 0, "alpha": 0.7, "rasterized": True}
            axis.scatter(*points[order].T, c=colours[order], **style)
            wrong = test & (found.predicted[case] != found.labels)
            style = {"marker": "x", "c": "black", "s": 6, "linewidths": 0.4, "alpha": 0.6}
            style["rasterized"] = True
            axis.scatter(*points[wrong].T, **style)
            if case == cases[0]:
                for digit, colour in RING_COLOUR.items():
                    at = found.training & (found.labels == digit)
                    style = {"s": 13 if digit == 1 else 4, "facecolors": "none", "rasterized": True}
                    wide = 0.7 if digit == 1 else 0.25  # there are many of 2
                    axis.scatter(*points[at].T, edgecolors=[colour], linewidths=wide, **style)
                axis.set_ylabel(f"{TITLES[name]} test images")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            if row is np.atleast_2d(axes)[0]:
                axis.set_title(CASE_TITLES[case])
    for axis, case in zip(np.atleast_2d(axes)[0], cases, strict=True):
        axis.set_title(CASE_TITLES[case])
    marks = [plt.Line2D([], [], marker="o", ls="", ms=4, color=c) for c in DIGIT_COLOUR.values()]
    marks.append(plt.Line2D([], [], marker="o", ls="", ms=5, mfc="none", color="grey"))
    marks.append(plt.Line2D([], [], marker="x", ls="", ms=4, color="black"))
    names = ["1", "2", "training image of case 1", "misclassified"]
    figure.legend(marks, names, ncols=4, loc="outside lower center")
    return figure


def few_pixels(by_data: dict[str, pd.DataFrame], networks: pd.DataFrame) -> Figure:
    """Balanced accuracy of the nearest image by pixels (left), and of the networks (right).

    Args:
        by_data: `digitcnn.report.imbalance.pixel_neighbours` by data set.
        networks: rows of `digitcnn.report.imbalance.results`, on the own test split.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.8), width_ratios=(1, 1.4))
    for name, table in by_data.items():
        mean, spread = 100 * table.mean(axis=1), 100 * table.std(axis=1)
        style = {"color": DATA_COLOUR[name], "marker": "o", "ms": 4, "capsize": 3}
        left.errorbar(table.index, mean, spread, label=TITLES[name], **style)
    left.set(xscale="log", xlabel="training images a class", ylabel="balanced accuracy (%)")
    left.set_title("nearest training image by pixels")
    cases = list(CASE_TITLES)[:3] + ["few", "balanced", "many", "case3-short"]
    for shift, name in zip((-0.15, 0.15), by_data, strict=True):
        rows = networks[(networks["model"] == name) & (networks["data"] == name)]
        rows = rows[rows["case"].isin(cases)]
        position = [cases.index(case) + shift for case in rows["case"]]
        right.scatter(position, 100 * rows["balanced"], s=14, color=DATA_COLOUR[name], alpha=0.8)
    short = [CASE_TITLES[case].split(",")[0] for case in cases[:3]]
    short += ["50\n+50", "525\n+525", "1,000\n+1,000", "case 3,\nshort"]
    right.set_xticks(range(len(cases)), short, fontsize=7)
    right.set_title("networks, a dot a seed")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def control_chart(table: pd.DataFrame) -> Figure:
    """Balanced accuracy of every case and control on the own test split: a dot a seed, and mean.

    Args:
        table: rows of `digitcnn.report.imbalance.results`.
    """
    names = list(DATA_COLOUR)
    figure, axes = plt.subplots(1, len(names), figsize=(WIDTH, 2.9), sharey=True)
    cases = list(CASE_TITLES)
    for axis, name in zip(axes, names, strict=True):
        rows = table[(table["model"] == name) & (table["data"] == name)]
        at = [cases.index(case) for case in rows["case"]]
        seed_dots(axis, at, 100 * rows["balanced"].to_numpy(), DATA_COLOUR[name])
        axis.set(title=TITLES[name], xlabel="balanced accuracy (%)")
        axis.set_yticks(range(len(cases)), CASE_TITLES.values())
    axes[0].invert_yaxis()
    return figure


def mitigation_chart(table: pd.DataFrame) -> Figure:
    """Recall of 1 and of 2 on the own test split by mitigation, a panel a model and case."""
    own = table[table["model"] == table["data"]]
    panels = list(own.groupby(["model", "case"], sort=False))
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.1), sharey=True)
    kinds = list(MITIGATION_TITLES)
    for axis, ((model, case), rows) in zip(axes, panels, strict=True):
        for digit, shift in ((1, -0.12), (2, 0.12)):
            position = [kinds.index(kind) + shift for kind in rows["mitigation"]]
            values = 100 * rows[f"recall_{digit}"]
            axis.scatter(
                values, position, s=12, color=DIGIT_COLOUR[digit], label=f"recall of {digit}"
            )
        axis.set(title=f"{TITLES[model]}, {CASE_TITLES[case]}", xlabel="recall (%)")
        axis.set_yticks(range(len(kinds)), MITIGATION_TITLES.values())
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=2, loc="outside lower center")
    return figure
