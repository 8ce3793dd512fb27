"""Exploration noise for deterministic policies."""

from typing import Literal

import torch
from torch import Generator, Tensor

from zoo.spec import Array

NoiseKind = Literal["none", "gaussian", "ou"]


class ActionNoise:
    """No noise, Gaussian noise, or an Ornstein-Uhlenbeck process with θ = 0.15 and dt = 0.01.

    The process is that of Lillicrap et al. 2016, section 7: x ← x - θ x dt + σ √dt N(0, 1), one for each environment,
    which starts from 0 at the start of each episode (Algorithm 1).
    """

    saved = ("state",)
    state: Tensor | None

    def __init__(self, kind: NoiseKind, std: float) -> None:
        self.kind, self.std = kind, std
        self.state = None

    def check_state(self) -> bool:
        """Whether a restored state makes sense."""
        return self.state is None or (self.state.is_floating_point() and bool(self.state.isfinite().all()))

    def sample(self, like: Tensor, generator: Generator, started: Array | None) -> Tensor:
        """Return noise of the shape of `like`, (B, A); `started`, (B,), says where an episode begins, none: nowhere."""
        if self.kind == "none":
            return torch.zeros_like(like)
        noise = torch.empty_like(like).normal_(generator=generator) * self.std
        if self.kind == "gaussian":
            return noise
        if self.state is None or self.state.shape != like.shape:
            self.state = torch.zeros_like(like)
        if started is not None:
            self.state = self.state.masked_fill(torch.as_tensor(started, device=like.device)[:, None], 0)
        self.state = self.state * (1 - 0.15 * 0.01) + 0.1 * noise
        return self.state
