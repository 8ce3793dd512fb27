"""Distributions against torch.distributions, and how often they draw what."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor
from torch import distributions as reference

from zoo.parts.discrete import EpsilonGreedy, MultiCategorical
from zoo.parts.networks import Policy
from zoo.parts.policies import Categorical, Gaussian
from zoo.parts.squashed import SquashedPolicy
from zoo.spec import Spec

SIZES = (2, 3, 4)
SAMPLES = 20_000
OBS = spaces.Box(-1, 1, (3,))
CHOICE = spaces.Discrete(3)

each_lead = pytest.mark.parametrize("lead", [(7,), (5, 2)])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def exponential(*shape: int) -> Tensor:
    return torch.empty(shape).exponential_(generator=generator())


def generator() -> Generator:
    return Generator().manual_seed(0)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@each_lead
def test_categorical_equals_torchs(lead: tuple[int, ...]) -> None:
    logits = 3 * normal(*lead, 4)
    mine, theirs = Categorical(logits), reference.Categorical(logits=logits)
    action = mine.sample(exponential(*lead, 4))
    assert action.shape == mine.mode().shape == lead
    close(mine.log_prob(action), theirs.log_prob(action))
    close(mine.entropy(), theirs.entropy())
    assert torch.equal(mine.mode(), theirs.mode)


@each_lead
def test_multi_categorical_is_a_sum_of_torchs(lead: tuple[int, ...]) -> None:
    logits = 3 * normal(*lead, sum(SIZES))
    mine = MultiCategorical(logits, SIZES)
    bounds = (0, 2, 5, 9)
    theirs = [reference.Categorical(logits=logits[..., a:b]) for a, b in pairwise(bounds)]
    action = mine.sample(exponential(*lead, sum(SIZES)))
    assert action.shape == mine.mode().shape == (*lead, len(SIZES))
    log_probs = [part.log_prob(a) for part, a in zip(theirs, action.unbind(-1), strict=True)]
    close(mine.log_prob(action), sum(log_probs, torch.zeros(lead)))
    close(mine.entropy(), sum((part.entropy() for part in theirs), torch.zeros(lead)))
    assert torch.equal(mine.mode(), torch.stack([part.mode for part in theirs], -1))


@each_lead
@pytest.mark.parametrize("state_dependent", [False, True])
def test_gaussian_equals_torchs(lead: tuple[int, ...], state_dependent: bool) -> None:
    mean = normal(*lead, 3)
    log_std = normal(*lead, 3, seed=1) if state_dependent else normal(3, seed=1)
    mine = Gaussian(mean, log_std)
    theirs = reference.Independent(reference.Normal(mean, log_std.exp().expand_as(mean)), 1)
    action = mine.sample(normal(*lead, 3, seed=2))
    assert action.shape == mine.mode().shape == (*lead, 3)
    close(mine.log_prob(action), theirs.log_prob(action))
    close(mine.entropy(), theirs.entropy())
    assert torch.equal(mine.mode(), mean)


def test_categorical_samples_as_often_as_it_says() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.19, 0.01, 0.0])
    actions = Categorical(probabilities.log().expand(SAMPLES, -1)).sample(exponential(SAMPLES, 5))
    frequency = torch.bincount(actions, minlength=5) / SAMPLES
    # Five standard errors of a binomial proportion; a uniform sampler would be far outside.
    tolerance = 5 * (probabilities * (1 - probabilities) / SAMPLES).sqrt()
    assert (frequency - probabilities <= tolerance).all()
    assert (probabilities - frequency <= tolerance).all()
    assert ((frequency - 0.2).abs() > tolerance)[:2].all()


def test_multi_categorical_samples_each_part_independently() -> None:
    first, second = torch.tensor([0.2, 0.8]), torch.tensor([0.1, 0.3, 0.6])
    logits = torch.cat([first, second]).log().expand(SAMPLES, -1)
    actions = MultiCategorical(logits, (2, 3)).sample(exponential(SAMPLES, 5))
    joint = torch.bincount(3 * actions[:, 0] + actions[:, 1], minlength=6).reshape(2, 3) / SAMPLES
    expected = first[:, None] * second
    assert ((joint - expected).abs() < 5 * (expected * (1 - expected) / SAMPLES).sqrt()).all()


def test_gaussian_samples_have_its_moments() -> None:
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    actions = Gaussian(mean.expand(SAMPLES, -1), std.log()).sample(normal(SAMPLES, 2))
    # Standard errors: σ/√N of a mean, σ²√(2/N) of a normal's variance, σ₁σ₂/√N of a covariance of zero.
    assert ((actions.mean(0) - mean).abs() < 5 * std / math.sqrt(SAMPLES)).all()
    covariance = torch.cov(actions.T)
    assert ((covariance.diagonal() - std**2).abs() < 5 * std**2 * math.sqrt(2 / SAMPLES)).all()
    assert covariance[0, 1].abs() < 5 * std.prod() / math.sqrt(SAMPLES)


def networks() -> dict[str, Any]:
    """Everything that says what its samples are made of."""
    make = {"categorical": CHOICE, "multi": spaces.MultiDiscrete(SIZES), "gaussian": spaces.Box(-1, 1, (3,))}
    nets: dict[str, Any] = {name: Policy(Spec(OBS, space), (8,), "tanh") for name, space in make.items()}
    squashed = SquashedPolicy(Spec(OBS, make["gaussian"]), (8,), "tanh")
    return nets | {"squashed": squashed, "epsilon": EpsilonGreedy}


@pytest.mark.parametrize("name", ["categorical", "multi", "gaussian", "squashed", "epsilon"])
def test_only_the_generator_decides_noise(name: str) -> None:
    net = networks()[name]
    first = net.noise(50, generator=generator())
    torch.manual_seed(1)
    assert torch.equal(first, net.noise(50, generator=generator()))
    assert not torch.equal(first, net.noise(50, generator=Generator().manual_seed(1)))


def test_epsilon_greedy_explores_as_often_as_it_says() -> None:
    policy = EpsilonGreedy(torch.tensor([0.0, 2.0, 1.0]).expand(SAMPLES, -1), 0.3)
    actions = policy.sample(policy.noise(SAMPLES, generator=generator()))
    frequency = torch.bincount(actions, minlength=3) / SAMPLES
    assert (frequency - torch.tensor([0.1, 0.8, 0.1])).abs().max() < 5 * math.sqrt(0.8 * 0.2 / SAMPLES)


def test_epsilon_greedy_never_draws_an_action_that_is_not_there() -> None:
    last = torch.tensor([0.0, 1 - 2**-24])  # the largest number that torch.rand gives
    for num_actions in range(1, 200):
        assert EpsilonGreedy(torch.zeros(num_actions), 1.0).sample(last) == num_actions - 1


def test_extreme_logits_stay_finite() -> None:
    distribution = Categorical(torch.tensor([[0.0, 1e4]]))
    assert distribution.entropy().item() == 0
    assert distribution.log_prob(torch.tensor([0])).item() == -1e4


def test_gradients_of_log_prob_and_entropy_equal_torchs() -> None:
    logits, action = normal(6, 4).requires_grad_(), torch.arange(6) % 4
    mine, theirs = Categorical(logits), reference.Categorical(logits=logits)
    for ours, expected in (
        (mine.log_prob(action), theirs.log_prob(action)),
        (mine.entropy(), theirs.entropy()),
    ):
        close(*(torch.autograd.grad(each.sum(), logits, retain_graph=True)[0] for each in (ours, expected)))
