"""Report: what the chapters call to say their numbers and show their tables.

A chapter starts with `start()`, draws with the figure modules, prints tables with `table` and
puts numbers into its prose with `percent`, `number` and `interval`; it computes nothing itself.
"""

from __future__ import annotations

import math
import warnings

import pandas as pd
from IPython.display import Markdown

from . import files, runs


def start() -> None:
    """Set the figures' style and the seeds; the first call of every chapter."""
    from . import figures
    from .data import seed_everything

    warnings.filterwarnings("ignore", message=".*IProgress.*")
    seed_everything()
    figures.set_style()


def percent(share: float, digits: int = 2) -> str:
    """A fraction in [0, 1] as a percentage: 0.99713 gives ``99.71 %`` (narrow space)."""
    return f"{100 * share:.{digits}f}\u202f%"


def number(value: float, digits: int = 0) -> str:
    """A number with thousands separated by commas: 69502 gives ``69,502``."""
    return f"{value:,.{digits}f}"


def interval(low: float, high: float, digits: int = 2) -> str:
    """An interval of two fractions as percentages: ``99.60 to 99.78 %``."""
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}\u202f%"


def points(difference: float, digits: int = 2) -> str:
    """A signed difference of two fractions in percentage points: ``+0.31``."""
    return f"{100 * difference:+.{digits}f}".replace("-", "\u2212")


def duration(seconds: float) -> str:
    """Seconds as a reader says them: ``45 s``, ``33 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f}\u202fs"
    minutes = round(seconds / 60)
    return f"{minutes}\u202fmin" if minutes < 90 else f"{minutes // 60}\u202fh {minutes % 60:02d}\u202fmin"


def table(
    frame: pd.DataFrame, align: str | None = None, index: bool = False, digits: int = 4
) -> Markdown:
    """A data frame as a Markdown table, which reads well in HTML and in PDF alike.

    Args:
        frame: values are shown as they are; floats with `digits` decimals.
        align: a letter a column, ``l``, ``c`` or ``r``; default: text left, numbers right.
        index: whether to show the index as the first column.
    """
    if index:
        frame = frame.reset_index()
    letters = align or "".join(
        "r" if pd.api.types.is_numeric_dtype(dtype) else "l" for dtype in frame.dtypes
    )

    def shown(value: object) -> str:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.{digits}f}"
        return str(value).replace("|", r"\|")

    rules = {"l": ":---", "c": ":---:", "r": "---:"}
    rows = [
        "| " + " | ".join(str(column) for column in frame.columns) + " |",
        "|" + "|".join(rules[letter] for letter in letters) + "|",
    ]
    rows += ["| " + " | ".join(map(shown, row)) + " |" for row in frame.itertuples(index=False)]
    return Markdown("\n".join(rows))


def copies() -> dict[str, str]:
    """Which copy of each data set the results come from, by name."""
    return {name: runs.manifest(name)["copy"] for name in runs.MAIN}


def is_quick() -> bool:
    """Whether this is the quick profile, whose numbers come from embedded stand-in data."""
    return files.profile() == "quick"
