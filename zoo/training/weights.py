"""The weights that acting can depend on, as one vector: what actors are sent."""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.machine import device_of


def acting_parameters(algo: Any) -> list[Tensor]:
    """Return the parameters that acting can depend on: all that are trained."""
    return [p for p in algo.parameters() if p.requires_grad]


def weights_of(algo: Any) -> Tensor:
    """Return the trained parameters as one vector on the CPU."""
    return nn.utils.parameters_to_vector(acting_parameters(algo)).detach().cpu()


def load_weights(algo: Any, weights: Tensor) -> None:
    """Set the trained parameters from one vector."""
    with torch.no_grad():
        parameters = acting_parameters(algo)
        pieces = weights.to(device_of(algo)).split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))
