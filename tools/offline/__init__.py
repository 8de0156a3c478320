"""The renderer without Quarto: the book as one HTML file and one PDF, from its frozen results.

    python tools/offline                       # _book/index.html and _book/<title>.pdf

`book` reads the project and its frozen Markdown (``_freeze/…/execute-results/{html,typ}.json``),
`rendering` has pandoc and Typst, which come as Python wheels, write both formats, and `cells`
executes a chapter and freezes what its cells show. What this book uses is known, the rest is
refused by name.
"""

from .book import FORMATS, Problem, items, load_config, load_document
from .cells import execute, kernel
from .rendering import main, references

__all__ = [
    "FORMATS", "Problem", "execute", "items", "kernel", "load_config", "load_document", "main",
    "references",
]  # fmt: skip
