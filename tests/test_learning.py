"""Learning curves with the registry's settings: minutes to hours, so only `pytest -m learning` runs them.

The bars follow from published figures (rl-baselines3-zoo's benchmark and CleanRL's), a little below them, since those
are of one trained agent each and these are medians over seeds.
"""

import statistics
from typing import NamedTuple

import pytest

import zoo

pytestmark = pytest.mark.learning


class Bar(NamedTuple):
    """What the mean return of 100 fixed-seed episodes must reach: the median over seeds, and every one of them."""

    median: float
    each: float = float("-inf")
    seeds: int = 5


BARS = {
    ("ppo", "Pendulum-v1"): Bar(-180, each=-300),
    ("ppo", "CartPole-v1"): Bar(500, each=475),
    ("a2c", "CartPole-v1"): Bar(495),
    ("a2c", "Pendulum-v1"): Bar(-200),
    ("ppo", "Acrobot-v1"): Bar(-85, seeds=3),
    ("ppo", "MountainCar-v0"): Bar(-120, seeds=3),
    ("dqn", "CartPole-v1"): Bar(475),
    ("dqn", "Acrobot-v1"): Bar(-85),
    ("dqn", "MountainCar-v0"): Bar(-115),
    ("ppo", "LunarLander-v3"): Bar(230),
    ("sarsa", "CartPole-v1"): Bar(475),
    ("sarsa", "Acrobot-v1"): Bar(-100),
    ("qac", "CartPole-v1"): Bar(475),
    ("qac", "Pendulum-v1"): Bar(-250),
    ("impala", "CartPole-v1"): Bar(475),
    ("impala", "Pendulum-v1"): Bar(-250),
    ("ddpg", "Pendulum-v1"): Bar(-160),
    ("sac", "Pendulum-v1"): Bar(-160),
    ("sac", "MountainCarContinuous-v0"): Bar(90),
}


@pytest.mark.parametrize(("name", "env_id"), BARS, ids="-".join)
def test_tuned_settings_reach_the_bar(name: str, env_id: str) -> None:
    bar = BARS[name, env_id]
    agents = [zoo.train(name, env_id, seed=seed, eval_every=0, eval_episodes=0) for seed in range(bar.seeds)]
    scores = [zoo.evaluate(agent, env_id).mean for agent in agents]
    assert statistics.median(scores) >= bar.median, scores
    assert min(scores) >= bar.each, scores
