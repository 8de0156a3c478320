"""The grid: many runs trained at once, one single-threaded process each.

Written against `concurrent.futures`: a job takes a configuration and gives back the finished run
as plain data (`checkpoints.Outcome`), and the process that started it, the only one that writes
results, stores it. So another executor can take the place of the process pool: `digitcnn.cluster`
is one. Two such processes do about 1.9 times the work of one on two cores; one process on both
cores does less.
"""

from __future__ import annotations

import contextlib
import fnmatch
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from . import files, runs, status
from .files import DigitcnnError, Interrupted
from .runs import RunConfig

if TYPE_CHECKING:
    from .checkpoints import Outcome

TRIES = 2  # of a run whose process was killed
GLANCE, REPORT = 1.0, 60.0  # seconds between looks at the checkpoints, and between plain lines


def chosen(patterns: list[str], every: bool = False) -> list[RunConfig]:
    """The runs that names, groups or patterns mean, in the order of training.

    Args:
        patterns: run ids, names of `runs.GROUPS`, or patterns of ids (``*-exp-adam*``).
        every: all runs; the patterns must then be empty.

    Within a group the longest come first, so that no core waits at the end for a long one; the
    main runs keep their order, the first seed of both data sets before the others.
    """
    registry = runs.registry()
    if every and patterns:
        raise DigitcnnError("Name runs or groups, or give --all, but not both.")
    found = list(registry.values()) if every else []
    for pattern in patterns:
        if pattern in runs.GROUPS:
            found += [run for run in registry.values() if run.group == pattern]
        elif any(sign in pattern for sign in "*?["):
            matching = [run for name, run in registry.items() if fnmatch.fnmatch(name, pattern)]
            if not matching:
                raise DigitcnnError(
                    f"No run matches {pattern!r}: `digitcnn status --all` lists them."
                )
            found += matching
        else:
            found.append(runs.get(pattern))
    position = {name: number for number, name in enumerate(registry)}
    unique = list({run.id: run for run in found}.values())

    def order(run: RunConfig) -> tuple:
        length = 0.0 if run.group == "main" else -status.images_to_learn(run)
        return runs.GROUPS.index(run.group), length, position[run.id]

    return sorted(unique, key=order)


def work(run: RunConfig) -> Outcome | None:
    """A job: the finished run, or None if another process finished it meanwhile."""
    from . import checkpoints

    parent = os.getppid()

    def alive(*about: object) -> None:
        if os.getppid() != parent:  # nobody is left to store the result; the checkpoint stays
            os._exit(1)

    with files.lock(run.id):
        return checkpoints.compute(run, alive) if status.reason(run) else None


def _start_worker() -> None:
    """What each process of the pool does first. Ctrl-C is the parent's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import torch

    torch.set_num_threads(1)


def process_pool(jobs: int) -> Executor:
    """As many fresh single-threaded processes as there are jobs."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)


def train(
    waiting: list[RunConfig],
    jobs: int | Callable[[], int],
    executor: Callable[[int], Executor] = process_pool,
    stored: Callable[[RunConfig], None] = lambda run: None,
) -> dict[str, str]:
    """Train runs and store each as it finishes; what failed, and why, by run id.

    A run that fails does not stop the others. A process that is killed breaks its pool: so each of
    the `jobs` has a pool of one process, which is made anew, and the run that was being trained
    goes on from its checkpoint, at most `TRIES` times. Raises `Interrupted` on Ctrl-C and SIGTERM,
    after the workers have been ended; each run is saved up to its last whole epoch.

    Args:
        jobs: how many runs at once, at least 1; a function where that changes, even to 0.
        executor: makes an executor with so many workers.
        stored: called after a run was stored.
    """
    places = jobs if callable(jobs) else lambda: jobs
    from . import checkpoints  # imports torch

    queue, tries, failed = list(waiting), dict.fromkeys((run.id for run in waiting), 0), {}
    view = View(waiting)
    with environment_of_workers(), _term_as_interrupt():
        pools: list[Executor] = []
        running: dict[Future, tuple[int, RunConfig]] = {}
        try:
            while queue or running:
                wanted = min(places(), len(waiting))
                pools += [executor(1) for _ in range(wanted - len(pools))]
                for place in sorted(set(range(wanted)) - {place for place, _ in running.values()}):
                    if queue:
                        run = queue.pop(0)
                        tries[run.id] += 1
                        try:
                            future = pools[place].submit(work, run)
                        except BrokenProcessPool:  # its process was killed while it was idle
                            pools[place] = executor(1)
                            future = pools[place].submit(work, run)
                        running[future] = place, run
                if not running:  # nobody is there yet
                    time.sleep(GLANCE)
                done, _ = wait(running, timeout=GLANCE, return_when=FIRST_COMPLETED)
                for future in done:
                    place, run = running.pop(future)
                    try:
                        if outcome := future.result():  # else another process stored it
                            checkpoints.store(outcome)
                        stored(run)
                        view.finished(run)
                    except BrokenProcessPool:
                        pools[place].shutdown(wait=False, cancel_futures=True)
                        pools[place] = executor(1)
                        if tries[run.id] < TRIES:
                            queue.insert(0, run)
                        else:
                            failed[run.id] = "its process was killed twice (out of memory?)"
                    except DigitcnnError as error:
                        failed[run.id] = str(error)
                    except Exception as error:
                        failed[run.id] = f"{type(error).__name__}: {error}"
                if running or queue:
                    view.show([run for _, run in running.values()])
        except KeyboardInterrupt:
            _end(pools)
            view.close()
            raise Interrupted(
                "Interrupted: each run is saved up to its last whole epoch, and the same command "
                "goes on from there."
            ) from None
        for pool in pools:
            pool.shutdown()
    view.close()
    return failed


