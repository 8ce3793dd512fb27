"""FVI, fitted value iteration: value-based, off-policy, V target, with a model.    Munos and Szepesvári 2008, section 3

    Q(s, a) = Σ_k p_k (r_k + γ (1 - terminated_k) V(s'_k))         what the model says that a may lead to from s
    y = max_a Q̄(s, a), Q̄ by a copy of V, refreshed every `target_every` updates         L = E[huber(y - V(s))]
    act: ε-greedy in Q, one step ahead, ε falling linearly

Only s is taken from the replay: the model supplies what follows, for every action. So it does not matter who acted.
A model that is learned is fitted to the same samples (Lutter et al. 2021 have an exact one, and continuous actions).
"""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor, nn

from zoo.buffers import ReplayBuffer
from zoo.config import Field, Widths, config, schedule
from zoo.parts.critics import polyak_
from zoo.parts.discrete import EpsilonGreedy, allow
from zoo.parts.models import Exact, Kind, candidates, lookahead, make_model
from zoo.parts.networks import Activation, V
from zoo.parts.optim import Adam, scalar
from zoo.protocol import Progress, Segment, map_fields
from zoo.spec import Outcomes, Spec
from zoo.taxonomy import Cell


@config
class FVIConfig:
    """FVI's settings."""

    capacity: int = Field(1_000_000, ge=1, description="transitions that the replay keeps")
    batch_size: int = Field(128, ge=1, description="transitions in a sample")
    learning_starts: int = Field(1000, ge=0, description="steps before the first update")
    train_every: int = Field(1, ge=1, description="steps between updates, all environments together")
    num_updates: int = Field(1, ge=1, description="updates each time")
    model: Kind = Field("learned", description="the environment's own model, or one learned from the same samples")
    model_learning_rate: float = Field(1e-3, gt=0, description="Adam's step size of a learned model")
    model_hidden: Widths = Field((128, 128), description="widths of the hidden layers of a learned model")
    model_size: int = Field(3, ge=1, le=100, description="networks in the ensemble of a learned model")
    model_draws: int = Field(0, ge=0, le=100, description="outcomes drawn from each network; 0 takes its mean")
    candidates: int = Field(11, ge=2, description="actions that are compared in each dimension of a Box")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    tau: float = Field(1.0, gt=0, le=1, description="how far the target copy moves towards V; 1 copies")
    target_every: int = Field(100, ge=1, description="updates between two moves of the target copy")
    epsilon_start: float = Field(1.0, ge=0, le=1, description="chance of a random action at the start")
    epsilon_end: float = Field(0.05, ge=0, le=1, description="the same once exploration_fraction is over")
    exploration_fraction: float = Field(0.1, gt=0, le=1, description="fraction of the run over which ε falls")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size at the start")
    learning_rate_end: float | None = Field(None, ge=0, description="step size at the end, linearly; none keeps it")
    loss: Literal["huber", "mse"] = Field("huber", description="how errors of V are penalised")
    max_grad_norm: float = Field(10.0, gt=0, description="gradients longer than this are shortened to it")
    hidden: Widths = Field((64, 64), description="widths of the hidden layers")
    activation: Activation = Field("relu", description="activation of the hidden layers")


class FVI(nn.Module):
    """Value iteration on the states of a replay, by a model of what each action leads to."""

    cell, spaces, Config = Cell("value/off/v"), (Discrete, Box), FVIConfig
    few_guards = True
    saved = ("generator", "num_updates")
    actions: Tensor  # that are compared, (A, ...)

    def __init__(self, spec: Spec, config: FVIConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator, self.num_masks = config, generator, spec.num_masks
        actions = candidates(spec, config.candidates)
        self.register_buffer("actions", torch.from_numpy(actions), persistent=False)
        self.v = V(spec, config.hidden, config.activation)
        self.target_v = copy.deepcopy(self.v).requires_grad_(False)
        self.model = make_model(spec, actions, config, generator)
        self.optimizer = Adam(self.v.parameters(), max_grad_norm=config.max_grad_norm)
        if not isinstance(self.model, Exact):
            self.model_optimizer = Adam(self.model.parameters(), max_grad_norm=config.max_grad_norm)
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
        )

    def epsilon(self, progress: Progress) -> float:
        """Return the chance of exploring."""
        fraction = min(progress.fraction / self.config.exploration_fraction, 1.0)
        return schedule(self.config.epsilon_start, self.config.epsilon_end, fraction)

    def action_values(self, obs: Tensor, outcomes: Outcomes, v: V) -> Tensor:
        """Return the values of all candidates, one step ahead of `obs`, (N, A)."""
        q = lookahead(outcomes, v(outcomes.next_obs), self.config.gamma)
        return allow(q, obs, self.num_masks) if self.num_masks else q

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, None]:
        policy = EpsilonGreedy(
            self.action_values(obs, self.model(obs), self.v), self.epsilon(progress), masked=self.num_masks > 0
        )
        return self.actions[policy.sample(policy.noise(len(obs), generator=self.generator))], None

    def greedy(self, obs: Tensor) -> Tensor:
        return self.actions[self.action_values(obs, self.model(obs), self.v).argmax(-1)]

    def update(self, batch: Segment, progress: Progress) -> dict[str, Tensor]:
        learning_rate = schedule(self.config.learning_rate, self.config.learning_rate_end, progress.fraction)
        known = self.model(batch.obs) if isinstance(self.model, Exact) else None
        metrics = self.step(batch, known, scalar(learning_rate))
        self.num_updates += 1
        if self.num_updates % self.config.target_every == 0:
            polyak_(self.target_v, self.v, self.config.tau)
        return metrics

    def step(self, batch: Segment, known: Outcomes | None, learning_rate: Tensor) -> dict[str, Tensor]:
        """Learn from one batch and from what is `known` of it, if the model is exact; returns scalar metrics."""
        metrics = {}
        if not isinstance(self.model, Exact):
            model_loss = self.model.loss(map_fields(lambda field: field[0], batch.rows))
            self.model_optimizer.minimize(model_loss, self.config.model_learning_rate)
            metrics["model_loss"] = model_loss.detach()
        with torch.no_grad():  # y is a constant: V(s) moves towards it, not V(s') towards V(s)
            outcomes = self.model(batch.obs) if known is None else known
            target = self.action_values(batch.obs, outcomes, self.target_v).amax(-1)  # (N,), of the best a
        v = self.v(batch.obs)  # (N,)
        penalty = F.smooth_l1_loss if self.config.loss == "huber" else F.mse_loss
        v_loss = penalty(v, target)
        grad_norm = self.optimizer.minimize(v_loss, learning_rate)
        return metrics | {"v_loss": v_loss.detach(), "v": v.detach().mean(), "grad_norm": grad_norm}
