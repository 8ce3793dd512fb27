"""Whole jobs, from starting Python to the trained agent's score, beside Stable-Baselines3: prints a table.

python docs/studies/jobs.py         a quarter of an hour on a machine that does nothing else
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

JOBS = [("ppo", "Pendulum-v1"), ("sac", "Pendulum-v1")]
SEEDS = range(3)
THEIRS = """
import json, sys
from zoo.crosscheck import theirs
from zoo.settings import resolve
algorithm, env, seed, file = sys.argv[1:]
settings = resolve(algorithm, env, {"seed": int(seed), "eval_every": 0})
json.dump(theirs.train(settings).evaluation.to_json(), open(file, "w"))
"""


def zoo(algorithm: str, env: str, seed: int, folder: Path) -> Path:
    command = [sys.executable, "-m", "zoo", "run", algorithm, "--env", env, "--seed", str(seed), "--eval-every", "0"]
    subprocess.run([*command, "--out", folder / "run"], check=True, capture_output=True)
    return folder / "run" / "evaluation.json"


def sb3(algorithm: str, env: str, seed: int, folder: Path) -> Path:
    file = folder / "sb3.json"
    subprocess.run([sys.executable, "-c", THEIRS, algorithm, env, str(seed), file], check=True, capture_output=True)
    return file


def main() -> None:
    print("| job | zoo | score | Stable-Baselines3 | score | ratio |\n|---|---|---|---|---|---|")
    for algorithm, env in JOBS:
        seconds: dict[str, list[float]] = {"zoo": [], "sb3": []}
        scores: dict[str, list[float]] = {"zoo": [], "sb3": []}
        for seed in SEEDS:
            for side, run in (("zoo", zoo), ("sb3", sb3)):
                with tempfile.TemporaryDirectory() as folder:
                    began = time.perf_counter()
                    file = run(algorithm, env, seed, Path(folder))
                    seconds[side].append(time.perf_counter() - began)
                    scores[side].append(json.loads(file.read_text())["mean"])
        cells = [f"{median(seconds[side]):.1f} s | {median(scores[side]):.1f}" for side in ("zoo", "sb3")]
        ratio = median(seconds["sb3"]) / median(seconds["zoo"])
        print(f"| {algorithm} {env} | {cells[0]} | {cells[1]} | {ratio:.1f}x |", flush=True)


if __name__ == "__main__":
    main()
