"""Environments guarded, each of which says where it fails, and stepped one after another in this process."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from zoo.envs.flatten import Flattened
from zoo.errors import EnvError, said, told
from zoo.spaces import COMPOSITE, Array, cast, complaint

REALS = {float, np.float64, np.float32}  # what rewards are most often
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
        """Return the observation as its space says; an EnvError where a cast would change more than its precision."""
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
    if isinstance(cause, EnvError):
        return EnvError(f"{text}: its {cause}")
    if not isinstance(cause, Exception):
        return EnvError(f"{text}: {said(cause)}")
    trace = "".join(traceback.format_exception(cause)).rstrip()
    return EnvError(f"{text}: {said(cause)}\n{trace}")


def _guarded(factory: Callable[[], gym.Env[Any, Any]], index: int) -> gym.Env[Any, Any]:
    with making(f"environment {index}"):
        env = factory()
        return Guard(Flattened(env) if isinstance(env.observation_space, COMPOSITE) else env, index)


@contextmanager
def making(what: str) -> Iterator[None]:
    """Raise EnvError where an environment would end the program while it is made; its errors are its caller's."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _explained(f"{what} failed when it was made", error) from error


def fail(method: str, error: BaseException) -> NoReturn:
    """Raise what is to be told of an error in a vector environment: an EnvError, or the interruption that it is."""
    if isinstance(error, EnvError | KeyboardInterrupt):
        raise error
    raise EnvError(f"the environments failed in {method}: {said(error)}") from error


class Sync(VectorEnv[Any, Any, Any]):
    """Environments stepped one after another in this process, reset only when asked; no infos.

    gymnasium's SyncVectorEnv does the same, but its copies and infos take as long as eight CartPoles.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, factories: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        self.envs = [factory() for factory in factories]
        self.num_envs = len(self.envs)
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        shape = self.single_observation_space.shape or ()
        self.obs = np.zeros((self.num_envs, *shape), self.single_observation_space.dtype)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset all, or those of options["reset_mask"], each with its own seed; all observations, (B, ...)."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        for i in np.flatnonzero(mask).tolist():
            self.obs[i], _ = self.envs[i].reset(seed=None if seed is None else seed[i])
        return self.obs.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Observations, rewards, terminated and truncated, (B, ...) each."""
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        for i, env in enumerate(self.envs):
            self.obs[i], rewards[i], terminated[i], truncated[i], _ = env.step(actions[i])
        return self.obs.copy(), rewards, terminated, truncated, {}

    def close_extras(self, **kwargs: Any) -> None:
        """Close them all."""
        for env in self.envs:
            env.close()
