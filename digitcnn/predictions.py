"""Predictions: what trained models said of whole splits; kept with each run, read without torch.

What needs a network's weights is in `digitcnn.inference`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from . import division, results, runs
from .files import DigitcnnError


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax over the last axis, float64, of logits divided by a `temperature` above 0."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split.

    Attributes:
        logits: float32 (N, 10), kept with half precision.
        predicted: most probable class of each sample, int64 (N,), decided in float32.
        labels, indices: true classes and pool indices, int64 (N,).
    """

    logits: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, (N, 10)."""
        return softmax(self.logits)

    @property
    def wrong(self) -> np.ndarray:
        """True where the prediction is not the label, (N,)."""
        return self.predicted != self.labels


def predict(run: str | runs.RunConfig, data_name: str, split: str = "test") -> Predictions:
    """A run's predictions on a whole split of a data set, as it gave them when it was finished.

    Raises `DigitcnnError` for a split of which the run's logits are not kept
    (`runs.kept_answers`).
    """
    run = runs.get(run)
    if (data_name, split) not in runs.kept_answers(run) or runs.kept_form(run) != "logits":
        raise DigitcnnError(
            f"The logits of {run.id} on {data_name}'s {split} split are not kept: see "
            "digitcnn.runs.kept_answers."
        )
    kept = results.answers(run)
    kind = run.split if data_name == run.data else "pooled"
    indices = division.split_indices(data_name, kind)[split]
    return Predictions(
        kept[f"{data_name}-{split}-logits"].astype(np.float32),
        kept[f"{data_name}-{split}-answer"].astype(np.int64),
        division.labels(data_name).labels[indices],
        indices,
    )


class Answers(NamedTuple):
    """What a finished run answered.

    Attributes:
        predicted, labels: predicted and true classes, int64 (N,).
        margin: of the runs of question (e), logit of 1 minus logit of 2, float16 (N,).
    """

    predicted: np.ndarray
    labels: np.ndarray
    margin: np.ndarray | None = None


def answered(run: str | runs.RunConfig, data_name: str, split: str = "test") -> Answers:
    """A run's kept answers on a split of a data set, on the classes that it learned.

    Raises `DigitcnnError` for a split of which the answers are not kept (`runs.kept_answers`).
    """
    run = runs.get(run)
    if (data_name, split) not in runs.kept_answers(run):
        raise DigitcnnError(
            f"The answers of {run.id} on {data_name}'s {split} split are not kept: choose one of "
            "digitcnn.runs.kept_answers."
        )
    kept = results.answers(run)
    predicted = kept[f"{data_name}-{split}-answer"].astype(np.int64)
    kind = run.split if data_name == run.data else "pooled"
    labels = division.labels(data_name).labels[division.split_indices(data_name, kind)[split]]
    if run.class_counts:
        labels = labels[np.isin(labels, [digit for digit, _ in run.class_counts])]
    return Answers(predicted, labels, kept.get(f"{data_name}-{split}-margin"))
