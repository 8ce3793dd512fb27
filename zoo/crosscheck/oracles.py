"""Rung 2 for what Stable-Baselines3 does not have: naive sums, tabular updates, exact gradients, and each other.

All in float64, on random data with ends of both kinds.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from torch import Tensor, nn

from zoo import registry
from zoo.crosscheck.check import Check
from zoo.crosscheck.sb3 import precision
from zoo.crosscheck.updates import BOX, DISCRETE, ENVS, NOW, OBS, STEPS, as_segment, drawn, rollout, world
from zoo.parts.discrete import EpsilonGreedy
from zoo.parts.targets import vtrace
from zoo.protocol import Segment, Transition, map_fields
from zoo.spec import Array, Outcomes, Spec

TOLERANCE = 1e-10
STATES, ACTIONS, GAMMA = 6, 4, 0.9


class Table(nn.Module):
    """A row of numbers for each state; observations are states, counted from 0."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows.clone())

    def forward(self, obs: Tensor) -> Tensor:
        return self.rows[obs.squeeze(-1).long()]


class Descent(nn.Module):
    """Plain gradient descent in the place of an optimiser; `gradient` is the last one."""

    def __init__(self, *params: nn.Parameter) -> None:
        super().__init__()
        self.params = list(params)

    def minimize(self, loss: Tensor, learning_rate: Any) -> Tensor:
        """One step down; none at all without parameters."""
        self.gradient = torch.autograd.grad(loss, self.params) if self.params else ()
        with torch.no_grad():
            for param, gradient in zip(self.params, self.gradient, strict=True):
                param.sub_(learning_rate * gradient)
        return torch.zeros(())


def make(name: str, action: Any, **settings: Any) -> Any:
    """An entry in the default dtype."""
    config = registry.load_class(name).Config(**settings)
    algo: Any = registry.make(name, Spec(OBS, action), config, SeedSequence(0))
    return algo.to(torch.get_default_dtype())


def tabular(seed: int, actions: Callable[[Tensor], Tensor]) -> Transition[Tensor]:
    """Random transitions between states, (T, B, 1), whose actions are what `actions` chooses in each state."""
    g, shape = torch.Generator().manual_seed(seed), (STEPS, ENVS)
    stream = torch.randint(STATES, (STEPS + 1, ENVS, 1), generator=g)
    terminated = torch.rand(shape, generator=g) < 0.15
    truncated = ~terminated & (torch.rand(shape, generator=g) < 0.15)
    final = torch.randint(STATES, (*shape, 1), generator=g)
    next_obs = torch.where((terminated | truncated)[..., None], final, stream[1:]).double()
    reward, obs = torch.randn(shape, generator=g), stream[:-1].double()
    return Transition(obs, actions(obs), reward, next_obs, terminated, truncated, torch.zeros(shape))


def uniform(obs: Tensor) -> Tensor:
    """Any action."""
    return torch.randint(ACTIONS, obs.shape[:-1], generator=torch.Generator().manual_seed(1))


def sarsa() -> Iterator[Check]:
    """One step on a table, against Q(s,a) ← Q(s,a) + η 2/(TB) (r + γ Q(s',a') - Q(s,a)), summed row by row."""
    with precision(torch.float64):
        table = torch.randn(STATES, ACTIONS, generator=torch.Generator().manual_seed(0))
        algo = make("sarsa", DISCRETE, gamma=GAMMA, n_step=1, loss="mse", learning_rate=0.5, expected=False)
        algo.q, algo.target_q = Table(table), Table(table)
        algo.optimizer = Descent(algo.q.rows)
        batch = tabular(2, uniform)
        noise = EpsilonGreedy.noise(STEPS, ENVS, generator=torch.Generator().set_state(algo.generator.get_state()))
        drawn = EpsilonGreedy(table[batch.next_obs.squeeze(-1).long()], algo.epsilon(NOW)).sample(noise)
        algo.update(batch, NOW)
        expected = table.clone()
        for t, b in np.ndindex(STEPS, ENVS):
            state, after = (int(obs[t, b, 0]) for obs in (batch.obs, batch.next_obs))
            ended = batch.terminated[t, b] | batch.truncated[t, b] | (t == STEPS - 1)
            next_action = drawn[t, b] if ended else batch.action[t + 1, b]
            future = 0 if batch.terminated[t, b] else GAMMA * table[after, next_action]
            error = batch.reward[t, b] + future - table[state, batch.action[t, b]]
            expected[state, batch.action[t, b]] += 0.5 * 2 / (STEPS * ENVS) * error
        difference = (algo.q.rows - expected).abs().max().item()
    yield Check("sarsa", 2, "tabular SARSA", "one update of a table", difference, TOLERANCE)


