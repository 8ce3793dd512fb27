"""A run and its folder: settings resolved, an agent trained, everything about it written down.

config.json      resolved settings and their sources, versions, seeds, threads
metrics.jsonl    a row for each report: step, seconds, losses, returns
tensorboard/     the same as TensorBoard events
final/, best/    agents (safetensors and JSON): at the end, and at the best evaluation
last/            the agent of a run that was interrupted or failed
evaluation.json  returns of the fixed-seed evaluation episodes
"""

import copy
import json
import os
import platform
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.random import SeedSequence

from zoo import registry
from zoo.actors import Cluster, Inline, Job, Processes, Remote, Source
from zoo.agent import Agent, load_agent, read_json
from zoo.algos.base import Algorithm, Buffer
from zoo.compile import compile_step
from zoo.envs import EnvLike, Envs, resolve_id, vectorize
from zoo.errors import UserError
from zoo.loop import Evaluation, Report, evaluate, learn
from zoo.normalize import ObsNormalizer, RewardNormalizer
from zoo.settings import Settings, resolve
from zoo.spec import Spec
from zoo.taxonomy import Data

Row = dict[str, float]
RECENT_EPISODES = 100


@dataclass(frozen=True)
class Result:
    """What a finished run leaves: the agent, its settings, its evaluation, its duration and its folder (if any)."""

    agent: Agent
    settings: Settings
    evaluation: Evaluation | None
    seconds: float
    folder: Path | None


def train(
    algorithm: str,
    env: EnvLike,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    **settings: Any,
) -> Agent:
    """Train `algorithm` on `env` and return the agent; `settings` are any of the run's or the algorithm's own.

    `env` is an id ("Pendulum" means the newest version), a function that makes an environment, or an environment
    (alone, and so with the defaults rather than settings tuned for several).
    `preset` names settings of the registry that give way to those tuned for `env`: "sb3" is Stable-Baselines3's way.
    With `out`, the run is written into that folder, which must be new. A UserError (a ValueError) names a wrong
    setting before anything is trained.
    """
    prepared = prepare(algorithm, env, settings, source="argument", preset=preset)
    return run(prepared, env, out=None if out is None else Path(out)).agent


def prepare(
    algorithm: str, env: EnvLike, overrides: dict[str, Any], *, source: str, preset: str | None = None
) -> Settings:
    """Resolved settings, with a seed drawn where none is given."""
    env_id = resolve_id(env) if isinstance(env, str) else _name(env)
    # Tuned settings count on several environments; one environment object is trained with the defaults.
    use_tuned = not isinstance(env, gym.Env)
    settings = resolve(algorithm, env_id, overrides, source=source, preset=preset, use_tuned=use_tuned)
    if settings.run.seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
        settings = replace(settings, run=replace(settings.run, seed=seed))
    _check_engine(settings, env)
    if settings.run.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device {settings.run.device!r}: torch finds no CUDA GPU here; use --device cpu")
    return settings


def _check_engine(settings: Settings, env: EnvLike) -> None:
    """Refuse combinations that the data axis or the engine rules out, with the reason."""
    run = settings.run
    if run.lag and registry.load().cell_of(settings.algorithm).data is Data.ON:
        raise UserError(
            f"lag = {run.lag}: {settings.algorithm} is on-policy, it learns only from the policy that acts now"
        )
    if run.engine == "inline":
        if run.actors > 1:
            raise UserError(
                f"actors = {run.actors} need --engine processes or --engine ray; inline acts in this process"
            )
        return
    if run.lag:
        raise UserError(f"lag = {run.lag} is for --engine inline; actors elsewhere lag by themselves")
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


