"""Convolutions for images."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from zoo.parts.networks import Encoder
from zoo.spec import Spec


@pytest.mark.parametrize(("size", "layers"), [(10, 1), (84, 3)])
def test_convolutions_are_orthogonal_with_gain_root_two(size: int, layers: int) -> None:
    image = spaces.Box(0, 255, (size, size, 4), np.uint8)
    convolutions = [m for m in Encoder(Spec(image, spaces.Discrete(3))).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == layers
    for layer in convolutions:
        weight = layer.weight.detach().flatten(1)  # W Wᵀ = gain² I, or Wᵀ W where W is taller than wide
        weight = weight.T if weight.shape[0] > weight.shape[1] else weight
        torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(len(weight)), rtol=1e-5, atol=2e-5)
        assert layer.bias is not None
        assert not layer.bias.any()
