"""Sum up a sweep in records: the one source of tables, figures and the report."""

import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from zoo import registry
from zoo.bench.plan import Plan, references
from zoo.bench.store import Finished, Store, Trial
from zoo.runs.recorder import versions
from zoo.spec import Array
from zoo.statistics import Estimate, estimate, iqm_difference
from zoo.taxonomy import AXES


@dataclass(frozen=True)
class Standing:
    """How an entry, a twin or the random policy did on one environment; costs are medians over seeds."""

    status: str  # done, failed, missing or unsupported
    reason: str | None  # why there is no score
    score: Estimate | None
    normalized: Estimate | None
    seeds: int
    failed_seeds: int
    without: list[str]  # settings that a twin does not have
    steps_per_second: float | None
    seconds: float | None
    parameters: float | None
    memory: float | None  # bytes


@dataclass(frozen=True)
class Contender:
    """A row of the table: an entry, its twin or the random policy, and its standing on each environment."""

    id: str  # as in Job.row
    side: str
    name: str
    label: str
    title: str
    cell: str | None  # of the cube
    standings: dict[str, Standing]


@dataclass(frozen=True)
class Summary:
    """Everything about a sweep."""

    title: str
    command: str
    commit: str | None
    created: str
    machine: dict[str, Any]
    versions: dict[str, str]
    envs: list[str]
    references: dict[str, dict[str, Any]]
    contenders: list[Contender]
    differences: dict[str, dict[str, Estimate]]  # entry minus twin, by entry and environment
    trials: list[Trial]


def summarise(plan: Plan, store: Store, *, title: str, command: str) -> Summary:
    """Sum up what the store has of the plan's jobs."""
    trials = find_trials(plan, store)
    here = versions()
    peers = {"stable-baselines3": version("stable-baselines3")} if any(side == "sb3" for side, _ in plan.rows) else {}
    return Summary(
        title=title,
        command=command,
        commit=commit(),
        created=datetime.now().isoformat(timespec="seconds"),
        machine={**here["machine"], "cores": psutil.cpu_count(logical=False)},
        versions=here["versions"] | peers,
        envs=plan.envs,
        references={env: references()[env] for env in plan.envs if env in references()},
        contenders=[_contender(plan, trials, side, name) for side, name in plan.rows],
        differences=_differences(finals(trials)),
        trials=list(trials.values()),
    )


def commit() -> str | None:
    """Return the checkout's commit, marked -dirty if files have changed since; None in an installed package."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def find_trials(plan: Plan, store: Store) -> dict[str, Trial]:
    """Return what the store has of the plan's jobs, by the key of the job."""
    found = {job.key: store.find(job) for job in plan.jobs}
    return {key: trial for key, trial in found.items() if trial is not None}


def finals(trials: dict[str, Trial]) -> dict[tuple[str, str], Array]:
    """Collect the final returns of finished runs, (seeds,), by row and environment."""
    ends: dict[tuple[str, str], list[float]] = defaultdict(list)
    for trial in trials.values():
        if trial.finished:
            ends[trial.job.row, trial.job.env].append(trial.finished.end)
    return {key: np.array(values) for key, values in ends.items()}


def _differences(ends: dict[tuple[str, str], Array]) -> dict[str, dict[str, Estimate]]:
    """Return IQM(entry) - IQM(twin) by entry and environment, where both have at least two seeds."""
    differences: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for (row, env), theirs in ends.items():
        side, _, name = row.partition("/")
        ours = ends.get((f"zoo/{name}", env), np.array([]))
        if side == "sb3" and min(len(ours), len(theirs)) > 1:
            differences[name][env] = estimate(ours, theirs, statistic=iqm_difference)
    return differences


def _contender(plan: Plan, trials: dict[str, Trial], side: str, name: str) -> Contender:
    titles = {"zoo": registry.get(name).title if name else "", "sb3": "Stable-Baselines3", "random": "Random policy"}
    own = [job for job in plan.jobs if (job.side, job.algorithm) == (side, name)]
    standings = {}
    for env in plan.envs:
        found = [trials[job.key] for job in own if job.env == env and job.key in trials]
        standings[env] = _standing(env, found, plan.unsupported.get((name, env)))
    return Contender(
        id=f"{side}/{name}" if name else side,
        side=side,
        name=name or side,
        label=f"{name} (SB3)" if side == "sb3" else name or side,
        title=titles[side],
        cell=str(registry.load().cell_of(name)) if name else None,
        standings=standings,
    )


