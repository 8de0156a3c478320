"""The portable renderer: a tiny book with hand-made frozen Markdown, rendered in both formats."""

import base64
import hashlib
import html
import importlib.util
import json
import re
import struct
import zlib
from pathlib import Path

import pytest

pytest.importorskip("pypandoc")
pytest.importorskip("typst")
pypdf = pytest.importorskip("pypdf")

TOOL = Path(__file__).resolve().parents[1] / "tools" / "portable.py"
_spec = importlib.util.spec_from_file_location("portable", TOOL)
portable = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(portable)


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(b"\0" + b"\x80" * 8 + (b"\0" + b"\x80" * 8) * 7))
    + _chunk(b"IEND", b"")
)
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="80" height="60">'
    b'<rect width="80" height="60" fill="teal"/></svg>'
)

CONFIG = """
project: {type: book, execute-dir: project}
book:
  title: "A tiny book: how & why"
  author: "An Author"
  date: 2025-02-03
  chapters:
    - index.qmd
    - part: "The part"
      chapters: [chapters/01-data.qmd]
    - chapters/02-model.qmd
    - references.qmd
  appendices: [chapters/app.qmd]
bibliography: refs.bib
format:
  html: {code-fold: true}
  typst: default
"""

INDEX = """# Preface {.unnumbered}

Forward: @fig-wave, @sec-model, @sec-app, @tbl-squares, {{< meta book.title >}}.{{< pagebreak >}}

{{{< meta as.text >}}}
"""

DATA = """# The data {#sec-data}

```{python}
#| label: fig-wave
1
```
"""

FROZEN = """# The data {#sec-data}

Refs: @fig-wave; [-@fig-wave]; @fig-pair; @fig-pair-2; @tbl-squares; @eq-euler; @sec-sub; @lecun98.

::: {#cell-fig-wave .cell execution_count=1}
``` {.python .cell-code}
secret_source = 1
```

::: {.cell-output .cell-output-display}
![A wave.](01-data_files/FIGURES/fig-wave-output-1.EXT){#fig-wave fig-alt='It\\'s a wave'}
:::
:::

::: {#cell-plain .cell execution_count=2}
``` {.python .cell-code code-fold="false"}
print("unfolded")
```

::: {.cell-output .cell-output-stdout}
```
printed output
```
:::
:::

::: {#fig-pair .cell layout-ncol='2' execution_count=3}

::: {.cell-output .cell-output-display}
![One](01-data_files/FIGURES/fig-wave-output-1.EXT){#fig-pair-1}
:::

::: {.cell-output .cell-output-display}
![Two](01-data_files/FIGURES/fig-wave-output-1.EXT){#fig-pair-2}
:::

Both of them.
:::

::: {#tbl-squares .cell tbl-cap='Squares.' execution_count=4}

::: {.cell-output .cell-output-display .cell-output-markdown execution_count=4}
| number | square |
|--:|--:|
ROWS
:::
:::

::: {#tbl-frame .cell tbl-cap='A frame.' execution_count=5}

::: {.cell-output .cell-output-display}
```{=html}
<table><thead><tr><th>left</th></tr></thead><tbody><tr><td>cell&amp;value</td></tr></tbody></table>
```
:::
:::

::: {.content-visible when-format="html"}
```{=html}
<div id="widget"></div><script>document.getElementById("widget").textContent = "alive";</script>
```
:::

## Same title {#sec-sub}

$$
e^{i\\pi} + 1 = 0
$$ {#eq-euler}

### Same title

## Not counted {.unnumbered}

## Counted {#sec-counted}

@sec-counted
"""

MODEL = """---
title: "The model {#sec-model}"
---

## Same title

See [the data](01-data.qmd), [a section](01-data.qmd#sec-sub) and @fig-div, @fig-left, @tbl-pipe.

::: {#fig-div layout-ncol=2}

![Left](../img.png){#fig-left}

![Right](../img.png){#fig-right width=50%}

The figure of the div.
:::

| a | b |
|---|--:|
| 1 | 2 |

: A pipe table {#tbl-pipe}

::: {.callout-warning collapse="true"}
## Careful now
Folded body.
:::

::: {.callout-tip title="A `titled` tip"}
Tip body.
:::

::: {#nte-one .callout-note}
Numbered body.
:::

@nte-one

::: {.panel-tabset}
## Tab One
First tab body.

## Tab Two
Second tab body.
:::

## After tabs {#sec-after}

@sec-after

::: {.content-visible when-format="html"}
WebOnly
:::
::: {.content-visible when-format="typst"}
PaperOnly
:::
::: {.content-hidden unless-format="html"}
WebToo
:::
[SpanWeb]{.content-visible when-format="html"}[SpanPaper]{.content-visible unless-format="html"}

::: {.content-visible when-profile="quick"}
QuickOnly
:::

::: {.column-margin}
In the margin.
:::

```{=latex}
\\NoLatexHere
```
"""

