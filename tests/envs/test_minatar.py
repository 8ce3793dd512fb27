"""MinAtar's games: their spaces, and episodes that a seed decides."""

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from zoo.envs.ids import make_env, resolve_id
from zoo.envs.minatar import GAMES
from zoo.errors import UserError

# Young and Tian 2019, section 4: planes, and actions with an effect, of each game.
SIZES = {"Asterix": (4, 5), "Breakout": (4, 3), "Freeway": (7, 3), "Seaquest": (10, 6), "SpaceInvaders": (6, 4)}


def needs_minatar() -> Any:
    return pytest.importorskip("minatar", reason="needs pip install -e '.[minatar]'")


@pytest.mark.parametrize("game", GAMES)
def test_games_are_planes_of_ten_by_ten(game: str) -> None:
    needs_minatar()
    planes, actions = SIZES[game]
    for minimal, count in ((False, 6), (True, actions)):
        env = make_env(resolve_id(f"MinAtar/{game}-v1"), minimal=minimal)
        assert env.observation_space == gym.spaces.Box(0, 1, (10, 10, planes), np.bool_)
        assert env.action_space == gym.spaces.Discrete(count)
        assert env.reset(seed=0)[0] in env.observation_space


def episode(env: gym.Env[Any, Any], seed: int) -> list[Any]:
    found: list[Any] = [env.reset(seed=seed)[0].tolist()]
    for t in itertools.count():
        obs, *rest, _ = env.step(np.int64((t * t) % 3))
        found.append((obs.tolist(), *rest))
        if rest[1] or rest[2] or t > 200:
            return found
    raise AssertionError


@pytest.mark.parametrize("game", GAMES)
def test_an_episode_depends_on_its_seed_alone(game: str) -> None:
    needs_minatar()
    env = make_env(f"MinAtar/{game}-v1")
    for seed in range(20):
        again = episode(env, seed), env.step(np.int64(2)), episode(env, seed)  # a last action that is none of its own
        assert again[0] == again[2] == episode(make_env(f"MinAtar/{game}-v1"), seed)


def test_a_picture_shows_each_plane_in_a_colour_of_its_own() -> None:
    needs_minatar()
    env = make_env("MinAtar/Breakout-v1", render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(2):  # the ball leaves the bricks
        env.step(0)
    picture: Any = env.render()
    assert (picture.shape, picture.dtype) == ((160, 160, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 5  # nothing, paddle, ball, trail, bricks


def test_a_name_without_a_version_means_the_newest() -> None:
    assert resolve_id("MinAtar/Breakout") == "MinAtar/Breakout-v1"
    with pytest.raises(UserError, match="unknown environment 'MinAtar/Break'"):
        resolve_id("MinAtar/Break")


def test_the_extra_is_named_where_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minatar", None)
    with pytest.raises(UserError, match=r"needs a package that is not installed: pip install -e '\.\[minatar\]'"):
        make_env(resolve_id("MinAtar/Breakout-v1"))
