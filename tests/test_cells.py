"""Cells: a chapter's cells executed without Quarto, into frozen results for both formats."""

import base64
import json

import pytest

pytest.importorskip("pypandoc")
pytest.importorskip("typst")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

from tiny import CONFIG, MODEL, PNG, between, make_book, md5, offline, plain, run


@pytest.fixture
def book(tmp_path):
    return make_book(tmp_path / "book")


EXECUTED = """# Run {#sec-run}

Six times seven is `{python} 6 * 7`, and *`{python} "word"`*.

```{python}
#| label: fig-plot
#| fig-cap: "It's a plot"
#| fig-alt: "A picture of `nothing`"
#| echo: true
#| code-fold: true
import base64, os, warnings
from IPython.display import HTML, Image, Markdown, display
pixels = base64.b64decode("PIXELS")
Image(pixels, width=30)
```

```{python}
#| label: tbl-made
#| tbl-cap: "Made"
display(Markdown("| a |\\n|---|\\n| 1 |"))
```

```{python}
#| output: asis
print("**printed** @fig-plot @tbl-made")
```

```{python}
#| include: false
print("never shown")
```

```{python}
#| eval: false
#| echo: true
not_run()
```

```{python}
#| warning: false
#| echo: false
warnings.warn("quiet")
HTML("<script>var here = 1</script>")
```

```{python}
print(os.path.basename(os.getcwd()), "QUARTO_PROJECT_ROOT" in os.environ)
```
"""


def test_execute_writes_frozen_results(book, tmp_path):
    path = book / "chapters/01-data.qmd"
    (book / "_quarto.yml").write_text(CONFIG + "\nexecute: {echo: false}\n")
    path.write_text(EXECUTED.replace("PIXELS", base64.b64encode(PNG).decode()))
    (book / "index.qmd").write_text("# Preface {.unnumbered}\n")
    model = MODEL.replace("[a section](#sec-sub)", "")
    (book / "chapters/02-model.qmd").write_text(model)
    fresh = tmp_path / "fresh"
    offline.execute(path, fresh / "chapters/01-data", book)
    assert run(book, "--freeze", str(fresh), "--output", str(tmp_path / "out")) == 0
    data = json.loads((fresh / "chapters/01-data/execute-results/typ.json").read_text())
    assert data["hash"] == md5(path)
    assert data["result"]["supporting"] == []  # Quarto would remove the page's figures
    page = json.loads((fresh / "chapters/01-data/execute-results/html.json").read_text())
    assert page["result"]["supporting"] == ["01-data_files"]
    text = data["result"]["markdown"]
    assert "seven is 42, and *word*" in text and "import base64" in text and "not_run()" in text
    for absent in ("never shown", "quiet", "<script>", "print(", "object>"):
        assert absent not in text
    assert "![It's a plot](01-data_files/figure-html/fig-plot-output-1.png){#fig-plot" in text
    assert (fresh / "chapters/01-data/figure-html/fig-plot-output-1.png").read_bytes() == PNG
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "printed Figure 1.1 Table 1.1" in plain(page)
    assert between(page, "figcaption")[:2] == ["Figure 1.1. It’s a plot", "Table 1.1. Made"]
    assert "<script>var here = 1</script>" in page and "book True" in plain(page)


def test_a_failing_cell_is_named(book, tmp_path):
    cell = "```{python}\n#| label: bad-cell\n1 / 0\n```\n"
    (book / "chapters/01-data.qmd").write_text(cell)
    with pytest.raises(offline.Problem) as error:
        offline.execute(book / "chapters/01-data.qmd", tmp_path / "fresh", book)
    assert str(error.value).startswith(
        "chapters/01-data.qmd, cell bad-cell failed (ZeroDivisionError"
    )
    assert not (tmp_path / "fresh").exists()


def test_an_unknown_option_and_a_figure_of_two_pictures_are_named(book, tmp_path):
    path = book / "chapters/01-data.qmd"
    for option, code, said in (
        ("layout-ncol: 2", "1", "cell x: the option layout-ncol is not what the executor knows"),
        ("label: fig-x", "1", ""),
        ("label: fig-x", "display(1); display(2)", "cell fig-x displays 2 things, not one figure"),
    ):
        path.write_text(f"```{{python}}\n#| label: x\n#| {option}\n{code}\n```\n".replace(
            "#| label: x\n#| label", "#| label"
        ))  # fmt: skip
        if not said:
            offline.execute(path, tmp_path / "fresh", book)
            continue
        with pytest.raises(offline.Problem, match=said):
            offline.execute(path, tmp_path / "fresh", book)


def test_options_of_a_format_count_before_those_of_all():
    """As in Quarto: a page can show the code that the PDF does not."""
    config = {"execute": {"echo": False}, "format": {"html": {"echo": True}, "typst": "default"}}
    found = [offline.cells.execution(fmt, config) for fmt in ("html", "pdf")]
    assert [options["echo"] for options in found] == [True, False]
    assert offline.cells.execution("pdf", {}) == offline.cells.ON
