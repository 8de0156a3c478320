"""Question (e): the runs, what is measured of them, thresholds and geometry."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from finished import finish
from sklearn import metrics

from digitcnn import checkpoints, files, results, runs
from digitcnn.report import imbalance
from digitcnn.report.imbalance import Scores


def scores(margin, predicted, labels) -> Scores:
    return Scores(np.array(margin, "f4"), np.array(predicted), np.array(labels))


def test_the_registry_has_each_case_with_its_seeds(monkeypatch):
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)
    for name in runs.MAIN:
        for case, seeds in {"case1": 5, "case2": 5, "case3": 3, "balanced": 4, "few": 4}.items():
            assert len(imbalance.group(name, case)) == seeds
        first = imbalance.group(name, "case1")[0]
        assert first.class_counts == ((1, 50), (2, 1000))
        assert first.epochs == 50 and first.held_out == ("validation", "test")
        assert imbalance.group(name, "case3")[0].class_counts == ((1, None), (2, None))
        weighted, oversampled = (
            imbalance.group(name, f"case1-{kind}")[0] for kind in ("weighted", "oversampled")
        )
        assert weighted.class_weights and not weighted.oversample
        assert oversampled.oversample and not oversampled.class_weights


def test_an_unknown_case_is_refused():
    with pytest.raises(files.DigitcnnError, match="no runs mnist-case9"):
        imbalance.group("mnist", "case9")


def test_each_effect_is_between_two_that_differ_in_one_thing():
    def differing(name: str, before: str, after: str) -> set[str]:
        one, two = (vars(runs.imbalanced(name, case, 43)) for case in (before, after))
        return {key for key, value in one.items() if value != two[key]} - {"name"}

    expected = {"weighted loss": "class_weights", "oversampling": "oversample"}
    for name in runs.MAIN:
        for effect, pair in imbalance.EFFECTS.items():
            # Of case 1, 50 epochs are as many steps as the controls take.
            changed = differing(name, *pair) - ({"steps"} if "case1" in pair else set())
            wanted = expected.get(effect, "steps" if effect == "more steps" else "class_counts")
            assert changed == {wanted}, effect
        case1 = runs.imbalanced(name, "case1")
        assert case1.epochs * (sum(runs.CASES["case1"]) // case1.batch_size) == runs.CONTROL_STEPS


def test_predictions_outside_the_two_classes_are_errors_and_are_counted():
    found = imbalance.measured(scores([2, 1, -1, -3], [1, 7, 2, 1], [1, 1, 2, 2]))
    assert found["outside"] == 1
    assert found["accuracy"] == 0.5
    assert (found["recall_1"], found["precision_1"]) == (0.5, 0.5)
    assert (found["recall_2"], found["precision_2"]) == (0.5, 1.0)
    assert found["share"] == 0.5 and found["balanced"] == 0.5
    assert found["roc_auc"] == 1.0  # the margins rank all of 1 above all of 2


def test_a_threshold_decides_between_the_two_classes():
    found = scores([2, 1, -1, -3], [7, 7, 7, 7], [1, 1, 2, 2])
    assert found.decided(0).predicted.tolist() == [1, 1, 2, 2]
    assert found.decided(1.5).predicted.tolist() == [1, 2, 2, 2]


def test_the_validation_threshold_separates_what_can_be_separated(monkeypatch):
    shifted = scores([-2, -2.5, -3, -5, -6, -7], [2] * 6, [1, 1, 1, 2, 2, 2])
    monkeypatch.setattr(imbalance, "scores", lambda run, name, split: shifted)
    threshold = imbalance.validation_threshold(runs.imbalanced("mnist", "case1"))
    assert -5 < threshold < -3
    assert imbalance.measured(shifted.decided(threshold))["balanced"] == 1


def test_the_prior_threshold_is_the_log_odds_of_the_training_images(monkeypatch):
    about = {"train": {"class_counts": [9, 5000, 4000, *[9] * 7]}}
    monkeypatch.setattr(runs, "split_sizes", lambda name: about)
    threshold = {
        case: imbalance.prior_threshold(runs.imbalanced("mnist", case)) for case in runs.CASES
    }
    assert threshold["case1"] == pytest.approx(np.log(50 / 1000))
    assert threshold["case3"] == pytest.approx(np.log(5000 / 4000))


def test_geometry_of_known_clouds():
    random = np.random.default_rng(0)
    labels = np.repeat([1, 2], 400)
    near, far = (
        np.concatenate([random.normal(0, 2, (400, 8)), random.normal(shift, 1, (400, 8))])
        for shift in (0.5, 20)
    )
    close = imbalance.geometry(near, labels, near, labels)
    apart = imbalance.geometry(far, labels, far, labels)
    assert apart[0] > 0.8 > close[0]  # silhouette
    assert apart[1] > 10 > close[1]  # separation
    assert apart[2] == pytest.approx(2, rel=0.1)  # class 1 is twice as wide
    assert apart[3] == 1.0
    missing = imbalance.geometry(far, labels, far[400:], labels[400:])
    assert missing[3] == 0.0  # nothing of class 1 was learnt from


def table_of(values: dict[str, list[float]], name: str = "mnist") -> pd.DataFrame:
    """Rows as `imbalance.results` has them, seeds from 42, of one data set and the other."""
    rows = [
        (name, case, name, 42 + number, value)
        for case, found in values.items()
        for number, value in enumerate(found)
    ]
    rows += [(name, case, "other", 42, 0.0) for case in values]  # another test split
    return pd.DataFrame(rows, columns=["model", "case", "data", "seed", "balanced"])


def test_effects_are_paired_by_the_seeds_that_both_have(monkeypatch):
    monkeypatch.setattr(imbalance, "NAMES", ("mnist",))
    cases = {case for pair in imbalance.EFFECTS.values() for case in pair}
    values = {case: [0.5, 0.6, 0.7, 0.8] for case in sorted(cases)}
    values["case1"] = [0.5, 0.6, 0.7, 0.8, 0.1]  # the fifth seed has no control
    values["balanced"] = [0.701, 0.799, 0.901, 0.999]
    found = imbalance.effects(table_of(values)).set_index("effect")
    assert found.loc["equal classes", "seeds"] == 4 and found.loc["more steps", "seeds"] == 4
    assert found.loc["equal classes", "value"] == pytest.approx(0.2)
    assert found.loc["equal classes", "low"] > 0.19 and found.loc["equal classes", "beyond"]
    assert not found["beyond"].drop("equal classes").any()


def test_gains_are_paired_by_seed_on_the_own_test_split():
    rows = [
        ("svhn", "case1", data, kind, seed, value + seed / 100 + noise * (-1) ** seed)
        for data in ("svhn", "mnist")
        for kind, value, noise, seeds in (
            ("none", 0.5, 0, range(5)), ("weighted", 0.7, 0.001, range(4)),
            ("prior", 0.5, 0.02, range(5)),
        )
        for seed in seeds
    ]  # fmt: skip
    columns = ["model", "case", "data", "mitigation", "seed", "balanced"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[table["data"] == "mnist", "balanced"] = 0.9
    found = imbalance.gains(table).set_index("mitigation")
    assert list(found.index) == ["weighted", "prior"] and found["seeds"].tolist() == [4, 5]
    assert found.loc["weighted", "value"] == pytest.approx(0.2)
    assert found["beyond"].tolist() == [True, False]


# The quick profile


def test_features_are_those_of_the_pictured_runs(sandbox, monkeypatch):
    run = finish("svhn-case1")
    found = imbalance.kept_geometry(run.id, "mnist")
    assert set(found) == set(imbalance.GEOMETRY)
    assert all(np.isfinite(value) for value in found.values())
    monkeypatch.setattr(imbalance, "geometry", lambda *_: pytest.fail("computed twice"))
    assert imbalance.kept_geometry(run.id, "mnist") == found


def test_scores_are_the_kept_answers(sandbox):
    run = finish("mnist-few")
    found, kept = imbalance.scores(run, "svhn"), results.answers(run)
    assert np.array_equal(found.predicted, kept["svhn-test-answer"])
    assert np.array_equal(found.margin, kept["svhn-test-margin"].astype("f4"))
    assert set(found.labels) == {1, 2}
    table = imbalance.confusion(run, "svhn")
    assert table.sum() == len(found.labels)
    assert table[:, 2].sum() == imbalance.measured(found)["outside"]


def test_few_pixels_tell_something_on_handwriting(sandbox):
    table = imbalance.pixel_neighbours("mnist")
    assert list(table.index) == list(imbalance.COVERED) and table.shape == (3, 5)
    assert 0.7 < table.loc[5].mean() <= table.loc[500].mean() <= 1


# The stored results


@pytest.fixture
def stored(monkeypatch) -> pd.DataFrame:
    """``cache/results/imbalance.csv`` as committed, of the present grid."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.setenv("DIGITCNN_TRAIN", "never")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    if any(runs.stale(run) for run in runs.registry().values() if run.group == "imbalance"):
        pytest.skip("frozen from the grid of 24 November")
    return pd.read_csv(files.cache_path("results", "imbalance.csv"))


