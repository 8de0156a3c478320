"""Runs a tiny training in processes that are killed, for `test_checkpoints`.

Started as ``python tests/crashes.py [MODE ...]``, in a results tree named by the environment. It
imports torch once and forks a child per try, so that a hundred kills take seconds. Prints JSON.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from digitcnn import checkpoints, division, files, results, runs, training

EPOCHS = 4


def tiny_run(name: str = "tiny", epochs: int = EPOCHS, **changes) -> runs.RunConfig:
    """A run that takes a fraction of a second in the quick profile; its weights are kept."""
    small = {
        "group": "official", "class_counts": ((0, 16), (1, 16)), "batch_size": 16, "width": 0.3,
        "ema_decay": 0.9, "augmentation": ("shift",), "held_out": ("validation",),
    }  # fmt: skip
    return dataclasses.replace(runs.MAIN["mnist"], name=name, epochs=epochs, **(small | changes))


def use_cpu() -> None:
    """Train on the processor: other devices do not survive a fork."""
    for module in (checkpoints, training):
        module.pick_device = lambda: torch.device("cpu")


def outcome(run: runs.RunConfig) -> dict[str, bytes]:
    """What a finished run learned, without wall times: weights, metrics files, answers."""
    tensors, _ = checkpoints.read_tensors(runs.weights_path(run))
    found = {name: value.numpy().tobytes() for name, value in tensors.items()}
    found |= {name: value.tobytes() for name, value in results.answers(run).items()}
    for split in ("train", *run.held_out):
        found[split] = runs.metrics_path(run, split).read_bytes()
    return found


def start(run: runs.RunConfig, log: Path, before=lambda: None) -> int:
    """Fork a child that trains the run, with its terminal in `log`; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        before()
        checkpoints.load_or_train(run)
        os._exit(0)
    except files.DigitcnnError as error:
        files.say(f"ERROR {error}")
        os._exit(3)
    except BaseException as error:
        files.say(f"UNEXPECTED {error!r}")
        os._exit(4)


def readable(run: runs.RunConfig) -> int:
    """Read every file that is there; return the epoch to go on from. Raises if one is torn."""
    epoch = 0
    for path in sorted(files.results_root().rglob("*")):
        if path.suffix == ".safetensors" and not path.name.startswith("."):
            tensors, about = checkpoints.read_tensors(path)
            if about["kind"] == "checkpoint":
                epoch = int(tensors["epoch"])
                assert {len(tensors[f"rows.{name}"]) for name in ("train", *run.held_out)} == {
                    epoch
                }
                assert int(about["epoch"]) == epoch == len(json.loads(about["seconds"]))
        elif path.suffix == ".txt":
            text = path.read_text()
            assert text.startswith("epoch\t") and text.endswith("\n")
        elif path.suffix == ".json":
            files.read_json(path)
    if runs.record_path(run).is_file():
        checkpoints.load_model(run)
        results.answers(run)
        assert len(results.history(run)["train"]) == run.epochs
    return epoch


class Trial:
    """A run that is started and killed until it is done, then compared and started afresh."""

    def __init__(self, run: runs.RunConfig):
        self.run, self.log = run, files.project_root() / "terminal.log"
        checkpoints.load_or_train(run)  # also loads what torch imports late
        self.expected = outcome(run)
        self.clear()
        began = time.monotonic()
        # In a child, as it will be killed: a forked one may take thrice its parent's time.
        assert os.waitpid(start(run, self.log), 0)[1] == 0, self.log.read_text()
        self.seconds = time.monotonic() - began
        assert outcome(run) == self.expected
        self.clear()
        self.counts = {"killed": 0, "finished": 0, "epochs": [0] * (run.epochs + 1), "leftover": 0}

    def clear(self) -> None:
        for folder in ("local", "runs", "metrics", "answers"):
            shutil.rmtree(files.cache_path(folder), ignore_errors=True)
        runs.weights_path(self.run).unlink(missing_ok=True)
        self.log.write_text("")
        self.epoch = 0

    def announced(self, child: int, epoch: int) -> bool:
        """Whether the child has said that it is past an epoch, or has ended (and is kept)."""
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None or f"epoch {epoch}/" in self.log.read_text()

    def attempt(self, kill_after: float | None = None, epoch=0, before=lambda: None) -> bool:
        """Start once, kill perhaps; check everything. True if the child came to its end.

        `kill_after` are seconds from the start, or from when `epoch` was announced.
        """
        self.log.write_text("")
        child = start(self.run, self.log, before)
        if kill_after is not None:
            while epoch and not self.announced(child, epoch):
                time.sleep(0.001)
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        log = self.log.read_text()
        if began := re.search(r"epoch (\d+)/", log):
            assert int(began[1]) == self.epoch + 1, (began[0], self.epoch)
        parts = list(files.results_root().rglob("*.part"))
        assert len(parts) <= 1, parts  # what was being written when it was killed
        self.counts["leftover"] = max(self.counts["leftover"], len(parts))
        reached = readable(self.run)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            if not runs.record_path(self.run).is_file():
                assert reached >= self.epoch  # nothing whole was lost
            self.epoch = reached
            self.counts["killed"] += 1
            self.counts["epochs"][reached] += 1
            return False
        assert os.waitstatus_to_exitcode(status) == 0, log
        assert outcome(self.run) == self.expected
        self.counts["finished"] += 1
        self.clear()
        return True


