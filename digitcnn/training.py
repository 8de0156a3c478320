"""Training: augmentation, optimiser, schedule, one epoch, evaluation. Knows no files.

`learn` is the whole of it: a configuration and a data set's images in, weights and metrics out.
What it reaches, and nothing else, is part of every run's key (`digitcnn.runs.ROOTS`). `Training`
holds everything that changes while a network learns, so that `digitcnn.checkpoints` can store it
after each epoch and go on from it bit for bit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .augmentation import SIZE, augment
from .data import held_out_part, training_part
from .model import CLASSES, DigitCNN
from .runs import RunConfig
from .sources import Source

# On two cores with 1 MB of cache each, a quarter faster in float32 than batches of 1,000.
EVALUATION_BATCH = 100

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.0),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.0),
}


# Learning rate, a share of the peak: of the step and the steps alone, so that nothing is stored.


def one_cycle(step: int, steps: int) -> float:
    """Smith and Topin 2017, arXiv 1708.07120: rises from a tenth over the first fifth of the steps,
    then falls to a thousandth, both along a cosine."""
    rising = max(1, round(0.2 * steps))
    if step < rising:
        start, end, share = 0.1, 1.0, step / rising
    else:
        start, end, share = 1.0, 0.001, (step - rising) / max(1, steps - rising)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def cosine(step: int, steps: int) -> float:
    """Falls from the peak to a thousandth along a cosine, without a rise."""
    return 0.001 + 0.999 * (1 + math.cos(math.pi * step / steps)) / 2


def constant(step: int, steps: int) -> float:
    """The peak throughout."""
    return 1.0


SCHEDULES = {"one-cycle": one_cycle, "cosine": cosine, "constant": constant}


# Arithmetic


def pick_device() -> torch.device:
    """CUDA if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def native_bfloat16(device: torch.device) -> bool:
    """Whether the processor itself computes in bfloat16; emulated, as on a T4, it is slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 in training where it is native, else float32."""
    kind = device.type if device.type in ("cuda", "cpu") else "cpu"
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=native_bfloat16(device))


