"""Accept: make runs current again after a change of keyed code that does not matter, on evidence.

The code that a run was made with is found in git's history by its digests. That code and today's
then train the same short run side by side on this machine, a run of each group: `STEPS` steps that
go through its whole schedule, with its augmentation, optimiser, evaluation and rounding. Only if
every weight and every metric agrees bit for bit are the records given their new keys, with the
old ones, the reason and the evidence. DVC's ``commit`` is the precedent, without the evidence.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from . import files, runs, status, tensors
from .files import DigitcnnError
from .runs import RunConfig

STEPS = 200
# Run by both versions of the package: a run as JSON in, digests of weights and metrics out.
TRIAL = """
import dataclasses, hashlib, json, sys, torch
from digitcnn import data, runs, training  # data.pool is there in every version
torch.set_num_threads(1)
about = json.loads(sys.argv[1])
known = {field.name for field in dataclasses.fields(runs.RunConfig)}
tuples = lambda v: tuple(map(tuples, v)) if isinstance(v, list) else v
config = runs.RunConfig(**{k: tuples(v) for k, v in about.items() if k in known})
found = training.learn(config, data.pool(config.data), torch.device("cpu"))
digest = lambda t: hashlib.sha256(t.detach().contiguous().numpy().tobytes()).hexdigest()[:16]
state = found.averaged.module.state_dict()
print(json.dumps({
    "metrics": {split: [repr(row) for row in rows] for split, rows in found.rows.items()},
    "weights": {name: digest(value) for name, value in state.items()},
}))
"""
CODE = """
import json, sys
from digitcnn import runs
print(json.dumps({name: runs.code(run) for name, run in runs.registry().items()}))
"""


def accept(because: str) -> int:
    """Accept all runs whose code alone changed, if the evidence allows; the number of runs.

    Raises `DigitcnnError` where there is no git, no such code in its history, or a difference,
    which is named; then no record has changed.
    """
    waiting = [run for run in runs.registry().values() if _only_code_changed(run)]
    if not waiting:
        raise DigitcnnError(
            "No run is stale because of its code alone: there is nothing to accept."
        )
    if not because.strip():
        raise DigitcnnError('Say why the change does not matter: --because "…".')
    kinds: dict[tuple, list[RunConfig]] = {}
    for run in waiting:
        recorded = runs.read_record(run)["ingredients"]["code"]
        kinds.setdefault((run.group, run.data, recorded), []).append(run)
    evidence = {}
    with tempfile.TemporaryDirectory() as work:
        for kind, members in kinds.items():
            files.say(f"{members[0].id}: {STEPS} steps with its own code and with today's …")
            commit, package = _own_code(members[0], Path(work))
            evidence[kind] = {"run": members[0].id, "commit": commit} | _compare(
                members[0], package, Path(work)
            )
    for kind, members in kinds.items():
        for run in members:
            _renew(run, because.strip(), evidence[kind])
    return len(waiting)


def _only_code_changed(run: RunConfig) -> bool:
    try:
        about = runs.read_record(run)
        return runs.differences(about["ingredients"], runs.ingredients(run)) == "code changed"
    except DigitcnnError:  # missing or damaged: to be trained
        return False


def _versions(work: Path) -> Iterator[tuple[str, Path]]:
    """The package at each commit that changed it, the newest first, unpacked into a folder."""
    root = files.project_root()

    def git(*words: str) -> bytes:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True)
        if done.returncode:
            raise DigitcnnError(
                "git's history is needed for the code that the runs were made with, and there is "
                "none here: work in a clone of the repository."
            )
        return done.stdout

    try:
        commits = git("log", "--format=%H", "--", "digitcnn").decode().split()
    except FileNotFoundError:
        raise DigitcnnError("git is not installed: install it to accept a change.") from None
    for commit in commits:
        folder = work / commit[:12]
        if not folder.is_dir():
            with tarfile.open(fileobj=io.BytesIO(git("archive", commit, "digitcnn"))) as archive:
                archive.extractall(folder, filter="data")
        yield commit[:12], folder


def _own_code(run: RunConfig, work: Path) -> tuple[str, Path]:
    """The commit whose code the run's record names, and the folder of its package."""
    recorded = runs.read_record(run)["code"]
    for commit, folder in _versions(work):
        answer = _python(folder, CODE)
        if answer.returncode == 0 and json.loads(answer.stdout).get(run.id) == recorded:
            return commit, folder
    raise DigitcnnError(f"No commit holds the code that {run.id} was made with: train it again.")


def _python(package: Path, program: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a program with a version of the package, results and data being this project's."""
    env = os.environ | {
        "PYTHONPATH": str(package),
        "DIGITCNN_ROOT": str(files.project_root()),
        "DIGITCNN_DATA": str(files.data_root()),
    }
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=env, cwd=package, capture_output=True, text=True)


def _compare(run: RunConfig, package: Path, work: Path) -> dict:
    """What both versions agreed on. Raises `DigitcnnError` with the first difference."""
    short = vars(run) | {"epochs": 2, "steps": STEPS}
    found = []
    for folder in (package, Path(__file__).resolve().parent.parent):
        answer = _python(folder, TRIAL, json.dumps(short))
        if answer.returncode:
            reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise DigitcnnError(f"{run.id} cannot be compared ({reason[:200]}): train it again.")
        found.append(json.loads(answer.stdout))
    for part in ("metrics", "weights"):
        for name in found[0][part]:
            if found[0][part][name] != found[1][part].get(name):
                raise DigitcnnError(
                    f"The change matters: after {STEPS} steps of {run.id} the {part} of {name} "
                    "differ. Nothing was accepted: train again, or undo the change."
                )
    return {"steps": STEPS, "digest": files.fingerprint(found[0])}


def _renew(run: RunConfig, because: str, evidence: dict) -> None:
    """Give a run's record, weights and answers their new key."""
    about = runs.read_record(run)
    change = {
        "from": about["key"], "to": runs.key(run), "because": because, "evidence": evidence,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }  # fmt: skip
    about |= {"key": runs.key(run), "ingredients": runs.ingredients(run), "code": runs.code(run)}
    about["accepted"] = [*about.get("accepted", []), change]
    path = runs.answers_path(run)
    if not (answers := files.read_arrays(path)):
        raise files.unusable(path, "is damaged", f"delete it and run `digitcnn train {run.id}`")
    files.write_arrays(path, answers | {"key": np.array(about["key"])})
    if runs.weights_path(run).is_file():
        found, old = tensors.read_tensors(runs.weights_path(run))
        tensors.write_tensors(runs.weights_path(run), found, about | {"kind": old["kind"]})
    files.write_json(runs.record_path(run), runs.sealed(about))
    assert not status.reason(run), run.id
