"""Transfer: each model on the other data set, and what makes the two directions differ.

Controls change one thing of the pictures (`CONTROLS`) or of the training (`runs.TRANSFER`). Draws
nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from .. import data, files, inference, predictions, runs, stats, store
from ..predictions import answered
from ..sources import NAMES
from ..training import predict_logits
from . import evaluation
from .representation import SEED

EXAMPLES = (0, 2, 3, 4, 6, 7, 8)  # digits that show a control


def per_class(model: str, name: str) -> pd.DataFrame:
    """``precision``, ``recall`` and number of ``samples`` and ``predictions`` of each class."""
    counts = evaluation.confusion(answered(model, name))
    scores = stats.class_scores(counts)
    frame = pd.DataFrame({column: scores[column] for column in ("precision", "recall")})
    return frame.assign(samples=counts.sum(1), predictions=counts.sum(0)).rename_axis("class")


def cross_dataset() -> pd.DataFrame:
    """Both models on both test splits; also written to ``cache/results/cross_dataset.csv``.

    Columns: model, data, accuracy, precision and recall (macro averages, as fractions).
    """
    rows = []
    for model, name in itertools.product(NAMES, NAMES):
        found = answered(model, name)
        rows.append({"model": model, "data": name} | stats.macro(found.labels, found.predicted))
    frame = pd.DataFrame(rows)
    path = files.noted(files.cache_path("results", "cross_dataset.csv"))
    text = frame.to_csv(index=False)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        files.write_whole(path, text)
    return frame


def by_seed() -> pd.DataFrame:
    """The main runs of all seeds on both test splits: `stats.macro` of each, a row each."""
    rows = []
    for run in runs.registry().values():
        if run.group == "main":
            for name in NAMES:
                about = {"model": run.data, "data": name, "seed": run.seed}
                found = answered(run, name)
                rows.append(about | stats.macro(found.labels, found.predicted))
    return pd.DataFrame(rows)


# Training controls: what MNIST lacks of photographs, given to it in training.


def training_controls() -> pd.DataFrame:
    """The runs of `runs.TRANSFER` on both test splits: `stats.macro` of each, a row each.

    Columns: ``setting``, ``data`` (the test split), ``seed``, ``accuracy``, ``precision``,
    ``recall``.
    """
    rows = []
    for setting in runs.TRANSFER:
        for run in runs.registry().values():
            if run.name == runs.transfer(setting).name:
                for name in NAMES:
                    found = answered(run, name)
                    about = {"setting": setting, "data": name, "seed": run.seed}
                    rows.append(about | stats.macro(found.labels, found.predicted))
    return pd.DataFrame(rows)


def training_effects(column: str = "recall") -> pd.DataFrame:
    """What each setting changes on SVHN's test split against ``plain``, paired by seed.

    Rows are settings; columns those of `stats.Difference` and ``beyond`` chance (after Holm).
    """
    svhn = training_controls().query("data == 'svhn'")
    table = svhn.pivot(index="seed", columns="setting", values=column)
    others = [setting for setting in runs.TRANSFER if setting != "plain"]
    found = [stats.difference(table[name], table["plain"], paired=True) for name in others]
    frame = pd.DataFrame(found, index=pd.Index(others, name="setting"))
    return frame.assign(beyond=stats.beyond_chance(frame["p"]))


# Controls: change one thing of float images (N, 3, 32, 32) in [0, 1]. -----------------------------


def _random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(SEED))


def grey(images: Tensor) -> Tensor:
    """Luminance (ITU-R BT.601) in all three channels."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True).expand_as(images)


def inverted(images: Tensor) -> Tensor:
    """The negative."""
    return 1 - images


