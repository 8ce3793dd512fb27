"""What stepping environments as arrays brings: steps a second of `--vec sync` and `--vec native`, as Markdown tables.

python docs/studies/native.py       a quarter of an hour on a machine that does nothing else
"""

import statistics

from zoo.bench.speed import Workload, run
from zoo.envs.dynamics import DYNAMICS

TURNS = 3
ROLLOUT = 8192  # steps, whatever the number of environments: the same updates for each step


def workload(env: str, count: int, vec: str) -> Workload:
    settings = {"num_envs": count, "num_steps": ROLLOUT // count, "batch_size": 1024, "num_epochs": 4, "vec": vec}
    return Workload(algorithm="ppo", env=env, warmup=2 * ROLLOUT, steps=6 * ROLLOUT, settings=settings)


def row(side: str, env: str, count: int) -> str:
    """Medians of turns in alternation, and their ratio."""
    rates: dict[str, list[float]] = {"sync": [], "native": []}
    for _ in range(TURNS):
        for vec, found in rates.items():
            found.append(run(workload(env, count, vec), side, threads=1)["steps_per_second"])
    sync, native = map(statistics.median, rates.values())
    return f"| {env} | {count} | {sync:,.0f} | {native:,.0f} | {native / sync:.1f}x |"


if __name__ == "__main__":
    for side, envs, counts in (
        ("env", sorted(DYNAMICS.keys() - {"CartPole-v0"}), (1, 2, 4, 8, 16, 64)),
        ("zoo", ["Acrobot-v1", "Pendulum-v1"], (16, 64)),
    ):
        print(f"\n| {side} | environments | sync | native | ratio |\n|---|---|---|---|---|")
        for env in envs:
            for count in counts:
                print(row(side, env, count), flush=True)
