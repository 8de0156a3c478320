"""Sources: files verified, read and brought into one form; every failure one sentence."""

from __future__ import annotations

import dataclasses
import gzip
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from conftest import one_sentence
from scipy.io import savemat

from digitcnn import files, sources, toy
from digitcnn.files import DigitcnnError

COUNTS = {"train": 12, "test": 5}


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in the IDX format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def pin(root: Path, name: str, monkeypatch) -> None:
    """Pin the MD5s of the files in `root` as if they were the published ones."""
    found = {path: files.file_md5(root / path) for path in sources.PINNED_MD5[name]}
    monkeypatch.setitem(sources.PINNED_MD5, name, found)
    monkeypatch.setitem(sources.OFFICIAL_IMAGES, name, tuple(COUNTS.values()))


def fake_mnist(root: Path, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """Write and pin a tiny MNIST; its pooled images (17, 28, 28) and labels."""
    rng = np.random.default_rng(1)
    images, labels = [], []
    for split, count in (("train", COUNTS["train"]), ("t10k", COUNTS["test"])):
        images.append(rng.integers(0, 256, (count, 28, 28), np.uint8))
        labels.append((np.arange(count) % 10).astype(np.uint8))
        for kind, array in (("images-idx3", images[-1]), ("labels-idx1", labels[-1])):
            files.write_whole(root / "MNIST" / "raw" / f"{split}-{kind}-ubyte", idx(array))
    pin(root, "mnist", monkeypatch)
    return np.concatenate(images), np.concatenate(labels)


def fake_svhn(root: Path, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """Write and pin a tiny SVHN; its pooled images (17, 32, 32, 3) and labels 1 to 10."""
    rng = np.random.default_rng(2)
    images, labels = [], []
    (root / "SVHN").mkdir(parents=True, exist_ok=True)
    for split, count in COUNTS.items():
        images.append(rng.integers(0, 256, (count, 32, 32, 3), np.uint8))
        labels.append((np.arange(count) % 10 + 1).astype(np.uint8))
        content = {"X": images[-1].transpose(1, 2, 3, 0), "y": labels[-1][:, None]}
        savemat(root / "SVHN" / f"{split}_32x32.mat", content, do_compression=True)
    pin(root, "svhn", monkeypatch)
    return np.concatenate(images), np.concatenate(labels)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data folder of the full profile."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path / "project"))
    monkeypatch.setenv("DIGITCNN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def refused(name: str, **options) -> str:
    """The sentence with which reading a data set is refused."""
    with pytest.raises(DigitcnnError) as caught:
        sources.read(name, **options)
    return one_sentence(caught.value)


# The form of what is read


def test_mnist_is_padded_and_repeated_exactly(root, monkeypatch):
    grey, labels = fake_mnist(root, monkeypatch)
    source = sources.read("mnist")
    assert source.images.dtype == np.uint8 and source.images.shape == (17, 3, 32, 32)
    assert (source.images[:, :, 2:30, 2:30] == grey[:, None]).all()
    border = np.ones((32, 32), bool)
    border[2:30, 2:30] = False
    assert not source.images[:, :, border].any()
    assert source.labels.dtype == np.int64 and (source.labels == labels).all()
    assert source.official_test.tolist() == [False] * 12 + [True] * 5
    assert "every MD5 as published" in source.copy


def test_svhn_keeps_its_pixels_and_ten_means_zero(root, monkeypatch):
    images, labels = fake_svhn(root, monkeypatch)
    source = sources.read("svhn")
    assert source.images.dtype == np.uint8 and source.images.shape == (17, 3, 32, 32)
    assert (source.images == images.transpose(0, 3, 1, 2)).all()
    assert source.labels.dtype == np.int64
    assert (labels == 10).any() and (source.labels == labels % 10).all()
    assert source.official_test.tolist() == [False] * 12 + [True] * 5


def test_the_digest_depends_on_pixels_and_labels(root, monkeypatch):
    fake_mnist(root, monkeypatch)
    source = sources.read("mnist")
    digests = {source.digest, sources.read("mnist").digest}
    assert len(digests) == 1
    for part, at in ((source.images, (3, 1, 4, 4)), (source.labels, 3)):
        part[at] ^= 1
        digests.add(dataclasses.replace(source).digest)
    assert len(digests) == 3


def test_padding_of_one_pixel():
    grey = np.zeros((1, 28, 28), np.uint8)
    grey[0, 0, 27] = 9
    image = sources.to_input_format(grey)
    assert np.argwhere(image[0]).tolist() == [[channel, 2, 29] for channel in range(3)]


# Which files are accepted


@pytest.mark.parametrize("name", sources.NAMES)
def test_a_missing_folder_is_one_sentence(root, name):
    text = refused(name)
    assert "make data" in text and "DIGITCNN_DATA" in text
    assert next(iter(sources.PINNED_MD5[name])) in text


@pytest.mark.parametrize("name", sources.NAMES)
def test_every_missing_file_is_named(root, monkeypatch, name):
    {"mnist": fake_mnist, "svhn": fake_svhn}[name](root, monkeypatch)
    for path in sources.PINNED_MD5[name]:
        kept = (root / path).read_bytes()
        (root / path).unlink()
        assert sources.missing(name) == [path] and path in refused(name)
        (root / path).write_bytes(kept)


@pytest.mark.parametrize("name", sources.NAMES)
@pytest.mark.parametrize("spoil", ["cut", "flip", "empty", "html"])
def test_a_damaged_file_is_named(root, monkeypatch, name, spoil):
    {"mnist": fake_mnist, "svhn": fake_svhn}[name](root, monkeypatch)
    for path in sources.PINNED_MD5[name]:
        whole = (root / path).read_bytes()
        half = len(whole) // 2
        (root / path).write_bytes(
            {
                "cut": whole[:half],
                "flip": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
                "empty": b"",
                "html": b"<html>404</html>",
            }[spoil]
        )
        assert path in (text := refused(name)) and "damaged" in text
        (root / path).write_bytes(whole)
    sources.read(name)


def test_another_svhn_is_accepted_only_when_listed(root, monkeypatch):
    images, _ = fake_svhn(root, monkeypatch)
    path = root / "SVHN" / "test_32x32.mat"
    content = {"X": images[:5].transpose(1, 2, 3, 0), "y": np.arange(1, 6, dtype=np.uint8)[:, None]}
    savemat(path, content)
    assert "another copy" in refused("svhn")
    files.write_json(root / "checksums.json", {"SVHN/test_32x32.mat": "0" * 32})
    assert "another copy" in refused("svhn")
    files.write_json(root / "checksums.json", {"SVHN/test_32x32.mat": files.file_md5(path)})
    source = sources.read("svhn")
    assert "listed in checksums.json" in source.copy
    assert source.labels[12:].tolist() == [1, 2, 3, 4, 5]
    assert source.file_md5["SVHN/test_32x32.mat"] == files.file_md5(path)


def listed(root: Path, **contents: dict) -> None:
    """Write files in the place of SVHN's, and list them in checksums.json."""
    for split, content in contents.items():
        savemat(root / "SVHN" / f"{split}_32x32.mat", content)
    paths = sources.PINNED_MD5["svhn"]
    found = {path: files.file_md5(root / path) for path in paths}
    files.write_json(root / "checksums.json", found)


def pixels(count: int, seed: int = 5) -> dict:
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
    return {"X": rng.integers(0, 256, (32, 32, 3, count), np.uint8), "y": labels}


def test_the_official_pair_is_the_same_data_set_as_the_copy(root, monkeypatch):
    """Known by its two MD5s; whatever else is listed has the digest of its own pixels."""
    fake_svhn(root, monkeypatch)
    official = sources.read("svhn")
    assert official.identity == official.digest  # not among the known ones yet
    pair = tuple(official.file_md5.values())
    listed(root, train=pixels(12))
    ours = sources.read("svhn")
    assert ours.digest != official.digest
    monkeypatch.setattr(sources, "SAME_DATA", {pair: ours.digest})
    assert dataclasses.replace(official).identity == ours.digest == ours.identity
    assert "the same images cropped again" in sources.describe_copy("svhn", ours)
    assert "the official SVHN files" in sources.describe_copy("svhn", official)
    listed(root, train=pixels(12, seed=6))
    third = sources.read("svhn")
    assert third.identity == third.digest not in (ours.digest, official.digest)
    assert third.digest in third.copy and third.copy.startswith("another data set")
    # One official file and one other are no official pair.
    mixed = dataclasses.replace(ours, file_md5=official.file_md5 | {
        "SVHN/test_32x32.mat": third.file_md5["SVHN/train_32x32.mat"]})  # fmt: skip
    assert mixed.identity == mixed.digest


def test_the_known_pair_is_the_published_one():
    """The digest is that of the copy which the stored results were made from."""
    pair = ("e26dedcc434d2e4c54c9b2d4a06d8373", "eb5a983be6a315427106f1b164d9cef3")
    assert {pair: "252b0e875783529b"} == sources.SAME_DATA
    empty = np.zeros((0, 3, 32, 32), np.uint8), np.zeros(0, np.int64), np.zeros(0, bool)
    md5 = dict(zip(sources.PINNED_MD5["svhn"], pair, strict=True))
    assert sources.Source(*empty, "", md5).identity == "252b0e875783529b"
    assert sources.OFFICIAL_IMAGES == {"mnist": (60_000, 10_000), "svhn": (73_257, 26_032)}


def test_labels_that_are_not_whole_are_refused(root, monkeypatch):
    """torchvision would cut them off."""
    fake_svhn(root, monkeypatch)
    for split, count in COUNTS.items():
        whole = pixels(count)
        listed(root, **{split: whole | {"y": whole["y"].astype(float)}})
        sources.read("svhn")
        halves = whole["y"].astype(float)
        halves[-1] += 0.5
        listed(root, **{split: whole | {"y": halves}})
        assert "cannot be read (ValueError)" in refused("svhn")
        listed(root, **{split: whole})


@pytest.mark.parametrize("counts", [(12, 4), (13, 5), (5, 12), (6, 11)])
def test_other_numbers_of_images_are_refused(root, monkeypatch, counts):
    fake_svhn(root, monkeypatch)
    train, test = counts
    listed(root, train=pixels(train), test=pixels(test, seed=7))
    text = refused("svhn")
    assert f"has {train:,} and {test:,} images, not 12 and 5" in text


def test_one_file_in_the_place_of_both_is_refused(root, monkeypatch):
    """Every image would be in training and test."""
    fake_svhn(root, monkeypatch)
    monkeypatch.setitem(sources.OFFICIAL_IMAGES, "svhn", (12, 12))
    for source in ("train", "test"):
        content = (root / "SVHN" / f"{source}_32x32.mat").read_bytes()
        for split in ("train", "test"):
            (root / "SVHN" / f"{split}_32x32.mat").write_bytes(content)
        listed(root)
        assert "one file under two names" in refused("svhn")
        fake_svhn(root, monkeypatch)


def test_another_mnist_is_refused_even_when_listed(root, monkeypatch):
    fake_mnist(root, monkeypatch)
    path = root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.zeros(5, np.uint8)))
    listed = {"MNIST/raw/t10k-labels-idx1-ubyte": files.file_md5(path)}
    files.write_json(root / "checksums.json", listed)
    assert "another copy" in refused("mnist")


@pytest.mark.parametrize(
    "content",
    [{"X": np.zeros((32, 32, 3, 5), np.uint8)}, {"X": np.zeros((8, 8, 3, 5), np.uint8), "y": 1},
     {"X": np.zeros((8, 8, 3, 5), np.uint8), "y": np.ones((5, 1), np.uint8)},
     {"X": np.zeros((32, 32, 3, 5)), "y": np.ones((5, 1), np.uint8)},
     {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.full((5, 1), 11, np.uint8)},
     {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.ones((4, 1), np.uint8)}],
)  # fmt: skip
def test_a_listed_file_with_other_content_is_one_sentence(root, monkeypatch, content):
    fake_svhn(root, monkeypatch)
    path = root / "SVHN" / "test_32x32.mat"
    savemat(path, content)
    files.write_json(root / "checksums.json", {"SVHN/test_32x32.mat": files.file_md5(path)})
    assert "SVHN" in refused("svhn")


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_a_damaged_list_is_one_sentence(root, monkeypatch, content):
    fake_svhn(root, monkeypatch)
    (root / "checksums.json").write_text(content)
    text = refused("svhn")
    assert "checksums.json" in text and "list each file anew" in text and "train`" not in text


def test_a_folder_in_the_place_of_a_file_is_one_sentence(root, monkeypatch):
    fake_svhn(root, monkeypatch)
    (root / "SVHN" / "test_32x32.mat").unlink()
    (root / "SVHN" / "test_32x32.mat").mkdir()
    refused("svhn")


def test_a_file_that_cannot_be_read_is_one_sentence(root, monkeypatch):
    fake_svhn(root, monkeypatch)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "file_md5", denied)
    assert "permissions" in refused("svhn")


