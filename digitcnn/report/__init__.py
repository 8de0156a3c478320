"""Report: what the chapters call to say their numbers and show their tables.

A chapter starts with `start()`, draws with the figure modules, prints tables with `table` and
puts numbers into its prose with `percent`, `number` and `interval`; it computes nothing itself.
"""

from __future__ import annotations

import ast
import math
import random
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown

from .. import files, runs, stats
from .values import MINUS, Duration, Printed
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


def percent(share: float, digits: int = 2) -> str:
    """A fraction in [0, 1] as a percentage: 0.99713 gives ``99.71 %`` (narrow space).

    A dash where it is no number.
    """
    if math.isnan(share):
        return "–"
    return f"{100 * share:.{digits}f}\u202f%"


def number(value: float, digits: int = 0) -> str:
    """A number with thousands separated by commas: 69502 gives ``69,502``."""
    return f"{value:,.{digits}f}"


def interval(low: float, high: float, digits: int = 2) -> str:
    """An interval of two fractions as percentages: ``99.60 to 99.78 %``."""
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}\u202f%"


def estimate(found: tuple[float, float, float], digits: int = 2) -> str:
    """A share with the ends of its interval: ``99.71 % (99.60 to 99.78)``."""
    value, low, high = (f"{100 * part:.{digits}f}" for part in found)
    return f"{value}\u202f% ({low} to {high})"


def spread(values: Iterable[float], digits: int = 1, scale: float = 100) -> str:
    """Mean and standard deviation over seeds, in per cent unless scaled: ``98.7 ± 0.1``."""
    mean, std, count = stats.spread(scale * np.asarray(list(values), float))
    shown = f"{mean:.{digits}f}".replace("-", "\u2212")
    return f"{shown} ± {std:.{digits}f}" if count > 1 else shown


def times(found: tuple[float, float, float], digits: int = 1) -> str:
    """A ratio with the ends of its interval: ``3.2 (2.8 to 3.7)``; a dash if it is no number."""
    if math.isnan(found[0]):
        return "–"
    value, low, high = (f"{part:,.{digits}f}" for part in found)
    return f"{value} ({low} to {high})"


def p_value(p: float) -> str:
    """A p value as text: ``p = 0.012``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def points(difference: float, digits: int = 2) -> str:
    """A signed difference of two fractions in percentage points: ``+0.31``; zero has no sign."""
    rounded = round(float(100 * difference), digits)
    return f"{rounded:{'+' if rounded else 'z'}.{digits}f}".replace("-", "\u2212")


def difference(found: stats.Difference | pd.Series, digits: int = 2) -> str:
    """A difference of shares with its interval, in points: ``+0.31 (+0.12 to +0.50)``."""
    if math.isnan(found.low):
        return points(found.value, digits)
    ends = " to ".join(points(end, digits) for end in (found.low, found.high))
    return f"{points(found.value, digits)} ({ends})"


def signed(value: float, digits: int = 2) -> str:
    """A number with a typographic minus sign; zero has none."""
    return f"{value:z.{digits}f}".replace("-", "\u2212")


def duration(seconds: float) -> str:
    """Seconds as `values.Duration` prints them."""
    return str(Duration(seconds))


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


def on_both(value: Callable[[str], object], unit: str = "") -> str:
    """A value for each data set as a sentence has them; the unit stands with the first."""
    return f"{value('mnist')}{unit} on MNIST and {value('svhn')} on SVHN"


def copies() -> dict[str, str]:
    """Which copy of each data set the results come from, by name."""
    return {name: runs.manifest(name)["copy"] for name in runs.MAIN}


def is_quick() -> bool:
    """Whether this is the quick profile, whose numbers come from embedded stand-in data."""
    return files.profile() == "quick"
