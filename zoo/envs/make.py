"""Making environments: ids, factories or objects become one vector environment."""

from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from zoo.envs.native import native
from zoo.envs.pool import Pool
from zoo.envs.sync import Sync, _guarded, making
from zoo.envs.task import EnvLike, Task
from zoo.envs.workers import Workers
from zoo.errors import UserError


def vectorize(env: EnvLike | Task, num_envs: int, vec: str = "sync") -> VectorEnv[Any, Any, Any]:
    """Return `num_envs` copies of what a task makes, or (num_envs = 1) an environment itself.

    `vec`: sync steps them in this process, async each in its own, native as arrays (zoo.envs.native), envpool by that
    package. Raises UserError where that cannot be.
    """
    task = env if isinstance(env, Task) else Task(env)
    if isinstance(task.env, gym.Env) and num_envs != 1:
        raise UserError(f"one environment object cannot be {num_envs} environments; pass a function that makes one")
    if vec in ("native", "envpool"):
        name = task.plain_id
        if name is None:
            raise UserError(f"--vec {vec} makes environments of ids alone, with nothing around them; use --vec sync")
        make = Pool if vec == "envpool" else native
        with making(f"the vector environment of {name}"), task.importing():
            return make(name, num_envs, **task.kwargs)
    factories = [partial(_guarded, task, index) for index in range(num_envs)]
    return Workers(factories) if vec == "async" and not isinstance(task.env, gym.Env) else Sync(factories)
