"""IMPALA-lite with replay: policy-based, off-policy, V target.                  Espeholt et al. 2018, section 5.2.2

    v_s, A_s = V-trace of data drawn by an older policy μ, corrected by ratio = π(a|s) / μ(a|s), clipped at ρ̄ and c̄
    L = -E[min(ρ̄, ratio) (r + γ v_{s+1} - V(s)) log π(a|s)] + c_v E[(V(s) - v_s)²] - c_e E[H(π)]

IMPALA's update, on each fresh segment and then `replayed` times on others, which start at any transition that is kept.
Losses are means over the segment, so that learning rates do not depend on its size.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Generator, Tensor, nn

from zoo.buffers import SegmentBuffer
from zoo.config import Field, Widths, config, schedule
from zoo.errors import UserError
from zoo.parts.networks import Activation, Policy, V
from zoo.parts.optim import Adam, scalar
from zoo.parts.rmsprop import RMSprop
from zoo.parts.targets import standardize, vtrace
from zoo.protocol import Progress, Transition
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class IMPALAReplayConfig:
    """IMPALAReplay's settings."""

    num_steps: int = Field(20, ge=1, description="steps per environment in a segment")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    lam: float = Field(1.0, ge=0, le=1, description="λ of the traces (remark 2)")
    rho_bar: float = Field(1.0, gt=0, description="clip of the ratio in the TD errors; decides the fixed point")
    c_bar: float = Field(1.0, gt=0, description="clip of the ratio in the traces; decides the speed")
    replayed: int = Field(1, ge=0, description="updates on replayed segments that follow each fresh one")
    capacity: int = Field(100_000, ge=1, description="transitions kept for them, at least num_steps x num_envs")
    correct: bool = Field(True, description="correct by the ratio; off pretends that the data are on-policy")
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

    def __post_init__(self) -> None:
        if self.rho_bar < self.c_bar:
            raise UserError(f"rho_bar {self.rho_bar} is below c_bar {self.c_bar}; V-trace needs rho_bar >= c_bar")


class IMPALAReplay(nn.Module):
    """Advantage actor-critic on fresh and on replayed segments, made right by V-trace."""

    cell, spaces, Config = Cell("policy/off/v"), (Box, Discrete, MultiDiscrete), IMPALAReplayConfig
    few_guards = True

    def __init__(self, spec: Spec, config: IMPALAReplayConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator = config, generator
        self.actor = Policy(spec, config.hidden, config.activation, log_std_init=config.log_std_init)
        self.critic = V(spec, config.hidden, config.activation)
        optimizer = {"rmsprop": RMSprop, "adam": Adam}[config.optimizer]
        self.optimizer = optimizer(self.parameters(), eps=config.optimizer_eps, max_grad_norm=config.max_grad_norm)

    def make_buffer(self, spec: Spec, num_envs: int) -> SegmentBuffer:
        return SegmentBuffer(
            spec,
            num_envs,
            self.config.num_steps,
            self.generator,
            replayed=self.config.replayed,
            capacity=self.config.capacity,
        )

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
        policy = self.actor(obs)
        action = policy.sample(self.actor.noise(len(obs), generator=self.generator))
        return action, policy.log_prob(action)  # log μ(a|s) is known here alone: the weights will have moved on

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
            log_rho = log_prob - batch.log_prob  # log π(a|s) - log μ(a|s), (T, B)
            target, advantage = vtrace(
                reward=batch.reward,
                discount=self.config.gamma * ~batch.terminated,  # no future after a termination
                value=value,
                next_value=self.critic(batch.next_obs),
                log_rho=log_rho if self.config.correct else torch.zeros_like(log_rho),
                lam=self.config.lam * ~batch.truncated,  # a future, but in no row: bootstrap from the true successor
                rho_bar=self.config.rho_bar,
                c_bar=self.config.c_bar,
            )  # (T, B)
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
            "abs_log_rho": log_rho.abs().mean(),
            "grad_norm": grad_norm,
        }
