"""Improvements without retraining: several views of an image, and leave to say nothing.

Whatever is chosen (transforms, thresholds) is chosen on the validation split; the test split only
reports. Temperature scaling is in `digitcnn.evaluation`.
"""

from __future__ import annotations

import inspect
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from . import data, files, predictions, runs
from .evaluation import DRAWS, Estimate, cross_entropy, percentiles, proportion
from .model import DigitCNN
from .predictions import Predictions, softmax
from .training import EVALUATION_BATCH, predict_logits

# Comparing two classifiers on the same images


class Comparison(NamedTuple):
    """Two classifiers on the same images: errors mended and made, the change, McNemar's p."""

    mended: int
    made: int
    difference: Estimate
    p_value: float


def compare(before: np.ndarray, after: np.ndarray) -> Comparison:
    """Compare errors (N,) of two classifiers: exact McNemar test and paired bootstrap.

    McNemar (1947): if neither is better, an image that only one of them gets right favours
    either with probability 1/2, which is a binomial test. The difference is that in accuracy.
    """
    total, mended, made = len(before), int((before & ~after).sum()), int((after & ~before).sum())
    p_value = stats.binomtest(mended, mended + made).pvalue if mended + made else 1.0
    shares = np.array([mended, made, total - mended - made]) / total
    drawn = np.random.default_rng(data.SEED).multinomial(total, shares, size=DRAWS)
    difference = percentiles((mended - made) / total, (drawn[:, 0] - drawn[:, 1]) / total)
    return Comparison(mended, made, difference, float(p_value))


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
    for batch in images.split(
        EVALUATION_BATCH
    ):  # the views of all images at once would need gigabytes
        for view in views:
            parts[view].append(
                softmax(predict_logits(model, transformed(batch, view)).cpu().numpy())
            )
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


def augmented(run_name: str) -> Augmented:
    """Test-time augmentation of a run on its own data, chosen on validation; cached.

    The times have a file of their own, so that they can be taken again by deleting it.
    """
    run = runs.get(run_name)
    sets = candidates(run)
    plain = {split: predictions.predict(run, run.data, split) for split in ("validation", "test")}
    code = map(inspect.getsource, (transformed, view_probabilities, _choose))
    ingredients = {
        split: predictions.depends_on(run, run.data, split) for split in ("validation", "test")
    } | {"code": files.fingerprint(runs.syntax("".join(code)), sets)}

    def images(split: str) -> Tensor:
        return data.load(run.data, split).images

    def make() -> dict[str, np.ndarray]:
        model = predictions.load(run)
        choice = _choose(model, images("validation"), plain["validation"].labels, sets)
        tested = view_probabilities(model, images("test"), sets[str(choice["chosen"])])
        return choice | {"test": _log_mean(list(tested.values()))}

    def make_times() -> dict[str, np.ndarray]:
        model, batch = predictions.load(run), images("validation")[:EVALUATION_BATCH]
        return {"seconds": np.array([_seconds(model, batch, sets[n]) for n in ("none", chosen)])}

    arrays = predictions.cached_arrays(f"evaluation/{run.id}-augmented", ingredients, make)
    chosen = str(arrays["chosen"])
    times = predictions.cached_arrays(
        f"evaluation/{run.id}-seconds",
        ingredients | {"timing": runs.syntax(inspect.getsource(_seconds))},
        make_times,
    )
    table = pd.DataFrame(
        {
            "views": [len(views) for views in sets.values()],
            "accuracy": arrays["accuracy"],
            "loss": arrays["loss"],
        },
        index=list(sets),
    )
    by_split = [
        Predictions(arrays[split].astype(np.float32), old.labels, old.indices)
        for split, old in plain.items()
    ]
    return Augmented(table, chosen, *by_split, tuple(times["seconds"].tolist()))


def _choose(
    model: DigitCNN, images: Tensor, labels: np.ndarray, sets: dict[str, list[tuple]]
) -> dict[str, np.ndarray]:
    """Accuracy and loss of each set on validation images, and the best set with its logits."""
    views = list(dict.fromkeys(view for members in sets.values() for view in members))
    single = view_probabilities(model, images, views)
    means = {name: np.mean([single[v] for v in members], 0) for name, members in sets.items()}
    accuracy = np.array([(mean.argmax(1) == labels).mean() for mean in means.values()])
    loss = np.array([cross_entropy(mean, labels) for mean in means.values()])
    chosen = list(sets)[np.lexsort((loss, -accuracy))[0]]
    return {
        "accuracy": accuracy,
        "loss": loss,
        "chosen": np.array(chosen),
        "validation": _log_mean([means[chosen]]),
    }


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
