"""What a store knows of a plan, as plain data: the one source of tables, figures and the report."""

import subprocess
from collections import defaultdict
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from zoo import registry
from zoo.bench.plan import Job, Plan, references
from zoo.bench.store import Store
from zoo.runs.recorder import environment
from zoo.spec import Array
from zoo.statistics import Estimate, estimate, iqm_difference
from zoo.taxonomy import AXES

Data = dict[str, Any]


def summarise(plan: Plan, store: Store, *, title: str, command: str) -> Data:
    """Everything about a sweep, JSON-ready."""
    found = results(plan, store)
    here = environment()
    peers = {"stable-baselines3": version("stable-baselines3")} if any(side == "sb3" for side, _ in plan.rows) else {}
    return {
        "title": title,
        "command": command,
        "commit": commit(),
        "created": datetime.now().isoformat(timespec="seconds"),
        "machine": {**here["machine"], "cores": psutil.cpu_count(logical=False)},
        "versions": here["versions"] | peers,
        "envs": plan.envs,
        "references": {env: references()[env] for env in plan.envs if env in references()},
        "rows": [_row(plan, found, side, name) for side, name in plan.rows],
        "differences": _differences(finals(plan, found)),
        "runs": [_run(job, result) for job in plan.jobs if (result := found[id(job)])],
    }


def commit() -> str | None:
    """The checkout's commit, marked where files have changed since; nothing in an installed package."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def results(plan: Plan, store: Store) -> dict[int, Data | None]:
    """What the store has of each job, by the job's id()."""
    return {id(job): store.find(job) for job in plan.jobs}


def finals(plan: Plan, found: dict[int, Data | None]) -> dict[tuple[str, str], Array]:
    """The final returns of finished runs, (seeds,), for each row and environment that has some."""
    ends: dict[tuple[str, str], list[float]] = defaultdict(list)
    for job in plan.jobs:
        if (result := found[id(job)]) and result["status"] == "done":
            ends[job.row, job.env].append(result["end"])
    return {key: np.array(values) for key, values in ends.items()}


def _differences(ends: dict[tuple[str, str], Array]) -> Data:
    """By entry and environment: how far its interquartile mean lies above its twin's, where both have seeds."""
    differences: Data = defaultdict(dict)
    for (row, env), theirs in ends.items():
        side, _, name = row.partition("/")
        ours = ends.get((f"zoo/{name}", env), np.array([]))
        if side == "sb3" and min(len(ours), len(theirs)) > 1:
            differences[name][env] = asdict(estimate(ours, theirs, statistic=iqm_difference))
    return differences


def _row(plan: Plan, found: dict[int, Data | None], side: str, name: str) -> Data:
    cell = str(registry.load().cell_of(name)) if name else None
    axes = dict(zip(AXES, cell.split("/"), strict=True)) if cell else dict.fromkeys(AXES)
    titles = {"zoo": registry.get(name).title if name else "", "sb3": "Stable-Baselines3", "random": "Random policy"}
    cells = {}
    for env in plan.envs:
        jobs = [job for job in plan.jobs if (job.side, job.algorithm, job.env) == (side, name, env)]
        cells[env] = _cell(env, [found[id(job)] for job in jobs], plan.unsupported.get((name, env)))
    return {
        "id": f"{side}/{name}" if name else side,
        "side": side,
        "name": name or side,
        "label": f"{name} (SB3)" if side == "sb3" else name or side,
        "title": titles[side],
        "cell": cell,
        **axes,
        "cells": cells,
    }


def _cell(env: str, results: list[Data | None], reason: str | None) -> Data:
    done = [result for result in results if result and result["status"] == "done"]
    failed = [result for result in results if result and result["status"] == "failed"]
    if reason:
        status = "unsupported"
    else:
        status = "done" if done else "failed" if failed else "missing"
        reason = failed[0]["error"] if failed else None
    score = scores(done)
    normalized = None if score is None else normalize(env, score)
    return {
        "status": status,
        "reason": reason,
        **_numbers("", score),
        **_numbers("normalized", normalized),
        "seeds": len(done),
        "failed_seeds": len(failed),
        "without": sorted({name for result in done for name in result.get("ignored", ())}),
        **{key: _median(done, key) for key in ("steps_per_second", "seconds", "parameters", "memory")},
    }


def scores(done: list[Data]) -> Estimate | None:
    """Interquartile mean over seeds of the final return; of a single run, over its episodes."""
    if not done:
        return None
    values = [result["end"] for result in done] if len(done) > 1 else done[0]["returns"]
    return estimate(np.array(values))


def normalize(env: str, score: Estimate) -> Estimate | None:
    """0 is a random policy, 1 the best published figure."""
    if env not in references():
        return None
    low, high = references()[env]["random"], references()[env]["best"]
    return Estimate(*((value - low) / (high - low) for value in (score.value, score.low, score.high)))


def _numbers(prefix: str, score: Estimate | None) -> Data:
    names = ("iqm", "low", "high") if not prefix else (prefix, f"{prefix}_low", f"{prefix}_high")
    values = (None, None, None) if score is None else (score.value, score.low, score.high)
    return dict(zip(names, values, strict=True))


def _median(done: list[Data], key: str) -> float | None:
    values = [result[key] for result in done if result[key] is not None]
    return float(np.median(values)) if values else None


def _run(job: Job, result: Data) -> Data:
    keys = ("status", "end", "curve", "seconds", "versions", "machine")
    return {
        "id": job.row,
        "env": job.env,
        "seed": job.seed,
        "error": result.get("error"),
        "command": job.command,
        "settings": job.settings,
        "commit": result.get("commit"),
        **{key: result.get(key) for key in keys},
    }
