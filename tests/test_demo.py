"""The demonstration: samples, pictures, places, and the terminal."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys

import numpy as np
import pytest
from conftest import one_sentence

from digitcnn import cli, data, files, inference, pictures, predictions, preparation
from digitcnn.demo import command as demo
from digitcnn.demo import session as module
from digitcnn.files import DigitcnnError
from digitcnn.report import representation
from digitcnn.sources import NAMES

pytest_plugins = ["demonstration"]
UMAP_LAYOUT = representation.layout


# Samples and pictures


def test_samples_are_random_test_images_with_both_models_answers(answers):
    split = data.load("svhn", "test")
    drawn = answers.draw("svhn", count=7)
    positions = [sample["position"] for sample in drawn["samples"]]
    assert len(set(positions)) == 7 and drawn["among"] == len(split)
    assert positions != [s["position"] for s in answers.draw("svhn", count=7)["samples"]]
    for sample in drawn["samples"]:
        at = sample["position"]
        assert sample["label"] == split.labels[at]
        assert np.array_equal(sample["pixels"], split.images[at])
        for model in NAMES:
            stored = predictions.predict(model, "svhn").probabilities[at]
            found = sample["answers"][model]["probabilities"]
            np.testing.assert_allclose(found, stored, atol=0.02)  # bfloat16 on some processors


def most_wrong(name: str) -> int:
    """The class of a data set of which its own network misreads most test images."""
    said = predictions.predict(name, name)
    return int(np.bincount(said.labels[said.wrong], minlength=10).argmax())


def test_filters_keep_what_they_say(answers):
    for sample in answers.draw("mnist", digit=3, count=9)["samples"]:
        assert sample["label"] == 3
    wrong = predictions.predict("svhn", "mnist").wrong
    drawn = answers.draw("mnist", wrong="svhn", count=9)
    assert drawn["among"] == wrong.sum() > 9
    assert all(wrong[sample["position"]] for sample in drawn["samples"])
    digit = most_wrong("svhn")
    few = answers.draw("svhn", digit=digit, wrong="svhn", count=10_000)
    assert len(few["samples"]) == few["among"] < 10_000


def test_a_seed_draws_the_same_again(quick_root):
    drawn = []
    for _ in range(2):
        again = module.Answers(seed=4)
        assert list(again.load(["data mnist"])) == []
        drawn.append([s["position"] for s in again.draw("mnist", count=5)["samples"]])
    assert drawn[0] == drawn[1]


def test_what_cannot_be_drawn_is_a_sentence(answers, monkeypatch):
    with pytest.raises(DigitcnnError, match="cifar"):
        answers.draw("cifar")
    one = np.ones(1, int)
    right = predictions.Predictions(np.eye(10)[[1]], one, one, np.arange(1))
    monkeypatch.setitem(answers._ready, "stored mnist mnist", right)
    with pytest.raises(DigitcnnError, match="another class") as caught:
        answers.draw("mnist", wrong="mnist")
    one_sentence(caught.value)


def test_a_sample_stands_where_the_stored_map_has_it(answers):
    xy = representation.coordinates(representation.Map("svhn", ("mnist",)))["xy"].astype("f4")
    low, high = xy.min(0), xy.max(0)
    for sample in answers.draw("mnist", count=5)["samples"]:
        expected = 1000 * (xy[sample["position"]] - low) / (high - low)
        np.testing.assert_allclose(sample["answers"]["svhn"]["place"], expected, atol=0.51)


def test_a_picture_goes_the_usual_way_and_stands_among_its_neighbours(answers):
    split = data.load("mnist", "test")
    pixels = split.images[8].numpy().transpose(1, 2, 0)
    for how in ("auto", "none"):
        found = answers.picture(pictures.Picture(pixels, "said"), how)
        assert found["note"] == "said"
        for model in NAMES:
            answer = found["answers"][model]
            image = preparation.prepare_for([model], pixels, how)[model][0].image
            assert np.array_equal(answer["pixels"], image) and not answer["blank"]
            expected = inference.probabilities(inference.load(model), image)[0]
            np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    own = module.stored_map("mnist", "mnist")["points"][8].tolist()
    assert own in found["answers"]["mnist"]["near"]  # the sample itself is its nearest


def test_places_by_logits_are_close_to_the_true_ones(monkeypatch):
    """The claim behind a drawing's place, on the report's own maps."""
    for variable in ("DIGITCNN_ROOT", "DIGITCNN_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(representation, "layout", UMAP_LAYOUT)
    tried = 0
    for model in NAMES:
        try:
            points = module.stored_map(model, model)["points"]
        except DigitcnnError:
            continue  # results that are being made anew
        logits, tried = module.stored_predictions(model, model).logits, tried + 1
        errors = []
        for at in range(0, len(points), 97):
            order = np.argsort(((logits - logits[at]) ** 2).sum(1))[1 : module.NEAREST + 1]
            errors.append(np.linalg.norm(np.median(points[order], axis=0) - points[at]))
        assert np.median(errors) < 0.05 * module.MAP_SIZE
    if not tried:
        pytest.skip("no map in cache/umap is current")


# What is missing


def test_another_copy_of_the_data_is_refused_and_not_recorded(quick_root):
    path = files.cache_path("data", "mnist.json")
    before = path.read_bytes()
    try:
        files.write_json(path, json.loads(before) | {"digest": "another"})
        changed = path.read_bytes()
        with pytest.raises(DigitcnnError, match="another data set") as caught:
            module.test_images("mnist")
        one_sentence(caught.value)
        assert path.read_bytes() == changed
    finally:
        path.write_bytes(before)


def test_without_data_and_results_pictures_still_work(quick_root, monkeypatch):
    def absent(name):
        raise DigitcnnError(f"{name} is not here.")

    monkeypatch.setattr(module.sources, "read", absent)
    found = module.Answers()
    kept = files.cache_path("umap", "mnist-on-mnist.npz")
    kept.rename(kept.with_suffix(".away"))
    try:
        said = list(found.load())
    finally:
        kept.with_suffix(".away").rename(kept)
    assert len(said) == 3 and "cache/umap/mnist-on-mnist.npz is missing" in said[2]
    assert said[:2] == ["mnist is not here.", "svhn is not here."]
    strokes = np.zeros((90, 90, 3), np.uint8)
    strokes[20:70, 42:48] = 255
    drawing = found.picture(pictures.Picture(strokes, ""))
    assert "place" not in drawing["answers"]["mnist"] and "place" in drawing["answers"]["svhn"]
    with pytest.raises(DigitcnnError, match=r"mnist is not here\."):
        found.draw("mnist")


def test_a_bug_in_one_part_does_not_end_the_others(quick_root, monkeypatch, capsys):
    monkeypatch.setattr(module.sources, "read", lambda name: 1 / 0)
    found = module.Answers()
    (said,) = found.load(["data svhn", "model mnist"])
    assert "ZeroDivisionError" in said and "Traceback" in capsys.readouterr().err
    assert found.state()["model mnist"] == "ready"
    assert found.state()["data mnist"] == "loading"


# The terminal


def command(*words):
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    demo.demo_command(parser.parse_args(["--terminal", *words]))


def test_the_terminal_shows_a_sample_at_each_enter(quick_root, monkeypatch, capsys):
    digit = str(most_wrong("svhn"))
    replies = iter([f"w{digit}", "", "", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(replies))
    command("--seed", "1")
    first = capsys.readouterr().out
    assert first.count("SVHN test sample") == 4 and first.count(f"labelled {digit}") >= 3
    assert "MNIST network" in first and "SVHN network" in first and "WRONG" in first
    assert all(len(line) <= 80 for line in first.splitlines()) and first.isascii()
    replies = iter([f"w{digit}", "", "", "q"])
    command("--seed", "1")
    assert capsys.readouterr().out == first


def test_the_terminal_takes_the_pages_letters(quick_root, monkeypatch, capsys):
    replies = iter(["m", "w", "w", str(most_wrong("svhn")), "a", "s", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(replies))
    command()
    titles = re.findall(r"(MNIST|SVHN) test sample .* \(one of ([\d,]+)\)", capsys.readouterr().out)
    counts = [int(count.replace(",", "")) for _, count in titles]
    own, other = (int(predictions.predict(name, "mnist").wrong.sum()) for name in NAMES)
    assert [name for name, _ in titles[:4]] == ["SVHN", "MNIST", "MNIST", "MNIST"]
    assert counts[2:4] == [own, other] and counts[-1] == counts[0] and titles[-1][0] == "SVHN"


def test_colour_only_where_a_terminal_shows_it(monkeypatch):
    pixels = np.zeros((3, 32, 32), np.uint8)
    pixels[0, 0], pixels[2, 1] = 255, 9
    lines = demo.picture_lines(pixels, fancy=True)
    assert len(lines) == 16 and lines[0].startswith("\x1b[38;2;255;0;0;48;2;0;0;9m▀")
    plain = demo.picture_lines(pixels + np.uint8(246) * (pixels == 0), fancy=False)
    assert len(plain) == 16 and plain[5] == "@" * 32 and plain[0] != plain[5]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for terminal, no_colour, encoding in [(1, "", "utf-8"), (0, "", "utf-8"), (1, "1", "utf-8"),
                                          (1, "", "ascii")]:  # fmt: skip
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        stream.isatty = lambda terminal=terminal: bool(terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("NO_COLOR", no_colour)
        assert demo.colourful() == (terminal == 1 and not no_colour and encoding == "utf-8")


def test_a_terminal_without_input_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)  # as `<&-` leaves it
    assert cli.main(["demo", "--terminal"]) == 1
    assert "the input is closed" in one_sentence(DigitcnnError(capsys.readouterr().err.strip()))


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "1"],
        ["--terminal", "--port", "1"], ["--terminal", "--no-browser"],
        ["--terminal", "--seed", "-1"],
    ],
)  # fmt: skip
def test_contradictory_arguments_are_one_sentence(words, capsys):
    assert cli.main(["demo", *words]) == 1
    one_sentence(DigitcnnError(capsys.readouterr().err.strip().splitlines()[-1]))


def test_a_key_of_the_terminal_that_is_none_is_said_to_be_so(monkeypatch, capsys):
    typed = iter(["1x", " M2 "])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert demo.asked() == "m2"
    assert capsys.readouterr().out == "There is no key 'x'.\n"
