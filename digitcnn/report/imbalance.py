"""Imbalance: what networks trained on two unequally frequent digits do; draws nothing.

The runs are those of `runs.CASES` and `runs.CONTROLS`; what each answered is kept with the run.
What is chosen is chosen on the validation split; the test splits only report.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
from sklearn import metrics

from .. import results, runs, stats
from ..predictions import Answers, answered
from ..runs import CASES, CONTROLS, PAIR, RunConfig
from ..sources import NAMES, TITLES
from .values import Count, Number, Points, Share, Spread, Text

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
IN_ORDER = ("weighted", "oversampled", "few", "balanced", "many")
# By how many images of 1 there are, in words.
ORDER = {
    "few": "50 + 50",
    "case1": "50 + 1,000 (case 1)",
    "case1_weighted": "the same, weighted loss",
    "case1_oversampled": "the same, oversampling",
    "balanced": "525 + 525",
    "case2": "500 + 1,000 (case 2)",
    "many": "1,000 + 1,000",
    "case3_short": "all, as few steps",
    "case3": "all (case 3)",
}
AGAINST = {
    f"{one}_{two}": (f"case1-{two}", f"case1-{one}", f"{MITIGATIONS[one]} over {MITIGATIONS[two]}")
    for one, two in itertools.combinations(MITIGATIONS, 2)
}


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
    return pd.DataFrame(rows, columns=[*columns, "runs"], dtype=object)


def always_one(name: str) -> Share:
    """The accuracy on a test split's digits 1 and 2 of who always answers 1."""
    one, two = (runs.split_sizes(name)["test"]["class_counts"][digit] for digit in PAIR)
    return Share(one, one + two)


def fitted(name: str, case: str) -> Spread:
    """Mean recall of both digits on the training images, augmented, in the last epoch."""
    return Spread(results.history(run)["train"]["recall"].iloc[-1] for run in group(name, case))


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


def order_table(found: pd.DataFrame) -> pd.DataFrame:
    """How well the margins rank both digits, and how many of both are found, by training, as shown.

    Area under the ROC curve and mean of both recalls on the own test split, in per cent.
    """
    rows = []
    for case, words in ORDER.items():
        row: dict[str, object] = {"trained on": words}
        for name in NAMES:
            of = vars(judged(found, name, name))[case]
            row["runs"] = of.roc_auc.count
            for measure, title in (("roc_auc", "area"), ("balanced", "recalls")):
                row[f"{TITLES[name]}, {title}"] = Spread(getattr(of, measure).values, unit="")
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def order_changes(found: pd.DataFrame, model: str) -> SimpleNamespace:
    """`changes` of the area under the ROC curve: what weight brings, and what number does."""
    return changes(found, model, "roc_auc", {name: CHANGES[name] for name in IN_ORDER})


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
