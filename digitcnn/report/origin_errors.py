"""Errors by origin: validation against test, official set, photograph, writer.

Of every trained main run; the share of the runs that misread an image counts as that image's error.
The runs share one division of the images, so an interval says how other *images* of this kind would
fare, and the spread over runs how another *training*; three runs are not three draws of the
division.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import division, predictions, runs, stats
from . import attributes, origins
from .values import Count, Number, Points, Share, Spread, Text, listed


def errors(name: str, split: str = "test") -> dict[str, np.ndarray]:
    """Which images of a split each main run misreads, bool (N,) by the run's id."""
    return {run: predictions.predict(run, name, split).wrong for run in runs.trainings(name)}


def effect(
    wrong: dict[str, np.ndarray], exposed: np.ndarray, strata: np.ndarray, clusters: np.ndarray
) -> Points:
    """`stats.stratified` of the runs' mean error: error rate of those not exposed less that of
    those exposed."""
    mean = np.mean(list(wrong.values()), axis=0)
    return Points(stats.stratified(mean, exposed, strata, clusters))


def alike(frame: pd.DataFrame) -> np.ndarray:
    """A number for each combination of the columns, (N,)."""
    return frame.groupby(list(frame.columns)).ngroup().to_numpy()


@dataclass(frozen=True)
class Draw:
    """Validation against test.

    The division was drawn at random, so that what differs between its parts beyond training and
    choosing is a draw; this says how large a one.

    Attributes:
        validation, test: error rates of the first training.
        p: Fisher's of these, corrected for both data sets (Holm); `other_ps`: those of the other
            trainings.
        difference: error rate of test less that of validation, mean over the trainings;
            `adjusted`: the same among images alike in all that `origins.composition` knows.
    """

    validation: Share
    test: Share
    p: Number
    other_ps: tuple[Number, ...]
    difference: Points
    adjusted: Points

    @property
    def others(self) -> Text:
        """The other trainings' p values."""
        return listed(self.other_ps)


def draw(name: str) -> Draw:
    """Whether a data set's validation and test split differ by more than chance."""
    held_out, place = ("validation", "test"), runs.DATA.index(name)
    shares, ps = [], []
    for seed in zip(*map(runs.trainings, runs.DATA), strict=False):  # of both, as far as trained
        found = []
        for data, run in zip(runs.DATA, seed, strict=True):
            wrong = [predictions.predict(run, data, split).wrong for split in held_out]
            found.append([Share(part.sum(), len(part)) for part in wrong])
        p = stats.holm(stats.fisher(v.hits, v.total, t.hits, t.total) for v, t in found)
        shares.append(found[place])
        ps.append(Number(p[place], 3))
    parts, (one, other) = division.split_indices(name), (errors(name, s) for s in held_out)
    wrong = {run: np.concatenate([one[run], other[run]]) for run in one}
    validation = np.repeat([True, False], [len(parts[split]) for split in held_out])
    clusters = origins.groups(name)[np.concatenate([parts[split] for split in held_out])]
    known = pd.concat([origins.composition(name, split) for split in held_out])
    return Draw(
        *shares[0], ps[0], tuple(ps[1:]),
        effect(wrong, validation, np.zeros(len(validation)), clusters),
        effect(wrong, validation, alike(known), clusters),
    )  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """The pooled test split by official set.

    Attributes:
        official_test, official_train: accuracy over the trainings on the images of either.
        gap: error rate on the official training images less that on the official test images;
            `adjusted`: the same among images alike in `attributes.ATTRIBUTES`.
    """

    official_test: Spread
    official_train: Spread
    gap: Points
    adjusted: Points


def origin(name: str) -> Origin:
    """How well a data set's networks read test images of either official set."""
    at, wrong = division.split_indices(name)["test"], errors(name)
    official, clusters = division.labels(name).official_test[at], origins.groups(name)[at]
    return Origin(
        *(Spread((~w[part]).mean() for w in wrong.values()) for part in (official, ~official)),
        effect(wrong, official, np.zeros(len(at)), clusters),
        effect(wrong, official, alike(attributes.of_images(name, "test")), clusters),
    )


@dataclass(frozen=True)
class Kin:
    """Test images of which training holds kin: a crop of the same photograph, digits of one hand.

    Attributes:
        share: of the test images.
        median: number of the kin.
        gain: error rate of those with few or none less that of the others, within strata.
    """

    share: Share
    median: Count
    gain: Points


def siblings(threshold: float | None = None) -> Kin:
    """Do crops of a photograph in training make its other crops easier?

    Those with one in training against those without, among photographs of one size and official
    set. Which crop of a photograph fell into training was drawn at random, so within a stratum this
    is an experiment. For a given threshold of `origins.photographs`, or the chosen one.
    """
    found, at = origins.photographs(threshold), division.split_indices("svhn")["test"]
    number = origins.learned_from("svhn", group=found.number)[at]
    strata = 2 * found.size[at] + division.labels("svhn").official_test[at]
    return Kin(
        Share((number > 0).sum(), len(at)), Count(np.median(number)),
        effect(errors("svhn"), number > 0, strata, found.number[at]),
    )  # fmt: skip


def writers() -> Kin:
    """Are MNIST's digits easier of whose writer more was learned from?

    Those of more than the median number against the others, among writers of one series. No
    experiment: a writer gave many digits or few.
    """
    at, kept = division.split_indices("mnist")["test"], origins.writers()
    number, students = origins.learned_from("mnist")[at], kept["series"][at] == origins.STUDENTS
    known = number > np.median(number)
    return Kin(
        Share((number > 0).sum(), len(at)), Count(np.median(number)),
        effect(errors("mnist"), known, students, kept["writer"][at]),
    )  # fmt: skip
