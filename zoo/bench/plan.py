"""Plan a sweep: presets, and the jobs that they make."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from zoo import registry
from zoo.bench.fingerprint import fingerprint
from zoo.envs.ids import resolve_id
from zoo.envs.task import Task
from zoo.errors import UserError
from zoo.settings import resolve
from zoo.spec import is_atari

SIDES = ("zoo", "sb3", "random")
CHECKPOINTS, EPISODES, FINAL_EPISODES = 10, 10, 100
FOLDER = Path(__file__).parent


class Preset(BaseModel):
    """A sweep: environments, the settings that entries get on each, and how many seeds."""

    model_config = ConfigDict(extra="forbid")

    about: str
    seeds: int
    seeds_on: dict[str, int] = {}  # environments that need another number
    algorithms: list[str] = []  # all if left out
    settings_preset: str | None = None  # the registry's, under the tuned settings
    envs: dict[str, dict[str, dict[str, Any]]]


@cache
def presets() -> dict[str, Preset]:
    """Load all presets of presets.yaml."""
    data = yaml.safe_load((FOLDER / "presets.yaml").read_text(encoding="utf-8"))
    return {name: Preset.model_validate(preset) for name, preset in data.items()}


@cache
def references() -> dict[str, dict[str, Any]]:
    """Load what is known of each environment: type of actions, a random policy's return and the best published one."""
    data: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "references.yaml").read_text(encoding="utf-8"))
    return data


@dataclass(frozen=True)
class Job:
    """One run of a sweep; `settings` are all of them, so that they alone reproduce it."""

    side: str
    algorithm: str
    env: str
    seed: int
    overrides: dict[str, Any]
    settings: dict[str, Any]
    settings_preset: str | None = None

    @property
    def row(self) -> str:
        """The id of its row in the table."""
        return f"{self.side}/{self.algorithm}" if self.algorithm else self.side

    @property
    def title(self) -> str:
        """Its name in progress and messages."""
        return f"{self.row} on {self.env}, seed {self.seed}"

    @property
    def total_steps(self) -> int:
        """The budget; a random policy has none."""
        return int(self.settings["run"]["total_steps"]) if self.settings else 0

    @property
    def key(self) -> str:
        """A digest of side, settings, code and versions; results of different keys are never mixed."""
        decided = self.settings or self.overrides
        text = json.dumps(
            [self.side, self.algorithm, self.env, self.seed, decided, code(self.side, self.algorithm)],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def command(self) -> str:
        """The command that repeats it; for a twin, the command that trains its entry."""
        if not self.algorithm:
            return ""
        given = {"env": self.env, "seed": self.seed, "preset": self.settings_preset, **self.overrides}
        flags = [_flag(name, value) for name, value in given.items() if value is not None]
        return " ".join(["zoo run", self.algorithm, *flags])

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def _flag(name: str, value: Any) -> str:
    """Return the flag that says a setting."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{dashed}" if value else f"--no-{dashed}"
    text = json.dumps(value) if isinstance(value, dict) else value
    return f"--{dashed} " + shlex.quote(",".join(map(str, value)) if isinstance(value, list | tuple) else str(text))


ROOTS = {"zoo": ["zoo.runs"], "sb3": ["zoo.crosscheck.theirs"], "random": ["zoo.envs.envs"]}


@cache
def code(side: str, algorithm: str) -> str:
    """Return a digest of what decides a run besides its settings: the code that training imports, and versions."""
    own = [registry.get(algorithm).path.partition(":")[0]] if algorithm else []
    packages = ["torch", "gymnasium", "numpy"] + (["stable-baselines3"] if side == "sb3" else [])
    parts = [fingerprint([*ROOTS[side], *own]), *(version(name) for name in packages)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep, and for each entry that does not support an environment the reason."""

    envs: list[str]
    rows: list[tuple[str, str]]  # (side, algorithm), in the order of the table
    jobs: list[Job]
    unsupported: dict[tuple[str, str], str]  # (algorithm, env)


def plan(
    preset: str,
    *,
    algorithms: list[str],
    envs: list[str],
    seeds: int | None,
    against: str | None = None,
    own: dict[str, Any] | None = None,
) -> Plan:
    """Plan a preset, or the named algorithms of it on the named environments. Raises UserError if a name is unknown.

    Environments that the preset does not have are trained with tuned settings, or the defaults. `own` are settings of
    all runs, which win over the preset's.
    """
    chosen, own = presets()[preset], own or {}
    if against is not None and own.get("action_masks"):
        raise UserError(f"--action-masks: the entries of --against {against} know no masks; leave out one of the two")
    for name in algorithms:
        registry.get(name)
    envs = [_newest(env, chosen.envs) for env in envs]
    _check_own(envs or list(chosen.envs), own)
    wanted = set(algorithms or chosen.algorithms or registry.load().algorithms)
    names = [name for entry in registry.find().values() for name in entry.algorithms if name in wanted]
    twins = twinned() if against == "sb3" else ()
    rows = [("random", "")]
    for name in names:
        rows += [("zoo", name), ("sb3", name)] if name in twins else [("zoo", name)]
    env_ids = [env for env in chosen.envs if not envs or env in envs]
    env_ids += [env for env in dict.fromkeys(envs) if env not in chosen.envs]
    made = json.dumps(_of_environment(own))
    unsupported = {(name, env): reason for name in names for env in env_ids if (reason := refusal(name, env, made))}
    counts = {env: seeds or chosen.seeds_on.get(env, chosen.seeds) for env in env_ids}
    jobs = [
        job(side, name, env, seed, {**chosen.envs.get(env, {}).get(name, {}), **own}, chosen.settings_preset)
        for seed in range(max(counts.values(), default=0))
        for env in env_ids
        for side, name in rows
        if seed < counts[env] and (name, env) not in unsupported and (name or not seed)
    ]
    return Plan(env_ids, rows, jobs, unsupported)


def _newest(name: str, known: Iterable[str]) -> str:
    """Return what `name` means: the newest version among the known, else as everywhere. Raises UserError if nothing."""
    versions = [env for env in known if env == name or re.fullmatch(rf"{re.escape(name)}-v\d+", env)]
    return max(versions, key=lambda env: int(env.rpartition("-v")[2])) if versions else resolve_id(name)


def _check_own(envs: list[str], own: dict[str, Any]) -> None:
    """Raise UserError if an environment whose scores are compared with published ones would be another one."""
    for name in ("env_kwargs", "wrap"):
        known = [env for env in envs if env in references()]
        if own.get(name) and known:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{flag} would change {known[0]}, whose scores are compared with published ones; name the changed "
                f"environment by a file, as in --envs path/to/file.py:make_env {flag} ..."
            )