def kill_at_random(kills: int) -> dict:
    """Kill a run at moments spread over its whole duration."""
    trial, chance = Trial(tiny_run()), random.Random(42)
    for number in itertools.count(1):
        if number % 30 == 0:  # left alone: by chance none may come to its end
            trial.attempt()
        elif trial.counts["killed"] == kills:
            break
        elif number % 2:  # at any moment of a whole run
            trial.attempt(chance.uniform(0, trial.seconds * 1.1))
        else:  # soon after an epoch: all but the first are over in no time
            trial.attempt(chance.uniform(0, 0.05), epoch=chance.randint(1, trial.run.epochs))
    while not trial.attempt():
        pass
    return trial.counts


def kill_at_writes() -> dict:
    """Kill a run just before and just after each step of each file that it writes."""
    trial = Trial(tiny_run(epochs=2))
    for name, when in itertools.product(("fsync", "replace", "unlink"), ("before", "after")):
        nth, done = 0, False
        while not done:
            trial.clear()

            def arm(name=name, when=when, nth=nth):
                real, calls = getattr(os, name), iter(range(10_000))

                def deadly(*arguments, **options):
                    here = next(calls) == nth
                    if here and when == "before":
                        os.kill(os.getpid(), signal.SIGKILL)
                    result = real(*arguments, **options)
                    if here:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return result

                setattr(os, name, deadly)

            done = trial.attempt(before=arm)
            if not done:
                assert trial.attempt(), "the second start did not come to its end"
            nth += 1
    return trial.counts


def two_at_once(pairs: int) -> dict:
    """Start the same run twice at the same time; it has to be trained once."""
    trial = Trial(tiny_run())
    trained = []
    for _ in range(pairs):
        children = [start(trial.run, trial.log) for _ in range(2)]
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, trial.log.read_text()
        trained.append(len(re.findall(r"epoch 1/", trial.log.read_text())))
        assert outcome(trial.run) == trial.expected
        trial.clear()
    return {"trained": trained}


def full_disk() -> dict:
    """No file may grow beyond a limit in the middle of a run: the last checkpoint stays."""
    import resource

    trial = Trial(tiny_run())

    def nearly_full():
        real, calls = os.fsync, iter(range(10_000))

        def fsync(handle):
            if next(calls) == 1:  # a file an epoch: the first epoch is saved, then it is full
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
                os.lseek(handle, 0, os.SEEK_END)
                os.write(handle, b"x" * 30_000)
            return real(handle)

        os.fsync = fsync

    child = start(trial.run, trial.log, nearly_full)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = {
        "code": code, "log": trial.log.read_text(), "epoch": readable(trial.run),
        "leftover": len(list(files.results_root().rglob("*.part"))),
    }  # fmt: skip
    trial.epoch = found["epoch"]
    found["went_on"] = trial.attempt()
    return found


MODES = {
    "random": lambda: kill_at_random(110),
    "writes": kill_at_writes,
    "two": lambda: two_at_once(5),
    "full": full_disk,
}

if __name__ == "__main__":
    use_cpu()
    division.pool("mnist")  # before the fork
    found = {}
    for mode in sys.argv[1:] or MODES:
        try:
            found[mode] = MODES[mode]()
        except Exception:
            found[mode] = {"failure": traceback.format_exc()}
    print(json.dumps(found))
