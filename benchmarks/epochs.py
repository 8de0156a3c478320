"""One epoch of each kind of run, held against the estimate of `digitcnn status`.

    python benchmarks/epochs.py [--steps 150] [RUN ...]

An epoch with what is evaluated after it is timed in one process, at each resolution of the run; of
long epochs, so many steps, scaled. The rates that the estimates rest on are measured by
`performance.py`. Only on an idle machine do the figures mean anything.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator

import torch

from digitcnn import division, grid, runs, status
from digitcnn.training import Training, predict_logits, reproducible

KINDS = (
    "mnist", "svhn", "mnist-official", "svhn-case1", "svhn-many", "svhn-case3",
    "mnist-exp-recipe", "svhn-exp-recipe", "svhn-exp-resolutions", "mnist-transfer-all",
)  # fmt: skip


def timed_steps(training: Training, steps: int) -> tuple[float, int]:
    """Seconds of `steps` steps without evaluation, and the images that they took.

    An epoch is cut to so many steps by pretending that it has no more.
    """
    held_out, training.held_out = training.held_out, {}
    whole = training.steps
    training.steps = steps * training.config.epochs
    began = time.perf_counter()
    training.run_epoch()
    seconds = time.perf_counter() - began
    training.epoch -= 1
    training.steps, training.held_out = whole, held_out
    return seconds, steps * training.batch


def stages(run: runs.RunConfig) -> Iterator[runs.RunConfig]:
    """The run as if it stayed at each of its resolutions throughout."""
    for size, _ in run.resolutions:
        yield dataclasses.replace(run, resolutions=((size, 1.0), (32, 0.0)))


def epoch(run: runs.RunConfig, limit: int) -> tuple[float, float]:
    """Seconds of a run's epoch with what it evaluates after each, measured and estimated.

    Args:
        limit: how many steps are timed at most.
    """
    torch.set_num_threads(1)
    device = torch.device("cpu")
    with reproducible(run.seed, device):
        training = Training(run, division.pool(run.data), device)
        steps = training.steps // run.epochs
        taken = min(steps, limit)
        timed_steps(training, min(taken, 10))  # a warm-up
        measured = timed_steps(training, taken)[0] * steps / taken
        estimated = status.seconds_to_learn(run) / run.epochs
        if run.evaluate_every_epoch:
            for images, _ in training.held_out.values():
                part = images[:2000]
                began = time.perf_counter()
                predict_logits(training.averaged.module, part)
                measured += (time.perf_counter() - began) * len(images) / len(part)
                estimated += len(images) / status.EVALUATED_PER_SECOND
    return measured, estimated


def main() -> None:
    """Measure, in a process like those of `digitcnn train`, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", nargs="*", default=KINDS)
    parser.add_argument("--steps", type=int, default=150, help="timed of an epoch; default 150")
    options = parser.parse_args()
    with grid.environment_of_workers(), grid.process_pool(1) as pool:
        for name in options.runs:
            for run in stages(runs.get(name)):
                measured, estimated = pool.submit(epoch, run, options.steps).result()
                print(
                    f"{name} at {run.resolutions[0][0]} pixels: an epoch {measured:.1f} s, "
                    f"estimated {estimated:.1f} s ({measured / estimated - 1:+.0%})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
