"""envpool's environments."""

import warnings
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from zoo.envs.ids import make_env
from zoo.errors import UserError
from zoo.spec import Array

MUJOCO = {"HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"}
POOLED = {"CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", *MUJOCO}


class Pool(VectorEnv[Any, Any, Any]):
    """envpool's environments as gymnasium's: with gymnasium's spaces, seeded by `reset`. (arXiv:2206.10558)

    They have one seed, that of their first episodes, so each is reset in the very step that ends an episode: left
    alone, it would spend the next one on it. One that ends of itself in the very step at which its time is up counts
    as truncated.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, env_id: str, num_envs: int, **kwargs: Any) -> None:
        try:
            import envpool
        except ImportError:
            raise UserError("--vec envpool needs a package: pip install -e '.[envpool]'") from None
        if env_id not in POOLED:  # its Pendulum, for one, moves by the speed before that is clipped
            known = ", ".join(sorted(POOLED))
            raise UserError(f"envpool's {env_id} is not known to be gymnasium's task; known: {known}; use --vec sync")
        single = make_env(env_id, **kwargs)
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.action_space = batch_space(single.action_space, num_envs)
        self.num_envs = num_envs
        single.close()
        self.make = partial(envpool.make, env_id, env_type="gymnasium", num_envs=num_envs, num_threads=1, **kwargs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset all; `seed` is that of the first environment, the others' follow."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the types of its own spaces
            self.pool = self.make(seed=seed)
            obs, _ = self.pool.reset()
            self.dtype = self.pool.action_space.dtype
        return obs, {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Observations, rewards, terminated and truncated, (B, ...) each; where one ended, final_obs has the last."""
        obs, rewards, terminated, truncated, _ = self.pool.step(actions.astype(self.dtype))
        ended = np.flatnonzero(terminated | truncated).astype(np.int32)
        if not ended.size:
            return obs, rewards, terminated, truncated, {}
        first, infos = self.pool.reset(ended)
        final, obs = obs, obs.copy()
        obs[infos["env_id"]] = first
        return obs, rewards, terminated, truncated, {"final_obs": final}
