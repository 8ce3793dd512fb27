"""Distributions against torch.distributions, shapes of every head and encoder, orthogonal gains."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn
from torch import distributions as reference

from zoo.errors import UserError
from zoo.parts.critics import SquashedPolicy
from zoo.parts.networks import Encoder, Policy, V
from zoo.parts.policies import Categorical, EpsilonGreedy, Gaussian, MultiCategorical
from zoo.spec import Spec, check_space

SIZES = (2, 3, 4)
SAMPLES = 20_000
OBS = spaces.Box(-1, 1, (3,))
CHOICE = spaces.Discrete(3)

each_lead = pytest.mark.parametrize("lead", [(7,), (5, 2)])


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def exponential(*shape: int) -> Tensor:
    return torch.empty(shape).exponential_(generator=generator())


def generator() -> Generator:
    return Generator().manual_seed(0)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


# Distributions.


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
    nets: dict[str, Any] = {name: Policy(spec_of(OBS, space), (8,), "tanh") for name, space in make.items()}
    squashed = SquashedPolicy(spec_of(OBS, make["gaussian"]), (8,), "tanh")
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


# Encoders.


def spec_of(observation: spaces.Space[Any], action: spaces.Space[Any] = CHOICE) -> Spec:
    return Spec(observation, action)


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


OBSERVATIONS = {
    "box": (OBS, 3),
    "matrix": (spaces.Box(-1, 1, (2, 3)), 6),
    "discrete": (spaces.Discrete(5), 5),
    # Same padding keeps 10 x 10, 16 filters.
    "small_hwc": (image(10, 10, 4), 1600),
    "small_chw": (image(4, 10, 10), 1600),
    # Mnih et al. 2015: 84 -> 20 -> 9 -> 7, 64 filters.
    "large_hwc": (image(84, 84, 3), 3136),
    "large_chw": (image(4, 84, 84), 3136),
}

each_observation = pytest.mark.parametrize(("space", "features"), OBSERVATIONS.values(), ids=OBSERVATIONS)


def sample_obs(space: spaces.Space[Any], *lead: int) -> Tensor:
    space.seed(0)
    rows = [space.sample() for _ in range(math.prod(lead))]
    spec = spec_of(space)
    return torch.from_numpy(spec.encode_obs(np.stack(rows))).reshape(*lead, *spec.obs_shape)


@each_observation
def test_encoder_keeps_leading_dimensions(space: spaces.Space[Any], features: int) -> None:
    encoder = Encoder(spec_of(space))
    obs = sample_obs(space, 3, 2)
    rollout = encoder(obs)
    assert encoder.num_features == features
    assert rollout.shape == (3, 2, features)
    assert rollout.dtype == torch.float32
    torch.testing.assert_close(encoder(obs.flatten(0, 1)), rollout.flatten(0, 1))


@each_lead
def test_encoder_takes_scalar_observations(lead: tuple[int, ...]) -> None:
    scalar = spaces.Box(-1, 1, ())
    obs = sample_obs(scalar, *lead)
    assert torch.equal(Encoder(spec_of(scalar))(obs), obs[..., None])


def test_encoder_of_integers_is_one_hot() -> None:
    features = Encoder(spec_of(spaces.Discrete(3)))(torch.tensor([2, 0]))
    assert features.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_encoder_of_vectors_changes_nothing() -> None:
    obs = sample_obs(OBS, 4)
    assert torch.equal(Encoder(spec_of(OBS))(obs), obs)


@pytest.mark.parametrize("size", [10, 84])
def test_encoder_sees_the_same_image_in_either_layout(size: int) -> None:
    last, first = Encoder(spec_of(image(size, size, 3))), Encoder(spec_of(image(3, size, size)))
    first.load_state_dict(last.state_dict())
    obs = sample_obs(image(size, size, 3), 2)
    torch.testing.assert_close(first(obs.permute(0, 3, 1, 2)), last(obs))
    assert not torch.allclose(last(obs.flip(-1)), last(obs))


def test_encoder_scales_bytes_to_one() -> None:
    encoder = Encoder(spec_of(image(10, 10, 3)))
    assert encoder.cnn is not None
    white = torch.full((1, 10, 10, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(encoder(white), encoder.cnn(torch.ones(1, 3, 10, 10)))


# Networks.


@each_lead
@each_observation
def test_value_is_one_number_a_row(space: spaces.Space[Any], features: int, lead: tuple[int, ...]) -> None:
    assert V(spec_of(space), (8,), "relu")(sample_obs(space, *lead)).shape == lead


@each_lead
@pytest.mark.parametrize(
    ("action", "shape", "kind"),
    [
        (CHOICE, (), Categorical),
        (spaces.MultiDiscrete([2, 3]), (2,), MultiCategorical),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), (4,), MultiCategorical),
        (spaces.Box(-1, 1, (2,)), (2,), Gaussian),
        (spaces.Box(-1, 1, (2, 2)), (4,), Gaussian),
    ],
    ids=str,
)
def test_policy_matches_the_action_space(
    action: spaces.Space[Any], shape: tuple[int, ...], kind: type, lead: tuple[int, ...]
) -> None:
    spec = spec_of(OBS, action)
    actor = Policy(spec, (8,), "tanh")
    policy = actor(sample_obs(OBS, *lead))
    drawn = policy.sample(actor.noise(*lead, generator=generator()))
    assert type(policy) is kind
    assert spec.action_shape == shape
    assert drawn.shape == policy.mode().shape == (*lead, *shape)
    assert policy.log_prob(drawn).shape == policy.entropy().shape == lead


def test_gaussian_policy_learns_a_deviation_that_no_state_changes() -> None:
    policy = Policy(spec_of(OBS, spaces.Box(-1, 1, (2,))), (8,), "tanh", log_std_init=-0.5)
    assert policy.log_std.tolist() == [-0.5, -0.5]
    assert "log_std" in dict(policy.named_parameters())


def linear_layers(net: nn.Module) -> list[nn.Linear]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def assert_gain(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """W Wᵀ = gain² I, or Wᵀ W where W is taller than wide."""
    weight = layer.weight.detach().flatten(1)
    if weight.shape[0] > weight.shape[1]:
        weight = weight.T
    torch.testing.assert_close(weight @ weight.T, gain**2 * torch.eye(len(weight)), rtol=1e-5, atol=1e-5 * gain**2)
    assert layer.bias is not None
    assert not layer.bias.any()


@pytest.mark.parametrize("action", [CHOICE, spaces.Box(-1, 1, (2,))], ids=str)
def test_weights_are_orthogonal_with_each_layers_own_gain(action: spaces.Space[Any]) -> None:
    # Gains of Stable-Baselines3's ActorCriticPolicy: √2 in the trunk, 0.01 for the policy, 1 for the value.
    spec = spec_of(OBS, action)
    for net, head_gain in ((Policy(spec, (16, 8), "tanh"), 0.01), (V(spec, (16, 8), "tanh"), 1.0)):
        *trunk, head = linear_layers(net)
        assert [layer.out_features for layer in trunk] == [16, 8]
        for layer in trunk:
            assert_gain(layer, math.sqrt(2))
        assert_gain(head, head_gain)


@pytest.mark.parametrize(("size", "layers"), [(10, 1), (84, 3)])
def test_convolutions_are_orthogonal_with_gain_root_two(size: int, layers: int) -> None:
    convolutions = [m for m in Encoder(spec_of(image(size, size, 4))).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == layers
    for layer in convolutions:
        assert_gain(layer, math.sqrt(2))


@pytest.mark.parametrize(("activation", "kind"), [("tanh", nn.Tanh), ("relu", nn.ReLU)])
def test_activation_follows_every_hidden_layer_but_not_the_head(activation: Any, kind: type) -> None:
    layers = list(V(spec_of(OBS), (8, 8), activation).net)[1:]
    kinds = [nn.Linear, kind, nn.Linear, kind, nn.Linear]
    assert len(layers) == len(kinds)
    assert all(map(isinstance, layers, kinds))


def test_check_space_names_what_is_supported() -> None:
    check_space("dqn", spec_of(OBS, CHOICE), (spaces.Discrete,))
    with pytest.raises(UserError, match=r"dqn needs actions of type Discrete; .*Box\(-1\.0, 1\.0"):
        check_space("dqn", spec_of(OBS, spaces.Box(-1, 1, (2,))), (spaces.Discrete,))
