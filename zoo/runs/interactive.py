"""Training as Python and notebooks call it: shown where somebody watches, and remembered by the agent.

No other module imports this one, so that what only shows a run is no part of what decides it (zoo.bench.fingerprint).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from zoo.envs.task import EnvLike
from zoo.runs import api
from zoo.runs.api import OnRow, called
from zoo.runs.checkpointer import EVERY
from zoo.runs.display import display, is_watched
from zoo.runs.prepare import prepare
from zoo.runs.recorder import Result
from zoo.runs.resumed import resumed_settings
from zoo.settings import Settings
from zoo.storage.agent import Agent
from zoo.storage.untrusted import Row


def train(
    algorithm: str,
    env: EnvLike,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    checkpoint_every: str | int = EVERY,
    init: Agent | str | Path | None = None,
    progress: bool | None = None,
    on_row: OnRow = lambda row: None,
    **settings: Any,
) -> Agent:
    """Train `algorithm` on `env` and return the agent; `settings` are any of the run's or the algorithm's own.

    `env` is an id ("Pendulum" means the newest version), the id of a package to import ("package:Name-v0"), an object
    in a file ("path/to/file.py:make_env"), a function that makes an environment, or an environment (with the defaults).
    `preset` names settings of the registry that give way to those tuned for `env`: "sb3" is Stable-Baselines3's way.
    With `out`, the run is written into that folder, which must be new, with a checkpoint every so many steps, or
    minutes ("5min"), from which `resume` goes on. `init` is an agent, or the folder of one or of its run: training
    starts from its weights and observation statistics. Algorithm, spaces and shapes must agree.
    `progress` says whether the run is shown on standard error; None shows it on a terminal and in a notebook. `on_row`
    gets each row of metrics; if it returns False the run ends there, evaluated and saved as ever. The agent's `history`
    has all rows. Raises UserError (a ValueError), which names a wrong setting, before anything is trained.
    """
    prepared = prepare(algorithm, env, settings, source="argument", preset=preset)
    folder, rows = None if out is None else Path(out), list[Row]()
    train = partial(api.run, prepared, env, out=folder, checkpoint_every=checkpoint_every, init=init)
    agent = _shown(train, prepared, folder, progress, on_row, rows).agent
    agent.history = rows
    return agent


def resume(
    folder: str | Path,
    env: EnvLike | None = None,
    *,
    total_steps: int | None = None,
    checkpoint_every: str | int = EVERY,
    progress: bool | None = None,
    on_row: OnRow = lambda row: None,
    **repeated: Any,
) -> Result:
    """Go on with the run in `folder` from its newest checkpoint, as if it had never stopped, shown as `train` shows it.

    `env`, `total_steps` and `repeated`, settings that the folder must not ask for alone, are those of
    `zoo.runs.resume`, and so are the warnings. Raises UserError if no checkpoint is whole, or none fits.
    """
    path = Path(folder)
    settings = resumed_settings(path, total_steps, repeated, env=env)
    more = {"total_steps": total_steps, "checkpoint_every": checkpoint_every, **repeated}
    return _shown(partial(api.resume, path, env, **more), settings, path, progress, on_row, [])


def _shown(
    train: Callable[..., Result],
    settings: Settings,
    folder: Path | None,
    progress: bool | None,
    on_row: OnRow,
    rows: list[Row],
) -> Result:
    """Train, and show the rows and why the run ended early; they are appended to `rows`."""
    shown, on_row = is_watched() if progress is None else progress, called(on_row)
    with display(settings, folder, quiet=not shown, stderr=True) as show:

        def see(row: Row) -> object:
            rows.append(row)
            show(row)
            return on_row(row)

        result = train(on_row=see)
    if shown and result.stopped is not None:
        click.echo(f"stopped at   {result.stopped}", err=True)
    return result
