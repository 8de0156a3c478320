"""Chapter 3: how good the trained networks are, where they are wrong, and how sure they are.

Works on what finished runs answered (`digitcnn.predictions`), without weights or images. What is
fitted is fitted on the validation split; the test split only reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize
from sklearn import metrics

from .. import predictions, results, runs, stats, store
from ..predictions import Answers, Predictions, softmax
from ..sources import TITLES
from ..stats import Estimate, percentiles, proportion
from .values import Average, Count, Number, Points, Ratio, Share, Spread, Text, fixed

BINS = 15  # of equal width, as in Guo et al. 2017
DIGITS = np.arange(10)


def confusion(p: Predictions | Answers) -> np.ndarray:
    """Counts int (10, 10), rows true classes and columns predicted ones."""
    return stats.confusion(p.labels, p.predicted)


def matrix(name: str) -> np.ndarray:
    """`confusion` of a data set's first training on its own test split."""
    return confusion(predictions.predict(name, name))


# The two models ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A model on a split: `accuracy` (Wilson's interval), macro averages (bootstrap), `errors`."""

    accuracy: Share
    errors: Count
    images: Count
    precision: Average
    recall: Average
    f1: Average


@dataclass(frozen=True)
class Model:
    """A main configuration: its first training looked at, and all of its trainings.

    Attributes:
        test, validation: the first training (seed 42), see `Judged`.
        accuracy, validation_accuracy: of all trainings on these splits.
        parameters, epochs: of each training.
    """

    title: str
    test: Judged
    validation: Judged
    accuracy: Spread
    validation_accuracy: Spread
    parameters: Count
    epochs: Count


def judged(p: Predictions) -> Judged:
    """What predictions are worth."""
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        p.labels, p.predicted, average="macro", zero_division=0
    )
    drawn = stats.class_scores(stats.resampled(confusion(p)))
    macro = {
        name: Average(percentiles(value, np.nanmean(drawn[name], axis=1)))
        for name, value in {"precision": precision, "recall": recall, "f1": f1}.items()
    }
    wrong, total = int(p.wrong.sum()), len(p.labels)
    return Judged(Share(total - wrong, total), Count(wrong), Count(total), **macro)


def model(name: str) -> Model:
    """A data set's main configuration on its own data."""
    splits = ("test", "validation")
    first = {split: judged(predictions.predict(name, name, split)) for split in splits}
    every = {
        split: Spread(
            (~predictions.predict(run, name, split).wrong).mean() for run in runs.trainings(name)
        )
        for split in splits
    }
    about = results.record(name)
    return Model(
        TITLES[name], first["test"], first["validation"], every["test"], every["validation"],
        Count(about["parameters"]), Count(runs.get(name).epochs),
    )  # fmt: skip


def harder() -> Ratio:
    """How many times SVHN's error rate on test is MNIST's, of the first trainings."""
    svhn, mnist = (predictions.predict(name, name) for name in ("svhn", "mnist"))
    return Ratio(
        stats.ratio(svhn.wrong.sum(), len(svhn.labels), mnist.wrong.sum(), len(mnist.labels))
    )


def summary() -> pd.DataFrame:
    """Both models on test and validation, a column a data set, as shown."""
    columns = {}  # two decimals as in chapter 2, so that a number is the same everywhere
    for name in TITLES:
        found = model(name)
        every = f"{found.accuracy.count} runs"
        columns[found.title] = {
            f"test accuracy, {every}": found.accuracy,
            "test accuracy, seed 42": found.test.accuracy.at(2),
            "errors of test images, seed 42": Text(f"{found.test.errors} of {found.test.images}"),
            "macro precision, seed 42": found.test.precision.at(2),
            "macro recall, seed 42": found.test.recall.at(2),
            "macro F1, seed 42": found.test.f1.at(2),
            f"validation accuracy, {every}": found.validation_accuracy,
        }
    return pd.DataFrame(columns, dtype=object).rename_axis("measure")


# Classes and confusions ---------------------------------------------------------------------------


MEASURES = ("precision", "recall", "F1")


@dataclass(frozen=True)
class Classes:
    """The classes of a model's test split.

    Attributes:
        table: precision, recall and F1 in per cent by class, and what it is most often taken for
            (how many times), as shown; `taken`: that class by class.
        f1: `Estimate` by class, lowest first.
        lowest: the lowest precision or recall of any class.
        worst, best: classes by F1; `worst_f1` and `best_f1` theirs.
        drawn_to: the class with the largest surplus of false answers over misses;
            `falsely` and `missed` are its counts, `p` that of the exact test that both are equally
            likely, corrected for the ten classes.
    """

    table: pd.DataFrame
    f1: dict[int, Estimate]
    lowest: float
    worst: int
    best: int
    worst_f1: Average
    best_f1: Average
    drawn_to: int
    falsely: Count
    missed: Count
    p: Number
    taken: dict[int, int]


