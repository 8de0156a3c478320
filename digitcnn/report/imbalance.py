"""Imbalance: what networks trained on two unequally frequent digits do; draws nothing.

The runs are those of `runs.CASES` and `runs.CONTROLS`. What each answered on both test splits
restricted to digits 1 and 2 is kept with the run; features need weights, which the pictured runs
alone have (`runs.is_pictured`). The test splits only report; thresholds are chosen on validation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import (
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
    silhouette_score,
)
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from .. import data, files, inference, runs, stats, store
from ..predictions import answered
from ..runs import CASES, CONTROLS, PAIR, RunConfig
from ..sources import NAMES

SEED = data.SEED
FEW = 2000  # samples in quadratic measures
SHOWN = 500  # test samples a class in a map
NEIGHBOURS = 15
COVERED = (5, 50, 500)  # training images a class in `pixel_neighbours`
METRICS = ("accuracy", "precision_1", "recall_1", "precision_2", "recall_2", "roc_auc")
GEOMETRY = ("silhouette", "separation", "spread", "coverage")


@dataclass(frozen=True)
class Scores:
    """What a network says of the digits 1 and 2 of a split.

    Attributes:
        margin: logit of 1 minus logit of 2, float32 (N,), kept with half precision.
        predicted: most probable of all ten classes, int (N,).
        labels: true class, 1 or 2, int (N,).
    """

    margin: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray

    def decided(self, threshold: float) -> Scores:
        """The same with 1 predicted where the margin exceeds a threshold, else 2."""
        return Scores(self.margin, np.where(self.margin > threshold, *PAIR), self.labels)


def group(name: str, case: str) -> list[RunConfig]:
    """The runs of a data set and case (or control), a run a seed, in the order of the seeds."""
    found = [run for run in runs.registry().values() if run.name == f"{name}-{case}"]
    if not found:
        raise files.DigitcnnError(f"There are no runs {name}-{case}: `digitcnn status` lists them.")
    return found


def pair_split(name: str, split: str) -> data.Split:
    """The digits 1 and 2 of a split."""
    return data.class_subset(data.load(name, split), dict.fromkeys(PAIR), SEED)


def _training_images(run: RunConfig) -> data.Split:
    """The images that a run learnt from."""
    return data.class_subset(data.load(run.data, "train"), dict(run.class_counts), run.seed)


def scores(run: RunConfig, name: str, split: str = "test") -> Scores:
    """What a run says of a data set's digits 1 and 2 (test of both, validation of its own)."""
    found = answered(run, name, split)
    return Scores(found.margin.astype("f4"), found.predicted, found.labels)


@store.stored(
    lambda run, name: f"imbalance/geometry-{run}-on-{name}",
    lambda run, name: [
        store.weights(run),
        store.images(runs.get(run).data, "train"),
        store.images(name),
    ],
)
def kept_geometry(run: str, name: str) -> dict[str, np.ndarray]:
    """`geometry` of a pictured run's features of a test split, by the names in `GEOMETRY`."""
    network, known = inference.load(run), _training_images(runs.get(run))
    test = pair_split(name, "test")
    found = geometry(
        inference.extract_features(network, test.images),
        test.labels.numpy(),
        inference.extract_features(network, known.images),
        known.labels.numpy(),
    )
    return dict(zip(GEOMETRY, found, strict=True))


def geometries() -> pd.DataFrame:
    """How the features of the pictured runs lie, a row a run and test split: see `geometry`."""
    rows = []
    for model in NAMES:
        for name in (model, *(other for other in NAMES if other != model)):
            for case in CASES:
                kept = kept_geometry(f"{model}-{case}", name)
                found = {key: float(value) for key, value in kept.items()}
                rows.append({"model": model, "data": name, "case": case} | found)
    return pd.DataFrame(rows)