APP = """# Extras {#sec-app}

![Last](../img.png){#fig-app}

$$ x = y $$ {#eq-app}

## Inside {#sec-inside}

@fig-app, @eq-app, @sec-inside.
"""

BIB = "@article{lecun98, author={LeCun, Yann}, title={Gradient}, journal={IEEE}, year={1998}}\n"


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def freeze(root: Path, frozen: str = FROZEN, folder: str = "_freeze") -> None:
    """Write frozen results for chapter 1 as Quarto does."""
    rows = "\n".join(f"| {i} | {i * i} |" for i in range(80))
    base = root / folder / "chapters" / "01-data"
    for ending, figures, ext, data in (
        ("html", "figure-html", "png", PNG),
        ("typ", "figure-typst", "svg", SVG),
    ):
        text = frozen.replace("FIGURES", figures).replace("EXT", ext).replace("ROWS", rows)
        result = {"engine": "jupyter", "markdown": text, "supporting": [], "filters": []}
        if ending == "html":  # Quarto notes this whenever a cell shows HTML
            result["includes"] = {
                "include-in-header": ['<script src="https://cdn.example.org/require.js"></script>']
            }
        (base / "execute-results").mkdir(parents=True, exist_ok=True)
        (base / figures).mkdir(exist_ok=True)
        (base / figures / f"fig-wave-output-1.{ext}").write_bytes(data)
        content = {"hash": md5(root / "chapters/01-data.qmd"), "result": result}
        (base / "execute-results" / f"{ending}.json").write_text(json.dumps(content))


