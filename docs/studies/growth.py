"""How speed and memory grow with environments and with the network: writes growth.json and growth.svg.

python docs/studies/growth.py       ten minutes on a machine that does nothing else
"""

import json
from pathlib import Path
from typing import Any

from zoo.bench.speed import Workload, run

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "growth.json"
ROLLOUT = 8192  # steps, whatever the number of environments: the same updates for each step
ENVS, WIDTHS = [2**power for power in range(11)], [64, 128, 256, 512, 1024]


def with_envs(count: int, vec: str) -> Workload:
    settings = {"num_envs": count, "num_steps": ROLLOUT // count, "batch_size": 1024, "num_epochs": 4, "vec": vec}
    steps = 3 * ROLLOUT if count < 8 else 12 * ROLLOUT
    return Workload(algorithm="ppo", env="CartPole-v1", warmup=4 * ROLLOUT, steps=steps, settings=settings)


def with_width(width: int, precision: str) -> Workload:
    settings = {"hidden": [width, width], "learning_starts": 100, "capacity": 10_000, "precision": precision}
    steps = 128_000 // width
    return Workload(algorithm="sac", env="Pendulum-v1", warmup=150, steps=steps, settings=settings)


def jobs() -> dict[str, Workload]:
    """Every point of the two figures, by its label."""
    points = {f"envs {count} {vec}": with_envs(count, vec) for vec in ("sync", "native") for count in ENVS}
    return points | {
        f"width {width} {precision}": with_width(width, precision)
        for precision in ("float32", "bfloat16")
        for width in WIDTHS
    }


def measure() -> dict[str, Any]:
    """Every point, from the file or measured now; each is written as soon as it is known."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for label, workload in jobs().items():
        if label not in results:
            found = run(workload, "zoo", threads=1)
            results[label] = {"steps_per_second": found["steps_per_second"], "memory": found["memory"]}
            print(label, f"{found['steps_per_second']:,.0f} steps/s, {found['memory'] / 2**20:,.0f} MB", flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return results


def draw(results: dict[str, Any]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 5.4), layout="constrained", sharex="col")
    columns = [("envs", ENVS, ("sync", "native")), ("width", WIDTHS, ("float32", "bfloat16"))]
    for column, (kind, xs, variants) in enumerate(columns):
        for variant in variants:
            points = [results[f"{kind} {x} {variant}"] for x in xs]
            axes[0, column].plot(xs, [each["steps_per_second"] for each in points], marker="o", label=variant)
            axes[1, column].plot(xs, [each["memory"] / 2**20 for each in points], marker="o", label=variant)
        for axis in axes[:, column]:
            axis.set_xscale("log", base=2)
            axis.set_xticks(xs, xs)
        axes[0, column].set_yscale("log")
        axes[0, column].tick_params(which="minor", labelleft=False)
        axes[1, column].set_ylim(0, 1400)
        axes[0, column].legend()
    axes[0, 0].set(title="PPO CartPole, rollouts of 8192 steps", ylabel="steps/s while learning")
    axes[0, 1].set(title="SAC Pendulum, an update every step")
    axes[1, 0].set(xlabel="environments", ylabel="peak memory, MB")
    axes[1, 1].set(xlabel="width of both hidden layers")
    figure.savefig(FOLDER / "growth.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(measure())
