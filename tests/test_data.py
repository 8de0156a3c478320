"""Data: the split's properties and fixed indices, subsets, seeds, the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st

from digitcnn import data, division, files, runs, sources, toy
from digitcnn.data import Split
from digitcnn.files import DigitcnnError

ROOT = Path(__file__).resolve().parent.parent


def sha256(indices: np.ndarray) -> str:
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()


def made(labels: np.ndarray, seed: int = 0) -> Split:
    """A split of random images with these labels, its indices 1000 and on."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    indices = np.arange(1000, 1000 + len(labels))
    return Split(torch.from_numpy(images), torch.from_numpy(np.asarray(labels)), indices)


# Divisions


def source_of(labels: np.ndarray, official_test: np.ndarray | None = None) -> sources.Source:
    """A pool of random images with these labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    if official_test is None:
        official_test = np.arange(len(labels)) >= 0.8 * len(labels)
    return sources.Source(images, np.asarray(labels), official_test, "made for a test", {})


def divided(labels: np.ndarray, official_test: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """A division from labels alone, as `division.split_indices` has them."""
    return division.divide(division.Labels(np.asarray(labels), np.asarray(official_test)), kind)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(20, 120), min_size=2, max_size=10), st.integers(0, 2**31),
    st.sampled_from(["pooled", "official"]),
)  # fmt: skip
def test_a_division_is_disjoint_complete_and_stratified(counts, seed, kind):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    tested = np.zeros(len(labels), bool)
    for digit in range(len(counts)):  # a quarter of each class, anywhere in the pool
        members = np.flatnonzero(labels == digit)
        tested[rng.choice(members, len(members) // 4, replace=False)] = True
    indices = divided(labels, tested, kind)
    assert list(indices) == list(data.SPLITS)
    joined = np.concatenate(list(indices.values()))
    assert len(joined) == len(labels) and (np.sort(joined) == np.arange(len(labels))).all()
    if kind == "official":
        assert (indices["test"] == np.flatnonzero(tested)).all()
        whole, shares = ~tested, {"train": 0.9, "validation": 0.1}
    else:
        whole, shares = np.ones(len(labels), bool), {"train": 0.7, "validation": 0.1, "test": 0.2}
    for name, share in shares.items():
        chosen = indices[name]
        assert (np.diff(chosen) > 0).all()  # in pool order
        assert abs(len(chosen) - share * whole.sum()) <= 2
        got = np.bincount(labels[chosen], minlength=len(counts))
        available = np.bincount(labels[whole], minlength=len(counts))
        assert (np.abs(got - share * available) <= 2).all(), name


def test_a_division_depends_on_labels_and_origin_alone():
    labels, tested = np.arange(1000) % 10, np.arange(1000) >= 800
    first = {name: divided(labels, tested, name) for name in division.DIVISIONS}
    np.random.seed(7)
    torch.manual_seed(7)
    for name, parts in first.items():
        again = divided(labels, tested, name)
        assert all((again[part] == parts[part]).all() for part in data.SPLITS)
    # Where an image comes from decides in the official division alone.
    moved = {name: divided(labels, ~tested, name) for name in division.DIVISIONS}
    assert all((moved["pooled"][part] == first["pooled"][part]).all() for part in data.SPLITS)
    assert (moved["official"]["test"] == np.arange(800)).all()
    assert (first["official"]["test"] == np.arange(800, 1000)).all()


def test_the_indices_of_a_synthetic_pool_are_fixed():
    """Nothing may ever move a sample: scikit-learn's, NumPy's and our part together."""
    labels = np.arange(1000) % 10
    for kind, expected in SYNTHETIC.items():
        indices = divided(labels, np.arange(1000) >= 800, kind)
        assert {name: sha256(chosen) for name, chosen in indices.items()} == expected


def test_the_indices_of_the_quick_profile_are_fixed(sandbox):
    for name, expected in QUICK.items():
        indices = division.split_indices(name)
        assert {split: sha256(chosen) for split, chosen in indices.items()} == expected


def real_folder(name: str) -> Path:
    """Where the real data lies; skips the test if it does not."""
    folder = Path(os.environ.get("DIGITCNN_DATA") or ROOT / "data")
    if not all((folder / path).is_file() for path in sources.PINNED_MD5[name]):
        pytest.skip(f"no real {name} data here")
    return folder


@pytest.mark.parametrize("name", sources.NAMES)
def test_the_real_data_has_its_pinned_digest_and_indices(name, monkeypatch, tmp_path):
    """Read anew, from files to indices, without touching the project's manifest."""
    folder = real_folder(name)
    monkeypatch.setenv("DIGITCNN_DATA", str(folder))
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    source = sources.read(name)
    assert source.identity == REAL[name]["digest"]
    assert (source.labels == real_labels(name, folder)).all()
    for kind in division.DIVISIONS:
        for split, chosen in division.divide(source, kind).items():
            assert sha256(chosen)[:16] == REAL[name][f"{kind} {split}"], (kind, split)
    division._record_manifest(name, source)
    for part, found in runs.manifest(name)["divisions"].items():
        assert found == recorded(name)["divisions"][part]


