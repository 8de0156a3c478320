"""Runs: what a key depends on, the registry and the grid, names, staleness."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from conftest import one_sentence
from crashes import tiny_run

from digitcnn import data, division, files, runs, status
from digitcnn.files import DigitcnnError

ROOT = Path(__file__).resolve().parent.parent
CHANGES = {
    "data": "svhn", "split": "official", "epochs": 51, "steps": 500, "seed": 7,
    "resolutions": ((16, 0.5), (32, 0.5)), "optimizer": "adam", "schedule": "cosine",
    "learning_rate": 0.21, "weight_decay": 5.1e-4, "batch_size": 255, "label_smoothing": 0.0,
    "ema_decay": 0.999, "activation": "gelu", "batch_norm": False, "shortcuts": False,
    "map_side": 1, "dropout": 0.1, "width": 0.5, "augmentation": ("affine",),
    "held_out": ("validation",), "evaluate_every_epoch": False, "train_size": 100,
    "class_counts": ((1, 5), (2, None)), "class_weights": True, "oversample": True,
}  # fmt: skip


def write_manifest(name: str, digest: str = "d", **indices: str) -> None:
    divisions = {
        division: {
            part: {
                "images": 3, "class_counts": [3],
                "indices_sha256": indices.get(part, f"{division} {part}"),
            }
            for part in data.SPLITS
        }
        for division in division.DIVISIONS
    }  # fmt: skip
    about = {"name": name, "copy": "a copy", "digest": digest, "images": 9, "divisions": divisions}
    files.write_json(files.cache_path("data", f"{name}.json"), about)


@pytest.fixture
def root(sandbox, monkeypatch):
    """A full-profile tree in which both data sets have been read."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    for name in runs.MAIN:
        write_manifest(name)
    return sandbox


