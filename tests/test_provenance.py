"""Provenance: exactly the chapters whose code or stored results changed are executed again."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import one_sentence

from digitcnn import files, provenance, report
from digitcnn.files import DigitcnnError

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
    for name in ("DIGITCNN_PROFILE", "DIGITCNN_TRAIN", "QUARTO_PROJECT_INPUT_FILES"):
        monkeypatch.delenv(name, raising=False)
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
    freeze(tmp_path, "index")
    files.noted(stored["models/m.safetensors"])
    files.noted(stored["other.txt"])
    freeze(tmp_path, "chapters/01-data")
    freeze(tmp_path, "chapters/02-training")
    return tmp_path


def freeze(root: Path, document: str) -> None:
    """Execute a document as Quarto does: its last call records it, and its pages say its key."""
    pages = root / "_freeze" / document / "execute-results"
    pages.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5((root / f"{document}.qmd").read_bytes()).hexdigest()
    page = {"hash": digest, "result": {"markdown": report.colophon(document).data}}
    for name in ("html.json", "typ.json"):
        (pages / name).write_text(json.dumps(page))


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


def test_a_damaged_record_is_not_trusted(book):
    """One bit of a digest flipped, an entry removed, a file that is no JSON."""
    path = provenance.record_path("chapters/01-data")
    whole = path.read_text()
    shorter = json.loads(whole)
    shorter["files"].clear()
    for content in (whole.replace('"full"', '"fuml"'), json.dumps(shorter), "{", "[]"):
        assert content != whole
        path.write_text(content)
        assert provenance.changes("chapters/01-data") == [
            "there is no valid record of what it was made from"
        ]
    assert thawed(book) == {"chapters/01-data"}


@pytest.mark.parametrize("content", ["{}", "{", '{"result": {"markdown": "another key"}}'])
def test_a_freeze_of_another_execution_is_not_trusted(book, content):
    (book / "_freeze/chapters/01-data/execute-results/typ.json").write_text(content)
    assert thawed(book) == {"chapters/01-data"}


def test_an_execution_from_the_cache_keeps_what_the_first_read(book, monkeypatch):
    """The PDF's execution finds results that the HTML's cached, and does not read the model."""
    first = provenance.read_record("chapters/01-data")
    assert "models/m.safetensors" in first["files"]
    monkeypatch.setattr(files, "_reads", set())
    assert provenance.record("chapters/01-data")["key"] == first["key"]
    path = book / "chapters/01-data.qmd"
    path.write_text(path.read_text() + "\nOther prose.\n")
    assert provenance.record("chapters/01-data")["key"] == first["key"]
    path.write_text(path.read_text().replace("#| label: x", "changed = True"))
    assert provenance.record("chapters/01-data")["files"] == {}  # other code: what it read counts


def test_a_result_that_git_ignores_is_no_dependency(book):
    """It is missing in every fresh copy, where the freeze has to be good."""
    (book / ".gitignore").write_text("/models/*\n!/models/m.*\n/cache/features/\n*.part\n")
    for name, expected in {
        "models/m.safetensors": True, "models/n.safetensors": False, "cache/features/a.npz": False,
        "cache/umap/a.npz": True, "cache/umap/.a.part": False, "cache/chapters/index.json": False,
        "data/a": False,
    }.items():  # fmt: skip
        assert provenance.kept(name) == expected, name
    monkey = book / "models/n.safetensors"
    monkey.write_text("weights")
    files.noted(monkey)
    assert "models/n.safetensors" not in provenance.record("chapters/01-data")["files"]


@pytest.mark.parametrize(
    "name",
    ["../index", "chapters/../../index", "/etc/passwd", "", "chapters/", "a b", "$(reboot)",
     "chapters/01\n", "\x1b[31m", "Chapters/01"],
)  # fmt: skip
def test_a_chapter_name_that_leaves_the_folder_is_refused(book, name):
    before = sorted(book.rglob("*"))
    for use in (provenance.record, report.colophon, provenance.record_path):
        with pytest.raises(DigitcnnError, match="chapter name") as caught:
            use(name)
        one_sentence(caught.value)
    assert sorted(book.rglob("*")) == before


def test_an_unknown_chapter_is_one_sentence(book):
    with pytest.raises(DigitcnnError, match="There is no chapter") as caught:
        provenance.record("chapters/09-none")
    one_sentence(caught.value)


def test_a_cell_that_is_no_python_is_one_sentence(book):
    path = book / "index.qmd"
    path.write_text(path.read_text().replace("from digitcnn", "from digitcnn from"))
    with pytest.raises(DigitcnnError, match=r"index\.qmd has a cell") as caught:
        provenance.thaw()
    one_sentence(caught.value)


def test_the_page_says_the_key_of_its_record(book):
    shown = report.colophon("chapters/01-data").data
    assert provenance.read_record("chapters/01-data")["key"] in shown
    assert 'when-format="html"' in shown and "cache/chapters/01-data.json" in shown


def test_the_quick_profile_is_left_alone(book, monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    assert provenance.thaw() == []


def test_the_step_takes_under_a_second_and_no_torch():
    code = (
        "import sys, time; t = time.process_time()\n"
        "from digitcnn import status\n"
        "status.training_notice(status.to_execute())\n"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules), 'heavy import'\n"
        "print(time.process_time() - t)"
    )
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 1  # of the processor's time, whatever else the machine does


def test_what_a_chapter_imports_is_among_what_it_reaches():
    """Python's own account of it, for the chapters as they are."""
    code = (
        "import json, sys\n"
        "found = {}\n"
        "for name, source in json.load(sys.stdin).items():\n"
        "    for module in [m for m in sys.modules if m.startswith('digitcnn')]:\n"
        "        del sys.modules[module]\n"
        "    exec(source, {})\n"
        "    found[name] = [m[9:] for m in sys.modules if m.startswith('digitcnn.')]\n"
        "print(json.dumps(found))"
    )
    imports = {}
    for document in provenance.documents():
        lines = provenance.code(document).splitlines()
        imports[document] = "\n".join(x for x in lines if re.match(r"(from|import) digitcnn", x))
    answer = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(imports), capture_output=True, text=True,
        cwd=ROOT, check=True,
    )  # fmt: skip
    for document, modules in json.loads(answer.stdout).items():
        assert len(modules) > 3
        assert set(modules) <= provenance.reached(document) | {"provenance"}, document


def test_every_frozen_page_says_the_key_of_its_record():
    """And it is a record of files that are part of the repository."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    for document in provenance.documents():
        about = provenance.read_record(document)
        for page in (ROOT / "_freeze" / document / "execute-results").glob("*.json"):
            markdown = json.loads(page.read_text("utf-8"))["result"]["markdown"]
            assert f"have the key `{about['key']}`" in markdown, page
        assert all(provenance.kept(name) for name in about.get("files", {}))
        if tracked:
            assert about.get("files", {}).keys() <= set(tracked.splitlines()), document


def test_the_committed_records_fit_the_committed_code_and_results():
    documents = [d for d in provenance.documents() if (ROOT / "_freeze" / d).is_dir()]
    if not documents:
        pytest.skip("nothing is frozen yet")
    stale = {d: provenance.changes(d) for d in documents}
    assert not any(stale.values()), json.dumps(stale, indent=1)
