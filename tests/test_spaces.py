"""Observations are refused where a cast would change them, or their space does not hold them."""

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence
from worlds import DOUBLES, FLOATS, FOUR, FROM_TWO, GOOD, IMAGE, INTS, NO, YES, Images, Observing, image

from zoo.envs.envs import Envs, episode_seed
from zoo.envs.make import vectorize
from zoo.envs.normalize import ObsNormalizer
from zoo.errors import EnvError

REFUSED: dict[str, tuple[spaces.Space[Any], Any, str]] = {
    "an image of large integers": (IMAGE, np.full((4, 4, 1), 300), "holds 300, which does not fit uint8"),
    "an image of negative integers": (IMAGE, np.full((4, 4, 1), -1), "holds -1, which does not fit uint8"),
    "an image of floats": (IMAGE, np.full((4, 4, 1), 0.5), "is of float64; its space is of uint8"),
    "floats for integers": (INTS, np.array([1.0, 2.5]), "is of float64; its space is of int64"),
    "texts": (FLOATS, np.array(["a", "b"]), "is of <U1; its space is of float32"),
    "complex numbers": (FLOATS, np.array([1j, 1]), "is of complex128; its space is of float32"),
    "nothing": (FLOATS, [None, None], "is of object; its space is of float32"),
    "a ragged list": (FLOATS, [[1.0], [1.0, 2.0]], "is no array of one shape"),
    "a float beyond float32": (FLOATS, np.array([0, 1e300]), r"holds 1e\+300, which does not fit float32"),
    "a double beyond float32": (DOUBLES, np.array([0, -1e300]), r"holds -1e\+300, which does not fit float32"),
    "NaN": (FLOATS, np.array([np.nan, 0], np.float32), r"NaN or infinite as float32: \[nan  0.\]"),
    "a count beyond its number": (FOUR, 4, r"outside of Discrete\(4\): 4"),
    "a negative count": (FOUR, -1, r"outside of Discrete\(4\): -1"),
    "a count before its start": (FROM_TWO, np.int64(1), r"outside of Discrete\(4, start=2\): 1"),
    "a fraction of a count": (FOUR, 1.5, "is of float64; its space is of int64"),
    "a count without end": (FOUR, 2**70, "is of object; its space is of int64"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("vec", ["sync", "async"])
@pytest.mark.parametrize("when", ["reset", "step"])
@pytest.mark.parametrize("case", REFUSED)
def test_an_observation_that_its_space_does_not_hold_is_refused(case: str, when: str, vec: str) -> None:
    space, wrong, message = REFUSED[case]
    good = np.full(space.shape or (), 2, space.dtype)
    make = partial(Observing, space, wrong if when == "reset" else good, wrong)
    normalizer = ObsNormalizer(space) if space in (FLOATS, DOUBLES) else None
    envs = Envs(vectorize(make, 2, vec), SeedSequence(3), obs_normalizer=normalizer)
    if when == "step":
        envs.reset()
    statistics = None if normalizer is None else normalizer.mean.clone()
    with pytest.raises(EnvError, match=message) as raised:
        envs.reset() if when == "reset" else envs.step(np.zeros(2, np.int64))
    found = re.match(r"environment (\d),? .*step (\d) of the episode with seed (\d+)[,:]", str(raised.value))
    assert found is not None
    index, step, seed = map(int, found.groups())  # of two that fail in processes of their own, either is heard first
    assert (step, seed) == (int(when == "step"), episode_seed(SeedSequence(3), index))
    assert normalizer is None or torch.equal(normalizer.mean, statistics)
    envs.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("space", "given", "expected"),
    [
        (FLOATS, np.array([1.5, 1e-300]), [1.5, 0.0]),
        (FLOATS, [1, 2], [1.0, 2.0]),
        (DOUBLES, np.array([1, 2], np.float16), [1.0, 2.0]),
        (INTS, np.array([1, 9], np.int8), [1, 9]),
        (FOUR, 3, 3),
        (FOUR, np.uint8(3), 3),
        (FOUR, True, 1),
        (FROM_TWO, 5, 3),
        (IMAGE, np.full((4, 4, 1), 255), [[[255]] * 4] * 4),
    ],
)
@pytest.mark.parametrize("vec", ["sync", "async"])
def test_a_cast_that_keeps_the_values_is_fine(space: spaces.Space[Any], given: Any, expected: Any, vec: str) -> None:
    envs = Envs(vectorize(partial(Observing, space, given, given), 1, vec), SeedSequence(0))
    assert envs.reset()[0].tolist() == expected
    t = envs.step(np.zeros(1, np.int64)).transition
    assert t.next_obs[0].tolist() == expected
    assert t.next_obs.dtype == envs.spec.obs_dtype
    envs.close()


WHERE = r"environment 1, step 1 of .* seed \d+\)?, given action 1: the observation"
UNFIT: dict[str, tuple[Any, str]] = {
    "floats": (image(300.7, np.float64), r"observation is of float64; its space is of uint8$"),
    "whole floats": (image(7, np.float32), r"observation is of float32; its space is of uint8$"),
    "large integers": (image(300, np.int64), rf"{WHERE} holds 300, which does not fit uint8$"),
    "negative integers": (image(-1, np.int32), rf"{WHERE} holds -1, which does not fit uint8$"),
    "another shape": (GOOD[:, :3], r"observations have shape \(2, 3, 4, 1\); expected \(2, 4, 4, 1\)$"),
}


def images_of(mode: AutoresetMode, first: Any, obs: Any, ended: Any = NO, final: Any = None) -> Envs:
    return Envs(Images(mode, IMAGE, first, (obs, np.zeros(2), ended, NO), final), SeedSequence(3))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("case", UNFIT)
def test_an_image_that_a_cast_would_change_is_refused_of_any_vector_environment(case: str, mode: AutoresetMode) -> None:
    wrong, message = UNFIT[case]
    with pytest.raises(EnvError, match=message.replace("step 1", "step 0").replace(", given action 1", "")) as raised:
        images_of(mode, wrong, GOOD).reset()
    assert raised.value.code == 3
    envs = images_of(mode, GOOD, wrong)
    envs.reset()
    with pytest.raises(EnvError, match=message):
        envs.step(np.ones(2, np.int64))


@pytest.mark.parametrize("case", ["floats", "large integers", "negative integers"])
def test_so_is_a_final_image(case: str) -> None:
    wrong, message = UNFIT[case]
    envs = images_of(AutoresetMode.SAME_STEP, GOOD, GOOD, YES, [None, wrong[1]])
    envs.reset()
    with pytest.raises(EnvError, match=message):
        envs.step(np.ones(2, np.int64))


def test_an_image_of_larger_integers_that_fit_is_taken() -> None:
    envs = images_of(AutoresetMode.SAME_STEP, GOOD, image(255, np.int64), YES, [None, image(200, np.int32)[1]])
    envs.reset()
    t = envs.step(np.ones(2, np.int64)).transition
    assert t.next_obs.dtype == envs.obs.dtype == np.uint8
    assert t.next_obs[1].max() == 200
    assert envs.obs[1].max() == 255
