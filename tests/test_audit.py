"""Audit by looking: readings that a person can overwrite, edits and their controls."""

import importlib.util
import re
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import one_sentence
from finished import finish

from digitcnn import data, division, inference, predictions, runs
from digitcnn.files import DigitcnnError
from digitcnn.predictions import Predictions
from digitcnn.report import audit, causes, edits

ROOT = Path(__file__).resolve().parents[1]
LABELS = np.array([1, 1, 1, 4, 4, 7, 7, 0])
SAID = np.array([7, 7, 1, 9, 4, 7, 7, 0])
HEAD = ",".join(audit.COLUMNS)
# index, reasons, then digit, second and codes of both readings
ROWS = [
    "0,error suspect,7,1,flag between,7,,flag",  # label wrong, as the network says
    "1,error,1,7,flag,?,1,flag blur",  # undecidable
    "2,correct,1,,,1,,",
    "3,error,4,9,closed,4,,open",
    "4,correct train-4,-,,,-,,",  # no digit
    "5,seven-b,7,,flag bar,7,,flag bar",
    "6,seven-a train-1,7,,flag,7,,",
]


def tool():
    """The script that draws the sample and collects the readings."""
    spec = importlib.util.spec_from_file_location("readings", ROOT / "audit" / "readings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of eight images with known answers; call it to write the readings."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.setattr(division, "labels", lambda name: types.SimpleNamespace(labels=LABELS))

    def predict(run, name, split="test"):
        return Predictions(np.eye(10)[SAID], SAID, LABELS, np.arange(len(LABELS)))

    monkeypatch.setattr(predictions, "predict", predict)

    def write(rows=tuple(ROWS), head=HEAD):
        (tmp_path / "audit").mkdir(exist_ok=True)
        text = "\n".join([head, *(f"{row},person,2026-11-26,toy" for row in rows)]) + "\n"
        (tmp_path / "audit" / "mnist.csv").write_text(text, "utf-8")

    write()
    return write


def test_the_codebook_defines_every_code_once_and_no_other():
    text = (ROOT / "audit" / "CODEBOOK.md").read_text("utf-8").partition("## Codes")[2]
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", text, re.M)) == sorted(audit.CODES)


def test_verdicts_follow_the_codebook_and_a_person_who_overwrites_a_row(project):
    frame = audit.answers("mnist")
    errors = frame[frame["wrong"]]
    assert audit.verdicts(errors) == audit.Verdicts(3, 1, 1, 1, 1, 0)
    assert audit.verdicts(frame).no_digit == 1
    assert list(frame["index"][frame["label_wrong"]]) == [0]
    project(["0,error suspect,1,7,flag,1,,flag", *ROWS[1:]])
    assert audit.audited("mnist").errors == audit.Verdicts(3, 2, 0, 0, 1, 0)


def test_a_code_counts_if_both_readings_have_it(project):
    frame = audit.readings("mnist")
    assert audit.has(frame, "flag").tolist() == [1, 1, 0, 0, 0, 1, 0]
    assert audit.has(frame, "flag", "either").tolist() == [1, 1, 0, 0, 0, 1, 1]
    table = audit.compared("mnist").set_index("what")
    assert table.loc["flag", "errors"].value == pytest.approx(2 / 3)
    assert table.loc["flag", "correct"].value == 0
    assert table.loc["blur", "either"] == 1 and table.loc["blur", "errors"].value == 0
    shares = audit.in_cluster("mnist", "bar")
    assert (shares["a"].value, shares["b"].value) == (0, 1)


def test_agreement_is_cohens_kappa(project):
    table = audit.agreement("mnist").set_index("what")
    first, second = (np.array(audit.readings("mnist")[f"digit{r}"]) for r in (1, 2))
    chance = sum((first == value).mean() * (second == value).mean() for value in set(first))
    seen = (first == second).mean()
    assert table.loc["digit", "kappa"] == pytest.approx((seen - chance) / (1 - chance))
    assert table.loc["flag", ["first", "second", "both"]].tolist() == [4, 3, 3]
    assert np.isnan(table.loc["cut", "kappa"])  # nobody says so: nothing to agree about


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("8,error,1,,,1,,", "line 2: '8'"),
        ("x,error,1,,,1,,", "line 2: 'x'"),
        ("1,error,11,,,1,,", "reading 1: the digit is '11'"),
        ("1,error,1,,,1,1,", "reading 2: the second digit is '1'"),
        ("1,error,1,,,1,,flagg", "reading 2: 'flagg' is no code"),
    ],
)
def test_a_slip_is_named_with_its_line(project, row, says):
    project([row])
    with pytest.raises(DigitcnnError, match=re.escape(says)) as caught:
        audit.readings("mnist")
    one_sentence(caught.value)


