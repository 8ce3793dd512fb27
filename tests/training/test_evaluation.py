"""Evaluation: fixed by its seed, on episodes that no training meets, and without effect on a training."""

from typing import Any

import numpy as np
import pytest
from probes import ALGORITHMS, ScriptedEnv
from small import same, small, trained

import zoo
from zoo.envs.envs import episode_seed
from zoo.errors import UserError
from zoo.training.evaluation import EVALUATION, evaluate


@pytest.mark.parametrize("name", ALGORITHMS)
def test_evaluating_does_not_change_training(name: str) -> None:
    assert same(trained(name)[0], trained(name, eval_every=30, validation_episodes=1, eval_episodes=1)[0])


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


def test_an_agent_is_refused_an_environment_of_other_spaces() -> None:
    agent = zoo.train("ppo", "CartPole-v1", **small("ppo"))
    with pytest.raises(UserError, match="was trained for observation_space"):
        evaluate(agent, "Pendulum-v1", episodes=1)


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
