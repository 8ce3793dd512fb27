"""Distributions over actions. All randomness comes from outside, as noise. N rows, A dimensions or choices."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def take(q: Tensor, action: Tensor) -> Tensor:
    """Q(s, a) of the given actions, (N,), out of the values of all actions, (N, A)."""
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


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
