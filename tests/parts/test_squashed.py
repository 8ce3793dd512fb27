"""Squashed policies need bounds; they are in the tests of every network in test_critics."""

import pytest
import torch
from gymnasium import spaces

from zoo.errors import UserError
from zoo.parts.squashed import check_bounds
from zoo.spec import Spec

OBS = spaces.Box(-1, 1, (3,))


BOX = Spec(OBS, spaces.Box(-1, 1, (2,)), scale_actions=True)


def test_squashed_actions_need_bounds() -> None:
    check_bounds(BOX)
    for spec in (Spec(OBS, spaces.Box(-torch.inf, torch.inf, (2,))), Spec(OBS, BOX.action_space, scale_actions=False)):
        with pytest.raises(UserError, match="squashed actions need finite bounds and scale_actions"):
            check_bounds(spec)
