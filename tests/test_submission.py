"""The submission: names, what is checked, what is packed, and that the same gives the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import one_sentence

pytest.importorskip("pypandoc")
pytest.importorskip("typst")
pypdf = pytest.importorskip("pypdf")
from tiny import make_book  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import submission  # noqa: E402

NAME, ROLL = "Zoë O’Neil-Müller", "M23_CS-001"
WRONG = [
    *("", " ", "../../etc/passwd", "a/b", "a\\b", "/", ".", "..", "a..b", ".hidden", "Ada.", "-rf"),
    *("a;b", "a|b", "a&b", "$(id)", "`id`", "a>b", "a*", "a?", '"', "~", "a:b", "#", "{a}", "a=b"),
    *("a\nb", "a\tb", "a\0b", "a\x1b[1mb", "a\u202eb", "a\u00a0b", "a\ufeffb", "a--b", "a  b"),
    *("a" * 61, "a, b", "a@b", "<b>", "[a](b)", "*a*", "a\u2028b", "\u200da", "🙂"),
]
# A submission without what the tiny book cannot have: results, and chapters that answer (a) to (f).
RUN = """
import os, sys
os.environ["DIGITCNN_PROFILE"] = "full"
sys.path.insert(0, "tools")
import submission
submission.check.problems = list
submission.notebooks.is_current = lambda chapter: True
sys.exit(submission.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_name_is_refused_in_a_sentence(text, capsys):
    for arguments, what in (([text, ROLL], "NAME"), ([NAME, text], "ROLL")):
        assert submission.main(arguments) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith(f"make submission: {what} is ")
        one_sentence(ValueError(said.err.strip()))


def test_digits_belong_to_the_roll_number_alone(capsys):
    assert submission.main(["Ada 2", ROLL]) == 1
    assert "NAME is 'Ada 2'" in capsys.readouterr().err
    assert submission.main(["अ" * 60, "क" * 60]) == 1
    assert "too long together" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        *("Ada Lovelace", "Zoë O’Neil-Müller", "D'Arcy", "De' Medici", "J. R. R. Tolkien", "X"),
        *("Ngô Bảo Châu", "अनन्या शर्मा", "李小龍", "محمد علي", "Анна Ёлкина", "ශ්\u200dරී ලංකා"),
    ],
)
def test_names_of_any_script_are_names(name):
    assert submission.checked(name, "NAME", "x", " .-'’\u200c\u200d") == name


