"""The first page and chapter 6: what was learned across the chapters, by their own functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import files, predictions, results, runs
from . import controls, cross_dataset, evaluation, experiments, representation
from .values import Average, Count, Duration, Points, Share, Spread, Text, listed

# Question (b) -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """The experiments of both data sets: each changes one thing of the recipe for a short training.

    Attributes:
        changes: how many; `tried`: on both data sets together.
        better, worse: of these, those that differ from the recipe beyond chance; `leaders`: what
            the better ones change, each once.
        failed: those of which a seed did not train.
        epochs: of each training.
    """

    changes: Count
    tried: Count
    better: Count
    worse: Count
    failed: Count
    epochs: Count
    leaders: list[str]


def choices() -> Choices:
    """What changing one choice of the recipe does."""
    found = [experiments.tried(name) for name in runs.DATA]
    every = [one for each in found for one in each.settings.values() if one.group]
    return Choices(
        Count(len({one.label for one in every})),
        Count(len(every)),
        Count(sum(one.beyond and one.difference > 0 for one in every)),
        Count(sum(one.beyond and one.difference < 0 for one in every)),
        Count(sum(one.failed > 0 for one in every)),
        found[-1].epochs,
        sorted({one.label for one in every if one.beyond and one.difference > 0}),
    )


# Question (c) -------------------------------------------------------------------------------------


def shared(name: str) -> Share:
    """Of the first training's test errors, those that all other trainings make too."""
    first, *others = (predictions.predict(run, name).wrong for run in runs.trainings(name))
    return Share((first & np.all(others, axis=0)).sum(), first.sum()) if others else Share(0, 0)


def confused(name: str, pairs: int = 2, images: int = 5) -> list[evaluation.Shown]:
    """A data set's most frequent confusions, each with some of its test images."""
    found = evaluation.most_confused(predictions.predict(name, name), pairs)
    return evaluation.confused(name, found, images)


# Question (d) -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transfer:
    """Each network on the other data set, and what accounts for the gap.

    Attributes:
        to_mnist, to_svhn: test accuracy of SVHN's networks on MNIST, and of MNIST's on SVHN.
        always: what always answering SVHN's most frequent class would get.
        pairs: the two most frequent confusions of SVHN's network on MNIST, sorted.
        by_pictures, by_training, by_contrast: shares of the gap to SVHN's networks, in macro
            recall, that MNIST's close when the photographs are made like scans, when they learn
            with what photographs have, and with their contrast alone; `left`: what none closes
            (see `cross_dataset.Gap`).
        by_grey: what photographs without colour bring, in points of macro recall.
    """

    to_mnist: Spread
    to_svhn: Spread
    always: Share
    pairs: list[tuple[int, int]]
    by_pictures: Average
    by_training: Average
    by_contrast: Average
    left: Average
    by_grey: Points


def transfer() -> Transfer:
    """Both directions, and the controls of the worse one."""
    to_svhn, gap = cross_dataset.crossed("mnist", "svhn"), cross_dataset.gap("mnist")
    pairs = evaluation.most_confused(predictions.predict("svhn", "mnist"), 2)
    return Transfer(
        cross_dataset.crossed("svhn", "mnist").accuracy, to_svhn.accuracy, to_svhn.majority,
        sorted((pair.true, pair.answered) for pair in pairs),
        gap.pictures, gap.training(), gap.training("contrast"), gap.left,
        controls.effects("mnist", "svhn").gain("grey"),
    )  # fmt: skip


class Features(NamedTuple):
    """A network's features of its own test images in the plane, (N, 2), and their classes, (N,)."""

    points: np.ndarray
    labels: np.ndarray


def features(name: str) -> Features:
    """Chapter 4's map of a data set's own test images."""
    points = representation.points(representation.Map(name, (name,)))
    return Features(points, predictions.predict(name, name).labels)


# What it took -------------------------------------------------------------------------------------


def records() -> dict[str, dict]:
    """The records of all runs that are stored, by their ids, in the order of training."""
    every = runs.registry().items()
    return {name: results.record(run) for name, run in every if files.has(runs.record_path(run))}


class Work(NamedTuple):
    """How many trainings, their wall times added up, and what trained them."""

    count: Count
    time: Duration
    machine: Text
    torch: Text


def work() -> Work:
    """What the trainings took that are stored."""
    found = list(records().values())
    about = [record["environment"] for record in found]
    machine, torch = (
        listed(dict.fromkeys(each[key] for each in about)) for key in Work._fields[2:]
    )
    return Work(
        Count(len(found)), Duration(sum(record["seconds"] for record in found)), machine, torch
    )


def help_used() -> Text:
    """The paragraph of ``chapters/_help.md`` without comments; empty if nothing is left."""
    text = (files.project_root() / "chapters" / "_help.md").read_text(encoding="utf-8")
    said = " ".join(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).split())
    return Text(f"**Help.** {said}" if said else "")
