"""Checkpoints: runs trained once, kept whole, continued after any interruption.

A finished run consists of its weights (``models/*.safetensors``), its record
(``cache/runs/<run>.json``) and its metrics (``cache/metrics/<run>/<split>.txt``). While it
trains, ``cache/checkpoints/<run>.safetensors`` holds the whole state after the last epoch.
safetensors files hold numbers only: loading one cannot execute anything.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from . import files, runs
from .data import pool
from .files import DigitcnnError, Interrupted
from .model import DigitCNN
from .runs import (
    RunConfig,
    checkpoint_path,
    differences,
    metrics_path,
    record_path,
    stale,
    weights_path,
)
from .training import Metrics, Training, build_model, evaluation_split, pick_device, training_split

FORMAT = "digitcnn-1"
COLUMNS = ("epoch", "loss", "accuracy", "precision", "recall")


def load_or_train(run: str | RunConfig) -> tuple[DigitCNN, dict[str, pd.DataFrame]]:
    """The trained model of a run, on the best device, and its metrics by split.

    Loads them where they are there and current, else trains (and says so on the terminal). With
    ``DIGITCNN_TRAIN=never`` in the environment, a run that would have to train is an error.
    """
    run = runs.get(run)
    ensure(run)
    if not weights_path(run).is_file():  # an experiment's weights are not part of the repository
        train(run)
    return load_model(run), history(run)


def ensure(run: str | RunConfig) -> None:
    """Train a run unless its record and metrics are there and current."""
    run = runs.get(run)
    why = stale(run)
    # Reading the data writes its manifest again, which may be all that is missing or old. Where
    # training is forbidden, the data is read only if nothing else can tell.
    if why == "data not read yet" or (why and not forbidden()):
        pool(run.data)
        why = stale(run)
    if why:
        train(run)


def forbidden() -> bool:
    """Whether the environment forbids training (``DIGITCNN_TRAIN=never``)."""
    return os.environ.get("DIGITCNN_TRAIN") == "never"


def record(run: str | RunConfig) -> dict:
    """A finished run's record: configuration, ingredients, key, environment, wall time."""
    run = runs.get(run)
    ensure(run)
    return runs.read_record(run)


def history(run: str | RunConfig) -> dict[str, pd.DataFrame]:
    """A finished run's metrics by split, a row an epoch; trains the run if need be."""
    run = runs.get(run)
    digests = record(run).get("metrics_sha256", {})
    return {
        split: read_metrics(metrics_path(run, split), run.epochs, digests.get(split, "none"))
        for split in ("train", *run.held_out)
    }


def read_metrics(path: Path, epochs: int | None = None, digest: str | None = None) -> pd.DataFrame:
    """Read one metrics file. Raises `DigitcnnError` if it is damaged.

    Where they are known, the number of `epochs` and the SHA-256 `digest` have to agree.
    """
    try:
        text = files.noted(path).read_text("utf-8")
        table = pd.read_csv(io.StringIO(text), sep="\t")
        rows = list(range(1, (epochs or len(table)) + 1))
        whole = tuple(table.columns) == COLUMNS and rows and table["epoch"].tolist() == rows
        if whole and digest in (None, _sha256(text)):
            table = table.astype({name: float for name in COLUMNS[1:]})
            # The loss of a run that diverged may be infinite or no number.
            if table.iloc[:, 2:].stack().between(0, 1).all():
                return table
    except (OSError, ValueError, TypeError):
        pass
    raise DigitcnnError(
        f"{files.shown(path)} is damaged: delete its folder and run `make train` to make it again."
    )


