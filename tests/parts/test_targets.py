"""Time recursions against the papers' own sums, other libraries' published numbers and identities."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from numpy.typing import NDArray
from torch import Tensor

from zoo import registry
from zoo.parts.targets import executed_next, gae, lambda_return, n_step, segment_return, standardize, vtrace
from zoo.protocol import Progress, Transition
from zoo.spec import Spec

Array = NDArray[np.float64]

GAMMA = 0.9
SEEDS = range(3)
LENGTHS = (1, 4, 12)
LAMBDAS = (0.0, 0.6, 1.0)


class Data(NamedTuple):
    """Three columns of consecutive episodes, (T, 3)."""

    reward: Array
    value: Array
    next_value: Array
    log_rho: Array
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


def random_data(seed: int, length: int) -> Data:
    rng = np.random.default_rng([seed, length])
    shape = (length, 3)
    terminated, truncated = rng.random(shape) < 0.25, rng.random(shape) < 0.25
    value, next_value = rng.normal(size=shape), rng.normal(size=shape)
    # Inside an episode the successor is the next row's state; at an end it is a state of no row.
    goes_on = ~(terminated | truncated)[:-1]
    next_value[:-1][goes_on] = value[1:][goes_on]
    return Data(rng.normal(size=shape), value, next_value, rng.normal(size=shape), terminated, truncated)


def last_row(data: Data, t: int, b: int) -> int:
    """The last row of the episode, or of the segment, that row t is in."""
    ended = data.terminated[t:, b] | data.truncated[t:, b]
    return t + int(ended.argmax()) if ended.any() else len(ended) + t - 1


def successor_value(data: Data, t: int, b: int) -> float:
    return 0.0 if data.terminated[t, b] else float(data.next_value[t, b])


def td_error(data: Data, t: int, b: int) -> float:
    return float(data.reward[t, b] + GAMMA * successor_value(data, t, b) - data.value[t, b])


def each_row(data: Data, fn: Callable[[Data, int, int], float]) -> Array:
    rows, columns = data.reward.shape
    return np.array([[fn(data, t, b) for b in range(columns)] for t in range(rows)])


def naive_gae(data: Data, lam: float) -> Array:
    # Schulman et al. 2016, equation 16.
    def advantage(data: Data, t: int, b: int) -> float:
        end = last_row(data, t, b)
        return sum((GAMMA * lam) ** (k - t) * td_error(data, k, b) for k in range(t, end + 1))

    return each_row(data, advantage)


def naive_n_step_return(data: Data, t: int, b: int, n: int) -> float:
    # Sutton and Barto 2018, equation 7.1; fewer rewards where the episode or the segment ends sooner.
    end = min(t + n - 1, last_row(data, t, b))
    rewards = sum(GAMMA ** (k - t) * data.reward[k, b] for k in range(t, end + 1))
    return float(rewards + GAMMA ** (end - t + 1) * successor_value(data, end, b))


def naive_lambda_return(data: Data, lam: float) -> Array:
    # Sutton and Barto 2018, equation 12.9: a mixture of n-step returns up to the horizon.
    def mixture(data: Data, t: int, b: int) -> float:
        horizon = last_row(data, t, b) - t + 1
        shorter = sum(lam ** (n - 1) * naive_n_step_return(data, t, b, n) for n in range(1, horizon))
        return (1 - lam) * shorter + lam ** (horizon - 1) * naive_n_step_return(data, t, b, horizon)

    return each_row(data, mixture)


def naive_vtrace(data: Data, lam: float, rho_bar: float, c_bar: float, pg_rho_bar: float) -> tuple[Array, Array]:
    # Espeholt et al. 2018, equation 1 with the c of remark 2.
    ratio = np.exp(data.log_rho)
    rho, c = np.minimum(rho_bar, ratio), lam * np.minimum(c_bar, ratio)

    def target(data: Data, t: int, b: int) -> float:
        end = last_row(data, t, b)
        terms = (GAMMA ** (k - t) * np.prod(c[t:k, b]) * rho[k, b] * td_error(data, k, b) for k in range(t, end + 1))
        return float(data.value[t, b] + sum(terms))

    # Section 4.2; the λ-mixture of v and V at the successor is rlax's.
    def advantage(data: Data, t: int, b: int) -> float:
        bootstrap = successor_value(data, t, b)
        if t != last_row(data, t, b):
            bootstrap = (1 - lam) * bootstrap + lam * target(data, t + 1, b)
        q = data.reward[t, b] + GAMMA * bootstrap
        return float(np.minimum(pg_rho_bar, ratio[t, b]) * (q - data.value[t, b]))

    return each_row(data, target), each_row(data, advantage)


def arguments(data: Data, lam: float, *names: str) -> dict[str, Tensor]:
    tensors = {
        "reward": torch.from_numpy(data.reward),
        "value": torch.from_numpy(data.value),
        "next_value": torch.from_numpy(data.next_value),
        "log_rho": torch.from_numpy(data.log_rho),
        "discount": GAMMA * torch.from_numpy(~data.terminated).double(),
        "lam": lam * torch.from_numpy(~data.truncated).double(),
    }
    return {name: tensors[name] for name in names}


def run_gae(data: Data, lam: float) -> Array:
    return gae(**arguments(data, lam, "reward", "discount", "value", "next_value", "lam")).numpy()


def run_lambda_return(data: Data, lam: float) -> Array:
    return lambda_return(**arguments(data, lam, "reward", "discount", "next_value", "lam")).numpy()


def run_n_step(data: Data, n: int) -> Array:
    return n_step(**arguments(data, 1.0, "reward", "discount", "next_value", "lam"), n=n).numpy()


def run_vtrace(data: Data, lam: float, *bars: float) -> tuple[Array, Array]:
    names = ("reward", "discount", "value", "next_value", "log_rho", "lam")
    limits = dict(zip(("rho_bar", "c_bar", "pg_rho_bar"), bars, strict=False))
    result = vtrace(**arguments(data, lam, *names), **limits)
    return result.target.numpy(), result.advantage.numpy()


def assert_equal(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


each_trajectory = pytest.mark.parametrize("data", [random_data(seed, length) for length in LENGTHS for seed in SEEDS])
each_lambda = pytest.mark.parametrize("lam", LAMBDAS)


def test_random_trajectories_hold_every_kind_of_end() -> None:
    kinds, lengths = set(), set()
    for seed in SEEDS:
        data = random_data(seed, LENGTHS[-1])
        kinds |= set(zip(data.terminated[:-1].flat, data.truncated[:-1].flat, strict=True))
        for ended in (data.terminated | data.truncated).T:
            lengths |= set(np.diff(np.flatnonzero(ended)).tolist())
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}
    assert {1, 2, 3, 4} <= lengths


@each_trajectory
@each_lambda
def test_gae_is_the_papers_sum(data: Data, lam: float) -> None:
    assert_equal(run_gae(data, lam), naive_gae(data, lam))


@each_trajectory
@each_lambda
def test_lambda_return_is_the_mixture_of_n_step_returns(data: Data, lam: float) -> None:
    assert_equal(run_lambda_return(data, lam), naive_lambda_return(data, lam))


@each_trajectory
@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_n_step_is_the_books_sum(data: Data, n: int) -> None:
    expected = each_row(data, lambda data, t, b: naive_n_step_return(data, t, b, n))
    assert_equal(run_n_step(data, n), expected)


@each_trajectory
def test_a_segment_returns_the_books_sum_of_its_first_row(data: Data) -> None:
    found = segment_return(**arguments(data, 1.0, "reward", "discount", "next_value", "lam")).numpy()
    rows, columns = data.reward.shape
    assert_equal(found, np.array([naive_n_step_return(data, 0, b, rows) for b in range(columns)]))


@each_trajectory
@each_lambda
@pytest.mark.parametrize("bars", [(1.0, 1.0, 1.0), (3.7, 1.0, 2.2), (0.5, 0.3, 5.0)])
def test_vtrace_is_the_papers_sum(data: Data, lam: float, bars: tuple[float, float, float]) -> None:
    for actual, expected in zip(run_vtrace(data, lam, *bars), naive_vtrace(data, lam, *bars), strict=True):
        assert_equal(actual, expected)


def test_columns_are_independent_and_one_column_needs_no_batch_axis() -> None:
    data = random_data(0, 12)
    column = Data(*(field[:, 1] for field in data))
    assert_equal(run_gae(column, 0.6), run_gae(data, 0.6)[:, 1])
    assert_equal(run_lambda_return(column, 0.6), run_lambda_return(data, 0.6)[:, 1])
    assert_equal(run_n_step(column, 3), run_n_step(data, 3)[:, 1])
    assert_equal(run_vtrace(column, 0.6)[1], run_vtrace(data, 0.6)[1][:, 1])


# Identities.


@each_trajectory
@each_lambda
def test_gae_plus_value_is_lambda_return(data: Data, lam: float) -> None:
    assert_equal(run_gae(data, lam) + data.value, run_lambda_return(data, lam))


@each_trajectory
def test_lambda_zero_is_the_td_error(data: Data) -> None:
    errors = data.reward + GAMMA * np.where(data.terminated, 0, data.next_value) - data.value
    assert_equal(run_gae(data, 0.0), errors)
    assert_equal(run_n_step(data, 1), errors + data.value)


@each_trajectory
def test_lambda_one_is_the_discounted_sum(data: Data) -> None:
    everything = each_row(data, lambda data, t, b: naive_n_step_return(data, t, b, 12))
    assert_equal(run_lambda_return(data, 1.0), everything)
    assert_equal(run_n_step(data, 12), everything)


@each_trajectory
@each_lambda
def test_vtrace_on_policy_is_lambda_return(data: Data, lam: float) -> None:
    target, _ = run_vtrace(data._replace(log_rho=np.zeros_like(data.reward)), lam)
    assert_equal(target, run_lambda_return(data, lam))


@each_trajectory
def test_vtrace_advantage_on_policy_is_gae_of_lambda_one(data: Data) -> None:
    _, advantage = run_vtrace(data._replace(log_rho=np.zeros_like(data.reward)), 1.0)
    assert_equal(advantage, run_gae(data, 1.0))


def test_vtrace_policy_threshold_defaults_to_rho_bar() -> None:
    data = random_data(1, 12)
    assert_equal(run_vtrace(data, 1.0, 0.5, 0.3)[1], run_vtrace(data, 1.0, 0.5, 0.3, 0.5)[1])
    assert not np.allclose(run_vtrace(data, 1.0, 0.5, 0.3)[1], run_vtrace(data, 1.0, 0.5, 0.3, 1.0)[1])


@pytest.mark.parametrize("extreme", [-1e6, 1e6])
def test_vtrace_stays_finite_when_a_ratio_would_not(extreme: float) -> None:
    data = random_data(2, 12)
    data.log_rho[5] = extreme
    limits = (np.inf, np.inf, np.inf)
    assert all(np.isfinite(result).all() for result in run_vtrace(data, 1.0, *limits))


# Numbers published with other libraries; rows of the lists are sequences.


def time_first(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).T


# rlax, multistep_test.py, LambdaReturnsTest.
RETURNS = {
    "reward": time_first([[1, 0, -1, 0, 1], [0.5, 0.8, -0.7, 0, 2.1]]),
    "discount": time_first([[0.5, 0.9, 1, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]]),
    "next_value": time_first([[3, 1, 5, -5, 3], [-1.7, 1.2, 2.3, 2.2, 2.7]]),
}
# rlax, multistep_test.py, DiscountedReturnsTest.
DISCOUNTED = time_first([[1.315, 0.63, 0.7, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.99]])


def ones() -> Tensor:
    return torch.ones(5, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("lam", "expected"),
    [  # rlax, multistep_test.py, TruncatedGeneralizedAdvantageEstimationTest
        (1.0, [[-1.45118, -4.4557, 2.5396, 0.5249, -0.49], [3, 2, 1, 0, -4.9]]),
        (0.7, [[-0.676979, -5.248167, 2.4846, 0.6704, -0.49], [2.2899, 1.73, 1, 0, -4.9]]),
        (0.4, [[0.56731, -6.042, 2.3431, 0.815, -0.49], [1.725, 1.46, 1, 0, -4.9]]),
    ],
)
def test_gae_gives_rlax_numbers(lam: float, expected: list[list[float]]) -> None:
    values = time_first([[1, 4, -3, -2, -1, -1], [-3, -2, -1, 0, 5, -1]])
    actual = gae(
        reward=time_first([[0, 0, 1, 0, -0.5], [0, 0, 0, 0, 1]]),
        discount=time_first([[0.99] * 5, [0.9, 0.9, 0.9, 0, 0.9]]),
        value=values[:-1],
        next_value=values[1:],
        lam=lam * ones(),
    )
    torch.testing.assert_close(actual, time_first(expected), rtol=0, atol=1e-3)


def test_lambda_return_gives_rlax_numbers() -> None:
    expected = time_first(  # rlax, multistep_test.py, LambdaReturnsTest
        [
            [1.6460547, 0.72281253, 0.7375001, 0.6500001, 3.4],
            [0.7866317, 0.9913063, 0.1101501, 2.834, 3.99],
        ]
    )
    actual = lambda_return(**RETURNS, lam=0.75 * ones())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("n", "expected"),
    [  # rlax, multistep_test.py, NStepBootstrappedReturnsTest
        (3, time_first([[2.8, -3.15, 0.7, 1.7, 3.4], [1.2155, 0.714, 0.2576, 3.192, 3.99]])),
        (5, DISCOUNTED),
        (7, DISCOUNTED),
    ],
)
def test_n_step_gives_rlax_numbers(n: int, expected: Tensor) -> None:
    torch.testing.assert_close(n_step(**RETURNS, lam=ones(), n=n), expected, rtol=1e-5, atol=0)


def test_discounted_return_gives_rlax_numbers() -> None:
    torch.testing.assert_close(lambda_return(**RETURNS, lam=ones()), DISCOUNTED, rtol=1e-5, atol=0)


def rlax_vtrace(**limits: float) -> tuple[Tensor, Tensor]:
    """(v - V, advantage) of rlax's two sequences, vtrace_test.py."""
    behaviour = torch.tensor(
        [
            [[8.9, 0.7], [5.0, 1.0], [0.6, 0.1], [-0.9, -0.1]],
            [[0.3, -5.0], [1.0, -8.0], [0.3, 1.7], [4.7, 3.3]],
        ],
        dtype=torch.float64,
    )
    target = torch.tensor(
        [
            [[0.4, 0.5], [9.2, 8.8], [0.7, 4.4], [7.9, 1.4]],
            [[1.0, 0.9], [1.0, -1.0], [-4.3, 8.7], [0.8, 0.3]],
        ],
        dtype=torch.float64,
    )
    action = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 1]])
    log_rho = (target.log_softmax(-1) - behaviour.log_softmax(-1)).gather(-1, action[..., None])[..., 0].T
    values = time_first([[2.1, 1.1, -3.1, 0, 8.4], [3.1, 0.1, -1.1, 7.4, -1.2]])
    result = vtrace(
        reward=time_first([[-1.3, -1.3, 2.3, 42], [1.3, 5.3, -3.3, -5]]),
        discount=time_first([[0, 0.89, 0.85, 0.99], [0.88, 1, 0.83, 0.95]]),
        value=values[:-1],
        next_value=values[1:],
        log_rho=log_rho,
        lam=torch.ones_like(log_rho),
        **limits,
    )
    return result.target - values[:-1], result.advantage


