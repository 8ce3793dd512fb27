"""Values of actions, of all choices at once or of given ones by several networks side by side; copies that lag."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from zoo.parts.discrete import allow, mean_allowed
from zoo.parts.networks import ACTIVATIONS, Activation, Distribution, Encoder, linear, mlp
from zoo.parts.policies import Categorical, take
from zoo.spec import Spec


class Q(nn.Module):
    """The values of all discrete actions at once, (N, A).

    Dueling: Q(s, a) = V(s) + A(s, a) - mean_a A(s, a), two heads on one body; the mean is over allowed actions.
    Wang et al. 2016, equation 9
    """

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation, *, dueling: bool = False) -> None:
        super().__init__()
        encoder, self.masks = Encoder(spec), spec.num_masks
        self.body = nn.Sequential(encoder, *mlp([encoder.num_features, *hidden], activation))
        self.advantage = linear(hidden[-1], spec.action_sizes[0])
        self.value = linear(hidden[-1], 1) if dueling else None

    def forward(self, obs: Tensor) -> Tensor:
        features = self.body(obs)
        advantage = self.advantage(features)
        if self.value is not None:
            advantage = self.value(features) + advantage - mean_allowed(advantage, obs, self.masks)
        return allow(advantage, obs, self.masks) if self.masks else advantage


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


def ensemble_mlp(size: int, widths: Sequence[int], activation: Activation) -> nn.Sequential:
    """Return E networks with layers of these widths, the first the inputs' and the last the outputs'."""
    *hidden, (width_in, width_out) = pairwise(widths)
    layers: list[nn.Module] = []
    for each in hidden:
        layers += [EnsembleLinear(size, *each), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, EnsembleLinear(size, width_in, width_out))


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
        self.net = ensemble_mlp(size, [*widths, 1], activation)

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

    def mean(self, obs: Tensor, policy: Distribution, noise: Tensor) -> Tensor:
        """E_a Q(s, a) for a ~ `policy`, (N,): exact over discrete actions, else one draw for each row of `noise`."""
        if isinstance(policy, Categorical):
            return (policy.log_probs.exp() * self.net(obs)).sum(-1)
        return torch.stack([self(obs, policy.sample(each)) for each in noise]).mean(0)


@torch.no_grad()
def polyak_(target: nn.Module, source: nn.Module, tau: float) -> None:
    """target ← (1 - τ) target + τ source, parameter by parameter; τ = 1 copies.   Lillicrap et al. 2016, section 3"""
    for t, s in zip(target.parameters(), source.parameters(), strict=True):
        t.mul_(1 - tau).add_(s, alpha=tau)
