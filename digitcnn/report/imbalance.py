"""Imbalance: what networks trained on two unequally frequent digits do; draws nothing.

The runs are those of `runs.CASES` and `runs.CONTROLS`. What each answered is kept with the run;
features need weights, which the pictured runs alone have (`runs.is_pictured`). What is chosen is
chosen on the validation split; the test splits only report.
"""

from __future__ import annotations

import itertools
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn import metrics

from .. import results, runs, stats, store
from ..predictions import Answers, answered
from ..runs import CASES, CONTROLS, PAIR, RunConfig
from ..sources import NAMES, TITLES
from .values import Count, Number, Points, Spread, Text

if TYPE_CHECKING:
    from ..data import Split

OWN = {name: name for name in NAMES}
OTHER = dict(zip(NAMES, reversed(NAMES), strict=True))
METRICS = {"accuracy": "accuracy"} | {
    f"{what}_{digit}": f"{what} '{digit}'" for digit in PAIR for what in ("precision", "recall")
}
MITIGATIONS = {
    "weighted": "weighted loss",
    "oversampled": "oversampling",
    "prior": "prior threshold",
    "validation": "validation threshold",
}
# What changes from one training to another, all else being equal: before, after, in words.
CHANGES = {
    "few": ("case1", "few", "950 fewer of '2': 50 + 50"),
    "many": ("case1", "many", "950 more of '1': 1,000 + 1,000"),
    "balanced": ("case1", "balanced", "475 more of '1', fewer of '2': 525 + 525"),
    **{k: ("case1", f"case1-{k}", f"same images, {words}") for k, words in MITIGATIONS.items()},
    "images": ("many", "case3-short", "from 1,000 + 1,000 to all images"),
    "steps": ("case3-short", "case3", "with all images, more steps"),
    "case2_prior": ("case2", "case2-prior", "case 2, prior threshold"),
    "case2_validation": ("case2", "case2-validation", "case 2, validation threshold"),
}
AGAINST = {
    f"{one}_{two}": (f"case1-{two}", f"case1-{one}", f"{MITIGATIONS[one]} over {MITIGATIONS[two]}")
    for one, two in itertools.combinations(MITIGATIONS, 2)
}
SHOWN, NEIGHBOURS = 500, 15  # test images per class in a map; neighbours of UMAP


def group(name: str, case: str) -> list[RunConfig]:
    """The runs of a data set and case (or control), one per seed, in the order of the seeds."""
    return [run for run in runs.registry().values() if run.name == f"{name}-{case}"]


def scores(run: RunConfig, name: str, split: str = "test") -> Answers:
    """What a run says of a data set's digits 1 and 2 (test of both, validation of its own)."""
    found = answered(run, name, split)
    return found._replace(margin=found.margin.astype("f4"))


def training_counts(run: RunConfig) -> list[int]:
    """How many images of 1 and of 2 a run learns from."""
    available = runs.split_sizes(run.data)["train"]["class_counts"]
    return [min(available[digit], count or available[digit]) for digit, count in run.class_counts]


def measured(found: Answers) -> dict[str, float]:
    """`METRICS` as fractions, ``balanced`` accuracy (mean of both recalls) and ``roc_auc``.

    A prediction of another digit is an error; ``outside`` counts these. The area under the ROC
    curve ranks the images by their margin, so it depends on no threshold.
    """
    precision, recall, _, _ = metrics.precision_recall_fscore_support(
        found.labels, found.predicted, labels=PAIR, zero_division=0
    )
    accuracy = float((found.predicted == found.labels).mean())
    values = (accuracy, precision[0], recall[0], precision[1], recall[1])
    return dict(zip(METRICS, values, strict=True)) | {
        "balanced": recall.mean(),
        "roc_auc": float(metrics.roc_auc_score(found.labels == PAIR[0], found.margin)),
        "outside": int((~np.isin(found.predicted, PAIR)).sum()),
    }


def prior_threshold(run: RunConfig) -> float:
    """The log odds of the training shares: beyond it 1 is the likelier class under equal priors
    (Elkan 2001; Menon et al. 2021, arXiv 2007.07314, equation 9)."""
    one, two = training_counts(run)
    return float(np.log(one / two))


def best_threshold(found: Answers) -> float:
    """The margin with the highest balanced accuracy, halfway to the next one below."""
    false, true, thresholds = metrics.roc_curve(found.labels == PAIR[0], found.margin)
    above = thresholds[int((true - false).argmax())]
    below = found.margin[found.margin < above]
    return float((above + below.max()) / 2 if len(below) and np.isfinite(above) else above)


def decided(found: Answers, threshold: float | np.ndarray) -> Answers:
    """The same with 1 predicted where the margin exceeds a threshold, else 2."""
    return found._replace(predicted=np.where(found.margin > threshold, *PAIR))


