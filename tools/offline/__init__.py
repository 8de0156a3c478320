"""The renderer without Quarto: the book as one HTML file and one PDF, from its frozen results.

    python tools/offline                       # _book/index.html and _book/<title>.pdf

`book` reads the project and its frozen Markdown (``_freeze/…/execute-results/{html,typ}.json``),
`rendering` has pandoc and Typst, which come as Python wheels, write both formats, and `cells`
executes a chapter and freezes what its cells show. What this book uses is known, the rest is
refused by name.
"""

from .book import (
    FORMATS,
    Problem,
    book_info,
    items,
    load_config,
    load_document,
    passages,
    read_source,
    write_whole,
)
from .cells import execute, inline, kernel
from .rendering import main, references, render, render_page

__all__ = [
    "FORMATS",
    "Problem",
    "book_info",
    "execute",
    "inline",
    "items",
    "kernel",
    "load_config",
    "load_document",
    "main",
    "passages",
    "read_source",
    "references",
    "render",
    "render_page",
    "write_whole",
]
