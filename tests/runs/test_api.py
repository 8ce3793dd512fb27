"""Training by a call: of ids, factories and objects, of every space, and what comes back or is left when it fails."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from probes import ALGORITHMS, ScriptedEnv
from small import ACTIONS, OBSERVATIONS, RandomEnv, same, small
from stable_baselines3.common.evaluation import evaluate_policy

import zoo
from zoo import registry
from zoo.buffers import ReplayBuffer
from zoo.buffers.rows import allocate
from zoo.errors import UserError
from zoo.runs.assemble import first_update
from zoo.spec import Spec
from zoo.training.evaluation import evaluate


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


def test_a_run_that_fails_keeps_its_agent(tmp_path: Path) -> None:
    class Breaks(ScriptedEnv):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            if self.episode > 30:
                raise RuntimeError("broken")
            return super().step(action)

    with pytest.raises(RuntimeError, match="broken"):
        zoo.train("a2c", Breaks, out=tmp_path / "run", **small("a2c") | {"total_steps": 10_000})
    assert zoo.load(tmp_path / "run").name == "a2c"


@pytest.mark.parametrize("num_envs", [1, 3, 8])
@pytest.mark.parametrize("train_every", [1, 4, 10])
@pytest.mark.parametrize("learning_starts", [0, 7, 12, 30])
def test_the_first_update_comes_where_a_replay_gives_its_first_batch(
    learning_starts: int, train_every: int, num_envs: int
) -> None:
    spec = Spec(OBSERVATIONS["vector"], ACTIONS["discrete"])
    when = {"learning_starts": learning_starts, "train_every": train_every}
    replay = ReplayBuffer(spec, num_envs, torch.Generator(), capacity=100, batch_size=2, **when)
    expected, step = first_update(replay), 0
    while not list(replay.batches()):
        replay.add(allocate(spec, num_envs), np.ones(num_envs, np.bool_))
        step += num_envs
    assert step == expected


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_a_run_that_would_end_before_its_first_update_is_refused(name: str, tmp_path: Path) -> None:
    given = small(name, num_envs=3, learning_starts=50, train_every=8)  # 50 are passed at 51; 56 is reached at 57
    env = "CartPole-v1" if name == "dqn" else "Pendulum-v1"
    reason = rf"total_steps = 54: {name} .* step 57 \(learning_starts = 50, then an update every 8 steps\)"
    with pytest.raises(UserError, match=reason):
        zoo.train(name, env, out=tmp_path / "run", **given | {"total_steps": 54})
    assert not (tmp_path / "run").exists()
    zoo.train(name, env, out=tmp_path / "run", **given | {"total_steps": 55})
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 57
    assert "q_loss" in row


ON_ROLLOUTS = [name for name in ALGORITHMS if "learning_starts" not in small(name)]


@pytest.mark.parametrize("name", ON_ROLLOUTS)
def test_whatever_needs_whole_rollouts_takes_one_however_few_steps_it_is_given(name: str, tmp_path: Path) -> None:
    zoo.train(name, "CartPole-v1", out=tmp_path / "run", **small(name) | {"total_steps": 1})
    assert "grad_norm" in json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