def run(
    settings: Settings,
    env: EnvLike,
    *,
    out: Path | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Result:
    """Train, evaluate and save as `settings` say; `on_row` sees each row of metrics as it is written.

    All randomness comes from the seed, in streams that share nothing: weights and noise, training episodes,
    evaluations for the best agent. The final evaluation has seeds of its own, the same for every run.
    """
    started = time.monotonic()
    env = settings.env if isinstance(env, str) else env
    make_stream, train_stream, validation_stream = SeedSequence(settings.run.seed).spawn(3)
    eval_env: EnvLike = copy.deepcopy(env) if isinstance(env, gym.Env) else env
    source: Source
    if settings.run.engine == "inline":
        algo, source, buffer = _inline(settings, env, make_stream, train_stream)
        spec, obs_normalizer = source.envs.spec, source.envs.obs_normalizer
    else:
        algo, source, buffer, spec = _remote(settings, env, make_stream, train_stream)
        obs_normalizer = None
    compile_step(algo, buffer, settings.run.compile, settings.run.total_steps)
    agent = Agent(settings.algorithm, algo, spec, obs_normalizer)
    threads = torch.get_num_threads()
    recorder = None
    try:
        recorder = Recorder(out, settings, agent, eval_env, validation_stream, started)
        torch.set_num_threads(settings.run.threads)
        for report in learn(algo, source, buffer, total_steps=settings.run.total_steps, log_every=log_every(settings)):
            on_row(recorder.record(report))
        return recorder.finish()
    except BaseException:
        if recorder is not None:
            recorder.rescue()
        raise
    finally:
        if recorder is not None:
            recorder.close()
        source.close()
        torch.set_num_threads(threads)


def _inline(
    settings: Settings, env: EnvLike, make_stream: SeedSequence, train_stream: SeedSequence
) -> tuple[Algorithm, Inline, Buffer]:
    run = settings.run
    vector = vectorize(env, run.num_envs, run.vec)
    envs = Envs(
        vector,
        train_stream,
        scale_actions=run.scale_actions,
        obs_normalizer=ObsNormalizer(vector.single_observation_space) if run.normalize_obs else None,
        reward_normalizer=RewardNormalizer(run.num_envs, settings.config.gamma) if run.normalize_reward else None,
    )
    algo = registry.make(settings.algorithm, envs.spec, settings.config, make_stream, run.device)
    buffer = algo.make_buffer(envs.spec, envs.num_envs)
    acting = None
    if run.lag:
        acting = registry.make(settings.algorithm, envs.spec, settings.config, make_stream.spawn(1)[0], run.device)
    return algo, Inline(algo, envs, copy=acting, lag=run.lag), buffer


def _make(name: str, config: Any, spec: Spec, seeds: SeedSequence) -> Algorithm:
    return registry.make(name, spec, config, seeds)


def _remote(
    settings: Settings, env: EnvLike, make_stream: SeedSequence, train_stream: SeedSequence
) -> tuple[Algorithm, Remote, Buffer, Spec]:
    run = settings.run
    vector = vectorize(env, 1)
    spec = Spec(vector.single_observation_space, vector.single_action_space, scale_actions=run.scale_actions)
    vector.close()
    algo = registry.make(settings.algorithm, spec, settings.config, make_stream, run.device)
    buffer = algo.make_buffer(spec, run.actors * run.num_envs)
    job = Job(
        make=partial(_make, settings.algorithm, settings.config),
        env=env,
        num_envs=run.num_envs,
        vec=run.vec,
        scale_actions=run.scale_actions,
        num_steps=buffer.num_steps,
        total_steps=run.total_steps,
        seeds=train_stream,
    )
    backend = Processes(algo, spec, job) if run.engine == "processes" else Cluster(spec, run.ray_address)
    return algo, Remote(algo, job, spec, backend, run.actors), buffer, spec


def log_every(settings: Settings) -> int:
    """Steps between reports."""
    return settings.run.log_every or max(settings.run.total_steps // 100, 1)


class Recorder:
    """Turns reports into rows, evaluates on the way, keeps the best agent, and writes the folder if there is one."""

    def __init__(
        self,
        folder: Path | None,
        settings: Settings,
        agent: Agent,
        eval_env: EnvLike,
        validation: SeedSequence,
        started: float,
    ) -> None:
        self.folder, self.settings, self.agent = folder, settings, agent
        self.eval_env, self.validation, self.started = eval_env, validation, started
        every = settings.run.eval_every
        self.eval_every = max(settings.run.total_steps // 10, 1) if every is None else every
        self.next_eval = self.eval_every
        self.returns: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.lengths: deque[int] = deque(maxlen=RECENT_EPISODES)
        self.best = -np.inf
        self.last = (0, started)
        if folder is not None:
            self._open(folder)

    def _open(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise UserError(f"{folder} exists already; two runs never share a folder: choose another --out") from None
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror}; choose another --out") from None
        from torch.utils.tensorboard import SummaryWriter

        (folder / "config.json").write_text(json.dumps(self.settings.to_json() | environment(), indent=2) + "\n")
        self.metrics = (folder / "metrics.jsonl").open("w", encoding="utf-8")
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"))

    def record(self, report: Report) -> Row:
        """The row of a report: step, seconds, steps per second, returns of the last episodes, losses, evaluation."""
        self.returns.extend(episode.episode_return for episode in report.episodes)
        self.lengths.extend(episode.length for episode in report.episodes)
        now = time.monotonic()
        row: Row = {
            "step": report.step,
            "seconds": now - self.started,
            "steps_per_second": (report.step - self.last[0]) / max(now - self.last[1], 1e-9),
        }
        if self.returns:
            row["episode_return"] = float(np.mean(self.returns))
            row["episode_length"] = float(np.mean(self.lengths))
        row |= report.metrics
        if self.eval_every and report.step >= self.next_eval:
            self.next_eval = report.step - report.step % self.eval_every + self.eval_every
            row["eval_return"] = self._validate()
        self.last = (report.step, time.monotonic())
        if self.folder is not None:
            self.metrics.write(json.dumps(row) + "\n")
            self.metrics.flush()
            for key, value in row.items():
                self.tensorboard.add_scalar(key, value, report.step)
        return row

    def _validate(self) -> float:
        episodes = self.settings.run.validation_episodes
        mean = evaluate(self.agent, self.eval_env, episodes=episodes, seed=self.validation).mean
        if mean > self.best:
            self.best = mean
            if self.folder is not None:
                self.agent.save(self.folder / "best")
        return mean

    def finish(self) -> Result:
        """Evaluate and save the final agent."""
        seconds = time.monotonic() - self.started
        episodes = self.settings.run.eval_episodes
        evaluation = evaluate(self.agent, self.eval_env, episodes=episodes) if episodes else None
        if self.folder is not None:
            self.agent.save(self.folder / "final")
            if not np.isfinite(self.best):
                self.agent.save(self.folder / "best")
            if evaluation is not None:
                summary = {"seconds": seconds} | evaluation.to_json()
                (self.folder / "evaluation.json").write_text(json.dumps(summary, indent=2) + "\n")
        return Result(self.agent, self.settings, evaluation, seconds, self.folder)

    def rescue(self) -> None:
        """Keep the agent as it is when a run stops early."""
        if self.folder is not None:
            self.agent.save(self.folder / "last")

    def close(self) -> None:
        """Close the files."""
        if self.folder is not None:
            self.metrics.close()
            self.tensorboard.close()


def environment() -> dict[str, Any]:
    """Versions and machine, for the record of a run."""
    packages = {"zoo": "actor-critic-zoo", **{name: name for name in ("torch", "numpy", "gymnasium")}}
    return {
        "versions": {"python": platform.python_version()} | {key: version(name) for key, name in packages.items()},
        "machine": {"system": platform.platform(), "processor": platform.machine()},
    }


def default_folder(settings: Settings) -> Path:
    """A folder that no other run has: runs/<algorithm>-<env>-s<seed>-<random>."""
    env = settings.env.replace("/", "-")
    return Path("runs") / f"{settings.algorithm}-{env}-s{settings.run.seed}-{uuid.uuid4().hex[:6]}"


def load(folder: str | Path, which: str = "final") -> Agent:
    """The agent of a run's folder (`which`: final or best; last where a run stopped early), or of its own folder."""
    folder = Path(folder)
    kept = [folder / name for name in (which, "last") if (folder / name).is_dir()]
    return load_agent(kept[0] if kept else folder)


def settings_of(folder: Path) -> dict[str, Any]:
    """The stored settings of a run's folder; a UserError unless they name a known algorithm and an environment."""
    file = folder / "config.json"
    if not os.path.lexists(file):
        raise UserError(f"{folder} is not a run's folder: it has no config.json")
    data = read_json(file)
    names = [data.get("algorithm"), data.get("env")] if isinstance(data, dict) else [None]
    if not all(isinstance(name, str) and len(name) <= 100 for name in names):
        raise UserError(f"{file} does not describe a run: it names no algorithm and environment")
    registry.get(data["algorithm"])
    return data
