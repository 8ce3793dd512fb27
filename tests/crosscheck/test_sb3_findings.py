"""What docs/crosscheck.md says of Stable-Baselines3, shown on it; a version that changes one of these fails here."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DDPG, DQN, PPO, SAC
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

pytestmark = pytest.mark.filterwarnings("ignore")


def test_sac_ignores_its_target_update_interval() -> None:
    model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=10, target_update_interval=1000, seed=0, device="cpu")
    before = [p.clone() for p in model.critic_target.parameters()]
    model.learn(13)
    assert all((p != q).any() for p, q in zip(model.critic_target.parameters(), before, strict=True))


def test_dqn_explores_in_all_environments_or_in_none() -> None:
    env = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 8)
    model = DQN("MlpPolicy", env, exploration_initial_eps=0.5, seed=0, device="cpu")
    model.exploration_rate = 0.5
    obs = np.zeros((8, 4), np.float32)
    drawn = np.stack([model.predict(obs, deterministic=False)[0] for _ in range(200)])
    alike = (drawn == drawn[:, :1]).all(1)
    # All eight alike by chance would be 1 in 128 if each explored by itself with ε = 0.5 and two actions.
    assert alike.mean() > 0.4


def test_ddpg_does_not_explore_after_its_warm_up() -> None:
    model = DDPG("MlpPolicy", "Pendulum-v1", learning_starts=0, seed=0, device="cpu")
    model.num_timesteps, model._last_obs = 10, np.zeros((1, 3), np.float32)
    drawn = {model._sample_action(0, model.action_noise)[1].item() for _ in range(20)}
    assert len(drawn) == 1


def test_neighbouring_seeds_share_most_of_their_environments() -> None:
    def first_observations(seed: int) -> set[bytes]:
        env: Any = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 8)
        model = PPO("MlpPolicy", env, seed=seed, device="cpu")
        obs: Any = model.get_env().reset()  # type: ignore[union-attr]
        return {row.tobytes() for row in obs}

    assert len(first_observations(1) & first_observations(2)) == 7


def test_rollouts_keep_actions_in_float32() -> None:
    space = spaces.Box(-1, 1, (1,), np.float64)
    buffer = RolloutBuffer(1, space, space, device="cpu")
    action = np.full((1, 1), 0.1)
    buffer.add(action, action, np.zeros(1), np.ones(1), torch.zeros(1), torch.zeros(1))
    sample = next(buffer.get())
    assert sample.actions.dtype == torch.float32
