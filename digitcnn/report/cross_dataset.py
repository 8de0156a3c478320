"""Transfer: each model on the other data set, and what accounts for the gap.

A control changes the test images (`digitcnn.report.controls`) or the training (`runs.TRANSFER`).
Judged by macro recall, of which whoever gives one answer to all has 10 %.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import predictions, runs, stats
from ..predictions import Answers, answered
from ..sources import NAMES, TITLES
from . import controls
from .evaluation import confusion
from .representation import OTHER
from .values import Average, Count, Points, Share, Spread

MEASURES = ("accuracy", "precision", "recall")


# The other data set -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crossed:
    """A data set's models on a test split.

    Attributes:
        accuracy, precision, recall: of all trainings, the latter two macro averages.
        answered: how often the first training (seed 42) answers each class, int (10,).
        counts: its confusion matrix, rows true classes.
        certainty: median of the largest probability of its answers.
        majority: share of the split's most frequent class, which always answering it would reach.
    """

    accuracy: Spread
    precision: Spread
    recall: Spread
    counts: np.ndarray
    certainty: Share
    majority: Share

    @property
    def answered(self) -> np.ndarray:
        """How often each class is answered, int (10,)."""
        return self.counts.sum(0)

    def answers(self, *digits: int) -> Share:
        """The share of all answers that are one of some digits."""
        return Share(self.answered[list(digits)].sum(), self.counts.sum())

    def taken(self, true: int, answer: int) -> Share:
        """The share of a class that is read as another, or as itself."""
        return Share(self.counts[true, answer], self.counts[true].sum())

    def precision_of(self, digit: int) -> Share:
        """Of the answers of a digit, those that are right."""
        return Share(self.counts[digit, digit], self.answered[digit])

    @property
    def seldom(self) -> Count:
        """How many classes are answered for fewer than one image in a hundred."""
        return Count((self.answered < 0.01 * self.counts.sum()).sum())


def scores(found: Answers) -> dict[str, float]:
    """Accuracy and macro averages of answers, see `stats.macro`."""
    return stats.macro(found.labels, found.predicted)


def crossed(model: str, name: str) -> Crossed:
    """What a data set's models make of the test split of `name`."""
    every = [scores(answered(run, name)) for run in runs.trainings(model)]
    first = predictions.predict(model, name)
    counts = confusion(first)
    certain = float(np.median(first.probabilities.max(1)))
    return Crossed(
        *(Spread(score[measure] for score in every) for measure in MEASURES),
        counts, Average((certain, certain, certain)), Share(counts.sum(1).max(), counts.sum()),
    )  # fmt: skip


def table() -> pd.DataFrame:
    """Accuracy, macro precision and macro recall of both models on both test splits, as shown."""
    rows = []
    for model, name in itertools.product(NAMES, NAMES):
        found = crossed(model, name)
        about = {"model": TITLES[model], "test images": TITLES[name]}
        rows.append(about | {measure: getattr(found, measure) for measure in MEASURES})
    names = {"precision": "macro precision", "recall": "macro recall"}
    return pd.DataFrame(rows, dtype=object).rename(columns=names)


# Changed training: what MNIST lacks of photographs, given to it in training -----------------------


@dataclass(frozen=True)
class Trained:
    """A setting of `runs.TRANSFER` on the test splits, a value a seed.

    Attributes:
        own: accuracy on MNIST.
        accuracy, recall: on SVHN, the latter as macro average.
        gain: of the recall on SVHN over ``plain``, paired by seed (Student's t); nan for itself.
        beyond: whether that is beyond chance, after Holm's correction.
    """

    own: Spread
    accuracy: Spread
    recall: Spread
    gain: Points
    beyond: bool


def trained() -> dict[str, Trained]:
    """Every setting of `runs.TRANSFER`."""
    found = {
        (setting, name): [
            scores(answered(run, name))
            for run in runs.registry().values()
            if run.name == runs.transfer(setting).name
        ]
        for setting in runs.TRANSFER
        for name in NAMES
    }

    def values(setting: str, name: str, measure: str) -> Spread:
        return Spread(score[measure] for score in found[setting, name])

    plain = values("plain", "svhn", "recall").values
    gains = {
        setting: stats.difference(values(setting, "svhn", "recall").values, plain, paired=True)
        for setting in runs.TRANSFER
    }
    others = [setting for setting in runs.TRANSFER if setting != "plain"]
    beyond = dict(zip(others, stats.beyond_chance([gains[s].p for s in others]), strict=True))
    return {
        setting: Trained(
            values(setting, "mnist", "accuracy"), values(setting, "svhn", "accuracy"),
            values(setting, "svhn", "recall"), Points(gains[setting]),
            bool(beyond.get(setting, False)),
        )
        for setting in runs.TRANSFER
    }  # fmt: skip


def trained_table() -> pd.DataFrame:
    """`trained` as shown."""
    rows = [
        {
            "trained on MNIST": setting,
            "accuracy on MNIST": found.own,
            "accuracy on SVHN": found.accuracy,
            "macro recall on SVHN": found.recall,
            "change of recall": found.gain.signed_full if setting != "plain" else "",
            "beyond chance": ("yes" if found.beyond else "no") if setting != "plain" else "",
        }
        for setting, found in trained().items()
    ]
    return pd.DataFrame(rows, dtype=object)


# The gap ------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """What closes a share of a gap, with its 95 % interval and the share of each seed."""

    name: str
    share: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Gap:
    """What a model lacks on the other data set against the model that learned it, and why.

    Attributes:
        size: difference of their macro recall, of the trainings with seed 42.
        parts: changed pictures (the best control, the best two), then changed training.
        closed: the largest share that one of these closes, `left` the rest, both from 0 to 1.
    """

    size: Points
    parts: list[Part]

    @property
    def closed(self) -> Average:
        """Clipped at nothing."""
        best = max(self.parts, key=lambda part: part.share)
        return Average(max(value, 0.0) for value in best[1:4])

    @property
    def left(self) -> Average:
        """What no part accounts for."""
        closed = self.closed
        return Average((1 - closed, 1 - closed.high, 1 - closed.low))


def gap(model: str) -> Gap:
    """The gap of a data set's models on the other data set."""
    other = OTHER[model]
    ours, theirs = crossed(model, other), crossed(other, other)
    size = theirs.recall.values[0] - ours.recall.values[0]
    effects = controls.effects(model, other)
    parts = []
    for changes in (effects.best(1), effects.best(2)):
        gain = effects.gain(*changes)
        shares = (gain / size, gain.low / size, gain.high / size)
        parts.append(Part(f"pictures: {', '.join(changes)}", *shares))
    if model == "mnist":
        settings = trained()
        plain = settings["plain"].recall
        whole = theirs.recall - plain
        for setting, found in settings.items():
            if setting == "plain":
                continue
            shares = (found.gain / whole, found.gain.low / whole, found.gain.high / whole)
            pairs = zip(found.recall.values, plain.values, strict=True)
            seeds = tuple((a - b) / whole for a, b in pairs)
            parts.append(Part(f"training: {setting}", *shares, seeds))
    return Gap(Points((size, np.nan, np.nan)), parts)
