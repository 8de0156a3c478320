"""Representation: what the feature layer has learnt, across both data sets; draws nothing.

What needs features is kept (`digitcnn.store`): coordinates in ``cache/umap/``, numbers in
``cache/representation/``. The test splits only report; nothing is chosen with them.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness
from sklearn.metrics import roc_auc_score
from sklearn.metrics import silhouette_score as silhouette
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import normalize

from .. import checkpoints, data, files, inference, predictions, store
from ..model import CLASSES
from ..sources import NAMES
from . import evaluation

SEED = data.SEED
NEIGHBOURS = 15  # of UMAP, of the neighbour classifiers and of trustworthiness
FOLDS, FEW, PAIR = 5, 2000, 300  # at most FEW samples a fold, PAIR a class, in quadratic measures
DISTANCE_RANK = 10  # the neighbour whose distance says how far an image is from known ones
OTHER = dict(zip(NAMES, reversed(NAMES), strict=True))
DIGITS = range(CLASSES)


@dataclass(frozen=True)
class Map:
    """One UMAP: a model's features, trained or not, of the whole test splits of `data`."""

    model: str
    data: tuple[str, ...]
    trained: bool = True

    @property
    def name(self) -> str:
        """Name in the cache."""
        return f"{'' if self.trained else 'untrained-'}{self.model}-on-{'-and-'.join(self.data)}"


MAPS = tuple(
    shown
    for own, other in OTHER.items()
    for shown in (
        Map(own, (own, other)),
        Map(own, (own,)),
        Map(own, (own,), False),
        Map(own, (other,)),
    )
)


def _inputs(shown: Map) -> list[str]:
    """The tokens of what a map's features are made from."""
    return [store.weights(shown.model), *(store.images(name) for name in shown.data)]


def confusion(model: str, name: str) -> np.ndarray:
    """Confusion matrix int (10, 10) of a model on a test split; rows are true classes."""
    return evaluation.confusion(predictions.predict(model, name))


def labels(names: tuple[str, ...]) -> np.ndarray:
    """True classes (N,) of the test splits of `names`, one after the other."""
    return np.concatenate([predictions.predict(name, name).labels for name in names])


def origins(shown: Map) -> np.ndarray:
    """Which of a map's data sets each of its samples is from, as a position, (N,)."""
    sizes = [len(predictions.predict(name, name).labels) for name in shown.data]
    return np.repeat(np.arange(len(sizes)), sizes)


def features(shown: Map) -> np.ndarray:
    """The features float32 (N, 128) behind a map."""
    return np.concatenate(
        [
            inference.features(shown.model, name, "test", shown.trained)["features"]
            for name in shown.data
        ]
    )


# Maps ---------------------------------------------------------------------------------------------


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


def all_points() -> dict[Map, np.ndarray]:
    """The coordinates of all `MAPS`; those that are missing are computed two at a time."""
    for model, name in itertools.product(NAMES, NAMES):
        checkpoints.ensure(model)  # here, not in two processes at once
        predictions.predict(model, name)
    if missing := [shown for shown in MAPS if store.stale(coordinates.path(shown))]:
        files.say(f"UMAP of {len(missing)} sets of features, for a few minutes.")
        Parallel(n_jobs=2)(delayed(points)(shown) for shown in missing)
    return {shown: points(shown) for shown in MAPS}


QUALITY = (
    "silhouette 128-d",
    "silhouette 2-D",
    "neighbours 128-d",
    "neighbours 2-D",
    "trustworthiness",
)


@store.stored(
    lambda shown: f"representation/quality-{shown.name}",
    lambda shown: [*_inputs(shown), store.result(f"umap/{shown.name}")],
)
def fold_quality(shown: Map) -> dict[str, np.ndarray]:
    """``rows`` (5, 5): `QUALITY` of a map in each of five disjoint stratified fifths."""
    spaces, truth = (features(shown), points(shown)), labels(shown.data)
    rows = []
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    for train, fold in folds.split(truth, truth):
        few = np.random.default_rng(SEED).permutation(fold)[:FEW]
        row = [silhouette(space[few], truth[few]) for space in spaces]
        for space in spaces:
            model = KNeighborsClassifier(NEIGHBOURS).fit(space[train], truth[train])
            row.append(model.score(space[fold], truth[fold]))
        near = [space[few] for space in spaces]
        rows.append([*row, trustworthiness(*near, n_neighbors=NEIGHBOURS)])
    return {"rows": np.array(rows)}


