"""Statistics: intervals, comparisons, and one rule for what is beyond chance.

Counts in, numbers out; knows nothing of networks. Where SciPy or scikit-learn has a method, it is
theirs. Of several comparisons that answer one question, none counts before `holm` has corrected it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn import metrics

LEVEL, CHANCE = 0.95, 0.05  # of intervals and of tests
DRAWS, SEED = 2000, 42  # of the bootstrap


class Estimate(NamedTuple):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Spread(NamedTuple):
    """Mean, standard deviation (n - 1 in its denominator; nan of a single value) and number."""

    mean: float
    std: float
    count: int  # type: ignore[assignment]  # a tuple's method, which nobody needs here


class Difference(NamedTuple):
    """A difference of means with its 95 % interval, and the p value of "there is none"."""

    value: float
    low: float
    high: float
    p: float


class Comparison(NamedTuple):
    """Two classifiers on the same images: errors mended and made, the change, McNemar's p."""

    mended: int
    made: int
    difference: Estimate
    p_value: float


# Shares


def proportion(hits: int, total: int) -> Estimate:
    """A share in [0, 1] with its Wilson score interval; unknown (nan, 0, 1) if `total` is 0."""
    if not total:
        return Estimate(float("nan"), 0.0, 1.0)
    interval = stats.binomtest(int(hits), int(total)).proportion_ci(LEVEL, method="wilson")
    return Estimate(float(hits / total), float(interval.low), float(interval.high))


def ratio(hits: float, total: float, other_hits: float, other_total: float) -> Estimate:
    """Ratio of two independent shares with Katz's log-normal interval (Katz et al. 1978).

    If a count is 0, half a case is added to both groups (and one to both totals), so that the
    interval stays finite; the value then leans towards 1. Unknown (nan) if both counts are 0.
    """
    if not (hits or other_hits):
        return Estimate(float("nan"), 0.0, float("inf"))
    if not (hits and other_hits):  # SciPy's relative_risk takes whole numbers only
        hits, other_hits = hits + 0.5, other_hits + 0.5
        total, other_total = total + 1, other_total + 1
    value = (hits / total) / (other_hits / other_total)
    spread = np.sqrt(max(0.0, 1 / hits - 1 / total + 1 / other_hits - 1 / other_total))
    factor = np.exp(stats.norm.ppf((1 + LEVEL) / 2) * spread)
    return Estimate(float(value), float(value / factor), float(value * factor))


def fisher(hits: int, total: int, other_hits: int, other_total: int) -> float:
    """p value of "two independent shares are equal" by Fisher's exact test."""
    table = [[hits, total - hits], [other_hits, other_total - other_hits]]
    return float(stats.fisher_exact(np.array(table, int)).pvalue)


# Samples that come in clusters: the crops of one photograph, the digits of one writer


def stratified(
    values: np.ndarray, exposed: np.ndarray, strata: np.ndarray, clusters: np.ndarray
) -> Difference:
    """Mean of the values that are not exposed less that of the exposed, within strata.

    The strata are weighted as by Mantel and Haenszel, ``n1 n0 / (n1 + n0)``, which is least squares
    with an intercept for each stratum. Interval and p from the variance between clusters (Liang and
    Zeger 1986). Unknown (nan, p 1) if no stratum holds both kinds.

    Args:
        values: (N,), errors for one.
        exposed: bool (N,).
        strata, clusters: of each sample, (N,), numbers or names.
    """
    _, strata = np.unique(strata, return_inverse=True)
    sizes = [np.bincount(strata, kind).astype(float) for kind in (~exposed, exposed)]
    sums = [np.bincount(strata, kind * values) for kind in (~exposed, exposed)]
    weights = sizes[0] * sizes[1] / (sizes[0] + sizes[1])
    if not weights.any():
        return Difference(np.nan, np.nan, np.nan, 1.0)
    free, with_it = (s / np.maximum(n, 1) for s, n in zip(sums, sizes, strict=True))
    value = float(weights @ (free - with_it) / weights.sum())
    means = np.where(exposed, with_it[strata], free[strata])
    size = np.where(exposed, sizes[1][strata], sizes[0][strata])
    influence = np.where(exposed, -1, 1) * weights[strata] / size * (values - means)
    error = np.sqrt(_between(influence, clusters)) / weights.sum()
    half = stats.norm.ppf((1 + LEVEL) / 2) * error
    p = 2 * stats.norm.sf(abs(value) / error) if error > 0 else 1.0
    return Difference(value, value - half, value + half, float(p))


def _between(deviations: np.ndarray, clusters: np.ndarray) -> float:
    """Variance of the sum of `deviations` (N,) of which those of one cluster go together."""
    _, of = np.unique(clusters, return_inverse=True)
    sums = np.bincount(of, deviations)
    return float((sums**2).sum() * len(sums) / max(len(sums) - 1, 1))


# Classifications


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int = 10) -> np.ndarray:
    """Counts int (classes, classes), rows true classes and columns predicted ones."""
    return metrics.confusion_matrix(labels, predicted, labels=np.arange(classes))


def resampled(counts: np.ndarray) -> np.ndarray:
    """Bootstrap of a confusion matrix, (`DRAWS`, 10, 10).

    To draw the images again with replacement is to draw the cells from a multinomial.
    """
    total = counts.sum()
    cells = np.random.default_rng(SEED).multinomial(total, counts.ravel() / total, size=DRAWS)
    return cells.reshape(DRAWS, *counts.shape)


