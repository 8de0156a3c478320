"""Improvements to the model, tried at equal cost in use: views, an ensemble, another training.

Three passes through a network an image: three views of it through one training, their mean softmax,
or the image through three trainings. Which views is chosen on validation; the test split reports.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import predictions, runs, stats, store
from ..predictions import Predictions, answered, softmax
from ..sources import TITLES
from .evaluation import cross_entropy
from .values import Count, Points, Share, Spread

# Sets of three views: (pixels to the right, pixels down, magnification).
VIEWS = {
    "moved sideways": ((0, 0, 1.0), (1, 0, 1.0), (-1, 0, 1.0)),
    "moved up and down": ((0, 0, 1.0), (0, 1, 1.0), (0, -1, 1.0)),
    "magnified": ((0, 0, 1.0), (0, 0, 0.93), (0, 0, 1.07)),
}


@store.stored(
    lambda run: f"evaluation/{run}-views",
    lambda run: [
        store.weights(run),
        *(store.images(runs.get(run).data, split) for split in ("validation", "test")),
    ],
)
def view_answers(run: str) -> dict[str, np.ndarray]:
    """What a training answers to the mean softmax of each of `VIEWS`.

    By split, answers uint8 (sets, N) as ``validation`` and ``test``; ``loss`` (sets,), the mean
    cross-entropy on validation in nats.
    """
    import torch
    import torch.nn.functional as F

    from .. import data, inference

    model, name = inference.load(run), runs.get(run).data

    def view(images: torch.Tensor, right: int, down: int, larger: float) -> torch.Tensor:
        matrix = torch.tensor([[1 / larger, 0, -right / 16], [0, 1 / larger, -down / 16]])
        grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), False)
        moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return moved.round().clamp(0, 255).to(torch.uint8)

    found: dict[str, list] = {"validation": [], "test": [], "loss": []}
    for split in ("validation", "test"):
        images = data.load(name, split).images
        labels = predictions.predict(run, name, split).labels
        logits: dict[tuple, np.ndarray] = {}
        for each in dict.fromkeys(each for views in VIEWS.values() for each in views):
            parts = [
                inference.predict_logits(model, view(part, *each)).cpu().numpy()
                for part in images.split(2000)
            ]
            logits[each] = softmax(np.concatenate(parts))
        for views in VIEWS.values():
            mean = np.mean([logits[each] for each in views], axis=0)
            found[split].append(mean.argmax(1).astype(np.uint8))
            if split == "validation":
                found["loss"].append(cross_entropy(mean, labels))
    return {name: np.array(values) for name, values in found.items()}


def ensemble(name: str, split: str = "test") -> Predictions:
    """The mean softmax of a data set's trainings, as logits (N, 10)."""
    every = [predictions.predict(run, name, split) for run in runs.trainings(name)]
    mean = np.mean([p.probabilities for p in every], axis=0)
    first = every[0]
    return Predictions(np.log(mean.clip(1e-12)), mean.argmax(1), first.labels, first.indices)


@dataclass(frozen=True)
class Tried:
    """Improvements of a data set's models, on test.

    Attributes:
        plain: accuracy of the trainings, one pass an image.
        views: name of the set of `VIEWS` with the best validation accuracy over the trainings
            (ties: lower loss), and `viewed`, the accuracy of each training with it.
        ensemble: accuracy of the mean of all trainings.
        gain: of the ensemble over the mean training (paired by image); `view_gain` that of the
            views (paired by training), both with Student's t.
        mended, made: test errors of the first training that the ensemble mends, and those it makes;
            `p` is McNemar's.
    """

    plain: Spread
    views: str
    viewed: Spread
    ensemble: Share
    gain: Points
    view_gain: Points
    mended: Count
    made: Count
    p: float


def tried(name: str) -> Tried:
    """What the average of the trainings gains, and what as many views of one gain."""
    trained = runs.trainings(name)
    every = {
        s: [predictions.predict(run, name, s) for run in trained] for s in ("validation", "test")
    }
    kept = [view_answers(run) for run in trained]

    def accuracy(split: str, number: int) -> list[float]:
        return [
            (k[split][number] == p.labels).mean() for k, p in zip(kept, every[split], strict=True)
        ]

    order = sorted(
        range(len(VIEWS)),
        key=lambda n: (-np.mean(accuracy("validation", n)), np.mean([k["loss"][n] for k in kept])),
    )
    plain = [(~p.wrong).mean() for p in every["test"]]
    viewed, joint = accuracy("test", order[0]), ensemble(name)
    right = int((~joint.wrong).sum())
    against = stats.mcnemar(every["test"][0].wrong, joint.wrong)
    single = np.mean([~p.wrong for p in every["test"]], axis=0)  # by image
    gain = stats.difference(~joint.wrong, single, paired=True)
    return Tried(
        Spread(plain), list(VIEWS)[order[0]], Spread(viewed), Share(right, len(joint.labels)),
        Points(gain), Points(stats.difference(viewed, plain, paired=True)),
        Count(against.mended), Count(against.made), against.p_value,
    )  # fmt: skip


@dataclass(frozen=True)
class Change:
    """A change of training against none, by seed.

    Attributes:
        plain, changed: accuracy on test.
        gain: of the change on test, paired by seed (Student's t).
    """

    plain: Spread
    changed: Spread
    gain: Points


def change(setting: str) -> Change:
    """What a setting of `runs.IMPROVEMENTS` does to SVHN's accuracy."""

    def accuracy(kind: str) -> list[float]:
        trained = [
            run for run in runs.registry().values() if run.name == f"svhn-improvement-{kind}"
        ]
        every = [answered(run, "svhn", "test") for run in trained]
        return [float((found.predicted == found.labels).mean()) for found in every]

    plain, changed = accuracy("plain"), accuracy(setting)
    gain = Points(stats.difference(changed, plain, paired=True))
    return Change(Spread(plain), Spread(changed), gain)


def table() -> pd.DataFrame:
    """Accuracy on test of what was tried, a column a data set, as shown."""
    found = {name: tried(name) for name in TITLES}
    rows = {
        "one run, one view": [each.plain for each in found.values()],
        "one run, three views": [each.viewed for each in found.values()],
        "three runs, one view": [each.ensemble.at(2) for each in found.values()],
        "gain of three runs, in points": [each.gain.signed_full for each in found.values()],
    }
    frame = pd.DataFrame(rows, index=list(TITLES.values()), dtype=object)
    return frame.T.rename_axis("what answers")
