"""Errors by origin: official set, photograph, writer, and validation against test.

Of every trained main run, by its id; where runs of several seeds are averaged, the share of the
runs that misread an image counts as that image's error. The runs share one division of the images,
so an interval says how other *images* of this kind would fare, and the spread over runs how another
*training*; three runs are not three draws of the division.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import division, predictions, runs, stats
from ..stats import Difference, Estimate, Spread
from . import attributes, origins


class Group(NamedTuple):
    """Some images, and how many of them a run misreads (shares with Wilson's interval)."""

    images: int
    errors: int
    error_rate: Estimate
    accuracy: Estimate


class Contrast(NamedTuple):
    """Two groups of images: errors of each, ratio of the rates (first to second), Fisher's p."""

    first: Group
    second: Group
    ratio: Estimate
    p_value: float


class Effect(NamedTuple):
    """A stratified difference of error rates: of the mean over the runs, and of each run."""

    mean: Difference
    each: dict[str, Difference]


def errors(name: str, split: str = "test") -> dict[str, np.ndarray]:
    """Which images of a split each main run misreads, bool (N,) by the run's id."""
    return {run: predictions.predict(run, name, split).wrong for run in runs.trainings(name)}


def group(wrong: np.ndarray) -> Group:
    """The `Group` of images of which `wrong` (N,) says whether they are misread."""
    total, missed = len(wrong), int(wrong.sum())
    rates = stats.proportion(missed, total), stats.proportion(total - missed, total)
    return Group(total, missed, *rates)


def contrast(wrong: np.ndarray, other: np.ndarray) -> Contrast:
    """The `Contrast` of two groups of images."""
    counts = int(wrong.sum()), len(wrong), int(other.sum()), len(other)
    return Contrast(group(wrong), group(other), stats.ratio(*counts), stats.fisher(*counts))


def effect(
    found: dict[str, np.ndarray], exposed: np.ndarray, strata: np.ndarray, clusters: np.ndarray
) -> Effect:
    """`stats.stratified` of errors by run: those not exposed less those exposed."""
    mean = np.mean(list(found.values()), axis=0)
    each = {run: stats.stratified(w, exposed, strata, clusters) for run, w in found.items()}
    return Effect(stats.stratified(mean, exposed, strata, clusters), each)


def _strata(frame: pd.DataFrame) -> np.ndarray:
    """A number for each combination of the columns, (N,)."""
    return frame.groupby(list(frame.columns)).ngroup().to_numpy()


# Official sets


class ByOrigin(NamedTuple):
    """Errors on images of the official test set (first) and the official training set (second).

    Attributes:
        each: by run.
        official_test, official_train: accuracies over the runs.
        effect: error rate of the official training images less that of the test images.
        adjusted: the same among images alike in the `attributes.ATTRIBUTES`.
        composition: a row an attribute: its share in both, Fisher's p as ``p`` and Holm's as
            ``corrected``.
    """

    each: dict[str, Contrast]
    official_test: Spread
    official_train: Spread
    effect: Effect
    adjusted: Effect
    composition: pd.DataFrame


def by_origin(name: str, split: str = "test") -> ByOrigin:
    """Errors of the main runs on a held-out split of the pool, by the official set."""
    at, found = division.split_indices(name)[split], errors(name, split)
    official, clusters = division.labels(name).official_test[at], origins.groups(name)[at]
    each = {run: contrast(wrong[official], wrong[~official]) for run, wrong in found.items()}
    has = attributes.of_images(name, split)
    return ByOrigin(
        each,
        stats.spread(one.first.accuracy.value for one in each.values()),
        stats.spread(one.second.accuracy.value for one in each.values()),
        effect(found, official, np.zeros(len(at)), clusters),
        effect(found, official, _strata(has), clusters),
        compared(has[official], has[~official], ("official_test", "official_train")),
    )


def compared(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """A row for each column of two bool frames: the share in each (`Estimate`), ``p``,
    ``corrected`` (`stats.holm` over the rows)."""
    rows = {}
    for column in first:
        counts = [(int(frame[column].sum()), len(frame)) for frame in (first, second)]
        shares = [stats.proportion(*count) for count in counts]
        rows[column] = dict(zip(names, shares, strict=True)) | {
            "p": stats.fisher(*counts[0], *counts[1])
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.assign(corrected=stats.holm(frame["p"]))


# Photographs and writers


class Siblings(NamedTuple):
    """Held-out SVHN crops and the crops of the same photograph that were learned from.

    Attributes:
        photographs: see `origins.Photographs`.
        share: of the crops with at least one such crop in training.
        adjoining: of the crops of which one in training adjoins them, so that pixels are shared.
        each: errors by run of those without (first) and with one (second), not stratified.
        effect: error rate without less that with one, among photographs of one size and official
            set. Which crop of a photograph fell into training was drawn at random, so within a
            stratum this is an experiment; below 0 nothing was gained by the sibling.
    """

    photographs: origins.Photographs
    share: Estimate
    adjoining: Estimate
    each: dict[str, Contrast]
    effect: Effect


def siblings(split: str = "test", threshold: float | None = None) -> Siblings:
    """Do crops of a photograph in training make its other crops easier? For a given threshold of
    `origins.photographs`, or the chosen one."""
    found, at = origins.photographs(threshold), division.split_indices("svhn")[split]
    known = origins.learned_from("svhn", group=found.number)[at] > 0
    training = np.zeros(
        len(found.number) + 2, bool
    )  # with a place before the first, after the last
    training[division.split_indices("svhn")["train"] + 1] = True
    number = np.concatenate([[-1], found.number, [-1]])
    adjoins = [training[at + step] & (number[at + step] == number[at + 1]) for step in (0, 2)]
    wrong = errors("svhn", split)
    strata = 2 * found.size[at] + division.labels("svhn").official_test[at]
    return Siblings(
        found,
        stats.proportion(known.sum(), len(at)),
        stats.proportion((adjoins[0] | adjoins[1]).sum(), len(at)),
        {run: contrast(each[~known], each[known]) for run, each in wrong.items()},
        effect(wrong, known, strata, found.number[at]),
    )


class Writers(NamedTuple):
    """Held-out MNIST digits and the digits of the same hand that were learned from.

    Attributes:
        known: share of the digits whose writer has others in training.
        median, least: number of these.
        disjoint: whether no writer is in both official sets.
        by_count, by_series: a row a group: ``images``, ``writers``, ``error_rate`` (mean over the
            runs, `Estimate`, by writer) and ``each`` run's errors. By quarter of the number of
            training digits (``from``, ``to``); by ``students`` or not.
        effect: error rate of digits with at most the median number less that of those with more,
            among writers of one series. No experiment: a writer gave many digits or few.
    """

    known: Estimate
    median: int
    least: int
    disjoint: bool
    by_count: pd.DataFrame
    by_series: pd.DataFrame
    effect: Effect


def writers(split: str = "test") -> Writers:
    """Are digits easier of whose writer more was learned from?"""
    at, official_test = (
        division.split_indices("mnist")[split],
        division.labels("mnist").official_test,
    )
    kept = origins.writers()
    writer, students = kept["writer"][at], kept["series"][at] == origins.STUDENTS
    number, wrong = origins.learned_from("mnist")[at], errors("mnist", split)
    both = np.intersect1d(kept["writer"][official_test], kept["writer"][~official_test])

    def row(chosen: np.ndarray, **about: object) -> dict:
        mean = np.mean(list(wrong.values()), axis=0)[chosen]
        return about | {
            "images": int(chosen.sum()),
            "writers": len(np.unique(writer[chosen])),
            "error_rate": stats.clustered(mean, writer[chosen]),
            "each": {run: int(each[chosen].sum()) for run, each in wrong.items()},
        }

    quarter = np.searchsorted(np.quantile(number, (0.25, 0.5, 0.75)), number)
    counts = [
        row(quarter == q, **{"from": int(number[quarter == q].min()),
                             "to": int(number[quarter == q].max())})
        for q in np.unique(quarter)
    ]  # fmt: skip
    series = [row(students == kind, students=kind) for kind in (False, True)]
    return Writers(
        stats.proportion((number > 0).sum(), len(at)),
        int(np.median(number)),
        int(number.min()),
        not len(both),
        pd.DataFrame(counts),
        pd.DataFrame(series),
        effect(wrong, number > np.median(number), students, writer),
    )


# Validation against test


class Splits(NamedTuple):
    """Validation against test.

    The division was drawn at random, so that what differs between its parts beyond training,
    choosing and kinship is a draw; this says how large a draw, and whether it shows in what is
    known of the images.

    Attributes:
        each: errors by run on validation (first) and test (second).
        together: errors by run on both.
        corrected: Fisher's p of the first run's contrast, corrected for both data sets (Holm).
        effect: error rate of the test split less that of the validation split, over the runs.
        adjusted: the same among images alike in all that `origins.composition` knows.
        composition: a row a property: its share in ``validation`` and ``test``, ``p``,
            ``corrected``.
        common: share of the errors of a run that every other run makes too, mean over the runs
            (nan of a single run): how far the runs tell of the same images.
    """

    each: dict[str, Contrast]
    together: dict[str, Group]
    corrected: float
    effect: Effect
    adjusted: Effect
    composition: pd.DataFrame
    common: float


def splits() -> dict[str, Splits]:
    """Validation against test of both data sets."""
    wrong = {n: {s: errors(n, s) for s in ("validation", "test")} for n in runs.DATA}
    each = {
        n: {run: contrast(both["validation"][run], both["test"][run]) for run in both["test"]}
        for n, both in wrong.items()
    }
    corrected = stats.holm(found[runs.MAIN[n].id].p_value for n, found in each.items())
    return {
        n: _splits(n, wrong[n], each[n], float(p)) for n, p in zip(each, corrected, strict=True)
    }


def _splits(
    name: str, wrong: dict[str, dict], each: dict[str, Contrast], corrected: float
) -> Splits:
    parts = division.split_indices(name)
    held_out = np.concatenate([parts["validation"], parts["test"]])
    validation = np.repeat([True, False], [len(parts["validation"]), len(parts["test"])])
    both = {run: np.concatenate([wrong[s][run] for s in ("validation", "test")]) for run in each}
    known = {s: origins.composition(name, s) for s in ("validation", "test")}
    clusters = origins.groups(name)[held_out]
    every = np.array(list(both.values()))
    common = every.all(0).sum() / every.sum(1)
    return Splits(
        each,
        {run: group(found) for run, found in both.items()},
        corrected,
        effect(both, validation, np.zeros(len(held_out)), clusters),
        effect(both, validation, _strata(pd.concat(known.values())), clusters),
        compared(known["validation"], known["test"], ("validation", "test")),
        float(common.mean()) if len(every) > 1 else float("nan"),
    )
