"""Boxes of integers are played in equal shares; bounds as large as the numbers of their type are none."""

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.random import SeedSequence
from numpy.typing import NDArray
from scipy.stats import chisquare, norm
from worlds import FLOATS

import zoo
from zoo import registry
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.errors import UserError
from zoo.protocol import Progress
from zoo.spec import Spec, check_space
from zoo.storage.agent import Agent
from zoo.storage.description import Spaces, describe
from zoo.training.loop import act_and_step

Array = NDArray[Any]

OBS = spaces.Box(-1, 1, (2,))
CHOICE = spaces.Discrete(3)
INF = np.inf
CPU = torch.device("cpu")
LARGEST = float(np.finfo(np.float32).max)


def acting(low: Any, high: Any, dtype: Any, *, scale_actions: bool = True, size: int = 1) -> Spec:
    """A Spec whose actions are a Box."""
    return Spec(OBS, spaces.Box(low, high, (size,), dtype), scale_actions=scale_actions)


def decoded(spec: Spec, actions: Any) -> list[Any]:
    found = spec.decode_action(np.array(actions, np.float64).reshape(-1, 1))
    assert found.dtype == spec.action_space.dtype
    assert all(spec.action_space.contains(each) for each in found)
    return list(found[:, 0].tolist())


# Integers.

RANGES = [
    (0, 3, np.int64),
    (-2, 5, np.int8),
    (-128, 127, np.int8),
    (0, 255, np.uint8),
    (-7, -5, np.int16),
    (3, 3, np.int32),
    (10**6, 10**6 + 9, np.uint32),
    (0, 1, np.bool_),
]
each_range = pytest.mark.parametrize(("low", "high", "dtype"), RANGES)


@each_range
def test_scaled_integers_have_equal_shares(low: int, high: int, dtype: Any) -> None:
    spec, count = acting(low, high, dtype), high - low + 1
    expected = [dtype(low + k).item() for k in range(count)]
    for inside in (1e-6, 0.5, 1 - 1e-6):  # from just above a share's lower edge to just below its upper one
        assert decoded(spec, [-1 + 2 * (k + inside) / count for k in range(count)]) == expected
    assert decoded(spec, [-1, -1.1, -1e30, -np.inf]) == expected[:1] * 4
    assert decoded(spec, [1, 1.1, 1e30, np.inf]) == expected[-1:] * 4


@each_range
def test_unscaled_integers_are_rounded_to_the_nearest(low: int, high: int, dtype: Any) -> None:
    spec, values = acting(low, high, dtype, scale_actions=False), np.arange(low, high + 1)
    expected = [dtype(value).item() for value in values]
    for offset in (-0.5 + 1e-6, -0.2, 0.0, 0.5 - 1e-6):
        assert decoded(spec, values + offset) == expected
    assert decoded(spec, [low - 0.5, low - 7, -1e30, -np.inf]) == expected[:1] * 4
    assert decoded(spec, [high + 0.5, high + 7, 1e30, np.inf]) == expected[-1:] * 4


def test_each_dimension_has_its_own_range() -> None:
    space = spaces.Box(np.array([[0, -1]]), np.array([[3, 2**40]]), (1, 2), np.int64)  # the second is unbounded
    found = Spec(OBS, space).decode_action(np.array([[-0.9, 1.6], [0.9, -5.0], [0.1, 12345.4]]))
    assert found.tolist() == [[[0, 2]], [[3, -1]], [[2, 12345]]]


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (np.int64, -(2**63), 2**63 - 1024),
        (np.uint64, 0, 2**64 - 2048),
        (np.int32, -(2**31), 2**31 - 1),
        (np.uint32, 0, 2**32 - 1),
    ],
)
def test_all_integers_of_a_type(dtype: Any, low: int, high: int) -> None:
    # float64 next to 2⁶³ is 2⁶³ - 1024: the largest that a policy can mean.
    spec = acting(np.iinfo(dtype).min, np.iinfo(dtype).max, dtype)
    assert not spec.is_bounded
    assert decoded(spec, [1.4, 1.6, 1e30, np.inf, -1e30]) == [1, 2, high, high, low]


class Recorder(gym.Env[Any, Any]):
    """Remembers the actions that it was given, of Box(0, 3, int)."""

    observation_space, action_space = OBS, spaces.Box(0, 3, (1,), np.int64)

    def __init__(self) -> None:
        self.actions: list[int] = []

    def reset(self, **kwargs: Any) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.actions.append(int(action[0]))
        return np.zeros(2, np.float32), 0.0, False, False, {}


