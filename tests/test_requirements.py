"""The list of requirements, and `digitcnn check`, which holds the frozen report against it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from conftest import one_sentence

pytest.importorskip("pypandoc")
from tiny import make_book

from digitcnn import cli, files, provenance, runs, status
from digitcnn.report import check, requirements
from digitcnn.report.requirements import REQUIREMENTS, Requirement


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A tiny frozen book as the project, and requirements that it answers."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(make_book(tmp_path / "book")))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    whole = provenance.State(provenance.Freshness.CURRENT)
    monkeypatch.setattr(provenance, "state", lambda document: whole)
    rows = (Requirement("a", "A wave", "fig-wave eq-euler"), Requirement("b", "A model", "sec-sub"))
    monkeypatch.setattr(check, "REQUIREMENTS", rows)
    return tmp_path / "book"


def edit_frozen(book, old: str, new: str, formats=("html", "typ")) -> None:
    """Replace text in the frozen results of the tiny book's first chapter."""
    for ending in formats:
        path = book / f"_freeze/chapters/01-data/execute-results/{ending}.json"
        about = json.loads(path.read_text())
        assert old in about["result"]["markdown"]
        about["result"]["markdown"] = about["result"]["markdown"].replace(old, new)
        path.write_text(json.dumps(about))


def test_the_list_is_whole():
    assert len(REQUIREMENTS) >= 40
    assert [*dict.fromkeys(row.question for row in REQUIREMENTS)] == list("abcdef")
    for row in REQUIREMENTS:
        labels = row.labels.split()
        assert row.asks and labels and len(labels) == len(set(labels)), row
        assert all(re.fullmatch(r"(sec|fig|tbl|eq)-[a-z0-9-]+", label) for label in labels), row
    assert len({row.asks for row in REQUIREMENTS}) == len(REQUIREMENTS)


def test_the_table_holds_live_references():
    table = requirements.table()
    assert list(table.columns) == ["question", "requirement", "answered in"]
    assert len(table) == len(REQUIREMENTS)
    assert table.iloc[0, 2] == "@sec-source" and table.iloc[0, 0] == "(a)"
    for cell, row in zip(table["answered in"], REQUIREMENTS, strict=True):
        assert re.findall(r"@([\w-]+)", cell) == row.labels.split()


def test_every_question_is_answered_in_the_sources():
    """Each label is defined once, and no reference leads nowhere."""
    root = Path(__file__).resolve().parent.parent
    sources = [root / "index.qmd", *sorted((root / "chapters").glob("*.qmd"))]
    text = "".join(path.read_text("utf-8") for path in sources)
    kind = r"((?:sec|fig|tbl|eq)-[a-z0-9-]+)"
    defined = re.findall(rf"[{{ ]#{kind}", text) + re.findall(rf"^#\| label: {kind}", text, re.M)
    assert len(defined) == len(set(defined))
    assert {label for row in REQUIREMENTS for label in row.labels.split()} <= set(defined)
    assert set(re.findall(rf"@{kind}", text)) <= set(defined)


def test_every_question_is_answered_in_the_frozen_report(monkeypatch):
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    states = map(provenance.state, provenance.documents())
    if any(state.freshness is provenance.Freshness.OLD_GRID for state in states):
        pytest.skip("frozen from the grid of 24 November")
    lost = [line for line in check.report_problems() if line.startswith("Question (")]
    assert not lost, "\n".join(lost)


def test_a_whole_book_lacks_nothing(book):
    assert check.report_problems() == []


@pytest.mark.parametrize("formats", [("html", "typ"), ("html",), ("typ",)])
def test_a_label_that_is_gone_is_missed_even_in_one_format(book, formats):
    edit_frozen(book, "$$ {#eq-euler}", "$$", formats)
    edit_frozen(book, "@eq-euler; ", "", formats)
    (line,) = check.report_problems()
    assert one_sentence(ValueError(line)) == (
        "Question (a), A wave: the frozen report has no eq-euler."
    )


def test_what_leads_nowhere_is_named(book):
    edit_frozen(book, "@sec-sub;", "@sec-gone; @nobody99;")
    lines = check.report_problems()
    assert len(lines) == 2 and all(one_sentence(ValueError(line)) for line in lines)
    assert "sec-gone" in lines[0] and "nobody99" in lines[1]


def test_a_chapter_that_is_not_frozen_is_named(book, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("DIGITCNN_ROOT", str(book))
    (book / "_freeze/chapters/01-data/execute-results/typ.json").unlink()
    # Alone: what else is missing only follows from that.
    assert check.report_problems() == ["chapters/01-data.qmd is missing: run `make report`."]


def test_a_chapter_that_does_not_exist_is_named(book):
    (book / "chapters/app.qmd").unlink()
    (line, *_) = check.report_problems()
    assert "chapters/app.qmd does not exist" in line


@pytest.fixture
def one_run(sandbox, monkeypatch):
    """A registry of one run of 50 epochs that is current, with whole metrics."""
    run = dataclasses.replace(runs.MAIN["mnist"], epochs=50)
    monkeypatch.setattr(runs, "registry", lambda: {run.id: run})
    monkeypatch.setattr(status, "state", lambda run: "current")
    about = {"ingredients": {}, "diverged": None}
    files.write_json(runs.record_path(run), runs.sealed(about))
    for split in ("train", *run.held_out):
        rows = [f"{epoch}\t0.1\t0.9\t0.9\t0.9" for epoch in range(1, 51)]
        header = "epoch\tloss\taccuracy\tprecision\trecall"
        files.write_whole(runs.metrics_path(run, split), "\n".join([header, *rows]) + "\n")
    return run


def test_whole_results_lack_nothing(one_run):
    assert check.run_problems() + check.metrics_problems() == []


def test_metrics_need_a_row_for_each_epoch(one_run):
    path = runs.metrics_path(one_run, "test")
    lines = path.read_text().splitlines(keepends=True)
    for kept in (lines[:-1], lines[:10] + lines[11:], lines[:1]):
        path.write_text("".join(kept))
        (line,) = check.metrics_problems()
        assert f"metrics/mnist/test.txt has {len(kept) - 1} rows" in one_sentence(ValueError(line))


def test_a_training_is_held_against_those_that_were_printed(one_run, monkeypatch):
    """Trained again elsewhere: expected, unlikely after such trainings, or one of them itself."""
    monkeypatch.setattr(runs, "trainings", lambda data: [one_run.id])
    printed = []
    monkeypatch.setattr(
        check.provenance, "read_record", lambda folder: {"trainings": [["mnist", printed]]}
    )
    for trainings, expected in (
        ([0.897, 0.901, 0.903], True),
        ([0.996, 0.9965, 0.9963], False),
        ([0.9, 0.9963, 0.9964], True),
        ([0.996], True),
    ):
        printed[:] = trainings
        lines = check.reproduction_problems()
        assert lines == [] if expected else "mnist reads 90.00%" in one_sentence(ValueError(*lines))


def test_runs_that_are_not_current_are_named_by_their_state(sandbox):
    lines = check.run_problems()
    assert len(lines) == 1 and "missing: mnist, svhn" in one_sentence(ValueError(lines[0]))


def test_the_command_says_so_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(check, "problems", lambda: ["This is missing.", "That is missing."])
    assert cli.main(["check"]) == 1
    assert capsys.readouterr().out == "This is missing.\nThat is missing.\n"
    monkeypatch.setattr(check, "problems", list)
    assert cli.main(["check"]) == 0
    assert capsys.readouterr().out.startswith("Nothing is missing")