def test_an_image_twice_and_other_columns_are_refused(project):
    project([ROWS[0], ROWS[0]])
    with pytest.raises(DigitcnnError, match="line 3: '0'"):
        audit.readings("mnist")
    project(head=HEAD.replace("reasons", "why"))
    with pytest.raises(DigitcnnError, match="needs the columns index, reasons"):
        audit.readings("mnist")


def test_without_readings_everything_is_empty(project, tmp_path):
    (tmp_path / "audit" / "mnist.csv").unlink()
    assert audit.audited("mnist").errors == audit.Verdicts(0, 0, 0, 0, 0, 0)
    assert np.isnan(audit.agreement("mnist")["kappa"]).all()
    assert np.isnan(audit.compared("mnist")["ratio"].iloc[0])


def test_confusions_join_answers_readings_and_edits(project, monkeypatch):
    monkeypatch.setattr(edits, "flips", lambda run: {(1, 7): edits.Flips(2, 1, 0.5)})
    found = causes.confusions("mnist")
    assert found.errors == 3 and found.top.pair == (1, 7) and found.top.count == 2
    assert found.top.seen("flag") == 2 and found.top.seen("between") == 0
    assert (found.top.flipped, found.top.flipped_control) == (1, 0.5)
    assert found.top.in_training("flag").fraction == "0 of 1"
    assert [pair.count for pair in found.pairs(9)] == [2, 1]
    assert found.rows[1].verdicts.label_confirmed == 1 and found.rows[1].flips.edited == 0
    with pytest.raises(DigitcnnError, match="No 0 is read as 1"):
        found.of(0, 1)


def test_clusters_are_found_where_there_are_two_and_not_in_one_cloud():
    random = np.random.default_rng(0)
    cloud, other = random.normal(size=(200, 5)), random.normal(20, 1, (60, 5))
    labels = audit._clusters(np.concatenate([cloud, other]))
    assert set(labels[200:]) <= {1, -1} and set(labels[:200]) <= {0, -1}
    assert (labels == 0).sum() > 150 and (labels == 1).sum() > 40
    assert (audit._clusters(cloud[:10]) == -1).all()


@pytest.mark.parametrize(("name", "looked_at"), [("mnist", None), ("svhn", 200)])
def test_the_kept_readings_cover_the_sample(monkeypatch, name, looked_at):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    if runs.stale(runs.get(name)):
        pytest.skip(f"{name} is not trained yet")
    frame = audit.readings(name)
    errors = int(predictions.predict(name, name).wrong.sum())
    assert audit.audited(name).errors.read == (looked_at or errors)
    assert audit.audited(name).suspects.read == len(audit.suspects(name))
    parts = [why for reasons in frame["reasons"] for why in reasons.split()]
    assert parts.count("correct") == 100
    training = {why: parts.count(why) for why in parts if why.startswith("train-")}
    assert list(training.values()) == [100] * 4
    assert audit.agreement(name)["kappa"].iloc[0] > 0.6


# Edits


SEVEN = np.zeros((32, 32), np.uint8)
SEVEN[6:26, 18:21] = 255
SEVEN[6:9, 8:18] = 200
FLAG = edits.Edit(0, "erase the flag", erase=((6, 8, 8, 17),))
STROKE = edits.Edit(0, "add a bar", draw=((16, 14, 16, 24),))


def test_an_edit_changes_its_place_alone():
    change = SEVEN.astype(int) - edits.apply(SEVEN, FLAG)
    assert change.sum() == 30 * 200 and not change[9:].any()
    change = edits.apply(SEVEN, STROKE).astype(int) - SEVEN
    assert change.min() == 0 and not change[:14].any() and not change[19:].any()
    assert change[15:17].sum() > 0.7 * change.sum() > 0


def test_controls_change_as_much_ink_elsewhere():
    for edit, slack in ((FLAG, 0), (STROKE, 0.2)):
        wanted = edits.apply(SEVEN, edit).sum(dtype=int) - SEVEN.sum(dtype=int)
        made = edits.controls(SEVEN, edit, 40)
        changed = made.sum((1, 2), dtype=int) - SEVEN.sum(dtype=int)
        assert abs(changed - wanted).max() <= slack * abs(wanted)
        assert len(np.unique(made, axis=0)) > 5
        assert (made == edits.controls(SEVEN, edit, 40)).all()
    kept = edits.controls(SEVEN, FLAG)[:, 6:9, 8:18]
    assert (kept == 200).all()


