"""The one training loop, a generator of reports, and evaluation. Command line, benchmarks and tests consume both."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.random import SeedSequence
from torch import Tensor

from zoo.actors import Source, device_of
from zoo.agent import Agent
from zoo.algos.base import Algorithm, Buffer, Progress
from zoo.buffers import map_fields
from zoo.envs import EnvLike, Envs, Episode, vectorize
from zoo.errors import UserError
from zoo.spec import Array

EVALUATION = 1_000_003  # first key of every evaluation stream; training streams have small keys


class Report(NamedTuple):
    """What happened since the last report."""

    step: int
    episodes: list[Episode]
    metrics: dict[str, float]  # means over the updates


def learn(algo: Algorithm, source: Source, buffer: Buffer, *, total_steps: int, log_every: int) -> Iterator[Report]:
    """Step, store, learn, until `total_steps`; yields a Report every `log_every` steps and at the end.

    A run ends on a whole rollout, so it may take a few steps more than asked for.
    """
    device = device_of(algo)
    step, next_report = 0, log_every
    episodes: list[Episode] = []
    metrics: list[dict[str, Tensor]] = []
    finished = False
    while not finished:
        transition, alive, ended = source.step(Progress(step, total_steps))
        episodes += ended
        buffer.add(transition, alive)
        step += int(np.count_nonzero(alive))
        for batch in buffer.batches():
            metrics.append(algo.update(map_fields(lambda x: x.to(device), batch), Progress(step, total_steps)))
            source.learned()
        finished = step >= total_steps and not buffer.pending
        if step >= next_report or finished:
            yield Report(step, episodes, _means(metrics) | source.metrics())
            next_report = step - step % log_every + log_every
            episodes, metrics = [], []


def _means(metrics: list[dict[str, Tensor]]) -> dict[str, float]:
    return {
        key: torch.stack([each[key] for each in metrics if key in each]).mean().item()
        for key in dict.fromkeys(itertools.chain.from_iterable(metrics))
    }


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
        """All of it as plain data."""
        return {
            "mean": self.mean,
            "std": self.std,
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
        }


def evaluate(
    agent: Agent,
    env: EnvLike,
    *,
    episodes: int = 100,
    seed: int | SeedSequence = 0,
    deterministic: bool = True,
    num_envs: int = 10,
) -> Evaluation:
    """Run `episodes` episodes, each with a seed of its own that `seed` decides; training never uses these seeds.

    Observation statistics stay frozen and rewards are the environment's own.
    """
    if episodes < 1:
        raise UserError(f"episodes = {episodes}; expected at least 1")
    seeds = seed if isinstance(seed, SeedSequence) else SeedSequence(seed, spawn_key=(EVALUATION,))
    vector = vectorize(env, 1 if isinstance(env, gym.Env) else min(num_envs, episodes))
    envs = Envs(vector, seeds, scale_actions=agent.spec.scale_actions)
    agent.spec.check_same(envs.spec)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    left = episodes
    envs.reset()
    while left:
        obs = envs.obs if agent.obs_normalizer is None else agent.obs_normalizer(envs.obs)
        action = agent.act(obs, deterministic)
        for episode in envs.step(action, action).episodes:
            if episode.number < episodes:
                returns[episode.number], lengths[episode.number] = episode.episode_return, episode.length
                left -= 1
    envs.close()
    return Evaluation(returns, lengths)
