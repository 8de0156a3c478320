"""Transfer: each model on the other data set, and what accounts for the gap.

A control changes the test images (`digitcnn.report.controls`) or the training (`runs.TRANSFER`).
Judged by macro recall, which is 10 % for a classifier that gives one answer to all.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import predictions, runs, stats, store
from ..predictions import Answers, answered
from ..sources import NAMES, TITLES
from . import controls, evaluation
from .representation import OTHER
from .values import UNIT, Average, Count, Number, Points, Share, Spread, Text, listed

MEASURES = ("accuracy", "precision", "recall", "ones")


# The other data set -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crossed:
    """A data set's models on a test split.

    Attributes:
        accuracy, precision, recall, ones: of all trainings, the second and third macro averages,
            the last the share of images that are answered '1'.
        counts: confusion matrix of the first training (seed 42), rows true classes.
        majority: share of the split's most frequent class, which always answering it would reach.
    """

    accuracy: Spread
    precision: Spread
    recall: Spread
    ones: Spread
    counts: np.ndarray
    majority: Share

    def answered(self, digit: int) -> Share:
        """The share of all images to which the first training answers a digit."""
        return Share(self.counts[:, digit].sum(), self.counts.sum())

    def precision_of(self, digit: int) -> Share:
        """Of the answers of a digit, those that are right."""
        return Share(self.counts[digit, digit], self.counts[:, digit].sum())

    @property
    def each_one(self) -> Text:
        """The share of images that each training answers '1', ``92, 66 and 97 %``."""
        return Text(f"{listed(f'{100 * share:.0f}' for share in self.ones.values)}{UNIT}%")

    @property
    def seldom(self) -> Count:
        """How many classes are answered for fewer than one image in a hundred."""
        return Count((self.counts.sum(0) < 0.01 * self.counts.sum()).sum())


def scores(found: Answers) -> dict[str, float]:
    """Accuracy and macro averages of answers, see `stats.macro`, and the share of answers '1'."""
    ones = float((found.predicted == 1).mean())
    return stats.macro(found.labels, found.predicted) | {"ones": ones}


def crossed(model: str, name: str) -> Crossed:
    """What a data set's models make of the test split of `name`."""
    every = [scores(answered(run, name)) for run in runs.trainings(model)]
    counts = evaluation.confusion(predictions.predict(model, name))
    return Crossed(
        *(Spread(score[measure] for score in every) for measure in MEASURES),
        counts, Share(counts.sum(1).max(), counts.sum()),
    )  # fmt: skip


def at_home(model: str) -> Crossed:
    """A data set's models on their own test split."""
    return crossed(model, model)


def abroad(model: str) -> Crossed:
    """A data set's models on the other test split."""
    return crossed(model, OTHER[model])


def table() -> pd.DataFrame:
    """`MEASURES` of both models on both test splits, as shown."""
    rows = []
    for model, name in itertools.product(NAMES, NAMES):
        found = crossed(model, name)
        about = {"model": TITLES[model], "test images": TITLES[name]}
        rows.append(about | {measure: getattr(found, measure) for measure in MEASURES})
    names = {"precision": "macro precision", "recall": "macro recall", "ones": "answered '1'"}
    return pd.DataFrame(rows, dtype=object).rename(columns=names)


@store.stored(
    lambda model: f"representation/confused-{model}",
    lambda model: [store.weights(model), store.images(OTHER[model])],
)
def confused_pictures(model: str) -> dict[str, np.ndarray]:
    """Random images of the other test split that are its four most frequent confusions, ten each:
    ``at`` int64 (4, 10), and ``images`` uint8 (4, 10, 3, 32, 32); fewer where there are fewer."""
    from .. import data

    p = predictions.predict(model, OTHER[model])
    at = [
        evaluation.examples((p.labels == true) & (p.predicted == answer), 10)
        for true, answer, _ in evaluation.most_confused(p, 4)
    ]
    kept = np.array([row[: min(map(len, at))] for row in at])
    images = data.load(OTHER[model], "test").images.numpy()
    return {"at": kept, "images": images[kept]}


def confused(model: str) -> list[evaluation.Shown]:
    """The four most frequent confusions of a model on the other data set, a row each."""
    p, kept = predictions.predict(model, OTHER[model]), confused_pictures(model)
    pairs = evaluation.most_confused(p, len(kept["at"]))
    return [
        evaluation.Shown(f"{true} → {answer}\n{count} images", images, [""] * len(at), at)
        for (true, answer, count), at, images in zip(pairs, kept["at"], kept["images"], strict=True)
    ]


# Changed training: what MNIST lacks of photographs, given to it in training -----------------------


