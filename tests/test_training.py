"""Training: metrics, augmentation, schedule, reproducibility, continuation bit for bit."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from crashes import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from digitcnn import checkpoints, data, training
from digitcnn.data import Split
from digitcnn.training import Training, augment, learning_rate, metrics_from_confusion

CPU = torch.device("cpu")
KINDS = ("shift", "affine", "elastic", "colour", "erase")


@pytest.fixture(scope="module")
def samples():
    """Small training and validation splits of random images that can be told apart."""
    rng = np.random.default_rng(0)
    made = []
    for count in (48, 30):
        labels = np.arange(count) % 10
        images = rng.integers(0, 120, (count, 3, 32, 32), np.uint8)
        images[np.arange(count), :, 3 * labels] += 130
        made.append(Split(torch.from_numpy(images), torch.from_numpy(labels), np.arange(count)))
    return made


def start(samples, **changes) -> Training:
    changes = {"class_counts": None, "batch_size": 16} | changes
    config = tiny_run(**changes)
    return Training(config, samples[0], {"validation": samples[1]}, CPU)


def frozen(running: Training) -> dict[str, bytes]:
    return {k: v.detach().numpy().tobytes() for k, v in running.state().items()}


# Metrics


def expected_metrics(confusion: np.ndarray) -> dict[str, float]:
    """scikit-learn's figures from the samples that the confusion matrix counts."""
    true, predicted = np.repeat(np.indices((10, 10)).reshape(2, -1), confusion.ravel(), axis=1)
    options = {"average": "macro", "zero_division": 0, "labels": np.unique(true)}
    return {
        "accuracy": metrics.accuracy_score(true, predicted),
        "precision": metrics.precision_score(true, predicted, **options),
        "recall": metrics.recall_score(true, predicted, **options),
    }


@settings(deadline=None, max_examples=150)
@given(
    arrays(np.int64, (10, 10), elements=st.integers(0, 9)),
    st.sets(st.integers(0, 9), max_size=9),
    st.sets(st.integers(0, 9), max_size=9),
)
def test_metrics_are_those_of_scikit_learn(confusion, absent, never_predicted):
    confusion[list(absent)] = 0
    confusion[:, list(never_predicted)] = 0
    if not confusion.sum():
        confusion[4, 5] = 1
    found = vars(metrics_from_confusion(torch.from_numpy(confusion), 7.0))
    for name, value in expected_metrics(confusion).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert found["loss"] == pytest.approx(7.0 / confusion.sum())


def test_metrics_of_extreme_predictions():
    perfect = metrics_from_confusion(torch.eye(10).long() * 3, 0.0)
    assert dataclasses.astuple(perfect) == (0, 1, 1, 1)
    one_class = torch.zeros(10, 10).long()
    one_class[:, 0] = 1
    found = metrics_from_confusion(one_class, 10.0)
    assert dataclasses.astuple(found) == pytest.approx((1, 0.1, 0.01, 0.1))


def test_evaluation_gives_the_models_own_metrics(samples):
    running = start(samples)
    running.run_epoch()
    images, labels = samples[1].images, samples[1].labels
    found = training.evaluate(running.averaged.module, images, labels)
    logits = training.predict_logits(running.averaged.module, images)
    assert logits.shape == (30, 10) and logits.dtype == torch.float32
    probabilities = logits.double().softmax(1).numpy()
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, logits.argmax(1)))
    assert found.loss == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-5)


def test_large_sets_are_evaluated_in_batches(samples, monkeypatch):
    running = start(samples)
    running.run_epoch()
    whole = training.predict_logits(running.model, samples[0].images)
    monkeypatch.setattr(training, "EVALUATION_BATCH", 7)
    torch.testing.assert_close(training.predict_logits(running.model, samples[0].images), whole)


# Augmentation


@pytest.fixture(scope="module")
def digits():
    """Real handwritten digits in [0, 1], (200, 3, 32, 32)."""
    from digitcnn import embedded

    return training.to_unit(torch.from_numpy(embedded.read_svhn()[0][:200]))