def test_vtrace_gives_rlax_numbers() -> None:
    error, advantage = rlax_vtrace()
    expected = [  # rlax, vtrace_test.py, expected_td and expected_pg
        [-1.6155143, -3.4973226, 1.8670533, 50.316002],
        [1.4662437, 3.6116405, -8.3327293e-5, -13.54],
    ]
    torch.testing.assert_close(error, time_first(expected), rtol=1e-3, atol=0)
    torch.testing.assert_close(advantage, time_first(expected), rtol=1e-3, atol=0)


def test_vtrace_policy_threshold_clips_only_the_advantage() -> None:
    error, advantage = rlax_vtrace(pg_rho_bar=5.0)
    # rlax's inputs worked through the paper's formulas in numpy, apart from this package.
    expected = [
        [-1.61551435, -17.48661213, 1.86705345, 162.05268101],
        [7.33121708, 3.61164025, -8.337e-5, -25.84168002],
    ]
    torch.testing.assert_close(advantage, time_first(expected), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(error, rlax_vtrace()[0], rtol=0, atol=0)


def test_vtrace_with_three_different_thresholds() -> None:
    error, advantage = rlax_vtrace(rho_bar=3.7, c_bar=1.0, pg_rho_bar=2.2)
    # rlax's inputs worked through the paper's formulas in numpy, apart from this package.
    expected_error = [
        [-1.61551435, -14.15021858, 5.54840609, 162.05268101],
        [-3.15624702, 3.61153747, -2.0e-4, -25.84168002],
    ]
    expected_advantage = [
        [-1.61551435, -0.48602087, 5.54840609, 110.6952],
        [3.22553655, 3.61153747, -2.0e-4, -25.84168002],
    ]
    torch.testing.assert_close(error, time_first(expected_error), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(advantage, time_first(expected_advantage), rtol=1e-6, atol=1e-5)


# Truncation, by hand: row 1 is truncated with V(s') = 3, row 2 terminates; γ = 0.9.

BY_HAND = Data(
    reward=np.array([1, 0, 2, -1, 0.5]),
    value=np.array([0.5, 1, -0.5, 2, 0.3]),
    next_value=np.array([1, 3, 7, 0.3, 1.5]),
    log_rho=np.zeros(5),
    terminated=np.array([False, False, True, False, False]),
    truncated=np.array([False, True, False, False, False]),
)


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        # δ = r + 0.9 V(s') - V: 1.4, 1.7, 2.5, -2.73, 1.55; then A_0 = 1.4 + 0.9 λ 1.7, A_3 = -2.73 + 0.9 λ 1.55.
        (0.0, [1.4, 1.7, 2.5, -2.73, 1.55]),
        (0.8, [2.624, 1.7, 2.5, -1.614, 1.55]),
        (1.0, [2.93, 1.7, 2.5, -1.335, 1.55]),
    ],
)
def test_gae_bootstraps_and_cuts_at_a_truncation(lam: float, expected: list[float]) -> None:
    assert_equal(run_gae(BY_HAND, lam), np.array(expected))


