"""The submission: what is made and checked, what is packed, and that it stays the same."""

from __future__ import annotations

import datetime
import io
import json
import os
import re
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

from digitcnn import provenance, runs  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import archive  # noqa: E402
import submission  # noqa: E402

NAME, ROLL, DAY = "Zoë O’Neil-Müller Jr.", "M23_CS-001", "2025-03-09"
AUTHOR, STEM = f"{NAME} (roll number {ROLL})", f"Zoë O’Neil-Müller Jr.{ROLL}"
# Refused by Gmail (support.google.com/mail/answer/6590) or by Exchange's filter of common
# attachments, directly or in an archive; and archives, which must not lie in one.
NO_MAIL_TAKES = """
7z ace ade adp ani apk app appx appxbundle arj bat bz2 cab chm cmd com cpl deb dex diagcab
diagcfg diagpkg dll dmg docm elf ex ex_ exe gz hta img ins iso isp jar jnlp js jse kext lha
lib library lnk lzh macho mde mjs msc msi msix msixbundle msp mst nsh pif ppa ppam ps1 rar reg
rev scf scr sct shb sys tar tgz uif vb vbe vbs vhd vxd whl wsc wsf wsh xll xz z zip
"""


# A tiny book, packed -----------------------------------------------------------------------------

CONFIG = """project: {type: book}
book:
  title: "A tiny book"
  date: 2026-11-24
  chapters: [index.qmd, chapters/01-data.qmd]
format:
  html: default
  typst: default
"""
NOTEBOOK = {"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Title"}]}
NOTEBOOK |= {"metadata": {}, "nbformat": 4, "nbformat_minor": 5}
# A submission without what the tiny book cannot have: trained runs, and the notebook of these.
RUN = f"""
import json, os, sys
os.environ["DIGITCNN_PROFILE"] = "full"
sys.path.insert(0, "tools")
import archive, submission
submission.training_needed = lambda draft: []
submission.check.report_problems = list
submission.notebook.build = lambda draft, tell: {json.dumps(NOTEBOOK)!r}
archive.LIMIT = int(os.environ.get("LIMIT", archive.LIMIT))
sys.exit(submission.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The tiny book with this project's tools, and things that are no part of a submission."""
    root = tmp_path_factory.mktemp("submission") / "project"
    for folder in ("tools", "digitcnn", "assets"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", ".gitignore", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, root / name)
    (root / "_quarto.yml").write_text(CONFIG)
    (root / "index.qmd").write_text("# Preface {.unnumbered}\n\nHello.\n")
    (root / "chapters").mkdir()
    (root / "chapters" / "01-data.qmd").write_text("# Data {#sec-data}\n\nIn @sec-data.\n")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    for name in (
        *("cache/metrics/mnist/train.txt", "models/digitcnn-other-e50-s42.safetensors"),
        *("_freeze/site_libs/x/a.js", "cache/runs/.mnist.json.x.part", "cache/umap/a.npz"),
        *("cache/answers/svhn-s43.npz", "cache/evaluation/b.npz", "cache/answers/mnist.npz"),
        *("cache/local/checkpoints/mnist.safetensors", "cache/local/locks/a.lock"),
        *("data/MNIST/raw/t10k-images-idx3-ubyte", "assets/train_32x32.mat", ".git-old/config"),
        *("digitcnn/__pycache__/a.pyc", ".secret", "Other.R1.zip", "_book/index.html"),
        *("private.txt", "tests/t10k-images-idx3-ubyte", "assets/sets/checksums.json"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")
    (root / "assets" / "link.txt").symlink_to(root / ".secret")
    return root


def run(root: Path, name: str = NAME, **more: str) -> subprocess.CompletedProcess:
    """Run the submission in the tiny project with the renderer that needs no Quarto."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DIGITCNN")}
    environment = {**kept, "DIGITCNN_QUARTO": "none", "DIGITCNN_DATA": str(root / "assets/sets")}
    command = [sys.executable, "-c", RUN, name, ROLL, DAY]
    environment |= more
    return subprocess.run(command, cwd=root, env=environment, capture_output=True)


@pytest.fixture(scope="module")
def packed(project, tmp_path_factory):
    """The archive, unpacked elsewhere: its folder. Made on a terminal of another encoding."""
    done = run(project, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, (done.stdout + done.stderr).decode("latin-1")
    said = done.stdout.decode("latin-1").splitlines()
    assert [line[:5] for line in said if line.startswith("[")] == [f"[{n}/5]" for n in range(1, 6)]
    last = r"Zoë O\?Neil-Müller Jr\.M23_CS-001\.zip: \d+\.\d MB, fits a mail; left out: the data "
    last += r"sets, the web pages, 1 model of further runs \(their digests are in it\)\."
    assert re.fullmatch(last, said[-1]), said[-1]
    target = tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(project / f"{STEM}.zip") as book:
        assert book.testzip() is None
        assert book.namelist() == sorted(book.namelist())
        assert {entry.date_time for entry in book.infolist()} == {(2025, 3, 9, 0, 0, 0)}
        book.extractall(target)
    assert [entry.name for entry in target.iterdir()] == [STEM]
    return target / STEM


def test_the_archive_holds_what_it_should_and_no_more(packed):
    top = ["Assignment-2.ipynb", "README.md", "project", "report.pdf"]
    assert sorted(path.name for path in packed.iterdir()) == top
    found = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    project = {name.removeprefix("project/") for name in found if name.startswith("project/")}
    assert {
        *("_quarto.yml", "index.qmd", "Makefile", ".gitignore", "LICENSE", "left-out.json"),
        *("digitcnn/runs.py", "tools/submission.py", "tools/assignment2/1-training.py"),
        *("cache/metrics/mnist/train.txt", "chapters/01-data.qmd", "cache/answers/mnist.npz"),
        *("digitcnn/demo/page/demo_js.txt", "_freeze/site_libs/x/a_js.txt"),
    } <= project
    for part in (
        *("data/MNIST", "cache/local", "locks", ".part", "ubyte", ".mat", "git-old", "checksums"),
        *("__pycache__", "secret", ".zip", "_book", "private", ".venv", "link", "submission.yml"),
    ):
        assert not [name for name in project if part in name], part
    assert sum(name.endswith(".pdf") for name in found) == 1


def test_no_file_is_of_a_kind_that_mails_refuse(packed):
    assert set(NO_MAIL_TAKES.split()) <= set(archive.REFUSED.split())
    for path in packed.rglob("*"):
        assert path.suffix.lower().lstrip(".") not in NO_MAIL_TAKES.split(), path
    assert archive.problems({"project/tests/a.EXE": b"", "project/b.txt": b""}) == [
        "project/tests/a.EXE is of a kind that mail services refuse: remove it."
    ]


def test_nothing_inside_the_projects_own_containers_is_of_such_a_kind():
    """A stored result is a ZIP file of arrays, under an ending that is no archive's."""
    found = 0
    for path in (ROOT / "cache").rglob("*.npz"):
        with zipfile.ZipFile(path) as inside:
            assert {name.rpartition(".")[2] for name in inside.namelist()} == {"npy"}, path
            found += 1
    assert found > 10
    for where in archive.packable():
        assert (
            where.endswith(".js") or where.rpartition(".")[2].lower() not in NO_MAIL_TAKES.split()
        )


def test_whose_it_is_stands_on_the_first_page_and_on_the_notebook(packed):
    reader = pypdf.PdfReader(packed / "report.pdf")
    first = " ".join(reader.pages[0].extract_text().split())
    assert AUTHOR in first and "March" in first and "2025" in first
    assert reader.metadata["/Author"] == AUTHOR
    config = (packed / "project" / "_quarto.yml").read_text("utf-8")
    assert f'  author: "{AUTHOR}"\n  date: {DAY}\n' in config
    assert r"**Zoë O’Neil-Müller Jr. (roll number M23\\_CS-001), 2025-03-09**" in (
        packed / "Assignment-2.ipynb"
    ).read_text("utf-8")
    assert (packed / "README.md").read_text("utf-8").startswith(f"# {AUTHOR}, {DAY}\n")


def test_a_book_without_an_author_has_no_line_for_one(project, tmp_path):
    """As `make report` renders it; a name that is made up must not stand there."""
    assert "author" not in (ROOT / "_quarto.yml").read_text("utf-8")
    code = "import sys; sys.path.insert(0, 'tools'); import report; from pathlib import Path;"
    code += f"report.render(Path.cwd(), None, Path({str(tmp_path / 'book')!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (pdf,) = (tmp_path / "book").glob("*.pdf")
    reader = pypdf.PdfReader(pdf)
    assert not (reader.metadata.get("/Author") or "")
    assert "uthor" not in reader.pages[0].extract_text()


def test_no_link_is_dead(packed):
    for path in packed.rglob("*.md"):
        if "tests" not in path.parts and path.name != "CONTRIBUTING.md":
            text = path.read_text("utf-8")
            links = [x for x in re.findall(r"\]\(([^)\s#]+)", text) if "://" not in x]
            if path.parent == packed:  # folders and files are named in code there
                links += re.findall(r"^\| `([\w./-]+)`", text, re.MULTILINE)
            for link in links:
                # What the tiny book lacks the project itself has, and packs: see below.
                there = (path.parent / link, ROOT / link.removeprefix("project/"))
                assert any(place.exists() for place in there), (path, link)
    sent = archive.packable()
    for page in ROOT.glob("*.md"):
        for link in re.findall(r"\]\(([^)\s#]+)", page.read_text("utf-8")):
            assert "://" in link or link in sent, (page.name, link)


def test_a_pdf_that_links_to_what_is_not_there_is_refused(packed, tmp_path):
    day = datetime.date.fromisoformat(DAY)
    assert submission.page_problems(packed / "report.pdf", AUTHOR, day) == []
    from pypdf.annotations import Link

    writer = pypdf.PdfWriter(packed / "report.pdf")
    box = pypdf.generic.RectangleObject((0, 0, 9, 9))
    for link in ("../cache/metrics/mnist/test.txt", "https://arxiv.org/abs/1412.6980"):
        writer.add_annotation(0, Link(rect=box, url=link))
    writer.write(tmp_path / "bad.pdf")
    (problem,) = submission.page_problems(tmp_path / "bad.pdf", AUTHOR, day)
    assert "The PDF links to ../cache/metrics/mnist/test.txt" in one_sentence(ValueError(problem))
    found = submission.page_problems(packed / "report.pdf", "Bob", datetime.date(2020, 1, 1))
    assert any("does not name Bob and 2020-01-01" in one_sentence(ValueError(x)) for x in found)


def test_the_same_input_gives_the_same_bytes(packed, project):
    path = project / f"{STEM}.zip"
    before = path.read_bytes()
    os.utime(project / "index.qmd", (1, 1))
    assert run(project).returncode == 0
    assert path.read_bytes() == before
    assert not (project / "_book.submission").exists()
    assert not (project / "_quarto-submission.yml").exists()
    assert (project / "_quarto.yml").read_text("utf-8") == CONFIG


def test_an_archive_depends_on_names_contents_and_day_alone():
    day, files = datetime.date(2025, 3, 9), {"b": b"2", "a": b"1"}
    one = archive.zipped("x", files, day)
    assert one == archive.zipped("x", dict(reversed(files.items())), day)
    assert one != archive.zipped("x", files | {"a": b"3"}, day)
    assert one != archive.zipped("y", files, day)
    assert one != archive.zipped("x", files, datetime.date(2025, 3, 10))


def test_what_does_not_fit_is_left_out_answers_first(project):
    big = {"cache/answers/svhn-s43.npz": 400_000, "cache/evaluation/b.npz": 300_000}
    big |= {"cache/umap/a.npz": 200_000, "cache/answers/mnist.npz": 100_000}
    whole = {name: (project / name).read_bytes() for name in big}
    try:
        for name, size in big.items():
            (project / name).write_bytes(os.urandom(size))
        base = len((project / f"{STEM}.zip").read_bytes())
        for limit, expected in ((700_000, 1), (400_000, 2), (100_000, 2)):
            done = run(project, LIMIT=str(base + limit))
            assert done.returncode == 0, done.stderr.decode()
            last = done.stdout.decode().splitlines()[-1]
            assert (
                f"and {expected} stored result{'s' * (expected > 1)} (their digests are in it, "
                in last
            )
            assert ("fits a mail" if limit > 100_000 else "too large for a mail") in last
            with zipfile.ZipFile(project / f"{STEM}.zip") as book:
                names = {name.removeprefix(f"{STEM}/project/") for name in book.namelist()}
                known = json.loads(book.read(f"{STEM}/project/left-out.json"))
            assert {"cache/umap/a.npz", "cache/answers/mnist.npz"} <= names
            out = list(big)[:expected]
            assert not names & set(out)
            assert {n: provenance.file_digest(project / n) for n in out}.items() <= known.items()
    finally:
        for name, content in whole.items():
            (project / name).write_bytes(content)


def test_this_machines_paths_stop_it(project):
    path = project / "tools" / "path.py"
    path.write_text(f"# {project}/data\n")
    try:
        done = run(project, name="Bob")
    finally:
        path.unlink()
    assert done.returncode == 1 and b"1 to mend" in done.stderr
    assert f"- project/tools/path.py holds the path {project} of" in done.stderr.decode()
    assert not list(project.glob("Bob*"))


def test_letters_that_the_pdf_cannot_draw_are_named(project):
    """Or drawn, where a font of the system has them."""
    name = "Zoë 𐤀𐤁"  # Phoenician
    done = run(project, name=name)
    if done.returncode:
        assert re.search("The fonts of the PDF have no .*𐤁: install one that", done.stderr.decode())
    else:
        with zipfile.ZipFile(project / f"{name}.{ROLL}.zip") as packed:
            pdf = packed.read(next(n for n in packed.namelist() if n.endswith("report.pdf")))
        text = pypdf.PdfReader(io.BytesIO(pdf)).pages[0].extract_text()
        assert "Zoë" in text and {"𐤀", "𐤁"} <= set(text)


def test_a_model_that_does_not_load_is_named(sandbox, monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    assert submission.model_problems() == []
    path = runs.weights_path(runs.get("svhn"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    (problem,) = submission.model_problems()
    assert "svhn-e50-s42.safetensors is damaged" in one_sentence(ValueError(problem))


def test_runs_that_are_to_be_trained_are_named_with_their_hours(sandbox, monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    with pytest.raises(submission.SetupError) as caught:
        submission.training_needed(draft=False)
    assert re.match(r"\d+ runs are not trained \(mnist, svhn, .*about [\d.]+ h", str(caught.value))
    assert "`make train`" in one_sentence(caught.value)
    assert len(submission.training_needed(draft=True)) == 1


def test_the_notebook_is_made_again_only_if_something_changed(sandbox, monkeypatch):
    made = []

    def build(draft, tell):
        made.append(draft)
        return json.dumps(NOTEBOOK)

    monkeypatch.setattr(submission.notebook, "build", build)
    content = {"cache/a.npz": b"1", "README.md": b"1"}
    monkeypatch.setattr(archive, "packable", lambda: content)
    day = datetime.date(2025, 3, 9)
    first = submission.the_notebook("Ada (roll number 1)", day, False)
    assert submission.the_notebook("Bob (roll number 2)", day, False) != first and len(made) == 1
    content["README.md"] = b"2"
    assert submission.the_notebook("Ada (roll number 1)", day, False) == first and len(made) == 1
    content["cache/a.npz"] = b"2"
    submission.the_notebook("Ada (roll number 1)", day, False)
    submission.the_notebook("Ada (roll number 1)", day, True)
    assert made == [False, False, True]


def test_scripts_get_their_names_back(packed, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(packed / "project", project)
    code = (
        "import sys; sys.path.insert(0, 'tools'); import environment; environment.unpack_scripts()"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], cwd=project, check=True)
    script = project / "digitcnn" / "demo" / "page" / "demo.js"
    assert script.read_bytes() == (ROOT / "digitcnn/demo/page/demo.js").read_bytes()
    assert not list(project.rglob("*_js.txt"))
