"""Data: the split's properties and fixed indices, subsets, seeds, the manifest."""

from __future__ import annotations

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

from digitcnn import data, embedded, files, runs, sources
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


# The split


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(10, 120), min_size=2, max_size=10), st.integers(0, 2**31), st.booleans()
)
def test_a_split_is_disjoint_complete_and_stratified(counts, seed, shuffled):
    labels = np.repeat(np.arange(len(counts)), counts)
    if shuffled:
        labels = np.random.default_rng(seed).permutation(labels)
    indices = data.split_indices(labels, seed)
    joined = np.concatenate(list(indices.values()))
    assert len(joined) == len(labels) and (np.sort(joined) == np.arange(len(labels))).all()
    for name, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        chosen = indices[name]
        assert (np.diff(chosen) > 0).all()  # in pool order
        assert abs(len(chosen) - share * len(labels)) <= 2
        got = np.bincount(labels[chosen], minlength=len(counts))
        assert (np.abs(got - share * np.array(counts)) <= 2).all(), name


def test_the_split_depends_on_its_seed_and_labels_alone():
    labels = np.arange(1000) % 10
    first, again, other = (data.split_indices(labels, seed) for seed in (42, 42, 43))
    np.random.seed(7)
    torch.manual_seed(7)
    later = data.split_indices(labels, 42)
    for name in data.SPLITS:
        assert (first[name] == again[name]).all() and (first[name] == later[name]).all()
        assert (first[name] != other[name]).any()


def test_the_indices_of_a_synthetic_split_are_fixed():
    """Nothing may ever move a sample: scikit-learn's, NumPy's and our part together."""
    indices = data.split_indices(np.arange(1000) % 10)
    assert {name: sha256(chosen) for name, chosen in indices.items()} == SYNTHETIC


def test_the_indices_of_the_quick_profile_are_fixed(sandbox):
    for name, expected in QUICK.items():
        _, indices = data.pool(name)
        assert {split: sha256(chosen) for split, chosen in indices.items()} == expected


@pytest.mark.parametrize("name", sources.NAMES)
def test_the_indices_of_the_real_data_are_fixed(name):
    """From nothing but the labels; where the data is, they are read from its files."""
    recorded = ROOT / "cache" / "data" / f"{name}.json"
    folder = Path(os.environ.get("DIGITCNN_DATA") or ROOT / "data")
    if not recorded.is_file() or not all((folder / p).is_file() for p in sources.PINNED_MD5[name]):
        pytest.skip(f"no real {name} data here")
    manifest = json.loads(recorded.read_text())
    if any(files.file_md5(folder / path) != md5 for path, md5 in manifest["file_md5"].items()):
        pytest.skip(f"another copy of {name} than the recorded one")
    labels = real_labels(name, folder)
    assert len(labels) == manifest["images"]
    for split, chosen in data.split_indices(labels).items():
        assert sha256(chosen) == manifest["split"][split]["indices_sha256"], split
        counts = np.bincount(labels[chosen], minlength=10).tolist()
        assert counts == manifest["split"][split]["class_counts"], split


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


def test_the_real_manifests_fit_the_splits_of_the_report():
    for name, images in {"mnist": 70_000, "svhn": 99_289}.items():
        path = ROOT / "cache" / "data" / f"{name}.json"
        if not path.is_file():
            pytest.skip("no real manifests here")
        manifest = json.loads(path.read_text())
        assert manifest["images"] == images
        for split, share in data.SPLITS.items():
            assert abs(manifest["split"][split]["images"] - share * images) <= 1
            counts = np.array(manifest["split"][split]["class_counts"])
            pooled = sum(np.array(part["class_counts"]) for part in manifest["split"].values())
            assert (np.abs(counts - share * pooled) <= 2).all()


# Loading


def test_what_is_loaded_is_the_pool_at_the_indices(sandbox):
    source, indices = data.pool("svhn")
    seen = 0
    for split in data.SPLITS:
        loaded = data.load("svhn", split)
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


