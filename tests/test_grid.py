"""The grid: many runs at once, each stored as it finishes, whatever happens to the others."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from conftest import one_sentence
from crashes import outcome, tiny_run

from digitcnn import checkpoints, files, grid, runs, status, training
from digitcnn.files import DigitcnnError, Interrupted

ROOT = Path(__file__).resolve().parent.parent
SHORT = tiny_run(epochs=1)


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    """Bit-for-bit comparisons need one device, whatever the machine has."""
    for module in (checkpoints, training):
        monkeypatch.setattr(module, "pick_device", lambda: torch.device("cpu"))


def several(count: int) -> list[runs.RunConfig]:
    return [dataclasses.replace(SHORT, name=f"tiny{number}") for number in range(count)]


class Inline(Executor):
    """Does each job when it is submitted, in this process."""

    made: list[Inline] = []

    def __init__(self, jobs: int):
        self.jobs, self.ended = jobs, []
        Inline.made.append(self)

    def submit(self, function, /, *arguments) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.ended.append((wait, cancel_futures))


# Which runs, in which order


@pytest.fixture
def full(monkeypatch):
    """The full profile of this project."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_ROOT", str(ROOT))


def ids(*patterns: str, every: bool = False) -> list[str]:
    return [run.id for run in grid.chosen(list(patterns), every)]


def test_all_runs_come_by_group_the_longest_first(full):
    chosen = grid.chosen([], every=True)
    assert {run.id for run in chosen} == runs.registry().keys()
    assert len(chosen) == len(runs.registry())
    groups = [run.group for run in chosen]
    assert groups == sorted(groups, key=runs.GROUPS.index)
    assert ids(every=True)[:6] == [
        "mnist",
        "svhn",
        "mnist-s43",
        "svhn-s43",
        "mnist-s44",
        "svhn-s44",
    ]
    for group in runs.GROUPS[1:]:
        lengths = [status.images_to_learn(run) for run in chosen if run.group == group]
        assert lengths == sorted(lengths, reverse=True) and len(lengths) > 1


def test_names_groups_and_patterns(full):
    assert ids("svhn", "mnist") == ["mnist", "svhn"]  # in the order of training
    assert ids("svhn-s44", "svhn-s44", "svhn*") == ids("svhn*")
    assert ids("official") == ["svhn-official", "mnist-official"]
    assert ids("transfer") == ids("mnist-transfer-*") and len(ids("transfer")) == 18
    assert ids("mnist-exp-adam*", "svhn") == ["svhn", *ids("mnist-exp-adam*")]
    assert len(ids("mnist-exp-adam*")) == 9
    assert len(ids("?nist-case[12]")) == 2
    for group in runs.GROUPS:
        assert {run.group for run in grid.chosen([group])} == {group}


@pytest.mark.parametrize("patterns", [["nothing*"], ["mnist", "sv?"], ["mnst"], [""], ["main2"]])
def test_what_means_no_run_is_one_sentence(full, patterns):
    with pytest.raises(DigitcnnError, match=r"No run matches|There is no run") as caught:
        grid.chosen(patterns)
    assert "digitcnn status" in one_sentence(caught.value)


def test_all_and_names_are_not_both_given(full):
    with pytest.raises(DigitcnnError, match="not both") as caught:
        grid.chosen(["mnist"], every=True)
    one_sentence(caught.value)


# Jobs, in an executor that is passed in


def test_each_run_is_trained_and_stored(sandbox, monkeypatch):
    """Through another executor than the process pool, to the same bits as alone."""
    waiting = several(3)
    made: list[Inline] = []
    monkeypatch.setattr(Inline, "made", made)
    assert grid.train(waiting, 2, Inline) == {}
    found = [outcome(run) for run in waiting]
    assert [pool.jobs for pool in made] == [1, 1]  # so that a killed process takes none along
    assert all(pool.ended == [(True, False)] for pool in made)
    assert all(status.reason(run) == "" for run in waiting)
    assert not list(sandbox.rglob("checkpoints/*"))
    monkeypatch.setenv("DIGITCNN_ROOT", str(sandbox / "alone"))
    for run, expected in zip(waiting, found, strict=True):
        checkpoints.train(run)
        assert outcome(run) == expected


def test_threads_do_too(sandbox):
    run = SHORT
    assert grid.train([run], 1, lambda jobs: ThreadPoolExecutor(jobs)) == {}
    assert status.reason(run) == ""


