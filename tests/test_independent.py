"""Figures of the report, recomputed from the text files alone, by nothing of digitcnn."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path

import pytest

from digitcnn import runs

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (42, 43, 44)
IMAGES = {"mnist": 14_000, "svhn": 19_858}  # a fifth of 70,000 and of 99,289
pytestmark = pytest.mark.usefixtures("full")


@pytest.fixture
def full(monkeypatch):
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)


def last(run: str, split: str) -> float | None:
    """Accuracy in the last row of a metrics file; None without the file."""
    path = ROOT / "cache" / "metrics" / run / f"{split}.txt"
    if not path.is_file():
        return None
    *_, row = csv.DictReader(path.read_text().splitlines(), delimiter="\t")
    return float(row["accuracy"])


def trained(data: str, name: str, split: str) -> list[float]:
    found = [last(f"{data}{name}" + (f"-s{s}" if s != 42 else ""), split) for s in SEEDS]
    return [value for value in found if value is not None]


def test_the_main_figures_follow_from_the_text_files():
    from digitcnn.report import evaluation, experiments

    errors = {}
    for data in runs.DATA:
        values = trained(data, "", "test")
        for said in (evaluation.model(data).accuracy, experiments.model(data).test.accuracy):
            assert said.count == len(values) >= 2
            assert said == pytest.approx(statistics.mean(values), abs=1e-6)
            assert said.std == pytest.approx(statistics.stdev(values), abs=1e-6)
        errors[data] = round((1 - values[0]) * IMAGES[data])
    ratio = errors["svhn"] / IMAGES["svhn"] * IMAGES["mnist"] / errors["mnist"]
    assert evaluation.harder() == pytest.approx(ratio, rel=1e-6)


@pytest.mark.skipif(
    not all(last(run.id, "validation") for run in runs.grid() if run.group == "experiments"),
    reason="the experiments are not all trained",
)
@pytest.mark.parametrize("data", runs.DATA)
def test_the_noise_of_the_experiments_follows_from_the_text_files(data):
    """The pooled standard deviation of a seed, here out of the printed intervals' widths."""
    from scipy.special import stdtrit

    from digitcnn.report import experiments

    said = experiments.tried(data).settings
    recipe = trained(data, "-exp-recipe", "validation")
    bare = [name for name in runs.EXPERIMENTS["architecture"] if "batch-norm" in name]
    rest = [name for name in runs.EXPERIMENTS["architecture"] if name not in bare]
    others = [members for group, members in runs.EXPERIMENTS.items() if group != "architecture"]
    for members in (*others, bare, rest):
        values = {name: trained(data, f"-exp-{name}", "validation") for name in members}
        values = {name: part for name, part in values.items() if min(part) >= 0.5}
        parts = [recipe, *values.values()]
        squares = sum(statistics.variance(part) * (len(part) - 1) for part in parts)
        freedom = sum(len(part) - 1 for part in parts)
        noise = math.sqrt(squares / freedom)
        for name, part in values.items():
            half = (said[name].difference.high - said[name].difference.low) / 2
            error = noise * math.sqrt(1 / len(part) + 1 / len(recipe))
            assert half == pytest.approx(stdtrit(freedom, 0.975) * error, rel=1e-3)
            gain = statistics.mean(part) - statistics.mean(recipe)
            assert said[name].difference == pytest.approx(gain, abs=1e-6)
