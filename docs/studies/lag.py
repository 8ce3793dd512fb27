"""What lag costs IMPALA-lite, and what the V-trace correction gives back: writes lag.json, lag.svg and lag.md.

python docs/studies/lag.py          train what lag.json does not have yet (a quarter of an hour on two cores), and draw
"""

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "lag.json"
LAGS, SEEDS, ENV, STEPS = (0, 1, 4, 16, 64), range(5), "CartPole-v1", 200_000
JOBS = 2
PAGE = """\
# What lag costs, and what V-trace gives back

IMPALA-lite on CartPole-v1, 200,000 steps, the registry's settings. With `--engine inline --lag K` the policy that acts
is refreshed every K updates, so data are on average K/2 updates old. Each cell is the median over seeds 0 to 4 of the
mean return of 100 fixed-seed evaluation episodes, with the lowest and the highest seed. "Without" is `--no-correct`:
the same data, treated as if they came from the current policy.

{table}

![Return against lag](lag.svg)

The correction does not show here: medians differ by less than seeds do, and at a lag of 64 the corrected runs are the
worse ones. Without lag both columns are the same algorithm, since all ratios are 1, and still their medians are 345
and 490: so much is chance. Two things explain it. Policies some thirty updates apart are close to each other, so most
ratios are near 1; and where one is not, cutting it off at 1 leaves actions that became likelier without their full
weight, which costs more than the bias that is removed. What the correction promises is a fixed point, the value of π
rather than that of μ, and there it is decisive: the oracle tests (tests/test_oracles.py) learn V of π from data of a
very different, fixed μ to 1e-6, and fail without it. Tried as well, with two seeds each: step sizes three times as
large, and Adam, at lags of 4, 16 and 64; and with five seeds four updates on replayed segments after each fresh one
(medians 500 and 500).

Reproduce one cell: `zoo run impala --env CartPole --total-steps 200000 --lag 16 --no-correct --seed 0`.
All of it: `python docs/studies/lag.py`.
"""


def key(lag: int, correct: bool, seed: int) -> str:
    return f"lag {lag}, {'corrected' if correct else 'uncorrected'}, seed {seed}"


def train(lag: int, correct: bool, seed: int) -> float:
    """Mean return of 100 evaluation episodes after one run."""
    import zoo

    settings = {"total_steps": STEPS, "lag": lag, "correct": correct, "eval_every": 0, "eval_episodes": 0}
    agent = zoo.train("impala", ENV, seed=seed, **settings)
    return zoo.evaluate(agent, ENV, episodes=100).mean


def measure() -> dict[str, float]:
    """Every combination, from the file or trained now; each result is written as soon as it is known."""
    results: dict[str, float] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    missing = [job for job in product(LAGS, (True, False), SEEDS) if key(*job) not in results]
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(train, *job): key(*job) for job in missing}
        for done in as_completed(jobs):
            results[jobs[done]] = done.result()
            print(jobs[done], round(results[jobs[done]], 1), flush=True)
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return results


def scores(results: dict[str, float], lag: int, correct: bool) -> list[float]:
    return [results[key(lag, correct, seed)] for seed in SEEDS]


def draw(results: dict[str, float]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for correct, marker, label in ((True, "o", "with the correction"), (False, "s", "without")):
        values = np.array([scores(results, lag, correct) for lag in LAGS])
        axes.plot(np.median(values, 1), marker=marker, label=label)
        axes.fill_between(range(len(LAGS)), values.min(1), values.max(1), alpha=0.2)
    axes.set(xlabel="lag, in updates", ylabel=f"return on {ENV}", xticks=range(len(LAGS)), xticklabels=LAGS)
    axes.legend()
    figure.savefig(FOLDER / "lag.svg", metadata={"Date": None})


def write(results: dict[str, float]) -> None:
    rows = []
    for lag in LAGS:
        cells = []
        for correct in (True, False):
            values = scores(results, lag, correct)
            cells.append(f"{np.median(values):.0f} ({min(values):.0f} to {max(values):.0f})")
        rows.append(f"| {lag} | {cells[0]} | {cells[1]} |")
    header = "| lag | with the correction | without |\n|---|---|---|\n"
    (FOLDER / "lag.md").write_text(PAGE.format(table=header + "\n".join(rows)))


if __name__ == "__main__":
    found = measure()
    draw(found)
    write(found)
