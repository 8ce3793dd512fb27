"""Agents at play: in a window, or written to a GIF or a video."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.random import SeedSequence

from zoo.envs.envs import episode_seed
from zoo.envs.sync import _guarded
from zoo.envs.task import EnvLike, Task, complete
from zoo.errors import EnvError, StorageError, UserError
from zoo.spec import Spec
from zoo.storage.agent import Agent
from zoo.storage.files import Folder, open_folder
from zoo.training.evaluation import EVALUATION

CODECS = {".mp4": "libx264", ".webm": "libvpx-vp9"}  # of ffmpeg


def play(agent: Agent, env: EnvLike | Task, *, episodes: int, seed: int) -> list[float]:
    """Show episodes in a window; returns their returns. The episodes are those that `evaluate` runs first.

    Raises UserError if there is no screen.
    """
    if not _has_screen():
        raise UserError("there is no screen here; add --video FILE.gif to write what a window would show")
    _silence()
    task = complete(env, agent.spec)
    with task.importing(), closing(_rendering(task, "human")) as shown:
        return [sum(_rewards(agent, shown, number, seed)) for number in range(episodes)]


def _has_screen() -> bool:
    return bool(sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _silence() -> None:
    """Keep pygame from its greeting and SDL from complaints about sound, and about a screen where there is none."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if not _has_screen():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def write(
    agent: Agent,
    env: EnvLike | Task,
    file: Path,
    *,
    episodes: int,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> list[float]:
    """Write episodes to a .gif, .mp4 or .webm file; returns their returns. `say` gets what begins, which may take long.

    Raises UserError if the suffix is another or the folder is missing, and StorageError if the file cannot be written.
    """
    if file.suffix not in (".gif", ".mp4", ".webm"):
        raise UserError(f"{file} ends in {file.suffix or 'nothing'!r}; expected .gif, .mp4 or .webm")
    if file.suffix != ".gif":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise UserError(f"{file.suffix} files need an extra: pip install -e '.[video]'") from None
    _silence()
    with open_folder(file.parent) as folder:
        _check_writable(folder, file.name)
        say(f"playing {episodes:,} episode{'s' if episodes > 1 else ''}")
        returns, frames, fps = _film(agent, complete(env, agent.spec), episodes, seed)
        say(f"writing {len(frames):,} pictures to {file}")
        folder.write_product(file.name, _encode(file, frames, fps))
    return returns


def _check_writable(folder: Folder, name: str) -> None:
    """Raise StorageError if no file can be written to a folder: before anything is played."""
    part = f"{name}.part"
    try:
        if folder.exists(part):
            folder.remove(part)
        folder.create(part).close()
        folder.remove(part)
    except OSError as error:
        raise StorageError(f"{folder.path / name} cannot be written: {error.strerror}") from None


def _film(agent: Agent, task: Task, episodes: int, seed: int) -> tuple[list[float], list[Any], float]:
    """Play episodes; returns their returns, the pictures of all steps, and how many of these make a second."""
    frames: list[Any] = []
    returns = []
    with task.importing(), closing(_rendering(task, "rgb_array")) as env:
        for number in range(episodes):
            total = 0.0
            for reward in _rewards(agent, env, number, seed):
                total += reward
                frames.append(_frame(env, frames[:1]))
            returns.append(total)
        return returns, frames, env.metadata.get("render_fps", 30)


def _rendering(task: Task, mode: str) -> gym.Env[Any, Any]:
    """Make an environment that draws pictures, or a window. Raises UserError if it is made for neither."""
    try:
        return _guarded(partial(task, render_mode=mode), 0)
    except (UserError, TypeError) as error:
        if not any(text in str(error) for text in ("'render_mode'", "takes no arguments")):
            raise
        raise UserError(
            f"{_named(task)} cannot be watched: it takes no argument render_mode; let it take one, keep it as "
            f"self.render_mode, and return a picture from render() where it is 'rgb_array'"
        ) from error


def _named(task: Task) -> str:
    return task.env if isinstance(task.env, str) else str(getattr(task.env, "__name__", "the environment"))


def _encode(file: Path, frames: list[Any], fps: float) -> bytes:
    """Encode a video in memory: imageio leaves a part of a file that it cannot write."""
    import imageio.v3 as imageio

    options: dict[str, Any] = {"duration": 1000 / fps, "loop": 0}
    if file.suffix != ".gif":
        options = {"fps": fps, "codec": CODECS[file.suffix], "ffmpeg_log_level": "error"}
    try:
        return imageio.imwrite("<bytes>", frames, extension=file.suffix, **options)
    except OSError as error:  # of ffmpeg, which needs a temporary file
        raise StorageError(f"{file} cannot be encoded: {' '.join(str(error).split()):.300}") from error


def _frame(env: gym.Env[Any, Any], first: list[Any]) -> Any:
    """Return a picture, (height, width, 3). Raises EnvError if it is none, or not of one size with the first."""
    frame: Any = env.render()
    shape = first[0].shape if first else (*np.shape(frame)[:2], 3)
    if not isinstance(frame, np.ndarray) or frame.shape != shape:
        raise EnvError(f"the environment rendered {type(frame).__name__} {np.shape(frame)}; expected an array {shape}")
    return frame


def _rewards(agent: Agent, env: gym.Env[Any, Any], number: int, seed: int) -> Iterator[float]:
    """Play one episode, yielding the reward of each step."""
    agent.spec.check_same(Spec(env.observation_space, env.action_space))
    obs, _ = env.reset(seed=episode_seed(SeedSequence(seed, spawn_key=(EVALUATION,)), number))
    ended = False
    while not ended:
        encoded = agent.spec.encode_obs(np.asarray(obs)[None], 1)
        obs, reward, terminated, truncated, _ = env.step(agent.respond(encoded)[0])
        ended = terminated or truncated
        yield float(reward)
