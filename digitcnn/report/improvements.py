"""Improvements without retraining: several views of an image, and leave to say nothing.

Whatever is chosen (transforms, thresholds) is chosen on the validation split; the test split only
reports. Temperature scaling is in `digitcnn.report.evaluation`.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import data, inference, predictions, runs, store
from ..model import DigitCNN
from ..predictions import Predictions, softmax
from ..stats import proportion
from ..training import EVALUATION_BATCH, predict_logits
from .evaluation import cross_entropy

# Selective prediction


def coverage_curve(p: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Coverage in (0, 1] and accuracy of the so many most confident samples, each (N,)."""
    order = np.argsort(-p.probabilities.max(1), kind="stable")
    kept = np.arange(1, len(order) + 1)
    return kept / len(order), np.cumsum(~p.wrong[order]) / kept


def selective(
    validation: Predictions, test: Predictions, rejected: tuple[float, ...]
) -> pd.DataFrame:
    """Reject what is less confident than a threshold (Geifman and El-Yaniv 2017).

    The thresholds are the validation split's quantiles at the shares `rejected`. A row a share:
    ``rejected``, ``threshold``, ``coverage`` and ``accuracy`` of the test split (`Estimate`), and
    ``caught``, the share of all test errors among the rejected.
    """
    confidence = test.probabilities.max(1)
    rows = []
    for share in rejected:
        threshold = np.quantile(validation.probabilities.max(1), share)
        kept = confidence >= threshold
        rows.append(
            {
                "rejected": share,
                "threshold": threshold,
                "coverage": proportion(kept.sum(), len(kept)),
                "accuracy": proportion((kept & ~test.wrong).sum(), kept.sum()),
                "caught": proportion((test.wrong & ~kept).sum(), test.wrong.sum()),
            }
        )
    return pd.DataFrame(rows)


# Test-time augmentation

SHIFTS = ((0, 0, 1.0), (1, 0, 1.0), (-1, 0, 1.0), (0, 1, 1.0), (0, -1, 1.0))
SCALES = ((0, 0, 1.0), (0, 0, 0.93), (0, 0, 1.07))
VIEW_SETS = {  # (pixels right, pixels down, magnification)
    "shifts": SHIFTS,
    "scales": SCALES,
    "shifts and scales": SHIFTS + SCALES[1:],
}


def candidates(run: runs.RunConfig) -> dict[str, list[tuple]]:
    """Sets of views by name, each view being (right, down, magnification, inverted).

    Inverted polarity is a candidate only where the network has learnt from inverted images.
    """
    sets = {"none": [(0, 0, 1.0, False)]}
    sets |= {name: [(*view, False) for view in views] for name, views in VIEW_SETS.items()}
    if "colour" in run.augmentation:
        sets |= {
            ("inversion" if name == "none" else f"{name}, inversion"): views
            + [(*view[:3], True) for view in views]
            for name, views in list(sets.items())
        }
    return sets


def transformed(images: Tensor, view: tuple[int, int, float, bool]) -> Tensor:
    """A view of uint8 images (N, 3, 32, 32): moved, magnified, inverted; borders are repeated."""
    right, down, magnification, inverted = view
    if (right, down, magnification) != (0, 0, 1.0):
        size = images.shape[-1]
        matrix = torch.tensor(
            [[1 / magnification, 0, -2 * right / size], [0, 1 / magnification, -2 * down / size]]
        )
        grid = F.affine_grid(
            matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False
        )
        images = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        images = images.round().clamp(0, 255).to(torch.uint8)
    return 255 - images if inverted else images


def view_probabilities(
    model: DigitCNN, images: Tensor, views: list[tuple]
) -> dict[tuple, np.ndarray]:
    """Softmax (N, 10) of each view of uint8 images."""
    parts = {view: [] for view in views}
    for batch in images.split(EVALUATION_BATCH):  # all views at once would need gigabytes
        for view in views:
            logits = predict_logits(model, transformed(batch, view))
            parts[view].append(softmax(logits.cpu().numpy()))
    return {view: np.concatenate(found) for view, found in parts.items()}


