"""Checkpoints: runs trained once, kept whole, continued after any interruption.

A finished run consists of its record (``cache/runs/<run>.json``), its metrics
(``cache/metrics/<run>/<split>.txt``), its answers (``cache/answers/<run>.npz``, see
`runs.kept_answers`) and, of the runs that `runs.keeps_weights` names, its weights
(``models/*.safetensors``). While it trains, ``cache/checkpoints/<run>.safetensors`` holds the
whole state after the last epoch. `compute` makes a run and writes nothing but its checkpoint;
`store` writes what it made, so that a run can be made in another process, or on another machine,
and stored here.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import data, division, files, reach, results, runs
from .files import DigitcnnError, Interrupted
from .model import DigitCNN
from .runs import (
    RunConfig,
    answers_path,
    checkpoint_path,
    differences,
    metrics_path,
    record_path,
    stale,
    weights_path,
)
from .tensors import checksum, read_tensors, stored_value, write_tensors
from .training import (
    Metrics,
    Training,
    build_model,
    learn,
    native_bfloat16,
    pick_device,
    predict_logits,
)

reach.read_now()  # what is imported now is what keys are taken of, whatever is edited later


@dataclass
class Outcome:
    """A finished run as plain data, ready to be stored or sent.

    Attributes:
        run: its configuration.
        record: what it was made from, where and when; see `compute`.
        metrics: text of the metrics file by split.
        answers: arrays by ``<data set>-<split>-<what>``, see `runs.kept_answers`.
        weights: kernels and matrices float16, all else float32; empty where they are not kept.
    """

    run: RunConfig
    record: dict
    metrics: dict[str, str]
    answers: dict[str, np.ndarray]
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def load_or_train(run: str | RunConfig) -> tuple[DigitCNN, dict[str, pd.DataFrame]]:
    """The trained model of a run, on the best device, and its metrics by split.

    Loads them where they are there and current, else trains (and says so on the terminal). With
    ``DIGITCNN_TRAIN=never`` in the environment, a run that would have to train is an error.
    """
    run = runs.get(run)
    ensure(run)
    return load_model(run), results.history(run)


def ensure(run: str | RunConfig) -> None:
    """Train a run unless its record and metrics are there and current."""
    run = runs.get(run)
    why = stale(run)
    # Reading the data writes its manifest again, which may be all that is missing or old. Where
    # training is forbidden, the data is read only if nothing else can tell.
    if why == "data not read yet" or (why and not forbidden()):
        division.pool(run.data)
        why = stale(run)
    if why or runs.reason(run):
        train(run)


def forbidden() -> bool:
    """Whether the environment forbids training (``DIGITCNN_TRAIN=never``)."""
    return os.environ.get("DIGITCNN_TRAIN") == "never"


def load_model(run: str | RunConfig) -> DigitCNN:
    """The trained network from ``models/``, in evaluation mode, or `DigitcnnError`."""
    run = runs.get(run)
    model = build_model(run)
    try:
        model.load_state_dict(checked_weights(run))
    except RuntimeError as error:
        raise files.unusable(weights_path(run), "is of another architecture") from error
    model.to(pick_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def checked_weights(run: RunConfig) -> dict[str, Tensor]:
    """A run's stored weights, if they are those that its record, its code and its data call for.

    Raises `DigitcnnError` if not. Where the data set has never been read (the module used
    elsewhere, for its models), only the code can be compared.
    """
    path = weights_path(run)
    if not path.is_file() and not runs.keeps_weights(run):
        raise DigitcnnError(
            f"The weights of {run.id} are not kept, only its metrics and answers: use these."
        )
    if not path.is_file() and record_path(run).is_file():
        if (epoch := runs.read_record(run).get("diverged")) is not None:
            raise DigitcnnError(
                f"{run.id} diverged in epoch {epoch}, so it has no weights: see its metrics."
            )
    tensors, about = read_tensors(path)
    if about.get("kind") != "weights":
        raise files.unusable(path, "holds no finished model", "run `make train`")
    known = runs.has_manifest(run.data)
    current = runs.ingredients(run) if known else {"code": files.fingerprint(runs.code(run))}
    if changed := differences(stored_value(path, about, "ingredients"), current):
        raise files.unusable(path, f"is stale ({changed})", "run `make train`")
    if broken := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
        raise files.unusable(path, f"holds weights that are not finite ({broken[0]})")
    named = runs.read_record(run)["weights_sha256"] if record_path(run).is_file() else None
    if named not in (None, about["checksum"]):
        raise files.unusable(path, f"holds other weights than the record of {run.id} names")
    return tensors


def environment(device: torch.device | None = None) -> dict[str, str]:
    """Where a run is trained: device, processor features, arithmetic, library versions."""
    device = device or pick_device()
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
        "training": "bfloat16" if native_bfloat16(device) else "float32",
        "evaluation": "float32",
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
    }


def train(run: str | RunConfig) -> None:
    """Train a run to its end, from its last whole epoch if it was interrupted, and store it.

    Raises `Interrupted` on Ctrl-C, and `DigitcnnError` where training is not allowed or the data
    is missing. Each run is trained once: a second process waits, then finds it done.
    """
    run = runs.get(run)
    files.checked_name(run.id, "run name")
    if forbidden():
        raise DigitcnnError(
            f"{run.id} would have to be trained ({stale(run) or 'its weights are missing'})"
            f"{_more_to_train(run)} first."
        )
    with files.lock(run.id):
        if not runs.reason(run):
            return
        try:
            store(compute(run, say_epoch))
        except KeyboardInterrupt:
            raise Interrupted(
                f"{run.id} was interrupted and is saved up to its last whole epoch: "
                f"`digitcnn train {run.id}` goes on from there."
            ) from None


def _more_to_train(run: RunConfig) -> str:
    """What else has to be trained, by group, and the command that does it: a sentence's end."""
    others = [other for other in runs.registry().values() if other != run and runs.reason(other)]
    groups = {other.group: [o.id for o in others if o.group == other.group] for other in others}
    command = "--all" if groups.keys() - {run.group} else run.group if groups else run.id
    named = (
        f"{len(ids)} more of {group} ({', '.join(ids[:3])}{', …' if ids[3:] else ''})"
        for group, ids in groups.items()
    )
    more = f", so would {'; '.join(named)}" if groups else ""
    return f"{more}, but DIGITCNN_TRAIN is 'never': run `digitcnn train {command}`"


