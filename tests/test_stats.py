"""Statistics against SciPy, scikit-learn, and values of the literature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.stats.contingency import relative_risk
from sklearn import metrics

from digitcnn import stats


def test_wilsons_interval_is_the_textbook_one():
    # Newcombe 1998 (Stat. Med. 17, 857), table I, method 3.
    for hits, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                   (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):  # fmt: skip
        found = stats.proportion(hits, total)
        assert found.value == hits / total
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert stats.proportion(50, 50).high == 1
    nothing = stats.proportion(0, 0)
    assert np.isnan(nothing.value) and (nothing.low, nothing.high) == (0, 1)


def test_wilsons_interval_covers_as_often_as_it_says():
    hits = np.random.default_rng(0).binomial(300, 0.97, 800)
    found = [stats.proportion(h, 300) for h in hits]
    assert 0.92 < np.mean([e.low <= 0.97 <= e.high for e in found]) < 0.98


def test_the_ratio_of_shares_is_scipys():
    for counts in ((20, 100, 10, 100), (3, 1000, 44, 900), (7, 7, 1, 9)):
        found, expected = stats.ratio(*counts), relative_risk(*counts)
        interval = expected.confidence_interval(0.95)
        assert found.value == pytest.approx(expected.relative_risk)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert 0 < stats.ratio(3, 10, 0, 100).low < stats.ratio(3, 10, 0, 100).high < np.inf
    assert np.isnan(stats.ratio(0, 10, 0, 100).value)


def labelled(count: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal frequency, and answers that are right in four of five cases."""
    random = np.random.default_rng(seed)
    labels = random.choice(10, count, p=np.arange(1, 11) / 55)
    return labels, np.where(random.random(count) < 0.8, labels, random.integers(0, 10, count))


def test_scores_of_classes_are_scikit_learns():
    labels, predicted = labelled()
    found = stats.class_scores(stats.confusion(labels, predicted))
    expected = metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        np.testing.assert_allclose(found[name], values)
    macro = stats.macro(labels, predicted)
    assert macro["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert macro["precision"] == pytest.approx(expected[0].mean())
    assert macro["recall"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))


def test_macro_averages_are_over_the_classes_that_occur():
    labels, predicted = np.array([1, 1, 2, 2]), np.array([1, 7, 2, 2])
    assert stats.macro(labels, predicted) == {"accuracy": 0.75, "precision": 1.0, "recall": 0.75}


def test_the_bootstrap_of_cells_is_that_of_images():
    labels, predicted = labelled(800)
    cells = stats.class_scores(stats.resampled(stats.confusion(labels, predicted)))["recall"]
    random, images = np.random.default_rng(1), []
    for _ in range(400):
        at = random.integers(0, 800, 800)
        images.append(metrics.recall_score(labels[at], predicted[at], average="macro"))
    assert np.nanmean(cells, 1).std() == pytest.approx(np.std(images), rel=0.15)


def test_mcnemars_exact_test_and_its_difference():
    before, after = np.zeros(1000, bool), np.zeros(1000, bool)
    before[:30], after[20:40] = True, True  # 20 mended, 10 made
    found = stats.mcnemar(before, after)
    assert (found.mended, found.made) == (20, 10)
    assert found.difference.value == pytest.approx(0.01)
    assert found.difference.low < 0.01 < found.difference.high
    assert found.p_value == pytest.approx(2 * scipy_stats.binom.cdf(10, 30, 0.5))
    assert stats.mcnemar(before, before).p_value == 1


