"""Measure env-steps per second while learning: this package, its peers and the machine's limits, in alternation.

Every side is a process of its own at each number of threads. The processes take turns, so that whatever else slows the
machine down for a while affects all of them; a side counts at the number of threads at which it is fastest. A ratio is
the ratio of medians over turns. The limit is the speed if only the environment and the multiplications took time.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import BaseModel, ConfigDict

from zoo.bench.escape import plain
from zoo.errors import UserError, nearest

FILE = Path(__file__).parent / "speed.yaml"
NAMES = {"zoo": "zoo", "sb3": "Stable-Baselines3", "sbx": "SBX"}
NO_TWIN = {"sbx": {"a2c"}}  # entries that a peer does not have


class Workload(BaseModel):
    """The work of all sides: `warmup` steps that are not counted, then turns of `steps` steps that are."""

    model_config = ConfigDict(extra="forbid")

    algorithm: str
    env: str
    warmup: int
    steps: int
    settings: dict[str, Any]
    alone: bool = False  # no peer has it


@cache
def workloads() -> dict[str, Workload]:
    """Load all workloads of speed.yaml, by name."""
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: Workload.model_validate(each) for name, each in data.items()}


def select(names: list[str]) -> dict[str, Workload]:
    """Return the workloads of these algorithms; all if none is named. Raises UserError if one has none."""
    known = {each.algorithm for each in workloads().values()}
    for name in names:
        if name not in known:
            raise UserError(f"no workload for {name!r}{nearest(name, known)}")
    return {title: each for title, each in workloads().items() if not names or each.algorithm in names}


@dataclass
class Side:
    """The measurements of one side of a workload."""

    threads: int
    rates: list[float] = field(default_factory=list)  # steps a second, of each turn
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)


@dataclass
class Measured:
    """A workload with all of its sides, the limit in steps a second, and the shares of the zoo's time."""

    title: str
    workload: Workload
    sides: dict[str, Side]
    limit: float
    env_rate: float
    shares: dict[str, float]

    def ratio(self, side: str) -> float:
        """Return how many times as fast as `side` the zoo is."""
        return self.sides["zoo"].rate / self.sides[side].rate

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
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
    """Measure each workload on all sides in `repeat` turns; `say` is called with lines of progress."""
    for title, workload in select(names).items():
        peers = [side for side in against if not workload.alone and workload.algorithm not in NO_TWIN.get(side, ())]
        with ExitStack() as stack:
            racers: list[tuple[str, Side, Process]] = []
            for name, threads in product(["zoo", *peers], _thread_counts()):
                say(f"{title}: warm-up of {NAMES[name]} with {threads} thread{'s' * (threads > 1)}")
                process = stack.enter_context(started(workload, name, threads, turns=repeat))
                process.answer()
                racers.append((name, Side(threads), process))
            for number in range(1, repeat + 1):
                say(f"{title}: turn {number} of {repeat}")
                _take_turns(racers)
            for _, side, process in racers:
                side.last = process.end()
        sides = {
            name: max((side for of, side, _ in racers if of == name), key=lambda side: side.rate)
            for name in ["zoo", *peers]
        }
        say(f"{title}: limits")
        env_rate = run(workload, "env", 1)["steps_per_second"]
        counted = run(workload, "flops", sides["zoo"].threads)
        limit = 1 / (1 / env_rate + counted["flops"] / counted["rate"])
        shares = run(workload, "zoo", sides["zoo"].threads, profile=True)["shares"]
        yield Measured(title, workload, sides, limit, env_rate, shares)


def _take_turns(racers: "list[tuple[str, Side, Process]]") -> None:
    for _, side, process in racers:
        side.rates.append(process.turn())


def _thread_counts() -> list[int]:
    """Return 1, 2, 4, ... up to the number of cores."""
    return [2**power for power in range(_cores().bit_length()) if 2**power <= _cores()]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Process:
    """The process of one side, which learns during its turns (see `zoo.bench.stopwatch`)."""

    side: str
    popen: subprocess.Popen[str]
    words: IO[str]  # its standard error

    def tell(self, line: str) -> None:
        """Write a line to it."""
        assert self.popen.stdin is not None
        with suppress(BrokenPipeError):  # it has failed; the next answer says why
            print(line, file=self.popen.stdin, flush=True)

    def turn(self) -> float:
        """Run the next turn; returns steps a second."""
        self.tell("")
        return float(self.answer()["steps_per_second"])

    def end(self) -> dict[str, Any]:
        """End it; returns its last answer."""
        self.tell("")
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Read its next answer. Raises UserError, with the last line of its standard error, if it has failed."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            code = self.popen.wait()
            self.words.seek(0)
            last = self.words.read().strip().splitlines()[-1:] or [f"exit code {code}"]
            raise UserError(f"{NAMES.get(self.side, self.side)} failed: {plain(last[0])}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def started(workload: Workload, side: str, threads: int, *, turns: int, profile: bool = False) -> Iterator[Process]:
    """Start a process for a side or a limit; it is killed afterwards."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if side == "sbx":
        single = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment["XLA_FLAGS"] = single if threads == 1 else ""
    command, pipe = [sys.executable, "-P", "-m", "zoo.bench.stopwatch"], subprocess.PIPE
    task = {"side": side, "threads": threads, "turns": turns, "profile": profile}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as words,
        suppress(BrokenPipeError),
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=words, text=True, env=environment) as popen,
    ):
        try:
            process = Process(side, popen, words)
            process.tell(json.dumps({**workload.model_dump(), **task}))
            yield process
        finally:
            popen.kill()


def run(workload: Workload, side: str, threads: int, *, profile: bool = False) -> dict[str, Any]:
    """Measure a side or a limit alone, once."""
    with started(workload, side, threads, turns=1, profile=profile) as process:
        found = process.answer()
        return found or {"steps_per_second": process.turn(), **process.end()}


def header(against: list[str]) -> list[str]:
    """Return the columns of `row`."""
    peers = [column for name in against for column in (NAMES[name], "ratio")]
    return ["workload", "zoo", *peers, "of limit", "act/env/store/update", "first update", "memory"]


def row(measured: Measured, against: list[str]) -> list[str]:
    """Format a row of the table: steps a second with threads, ratios, and the zoo's share of the limit."""
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