def real_labels(name: str, folder: Path) -> np.ndarray:
    """All labels of a data set, read without the code under test."""
    if name == "mnist":
        parts = [
            np.frombuffer((folder / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte").read_bytes()[8:],
                          np.uint8) for part in ("train", "t10k")
        ]  # fmt: skip
        return np.concatenate(parts).astype(np.int64)
    from scipy.io import loadmat

    parts = [
        loadmat(folder / "SVHN" / f"{part}_32x32.mat", variable_names=["y"])["y"].ravel()
        for part in ("train", "test")
    ]
    return np.concatenate(parts).astype(np.int64) % 10


def recorded(name: str) -> dict:
    """The manifest that is part of the repository."""
    return json.loads((ROOT / "cache" / "data" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", sources.NAMES)
def test_the_manifests_of_the_repository_are_the_pinned_ones(name):
    manifest = recorded(name)
    assert manifest["digest"] == REAL[name]["digest"]
    train, test = sources.OFFICIAL_IMAGES[name]
    assert (manifest["images"], manifest["official_test"]) == (train + test, test)
    for kind, parts in manifest["divisions"].items():
        for split, part in parts.items():
            assert part["indices_sha256"][:16] == REAL[name][f"{kind} {split}"]
            assert sum(part["class_counts"]) == part["images"]
        assert sum(part["images"] for part in parts.values()) == train + test
    pooled, official = (manifest["divisions"][kind] for kind in ("pooled", "official"))
    every = sum(np.array(part["class_counts"]) for part in pooled.values())
    for split, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        assert (np.abs(np.array(pooled[split]["class_counts"]) - share * every) <= 2).all()
    assert official["test"]["images"] == test
    assert abs(official["validation"]["images"] - 0.1 * train) <= 1


# Loading


@pytest.mark.parametrize("kind", division.DIVISIONS)
def test_what_is_loaded_is_the_pool_at_the_indices(sandbox, kind):
    source = division.pool("svhn")
    indices = division.split_indices("svhn", kind)
    seen = 0
    for split in data.SPLITS:
        loaded = data.load("svhn", split, kind)
        assert loaded.images.dtype == torch.uint8 and loaded.labels.dtype == torch.int64
        assert loaded.images.shape == (len(loaded), 3, 32, 32)
        assert (loaded.indices == indices[split]).all()
        assert (loaded.images.numpy() == source.images[indices[split]]).all()
        assert (loaded.labels.numpy() == source.labels[indices[split]]).all()
        seen += len(loaded)
    assert seen == len(source.labels)


@pytest.mark.parametrize("split", ["", "Train", "all", "test\x1b[2J"])
def test_an_unknown_split_is_one_sentence(sandbox, split):
    with pytest.raises(DigitcnnError, match="train, validation, test") as caught:
        data.load("mnist", split)
    one_sentence(caught.value)


@pytest.mark.parametrize("kind", ["", "Pooled", "train", "x\x1b[2J"])
def test_an_unknown_division_is_one_sentence(sandbox, kind):
    for read in (lambda: division.split_indices("mnist", kind),
                 lambda: data.load("mnist", "test", kind)):  # fmt: skip
        with pytest.raises(DigitcnnError, match="pooled, official") as caught:
            read()
        one_sentence(caught.value)


# The manifest


def fresh(name: str) -> sources.Source:
    """The pool as a new process reads it."""
    for cached in (division._pool, division._labels, division._indices):
        cached.cache_clear()
    return division.pool(name)


def test_reading_writes_the_manifest(sandbox):
    source = fresh("mnist")
    manifest = runs.manifest("mnist")
    assert manifest["digest"] == source.identity and manifest["copy"] == source.copy
    assert manifest["images"] == len(source.labels) == 900
    assert manifest["official_test"] == source.official_test.sum() > 0
    assert list(manifest["divisions"]) == ["official", "pooled"]
    for kind in division.DIVISIONS:
        for split, chosen in division.split_indices("mnist", kind).items():
            part = runs.split_sizes("mnist", kind)[split]
            assert part["images"] == len(chosen) and part["indices_sha256"] == sha256(chosen)
            assert part["class_counts"] == np.bincount(source.labels[chosen]).tolist()


def paths() -> list[Path]:
    return [files.cache_path("data", f"mnist.{kind}") for kind in ("json", "npz")]


def test_another_copy_of_a_known_data_set_rewrites_nothing(sandbox, monkeypatch):
    """What the manifest says of the copy is which one the stored results were made from."""
    ours = fresh("mnist")
    kept = [path.read_bytes() for path in paths()]
    official = dataclasses.replace(ours, copy="the official files", file_md5={"a": "1", "b": "2"})
    official.images[5, 0, 9, 9] ^= 1  # the crops differ here and there
    monkeypatch.setattr(sources, "SAME_DATA", {("1", "2"): ours.digest})
    monkeypatch.setattr(sources, "read", lambda name: official)
    assert official.digest != ours.digest and official.identity == ours.digest
    key = runs.key(runs.get("mnist"))
    assert fresh("mnist") is official
    assert [path.read_bytes() for path in paths()] == kept
    # Also where the labels are not there yet: of a clone that holds the manifest alone.
    paths()[1].unlink()
    fresh("mnist")
    assert paths()[0].read_bytes() == kept[0] and paths()[1].is_file()
    assert runs.key(runs.get("mnist")) == key
    # Another data set is another data set, with another key.
    monkeypatch.setattr(sources, "SAME_DATA", {})
    fresh("mnist")
    assert runs.manifest("mnist")["copy"] == "the official files"
    assert runs.manifest("mnist")["digest"] == official.digest
    assert runs.key(runs.get("mnist")) != key


@pytest.mark.parametrize(
    "content",
    [b"{", b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n", b"{}", b"[]", b"",
     b'{"digest": "other", "divisions": {}, "name": "mnist"}', None],
)  # fmt: skip
def test_a_damaged_manifest_is_written_anew(sandbox, content):
    fresh("mnist")
    kept = [path.read_bytes() for path in paths()]
    if content is None:  # a division has lost its name
        content = kept[0].replace(b'"official": {', b'"official_": {')
    assert content != kept[0]
    paths()[0].write_bytes(content)
    fresh("mnist")
    assert [path.read_bytes() for path in paths()] == kept


# Labels without the data set


@pytest.fixture
def without_data(sandbox, monkeypatch):
    """A tree that knows MNIST, whose data set is gone; its labels and divisions."""
    source = fresh("mnist")
    divisions = {name: division.divide(source, name) for name in division.DIVISIONS}
    for cached in (division._pool, division._labels, division._indices):
        cached.cache_clear()
    monkeypatch.setattr(sources, "read", lambda name: pytest.fail("the data set was read"))
    return source, divisions


def test_labels_and_indices_need_no_data_set(without_data):
    source, divisions = without_data
    found = division.labels("mnist")
    assert (found.labels == source.labels).all() and found.labels.dtype == np.int64
    assert (found.official_test == source.official_test).all() and found.official_test.dtype == bool
    for name, parts in divisions.items():
        for split, chosen in division.split_indices("mnist", name).items():
            assert (chosen == parts[split]).all()


@pytest.mark.parametrize("spoil", ["cut", "rubbish", "edited", "other"])
def test_damaged_labels_are_one_sentence(without_data, spoil):
    path = paths()[1]
    whole = path.read_bytes()
    with np.load(path) as kept:
        arrays = dict(kept)
    if spoil == "cut":
        path.write_bytes(whole[:-100])
    elif spoil == "rubbish":
        path.write_bytes(b"PK rubbish")
    elif spoil == "edited":
        path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    else:
        np.savez_compressed(path, **arrays | {"digest": np.array("of other data")})
    with pytest.raises(DigitcnnError, match=r"mnist\.npz is damaged") as caught:
        division.labels("mnist")
    one_sentence(caught.value)


# Subsets


def test_taking_keeps_images_labels_and_indices_together():
    split = made(np.arange(20) % 10)
    part = split.take(np.array([3, 3, 17]))
    assert part.indices.tolist() == [1003, 1003, 1017] and part.labels.tolist() == [3, 3, 7]
    assert torch.equal(part.images, split.images[[3, 3, 17]]) and len(part) == 3


def test_a_stratified_subset_keeps_the_shares():
    labels = np.repeat(np.arange(10), np.arange(20, 120, 10))
    split = made(labels)
    part = data.stratified_subset(split, 100)
    assert len(part) == 100 and (np.diff(part.indices) > 0).all()
    got = np.bincount(part.labels.numpy(), minlength=10)
    expected = 100 * np.bincount(labels) / len(labels)
    assert (np.abs(got - expected) <= 1).all()
    assert torch.equal(part.images, split.images[part.indices - 1000])
    np.random.seed(1)
    torch.manual_seed(1)
    assert (data.stratified_subset(split, 100).indices == part.indices).all()


def test_a_subset_of_everything_is_the_split_itself():
    split = made(np.arange(40) % 10)
    assert data.stratified_subset(split, 40) is split
    assert data.stratified_subset(split, 99) is split


def test_a_class_subset_has_the_classes_and_numbers_asked_for():
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(10), 30))
    split = made(labels)
    part = data.class_subset(split, {7: 5, 1: None, 4: 1000}, seed=1)
    counts = np.bincount(part.labels.numpy(), minlength=10)
    assert counts.tolist() == [0, 30, 0, 0, 30, 0, 0, 5, 0, 0]
    assert (np.diff(part.indices) > 0).all()  # in pool order, nothing twice
    assert torch.equal(part.images, split.images[part.indices - 1000])
    assert (part.labels.numpy() == labels[part.indices - 1000]).all()
    again, other = (data.class_subset(split, {7: 5}, seed).indices for seed in (1, 2))
    assert (data.class_subset(split, {7: 5}, 1).indices == again).all()
    assert (again != other).any()


def test_class_subsets_of_one_seed_are_nested():
    """So that the cases and controls of question (e) differ in their numbers alone."""
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(10), 200))
    split = made(labels)
    for seed in (42, 43):
        previous: dict[int, set[int]] = {1: set(), 2: set()}
        for counts in ((10, 150), (50, 50), (100, 20), (None, None)):
            part = data.class_subset(split, dict(zip((1, 2), counts, strict=True)), seed)
            for digit, count in zip((1, 2), counts, strict=True):
                chosen = set(part.indices[part.labels.numpy() == digit].tolist())
                assert len(chosen) == (count or 200)
                smaller, larger = sorted((chosen, previous[digit]), key=len)
                assert smaller <= larger
                previous[digit] = chosen
    # The number of the other class, and its presence, change nothing.
    alone = data.class_subset(split, {1: 10}, 42).indices
    both = data.class_subset(split, {1: 10, 2: 3}, 42)
    assert (both.indices[both.labels.numpy() == 1] == alone).all()


