"""Many machines: the runs of the grid on the workers of a Dask cluster.

Dask's `distributed` knows the workers, carries jobs and results, and makes the run of a worker that
died again on another. Here is only what makes a run on another machine the same run: a worker takes
part if its code, libraries and data are those of the process that owns the store, which is the only
one that writes results. A worker keeps the checkpoints of its runs where it runs, and makes one run
at a time, because a run seeds the process's generators.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from . import files, grid, reach, runs, status
from .files import DigitcnnError, Interrupted
from .runs import RunConfig

if TYPE_CHECKING:
    from .checkpoints import Outcome

CONNECT, PATIENCE = 10, 60  # seconds to wait for the scheduler, and for a worker that agrees
DECIDES = ("sources.POOLS", "checkpoints.compute")  # what of this package makes a finished run


def train(waiting: list[RunConfig], scheduler: str) -> dict[str, str]:
    """Train runs on the workers of a cluster and store each here, see `digitcnn.grid.train`.

    Args:
        scheduler: the address of Dask's scheduler, ``tcp://…`` or ``tls://…``.

    Raises `DigitcnnError` if no scheduler answers, or if every worker is refused.
    """
    with files.lock("cluster"):  # of two starts, the second finds what the first has stored
        cluster = Cluster(scheduler, waiting)
        try:
            return grid.train(waiting, cluster.size, lambda jobs: cluster, cluster.forget)
        finally:
            cluster.client.close()


class Cluster(Executor):
    """The workers of a Dask cluster that agree with this process, as an executor of its jobs.

    Attributes:
        expected: what a worker has to agree with, see `identity`.
        refused: why a worker does not take part, by its address.
        began: whether any ever took part.
    """

    def __init__(self, scheduler: str, waiting: list[RunConfig]):
        from dask import config
        from distributed import Client

        settings = "distributed.comm.tls.ca-file", "distributed.comm.tls.client.cert"
        if scheduler.startswith("tls:") and not all(map(config.get, settings)):
            raise DigitcnnError(
                f"{scheduler} needs certificates: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
                "…__TLS__CLIENT__CERT and …__TLS__CLIENT__KEY (see README)."
            )
        self.scheduler, self.expected = scheduler, identity({run.data for run in waiting})
        self.resource = f"digitcnn-{files.fingerprint(self.expected)}"
        self.refused: dict[str, str] = {}
        self.began = self.said = False
        self.patient_until = time.monotonic() + PATIENCE
        try:
            self.client = Client(scheduler, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise DigitcnnError(
                f"No Dask scheduler answers at {scheduler!r} ({type(error).__name__}): start one "
                "with `dask scheduler` and give the address that it prints."
            ) from error
        # Dask gives a job only to workers that have what it needs: what `admit` gives them.
        self.executor = self.client.get_executor(pure=False, resources={self.resource: 1})

    def size(self) -> int:
        """How many workers take part now; those that are new are asked first."""
        try:
            workers = self.client.scheduler_info()["workers"]
            admitted = {
                name for name, about in workers.items() if self.resource in about["resources"]
            }
            new = list(workers.keys() - admitted - self.refused.keys())
            answers = new and self.client.run(
                admit, self.expected, self.resource, workers=new, on_error="return"
            )
        except (OSError, KeyError, RuntimeError) as error:
            raise DigitcnnError(
                f"The scheduler {self.scheduler} is gone ({type(error).__name__}): what is stored "
                "stays; start it again and type the same command."
            ) from error
        for address, answer in dict(answers).items():
            if not answer:
                admitted.add(address)
            elif not isinstance(answer, OSError):  # that is asked again, if it is not gone
                broken = isinstance(answer, Exception)
                why = f"{type(answer).__name__}: {answer}" if broken else answer
                self.refused[address] = why
                files.say(f"The worker {address} is refused: {why}")
        self.began = self.began or bool(admitted)
        if self.refused and not self.began and time.monotonic() > self.patient_until:
            raise DigitcnnError(
                f"No worker of {self.scheduler} can take part (the first: "
                f"{next(iter(self.refused.values()))}): bring them to this machine's version, "
                "libraries and data."
            )
        if not admitted and not self.said:
            self.said = True
            files.say(f"{self.scheduler} has no workers: waiting for `dask worker` to start.")
        return len(admitted)

    def submit(self, work: object, run: RunConfig) -> Future:  # type: ignore[override]  # one kind
        """The finished run, made by a worker; None if it was stored meanwhile."""
        if status.reason(run):
            return self.executor.submit(make, run, self.expected)
        future: Future = Future()
        future.set_result(None)
        return future

    def forget(self, run: RunConfig) -> None:
        """Remove the checkpoints of a run that was stored, wherever it was made."""
        self.client.run(_forget, run, wait=False, on_error="ignore")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End; without waiting, what is being made ends after its epoch."""
        self.executor.shutdown(wait=wait)


def identity(names: set[str]) -> dict[str, Any]:
    """What two machines must have in common for a run to be the same on both.

    Profile, versions of Python and of the libraries that compute, digests of the data sets `names`
    and of the definitions that make a finished run.
    """
    from . import checkpoints

    versions = checkpoints.environment()
    return {
        "profile": files.profile(),
        "python": versions["python"].rpartition(".")[0],
        **{name: versions[name] for name in ("torch", "numpy")},
        **{name: runs.manifest(name)["digest"] for name in sorted(names)},
        "code": reach.digests(DECIDES),
    }


# On a worker


def refusal(expected: dict[str, Any]) -> str:
    """Why this process cannot make a run that is expected to come from `expected`; else empty.

    Reads the data sets. Raises `DigitcnnError` if they are missing or damaged.
    """
    from . import division

    names = set(expected) & set(runs.DATA)
    for name in sorted(names):
        division.pool(name)
    own, differ = identity(names), []
    for name, value in expected.items():
        if name == "code" and (changed := runs.changed_code(value, own[name])):
            differ.append(f"its code differs in {changed}")
        elif own[name] != value:
            differ.append(f"its {name} is {own[name]}, not {value}")
    return "; ".join(differ)


async def admit(expected: dict[str, Any], resource: str, dask_worker: Any) -> str:
    """Let a worker take part in the runs of an owner, one at a time; or why it cannot."""
    why = await asyncio.to_thread(refusal, expected)
    if not why:
        await dask_worker.set_resources(**{resource: 1})
    return why


def make(run: RunConfig, expected: dict[str, Any]) -> Outcome:
    """A job: the run, made from this worker's own copy of the data. Stores only its checkpoint.

    Raises `DigitcnnError` if code, libraries or data are not the expected ones, and `Interrupted`
    after the first epoch at whose end nobody waits for the run any more.
    """
    import torch
    from distributed import get_worker

    from . import checkpoints

    if why := refusal(expected):
        raise DigitcnnError(f"The worker {get_worker().address} has changed: {why}.")
    torch.set_num_threads(1)
    worker, job = get_worker(), get_worker().get_current_task()

    def wanted(*about: object) -> None:
        if worker.state.tasks[job].state == "cancelled":
            raise Interrupted(f"{run.id} was given up; it is saved up to its last whole epoch.")

    with files.lock(run.id):
        return checkpoints.compute(run, wanted)


async def _forget(run: RunConfig) -> None:
    runs.checkpoint_path(run).unlink(missing_ok=True)
