"""DQN: value-based, off-policy, Q target.                                          Mnih et al. 2015, Algorithm 1

y = r + γ (1 - terminated) max_a' Q̄(s', a')          L = E[huber(y - Q(s, a))]
act: ε-greedy in Q, ε falling linearly               Q̄: a copy of Q, refreshed every `target_every` updates

The defaults are Stable-Baselines3's, but `target_every` counts updates.
"""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium.spaces import Discrete
from torch import Generator, Tensor, nn

from zoo.buffers import ReplayBuffer
from zoo.config import Field, Widths, config, schedule
from zoo.parts.critics import Q, polyak_
from zoo.parts.discrete import EpsilonGreedy
from zoo.parts.networks import Activation
from zoo.parts.optim import Adam, scalar
from zoo.parts.policies import take
from zoo.parts.targets import segment_return
from zoo.protocol import Progress, Segment
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class DQNConfig:
    """DQN's settings."""

    capacity: int = Field(1_000_000, ge=1, description="transitions that the replay keeps")
    batch_size: int = Field(32, ge=1, description="transitions in a sample")
    learning_starts: int = Field(100, ge=0, description="steps before the first update")
    train_every: int = Field(4, ge=1, description="steps between updates, all environments together")
    num_updates: int = Field(1, ge=1, description="updates each time")
    n_step: int = Field(1, ge=1, description="rewards summed before the bootstrap (Sutton and Barto 2018, 7.1)")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    tau: float = Field(1.0, gt=0, le=1, description="how far the target copy moves towards Q; 1 copies")
    target_every: int = Field(2500, ge=1, description="updates between two moves of the target copy")
    epsilon_start: float = Field(1.0, ge=0, le=1, description="chance of a random action at the start")
    epsilon_end: float = Field(0.05, ge=0, le=1, description="the same once exploration_fraction is over")
    exploration_fraction: float = Field(0.1, gt=0, le=1, description="fraction of the run over which ε falls")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's step size at the start")
    learning_rate_end: float | None = Field(None, ge=0, description="step size at the end, linearly; none keeps it")
    loss: Literal["huber", "mse"] = Field("huber", description="how errors of Q are penalised")
    max_grad_norm: float = Field(10.0, gt=0, description="gradients longer than this are shortened to it")
    hidden: Widths = Field((64, 64), description="widths of the hidden layers")
    activation: Activation = Field("relu", description="activation of the hidden layers")


class DQN(nn.Module):
    """Deep Q-learning from a replay of past experience."""

    cell, spaces, Config = Cell("value/off/q"), (Discrete,), DQNConfig
    few_guards = True
    saved = ("generator", "num_updates")

    def __init__(self, spec: Spec, config: DQNConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator, self.masked = config, generator, spec.num_masks > 0
        self.q = Q(spec, config.hidden, config.activation)
        self.target_q = copy.deepcopy(self.q).requires_grad_(False)
        self.optimizer = Adam(self.q.parameters(), max_grad_norm=config.max_grad_norm)
        self.num_updates = 0

    def make_buffer(self, spec: Spec, num_envs: int) -> ReplayBuffer:
        return ReplayBuffer(
            spec,
            num_envs,
            self.generator,
            capacity=self.config.capacity,
            batch_size=self.config.batch_size,
            learning_starts=self.config.learning_starts,
            train_every=self.config.train_every,
            num_updates=self.config.num_updates,
            n_step=self.config.n_step,
        )

    def epsilon(self, progress: Progress) -> float:
        """Return the chance of exploring."""
        fraction = min(progress.fraction / self.config.exploration_fraction, 1.0)
        return schedule(self.config.epsilon_start, self.config.epsilon_end, fraction)

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, None]:
        policy = EpsilonGreedy(self.q(obs), self.epsilon(progress), masked=self.masked)
        return policy.sample(policy.noise(len(obs), generator=self.generator)), None

    def greedy(self, obs: Tensor) -> Tensor:
        return self.q(obs).argmax(-1)

    def update(self, batch: Segment, progress: Progress) -> dict[str, Tensor]:
        learning_rate = schedule(self.config.learning_rate, self.config.learning_rate_end, progress.fraction)
        metrics = self.step(batch, scalar(learning_rate))
        self.num_updates += 1
        if self.num_updates % self.config.target_every == 0:
            polyak_(self.target_q, self.q, self.config.tau)
        return metrics

    def step(self, batch: Segment, learning_rate: Tensor) -> dict[str, Tensor]:
        """Learn from one batch; returns scalar metrics."""
        rows = batch.rows  # (n, N, ...)
        with torch.no_grad():  # y is a constant: Q(s, a) moves towards it, not Q(s', a') towards Q(s, a)
            next_q = self.target_q(rows.next_obs)  # (..., A)
            target = segment_return(  # (N,)
                reward=rows.reward,
                discount=self.config.gamma * ~rows.terminated,  # no future after a termination
                next_value=next_q.amax(-1),  # of the best a', whoever acted
                lam=1.0 * ~rows.truncated,  # a future, but in no row: bootstrap from the true final observation
            )
        q = take(self.q(batch.obs), batch.action)  # (N,)
        penalty = F.smooth_l1_loss if self.config.loss == "huber" else F.mse_loss
        q_loss = penalty(q, target)
        grad_norm = self.optimizer.minimize(q_loss, learning_rate)
        return {"q_loss": q_loss.detach(), "q": q.detach().mean(), "grad_norm": grad_norm}
