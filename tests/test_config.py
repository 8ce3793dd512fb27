"""Settings, cells, errors, spaces and normalisers: what every algorithm stands on."""

import copy
import re
from dataclasses import FrozenInstanceError
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zoo.algos.a2c import A2C
from zoo.algos.ppo import PPO
from zoo.config import Field, Kind, build, config, describe, field_info, schedule
from zoo.envs.normalize import ObsNormalizer, RewardNormalizer, RunningMoments
from zoo.errors import UserError, nearest
from zoo.settings import Run
from zoo.spec import Spec
from zoo.taxonomy import AXES, CELLS, Cell, Data, Strategy, Target, parse_axis

Array = NDArray[Any]


@config
class Example:
    """One field of each kind."""

    steps: int = Field(10, ge=1, description="a count")
    gamma: float = Field(0.9, ge=0, le=1, description="a fraction")
    clip: float | None = Field(None, gt=0, description="an optional number")
    seed: int | None = Field(3, ge=0, description="an optional count")
    hidden: tuple[int, ...] = Field((64, 64), min_length=1, description="widths")
    whiten: bool = Field(True, description="a switch")
    activation: Literal["tanh", "relu"] = Field("tanh", description="a name")


# Configuration.


def test_annotations_are_described() -> None:
    assert {name: describe(field) for name, field in field_info(Example).items()} == {
        "steps": Kind(int, (), optional=False),
        "gamma": Kind(float, (), optional=False),
        "clip": Kind(float, (), optional=True),
        "seed": Kind(int, (), optional=True),
        "hidden": Kind(tuple, (), optional=False),
        "whiten": Kind(bool, (), optional=False),
        "activation": Kind(str, ("tanh", "relu"), optional=False),
    }


@pytest.mark.parametrize(
    ("name", "given_value", "expected"),
    [
        ("steps", "1e5", 100_000),
        ("steps", "2_000", 2000),
        ("steps", 1e5, 100_000),
        ("gamma", "1e-3", 0.001),
        ("gamma", "1", 1.0),
        ("clip", "0.2", 0.2),
        ("clip", "none", None),
        ("clip", "None", None),
        ("clip", "null", None),
        ("seed", "none", None),
        ("seed", "1e3", 1000),
        ("hidden", "64,64", (64, 64)),
        ("hidden", "64, 32,", (64, 32)),
        ("hidden", "64", (64,)),
        ("hidden", [32, 16], (32, 16)),
        ("whiten", "true", True),
        ("whiten", "False", False),
        ("whiten", "no", False),
        ("whiten", "0", False),
        ("whiten", False, False),
        ("activation", "relu", "relu"),
    ],
)
def test_settings_may_be_typed_as_text(name: str, given_value: Any, expected: Any) -> None:
    value = getattr(build(Example, {name: given_value}, "example"), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gamma", 1.5, "less than or equal to 1"),
        ("gamma", "-0.1", "greater than or equal to 0"),
        ("gamma", float("nan"), "finite"),
        ("gamma", "inf", "finite"),
        ("gamma", "none", "valid number"),
        ("gamma", True, "valid number"),  # YAML reads a bare `on` as a boolean
        ("steps", 0, "greater than or equal to 1"),
        ("steps", "1.5", "valid integer"),
        ("steps", "inf", "valid integer"),
        ("steps", "many", "valid integer"),
        ("steps", "", "valid integer"),
        ("steps", True, "valid integer"),
        ("steps", None, "valid integer"),
        ("clip", 0, "greater than 0"),
        ("hidden", "", "at least 1 item"),
        ("hidden", "64,wide", "valid integer"),
        ("whiten", "perhaps", "valid boolean"),
        ("whiten", 2, "valid boolean"),
        ("activation", "sine", "'tanh' or 'relu'"),
        ("activation", True, "'tanh' or 'relu'"),
    ],
)
def test_invalid_settings_name_owner_field_value_and_range(name: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        build(Example, {name: value}, "example")
    message = str(caught.value)
    assert message.startswith(f"example: {name} = ")
    shown = value.split(",")[-1] if isinstance(value, str) else str(value)
    assert shown in message
    assert expected in message
    assert "\n" not in message


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^example has no setting 'gama'; did you mean 'gamma'\?$"):
        build(Example, {"gama": 0.9}, "example")


def test_unknown_setting_without_a_near_one_lists_all() -> None:
    known = "activation, clip, gamma, hidden, seed, steps, whiten"
    with pytest.raises(UserError, match=f"^example has no setting 'zzz'; known: {known}$"):
        build(Example, {"zzz": 1}, "example")


def test_settings_are_frozen() -> None:
    built = build(Example, {}, "example")
    assert built == Example()
    with pytest.raises(FrozenInstanceError):
        built.gamma = 0.5  # type: ignore[misc]


def test_python_callers_are_validated_too() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Example(gamma=2.0)
    with pytest.raises((TypeError, ValueError), match="gama"):
        Example(gama=0.9)  # type: ignore[call-arg]


@pytest.mark.parametrize("cls", [Example, Run, PPO.Config, A2C.Config])
def test_every_setting_has_help_and_a_valid_default(cls: type) -> None:
    info = field_info(cls)
    assert all(field.description for field in info.values())
    defaults = {name: field.default for name, field in info.items()}
    assert build(cls, defaults, "defaults") == cls()


def test_field_info_keeps_the_order_of_the_class() -> None:
    assert list(field_info(Example)) == ["steps", "gamma", "clip", "seed", "hidden", "whiten", "activation"]


@pytest.mark.parametrize("seed", [2**53 + 1, 2**100 + 1])
def test_large_seeds_are_read_exactly(seed: int) -> None:
    assert build(Run, {"seed": str(seed)}, "run").seed == seed


@pytest.mark.parametrize("hidden", ["0", "64,-5"])
@pytest.mark.parametrize("cls", [PPO.Config, A2C.Config])
def test_hidden_widths_must_be_positive(cls: type, hidden: str) -> None:
    with pytest.raises(UserError, match="hidden"):
        build(cls, {"hidden": hidden}, "ppo")


@pytest.mark.parametrize(
    ("start", "end", "progress", "expected"),
    [
        (1.0, 0.0, 0.0, 1.0),
        (1.0, 0.0, 0.25, 0.75),
        (1.0, 3.0, 0.5, 2.0),
        (1.0, 0.0, 1.0, 0.0),
        (1.0, None, 0.5, 1.0),
    ],
)
def test_schedule_goes_from_start_to_end_or_stays(
    start: float, end: float | None, progress: float, expected: float
) -> None:
    assert schedule(start, end, progress) == expected


# Errors and taxonomy.


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("Pendulun", ["CartPole", "Pendulum"], "; did you mean 'Pendulum'?"),
        ("pendulum", ["CartPole", "Pendulum"], "; did you mean 'Pendulum'?"),
        ("xyz", ["b", "a"], "; known: a, b"),
        ("xyz", [], ""),
    ],
)
def test_nearest_suggests_or_lists(name: str, known: list[str], expected: str) -> None:
    assert nearest(name, iter(known)) == expected


