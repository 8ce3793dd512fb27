"""A compiled step gives an eager one's numbers, for every entry; who compiles is decided by the settings."""

import os
import resource
import shutil
import subprocess
import sys
import timeit
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from numpy.random import SeedSequence
from tabular import live
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import zoo
import zoo.training.compile
from zoo import registry
from zoo.cli import main
from zoo.config import Field, config
from zoo.errors import UserError
from zoo.parts.rmsprop import RMSprop
from zoo.protocol import FewGuards, Transition
from zoo.settings import resolve
from zoo.spec import Spec
from zoo.training.compile import WORTH_IT, compile_step, count_steps
from zoo.training.kernels import compiler

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


def updated(name: str, mode: str, kernels: str = "auto", change: Callable[[Any], None] = lambda algo: None) -> Tensor:
    """All weights after some twenty updates."""
    algo, spec, env_id = make(name)
    change(algo)
    before = weights(algo)
    size = {"total_steps": 1, "num_envs": 2}
    assert compile_step(algo, algo.make_buffer(spec, 2), mode, kernels=kernels, **size) is (mode == "on")
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "sac"])  # plain products, and products side by side
def test_torchs_own_kernels_give_an_eager_ones_numbers_too(name: str) -> None:
    assert_same(updated(name, "on", kernels="torch"), updated(name, "off"))


def changed(algo: Any, factor: int = 3) -> None:
    """With a hook and parametrisations, of which one changes as it is used."""
    first, head = algo.actor.net[1], algo.actor.net[-1]
    head.register_forward_hook(lambda module, args, out: factor * out)
    torch.manual_seed(0)  # it begins with vectors that it draws
    parametrizations.spectral_norm(first)
    parametrizations.weight_norm(algo.critic.net[-1])
    algo.optimizer = RMSprop(algo.parameters(), eps=1e-5, max_grad_norm=0.5)


def test_compiled_equals_eager_with_hooks_and_parametrisations() -> None:
    eager = updated("a2c", "off", change=changed)
    assert_same(updated("a2c", "on", change=changed), eager)
    without = updated("a2c", "off", change=lambda algo: changed(algo, factor=1))
    assert (without - eager).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(registry.load().algorithms))
def test_auto_compiles_long_runs_alone(name: str) -> None:
    for total_steps, expected in ((500, False), (50_000_000, True)):
        algo, spec, _ = make(name)
        assert compile_step(algo, algo.make_buffer(spec, 2), "auto", total_steps=total_steps, num_envs=2) is expected


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
        sizes = {"total_steps": settings.run.total_steps, "num_envs": settings.run.num_envs}
        assert count_steps(algo, buffer, **sizes) == expected >= WORTH_IT


