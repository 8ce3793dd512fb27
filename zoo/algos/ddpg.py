"""DDPG: policy-based, off-policy, Q target.                                    Lillicrap et al. 2016, Algorithm 1

y = r + γ (1 - terminated) Q̄(s', μ̄(s'))             L_Q = E[(y - Q(s, a))²]
L_μ = -E[Q(s, μ(s))]                                 act: μ(s) + noise;  Q̄, μ̄: moving averages of Q, μ
"""

import copy

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box
from torch import Generator, Tensor, nn

from zoo.buffers import ReplayBuffer
from zoo.config import Field, Widths, config
from zoo.parts.critics import ActionQ, polyak_
from zoo.parts.networks import Activation
from zoo.parts.noise import ActionNoise, NoiseKind
from zoo.parts.optim import Adam
from zoo.parts.squashed import Deterministic
from zoo.parts.targets import segment_return
from zoo.protocol import Progress, Segment
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class DDPGConfig:
    """DDPG's settings; the defaults are Stable-Baselines3's, with Gaussian noise where it has none."""

    capacity: int = Field(1_000_000, ge=1, description="transitions that the replay keeps")
    batch_size: int = Field(256, ge=1, description="transitions in a sample")
    learning_starts: int = Field(100, ge=0, description="steps of uniformly random actions before the first update")
    train_every: int = Field(1, ge=1, description="steps between updates, all environments together")
    num_updates: int = Field(1, ge=1, description="updates each time")
    n_step: int = Field(1, ge=1, description="rewards summed before the bootstrap (Sutton and Barto 2018, 7.1)")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    tau: float = Field(0.005, gt=0, le=1, description="how far the target copies move in each update")
    noise: NoiseKind = Field("gaussian", description="exploration noise: none, gaussian, or ou (Ornstein-Uhlenbeck)")
    noise_std: float = Field(0.1, ge=0, description="its standard deviation, in units of half the action range")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size, actor and critic alike")
    hidden: Widths = Field((400, 300), description="widths of the hidden layers, in each net")
    activation: Activation = Field("relu", description="activation of the hidden layers")


class DDPG(nn.Module):
    """A deterministic policy that climbs a learned Q."""

    cell, spaces, Config = Cell("policy/off/q"), (Box,), DDPGConfig
    few_guards = True
    saved = ("generator", "noise")

    def __init__(self, spec: Spec, config: DDPGConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator = config, generator
        self.actor = Deterministic(spec, config.hidden, config.activation)
        self.critic = ActionQ(spec, config.hidden, config.activation)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = Adam(self.actor.parameters())
        self.critic_optimizer = Adam(self.critic.parameters())
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
        action: Tensor = self.actor(obs)
        if progress.step < self.config.learning_starts:
            action = torch.empty_like(action).uniform_(-1, 1, generator=self.generator)
        else:
            action = (action + self.noise.sample(action, self.generator, progress.started)).clamp(-1, 1)
        return action, None

    def greedy(self, obs: Tensor) -> Tensor:
        return self.actor(obs)

    def update(self, batch: Segment, progress: Progress) -> dict[str, Tensor]:
        return self.step(batch)

    def step(self, batch: Segment) -> dict[str, Tensor]:
        """Learn from one batch; returns scalar metrics."""
        rows = batch.rows  # (n, N, ...)
        with torch.no_grad():  # y is a constant: Q(s, a) moves towards it, not Q(s', a') towards Q(s, a)
            next_q = self.target_critic(rows.next_obs, self.target_actor(rows.next_obs))  # (n, N)
            target = segment_return(  # (N,)
                reward=rows.reward,
                discount=self.config.gamma * ~rows.terminated,  # no future after a termination
                next_value=next_q,
                lam=1.0 * ~rows.truncated,  # a future, but in no row: bootstrap from the true final observation
            )
        obs = batch.obs
        q = self.critic(obs, batch.action)  # (N,)
        q_loss = F.mse_loss(q, target)
        grad_norm = self.critic_optimizer.minimize(q_loss, self.config.learning_rate)
        policy_loss = -self.critic(obs, self.actor(obs)).mean()  # descent on minus Q climbs it, through the action
        self.actor_optimizer.minimize(policy_loss, self.config.learning_rate)
        polyak_(self.target_critic, self.critic, self.config.tau)
        polyak_(self.target_actor, self.actor, self.config.tau)
        return {
            "policy_loss": policy_loss.detach(),
            "q_loss": q_loss.detach(),
            "q": q.detach().mean(),
            "grad_norm": grad_norm,
        }
