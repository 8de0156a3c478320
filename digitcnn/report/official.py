"""Chapter 2: what the accuracy on the pooled split is worth: another draw, the official division.

Values to print of what `digitcnn.report.origin_errors` computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import predictions, runs, stats
from ..sources import TITLES
from . import origin_errors
from .values import UNIT, Average, Count, Number, Points, Share, Spread, Text


@dataclass(frozen=True)
class Draw:
    """Validation against test.

    Attributes:
        validation, test: error rates of the first training.
        p: Fisher's of these, corrected for both data sets (Holm).
        difference: error rate of test less that of validation, mean over the trainings;
            `adjusted`: the same among images alike in all that is known of them.
    """

    validation: Share
    test: Share
    p: Number
    difference: Points
    adjusted: Points


def draw(name: str) -> Draw:
    """Whether a data set's validation and test split differ by more than chance."""
    found = origin_errors.splits()[name]
    parts = [Share(part.errors, part.images) for part in found.each[name][:2]]
    effects = (Points(effect.mean) for effect in (found.effect, found.adjusted))
    return Draw(*parts, Number(found.corrected, 3), *effects)


@dataclass(frozen=True)
class Origin:
    """The pooled test split by official set.

    Attributes:
        official_test, official_train: accuracy over the trainings on the images of either.
        gap: error rate on the official training images less that on the official test images;
            `adjusted`: the same among images alike in the properties of `attributes`.
    """

    official_test: Spread
    official_train: Spread
    gap: Points
    adjusted: Points


def origin(name: str) -> Origin:
    """How well a data set's networks read test images of either official set."""
    found = origin_errors.by_origin(name)
    parts = zip(*((each.first, each.second) for each in found.each.values()), strict=True)
    spreads = [Spread(group.accuracy.value for group in part) for part in parts]
    return Origin(*spreads, Points(found.effect.mean), Points(found.adjusted.mean))


@dataclass(frozen=True)
class Kin:
    """Test images and their like in training.

    Attributes:
        photographs: share of SVHN's with a crop of the same photograph in training; `gain`: error
            rate of those without less that of those with one, among photographs of one size and
            official set.
        writers: share of MNIST's whose writer wrote training images too, `median` of them;
            `hand_gain`: error rate of those of whose writer at most so many were learned from, less
            that of the others, among writers of one series.
    """

    photographs: Average
    gain: Points
    writers: Average
    median: Count
    hand_gain: Points


def kin() -> Kin:
    """How many test images have kin in training, and whether these are read better."""
    crops, hands = origin_errors.siblings(), origin_errors.writers()
    return Kin(
        Average(crops.share), Points(crops.effect.mean),
        Average(hands.known), Count(hands.median), Points(hands.effect.mean),
    )  # fmt: skip


class Published(NamedTuple):
    """An accuracy in the literature on an official test set.

    Attributes:
        accuracy: in per cent, as printed there.
        what: the network and how it was trained.
        extra: whether it learned from SVHN's ``extra`` images too.
        source: its key in ``references.bib``.
    """

    accuracy: str
    what: str
    extra: bool
    source: str


# Read in the sources; the code of an2020 picks its checkpoint on the test set.
PUBLISHED = {
    "mnist": (
        Published("99.87", "majority of three simple CNNs", False, "an2020"),
        Published("99.91", "ensemble of ensembles of simple CNNs", False, "an2020"),
    ),
    "svhn": (
        Published("96.03", "simple CNN", False, "pytorchplayground"),
        Published("98.7", "Wide ResNet 16-8 with cutout", True, "devries2017"),
        Published("98.9", "Wide ResNet 28-10 with AutoAugment", True, "cubuk2018"),
    ),
}


@dataclass(frozen=True)
class Official:
    """The run on the official division (seed 42).

    Attributes:
        validation, test: accuracies; validation is a tenth of the official training set.
        precision, recall: macro averages on test.
        gain: accuracy of this run less that of the main run, on the official test images that
            neither has learned from, with McNemar's p.
    """

    validation: Share
    test: Share
    precision: Average
    recall: Average
    gain: Points


def official(name: str) -> Official:
    """The recipe on a data set's official division, beside the main run."""
    own = {s: predictions.predict(f"{name}-official", name, s) for s in ("validation", "test")}
    main, test = predictions.predict(runs.MAIN[name].id, name, "test"), own["test"]
    _, mine, theirs = np.intersect1d(test.indices, main.indices, return_indices=True)
    compared = stats.mcnemar(main.wrong[theirs], test.wrong[mine])
    scores = stats.macro(test.labels, test.predicted)
    return Official(
        *(Share((~p.wrong).sum(), len(p.wrong)) for p in own.values()),
        *(Average((scores[key], math.nan, math.nan)) for key in ("precision", "recall")),
        Points((*compared.difference, compared.p_value)),
    )


def table() -> pd.DataFrame:
    """Accuracy on the official test sets, this report's and published ones, as shown."""
    rows = []
    for name, title in TITLES.items():
        rows.append((title, "this report, seed 42", "no", official(name).test.full))
        rows += [
            ("", f"{p.what} [@{p.source}]", "yes" if p.extra else "no", f"{p.accuracy}{UNIT}%")
            for p in PUBLISHED[name]
        ]
    columns = ["data set", "network", "learned from `extra`", "accuracy"]
    return pd.DataFrame([(*row[:3], Text(row[3])) for row in rows], columns=columns)
