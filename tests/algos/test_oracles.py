"""Each update rule against the exact solution of a small problem, and against the other rules where they must agree."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from numpy.testing import assert_allclose
from probes import ScriptedEnv, TruncationIsTermination
from tabular import (
    ACTIONS,
    GAMMA,
    MU,
    NOTHING,
    NOW,
    PI,
    SPEC,
    STATES,
    Array,
    Descent,
    M3Env,
    P,
    R,
    Still,
    Table,
    action_value,
    discounted_visits,
    drawn,
    live,
    make,
    outcomes,
    soft,
    soft_optimum,
    tabulate,
    tenths,
    value,
)
from torch import Tensor, nn

from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.parts.discrete import EpsilonGreedy
from zoo.parts.targets import vtrace
from zoo.protocol import Segment, Transition, map_fields
from zoo.spec import Spec

EPSILON = 0.4  # ε-greedy probabilities are then tenths: 0.8 and 0.2

# Solved once with numpy, to all digits shown.
V_PI = [6.5404559, 6.94514551, 5.51312125]
Q_PI = [[6.9956765, 4.71957349], [5.82756234, 7.42410972], [5.90449373, 5.12174877]]
Q_STAR = [[11.01568753, 8.64623019], [9.80390587, 11.3918681], [9.85513046, 9.1143749]]
POLICY_GRADIENT = [[1.63421891, -1.63421891], [-0.97075124, 0.97075124], [0.51214509, -0.51214509]]
V_RHO = {
    0.5: [1.97144828, 2.46754017, 1.18929315],
    1.0: [4.38529974, 4.76789153, 3.28493715],
    2.0: [6.1356367, 6.4940537, 4.90815467],
}


@pytest.fixture(autouse=True)
def _doubles() -> Iterator[None]:
    """Fixed points to more digits than float32 has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


def no(like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=torch.bool)


def clipped(rho_bar: float) -> Array:
    """π_ρ̄, the policy whose value V-trace finds.                          Espeholt et al. 2018, equation 3"""
    policy = np.minimum(rho_bar * MU, PI)
    return policy / policy.sum(-1, keepdims=True)


# The solver of the oracles, against numbers found elsewhere and against what defines them.


def test_solutions_are_the_documented_numbers() -> None:
    assert_allclose(value(PI), V_PI, atol=1e-7)
    assert_allclose(action_value(value(PI)), Q_PI, atol=1e-7)
    assert_allclose(soft_optimum(0), Q_STAR, atol=1e-7)
    for rho_bar, expected in V_RHO.items():
        assert_allclose(value(clipped(rho_bar)), expected, atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.0, EPSILON])
def test_optimum_is_the_fixed_point_of_its_own_greedy_policy(epsilon: float) -> None:
    q = soft_optimum(epsilon)
    assert_allclose(action_value((soft(q.argmax(-1), epsilon) * q).sum(-1)), q, atol=1e-12)


def test_policy_gradient_is_the_slope_of_the_return() -> None:
    def start_value(logits: Array) -> float:
        policy = np.exp(logits)
        return float(value(policy / policy.sum(-1, keepdims=True))[0])

    slope, h = np.zeros((STATES, ACTIONS)), 1e-5
    for cell in np.ndindex(slope.shape):
        nudge = np.zeros_like(slope)
        nudge[cell] = h
        slope[cell] = (start_value(np.log(PI) + nudge) - start_value(np.log(PI) - nudge)) / (2 * h)
    assert_allclose(slope, POLICY_GRADIENT, atol=1e-7)


def test_environment_is_the_mdp() -> None:
    env, counts, steps = M3Env(limit=7), np.zeros((STATES, ACTIONS, STATES)), 20_000
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    for step in range(1, steps + 1):
        action = rng.integers(ACTIONS)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        assert reward == R[obs, action]
        assert (terminated, truncated) == (False, step % 7 == 0)
        counts[obs, action, next_obs] += 1
        obs = env.reset()[0] if truncated else next_obs
    visits = counts.sum(-1, keepdims=True)
    # Five standard errors of a binomial share.
    assert (np.abs(counts / visits - P) <= 5 * np.sqrt(P * (1 - P) / visits)).all()


# Value-based: fixed points.


def replayed() -> Segment:
    """Every outcome, exactly as often as it is likely, as one sample of a replay."""
    obs, action, reward, next_obs = (field[None] for field in outcomes())
    return drawn(Transition(obs, action, reward, next_obs, no(obs), no(obs), torch.zeros(obs.shape)))


