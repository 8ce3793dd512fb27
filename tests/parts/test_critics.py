"""Critics of given actions and squashed policies are torch's own kind of module."""

from typing import Any

import pytest
import torch
from gymnasium import spaces
from modules import assert_changes_count, assert_every_hook_fires, each_change, each_way
from torch import nn

from zoo.parts.critics import ActionQ, QEnsemble
from zoo.parts.squashed import Deterministic, SquashedPolicy
from zoo.spec import Spec

OBS = spaces.Box(-1, 1, (3,))


BOX = Spec(OBS, spaces.Box(-1, 1, (2,)), scale_actions=True)


CHOICE = Spec(OBS, spaces.Discrete(3))


MULTI = Spec(OBS, spaces.MultiDiscrete([2, 3]))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def networks() -> dict[str, tuple[nn.Module, Any]]:
    """Each network, and how to make a tensor of its observations."""
    obs, action, noise = torch.randn(5, 3), torch.rand(5, 2), torch.randn(5, 2)
    one, two = torch.ones(5, dtype=torch.long), torch.ones(5, 2, dtype=torch.long)
    return {
        "QEnsemble": (QEnsemble(BOX, (8, 8), "relu", size=2), lambda net: net(obs, action)),
        "QEnsemble of choices": (
            QEnsemble(MULTI, (8,), "relu", size=2),
            lambda net: net(obs, two),
        ),
        "ActionQ": (ActionQ(BOX, (8, 8), "relu"), lambda net: net(obs, action)),
        "ActionQ of choices": (ActionQ(CHOICE, (8, 8), "tanh"), lambda net: net(obs, one)),
        "Deterministic": (Deterministic(BOX, (8,), "relu"), lambda net: net(obs)),
        "SquashedPolicy": (SquashedPolicy(BOX, (8,), "relu"), lambda net: net(obs).sample(noise)[1]),
    }


each_network = pytest.mark.parametrize("name", networks())


@each_way
@each_change
@each_network
def test_hooks_parametrisations_and_masks_count(name: str, change: str, way: str) -> None:
    net, number = networks()[name]
    assert_changes_count(net, change, way, number)


@each_network
def test_every_hook_fires(name: str) -> None:
    assert_every_hook_fires(*networks()[name])


def test_the_first_critics_of_an_ensemble_are_masked_alike() -> None:
    net = QEnsemble(BOX, (8, 8), "relu", size=3)
    obs, action = torch.randn(5, 3), torch.rand(5, 2)
    assert_changes_count(net, "pruning mask", "uncompiled", lambda net: net(obs, action, 2))