def _end(pools: list[Executor]) -> None:
    """End pools at once: what their processes have not saved is lost, less than an epoch each."""
    processes: list[multiprocessing.Process] = []
    for pool in pools:
        processes += (getattr(pool, "_processes", None) or {}).values()
        pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(5)


# What libraries read once, as a worker starts: one thread each; and that glibc's malloc is to keep
# the memory of one batch for the next instead of giving it back, whose pages the kernel would have
# to clear again (two processes on two cores: 1,765 to 1,970 images/s together with it, 1,402 to
# 1,802 without, in turn, four to five rounds each). Other C libraries do not read it.
WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(8 << 30)),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


@contextlib.contextmanager
def environment_of_workers(variables: dict[str, str] = WORKER_ENVIRONMENT) -> Iterator[None]:
    """Processes that are started meanwhile get these environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _term_as_interrupt() -> Iterator[None]:
    """SIGTERM is treated as Ctrl-C."""

    def interrupt(*about: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread, which gets no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# What is seen of it


class View:
    """One live line on a terminal, plain lines now and then elsewhere.

    The work is counted in the seconds that it would take one idle core; how fast it passes is
    measured from the start of this session.
    """

    def __init__(self, waiting: list[RunConfig]):
        self.total, self.done = len(waiting), 0
        self.left = {run.id: status.seconds(run) for run in waiting}
        self.first = sum(self.left.values())
        self.began = time.monotonic()
        self.said = float("-inf")
        self.live = sys.stderr.isatty()

    def finished(self, run: RunConfig) -> None:
        """A run was stored."""
        self.done += 1
        self.left[run.id] = 0.0
        last = status.last_accuracies(run)
        shown = ", ".join(f"{split} {accuracy:.2%}" for split, accuracy in last.items())
        shown = shown or "validation -"
        self._line(f"[{self.done}/{self.total}] {run.id}: {shown}", keep=True)

    def show(self, running: list[RunConfig]) -> None:
        """Look at the checkpoints of what is being trained, and say how far all is."""
        elapsed = time.monotonic() - self.began
        if not self.live and elapsed - self.said < REPORT:
            return
        self.said = elapsed
        parts = []
        for run in running:
            self.left[run.id] = status.seconds(run)
            epochs = f" {status.saved_epoch(run)}/{run.epochs}" if run.epochs > 9 else ""
            parts.append(run.id + epochs)
        left = sum(self.left.values())
        passed = self.first - left
        expected = elapsed * left / passed if passed else status.together(left, len(running) or 1)
        names = ", ".join(parts[:8]) + (", …" if len(parts) > 8 else "")
        self._line(
            f"run {min(self.done + len(running), self.total)} of {self.total} "
            f"({names}), about {status.duration(expected)} left in all"
        )

    def _line(self, text: str, keep: bool = False) -> None:
        if not self.live:
            files.say(text)
            return
        width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        end = "\n" if keep else ""
        print("\r\033[K" + (text if keep else text[:width]), end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal's cursor on a line of its own."""
        if self.live:
            print(file=sys.stderr)