@contextlib.contextmanager
def float32() -> Iterator[None]:
    """Products and convolutions in float32 on every machine: TF32 off; without gradients."""
    matrix, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrix.allow_tf32, convolution.allow_tf32
    matrix.allow_tf32 = convolution.allow_tf32 = False
    try:
        with torch.no_grad():
            yield
    finally:
        matrix.allow_tf32, convolution.allow_tf32 = before


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seeded generators and deterministic operations; as before it afterwards."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
    )
    try:
        with torch.random.fork_rng(devices=[]):  # NumPy's global generator is not used
            torch.manual_seed(seed)
            torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
            # A debugging aid that costs time; no operation here reads new tensors unwritten.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = False
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = before[2]  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = before[3]


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1], in the memory order that convolutions like."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def resized(images: Tensor, size: int) -> Tensor:
    """A batch in [0, 1] reduced to `size` pixels, antialiased; as it is if it has that size."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).contiguous(
        memory_format=torch.channels_last
    )


# Metrics


@dataclass(frozen=True)
class Metrics:
    """One row of a metrics file; loss in nats, the others as fractions in [0, 1]."""

    epoch: int
    loss: float
    accuracy: float
    precision: float
    recall: float


def metrics_from_confusion(confusion: Tensor, loss_sum: float, epoch: int = 0) -> Metrics:
    """Metrics of a confusion matrix (10, 10), rows true and columns predicted.

    Precision and recall are macro averages over the classes that occur among the true labels; a
    class that is never predicted has precision 0, as in scikit-learn with ``zero_division=0``.
    """
    counts = confusion.double()
    support, predicted, hits = counts.sum(1), counts.sum(0), counts.diagonal()
    present = support > 0
    total = support.sum().clamp(min=1)
    return Metrics(
        epoch=epoch,
        loss=loss_sum / total.item(),
        accuracy=(hits.sum() / total).item(),
        precision=(hits / predicted.clamp(min=1))[present].mean().item(),
        recall=(hits / support.clamp(min=1))[present].mean().item(),
    )


def _confusion(labels: Tensor, predicted: Tensor) -> Tensor:
    return torch.bincount(labels * CLASSES + predicted, minlength=CLASSES * CLASSES)


def predict_logits(model: DigitCNN, images: Tensor, size: int = SIZE) -> Tensor:
    """Logits float32 (N, 10) of uint8 images (N, 3, 32, 32) on the model's device.

    Computed in float32 on every machine, at `size` pixels.
    """
    model.eval()
    device = model.mean.device
    with float32():
        return torch.cat(
            [
                model(resized(to_unit(batch.to(device)), size)).float()
                for batch in images.split(EVALUATION_BATCH)
            ]
        )


def evaluate(
    model: DigitCNN, images: Tensor, labels: Tensor, size: int = SIZE, epoch: int = 0
) -> Metrics:
    """Metrics of a model in evaluation mode on uint8 images (N, 3, 32, 32) and their labels."""
    logits = predict_logits(model, images, size)
    confusion = _confusion(labels, logits.argmax(1)).view(CLASSES, CLASSES)
    loss_sum = F.cross_entropy(logits, labels, reduction="sum").item()
    return metrics_from_confusion(confusion, loss_sum, epoch)


# The loop


class Training:
    """A network in training: weights, their average, optimiser, position and generators.

    Start it within `reproducible`, as `learn` does.

    Args:
        config: the whole configuration of the run.
        source: the pooled data set; the run's own part of it is learned from.
        device: where to train.

    Attributes:
        averaged: exponential moving average of the weights, which is what is evaluated and kept.
        epoch: number of whole epochs done (of ``steps``, where they are given, that many fiftieths
            if there are fifty epochs).
        rows: metrics by split, ``train`` being running ones of augmented images.
        diverged: whether the last epoch's training loss is not finite, which ends the run.
    """

    def __init__(self, config: RunConfig, source: Source, device: torch.device):
        self.config, self.device = config, device
        learned = training_part(config, source)
        self.indices = learned.indices
        self.images, self.labels = learned.images.to(self.device), learned.labels.to(self.device)
        self.held_out = {}
        for name in config.held_out:
            part = held_out_part(config, source, name)
            self.held_out[name] = part.images.to(self.device), part.labels.to(self.device)
        std, mean = torch.std_mean(self.images.float() / 255, dim=(0, 2, 3))
        self.model = build_model(config, mean.tolist(), std.tolist()).to(  # type: ignore[call-overload]
            self.device, memory_format=torch.channels_last
        )
        self.averaged = AveragedModel(
            self.model, multi_avg_fn=_moving_average(config.ema_decay), use_buffers=True
        )
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = OPTIMIZERS[config.optimizer](
            [  # biases and normalisation scales are not decayed
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ]
        )
        frequency = torch.bincount(self.labels, minlength=CLASSES).float()
        inverse = torch.where(frequency > 0, frequency.sum() / frequency.clamp(min=1), 0.0)
        self.class_weight = inverse / inverse[frequency > 0].mean()
        self.criterion = nn.CrossEntropyLoss(
            weight=self.class_weight if config.class_weights else None,
            label_smoothing=config.label_smoothing,
        )
        self.batch = min(config.batch_size, len(self.labels))
        self.steps = config.steps or config.epochs * (len(self.labels) // self.batch)
        self.epoch = 0
        self.pending = torch.empty(0, dtype=torch.long, device=self.device)
        self.rows: dict[str, list[Metrics]] = {}
        self.diverged = False

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.diverged or self.epoch == self.config.epochs

    def run_epoch(self) -> None:
        """Train one epoch, then evaluate where it is due; appends to `rows`.

        The loss reported is the plain cross-entropy for every split, so that they compare.
        """
        self.model.train()
        first, last = ((self.epoch + done) * self.steps // self.config.epochs for done in (0, 1))
        order = self._next_samples((last - first) * self.batch)
        confusion = torch.zeros(CLASSES * CLASSES, dtype=torch.long, device=self.device)
        loss_sum = torch.zeros((), device=self.device)
        for step, at in enumerate(order.split(self.batch), start=first):
            size = stage(self.config.resolutions, step / self.steps)
            rate = SCHEDULES[self.config.schedule](step, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * rate
            labels = self.labels[at]
            images = augment(to_unit(self.images[at]), self.config.augmentation)
            with autocast(self.device):
                logits = self.model(resized(images, size))
            logits = logits.float()
            self.criterion(logits, labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.averaged.update_parameters(self.model)
            with torch.no_grad():
                loss_sum += F.cross_entropy(logits, labels, reduction="sum")
                confusion += _confusion(labels, logits.argmax(1))
        self.epoch += 1
        trained = metrics_from_confusion(
            confusion.view(CLASSES, CLASSES), loss_sum.item(), self.epoch
        )
        self.rows.setdefault("train", []).append(trained)
        self.diverged = not math.isfinite(trained.loss)
        if self.finished:
            self._round_weights()
        if self.finished or self.config.evaluate_every_epoch:
            for name, (images, labels) in self.held_out.items():
                found = evaluate(self.averaged.module, images, labels, size, self.epoch)  # type: ignore[arg-type]
                self.rows.setdefault(name, []).append(found)

    def _next_samples(self, count: int) -> Tensor:
        """The positions of the next `count` samples.

        Of a run in epochs, each epoch is the start of a new permutation. Of one in steps,
        permutations are laid end to end, and what an epoch leaves is the next one's start.
        """
        parts = [self.pending] if self.config.steps else []
        while sum(map(len, parts)) < count:
            parts.append(self._permutation())
        order = torch.cat(parts)
        self.pending = order[count:] if self.config.steps else self.pending
        return order[:count]

    def _permutation(self) -> Tensor:
        """Shuffled positions; with oversampling, as many drawn so that classes are as frequent."""
        if self.config.oversample:
            weights = self.class_weight[self.labels].cpu()
            return torch.multinomial(weights, len(weights), replacement=True).to(self.device)
        return torch.randperm(len(self.labels)).to(self.device)

    def _round_weights(self) -> None:
        """Round kernels and matrices to float16, as they are kept, before they are judged."""
        for parameter in self.averaged.module.parameters():
            if parameter.ndim > 1:
                parameter.data.copy_(parameter.data.half())


def stage(resolutions: tuple[tuple[int, float], ...], share: float) -> int:
    """The resolution in pixels after a `share` of the steps; stages are (pixels, share of all)."""
    end = 0.0
    for size, length in resolutions:
        end += length
        if share < end:
            return size
    return resolutions[-1][0]


def build_model(
    config: RunConfig,
    mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5),
    std: list[float] | tuple[float, ...] = (0.25, 0.25, 0.25),
) -> DigitCNN:
    """The network that a configuration describes, freshly initialised."""
    return DigitCNN(
        activation=config.activation,
        batch_norm=config.batch_norm,
        shortcuts=config.shortcuts,
        map_side=config.map_side,
        dropout=config.dropout,
        width=config.width,
        mean=tuple(mean),
        std=tuple(std),
    )


def _moving_average(decay: float) -> Callable[..., None]:
    """Exponential moving average for `AveragedModel`, shorter while there is little to average.

    Without the warm-up the random initial weights would stay in the average of a short run. With a
    `decay` of 0 the average is the network itself.
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        keep = min(decay, (1 + float(count)) / (10 + float(count)))
        if torch.is_floating_point(averaged[0]):
            torch._foreach_lerp_(averaged, current, 1 - keep)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return update


def learn(
    config: RunConfig,
    source: Source,
    device: torch.device,
    before: Callable[[Training], None] = lambda training: None,
    after_epoch: Callable[[Training], None] = lambda training: None,
) -> Training:
    """Train a run to its end.

    Args:
        config: the run's configuration.
        source: the pooled data set that it names.
        device: where to train, see `pick_device`.
        before: called before the first epoch; it may bring the training to where it was left.
        after_epoch: called after each epoch; it may store, show or raise, and changes nothing.
    """
    with reproducible(config.seed, device):
        training = Training(config, source, device)
        before(training)
        while not training.finished:
            training.run_epoch()
            after_epoch(training)
    return training