def qac() -> Iterator[Check]:
    """The expected gradient over all actions: Σ_s Σ_a ∇π(a|s) Q(s,a), with and without the baseline."""
    for baseline in (False, True):
        with precision(torch.float64):
            g = torch.Generator().manual_seed(0)
            logits, q = torch.randn(STATES, ACTIONS, generator=g), torch.randn(STATES, ACTIONS, generator=g)
            tenths = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1], [7, 1, 1, 1], [2, 2, 2, 4], [1, 1, 7, 1], [5, 3, 1, 1]])
            logits = (tenths / 10).log()
            algo = make("qac", DISCRETE, gamma=GAMMA, baseline=baseline)
            algo.actor.net, algo.critic.net = Table(logits), Table(q)
            algo.actor_optimizer, algo.critic_optimizer = Descent(algo.actor.net.rows), Descent()
            obs = torch.arange(STATES).repeat_interleave(10).double()[None, :, None]
            action = torch.arange(ACTIONS).repeat(STATES).repeat_interleave(tenths.flatten())[None]
            flags = torch.zeros(action.shape, dtype=torch.bool)
            zero = torch.zeros(action.shape)
            algo.update(Transition(obs, action, zero, obs, flags, flags, zero), NOW)
            free = logits.clone().requires_grad_()
            (expected,) = torch.autograd.grad((free.softmax(-1) * q).sum(-1).mean(), free)
            difference = (algo.actor_optimizer.gradient[0] + expected).abs().max().item()
        what = f"gradient of the actor, {'with' if baseline else 'without'} baseline"
        yield Check("qac", 2, "all-action gradient", what, difference, TOLERANCE)


def naive_vtrace(
    batch: Any, value: Tensor, next_value: Tensor, log_rho: Tensor, rho_bar: float, c_bar: float
) -> Tensor:
    """Equation 1 of Espeholt et al. 2018 as it is printed, a sum and a product for each row, cut where time stops."""
    ratio = log_rho.exp()
    rho, c = ratio.clamp(max=rho_bar), ratio.clamp(max=c_bar)
    discount = GAMMA * ~batch.terminated
    delta = rho * (batch.reward + discount * next_value - value)
    target = value.clone()
    for s in range(STEPS):
        weight = torch.ones(ENVS)
        for t in range(s, STEPS):
            target[s] += weight * delta[t]
            weight = weight * discount[t] * c[t] * ~batch.truncated[t]
    return target


def rlax_vtrace() -> tuple[Tensor, Tensor]:
    """V-trace of the two sequences of rlax's vtrace_test.py, (T, B), and what it expects of them."""
    behaviour = [[[8.9, 0.7], [5.0, 1.0], [0.6, 0.1], [-0.9, -0.1]], [[0.3, -5.0], [1.0, -8.0], [0.3, 1.7], [4.7, 3.3]]]
    target = [[[0.4, 0.5], [9.2, 8.8], [0.7, 4.4], [7.9, 1.4]], [[1.0, 0.9], [1.0, -1.0], [-4.3, 8.7], [0.8, 0.3]]]
    action = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 1]])[..., None]
    log_probs = (torch.tensor(logits).log_softmax(-1).gather(-1, action)[..., 0].T for logits in (target, behaviour))
    log_rho = next(log_probs) - next(log_probs)
    value = torch.tensor([[2.1, 1.1, -3.1, 0.0, 8.4], [3.1, 0.1, -1.1, 7.4, -1.2]]).T
    found = vtrace(
        reward=torch.tensor([[-1.3, -1.3, 2.3, 42.0], [1.3, 5.3, -3.3, -5.0]]).T,
        discount=torch.tensor([[0.0, 0.89, 0.85, 0.99], [0.88, 1.0, 0.83, 0.95]]).T,
        value=value[:-1],
        next_value=value[1:],
        log_rho=log_rho,
        lam=torch.ones_like(log_rho),
    )
    expected = [[-1.6155143, -3.4973226, 1.8670533, 50.316002], [1.4662437, 3.6116405, -8.3327293e-5, -13.54]]
    return found.advantage, torch.tensor(expected).T