def classes(name: str) -> Classes:
    """Precision, recall and F1 of each class on test, with 95 % intervals."""
    p = predictions.predict(name, name)
    counts = confusion(p)
    *shown, support = metrics.precision_recall_fscore_support(
        p.labels, p.predicted, labels=DIGITS, zero_division=0
    )
    table = pd.DataFrame(
        {k: [fixed(100 * v, 1) for v in each] for k, each in zip(MEASURES, shown, strict=True)},
        index=pd.Index(DIGITS, name="class"),
    )
    astray = counts - np.diag(counts.diagonal())
    taken = {digit: int(row.argmax()) for digit, row in enumerate(astray) if row.any()}
    times = astray.max(axis=1)
    table["taken for"] = [f"{taken[d]} ({times[d]})" if d in taken else "" for d in table.index]
    drawn = stats.class_scores(stats.resampled(counts))["f1"]
    hits, answers = counts.diagonal(), counts.sum(0)
    f1 = {digit: percentiles(shown[2][digit], drawn[:, digit]) for digit in DIGITS.tolist()}
    order = sorted(f1, key=lambda digit: f1[digit].value)
    falsely, missed = answers - hits, support - hits
    p_values = stats.holm(
        [stats.even(int(a), int(b)) for a, b in zip(falsely, missed, strict=True)]
    )
    top = int(np.argmax(falsely - missed))
    return Classes(
        table, {digit: f1[digit] for digit in order}, float(np.min(shown[:2])),
        order[0], order[-1], Average(f1[order[0]]), Average(f1[order[-1]]),
        top, Count(falsely[top]), Count(missed[top]), Number(p_values[top]), taken,
    )  # fmt: skip


def classes_table() -> pd.DataFrame:
    """`classes` of both data sets side by side."""
    parts = [classes(name).table.add_prefix(f"{title} ") for name, title in TITLES.items()]
    return pd.concat(parts, axis=1)


class Pair(NamedTuple):
    """A confusion: true class, answered class, and how many of a split's errors it is."""

    true: int
    answered: int
    count: int


def most_confused(p: Predictions, count: int) -> list[Pair]:
    """The most frequent confusions, fewer where there are fewer."""
    counts = confusion(p)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:count]
    cells = [np.unravel_index(cell, counts.shape) for cell in order]
    return [Pair(int(t), int(a), Count(counts[t, a])) for t, a in cells if counts[t, a]]


class Kinds(NamedTuple):
    """How a model's test errors spread: pairs of classes that occur, share of the first four."""

    filled: Count
    top: Share


def kinds(name: str) -> Kinds:
    """The pairs of classes that a data set's first training confuses on test."""
    counts = [pair.count for pair in most_confused(predictions.predict(name, name), 90)]
    return Kinds(Count(len(counts)), Share(sum(counts[:4]), sum(counts)))


# Pictures -----------------------------------------------------------------------------------------


@store.stored(
    lambda name: f"evaluation/pictures-{name}",
    lambda name: [store.weights(name), store.images(name)],
)
def pictures(name: str) -> dict[str, np.ndarray]:
    """The test images that chapter 3 shows: all errors of the first training and `drawn` others.

    ``at`` int64 (n,), sorted positions in the test split, and ``images`` uint8 (n, 3, 32, 32).
    """
    from .. import data

    wrong = np.flatnonzero(predictions.predict(name, name).wrong)
    at = np.union1d(wrong, drawn(name))
    return {"at": at, "images": data.load(name, "test").images.numpy()[at]}


def drawn(name: str, count: int = 24) -> np.ndarray:
    """Random positions in a test split (fixed seed), int64 (count,)."""
    generator = np.random.default_rng(runs.SEED)
    size = len(predictions.predict(name, name).labels)
    return generator.choice(size, min(count, size), replace=False)


class Shown(NamedTuple):
    """A row of a gallery: its heading, images uint8 (n, 3, 32, 32), and a line for each."""

    heading: str
    images: np.ndarray
    lines: list[str]
    positions: np.ndarray
    """int64 (n,), in the test split."""


def _row(name: str, heading: str, positions: np.ndarray) -> Shown:
    kept, p = pictures(name), predictions.predict(name, name)
    at = np.searchsorted(kept["at"], positions)
    lines = [f"{p.labels[i]} → {p.predicted[i]}" for i in positions]
    return Shown(heading, kept["images"][at], lines, positions)


