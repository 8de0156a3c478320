"""Origins: planted photographs, writers and effects are found; null effects are not."""

import numpy as np
import pandas as pd
import pytest
from finished import finish
from scipy import ndimage

from digitcnn import division, files, runs, sources, store, toy
from digitcnn.files import DigitcnnError
from digitcnn.report import attributes, difficulty, origin_errors, origins

# Photographs


def strip(random, crops, noise=0.0):
    """Crops (n, 3, 32, 32) of one photograph, 10 to 16 pixels apart and not quite level."""
    wide = ndimage.gaussian_filter(random.normal(0, 1, (3, 40, 32 + 16 * crops)), (0, 1.5, 1.5))
    wide = 128 + 50 * wide / wide.std()
    lefts = np.cumsum([0, *random.integers(10, 17, crops - 1)])
    tops = random.integers(2, 5, crops)
    cut = np.stack([wide[:, y : y + 32, x : x + 32] for x, y in zip(lefts, tops, strict=True)])
    return (cut + random.normal(0, noise, cut.shape)).clip(0, 255).astype(np.uint8)


def test_crops_of_one_photograph_match_and_others_do_not():
    random = np.random.default_rng(0)
    pairs = np.stack([strip(random, 2, noise=4) for _ in range(200)])
    same = origins.similarity(pairs[:, 0], pairs[:, 1])
    other = origins.similarity(pairs[:, 0], np.roll(pairs[:, 1], 1, axis=0))
    backwards = origins.similarity(pairs[:, 1], pairs[:, 0])
    assert same.min() > 0.9 and np.median(other) < 0.6 and np.median(backwards) < 0.7
    flat = np.full((1, 3, 32, 32), 90, np.uint8)
    assert origins.similarity(flat, pairs[:1, 0]) == -1


@pytest.fixture
def planted(sandbox, monkeypatch):
    """A data set in the place of SVHN of which it is known which crops belong together."""
    random = np.random.default_rng(1)
    sizes = random.choice([1, 2, 3, 4], 900, p=[0.2, 0.4, 0.3, 0.1])
    images = np.concatenate([strip(random, size, noise=3) for size in sizes])
    labels = random.integers(0, 10, len(images))
    monkeypatch.setitem(toy.READERS, "svhn", lambda: (images, labels))
    division.pool("svhn")
    return np.repeat(np.arange(len(sizes)), sizes)


def test_planted_photographs_are_found(planted):
    found = origins.photographs()
    truth, guessed = np.diff(planted) == 0, np.diff(found.number) == 0
    assert guessed[truth].mean() > 0.9  # of the pairs that belong together
    assert truth[guessed].mean() > 0.97  # of those that are said to
    assert (found.size == np.bincount(found.number)[found.number]).all()
    official_test = division.labels("svhn").official_test
    assert found.number[~official_test].max() < found.number[official_test].min()
    assert sum(found.found.values()) == found.number.max() + 1
    strict = origins.photographs(0.99)
    assert strict.threshold == 0.99 and strict.number.max() >= found.number.max()


def siblings_with(monkeypatch, wrong_of):
    """`origin_errors.siblings` of planted errors; `wrong_of` gets who has a sibling in training."""
    number, at = origins.photographs().number, division.split_indices("svhn")["test"]
    known = origins.learned_from("svhn", group=number)[at] > 0
    found = {"svhn": wrong_of(known, origins.photographs().size[at])}
    monkeypatch.setattr(origin_errors, "errors", lambda name, split="test": found)
    return known, origin_errors.siblings()


def test_a_planted_effect_of_siblings_is_recovered(planted, monkeypatch):
    random = np.random.default_rng(2)

    def helped(known, size):
        # Larger photographs are harder, so that the plain difference would be too small.
        return random.random(len(known)) < np.where(known, 0.1, 0.45) + 0.1 * (size > 2)

    known, found = siblings_with(monkeypatch, helped)
    assert found.gain.low < 0.35 < found.gain.high
    assert found.gain.low > 0.1 and found.gain.p < 0.001
    assert found.share == known.mean() and found.share.hits == known.sum()


def test_a_sibling_without_effect_shows_none(planted, monkeypatch):
    random = np.random.default_rng(3)
    _, found = siblings_with(
        monkeypatch, lambda known, size: random.random(len(known)) < 0.1 * size
    )
    assert found.gain.low < 0 < found.gain.high


# Writers


def test_writers_need_no_file_once_they_are_stored(sandbox, monkeypatch):
    first = origins.writers()
    monkeypatch.setattr(origins, "_read_writers", lambda: pytest.fail("read again"))
    monkeypatch.setenv("DIGITCNN_DATA", str(sandbox / "nowhere"))
    assert not store.stale(origins.writers.path())
    assert np.array_equal(origins.writers()["writer"], first["writer"])


def idx(path, array):
    """Write an IDX file of uint8 or big-endian int32."""
    code = {"uint8": 8, "int32": 12}[array.dtype.name]
    head = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(head + array.astype(array.dtype.newbyteorder(">")).tobytes())


