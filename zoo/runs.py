"""A run and its folder: settings resolved, an agent trained, everything about it written down.

config.json      resolved settings and their sources, versions, seeds, threads
metrics.jsonl    a row for each report: step, seconds, losses, returns
tensorboard/     the same as TensorBoard events
final/, best/    agents (safetensors and JSON): at the end, and at the best evaluation
last/            the agent of a run that was interrupted or failed
checkpoints/     all of the run's state, to go on from
evaluation.json  returns of the fixed-seed evaluation episodes
notes.txt        when standard output went away, if it did
"""

import copy
import os
import shlex
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence

from zoo import checkpoint, registry
from zoo.actors import Cluster, Inline, Job, Processes, Remote, Source
from zoo.agent import Agent, load_agent
from zoo.algos.base import Algorithm, Buffer
from zoo.checkpoint import EVERY, Keeper, Stopper, hold, interval
from zoo.compile import compile_step
from zoo.config import build
from zoo.envs import Envs, autoreset_mode
from zoo.errors import UserError
from zoo.files import open_folder
from zoo.loop import Learner
from zoo.machine import processor
from zoo.normalize import ObsNormalizer, RewardNormalizer
from zoo.recorder import CONFIG, Recorder, Result, Row, environment
from zoo.settings import Run, Settings, resolve
from zoo.spec import Spec
from zoo.taxonomy import Data
from zoo.untrusted import Budget, read_json
from zoo.vector import EnvLike, resolve_id, vectorize

# What a run's folder may ask for unrepeated: environments in all, and processes for each core.
ENVIRONMENTS, PROCESSES = 1024, 4


def train(
    algorithm: str,
    env: EnvLike,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    checkpoint_every: str | int = EVERY,
    **settings: Any,
) -> Agent:
    """Train `algorithm` on `env` and return the agent; `settings` are any of the run's or the algorithm's own.

    `env` is an id ("Pendulum" means the newest version), a function that makes an environment, or an environment
    (alone, and so with the defaults rather than settings tuned for several).
    `preset` names settings of the registry that give way to those tuned for `env`: "sb3" is Stable-Baselines3's way.
    With `out`, the run is written into that folder, which must be new, with a checkpoint every so many steps, or
    minutes ("5min"), from which `resume` goes on. A UserError (a ValueError) names a wrong setting before anything is
    trained.
    """
    prepared = prepare(algorithm, env, settings, source="argument", preset=preset)
    return run(prepared, env, out=None if out is None else Path(out), checkpoint_every=checkpoint_every).agent


def resume(
    folder: str | Path,
    env: EnvLike | None = None,
    *,
    total_steps: int | None = None,
    checkpoint_every: str | int = EVERY,
    on_row: Callable[[Row], None] = lambda row: None,
    **repeated: Any,
) -> Result:
    """Go on with the run in `folder` from its newest checkpoint, as if it had never stopped.

    `repeated` are settings of the run (engine, ray_address, actors, num_envs): the folder may be a stranger's, so what
    would talk to a cluster, or start more than this machine has cores for, must be asked for by the caller, too.
    `env` is needed where the run was not trained on an environment's id. `total_steps` replaces the run's own: what
    follows the fraction of the run that is done (learning rates, exploration) then follows the new one. A UserError
    where there is no checkpoint, or none that fits; warnings say what makes the run differ from an uninterrupted one.
    """
    folder = Path(folder)
    settings = resumed_settings(folder, total_steps, repeated)
    for line in _changes(settings, settings_of(folder)):
        warnings.warn(line, stacklevel=2)
    _check_engine(settings, env or settings.env)
    return run(
        settings, env or settings.env, out=folder, checkpoint_every=checkpoint_every, resumed=True, on_row=on_row
    )


