"""TDV, TD(λ) control on state values: value-based, on-policy, V target, with a model.              Tesauro 1995

    y = λ-return of rewards and V(s'), along the path that was taken          L = E[huber(y - V(s))]
    Q(s, a) = Σ_k p_k (r_k + γ (1 - terminated_k) V(s'_k))         what the model says that a may lead to from s
    act: ε-greedy in Q, one step ahead, ε falling linearly

V is learned without the model, and belongs to the policy that acts, random actions included. Only acting looks ahead.
A model that is learned is fitted to the same rollouts.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor, nn

from zoo.buffers import RolloutBuffer
from zoo.config import Field, Widths, config, schedule
from zoo.parts.discrete import EpsilonGreedy, allow
from zoo.parts.models import Exact, Kind, candidates, lookahead, make_model
from zoo.parts.networks import Activation, V
from zoo.parts.optim import Adam, scalar
from zoo.parts.targets import lambda_return
from zoo.protocol import Progress, Transition, map_fields
from zoo.spec import Outcomes, Spec
from zoo.taxonomy import Cell


@config
class TDVConfig:
    """TDV's settings."""

    num_steps: int = Field(16, ge=1, description="steps per environment in a rollout, learned from at once")
    lam: float = Field(0.9, ge=0, le=1, description="λ of the returns: 0 is TD(0), 1 sums rewards to the rollout's end")
    model: Kind = Field("learned", description="the environment's own model, or one learned from the same rollouts")
    model_learning_rate: float = Field(1e-3, gt=0, description="Adam's step size of a learned model")
    model_hidden: Widths = Field((128, 128), description="widths of the hidden layers of a learned model")
    model_size: int = Field(3, ge=1, le=100, description="networks in the ensemble of a learned model")
    model_draws: int = Field(0, ge=0, le=100, description="outcomes drawn from each network; 0 takes its mean")
    candidates: int = Field(11, ge=2, description="actions that are compared in each dimension of a Box")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of the future, per step")
    epsilon_start: float = Field(1.0, ge=0, le=1, description="chance of a random action at the start")
    epsilon_end: float = Field(0.05, ge=0, le=1, description="the same once exploration_fraction is over")
    exploration_fraction: float = Field(0.1, gt=0, le=1, description="fraction of the run over which ε falls")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size at the start")
    learning_rate_end: float | None = Field(None, ge=0, description="step size at the end, linearly; none keeps it")
    loss: Literal["huber", "mse"] = Field("huber", description="how errors of V are penalised")
    max_grad_norm: float = Field(10.0, gt=0, description="gradients longer than this are shortened to it")
    hidden: Widths = Field((64, 64), description="widths of the hidden layers")
    activation: Activation = Field("relu", description="activation of the hidden layers")


class TDV(nn.Module):
    """Values of the policy that acts, learned along its path; a model turns them into actions."""

    cell, spaces, Config = Cell("value/on/v"), (Discrete, Box), TDVConfig
    few_guards = True
    actions: Tensor  # that are compared, (A, ...)

    def __init__(self, spec: Spec, config: TDVConfig, generator: Generator) -> None:
        super().__init__()
        self.config, self.generator, self.num_masks = config, generator, spec.num_masks
        actions = candidates(spec, config.candidates)
        self.register_buffer("actions", torch.from_numpy(actions), persistent=False)
        self.v = V(spec, config.hidden, config.activation)
        self.model = make_model(spec, actions, config, generator)
        self.optimizer = Adam(self.v.parameters(), max_grad_norm=config.max_grad_norm)
        if not isinstance(self.model, Exact):
            self.model_optimizer = Adam(self.model.parameters(), max_grad_norm=config.max_grad_norm)

    def make_buffer(self, spec: Spec, num_envs: int) -> RolloutBuffer:
        return RolloutBuffer(spec, num_envs, self.config.num_steps)

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

    def update(self, batch: Transition[Tensor], progress: Progress) -> dict[str, Tensor]:
        learning_rate = schedule(self.config.learning_rate, self.config.learning_rate_end, progress.fraction)
        return self.step(batch, scalar(learning_rate))

    def step(self, batch: Transition[Tensor], learning_rate: Tensor) -> dict[str, Tensor]:
        """Learn from one batch; returns scalar metrics."""
        metrics = {}
        if not isinstance(self.model, Exact):
            model_loss = self.model.loss(map_fields(lambda field: field.flatten(0, 1), batch))
            self.model_optimizer.minimize(model_loss, self.config.model_learning_rate)
            metrics["model_loss"] = model_loss.detach()
        with torch.no_grad():  # y is a constant: V(s) moves towards it, not V(s') towards V(s)
            target = lambda_return(  # (T, B)
                reward=batch.reward,
                discount=self.config.gamma * ~batch.terminated,  # no future after a termination
                next_value=self.v(batch.next_obs),
                lam=self.config.lam * ~batch.truncated,  # a future, but in no row: bootstrap from the true successor
            )
        v = self.v(batch.obs)  # (T, B)
        penalty = F.smooth_l1_loss if self.config.loss == "huber" else F.mse_loss
        v_loss = penalty(v, target)
        grad_norm = self.optimizer.minimize(v_loss, learning_rate)
        return metrics | {"v_loss": v_loss.detach(), "v": v.detach().mean(), "grad_norm": grad_norm}
