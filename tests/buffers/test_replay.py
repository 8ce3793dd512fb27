"""The replay buffer: a sample is what was added, drawn as often as it should be, at the memory that it should take."""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import count, product
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator

from zoo.buffers import rows as counted
from zoo.buffers.priorities import SumTree
from zoo.buffers.replay import ReplayBuffer
from zoo.errors import UserError
from zoo.protocol import Progress, Segment, Transition
from zoo.registry import load_class
from zoo.spec import Spec
from zoo.storage.state import Unpacker, pack

Array = NDArray[Any]

SPEC = Spec(spaces.Box(-np.inf, np.inf, (2,)), spaces.Discrete(10**9))
PENDULUM = Spec(spaces.Box(-8, 8, (3,)), spaces.Box(-2, 2, (1,)))
ENDS = ((True, False), (False, True), (True, True))


def make(num_envs: int = 1, *, spec: Spec = SPEC, seed: int = 0, **settings: Any) -> ReplayBuffer:
    """A replay that may be sampled from the first transition on; no sample is due by itself."""
    sizes = {"capacity": 100, "batch_size": 64, "train_every": sys.maxsize}
    return ReplayBuffer(spec, num_envs, Generator().manual_seed(seed), **sizes | settings)


class Row(NamedTuple):
    """What was added, as plain data; an observation's first number tells it from all others."""

    obs: int
    next_obs: int
    terminated: bool
    truncated: bool


def stream(
    seed: int,
    num_envs: int,
    num_steps: int,
    *,
    dead: float = 0.0,
    broken: float = 0.0,
    lengths: tuple[int, int] = (1, 7),
) -> Iterator[tuple[Transition, Array, list[tuple[int, Row]], Array]]:
    """Steps of episodes of random lengths and ends: the transition, who is alive, the same as (environment, Row), and
    the environments that do not follow on their step before.

    No observation appears twice but as the successor of one step and the start of the next. What an environment
    says that is not alive is nonsense.
    """
    rng, tags = np.random.default_rng(seed), count(1)
    now = [next(tags) for _ in range(num_envs)]
    left = rng.integers(*lengths, size=num_envs, endpoint=True)
    for _ in range(num_steps):
        alive = rng.random(num_envs) >= dead
        elsewhere = np.flatnonzero(rng.random(num_envs) < broken)
        for i in elsewhere:
            now[i] = next(tags)
        tag, successor = np.full(num_envs, -1), np.full(num_envs, -1)
        flags = np.ones((2, num_envs), np.bool_)
        rows = []
        for i in np.flatnonzero(alive):
            left[i] -= 1
            ended = left[i] == 0
            flags[:, i] = ENDS[rng.integers(3)] if ended else (False, False)
            tag[i], successor[i] = now[i], next(tags)
            now[i] = next(tags) if ended else successor[i]
            left[i] = rng.integers(*lengths, endpoint=True) if ended else left[i]
            rows.append((int(i), Row(int(tag[i]), int(successor[i]), bool(flags[0, i]), bool(flags[1, i]))))
        yield Transition(vectors(tag), tag, tag / 8, vectors(successor), *flags, -tag / 4), alive, rows, elsewhere


def vectors(tag: Array) -> Array:
    return np.stack([tag, -tag], -1).astype(np.float32)


class Filled(NamedTuple):
    """A replay and every transition that it was ever given, environment by environment, oldest first."""

    buffer: ReplayBuffer
    history: list[list[Row]]

    def place(self) -> dict[int, tuple[int, int]]:
        """Observation -> (environment, index in its history)."""
        return {row.obs: (i, k) for i, rows in enumerate(self.history) for k, row in enumerate(rows)}


def fill(buffer: ReplayBuffer, seed: int, num_steps: int, **settings: Any) -> Filled:
    history: list[list[Row]] = [[] for _ in range(buffer.num_envs)]
    for transition, alive, rows, elsewhere in stream(seed, buffer.num_envs, num_steps, **settings):
        buffer.cut(elsewhere)
        for i in elsewhere:
            if history[i] and not history[i][-1].terminated:
                history[i][-1] = history[i][-1]._replace(truncated=True)
        buffer.add(transition, alive)
        for field in transition:
            field[:] = 1  # what a buffer keeps must be its own
        for i, row in rows:
            history[i].append(row)
    return Filled(buffer, history)


