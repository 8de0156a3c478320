"""Runs: what is trained. Configurations, their names and the keys that make results traceable.

A run's key is a fingerprint of its configuration, the data, the split and the code of
`digitcnn.data`, `digitcnn.model` and `digitcnn.training` as syntax trees, so that comments,
docstrings and layout do not count. Needs neither torch nor the data.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

from . import files

KEYED_MODULES = ("data", "model", "training")
MANIFEST_NAMES = {"name", "copy", "file_md5", "images", "official_test", "digest", "split"}
PART_NAMES = {"images", "indices_sha256", "class_counts"}
SEED = 42


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration of a run; every field but the name is part of its key.

    Attributes:
        name: run name; the seed is added to it where it is not 42.
        data: ``mnist`` or ``svhn``.
        epochs, batch_size, seed: whole numbers above 0 (seed: from 0).
        optimizer: a key of `digitcnn.training.OPTIMIZERS`.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: on weight matrices and kernels only.
        label_smoothing: share of probability spread over all classes, in [0, 1).
        average: decay of the moving average of the weights, in [0, 1).
        activation, batch_norm, dropout, width: see `digitcnn.model.DigitCNN`.
        augmentation: kinds of `digitcnn.training.augment`.
        held_out: splits evaluated after each epoch.
        train_size: learn from a stratified subset of this size (None: everything).
        class_counts: learn from so many samples of these classes only, as (class, count or None)
            pairs; evaluation is then restricted to these classes.
        class_weights: weight the loss by inverse class frequency.
        oversample: draw every class equally often.
    """

    name: str
    data: str
    epochs: int = 50
    seed: int = SEED
    optimizer: str = "sgd"
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    batch_size: int = 256
    label_smoothing: float = 0.1
    average: float = 0.998
    activation: str = "relu"
    batch_norm: bool = True
    dropout: float = 0.0
    width: float = 1.0
    augmentation: tuple[str, ...] = ("affine",)
    held_out: tuple[str, ...] = ("validation", "test")
    train_size: int | None = None
    class_counts: tuple[tuple[int, int | None], ...] | None = None
    class_weights: bool = False
    oversample: bool = False

    @property
    def id(self) -> str:
        """The run's name in file names and on the command line."""
        return self.name if self.seed == SEED else f"{self.name}-s{self.seed}"

    @property
    def model_file(self) -> str:
        """File name of the trained weights."""
        return f"digitcnn-{self.name}-e{self.epochs}-s{self.seed}.safetensors"


# What the experiments start from. The same for both data sets but for the augmentation: written
# characters vary in stroke, photographs vary in light and have parts hidden.
BASELINE = {
    "mnist": RunConfig("mnist", "mnist", augmentation=("affine", "elastic")),
    "svhn": RunConfig("svhn", "svhn", augmentation=("affine", "colour", "erase")),
}
# What the second round starts from, trained to the end too. MNIST's augmentation is the outcome of
# `benchmarks/augmentation.py`.
REVISED = {
    "mnist": dataclasses.replace(
        BASELINE["mnist"], name="mnist-relu", augmentation=("affine", "erase")
    ),
    "svhn": dataclasses.replace(BASELINE["svhn"], name="svhn-relu"),
}
# The chosen configurations: the fewest errors of the second round on both data sets.
SMALL_BATCH = {"batch_size": 64, "learning_rate": 0.05}
CHOICE = SMALL_BATCH | {"activation": "gelu"}
MAIN = {data: dataclasses.replace(run, name=data, **CHOICE) for data, run in REVISED.items()}

# MNIST's first long run, from before `benchmarks/augmentation.py`.
FIRST = dataclasses.replace(BASELINE["mnist"], name="mnist-elastic")