def test_reading_writes_the_manifest(sandbox):
    source, indices = data.pool("mnist")
    manifest = runs.manifest("mnist")
    assert manifest["digest"] == source.digest()
    assert manifest["images"] == len(source.labels) == 1797
    for split, chosen in indices.items():
        part = manifest["split"][split]
        assert part["images"] == len(chosen) and part["indices_sha256"] == sha256(chosen)
        assert part["class_counts"] == np.bincount(source.labels[chosen], minlength=10).tolist()


def test_a_manifest_of_other_data_is_replaced(sandbox):
    path = files.cache_path("data", "mnist.json")
    files.write_json(path, {"name": "mnist", "digest": "other", "split": {}})
    data._pool.cache_clear()
    source, _ = data.pool("mnist")
    assert runs.manifest("mnist")["digest"] == source.digest()


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
    assert (data.stratified_subset(split, 100).indices == part.indices).all()
    assert (data.stratified_subset(split, 100, seed=1).indices != part.indices).any()


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


def test_the_indices_of_subsets_are_fixed():
    split = made(np.arange(400) % 10)
    chosen = (data.stratified_subset(split, 100), data.class_subset(split, {3: 7, 5: None}, 42))
    assert [sha256(part.indices) for part in chosen] == [
        "1f1f34f8c9350cfdf926e422c48facb8aca7fb8f9d11162b36b6d65cc8676edf",
        "6afc25ae8090fb76b3446c50fe7484217535e63f6ae3d440285dd331ef812734",
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
    images, labels = embedded.READERS[name]()
    np.random.seed(9)  # it has a generator of its own
    again, labels_again = embedded.READERS[name]()
    assert (images == again).all() and (labels == labels_again).all()
    assert images.dtype == np.uint8 and images.shape == (len(labels), 3, 32, 32)
    assert labels.dtype == np.int64 and labels.min() == 0 and labels.max() == 9
    assert images.min() <= 5 and images.max() >= 250  # the range is used
    assert np.bincount(labels).min() >= 150


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="rounding may differ")
def test_embedded_data_never_changes(sandbox):
    assert {name: sources.read(name).digest() for name in sources.NAMES} == EMBEDDED


def test_the_stand_ins_are_like_what_they_stand_for():
    mnist, _ = embedded.read_mnist()
    assert (mnist[:, 0] == mnist[:, 1]).all() and (mnist[:, 0] == mnist[:, 2]).all()
    assert not mnist[:, :, :6].any() and not mnist[:, :, 26:].any()  # framed in black
    svhn, _ = embedded.read_svhn()
    assert (svhn[:, 0] != svhn[:, 1]).mean() > 0.9  # coloured


# SHA-256 of the indices as little-endian 64-bit integers, and digests of the embedded data

SYNTHETIC = {
    "train": "c94d3928332ae690f027043dfa1c6138081afacc822dc2608e58c33b1a1e99a0",
    "validation": "e6c190f79d11c1c9c5c7fd720179380dd6605a54a32f8b99a9c1a4c475017ec7",
    "test": "23b158c694ce3d43393df06726c10f5bf8546611280df7c615ea2b91b6762257",
}
QUICK = {
    "mnist": {
        "train": "4f4113f546c72731390ceff30c9fb7f054b92609c62153aebd476f608b930d92",
        "validation": "d248e3a45ff04e4969fdaa6c8d267a4a512a07543191dcc95e0337ee0fe9a829",
        "test": "a93bb139001acaeee9be30209c8d7f0a312ffd82623621a21323d9d2a92d27aa",
    },
    "svhn": {
        "train": "995e753a59995bd6116190cfdc8c675231956f1e57a5e946c5a11ec93d6281f3",
        "validation": "1dfa704944a225a221ef31a4748dd32061b7d75910142556c9c7949778bdb270",
        "test": "5089dc36b90f2f821fadc9e23564353ae53a7de84343e0f4eef3d7e3fab79522",
    },
}
EMBEDDED = {
    "mnist": "1f921e31bbd10bbd",
    "svhn": "04a8da16410999a6",
}