def test_writers_are_read_from_qmnist(tmp_path, monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))
    with pytest.raises(DigitcnnError, match="who wrote MNIST's digits"):
        origins._read_writers()
    folder = tmp_path / "QMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, rows in (("train", [[5, 0, 17], [0, 4, 18]]), ("test", [[7, 1, 19]])):
        labels = np.zeros((len(rows), 8), np.int32)
        labels[:, :3] = rows
        idx(folder / f"qmnist-{part}-images-idx3-ubyte", np.zeros((len(rows), 28, 28), np.uint8))
        idx(folder / f"qmnist-{part}-labels-idx2-int", labels)
    labels = division.Labels(np.array([5, 0, 7]), np.array([False, False, True]))
    monkeypatch.setattr(division, "labels", lambda name: labels)
    writer, series = origins._read_writers()
    assert writer.tolist() == [17, 18, 19] and series.tolist() == [0, 4, 1]
    monkeypatch.setattr(
        division, "labels", lambda name: division.Labels(labels.labels[::-1], labels[1])
    )
    with pytest.raises(DigitcnnError, match="not in MNIST's order"):
        origins._read_writers()


# Everything on the toy data


@pytest.mark.slow
def test_every_figure_of_the_quick_profile_adds_up(sandbox):
    for run in ("mnist", "svhn", "mnist-s43"):
        finish(run)
    for name in runs.DATA:
        ours = runs.trainings(name)
        assert ours == (["mnist", "mnist-s43"] if name == "mnist" else ["svhn"])
        assert origin_errors.origin(name).official_test.count == len(ours)


# Difficulty


def gap_of(monkeypatch, blurred, wrong):
    """`difficulty.gap` of planted attributes and errors, each by data set."""
    frames = {n: pd.DataFrame({name: np.zeros(len(b), bool) for name in attributes.ATTRIBUTES})
              for n, b in blurred.items()}  # fmt: skip
    for name, column in blurred.items():
        frames[name]["blurred"] = column
    monkeypatch.setattr(attributes, "of_images", lambda name, split="test": frames[name])
    monkeypatch.setattr(difficulty, "errors", lambda name, split="test": {name: wrong[name]})
    monkeypatch.setattr(runs, "trainings", lambda name: [name])
    return difficulty.gap()


def test_a_planted_difficulty_is_accounted_for(monkeypatch):
    random = np.random.default_rng(0)
    blurred = {"mnist": random.random(8000) < 0.01, "svhn": random.random(9000) < 0.4}
    wrong = {n: random.random(len(b)) < np.where(b, 0.3, 0.02) for n, b in blurred.items()}
    found = gap_of(monkeypatch, blurred, wrong)
    assert found.accounted.low < 1 < found.accounted.high and found.accounted.low > 0.8
    expected = wrong["svhn"][blurred["svhn"]].mean() * blurred["mnist"].mean()
    expected += wrong["svhn"][~blurred["svhn"]].mean() * (1 - blurred["mnist"].mean())
    assert found.standardised.value == pytest.approx(expected)
    assert found.alike == 1


def test_an_attribute_that_does_not_matter_accounts_for_nothing(monkeypatch):
    random = np.random.default_rng(1)
    blurred = {"mnist": random.random(8000) < 0.01, "svhn": random.random(9000) < 0.4}
    wrong = {n: random.random(len(b)) < share
             for (n, b), share in zip(blurred.items(), (0.01, 0.1), strict=True)}  # fmt: skip
    found = gap_of(monkeypatch, blurred, wrong)
    assert found.accounted.low < 0 < found.accounted.high and found.accounted.high < 0.2


# The stored results of the real runs


@pytest.fixture
def real(monkeypatch):
    """The committed results."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    for run in runs.MAIN.values():
        if runs.stale(run):
            pytest.skip(f"{run.id} is not trained yet")


# Photographs in the official files: as many full numbers does the same source publish
# (http://ufldl.stanford.edu/housenumbers, counted in huggingface/datasets, svhn, full_numbers).
PUBLISHED_PHOTOGRAPHS = {"train": 33_402, "test": 13_068}


def test_what_the_stored_results_say(real, tmp_path, monkeypatch):
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path))  # nothing of this needs the data
    found = origins.photographs()
    for part, published in PUBLISHED_PHOTOGRAPHS.items():
        assert found.found[part] == pytest.approx(published, rel=0.15)
    siblings = origin_errors.siblings()
    assert 0.5 < siblings.share < 0.75 and siblings.gain.high < 0.01
    assert origin_errors.writers().share == 1
    assert origin_errors.origin("svhn").gap.low > 0.01


def test_stored_similarities_are_those_of_the_pictures(real):
    if sources.missing("svhn"):
        pytest.skip(f"no SVHN in {files.data_root()}")
    images = division.pool("svhn").images[:301]
    expected = np.floor(100 * origins.similarity(images[:-1], images[1:]))
    assert np.abs(origins.matches.load()["next"][:300] - expected).max() <= 1
