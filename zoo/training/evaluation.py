"""Evaluation: fixed-seed episodes, played by a trained agent."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.random import SeedSequence

from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.envs.task import EnvLike, Task, complete
from zoo.errors import UserError
from zoo.machine import torch_settings
from zoo.protocol import Episode
from zoo.spec import Array
from zoo.storage.agent import Agent

EVALUATION = 1_000_003  # first key of every evaluation stream; training streams have small keys


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of fixed-seed episodes, in the order of their seeds."""

    returns: Array
    lengths: Array

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the return over episodes (ddof 1; 0 for a single episode)."""
        return float(self.returns.std(ddof=1)) if len(self.returns) > 1 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "mean": self.mean,
            "std": self.std,
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
        }


def evaluate(
    agent: Agent,
    env: EnvLike | Task,
    *,
    episodes: int = 100,
    seed: int | SeedSequence = 0,
    deterministic: bool = True,
    num_envs: int = 10,
    threads: int = 1,
    on_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run `episodes` episodes, each with a seed of its own that `seed` decides; training never uses these seeds.

    Observation statistics stay frozen and rewards are the environment's own. `threads` are torch's: small networks are
    fastest with one, and where other processes share the cores several are many times slower. `on_step` is called
    between steps, and may end the evaluation by an exception.
    """
    for name, value, least in (("episodes", episodes, 1), ("num_envs", num_envs, 1), ("threads", threads, 1)):
        if not isinstance(value, Integral) or value < least:
            raise UserError(f"{name} = {value!r}; expected a whole number of at least {least}")
    if not isinstance(seed, SeedSequence) and not (isinstance(seed, Integral) and int(seed) >= 0):
        raise UserError(f"seed = {seed!r}; expected a whole number of at least 0")
    seeds = seed if isinstance(seed, SeedSequence) else SeedSequence(seed, spawn_key=(EVALUATION,))
    task = complete(env, agent.spec)
    vector = vectorize(task, 1 if isinstance(task.env, gym.Env) else min(num_envs, episodes))
    envs = Envs(vector, seeds, scale_actions=agent.spec.scale_actions)
    agent.spec.check_same(envs.spec)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    with closing(envs), torch_settings(threads):
        for episode in islice(_play(agent, envs, episodes, deterministic, on_step), episodes):
            returns[episode.number], lengths[episode.number] = episode.episode_return, episode.length
    return Evaluation(returns, lengths)


def _play(
    agent: Agent, envs: Envs, episodes: int, deterministic: bool, on_step: Callable[[], None]
) -> Iterator[Episode]:
    """Return the first `episodes` that are started, in the order in which they end; goes on for ever with others."""
    envs.reset()
    while True:
        on_step()
        obs = envs.obs if agent.obs_normalizer is None else agent.obs_normalizer(envs.obs)
        step = envs.step(agent.act(obs, deterministic, envs.lengths == 0))
        yield from (episode for episode in step.episodes if episode.number < episodes)
