"""Rung 3: the same curve. Both sides train with the same settings, environments and budgets, over several seeds.

A run's record: the mean return of ten episodes after each tenth of its steps, and of 100 fixed-seed episodes at the
end. Two sides are equivalent if the 90% interval of the difference of their interquartile means lies within a margin
stated here, beforehand: 5% of what lies between a random policy and a solved environment at the end, and 10% of it for
the area under the curve (two one-sided tests at 5%, Schuirmann 1987).
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.machine import safe_path
from zoo.settings import Settings, resolve
from zoo.statistics import Estimate, estimate, iqm_difference
from zoo.storage.files import Folder

CHECKPOINTS, EPISODES, FINAL_EPISODES = 10, 10, 100
# Mean returns of a uniformly random policy and of a solved environment.
RANGES = {"CartPole-v1": (22.0, 500.0), "Pendulum-v1": (-1230.0, -150.0)}
END_MARGIN, AREA_MARGIN = 0.05, 0.10
SIDES = ("zoo", "sb3")
FILE = "curves.jsonl"
INTRODUCTION = """\
Written by `zoo crosscheck --rung 3`. Interquartile means over seeds with 95% bootstrap intervals, of the mean return of
100 episodes at the end and of the area under the curve; their difference with its 90% interval, which must lie within
the margin.
"""


@dataclass(frozen=True)
class Pair:
    """An entry and its twin on an environment; `steps` replaces the tuned budget where that would take hours.

    `seeds` on each side; more where one run in ten fails, which leaves ten seeds with an interval of a tenth of the
    range.
    """

    algorithm: str
    env: str
    steps: int
    seeds: int = 10

    @property
    def name(self) -> str:
        """As files and tables call it."""
        return f"{self.algorithm}-{self.env}"


PAIRS = [
    Pair("ppo", "CartPole-v1", 100_000, seeds=30),
    Pair("ppo", "Pendulum-v1", 100_000),
    Pair("a2c", "CartPole-v1", 300_000, seeds=30),
    Pair("a2c", "Pendulum-v1", 500_000),
    Pair("dqn", "CartPole-v1", 50_000, seeds=30),
    Pair("ddpg", "Pendulum-v1", 15_000),
    Pair("sac", "Pendulum-v1", 8_000),
]


def settings_of(pair: Pair, seed: int) -> Settings:
    """What both sides are told."""
    checks = {"eval_every": pair.steps // CHECKPOINTS, "validation_episodes": EPISODES, "eval_episodes": FINAL_EPISODES}
    return resolve(pair.algorithm, pair.env, {"total_steps": pair.steps, "seed": seed, **checks}, preset="sb3")


def train(side: str, pair: Pair, seed: int) -> dict[str, Any]:
    """One run: steps and returns on the way, and the return at the end."""
    from zoo import runs
    from zoo.crosscheck import theirs

    settings = settings_of(pair, seed)
    rows: list[dict[str, float]] = []
    if side == "zoo":
        evaluation = runs.run(settings, pair.env, on_row=rows.append).evaluation
    else:
        evaluation = theirs.train(settings, on_row=rows.append).evaluation
    assert evaluation is not None
    curve = [(row["step"], row["eval_return"]) for row in rows if "eval_return" in row]
    end = evaluation.mean
    return {"side": side, "pair": pair.name, "seed": seed, "curve": curve, "end": end, "settings": settings.to_json()}


class Store:
    """Finished runs, one JSON object a line; a run is known by its side and its settings."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        with folder.append(FILE) as file:
            file.seek(0)
            lines = file.read().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                file.truncate(sum(map(len, lines[:-1])))  # the rest of a run that could not be written
                del lines[-1]
        self.runs = [_parse(line, f"{folder.path / FILE}, line {number}") for number, line in enumerate(lines, 1)]

    def find(self, side: str, pair: Pair, seed: int) -> dict[str, Any] | None:
        """The run with exactly these settings, if it was finished."""
        wanted = json.loads(json.dumps(settings_of(pair, seed).to_json()))
        return next((run for run in self.runs if run["side"] == side and run["settings"] == wanted), None)

    def add(self, run: dict[str, Any]) -> None:
        """Write a run down."""
        self.runs.append(json.loads(json.dumps(run)))
        with self.folder.append(FILE) as file:
            file.write(f"{json.dumps(run)}\n".encode())


def _parse(line: bytes, place: str) -> dict[str, Any]:
    """A run as it was written; a UserError that names the place where it is none."""
    try:
        run = json.loads(line)
        points = [float(number) for point in run["curve"] for number in point] + [float(run["end"])]
        valid = run["side"] in SIDES and isinstance(run["settings"], dict) and bool(np.isfinite(points).all())
    except (LookupError, RecursionError, TypeError, ValueError):
        valid = False
    if not valid:
        raise UserError(f"{place}: no run of a comparison; remove the line, and the run is done anew")
    return dict(run)


