"""What stepping environments as arrays brings: steps a second of `--vec sync` and `--vec native`, as Markdown tables.

python docs/studies/native.py       ten minutes; both take turns, and medians of turns count
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.random import SeedSequence

from zoo.bench.speed import Workload, run
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.settings import NATIVE

VECS = ("sync", "native")
ROLLOUT = 8192  # steps, whatever the number of environments: the same updates for each step


def stepped(env: str, count: int, vec: str) -> Callable[[], float]:
    """What measures environments alone, under random actions."""
    envs = Envs(vectorize(env, count, vec), SeedSequence(0))
    envs.reset()
    space, turn = envs.vector.action_space, max(1000 // count, 20)
    space.seed(0)
    actions = [np.asarray(space.sample(), envs.spec.action_dtype) for _ in range(turn)]
    zeros = np.zeros(count, np.float32)

    def rate() -> float:
        began = time.perf_counter()
        for action in actions:
            envs.step(action, zeros)
        return turn * count / (time.perf_counter() - began)

    return rate


def learning(env: str, count: int, vec: str) -> Callable[[], float]:
    """What measures PPO as it learns, in a process of its own."""
    settings = {"num_envs": count, "num_steps": ROLLOUT // count, "batch_size": 1024, "num_epochs": 4, "vec": vec}
    workload = Workload(algorithm="ppo", env=env, warmup=ROLLOUT, steps=3 * ROLLOUT, settings=settings)
    return lambda: run(workload, "zoo", threads=1)["steps_per_second"]


def row(env: str, count: int, measure: Callable[[str, int, str], Callable[[], float]], turns: int) -> str:
    """Medians of turns in alternation, and the median of their ratios."""
    sides = [measure(env, count, vec) for vec in VECS]
    found = [[side() for side in sides] for _ in range(turns)]
    sync, native = (statistics.median(rates) for rates in zip(*found, strict=True))
    ratio = statistics.median(other / one for one, other in found)
    return f"| {env} | {count} | {sync:,.0f} | {native:,.0f} | {ratio:.1f}x |"


if __name__ == "__main__":
    for title, envs, counts, measure, turns in (
        ("environments alone", sorted(NATIVE), (1, 2, 4, 8, 16, 64), stepped, 25),
        ("PPO", ["Acrobot-v1", "Pendulum-v1"], (16, 64), learning, 3),
    ):
        print(f"\n| {title} | number | sync | native | ratio |\n|---|---|---|---|---|")
        for env in envs:
            for count in counts:
                print(row(env, count, measure, turns), flush=True)
