"""Composite observations as flat vectors, and behind them the mask of the actions that are allowed."""

from typing import Any

import gymnasium as gym
import numpy as np

from zoo.errors import EnvError, UserError
from zoo.spaces import Array, Flat, joined_masks, shown
from zoo.spec import Spec


class Flattened(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose observations are those of `Flat`.

    With `action_masks`, the environment's info["action_mask"] says which actions are allowed in the state that is
    observed: 1 or 0 for each choice, those of several dimensions side by side, or a tuple of masks. Raises EnvError for
    an action that is not allowed, which never reaches the environment.
    """

    def __init__(self, env: gym.Env[Any, Any], *, action_masks: bool = False) -> None:
        super().__init__(env)
        self.sizes = _choices(env) if action_masks else ()
        self.flat = Flat(env.observation_space, sum(self.sizes))
        self.observation_space = self.flat
        self.mask: Array | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._flat(obs, info, ended=False), info

    def step(self, action: Any) -> Any:
        if self.mask is not None:
            self._check(action, self.mask)
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._flat(obs, info, ended=bool(terminated)), reward, terminated, truncated, info

    def _flat(self, obs: Any, info: dict[str, Any], *, ended: bool) -> Array:
        if not self.sizes:
            return self.flat.flatten(obs)
        none = np.zeros(sum(self.sizes), np.float32)  # of an end, where nothing is chosen
        self.mask = none if ended else joined_masks(info.get("action_mask"), self.sizes)
        return self.flat.flatten(obs, self.mask)

    def _check(self, action: Any, mask: Array) -> None:
        start = getattr(self.env.action_space, "start", 0)  # a MultiBinary counts from 0
        starts = np.cumsum((0, *self.sizes[:-1]))
        if not mask[starts + np.reshape(np.asarray(action) - start, -1)].all():
            raise EnvError(f"action_mask {mask.astype(int)} does not allow this action, which the policy chose anyway")


def _choices(env: gym.Env[Any, Any]) -> tuple[int, ...]:
    """Return the number of choices of each dimension of the actions. Raises UserError if they are no choices."""
    space = env.action_space
    if isinstance(space, gym.spaces.Box):
        raise UserError(f"action masks are for choices; this environment's actions are {shown(space)}")
    return Spec(gym.spaces.Discrete(1), space).action_sizes
