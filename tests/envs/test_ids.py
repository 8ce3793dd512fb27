"""Names of environments: the newest version, hints, and missing packages."""

import sys
from typing import Any

import gymnasium as gym
import pytest

from zoo.envs import minatar
from zoo.envs.ids import is_supplied, make_env, resolve_id
from zoo.errors import UserError
from zoo.spec import is_atari


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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Pong", "ALE/Pong-v5"),
        ("ALE/Pong", "ALE/Pong-v5"),
        ("SpaceInvaders", "ALE/SpaceInvaders-v5"),
        ("Pong-v4", "Pong-v4"),
        ("PongNoFrameskip", "PongNoFrameskip-v4"),
        ("CartPole", "CartPole-v1"),
    ],
)
def test_a_bare_game_is_ales_newest(name: str, meant: str) -> None:
    pytest.importorskip("ale_py")
    for _ in range(2):  # ale_py brings a Pong-v4, too, once it is imported
        assert resolve_id(name) == meant


def test_another_environment_of_that_name_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py")
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    monkeypatch.setattr(gym, "registry", gym.envs.registration.registry)
    gym.register("Breakout-v3", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    assert resolve_id("Breakout") == "Breakout-v3"


@pytest.mark.parametrize("name", ["Pong", "ALE/Pong-v5"])
def test_a_game_without_ale_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    games = {known: spec for known, spec in gym.registry.items() if is_atari(known)}
    monkeypatch.setattr(gym, "registry", {k: spec for k, spec in gym.registry.items() if k not in games})
    with pytest.raises(UserError, match=r"Atari games need an extra: pip install -e '\.\[atari\]'"):
        resolve_id(name)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(env_id: str, **kwargs: Any) -> None:
        raise gym.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(UserError, match=r"pip install -e '\.\[box2d\]'"):
        make_env("LunarLander-v3")


@pytest.mark.parametrize(
    ("name", "supplied"),
    [
        ("CartPole-v1", True),
        ("FrozenLake-v1", True),
        ("LunarLander-v3", True),
        ("HalfCheetah-v5", True),
        ("MinAtar/Breakout-v1", True),
        ("phys2d/CartPole-v1", False),
        ("tabular/Blackjack-v0", False),
        ("GymV21Environment-v0", False),
        ("Elsewhere-v0", False),
        ("Ape-v0", False),
    ],
)
def test_what_a_folder_may_name_is_gymnasiums_own_or_an_extras(
    name: str, supplied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    minatar.register()
    monkeypatch.setattr(gym, "registry", dict(gym.registry))
    for own, entry in (("Elsewhere-v0", "gymnasium_envs.box2d:Env"), ("Ape-v0", "ale_python:Env")):
        monkeypatch.setitem(gym.registry, own, gym.envs.registration.EnvSpec(own, entry_point=entry))
    assert is_supplied(name) is supplied


def test_atari_games_are_supplied() -> None:
    pytest.importorskip("ale_py")
    assert is_supplied(resolve_id("Pong"))
