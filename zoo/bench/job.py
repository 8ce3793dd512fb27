"""Run one job of a sweep in a process of its own: python -P -m zoo.bench.job CHANNEL, with the job on standard input.

Answers are JSON objects, one a line, through the file descriptor CHANNEL: {"step": ..., "eval_return": ...} on the way,
{"result": {...}} or {"error": text} at the end.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import SeedSequence

from zoo.bench.plan import FINAL_EPISODES, Job, task
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.errors import EnvError
from zoo.machine import peak_memory
from zoo.settings import Settings, resolve
from zoo.spec import Array
from zoo.training.evaluation import EVALUATION

Row = dict[str, float]


def execute(job: Job, on_row: Callable[[Row], None]) -> dict[str, Any]:
    """Train and evaluate; returns what `Finished.from_json` reads. Raises EnvError if a final return is not finite."""
    from zoo.runs.recorder import versions

    curve: list[tuple[float, float]] = []

    def see(row: Row) -> None:
        if "eval_return" in row:
            curve.append((row["step"], row["eval_return"]))
        on_row(row)

    outcome = {"zoo": _zoo, "sb3": _sb3, "random": _random}[job.side](job, see)
    if not np.isfinite(outcome.returns).all():
        raise EnvError("a final return is NaN or infinite")
    return {
        **outcome._asdict(),
        "end": float(np.mean(outcome.returns)),
        "curve": curve,
        "steps_per_second": job.total_steps / outcome.seconds if outcome.seconds else None,
        "memory": peak_memory(),
        "command": job.command,
        "settings": job.settings,
        **versions(),
    }


class Performance(NamedTuple):
    """What a run of one side measured."""

    returns: list[float]
    seconds: float
    parameters: int
    ignored: Sequence[str] = ()  # settings that the side does not have


def _settings(job: Job) -> Settings:
    """Build the settings of a job; all of them are given."""
    return resolve(job.algorithm, job.env, {**job.settings["run"], **job.settings["config"]})


def _zoo(job: Job, on_row: Callable[[Row], None]) -> Performance:
    from zoo import runs

    result = runs.run(_settings(job), job.env, on_row=on_row)
    assert result.evaluation is not None
    parameters = sum(p.numel() for p in result.agent.parameters() if p.requires_grad)
    return Performance(result.evaluation.returns.tolist(), result.seconds, parameters)


def _sb3(job: Job, on_row: Callable[[Row], None]) -> Performance:
    from zoo.crosscheck import theirs

    trained = theirs.train(_settings(job), on_row)
    return Performance(trained.evaluation.returns.tolist(), trained.seconds, trained.parameters, trained.ignored)


def _random(job: Job, on_row: Callable[[Row], None]) -> Performance:
    """Take uniformly random actions in the episodes that all entries are evaluated on."""
    made = task(job.env, job.overrides)
    envs = Envs(vectorize(made, 10), SeedSequence(0, spawn_key=(EVALUATION,)), scale_actions=False)
    space = envs.vector.action_space
    space.seed(0)
    envs.reset()
    start = getattr(space, "start", 0)  # from which on the environments count, and algorithms from 0
    rng, returns = np.random.default_rng(0), dict[int, float]()
    while len(returns) < FINAL_EPISODES:
        action = _allowed(envs, rng) if envs.spec.num_masks else np.asarray(space.sample()) - start
        for episode in envs.step(action, np.zeros(len(action))).episodes:
            if episode.number < FINAL_EPISODES:
                returns[episode.number] = float(episode.episode_return)
    envs.close()
    return Performance([returns[number] for number in sorted(returns)], 0.0, 0)


def _allowed(envs: Envs, rng: np.random.Generator) -> Array:
    """Draw an action for each environment among those that its mask allows, counted from 0."""
    masks, sizes = envs.obs[:, -envs.spec.num_masks :], envs.spec.action_sizes
    scores = np.split(rng.random(masks.shape) + masks, np.cumsum(sizes)[:-1], axis=1)  # allowed ones are above 1
    action = np.stack([part.argmax(1) for part in scores], 1)
    return action if envs.spec.action_shape else action[:, 0]


def _end_with_the_sweep() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Read a job, run it and write its answers; exit when the sweep that started it has ended."""
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()

    channel = os.fdopen(int(sys.argv[1]), "w")
    os.set_inheritable(channel.fileno(), False)  # programs that an environment starts have no use for it

    def say(data: dict[str, Any]) -> None:
        print(json.dumps(data), file=channel, flush=True)

    try:
        result = execute(job, lambda row: say({key: row[key] for key in ("step", "eval_return") if key in row}))
    except Exception as error:
        say({"error": traceback.format_exception_only(error)[-1]})
        raise
    say({"result": result})


if __name__ == "__main__":
    main()
