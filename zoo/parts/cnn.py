"""Convolutions for images, and orthogonal weights."""

import math
from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """`layer` with orthogonal weights of this gain and no bias.                    Saxe et al. 2014, section 3"""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0])


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
