"""Tables of chapter 2: the second round of experiments."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from digitcnn import checkpoints, data, files, runs, tables


def test_errors_are_those_on_images_not_learned_from(sandbox):
    run = runs.get(runs.contender("mnist", {}).id)
    wrong = tables.unseen_errors(run)
    train, validation = (data.load("mnist", split) for split in ("train", "validation"))
    assert len(wrong) == len(train) - run.train_size + len(validation)
    # The validation split is last, and the errors on it are those of the run's own metrics.
    accuracy = checkpoints.history(run)["validation"]["accuracy"].iloc[-1]
    assert wrong[-len(validation) :].mean() == pytest.approx(1 - accuracy, abs=1e-6)
    assert files.cache_path("results", f"unseen-{run.id}.npz").is_file()


def test_verdicts_of_the_second_round_follow_from_the_images(sandbox, monkeypatch):
    """The first setting errs on 100 images, the others on more, fewer, or hardly other ones."""
    data.pool("mnist")
    shifts = dict(zip((runs.contender("mnist", c).id for c in runs.CONTENDERS),
                      (0, 60, -60, 4, 9, -9), strict=True))  # fmt: skip
    wrong = {}
    for name, shift in shifts.items():
        wrong[name] = np.zeros(1000, bool)
        wrong[name][: 100 + shift] = True
    monkeypatch.setattr(tables, "unseen_errors", lambda run: wrong[run.id])
    history = {"train": pd.DataFrame({"accuracy": [0.5]})}
    monkeypatch.setattr(checkpoints, "history", lambda run: history)
    monkeypatch.setattr(checkpoints, "record", lambda run: {"seconds": 1.0})
    table = tables.contest("mnist").set_index("setting")
    assert table["wrong"].is_monotonic_increasing and table["chosen"].sum() == 1
    assert table.loc[table["chosen"], "more"].tolist() == [0]
    for change, shift in zip(runs.CONTENDERS, shifts.values(), strict=True):
        row = table.loc[tables.contender_label(change)]
        assert row["more"] == shift and row["noise"] == pytest.approx(abs(shift) ** 0.5)
        expected = "equal" if abs(shift) <= 4 else "worse" if shift > 0 else "better"
        assert row["verdict"] == expected


def test_the_second_round_tries_what_led_the_first(monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    ahead = tables.verdicts().query("verdict == 'worse'")
    tried = tuple(tables.contender_label(change) for change in runs.LEADERS)
    for leader in ahead["alternative"]:
        assert any(label in (leader, f"batch {leader}") for label in tried), leader
    assert len(ahead)
