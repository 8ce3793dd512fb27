"""The loop and its runs: the same seed gives the same run, evaluation changes nothing, folders hold what they say."""

import json
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from probes import ALGORITHMS, ScriptedEnv, known_settings
from stable_baselines3.common.evaluation import evaluate_policy

import zoo
from zoo import registry, runs
from zoo.buffers import ReplayBuffer, RolloutBuffer
from zoo.envs.envs import episode_seed
from zoo.errors import UserError
from zoo.runs.recorder import Recorder
from zoo.storage.agent import DESCRIPTION, WEIGHTS
from zoo.training.evaluation import EVALUATION, evaluate

TIMES = {"seconds", "steps_per_second"}


def small(name: str, **more: Any) -> dict[str, Any]:
    """Settings for a run of a second."""
    wanted = {
        "total_steps": 120,
        "num_envs": 2,
        "num_steps": 10,
        "batch_size": 10,
        "num_epochs": 2,
        "learning_starts": 20,
        "train_every": 10,
        "num_updates": 1,
        "capacity": 1000,
        "hidden": (8,),
        "seed": 0,
        "eval_every": 0,
        "eval_episodes": 0,
        "log_every": 40,
    }
    return known_settings(name, **wanted | more)


def env_for(name: str) -> str:
    return "CartPole-v1" if spaces.Discrete in registry.load_class(name).spaces else "Pendulum-v1"