def impala() -> Iterator[Check]:
    """V-trace against the naive sum, for three clips; A2C's update where nothing lags."""
    for rho_bar, c_bar in ((1.0, 1.0), (2.0, 1.5), (1e9, 1e9)):
        with precision(torch.float64):
            batch = world(torch.Generator().manual_seed(3))
            g = torch.Generator().manual_seed(4)
            value, next_value, log_rho = (torch.randn(STEPS, ENVS, generator=g) for _ in range(3))
            found = vtrace(
                reward=batch.reward,
                discount=GAMMA * ~batch.terminated,
                value=value,
                next_value=next_value,
                log_rho=log_rho,
                lam=1.0 * ~batch.truncated,
                rho_bar=rho_bar,
                c_bar=c_bar,
            ).target
            expected = naive_vtrace(batch, value, next_value, log_rho, rho_bar, c_bar)
        what = f"V-trace, ρ̄ = {rho_bar:g}, c̄ = {c_bar:g}"
        yield Check("impala", 2, "naive sum", what, (found - expected).abs().max().item(), TOLERANCE)
    with precision(torch.float64):
        advantage, expected = rlax_vtrace()
    # Its numbers have eight digits and were computed in float32: 2e-6 of the 50 in them.
    yield Check("impala", 2, "rlax", "V-trace, advantages", (advantage - expected).abs().max().item(), 1e-5)
    settings = {"hidden": (16, 16), "num_steps": STEPS, "ent_coef": 0.01}
    for action, title in ((DISCRETE, "discrete"), (BOX, "Box")):
        other = partial(make, "a2c", action, **settings)
        yield from same_updates("impala", "A2C", f"no lag, {title}", partial(make, "impala", action, **settings), other)


def impala_replay() -> Iterator[Check]:
    """IMPALA's updates, on data of policies that are far from the newest one."""
    with precision(torch.float64):
        one, other = (make(name, DISCRETE, hidden=(16, 16), rho_bar=2.0) for name in ("impala_replay", "impala"))
        other.load_state_dict(one.state_dict())
        g = torch.Generator().manual_seed(10)
        for _ in range(20):
            batch = rollout(one, g)
            batch = batch._replace(log_prob=batch.log_prob + torch.randn(STEPS, ENVS, generator=g))
            one.update(batch, NOW)
            other.update(batch, NOW)
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        difference = max((p - q).abs().max().item() for p, q in pairs)
    yield Check("impala_replay", 2, "IMPALA", "data of other policies: 20 updates", difference, TOLERANCE)


def ppo() -> Iterator[Check]:
    """One epoch of one batch, advantages as they are: A2C's update (arXiv:2205.09123)."""
    shared = {"hidden": (16, 16), "num_steps": STEPS, "ent_coef": 0.01, "lam": 0.9, "learning_rate": 1e-3}
    mine = shared | {"num_epochs": 1, "batch_size": STEPS * ENVS, "normalize_advantage": False}
    for action, title in ((DISCRETE, "discrete"), (BOX, "Box")):
        other = partial(make, "a2c", action, **shared, optimizer="adam")
        title = f"one epoch, one batch, {title}"
        yield from same_updates("ppo", "A2C", title, partial(make, "ppo", action, **mine), other)


def same_updates(
    name: str, reference: str, title: str, make_one: Callable[[], Any], make_other: Callable[[], Any]
) -> Iterator[Check]:
    """Parameters of two on-policy entries after 20 updates from the same weights, on data of the first's policy."""
    with precision(torch.float64):
        one, other = make_one(), make_other()
        nets = ("actor", "critic")
        for net in nets:
            getattr(other, net).load_state_dict(getattr(one, net).state_dict())
        g = torch.Generator().manual_seed(5)
        for _ in range(20):
            batch = rollout(one, g)
            one.update(batch, NOW)
            other.update(batch, NOW)
        pairs = [zip(getattr(one, net).parameters(), getattr(other, net).parameters(), strict=True) for net in nets]
        difference = max((p - q).abs().max().item() for pair in pairs for p, q in pair)
    yield Check(name, 2, reference, f"{title}: 20 updates", difference, TOLERANCE)