def test_the_cube_has_eight_cells() -> None:
    assert len(CELLS) == len(set(CELLS)) == 8
    assert {str(cell) for cell in CELLS} == {"/".join(p) for p in product(*AXES.values())}


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_cell_is_its_path(cell: Cell) -> None:
    assert Cell(str(cell)) == Cell(str(cell).upper()) == cell
    assert hash(Cell(str(cell))) == hash(cell)
    assert copy.deepcopy(cell) == cell


def test_a_cell_is_three_answers() -> None:
    cell = Cell("policy/on/v")
    assert (cell.strategy, cell.data, cell.target) == (Strategy.POLICY, Data.ON, Target.V)
    with pytest.raises(FrozenInstanceError):
        cell.data = Data.OFF  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("policy/on", "'policy/on' is not strategy/data/target"),
        ("policy/on/v/x", "not strategy/data/target"),
        ("", "not strategy/data/target"),
        ("policies/on/v", "strategy 'policies' is not one of value, policy"),
        ("policy/both/v", "data 'both' is not one of off, on"),
        ("policy/on/a", "target 'a' is not one of q, v"),
    ],
)
def test_a_wrong_path_names_its_part(path: str, expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        Cell(path)


def test_parse_axis_ignores_case() -> None:
    assert parse_axis("data", Data, "OFF") is Data.OFF


# Spaces.

CHOICE = spaces.Discrete(3)
OBS = spaces.Box(-1, 1, (2,))
INF = np.inf


def half_bounded() -> spaces.Box:
    return spaces.Box(np.array([-INF, -3, 0, -3], np.float32), np.array([1, INF, INF, 1], np.float32))


def acting(action: spaces.Space[Any], *, scale_actions: bool = True) -> Spec:
    return Spec(OBS, action, scale_actions=scale_actions)


@pytest.mark.parametrize("kind", ["observation", "action"])
def test_unsupported_spaces_are_refused_with_a_way_out(kind: str) -> None:
    wrong = spaces.Dict({"a": CHOICE})
    pair = (wrong, CHOICE) if kind == "observation" else (OBS, wrong)
    with pytest.raises(UserError, match=rf"^{kind} space Dict.*Flatten{kind.capitalize()}"):
        Spec(*pair)


def test_check_same_names_the_space_that_differs() -> None:
    with pytest.raises(UserError, match=r"observation_space Box.*is Box\(-2\.0"):
        acting(CHOICE).check_same(Spec(spaces.Box(-2, 2, (2,)), CHOICE))
    with pytest.raises(UserError, match=r"action_space Discrete\(3\).*is Discrete\(4\)"):
        acting(CHOICE).check_same(acting(spaces.Discrete(4)))


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (spaces.Discrete(5, start=3), np.array([3, 7, 5]), np.array([0, 4, 2])),
        (spaces.Discrete(5, start=-2), np.array([-2, 2], np.int32), np.array([0, 4])),
        (spaces.Discrete(5), [0, 4], np.array([0, 4])),
        (spaces.Discrete(5, start=3), 4, np.array(1)),
        (spaces.Box(-1, 1, (1,), np.float64), np.array([[0.5]]), np.array([[0.5]], np.float32)),
    ],
    ids=str,
)
def test_observations_are_counted_from_zero_in_one_dtype(space: spaces.Space[Any], obs: Any, expected: Array) -> None:
    before = copy.deepcopy(obs)
    encoded = Spec(space, CHOICE).encode_obs(obs)
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
    decoded = acting(space).decode_action(np.array(action, np.float32)[:, None])
    np.testing.assert_array_equal(decoded, np.array(expected, space.dtype)[:, None], strict=True)


