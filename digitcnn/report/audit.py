"""Audit by looking: what two readers saw in pictures, beside what networks answered.

The readings are kept by hand in ``audit/mnist.csv`` and ``audit/svhn.csv``, a row an image; a
person can overwrite any answer there, and all that is computed here follows. What the codes mean,
and what is made of two readings, was written in ``audit/CODEBOOK.md`` before anybody looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from .. import division, files, predictions, stats, store
from ..sources import TITLES
from . import evaluation
from .values import Count, Number, Ratio, Share

FORM = ("flag", "foot", "bar", "open", "closed", "gap", "loop", "filled", "slanted", "between")
PICTURE = ("cut", "neighbour", "blur", "low-contrast", "broken", "extra")
CODES = (*FORM, *PICTURE)
READINGS = (1, 2)
COLUMNS = ("index", "reasons", "digit1", "second1", "codes1", "digit2", "second2", "codes2",
           "reader", "date", "rule")  # fmt: skip
UNDECIDED, NO_DIGIT = "?", "-"
CLUSTER = 30  # images that a cluster has at least


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean probability of each class among the samples that carry its label, (10,).

    The thresholds of confident learning (Northcutt et al. 2021, eq. 2). A class without samples
    gets 1.
    """
    means = [
        probabilities[labels == digit, digit].mean() if (labels == digit).any() else 1.0
        for digit in range(probabilities.shape[1])
    ]
    return np.array(means)


