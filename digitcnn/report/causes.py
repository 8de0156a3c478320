"""Causes: confusions with what was seen in their pictures, and what changing it changes.

Joins what networks answer (`predictions`), what readers saw (`audit`) and what edits do (`edits`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .. import files, predictions
from ..stats import ratio
from . import edits, evaluation
from .audit import Verdicts, answers, has, readings, reason, verdicts
from .values import Count, Number, Share

NOT_EDITED = edits.Flips(0, 0, 0.0)


@dataclass(frozen=True)
class Confusion:
    """The test errors of one kind of a training.

    Attributes:
        true, predicted: classes.
        indices: of the errors in the pool, (count,).
        frame: `answers` of those that were drawn at random and looked at.
        suspected: `answers` of the others that were looked at, as the network doubts their label.
        training: `readings` of the training images of the true class that were looked at.
        flips: what edits do to those of them that were edited (see `edits`).
    """

    true: int
    predicted: int
    indices: np.ndarray
    frame: pd.DataFrame = field(repr=False)
    suspected: pd.DataFrame = field(repr=False)
    training: pd.DataFrame = field(repr=False)
    flips: edits.Flips = NOT_EDITED

    @property
    def pair(self) -> tuple[int, int]:
        """True and predicted class."""
        return self.true, self.predicted

    @property
    def count(self) -> Count:
        """Number of errors."""
        return Count(len(self.indices))

    def seen(self, code: str, by: str = "both") -> Count:
        """How many of the errors drawn at random have a code."""
        return Count(has(self.frame, code, by).sum())

    @property
    def flipped(self) -> Count:
        """How many of the edited errors are read right."""
        return Count(self.flips.flipped)

    @property
    def flipped_control(self) -> Number:
        """How many are with as much ink changed elsewhere, in the mean of the controls."""
        return Number(self.flips.flipped_control, 1)

    @property
    def verdicts(self) -> Verdicts:
        """What the two readers make of the errors drawn at random."""
        return verdicts(self.frame)

    @property
    def doubted(self) -> Verdicts:
        """What they make of the others that were looked at."""
        return verdicts(self.suspected)

    def in_training(self, code: str) -> Share:
        """Share of the training images of the true class looked at that have a code."""
        return Share(has(self.training, code).sum(), len(self.training))


@dataclass(frozen=True)
class Confusions:
    """A training's confusions, most frequent first, with what was seen in them.

    Attributes:
        name: of the data set.
        errors: number of all test errors.
        rows: a `Confusion` for each kind of error.
    """

    name: str
    errors: Count
    rows: tuple[Confusion, ...]

    @property
    def top(self) -> Confusion:
        """The most frequent confusion."""
        return self.rows[0] if self.rows else self.of(0, 0)

    def pairs(self, count: int) -> list[evaluation.Pair]:
        """The most frequent confusions."""
        return [evaluation.Pair(*row.pair, row.count) for row in self.rows[:count]]

    def of(self, true: int, predicted: int) -> Confusion:
        """One confusion. Raises `DigitcnnError` if the training makes no such error."""
        for row in self.rows:
            if row.pair == (true, predicted):
                return row
        if files.profile() == "quick":  # its networks err in other ways, or not at all
            none, read = answers(self.name).iloc[:0], readings(self.name).iloc[:0]
            return Confusion(true, predicted, np.zeros(0, int), none, none, read)
        raise files.DigitcnnError(f"No {true} is read as {predicted}: ask for one of the `rows`.")


def confusions(name: str, run: str | None = None) -> Confusions:
    """The confusions of a training (default: the first seed) with readings and edits."""
    p = predictions.predict(run or name, name)
    frame, looked_at = answers(name, run), readings(name)
    effects, random = edits.flips(run or name) if name == "mnist" else {}, reason(frame, "error")
    rows = []
    for true, predicted, _ in evaluation.most_confused(p, 90):
        indices = p.indices[(p.labels == true) & (p.predicted == predicted)]
        these = np.isin(frame["index"], indices)
        rows.append(
            Confusion(
                true,
                predicted,
                indices,
                frame[these & random],
                frame[these & ~random],
                looked_at[reason(looked_at, f"train-{true}")],
                effects.get((true, predicted), NOT_EDITED),
            )
        )
    return Confusions(name, Count(p.wrong.sum()), tuple(rows))


def remedied(run: str = "svhn") -> pd.DataFrame:
    """What each of `edits.REMEDIES` does to photographs with and without the code it is meant for.

    Columns: ``code``; ``mended``, share of the errors looked at, with the code, that the network
    reads right after the edit; ``mended_without``, the same of those without it; ``ratio`` of the
    two (above 1 if the edit mends by what it is meant for, and not by any change of an image that
    is hard to tell); ``broken``, share of all correctly read test images that it then gets wrong
    (each a `Share`); ``before`` and ``after``, errors in the whole test split when every image
    is edited.
    """
    p, edited = predictions.predict(run, "svhn"), edits.remedied_answers(run)
    frame = answers("svhn", run)
    frame = frame[frame["wrong"].to_numpy(bool) & reason(frame, "error")]
    at = np.searchsorted(p.indices, frame["index"].to_numpy(int))
    rows = []
    for code in edits.REMEDIES:
        after, coded = edited[code] != p.labels, has(frame, code)
        mended = ~after[at]
        shares = (mended[coded].sum(), coded.sum()), (mended[~coded].sum(), (~coded).sum())
        rows.append(
            {
                "code": code,
                "mended": Share(*shares[0]),
                "mended_without": Share(*shares[1]),
                "ratio": ratio(*shares[0], *shares[1]),
                "broken": Share(after[~p.wrong].sum(), (~p.wrong).sum()),
                "before": int(p.wrong.sum()),
                "after": int(after.sum()),
            }
        )
    return pd.DataFrame(rows, dtype=object)


def remedies_table() -> pd.DataFrame:
    """`remedied` as shown."""
    found = remedied()
    return pd.DataFrame(
        {
            "undone": found["code"],
            "mended with it": found["mended"].map(lambda share: share.full),
            "mended without it": found["mended_without"].map(lambda share: share.full),
            "errors before": found["before"],
            "errors after": found["after"],
        }
    )


def edits_table() -> pd.DataFrame:
    """What the edits do to each confusion, all trainings of MNIST together, as shown."""
    found = edits.flips_by_seed().groupby(["true", "predicted"], sort=False)
    rows = []
    for (true, predicted), part in found:
        rows.append(
            {
                "confusion": f"{true} → {predicted}",
                "edited errors": int(part["edited"].sum()),
                "read right": int(part["flipped"].sum()),
                "changed elsewhere": Number(part["flipped_control"].sum(), 1),
            }
        )
    columns = ["confusion", "edited errors", "read right", "changed elsewhere"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def edited_gallery(pairs: int = 2, run: str = "mnist") -> list[evaluation.Shown]:
    """The edited errors of the most frequent confusions, three rows each: as written, edited, and
    with as much ink changed elsewhere (the first control); each with what the training answers."""
    p, kept, found = predictions.predict(run, "mnist"), edits.pictures(), edits.edited_answers(run)
    at = np.searchsorted(p.indices, found["index"])
    answers = {"as written": p.predicted[at], "edited": found["edited"],
               "elsewhere": found["controls"][:, 0]}  # fmt: skip
    rows = []
    for true, predicted in list(edits.flips(run))[:pairs]:
        chosen = np.flatnonzero((p.labels[at] == true) & (p.predicted[at] == predicted))
        for (what, said), images in zip(answers.items(), kept.values(), strict=True):
            head = f"{true} → {predicted}" if what == "as written" else ""
            lines = [f"read as {digit}" for digit in said[chosen]]
            rows.append(evaluation.Shown(f"{head}\n{what}", images[chosen], lines, at[chosen]))
    return rows
