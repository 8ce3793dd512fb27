"""SARSA, deep: value-based, on-policy, Q target.                         Sutton and Barto 2018, section 6.4

    y = r + γ (1 - terminated) Q̄(s', a')                 a' is the action executed next, drawn by the same policy
    L = E[huber(y - Q(s, a))]                            act: ε-greedy in Q, ε falling linearly

At a truncation and at the end of a rollout no next action is known: a' is drawn there by the current policy. The book
executes that draw; here acting draws anew, with the updated weights, in this process or another. Given s', both draws
have the same distribution, so the fixed point is the same. With num_steps = 1 every a' is such a draw.
"""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium.spaces import Discrete
from torch import Generator, Tensor, nn

from zoo.buffers import RolloutBuffer
from zoo.config import Field, Widths, config, schedule
from zoo.parts.critics import Q, polyak_
from zoo.parts.discrete import EpsilonGreedy
from zoo.parts.networks import Activation
from zoo.parts.optim import Adam, scalar
from zoo.parts.policies import take
from zoo.parts.targets import executed_next, n_step
from zoo.protocol import Progress, Transition
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class SARSAConfig:
    """SARSA's settings."""

    num_steps: int = Field(5, ge=1, description="steps per environment in a rollout, learned from at once")
    n_step: int = Field(1, ge=1, description="rewards summed before the bootstrap (Sutton and Barto 2018, 7.1)")
    expected: bool = Field(False, description="expected SARSA: bootstrap from Σ π(a'|s') Q̄(s', a') (van Seijen 2009)")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    tau: float = Field(1.0, gt=0, le=1, description="how far the target copy moves towards Q; 1 copies")
    target_every: int = Field(1, ge=1, description="updates between two moves of the target copy; 1 keeps none behind")
    epsilon_start: float = Field(1.0, ge=0, le=1, description="chance of a random action at the start")
    epsilon_end: float = Field(0.05, ge=0, le=1, description="the same once exploration_fraction is over")
    exploration_fraction: float = Field(0.1, gt=0, le=1, description="fraction of the run over which ε falls")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size at the start")
    learning_rate_end: float | None = Field(None, ge=0, description="step size at the end, linearly; none keeps it")
    loss: Literal["huber", "mse"] = Field("huber", description="how errors of Q are penalised")
    max_grad_norm: float = Field(10.0, gt=0, description="gradients longer than this are shortened to it")
    hidden: Widths = Field((64, 64), description="widths of the hidden layers")
    activation: Activation = Field("relu", description="activation of the hidden layers")


class SARSA(nn.Module):
    """Q-values of the policy that acts, learned from the actions that it takes."""

    cell, spaces, Config = Cell("value/on/q"), (Discrete,), SARSAConfig
    few_guards = True
    saved = ("generator", "num_updates")

    def __init__(self, spec: Spec, config: SARSAConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator, self.masked = config, generator, spec.num_masks > 0
        self.q = Q(spec, config.hidden, config.activation)
        self.target_q = copy.deepcopy(self.q).requires_grad_(False)
        self.optimizer = Adam(self.q.parameters(), max_grad_norm=config.max_grad_norm)
        self.num_updates = 0

    def make_buffer(self, spec: Spec, num_envs: int) -> RolloutBuffer:
        return RolloutBuffer(spec, num_envs, self.config.num_steps)

    def epsilon(self, progress: Progress) -> float:
        """Return the chance of exploring."""
        fraction = min(progress.fraction / self.config.exploration_fraction, 1.0)
        return schedule(self.config.epsilon_start, self.config.epsilon_end, fraction)

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, None]:
        policy = EpsilonGreedy(self.q(obs), self.epsilon(progress), masked=self.masked)
        return policy.sample(policy.noise(len(obs), generator=self.generator)), None

    def greedy(self, obs: Tensor) -> Tensor:
        return self.q(obs).argmax(-1)

    def update(self, batch: Transition[Tensor], progress: Progress) -> dict[str, Tensor]:
        learning_rate = schedule(self.config.learning_rate, self.config.learning_rate_end, progress.fraction)
        noise = EpsilonGreedy.noise(*batch.reward.shape, generator=self.generator)
        metrics = self.step(batch, noise, scalar(self.epsilon(progress)), scalar(learning_rate))
        self.num_updates += 1
        if self.num_updates % self.config.target_every == 0:
            polyak_(self.target_q, self.q, self.config.tau)
        return metrics

    def step(
        self, rows: Transition[Tensor], noise: Tensor, epsilon: Tensor, learning_rate: Tensor
    ) -> dict[str, Tensor]:
        """Learn from one batch; returns scalar metrics."""
        with torch.no_grad():  # y is a constant: Q(s, a) moves towards it, not Q(s', a') towards Q(s, a)
            next_q = self.target_q(rows.next_obs)  # (..., A)
            policy = EpsilonGreedy(self.q(rows.next_obs), epsilon, masked=self.masked)
            next_action = executed_next(rows.action, drawn=policy.sample(noise), ended=rows.terminated | rows.truncated)
            target = n_step(  # (T, B)
                reward=rows.reward,
                discount=self.config.gamma * ~rows.terminated,  # no future after a termination
                next_value=policy.mean(next_q) if self.config.expected else take(next_q, next_action),
                lam=1.0 * ~rows.truncated,  # a future, but in no row: bootstrap from the true final observation
                n=self.config.n_step,
            )
        q = take(self.q(rows.obs), rows.action)  # (T, B)
        penalty = F.smooth_l1_loss if self.config.loss == "huber" else F.mse_loss
        q_loss = penalty(q, target)
        grad_norm = self.optimizer.minimize(q_loss, learning_rate)
        return {"q_loss": q_loss.detach(), "q": q.detach().mean(), "grad_norm": grad_norm}
