"""Evaluation: metrics with intervals, confusions, examples and calibration.

Works on `digitcnn.predictions.Predictions` and draws nothing. What is fitted is fitted on the
validation split; the test split only reports.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats
from sklearn import metrics

from . import data
from .model import CLASSES
from .predictions import Predictions, softmax

LEVEL = 0.95
DRAWS = 2000  # bootstrap resamples
BINS = 15  # of equal width, as in Guo et al. 2017
DIGITS = np.arange(CLASSES)


class Estimate(NamedTuple):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def proportion(hits: int, total: int) -> Estimate:
    """A share in [0, 1] with its Wilson score interval; unknown (nan, 0, 1) if `total` is 0."""
    if not total:
        return Estimate(float("nan"), 0.0, 1.0)
    interval = stats.binomtest(int(hits), int(total)).proportion_ci(LEVEL, method="wilson")
    return Estimate(float(hits / total), float(interval.low), float(interval.high))


def ratio(hits: int, total: int, other_hits: int, other_total: int) -> Estimate:
    """Ratio of two independent shares with Katz's log-normal interval (Katz et al. 1978).

    If a count is 0, half a case is added to both groups (and one to both totals), so that the
    interval stays finite; the value then leans towards 1. Unknown (nan) if both counts are 0.
    """
    if not (hits or other_hits):
        return Estimate(float("nan"), 0.0, float("inf"))
    if not (hits and other_hits):
        hits, other_hits = hits + 0.5, other_hits + 0.5
        total, other_total = total + 1, other_total + 1
    value = (hits / total) / (other_hits / other_total)
    spread = np.sqrt(max(0.0, 1 / hits - 1 / total + 1 / other_hits - 1 / other_total))
    factor = np.exp(stats.norm.ppf((1 + LEVEL) / 2) * spread)
    return Estimate(float(value), float(value / factor), float(value * factor))


def confusion(p: Predictions) -> np.ndarray:
    """Counts int (10, 10), rows true classes and columns predicted ones."""
    return metrics.confusion_matrix(p.labels, p.predicted, labels=DIGITS)


def resampled(counts: np.ndarray, draws: int = DRAWS, seed: int = data.SEED) -> np.ndarray:
    """Bootstrap of a confusion matrix, (draws, 10, 10).

    To draw the images again with replacement is to draw the cells from a multinomial.
    """
    total = counts.sum()
    generator = np.random.default_rng(seed)
    cells = generator.multinomial(total, counts.ravel() / total, size=draws)
    return cells.reshape(draws, *counts.shape)


def class_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class from confusion matrices (…, 10, 10), each (…, 10).

    A class that is never predicted has precision 0, as in scikit-learn with ``zero_division=0``;
    recall of a class without samples is unknown (nan).
    """
    hits = counts.diagonal(axis1=-2, axis2=-1)
    support, predicted = counts.sum(-1), counts.sum(-2)
    with np.errstate(invalid="ignore"):
        recall = np.where(support > 0, hits / support, np.nan)
        precision = np.where(predicted > 0, hits / np.maximum(predicted, 1), 0.0)
        f1 = np.where(support + predicted > 0, 2 * hits / (support + predicted), np.nan)
    return {"precision": precision, "recall": recall, "f1": f1}


def percentiles(value: float, drawn: np.ndarray) -> Estimate:
    """A value with the percentile interval of its bootstrap `drawn`; (0, 1) if that is all nan."""
    if np.isnan(drawn).all():
        return Estimate(float(value), 0.0, 1.0)
    low, high = np.nanpercentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(float(value), float(low), float(high))


def summary(p: Predictions) -> dict[str, Estimate]:
    """Accuracy (Wilson) and macro precision, recall and F1 (percentile bootstrap)."""
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        p.labels, p.predicted, average="macro", zero_division=0
    )
    drawn = class_scores(resampled(confusion(p)))
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
    drawn = class_scores(resampled(counts))["f1"]
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


def mean_difference(before: np.ndarray, after: np.ndarray, draws: int = DRAWS) -> Estimate:
    """Mean of ``after - before`` over paired samples (N,), with its percentile bootstrap."""
    change = after - before
    generator = np.random.default_rng(data.SEED)
    drawn = [change[generator.integers(0, len(change), len(change))].mean() for _ in range(draws)]
    return percentiles(change.mean(), np.array(drawn))