def low_contrast(images: Tensor) -> Tensor:
    """Four tenths of the contrast about each image's mean."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + 0.4 * (images - mean)


def full_contrast(images: Tensor) -> Tensor:
    """Each image stretched from its 2nd and 98th percentile to 0 and 1."""
    limits = torch.quantile(images.flatten(1), torch.tensor([0.02, 0.98]), dim=1)
    low, high = limits.view(2, -1, 1, 1, 1)
    return (images - low) / (high - low).clamp(min=1 / 255)


def bright_digit(images: Tensor) -> Tensor:
    """The negative of images that are darker in the middle (12 x 12) than at the border."""
    total, middle = images.sum((1, 2, 3)), images[:, :, 10:22, 10:22].sum((1, 2, 3))
    border = total - images[:, :, 3:29, 3:29].sum((1, 2, 3))
    darker = middle / (12 * 12) < border / (32 * 32 - 26 * 26)
    return torch.where(darker.view(-1, 1, 1, 1), 1 - images, images)


def blurred(images: Tensor) -> Tensor:
    """Gaussian blur of one pixel."""
    return gaussian_blur(images, [7, 7], [1.0, 1.0])


def coloured_ground(images: Tensor) -> Tensor:
    """A random, uneven coloured background behind white digits, of brightness up to 0.6."""
    ground = F.interpolate(0.6 * _random(len(images), 3, 3, 3), (32, 32), mode="bicubic")
    return images + (1 - images) * ground.clamp(0, 1)


def neighbours(images: Tensor) -> Tensor:
    """Parts of two other digits, 20 pixels to the left and to the right."""
    shifted = F.pad(images, (20, 20))
    order = torch.argsort(_random(2, len(images)), dim=1)
    left, right = shifted[order[0]][..., 40:], shifted[order[1]][..., :32]
    return torch.maximum(images, torch.maximum(left, right))


def enlarged(images: Tensor) -> Tensor:
    """The middle 20 x 20 pixels fill the frame."""
    return F.interpolate(images[:, :, 6:26, 6:26], (32, 32), mode="bilinear", antialias=True)


def shrunk(images: Tensor) -> Tensor:
    """The picture at 20 x 20 pixels, its border repeated outwards."""
    small = F.interpolate(images, (20, 20), mode="bilinear", antialias=True)
    return F.pad(small, (6, 6, 6, 6), mode="replicate")


def without_sides(images: Tensor) -> Tensor:
    """The outer 8 columns on both sides replaced by the column next to them."""
    return F.pad(images[..., 8:24], (8, 8, 0, 0), mode="replicate")


CONTROLS: dict[str, dict[str, tuple[Callable[[Tensor], Tensor], ...]]] = {
    "mnist": {
        "unchanged": (),
        "inverted": (inverted,),
        "low contrast": (low_contrast,),
        "blurred": (blurred,),
        "enlarged": (enlarged,),
        "neighbours": (neighbours,),
        "coloured background": (coloured_ground,),
        "four together": (neighbours, coloured_ground, blurred, low_contrast),
    },
    "svhn": {
        "unchanged": (),
        "inverted": (inverted,),
        "grey": (grey,),
        "bright digit": (bright_digit,),
        "full contrast": (full_contrast,),
        "sides removed": (without_sides,),
        "shrunk": (shrunk,),
        "five together": (grey, without_sides, bright_digit, full_contrast, shrunk),
    },
}  # fmt: skip


def changed(images: Tensor, name: str, control: str) -> Tensor:
    """uint8 images (N, 3, 32, 32) of a data set as one of its controls changes them."""
    pictures = images.float() / 255
    for step in CONTROLS[name][control]:
        pictures = step(pictures)
    return (pictures.clamp(0, 1) * 255).round().byte()


@store.stored(
    lambda name: f"representation/controls-{name}",
    lambda name: [store.images(name), *map(store.weights, NAMES)],
)
def control_answers(name: str) -> dict[str, np.ndarray]:
    """What both models answer under each control, by model: uint8 (controls, N)."""
    images = data.load(name, "test").images
    models = {model: inference.load(model) for model in NAMES}
    found: dict[str, list[np.ndarray]] = {model: [] for model in NAMES}
    for control in CONTROLS[name]:
        pictures = changed(images, name, control)
        for model, network in models.items():
            found[model].append(predict_logits(network, pictures).argmax(1).cpu().numpy())
    return {model: np.array(rows).astype("u1") for model, rows in found.items()}


def controls(name: str) -> pd.DataFrame:
    """Accuracy of each model (columns) on a data set's test split under each control (rows)."""
    truth, found = predictions.predict(name, name).labels, control_answers(name)
    accuracy = {model: (found[model] == truth).mean(1) for model in NAMES}
    return pd.DataFrame(accuracy, index=list(CONTROLS[name]))


@store.stored(
    lambda name: f"representation/control-examples-{name}", lambda name: [store.images(name)]
)
def examples(name: str) -> dict[str, np.ndarray]:
    """The first test image of each of `EXAMPLES` by control, uint8 (n, 3, 32, 32)."""
    split = data.load(name, "test")
    first = split.take(np.array([int((split.labels == digit).nonzero()[0]) for digit in EXAMPLES]))
    return {control: changed(first.images, name, control).numpy() for control in CONTROLS[name]}