def assert_rows(batch: Transition[torch.Tensor], k: int, wanted: list[Row], cut: list[bool]) -> None:
    """Row k of every sample is the wanted transition; `cut` ones also end there, as if truncated."""
    obs, next_obs, terminated, truncated = (np.array(field) for field in zip(*wanted, strict=True))
    np.testing.assert_array_equal(batch.obs[k], vectors(obs))
    np.testing.assert_array_equal(batch.action[k], obs)
    np.testing.assert_array_equal(batch.reward[k], obs / 8)
    np.testing.assert_array_equal(batch.next_obs[k], vectors(next_obs))
    np.testing.assert_array_equal(batch.terminated[k], terminated)
    np.testing.assert_array_equal(batch.truncated[k], truncated | np.array(cut))
    np.testing.assert_array_equal(batch.log_prob[k], -obs / 4)


# What a sample is.

SHAPES = [(1, 1, 50), (1, 20, 15), (1, 20, 300), (2, 20, 47), (3, 31, 100), (8, 64, 99), (5, 3, 40)]
each_fill = pytest.mark.parametrize(("num_envs", "capacity", "num_steps"), SHAPES)


@each_fill
@pytest.mark.parametrize("n_step", [1, 2, 3, 5, 10])
@pytest.mark.parametrize(("dead", "broken", "priority_exponent"), [(0, 0, 0.0), (0.3, 0, 0.0), (0.3, 0.1, 0.6)])
@pytest.mark.parametrize("longest", [1, 7])
def test_segments_are_runs_of_transitions_of_one_episode(
    num_envs: int,
    capacity: int,
    num_steps: int,
    n_step: int,
    dead: float,
    broken: float,
    priority_exponent: float,
    longest: int,
) -> None:
    settings = {"n_step": n_step, "batch_size": 500, "priority_exponent": priority_exponent}
    buffer = make(num_envs, capacity=capacity, **settings)
    filled = fill(buffer, num_envs + num_steps, num_steps, dead=dead, broken=broken, lengths=(1, longest))
    place, batch = filled.place(), buffer.sample()
    assert [field.shape[:2] for field in batch.rows] == [(n_step, 500)] * 7
    going = np.arange(500)
    starts = [place[int(tag)] for tag in batch.obs[:, 0]]
    for k in range(n_step):
        if not len(going):
            break
        rows = [filled.history[starts[j][0]][starts[j][1] + k] for j in going]
        newest = [starts[j][1] + k == len(filled.history[starts[j][0]]) - 1 for j in going]
        part = Transition(*(field[:, going] for field in batch.rows))
        # The newest transition is not the end of its episode, but nothing follows it yet.
        assert_rows(part, k, rows, [last and not row.terminated for last, row in zip(newest, rows, strict=True)])
        goes_on = [not (row.terminated or row.truncated or last) for row, last in zip(rows, newest, strict=True)]
        going = going[goes_on]


@pytest.mark.parametrize("num_steps", range(1, 40))
def test_samples_are_right_at_every_moment_of_two_laps(num_steps: int) -> None:
    filled = fill(make(2, capacity=20, batch_size=200), 3, num_steps)
    place, batch = filled.place(), filled.buffer.sample()
    found = [place[int(tag)] for tag in batch.obs[:, 0]]
    rows = [filled.history[i][k] for i, k in found]
    newest = [k == len(filled.history[i]) - 1 for i, k in found]
    assert_rows(batch.rows, 0, rows, [last and not row.terminated for last, row in zip(newest, rows, strict=True)])