def test_lambda_return_bootstraps_and_cuts_at_a_truncation() -> None:
    # The advantages of λ = 0.8 plus V.
    assert_equal(run_lambda_return(BY_HAND, 0.8), np.array([3.124, 2.7, 2, 0.386, 1.85]))


def test_truncation_as_termination_gives_the_known_wrong_numbers() -> None:
    terminal = BY_HAND._replace(terminated=BY_HAND.terminated | BY_HAND.truncated)
    # δ_1 = 0 - 1 and A_0 = 1.4 - 0.9 · 0.8 · 1.
    assert_equal(run_gae(terminal, 0.8), np.array([0.68, -1, 2.5, -1.614, 1.55]))
    assert not np.allclose(run_gae(BY_HAND, 0.8)[:2], run_gae(terminal, 0.8)[:2])


def test_trace_that_crosses_a_truncation_would_show() -> None:
    crossing = BY_HAND._replace(truncated=np.zeros(5, np.bool_))
    # A_1 = 1.7 + 0.9 · 0.8 · 2.5 would take in the reward of another episode.
    assert_equal(run_gae(crossing, 0.8)[1:2], np.array([3.5]))


@pytest.mark.parametrize("row", [0, 1, 3, 4])
def test_both_flags_at_once_are_a_termination(row: int) -> None:
    terminated, truncated = BY_HAND.terminated.copy(), BY_HAND.truncated.copy()
    terminated[row] = True
    alone = BY_HAND._replace(terminated=terminated)
    truncated[row] = True
    both = alone._replace(truncated=truncated)
    assert_equal(run_gae(both, 0.8), run_gae(alone, 0.8))
    assert_equal(run_lambda_return(both, 0.8), run_lambda_return(alone, 0.8))
    assert_equal(run_n_step(both, 3), run_n_step(alone, 3))
    for mine, theirs in zip(run_vtrace(both, 0.8), run_vtrace(alone, 0.8), strict=True):
        assert_equal(mine, theirs)


