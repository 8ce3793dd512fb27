"""Env-steps per second while learning: this package, its peers and the machine's limits, in alternation in one run.

Each side runs at the number of threads at which it is fastest, and every run is a process of its own. A ratio is that
of medians over repeats. The limit is what remains if nothing but the environment and the multiplications took time.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from zoo.errors import UserError, nearest

FILE = Path(__file__).parent / "speed.yaml"
NAMES = {"zoo": "zoo", "sb3": "Stable-Baselines3", "sbx": "SBX"}
NO_TWIN = {"sbx": {"a2c"}}  # entries that a peer does not have


class Workload(BaseModel):
    """What all sides do: `warmup` steps that are not counted, then `steps` that are."""

    model_config = ConfigDict(extra="forbid")

    algorithm: str
    env: str
    warmup: int
    steps: int
    settings: dict[str, Any]
    alone: bool = False  # no peer has it


@cache
def workloads() -> dict[str, Workload]:
    """All workloads of speed.yaml by name."""
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: Workload.model_validate(each) for name, each in data.items()}


def select(names: list[str]) -> dict[str, Workload]:
    """The workloads of these algorithms; all if none is named."""
    known = {each.algorithm for each in workloads().values()}
    for name in names:
        if name not in known:
            raise UserError(f"no workload for {name!r}{nearest(name, known)}")
    return {title: each for title, each in workloads().items() if not names or each.algorithm in names}


@dataclass
class Side:
    """What was measured of one side of a workload."""

    threads: int
    rates: list[float] = field(default_factory=list)  # steps a second, of each repeat
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)


@dataclass
class Measured:
    """A workload with all of its sides, the limit in steps a second, and where the zoo's time goes."""

    title: str
    workload: Workload
    sides: dict[str, Side]
    limit: float
    env_rate: float
    shares: dict[str, float]

    def ratio(self, side: str) -> float:
        """How many times faster the zoo is."""
        return self.sides["zoo"].rate / self.sides[side].rate

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        sides = {
            name: {"threads": side.threads, "steps_per_second": side.rates, "median": side.rate, **side.last}
            for name, side in self.sides.items()
        }
        return {
            "workload": self.title,
            **self.workload.model_dump(),
            "sides": sides,
            "ratios": {name: self.ratio(name) for name in self.sides if name != "zoo"},
            "env_steps_per_second": self.env_rate,
            "limit": self.limit,
            "shares": self.shares,
        }


def measure(
    names: list[str], *, against: list[str], repeat: int, say: Callable[[str], None] = lambda text: None
) -> Iterator[Measured]:
    """Each workload, measured on all sides; `say` hears what is going on."""
    for title, workload in select(names).items():
        peers = [side for side in against if not workload.alone and workload.algorithm not in NO_TWIN.get(side, ())]
        sides = {}
        for name in ["zoo", *peers]:
            say(f"{title}: {NAMES[name]} at 1 to {_cores()} threads")
            sides[name] = _best_threads(workload, name)
        for number in range(1, repeat):
            say(f"{title}: repeat {number + 1} of {repeat}")
            for name, side in sides.items():
                _add(side, run(workload, name, side.threads))
        say(f"{title}: limits")
        env_rate = run(workload, "env", 1)["steps_per_second"]
        counted = run(workload, "flops", sides["zoo"].threads)
        limit = 1 / (1 / env_rate + counted["flops"] / counted["rate"])
        shares = run(workload, "zoo", sides["zoo"].threads, profile=True)["shares"]
        yield Measured(title, workload, sides, limit, env_rate, shares)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _best_threads(workload: Workload, name: str) -> Side:
    """The side at 1, 2, 4, ... threads, up to the cores; the fastest counts as the first repeat."""
    counts = [2**power for power in range(_cores().bit_length()) if 2**power <= _cores()]
    tried = []
    for threads in counts:
        tried.append(Side(threads))
        _add(tried[-1], run(workload, name, threads))
    return max(tried, key=lambda side: side.rate)


def _add(side: Side, result: dict[str, Any]) -> None:
    side.rates.append(result["steps_per_second"])
    side.last = {key: result[key] for key in ("import", "build", "first", "memory")}


def run(workload: Workload, side: str, threads: int, *, profile: bool = False) -> dict[str, Any]:
    """One process; a UserError with its last words if it fails."""
    task = {**workload.model_dump(), "side": side, "threads": threads, "profile": profile}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if side == "sbx":
        single = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment["XLA_FLAGS"] = single if threads == 1 else ""
    done = subprocess.run(
        [sys.executable, "-m", "zoo.bench.stopwatch"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"{NAMES.get(side, side)} failed: {last[0]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def header(against: list[str]) -> list[str]:
    """The columns of `row`."""
    peers = [column for name in against for column in (NAMES[name], "ratio")]
    return ["workload", "zoo", *peers, "of limit", "act/env/store/update", "first update", "memory"]


def row(measured: Measured, against: list[str]) -> list[str]:
    """A row of the table: steps a second with threads, ratios, and the zoo's share of the limit."""
    zoo = measured.sides["zoo"]
    cells = [measured.title, _rate(zoo)]
    for name in against:
        side = measured.sides.get(name)
        cells += [_rate(side), f"{measured.ratio(name):.1f}x"] if side else ["-", "-"]
    shares = "/".join(f"{100 * measured.shares[part]:.0f}" for part in ("act", "env", "store", "update"))
    memory = f"{zoo.last['memory'] / 2**20:,.0f} MB"
    return [*cells, f"{zoo.rate / measured.limit:.0%}", f"{shares} %", f"{zoo.last['first']:.1f} s", memory]


def _rate(side: Side) -> str:
    spread = f" ±{(max(side.rates) - min(side.rates)) / 2 / side.rate:.0%}" if len(side.rates) > 1 else ""
    return f"{side.rate:,.0f}{spread} ({side.threads} thr)"