def resumed_settings(folder: Path, total_steps: int | str | None, repeated: Mapping[str, Any]) -> Settings:
    """The settings of a run's folder, with another budget if one is given.

    Raises UserError where they are none, or reach further than `repeated` allows.
    """
    settings = Settings.from_json(settings_of(folder), str(folder / CONFIG))
    _check_reach(folder, settings.run, repeated)
    if total_steps is None:
        return settings
    changed = build(Run, asdict(settings.run) | {"total_steps": total_steps}, "--resume")
    return replace(settings, run=changed, sources=settings.sources | {"total_steps": "resume"})


def _check_reach(folder: Path, run: Run, repeated: Mapping[str, Any]) -> None:
    """Raise UserError unless the caller repeats what leads to other machines, or beyond what this one has."""
    same = build(Run, repeated, "--resume")
    for name in repeated:
        mine, theirs = getattr(same, name), getattr(run, name)
        if mine != theirs:
            raise UserError(
                f"{folder} has {name} = {theirs!r}, not {mine!r}; --resume repeats settings, and changes none"
            )
    needed = [name for name in ("engine", "ray_address") if run.engine == "ray" and getattr(run, name) is not None]
    reasons = ["a Ray cluster"] if needed else []
    environments, cores = run.actors * run.num_envs, os.cpu_count() or 1
    processes = (run.actors if run.engine != "inline" else 0) + (environments if run.vec == "async" else 0)
    if processes > PROCESSES * cores or environments > ENVIRONMENTS:
        needed += ["actors", "num_envs"]
        sum_of = f"actors {run.actors:,} x num_envs {run.num_envs:,} = {environments:,} environments"
        reasons.append(f"{sum_of} in {max(processes, 1):,} processes on {cores} cores")
    missing = [name for name in needed if name not in repeated]
    if missing:
        flags = " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(getattr(run, name)))}" for name in needed)
        raise UserError(
            f"{folder} asks for {' and '.join(reasons)}, and a run's folder may be a stranger's; to go on, repeat it: "
            f"zoo run --resume {shlex.quote(str(folder))} {flags}"
        )


def _changes(settings: Settings, stored: dict[str, Any]) -> list[str]:
    """What makes the run another one than that which began: its budget, versions, the machine."""
    lines = []
    before, after = stored["run"]["total_steps"], settings.run.total_steps
    if before != after:
        lines.append(
            f"the budget changes from {before:,} to {after:,} steps; what follows the fraction done (learning rates, "
            f"exploration, evaluations every 10%) follows the new one, as in no run of {after:,} steps from the start"
        )
    now = environment()
    changed = [
        f"{name} {theirs} -> {mine}"
        for part in now
        for name, mine in now[part].items()
        if isinstance(stored.get(part), dict) and (theirs := stored[part].get(name)) != mine
    ]
    if changed:
        lines.append(f"the run will not go on bit for bit; changed since it began: {', '.join(changed)}")
    return lines


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
    checkpoint_every: str | int = EVERY,
    resumed: bool = False,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Result:
    """Train, evaluate and save as `settings` say; `on_row` sees each row of metrics as it is written.

    With `resumed`, `out` is the folder of a run that goes on from its newest checkpoint.

    All randomness comes from the seed, in streams that share nothing: weights and noise, training episodes,
    evaluations for the best agent. The final evaluation has seeds of its own, the same for every run.
    """
    started, every = time.monotonic(), interval(checkpoint_every)
    env = settings.env if isinstance(env, str) else env
    make_stream, train_stream, validation_stream = SeedSequence(settings.run.seed).spawn(3)
    eval_env: EnvLike = copy.deepcopy(env) if isinstance(env, gym.Env) else env
    # The settings of a run that is resumed may be a stranger's: its networks must fit the size of its checkpoint.
    with _budget(out) if resumed and out is not None else nullcontext():
        learner, agent = assemble(settings, env, make_stream, train_stream)
    recorder = Recorder(settings, agent, eval_env, validation_stream, started)
    with ExitStack() as stack:
        stack.callback(learner.source.close)
        stack.enter_context(processor(settings.run.threads, settings.run.precision))
        if out is None:
            stopper = stack.enter_context(Stopper())
        else:
            folder = stack.enter_context(hold(out, resumed=resumed))
            stopper = keeper = stack.enter_context(Keeper(folder, learner, recorder, every))
            if resumed:
                for line in keeper.resume():
                    warnings.warn(line, stacklevel=2)
            recorder.open(folder, learner.step if resumed else None)
            stack.callback(recorder.close)
        return _train(learner, recorder, stopper, on_row)