def test_there_are_no_more_processes_than_runs(sandbox, monkeypatch):
    made: list[Inline] = []
    monkeypatch.setattr(Inline, "made", made)
    monkeypatch.setattr(grid, "work", lambda run: None)
    assert grid.train(several(2), 8, Inline) == {}
    assert len(made) == 2


def test_what_another_process_finished_is_not_done_again(sandbox, monkeypatch):
    checkpoints.train(SHORT)
    monkeypatch.setattr(checkpoints, "compute", lambda *_: pytest.fail("trained again"))
    assert grid.work(SHORT) is None
    assert grid.train([SHORT], 1, Inline) == {}


def test_a_job_gives_back_plain_data(sandbox):
    """Nothing but its checkpoint is written where it is done."""
    import pickle

    made = pickle.loads(pickle.dumps(grid.work(SHORT)))
    assert made.run == SHORT and runs.stale(SHORT) == "missing"
    assert runs.checkpoint_path(SHORT).is_file()
    checkpoints.store(made)
    assert status.reason(SHORT) == "" and not runs.checkpoint_path(SHORT).exists()


def failing(monkeypatch, name: str, error: BaseException) -> None:
    """Let the job of one run raise, the others be done."""
    real = grid.work

    def work(run):
        if run.id == name:
            raise error
        return real(run)

    monkeypatch.setattr(grid, "work", work)


@pytest.mark.parametrize(
    ("error", "said"),
    [(DigitcnnError("The data is damaged."), "The data is damaged."),
     (RuntimeError("out of range"), "RuntimeError: out of range"),
     (MemoryError(), "MemoryError: ")],
)  # fmt: skip
def test_a_run_that_fails_does_not_stop_the_others(sandbox, monkeypatch, error, said):
    waiting = several(3)
    failing(monkeypatch, "tiny1", error)
    assert grid.train(waiting, 1, Inline) == {"tiny1": said}
    assert [status.reason(run) for run in waiting] == ["", "missing", ""]


def test_a_result_that_cannot_be_stored_fails_alone_and_keeps_its_checkpoint(sandbox, monkeypatch):
    waiting, real = several(2), files.write_whole

    def full(path, content):
        if path.name == "tiny0.json":
            raise DigitcnnError("The disk is full.")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", full)
        assert grid.train(waiting, 1, Inline) == {"tiny0": "The disk is full."}
    assert [path.name for path in sandbox.rglob("checkpoints/*")] == ["tiny0.safetensors"]
    epochs = []
    monkeypatch.setattr(training.Training, "run_epoch", lambda self: epochs.append(1))
    assert grid.train(waiting[:1], 1, Inline) == {} and not epochs
    assert status.reason(waiting[0]) == ""


# Processes that are killed


class Breaking(Inline):
    """A pool whose process is killed during, or after, the jobs of some runs, which breaks it."""

    during: list[str] = []
    after: list[str] = []
    log: list[list[str]] = []

    def __init__(self, jobs: int):
        super().__init__(jobs)
        self.broken = False
        Breaking.log.append([])
        self.mine = Breaking.log[-1]

    def submit(self, function, /, run) -> Future:
        if self.broken:
            raise BrokenProcessPool("A child process terminated abruptly.")
        self.mine.append(run.id)
        if run.id in Breaking.after:
            Breaking.after.remove(run.id)
            self.broken = True
        if run.id not in Breaking.during:
            return super().submit(function, run)
        Breaking.during.remove(run.id)
        self.broken = True
        future: Future = Future()
        future.set_exception(BrokenProcessPool("A child process terminated abruptly."))
        return future


@pytest.fixture
def breaking(sandbox, monkeypatch):
    monkeypatch.setattr(Breaking, "log", [])

    def kill(*during: str, after: tuple[str, ...] = ()) -> type[Breaking]:
        monkeypatch.setattr(Breaking, "during", list(during))
        monkeypatch.setattr(Breaking, "after", list(after))
        return Breaking

    return kill


def test_a_killed_process_breaks_the_pool_and_the_run_is_tried_again(breaking):
    waiting = several(3)
    assert grid.train(waiting, 1, breaking("tiny1")) == {}
    assert Breaking.log == [["tiny0", "tiny1"], ["tiny1", "tiny2"]]
    assert all(status.reason(run) == "" for run in waiting)


def test_a_process_killed_twice_is_reported(breaking):
    waiting = several(3)
    failed = grid.train(waiting, 1, breaking("tiny1", "tiny1"))
    assert failed.keys() == {"tiny1"} and "killed twice" in failed["tiny1"]
    assert Breaking.log == [["tiny0", "tiny1"], ["tiny1"], ["tiny2"]]
    assert [status.reason(run) for run in waiting] == ["", "missing", ""]


