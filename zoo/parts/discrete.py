"""Policies over choices: several choices at once, and ε-greedy ones. N rows, A choices."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from zoo.parts.policies import Categorical, take


class MultiCategorical:
    """Independent choices, one for each dimension of a MultiDiscrete action; logits side by side, (N, ΣA)."""

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        self.parts = [Categorical(part) for part in logits.split(list(sizes), -1)]

    def sample(self, noise: Tensor) -> Tensor:
        """Return one action a row, (N, K); `noise` is exponential, (N, ΣA)."""
        sizes = [part.log_probs.shape[-1] for part in self.parts]
        parts = zip(self.parts, noise.split(sizes, -1), strict=True)
        return torch.stack([part.sample(each) for part, each in parts], -1)

    def mode(self) -> Tensor:
        """Return the most likely action, (N, K)."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), summed over the K choices, (N,)."""
        terms = [part.log_prob(a) for part, a in zip(self.parts, action.unbind(-1), strict=True)]
        return torch.stack(terms, -1).sum(-1)

    def entropy(self) -> Tensor:
        """In nats, summed over the K choices, (N,)."""
        return torch.stack([part.entropy() for part in self.parts], -1).sum(-1)


# In the place of values and logits of actions that are not allowed: finite, so that 0 x NEVER is 0, also in gradients,
# and below every value that can be learned, whose square must be a float32 (1e38).
NEVER = -1e30


def allow(values: Tensor, obs: Tensor, num_masks: int) -> Tensor:
    """Values or logits, (N, A), of the actions that observations, (N, F + A), allow; NEVER for the others."""
    return torch.where(obs[..., -num_masks:] > 0, values, NEVER)


def mean_allowed(values: Tensor, obs: Tensor, num_masks: int) -> Tensor:
    """Mean of values, (N, A), over the actions that observations, (N, F + A), allow, (N, 1); over all without masks."""
    if not num_masks:
        return values.mean(-1, keepdim=True)
    allowed = (obs[..., -num_masks:] > 0).float()
    return (allowed * values).sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True).clamp(min=1)


class EpsilonGreedy:
    """The best action by Q, (N, A), but with chance ε any action, uniformly.

    With `masked`, any that is allowed: whose Q is not `NEVER`.
    """

    def __init__(self, q: Tensor, epsilon: float | Tensor, *, masked: bool = False) -> None:
        self.best, self.epsilon = q.argmax(-1), epsilon
        self.allowed = (q > NEVER).float() if masked else None
        # Where an episode has ended nothing is allowed, and nothing is multiplied with it but 0.
        self.num_actions = q.shape[-1] if self.allowed is None else self.allowed.sum(-1).clamp(min=1)

    @staticmethod
    def noise(*shape: int, generator: Generator) -> Tensor:
        """Return what `sample` makes actions of: uniform in [0, 1), (*shape, 2)."""
        return torch.rand(*shape, 2, generator=generator, device=generator.device)

    def sample(self, noise: Tensor) -> Tensor:
        """Return one action a row, (N,); `noise` (N, 2) says whether to explore, and where."""
        chance, choice = noise.unbind(-1)
        explored = (choice * self.num_actions).long()
        if self.allowed is not None:  # the first action up to which more than so many are allowed
            explored = (self.allowed.cumsum(-1) <= explored.unsqueeze(-1)).sum(-1).clamp(max=self.allowed.shape[-1] - 1)
        return torch.where(chance < self.epsilon, explored, self.best)

    def log_prob(self, action: Tensor) -> Tensor:
        """log π(a|s), (N,)."""
        return (self.epsilon / self.num_actions + (1 - self.epsilon) * (action == self.best)).log()

    def mean(self, q: Tensor) -> Tensor:
        """Σ_a π(a|s) Q(s, a) of other values for the same actions, (N, A) to (N,)."""
        mean = q.mean(-1) if self.allowed is None else (self.allowed * q).sum(-1) / self.num_actions
        return self.epsilon * mean + (1 - self.epsilon) * take(q, self.best)
