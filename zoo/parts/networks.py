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

from zoo.parts.cnn import _channels_last, _nature_cnn, _small_cnn, orthogonal
from zoo.parts.discrete import MultiCategorical, allow
from zoo.parts.policies import Categorical, Gaussian
from zoo.spec import Spec

Activation = Literal["tanh", "relu"]
Distribution = Categorical | MultiCategorical | Gaussian
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def linear(width_in: int, width_out: int, gain: float | None = None) -> nn.Linear:
    """A layer with orthogonal weights of this gain and no bias, or with torch's own initialisation (no gain)."""
    layer = nn.Linear(width_in, width_out)
    return layer if gain is None else orthogonal(layer, gain)


def mlp(sizes: Sequence[int], activation: Activation, gain: float | None = None) -> nn.Sequential:
    """Linear layers of these sizes, each followed by the activation."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(sizes):
        layers += [linear(width_in, width_out, gain), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Observations to flat float features, (N, F): one-hot integers, flat vectors, a small CNN for images; no masks."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.event_dims = len(spec.obs_shape)
        self.choices, self.masks = 0, spec.num_masks
        self.cnn: nn.Module | None = None
        if isinstance(spec.observation_space, spaces.Discrete):
            self.num_features = self.choices = int(spec.observation_space.n)
        elif spec.is_image:
            self.channels_last = spec.obs_shape[2] <= spec.obs_shape[0]
            height, width, channels = spec.obs_shape if self.channels_last else _channels_last(spec.obs_shape)
            self.cnn = _nature_cnn(channels) if min(height, width) >= 36 else _small_cnn(channels)
            with torch.no_grad():
                self.num_features = self.cnn(torch.zeros(1, channels, height, width)).shape[1]
        else:
            self.num_features = math.prod(spec.obs_shape) - self.masks

    def forward(self, obs: Tensor) -> Tensor:
        if self.choices:
            return F.one_hot(obs, self.choices).float()
        if self.event_dims == 1:
            return obs[..., : self.num_features] if self.masks else obs
        if self.cnn is None:
            return obs.reshape(*obs.shape[: obs.ndim - self.event_dims], self.num_features)
        lead = obs.shape[:-3]
        image = obs.reshape(-1, *obs.shape[-3:]).float() / 255
        if self.channels_last:
            image = image.permute(0, 3, 1, 2)
        return self.cnn(image).reshape(*lead, self.num_features)


class V(nn.Module):
    """A state's value, (N,)."""

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        encoder = Encoder(spec)
        body = mlp([encoder.num_features, *hidden], activation, math.sqrt(2))
        self.net = nn.Sequential(encoder, *body, linear(hidden[-1], 1, 1.0))

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs).squeeze(-1)


class Policy(nn.Module):
    """A distribution over actions: categorical for each discrete dimension, a diagonal Gaussian for a Box.

    The Gaussian's log standard deviation is a parameter of its own, independent of the state.
    """

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation, *, log_std_init: float = 0.0) -> None:
        super().__init__()
        encoder = Encoder(spec)
        self.is_box = isinstance(spec.action_space, spaces.Box)
        self.is_multi, self.masks = (
            isinstance(spec.action_space, spaces.MultiDiscrete | spaces.MultiBinary),
            spec.num_masks,
        )
        self.sizes = spec.action_sizes
        num_outputs = sum(self.sizes)
        body = mlp([encoder.num_features, *hidden], activation, math.sqrt(2))
        self.net = nn.Sequential(encoder, *body, linear(hidden[-1], num_outputs, 0.01))
        if self.is_box:
            self.log_std = nn.Parameter(torch.full((num_outputs,), log_std_init))

    def noise(self, *shape: int, generator: Generator) -> Tensor:
        """What `sample` makes actions of, (*shape, outputs): normal for a Box, exponential for choices."""
        noise = torch.empty(*shape, sum(self.sizes), device=generator.device)
        return noise.normal_(generator=generator) if self.is_box else noise.exponential_(generator=generator)

    def forward(self, obs: Tensor) -> Distribution:
        out = self.net(obs)
        if self.masks:
            out = allow(out, obs, self.masks)
        if self.is_box:
            return Gaussian(out, self.log_std)
        return MultiCategorical(out, self.sizes) if self.is_multi else Categorical(out)
