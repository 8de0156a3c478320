"""Where two unequally frequent digits lie in the features of `imbalance`'s networks; draws nothing.

Features need weights, which the pictured runs alone have (`runs.is_pictured`): the three cases of
both data sets, seed 42.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.linalg import orthogonal_procrustes
from sklearn.neighbors import NearestNeighbors

from .. import runs, store
from ..runs import CASES, PAIR
from ..sources import NAMES, TITLES
from .representation import NEIGHBOURS, layout
from .values import Number, Share

if TYPE_CHECKING:
    from ..data import Split

BY_CASE = ("points", "predicted", "twos")  # of a map


def geometry(
    found: np.ndarray, labels: np.ndarray, known: np.ndarray, known_labels: np.ndarray
) -> dict[str, float]:
    """How two classes lie in a feature space; a radius is the root mean square from the mean.

    ``separation``: distance of the means of both classes over the mean of their radii. ``width``:
    radius of class 1 over that of class 2. ``drift_1``, ``drift_2``: how far the mean of a class
    lies on the way from the mean of its *training* samples (0) to that of the other class's (1).

    Args:
        found, labels: test features (N, d) and their classes, 1 or 2.
        known, known_labels: the same of the training images.
    """
    parts = [found[labels == digit] for digit in PAIR]
    one, two = (part.mean(0) for part in parts)
    radii = [np.sqrt(((p - p.mean(0)) ** 2).sum(1).mean()).clip(1e-9) for p in parts]
    learnt, other = (known[known_labels == digit].mean(0) for digit in PAIR)
    way = (other - learnt) / max(((other - learnt) ** 2).sum(), 1e-9)
    return {
        "separation": np.linalg.norm(one - two) / np.mean(radii),
        "width": radii[0] / radii[1],
        "drift_1": (one - learnt) @ way,
        "drift_2": (other - two) @ way,
    }


@store.stored(
    lambda run, name: f"imbalance/geometry-{run}-on-{name}",
    lambda run, name: [
        store.weights(run),
        store.images(runs.get(run).data, "train"),
        store.images(name),
    ],
)
def kept_geometry(run: str, name: str) -> dict[str, np.ndarray]:
    """`geometry` of a pictured run's features of a test split."""
    from .. import inference

    network, parts = inference.load(run), (_images(name, "test"), _training_images(run))
    test, known = (inference.extract_features(network, part.images) for part in parts)
    labels, known_labels = (part.labels.numpy() for part in parts)
    return geometry(test, labels, known, known_labels)


def _images(name: str, split: str, one: int | None = None, two: int | None = None) -> Split:
    """At most so many images of 1 and of 2 of a split, drawn as the pictured runs draw them."""
    from .. import data

    counts = dict(zip(PAIR, (one, two), strict=True))
    return data.class_subset(data.load(name, split), counts, runs.SEED)


def _training_images(run: str) -> Split:
    """What a pictured run learned from."""
    config = runs.get(run)
    return _images(config.data, "train", *(count for _, count in config.class_counts))


def geometries(model: str, name: str) -> SimpleNamespace:
    """`geometry` of a model's pictured runs on a test split, by case; a drift is in per cent."""
    found = {}
    for case in CASES:
        kept = {what: float(v) for what, v in kept_geometry(f"{model}-{case}", name).items()}
        found[case] = SimpleNamespace(**{
            what: Number(100 * value, 0, "%") if what.startswith("drift") else Number(value)
            for what, value in kept.items()
        })  # fmt: skip
    return SimpleNamespace(**found)


def geometry_table() -> pd.DataFrame:
    """`geometries` of both models on both test splits, as shown."""
    columns = ["separation", "width '1' / '2'", "drift of '1'", "drift of '2'"]
    rows = []
    for model, name in itertools.product(NAMES, NAMES):
        for case, found in vars(geometries(model, name)).items():
            about = {"trained on": f"{TITLES[model]}, case {case[-1]}", "test images": TITLES[name]}
            rows.append(about | dict(zip(columns, vars(found).values(), strict=True)))
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