class Augmented(NamedTuple):
    """Test-time augmentation of a run: the choice made on validation, and its results.

    Attributes:
        table: a row a candidate set: ``views``, and on validation ``accuracy`` and ``loss``.
        chosen: name of the set with the highest validation accuracy (ties: lower loss).
        validation, test: predictions whose logits are logs of the views' mean probabilities.
        seconds: processor time per 1,000 images, without and with the chosen set; least of five.
    """

    table: pd.DataFrame
    chosen: str
    validation: Predictions
    test: Predictions
    seconds: tuple[float, float]


@store.stored(
    lambda run: f"evaluation/{run}-views",
    lambda run: [store.weights(run), store.images(runs.get(run).data, "validation")],
)
def view_sets(run: str) -> dict[str, np.ndarray]:
    """``accuracy`` and ``loss`` of each of the `candidates` on a run's validation split, (k,)."""
    config = runs.get(run)
    sets, split = candidates(config), data.load(config.data, "validation")
    views = list(dict.fromkeys(view for members in sets.values() for view in members))
    single = view_probabilities(inference.load(config), split.images, views)
    means = [np.mean([single[view] for view in members], 0) for members in sets.values()]
    labels = split.labels.numpy()
    return {
        "accuracy": np.array([(mean.argmax(1) == labels).mean() for mean in means]),
        "loss": np.array([cross_entropy(mean, labels) for mean in means]),
    }


@store.stored(
    lambda run, name: f"evaluation/{run}-augmented",
    lambda run, name: [
        store.weights(run),
        *(store.images(runs.get(run).data, split) for split in ("validation", "test")),
        f"value {name}",
    ],
)
def view_logits(run: str, name: str) -> dict[str, np.ndarray]:
    """Logits float16 (N, 10) of a run with one of its `candidates`, by split."""
    config = runs.get(run)
    model, views = inference.load(config), candidates(config)[name]
    found = {}
    for split in ("validation", "test"):
        single = view_probabilities(model, data.load(config.data, split).images, views)
        found[split] = _log_mean(list(single.values()))
    return found


@store.stored(
    lambda run, name: f"evaluation/{run}-seconds",
    lambda run, name: [
        store.weights(run),
        store.images(runs.get(run).data, "validation"),
        f"value {name}",
    ],
)
def view_seconds(run: str, name: str) -> dict[str, np.ndarray]:
    """``seconds`` per 1,000 images without and with one of the `candidates`, (2,)."""
    config = runs.get(run)
    model, sets = inference.load(config), candidates(config)
    batch = data.load(config.data, "validation").images[:EVALUATION_BATCH]
    return {"seconds": np.array([_seconds(model, batch, sets[n]) for n in ("none", name)])}


def augmented(run: str) -> Augmented:
    """Test-time augmentation of a run on its own data, chosen on validation.

    The times are a result of their own, so that they can be taken again by deleting its file.
    """
    config, found = runs.get(run), view_sets(run)
    sets = candidates(config)
    table = pd.DataFrame({"views": [len(views) for views in sets.values()], **found}, index=[*sets])
    chosen = table.sort_values(["accuracy", "loss"], ascending=[False, True], kind="stable").index[
        0
    ]
    by_split = []
    for split, logits in view_logits(run, chosen).items():
        plain = predictions.predict(config, config.data, split)
        logits = logits.astype(np.float32)
        by_split.append(Predictions(logits, logits.argmax(1), plain.labels, plain.indices))
    return Augmented(table, chosen, *by_split, tuple(view_seconds(run, chosen)["seconds"].tolist()))


def _log_mean(probabilities: list[np.ndarray]) -> np.ndarray:
    """Logits of the mean probabilities of some views, float16 to keep the cache small."""
    return np.log(np.mean(probabilities, 0).clip(1e-7)).astype(np.float16)


def _seconds(model: DigitCNN, images: Tensor, views: list[tuple]) -> float:
    """Processor seconds per 1,000 images with all views, which other processes hardly change."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        view_probabilities(model, images, views)
        taken.append(time.process_time() - began)
    return min(taken) * 1000 / len(images)
