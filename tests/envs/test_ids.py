"""Names of environments: the newest version, hints, and missing packages."""

from typing import Any

import gymnasium as gym
import pytest

from zoo.envs.ids import make_env, resolve_id
from zoo.errors import UserError


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Pendulum", "Pendulum-v1"),
        ("CartPole", "CartPole-v1"),
        ("CartPole-v0", "CartPole-v0"),
        ("Acrobot", "Acrobot-v1"),
    ],
)
def test_names_mean_the_newest_version(name: str, meant: str) -> None:
    assert resolve_id(name) == meant


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Pendulumm", "did you mean 'Pendulum'"),
        ("pendulum", "did you mean 'Pendulum'"),
        ("CartPole-v7", "has no version '7'; known: CartPole-v0, CartPole-v1"),
        ("Zzz", "lists what is installed"),
    ],
)
def test_unknown_environments_are_refused_with_a_hint(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_id(name)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(env_id: str, **kwargs: Any) -> None:
        raise gym.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(UserError, match=r"pip install -e '\.\[box2d\]'"):
        make_env("LunarLander-v3")