def run_of(**changes) -> runs.RunConfig:
    return dataclasses.replace(runs.MAIN["mnist"], **changes)


@pytest.mark.parametrize("kind", division.DIVISIONS)
def test_a_run_learns_from_its_part_and_is_judged_on_what_it_learns(kind):
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(10), 60))
    source = source_of(labels)
    indices = division.divide(source, kind)
    whole = data.training_part(run_of(split=kind), source)
    assert (whole.indices == indices["train"]).all()
    assert (whole.images.numpy() == source.images[indices["train"]]).all()
    assert (whole.labels.numpy() == labels[indices["train"]]).all()
    some = data.training_part(run_of(split=kind, train_size=100), source)
    assert len(some) == 100 and set(some.indices) <= set(indices["train"])
    shares = np.bincount(labels[indices["train"]]) / len(indices["train"])
    assert (np.abs(np.bincount(some.labels) - 100 * shares) <= 1).all()
    for seed in (42, 43):  # a subset does not depend on the seed, one of classes does
        other = data.training_part(run_of(split=kind, train_size=100, seed=seed), source)
        assert (other.indices == some.indices).all()
    restricted = run_of(split=kind, class_counts=((3, 12), (8, None)))
    part = data.training_part(restricted, source)
    assert np.bincount(part.labels, minlength=10).nonzero()[0].tolist() == [3, 8]
    assert (part.labels == 3).sum() == 12
    assert (part.labels == 8).sum() == (labels[indices["train"]] == 8).sum()
    moved = data.training_part(dataclasses.replace(restricted, seed=43), source)
    assert (part.indices[part.labels == 3] != moved.indices[moved.labels == 3]).any()
    for name in ("validation", "test"):
        judged = data.held_out_part(run_of(split=kind, train_size=100), source, name)
        assert (judged.indices == indices[name]).all()
        judged = data.held_out_part(restricted, source, name)
        expected = indices[name][np.isin(labels[indices[name]], (3, 8))]
        assert (judged.indices == expected).all()


