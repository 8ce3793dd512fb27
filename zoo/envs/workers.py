"""Environments in processes of their own, which may die and hang."""

import atexit
import multiprocessing
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import Any, NoReturn

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from zoo.envs.sync import fail
from zoo.errors import EnvError
from zoo.machine import obey_parent, safe_path
from zoo.spec import Array

TIMEOUT = 300.0  # seconds that environments in processes of their own may take for a step


class Workers(AsyncVectorEnv):
    """Environments in processes of their own, reset only when asked.

    Raises EnvError if one fails, dies or hangs; `close` then ends the processes, which no one can ask to close.
    """

    failed = False

    def __init__(self, factories: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        make = [partial(_in_worker, factory, os.getpid()) for factory in factories]
        with safe_path():
            super().__init__(make, autoreset_mode=AutoresetMode.DISABLED)
        ASYNC.add(self)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        with self._watched("reset"):
            self.reset_async(seed=seed, options=options)
            return self.reset_wait(timeout=TIMEOUT)

    def step(self, actions: Array) -> Any:
        with self._watched("step"):
            self.step_async(actions)
            return self.step_wait(timeout=TIMEOUT)

    def close(self, **kwargs: Any) -> None:
        """Close the environments and end their processes."""
        if self.failed:
            end(self)
        else:
            super().close(**kwargs)

    @contextmanager
    def _watched(self, method: str) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about errors, which are raised as well
                yield
        except BaseException as error:  # also an interruption: it leaves processes at work
            self.failed = True
            self._fail(method, error)

    def _fail(self, method: str, error: BaseException) -> NoReturn:
        if isinstance(error, multiprocessing.TimeoutError):
            raise EnvError(f"no answer from the environments' processes within {TIMEOUT:.0f} seconds") from None
        if isinstance(error, EOFError | ConnectionError):
            ended = wait([process.sentinel for process in self.processes], timeout=5)
            dead = [str(i) for i, process in enumerate(self.processes) if process.sentinel in ended]
            raise EnvError(f"the process of environment {', '.join(dead)} died ({type(error).__name__})") from None
        fail(method, error)


def _in_worker(factory: Callable[[], gym.Env[Any, Any]], learner: int) -> gym.Env[Any, Any]:
    """Make an environment; in a process other than the `learner`'s, leave it to that one to decide when to stop."""
    if os.getpid() != learner:  # gymnasium makes one here, too, to see its spaces
        obey_parent()
    return factory()


ASYNC: "weakref.WeakSet[AsyncVectorEnv]" = weakref.WeakSet()


def end(vector: AsyncVectorEnv) -> None:
    """End the processes of environments that cannot be asked to close; they ignore gentler signals."""
    for process in vector.processes:
        process.kill()
    for process in vector.processes:
        process.join(5)
    vector.closed = True


@atexit.register  # before multiprocessing's own: that would wait for processes which ignore its SIGTERM
def _end_all() -> None:
    for vector in list(ASYNC):
        if not vector.closed:
            end(vector)