def solve_dqn(name: str = "dqn", **settings: Any) -> list[Array]:
    """Q after each of many updates. A step of 3 undoes mse's factor 2 and the 1/6 of the rows that a cell has."""
    algo = tabulate(make(name, SPEC, gamma=GAMMA, loss="mse", learning_rate=3.0, capacity=60, **settings))
    found, batch = [], replayed()
    for _ in range(300):
        algo.update(batch, NOW)
        found.append(algo.q.table)
    return found


@pytest.mark.parametrize(
    ("name", "settings"),
    [("dqn", {}), ("d3qn", {"double": False}), ("d3qn", {"double": True, "priority_exponent": 0.0})],
    ids=str,
)
def test_dqn_is_value_iteration(name: str, settings: dict[str, Any]) -> None:
    q = NOTHING
    for found in solve_dqn(name, target_every=1, **settings):
        q = action_value(q.max(-1))
        assert_allclose(found, q, atol=1e-9)
    assert_allclose(q, Q_STAR, atol=1e-7)


@pytest.mark.parametrize("settings", [{"target_every": 3}, {"target_every": 1, "tau": 0.5}], ids=str)
def test_dqn_with_an_older_target_has_the_same_fixed_point(settings: dict[str, Any]) -> None:
    first, *_, last = solve_dqn(**settings)
    assert_allclose(first, R, atol=1e-12)
    assert_allclose(last, Q_STAR, atol=1e-3)


def test_dqn_bootstraps_from_the_target_which_moves_only_when_it_is_due() -> None:
    found, rewards, once = solve_dqn(target_every=3), R, action_value(R.max(-1))
    for q, expected in zip(found, [rewards] * 3 + [once] * 3, strict=False):
        assert_allclose(q, expected, atol=1e-12)


def followed(q: Array, policy: Array) -> Transition:
    """Two steps, (2, 600): each outcome, and after it the actions of `policy`, all as often as they are likely.

    The second step ends with just the value that `q` gives it, so that only the first has anything to teach.
    """
    rows = [field.repeat_interleave(10) for field in outcomes()]
    obs, action, reward, next_obs = rows
    next_action = torch.cat([torch.from_numpy(tenths(policy[s])) for s in next_obs[::10]])
    last = torch.ones(len(obs), dtype=torch.bool)
    return Transition(
        torch.stack([obs, next_obs]),
        torch.stack([action, next_action]),
        torch.stack([reward, torch.from_numpy(q)[next_obs, next_action]]),
        torch.stack([next_obs, obs]),
        torch.stack([~last, last]),
        torch.stack([~last, ~last]),
        torch.zeros(2, len(obs)),
    )


def solve_sarsa(policy: Array | None, **settings: Any) -> Array:
    """Q learned from data of `policy`, or (None) of SARSA's own; a step of 6, since half of the rows teach nothing."""
    algo = make("sarsa", SPEC, gamma=GAMMA, loss="mse", learning_rate=6.0, epsilon_end=EPSILON, **settings)
    tabulate(algo)
    for _ in range(160):
        q = algo.q.table
        algo.update(followed(q, soft(q.argmax(-1), EPSILON) if policy is None else policy), NOW)
    return algo.q.table


@pytest.mark.parametrize("expected", [False, True])
def test_sarsa_finds_q_of_its_own_policy(expected: bool) -> None:
    found = solve_sarsa(None, expected=expected)
    assert_allclose(found, soft_optimum(EPSILON), atol=1e-6)
    # Neither the mean nor the executed action is the greedy one.
    assert np.abs(found - Q_STAR).min() > 1


def test_sarsa_finds_q_of_whoever_acts() -> None:
    assert_allclose(solve_sarsa(PI), Q_PI, atol=1e-6)


def test_expected_sarsa_does_not_care_who_acts() -> None:
    assert_allclose(solve_sarsa(PI, expected=True), soft_optimum(EPSILON), atol=1e-6)


def test_dqn_on_the_same_data_would_not_find_q_of_whoever_acts() -> None:
    # The maximum where SARSA has a': the rule that sarsa.py must not contain.
    assert np.abs(solve_dqn(target_every=1)[-1] - Q_PI).min() > 1


