"""How fast the training is: against the usual loop, and against what the machine can do.

    python benchmarks/performance.py rates      # 7 minutes: images and operations per second
    python benchmarks/performance.py ours-42    # 3 minutes: to 94.0 %; as well ours-43, ours-44
    python benchmarks/performance.py example    # the same of the usual loop; until it says "done"
    python benchmarks/performance.py            # what is there

Only on an idle machine do the figures mean anything. Each part is stored when it is done, with
machine and date, in ``cache/results/performance.json``, of which ``summary`` holds the figures. No
call takes ten minutes; `example` goes on from its last epoch.

*ours*: `digitcnn.training.Training` as `digitcnn train` starts it. *usual*: the loop of
``pytorch/examples/mnist``, with a `DataLoader` that turns one image at a time into a float32
tensor and normalises it, Adadelta, a rate that falls to 0.7 with each epoch, no augmentation. Both
train `digitcnn.model.DigitCNN` on SVHN with batches of 64, in processes of one thread each. For
the time to 94.0 % of the validation images each has a schedule made for it: ours the one-cycle
over two epochs, the first of them at 24 pixels (three epochs with ``--epochs 3``, for all seeds,
if one of them misses). Times are those of training; evaluations are stored beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import itertools
import json
import os
import platform
import statistics
import time
from concurrent.futures import Executor

import torch
import torch.nn.functional as F
from epochs import timed_steps
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from digitcnn import checkpoints, data, division, files, grid, runs, status
from digitcnn.training import Training, build_model, evaluate, predict_logits, reproducible

PATH = files.cache_path("results", "performance.json")
CPU = torch.device("cpu")
SEEDS = (42, 43, 44)
PARTS = ("rates", *(f"ours-{seed}" for seed in SEEDS), "example")
TARGET = 0.94  # of the validation images
SIDE = 2048  # of the matrices whose product is the machine's own rate
STEPS = 10  # of training, between two looks at the clock
LEAD = 3  # seconds before a rate is measured, for all processes to be ready
THREADS = {name: value for name, value in grid.WORKER_ENVIRONMENT.items() if value == "1"}


# The usual loop


class OneByOne(Dataset):
    """Images as torchvision's data sets give them: a PIL image, transformed on its own."""

    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.45,) * 3, (0.2,) * 3)]
    )

    def __init__(self, split: data.Split):
        self.images = split.images.permute(0, 2, 3, 1).numpy()
        self.labels = split.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class Example:
    """The training of ``pytorch/examples/mnist`` on our network and SVHN."""

    def __init__(self, seed: int = 1):
        torch.manual_seed(seed)
        run, source = runs.MAIN["svhn"], division.pool("svhn")
        self.model = build_model(run)
        self.optimizer = torch.optim.Adadelta(self.model.parameters(), lr=1.0)
        learned = OneByOne(data.training_part(run, source))
        judged = OneByOne(data.held_out_part(run, source, "validation"))
        self.loader = DataLoader(learned, batch_size=run.batch_size, shuffle=True)
        self.judge = DataLoader(judged, batch_size=1000)

    def steps(self):
        """An epoch; yields the number of images of each step."""
        self.model.train()
        for images, labels in self.loader:
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(images), labels).backward()
            self.optimizer.step()
            yield len(labels)

    def accuracy(self) -> float:
        """Share of the validation images that are classified rightly."""
        self.model.eval()
        with torch.no_grad():
            hits = sum((self.model(x).argmax(1) == y).sum().item() for x, y in self.judge)
        return hits / len(self.judge.dataset)


# Rates, each measured in as many processes as are asked for at once


@functools.cache
def training() -> Training:
    """Ours, at its first step."""
    return Training(runs.MAIN["svhn"], division.pool("svhn"), CPU)


def learned() -> int:
    """Some steps of ours."""
    with reproducible(runs.SEED, CPU):
        return timed_steps(training(), STEPS)[1]


def evaluated() -> int:
    """Some images judged by ours."""
    images = training().held_out["validation"][0][: 50 * STEPS]
    return len(predict_logits(training().averaged.module, images))


@functools.cache
def _endless():
    example = Example()
    return (count for _ in itertools.count() for count in example.steps())


