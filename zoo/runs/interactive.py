"""Training as Python and notebooks call it: shown where somebody watches, and remembered by the agent.

No other module imports this one, so that what only shows a run is no part of what decides it (zoo.bench.fingerprint).
"""

from pathlib import Path
from typing import Any

import click

from zoo.envs.task import EnvLike
from zoo.runs.api import OnRow, run
from zoo.runs.checkpointer import EVERY
from zoo.runs.display import display, is_watched
from zoo.runs.prepare import prepare
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
    folder = None if out is None else Path(out)
    rows, shown = list[Row](), is_watched() if progress is None else progress
    with display(prepared, folder, quiet=not shown, stderr=True) as show:

        def see(row: Row) -> object:
            rows.append(row)
            show(row)
            return on_row(row)

        result = run(prepared, env, out=folder, checkpoint_every=checkpoint_every, init=init, on_row=see)
    if shown and result.stopped is not None:
        click.echo(f"stopped at   {result.stopped}", err=True)
    result.agent.history = rows
    return result.agent
