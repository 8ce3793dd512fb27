"""Does anything grow? Half an hour of SAC and of IMPALA-lite with checkpoints: memory, open files and processes.

    python docs/studies/endurance.py [MINUTES]

Both run at the same time, on environments that wait 2 ms in each step, so that they also share a small machine. Writes
endurance.json and endurance.md beside this file: the slope of the memory after the first third, and what the counts of
open files and processes were.
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil

HERE = Path(__file__).parent
EVERY = 10.0  # seconds between samples
TASKS: dict[str, dict[str, Any]] = {
    "sac": {"env": "Pendulum-v1", "capacity": 20_000, "learning_starts": 1000, "train_every": 4, "hidden": (64, 64)},
    "impala": {"env": "CartPole-v1", "num_envs": 4, "engine": "processes", "actors": 2},
}


class Waiting(gym.Wrapper[Any, Any, Any, Any]):
    """Takes 2 ms longer for each step."""

    def step(self, action: Any) -> Any:
        time.sleep(0.002)
        return self.env.step(action)


def pendulum() -> gym.Env[Any, Any]:
    return Waiting(gym.make("Pendulum-v1"))


def cartpole() -> gym.Env[Any, Any]:
    return Waiting(gym.make("CartPole-v1"))


def train(name: str, folder: str) -> None:
    import zoo
    from zoo.errors import Interrupted

    settings = {key: value for key, value in TASKS[name].items() if key != "env"}
    settings |= {"seed": 0, "total_steps": 10**9, "log_every": 1000, "eval_every": 100_000}
    make = {"sac": pendulum, "impala": cartpole}[name]
    with contextlib.suppress(Interrupted):  # how `watch` ends it
        zoo.train(name, make, out=folder, checkpoint_every="1min", **settings)


def sample(process: psutil.Process) -> dict[str, float]:
    """Memory that belongs to a process and its children alone, in MB, and their open files and number."""
    family = [process, *process.children(recursive=True)]
    return {
        "memory": sum(each.memory_full_info().uss for each in family) / 2**20,
        "files": sum(each.num_fds() for each in family),
        "processes": len(family),
    }


def watch(minutes: float) -> dict[str, list[dict[str, float]]]:
    """Samples of each run, from when its first metrics are there until the end."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in TASKS}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: subprocess.Popen([sys.executable, __file__, "--train", name, f"{folder}/{name}"]) for name in TASKS
        }
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes:
            time.sleep(EVERY)
            for name, run in runs.items():
                assert run.poll() is None, f"{name} ended by itself"
                found[name].append({"minutes": (time.monotonic() - began) / 60, **sample(psutil.Process(run.pid))})
        for name, run in runs.items():
            run.send_signal(signal.SIGTERM)
            run.wait(60)
            rows = (Path(folder) / name / "metrics.jsonl").read_text().splitlines()
            found[name][-1]["steps"] = json.loads(rows[-1])["step"]
    return found


def report(found: dict[str, list[dict[str, float]]]) -> str:
    lines = ["| entry | minutes | steps | memory | slope | open files | processes |", "|---|---|---|---|---|---|---|"]
    for name, samples in found.items():
        late = samples[len(samples) // 3 :]
        minutes = np.array([each["minutes"] for each in late])
        memory = np.array([each["memory"] for each in late])
        slope = np.polyfit(minutes, memory, 1)[0]
        files, processes = ({int(each[key]) for each in late} for key in ("files", "processes"))
        counts = [" to ".join(map(str, sorted({min(each), max(each)}))) for each in (files, processes)]
        cells = [name, f"{samples[-1]['minutes']:.0f}", f"{samples[-1]['steps']:,.0f}", f"{memory[-1]:.0f} MB"]
        lines.append("| " + " | ".join([*cells, f"{slope:+.3f} MB/min", *counts]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(*sys.argv[2:])
    else:
        samples = watch(float(sys.argv[1]) if len(sys.argv) > 1 else 30)
        (HERE / "endurance.json").write_text(json.dumps(samples) + "\n")
        (HERE / "endurance.md").write_text(
            "# Endurance\n\nWritten by `python docs/studies/endurance.py`.\n\n" + report(samples)
        )
        print(report(samples))
