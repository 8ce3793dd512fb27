"""Replaying: new environments come to where a restored state had the old ones, by its seeds and actions."""

import numpy as np
from gymnasium.vector import AutoresetMode

from zoo.envs.envs import Envs, episode_seed
from zoo.protocol import NONE
from zoo.spec import Array


def replay(envs: Envs) -> Array:
    """Bring new environments to where a restored state had them.

    Returns the columns in which that did not lead to the restored observation; their episodes start anew.
    """
    own = envs.mode is AutoresetMode.DISABLED
    normalizer = envs.obs_normalizer
    obs = envs.encode(_replay_episodes(envs) if own else _replay_all(envs), envs.numbers)
    seen = obs if normalizer is None else normalizer(obs)
    other = (seen != envs.obs).reshape(envs.num_envs, -1).any(1)
    if not other.any():
        return NONE
    if not own:
        envs.reset()
        return np.arange(envs.num_envs)
    envs.returns[other], envs.lengths[other] = 0, 0
    obs = envs.encode(envs.start(other), envs.numbers)
    if normalizer is not None:
        obs, _ = normalizer.whiten(obs, obs, NONE, other)
    envs.obs = np.where(other.reshape(-1, *[1] * (obs.ndim - 1)), obs, envs.obs)
    return np.flatnonzero(other)


def _replay_all(envs: Envs) -> Array:
    """Repeat all that they did since they were reset together."""
    obs, _ = envs.vector.reset(seed=episode_seed(envs.seeds, envs.first))
    for action in envs.actions:
        obs, *_ = envs.vector.step(action.copy())
    return np.asarray(obs)


def _replay_episodes(envs: Envs) -> Array:
    """Episodes of different lengths come to their ends together: each starts when its first action is due."""
    seeds = [episode_seed(envs.seeds, int(number)) for number in envs.numbers]
    obs, _ = envs.vector.reset(seed=seeds)
    length, ended = int(envs.lengths.max()), np.zeros(envs.num_envs, np.bool_)
    for t in range(length):
        starts = ended | (envs.lengths == length - t)
        if starts.any():
            envs.vector.reset(seed=seeds, options={"reset_mask": starts})
        # Until an environment's episode starts, it takes the actions of the one before.
        obs, _, terminated, truncated, _ = envs.vector.step(envs.actions[t - length].copy())
        ended = terminated | truncated
    if ended.any() or (envs.lengths == 0).any():
        obs, _ = envs.vector.reset(seed=seeds, options={"reset_mask": ended | (envs.lengths == 0)})
    return np.asarray(obs)
