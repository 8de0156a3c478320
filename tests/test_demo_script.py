"""The sentences of the demonstration's script against the project's own stored results."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from digitcnn import division, inference, predictions, preparation, runs
from digitcnn.demo import examples, server
from digitcnn.demo import session as module
from digitcnn.files import DigitcnnError
from digitcnn.pictures import Picture
from digitcnn.report import attributes, difficulty
from digitcnn.sources import NAMES

SCRIPT = (Path(__file__).resolve().parent.parent / "DEMONSTRATION.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def full(monkeypatch):
    """The project's own results; a sentence about one that is missing cannot be judged here."""
    for variable in ("DIGITCNN_ROOT", "DIGITCNN_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    if stale := [f"{name} ({why})" for name in NAMES if (why := runs.stale(runs.get(name)))]:
        pytest.skip(f"The networks are not current: {', '.join(stale)}.")


def needed(load, *arguments):
    """A stored result; the test is skipped with its sentence while it is missing."""
    try:
        return load(*arguments)
    except DigitcnnError as error:
        pytest.skip(str(error))


def says(sentence: str) -> None:
    """The script still says what is tested here."""
    assert sentence in SCRIPT


def stored(model: str, name: str) -> predictions.Predictions:
    return needed(module.stored_predictions, model, name)


def test_minute_1_one_architecture_that_has_not_learned_from_these_images():
    says("One architecture, trained twice")
    says("Neither has learned from these images.")
    mnist, svhn = (runs.configuration(runs.get(name)) for name in NAMES)
    different = {field for field in mnist if mnist[field] != svhn[field]}
    assert not different & {"widths", "width", "activation", "dropout", "features", "residual"}
    for name in NAMES:
        split = needed(division.split_indices, name, "pooled")
        assert not set(split["test"]) & set(split["train"])


def test_minute_1_a_clear_digit_gets_nine_tenths_by_label_smoothing():
    says("Even a clear digit gets about nine tenths, not all: label smoothing taught it so.")
    found = stored("mnist", "mnist")
    assert abs(np.median(found.probabilities.max(1)[~found.wrong]) - 0.9) < 0.05
    assert abs(1 - 0.9 * runs.get("mnist").label_smoothing - 0.9) < 0.05


def test_minute_2_who_reads_svhn():
    says("The SVHN network reads nearly all, the MNIST network about one in five.")
    assert stored("svhn", "svhn").wrong.mean() < 0.05
    assert 0.15 < 1 - stored("mnist", "svhn").wrong.mean() < 0.25


def test_minute_3_what_is_more_frequent_among_errors():
    says("Blur, low contrast, and small or off-centre digits are more frequent among them")
    says("neighbours are not.")
    for split in ("validation", "test"):
        needed(attributes.measurements.load, "svhn", split)
    ratio = difficulty.associations("svhn")["ratio"]
    assert all(ratio[name].low > 1 for name in ("blurred", "low contrast", "small or off-centre"))
    assert ratio["neighbour"].high < 1


def test_minute_4_mnists_errors_fit_on_a_few_draws():
    says("All that MNIST has of errors fits on a few draws.")
    assert stored("mnist", "mnist").wrong.sum() <= 6 * server.DRAWN


def test_minute_5_errors_lie_among_the_other_digit():
    says("The ring mostly lies in the wrong cluster, or at its edge")
    found, chart = stored("mnist", "mnist"), needed(module.stored_map, "mnist", "mnist")
    wrong = np.flatnonzero(found.wrong)
    _, near = cKDTree(chart["points"]).query(chart["points"][wrong], 16)
    around = found.labels[near[:, 1:]]
    assert ((around == found.predicted[wrong][:, None]).mean(1) > 0.5).mean() > 0.5


def test_minute_6_the_flag_of_a_one_is_the_cause():
    says("Each of these ones is read as 7.")
    says("a sample that both misread, *To the drawing board*, rub out the flag at the upper left")
    own, other = stored("mnist", "mnist"), stored("svhn", "mnist")
    ones = np.flatnonzero(own.wrong & (own.labels == 1))
    assert len(ones) and set(own.predicted[ones]) == {7}
    both = ones[other.wrong[ones]]
    images = needed(module.test_images, "mnist").images[both].numpy()
    networks = [inference.load(name) for name in NAMES]
    cured = []
    for image in images:
        rows, columns = np.nonzero(image[0] > 60)
        top, left = rows.min(), columns.min()
        tried = np.stack([image] * 48)
        for i, (high, wide) in enumerate(np.ndindex(8, 6)):  # 3 to 10 by 3 to 8 pixels
            tried[i, :, top : top + 3 + high, left : left + 3 + wide] = 0
        read = [inference.probabilities(network, tried).argmax(1) == 1 for network in networks]
        cured.append((read[0] & read[1]).any())
    assert len(both) and any(cured)
    assert all(cured)  # whichever is chosen


def test_minute_7_the_mnist_network_on_svhn():
    says("gives nearly all of SVHN the same answer, and is seldom sure of it.")
    found = stored("mnist", "svhn")
    assert np.bincount(found.predicted).max() / len(found.predicted) > 0.8
    assert (found.probabilities.max(1) > 0.8).mean() < 0.05


def test_minute_8_the_svhn_network_on_mnist():
    says("most digits are read; a 9 is taken for a 4 most often, a 0 for a 6.")
    found = stored("svhn", "mnist")
    assert found.wrong.mean() < 0.25 and (1 - found.wrong.mean()) > 3 * 0.2
    for true, taken in ((9, 4), (0, 6)):
        answers = np.bincount(found.predicted[found.wrong & (found.labels == true)], minlength=10)
        assert answers.argmax() == taken


def test_minute_9_a_three_in_both_colours():
    says("Found first, the digit is brought into each network's form, and both read either")
    says("black on white, the MNIST network fails, and the SVHN network does not")
    ink = examples._three()[..., 0] > 0.5
    rows, columns = np.nonzero(ink)
    square = np.zeros((max(np.ptp(rows), np.ptp(columns)) * 8 // 5,) * 2, bool)
    top, left = (square.shape[0] - np.ptp(rows)) // 2, (square.shape[1] - np.ptp(columns)) // 2
    square[rows - rows.min() + top, columns - columns.min() + left] = True
    read = {}
    for paper in ("black", "white"):
        pixels = np.repeat(np.uint8(255 * (square ^ (paper == "white")))[..., None], 3, axis=2)
        for how in preparation.HOW:
            images = preparation.prepare_for(NAMES, pixels, how)
            for name in NAMES:
                shares = inference.probabilities(inference.load(name), images[name][0].image)
                read[paper, how, name] = int(shares.argmax())
    assert {read[paper, "auto", name] for paper in ("black", "white") for name in NAMES} == {3}
    assert read["white", "none", "mnist"] != 3 and read["white", "none", "svhn"] == 3


def test_minute_10_the_example_pictures():
    says("Where there is no digit, an answer comes all the same, but it is said")
    answers = module.Answers()
    assert not list(answers.load([f"model {name}" for name in NAMES]))
    for name, pixels in examples.examples().items():
        found = answers.picture(Picture(pixels.transpose(1, 2, 0), ""))["answers"]
        read = [int(np.argmax(answer["probabilities"])) for answer in found.values()]
        unlike = [answer["unlike"] for answer in found.values()]
        expected = {"pen": 3, "light": 7, "small": 5}
        digit = next((d for word, d in expected.items() if re.search(rf"\b{word}\b", name)), None)
        if digit is not None:
            assert read == [digit] * 2 and unlike == [False] * 2, name
        if name == "no digit":
            assert unlike == [True] * 2
