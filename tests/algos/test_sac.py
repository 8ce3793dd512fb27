"""SAC's n-step targets pay for entropy at every step: against a naive sum and the exact soft value of a chain."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from numpy.typing import NDArray
from scipy.integrate import quad
from tabular import drawn
from torch import Tensor, nn

from zoo import registry
from zoo.algos import sac
from zoo.parts.squashed import TanhGaussian
from zoo.protocol import Progress, Segment, Transition
from zoo.spec import Spec

Array = NDArray[Any]

GAMMA, ALPHA = 0.9, 0.5
MEAN, STD = 0.3, 0.8
REWARD = np.array([1.0, -2.0, 0.5, 3.0])  # of leaving each state of a circle, whatever is done


class Fixed(nn.Module):
    """The same policy in every state."""

    def forward(self, obs: Tensor) -> TanhGaussian:
        mean = torch.full((*obs.shape[:-1], 1), MEAN)
        return TanhGaussian(mean, torch.full_like(mean, math.log(STD)))

    def noise(self, *shape: int, generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, 1, generator=generator)


class Twins(nn.Module):
    """Two critics that know the values of all states; one of them thinks too well of them."""

    def __init__(self, values: Array) -> None:
        super().__init__()
        self.values = torch.from_numpy(np.stack([values, values + 1])).float()

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.values[:, obs.squeeze(-1).long()]


def entropy() -> float:
    """Of the tanh of a normal, by quadrature: ½ log 2πeσ² + E log(1 - tanh² u)."""
    density = lambda u: math.exp(-0.5 * ((u - MEAN) / STD) ** 2) / (STD * math.sqrt(2 * math.pi))  # noqa: E731
    change = quad(lambda u: density(u) * math.log(1 - math.tanh(u) ** 2), MEAN - 9 * STD, MEAN + 9 * STD)[0]
    return 0.5 * math.log(2 * math.pi * math.e * STD**2) + change


def soft_values() -> Array:
    """Q(s) = r(s) + γ (Q(s') + α H), solved; s' is the next state of the circle."""
    following = np.roll(np.eye(len(REWARD)), 1, axis=1)
    return np.linalg.solve(np.eye(len(REWARD)) - GAMMA * following, REWARD + GAMMA * ALPHA * entropy())


def targets(monkeypatch: pytest.MonkeyPatch, batch: Segment, n: int, seed: int = 0) -> Tensor:
    """What the critics are to learn, (N,)."""
    spec = Spec(spaces.Box(0, 10, (1,)), spaces.Box(-1, 1, (1,)))
    config = registry.load_class("sac").Config(n_step=n, gamma=GAMMA, alpha=ALPHA, learn_alpha=False, hidden=(4,))
    algo: Any = registry.make("sac", spec, config, SeedSequence(seed))
    algo.actor.forward, algo.actor.noise = Fixed().forward, Fixed().noise
    algo.target_critic = Twins(soft_values())
    found = []
    original = sac.segment_return
    monkeypatch.setattr(sac, "segment_return", lambda **fields: found.append(original(**fields)) or found[-1])
    monkeypatch.setattr(sac, "polyak_", lambda *nets: None)
    monkeypatch.setattr(algo.actor_optimizer, "minimize", lambda loss, rate: None)
    algo.update(batch, Progress(1, 1))
    target: Tensor = found[0]
    return target


def sample(n: int, size: int, *, terminated: int = -1, truncated: int = -1) -> Segment:
    """Trajectories around the circle; the rows of the given numbers end them."""
    states = (torch.arange(size) + torch.arange(n + 1)[:, None]) % len(REWARD)
    no = torch.zeros(n, size, dtype=torch.bool)
    ends = [no.clone(), no.clone()]
    for flags, row in zip(ends, (terminated, truncated), strict=True):
        flags[row] = row >= 0
    obs = states[..., None].float()
    reward = torch.from_numpy(REWARD).float()[states[:-1]]
    action = torch.zeros(n, size, 1)
    return drawn(Transition(obs[:-1], action, reward, obs[1:], *ends, reward * 0))


@pytest.mark.parametrize(
    ("n", "ends"),
    [
        *((1, {}), (1, {"truncated": 0}), (2, {}), (3, {})),
        *((3, {"truncated": 0}), (3, {"truncated": 1}), (5, {}), (5, {"truncated": 1})),
    ],
)
def test_the_exact_soft_values_are_a_fixed_point_for_any_n(
    n: int, ends: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 40_000
    target = targets(monkeypatch, sample(n, size, **ends), n).double().numpy()
    for state, value in enumerate(soft_values()):
        drawn = target[state :: len(REWARD)]
        assert drawn.mean() == pytest.approx(value, abs=5 * drawn.std() / math.sqrt(len(drawn)))
    # Without the entropy of the steps between, targets of more than one step are too low by more than that.
    missing = sum(ALPHA * abs(entropy()) * GAMMA**k for k in range(1, n))
    assert n == 1 or missing > 20 * drawn.std() / math.sqrt(len(drawn))


def test_a_termination_ends_rewards_and_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 40_000
    target = targets(monkeypatch, sample(3, size, terminated=1), 3).double().numpy()
    for state in range(len(REWARD)):
        drawn = target[state :: len(REWARD)]
        value = REWARD[state] + GAMMA * (ALPHA * entropy() + REWARD[(state + 1) % len(REWARD)])
        assert drawn.mean() == pytest.approx(value, abs=5 * drawn.std() / math.sqrt(len(drawn)))
