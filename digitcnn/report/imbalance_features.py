"""Where two unequally frequent digits lie in the features of `imbalance`'s networks; draws nothing.

Features need weights, which the pictured runs alone have (`runs.is_pictured`): the three cases of
both data sets, seed 42, which the maps show. Of further seeds and of controls (`SEEDS`, `WEIGHED`)
the networks were trained again, and only the `moments` of their features are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.linalg import orthogonal_procrustes
from sklearn.neighbors import NearestNeighbors

from .. import runs, store
from ..runs import CASES, CONTROLS, PAIR
from ..sources import NAMES, TITLES
from .imbalance import ORDER, group, measured, scores
from .representation import NEIGHBOURS, layout
from .values import Points, Share, Spread

if TYPE_CHECKING:
    from ..data import Split

BY_CASE = ("points", "predicted", "twos")  # of a map
# Whose features are described; of case 3, which takes up to 23 times the steps, one training alone.
SEEDS = dict.fromkeys((*CASES, *CONTROLS), runs.SEEDS) | {"case3": runs.SEEDS[:1]}
WEIGHED = {case: ORDER[case.replace("-", "_")] for case in ("few", "case1", "case1-weighted",
                                                            "balanced", "many")}  # fmt: skip
PLAIN, DRIFT = {"scale": 1.0, "unit": ""}, {"scale": 100.0, "unit": "%", "single": 1}  # to print


def moments(found: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """``means`` (2, d) and ``radii`` (2,) of the features (N, d) of classes 1 and 2.

    A radius is the root mean square distance from the mean.
    """
    parts = [found[labels == digit].astype(float) for digit in PAIR]
    radii = [np.sqrt(((p - p.mean(0)) ** 2).sum(1).mean()) for p in parts]
    return {"means": np.array([p.mean(0) for p in parts]), "radii": np.array(radii)}


@store.stored(
    lambda run: f"imbalance/moments-{run}",
    lambda run: [
        store.weights(run),
        *sorted({store.images(runs.get(run).data, "train"), *map(store.images, NAMES)}),
    ],
)
def kept_moments(run: str) -> dict[str, np.ndarray]:
    """`moments` of a run's features, by ``<data set>-``: of the test images of both data sets, and
    ``training-`` of the images that the network learned from.

    Also ``<data set>-recall`` (2,) of both digits. Of a run whose weights are not kept, of the
    network trained again.
    """
    from .. import data, division, inference

    network, kept, config = inference.network(run), {}, runs.get(run)
    parts = {"training": data.training_part(config, division.pool(config.data))}
    parts |= {name: _images(name, "test") for name in NAMES}
    for part, split in parts.items():
        found, labels = inference.extract_features(network, split.images), split.labels.numpy()
        kept |= {f"{part}-{what}": value for what, value in moments(found, labels).items()}
        right = inference.output_layer(network, found).argmax(1) == labels
        kept[f"{part}-recall"] = np.array([right[labels == digit].mean() for digit in PAIR])
    return kept


def geometry(means: np.ndarray, radii: np.ndarray, learnt: np.ndarray) -> dict[str, float]:
    """How two classes lie in a feature space.

    ``separation``: distance of the means of both classes over the mean of their radii. ``width``:
    radius of class 1 over that of class 2. ``drift_1``, ``drift_2``: how far the mean of a class
    lies on the way from the mean of its *training* samples (0) to that of the other class's (1).

    Args:
        means, radii: `moments` of the test samples.
        learnt: the means of the training samples.
    """
    way = learnt[1] - learnt[0]
    way = way / max((way**2).sum(), 1e-9)
    return {
        "separation": np.linalg.norm(means[0] - means[1]) / radii.mean().clip(1e-9),
        "width": radii[0] / radii[1].clip(1e-9),
        "drift_1": (means[0] - learnt[0]) @ way,
        "drift_2": (learnt[1] - means[1]) @ way,
    }


def _images(name: str, split: str, one: int | None = None, two: int | None = None) -> Split:
    """At most so many images of 1 and of 2 of a split, drawn as the pictured runs draw them."""
    from .. import data

    counts = dict(zip(PAIR, (one, two), strict=True))
    return data.class_subset(data.load(name, split), counts, runs.SEED)


def _training_images(run: str) -> Split:
    """What a pictured run learned from."""
    config = runs.get(run)
    return _images(config.data, "train", *(count for _, count in config.class_counts))


def geometries(model: str, name: str, cases: Iterable[str] = CASES) -> SimpleNamespace:
    """`geometry` of a model's `trainings` on a test split by case or control (``case1_weighted``).

    A `Spread` each, drifts in per cent.
    """
    found = {}
    for case in cases:
        rows = []
        for run in trainings(model, case):
            kept = kept_moments(run)
            own = (kept[f"{name}-{what}"] for what in ("means", "radii"))
            rows.append(geometry(*own, kept["training-means"]))
        found[case.replace("-", "_")] = SimpleNamespace(**{
            what: Spread((row[what] for row in rows), **DRIFT if "drift" in what else PLAIN)
            for what in rows[0]
        })  # fmt: skip
    return SimpleNamespace(**found)


def trainings(model: str, case: str) -> list[str]:
    """The runs of a case whose features are described, by id."""
    return [run.id for run in group(model, case) if run.seed in SEEDS[case]]


def repeated() -> Points:
    """How much a network trained again differs from the first in the recall of its own 1s, at most.

    From the answers that were kept of the first; over all `trainings` without kept weights.
    """
    changes, cases = [0.0], [(model, case) for model in NAMES for case in CASES]
    for model, case in [*cases, *(("svhn", case) for case in WEIGHED)]:
        for run in map(runs.get, trainings(model, case)):
            first = measured(scores(run, model))["recall_1"]
            if not runs.keeps_weights(run):
                changes.append(abs(kept_moments(run.id)[f"{model}-recall"][0] - first))
    return Points((max(changes), float("nan"), float("nan")), most=1)


COLUMNS = ("separation", "width '1' / '2'", "drift of '1'", "drift of '2'")


def geometry_table() -> pd.DataFrame:
    """`geometries` of both models on both test splits, as shown."""
    rows = []
    for model, name in itertools.product(NAMES, NAMES):
        for case, found in vars(geometries(model, name)).items():
            about = {"trained on": f"{TITLES[model]}, case {case[-1]}", "test images": TITLES[name]}
            rows.append(about | dict(zip(COLUMNS, vars(found).values(), strict=True)))
    return pd.DataFrame(rows, dtype=object)


def weighed_table(model: str) -> pd.DataFrame:
    """`geometries` of a model on its own test split by `WEIGHED`, as shown."""
    rows = [
        {"trained on": words} | dict(zip(COLUMNS, vars(found).values(), strict=True))
        for words, found in zip(
            WEIGHED.values(), vars(geometries(model, model, WEIGHED)).values(), strict=True
        )
    ]
    return pd.DataFrame(rows, dtype=object)


def maps(model: str, name: str) -> SimpleNamespace:
    """Maps of the features of a model's three cases (seed 42) for both digits of a test split.

    By case ``points`` float32 (N, 2), ``predicted`` (N,) and ``twos`` (test images,), the number of
    2s among the `NEIGHBOURS` nearest other test images in the features; ``labels`` (N,);
    ``training`` (N,) tells the training images of case 1, which are embedded beside the own test
    images.
    """
    kept = dict(separate_maps(model, name))
    kept["points"] = kept["points"].astype("f4")
    by_case = {what: dict(zip(CASES, kept.pop(what), strict=True)) for what in BY_CASE}
    return SimpleNamespace(**kept | by_case)


def misread_ones(model: str, name: str) -> SimpleNamespace:
    """The test images of 1 that are misread, by case.

    ``all``: their share; ``among``: the share of these of which most of the nearest test images
    in the features are 2s.
    """
    shown, found = maps(model, name), {}
    ones = shown.labels[~shown.training] == PAIR[0]
    for case in CASES:
        wrong = ones & (shown.predicted[case][~shown.training] != PAIR[0])
        among = shown.twos[case][wrong] > NEIGHBOURS / 2
        found[case] = SimpleNamespace(
            all=Share(wrong.sum(), ones.sum()), among=Share(among.sum(), wrong.sum())
        )
    return SimpleNamespace(**found)


@store.stored(
    lambda model, name: f"imbalance/umap-{model}-on-{name}",
    lambda model, name: [
        *(store.weights(f"{model}-{case}") for case in CASES),
        store.images(model, "train"),
        store.images(name),
    ],
)
def separate_maps(model: str, name: str) -> dict[str, np.ndarray]:
    """``points`` (3, N, 2), ``predicted`` (3, N), ``twos`` (3, test images), ``labels`` and
    ``training`` (N,): see `maps`.

    Each map is fitted alone. As its orientation is arbitrary, those of cases 2 and 3 are turned,
    or mirrored, to lie as closely as they can on that of case 1 (orthogonal Procrustes problem).
    """
    import torch

    from .. import inference

    parts = [_images(name, "test")]
    if model == name:
        parts.append(_training_images(f"{model}-case1"))
    images, tests = torch.cat([part.images for part in parts]), len(parts[0])
    labels = torch.cat([part.labels for part in parts]).numpy()
    points, predicted, twos = [], [], []
    for case in CASES:
        network = inference.load(f"{model}-{case}")
        features = inference.extract_features(network, images)
        predicted.append(inference.output_layer(network, features).argmax(1))
        near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(features[:tests])
        others = near.kneighbors(return_distance=False)  # of each, without itself
        twos.append((labels[others] == PAIR[1]).sum(1))
        found = layout(features).astype(float)
        found -= found.mean(0)
        points.append(found @ orthogonal_procrustes(found, points[0])[0] if points else found)
    return {
        "points": np.array(points, "f2"),
        "predicted": np.array(predicted, "u1"),
        "twos": np.array(twos, "u1"),
        "labels": labels.astype("u1"),
        "training": np.arange(len(images)) >= tests,
    }
