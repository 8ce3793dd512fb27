"""PPO: policy-based, on-policy, V target.                                  Schulman et al. 2017, equations 7 and 9

A_t = GAE(λ) of r + γ (1 - terminated) V(s') - V(s)          ratio = π(a|s) / π_old(a|s)
L   = -E[min(ratio A, clip(ratio, 1 ± ε) A)] + c_v E[(V(s) - (A + V_old))²] - c_e E[H(π)]
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Generator, Tensor, nn

from zoo.buffers import RolloutBuffer
from zoo.config import Field, Widths, config, schedule
from zoo.errors import UserError
from zoo.parts.networks import Activation, Policy, V
from zoo.parts.optim import Adam, scalar
from zoo.parts.targets import gae, standardize
from zoo.protocol import Progress, Transition
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class PPOConfig:
    """PPO's settings; the defaults are Stable-Baselines3's."""

    num_steps: int = Field(2048, ge=1, description="steps per environment in a rollout")
    batch_size: int = Field(64, ge=2, description="transitions in a minibatch")
    num_epochs: int = Field(10, ge=1, le=10_000, description="passes over each rollout")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    lam: float = Field(0.95, ge=0, le=1, description="GAE's λ: 0 is one-step TD, 1 sums all rewards of the rollout")
    learning_rate: float = Field(3e-4, gt=0, description="Adam's step size at the start")
    learning_rate_end: float | None = Field(None, ge=0, description="step size at the end, linearly; none keeps it")
    optimizer_eps: float = Field(1e-5, gt=0, description="ε in Adam's denominator")
    clip_eps: float = Field(0.2, gt=0, description="how far the ratio may leave 1 and still earn, at the start")
    clip_eps_end: float | None = Field(None, ge=0, description="the same at the end, linearly; none keeps it")
    clip_value: float | None = Field(None, gt=0, description="how far V(s) may move in a rollout; none is any distance")
    target_kl: float | None = Field(None, gt=0, description="leave a rollout once KL(π_old, π) exceeds 1.5 times this")
    ent_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: float = Field(0.5, ge=0, description="weight of the critic's loss")
    max_grad_norm: float = Field(0.5, gt=0, description="gradients longer than this are shortened to it")
    normalize_advantage: bool = Field(True, description="whiten the advantages of each minibatch")
    log_std_init: float = Field(0.0, description="log standard deviation of a Box policy at the start")
    hidden: Widths = Field((64, 64), description="widths of the hidden layers, in each net")
    activation: Activation = Field("tanh", description="activation of the hidden layers")


class Sample(NamedTuple):
    """What a rollout is to minibatches, (N, ...)."""

    obs: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor


class PPO(nn.Module):
    """Proximal policy optimisation: several epochs of minibatches on each rollout, within a trust region."""

    cell, spaces, Config = Cell("policy/on/v"), (Box, Discrete, MultiDiscrete), PPOConfig
    few_guards = True

    def __init__(self, spec: Spec, config: PPOConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator = config, generator
        self.actor = Policy(spec, config.hidden, config.activation, log_std_init=config.log_std_init)
        self.critic = V(spec, config.hidden, config.activation)
        self.optimizer = Adam(self.parameters(), eps=config.optimizer_eps, max_grad_norm=config.max_grad_norm)

    def make_buffer(self, spec: Spec, num_envs: int) -> RolloutBuffer:
        size = self.config.num_steps * num_envs
        if self.config.batch_size > size:
            raise UserError(
                f"batch_size {self.config.batch_size} is larger than a rollout: num_steps {self.config.num_steps} x "
                f"num_envs {num_envs} = {size}; set batch_size to {size} or less"
            )
        return RolloutBuffer(spec, num_envs, self.config.num_steps)

    def steps_per_batch(self, num_envs: int) -> int:
        return self.config.num_epochs * math.ceil(self.config.num_steps * num_envs / self.config.batch_size)

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, None]:
        policy = self.actor(obs)
        action = policy.sample(self.actor.noise(len(obs), generator=self.generator))
        return action, None

    def greedy(self, obs: Tensor) -> Tensor:
        return self.actor(obs).mode()

    def update(self, batch: Transition[Tensor], progress: Progress) -> dict[str, Tensor]:
        with torch.no_grad():  # constants in every epoch: π_old, V_old and what follows from them
            log_prob = self.actor(batch.obs).log_prob(batch.action)  # (T, B), of the policy that acted
            value = self.critic(batch.obs)  # (T, B)
            advantage = gae(
                reward=batch.reward,
                discount=self.config.gamma * ~batch.terminated,  # no future after a termination
                value=value,
                next_value=self.critic(batch.next_obs),
                lam=self.config.lam * ~batch.truncated,  # a future, but in no row: bootstrap from the true successor
            )  # (T, B)
        rows = Sample(batch.obs, batch.action, log_prob, value, advantage, advantage + value)
        rollout = Sample(*(row.flatten(0, 1) for row in rows))  # (T·B, ...)
        learning_rate = schedule(self.config.learning_rate, self.config.learning_rate_end, progress.fraction)
        clip_eps = schedule(self.config.clip_eps, self.config.clip_eps_end, progress.fraction)
        rates = scalar(learning_rate), scalar(clip_eps)
        steps = []
        for index in self._minibatches(len(rollout.obs)):
            if self.config.target_kl is not None and self._kl(rollout, index) > 1.5 * self.config.target_kl:
                break
            steps.append(self.step(rollout, index, *rates))
        return {key: torch.stack([step[key] for step in steps]).mean() for key in steps[0]}

    def _minibatches(self, size: int) -> list[Tensor]:
        """Index sets, (batch_size,) each: a new permutation for each epoch; the last set of it may be smaller."""
        device = self.generator.device
        epochs = [torch.randperm(size, generator=self.generator, device=device) for _ in range(self.config.num_epochs)]
        return [index for epoch in epochs for index in epoch.split(self.config.batch_size)]

    @torch.no_grad()
    def _kl(self, rollout: Sample, index: Tensor) -> Tensor:
        """Schulman 2020's estimator k3 of KL(π_old, π), a scalar."""
        log_ratio = self.actor(rollout.obs[index]).log_prob(rollout.action[index]) - rollout.log_prob[index]
        return (log_ratio.exp() - 1 - log_ratio).mean()

    def step(self, rollout: Sample, index: Tensor, learning_rate: Tensor, clip_eps: Tensor) -> dict[str, Tensor]:
        """Learn from the minibatch `index` of a rollout; returns scalar metrics."""
        batch = Sample(*(row[index] for row in rollout))
        advantage = batch.advantage
        if self.config.normalize_advantage:
            advantage = standardize(advantage)
        policy = self.actor(batch.obs)
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        ratio = log_ratio.exp()
        # The pessimistic one of two: a ratio beyond the clip has no gradient, unless it makes things worse.
        policy_loss = -torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip_eps, 1 + clip_eps)).mean()

        value = self.critic(batch.obs)
        if self.config.clip_value is not None:
            value = batch.value + (value - batch.value).clamp(-self.config.clip_value, self.config.clip_value)
        value_loss = F.mse_loss(value, batch.target)
        entropy = policy.entropy().mean()
        loss = policy_loss + self.config.vf_coef * value_loss - self.config.ent_coef * entropy
        grad_norm = self.optimizer.minimize(loss, learning_rate)
        return {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "approx_kl": (ratio.detach() - 1 - log_ratio.detach()).mean(),
            "clip_fraction": ((ratio.detach() - 1).abs() > clip_eps).float().mean(),
            "grad_norm": grad_norm,
        }
