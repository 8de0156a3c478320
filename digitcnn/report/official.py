"""Chapter 2: the runs on the official division, beside published figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import predictions, runs, stats
from ..sources import TITLES
from .values import UNIT, Average, Points, Share, Text


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


def best(name: str) -> float:
    """The lowest error rate of `PUBLISHED` on a data set's official test set, from 0 to 1."""
    return min(1 - float(each.accuracy) / 100 for each in PUBLISHED[name])


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
