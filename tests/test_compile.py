"""A compiled step gives an eager one's numbers, for every entry; who compiles is decided by the settings."""

import shutil
import warnings
from typing import Any

import gymnasium as gym
import pytest
import torch
from numpy.random import SeedSequence
from tabular import live
from torch import Tensor

from zoo import registry
from zoo.compile import WORTH_IT, compile_step
from zoo.errors import UserError
from zoo.settings import resolve
from zoo.spec import Spec

SMALL = {"hidden": (16, 16), "learning_rate": 1e-3, "batch_size": 8, "num_steps": 4, "capacity": 500}
SMALL |= {"learning_starts": 16, "num_epochs": 2, "policy_delay": 2, "baseline": True, "target_every": 3}


def make(name: str) -> tuple[Any, Spec, str]:
    """A small algorithm, and the environment that it is for."""
    cls = registry.load_class(name)
    env_id = "Pendulum-v1" if cls.spaces == (gym.spaces.Box,) else "CartPole-v1"
    env = gym.make(env_id)
    spec = Spec(env.observation_space, env.action_space, scale_actions=True)
    settings = {key: value for key, value in SMALL.items() if key in cls.Config.__dataclass_fields__}
    return registry.make(name, spec, cls.Config(**settings), SeedSequence(0)), spec, env_id


def weights(algo: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in algo.state_dict().values()])


def updated(name: str, mode: str) -> Tensor:
    """All weights after some twenty updates."""
    algo, spec, env_id = make(name)
    before = weights(algo)
    assert compile_step(algo, algo.make_buffer(spec, 2), mode, total_steps=1) is (mode == "on")
    live(algo, env_id, num_envs=2, total_steps=160 if hasattr(algo.config, "num_steps") else 36, seed=0)
    after = weights(algo)
    assert (after - before).abs().max() > 1e-3
    return after


def assert_same(compiled: Tensor, eager: Tensor) -> None:
    # float32 sums in another order: 20 updates of 1e-3 move a weight by up to 0.02.
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(registry.load().algorithms))
def test_compiled_equals_eager_over_twenty_updates(name: str) -> None:
    assert_same(updated(name, "on"), updated(name, "off"))


@pytest.mark.parametrize("name", sorted(registry.load().algorithms))
def test_auto_compiles_long_runs_alone(name: str) -> None:
    for total_steps, expected in ((500, False), (50_000_000, True)):
        algo, spec, _ = make(name)
        assert compile_step(algo, algo.make_buffer(spec, 2), "auto", total_steps) is expected


def test_auto_counts_the_steps_of_a_run() -> None:
    for algorithm, env, expected in [
        ("ppo", "Pendulum-v1", 24 * 640),  # 24 whole rollouts of 4096 steps, each 10 epochs of 64 minibatches
        ("a2c", "CartPole-v1", 12_500),
        ("dqn", "CartPole-v1", 49_000 // 256 * 128),
        ("sac", "Pendulum-v1", 19_900),
    ]:
        settings = resolve(algorithm, env, {})
        made = gym.make(env)
        spec = Spec(made.observation_space, made.action_space, scale_actions=True)
        algo = registry.make(algorithm, spec, settings.config, SeedSequence(0))
        buffer = algo.make_buffer(spec, settings.run.num_envs)
        num_steps = buffer.num_batches(settings.run.total_steps) * getattr(algo, "steps_per_batch", 1)
        assert num_steps == expected >= WORTH_IT


def test_no_compiler_is_said_once_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    algo, spec, _ = make("a2c")
    buffer = algo.make_buffer(spec, 2)
    with pytest.warns(UserWarning, match=r"uncompiled, and slower: no C\+\+ compiler"):
        assert not compile_step(algo, buffer, "auto", 50_000_000)
    with pytest.raises(UserError, match="install one, or use --compile auto"):
        compile_step(algo, buffer, "on", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not compile_step(algo, buffer, "off", 50_000_000)


class Scaling:
    """The least that compiles: a step that depends on a setting, and on its arguments."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def step(self, x: Tensor, negate: bool = False) -> Tensor:
        return -self.scale * x if negate else self.scale * x


def scaling(scale: float) -> Scaling:
    algo, spec, _ = make("a2c")
    compiled = Scaling(scale)
    assert compile_step(compiled, algo.make_buffer(spec, 2), "on", 1)
    return compiled


@torch._dynamo.config.patch(recompile_limit=1, accumulated_recompile_limit=1)
def test_many_settings_in_one_process() -> None:
    """They share a function, and no graphs, of which torch allows a function only so many."""
    first, second = scaling(2.0), scaling(3.0)
    for _ in range(2):
        assert first.step(torch.ones(2)).tolist() == [2, 2]
        assert second.step(torch.ones(2)).tolist() == [3, 3]


def test_arguments_decide_on_the_graph() -> None:
    algo = scaling(2.0)
    for size, negate, dtype in [(2, False, torch.float32), (3, False, torch.float32), (3, True, torch.float64)]:
        found = algo.step(torch.ones(size, dtype=dtype), negate)
        assert found.tolist() == [-2.0 if negate else 2.0] * size
        assert found.dtype == dtype


def test_a_changed_attribute_is_noticed() -> None:
    algo = scaling(2.0)
    for scale in (2.0, 3.0, 2.0):
        algo.scale = scale
        assert algo.step(torch.ones(2)).tolist() == [scale] * 2
