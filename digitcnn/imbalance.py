"""Imbalance: what networks trained on two unequally frequent digits do; draws nothing.

The runs are `digitcnn.runs.imbalanced_runs`. What the report needs of each, on both test splits
restricted to digits 1 and 2, is kept in ``cache/imbalance/<run>.npz``, so that the weights of
seed 42 alone have to be stored. The test splits only report; thresholds are chosen on validation.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.metrics import (
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
    silhouette_score,
)
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from . import checkpoints, data, files, predictions, runs
from .representation import cached
from .runs import CASES, PAIR, RunConfig
from .sources import NAMES

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


def group(name: str, case: str, remedy: str = "") -> list[RunConfig]:
    """The runs of a data set and case (or control), a run a seed, in the order of the seeds."""
    wanted = "-".join(filter(None, (name, case, remedy)))
    found = [run for run in runs.registry().values() if run.name == wanted]
    if not found:
        raise files.DigitcnnError(f"There are no runs {wanted}: `digitcnn status` lists them.")
    return found


def ready() -> None:
    """Train all runs of this chapter that are missing, and compute what is kept of each."""
    for run in runs.registry().values():
        if run.class_counts:
            _kept(run)


def pair_split(name: str, split: str) -> data.Split:
    """The digits 1 and 2 of a split."""
    return data.class_subset(data.load(name, split), dict.fromkeys(PAIR), SEED)


def _kept(run: RunConfig) -> dict[str, np.ndarray]:
    """What is kept of a run: scores by split, geometry by test split; trains it if need be."""

    def make() -> dict[str, np.ndarray]:
        network, _ = checkpoints.load_or_train(run)
        known = _training_images(run)
        known_features = predictions.extract_features(network, known.images)
        arrays = {}
        for name, split in _splits(run):
            samples = pair_split(name, split)
            found = predictions.extract_features(network, samples.images)
            logits = predictions.output_layer(network, found)
            arrays |= {
                f"{name}-{split}-margin": (logits[:, PAIR[0]] - logits[:, PAIR[1]]).astype("f2"),
                f"{name}-{split}-predicted": logits.argmax(1).astype("u1"),
                f"{name}-{split}-labels": samples.labels.numpy().astype("u1"),
            }
            if split == "test":
                arrays[f"{name}-geometry"] = np.array(
                    geometry(found, samples.labels.numpy(), known_features, known.labels.numpy())
                )
        return arrays

    parts = [predictions.depends_on(run, name, split) for name, split in _splits(run)]
    return cached(f"imbalance/{run.id}", parts, [_kept, pair_split, geometry, FEW], make)


def _splits(run: RunConfig) -> list[tuple[str, str]]:
    return [*((name, "test") for name in NAMES), (run.data, "validation")]


def _training_images(run: RunConfig) -> data.Split:
    """The images that a run learnt from."""
    return data.class_subset(data.load(run.data, "train"), dict(run.class_counts), run.seed)


def scores(run: RunConfig, name: str, split: str = "test") -> Scores:
    """What a run says of a data set's digits 1 and 2 (test of both, validation of its own)."""
    kept = _kept(run)
    margin, predicted, labels = (
        kept[f"{name}-{split}-{part}"] for part in ("margin", "predicted", "labels")
    )
    return Scores(margin.astype("f4"), predicted.astype(int), labels.astype(int))


def geometry_of(run: RunConfig, name: str) -> dict[str, float]:
    """How a run's features of a test split lie: `GEOMETRY` by name, see `geometry`."""
    return dict(zip(GEOMETRY, _kept(run)[f"{name}-geometry"].tolist(), strict=True))


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