def rollout(seed: int, *, num_steps: int = 6, num_envs: int = 64) -> Transition:
    """Random steps of the MDP with both kinds of ends, time first."""
    rng = np.random.default_rng(seed)
    shape = num_steps, num_envs
    obs, action = rng.integers(STATES, size=shape), rng.integers(ACTIONS, size=shape)
    terminated, truncated = rng.random(shape) < 0.15, rng.random(shape) < 0.15
    next_obs = rng.integers(STATES, size=shape)
    next_obs[:-1] = np.where((terminated | truncated)[:-1], next_obs[:-1], obs[1:])
    fields = obs, action, R[obs, action], next_obs, terminated, truncated, np.full(shape, np.log(1 / ACTIONS))
    return Transition(*map(torch.from_numpy, fields))


def sarsa_loss(batch: Transition, next_action: Array, q: Array) -> float:
    """Mean squared error by a loop, for an action after each step, (T, B)."""
    obs, action, reward, next_obs, terminated, *_ = (field.numpy() for field in batch)
    errors = []
    for cell in np.ndindex(obs.shape):
        future = 0.0 if terminated[cell] else q[next_obs[cell], next_action[cell]]
        errors.append(reward[cell] + GAMMA * future - q[obs[cell], action[cell]])
    return float(np.mean(np.square(errors)))


def sarsa_bootstrap(batch: Transition, next_action: Tensor, q: Array) -> float:
    """The loss of SARSA's update on `batch` less that of a loop with these actions, (T, B)."""
    algo = tabulate(make("sarsa", SPEC, gamma=GAMMA, loss="mse", epsilon_end=1.0), q)
    loss: float = algo.update(batch, NOW)["q_loss"].item()
    return loss - sarsa_loss(batch, next_action.numpy(), q)


def test_sarsa_bootstraps_from_the_actions_that_were_executed() -> None:
    q, batch = np.array(Q_PI), rollout(0)
    # Chance decides at truncations and in the last row; without the one, and with a terminated other, nothing does.
    batch = batch._replace(truncated=no(batch.truncated), terminated=batch.terminated.clone())
    batch.terminated[-1] = True
    executed = torch.cat([batch.action[1:], batch.action[-1:]])
    assert sarsa_bootstrap(batch, executed, q) == pytest.approx(0, abs=1e-12)
    # Actions of other environments make another update.
    assert abs(sarsa_bootstrap(batch, executed.roll(1, -1), q)) > 1e-6


def test_sarsa_draws_an_action_where_none_was_executed_next() -> None:
    q, batch = np.array(Q_PI), rollout(1)
    generator = make("sarsa", SPEC).generator
    noise = EpsilonGreedy.noise(*batch.reward.shape, generator=generator)
    drawn = (noise[..., 1] * ACTIONS).long()  # ε = 1: all explore
    unknown = batch.truncated | batch.terminated
    unknown[-1] = True
    next_action = torch.where(unknown, drawn, batch.action.roll(-1, 0))
    assert sarsa_bootstrap(batch, next_action, q) == pytest.approx(0, abs=1e-12)
    for row in (-1, slice(-1)):  # neither in the last row nor at truncations before it would another action do
        other = next_action.clone()
        other[row] = torch.where(unknown[row], 1 - other[row], other[row])
        assert abs(sarsa_bootstrap(batch, other, q)) > 1e-6


def test_sarsa_acts_the_same_in_a_process_that_has_its_weights_alone() -> None:
    learner, actor = (tabulate(make("sarsa", SPEC, gamma=GAMMA, epsilon_end=0.5)) for _ in range(2))
    batch = rollout(2)
    learner.update(batch, NOW)
    actor.load_state_dict(learner.state_dict())
    actor.generator.set_state(learner.generator.get_state())
    found, _ = actor.act(batch.next_obs[-1], NOW)  # where the target has just drawn a'
    assert torch.equal(found, learner.act(batch.next_obs[-1], NOW)[0])
    assert not torch.equal(found, learner.act(batch.next_obs[-1], NOW)[0])  # chance would have to agree 64 times


def learned_by_sarsa(env: Any) -> Array:
    """Q from living in an environment, with a step size that falls to a hundredth."""
    settings = {"num_steps": 4, "learning_rate": 1.0, "learning_rate_end": 0.01, "epsilon_start": EPSILON}
    algo = make("sarsa", SPEC, seed=1, gamma=GAMMA, loss="mse", epsilon_end=EPSILON, **settings)
    live(tabulate(algo), env, num_envs=64, total_steps=100_000, seed=2)
    return algo.q.table