def class_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class from confusion matrices (…, 10, 10), each (…, 10).

    A class that is never predicted has precision 0, as in scikit-learn with ``zero_division=0``;
    recall of a class without samples is unknown (nan). scikit-learn has no form for many matrices.
    """
    hits = counts.diagonal(axis1=-2, axis2=-1)
    support, predicted = counts.sum(-1), counts.sum(-2)
    with np.errstate(invalid="ignore"):
        recall = np.where(support > 0, hits / support, np.nan)
        precision = np.where(predicted > 0, hits / np.maximum(predicted, 1), 0.0)
        f1 = np.where(support + predicted > 0, 2 * hits / (support + predicted), np.nan)
    return {"precision": precision, "recall": recall, "f1": f1}


def macro(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """``accuracy`` and macro ``precision`` and ``recall`` over the classes among the labels."""
    scores = class_scores(confusion(labels, predicted))
    present = np.unique(labels)
    means = {name: float(scores[name][present].mean()) for name in ("precision", "recall")}
    return {"accuracy": float((labels == predicted).mean())} | means


def percentiles(value: float, drawn: np.ndarray) -> Estimate:
    """A value with the percentile interval of its bootstrap `drawn`; (0, 1) if that is all nan."""
    if np.isnan(drawn).all():
        return Estimate(float(value), 0.0, 1.0)
    low, high = np.nanpercentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(float(value), float(low), float(high))


def even(one: int, other: int) -> float:
    """Exact p value of two counts of things that are one or the other with equal probability."""
    return float(stats.binomtest(int(one), int(one + other)).pvalue) if one + other else 1.0


def mcnemar(before: np.ndarray, after: np.ndarray) -> Comparison:
    """Errors bool (N,) of two classifiers on the same images: exact test and paired bootstrap.

    McNemar (1947): if neither is better, an image that only one of them gets right favours
    either with probability 1/2, which is a binomial test. The difference is that in accuracy.
    """
    total, mended, made = len(before), int((before & ~after).sum()), int((after & ~before).sum())
    p_value = even(mended, made)
    shares = np.array([mended, made, total - mended - made]) / total
    drawn = np.random.default_rng(SEED).multinomial(total, shares, size=DRAWS)
    difference = percentiles((mended - made) / total, (drawn[:, 0] - drawn[:, 1]) / total)
    return Comparison(mended, made, difference, p_value)


# Seeds


def spread(values: Iterable[float]) -> Spread:
    """Mean and standard deviation over seeds."""
    found = np.asarray(list(values), float)
    std = found.std(ddof=1) if len(found) > 1 else float("nan")
    return Spread(float(found.mean()), float(std), len(found))


def prediction(values: Iterable[float]) -> Estimate:
    """Mean over seeds, and where the next training lies in 95 of 100 cases (Student's t); an
    interval without end of fewer than two."""
    found = spread(values)
    half = float("inf")
    if found.count > 1:
        half = stats.t.ppf((1 + LEVEL) / 2, found.count - 1) * found.std
        half *= (1 + 1 / found.count) ** 0.5
    return Estimate(found.mean, found.mean - half, found.mean + half)


def difference(values: Iterable[float], reference: Iterable[float], paired: bool) -> Difference:
    """Mean of `values` less that of a `reference`, with Student's t; Welch's if not `paired`.

    Where there is no spread to judge it by (a single seed, or seeds that all differ by the same,
    as small counts may), the p value is 1 and the interval unknown (nan).
    """
    a, b = (np.asarray(list(part), float) for part in (values, reference))
    value = float(a.mean() - b.mean())
    if (np.ptp(a - b) if paired else np.ptp(a) + np.ptp(b)) < 1e-12 or min(len(a), len(b)) < 2:
        return Difference(value, float("nan"), float("nan"), 1.0)
    test = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    return Difference(value, float(low), float(high), float(test.pvalue))


def holm(p_values: Iterable[float]) -> np.ndarray:
    """p values of one family, corrected so that the chance of any false alarm is kept (Holm 1979).

    The smallest is multiplied by their number, the next by one less, and so on; none becomes
    smaller than one before it, or larger than 1.
    """
    p = np.asarray(list(p_values), float)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected


def pooled_differences(
    values: dict[str, list[float]], reference: list[float]
) -> dict[str, Difference]:
    """Means of several settings less that of a `reference`, by name, with one spread for all.

    Student's t with the variance within the settings, pooled as in an analysis of variance; the p
    values are corrected by `holm`. Without any spread they are 1 and the intervals nan.
    """
    base, parts = np.asarray(reference, float), {k: np.asarray(v, float) for k, v in values.items()}
    every = [base, *parts.values()]
    freedom = max(sum(len(part) - 1 for part in every), 1)
    variance = sum(((part - part.mean()) ** 2).sum() for part in every) / freedom
    found = {}
    for name, part in parts.items():
        value = float(part.mean() - base.mean())
        error = float(np.sqrt(variance * (1 / len(part) + 1 / len(base)))) or float("nan")
        half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
        p = float(2 * stats.t.sf(abs(value) / error, freedom))
        found[name] = Difference(value, value - half, value + half, 1.0 if np.isnan(p) else p)
    corrected = holm(one.p for one in found.values()).tolist()
    return {
        name: one._replace(p=p) for (name, one), p in zip(found.items(), corrected, strict=True)
    }


def beyond_chance(p_values: Iterable[float]) -> np.ndarray:
    """Which differences of one family are beyond chance: 5 % after Holm's correction, bool (n,)."""
    return holm(p_values) < CHANCE
