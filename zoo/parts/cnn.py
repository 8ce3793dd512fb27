"""Convolutions for images, and orthogonal weights."""

import math
from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from zoo.spaces import Stacked
from zoo.spec import Spec

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """`layer` with orthogonal weights of this gain and no bias.                    Saxe et al. 2014, section 3"""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Channels(nn.Module):
    """Images as convolutions take them: float channels, (N, C, H, W), bytes as fractions of 255.

    The shorter of the first and the last dimension is that of channels. Frames that are stacked are channels, too: each
    of its own, or so many for each of a frame's own channels.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        shape = spec.obs_shape
        self.are_stacked = len(shape) == 4
        are_first = isinstance(spec.observation_space, Stacked) and not self.are_stacked
        self.are_last = not are_first and shape[-1] <= shape[-3]
        self.are_bytes = spec.obs_dtype == np.uint8
        channels, *size = (shape[-1], *shape[-3:-1]) if self.are_last else shape[-3:]
        self.shape = (channels * shape[0] if self.are_stacked else channels, *size)  # (C, H, W)

    def forward(self, obs: Tensor) -> Tensor:
        image = obs.reshape(-1, *obs.shape[-3:]).float()
        if self.are_bytes:
            image = image / 255
        if self.are_last:
            image = image.permute(0, 3, 1, 2)
        return image.reshape(-1, *self.shape) if self.are_stacked else image


def cnn(channels: int, height: int, width: int) -> nn.Sequential:
    """Convolutions that suit the size of an image, (N, C, H, W) to (N, F)."""
    return _nature_cnn(channels) if min(height, width) >= 36 else _small_cnn(channels)


def _nature_cnn(channels: int) -> nn.Sequential:
    """Mnih et al. 2015, Methods, model architecture."""
    gain = math.sqrt(2)
    return nn.Sequential(
        orthogonal(nn.Conv2d(channels, 32, 8, stride=4), gain),
        nn.ReLU(),
        orthogonal(nn.Conv2d(32, 64, 4, stride=2), gain),
        nn.ReLU(),
        orthogonal(nn.Conv2d(64, 64, 3, stride=1), gain),
        nn.ReLU(),
        nn.Flatten(),
    )


def _small_cnn(channels: int) -> nn.Sequential:
    """For images too small for the Nature network: MinAtar's single layer.     Young and Tian 2019, section 4"""
    return nn.Sequential(orthogonal(nn.Conv2d(channels, 16, 3, padding=1), math.sqrt(2)), nn.ReLU(), nn.Flatten())
