"""The first page and chapter 6: what is gathered from other chapters' results."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from digitcnn import files, predictions, results, runs
from digitcnn.predictions import Predictions
from digitcnn.report import controls, cross_dataset, experiments, summary, summary_figures
from digitcnn.report.evaluation import Shown
from digitcnn.report.values import Count, Points, Share, Spread


def said(labels: list[int], answers: list[int]) -> Predictions:
    predicted = np.array(answers)
    return Predictions(np.eye(10)[predicted], predicted, np.array(labels), np.arange(len(labels)))


def setting(difference: float, beyond: bool, failed: int = 0, group: str = "training"):
    points = Points((np.nan if failed else difference, np.nan, np.nan))
    return SimpleNamespace(
        group=group, label="GELU", difference=points, beyond=beyond, failed=Count(failed)
    )


def test_changes_are_counted_by_what_they_do(monkeypatch):
    recipe = setting(0, False, group="")
    found = {
        "mnist": {"recipe": recipe, "a": setting(-0.1, True), "b": setting(0.02, False)},
        "svhn": {"recipe": recipe, "a": setting(0.03, True), "b": setting(0.04, False),
                 "c": setting(0, False, failed=2)},
    }  # fmt: skip
    monkeypatch.setattr(
        experiments, "tried", lambda name: SimpleNamespace(settings=found[name], epochs=Count(6)),
        raising=False,
    )  # fmt: skip
    choices = summary.choices()
    assert (choices.tried, choices.better, choices.worse, choices.failed) == (5, 1, 1, 1)
    assert choices.epochs == 6 and choices.leaders == ["GELU"]


def test_errors_are_shared_that_every_training_makes(monkeypatch):
    made = {
        "mnist": said([1, 1, 1, 2], [7, 7, 7, 2]),
        "mnist-s43": said([1, 1, 1, 2], [7, 7, 1, 3]),
        "mnist-s44": said([1, 1, 1, 2], [7, 1, 7, 2]),
    }
    monkeypatch.setattr(runs, "trainings", lambda name: list(made))
    monkeypatch.setattr(predictions, "predict", lambda run, name: made[run])
    assert summary.shared("mnist").fraction == "1 of 3"
    monkeypatch.setattr(runs, "trainings", lambda name: ["mnist"])
    assert np.isnan(summary.shared("mnist"))  # one training shares nothing with another


def test_transfer_names_what_is_confused_and_what_closes_the_gap(monkeypatch):
    crossed = {
        ("svhn", "mnist"): SimpleNamespace(accuracy=Spread([0.8, 0.82])),
        ("mnist", "svhn"): SimpleNamespace(accuracy=Spread([0.2, 0.22]), majority=Share(19, 100)),
    }
    closed = {"all": 0.3, "contrast": 0.2}
    gap = SimpleNamespace(pictures=0.5, training=lambda which="all": closed[which], left=0.4)
    effects = SimpleNamespace(gain=lambda *changes: Points((-0.001, -0.01, 0.01)))
    monkeypatch.setattr(cross_dataset, "crossed", lambda *which: crossed[which])
    monkeypatch.setattr(cross_dataset, "gap", lambda model: gap)
    monkeypatch.setattr(controls, "effects", lambda run, name: effects)
    answers = said([9] * 3 + [0] * 2 + [5], [4] * 3 + [6] * 2 + [5])
    monkeypatch.setattr(predictions, "predict", lambda run, name: answers)
    found = summary.transfer()
    assert found.pairs == [(0, 6), (9, 4)] and found.always == 0.19
    assert (found.by_pictures, found.by_training, found.left) == (0.5, 0.3, 0.4)
    assert found.by_contrast == 0.2
    assert found.by_grey == -0.001


def test_the_work_is_that_of_the_stored_runs_alone(sandbox, monkeypatch):
    record = {"seconds": 3600.0, "environment": {"machine": "x86", "torch": "2.15.0"}}
    other = {"seconds": 600.0, "environment": {"machine": "arm", "torch": "2.15.0"}}
    kept = {"mnist": record, "svhn": other}
    for name in kept:
        files.write_json(runs.record_path(runs.get(name)), {})
    monkeypatch.setattr(results, "record", lambda run: kept[run.id])
    work = summary.work()
    assert list(summary.records()) == ["mnist", "svhn"]
    assert (work.count, work.time, work.machine, work.torch) == (2, 4200, "x86 and arm", "2.15.0")


def test_help_is_named_where_it_is_given(tmp_path, monkeypatch):
    page = tmp_path / "chapters" / "_help.md"
    page.parent.mkdir()
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    for text, shown in (
        ("<!-- What\nhelp. -->\n", ""),
        ("<!-- What. -->\nA friend read\nthe text.\n", "**Help.** A friend read the text."),
        ("A friend read it.", "**Help.** A friend read it."),
    ):
        page.write_text(text)
        assert summary.help_used() == shown


def test_the_first_page_shows_every_training_and_every_case():
    random = np.random.default_rng(0)
    epochs = pd.DataFrame({"epoch": [1, 2, 3, 4], "accuracy": [0.9, 0.95, 0.96, 0.97]})
    images = random.integers(0, 255, (3, 3, 32, 32)).astype(np.uint8)
    case = SimpleNamespace(recall_1=Spread([0.8, 0.9, 0.85]))
    parts = {
        "curves": {"first": {"test": epochs}, "second": {"test": epochs}},
        "confused": [Shown("1 → 7\n3 errors", images, ["1 → 7"] * 3, np.arange(3))] * 2,
        "features": summary.Features(random.normal(size=(50, 2)), np.arange(50) % 10),
        "rare": SimpleNamespace(case1=case, case2=case, case3=case),
    }
    figure = summary_figures.first_page(
        **{name: {"mnist": part, "svhn": part} for name, part in parts.items()}
    )
    b, c, d, e = figure.subfigs
    titles = [panel._suptitle.get_text() for panel in figure.subfigs]
    assert [title[:3] for title in titles] == ["(b)", "(c)", "(d)", "(e)"]
    assert len(b.axes[0].lines) == 4  # both trainings of both data sets
    assert sum(len(axis.images) for axis in c.axes) == 4 * 3
    assert {text.get_text() for text in d.axes[0].texts} == set(map(str, range(10)))
    assert all(axis.collections[0].get_rasterized() for axis in d.axes)
    dots = [line for line in e.axes[0].lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in dots) == 2 * 3 * 3
    assert all(text.get_fontsize() >= 7 for axis in c.axes for text in axis.texts)
