"""Check: what the report and its results lack. `digitcnn check` prints it; a submission needs none.

Reads the frozen documents with the renderer without Quarto (``tools/offline``), which numbers and
resolves references as Quarto does. Needs no torch.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import ModuleType

from .. import files, provenance, runs, stats, status

PRINTED = "chapters/02-training"  # the chapter that prints the accuracy of the main trainings


def check() -> int:
    """Print a line for each thing that is missing; exit status 1 if there is one."""
    found = problems()
    for line in found:
        print(line)
    if not found:
        print("Nothing is missing.")
    return int(bool(found))


def problems() -> list[str]:
    """What is missing, a sentence each; empty if the report is whole and all runs are current."""
    return [*report_problems(), *run_problems(), *metrics_problems(), *reproduction_problems()]


@functools.cache
def renderer() -> ModuleType:
    """The renderer without Quarto, ``tools/offline``; it is no part of the package."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
    import offline

    return offline


def report_problems() -> list[str]:
    """Documents that are not frozen or stale; if there are none, references that lead nowhere,
    which would only follow from these. The appendix refers to the answer of each requirement."""
    offline, root = renderer(), files.project_root()
    found, documents = [], {fmt: [] for fmt in offline.FORMATS}
    executed = provenance.documents()
    try:
        config = offline.load_config(root, [])
        for item in offline.items(config):
            name = item.get("file", "").removesuffix(".qmd")
            if name in executed and not (state := provenance.state(name)).whole:
                found.append(f"{name}.qmd is {state}: run `make report`.")
            try:
                loaded = [
                    offline.load_document(root, item, fmt, root / "_freeze", config)
                    for fmt in offline.FORMATS
                ]
            except offline.Problem as problem:
                found += [] if name in executed else [str(problem)]
                continue
            for fmt, document in zip(documents, loaded, strict=True):
                documents[fmt].append(document)
        if found:
            return found
        books = [offline.references(documents[fmt], fmt, root, config) for fmt in documents]
    except offline.Problem as problem:
        raise files.DigitcnnError(str(problem)) from problem
    return [f"{what}." for what in dict.fromkeys(p for book in books for p in book["problems"])]


def run_problems() -> list[str]:
    """Runs that are not current, a line for each state."""
    others: dict[str, list[str]] = {}
    for run in runs.registry().values():
        if (state := status.state(run)) != "current":
            others.setdefault(state, []).append(run.id)
    found = []
    for state, names in others.items():
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
        found.append(f"Runs that are {state}: {shown}; run `digitcnn train --all`.")
    return found


def metrics_problems() -> list[str]:
    """Metrics files of current runs without a row for each evaluation."""
    found = []
    for run in runs.registry().values():
        if status.state(run) != "current" or runs.read_record(run).get("diverged") is not None:
            continue
        for split in ("train", *run.held_out):
            path = runs.metrics_path(run, split)
            rows = path.read_text(encoding="utf-8").splitlines()[1:]
            every = run.evaluate_every_epoch or split == "train"
            first = 1 if every else run.epochs
            if [row.split("\t")[0] for row in rows] != [
                str(epoch) for epoch in range(first, run.epochs + 1)
            ]:
                found.append(
                    f"{files.shown(path)} has {len(rows)} rows, not one for each evaluation: "
                    "delete its folder and run `make train`."
                )
    return found


def reproduction_problems() -> list[str]:
    """Trained main runs whose test accuracy is not one that the printed trainings lead to expect.

    Who trains again gets other weights (another processor, another number of threads), so their
    figures cannot be those of the report; but they should lie where the next training does in 95 of
    100 cases (`stats.prediction`). What was printed is in the record of the frozen chapter.
    """
    found = []
    record = provenance.read_record(provenance.frozen(PRINTED))
    for data, printed in dict(record.get("trainings", ())).items():  # noted by each call
        expected = stats.prediction(printed)
        for name in runs.trainings(data):
            accuracy = status.last_accuracies(runs.get(name)).get("test", float("nan"))
            if min(abs(accuracy - other) for other in printed) > 1e-6 and not (
                expected.low <= accuracy <= expected.high
            ):
                found.append(
                    f"{name} reads {accuracy:.2%} of the test images; after the {len(printed)} "
                    f"trainings of the report {expected.low:.2%} to {expected.high:.2%} is "
                    "expected of another: compare the record's environment with yours."
                )
    return found
