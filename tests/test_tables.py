"""Tables of chapter 2: experiments against the recipe, the official division, the gap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from finished import finish

from digitcnn import checkpoints, data, division, files, results, runs
from digitcnn.files import DigitcnnError
from digitcnn.report import experiments


@pytest.fixture
def measured(monkeypatch):
    """Every run of the registry with a validation accuracy by its setting and seed."""
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)

    def history(run):
        setting = run.name.split("-exp-")[1]
        accuracy = 0.9 + 0.001 * run.seed + {"gelu": 0.05, "tanh": -0.2}.get(setting, 0.0)
        noise = np.random.default_rng([len(setting), run.seed]).normal(0, 0.001)
        accuracy += noise if setting != "recipe" else 0
        return {"validation": pd.DataFrame({"accuracy": [0.1, accuracy]})}

    monkeypatch.setattr(results, "history", history)
    monkeypatch.setattr(results, "record", lambda run: {"seconds_per_epoch": 1.0})


def test_an_experiment_holds_the_recipe_first_and_every_seed(measured):
    for group, settings in runs.EXPERIMENTS.items():
        table = experiments.experiment(group)
        assert len(table) == 2 * 3 * (1 + len(settings))
        assert table["recipe"].tolist() == [True] * 6 + [False] * 6 * len(settings)
        assert table["setting"].nunique() == 1 + len(settings)
    with pytest.raises(DigitcnnError, match="no experiment 'colour'"):
        experiments.experiment("colour")


def test_settings_are_compared_with_the_recipe_seed_by_seed(measured):
    table = experiments.experiment_effects()
    assert len(table) == 2 * sum(map(len, runs.EXPERIMENTS.values()))
    rows = table.set_index(["data", "setting"])
    assert rows.index.is_unique
    for name in runs.DATA:
        assert rows.loc[(name, "GELU"), "value"] == pytest.approx(0.05, abs=0.003)
        assert rows.loc[(name, "tanh"), "value"] == pytest.approx(-0.2, abs=0.003)
        # The seeds' own differences cancel, so these two are clear; of the others, few are.
        assert rows.loc[(name, "tanh"), "beyond"]
        others = rows.loc[name].drop(["GELU", "tanh"])
        assert (others["value"].abs() < 0.005).all() and not others["beyond"].any()


def test_a_new_group_of_experiments_needs_nothing_but_its_entry(measured, monkeypatch):
    monkeypatch.setitem(runs.EXPERIMENTS, "size", {"width-2": {"width": 2.0}})
    monkeypatch.setattr(runs, "_registry", runs._registry.__wrapped__)
    table = experiments.experiment("size")
    assert list(table["setting"].unique()) == ["recipe", "width × 2"] and len(table) == 2 * 2 * 3
    effects = experiments.experiment_effects()
    assert effects["setting"].eq("width × 2").sum() == 2


def test_every_setting_has_a_name_of_its_own():
    names = [experiments.label(setting) for group in runs.EXPERIMENTS.values() for setting in group]
    names += [
        experiments.recipe_label(group) for group in ("optimizer", "batch-size", "activation")
    ]
    assert len(names) == len(set(names))
    assert {"SGD 0.2", "RMSprop 0.001", "batch 64", "no batch norm, rate 0.0125"} <= set(names)
    assert {"leaky ReLU", "no weight averaging", "dropout 0.3", "width × 0.5"} <= set(names)
    assert set(experiments.GROUP_TITLES) == set(runs.EXPERIMENTS)


def test_the_gap_is_between_clean_training_images_and_test(sandbox, monkeypatch):
    finish("mnist")
    found = experiments.generalisation_gap("mnist")
    model, part = checkpoints.load_model("mnist"), data.load("mnist", "train")
    said = experiments.predict_logits(model, part.images).argmax(1)
    assert found["train"] == pytest.approx((said == part.labels).double().mean().item())
    assert found["gap"] == pytest.approx(found["train"] - found["test"])
    assert files.cache_path("results", "train-mnist.npz").is_file()
    monkeypatch.setattr(experiments, "predict_logits", None)  # from here on, only what was kept
    assert experiments.generalisation_gap("mnist") == found


def test_official_results_are_on_the_official_test_set(sandbox):
    for name in runs.DATA:
        finish(runs.official(name).id)
    table = experiments.official_results().set_index(["data", "split"])
    for name in runs.DATA:
        row = table.loc[(name, "test")]
        assert row["images"] == division.labels(name).official_test.sum()
        assert row["accuracy"] == pytest.approx(1 - row["wrong"] / row["images"])
        assert row["low"] <= row["accuracy"] <= row["high"]


def test_the_configuration_is_the_recipe():
    table = dict(experiments.configuration().to_numpy())
    assert table["activation"] == "ReLU" and table["learning rate"].startswith("one cycle, peak")
    assert ("augmentation, SVHN" in table) and ("augmentation, MNIST" in table)
