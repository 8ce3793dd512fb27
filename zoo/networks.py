"""Networks from observations to values and policies; every method takes any leading shape, (N, ...) or (T, B, ...).

Shapes: N rows, A action dimensions or choices, F features.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Generator, Tensor, nn

from zoo.errors import UserError
from zoo.spec import Spec

Activation = Literal["tanh", "relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Plain:
    """A module whose call is its `forward`: torch's own looks for hooks first, which takes as long as a small layer."""

    forward: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.forward(*args)


class Linear(Plain, nn.Linear):
    """torch's, but for the way to its parameters: as attributes they take longer to find than to multiply by."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self._parameters["weight"], self._parameters["bias"])  # type: ignore[arg-type]


def linear(width_in: int, width_out: int, gain: float | None = None) -> nn.Linear:
    """A layer with orthogonal weights of this gain and no bias, or with torch's own initialisation (no gain)."""
    layer = Linear(width_in, width_out)
    return layer if gain is None else orthogonal(layer, gain)


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """`layer` with orthogonal weights of this gain and no bias.                    Saxe et al. 2014, section 3"""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Layers(Plain, nn.Sequential):
    """Layers applied in turn."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._modules.values():
            x = layer.forward(x)
        return x


def mlp(sizes: Sequence[int], activation: Activation, gain: float | None = None) -> Layers:
    """Linear layers of these sizes, each followed by the activation."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(sizes):
        layers += [linear(width_in, width_out, gain), ACTIVATIONS[activation]()]
    return Layers(*layers)


class Encoder(Plain, nn.Module):
    """Observations to flat float features, (N, F): one-hot integers, flat vectors, a small CNN for images."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.event_dims = len(spec.obs_shape)
        self.choices = 0
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
            self.num_features = math.prod(spec.obs_shape)

    def forward(self, obs: Tensor) -> Tensor:
        if self.choices:
            return F.one_hot(obs, self.choices).float()
        if self.event_dims == 1:
            return obs
        if self.cnn is None:
            return obs.reshape(*obs.shape[: obs.ndim - self.event_dims], self.num_features)
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


class V(Plain, nn.Module):
    """A state's value, (N,)."""

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        encoder = Encoder(spec)
        body = mlp([encoder.num_features, *hidden], activation, math.sqrt(2))
        self.net = Layers(encoder, *body, linear(hidden[-1], 1, 1.0))

    def forward(self, obs: Tensor) -> Tensor:
        value: Tensor = self.net(obs)
        return value.squeeze(-1)


class Q(Plain, nn.Module):
    """The values of all discrete actions at once, (N, A).

    Dueling: Q(s, a) = V(s) + A(s, a) - mean_a A(s, a), two heads on one body.    Wang et al. 2016, equation 9
    """

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation, *, dueling: bool = False) -> None:
        super().__init__()
        encoder = Encoder(spec)
        self.body = Layers(encoder, *mlp([encoder.num_features, *hidden], activation))
        self.advantage = linear(hidden[-1], spec.action_sizes[0])
        self.value = linear(hidden[-1], 1) if dueling else None

    def forward(self, obs: Tensor) -> Tensor:
        features = self.body(obs)
        advantage: Tensor = self.advantage(features)
        if self.value is None:
            return advantage
        return self.value(features) + advantage - advantage.mean(-1, keepdim=True)


def take(q: Tensor, action: Tensor) -> Tensor:
    """Q(s, a) of the given actions, (N,), out of the values of all actions, (N, A)."""
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


class EnsembleLinear(Plain, nn.Module):
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


class QEnsemble(Plain, nn.Module):
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
        self.net = Layers(*layers, EnsembleLinear(size, hidden[-1], 1))

    def forward(self, obs: Tensor, action: Tensor, size: int | None = None) -> Tensor:
        if self.choices:
            parts = zip(action.unbind(-1), self.choices, strict=True)
            action = torch.cat([F.one_hot(choice, size).float() for choice, size in parts], -1)
        x = torch.cat([self.encoder(obs), action], -1)
        size = size or self.size
        flat = x.reshape(-1, x.shape[-1]).expand(size, -1, -1)  # (E, N, F)
        q: Tensor = self.net(flat)
        return q.reshape(size, *x.shape[:-1])


class ActionQ(Plain, nn.Module):
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
        q: Tensor = self.net(obs, action)
        return q.squeeze(0)

    def mean(self, obs: Tensor, policy: "Distribution", noise: Tensor) -> Tensor:
        """E_a Q(s, a) for a ~ `policy`, (N,): exact over discrete actions, else one draw for each row of `noise`."""
        if isinstance(policy, Categorical):
            return (policy.log_probs.exp() * self.net(obs)).sum(-1)
        return torch.stack([self(obs, policy.sample(each)) for each in noise]).mean(0)


class Policy(Plain, nn.Module):
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
        body = mlp([encoder.num_features, *hidden], activation, math.sqrt(2))
        self.net = Layers(encoder, *body, linear(hidden[-1], num_outputs, 0.01))
        if self.is_box:
            self.log_std = nn.Parameter(torch.full((num_outputs,), log_std_init))

    def noise(self, *shape: int, generator: Generator) -> Tensor:
        """What `sample` makes actions of, (*shape, outputs): normal for a Box, exponential for choices."""
        noise = torch.empty(*shape, sum(self.sizes), device=generator.device)
        return noise.normal_(generator=generator) if self.is_box else noise.exponential_(generator=generator)

    def forward(self, obs: Tensor) -> "Distribution":
        out = self.net(obs)
        if self.is_box:
            return Gaussian(out, self.log_std)
        return MultiCategorical(out, self.sizes) if self.is_multi else Categorical(out)


