"""A guarded environment says where it failed, and what it returned that is no reward or flag."""

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.random import SeedSequence
from worlds import FLOATS, FOUR, Foreign, Observing, Speechless, drive

from zoo.envs.envs import Envs, episode_seed
from zoo.envs.make import vectorize
from zoo.errors import EnvError


@pytest.mark.parametrize("when", ["made", "reset", "step"])
@pytest.mark.parametrize("vec", ["sync", "async"])
def test_an_environment_that_exits_ends_the_run_in_one_line(when: str, vec: str) -> None:
    class Exiting(Observing):
        def __init__(self) -> None:
            super().__init__(FOUR, 0, 0)
            if when == "made":
                sys.exit(7)

        def reset(self, **kwargs: Any) -> Any:
            return sys.exit(7) if when == "reset" else super().reset(**kwargs)

        def step(self, action: Any) -> Any:
            return sys.exit(7)

    def use() -> None:
        with contextlib.closing(Envs(vectorize(Exiting, 2, vec), SeedSequence(0))) as envs:
            drive(envs, 1)

    with pytest.raises(EnvError, match=r"environment \d failed .*: it called sys.exit\(7\)$"):
        use()


class Returning(Observing):
    """Returns this from its steps beside a good observation."""

    def __init__(self, reward: Any, terminated: Any, truncated: Any) -> None:
        super().__init__(FLOATS, np.zeros(2, np.float32), np.zeros(2, np.float32))
        self.parts = reward, terminated, truncated

    def step(self, action: Any) -> Any:
        return (self.then, *self.parts, {})


class Mute:
    """Has nothing to show."""

    def __repr__(self) -> str:
        raise OSError("nothing to show")


ODD_PARTS: dict[str, tuple[tuple[Any, Any, Any], str]] = {
    "a text of a reward": (("5", False, False), "its reward is '5'; expected a real number"),
    "no reward": ((None, False, False), "its reward is None; expected a real number"),
    "a list of rewards": (([1.0], False, False), r"its reward is \[1.0\]; expected a real number"),
    "a complex reward": ((1j, False, False), "its reward is 1j; expected a real number"),
    "a ragged reward": (([1, [2]], False, False), r"its reward is \[1, \[2\]\]; expected a real number"),
    "a text of a flag": ((1.0, "False", False), "its terminated is 'False'; expected True or False"),
    "NaN for a flag": ((1.0, False, np.nan), "its truncated is nan; expected True or False"),
    "a count for a flag": ((1.0, 0, False), "its terminated is 0; expected True or False"),
    "no flag": ((1.0, False, None), "its truncated is None; expected True or False"),
    "what shows nothing": (
        (1.0, Mute(), False),
        r"its terminated is \(its repr\(\) raises OSError\); expected",
    ),
}


@pytest.mark.parametrize("case", ODD_PARTS)
def test_rewards_are_numbers_and_flags_true_or_false(case: str) -> None:
    parts, message = ODD_PARTS[case]
    envs = Envs(vectorize(partial(Returning, *parts), 2), SeedSequence(3))
    envs.reset()
    seed = episode_seed(SeedSequence(3), 0)
    where = f"^environment 0 failed in step 1 of the episode with seed {seed}, given action 1: {message}"
    with pytest.raises(EnvError, match=where):
        envs.step(np.ones(2, np.int64))
    envs.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize(
    ("reward", "flag"),
    [(2, True), (2.0, np.True_), (np.float16(2), np.array(True)), (np.array(2), True), (np.int8(2), True)],
)
def test_numbers_and_flags_of_any_make_are_fine(reward: Any, flag: Any, vec: str) -> None:
    envs = Envs(vectorize(partial(Returning, reward, flag, flag), 1, vec), SeedSequence(3))
    envs.reset()
    t = envs.step(np.ones(1, np.int64)).transition
    assert (t.reward.tolist(), t.terminated.tolist(), t.truncated.tolist()) == ([2], [True], [True])
    envs.close()


class Raising(Observing):
    """Raises this when it is made, in its reset, or in its step."""

    def __init__(self, error: type[BaseException], when: str) -> None:
        super().__init__(FOUR, 0, 0)
        self.error, self.when = error, when
        if when == "made":
            raise error

    def reset(self, **kwargs: Any) -> Any:
        if self.when == "reset":
            raise self.error
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("when", ["made", "reset", "step"])
@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize("error", [GeneratorExit, Foreign])
def test_what_is_no_exception_is_a_failure_in_one_line(error: type[BaseException], when: str, vec: str) -> None:
    message = rf"environment \d failed .*(when it was made|in reset|given action \d): {error.__name__}: $"
    with pytest.raises(EnvError, match=message) as raised:
        play(partial(Raising, error, when), vec)
    assert raised.value.code == 3


def play(make: Callable[[], gym.Env[Any, Any]], vec: str) -> None:
    with contextlib.closing(Envs(vectorize(make, 2, vec), SeedSequence(0))) as envs:
        drive(envs, 1)


@pytest.mark.parametrize("when", ["reset", "step"])
@pytest.mark.parametrize("vec", ["sync", "async"])
def test_an_error_that_cannot_say_what_it_is_has_its_place(when: str, vec: str) -> None:
    where = r"environment \d failed in step \d of the episode with seed \d+, (in reset|given action \d)"
    with pytest.raises(EnvError, match=rf"{where}: Speechless: \(its str\(\) raises RuntimeError\)\n"):
        play(partial(Raising, Speechless, when), vec)


@pytest.mark.parametrize("when", ["made", "reset", "step"])
def test_an_interruption_in_an_environment_remains_one(when: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(partial(Raising, KeyboardInterrupt, when), "sync")
