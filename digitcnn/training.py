"""Training: augmentation, optimiser, schedule, one epoch, evaluation. Knows no files.

`Training` holds everything that changes while a network learns, as plain tensors and numbers, so
that `digitcnn.checkpoints` can store it after each epoch and go on from it bit for bit. Part of
every run's key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .data import Split, class_subset, load, seed_everything, stratified_subset
from .model import CLASSES, DigitCNN
from .runs import RunConfig

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.0),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.0),
}
WARM_UP = 0.2  # share of all steps in which the learning rate rises
START_FACTOR, END_FACTOR = 0.1, 0.001  # of the peak learning rate
EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Metrics:
    """One row of a metrics file; loss in nats, the others as fractions in [0, 1]."""

    loss: float
    accuracy: float
    precision: float
    recall: float


def metrics_from_confusion(confusion: Tensor, loss_sum: float) -> Metrics:
    """Metrics of a confusion matrix (10, 10), rows true and columns predicted.

    Precision and recall are macro averages over the classes that occur among the true labels; a
    class that is never predicted has precision 0, as in scikit-learn with ``zero_division=0``.
    """
    counts = confusion.double()
    support, predicted, hits = counts.sum(1), counts.sum(0), counts.diagonal()
    present = support > 0
    total = support.sum().clamp(min=1)
    return Metrics(
        loss=loss_sum / total.item(),
        accuracy=(hits.sum() / total).item(),
        precision=(hits / predicted.clamp(min=1))[present].mean().item(),
        recall=(hits / support.clamp(min=1))[present].mean().item(),
    )


def pick_device() -> torch.device:
    """CUDA if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the processor computes it fast, else float32."""
    fast = {
        "cuda": torch.cuda.is_bf16_supported,
        "cpu": torch.cpu._is_avx512_bf16_supported,  # elsewhere emulated, and slower
    }
    enabled = device.type in fast and bool(fast[device.type]())
    kind = device.type if device.type in fast else "cpu"
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled)


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1], in the memory order that convolutions like."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, kinds: tuple[str, ...]) -> Tensor:
    """Randomly transformed copies of a batch (N, 3, 32, 32) in [0, 1]; never flipped.

    Every image draws its own parameters, all of them from torch's CPU generator:

    * ``shift``: up to 2 pixels in each direction;
    * ``affine``: shift, rotation up to 10 degrees, scale up to 12 %, shear up to 0.15;
    * ``elastic``: smooth displacements up to 1.6 pixels (Simard et al. 2003, simplified: noise on
      a 5 x 5 grid, interpolated);
    * ``colour``: contrast up to 30 %, brightness per channel up to 9 %, and in half of the images
      inverted polarity (the operations that AutoAugment found for SVHN, arXiv 1805.09501);
    * ``erase``: an 8 x 8 square of grey anywhere (cutout, arXiv 1708.04552).
    """
    count, _, height, width = images.shape

    def uniform(*shape: int, limit: float = 1.0) -> Tensor:
        return ((torch.rand(shape) * 2 - 1) * limit).to(images.device)

    if {"shift", "affine", "elastic"} & set(kinds):
        still = 0.0 if "affine" not in kinds else 1.0
        angle = uniform(count, limit=still * math.pi / 18)
        scale_x = 1 + uniform(count, limit=still * 0.12)
        scale_y = scale_x * (1 + uniform(count, limit=still * 0.08))
        shear = uniform(count, limit=still * 0.15)
        limit = 4 / width if {"shift", "affine"} & set(kinds) else 0.0
        shift = uniform(2, count, limit=limit)
        cosine, sine = angle.cos(), angle.sin()
        matrix = torch.stack(
            [cosine * scale_x, shear - sine * scale_y, shift[0]]
            + [sine * scale_x, cosine * scale_y, shift[1]],
            dim=1,
        ).view(count, 2, 3)
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        if "elastic" in kinds:
            noise = uniform(count, 2, 5, 5, limit=3.2 / width)
            smooth = F.interpolate(noise, (height, width), mode="bicubic", align_corners=True)
            grid = grid + smooth.permute(0, 2, 3, 1)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if "colour" in kinds:
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * (1 + uniform(count, 1, 1, 1, limit=0.3)) + mean
        images = images + uniform(count, 3, 1, 1, limit=0.09)
        images = torch.where(uniform(count, 1, 1, 1) < 0, 1 - images, images)
    if "erase" in kinds:
        centre = (uniform(2, count, 1) + 1) * width / 2
        pixel = torch.arange(width, device=images.device) + 0.5
        rows, columns = ((pixel - middle).abs() < 4 for middle in centre)
        hole = (rows[:, :, None] & columns[:, None, :])[:, None]
        images = torch.where(hole, images.new_tensor(0.5), images)
    return images


def learning_rate(config: RunConfig, step: int, steps: int) -> float:
    """One-cycle schedule (Smith and Topin 2017, arXiv 1708.07120) at `step` of `steps`.

    Rises from a tenth of the peak over the first fifth, then falls to a thousandth, both along a
    cosine. A function of the step alone, so that there is nothing to store.
    """
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        start, end, share = START_FACTOR, 1.0, step / rising
    else:
        start, end, share = 1.0, END_FACTOR, (step - rising) / max(1, steps - rising)
    return config.learning_rate * (end + (start - end) * (1 + math.cos(math.pi * share)) / 2)


def training_split(config: RunConfig) -> Split:
    """The samples that a run learns from: the whole training split or the configured part."""
    split = load(config.data, "train")
    if config.class_counts:
        return class_subset(split, dict(config.class_counts), config.seed)
    return stratified_subset(split, config.train_size) if config.train_size else split


def evaluation_split(config: RunConfig, name: str) -> Split:
    """A held-out split, restricted to the classes that the run learns."""
    split = load(config.data, name)
    if config.class_counts:
        return class_subset(split, {digit: None for digit, _ in config.class_counts}, config.seed)
    return split


class Training:
    """A network in training: weights, their average, optimiser, position and generators.

    Args:
        config: the whole configuration of the run.
        train: the samples to learn from, uint8.
        held_out: splits to evaluate after each epoch, by name. Nothing here depends on them.
        device: where to train; default `pick_device()`.

    Attributes:
        averaged: exponential moving average of the weights, which is what is evaluated and kept.
        epoch: number of whole epochs done.
    """

    def __init__(
        self,
        config: RunConfig,
        train: Split,
        held_out: dict[str, Split],
        device: torch.device | None = None,
    ):
        self.config, self.device = config, device or pick_device()
        seed_everything(config.seed)
        torch.use_deterministic_algorithms(True, warn_only=self.device.type != "cpu")
        torch.backends.cudnn.benchmark = False
        self.images, self.labels = train.images.to(self.device), train.labels.to(self.device)
        self.held_out = {
            name: (split.images.to(self.device), split.labels.to(self.device))
            for name, split in held_out.items()
        }
        std, mean = torch.std_mean(self.images.float() / 255, dim=(0, 2, 3))
        self.model = build_model(config, mean.tolist(), std.tolist()).to(
            self.device, memory_format=torch.channels_last
        )
        self.averaged = AveragedModel(
            self.model, multi_avg_fn=_moving_average(config.average), use_buffers=True
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
        self.batch = min(config.batch_size, len(train))
        self.steps_per_epoch = len(train) // self.batch
        self.epoch = 0

    def run_epoch(self) -> dict[str, Metrics]:
        """Train one epoch, then evaluate; metrics by split, ``train`` being the running ones.

        The loss reported is the plain cross-entropy for every split, so that they compare.
        """
        self.model.train()
        order = self._order()
        confusion = torch.zeros(CLASSES * CLASSES, dtype=torch.long, device=self.device)
        loss_sum = torch.zeros((), device=self.device)
        steps = self.config.epochs * self.steps_per_epoch
        for position in range(self.steps_per_epoch):
            step = self.epoch * self.steps_per_epoch + position
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config, step, steps)
            at = order[position * self.batch : (position + 1) * self.batch]
            labels = self.labels[at]
            images = augment(to_unit(self.images[at]), self.config.augmentation)
            with autocast(self.device):
                logits = self.model(images)
            logits = logits.float()
            self.criterion(logits, labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.averaged.update_parameters(self.model)
            with torch.no_grad():
                loss_sum += F.cross_entropy(logits, labels, reduction="sum")
                confusion += _confusion(labels, logits.argmax(1))
        self.epoch += 1
        result = {
            "train": metrics_from_confusion(confusion.view(CLASSES, CLASSES), loss_sum.item())
        }
        for name, (images, labels) in self.held_out.items():
            result[name] = evaluate(self.averaged.module, images, labels)
        return result

    def _order(self) -> Tensor:
        """The epoch's shuffled positions; with oversampling, classes drawn equally often."""
        if self.config.oversample:
            weights = self.class_weight[self.labels].cpu()
            return torch.multinomial(weights, len(weights), replacement=True).to(self.device)
        return torch.randperm(len(self.labels)).to(self.device)

    def state(self) -> dict[str, Tensor]:
        """Everything that changes, as named tensors: enough to go on bit for bit."""
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        state |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            for name, value in slots.items():
                state[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
        state["generator.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["generator.cuda"] = torch.cuda.get_rng_state()
        elif self.device.type == "mps":
            state["generator.mps"] = torch.mps.get_rng_state()
        state["epoch"] = torch.tensor(self.epoch)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a `state`. Raises KeyError or RuntimeError if it is of another network."""

        def below(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in below("optimizer.").items():
            index, name = key.split(".", 1)
            slots.setdefault(int(index), {})[name] = value
        self.model.load_state_dict(below("model."))
        self.averaged.load_state_dict(below("averaged."))
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        torch.set_rng_state(state["generator.cpu"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["generator.cuda"].cpu())
        elif self.device.type == "mps":
            torch.mps.set_rng_state(state["generator.mps"].cpu())
        self.epoch = int(state["epoch"])


def build_model(
    config: RunConfig,
    mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5),
    std: list[float] | tuple[float, ...] = (0.25, 0.25, 0.25),
) -> DigitCNN:
    """The network that a configuration describes, freshly initialised."""
    return DigitCNN(
        activation=config.activation,
        batch_norm=config.batch_norm,
        dropout=config.dropout,
        width=config.width,
        mean=tuple(mean),
        std=tuple(std),
    )


@torch.no_grad()
def predict_logits(model: DigitCNN, images: Tensor) -> Tensor:
    """Logits float32 (N, 10) of uint8 images (N, 3, 32, 32) on the model's device."""
    model.eval()
    device = model.mean.device
    logits = []
    for start in range(0, len(images), EVALUATION_BATCH):
        with autocast(device):
            batch = to_unit(images[start : start + EVALUATION_BATCH].to(device))
            logits.append(model(batch).float())
    return torch.cat(logits)


def evaluate(model: DigitCNN, images: Tensor, labels: Tensor) -> Metrics:
    """Metrics of a model in evaluation mode on uint8 images (N, 3, 32, 32) and their labels."""
    logits = predict_logits(model, images)
    confusion = _confusion(labels, logits.argmax(1)).view(CLASSES, CLASSES)
    return metrics_from_confusion(
        confusion, F.cross_entropy(logits, labels, reduction="sum").item()
    )


def _confusion(labels: Tensor, predicted: Tensor) -> Tensor:
    return torch.bincount(labels * CLASSES + predicted, minlength=CLASSES * CLASSES)


def _moving_average(decay: float):
    """Exponential moving average for `AveragedModel`, shorter while there is little to average.

    Without the warm-up the random initial weights would stay in the average of a short run.
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