def make_book(root: Path) -> Path:
    files = {
        "_quarto.yml": CONFIG,
        "_quarto-quick.yml": "book: {subtitle: The quick one}\nproject: {output-dir: _fast}\n",
        "index.qmd": INDEX,
        "chapters/01-data.qmd": DATA,
        "chapters/02-model.qmd": MODEL,
        "chapters/app.qmd": APP,
        "references.qmd": "# References {.unnumbered}\n\n::: {#refs}\n:::\n",
        "refs.bib": BIB,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (root / "img.png").write_bytes(PNG)
    freeze(root)
    return root


def run(root: Path, *args: str) -> int:
    return portable.main(["--project", str(root), *args])


def plain(markup: str) -> str:
    """Return the text of HTML with single spaces."""
    markup = re.sub(r"<annotation.*?</annotation>|<style.*?</style>", "", markup, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", markup)).split())


def between(page: str, element: str) -> list[str]:
    return [plain(x) for x in re.findall(rf"<{element}\b.*?</{element}>", page, re.DOTALL)]


@pytest.fixture
def book(tmp_path):
    return make_book(tmp_path / "book")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The book in both formats: the HTML, the pages' text and the PDF reader."""
    root = make_book(tmp_path_factory.mktemp("rendered") / "book")
    assert run(root) == 0
    reader = pypdf.PdfReader(root / "_book" / "A-tiny-book--how---why.pdf")
    pages = [" ".join(page.extract_text().split()) for page in reader.pages]
    return root, (root / "_book" / "index.html").read_text("utf-8"), pages, reader


def test_html_numbers_are_quartos(rendered):
    _, page, _, _ = rendered
    refs = [plain(x) for x in re.findall(r'<a\b[^>]*class="xref".*?</a>', page, re.DOTALL)]
    assert refs == [
        *("Figure 1.1", "Chapter 2", "Appendix A", "Table 1.1"),
        *("Figure 1.1", "1.1", "Figure 1.2", "Figure 1.2 (b)", "Table 1.1", "Equation 1.1"),
        *("Section 1.1", "Section 1.2"),
        *("Figure 2.1", "Figure 2.1 (a)", "Table 2.1", "Note 2.1", "Section 2.2"),
        *("Figure A.1", "Equation A.1", "Section A.1"),
    ]
    assert between(page, "figcaption") == [
        *("Figure 1.1: A wave.", "(a) One", "(b) Two", "Figure 1.2: Both of them."),
        *("Table 1.1: Squares.", "Table 1.2: A frame."),
        *("(a) Left", "(b) Right", "Figure 2.1: The figure of the div."),
        *("Table 2.1: A pipe table", "Figure A.1: Last"),
    ]
    assert between(page, "h1")[1:] == [
        *("Preface", "The part", "1 The data", "2 The model"),
        *("References", "Appendices", "A Extras"),
    ]
    assert between(page, "h2") == [
        *("1.1 Same title", "Not counted", "1.2 Counted", "2.1 Same title", "2.2 After tabs"),
        "A.1 Inside",
    ]
    assert re.findall(r'class="eqno">([^<]*)', page) == ["(1.1)", "(A.1)"]


def test_html_links_lead_to_their_targets(rendered):
    _, page, _, _ = rendered
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "an identifier is given twice"
    targets = re.findall(r'href="#([^"]*)"', page)
    assert set(targets) <= set(ids)
    assert {"fig-wave", "fig-pair-2", "tbl-squares", "eq-euler", "ref-lecun98"} <= set(targets)
    assert re.search(r'<a href="#sec-data"\s*>the data</a>', page)  # was a link to the .qmd
    assert re.search(r'<a href="#sec-sub"\s*>a section</a>', page)


def test_html_stands_alone(rendered):
    root, page, _, _ = rendered
    assert sorted(p.name for p in (root / "_book").iterdir()) == [
        "A-tiny-book--how---why.pdf",
        "index.html",
    ]
    for tag in re.findall(r"<(?:script|img|link|iframe|source|object|embed)\b[^>]*>", page):
        assert not re.search(r"(src|href|data)=[\"']?(?![\"']|data:)", tag.split(" ", 1)[-1]), tag[
            :99
        ]
    assert "url(" not in page and "@import" not in page and "require.js" not in page
    images = re.findall(r'<img src="data:image/png;base64,([^"]*)"[^>]*? alt="([^"]*)"', page)
    assert len(images) == 6 and all(base64.b64decode(data) == PNG for data, _ in images)
    assert html.unescape(images[0][1]) == "It's a wave"
    assert '<script>document.getElementById("widget")' in page
    assert "<math" in page and "<title>A tiny book: how &amp; why</title>" in page


def test_html_cells_callouts_and_tabs(rendered):
    _, page, _, _ = rendered
    folded = re.findall(r'<details class="code-fold">.*?</details>', page, re.DOTALL)
    assert len(folded) == 1 and "secret_source" in folded[0]  # the other cell says code-fold: false
    assert "unfolded" in plain(page) and "printed output" in plain(page)
    assert re.search(r'<details class="callout warning">\s*<summary>\s*Careful now', page)
    assert re.search(r'<p class="callout-title">\s*A <code>titled</code> tip', page)
    assert re.search(
        r'id="nte-one" class="callout note">\s*<p class="callout-title">\s*Note.2\.1', page
    )
    tabs = re.search(r'<div class="tabset">.*?Second tab body', page, re.DOTALL)[0]
    assert between(tabs, "label") == ["Tab One", "Tab Two"] and tabs.count(" checked") == 1
    assert "{{" in page and "meta as.text" in page  # an escaped shortcode stays
    assert "how &amp; why." in page  # and the other is replaced


def test_formats_get_their_own_content(rendered):
    _, page, pages, _ = rendered
    web, paper = plain(page), " ".join(pages)
    for word in ("WebOnly", "WebToo", "SpanWeb"):
        assert word in web and word not in paper
    for word in ("PaperOnly", "SpanPaper"):
        assert word in paper and word not in web
    for text in (web, paper):
        assert "NoLatexHere" not in text and "QuickOnly" not in text and "In the margin" in text


def test_pdf_numbers_and_text(rendered):
    _, _, pages, _ = rendered
    text = " ".join(pages)
    assert "A tiny book: how & why" in pages[0] and "An Author" in pages[0]
    assert "February 3, 2025" in pages[0] and "Contents" in pages[1]
    for words in (
        *("Forward: Figure 1.1, Chapter 2, Appendix A, Table 1.1", "1 The data", "A Extras"),
        *("Figure 1.1; 1.1; Figure 1.2; Figure 1.2b; Table 1.1; Equation (1.1); Section 1.1"),
        *("Figure 1.1: A wave.", "(b) Two", "Figure 1.2: Both of them.", "Table 1.2: A frame."),
        *("cell&value", "Figure 2.1: The figure of the div.", "Table 2.1: A pipe table"),
        *("Careful now", "Note 2.1", "Tab One First tab body", "2.2 After tabs", "(A.1)"),
        *("Figure A.1, Equation (A.1), Section A.1", "LeCun, Yann. 1998"),
    ):
        assert words in text, words


def test_pdf_opens_with_bookmarks_links_and_broken_tables(rendered):
    _, _, pages, reader = rendered

    def titles(entries):
        return [t for e in entries for t in (titles(e) if isinstance(e, list) else [e.title])]

    marks = [" ".join(title.split()) for title in titles(reader.outline)]
    assert [m for m in marks if m[0] in "12A"] == [
        *("1 The data", "1.1 Same title", "1.1.1 Same title", "1.2 Counted"),
        *(
            "2 The model",
            "2.1 Same title",
            "2.2 After tabs",
            "Appendices",
            "A Extras",
            "A.1 Inside",
        ),
    ]
    links = [a.get_object() for p in reader.pages for a in p.get("/Annots") or []]
    assert sum("/Dest" in a or "/D" in a.get("/A", {}) for a in links) > 20
    assert sum("number square" in page for page in pages) >= 2  # the header repeats


def test_same_input_gives_the_same_bytes(rendered, tmp_path):
    root = rendered[0]
    assert run(root, "--output", str(tmp_path)) == 0
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (root / "_book" / path.name).read_bytes(), path.name


def test_banner_profile_and_folders(book, tmp_path, capsys):
    (book / "_freeze").rename(tmp_path / "elsewhere")
    args = [
        "--freeze",
        str(tmp_path / "elsewhere"),
        "--profile",
        "quick",
        "--banner",
        "QUICK <run>",
    ]
    assert run(book, *args) == 0
    assert len(re.findall(r"^wrote ", capsys.readouterr().out, re.MULTILINE)) == 2
    page = (book / "_fast" / "index.html").read_text("utf-8")  # the profile's output folder
    assert re.search(r'<div class="banner"[^>]*>QUICK &lt;run&gt;</div>', page)
    assert "QuickOnly" in page and "The quick one" in page
    reader = pypdf.PdfReader(next((book / "_fast").glob("*.pdf")))
    assert all("QUICK <run>" in p.extract_text() for p in reader.pages)


@pytest.mark.parametrize("fault", ["stale", "missing", "one format", "corrupt"])
def test_refuses_missing_or_stale_results_by_name(book, capsys, fault):
    results = book / "_freeze/chapters/01-data/execute-results"
    if fault == "stale":
        (book / "chapters/01-data.qmd").write_text(DATA + "\nMore.\n")
    elif fault == "corrupt":
        (results / "html.json").write_text("{")
    else:
        for path in results.glob("*.json" if fault == "missing" else "typ.json"):
            path.unlink()
    assert run(book) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: chapters/01-data.qmd has ") and err.count("\n") == 1
    assert "make report" in err and "Traceback" not in err
    assert not list(book.glob("_book/*.pdf"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("@fig-nowhere", "@fig-nowhere"),
        ("[-@tbl-nowhere]", "@tbl-nowhere"),
        ("@sec-hidden\n\n## Hidden {.unnumbered #sec-hidden}", "@sec-hidden"),
        ("@nobody99", "nobody99"),
        ("![x](nothing.png)", "nothing.png"),
        ("![again](../img.png){#fig-div}", "#fig-div"),
    ],
)
def test_unresolved_references_are_named(book, capsys, text, name):
    path = book / "chapters/02-model.qmd"
    path.write_text(f"{MODEL}\n\n{text}\n")
    assert run(book, "--to", "html") == 1
    err = capsys.readouterr().err
    assert "error: Unresolved:" in err and name in err
    assert not (book / "_book" / "index.html").exists()


def test_a_failed_render_leaves_the_old_file(book, capsys):
    assert run(book, "--to", "html") == 0
    before = (book / "_book" / "index.html").read_bytes()
    (book / "chapters/app.qmd").write_text("# Extras {#sec-app}\n\n@fig-gone\n")
    assert run(book, "--to", "html") == 1
    assert "@fig-gone in chapters/app.qmd" in capsys.readouterr().err
    assert [p.name for p in (book / "_book").iterdir()] == ["index.html"]
    assert (book / "_book" / "index.html").read_bytes() == before


def test_warnings_name_what_was_left_out(book, capsys):
    text = "{{< video x.mp4 >}} [gone](#nowhere) ![far](https://example.org/x.png)"
    (book / "index.qmd").write_text(f"# Preface {{.unnumbered}}\n\n{text}\n")
    assert run(book, "--to", "html") == 0
    err = capsys.readouterr().err
    assert "video x.mp4" in err and "#nowhere leads nowhere" in err and "remote image" in err
    assert '<img src="http' not in (book / "_book" / "index.html").read_text("utf-8")


def test_configuration_merges_as_in_quarto():
    base = {"a": 1, "l": [1, 2], "m": {"x": 1, "y": 2}}
    assert portable.merge(base, {"l": [2, 3], "m": {"y": 5}, "n": 0}) == {
        "a": 1,
        "l": [1, 2, 3],
        "m": {"x": 1, "y": 5},
        "n": 0,
    }
    assert (
        portable.output_stem({"book": {"title": "How small? A/B"}}, Path("x")) == "How-small--A-B"
    )


EXECUTED = """---
title: "Run {#sec-run}"
execute: {echo: false}
---

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
print("**printed** @fig-plot @tbl-made @fig-two-1")
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
#| label: fig-two
#| fig-cap: "Two"
#| fig-subcap: ["One", "Other"]
#| layout-ncol: 2
display(Image(pixels)); display(Image(pixels))
```

```{python}
#| warning: false
warnings.warn("quiet")
HTML("<script>var here = 1</script>")
```

```{python}
print(os.path.basename(os.getcwd()), "QUARTO_PROJECT_ROOT" in os.environ)
```
"""


def test_execute_writes_frozen_results(book, tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    path = book / "chapters/01-data.qmd"
    path.write_text(EXECUTED.replace("PIXELS", base64.b64encode(PNG).decode()))
    (book / "index.qmd").write_text("# Preface {.unnumbered}\n")
    model = MODEL.replace("[the data](01-data.qmd), [a section](01-data.qmd#sec-sub)", "")
    (book / "chapters/02-model.qmd").write_text(model)
    fresh = tmp_path / "fresh"
    portable.execute(path, fresh / "chapters/01-data", book)
    assert run(book, "--freeze", str(fresh), "--output", str(tmp_path / "out")) == 0
    data = json.loads((fresh / "chapters/01-data/execute-results/typ.json").read_text())
    assert data["hash"] == md5(path)
    text = data["result"]["markdown"]
    assert "seven is 42, and *word*" in text and "import base64" in text and "not_run()" in text
    for absent in ("never shown", "quiet", "<script>", "print(", "object>"):
        assert absent not in text
    assert "![It's a plot](01-data_files/figure-typst/fig-plot-output-1.png){#fig-plot" in text
    assert (fresh / "chapters/01-data/figure-html/fig-plot-output-1.png").read_bytes() == PNG
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "printed Figure 1.1 Table 1.1 Figure 1.2 (a)" in plain(page)
    assert between(page, "figcaption")[:5] == [
        *("Figure 1.1: It’s a plot", "Table 1.1: Made", "(a) One", "(b) Other", "Figure 1.2: Two")
    ]
    assert "<script>var here = 1</script>" in page and "book True" in plain(page)


def test_options_of_a_format_count_before_those_of_all():
    """As in Quarto: a page can show the code that the PDF does not; front matter decides."""
    config = {"execute": {"echo": False}, "format": {"html": {"echo": True}, "typst": "default"}}
    assert [portable.execution(f, config, {})["echo"] for f in ("html", "pdf")] == [True, False]
    assert not portable.execution("html", config, {"execute": {"echo": False}})["echo"]
    meta = {"format": {"typst": {"echo": True, "warning": False}}}
    assert portable.execution("pdf", config, meta) == portable.OUTLINE | {"warning": False}


def test_a_failing_cell_is_named(book, tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cell = "```{python}\n#| label: bad-cell\n1 / 0\n```\n"
    (book / "chapters/01-data.qmd").write_text(cell)
    with pytest.raises(portable.Problem) as error:
        portable.execute(book / "chapters/01-data.qmd", tmp_path / "fresh", book)
    assert str(error.value).startswith(
        "chapters/01-data.qmd, cell bad-cell failed with ZeroDivisionError"
    )
    assert not (tmp_path / "fresh").exists()
