"""Values that print themselves: numbers as a sentence or a table shows them.

Each is an ordinary number (so that claims compare it and formulas use it) which knows its unit and
the precision that it carries: the last decimal shown is the first that its own uncertainty leaves
open. Quarto's inline code and our executor print an object by ``_repr_markdown_``, so a sentence
holds a name and nothing else. Percentages and units are never parted from their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .. import stats

UNIT = "\u202f"  # a narrow space at which no line is broken
WORD = "\u00a0"  # the same before a word, as wide as between others
MINUS, MISSING = "\u2212", "–"
ERRORS = 4  # standard errors from end to end of a 95 % interval, nearly


def spaced(name: str) -> str:
    """A unit with the space before it, none without a unit."""
    return name and (WORD if len(name) > 3 else UNIT) + name


def decimals(error: float, most: int = 2) -> int:
    """Decimals that a number with this uncertainty carries: 0.12 gives 1, 3 gives 0."""
    if not 0 < error < math.inf:
        return most
    return min(max(0, -math.floor(math.log10(error))), most)


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals, thousands separated, and a typographic minus sign."""
    return f"{value:z,.{digits}f}".replace("-", MINUS) if math.isfinite(value) else MISSING


class Printed:
    """What prints itself: in inline code, in a table and in an f-string alike."""

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


class Text(Printed, str):
    """A piece of a sentence, such as an interval."""

    def __repr__(self) -> str:
        return str.__repr__(self)


class Count(Printed, int):
    """How many: ``602``, ``19,858``."""

    def __str__(self) -> str:
        return f"{int(self):,}"


class Number(Printed, float):
    """A plain number with the decimals it was given, such as a temperature."""

    def __new__(cls, value: float, digits: int = 2, unit: str = "") -> Number:
        """Keep the value; `unit` is printed behind it."""
        made = super().__new__(cls, value)
        made.digits, made.unit = digits, unit
        return made

    def __str__(self) -> str:
        return fixed(float(self), self.digits) + spaced(self.unit)


class Duration(Printed, float):
    """Seconds as a reader says them: ``45 s``, ``33 min``, ``2 h 05 min``."""

    def __str__(self) -> str:
        if math.isnan(self):
            return MISSING
        if self < 90:
            return f"{float(self):.0f}{UNIT}s"
        minutes = round(self / 60)
        if minutes < 90:
            return f"{minutes}{UNIT}min"
        return f"{minutes // 60}{UNIT}h {minutes % 60:02d}{UNIT}min"


class Share(Printed, float):
    """A fraction of counted things as a percentage, ``97.0 %``, with its 95 % Wilson interval.

    Attributes:
        hits, total: the counts.
        low, high: the ends of the interval, in [0, 1].
    """

    def __new__(cls, hits: int, total: int) -> Share:
        """The share of `hits` among `total`; nan of nothing."""
        found = stats.proportion(int(hits), int(total))
        made = super().__new__(cls, found.value)
        made.hits, made.total = Count(hits), Count(total)
        made.low, made.high = found.low, found.high
        return made

    @property
    def value(self) -> float:
        """The share itself."""
        return float(self)

    @property
    def digits(self) -> int:
        """Decimals of the percentage: by the half width of the interval, as one standard error."""
        return decimals(100 * (self.high - self.low) / ERRORS)

    def __str__(self) -> str:
        return MISSING if math.isnan(self) else f"{fixed(100 * self, self.digits)}{UNIT}%"

    @property
    def interval(self) -> Text:
        """``96.7 to 97.2 %``."""
        low, high = (fixed(100 * end, self.digits) for end in (self.low, self.high))
        return Text(f"{low} to {high}{UNIT}%")

    @property
    def full(self) -> Text:
        """``97.0 % (96.7 to 97.2)``."""
        return self.at(self.digits)

    def at(self, digits: int) -> Text:
        """`full` with so many decimals, for a column that is to be even."""
        value, low, high = (fixed(100 * part, digits) for part in (self, self.low, self.high))
        return Text(f"{value}{UNIT}% ({low} to {high})")

    @property
    def fraction(self) -> Text:
        """``7 of 19``."""
        return Text(f"{self.hits} of {self.total}")

    @property
    def rest(self) -> Share:
        """The share of all others."""
        return Share(self.total - self.hits, self.total)


