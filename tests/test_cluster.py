"""The grid on a Dask cluster: a real scheduler and real workers, on this machine's loopback."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import one_sentence
from crashes import outcome, tiny_run

from digitcnn import cli, cluster, division, files, grid, runs, status
from digitcnn.files import DigitcnnError

pytest.importorskip(
    "distributed", reason="Dask's distributed is not installed: `make test` installs it."
)
PACKAGE = Path(files.__file__).parent


@pytest.fixture
def machines(tmp_path, monkeypatch):
    """Start a scheduler and workers, each in a folder of its own; all are ended afterwards."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the same arithmetic everywhere
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__RETRY__COUNT", "0")
    started = []

    def start(module: str, *arguments: str, root: Path, package: Path = PACKAGE, **variables: str):
        about = tmp_path / "scheduler.json"
        root.mkdir(exist_ok=True)
        environment = os.environ | {"DIGITCNN_ROOT": str(root), "PYTHONPATH": str(package.parent)}
        with (root / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", "--host", "127.0.0.1",
                 "--no-dashboard", "--scheduler-file", str(about), *arguments],
                env=environment | variables, cwd=root, stdout=log, stderr=log,
            )  # fmt: skip
        started.append(process)
        return process

    start.started = started
    yield start
    for process in started:
        process.kill()
        process.wait()


def scheduler(machines, sandbox) -> str:
    """Start one, the first of `machines.started`; its address."""
    machines("dask_scheduler", "--port", "0", root=sandbox / "scheduler")
    about = sandbox / "scheduler.json"
    wait_for(lambda: about.is_file() and about.read_text().endswith("}"))
    return json.loads(about.read_text())["address"]


def worker(machines, sandbox, name: str, **options):
    return machines(
        "dask_worker", "--no-nanny", "--nthreads", "1", "--name", name, root=sandbox / name,
        **options,
    )  # fmt: skip


def wait_for(condition, seconds: float = 120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def toy_grid() -> list[runs.RunConfig]:
    """Some runs, the first of which take long enough to be seen."""
    longer = [tiny_run(f"long{number}", epochs=50) for number in range(2)]
    return [*longer, *(tiny_run(f"short{number}", epochs=2) for number in range(2))]


def test_two_machines_one_of_them_killed_give_the_bits_of_the_process_pool(
    sandbox, machines, monkeypatch, capfd, faults
):
    """A third, whose code is another, is refused by name and makes no run."""
    other = shutil.copytree(PACKAGE, sandbox / "other" / "package" / "digitcnn")
    training = other / "training.py"
    text = training.read_text()
    assert text.count("EVALUATION_BATCH = 100\n") == 1
    training.write_text(text.replace("EVALUATION_BATCH = 100\n", "EVALUATION_BATCH = 200\n"))
    address = scheduler(machines, sandbox)
    workers = {name: worker(machines, sandbox, name) for name in ("one", "two")}
    worker(machines, sandbox, "other", package=other)
    division.pool("mnist")
    waiting, killed = toy_grid(), []
    look = grid.View.show

    def kill_one(view, running):
        """Kill a worker in the middle of a run, known by a checkpoint in its folder."""
        look(view, running)
        if not killed and (found := list(sandbox.glob("*/_quick/cache/local/checkpoints/long*"))):
            killed.append(found[0].relative_to(sandbox).parts[0])
            workers[killed[0]].kill()

    monkeypatch.setattr(grid.View, "show", kill_one)
    monkeypatch.setattr(grid, "GLANCE", 0.05)
    monkeypatch.setattr(cluster, "PATIENCE", 600)  # the third may be the first to be ready
    with faults.one("kill -9 of a machine of the cluster"):
        assert cluster.train(waiting, address) == {}
        assert len(killed) == 1
        assert all(status.reason(run) == "" for run in waiting)
    said = capfd.readouterr().err
    assert "is refused: its code differs in EVALUATION_BATCH" in said
    assert not list(sandbox.glob("other/_quick/cache/local/checkpoints/*"))
    for name in ("one", "two"):  # nothing but the owner has results
        assert not list(sandbox.glob(f"{name}/_quick/cache/runs/*"))
    left = {"one", "two"}.difference(killed).pop()
    wait_for(lambda: not list(sandbox.glob(f"{left}/_quick/cache/local/checkpoints/*")))
    found = [outcome(run) for run in waiting]
    monkeypatch.setenv("DIGITCNN_ROOT", str(sandbox / "pool"))
    assert grid.train(waiting, 1) == {}
    assert [outcome(run) for run in waiting] == found


def test_a_cluster_of_others_is_refused_in_a_sentence(sandbox, machines, monkeypatch):
    """Here, of other data."""
    monkeypatch.setattr(cluster, "PATIENCE", 0)
    other = shutil.copytree(PACKAGE, sandbox / "other" / "package" / "digitcnn")
    text = (other / "toy.py").read_text()
    assert text.count("default_rng(42)") == 1
    (other / "toy.py").write_text(text.replace("default_rng(42)", "default_rng(43)"))
    address = scheduler(machines, sandbox)
    worker(machines, sandbox, "other", package=other)
    run = dataclasses.replace(tiny_run(epochs=1), data="svhn")
    division.pool("svhn")
    with pytest.raises(
        DigitcnnError, match=r"No worker .* its svhn is \w{16}, not \w{16}"
    ) as caught:
        cluster.train([run], address)
    one_sentence(caught.value)
    assert runs.stale(run) == "missing"


def test_no_scheduler_is_one_sentence(sandbox, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 1)
    division.pool("mnist")
    for address in ("tcp://127.0.0.1:1", "127.0.0.1", "nowhere://x"):
        with pytest.raises(DigitcnnError, match="No Dask scheduler answers") as caught:
            cluster.train([tiny_run()], address)
        one_sentence(caught.value)
        # Dask closes a client that never connected when it is collected, and waits for its loop:
        # here, not in the middle of the next one's start.
        del caught
        gc.collect()
    with pytest.raises(DigitcnnError, match="needs certificates: set DASK_") as caught:
        cluster.train([runs.get("mnist")], "tls://127.0.0.1:1")
    one_sentence(caught.value)


def test_a_scheduler_that_ends_is_one_sentence(sandbox, machines, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 3)
    address = scheduler(machines, sandbox)
    division.pool("mnist")
    monkeypatch.setattr(grid.View, "show", lambda *_: machines.started[0].kill())
    with pytest.raises(DigitcnnError, match=r"is gone .* the same command") as caught:
        cluster.train([tiny_run()], address)
    one_sentence(caught.value)


def test_what_a_worker_has_to_agree_with(sandbox, monkeypatch):
    division.pool("mnist")
    expected = cluster.identity({"mnist"})
    assert cluster.refusal(expected) == ""
    assert {"Training", "learn", "compute", "kept_answers"} <= expected["code"].keys()
    for name in ("profile", "python", "torch", "numpy", "mnist"):
        why = cluster.refusal(expected | {name: "another"})
        assert why.startswith(f"its {name} is ") and why.endswith(", not another")
    why = cluster.refusal(expected | {"code": expected["code"] | {"learn": "0", "gone": "1"}})
    assert why == "its code differs in gone, learn"


@pytest.mark.parametrize("option", [["--jobs", "2"], ["--checkpoints", "elsewhere"]])
def test_the_workers_decide_how_many_and_where(sandbox, capsys, option):
    assert cli.main(["train", "--all", "--scheduler", "tcp://127.0.0.1:1", *option]) == 1
    assert "--scheduler goes without" in capsys.readouterr().err
