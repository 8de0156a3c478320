"""Status: what is current, stale or missing, and what it costs."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import finished, write_manifest

from digitcnn import cli, files, grid, provenance, runs, status, store
from digitcnn.provenance import Freshness, State

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ("index", "chapters/01-data")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A project without any results, of two chapters that are current."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.delenv("DIGITCNN_CHECKPOINTS", raising=False)
    monkeypatch.setattr(provenance, "documents", lambda: list(CHAPTERS))
    monkeypatch.setattr(provenance, "state", lambda document: State(Freshness.CURRENT))
    return tmp_path


@pytest.fixture
def whole(empty):
    """A project whose main runs and chapters are current."""
    for name in runs.MAIN:
        finished(name)
    return empty


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
    words = lines["mnist"].split()
    assert words[:2] == ["mnist", "current"] and words[-3:] == ["50/50", "98.77%", "98.77%"]
    assert "mnist: results are from a copy of mnist." in lines
    assert "svhn: results are from a copy of svhn." in lines


def test_many_runs_are_a_line_for_each_kind(whole, capsys):
    experiments = [run for run in runs.registry().values() if run.group == "experiments"]
    finished("svhn-exp-recipe")
    count = sum(run.data == "svhn" for run in experiments)
    _, lines = shown(capsys)
    assert f"{count - 1} missing, 1 current" in lines[f"svhn experiments ({count} runs)"]
    seeds = [run.id for run in runs.registry().values() if run.name == "svhn-case1"]
    assert f"svhn-case1 ({len(seeds)} runs)" in lines and not lines.keys() & set(seeds[1:])
    assert "mnist, other seeds (2 runs)" in lines and "mnist-official" in lines
    assert "mnist transfer (18 runs)" in lines
    _, lines = shown(capsys, "--all")
    assert runs.registry().keys() < lines.keys() and " current " in lines["svhn-exp-recipe"]


def change_record(name: str, **changes: object) -> None:
    about = runs.read_record(runs.get(name))
    files.write_json(runs.record_path(runs.get(name)), runs.sealed(about | changes))


def test_a_stale_run_says_why(whole, capsys):
    record = runs.read_record(runs.get("mnist"))
    older = record["ingredients"] | {"code": "older"}
    change_record("mnist", ingredients=older, code=record["code"] | {"stage": "older"})
    code, lines = shown(capsys)
    assert code == 1 and "stale: code changed: stage" in lines["mnist"]
    change_record("mnist", ingredients=older | {"data": "older"})
    assert "stale: data and code changed" in shown(capsys)[1]["mnist"]


def test_a_main_run_without_weights_is_not_current(whole, capsys):
    files.model_path(runs.get("svhn").model_file).unlink()
    code, lines = shown(capsys)
    assert code == 1 and "weights missing" in lines["svhn"]


def test_a_damaged_record_is_a_line_and_no_end(whole, capsys):
    runs.record_path(runs.get("mnist")).write_text("{")
    code, lines = shown(capsys)
    assert code == 1 and "damaged" in lines["mnist"] and "current" in lines["svhn"]


def test_a_damaged_manifest_is_known_by_its_remedy_and_costs_no_training(whole, capsys):
    """A conflict that git left in it, say: no run is to be trained for that."""
    files.cache_path("data", "mnist.json").write_text("<<<<<<< HEAD\n{}\n")
    code = cli.main(["status"])
    said = capsys.readouterr()
    assert code == 1 and "run `digitcnn data mnist` to make it" in said.err
    assert f"mnist {status.NOT_KNOWN} " in " ".join(said.out.split())
    left = sum(status.seconds(run) for run in runs.registry().values() if run.id not in runs.MAIN)
    hours = status.duration(status.together(left, 2))
    assert said.out.endswith(f"still to train: {hours}.\n")


def save_epoch(name: str, epoch: int) -> Path:
    """Write the head of a checkpoint, which is all that is read of it."""
    head = json.dumps({"__metadata__": {"epoch": str(epoch)}}).encode()
    path = runs.checkpoint_path(runs.get(name))
    files.write_whole(path, len(head).to_bytes(8, "little") + head + b"tensors")
    return path


def test_an_unfinished_run_costs_the_rest(empty, capsys):
    run = runs.get("mnist")
    cost = status.seconds(run)
    save_epoch("mnist", 40)
    assert status.seconds(run) == pytest.approx(cost * 10 / 50)
    assert status.seconds(run, from_start=True) == cost
    words = shown(capsys)[1]["mnist"]
    assert "missing, 40/50 epochs saved" in words and " 40/50 " in words
    finished("mnist")
    older = runs.read_record(run)["ingredients"] | {"data": "older"}
    change_record("mnist", ingredients=older)
    assert "stale: data changed, 40/50 epochs saved" in shown(capsys)[1]["mnist"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\x05", b"\xff" * 8, (99).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}",
     (8).to_bytes(8, "little") + b"\xff" * 8, (2).to_bytes(8, "little") + b"[]"],
)  # fmt: skip
def test_a_damaged_checkpoint_counts_as_none(empty, content):
    path = save_epoch("mnist", 7)
    assert status.saved_epoch(runs.get("mnist")) == 7
    path.write_bytes(content)
    assert status.saved_epoch(runs.get("mnist")) == 0


# Costs


def test_the_images_of_a_run_are_counted(monkeypatch):
    """Of this project's data sets."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(ROOT))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    learned = {
        "mnist": 50 * 49_000, "svhn": 50 * 69_502, "mnist-official": 50 * 54_000,
        "svhn-official": 50 * 65_931, "mnist-case1": 50 * 1_050, "svhn-case2": 50 * 1_500,
        "mnist-case3": 50 * (5_514 + 4_893), "mnist-few": 800 * 64, "svhn-case3-short": 800 * 64,
        "mnist-exp-recipe": 6 * 5_000, "svhn-exp-adam-0.002": 6 * 10_000,
        "mnist-transfer-all": 8 * 16_000,
    }  # fmt: skip
    assert {name: status.images_to_learn(runs.get(name)) for name in learned} == learned
    pair = {"validation": 788 + 699, "test": 1_575 + 1_398, "svhn": 3_792 + 2_947}
    judged = {
        "mnist": 51 * 21_000 + 19_858,
        "svhn-official": 51 * 7_326 + 26_032,
        "mnist-case1": 51 * (pair["validation"] + pair["test"]) + pair["svhn"],
        "mnist-case1-s43": 2 * (pair["validation"] + pair["test"]) + pair["svhn"],
        "mnist-exp-recipe": 2 * 7_000,
        "mnist-transfer-all": 2 * 7_000 + 14_000 + 19_858,
    }
    assert {name: status.images_to_evaluate(runs.get(name)) for name in judged} == judged