def load_model(run: str | RunConfig) -> DigitCNN:
    """The trained network from ``models/`` alone, in evaluation mode; nothing is trained.

    Raises `DigitcnnError` if it is missing, damaged or stale. Where the data set has never been
    read (the module used elsewhere, for its models), only the code can be compared.
    """
    run = runs.get(run)
    path = weights_path(run)
    tensors, about = read_tensors(path)
    if about.get("kind") != "weights":
        raise DigitcnnError(f"{files.shown(path)} holds no finished model: run `make train`.")
    known = runs.has_manifest(run.data)
    current = runs.ingredients(run) if known else {"code": runs.code_digest()}
    if changed := differences(_stored(path, about, "ingredients"), current):
        raise DigitcnnError(f"{files.shown(path)} is stale ({changed}): run `make train`.")
    model = build_model(run)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DigitcnnError(
            f"{files.shown(path)} is of another architecture: delete it and run `make train`."
        ) from error
    return model.to(pick_device(), memory_format=torch.channels_last).eval()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file of ours. Raises `DigitcnnError` if damaged."""
    try:
        payload = files.noted(path).read_bytes()
    except FileNotFoundError:
        raise DigitcnnError(f"{files.shown(path)} is missing: run `make train`.") from None
    except OSError as error:
        raise DigitcnnError(
            f"{files.shown(path)} cannot be read ({error.strerror}): mend its permissions."
        ) from error
    try:
        tensors = parse_tensors(payload)
        length = int.from_bytes(payload[:8], "little")
        about = json.loads(payload[8 : 8 + length])["__metadata__"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DigitcnnError(
            f"{files.shown(path)} is damaged or no safetensors file: delete it, run `make train`."
        ) from error
    if about.get("format") != FORMAT:
        raise DigitcnnError(
            f"{files.shown(path)} has the format {about.get('format')!r}, this version reads "
            f"{FORMAT}: delete it and run `make train`."
        )
    seal = about.pop("metadata_checksum", None)
    if about.get("checksum") != _checksum(tensors) or seal != files.fingerprint(about):
        raise DigitcnnError(f"{files.shown(path)} is damaged: delete it and run `make train`.")
    return tensors, about


def _stored(path: Path, about: dict[str, str], name: str) -> dict | list:
    """A JSON value of a file's metadata. Raises `DigitcnnError` if it is missing or damaged."""
    try:
        value = json.loads(about[name])
    except (KeyError, ValueError):
        value = None
    if not isinstance(value, dict | list):
        raise DigitcnnError(f"{files.shown(path)} is damaged: delete it and run `make train`.")
    return value


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write tensors with metadata as safetensors, with checksums, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = about | {"format": FORMAT, "checksum": _checksum(tensors)}
    about["metadata_checksum"] = files.fingerprint(about)
    files.write_whole(path, tensor_bytes(tensors, about))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(tensors: dict[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def environment() -> dict[str, str]:
    """Where a run was trained: device, processor features, library versions."""
    device = pick_device()
    if device.type == "cuda":
        machine = torch.cuda.get_device_name()
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        threads = torch.get_num_threads()
        plural = "s" if threads > 1 else ""
        machine = f"{platform.machine()} {capability}, {threads} thread{plural}"
    return {
        "device": device.type,
        "machine": machine,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
    }


def train(run: str | RunConfig) -> None:
    """Train a run to its end, from its last whole epoch if it was interrupted.

    Raises `Interrupted` on Ctrl-C, and `DigitcnnError` where training is not allowed or the data
    is missing. Each run is trained once: a second process waits, then finds it done.
    """
    run = runs.get(run)
    files.checked_name(run.id, "run name")
    if forbidden():
        raise DigitcnnError(
            f"{run.id} would have to be trained ({stale(run) or 'its weights are missing'}), but "
            f"DIGITCNN_TRAIN is 'never': run `digitcnn train {run.id}` first."
        )
    with files.lock(run.id):
        if not stale(run) and weights_path(run).is_file():
            return
        try:
            _train_locked(run)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{run.id} was interrupted and is saved up to its last whole epoch: "
                f"`digitcnn train {run.id}` goes on from there."
            ) from None


def _train_locked(run: RunConfig) -> None:
    threads = torch.get_num_threads()
    # Deterministic mode fills new tensors, a debugging aid; no operation here reads them unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False
    train_samples = training_split(run)
    held_out = {split: evaluation_split(run, split) for split in run.held_out}
    training = Training(run, train_samples, held_out)
    metrics = [metrics_path(run, split) for split in ("train", *run.held_out)]
    for path in (checkpoint_path(run), weights_path(run), record_path(run), *metrics):
        files.remove_leftovers(path)
    rows, seconds = _resume(run, training)
    files.say(
        f"{run.id}: {len(train_samples):,} images, epochs {training.epoch + 1} to {run.epochs} "
        f"on {training.device.type} with {threads} threads"
    )
    while training.epoch < run.epochs:
        began = time.perf_counter()
        for split, row in training.run_epoch().items():
            rows.setdefault(split, []).append(row)
        seconds.append(time.perf_counter() - began)
        _save_progress(run, training, rows, seconds)
        recent = seconds[-5:]
        left = (run.epochs - training.epoch) * sum(recent) / len(recent)
        judged = "validation" if "validation" in rows else "train"
        files.say(
            f"{run.id}: epoch {training.epoch}/{run.epochs}, loss {rows['train'][-1].loss:.4f}, "
            f"{judged} accuracy {rows[judged][-1].accuracy:.2%}, {seconds[-1]:.1f} s, "
            f"{datetime.timedelta(seconds=round(left))} left"
        )
    _finish(run, training, rows, seconds, train_samples.indices)


def _save_progress(
    run: RunConfig, training: Training, rows: dict[str, list[Metrics]], seconds: list[float]
) -> None:
    """Checkpoint first, then the metrics files, which can be made again from it."""
    write_tensors(
        checkpoint_path(run),
        training.state(),
        {
            "kind": "checkpoint",
            "ingredients": json.dumps(runs.ingredients(run), sort_keys=True),
            "rows": json.dumps({name: [vars(row) for row in kept] for name, kept in rows.items()}),
            "seconds": json.dumps([round(value, 3) for value in seconds]),
        },
    )
    for split, kept in rows.items():
        files.write_whole(metrics_path(run, split), metrics_text(kept))


def metrics_text(rows: list[Metrics]) -> str:
    """The text of a metrics file: a header, then a row an epoch, six decimals."""
    lines = ["\t".join(COLUMNS)]
    for epoch, row in enumerate(rows, start=1):
        values = (row.loss, row.accuracy, row.precision, row.recall)
        lines.append("\t".join([str(epoch), *(f"{value:.6f}" for value in values)]))
    return "\n".join(lines) + "\n"


def _resume(run: RunConfig, training: Training) -> tuple[dict[str, list[Metrics]], list[float]]:
    """Restore the last whole epoch if there is a current checkpoint; rows and seconds so far."""
    path = checkpoint_path(run)
    if not path.is_file():
        return {}, []
    state, about = read_tensors(path)
    changed = differences(_stored(path, about, "ingredients"), runs.ingredients(run))
    if changed:
        files.say(f"{run.id}: the unfinished training is of another version ({changed}); restart.")
        return {}, []
    try:
        training.restore(state)
        kept, seconds = _stored(path, about, "rows"), _stored(path, about, "seconds")
        rows = {split: [Metrics(**row) for row in table] for split, table in kept.items()}
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise DigitcnnError(
            f"{files.shown(path)} is of another architecture: delete it to train from the start."
        ) from error
    for split, table in rows.items():  # a kill may have left them one epoch behind
        files.write_whole(metrics_path(run, split), metrics_text(table))
    return rows, seconds


def _finish(
    run: RunConfig,
    training: Training,
    rows: dict[str, list[Metrics]],
    seconds: list[float],
    indices: np.ndarray,
) -> None:
    """Write weights and record, then drop the checkpoint; each step can be repeated."""
    ingredients = runs.ingredients(run)
    about = {
        "run": run.id,
        "key": runs.key(run),
        "ingredients": ingredients,
        "configuration": vars(run),
        "environment": environment(),
        "seconds": round(sum(seconds), 1),
        "seconds_per_epoch": round(float(np.median(seconds)), 2),
        "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "images": len(indices),
        "steps": training.steps_per_epoch * run.epochs,
        "parameters": sum(p.numel() for p in training.model.parameters()),
    }
    about["metrics_sha256"] = {name: _sha256(metrics_text(kept)) for name, kept in rows.items()}
    weights = training.averaged.module.state_dict()
    if run.class_counts:
        if any(count is not None for _, count in run.class_counts):
            about["indices"] = indices.tolist()  # else there was no draw
        # There are many of these, so kernels and matrices are kept with 16 bits.
        weights = {
            name: value.half() if name.endswith("weight") and value.ndim > 1 else value
            for name, value in weights.items()
        }
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
    write_tensors(weights_path(run), weights, metadata | {"kind": "weights"})
    files.write_json(record_path(run), runs.sealed(about))
    checkpoint_path(run).unlink(missing_ok=True)