def dqn() -> Iterator[Check]:
    """On data of the greedy policy, with a target copy that is always fresh: SARSA's update, for ε = 0."""
    with precision(torch.float64):
        shared = {"hidden": (16, 16), "gamma": GAMMA, "n_step": 1, "target_every": 1, "tau": 1.0, "learning_rate": 1e-3}
        shared |= {"epsilon_start": 0.0, "epsilon_end": 0.0, "max_grad_norm": 10.0, "loss": "huber"}
        one, other = make("dqn", DISCRETE, capacity=100, **shared), make("sarsa", DISCRETE, num_steps=STEPS, **shared)
        other.q.load_state_dict(one.q.state_dict())
        other.target_q.load_state_dict(one.q.state_dict())
        g = torch.Generator().manual_seed(6)
        for _ in range(20):
            batch = world(g)
            batch = batch._replace(action=one.greedy(batch.obs))
            one.update(as_segment(batch), NOW)
            other.update(batch, NOW)
        pairs = zip(one.q.parameters(), other.q.parameters(), strict=True)
        difference = max((p - q).abs().max().item() for p, q in pairs)
    yield Check("dqn", 2, "SARSA", "greedy data, fresh target: 20 updates", difference, TOLERANCE)


def trajectories(rows: Transition[Tensor], n: int) -> Segment:
    """Every run of n rows of a rollout, (T, B, ...), as a sample of a replay, (n, N, ...)."""
    runs = range(STEPS - n + 1)
    return drawn(map_fields(lambda field: torch.cat([field[t : t + n] for t in runs], 1), rows))


def chosen_at_random(g: torch.Generator) -> Transition[Tensor]:
    """A random rollout with random discrete actions, (T, B, ...)."""
    return world(g)._replace(action=torch.randint(int(DISCRETE.n), (STEPS, ENVS), generator=g))


def dueling_q(net: Any, obs: Tensor) -> Tensor:
    """Q of one observation from its two heads, (A,).                                 Wang et al. 2016, equation 9"""
    features = net.body(obs[None])
    value, advantage = net.value(features)[0], net.advantage(features)[0]
    return torch.stack([value[0] + each - advantage.sum() / len(advantage) for each in advantage])


def double_return(algo: Any, batch: Segment, i: int) -> Tensor:
    """Rewards of sample i, discounted, until its trajectory ends, and what follows there: chosen by Q, valued by Q̄."""
    total, weight, rows = torch.zeros(()), 1.0, batch.rows
    for t in range(len(rows.reward)):
        total = total + weight * rows.reward[t, i]
        if rows.terminated[t, i]:
            return total
        weight *= GAMMA
        if rows.truncated[t, i]:
            break
    choice = int(dueling_q(algo.q, rows.next_obs[t, i]).argmax())
    return total + weight * dueling_q(algo.target_q, rows.next_obs[t, i])[choice]


def d3qn() -> Iterator[Check]:
    """DQN's updates without the three extensions; with them the loss and the TD errors, sample by sample."""
    shared = {"hidden": (16, 16), "gamma": GAMMA, "n_step": 3, "capacity": 100, "learning_rate": 1e-3}
    with precision(torch.float64):
        none = {"priority_exponent": 0.0, "double": False, "dueling": False}
        one = make("d3qn", DISCRETE, **shared, **none, target_every=3)
        other = make("dqn", DISCRETE, **shared, target_every=3)
        other.load_state_dict(one.state_dict())
        g = torch.Generator().manual_seed(8)
        for _ in range(20):
            batch = trajectories(chosen_at_random(g), 3)
            one.update(batch, NOW)
            other.update(batch, NOW)
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        difference = max((p - q).abs().max().item() for p, q in pairs)
    yield Check("d3qn", 2, "DQN", "without its extensions: 20 updates", difference, TOLERANCE)
    with precision(torch.float64):
        algo = make("d3qn", DISCRETE, **shared, loss="mse", importance_exponent=0.5, importance_exponent_end=0.5)
        algo.target_q.load_state_dict(make("d3qn", DISCRETE, **shared).q.state_dict())
        g = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for parameter in algo.target_q.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
        batch = trajectories(chosen_at_random(g), 3)
        batch = batch._replace(weight=torch.rand(len(batch.slot), generator=g))
        samples = range(len(batch.slot))
        with torch.no_grad():
            q = torch.stack([dueling_q(algo.q, batch.obs[i])[batch.action[i]] for i in samples])
            error = torch.stack([double_return(algo, batch, i) for i in samples]) - q
            loss = sum(weight**0.5 * each**2 for weight, each in zip(batch.weight, error, strict=True)) / len(samples)
        found = algo.update(batch, NOW)["q_loss"]
    yield Check(
        "d3qn", 2, "naive sum", "weighted loss of a double, dueling target", (found - loss).abs().item(), TOLERANCE
    )
    difference = (batch.error - error).abs().max().item()
    yield Check("d3qn", 2, "naive sum", "TD errors that become priorities", difference, TOLERANCE)