# Each experiment changes one thing of the baseline. Groups, in the report's order.
EXPERIMENT_EPOCHS, EXPERIMENT_SEEDS = 3, (42, 43)
EXPERIMENT_SIZE = {"mnist": 5_000, "svhn": 10_000}  # MNIST is learned faster
EXPERIMENTS: dict[str, list[dict]] = {
    "optimizer": [
        {"optimizer": optimizer, "learning_rate": rate, "weight_decay": decay}
        for optimizer, rates, decay in (
            ("sgd", (0.05, 0.2, 0.8), 5e-4),
            ("adam", (0.0005, 0.002, 0.008), 0.0),
            ("adamw", (0.0005, 0.002, 0.008), 0.01),
            ("rmsprop", (0.00025, 0.001, 0.004), 0.0),
        )
        for rate in rates
    ],
    # The learning rate grows with the batch (linear scaling, Goyal et al. 2017, arXiv 1706.02677).
    "batch-size": [
        {"batch_size": size, "learning_rate": 0.2 * size / 256} for size in (64, 128, 256, 512)
    ],
    "activation": [{"activation": name} for name in ("relu", "leaky-relu", "gelu", "tanh")],
    "ablation": [
        {},
        {"batch_norm": False, "learning_rate": 0.05},
        {"augmentation": ()},
        {"dropout": 0.3},
        {"width": 0.5},
    ],
}

# The second round: what it starts from against the leader of each experiment, and the two that
# agree with each other together, for longer and on more images.
CONTEST_EPOCHS, CONTEST_SIZE = 16, 16_000
LEADERS: list[dict] = [
    {"optimizer": "rmsprop", "learning_rate": 0.001, "weight_decay": 0.0},
    SMALL_BATCH,
    {"activation": "gelu"},
    {"augmentation": ()},
]
CONTENDERS: list[dict] = [{}, *LEADERS, CHOICE]


# Question (e): digits 1 and 2 alone, as many of each in training (None: all there are).
PAIR = (1, 2)
CASES = {"case1": (50, 1000), "case2": (500, 1000), "case3": (None, None)}
REMEDIES = {"weighted": {"class_weights": True}, "oversampled": {"oversample": True}}
CASE_SEEDS = {"case1": range(42, 47), "case2": range(42, 47), "case3": (42, 43)}
REMEDY_SEEDS = (42, 43)
CASE_RECIPE = SMALL_BATCH  # did best in the experiments with few images
# Case 3 stopped after about as many steps as case 1 takes.
SHORT_EPOCHS = {"mnist": 5, "svhn": 2}


def imbalanced(data: str, case: str, seed: int = SEED, **change: object) -> RunConfig:
    """A run on digits 1 and 2 alone.

    Args:
        case: a key of `CASES`; ``balanced``, case 1's number of images and steps with equal
            classes; or ``case3-short``, case 3's images for case 1's number of steps.
        change: at most one of `REMEDIES`, as fields of the configuration.

    The pictured runs, seed 42 without a remedy, are evaluated after each epoch; of the others
    only the finished networks count.
    """
    short = case == "case3-short"
    counts = (525, 525) if case == "balanced" else CASES[case.removesuffix("-short")]
    remedy = [name for name, fields in REMEDIES.items() if fields == change]
    pictured = seed == SEED and case in CASES and not change
    return dataclasses.replace(
        BASELINE[data],
        name="-".join([data, case, *remedy]),
        seed=seed,
        epochs=SHORT_EPOCHS[data] if short else BASELINE[data].epochs,
        held_out=BASELINE[data].held_out if pictured else (),
        class_counts=tuple(zip(PAIR, counts, strict=True)),
        **CASE_RECIPE,
        **change,
    )


