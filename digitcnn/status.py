"""Status: what is current, what is stale and why, and what it would cost to make it again.

`digitcnn status` shows it, the book's pre-render step acts on it (`before_render`), the appendix
lists the runs (`run_table`). Costs are wall times as recorded when a thing was last made; a run
that was never trained is estimated from the pace of another. Needs no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import files, provenance, runs
from .files import DigitcnnError
from .runs import RunConfig

if TYPE_CHECKING:
    import pandas as pd

# Images per second of one single-threaded process on an idle core, learned from (forward and back)
# and evaluated (float32): measured by `benchmarks/epochs.py` on the machine that trained the grid,
# a Xeon with AVX512-BF16. Two such processes on two cores do 1.8 times the work of one.
LEARNED_PER_SECOND, EVALUATED_PER_SECOND = 830, 1270
SECOND_PROCESS = 0.8
TRAIN_IMAGES = {
    "full": {"mnist": 49_000, "svhn": 69_502},
    "quick": {"mnist": 1_257, "svhn": 2_515},
}
UNREAD = "data not read yet"  # what `runs.stale` says where reading may be all that is needed
UNKNOWN = "unknown"  # what a document costs that was never executed
PAGES = ("html.json", "typ.json")  # a document's frozen results, a file a format
_MADE_OTHERWISE = ("runs", "metrics", "data", "chapters", "checkpoints", "features", "locks")


# Runs


def is_main(run: RunConfig) -> bool:
    """Whether chapters 3 and 4 and the demonstration look at this run: the first seed."""
    return run.id in runs.MAIN


def reason(run: RunConfig) -> str:
    """Why a run has to be trained; empty if it is current."""
    why = runs.stale(run)
    if not why and runs.keeps_weights(run) and not runs.weights_path(run).is_file():
        if runs.read_record(run).get("diverged") is None:  # else there is nothing to keep
            return "weights missing"
    return why


def state(run: RunConfig) -> str:
    """A run's state in words: ``current``, ``missing``, ``stale: code changed``, ``damaged``."""
    try:
        why = reason(run)
    except DigitcnnError:
        return "damaged"
    if not why:
        return "current"
    done = saved_epoch(run)
    unfinished = f", {done}/{run.epochs} epochs saved" if done else ""
    return (why if "missing" in why else f"stale: {why}") + unfinished


def saved_epoch(run: RunConfig) -> int:
    """How many epochs of an unfinished run are saved, from its checkpoint's head alone."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with runs.checkpoint_path(run).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return int(json.loads(file.read(min(length, 1_000_000)))["__metadata__"]["epoch"])
    return 0


def last_accuracies(run: RunConfig) -> list[str]:
    """The last validation and test accuracy of a finished run, as its metrics files say."""
    last = {}
    for split in run.held_out:
        with contextlib.suppress(OSError, ValueError, IndexError):
            header, *rows = runs.metrics_path(run, split).read_text("utf-8").splitlines()
            accuracy = float(rows[-1].split("\t")[header.split("\t").index("accuracy")])
            last[split] = f"{accuracy:.2%}"
    return [last.get(split, "-") for split in ("validation", "test")]


def _part(run: RunConfig, data: str, split: str) -> int:
    """How many images of a split a run has to do with."""
    counts = [TRAIN_IMAGES[files.profile()][data] // 10] * 10
    with contextlib.suppress(DigitcnnError, KeyError):
        division = run.split if data == run.data else "pooled"
        counts = runs.split_sizes(data, division)[split]["class_counts"]
    return sum(counts[c] for c, _ in run.class_counts) if run.class_counts else sum(counts)


def images_per_epoch(run: RunConfig) -> int:
    """How many different images a run learns from."""
    if run.class_counts and all(count is not None for _, count in run.class_counts):
        return sum(count for _, count in run.class_counts)
    whole = _part(run, run.data, "train")
    return min(whole, run.train_size or whole)


def images_to_learn(run: RunConfig) -> int:
    """How many images pass through a run in all its epochs, each as often as it does."""
    return run.steps * run.batch_size if run.steps else run.epochs * images_per_epoch(run)


def images_to_evaluate(run: RunConfig) -> int:
    """How many images a run is evaluated on, those of its kept answers included."""
    times = run.epochs if run.evaluate_every_epoch else 1
    judged = times * sum(_part(run, run.data, split) for split in run.held_out)
    return judged + sum(_part(run, *asked) for asked in runs.kept_answers(run))


def seconds(run: RunConfig) -> float:
    """Estimated time of training a run on an idle core, or of the rest if it was interrupted."""
    whole = images_to_learn(run) / LEARNED_PER_SECOND
    whole += images_to_evaluate(run) / EVALUATED_PER_SECOND
    return whole * max(0, run.epochs - saved_epoch(run)) / run.epochs


def cores() -> int:
    """The cores that this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