def test_without_scaling_box_actions_are_only_clipped() -> None:
    actions = np.array([[-9], [-3], [-0.5], [1], [9]], np.float32)
    decoded = acting(spaces.Box(-3, 1, (1,)), scale_actions=False).decode_action(actions)
    assert decoded.ravel().tolist() == [-3, -3, -0.5, 1, 1]
    assert not np.allclose(acting(spaces.Box(-3, 1, (1,))).decode_action(actions), decoded)


def test_each_dimension_has_its_own_bounds() -> None:
    space = spaces.Box(np.array([-3, 0], np.float32), np.array([1, 10], np.float32))
    decoded = acting(space).decode_action(np.array([[0.5, 0.5], [-1, 1]], np.float32))
    assert decoded.tolist() == [[0, 7.5], [-3, 10]]


def test_unbounded_dimensions_are_never_scaled() -> None:
    actions = np.array([[-5, -5, -5, -5], [0.5, 0.5, 0.5, 0.5], [5, 5, 5, 5]], np.float32)
    expected = [[-5, -3, 0, -3], [0.5, 0.5, 0.5, 0], [1, 5, 5, 1]]
    assert acting(half_bounded()).decode_action(actions).tolist() == expected


@pytest.mark.parametrize("scale_actions", [False, True])
def test_actions_without_bounds_pass_unchanged(scale_actions: bool) -> None:
    actions = np.array([[-1e6, 0.25]], np.float32)
    spec = acting(spaces.Box(-INF, INF, (2,)), scale_actions=scale_actions)
    np.testing.assert_array_equal(spec.decode_action(actions), actions)


def test_flat_box_actions_take_the_spaces_shape() -> None:
    space = spaces.Box(np.array([[-3, 0], [-1, -1]]), np.array([[1, 10], [1, 3]]), dtype=np.float64)
    spec = acting(space)
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
    decoded = acting(space, scale_actions=scale_actions).decode_action(np.array([[action]], np.float32))
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
    decoded = acting(space).decode_action(np.array(action, np.int64))
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
    spec = acting(space)
    assert (spec.action_shape, spec.action_sizes) == (shape, sizes)
    assert spec.is_bounded


# Normalisers.


def batches(seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal([5, -100], [2, 0.1], size=(size, 2)) for size in (1, 3, 1, 20, 7)]


def assert_moments(moments: RunningMoments, rows: Array) -> None:
    """Those of all rows together with the prior: a weight of 1e-4 on mean 0 and variance 1."""
    prior = np.stack([np.ones(rows.shape[1:]), -np.ones(rows.shape[1:])])
    weights = np.concatenate([np.full(2, 0.5e-4), np.ones(len(rows))])
    everything = np.concatenate([prior, rows])
    mean = np.average(everything, axis=0, weights=weights)
    var = np.average((everything - mean) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(moments.var, var, rtol=1e-10)
    assert moments.count.item() == pytest.approx(len(rows) + 1e-4)


def test_moments_of_batches_are_those_of_all_rows() -> None:
    moments, rows = RunningMoments((2,)), np.concatenate(batches())
    for batch in batches():
        moments.update(batch)
    assert_moments(moments, rows)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.var[0], rows.var(0)[0], rtol=1e-3)


