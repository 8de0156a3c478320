"""Status: what is current, what is stale and why, and what training would cost.

`digitcnn status` shows it, the appendix lists the runs (`run_table`). Costs are computed from the
number of images and the rates below. Needs no torch.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib.metadata
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import files, provenance, runs
from .files import DigitcnnError
from .runs import RunConfig, reason

if TYPE_CHECKING:
    import pandas as pd

# Images per second of one single-threaded process on an idle core, learned from (forward and back)
# and evaluated (float32): measured by `benchmarks/performance.py` on the machine that trained the
# grid, a Xeon with AVX512-BF16. Two such processes on two cores do 1.9 times the work of one.
LEARNED_PER_SECOND, EVALUATED_PER_SECOND = 1015, 1326
SECOND_PROCESS = 0.89
CLUSTERS = (2, 16, 64)  # numbers of workers that the grid's time is computed for
TRAIN_IMAGES = {
    "full": {"mnist": 49_000, "svhn": 69_502},
    "quick": {"mnist": 630, "svhn": 630},
}
NOT_KNOWN = "not known: its data set's record is damaged"  # which `digitcnn data` makes again
_MADE_OTHERWISE = ("answers", "data", "local")  # of runs, of data sets, not committed


# Runs


def is_main(run: RunConfig) -> bool:
    """Whether chapters 3 and 4 and the demonstration look at this run: the first seed."""
    return run.id in runs.MAIN


def state(run: RunConfig) -> str:
    """A run's state in words: ``current``, ``missing``, ``stale: code changed``, ``damaged``."""
    try:
        why = reason(run)
    except DigitcnnError:
        try:
            runs.manifest(run.data)
        except DigitcnnError:
            return NOT_KNOWN
        return "damaged"
    if not why:
        return "current"
    done = saved_epoch(run)
    unfinished = f", {done}/{run.epochs} epochs saved" if done else ""
    return (why if "missing" in why else f"stale: {why}") + unfinished