def test_the_indices_of_subsets_are_fixed():
    split = made(np.arange(400) % 10)
    chosen = (data.stratified_subset(split, 100), data.class_subset(split, {3: 7, 5: None}, 42))
    assert [sha256(part.indices) for part in chosen] == [
        "1f1f34f8c9350cfdf926e422c48facb8aca7fb8f9d11162b36b6d65cc8676edf",
        "b37c81fe59f242defcb4eb36d44ae60898fddbe05cad06389d5646582391d6d2",
    ]


# Seeds


def test_seeding_seeds_all_three_generators():
    def draw():
        return random.random(), np.random.random(), torch.rand(1).item()

    data.seed_everything(5)
    first = draw()
    assert all(a != b for a, b in zip(first, draw(), strict=True))
    data.seed_everything(5)
    assert draw() == first
    data.seed_everything(6)
    assert all(a != b for a, b in zip(first, draw(), strict=True))


# Embedded data


@pytest.mark.parametrize("name", sources.NAMES)
def test_embedded_data_is_deterministic_and_in_the_input_format(name):
    images, labels = toy.READERS[name]()
    np.random.seed(9)  # it has a generator of its own
    again, labels_again = toy.READERS[name]()
    assert (images == again).all() and (labels == labels_again).all()
    assert images.dtype == np.uint8 and images.shape == (len(labels), 3, 32, 32)
    assert labels.dtype == np.int64 and labels.min() == 0 and labels.max() == 9
    assert images.min() <= 5 and images.max() >= 250  # the range is used
    assert np.bincount(labels).min() >= 80


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="rounding may differ")
def test_embedded_data_never_changes(sandbox):
    assert {name: sources.read(name).digest for name in sources.NAMES} == EMBEDDED


