"""Vector environments of other makers: what they return is checked, and what they raise is told."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence
from worlds import GOOD, IMAGE, NO, Foreign, Images, Speechless, drive

from zoo.envs.envs import Envs
from zoo.errors import EnvError


@pytest.mark.parametrize(
    ("reward", "terminated", "truncated", "message"),
    [
        (["5", "5"], NO, NO, "rewards are of <U1; expected numbers"),
        (np.zeros(2), np.array(["False", "False"]), NO, "terminated are of <U5; expected True or False"),
        (np.zeros(2), NO, np.array([np.nan, 0]), "truncated are of float64; expected True or False"),
        (np.zeros(2), NO, np.zeros(2, np.int64), "truncated are of int64; expected True or False"),
    ],
)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_parts_of_a_step_that_are_of_another_kind_are_refused(
    mode: AutoresetMode, reward: Any, terminated: Any, truncated: Any, message: str
) -> None:
    envs = Envs(Images(mode, IMAGE, GOOD, (GOOD, reward, terminated, truncated)), SeedSequence(3))
    envs.reset()
    with pytest.raises(EnvError, match=message):
        envs.step(np.ones(2, np.int64))


@pytest.mark.parametrize("error", [Foreign, Speechless])
@pytest.mark.parametrize("when", ["reset", "step"])
def test_a_vector_environment_may_raise_anything(error: type[BaseException], when: str) -> None:
    class Failing(Images):
        def reset(self, **kwargs: Any) -> Any:
            if when == "reset":
                raise error
            return super().reset(**kwargs)

        def step(self, actions: Any) -> Any:
            raise error

    envs = Envs(Failing(AutoresetMode.DISABLED, IMAGE, GOOD, ()), SeedSequence(3))
    with pytest.raises(EnvError, match=f"the environments failed in {when}: {error.__name__}"):
        drive(envs, 1)
