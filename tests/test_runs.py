"""Runs: what a key depends on, the registry, names, staleness."""

from __future__ import annotations

import ast
import copy
import dataclasses
import re
import shutil
import warnings
from pathlib import Path

import pytest
from conftest import one_sentence
from crashes import tiny_run

from digitcnn import data, files, runs
from digitcnn.files import DigitcnnError
from digitcnn.status import is_experiment

PACKAGE = Path(runs.__file__).parent
CHANGES = {
    "data": "svhn", "epochs": 51, "seed": 7, "optimizer": "adam", "learning_rate": 0.21,
    "weight_decay": 5.1e-4, "batch_size": 255, "label_smoothing": 0.0, "average": 0.999,
    "activation": "gelu", "batch_norm": False, "dropout": 0.1, "width": 0.5,
    "augmentation": ("affine",), "held_out": ("validation",), "train_size": 100,
    "class_counts": ((1, 5), (2, None)), "class_weights": True, "oversample": True,
}  # fmt: skip


def write_manifest(name: str, digest: str = "d", **indices: str) -> None:
    split = {
        part: {"images": 3, "class_counts": [3], "indices_sha256": indices.get(part, part)}
        for part in data.SPLITS
    }
    about = {"name": name, "digest": digest, "images": 9, "split": split}
    files.write_json(files.cache_path("data", f"{name}.json"), about)


@pytest.fixture
def root(sandbox, monkeypatch):
    """A full-profile tree in which both data sets have been read."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    for name in runs.MAIN:
        write_manifest(name)
    return sandbox


# Keys


def test_every_field_but_the_name_is_part_of_the_key(root):
    run = runs.BASELINE["mnist"]
    assert set(CHANGES) | {"name"} == {field.name for field in dataclasses.fields(run)}
    keys = {runs.key(run)}
    for field, value in CHANGES.items():
        assert value != getattr(run, field), field
        keys.add(runs.key(dataclasses.replace(run, **{field: value})))
    assert len(keys) == 1 + len(CHANGES)
    assert runs.key(dataclasses.replace(run, name="another")) == runs.key(run)


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


def test_a_key_depends_on_the_code(root, monkeypatch):
    first = runs.key(runs.MAIN["mnist"])
    monkeypatch.setattr(runs, "code_digest", lambda: "other")
    assert runs.key(runs.MAIN["mnist"]) != first
    assert len(first) == 16 and int(first, 16) >= 0


def test_quick_and_full_keys_differ(root, monkeypatch):
    """Even were their data the same."""
    keys = set()
    for profile in files.PROFILES:
        monkeypatch.setenv("DIGITCNN_PROFILE", profile)
        for name in runs.MAIN:
            write_manifest(name)
        keys |= {runs.key(run) for run in runs.registry().values()}
        count = len({dataclasses.replace(run, name="") for run in runs.registry().values()})
        assert count > 50
    quick, full = (set(map(runs.key, runs._registry(p).values())) for p in ("quick", "full"))
    assert not quick & full


# Code as syntax trees


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the keyed modules whose digest `runs.code_digest` takes."""
    for name in runs.KEYED_MODULES:
        shutil.copy(PACKAGE / f"{name}.py", tmp_path)
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "runs.py"))
    yield tmp_path
    runs.code_digest.cache_clear()


def digest() -> str:
    runs.code_digest.cache_clear()
    return runs.code_digest()


def test_the_keyed_modules_are_those_that_decide_what_is_learned():
    assert set(runs.KEYED_MODULES) == {"data", "model", "training"}


@pytest.mark.parametrize("name", runs.KEYED_MODULES)
def test_comments_docstrings_and_layout_do_not_count(package, name):
    first, path = digest(), package / f"{name}.py"
    source = path.read_text("utf-8")
    for other in (
        "# a comment\n\n\n" + source + "\n# another\n",
        source.replace("\n\n", "\n\n    # a comment\n\n"),
        ast.unparse(ast.parse(source)),  # other quotes, brackets and line breaks
        source.replace('"""', '"""Changed. ', 1),
        without_docstrings(source),
    ):
        assert other != source
        path.write_text(other, "utf-8")
        assert digest() == first


