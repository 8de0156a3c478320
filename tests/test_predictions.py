"""Saved models at work: loading, turning pictures into input, caching, `digitcnn predict`."""

import argparse
import json

import numpy as np
import pytest
import torch
from finished import finish
from PIL import Image

from digitcnn import (
    checkpoints,
    data,
    division,
    inference,
    pictures,
    prediction_table,
    predictions,
    runs,
)
from digitcnn.files import DigitcnnError
from digitcnn.training import build_model


@pytest.fixture(scope="module")
def quick_root(tmp_path_factory):
    """A results tree of the quick profile with two untrained models saved as if trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITCNN_PROFILE", "quick")
        patch.setenv("DIGITCNN_ROOT", str(tmp_path_factory.mktemp("root")))
        division._pool.cache_clear()  # reading writes the manifest into this tree
        for name in ("mnist", "svhn"):
            division.pool(name)
            save_model(runs.get(name))
        yield
    division._pool.cache_clear()


def save_model(run, **metadata):
    data.seed_everything(1)
    about = {"kind": "weights", "ingredients": json.dumps(runs.ingredients(run))} | metadata
    checkpoints.write_tensors(checkpoints.weights_path(run), build_model(run).state_dict(), about)


@pytest.fixture
def damaged(quick_root):
    """The SVHN run, whose model file a test may spoil; it is mended afterwards."""
    run = runs.get("svhn")
    path = checkpoints.weights_path(run)
    whole = path.read_bytes()
    yield run, path
    path.write_bytes(whole)


def one_sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and text.isprintable()
    return text


# Pictures


def test_small_grey_pictures_are_padded_as_mnist_is():
    grey = np.arange(784, dtype=np.uint8).reshape(28, 28) % 200 + 20
    image = pictures.to_images(grey)[0].numpy()
    assert image.shape == (3, 32, 32) and image.dtype == np.uint8
    assert (image[:, 2:30, 2:30] == grey).all()
    assert image[:, :2].max() == image[:, :, 30:].max() == 0


def test_all_forms_of_a_picture_agree(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    expected = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    forms = (
        path, str(path), Image.fromarray(pixels), pixels, pixels.transpose(2, 0, 1), expected,
        pixels / 255, pixels.astype(np.int64), [pixels], expected[None],
    )  # fmt: skip
    for form in forms:
        assert torch.equal(pictures.to_images(form), expected[None])


def test_other_sizes_keep_their_proportions():
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 18:22] = 255  # a vertical stroke in the middle
    image = pictures.to_images(wide)[0, 0].numpy()
    assert image[:, 15:17].min() > 128, "the border is repeated above and below"
    assert image[:, :12].max() == image[:, 20:].max() == 0


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((5, 5, 7), np.uint8), "shape (5, 5, 7)"),
        (np.zeros((2, 2, 2, 2, 2), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.full((4, 4), 1.5), "divide it by 255"),
        (np.full((4, 4), np.nan), "[0, 1]"),
        (np.full((4, 4), -1), "0 to 255"),
        (np.full((4, 4), 256), "0 to 255"),
        ([], "No picture"),
        (3.5, "float is not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(picture, said):
    with pytest.raises(DigitcnnError) as caught:
        pictures.to_images(picture)
    assert said in one_sentence(caught)


def test_unreadable_files_are_refused(tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    cut = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:400])
    for path in (text, cut, tmp_path, tmp_path / "absent.png"):
        with pytest.raises(DigitcnnError) as caught:
            pictures.to_images(path)
        assert path.name in one_sentence(caught)


def test_huge_pictures_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    Image.new("L", (40, 40)).save(path)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(DigitcnnError, match="40 x 40"):
        pictures.to_images(path)


# Models


def test_a_loaded_model_gives_probabilities(quick_root):
    model = inference.load("mnist")
    pictures = data.load("mnist", "test").take([0, 5, 9]).images
    found = inference.probabilities(model, pictures)
    assert found.shape == (3, 10) and (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    with torch.no_grad():
        direct = model.probabilities(pictures.float() / 255).numpy()
    np.testing.assert_allclose(found, direct, atol=0.02)  # bfloat16 on some processors
    assert not model.training


def test_loading_never_trains(quick_root, monkeypatch):
    monkeypatch.setattr(checkpoints, "train", lambda run: pytest.fail("training was started"))
    with pytest.raises(DigitcnnError, match="not kept"):
        inference.load("mnist-exp-recipe")


def test_a_missing_model_is_named(damaged):
    run, path = damaged
    path.unlink()
    with pytest.raises(DigitcnnError, match="missing"):
        inference.load(run)


@pytest.mark.parametrize("spoil", ["cut", "text", "empty", "one bit"])
def test_a_damaged_model_is_refused(damaged, spoil):
    run, path = damaged
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "text": b"this is no model",
            "empty": b"",
            "one bit": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        }[spoil]
    )
    with pytest.raises(DigitcnnError) as caught:
        inference.load(run)
    assert path.name in one_sentence(caught) and "damaged" in one_sentence(caught)


def test_a_stale_model_is_refused(damaged):
    run, _ = damaged
    save_model(run, ingredients=json.dumps(runs.ingredients(run) | {"code": "other"}))
    with pytest.raises(DigitcnnError, match="stale \\(code changed\\)"):
        inference.load(run)


def test_another_architecture_is_refused(damaged):
    run, path = damaged
    _, about = checkpoints.read_tensors(path)
    checkpoints.write_tensors(path, {"weight": torch.zeros(3)}, about)
    with pytest.raises(DigitcnnError, match="another architecture"):
        inference.load(run)


# Cached results


def test_predictions_are_made_once_and_the_same_again(quick_root, monkeypatch):
    finish("svhn")
    first = predictions.predict("svhn", "svhn", "validation")
    monkeypatch.setattr(inference, "load", lambda run: pytest.fail("computed twice"))
    again = predictions.predict("svhn", "svhn", "validation")
    assert np.array_equal(first.logits, again.logits)
    assert np.array_equal(first.labels, data.load("svhn", "validation").labels.numpy())
    assert np.array_equal(first.wrong, first.logits.argmax(1) != first.labels)


def test_temperature_flattens_but_keeps_the_order():
    logits = np.array([[2.0, 0.0, -1.0], [800.0, 0.0, 0.0]], np.float32)
    sharp, flat = predictions.softmax(logits), predictions.softmax(logits, 3.0)
    assert np.isfinite(sharp).all()
    np.testing.assert_allclose(flat.sum(1), 1)
    assert flat[0, 0] < sharp[0, 0] and (flat.argsort(1) == sharp.argsort(1))[0].all()


# digitcnn predict


def predict(*words):
    parser = argparse.ArgumentParser()
    prediction_table.add_arguments(parser)
    return prediction_table.predict_command(parser.parse_args(words))


def test_predict_names_each_file_and_its_classes(quick_root, tmp_path):
    path = tmp_path / "seven.png"
    Image.fromarray(data.load("mnist", "test").images[0, 0].numpy()).save(path)
    words = ("--model", "mnist", "--prepare", "none")
    lines = predict(str(path), str(path), *words).splitlines()
    assert len(lines) == 3 and "MNIST" in lines[0] and lines[1] == lines[2]
    expected = inference.probabilities(inference.load("mnist"), path)[0]
    assert lines[1].startswith(str(path))
    assert f"{expected.argmax()} {expected.max():6.1%}" in lines[1]


def test_random_samples_change_unless_seeded(quick_root):
    assert predict("--random", "5", "--seed", "3") == predict("--random", "5", "--seed", "3")
    assert len({predict("--random", "5") for _ in range(4)}) > 1
    table = predict("--random", "5", "--data", "mnist", "--seed", "0").splitlines()
    right = sum("wrong" not in line for line in table[1:6])
    assert len(table) == 7 and table[6] == f"{right} of 5 are right."


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("a.png", "--random", "2"),
        ("a.png", "--seed", "2"),
        ("a.png", "--data", "mnist"),
        ("a\x1b[31m.png",),
        ("--random", "0"),
        ("--random", "1001"),
        ("--random", "2", "--seed", "-1"),
        ("--random", "2", "--data", "cifar"),
        ("a.png", "--model", "../mnist"),
        ("absent.png",),
    ],
)
def test_predict_refuses_what_it_cannot_do(quick_root, words):
    with pytest.raises(DigitcnnError) as caught:
        predict(*words)
    one_sentence(caught)