def test_where_no_data_set_was_read_their_sizes_are_known(empty):
    for name in runs.DATA:
        run = runs.get(name)
        sizes = json.loads((ROOT / "cache" / "data" / f"{name}.json").read_text())
        expected = sizes["divisions"]["pooled"]["train"]["images"]
        assert status.images_per_epoch(run) == pytest.approx(expected, abs=10)
        pair = dataclasses.replace(run, class_counts=((1, None), (2, None)))
        assert status.images_per_epoch(pair) == pytest.approx(expected / 5, abs=10)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((50, 1000), 1050), ((50, None), 50 + 10_314), ((None, 50), 13_272 + 50),
     ((None, None), 13_272 + 10_314), ((20_000, 7_000), 13_272 + 7_000)],
)  # fmt: skip
def test_of_some_classes_all_images_and_of_others_a_number_are_counted(
    monkeypatch, counts, expected
):
    """As `digitcnn.data.class_subset` takes them: never more than there are."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    run = dataclasses.replace(
        runs.get("svhn"), class_counts=tuple(zip(runs.PAIR, counts, strict=True)), train_size=3
    )
    assert status.images_per_epoch(run) == expected


def test_costs_are_images_over_rates(empty):
    write_manifest("mnist")
    write_manifest("svhn")
    run = dataclasses.replace(runs.get("mnist"), epochs=10)
    expected = 10 * 9 / status.LEARNED_PER_SECOND
    expected += (10 * 18 + 27) / status.EVALUATED_PER_SECOND
    assert status.seconds(run) == pytest.approx(expected)
    both = 1 + status.SECOND_PROCESS
    assert status.together(180, 2) == pytest.approx(180 / both)
    assert status.together(180, 1) == 180 and 1.5 < both < 2


def test_the_last_line_says_how_long_all_takes(whole, capsys):
    grid = list(runs.registry().values())
    every = sum(status.seconds(run) for run in grid)
    left = every - sum(status.seconds(run) for run in runs.MAIN.values())
    assert left < every
    line = next(line for line in shown(capsys)[1] if line.startswith("All runs on two idle cores"))
    assert f"each: {status.duration(status.together(every, 2))}; still to train: " in line
    assert line.endswith(f"{status.duration(status.together(left, 2))}.")


def test_hours_of_a_cluster_are_those_of_the_recorded_times(empty, monkeypatch, capsys):
    """Dealt in the order of training to whoever is free; the longest run is the limit."""
    first, *others = grid.chosen([], every=True)
    seconds = dict.fromkeys((run.id for run in others), 10.0) | {first.id: 500.0}
    monkeypatch.setattr(runs, "read_record", lambda run: {"seconds": seconds[run.id]})
    assert status.with_workers(1) == [500 + 10 * len(others)]
    assert status.with_workers(11, 1000) == [500, 500]
    (half,) = status.with_workers(2)
    assert half == pytest.approx((500 + 10 * len(others)) / 2, abs=10)
    monkeypatch.setattr(status, "run_rows", lambda every: [status.Row("a", "current")])
    lines = shown(capsys, "--all")[1]
    said = "From recorded times, two runs at a time"
    line = next(line for line in lines if line.startswith(said))
    assert f"2 workers {status.duration(half)}, 16 workers " in line


def test_hours_of_a_cluster_take_estimates_where_nothing_is_recorded(empty):
    write_manifest("mnist")
    write_manifest("svhn")
    every = sum(status.seconds(run, from_start=True) for run in runs.registry().values())
    assert status.with_workers(1)[0] == pytest.approx(2 * status.together(every, 2))


def test_other_versions_of_libraries_are_said(whole, monkeypatch, capsys):
    path = files.cache_path("results", "other.npz")
    monkeypatch.setattr(store.reach, "digests", lambda *about, **more: {})
    store.write(path, {"x": np.ones(2)}, "stats.wilson", [])
    made = {"torch": "2.15.0", "numpy": np.__version__}
    monkeypatch.setattr(runs, "registry", lambda: runs.MAIN)
    monkeypatch.setattr(runs, "read_record", lambda run: {"environment": made})
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "scipy":
            raise importlib.metadata.PackageNotFoundError(name)
        return made["torch"] if name == "torch" else real(name) + ".9" * (name == "numpy")

    monkeypatch.setattr(importlib.metadata, "version", version)
    (sentence,) = status.other_versions()
    assert sentence == (
        f"Made with numpy {real('numpy')}, which is {real('numpy')}.9 here: 3 results."
    )


def test_durations():
    said = [status.duration(s) for s in (0, 45.4, 89, 91, 3600, 5400, 36_000)]
    assert said == ["0 s", "45 s", "89 s", "2 min", "60 min", "1.5 h", "10.0 h"]


# Stored results and chapters


def test_stored_results_say_why_they_do_not_count(whole, capsys):
    (whole / "input.txt").write_text("first")
    for name, token in {"a": "value 1", "b": "file input.txt", "c": "value 1"}.items():
        path = files.cache_path("results", f"{name}.npz")
        store.write(path, {"x": np.arange(3)}, "toy.read_mnist", [token])
    files.write_whole(files.cache_path("other", "d.npz"), b"rubbish")
    (whole / "input.txt").write_text("second")
    path = files.cache_path("results", "c.npz")
    path.write_bytes(path.read_bytes()[:-30])
    assert status.stored_results() == {
        "cache/other/d.npz": "damaged",
        "cache/results/a.npz": "current",
        "cache/results/b.npz": "stale: file input.txt changed",
        "cache/results/c.npz": "damaged",
    }
    code, lines = shown(capsys)
    assert code == 0 and "damaged" in lines["cache/other (1)"]
    assert "1 current, 1 stale: file input.txt changed, 1 damaged" in lines["cache/results (3)"]
    assert "stale: file" in shown(capsys, "--all")[1]["cache/results/b.npz"]


@pytest.mark.parametrize(
    ("known", "code", "said"),
    [(State(Freshness.CURRENT), 0, "current"), (State(Freshness.MISSING), 1, "missing"),
     (State(Freshness.STALE, ("its text changed", "x")), 1, "stale: its text changed and 1 more")],
)  # fmt: skip
def test_chapters(whole, capsys, monkeypatch, known, code, said):
    states = {"index": known}
    monkeypatch.setattr(
        provenance, "state", lambda document: states.get(document, State(Freshness.CURRENT))
    )
    found, lines = shown(capsys)
    assert found == code and said in lines["index"] and "current" in lines["chapters/01-data"]


def test_the_quick_profile_has_runs_only(empty, monkeypatch, capsys):
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    code, lines = shown(capsys)
    assert code == 1 and "mnist" in lines and not set(CHAPTERS) & lines.keys()


# The appendix's tables


def record_of(name: str, seconds: float) -> dict:
    data = {"data": f"{name[0]}ata" * 4}
    return {"key": files.fingerprint(name), "seconds": seconds, "ingredients": data}


@pytest.fixture
def records():
    names = ("mnist", "svhn", "mnist-s43", "mnist-case1", "mnist-case1-s43", "mnist-exp-recipe",
             "mnist-exp-adam-0.002", "svhn-exp-recipe", "mnist-transfer-all")  # fmt: skip
    return {name: record_of(name, 100 * n) for n, name in enumerate(names, start=1)}


def test_the_table_of_runs_says_what_each_was_made_from(records):
    grouped = status.run_table(records).set_index("run")
    assert list(grouped.index) == [
        "mnist", "svhn", "mnist, other seeds", "mnist-case1", "mnist experiments",
        "svhn experiments", "mnist transfer",
    ]  # fmt: skip
    key, data, seconds = grouped.loc["svhn"]
    assert (key, data) == (records["svhn"]["key"][:8], "satasata")
    assert seconds == status.duration(200)
    assert grouped.loc["mnist experiments", "key"] == "2 runs"
    assert grouped.loc["mnist experiments", "duration"] == status.duration(600 + 700)
    assert grouped.loc["mnist-case1", "duration"] == status.duration(400 + 500)
