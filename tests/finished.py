"""Runs as a finished training leaves them, made in a moment: their networks are untrained."""

from __future__ import annotations

import torch

from digitcnn import checkpoints, division, files, results, runs, tensors
from digitcnn.training import Metrics, build_model


def finish(run: str | runs.RunConfig) -> runs.RunConfig:
    """Store a run of the active profile as finished: weights, answers, metrics, record."""
    run = runs.get(run)
    source = division.pool(run.data)
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = build_model(run).eval()
    weights, answers = checkpoints.kept_weights(model), checkpoints._answers(run, model)
    rows = [Metrics(epoch + 1, 2.3, 0.1, 0.1, 0.1) for epoch in range(run.epochs)]
    metrics = {split: results.metrics_text(rows) for split in ("train", *run.held_out)}
    record = {
        "run": run.id,
        "key": runs.key(run),
        "ingredients": runs.ingredients(run),
        "code": runs.code(run),
        "copy": source.copy,
        "environment": checkpoints.environment(),
        "seconds": 1.0,
        "seconds_per_epoch": 0.1,
        "images": 100,
        "steps": 50,
        "parameters": sum(p.numel() for p in model.parameters()),
        "finished": "2026-11-26 08:00 UTC",
        "diverged": None,
        "weights_sha256": tensors.checksum(weights),
        "answers_sha256": files.arrays_digest(answers),
        "metrics_sha256": {split: results.sha256(text) for split, text in metrics.items()},
    }
    arrays = {name: value.numpy() for name, value in weights.items()}
    kept = arrays if runs.keeps_weights(run) else {}
    checkpoints.store(checkpoints.Outcome(run, record, metrics, answers, kept))
    return run
