"""Settings of a run that goes on, from its folder, which may be a stranger's."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from zoo import registry
from zoo.config import build
from zoo.envs.ids import is_supplied, resolve_id, runs_code
from zoo.envs.task import EnvLike, Task
from zoo.errors import UserError, brief
from zoo.machine import nothing_from_here
from zoo.runs.recorder import CONFIG, versions
from zoo.settings import Run, Settings
from zoo.storage.agent import DESCRIPTION
from zoo.storage.files import open_folder
from zoo.storage.untrusted import read_json

# What a run's folder may ask for unrepeated: environments in all, and processes for each core.
ENVIRONMENTS, PROCESSES = 1024, 4
STRANGER = "a run's folder may be a stranger's"
# The settings of a run that say what its environment is, and what a Task calls them.
OF_ENVIRONMENTS = {
    "env_kwargs": "kwargs",
    "wrap": "wrap",
    "frame_stack": "frame_stack",
    "action_masks": "action_masks",
    "atari": "atari",
}


def resumed_settings(
    folder: Path, total_steps: int | str | None, repeated: Mapping[str, Any], *, env: EnvLike | None = None
) -> Settings:
    """Return the settings of a run's folder, with another budget, or another name of its environment, if one is given.

    A `stop_at` that ended the run is left out. Raises UserError if they are no settings, or reach further than
    `repeated` allows.
    """
    stored = settings_of(folder)
    settings = Settings.from_json(stored, str(folder / CONFIG))
    settings = replace(settings, run=replace(settings.run, env_kwargs=_unseen(settings.run.env_kwargs)))
    _check_reach(folder, settings, repeated, env)
    stopped = stored.get("stopped")
    if isinstance(stopped, dict) and stopped.get("by") == "stop_at":
        changed = replace(settings.run, stop_at=None)
        settings = replace(settings, run=changed, sources=settings.sources | {"stop_at": "resume"})
    if isinstance(env, str):
        settings = replace(settings, env=resolve_id(env))
    if total_steps is None:
        return settings
    changed = build(Run, asdict(settings.run) | {"total_steps": total_steps}, "--resume")
    return replace(settings, run=changed, sources=settings.sources | {"total_steps": "resume"})


def recorded_task(folder: Path, record: Mapping[str, Any], env: str | None, given: Mapping[str, Any]) -> Task:
    """Return what makes the environment of a run's folder, to play in it; `env` and `given` replace what is recorded.

    Raises UserError if that runs code which the caller has not named.
    """
    recorded = record.get("run", {})
    if not isinstance(recorded, dict):
        raise UserError(f"{folder / CONFIG} has no settings: run = {recorded!r:.50}")
    run = build(Run, {name: recorded[name] for name in OF_ENVIRONMENTS if name in recorded}, str(folder))
    run = replace(run, env_kwargs=_unseen(run.env_kwargs))
    run = build(Run, asdict(run) | dict(given), str(folder))
    named = {**given, **({} if env is None else {"env": env})}
    missing = {name: text for name, text in _code(record["env"], run).items() if name not in named}
    if missing:
        raise UserError(brief(f"{folder} was trained {_with(missing)}; {STRANGER}: add {_flags(missing)}"))
    described = {field: getattr(run, name) for name, field in OF_ENVIRONMENTS.items()}
    name = _known(folder, record["env"]) if env is None else resolve_id(env)
    return Task(name, recorded=env is None, **described)


def _known(folder: Path, name: str) -> str:
    """Return what a recorded name means. Raises UserError unless that is supplied by gymnasium or an extra."""
    try:
        with nothing_from_here():
            found = resolve_id(name)
    except UserError as error:
        raise UserError(
            f"{folder}: {error}; if it is an environment of your own, name it: --env path/to/file.py:make_env, or in "
            f"Python zoo.resume({str(folder)!r}, make_env) and zoo.evaluate(agent, make_env)"
        ) from None
    if not is_supplied(found):
        code = {"env": found}
        raise UserError(f"{folder} was trained {_with(code)}; {STRANGER}: add {_flags(code)}")
    return found


def _unseen(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return recorded arguments without a window; pictures, which a wrapper may be made for, are not shown."""
    return {key: value for key, value in kwargs.items() if key != "render_mode" or value == "rgb_array"}


def _code(env: str, run: Run) -> dict[str, str]:
    """Return what of a recorded environment imports code or names files when it is made, by the names of its flags."""
    code = {"env": env} if runs_code(env) else {}
    if run.wrap:
        code["wrap"] = ",".join(run.wrap)
    if any(re.search(r"[/\\:.]", text) for text in _texts(run.env_kwargs)):
        code["env_kwargs"] = json.dumps(run.env_kwargs)
    return code


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in (*value.keys(), *value.values()):
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _flags(values: Mapping[str, Any]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in values.items())