def say_epoch(run: RunConfig, training: Training, seconds: list[float]) -> None:
    """A line on the terminal about the epoch that has just ended."""
    recent = seconds[-5:]
    left = (run.epochs - training.epoch) * sum(recent) / len(recent)
    judged = "validation" if "validation" in training.rows else "train"
    files.say(
        f"{run.id}: epoch {training.epoch}/{run.epochs}, "
        f"loss {training.rows['train'][-1].loss:.4f}, "
        f"{judged} accuracy {training.rows[judged][-1].accuracy:.2%}, {seconds[-1]:.1f} s, "
        f"{datetime.timedelta(seconds=round(left))} left"
    )


def compute(
    run: RunConfig,
    after_epoch: Callable[[RunConfig, Training, list[float]], None] = lambda *about: None,
) -> Outcome:
    """Train a run to its end and ask it what is kept of it; stores nothing but its checkpoint.

    The record holds the key of the code that was imported, taken before the first step.
    """
    source = division.pool(run.data)
    ingredients, key, code = runs.ingredients(run), runs.key(run), runs.code(run)
    training, seconds = learned(run, ingredients, after_epoch)
    model = cast(DigitCNN, training.averaged.module)
    answers = {} if training.diverged else _answers(run, model)
    weights = kept_weights(model)
    record = {
        "run": run.id,
        "key": key,
        "ingredients": ingredients,
        "code": code,
        "configuration": json.loads(json.dumps(vars(run))),
        "copy": source.copy,
        "environment": environment(training.device),
        "seconds": round(sum(seconds), 1),
        "seconds_per_epoch": round(float(np.median(seconds)), 2),
        "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "images": len(training.indices),
        "steps": training.steps,
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "diverged": training.epoch if training.diverged else None,
        "weights_sha256": checksum(weights),
        "answers_sha256": files.arrays_digest(answers),
    }
    metrics = {split: results.metrics_text(rows) for split, rows in training.rows.items()}
    record["metrics_sha256"] = {split: results.sha256(text) for split, text in metrics.items()}
    keeps = runs.keeps_weights(run) and not training.diverged
    arrays = {name: value.numpy() for name, value in weights.items()} if keeps else {}
    return Outcome(run, record, metrics, answers, arrays)


def learned(
    run: RunConfig,
    ingredients: dict,
    after_epoch: Callable[[RunConfig, Training, list[float]], None] = lambda *about: None,
) -> tuple[Training, list[float]]:
    """A run's training, gone on with from its checkpoint to its end, and the seconds per epoch."""
    files.remove_leftovers(checkpoint_path(run))
    state, seconds = _saved_progress(run, ingredients)
    began = time.perf_counter()

    def save(training: Training) -> None:
        nonlocal began
        seconds.append(time.perf_counter() - began)
        about = {"kind": "checkpoint", "run": run.id, "epoch": training.epoch}
        about |= {"ingredients": ingredients, "seconds": [round(value, 3) for value in seconds]}
        write_tensors(checkpoint_path(run), state_of(training), about)
        after_epoch(run, training, seconds)
        began = time.perf_counter()

    def resume(training: Training) -> None:
        if state:
            try:
                restore(training, state)
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                path, remedy = checkpoint_path(run), "delete it to train from the start"
                raise files.unusable(path, "is of another architecture", remedy) from error

    source = division.pool(run.data)
    return learn(run, source, pick_device(), before=resume, after_epoch=save), seconds


