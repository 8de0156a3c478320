"""Report: what the chapters call to say their numbers and show their tables.

A chapter starts with `start()`, draws with the figure modules, prints tables with `table` and has
its numbers from the other modules as `values` that print themselves; it computes nothing itself.
"""

from __future__ import annotations

import ast
import math
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown

from .. import files, runs
from .values import MINUS, Printed
from .values import listed as listed


def start() -> None:
    """Set the figures' style and the seeds; the first call of every chapter.

    torch is seeded where it is there: a chapter that finds its results stored does not load it, and
    training seeds it for itself.
    """
    from . import style

    warnings.filterwarnings("ignore", message=".*IProgress.*")
    random.seed(runs.SEED)
    np.random.seed(runs.SEED)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(runs.SEED)
    style.set_style()
    if shell := get_ipython():  # else inline text is shown as Python's repr, with \u202f in it
        shell.display_formatter.formatters["text/markdown"].for_type(str, str)


def table(
    frame: pd.DataFrame, align: str | None = None, index: bool = False, digits: int = 4
) -> Markdown:
    """A data frame as a Markdown table, which reads well in HTML and in PDF alike.

    Args:
        frame: whole numbers are shown with their thousands separated, floats with `digits`
            decimals, values of `digitcnn.report.values` as they print themselves.
        align: a letter a column, ``l``, ``c`` or ``r``; default: text left, numbers right.
        index: whether to show the index as the first column.
    """
    if index:
        frame = frame.reset_index()
    letters = align or "".join(
        "r" if pd.api.types.is_numeric_dtype(dtype) else "l" for dtype in frame.dtypes
    )

    def shown(value: object) -> str:
        if isinstance(value, Printed):
            return str(value).replace("|", r"\|")
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.{digits}f}".replace("-", MINUS)
        if isinstance(value, int | np.integer):
            return f"{value:,}"
        return str(value).replace("|", r"\|")

    head = [str(column) for column in frame.columns]
    body = [[shown(value) for value in row] for row in frame.itertuples(index=False)]
    # Where lines are long, pandoc takes the columns' relative widths from the dashes.
    dashes = ["-" * max(3, *map(len, column)) for column in zip(head, *body, strict=True)]
    ends = {"l": (":", ""), "c": (":", ":"), "r": ("", ":")}
    rule = [
        ends[letter][0] + dash + ends[letter][1]
        for letter, dash in zip(letters, dashes, strict=True)
    ]
    return Markdown("\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body)))


class Both(NamedTuple):
    """The same of both data sets."""

    mnist: Any
    svhn: Any

    def items(self) -> list[tuple[str, Any]]:
        """Name and value of each."""
        return list(self._asdict().items())


def both(function: Callable[[str], Any]) -> Both:
    """What a function of a data set's name gives for each."""
    return Both(function("mnist"), function("svhn"))


def source(*wanted: str) -> Markdown:
    """The source of definitions of this package as they stand, as a block of code.

    Args:
        wanted: ``module: name name …``, the module by its dotted name within the package.
    """
    found = []
    for each in wanted:
        module, _, names = each.partition(": ")
        text = Path(files.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
        definitions = {getattr(node, "name", ""): node for node in ast.parse(text).body}
        for name in names.split():
            found.append(f"# digitcnn/{module}.py")
            found.append(ast.get_source_segment(text, definitions[name]))
    code = "\n\n".join("\n".join(pair) for pair in zip(found[::2], found[1::2], strict=True))
    return Markdown(f"```python\n{code}\n```")
