"""Vector environments of other makers: what they return is checked, and what they raise is told."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.random import SeedSequence
from probes import ScriptedEnv, scripted_action
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
        (1.0, NO, NO, r"rewards have shape \(\); expected \(2,\)"),
        (np.zeros((2, 1)), NO, NO, r"rewards have shape \(2, 1\); expected \(2,\)"),
        (np.zeros(2), False, NO, r"terminated have shape \(\); expected \(2,\)"),
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


class Reusing(SyncVectorEnv):
    """It writes all that it returns into the same memory, in any mode, unless it is to `copy`."""

    def __init__(self, mode: AutoresetMode, *, copy: bool) -> None:
        super().__init__([partial(ScriptedEnv, i) for i in range(2)], copy=copy, autoreset_mode=mode)

    def step(self, actions: Any) -> Any:
        obs, *parts, infos = super().step(actions)
        if not self.copy:
            parts = [self._rewards, self._terminations, self._truncations]
        return (obs, *parts, infos)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_memory_that_a_vector_environment_reuses_is_copied(mode: AutoresetMode) -> None:
    steps: list[list[Any]] = []
    for copy in (True, False):
        envs = Envs(Reusing(mode, copy=copy), SeedSequence(3))
        envs.reset()
        taken = [envs.step(scripted_action(envs.obs)).transition for _ in range(30)]
        steps.append([field for transition in taken for field in transition])
    for expected, found in zip(*steps, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_reset_within_a_step_needs_the_final_observation() -> None:
    done = np.array([True, False])
    envs = Envs(Images(AutoresetMode.SAME_STEP, IMAGE, GOOD, (GOOD, np.zeros(2), done, NO)), SeedSequence(3))
    envs.reset()
    with pytest.raises(EnvError, match="in the step that ends an episode, without final_obs"):
        envs.step(np.ones(2, np.int64))
