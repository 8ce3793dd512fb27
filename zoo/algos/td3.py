"""TD3: policy-based, off-policy, Q target.                                        Fujimoto et al. 2018, Algorithm 1

a' = clip(μ̄(s') + clip(noise, ±c), ±1)               y = r + γ (1 - terminated) min_i Q̄_i(s', a')
L_Q = Σ_i E[(y - Q_i(s, a))²]                        L_μ = -E[Q_1(s, μ(s))], every `policy_delay` updates
"""

import copy

import torch
from gymnasium.spaces import Box
from torch import Generator, Tensor, nn

from zoo.buffers import ReplayBuffer
from zoo.config import Field, Widths, config
from zoo.parts.critics import QEnsemble, polyak_
from zoo.parts.networks import Activation
from zoo.parts.noise import ActionNoise, NoiseKind
from zoo.parts.optim import Adam
from zoo.parts.squashed import Deterministic
from zoo.parts.targets import segment_return
from zoo.protocol import Progress, Segment
from zoo.spec import Spec
from zoo.taxonomy import Cell


@config
class TD3Config:
    """TD3's settings; the defaults are Stable-Baselines3's, with Gaussian noise where it has none."""

    capacity: int = Field(1_000_000, ge=1, description="transitions that the replay keeps")
    batch_size: int = Field(256, ge=1, description="transitions in a sample")
    learning_starts: int = Field(100, ge=0, description="steps of uniformly random actions before the first update")
    train_every: int = Field(1, ge=1, description="steps between updates, all environments together")
    num_updates: int = Field(1, ge=1, description="updates each time")
    n_step: int = Field(1, ge=1, description="rewards summed before the bootstrap (Sutton and Barto 2018, 7.1)")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    tau: float = Field(0.005, gt=0, le=1, description="how far the target copies move each time")
    policy_delay: int = Field(2, ge=1, description="updates of the critics for each of the actor and the target copies")
    target_noise: float = Field(0.2, ge=0, description="standard deviation of the noise on target actions")
    target_noise_clip: float = Field(0.5, ge=0, description="where that noise is clipped")
    noise: NoiseKind = Field("gaussian", description="exploration noise: none, gaussian, or ou (Ornstein-Uhlenbeck)")
    noise_std: float = Field(0.1, ge=0, description="its standard deviation, in units of half the action range")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size, actor and critics alike")
    hidden: Widths = Field((400, 300), description="widths of the hidden layers, in each net")
    activation: Activation = Field("relu", description="activation of the hidden layers")


class TD3(nn.Module):
    """DDPG with twin critics, delayed policy updates and smoothed target actions."""

    cell, spaces, Config = Cell("policy/off/q"), (Box,), TD3Config
    few_guards = True
    saved = ("generator", "noise", "num_updates")

    def __init__(self, spec: Spec, config: TD3Config, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator = config, generator
        self.actor = Deterministic(spec, config.hidden, config.activation)
        self.critic = QEnsemble(spec, config.hidden, config.activation, size=2)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = Adam(self.actor.parameters())
        self.critic_optimizer = Adam(self.critic.parameters())
        self.noise = ActionNoise(config.noise, config.noise_std)
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
        self.num_updates += 1
        noise = torch.empty_like(batch.rows.action).normal_(generator=self.generator)
        return self.step(batch, noise, self.num_updates % self.config.policy_delay == 0)

    def step(self, batch: Segment, noise: Tensor, with_policy: bool) -> dict[str, Tensor]:
        """Learn from one batch; returns scalar metrics."""
        rows = batch.rows  # (n, N, ...)
        with torch.no_grad():  # y is a constant: Q(s, a) moves towards it, not Q(s', a') towards Q(s, a)
            clip = self.config.target_noise_clip
            smoothing = (self.config.target_noise * noise).clamp(-clip, clip)
            next_action = (self.target_actor(rows.next_obs) + smoothing).clamp(-1, 1)
            target = segment_return(  # (N,)
                reward=rows.reward,
                discount=self.config.gamma * ~rows.terminated,  # no future after a termination
                next_value=self.target_critic(rows.next_obs, next_action).amin(0),
                lam=1.0 * ~rows.truncated,  # a future, but in no row: bootstrap from the true final observation
            )
        obs = batch.obs
        q = self.critic(obs, batch.action)  # (2, N)
        q_loss = (q - target).square().mean(-1).sum()
        grad_norm = self.critic_optimizer.minimize(q_loss, self.config.learning_rate)
        metrics = {"q_loss": q_loss.detach(), "q": q.detach().mean(), "grad_norm": grad_norm}
        if with_policy:
            policy_loss = -self.critic(obs, self.actor(obs), 1).mean()  # descent on minus Q climbs it, through a
            self.actor_optimizer.minimize(policy_loss, self.config.learning_rate)
            polyak_(self.target_critic, self.critic, self.config.tau)
            polyak_(self.target_actor, self.actor, self.config.tau)
            metrics["policy_loss"] = policy_loss.detach()
        return metrics