def quality(shown: Map) -> pd.DataFrame:
    """How well a map's classes are separated and its neighbourhoods kept.

    Mean and standard deviation (rows) over five disjoint stratified fifths of the test split of:
    ``silhouette`` and ``neighbour accuracy`` (a fifth classified by its 15 nearest neighbours in
    the rest) in 128 dimensions and in 2, and ``trustworthiness`` (Venna and Kaski 2001) of the
    map. Silhouette and trustworthiness use at most 2,000 samples a fifth.
    """
    coordinates(shown)  # before what depends on it
    return pd.DataFrame(fold_quality(shown)["rows"], columns=QUALITY).agg(["mean", "std"])


@store.stored(
    lambda model: f"representation/errors-{model}",
    lambda model: _inputs(Map(model, (model,))),
)
def error_neighbours(model: str) -> dict[str, np.ndarray]:
    """``classes`` (errors, 15) of the samples nearest to each own misclassified test sample."""
    found = predictions.predict(model, model)
    if not found.wrong.any():
        return {"classes": np.empty((0, NEIGHBOURS), "u1")}
    space = features(Map(model, (model,)))
    near = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(space)
    order = near.kneighbors(space[found.wrong], return_distance=False)[:, 1:]
    return {"classes": found.labels[order].astype("u1")}  # without the sample itself


def error_majorities(model: str) -> dict[str, float]:
    """What the 15 nearest neighbours of the misclassified own test samples are, in 128-d.

    Shares of these samples: ``predicted``, where most neighbours are of the class that the sample
    is read as, and ``true``, where most are of its own class; NaN if nothing is misclassified.
    """
    found, classes = predictions.predict(model, model), error_neighbours(model)["classes"]
    if not len(classes):
        return {"predicted": float("nan"), "true": float("nan")}
    candidates = {"predicted": found.predicted, "true": found.labels}
    return {
        name: float(((classes == each[found.wrong][:, None]).mean(1) > 0.5).mean())
        for name, each in candidates.items()
    }


@store.stored(
    lambda model: f"representation/pairs-{model}",
    lambda model: _inputs(Map(model, (model,))),
)
def pair_silhouettes(model: str) -> dict[str, np.ndarray]:
    """``trained`` and ``untrained`` (45,): the silhouette of each two classes alone."""
    truth, random = labels((model,)), np.random.default_rng(SEED)
    chosen = [random.permutation(np.flatnonzero(truth == c))[:PAIR] for c in DIGITS]
    both = [np.concatenate([chosen[a], chosen[b]]) for a, b in itertools.combinations(DIGITS, 2)]
    found = {}
    for state, trained in (("trained", True), ("untrained", False)):
        space = features(Map(model, (model,), trained))
        found[state] = np.array([silhouette(space[at], truth[at]) for at in both])
    return found


def pairs(model: str) -> pd.DataFrame:
    """The 45 pairs of classes: how often confused on test, and how far apart in feature space.

    Columns: ``a``, ``b``, ``confused`` (errors in both directions), ``rate`` (of the samples of
    both classes), and those of `pair_silhouettes`.
    """
    combinations, counts = list(itertools.combinations(DIGITS, 2)), confusion(model, model)
    frame = pd.DataFrame(combinations, columns=["a", "b"])
    frame["confused"] = [int(counts[a, b] + counts[b, a]) for a, b in combinations]
    frame = frame.assign(**pair_silhouettes(model))
    frame["rate"] = frame["confused"] / [int(counts[[a, b]].sum()) for a, b in combinations]
    return frame.sort_values(["confused", "rate"], ascending=False, ignore_index=True)


def worst_pairs(model: str, count: int = 4) -> pd.DataFrame:
    """The first rows of `pairs` with ``classes`` as text, then the median of all pairs."""
    frame = pairs(model)
    worst = frame.head(count).assign(
        classes=[f"{a} and {b}" for a, b in frame[["a", "b"]].head(count).to_numpy()]
    )
    columns = ["classes", "confused", "untrained", "trained"]
    median = ["median pair", *frame[columns[1:]].median()]
    return pd.concat([worst[columns], pd.DataFrame([median], columns=columns)], ignore_index=True)


