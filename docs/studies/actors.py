"""How IMPALA-lite's throughput grows with its actors: prints a table for a fast and for a slow environment.

python docs/studies/actors.py       about five minutes on two cores
"""

import time
from statistics import median
from typing import Any

import gymnasium as gym

from zoo import runs

REPEATS = 3


class Slow(gym.Wrapper[Any, Any, Any, Any]):
    """Each step waits, as for a simulator on another machine."""

    def step(self, action: Any) -> Any:
        time.sleep(0.002)
        return self.env.step(action)


def slow_cartpole() -> gym.Env[Any, Any]:
    return Slow(gym.make("CartPole-v1"))


def throughput(env: Any, actors: int, total_steps: int) -> float:
    """Environment steps a second while learning, the start of the processes left out."""
    settings = {"engine": "processes", "actors": actors, "num_envs": 4, "total_steps": total_steps, "seed": 0}
    settings |= {"eval_every": 0, "eval_episodes": 0, "compile": "off"}
    rows: list[dict[str, float]] = []
    prepared = runs.prepare("impala", env, settings, source="study")
    runs.run(prepared, env, on_row=rows.append)
    first, last = rows[len(rows) // 5], rows[-1]
    return (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


def main() -> None:
    print("| environment | actors | steps/s, median | lowest to highest |\n|---|---|---|---|")
    for name, env, steps in (("CartPole-v1", "CartPole-v1", 100_000), ("2 ms a step", slow_cartpole, 8_000)):
        for actors in (1, 2, 4, 8):
            size = steps * (actors if env is slow_cartpole else 1)
            found = [throughput(env, actors, size) for _ in range(REPEATS)]
            print(f"| {name} | {actors} | {median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
