"""The executor: results are exchanged whole, what was observed decides, nothing is lost."""

import importlib.metadata
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import one_sentence

from digitcnn import cli, files, provenance
from digitcnn.files import DigitcnnError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import execute  # noqa: E402

CONFIG = """
project: {type: book, execute-dir: project}
book:
  title: A toy book
  chapters: [index.qmd, chapters/01-one.qmd, chapters/02-two.qmd]
format: {html: {fig-dpi: 50}, typst: default}
"""
CHAPTERS = {
    "index": "print('nothing read')",
    "chapters/01-one": "value = open('cache/numbers.txt').read()\nvalue",
    "chapters/02-two": "import matplotlib.pyplot as plt\nfrom digitcnn import stats_of_the_book\n"
    "plt.plot([1, stats_of_the_book.TWO]);",
}
OPTIONS = {"chapters/02-two": "#| label: fig-x\n#| fig-cap: A line.\n#| fig-alt: A line.\n"}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A toy book with a copy of the package of its own, all chapters executed once."""
    root = tmp_path_factory.mktemp("book")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "digitcnn", root / "digitcnn", ignore=ignored)
    (root / "digitcnn" / "stats_of_the_book.py").write_text("TWO = 2\n")
    (root / "_quarto.yml").write_text(CONFIG)
    for folder in ("chapters", "cache", "requirements"):
        (root / folder).mkdir()
    (root / "cache" / "numbers.txt").write_text("42")
    (root / "requirements" / "full.txt").write_text(f"matplotlib=={version('matplotlib')}\n")
    for name, code in CHAPTERS.items():
        text = f"# {name}\n\nSome text.\n\n```{{python}}\n{OPTIONS.get(name, '')}{code}\n```\n"
        (root / f"{name}.qmd").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        enter(root, patch)
        assert execute.main([]) == 0
    return root


@pytest.fixture
def book(executed, tmp_path, monkeypatch):
    """A copy of that book, for a test to change."""
    root = tmp_path / "book"
    shutil.copytree(executed, root)
    enter(root, monkeypatch)
    yield root
    forget()


def enter(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Make a book the project of this process and of the kernels."""
    patch.setenv("DIGITCNN_ROOT", str(root))
    patch.setenv("PYTHONPATH", str(root))
    patch.delenv("DIGITCNN_PROFILE", raising=False)
    patch.setattr(provenance.reach, "_PACKAGE", root / "digitcnn")
    forget()


def forget() -> None:
    """What is remembered of the package's source."""
    provenance.reach.module.cache_clear()
    provenance.reach._definition.cache_clear()


def stale() -> list[str]:
    forget()
    return [name for name in provenance.documents() if not provenance.state(name).whole]