def state_of(training: Training) -> dict[str, Tensor]:
    """Everything that changes in training, as named tensors: enough to go on bit for bit."""
    state = {f"model.{k}": v for k, v in training.model.state_dict().items()}
    state |= {f"averaged.{k}": v for k, v in training.averaged.state_dict().items()}
    for index, slots in training.optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            state[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    state["generator.cpu"] = torch.get_rng_state()
    if training.device.type == "cuda":
        state["generator.cuda"] = torch.cuda.get_rng_state()
    elif training.device.type == "mps":
        state["generator.mps"] = torch.mps.get_rng_state()
    state["epoch"], state["pending"] = torch.tensor(training.epoch), training.pending
    for split, rows in training.rows.items():
        table = [dataclasses.astuple(row) for row in rows]
        state[f"rows.{split}"] = torch.tensor(table, dtype=torch.float64)
    return state


def restore(training: Training, state: dict[str, Tensor]) -> None:
    """Go back to a state as `state_of` gave it.

    Raises KeyError, RuntimeError, ValueError or TypeError if it is of another network.
    """

    def below(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in below("optimizer.").items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    training.model.load_state_dict(below("model."))
    training.averaged.load_state_dict(below("averaged."))
    training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": slots})
    torch.set_rng_state(state["generator.cpu"].cpu())
    if training.device.type == "cuda":
        torch.cuda.set_rng_state(state["generator.cuda"].cpu())
    elif training.device.type == "mps":
        torch.mps.set_rng_state(state["generator.mps"].cpu())
    training.epoch = int(state["epoch"])
    training.pending = state["pending"].to(training.device)
    training.rows = {
        split: [Metrics(int(epoch), *values) for epoch, *values in table.tolist()]
        for split, table in below("rows.").items()
    }
    training.diverged = not math.isfinite(training.rows["train"][-1].loss)


def kept_weights(model: DigitCNN) -> dict[str, Tensor]:
    """A network's state as it is kept: kernels and matrices float16, all else float32."""
    matrices = {name for name, value in model.named_parameters() if value.ndim > 1}
    return {
        name: (value.half() if name in matrices else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def _answers(run: RunConfig, model: DigitCNN) -> dict[str, np.ndarray]:
    """What a finished network says of the splits that `runs.kept_answers` names."""
    found, form = {}, runs.kept_form(run)
    for name, split in runs.kept_answers(run):
        samples = data.load(name, split, run.split)
        if run.class_counts:
            samples = data.class_subset(samples, {c: None for c, _ in run.class_counts}, run.seed)
        logits = predict_logits(model, samples.images).cpu()
        found[f"{name}-{split}-answer"] = logits.argmax(1).numpy().astype("u1")
        if form == "logits":
            found[f"{name}-{split}-logits"] = logits.numpy().astype("f2")
        if form == "margin":
            one, two = runs.PAIR
            found[f"{name}-{split}-margin"] = (logits[:, one] - logits[:, two]).numpy().astype("f2")
    return found


def store(outcome: Outcome) -> None:
    """Write a finished run, its record last, then drop its checkpoint; can be repeated."""
    run, record = outcome.run, outcome.record
    paths = [weights_path(run), record_path(run), answers_path(run)]
    paths += [metrics_path(run, split) for split in outcome.metrics]
    for path in paths:
        files.remove_leftovers(path)
    for split, text in outcome.metrics.items():
        files.write_whole(metrics_path(run, split), text)
    about = {name: np.array(record[name]) for name in ("key", "copy", "weights_sha256")}
    files.write_arrays(answers_path(run), about | outcome.answers)
    if outcome.weights:
        tensors = {name: torch.from_numpy(value) for name, value in outcome.weights.items()}
        write_tensors(weights_path(run), tensors, record | {"kind": "weights"})
    files.write_json(record_path(run), runs.sealed(record))
    checkpoint_path(run).unlink(missing_ok=True)


def _saved_progress(
    run: RunConfig, ingredients: dict
) -> tuple[dict[str, Tensor] | None, list[float]]:
    """The last whole epoch's state and the seconds so far, if there is a current checkpoint."""
    path = checkpoint_path(run)
    if not path.is_file():
        return None, []
    state, about = read_tensors(path)
    if changed := differences(stored_value(path, about, "ingredients"), ingredients):
        files.say(f"{run.id}: the unfinished training is of another version ({changed}); restart.")
        return None, []
    return state, list(stored_value(path, about, "seconds"))
