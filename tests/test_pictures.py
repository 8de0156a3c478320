"""Pictures of people's own: read as people see them or refused, prepared, and flagged."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_sentence
from PIL import Image, ImageDraw

from digitcnn import (
    checkpoints,
    cli,
    data,
    division,
    inference,
    pictures,
    prediction_table,
    preparation,
    rejection,
    runs,
    sources,
)
from digitcnn.files import DigitcnnError
from digitcnn.report import figures
from digitcnn.training import build_model

INPUTS = sorted((Path(__file__).parent / "inputs").iterdir())


def encoded(image, kind="PNG", **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def one(ink: object = 0, ground: object = 255, mode: str = "L", size=(120, 160)) -> Image.Image:
    """A vertical stroke a little right of the middle."""
    image = Image.new(mode, size, ground)
    ImageDraw.Draw(image).rectangle((70, 40, 81, 120), fill=ink)
    return image


def prepared(pixels, name="mnist", **more) -> list[preparation.Prepared]:
    return preparation.prepare_for([name], np.asarray(pixels), **more)[name]


@pytest.fixture(scope="module")
def real_models():
    """The project's own models; skipped where they are being made anew."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("DIGITCNN_ROOT", "DIGITCNN_PROFILE"):
            patch.delenv(variable, raising=False)
        try:
            yield {name: inference.load(name) for name in sources.NAMES}
        except DigitcnnError as error:
            pytest.skip(str(error))


# Reading


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_each_input_is_read_rightly_or_refused(path, real_models):
    if path.suffix == ".heic" or (path.suffix == ".avif" and not pictures.features.check("avif")):
        with pytest.raises(DigitcnnError, match=path.suffix[1:].upper()) as caught:
            pictures.read(path)
        assert "export" in one_sentence(caught.value)
        return
    pixels = pictures.read(path).pixels
    for name, model in real_models.items():
        image = torch.from_numpy(prepared(pixels, name)[0].image[None])
        found = int(inference.predict_logits(model, image).argmax())
        assert found == int(path.name[0]), f"the {name} network reads {found}"


def test_a_picture_is_upright():
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        upright = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30) % 251)
        turned = {
            2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4,
        }  # fmt: skip
        stored = upright.transpose(turned[orientation]) if orientation > 1 else upright
        found = pictures.read(encoded(stored, exif=exif)).pixels
        assert np.array_equal(found[..., 0], np.asarray(upright)), orientation


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparent_ink_lies_on_a_ground_that_it_differs_from(ink, mode):
    grey = one(ink, 128)
    alpha = one(255, 0)
    image = Image.merge("LA", (grey, alpha)).convert("RGBA").convert(mode)
    pixels = pictures.read(encoded(image.convert("RGBA"))).pixels
    assert (pixels[80, 75] == ink).all() and (pixels[0, 0] == 255 - ink).all()


def test_a_transparent_cut_out_goes_on_as_at_its_outline():
    image = Image.new("RGBA", (160, 160))
    card = ImageDraw.Draw(image)
    card.rectangle((20, 20, 140, 140), fill=(250, 240, 60, 255))
    card.rectangle((75, 50, 85, 110), fill=(20, 20, 20, 255))
    pixels = pictures.read(encoded(image)).pixels
    assert pixels[0, 0].tolist() == [250, 240, 60] and pixels[80, 80].max() == 20


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_and_fractions_keep_their_greys(kind):
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    expected = np.rint(255 * ramp)
    arrays = [(65535 * ramp).astype(np.uint16), (4095 * ramp).astype(np.uint16)]
    if kind == "TIFF":
        arrays += [ramp.astype(np.float32), (255 * ramp).astype(np.float32)]
        arrays += [(100 * ramp - 50).astype(np.float32), (65535 * ramp).astype(np.int32)]
    for array in arrays:
        found = pictures.read(encoded(Image.fromarray(array), kind)).pixels
        assert np.abs(found[..., 1] - expected).max() <= 1, array.dtype


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "RGBX"])
def test_other_modes_look_the_same(mode):
    image = one((200, 30, 40), (250, 250, 250), "RGB")
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF", "RGBX": "TIFF"}.get(mode, "PNG")
    converted = image.quantize() if mode == "P" else image.convert(mode)
    found = pictures.read(encoded(converted, kind)).pixels
    assert found.shape == (160, 120, 3) and found[80, 75].sum() < found[0, 0].sum() - 300
    if mode != "1":
        assert np.abs(found.astype(int) - np.asarray(image)).max() < 12


