"""Notebooks: the text without Quarto, and one executed from nothing on the quick profile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("pypandoc")
from tiny import make_book

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402
import offline as portable  # noqa: E402
import report  # noqa: E402

QUARTO = re.compile(r"@(fig|tbl|sec|eq)-|\[@|:::|\{#|\{python\}|NOTEBOOK[A-Z]")


@pytest.fixture
def book(tmp_path, monkeypatch):
    """The tiny book of the renderer's tests as the project."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(make_book(tmp_path / "book")))
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    return tmp_path / "book"


def converted(book: Path, number: int) -> str:
    """The text of a chapter of the tiny book, by its place, as a notebook has it."""
    chapter = notebooks.chapters(book)[number]
    return "".join(text for _, _, text in chapter.convert("".join(chapter.parts)))


def test_text_is_readable_without_quarto(book):
    text = converted(book, 1)
    assert not QUARTO.search(text), text
    for expected in (
        *("# 2 The model", "## Same title", "## 2.2 After tabs", "Section 2.2"),
        *("Figure 2.1, Figure 2.1 (a), Table 2.1", "**Figure 2.1.** The figure of the div."),
        *("**Table 2.1.** A pipe table", "| a   |   b |", "> **Careful now**", "> Folded body."),
        *("> **A `titled` tip**", "Note 2.1", "First tab body.", "PaperOnly", "SpanPaper"),
        *("data:image/png;base64,", "In the margin."),
    ):
        assert expected in text.replace("\u00a0", " "), expected
    for left_out in ("WebOnly", "WebToo", "SpanWeb", "NoLatexHere", "img.png"):
        assert left_out not in text


def test_equations_citations_and_references_to_other_chapters(book):
    path = book / "chapters/02-model.qmd"
    path.write_text(
        "# The model {#sec-model}\n\nSee @fig-wave and [-@fig-wave] [@lecun98, p. 3]; @eq-x.\n\n"
        "$$\na = b\n$$ {#eq-x}\n\nInline $c$.\n"
    )
    text = converted(book, 1).replace("\u00a0", " ")
    assert "See Figure 1.1 and 1.1 (LeCun 1998, 3); Equation 2.1." in text
    assert "$$\na = b\n\\tag{2.1}\n$$" in text and "$c$" in text
    assert re.search(r"## References\n+LeCun, Yann. 1998.", text)


def test_a_cell_in_a_callout_stays_a_cell(book):
    (book / "chapters/02-model.qmd").write_text(
        "# The model\n\n::: {.callout-note}\n## Mind\n\n```{python}\n1\n```\n\nDone.\n:::\n"
    )
    chapter = notebooks.chapters(book)[1]
    pieces = chapter.convert("".join(chapter.parts))
    assert [piece[:2] for piece in pieces] == [("", ""), ("CELL", "0"), ("CELL", "1")]
    assert [pieces[1][2].strip(), pieces[2][2].strip()] == ["**Mind**", "Done."]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@fig-gone", "fig-gone leads nowhere"),
        ("[@nobody99]", "nobody99"),
        ("- NOTEBOOKCELL7", "in a list or quotation"),
    ],
)
def test_what_a_notebook_cannot_show_is_named(book, text, why):
    (book / "chapters/02-model.qmd").write_text(f"# The model {{#sec-model}}\n\n{text}\n")
    with pytest.raises(portable.Problem, match=why) as problem:
        converted(book, 1)
    assert "chapters/02-model.qmd" in str(problem.value)


