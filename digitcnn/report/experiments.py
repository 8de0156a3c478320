"""Chapter 2: the network, the training runs, and what the experiments found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from .. import data, division, inference, results, runs, stats, store
from ..files import DigitcnnError
from ..model import DigitCNN
from ..predictions import answered
from ..sources import TITLES
from ..training import build_model, predict_logits

DIGITS = list(range(10))


def architecture(run: str) -> pd.DataFrame:
    """The network layer by layer: name, output shape for one image, parameters."""
    model: DigitCNN = build_model(runs.get(run)).eval()
    rows, hooks = [], []
    wanted = (
        torch.nn.Conv2d,
        torch.nn.BatchNorm2d,
        torch.nn.BatchNorm1d,
        torch.nn.MaxPool2d,
        torch.nn.Linear,
        torch.nn.Flatten,
    )

    def note(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        count = sum(p.numel() for p in module.parameters())
        rows.append((type(module).__name__, tuple(output.shape[1:]), count))

    for module in model.modules():
        if isinstance(module, wanted):
            hooks.append(module.register_forward_hook(note))
    model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    names = {"Conv2d": "convolution 3 × 3", "BatchNorm2d": "batch normalisation"}
    names |= {"BatchNorm1d": "batch normalisation", "MaxPool2d": "max-pooling 2 × 2"}
    names |= {"Linear": "fully connected", "Flatten": "flatten"}
    frame = pd.DataFrame(rows, columns=["layer", "output", "parameters"])
    frame["layer"] = frame["layer"].map(names)
    frame["output"] = [" × ".join(map(str, shape)) for shape in frame["output"]]
    return frame


def blocks() -> pd.DataFrame:
    """The network block by block, as drawn: title, contents, output shape, parameters."""
    model, activation = build_model(runs.MAIN["mnist"]), LABELS[runs.MAIN["mnist"].activation]
    first, down1, res1, down2, res2, down3 = model.convolutions
    stages = [
        ("block 1", f"conv, BN, {activation}", first, (16, 32, 32)),
        ("block 2", f"conv, pool, BN, {activation}", down1, (48, 16, 16)),
        ("residual 1", f"2 × (conv, BN, {activation}) + input", res1, (48, 16, 16)),
        ("block 3", f"conv, pool, BN, {activation}", down2, (96, 8, 8)),
        ("residual 2", f"2 × (conv, BN, {activation}) + input", res2, (96, 8, 8)),
        ("block 4", f"conv, pool, BN, {activation}", down3, (128, 4, 4)),
        ("feature layer", f"fully connected, BN, {activation}", model.feature_layer, (128,)),
        ("output layer", "fully connected", model.output, (10,)),
    ]
    shape = torch.zeros(2, 3, 32, 32)
    rows = []
    for name, contents, module, _ in stages:
        shape = module(shape)
        count = sum(p.numel() for p in module.parameters())
        rows.append((name, contents, tuple(shape.shape[1:]), count))
    return pd.DataFrame(rows, columns=["block", "layers", "shape", "parameters"])


def last_epoch(run: str) -> pd.DataFrame:
    """The last epoch's metrics by split (rows)."""
    history = results.history(run)
    return pd.DataFrame({split: table.iloc[-1] for split, table in history.items()}).T


def epochs(run: str, split: str, every: int = 5) -> pd.DataFrame:
    """The metrics of the first epoch and of each `every`-th one."""
    table = results.history(run)[split]
    return table[(table["epoch"] == 1) | (table["epoch"] % every == 0)]


@store.stored(
    lambda run: f"results/train-{run}",
    lambda run: [
        store.weights(run),
        store.images(runs.get(run).data, "train", runs.get(run).split),
    ],
)
def training_answers(run: str) -> dict[str, np.ndarray]:
    """``predicted`` uint8 (N,): what a finished network says of its clean training images."""
    config = runs.get(run)
    images = data.load(config.data, "train", config.split).images
    logits = predict_logits(inference.load(config), images)
    return {"predicted": logits.argmax(1).cpu().numpy().astype("u1")}


def generalisation_gap(run: str) -> dict[str, float]:
    """Accuracy of the finished network on clean images of each split, and training minus test.

    The training columns of the metrics files are running averages over augmented images, so they
    cannot be subtracted; here the same network sees all splits alike.
    """
    config = runs.get(run)
    learned = division.split_indices(config.data, config.split)["train"]
    truth = division.labels(config.data).labels[learned]
    accuracy = {"train": float((training_answers(run)["predicted"] == truth).mean())}
    for split in ("validation", "test"):
        found = answered(config, config.data, split)
        accuracy[split] = float((found.predicted == found.labels).mean())
    return accuracy | {"gap": accuracy["train"] - accuracy["test"]}


def official_results() -> pd.DataFrame:
    """The runs on the official division on its validation and test part: `stats.macro`, a row each.

    Columns: ``data``, ``split``, ``images``, ``wrong``, ``accuracy`` (with ``low`` and ``high``,
    Wilson's interval), ``precision``, ``recall``.
    """
    rows = []
    for name in runs.DATA:
        run = runs.get(runs.official(name).id)
        for split in ("validation", "test"):
            found = answered(run, name, split)
            size, wrong = len(found.labels), int((found.predicted != found.labels).sum())
            _, low, high = stats.proportion(size - wrong, size)
            about = {"data": name, "split": split, "images": size, "wrong": wrong}
            scores = stats.macro(found.labels, found.predicted)
            rows.append(about | scores | {"low": low, "high": high})
    return pd.DataFrame(rows)


