"""D3QN: value-based, off-policy, Q target.           Wang et al. 2016; van Hasselt et al. 2016; Schaul et al. 2016

y = r + γ (1 - terminated) Q̄(s', argmax_a' Q(s', a'))    L = E[ω huber(y - Q(s, a))]
Q(s, a) = V(s) + A(s, a) - mean_b A(s, b)                Q̄: a copy of Q, refreshed every `target_every` updates
ω = (min_j P(j) / P(i))^β, 1 in a uniform replay         P: how likely transition i was sampled; β rising linearly

DQN with a double target, a dueling network and a prioritised replay; without the three it is DQN.
V and A are one linear layer each on a shared body; in Wang et al. each has a hidden layer of its own.
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
class D3QNConfig:
    """D3QN's settings; the defaults are DQN's, with all three extensions."""

    capacity: int = Field(1_000_000, ge=1, description="transitions that the replay keeps")
    batch_size: int = Field(32, ge=1, description="transitions in a sample")
    learning_starts: int = Field(100, ge=0, description="steps before the first update")
    train_every: int = Field(4, ge=1, description="steps between updates, all environments together")
    num_updates: int = Field(1, ge=1, description="updates each time")
    n_step: int = Field(1, ge=1, description="rewards summed before the bootstrap (Sutton and Barto 2018, 7.1)")
    priority_exponent: float = Field(
        0.6, ge=0, le=1, description="prioritised replay's α; 0: uniform (arXiv:1511.05952)"
    )
    importance_exponent: float = Field(
        0.4, ge=0, le=1, description="prioritised replay's β at the start; 1 undoes all of the bias, 0 none"
    )
    importance_exponent_end: float = Field(1.0, ge=0, le=1, description="the same at the end of the run, linearly")
    double: bool = Field(True, description="choose a' by Q, value it by Q̄ (arXiv:1509.06461)")
    dueling: bool = Field(True, description="Q from a value and an advantage head (arXiv:1511.06581)")
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


class D3QN(nn.Module):
    """Double, dueling deep Q-learning from a prioritised replay of past experience."""

    cell, spaces, Config = Cell("value/off/q"), (Discrete,), D3QNConfig
    few_guards = True
    saved = ("generator", "num_updates")

    def __init__(self, spec: Spec, config: D3QNConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator, self.masked = config, generator, spec.num_masks > 0
        self.q = Q(spec, config.hidden, config.activation, dueling=config.dueling)
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
            priority_exponent=self.config.priority_exponent,
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
        beta = schedule(self.config.importance_exponent, self.config.importance_exponent_end, progress.fraction)
        metrics, error = self.step(batch, scalar(learning_rate), scalar(beta))
        if self.config.priority_exponent > 0:
            batch.error.copy_(error)
        self.num_updates += 1
        if self.num_updates % self.config.target_every == 0:
            polyak_(self.target_q, self.q, self.config.tau)
        return metrics

    def step(self, batch: Segment, learning_rate: Tensor, beta: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Learn from one batch; returns scalar metrics, and the TD errors that become priorities, (N,)."""
        rows = batch.rows  # (n, N, ...)
        with torch.no_grad():  # y is a constant: Q(s, a) moves towards it, not Q(s', a') towards Q(s, a)
            next_q = self.target_q(rows.next_obs)  # (..., A)
            best = (self.q(rows.next_obs) if self.config.double else next_q).argmax(-1)
            target = segment_return(  # (N,)
                reward=rows.reward,
                discount=self.config.gamma * ~rows.terminated,  # no future after a termination
                next_value=take(next_q, best),  # double: what Q overrates, Q̄ seldom does too
                lam=1.0 * ~rows.truncated,  # a future, but in no row: bootstrap from the true final observation
            )
        q = take(self.q(batch.obs), batch.action)  # (N,)
        penalty = F.smooth_l1_loss if self.config.loss == "huber" else F.mse_loss
        q_loss = (batch.weight**beta * penalty(q, target, reduction="none")).mean()
        grad_norm = self.optimizer.minimize(q_loss, learning_rate)
        metrics = {"q_loss": q_loss.detach(), "q": q.detach().mean(), "grad_norm": grad_norm}
        return metrics, (target - q).detach()