def first_cell(folder: Path) -> subprocess.CompletedProcess:
    """Run the notebooks' first cell in a folder, without the project on the path."""
    return subprocess.run(
        [sys.executable, "-I", "-c", notebooks.FIRST_CELL + "\nprint(Path.cwd())"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


def test_the_first_cell_finds_the_project_from_where_notebooks_lie(tmp_path):
    # As in the submission, and as on Colab, where the archive is unpacked beside the notebook.
    project = tmp_path / "NAME.ROLL" / "project"
    (project / "digitcnn").mkdir(parents=True)
    (project / "digitcnn" / "runs.py").touch()
    (project / "notebooks").mkdir()
    (tmp_path / "NAME.ROLL" / "notebooks").mkdir()
    (tmp_path / "sample_data").mkdir()
    for folder in (tmp_path, project.parent / "notebooks", project / "notebooks", project):
        done = first_cell(folder)
        assert done.stdout.strip() == str(project), done.stderr
    (project / "digitcnn" / "runs.py").unlink()
    done = first_cell(tmp_path)
    assert done.returncode and "The project is not here: unpack the submission" in done.stderr


def test_an_error_in_a_cell_is_named_and_nothing_is_written(book, capsys):
    (book / "chapters/01-data.qmd").write_text(
        "# The data {#sec-data}\n\n```{python}\n#| label: fig-wave\n1 / 0\n```\n\nA @fig-pair.\n"
    )
    (book / "chapters/02-model.qmd").write_text(
        "# The model {#sec-model}\n\n![A](img.png){#fig-pair}\n"
    )
    (book / "digitcnn").mkdir()
    (book / "digitcnn" / "runs.py").touch()
    assert notebooks.main(["chapters/01-data.qmd"]) == 1
    assert "cell fig-wave failed with ZeroDivisionError" in capsys.readouterr().err
    assert not list(book.rglob("*.ipynb"))
    assert notebooks.main(["chapters/09-none.qmd"]) == 1
    assert "There is no chapter 'chapters/09-none.qmd'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A copy of the project's sources, with chapter 1 as a notebook made there from nothing."""
    project = tmp_path_factory.mktemp("quick") / "project"
    report.copy_project(project)
    quick = {"DIGITCNN_PROFILE": "quick", "DIGITCNN_ROOT": str(project), "DIGITCNN_TRAIN": ""}
    environment = {**os.environ, **quick}
    for command in (["-m", "digitcnn", "data"], ["tools/notebooks.py", "chapters/01-data.qmd"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return project, project / "_quick" / "notebooks" / "01-data.ipynb"


def test_a_notebook_is_executed_from_first_to_last(made):
    book = nbformat.read(made[1], 4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert code[0].source == notebooks.FIRST_CELL and len(code) > 8
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds and kinds.count("display_data") >= 4
    images = [o for c in code for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(images) >= 4 and all(len(o.data["image/png"]) > 10_000 for o in images)
    assert not any("colophon" in cell.source for cell in code)
    (hidden,) = [cell for cell in code if "report.start()" in cell.source]
    assert hidden.metadata == notebooks.HIDDEN


def test_a_notebook_has_the_chapters_text_with_numbers(made):
    project, path = made
    book = nbformat.read(path, 4)
    text = "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    text = text.replace("\u00a0", " ")
    assert not QUARTO.search(text) and text.startswith("# 1 Data: MNIST and SVHN")
    assert report.BANNER[:9] in text
    for expected in ("has 1,797 handwritten", "(LeCun et al. 1998)", "Figure 1.1 and Figure 1.2"):
        assert expected in text
    assert "**Figure 1.3.** Share of each class" in text and "## References" in text
    number = r"its most frequent class, \d, is \d\.\d\d times as frequent as its rarest, \d\."
    assert re.search(number, text)  # inline code after a cell that ends in a semicolon
    content = path.read_text("utf-8")
    assert str(project) not in content and str(ROOT) not in content


def test_a_notebook_is_made_again_only_if_something_changed(made, monkeypatch, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(made[0], project)
    monkeypatch.setenv("DIGITCNN_ROOT", str(project))
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")

    def current() -> bool:
        return notebooks.is_current(notebooks.chapters(project)[0])

    assert current()
    chapter = project / "chapters" / "01-data.qmd"
    text = chapter.read_text("utf-8")
    chapter.write_text(text + "\nMore.\n", "utf-8")
    assert not current()
    chapter.write_text(text, "utf-8")
    assert current()
    path = project / "_quick" / "notebooks" / "01-data.ipynb"
    path.write_text(path.read_text("utf-8")[:1000], "utf-8")
    assert not current()