def _with(code: Mapping[str, str]) -> str:
    return "with " + " and ".join(f"{name} {value!r:.100}" for name, value in code.items()) + ", which runs code"


def _check_reach(folder: Path, settings: Settings, repeated: Mapping[str, Any], env: EnvLike | None) -> None:
    """Raise UserError unless the caller repeats what leads to other machines, beyond what this one has, or to code."""
    run = settings.run
    same = build(Run, repeated, "--resume")
    for name in repeated:
        mine, theirs = getattr(same, name), getattr(run, name)
        if mine != theirs:
            raise UserError(
                brief(f"{folder} has {name} = {theirs!r}, not {mine!r}; --resume repeats settings, and changes none")
            )
    machines, reasons = _machines(run)
    code = _code(settings.env, run)
    asked = machines | code
    reasons += ["code of its own"] if code else []
    if any(name not in {**repeated, **({} if env is None else {"env": env})} for name in asked):
        command = f"zoo run --resume {shlex.quote(str(folder))} {_flags(asked)}"
        raise UserError(
            brief(f"{folder} asks for {' and '.join(reasons)}, and {STRANGER}; to go on, repeat it: {command}")
        )
    if env is None:
        _known(folder, settings.env)


def _machines(run: Run) -> tuple[dict[str, Any], list[str]]:
    """Return the settings by which a run reaches other machines, or beyond what this one has, and these reasons."""
    needed = [name for name in ("engine", "ray_address") if run.engine == "ray" and getattr(run, name) is not None]
    reasons = ["a Ray cluster"] if needed else []
    environments, cores = run.actors * run.num_envs, os.cpu_count() or 1
    processes = (run.actors if run.engine != "inline" else 0) + (environments if run.vec == "async" else 0)
    if processes > PROCESSES * cores or environments > ENVIRONMENTS:
        needed += ["actors", "num_envs"]
        sum_of = f"actors {run.actors:,} x num_envs {run.num_envs:,} = {environments:,} environments"
        reasons.append(f"{sum_of} in {max(processes, 1):,} processes on {cores} cores")
    return {name: getattr(run, name) for name in needed}, reasons


def command(words: str, folder: Path, settings: Settings) -> str:
    """Return a command on the folder of a run that was made here, with all that the folder may not ask for itself."""
    env, run = settings.env, settings.run
    flags = _code(env, run)
    if not runs_code(env) and not is_supplied(env):
        flags = {"env": env if env in gym.registry else f"path/to/file.py:{env}", **flags}
    flags |= _machines(run)[0] if words.startswith("run") else {}
    return " ".join(["zoo", words, shlex.quote(str(folder)), *([_flags(flags)] if flags else [])])


def _changes(settings: Settings, stored: dict[str, Any]) -> list[str]:
    """Say what differs from when the run began: its budget, versions, the machine."""
    lines = []
    began: Run = build(Run, stored["run"], CONFIG)
    before, after = began.total_steps, settings.run.total_steps
    if before != after:
        lines.append(
            f"the budget changes from {before:,} to {after:,} steps; what follows the fraction done (learning rates, "
            f"exploration, evaluations every 10%) follows the new one, as in no run of {after:,} steps from the start"
        )
    if began.stop_at is not None and settings.run.stop_at is None:
        lines.append(f"the run had reached stop_at; it goes on to {after:,} steps without it")
    now = versions()
    changed = [
        f"{name} {brief(str(theirs)):.50} -> {mine}"
        for part in now
        for name, mine in now[part].items()
        if isinstance(stored.get(part), dict) and (theirs := stored[part].get(name)) != mine
    ]
    if changed:
        lines.append(f"the run will not go on bit for bit; changed since it began: {', '.join(changed)}")
    return lines


def run_of(path: Path) -> Path:
    """Return the folder of a run: `path`, or the one above it if there is an agent at `path`, as at RUN/best."""
    above = path.absolute().parent
    is_agent = os.path.lexists(path / DESCRIPTION) and not os.path.lexists(path / CONFIG)
    return above if is_agent and os.path.lexists(above / CONFIG) else path


def settings_of(path: Path) -> dict[str, Any]:
    """Read the settings of a run's folder. Raises UserError unless they name a known algorithm and an environment."""
    if not os.path.lexists(path / CONFIG):
        raise UserError(f"{path} is not a run's folder: it has no {CONFIG}")
    with open_folder(path) as folder:
        data = read_json(folder, CONFIG)
    names = [data.get("algorithm"), data.get("env")] if isinstance(data, dict) else [None]
    if not all(isinstance(name, str) and len(name) <= 1000 for name in names):
        raise UserError(f"{path / CONFIG} does not describe a run: it names no algorithm and environment")
    registry.get(data["algorithm"])
    return data