LABELS = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "relu": "ReLU",
    "leaky-relu": "leaky ReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "tanh": "tanh",
    "one-cycle": "one cycle",
    "no-average": "no weight averaging",
    "no-smoothing": "no label smoothing",
    "no-augmentation": "no augmentation",
    "no-shortcuts": "no shortcuts",
    "global-average": "global average",
}
GROUP_TITLES = {
    "optimizer": "optimiser and rate",
    "batch-size": "batch size",
    "activation": "activation",
    "architecture": "architecture",
    "training": "training",
}


def label(setting: str) -> str:
    """How the report calls a setting of `runs.EXPERIMENTS`, by the setting's name."""
    if setting in LABELS:
        return LABELS[setting]
    kind, _, value = setting.rpartition("-")
    if kind == "no-batch-norm":
        return f"no batch norm, rate {value}"
    if kind == "width":
        return f"width × {value}"
    return f"{LABELS.get(kind, kind)} {value}" if kind else setting


def recipe_label(group: str) -> str:
    """What the recipe is in a group of experiments."""
    recipe = runs.RECIPE["svhn"]
    return {
        "optimizer": f"{LABELS[recipe.optimizer]} {recipe.learning_rate:g}",
        "batch-size": f"batch {recipe.batch_size}",
        "activation": LABELS[recipe.activation],
    }.get(group, "recipe")


def experiment(group: str) -> pd.DataFrame:
    """Validation accuracy of a group of experiments after their last epoch, a row a run.

    Columns: ``setting`` (as `label` calls it), ``data``, ``seed``, ``accuracy`` in [0, 1],
    ``seconds`` per epoch and ``recipe`` (whether it is the recipe, which comes first).
    """
    if group not in runs.EXPERIMENTS:
        raise DigitcnnError(f"There is no experiment {group!r}: see digitcnn.runs.EXPERIMENTS.")
    rows = []
    for setting in ("recipe", *runs.EXPERIMENTS[group]):
        recipe = setting == "recipe"
        shown = recipe_label(group) if recipe else label(setting)
        wanted = {runs.experiment(name, setting).name for name in runs.DATA}
        for run in runs.registry().values():
            if run.name in wanted:
                accuracy = results.history(run)["validation"]["accuracy"].iloc[-1]
                seconds = results.record(run)["seconds_per_epoch"]
                rows.append((shown, run.data, run.seed, accuracy, seconds, recipe))
    columns = ["setting", "data", "seed", "accuracy", "seconds", "recipe"]
    return pd.DataFrame(rows, columns=columns)


def experiment_effects() -> pd.DataFrame:
    """Each setting of `runs.EXPERIMENTS` against the recipe, paired by seed.

    Columns: ``group``, ``setting``, ``data``, ``accuracy`` (mean over the seeds), those of
    `stats.Difference` (in accuracy), and ``beyond`` chance, corrected by Holm over all settings of
    a data set.
    """
    rows = []
    for group in runs.EXPERIMENTS:
        table = experiment(group)
        for name, part in table.groupby("data", sort=False):
            by_seed = part.pivot(index="seed", columns="setting", values="accuracy")
            reference = by_seed[part.loc[part["recipe"], "setting"].iloc[0]]
            for setting in part.loc[~part["recipe"], "setting"].unique():
                found = stats.difference(by_seed[setting], reference, paired=True)
                about = {"group": group, "setting": setting, "data": name}
                rows.append(about | {"accuracy": by_seed[setting].mean()} | found._asdict())
    frame = pd.DataFrame(rows)
    frame["beyond"] = frame.groupby("data")["p"].transform(stats.beyond_chance).astype(bool)
    return frame


AUGMENTATION_TEXT = {
    "affine": "shift ≤ 2 px, rotation ≤ 10°, scale ≤ 12 %, shear ≤ 0.15",
    "colour": "contrast, brightness, inverted polarity",
    "erase": "8 × 8 square erased",
    "shift": "shift ≤ 2 px",
}


def configuration() -> pd.DataFrame:
    """The recipe as a reader says it: setting and value."""
    main = {name: runs.get(name) for name in runs.DATA}
    run = main["svhn"]
    kinds = {
        name: "; ".join(AUGMENTATION_TEXT[kind] for kind in found.augmentation)
        for name, found in main.items()
    }
    rows = {
        "epochs; batch size": f"{run.epochs}; {run.batch_size}",
        "optimiser": f"{LABELS[run.optimizer]} with momentum 0.9 (Nesterov)",
        "learning rate": f"{LABELS[run.schedule]}, peak {run.learning_rate:g}",
        "weight decay": f"{run.weight_decay:g}, on kernels and matrices",
        "loss": f"cross-entropy, label smoothing {run.label_smoothing:g}",
        "weights kept": f"moving average, decay {run.ema_decay:g}, after the last epoch",
        "activation": LABELS[run.activation],
        **{f"augmentation, {TITLES[name]}": text for name, text in kinds.items()},
    }
    return pd.DataFrame(rows.items(), columns=["setting", "value"])


def main_seeds() -> pd.DataFrame:
    """The main runs of all seeds after the last epoch: ``data``, ``seed``, accuracy by split."""
    rows = []
    for run in runs.registry().values():
        if run.group == "main":
            last = last_epoch(run.id)["accuracy"]
            rows.append({"data": run.data, "seed": run.seed} | {s: last[s] for s in run.held_out})
    return pd.DataFrame(rows).sort_values(["data", "seed"], ignore_index=True)


def epoch_extract(run: str, every: int = 10) -> pd.DataFrame:
    """Validation and test metrics of epoch 1 and each `every`-th one, side by side."""
    parts = {
        split: epochs(run, split, every).set_index("epoch") for split in ("validation", "test")
    }
    frame = pd.concat(parts, axis=1)
    short = {"validation": "val.", "accuracy": "acc.", "precision": "prec."}
    frame.columns = [" ".join(short.get(part, part) for part in column) for column in frame]
    return frame
