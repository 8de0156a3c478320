"""Runs: what is trained. Configurations, their names and the keys that make results traceable.

A run's key is a fingerprint of its configuration, of the data set, of the parts of its division
that the run uses, and of the code that decides what is learned (`ROOTS`, see `digitcnn.reach`).
Needs neither torch nor the data.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from . import files, reach
from .config import (  # noqa: F401  # some are only offered here too, as `runs.kept_form`
    DATA,
    SEED,
    SPLITS,
    RunConfig,
    answers_path,
    checkpoint_path,
    keeps_weights,
    kept_answers,
    kept_form,
    metrics_path,
    record_path,
    weights_path,
)
from .manifests import has_manifest, manifest, split_sizes

# What decides: from a data set's files to its images, and from these to weights and metrics.
ROOTS = ("sources.POOLS", "training.learn")
# Tables of which only the entries count that a run names, and the fields that name them.
TABLES = {
    "POOLS": "data",
    "DIVISIONS": "split",
    "OPTIMIZERS": "optimizer",
    "SCHEDULES": "schedule",
    "AUGMENTATIONS": "augmentation",
    "ACTIVATIONS": "activation",
}
# A configuration counts by its values; the other is written by `manifest`, which has checked it.
NOT_CODE = ("config.RunConfig", "sources.Source")
NOT_KEYED = ("name", "group")  # fields that say what a run is for
_NO_VALUE = object()  # equals no value of a field


# The recipe of every run, decided on 26 November 2026 before the first of them began.
#
# The network is the one of the assignment: convolutions, batch normalisation, ReLU, max-pooling,
# a fully connected feature layer. What was known, on validation images alone:
# * GELU made fewer errors than ReLU in short runs (2,907 against 3,058 of 63,431 unseen images of
#   SVHN; 16 epochs on 16,000 images, one seed), but not after 50 epochs on all (342 against 340 of
#   9,929; MNIST 13 against 12 of 7,000), at 1.2 times the cost: ReLU, as the assignment says.
# * Batches of 64 with a peak rate of 0.05 made fewer errors than 256 with 0.2 in those runs.
# * Lower resolutions in the first stages save a third of the time and cost a little at equal epochs
#   (SVHN, 8 epochs, two seeds: 430 and 452 errors of 9,929 against 419 and 407; at 50 epochs 350
#   against 340 and 342; the standard deviation is about 20): 32 pixels throughout.
# * Cheaper networks were worth no change (3,055 to 3,285 unseen errors against 3,058).
# * Augmentation: characters vary in stroke, photographs vary in light and have parts hidden.
# The experiments below judge the recipe; they do not change it.
RECIPE = {
    "mnist": RunConfig("mnist", "main", "mnist", augmentation=("affine", "erase")),
    "svhn": RunConfig("svhn", "main", "svhn", augmentation=("affine", "colour", "erase")),
}
MAIN = RECIPE  # the runs that chapters 3 and 4 look at: the first, pre-registered seed
SEEDS = (42, 43, 44)
GROUPS = ("main", "official", "imbalance", "experiments", "transfer", "improvement")  # in order


def _with(data: str, group: str, suffix: str, **change: Any) -> RunConfig:
    """The recipe with a change, as a run of a group."""
    name = f"{data}-{suffix}"
    return dataclasses.replace(RECIPE[data], name=name, group=group, **change)


def official(data: str) -> RunConfig:
    """The recipe on the official division; its test set is looked at once, when all is trained."""
    return _with(data, "official", "official", split="official", held_out=("validation",))


# Question (e): digits 1 and 2 alone, as many of each in training (None: all there are).
PAIR = (1, 2)
CASES = {"case1": (50, 1000), "case2": (500, 1000), "case3": (None, None)}
CASE_SEEDS = {"case1": range(42, 47), "case2": range(42, 47), "case3": range(42, 45)}
# Controls, each for as many steps as case 1 takes: 50 epochs of 16 batches.
CONTROL_STEPS = 800
CONTROL_SEEDS = range(42, 46)
CONTROLS: dict[str, dict] = {
    "few": {"counts": (50, 50)},
    "mirrored": {"counts": (1000, 50)},
    "balanced": {"counts": (525, 525)},
    "many": {"counts": (1000, 1000)},
    "case1-weighted": {"counts": CASES["case1"], "class_weights": True},
    "case1-oversampled": {"counts": CASES["case1"], "oversample": True},
    "case3-short": {"counts": CASES["case3"]},
}


def imbalanced(data: str, case: str, seed: int = SEED) -> RunConfig:
    """A run on digits 1 and 2 alone: a key of `CASES` or `CONTROLS`.

    Only those that `is_pictured` names are evaluated after each epoch.
    """
    control = dict(CONTROLS.get(case, {}))
    counts = control.pop("counts") if control else CASES[case]
    return _with(
        data,
        "imbalance",
        case,
        seed=seed,
        steps=CONTROL_STEPS if case in CONTROLS else None,
        class_counts=tuple(zip(PAIR, counts, strict=True)),
        evaluate_every_epoch=is_pictured(case, seed),
        **control,
    )


def is_pictured(case: str, seed: int) -> bool:
    """Whether the report draws what this run of question (e) learned, so that it is kept."""
    return case in CASES and seed == SEED


# Experiments of question (b), each one change of the recipe: by group, in the report's order, then
# by the name of the setting. The recipe itself is the setting "recipe" of each group.
EXPERIMENT_EPOCHS, EXPERIMENT_SEEDS = 6, SEEDS
EXPERIMENT_SIZE = {"mnist": 5_000, "svhn": 10_000}  # MNIST is learned faster


def _rates(optimizer: str, *rates: float) -> dict[str, dict]:
    fields = {"optimizer": optimizer, "weight_decay": 0.0}
    return {f"{optimizer}-{rate:g}": {**fields, "learning_rate": rate} for rate in rates}


EXPERIMENTS: dict[str, dict[str, dict]] = {
    "optimizer": {
        **{f"sgd-{rate:g}": {"learning_rate": rate} for rate in (0.0125, 0.2)},
        **_rates("adam", 0.0005, 0.002, 0.008),
        **_rates("rmsprop", 0.00025, 0.001, 0.004),
    },
    # The learning rate grows with the batch (linear scaling, Goyal et al. 2017, arXiv 1706.02677).
    "batch-size": {
        f"batch-{size}": {"batch_size": size, "learning_rate": 0.05 * size / 64}
        for size in (32, 128, 256)
    },
    "activation": {name: {"activation": name} for name in ("leaky-relu", "gelu", "tanh")},
    "architecture": {
        # Without batch normalisation the best rate is another: it is looked for.
        **{
            f"no-batch-norm-{rate:g}": {"batch_norm": False, "learning_rate": rate}
            for rate in (0.003125, 0.0125, 0.05)
        },
        "no-shortcuts": {"shortcuts": False},
        "global-average": {"map_side": 1},
        "width-0.5": {"width": 0.5},
    },
    "training": {
        "no-average": {"ema_decay": 0.0},
        "no-smoothing": {"label_smoothing": 0.0},
        "cosine": {"schedule": "cosine"},
        "constant": {"schedule": "constant"},
        "no-augmentation": {"augmentation": ()},
        "dropout-0.3": {"dropout": 0.3},
        "resolutions": {"resolutions": ((16, 0.25), (24, 0.375), (32, 0.375))},
    },
}


def experiment(data: str, setting: str = "recipe", seed: int = SEED) -> RunConfig:
    """The short run that tries a setting of `EXPERIMENTS` on a data set."""
    changes = {name: change for group in EXPERIMENTS.values() for name, change in group.items()}
    return _with(
        data,
        "experiments",
        f"exp-{setting}",
        seed=seed,
        epochs=EXPERIMENT_EPOCHS,
        train_size=EXPERIMENT_SIZE[data],
        held_out=("validation",),
        evaluate_every_epoch=False,
        **({} if setting == "recipe" else changes[setting]),
    )


# Transfer from MNIST to SVHN: what MNIST lacks of photographs, given to it in training, each on its
# own and all together.
TRANSFER: dict[str, tuple[str, ...]] = {
    "plain": (),
    "ground": ("ground",),
    "polarity": ("polarity",),
    "contrast": ("contrast",),
    "colours": ("colours",),
    "all": ("ground", "polarity", "contrast", "colours"),
}
TRANSFER_SIZE, TRANSFER_EPOCHS, TRANSFER_SEEDS = 16_000, 8, SEEDS


def transfer(setting: str, seed: int = SEED) -> RunConfig:
    """The run on MNIST with a setting of `TRANSFER`: after the affine change, before erasing."""
    first, *rest = RECIPE["mnist"].augmentation
    return _with(
        "mnist",
        "transfer",
        f"transfer-{setting}",
        seed=seed,
        epochs=TRANSFER_EPOCHS,
        train_size=TRANSFER_SIZE,
        augmentation=(first, *TRANSFER[setting], *rest),
        held_out=("validation",),
        evaluate_every_epoch=False,
    )


# An improvement to the model (question (c)), suggested by the audit of errors: readers saw low
# contrast far more often in SVHN's errors than in images read rightly. So training images get
# contrast of every strength, beside as many steps of the recipe as it is.
IMPROVEMENTS: dict[str, tuple[str, ...]] = {"plain": (), "contrast": ("contrast",)}
IMPROVEMENT_EPOCHS, IMPROVEMENT_SEEDS = 7, SEEDS


def improvement(setting: str, seed: int = SEED) -> RunConfig:
    """The run on SVHN that tries a setting of `IMPROVEMENTS`: all images, a shorter schedule."""
    return _with(
        "svhn",
        "improvement",
        f"improvement-{setting}",
        seed=seed,
        epochs=IMPROVEMENT_EPOCHS,
        augmentation=(*RECIPE["svhn"].augmentation, *IMPROVEMENTS[setting]),
        evaluate_every_epoch=False,
    )


def grid() -> list[RunConfig]:
    """All runs, in the order in which their groups are trained; the main ones by seed."""
    settings = ["recipe", *(name for group in EXPERIMENTS.values() for name in group)]
    return [
        *(dataclasses.replace(RECIPE[data], seed=seed) for seed in SEEDS for data in DATA),
        *(official(data) for data in DATA),
        *(
            imbalanced(data, case, seed)
            for case, seeds in [*CASE_SEEDS.items(), *((name, CONTROL_SEEDS) for name in CONTROLS)]
            for data in DATA
            for seed in seeds
        ),
        *(
            experiment(data, setting, seed)
            for setting in settings
            for data in DATA
            for seed in EXPERIMENT_SEEDS
        ),
        *(transfer(setting, seed) for setting in TRANSFER for seed in TRANSFER_SEEDS),
        *(improvement(setting, seed) for setting in IMPROVEMENTS for seed in IMPROVEMENT_SEEDS),
    ]


QUICK_SEEDS = (42, 43)


def _quick(run: RunConfig) -> RunConfig:
    """The run as the quick profile trains it: same kind, a few seconds."""
    short = run.train_size is not None
    epochs = 1 if short else 12 if run.group == "main" else 2
    return dataclasses.replace(
        run,
        epochs=epochs,
        steps=run.steps and 12,
        learning_rate=run.learning_rate if run.optimizer != "sgd" else run.learning_rate / 4,
        augmentation=run.augmentation if short else ("shift",),
        train_size=256 if short else None,
        class_counts=run.class_counts
        and tuple((digit, count and count // 10) for digit, count in run.class_counts),
        ema_decay=0.9 if run.ema_decay else 0.0,
    )


def registry() -> dict[str, RunConfig]:
    """All runs of the active profile by id, in the order of training."""
    return _registry(files.profile())


@functools.lru_cache
def _registry(profile: str) -> dict[str, RunConfig]:
    runs = grid()
    if profile == "quick":
        runs = [_quick(run) for run in runs if run.seed in QUICK_SEEDS]
    return {run.id: run for run in runs}


def get(run: str | RunConfig) -> RunConfig:
    """A run by its id. Raises `DigitcnnError` for an unknown one."""
    if isinstance(run, RunConfig):
        return run
    runs = registry()
    if run not in runs:
        near = [name for name in runs if name.startswith(str(run)[:8])] or list(MAIN)
        raise files.DigitcnnError(
            f"There is no run {run!r}: `digitcnn status` lists them ({', '.join(near[:4])}, …)."
        )
    return runs[run]


def trainings(data: str) -> list[str]:
    """The main runs of a data set that are trained, by id, the first seed's always and first."""
    main = [run for run in registry().values() if (run.group, run.data) == ("main", data)]
    return [run.id for run in main if run.seed == SEED or not stale(run)]


