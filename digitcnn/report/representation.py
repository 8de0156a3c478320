"""Representation: the 128 features of the fully connected layer, as maps and as distances.

A map (UMAP) shows which images lie together. What is said of distances and clusters is measured in
the feature space itself. The test splits only report; nothing is chosen with them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist

from .. import predictions, runs, store
from ..runs import SEED
from ..sources import NAMES, TITLES
from . import audit
from .values import Count, Number, Share

NEIGHBOURS = 15  # of UMAP and of the neighbour classifiers
QUERIES, FEW = 4000, 2000  # images whose neighbours, and whose silhouettes, are computed
OTHER = dict(zip(NAMES, reversed(NAMES), strict=True))


@dataclass(frozen=True)
class Map:
    """One UMAP: the features that a trained run gives to the whole test splits of `data`."""

    model: str
    data: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name in the cache."""
        return f"{self.model}-on-{'-and-'.join(self.data)}"


MAPS = tuple(
    Map(model, shown)
    for model, other in OTHER.items()
    for shown in ((model,), (model, other), (other,))
)


def _inputs(shown: Map) -> list[str]:
    """The tokens of what a map's features are made from."""
    return [store.weights(shown.model), *(store.images(name) for name in shown.data)]


def features(shown: Map) -> np.ndarray:
    """The features float32 (N, 128) behind a map."""
    from .. import inference  # imports torch

    parts = [inference.features(shown.model, name, "test", True) for name in shown.data]
    return np.concatenate([part["features"] for part in parts])