def together(seconds: float, jobs: int) -> float:
    """Time of work that takes one idle core so many seconds, done by several processes at once."""
    return seconds / (1 + SECOND_PROCESS * (jobs - 1))


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# Chapters and what they cache


def document_state(document: str) -> str:
    """The state in words of a document's frozen results."""
    pages = [provenance.frozen(document) / "execute-results" / name for name in PAGES]
    if not all(page.is_file() for page in pages):
        return "missing"
    if found := provenance.changes(document):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"stale: {found[0]}{more}"
    text = (files.project_root() / f"{document}.qmd").read_bytes().replace(b"\r\n", b"\n")
    digest = hashlib.md5(text).hexdigest()  # Quarto's own rule
    same = all(provenance.read_page(page).get("hash") == digest for page in pages)
    return "current" if same else "stale: its text changed"


def cached_results() -> dict[str, str]:
    """The state in words of every cached result, by its path below the project.

    What a result was made from is known exactly only where it is used, because its key covers
    the source of functions. A chapter's record vouches for it: its key was right when the chapter
    was executed, and nothing that the chapter reached has changed since. Otherwise its key is
    compared, and the result made again if need be, when the chapter is executed.
    """
    found: dict[str, str] = {}
    for document in provenance.documents():
        named = provenance.read_record(document).get("files", {})
        changed = dict(line.split(" ", 1) for line in provenance.changes(document))
        own = {name for name in named if _is_cached(name)}
        causes = [f"{name} {how}" for name, how in changed.items() if name not in own]
        for name in own:
            if name in changed:
                state = changed[name].removeprefix("is ")
            else:
                state = f"to be checked: {causes[0]}" if causes else "current"
            if found.get(name) != "current":
                found[name] = state
    for path in files.cache_path().glob("*/*"):
        name = path.relative_to(files.results_root()).as_posix()
        if _is_cached(name) and not path.name.startswith("."):
            found.setdefault(name, "read by no chapter")
    return dict(sorted(found.items()))


def _is_cached(name: str) -> bool:
    return name.startswith("cache/") and name.split("/")[1] not in _MADE_OTHERWISE


def document_seconds(document: str) -> float | None:
    """Wall time of executing a document once, for one format; None if it never was.

    Where runs or stored results changed, what it cached has to be made again: then its longest.
    """
    record = provenance.read_record(document)
    decisive = tuple(f"digitcnn/{module}.py" for module in runs.KEYED_MODULES)
    still_cached = all(
        line.startswith("digitcnn/") and not line.startswith(decisive)
        for line in provenance.changes(document)
    )
    return record.get("seconds" if still_cached else "longest", record.get("seconds"))


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
        costs = [seconds(run) for run in members]
        left = sum(s for s, known in zip(costs, states, strict=True) if known != "current")
        row = Row(name, tally(states), duration(sum(costs)), left)
        if len(members) > 1:
            row = row._replace(name=f"{name} ({len(members)} runs)")
        else:
            run, current = members[0], states == ["current"]
            validation, test = last_accuracies(run) if current else ("-", "-")
            epochs = run.epochs if current else saved_epoch(run)
            row = row._replace(
                epochs=f"{epochs}/{run.epochs}", validation=validation, test=test,
                wrong=is_main(run) and not current,
            )  # fmt: skip
        rows.append(row)
    return rows