def pair_correlation(model: str) -> tuple[float, float]:
    """Spearman's rank correlation of confusion rate and separation over the pairs, and its p."""
    frame = pairs(model)
    if frame["rate"].nunique() < 2:
        return float("nan"), float("nan")
    return tuple(float(value) for value in spearmanr(frame["rate"], frame["trained"]))


@store.stored(
    lambda model: f"representation/mixture-{model}",
    lambda model: _inputs(Map(model, (model, OTHER[model]))),
)
def mixture(model: str) -> dict[str, np.ndarray]:
    """Both test splits in one feature space of a model.

    ``told apart``: balanced accuracy of telling the data set by 15 neighbours, cross-validated
    (0.5 is chance); ``class``: share of the other data set's samples whose 15 nearest neighbours
    among the own samples have their class; ``own norm`` and ``other norm``: median length of a
    feature vector.
    """
    names = (model, OTHER[model])
    spaces = [features(Map(model, (name,))) for name in names]
    origin = np.repeat([0, 1], [len(space) for space in spaces])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    neighbours = KNeighborsClassifier(NEIGHBOURS)
    told = cross_val_score(
        neighbours, np.concatenate(spaces), origin, cv=folds, scoring="balanced_accuracy"
    )
    own, other = (np.median(np.linalg.norm(space, axis=1)) for space in spaces)
    return {
        "told apart": told.mean(),
        "class": neighbours.fit(spaces[0], labels(names[:1])).score(spaces[1], labels(names[1:])),
        "own norm": own,
        "other norm": other,
    }


# Can the model tell? ------------------------------------------------------------------------------


@store.stored(
    lambda model: f"representation/distance-{model}",
    lambda model: [
        *_inputs(Map(model, (model, OTHER[model]))),
        store.images(model, "validation"),
    ],
)
def distances(model: str) -> dict[str, np.ndarray]:
    """Negative distance of ``own`` and ``other`` test features (N,) to the 10th nearest known one.

    Known are those of the own validation split; features are scaled to length 1.
    """
    known = normalize(inference.features(model, model, "validation")["features"])
    search = NearestNeighbors(n_neighbors=DISTANCE_RANK).fit(known)
    return {
        kind: -search.kneighbors(normalize(features(Map(model, (name,)))))[0][:, -1]
        for kind, name in (("own", model), ("other", OTHER[model]))
    }


def ood_scores(model: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """How familiar a model finds its own test split and the other's: (own, other) by score.

    Higher is more familiar. ``probability``: largest softmax probability (Hendrycks and Gimpel
    2017, arXiv 1610.02136); ``energy``: logsumexp of the logits, the negative free energy (Liu et
    al. 2020, arXiv 2010.03759); ``distance``: see `distances` (Sun et al. 2022, arXiv 2204.06507).
    """
    found = [predictions.predict(model, name) for name in (model, OTHER[model])]
    distance = distances(model)
    return {
        "probability": tuple(each.probabilities.max(1) for each in found),
        "energy": tuple(np.logaddexp.reduce(each.logits.astype(float), axis=1) for each in found),
        "distance": (distance["own"], distance["other"]),
    }


def detection(model: str) -> pd.DataFrame:
    """How well each score tells the own test split from the other data set's.

    Columns: ``auroc`` (0.5 is chance), ``error`` (its standard error, Hanley and McNeil 1982),
    ``accepted``, the share of the other data set accepted when 95 % of the own one are, and the
    accuracy on the ``right_accepted`` and the ``right_rejected`` part of the other data set.
    """
    rows, right = {}, ~predictions.predict(model, OTHER[model]).wrong
    for score, (own, other) in ood_scores(model).items():
        a = roc_auc_score(np.repeat([1, 0], [len(own), len(other)]), np.concatenate([own, other]))
        q1, q2 = a / (2 - a) - a * a, 2 * a * a / (1 + a) - a * a
        spread = a * (1 - a) + (len(own) - 1) * q1 + (len(other) - 1) * q2
        accepted = other >= np.quantile(own, 0.05)
        rows[score] = {
            "auroc": a,
            "error": max(spread / len(own) / len(other), 0) ** 0.5,
            "accepted": accepted.mean(),
            "right_accepted": right[accepted].mean() if accepted.any() else np.nan,
            "right_rejected": right[~accepted].mean() if not accepted.all() else np.nan,
        }
    return pd.DataFrame(rows).T
