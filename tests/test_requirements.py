"""The assignment's bullets in the appendix, and `digitcnn check`, which reads the frozen report."""

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
from digitcnn.report import check

ROOT = Path(__file__).resolve().parent.parent
KIND = r"((?:sec|fig|tbl|eq)-[a-z0-9-]+)"
# The letters under which the assignment asks; 1 is the whole, with the demonstration.
LETTERS = (
    "a", "b", "b.b", "b.c", "b.d", "b.e", "c.a", "c.b", "d.a", "d.b", "e.a", "e.b", "e.c", "e.d",
    "f.a", "f.b", "1",
)  # fmt: skip


def bullets() -> list[tuple[str, str, str]]:
    """Letter, words and answer of each row of the appendix's table."""
    text = (ROOT / "chapters/appendix.qmd").read_text("utf-8")
    return re.findall(r"^\| \(?([a-f1][.a-e]*)\)? \| (.+?) \| (.+?) \|$", text, re.MULTILINE)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A tiny frozen book as the project."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(make_book(tmp_path / "book")))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    whole = provenance.State(provenance.Freshness.CURRENT)
    monkeypatch.setattr(provenance, "state", lambda document: whole)
    return tmp_path / "book"


def edit_frozen(book, old: str, new: str, formats=("html", "typ")) -> None:
    """Replace text in the frozen results of the tiny book's first chapter."""
    for ending in formats:
        path = book / f"_freeze/chapters/01-data/execute-results/{ending}.json"
        about = json.loads(path.read_text())
        assert old in about["result"]["markdown"]
        about["result"]["markdown"] = about["result"]["markdown"].replace(old, new)
        path.write_text(json.dumps(about))


def test_every_letter_of_the_assignment_is_answered_in_its_order():
    rows = bullets()
    assert tuple(dict.fromkeys(letter for letter, _, _ in rows)) == LETTERS
    assert len({row[:2] for row in rows}) == len(rows) > 40
    for letter, _, answer in rows:
        assert re.fullmatch(rf"@{KIND}(, @{KIND})*", answer), (letter, answer)


def test_every_label_is_defined_once_and_no_reference_leads_nowhere():
    sources = [ROOT / "index.qmd", *sorted((ROOT / "chapters").glob("*.qmd"))]
    text = "".join(path.read_text("utf-8") for path in sources)
    defined = re.findall(rf"[{{ ]#{KIND}", text) + re.findall(rf"^#\| label: {KIND}", text, re.M)
    assert len(defined) == len(set(defined))
    assert set(re.findall(rf"@{KIND}", text)) <= set(defined)


def test_a_whole_book_lacks_nothing(book):
    assert check.report_problems() == []


@pytest.mark.parametrize("formats", [("html", "typ"), ("html",), ("typ",)])
def test_a_label_that_is_gone_is_missed_even_in_one_format(book, formats):
    edit_frozen(book, "$$ {#eq-euler}", "$$", formats)
    (line,) = check.report_problems()
    assert "@eq-euler refers to nothing" in one_sentence(ValueError(line))


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
