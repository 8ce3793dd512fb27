"""Networks from observations to values and policies; every method takes any leading shape, (N, ...) or (T, B, ...).

Shapes: N rows, A action dimensions or choices, F features.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Generator, Tensor, nn

from zoo.errors import UserError
from zoo.spec import Spec

Activation = Literal["tanh", "relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def orthogonal(layer: nn.Linear | nn.Conv2d, gain: float) -> nn.Module:
    """`layer` with orthogonal weights of this gain and no bias.                    Saxe et al. 2014, section 3"""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: Sequence[int], activation: Activation, *, gain: float = math.sqrt(2)) -> nn.Sequential:
    """Linear layers of these sizes, each followed by the activation."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(sizes):
        layers += [orthogonal(nn.Linear(width_in, width_out), gain), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Observations to flat float features, (N, F): one-hot integers, flat vectors, a small CNN for images."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.event_dims = len(spec.obs_shape)
        self.choices = 0
        self.cnn: nn.Module | None = None
        if isinstance(spec.observation_space, spaces.Discrete):
            self.num_features = self.choices = int(spec.observation_space.n)
        elif spec.is_image:
            self.channels_last = spec.obs_shape[2] < spec.obs_shape[0]
            height, width, channels = spec.obs_shape if self.channels_last else _channels_last(spec.obs_shape)
            self.cnn = _nature_cnn(channels) if min(height, width) >= 36 else _small_cnn(channels)
            with torch.no_grad():
                self.num_features = self.cnn(torch.zeros(1, channels, height, width)).shape[1]
        else:
            self.num_features = math.prod(spec.obs_shape)

    def forward(self, obs: Tensor) -> Tensor:
        if self.choices:
            return F.one_hot(obs, self.choices).float()
        if self.cnn is None:
            return obs if self.event_dims == 1 else obs.flatten(obs.ndim - self.event_dims)
        lead = obs.shape[:-3]
        image = obs.reshape(-1, *obs.shape[-3:]).float() / 255
        if self.channels_last:
            image = image.permute(0, 3, 1, 2)
        features: Tensor = self.cnn(image)
        return features.reshape(*lead, self.num_features)


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0])


def _nature_cnn(channels: int) -> nn.Sequential:
    """Mnih et al. 2015, Methods, model architecture."""
    gain = math.sqrt(2)
    return nn.Sequential(
        orthogonal(nn.Conv2d(channels, 32, 8, stride=4), gain),
        nn.ReLU(),
        orthogonal(nn.Conv2d(32, 64, 4, stride=2), gain),
        nn.ReLU(),
        orthogonal(nn.Conv2d(64, 64, 3, stride=1), gain),
        nn.ReLU(),
        nn.Flatten(),
    )


def _small_cnn(channels: int) -> nn.Sequential:
    """For images too small for the Nature network: MinAtar's single layer.     Young and Tian 2019, section 4"""
    return nn.Sequential(orthogonal(nn.Conv2d(channels, 16, 3, padding=1), math.sqrt(2)), nn.ReLU(), nn.Flatten())


class V(nn.Module):
    """A state's value, (N,)."""

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        encoder = Encoder(spec)
        body = mlp([encoder.num_features, *hidden], activation)
        self.net = nn.Sequential(encoder, *body, orthogonal(nn.Linear(hidden[-1], 1), 1.0))

    def forward(self, obs: Tensor) -> Tensor:
        value: Tensor = self.net(obs)
        return value.squeeze(-1)


class Policy(nn.Module):
    """A distribution over actions: categorical for each discrete dimension, a diagonal Gaussian for a Box.

    The Gaussian's log standard deviation is a parameter of its own, independent of the state.
    """

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation, *, log_std_init: float = 0.0) -> None:
        super().__init__()
        encoder = Encoder(spec)
        self.is_box = isinstance(spec.action_space, spaces.Box)
        self.is_multi = isinstance(spec.action_space, spaces.MultiDiscrete)
        self.sizes = spec.action_sizes
        num_outputs = sum(self.sizes)
        body = mlp([encoder.num_features, *hidden], activation)
        self.net = nn.Sequential(encoder, *body, orthogonal(nn.Linear(hidden[-1], num_outputs), 0.01))
        if self.is_box:
            self.log_std = nn.Parameter(torch.full((num_outputs,), log_std_init))

    def forward(self, obs: Tensor) -> "Distribution":
        out = self.net(obs)
        if self.is_box:
            return Gaussian(out, self.log_std)
        return MultiCategorical(out, self.sizes) if self.is_multi else Categorical(out)


class Categorical:
    """A choice among A actions from unnormalised logits, (N, A)."""

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = logits.log_softmax(-1)

    def sample(self, generator: Generator) -> Tensor:
        """One action a row, (N,), by the Gumbel trick: argmax of logits + Gumbel noise."""
        noise = torch.empty_like(self.log_probs).exponential_(generator=generator)
        return (self.log_probs - noise.log()).argmax(-1)

    def mode(self) -> Tensor:
        """The most likely action, (N,)."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), (N,)."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """-Σ π log π in nats, (N,)."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


class MultiCategorical:
    """Independent choices, one for each dimension of a MultiDiscrete action; logits side by side, (N, ΣA)."""

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        self.parts = [Categorical(part) for part in logits.split(list(sizes), -1)]

    def sample(self, generator: Generator) -> Tensor:
        """One action a row, (N, K)."""
        return torch.stack([part.sample(generator) for part in self.parts], -1)

    def mode(self) -> Tensor:
        """The most likely action, (N, K)."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), summed over the K choices, (N,)."""
        terms = [part.log_prob(a) for part, a in zip(self.parts, action.unbind(-1), strict=True)]
        return torch.stack(terms, -1).sum(-1)

    def entropy(self) -> Tensor:
        """In nats, summed over the K choices, (N,)."""
        return torch.stack([part.entropy() for part in self.parts], -1).sum(-1)


class Gaussian:
    """A diagonal normal, mean (N, A) and log standard deviation (A,) or (N, A); actions are not squashed."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def sample(self, generator: Generator) -> Tensor:
        """One action a row, (N, A)."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """The mean, (N, A)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), summed over action dimensions, (N,)."""
        scaled = (action - self.mean) * (-self.log_std).exp()
        terms = -0.5 * scaled.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return terms.sum(-1)

    def entropy(self) -> Tensor:
        """½ log 2πeσ², summed over action dimensions, in nats, (N,)."""
        terms = (0.5 + 0.5 * math.log(2 * math.pi) + self.log_std).expand_as(self.mean)
        return terms.sum(-1)


Distribution = Categorical | MultiCategorical | Gaussian


def check_space(name: str, spec: Spec, supported: tuple[type, ...]) -> None:
    """A UserError unless the action space is one that the algorithm supports."""
    if not isinstance(spec.action_space, supported):
        names = ", ".join(space.__name__ for space in supported)
        raise UserError(f"{name} needs actions of type {names}; this environment's are {spec.action_space}")
