"""SAC: policy-based, off-policy, Q target.                        Haarnoja et al. 2018b, equations 5, 7 and 18

y = r + γ (1 - terminated) (min_i Q̄_i(s', a') - α log π(a'|s')),  a' ~ π(·|s')
L_Q = ½ Σ_i E[(y - Q_i(s, a))²]     L_π = E[α log π(ã|s) - min_i Q_i(s, ã)],  ã ~ π(·|s)
L_α = -log α · E[log π(ã|s) + H̄]    H̄ = -dim(A)

With `n_step` above 1 entropy is paid for at every step on the way, y = G_0:
G_t = r_t + γ (1 - terminated_t) (G_{t+1} - α log π(a'_t|s'_t)),  a'_t ~ π(·|s'_t)
but min_i Q̄_i(s'_t, a'_t) in the place of G_{t+1} at the last of the n steps and where the trajectory is truncated
"""

import copy
import math

import torch
from gymnasium.spaces import Box
from torch import Generator, Tensor, nn

from zoo.buffers import ReplayBuffer
from zoo.config import Field, Widths, config
from zoo.parts.critics import QEnsemble, polyak_
from zoo.parts.networks import Activation
from zoo.parts.noise import ActionNoise, NoiseKind
from zoo.parts.optim import Adam
from zoo.parts.squashed import SquashedPolicy
from zoo.parts.targets import segment_return
from zoo.protocol import Progress, Segment
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class SACConfig:
    """SAC's settings; the defaults are Stable-Baselines3's."""

    capacity: int = Field(1_000_000, ge=1, description="transitions that the replay keeps")
    batch_size: int = Field(256, ge=1, description="transitions in a sample")
    learning_starts: int = Field(100, ge=0, description="steps of uniformly random actions before the first update")
    train_every: int = Field(1, ge=1, description="steps between updates, all environments together")
    num_updates: int = Field(1, ge=1, description="updates each time")
    n_step: int = Field(1, ge=1, description="rewards summed before the bootstrap (Sutton and Barto 2018, 7.1)")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    tau: float = Field(0.005, gt=0, le=1, description="how far the target copies move in each update")
    noise: NoiseKind = Field("none", description="noise added to actions where exploring is hard: none, gaussian or ou")
    noise_std: float = Field(0.1, ge=0, description="its standard deviation, in units of half the action range")
    alpha: float = Field(1.0, gt=0, description="entropy temperature; where it starts if it is learned")
    learn_alpha: bool = Field(True, description="learn the temperature that keeps the entropy at target_entropy")
    target_entropy: float | None = Field(None, description="entropy aimed at; none is minus the action dimensions")
    learning_rate: float = Field(3e-4, gt=0, description="Adam's step size: actor, critics and temperature alike")
    hidden: Widths = Field((256, 256), description="widths of the hidden layers, in each net")
    activation: Activation = Field("relu", description="activation of the hidden layers")


class SAC(nn.Module):
    """A stochastic policy that climbs a learned Q and is paid for its entropy."""

    cell, spaces, Config = Cell("policy/off/q"), (Box,), SACConfig
    few_guards = True
    saved = ("generator", "noise")

    def __init__(self, spec: Spec, config: SACConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator = config, generator
        self.actor = SquashedPolicy(spec, config.hidden, config.activation)
        self.critic = QEnsemble(spec, config.hidden, config.activation, size=2)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.alpha)), requires_grad=config.learn_alpha)
        self.target_entropy = -float(spec.action_sizes[0]) if config.target_entropy is None else config.target_entropy
        self.actor_optimizer = Adam(self.actor.parameters())
        self.critic_optimizer = Adam(self.critic.parameters())
        self.alpha_optimizer = Adam([self.log_alpha])
        self.noise = ActionNoise(config.noise, config.noise_std)

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

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, None]:
        action, _ = self.actor(obs).sample(self.actor.noise(len(obs), generator=self.generator))
        if progress.step < self.config.learning_starts:
            action = torch.empty_like(action).uniform_(-1, 1, generator=self.generator)
        action = (action + self.noise.sample(action, self.generator, progress.started)).clamp(-1, 1)
        return action, None

    def greedy(self, obs: Tensor) -> Tensor:
        return self.actor(obs).mode()

    def update(self, batch: Segment, progress: Progress) -> dict[str, Tensor]:
        n, size = batch.rows.reward.shape
        noise = self.actor.noise(size, generator=self.generator)
        return self.step(batch, noise, self.actor.noise(n, size, generator=self.generator))

    def step(self, batch: Segment, noise: Tensor, next_noise: Tensor) -> dict[str, Tensor]:
        """Learn from one batch; returns scalar metrics."""
        obs, rows, learning_rate = batch.obs, batch.rows, self.config.learning_rate  # (N, ...), (n, N, ...)
        action, log_prob = self.actor(obs).sample(noise)
        alpha = self.log_alpha.detach().exp()  # the one before its own update, in both losses
        if self.config.learn_alpha:
            alpha_loss = -(self.log_alpha * (log_prob.detach() + self.target_entropy)).mean()
            self.alpha_optimizer.minimize(alpha_loss, learning_rate)
        with torch.no_grad():  # y is a constant: Q(s, a) moves towards it, not Q(s', a') towards Q(s, a)
            next_action, next_log_prob = self.actor(rows.next_obs).sample(next_noise)
            discount = self.config.gamma * ~rows.terminated  # no future after a termination
            target = segment_return(  # (N,)
                reward=rows.reward - discount * alpha * next_log_prob,
                discount=discount,
                next_value=self.target_critic(rows.next_obs, next_action).amin(0),  # (n, N)
                lam=1.0 * ~rows.truncated,  # a future, but in no row: bootstrap from the true final observation
            )
        q = self.critic(obs, batch.action)  # (2, N)
        q_loss = 0.5 * (q - target).square().mean(-1).sum()
        grad_norm = self.critic_optimizer.minimize(q_loss, learning_rate)
        policy_loss = (alpha * log_prob - self.critic(obs, action).amin(0)).mean()
        self.actor_optimizer.minimize(policy_loss, learning_rate)
        polyak_(self.target_critic, self.critic, self.config.tau)
        return {
            "policy_loss": policy_loss.detach(),
            "q_loss": q_loss.detach(),
            "q": q.detach().mean(),
            "entropy": -log_prob.detach().mean(),
            "alpha": alpha,
            "grad_norm": grad_norm,
        }