@pytest.fixture
def full(monkeypatch):
    """The full profile of this project."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_ROOT", str(ROOT))
    return list(runs.registry().values())


# Keys


def test_every_field_but_name_and_group_is_part_of_the_key(root):
    run = runs.MAIN["mnist"]
    fields = {field.name for field in dataclasses.fields(run)}
    assert set(CHANGES) | set(runs.NOT_KEYED) == fields and runs.NOT_KEYED == ("name", "group")
    keys = {runs.key(run)}
    for field, value in CHANGES.items():
        assert value != getattr(run, field), field
        keys.add(runs.key(dataclasses.replace(run, **{field: value})))
    assert len(keys) == 1 + len(CHANGES)
    assert runs.key(dataclasses.replace(run, name="another", group="transfer")) == runs.key(run)


def test_the_configuration_counts_each_of_todays_fields(root):
    """Only a field that is added later has a neutral value, at which it is left out."""
    fields = dataclasses.fields(runs.RunConfig)
    todays = {f.name for f in fields if "neutral" not in f.metadata} - {"name", "group"}
    assert len(todays) == 26
    for run in runs.registry().values():
        kept = runs.configuration(run)
        assert kept.keys() >= todays
        assert all(kept[name] == getattr(run, name) for name in kept)


def test_a_key_depends_on_data_and_split(root):
    run = runs.MAIN["mnist"]
    first = runs.key(run)
    write_manifest("svhn", digest="other")
    assert runs.key(run) == first
    write_manifest("mnist", digest="other")
    second = runs.key(run)
    write_manifest("mnist")
    assert runs.key(run) == first
    keys = {first, second}
    for part in data.SPLITS:
        write_manifest("mnist", **{part: "moved"})
        keys.add(runs.key(run))
    assert len(keys) == 5


@pytest.mark.parametrize("held_out", [(), ("validation",), ("validation", "test")])
def test_of_the_division_the_parts_that_are_used_count_alone(root, held_out):
    run = dataclasses.replace(runs.MAIN["mnist"], held_out=held_out)
    first = runs.key(run)
    for part in data.SPLITS:
        write_manifest("mnist", **{part: "moved"})
        assert (runs.key(run) != first) == (part in ("train", *held_out)), part
    # Of the two divisions, the one that the run is on.
    write_manifest("mnist")
    path = files.cache_path("data", "mnist.json")
    manifest = files.read_json(path)
    manifest["divisions"]["official"]["train"]["indices_sha256"] = "moved"
    files.write_json(path, manifest)
    assert runs.key(run) == first
    assert (
        runs.ingredients(dataclasses.replace(run, split="official"))["split"]
        != (runs.ingredients(run)["split"])
    )


def test_a_key_depends_on_the_code(root, monkeypatch):
    first = runs.key(runs.MAIN["mnist"])
    monkeypatch.setattr(runs, "code", lambda run: {"learn": "other"})
    assert runs.key(runs.MAIN["mnist"]) != first
    assert len(first) == 16 and int(first, 16) >= 0


# Of the runs that the grid has begun with: an edit of what decides would lose days. A change that
# is meant has to be accepted on evidence; then these are entered anew.
KEYS = {
    "mnist": "865a007b13947016",
    "svhn": "171a13c992c7bcec",
    "mnist-s43": "70832c5c23ee7e31",
    "svhn-official": "89168fa37cab9593",
    "mnist-case1": "c15056e4362614b8",
    "svhn-balanced-s45": "74a7929b7df6fae6",
    "mnist-exp-recipe": "aee415ab7162b62b",
    "svhn-exp-resolutions-s44": "58c3550162d6d0b2",
    "svhn-exp-adam-0.002": "d902136bfedf576c",
    "mnist-transfer-all": "7d73371cba1003e3",
}


def test_the_keys_of_the_grid_are_those_it_was_begun_with(full):
    assert {name: runs.key(runs.get(name)) for name in KEYS} == KEYS
    assert len({runs.key(run) for run in full}) == len(full)


def test_quick_and_full_keys_differ(root, monkeypatch):
    """Even were their data the same."""
    keys = {}
    for profile in files.PROFILES:
        monkeypatch.setenv("DIGITCNN_PROFILE", profile)
        for name in runs.MAIN:
            write_manifest(name)
        keys[profile] = {runs.key(run) for run in runs.registry().values()}
    assert not keys["quick"] & keys["full"]


# Registry


@pytest.mark.parametrize("profile", files.PROFILES)
def test_ids_are_unique_and_safe_in_paths(monkeypatch, profile):
    monkeypatch.setenv("DIGITCNN_PROFILE", profile)
    registry = runs.registry()
    assert len({run.model_file for run in registry.values()}) == len(registry)
    if profile == "full":  # in the quick one, some numbers fall together
        alike = {dataclasses.replace(r, name="", group="") for r in registry.values()}
        assert len(alike) == len(registry) == len(runs.grid())
    for name, run in registry.items():
        assert files.checked_name(name, "run name") == run.id == name
        assert re.fullmatch(r"digitcnn-[a-z0-9.-]+\.safetensors", run.model_file)
        paths = [runs.weights_path(run), runs.record_path(run), runs.checkpoint_path(run)]
        paths += [runs.metrics_path(run, split) for split in ("train", *run.held_out)]
        paths += [runs.answers_path(run)]
        assert len(set(paths)) == len(paths)
        assert all(path.is_relative_to(files.project_root()) for path in paths)


def of(group: str) -> list[runs.RunConfig]:
    return [run for run in runs._registry("full").values() if run.group == group]


def test_the_main_runs_are_what_the_report_says(full):
    assert [run.id for run in of("main")] == [
        "mnist", "svhn", "mnist-s43", "svhn-s43", "mnist-s44", "svhn-s44"
    ]  # fmt: skip
    assert [run.model_file for run in runs.MAIN.values()] == [
        "digitcnn-mnist-e50-s42.safetensors", "digitcnn-svhn-e50-s42.safetensors"
    ]  # fmt: skip
    for run in of("main"):
        recipe = runs.RECIPE[run.data]
        assert dataclasses.replace(run, seed=42) == recipe
        assert run.epochs == 50 and run.held_out == ("validation", "test")
        assert run.train_size is run.class_counts is run.steps is None
        assert run.split == "pooled" and run.resolutions == ((32, 1.0),)
        assert run.activation == "relu" and run.batch_norm and run.shortcuts and run.width == 1
        assert (run.batch_size, run.learning_rate, run.optimizer) == (64, 0.05, "sgd")


def test_official_runs_are_the_recipe_on_the_official_division(full):
    assert [run.id for run in of("official")] == ["mnist-official", "svhn-official"]
    for run in of("official"):
        changed = {"name", "group", "split", "held_out"}
        assert difference(run, runs.RECIPE[run.data]) == changed
        assert run.split == "official" and run.held_out == ("validation",)  # test: at the end, once


def difference(run: runs.RunConfig, other: runs.RunConfig) -> set[str]:
    """The fields in which two configurations differ."""
    return {f.name for f in dataclasses.fields(run)
            if getattr(run, f.name) != getattr(other, f.name)}  # fmt: skip


def test_question_e_has_its_cases_and_controls(full):
    found: dict[str, list[runs.RunConfig]] = {}
    for run in of("imbalance"):
        found.setdefault(run.name, []).append(run)
    steps = 50 * (1050 // 64)
    assert runs.CONTROL_STEPS == steps == 800
    expected = {
        "case1": (5, (50, 1000), None), "case2": (5, (500, 1000), None),
        "case3": (3, (None, None), None), "few": (4, (50, 50), steps),
        "mirrored": (4, (1000, 50), steps), "balanced": (4, (525, 525), steps),
        "many": (4, (1000, 1000), steps), "case1-weighted": (4, (50, 1000), steps),
        "case1-oversampled": (4, (50, 1000), steps), "case3-short": (4, (None, None), steps),
    }  # fmt: skip
    assert found.keys() == {f"{d}-{case}" for d in runs.DATA for case in expected}
    for name, members in found.items():
        case = name.partition("-")[2]
        seeds, counts, steps = expected[case]
        assert [run.seed for run in members] == list(range(42, 42 + seeds))
        for run in members:
            assert run.class_counts == ((1, counts[0]), (2, counts[1])), run.id
            assert run.steps == steps and run.epochs == 50 and run.split == "pooled"
            assert run.class_weights == (case == "case1-weighted")
            assert run.oversample == (case == "case1-oversampled")
            assert run.evaluate_every_epoch == runs.is_pictured(case, run.seed)
            assert difference(run, runs.RECIPE[run.data]) <= {
                "name", "group", "seed", "steps", "class_counts", "class_weights", "oversample",
                "evaluate_every_epoch",
            }  # fmt: skip
    pictured = [run for run in of("imbalance") if run.evaluate_every_epoch]
    assert [run.id for run in pictured] == [
        f"{d}-case{n}" for n in (1, 2, 3) for d in runs.DATA
    ]  # fmt: skip


def test_an_experiment_changes_one_thing(full):
    """At most 32 settings a data set, three seeds each."""
    settings: dict[str, set[str]] = {name: set() for name in runs.DATA}
    for run in of("experiments"):
        settings[run.data].add(run.name)
        assert run.epochs == 6 < runs.RECIPE[run.data].epochs and run.held_out == ("validation",)
        assert run.train_size == {"mnist": 5_000, "svhn": 10_000}[run.data]
        assert not run.evaluate_every_epoch and run.steps is None
    for name, found in settings.items():
        assert 20 <= len(found) <= 32
        baseline = runs.experiment(name)
        assert difference(baseline, runs.RECIPE[name]) == {
            "name", "group", "epochs", "train_size", "held_out", "evaluate_every_epoch"
        }  # fmt: skip
        for group in runs.EXPERIMENTS.values():
            for setting, change in group.items():
                run = runs.experiment(name, setting, 43)
                assert difference(run, baseline) - {"name", "seed"} <= set(change), run.id
                assert difference(run, baseline) > {"name", "seed"}, run.id
                assert run in of("experiments")
        members = [run for run in of("experiments") if run.data == name]
        assert len(members) == 3 * len(found)
        assert {run.seed for run in members} == {42, 43, 44}


def test_every_part_of_the_recipe_is_tried(full):
    """What issue 14 lists is varied, each on its own, on both data sets."""
    varied: set[str] = set()
    for group in runs.EXPERIMENTS.values():
        for change in group.values():
            varied |= set(change)
    assert varied == {
        "optimizer", "learning_rate", "weight_decay", "batch_size", "activation", "batch_norm",
        "shortcuts", "map_side", "width", "ema_decay", "label_smoothing", "schedule",
        "augmentation", "dropout", "resolutions",
    }  # fmt: skip
    rates = [change["learning_rate"] for name, change in runs.EXPERIMENTS["architecture"].items()
             if name.startswith("no-batch-norm")]  # fmt: skip
    assert len(set(rates)) > 2  # its own best rate is looked for


def test_transfer_gives_mnist_what_it_lacks_one_by_one_and_together(full):
    found = {run.name: run for run in of("transfer")}
    assert len(of("transfer")) == 3 * len(found) == 18
    for name, run in found.items():
        first, *middle, last = run.augmentation
        kinds = runs.TRANSFER[name.removeprefix("mnist-transfer-")]
        assert (first, last) == ("affine", "erase") and tuple(middle) == kinds
        assert (run.data, run.train_size, run.epochs) == ("mnist", 16_000, 8)
    alone = [kinds for kinds in runs.TRANSFER.values() if len(kinds) == 1]
    assert sorted(kind for kinds in alone for kind in kinds) == sorted(runs.TRANSFER["all"])
    assert runs.TRANSFER["plain"] == () and len(alone) == 4


def test_the_improvement_changes_one_thing():
    plain, changed = (runs.improvement(setting) for setting in runs.IMPROVEMENTS)
    assert plain.augmentation == runs.MAIN["svhn"].augmentation
    assert changed.augmentation == (*plain.augmentation, "contrast")
    assert dataclasses.replace(changed, name=plain.name, augmentation=plain.augmentation) == plain


def test_every_named_entry_is_there():
    """Of tables of training: augmentations, optimisers, schedules, activations, divisions."""
    from digitcnn import augmentation, model, training

    for run in (*runs._registry("full").values(), *runs._registry("quick").values()):
        assert set(run.augmentation) <= augmentation.AUGMENTATIONS.keys()
        assert run.optimizer in training.OPTIMIZERS and run.schedule in training.SCHEDULES
        assert run.activation in model.ACTIVATIONS and run.split in division.DIVISIONS
        training.build_model(run) if run.id in runs.MAIN else None


def test_the_grid_learns_at_most_48_million_images_in_15_hours(full):
    learned = {group: sum(map(status.images_to_learn, of(group))) / 1e6 for group in runs.GROUPS}
    expected = {"main": 17.8, "official": 6.0, "imbalance": 9.3, "experiments": 7.6}
    expected |= {"transfer": 2.3, "improvement": 2.9}
    assert learned == pytest.approx(expected, abs=0.1)
    assert sum(learned.values()) - learned["improvement"] <= 45 and learned["improvement"] <= 3
    assert [run.group for run in full] == [g for g in runs.GROUPS for run in of(g)]  # in this order
    hours = status.together(sum(status.seconds(run, from_start=True) for run in full), 2) / 3600
    assert 6 < hours <= 15


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"steps": 3}, {"resolutions": ((32, 0.9),)},
               {"resolutions": ((16, 1.0),)}, {"resolutions": ((32, 0.5), (16, 0.5))}],
)  # fmt: skip
def test_an_impossible_configuration_is_one_sentence(change):
    with pytest.raises(DigitcnnError, match="tiny: ") as caught:
        tiny_run(**change)
    one_sentence(caught.value)


def test_the_seed_is_part_of_the_id():
    assert tiny_run(seed=42).id == "tiny" and tiny_run(seed=7).id == "tiny-s7"
    assert tiny_run(seed=7).model_file == "digitcnn-tiny-e4-s7.safetensors"


def test_profiles_share_names_not_configurations():
    full, quick = (runs._registry(profile) for profile in files.PROFILES)
    assert [name for name in full if name in quick] == list(quick)
    assert {full[name].seed for name in full.keys() - quick.keys()}.isdisjoint(runs.QUICK_SEEDS)
    assert all(quick[name].epochs <= 12 for name in quick)
    assert {run.group for run in quick.values()} == set(runs.GROUPS)
    for name, run in quick.items():  # the same kind of run: what is asked of it stays
        assert runs.kept_answers(run) == runs.kept_answers(full[name])
        assert runs.keeps_weights(run) == runs.keeps_weights(full[name])
        assert bool(run.steps) == bool(full[name].steps)


def test_a_run_is_found_by_its_id_or_is_itself(monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    run = tiny_run()
    assert runs.get(run) is run
    assert runs.get("mnist") == runs.MAIN["mnist"]


@pytest.mark.parametrize("name", ["", "mnst", "mnist-exp-batch", "../mnist", "mnist\n\x1b[31m"])
def test_an_unknown_run_is_one_sentence(name):
    with pytest.raises(DigitcnnError, match="There is no run") as caught:
        runs.get(name)
    assert "digitcnn status" in one_sentence(caught.value)


# Staleness


def finish(run, **ingredients: str) -> None:
    """Write what a finished run leaves."""
    about = {"ingredients": runs.ingredients(run) | ingredients, "code": runs.code(run)}
    files.write_json(runs.record_path(run), runs.sealed(about))
    files.write_whole(runs.answers_path(run), b"")
    for split in ("train", *run.held_out):
        files.write_whole(runs.metrics_path(run, split), "")


def test_a_run_is_stale_for_a_reason(root):
    run = runs.MAIN["svhn"]
    assert runs.stale(run) == "missing"
    finish(run)
    assert runs.stale(run) == ""
    for name in ("configuration", "data", "split", "code"):
        finish(run, **{name: "older"})
        assert runs.stale(run) == f"{name} changed"
    finish(run, code="older", data="older")
    assert runs.stale(run) == "data and code changed"
    finish(run)
    for path in (runs.metrics_path(run, "test"), runs.answers_path(run)):
        path.unlink()
        assert runs.stale(run) == "missing"
        finish(run)
    files.cache_path("data", "svhn.json").unlink()
    assert runs.stale(run) == "data not read yet"


def test_a_run_that_is_stale_by_its_code_says_which(root, monkeypatch):
    run = runs.MAIN["svhn"]
    finish(run)
    code = runs.code(run)
    later = code | {"stage": "x", "erase": "y", "new": "z"}
    del later["MapSize"]
    monkeypatch.setattr(runs, "code", lambda run: later)
    assert runs.stale(run) == "code changed: MapSize, erase, new and 1 more"
    monkeypatch.setattr(runs, "code", lambda run: code | {"erase": "y"})
    assert runs.stale(run) == "code changed: erase"


def test_missing_weights_are_a_reason_where_there_should_be_some(root):
    for name, expected in {"svhn": "weights missing", "svhn-exp-recipe": ""}.items():
        run = runs.get(name)
        assert runs.reason(run) == "missing"
        finish(run)
        assert runs.stale(run) == "" and runs.reason(run) == expected
    run = runs.get("svhn")
    files.write_whole(runs.weights_path(run), b"")
    assert runs.reason(run) == ""
    runs.weights_path(run).unlink()
    about = runs.read_record(run) | {"diverged": 3}  # so there is nothing to keep
    files.write_json(runs.record_path(run), runs.sealed(about))
    assert runs.reason(run) == ""


def test_a_record_is_sealed(root):
    run = runs.MAIN["mnist"]
    finish(run)
    about = files.read_json(runs.record_path(run))
    assert runs.read_record(run) == {k: v for k, v in about.items() if k != "checksum"}
    files.write_json(runs.record_path(run), about | {"seconds": 1})
    with pytest.raises(DigitcnnError, match="damaged") as caught:
        runs.stale(run)
    one_sentence(caught.value)
    del about["checksum"]
    files.write_json(runs.record_path(run), about)
    with pytest.raises(DigitcnnError, match="damaged"):
        runs.stale(run)
    files.write_json(runs.record_path(run), runs.sealed({"ingredients": 3}))
    with pytest.raises(DigitcnnError, match="damaged"):
        runs.stale(run)


def test_a_division_that_the_manifest_does_not_know_is_one_sentence(root):
    manifest = runs.manifest("mnist")
    del manifest["divisions"]["official"]
    files.write_json(files.cache_path("data", "mnist.json"), manifest)
    with pytest.raises(DigitcnnError, match="knows no division 'official'") as caught:
        runs.key(runs.get("mnist-official"))
    one_sentence(caught.value)


def pooled(manifest: dict) -> dict:
    return manifest["divisions"]["pooled"]


@pytest.mark.parametrize(
    "spoil",
    [lambda m: m.pop("divisions"), lambda m: m.pop("digest"), lambda m: m.update(divisions=3),
     lambda m: m.update(images=10), lambda m: pooled(m)["test"].update(images=4),
     lambda m: pooled(m)["test"].update(class_counts=[2]), lambda m: m.update(digest=5),
     lambda m: pooled(m)["test"].update(class_counts=["3"]),
     lambda m: pooled(m)["test"].pop("indices_sha256"), lambda m: m.update(imagez=9),
     lambda m: m["divisions"]["official"]["train"].update(more=1),
     lambda m: pooled(m).update(tests=pooled(m).pop("test"))],
)  # fmt: skip
def test_a_manifest_that_does_not_add_up_is_one_sentence(root, spoil):
    manifest = runs.manifest("mnist")
    spoil(manifest)
    files.write_json(files.cache_path("data", "mnist.json"), manifest)
    with pytest.raises(DigitcnnError, match=r"mnist\.json is damaged") as caught:
        runs.key(runs.MAIN["mnist"])
    one_sentence(caught.value)
