"""Policies squashed into [-1, 1], where the critics that they climb know actions. N rows, A action dimensions."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from zoo.errors import UserError
from zoo.parts.networks import Activation, Encoder, linear, mlp
from zoo.spaces import shown
from zoo.spec import Spec


class TanhGaussian:
    """tanh of a diagonal normal, mean and log standard deviation (N, A); actions in (-1, 1)."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions, (N, A), that gradients flow through, and their log-probabilities, (N,); `noise` is standard normal.

        log π(a|s) = log N(u) - Σ log(1 - a² + 10⁻⁶) with a = tanh u; the sum is the change of variables.
        """
        action = (self.mean + self.log_std.exp() * noise).tanh()
        terms = -0.5 * noise.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        correction = (1 - action.square() + 1e-6).log()
        return action, (terms - correction).sum(-1)

    def mode(self) -> Tensor:
        """tanh of the mean, (N, A)."""
        return self.mean.tanh()


def check_bounds(spec: Spec) -> None:
    """A UserError unless [-1, 1] means all of the action space, as squashed actions need."""
    if not spec.is_bounded or not spec.scale_actions:
        raise UserError(f"squashed actions need finite bounds and scale_actions; here: {shown(spec.action_space)}")


class Deterministic(nn.Module):
    """One action for each state, squashed into [-1, 1], (N, A)."""

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        check_bounds(spec)
        encoder = Encoder(spec)
        body = mlp([encoder.num_features, *hidden], activation)
        self.net = nn.Sequential(encoder, *body, linear(hidden[-1], spec.action_sizes[0]), nn.Tanh())

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs)


class SquashedPolicy(nn.Module):
    """A Gaussian squashed into [-1, 1]; its log standard deviation depends on the state and stays in [-20, 2].

    Haarnoja et al. 2018, appendix C
    """

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        check_bounds(spec)
        encoder = Encoder(spec)
        self.body = nn.Sequential(encoder, *mlp([encoder.num_features, *hidden], activation))
        self.mean = linear(hidden[-1], spec.action_sizes[0])
        self.log_std = linear(hidden[-1], spec.action_sizes[0])

    def noise(self, *shape: int, generator: Generator) -> Tensor:
        """Return what `sample` makes actions of: standard normal, (*shape, A)."""
        return torch.randn(*shape, self.mean.out_features, generator=generator, device=generator.device)

    def forward(self, obs: Tensor) -> TanhGaussian:
        features = self.body(obs)
        return TanhGaussian(self.mean(features), self.log_std(features).clamp(-20, 2))
