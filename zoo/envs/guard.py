"""An environment that says where it fails."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from zoo.envs.cast import cast, complaint
from zoo.errors import EnvError, said, told

REALS = {float, int, np.float64, np.float32}  # what rewards are most often
FLAGS = {bool, np.bool_}


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
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._error("in reset", error) from error
        return self._typed(obs), info

    def step(self, action: Any) -> Any:
        self.count += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._error(f"given action {action}", error) from error
        if type(reward) not in REALS:
            self._check(action, "reward", reward, "biuf", "a real number")
        if type(terminated) not in FLAGS:
            self._check(action, "terminated", terminated, "b", "True or False")
        if type(truncated) not in FLAGS:
            self._check(action, "truncated", truncated, "b", "True or False")
        return self._typed(obs), reward, terminated, truncated, info

    def _check(self, action: Any, name: str, value: Any, kinds: str, expected: str) -> None:
        """Raise EnvError unless a value is one number of these kinds (numpy's letters); it may be a 0-d array."""
        try:
            given = np.asarray(value)
        except Exception:  # of a ragged list, and the like
            given = np.zeros(0)
        if given.ndim or given.dtype.kind not in kinds:
            text = " ".join(told(value, repr).split())
            raise self._error(f"given action {action}: its {name} is {text:.100}; expected {expected}")

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
        typed, kept = cast(given, self.dtype)
        if not kept.all():
            raise self._error(f"its observation {complaint(given, kept, self.dtype)}")
        return typed

    def _error(self, what: str, cause: BaseException | None = None) -> EnvError:
        text = f"environment {self.index} failed in step {self.count} of the episode with seed {self.seed}, {what}"
        return _explained(text, cause)


def _explained(text: str, cause: BaseException | None) -> EnvError:
    if cause is None:
        return EnvError(text)
    if isinstance(cause, SystemExit):
        return EnvError(f"{text}: it called sys.exit({told(cause.code, repr)})")
    if not isinstance(cause, Exception):
        return EnvError(f"{text}: {said(cause)}")
    trace = "".join(traceback.format_exception(cause)).rstrip()
    return EnvError(f"{text}: {said(cause)}\n{trace}")


def _guarded(factory: Callable[[], gym.Env[Any, Any]], index: int) -> gym.Env[Any, Any]:
    with making(f"environment {index}"):
        return Guard(factory(), index)


@contextmanager
def making(what: str) -> Iterator[None]:
    """Raise EnvError where an environment would end the program while it is made; its errors are its caller's."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _explained(f"{what} failed when it was made", error) from error