def played(name: str, *, scale_actions: bool, steps: int = 2000, **settings: Any) -> tuple[Any, NDArray[np.int64]]:
    """An entry, and how often it played each of the four integers."""
    env = Recorder()
    envs = Envs(vectorize(env, 1), SeedSequence(0), scale_actions=scale_actions)
    algo: Any = registry.make(name, envs.spec, registry.load_class(name).Config(**settings), SeedSequence(1))
    envs.reset()
    for _ in range(steps):
        act_and_step(algo, envs, Progress(0, steps), CPU)
    return algo, np.bincount(env.actions, minlength=4)


def test_sac_plays_every_integer_equally_often_at_the_start() -> None:
    _, counts = played("sac", scale_actions=True, learning_starts=10**6)
    assert chisquare(counts).pvalue > 1e-3
    # Truncated towards zero, 3 would never be played.
    assert chisquare(counts, [1999 / 3] * 3 + [1]).pvalue < 1e-6


@pytest.mark.parametrize("scale_actions", [False, True])
def test_ppo_plays_the_integer_that_is_nearest_to_its_draw(scale_actions: bool) -> None:
    algo, counts = played("ppo", scale_actions=scale_actions, log_std_init=0.0)
    with torch.no_grad():
        mean = float(algo.actor(torch.zeros(1, 2)).mean)
    edges = np.array([-0.5, 0, 0.5] if scale_actions else [0.5, 1.5, 2.5])
    probability = np.diff([0, *norm.cdf(edges, mean, 1), 1])
    assert chisquare(counts, 2000 * probability).pvalue > 1e-3


# Bounds.

UNBOUNDED = {
    "float32's largest": (-LARGEST, LARGEST, np.float32),
    "float32's largest, above": (0, LARGEST, np.float32),
    "infinite": (-np.inf, np.inf, np.float32),
    "float32's largest as float64": (-LARGEST, LARGEST, np.float64),
    "float64's largest": (-np.finfo(np.float64).max, np.finfo(np.float64).max, np.float64),
    "float16's largest": (-65504, 65504, np.float16),
    "int32": (-(2**31), 2**31 - 1, np.int32),
    "int64": (-(2**63), 2**63 - 1, np.int64),
    "integers as large as int32's": (-5, 2**31 - 1, np.int64),
}
BOUNDED = {
    "almost float32's largest": (-3.4e38, 3.4e38, np.float32),
    "almost float16's largest": (-65472, 65472, np.float16),
    "almost int32's largest": (-(2**31) + 2, 2**31 - 2, np.int32),
    "bytes": (0, 255, np.uint8),
}


def reread(spec: Spec) -> Spec:
    """The same Spec after a file."""
    return Spaces.model_validate(json.loads(json.dumps(describe(spec).model_dump()))).spec()


@pytest.mark.parametrize("case", UNBOUNDED)
@pytest.mark.parametrize("again", [False, True])
def test_bounds_as_large_as_numbers_are_none(case: str, again: bool) -> None:
    spec = acting(*UNBOUNDED[case])
    spec = reread(spec) if again else spec
    assert not spec.is_bounded
    assert decoded(spec, [1, 7]) == [1, 7]  # in the environment's units, whatever scale_actions says
    config = registry.load_class("sac").Config()
    with pytest.raises(UserError, match="need finite bounds"):
        registry.make("sac", spec, config, SeedSequence(0))


@pytest.mark.parametrize("case", BOUNDED)
@pytest.mark.parametrize("again", [False, True])
def test_smaller_bounds_are_bounds(case: str, again: bool) -> None:
    spec = acting(*BOUNDED[case])
    low, high, dtype = BOUNDED[case]
    spec = reread(spec) if again else spec
    assert spec.is_bounded
    assert decoded(spec, [-1, 1]) == [dtype(low).item(), dtype(high).item()]


@pytest.mark.parametrize("case", {**UNBOUNDED, **BOUNDED})
def test_bounds_survive_a_saved_agent(case: str, tmp_path: Path) -> None:
    spec = acting(*(UNBOUNDED | BOUNDED)[case], size=2)
    algo = registry.make("ppo", spec, registry.load_class("ppo").Config(hidden=(4,)), SeedSequence(0))
    Agent("ppo", algo, spec).save(tmp_path)
    zoo.load(tmp_path).spec.check_same(spec)