def without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("data", '"train": 0.7', '"train": 0.71'), ("data", "SEED = 42", "SEED = 43"),
     ("data", "stratify=labels", "stratify=None"), ("data", "np.sort(train)", "train"),
     ("model", "padding=1", "padding=0"), ("model", "return x + self", "return x - self"),
     ("model", "nn.LeakyReLU", "nn.PReLU"), ("model", "pool=True", "pool=False"),
     ("training", "momentum=0.9", "momentum=0.8"), ("training", "WARM_UP = 0.2", "WARM_UP = 0.3"),
     ("training", "self.averaged.module, images", "self.model, images"),
     ("training", "nesterov=True", "nesterov=False"), ("training", "limit=0.3", "limit=-0.3"),
     ("training", "step < rising", "step <= rising"), ("training", "@torch.no_grad()\n", "")],
)  # fmt: skip
def test_a_change_of_meaning_counts(package, name, old, new):
    first, path = digest(), package / f"{name}.py"
    source = path.read_text("utf-8")
    assert old in source
    path.write_text(source.replace(old, new, 1), "utf-8")
    assert digest() != first


@pytest.mark.parametrize("name", runs.KEYED_MODULES)
def test_every_number_operator_and_name_counts(name):
    """Each constant, operator, attribute and name of the module, changed one at a time."""
    source = without_docstrings((PACKAGE / f"{name}.py").read_text("utf-8"))
    tree = ast.parse(source)
    first, changed = runs.syntax(source), 0
    for number, node in enumerate(list(ast.walk(tree))):
        kept = copy.copy(node.__dict__)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            node.value = node.value + 1
        elif isinstance(node, ast.BinOp):
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        elif isinstance(node, ast.Attribute):
            node.attr += "_"
        elif isinstance(node, ast.Name):
            node.id += "_"
        else:
            continue
        if number % 20 == 0:  # one in twenty of some thousand
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                assert runs.syntax(ast.unparse(tree)) != first, ast.dump(node)
            changed += 1
        node.__dict__.update(kept)
    assert runs.syntax(ast.unparse(tree)) == first and changed > 10


def test_the_digest_does_not_depend_on_line_ends(package):
    first = digest()
    for name in runs.KEYED_MODULES:
        path = package / f"{name}.py"
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert digest() == first


# Registry


@pytest.mark.parametrize("profile", files.PROFILES)
def test_ids_are_unique_and_safe_in_paths(monkeypatch, profile):
    monkeypatch.setenv("DIGITCNN_PROFILE", profile)
    wanted = sum(len(changes) for changes in runs.EXPERIMENTS.values()) * 4
    # Each group of experiments tries the starting point too: it is one run, listed once.
    repeated = sum(
        all(getattr(runs.BASELINE[name], k) == v for k, v in change.items())
        for changes in runs.EXPERIMENTS.values() for change in changes for name in runs.MAIN
    ) * 2 - 4  # fmt: skip
    registry = runs.registry()
    experiments = {name for name, run in registry.items() if is_experiment(run)}
    contenders = {runs.contender(name, c).id for c in runs.CONTENDERS for name in runs.MAIN}
    assert len(contenders) == 2 * len(runs.CONTENDERS)
    assert len(experiments) == wanted - repeated + len(contenders)
    seeds = runs.EXPERIMENT_SEEDS if profile == "quick" else range(100)
    cases = {run.id for run in runs.imbalanced_runs() if run.seed in seeds}
    long = {run.id for run in runs.REVISED.values()}
    assert registry.keys() == {*runs.MAIN, *long, runs.FIRST.id} | experiments | cases
    assert len({run.model_file for run in registry.values()}) == len(registry)
    if profile == "full":  # in the quick one, some sizes and rates fall together
        assert len({dataclasses.replace(r, name="") for r in registry.values()}) == len(registry)
    for name, run in registry.items():
        assert files.checked_name(name, "run name") == run.id == name
        assert re.fullmatch(r"digitcnn-[a-z0-9.-]+\.safetensors", run.model_file)
        paths = [runs.weights_path(run), runs.record_path(run), runs.checkpoint_path(run)]
        paths += [runs.metrics_path(run, split) for split in ("train", *run.held_out)]
        assert all(path.is_relative_to(files.results_root()) for path in paths)