def test_sarsa_learns_q_of_an_endless_task_from_episodes_that_are_cut() -> None:
    # Most seeds are off by 0.03; the soft optimum itself is 2.7 below Q*.
    assert_allclose(learned_by_sarsa(M3Env), soft_optimum(EPSILON), atol=0.15)


def test_sarsa_would_notice_if_a_cut_were_an_end() -> None:
    found = learned_by_sarsa(lambda: TruncationIsTermination(M3Env()))
    assert (found < soft_optimum(EPSILON) - 0.5).all()


# QAC: the policy gradient theorem.


def chosen_by_pi() -> tuple[Tensor, Tensor]:
    """obs, action (30,): ten rows for each state, their actions exactly as π has them."""
    return torch.arange(STATES).repeat_interleave(10), torch.from_numpy(np.concatenate([tenths(p) for p in PI]))


def weigh(gradient: Tensor) -> Array:
    """Ascent direction in the logits, (S, A), of a loss that is the mean of thirty rows, ten for each state.

    The theorem for J = V(s₀) weighs states by d_γ, their discounted visits, not normalised; a batch weighs them
    equally. Tables keep states apart, so the weights can be exchanged afterwards.
    """
    return -STATES * discounted_visits(PI)[:, None] * gradient.numpy().T


def qac_gradient(q: Any, **settings: Any) -> Array:
    """What QAC's own update does to the logits of π, driven by the table `q`."""
    algo = make("qac", SPEC, gamma=GAMMA, **settings)
    algo.actor.net, algo.critic.net = Table(np.log(PI)), Table(q)
    algo.actor_optimizer, algo.critic_optimizer = Descent(algo.actor.parameters()), Still()
    obs, action = (field[None] for field in chosen_by_pi())
    zero = torch.zeros(obs.shape)
    algo.update(Transition(obs, action, zero, obs, no(obs), no(obs), zero), NOW)
    (gradient,) = algo.actor_optimizer.gradient
    return weigh(gradient)


@pytest.mark.parametrize("baseline", [False, True])
def test_qac_with_the_exact_q_follows_the_exact_policy_gradient(baseline: bool) -> None:
    found = qac_gradient(action_value(value(PI)), baseline=baseline)
    assert_allclose(found, POLICY_GRADIENT, atol=1e-6)


def test_qac_driven_by_v_would_not_move() -> None:
    values = np.repeat(value(PI)[:, None], ACTIONS, 1)
    assert_allclose(qac_gradient(values), 0, atol=1e-9)


def test_qac_driven_by_another_policys_q_would_go_elsewhere() -> None:
    assert np.abs(qac_gradient(Q_STAR) - POLICY_GRADIENT).max() > 0.05


@pytest.mark.parametrize("detached", [True, False])
def test_baseline_must_not_be_differentiated(detached: bool) -> None:
    logits = torch.tensor(np.log(PI), requires_grad=True)
    q = torch.from_numpy(action_value(value(PI)))
    log_probs = logits.log_softmax(-1)
    baseline = (log_probs.exp() * q).sum(-1)
    obs, action = chosen_by_pi()
    advantage = q[obs, action] - (baseline.detach() if detached else baseline)[obs]
    (gradient,) = torch.autograd.grad(-(advantage * log_probs[obs, action]).mean(), logits)
    error = np.abs(weigh(gradient.T) - POLICY_GRADIENT).max()
    assert error < 1e-6 if detached else error > 0.1


@pytest.mark.parametrize("baseline", [False, True])
def test_qac_critic_finds_q_of_its_policy_whatever_drives_the_actor(baseline: bool) -> None:
    algo = make("qac", SPEC, gamma=GAMMA, learning_rate=6.0, baseline=baseline)
    algo.actor.net, algo.critic.net = Table(np.log(PI)), Table(NOTHING)
    algo.actor_optimizer, algo.critic_optimizer = Still(), Descent(algo.critic.parameters())
    for _ in range(160):
        algo.update(followed(algo.critic.net.table, PI), NOW)
    assert_allclose(algo.critic.net.table, Q_PI, atol=1e-6)


# V-trace and IMPALA: the fixed point is V of π_ρ̄.