def test_remedies_do_what_they_are_called():
    random = np.random.default_rng(0)
    image = np.full((3, 32, 32), 90, np.uint8) + random.integers(0, 3, (3, 32, 32), np.uint8)
    image[:, 6:26, 14:17] = 140
    image[:, 6:26, :4] = 140
    covered = edits.cover_sides(image)
    assert (covered[:, :, 6:26] == image[:, :, 6:26]).all()
    assert covered[:, :, :6].max() < 95
    stretched = edits.stretch(image)
    assert stretched.min() < 10 and stretched.max() == 255
    soft = image.copy()
    soft[:, :, 13], soft[:, :, 17] = 115, 115
    assert np.ptp(edits.sharpen(soft)) > np.ptp(soft) + 10


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"edits": [{"index": 1}]}',
        '{"edits": [{"index": 1, "kind": "x"}]}',
        '{"edits": [{"index": 1, "kind": "x", "erase": [[0, 0, 32, 1]]}]}',
    ],
)
def test_damaged_edits_are_named(tmp_path, monkeypatch, text):
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "edits.json").write_text(text)
    with pytest.raises(DigitcnnError, match="is damaged at edit") as caught:
        edits.edits()
    one_sentence(caught.value)


def test_the_kept_edits_are_of_the_four_most_frequent_confusions():
    found = edits.edits()
    assert len({edit.index for edit in found}) == len(found) > 10
    assert {edit.kind for edit in found} >= {"erase the flag", "open the top", "close the top"}


def test_a_network_answers_edited_pictures(sandbox, monkeypatch):
    for name in ("mnist", "svhn"):
        finish(name)
    (sandbox / "audit").mkdir()
    (sandbox / "audit" / "edits.json").write_text('{"edits": []}')
    assert edits.flips("mnist") == {}
    assert causes.edited_gallery() == []
    found = edits.remedied_answers("svhn")
    images = data.load("svhn", "test").images.numpy()
    model = inference.load("svhn")
    for code, edit in edits.REMEDIES.items():
        wanted = inference.probabilities(model, edit(images[3])[None]).argmax()
        assert found[code][3] == wanted and len(found[code]) == len(images)
    table = causes.remedied("svhn")
    assert list(table["code"]) == list(edits.REMEDIES)
    assert (table["before"] == predictions.predict("svhn", "svhn").wrong.sum()).all()
    assert not causes.confusions("mnist").top.flips.edited
    assert set(runs.trainings("mnist")) == {"mnist"}


# The sample and its collection


def test_readings_are_merged_and_a_persons_row_stays(project, tmp_path, capsys):
    project(ROWS[:1])
    folder = tmp_path / "sheets"
    key = "sheet,position,set,index,reasons\nm-1,1,mnist,0,error\nm-1,2,mnist,3,correct\n"
    for reading, rows in ((1, "m-1,1,9,,\nm-1,2,4,9,open\n"), (2, "m-1,2,4,,open slanted\n")):
        (folder / f"reading{reading}").mkdir(parents=True)
        (folder / f"reading{reading}" / "m-1.csv").write_text(
            "sheet,position,digit,second,codes\n" + rows
        )
    (folder / "key.csv").write_text(key)
    with pytest.raises(SystemExit, match="Reading 2 lacks 1 pictures, the first of them number 1"):
        tool().main(["merge", str(folder)])
    last = folder / "reading2" / "m-1.csv"
    last.write_text(last.read_text() + "m-1,1,4,,\n")
    assert tool().main(["merge", str(folder)]) == 0
    frame = audit.readings("mnist").set_index("index")
    assert frame.loc[0, "digit1"] == "7" and frame.loc[0, "reader"] == "person"
    assert frame.loc[3, "codes2"] == {"open", "slanted"}
    last.write_text(last.read_text().replace("slanted", "leaning"))
    with pytest.raises(SystemExit, match="'leaning' is no code"):
        tool().main(["merge", str(folder)])


def test_the_errors_looked_at_are_the_first_of_one_order(project, monkeypatch):
    script = tool()
    monkeypatch.setattr(division, "split_indices", lambda name: {"train": np.arange(8)})
    monkeypatch.setattr(audit, "suspects", lambda name: np.array([1]))
    two = script.shuffled(np.arange(8))
    two = two[np.isin(two, [0, 1, 3])][:2]
    monkeypatch.setitem(script.ERRORS, "svhn", 2)
    drawn = script.drawn("svhn")
    assert {index for index, why in drawn.items() if "error" in why} == set(two)
    assert {index for index, why in drawn.items() if "correct" in why} == {2, 4, 5, 6, 7}
    assert {why for reasons in drawn.values() for why in reasons} == {
        "error", "suspect", "correct", "train-1", "train-4",
    }  # fmt: skip
    assert script.training_classes(predictions.predict("svhn", "svhn")) == [1, 4]


def test_a_sheet_shows_twenty_numbered_pictures():
    pictures = np.full((20, 3, 32, 32), 200, np.uint8)
    page = np.asarray(tool().sheet(pictures))
    assert (page == 200).all(-1).sum() >= 20 * 170 * 170
    assert pd.unique(page[0, :, 0]).tolist() == [128]
