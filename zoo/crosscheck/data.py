"""Rung 1: make targets of what a Stable-Baselines3 model recorded in a real environment, by its code and by ours.

On-policy: advantages and returns. Off-policy: TD targets. Equal to 1e-6, in float32. Episodes end in both ways.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Discrete
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from zoo import registry
from zoo.crosscheck.check import Check
from zoo.crosscheck.sb3 import COUNTERPARTS, Twins, make, precision
from zoo.crosscheck.updates import NOW, as_segment, update_both
from zoo.protocol import Transition

TOLERANCE, ENVS, STEPS = 1e-6, 3, 40
CARTPOLE = partial(gym.make, "CartPole-v1", max_episode_steps=15)  # falls, or is truncated
PENDULUM = partial(gym.make, "Pendulum-v1", max_episode_steps=9)  # is always truncated


class Record(BaseCallback):
    """Record transitions as the environment returned them: raw rewards, true final observations, two kinds of end."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Transition[Tensor]] = []
        self.targets: dict[str, Tensor] = {}
        self.obs: Any = None  # before each step

    def _on_step(self) -> bool:
        found = self.locals
        done, infos = found["dones"], found["infos"]
        truncated = np.array([info["TimeLimit.truncated"] for info in infos])
        next_obs = found["new_obs"].copy()
        for index in np.flatnonzero(done):
            next_obs[index] = infos[index]["terminal_observation"]
        action = found.get("buffer_actions", found["actions"])
        row = (self.obs, action, found["rewards"].copy(), next_obs, done & ~truncated, truncated, np.zeros(len(done)))
        self.rows.append(Transition(*(torch.from_numpy(np.array(field)) for field in row)))
        self.obs = found["new_obs"].copy()
        return True

    def _on_training_start(self) -> None:
        self.obs = self.model._last_obs.copy()  # type: ignore[union-attr]

    def _on_rollout_end(self) -> None:
        if isinstance(self.model, OnPolicyAlgorithm):
            buffer = self.model.rollout_buffer
            found = {"advantages": buffer.advantages, "returns": buffer.returns}
            self.targets = {name: torch.from_numpy(values.copy()) for name, values in found.items()}

    def transitions(self) -> Transition[Tensor]:
        """Return what was recorded, (T, B, ...)."""
        return Transition(*(torch.stack(field) for field in zip(*self.rows, strict=True)))


def record(twins: Twins) -> tuple[Transition[Tensor], dict[str, Tensor]]:
    """Collect a rollout of their model without learning; returns transitions and their targets."""
    callback = Record()
    with patch.object(twins.model, "train", lambda *args, **kwargs: None):
        twins.model.learn(STEPS * ENVS, callback=callback)
    return callback.transitions(), callback.targets


@contextmanager
def captured(owner: Any, function: str) -> Iterator[list[Any]]:
    """Collect what a function of a module returns, in a list that grows with each call."""
    original, results = getattr(owner, function), []

    def call(*args: Any, **kwargs: Any) -> Any:
        results.append(original(*args, **kwargs))
        return results[-1]

    with patch.object(owner, function, call):
        yield results


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to values above 1: float32 numbers near 60 are 4e-6 apart."""
    return ((ours - theirs).abs() / theirs.abs().clamp(min=1)).max().item()


def advantages(name: str, title: str, env: Callable[[], Any], **settings: Any) -> Iterator[Check]:
    """Compare their advantages and returns with those that our update computes from the raw record."""
    with precision(torch.float32):
        twins = make(name, env, ENVS, num_steps=STEPS, hidden=(16, 16), **settings)
        batch, expected = record(twins)
        with torch.no_grad():
            value = twins.algo.critic(batch.obs)
        with captured(import_module(type(twins.algo).__module__), "gae") as found:
            twins.algo.update(batch, NOW)
    (advantage,) = found
    yield Check(name, 1, "SB3", f"{title}: advantages", distance(advantage, expected["advantages"]), TOLERANCE)
    yield Check(name, 1, "SB3", f"{title}: returns", distance(advantage + value, expected["returns"]), TOLERANCE)


def targets(name: str, title: str, env: Callable[[], Any], **settings: Any) -> Iterator[Check]:
    """Compare their TD targets of everything in their replay with ours of the raw record."""
    with precision(torch.float32):
        twins = make(name, env, capacity=1000, learning_starts=1000, hidden=(16, 16), **settings)
        rows = record(twins)[0]
        batch = as_segment(rows)
        theirs = twins.model.replay_buffer._get_samples(np.arange(len(rows.reward)))
        loss = "smooth_l1_loss" if name == "dqn" else "mse_loss"
        with (
            captured(import_module(type(twins.algo).__module__), "segment_return") as found,
            patch.object(F, loss, wraps=getattr(F, loss)) as called,
        ):
            update_both(twins, batch, theirs, count=1)
        expected = called.call_args_list[0].args[1][:, 0]  # of (prediction, target); theirs goes first
    yield Check(name, 1, "SB3", f"{title}: TD targets", distance(found[0], expected), TOLERANCE)


def on_policy(name: str) -> Iterator[Check]:
    """Compare on poles that fall or are truncated, and on pendulums that are only truncated; λ of 1 and below."""
    yield from advantages(name, "CartPole-v1, λ = 1", CARTPOLE, lam=1.0)
    yield from advantages(name, "Pendulum-v1, λ = 0.9", PENDULUM, lam=0.9)


def off_policy(name: str) -> Iterator[Check]:
    """Compare on the environment whose actions the entry supports."""
    if Discrete in registry.load_class(name).spaces:
        yield from targets(name, "CartPole-v1", CARTPOLE)
    else:
        yield from targets(name, "Pendulum-v1", PENDULUM)


CHECKS: dict[str, Callable[[], Iterator[Check]]] = {
    name: partial(on_policy if issubclass(twin.model, OnPolicyAlgorithm) else off_policy, name)
    for name, twin in COUNTERPARTS.items()
}