def imbalanced_runs() -> list[RunConfig]:
    """All runs of question (e): cases with their seeds, then controls, then remedies."""
    found = [
        imbalanced(data, case, seed)
        for case, seeds in CASE_SEEDS.items()
        for data in MAIN
        for seed in seeds
    ]
    found += [
        imbalanced(data, control, seed)
        for control, seeds in (
            ("balanced", CASE_SEEDS["case1"]),
            ("case3-short", CASE_SEEDS["case3"]),
        )
        for data in MAIN
        for seed in seeds
    ]
    return found + [
        imbalanced(data, case, seed, **change)
        for change in REMEDIES.values()
        for case in ("case1", "case2")
        for data in MAIN
        for seed in REMEDY_SEEDS
    ]


def experiment(data: str, change: dict, seed: int = SEED) -> RunConfig:
    """The short run that tries `change` on a data set; an empty change is the baseline."""
    return dataclasses.replace(
        BASELINE[data],
        name=_name_of(f"{data}-exp", BASELINE[data], change),
        epochs=EXPERIMENT_EPOCHS,
        train_size=EXPERIMENT_SIZE[data],
        held_out=("validation",),
        seed=seed,
        **change,
    )


def contender(data: str, change: dict, seed: int = SEED) -> RunConfig:
    """The run of the second round that tries `change` of `REVISED`; see `CONTENDERS`."""
    return dataclasses.replace(
        REVISED[data],
        name=_name_of(f"{data}-exp{CONTEST_EPOCHS}", REVISED[data], change),
        epochs=CONTEST_EPOCHS,
        train_size=CONTEST_SIZE,
        held_out=("validation",),
        seed=seed,
        **change,
    )


def _name_of(start: str, base: RunConfig, change: dict) -> str:
    """A run's name: `start`, then every field that differs from `base` with its value."""
    parts = [start]
    for field, value in change.items():
        if value != getattr(base, field):
            shown = (
                "-".join(value) or "none"
                if isinstance(value, tuple)
                else f"{value:g}"
                if isinstance(value, float)
                else str(value).lower()
            )
            parts += [field.split("_")[0], shown]
    return "-".join(parts)


