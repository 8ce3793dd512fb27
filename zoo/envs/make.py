"""Making environments: ids, factories or objects become one vector environment."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from zoo.envs.ids import make_env, resolve_id
from zoo.envs.native import _native
from zoo.envs.pool import Pool
from zoo.envs.sync import Guard, Sync, _guarded, making
from zoo.envs.workers import Workers
from zoo.errors import UserError

EnvLike = str | gym.Env[Any, Any] | Callable[[], gym.Env[Any, Any]]


class Borrowed(gym.Wrapper[Any, Any, Any, Any]):
    """A caller's own environment, which stays open when we are done with it."""

    def close(self) -> None:
        """Leave it open."""


def vectorize(env: EnvLike, num_envs: int, vec: str = "sync", **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` copies of an environment id, of a factory's product, or (num_envs = 1) of an environment itself.

    `vec`: sync steps them in this process, async each in its own, native uses the id's own vector environment, envpool
    that package's. A UserError where there is none.
    """
    if isinstance(env, gym.Env):
        if num_envs != 1:
            raise UserError(f"one environment object cannot be {num_envs} environments; pass a function that makes one")
        return Sync([lambda: Guard(Borrowed(env), 0)])
    factory = partial(make_env, resolve_id(env), **kwargs) if isinstance(env, str) else env
    if vec == "native":
        if not isinstance(env, str) or gym.spec(resolve_id(env)).vector_entry_point is None:
            raise UserError(f"{env} has no vector environment of its own; use --vec sync or --vec async")
        with making(f"the vector environment of {env}"):
            return _native(resolve_id(env), num_envs, **kwargs)
    if vec == "envpool":
        if not isinstance(env, str):
            raise UserError(f"envpool makes environments of ids, not of {env}; use --vec sync or --vec async")
        return Pool(resolve_id(env), num_envs, **kwargs)
    factories = [partial(_guarded, factory, index) for index in range(num_envs)]
    return Workers(factories) if vec == "async" else Sync(factories)
