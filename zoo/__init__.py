"""Actor-critic algorithms on a cube of three questions: strategy x data x target.

agent = zoo.train("ppo", "Pendulum-v1", seed=0)
zoo.evaluate(agent, "Pendulum-v1").mean
zoo.lookup("policy/on/v")
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError
from zoo.taxonomy import Cell

if TYPE_CHECKING:
    from zoo.registry import lookup
    from zoo.runs.api import load
    from zoo.runs.interactive import resume, train
    from zoo.storage.agent import Agent
    from zoo.training.evaluation import Evaluation, evaluate

__all__ = ["Agent", "Cell", "Evaluation", "UserError", "evaluate", "load", "lookup", "resume", "train"]

# What needs torch is imported when it is first used.
_LAZY = {
    "Agent": "zoo.storage.agent",
    "Evaluation": "zoo.training.evaluation",
    "evaluate": "zoo.training.evaluation",
    "load": "zoo.runs",
    "lookup": "zoo.registry",
    "resume": "zoo.runs.interactive",
    "train": "zoo.runs.interactive",
}


def check_system() -> None:
    """Raise UserError where folders have no descriptors, and processes no signals, on which all that is saved rests."""
    if os.name != "posix":
        raise UserError("the zoo runs on Linux and macOS, not on Windows itself; install and start it inside WSL")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    check_system()
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
