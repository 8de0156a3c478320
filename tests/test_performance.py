"""The benchmarks' parts on toy data; that they work, not how fast."""

from __future__ import annotations

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from digitcnn import division, grid, runs, status
from digitcnn.training import Training, stage

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def performance(sandbox, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import performance

    monkeypatch.setattr(performance, "PATH", sandbox / "performance.json")
    monkeypatch.setattr(performance, "LEAD", 0)
    monkeypatch.setattr(performance, "STEPS", 1)
    monkeypatch.setattr(performance, "SIDE", 64)
    monkeypatch.setattr(performance, "pool", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(status, "cores", lambda: 2)
    yield performance
    performance.training.cache_clear()
    performance._endless.cache_clear()
    performance._matrices.cache_clear()


@pytest.fixture
def epochs(sandbox, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import epochs

    return epochs


@pytest.fixture
def few(monkeypatch):
    """A tenth of the toy images, and a narrow network."""
    small = {
        name: dataclasses.replace(run, train_size=256, width=0.3) for name, run in runs.MAIN.items()
    }
    monkeypatch.setattr(runs, "MAIN", small)


def call(performance, monkeypatch, *arguments: str) -> dict:
    monkeypatch.setattr(sys, "argv", ["performance.py", *arguments])
    performance.main()
    return json.loads(performance.PATH.read_text())


def test_rates_of_one_process_and_of_one_per_core(performance, few, monkeypatch):
    results = call(performance, monkeypatch, "rates", "--seconds", "0.01", "--repeats", "2")
    assert results["rates"]["machine"]["cores"] == 2 and results["rates"]["finished"]
    measured = results["rates"]["found"]["per_second"]
    assert measured.keys() == performance.RATES.keys()
    for by_count in measured.values():
        assert by_count.keys() == {"1", "2"}
        assert all(len(values) == 2 and min(values) > 0 for values in by_count.values())
    found, cost = results["summary"], results["rates"]["found"]["operations_per_image"]
    ratio = found["learned"]["2"] / found["usual"]["2"]
    assert found["times_as_fast"]["2"] == pytest.approx(ratio)
    share = found["usual"]["1"] * cost / found["float32"]["1"]
    assert found["usual_share_of_float32"]["1"] == pytest.approx(share)


def test_operations_are_three_times_those_of_the_layers(performance):
    """Forward, and back to the weights and to the images, but for the first layer."""
    shapes = []
    model = performance.build_model(runs.MAIN["svhn"])
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(
                lambda layer, _, out: shapes.append(layer.weight.numel() * out[0, 0].numel())
            )
    model.eval()(torch.rand(1, 3, 32, 32))
    assert performance.operations() == 2 * (3 * sum(shapes) - shapes[0])


def test_the_usual_loop_goes_on_where_it_was_left(performance, few, monkeypatch):
    whole = performance.example([], 1000, epochs=3)
    assert len(whole) == 3
    results = call(performance, monkeypatch, "example", "--limit", "0")
    assert len(results["example"]["found"]) == 1
    for _ in range(2):
        results = call(performance, monkeypatch, "example", "--limit", "0")
    found = results["example"]["found"]
    assert [row["accuracy"] for row in found] == [row["accuracy"] for row in whole]
    assert all(row["seconds"] > 0 for row in found)
    assert not performance.done(found, 4) and performance.done(found, 3)


def test_ours_has_a_schedule_of_its_own(performance, few, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "digitcnn.training.resized", lambda images, size: sizes.append(size) or images
    )
    results = call(performance, monkeypatch, "ours-43", "--epochs", "2")
    assert len(results["ours-43"]["found"]) == 2
    learned = [size for size in sizes if size == 24]
    assert len(learned) == 256 // 64 and sizes[:4] == learned
    assert "seconds_to_target_mean" not in results["summary"]


def row(seconds: float, accuracy: float) -> dict:
    return {"seconds": seconds, "evaluation": 1.0, "accuracy": accuracy}


def test_the_summary(performance):
    parts = {f"ours-{seed}": [row(50, 0.9), row(50 + seed, 0.941)] for seed in performance.SEEDS}
    parts["example"] = [row(100, 0.93), row(100, 0.9399), row(372, 0.94), row(1, 0.5)]
    results = {name: {"found": rows} for name, rows in parts.items()}
    found = performance.summary(results)
    assert found["seconds_to_target"]["ours-42"] == 142
    assert found["seconds_to_target"]["example"] == 572
    assert found["seconds_to_target_mean"] == 143 and found["times_sooner"] == 4
    results["ours-43"]["found"][1]["accuracy"] = 0.9399
    assert performance.summary(results)["seconds_to_target"]["ours-43"] is None
    assert "times_sooner" not in performance.summary(results)
    longer = [row(50, 0.9), row(50, 0.93), row(50, 0.95)]  # another schedule than the others'
    results["ours-43"]["found"] = longer
    assert "times_sooner" not in performance.summary(results)


def test_an_epoch_is_timed_at_each_resolution(epochs):
    run = runs.get("svhn-exp-resolutions")
    found = list(epochs.stages(run))
    assert [each.resolutions[0][0] for each in found] == [16, 24, 32]
    for each, size in zip(found, (16, 24, 32), strict=True):
        assert {stage(each.resolutions, share) for share in (0, 0.5, 0.999)} == {size}
        measured, estimated = epochs.epoch(each, 2)
        assert measured > 0
        images = status.images_to_learn(each) / each.epochs
        cost = 0.3 + 0.7 * (size / 32) ** 2
        assert estimated == pytest.approx(images * cost / status.LEARNED_PER_SECOND)
    assert "svhn-exp-resolutions" in epochs.KINDS
    assert all(name in runs.registry() for name in epochs.KINDS)


def test_timed_steps_leave_a_training_as_it_was(epochs):
    run = dataclasses.replace(runs.get("mnist"), train_size=256)
    training = Training(run, division.pool("mnist"), torch.device("cpu"))
    before = training.steps, training.epoch, training.held_out
    _, images = epochs.timed_steps(training, 3)
    assert images == 3 * 64
    assert (training.steps, training.epoch, training.held_out) == before


def test_processes_start_with_what_is_asked_for(performance, monkeypatch):
    """The malloc settings are the workers' alone."""
    import os

    before = dict(os.environ)
    with grid.environment_of_workers(performance.THREADS):
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert "MALLOC_TOP_PAD_" not in os.environ or "MALLOC_TOP_PAD_" in before
    with grid.environment_of_workers():
        assert int(os.environ["MALLOC_TRIM_THRESHOLD_"]) == 8 * 1024**3
    assert dict(os.environ) == before