def crossed(found: Answers) -> Answers:
    """Either half of the images decided at the threshold that is best on the other half."""
    even = np.arange(len(found.labels)) % 2 == 0
    halves = (Answers(*(part[half] for part in found)) for half in (even, ~even))
    first, second = map(best_threshold, halves)
    return decided(found, np.where(even, second, first))


def moved(run: RunConfig, name: str, split: str = "test") -> dict[str, Answers]:
    """A run's `scores` decided at the threshold of the ``prior`` and of the ``validation`` split.

    On validation, where the latter is chosen, it is that of the other half of the images.
    """
    found = scores(run, name, split)
    own = scores(run, run.data, "validation")
    best = crossed(own) if split == "validation" else decided(found, best_threshold(own))
    return {"prior": decided(found, prior_threshold(run)), "validation": best}


def table(split: str = "test") -> pd.DataFrame:
    """Every case, control and moved threshold, a row per training and data set; see `measured`.

    Columns ``model``, ``case`` (``case1-prior``: case 1 with its threshold moved), ``data``,
    ``seed`` and the measures. On validation each model is asked for its own data set alone.
    """
    rows = []
    for model, case in itertools.product(NAMES, (*CASES, *CONTROLS)):
        for run in group(model, case):
            for name in NAMES if split == "test" else (model,):
                said = {case: scores(run, name, split)}
                if case in ("case1", "case2"):
                    kinds = moved(run, name, split).items()
                    said |= {f"{case}-{kind}": found for kind, found in kinds}
                for kind, found in said.items():
                    about = {"model": model, "case": kind, "data": name, "seed": run.seed}
                    rows.append(about | measured(found))
    return pd.DataFrame(rows)


def cases() -> pd.DataFrame:
    """The three cases of both data sets, as shown."""
    rows = []
    for name, case in itertools.product(NAMES, CASES):
        trained = group(name, case)
        one, two = training_counts(trained[0])
        share, steps = Number(100 * one / (one + two), 1, "%"), results.record(trained[0])["steps"]
        rows.append((TITLES[name], case[-1], one, two, share, steps, len(trained)))
    columns = ["data set", "case", "images of '1'", "images of '2'", "share of '1'", "steps"]
    return pd.DataFrame(rows, columns=[*columns, "trainings"], dtype=object)


def fitted() -> Number:
    """The lowest training accuracy of the pictured runs in their last epoch, in per cent."""
    last = [results.history(f"{n}-{c}")["train"]["accuracy"].iloc[-1] for n in NAMES for c in CASES]
    return Number(100 * min(last), 1, "%")


def judged(found: pd.DataFrame, model: str, name: str) -> SimpleNamespace:
    """The measures of a model's trainings on a test split (rows of `table`).

    An attribute per case (``case1``, ``case1_weighted`` …) with one per measure, each a `Spread`.
    """
    part = found[(found["model"] == model) & (found["data"] == name)]
    measures = (*METRICS, "balanced", "roc_auc")
    return SimpleNamespace(**{
        case.replace("-", "_"): SimpleNamespace(**{m: Spread(rows[m]) for m in measures})
        for case, rows in part.groupby("case")
    })  # fmt: skip


def metrics_table(found: pd.DataFrame, test: dict[str, str]) -> pd.DataFrame:
    """`METRICS` of the three cases in per cent, as shown; `test`: which test split by model."""
    rows = []
    for (model, name), case in itertools.product(test.items(), CASES):
        of = vars(judged(found, model, name))[case]
        values = {words: Spread(getattr(of, m).values, unit="") for m, words in METRICS.items()}
        rows.append({"trained on": f"{TITLES[model]}, case {case[-1]}"} | values)
    return pd.DataFrame(rows, dtype=object)


def by_seed(found: pd.DataFrame, model: str, measure: str = "balanced") -> pd.DataFrame:
    """A measure on the own data set: a row per seed that the controls have, a column per case."""
    own = (found["model"] == model) & (found["data"] == model)
    part = found[own & found["seed"].isin(runs.CONTROL_SEEDS)]
    return part.pivot(index="seed", columns="case", values=measure)


def changes(
    found: pd.DataFrame, model: str, measure: str = "balanced", pairs: dict = CHANGES
) -> SimpleNamespace:
    """What each of `pairs` changes on the own data set, by its name, as `Points`.

    They are means over the seeds that both trainings have (Student's t, paired): ``seeds`` says how
    many; ``beyond``, whether one is beyond chance after Holm's correction over all.
    """
    seeds, made = by_seed(found, model, measure), {}
    for name, (before, after, _) in pairs.items():
        both = seeds[[before, after]].dropna()
        made[name] = Points(stats.difference(both[after], both[before], paired=True))
        made[name].seeds = Count(len(both))
    beyond = stats.beyond_chance(change.p for change in made.values())
    for change, told in zip(made.values(), beyond, strict=True):
        change.beyond = bool(told)
    return SimpleNamespace(**made)


