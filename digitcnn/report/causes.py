"""Causes: confusions with what was seen in their pictures, and what changing it changes.

Joins what networks answer (`predictions`), what readers saw (`audit`) and what edits do (`edits`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .. import files, predictions
from ..stats import Estimate, proportion, ratio
from . import edits, evaluation
from .audit import Verdicts, answers, has, readings, reason, verdicts

NOT_EDITED = edits.Flips(0, 0, 0.0)


@dataclass(frozen=True)
class Confusion:
    """The test errors of one kind of a training.

    Attributes:
        true, predicted: classes.
        indices: of the errors in the pool, (count,).
        frame: `answers` of those that were looked at.
        training: `readings` of the training images of the true class that were looked at.
        flips: what edits do to those of them that were edited (see `edits`).
    """

    true: int
    predicted: int
    indices: np.ndarray
    frame: pd.DataFrame = field(repr=False)
    training: pd.DataFrame = field(repr=False)
    flips: edits.Flips = NOT_EDITED

    @property
    def pair(self) -> tuple[int, int]:
        """True and predicted class."""
        return self.true, self.predicted

    @property
    def count(self) -> int:
        """Number of errors."""
        return len(self.indices)

    def seen(self, code: str, by: str = "both") -> int:
        """How many of the errors have a code."""
        return int(has(self.frame, code, by).sum())

    @property
    def flipped(self) -> int:
        """How many of the edited errors are read right."""
        return self.flips.flipped

    @property
    def flipped_control(self) -> float:
        """How many are with as much ink changed elsewhere, in the mean of the controls."""
        return self.flips.flipped_control

    @property
    def verdicts(self) -> Verdicts:
        """What the two readers make of the errors."""
        return verdicts(self.frame)

    def in_training(self, code: str) -> Estimate:
        """Share of the training images of the true class looked at that have a code."""
        return proportion(has(self.training, code).sum(), len(self.training))


@dataclass(frozen=True)
class Confusions:
    """A training's confusions, most frequent first, with what was seen in them.

    Attributes:
        errors: number of all test errors.
        rows: a `Confusion` for each kind of error.
    """

    errors: int
    rows: tuple[Confusion, ...]

    @property
    def top(self) -> Confusion:
        """The most frequent confusion."""
        return self.rows[0]

    @property
    def second(self) -> Confusion:
        """The next."""
        return self.rows[1]

    def of(self, true: int, predicted: int) -> Confusion:
        """One confusion. Raises `DigitcnnError` if the training makes no such error."""
        for row in self.rows:
            if row.pair == (true, predicted):
                return row
        raise files.DigitcnnError(f"No {true} is read as {predicted}: ask for one of the `rows`.")

    def seen(self, code: str, of: Confusion) -> int:
        """How many errors of a confusion have a code, by both readings."""
        return of.seen(code)

    @property
    def flagged_in_training(self) -> int:
        """How many of the training images looked at, of the top's true class, have a flag."""
        return int(has(self.top.training, "flag").sum())

    @property
    def training_looked_at(self) -> int:
        """How many training images of the top's true class were looked at."""
        return len(self.top.training)


def confusions(name: str, run: str | None = None) -> Confusions:
    """The confusions of a training (default: the first seed) with readings and edits."""
    p = predictions.predict(run or name, name)
    frame, looked_at = answers(name, run), readings(name)
    effects = edits.flips(run or name) if name == "mnist" else {}
    rows = []
    for true, predicted, _ in evaluation.most_confused(p, 90):
        indices = p.indices[(p.labels == true) & (p.predicted == predicted)]
        rows.append(
            Confusion(
                true,
                predicted,
                indices,
                frame[np.isin(frame["index"], indices)],
                looked_at[reason(looked_at, f"train-{true}")],
                effects.get((true, predicted), NOT_EDITED),
            )
        )
    return Confusions(int(p.wrong.sum()), tuple(rows))


def remedied(run: str = "svhn") -> pd.DataFrame:
    """What each of `edits.REMEDIES` does to photographs with and without the code it is meant for.

    Columns: ``code``; ``mended``, share of the errors looked at, with the code, that the network
    reads right after the edit; ``mended_without``, the same of those without it; ``ratio`` of the
    two (above 1 if the edit mends by what it is meant for, and not by any change of an image that
    is hard to tell); ``broken``, share of all correctly read test images that it then gets wrong
    (each an `Estimate`); ``before`` and ``after``, errors in the whole test split when every image
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
                "mended": proportion(*shares[0]),
                "mended_without": proportion(*shares[1]),
                "ratio": ratio(*shares[0], *shares[1]),
                "broken": proportion(after[~p.wrong].sum(), (~p.wrong).sum()),
                "before": int(p.wrong.sum()),
                "after": int(after.sum()),
            }
        )
    return pd.DataFrame(rows)


def edited_gallery(
    run: str = "mnist",
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]], np.ndarray]:
    """Images, rows and captions for a gallery of the edited errors, three rows a confusion.

    As written, edited, and with as much ink changed elsewhere (the first control); the captions
    are what the training answers to each.
    """
    p, shown, found = predictions.predict(run, "mnist"), edits.pictures(), edits.edited_answers(run)
    at, count = np.searchsorted(p.indices, found["index"]), len(found["index"])
    captions = np.concatenate([p.predicted[at], found["edited"], found["controls"][:, 0]])
    rows = []
    for true, predicted in edits.flips(run):
        chosen = np.flatnonzero((p.labels[at] == true) & (p.predicted[at] == predicted))
        headings = (f"{true} read as {predicted}", "edited", "changed elsewhere")
        rows += [(heading, chosen + k * count) for k, heading in enumerate(headings)]
    return np.concatenate(list(shown.values())), rows, captions.astype(str)
