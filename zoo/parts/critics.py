"""Values of given actions, side by side, and the squashed policies that climb them."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Generator, Tensor, nn

from zoo.errors import UserError
from zoo.parts.networks import ACTIVATIONS, Activation, Encoder, Q, linear, mlp
from zoo.parts.policies import Categorical, Distribution, TanhGaussian, take
from zoo.spec import Spec


class EnsembleLinear(nn.Module):
    """E linear layers side by side, (E, N, in) to (E, N, out), each initialised as torch initialises one.

    Fewer inputs than E go through the first layers, at their cost alone.
    """

    def __init__(self, size: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_in)
        self.weight = nn.Parameter(torch.empty(size, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(size, 1, width_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[: len(x)], x, self.weight[: len(x)])


class QEnsemble(nn.Module):
    """E independent Q(s, a) of given actions, (E, N), or the first `size` of them, (size, N).

    Discrete dimensions of an action enter one-hot.
    """

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation, *, size: int) -> None:
        super().__init__()
        self.size = size
        self.encoder = Encoder(spec)
        self.choices = () if isinstance(spec.action_space, spaces.Box) else spec.action_sizes
        widths = [self.encoder.num_features + sum(spec.action_sizes), *hidden]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [EnsembleLinear(size, width_in, width_out), ACTIVATIONS[activation]()]
        self.net = nn.Sequential(*layers, EnsembleLinear(size, hidden[-1], 1))

    def forward(self, obs: Tensor, action: Tensor, size: int | None = None) -> Tensor:
        if self.choices:
            parts = zip(action.unbind(-1), self.choices, strict=True)
            action = torch.cat([F.one_hot(choice, size).float() for choice, size in parts], -1)
        x = torch.cat([self.encoder(obs), action], -1)
        size = size or self.size
        flat = x.reshape(-1, x.shape[-1]).expand(size, -1, -1)  # (E, N, F)
        return self.net(flat).reshape(size, *x.shape[:-1])


class ActionQ(nn.Module):
    """Q(s, a) of given actions, (N,), whatever the action space, and its mean under a policy."""

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.is_discrete = isinstance(spec.action_space, spaces.Discrete)
        self.net: nn.Module
        if self.is_discrete:
            self.net = Q(spec, hidden, activation)
        else:
            self.net = QEnsemble(spec, hidden, activation, size=1)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        if self.is_discrete:
            return take(self.net(obs), action)
        return self.net(obs, action).squeeze(0)

    def mean(self, obs: Tensor, policy: "Distribution", noise: Tensor) -> Tensor:
        """E_a Q(s, a) for a ~ `policy`, (N,): exact over discrete actions, else one draw for each row of `noise`."""
        if isinstance(policy, Categorical):
            return (policy.log_probs.exp() * self.net(obs)).sum(-1)
        return torch.stack([self(obs, policy.sample(each)) for each in noise]).mean(0)


def check_bounds(spec: Spec) -> None:
    """A UserError unless [-1, 1] means all of the action space, as squashed actions need."""
    if not spec.is_bounded or not spec.scale_actions:
        raise UserError(f"squashed actions need finite bounds and scale_actions; here: {spec.action_space}")


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
        """What `sample` makes actions of: standard normal, (*shape, A)."""
        return torch.randn(*shape, self.mean.out_features, generator=generator, device=generator.device)

    def forward(self, obs: Tensor) -> "TanhGaussian":
        features = self.body(obs)
        return TanhGaussian(self.mean(features), self.log_std(features).clamp(-20, 2))