def test_an_animation_shows_its_first_frame_with_something_in_it():
    empty = Image.new("L", (120, 160), 255)
    content = encoded(empty, "GIF", save_all=True, append_images=[one(), empty])
    found = pictures.read(content)
    assert found.note == "frame 2 of 3" and np.ptp(found.pixels) == 255
    assert pictures.read(encoded(empty, "GIF")).note == ""


REFUSED = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "PDF": b"%PDF-1.7\n",
    "empty": b"",
    "not a readable picture": b"text",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_formats_are_refused_by_name(name):
    with pytest.raises(DigitcnnError, match=name) as caught:
        pictures.read(REFUSED[name])
    one_sentence(caught.value)


def test_what_is_not_a_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (
        tmp_path,
        tmp_path / "pipe.png",
        "/dev/zero",
        tmp_path / "absent",
        "a\0b",
        "x" * 999,
    ):
        with pytest.raises(DigitcnnError) as caught:
            pictures.read(path)
        one_sentence(caught.value) if len(str(path)) < 300 else None


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("1", (60_000, 800)).save(path)
    assert path.stat().st_size < 10_000
    code = """if True:
        import resource, sys
        from digitcnn import pictures
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            pictures.read(sys.argv[1])
        except pictures.DigitcnnError as error:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
    """
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    more, _, sentence = done.stdout.partition(" ")
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(more) * unit < 200e6 and "60000 x 800 pixels" in sentence, done.stderr


def test_a_large_photograph_costs_little(tmp_path):
    """24 million pixels of a telephone, as JPEG."""
    content = encoded(one(size=(6000, 4000)), "JPEG")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert max(pictures.read(content).pixels.shape) <= 2 * pictures.ENOUGH
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 200e6


# Preparation


@pytest.mark.parametrize("name", sources.NAMES)
def test_images_of_the_data_sets_are_untouched(name):
    """All test images of each set, bit for bit, before its own model."""
    try:
        source = sources.read(name)
    except DigitcnnError as error:
        pytest.skip(str(error))
    official = np.flatnonzero(source.official_test)
    chosen = np.union1d(official, division.split_indices(name)["test"])
    touched = 0
    for image in source.images[chosen]:
        pixels = image.transpose(1, 2, 0)
        if name == "mnist":
            assert preparation.is_like(pixels[2:-2, 2:-2], name)
        touched += not np.array_equal(prepared(pixels, name)[0].image, image)
    assert len(chosen) > 10_000 and touched == 0


