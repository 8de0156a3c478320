"""Report: how numbers, tables and the profile are shown."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from digitcnn import report

NARROW = "\u202f"


def test_items_are_listed_as_a_reader_says_them():
    lists = [["a", "b", "c"], ["a"], []]
    assert [report.listed(items) for items in lists] == ["a, b and c", "a", "none"]


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


def test_starting_a_chapter_seeds_everything():
    import numpy as np
    import torch

    drawn = []
    for _ in range(2):
        report.start()
        drawn.append((np.random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