def cached_rows(every: bool) -> list[Row]:
    """A row per folder of cached results, or with `every` per file."""
    folders: dict[str, list[str]] = {}
    for name, known in cached_results().items():
        folders.setdefault(name if every else str(Path(name).parent), []).append(known)
    return [
        Row(name if every else f"{name} ({len(states)})", tally(states), "by chapter")
        for name, states in folders.items()
    ]


def document_rows() -> list[Row]:
    """A row per document of the book; executing it once per format makes it current."""
    rows = []
    for document in provenance.documents():
        known, cost = document_state(document), document_seconds(document)
        wrong = known != "current"
        left = (cost or 0) * len(PAGES) if wrong else 0
        shown = UNKNOWN if cost is None else f"{len(PAGES)} x {duration(cost)}"
        rows.append(Row(document, known, shown, left, wrong=wrong))
    return rows


def tally(states: Iterable[str]) -> str:
    """States in words: one if all agree, else how many there are of each, most frequent first."""
    counts = Counter(states).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{n} {name}" for name, n in counts)


def print_status(every: bool = False) -> int:
    """Print runs, cached results and chapters; 1 unless the main runs and chapters are current."""
    parts = {"run": run_rows(every)}
    if files.profile() == "full":  # the quick profile freezes no chapter
        parts |= {"cached results": cached_rows(every), "chapter": document_rows()}
    rows = [row for part in parts.values() for row in part]
    wide, broad = (max(len(row[i]) for row in rows) for i in (0, 1))
    line = f"{{:<{wide}}}  {{:<{broad}}}  {{:>10}} {{:>7}} {{:>10}} {{:>7}}"
    for title, part in parts.items():
        if part:
            columns = ("epochs", "validation", "test") if title == "run" else ("", "", "")
            print(line.format(title, "state", "to remake", *columns).rstrip())
        for row in part:
            columns = (row.epochs, row.validation, row.test)
            print(line.format(row.name, row.state, row.cost, *columns).rstrip())
        if part:
            print()
    left, wrong = sum(row.left for row in rows), any(row.wrong for row in rows)
    if left or wrong:
        more = " and what is unknown" if any(r.wrong and r.cost == UNKNOWN for r in rows) else ""
        print(f"To make all current: about {duration(left)}{more}.")
    else:
        print("All is current.")
    return int(wrong)


# Before a render


def before_render() -> int:
    """The book's pre-render step: thaw what no longer fits and say what has to be trained.

    Where training is forbidden (``DIGITCNN_TRAIN=never``), that is an error, and nothing is
    thawed. Returns an exit status.
    """
    try:
        notice = training_notice(to_execute())
        for line in provenance.thaw():
            print(line, flush=True)
    except DigitcnnError as error:
        print(error, file=sys.stderr)
        return 1
    if notice:
        print(notice, flush=True)
    return 0


def to_execute() -> list[str]:
    """The documents whose cells the coming render runs, as Quarto describes it, if it does."""
    documents = provenance.documents()
    chosen = os.environ.get("QUARTO_PROJECT_INPUT_FILES")
    if chosen and not os.environ.get("QUARTO_PROJECT_RENDER_ALL"):  # these, frozen or not
        root = files.project_root()
        named = {(root / line).resolve().with_suffix("") for line in chosen.splitlines()}
        return [name for name in documents if (root / name).resolve() in named]
    if files.profile() == "quick":
        return documents
    return [name for name in documents if document_state(name) != "current"]


