"""Tables of chapters 1 and 2: what the data is like, and what the training runs found."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import torch

from . import checkpoints, data, files, predictions, runs
from .files import DigitcnnError
from .model import DigitCNN
from .sources import TITLES
from .training import build_model, evaluate, predict_logits, training_split

DIGITS = list(range(10))


def first_of_each_class(name: str, split: str, count: int = 2) -> np.ndarray:
    """The first `count` images of each class in a split, uint8 (10, count, 3, 32, 32)."""
    samples = data.load(name, split)
    labels = samples.labels.numpy()
    chosen = [np.flatnonzero(labels == digit)[:count] for digit in DIGITS]
    return samples.images[torch.from_numpy(np.stack(chosen))].numpy()


def split_sizes() -> pd.DataFrame:
    """Number of images by data set (rows) and split (columns), with the total."""
    rows = {}
    for name, title in TITLES.items():
        split = runs.manifest(name)["split"]
        rows[title] = {part: split[part]["images"] for part in data.SPLITS}
    frame = pd.DataFrame(rows).T.rename_axis("data set")
    return frame.assign(total=frame.sum(axis=1))


def class_counts(name: str) -> pd.DataFrame:
    """Number of images by class (rows) and split (columns)."""
    split = runs.manifest(name)["split"]
    counts = {part: split[part]["class_counts"] for part in data.SPLITS}
    return pd.DataFrame(counts, index=pd.Index(DIGITS, name="class"))


def stratification_error(name: str) -> float:
    """Largest difference between a class's share in a split and in the pool, in [0, 1]."""
    counts = class_counts(name)
    shares, pooled = counts / counts.sum(), counts.sum(axis=1) / counts.to_numpy().sum()
    return float(shares.sub(pooled, axis=0).abs().to_numpy().max())


def intensity(name: str) -> pd.DataFrame:
    """Mean and standard deviation of the pixels in [0, 1] by split (rows) and channel."""
    rows = {}
    for split in data.SPLITS:
        pixels = data.load(name, split).images.float().div_(255)
        std, mean = torch.std_mean(pixels, dim=(0, 2, 3))
        rows[split] = {
            **{f"mean {c}": float(v) for c, v in zip("RGB", mean, strict=True)},
            **{f"std {c}": float(v) for c, v in zip("RGB", std, strict=True)},
        }
    return pd.DataFrame(rows).T.rename_axis("split")


def image_statistics(name: str, split: str = "train") -> pd.DataFrame:
    """Per image: mean intensity and contrast (standard deviation of its grey values), in [0, 1]."""
    grey = data.load(name, split).images.float().div_(255).mean(1).flatten(1)
    return pd.DataFrame({"mean": grey.mean(1).numpy(), "contrast": grey.std(1).numpy()})


def intensity_histogram(name: str, split: str = "train", bins: int = 64) -> np.ndarray:
    """Share of grey values in each of `bins` equal steps of [0, 1]; sums to 1."""
    images = data.load(name, split).images.to(torch.int32)
    grey = images.sum(1).flatten()  # 0 to 765
    counts = torch.bincount(grey * bins // 766, minlength=bins).double()
    return (counts / counts.sum()).numpy()


def duplicates(name: str) -> dict[str, int]:
    """Exact copies (equal in every pixel) in the pool and across the boundary of the splits.

    Returns:
        ``copies``: images beyond the first of each set of equal ones; ``test`` and
        ``validation``: images of that split with an equal image in the training split;
        ``conflicting``: sets of equal images with different labels.
    """
    source, indices = data.pool(name)
    digests = pd.Series([hashlib.blake2b(image.tobytes()).digest() for image in source.images])
    group = digests.groupby(digests).ngroup().to_numpy()
    train = np.unique(group[indices["train"]])
    labels_per_group = pd.Series(source.labels).groupby(group).nunique()
    return {
        "copies": int(len(group) - group.max() - 1),
        "validation": int(np.isin(group[indices["validation"]], train).sum()),
        "test": int(np.isin(group[indices["test"]], train).sum()),
        "conflicting": int((labels_per_group > 1).sum()),
    }


def official_share(name: str) -> pd.Series:
    """Share of each split's images that the official division has in its test set."""
    source, indices = data.pool(name)
    return pd.Series({split: source.official_test[at].mean() for split, at in indices.items()})


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
    history = checkpoints.history(run)
    return pd.DataFrame({split: table.iloc[-1] for split, table in history.items()}).T


def epochs(run: str, split: str, every: int = 5) -> pd.DataFrame:
    """The metrics of the first epoch and of each `every`-th one."""
    table = checkpoints.history(run)[split]
    return table[(table["epoch"] == 1) | (table["epoch"] % every == 0)]


def generalisation_gap(run: str) -> dict[str, float]:
    """Accuracy of the finished network on clean training images, and what is lost on others.

    The training columns of the metrics files are running averages over augmented images, so they
    cannot be subtracted; here the same network sees all splits alike.
    """
    run = runs.get(run)

    def make() -> dict[str, np.ndarray]:
        model = checkpoints.load_model(run)
        found = {}
        for split in data.SPLITS:
            samples = data.load(run.data, split)
            device = model.mean.device
            metrics = evaluate(model, samples.images.to(device), samples.labels.to(device))
            found[split] = np.array(metrics.accuracy)
        return found

    ingredients = [predictions.depends_on(run, run.data, split) for split in data.SPLITS]
    arrays = predictions.cached_arrays(f"results/accuracy-{run.id}", ingredients, make)
    accuracy = {split: float(arrays[split]) for split in data.SPLITS}
    return accuracy | {"gap": accuracy["train"] - accuracy["test"]}


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
}