def measured(found: Scores) -> dict[str, float]:
    """`METRICS` as fractions, ``balanced`` accuracy, macro averages, and more of one prediction.

    ``share`` is the share of images called 1; ``outside`` counts the predictions that are neither
    1 nor 2, which are errors. The area under the ROC curve ranks by the margin.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(
        found.labels, found.predicted, labels=PAIR, zero_division=0
    )
    return {
        "accuracy": float((found.predicted == found.labels).mean()),
        "precision_1": precision[0],
        "recall_1": recall[0],
        "precision_2": precision[1],
        "recall_2": recall[1],
        "roc_auc": float(roc_auc_score(found.labels == PAIR[0], found.margin)),
        "balanced": recall.mean(),
        "precision": precision.mean(),
        "f1": f1.mean(),
        "share": float((found.predicted == PAIR[0]).mean()),
        "outside": int((~np.isin(found.predicted, PAIR)).sum()),
    }


def results() -> pd.DataFrame:
    """Every case, control and seed on both test splits, a row each; see `measured`.

    Columns ``model``, ``case`` (or control), ``data``, ``seed``, the measures, and of the training
    ``images``, ``steps`` and ``train_share``, the share of 1 in it. The three cases are also
    written to ``cache/results/imbalance.csv``.
    """
    rows = []
    for case in (*CASES, *CONTROLS):
        for model in NAMES:
            for run in group(model, case):
                about = results.record(run)
                one, two = training_counts(run)
                training = {"images": about["images"], "steps": about["steps"]}
                training["train_share"] = one / (one + two)
                for name in NAMES:
                    row = {"model": model, "case": case, "data": name, "seed": run.seed}
                    rows.append(row | measured(scores(run, name)) | training)
    frame = pd.DataFrame(rows)
    public = frame.loc[frame["case"].isin(list(CASES)), ["model", "case", "data", "seed", *METRICS]]
    path = files.noted(files.cache_path("results", "imbalance.csv"))
    text = public.to_csv(index=False, float_format="%.6f")
    if not path.is_file() or path.read_text("utf-8") != text:
        files.write_whole(path, text)
    return frame


def pair_counts(name: str, split: str) -> tuple[int, int]:
    """How many images of 1 and of 2 a whole split has."""
    counts = runs.split_sizes(name)[split]["class_counts"]
    return tuple(counts[digit] for digit in PAIR)


def training_counts(run: RunConfig) -> tuple[int, int]:
    """How many images of 1 and of 2 a run learns from."""
    wanted = [count for _, count in run.class_counts]
    available = pair_counts(run.data, "train")
    return tuple(n if w is None else min(w, n) for w, n in zip(wanted, available, strict=True))


# Pairs of cases and controls that differ in one thing.
EFFECTS = {
    "equal classes": ("case1", "balanced"),
    "more images of '1'": ("few", "mirrored"),
    "more images of '2'": ("few", "case1"),
    "more images of both": ("few", "many"),
    "'1' as many as '2'": ("case1", "many"),
    "all images": ("many", "case3-short"),
    "more steps": ("case3-short", "case3"),
    "weighted loss": ("case1", "case1-weighted"),
    "oversampling": ("case1", "case1-oversampled"),
}


def effects(table: pd.DataFrame, column: str = "balanced") -> pd.DataFrame:
    """What each of `EFFECTS` changes on the own test split, paired by the seeds that both have.

    Args:
        table: the frame of `results`.
        column: the measure.

    Columns: ``data``, ``effect``, ``before``, ``after``, ``seeds`` (how many), those of
    `stats.Difference`, and ``beyond`` chance, corrected by Holm over a data set's effects.
    """
    rows = []
    for name in NAMES:
        own = table[(table["model"] == name) & (table["data"] == name)]
        by_seed = own.pivot(index="seed", columns="case", values=column)
        for effect, (before, after) in EFFECTS.items():
            both = by_seed[[before, after]].dropna()
            found = stats.difference(both[after], both[before], paired=True)
            about = {"data": name, "effect": effect, "before": before, "after": after}
            rows.append(about | {"seeds": len(both)} | found._asdict())
    frame = pd.DataFrame(rows)
    frame["beyond"] = frame.groupby("data")["p"].transform(stats.beyond_chance).astype(bool)
    return frame


def confusion(run: RunConfig, name: str) -> np.ndarray:
    """Counts int (2, 3) of a run on a test split: rows true 1 and 2; predicted 1, 2, another."""
    found = scores(run, name)
    column = np.where(np.isin(found.predicted, PAIR), found.predicted - PAIR[0], 2)
    table = np.zeros((2, 3), dtype=int)
    np.add.at(table, (found.labels - PAIR[0], column), 1)
    return table


# Mitigations --------------------------------------------------------------------------------------


def prior_threshold(run: RunConfig) -> float:
    """The margin at which both classes are equally likely once the training prior is divided out.

    Subtracting the log odds of the training shares turns a posterior under the training prior
    into one under equal priors (Elkan 2001; Menon et al. 2021, arXiv 2007.07314, equation 9).
    """
    one, two = training_counts(run)
    return float(np.log(one / two))


def validation_threshold(run: RunConfig) -> float:
    """The margin with the highest balanced accuracy on the own validation split."""
    found = scores(run, run.data, "validation")
    false, true, thresholds = roc_curve(found.labels == PAIR[0], found.margin)
    best = int((true - false).argmax())
    above = thresholds[best]
    below = found.margin[found.margin < above]
    return float((above + below.max()) / 2 if len(below) and np.isfinite(above) else above)


THRESHOLDS: dict[str, Callable[[RunConfig], float]] = {
    "prior": prior_threshold,
    "validation": validation_threshold,
}


def mitigations() -> pd.DataFrame:
    """Each mitigation on cases 1 and 2, on both test splits, a row a seed; see `measured`.

    Column ``mitigation``: ``none``; in case 1 ``weighted`` loss and ``oversampled``; and ``none``
    decided at the ``prior`` or the ``validation`` threshold, whose features are those of ``none``.
    """
    rows = []
    for case in ("case1", "case2"):
        for model in NAMES:
            for name in NAMES:
                tried = [("none", run, scores(run, name)) for run in group(model, case)]
                for kind in ("weighted", "oversampled") if case == "case1" else ():
                    tried += [(kind, r, scores(r, name)) for r in group(model, f"{case}-{kind}")]
                for run in group(model, case):
                    for kind, choose in THRESHOLDS.items():
                        tried.append((kind, run, scores(run, name).decided(choose(run))))
                for kind, run, found in tried:
                    row = {"model": model, "case": case, "data": name, "mitigation": kind}
                    rows.append(row | {"seed": run.seed} | measured(found))
    return pd.DataFrame(rows)


def gains(table: pd.DataFrame, column: str = "balanced") -> pd.DataFrame:
    """What each mitigation gains over none on the own test split, paired by seed.

    Args:
        table: the frame of `mitigations`.

    Columns: ``model``, ``case``, ``mitigation``, ``seeds``, those of `stats.Difference`, and
    ``beyond`` chance, corrected by Holm over all of a data set.
    """
    rows = []
    own = table[table["model"] == table["data"]]
    for (model, case), part in own.groupby(["model", "case"], sort=False):
        by_seed = part.pivot(index="seed", columns="mitigation", values=column)
        for kind in part["mitigation"].unique()[1:]:
            both = by_seed[["none", kind]].dropna()
            found = stats.difference(both[kind], both["none"], paired=True)
            about = {"model": model, "case": case, "mitigation": kind, "seeds": len(both)}
            rows.append(about | found._asdict())
    frame = pd.DataFrame(rows)
    frame["beyond"] = frame.groupby("model")["p"].transform(stats.beyond_chance).astype(bool)
    return frame


# Geometry -----------------------------------------------------------------------------------------


def geometry(
    found: np.ndarray, labels: np.ndarray, known: np.ndarray, known_labels: np.ndarray
) -> tuple[float, float, float, float]:
    """How two classes lie in a feature space: `GEOMETRY`, all free of the space's scale.

    Args:
        found, labels: test features (N, d) and their classes, 1 or 2.
        known, known_labels: the same of the training images.

    Returns:
        Silhouette (of at most 2,000 samples); distance of the class means over the mean of both
        classes' radii (root mean square distance from the class mean); radius of class 1 over
        that of class 2; share of the test samples of class 1 whose nearest training sample is
        of class 1.
    """
    few = np.random.default_rng(SEED).permutation(len(found))[:FEW]
    parts = [found[labels == digit] for digit in PAIR]
    means = [part.mean(0) for part in parts]
    radii = [
        float(np.sqrt(((part - mean) ** 2).sum(1).mean()))
        for part, mean in zip(parts, means, strict=True)
    ]
    near = NearestNeighbors(n_neighbors=1).fit(known).kneighbors(parts[0], return_distance=False)
    return (
        float(silhouette_score(found[few], labels[few])),
        float(np.linalg.norm(means[0] - means[1]) / max(np.mean(radii), 1e-9)),
        radii[0] / max(radii[1], 1e-9),
        float((known_labels[near[:, 0]] == PAIR[0]).mean()),
    )


@store.stored(
    lambda name: f"imbalance/pixels-{name}",
    lambda name: [store.images(name, split) for split in ("train", "test")],
)
def pixel_accuracy(name: str) -> dict[str, np.ndarray]:
    """``accuracy`` (3, 5): see `pixel_neighbours`."""
    train, test = (pair_split(name, split) for split in ("train", "test"))
    images = test.images.flatten(1).float().numpy()[: 2 * FEW]
    truth = test.labels.numpy()[: 2 * FEW]
    table = np.empty((len(COVERED), 5))
    for row, count in enumerate(COVERED):
        for column in range(5):
            drawn = data.class_subset(train, dict.fromkeys(PAIR, count), SEED + column)
            model = KNeighborsClassifier(1, algorithm="brute")
            model.fit(drawn.images.flatten(1).float().numpy(), drawn.labels.numpy())
            hits = model.predict(images) == truth
            table[row, column] = np.mean([hits[truth == digit].mean() for digit in PAIR])
    return {"accuracy": table}


def pixel_neighbours(name: str) -> pd.DataFrame:
    """How far a few pixels go: balanced accuracy of the nearest training image, by its pixels.

    A control that learns nothing: with `COVERED` random training images of each class, every
    test image gets the class of the nearest one (Euclidean distance of the pixels). Rows are
    numbers of images, columns five draws.
    """
    return pd.DataFrame(pixel_accuracy(name)["accuracy"], index=pd.Index(COVERED, name="images"))


@dataclass(frozen=True)
class CaseMaps:
    """One aligned map a case of the same samples.

    Attributes:
        points: by case, coordinates float32 (N, 2).
        predicted: by case, int (N,).
        labels: true classes, int (N,).
        training: bool (N,), the images that case 1 was trained on.
    """

    points: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    labels: np.ndarray
    training: np.ndarray


def _family(model: str) -> list[RunConfig]:
    """The pictured runs of a data set, in the order of the cases."""
    return [runs.get(f"{model}-{case}") for case in CASES]


@store.stored(
    lambda model, name: f"imbalance/umap-{model}-on-{name}",
    lambda model, name: [
        *map(store.weights, _family(model)),
        store.images(model, "train"),
        store.images(name),
    ],
)
def aligned_maps(model: str, name: str) -> dict[str, np.ndarray]:
    """``points`` (3, N, 2), ``predicted`` (3, N), ``labels`` and ``training`` (N,): see `maps`."""
    few = data.class_subset(pair_split(name, "test"), dict.fromkeys(PAIR, SHOWN), SEED)
    known = _training_images(_family(model)[0])
    images = torch.cat([few.images, known.images])
    networks = [inference.load(run) for run in _family(model)]
    features = [inference.extract_features(network, images) for network in networks]
    said = [
        inference.output_layer(network, found).argmax(1)
        for network, found in zip(networks, features, strict=True)
    ]
    return {
        "points": aligned(features).astype("f2"),
        "predicted": np.array(said).astype("u1"),
        "labels": np.concatenate([few.labels.numpy(), known.labels.numpy()]).astype("u1"),
        "training": np.repeat([False, True], [len(few), len(known)]),
    }


def maps(model: str, name: str) -> CaseMaps:
    """Aligned maps of the features of a model's three cases (seed 42) on a test split.

    AlignedUMAP (umap-learn; McInnes et al. 2018, arXiv 1802.03426) lays the cases out together
    and holds the same sample near the same place, so that the layouts compare. Embedded are up to
    500 test samples of each class and all training images of case 1.
    """
    arrays = aligned_maps(model, name)
    return CaseMaps(
        dict(zip(CASES, arrays["points"].astype("f4"), strict=True)),
        dict(zip(CASES, arrays["predicted"].astype(int), strict=True)),
        arrays["labels"].astype(int),
        arrays["training"],
    )


def aligned(features: list[np.ndarray]) -> np.ndarray:
    """Layouts (k, N, 2) of the same N samples in k feature spaces, held together."""
    same = {index: index for index in range(len(features[0]))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and umap, about threads and seeds
        import umap

        mapper = umap.AlignedUMAP(
            n_neighbors=NEIGHBOURS,
            min_dist=0.1,
            n_epochs=200,
            alignment_regularisation=0.01,
            alignment_window_size=len(features),
            random_state=SEED,
        )
        return np.array(mapper.fit_transform(features, relations=[same] * (len(features) - 1)))
