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
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from numpy.random import SeedSequence

from zoo.envs.task import EnvLike
from zoo.errors import UserError
from zoo.machine import torch_settings
from zoo.runs import checkpoint
from zoo.runs.assemble import assemble
from zoo.runs.checkpointer import EVERY, Checkpointer, interval
from zoo.runs.prepare import check_possible, prepare, task_of
from zoo.runs.recorder import Recorder, Result, Row
from zoo.runs.resumed import _changes, resumed_settings, settings_of
from zoo.runs.stopping import Interrupter, Stopper
from zoo.settings import Settings
from zoo.storage.agent import Agent
from zoo.storage.files import Folder, open_folder
from zoo.storage.load import load_agent
from zoo.storage.untrusted import Budget
from zoo.training.loop import Learner


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

    `env` is an id ("Pendulum" means the newest version), an id of a package that is to be imported ("package:Name-v0"),
    a function or class in a file ("path/to/file.py:make_env"), a function that makes an environment, or an environment
    (alone, and so with the defaults rather than settings tuned for several).
    `preset` names settings of the registry that give way to those tuned for `env`: "sb3" is Stable-Baselines3's way.
    With `out`, the run is written into that folder, which must be new, with a checkpoint every so many steps, or
    minutes ("5min"), from which `resume` goes on. Raises UserError (a ValueError), which names a wrong setting, before
    anything is trained.
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

    `repeated` are settings of the run (engine, ray_address, actors, num_envs, wrap, env_kwargs): the folder may be a
    stranger's, so what would talk to a cluster, start more than this machine has cores for, or run code, must be asked
    for by the caller, too. `env` is needed where the run was not trained on the bare id of an environment.
    `total_steps` replaces the run's own: what follows the fraction of the run that is done (learning rates,
    exploration) then follows the new one. Warnings say
    what makes the run differ from an uninterrupted one. Raises UserError if no checkpoint is whole, or if none fits.
    """
    folder = Path(folder)
    settings = resumed_settings(folder, total_steps, repeated, env=env)
    for line in _changes(settings, settings_of(folder)):
        warnings.warn(line, stacklevel=2)
    check_possible(settings, env or settings.env)
    return run(settings, env, out=folder, checkpoint_every=checkpoint_every, resumed=True, on_row=on_row)


def run(
    settings: Settings,
    env: EnvLike | None = None,
    *,
    out: Path | None = None,
    checkpoint_every: str | int = EVERY,
    resumed: bool = False,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Result:
    """Train, evaluate and save as `settings` say; `on_row` sees each row of metrics as it is written.

    `env`, a function or an environment, takes the place of the name in `settings`.
    With `resumed`, `out` is the folder of a run that goes on from its newest checkpoint.

    All randomness comes from the seed, in streams that share nothing: weights and noise, training episodes,
    evaluations for the best agent. The final evaluation has seeds of its own, the same for every run.
    """
    started, every = time.monotonic(), interval(checkpoint_every)
    task = task_of(settings, env)
    make_stream, train_stream, validation_stream = SeedSequence(settings.run.seed).spawn(3)
    eval_task = replace(task, env=copy.deepcopy(task.env)) if isinstance(task.env, gym.Env) else task
    # The settings of a run that is resumed may be a stranger's: its networks must fit the size of its checkpoint.
    with _budget(out) if resumed and out is not None else nullcontext():
        learner, agent = assemble(settings, task, make_stream, train_stream)
    recorder = Recorder(settings, agent, eval_task, validation_stream, started)
    with ExitStack() as stack:
        stack.callback(learner.source.close)
        stack.enter_context(torch_settings(settings.run.threads, settings.run.precision))
        if out is None:
            interrupter = Interrupter()
            stack.enter_context(interrupter.listening())
            return _train(learner, recorder, interrupter, on_row)
        folder = stack.enter_context(_locked(out, resumed=resumed))
        checkpointer = Checkpointer(folder, learner, recorder, every)
        stack.enter_context(checkpointer.listening())
        for line in checkpointer.resume() if resumed else []:
            warnings.warn(line, stacklevel=2)
        stack.callback(recorder.close)
        recorder.open(folder, learner.step if resumed else None)
        return _train(learner, recorder, checkpointer, on_row)


@contextmanager
def _locked(path: Path, *, resumed: bool) -> Iterator[Folder]:
    """Open a run's folder, a new one unless it is `resumed`, and keep other processes out of it. Raises UserError."""
    try:
        path.mkdir(parents=True, exist_ok=resumed)
    except FileExistsError:
        raise UserError(f"{path} exists already; two runs never share a folder: choose another --out") from None
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}; choose another --out") from None
    except ValueError as error:  # a NUL byte
        raise UserError(f"{str(path)!r} is no path: {error}") from None
    with open_folder(path) as folder, folder.locked():
        yield folder


@contextmanager
def _budget(path: Path) -> Iterator[None]:
    """Limit the bytes of networks that are made to what the size of the checkpoint in a run's folder allows."""
    with open_folder(path) as folder, Budget(checkpoint.budget(folder)):
        yield


def _train(learner: Learner, recorder: Recorder, stopper: Stopper, on_row: Callable[[Row], None]) -> Result:
    settings = recorder.settings
    steps, every = settings.run.total_steps, log_every(settings)
    try:
        reports = learner.reports(total_steps=steps, log_every=every, on_step=stopper.on_step)
        for row in recorder.rows(reports, stopper.heed):
            on_row(row)
        stopper.save()
        return recorder.finish(stopper.heed)
    except BaseException:
        recorder.rescue()
        raise


def log_every(settings: Settings) -> int:
    """Return the number of steps between reports."""
    return settings.run.log_every or max(settings.run.total_steps // 100, 1)


def load(folder: str | Path, which: str = "final") -> Agent:
    """Load an agent from a run's folder, or from its own. Raises UserError if there is none, or if it does not fit.

    `which` is final or best; a run that stopped early has only last.
    """
    with open_folder(Path(folder)) as run:
        kept = [name for name in (which, "last") if run.exists(name)]
        with run.folder(kept[0]) if kept else nullcontext(run) as folder_of_agent:
            return load_agent(folder_of_agent)