def label(group: str, change: dict) -> str:
    """How the report calls the setting that an experiment tries."""
    if group == "optimizer":
        return f"{LABELS[change['optimizer']]} {change['learning_rate']:g}"
    if group == "batch-size":
        return str(change["batch_size"])
    if group == "activation":
        return LABELS[change["activation"]]
    if not change:
        return "starting point"
    if not change.get("batch_norm", True):
        return f"no batch norm (rate {change['learning_rate']:g})"
    if "augmentation" in change:
        return "no augmentation"
    return "dropout 0.3" if "dropout" in change else f"width × {change['width']:g}"


def contender_label(change: dict) -> str:
    """How the report calls a setting of the second round."""
    said = []
    if "optimizer" in change:
        said.append(label("optimizer", change))
    if "batch_size" in change:
        said.append(f"batch {change['batch_size']}")
    if "activation" in change:
        said.append(LABELS[change["activation"]])
    if "augmentation" in change:
        said.append("no augmentation")
    return " + ".join(said) or "starting point"


def experiment(group: str) -> pd.DataFrame:
    """Validation accuracy of a group of experiments after their last epoch, a row a run.

    Columns: ``setting``, ``data``, ``seed``, ``accuracy`` in [0, 1], ``seconds`` per epoch and
    ``start`` (whether it is the starting point).
    """
    if group not in runs.EXPERIMENTS:
        raise DigitcnnError(f"There is no experiment {group!r}: see digitcnn.runs.EXPERIMENTS.")
    rows = []
    for change in runs.EXPERIMENTS[group]:
        for name in runs.MAIN:
            for seed in runs.EXPERIMENT_SEEDS:
                run = runs.get(runs.experiment(name, change, seed).id)
                accuracy = checkpoints.history(run)["validation"]["accuracy"].iloc[-1]
                seconds = checkpoints.record(run)["seconds_per_epoch"]
                start = run.name == f"{name}-exp"
                rows.append((label(group, change), name, seed, accuracy, seconds, start))
    columns = ["setting", "data", "seed", "accuracy", "seconds", "start"]
    return pd.DataFrame(rows, columns=columns)


def augmentation_search() -> pd.DataFrame:
    """What ``benchmarks/augmentation.py`` found for MNIST, best first; no test image was seen.

    Columns: ``setting``, ``augmentation``, ``held_out`` (images judged on), ``wrong`` of these,
    ``wrong_validation``, ``train_accuracy`` (running, augmented), ``seconds``.
    """
    path = files.noted(files.project_root() / "cache" / "results" / "augmentation.csv")
    return pd.read_csv(path).sort_values("wrong", ignore_index=True)


def unseen_errors(run: str | runs.RunConfig) -> np.ndarray:
    """Whether a finished network is wrong, bool (N,), on each image that it has not learned from.

    These are the rest of the training split, if any, and, last, the validation split; no test
    image.
    """
    run = runs.get(run)

    def make() -> dict[str, np.ndarray]:
        model, _ = checkpoints.load_or_train(run)
        whole, learnt = data.load(run.data, "train"), training_split(run)
        rest = whole.take(np.flatnonzero(~np.isin(whole.indices, learnt.indices)))
        parts = [part for part in (rest, data.load(run.data, "validation")) if len(part)]
        wrong = [predict_logits(model, p.images).argmax(1).cpu() != p.labels for p in parts]
        return {"wrong": torch.cat(wrong).numpy()}

    ingredients = [predictions.depends_on(run, run.data, part) for part in ("train", "validation")]
    return predictions.cached_arrays(f"results/unseen-{run.id}", ingredients, make)["wrong"]


