"""Statistics over seeds against worked examples and scipy."""

import numpy as np
import pytest
from scipy import stats

from zoo.statistics import Estimate, estimate, iqm, iqm_difference, probability_of_improvement


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -100])) == np.mean([2, 3, 4, 5])  # a quarter of 8 off each end
    assert iqm(np.array([9.0, 500, 500, 500])) == 500
    assert iqm(np.array([1.0, 2, 3])) == 2  # a quarter of 3 is no whole value


def test_probability_of_improvement_is_mann_and_whitneys() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.5, size=7), rng.normal(size=9)
    expected = stats.mannwhitneyu(one, other).statistic / (7 * 9)
    assert probability_of_improvement(one, other) == pytest.approx(expected)
    assert probability_of_improvement(np.array([1.0, 2]), np.array([1.0, 0])) == (0.5 + 1 + 1 + 1) / 4
    batch = probability_of_improvement(np.stack([one, -one]), np.stack([other, other]))
    assert batch == pytest.approx([expected, probability_of_improvement(-one, other)])


def test_intervals_cover_what_they_should() -> None:
    """Of the 95% intervals of a mean, over many samples, nearly 95% hold the truth; percentile intervals fall short."""
    rng = np.random.default_rng(0)
    found = [estimate(rng.normal(size=20), statistic=lambda x, axis=-1: x.mean(axis)) for _ in range(60)]
    covered = np.mean([each.low <= 0 <= each.high for each in found])
    assert 0.8 < covered <= 1
    normal = 1.96 / np.sqrt(20)
    assert np.mean([each.high - each.low for each in found]) == pytest.approx(2 * normal, rel=0.15)


def test_an_interval_is_the_same_each_time() -> None:
    values = np.random.default_rng(1).normal(size=5)
    assert estimate(values) == estimate(values)


@pytest.mark.parametrize("values", [[7.0], [7.0, 7.0, 7.0]])
def test_values_all_alike_have_no_width(values: list[float]) -> None:
    assert estimate(np.array(values)) == Estimate(7.0, 7.0, 7.0)


def test_a_difference_of_two_samples_has_an_interval_of_its_own() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(3, 1, 30), rng.normal(0, 1, 30)
    found = estimate(one, other, statistic=iqm_difference, confidence=0.9)
    assert found.value == iqm(one) - iqm(other)
    assert found.low < found.value < found.high
    assert found.low > 2
    assert found.high < 4