def examples(chosen: np.ndarray, count: int) -> np.ndarray:
    """At most `count` random positions (fixed seed) where `chosen` (N,) is true, in order."""
    positions = np.flatnonzero(chosen)
    return np.sort(np.random.default_rng(runs.SEED).permutation(positions)[:count])


def errors_by_class(name: str, count: int = 10) -> list[Shown]:
    """For each true class, at most `count` of its errors on test."""
    p = predictions.predict(name, name)
    rows = []
    for digit in DIGITS:
        wrong = p.wrong & (p.labels == digit)
        heading = f"{digit}\n{Count(wrong.sum())} of {Count((p.labels == digit).sum())}"
        rows.append(_row(name, heading, examples(wrong, count)))
    return rows


def confused(name: str, pairs: list[Pair], count: int = 10) -> list[Shown]:
    """For each confusion, at most `count` of its errors on test."""
    p = predictions.predict(name, name)
    rows = []
    for pair in pairs:
        chosen = (p.labels == pair.true) & (p.predicted == pair.answered)
        heading = f"{pair.true} → {pair.answered}\n{pair.count} errors"
        rows.append(_row(name, heading, examples(chosen, count)))
    return rows


# Probabilities ------------------------------------------------------------------------------------


def fit_temperature(p: Predictions) -> float:
    """Temperature that minimises the cross-entropy of ``logits / T`` (Guo et al. 2017, eq. 9)."""

    def loss(log_temperature: float) -> float:
        return cross_entropy(softmax(p.logits, np.exp(log_temperature)), p.labels)

    found = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return float(np.exp(found.x))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of ``-log p(label)`` in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """A row a non-empty bin of confidence: ``count``, mean ``confidence``, ``accuracy``.

    Accuracy has its Wilson interval as ``low`` and ``high``. Confidence is the largest
    probability; the bins split [0, 1] evenly.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for number in np.unique(bin_of):
        inside = bin_of == number
        accuracy = proportion(correct[inside].sum(), inside.sum())
        rows.append((int(inside.sum()), confidence[inside].mean(), *accuracy))
    return pd.DataFrame(rows, columns=["count", "confidence", "accuracy", "low", "high"])


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error in [0, 1] (Guo et al. 2017, eq. 3)."""
    table = reliability(probabilities, labels, bins)
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["count"]).sum() / len(labels))


@dataclass(frozen=True)
class Calibration:
    """A temperature fitted on validation, and what it does to the test split.

    Attributes:
        temperature: see `fit_temperature`.
        validation, test: scaled probabilities (N, 10).
        before, after: expected calibration error of the test split, in points.
        unsure: share right among the scaled test answers with a confidence of 0.6 to 0.9;
            `claimed` is their mean confidence.
        right, wrong: median confidence of the scaled test answers that are so.
    """

    temperature: Number
    validation: np.ndarray
    test: np.ndarray
    before: Points
    after: Points
    unsure: Share
    claimed: Average
    right: Average
    wrong: Average


def calibrated(validation: Predictions, test: Predictions) -> Calibration:
    """Temperature scaling, fitted on the validation split alone."""
    temperature = fit_temperature(validation)
    scaled = softmax(test.logits, temperature)
    before, after = (calibration_error(p, test.labels) for p in (test.probabilities, scaled))
    confidence = scaled.max(1)
    some = (confidence >= 0.6) & (confidence < 0.9)
    claimed = float(confidence[some].mean()) if some.any() else float("nan")
    right, wrong = (
        float(np.median(confidence[kind])) if kind.any() else float("nan")
        for kind in (~test.wrong, test.wrong)
    )
    return Calibration(
        Number(temperature), softmax(validation.logits, temperature), scaled,
        Points((before, before, before)), Points((after, after, after)),
        Share((~test.wrong[some]).sum(), some.sum()),
        *(Average((value,) * 3, most=1) for value in (claimed, right, wrong)),
    )  # fmt: skip


def calibration(name: str) -> Calibration:
    """`calibrated` for a data set's first training."""
    return calibrated(*(predictions.predict(name, name, split) for split in ("validation", "test")))


def maps(name: str, count: int = 6) -> list[tuple[Shown, np.ndarray, np.ndarray]]:
    """Random right and wrong test images, each row with its softmax (n, 10), scaled and raw."""
    p, scaled, at = predictions.predict(name, name), calibration(name).test, drawn(name)
    rows = {"right": at[~p.wrong[at]][:count], "wrong": examples(p.wrong, count)}
    return [
        (_row(name, f"{TITLES[name]}, {what}", these), scaled[these], p.probabilities[these])
        for what, these in rows.items()
    ]