def check_bounds(spec: Spec) -> None:
    """A UserError unless [-1, 1] means all of the action space, as squashed actions need."""
    if not spec.is_bounded or not spec.scale_actions:
        raise UserError(f"squashed actions need finite bounds and scale_actions; here: {spec.action_space}")


class Deterministic(Plain, nn.Module):
    """One action for each state, squashed into [-1, 1], (N, A)."""

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        check_bounds(spec)
        encoder = Encoder(spec)
        body = mlp([encoder.num_features, *hidden], activation)
        self.net = Layers(encoder, *body, linear(hidden[-1], spec.action_sizes[0]), nn.Tanh())

    def forward(self, obs: Tensor) -> Tensor:
        action: Tensor = self.net(obs)
        return action


class SquashedPolicy(Plain, nn.Module):
    """A Gaussian squashed into [-1, 1]; its log standard deviation depends on the state and stays in [-20, 2].

    Haarnoja et al. 2018, appendix C
    """

    def __init__(self, spec: Spec, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        check_bounds(spec)
        encoder = Encoder(spec)
        self.body = Layers(encoder, *mlp([encoder.num_features, *hidden], activation))
        self.mean = linear(hidden[-1], spec.action_sizes[0])
        self.log_std = linear(hidden[-1], spec.action_sizes[0])

    def noise(self, *shape: int, generator: Generator) -> Tensor:
        """What `sample` makes actions of: standard normal, (*shape, A)."""
        return torch.randn(*shape, self.mean.out_features, generator=generator, device=generator.device)

    def forward(self, obs: Tensor) -> "TanhGaussian":
        features = self.body(obs)
        return TanhGaussian(self.mean(features), self.log_std(features).clamp(-20, 2))


class Categorical:
    """A choice among A actions from unnormalised logits, (N, A)."""

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = logits.log_softmax(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """One action a row, (N,), by the Gumbel trick: argmax of logits + Gumbel noise.

        `noise` is exponential, (N, A); minus its logarithm is Gumbel.
        """
        return (self.log_probs - noise.log()).argmax(-1)

    def mode(self) -> Tensor:
        """The most likely action, (N,)."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), (N,)."""
        return take(self.log_probs, action)

    def entropy(self) -> Tensor:
        """-Σ π log π in nats, (N,)."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


class EpsilonGreedy:
    """The best action by Q, (N, A), but with chance ε any action, uniformly."""

    def __init__(self, q: Tensor, epsilon: float | Tensor) -> None:
        self.best, self.num_actions, self.epsilon = q.argmax(-1), q.shape[-1], epsilon

    @staticmethod
    def noise(*shape: int, generator: Generator) -> Tensor:
        """What `sample` makes actions of: uniform in [0, 1), (*shape, 2)."""
        return torch.rand(*shape, 2, generator=generator, device=generator.device)

    def sample(self, noise: Tensor) -> Tensor:
        """One action a row, (N,); `noise` (N, 2) says whether to explore, and where."""
        chance, choice = noise.unbind(-1)
        return torch.where(chance < self.epsilon, (choice * self.num_actions).long(), self.best)

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), (N,)."""
        return (self.epsilon / self.num_actions + (1 - self.epsilon) * (action == self.best)).log()

    def mean(self, q: Tensor) -> Tensor:
        """Σ_a π(a|s) Q(s, a) of other values for the same actions, (N, A) to (N,)."""
        return self.epsilon * q.mean(-1) + (1 - self.epsilon) * take(q, self.best)


class MultiCategorical:
    """Independent choices, one for each dimension of a MultiDiscrete action; logits side by side, (N, ΣA)."""

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        self.parts = [Categorical(part) for part in logits.split(list(sizes), -1)]

    def sample(self, noise: Tensor) -> Tensor:
        """One action a row, (N, K); `noise` is exponential, (N, ΣA)."""
        sizes = [part.log_probs.shape[-1] for part in self.parts]
        parts = zip(self.parts, noise.split(sizes, -1), strict=True)
        return torch.stack([part.sample(each) for part, each in parts], -1)

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
        self.mean, self.log_std, self.std = mean, log_std, log_std.exp()

    def sample(self, noise: Tensor) -> Tensor:
        """One action a row, (N, A); `noise` is standard normal, (N, A)."""
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        """The mean, (N, A)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), summed over action dimensions, (N,)."""
        terms = ((action - self.mean) / self.std).square() + (2 * self.log_std + math.log(2 * math.pi))
        return -0.5 * terms.sum(-1)

    def entropy(self) -> Tensor:
        """½ log 2πeσ², summed over action dimensions, in nats, (N,)."""
        terms = (0.5 + 0.5 * math.log(2 * math.pi) + self.log_std).expand_as(self.mean)
        return terms.sum(-1)


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


Distribution = Categorical | MultiCategorical | Gaussian


def check_space(name: str, spec: Spec, supported: tuple[type, ...]) -> None:
    """A UserError unless the action space is one that the algorithm supports."""
    if not isinstance(spec.action_space, supported):
        names = ", ".join(space.__name__ for space in supported)
        raise UserError(f"{name} needs actions of type {names}; this environment's are {spec.action_space}")
