"""Accept: a change that does not matter is accepted on evidence, one that does is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A repository with the package alone, committed, and one run of the quick profile trained."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(
        ROOT / "digitcnn", root / "digitcnn", ignore=shutil.ignore_patterns("__pycache__")
    )
    for words in (
        ("init", "-q"), ("add", "digitcnn"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "the code"),
    ):  # fmt: skip
        subprocess.run(["git", *words], cwd=root, check=True)
    assert command(root, "train", "mnist-few").returncode == 0
    return root


@pytest.fixture
def repository(trained, tmp_path):
    root = tmp_path / "repository"
    shutil.copytree(trained, root)
    return root


def command(root: Path, *words: str) -> subprocess.CompletedProcess:
    env = os.environ | {
        "PYTHONPATH": str(root), "DIGITCNN_ROOT": str(root), "DIGITCNN_PROFILE": "quick",
    }  # fmt: skip
    env.pop("DIGITCNN_TRAIN", None)
    words = [sys.executable, "-m", "digitcnn", *words]
    return subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)


def edit(root: Path, old: str, new: str) -> None:
    path = root / "digitcnn" / "training.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def record(root: Path) -> dict:
    return json.loads((root / "_quick/cache/runs/mnist-few.json").read_text())


def state(root: Path) -> str:
    lines = command(root, "status", "--all").stdout.splitlines()
    return next(line for line in lines if line.startswith("mnist-few "))


def test_a_clearer_loop_is_accepted_with_its_evidence(repository):
    before = record(repository)
    assert "current" in state(repository)
    edit(repository, "for step, at in enumerate(", "for step, at in enumerate(*[")
    edit(repository, "order.split(self.batch), start=first)", "order.split(self.batch), first])")
    assert "stale: code changed: Training" in state(repository)
    done = command(repository, "accept", "--because", "positional")
    assert done.returncode == 0 and "1 runs are current again" in done.stdout, done.stderr
    assert "current" in state(repository)
    after = record(repository)
    (change,) = after["accepted"]
    assert change["from"] == before["key"] != change["to"] == after["key"]
    assert change["because"] == "positional" and change["evidence"]["steps"] == 200
    assert after["weights_sha256"] == before["weights_sha256"]


def test_a_change_that_matters_is_refused_with_the_first_difference(repository):
    before = record(repository)
    edit(repository, "rising = max(1, round(0.2 * steps))", "rising = max(1, round(0.25 * steps))")
    done = command(repository, "accept", "--because", "nicer")
    assert (
        done.returncode == 1 and "The change matters: after 200 steps of mnist-few" in done.stderr
    )
    assert record(repository) == before and "stale" in state(repository)


def test_without_git_or_reason_it_is_a_sentence(repository):
    assert "nothing to accept" in command(repository, "accept", "--because", "x").stderr
    edit(repository, "return 1.0\n", "return float(1)\n")
    edit(repository, "0.2 * steps", "steps * 0.2")
    assert "--because" in command(repository, "accept", "--because", " ").stderr
    shutil.rmtree(repository / ".git")
    error = command(repository, "accept", "--because", "x").stderr
    assert "git's history is needed" in error and "Traceback" not in error