def changes_table(found: pd.DataFrame, pairs: dict = CHANGES) -> pd.DataFrame:
    """`changes` of the balanced accuracy of both data sets, as shown; a dagger: beyond chance."""
    rows: dict[str, list] = {"what changes": [words for *_, words in pairs.values()]}
    for name in NAMES:
        made = vars(changes(found, name, pairs=pairs)).values()
        rows["seeds"] = [change.seeds for change in made]
        rows[TITLES[name]] = [
            Text(change.signed_full.replace(" ", "† " if change.beyond else " ", 1))
            for change in made
        ]
    return pd.DataFrame(rows)


def regained(found: pd.DataFrame, model: str) -> SimpleNamespace:
    """How far each of `MITIGATIONS` goes from case 1, with its images, to 1,000 + 1,000.

    Share of that way in balanced accuracy, a `Spread` over the seeds each.
    """
    seeds = by_seed(found, model)
    way = seeds["many"] - seeds["case1"]
    gone = {kind: (seeds[f"case1-{kind}"] - seeds["case1"]) / way for kind in MITIGATIONS}
    return SimpleNamespace(**{kind: Spread(values) for kind, values in gone.items()})


def chosen(found: pd.DataFrame, validated: pd.DataFrame, model: str) -> SimpleNamespace:
    """The mitigation of case 1 that is best on validation, and what it does to the test split.

    ``title``; ``balanced`` and ``recall_1``: its `changes` over none; ``lost``: what the recall of
    2 loses; ``level``: how many of the three others cannot be told from it.

    Args:
        found, validated: `table` of the test and of the validation split.
    """
    means = by_seed(validated, model).mean()
    kind = max(MITIGATIONS, key=lambda each: means[f"case1-{each}"])
    pairs = vars(changes(found, model, pairs=AGAINST)).items()
    level = sum(not change.beyond for pair, change in pairs if kind in pair.split("_"))
    balanced, one, two = (
        vars(changes(found, model, measure))[kind]
        for measure in ("balanced", "recall_1", "recall_2")
    )
    found = {"balanced": balanced, "recall_1": one, "lost": Points((-two, -two.high, -two.low))}
    return SimpleNamespace(title=Text(MITIGATIONS[kind]), level=Count(level), **found)


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
    """Maps of the features of a model's three cases (seed 42) on a test split, laid out together.

    ``points`` float32 (N, 2) and ``predicted`` (N,), by case; ``labels`` (N,); ``training`` (N,)
    tells the training images of case 1, which are embedded beside the own test images.
    """
    kept = dict(aligned_maps(model, name))
    kept["points"] = kept["points"].astype("f4")
    by_case = {what: dict(zip(CASES, kept[what], strict=True)) for what in ("points", "predicted")}
    return SimpleNamespace(**kept | by_case)


@store.stored(
    lambda model, name: f"imbalance/umap-{model}-on-{name}",
    lambda model, name: [
        *(store.weights(f"{model}-{case}") for case in CASES),
        store.images(model, "train"),
        store.images(name),
    ],
)
def aligned_maps(model: str, name: str) -> dict[str, np.ndarray]:
    """``points`` (3, N, 2), ``predicted`` (3, N), ``labels`` and ``training`` (N,): see `maps`.

    AlignedUMAP (umap-learn; McInnes et al. 2018, arXiv 1802.03426) holds the same image near the
    same place, so that the maps of a row compare.
    """
    import torch

    from .. import inference

    parts = [_images(name, "test", SHOWN, SHOWN)]
    if model == name:
        parts.append(_training_images(f"{model}-case1"))
    images = torch.cat([part.images for part in parts])
    networks = [inference.load(f"{model}-{case}") for case in CASES]
    features = [inference.extract_features(network, images) for network in networks]
    logits = [inference.output_layer(*pair) for pair in zip(networks, features, strict=True)]
    same = {position: position for position in range(len(images))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and umap, about threads and seeds
        import umap

        mapper = umap.AlignedUMAP(
            n_neighbors=NEIGHBOURS, min_dist=0.1, n_epochs=200, alignment_regularisation=0.01,
            alignment_window_size=len(CASES), random_state=runs.SEED,
        )  # fmt: skip
        points = mapper.fit_transform(features, relations=[same] * (len(CASES) - 1))
    return {
        "points": np.array(points, "f2"),
        "predicted": np.argmax(logits, axis=2).astype("u1"),
        "labels": torch.cat([part.labels for part in parts]).numpy().astype("u1"),
        "training": np.arange(len(images)) >= len(parts[0]),
    }
