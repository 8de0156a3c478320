"""Results: what a finished run left, read without torch: its record, metrics and answers.

Where a run is missing or stale, `digitcnn.checkpoints` trains it first, or says that it may not.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import files, runs
from .runs import RunConfig

if TYPE_CHECKING:
    from .training import Metrics

COLUMNS = ("epoch", "loss", "accuracy", "precision", "recall")  # of a metrics file


def record(run: str | RunConfig) -> dict:
    """A finished run's record: configuration, ingredients, key, environment, wall time."""
    run = runs.get(run)
    if runs.reason(run):
        from . import checkpoints  # imports torch

        checkpoints.ensure(run)
    return runs.read_record(run)


def history(run: str | RunConfig) -> dict[str, pd.DataFrame]:
    """A finished run's metrics by split, a row per evaluation; trains the run if need be."""
    run = runs.get(run)
    digests = record(run).get("metrics_sha256", {})
    return {
        split: read_metrics(runs.metrics_path(run, split), digests.get(split))
        for split in ("train", *run.held_out)
    }


def read_metrics(path: Path, digest: str | None) -> pd.DataFrame:
    """Read the metrics file whose text has this SHA-256. Raises `DigitcnnError` if it has not."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError):
        text = ""
    if sha256(text) != digest:
        raise files.unusable(path, "is damaged", "delete its folder and run `make train`")
    return pd.read_csv(io.StringIO(text), sep="\t").astype(dict.fromkeys(COLUMNS[1:], float))


def metrics_text(rows: Iterable[Metrics]) -> str:
    """The text of a metrics file: a header, then a row per evaluation, six decimals."""
    lines = ["\t".join(COLUMNS)]
    for row in rows:
        values = (row.loss, row.accuracy, row.precision, row.recall)
        lines.append("\t".join([str(row.epoch), *(f"{value:.6f}" for value in values)]))
    return "\n".join(lines) + "\n"


def answers(run: str | RunConfig) -> dict[str, np.ndarray]:
    """The kept answers of a finished run, by ``<data set>-<split>-<what>``; trains if need be.

    Raises `DigitcnnError` if the file is damaged or of other weights than the record names.
    """
    run = runs.get(run)
    about, path = record(run), runs.answers_path(run)
    if not path.is_file():  # else `record` would have trained it
        remedy = f"delete it from {files.LEFT_OUT} and run `digitcnn train {run.id}`"
        raise files.unusable(path, "was left out of this submission", remedy)
    arrays = files.read_arrays(path)
    said = {name: str(arrays.pop(name, "")) for name in ("key", "copy", "weights_sha256")}
    if (
        said["weights_sha256"] != about["weights_sha256"]
        or files.arrays_digest(arrays) != about["answers_sha256"]
    ):
        remedy = f"delete it and run `digitcnn train {run.id}`"
        raise files.unusable(path, "is damaged or of another training", remedy)
    return arrays


def sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
