"""Chapter 2: the main runs epoch by epoch, and what the experiments found.

Works on metrics files, without weights or images. The experiments are judged on the validation
split; none of their runs is evaluated on the test split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
from IPython.display import Markdown

from .. import files, observe, results, runs, stats
from ..sources import TITLES
from .values import MISSING, Average, Count, Number, Points, Share, Spread, Text, listed

# The main runs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Final:
    """A split after the last epoch.

    Attributes:
        accuracy: over all trainings.
        first: of the first training (seed 42), with its macro `precision` and `recall` and its
            `loss`, the cross-entropy in nats.
    """

    accuracy: Spread
    first: Share
    precision: Average
    recall: Average
    loss: Number


@dataclass(frozen=True)
class Model:
    """A data set's main configuration, trained with several seeds.

    Attributes:
        train, validation, test: see `Final`; training values are running averages over the
            augmented images of the last epoch.
        averaged: steps that the moving average of the weights reaches back, roughly.
        late: accuracy on validation gained after the tenth epoch, in points; `short`: that by
            which the last epoch falls short of the best.
        lowest: the lowest validation loss in nats, that of epoch `lowest_at`.
        floor: cross-entropy in nats of who does exactly what label smoothing asks for.
    """

    title: str
    parameters: Count
    epochs: Count
    averaged: Count
    late: Points
    short: Points
    lowest: Number
    lowest_at: Count
    floor: Number
    train: Final
    validation: Final
    test: Final


def model(name: str) -> Model:
    """The main runs of a data set."""
    run = runs.get(name)
    every = [{s: t.iloc[-1] for s, t in kept.items()} for kept in curves(name).values()]
    sizes = {split: part["images"] for split, part in runs.split_sizes(name).items()}
    final = {}
    for split, last in every[0].items():
        accuracy, *scores = (last[key] for key in ("accuracy", "precision", "recall"))
        final[split] = Final(
            Spread(seed[split]["accuracy"] for seed in every),
            Share(round(accuracy * sizes[split]), sizes[split]),
            *(Average((score, math.nan, math.nan)) for score in scores),
            Number(last["loss"], 3),
        )
    # What this report prints of them: `check` holds later trainings against it.
    observe.note("trainings", [name, list(final["test"].accuracy.values)])
    held_out = results.history(name)["validation"]
    late = held_out["accuracy"].iloc[-1] - held_out["accuracy"].iloc[:10].iloc[-1]
    short = held_out["accuracy"].max() - held_out["accuracy"].iloc[-1]
    lowest = held_out.loc[held_out["loss"].idxmin()]
    return Model(
        TITLES[name], Count(results.record(name)["parameters"]), Count(run.epochs),
        Count(round(1 / (1 - run.ema_decay))),
        *(Points((value, math.nan, math.nan)) for value in (late, short)),
        Number(lowest["loss"], 3), Count(lowest["epoch"]),
        Number(-math.log(1 - 0.9 * run.label_smoothing), 3), **final,
    )  # fmt: skip


def curves(name: str) -> dict[str, dict[str, pd.DataFrame]]:
    """The metrics of every epoch (`results.history`) of a data set's trainings, by run."""
    return {run: results.history(run) for run in runs.trainings(name)}