def snapshot(root: Path) -> dict[str, bytes]:
    """All bytes of the frozen results."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted((root / "_freeze").rglob("*"))
        if path.is_file()
    }


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def page(root: Path, document: str, ending: str = "html") -> str:
    path = root / "_freeze" / document / "execute-results" / f"{ending}.json"
    return json.loads(path.read_text())["result"]["markdown"]


def test_a_chapter_is_executed_once_for_both_formats_and_says_what_it_read(book):
    assert stale() == []
    record = provenance.read_record(provenance.frozen("chapters/01-one"))
    assert record["files"] == {
        "cache/numbers.txt": provenance.file_digest(book / "cache/numbers.txt")
    }
    assert "'42'" in page(book, "chapters/01-one") and "'42'" in page(
        book, "chapters/01-one", "typ"
    )
    two = provenance.read_record(provenance.frozen("chapters/02-two"))
    assert "stats_of_the_book" in two["modules"] and "stats_of_the_book" not in record["modules"]
    assert any(name.endswith(".svg") for name in two["frozen"])
    assert two["libraries"] == {"matplotlib": version("matplotlib")}


@pytest.mark.parametrize(
    ("change", "document"),
    [
        (lambda root: (root / "cache/numbers.txt").write_text("43"), "chapters/01-one"),
        (lambda root: (root / "cache/numbers.txt").unlink(), "chapters/01-one"),
        (lambda root: edit(root / "digitcnn/stats_of_the_book.py", "2", "3"), "chapters/02-two"),
        (lambda root: edit(root / "index.qmd", "Some", "Other"), "index"),
        (lambda root: edit(root / "_freeze/index/execute-results/html.json", "read", "seen"),
         "index"),
        (lambda root: next((root / "_freeze/chapters/02-two").rglob("*.svg")).unlink(),
         "chapters/02-two"),
        (lambda root: cut(root / "_freeze/index/execute-results/typ.json"), "index"),
        (lambda root: cut(next((root / "_freeze/chapters/02-two").rglob("*.svg"))),
         "chapters/02-two"),
        (lambda root: (root / "_freeze/index/execute-results/more.json").write_text("{}"), "index"),
        (lambda root: (root / "_freeze/index/record.json").unlink(), "index"),
        (lambda root: edit(root / "_freeze/index/record.json", "full", "fell"), "index"),
    ],
)  # fmt: skip
def test_a_change_is_noticed_by_name_and_by_the_chapter_that_it_concerns(book, change, document):
    change(book)
    assert stale() == [document]
    assert len(provenance.state(document).changes) >= 1


def test_a_figure_swapped_for_another_chapters_is_noticed(book):
    figure = next((book / "_freeze/chapters/02-two").rglob("*.svg"))
    figure.write_bytes(figure.read_bytes()[:-1] + b"x")
    assert stale() == ["chapters/02-two"]
    assert "changed" in provenance.state("chapters/02-two").changes[0]


def test_options_of_execution_count_for_all_chapters_and_titles_for_none(book):
    edit(book / "_quarto.yml", "A toy book", "Another title")
    assert stale() == []
    edit(book / "_quarto.yml", "fig-dpi: 50", "fig-dpi: 60")
    assert len(stale()) == 3
    edit(book / "_quarto.yml", "fig-dpi: 60", "fig-dpi: 50")
    assert stale() == []
    (book / "chapters/_metadata.yml").write_text("execute: {eval: false}\n")
    assert len(stale()) == 3


def test_comments_and_docstrings_change_nothing(book):
    path = book / "digitcnn/stats_of_the_book.py"
    path.write_text('"""A docstring."""\n# A comment.\nTWO = 2\n')
    assert stale() == []


def test_the_packages_own_module_and_its_scripts_count(book):
    edit(book / "digitcnn/__init__.py", '__version__ = "', '__version__ = "1')
    assert len(stale()) == 3
    for name in ("digitcnn/report/interactive.js", "assets/digits.css", "cache/numbers.txt"):
        assert provenance.counts(book / name) == name


def test_another_version_of_a_library_is_said_where_all_are_installed(book, monkeypatch):
    here = {"matplotlib": "0.1"}

    def version(name):
        if name not in here:
            raise importlib.metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(provenance, "_version", version)
    assert len(stale()) == 3  # the executor itself sets how matplotlib draws
    assert provenance.state("chapters/02-two").changes == ("matplotlib has another version",)
    here.clear()  # where the full environment is not set up nothing could be executed
    assert stale() == []


def test_an_edit_saved_during_an_execution_is_executed_next(book):
    chapter = book / "chapters/01-one.qmd"
    edit(chapter, "value = open", "path = 'chapters/01-one.qmd'; text = open(path).read()\n"
         "open(path, 'w').write(text.replace('Some text', 'New text'))\nvalue = open")  # fmt: skip
    assert execute.main([]) == 0
    assert "Some text" in page(book, "chapters/01-one") and "New text" in chapter.read_text()
    assert stale() == ["chapters/01-one"]
    assert execute.main([]) == 0
    assert "New text" in page(book, "chapters/01-one") and stale() == []


def test_make_report_without_quarto_executes_an_edit_once_and_is_then_current(
    book, monkeypatch, capfd
):
    """And a second one executes nothing; nothing that was executed is thrown away."""
    import environment
    import report

    shutil.copytree(ROOT / "tools", book / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "assets", book / "assets")
    for module, names in ((environment, ("ROOT",)), (report, ("ROOT", "BOOK", "FRESH", "PREVIOUS",
                          "LOG"))):  # fmt: skip
        for name in names:
            monkeypatch.setattr(module, name, book / getattr(module, name).relative_to(ROOT))
    monkeypatch.setattr(environment, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(environment, "ensure", lambda name: None)
    monkeypatch.setattr(environment, "quarto", lambda: None)
    monkeypatch.setattr(report, "interrupt", signal.getsignal(signal.SIGTERM))  # pytest's own stays
    known = environment.environment
    monkeypatch.setattr(
        environment, "environment", lambda **more: known(PYTHONPATH=str(book), **more)
    )
    edit(book / "chapters/01-one.qmd", "Some text", "New text")
    assert report.main(["report"]) == 0, capfd.readouterr()
    said = capfd.readouterr().out
    assert "executing chapters/01-one" in said and "[1/1]" in said
    assert "New text" in (book / "_book/index.html").read_text("utf-8") and stale() == []
    assert report.main(["report"]) == 0
    assert "executing" not in capfd.readouterr().out


def test_executing_again_changes_no_byte(book):
    before = snapshot(book)
    assert execute.main(["chapters/01-one", "chapters/02-two"]) == 0
    assert snapshot(book) == before


def test_an_undone_edit_executes_nothing(book, monkeypatch, capsys):
    before = snapshot(book)
    chapter = book / "chapters/01-one.qmd"
    edit(chapter, "Some", "Other")
    assert execute.main([]) == 0  # the edited version is executed
    assert snapshot(book) != before
    edit(chapter, "Other", "Some")
    monkeypatch.setattr(execute, "execute", lambda *arguments: pytest.fail("executed"))
    assert execute.main([]) == 0
    assert "an earlier version fits" in capsys.readouterr().out
    assert snapshot(book) == before and stale() == []


def test_a_failing_chapter_leaves_everything_as_it_was(book, capsys):
    before = snapshot(book)
    edit(book / "chapters/01-one.qmd", "value = ", "value = 1 / 0 + ")
    assert execute.main([]) == 1
    assert "ZeroDivisionError" in one_sentence(Exception(capsys.readouterr().err.strip() + "."))
    assert snapshot(book) == before
    assert not execute.local("staging").exists()


def test_runs_that_are_missing_cost_no_result_and_are_named(book, capsys):
    """As after a setting was added to the experiments: nothing is deleted, or trained."""
    before = snapshot(book)
    edit(book / "chapters/01-one.qmd", "value = ", "from digitcnn import results\n"
         "results.record('mnist-exp-batch-32')\nvalue = ")  # fmt: skip
    assert execute.main([]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "mnist-exp-batch-32 would have to be trained (missing)" in said
    assert snapshot(book) == before


def test_no_jupyter_is_said_before_anything_changes(book, monkeypatch, capsys):
    before = snapshot(book)
    edit(book / "index.qmd", "Some", "Other")
    monkeypatch.setitem(sys.modules, "nbclient", None)
    assert execute.main([]) == 1
    assert "environment.py full" in one_sentence(Exception(capsys.readouterr().err.strip()))
    assert snapshot(book) == before


def test_unknown_chapters_are_refused(book, capsys):
    assert execute.main(["chapters/09-nine"]) == 1
    assert "09-nine" in one_sentence(Exception(capsys.readouterr().err.strip()))
    with pytest.raises(DigitcnnError):
        provenance.frozen("../elsewhere")


def test_what_was_computed_in_an_execution_is_read_from_the_store_in_the_record(book):
    (book / "chapters/01-one.qmd").write_text(
        "# One\n\n```{python}\nfrom pathlib import Path\nfrom digitcnn import files\n"
        "path = files.cache_path('made.txt')\n"
        "if not path.is_file():\n"
        "    import colorsys\n    open('cache/numbers.txt').read()\n"
        "    files.write_whole(path, 'made')\nopen(path).read()\n```\n"
    )
    assert execute.main([]) == 0
    record = provenance.read_record(provenance.frozen("chapters/01-one"))
    assert list(record["files"]) == ["cache/made.txt"]


def test_an_execution_never_trains(book, monkeypatch):
    monkeypatch.delenv("DIGITCNN_TRAIN", raising=False)
    edit(book / "index.qmd", "print(", "import os; print(os.environ['DIGITCNN_TRAIN']); print(")
    assert execute.main([]) == 0
    assert "never" in page(book, "index")


def test_whatever_comes_next_puts_back_what_a_kill_left_aside(book, capfd):
    text, document = page(book, "chapters/01-one"), "chapters/01-one"
    provenance.aside(document).parent.mkdir(parents=True, exist_ok=True)
    provenance.frozen(document).rename(provenance.aside(document))  # killed before the second
    cli.main(["status"])
    assert f"{document}: put back after an interruption." in capfd.readouterr().err
    assert page(book, document) == text and stale() == [] and execute.recover() == []


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(book, faults):
    """Twenty SIGKILLs while an edited chapter is executed; after each, the old or the new result
    is in place, whole, and the next command puts the rest in order."""
    chapter = book / "chapters/02-two.qmd"
    seconds, moments = random.Random(1), []
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'tools')!r}, {str(book)!r}]\n"
        "import digitcnn  # the book's own copy, before the executor looks for one\n"
        "import execute\nsys.exit(execute.main([]))"
    )
    command = [sys.executable, "-c", program]
    began = time.monotonic()
    edit(chapter, "Some text", "Some text 0")
    assert subprocess.run(command, env=os.environ, capture_output=True).returncode == 0
    whole = time.monotonic() - began
    for number in range(20):
        chapter.write_text(
            chapter.read_text().replace(f"Some text {number}", f"Some text {number + 1}")
        )
        process = subprocess.Popen(
            command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(seconds.uniform(0.2, 1.1) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with faults.one("executions killed"):
            execute.recover()
            forget()
            folder = provenance.frozen("chapters/02-two")
            record = provenance.read_record(folder)
            assert record and record["frozen"] == provenance.frozen_files(folder)
            left = [path.name for path in execute.local().iterdir()]
            assert set(left) <= {"versions", "aside", "locks"}
            assert not list(execute.local("aside").glob("*"))
        moments.append(number)
    assert subprocess.run(command, env=os.environ, capture_output=True).returncode == 0
    assert stale() == [] and len(moments) == 20


def test_sigterm_puts_everything_back(book):
    before = snapshot(book)
    edit(book / "index.qmd", "print(", "import os, time; open('cache/local/pid', 'w').write("
         "str(os.getpid()) + '.'); time.sleep(600); print(")  # fmt: skip
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'tools')!r}, {str(book)!r}]\n"
        "import digitcnn  # the book's own copy, before the executor looks for one\n"
        "import execute\nsys.exit(execute.main([]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "executing index" in process.stdout.readline()
    path = execute.local("pid")
    while not (path.is_file() and path.read_text().endswith(".")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate()
    assert process.returncode == 130 and "as they were before" in error
    with pytest.raises(ProcessLookupError):  # its kernel has ended too
        os.kill(int(path.read_text().rstrip(".")), 0)
    assert snapshot(book) == before and not execute.local("staging").exists()
    assert files.project_root() == book
