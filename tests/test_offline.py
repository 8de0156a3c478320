"""The renderer without Quarto, on a tiny book: both formats, and what is refused."""

import base64
import html
import re
from pathlib import Path

import pytest

pytest.importorskip("pypandoc")
pytest.importorskip("typst")
pypdf = pytest.importorskip("pypdf")

import layout  # noqa: E402
from tiny import CONFIG, DATA, MODEL, PNG, between, make_book, offline, plain, run  # noqa: E402


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
        *("Figure 1.1", "1.1", "Figures 1.1", "Figure 1.2", "Equation 1.1"),
        *("Section 1.1", "Section 1.2"),
        *("Figure 2.1", "Table 2.1", "Section 2.2"),
        *("Figure A.1", "Equation A.1", "Section A.1"),
    ]
    assert between(page, "figcaption") == [
        *("Figure 1.1. A wave.", "Figure 1.2. Both of them.", "Table 1.1. Squares."),
        *("Figure 2.1. The figure of the div.", "Table 2.1. A pipe table", "Figure A.1. Last"),
    ]
    assert between(page, "h1")[1:] == [
        *("Preface", "1 The data", "2 The model", "References", "A Extras")
    ]
    assert between(page, "h2") == [
        *("1.1 Same title", "Not counted", "1.2 Counted", "2.1 Same title", "2.2 After boxes"),
        "A.1 Inside",
    ]
    assert re.findall(r'class="eqno">([^<]*)', page) == ["(1.1)", "(A.1)"]


def test_the_pdf_has_the_numbers_of_the_html(rendered):
    """In HTML they are counted by the filter, in the PDF by Typst."""
    _, page, pages, _ = rendered
    paper = " ".join(pages)
    refs = [plain(x) for x in re.findall(r'<a\b[^>]*class="xref".*?</a>', page, re.DOTALL)]
    for words in [*refs, *between(page, "figcaption"), *between(page, "h2")]:
        assert re.sub(r"^(Equation) (.*)$", r"\1 (\2)", words).replace("’", "’") in paper, words
    assert "(1.1)" in paper and "(A.1)" in paper and "LeCun, Yann. 1998" in paper


def test_html_links_lead_to_their_targets(rendered):
    root, page, _, _ = rendered
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "an identifier is given twice"
    targets = re.findall(r'href="#([^"]*)"', page)
    assert set(targets) <= set(ids)
    assert {"fig-wave", "fig-pair", "tbl-squares", "eq-euler", "ref-lecun98"} <= set(targets)
    beside = [x for x in re.findall(r'href="([^"#]*)"', page) if "://" not in x]
    assert sorted(set(beside)) == ["A-tiny-book--how---why.pdf", "cache/metrics/mnist/train.txt"]
    assert all((root / "_book" / name).is_file() for name in beside)


def test_html_asks_for_nothing(rendered):
    _, page, _, _ = rendered
    for tag in re.findall(r"<(?:script|img|link|iframe|source|object|embed)\b[^>]*>", page):
        found = re.search(r"(src|href|data)=[\"']?(?![\"']|data:)", tag.split(" ", 1)[-1])
        assert not found or tag == "<script>", tag[:99]
    assert "url(" not in page and "@import" not in page
    images = re.findall(r'<img src="data:image/png;base64,([^"]*)"[^>]*? alt="([^"]*)"', page)
    assert len(images) == 4 and all(base64.b64decode(data) == PNG for data, _ in images)
    alts = [html.unescape(alt) for _, alt in images]
    assert alts == ["It's a wave", "Both of them.", "Grey", "Last"]
    assert '<script>document.getElementById("widget")' in page and "<math" in page
    assert "<title>A tiny book: how &amp; why</title>" in page and 'lang="en-GB"' in page
    assert "3 February 2025" in page


def test_html_cells_and_callouts(rendered):
    _, page, _, _ = rendered
    folded = re.findall(r'<details class="code-fold">.*?</details>', page, re.DOTALL)
    assert len(folded) == 1 and "secret_source" in folded[0]  # the other cell says code-fold: false
    assert "unfolded" in plain(page) and "printed output" in plain(page)
    assert re.search(r'<details class="callout callout-warning">\s*<summary>\s*Careful now', page)
    assert re.search(r'<p class="callout-title">\s*A <code>titled</code> box', page)


def test_formats_get_their_own_content(rendered):
    _, page, pages, _ = rendered
    web, paper = plain(page), " ".join(pages)
    for word in ("WebOnly", "SpanWeb", "train.txt"):
        assert word in web and word not in paper
    for word in ("PaperOnly", "SpanPaper"):
        assert word in paper and word not in web
    for text in (web, paper):
        assert "NoLatexHere" not in text


def test_numbers_keep_to_their_units(rendered):
    _, page, pages, _ = rendered
    assert "20\u202fs, that is 97.2\u00a0±\u00a00.2\u202f% of ‘1’s" in html.unescape(page)
    assert "of ‘1’s" in " ".join(" ".join(pages).split())