def test_to_unit_keeps_pixels():
    images = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 3, 32, 32)
    unit = training.to_unit(images)
    assert unit.dtype == torch.float32 and (unit * 255).round().to(torch.uint8).equal(images)
    assert unit.is_contiguous(memory_format=torch.channels_last)


def test_no_augmentation_leaves_images_as_they_are(digits):
    assert torch.equal(augment(digits, ()), digits)


@pytest.mark.parametrize("kinds", [(kind,) for kind in KINDS] + [KINDS, ("affine", "elastic")])
def test_augmentation_keeps_shape_and_range_and_follows_the_seed(digits, kinds):
    before = digits.clone()
    torch.manual_seed(3)
    first = augment(digits, kinds)
    torch.manual_seed(3)
    again = augment(digits, kinds)
    other = augment(digits, kinds)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(digits, before)  # the originals are not touched
    assert first.shape == digits.shape and first.dtype == digits.dtype
    assert torch.isfinite(first).all()
    margin = 0.45 if "colour" in kinds else 1e-5
    assert first.min() >= -margin and first.max() <= 1 + margin
    changed = (first - digits).abs().amax((1, 2, 3)) > 1e-3
    assert changed.float().mean() > 0.95  # every image draws its own parameters
    copies = augment(digits[:1].expand(50, -1, -1, -1), kinds)
    assert len({copy.numpy().tobytes() for copy in copies}) >= 40


@pytest.mark.parametrize("kinds", [(kind,) for kind in KINDS] + [KINDS])
def test_images_are_never_flipped(kinds):
    """What lies in the upper left stays there: a flip would move it across the middle."""
    image = torch.zeros(3, 32, 32)
    image[:, 3:15, 3:15] = 1
    torch.manual_seed(0)
    found = augment(image.expand(500, -1, -1, -1), kinds)
    background = found.flatten(2).median(2).values[:, :, None, None]
    where = centre((found - background).abs())
    assert (where < 15.5).all()
    assert (centre(image.flip(2)[None])[0] > 15.5).tolist() == [False, True]
    if kinds == ("colour",):
        inverted = (background.mean((1, 2, 3)) > 0.5).float().mean()
        assert 0.4 < inverted < 0.6  # the polarity, though, is inverted in half of the images


def centre(images: torch.Tensor) -> torch.Tensor:
    """Centres of mass (rows, columns) of images (N, 3, 32, 32)."""
    grey = images.mean(1)
    pixel = torch.arange(32.0)
    total = grey.sum((1, 2))
    return torch.stack([(grey.sum(2) @ pixel) / total, (grey.sum(1) @ pixel) / total], 1)


def test_shifts_go_two_pixels_in_every_direction():
    spot = torch.zeros(1, 3, 32, 32)
    spot[:, :, 14:18, 14:18] = 1
    torch.manual_seed(0)
    moved = centre(augment(spot.expand(500, -1, -1, -1), ("shift",))) - 15.5
    assert moved.abs().max() <= 2.01
    assert (moved.amax(0) > 1.8).all() and (moved.amin(0) < -1.8).all()
    assert moved.mean(0).abs().max() < 0.2


def test_erased_squares_are_grey_and_eight_wide():
    torch.manual_seed(0)
    holes = augment(torch.zeros(400, 3, 32, 32), ("erase",))
    assert set(holes.unique().tolist()) == {0.0, 0.5}
    assert torch.equal(holes[:, 0], holes[:, 1]) and torch.equal(holes[:, 0], holes[:, 2])
    grey = (holes[:, 0] > 0).sum((1, 2))
    assert grey.max() == 64 and (grey == 64).float().mean() > 0.4
    assert (holes[:, 0] > 0).any(0).all()  # anywhere


# Schedule


@settings(max_examples=50)
@given(st.integers(5, 2000), st.floats(0.001, 1))
def test_the_schedule_rises_a_fifth_then_falls(steps, peak):
    config = tiny_run(learning_rate=peak)
    rates = [learning_rate(config, step, steps) for step in range(steps + 1)]
    top = max(1, round(0.2 * steps))
    assert rates[0] == pytest.approx(peak / 10)
    assert rates[top] == pytest.approx(peak) == max(rates)
    assert rates[-1] == pytest.approx(peak / 1000)
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    middle = (top + steps) / 2
    if middle.is_integer():  # half-way down the cosine
        assert rates[int(middle)] == pytest.approx(peak * (1 + 0.001) / 2)