# torchrl issue 4209: episode A, V = 1, is truncated; the next row begins episode B, V = 100; no rewards, γ = 1.


def vtrace_advantage_at_truncation(successor: float) -> float:
    zero, one = torch.zeros(2), torch.ones(2)
    result = vtrace(
        reward=zero,
        discount=one,
        value=torch.tensor([1.0, 100.0]),
        next_value=torch.tensor([successor, 100.0]),
        log_rho=zero,
        lam=1.0 * ~torch.tensor([True, False]),
    )
    return float(result.advantage[0])


def test_vtrace_at_a_truncation_knows_nothing_of_the_next_episode() -> None:
    assert vtrace_advantage_at_truncation(successor=1.0) == 0


def test_vtrace_with_the_next_row_as_successor_gives_torchrls_wrong_number() -> None:
    assert vtrace_advantage_at_truncation(successor=100.0) == 99


def test_vtrace_with_the_next_rows_v_at_a_truncation_would_show() -> None:
    data = random_data(3, 12)
    _, right = naive_vtrace(data, 1.0, 1.0, 1.0, 1.0)
    target, advantage = run_vtrace(data, 1.0)
    cut = data.truncated[:-1] & ~data.terminated[:-1]
    wrong = np.minimum(1, np.exp(data.log_rho)) * (data.reward - data.value)
    wrong[:-1] += np.minimum(1, np.exp(data.log_rho[:-1])) * GAMMA * target[1:]
    assert cut.any()
    assert_equal(advantage[:-1][cut], right[:-1][cut])
    assert (np.abs(wrong[:-1][cut] - right[:-1][cut]) > 1e-3).all()


