"""The unpacked submission: what was left out does not count as changed, and the report is made."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import one_sentence
from finished import finish

from digitcnn import files, provenance, results, runs, status

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import archive  # noqa: E402


def test_what_was_left_out_does_not_count_as_changed(sandbox, monkeypatch):
    run = finish("svhn-s43")
    path = runs.weights_path(run)
    relative = path.relative_to(sandbox).as_posix()
    folder = sandbox / "_freeze" / "chapters" / "x"
    files.write_whole(folder / "a.json", "{}")
    (sandbox / "chapters").mkdir()
    (sandbox / "chapters" / "x.qmd").write_text("# X\n")
    (sandbox / "_quarto.yml").write_text("execute: {echo: false}\n")
    about = {
        **{"document": "chapters/x", "profile": "quick", "modules": {}, "libraries": {}},
        "source": provenance.source_digest("chapters/x"),
        "options": provenance.options_digest(),
        "files": {relative: provenance.file_digest(path)},
        "frozen": provenance.frozen_files(folder),
    }
    about["seal"] = files.fingerprint(about)
    files.write_json(folder / provenance.RECORD, about)
    assert provenance.changes("chapters/x") == [] and status.state(run) == "current"
    known = {relative: provenance.file_digest(path)}
    path.unlink()
    assert provenance.changes("chapters/x") == [f"{relative} is missing"]
    assert status.state(run) == "weights missing"
    files.write_json(sandbox / files.LEFT_OUT, known)
    assert provenance.changes("chapters/x") == [] and status.state(run) == "current"
    # Answers that had no room: metrics are read, nothing is trained, and the sentence is true.
    gone = runs.answers_path(run)
    known[gone.relative_to(sandbox).as_posix()] = provenance.file_digest(gone)
    gone.unlink()
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    with pytest.raises(files.DigitcnnError, match="never"):
        results.history(run)
    files.write_json(sandbox / files.LEFT_OUT, known)
    assert status.state(run) == "current" and len(results.history(run)["train"]) == run.epochs
    with pytest.raises(files.DigitcnnError, match="was left out of this submission") as caught:
        results.answers(run)
    one_sentence(caught.value)
    files.write_json(sandbox / files.LEFT_OUT, {relative: "another"})
    assert provenance.changes("chapters/x") == [f"{relative} changed"]
    # The profile that brings the name says nothing of how cells are executed.
    before = provenance.options_digest()
    (sandbox / "_quarto-submission.yml").write_text('{"book": {"author": "Ada"}}')
    assert provenance.options_digest() == before


@pytest.mark.slow
def test_make_report_works_in_the_unpacked_archive_without_data(tmp_path):
    pypdf = pytest.importorskip("pypdf")
    """The project itself, packed and unpacked elsewhere: nothing is executed, nothing is stale."""
    sources, _ = archive.project("Ada (roll number 1)", datetime.date(2025, 3, 9), 0)
    for where, content in sources.items():
        path = tmp_path / "project" / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    python = tmp_path / "project" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN")}
    environment = {**kept, "DIGITCNN_QUARTO": "none", "PYTHONPATH": str(tmp_path / "project")}
    # The environment is made by pip from the lock, which test_environment tries; here it is given.
    code = "import sys; sys.path.insert(0, 'tools'); import environment, report;"
    code += "environment.is_current = lambda name: True; sys.exit(report.main(['report']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "project", env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "To execute" not in done.stdout and "Report ready" in done.stdout
    (pdf,) = (tmp_path / "project" / "_book").glob("*.pdf")
    assert "Ada" in pypdf.PdfReader(pdf).pages[0].extract_text()


@pytest.mark.slow
def test_the_project_as_it_is_fits_a_mail():
    """With the largest PDF and notebook that were seen; `make submission` measures its own."""
    beside = 6_500_000
    day = datetime.date(2025, 3, 9)
    sources, _ = archive.project("Ada (roll number 1)", day, beside)
    assert len(archive.zipped("x", sources, day)) + beside <= 18_000_000
