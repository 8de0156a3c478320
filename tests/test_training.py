"""Training: metrics, augmentation, schedules, reproducibility, continuation bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
import torch
from crashes import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from digitcnn import checkpoints, data, division, runs, training
from digitcnn.augmentation import AUGMENTATIONS, augment
from digitcnn.sources import Source
from digitcnn.training import (
    SCHEDULES,
    Training,
    learn,
    metrics_from_confusion,
    stage,
)

CPU = torch.device("cpu")
KINDS = tuple(AUGMENTATIONS)


def pictures(labels: np.ndarray) -> Source:
    """A pool of random images that can be told apart."""
    count = len(labels)
    images = np.random.default_rng(0).integers(0, 120, (count, 3, 32, 32), np.uint8)
    images[np.arange(count), :, 3 * labels] += 130
    return Source(images, labels, np.arange(count) >= 100, "made for a test", {})


@pytest.fixture(scope="module")
def source():
    """150 images: of the pooled division 105 to learn, 15 and 30 to judge."""
    return pictures(np.arange(150) % 10)


def tiny(**changes) -> runs.RunConfig:
    """A run on 48 images of every class, three batches an epoch."""
    return tiny_run(**{"class_counts": None, "train_size": 48, "epochs": 3} | changes)


def begun(source: Source, **changes) -> Training:
    """A training before its first epoch, its generators seeded."""
    config = tiny(**changes)
    torch.manual_seed(config.seed)
    return Training(config, source, CPU)


def frozen(running: Training) -> dict[str, bytes]:
    state = checkpoints.state_of(running)
    return {name: value.detach().numpy().tobytes() for name, value in state.items()}


class Stop(Exception):
    """Ends a training from outside."""


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


@settings(deadline=None, max_examples=60)
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
    found = vars(metrics_from_confusion(torch.from_numpy(confusion), 7.0, 3))
    for name, value in expected_metrics(confusion).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert found["loss"] == pytest.approx(7.0 / confusion.sum()) and found["epoch"] == 3


def test_metrics_of_extreme_predictions():
    perfect = metrics_from_confusion(torch.eye(10).long() * 3, 0.0)
    assert dataclasses.astuple(perfect) == (0, 0, 1, 1, 1)
    one_class = torch.zeros(10, 10).long()
    one_class[:, 0] = 1
    found = metrics_from_confusion(one_class, 10.0)
    assert dataclasses.astuple(found) == pytest.approx((0, 1, 0.1, 0.01, 0.1))


def test_evaluation_gives_the_models_own_metrics(source):
    running = begun(source)
    running.run_epoch()
    images, labels = running.held_out["validation"]
    found = training.evaluate(running.averaged.module, images, labels)
    logits = training.predict_logits(running.averaged.module, images)
    assert logits.shape == (15, 10) and logits.dtype == torch.float32
    probabilities = logits.double().softmax(1).numpy()
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, logits.argmax(1)))
    assert found.loss == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-5)
    row = running.rows["validation"][-1]
    assert dataclasses.replace(row, epoch=0) == found and row.epoch == 1


def test_large_sets_are_evaluated_in_batches(source, monkeypatch):
    running = begun(source)
    running.run_epoch()
    seen = []
    running.model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    whole = training.predict_logits(running.model, running.images)
    monkeypatch.setattr(training, "EVALUATION_BATCH", 20)
    torch.testing.assert_close(training.predict_logits(running.model, running.images), whole)
    assert seen == [48, 20, 20, 8]


# Augmentation


@pytest.fixture(scope="module")
def digits():
    """Real handwritten digits in colour in [0, 1], (200, 3, 32, 32)."""
    from digitcnn import toy

    return training.to_unit(torch.from_numpy(toy.read_svhn()[0][:200]))


@pytest.fixture(scope="module")
def ink():
    """Real handwritten digits, white on black, (200, 3, 32, 32)."""
    from digitcnn import toy

    return training.to_unit(torch.from_numpy(toy.read_mnist()[0][:200]))


def test_to_unit_keeps_pixels():
    images = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 3, 32, 32)
    unit = training.to_unit(images)
    assert unit.dtype == torch.float32 and (unit * 255).round().to(torch.uint8).equal(images)
    assert unit.is_contiguous(memory_format=torch.channels_last)


def test_no_augmentation_leaves_images_as_they_are(digits):
    assert torch.equal(augment(digits, ()), digits)


@pytest.mark.parametrize("kinds", [(kind,) for kind in KINDS] + [KINDS])
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
    changed = ((first - digits).abs().amax((1, 2, 3)) > 1e-3).float().mean()
    copies = augment(digits[:1].expand(50, -1, -1, -1), kinds)
    different = len({copy.numpy().tobytes() for copy in copies})
    if kinds == ("polarity",):
        assert 0.35 < changed < 0.65 and different == 2
    else:  # every image draws its own parameters
        assert changed > 0.95 and different >= 40


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_draws_for_itself(digits, kind):
    """Which other images are in the batch decides the numbers, not how they are used."""
    torch.manual_seed(3)
    together = augment(digits[:8], (kind,))
    torch.manual_seed(3)
    others = augment(torch.cat([digits[:4], digits[100:104]]), (kind,))
    torch.testing.assert_close(together[:4], others[:4])


@pytest.mark.parametrize("kinds", [(kind,) for kind in KINDS if kind != "ground"])
def test_images_are_never_flipped(kinds):
    """What lies in the upper left stays there: a flip would move it across the middle."""
    image = torch.zeros(3, 32, 32)
    image[:, 3:15, 3:15] = 1
    torch.manual_seed(0)
    found = augment(image.expand(300, -1, -1, -1), kinds)
    background = found.flatten(2).median(2).values[:, :, None, None]
    spread = (found - background).abs()
    where = centre(spread * (spread > spread.amax((1, 2, 3), keepdim=True) * 0.5))
    assert (where < 15.5).all()
    assert (centre(image.flip(2)[None])[0] > 15.5).tolist() == [False, True]


def centre(images: torch.Tensor) -> torch.Tensor:
    """Centres of mass (rows, columns) of images (N, 3, 32, 32)."""
    grey = images.mean(1)
    pixel = torch.arange(32.0)
    total = grey.sum((1, 2))
    return torch.stack([(grey.sum(2) @ pixel) / total, (grey.sum(1) @ pixel) / total], 1)


@pytest.mark.parametrize("kind", ["shift", "affine"])
def test_shifts_go_two_pixels_in_every_direction(kind):
    spot = torch.zeros(1, 3, 32, 32)
    spot[:, :, 14:18, 14:18] = 1
    torch.manual_seed(0)
    moved = centre(augment(spot.expand(500, -1, -1, -1), (kind,))) - 15.5
    assert moved.abs().max() <= (2.01 if kind == "shift" else 3.3)
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


def test_colour_changes_contrast_brightness_and_half_of_the_polarities(digits):
    torch.manual_seed(0)
    flat = torch.full((1000, 3, 32, 32), 0.9)
    found = augment(flat, ("colour",))[:, :, 0, 0]
    inverted = found.mean(1) < 0.5
    assert 0.45 < inverted.float().mean() < 0.55
    upright = torch.where(inverted[:, None], 1 - found, found)
    assert 0.80 < upright.min() < 0.82 and 0.98 < upright.max() < 1.0  # each channel up to 9 %
    assert (upright[:, 0] - upright[:, 1]).abs().max() > 0.1
    spread = augment(digits, ("colour",)).std((2, 3)) / digits.std((2, 3))
    assert 0.69 < spread.min() < 0.75 and 1.25 < spread.max() < 1.31


def test_polarity_inverts_half_of_the_images_and_changes_nothing_else(ink):
    torch.manual_seed(0)
    found = augment(ink, ("polarity",))
    inverted = (found - (1 - ink)).abs().amax((1, 2, 3)) < 1e-6
    same = (found - ink).abs().amax((1, 2, 3)) == 0
    assert (inverted ^ same).all() and 0.35 < inverted.float().mean() < 0.65


def test_contrast_squeezes_the_range_and_moves_it(ink):
    torch.manual_seed(0)
    found = augment(ink.repeat(5, 1, 1, 1), ("contrast",))
    whole = ink.repeat(5, 1, 1, 1)
    low, high = found.amin((1, 2, 3)), found.amax((1, 2, 3))
    share = (high - low) / (whole.amax((1, 2, 3)) - whole.amin((1, 2, 3)))
    assert 0.15 <= share.min() < 0.17 and 0.97 < share.max() <= 1.0001
    assert low.min() < 0.01 and low.max() > 0.7 and high.max() <= 1.0001
    torch.testing.assert_close(found, low[:, None, None, None] + share[:, None, None, None] * whole)


def test_ground_lies_behind_the_ink(ink):
    torch.manual_seed(0)
    found = augment(ink, ("ground",))
    assert torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 0], found[:, 2])
    assert (found >= ink - 1e-6).all() and (found[ink == 1] == 1).all() and (ink == 1).any()
    behind = found[ink == 0]
    assert behind.max() <= 0.5 and behind.max() > 0.4 and 0.2 < behind.mean() < 0.3
    steps = (found - ink)[:, 0, :6, :6].diff(dim=2).abs().max()
    assert 0 < steps < 0.15  # it varies smoothly


def test_colours_keep_the_mean_over_the_channels():
    torch.manual_seed(0)
    grey = torch.full((500, 3, 32, 32), 0.5)
    found = augment(grey, ("colours",))
    torch.testing.assert_close(found.mean(1), grey.mean(1), rtol=0, atol=1e-5)
    assert (found.amax((2, 3)) == found.amin((2, 3))).all()
    moved = (found - grey)[:, :, 0, 0]
    assert 0.3 < moved.abs().max() < 0.54 and moved.std(0).min() > 0.05
    both = torch.zeros(500, 3, 32, 32)
    both[..., 16:] = 1
    found = augment(both, ("colours",))
    correlation = np.corrcoef(found[:, 0, 0, 0], found[:, 0, 0, 31])[0, 1]
    assert abs(correlation) < 0.2  # ink and ground have colours of their own


# Schedules


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 2000))
def test_one_cycle_rises_a_fifth_then_falls(steps):
    rates = [SCHEDULES["one-cycle"](step, steps) for step in range(steps + 1)]
    top = max(1, round(0.2 * steps))
    assert rates[0] == pytest.approx(1 / 10)
    assert rates[top] == pytest.approx(1) == max(rates)
    assert rates[-1] == pytest.approx(1 / 1000)
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    middle = (top + steps) / 2
    if middle.is_integer():  # half-way down the cosine
        assert rates[int(middle)] == pytest.approx((1 + 0.001) / 2)


def test_the_other_schedules():
    cosine = [SCHEDULES["cosine"](step, 100) for step in range(101)]
    assert cosine[0] == 1 and cosine[100] == pytest.approx(0.001)
    assert cosine[50] == pytest.approx(0.5005) and (np.diff(cosine) < 0).all()
    assert {SCHEDULES["constant"](step, 100) for step in range(100)} == {1}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("changes", [{"epochs": 2}, {"epochs": 3, "steps": 7}])
def test_the_optimiser_gets_the_scheduled_rate(source, schedule, changes):
    running = begun(source, learning_rate=0.1, schedule=schedule, **changes)
    used, step = [], running.optimizer.step

    def noted():
        used.append({group["lr"] for group in running.optimizer.param_groups})
        return step()

    running.optimizer.step = noted
    while not running.finished:
        running.run_epoch()
    count = changes.get("steps", 6)
    assert used == [{0.1 * SCHEDULES[schedule](i, count)} for i in range(count)]


# Reproducibility


def test_the_same_run_twice_is_the_same_bit_for_bit(source):
    config = tiny(augmentation=KINDS, dropout=0.2)
    torch.manual_seed(1)
    first = learn(config, source, CPU)
    torch.manual_seed(2)
    second = learn(config, source, CPU)
    assert first.rows == second.rows and frozen_weights(first) == frozen_weights(second)
    assert list(first.rows) == ["train", "validation"]
    assert [row.epoch for row in first.rows["train"]] == [1, 2, 3]


def frozen_weights(running: Training) -> dict[str, bytes]:
    state = running.averaged.module.state_dict() | {
        f"model.{k}": v for k, v in running.model.state_dict().items()
    }
    return {name: value.numpy().tobytes() for name, value in state.items()}


def test_another_seed_gives_other_weights(source):
    weights = [frozen_weights(learn(tiny(seed=seed, epochs=1), source, CPU)) for seed in (1, 2)]
    assert all(
        weights[0][name] != weights[1][name] for name in weights[0] if name.endswith("0.weight")
    )


def global_state() -> tuple:
    return (
        torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), random.getstate(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32,
        torch.is_grad_enabled(), torch.get_num_threads(), torch.is_autocast_enabled("cpu"),
    )  # fmt: skip


@pytest.mark.parametrize("ending", ["whole", "stopped"])
def test_learning_changes_nothing_global(source, ending):
    def stop(running):
        if ending == "stopped":
            raise Stop

    during = []
    torch.manual_seed(7)
    before = global_state()
    try:
        learn(tiny(epochs=1), source, CPU, lambda running: during.append(global_state()), stop)
    except Stop:
        assert ending == "stopped"
    assert global_state() == before
    assert during[0][3] and not during[0][5] and before[0] != during[0][0]
    begun(source)  # constructing draws random numbers, which is all
    assert global_state()[1:] == before[1:]


CASES = {
    "epochs": {},
    "all augmentations": {"augmentation": KINDS},
    "oversampled": {"oversample": True},
    "steps": {"steps": 11, "batch_size": 20},  # 20 of 48 images a step: permutations straddle
    "steps oversampled": {"steps": 11, "batch_size": 20, "oversample": True},
    "resolutions": {"resolutions": ((16, 0.5), (32, 0.5))},
    "seldom evaluated": {"evaluate_every_epoch": False},
    **{f"optimiser {name}": {"optimizer": name, "learning_rate": 0.01}
       for name in training.OPTIMIZERS},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_restored_training_goes_on_bit_for_bit(source, tmp_path, case):
    """Through a file, as after an interruption, whichever epoch it was in."""
    config = tiny(dropout=0.2, **CASES[case])

    def save(running):
        about = {"kind": "checkpoint"}
        path = tmp_path / f"epoch {running.epoch}"
        checkpoints.write_tensors(path, checkpoints.state_of(running), about)

    ends: list[Training] = [learn(config, source, CPU, after_epoch=save)]
    images = ends[0].held_out["validation"][0]
    for stop in (1, 2, 3):
        state, _ = checkpoints.read_tensors(tmp_path / f"epoch {stop}")
        torch.manual_seed(999)
        done: list[int] = []

        def resume(running, state=state):
            torch.rand(17)
            checkpoints.restore(running, state)

        def note(running, done=done):
            done.append(running.epoch)

        resumed = learn(config, source, CPU, resume, note)
        assert done == list(range(stop + 1, 4))
        assert resumed.rows == ends[0].rows
        ours, expected = (checkpoints.state_of(running) for running in (resumed, ends[0]))
        assert ours.keys() == expected.keys()
        for name in expected.keys() - {"generator.cpu"}:
            assert torch.equal(ours[name], expected[name]), name
        answers = [training.predict_logits(running.averaged.module, images)
                   for running in (resumed, ends[0])]  # fmt: skip
        assert torch.equal(*answers)


def test_held_out_splits_do_not_change_the_training(source):
    """What is evaluated leaves no trace in what is learned."""
    ends = []
    for held_out in ((), ("validation",), ("validation", "test")):
        for every in (True, False):
            config = tiny(augmentation=KINDS, held_out=held_out, evaluate_every_epoch=every)
            running = learn(config, source, CPU)
            assert list(running.rows) == ["train", *held_out]
            assert {len(running.rows[name]) for name in held_out} <= {3 if every else 1}
            ends.append(frozen_weights(running))
    assert all(end == ends[0] for end in ends)


def test_a_run_learns(source):
    running = learn(
        tiny(epochs=8, learning_rate=0.05, label_smoothing=0.0, augmentation=()), source, CPU
    )
    rows = running.rows
    assert rows["train"][-1].loss < 0.5 * rows["train"][0].loss
    assert rows["validation"][-1].accuracy > 0.6


# Which images, in which order


def noted_order(running: Training) -> list[torch.Tensor]:
    """The positions of the images of each epoch, as they are drawn."""
    drawn, real = [], running._next_samples
    running._next_samples = lambda count: drawn.append(real(count)) or drawn[-1]
    while not running.finished:
        running.run_epoch()
    return drawn


def test_an_epoch_is_the_start_of_a_permutation(source):
    for batch, used in ((16, 48), (20, 40)):  # of the last, incomplete batch nothing is learned
        drawn = noted_order(begun(source, batch_size=batch))
        assert [len(order) for order in drawn] == [used] * 3
        assert all(len(set(order.tolist())) == used for order in drawn)
        assert len({tuple(order.tolist()) for order in drawn}) == 3


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_steps_use_permutations_laid_end_to_end(source, epochs):
    """Each image once in each permutation, whatever the epochs; each epoch a share of the steps."""
    drawn = noted_order(begun(source, steps=11, batch_size=20, epochs=epochs))
    shares = [11 * (epoch + 1) // epochs - 11 * epoch // epochs for epoch in range(epochs)]
    assert [len(order) for order in drawn] == [20 * share for share in shares]
    whole = torch.cat(drawn).tolist()
    assert len(whole) == 220
    blocks = [whole[at : at + 48] for at in range(0, len(whole), 48)]
    assert all(sorted(block) == list(range(48)) for block in blocks[:-1])
    assert len(set(blocks[-1])) == len(blocks[-1]) == 220 - 4 * 48
    assert len(set(map(tuple, blocks))) == 5


def test_steps_make_the_same_batches_however_they_are_counted(source):
    ends = [learn(tiny(steps=12, epochs=epochs, augmentation=()), source, CPU) for epochs in (2, 4)]
    assert frozen_weights(ends[0]) == frozen_weights(ends[1])
    assert ends[0].steps == 12 and len(ends[1].rows["train"]) == 4


def test_small_sets_and_the_last_incomplete_batch(source):
    running = begun(source, batch_size=20)
    assert running.steps == 3 * 2
    running = begun(source, batch_size=1000)
    assert running.batch == 48 and running.steps == 3
    running.run_epoch()
    assert math.isfinite(running.rows["train"][0].loss)


@pytest.fixture(scope="module")
def unequal():
    """Class 0 four times as often as class 1; no other class."""
    return pictures(np.array(([0] * 4 + [1]) * 30))


def test_class_weights_weight_the_loss_by_inverse_frequency(unequal):
    changes = {"train_size": None, "epochs": 1}
    weighted, plain = begun(unequal, class_weights=True, **changes), begun(unequal, **changes)
    weight = weighted.criterion.weight
    assert plain.criterion.weight is None
    assert weight[1] / weight[0] == pytest.approx(4) and not weight[2:].any()
    assert weight[:2].mean() == pytest.approx(1)
    assert frozen(weighted) == frozen(plain)  # same start
    weighted = learn(weighted.config, unequal, CPU)
    plain = learn(plain.config, unequal, CPU)
    assert frozen(weighted)["model.output.weight"] != frozen(plain)["model.output.weight"]


def test_oversampling_draws_every_class_equally_often(unequal):
    running = begun(unequal, oversample=True, train_size=None)
    drawn = torch.cat([running.labels[running._permutation()] for _ in range(100)])
    assert len(drawn) == 100 * len(running.labels) == 10_500
    assert 0.47 < drawn.float().mean() < 0.53
    plain = begun(unequal, train_size=None)
    for _ in range(3):  # without it, every image once an epoch
        assert sorted(plain._permutation().tolist()) == list(range(105))


# Resolutions


def test_stages_are_shares_of_the_steps():
    stages = ((16, 0.25), (24, 0.375), (32, 0.375))
    sizes = [stage(stages, step / 80) for step in range(80)]
    assert sizes == [16] * 20 + [24] * 30 + [32] * 30
    assert [stage(((32, 1.0),), step / 7) for step in range(7)] == [32] * 7
    thirds = ((16, 1 / 3), (24, 1 / 3), (32, 1 / 3))
    assert stage(thirds, 1 - 1e-17) == 32 and stage(thirds, 1.0) == 32


def test_each_stage_is_trained_and_judged_at_its_resolution(source):
    """The last at 32 pixels; what is computed of a finished network, too."""
    running = begun(source, resolutions=((16, 0.4), (24, 0.3), (32, 0.3)), epochs=5, steps=10)
    trained, judged = [], []
    running.model.register_forward_pre_hook(lambda _, x: trained.append(x[0].shape[-1]))
    running.averaged.module.register_forward_pre_hook(lambda _, x: judged.append(x[0].shape[-1]))
    while not running.finished:
        running.run_epoch()
    assert trained == [16] * 4 + [24] * 3 + [32] * 3
    assert judged == [16, 16, 24, 32, 32]  # as the last step of each epoch
    training.predict_logits(running.averaged.module, running.images[:3])
    assert judged[-1] == 32


def test_the_last_stage_has_to_be_whole():
    from digitcnn.files import DigitcnnError

    for resolutions in (((32, 0.5), (16, 0.5)), ((16, 0.5), (32, 0.4)), ((16, 1.0),)):
        with pytest.raises(DigitcnnError, match="32 pixels"):
            tiny(resolutions=resolutions)


def test_reduced_images_keep_their_mean_and_whole_ones_everything(digits):
    assert training.resized(digits, 32) is digits
    for size in (16, 24):
        small = training.resized(digits, size)
        assert small.shape == (200, 3, size, size)
        assert small.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(small.mean((2, 3)), digits.mean((2, 3)), rtol=0, atol=0.02)
        assert small.min() >= 0 and small.max() <= 1.0001


# Options


def test_input_statistics_are_those_of_the_training_images(source):
    running = begun(source)
    chosen = source.images[running.indices].astype(float) / 255
    pixels = chosen.transpose(1, 0, 2, 3).reshape(3, -1)
    mean, std = running.model.mean.flatten().tolist(), running.model.std.flatten().tolist()
    assert mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-5)
    assert std == pytest.approx(pixels.std(1).tolist(), abs=1e-5)
    assert (running.labels.numpy() == source.labels[running.indices]).all()


def test_label_smoothing_and_weight_decay_reach_their_places(source):
    running = begun(source, label_smoothing=0.25, weight_decay=0.03)
    assert running.criterion.label_smoothing == 0.25
    matrices, vectors = running.optimizer.param_groups
    assert matrices["weight_decay"] == 0.03 and vectors["weight_decay"] == 0
    assert all(p.ndim > 1 for p in matrices["params"])
    assert all(p.ndim == 1 for p in vectors["params"])
    count = len(matrices["params"]) + len(vectors["params"])
    assert count == len(list(running.model.parameters()))


def test_the_optimisers_are_what_they_are_called():
    made = {name: make([torch.nn.Parameter(torch.zeros(1))])
            for name, make in training.OPTIMIZERS.items()}  # fmt: skip
    assert [type(made[name]).__name__ for name in ("sgd", "adam", "rmsprop")] == [
        "SGD", "Adam", "RMSprop"
    ]  # fmt: skip
    assert made["sgd"].defaults["momentum"] == 0.9 and made["sgd"].defaults["nesterov"]


def test_the_reported_loss_is_the_plain_cross_entropy(source):
    """Smoothing and class weights change what is learned, not how it is measured."""
    losses = set()
    for changes in ({}, {"label_smoothing": 0.5}, {"class_weights": True}):
        running = begun(source, batch_size=48, augmentation=(), **changes)
        running.run_epoch()
        losses.add(running.rows["train"][0].loss)
    assert len(losses) == 1  # one batch: measured before the only step


@pytest.mark.parametrize("decay", [0.5, 0.998])
def test_kept_weights_are_the_moving_average(source, decay):
    running = begun(source, ema_decay=decay, epochs=4)
    seen, step = [], running.optimizer.step

    def noted():
        result = step()
        seen.append(running.model.output.weight.detach().double().clone())
        return result

    running.optimizer.step = noted
    for _ in range(3):  # the fourth would round them
        running.run_epoch()
    average = seen[0]
    for count, weights in enumerate(seen[1:], start=1):
        keep = min(decay, (1 + count) / (10 + count))
        average = keep * average + (1 - keep) * weights
    kept = running.averaged.module.output.weight
    torch.testing.assert_close(kept.double(), average, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(kept, running.model.output.weight)
    assert running.averaged.module.convolutions[0][1].num_batches_tracked == len(seen) == 9


def test_without_an_average_the_plain_weights_are_kept(source):
    running = begun(source, ema_decay=0.0)
    running.run_epoch()
    plain = running.model.state_dict()
    for name, value in running.averaged.module.state_dict().items():
        assert torch.equal(value, plain[name]), name


def test_weights_are_rounded_before_they_are_judged(source):
    """As they are kept, so that the file gives the printed figure."""
    running = learn(tiny(), source, CPU)
    network = running.averaged.module
    for name, value in network.named_parameters():
        assert torch.equal(value, value.half().float()) == (value.ndim > 1), name
    plain = [value for value in running.model.parameters() if value.ndim > 1]
    assert any(not torch.equal(value, value.half().float()) for value in plain)
    again = training.evaluate(network, *running.held_out["validation"], epoch=3)
    assert running.rows["validation"][-1] == again


# Arithmetic


class Watch:
    """Notes what a convolution gives, and under which settings."""

    def __init__(self, model: torch.nn.Module):
        self.seen: list[tuple] = []
        model.convolutions[0][0].register_forward_hook(self.note)

    def note(self, module, inputs, output) -> None:
        tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        self.seen.append((output.dtype, *tf32, torch.is_grad_enabled()))


@pytest.mark.parametrize("native", [True, False])
def test_training_may_be_bfloat16_evaluation_never(source, monkeypatch, native):
    monkeypatch.setattr(training, "native_bfloat16", lambda device: native)
    running = begun(source)
    trained, judged = Watch(running.model), Watch(running.averaged.module)
    running.run_epoch()
    assert {kind for kind, *_ in trained.seen} == {torch.bfloat16 if native else torch.float32}
    assert [kind for kind, *_ in judged.seen] == [torch.float32]


@pytest.mark.parametrize("allowed", itertools.product([True, False], repeat=2))
def test_evaluation_is_float32_and_leaves_the_settings(source, monkeypatch, allowed):
    running = begun(source)
    matrix, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrix.allow_tf32, convolution.allow_tf32
    try:
        matrix.allow_tf32, convolution.allow_tf32 = allowed
        watch = Watch(running.model)
        training.predict_logits(running.model, running.images)
        assert watch.seen == [(torch.float32, False, False, False)]
        assert (matrix.allow_tf32, convolution.allow_tf32) == allowed
        with pytest.raises(Stop), training.float32():
            raise Stop
        assert (matrix.allow_tf32, convolution.allow_tf32) == allowed and torch.is_grad_enabled()
    finally:
        matrix.allow_tf32, convolution.allow_tf32 = before


def test_bfloat16_is_used_where_it_is_native(monkeypatch):
    """A T4 (7.5) emulates it, and says that it is supported."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    for capability, native in {(7, 0): False, (7, 5): False, (8, 0): True, (9, 0): True}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_, c=capability: c)
        assert training.native_bfloat16(cuda) is native
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert training.native_bfloat16(CPU) is native
        with training.autocast(CPU):
            assert torch.is_autocast_enabled("cpu") is native
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            assert product.dtype == (torch.bfloat16 if native else torch.float32)
    assert not training.native_bfloat16(torch.device("mps"))