def solve_impala(**settings: Any) -> Array:
    """V learned by IMPALA from every outcome under μ, (1, 300), while π stays as it is.

    A step of 3 undoes mse's factor 2, the coefficient ½ and the third of the rows that a state has.
    """
    obs, action, reward, next_obs = outcomes()
    times = torch.from_numpy(np.rint(10 * MU)).long()[obs, action]
    batch = [field.repeat_interleave(times)[None] for field in (obs, action, reward, next_obs)]
    log_prob = torch.from_numpy(np.log(MU))[batch[0], batch[1]]
    algo = make("impala", SPEC, gamma=GAMMA, vf_coef=0.5, learning_rate=3.0, **settings)
    algo.actor.net, algo.critic.net = Table(np.log(PI)), Table(np.zeros((STATES, 1)))
    algo.optimizer = Descent(algo.critic.parameters())
    for _ in range(500):
        algo.update(Transition(*batch, no(log_prob), no(log_prob), log_prob), NOW)
    return algo.critic.net.table[:, 0]


@pytest.mark.parametrize("rho_bar", V_RHO)
def test_impala_finds_the_value_of_the_clipped_policy(rho_bar: float) -> None:
    assert_allclose(solve_impala(rho_bar=rho_bar, c_bar=0.5), V_RHO[rho_bar], atol=1e-6)


def test_impala_with_a_high_clip_finds_the_value_of_its_policy() -> None:
    assert_allclose(solve_impala(rho_bar=100.0), V_PI, atol=1e-6)


def test_impala_without_correction_finds_the_value_of_the_behaviour() -> None:
    found = solve_impala(correct=False)
    assert_allclose(found, value(MU), atol=1e-6)
    assert all(np.abs(found - expected).max() > 0.3 for expected in (*V_RHO.values(), V_PI))


def solve_vtrace(rho_bar: float, c_bar: float, lam: float = 1.0, *, correct: bool = True) -> tuple[Array, int]:
    """The fixed point of the expected target over all paths of three steps under μ, and how long it took."""
    steps = [(a, s) for a in range(ACTIONS) for s in range(STATES)]
    paths = [(start, *path) for start in range(STATES) for path in product(steps, repeat=3)]
    obs = np.array([[start, *(s for _, s in path)] for start, *path in paths]).T  # (4, paths)
    action = np.array([[a for a, _ in path] for _, *path in paths]).T  # (3, paths)
    state, successor = obs[:-1], obs[1:]
    chance = (MU[state, action] * P[state, action, successor]).prod(0)
    log_rho = torch.from_numpy(np.log(PI / MU)[state, action]) * correct
    discount, reward = torch.full(log_rho.shape, GAMMA), torch.from_numpy(R[state, action])
    found = np.zeros(STATES)
    for count in range(1000):
        target, _ = vtrace(
            reward=reward,
            discount=discount,
            value=torch.from_numpy(found[state]),
            next_value=torch.from_numpy(found[successor]),
            log_rho=log_rho,
            lam=torch.full(log_rho.shape, lam),
            rho_bar=rho_bar,
            c_bar=c_bar,
        )
        before, found = found, np.bincount(obs[0], chance * target[0].numpy())
        if np.abs(found - before).max() < 1e-10:
            return found, count
    raise AssertionError(found)


@pytest.mark.parametrize("rho_bar", V_RHO)
def test_vtrace_fixed_point_depends_on_rho_bar_and_speed_on_the_traces(rho_bar: float) -> None:
    counts = []
    for c_bar, lam in ((rho_bar, 1.0), (0.3 * rho_bar, 1.0), (rho_bar, 0.0)):
        found, count = solve_vtrace(rho_bar, c_bar, lam)
        assert_allclose(found, V_RHO[rho_bar], atol=1e-7)
        counts.append(count)
    assert counts[0] < counts[1] < counts[2]


def test_vtrace_without_correction_finds_the_value_of_the_behaviour() -> None:
    assert_allclose(solve_vtrace(1.0, 1.0, correct=False)[0], value(MU), atol=1e-7)


# SAC: with α fixed, π(a) ∝ exp(Q(a) / α).

MEAN, STD = 0.4, 0.3
ALPHA = 0.5


class Known(nn.Module):
    """Two critics that know Q: for α = ALPHA the best policy is tanh of N(MEAN, STD²), exactly.

    Q / α = log density + constant = -(atanh a - MEAN)² / 2 STD² - log(1 - a²).
    """

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return known_q(action[..., 0]).expand(2, *action.shape[:-1]) + 0 * self.unused


