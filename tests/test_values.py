"""Values that print themselves, and claims that fail when they are untrue."""

from __future__ import annotations

import ast
import builtins
import math
import re

import pytest

from digitcnn import files, provenance, stats
from digitcnn.report import claims, values
from digitcnn.report.values import Average, Count, Duration, Points, Ratio, Share, Spread


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Count(19858), "19,858"),
        (Share(13951, 14000), "99.65 %"),  # one image is 0.007 points, the interval 0.2
        (Share(19256, 19858), "97.0 %"),
        (Share(18, 49), "37 %"),
        (Share(0, 0), "–"),
        (Share(13951, 14000).rest, "0.35 %"),
        (Share(19256, 19858).full, "97.0 % (96.7 to 97.2)"),
        (Share(18, 49).fraction, "18 of 49"),
        (Spread([0.9697, 0.9712, 0.9704]), "97.04 ± 0.08 %"),
        (Spread([0.969, 0.973, 0.971]), "97.1 ± 0.2 %"),
        (Spread([0.99995, 0.99991, 0.99997]), "99.994 ± 0.003 %"),
        (Spread([0.99464, 0.99471, 0.99457]), "99.46 ± 0.01 %"),
        (Spread([0.5, 0.5, 0.5]), "50.00 %"),
        (Spread([784.0, 800.0], scale=1, unit="s"), "792 ± 11 s"),
        (Ratio(stats.ratio(602, 19858, 49, 14000)), "9"),
        (Spread([0.99999999, 1.0, 1.0]), "100.00 %"),  # never ± 0.000
        (Ratio(stats.ratio(0, 5, 0, 5)), "–"),  # of nothing: an interval without end
        (Points((-0.0123, -0.02, -0.004)), "−1.2 points"),
        (Points((0.0123, 0.004, 0.02)).signed_full, "+1.2 (+0.4 to +2.0)"),
        (Points((0.0, -0.01, 0.01)).signed, "0.0"),
        (Points((0.013, math.nan, math.nan, 1.0)).signed_full, "+1.30"),
        (Points((math.nan, math.nan, math.nan)).signed, "–"),
        (Points((-0.00001, -0.1, 0.1)).signed, "0"),
        (Average((0.9678, 0.965, 0.971)), "96.8 %"),
        (Duration(95), "2 min"),
        (Duration(7510), "2 h 05 min"),
        (values.Number(-1.234, 2, "nats"), "−1.23 nats"),
        (values.Number(math.nan), "–"),
        (values.listed(["a", "b", "c"]), "a, b and c"),
        (values.listed([]), "none"),
    ],
)
def test_a_value_prints_itself_at_the_precision_it_carries(value, shown):
    plain = str(value).replace(values.UNIT, " ").replace(values.WORD, " ")
    assert plain == shown
    assert value._repr_markdown_() == str(value) == f"{value}"


def test_a_value_is_a_number():
    share = Share(3, 4)
    assert share == 0.75 and share.low < share < share.high and type(share + 0) is float
    assert math.isnan(Share(0, 0)) and not Share(0, 0) > 0
    assert Spread([1, 2, 3]).values == (1.0, 2.0, 3.0) and Spread([1, 2, 3]).count == 3


def test_a_range_says_0_of_nothing_else():
    assert str(Spread([0.0013, 0.42, 0.18]).range) == "0.1 to 42\u202f%"
    assert str(Spread([0.0, 0.42, 0.18]).range) == "0 to 42\u202f%"


def test_a_claim_that_fails_names_chapter_and_sentence(monkeypatch):
    monkeypatch.setenv("QUARTO_DOCUMENT_FILE", "03-evaluation.qmd")
    monkeypatch.setattr(files, "profile", lambda: "full")
    claims.claim(True, "most errors are sevens")
    with pytest.raises(claims.Untrue, match=r"03-evaluation\.qmd: no longer true: most errors"):
        claims.claim(float("nan") > 1, "most errors are sevens")
    monkeypatch.setattr(files, "profile", lambda: "quick")
    claims.claim(False, "most errors are sevens")  # the stand-in data bear out nothing


# The claims of the chapters


class Missing:
    """A number that is not known, like nan: no comparison with it is true, but that it differs."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args, **named):
        return self

    def __getitem__(self, key):
        return self

    def __iter__(self):  # one, so that no `all` of nothing is true
        yield self

    def __bool__(self):
        return False

    __hash__ = object.__hash__
    _no = lambda self, *other: False  # noqa: E731
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __contains__ = _no
    __ne__ = lambda self, other: True  # noqa: E731
    _same = lambda self, *other: self  # noqa: E731
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _same
    __rtruediv__ = __pow__ = __neg__ = __abs__ = __round__ = _same


def conditions() -> list[tuple[str, str]]:
    """Document and condition of every claim in the book's sources, as text."""
    found = []
    for document in provenance.documents():
        text = (files.project_root() / f"{document}.qmd").read_text(encoding="utf-8")
        for cell in re.findall(r"^```\{python\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(cell)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim":
                    found.append((document, ast.unparse(node.args[0])))
    return found


class World(dict):
    """Names that nobody knows; what Python itself knows stays."""

    def __missing__(self, name):
        if hasattr(builtins, name):
            return getattr(builtins, name)
        return Missing()


@pytest.mark.parametrize(("document", "condition"), conditions())
def test_a_claim_fails_where_its_numbers_are_missing(document, condition):
    try:
        true = bool(eval(condition, {"__builtins__": {}}, World()))
    except TypeError:
        return  # the execution fails as well
    assert not true, f"{document}: {condition} holds of nothing"


@pytest.mark.parametrize(
    "condition", ["not a < b", "a != b or b < a", "True", "len('x') == 1", "a is not None"]
)
def test_a_claim_that_holds_of_nothing_is_found(condition):
    with pytest.raises(AssertionError, match="holds of nothing"):
        test_a_claim_fails_where_its_numbers_are_missing("chapter", condition)


@pytest.mark.parametrize(
    "condition", ["a.top > 0.5", "0.1 < a(1)['x'] < 2 * b", "min(a, b) > 3", "a.pair == (1, 7)",
                  "all(x > 1 for x in a.values)", "abs(a - b) < 0.1", "a.word in ('x', 'y')"]
)  # fmt: skip
def test_a_claim_that_compares_is_well_made(condition):
    test_a_claim_fails_where_its_numbers_are_missing("chapter", condition)
