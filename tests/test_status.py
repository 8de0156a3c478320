"""Status: what is current, stale or missing, and what it costs; what a render says first."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import test_provenance
from conftest import one_sentence
from test_cli import finished

from digitcnn import checkpoints, cli, files, provenance, runs, status
from digitcnn.files import DigitcnnError

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = test_provenance.CHAPTERS
book = test_provenance.book  # three frozen chapters, two of which read a model


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A project without any results."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    return tmp_path


@pytest.fixture
def whole(book):
    """A project whose main runs and chapters are current."""
    for name in runs.MAIN:
        finished(name)
    return book


def shown(capsys, *arguments: str) -> tuple[int, dict[str, str]]:
    """The exit status, and each line of the table by its first column."""
    code = cli.main(["status", *arguments])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    return code, {line.split("  ")[0]: line for line in lines}


# Runs


def test_nothing_is_there(empty, capsys):
    code, lines = shown(capsys, "--all")
    assert code == 1
    assert runs.registry().keys() < lines.keys()
    assert all(" missing " in lines[name] for name in runs.registry())


def test_finished_runs(whole, capsys):
    code, lines = shown(capsys)
    assert code == 0
    assert lines["mnist"].split() == ["mnist", "current", "2", "min", "50/50", "98.77%", "98.77%"]


def test_experiments_are_a_line_per_data_set(whole, capsys):
    experiments = [run for run in runs.registry().values() if status.is_experiment(run)]
    assert len(experiments) > 50 and not any(map(status.is_main, experiments))
    finished(experiments[0].id)
    count = sum(run.data == experiments[0].data for run in experiments)
    lines = shown(capsys)[1]
    line = lines[f"{experiments[0].data} experiments ({count} runs)"]
    assert f"{count - 1} missing, 1 current" in line
    others = [run for run in runs.registry().values() if not status.is_experiment(run)]
    named = {name.split(" (")[0] for name in lines}
    assert {run.name for run in others} < named
    seeds = [run.id for run in others if run.name == "svhn-case1"]
    assert f"svhn-case1 ({len(seeds)} runs)" in lines and not named & set(seeds[1:])
    lines = shown(capsys, "--all")[1]
    assert runs.registry().keys() < lines.keys() and " current " in lines[experiments[0].id]


def change_record(name: str, **changes: object) -> None:
    about = runs.read_record(runs.get(name))
    files.write_json(runs.record_path(runs.get(name)), runs.sealed(about | changes))


def test_a_stale_run_says_why(whole, capsys):
    older = runs.read_record(runs.get("mnist"))["ingredients"] | {"code": "older"}
    change_record("mnist", ingredients=older)
    code, lines = shown(capsys)
    assert code == 1 and "stale: code changed" in lines["mnist"]
    rows = status.run_rows(every=True)
    assert rows[0].left == 120 and rows[1].left == 0
    left = status.duration(sum(row.left for row in rows))
    assert f"To make all current: about {left}." in lines


def test_a_main_run_without_weights_is_not_current(whole, capsys):
    files.model_path(runs.get("svhn").model_file).unlink()
    code, lines = shown(capsys)
    assert code == 1 and "weights missing" in lines["svhn"]


def test_a_damaged_record_is_a_line_and_no_end(whole, capsys):
    runs.record_path(runs.get("mnist")).write_text("{")
    code, lines = shown(capsys)
    assert code == 1 and "damaged" in lines["mnist"] and "current" in lines["svhn"]


def test_an_experiment_that_is_missing_is_no_failure(whole, capsys):
    assert shown(capsys)[0] == 0


def test_an_unfinished_run_costs_the_rest(whole, capsys):
    run = runs.get("mnist")
    files.write_whole(runs.checkpoint_path(run), b"state")
    for split in ("train", *run.held_out):
        path = runs.metrics_path(run, split)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:41]))
    older = runs.read_record(run)["ingredients"] | {"code": "older"}
    change_record("mnist", ingredients=older)
    assert status.seconds(run) == pytest.approx(120 * 10 / 50)
    assert "stale: code changed, training unfinished" in shown(capsys)[1]["mnist"]


def test_a_run_that_was_never_trained_is_estimated_by_its_images(empty):
    """From the pace of a run on the same data: images and epochs count."""
    counts = [100, 400, 60, *[40] * 7]
    for name in runs.MAIN:
        finished(name)
        manifest = runs.manifest(name)
        manifest["split"]["train"] |= {"images": sum(counts), "class_counts": counts}
        files.write_json(files.cache_path("data", f"{name}.json"), manifest)
    change_record("mnist", seconds_per_epoch=4.2, images=840)
    change_record("svhn", seconds_per_epoch=84.0, images=840)
    plain = runs.experiment("mnist", {"dropout": 0.3})
    assert status.seconds(plain) == pytest.approx(3 * 840 * 4.2 / 840)
    assert status.seconds(runs.experiment("svhn", {"dropout": 0.3})) == pytest.approx(3 * 84)
    few = dataclasses.replace(plain, class_counts=((1, 50), (2, None)), train_size=None)
    assert status.images(few) == 50 + 60
    assert status.seconds(few) == pytest.approx(3 * 110 * 4.2 / 840)


def test_durations():
    said = [status.duration(s) for s in (0, 45.4, 89, 91, 3600, 5400, 36_000)]
    assert said == ["0 s", "45 s", "89 s", "2 min", "60 min", "1.5 h", "10.0 h"]


# Chapters and cached results


def test_chapters_are_current(whole, capsys):
    code, lines = shown(capsys)
    assert code == 0 and all(" current " in lines[name] for name in CHAPTERS)
    assert "All is current." not in lines  # the experiments are missing


def test_all_may_be_current(whole, capsys, monkeypatch):
    monkeypatch.setattr(runs, "_registry", lambda profile: dict(runs.MAIN))
    code, lines = shown(capsys)
    assert code == 0 and "All is current." in lines
    provenance.record_path("index").unlink()
    code, lines = shown(capsys)
    assert code == 1 and lines["index"].endswith("unknown")
    assert "To make all current: about 0 s and what is unknown." in lines


@pytest.mark.parametrize("module", ["figures", "training", "tables"])
def test_a_chapter_is_stale_for_a_module(whole, capsys, module):
    expected = {name for name in CHAPTERS if module in provenance.reached(name)}
    assert expected
    path = whole / "digitcnn" / f"{module}.py"
    path.write_text(path.read_text() + "\nEDITED = 1\n")
    code, lines = shown(capsys)
    assert code == 1
    why = f"stale: digitcnn/{module}.py changed"
    assert {name for name in CHAPTERS if why in lines[name]} == expected
    assert all("current" in lines[name] for name in CHAPTERS.keys() - expected)
    assert all((whole / "_freeze" / name).is_dir() for name in CHAPTERS)  # it only looks


def test_a_chapter_is_stale_for_its_text(whole, capsys):
    path = whole / "index.qmd"
    path.write_text(path.read_text() + "\nMore prose.\n")
    code, lines = shown(capsys)
    assert code == 1 and "stale: its text changed" in lines["index"]
    path.write_bytes(path.read_bytes().replace(b"\nMore prose.\n", b"").replace(b"\n", b"\r\n"))
    assert shown(capsys)[0] == 0


@pytest.mark.parametrize("page", status.PAGES)
def test_a_chapter_needs_both_formats(whole, capsys, page):
    (whole / "_freeze/index/execute-results" / page).unlink()
    code, lines = shown(capsys)
    assert code == 1 and " missing " in lines["index"]


def set_times(document: str, **seconds: float) -> None:
    path = provenance.record_path(document)
    files.write_json(path, files.read_json(path) | seconds)


def test_a_chapter_costs_what_it_took(whole, capsys):
    """Once per format; with all that it caches if stored results changed."""
    set_times("chapters/01-data", seconds=7.0, longest=300.0)
    lines = shown(capsys)[1]
    assert lines["chapters/01-data"].endswith("2 x 7 s")
    module = whole / "digitcnn" / "figures.py"
    before = module.read_text()
    module.write_text(before + "\nEDITED = 1\n")
    assert shown(capsys)[1]["chapters/01-data"].endswith("2 x 7 s")
    module.write_text(before)
    module = whole / "digitcnn" / "training.py"
    before = module.read_text()
    module.write_text(before + "\nEDITED = 1\n")
    assert shown(capsys)[1]["chapters/01-data"].endswith("2 x 7 s")  # which reaches no training
    set_times("chapters/02-training", seconds=7.0, longest=300.0)
    assert shown(capsys)[1]["chapters/02-training"].endswith("2 x 5 min")
    module.write_text(before)
    (whole / "models/m.safetensors").write_text("retrained")
    assert shown(capsys)[1]["chapters/01-data"].endswith("2 x 5 min")


def test_the_longest_execution_is_kept(book, monkeypatch):
    set_times("index", seconds=3.0, longest=300.0)
    path = book / "index.qmd"
    path.write_text(path.read_text().replace("#| label: x", "changed = True"))
    provenance.record("index")
    about = provenance.read_record("index")
    assert about["longest"] == 300 and about["seconds"] != 3


@pytest.fixture
def cached(whole, monkeypatch):
    """Cached results that `chapters/01-data` read, and one that no chapter did."""
    for name in ("umap/a", "umap/b", "results/c", "results/unread"):
        files.write_whole(files.cache_path(f"{name}.npz"), name)
    monkeypatch.setattr(files, "_reads", set())
    for name in ("umap/a", "umap/b", "results/c"):
        files.noted(files.cache_path(f"{name}.npz"))
    test_provenance.freeze(whole, "chapters/01-data")
    return whole


def test_cached_results_are_current_while_their_chapter_is(cached, capsys):
    assert status.cached_results() == {
        "cache/results/c.npz": "current",
        "cache/results/unread.npz": "read by no chapter",
        "cache/umap/a.npz": "current",
        "cache/umap/b.npz": "current",
    }
    code, lines = shown(capsys)
    assert code == 0 and "current" in lines["cache/umap (2)"]
    assert "current, 1 read by no chapter" in lines["cache/results (2)"]
    assert {"cache/umap/a.npz", "cache/umap/b.npz"} < shown(capsys, "--all")[1].keys()


def test_cached_results_are_missing_changed_or_to_be_checked(cached, capsys):
    files.cache_path("umap/a.npz").unlink()
    files.write_whole(files.cache_path("umap/b.npz"), "other")
    found = status.cached_results()
    assert found["cache/umap/a.npz"] == "missing" and found["cache/umap/b.npz"] == "changed"
    assert found["cache/results/c.npz"] == "current"
    module = cached / "digitcnn" / "figures.py"
    module.write_text(module.read_text() + "\nEDITED = 1\n")
    found = status.cached_results()
    assert found["cache/results/c.npz"] == "to be checked: digitcnn/figures.py changed"
    code, lines = shown(capsys)
    assert code == 1 and "stale" in lines["chapters/01-data"]


def test_another_chapter_may_vouch_for_a_cached_result(cached, monkeypatch):
    monkeypatch.setattr(files, "_reads", {files.cache_path("umap/a.npz")})
    test_provenance.freeze(cached, "index")
    module = cached / "digitcnn" / "figures.py"  # which the index does not reach
    module.write_text(module.read_text() + "\nEDITED = 1\n")
    found = status.cached_results()
    assert found["cache/umap/a.npz"] == "current"
    assert found["cache/umap/b.npz"].startswith("to be checked")


def test_the_quick_profile_has_runs_only(book, monkeypatch, capsys):
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    code, lines = shown(capsys)
    assert code == 1 and "mnist" in lines and not CHAPTERS.keys() & lines.keys()


# Before a render


@pytest.fixture
def needs_mnist(whole, monkeypatch):
    """`whole`, where `chapters/01-data` has read the record of the run ``mnist``."""
    monkeypatch.setattr(files, "_reads", {runs.record_path(runs.get("mnist"))})
    test_provenance.freeze(whole, "chapters/01-data")
    return whole


def make_stale(name: str) -> None:
    older = runs.read_record(runs.get(name))["ingredients"] | {"code": "older"}
    change_record(name, ingredients=older)


def frozen(root: Path) -> set[str]:
    return {name for name in CHAPTERS if (root / "_freeze" / name).is_dir()}


def test_nothing_is_said_where_nothing_changed(needs_mnist, capsys):
    make_stale("svhn")  # which no chapter needs
    assert status.before_render() == 0
    assert capsys.readouterr() == ("", "") and frozen(needs_mnist) == set(CHAPTERS)


def test_a_render_that_has_to_train_says_so_first(needs_mnist, capsys):
    make_stale("mnist")
    assert status.before_render() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "chapters/01-data is executed again: cache/runs/mnist.json changed.",
        "This render has to train mnist first, about 2 min.",
    ]
    assert frozen(needs_mnist) == CHAPTERS.keys() - {"chapters/01-data"}


def test_many_runs_to_train_are_counted(whole, monkeypatch, capsys):
    chosen = [run for run in runs.registry().values() if status.is_experiment(run)][:5]
    for run in chosen:
        finished(run.id)
    monkeypatch.setattr(files, "_reads", {runs.record_path(run) for run in chosen})
    test_provenance.freeze(whole, "index")
    for run in chosen:
        make_stale(run.id)
    names = ", ".join(run.id for run in chosen[:3])
    assert status.before_render() == 0
    assert f"has to train 5 runs ({names}, …) first, about 10 min." in capsys.readouterr().out


def test_weights_that_a_chapter_read_count_too(whole, monkeypatch, capsys):
    weights = runs.weights_path(runs.get("svhn"))
    monkeypatch.setattr(files, "_reads", {weights})
    test_provenance.freeze(whole, "index")
    weights.unlink()
    assert status.before_render() == 0
    assert "has to train svhn first" in capsys.readouterr().out


def test_where_training_is_forbidden_it_is_an_error_and_nothing_thaws(
    needs_mnist, monkeypatch, capsys
):
    make_stale("mnist")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    assert status.before_render() == 1
    said = capsys.readouterr()
    assert said.out == "" and "would have to train mnist (about 2 min)" in said.err
    assert "run `digitcnn train mnist` first." in said.err and said.err.count("\n") == 1
    assert frozen(needs_mnist) == set(CHAPTERS)


def test_a_chapter_never_executed_may_need_any_run(needs_mnist, monkeypatch, capsys):
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")  # not known to be needed: no error yet
    provenance.record_path("index").unlink()
    waiting = len(runs.registry()) - len(runs.MAIN)
    assert status.before_render() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"up to {waiting} runs" in last and "what index needs is not recorded" in last


def test_only_the_documents_that_quarto_names_count(needs_mnist, monkeypatch):
    monkeypatch.setenv("QUARTO_PROJECT_INPUT_FILES", "index.qmd\nchapters/02-training.qmd")
    assert status.to_execute() == ["index", "chapters/02-training"]  # it ignores the freeze
    monkeypatch.setenv("QUARTO_PROJECT_RENDER_ALL", "1")
    assert status.to_execute() == []


def test_the_quick_profile_executes_everything(book, monkeypatch, capsys):
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    assert status.to_execute() == list(CHAPTERS)
    assert status.before_render() == 0
    assert f"up to {len(runs.registry())} runs first, about" in capsys.readouterr().out


def test_a_damaged_record_ends_the_step_in_one_sentence(needs_mnist, capsys):
    runs.record_path(runs.get("mnist")).write_text("{")
    assert status.before_render() == 1
    with pytest.raises(DigitcnnError) as caught:
        status.training_notice(["index"])
    assert one_sentence(caught.value) in capsys.readouterr().err


def test_the_script_that_quarto_runs(needs_mnist):
    """`tools/thaw.py` in a project of its own, with a module edited."""
    (needs_mnist / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "thaw.py", needs_mnist / "tools")
    module = needs_mnist / "digitcnn" / "figures.py"
    module.write_text(module.read_text() + "\nEDITED = 1\n")
    done = subprocess.run(
        [sys.executable, needs_mnist / "tools" / "thaw.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("chapters/01-data is executed again: digitcnn/figures.py changed.\n")
    assert frozen(needs_mnist) == CHAPTERS.keys() - {"chapters/01-data"}


def test_forbidden_training_is_refused_before_the_data_is_read(whole, monkeypatch):
    make_stale("mnist")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.setattr(checkpoints, "pool", lambda name: pytest.fail("the data was read"))
    with pytest.raises(DigitcnnError, match="mnist would have to be trained") as caught:
        checkpoints.ensure("mnist")
    one_sentence(caught.value)


# The appendix's table


def test_the_table_of_runs_says_what_each_was_made_from():
    """Of this project's own records: nothing is made up, nothing left out."""
    records = {
        path.stem: json.loads(path.read_text())
        for path in sorted((ROOT / "cache" / "runs").glob("*.json"))
        if path.stem in runs.registry()
    }
    every = status.run_table(records, every=True).set_index("run")
    assert list(every.index) == list(records)
    for name, record in records.items():
        row = every.loc[name]
        assert record["key"].startswith(row["key"]) and len(row["key"]) == 8
        assert record["ingredients"]["code"].startswith(row["code"])
        assert record["ingredients"]["data"].startswith(row["data"])
        machine = record["environment"]["machine"].replace(" 1 threads", " 1 thread")
        assert row["device"] == machine
        assert row["duration"] == status.duration(record["seconds"])
    grouped = status.run_table(records).set_index("run")
    experiments = {n: r for n, r in records.items() if status.is_experiment(runs.get(n))}
    others = records.keys() - experiments.keys()
    assert set(grouped.index) == {runs.get(name).name for name in others} | {
        f"{runs.get(name).data} experiments" for name in experiments
    }
    seeds = [r for n, r in records.items() if runs.get(n).name == "mnist-case1"]
    assert grouped.loc["mnist-case1", "duration"] == status.duration(
        sum(r["seconds"] for r in seeds)
    )
    for data in runs.MAIN:
        mine = [r for n, r in experiments.items() if runs.get(n).data == data]
        row = grouped.loc[f"{data} experiments"]
        assert row["key"] == f"{len(mine)} runs"
        assert row["duration"] == status.duration(sum(r["seconds"] for r in mine))


