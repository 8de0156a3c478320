"""Question (e): the runs, what is measured of them, thresholds and geometry."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from digitcnn import files, imbalance, runs
from digitcnn.imbalance import Scores


def scores(margin, predicted, labels) -> Scores:
    return Scores(np.array(margin, "f4"), np.array(predicted), np.array(labels))


def test_the_registry_has_each_case_with_its_seeds(monkeypatch):
    monkeypatch.delenv("DIGITCNN_PROFILE", raising=False)
    for name in runs.MAIN:
        for case, seeds in (("case1", 5), ("case2", 5), ("case3", 2), ("balanced", 5)):
            assert len(imbalance.group(name, case)) == seeds
        first = imbalance.group(name, "case1")[0]
        assert first.class_counts == ((1, 50), (2, 1000))
        assert first.epochs == 50 and first.held_out == ("validation", "test")
        assert imbalance.group(name, "case3")[0].class_counts == ((1, None), (2, None))
        for remedy in runs.REMEDIES:
            tried = imbalance.group(name, "case2", remedy)
            assert [run.seed for run in tried] == list(runs.REMEDY_SEEDS)
            assert tried[0].class_weights != tried[0].oversample


def test_an_unknown_case_is_refused():
    with pytest.raises(files.DigitcnnError, match="no runs mnist-case9"):
        imbalance.group("mnist", "case9")


def test_cases_of_one_data_set_differ_in_their_counts_alone():
    one, two = (runs.imbalanced("svhn", case) for case in ("case1", "case2"))
    assert {
        name for name, value in vars(one).items() if value != vars(two)[name]
    } == {"name", "class_counts"}  # fmt: skip


def test_control_takes_about_as_many_steps_as_case_1():
    for name, images in (("mnist", 10_413), ("svhn", 23_690)):
        short = runs.imbalanced(name, "case3-short")
        steps = short.epochs * (images // short.batch_size)
        assert steps == pytest.approx(50 * (1050 // short.batch_size), rel=0.15)


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
    about = {"split": {"train": {"class_counts": [9, 5000, 4000, *[9] * 7]}}}
    monkeypatch.setattr(runs, "manifest", lambda name: about)
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


# The stored results


@pytest.fixture
def stored(monkeypatch) -> pd.DataFrame:
    """``cache/results/imbalance.csv`` as committed."""
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    monkeypatch.delenv("DIGITCNN_ROOT", raising=False)
    path = files.cache_path("results", "imbalance.csv")
    assert path.is_file(), "the results of question (e) are missing"
    return pd.read_csv(path)


def test_the_results_hold_every_model_case_data_set_and_seed(stored):
    columns = "model,case,data,seed,accuracy,precision_1,recall_1,precision_2,recall_2,roc_auc"
    assert ",".join(stored.columns) == columns
    expected = {
        (model, case, name, run.seed)
        for model in runs.MAIN
        for case in runs.CASES
        for run in imbalance.group(model, case)
        for name in runs.MAIN
    }
    rows = list(stored[["model", "case", "data", "seed"]].itertuples(index=False, name=None))
    assert len(rows) == len(set(rows)) and set(rows) == expected
    assert {case: len({r[3] for r in rows if r[1] == case}) for case in runs.CASES} == {
        "case1": 5, "case2": 5, "case3": 2,
    }  # fmt: skip


def test_seed_42s_rows_follow_from_the_cached_predictions(stored):
    """Recomputed with scikit-learn from the arrays alone, past `imbalance.measured`."""
    for row in stored[stored["seed"] == 42].itertuples():
        path = files.cache_path("imbalance", f"{row.model}-{row.case}.npz")
        with np.load(path, allow_pickle=False) as arrays:
            labels, said, margin = (
                arrays[f"{row.data}-test-{part}"] for part in ("labels", "predicted", "margin")
            )
        counts = runs.manifest(row.data)["split"]["test"]["class_counts"]
        assert np.bincount(labels, minlength=10)[1:3].tolist() == counts[1:3]
        found = [metrics.accuracy_score(labels, said)]
        for digit in (1, 2):
            truth, answer = labels == digit, said == digit
            found.append(metrics.precision_score(truth, answer, zero_division=0))
            found.append(metrics.recall_score(truth, answer))
        found.append(metrics.roc_auc_score(labels == 1, margin.astype(float)))
        assert found == pytest.approx(row[5:], abs=1e-6)


def test_the_attribution_adds_up_and_knows_its_error(monkeypatch):
    rows = [
        ("mnist", case, "mnist", value)
        for case, values in (
            ("case1", (0.5, 0.7)), ("balanced", (0.8, 0.8)), ("case3-short", (0.9, 0.9)),
            ("case3", (1.0, 0.98)),
        )
        for value in values
    ]  # fmt: skip
    rows.append(("mnist", "case1", "svhn", 0.0))  # the other test split does not count
    frame = pd.DataFrame(rows, columns=["model", "case", "data", "balanced"])
    monkeypatch.setattr(imbalance, "results", lambda: frame)
    found = imbalance.attribution("mnist")
    assert found.loc["change"].round(6).tolist() == [0.2, 0.1, 0.09, 0.39]
    assert found.loc["change"].iloc[:3].sum() == pytest.approx(found.loc["change", "all together"])
    assert found.loc["error", "equal classes"] == pytest.approx(0.1)  # of a mean over two seeds
    assert found.loc["error", "more images"] == 0


def test_stored_predictions_give_the_stored_metrics(stored):
    """Made apart: metrics while training, with 32 bits; predictions from the file, with 16."""
    for row in stored[(stored["seed"] == 42) & (stored["model"] == stored["data"])].itertuples():
        run = imbalance.group(row.model, row.case)[0]
        last = pd.read_csv(runs.metrics_path(run, "test"), sep="\t").iloc[-1]
        assert last["accuracy"] == pytest.approx(row.accuracy, abs=1e-3)
        assert last["recall"] == pytest.approx((row.recall_1 + row.recall_2) / 2, abs=1e-3)


def test_the_weights_of_the_pictured_runs_are_in_the_repository(stored):
    from digitcnn import checkpoints

    for model in runs.MAIN:
        for case in runs.CASES:
            run = imbalance.group(model, case)[0]
            tensors, about = checkpoints.read_tensors(runs.weights_path(run))
            assert about["key"] == runs.key(run) and about["run"] == run.id
            bits = {name: value.element_size() * 8 for name, value in tensors.items()}
            assert bits["output.weight"] == 16 and bits["output.bias"] == 32 == bits["mean"]
            network = checkpoints.load_model(run)
            assert all(value.dtype.itemsize >= 4 for value in network.state_dict().values())