def _quick(run: RunConfig) -> RunConfig:
    """The run as the quick profile trains it: same kind, a few seconds."""
    short = run.train_size is not None
    return dataclasses.replace(
        run,
        epochs=1 if short else 8 if run.name in MAIN else 4,
        batch_size=min(run.batch_size, 64),
        learning_rate=run.learning_rate / 4,
        augmentation=run.augmentation if short else ("shift",),
        train_size=256 if short else None,
        class_counts=run.class_counts
        and tuple((digit, count and count // 10) for digit, count in run.class_counts),
        average=0.9,
    )


def registry() -> dict[str, RunConfig]:
    """All runs of the active profile by id: the main ones, then the experiments."""
    return _registry(files.profile())


@functools.lru_cache
def _registry(profile: str) -> dict[str, RunConfig]:
    runs = [*MAIN.values(), *REVISED.values(), FIRST, *imbalanced_runs()]
    for changes in EXPERIMENTS.values():
        runs += [
            experiment(data, change, seed)
            for change in changes
            for data in MAIN
            for seed in EXPERIMENT_SEEDS
        ]
    runs += [contender(data, change) for data in MAIN for change in CONTENDERS]
    if profile == "quick":
        runs = [_quick(run) for run in runs if run.seed in EXPERIMENT_SEEDS]
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


def syntax(source: str) -> list:
    """A module's syntax tree without docstrings, comments and layout, as nested lists.

    Written out here because `ast.dump` and `ast.unparse` differ between Python versions.
    """

    def plain(node: object) -> object:
        if isinstance(node, ast.AST):
            fields = dict(ast.iter_fields(node))
            body = fields.get("body")
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body:
                if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                    fields["body"] = body[1:]
            kept = {k: plain(v) for k, v in fields.items() if v not in (None, [])}
            for irrelevant in ("ctx", "kind", "type_comment"):
                kept.pop(irrelevant, None)
            return [type(node).__name__, kept]
        if isinstance(node, list):
            return [plain(item) for item in node]
        return node if isinstance(node, str | int | bool | type(None)) else repr(node)

    return plain(ast.parse(source))


@functools.lru_cache
def code_digest() -> str:
    """Fingerprint of the code that decides what a run learns."""
    folder = Path(__file__).parent
    return files.fingerprint(
        [syntax((folder / f"{name}.py").read_text(encoding="utf-8")) for name in KEYED_MODULES]
    )


def has_manifest(data: str) -> bool:
    """Whether the data set has been read once, so that `manifest` can tell about it."""
    return files.cache_path("data", f"{data}.json").is_file()


def manifest(data: str) -> dict:
    """What ``cache/data/<data>.json`` records of a data set (see `digitcnn.data`).

    Raises `DigitcnnError` if it is missing or damaged; its counts have to add up.
    """
    path = files.cache_path("data", f"{data}.json")
    found = files.read_json(path)
    try:
        parts = list(found["split"].values())
        total = sum(part["images"] for part in parts)
        whole = (
            isinstance(found["digest"], str)
            and all(isinstance(part["indices_sha256"], str) for part in parts)
            and all(sum(part.get("class_counts", [])) in (0, part["images"]) for part in parts)
            and found.get("images", total) == total
            and found.keys() <= MANIFEST_NAMES
            and all(part.keys() <= PART_NAMES for part in parts)
        )
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise files.DigitcnnError(f"{files.shown(path)} is damaged: delete it, run `make data`.")
    return found


def ingredients(run: RunConfig) -> dict:
    """What a run's result depends on: ``configuration``, ``data``, ``split`` and ``code``."""
    configuration = dataclasses.asdict(run)
    del configuration["name"]
    data = manifest(run.data)
    return {
        "configuration": files.fingerprint(configuration),
        "data": data["digest"],
        "split": files.fingerprint(
            {name: split["indices_sha256"] for name, split in data["split"].items()}
        ),
        "code": code_digest(),
    }


def key(run: RunConfig) -> str:
    """The run's key: 16 hexadecimal digits over all its `ingredients`."""
    return files.fingerprint(ingredients(run))


def checkpoint_path(run: RunConfig) -> Path:
    """Where an unfinished run's state lies."""
    return files.cache_path("checkpoints", f"{run.id}.safetensors")


def weights_path(run: RunConfig) -> Path:
    """Where a finished run's weights lie."""
    return files.model_path(run.model_file)


def record_path(run: RunConfig) -> Path:
    """Where a finished run's record lies."""
    return files.cache_path("runs", f"{run.id}.json")


def metrics_path(run: RunConfig, split: str) -> Path:
    """Where a run's metrics of one split lie: tab-separated, a row an epoch."""
    return files.cache_path("metrics", run.id, f"{split}.txt")


def sealed(about: dict) -> dict:
    """A record with a ``checksum`` of everything else in it."""
    return about | {"checksum": files.fingerprint(about)}


def read_record(run: RunConfig) -> dict:
    """A finished run's record as stored. Raises `DigitcnnError` if it is missing or damaged."""
    path = record_path(run)
    about = files.read_json(path)
    whole = about.pop("checksum", None) == files.fingerprint(about)
    if not (whole and isinstance(about.get("ingredients"), dict)):
        raise files.DigitcnnError(f"{files.shown(path)} is damaged: delete it, run `make train`.")
    return about


def stale(run: RunConfig) -> str:
    """Why a run has to be trained: ``missing``, what changed, or an empty string if current."""
    if not record_path(run).is_file() or not all(
        metrics_path(run, split).is_file() for split in ("train", *run.held_out)
    ):
        return "missing"
    if not has_manifest(run.data):
        return "data not read yet"
    return differences(read_record(run)["ingredients"], ingredients(run))


def differences(recorded: dict, current: dict) -> str:
    """Which ingredients changed, as words: ``code and data changed``; empty if none."""
    changed = [name for name, value in current.items() if recorded.get(name) != value]
    return " and ".join(changed) + " changed" if changed else ""
