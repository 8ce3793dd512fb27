"""An environment as settings describe it: made wherever it is needed, in actors, for evaluations, to be watched."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import FrameStackObservation

from zoo.envs.flatten import Flattened
from zoo.envs.ids import load_name, make_env, resolve_id
from zoo.errors import UserError, said, told
from zoo.spec import Spec

EnvLike = str | gym.Env[Any, Any] | Callable[..., gym.Env[Any, Any]]


class Borrowed(gym.Wrapper[Any, Any, Any, Any]):
    """A caller's own environment, which stays open when we are done with it."""

    def close(self) -> None:
        """Leave it open."""


@dataclass(frozen=True)
class Task:
    """What makes an environment, with which arguments, and what is put around it: calling it makes one.

    `env` is an id, the name of an object in a file, a function that makes an environment, or an environment itself.
    """

    env: EnvLike
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrap: tuple[str, ...] = ()
    frame_stack: int = 1
    action_masks: bool = False

    @property
    def plain_id(self) -> str | None:
        """The id, if it alone, with its arguments, says how to make the environment."""
        plain = isinstance(self.env, str) and not self.wrap and self.frame_stack == 1 and not self.action_masks
        return resolve_id(str(self.env)) if plain else None

    def __call__(self, **more: Any) -> gym.Env[Any, Any]:
        """Make the environment; `more` are arguments of this one alone. Raises UserError if it cannot be made."""
        env = self._bare({**self.kwargs, **more})
        for name in self.wrap:
            env = _wrapped(env, name)
        if self.frame_stack > 1:
            env = FrameStackObservation(env, self.frame_stack)
        return Flattened(env, action_masks=True) if self.action_masks else env

    def _bare(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        if isinstance(self.env, gym.Env):
            if self.kwargs:
                raise UserError("env_kwargs are for an id or a function that makes an environment; this one is made")
            return Borrowed(self.env)
        if isinstance(self.env, str):
            return make_env(resolve_id(self.env), **kwargs)
        return _checked(self.env(**kwargs), self.env)


def complete(env: "EnvLike | Task", spec: Spec) -> Task:
    """Return the task of an agent with `spec` in `env`: what its run put around the environment comes along."""
    return env if isinstance(env, Task) else Task(env, action_masks=spec.num_masks > 0)


def _wrapped(env: gym.Env[Any, Any], name: str) -> gym.Env[Any, Any]:
    wrapper = load_name(name, "wrap")
    try:
        return _checked(wrapper(env), wrapper)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"--wrap {name} fails on {env}: {said(error)}; it is called with the environment alone"
        ) from error


def _checked(env: Any, maker: Any) -> gym.Env[Any, Any]:
    if not isinstance(env, gym.Env):
        name = getattr(maker, "__name__", told(maker))
        raise UserError(f"{name} returned {type(env).__name__}; expected a gymnasium.Env")
    return env
