"""Settings of a run that begins, resolved and checked."""

import os
import re
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from zoo import registry
from zoo.envs.ids import resolve_id, runs_code
from zoo.envs.task import EnvLike, Task
from zoo.errors import UserError
from zoo.runs.resumed import OF_ENVIRONMENTS
from zoo.settings import Settings, resolve
from zoo.taxonomy import Data


def prepare(
    algorithm: str, env: EnvLike, overrides: dict[str, Any], *, source: str, preset: str | None = None
) -> Settings:
    """Resolve settings, and draw a seed if none is given. Raises UserError if a setting is wrong or impossible here."""
    env_id = resolve_id(env) if isinstance(env, str) else _name(Task(env).env)
    # Tuned settings count on several environments; one environment object is trained with the defaults.
    use_tuned = not isinstance(env, gym.Env)
    settings = resolve(algorithm, env_id, overrides, source=source, preset=preset, use_tuned=use_tuned)
    if settings.run.seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
        settings = replace(settings, run=replace(settings.run, seed=seed))
    check_possible(settings, env)
    return settings


def task_of(settings: Settings, env: EnvLike | None = None, *, recorded: bool = False) -> Task:
    """Return what makes the environments of a run; `env`, if it is given, takes the place of the name in `settings`.

    `recorded` says that this name was read from the folder of a run.
    """
    described = {field: getattr(settings.run, name) for name, field in OF_ENVIRONMENTS.items()}
    return Task(settings.env if env is None or isinstance(env, str) else env, recorded=recorded, **described)


def check_possible(settings: Settings, env: EnvLike) -> None:
    """Raise UserError, with the reason, if the machine, the data axis or the engine rules a setting out."""
    run = settings.run
    if run.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device {run.device!r}: torch finds no CUDA GPU here; use --device cpu")
    if run.lag and registry.load().cell_of(settings.algorithm).data is Data.ON:
        raise UserError(
            f"lag = {run.lag}: {settings.algorithm} is on-policy, it learns only from the policy that acts now"
        )
    if run.clip_reward and run.normalize_reward:
        raise UserError("rewards are clipped to their signs, or normalised, not both: --no-clip-reward drops the first")
    if run.stop_at is not None and run.eval_every is not None and not 0 < run.eval_every <= run.total_steps:
        checks = f"eval_every = {run.eval_every:,} makes none in {run.total_steps:,} steps"
        raise UserError(f"stop_at = {run.stop_at:g} needs checks on the way, but {checks}")
    if run.engine == "inline":
        if run.actors > 1:
            raise UserError(
                f"actors = {run.actors} need --engine processes or --engine ray; inline acts in this process"
            )
        return
    if run.lag:
        raise UserError(f"lag = {run.lag} is for --engine inline; actors elsewhere lag by themselves")
    if run.vec == "async":
        raise UserError(f"--vec async is for --engine inline; with {run.engine}, take more --actors with --vec sync")
    if run.normalize_obs or run.normalize_reward:
        raise UserError(
            f"normalisation needs --engine inline: with {run.engine}, each actor would have its own statistics"
        )
    if isinstance(env, gym.Env):
        raise UserError(f"--engine {run.engine} makes environments elsewhere; pass an id or a function that makes one")


def _name(env: EnvLike) -> str:
    if isinstance(env, gym.Env):
        return env.spec.id if env.spec else type(env.unwrapped).__name__
    return str(getattr(env, "__name__", type(env).__name__))


def taken(folder: Path) -> UserError:
    """Return what refuses a folder that exists."""
    return UserError(f"{folder} exists already; two runs never share a folder: choose another --out")


def check_new(folder: Path) -> None:
    """Raise UserError if there is something of this name, or if its place is in no folder."""
    if os.path.lexists(folder):
        raise taken(folder)
    above = next(each for each in folder.absolute().parents if os.path.lexists(each))
    if not os.path.isdir(above):
        raise UserError(f"{folder} cannot be made: {above} is no folder; choose another --out")


def default_folder(settings: Settings) -> Path:
    """Return a folder that no other run has: runs/<algorithm>-<env>-s<seed>-<random>."""
    env = re.sub(r"[^\w.-]+", "-", settings.env.rpartition("/")[2] if runs_code(settings.env) else settings.env)
    return Path("runs") / f"{settings.algorithm}-{env}-s{settings.run.seed}-{uuid.uuid4().hex[:6]}"