def soft_return(algo: Any, batch: Segment, noise: Tensor, i: int) -> Tensor:
    """Rewards and entropy of sample i, discounted, step by step, until its trajectory ends, and what follows there."""
    total, weight, n, rows = torch.zeros(()), 1.0, len(noise), batch.rows
    for t in range(n):
        total = total + weight * rows.reward[t, i]
        if rows.terminated[t, i]:
            break
        weight *= GAMMA
        action, log_prob = algo.actor(rows.next_obs[t, i][None]).sample(noise[t, i][None])
        total = total - weight * algo.config.alpha * log_prob[0]
        if rows.truncated[t, i] or t == n - 1:
            total = total + weight * algo.target_critic(rows.next_obs[t, i][None], action).min()
            break
    return total


def sac() -> Iterator[Check]:
    """The critics' loss against naive soft returns; of SB3, n-step ones leave out the entropy of the steps between."""
    for n in (1, 3):
        with precision(torch.float64):
            algo = make("sac", BOX, hidden=(16, 16), gamma=GAMMA, n_step=n, capacity=100, alpha=0.3)
            g = torch.Generator().manual_seed(7)
            rows = world(g)
            batch = trajectories(rows._replace(action=2 * torch.rand(STEPS, ENVS, *BOX.shape, generator=g) - 1), n)
            g = torch.Generator().set_state(algo.generator.get_state())
            algo.actor.noise(len(batch.slot), generator=g)  # of the policy's loss
            noise = algo.actor.noise(n, len(batch.slot), generator=g)
            with torch.no_grad():
                target = torch.stack([soft_return(algo, batch, noise, i) for i in range(len(batch.slot))])
                q = algo.critic(batch.obs, batch.action)
                expected = sum(0.5 * (each - target).square().mean() for each in q)
            difference = (algo.update(batch, NOW)["q_loss"] - expected).abs().item()
        yield Check("sac", 2, "naive sum", f"soft returns of {n} step{'s' * (n > 1)}", difference, TOLERANCE)


class Known:
    """The model of a random problem of six states, four actions and three outcomes each, some of which end it."""

    def __init__(self) -> None:
        rng, shape = np.random.default_rng(11), (STATES, ACTIONS, 3)
        self.next_state, self.reward = rng.integers(STATES, size=shape), rng.normal(size=shape)
        self.probability, self.terminated = rng.dirichlet(np.ones(3), shape[:2]), rng.random(shape) < 0.2

    def outcomes(self, obs: Array, actions: Array) -> Outcomes:
        """Return what each action may lead to from each state."""
        fields = (self.next_state, self.probability, self.reward, self.terminated)
        return Outcomes(*(field[obs[:, None], actions] for field in fields))

    def ahead(self, state: int, action: int, value: Any) -> float:
        """Return the mean of what the action brings, outcome by outcome."""
        total = 0.0
        for k in range(3):
            at = state, action, k
            future = 0.0 if self.terminated[at] else GAMMA * float(value[self.next_state[at]])
            total += self.probability[at] * (self.reward[at] + future)
        return total

    def optimum(self) -> Array:
        """Return V*, by policy iteration with exact solves."""
        policy = np.zeros(STATES, np.int64)
        while True:
            moves, rewards = np.zeros((STATES, STATES)), np.zeros(STATES)
            for s, k in np.ndindex(STATES, 3):
                at = s, policy[s], k
                rewards[s] += self.probability[at] * self.reward[at]
                moves[s, self.next_state[at]] += self.probability[at] * ~self.terminated[at]
            value = np.linalg.solve(np.eye(STATES) - GAMMA * moves, rewards)
            q = [[self.ahead(s, a, value) for a in range(ACTIONS)] for s in range(STATES)]
            better = np.argmax(q, 1)
            if (better == policy).all():
                return value
            policy = better