def test_the_results_hold_every_model_case_data_set_and_seed(stored):
    columns = "model,case,data,seed,accuracy,precision_1,recall_1,precision_2,recall_2,roc_auc"
    assert ",".join(stored.columns) == columns
    expected = {
        (model, case, name, seed)
        for model in runs.MAIN
        for case, seeds in runs.CASE_SEEDS.items()
        for seed in seeds
        for name in runs.MAIN
    }
    rows = list(stored[["model", "case", "data", "seed"]].itertuples(index=False, name=None))
    assert len(rows) == len(set(rows)) and set(rows) == expected


def test_rows_follow_from_the_kept_answers(stored):
    """Recomputed with scikit-learn from the arrays alone, past `imbalance.measured`."""
    for row in stored.itertuples():
        run = runs.get(runs.imbalanced(row.model, row.case, row.seed).id)
        with np.load(runs.answers_path(run), allow_pickle=False) as arrays:
            said, margin = (arrays[f"{row.data}-test-{part}"] for part in ("answer", "margin"))
        labels = imbalance.scores(run, row.data).labels
        counts = runs.split_sizes(row.data)["test"]["class_counts"]
        assert np.bincount(labels, minlength=10)[1:3].tolist() == counts[1:3]
        found = [metrics.accuracy_score(labels, said)]
        for digit in (1, 2):
            truth, answer = labels == digit, said == digit
            found.append(metrics.precision_score(truth, answer, zero_division=0))
            found.append(metrics.recall_score(truth, answer))
        found.append(metrics.roc_auc_score(labels == 1, margin.astype(float)))
        assert found == pytest.approx(row[5:], abs=1e-6)


def test_kept_answers_give_the_metrics_of_training(stored):
    for row in stored[stored["model"] == stored["data"]].itertuples():
        run = runs.get(runs.imbalanced(row.model, row.case, row.seed).id)
        last = results.history(run)["test"].iloc[-1]
        assert last["accuracy"] == pytest.approx(row.accuracy, abs=1e-6)
        assert last["recall"] == pytest.approx((row.recall_1 + row.recall_2) / 2, abs=1e-6)


def test_the_weights_of_the_pictured_runs_are_in_the_repository(stored):
    for model in runs.MAIN:
        for case in runs.CASES:
            run = imbalance.group(model, case)[0]
            tensors, about = checkpoints.read_tensors(runs.weights_path(run))
            assert about["key"] == runs.key(run) and about["run"] == run.id
            bits = {name: value.element_size() * 8 for name, value in tensors.items()}
            assert bits["output.weight"] == 16 and bits["output.bias"] == 32 == bits["mean"]
