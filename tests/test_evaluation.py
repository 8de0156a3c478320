"""Evaluation: metrics against scikit-learn and the stored files, causes, calibration, gains."""

import numpy as np
import pandas as pd
import pytest
from finished import finish
from sklearn import metrics

from digitcnn import data, results, runs, toy
from digitcnn import predictions as prediction_module
from digitcnn.files import DigitcnnError
from digitcnn.predictions import Predictions, softmax
from digitcnn.report import attributes, audit, evaluation, improvements


def synthetic(count=3000, seed=0, scale=2.0) -> Predictions:
    """Predictions that are right in most cases, with classes of unequal size."""
    random = np.random.default_rng(seed)
    labels = random.choice(10, count, p=np.arange(1, 11) / 55)
    logits = random.normal(0, 1, (count, 10))
    logits[np.arange(count), labels] += 2.5
    return predictions_of(scale * logits, labels)


def predictions_of(logits, labels) -> Predictions:
    """Predictions by their logits."""
    logits = np.asarray(logits, np.float32)
    return Predictions(logits, logits.argmax(1), labels, np.arange(len(labels)))


# Stored results of the real runs


@pytest.fixture(params=["mnist", "svhn"])
def real(request, monkeypatch):
    """Name and test predictions of a finished run, from the committed answers alone."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    name = request.param
    if runs.stale(runs.get(name)):
        pytest.skip(f"{name} is not trained yet")
    return name, prediction_module.predict(name, name, "test")


def test_kept_answers_give_the_stored_metrics(real):
    name, p = real
    last = results.history(name)["test"].iloc[-1]
    assert last["epoch"] == runs.get(name).epochs
    precision, recall, _, _ = metrics.precision_recall_fscore_support(
        p.labels, p.predicted, average="macro", zero_division=0
    )
    assert metrics.accuracy_score(p.labels, p.predicted) == pytest.approx(
        last["accuracy"], abs=1e-6
    )
    assert recall == pytest.approx(last["recall"], abs=1e-6)
    assert precision == pytest.approx(last["precision"], abs=1e-6)
    # The logits are kept with half precision.
    loss = metrics.log_loss(p.labels, p.probabilities, labels=range(10))
    assert loss == pytest.approx(last["loss"], rel=1e-3)


def test_the_chapter_shows_the_stored_metrics(real):
    name, p = real
    last = results.history(name)["test"].iloc[-1]
    found = evaluation.judged(p)
    assert found.errors == p.wrong.sum() and found.images == len(p.labels)
    for metric in ("accuracy", "precision", "recall"):
        value = getattr(found, metric)
        assert value.low < value < value.high
        assert value == pytest.approx(last[metric], abs=5e-5), metric


def test_predictions_belong_to_the_test_split(real):
    name, p = real
    counts = runs.split_sizes(name)["test"]["class_counts"]
    assert np.bincount(p.labels, minlength=10).tolist() == counts
    assert len(np.unique(p.indices)) == len(p.indices)


# Metrics and intervals


@pytest.fixture
def one(monkeypatch):
    """Synthetic predictions in the place of every run's."""
    p = synthetic()
    monkeypatch.setattr(prediction_module, "predict", lambda run, data, split="test": p)
    return p


def test_a_class_has_scikit_learns_scores_in_its_row(one):
    expected = metrics.precision_recall_fscore_support(one.labels, one.predicted, zero_division=0)
    found = evaluation.classes("mnist")
    assert [found.worst, found.best] == [next(iter(found.f1)), list(found.f1)[-1]]
    assert sorted(found.f1, key=lambda digit: found.f1[digit].value) == list(found.f1)
    for column, values in zip(("precision", "recall", "F1"), expected, strict=False):
        assert list(found.table[column]) == [f"{100 * value:.1f}" for value in values]
    assert found.falsely - found.missed == max(
        (one.predicted == digit).sum() - (one.labels == digit).sum() for digit in range(10)
    )


def test_classes_that_are_never_predicted_or_absent_are_no_error(monkeypatch):
    labels = np.array([0, 0, 1, 1, 2])
    p = predictions_of(np.eye(10)[[0, 0, 0, 1, 1]], labels)
    monkeypatch.setattr(prediction_module, "predict", lambda run, data, split="test": p)
    expected = metrics.precision_score(labels, [0, 0, 0, 1, 1], average="macro", zero_division=0)
    assert evaluation.judged(p).precision == pytest.approx(expected)
    assert len(evaluation.classes("mnist").table) == 10


def test_most_confused_pairs_are_sorted_and_never_right():
    p = synthetic()
    pairs = evaluation.most_confused(p, 5)
    assert [count for *_, count in pairs] == sorted((c for *_, c in pairs), reverse=True)
    for true, said, count in pairs:
        assert true != said and count == ((p.labels == true) & (p.predicted == said)).sum()
    right = predictions_of(np.eye(10), np.arange(10))
    assert evaluation.most_confused(right, 5) == []


