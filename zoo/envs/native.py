"""Environments stepped as arrays: by the dynamics that are written here, or by an id's own vector environment."""

import inspect
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from zoo.envs.dynamics import DYNAMICS, Dynamics
from zoo.envs.ids import explained, make_env
from zoo.errors import UserError, nearest
from zoo.spaces import Array


class NativeEnvs(VectorEnv[Any, Any, Any]):
    """Copies of `env`, stepped by its dynamics as arrays, and reset only when asked, each with its own seed."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, dynamics: Dynamics, env: gym.Env[Any, Any], num_envs: int) -> None:
        self.dynamics, self.num_envs = dynamics, num_envs
        limit = env.spec.max_episode_steps if env.spec is not None else None
        self.limit = np.inf if limit is None else limit
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        first = dynamics.initial(np.random.default_rng(0))
        self.state = np.zeros((num_envs, *first.shape))
        self.obs = dynamics.observe(self.state)
        self.steps = np.zeros(num_envs, np.int64)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset all, or those of options["reset_mask"], each with its own seed; all observations, (B, ...)."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        for i in np.flatnonzero(mask).tolist():
            rng, _ = seeding.np_random(None if seed is None else seed[i])
            state = self.dynamics.initial(rng)
            self.state[i], self.obs[i] = state, self.dynamics.observe(state)
        self.steps[mask] = 0
        return self.obs.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Observations, rewards, terminated and truncated, (B, ...) each."""
        self.state, reward, terminated = self.dynamics.step(self.state, actions)
        self.obs = self.dynamics.observe(self.state)
        self.steps += 1
        return self.obs.copy(), reward, terminated, self.steps >= self.limit, {}


def native(env_id: str, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """Copies of an id stepped as arrays: by the dynamics that are written here, else by its own vector environment.

    Raises UserError for an id that has neither, or an argument that the dynamics do not know.
    """
    if env_id not in DYNAMICS:
        spec = gym.registry.get(env_id.rpartition(":")[2])  # a package that is named has been imported
        if spec is None or spec.vector_entry_point is None:
            raise UserError(f"{env_id} has no vector environment of its own; use --vec sync or --vec async")
        with explained(env_id, kwargs):
            return gym.make_vec(env_id, num_envs, vectorization_mode="vector_entry_point", **kwargs)
    env = make_env(env_id, **kwargs)
    kwargs.pop("max_episode_steps", None)  # which the limit in its spec then is
    known = inspect.signature(DYNAMICS[env_id]).parameters
    for name in kwargs:
        if name not in known:
            raise UserError(f"--vec native of {env_id} has no argument {name!r}{nearest(name, known)}; use --vec sync")
    return NativeEnvs(DYNAMICS[env_id](**kwargs), env, num_envs)