@each_fill
@pytest.mark.parametrize(("dead", "broken"), [(0, 0), (0.3, 0), (0.3, 0.2)])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 7), (1000, 1000)])
@pytest.mark.parametrize("priority_exponent", [0.0, 0.6])
def test_exactly_the_last_transitions_are_kept_however_short_the_episodes(
    num_envs: int,
    capacity: int,
    num_steps: int,
    dead: float,
    broken: float,
    lengths: tuple[int, int],
    priority_exponent: float,
) -> None:
    buffer = make(num_envs, capacity=capacity, batch_size=5000, priority_exponent=priority_exponent)
    filled = fill(buffer, num_envs + num_steps, num_steps, dead=dead, broken=broken, lengths=lengths)
    found = buffer.sample().obs[:, 0].int().tolist()
    kept = max(capacity // num_envs, 1)
    assert set(found) == {row.obs for rows in filled.history for row in rows[-kept:]}


def restored(buffer: ReplayBuffer, **settings: Any) -> tuple[ReplayBuffer, dict[str, torch.Tensor]]:
    """Another replay with the state of `buffer`, and the tensors that it took."""
    tensors: dict[str, torch.Tensor] = {}
    state = json.loads(json.dumps(pack(buffer, "replay", tensors)))
    other = make(buffer.num_envs, seed=99, **settings)
    Unpacker({key: tensor.clone() for key, tensor in tensors.items()}).restore(other, state, "replay")
    return other, tensors


@each_fill
@pytest.mark.parametrize("priority_exponent", [0.0, 0.6])
def test_a_restored_replay_goes_on_as_the_one_that_was_saved(
    num_envs: int, capacity: int, num_steps: int, priority_exponent: float
) -> None:
    settings = {"capacity": capacity, "n_step": 3, "priority_exponent": priority_exponent}
    buffer = make(num_envs, **settings)
    fill(buffer, 1, num_steps, dead=0.2, broken=0.1)
    other, tensors = restored(buffer, **settings)
    # No more is written than the final observations of the rows that are kept.
    everything = buffer._records["terminated"] | buffer._records["truncated"]
    assert len(tensors["replay.finals.obs"]) == (everything & buffer._startable).sum()
    for _ in range(3):
        samples = [(*sample.rows, *sample[1:]) for sample in (buffer.sample(), other.sample())]
        assert all(map(torch.equal, *samples))
        for each in (buffer, other):
            fill(each, 2, 5, dead=0.2, broken=0.1)


def test_final_observations_of_another_shape_are_refused() -> None:
    buffer = make()
    fill(buffer, 1, 50)
    tensors: dict[str, torch.Tensor] = {}
    state = pack(buffer, "replay", tensors)
    for wrong in (tensors["replay.finals.obs"][1:], tensors["replay.finals.obs"].double()):
        with pytest.raises(UserError, match="final observations have shape"):
            Unpacker(tensors | {"replay.finals.obs": wrong}).restore(make(), state, "replay")
    for other in ({"obs": 5}, {"obs": "text"}, {}, None):  # a checkpoint refuses all of these by name
        with pytest.raises((UserError, LookupError, TypeError)):
            Unpacker(tensors).restore(make(), state | {"finals": other}, "replay")


def test_image_observations_keep_their_bytes() -> None:
    space = spaces.Box(0, 255, (10, 10, 3), np.uint8)
    buffer = make(spec=Spec(space, spaces.Discrete(2)), batch_size=8)
    images = np.random.default_rng(0).integers(256, size=(6, 1, 10, 10, 3), dtype=np.uint8)
    zero, no = np.zeros(1), np.zeros(1, np.bool_)
    for k in range(5):
        buffer.add(Transition(images[k], np.array([0]), zero + k, images[k + 1], no, no, zero), ~no)
    batch = buffer.sample()
    assert batch.rows.obs.dtype == batch.rows.next_obs.dtype == torch.uint8
    for k, obs, next_obs in zip(batch.rows.reward[0].int(), batch.obs, batch.rows.next_obs[0], strict=True):
        np.testing.assert_array_equal(obs, images[k, 0])
        np.testing.assert_array_equal(next_obs, images[k + 1, 0])


def test_samples_are_copies() -> None:
    filled = fill(make(batch_size=500), 0, 50)
    before = filled.buffer.sample()
    for field in (*before.rows, *before[1:]):
        field.zero_()
    after = filled.buffer.sample()
    assert (after.obs[:, 0] > 0).all()
    assert (after.weight == 1).all()


# How often it is drawn.


def frequencies(buffer: ReplayBuffer, draws: int) -> dict[int, int]:
    """How often each transition, by its observation, starts a sample."""
    tags = torch.cat([buffer.sample().obs[:, 0].clone() for _ in range(draws // buffer.batch_size)])
    return dict(zip(*(each.tolist() for each in tags.int().unique(return_counts=True)), strict=True))


def excess(counts: Array, expected: Array) -> float:
    """χ² of counts, in its own standard deviations above its mean under the null hypothesis."""
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    degrees = len(counts) - 1
    return (chi_square - degrees) / np.sqrt(2 * degrees)


@pytest.mark.parametrize(("num_envs", "num_steps"), [(1, 30), (1, 300), (4, 20), (4, 200)])
def test_every_transition_is_equally_likely(num_envs: int, num_steps: int) -> None:
    filled = fill(make(num_envs, capacity=80, batch_size=500), 5, num_steps, dead=0.2)
    counts = np.array(list(frequencies(filled.buffer, 60_000).values()))
    assert len(counts) > 15
    expected = np.full(len(counts), counts.sum() / len(counts))
    assert abs(excess(counts, expected)) < 5
    # Every other transition a tenth more often than its neighbours would be noticed.
    skewed = expected * np.where(np.arange(len(counts)) % 2, 1.05, 0.95)
    assert excess(counts, skewed * counts.sum() / skewed.sum()) > 5


def prioritized(alpha: float, **settings: Any) -> tuple[Filled, dict[int, float]]:
    """A replay whose every transition has an error of its own; the errors by observation."""
    buffer = make(3, capacity=60, batch_size=500, priority_exponent=alpha, **settings)
    filled = fill(buffer, 6, 150, dead=0.2)
    errors: dict[int, float] = {}
    rng = np.random.default_rng(7)
    for _ in range(20):
        batch = buffer.sample()
        tags = batch.obs[:, 0].int().tolist()
        for tag in tags:
            errors.setdefault(tag, float(rng.choice([-1, 1]) * rng.uniform(0.1, 2.0)))
        buffer.learned(batch._replace(error=torch.tensor([errors[tag] for tag in tags])))
    return filled, errors


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_prioritized_sampling_follows_the_errors(alpha: float) -> None:
    filled, errors = prioritized(alpha)
    found = frequencies(filled.buffer, 100_000)
    assert found.keys() == errors.keys()
    counts = np.array([found[tag] for tag in errors])
    share = np.abs(np.array(list(errors.values()))) ** alpha
    # Each sample takes one draw of each equal share, so counts vary less than those of independent draws.
    assert excess(counts, counts.sum() * share / share.sum()) < 5
    assert excess(counts, np.full(len(counts), counts.mean())) > 50


def importance(errors: dict[int, float], batch: Segment, alpha: float, beta: float) -> Array:
    """(N P(i))^-β over its maximum in the batch, Schaul et al. 2016, section 3.4."""
    share = np.abs(np.array(list(errors.values()))) ** alpha
    probability = dict(zip(errors, share / share.sum(), strict=True))
    weight = np.array([(len(errors) * probability[int(tag)]) ** -beta for tag in batch.obs[:, 0]])
    return weight / weight.max()


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_weights_undo_the_bias(alpha: float, beta: float) -> None:
    filled, errors = prioritized(alpha)
    batch = filled.buffer.sample()
    np.testing.assert_allclose(batch.weight**beta, importance(errors, batch, alpha, beta), rtol=1e-4)


def test_uniform_samples_all_weigh_one() -> None:
    assert (fill(make(), 0, 50).buffer.sample().weight == 1).all()
    for beta in (0.0, 0.4, 1 / 3, 1.0):  # in D3QN's loss, too, to the last bit
        assert (torch.ones(100) ** torch.scalar_tensor(beta, dtype=torch.float64) == 1).all()


@pytest.mark.parametrize(
    ("settings", "step", "beta"),
    [
        ({}, 0, 0.4),
        ({}, 500, 0.7),
        ({}, 1000, 1.0),
        ({"importance_exponent": 0.5, "importance_exponent_end": 0.5}, 900, 0.5),
        ({"importance_exponent": 0.2, "importance_exponent_end": 0.6}, 250, 0.3),
    ],
)
def test_d3qn_anneals_the_correction_over_the_run(settings: dict[str, float], step: int, beta: float) -> None:
    filled, errors = prioritized(0.6)
    batch = filled.buffer.sample()
    d3qn = load_class("d3qn")
    spec = Spec(SPEC.observation_space, spaces.Discrete(2))
    config = d3qn.Config(hidden=(8,), gamma=0.0, loss="mse", learning_rate=1e-8, **settings)
    algo = d3qn(spec, config, Generator().manual_seed(0))
    weight, other = (importance(errors, batch, 0.6, each) for each in (beta, beta - 0.1))
    rows = batch.rows
    rows = rows._replace(action=rows.action % 2, obs=rows.obs / 1000, next_obs=rows.next_obs / 1000)
    batch = batch._replace(rows=rows)
    with torch.no_grad():
        q = algo.q(batch.obs).gather(-1, batch.action[:, None])[:, 0].double().numpy()
    squares = (rows.reward[0].double().numpy() - q) ** 2
    loss = algo.update(batch, Progress(step, 1000))["q_loss"].item()
    assert loss == pytest.approx((weight * squares).mean(), rel=1e-4)
    # A tenth of β is noticed.
    assert loss != pytest.approx((other * squares).mean(), rel=1e-3)


def test_priorities_reach_the_buffer_that_a_sample_came_from() -> None:
    d3qn = load_class("d3qn")
    spec = Spec(SPEC.observation_space, spaces.Discrete(2))
    config = d3qn.Config(hidden=(8,), capacity=60, batch_size=64, learning_starts=0, double=False)
    algo = d3qn(spec, config, Generator().manual_seed(0))
    first, second = (algo.make_buffer(spec, 2) for _ in range(2))
    no = np.zeros(2, np.bool_)
    for buffer, step in product((first, second), range(30)):
        tag = np.array([step, -step])
        buffer.add(Transition(vectors(tag), tag % 2, tag / 8, vectors(tag + 1), no, no, tag / 8), ~no)
    before = [buffer._priorities.sums.copy() for buffer in (first, second)]
    batch = next(first.batches())
    with torch.no_grad():
        q = algo.q(batch.obs).gather(-1, batch.action[:, None])[:, 0]
        error = batch.rows.reward[0] + config.gamma * algo.target_q(batch.rows.next_obs[0]).amax(-1) - q
    algo.update(batch, Progress(1, 10))
    first.learned(batch)
    expected = before[0][-first._priorities.sums.size // 2 :].copy()
    expected[batch.slot.numpy()] = (error.abs().double().numpy() + 1e-6) ** 0.6
    np.testing.assert_allclose(first._priorities.sums[-len(expected) :], expected, rtol=1e-4)
    np.testing.assert_array_equal(second._priorities.sums, before[1])


@pytest.mark.parametrize("written", [slice(0), slice(3), slice(7)])  # of eight
def test_an_update_that_writes_no_errors_is_named(written: slice) -> None:
    buffer = fill(make(2, capacity=60, batch_size=8, priority_exponent=0.6), 5, 30).buffer
    for _ in range(3):
        batch = buffer.sample()
        batch.error[:] = torch.tensor([0.0, -1, np.nan, np.inf, -np.inf, 1, 2, 3])  # a training that diverges writes it
        buffer.learned(batch)
    batch = buffer.sample()
    batch.error[written] = 0.5
    before = buffer._priorities.sums.copy()
    with pytest.raises(UserError, match=r"wrote no TD errors into batch\.error"):
        buffer.learned(batch)
    np.testing.assert_array_equal(buffer._priorities.sums, before)


def test_no_errors_are_asked_for_where_sampling_is_uniform() -> None:
    buffer = fill(make(2, capacity=60, batch_size=8), 5, 30).buffer
    buffer.learned(buffer.sample())


def test_a_new_transition_has_the_largest_priority_so_far() -> None:
    filled, errors = prioritized(1.0)
    before = sum(map(abs, errors.values()))
    largest = max(map(abs, errors.values()))
    assert largest > 1
    # Overwrites some, but adds at least one; a step of one environment whose episode goes on.
    tag = np.array([10**6] * 3)
    alive = np.array([True, False, False])
    no = np.zeros(3, np.bool_)
    filled.buffer.add(Transition(vectors(tag), tag, tag / 8, vectors(tag + 1), no, no, -tag / 4), alive)
    found = frequencies(filled.buffer, 50_000)
    share = found[10**6] / 50_000
    # At most two of the sixty were forgotten.
    assert largest / (before + largest) * 0.9 < share < largest / (before - largest) * 1.1


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100, 1000])
@pytest.mark.parametrize("exponent", [0.6, 1.0])
def test_sum_tree_is_a_cumulative_sum(size: int, exponent: float) -> None:
    rng = np.random.default_rng(size)
    tree, naive = SumTree(size, exponent), np.zeros(size)
    for _ in range(10):
        slots = rng.integers(size, size=max(size // 2, 1))
        error = rng.uniform(0, 3, size)
        tree.set(slots, error[slots])
        naive[slots] = (error[slots] + 1e-6) ** exponent
        gone = rng.integers(size, size=size // 5)
        tree.remove(gone)
        naive[gone] = 0
    slots, share = tree.draw(np.random.default_rng(1), 500)
    mass = (np.arange(500) + np.random.default_rng(1).random(500)) / 500 * naive.sum()
    np.testing.assert_array_equal(slots, np.searchsorted(naive.cumsum(), mass, side="right"))
    np.testing.assert_allclose(share, naive[slots] / naive.sum(), rtol=1e-9)


def test_sum_tree_gives_new_slots_the_largest_priority_ever() -> None:
    tree = SumTree(4, 1.0)
    tree.add(np.array([0]))
    tree.set(np.array([0]), np.array([7.0]))
    tree.set(np.array([0]), np.array([1.0]))
    tree.add(np.array([1]))
    slots, share = tree.draw(np.random.default_rng(0), 800)
    np.testing.assert_allclose(share, np.where(slots == 1, 7 / 8, 1 / 8), rtol=1e-5)
    assert np.bincount(slots).tolist() == [100, 700]


# What it costs.


def size_of(buffer: ReplayBuffer) -> int:
    """Bytes of all arrays within; views have none of their own."""
    owners = {id(array): array.nbytes for array in map(owner_of, arrays_in(buffer))}
    return sum(owners.values())


def arrays_in(value: Any) -> list[Array]:
    if isinstance(value, np.ndarray):
        return [value]
    parts: Iterable[Any] = vars(value).values() if isinstance(value, ReplayBuffer | SumTree) else ()
    return [array for part in (value if isinstance(value, tuple) else parts) for array in arrays_in(part)]


def owner_of(array: Array) -> Array:
    return owner_of(array.base) if isinstance(array.base, np.ndarray) else array


@pytest.mark.parametrize("num_envs", [1, 8])
def test_a_million_transitions_cost_little_more_than_their_fields(num_envs: int) -> None:
    buffer = make(num_envs, spec=PENDULUM, capacity=1_000_000)
    # obs, action, reward, next_obs as float32, two flags, log_prob as float32
    raw = 1_000_000 * (12 + 4 + 4 + 12 + 1 + 1 + 4)
    assert raw / 2 < size_of(buffer) <= 1.2 * raw


@pytest.mark.parametrize(("longest", "copies"), [(200, 1.0), (1, 2.0)])
def test_images_take_memory_once_and_again_where_episodes_end(longest: int, copies: float) -> None:
    shape, capacity = (84, 84, 4), 2000
    spec = Spec(spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(4))
    process = psutil.Process()
    before = process.memory_info().rss
    buffer = make(spec=spec, capacity=capacity, batch_size=1)
    image, zero, alive = np.full((1, *shape), 7, np.uint8), np.zeros(1), np.ones(1, np.bool_)
    for step in range(capacity):
        buffer.add(Transition(image, zero, zero, image, np.array([step % longest == longest - 1]), ~alive, zero), alive)
    taken = process.memory_info().rss - before
    expected = copies * capacity * np.prod(shape)
    assert 0.9 * expected < taken < 1.1 * expected + 2**21


def pretend_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(counted.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))


def test_a_replay_larger_than_memory_is_refused_with_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_free(monkeypatch, 2**30)
    with pytest.raises(UserError) as refusal:
        make(spec=PENDULUM, capacity=100_000_000)
    message = str(refusal.value)
    # 12 + 4 + 4 + 1 + 1 + 4 bytes of fields, one to tell whether a sample may start there, one that is not used, and 12
    # of a final observation.
    assert "100,000,001 transitions x 40 bytes = 3.7 GiB" in message
    assert "1.0 GiB of free memory" in message
    advised = int(message.split("capacity to ")[1].split(" ")[0].replace(",", ""))
    assert advised == pytest.approx(0.8 * 2**30 / 40, abs=1)
    make(spec=PENDULUM, capacity=advised)


def test_memory_is_checked_before_any_is_taken() -> None:
    # Forty petabytes: numpy itself would raise MemoryError, which is no UserError.
    with pytest.raises(UserError, match="free memory"):
        make(spec=PENDULUM, capacity=10**15)


@pytest.mark.parametrize("priority_exponent", [0.0, 0.6])
def test_what_is_accepted_fits(priority_exponent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"spec": PENDULUM, "capacity": 100_000, "priority_exponent": priority_exponent}
    needed = size_of(make(**settings))
    pretend_free(monkeypatch, int(0.9 * needed))
    with pytest.raises(UserError, match="free memory"):
        make(**settings)


# When learning is due.


@pytest.mark.parametrize("num_envs", [1, 3, 8])
@pytest.mark.parametrize("train_every", [1, 4, 5, 16])
@pytest.mark.parametrize("num_updates", [1, 3])
@pytest.mark.parametrize(("learning_starts", "batch_size"), [(0, 1), (0, 16), (7, 2), (20, 4), (1000, 1)])
def test_samples_are_due_at_every_multiple_of_train_every(
    num_envs: int, train_every: int, num_updates: int, learning_starts: int, batch_size: int
) -> None:
    buffer = make(
        num_envs,
        train_every=train_every,
        num_updates=num_updates,
        learning_starts=learning_starts,
        batch_size=batch_size,
    )
    seen, due, step = [], [], 0
    for transition, alive, rows, _ in stream(1, num_envs, 60, dead=0.2):
        steps = range(step + 1, step + len(rows) + 1)
        step += len(rows)
        multiples = sum(each % train_every == 0 for each in steps)
        due.append(num_updates * multiples if step > learning_starts else 0)
        buffer.add(transition, alive)
        batches = list(buffer.batches())
        assert all(batch.rows.obs.shape == (1, batch_size, 2) for batch in batches)
        seen.append(len(batches))
        assert not list(buffer.batches())
    assert seen == due
    assert any(due) == (learning_starts < 1000)


def test_a_replay_never_keeps_a_run_waiting() -> None:
    assert not fill(make(train_every=7), 0, 10).buffer.pending


def test_the_same_generator_draws_the_same_samples() -> None:
    first, second, other = (fill(make(seed=seed), 0, 80).buffer.sample() for seed in (0, 0, 1))
    assert torch.equal(first.slot, second.slot)
    assert not torch.equal(first.slot, other.slot)
