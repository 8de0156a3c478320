"""Representation and transfer: measures on features of known structure, controls, the gap."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from digitcnn import inference, predictions, runs, store  # noqa: E402
from digitcnn.predictions import Answers, Predictions  # noqa: E402
from digitcnn.report import controls, cross_dataset, representation  # noqa: E402
from digitcnn.report import representation_figures as drawn  # noqa: E402
from digitcnn.report.representation import MAPS, NAMES, OTHER, Map  # noqa: E402
from digitcnn.report.values import Points, Share, Spread  # noqa: E402

LABELS = np.arange(300) % 10


@pytest.fixture
def synthetic(monkeypatch, tmp_path):
    """Models that separate their own classes, misread six 3s, and read every foreign digit as 7."""
    monkeypatch.setenv("DIGITCNN_ROOT", str(tmp_path))
    monkeypatch.setenv("DIGITCNN_PROFILE", "quick")
    monkeypatch.setattr(store, "digest_of", lambda token: f"digest of {token}")
    monkeypatch.setattr(store.Stored, "_provide", staticmethod(lambda tokens: None))

    def predict(model, name, split="test"):
        own = runs.get(model).data == name
        said = LABELS.copy() if own else np.full_like(LABELS, 7)
        if own:
            said[np.flatnonzero(LABELS == 3)[:6]] = 5
        logits = (9 * np.eye(10)[said]).astype(np.float32)
        return Predictions(logits, said, LABELS, np.arange(len(LABELS)))

    def features(model, name, split="test", trained=True):
        noise = np.random.default_rng([len(name), model == name]).random((len(LABELS), 128), "f4")
        centres = 8 * np.eye(128, dtype=np.float32)[:10]
        # The other data set lies together, farther out, beside the own 7s.
        return {"features": noise + (centres[LABELS] if model == name else 1.6 * centres[7])}

    def answered(run, name, split="test"):
        found = predict(run, name)
        return Answers(found.predicted, found.labels)

    monkeypatch.setattr(predictions, "predict", predict)
    monkeypatch.setattr(cross_dataset, "answered", answered)
    monkeypatch.setattr(runs, "trainings", lambda name: [name])
    monkeypatch.setattr(inference, "features", features)
    places = np.random.default_rng(0).normal(size=(len(LABELS), 2)) + 20 * np.eye(10)[LABELS][:, :2]
    monkeypatch.setattr(representation, "layout", lambda features: places.astype("f2"))


def test_maps_cover_what_is_asked():
    """Each data set in each model's features, alone and both together."""
    wanted = {(m, shown) for m in NAMES for shown in ((m,), (OTHER[m],), (m, OTHER[m]))}
    assert {(shown.model, shown.data) for shown in MAPS} == wanted and len(MAPS) == 6


def test_spaces_say_what_lies_where(synthetic):
    own, foreign = representation.space("mnist", "mnist"), representation.space("mnist", "svhn")
    assert own.own and not foreign.own
    assert own.alike == own.voted == own.apart == foreign.apart == 1
    assert foreign.alike < 0.4 and foreign.voted == pytest.approx(0.1)
    assert own.far == own.between == 1 and foreign.far > 1 and foreign.between < 0.3
    assert own.nearest.tolist() == list(range(10)) and own.at_home == 10
    assert foreign.nearest.tolist() == [7] * 10 and foreign.at_home == 1
    assert own.silhouette > 0.4 > abs(foreign.silhouette)
    assert np.isnan(foreign.silhouette_answers)  # there is one answer
    # In the map, 2 to 9 lie on one place.
    assert own.alike_in_map < 0.6
    table = representation.spaces_table()
    assert table.shape == (9, 4) and table.iloc[2, 1] == foreign.voted


def test_distances_are_kept_and_another_training_has_its_own(synthetic, monkeypatch):
    kept = representation.neighbours("mnist")
    monkeypatch.setattr(inference, "features", None)  # from here on, only what was kept
    assert np.array_equal(representation.neighbours("mnist")["mnist-at"], kept["mnist-at"])
    assert "mnist-s43" in representation.neighbours.path("mnist-s43").name


def test_stored_results_name_what_they_are_made_from():
    """What a result reads has a token, and what it calls counts."""
    from digitcnn import reach

    shown = Map("mnist", ("mnist", "svhn"))
    expected = ["weights mnist", "images mnist test pooled", "images svhn test pooled"]
    assert representation.coordinates._inputs(shown) == expected
    assert representation.neighbours._inputs("mnist") == expected
    for stored, reached in (
        (representation.coordinates, {"layout", "NEIGHBOURS", "extract_features"}),
        (representation.neighbours, {"QUERIES", "extract_features"}),
        (controls.answers, {"coloured_ground", "two_tones", "SAMPLE", "predict_logits"}),
    ):
        assert reached <= set(reach.digests((stored.root,), without=store.NOT_CODE))