def test_moments_of_bytes_do_not_overflow() -> None:
    moments = RunningMoments(())
    rows = np.full(1000, 255, np.uint8)
    rows[::2] = 0
    moments.update(rows)
    assert moments.mean.item() == pytest.approx(127.5, rel=1e-6)
    assert moments.var.item() == pytest.approx(127.5**2, rel=1e-6)


def test_an_empty_batch_changes_nothing() -> None:
    moments = RunningMoments((2,))
    moments.update(np.ones((3, 2)))
    before = copy.deepcopy(moments.state_dict())
    moments.update(np.ones((0, 2)))
    assert all(torch.equal(value, before[key]) for key, value in moments.state_dict().items())


def test_moments_are_saved_and_stay_in_double_precision() -> None:
    moments, loaded = RunningMoments((2,)), RunningMoments((2,))
    moments.update(batches()[3])
    loaded.load_state_dict(moments.state_dict())
    moments.to(torch.float32)
    assert moments.mean.dtype == torch.float64
    for each in (moments, loaded):
        each.update(batches()[4])
    assert torch.equal(loaded.var, moments.var)


def test_observations_are_whitened_and_clipped() -> None:
    normalizer, rows = ObsNormalizer(OBS), np.concatenate(batches())
    normalizer.update(rows)
    whitened = normalizer(rows)
    expected = (rows - rows.mean(0)) / rows.std(0)
    assert whitened.dtype == np.float32
    # The prior's pinch shows in the second column, whose mean is a thousand deviations from 0.
    np.testing.assert_allclose(whitened[:, 0], expected[:, 0], rtol=1e-3, atol=1e-3)
    assert normalizer(np.array([[1e6, -1e6]])).tolist() == [[10, -10]]
    assert_moments(normalizer, rows)


def test_a_constant_observation_is_whitened_to_zero() -> None:
    normalizer = ObsNormalizer(OBS)
    for _ in range(3):
        normalizer.update(np.full((50, 2), [0.0, 7.0]))
    whitened = normalizer(np.array([[0.0, 7.0]]))
    np.testing.assert_allclose(whitened, 0, atol=1e-2)


@pytest.mark.parametrize("space", [CHOICE, spaces.Box(0, 255, (8, 8, 3), np.uint8)], ids=str)
def test_only_floats_are_whitened(space: spaces.Space[Any]) -> None:
    with pytest.raises(UserError, match="normalize_obs needs observations of floats"):
        ObsNormalizer(space)


@pytest.mark.parametrize("seed", range(3))
def test_rewards_are_scaled_by_the_deviation_of_discounted_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gamma, num_envs, steps = 0.9, 3, 25
    reward = rng.normal(1, 5, size=(steps, num_envs))
    alive = rng.random((steps, num_envs)) < 0.8
    ended = alive & (rng.random((steps, num_envs)) < 0.2)
    normalizer = RewardNormalizer(num_envs, gamma)

    sums: list[float] = []
    current: list[list[float]] = [[] for _ in range(num_envs)]
    for t in range(steps):
        scaled = normalizer.scale(reward[t], np.flatnonzero(ended[t]), alive[t])
        for b in np.flatnonzero(alive[t]):
            current[b].append(reward[t, b])
            # Σ γ^k r_{t-k} over the episode so far.
            sums.append(sum(gamma**k * r for k, r in enumerate(reversed(current[b]))))
            if ended[t, b]:
                current[b] = []
        assert_moments(normalizer, np.array(sums))
        expected = reward[t] / np.sqrt(normalizer.var.item() + 1e-8)
        np.testing.assert_allclose(scaled, np.clip(expected, -10, 10), rtol=1e-10)
    assert normalizer.var.item() == pytest.approx(np.var(sums), rel=1e-3)


def test_scaled_rewards_keep_their_signs_and_are_clipped() -> None:
    normalizer = RewardNormalizer(2, 0.99)
    nobody, everyone = np.array([], np.int64), np.ones(2, np.bool_)
    for _ in range(20):
        scaled = normalizer.scale(np.array([1.0, 2.0]), nobody, everyone)
    assert (scaled > 0).all()
    assert scaled[1] == pytest.approx(2 * scaled[0])
    scaled = normalizer.scale(np.array([1e9, -1e9]), nobody, np.array([False, False]))
    assert scaled.tolist() == [10, -10]