def known_q(action: Tensor) -> Tensor:
    return ALPHA * (-((action.atanh() - MEAN) ** 2) / (2 * STD**2) - (1 - action**2).log())


def sac_policy(alpha: float) -> tuple[float, float]:
    """Mean and standard deviation, before tanh, that SAC learns for the known Q in the only state there is."""
    spec = Spec(spaces.Box(0, 1, (1,)), spaces.Box(-1, 1, (1,)))
    algo = make("sac", spec, alpha=alpha, learn_alpha=False, gamma=0.0, learning_rate=0.01, hidden=(8,))
    algo.critic, algo.target_critic = Known(), Known().requires_grad_(False)
    algo.critic_optimizer = Descent(algo.critic.parameters())
    obs = torch.ones(1, 1024, 1)
    zero = torch.zeros(1, 1024)
    batch = drawn(Transition(obs, obs * 0, zero, obs, no(zero), no(zero), zero))
    found = []
    for _ in range(600):
        algo.update(batch, NOW)
        policy = algo.actor(obs[0, :1])
        found.append([policy.mean.item(), policy.log_std.exp().item()])
    mean, std = np.mean(found[300:], 0)
    return mean, std


def best_in_family(alpha: float) -> tuple[float, float]:
    """The squashed Gaussian that maximises E[Q] + α H, by quadrature over a grid of means and deviations."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    mean, std = np.meshgrid(np.linspace(0, 1, 101), np.linspace(0.1, 0.8, 71), indexing="ij")
    raw = mean[..., None] + std[..., None] * nodes
    # H of tanh u is H of u plus E[log(1 - tanh² u)]; log(1 - tanh² u) = 2 (log 2 - u - softplus(-2u)).
    slope = 2 * (np.log(2) - raw - np.logaddexp(0, -2 * raw))
    q = ALPHA * (-((raw - MEAN) ** 2) / (2 * STD**2) - slope)
    objective = (q + alpha * slope) @ (weights / weights.sum()) + alpha * np.log(std)
    best = np.unravel_index(objective.argmax(), objective.shape)
    return mean[best], std[best]


def test_quadrature_finds_the_policy_that_the_known_q_was_made_for() -> None:
    assert_allclose(best_in_family(ALPHA), (MEAN, STD), atol=0.011)


@pytest.mark.parametrize("alpha", [0.5 * ALPHA, ALPHA, 2 * ALPHA])
def test_sac_learns_the_density_exp_q_over_alpha(alpha: float) -> None:
    # Within 0.03, of which the grid is 0.01 and Adam's jitter the rest.
    assert_allclose(sac_policy(alpha), best_in_family(alpha), atol=0.03)


def test_another_alpha_is_another_spread() -> None:
    spreads = [best_in_family(factor * ALPHA)[1] for factor in (0.5, 1, 2)]
    assert min(np.diff(spreads)) > 0.06


# Where two entries must agree.

SPACES = {
    "discrete": spaces.Discrete(3),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(-1, 1, (2,)),
}


def first_gradient(name: str, space: spaces.Space[Any], *, log_prob: float | None = None, **settings: Any) -> Tensor:
    """The gradient of an entry's first update on a random rollout with both kinds of ends; same weights for all.

    The rollout's actions are the entry's own, on-policy; their log-probabilities too, unless they are given.
    """
    algo = make(name, Spec(spaces.Box(-1, 1, (3,)), space), gamma=GAMMA, num_steps=7, hidden=(5,), **settings)
    weights = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*algo.actor.parameters(), *algo.critic.parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=weights))
    algo.optimizer = Descent([*algo.actor.parameters(), *algo.critic.parameters()])
    generator = torch.Generator().manual_seed(1)
    shape = 7, 4
    obs, next_obs = (torch.randn(*shape, 3, generator=generator) for _ in range(2))
    terminated, truncated = (torch.rand(shape, generator=generator) < 0.2 for _ in range(2))
    assert (terminated & ~truncated).any()
    assert (truncated & ~terminated).any()
    goes_on = ~(terminated | truncated)[:-1, :, None]
    next_obs[:-1] = torch.where(goes_on, obs[1:], next_obs[:-1])
    reward = torch.randn(shape, generator=generator)
    with torch.no_grad():
        policy = algo.actor(obs)
        action = policy.sample(algo.actor.noise(*shape, generator=generator))
        behaviour = policy.log_prob(action) if log_prob is None else torch.full(shape, log_prob)
    algo.update(Transition(obs, action, reward, next_obs, terminated, truncated, behaviour), NOW)
    return torch.cat([gradient.flatten() for gradient in algo.optimizer.gradient])


each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
SHARED = {"ent_coef": 0.01, "vf_coef": 0.5, "normalize_advantage": False}


@each_space
def test_impala_without_lag_is_a2c(space: spaces.Space[Any]) -> None:
    impala = first_gradient("impala", space, lam=1.0, rho_bar=1.0, c_bar=1.0, **SHARED)
    torch.testing.assert_close(impala, first_gradient("a2c", space, lam=1.0, **SHARED), rtol=1e-9, atol=1e-12)


@each_space
def test_impala_with_lag_is_not_a2c(space: spaces.Space[Any]) -> None:
    lagged = first_gradient("impala", space, lam=1.0, log_prob=-0.1, **SHARED)
    assert not torch.allclose(lagged, first_gradient("a2c", space, lam=1.0, **SHARED), rtol=1e-2)
    uncorrected = first_gradient("impala", space, lam=1.0, log_prob=-0.1, correct=False, **SHARED)
    torch.testing.assert_close(uncorrected, first_gradient("a2c", space, lam=1.0, **SHARED), rtol=1e-9, atol=1e-12)


@each_space
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_ppo_of_one_epoch_and_one_batch_is_a2c(space: spaces.Space[Any], lam: float) -> None:
    ppo = first_gradient("ppo", space, lam=lam, num_epochs=1, batch_size=28, **SHARED)
    torch.testing.assert_close(ppo, first_gradient("a2c", space, lam=lam, **SHARED), rtol=1e-9, atol=1e-12)


@each_space
def test_ppo_with_whitened_advantages_is_not_a2c(space: spaces.Space[Any]) -> None:
    settings = SHARED | {"normalize_advantage": True}
    ppo = first_gradient("ppo", space, lam=1.0, num_epochs=1, batch_size=28, **settings)
    assert not torch.allclose(ppo, first_gradient("a2c", space, lam=1.0, **SHARED), rtol=1e-2)
    torch.testing.assert_close(ppo, first_gradient("a2c", space, lam=1.0, **settings), rtol=1e-6, atol=1e-9)


# DQN's n-step targets, through the replay.


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_dqn_sums_n_rewards_of_one_episode(n: int) -> None:
    vector = vectorize(ScriptedEnv, 1)
    envs = Envs(vector, SeedSequence(0))
    sizes = {"n_step": n, "batch_size": 400, "capacity": 100, "hidden": (8,)}
    algo = make("d3qn", envs.spec, gamma=GAMMA, double=False, **sizes).double()  # DQN's target, and it tells errors
    replay = algo.make_buffer(envs.spec, 1)
    envs.reset()
    history: list[Any] = []
    for step in range(24):  # the script's seven episodes, 19 steps, and five steps on: cut off in mid-episode
        transition, alive, *_ = envs.step(np.array([step % 3]), np.zeros(1))
        replay.add(transition, alive)
        history.append(Transition(*(field[0].copy() for field in transition)))
    assert {(bool(t.terminated), bool(t.truncated)) for t in history} == set(product([False, True], repeat=2))

    batch = map_fields(lambda field: field.double() if field.is_floating_point() else field, replay.sample())
    with torch.no_grad():
        q = algo.q(batch.obs).gather(-1, batch.action[:, None]).squeeze(-1)
    algo.update(batch, NOW)
    target = batch.error + q

    def naive(t: int) -> float:
        total = 0.0
        for k in range(n):
            row = history[t + k]
            total += GAMMA**k * float(row.reward)
            if row.terminated:
                return total
            if row.truncated or k == n - 1 or t + k == len(history) - 1:
                final = torch.from_numpy(row.next_obs).double()
                return total + GAMMA ** (k + 1) * algo.target_q(final).max().item()
        raise AssertionError

    times = {tuple(row.obs.tolist()): t for t, row in enumerate(history)}
    started = [times[tuple(obs.tolist())] for obs in batch.obs]
    assert set(started) == set(range(len(history)))
    assert_allclose(target.numpy(), [naive(t) for t in started], rtol=1e-12)
