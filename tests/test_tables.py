"""Tables of chapter 2: the second round of experiments."""

from __future__ import annotations

import numpy as np
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
    monkeypatch.setattr(checkpoints, "record", lambda run: {"seconds": 1.0})
    table = tables.contest("mnist").set_index("setting")
    assert table["wrong"].is_monotonic_increasing and table["start"].sum() == 1
    assert table.loc[table["start"], "more"].tolist() == [0]
    for change, shift in zip(runs.CONTENDERS, shifts.values(), strict=True):
        row = table.loc[tables.contender_label(change)]
        assert row["more"] == shift and row["noise"] == pytest.approx(abs(shift) ** 0.5)
        expected = "equal" if abs(shift) <= 4 else "worse" if shift > 0 else "better"
        assert row["verdict"] == expected


def test_the_long_runs_are_held_against_each_other_on_validation(sandbox):
    table = tables.long_runs("mnist").set_index("run")
    assert list(table.index) == ["mnist-relu", "mnist"]
    wrong = {run: tables.unseen_errors(run) for run in table.index}
    size = len(data.load("mnist", "validation"))
    for run, row in table.iterrows():
        assert len(wrong[run]) == size  # all of the training split was learned from
        assert row["wrong"] == wrong[run].sum()
        assert row["validation"] == pytest.approx(1 - row["wrong"] / size, abs=1e-6)
        history = checkpoints.history(run)
        assert row["test"] == history["test"]["accuracy"].iloc[-1]
    assert table["more"].tolist() == [0, wrong["mnist"].sum() - wrong["mnist-relu"].sum()]
    assert table["noise"].iloc[1] ** 2 == pytest.approx(
        (wrong["mnist"] != wrong["mnist-relu"]).sum()
    )
    assert table["activation"].tolist() == ["ReLU", "GELU"]


def test_the_choice_made_the_fewest_errors_of_the_second_round(monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    for name, main in runs.MAIN.items():
        assert tables.contest(name)["setting"].iloc[0] == tables.contender_label(runs.CHOICE)
        changed = {k: v for k, v in vars(main).items() if v != vars(runs.REVISED[name])[k]}
        assert changed.keys() == {"name", *runs.CHOICE}


def test_the_second_round_tries_what_led_the_first(monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    ahead = tables.verdicts().query("verdict == 'worse'")
    tried = tuple(tables.contender_label(change) for change in runs.LEADERS)
    for leader in ahead["alternative"]:
        assert any(label in (leader, f"batch {leader}") for label in tried), leader
    assert len(ahead)
