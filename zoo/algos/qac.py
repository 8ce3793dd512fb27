"""QAC, the vanilla actor-critic: policy-based, on-policy, Q target.                     Sutton et al. 2000, theorem 1

    y = r + γ (1 - terminated) Q(s', a')                 a' is the action executed next (SARSA), λ-returns for λ > 0
    L_π = -E[Q(s, a) log π(a|s)] - c_e E[H(π)]           L_Q = E[(Q(s, a) - y)²], several steps, then L_π one

Optionally the actor is driven by Q(s, a) - b(s), b(s) = E_a Q(s, a): the same gradient on average, less noise.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Generator, Tensor, nn

from zoo.buffers import RolloutBuffer
from zoo.config import Field, Widths, config, schedule
from zoo.parts.critics import ActionQ
from zoo.parts.networks import Activation, Policy
from zoo.parts.optim import Adam, scalar
from zoo.parts.rmsprop import RMSprop
from zoo.parts.targets import executed_next, lambda_return, standardize
from zoo.protocol import Progress, Transition
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class QACConfig:
    """QAC's settings."""

    num_steps: int = Field(5, ge=1, description="steps per environment in a rollout")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    lam: float = Field(0.0, ge=0, le=1, description="λ of the critic's returns: 0 is SARSA, above it SARSA(λ)")
    baseline: bool = Field(False, description="subtract b(s) = E_a Q(s, a) from the actor's Q(s, a)")
    baseline_samples: int = Field(8, ge=1, le=1000, description="draws for b(s) where actions cannot be enumerated")
    learning_rate: float = Field(7e-4, gt=0, description="step size at the start")
    learning_rate_end: float | None = Field(None, ge=0, description="step size at the end, linearly; none keeps it")
    critic_updates: int = Field(1, ge=1, le=1000, description="critic steps on each rollout, before the actor's one")
    optimizer: Literal["rmsprop", "adam"] = Field("rmsprop", description="which optimiser")
    optimizer_eps: float = Field(1e-5, gt=0, description="ε in the optimiser's denominator")
    ent_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    max_grad_norm: float = Field(0.5, gt=0, description="gradients longer than this are shortened to it")
    normalize_advantage: bool = Field(False, description="whiten the advantages of each batch")
    log_std_init: float = Field(0.0, description="log standard deviation of a Box policy at the start")
    hidden: Widths = Field((64, 64), description="widths of the hidden layers, in each net")
    activation: Activation = Field("tanh", description="activation of the hidden layers")


class QAC(nn.Module):
    """Actor-critic as the policy gradient theorem states it: the score times the learned action value."""

    cell, spaces, Config = Cell("policy/on/q"), (Box, Discrete, MultiDiscrete), QACConfig
    few_guards = True

    def __init__(self, spec: Spec, config: QACConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator = config, generator
        self.actor = Policy(spec, config.hidden, config.activation, log_std_init=config.log_std_init)
        self.critic = ActionQ(spec, config.hidden, config.activation)
        optimizer = {"rmsprop": RMSprop, "adam": Adam}[config.optimizer]
        settings = {"eps": config.optimizer_eps, "max_grad_norm": config.max_grad_norm}
        self.actor_optimizer = optimizer(self.actor.parameters(), **settings)
        self.critic_optimizer = optimizer(self.critic.parameters(), **settings)

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
        noise = self.actor.noise(*batch.reward.shape, generator=self.generator)
        samples = self.config.baseline_samples if self.config.baseline else 0
        draws = self.actor.noise(samples, *batch.reward.shape, generator=self.generator)
        return self.step(batch, noise, draws, scalar(learning_rate))

    def step(self, batch: Transition[Tensor], noise: Tensor, draws: Tensor, learning_rate: Tensor) -> dict[str, Tensor]:
        """Learn from one batch; returns scalar metrics."""
        policy = self.actor(batch.obs)
        log_prob = policy.log_prob(batch.action)  # (T, B)
        with torch.no_grad():  # constants: the critic moves towards the target, and the actor alone up the advantage
            drawn = self.actor(batch.next_obs).sample(noise)
            next_action = executed_next(batch.action, drawn=drawn, ended=batch.terminated | batch.truncated)
            target = lambda_return(
                reward=batch.reward,
                discount=self.config.gamma * ~batch.terminated,  # no future after a termination
                next_value=self.critic(batch.next_obs, next_action),
                lam=self.config.lam * ~batch.truncated,  # a future, but in no row: bootstrap from the true successor
            )  # (T, B)
        for _ in range(self.config.critic_updates):
            q_loss = F.mse_loss(self.critic(batch.obs, batch.action), target)
            grad_norm = self.critic_optimizer.minimize(q_loss, learning_rate)
        with torch.no_grad():
            advantage = self.critic(batch.obs, batch.action)  # (T, B)
            if self.config.baseline:  # b(s), the same for all actions: no bias, less noise
                advantage = advantage - self.critic.mean(batch.obs, policy, draws)
            if self.config.normalize_advantage:
                advantage = standardize(advantage)
        policy_loss = -(advantage * log_prob).mean()  # descent on minus the objective climbs it
        entropy = policy.entropy().mean()
        self.actor_optimizer.minimize(policy_loss - self.config.ent_coef * entropy, learning_rate)
        return {
            "policy_loss": policy_loss.detach(),
            "q_loss": q_loss.detach(),
            "entropy": entropy.detach(),
            "grad_norm": grad_norm,
        }
