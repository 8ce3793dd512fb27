"""What `predict` is given is cast only where that keeps its values; anything else is refused in words."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence

from zoo import registry
from zoo.errors import UserError
from zoo.spec import Spec
from zoo.storage.agent import Agent

OBSERVATIONS: dict[str, Any] = {
    "box": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "doubles": spaces.Box(-1, 1, (3,), np.float64),
    "image": spaces.Box(0, 255, (9, 9, 2), np.uint8),
    "discrete": spaces.Discrete(5, start=-2),
}
IMAGE = np.arange(162).reshape(9, 9, 2)


def make(space: str) -> Agent:
    spec = Spec(OBSERVATIONS[space], spaces.Discrete(3))
    config = registry.load_class("ppo").Config(hidden=(4,))
    return Agent("ppo", registry.make("ppo", spec, config, SeedSequence(0)), spec)


def choice(agent: Agent, obs: Any) -> Any:
    """What the network answers, whatever `predict` does before it."""
    with torch.no_grad():
        return agent.algo.greedy(torch.from_numpy(obs)).numpy().tolist()


KEPT: dict[str, tuple[str, Any, Any]] = {
    "float32": ("box", np.ones(3, np.float32), np.ones((1, 3), np.float32)),
    "float64": ("box", np.array([1.0, 2.0, 3.0]), np.array([[1, 2, 3]], np.float32)),
    "a list": ("box", [1, 2.5, True], np.array([[1, 2.5, 1]], np.float32)),
    "a batch of lists": ("box", [[1, 2, 3], [4, 5, 6]], np.array([[1, 2, 3], [4, 5, 6]], np.float32)),
    "a tensor": ("box", torch.arange(3), np.array([[0, 1, 2]], np.float32)),
    "float16": ("box", np.ones(3, np.float16), np.ones((1, 3), np.float32)),
    "precision that a network has not": ("doubles", np.array([0.1, 0.2, 0.3]), np.array([[0.1, 0.2, 0.3]], np.float32)),
    "an image": ("image", IMAGE.astype(np.uint8), IMAGE[None].astype(np.uint8)),
    "an image of int64": ("image", IMAGE, IMAGE[None].astype(np.uint8)),
    "an image of lists": ("image", IMAGE.tolist(), IMAGE[None].astype(np.uint8)),
    "a number": ("discrete", -2, np.array([0])),
    "numbers of int8": ("discrete", np.array([2, 0], np.int8), np.array([4, 2])),
    "none": ("box", np.zeros((0, 3)), np.zeros((0, 3), np.float32)),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_cast_that_keeps_values_is_made(case: str) -> None:
    space, obs, encoded = KEPT[case]
    agent = make(space)
    action, _ = agent.predict(obs)
    assert np.atleast_1d(action).tolist() == choice(agent, encoded)
    assert np.ndim(action) == (np.ndim(obs) if isinstance(obs, int) else np.ndim(np.asarray(obs))) - len(
        agent.spec.obs_shape
    )


REFUSED: dict[str, tuple[str, Any, str]] = {
    "an image of 300": ("image", np.full((9, 9, 2), 300), "observation holds 300, which does not fit uint8"),
    "a negative image": ("image", np.full((9, 9, 2), -1), "observation holds -1, which does not fit uint8"),
    "an image of floats": ("image", np.full((9, 9, 2), 0.5), "observation is of float64; its space is of uint8"),
    "an image of float32": (
        "image",
        np.ones((9, 9, 2), np.float32),
        "observation is of float32; its space is of uint8",
    ),
    "NaN": ("box", [0, np.nan, 0], "observation is NaN or infinite as float32: nan"),
    "NaN of float32": ("box", np.full((2, 3), np.nan, np.float32), "NaN or infinite as float32: nan"),
    "infinity": ("box", np.array([0, 0, -np.inf], np.float32), "NaN or infinite as float32: -inf"),
    "beyond float32": ("box", [0, 0, 1e300], r"observation holds 1e\+300, which does not fit float32"),
    "text": ("box", ["1", "2", "3"], "observation is of <U1; its space is of float32"),
    "a text": ("discrete", "1", "observation is of <U1; its space is of int64"),
    "None": ("box", None, r"observation is of object|of shape \(\)"),
    "complex": ("box", np.zeros(3, np.complex64), "observation is of complex64; its space is of float32"),
    "ragged": ("box", [[1, 2, 3], [1, 2]], "observation is no array of one shape"),
    "a tensor with a gradient": ("box", torch.ones(3, requires_grad=True), "observation is no array"),
    "another shape": ("box", np.zeros(4, np.float32), r"observation of shape \(4,\); expected \(3,\) or a batch"),
    "a number for a vector": ("box", 1.0, r"observation of shape \(\); expected \(3,\) or a batch"),
    "too many axes": ("box", np.zeros((2, 2, 3)), r"observation of shape \(2, 2, 3\); expected \(3,\) or a batch"),
    "channels first": ("image", np.zeros((2, 9, 9), np.uint8), r"shape \(2, 9, 9\); expected \(9, 9, 2\) or"),
    "a vector for a number": ("discrete", np.zeros((2, 2), np.int64), r"observation of shape \(2, 2\); expected \(\)"),
    "a choice too large": ("discrete", 3, r"observation is outside of Discrete\(5, start=-2\): 3"),
    "a choice too small": ("discrete", np.array([0, -3]), r"observation is outside of Discrete\(5, start=-2\): -3"),
    "a fraction of a choice": ("discrete", 0.5, "observation is of float64; its space is of int64"),
    "a choice that wraps around": ("discrete", np.uint64(2**63 + 1), "does not fit int64|which"),
}


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_in_one_line(case: str, deterministic: bool) -> None:
    space, obs, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as raised:
        make(space).predict(obs, deterministic=deterministic)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "started", [True, 0, [True, False], np.array([1, 0]), np.zeros(2, np.bool_), torch.ones(2)[:0] > 0]
)
def test_an_episode_start_is_a_flag_for_all_or_for_each(started: Any) -> None:
    count = 0 if isinstance(started, torch.Tensor) else 2
    action, _ = make("box").predict(np.zeros((count, 3)), episode_start=started, deterministic=False)
    assert len(action) == count


@pytest.mark.parametrize(
    "started", [[True], [True] * 3, [[True, False]], 2, [0.0, 1.0], "yes", np.nan, [[1], [1, 0]], [None] * 2]
)
def test_another_episode_start_is_refused(started: Any) -> None:
    with pytest.raises(UserError, match=r"episode_start (has shape|is no array).*"):
        make("box").predict(np.zeros((2, 3)), episode_start=started)