@contextmanager
def _budget(path: Path) -> Iterator[None]:
    """Make networks of no more bytes than the checkpoint in a run's folder warrants."""
    with open_folder(path) as folder, Budget(checkpoint.budget(folder)):
        yield


def _train(learner: Learner, recorder: Recorder, stopper: Stopper, on_row: Callable[[Row], None]) -> Result:
    settings = recorder.settings
    steps, every = settings.run.total_steps, log_every(settings)
    try:
        reports = learner.reports(total_steps=steps, log_every=every, on_step=stopper.on_step)
        for row in recorder.rows(reports, stopper.on_step):
            on_row(row)
        stopper.save()
        return recorder.finish(stopper.on_step)
    except BaseException:
        recorder.rescue()
        raise


def assemble(
    settings: Settings, env: EnvLike, make_stream: SeedSequence, train_stream: SeedSequence
) -> tuple[Learner, Agent]:
    """What trains, and the agent that it trains, as `settings` say; both untrained."""
    source: Source
    if settings.run.engine == "inline":
        algo, source, buffer = _inline(settings, env, make_stream, train_stream)
        spec, obs_normalizer = source.envs.spec, source.envs.obs_normalizer
    else:
        algo, source, buffer, spec = _remote(settings, env, make_stream, train_stream)
        obs_normalizer = None
    compile_step(algo, buffer, settings.run.compile, settings.run.total_steps)
    return Learner(algo, source, buffer), Agent(settings.algorithm, algo, spec, obs_normalizer)


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
    vector = vectorize(env, 1, run.vec)
    spec = Spec(vector.single_observation_space, vector.single_action_space, scale_actions=run.scale_actions)
    mode = autoreset_mode(vector)
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
        # Each episode may end in a row that only resets.
        max_rows=buffer.num_steps * (2 if mode is AutoresetMode.NEXT_STEP else 1),
        total_steps=run.total_steps,
        seeds=train_stream,
    )
    backend = Processes(algo, spec, job) if run.engine == "processes" else Cluster(spec, run.ray_address)
    return algo, Remote(algo, job, spec, backend, run.actors), buffer, spec


def log_every(settings: Settings) -> int:
    """Steps between reports."""
    return settings.run.log_every or max(settings.run.total_steps // 100, 1)


def default_folder(settings: Settings) -> Path:
    """A folder that no other run has: runs/<algorithm>-<env>-s<seed>-<random>."""
    env = settings.env.replace("/", "-")
    return Path("runs") / f"{settings.algorithm}-{env}-s{settings.run.seed}-{uuid.uuid4().hex[:6]}"


def load(folder: str | Path, which: str = "final") -> Agent:
    """The agent of a run's folder (`which`: final or best; last where a run stopped early), or of its own folder."""
    with open_folder(Path(folder)) as run:
        for name in (which, "last"):
            if run.exists(name):
                with run.folder(name) as kept:
                    return load_agent(kept)
        return load_agent(run)


def settings_of(path: Path) -> dict[str, Any]:
    """The stored settings of a run's folder; a UserError unless they name a known algorithm and an environment."""
    if not os.path.lexists(path / CONFIG):
        raise UserError(f"{path} is not a run's folder: it has no {CONFIG}")
    with open_folder(path) as folder:
        data = read_json(folder, CONFIG)
    names = [data.get("algorithm"), data.get("env")] if isinstance(data, dict) else [None]
    if not all(isinstance(name, str) and len(name) <= 100 for name in names):
        raise UserError(f"{path / CONFIG} does not describe a run: it names no algorithm and environment")
    registry.get(data["algorithm"])
    return data