def test_no_compiler_is_said_once_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    algo, spec, _ = make("a2c")
    buffer = algo.make_buffer(spec, 2)
    with pytest.warns(UserWarning, match=r"uncompiled, and slower: no C\+\+ compiler"):
        assert not compile_step(algo, buffer, "auto", total_steps=50_000_000, num_envs=2)
    with pytest.raises(UserError, match="install one, or use --compile auto"):
        compile_step(algo, buffer, "on", total_steps=1, num_envs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not compile_step(algo, buffer, "off", total_steps=50_000_000, num_envs=2)


class Scaling:
    """The least that compiles: a step that depends on a setting, and on its arguments."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def step(self, x: Tensor, negate: bool = False) -> Tensor:
        return -self.scale * x if negate else self.scale * x


def scaling(scale: float) -> Scaling:
    algo, spec, _ = make("a2c")
    compiled = Scaling(scale)
    assert compile_step(compiled, algo.make_buffer(spec, 2), "on", total_steps=1, num_envs=2)
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


# What changes under a compiled graph


class Schedule:
    """A number that an object of its own keeps."""

    def __init__(self, value: float) -> None:
        self.value = value


@config
class OwnConfig:
    """A setting."""

    gamma: float = Field(2.0, ge=0, description="a factor")


class Own(nn.Module):
    """A step that depends on a schedule, on settings and on a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.config, self.layer = Schedule(2.0), OwnConfig(), nn.Linear(1, 1)
        self.few_guards = False

    def step(self, x: Tensor) -> Tensor:
        return self.schedule.value * self.config.gamma * self.layer(x)


def own(few_guards: bool) -> Own:
    a2c, spec, _ = make("a2c")
    algo = Own()
    algo.few_guards = few_guards
    assert compile_step(algo, a2c.make_buffer(spec, 2), "on", total_steps=1, num_envs=2)
    return algo


def assert_new_numbers(algo: Own) -> None:
    x = torch.ones(2, 1)
    torch.testing.assert_close(algo.step(x), Own.step(algo, x))


each_promise = pytest.mark.parametrize("few_guards", [False, True], ids=["torch's guards", "few guards"])


@each_promise
def test_numbers_are_never_stale_however_deep_they_lie(few_guards: bool) -> None:
    algo = own(few_guards)
    for value in range(1, 12):  # more than the graphs that torch allows a function
        algo.schedule.value = value / 7
        assert_new_numbers(algo)
    algo.schedule = Schedule(17.0)
    assert_new_numbers(algo)


@each_promise
def test_other_settings_are_noticed(few_guards: bool) -> None:
    algo = own(few_guards)
    for gamma in (2.0, 3.0, 5.0):
        algo.config = OwnConfig(gamma=gamma)
        assert_new_numbers(algo)


def test_another_layer_is_noticed_by_torchs_guards() -> None:
    algo = own(few_guards=False)
    assert_new_numbers(algo)
    algo.layer = nn.Linear(1, 1)
    assert_new_numbers(algo)
    algo.layer = nn.Sequential(nn.Linear(1, 1), nn.Tanh())  # type: ignore[assignment]
    assert_new_numbers(algo)


def test_few_guards_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    ask = compiler.is_worth_checking
    monkeypatch.setattr(compiler, "is_worth_checking", lambda guard: asked.append(ask(guard)) or asked[-1])
    assert_new_numbers(own(few_guards=False))
    assert asked == []
    assert_new_numbers(own(few_guards=True))
    assert 0 < sum(asked) < len(asked)


@pytest.mark.parametrize("name", sorted(registry.load().algorithms))
def test_entries_promise_what_they_keep(name: str) -> None:
    """Those of the zoo have frozen settings, make all modules at the start, and so opt into few guards."""
    algo, _, env_id = make(name)
    assert isinstance(algo, FewGuards)
    assert algo.few_guards is True
    assert type(algo.config).__dataclass_params__.frozen
    modules = [*algo.modules(), *algo.parameters()]
    live(algo, env_id, num_envs=2, total_steps=80, seed=0)
    assert all(before is after for before, after in zip(modules, [*algo.modules(), *algo.parameters()], strict=True))


def test_an_entry_with_other_settings_gets_a_new_graph() -> None:
    steps: list[list[Tensor]] = []
    for mode in ("on", "off"):
        algo, spec, _ = make("a2c")
        compile_step(algo, algo.make_buffer(spec, 2), mode, total_steps=1, num_envs=2)
        generator = torch.Generator().manual_seed(0)
        obs, next_obs = torch.randn(2, 4, 2, 4, generator=generator)
        zeros = torch.zeros(4, 2)
        batch = Transition(obs, zeros.long(), zeros + 1, next_obs, zeros.bool(), zeros.bool(), zeros)
        found = []
        for gamma, ent_coef in ((0.99, 0.0), (0.5, 0.3)):
            algo.config = replace(algo.config, gamma=gamma, ent_coef=ent_coef)
            found += algo.step(batch, torch.tensor(0.0)).values()
        steps.append(found)
    for compiled, eager in zip(*steps, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


# Without a place for the compiler's files


RUN = """
import resource, sys, warnings
import torch, zoo
from zoo.training import compile
compile.WORTH_IT = 1
limit = int(sys.argv[1])
def trained(mode):
    settings = dict(total_steps=200, seed=1, num_envs=2, threads=1, eval_episodes=1, compile=mode)
    agent = zoo.train("a2c", "CartPole-v1", **settings)
    return torch.cat([p.detach().flatten() for p in agent.parameters()])
plain = trained("off")
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # a file that grows beyond it fails as on a full disk
for _ in range(2):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.equal(trained("auto"), plain)
    for each in caught:
        if "uncompiled" in str(each.message):
            print(each.message)
"""


@pytest.mark.parametrize(
    ("cache", "limit", "reason"),
    [
        ("/proc/nothing", 0, "No such file or directory"),  # read-only for root as well
        ("file", 0, "File exists"),
        pytest.param("folder", 10, "File too large", marks=pytest.mark.slow),  # for the first byte of all
        pytest.param("folder", 200_000, "error", marks=pytest.mark.matrix),  # for the C++ compiler
    ],
)
def test_a_run_without_a_cache_ends_as_an_uncompiled_one(cache: str, limit: int, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / cache), "TMPDIR": str(tmp_path)}
    environment |= {"PYTHONPATH": str(Path(zoo.__file__).parent.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", RUN, str(limit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2  # one for each of two runs
    for line in lines:
        assert line.startswith("updates run uncompiled, and slower: torch cannot compile here (")
        assert reason in line


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may have more than ten bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


def compiled(step: Any, mode: str) -> Scaling:
    algo, spec, _ = make("a2c")
    scaling = type("Own", (Scaling,), {"step": step})(2.0)
    assert compile_step(scaling, algo.make_buffer(spec, 2), mode, total_steps=50_000_000, num_envs=2)
    return scaling


def double(self: Scaling, x: Tensor, negate: bool = False) -> Tensor:
    return -self.scale * x.sin() if negate else self.scale * x.sin() + 0.123


@pytest.mark.usefixtures("empty_cache")
def test_a_disk_that_fills_up_later_is_met_at_the_next_compilation() -> None:
    algo, x = compiled(double, "auto"), torch.ones(3)
    expected = [double(algo, x), double(algo, x.double(), True)]
    torch.testing.assert_close(algo.step(x), expected[0])
    with full_disk(), pytest.warns(UserWarning, match="uncompiled, and slower: .*File too large"):
        assert torch.equal(algo.step(x.double(), True), expected[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert torch.equal(algo.step(x), expected[0])


@pytest.mark.usefixtures("empty_cache")
def test_who_insists_on_compilation_is_told() -> None:
    algo = compiled(double, "on")
    with full_disk(), pytest.raises(UserError, match=r"compile = on, but torch cannot compile here \(.*too large"):
        algo.step(torch.ones(5))


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    algo, spec, _ = make("a2c")
    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert compile_step(algo, algo.make_buffer(spec, 2), "on", total_steps=1, num_envs=2)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / f"torchinductor_uid_{os.getuid()}")


def test_no_folder_for_temporary_files_is_said_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    algo, spec, _ = make("a2c")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    with pytest.warns(UserWarning, match="uncompiled, and slower: .*no usable temporary directory"):
        assert not compile_step(algo, algo.make_buffer(spec, 2), "auto", total_steps=50_000_000, num_envs=2)
    with pytest.raises(UserError, match="no usable temporary directory"):
        compile_step(algo, algo.make_buffer(spec, 2), "on", total_steps=1, num_envs=2)


def test_the_command_says_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(zoo.training.compile, "WORTH_IT", 1)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/proc/nothing")
    run = "run a2c --env CartPole-v1 --total-steps 50 --eval-episodes 1 --compile auto --quiet"
    with pytest.raises(SystemExit) as raised:
        main([*run.split(), "--out", str(tmp_path / "run")])
    assert raised.value.code == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("zoo: updates run uncompiled, and slower: torch cannot compile here")


def wrong(self: Scaling, x: Tensor) -> Tensor:
    return x @ torch.ones(7, 7)


def test_an_error_of_the_step_itself_is_not_taken_for_one_of_the_machine() -> None:
    algo = compiled(wrong, "auto")
    with pytest.raises(torch._dynamo.exc.TorchRuntimeError, match="7"):
        algo.step(torch.ones(3, 3))


def test_the_way_round_costs_less_than_a_microsecond() -> None:
    algo = Scaling(2.0)
    algo.step = lambda x, y: None  # type: ignore[method-assign,assignment]
    step = zoo.training.compile._or_plain(algo, algo.step, "auto")
    best = [min(timeit.repeat(lambda f=f: f(1, 2), number=10_000, repeat=20)) / 10_000 for f in (algo.step, step)]
    assert best[1] - best[0] < 1e-6


def test_the_log_is_told_once_before_the_first_compilation(caplog: pytest.LogCaptureFixture) -> None:
    algo, told = Scaling(2), []
    caplog.set_level("INFO", logger="zoo")

    def compiled(x: Tensor) -> Tensor:
        told.append(list(caplog.messages))
        return x

    step = zoo.training.compile._or_plain(algo, compiled, "auto")
    step(torch.ones(1))
    step(torch.ones(1))
    assert told == [["compiling the update (once; cached)"]] * 2
