"""An environment as settings describe it: made wherever it is needed, in actors, for evaluations, to be watched."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from zoo.envs.flatten import Flattened
from zoo.envs.ids import load_name, make_env, resolve_id
from zoo.errors import UserError, brief, located, told
from zoo.machine import nothing_from_here
from zoo.spaces import Flat, Stacked, shown
from zoo.spec import Spec, is_atari

SCREEN = (84, 84)

EnvLike = str | gym.Env[Any, Any] | Callable[..., gym.Env[Any, Any]]


class FrameStack(FrameStackObservation[Any, Any, Any]):
    """gymnasium's stack of the last observations, whose space says that it is one."""

    def __init__(self, env: gym.Env[Any, Any], frames: int) -> None:
        super().__init__(env, frames)
        if isinstance(env.observation_space, gym.spaces.Box):
            self.observation_space = Stacked(env.observation_space, frames)


class Borrowed(gym.Wrapper[Any, Any, Any, Any]):
    """A caller's own environment, which stays open when we are done with it."""

    def close(self) -> None:
        """Leave it open."""


@dataclass(frozen=True)
class Task:
    """What makes an environment, with which arguments, and what is put around it: calling it makes one.

    `env` is an id, the name of an object in a file, a function that makes an environment, or an environment itself.
    `atari` puts gymnasium's AtariPreprocessing around one of ale_py's games. `recorded` says that nobody but a run's
    folder has named `env`: then it imports nothing from the working directory, which may be a stranger's, too.
    """

    env: EnvLike
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrap: tuple[str, ...] = ()
    frame_stack: int = 1
    action_masks: bool = False
    atari: bool = False
    recorded: bool = False

    def importing(self) -> AbstractContextManager[None]:
        """Return what must surround all that makes the environment import something."""
        return nothing_from_here() if self.recorded else nullcontext()

    def __post_init__(self) -> None:
        if not (isinstance(self.env, str | gym.Env) or callable(self.env)):
            kinds = "the name of an environment, an environment, or a function that makes one"
            raise UserError(f"the environment is {told(self.env, repr):.50}; expected {kinds}")

    @property
    def plain_id(self) -> str | None:
        """The id, if it alone, with its arguments, says how to make the environment."""
        is_bare = not self.wrap and self.frame_stack == 1 and not self.action_masks and not self.atari
        return resolve_id(self.env) if isinstance(self.env, str) and is_bare else None

    def __call__(self, **more: Any) -> gym.Env[Any, Any]:
        """Make the environment; `more` are arguments of this one alone. Raises UserError if it cannot be made."""
        kwargs = {**self.kwargs, **more}
        with self.importing():
            env = _preprocessed(self.env, kwargs) if self.atari else self._bare(kwargs)
        for name in self.wrap:
            env = _wrapped(env, name)
        if self.frame_stack > 1:
            env = FrameStack(env, self.frame_stack)
        return Flattened(env, action_masks=True) if self.action_masks else env

    def _bare(self, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
        if isinstance(self.env, gym.Env):
            if self.kwargs:
                raise UserError("env_kwargs are for an id or a function that makes an environment; this one is made")
            return Borrowed(self.env)
        if isinstance(self.env, str):
            return make_env(resolve_id(self.env), **kwargs)
        return _checked(self.env(**kwargs), self.env)


def complete(env: "EnvLike | Task", spec: Spec) -> Task:
    """Return the task of an agent with `spec` in `env`: what its run put around the environment comes along."""
    if isinstance(env, Task):
        return env
    space = spec.observation_space
    space = space.source if isinstance(space, Flat) else space  # masks stand behind stacks
    frames = space.frames if isinstance(space, Stacked) else 1
    atari = isinstance(env, str) and is_atari(resolve_id(env)) and spec.obs_shape[-2:] == SCREEN
    return Task(env, frame_stack=frames, action_masks=spec.num_masks > 0, atari=atari)


def _preprocessed(env: EnvLike, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    """Make one of ale_py's games, and put gymnasium's AtariPreprocessing around it. Raises UserError for others.

    A lost life ends no episode: the wrapper would begin a new game there, and none would be learned beyond its first
    life. So training and evaluation have the same task.     (Machado et al. 2018, section 4, advise against it, too)
    """
    name = resolve_id(env) if isinstance(env, str) else str(env)
    if not is_atari(name):
        raise UserError(f"--atari is for ale_py's games; {name} is none")
    game = make_env(name, **{"frameskip": 1, **kwargs})
    try:
        if len(game.observation_space.shape or ()) < 2:
            raise UserError(f"{name} observes {shown(game.observation_space)}, no pictures; add --no-atari")
        return AtariPreprocessing(game, noop_max=30, frame_skip=4, screen_size=SCREEN)
    except gym.error.DependencyNotInstalled:
        raise UserError("pictures of Atari games need a package that is missing: pip install -e '.[atari]'") from None
    except (TypeError, ValueError) as error:
        raise UserError(brief(f"{name} with {kwargs}: {error}; --no-atari leaves the game as it is")) from None


def _wrapped(env: gym.Env[Any, Any], name: str) -> gym.Env[Any, Any]:
    wrapper = load_name(name, "wrap")
    try:
        return _checked(wrapper(env), wrapper)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"--wrap {name} fails on {env}: {located(error)}; it is called with the environment alone"
        ) from error


def _checked(env: Any, maker: Any) -> gym.Env[Any, Any]:
    if not isinstance(env, gym.Env):
        name = getattr(maker, "__name__", told(maker))
        raise UserError(f"{name} returned {type(env).__name__}; expected a gymnasium.Env")
    return env