# Whitened advantages.


@pytest.mark.parametrize("shape", [(), (2,)])
def test_the_action_executed_next_is_the_next_rows_where_the_episode_goes_on(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    action, drawn = torch.randn(2, 6, 3, *shape, generator=generator)
    ended = torch.rand(6, 3, generator=generator) < 0.3
    found = executed_next(action, drawn=drawn, ended=ended)
    assert ended[:-1].any()
    assert not ended[:-1].all()
    for t, b in np.ndindex(6, 3):
        known = t < 5 and not ended[t, b]
        assert torch.equal(found[t, b], action[t + 1, b] if known else drawn[t, b])


@pytest.mark.parametrize("shape", [(2,), (5, 3), (64,)])
def test_standardized_advantages_have_mean_0_and_standard_deviation_1(shape: tuple[int, ...]) -> None:
    advantage = np.random.default_rng(0).normal(3, 7, shape)
    expected = (advantage - np.mean(advantage)) / (np.sqrt(np.var(advantage, ddof=1)) + 1e-8)
    np.testing.assert_allclose(standardize(torch.from_numpy(advantage)), expected, rtol=1e-12)
    assert abs(expected - (advantage - np.mean(advantage)) / np.std(advantage)).max() > 1e-3 / len(advantage)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_single_advantage_stays_as_it_is(shape: tuple[int, ...]) -> None:
    assert torch.equal(standardize(torch.full(shape, -2.5)), torch.full(shape, -2.5))


def test_standardize_is_one_graph() -> None:
    compiled = torch.compile(standardize, fullgraph=True, backend="eager")
    for size in (1, 2, 7):
        advantage = torch.arange(float(size))
        assert torch.equal(compiled(advantage), standardize(advantage))


WHITENING = [
    name
    for name in sorted(registry.load().algorithms)
    if "normalize_advantage" in registry.load_class(name).Config.__dataclass_fields__
]


@pytest.mark.parametrize("name", WHITENING)
def test_a_rollout_of_a_single_row_is_learned_from(name: str) -> None:
    assert {"a2c", "impala", "ppo", "qac"} <= set(WHITENING)
    spec = Spec(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))
    config_type = registry.load_class(name).Config
    known = {"normalize_advantage": True, "num_steps": 1, "batch_size": 2}  # PPO's last minibatch may be smaller
    config = config_type(**{key: value for key, value in known.items() if key in config_type.__dataclass_fields__})
    algo: Any = registry.make(name, spec, config, SeedSequence(0))
    before = torch.cat([p.detach().flatten().clone() for p in algo.parameters()])
    one, no = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.bool)
    obs = torch.full((1, 1, 2), 0.5)
    metrics = algo.update(Transition(obs, one.long(), one, -obs, no, no, -one), Progress(1, 10))
    after = torch.cat([p.detach().flatten() for p in algo.parameters()])
    assert all(torch.isfinite(value).all() for value in [*metrics.values(), after])
    assert (after != before).any()
