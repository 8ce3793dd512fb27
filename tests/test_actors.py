"""Actors elsewhere: what the data axis allows, what is learned from, and what happens when a process dies."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import gymnasium as gym
import numpy as np
import psutil
import pytest
import torch
from numpy.random import SeedSequence

import zoo
from zoo import registry
from zoo.actors import Processes, Remote, load_weights, weights_of
from zoo.algos.base import Progress
from zoo.buffers import SegmentBuffer, Transition
from zoo.errors import ActorError, UserError
from zoo.runs import _inline, _remote, prepare
from zoo.spec import Spec
from zoo.taxonomy import Data

SPEC = Spec(gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2))
SMALL = {"total_steps": 200, "num_envs": 2, "num_steps": 5, "seed": 0, "eval_every": 0, "eval_episodes": 0}


def remote(algorithm: str, **settings: object) -> Remote:
    overrides = SMALL | {"engine": "processes", "actors": 2} | settings
    prepared = prepare(algorithm, "CartPole-v1", overrides, source="argument")
    _, source, _, _ = _remote(prepared, "CartPole-v1", SeedSequence(0), SeedSequence(1))
    return source


def rows(*values: float) -> Transition:
    column = np.array(values, np.float32)
    flags = np.zeros(len(values), np.bool_)
    return Transition(column[:, None], flags.astype(np.int64), column, column[:, None] + 1, flags, flags, column)


@pytest.mark.parametrize("name", sorted(registry.load().algorithms))
def test_only_off_policy_entries_may_lag(name: str) -> None:
    cls = registry.load_class(name)
    env = "CartPole-v1" if gym.spaces.Discrete in cls.spaces else "Pendulum-v1"
    if cls.cell.data is Data.OFF:
        assert prepare(name, env, {"lag": 4}, source="argument").run.lag == 4
    else:
        with pytest.raises(UserError, match="on-policy"):
            prepare(name, env, {"lag": 4}, source="argument")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"actors": 2}, "need --engine"),
        ({"engine": "processes", "lag": 2}, "is for --engine inline"),
        ({"engine": "processes", "normalize_obs": True}, "needs --engine inline"),
    ],
)
def test_wrong_combinations_are_refused_with_the_reason(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        prepare("impala", "CartPole-v1", settings, source="argument")
    with pytest.raises(UserError, match="makes environments elsewhere"):
        prepare("impala", gym.make("CartPole-v1"), {"engine": "processes"}, source="argument")


def test_a_lagging_copy_acts_with_old_weights_until_it_is_refreshed() -> None:
    prepared = prepare("impala", "CartPole-v1", SMALL | {"lag": 3}, source="argument")
    algo, source, _ = _inline(prepared, "CartPole-v1", SeedSequence(0), SeedSequence(1))
    before = weights_of(algo)
    torch.testing.assert_close(weights_of(source.actor), before, rtol=0, atol=0)
    load_weights(algo, before + 1)
    for _ in range(2):
        source.learned()
        torch.testing.assert_close(weights_of(source.actor), before, rtol=0, atol=0)
    source.learned()
    torch.testing.assert_close(weights_of(source.actor), before + 1, rtol=0, atol=0)
    source.close()


def test_segments_of_fast_columns_do_not_wait_for_slow_ones() -> None:
    buffer = SegmentBuffer(SPEC, 2, 2, torch.Generator())
    assert buffer.pending
    buffer.add(rows(1, 10), np.array([True, False]))
    assert not list(buffer.batches())
    buffer.add(rows(2, 20), np.array([True, True]))
    (batch,) = buffer.batches()
    assert batch.reward.tolist() == [[1], [2]]
    assert not buffer.pending
    buffer.add(rows(3, 30), np.array([True, True]))
    (batch,) = buffer.batches()
    assert batch.reward.tolist() == [[20], [30]]


def test_replayed_segments_follow_each_fresh_one() -> None:
    buffer = SegmentBuffer(SPEC, 2, 3, torch.Generator(), replayed=2, capacity=50)
    seen = []
    for t in range(6):
        buffer.add(rows(t, 100 + t), np.ones(2, np.bool_))
        seen.append([batch.reward.shape for batch in buffer.batches()])
    assert seen == [[], [], [(3, 2)] * 3, [], [], [(3, 2)] * 3]


def test_on_policy_actors_are_waited_for_and_never_lag() -> None:
    source = remote("a2c")
    try:
        for update in range(3):
            for step in range(5):
                taken = source.step(Progress(step, 100))
                assert taken.alive.all()
                assert len(taken.alive) == 4  # two actors with two environments
            source.learned()
            assert source.metrics()["lag"] == 0, update
    finally:
        source.close()


def test_off_policy_segments_come_from_one_actor_each_and_their_lag_is_counted() -> None:
    source = remote("impala")
    try:
        lags = []
        for _ in range(30):
            for _ in range(5):
                alive = source.step(Progress(0, 100)).alive
                assert alive.tolist() in ([True, True, False, False], [False, False, True, True])
            if not lags:  # a segment asked for ahead is complete before the first update, so it must lag behind it
                wait(list(source.backend.pipes.values()), 30)  # type: ignore[attr-defined]
            source.learned()
            lags.append(source.metrics()["lag"])
        assert min(lags) >= 0
        assert max(lags) > 0  # segments that were under way while the learner made updates
    finally:
        source.close()


def kill_again_and_again(source: Remote, backend: Processes) -> None:
    for _ in range(8):
        source.step(Progress(0, 100))
        backend.processes[0].kill()
        backend.processes[0].join()
        for _ in range(40):
            source.step(Progress(0, 100))


def test_a_killed_actor_is_replaced_a_bounded_number_of_times() -> None:
    source = remote("impala", actors=1)
    backend = source.backend
    assert isinstance(backend, Processes)
    try:
        with pytest.raises(ActorError, match="actor 0 died"):
            kill_again_and_again(source, backend)
        assert source.deaths == [4]
    finally:
        source.close()


def test_an_error_in_an_actor_reaches_the_learner_as_text() -> None:
    source = remote("impala", actors=1)
    backend = source.backend
    assert isinstance(backend, Processes)
    try:
        source.job = replace(source.job, env="NoSuchEnv-v0")
        with pytest.raises(ActorError, match=r"actor 0 failed: .*NoSuchEnv"):
            source.step(Progress(0, 100))
    finally:
        source.close()


SCRIPT = """
import signal