def modelled(name: str, **settings: Any) -> Any:
    """Return an entry on that problem, its V a table and its optimiser plain descent."""
    spec = Spec(spaces.Discrete(STATES), spaces.Discrete(ACTIONS))
    spec.model = Known()
    config = registry.load_class(name).Config(model="exact", gamma=GAMMA, loss="mse", **settings)
    algo: Any = registry.make(name, spec, config, SeedSequence(0))
    algo.v = Table(torch.randn(STATES, generator=torch.Generator().manual_seed(12)))
    algo.optimizer = Descent(algo.v.rows)
    return algo.to(torch.get_default_dtype())


def states(batch: Transition[Tensor]) -> Transition[Tensor]:
    """Return the same rows with observations as whole numbers, (T, B)."""
    return batch._replace(obs=batch.obs.squeeze(-1).long(), next_obs=batch.next_obs.squeeze(-1).long())


def fvi() -> Iterator[Check]:
    """Steps that put V(s) on its target, for all states at once, are value iteration: it ends at V*."""
    with precision(torch.float64):
        algo = modelled("fvi", target_every=1, learning_rate=STATES / 2)
        algo.target_v = Table(algo.v.rows.detach())
        batch = states(tabular(13, uniform))
        every = batch._replace(obs=torch.arange(STATES).expand(STEPS, STATES))
        rows = map_fields(lambda field: field[0, :1].expand(1, STATES), every)._replace(obs=every.obs[:1])
        for _ in range(400):
            algo.update(drawn(rows), NOW)
        optimum = algo.v.rows.detach() - torch.from_numpy(algo.model.model.optimum())
        found = algo.greedy(torch.arange(STATES)).tolist()
        value = algo.v.rows.tolist()
        best = [int(np.argmax([algo.model.model.ahead(s, a, value) for a in range(ACTIONS)])) for s in range(STATES)]
    yield Check("fvi", 2, "policy iteration", "V after 400 sweeps", optimum.abs().max().item(), TOLERANCE)
    yield Check("fvi", 2, "naive sum", "greedy actions that differ", float(np.sum(np.array(found) != best)), TOLERANCE)


def naive_lambda_return(batch: Transition[Tensor], value: Any, lam: float, t: int, b: int) -> Any:
    """Return the forward view: all n-step returns weighed by (1 - λ) λⁿ⁻¹, the last by what is left.

    Sutton and Barto 2018, equations 12.3 and 12.18
    """
    total, weight, rewards, discount = torch.zeros(()), 1.0, torch.zeros(()), 1.0
    for row in range(t, STEPS):
        rewards += discount * batch.reward[row, b]
        discount *= GAMMA * float(~batch.terminated[row, b])
        n_step = rewards + discount * value[batch.next_obs[row, b]]
        if batch.terminated[row, b] or batch.truncated[row, b] or row == STEPS - 1:
            return total + weight * n_step
        total = total + weight * (1 - lam) * n_step
        weight *= lam
    raise AssertionError


def tdv() -> Iterator[Check]:
    """One step on a table, against V(s) ← V(s) + η 2/(TB) (G^λ - V(s)), summed row by row; what it acts on."""
    with precision(torch.float64):
        algo = modelled("tdv", lam=0.8, learning_rate=0.5)
        batch, table = states(tabular(14, uniform)), algo.v.rows.detach().clone()
        found = algo.greedy(torch.arange(STATES)).tolist()
        value = table.tolist()
        best = [int(np.argmax([algo.model.model.ahead(s, a, value) for a in range(ACTIONS)])) for s in range(STATES)]
        algo.update(batch, NOW)
        expected = table.clone()
        for t, b in np.ndindex(STEPS, ENVS):
            state = batch.obs[t, b]
            error = naive_lambda_return(batch, table, 0.8, t, b) - table[state]
            expected[state] += 0.5 * 2 / (STEPS * ENVS) * error
        difference = (algo.v.rows - expected).abs().max().item()
    yield Check("tdv", 2, "forward view", "one update of a table by λ-returns", difference, TOLERANCE)
    yield Check("tdv", 2, "naive sum", "greedy actions that differ", float(np.sum(np.array(found) != best)), TOLERANCE)


CHECKS = {
    "fvi": fvi,
    "tdv": tdv,
    "sarsa": sarsa,
    "qac": qac,
    "impala": impala,
    "impala_replay": impala_replay,
    "ppo": ppo,
    "dqn": dqn,
    "d3qn": d3qn,
    "sac": sac,
}
