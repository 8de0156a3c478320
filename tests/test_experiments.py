"""Chapter 2: the network as shown, the main figures, experiments against the recipe."""

from __future__ import annotations

import ast
import inspect
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from finished import finish

from digitcnn import checkpoints, data, division, files, model, results, runs
from digitcnn.report import experiments, experiments_figures, network, official, origin_errors
from digitcnn.training import build_model

EFFECTS = {"gelu": 0.05, "tanh": -0.2}


@pytest.fixture
def measured(monkeypatch):
    """Every run of the registry with a validation accuracy by its setting and seed, to change."""
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)
    special = {}

    def history(run):
        setting = run.name.split("-exp-")[1]
        noise = np.random.default_rng([*setting.encode(), run.seed]).normal(0, 0.001)
        accuracy = 0.9 + EFFECTS.get(setting, 0.0) + noise
        return {"validation": pd.DataFrame({"accuracy": [special.get(run.id, accuracy)]})}

    monkeypatch.setattr(results, "history", history)
    monkeypatch.setattr(results, "record", lambda run: {"diverged": special.get((run.id, "lost"))})
    return special


# The network


def test_the_code_shown_is_the_modules_without_docstrings():
    shown = network.code("model: ConvBlock Residual DigitCNN").data
    text = shown.removeprefix("```python\n").removesuffix("\n```")
    assert '"""' not in text

    def bare(source):
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body = node.body[1:]
        return ast.dump(tree)

    parts = [inspect.getsource(getattr(model, n)) for n in ("ConvBlock", "Residual", "DigitCNN")]
    assert ast.dump(ast.parse(text)) == bare("\n".join(parts))


def test_the_stages_are_those_of_the_network(sandbox):
    stages = network.stages()
    whole = build_model(runs.RECIPE["svhn"])
    assert sum(stage.parameters for stage in stages) == sum(p.numel() for p in whole.parameters())
    assert [stage.shape for stage in stages][-3:] == [(128, 4, 4), (128,), (10,)]
    layers = [layer for stage in stages for layer in stage.layers]
    assert layers.count("conv 3 × 3") == 8 and layers.count("max-pool") == 3
    assert layers.count("batch norm") == layers.count("ReLU") == 9 and layers[-1] == "softmax"
    drawn = {text.get_text() for text in experiments_figures.architecture(stages).axes[0].texts}
    assert {"residual 2", "48 × 16 × 16", "262,400", "flatten"} <= drawn
    plt.close("all")


def test_the_pilots_are_those_that_the_recipe_names():
    comment = inspect.getsource(runs).split("# The recipe of every run")[1].split("RECIPE =")[0]
    for name in ("gelu", "gelu_long", "gelu_long_mnist"):
        pilot = getattr(network.PILOTS, name)
        assert f"{pilot.errors} against {pilot.other}" in comment
    assert "430 and 452 errors of 9,929 against 419 and 407" in comment
    assert network.PILOTS.resolutions[:2] == (430 + 452, 419 + 407)


# The main runs


def test_the_main_figures_are_those_of_the_last_epoch(sandbox):
    for run in ("mnist", "mnist-s43", "svhn"):
        finish(run)
    found, last = experiments.model("mnist"), results.history("mnist")["test"].iloc[-1]
    assert found.test.accuracy.count == 2 and found.epochs == 12
    assert found.test.first.hits == round(last["accuracy"] * found.test.first.total)
    assert found.test.first.total == len(division.split_indices("mnist")["test"])
    assert found.floor == pytest.approx(-math.log(0.91), abs=1e-3)
    assert len(experiments.summary()) == 6
    table = experiments.all_epochs("mnist")
    assert list(table.index) == list(range(1, 13)) and table.shape[1] == 7
    kept = results.history("mnist")["validation"]["recall"].to_numpy()
    assert table["validation recall"].to_numpy() == pytest.approx(100 * kept)
    drawn = experiments_figures.curves({n: experiments.curves(n) for n in runs.DATA}, found.floor)
    lines = [len(axis.lines) for axis in drawn.axes]  # two trainings of MNIST, one of SVHN
    assert lines == [6, 3, 7, 4, 4, 4]
    plt.close("all")


def test_draw_origin_kin_and_the_official_division_add_up(sandbox):
    for run in ("mnist", "svhn", "mnist-official", "svhn-official"):
        finish(run)
    for name in runs.DATA:
        drawn, by = origin_errors.draw(name), origin_errors.origin(name)
        final = experiments.model(name)
        assert drawn.validation.total == final.validation.first.total
        assert drawn.difference == pytest.approx(drawn.test - drawn.validation)
        parts = division.split_indices(name)["test"]
        share = division.labels(name).official_test[parts].mean()
        mixed = share * by.official_test + (1 - share) * by.official_train
        assert mixed == pytest.approx(1 - drawn.test)
        assert by.gap == pytest.approx(by.official_test - by.official_train)
        own = official.official(name)
        assert own.test.total == division.labels(name).official_test.sum()
        assert own.gain.low <= own.gain <= own.gain.high
    assert origin_errors.writers().share == 1
    assert origin_errors.siblings().share < 0.1  # toy crops come from no photographs
    assert official.table()["data set"].tolist() == ["MNIST", "", "", "SVHN", "", "", ""]