@pytest.mark.parametrize("profile", files.PROFILES)
def test_experiments_never_see_the_test_split(monkeypatch, profile):
    monkeypatch.setenv("DIGITCNN_PROFILE", profile)
    experiments = [run for run in runs.registry().values() if is_experiment(run)]
    assert len(experiments) > 50
    assert all(run.held_out == ("validation",) for run in experiments)


def test_an_experiment_changes_one_thing():
    for data_name, main in runs.MAIN.items():
        baseline = runs.experiment(data_name, {})
        assert baseline.epochs == runs.EXPERIMENT_EPOCHS < main.epochs == 50
        for group, changes in runs.EXPERIMENTS.items():
            for change in changes:
                run = runs.experiment(data_name, change)
                different = {
                    field.name for field in dataclasses.fields(run)
                    if getattr(run, field.name) != getattr(baseline, field.name)
                } - {"name"}  # fmt: skip
                assert different <= set(change), (group, change)


def test_a_contender_changes_the_revised_starting_point():
    for name, main in runs.MAIN.items():
        plain = runs.contender(name, {})
        assert plain.augmentation == main.augmentation and plain.train_size == runs.CONTEST_SIZE
        for change in runs.CONTENDERS:
            run = runs.contender(name, change)
            different = {k for k, v in vars(run).items() if v != vars(plain)[k]} - {"name"}
            assert different == set(change), run.id


def test_the_main_runs_are_what_the_report_says(monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    assert [run.model_file for run in runs.MAIN.values()] == [
        "digitcnn-mnist-e50-s42.safetensors", "digitcnn-svhn-e50-s42.safetensors"
    ]  # fmt: skip
    for name, run in runs.MAIN.items():
        assert run.id == run.data == name and run.epochs == 50
        assert run.held_out == ("validation", "test") and run.train_size is None


def test_the_seed_is_part_of_the_id():
    assert tiny_run(seed=42).id == "tiny" and tiny_run(seed=7).id == "tiny-s7"
    assert tiny_run(seed=7).model_file == "digitcnn-tiny-e4-s7.safetensors"


def test_profiles_share_names_not_configurations(monkeypatch):
    full, quick = (runs._registry(profile) for profile in files.PROFILES)
    assert [name for name in full if name in quick] == list(quick)
    assert {full[name].seed for name in full.keys() - quick.keys()}.isdisjoint(
        runs.EXPERIMENT_SEEDS
    )
    assert all(quick[name].epochs <= 8 for name in quick)


def test_a_run_is_found_by_its_id_or_is_itself(monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    run = tiny_run()
    assert runs.get(run) is run
    assert runs.get("mnist") is runs.MAIN["mnist"]


@pytest.mark.parametrize("name", ["", "mnst", "mnist-exp-batch", "../mnist", "mnist\n\x1b[31m"])
def test_an_unknown_run_is_one_sentence(name):
    with pytest.raises(DigitcnnError, match="There is no run") as caught:
        runs.get(name)
    assert "digitcnn status" in one_sentence(caught.value)


# Staleness


def finish(run, **ingredients: str) -> None:
    """Write what a finished run leaves."""
    about = {"ingredients": runs.ingredients(run) | ingredients}
    files.write_json(runs.record_path(run), runs.sealed(about))
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
    runs.metrics_path(run, "test").unlink()
    assert runs.stale(run) == "missing"
    finish(run)
    files.cache_path("data", "svhn.json").unlink()
    assert runs.stale(run) == "data not read yet"


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


@pytest.mark.parametrize(
    "spoil",
    [lambda m: m.pop("split"), lambda m: m.pop("digest"), lambda m: m.update(split=3),
     lambda m: m.update(images=10), lambda m: m["split"]["test"].update(images=4),
     lambda m: m["split"]["test"].update(class_counts=[2]), lambda m: m.update(digest=5),
     lambda m: m["split"]["test"].update(class_counts=["3"]),
     lambda m: m["split"]["test"].pop("indices_sha256"), lambda m: m.update(imagez=9)],
)  # fmt: skip
def test_a_manifest_that_does_not_add_up_is_one_sentence(root, spoil):
    manifest = runs.manifest("mnist")
    spoil(manifest)
    files.write_json(files.cache_path("data", "mnist.json"), manifest)
    with pytest.raises(DigitcnnError, match=r"mnist\.json is damaged") as caught:
        runs.key(runs.MAIN["mnist"])
    one_sentence(caught.value)