def label_issues(
    probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Whether a label is probably wrong, bool (N,): confident learning (Northcutt et al. 2021).

    A sample counts for the most probable of the classes whose threshold its probability reaches
    (their eq. 1, the confident joint); it is suspected if that class is not its label. The
    probabilities have to be out of sample.
    """
    reaching = np.where(probabilities >= thresholds, probabilities, -1.0)
    return (reaching.max(1) >= 0) & (reaching.argmax(1) != labels)


def suspects(name: str) -> np.ndarray:
    """Positions in a test split of the labels that its model suspects (`label_issues`), sorted.

    The temperature and the thresholds are fitted on the validation split. Which of the labels are
    wrong, only looking can tell.
    """
    validation, test = (predictions.predict(name, name, split) for split in ("validation", "test"))
    scaled = evaluation.calibrated(validation, test)
    thresholds = class_thresholds(scaled.validation, validation.labels)
    return np.flatnonzero(label_issues(scaled.test, test.labels, thresholds))


@store.stored(
    lambda name: f"audit/sevens-{name}", lambda name: [store.weights(name), store.images(name)]
)
def sevens(name: str) -> dict[str, np.ndarray]:
    """Clusters of the test images of a 7 in a model's own feature space, by HDBSCAN.

    ``index`` in the pool and ``cluster`` (n,): 0 the largest, 1 the next, …, -1 none;
    ``silhouette`` of those in a cluster (nan unless there are two or more); ``clusters`` (10,),
    how many each class falls into by the same rule (0: it holds together as one cloud).
    """
    from sklearn.metrics import silhouette_score

    from .. import inference

    p = predictions.predict(name, name)
    features = inference.features(name, name, "test", True)["features"]
    found = [_clusters(features[p.labels == digit]) for digit in range(10)]
    inside = found[7] >= 0
    several = found[7].max(initial=-1) > 0
    shown = features[p.labels == 7][inside], found[7][inside]
    return {
        "index": p.indices[p.labels == 7],
        "cluster": found[7],
        "silhouette": silhouette_score(*shown) if several else np.nan,
        "clusters": np.array([labels.max(initial=-1) + 1 for labels in found]),
    }


def _clusters(points: np.ndarray) -> np.ndarray:
    """HDBSCAN (Campello et al. 2013) of (n, d): the largest cluster 0, the next 1; none -1."""
    from sklearn.cluster import HDBSCAN

    if len(points) < CLUSTER:
        return np.full(len(points), -1)
    labels = HDBSCAN(min_cluster_size=CLUSTER, copy=True).fit_predict(points)
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    return np.where(labels >= 0, rank[labels], -1)


# Readings -----------------------------------------------------------------------------------------


def path(name: str) -> Path:
    """Where a data set's readings are kept."""
    return files.project_root() / "audit" / f"{name}.csv"


def readings(name: str) -> pd.DataFrame:
    """Both readings of every picture looked at, a row each; none in the quick profile.

    Columns as in the file, `COLUMNS`, with ``codes1`` and ``codes2`` as frozen sets, and ``label``
    (int), ``label_wrong``, ``undecidable`` and ``no_digit`` (bool), as the codebook defines them.
    Raises `DigitcnnError` that names the line of an answer that the codebook does not know.
    """
    known = division.labels(name).labels
    if files.profile() == "full" and path(name).is_file():
        frame = _parsed(name, len(known))
    else:
        frame = pd.DataFrame(columns=list(COLUMNS)).astype({"index": int})
    first, second = frame["digit1"], frame["digit2"]
    label = known[frame["index"].to_numpy(int)]
    agreed = (first == second) & first.str.isdigit().astype(bool)
    either = (first == UNDECIDED) | (second == UNDECIDED)
    return frame.assign(
        label=label,
        label_wrong=agreed & (first != pd.Series(label, frame.index).astype(str)),
        undecidable=either | (first != second),
        no_digit=(first == NO_DIGIT) & (second == NO_DIGIT),
    )


def _parsed(name: str, images: int) -> pd.DataFrame:
    where = f"audit/{name}.csv"
    try:
        frame = pd.read_csv(files.noted(path(name)), dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise files.DigitcnnError(
            f"{where} is no table: bring it back from the repository."
        ) from error
    if tuple(frame.columns) != COLUMNS:
        raise files.DigitcnnError(f"{where} needs the columns {', '.join(COLUMNS)}, in this order.")
    seen = set()
    for line, row in enumerate(frame.to_dict("records"), start=2):
        index = row["index"]
        if not (index.isdecimal() and int(index) < images) or index in seen:
            raise files.DigitcnnError(
                f"{where}, line {line}: {index!r} has to be an image's index in the pool, below "
                f"{images}, and stand there once."
            )
        seen.add(index)
        for reading in READINGS:
            answer = [row[f"{column}{reading}"] for column in ("digit", "second", "codes")]
            if why := fault(*answer):
                raise files.DigitcnnError(f"{where}, line {line}, reading {reading}: {why}")
    frame["index"] = frame["index"].astype(int)
    for column in ("codes1", "codes2"):
        frame[column] = [frozenset(text.split()) for text in frame[column]]
    return frame


def fault(digit: str, second: str, codes: str) -> str:
    """What is wrong with a reader's answer, as a sentence with the remedy; empty if nothing is."""
    digits = tuple("0123456789")
    if digit not in (*digits, UNDECIDED, NO_DIGIT):
        return f"the digit is {digit!r}: write 0 to 9, {UNDECIDED} or {NO_DIGIT}."
    if second not in ("", *digits) or second == digit:
        return f"the second digit is {second!r}: write another of 0 to 9, or nothing."
    if unknown := [code for code in codes.split() if code not in CODES]:
        return f"{unknown[0]!r} is no code: use those of audit/CODEBOOK.md ({', '.join(CODES)})."
    return ""


def has(frame: pd.DataFrame, code: str, by: str = "both") -> np.ndarray:
    """Whether ``both`` readings (or ``either``) give a picture a code, bool (n,)."""
    first, second = (
        np.array([code in codes for codes in frame[f"codes{reading}"]], bool)
        for reading in READINGS
    )
    return first | second if by == "either" else first & second


def reason(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Whether a picture was drawn for a reason, bool (n,)."""
    return np.array([name in reasons.split() for reasons in frame["reasons"]], bool)


def kappa(first: Sequence, second: Sequence) -> float:
    """Cohen's kappa (1960) of two readings; nan where one always says the same, or nothing."""
    varied = min(len(set(first)), len(set(second))) > 1
    return cohen_kappa_score(first, second) if varied else float("nan")


def agreement(name: str) -> pd.DataFrame:
    """How far the two readings agree: a row for the digit, then one for each code.

    Columns: ``what``, ``first`` and ``second`` (pictures that have it in a reading), ``both`` and
    `kappa`: as both are by one kind of reader, an upper bound of what two people would reach.
    """
    frame = readings(name)
    answers = {"digit": (frame["digit1"].to_numpy(), frame["digit2"].to_numpy())}
    for code in CODES:
        answers[code] = tuple(
            np.array([code in codes for codes in frame[f"codes{reading}"]], bool)
            for reading in READINGS
        )
    rows = []
    for what, (first, second) in answers.items():
        digit = what == "digit"
        rows.append(
            {
                "what": what,
                "first": len(first) if digit else int(first.sum()),
                "second": len(second) if digit else int(second.sum()),
                "both": int((first == second).sum() if digit else (first & second).sum()),
                "kappa": kappa(first, second),
            }
        )
    return pd.DataFrame(rows)


# Errors -------------------------------------------------------------------------------------------


def answers(name: str, run: str | None = None) -> pd.DataFrame:
    """`readings` of test images with what a training answers, ``predicted`` and ``wrong``."""
    p = predictions.predict(run or name, name)
    frame = readings(name)
    frame = frame[np.isin(frame["index"], p.indices)]
    at = np.searchsorted(p.indices, frame["index"].to_numpy(int))
    return frame.assign(predicted=p.predicted[at], wrong=p.wrong[at])


def compared(name: str, run: str | None = None) -> pd.DataFrame:
    """How often each code, and each computed verdict, is seen in errors and in correct images.

    Random samples: those drawn as errors that the training gets wrong, and those drawn as correct
    that it gets right. Columns: ``what``, ``errors`` and ``correct`` (`Share`),
    ``ratio`` of the two with its interval, and ``either``, how many of the errors have the code in
    at least one reading.
    """
    frame = answers(name, run)
    wrong = frame[frame["wrong"].to_numpy(bool) & reason(frame, "error")]
    right = frame[~frame["wrong"].to_numpy(bool) & reason(frame, "correct")]
    rows = []
    for what in (*CODES, "label_wrong", "undecidable", "no_digit"):
        hits = [
            int((has(part, what) if what in CODES else part[what]).sum()) for part in (wrong, right)
        ]
        rows.append(
            {
                "what": what.replace("_", " "),
                "errors": Share(hits[0], len(wrong)),
                "correct": Share(hits[1], len(right)),
                "ratio": Ratio(stats.ratio(hits[0], len(wrong), hits[1], len(right))),
                "either": int(has(wrong, what, "either").sum()) if what in CODES else hits[0],
            }
        )
    return pd.DataFrame(rows, dtype=object)


@dataclass(frozen=True)
class Verdicts:
    """What two readers make of a set of pictures.

    Readers err too, and alike where they are of one kind: how often they name another digit than
    the label in images that the network reads as labelled (`compared`) is the measure of that.

    Attributes:
        read: pictures that were looked at.
        label_confirmed: both readings name the label.
        label_wrong: both name the same other digit.
        as_the_network: of these, the digit that the network answers.
        undecidable: a reading is undecided, or the two differ.
        no_digit: both see none.
    """

    read: Count
    label_confirmed: Count
    label_wrong: Count
    as_the_network: Count
    undecidable: Count
    no_digit: Count


def verdicts(frame: pd.DataFrame) -> Verdicts:
    """What the two readings say of rows of `answers`."""
    wrong = frame["label_wrong"].to_numpy(bool)
    unclear = frame["undecidable"].to_numpy(bool)
    none = frame["no_digit"].to_numpy(bool)
    same = frame["digit1"].to_numpy(str) == frame["predicted"].to_numpy(int).astype(str)
    return Verdicts(
        read=Count(len(frame)),
        label_confirmed=Count((~wrong & ~unclear & ~none).sum()),
        label_wrong=Count(wrong.sum()),
        as_the_network=Count((wrong & same).sum()),
        undecidable=Count(unclear.sum()),
        no_digit=Count(none.sum()),
    )


class Seen(NamedTuple):
    """How often a code was given in errors and in correct images, and the ratio of the two."""

    errors: Share
    correct: Share
    ratio: Ratio


@dataclass(frozen=True)
class Audited:
    """What two readers saw in a model's test errors, and in images that it reads as labelled.

    Attributes:
        errors: all of MNIST's, 200 random ones of SVHN's; `correct`: 100 random others.
        suspects: images whose label confident learning suspects.
        kappa: agreement on the digit over all pictures; `kappa_errors`: over the errors alone.
        codes: `Seen` by code; `undecided`: how often a picture is undecidable, likewise.
        marked: share of errors blurred or of low contrast; `unmarked`: of the correct images.
    """

    errors: Verdicts
    correct: Verdicts
    suspects: Verdicts
    kappa: Number
    kappa_errors: Number
    codes: dict[str, Seen]
    undecided: Seen
    marked: Share
    unmarked: Share


def audited(name: str) -> Audited:
    """The audit of a data set's first training."""
    frame = answers(name)
    wrong, suspected = frame["wrong"].to_numpy(bool), predictions.predict(name, name).indices
    table = compared(name).set_index("what")
    seen = {what: Seen(*table.loc[what, ["errors", "correct", "ratio"]]) for what in table.index}
    errors, others = frame[wrong & reason(frame, "error")], frame[~wrong & reason(frame, "correct")]

    def marked(part: pd.DataFrame) -> Share:
        return Share((has(part, "blur") | has(part, "low-contrast")).sum(), len(part))

    return Audited(
        errors=verdicts(errors),
        correct=verdicts(others),
        suspects=verdicts(frame[np.isin(frame["index"], suspected[suspects(name)])]),
        kappa=Number(agreement(name).set_index("what").loc["digit", "kappa"]),
        kappa_errors=Number(kappa(errors["digit1"], errors["digit2"])),
        codes={code: seen[code] for code in CODES},
        undecided=seen["undecidable"],
        marked=marked(errors),
        unmarked=marked(others),
    )


def table() -> pd.DataFrame:
    """The verdicts of both data sets, as shown."""
    rows = []
    for name, title in TITLES.items():
        found = audited(name)
        for what in ("errors", "correct", "suspects"):
            part = getattr(found, what)
            pictures = {"suspects": "suspected labels", "correct": "read as labelled"}
            rows.append(
                {
                    "pictures": f"{title}, {part.read} {pictures.get(what, what)}",
                    "the label": part.label_confirmed,
                    "another digit": part.label_wrong,
                    "of these, the network's": part.as_the_network,
                    "undecidable": part.undecidable,
                    "no digit": part.no_digit,
                }
            )
    return pd.DataFrame(rows)


def looked_at(name: str) -> dict[int, bool]:
    """Whether both readings name another digit, by position in the test split."""
    frame, p = answers(name), predictions.predict(name, name)
    at = np.searchsorted(p.indices, frame["index"].to_numpy(int))
    return dict(zip(at.tolist(), frame["label_wrong"].tolist(), strict=True))


def in_cluster(name: str, code: str) -> dict[str, Share]:
    """Share of the sevens looked at that have a code, by cluster (``a`` the larger, ``b``)."""
    frame = readings(name)
    parts = {letter: frame[reason(frame, f"seven-{letter}")] for letter in "ab"}
    return {letter: Share(has(part, code).sum(), len(part)) for letter, part in parts.items()}
