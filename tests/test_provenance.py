"""Provenance: exactly the chapters whose code or stored results changed are executed again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from digitcnn import files, provenance

ROOT = Path(__file__).parent.parent
CHAPTERS = {
    "index": "from digitcnn import report, tables",
    "chapters/01-data": "from digitcnn import figures\nimport digitcnn.data",
    "chapters/02-training": "def late():\n    from digitcnn.training import augment",
}


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project with a copy of the package, three frozen chapters and their records."""
    package = tmp_path / "digitcnn"
    shutil.copytree(ROOT / "digitcnn", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    monkeypatch.setattr(files, "_reads", set())
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)
    stored = {
        name: tmp_path / name for name in ("models/m.safetensors", "cache/runs/m.json", "other.txt")
    }
    for path in stored.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    for document, code in CHAPTERS.items():
        path = tmp_path / f"{document}.qmd"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# Title\n\n```{{python}}\n#| label: x\n{code}\n```\n")
        (tmp_path / "_freeze" / document).mkdir(parents=True)
    provenance.record("index")
    files.noted(stored["models/m.safetensors"])
    files.noted(stored["other.txt"])
    provenance.record("chapters/01-data")
    provenance.record("chapters/02-training")
    return tmp_path


def thawed(book: Path) -> set[str]:
    lines = provenance.thaw()
    gone = {name for name in CHAPTERS if not (book / "_freeze" / name).is_dir()}
    assert {line.split(" ")[0] for line in lines} == gone
    return gone


def test_nothing_changed_thaws_nothing(book):
    assert provenance.documents() == list(CHAPTERS)
    assert thawed(book) == set()


def test_prose_comments_and_docstrings_thaw_nothing(book):
    for path in (book / "digitcnn").glob("*.py"):
        text = path.read_text()
        text = text.replace('"""', '"""Other words. ', 1)
        path.write_text(f"# a comment\n{text}\n\n# end\n")
    (book / "index.qmd").write_text((book / "index.qmd").read_text() + "\nMore prose.\n")
    assert thawed(book) == set()


MODULES = sorted(path.stem for path in (ROOT / "digitcnn").glob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_an_edited_module_thaws_exactly_the_chapters_that_reach_it(book, module):
    expected = {name for name in CHAPTERS if module in provenance.reached(name)}
    path = book / "digitcnn" / f"{module}.py"
    path.write_text(path.read_text() + "\nEDITED = 1\n")
    assert thawed(book) == expected


def test_the_reach_of_the_toy_chapters_is_what_their_imports_say(book):
    assert provenance.reached("chapters/02-training") >= {"training", "model", "data", "files"}
    assert "figures" not in provenance.reached("chapters/02-training")
    assert "figures" in provenance.reached("chapters/01-data")
    assert "figures" not in provenance.reached("index")
    assert {"report", "tables", "style"} <= provenance.reached("index")


@pytest.mark.parametrize("change", ["delete", "replace"])
def test_a_model_thaws_the_chapters_that_read_it(book, change):
    path = book / "models/m.safetensors"
    path.unlink() if change == "delete" else path.write_text("other")
    assert thawed(book) == {"chapters/01-data", "chapters/02-training"}


def test_a_result_that_no_chapter_read_thaws_nothing(book):
    (book / "cache/runs/m.json").write_text("[]")
    (book / "other.txt").write_text("not a stored result")
    assert thawed(book) == set()


def test_a_freeze_without_a_record_is_not_trusted(book):
    provenance.record_path("index").unlink()
    assert thawed(book) == {"index"}


def test_the_quick_profile_is_left_alone(book, monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    assert provenance.thaw() == []


def test_the_step_takes_under_a_second_and_no_torch():
    code = (
        "import sys, time; t = time.perf_counter()\n"
        "from digitcnn import provenance\n"
        "[provenance.changes(d) for d in provenance.documents()]\n"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules), 'heavy import'\n"
        "print(time.perf_counter() - t)"
    )
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 3  # measured 0.3 s; room for a busy machine


def test_the_committed_records_fit_the_committed_code_and_results():
    documents = [d for d in provenance.documents() if (ROOT / "_freeze" / d).is_dir()]
    if not documents:
        pytest.skip("nothing is frozen yet")
    stale = {d: provenance.changes(d) for d in documents}
    assert not any(stale.values()), json.dumps(stale, indent=1)