def training_notice(documents: list[str]) -> str:
    """A sentence on the runs that executing `documents` has to train, with how long it takes.

    Empty if there are none. Raises `DigitcnnError` if it is certain and training is forbidden.
    """
    if not documents:
        return ""
    records = {name: provenance.read_record(name).get("files") for name in documents}
    read = {path for paths in records.values() for path in paths or ()}
    waiting = [run for run in runs.registry().values() if reason(run) not in ("", UNREAD)]
    certain = [
        run for run in waiting if {f"cache/runs/{run.id}.json", f"models/{run.model_file}"} & read
    ]
    unrecorded = [name for name, paths in records.items() if paths is None]
    how_long = duration(sum(seconds(run) for run in certain or waiting))
    if certain:
        shown = ", ".join(run.id for run in certain[:3])
        if len(certain) > 3:
            shown = f"{len(certain)} runs ({shown}, …)"
        if os.environ.get("DIGITCNN_TRAIN") == "never":
            named = "--all" if len(certain) > 3 else " ".join(run.id for run in certain)
            raise DigitcnnError(
                f"This render would have to train {shown} (about {how_long}), but DIGITCNN_TRAIN "
                f"is 'never': run `digitcnn train {named}` first."
            )
        return f"This render has to train {shown} first, about {how_long}."
    if waiting and unrecorded:
        return (
            f"This render may have to train up to {len(waiting)} runs first, about {how_long}: "
            f"what {unrecorded[0]} needs is not recorded yet."
        )
    return ""


# The appendix


def run_table(records: dict[str, dict], every: bool = False) -> pd.DataFrame:
    """What runs were made from, in the lines of `run_rows`.

    Args:
        records: the runs' records (see `digitcnn.checkpoints.record`) by their ids.

    Columns: run, key, code, data (first 8 hexadecimal digits of the digests), device, duration.
    """
    import pandas as pd

    groups: dict[str, list[dict]] = {}
    for name, record in records.items():
        groups.setdefault(_line(runs.get(name), every), []).append(record)

    return pd.DataFrame(
        {
            "run": name,
            "key": found[0]["key"][:8] if len(found) == 1 else f"{len(found)} runs",
            "code": _each(record["ingredients"]["code"][:8] for record in found),
            "data": _each(record["ingredients"]["data"][:8] for record in found),
            "device": _each(record["environment"]["machine"] for record in found),
            "duration": duration(sum(record["seconds"] for record in found)),
        }
        for name, found in groups.items()
    )


def _each(values: Iterable[str]) -> str:
    """Different values, in the order of their first occurrence."""
    return " / ".join(dict.fromkeys(values)).replace(" 1 threads", " 1 thread")


def environment_table(records: dict[str, dict]) -> pd.DataFrame:
    """Where runs were made: a row for the main runs, the experiments and those of question (e).

    Columns: runs, number, machine, versions (Python, torch), wall time.
    """
    import pandas as pd

    kinds: dict[str, list[dict]] = {}
    for name, record in records.items():
        run = runs.get(name)
        kind = "experiments" if is_experiment(run) else "imbalance" if run.class_counts else "long"
        kinds.setdefault(kind, []).append(record)
    return pd.DataFrame(
        {
            "runs": kind,
            "number": len(found),
            "machine": _each(record["environment"]["machine"] for record in found),
            "versions": _each(
                ", ".join(f"{part} {r['environment'][part]}" for part in ("python", "torch"))
                for r in found
            ),
            "wall time": duration(sum(record["seconds"] for record in found)),
        }
        for kind, found in kinds.items()
    )


def model_table(records: dict[str, dict]) -> pd.DataFrame:
    """The model files of the repository among `records`: parameters, size, key (see `run_table`).

    Other weights may lie in ``models/`` on the machine that trained them; they are not listed.
    """
    import pandas as pd

    rows = []
    for name, record in records.items():
        path = runs.weights_path(runs.get(name))
        if path.is_file() and provenance.kept(f"models/{path.name}"):
            size = f"{path.stat().st_size / 1e6:.2f} MB"
            rows.append((path.name, f"{record['parameters']:,}", size, record["key"]))
            files.noted(path)
    return pd.DataFrame(rows, columns=["file", "parameters", "size", "key"])