def test_actions_without_a_dimension_are_refused() -> None:
    with pytest.raises(UserError, match=r"action space Box\(.*\(0,\), float32\) has no dimension"):
        Spec(FLOATS, spaces.Box(-1, 1, (0,), np.float32))


# Which spaces an algorithm takes.


def test_check_space_names_what_is_supported() -> None:
    check_space("dqn", Spec(OBS, spaces.Discrete(3)), (spaces.Discrete,))
    with pytest.raises(UserError, match=r"dqn needs actions of type Discrete; .*Box\(-1\.0, 1\.0"):
        check_space("dqn", Spec(OBS, spaces.Box(-1, 1, (2,))), (spaces.Discrete,))


# Encoding and decoding.


def half_bounded() -> spaces.Box:
    return spaces.Box(np.array([-INF, -3, 0, -3], np.float32), np.array([1, INF, INF, 1], np.float32))


def acting_on(action: spaces.Space[Any], *, scale_actions: bool = True) -> Spec:
    return Spec(OBS, action, scale_actions=scale_actions)


@pytest.mark.parametrize("kind", ["observation", "action"])
def test_unsupported_spaces_are_refused_with_a_way_out(kind: str) -> None:
    wrong = spaces.Dict({"a": CHOICE})
    pair = (wrong, CHOICE) if kind == "observation" else (OBS, wrong)
    with pytest.raises(UserError, match=rf"^{kind} space Dict.*Flatten{kind.capitalize()}"):
        Spec(*pair)


def test_check_same_names_the_space_that_differs() -> None:
    with pytest.raises(UserError, match=r"observation_space Box.*is Box\(-2\.0"):
        acting_on(CHOICE).check_same(Spec(spaces.Box(-2, 2, (2,)), CHOICE))
    with pytest.raises(UserError, match=r"action_space Discrete\(3\).*is Discrete\(4\)"):
        acting_on(CHOICE).check_same(acting_on(spaces.Discrete(4)))


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (spaces.Discrete(5, start=3), np.array([3, 7, 5]), np.array([0, 4, 2])),
        (spaces.Discrete(5, start=-2), np.array([-2, 2], np.int32), np.array([0, 4])),
        (spaces.Discrete(5), [0, 4], np.array([0, 4])),
        (spaces.Discrete(5, start=3), [4], np.array([1])),
        (spaces.Box(-1, 1, (1,), np.float64), np.array([[0.5]]), np.array([[0.5]], np.float32)),
    ],
    ids=str,
)
def test_observations_are_counted_from_zero_in_one_dtype(space: spaces.Space[Any], obs: Any, expected: Array) -> None:
    before = copy.deepcopy(obs)
    encoded = Spec(space, CHOICE).encode_obs(np.asarray(obs), len(obs))
    np.testing.assert_array_equal(encoded, expected, strict=True)
    np.testing.assert_array_equal(obs, before)


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        # Straight lines through (-1, low) and (1, high), by hand; beyond ±1 is clipped.
        (spaces.Box(-3, 1, (1,)), [-2, -1, 0, 0.5, 1, 9], [-3, -3, -1, 0, 1, 1]),
        (spaces.Box(0, 10, (1,), np.float64), [-1, -0.5, 0, 1], [0, 2.5, 5, 10]),
    ],
    ids=str,
)
def test_box_actions_are_scaled_onto_the_bounds(space: spaces.Box, action: list[float], expected: list[float]) -> None:
    decoded = acting_on(space).decode_action(np.array(action, np.float32)[:, None])
    np.testing.assert_array_equal(decoded, np.array(expected, space.dtype)[:, None], strict=True)


def test_without_scaling_box_actions_are_only_clipped() -> None:
    actions = np.array([[-9], [-3], [-0.5], [1], [9]], np.float32)
    decoded = acting_on(spaces.Box(-3, 1, (1,)), scale_actions=False).decode_action(actions)
    assert decoded.ravel().tolist() == [-3, -3, -0.5, 1, 1]
    assert not np.allclose(acting_on(spaces.Box(-3, 1, (1,))).decode_action(actions), decoded)


