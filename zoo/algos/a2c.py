"""A2C: policy-based, on-policy, V target.                       Mnih et al. 2016, Algorithm S3, run synchronously

A_t = GAE(λ) of r + γ (1 - terminated) V(s') - V(s)          λ = 1: n-step returns, as in the paper
L   = -E[A log π(a|s)] + c_v E[(V(s) - (A + V_old))²] - c_e E[H(π)]

The defaults are Stable-Baselines3's.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Generator, Tensor, nn

from zoo.buffers import RolloutBuffer
from zoo.config import Field, Widths, config, schedule
from zoo.parts.networks import Activation, Policy, V
from zoo.parts.optim import Adam, scalar
from zoo.parts.rmsprop import RMSprop
from zoo.parts.targets import gae, standardize
from zoo.protocol import Progress, Transition
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class A2CConfig:
    """A2C's settings."""

    num_steps: int = Field(5, ge=1, description="steps per environment in a rollout")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    lam: float = Field(1.0, ge=0, le=1, description="GAE's λ: 0 is one-step TD, 1 sums all rewards of the rollout")
    learning_rate: float = Field(7e-4, gt=0, description="step size at the start")
    learning_rate_end: float | None = Field(None, ge=0, description="step size at the end, linearly; none keeps it")
    optimizer: Literal["rmsprop", "adam"] = Field("rmsprop", description="which optimiser")
    optimizer_eps: float = Field(1e-5, gt=0, description="ε in the optimiser's denominator")
    ent_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: float = Field(0.5, ge=0, description="weight of the critic's loss")
    max_grad_norm: float = Field(0.5, gt=0, description="gradients longer than this are shortened to it")
    normalize_advantage: bool = Field(False, description="whiten the advantages of each batch")
    log_std_init: float = Field(0.0, description="log standard deviation of a Box policy at the start")
    hidden: Widths = Field((64, 64), description="widths of the hidden layers, in each net")
    activation: Activation = Field("tanh", description="activation of the hidden layers")


class A2C(nn.Module):
    """Advantage actor-critic: one gradient step for each short rollout."""

    cell, spaces, Config = Cell("policy/on/v"), (Box, Discrete, MultiDiscrete), A2CConfig
    few_guards = True

    def __init__(self, spec: Spec, config: A2CConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator = config, generator
        self.actor = Policy(spec, config.hidden, config.activation, log_std_init=config.log_std_init)
        self.critic = V(spec, config.hidden, config.activation)
        optimizer = {"rmsprop": RMSprop, "adam": Adam}[config.optimizer]
        self.optimizer = optimizer(self.parameters(), eps=config.optimizer_eps, max_grad_norm=config.max_grad_norm)

    def make_buffer(self, spec: Spec, num_envs: int) -> RolloutBuffer:
        return RolloutBuffer(spec, num_envs, self.config.num_steps)

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, None]:
        policy = self.actor(obs)
        action = policy.sample(self.actor.noise(len(obs), generator=self.generator))
        return action, None

    def greedy(self, obs: Tensor) -> Tensor:
        return self.actor(obs).mode()

    def update(self, batch: Transition[Tensor], progress: Progress) -> dict[str, Tensor]:
        learning_rate = schedule(self.config.learning_rate, self.config.learning_rate_end, progress.fraction)
        return self.step(batch, scalar(learning_rate))

    def step(self, batch: Transition[Tensor], learning_rate: Tensor) -> dict[str, Tensor]:
        """Learn from one batch; returns scalar metrics."""
        policy = self.actor(batch.obs)
        log_prob = policy.log_prob(batch.action)  # (T, B)
        value = self.critic(batch.obs)  # (T, B)
        with torch.no_grad():  # constants: the critic moves towards the target, and the actor alone up the advantage
            advantage = gae(
                reward=batch.reward,
                discount=self.config.gamma * ~batch.terminated,  # no future after a termination
                value=value,
                next_value=self.critic(batch.next_obs),
                lam=self.config.lam * ~batch.truncated,  # a future, but in no row: bootstrap from the true successor
            )  # (T, B)
            target = advantage + value
            if self.config.normalize_advantage:
                advantage = standardize(advantage)
        policy_loss = -(advantage * log_prob).mean()  # descent on minus the objective climbs it
        value_loss = F.mse_loss(value, target)
        entropy = policy.entropy().mean()
        loss = policy_loss + self.config.vf_coef * value_loss - self.config.ent_coef * entropy
        grad_norm = self.optimizer.minimize(loss, learning_rate)
        return {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "grad_norm": grad_norm,
        }