def against(wrong: np.ndarray, reference: np.ndarray) -> dict[str, int | float | str]:
    """Two networks on the same images: the errors of one held against those of the other.

    Args:
        wrong, reference: bool (N,), whether each is wrong.

    Returns ``wrong``, the count; ``more`` than the reference's; ``noise``, the standard error of
    that: only images that one alone misreads tell anything, and their difference has the variance
    of their number (McNemar 1947); ``verdict``: ``better``, ``equal`` or ``worse`` than the
    reference, beyond two standard errors.
    """
    more = int(wrong.sum()) - int(reference.sum())
    noise = float(np.sqrt((wrong != reference).sum()))
    verdict = "equal" if abs(more) <= 2 * noise else "worse" if more > 0 else "better"
    return {"wrong": int(wrong.sum()), "more": more, "noise": noise, "verdict": verdict}


def contest(name: str) -> pd.DataFrame:
    """The second round of experiments on a data set, fewest errors first.

    Columns: ``setting``; ``held_out`` images not learned from, and on them what `against` gives,
    the starting point being the reference; ``wrong_validation``, the errors on validation alone;
    ``seconds`` of training; ``start``, whether it is the starting point.
    """
    validation = runs.manifest(name)["split"]["validation"]["images"]
    tried = [(change, runs.get(runs.contender(name, change).id)) for change in runs.CONTENDERS]
    reference = unseen_errors(tried[0][1])
    rows = []
    for change, run in tried:
        wrong = unseen_errors(run)
        rows.append(
            {
                "setting": contender_label(change),
                "held_out": len(wrong),
                **against(wrong, reference),
                "wrong_validation": int(wrong[-validation:].sum()),
                "seconds": checkpoints.record(run)["seconds"],
                "start": not change,
            }
        )
    return pd.DataFrame(rows).sort_values("wrong", ignore_index=True)


def long_runs(name: str) -> pd.DataFrame:
    """The runs of 50 epochs on a data set: the second round's starting point, and the chosen one.

    Columns: ``run``; ``batch_size``, ``activation``; accuracy after the last epoch on
    ``validation`` and ``test``, in [0, 1]; and what `against` gives on the validation split, the
    starting point being the reference.
    """
    start, chosen = (runs.get(run[name].id) for run in (runs.REVISED, runs.MAIN))
    reference = unseen_errors(start)
    return pd.DataFrame(
        {
            "run": run.id,
            "batch_size": run.batch_size,
            "activation": LABELS[run.activation],
            **{split: last_epoch(run.id).loc[split, "accuracy"] for split in run.held_out},
            **against(unseen_errors(run), reference),
        }
        for run in (start, chosen)
    )


def seed_noise(name: str) -> float:
    """Standard deviation of the final validation accuracy between seeds, pooled over settings.

    The median over settings of the per-setting estimate, so that a run that diverged does not
    count: for two values a and b the estimate is |a - b| / sqrt(2).
    """
    everything = pd.concat([experiment(group) for group in runs.EXPERIMENTS]).drop_duplicates(
        ["setting", "data", "seed"]
    )
    spread = everything[everything["data"] == name].groupby("setting")["accuracy"].std()
    # The median of |normal| is 0.674 of its standard deviation.
    return float(spread.median() / 0.6745)


def experiment_summary(group: str) -> pd.DataFrame:
    """Mean validation accuracy over the seeds by setting (rows, in order) and data set."""
    runs_table = experiment(group)
    means = runs_table.pivot_table(
        index="setting", columns="data", values="accuracy", aggfunc="mean", sort=False
    )
    seconds = runs_table.pivot_table(
        index="setting", columns="data", values="seconds", aggfunc="mean", sort=False
    )
    start = runs_table.groupby("setting")["start"].any()
    return means.assign(**{f"seconds {n}": seconds[n] for n in means}, start=start)


def verdicts() -> pd.DataFrame:
    """For each group and data set: the starting point's setting against its best alternative.

    ``difference`` is ``start`` minus ``alternative`` in [−1, 1]; ``noise`` is the standard error of
    such a difference between two means over the seeds; ``verdict`` is ``better``, ``equal`` or
    ``worse`` where the difference exceeds two standard errors.
    """
    rows = []
    for name in runs.MAIN:
        error = seed_noise(name) * np.sqrt(2 / len(runs.EXPERIMENT_SEEDS))
        for group in runs.EXPERIMENTS:
            summary = experiment_summary(group)
            start = summary.loc[summary["start"], name]
            others = summary.loc[~summary["start"], name]
            difference = start.iloc[0] - others.max()
            verdict = (
                "equal"
                if abs(difference) <= 2 * error
                else ("better" if difference > 0 else "worse")
            )
            rows.append((group, name, start.index[0], others.idxmax(), difference, error, verdict))
    columns = ["group", "data", "start", "alternative", "difference", "noise", "verdict"]
    return pd.DataFrame(rows, columns=columns)