def test_the_device_is_the_fastest_there_is(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert training.pick_device().type == expected


# Divergence


def test_a_run_that_diverges_ends(source):
    done = []
    running = learn(
        tiny(learning_rate=float("inf"), epochs=5), source, CPU,
        after_epoch=lambda running: done.append(running.epoch),
    )  # fmt: skip
    assert running.diverged and running.finished and len(done) == running.epoch < 5
    assert not math.isfinite(running.rows["train"][-1].loss)
    assert len(running.rows["train"]) == running.epoch
    assert len(running.rows["validation"]) == running.epoch


# Whole data sets of the quick profile


def test_a_restricted_run_sees_its_classes_only(sandbox):
    config = tiny_run(class_counts=((3, 12), (8, None)))
    learned = Training(config, division.pool("mnist"), CPU)
    counts = np.bincount(learned.labels.numpy(), minlength=10)
    everything = np.bincount(data.load("mnist", "train").labels.numpy(), minlength=10)
    assert counts[3] == 12 and counts[8] == everything[8] and counts.sum() == 12 + everything[8]
    labels = learned.held_out["validation"][1]
    assert set(labels.tolist()) == {3, 8}
    everything = np.bincount(data.load("mnist", "validation").labels.numpy(), minlength=10)
    assert len(labels) == everything[3] + everything[8]


def test_a_state_of_another_network_is_refused(source):
    state = checkpoints.state_of(begun(source))
    with pytest.raises(RuntimeError):
        checkpoints.restore(begun(source, width=0.5), state)
    del state["generator.cpu"]
    with pytest.raises(KeyError):
        checkpoints.restore(begun(source), state)
