"""Running statistics that whiten observations and scale rewards while an agent learns."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.spaces import Array, Flat, is_image, shown

EPS = 1e-8


class RunningMoments(nn.Module):
    """Mean and variance of all rows seen, merged batch by batch in float64.     Chan et al. 1983, equations 2.1

    Buffers, so that they are saved with the agent; on the CPU, where observations come from.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        # A pinch of the prior keeps the first batch finite.
        self.register_buffer("count", torch.full((), 1e-4, dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return self

    def update(self, batch: Array) -> None:
        """Take in a batch of rows, (B, ...)."""
        if not len(batch):
            return
        mean, var, count = self.mean.numpy(), self.var.numpy(), self.count.numpy()
        size, batch_mean, batch_var = len(batch), batch.mean(0, dtype=np.float64), batch.var(0, dtype=np.float64)
        total = count + size
        delta = batch_mean - mean
        var[...] = (var * count + batch_var * size + delta**2 * count * size / total) / total
        mean[...] += delta * size / total
        count[...] = total


class ObsNormalizer(RunningMoments):
    """(obs - mean) / std, clipped to ±10; for vectors of floats, not for images or integers."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        if not isinstance(space, spaces.Box) or space.dtype == np.uint8 or is_image(space):
            raise UserError(f"normalize_obs needs observations of floats; this environment's are {shown(space)}")
        self.masks = space.masks if isinstance(space, Flat) else 0  # the last entries, which stay as they are
        super().__init__((space.shape[0] - self.masks,) if self.masks else space.shape)

    def __call__(self, obs: Array) -> Array:
        """Return whitened observations, float32; the statistics stay as they are."""
        scaled = (self._values(obs) - self.mean.numpy()) / np.sqrt(self.var.numpy() + EPS)
        white = np.clip(scaled, -10, 10).astype(np.float32)
        return np.concatenate([white, obs[..., -self.masks :]], -1) if self.masks else white

    def _values(self, obs: Array) -> Array:
        return obs[..., : -self.masks] if self.masks else obs

    def whiten(self, obs: Array, next_obs: Array, ended: Array, rows: Array) -> tuple[Array, Array]:
        """What to act on next and the successors, (B, ...) each, after the statistics took in `rows` of the former.

        Final observations, in the rows that `ended`, are whitened before the new episodes' first ones are counted.
        (Stable-Baselines3's VecNormalize)
        """
        final = self(next_obs[ended])
        self.update(self._values(obs[rows]))
        obs = successors = self(obs)
        if ended.size:
            successors = obs.copy()
            successors[ended] = final
        return obs, successors


class RewardClipper(nn.Module):
    """The sign of each reward, so that games of few points and of many are learned alike.       Mnih et al. 2015"""

    def scale(self, reward: Array, ended: Array, alive: Array) -> Array:
        """Return rewards of one step, (B,), as -1, 0 or 1."""
        return np.sign(reward)


class RewardNormalizer(RunningMoments):
    """reward / std of the discounted return so far, clipped to ±10; the mean is not removed, so signs stay.

    The return restarts where an episode ends. γ is the algorithm's own.
    """

    returns: Tensor

    def __init__(self, num_envs: int, gamma: float) -> None:
        super().__init__(())
        self.gamma = gamma
        self.register_buffer("returns", torch.zeros(num_envs, dtype=torch.float64))

    def scale(self, reward: Array, ended: Array, alive: Array) -> Array:
        """Return rewards of one step, (B,), scaled after the statistics took them in; `ended` are row numbers."""
        returns = self.returns.numpy()
        returns[alive] = self.gamma * returns[alive] + reward[alive]
        self.update(returns[alive])
        returns[ended] = 0.0
        return np.clip(reward / np.sqrt(self.var.numpy() + EPS), -10, 10)
