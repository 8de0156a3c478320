"""The PDF's layout: what the shared template promises, and that each fault would be seen."""

import statistics
from pathlib import Path

import pytest

pytest.importorskip("pypandoc")
typst = pytest.importorskip("typst")

import layout  # noqa: E402
from tiny import SVG, make_book, offline, run  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
WORDS = "Words of every length fill a page as those of a report do, which say more than these. " * 9
PAGE = '#set document(title: "T")\n#set page("a4", margin: (x: 4.3cm))\n#set text(11pt)\n'
FULL = "#lorem(700)\n"
TABLE = """#figure(kind: "t", supplement: [Table], caption: figure.caption(position: top)[C], {
  %s
  table(columns: 2, table.header[a][b], ..range(%d).map(n => ([#n], [x])).flatten())
})
"""
BREAKS = "#show figure: set block(breakable: true)"
FAULTS = [
    ("", "#pagebreak()\n#pagebreak()\n" + FULL, "page 2 is blank"),
    ("", "#v(15cm)\n" + FULL, "page 1 is white over "),
    ("", "#move(dx: 5cm)[#lorem(20)]", "page 1 has something in its margin"),
    ("", "#place(top, box(height: 25.5cm, width: 100%)[#v(1fr) *The last row*])", "below its text"),
    ("", "see \\@fig-wave", "page 1 has the loose reference @fig-wave"),
    (BREAKS, "#v(20cm)\n" + TABLE % ("", 9), "is cut"),
    (BREAKS, "#v(18cm)\n" + TABLE % ("rect(height: 9cm)", 2), "a caption on page 1 belongs"),
    ("", "#table(columns: 2, [1], [2])", "a table on page 1 has no header cells"),
    ("", "#figure(rect[x])", "a figure on page 1 has no alternative text"),
]


@pytest.mark.parametrize(("rules", "text", "said"), FAULTS, ids=[fault[2] for fault in FAULTS])
def test_each_fault_is_seen(tmp_path, rules, text, said):
    (tmp_path / "a.typ").write_text(PAGE + rules + "\n" + text)
    (tmp_path / "a.pdf").write_bytes(typst.compile(str(tmp_path / "a.typ")))
    found = layout.problems(tmp_path / "a.pdf")
    assert any(said in line for line in found), found


def table(name: str, rows: int) -> str:
    lines = "\n".join(f"| {n} | {n * n} | {n}.5 |" for n in range(rows))
    return f"| a | b | c |\n|--:|--:|--:|\n{lines}\n\n: Table {name}. {{#tbl-{name}}}\n\n"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> Path:
    """A book with more figures and tables than its text can carry: its PDF."""
    root = make_book(tmp_path_factory.mktemp("crowded") / "book")
    big = SVG.replace(b'width="80" height="60"', b'width="520" height="300" viewBox="0 0 80 60"')
    (root / "big.svg").write_bytes(big)
    text = "# The model {#sec-model}\n\n"
    for n in range(14):
        text += f"## Section {n}\n\n{WORDS}\n\n{WORDS}\n\n"
        text += f"![Figure {n}.](../big.svg){{#fig-{n}}}\n\n" if n % 4 else ""
        text += table(f"{n}", (3, 9, 14, 60)[n % 4])
    model = root / "chapters/02-model.qmd"
    model.write_text(text)
    (root / "chapters/01-data.qmd").write_text(f"# The data {{#sec-data}}\n\n{WORDS * 3}")
    (root / "index.qmd").write_text(f"# Preface {{.unnumbered}}\n\n{WORDS}\n")
    (root / "chapters/app.qmd").write_text(f"# Extras\n\n{WORDS}")
    assert run(root, "--to", "pdf") == 0
    return next((root / "_book").glob("*.pdf"))


def test_a_crowded_book_has_none(crowded):
    assert layout.problems(crowded) == []


def test_a_line_has_66_to_80_characters(crowded):
    full = layout.full_lines(crowded)
    assert len(full) > 100
    assert 66 <= statistics.quantiles(full, n=10)[0] <= statistics.quantiles(full, n=10)[-1] <= 80


def test_a_running_head_names_the_chapter(crowded):
    pages = layout.pypdf.PdfReader(crowded).pages
    heads = {page.extract_text().splitlines()[0].replace("\u2003", " ") for page in pages[3:-1]}
    assert any("The model" in head for head in heads)


@pytest.mark.slow
def test_the_report_has_none(tmp_path):
    """The frozen report, as a reader gets it."""
    assert offline.main(["--to", "pdf", "--output", str(tmp_path)]) == 0
    assert layout.problems(next(tmp_path.glob("*.pdf"))) == []
