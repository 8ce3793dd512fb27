"""Shapes of every head and encoder, orthogonal gains; every network is torch's own kind of module."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from modules import assert_changes_count, assert_every_hook_fires, each_change, each_way, layers
from torch import Generator, Tensor, nn

from zoo.parts.critics import Q
from zoo.parts.discrete import MultiCategorical
from zoo.parts.networks import Encoder, Policy, V
from zoo.parts.policies import Categorical, Gaussian
from zoo.spec import Spec

OBS = spaces.Box(-1, 1, (3,))
CHOICE = spaces.Discrete(3)

each_lead = pytest.mark.parametrize("lead", [(7,), (5, 2)])


def generator() -> Generator:
    return Generator().manual_seed(0)


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
    return torch.from_numpy(spec.encode_obs(np.stack(rows), len(rows))).reshape(*lead, *spec.obs_shape)


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


@pytest.mark.parametrize(("activation", "kind"), [("tanh", nn.Tanh), ("relu", nn.ReLU)])
def test_activation_follows_every_hidden_layer_but_not_the_head(activation: Any, kind: type) -> None:
    layers = list(V(spec_of(OBS), (8, 8), activation).net)[1:]
    kinds = [nn.Linear, kind, nn.Linear, kind, nn.Linear]
    assert len(layers) == len(kinds)
    assert all(map(isinstance, layers, kinds))


# Modules of torch.


def networks() -> dict[str, tuple[nn.Module, Any]]:
    """Each network, and how to make a tensor of its observations."""
    obs, pixels = sample_obs(OBS, 5), sample_obs(image(10, 10, 2), 2)
    multi, box = spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,))
    return {
        "V": (V(spec_of(OBS), (8, 8), "tanh"), lambda net: net(obs)),
        "V of images": (V(spec_of(image(10, 10, 2)), (8,), "relu"), lambda net: net(pixels)),
        "Q": (Q(spec_of(OBS), (8, 8), "relu"), lambda net: net(obs)),
        "Q, dueling": (Q(spec_of(OBS), (8, 8), "relu", dueling=True), lambda net: net(obs)),
        "Policy of choices": (
            Policy(spec_of(OBS), (8,), "tanh"),
            lambda net: net(obs).log_prob(torch.zeros(5, dtype=torch.long)),
        ),
        "Policy of several choices": (
            Policy(spec_of(OBS, multi), (8,), "tanh"),
            lambda net: net(obs).log_prob(torch.zeros(5, 2, dtype=torch.long)),
        ),
        "Policy of a Box": (Policy(spec_of(OBS, box), (8,), "tanh"), lambda net: net(obs).log_prob(torch.ones(5, 2))),
    }


each_network = pytest.mark.parametrize("name", networks())


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@each_way
@each_change
@each_network
def test_hooks_parametrisations_and_masks_count(name: str, change: str, way: str) -> None:
    net, number = networks()[name]
    with torch.no_grad():
        for _, layer in layers(net):  # heads start so small that changes would hardly show
            layer.weight.normal_()
            layer.bias.normal_()
    assert_changes_count(net, change, way, number)


@each_network
def test_every_hook_fires(name: str) -> None:
    assert_every_hook_fires(*networks()[name])
