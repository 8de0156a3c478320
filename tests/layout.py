"""Layout: what a typographer would object to in a finished PDF, whoever has rendered it.

Where ink is, is seen on pictures of the pages; what belongs together is read from the PDF's tags.
"""

from __future__ import annotations

import io
import itertools
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pypdf
import typst
from PIL import Image

PPI = 36
LONG_TABLE = 15  # rows: from here on a table may go on on the next page
EMPTIEST = 0.45  # of the height of the text: the most that may be white in one piece
LEFT, RIGHT, TOP, BOTTOM = 2.3, 18.7, 2.2, 27.2  # cm on A4: figures' width, and the text's height


def ink(pdf: Path) -> list[np.ndarray]:
    """A picture of each page: where it is darker than paper, as booleans (rows, columns)."""
    count = len(pypdf.PdfReader(pdf).pages)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "book.pdf").write_bytes(pdf.read_bytes())
        main = Path(folder) / "main.typ"
        main.write_text(
            '#set page("a4", margin: 0pt)\n'
            f'#for n in range({count}) {{ page(image("book.pdf", page: n + 1, width: 100%)) }}'
        )
        pages = typst.compile(str(main), format="png", ppi=PPI)
    pages = pages if isinstance(pages, list) else [pages]
    return [np.asarray(Image.open(io.BytesIO(page)).convert("L")) < 200 for page in pages]


def _pixel(centimetres: float) -> int:
    return round(centimetres / 2.54 * PPI)


def white(page: np.ndarray) -> float:
    """The highest white piece of a page's text, as a part of its height; 1 on a blank page."""
    body = page[_pixel(TOP) : _pixel(BOTTOM)]
    edges = np.concatenate([[0], np.flatnonzero(body.any(1)), [len(body)]])
    return float(np.diff(edges).max() / len(body))


class Element:
    """A tagged element of a PDF.

    Attributes:
        kind: its tag, such as ``Table``.
        alt: its alternative text, or "".
        children: the elements inside it, in reading order.
        pages: numbers of the pages that it stands on, from 1, in ascending order.
    """

    def __init__(self, node: dict, numbers: dict[int, int], page: int | None = None):
        self.kind, self.alt = node["/S"][1:], str(node.get("/Alt", ""))
        page = numbers[node.raw_get("/Pg").idnum] if "/Pg" in node else page
        self.children, pages = [], set()
        below = node.get("/K", [])
        for child in below if isinstance(below, list) else [below]:
            child = child.get_object()
            if isinstance(child, int):  # content of the element's own page
                pages.add(page)
            elif "/S" in child:
                self.children.append(Element(child, numbers, page))
            elif "/Pg" in child:
                pages.add(numbers[child.raw_get("/Pg").idnum])
        self.pages = sorted(pages.union(*(child.pages for child in self.children)) - {None})

    def walk(self) -> Iterator[Element]:
        """The element and all those inside it, in reading order."""
        yield self
        for child in self.children:
            yield from child.walk()


def elements(reader: pypdf.PdfReader) -> list[Element]:
    """All tagged elements of a PDF, in reading order."""
    numbers = {page.indirect_reference.idnum: n for n, page in enumerate(reader.pages, 1)}
    top = reader.trailer["/Root"]["/StructTreeRoot"]["/K"]
    tops = top if isinstance(top, list) else [top]
    return [each for node in tops for each in Element(node.get_object(), numbers).walk()]


def problems(pdf: Path) -> list[str]:
    """What is wrong with the layout of a PDF, a sentence each."""
    reader, pictures, found = pypdf.PdfReader(pdf), ink(pdf), []
    for number, (page, picture) in enumerate(zip(reader.pages, pictures, strict=True), 1):
        empty, text = white(picture), page.extract_text()
        if empty == 1:
            found.append(f"page {number} is blank")
        elif number < len(pictures) and empty > EMPTIEST:
            found.append(f"page {number} is white over {empty:.0%} of its height")
        if picture[:, : _pixel(LEFT) - 1].any() or picture[:, _pixel(RIGHT) + 1 :].any():
            found.append(f"page {number} has something in its margin")
        beside = np.r_[: _pixel(9.5), _pixel(11.5) : picture.shape[1]]  # the page's number
        if picture[_pixel(BOTTOM) + 2 :, beside].any():
            found.append(f"page {number} has something below its text")
        if loose := re.search(r"[@?](fig|tbl|sec|eq)-[\w-]+|\?\?", text):
            found.append(f"page {number} has the loose reference {loose[0]}")
    for element in elements(reader):
        kinds = [each.kind for each in element.walk()]
        where = element.pages
        if element.kind == "Table":
            rows = kinds.count("TR") - 1
            if len(where) > 1 and rows < LONG_TABLE:
                found.append(f"a table of {rows} rows is cut: pages {where[0]} and {where[-1]}")
            if "TH" not in kinds:
                found.append(f"a table on page {where[0]} has no header cells")
        elif element.kind == "Figure" and not element.alt:
            found.append(f"a figure on page {where[0]} has no alternative text")
        if [each.kind for each in element.children].count("Caption") == 1:
            caption = next(each for each in element.children if each.kind == "Caption")
            others = [each.pages for each in element.children if each is not caption and each.pages]
            if others and caption.pages[0] != (first := min(others)[0]):
                found.append(f"a caption on page {caption.pages[0]} belongs to page {first}")
    return found


def full_lines(pdf: Path) -> list[int]:
    """How many characters each line has that is not the last of a paragraph."""
    counts = []
    for page in pypdf.PdfReader(pdf).pages:
        lines = [" ".join(line.split()) for line in page.extract_text().splitlines()]
        for line, after in itertools.pairwise(lines):
            if len(line) > 50 and len(after) > 10 and line[-1] not in ".:":
                counts.append(len(line))
    return counts