def summary() -> pd.DataFrame:
    """The metrics after the last epoch, a row a data set and split, as shown."""
    rows = [
        (
            f"{found.title}, {'training' if split == 'train' else split}",
            final.accuracy, final.first if split == "train" else final.first.at(2),
            final.precision, final.recall, final.loss,
        )
        for found in map(model, TITLES)
        for split in runs.SPLITS
        for final in [getattr(found, split)]
    ]  # fmt: skip
    columns = ["split", "accuracy, all seeds", "accuracy, seed 42", "precision", "recall", "loss"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def all_epochs(name: str) -> pd.DataFrame:
    """Every epoch of a data set's first training (index), in per cent, to be shown with two digits.

    Accuracy on training, and accuracy, macro precision and recall on validation and test.
    """
    kept = results.history(name)
    columns = {"training accuracy": kept["train"]["accuracy"]}
    for split in ("validation", "test"):
        columns |= {f"{split} {m}": kept[split][m] for m in ("accuracy", "precision", "recall")}
    return (100 * pd.DataFrame(columns)).set_index(kept["train"]["epoch"])


def metrics_files() -> Markdown:
    """The first trainings' text files as links from a chapter; none in the quick profile."""
    lines = []
    for name, title in TITLES.items():
        paths = {s: files.shown(runs.metrics_path(runs.get(name), s)) for s in runs.SPLITS}
        links = listed(f"[{split}.txt](../{path})" for split, path in paths.items())
        lines.append(f"- {title}: {'not in quick' if files.profile() == 'quick' else links}")
    return Markdown("\n".join(lines))


# Experiments --------------------------------------------------------------------------------------

FAILED = 0.5  # a run that reads fewer than half of the validation images has not trained
GROUPS = {"optimizer": "optimiser, rate", "batch-size": "batch size"}  # others as they are named
NORMALISATION = "normalisation"
NAMES = {
    "sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop", "leaky-relu": "leaky ReLU",
    "gelu": "GELU", "no-shortcuts": "no shortcuts", "global-average": "global average",
    "no-average": "no weight averaging", "no-smoothing": "no label smoothing",
    "cosine": "cosine, no rise", "constant": "constant rate",
    "no-augmentation": "no augmentation", "no-batch-norm": "no batch norm at",
    "resolutions": "16, 24, 32 pixels", "width": "width ×",
}  # fmt: skip


def families() -> dict[str, list[str]]:
    """The settings of `runs.EXPERIMENTS` whose seeds' spread is pooled, by name.

    Those of an experiment, but batch normalisation is one of its own: without it seeds scatter so
    much more widely that the spread of the other architectures would not be seen.
    """
    found: dict[str, list[str]] = {}
    for group, members in runs.EXPERIMENTS.items():
        for setting in members:
            name = NORMALISATION if setting.startswith("no-batch-norm") else group
            found.setdefault(name, []).append(setting)
    return found


def label(setting: str) -> str:
    """How the report calls a setting of `runs.EXPERIMENTS`."""
    kind, _, value = setting.rpartition("-")
    if setting in NAMES or not value.replace(".", "").isdigit():
        return NAMES.get(setting, setting)
    return f"{NAMES.get(kind, kind)} {value}"


@dataclass(frozen=True)
class Setting:
    """A setting of an experiment on a data set, judged on the validation split.

    Attributes:
        group: of `families`; empty for the recipe.
        accuracy: of all seeds, also of those that did not train.
        failed: number of seeds that did not train (`FAILED`, or the loss left the numbers).
        difference: accuracy less the recipe's, in points, with the interval and p of
            `stats.pooled_differences`; nan
            where a seed of either failed.
        beyond: whether that is beyond chance.
    """

    group: str
    label: str
    accuracy: Spread
    failed: Count
    difference: Points
    beyond: bool

    @property
    def change(self) -> Text:
        """The difference with its interval, or how many seeds failed."""
        if self.failed:
            return Text(f"{self.failed} of {self.accuracy.count} failed")
        unknown = math.isnan(self.difference)  # where a seed of the recipe failed
        return Text(MISSING) if unknown else self.difference.signed_full


@dataclass(frozen=True)
class Tried:
    """All settings on a data set, against the recipe.

    Attributes:
        settings: by name; first the recipe.
        images, epochs: of each training.
        compared: number of settings beside the recipe; `above`: labels of those that are better
            beyond chance.
        edges: labels of the best of each grid that lie at an edge of it.
    """

    settings: dict[str, Setting]
    images: Count
    epochs: Count
    compared: Count
    above: Text
    edges: Text

    @property
    def recipe(self) -> Setting:
        """The recipe itself."""
        return self.settings["recipe"]

    def best(self, kind: str) -> Setting:
        """Of the settings of a kind, such as ``adam``, the one with the highest mean."""
        found = [one for name, one in self.settings.items() if name.startswith(f"{kind}-")]
        return max(found, key=lambda one: one.accuracy)


def _accuracies(name: str, setting: str) -> tuple[list[float], int]:
    """Validation accuracy of each seed after the last epoch, and how many did not train."""
    wanted = runs.experiment(name, setting).name
    trained = [run for run in runs.registry().values() if run.name == wanted]
    values = [float(results.history(run)["validation"]["accuracy"].iloc[-1]) for run in trained]
    lost = [results.record(run)["diverged"] is not None for run in trained]
    return values, sum(value < FAILED or gone for value, gone in zip(values, lost, strict=True))


def tried(name: str) -> Tried:
    """Every setting of `runs.EXPERIMENTS` on a data set."""
    recipe, lost = _accuracies(name, "recipe")
    nothing, unknown = Points((0, math.nan, math.nan)), [math.nan] * 4
    settings = {"recipe": Setting("", "recipe", Spread(recipe), Count(lost), nothing, False)}
    for group, members in families().items():
        found = {setting: _accuracies(name, setting) for setting in members}
        whole = {setting: values for setting, (values, failed) in found.items() if not failed}
        against = {} if lost else stats.pooled_differences(whole, recipe)
        for setting, (values, failed) in found.items():
            effect = Points(against.get(setting, unknown))
            settings[setting] = Setting(
                group, label(setting), Spread(values), Count(failed), effect,
                bool(effect.p < stats.CHANCE),
            )  # fmt: skip
    rivals = [one for one in settings.values() if one.group]
    above = [one.label for one in rivals if one.beyond and one.difference > 0]
    run = runs.get(runs.experiment(name).id)
    return Tried(
        settings, Count(run.train_size), Count(run.epochs),
        Count(len(rivals)), listed(above), listed(edges(settings)),
    )  # fmt: skip


def edges(settings: dict[str, Setting]) -> Iterable[str]:
    """Labels of the best of each grid that is the smallest or the largest number of it.

    The recipe is part of the grids of SGD's rate and of the batch size.
    """
    chosen = runs.RECIPE["svhn"]
    grids = {"sgd": [(chosen.learning_rate, "recipe")], "batch": [(chosen.batch_size, "recipe")]}
    for setting in settings:
        kind, _, value = setting.rpartition("-")
        if kind and value.replace(".", "").isdigit():
            grids.setdefault(kind, []).append((float(value), setting))
    for grid in grids.values():
        order = [setting for _, setting in sorted(grid)]
        best = max(order, key=lambda setting: settings[setting].accuracy)
        if len(order) > 2 and best in (order[0], order[-1]):
            yield label(best)


def table() -> pd.DataFrame:
    """All settings against the recipe, a column a data set, as shown."""
    found = {title: tried(name) for name, title in TITLES.items()}
    rows = [("", "recipe", *(each.recipe.accuracy for each in found.values()))]
    for group, members in families().items():
        for number, setting in enumerate(members):
            kind = GROUPS.get(group, group) if not number else ""
            cells = [each.settings[setting] for each in found.values()]
            shown = (Text(one.change + (r"\*" if one.beyond else "")) for one in cells)
            rows.append((kind, label(setting), *shown))
    return pd.DataFrame(rows, columns=["experiment", "setting", *found])