@dataclass(frozen=True)
class Trained:
    """A setting of `runs.TRANSFER` on the test splits, a value a seed.

    Attributes:
        own: accuracy on MNIST.
        accuracy, recall: on SVHN, the latter as macro average.
        ones: share of SVHN's images that are answered '1'.
        gain: of the recall on SVHN over ``plain``, paired by seed (Student's t); nan for itself.
        own_gain: of the accuracy on MNIST, likewise.
        beyond: whether the gain is beyond chance, after Holm's correction.
    """

    own: Spread
    accuracy: Spread
    recall: Spread
    ones: Spread
    gain: Points
    own_gain: Points
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

    def gained(setting: str, name: str, measure: str) -> stats.Difference:
        own, plain = (values(each, name, measure).values for each in (setting, "plain"))
        return stats.difference(own, plain, paired=True)

    gains = {setting: gained(setting, "svhn", "recall") for setting in runs.TRANSFER}
    others = [setting for setting in runs.TRANSFER if setting != "plain"]
    beyond = dict(zip(others, stats.beyond_chance([gains[s].p for s in others]), strict=True))
    return {
        setting: Trained(
            values(setting, "mnist", "accuracy"), values(setting, "svhn", "accuracy"),
            values(setting, "svhn", "recall"), values(setting, "svhn", "ones"),
            Points(gains[setting]),
            Points(gained(setting, "mnist", "accuracy")), bool(beyond.get(setting, False)),
        )
        for setting in runs.TRANSFER
    }  # fmt: skip


def best_alone() -> str:
    """The setting of a single property that adds most to the macro recall on SVHN."""
    found = trained()
    return max((s for s in found if len(runs.TRANSFER[s]) == 1), key=lambda s: found[s].gain)


def over(setting: str, other: str) -> Points:
    """Macro recall on SVHN of one setting less that of another, paired by seed."""
    found = trained()
    own, others = (found[each].recall.values for each in (setting, other))
    return Points(stats.difference(own, others, paired=True))


def trained_table() -> pd.DataFrame:
    """`trained` as shown."""
    rows = [
        {
            "trained on MNIST": setting,
            "accuracy on MNIST": found.own,
            "accuracy on SVHN": found.accuracy,
            "answered '1'": found.ones,
            "macro recall on SVHN": found.recall,
            "change of recall": f"{found.gain.signed_full}{'†' * found.beyond}"
            if setting != "plain"
            else "",
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
        size: difference of their macro recall in points, of the trainings with seed 42.
        parts: what closes which share: changed pictures (the best control, the best two), then
            changed training.
    """

    size: Number
    parts: list[Part]

    @property
    def pictures(self) -> Average:
        """The share that the best two changes of the pictures close."""
        return Average(self.parts[1][1:4])

    def training(self, setting: str = "all") -> Average:
        """The share that training with a setting of `runs.TRANSFER` closes."""
        return next(Average(p[1:4]) for p in self.parts if p.name == f"training: {setting}")

    @property
    def left(self) -> Average:
        """What the best two changes of the pictures leave, from 0 to 1."""
        share, low, high = self.parts[1][1:4]
        return Average(1 - max(end, 0.0) for end in (share, high, low))


def of_readable() -> Average:
    """What the best two changes of SVHN's pictures bring the MNIST model, as a share of what the
    SVHN model reads of the changed pictures and the MNIST model does not of the unchanged ones."""
    mine, theirs = controls.effects("mnist", "svhn"), controls.effects("svhn", "svhn")
    gain, room = mine.gain(*mine.best(2)), theirs.recall(*mine.best(2)) - mine.recall()
    return Average(end / (room or math.nan) for end in (gain, gain.low, gain.high))


def gap(model: str) -> Gap:
    """The gap of a data set's models on the other data set."""
    other = OTHER[model]
    theirs, size = at_home(other).recall, at_home(other).recall.values[0]
    size -= abroad(model).recall.values[0]
    found = controls.effects(model, other)
    gains = {f"pictures: {', '.join(c)}": found.gain(*c) for c in (found.best(1), found.best(2))}
    parts = [Part(name, *(end / size for end in (g, g.low, g.high))) for name, g in gains.items()]
    if model == "mnist":
        settings = trained()
        plain = settings.pop("plain").recall
        for setting, each in settings.items():
            ends = (each.gain, each.gain.low, each.gain.high)
            pairs = zip(each.recall.values, plain.values, strict=True)
            shares = [value / (theirs - plain) for value in (*ends, *(a - b for a, b in pairs))]
            parts.append(Part(f"training: {setting}", *shares[:3], tuple(shares[3:])))
    return Gap(Number(100 * size, 1, "points"), parts)