def layout(points: np.ndarray) -> np.ndarray:
    """UMAP (McInnes et al. 2018, arXiv 1802.03426) of (N, d) points, float16 (N, 2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and umap, about threads
        import umap

        mapper = umap.UMAP(
            n_neighbors=NEIGHBOURS,
            min_dist=0.1,
            n_epochs=200,
            init="pca",
            random_state=SEED,
            n_jobs=1,
        )
        return mapper.fit_transform(points).astype(np.float16)


@store.stored(lambda shown: f"umap/{shown.name}", _inputs)
def coordinates(shown: Map) -> dict[str, np.ndarray]:
    """UMAP coordinates ``xy`` float16 (N, 2) of a map, which differ between systems."""
    return {"xy": layout(features(shown))}


def points(shown: Map) -> np.ndarray:
    """The kept coordinates of a map, float32 (N, 2)."""
    return coordinates(shown)["xy"].astype("f4")


class Panel(NamedTuple):
    """A map as a figure shows it.

    Attributes:
        by: what colours it: ``class`` (the true one), ``answer`` or ``data``.
        points: coordinates (N, 2).
        groups: class, or position in the map's data sets, of each image, int (N,).
        wrong: bool (N,), images that are misread, where the figure marks them.
    """

    title: str
    shown: Map
    by: str
    points: np.ndarray
    groups: np.ndarray
    wrong: np.ndarray | None = None


def panel(title: str, shown: Map, by: str, marked: bool = False) -> Panel:
    """A map, coloured by ``class``, ``answer`` or ``data``; `marked` with its misread images."""
    found = [predictions.predict(shown.model, name) for name in shown.data]
    groups = {
        "class": [each.labels for each in found],
        "answer": [each.predicted for each in found],
        "data": [np.full(len(each.labels), place) for place, each in enumerate(found)],
    }
    wrong = np.concatenate([each.wrong for each in found]) if marked else None
    return Panel(title, shown, by, points(shown), np.concatenate(groups[by]), wrong)


def own_maps() -> list[list[Panel]]:
    """Each model on its own data set, by class, with its errors."""
    return [[panel(f"{TITLES[n]} model, {TITLES[n]}", Map(n, (n,)), "class", True) for n in NAMES]]


def joint_maps() -> list[list[Panel]]:
    """Both data sets in one map of each model: by data set, and by class."""
    return [
        [
            panel(f"{TITLES[model]} model, by {by}", Map(model, (model, other)), kind)
            for by, kind in (("data set", "data"), ("class", "class"))
        ]
        for model, other in OTHER.items()
    ]


def foreign_maps() -> list[list[Panel]]:
    """The other data set alone in a map of each model: by true class, and by answer."""
    return [
        [
            panel(f"{TITLES[model]} model, {TITLES[other]}, by {by}", Map(model, (other,)), by)
            for by in ("class", "answer")
        ]
        for model, other in OTHER.items()
    ]


# Distances in the feature space -------------------------------------------------------------------


@store.stored(
    lambda run: f"representation/neighbours-{run}",
    lambda run: _inputs(Map(run, NAMES)),
)
def neighbours(run: str) -> dict[str, np.ndarray]:
    """Random test images of both data sets among all test images, in a run's 128 features.

    By data set: ``<name>-at`` int64 (n,), positions of `QUERIES` images in its test split; for each
    data set ``<name>-vote-<other>`` uint8 (n,), the class of most of the 15 nearest other images
    there; ``<name>-here`` uint8 (n,), how many of the 15 nearest of both are of its own data set;
    ``<name>-far`` float16 (n,), the distance to the nearest that the run has learned the like of;
    ``<name>-silhouettes`` (2,) of the first `FEW`, by true class and by answer;
    ``<name>-centres`` float32 (10, 128), the mean features of each true class, and
    ``<name>-radius`` float32 (10,), the mean distance from there.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    spaces = {name: features(Map(run, (name,))) for name in NAMES}
    said = {name: predictions.predict(run, name) for name in NAMES}
    found = {}
    for name, space in spaces.items():
        at = np.random.default_rng(SEED).permutation(len(space))[:QUERIES]
        far: dict[str, np.ndarray] = {}
        for other, target in spaces.items():
            search = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(target)
            kept = slice(1, None) if other == name else slice(None, -1)  # the first is itself
            far[other], near = (part[:, kept] for part in search.kneighbors(space[at]))
            found[f"{name}-vote-{other}"] = majority(said[other].labels[near])
        ranks = np.argsort(np.hstack([far[name], far[OTHER[name]]]), axis=1)
        found[f"{name}-here"] = (ranks[:, :NEIGHBOURS] < NEIGHBOURS).sum(1).astype("u1")
        found[f"{name}-far"] = far[runs.get(run).data][:, 0].astype("f2")
        found[f"{name}-at"], few = at, at[:FEW]
        found[f"{name}-silhouettes"] = np.array(
            [
                silhouette_score(space[few], by[few]) if len(set(by[few])) > 1 else np.nan
                for by in (said[name].labels, said[name].predicted)
            ]
        )
        parts = [space[said[name].labels == digit] for digit in range(10)]
        centres = np.array([part.mean(0) for part in parts])
        found[f"{name}-centres"] = centres
        found[f"{name}-radius"] = np.array(
            [np.linalg.norm(p - c, axis=1).mean() for p, c in zip(parts, centres, strict=True)]
        )
    return found


def majority(classes: np.ndarray) -> np.ndarray:
    """The most frequent of the classes in each row, the lowest of several, uint8 (n,)."""
    votes = np.stack([(classes == digit).sum(1) for digit in range(10)], axis=1)
    return votes.argmax(1).astype("u1")


@dataclass(frozen=True)
class Space:
    """How a model's 128 features hold the test images of a data set.

    Attributes:
        own: whether it is the data set that the model learned.
        alike: share of the images most of whose 15 nearest other images of this data set are of
            their class; `alike_in_map` the same of the nearest in the map of this data set.
        voted: share of the images whose class is that of most of their 15 nearest among the test
            images that the model knows the like of, its own data set's.
        apart: share of the images most of whose 15 nearest images of both data sets are of theirs.
        silhouette, silhouette_answers: mean silhouette from -1 to 1, by true class and by answer.
        far: median distance to the nearest image of the own data set, in that of own images.
        nearest: for each class, the class of the own data set whose centre is nearest to its
            centre, int (10,).
        between: mean distance between two class centres, in that of the own data set's.
        radius: mean distance of an image from the centre of its class, in the same unit.
    """

    own: bool
    alike: Share
    alike_in_map: Share
    voted: Share
    apart: Share
    silhouette: Number
    silhouette_answers: Number
    far: Number
    nearest: np.ndarray
    between: Number
    radius: Number

    @property
    def at_home(self) -> Count:
        """How many classes lie nearest to the own class of the same name."""
        return Count((self.nearest == np.arange(10)).sum())