class Estimated(Printed, float):
    """A number with a 95 % interval (`stats.Estimate`, `stats.Difference`), scaled for print.

    Attributes:
        low, high: the ends of the interval; nan where it is unknown.
        p: the p value of "there is none", nan where none was computed.
    """

    scale, unit, most = 1.0, "", 2

    def __new__(cls, found: Iterable[float], most: int | None = None) -> Estimated:
        """From (value, low, high) or (value, low, high, p); with at most so many decimals."""
        value, low, high, *p = found
        made = super().__new__(cls, value)
        made.most = cls.most if most is None else most
        made.low, made.high = float(low), float(high)
        made.p = float(p[0]) if p else float("nan")
        return made

    @property
    def digits(self) -> int:
        """Decimals that the interval leaves."""
        width = (self.high - self.low) / ERRORS
        return decimals(self.scale * width, self.most) if width > 0 else self.most

    def _number(self, value: float) -> str:
        return fixed(self.scale * value, self.digits)

    def __str__(self) -> str:
        return self._number(self) + spaced(self.unit)

    @property
    def interval(self) -> Text:
        """The ends of the interval, ``0.3 to 0.5``."""
        end = spaced(self.unit)
        return Text(f"{self._number(self.low)} to {self._number(self.high)}{end}")

    @property
    def full(self) -> Text:
        """``0.4 (0.3 to 0.5)``; without an interval where it is unknown."""
        return Text(str(self)) if math.isnan(self.low) else self.at(self.digits)

    def at(self, digits: int) -> Text:
        """`full` with so many decimals, for a column that is to be even."""
        parts = (fixed(self.scale * part, digits) for part in (self, self.low, self.high))
        value, low, high = parts
        return Text(f"{value}{spaced(self.unit)} ({low} to {high})")


class Average(Estimated):
    """A share that is no count, such as a macro average: ``96.8 %``."""

    scale, unit = 100.0, "%"


class Ratio(Estimated):
    """How many times: ``8.7``."""

    most = 1


class Points(Estimated):
    """A difference of two shares in percentage points: ``1.2 points``, or signed, ``+1.2``."""

    scale, unit = 100.0, "points"

    @property
    def signed(self) -> Text:
        """``+1.2`` or ``−1.2``."""
        shown = self._number(self)
        more = round(self.scale * self, self.digits) > 0  # nan is not
        return Text("+" + shown if more else shown)

    @property
    def signed_full(self) -> Text:
        """``+1.2 (+0.8 to +1.6)``."""
        ends = (Points((end, self.low, self.high)).signed for end in (self.low, self.high))
        return self.signed if math.isnan(self.low) else Text(f"{self.signed} ({' to '.join(ends)})")


class Spread(Printed, float):
    """Mean of several trainings with their standard deviation, ``97.0 ± 0.1 %``.

    Attributes:
        std: with n - 1 in its denominator; nan of a single value.
        values: one for each training, in order.
    """

    def __new__(
        cls, values: Iterable[float], scale: float = 100.0, unit: str = "%", single: int = 2
    ) -> Spread:
        """Of fractions by default; `scale` and `unit` are those of the print, `single` the decimals
        of a single value."""
        values = tuple(map(float, values))
        found = stats.spread(values)
        made = super().__new__(cls, found.mean)
        made.std, made.values, made.scale, made.unit = found.std, values, scale, unit
        made.single = single
        return made

    @property
    def count(self) -> Count:
        """How many trainings."""
        return Count(len(self.values))

    @property
    def range(self) -> Text:
        """The smallest and the largest, ``96.9 to 97.1 %``."""
        least, digits = self.scale * min(self.values), decimals(self.scale * self.std)
        high = fixed(self.scale * max(self.values), digits)
        low = fixed(least, digits if round(least, digits) or not least else 1)  # no 0 that is none
        return Text(f"{low} to {high}{spaced(self.unit)}")

    def __str__(self) -> str:
        std = self.scale * self.std
        if round(std, 3) == 0:  # nothing that a reader could use: never ± 0.000
            std = 0.0
        digits = decimals(std, most=3 if 0 < std < 0.005 else 2)  # never ± 0.00 either
        digits = self.single if self.count == 1 else digits
        shown = fixed(self.scale * self, digits)
        if std > 0:
            shown += f"{UNIT}±{UNIT}{fixed(std, digits)}"
        return shown + spaced(self.unit)


def listed(items: Iterable[object]) -> Text:
    """Items as a reader says them: ``a, b and c``; ``none`` of nothing."""
    *rest, last = [str(item) for item in items] or ["none"]
    return Text(f"{', '.join(rest)} and {last}" if rest else last)