def _of_environment(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in ("env_kwargs", "wrap", "action_masks")}


def task(env: str, settings: dict[str, Any]) -> Task:
    """Return what makes an environment of a sweep, with those of the settings that are of environments."""
    given = {"kwargs": settings.get("env_kwargs", {}), "wrap": tuple(settings.get("wrap", ()))}
    return Task(env, **given, action_masks=settings.get("action_masks", False), atari=is_atari(env))


def twinned() -> set[str]:
    """Return the entries that have a twin in Stable-Baselines3."""
    from zoo.crosscheck.sb3 import COUNTERPARTS

    return set(COUNTERPARTS)


def job(
    side: str, algorithm: str, env: str, seed: int, overrides: dict[str, Any], settings_preset: str | None = None
) -> Job:
    """Make one run: tuned settings, what the preset says instead, and ten checks on the way."""
    if not algorithm:
        return Job(side, algorithm, env, seed, _of_environment(overrides), {})
    total = resolve(algorithm, env, overrides, preset=settings_preset).run.total_steps
    checks = {
        "eval_every": max(total // CHECKPOINTS, 1),
        "validation_episodes": EPISODES,
        "eval_episodes": FINAL_EPISODES,
    }
    settings = resolve(algorithm, env, {**overrides, **checks, "seed": seed}, preset=settings_preset).to_json()
    kept = {"run": settings["run"], "config": settings["config"]}
    return Job(side, algorithm, env, seed, overrides, kept, settings_preset)


@cache
def refusal(algorithm: str, env: str, made: str = "{}") -> str:
    """Return why an entry does not support an environment, or an empty text; `made` are its arguments, as JSON."""
    supported = [space.__name__ for space in registry.load_class(algorithm).spaces]
    return "" if _actions(env, made) in supported else f"needs {' or '.join(supported)} actions"


@cache
def _actions(env: str, made: str) -> str:
    """Return the type of an environment's actions; what is not known beforehand is seen by making it."""
    if env in references():
        return str(references()[env]["actions"])
    with closing(task(env, json.loads(made))()) as one:
        name = type(one.action_space).__name__
    return "MultiDiscrete" if name == "MultiBinary" else name
