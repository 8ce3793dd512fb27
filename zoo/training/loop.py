"""The one training loop: act, step, store, learn. Command line, benchmarks and tests consume its reports."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.envs.envs import Envs
from zoo.envs.replay import replay
from zoo.errors import DivergedError
from zoo.machine import device_of
from zoo.protocol import NONE, Algorithm, Buffer, Episode, Progress, Source, Step, map_fields
from zoo.training.weights import load_weights, weights_of


class Report(NamedTuple):
    """What happened since the last report."""

    step: int
    episodes: list[Episode]
    metrics: dict[str, float]  # means over the updates


class Learner:
    """An algorithm that learns from what a source of experience brings and a buffer keeps."""

    saved = ("algo", "source", "buffer", "step", "since_report", "episodes", "sums", "counts")
    episodes: list[Episode]
    sums: dict[str, Tensor]
    counts: dict[str, int]

    def __init__(self, algo: Algorithm, source: Source, buffer: Buffer) -> None:
        self.algo, self.source, self.buffer = algo, source, buffer
        self.step = self.since_report = 0
        self.episodes, self.sums, self.counts = [], {}, {}  # since the last report: the sums of the updates' metrics

    def check_state(self) -> bool:
        """Whether a restored state makes sense."""
        scalars = all(not each.shape and each.is_floating_point() for each in self.sums.values())
        counted = self.sums.keys() == self.counts.keys() and all(self.counts.values())
        return self.since_report <= self.step and scalars and counted

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
            transition, alive, ended, broken = self.source.step(Progress(self.step, total_steps), on_step)
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
                self.buffer.learned(batch)
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
        report = Report(self.step, self.episodes, means | self.source.metrics() | self.buffer.metrics())
        self.episodes, self.sums, self.counts = [], {}, {}
        return report


class Inline:
    """Experience from this process; with `copy`, of a copy of the learner that is refreshed every `lag` updates."""

    saved = ("copy", "envs", "updates")

    def __init__(self, algo: Algorithm, envs: Envs, *, copy: Algorithm | None = None, lag: int = 0) -> None:
        self.algo, self.envs, self.copy, self.lag = algo, envs, copy, lag
        self.actor, self.num_envs, self.device = copy or algo, envs.num_envs, device_of(algo)
        self.updates = 0
        self.broken = NONE
        if copy is not None:
            load_weights(copy, weights_of(algo))
        envs.reset()

    def step(self, progress: Progress, on_wait: Callable[[], None] = lambda: None) -> Step:
        step = act_and_step(self.actor, self.envs, progress, self.device)
        if len(self.broken):
            step, self.broken = step._replace(broken=self.broken), NONE
        return step

    def learned(self) -> None:
        self.updates += 1
        if self.copy is not None and self.updates % self.lag == 0:
            load_weights(self.copy, weights_of(self.algo))

    def resume(self) -> list[str]:
        self.broken = replay(self.envs)
        if not len(self.broken):
            return []
        columns = ", ".join(map(str, self.broken))
        return [f"episodes in environment {columns} start anew: replaying their actions led elsewhere"]

    def metrics(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self.envs.close()


def act_and_step(actor: Algorithm, envs: Envs, progress: Progress, device: torch.device) -> Step:
    """Choose an action for every environment and take it."""
    progress = Progress(progress.step, progress.total, envs.lengths == 0)
    with torch.inference_mode():
        action, log_prob = actor.act(torch.from_numpy(envs.obs).to(device), progress)
    return envs.step(action.cpu().numpy(), None if log_prob is None else log_prob.cpu().numpy())