def test_a_process_killed_while_it_is_idle_is_replaced(breaking):
    waiting = several(3)
    assert grid.train(waiting, 1, breaking(after=("tiny0", "tiny2"))) == {}
    assert all(status.reason(run) == "" for run in waiting)
    assert Breaking.log == [["tiny0"], ["tiny1", "tiny2"]]


def test_runs_beside_a_killed_one_are_not_disturbed(breaking):
    """Only the run whose process was killed is tried again, and only it is reported."""
    waiting = several(4)
    assert grid.train(waiting, 2, breaking("tiny1", "tiny1")).keys() == {"tiny1"}
    assert [status.reason(run) for run in waiting] == ["", "missing", "", ""]
    submitted = [name for pool in Breaking.log for name in pool]
    assert sorted(submitted) == ["tiny0", "tiny1", "tiny1", "tiny2", "tiny3"]


# Ctrl-C and SIGTERM


def test_ctrl_c_ends_the_pool_and_says_how_to_go_on(sandbox, monkeypatch):
    made: list[Inline] = []
    monkeypatch.setattr(Inline, "made", made)
    failing(monkeypatch, "tiny1", KeyboardInterrupt())
    waiting = several(3)
    before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with pytest.raises(Interrupted, match="the same command goes on") as caught:
        grid.train(waiting, 1, Inline)
    one_sentence(caught.value)
    assert made[0].ended == [(False, True)] and len(made) == 1
    assert (signal.getsignal(signal.SIGTERM), dict(os.environ)) == before
    assert [status.reason(run) for run in waiting] == ["", "missing", "missing"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
def test_sigterm_is_treated_as_ctrl_c(sandbox, monkeypatch):
    def work(run):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("it went on")

    monkeypatch.setattr(grid, "work", work)
    with pytest.raises(Interrupted):
        grid.train(several(2), 1, Inline)


def test_workers_get_one_thread_each_and_the_environment_stays(sandbox, monkeypatch):
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before, seen = dict(os.environ), []
    monkeypatch.setattr(grid, "work", lambda run: seen.append([os.environ[n] for n in names]))
    grid.train(several(1), 1, Inline)
    assert seen == [["1", "1", "1"]] and dict(os.environ) == before


# What is seen


def test_without_a_terminal_there_are_plain_lines(sandbox, monkeypatch, capfd):
    monkeypatch.setattr(grid, "REPORT", 0.0)
    grid.train(several(2), 1, Inline)
    lines = capfd.readouterr().err.splitlines()
    assert all(line.isprintable() for line in lines)
    assert [line.split(":")[0] for line in lines if line.startswith("[")] == [
        "[1/2] tiny0", "[2/2] tiny1"
    ]  # fmt: skip
    done = next(line for line in lines if line.startswith("[1/2]"))
    assert re.fullmatch(r"\[1/2\] tiny0: validation \d+\.\d\d%", done)
    views = [line for line in lines if line.startswith("run ")]
    assert views and all(
        re.fullmatch(r"run \d of 2 \(.*\), about .* left in all", v) for v in views
    )


def test_plain_lines_come_now_and_then(sandbox, monkeypatch, capfd):
    view = grid.View(several(2))
    assert not view.live
    for _ in range(5):
        view.show([SHORT])
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_view_counts_what_is_left(sandbox, monkeypatch):
    """From the checkpoints' epochs, at the pace since the start."""
    said: list[str] = []
    monkeypatch.setattr(grid.View, "_line", lambda self, text, keep=False: said.append(text))
    monkeypatch.setattr(grid, "REPORT", 0.0)
    saved = {"tiny0": 0, "tiny1": 0}
    monkeypatch.setattr(status, "saved_epoch", lambda run: saved[run.id])
    now = [1000.0]
    monkeypatch.setattr(grid.time, "monotonic", lambda: now[0])
    waiting = [dataclasses.replace(run, epochs=20) for run in several(2)]
    view = grid.View(waiting)
    saved["tiny0"] = 10
    now[0] += 100  # a quarter of all
    view.show(waiting[:1])
    assert said == ["run 1 of 2 (tiny0 10/20), about 5 min left in all"]
    view.finished(waiting[0])
    now[0] += 100
    view.show(waiting[1:])
    assert said[-1] == "run 2 of 2 (tiny1 0/20), about 3 min left in all"


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [0, 40])
def test_on_a_terminal_there_is_one_live_line(sandbox, monkeypatch, columns):
    import pty
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    with open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        view = grid.View(several(3))
        assert view.live
        view.show(several(2))
        view.show(several(2))
        view.finished(SHORT)
        view.close()
    text = b""
    with contextlib.suppress(OSError):  # at its end, the other side being closed
        while part := os.read(master, 10_000):
            text += part
    os.close(master)
    lines = text.decode().replace("\r\n", "\n").split("\r\033[K")
    assert len(lines) == 4 and lines[3] == "[1/3] tiny: validation -\n\n"
    width = (columns or 80) - 1
    for line in lines[1:3]:
        assert line.startswith("run 2 of 3 (tiny0, tiny1") and len(line) <= width
        assert len(line) == width or line.endswith(" left in all")