def test_make_passes_names_on_as_they_were_typed(tmp_path):
    wrapper = tmp_path / "wrapper.mk"
    show = 'show:\n\t@printf \'[%s][%s]\' "$$NAME" "$$ROLL"\n'
    wrapper.write_text(f"include {ROOT / 'Makefile'}\n{show}")
    name = "$(shell touch one)`touch two`\"; touch three; ' $$(touch four)"
    roll = "$(error five)$$x"

    def shown(*arguments: str) -> str:
        environment = {**os.environ, "NAME": "host"}  # as on some systems
        command = ["make", "-s", "-f", wrapper, "show", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert shown(f"NAME={name}", f"ROLL={roll}") == f"[{name}][{roll}]"
    assert shown() == "[][]"
    assert [path.name for path in tmp_path.iterdir()] == ["wrapper.mk"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The tiny book with this project's tools, and things that are no part of a submission."""
    root = make_book(tmp_path_factory.mktemp("submission") / "project")
    for folder in ("tools", "digitcnn"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    for path in (
        *("cache/metrics/mnist/train.txt", "cache/chapters/01-data.json", "models/a.safetensors"),
        *(
            "cache/local/checkpoints/mnist.safetensors",
            "cache/local/features/x.npz",
            "cache/local/locks/a.lock",
        ),
        *("models/digitcnn-mnist-exp-e3-s42.safetensors", "cache/runs/.mnist.json.x.part"),
        *("data/MNIST/raw/t10k-images-idx3-ubyte", "assets/train_32x32.mat", ".git/config"),
        *(
            "digitcnn/__pycache__/a.pyc",
            ".secret",
            "Other.R1.zip",
            "_book/index.html",
            *("private.txt", "tests/t10k-images-idx3-ubyte", "assets/sets/checksums.json"),
        ),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x\n")
    (root / "assets" / "link.txt").symlink_to(root / ".secret")
    for chapter in ("01-data", "02-model"):
        write_notebook(root, chapter)
    return root


def write_notebook(root: Path, chapter: str, *outputs: dict, count: int | None = 1) -> None:
    """A notebook of one cell where `make notebooks` puts it."""
    cell = {"cell_type": "code", "execution_count": count, "outputs": [*outputs], "source": "1"}
    path = root / "notebooks" / f"{chapter}.ipynb"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": [cell], "metadata": {}}))


def run(root: Path, *arguments: str, name: str = NAME) -> subprocess.CompletedProcess:
    """Run the submission in the tiny project with the renderer without Quarto."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN")}
    environment = {**kept, "DIGITCNN_QUARTO": "none", "DIGITCNN_DATA": str(root / "assets/sets")}
    command = [sys.executable, *(arguments or ("-c", RUN)), name, ROLL]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def packed(project, tmp_path_factory):
    """The archive, unpacked elsewhere: its folder."""
    done = run(project)
    assert done.returncode == 0, done.stdout + done.stderr
    path = project / f"{NAME}.{ROLL}.zip"
    target = tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(path) as book:
        assert book.testzip() is None
        assert book.namelist() == sorted(book.namelist())
        assert {entry.date_time for entry in book.infolist()} == {submission.STAMP}
        book.extractall(target)
    assert [entry.name for entry in target.iterdir()] == [f"{NAME}.{ROLL}"]
    return target / f"{NAME}.{ROLL}"


def test_the_archive_holds_what_it_should_and_no_more(packed):
    assert sorted(path.name for path in packed.iterdir()) == [
        *("README.md", "notebooks", "project", "report", "report.pdf"),
    ]
    found = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    project = {name.removeprefix("project/") for name in found if name.startswith("project/")}
    assert {
        *("_quarto.yml", "index.qmd", "refs.bib", "Makefile", ".gitignore", "models/a.safetensors"),
        *("digitcnn/runs.py", "digitcnn/model.py", "tools/submission.py", "tools/portable.lua"),
        *("cache/metrics/mnist/train.txt", "cache/chapters/01-data.json", "chapters/01-data.qmd"),
        "_freeze/chapters/01-data/execute-results/html.json",
    } <= project
    for part in (
        *("data/MNIST", "cache/local", "features", "locks", ".part", "ubyte"),
        *(".mat", ".git/", "checksums"),
        *("__pycache__", "secret", ".zip", "_book", "private", ".venv", "link", "submission.yml"),
    ):
        assert not [name for name in project if part in name], part
    assert {"notebooks/01-data.ipynb", "notebooks/02-model.ipynb"} <= found
    readme = (packed / "README.md").read_text("utf-8")
    assert readme.startswith(f"# {NAME} (roll number {ROLL})\n")
    for what in ("report.pdf", "report/index.html", "notebooks/", "project/models/"):
        assert f"`{what}`" in readme and (packed / what).exists()


def test_the_name_is_on_the_title_page_and_no_other(packed):
    reader = pypdf.PdfReader(packed / "report.pdf")
    assert f"{NAME} (roll number {ROLL})" in " ".join(reader.pages[0].extract_text().split())
    assert reader.metadata["/Author"] == f"{NAME} (roll number {ROLL})"
    assert f'<p class="author">{NAME} (roll' in (packed / "report/index.html").read_text("utf-8")
    config = (packed / "project" / "_quarto.yml").read_text("utf-8")
    assert f'  author: "{NAME} (roll number {ROLL})"\n' in config
    for path in packed.rglob("*"):
        assert not path.is_file() or b"An Author" not in path.read_bytes(), path


def test_the_same_input_gives_the_same_bytes(packed, project):
    path = project / f"{NAME}.{ROLL}.zip"
    before = path.read_bytes()
    os.utime(project / "index.qmd", (1, 1))
    assert run(project).returncode == 0
    assert path.read_bytes() == before
    assert not (project / "_book.submission").exists()
    assert not (project / "_quarto-submission.yml").exists()
    assert "An Author" in (project / "_quarto.yml").read_text("utf-8")  # as it was


def test_an_archive_depends_on_names_and_contents_alone():
    files = {"b": b"2", "a": b"1"}
    one = submission.archive("x", files)
    assert one == submission.archive("x", dict(reversed(files.items())))
    assert one != submission.archive("x", files | {"a": b"3"})
    assert one != submission.archive("y", files)


def test_quartos_order_of_attributes_does_not_matter():
    one = b'<div id="a" data-b="1" data-a="[2,3]" class="c"><i data-z="1"></i>'
    other = b'<div id="a" data-a="[2,3]" data-b="1" class="c"><i data-z="1"></i>'
    assert submission.tidy("report/a.html", one) == submission.tidy("report/a.html", other)
    assert submission.tidy("report/a.html", other) == other
    assert submission.tidy("report/a.js", one) == one


def test_anothers_name_and_this_machines_paths_stop_it(project):
    by, path = project / "digitcnn" / "by.py", project / "tools" / "path.py"
    by.write_text("# by An Author\n")
    path.write_text(f"# {project}/data\n")
    try:
        done = run(project, name="Bob")
    finally:
        by.unlink()
        path.unlink()
    assert done.returncode == 1 and "2 to mend" in done.stderr
    assert "- project/digitcnn/by.py names An Author: remove that" in done.stderr
    assert f"- project/tools/path.py holds the path {project} of this machine" in done.stderr
    assert not list(project.glob("Bob*"))


def test_notebooks_that_show_errors_stop_it(project):
    write_notebook(project, "01-data", {"output_type": "error"})
    write_notebook(project, "02-model", count=None)
    try:
        done = run(project, name="Bob")
    finally:
        for chapter in ("01-data", "02-model"):
            write_notebook(project, chapter)
    assert done.returncode == 1 and "2 to mend" in done.stderr
    assert "- notebooks/01-data.ipynb shows an error" in done.stderr
    assert "- notebooks/02-model.ipynb is not executed" in done.stderr


def test_what_is_stale_or_missing_stops_it(project):
    chapter, notebook = project / "chapters/01-data.qmd", project / "notebooks/02-model.ipynb"
    text = chapter.read_text()
    chapter.write_text(text + "\nMore.\n")
    notebook.unlink()
    try:
        done = run(project, "tools/submission.py")
    finally:
        chapter.write_text(text)
        write_notebook(project, "02-model")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and lines[0].endswith(f"{len(lines) - 1} to mend:"), done.stderr
    for expected in (
        *("chapters/01-data.qmd is stale", "Question (a), ", "Runs that are missing"),
        "notebooks/01-data.ipynb is stale: run `make notebooks`.",
        "notebooks/02-model.ipynb is missing: run `make notebooks`.",
    ):
        assert any(line.startswith(f"- {expected}") for line in lines), expected


def test_a_model_that_does_not_load_is_named(project, monkeypatch):
    monkeypatch.setenv("DIGITCNN_ROOT", str(project))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setattr(submission, "ROOT", project)
    assert submission.model_problems() == []
    path = project / "models" / "digitcnn-svhn-e50-s42.safetensors"
    path.write_bytes(b"damaged")
    (problem,) = submission.model_problems()
    path.unlink()
    assert "svhn-e50-s42.safetensors is damaged" in one_sentence(ValueError(problem))


def test_letters_that_the_pdf_cannot_draw_stop_it(project):
    done = run(project, name="李小龍")
    assert done.returncode == 1 and "The fonts of the PDF have no 小 李 龍" in done.stderr