def test_a_paired_difference_is_students():
    # Student 1908 (Biometrika 6, 1): hours of sleep gained with two drugs, ten patients.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = stats.difference(second, first, paired=True)
    assert found.value == pytest.approx(1.58)
    assert found.p == pytest.approx(0.00283, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((0.7001, 2.4599), abs=1e-4)
    apart = stats.difference(second, first, paired=False)
    assert apart.value == pytest.approx(1.58) and apart.p == pytest.approx(0.07939, abs=1e-5)


@pytest.mark.parametrize("paired", [True, False])
def test_differences_that_no_test_can_judge(paired):
    for values, reference in (([0.5], [0.4]), ([0.5, 0.5], [0.4, 0.4]), ([1, 1, 1], [1, 1, 1])):
        found = stats.difference(values, reference, paired)
        assert found.value == pytest.approx(values[0] - reference[0])
        assert found.p == 1 and np.isnan(found.low) and np.isnan(found.high)
    by_the_same = stats.difference([0.5, 0.75], [0.25, 0.5], paired)
    assert by_the_same.value == 0.25 and (by_the_same.p == 1) == paired


def test_holms_correction_is_the_published_one():
    # As R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]).tolist() == [1, 1] and len(stats.holm([])) == 0
    assert stats.beyond_chance([0.01, 0.04, 0.03, 0.005]).tolist() == [True, False, False, True]


def test_the_pooled_spread_is_that_of_an_analysis_of_variance():
    random = np.random.default_rng(1)
    recipe, one, two = (random.normal(mean, 1, 3).tolist() for mean in (0, 3, 0.5))
    values = {"one": one, "two": two}
    alone = stats.pooled_differences({"one": values["one"]}, recipe)["one"]
    test = scipy_stats.ttest_ind(one, recipe)
    assert alone.p == pytest.approx(test.pvalue)
    low, high = test.confidence_interval()
    assert (alone.low, alone.high) == pytest.approx((low, high))
    found = stats.pooled_differences(values, recipe)
    variance = np.mean([np.var(part, ddof=1) for part in (recipe, one, two)])
    half = scipy_stats.t.ppf(0.975, 6) * np.sqrt(variance * 2 / 3)
    assert found["two"].high - found["two"].value == pytest.approx(half)
    raw = [2 * scipy_stats.t.sf(abs(one.value) / np.sqrt(variance * 2 / 3), 6)
           for one in found.values()]  # fmt: skip
    assert min(one.p for one in found.values()) == pytest.approx(2 * min(raw))  # Holm's of two


def test_without_spread_nothing_is_beyond_chance():
    found = stats.pooled_differences({"one": [0.6, 0.6]}, [0.5, 0.5])["one"]
    assert found.p == 1 and np.isnan(found.low)


def test_false_alarms_are_kept_to_one_family_in_twenty():
    random = np.random.default_rng(0)
    alarms = [stats.beyond_chance(random.random(20)).any() for _ in range(2000)]
    assert 0.03 < np.mean(alarms) < 0.07


def test_spread_over_seeds():
    assert stats.spread([1, 2, 3]) == (2, 1, 3)
    mean, std, count = stats.spread([0.5])
    assert mean == 0.5 and np.isnan(std) and count == 1


def test_the_next_value_lies_where_it_is_predicted():
    random = np.random.default_rng(0)
    hits = 0
    for drawn in random.normal(5, 2, size=(2000, 4)):
        value, low, high = stats.prediction(drawn[:3])
        assert value == pytest.approx(drawn[:3].mean())
        hits += low <= drawn[3] <= high
    assert 0.93 < hits / 2000 < 0.97
    assert stats.prediction([0.5]) == (0.5, -np.inf, np.inf)


def test_a_stratified_difference_is_least_squares_with_an_intercept_a_stratum():
    random = np.random.default_rng(2)
    strata, values = random.integers(0, 6, 500), random.random(500)
    exposed = random.random(500) < 0.1 + 0.12 * strata
    columns = np.column_stack([~exposed, strata[:, None] == np.arange(6)]).astype(float)
    expected = np.linalg.lstsq(columns, values, rcond=None)[0][0]
    assert stats.stratified(values, exposed, strata, np.arange(500)).value == pytest.approx(
        expected
    )


def test_intervals_of_clusters_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        clusters = np.repeat(np.arange(120), 4)
        own = random.normal(0, 0.2, 120)[clusters]  # what a cluster's samples have in common
        strata = random.integers(0, 3, 120)[clusters]
        exposed = (random.random(120) < 0.3 + 0.2 * np.arange(3)[random.integers(0, 3, 120)])[
            clusters
        ]
        values = 0.3 * strata + own + np.where(exposed, 0.0, 0.1) + random.normal(0, 0.1, 480)
        found = stats.stratified(values, exposed, strata, clusters)
        held += found.low <= 0.1 <= found.high
    assert 270 <= held <= 295
    nothing = stats.stratified(values, np.zeros(480, bool), strata, clusters)
    assert np.isnan(nothing.value) and nothing.p == 1


def test_fishers_test_is_fishers():
    assert stats.fisher(3, 4, 1, 4) == pytest.approx(0.4857, abs=1e-4)  # his tea, two-sided
    assert stats.fisher(0, 10, 0, 20) == 1
