"""Evaluation: metrics with intervals, confusions, examples and calibration.

Works on `digitcnn.predictions.Predictions` and draws nothing. What is fitted is fitted on the
validation split; the test split only reports.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize
from sklearn import metrics

from .. import data, division, files, results, runs, stats
from ..model import CLASSES
from ..predictions import Predictions, softmax
from ..stats import Estimate, percentiles, proportion

BINS = 15  # of equal width, as in Guo et al. 2017
DIGITS = np.arange(CLASSES)


class Answers(NamedTuple):
    """What a finished run answered.

    Attributes:
        predicted, labels: predicted and true classes, int64 (N,).
        margin: of the runs of question (e), logit of 1 minus logit of 2, float16 (N,).
    """

    predicted: np.ndarray
    labels: np.ndarray
    margin: np.ndarray | None = None


def answered(run: str | runs.RunConfig, data_name: str, split: str = "test") -> Answers:
    """A run's kept answers on a split of a data set, on the classes that it learned.

    Needs neither weights nor images. Raises `DigitcnnError` for a split of which the answers are
    not kept (`runs.kept_answers`).
    """
    run = runs.get(run)
    if (data_name, split) not in runs.kept_answers(run):
        raise files.DigitcnnError(
            f"The answers of {run.id} on {data_name}'s {split} split are not kept: choose one of "
            "digitcnn.runs.kept_answers."
        )
    kept = results.answers(run)
    predicted = kept[f"{data_name}-{split}-answer"].astype(np.int64)
    kind = run.split if data_name == run.data else "pooled"
    labels = division.labels(data_name).labels[division.split_indices(data_name, kind)[split]]
    if run.class_counts:
        labels = labels[np.isin(labels, [digit for digit, _ in run.class_counts])]
    return Answers(predicted, labels, kept.get(f"{data_name}-{split}-margin"))


def confusion(p: Predictions | Answers) -> np.ndarray:
    """Counts int (10, 10), rows true classes and columns predicted ones."""
    return stats.confusion(p.labels, p.predicted)


def summary(p: Predictions) -> dict[str, Estimate]:
    """Accuracy (Wilson) and macro precision, recall and F1 (percentile bootstrap)."""
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        p.labels, p.predicted, average="macro", zero_division=0
    )
    drawn = stats.class_scores(stats.resampled(confusion(p)))
    values = {"precision": precision, "recall": recall, "f1": f1}
    accuracy = proportion((~p.wrong).sum(), len(p.labels))
    return {"accuracy": accuracy} | {
        name: percentiles(value, np.nanmean(drawn[name], axis=1)) for name, value in values.items()
    }


def per_class(p: Predictions) -> pd.DataFrame:
    """A row a class, lowest F1 first: ``digit``, ``support`` and three `Estimate` columns.

    Precision and recall are shares, so their intervals are Wilson's; F1's is the bootstrap's.
    """
    counts = confusion(p)
    _, _, f1, support = metrics.precision_recall_fscore_support(
        p.labels, p.predicted, labels=DIGITS, zero_division=0
    )
    drawn = stats.class_scores(stats.resampled(counts))["f1"]
    hits, predicted = counts.diagonal(), counts.sum(0)
    rows = [
        {
            "digit": digit,
            "support": int(support[digit]),
            "precision": proportion(hits[digit], predicted[digit]),
            "recall": proportion(hits[digit], support[digit]),
            "f1": percentiles(f1[digit], drawn[:, digit]),
        }
        for digit in DIGITS.tolist()
    ]
    return pd.DataFrame(sorted(rows, key=lambda row: row["f1"].value))


def most_confused(p: Predictions, count: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions as (true, predicted, errors), fewer where there are fewer."""
    counts = confusion(p)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:count]
    pairs = [(*map(int, np.unravel_index(cell, counts.shape)), int(counts.flat[cell]))
             for cell in order]  # fmt: skip
    return [pair for pair in pairs if pair[2]]


def examples(chosen: np.ndarray, p: Predictions, count: int, seed: int = data.SEED) -> np.ndarray:
    """At most `count` random positions where `chosen` (N,) is true, most confident first."""
    positions = np.flatnonzero(chosen)
    drawn = np.random.default_rng(seed).permutation(positions)[:count]
    return drawn[np.argsort(-p.probabilities[drawn].max(1), kind="stable")]


def captions(p: Predictions) -> np.ndarray:
    """A line for each sample, (N,): true class, predicted class and the latter's probability."""
    confidence = p.probabilities.max(1)
    return np.array(
        [
            f"{true} → {said}, {share:.0%}"
            for true, said, share in zip(p.labels, p.predicted, confidence, strict=True)
        ]
    )


# Calibration


def fit_temperature(p: Predictions) -> float:
    """Temperature that minimises the cross-entropy of ``logits / T`` (Guo et al. 2017, eq. 9)."""

    def loss(log_temperature: float) -> float:
        return cross_entropy(softmax(p.logits, np.exp(log_temperature)), p.labels)

    found = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return float(np.exp(found.x))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of ``-log p(label)`` in nats."""
    return float(sample_losses(probabilities, labels).mean())


def sample_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``-log p(label)`` of each sample in nats, (N,)."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))


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
    """Expected calibration error in [0, 1]: mean gap of confidence and accuracy over the bins,
    weighted by their counts (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    table = reliability(probabilities, labels, bins)
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["count"]).sum() / len(labels))


class Calibration(NamedTuple):
    """A temperature fitted on validation, and what it does to the test split.

    Attributes:
        temperature: see `fit_temperature`.
        validation, test: scaled probabilities (N, 10).
        errors: expected calibration error of the test split, raw and scaled.
        change: of the test split's cross-entropy, paired.
    """

    temperature: float
    validation: np.ndarray
    test: np.ndarray
    errors: tuple[float, float]
    change: Estimate


def calibrated(validation: Predictions, test: Predictions) -> Calibration:
    """Temperature scaling, fitted on the validation split alone."""
    temperature = fit_temperature(validation)
    scaled = softmax(test.logits, temperature)
    raw = test.probabilities
    return Calibration(
        temperature,
        softmax(validation.logits, temperature),
        scaled,
        (calibration_error(raw, test.labels), calibration_error(scaled, test.labels)),
        stats.mean_difference(sample_losses(raw, test.labels), sample_losses(scaled, test.labels)),
    )


def error_rows(p: Predictions, count: int = 9) -> list[tuple[str, np.ndarray]]:
    """For each true class, a heading and at most `count` positions of its errors."""
    rows = []
    for digit in DIGITS:
        of_class = p.labels == digit
        heading = f"true {digit}: {(p.wrong & of_class).sum()} errors of {of_class.sum():,}"
        rows.append((heading, examples(p.wrong & of_class, p, count)))
    return rows