def test_panels_hold_what_they_are_coloured_by(synthetic):
    (own, _), *_ = representation.own_maps()
    assert own.wrong.sum() == 6 and np.array_equal(own.groups, LABELS)
    joint, _ = representation.joint_maps()[0]
    assert np.bincount(joint.groups).tolist() == [300, 300] and joint.wrong is None
    true, said = representation.foreign_maps()[0]
    assert np.array_equal(true.groups, LABELS) and set(said.groups) == {7}


def test_crossed_counts_answers(synthetic):
    foreign = cross_dataset.crossed("mnist", "svhn")
    # Always answering 7: a tenth is right, and only class 7 has any precision or recall.
    assert (foreign.accuracy, foreign.recall) == pytest.approx((0.1, 0.1))
    assert foreign.precision == pytest.approx(0.01)
    assert foreign.answered(7) == 1 and foreign.answered(1) == 0 and foreign.seldom == 9
    assert foreign.precision_of(7) == pytest.approx(0.1)
    assert np.isnan(foreign.precision_of(3)) and foreign.majority == pytest.approx(0.1)
    assert cross_dataset.at_home("svhn").counts[3, 5] == 6
    table = cross_dataset.table()
    assert table["accuracy"].map(float).tolist() == pytest.approx([0.98, 0.1, 0.1, 0.98])


# Controls


@pytest.fixture
def pictures():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images[0] = 0
    images[0, :, 12:20, 14:18] = 1  # a white digit on black
    return images


def test_controls_change_one_thing(pictures):
    assert torch.allclose(controls.inverted(pictures) + pictures, torch.ones(()))
    grey = controls.grey(pictures)
    assert torch.equal(grey[:, 0], grey[:, 2]) and torch.allclose(grey[0], pictures[0])
    low = controls.low_contrast(pictures)
    assert torch.allclose(low.std((1, 2, 3)), 0.4 * pictures.std((1, 2, 3)), atol=1e-5)
    assert torch.allclose(low.mean((1, 2, 3)), pictures.mean((1, 2, 3)), atol=1e-5)
    assert torch.equal(controls.bright_digit(pictures)[0], pictures[0])
    assert torch.allclose(controls.bright_digit(1 - pictures)[0], pictures[0])
    assert controls.full_contrast(0.5 + 0.1 * pictures).std() > 2 * (0.1 * pictures).std()
    assert set(controls.two_tones(0.2 + 0.1 * pictures).unique().tolist()) == {0, 1}
    ground = controls.coloured_ground(pictures)[0]
    assert torch.equal(ground[:, 12:20, 14:18], pictures[0, :, 12:20, 14:18])
    assert ground[:, :10].std() > 0.02
    beside = controls.neighbours(pictures)
    assert (beside >= pictures).all() and torch.equal(beside[..., 12:20], pictures[..., 12:20])
    sides = controls.without_sides(pictures)
    assert torch.equal(sides[..., 8:24], pictures[..., 8:24])
    assert (sides[..., :8] == pictures[..., 8:9]).all()
    assert controls.shrunk(pictures)[0].mean() < 0.5 * pictures[0].mean()
    assert controls.blurred(pictures).std() < pictures.std()


