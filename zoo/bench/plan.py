"""Plan a sweep: presets, and the jobs that they make."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from zoo import registry
from zoo.bench.fingerprint import fingerprint
from zoo.errors import UserError, nearest
from zoo.settings import resolve

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
        text = json.dumps(
            [self.side, self.algorithm, self.env, self.seed, self.settings, code(self.side, self.algorithm)],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def command(self) -> str:
        """The command that repeats it; for a twin, the command that trains its entry."""
        if not self.algorithm:
            return ""
        given = {"env": self.env, "seed": self.seed, "preset": self.settings_preset, **self.overrides}
        flags = [f"--{name.replace('_', '-')} {value}" for name, value in given.items() if value is not None]
        return " ".join(["zoo run", self.algorithm, *flags])

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


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


def plan(preset: str, *, algorithms: list[str], envs: list[str], seeds: int | None, against: str | None = None) -> Plan:
    """Plan a preset, or the named algorithms and environments of it. Raises UserError if a name is unknown."""
    chosen = presets()[preset]
    for name in algorithms:
        registry.get(name)
    envs = [_newest(env, chosen.envs) for env in envs]
    unknown = [env for env in envs if env not in chosen.envs]
    if unknown:
        raise UserError(f"preset {preset} has no {unknown[0]}{nearest(unknown[0], chosen.envs)}")
    wanted = set(algorithms or chosen.algorithms or registry.load().algorithms)
    names = [name for entry in registry.find().values() for name in entry.algorithms if name in wanted]
    twins = twinned() if against == "sb3" else ()
    rows = [("random", "")]
    for name in names:
        rows += [("zoo", name), ("sb3", name)] if name in twins else [("zoo", name)]
    env_ids = [env for env in chosen.envs if not envs or env in envs]
    unsupported = {(name, env): reason for name in names for env in env_ids if (reason := refusal(name, env))}
    counts = {env: seeds or chosen.seeds_on.get(env, chosen.seeds) for env in env_ids}
    jobs = [
        job(side, name, env, seed, chosen.envs[env].get(name, {}), chosen.settings_preset)
        for seed in range(max(counts.values(), default=0))
        for env in env_ids
        for side, name in rows
        if seed < counts[env] and (name, env) not in unsupported and (name or not seed)
    ]
    return Plan(env_ids, rows, jobs, unsupported)


def _newest(name: str, known: Iterable[str]) -> str:
    """Return `name`, or the newest version among the known where it names none."""
    versions = [env for env in known if re.fullmatch(rf"{re.escape(name)}-v\d+", env)]
    return max(versions, key=lambda env: int(env.rpartition("-v")[2]), default=name)


def twinned() -> set[str]:
    """Return the entries that have a twin in Stable-Baselines3."""
    from zoo.crosscheck.sb3 import COUNTERPARTS

    return set(COUNTERPARTS)


def job(
    side: str, algorithm: str, env: str, seed: int, overrides: dict[str, Any], settings_preset: str | None = None
) -> Job:
    """Make one run: tuned settings, what the preset says instead, and ten checks on the way."""
    if not algorithm:
        return Job(side, algorithm, env, seed, {}, {})
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
def refusal(algorithm: str, env: str) -> str:
    """Return why an entry does not support an environment, or an empty text."""
    supported = [space.__name__ for space in registry.load_class(algorithm).spaces]
    return "" if references()[env]["actions"] in supported else f"needs {' or '.join(supported)} actions"