def usual() -> int:
    """Some steps of the usual loop."""
    return sum(next(_endless()) for _ in range(STEPS))


@functools.cache
def _matrices(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(SIDE, SIDE).to(kind), torch.rand(SIDE, SIDE).to(kind)


def product(kind: torch.dtype) -> int:
    """A product of matrices; its number of operations."""
    torch.mm(*_matrices(kind))
    return 2 * SIDE**3


RATES = {  # what a second has so many of, and how a process makes some of them
    "learned": learned,
    "evaluated": evaluated,
    "usual": usual,
    "bfloat16": functools.partial(product, torch.bfloat16),
    "float32": functools.partial(product, torch.float32),
}


def rate(kind: str, seconds: float, at: float) -> float:
    """How many of a kind of `RATES` this process makes per second, from the time `at` on."""
    RATES[kind]()  # a warm-up
    time.sleep(max(0.0, at - time.time()))
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or not done:
        done += RATES[kind]()
    return done / passed


def rates(seconds: float, repeats: int) -> dict[str, dict[str, list[float]]]:
    """By kind and number of processes, what all of them make per second, in each repeat.

    The kinds take turns, so that a machine that becomes slower does so for all.
    """
    cores = status.cores()
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in RATES}
    with pool(cores, grid.WORKER_ENVIRONMENT) as kept, pool(cores, THREADS) as plain:
        for repeat in range(-1, repeats):  # the first has everything loaded, and does not count
            for kind, count in itertools.product(RATES, sorted({1, cores})):
                executor = plain if kind == "usual" else kept
                length, at = (seconds, time.time() + LEAD) if repeat >= 0 else (0.0, 0.0)
                jobs = [executor.submit(rate, kind, length, at) for _ in range(count)]
                together = sum(job.result() for job in jobs)
                if repeat >= 0:
                    found[kind].setdefault(str(count), []).append(together)
                    files.say(f"{kind}, processes {count}: {together:.4g} per second")
    return found


def pool(processes: int, variables: dict[str, str]) -> Executor:
    """Processes of one thread each that have started, with these environment variables."""
    with grid.environment_of_workers(variables):
        executor = grid.process_pool(processes)
        for job in [executor.submit(time.sleep, 1) for _ in range(processes)]:
            job.result()
    return executor


def operations() -> int:
    """Floating-point operations of learning from one image, forward and back."""
    model = build_model(runs.MAIN["svhn"])
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(64, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() // 64


# Seconds until so many validation images are right


def ours(seed: int, epochs: int) -> list[dict]:
    """Train with a schedule of so many epochs; a row each: seconds, accuracy."""
    run = dataclasses.replace(
        runs.MAIN["svhn"], seed=seed, epochs=epochs, held_out=("validation",),
        resolutions=((24, 1 / epochs), (32, 1 - 1 / epochs)),
    )  # fmt: skip
    rows = []
    with reproducible(seed, CPU):
        network = Training(run, division.pool(run.data), CPU)
        judged, network.held_out = network.held_out["validation"], {}
        while not network.finished:
            began = time.perf_counter()
            network.run_epoch()
            middle = time.perf_counter()
            accuracy = evaluate(network.averaged.module, *judged).accuracy
            rows.append(_row(middle - began, time.perf_counter() - middle, accuracy))
    return rows


def example(rows: list[dict], limit: float, epochs: int = 14) -> list[dict]:
    """Train on for about `limit` seconds, at least an epoch, until the target or `epochs`.

    Args:
        rows: those of the epochs that are done, whose state lies in ``cache/local/``.
    """
    began, state = time.perf_counter(), files.cache_path("local", "performance-example.pt")
    network, rows = Example(), list(rows)
    if rows:
        saved = torch.load(state, weights_only=True)
        network.model.load_state_dict(saved["model"])
        network.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["generator"])
    while not done(rows, epochs):
        for group in network.optimizer.param_groups:
            group["lr"] = 0.7 ** len(rows)
        start = time.perf_counter()
        sum(network.steps())
        middle = time.perf_counter()
        accuracy = network.accuracy()
        end = time.perf_counter()
        rows.append(_row(middle - start, end - middle, accuracy))
        state.parent.mkdir(parents=True, exist_ok=True)
        saved = {"model": network.model.state_dict(), "generator": torch.get_rng_state()}
        torch.save(saved | {"optimizer": network.optimizer.state_dict()}, state)
        if end - began + (end - start) > limit:
            break
    return rows


