"""Representation and transfer: measures on features of known structure, controls, kept results."""

import csv

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("umap")

from digitcnn import files, predictions, representation, runs, transfer  # noqa: E402
from digitcnn import representation_figures as drawn  # noqa: E402
from digitcnn.predictions import Predictions  # noqa: E402
from digitcnn.representation import MAPS, NAMES, OTHER, Map  # noqa: E402

PER_CLASS = 30
LABELS = np.arange(10 * PER_CLASS) % 10
COLUMNS = ["model", "data", "accuracy", "precision", "recall"]


@pytest.fixture
def synthetic(monkeypatch, tmp_path):
    """Models that separate their own classes but 3 and 5, and read every foreign digit as 7."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    monkeypatch.setattr(predictions, "depends_on", lambda run, name, split: {"of": [name, split]})

    def predict(model, name, split="test"):
        said = LABELS.copy() if model == name else np.full_like(LABELS, 7)
        if model == name:
            said[np.flatnonzero(LABELS == 3)[:6]] = 5
        confidence = 9 if model == name else 1
        logits = (confidence * np.eye(10)[said]).astype(np.float32)
        return Predictions(logits, LABELS, np.arange(len(LABELS)))

    def features(model, name, split="test", trained=True):
        random = np.random.default_rng([len(model), len(split), trained, model == name])
        noise = random.random((len(LABELS), 128), dtype=np.float32)
        if not trained:
            return noise
        centres = np.eye(128, dtype=np.float32)[:10]
        centres[5] = 0.7 * centres[5] + 0.5 * centres[3]
        return (noise if model == name else 4 + noise) + (
            8 * centres[LABELS] if model == name else 0
        )

    monkeypatch.setattr(predictions, "predict", predict)
    monkeypatch.setattr(predictions, "features", features)
    places = np.random.default_rng(0).normal(size=(len(LABELS), 2)) + 20 * np.eye(10)[LABELS][:, :2]
    monkeypatch.setattr(representation, "coordinates", lambda shown: places)


def test_maps_cover_what_is_asked():
    assert len({shown.name for shown in MAPS}) == len(MAPS) == 8
    for name in NAMES:
        for wanted in (
            Map(name, (name,)),
            Map(name, (name,), trained=False),
            Map(name, (name, OTHER[name])),
            Map(name, (OTHER[name],)),
        ):
            assert wanted in MAPS


def test_quality_sees_training_and_is_kept(synthetic, monkeypatch):
    trained, untrained = (
        representation.quality(Map("mnist", ("mnist",), t)) for t in (True, False)
    )
    assert trained.loc["mean", "silhouette 128-d"] > 0.4
    assert abs(untrained.loc["mean", "silhouette 128-d"]) < 0.05
    assert (
        trained.loc["mean", "neighbours 128-d"] > 0.95 > untrained.loc["mean", "neighbours 128-d"]
    )
    assert (trained.loc["std"] >= 0).all()
    monkeypatch.setattr(predictions, "features", None)  # from here on, only what was kept
    again = representation.quality(Map("mnist", ("mnist",)))
    assert np.array_equal(again, trained)


def test_results_depend_on_their_code(synthetic):
    made = []

    def make():
        made.append(1)
        return {"x": np.zeros(1)}

    def one():
        """Docstrings do not count."""
        return 1

    for code in ([representation.layout, 15], [representation.layout, 15], [transfer.grey, 15],
                 [transfer.grey, 16]):  # fmt: skip
        representation.cached("representation/x", [{"a": 1}], code, make)
    assert len(made) == 3


def test_pairs_count_every_error_once_and_find_the_close_pair(synthetic):
    frame = representation.pairs("svhn")
    assert len(frame) == 45
    worst = frame.iloc[0]
    assert (worst["a"], worst["b"], worst["confused"]) == (3, 5, 6)
    assert worst["rate"] == pytest.approx(6 / (2 * PER_CLASS))
    assert frame["confused"].sum() == 6
    assert worst["trained"] == frame["trained"].min() > worst["untrained"]
    correlation, p = representation.pair_correlation("svhn")
    assert correlation < 0 <= p <= 1


def test_errors_lie_where_their_features_say(synthetic):
    found = representation.error_neighbours("mnist")  # six 3s, among the 3s, are read as 5
    assert found == {"predicted": 0, "true": 1}


def test_pair_correlation_without_any_error(synthetic, monkeypatch):
    perfect = Predictions(np.eye(10)[LABELS], LABELS, np.arange(len(LABELS)))
    monkeypatch.setattr(predictions, "predict", lambda *_: perfect)
    assert np.isnan(representation.pair_correlation("mnist")).all()
    assert np.isnan(list(representation.error_neighbours("mnist").values())).all()


def test_mixture_tells_apart_what_is_apart(synthetic):
    found = representation.mixture("mnist")
    assert found["told apart"] == 1
    assert found["class"] < 0.3
    assert found["other norm"] > found["own norm"]


def test_detection_is_oriented_and_bounded(synthetic):
    frame = representation.detection("mnist")
    assert list(frame.index) == ["probability", "energy", "distance"]
    assert (frame["auroc"] > 0.99).all() and (frame["accepted"] < 0.01).all()
    own, other = representation.known_scores("mnist")["distance"]
    assert own.max() <= 0 and own.mean() > other.mean()


def test_cross_dataset_writes_the_table(synthetic):
    frame = transfer.cross_dataset()
    assert list(frame.columns) == COLUMNS and len(frame) == 4
    with files.cache_path("results", "cross_dataset.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == COLUMNS and len(rows) == 5
    foreign = frame[frame["model"] != frame["data"]]
    # Always answering 7: a tenth is right, and only class 7 has any precision or recall.
    assert foreign["accuracy"].tolist() == pytest.approx([0.1, 0.1])
    assert foreign["recall"].tolist() == pytest.approx([0.1, 0.1])
    assert foreign["precision"].tolist() == pytest.approx([0.01, 0.01])
    own = frame[frame["model"] == frame["data"]]
    assert own["accuracy"].tolist() == pytest.approx([0.98, 0.98])


def test_accuracy_interval_is_wilsons():
    low, high = transfer.accuracy_interval(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert transfer.accuracy_interval(1.0, 10)[1] == 1


@pytest.fixture
def pictures():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images[0] = 0
    images[0, :, 12:20, 14:18] = 1  # a white digit on black
    return images


def test_controls_change_one_thing(pictures):
    assert torch.allclose(transfer.inverted(pictures) + pictures, torch.ones(()))
    grey = transfer.grey(pictures)
    assert torch.equal(grey[:, 0], grey[:, 2]) and torch.allclose(grey[0], pictures[0])
    low = transfer.low_contrast(pictures)
    assert torch.allclose(low.std((1, 2, 3)), 0.4 * pictures.std((1, 2, 3)), atol=1e-5)
    assert torch.allclose(low.mean((1, 2, 3)), pictures.mean((1, 2, 3)), atol=1e-5)
    assert torch.equal(transfer.bright_digit(pictures)[0], pictures[0])
    assert torch.allclose(transfer.bright_digit(1 - pictures)[0], pictures[0])
    assert transfer.full_contrast(0.5 + 0.1 * pictures).std() > 2 * (0.1 * pictures).std()
    ground = transfer.coloured_ground(pictures)[0]
    assert torch.equal(ground[:, 12:20, 14:18], pictures[0, :, 12:20, 14:18])
    assert ground[:, :10].std() > 0.02
    beside = transfer.neighbours(pictures)
    assert (beside >= pictures).all() and torch.equal(beside[..., 12:20], pictures[..., 12:20])
    sides = transfer.without_sides(pictures)
    assert torch.equal(sides[..., 8:24], pictures[..., 8:24])
    assert (sides[..., :8] == pictures[..., 8:9]).all()
    assert transfer.enlarged(pictures)[0].mean() > 2 * pictures[0].mean()
    assert transfer.shrunk(pictures)[0].mean() < 0.5 * pictures[0].mean()
    assert transfer.blurred(pictures).std() < pictures.std()


@pytest.mark.parametrize("name", NAMES)
def test_every_control_does_something_and_is_reproducible(pictures, name):
    images = (255 * pictures).byte()
    for control in transfer.CONTROLS[name]:
        changed = transfer.changed(images, name, control)
        assert changed.dtype == torch.uint8 and changed.shape == images.shape
        assert torch.equal(changed, images) == (control == "unchanged")
        assert torch.equal(changed, transfer.changed(images, name, control))


def test_layout_separates_clusters_and_repeats():
    random = np.random.default_rng(0)
    clusters = random.normal(size=(120, 16)) + 30 * (np.arange(120) % 2)[:, None]
    places = representation.layout(clusters.astype(np.float32))
    assert places.shape == (120, 2) and places.dtype == np.float16
    assert np.array_equal(places, representation.layout(clusters.astype(np.float32)))
    even, odd = places[::2].astype(float), places[1::2].astype(float)
    gap = np.linalg.norm(even.mean(0) - odd.mean(0))
    assert gap > 2 * max(even.std(0).max(), odd.std(0).max())


def test_class_names_stand_in_their_clusters():
    classes = np.repeat([3, 8], 50)
    points = np.random.default_rng(0).normal(size=(100, 2)) * 0.1
    points[classes == 8] += 10
    anchors = drawn.class_anchors(points, classes)
    assert set(anchors) == {3, 8} and np.linalg.norm(anchors[8] - 10) < 1
    assert drawn.class_anchors(np.zeros((100, 2)), classes) == {}


def test_maps_are_rasterised():
    import matplotlib.pyplot as plt

    points = np.random.default_rng(0).normal(size=(50, 2))
    figure = drawn.class_maps({"a": (points, LABELS[:50])}, wrong=np.arange(50) < 3)
    scatters = figure.axes[0].collections
    assert len(scatters) == 2 and all(scatter.get_rasterized() for scatter in scatters)
    assert len(scatters[1].get_offsets()) == 3
    plt.close(figure)


def _kept() -> bool:
    return files.cache_path("results", "cross_dataset.csv").is_file()


@pytest.mark.skipif(not _kept(), reason="no results of this profile yet")
def test_kept_results_are_whole():
    for shown in MAPS:
        with np.load(files.cache_path("umap", f"{shown.name}.npz")) as archive:
            points = archive["xy"]
        counts = [runs.manifest(name)["split"]["test"]["images"] for name in shown.data]
        assert points.shape == (sum(counts), 2) and np.isfinite(points).all()
    with files.cache_path("results", "cross_dataset.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["data"]) for row in rows] == [(m, d) for m in NAMES for d in NAMES]
    for row in rows:
        found = predictions.predict(row["model"], row["data"])
        assert float(row["accuracy"]) == pytest.approx(1 - found.wrong.mean())
        shares = [float(row[column]) for column in COLUMNS[2:]]
        assert all(0 <= share <= 1 for share in shares)
