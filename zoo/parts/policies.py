"""Distributions over actions. All randomness comes from outside, as noise. N rows, A dimensions or choices."""

import math

from torch import Tensor


def take(q: Tensor, action: Tensor) -> Tensor:
    """Q(s, a) of the given actions, (N,), out of the values of all actions, (N, A)."""
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


class Categorical:
    """A choice among A actions from unnormalised logits, (N, A)."""

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = logits.log_softmax(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """Return one action a row, (N,), by the Gumbel trick: argmax of logits + Gumbel noise.

        `noise` is exponential, (N, A); minus its logarithm is Gumbel.
        """
        return (self.log_probs - noise.log()).argmax(-1)

    def mode(self) -> Tensor:
        """Return the most likely action, (N,)."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), (N,)."""
        return take(self.log_probs, action)

    def entropy(self) -> Tensor:
        """-Σ π log π in nats, (N,)."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


class Gaussian:
    """A diagonal normal, mean (N, A) and log standard deviation (A,) or (N, A); actions are not squashed."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std, self.std = mean, log_std, log_std.exp()

    def sample(self, noise: Tensor) -> Tensor:
        """Return one action a row, (N, A); `noise` is standard normal, (N, A)."""
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        """Return the mean, (N, A)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), summed over action dimensions, (N,)."""
        terms = ((action - self.mean) / self.std).square() + (2 * self.log_std + math.log(2 * math.pi))
        return -0.5 * terms.sum(-1)

    def entropy(self) -> Tensor:
        """½ log 2πeσ², summed over action dimensions, in nats, (N,)."""
        terms = (0.5 + 0.5 * math.log(2 * math.pi) + self.log_std).expand_as(self.mean)
        return terms.sum(-1)
