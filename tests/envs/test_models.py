"""Exact models against the environments that they are models of."""

import gymnasium as gym
import numpy as np
import pytest

import zoo
from zoo.envs.models import TOY_TEXT, ExactModel, exact_model
from zoo.envs.task import Task
from zoo.errors import UserError
from zoo.spec import Spec


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", *TOY_TEXT])
def test_each_step_of_an_environment_is_an_outcome_of_its_model(env_id: str) -> None:
    env = gym.make(env_id)
    spec, model = Spec(env.observation_space, env.action_space), ExactModel(env_id, {})
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(60):
        action = env.action_space.sample()
        outcomes = model.outcomes(spec.encode_obs(np.asarray(obs)[None], 1), np.asarray(action)[None])
        obs, reward, terminated, truncated, _ = env.step(action)
        same = np.isclose(outcomes.next_obs[0, 0], obs, atol=1e-5).reshape(outcomes.reward.shape[-1], -1).all(1)
        same &= np.isclose(outcomes.reward[0, 0], reward, atol=1e-5) & (outcomes.terminated[0, 0] == terminated)
        assert outcomes.probability[0, 0][same].sum() > 0
        assert outcomes.probability.sum() == pytest.approx(1)
        if terminated or truncated:
            obs, _ = env.reset()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("LunarLander-v3"), "has no exact model"),
        (Task("CartPole-v1", frame_stack=2), "nothing around it"),
        (Task("FrozenLake-v1", {"map_name": None}), "at random"),
        (Task("FrozenLake-v1", {"desc": ["F" * 200] * 200}), "at most 16,384 cells"),
        (Task("FrozenLake-v1", {"desc": "SFFG"}), "no list of rows"),
    ],
)
def test_environments_without_one_exact_model_are_refused(task: Task, message: str) -> None:
    with pytest.raises(UserError, match=message):
        exact_model(task)


def test_runs_say_what_does_not_go_with_an_exact_model() -> None:
    settings = {"model": "exact", "total_steps": 2000, "progress": False}
    with pytest.raises(UserError, match="normalize_obs does not go with model = exact"):
        zoo.train("fvi", "CartPole-v1", normalize_obs=True, **settings)
    with pytest.raises(UserError, match="no exact model"):
        zoo.train("tdv", "Blackjack-v1", **settings)