def test_examples_are_some_of_the_chosen_and_repeatable():
    p = synthetic()
    found = evaluation.examples(p.wrong, 9)
    assert len(found) == 9 and p.wrong[found].all() and (np.diff(found) > 0).all()
    assert np.array_equal(found, evaluation.examples(p.wrong, 9))
    assert len(evaluation.examples(np.zeros(len(p.labels), bool), 9)) == 0


# Calibration


def test_temperature_recovers_a_known_scale():
    """Logits that give the true conditional probabilities, then overstated threefold."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (20_000, 10))
    labels = np.array([random.choice(10, p=row) for row in softmax(logits)])
    honest = predictions_of(logits, labels)
    overstated = predictions_of(3 * honest.logits, labels)
    assert evaluation.fit_temperature(honest) == pytest.approx(1, abs=0.03)
    assert evaluation.fit_temperature(overstated) == pytest.approx(3, rel=0.03)
    assert evaluation.calibration_error(honest.probabilities, labels) < 0.015
    assert evaluation.calibration_error(overstated.probabilities, labels) > 0.2
    assert evaluation.reliability(honest.probabilities, labels)["count"].sum() == len(labels)
    found = evaluation.calibrated(overstated, overstated)
    assert found.after < 0.02 < 0.2 < found.before and found.unsure.low < found.claimed
    np.testing.assert_allclose(found.test, softmax(overstated.logits, found.temperature))


def test_cross_entropy_agrees_with_scikit_learn():
    p = synthetic()
    expected = metrics.log_loss(p.labels, p.probabilities, labels=range(10))
    assert evaluation.cross_entropy(p.probabilities, p.labels) == pytest.approx(expected)


# Improvements


def test_three_trainings_mend_what_one_gets_wrong(monkeypatch):
    """Three networks that err by noise of their own: their mean is better than each."""
    labels = np.random.default_rng(0).integers(0, 10, 4000)

    def predict(run, data, split="test"):
        noise = np.random.default_rng(len(run)).normal(0, 1, (4000, 10))
        return predictions_of(noise + 2.5 * np.eye(10)[labels], labels)

    monkeypatch.setattr(runs, "trainings", lambda name: ["a", "bb", "ccc"])
    monkeypatch.setattr(prediction_module, "predict", predict)
    kept = {"validation": np.zeros((3, 4000), np.uint8), "test": np.zeros((3, 4000), np.uint8)}
    kept["validation"][1] = kept["test"][1] = labels  # the second set of views is the best
    kept["loss"] = np.zeros(3)
    monkeypatch.setattr(improvements, "view_answers", lambda run: kept)
    found = improvements.tried("mnist")
    assert found.ensemble > max(found.plain.values) and found.gain > 0.02 and found.p < 0.001
    assert found.mended > found.made and found.views == "moved up and down" and found.viewed == 1


# Causes


def house_numbers():
    """Twelve drawn crops: a bar in the middle, and what is asked for beside or instead of it."""

    def crop(columns=(14, 18), rows=(4, 28), ink=1.0, beside=None):
        image = np.zeros((32, 32))
        image[slice(*rows), slice(*columns)] = ink
        if beside:
            image[slice(*beside), 28:] = ink
        return np.repeat((image * 255).astype(np.uint8)[None], 3, 0)

    return crop


def test_measurements_see_what_was_drawn():
    crop = house_numbers()
    drawn = np.stack(
        [crop(), crop(ink=0.1), crop(rows=(12, 20)), crop(columns=(3, 7)), crop(beside=(4, 28)),
         crop(beside=(4, 10)), crop(columns=(6, 32))]
    )  # fmt: skip
    found = attributes.measure(drawn)
    assert found["contrast"][0] == pytest.approx(1, abs=0.01)
    assert found["contrast"][1] < attributes.LOW_CONTRAST < found["contrast"][0]
    assert found["height"].tolist()[:3] == [24, 24, 8]
    assert found["distance"][3] > attributes.OFF_CENTRE > found["distance"][0]
    assert found["neighbour"].tolist() == [False, False, False, False, True, False, True]


def test_contrast_sees_hue_and_ignores_polarity():
    crop = house_numbers()()
    green_on_red = crop.copy()
    green_on_red[0] = 255 - crop[0]
    green_on_red[2] = 0
    plain, inverted, coloured = attributes.measure(np.stack([crop, 255 - crop, green_on_red]))[
        "contrast"
    ]
    assert plain == inverted and coloured > 0.7
    assert attributes.measure(np.full((1, 3, 32, 32), 90, np.uint8))["contrast"][0] == 0


def test_blur_is_seen():
    from scipy import ndimage

    crop = house_numbers()(columns=(10, 20))
    blurred = ndimage.gaussian_filter(crop, (0, 4, 4))
    sharpness = attributes.measure(np.stack([crop, blurred]))["sharpness"]
    assert sharpness[1] < attributes.BLURRED < sharpness[0]


def test_neighbours_are_found_in_compositions_of_known_content():
    """Stand-ins for SVHN, built like those of `digitcnn.toy`, with and without neighbours."""
    digits, _ = toy._digits(slice(300))
    alone = np.zeros((300, 32, 64), np.float32)
    alone[:, 6:26, 22:42] = digits
    crowded = alone.copy()
    crowded[:, 6:26, 40:60] = np.roll(digits, 7, 0)
    shares = []
    for canvas in (alone, crowded):
        grey = (canvas[:, :, 16:48] * 255).astype(np.uint8)
        shares.append(attributes.measure(np.repeat(grey[:, None], 3, 1))["neighbour"].mean())
    assert shares[0] < 0.02 and shares[1] > 0.5  # only 8 px of a neighbour are visible


def test_confident_learning_finds_planted_labels_and_little_else():
    p = synthetic(8000, scale=3.0)
    probabilities = p.probabilities
    thresholds = audit.class_thresholds(probabilities, p.labels)
    assert thresholds.shape == (10,) and (thresholds > 0.5).all()
    random = np.random.default_rng(1)
    changed = random.choice(8000, 160, replace=False)
    labels = p.labels.copy()
    labels[changed] = (labels[changed] + random.integers(1, 10, 160)) % 10
    assert audit.label_issues(probabilities, labels, thresholds)[changed].mean() > 0.6
    assert audit.label_issues(probabilities, p.labels, thresholds).mean() < 0.1
    one_hot = np.eye(10)[[3, 3]]
    assert audit.label_issues(one_hot, np.array([3, 5]), np.full(10, 0.9)).tolist() == [
        False,
        True,
    ]
    assert audit.class_thresholds(one_hot, np.array([3, 3]))[0] == 1


def test_an_attribute_of_errors_alone_stands_out_and_a_useless_one_does_not():
    random = np.random.default_rng(0)
    wrong = random.random(4000) < 0.1
    has = pd.DataFrame(
        {"useless": random.random(4000) < 0.6, "real": random.random(4000) < 0.05 + 0.5 * wrong,
         "never": np.zeros(4000, bool)}
    )  # fmt: skip
    table = attributes.table(has, wrong)
    assert table.loc["real", "ratio"].low > 5
    assert table.loc["useless", "ratio"].low < 1 < table.loc["useless", "ratio"].high
    assert np.isnan(table.loc["never", "ratio"].value)
    expected = has["real"][wrong].sum() - wrong.sum() * has["real"][~wrong].mean()
    assert table.loc["real", "excess"] == pytest.approx(expected)
    assert table.loc["real", "among_correct"].value == pytest.approx(has["real"][~wrong].mean())


def test_no_errors_at_all_are_no_failure():
    nothing = np.zeros(50, bool)
    has = pd.DataFrame({name: np.arange(50) % 2 == 0 for name in attributes.ATTRIBUTES})
    assert (attributes.table(has, nothing)["errors"] == 0).all()


# The quick profile from end to end


def test_the_answers_to_views_are_those_of_the_network(sandbox, monkeypatch):
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    with pytest.raises(DigitcnnError, match="mnist would have to be trained"):
        improvements.tried("mnist")
    finish("mnist")
    found = improvements.view_answers("mnist")
    p = prediction_module.predict("mnist", "mnist")
    assert found["test"].shape == (len(improvements.VIEWS), len(p.labels))
    assert found["validation"].shape[0] == len(found["loss"]) == len(improvements.VIEWS)
    assert (found["test"] == p.predicted).mean() > 0.3  # a view is nearly the image
    assert improvements.tried("mnist").plain == (~p.wrong).mean()


def test_attributes_suspects_and_pictures_of_a_split(sandbox):
    finish("mnist")
    p = prediction_module.predict("mnist", "mnist", "test")
    has = attributes.of_images("mnist")
    assert list(has.columns) == list(attributes.ATTRIBUTES) and len(has) == len(p.labels)
    suspects = audit.suspects("mnist")
    scaled = evaluation.calibration("mnist").test
    assert (scaled[suspects, p.labels[suspects]] < 0.5).all() and (np.diff(suspects) > 0).all()
    images = data.load("mnist", "test").images.numpy()
    for digit, row in enumerate(evaluation.errors_by_class("mnist")):
        assert row.heading.startswith(f"{digit}\n{(p.wrong & (p.labels == digit)).sum()} of ")
        assert (p.labels[row.positions] == digit).all() and p.wrong[row.positions].all()
        assert (row.images == images[row.positions]).all()


def test_answers_of_a_run_are_those_on_its_own_classes(sandbox):
    run = finish("svhn-case1")
    found = prediction_module.answered(run, "mnist")
    counts = runs.split_sizes("mnist")["test"]["class_counts"]
    assert np.bincount(found.labels, minlength=10)[1:3].tolist() == counts[1:3]
    assert len(found.labels) == len(found.predicted) == sum(counts[1:3])
    with pytest.raises(DigitcnnError, match="not kept"):
        prediction_module.answered(run, "mnist", "validation")