def measure(store: Store, pairs: list[Pair], jobs: int) -> Iterator[str]:
    """Train what the store does not have yet, in processes of their own; yields a line for each finished run."""
    missing = [
        (side, pair, seed)
        for pair in pairs
        for seed in range(pair.seeds)
        for side in SIDES
        if store.find(side, pair, seed) is None
    ]
    with safe_path(), ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {pool.submit(train, *job): job for job in missing}
        for count, future in enumerate(as_completed(futures), 1):
            side, pair, seed = futures[future]
            run = future.result()
            store.add(run)
            yield f"{count} of {len(missing)}: {side} {pair.name}, seed {seed}: {run['end']:.1f}"


@dataclass(frozen=True)
class Verdict:
    """How the two sides of a pair compare by one measure."""

    pair: Pair
    measure: str
    sides: dict[str, Estimate]
    difference: Estimate
    margin: float

    @property
    def equivalent(self) -> bool:
        """Whether the interval of the difference lies within the margin."""
        return -self.margin < self.difference.low and self.difference.high < self.margin


def judge(store: Store, pair: Pair) -> list[Verdict]:
    """The return at the end and the area under the curve of a pair whose runs are all there; else nothing."""
    runs = {side: [store.find(side, pair, seed) for seed in range(pair.seeds)] for side in SIDES}
    found = {side: [run for run in runs[side] if run is not None] for side in SIDES}
    if any(len(each) < pair.seeds for each in found.values()):
        return []
    low, high = RANGES[pair.env]
    measures = {"end": END_MARGIN, "area": AREA_MARGIN}
    verdicts = []
    for measure, share in measures.items():
        values = {side: np.array([_value(run, measure) for run in found[side]]) for side in SIDES}
        sides = {side: estimate(values[side]) for side in SIDES}
        difference = estimate(values["zoo"], values["sb3"], statistic=iqm_difference, confidence=0.90)
        verdicts.append(Verdict(pair, measure, sides, difference, share * (high - low)))
    return verdicts


def _value(run: dict[str, Any], measure: str) -> float:
    return float(run["end"] if measure == "end" else np.mean([value for _, value in run["curve"]]))


def cells(verdict: Verdict) -> list[str]:
    """A row of the table: the pair, both sides and their difference."""
    zoo, sb3 = (str(verdict.sides[side]) for side in SIDES)
    numbers = [zoo, sb3, str(verdict.difference), f"±{verdict.margin:.0f}"]
    return [verdict.pair.algorithm, verdict.pair.env, verdict.measure, *numbers]


def markdown(verdicts: list[Verdict]) -> str:
    """A page: the table, and the figure of each pair."""
    header = ["entry", "environment", "steps", "seeds", "measure", "zoo", "SB3", "difference", "margin", "equivalent"]
    lines = [header, ["---"] * len(header)]
    for verdict in verdicts:
        name, env, *rest = cells(verdict)
        run = [name, env, f"{verdict.pair.steps:,}", str(verdict.pair.seeds)]
        lines.append([*run, *rest, "yes" if verdict.equivalent else "**no**"])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    pairs = dict.fromkeys(verdict.pair.name for verdict in verdicts)
    figures = "\n".join(f"![Learning curves of {name}]({name}.svg)" for name in pairs)
    return f"# Learning curves of both libraries\n\n{INTRODUCTION}\n{table}\n\n{figures}\n"


def draw(store: Store, pair: Pair) -> None:
    """Learning curves of both sides: interquartile means over seeds with 95% bands, beside the results."""
    import matplotlib as mpl

    mpl.rcdefaults()  # whatever a matplotlibrc in the working directory says
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    for side, label in zip(SIDES, ("zoo", "Stable-Baselines3"), strict=True):
        runs = [run for seed in range(pair.seeds) if (run := store.find(side, pair, seed))]
        points = min(len(run["curve"]) for run in runs)
        steps = np.mean([[step for step, _ in run["curve"][:points]] for run in runs], axis=0)
        values = np.array([[value for _, value in run["curve"][:points]] for run in runs])
        bands = [estimate(column) for column in values.T]
        axes.plot(steps, [band.value for band in bands], marker=".", label=label)
        axes.fill_between(steps, [band.low for band in bands], [band.high for band in bands], alpha=0.2)
    axes.set(xlabel="steps", ylabel="return", title=f"{pair.algorithm} on {pair.env}, {pair.seeds} seeds")
    axes.legend()
    with store.folder.write(f"{pair.name}.svg") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