def _row(seconds: float, evaluation: float, accuracy: float) -> dict:
    files.say(f"an epoch in {seconds:.0f} s, evaluated in {evaluation:.0f} s: {accuracy:.2%}")
    return {"seconds": seconds, "evaluation": evaluation, "accuracy": accuracy}


def done(rows: list[dict], epochs: int = 14) -> bool:
    """Whether the usual loop has nothing left to train."""
    return len(rows) >= epochs or any(row["accuracy"] >= TARGET for row in rows)


def seconds_to_target(rows: list[dict]) -> float | None:
    """Seconds of training until the target is first reached; None if it is not."""
    passed = 0.0
    for row in rows:
        passed += row["seconds"]
        if row["accuracy"] >= TARGET:
            return passed
    return None


# What is stored


def store(results: dict, part: str, found: object) -> None:
    """Keep a part with machine and date, and the summary of all parts."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    results[part] = {"found": found, "machine": machine(), "finished": now}
    results["summary"] = summary(results)
    files.write_json(PATH, results)


def machine() -> dict[str, str | int]:
    """The processor by name, its cores, and the libraries."""
    name = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            found = [line.partition(":")[2].strip() for line in file if "model name" in line]
        name = found[0] if found else name
    return checkpoints.environment(CPU) | {"processor": name, "cores": status.cores()}


def summary(results: dict) -> dict:
    """The figures of the parts that are there; of rates, medians of the repeats."""
    found: dict = {}
    if "rates" in results:
        measured = results["rates"]["found"]
        found = {
            kind: {count: statistics.median(values) for count, values in by_count.items()}
            for kind, by_count in measured["per_second"].items()
        }
        cost = found["operations_per_image"] = measured["operations_per_image"]
        for name, kind in (("learned", "bfloat16"), ("usual", "float32")):
            found[f"{name}_share_of_{kind}"] = {
                count: cost * value / found[kind][count] for count, value in found[name].items()
            }
        found["times_as_fast"] = {
            count: value / found["usual"][count] for count, value in found["learned"].items()
        }
    trained = {name: results[name]["found"] for name in PARTS if name in results}
    trained.pop("rates", None)
    reached = {name: seconds_to_target(rows) for name, rows in trained.items()}
    found["seconds_to_target"] = reached
    mine = {name: rows for name, rows in trained.items() if name != "example"}
    seconds = [reached[name] for name in mine]
    alike = len({len(rows) for rows in mine.values()}) == 1  # one schedule for all seeds
    if len(mine) == len(SEEDS) and alike and None not in seconds:
        found["seconds_to_target_mean"] = statistics.mean(seconds)
        if reached.get("example"):
            found["times_sooner"] = reached["example"] / found["seconds_to_target_mean"]
    return found


def main() -> None:
    """Measure a part, or print what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=10, help="of each rate; default 10")
    parser.add_argument("--repeats", type=int, default=3, help="of each rate; default 3")
    parser.add_argument("--epochs", type=int, default=2, help="of ours-…; default 2")
    parser.add_argument("--limit", type=float, default=500, help="seconds of a call of example")
    options = parser.parse_args()
    results = files.read_json(PATH) if PATH.is_file() else {}
    if options.part == "rates":
        found = rates(options.seconds, options.repeats)
        store(results, "rates", {"per_second": found, "operations_per_image": operations()})
    elif options.part == "example":
        rows = results.get("example", {"found": []})["found"]
        with pool(1, THREADS) as one:
            rows = one.submit(example, rows, options.limit).result()
        store(results, "example", rows)
        print("done" if done(rows) else "not done: type the same command again")
    elif options.part:
        seed = int(options.part.removeprefix("ours-"))
        with pool(1, grid.WORKER_ENVIRONMENT) as one:
            store(results, options.part, one.submit(ours, seed, options.epochs).result())
    print(json.dumps(results.get("summary", {}), indent=1))


if __name__ == "__main__":
    main()
