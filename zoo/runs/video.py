"""Agents at play: in a window, or written to a GIF or a video."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.random import SeedSequence

from zoo.envs.envs import episode_seed
from zoo.envs.ids import make_env
from zoo.envs.sync import Guard
from zoo.errors import EnvError, UserError
from zoo.spec import Spec
from zoo.storage.agent import Agent
from zoo.training.evaluation import EVALUATION


def play(agent: Agent, env_id: str, *, episodes: int, seed: int) -> list[float]:
    """Show episodes in a window; returns their returns. The episodes are those that `evaluate` runs first."""
    env = Guard(make_env(env_id, render_mode="human"), 0)
    try:
        return [sum(_rewards(agent, env, number, seed)) for number in range(episodes)]
    finally:
        env.close()


def write(agent: Agent, env_id: str, file: Path, *, episodes: int, seed: int) -> list[float]:
    """Write episodes to a .gif, .mp4 or .webm file; returns their returns."""
    import imageio.v3 as imageio

    if file.suffix not in (".gif", ".mp4", ".webm"):
        raise UserError(f"{file} ends in {file.suffix or 'nothing'!r}; expected .gif, .mp4 or .webm")
    if file.suffix != ".gif":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise UserError(f"{file.suffix} files need an extra: pip install -e '.[video]'") from None
    env = Guard(make_env(env_id, render_mode="rgb_array"), 0)
    frames: list[Any] = []
    returns = []
    for number in range(episodes):
        total = 0.0
        for reward in _rewards(agent, env, number, seed):
            total += reward
            frames.append(_frame(env, frames[:1]))
        returns.append(total)
    fps = env.metadata.get("render_fps", 30)
    env.close()
    try:
        if file.suffix == ".gif":
            imageio.imwrite(file, frames, duration=1000 / fps, loop=0)
        else:
            imageio.imwrite(file, frames, fps=fps)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None
    return returns


def _frame(env: gym.Env[Any, Any], first: list[Any]) -> Any:
    """A picture, (height, width, 3), of one size with the first. Raises EnvError for anything else."""
    frame: Any = env.render()
    shape = first[0].shape if first else (*np.shape(frame)[:2], 3)
    if not isinstance(frame, np.ndarray) or frame.shape != shape:
        raise EnvError(f"the environment rendered {type(frame).__name__} {np.shape(frame)}; expected an array {shape}")
    return frame


def _rewards(agent: Agent, env: gym.Env[Any, Any], number: int, seed: int) -> Iterator[float]:
    """Play one episode, yielding the reward of each step."""
    obs, _ = env.reset(seed=episode_seed(SeedSequence(seed, spawn_key=(EVALUATION,)), number))
    agent.spec.check_same(Spec(env.observation_space, env.action_space))
    ended = False
    while not ended:
        action, _ = agent.predict(obs)
        obs, reward, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        yield float(reward)