@pytest.mark.parametrize("name", ["", "MNIST", "cifar", "../mnist", "mnist\x1b[31m"])
def test_an_unknown_data_set_is_one_sentence(root, name):
    assert "mnist, svhn" in refused(name)


# Downloads


@pytest.mark.parametrize("name", sources.NAMES)
@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("Name or service not known"), TimeoutError("timed out"),
     urllib.error.HTTPError("http://x", 503, "Service Unavailable", None, None),
     OSError(28, "No space left on device")],
    ids=["no network", "time-out", "server error", "disk full"],
)  # fmt: skip
def test_a_failed_download_is_one_sentence(root, monkeypatch, name, error, faults):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with faults.one("failed download"):
        text = refused(name, download=True)
        assert f"could not be downloaded ({error})" in text and "network" in text


def test_a_download_is_read_and_not_repeated(root, monkeypatch, tmp_path):
    """torchvision fetches what is missing, from a stand-in for the network."""
    from torchvision import datasets
    from torchvision.datasets import utils

    images, _ = fake_mnist(tmp_path / "origin", monkeypatch)
    fetched = []

    def fetch(url, path, *_, **__):
        name = Path(path).name.removesuffix(".gz")
        fetched.append(name)
        content = (tmp_path / "origin" / "MNIST" / "raw" / name).read_bytes()
        Path(path).write_bytes(gzip.compress(content))

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", fetch)
    resources = [(name, None) for name, _ in datasets.MNIST.resources]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    for _ in range(2):
        source = sources.read("mnist", download=True)
        assert (source.images[:, 0, 2:30, 2:30] == images).all()
    assert len(fetched) == 4


def test_reading_never_downloads_by_itself(root, monkeypatch):
    monkeypatch.setattr(sources, "_download", lambda name: pytest.fail("used the network"))
    for name in sources.NAMES:
        refused(name)


# The quick profile


def test_embedded_data_needs_no_file_and_says_what_it_is(sandbox, monkeypatch):
    monkeypatch.setenv("DIGITCNN_DATA", str(sandbox / "nowhere"))
    for name, count in (("mnist", 900), ("svhn", 900)):
        source = sources.read(name)
        assert source.images.shape == (count, 3, 32, 32) and source.images.dtype == np.uint8
        assert source.labels.dtype == np.int64 and set(source.labels.tolist()) == set(range(10))
        assert source.copy == toy.COPY[name] and "quick profile" in source.copy
        assert source.file_md5 == {} and source.identity == source.digest
        # The last fifth stands for the official test set.
        assert source.official_test.tolist() == [at >= 0.8 * count for at in range(count)]
