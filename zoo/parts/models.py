"""What each candidate action may lead to: the environment's own model, or one that is learned from its transitions.

Shapes: N observations, A candidate actions, K outcomes of each, E networks of an ensemble, F numbers of an observation.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Generator, Tensor, nn

from zoo.errors import UserError
from zoo.parts.critics import ensemble_mlp
from zoo.protocol import Transition
from zoo.spec import Array, Outcomes, Spec

Kind = Literal["exact", "learned"]
CANDIDATES_LIMIT = 1000
OUTCOMES_LIMIT = 8  # of a learned distribution over states: the most likely ones


def candidates(spec: Spec, count: int) -> Array:
    """Return the actions that a lookahead compares, as algorithms act: all of a Discrete, a grid of a Box, (A, ...).

    The grid has `count` values in each dimension, both bounds among them. Raises UserError for a Box without bounds,
    and for a grid of more than 1,000 actions.
    """
    if isinstance(spec.action_space, spaces.Discrete):
        return np.arange(*spec.action_sizes)
    low, high = spec.action_bounds
    if not spec.is_bounded:
        raise UserError(f"a lookahead compares actions on a grid, which {spec.action_space} has no bounds for")
    if count ** len(low) > CANDIDATES_LIMIT:
        raise UserError(
            f"candidates = {count} in each of {len(low)} dimensions are more than {CANDIDATES_LIMIT:,} actions to "
            "compare; take fewer, or an entry with a policy"
        )
    axes = [np.linspace(*bounds, count, dtype=np.float32) for bounds in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def lookahead(outcomes: Outcomes, next_value: Tensor, gamma: float) -> Tensor:
    """Q(s, a) = Σ_k p_k (r_k + γ (1 - d_k) V(s'_k)), (N, A); `next_value` is (N, A, K).

    Sutton and Barto 2018, equation 4.2
    """
    future = gamma * (1 - outcomes.terminated) * next_value  # no future after a termination, outcome by outcome
    return (outcomes.probability * (outcomes.reward + future)).sum(-1)


class Exact:
    """The environment's own model; it learns nothing. Raises UserError if the environment has none."""

    def __init__(self, spec: Spec, actions: Array) -> None:
        if spec.model is None:
            raise UserError("model = exact, but no exact model of the environment is known; use model = learned")
        self.model, self.actions = spec.model, spec.decode_action(actions)

    def __call__(self, obs: Tensor) -> Outcomes:
        """Return what each candidate may lead to from observations, (N, ...)."""
        outcomes = self.model.outcomes(obs.cpu().numpy(), self.actions)
        next_obs, *numbers = (torch.from_numpy(np.ascontiguousarray(field)).to(obs.device) for field in outcomes)
        return Outcomes(next_obs, *(field.to(torch.get_default_dtype()) for field in numbers))


class Scale(nn.Module):
    """Root mean square of each of F numbers, over past batches: some thousand of them at most."""

    count: Tensor
    square: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("square", torch.ones(size))

    @torch.no_grad()
    def see(self, x: Tensor) -> None:
        """Take the numbers of a batch into account, (N, F)."""
        self.count.add_(1)
        self.square.lerp_(x.square().mean(0), 1 / self.count.clamp(max=1000))

    def forward(self) -> Tensor:
        return self.square.sqrt().clamp(min=1e-6)


class Inputs(nn.Module):
    """Observations and actions as the networks of a model take them, (N, I)."""

    def __init__(self, spec: Spec, actions: Array) -> None:
        super().__init__()
        self.num_choices = 0 if isinstance(spec.action_space, spaces.Box) else len(actions)
        self.num_states = int(spec.observation_space.n) if isinstance(spec.observation_space, spaces.Discrete) else 0
        self.num_features = self.num_states or math.prod(spec.obs_shape) - spec.num_masks
        self.size = self.num_features + (self.num_choices or actions.shape[-1])
        self.actions: Tensor
        self.register_buffer("actions", torch.from_numpy(actions), persistent=False)
        self.scale = Scale(self.num_features)

    def features(self, obs: Tensor) -> Tensor:
        """Return observations, (N, ...), as numbers, (N, F): one-hot states, flat vectors and images; no masks."""
        if self.num_states:
            return F.one_hot(obs, self.num_states).to(torch.get_default_dtype())
        return obs.reshape(len(obs), -1)[:, : self.num_features].to(torch.get_default_dtype())

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        if self.num_choices:
            action = F.one_hot(action, self.num_choices).to(features.dtype)
        scaled = features if self.num_states else features / self.scale()
        return torch.cat([scaled, action], -1)

    def pairs(self, features: Tensor) -> Tensor:
        """Each observation beside each candidate, (N·A, I)."""
        count = len(self.actions)
        return self(
            features.repeat_interleave(count, 0), self.actions.repeat(len(features), *[1] * (self.actions.ndim - 1))
        )


class VectorModel(nn.Module):
    """Changes of the observation, rewards and ends, by an ensemble: each network's word is one of the outcomes.

    Where the environment is random, `draws` of each network's Gaussian are outcomes in place of its mean: V of a mean
    is not the mean of V (Wan et al. 2019). They are drawn once, so that actions are compared on equal terms.
    """

    noise: Tensor

    def __init__(
        self, spec: Spec, actions: Array, hidden: Sequence[int], generator: Generator, *, size: int, draws: int
    ) -> None:
        super().__init__()
        self.inputs = Inputs(spec, actions)
        self.obs_shape = spec.obs_shape if not spec.num_masks else (self.inputs.num_features,)
        self.size, self.draws, self.are_bytes = size, draws, spec.obs_dtype == np.uint8
        self.num_outputs = self.inputs.num_features + 1  # Δs and r
        self.net = ensemble_mlp(size, [self.inputs.size, *hidden, 2 * self.num_outputs + 1], "relu")
        self.scale = Scale(self.num_outputs)
        shape = draws, 1, 1, self.num_outputs
        self.register_buffer("noise", torch.randn(shape, generator=generator, device=generator.device))

    def _parts(self, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means and log standard deviations of (Δs, r), scaled, (E, N, F + 1); logits of an end, (E, N)."""
        mean, log_std, end = self.net(pairs.expand(self.size, -1, -1)).split([self.num_outputs] * 2 + [1], -1)
        return mean, log_std.clamp(-5, 2), end.squeeze(-1)

    def loss(self, rows: Transition[Tensor]) -> Tensor:
        """Squared errors and missed ends of all networks, with draws negative log-likelihoods; rows are (N, ...)."""
        features, following = self.inputs.features(rows.obs), self.inputs.features(rows.next_obs)
        target = torch.cat([following - features, rows.reward[:, None].to(features.dtype)], -1)
        self.inputs.scale.see(features)
        self.scale.see(target)
        mean, log_std, end = self._parts(self.inputs(features, rows.action))
        error = (mean - target / self.scale()).square()
        if self.draws:
            error = error * (-2 * log_std).exp() + 2 * log_std
        ended = rows.terminated.to(mean.dtype).expand_as(end)
        return 0.5 * error.sum(-1).mean() + F.binary_cross_entropy_with_logits(end, ended)

    def forward(self, obs: Tensor) -> Outcomes:
        features = self.inputs.features(obs)
        mean, log_std, end = self._parts(self.inputs.pairs(features))
        drawn = mean + self.noise * log_std.exp() if self.draws else mean[None]  # (D, E, N·A, F + 1)
        change, reward = (drawn * self.scale()).split([self.num_outputs - 1, 1], -1)
        shape = len(obs), len(self.inputs.actions), -1
        first = features.repeat_interleave(shape[1], 0)
        next_obs = (first + change).flatten(0, 1).movedim(0, 1)  # (N·A, K, F)
        rewards = reward.squeeze(-1).flatten(0, 1).T.reshape(shape)
        if self.are_bytes:
            next_obs = next_obs.round().clamp(0, 255).byte()
        ends = end.sigmoid().expand(len(drawn), -1, -1).flatten(0, 1).T.reshape(shape)
        probability = torch.full_like(rewards, 1 / rewards.shape[-1])
        return Outcomes(next_obs.reshape(*rewards.shape, *self.obs_shape), probability, rewards, ends)


class StateModel(nn.Module):
    """The distribution of the next of S states, together with whether the episode ends there, and the mean reward.

    An ensemble's distributions are averaged. The most likely outcomes stand for all.
    """

    def __init__(self, spec: Spec, actions: Array, hidden: Sequence[int], *, size: int) -> None:
        super().__init__()
        self.inputs, self.size = Inputs(spec, actions), size
        self.net = ensemble_mlp(size, [self.inputs.size, *hidden, 2 * self.inputs.num_states + 1], "relu")
        self.scale = Scale(1)

    def _parts(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the state after, if going on and if ended, (E, N, 2S); scaled rewards, (E, N)."""
        logits, reward = self.net(pairs.expand(self.size, -1, -1)).split([2 * self.inputs.num_states, 1], -1)
        return logits.log_softmax(-1), reward.squeeze(-1)

    def loss(self, rows: Transition[Tensor]) -> Tensor:
        """Negative log-likelihood of what followed, and squared errors of rewards; rows are (N, ...)."""
        self.scale.see(rows.reward[:, None])
        log_probs, reward = self._parts(self.inputs(self.inputs.features(rows.obs), rows.action))
        index = rows.next_obs + self.inputs.num_states * rows.terminated
        likelihood = log_probs.gather(-1, index.expand(self.size, -1)[..., None])
        return (reward - rows.reward / self.scale()).square().mean() - likelihood.mean()

    def forward(self, obs: Tensor) -> Outcomes:
        log_probs, reward = self._parts(self.inputs.pairs(self.inputs.features(obs)))
        shape = len(obs), len(self.inputs.actions), -1
        probability, index = log_probs.exp().mean(0).topk(min(OUTCOMES_LIMIT, log_probs.shape[-1]))
        probability = (probability / probability.sum(-1, keepdim=True)).reshape(shape)
        next_obs, ended = index % self.inputs.num_states, index >= self.inputs.num_states
        rewards = (reward.mean(0) * self.scale()).reshape(shape).expand_as(probability)
        return Outcomes(next_obs.reshape(shape), probability, rewards, ended.reshape(shape).to(rewards.dtype))


def make_model(spec: Spec, actions: Array, config: Any, generator: Generator) -> Exact | VectorModel | StateModel:
    """Return the model that an entry's settings ask for. Raises UserError if it is exact and none is known."""
    if config.model == "exact":
        return Exact(spec, actions)
    hidden, size = config.model_hidden, config.model_size
    if isinstance(spec.observation_space, spaces.Discrete):
        return StateModel(spec, actions, hidden, size=size)
    return VectorModel(spec, actions, hidden, generator, size=size, draws=config.model_draws)
