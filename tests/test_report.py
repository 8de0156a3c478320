"""Report: how numbers, tables and the profile are shown."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from digitcnn import division, report, runs
from digitcnn.stats import Difference

NARROW = "\u202f"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (report.percent(0.99713), "99.71|%"),
        (report.percent(1), "100.00|%"),
        (report.percent(0.034, 1), "3.4|%"),
        (report.percent(0, 0), "0|%"),
        (report.number(69502), "69,502"),
        (report.number(1234567), "1,234,567"),
        (report.number(3.14159, 2), "3.14"),
        (report.number(999), "999"),
        (report.interval(0.9960, 0.9978), "99.60 to 99.78|%"),
        (report.interval(0.4, 0.6, 0), "40 to 60|%"),
        (report.estimate((0.9971, 0.9960, 0.9978)), "99.71|% (99.60 to 99.78)"),
        (report.estimate((0.5, 0.4, 0.6), 0), "50|% (40 to 60)"),
        (report.points(0.0031), "+0.31"),
        (report.points(-0.0031), "\u22120.31"),
        (report.points(-0.125, 1), "\u221212.5"),
        (report.points(-0.00001), "0.00"),
        (report.points(0.0), "0.00"),
        (report.points(-0.00001, 3), "\u22120.001"),
        (report.percent(math.nan), "–"),
        (report.signed(-0.204), "\u22120.20"),
        (report.signed(-0.0001), "0.00"),
        (report.difference(Difference(0.0031, 0.001, 0.0052, 0.01)), "+0.31 (+0.10 to +0.52)"),
        (report.difference(Difference(-0.02, math.nan, math.nan, 1.0), 1), "\u22122.0"),
        (report.listed(["a", "b", "c"]), "a, b and c"),
        (report.listed(["a"]), "a"),
        (report.listed([]), "none"),
        (report.times((3.21, 2.8, 3.7)), "3.2 (2.8 to 3.7)"),
        (report.times((math.nan, 0, 0)), "–"),
        (report.p_value(0.0123), "p = 0.012"),
        (report.p_value(0.0004), "p < 0.001"),
        (report.spread([0.987, 0.989]), "98.8 ± 0.1"),
        (report.spread([0.5]), "50.0"),
        (report.spread([-0.02, -0.04, -0.03], 2, 1), "\u22120.03 ± 0.01"),
        (report.duration(45), "45|s"),
        (report.duration(89.4), "89|s"),
        (report.duration(90), "2|min"),
        (report.duration(33 * 60), "33|min"),
        (report.duration(7500), "2|h 05|min"),
        (report.duration(3600 * 10 + 59 * 60 + 40), "11|h 00|min"),
    ],
)
def test_numbers_are_shown_as_a_reader_expects(shown, expected):
    assert shown == expected.replace("|", NARROW)


def cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table, at its unescaped bars."""
    assert line.startswith("| ") and line.endswith(" |")
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


FRAME = pd.DataFrame({"name": ["a", "b|c"], "count": [1, 20], "share": [0.123456, float("nan")]})


def test_a_table_has_a_head_a_rule_and_a_line_a_row():
    lines = report.table(FRAME).data.split("\n")
    assert [cells(line) for line in (lines[0], *lines[2:])] == [
        ["name", "count", "share"], ["a", "1", "0.1235"], [r"b\|c", "20", ""]
    ]  # fmt: skip
    assert len({len(cells(line)) for line in lines}) == 1


def test_text_is_aligned_left_and_numbers_right():
    rule = cells(report.table(FRAME).data.split("\n")[1])
    assert [re.sub("-+", "-", cell) for cell in rule] == [":-", "-:", "-:"]
    rule = cells(report.table(FRAME, align="crl").data.split("\n")[1])
    assert [re.sub("-+", "-", cell) for cell in rule] == [":-:", "-:", ":-"]


def test_dashes_are_proportional_to_the_widest_cell():
    frame = pd.DataFrame({"x": [1], "a long title": ["y"], "short": ["something much longer"]})
    rule = cells(report.table(frame).data.split("\n")[1])
    assert [cell.count("-") for cell in rule] == [3, len("a long title"), 21]


def test_digits_and_index():
    frame = FRAME.set_index("name")
    lines = report.table(frame, index=True, digits=1).data.split("\n")
    assert cells(lines[0])[0] == "name" and cells(lines[2]) == ["a", "1", "0.1"]
    assert "name" not in report.table(frame).data


def test_a_table_is_markdown_to_pandoc():
    pypandoc = pytest.importorskip("pypandoc")
    html = pypandoc.convert_text(report.table(FRAME).data, "html", format="markdown")
    assert html.count("<tr") == 3 and "b|c" in html and 'style="text-align: right;"' in html


def test_the_profile_is_known(monkeypatch):
    for value, expected in (("quick", True), ("full", False), ("", False)):
        monkeypatch.setenv("DIGITCNN_PROFILE", value)
        assert report.is_quick() is expected


def test_copies_say_which_data_the_results_come_from(sandbox):

    for name in runs.MAIN:
        division.pool(name)
    assert set(report.copies()) == {"mnist", "svhn"}
    assert all("quick profile" in text for text in report.copies().values())


def test_starting_a_chapter_seeds_everything():
    import numpy as np
    import torch

    drawn = []
    for _ in range(2):
        report.start()
        drawn.append((np.random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