@functools.lru_cache
def _code(**entries: frozenset[str]) -> dict[str, str]:
    return reach.digests(ROOTS, entries, NOT_CODE)


def code(run: RunConfig) -> dict[str, str]:
    """The digest of each definition that decides what a run learns, by its name."""
    named = {
        table: frozenset([value] if isinstance(value := getattr(run, field), str) else value)
        for table, field in TABLES.items()
    }
    return _code(**named)


def configuration(run: RunConfig) -> dict:
    """The fields that count in a run's key: all but its name, its group and neutral later ones."""
    return {
        field.name: value
        for field in dataclasses.fields(run)
        if field.name not in NOT_KEYED
        and (value := getattr(run, field.name)) != field.metadata.get("neutral", _NO_VALUE)
    }


def ingredients(run: RunConfig) -> dict:
    """What a run's result depends on: ``configuration``, ``data``, ``split`` and ``code``."""
    parts = split_sizes(run.data, run.split)
    return {
        "configuration": files.fingerprint(configuration(run)),
        "data": manifest(run.data)["digest"],
        "split": files.fingerprint(
            {name: parts[name]["indices_sha256"] for name in ("train", *run.held_out)}
        ),
        "code": files.fingerprint(code(run)),
    }


def key(run: RunConfig) -> str:
    """The run's key: 16 hexadecimal digits over all its `ingredients`."""
    return files.fingerprint(ingredients(run))


