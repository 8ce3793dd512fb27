"""Acting in this process, and what all actors share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.envs.envs import Envs
from zoo.envs.replay import replay
from zoo.machine import device_of
from zoo.protocol import NONE, Algorithm, Progress, Step


class Inline:
    """Acting in this process; with `copy`, by a copy of the learner that is refreshed every `lag` updates."""

    saved = ("copy", "envs", "updates")

    def __init__(self, algo: Algorithm, envs: Envs, *, copy: Algorithm | None = None, lag: int = 0) -> None:
        self.algo, self.envs, self.copy, self.lag = algo, envs, copy, lag
        self.actor, self.num_envs = copy or algo, envs.num_envs
        self.updates = 0
        self.device = device_of(algo)
        self.broken = NONE
        if copy is not None:
            load_weights(copy, weights_of(algo))
        envs.reset()

    def step(self, progress: Progress, on_wait: Callable[[], None] = lambda: None) -> Step:
        step = act_and_step(self.actor, self.envs, progress, self.device)
        if len(self.broken):
            step, self.broken = step._replace(broken=self.broken), NONE
        return step

    def learned(self) -> None:
        self.updates += 1
        if self.copy is not None and self.updates % self.lag == 0:
            load_weights(self.copy, weights_of(self.algo))

    def resume(self) -> list[str]:
        self.broken = replay(self.envs)
        if not len(self.broken):
            return []
        columns = ", ".join(map(str, self.broken))
        return [f"episodes in environment {columns} start anew: replaying their actions led elsewhere"]

    def metrics(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self.envs.close()


def act_and_step(actor: Algorithm, envs: Envs, progress: Progress, device: torch.device) -> Step:
    """Choose an action for every environment and take it."""
    progress = Progress(progress.step, progress.total, envs.lengths == 0)
    with torch.inference_mode():
        action, log_prob = actor.act(torch.from_numpy(envs.obs).to(device), progress)
    return envs.step(action.cpu().numpy(), None if log_prob is None else log_prob.cpu().numpy())


def acting_parameters(algo: Any) -> list[Tensor]:
    """The parameters that acting can depend on: all that are trained."""
    return [p for p in algo.parameters() if p.requires_grad]


def weights_of(algo: Any) -> Tensor:
    """The trained parameters as one vector on the CPU."""
    return nn.utils.parameters_to_vector(acting_parameters(algo)).detach().cpu()


def load_weights(algo: Any, weights: Tensor) -> None:
    """Set the trained parameters from one vector."""
    with torch.no_grad():
        parameters = acting_parameters(algo)
        pieces = weights.to(device_of(algo)).split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))
