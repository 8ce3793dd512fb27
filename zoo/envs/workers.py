"""Environments in processes of their own."""

import atexit
import os
import weakref
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv

from zoo.machine import obey_parent


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
