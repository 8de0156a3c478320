"""Question (e): the runs, what is measured of them, thresholds, changes by seed, and features."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from finished import finish
from sklearn import metrics

from digitcnn import checkpoints, data, division, files, inference, results, runs
from digitcnn.predictions import Answers
from digitcnn.report import imbalance, imbalance_features


def scores(margin, predicted, labels) -> Answers:
    return Answers(np.array(predicted), np.array(labels), np.array(margin, "f4"))


def test_the_registry_has_each_case_with_its_seeds(monkeypatch):
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)
    for name in runs.MAIN:
        for case, seeds in {"case1": 5, "case2": 5, "case3": 3, "balanced": 4, "few": 4}.items():
            assert len(imbalance.group(name, case)) == seeds
        first = imbalance.group(name, "case1")[0]
        assert first.class_counts == ((1, 50), (2, 1000)) and first.epochs == 50
        assert imbalance.group(name, "case3")[0].class_counts == ((1, None), (2, None))


def test_each_change_is_between_two_that_differ_in_one_thing():
    def differing(name: str, before: str, after: str) -> set[str]:
        one, two = (vars(runs.imbalanced(name, case, 43)) for case in (before, after))
        return {key for key, value in one.items() if value != two[key]} - {"name"}

    expected = {"weighted": "class_weights", "oversampled": "oversample", "steps": "steps"}
    for name in runs.MAIN:
        for change, (before, after, _) in imbalance.CHANGES.items():
            if change.split("_")[-1] in ("prior", "validation"):
                assert after == f"{before}-{change.split('_')[-1]}"  # the network is the same
                continue
            # Of case 1, 50 epochs are as many steps as the controls take.
            changed = differing(name, before, after) - ({"steps"} if before == "case1" else set())
            assert changed == {expected.get(change, "class_counts")}, change
        case1 = runs.imbalanced(name, "case1")
        assert case1.epochs * (sum(runs.CASES["case1"]) // case1.batch_size) == runs.CONTROL_STEPS


def test_predictions_outside_the_two_classes_are_errors_and_are_counted():
    found = imbalance.measured(scores([2, 1, -1, -3], [1, 7, 2, 1], [1, 1, 2, 2]))
    assert found["outside"] == 1
    assert found["accuracy"] == 0.5 and found["balanced"] == 0.5
    assert (found["recall_1"], found["precision_1"]) == (0.5, 0.5)
    assert (found["recall_2"], found["precision_2"]) == (0.5, 1.0)
    assert found["roc_auc"] == 1.0  # the margins rank all of 1 above all of 2


# Thresholds


def test_a_threshold_decides_between_the_two_classes():
    found = scores([2, 1, -1, -3], [7, 7, 7, 7], [1, 1, 2, 2])
    assert imbalance.decided(found, 0).predicted.tolist() == [1, 1, 2, 2]
    assert imbalance.decided(found, 1.5).predicted.tolist() == [1, 2, 2, 2]


def test_the_best_threshold_separates_what_can_be_separated():
    shifted = scores([-2, -2.5, -3, -5, -6, -7], [2] * 6, [1, 1, 1, 2, 2, 2])
    threshold = imbalance.best_threshold(shifted)
    assert -5 < threshold < -3
    assert imbalance.measured(imbalance.decided(shifted, threshold))["balanced"] == 1


def test_on_validation_no_image_helps_to_choose_its_own_threshold():
    # Of the even images the border lies at -3, of the odd ones at 3.
    margin = np.array([-2, 4, -2, 4, -4, 2, -4, 2], "f4")
    found = scores(margin, [2] * 8, [1, 1, 1, 1, 2, 2, 2, 2])
    crossed = imbalance.crossed(found)
    assert crossed.predicted[::2].tolist() == [2, 2, 2, 2]  # all below 3
    assert crossed.predicted[1::2].tolist() == [1, 1, 1, 1]  # all above -3


def test_the_prior_threshold_is_the_log_odds_of_the_training_images(monkeypatch):
    about = {"train": {"class_counts": [9, 5000, 4000, *[9] * 7]}}
    monkeypatch.setattr(runs, "split_sizes", lambda name: about)
    threshold = {
        case: imbalance.prior_threshold(runs.imbalanced("mnist", case)) for case in runs.CASES
    }
    assert threshold["case1"] == pytest.approx(np.log(50 / 1000))
    assert threshold["case3"] == pytest.approx(np.log(5000 / 4000))


def test_the_threshold_of_the_test_split_is_chosen_on_validation_alone(monkeypatch):
    said = {
        "validation": scores([-1, -1, -3, -3], [2] * 4, [1, 1, 2, 2]),
        "test": scores([-1, -4, -1, -4], [2] * 4, [2, 1, 2, 1]),  # its own best would differ
    }
    monkeypatch.setattr(imbalance, "scores", lambda run, name, split="test": said[split])
    monkeypatch.setattr(imbalance, "prior_threshold", lambda run: 0.0)
    found = imbalance.moved(runs.imbalanced("svhn", "case1"), "svhn")
    assert found["validation"].predicted.tolist() == [1, 2, 1, 2]


# Changes, paired by seed


def table_of(values: dict[str, list[float]]) -> pd.DataFrame:
    """Rows as `imbalance.table` has them, seeds from 42, for SVHN's own split and the other."""
    rows = [
        ("svhn", case, data, 42 + number, *[value if data == "svhn" else 0.0] * 3)
        for case, found in values.items()
        for number, value in enumerate(found)
        for data in ("svhn", "mnist")
    ]
    columns = ["model", "case", "data", "seed", "balanced", "recall_1", "recall_2"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def values() -> dict[str, list[float]]:
    cases = {case for pair in imbalance.CHANGES.values() for case in pair[:2]}
    found = {case: [0.5, 0.6, 0.7, 0.8] for case in sorted(cases)}
    found["case1"] = [0.5, 0.6, 0.7, 0.8, 0.1]  # the fifth seed has no control
    found["case3"] = [0.5, 0.6, 0.7]
    return found


def test_changes_are_paired_by_the_seeds_that_both_have(values):
    values["many"] = [0.701, 0.799, 0.901, 0.999]
    found = imbalance.changes(table_of(values), "svhn")
    assert (found.many.seeds, found.steps.seeds) == (4, 3)
    assert found.many == pytest.approx(0.2) and found.many.low > 0.19
    assert found.many.beyond and found.images == pytest.approx(-0.2)
    assert not any(vars(found)[kind].beyond for kind in ("few", "weighted", "steps"))


def test_the_table_marks_what_is_beyond_chance(values, monkeypatch):
    values["many"] = [0.701, 0.799, 0.901, 0.999]
    monkeypatch.setattr(imbalance, "NAMES", ("svhn",))
    shown = imbalance.changes_table(table_of(values)).set_index("what changes")["SVHN"]
    assert shown["950 more of '1': 1,000 + 1,000"].startswith("+20.00† (+19")
    assert shown["950 fewer of '2': 50 + 50"] == "0.00"


def test_what_the_same_images_regain_is_a_share_of_the_way_by_seed(values):
    values["many"] = [0.9, 1.0, 0.9, 1.0]
    values["case1-weighted"] = [0.7, 0.8, 0.8, 0.9]
    found = imbalance.regained(table_of(values), "svhn").weighted
    assert found.values == pytest.approx((0.5, 0.5, 0.5, 0.5)) and found.count == 4


def test_a_mitigation_is_chosen_on_validation_and_reported_on_test(values):
    validated = table_of(values | {"case1-oversampled": [0.9] * 4})
    values["case1-prior"] = [0.9, 1.0, 1.1, 1.2]  # best on test
    values["case1-oversampled"] = [0.601, 0.699, 0.801, 0.899]
    found = imbalance.chosen(table_of(values), validated, "svhn")
    assert found.title == "oversampling" and found.balanced == pytest.approx(0.1)
    assert found.level == 0  # it is told from all three


# Features


def test_geometry_of_known_clouds():
    random = np.random.default_rng(0)
    labels = np.repeat([1, 2], 400)
    wide, narrow = random.normal(0, 2, (400, 8)), random.normal(0, 1, (400, 8))
    learnt = np.concatenate([wide, narrow + 20])
    known = imbalance_features.moments(learnt, labels)

    def geometry(found):
        return imbalance_features.geometry(
            **imbalance_features.moments(found, labels), learnt=known["means"]
        )

    assert known["radii"] == pytest.approx([2 * 8**0.5, 8**0.5], rel=0.05)
    apart = geometry(learnt)
    assert apart["separation"] > 10
    assert apart["width"] == pytest.approx(2, rel=0.1)  # class 1 is twice as wide
    assert (apart["drift_1"], apart["drift_2"]) == pytest.approx((0, 0), abs=1e-6)
    drifted = np.concatenate([wide + 5, narrow + 20])
    found = geometry(drifted)
    assert (found["drift_1"], found["drift_2"]) == pytest.approx((0.25, 0), abs=0.01)
    assert found["separation"] < apart["separation"]


def test_misread_ones_are_counted_by_what_surrounds_them(monkeypatch):
    """Of 40 ones, three are misread at home, two amid the 2s; training images are left out."""
    labels, training = np.repeat([1, 2, 1], (40, 60, 50)), np.arange(150) >= 100
    predicted, twos = labels.copy(), np.repeat([7, 15], (40, 60))
    predicted[:5], predicted[100:], twos[:2] = 2, 2, 8
    kept = dict.fromkeys(runs.CASES, predicted), dict.fromkeys(runs.CASES, twos)
    shown = SimpleNamespace(predicted=kept[0], twos=kept[1], labels=labels, training=training)
    monkeypatch.setattr(imbalance_features, "maps", lambda model, name: shown)
    found = imbalance_features.misread_ones("mnist", "svhn").case2
    assert (found.all.fraction, found.among.fraction) == ("5 of 40", "2 of 5")


def test_moments_of_the_features_are_kept(sandbox, monkeypatch):
    run = finish("svhn-case1")
    found = imbalance_features.kept_moments(run.id)
    parts = ("training", "mnist", "svhn")
    assert set(found) == {f"{p}-{w}" for p in parts for w in ("means", "radii", "recall")}
    assert found["mnist-means"].shape == (2, 128) and found["mnist-radii"].shape == (2,)
    assert all(np.isfinite(value).all() for value in found.values())
    monkeypatch.setattr(imbalance_features, "moments", lambda *_: pytest.fail("computed twice"))
    again = imbalance_features.kept_moments(run.id)
    assert all(np.array_equal(again[name], value) for name, value in found.items())


def test_a_network_whose_weights_are_not_kept_is_trained_again(sandbox, monkeypatch):
    """On one machine it is the network whose answers are kept, but for the rounded weights."""
    checkpoints.train("mnist-case1-s43")
    run = runs.get("mnist-case1-s43")
    assert not runs.weights_path(run).exists()
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    with pytest.raises(files.DigitcnnError, match="weights are not kept, would have to be trained"):
        imbalance_features.kept_moments(run.id)
    monkeypatch.delenv("DIGITCNN_TRAIN")
    kept = imbalance_features.kept_moments(run.id)
    assert not runs.weights_path(run).exists() and not runs.checkpoint_path(run).exists()
    for name in ("mnist", "svhn"):
        answers = imbalance.scores(run, name)
        recall = [(answers.predicted[answers.labels == d] == d).mean() for d in (1, 2)]
        assert kept[f"{name}-recall"] == pytest.approx(recall, abs=0.03)
    part = data.training_part(run, division.pool("mnist"))
    found = inference.extract_features(inference.network(run), part.images)
    own = imbalance_features.moments(found, part.labels.numpy())
    assert kept["training-means"] == pytest.approx(own["means"], abs=1e-6)  # of its own images


def test_scores_are_the_kept_answers(sandbox):
    run = finish("mnist-few")
    found, kept = imbalance.scores(run, "svhn"), results.answers(run)
    assert np.array_equal(found.predicted, kept["svhn-test-answer"])
    assert np.array_equal(found.margin, kept["svhn-test-margin"].astype("f4"))
    assert set(found.labels) == {1, 2}


# The results of the grid


@pytest.fixture
def grid(monkeypatch) -> pd.DataFrame:
    """`imbalance.table` of the repository's runs."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    if any(runs.stale(run) for run in runs.registry().values() if run.group == "imbalance"):
        pytest.skip("the runs of question (e) are not all trained")
    return imbalance.table()


def test_rows_follow_from_the_kept_answers(grid):
    """Recomputed with scikit-learn from the arrays alone, past `imbalance.measured`."""
    cases = grid[grid["case"].isin([*runs.CASES, *runs.CONTROLS])]
    counts = {**runs.CASE_SEEDS, **dict.fromkeys(runs.CONTROLS, runs.CONTROL_SEEDS)}
    assert len(cases) == 4 * sum(map(len, counts.values()))
    for row in cases.itertuples():
        run = runs.get(runs.imbalanced(row.model, row.case, row.seed).id)
        with np.load(runs.answers_path(run), allow_pickle=False) as arrays:
            said, margin = (arrays[f"{row.data}-test-{part}"] for part in ("answer", "margin"))
        labels = imbalance.scores(run, row.data).labels
        found = [metrics.accuracy_score(labels, said)]
        for digit in (1, 2):
            truth, answer = labels == digit, said == digit
            found.append(metrics.precision_score(truth, answer, zero_division=0))
            found.append(metrics.recall_score(truth, answer))
        found += [np.mean(found[2::2]), metrics.roc_auc_score(labels == 1, margin.astype(float))]
        assert found == pytest.approx(row[5:12], abs=1e-6)
        if row.model == row.data:
            last = results.history(run)["test"].iloc[-1]
            assert last["accuracy"] == pytest.approx(row.accuracy, abs=1e-6)


def test_the_weights_of_the_pictured_runs_are_in_the_repository(grid):
    for model in runs.MAIN:
        for case in runs.CASES:
            run = imbalance.group(model, case)[0]
            _, about = checkpoints.read_tensors(runs.weights_path(run))
            assert about["key"] == runs.key(run) and about["run"] == run.id
