"""The rates that the estimates of `digitcnn status` rest on, and one epoch of each kind of run.

    python benchmarks/epochs.py [--processes 2] [--seconds 20]

Each of so many single-threaded processes learns from SVHN's training images with the main recipe,
then evaluates validation images in float32, for a fixed time after a warm-up; printed are images
per second of one process alone and of all together. Then one epoch of a run of each kind is timed
in one process (of the long ones, a part of an epoch, scaled) and held against the estimate. Only on
an idle machine do the figures mean anything.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import torch

from digitcnn import division, runs, status
from digitcnn.training import Training, predict_logits, reproducible

KINDS = (
    "mnist", "svhn", "mnist-official", "svhn-case1", "svhn-many", "svhn-case3",
    "mnist-exp-recipe", "svhn-exp-recipe", "mnist-transfer-all",
)  # fmt: skip
LIMIT = 150  # steps timed of a long epoch


def rates(seconds: float) -> tuple[float, float]:
    """Images learned from and evaluated per second by this process, on one thread."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    run = runs.MAIN["svhn"]
    with reproducible(run.seed, device):
        training = Training(run, division.pool(run.data), device)
        timed_steps(training, 20)  # a warm-up
        learned, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            learned += timed_steps(training, 10)[1]
        learned_rate = learned / (time.perf_counter() - began)
        images, _ = training.held_out["validation"]
        evaluated, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            predict_logits(training.averaged.module, images[:1000])
            evaluated += 1000
        return learned_rate, evaluated / (time.perf_counter() - began)


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


def epoch(name: str) -> tuple[float, float]:
    """Seconds of a run's epoch with what it evaluates after each, measured and estimated."""
    torch.set_num_threads(1)
    run, device = runs.get(name), torch.device("cpu")
    with reproducible(run.seed, device):
        training = Training(run, division.pool(run.data), device)
        steps = training.steps // run.epochs
        timed_steps(training, min(steps, 10))
        taken = min(steps, LIMIT)
        measured = timed_steps(training, taken)[0] * steps / taken
        if run.evaluate_every_epoch:
            for images, _ in training.held_out.values():
                part = images[:2000]
                began = time.perf_counter()
                predict_logits(training.averaged.module, part)
                measured += (time.perf_counter() - began) * len(images) / len(part)
    estimated = status.images_to_learn(run) / run.epochs / status.LEARNED_PER_SECOND
    if run.evaluate_every_epoch:
        judged = sum(len(images) for images, _ in training.held_out.values())
        estimated += judged / status.EVALUATED_PER_SECOND
    return measured, estimated


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=status.cores())
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    alone = rates(options.seconds)
    print(f"one process: {alone[0]:.0f} learned, {alone[1]:.0f} evaluated per second")
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        found = pool.map(rates, [options.seconds] * options.processes, chunksize=1)
    both = [sum(part) for part in zip(*found, strict=True)]
    print(
        f"{options.processes} processes: {both[0]:.0f} learned ({both[0] / alone[0]:.2f} times), "
        f"{both[1]:.0f} evaluated ({both[1] / alone[1]:.2f} times) per second"
    )
    for name in KINDS:
        measured, estimated = epoch(name)
        print(
            f"{name}: an epoch {measured:.1f} s, estimated {estimated:.1f} s "
            f"({measured / estimated - 1:+.0%})"
        )


if __name__ == "__main__":
    main()
