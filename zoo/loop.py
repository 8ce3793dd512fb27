"""The one training loop, a generator of reports, and evaluation. Command line, benchmarks and tests consume both."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.random import SeedSequence
from torch import Tensor

from zoo.actors import Source, device_of
from zoo.agent import Agent
from zoo.algos.base import Algorithm, Buffer, Progress
from zoo.buffers import map_fields
from zoo.envs import Envs, Episode
from zoo.errors import DivergedError, UserError
from zoo.machine import processor
from zoo.spec import Array
from zoo.vector import EnvLike, vectorize

EVALUATION = 1_000_003  # first key of every evaluation stream; training streams have small keys


class Report(NamedTuple):
    """What happened since the last report."""

    step: int
    episodes: list[Episode]
    metrics: dict[str, float]  # means over the updates


class Learner:
    """An algorithm that learns from what a source of experience brings and a buffer keeps."""

    saved = ("algo", "source", "buffer", "step", "since_report", "episodes", "sums", "counts")

    def __init__(self, algo: Algorithm, source: Source, buffer: Buffer) -> None:
        self.algo, self.source, self.buffer = algo, source, buffer
        self.step = self.since_report = 0
        self.episodes: list[Episode] = []  # since the last report, as are the sums of the updates' metrics
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def finished(self, total_steps: int) -> bool:
        """Whether a run is over: on a whole rollout, so it may take a few steps more than asked for."""
        return self.step >= total_steps and not self.buffer.pending

    def reports(
        self, *, total_steps: int, log_every: int, on_step: Callable[[], None] = lambda: None
    ) -> Iterator[Report]:
        """Step, store, learn, until `total_steps`; yields a Report every `log_every` steps and at the end.

        `on_step` is called between steps, where all state is whole. Raises DivergedError where a metric is not finite.
        """
        device = device_of(self.algo)
        while not self.finished(total_steps):
            on_step()
            transition, alive, ended, broken = self.source.step(Progress(self.step, total_steps))
            if len(broken):
                self.buffer.cut(broken)
            self.episodes += ended
            self.buffer.add(transition, alive)
            taken = int(np.count_nonzero(alive))
            self.step += taken
            self.since_report += taken
            for batch in self.buffer.batches():
                if device.type != "cpu":
                    batch = map_fields(lambda x: x.to(device), batch)
                self._count(self.algo.update(batch, Progress(self.step, total_steps)))
                self.source.learned()
            if self.since_report >= log_every or self.finished(total_steps):
                report = self._report()
                self.since_report = self.step % log_every  # before the report is handled: that may take a checkpoint
                yield report

    def _count(self, metrics: dict[str, Tensor]) -> None:
        # Sums: small tensors that outlive an update would keep the memory of its large ones from being used again.
        for key, value in metrics.items():
            self.sums[key] = self.sums[key].add_(value) if key in self.sums else value.clone()
            self.counts[key] = self.counts.get(key, 0) + 1

    def _report(self) -> Report:
        means = {key: total.item() / self.counts[key] for key, total in self.sums.items()}
        wrong = [key for key, value in means.items() if not math.isfinite(value)]
        if wrong:
            raise DivergedError(
                f"{', '.join(wrong)} became NaN or infinite in the {self.since_report:,} steps before step "
                f"{self.step:,}; a lower learning_rate, normalised rewards or a smaller max_grad_norm may help"
            )
        episodes = [Episode(*each) for each in self.episodes]  # of a checkpoint they come as lists
        report = Report(self.step, episodes, means | self.source.metrics() | self.buffer.metrics())
        self.episodes, self.sums, self.counts = [], {}, {}
        return report


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
    threads: int = 1,
    on_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run `episodes` episodes, each with a seed of its own that `seed` decides; training never uses these seeds.

    Observation statistics stay frozen and rewards are the environment's own. `threads` are torch's: small networks are
    fastest with one, and where other processes share the cores several are many times slower. `on_step` is called
    between steps, and may end the evaluation by an exception.
    """
    if episodes < 1:
        raise UserError(f"episodes = {episodes}; expected at least 1")
    seeds = seed if isinstance(seed, SeedSequence) else SeedSequence(seed, spawn_key=(EVALUATION,))
    vector = vectorize(env, 1 if isinstance(env, gym.Env) else min(num_envs, episodes))
    envs = Envs(vector, seeds, scale_actions=agent.spec.scale_actions)
    agent.spec.check_same(envs.spec)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    left = episodes
    with closing(envs), processor(threads):
        envs.reset()
        while left:
            on_step()
            obs = envs.obs if agent.obs_normalizer is None else agent.obs_normalizer(envs.obs)
            for episode in envs.step(agent.act(obs, deterministic, envs.lengths == 0)).episodes:
                if episode.number < episodes:
                    returns[episode.number], lengths[episode.number] = episode.episode_return, episode.length
                    left -= 1
    return Evaluation(returns, lengths)
