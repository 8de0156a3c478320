"""The core's annotations are true: mypy, configured in pyproject.toml, finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow  # the first time it reads torch's


def mypy(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mypy", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_the_cores_annotations_are_true():
    answer = mypy()
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_an_annotation_that_is_not_true_is_found(tmp_path):
    module = tmp_path / "wrong.py"
    module.write_text("from digitcnn import stats\n\n\nshare: str = stats.proportion(1, 2)\n")
    answer = mypy(str(module))
    assert answer.returncode == 1 and "expression has type" in answer.stdout, answer.stdout