@functools.cache
def results() -> pd.DataFrame:
    """Every case, control and seed on both test splits, a row each; see `measured`.

    Columns ``model``, ``case``, ``data``, ``seed``, the measures, and of the training ``images``,
    ``steps`` and ``train_share``, the share of 1 in it. The three cases are also written to
    ``cache/results/imbalance.csv``.
    """
    rows = []
    for case in (*CASES, "balanced", "case3-short"):
        for model in NAMES:
            for run in group(model, case):
                about = checkpoints.record(run)
                counts = training_counts(run)
                training = {
                    "images": about["images"],
                    "steps": about["steps"],
                    "train_share": counts[0] / sum(counts),
                }
                for name in NAMES:
                    row = {"model": model, "case": case, "data": name, "seed": run.seed}
                    rows.append(
                        row | measured(scores(run, name)) | geometry_of(run, name) | training
                    )
    frame = pd.DataFrame(rows)
    public = frame.loc[frame["case"].isin(list(CASES)), ["model", "case", "data", "seed", *METRICS]]
    path = files.noted(files.cache_path("results", "imbalance.csv"))
    text = public.to_csv(index=False, float_format="%.6f")
    if not path.is_file() or path.read_text("utf-8") != text:
        files.write_whole(path, text)
    return frame


def pair_counts(name: str, split: str) -> tuple[int, int]:
    """How many images of 1 and of 2 a whole split has."""
    counts = runs.manifest(name)["split"][split]["class_counts"]
    return tuple(counts[digit] for digit in PAIR)


def training_counts(run: RunConfig) -> tuple[int, int]:
    """How many images of 1 and of 2 a run learns from."""
    wanted = [count for _, count in run.class_counts]
    available = pair_counts(run.data, "train")
    return tuple(n if w is None else min(w, n) for w, n in zip(wanted, available, strict=True))


# What lies between two groups of runs that differ in one thing, from case 1 to case 3.
STEPS = {
    "equal classes": ("case1", "balanced"),
    "more images": ("balanced", "case3-short"),
    "more steps": ("case3-short", "case3"),
    "all together": ("case1", "case3"),
}


def attribution(name: str, column: str = "balanced") -> pd.DataFrame:
    """From case 1 to case 3 in `STEPS` that change one thing each, on the own test split.

    Rows ``change`` (difference of the means over the seeds) and ``error``, its standard error
    from the spread over the seeds of both groups.
    """
    own = results().query("model == @name and data == @name").groupby("case")[column]
    mean, error = own.mean(), own.std() / np.sqrt(own.count())
    return pd.DataFrame(
        {
            step: {
                "change": mean[after] - mean[before],
                "error": float(np.hypot(error[before], error[after])),
            }
            for step, (before, after) in STEPS.items()
        }
    )


def relation(name: str, column: str, other: str) -> tuple[float, float]:
    """Spearman's rank correlation of two columns over a data set's runs (own test split), and p."""
    own = results().query("model == @name and data == @name")
    return tuple(float(value) for value in spearmanr(own[column], own[other]))


def confusion(run: RunConfig, name: str) -> np.ndarray:
    """Counts int (2, 3) of a run on a test split: rows true 1 and 2; predicted 1, 2, another."""
    found = scores(run, name)
    column = np.where(np.isin(found.predicted, PAIR), found.predicted - PAIR[0], 2)
    table = np.zeros((2, 3), dtype=int)
    np.add.at(table, (found.labels - PAIR[0], column), 1)
    return table


# Remedies -----------------------------------------------------------------------------------------


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


THRESHOLDS = {"prior": prior_threshold, "validation": validation_threshold}


@functools.cache
def remedies() -> pd.DataFrame:
    """Each remedy on cases 1 and 2 with the same seeds, on both test splits; see `measured`.

    Column ``remedy``: ``none``, ``weighted`` loss, ``oversampled``, and ``none`` decided at the
    ``prior`` or the ``validation`` threshold, whose features are those of ``none``.
    """
    rows = []
    for case in ("case1", "case2"):
        for model in NAMES:
            trained = {remedy: group(model, case, remedy) for remedy in runs.REMEDIES}
            seeds = {run.seed for run in next(iter(trained.values()))}
            plain = [run for run in group(model, case) if run.seed in seeds]
            for name in NAMES:
                tried = [("none", run, scores(run, name)) for run in plain]
                for remedy, group_runs in trained.items():
                    tried += [(remedy, run, scores(run, name)) for run in group_runs]
                for run in plain:
                    for remedy, choose in THRESHOLDS.items():
                        tried.append((remedy, run, scores(run, name).decided(choose(run))))
                for remedy, run, found in tried:
                    row = {"model": model, "case": case, "data": name, "remedy": remedy}
                    rows.append(row | {"seed": run.seed} | measured(found) | geometry_of(run, name))
    return pd.DataFrame(rows)


