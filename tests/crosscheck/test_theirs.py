"""Twins in Stable-Baselines3 get our settings."""

from typing import Any

import pytest
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from zoo import registry
from zoo.config import field_info
from zoo.crosscheck import data, theirs, updates
from zoo.crosscheck.sb3 import COUNTERPARTS
from zoo.settings import resolve


@pytest.mark.parametrize(
    ("name", "settings", "noise", "ignored"),
    [
        ("sac", {}, None, []),
        ("sac", {"noise": "ou", "noise_std": 0.5}, OrnsteinUhlenbeckActionNoise, []),
        ("ddpg", {}, NormalActionNoise, []),
        ("td3", {"noise": "none"}, None, []),
        ("ddpg", {"n_step": 3}, NormalActionNoise, []),
        ("dqn", {"n_step": 3, "loss": "mse"}, None, ["loss"]),
        ("ppo", {"learning_rate_end": 0, "clip_eps_end": 0, "optimizer_eps": 1e-8}, None, ["optimizer_eps"]),
        ("a2c", {"optimizer": "adam", "log_std_init": -1}, None, []),
    ],
)
def test_a_twin_follows_every_setting_or_names_it(
    name: str, settings: dict[str, Any], noise: type | None, ignored: list[str]
) -> None:
    resolved = resolve(name, "CartPole-v1" if name == "dqn" else "Pendulum-v1", settings, use_tuned=False)
    model = theirs.model(resolved)
    assert type(getattr(model, "action_noise", None)) is (noise or type(None))
    assert getattr(model, "n_steps", 1) == settings.get("n_step", 1) or name in ("ppo", "a2c")
    assert theirs.ignored(resolved) == ignored


@pytest.mark.parametrize("name", sorted(COUNTERPARTS))
def test_settings_of_twins_are_ours(name: str) -> None:
    assert set(COUNTERPARTS[name].shared.split()) <= set(field_info(registry.load_class(name).Config))


def test_twins_are_those_of_the_preset_and_all_are_compared() -> None:
    entries = registry.load().algorithms.items()
    assert COUNTERPARTS.keys() == {name for name, entry in entries if "sb3" in entry.presets}
    assert COUNTERPARTS.keys() == data.CHECKS.keys() == updates.CHECKS.keys()


@pytest.mark.parametrize("clipped", [True, False])
def test_a_twin_learns_from_clipped_rewards_where_ours_does(clipped: bool) -> None:
    env = theirs.model(resolve("ppo", "Pendulum-v1", {"clip_reward": clipped}, use_tuned=False)).get_env()
    env.seed(0)
    env.reset()
    assert (env.step(env.action_space.sample()[None])[1] == -1).all() == clipped