def test_each_dimension_has_its_own_bounds() -> None:
    space = spaces.Box(np.array([-3, 0], np.float32), np.array([1, 10], np.float32))
    decoded = acting_on(space).decode_action(np.array([[0.5, 0.5], [-1, 1]], np.float32))
    assert decoded.tolist() == [[0, 7.5], [-3, 10]]


def test_unbounded_dimensions_are_never_scaled() -> None:
    actions = np.array([[-5, -5, -5, -5], [0.5, 0.5, 0.5, 0.5], [5, 5, 5, 5]], np.float32)
    expected = [[-5, -3, 0, -3], [0.5, 0.5, 0.5, 0], [1, 5, 5, 1]]
    assert acting_on(half_bounded()).decode_action(actions).tolist() == expected


@pytest.mark.parametrize("scale_actions", [False, True])
def test_actions_without_bounds_pass_unchanged(scale_actions: bool) -> None:
    actions = np.array([[-1e6, 0.25]], np.float32)
    spec = acting_on(spaces.Box(-INF, INF, (2,)), scale_actions=scale_actions)
    np.testing.assert_array_equal(spec.decode_action(actions), actions)


def test_flat_box_actions_take_the_spaces_shape() -> None:
    space = spaces.Box(np.array([[-3, 0], [-1, -1]]), np.array([[1, 10], [1, 3]]), dtype=np.float64)
    spec = acting_on(space)
    decoded = spec.decode_action(np.array([[0, 0, 0, 0], [1, 0, -1, 1]], np.float32))
    assert spec.action_shape == spec.action_sizes == (4,)
    assert decoded.tolist() == [[[-1, 5], [0, 1]], [[1, 5], [-1, 3]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    bounds=st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32)).map(sorted),
    action=st.one_of(st.sampled_from([-1.0, 1.0]), st.floats(allow_nan=False, width=32)),
    scale_actions=st.booleans(),
)
@example(bounds=[-1e6, 1e-6], action=1.0, scale_actions=True)  # centre + span rounds beyond the bound
@settings(deadline=None)
def test_actions_never_leave_the_bounds(dtype: type, bounds: list[float], action: float, scale_actions: bool) -> None:
    space = spaces.Box(*bounds, (1,), dtype)
    decoded = acting_on(space, scale_actions=scale_actions).decode_action(np.array([[action]], np.float32))
    assert space.contains(decoded[0])


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (spaces.Discrete(3), [0, 2], [0, 2]),
        (spaces.Discrete(3, start=-1), [0, 2], [-1, 1]),
        (spaces.MultiDiscrete([2, 3]), [[0, 2], [1, 1]], [[0, 2], [1, 1]]),
        (spaces.MultiDiscrete([2, 3], start=[5, -1]), [[0, 2], [1, 1]], [[5, 1], [6, 0]]),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), [[1, 2, 3, 4]], [[[1, 2], [3, 4]]]),
    ],
    ids=str,
)
def test_discrete_actions_are_counted_from_the_start(
    space: spaces.Space[Any], action: list[Any], expected: list[Any]
) -> None:
    decoded = acting_on(space).decode_action(np.array(action, np.int64))
    assert decoded.tolist() == expected
    assert all(space.contains(each) for each in decoded)


@pytest.mark.parametrize(
    ("space", "shape", "sizes"),
    [
        (spaces.Discrete(3), (), (3,)),
        (spaces.MultiDiscrete([2, 3]), (2,), (2, 3)),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), (4,), (2, 3, 4, 5)),
        (spaces.Box(-1, 1, (2, 3)), (6,), (6,)),
        (spaces.Box(-1, 1, ()), (1,), (1,)),
    ],
    ids=str,
)
def test_action_shapes_are_flat(space: spaces.Space[Any], shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    spec = acting_on(space)
    assert (spec.action_shape, spec.action_sizes) == (shape, sizes)
    assert spec.is_bounded


def test_spaces_of_many_bounds_are_short_in_messages() -> None:
    wide = [spaces.Box(np.linspace(low, 1, 900), np.full(900, 2.0), dtype=np.float64) for low in (-1, -2)]
    one, other = (Spec(space, spaces.Discrete(2)) for space in wide)
    with pytest.raises(UserError, match=r"was trained for observation_space Box.*\(900,\), float64\)") as raised:
        one.check_same(other)
    assert "what surrounded it in training (stacks, wrappers)" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