def gains(column: str = "balanced") -> pd.DataFrame:
    """What each remedy gains over none, paired by seed: ``mean`` and ``std`` of the difference."""
    keys = ["model", "case", "data", "seed"]
    table = remedies().pivot(index=keys, columns="remedy", values=column)
    difference = table.drop(columns="none").sub(table["none"], axis=0)
    long = difference.stack().rename("gain").reset_index()
    return long.groupby(["model", "case", "data", "remedy"], sort=False)["gain"].agg(
        ["mean", "std"]
    )


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


def pixel_neighbours(name: str) -> pd.DataFrame:
    """How far a few pixels go: balanced accuracy of the nearest training image, by its pixels.

    A control that learns nothing: with `COVERED` random training images of each class, every
    test image gets the class of the nearest one (Euclidean distance of the pixels). Rows are
    numbers of images, columns five draws.
    """

    def make() -> dict[str, np.ndarray]:
        train, test = (pair_split(name, split) for split in ("train", "test"))
        images = test.images.flatten(1).float().numpy()[: 2 * FEW]
        truth = test.labels.numpy()[: 2 * FEW]
        table = []
        for count in COVERED:
            row = []
            for seed in range(SEED, SEED + 5):
                drawn = data.class_subset(train, dict.fromkeys(PAIR, count), seed)
                model = KNeighborsClassifier(1, algorithm="brute")
                model.fit(drawn.images.flatten(1).float().numpy(), drawn.labels.numpy())
                said = model.predict(images)
                row.append(np.mean([(said[truth == digit] == digit).mean() for digit in PAIR]))
            table.append(row)
        return {"accuracy": np.array(table)}

    parts = [predictions.depends_on(runs.get(name), name, split) for split in ("train", "test")]
    for part in parts:
        del part["model"]  # there is none
    code = [pixel_neighbours, pair_split, list(COVERED), FEW]
    array = cached(f"imbalance/pixels-{name}", parts, code, make)["accuracy"]
    return pd.DataFrame(array, index=pd.Index(COVERED, name="images"))


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


def maps(model: str, name: str) -> CaseMaps:
    """Aligned maps of the features of a model's three cases (seed 42) on a test split.

    AlignedUMAP (umap-learn; McInnes et al. 2018, arXiv 1802.03426) lays the cases out together
    and holds the same sample near the same place, so that the layouts compare. Embedded are up to
    500 test samples of each class and all training images of case 1.
    """
    family = {case: group(model, case)[0] for case in CASES}

    def make() -> dict[str, np.ndarray]:
        test = pair_split(name, "test")
        few = data.class_subset(test, dict.fromkeys(PAIR, SHOWN), SEED)
        known = _training_images(family["case1"])
        networks = [predictions.load(run) for run in family.values()]
        images = torch.cat([few.images, known.images])
        features = [predictions.extract_features(network, images) for network in networks]
        predicted = [
            predictions.output_layer(network, found).argmax(1)
            for network, found in zip(networks, features, strict=True)
        ]
        return {
            "points": aligned(features).astype("f2"),
            "predicted": np.array(predicted).astype("u1"),
            "labels": np.concatenate([few.labels.numpy(), known.labels.numpy()]).astype("u1"),
            "training": np.repeat([False, True], [len(few), len(known)]),
        }

    parts = [predictions.depends_on(run, name, "test") for run in family.values()]
    parts += [predictions.depends_on(run, model, "train") for run in family.values()]
    code = [CaseMaps, maps, aligned, pair_split, SHOWN, NEIGHBOURS]
    arrays = cached(f"imbalance/umap-{model}-on-{name}", parts, code, make)
    points = arrays["points"].astype("f4")
    return CaseMaps(
        dict(zip(CASES, points, strict=True)),
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