def test_the_stand_ins_are_like_what_they_stand_for():
    mnist, _ = toy.read_mnist()
    assert (mnist[:, 0] == mnist[:, 1]).all() and (mnist[:, 0] == mnist[:, 2]).all()
    assert not mnist[:, :, :6].any() and not mnist[:, :, 26:].any()  # framed in black
    svhn, _ = toy.read_svhn()
    assert (svhn[:, 0] != svhn[:, 1]).mean() > 0.9  # coloured


# SHA-256 of the indices as little-endian 64-bit integers, and digests of the embedded data

SYNTHETIC = {
    "pooled": {
        "train": "c94d3928332ae690f027043dfa1c6138081afacc822dc2608e58c33b1a1e99a0",
        "validation": "e6c190f79d11c1c9c5c7fd720179380dd6605a54a32f8b99a9c1a4c475017ec7",
        "test": "23b158c694ce3d43393df06726c10f5bf8546611280df7c615ea2b91b6762257",
    },
    "official": {
        "train": "c618d3c01f580e0f535f3028fa7d9589a96e44b226bb9b84f4683168ef76e358",
        "validation": "a96910d9d020ff27578ab345a8a6ae8792d268d6c5d000c94c2eb0aa5edba903",
        "test": "f596a5e5d946e1a7c56424802c2f4e919975d12561c450d3695f204c988f1d8c",
    },
}
QUICK = {
    "mnist": {
        "train": "60cd762d46b1022bd7f8a1354f4aa7afecfb7397301acb79c360a7b9898c8593",
        "validation": "94944224de067065ef3b4bf9bc701b0373582aaabf924c5fdef579ebe71b5b58",
        "test": "e728e169d6ffdd3b2d28481f7604b860f6aedd130ebc80b3444423049d8d086c",
    },
    "svhn": {
        "train": "dc86faa1a1bc35df0d1d345959a62a7badf9b9ac034fc6663990d6a833016e63",
        "validation": "5b68f8bc81712f989104acca4bdef0c6c188bb76c96503ff001f16e860a86c20",
        "test": "0b2f032739683a2bd2bfbd91b623c0a4c5f2b51469ef2944595ad48f6e67d87d",
    },
}
EMBEDDED = {
    "mnist": "47265a5085f474a1",
    "svhn": "50721cda5ba34279",
}
# Of the real data: digests, and the first digits of those of the indices

REAL = {
    "mnist": {
        "digest": "e9c61ad7c6f1e229",
        "official test": "8d294bd1e8418920",
        "official train": "cfb267f780503e97",
        "official validation": "0dd284b31e5cc357",
        "pooled test": "f1e7678ab9e0c435",
        "pooled train": "c91ebc85895ce659",
        "pooled validation": "46437d833814341a",
    },
    "svhn": {
        "digest": "252b0e875783529b",
        "official test": "df34c7f40fb9caf4",
        "official train": "e0b3ac0ab2bf2fce",
        "official validation": "9588349ec1bdbe96",
        "pooled test": "b00571ba3c3adf7a",
        "pooled train": "b752c3021dc40c69",
        "pooled validation": "5d8b26f3ed1668d5",
    },
}