def test_the_optimiser_gets_the_scheduled_rate(samples):
    running = start(samples, epochs=2, learning_rate=0.1)
    used, step = [], running.optimizer.step

    def noted():
        used.append({group["lr"] for group in running.optimizer.param_groups})
        return step()

    running.optimizer.step = noted
    running.run_epoch()
    running.run_epoch()
    assert used == [{learning_rate(running.config, i, 6)} for i in range(6)]


# Reproducibility


def test_the_same_run_twice_is_the_same_bit_for_bit(samples):
    changes = {"augmentation": KINDS, "dropout": 0.2}
    results = []
    for _ in range(2):
        running = start(samples, **changes)
        results.append(([running.run_epoch() for _ in range(2)], frozen(running)))
    assert results[0] == results[1]


def test_another_seed_gives_other_weights(samples):
    weights = []
    for seed in (1, 2):
        running = start(samples, seed=seed)
        running.run_epoch()
        weights.append(frozen(running))
    assert all(
        weights[0][name] != weights[1][name] for name in weights[0] if name.endswith("0.weight")
    )


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 2])
def test_a_restored_training_goes_on_bit_for_bit(samples, tmp_path, optimizer, stop):
    """Through a file, as after an interruption."""
    changes = {
        "optimizer": optimizer, "learning_rate": 0.01, "augmentation": KINDS, "dropout": 0.2,
    }  # fmt: skip
    whole = start(samples, **changes)
    expected = [whole.run_epoch() for _ in range(3)]
    end = frozen(whole)

    running = start(samples, **changes)
    rows = [running.run_epoch() for _ in range(stop)]
    checkpoints.write_tensors(tmp_path / "state", running.state(), {})
    torch.manual_seed(999)
    torch.rand(17)
    resumed = start(samples, **changes)
    torch.rand(5)
    resumed.restore(checkpoints.read_tensors(tmp_path / "state")[0])
    assert resumed.epoch == stop
    rows += [resumed.run_epoch() for _ in range(3 - stop)]
    assert rows == expected
    assert frozen(resumed) == end


def test_held_out_splits_do_not_change_the_training(samples):
    """What is evaluated leaves no trace in what is learned."""
    ends = []
    for held_out in ({}, {"validation": samples[1]}, {"a": samples[0], "b": samples[1]}):
        config = tiny_run(class_counts=None, augmentation=KINDS)
        running = Training(config, samples[0], held_out, CPU)
        result = running.run_epoch()
        assert list(result) == ["train", *held_out]
        running.run_epoch()
        ends.append(frozen(running))
    assert ends[0] == ends[1] == ends[2]


def test_a_run_learns(samples):
    running = start(samples, epochs=8, learning_rate=0.05, label_smoothing=0.0, augmentation=())
    rows = [running.run_epoch() for _ in range(8)]
    assert rows[-1]["train"].loss < 0.5 * rows[0]["train"].loss
    assert rows[-1]["validation"].accuracy > 0.6


# Options


def test_input_statistics_are_those_of_the_training_images(samples):
    running = start(samples)
    pixels = (samples[0].images.double() / 255).transpose(0, 1).flatten(1)
    mean, std = running.model.mean.flatten().tolist(), running.model.std.flatten().tolist()
    assert mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-5)
    assert std == pytest.approx(pixels.std(1).tolist(), abs=1e-5)


@pytest.fixture
def unequal(samples):
    """Class 0 four times as often as class 1; no other class."""
    labels = torch.tensor(([0] * 4 + [1]) * 8)
    images = samples[0].images[labels]
    return [Split(images, labels, np.arange(40)), samples[1]]


def test_class_weights_weight_the_loss_by_inverse_frequency(unequal):
    weighted, plain = start(unequal, class_weights=True), start(unequal)
    weight = weighted.criterion.weight
    assert plain.criterion.weight is None
    assert weight[1] / weight[0] == pytest.approx(4) and not weight[2:].any()
    assert weight[:2].mean() == pytest.approx(1)
    assert frozen(weighted) == frozen(plain)  # same start
    weighted.run_epoch()
    plain = start(unequal)
    plain.run_epoch()
    assert frozen(weighted)["model.output.weight"] != frozen(plain)["model.output.weight"]