def saved_epoch(run: RunConfig) -> int:
    """How many epochs of an unfinished run are saved, from its checkpoint's head alone."""
    try:
        with runs.checkpoint_path(run).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return int(json.loads(file.read(min(length, 1_000_000)))["__metadata__"]["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def last_accuracies(run: RunConfig) -> dict[str, float]:
    """The last accuracy of a finished run by held-out split, as its metrics files say."""
    last = {}
    for split in run.held_out:
        with contextlib.suppress(OSError, ValueError, IndexError):
            header, *rows = runs.metrics_path(run, split).read_text("utf-8").splitlines()
            last[split] = float(rows[-1].split("\t")[header.split("\t").index("accuracy")])
    return last


def _part(run: RunConfig, data: str, split: str) -> list[int]:
    """How many images of a split a run has to do with, by class: of those that it learns, in their
    order, or of all."""
    counts = [TRAIN_IMAGES[files.profile()][data] // 10] * 10
    with contextlib.suppress(DigitcnnError, KeyError):
        division = run.split if data == run.data else "pooled"
        counts = runs.split_sizes(data, division)[split]["class_counts"]
    return [counts[digit] for digit, _ in run.class_counts] if run.class_counts else counts


def images_per_epoch(run: RunConfig) -> int:
    """How many different images a run learns from."""
    found = _part(run, run.data, "train")
    if run.class_counts:
        wanted = [count for _, count in run.class_counts]
        return sum(n if w is None else min(n, w) for n, w in zip(found, wanted, strict=True))
    return min(sum(found), run.train_size or sum(found))


def images_to_learn(run: RunConfig) -> int:
    """How many images pass through a run in all its epochs, each as often as it does."""
    return run.steps * run.batch_size if run.steps else run.epochs * images_per_epoch(run)


def images_to_evaluate(run: RunConfig) -> int:
    """How many images a run is evaluated on, those of its kept answers included."""
    times = run.epochs if run.evaluate_every_epoch else 1
    judged = times * sum(sum(_part(run, run.data, split)) for split in run.held_out)
    return judged + sum(sum(_part(run, *asked)) for asked in runs.kept_answers(run))


def seconds_to_learn(run: RunConfig) -> float:
    """Estimated time of a run's steps on an idle core.

    A part of an image's cost does not fall with its pixels: augmentation at 32 pixels, the steps.
    Measured (`benchmarks/epochs.py`): 0.43 and 0.50 of the whole at 16 pixels, 0.62 and 0.71 at 24.
    """
    cost = sum(share * (0.3 + 0.7 * (size / 32) ** 2) for size, share in run.resolutions)
    return images_to_learn(run) * cost / LEARNED_PER_SECOND


def seconds(run: RunConfig, from_start: bool = False) -> float:
    """Estimated time of training a run on an idle core, or of the rest if it was interrupted."""
    whole = seconds_to_learn(run) + images_to_evaluate(run) / EVALUATED_PER_SECOND
    done = 0 if from_start else saved_epoch(run)
    return whole * max(0, run.epochs - done) / run.epochs


def cores() -> int:
    """The cores that this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


def together(seconds: float, jobs: int) -> float:
    """Time of work that takes one idle core so many seconds, done by several processes at once."""
    return seconds / (1 + SECOND_PROCESS * (jobs - 1))


def with_workers(*counts: int) -> list[float]:
    """Computed wall time of all runs in seconds, dealt to so many workers in the order of training.

    Of runs that are stored with the time that they took, of others with the estimate for one of two
    processes side by side, as most were trained. It cannot be less than the longest run.
    """
    from . import grid

    taken = []
    for run in grid.chosen([], every=True):
        taken.append(2 * together(seconds(run, from_start=True), 2))
        with contextlib.suppress(DigitcnnError, KeyError):
            taken[-1] = runs.read_record(run)["seconds"]
    found = []
    for count in counts:
        free = [0.0] * count  # when each worker is
        for each in taken:
            heapq.heapreplace(free, free[0] + each)
        found.append(max(free))
    return found


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _stored_files() -> dict[str, Path]:
    """Every stored result by its path below the project; what is kept of runs is with the runs."""
    found = {}
    for path in sorted(files.cache_path().rglob("*.npz")):
        name = path.relative_to(files.results_root()).as_posix()
        if name.split("/")[1] not in _MADE_OTHERWISE and not path.name.startswith("."):
            found[name] = path
    return found


def stored_results() -> dict[str, str]:
    """The state in words of every stored result, by its path; see `store.stale`."""
    from . import store

    found = {}
    for name, path in _stored_files().items():
        try:
            found[name] = store.stale(path) or "current"
        except DigitcnnError:
            found[name] = "damaged"
    return found


def other_versions() -> list[str]:
    """Libraries with which something stored was made and that have another version here, a
    sentence each. That makes nothing stale: digits may differ, conclusions should not."""
    from . import store

    made: Counter[tuple[str, str]] = Counter()
    for run in runs.registry().values():
        with contextlib.suppress(DigitcnnError, KeyError):
            about = runs.read_record(run)["environment"]
            made.update((name, about[name]) for name in ("torch", "numpy"))
    for path in _stored_files().values():
        with contextlib.suppress(DigitcnnError):
            about = store.read(path, only_about=True)[1]
            made.update(about.get("libraries", {}).items())  # older files do not say it
    found = []
    for (name, version), count in sorted(made.items()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if (here := importlib.metadata.version(name)) != version:
                found.append(f"Made with {name} {version}, which is {here} here: {count} results.")
    return found


# The table of `digitcnn status`


class Row(NamedTuple):
    """A line of the table; `left` is what making it current would take, in seconds."""

    name: str
    state: str
    cost: str = ""
    left: float = 0.0
    epochs: str = ""
    validation: str = ""
    test: str = ""
    wrong: bool = False


def _line(run: RunConfig, every: bool) -> str:
    """The name of the line of a table that a run belongs to."""
    if every or is_main(run):
        return run.id
    if run.group in ("main", "official"):
        return f"{run.data}, other seeds" if run.group == "main" else run.id
    return f"{run.data} {run.group}" if run.group != "imbalance" else run.name


def run_rows(every: bool) -> list[Row]:
    """A row per run; unless `every`, the seeds of one in a row, and a data set's experiments."""
    groups: dict[str, list[RunConfig]] = {}
    for run in runs.registry().values():
        groups.setdefault(_line(run, every), []).append(run)
    rows = []
    for name, members in groups.items():
        states = [state(run) for run in members]
        done = ("current", NOT_KNOWN)
        costs = [seconds(run, known in done) for run, known in zip(members, states, strict=True)]
        left = sum(s for s, known in zip(costs, states, strict=True) if known not in done)
        row = Row(name, tally(states), duration(sum(costs)), left)
        if len(members) > 1:
            row = row._replace(name=f"{name} ({len(members)} runs)")
        else:
            run, current = members[0], states == ["current"]
            last = last_accuracies(run) if current else {}
            validation, test = (
                f"{last[split]:.2%}" if split in last else "-" for split in ("validation", "test")
            )
            epochs = run.epochs if current else saved_epoch(run)
            row = row._replace(
                epochs=f"{epochs}/{run.epochs}", validation=validation, test=test,
                wrong=is_main(run) and not current,
            )  # fmt: skip
        rows.append(row)
    return rows


def stored_rows(every: bool) -> list[Row]:
    """A row per folder of stored results, or with `every` per file."""
    folders: dict[str, list[str]] = {}
    for name, known in stored_results().items():
        folders.setdefault(name if every else str(Path(name).parent), []).append(known)
    return [
        Row(name if every else f"{name} ({len(states)})", tally(states), "by chapter")
        for name, states in folders.items()
    ]


def document_rows() -> list[Row]:
    """A row per document of the book."""
    rows = []
    for document in provenance.documents():
        known = provenance.state(document)
        rows.append(Row(document, str(known), wrong=not known.whole))
    return rows


def tally(states: Iterable[str]) -> str:
    """States in words: one if all agree, else how many there are of each, most frequent first."""
    counts = Counter(states).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{n} {name}" for name, n in counts)


def print_status(every: bool = False) -> int:
    """Print runs, stored results and chapters; 1 unless the main runs and chapters are current."""
    parts = {"run": run_rows(every)}
    if files.profile() == "full":  # the quick profile freezes no chapter
        parts |= {"stored results": stored_rows(every), "chapter": document_rows()}
    rows = [row for part in parts.values() for row in part]
    wide, broad = (max(map(len, column)) for column in list(zip(*rows, strict=True))[:2])
    line = f"{{:<{wide}}}  {{:<{broad}}}  {{:>10}} {{:>7}} {{:>10}} {{:>7}}"
    for title, part in parts.items():
        if part:
            columns = ("epochs", "validation", "test") if title == "run" else ("", "", "")
            head = "one core" if title == "run" else ""
            print(line.format(title, "state", head, *columns).rstrip())
        for row in part:
            columns = (row.epochs, row.validation, row.test)
            print(line.format(row.name, row.state, row.cost, *columns).rstrip())
        if part:
            print()
    whole = sum(seconds(run, from_start=True) for run in runs.registry().values())
    left, wrong = sum(row.left for row in rows), any(row.wrong for row in rows)
    print(
        f"All runs on two idle cores, one process each: {duration(together(whole, 2))}; "
        f"still to train: {duration(together(left, 2)) if left else 'nothing'}."
    )
    if every:
        hours = zip(CLUSTERS, with_workers(*CLUSTERS), strict=True)
        found = ", ".join(f"{n} workers {duration(each)}" for n, each in hours)
        print(f"From recorded times, two runs at a time (or the estimates): {found}.")
    for sentence in other_versions() if every else ():
        print(sentence)
    for data in runs.DATA:
        if runs.has_manifest(data):
            print(f"{data}: results are from {runs.manifest(data)['copy']}.")
    return int(wrong)


# The appendix


def run_table(records: dict[str, dict]) -> pd.DataFrame:
    """What runs were made from, in the lines of `run_rows`.

    Args:
        records: the runs' records (see `digitcnn.results.record`) by their ids.

    Columns: run, key, data (first 8 hexadecimal digits of the digests), duration.
    """
    import pandas as pd

    groups: dict[str, list[dict]] = {}
    for name, record in records.items():
        groups.setdefault(_line(runs.get(name), every=False), []).append(record)

    return pd.DataFrame(
        {
            "run": name,
            "key": found[0]["key"][:8] if len(found) == 1 else f"{len(found)} runs",
            "data": " / ".join(dict.fromkeys(each["ingredients"]["data"][:8] for each in found)),
            "duration": duration(sum(record["seconds"] for record in found)),
        }
        for name, found in groups.items()
    )