def test_more_than_the_size_decides():
    stroke = np.zeros((28, 28), np.uint8)
    stroke[4:24, 13:15] = 255
    for pixels in (255 - stroke, np.roll(stroke, 5, 1), np.roll(stroke, 4, 0), stroke // 2):
        found = prepared(np.repeat(pixels[..., None], 3, 2))[0]
        assert found.box and not found.note
    whole = prepared(np.repeat(stroke[..., None], 3, 2))[0]
    assert "as it is" in whole.note and (whole.image[:, 2:30, 2:30] == stroke).all()
    flat = np.full((32, 32, 3), 200, np.uint8)
    flat[8:24, 14:18] = (10, 20, 60)
    assert prepared(flat, "svhn")[0].box


@pytest.mark.parametrize("colours", [(0, 255), (255, 0), ((30, 60, 160), (240, 220, 130))])
def test_a_stroke_becomes_mnists(colours):
    ink, ground = colours
    mode = "RGB" if isinstance(ink, tuple) else "L"
    found = prepared(one(ink, ground, mode).convert("RGB"))[0]
    grey = found.image[0].astype(float)
    rows, columns = (np.flatnonzero((grey > 60).any(axis)) for axis in (1, 0))
    assert (grey[:, 0] == 0).all() and grey.max() >= 250
    assert np.ptp(rows) + 1 in (20, 21) and np.ptp(columns) + 1 <= 6
    centre = (grey.sum(0) @ np.arange(32), grey.sum(1) @ np.arange(32)) / grey.sum()
    assert np.abs(centre - 16).max() <= 0.55
    np.testing.assert_allclose(found.box, (70 / 120, 40 / 160, 82 / 120, 121 / 160), atol=0.015)


def test_all_digits_are_answered_from_left_to_right():
    image = Image.new("L", (400, 160), 255)
    for left, width in ((40, 12), (180, 40), (300, 12)):
        ImageDraw.Draw(image).rectangle((left, 40, left + width, 120), fill=0)
    pixels = image.convert("RGB")
    found = prepared(pixels, every=True)
    assert [round(digit.box[0] * 400, -1) for digit in found] == [40, 180, 300]
    single = prepared(pixels)[0]
    assert single.box == found[1].box and single.note == "the largest of 3 digits"


def test_the_other_digits_of_a_number_are_no_clutter():
    image = Image.new("L", (400, 160), 255)
    for left in (40, 140, 240, 340):
        ImageDraw.Draw(image).rectangle((left, 40, left + 20, 120), fill=0)
    assert not any(digit.cluttered for digit in prepared(image.convert("RGB"), every=True))
    ImageDraw.Draw(image).rectangle((0, 140, 400, 160), fill=0)
    assert all(digit.cluttered for digit in prepared(image.convert("RGB"), every=True))


def test_a_tiny_bold_digit_that_touches_the_border_is_found_whole():
    """A bold 0 of 20 pixels, white on black: neither is its hole the digit nor it a sheet."""
    image = Image.new("L", (20, 20))
    ImageDraw.Draw(image).rounded_rectangle((3, 0, 16, 19), 4, fill=255)
    ImageDraw.Draw(image).rectangle((8, 6, 11, 13), fill=0)
    (found,) = prepared(image.convert("RGB"))
    left, top, right, bottom = found.box
    assert (top, bottom) == (0, 1) and left < 0.2 and right > 0.8
    assert found.image[0, 16, 16] == 0 and found.image.max() > 250


def test_a_faint_stroke_of_a_tiny_digit_that_touches_the_border_is_kept():
    """A 7 of 8 x 8 pixels whose bar is half as bright as its stem."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0, 1:7], pixels[1:, 5] = 110, 255
    (found,) = prepared(np.repeat(pixels[..., None], 3, 2))
    assert found.box[0] < 0.25 and (found.image[0, 6:12, 8:18] > 60).any()


def test_what_fills_a_picture_is_resized_once_for_svhn():
    image = Image.new("RGB", (60, 60), (200, 180, 160))
    ImageDraw.Draw(image).rectangle((25, 5, 34, 54), fill=(20, 30, 60))
    (found,) = prepared(image, "svhn")
    assert found.box and np.array_equal(found.image, pictures.to_images(image)[0].numpy())


def test_without_preparation_a_picture_is_taken_whole():
    pixels = np.asarray(one().convert("RGB"))
    found = prepared(pixels, how="none")[0]
    assert np.array_equal(found.image, pictures.to_images(pixels)[0].numpy()) and not found.box
    with pytest.raises(DigitcnnError, match="auto, none") as caught:
        prepared(pixels, how="magic")
    one_sentence(caught.value)


def test_no_picture_is_too_odd():
    random = np.random.default_rng(0)
    shapes = [(1, 1), (1, 500), (500, 1), (2, 3), (7, 7), (40, 900), (300, 300)]
    for height, width in shapes:
        for grain in (1, 5):
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            pixels = pixels.repeat(grain, 0).repeat(grain, 1)[:height, :width]
            for made in (pixels, (pixels > 250) * np.uint8(255), pixels // 64 + 100):
                for every in (False, True):
                    for digits in preparation.prepare_for(
                        sources.NAMES, made, every=every
                    ).values():
                        assert all(digit.image.shape == (3, 32, 32) for digit in digits)


def test_the_steps_are_drawn():
    stages = preparation.preparation_steps(np.asarray(one().convert("RGB")))
    assert list(stages)[-2:] == ["for MNIST", "for SVHN"]
    assert all(stage.ndim in (2, 3) for stage in stages.values())
    with pytest.raises(DigitcnnError, match="No ink") as caught:
        preparation.preparation_steps(np.full((90, 90, 3), 200, np.uint8))
    one_sentence(caught.value)
    figure = figures.preparation(stages)
    assert [axes.get_title().replace("\n", " ") for axes in figure.axes] == list(stages)


# Nothing like a digit


def test_blank_and_noise_are_flagged(real_models):
    random = np.random.default_rng(0)
    for ground in (0, 128, 255):
        assert prepared(np.full((200, 300, 3), ground, np.uint8))[0].blank
    flagged = 0
    for side in np.linspace(32, 400, 20).astype(int):
        noise = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        found = prepared(noise)[0]
        logits = inference.predict_logits(real_models["mnist"], torch.from_numpy(found.image[None]))
        flagged += found.blank or bool(rejection.unlike(logits.cpu().numpy(), "mnist")[0])
    assert flagged >= 18


def test_the_score_is_the_logarithm_of_summed_exponentials():
    logits = np.array([[800.0, 0, 0], [0.0, 0, 0]])
    np.testing.assert_allclose(rejection.score(logits), [800, np.log(3)])
    low, high = rejection.THRESHOLDS["mnist"] - 9, rejection.THRESHOLDS["mnist"] + 9
    found = rejection.unlike(np.array([[low] + [low - 50] * 9, [high] + [0] * 9]), "mnist")
    assert found.tolist() == [True, False]


# digitcnn predict


@pytest.fixture(scope="module")
def quick_root(tmp_path_factory):
    """A results tree of the quick profile with an untrained model saved as if trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITCNN_PROFILE", "quick")
        patch.setenv("DIGITCNN_ROOT", str(tmp_path_factory.mktemp("root")))
        division._pool.cache_clear()
        division.pool("mnist")
        data.seed_everything(1)
        run = runs.get("mnist")
        about = {"kind": "weights", "ingredients": json.dumps(runs.ingredients(run))}
        checkpoints.write_tensors(
            checkpoints.weights_path(run), build_model(run).state_dict(), about
        )
        yield
    division._pool.cache_clear()


def predict(*words) -> str:
    parser = argparse.ArgumentParser()
    prediction_table.add_arguments(parser)
    return prediction_table.predict_command(parser.parse_args(["--model", "mnist", *words]))


def test_one_bad_file_does_not_hide_the_good_ones(quick_root, tmp_path, capfd):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    one().save(good)
    bad.write_bytes(b"text")
    status = cli.main(["predict", "--model", "mnist", str(bad), str(good), str(tmp_path)])
    said = capfd.readouterr()
    assert status == 1 and said.out.splitlines()[1].startswith(str(good)) and "%" in said.out
    lines = said.err.splitlines()
    assert len(lines) == 3 and "2 of 3 files could not be read" in lines[-1]
    assert "bad.png" in lines[0] and "is a folder" in lines[1]


def test_the_table_says_what_was_done(quick_root, tmp_path, monkeypatch):
    monkeypatch.setitem(rejection.THRESHOLDS, "mnist", -1e9)
    blank, pair = tmp_path / "blank.png", tmp_path / "pair.png"
    Image.new("L", (50, 50), 255).save(blank)
    image = one(size=(300, 160))
    ImageDraw.Draw(image).rectangle((200, 40, 211, 120), fill=0)
    image.save(pair)
    lines = predict(str(blank), str(pair)).splitlines()
    assert lines[1].endswith("(no ink was found)") and "%" not in lines[1]
    assert lines[2].endswith("(the largest of 2 digits)")
    lines = predict("--all", str(pair)).splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["[1]", "[2]"]
    monkeypatch.setitem(rejection.THRESHOLDS, "mnist", 1e9)
    assert predict(str(pair)).splitlines()[1].count("nothing like a digit") == 1
    assert predict("--prepare", "none", str(pair)) != predict(str(pair))
    for words in (["--prepare", "x", str(pair)], ["--all", "--random", "2"]):
        with pytest.raises(DigitcnnError) as caught:
            predict(*words)
        one_sentence(caught.value)


# How well they are read


@pytest.fixture(scope="module")
def benchmark_of_pictures():
    """``benchmarks/pictures.py`` with the table that it kept for the full profile."""
    folder = Path(__file__).parents[1] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("DIGITCNN_ROOT", "DIGITCNN_PROFILE"):
            patch.delenv(variable, raising=False)
        patch.syspath_prepend(folder)
        path = folder / "pictures.py"
        spec = importlib.util.spec_from_file_location("benchmark_of_pictures", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_the_levels_of_the_table_hold_in_each_condition(benchmark_of_pictures):
    rows = benchmark_of_pictures.kept()
    assert len(rows), "no table for these weights and this code: python benchmarks/pictures.py"
    generated = rows[rows["condition"].isin(benchmark_of_pictures.CONDITIONS)]
    assert (generated["count"] == benchmark_of_pictures.COUNT).all()
    mnist, svhn = (generated[generated["model"] == name] for name in sources.NAMES)
    assert len(mnist) == len(svhn) >= 13
    assert mnist[["auto printed", "auto handwritten"]].min(axis=None) >= 0.95
    assert svhn["auto printed"].min() >= 0.90
    assert not mnist["worse"].any()
    if missing := len(benchmark_of_pictures.CONDITIONS) - len(mnist):
        pytest.skip(f"{missing} conditions are still to be measured: python benchmarks/pictures.py")


def test_readme_says_what_the_table_does(benchmark_of_pictures):
    rows = benchmark_of_pictures.kept()
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert benchmark_of_pictures.sentence(rows) in " ".join(readme.split())


def test_worse_is_a_point_and_two_standard_errors(benchmark_of_pictures):
    """Of 500 pairs, 12 lost and none gained is 2.4 points with a standard error of 0.68."""
    none = np.ones(500, bool)
    for lost, expected in ((5, False), (11, False), (12, True)):
        auto = none.copy()
        auto[:lost] = False
        assert benchmark_of_pictures.worse(none, auto) is expected