def test_oversampling_draws_every_class_equally_often(unequal):
    running = start(unequal, oversample=True)
    drawn = torch.cat([unequal[0].labels[running._order()] for _ in range(100)])
    assert len(drawn) == 4000
    assert 0.47 < drawn.float().mean() < 0.53
    plain = start(unequal)
    for _ in range(3):  # without it, every image once an epoch
        assert sorted(plain._order().tolist()) == list(range(40))


def test_label_smoothing_and_weight_decay_reach_their_places(samples):
    running = start(samples, label_smoothing=0.25, weight_decay=0.03)
    assert running.criterion.label_smoothing == 0.25
    matrices, vectors = running.optimizer.param_groups
    assert matrices["weight_decay"] == 0.03 and vectors["weight_decay"] == 0
    assert all(p.ndim > 1 for p in matrices["params"])
    assert all(p.ndim == 1 for p in vectors["params"])
    count = len(matrices["params"]) + len(vectors["params"])
    assert count == len(list(running.model.parameters()))


def test_the_reported_loss_is_the_plain_cross_entropy(samples):
    """Smoothing and class weights change what is learned, not how it is measured."""
    losses = set()
    for changes in ({}, {"label_smoothing": 0.5}, {"class_weights": True}):
        running = start(samples, batch_size=48, augmentation=(), **changes)
        losses.add(running.run_epoch()["train"].loss)
    assert len(losses) == 1  # one batch: measured before the only step


@pytest.mark.parametrize("decay", [0.5, 0.998])
def test_kept_weights_are_the_moving_average(samples, decay):
    running = start(samples, average=decay)
    seen, step = [], running.optimizer.step

    def noted():
        result = step()
        seen.append(running.model.output.weight.detach().double().clone())
        return result

    running.optimizer.step = noted
    for _ in range(3):
        running.run_epoch()
    average = seen[0]
    for count, weights in enumerate(seen[1:], start=1):
        keep = min(decay, (1 + count) / (10 + count))
        average = keep * average + (1 - keep) * weights
    kept = running.averaged.module.output.weight
    torch.testing.assert_close(kept.double(), average, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(kept, running.model.output.weight)
    assert running.averaged.module.convolutions[0][1].num_batches_tracked == len(seen) == 9


def test_a_restricted_run_sees_its_classes_only(sandbox):
    config = tiny_run(class_counts=((3, 12), (8, None)))
    learned = training.training_split(config)
    counts = np.bincount(learned.labels.numpy(), minlength=10)
    everything = np.bincount(data.load("mnist", "train").labels.numpy(), minlength=10)
    assert counts[3] == 12 and counts[8] == everything[8] and counts.sum() == 12 + everything[8]
    held_out = training.evaluation_split(config, "validation")
    assert set(held_out.labels.tolist()) == {3, 8}
    everything = np.bincount(data.load("mnist", "validation").labels.numpy(), minlength=10)
    assert len(held_out) == everything[3] + everything[8]


def test_a_subset_run_is_evaluated_on_everything(sandbox):
    config = tiny_run(class_counts=None, train_size=100)
    assert len(training.training_split(config)) == 100
    assert len(training.evaluation_split(config, "validation")) == len(
        data.load("mnist", "validation")
    )
    config = tiny_run(class_counts=None)
    assert len(training.training_split(config)) == len(data.load("mnist", "train"))


def test_small_sets_and_the_last_incomplete_batch(samples):
    running = start(samples, batch_size=20)  # 48 images: two batches, 8 images wait an epoch
    assert running.steps_per_epoch == 2
    running = start(samples, batch_size=1000)
    assert running.batch == 48 and running.steps_per_epoch == 1
    assert math.isfinite(running.run_epoch()["train"].loss)


def test_a_state_of_another_network_is_refused(samples):
    state = start(samples).state()
    with pytest.raises(RuntimeError):
        start(samples, width=0.5).restore(state)
    del state["generator.cpu"]
    with pytest.raises(KeyError):
        start(samples).restore(state)