def trained(name: str, **more: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """The parameters and the rows of metrics, without times, of a small run."""
    rows: list[dict[str, float]] = []
    settings = runs.prepare(name, env_for(name), small(name, **more), source="argument")
    result = runs.run(settings, env_for(name), on_row=rows.append)
    return result.agent.state_dict(), [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_gives_the_same_run_and_another_does_not(name: str) -> None:
    weights, rows = trained(name)
    again, rows_again = trained(name)
    assert same(weights, again)
    assert rows == rows_again
    assert not same(weights, trained(name, seed=1)[0])


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_the_buffer_hears_of_each_update_before_the_next_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    cls, buffer = registry.load_class(name), {"dqn": ReplayBuffer, "ppo": RolloutBuffer}[name]

    def spy(owner: type, method: str) -> None:
        original = getattr(owner, method)

        def call(self: Any, batch: Any, *rest: Any) -> Any:
            calls.append((method, id(batch)))
            return original(self, batch, *rest)

        monkeypatch.setattr(owner, method, call)

    spy(cls, "update")
    spy(buffer, "learned")
    trained(name)
    assert len(calls) > 4
    assert [method for method, _ in calls] == ["update", "learned"] * (len(calls) // 2)
    assert [batch for _, batch in calls[::2]] == [batch for _, batch in calls[1::2]]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_evaluating_does_not_change_training(name: str) -> None:
    assert same(trained(name)[0], trained(name, eval_every=30, validation_episodes=1, eval_episodes=1)[0])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_metrics_are_means_over_updates_whose_tensors_are_let_go(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = registry.load_class(name)
    update, values, alive = algorithm.update, {}, []

    def watched(*args: Any) -> dict[str, torch.Tensor]:
        assert not [key for key, tensor in alive if tensor() is not None]
        metrics = update(*args)
        alive[:] = [(key, weakref.ref(value)) for key, value in metrics.items()]
        for key, value in metrics.items():
            values.setdefault(key, []).append(value.item())
        return metrics

    monkeypatch.setattr(algorithm, "update", watched)
    rows = trained(name, log_every=10_000)[1]
    assert len(values["grad_norm"]) > 1
    assert {key: rows[-1][key] for key in values} == pytest.approx({key: np.mean(each) for key, each in values.items()})


def test_no_seed_is_not_seed_zero_and_is_recorded() -> None:
    settings = [runs.prepare("ppo", "CartPole-v1", {}, source="argument") for _ in range(2)]
    assert settings[0].run.seed != settings[1].run.seed
    assert runs.prepare("ppo", "CartPole-v1", {"seed": 0}, source="argument").run.seed == 0


def test_training_leaves_the_global_random_streams_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    trained("ppo")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize(
    ("total_steps", "num_steps", "steps"),
    [(1, 10, 20), (120, 10, 120), (121, 10, 140), (7, 1, 8), (30, 60, 120)],
    ids=["less than a rollout", "whole rollouts", "one more step", "rollouts of one step", "longer than episodes"],
)
def test_a_run_ends_on_a_whole_rollout(total_steps: int, num_steps: int, steps: int) -> None:
    _, rows = trained("a2c", total_steps=total_steps, num_steps=num_steps)
    assert rows[-1]["step"] == steps
    assert "policy_loss" in rows[-1]


def test_episodes_of_one_step_train() -> None:
    agent = zoo.train("a2c", ScriptedEnv, **small("a2c"))
    assert all(torch.isfinite(value).all() for value in agent.state_dict().values())


def test_evaluation_is_fixed_by_its_seed_and_never_meets_a_training_episode() -> None:
    agent = zoo.train("ppo", "CartPole-v1", **small("ppo"))
    first, again, other = (evaluate(agent, "CartPole-v1", episodes=12, seed=seed) for seed in (0, 0, 1))
    assert first.returns.tolist() == again.returns.tolist()
    assert first.returns.tolist() != other.returns.tolist()
    assert first.returns.tolist() == first.lengths.tolist()  # CartPole pays 1 a step
    root = np.random.SeedSequence
    training = {episode_seed(root(seed).spawn(3)[1], number) for seed in range(20) for number in range(200)}
    validation = {episode_seed(root(seed).spawn(3)[2], number) for seed in range(20) for number in range(10)}
    testing = {episode_seed(root(seed, spawn_key=(EVALUATION,)), number) for seed in range(5) for number in range(100)}
    assert not training & validation
    assert not training & testing
    assert not validation & testing


def test_evaluation_counts_the_first_episodes_not_the_shortest() -> None:
    # Episode k lasts as its seed says; a pool that took whichever ended first would prefer the short ones.
    def make() -> ScriptedEnv:
        return ScriptedEnv(script=None)

    agent = zoo.train("a2c", make, **small("a2c"))
    result = evaluate(agent, make, episodes=25, num_envs=4)
    stream = np.random.SeedSequence(0, spawn_key=(EVALUATION,))
    assert result.lengths.tolist() == [1 + episode_seed(stream, number) % 4 for number in range(25)]


def test_a_folder_holds_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = {"eval_every": 40, "validation_episodes": 2, "eval_episodes": 3, "normalize_obs": True}
    agent = zoo.train("ppo", "Pendulum-v1", out=folder, **small("ppo", **more))
    config = json.loads((folder / "config.json").read_text())
    assert config["algorithm"] == "ppo"
    assert config["run"]["seed"] == 0
    assert config["sources"]["gamma"] == "registry"
    assert config["sources"]["hidden"] == "argument"
    assert {"python", "torch", "numpy", "gymnasium"} <= config["versions"].keys()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [40, 80, 120]
    assert all("seconds" in row and "eval_return" in row for row in rows)
    assert list((folder / "tensorboard").glob("events*"))
    summary = json.loads((folder / "evaluation.json").read_text())
    assert summary["mean"] == pytest.approx(np.mean(summary["returns"]))
    obs = np.array([0.3, -0.2, 1.0], np.float32)
    np.testing.assert_array_equal(zoo.load(folder).predict(obs)[0], agent.predict(obs)[0])
    assert (folder / "best" / WEIGHTS).exists()
    loaded = evaluate(zoo.load(folder), "Pendulum-v1", episodes=3)
    assert loaded.returns.tolist() == summary["returns"]
    with pytest.raises(UserError, match="never share a folder"):
        zoo.train("ppo", "Pendulum-v1", out=folder, **small("ppo"))


def test_factories_and_objects_work_where_ids_do() -> None:
    def make() -> gym.Env[Any, Any]:
        return gym.make("CartPole-v1")

    by_id, by_factory = (zoo.train("a2c", env, **small("a2c")) for env in ("CartPole-v1", make))
    assert same(by_id.state_dict(), by_factory.state_dict())
    by_object = zoo.train("a2c", make(), **small("a2c") | {"num_envs": 1})
    alone = zoo.train("a2c", "CartPole-v1", **small("a2c") | {"num_envs": 1})
    assert same(by_object.state_dict(), alone.state_dict())
    assert (
        evaluate(by_object, make(), episodes=2).returns.tolist()
        == evaluate(by_object, make, episodes=2, num_envs=1).returns.tolist()
    )


class ClosesForGood(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that cannot be used again once it is closed."""

    closed = False

    def reset(self, **kwargs: Any) -> Any:
        assert not self.closed
        return self.env.reset(**kwargs)

    def close(self) -> None:
        self.closed = True


def test_an_environment_object_stays_open_and_is_trained_with_the_defaults() -> None:
    # ppo's settings for CartPole are tuned for eight environments: a rollout of one would be smaller than a batch.
    env = ClosesForGood(gym.make("CartPole-v1"))
    agent = zoo.train("ppo", env, seed=0, total_steps=1, eval_every=1, validation_episodes=1, eval_episodes=1)
    assert agent.algo.config == registry.load_class("ppo").Config()
    assert evaluate(agent, env, episodes=1).returns.tolist() == evaluate(agent, env, episodes=1).returns.tolist()


def test_a_refused_folder_leaves_torch_its_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with pytest.raises(UserError, match="exists already"):
        zoo.train("ppo", "CartPole-v1", out=tmp_path, **small("ppo", threads=before + 1))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("row", "fits"),
    [
        (None, True),
        ({"step": 30, "seconds": 0.5, "policy_loss": -1.0}, True),
        ("step", False),
        ([30], False),
        ({}, False),
        ({"step": 30}, False),
        ({"step": 30.5, "seconds": 0.5}, False),
        ({"step": 10**400, "seconds": 0.5}, False),
        ({"step": 30, "seconds": 0.0}, False),
        ({"step": 30, "seconds": 0.5, "policy_loss": "[bold]"}, False),
    ],
)
def test_a_row_that_a_checkpoint_left_incomplete_is_one_of_numbers(row: Any, fits: bool) -> None:
    recorder = Recorder.__new__(Recorder)
    recorder.returns, recorder.lengths, recorder.elapsed, recorder.row = deque(), deque(), 0.0, row
    assert recorder.check_state() == fits


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_stable_baselines_evaluates_an_agent_unchanged(env_id: str) -> None:
    agent = zoo.train("ppo", env_id, **small("ppo"))
    mean, std = evaluate_policy(agent, gym.make(env_id), n_eval_episodes=3, warn=False)  # type: ignore[arg-type]
    assert np.isfinite([mean, std]).all()


def test_predict_takes_one_observation_or_many() -> None:
    agent = zoo.train("ppo", "Pendulum-v1", **small("ppo"))
    many = np.zeros((5, 3), np.float32)
    assert agent.predict(many)[0].shape == (5, 1)
    assert agent.predict(many[0], state="kept")[0].shape == (1,)
    assert agent.predict(many[0], state="kept")[1] == "kept"
    with pytest.raises(UserError, match="expected"):
        agent.predict(np.zeros(4))


OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "matrix": spaces.Box(-1, 1, (2, 3), np.float64),
    "integer": spaces.Discrete(5, start=2),
    "small image": spaces.Box(0, 255, (10, 10, 2), np.uint8),
    "large image": spaces.Box(0, 255, (1, 40, 40), np.uint8),
}
ACTIONS = {
    "discrete": spaces.Discrete(3, start=-1),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(np.array([-3, 0], np.float32), np.array([1, 5], np.float32)),
}


class RandomEnv(gym.Env[Any, Any]):
    """Random observations of any space, episodes of five steps, and a check of each action."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.time += 1
        return self.observation_space.sample(), float(self.np_random.normal()), False, self.time == 5, {}


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_supported_space_trains_saves_and_loads(name: str, action: str, observation: str, tmp_path: Path) -> None:
    if not isinstance(ACTIONS[action], registry.load_class(name).spaces):
        with pytest.raises(UserError, match="needs actions of type"):
            zoo.train(name, lambda: RandomEnv(OBSERVATIONS[observation], ACTIONS[action]), **small(name))
        return
    env = RandomEnv(OBSERVATIONS[observation], ACTIONS[action])
    agent = zoo.train(name, env, out=tmp_path / "run", **small(name) | {"num_envs": 1, "total_steps": 40})
    obs, _ = env.reset(seed=0)
    chosen = agent.predict(obs)[0]
    assert env.action_space.contains(chosen)
    np.testing.assert_array_equal(zoo.load(tmp_path / "run").predict(obs)[0], chosen)


def spoil(folder: Path, how: str) -> None:
    weights, description = folder / WEIGHTS, folder / DESCRIPTION
    if how == "missing":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "not json":
        description.write_text("{")
    else:
        data = json.loads(description.read_text())
        changes: dict[str, Any] = {
            "schema": {"schema": 99},
            "algorithm": {"algorithm": "a2c"},
            "shape": {"config": data["config"] | {"hidden": [9]}},
            "unknown": {"config": data["config"] | {"gama": 1}},
        }
        description.write_text(json.dumps(data | changes[how]))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "is missing"),
        ("truncated", "cannot be read"),
        ("not json", "cannot be read"),
        ("schema", "schema 99; expected 1"),
        ("algorithm", "no setting"),
        ("shape", "has shape"),
        ("unknown", "did you mean 'gamma'"),
    ],
)
def test_a_damaged_agent_is_refused_by_name(how: str, message: str, tmp_path: Path) -> None:
    zoo.train("ppo", "CartPole-v1", out=tmp_path / "run", **small("ppo"))
    spoil(tmp_path / "run" / "final", how)
    with pytest.raises(UserError, match=message):
        zoo.load(tmp_path / "run")


def test_an_agent_is_refused_an_environment_of_other_spaces() -> None:
    agent = zoo.train("ppo", "CartPole-v1", **small("ppo"))
    with pytest.raises(UserError, match="was trained for observation_space"):
        evaluate(agent, "Pendulum-v1", episodes=1)


def test_a_run_that_fails_keeps_its_agent(tmp_path: Path) -> None:
    class Breaks(ScriptedEnv):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            if self.episode > 30:
                raise RuntimeError("broken")
            return super().step(action)

    with pytest.raises(RuntimeError, match="broken"):
        zoo.train("a2c", Breaks, out=tmp_path / "run", **small("a2c") | {"total_steps": 10_000})
    assert zoo.load(tmp_path / "run").name == "a2c"


def test_normalisation_of_observations_needs_floats() -> None:
    with pytest.raises(UserError, match="needs observations of floats"):
        zoo.train("ppo", lambda: RandomEnv(spaces.Discrete(3), spaces.Discrete(2)), **small("ppo", normalize_obs=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 0}, "episodes = 0; expected a whole number of at least 1"),
        ({"episodes": 2.5}, "episodes = 2.5"),
        ({"num_envs": 0}, "num_envs = 0"),
        ({"threads": -1}, "threads = -1"),
        ({"seed": None}, "seed = None; expected a whole number of at least 0"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 1.5}, "seed = 1.5"),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    agent = zoo.train("a2c", "CartPole-v1", seed=0, total_steps=10, eval_episodes=0)
    with pytest.raises(zoo.UserError, match=message):
        zoo.evaluate(agent, "CartPole-v1", **settings)
