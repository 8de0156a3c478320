"""Difficulty without labels: how much of the gap between the data sets what is seen accounts for.

The attributes see neither the label nor the network and were fixed before (`attributes`); what they
account for is an association of groups of images, not what changing the images would bring.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from .. import predictions, runs, stats
from ..stats import Estimate
from . import attributes
from .evaluation import classes
from .origin_errors import errors
from .values import Average, Number, Ratio, Share


class Gap(NamedTuple):
    """The gap between the error rates of SVHN and MNIST on test, and what attributes account for.

    Rates are means over the trained main runs, in [0, 1], with intervals of the images (bootstrap).

    Attributes:
        mnist, svhn: error rates.
        standardised: SVHN's, were its images with each combination of attributes as frequent as
            MNIST's are: direct standardisation.
        accounted: share of the gap that this takes away.
        alike: share of the SVHN images that have a combination that at least one MNIST image has.
    """

    mnist: Estimate
    svhn: Estimate
    standardised: Estimate
    accounted: Average
    alike: Share


def gap(chosen: tuple[str, ...] = tuple(attributes.ATTRIBUTES)) -> Gap:
    """How much of the gap the `chosen` attributes account for, on the test splits."""
    weights = 1 << np.arange(len(chosen))
    strata = {n: attributes.of_images(n)[list(chosen)].to_numpy() @ weights for n in runs.DATA}
    wrong = {n: errors(n) for n in runs.DATA}
    cells = 1 << len(chosen)

    def rates(counts: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """From counts (…, cells, runs + 1) by how many runs misread an image."""
        sizes = {n: each.sum(-1) for n, each in counts.items()}
        missed = {
            n: (each * np.linspace(0, 1, each.shape[-1])).sum(-1) for n, each in counts.items()
        }
        share = np.where(sizes["svhn"] > 0, sizes["mnist"], 0)
        by_cell = missed["svhn"] / np.maximum(sizes["svhn"], 1)
        standardised = (share * by_cell).sum(-1) / share.sum(-1)
        plain = [missed[n].sum(-1) / sizes[n].sum(-1) for n in ("mnist", "svhn")]
        between = np.where(plain[1] != plain[0], plain[1] - plain[0], np.nan)
        return *plain, standardised, (plain[1] - standardised) / between

    def counted(name: str, found: list[np.ndarray]) -> np.ndarray:
        each = len(found) + 1
        codes = strata[name] * each + np.sum(found, axis=0, dtype=int)
        return np.bincount(codes, minlength=cells * each).reshape(cells, each)

    counts = {n: counted(n, list(wrong[n].values())) for n in runs.DATA}
    drawn = rates({n: stats.resampled(each) for n, each in counts.items()})
    values = [stats.percentiles(v, d) for v, d in zip(rates(counts), drawn, strict=True)]
    present = {n: np.bincount(strata[n], minlength=cells) > 0 for n in runs.DATA}
    return Gap(
        *values[:3],
        Average(values[3]),
        Share(present["mnist"][strata["svhn"]].sum(), len(strata["svhn"])),
    )


class Correlation(NamedTuple):
    """A correlation from -1 to 1, and the p value of "there is none"."""

    value: Number
    p: Number


def by_size(name: str) -> Correlation:
    """Whether rarer classes are read worse: over the ten, the number of training images and F1 on
    test of the first main run (Spearman's rank correlation)."""
    f1, counts = classes(name).f1, runs.split_sizes(name)["train"]["class_counts"]
    found = scipy.stats.spearmanr(counts, [f1[digit].value for digit in sorted(f1)])
    return Correlation(Number(found.statistic), Number(found.pvalue))


def table() -> pd.DataFrame:
    """How frequent each attribute is in both test splits, and among SVHN's errors, as shown."""
    found = {name: associations(name) for name in runs.DATA}
    rows = [
        {
            "property": attribute,
            "in MNIST": Average(found["mnist"].loc[attribute, "among_all"]),
            "in SVHN": Average(row["among_all"]),
            "in SVHN's errors": Average(row["among_errors"]),
            "in what it reads correctly": Average(row["among_correct"]),
            "ratio": Ratio(row["ratio"]).at(1),
        }
        for attribute, row in found["svhn"].iterrows()
    ]
    return pd.DataFrame(rows, dtype=object)


def associations(name: str, split: str = "test") -> pd.DataFrame:
    """`attributes.table` of the errors of a data set's first main run on its own split."""
    wrong = predictions.predict(runs.MAIN[name].id, name, split).wrong
    return attributes.table(attributes.of_images(name, split), wrong)
