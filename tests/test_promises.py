"""The promises in CONTRIBUTING.md: each names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def promises() -> dict[str, list[tuple[str, str]]]:
    """The tests (file, function) of each promise in the table."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = text.split("## Promises and their tests")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+) \| (`test_.+`) \|$", section, re.MULTILINE)
    return {promise: re.findall(r"`(test_\w+)::(test_\w+)`", tests) for promise, tests in rows}


def functions_in(module: str) -> set[str]:
    """The test functions of a file, less those that are always skipped."""
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text("utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and not any("mark.skip(" in ast.unparse(mark) for mark in node.decorator_list)
    }


def test_every_promise_names_tests_that_there_are():
    found = promises()
    assert len(found) > 25
    for promise, tests in found.items():
        assert tests, promise
        for module, name in tests:
            assert name in functions_in(module), f"{promise}: {module}::{name}"
