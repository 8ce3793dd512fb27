"""An environment that says where it fails."""

import traceback
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from zoo.errors import EnvError


class Guard(gym.Wrapper[Any, Any, Any, Any]):
    """Says in which environment, episode and step something went wrong; as text, which also leaves a process.

    Observations leave it with the shape and type of their space: no later cast changes them in silence.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self.index, self.count = index, 0
        self.seed: int | None = None
        self.shape, self.dtype = env.observation_space.shape, np.dtype(env.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.seed, self.count = seed, 0
        try:
            obs, info = self.env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            raise self._error("in reset", error) from error
        return self._typed(obs), info

    def step(self, action: Any) -> Any:
        self.count += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except (Exception, SystemExit) as error:
            raise self._error(f"given action {action}", error) from error
        return self._typed(obs), reward, terminated, truncated, info

    def _typed(self, obs: Any) -> Any:
        """The observation as its space says; an EnvError where a cast would change more than its precision."""
        if type(obs) is np.ndarray and obs.dtype == self.dtype and obs.shape == self.shape:
            return obs
        try:
            given = np.asarray(obs)
        except ValueError as error:
            raise self._error(f"its observation is no array of one shape: {error}") from None
        if given.shape != self.shape:
            raise self._error(f"its observation has shape {given.shape}; its space says {self.shape}")
        if given.dtype.kind not in ("biuf" if self.dtype.kind == "f" else "biu"):
            raise self._error(f"its observation is of {given.dtype}; its space is of {self.dtype}")
        with np.errstate(over="ignore"):
            typed = given.astype(self.dtype)
        kept = np.isfinite(typed) == np.isfinite(given) if self.dtype.kind == "f" else typed == given
        if not kept.all():
            raise self._error(f"its observation holds {given[~kept].flat[0]}, which no {self.dtype} of its space holds")
        return typed

    def _error(self, what: str, cause: BaseException | None = None) -> EnvError:
        text = f"environment {self.index} failed in step {self.count} of the episode with seed {self.seed}, {what}"
        return _explained(text, cause)


def _explained(text: str, cause: BaseException | None) -> EnvError:
    if cause is None:
        return EnvError(text)
    if isinstance(cause, SystemExit):
        return EnvError(f"{text}: it called sys.exit({cause.code!r})")
    trace = "".join(traceback.format_exception(cause)).rstrip()
    return EnvError(f"{text}: {type(cause).__name__}: {cause}\n{trace}")


def _guarded(factory: Callable[[], gym.Env[Any, Any]], index: int) -> gym.Env[Any, Any]:
    try:
        return Guard(factory(), index)
    except SystemExit as error:
        raise _explained(f"environment {index} failed when it was made", error) from error