def test_the_pdf_is_accessible(rendered):
    _, _, pages, reader = rendered
    catalogue = reader.trailer["/Root"]
    assert b"<pdfuaid:part>1</pdfuaid:part>" in catalogue["/Metadata"].get_data()
    assert catalogue["/Lang"] == "en-GB" and reader.metadata.title == "A tiny book: how & why"
    assert "3 February 2025" in pages[0] and "An Author" in pages[0]
    tagged = layout.elements(reader)
    assert [x.alt for x in tagged if x.kind == "Figure"] == [
        *("It's a wave", "Both of them.", "Grey", "Last"),
    ]
    assert [x.alt for x in tagged if x.kind == "Formula"][:2] == [r"e^{i\pi} + 1 = 0", "x^2"]
    assert sum(x.kind == "TH" for x in tagged) == 4


def test_the_pdf_opens_with_bookmarks_and_links(rendered):
    _, _, pages, reader = rendered

    def titles(entries):
        return [t for e in entries for t in (titles(e) if isinstance(e, list) else [e.title])]

    marks = [" ".join(title.split()) for title in titles(reader.outline)]
    assert [m for m in marks if m[0] in "12A"] == [
        *("1 The data", "1.1 Same title", "1.1.1 Same title", "1.2 Counted"),
        *("2 The model", "2.1 Same title", "2.2 After boxes", "A Extras", "A.1 Inside"),
    ]
    links = [a.get_object() for p in reader.pages for a in p.get("/Annots") or []]
    assert sum("/Dest" in a or "/D" in a.get("/A", {}) for a in links) > 20
    assert sum("number square" in page for page in pages) >= 2  # the header repeats


def test_same_input_gives_the_same_bytes(rendered, tmp_path):
    root = rendered[0]
    assert run(root, "--output", str(tmp_path)) == 0
    for path in tmp_path.glob("*.*"):
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
    assert "The quick one" in page
    reader = pypdf.PdfReader(next((book / "_fast").glob("*.pdf")))
    assert all("QUICK <run>" in p.extract_text() for p in reader.pages)


def test_one_document_alone_has_the_numbers_of_the_whole(book, tmp_path):
    path = tmp_path / "app.html"
    assert run(book, "--page", "chapters/app", "--output", str(path)) == 0
    page = path.read_text("utf-8")
    assert between(page, "figcaption") == ["Figure A.1. Last"] and "The data" not in plain(page)


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
    ("text", "said"),
    [
        ("@fig-nowhere", "@fig-nowhere refers to nothing"),
        ("[-@tbl-nowhere]", "@tbl-nowhere refers to nothing"),
        ("@sec-hidden\n\n## Hidden {.unnumbered #sec-hidden}", "@sec-hidden refers to nothing"),
        ("@nobody99", "nobody99"),
        ("![x](nothing.png)", "there is no image nothing.png"),
        ("![again](../img.png){#fig-div}", "#fig-div is defined twice"),
        ("![far](https://example.org/x.png)", "is not on this machine"),
        ("[gone](#nowhere)", "the link to #nowhere leads nowhere"),
        ("[old](01-data.qmd)", "write @sec-…"),
        ("::: {.panel-tabset}\n:::", "a block of the class .panel-tabset is not what the renderer"),
        (
            "::: {#fig-x layout-ncol=2}\n![](../img.png)\n\nX\n:::",
            "the attribute layout-ncol is not",
        ),
        ("::: {.content-visible when-meta=x}\n:::", "when-meta is not what the renderer"),
        ("[x]{.content-hidden when-format=html}", "content-hidden is not what the renderer"),
        ("{{< video x.mp4 >}}", "the shortcode {{< video x.mp4 >}} is not what the renderer"),
    ],
)
def test_what_is_wrong_or_unknown_is_named_and_the_old_file_stays(book, capsys, text, said):
    assert run(book, "--to", "html") == 0
    before = (book / "_book" / "index.html").read_bytes()
    (book / "chapters/02-model.qmd").write_text(f"{MODEL}\n\n{text}\n")
    capsys.readouterr()
    assert run(book, "--to", "html") == 1
    err = capsys.readouterr().err
    assert said in err and all(line.startswith("error: ") for line in err.splitlines())
    assert (book / "_book" / "index.html").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[chapters/app.qmd]", "[{part: Extras}]", "book: appendices may only name files"),
        ("chapters/app.qmd", "chapters/gone.qmd", "chapters/gone.qmd does not exist"),
        ("book:", "book: [", "_quarto.yml is not valid YAML"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(book, capsys, old, new, said):
    (book / "_quarto.yml").write_text(CONFIG.replace(old, new))
    assert run(book) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_configuration_merges_as_in_quarto():
    base = {"a": 1, "l": [1, 2], "m": {"x": 1, "y": 2}}
    assert offline.book.merge(base, {"l": [2, 3], "m": {"y": 5}, "n": 0}) == {
        "a": 1,
        "l": [1, 2, 3],
        "m": {"x": 1, "y": 5},
        "n": 0,
    }
    config = {"book": {"title": "How small? A/B"}}
    assert offline.book.output_stem(config, Path("x")) == "How-small--A-B"