def test_a_leaning_stroke_is_put_upright():
    leaning = torch.zeros(2, 3, 32, 32)
    for row in range(6, 26):
        leaning[0, :, row, 21 - row // 2] = 1
        leaning[1, :, row, 10 + row // 3] = 1
    columns = torch.arange(32.0)
    for image in controls.upright(leaning)[:, 0]:
        middles = (image * columns).sum(1)[8:24] / image.sum(1)[8:24]
        assert middles.std() < 0.5 < 2 < leaning[0, 0].argmax(1)[8:24].float().std()


@pytest.mark.parametrize("name", NAMES)
def test_every_control_does_something_and_is_reproducible(pictures, name):
    images = (255 * pictures).byte()
    assert len(controls.combinations(name)) == 1 + 6 + 15
    for changes in controls.combinations(name):
        changed = controls.changed(images, name, changes)
        assert changed.dtype == torch.uint8 and changed.shape == images.shape
        assert torch.equal(changed, images) == (not changes)
        assert torch.equal(changed, controls.changed(images, name, changes))


def test_effects_are_of_the_macro_recall(monkeypatch):
    """Class 0 is half of the images; a control that mends class 1 alone gains a tenth."""
    labels = np.array([0] * 9 + list(range(1, 10)))
    said = np.tile(np.where(labels == 0, 0, 9), (22, 1))  # 0 and 9 are right
    for row, changes in enumerate(controls.combinations("svhn")):
        if "grey" in changes:
            said[row, labels == 1] = 1
    monkeypatch.setattr(controls, "sampled", lambda name: np.arange(len(labels)))
    monkeypatch.setattr(controls, "answers", lambda run, name: {"answers": said})
    p = Predictions(np.eye(10)[labels], labels, labels, labels)
    monkeypatch.setattr(predictions, "predict", lambda *_: p)
    found = controls.effects("mnist", "svhn")
    assert found.recall() == pytest.approx(0.2) and found.recall("grey") == pytest.approx(0.3)
    assert found.gain("grey") == pytest.approx(0.1) and found.gain("shrunk") == 0
    assert found.gain("grey").low <= 0.1 <= found.gain("grey").high
    assert found.best(1) == ("grey",) and "grey" in found.best(2)
    assert found.gains[0, 0] == pytest.approx(10) and np.isnan(found.gains[0, 1])
    assert found.gains[1].tolist()[:2] == pytest.approx([10, 0])


def test_examples_of_controls_show_one_image_of_each_class(sandbox):
    from digitcnn import data

    images = controls.examples("svhn")["images"]
    assert images.shape == (8, len(controls.EXAMPLES), 3, 32, 32)
    split = data.load("svhn", "test")
    first = [split.labels.tolist().index(digit) for digit in controls.EXAMPLES]
    assert np.array_equal(images[0], split.images[first].numpy())


# Training, and the gap


@pytest.fixture
def transfer(monkeypatch):
    """A setting that turns a tenth more of the answers right, with every seed."""
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)

    def answered(run, name, split="test"):
        said, more = (LABELS + 1) % 10, run.seed - 42
        count = 60 + 2 * more if "all" in run.name else 30 + more
        said[:count] = LABELS[:count]
        return Answers(said, LABELS)

    monkeypatch.setattr(cross_dataset, "answered", answered)


def test_settings_are_held_against_plain_by_seed(transfer):
    found = cross_dataset.trained()
    assert list(found) == list(runs.TRANSFER)
    assert found["all"].gain == pytest.approx(31 / 300, abs=0.002)
    assert found["all"].gain.low > 0.09 and found["all"].beyond
    assert found["ground"].gain == 0 and not found["ground"].beyond
    assert found["plain"].accuracy.values == pytest.approx([30 / 300, 31 / 300, 32 / 300])
    assert cross_dataset.best_alone() in ("ground", "polarity", "contrast", "colours")
    table = cross_dataset.trained_table()
    assert ["†" in change for change in table["change of recall"]] == [False] * 5 + [True]


def test_the_gap_is_divided(transfer, monkeypatch):
    def crossed(model, name):
        recall = Spread([0.9 if model == name else 0.1])
        return cross_dataset.Crossed(*4 * [recall], np.eye(10, dtype=int), Share(0, 1))

    class Effects:
        def best(self, size):
            return ("blurred", "upright")[:size]

        def gain(self, *changes):
            return Points((0.08 * len(changes), 0.04, 0.2))

    monkeypatch.setattr(cross_dataset, "crossed", crossed)
    monkeypatch.setattr(controls, "effects", lambda run, name: Effects())
    mnist, svhn = cross_dataset.gap("mnist"), cross_dataset.gap("svhn")
    assert svhn.size == pytest.approx(80) and svhn.pictures == pytest.approx(0.2)
    assert (svhn.left, svhn.left.low, svhn.left.high) == pytest.approx((0.8, 0.75, 0.95))
    assert [part.name for part in svhn.parts] == ["pictures: blurred", "pictures: blurred, upright"]
    assert len(mnist.parts) == 2 + 5 and len(mnist.parts[-1].seeds) == 3
    plain = np.mean([30, 31, 32]) / 300
    assert mnist.parts[-1].name == "training: all"
    assert mnist.training() == pytest.approx(31 / 300 / (0.9 - plain), abs=0.003)


# Maps


@pytest.mark.slow  # numba compiles
def test_layout_separates_clusters_and_repeats():
    pytest.importorskip("umap")
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


def test_maps_are_rasterised(synthetic):
    import matplotlib.pyplot as plt

    figure = drawn.maps(representation.own_maps())
    scatters = figure.axes[0].collections
    assert len(scatters) == 2 and all(scatter.get_rasterized() for scatter in scatters)
    assert len(scatters[1].get_offsets()) == 6
    plt.close(figure)


def test_kept_maps_are_whole(monkeypatch):
    """The committed results of the full profile."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    for shown in MAPS:
        if runs.stale(runs.get(shown.model)) or store.stale(representation.coordinates.path(shown)):
            pytest.skip("the maps of the present models are not made yet")
        points = representation.coordinates.load(shown)["xy"]
        counts = [runs.split_sizes(name)["test"]["images"] for name in shown.data]
        assert points.shape == (sum(counts), 2) and np.isfinite(points).all()
