"""Vector environments that reset themselves, and what their steps really did.

With autoreset DISABLED, `Envs` resets what ended and nothing here is needed: every environment that this package makes
itself is of that kind. The two other modes become the same transitions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from zoo.errors import EnvError
from zoo.spec import Array


class Outcome(NamedTuple):
    """What one step did, whatever the mode; all have a row for each environment."""

    next_obs: Array  # the true successors
    alive: Array  # False where the step only reset an ended environment
    begun: Array  # where an episode has begun
    follows: Array  # which rows of the next step will be alive


def autoreset_mode(vector: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """When a vector environment resets what ended: gymnasium's default where it does not say."""
    return AutoresetMode(vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))


def same_step(obs: Array, infos: dict[str, Any], ended: Array, alive: Array) -> Outcome:
    """The reset is part of the step that ends an episode; its final observation is among the infos."""
    next_obs = obs
    if ended.any():
        if infos.get("final_obs") is None:
            raise EnvError("the environments reset themselves in the step that ends an episode, without final_obs")
        final = np.stack([infos["final_obs"][i] for i in np.flatnonzero(ended)])  # (E, ...)
        next_obs = obs.astype(np.result_type(obs, final))  # no cast in silence: that is judged later
        next_obs[ended] = final
    every = np.ones_like(ended)
    return Outcome(next_obs, every, ended, every)


def next_step(obs: Array, infos: dict[str, Any], ended: Array, alive: Array) -> Outcome:
    """The reset takes a step of its own, whose action is ignored, and whose reward and flags mean nothing."""
    return Outcome(obs, alive, ~alive, ~(ended & alive))


# Of observations, infos, what ended in the step, and which of its rows are alive.
OWN_RESETS: dict[AutoresetMode, Callable[[Array, dict[str, Any], Array, Array], Outcome]] = {
    AutoresetMode.SAME_STEP: same_step,
    AutoresetMode.NEXT_STEP: next_step,
}
