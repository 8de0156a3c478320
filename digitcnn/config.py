"""Config: what a run is, where its results lie, and what is kept of it. Knows no registered run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from . import files

SEED = 42
DATA = ("mnist", "svhn")
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The whole configuration of a run; every field but the name and the group is in its key.

    A field that is added later has to have ``metadata={"neutral": value}``, the value that stands
    for what was done before it existed; it is left out of the key where it has that value, and the
    neutral value never changes, whatever the default becomes.

    Attributes:
        name: run name; the seed is added to it where it is not 42.
        group: one of `GROUPS`; decides what is kept of the finished run.
        data: ``mnist`` or ``svhn``.
        split: ``pooled`` or ``official``, see `digitcnn.division.DIVISIONS`.
        train_size: learn from a stratified subset of this size (None: everything).
        class_counts: learn from so many samples of these classes only, as (class, count or None)
            pairs; evaluation is then restricted to these classes.
        epochs: whole number above 0.
        steps: learn for so many steps; an epoch is then ``steps / epochs`` of them (None: the
            number of steps in `epochs` passes over the images).
        resolutions: stages as (pixels, share of the steps) pairs; the last is at 32 pixels.
        augmentation: keys of `digitcnn.augmentation.AUGMENTATIONS`, applied in this order.
        batch_size, seed: whole numbers above 0 (seed: from 0).
        optimizer: a key of `digitcnn.training.OPTIMIZERS`.
        schedule: a key of `digitcnn.training.SCHEDULES`.
        learning_rate: its peak.
        weight_decay: on weight matrices and kernels only.
        label_smoothing: share of probability spread over all classes, in [0, 1).
        ema_decay: decay of the moving average of the weights, in [0, 1); 0: no average.
        class_weights: weight the loss by inverse class frequency.
        oversample: draw every class equally often.
        activation, batch_norm, shortcuts, map_side, dropout, width: see `digitcnn.model.DigitCNN`.
        held_out: splits that the run is evaluated on.
        evaluate_every_epoch: after each epoch; else after the last alone.
    """

    name: str
    group: str
    data: str
    split: str = "pooled"
    train_size: int | None = None
    class_counts: tuple[tuple[int, int | None], ...] | None = None
    epochs: int = 50
    steps: int | None = None
    seed: int = SEED
    resolutions: tuple[tuple[int, float], ...] = ((32, 1.0),)
    augmentation: tuple[str, ...] = ("affine",)
    batch_size: int = 64
    optimizer: str = "sgd"
    schedule: str = "one-cycle"
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    ema_decay: float = 0.998
    class_weights: bool = False
    oversample: bool = False
    activation: str = "relu"
    batch_norm: bool = True
    shortcuts: bool = True
    map_side: int = 4
    dropout: float = 0.0
    width: float = 1.0
    held_out: tuple[str, ...] = ("validation", "test")
    evaluate_every_epoch: bool = True

    def __post_init__(self) -> None:
        if self.resolutions[-1][0] != 32 or abs(sum(s for _, s in self.resolutions) - 1) > 1e-9:
            raise files.DigitcnnError(
                f"{self.id}: the shares of `resolutions` must add up to 1 and the last stage be at "
                "32 pixels: fix the configuration."
            )
        if self.epochs < 1 or (self.steps is not None and self.steps < self.epochs):
            raise files.DigitcnnError(
                f"{self.id}: give at least one epoch, and at least as many steps as epochs."
            )

    @property
    def id(self) -> str:
        """The run's name in file names and on the command line."""
        return self.name if self.seed == SEED else f"{self.name}-s{self.seed}"

    @property
    def model_file(self) -> str:
        """File name of the trained weights."""
        return f"digitcnn-{self.name}-e{self.epochs}-s{self.seed}.safetensors"


def checkpoint_path(run: RunConfig) -> Path:
    """Where an unfinished run's state lies."""
    return files.checkpoints_root() / f"{run.id}.safetensors"


def weights_path(run: RunConfig) -> Path:
    """Where a finished run's weights lie."""
    return files.model_path(run.model_file)


def record_path(run: RunConfig) -> Path:
    """Where a finished run's record lies."""
    return files.cache_path("runs", f"{run.id}.json")


def answers_path(run: RunConfig) -> Path:
    """Where the kept answers of a finished run lie."""
    return files.cache_path("answers", f"{run.id}.npz")


def metrics_path(run: RunConfig, split: str) -> Path:
    """Where a run's metrics of one split lie: tab-separated, a row an epoch."""
    return files.cache_path("metrics", run.id, f"{split}.txt")


def keeps_weights(run: RunConfig) -> bool:
    """Whether a run's weights are part of the repository: of the others only their answers are."""
    pictured = run.group == "imbalance" and run.evaluate_every_epoch
    return run.group in ("main", "official") or pictured


def kept_answers(run: RunConfig) -> list[tuple[str, str]]:
    """What a finished run is asked, and its answers kept: (data set, split) pairs.

    What is kept of an answer is `kept_form`. Later formulas need nothing else, so that none needs
    weights that are gone.
    """
    own = [(run.data, "validation"), (run.data, "test")]
    other = [(data, "test") for data in DATA if data != run.data]
    return {
        "main": own + other,
        "official": own,
        "imbalance": own + other,
        "experiments": own[:1],
        "transfer": own + other,
        "improvement": own,
    }[run.group]


def kept_form(run: RunConfig) -> str:
    """What is kept of each answer: ``logits``, ``margin`` (of the pair of (e)) or ``answer``."""
    return {"main": "logits", "official": "logits", "imbalance": "margin"}.get(run.group, "answer")
