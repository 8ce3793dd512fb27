"""The rollout buffer: what goes in comes out once, in order, without gaps."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from numpy.typing import NDArray

from zoo import registry
from zoo.buffers.rollout import RolloutBuffer
from zoo.buffers.segments import SegmentBuffer
from zoo.errors import UserError
from zoo.protocol import Transition
from zoo.spec import Spec
from zoo.storage.state import Unpacker, pack

Array = NDArray[Any]

SPEC = Spec(spaces.Box(-np.inf, np.inf, (2,)), spaces.Discrete(100_000))


def step_of(number: int, num_envs: int) -> Transition:
    """Step `number`; every field of every row tells its step and its environment."""
    tag = 100 * number + np.arange(num_envs)
    obs = np.stack([tag, -tag], -1).astype(np.float32)
    return Transition(obs, tag, tag / 8, obs + 0.5, tag % 2 == 0, tag % 3 == 0, -tag / 4)


def everyone(num_envs: int) -> Array:
    return np.ones(num_envs, np.bool_)


def rollouts(buffer: RolloutBuffer, alive: Array) -> list[Transition]:
    """Feed one step for each row of `alive`, (steps, B); returns copies of the rollouts on the way."""
    found = []
    for number, mask in enumerate(alive):
        buffer.add(step_of(number, len(mask)), mask)
        found += [Transition(*map(torch.clone, batch)) for batch in buffer.batches()]
    return found


def assert_fields(actual: Transition, expected: Transition) -> None:
    for name, mine, theirs in zip(Transition._fields, actual, expected, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs, err_msg=name)


def test_rollout_holds_every_field_of_every_step_time_first() -> None:
    (rollout,) = rollouts(RolloutBuffer(SPEC, 3, 4), np.ones((4, 3), np.bool_))
    steps = [step_of(number, 3) for number in range(4)]
    assert_fields(rollout, Transition(*(np.stack(field) for field in zip(*steps, strict=True))))


def test_rollout_is_yielded_once_when_full_and_then_forgotten() -> None:
    buffer = RolloutBuffer(SPEC, 2, 3)
    counts = []
    for number in range(7):
        buffer.add(step_of(number, 2), everyone(2))
        counts.append((len(list(buffer.batches())), len(list(buffer.batches()))))
    assert counts == [(0, 0), (0, 0), (1, 0), (0, 0), (0, 0), (1, 0), (0, 0)]


def test_rollouts_share_no_step() -> None:
    first, second = rollouts(RolloutBuffer(SPEC, 2, 3), np.ones((6, 2), np.bool_))
    assert first.action[:, 0].tolist() == [0, 100, 200]
    assert second.action[:, 0].tolist() == [300, 400, 500]


def test_pending_says_whether_a_rollout_has_begun() -> None:
    buffer = RolloutBuffer(SPEC, 2, 2)
    seen = [buffer.pending]
    for number in range(2):
        buffer.add(step_of(number, 2), everyone(2))
        seen.append(buffer.pending)
    list(buffer.batches())
    assert [*seen, buffer.pending] == [False, True, True, False]


def test_pending_notices_a_single_column() -> None:
    buffer = RolloutBuffer(SPEC, 2, 2)
    buffer.add(step_of(0, 2), np.array([False, False]))
    assert not buffer.pending
    buffer.add(step_of(1, 2), np.array([False, True]))
    assert buffer.pending


@pytest.mark.parametrize("seed", range(8))
def test_columns_pack_the_alive_rows_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_steps, num_envs = 4, 3
    alive = rng.random((40, num_envs)) < rng.uniform(0.4, 0.95)
    found = rollouts(RolloutBuffer(SPEC, num_envs, num_steps), alive)

    # The same by lists: a rollout ends at the step that fills its slowest column.
    expected, start = [], 0
    for end in range(1, len(alive) + 1):
        rows = [start + np.flatnonzero(column) for column in alive[start:end].T]
        if min(map(len, rows)) == num_steps:
            picked = np.stack([column[:num_steps] for column in rows], -1)
            expected.append(100 * picked + np.arange(num_envs))
            start = end
    assert len(expected) > 1
    assert [rollout.action.tolist() for rollout in found] == [each.tolist() for each in expected]
    for rollout in found:
        # Other fields are the same rows' own.
        tag = rollout.action.numpy()
        obs = np.stack([tag, -tag], -1)
        fields = Transition(obs, tag, tag / 8, obs + 0.5, tag % 2 == 0, tag % 3 == 0, -tag / 4)
        assert_fields(rollout, fields)


def test_a_dead_row_leaves_no_gap_and_a_full_column_waits() -> None:
    alive = np.ones((5, 2), np.bool_)
    alive[1, 0] = False
    (rollout,) = rollouts(RolloutBuffer(SPEC, 2, 3), alive)
    assert rollout.action[:, 0].tolist() == [0, 200, 300]
    assert rollout.action[:, 1].tolist() == [1, 101, 201]


@pytest.mark.parametrize("seed", range(8))
def test_unused_is_the_share_of_steps_that_no_rollout_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffer = RolloutBuffer(SPEC, 3, 4)
    alive = rng.random((60, 3)) < rng.uniform(0.4, 0.95)
    seen = {int(tag) for rollout in rollouts(buffer, alive) for tag in rollout.action.flatten()}
    # Before the last rollout's end: those that are in none; after it: those beyond `num_steps` in a column.
    after = alive.copy()
    after[: max(seen) // 100 + 1] = False
    waiting = int(np.minimum(after.sum(0), 4).sum())
    taken = int(alive.sum())
    assert buffer.metrics() == {"unused": pytest.approx((taken - len(seen) - waiting) / taken)}
    assert buffer.metrics() == {}


def test_nothing_is_unused_where_every_row_is_alive() -> None:
    buffer = RolloutBuffer(SPEC, 3, 4)
    assert len(rollouts(buffer, np.ones((14, 3), np.bool_))) == 3
    assert buffer.metrics() == {}


def test_rows_that_are_cut_off_are_unused() -> None:
    buffer = RolloutBuffer(SPEC, 2, 4)
    rollouts(buffer, np.ones((3, 2), np.bool_))
    buffer.cut(np.array([1]))
    rollouts(buffer, np.ones((1, 2), np.bool_))
    assert buffer.metrics() == {"unused": 3 / 8}


def restored(kind: type[RolloutBuffer | SegmentBuffer], filled: list[int]) -> Any:
    """A buffer of the state of one whose columns have so many of 3 rows, with two steps dropped."""

    def make() -> Any:
        return kind(SPEC, 2, 3, *([torch.Generator()] if kind is SegmentBuffer else []))  # type: ignore[call-arg]

    buffer, other = make(), make()
    for t in range(5):
        buffer.add(step_of(t, 2), t < np.array([min(filled[0], 3) + 2 * (filled[0] > 3), filled[1]]))
    tensors: dict[str, torch.Tensor] = {}
    Unpacker(tensors).restore(other, pack(buffer, "buffer", tensors), "buffer")
    return other


def test_a_full_column_that_waits_is_restored() -> None:
    other = restored(RolloutBuffer, [5, 1])
    assert other.pending
    other.add(step_of(5, 2), np.array([False, True]))
    assert not list(other.batches())
    other.add(step_of(6, 2), np.array([False, True]))
    (rollout,) = other.batches()
    assert rollout.action.tolist() == [[0, 1], [100, 501], [200, 601]]
    assert other.metrics() == {"unused": 2 / 8}  # the counts are part of the state


@pytest.mark.parametrize(("kind", "filled"), [(RolloutBuffer, [3, 3]), (SegmentBuffer, [3, 1])])
def test_a_batch_that_is_due_is_no_state_between_steps(kind: type[RolloutBuffer], filled: list[int]) -> None:
    with pytest.raises(UserError, match="counters that point outside"):
        restored(kind, filled)


@pytest.mark.parametrize("dead", [False, True])
def test_stored_values_are_copies(dead: bool) -> None:
    buffer = RolloutBuffer(SPEC, 2, 2)
    alive = everyone(2)
    if dead:
        alive[0] = False
    for number in (*range(2), *([2, 3] if dead else [])):
        step = step_of(number, 2)
        buffer.add(step, alive if number < 2 else everyone(2))
        for field in step:
            field[:] = 1
    (rollout,) = buffer.batches()
    assert rollout.action[:, 1].tolist() == [1, 101]
    assert rollout.reward[:, 1].tolist() == [1 / 8, 101 / 8]
    assert rollout.next_obs[:, 1, 1].tolist() == [-0.5, -100.5]
    assert rollout.terminated[:, 1].tolist() == [False, False]


OBSERVATIONS = [
    (spaces.Box(-1, 1, (3,)), (3,), torch.float32),
    (spaces.Box(-1, 1, (3,), np.float64), (3,), torch.float32),
    (spaces.Box(-1, 1, (2, 3)), (2, 3), torch.float32),
    (spaces.Box(0, 255, (10, 10, 3), np.uint8), (10, 10, 3), torch.uint8),
    # Bytes that are no image are numbers like any others.
    (spaces.Box(0, 255, (128,), np.uint8), (128,), torch.float32),
    (spaces.Discrete(5, start=2), (), torch.int64),
]
ACTIONS = [
    (spaces.Box(-3, 1, (2,)), (2,), torch.float32),
    (spaces.Box(-3, 1, (2, 2), np.float64), (4,), torch.float32),
    (spaces.Discrete(3), (), torch.int64),
    (spaces.MultiDiscrete([2, 3]), (2,), torch.int64),
    (spaces.MultiDiscrete([[2, 3], [4, 5]]), (4,), torch.int64),
]


@pytest.mark.parametrize(("observation", "obs_shape", "obs_dtype"), OBSERVATIONS, ids=str)
@pytest.mark.parametrize(("action", "action_shape", "action_dtype"), ACTIONS, ids=str)
def test_shapes_and_dtypes_follow_the_spaces(
    observation: spaces.Space[Any],
    obs_shape: tuple[int, ...],
    obs_dtype: torch.dtype,
    action: spaces.Space[Any],
    action_shape: tuple[int, ...],
    action_dtype: torch.dtype,
) -> None:
    buffer = RolloutBuffer(Spec(observation, action), num_envs=2, num_steps=1)
    obs, drawn = np.full((2, *obs_shape), 3), np.full((2, *action_shape), 1)
    zero = np.zeros(2)
    buffer.add(Transition(obs, drawn, zero, obs, zero, zero, zero), everyone(2))
    (rollout,) = buffer.batches()
    assert [tuple(field.shape) for field in rollout] == [
        (1, 2, *shape) for shape in (obs_shape, action_shape, (), obs_shape, (), (), ())
    ]
    assert [field.dtype for field in rollout] == [
        obs_dtype, action_dtype, torch.float32, obs_dtype, torch.bool, torch.bool, torch.float32
    ]  # fmt: skip
    assert (rollout.obs == 3).all()
    assert (rollout.action == 1).all()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "ppo",
            {"num_steps": 10**13},
            r"a rollout of 10,000,000,000,000 transitions x \d+ bytes = .* set num_steps to",
        ),
        ("a2c", {"num_steps": 10**9, "num_envs": 4000}, "a rollout of 4,000,000,000,000 transitions"),
        ("impala", {"num_steps": 10**13}, "a rollout of 10,000,000,000,000 transitions"),
        ("dqn", {"capacity": 10**13}, r"a replay of 10,000,000,000,001 transitions .* set capacity to"),
        ("dqn", {"batch_size": 10**11}, r"a sample of 3,200,000,000,000 transitions .* set batch_size to"),
        ("dqn", {"n_step": 10**10, "capacity": 1}, r"a replay of 10,000,000,001 transitions"),
    ],
)
def test_what_does_not_fit_the_memory_is_refused_by_the_sum(name: str, settings: dict[str, int], message: str) -> None:
    num_envs = settings.pop("num_envs", 1)
    spec = Spec(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
    algo = registry.make(name, spec, registry.load_class(name).Config(**settings), SeedSequence(0))
    with pytest.raises(UserError, match=message):
        algo.make_buffer(spec, num_envs)