# Experiments


def test_settings_are_compared_with_the_recipe(measured):
    for name in runs.DATA:
        found = experiments.tried(name)
        assert len(found.settings) == 1 + sum(map(len, runs.EXPERIMENTS.values()))
        assert found.settings["gelu"].difference == pytest.approx(0.05, abs=0.003)
        assert found.settings["tanh"].difference == pytest.approx(-0.2, abs=0.003)
        assert found.above == "GELU" and found.compared == len(found.settings) - 1
        assert found.recipe.accuracy.count == 3 and not found.recipe.beyond


def test_seeds_that_failed_are_counted_apart(measured):
    before = experiments.tried("svhn")
    measured["svhn-exp-sgd-0.2-s43"] = 0.19
    measured[("svhn-exp-adam-0.002", "lost")] = 2
    after = experiments.tried("svhn")
    assert [one.label for one in after.settings.values() if one.failed] == ["SGD 0.2", "Adam 0.002"]
    broken = after.settings["sgd-0.2"]
    assert broken.failed == 1 and broken.change == "1 of 3 failed" and not broken.beyond
    assert math.isnan(broken.difference) and min(broken.accuracy.values) == 0.19
    # Their spread enters no other setting's interval.
    one, other = (found.settings["rmsprop-0.001"].difference for found in (before, after))
    assert other.high - other.low < 1.5 * (one.high - one.low)
    measured["svhn-exp-recipe"] = 0.19
    assert experiments.tried("svhn").settings["gelu"].change == "–"


def test_the_best_of_a_grid_at_its_edge_is_named(measured):
    measured.update({f"mnist-exp-adam-0.008{seed}": 0.97 for seed in ("", "-s43", "-s44")})
    measured.update({f"mnist-exp-rmsprop-0.001{seed}": 0.96 for seed in ("", "-s43", "-s44")})
    found = experiments.tried("mnist")
    assert "Adam 0.008" in found.edges and "RMSprop" not in found.edges
    assert found.best("adam").label == "Adam 0.008"
    assert "GELU" not in found.edges and "dropout" not in found.edges  # no grids


def test_every_setting_has_a_name_of_its_own(measured):
    table = experiments.table()
    assert table["setting"].is_unique and len(table) == len(experiments.tried("mnist").settings)
    names = {"SGD 0.2", "batch 32", "no batch norm at 0.0125", "leaky ReLU", "width × 0.5"}
    assert names <= set(table["setting"])
    assert table.set_index("setting").loc["tanh", "SVHN"].endswith(r"\*")


def test_a_new_group_of_experiments_needs_nothing_but_its_entry(measured, monkeypatch):
    monkeypatch.setitem(runs.EXPERIMENTS, "size", {"width-2": {"width": 2.0}})
    monkeypatch.setattr(runs, "_registry", runs._registry.__wrapped__)
    assert experiments.table()["setting"].iloc[-1] == "width × 2"
    assert experiments.tried("svhn").settings["width-2"].accuracy.count == 3


def test_every_seed_is_drawn_also_those_that_failed(measured):
    measured["svhn-exp-sgd-0.2-s43"] = 0.19
    found = {name: experiments.tried(name) for name in runs.DATA}
    axes = experiments_figures.experiments(found).axes
    for column, tried in enumerate(found.values()):
        lines = [line for axis in axes[column::2] for line in axis.lines]
        marks = [(line.get_marker(), len(line.get_xdata())) for line in lines]
        count = {kind: sum(size for mark, size in marks if mark == kind) for kind in ("o", "x")}
        failed = sum(one.failed for one in tried.settings.values())
        assert count == {"o": 3 * len(tried.settings) - failed, "x": failed}
    assert failed == 1
    measured.update({run: 0.1 for run in runs.registry()})  # as in the quick profile
    found = {name: experiments.tried(name) for name in runs.DATA}
    experiments_figures.experiments(found).canvas.draw()
    plt.close("all")


def test_no_experiment_sees_the_test_split(sandbox, monkeypatch):
    seen, select = [], data.select
    monkeypatch.setattr(
        data, "select", lambda source, at: seen.append(np.asarray(at)) or select(source, at)
    )
    checkpoints.train(runs.experiment("mnist").id)
    parts = division.split_indices("mnist")
    looked = np.unique(np.concatenate(seen))
    assert np.isin(looked, parts["validation"]).any() and np.isin(looked, parts["train"]).any()
    assert not np.isin(looked, parts["test"]).any()
    for run in runs.registry().values():
        if run.group == "experiments":
            assert run.held_out == ("validation",)
            assert runs.kept_answers(run) == [(run.data, "validation")]


def test_published_figures_have_their_source():
    keys = re.findall(r"@\w+\{(\w+),", (files.project_root() / "references.bib").read_text("utf-8"))
    for published in official.PUBLISHED.values():
        for one in published:
            assert one.source in keys and 90 < float(one.accuracy) < 100