MEASURES = {
    "alike": "same class",
    "alike_in_map": "same class, in the map",
    "voted": "same class, among the model's own data",
    "apart": "same data set",
    "far": "distance to the model's own data",
    "between": "distance between classes",
    "radius": "radius of a class",
    "silhouette": "silhouette by class",
    "silhouette_answers": "silhouette by answer",
}


def space(run: str, name: str) -> Space:
    """How a run's features hold the test images of a data set."""
    own, found = runs.get(run).data, neighbours(run)
    labels, at = predictions.predict(run, name).labels, found[f"{name}-at"]
    flat = points(Map(run, (name,)))
    _, near = cKDTree(flat).query(flat[at], NEIGHBOURS + 1)
    votes = found[f"{name}-vote-{name}"], majority(labels[near[:, 1:]]), found[f"{name}-vote-{own}"]
    here = found[f"{name}-here"] > NEIGHBOURS / 2
    far = [np.median(found[f"{each}-far"].astype(float)) for each in (name, own)]
    centres, home = found[f"{name}-centres"], found[f"{own}-centres"]
    unit = pdist(home).mean()
    return Space(
        own == name, *(Share((vote == labels[at]).sum(), len(at)) for vote in votes),
        Share(here.sum(), len(here)), *(Number(value) for value in found[f"{name}-silhouettes"]),
        Number(far[0] / far[1], 1), cdist(centres, home).argmin(1),
        Number(pdist(centres).mean() / unit), Number(found[f"{name}-radius"].mean() / unit),
    )  # fmt: skip


def own(model: str) -> Space:
    """`space` of a data set's first model on its own data set."""
    return space(model, model)


def foreign(model: str) -> Space:
    """`space` of a data set's first model on the other data set."""
    return space(model, OTHER[model])


def spaces_table() -> pd.DataFrame:
    """`space` of both models on both data sets, a column each, as shown."""
    columns = {}
    for model, name in ((m, n) for m in NAMES for n in (m, OTHER[m])):
        found = space(model, name)
        columns[f"{TITLES[model]} model, {TITLES[name]}"] = [getattr(found, m) for m in MEASURES]
    frame = pd.DataFrame(columns, index=list(MEASURES.values()), dtype=object)
    return frame.rename_axis("measure")


@dataclass(frozen=True)
class Sevens:
    """Dense groups of MNIST's test images of a 7 in the features, see `audit.sevens`.

    Attributes:
        groups: how many, of `larger` and `smaller` images; `inside`, the share of all sevens that
            are in one; `silhouette` of these.
        larger_barred, smaller_barred: of those that readers looked at, the share to which both
            gave the code ``bar``.
    """

    groups: Count
    larger: Count
    smaller: Count
    inside: Share
    silhouette: Number
    larger_barred: Share
    smaller_barred: Share


def sevens() -> Sevens:
    """The groups of sevens of the first MNIST training, and what readers saw in them."""
    found, barred = audit.sevens("mnist"), audit.in_cluster("mnist", "bar")
    sizes = np.bincount(found["cluster"][found["cluster"] >= 0], minlength=2)
    return Sevens(
        Count(found["clusters"][7]), Count(sizes[0]), Count(sizes[1]),
        Share(sizes.sum(), len(found["cluster"])), Number(found["silhouette"]),
        barred["a"], barred["b"],
    )  # fmt: skip
