"""Statistics over seeds: interquartile means and bootstrap intervals, by scipy.      Agarwal et al. 2021, section 4"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from zoo.spec import Array

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def iqm(values: Array, axis: int = -1) -> Any:
    """Interquartile mean: the mean of the middle half."""
    return stats.trim_mean(values, 0.25, axis=axis)


def iqm_difference(one: Array, other: Array, axis: int = -1) -> Any:
    """Return how far the interquartile mean of one sample lies above another's."""
    return iqm(one, axis) - iqm(other, axis)


def probability_of_improvement(one: Array, other: Array, axis: int = -1) -> Any:
    """P(a run of one sample beats a run of the other), ties counting half: Mann and Whitney's U over all pairs."""
    wins = np.expand_dims(one, axis) - np.expand_dims(other, axis - 1 if axis < 0 else axis + 1)
    return ((wins > 0) + 0.5 * (wins == 0)).mean((axis - 1, axis))


def estimate(*samples: Array, statistic: Callable[..., Any] = iqm, confidence: float = 0.95) -> Estimate:
    """Return a statistic of one sample or two, (seeds,) each, with its percentile bootstrap interval.

    Each sample is resampled by itself, so over several the bootstrap is stratified. Fewer than two values, or values
    that are all alike, have an interval of no width.
    """
    value = float(statistic(*samples))
    if all(np.ptp(sample) == 0 for sample in samples):
        return Estimate(value, value, value)
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high))