# Whole pools


def digitcnn(*arguments: str, **variables: str) -> subprocess.Popen:
    """The real command, in the quick profile of the current tree."""
    return subprocess.Popen(
        [sys.executable, "-m", "digitcnn", *arguments], text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ) | variables,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_give_the_same_bits_as_one(sandbox, monkeypatch):
    waiting = several(3)
    assert grid.train(waiting, 2) == {}
    found = [outcome(run) for run in waiting]
    monkeypatch.setenv("DIGITCNN_ROOT", str(sandbox / "alone"))
    for run, expected in zip(waiting, found, strict=True):
        with single_thread():
            checkpoints.train(run)
        assert outcome(run) == expected


@contextlib.contextmanager
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def workers_of(process: subprocess.Popen) -> list[int]:
    """The processes of a pool, less the one that watches over shared things."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == process.pid:
                if b"spawn_main" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def lives(pid: int) -> bool:
    """Whether a process does anything yet; one that has ended may wait to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, seconds: float = 300):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


SECONDS = ("svhn", "mnist")  # eight epochs in the quick profile: time to be ended in the middle
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_workers_and_the_same_command_goes_on(sandbox, sign, faults):
    """The real command with two processes, ended in the middle, and typed again."""
    names = SECONDS
    with faults.one(f"{sign.name} at the command line"):
        process = digitcnn("train", *names, "--jobs", "2")
        both = [runs.get(name) for name in names]
        wait_for(lambda: all(status.saved_epoch(run) for run in both) or process.poll())
        workers = workers_of(process)
        assert len(workers) == 2
        process.send_signal(sign)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        assert errors.splitlines()[-1].endswith("the same command goes on from there.")
        assert not any(map(lives, workers))
        done = {run.id: status.saved_epoch(run) for run in both}
        assert all(1 <= done[run.id] < run.epochs for run in both)
        process = digitcnn("train", *names, "--jobs", "2")
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert "0 of 2 runs are current" in output
        assert all(status.reason(run) == "" for run in both)
        assert all(runs.read_record(run)["seconds"] > 0 for run in both)


@pytest.mark.slow
@needs_proc
def test_a_killed_worker_goes_on_from_its_checkpoint_then_is_reported(sandbox, faults):
    run = runs.get(SECONDS[0])
    with faults.one("kill -9 of a worker"):
        process = digitcnn("train", run.id, "svhn-exp-recipe", "--jobs", "1")
        killed = []
        for at_least in (1, 2):
            wait_for(lambda n=at_least: status.saved_epoch(run) >= n or process.poll() is not None)
            pid = next(p for p in wait_for(lambda: workers_of(process)) if p not in killed)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            wait_for(lambda: set(workers_of(process)) - set(killed) or process.poll() is not None)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 1, errors
        assert "1 of 2 runs failed" in errors and "killed twice" in errors
        assert "Traceback" not in errors
        assert status.reason(runs.get("svhn-exp-recipe")) == ""  # the other was trained
        assert status.saved_epoch(run) >= 2
        process = digitcnn("train", run.id, "--jobs", "1")
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0 and status.reason(run) == "", errors


@pytest.mark.slow
@needs_proc
def test_workers_end_when_their_parent_is_killed(sandbox, faults):
    run = runs.get(SECONDS[0])
    with faults.one("kill -9 of the command"):
        process = digitcnn("train", run.id, "--jobs", "1")
        wait_for(lambda: status.saved_epoch(run) or process.poll())
        workers = workers_of(process)
        assert workers
        process.kill()
        process.communicate()
        wait_for(lambda: not any(map(lives, workers)), 120)
        assert 1 <= status.saved_epoch(run) < run.epochs and runs.stale(run) == "missing"