import zoo

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
if __name__ == "__main__":
    print("start", flush=True)
    zoo.train("impala", "CartPole-v1", seed=0, engine="processes", actors=2, num_envs=2, total_steps=10**8)
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_no_actor_outlives_its_learner(stop: signal.Signals, tmp_path: "os.PathLike[str]") -> None:
    script = os.path.join(tmp_path, "script.py")
    with open(script, "w") as file:
        file.write(SCRIPT)
    learner = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        process = psutil.Process(learner.pid)
        deadline = time.monotonic() + 60
        while len(process.children()) < 3 and time.monotonic() < deadline:  # two actors and their resource tracker
            time.sleep(0.1)
        children = process.children()
        time.sleep(3)
        learner.send_signal(stop)
        learner.wait(30)
    finally:
        learner.kill()
        learner.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert len(children) >= 2
    assert not alive


def test_processes_train_as_inline_does() -> None:
    agent = zoo.train("a2c", "CartPole-v1", **(SMALL | {"engine": "processes", "actors": 2}))  # type: ignore[arg-type]
    again = zoo.train("a2c", "CartPole-v1", **(SMALL | {"engine": "processes", "actors": 2}))  # type: ignore[arg-type]
    # On-policy actors are waited for in a fixed order, so that even several processes give the same numbers.
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=0, atol=0)


def test_the_same_actors_run_on_ray() -> None:
    pytest.importorskip("ray")
    for name in ("a2c", "impala"):
        settings = SMALL | {"engine": "ray", "actors": 2}
        agent = zoo.train(name, "CartPole-v1", **settings)  # type: ignore[arg-type]
        assert all(torch.isfinite(value).all() for value in agent.state_dict().values())


def test_a_script_without_a_main_guard_is_told(tmp_path: Path) -> None:
    """Its actors import it, and train, and start actors."""
    script = tmp_path / "script.py"
    script.write_text('import zoo\nzoo.train("impala", "CartPole-v1", engine="processes", total_steps=100)\n')
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode
    assert "train under `if __name__ == '__main__':`" in done.stderr
    assert "ActorError: actor 0 died" in done.stderr
