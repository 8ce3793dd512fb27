"""A replay that keeps each frame once: what it samples is what a replay of whole stacks samples."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Generator

import zoo
from zoo.buffers.replay import ReplayBuffer
from zoo.buffers.segments import SegmentBuffer
from zoo.errors import UserError
from zoo.protocol import Segment, Transition
from zoo.spaces import Stacked
from zoo.spec import Spec
from zoo.storage.state import Unpacker, pack

Array = NDArray[Any]
FRAME = spaces.Box(-np.inf, np.inf, (2,))
ACTIONS = spaces.Discrete(10**9)
ENDS = ((True, False), (False, True), (True, True))


def specs(frames: int) -> tuple[Spec, Spec]:
    """Of stacks whose frames are kept once, and of the same stacks as an observation like any other."""
    stacked = Stacked(FRAME, frames)
    return Spec(stacked, ACTIONS), Spec(spaces.Box(stacked.low, stacked.high), ACTIONS)


def make(spec: Spec, num_envs: int, **settings: Any) -> ReplayBuffer:
    sizes = {"capacity": 40, "batch_size": 200, "train_every": sys.maxsize}
    return ReplayBuffer(spec, num_envs, Generator().manual_seed(0), **sizes | settings)


def counted(
    seed: int, num_envs: int, num_steps: int, frames: int, *, dead: float = 0.0, broken: float = 0.0, pad: bool = True
) -> Iterator[tuple[Transition[Array], Array, Array]]:
    """Steps of environments that count: transitions, who is alive, and who starts anew without having ended.

    No frame appears in two places. Without `pad` an episode begins with frames of zeros before its first.
    """
    rng, count = np.random.default_rng(seed), 0

    def frame() -> Array:
        nonlocal count
        count += 1
        return np.array([count, -count], np.float32)

    def begin() -> Array:
        first = frame()
        return np.stack([first if pad or k == frames - 1 else 0 * first for k in range(frames)])

    now = np.stack([begin() for _ in range(num_envs)])
    for _ in range(num_steps):
        alive, elsewhere = rng.random(num_envs) >= dead, rng.random(num_envs) < broken
        for i in np.flatnonzero(elsewhere):
            now[i] = begin()
        obs, flags = now.copy(), np.zeros((2, num_envs), np.bool_)
        following = np.full_like(now, -7)
        for i in np.flatnonzero(alive):
            following[i] = np.concatenate([now[i, 1:], frame()[None]])
            if rng.random() < 0.2:
                flags[:, i] = ENDS[rng.integers(3)]
            now[i] = begin() if flags[:, i].any() else following[i]
        tag = obs[:, -1, 0].astype(np.int64)
        yield Transition(obs, tag, tag / 8, following, *flags, -tag / 4), alive, np.flatnonzero(elsewhere)


def fill(buffers: list[ReplayBuffer], *arguments: Any, **settings: Any) -> None:
    for transition, alive, elsewhere in counted(*arguments, **settings):
        for buffer in buffers:
            buffer.cut(elsewhere)
            buffer.add(transition, alive)


def assert_same(once: Segment, whole: Segment) -> None:
    for name, mine, theirs in zip(Transition._fields, once.rows, whole.rows, strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), name
        assert torch.equal(mine, theirs), name
    assert torch.equal(once.weight, whole.weight)


def aligned(once: ReplayBuffer, whole: ReplayBuffer) -> None:
    """Make `once` draw the transitions that `whole` draws: the ring of frames has a few more rows, so slots differ."""
    _, place = np.unique(once._records["action"][once._startable], return_index=True)
    slots = np.flatnonzero(once._startable)[place]
    tags = once._records["action"][slots]

    def draw(count: int) -> tuple[Array, Array | float]:
        drawn, weight = whole._draw(count)
        drawn_tags = whole._records["action"][drawn]
        found = np.searchsorted(tags, drawn_tags)
        assert (tags[np.minimum(found, len(tags) - 1)] == drawn_tags).all(), "the same transitions are kept"
        # The two have one generator, and draw the same twice.
        return slots[found], weight

    whole.rng = np.random.default_rng(5)
    once._draw = draw  # type: ignore[method-assign]


def pair_of_samples(once: ReplayBuffer, whole: ReplayBuffer) -> tuple[Segment, Segment]:
    aligned(once, whole)
    mine = once.sample()
    whole.rng = np.random.default_rng(5)
    return mine, whole.sample()


RINGS = [(1, 1, 50), (1, 20, 15), (1, 20, 300), (2, 20, 47), (3, 31, 100), (8, 64, 99), (5, 3, 40)]


@pytest.mark.parametrize(("num_envs", "capacity", "num_steps"), RINGS)
@pytest.mark.parametrize("frames", [2, 4, 7])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(("dead", "broken"), [(0.0, 0.0), (0.3, 0.1)])
@pytest.mark.parametrize("priority_exponent", [0.0, 0.6])
def test_samples_are_those_of_whole_stacks(
    num_envs: int,
    capacity: int,
    num_steps: int,
    frames: int,
    n_step: int,
    dead: float,
    broken: float,
    priority_exponent: float,
) -> None:
    settings = {"capacity": capacity, "n_step": n_step, "priority_exponent": priority_exponent}
    once, whole = (make(spec, num_envs, **settings) for spec in specs(frames))
    fill([once, whole], num_steps, num_envs, num_steps, frames, dead=dead, broken=broken)
    assert_same(*pair_of_samples(once, whole))


@pytest.mark.parametrize("num_steps", range(1, 60))
def test_so_they_are_at_every_moment_of_two_laps(num_steps: int) -> None:
    once, whole = (make(spec, 2, n_step=2) for spec in specs(4))
    fill([once, whole], 3, 2, num_steps, 4)
    kept = [set(buffer._records["action"][buffer._startable]) for buffer in (once, whole)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2 * min(num_steps, 20)
    assert_same(*pair_of_samples(once, whole))


@pytest.mark.parametrize("priority_exponent", [0.0, 0.6])
def test_until_the_ring_is_full_the_same_seed_draws_the_same_slots(priority_exponent: float) -> None:
    settings = {"capacity": 300, "priority_exponent": priority_exponent, "n_step": 3}
    once, whole = (make(spec, 3, **settings) for spec in specs(4))
    fill([once, whole], 1, 3, 90, 4, broken=0.05)
    for _ in range(3):
        samples = once.sample(), whole.sample()
        assert torch.equal(samples[0].slot, samples[1].slot)
        assert_same(*samples)
        for buffer, sample in zip((once, whole), samples, strict=True):
            sample.error[:] = sample.rows.reward[0] / 7  # of d3qn, and so the next priorities
            buffer.learned(sample)


def test_control_what_stands_before_an_episode_is_seen() -> None:
    once, whole = (make(spec, 2) for spec in specs(4))
    fill([once, whole], 3, 2, 50, 4)
    once.frames_around = lambda slots: np.stack([once._after(slots, k) for k in range(-3, 2)], -1)  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="obs"):
        assert_same(*pair_of_samples(once, whole))


def test_control_another_padding_is_seen() -> None:
    once, whole = (make(spec, 2) for spec in specs(4))
    fill([once, whole], 3, 2, 50, 4, pad=False)
    with pytest.raises(AssertionError, match="obs"):
        assert_same(*pair_of_samples(once, whole))


def restored(buffer: ReplayBuffer, spec: Spec, **settings: Any) -> ReplayBuffer:
    tensors: dict[str, torch.Tensor] = {}
    state = pack(buffer, "replay", tensors)
    other = make(spec, buffer.num_envs, **settings)
    Unpacker({key: tensor.clone() for key, tensor in tensors.items()}).restore(other, state, "replay")
    return other


@pytest.mark.parametrize(("num_envs", "capacity", "num_steps"), RINGS)
def test_a_restored_replay_goes_on_as_the_one_that_was_saved(num_envs: int, capacity: int, num_steps: int) -> None:
    spec, _ = specs(4)
    settings = {"capacity": capacity, "n_step": 3}
    buffer = make(spec, num_envs, **settings)
    fill([buffer], 1, num_envs, num_steps, 4, dead=0.2, broken=0.1)
    other = restored(buffer, spec, **settings)
    for seed in range(3):
        mine, theirs = buffer.sample(), other.sample()
        assert torch.equal(mine.slot, theirs.slot)
        assert_same(mine, theirs)
        fill([buffer, other], seed, num_envs, 5, 4, dead=0.2, broken=0.1)


def test_replayed_segments_are_those_of_whole_stacks() -> None:
    buffers = [
        SegmentBuffer(spec, 2, 5, Generator().manual_seed(0), replayed=2, capacity=400) for spec in specs(4)
    ]  # room for all steps, so that both draw alike
    checked = 0
    for transition, alive, elsewhere in counted(4, 2, 100, 4, broken=0.05):
        for buffer in buffers:
            buffer.cut(elsewhere)
            buffer.add(transition, alive)
        for mine, theirs in zip(buffers[0].batches(), buffers[1].batches(), strict=True):
            assert all(map(torch.equal, mine, theirs))
            checked += 1
    assert checked >= 30


def test_frames_are_kept_once_and_again_only_where_episodes_end() -> None:
    frame, capacity, length = (84, 84), 10_000, 500
    spec = Spec(Stacked(spaces.Box(0, 255, frame, np.uint8), 4), spaces.Discrete(4))
    process = psutil.Process()
    before = process.memory_info().rss
    buffer = make(spec, 1, capacity=capacity, batch_size=1)
    image, zero, alive = np.full((1, 4, *frame), 7, np.uint8), np.zeros(1), np.ones(1, np.bool_)
    for step in range(capacity):
        buffer.add(Transition(image, zero, zero, image, np.array([step % length == length - 1]), ~alive, zero), alive)
    taken = process.memory_info().rss - before
    stacks = 4 * capacity * np.prod(frame)
    assert 0.25 * stacks < taken < 0.26 * stacks + 2**21


def test_the_memory_that_is_asked_for_is_that_of_frames() -> None:
    frame = spaces.Box(0, 255, (84, 84), np.uint8)
    whole = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    records = [make(Spec(space, ACTIONS), 1)._records.itemsize for space in (Stacked(frame, 4), whole)]
    assert records[0] < 84 * 84 + 40
    assert records[1] > 4 * 84 * 84


LEARNERS = {
    "dqn": {"n_step": 3, "capacity": 2000},
    "d3qn": {"capacity": 2000, "num_envs": 2},
    "impala_replay": {"num_steps": 10, "num_envs": 2},
    "sac": {"capacity": 2000, "hidden": (16,), "batch_size": 16, "train_every": 4, "num_updates": 1},
}


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_what_is_learned_is_what_whole_stacks_teach(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = "Pendulum-v1" if algorithm == "sac" else "CartPole-v1"
    small = {"total_steps": 400, "learning_starts": 100} if algorithm != "impala_replay" else {"total_steps": 400}
    settings = {**small, **LEARNERS[algorithm], "frame_stack": 3, "seed": 0, "eval_episodes": 0, "eval_every": 0}
    once = zoo.train(algorithm, env, **settings)
    assert (once.spec.num_frames, once.spec.obs_shape[0]) == (3, 3)
    monkeypatch.setattr("zoo.envs.task.Stacked", lambda space, n: batch_space(space, n))
    whole = zoo.train(algorithm, env, **settings)
    assert whole.spec.num_frames == 1
    for mine, theirs in zip(once.weights().values(), whole.weights().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_whitened_stacks_are_kept_whole() -> None:
    settings = {"total_steps": 200, "learning_starts": 100, "frame_stack": 3, "seed": 0, "train_every": 16}
    settings |= {"normalize_obs": True}
    agent = zoo.train("dqn", "CartPole-v1", **settings, eval_episodes=0, eval_every=0)
    assert agent.spec.num_frames == 1  # a frame is whitened anew in each stack, by the statistics of that step
    zoo.evaluate(agent, "CartPole-v1", episodes=2)


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_run_of_stacks_is_resumed_evaluated_and_loaded(engine: str, tmp_path: Path) -> None:
    settings = {"learning_starts": 100, "frame_stack": 4, "seed": 0, "eval_episodes": 3, "eval_every": 0}
    settings |= {"engine": engine, "log_every": 100, "train_every": 16, "num_updates": 2}
    zoo.train("dqn", "CartPole-v1", total_steps=300, **settings, out=tmp_path / "run", checkpoint_every=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of another budget, and of actors that start new episodes
        resumed = zoo.resume(tmp_path / "run", total_steps=500)
    agent = zoo.load(tmp_path / "run")
    assert agent.spec.observation_space == resumed.agent.spec.observation_space
    assert isinstance(agent.spec.observation_space, Stacked)
    assert agent.spec.num_frames == 4
    assert resumed.evaluation is not None
    # Where there is no run's folder to tell of stacks, the agent does.
    assert zoo.evaluate(agent, "CartPole-v1", episodes=3).returns.tolist() == resumed.evaluation.returns.tolist()
    stack = np.zeros((4, 4), np.float32)
    assert agent.predict(stack)[0].shape == ()
    assert agent.predict(stack[None])[0].shape == (1,)
    with pytest.raises(UserError, match=r"shape \(4,\); expected \(4, 4\)"):
        agent.predict(stack[0])