def test_the_table_of_environments_counts_every_run_once():
    records = {
        path.stem: json.loads(path.read_text())
        for path in sorted((ROOT / "cache" / "runs").glob("*.json"))
        if path.stem in runs.registry()
    }
    table = status.environment_table(records)
    assert set(table["runs"]) == {"long", "experiments", "imbalance"}
    assert table["number"].sum() == len(records)
    long = table.set_index("runs").loc["long"]
    assert long["number"] == sum(
        not status.is_experiment(run) and not run.class_counts for run in map(runs.get, records)
    )
    for part in (records["mnist"]["environment"][name] for name in ("machine", "python", "torch")):
        assert part in long["machine"] + long["versions"]


def test_the_table_of_models_lists_the_repositorys_files_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    (tmp_path / "models").mkdir()
    records = {}
    for name in ("mnist", "mnist-case1", "mnist-case1-s43", "svhn"):
        records[name] = {"parameters": 1234, "key": f"key of {name}"}
        if name != "svhn":  # this one is missing
            (tmp_path / "models" / runs.get(name).model_file).write_bytes(b"x" * 20_000)
    table = status.model_table(records)
    assert list(table["file"]) == [runs.get(n).model_file for n in ("mnist", "mnist-case1")]
    assert list(table.iloc[0])[1:] == ["1,234", "0.02 MB", "key of mnist"]