def sealed(about: dict) -> dict:
    """A record with a ``checksum`` of everything else in it."""
    return about | {"checksum": files.fingerprint(about)}


def read_record(run: RunConfig) -> dict:
    """A finished run's record as stored. Raises `DigitcnnError` if it is missing or damaged."""
    path = record_path(run)
    about = files.read_json(path)
    whole = about.pop("checksum", None) == files.fingerprint(about)
    if not (whole and isinstance(about.get("ingredients"), dict)):
        raise files.unusable(path, "is damaged")
    return about


def stale(run: RunConfig) -> str:
    """Why a run has to be trained: ``missing``, what changed, or an empty string if current."""
    parts = [record_path(run), answers_path(run)]
    parts += [metrics_path(run, split) for split in ("train", *run.held_out)]
    if not all(files.has(path) for path in parts):
        return "missing"
    if not has_manifest(run.data):
        return "data not read yet"
    about = read_record(run)
    changed = differences(about["ingredients"], ingredients(run))
    if changed == "code changed" and (names := changed_code(about.get("code", {}), code(run))):
        return f"code changed: {names}"
    return changed


def reason(run: RunConfig) -> str:
    """Why a run has to be trained, missing weights included; empty if it is current."""
    why = stale(run)
    if not why and keeps_weights(run) and not files.has(weights_path(run)):
        if read_record(run).get("diverged") is None:  # else there is nothing to keep
            return "weights missing"
    return why


def changed_code(recorded: dict[str, str], current: dict[str, str]) -> str:
    """The names of the definitions that changed, the first three of them."""
    every = sorted(recorded.keys() | current.keys())
    names = [name for name in every if recorded.get(name) != current.get(name)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def differences(recorded: dict, current: dict) -> str:
    """Which ingredients changed, as words: ``code and data changed``; empty if none."""
    changed = [name for name, value in current.items() if recorded.get(name) != value]
    return " and ".join(changed) + " changed" if changed else ""