def _standing(env: str, trials: list[Trial], unsupported: str | None) -> Standing:
    done = [trial.finished for trial in trials if trial.finished]
    errors = [trial.error for trial in trials if not trial.finished]
    score = scores(done)
    return Standing(
        status="unsupported" if unsupported else "done" if done else "failed" if errors else "missing",
        reason=unsupported or (errors[0] if errors else None),
        score=score,
        normalized=None if score is None else normalize(env, score),
        seeds=len(done),
        failed_seeds=len(errors),
        without=sorted({name for each in done for name in each.ignored}),
        steps_per_second=_median(done, lambda each: each.steps_per_second),
        seconds=_median(done, lambda each: each.seconds),
        parameters=_median(done, lambda each: each.parameters),
        memory=_median(done, lambda each: each.memory),
    )


def scores(done: list[Finished]) -> Estimate | None:
    """Return the interquartile mean of the final return over seeds; of a single run, over its episodes."""
    if not done:
        return None
    return estimate(np.array([each.end for each in done] if len(done) > 1 else done[0].returns))


def normalize(env: str, score: Estimate) -> Estimate | None:
    """Scale a score so that 0 is a random policy and 1 the best published figure; None where these are unknown."""
    if env not in references():
        return None
    low, high = references()[env]["random"], references()[env]["best"]
    return Estimate(*((value - low) / (high - low) for value in (score.value, score.low, score.high)))


def _median(done: list[Finished], number: Callable[[Finished], float | None]) -> float | None:
    values = [value for each in done if (value := number(each)) is not None]
    return float(np.median(values)) if values else None


# As JSON


def to_json(summary: Summary) -> dict[str, Any]:
    """Return a summary as plain data: the content of summary.json, which the report shows."""
    return {
        "title": summary.title,
        "command": summary.command,
        "commit": summary.commit,
        "created": summary.created,
        "machine": summary.machine,
        "versions": summary.versions,
        "envs": summary.envs,
        "references": summary.references,
        "rows": [_row(contender) for contender in summary.contenders],
        "differences": {
            name: {env: asdict(difference) for env, difference in found.items()}
            for name, found in summary.differences.items()
        },
        "runs": [_run(trial) for trial in summary.trials],
    }


def _row(contender: Contender) -> dict[str, Any]:
    axes = contender.cell.split("/") if contender.cell else [None] * len(AXES)
    return {
        "id": contender.id,
        "side": contender.side,
        "name": contender.name,
        "label": contender.label,
        "title": contender.title,
        "cell": contender.cell,
        **dict(zip(AXES, axes, strict=True)),
        "cells": {env: cell_to_json(standing) for env, standing in contender.standings.items()},
    }


def cell_to_json(standing: Standing) -> dict[str, Any]:
    """Return a standing as plain data without nesting: a cell of the table."""
    return {
        "status": standing.status,
        "reason": standing.reason,
        **_numbers(("iqm", "low", "high"), standing.score),
        **_numbers(("normalized", "normalized_low", "normalized_high"), standing.normalized),
        "seeds": standing.seeds,
        "failed_seeds": standing.failed_seeds,
        "without": standing.without,
        "steps_per_second": standing.steps_per_second,
        "seconds": standing.seconds,
        "parameters": standing.parameters,
        "memory": standing.memory,
    }


def _numbers(names: tuple[str, str, str], score: Estimate | None) -> dict[str, float | None]:
    values = (None, None, None) if score is None else (score.value, score.low, score.high)
    return dict(zip(names, values, strict=True))


def _run(trial: Trial) -> dict[str, Any]:
    job, done = trial.job, trial.finished
    return {
        "id": job.row,
        "env": job.env,
        "seed": job.seed,
        "error": trial.error,
        "command": job.command,
        "settings": job.settings,
        "commit": done.commit if done else None,
        "status": trial.status,
        "end": done.end if done else None,
        "curve": done.curve if done else None,
        "seconds": done.seconds if done else None,
        "versions": done.versions if done else None,
        "machine": done.machine if done else None,
    }
