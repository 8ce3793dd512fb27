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
from zoo.errors import UserError, told
from zoo.machine import torch_settings
from zoo.runs import checkpoint
from zoo.runs.assemble import assemble
from zoo.runs.checkpointer import EVERY, Checkpointer, interval
from zoo.runs.prepare import check_possible, taken, task_of
from zoo.runs.recorder import Recorder, Result, Stop
from zoo.runs.resumed import _changes, resumed_settings, run_of, settings_of
from zoo.runs.stopping import Interrupter, Stopper
from zoo.settings import Settings
from zoo.storage.agent import DESCRIPTION, Agent
from zoo.storage.files import Folder, open_folder
from zoo.storage.load import load_agent
from zoo.storage.untrusted import Budget, Row
from zoo.training.loop import Learner

OnRow = Callable[[Row], object]  # ends the run by returning False


def resume(
    folder: str | Path,
    env: EnvLike | None = None,
    *,
    total_steps: int | None = None,
    checkpoint_every: str | int = EVERY,
    on_row: OnRow = lambda row: None,
    **repeated: Any,
) -> Result:
    """Go on with the run in `folder` from its newest checkpoint, as if it had never stopped.

    `repeated` are settings of the run (engine, ray_address, actors, num_envs, wrap, env_kwargs): the folder may be a
    stranger's, so what would talk to a cluster, start more than this machine has cores for, or run code, must be asked
    for by the caller, too. `env` is needed where the run was not trained on the bare id of an environment.
    `total_steps` replaces the run's own: what follows the fraction of the run that is done (learning rates,
    exploration) then follows the new one. A run that was stopped early goes on, too, without the `stop_at` that ended
    it; `on_row` may stop it by returning False. Warnings say what makes the run differ from an uninterrupted one.

    Raises UserError if no checkpoint is whole, or none fits.
    """
    folder = Path(folder)
    settings = resumed_settings(folder, total_steps, repeated, env=env)
    check_possible(settings, env or settings.env)
    return run(settings, env, out=folder, checkpoint_every=checkpoint_every, resumed=True, on_row=on_row)


def run(
    settings: Settings,
    env: EnvLike | None = None,
    *,
    out: Path | None = None,
    checkpoint_every: str | int = EVERY,
    resumed: bool = False,
    init: Agent | str | Path | None = None,
    on_row: OnRow = lambda row: None,
) -> Result:
    """Train, evaluate and save as `settings` say; `on_row` sees each row as it is written, and ends the run by False.

    `env`, a function or an environment, takes the place of the name in `settings`. `init` is an agent, or the folder of
    one, whose weights training starts from. With `resumed`, `out` is a run that goes on from its newest checkpoint.
    All randomness comes from the seed, in streams that share nothing: weights and noise, training episodes,
    evaluations for the best agent. The final evaluation has seeds of its own, the same for every run.
    """
    started, every, on_row = time.monotonic(), interval(checkpoint_every), called(on_row)
    *streams, validation_stream = SeedSequence(settings.run.seed).spawn(3)
    task = task_of(settings, env, recorded=resumed and env is None)
    eval_task = replace(task, env=copy.deepcopy(env)) if isinstance(env, gym.Env) else task
    # The settings of a run that is resumed may be a stranger's: its networks must fit the size of its checkpoint.
    with _budget(out) if resumed and out is not None else nullcontext():
        learner, agent = assemble(settings, task, *streams, init=_loaded(init))
    recorder = Recorder(settings, agent, eval_task, validation_stream, started, _origin(init))
    with ExitStack() as stack:
        stack.callback(learner.source.close)
        stack.enter_context(torch_settings(settings.run.threads, settings.run.precision))
        if out is None:
            interrupter = Interrupter()
            stack.enter_context(interrupter.listening())
            return _train(learner, recorder, interrupter, on_row)
        folder, agent.run = stack.enter_context(_locked(out, resumed=resumed)), out.absolute()
        checkpointer = Checkpointer(folder, learner, recorder, every)
        stack.enter_context(checkpointer.listening())
        changes = [*_changes(settings, settings_of(out)), *checkpointer.resume()] if resumed else []
        stack.callback(recorder.close)
        recorder.open(folder, learner.step if resumed else None)
        _warn(changes)  # now that nothing refuses the run any more
        return _train(learner, recorder, checkpointer, on_row)


def _warn(lines: list[str]) -> None:
    for line in lines:
        warnings.warn(line, stacklevel=3)


@contextmanager
def _locked(path: Path, *, resumed: bool) -> Iterator[Folder]:
    """Open a run's folder, a new one unless it is `resumed`, and keep other processes out of it. Raises UserError."""
    try:
        path.mkdir(parents=True, exist_ok=resumed)
    except FileExistsError:
        raise taken(path) from None
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


def called(on_row: OnRow) -> OnRow:
    """Return what is called with each row. Raises UserError if it is no function."""
    if not callable(on_row):
        raise UserError(f"on_row is {told(on_row, repr):.50}; expected a function of a row of metrics")
    return on_row


def _loaded(init: Agent | str | Path | None) -> Agent | None:
    if init is not None and not isinstance(init, Agent | str | Path):
        raise UserError(f"init is a {type(init).__name__}; expected an agent, or the folder of one or of its run")
    return load(init) if isinstance(init, str | Path) else init


def _origin(init: Agent | str | Path | None) -> str | None:
    """Say where a run's first weights are from, for its record."""
    return f"an agent of {init.name}" if isinstance(init, Agent) else None if init is None else str(init)


def _train(learner: Learner, recorder: Recorder, stopper: Stopper, on_row: OnRow) -> Result:
    settings = recorder.settings
    steps, every = settings.run.total_steps, log_every(settings)
    try:
        reports = learner.reports(total_steps=steps, log_every=every, on_step=stopper.on_step)
        for row in recorder.rows(reports, stopper.heed):
            if on_row(row) is False:
                break
        stopper.save()
        return recorder.finish(stopper.heed, None if learner.finished(steps) else _stop(learner, recorder))
    except BaseException:
        recorder.rescue()
        raise


def _stop(learner: Learner, recorder: Recorder) -> Stop:
    reached = recorder.reached()
    return Stop(learner.step, "stop_at" if reached else "on_row", reached or "on_row returned False")


def log_every(settings: Settings) -> int:
    """Return the number of steps between reports."""
    return settings.run.log_every or max(settings.run.total_steps // 100, 1)


def load(folder: str | Path, which: str | None = None) -> Agent:
    """Load an agent from a run's folder, or from its own. Raises UserError if there is none, or if it does not fit.

    `which` is final, as it is if left out, or best; a run that was interrupted or failed has only last.
    """
    path = Path(folder)
    with open_folder(path) as run:
        kept = [name for name in (which or "final", "last") if run.exists(name)]
        if not kept and which not in (None, path.absolute().name) and run.exists(DESCRIPTION):
            raise UserError(f"{path} is one agent, of which {which!r} does not choose; name its run: {path.parent}")
        with run.folder(kept[0]) if kept else nullcontext(run) as folder_of_agent:
            agent = load_agent(folder_of_agent)
    agent.run = run_of(path).absolute()
    return agent
