"""MinAtar's games: Atari in miniature, 10 x 10 with a plane for each kind of thing.     Young and Tian 2019

The package brings ids of its own, which nothing registers, and whose episodes begin with the last action of the one
before: with sticky actions, a seed would not decide an episode.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from zoo.spaces import Array

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
MODULES = {"SpaceInvaders": "space_invaders"}  # of the package, where it is not the name of the game
LONGEST = 10_000  # steps of an episode: no game but Freeway ends for those who play it well


class MinAtar(gym.Env[Array, np.int64]):
    """One of the games; an action is repeated with probability 0.1, and the game gets harder, as in the paper."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, game: str, *, minimal: bool = True, render_mode: str | None = None, **kwargs: Any) -> None:
        from minatar import Environment

        self.render_mode = render_mode
        self.game = Environment(MODULES.get(game, game.lower()), **kwargs)
        self.actions = self.game.minimal_action_set() if minimal else list(range(self.game.num_actions()))
        self.action_space = spaces.Discrete(len(self.actions))
        self.observation_space = spaces.Box(0, 1, tuple(self.game.state_shape()), np.bool_)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.game.seed(seed)
        self.game.last_action = 0
        self.game.reset()
        return self.game.state(), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        reward, terminated = self.game.act(self.actions[action])
        return self.game.state(), float(reward), bool(terminated), False, {}

    def render(self) -> Any:
        """Return a picture, (160, 160, 3): each cell in the colour of its last plane."""
        import matplotlib

        planes = self.game.state()
        colours = matplotlib.colormaps["cubehelix"](np.linspace(0, 1, planes.shape[-1] + 1))[:, :3]
        cells = (planes * (1 + np.arange(planes.shape[-1]))).max(-1)
        return np.kron((255 * colours[cells]).astype(np.uint8), np.ones((16, 16, 1), np.uint8))


def register() -> None:
    """Register MinAtar/Breakout-v1 and so on, whose actions are those of use in the game, as those of MinAtar's -v1."""
    for game in GAMES:
        if f"MinAtar/{game}-v1" not in gym.registry:
            gym.register(
                f"MinAtar/{game}-v1",
                entry_point=f"{__name__}:MinAtar",
                max_episode_steps=LONGEST,
                kwargs={"game": game},
            )
