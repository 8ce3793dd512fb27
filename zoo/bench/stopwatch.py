"""Time one side of one workload in a process of its own: python -P -m zoo.bench.stopwatch, with a task as first line.

A side that learns answers {} after its warm-up. To each empty line it then answers with a turn of `steps` steps:
{"steps_per_second": ...}. It ends after one more line, no earlier, so as not to disturb the turns of others; its last
answer is {"import": seconds, "build": ..., "first": ..., "memory": bytes, ...}. A turn begins and ends where a side has
made all the updates that are due.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

PARTS = ("act", "env", "store", "update")
TASK = dict[str, Any]  # side, algorithm, env, settings, warmup, steps, turns, threads, profile
Say = Callable[[dict[str, float]], None]


class TurnClock:
    """Time the turns after the warm-up. `say` is called with each turn's speed, and returns when the next may begin."""

    def __init__(self, task: TASK, say: Say) -> None:
        self.steps, self.turns, self.say = task["steps"], task["turns"], say
        self.due, self.ended = task["warmup"], 0
        self.first_step, self.began = 0, 0.0  # of this turn
        self.warm: float | None = None  # when the warm-up was over

    def at(self, step: int) -> None:
        """Take note that all updates due by `step` are made."""
        if step < self.due or self.ended == self.turns:
            return
        now = time.perf_counter()
        if self.warm is None:
            self.warm = now
            self.say({})
        else:
            self.ended += 1
            self.say({"steps_per_second": (step - self.first_step) / (now - self.began)})
        self.first_step, self.due = step, step + self.steps
        self.began = time.perf_counter()


def zoo_side(task: TASK, say: Say) -> dict[str, Any]:
    """Run this package."""
    from numpy.random import SeedSequence

    from zoo import runs
    from zoo.machine import torch_settings

    prepared = runs.prepare(task["algorithm"], task["env"], _settings(task), source="benchmark")
    built = time.perf_counter()
    learner, _ = runs.assemble(prepared, runs.task_of(prepared), *SeedSequence(0).spawn(2))
    watch = TurnClock(task, say)
    built = time.perf_counter() - built
    first = time.perf_counter()
    with (
        torch_settings(task["threads"], prepared.run.precision),
        profiled(learner, watch) if task["profile"] else nothing() as seconds,
    ):
        total = prepared.run.total_steps
        for _ in learner.reports(total_steps=total, log_every=total, on_step=lambda: watch.at(learner.step)):
            pass
        watch.at(learner.step)
    assert watch.warm is not None
    learner.source.close()
    result = {"build": built, "first": watch.warm - first}
    if not task["profile"]:
        return result
    whole = sum(seconds.values())
    return {**result, "shares": {part: value / whole for part, value in seconds.items()}}


@contextmanager
def nothing() -> Iterator[dict[str, float]]:
    """No profile."""
    yield {}


@contextmanager
def profiled(learner: Any, watch: TurnClock) -> Iterator[dict[str, float]]:
    """Count the seconds after the warm-up of acting, the environment, storing and sampling, and updating."""
    seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def clock(part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            if watch.warm is not None:
                seconds[part] += time.perf_counter() - began

    def timed(method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with clock(part):
                return method(*args, **kwargs)

        return wrapper

    def timed_batches() -> Iterator[Any]:
        found = batches()
        while True:
            with clock("store"):
                batch = next(found, None)
            if batch is None:
                return
            yield batch

    algo, envs, buffer = learner.algo, learner.source.envs, learner.buffer
    batches = buffer.batches
    algo.act, algo.update = timed(algo.act, "act"), timed(algo.update, "update")
    envs.step = timed(envs.step, "env")
    buffer.add, buffer.batches = timed(buffer.add, "store"), timed_batches
    yield seconds


def _settings(task: TASK) -> dict[str, Any]:
    total = task["warmup"] + task["turns"] * task["steps"]
    own = {"total_steps": total, "seed": 0, "threads": task["threads"], "compile": task.get("compile", "on")}
    return {**own, **task["settings"]}


def sb3_side(task: TASK, say: Say) -> dict[str, Any]:
    """Run Stable-Baselines3."""
    from zoo.crosscheck import theirs

    return _twin(task, say, theirs.model)


def sbx_side(task: TASK, say: Say) -> dict[str, Any]:
    """Run SBX, the same in JAX."""
    import sbx
    import torch

    from zoo.crosscheck import theirs

    torch.set_num_threads(task["threads"])
    classes = {"ppo": sbx.PPO, "dqn": sbx.DQN, "sac": sbx.SAC, "ddpg": sbx.DDPG, "td3": sbx.TD3}

    def model(settings: Any) -> Any:
        return theirs.model(settings, classes=classes)

    return _twin(task, say, model)


def _twin(task: TASK, say: Say, make: Callable[[Any], Any]) -> dict[str, Any]:
    from zoo.crosscheck import theirs
    from zoo.settings import resolve

    settings = resolve(task["algorithm"], task["env"], _settings(task), preset="sb3", use_tuned=False)
    watch = TurnClock(task, say)

    built = time.perf_counter()
    model = make(settings)
    built = time.perf_counter() - built
    first = time.perf_counter()
    theirs.learn(model, settings.run.total_steps, watch.at)
    watch.at(model.num_timesteps)
    assert watch.warm is not None
    return {"build": built, "first": watch.warm - first}


def env_side(task: TASK) -> dict[str, Any]:
    """Measure a limit: the environment alone, under random actions."""
    from numpy.random import SeedSequence

    from zoo.envs.envs import Envs
    from zoo.envs.make import vectorize

    settings = task["settings"]
    envs = Envs(vectorize(task["env"], settings.get("num_envs", 1), settings.get("vec", "sync")), SeedSequence(0))
    envs.reset()
    space = envs.vector.action_space
    space.seed(0)
    actions = [np.asarray(space.sample(), dtype=envs.spec.action_dtype) for _ in range(256)]
    zeros = np.zeros(envs.num_envs, np.float32)
    steps = max(40_000 // envs.num_envs, 1000)
    began = time.perf_counter()
    for step in range(steps):
        envs.step(actions[step % 256], zeros)
    rate = steps * envs.num_envs / (time.perf_counter() - began)
    envs.close()
    return {"steps_per_second": rate}


def flops_side(task: TASK) -> dict[str, Any]:
    """Measure the other limit: floating-point operations for one step, and this machine's rate of them per second."""
    import torch
    from numpy.random import SeedSequence
    from torch.utils.flop_counter import FlopCounterMode

    from zoo import runs
    from zoo.training.kernels.compiler import options_for

    torch.set_num_threads(task["threads"])
    prepared = runs.prepare(task["algorithm"], task["env"], _settings({**task, "compile": "off"}), source="benchmark")
    learner, _ = runs.assemble(prepared, runs.task_of(prepared), *SeedSequence(0).spawn(2))
    total = task["warmup"] + min(task["steps"], task["warmup"])
    with FlopCounterMode(display=False) as counter:
        for _ in learner.reports(total_steps=total, log_every=total):
            pass
    learner.source.close()
    matrix = torch.rand(256, 256)
    multiply = torch.compile(torch.mm, options=options_for(prepared.run.kernels))
    multiply(matrix, matrix)
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(50):
            multiply(matrix, matrix)
        rates.append(50 * 2 * 256**3 / (time.perf_counter() - began))
    return {"flops": counter.get_total_flops() / learner.step, "rate": float(np.median(rates))}


PACKAGES = {"zoo": "zoo.runs", "sb3": "stable_baselines3", "sbx": "sbx"}
LEARNERS = {"zoo": zoo_side, "sb3": sb3_side, "sbx": sbx_side}
LIMITS = {"env": env_side, "flops": flops_side}


def main() -> None:
    """Read a task, time it and print the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # where a package's own words go, those of its C++ code as well
    task = json.loads(sys.stdin.readline())
    side = task["side"]

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    def take_turns(answer: dict[str, float]) -> None:
        say(answer)
        sys.stdin.readline()

    if side in LIMITS:
        say(LIMITS[side](task))
        return
    began = time.perf_counter()
    import_module(PACKAGES[side])
    imported = time.perf_counter() - began
    result = LEARNERS[side](task, take_turns)
    from zoo.machine import peak_memory  # torch comes with it, so not before `imported`

    say({"import": imported, "memory": peak_memory(), **result})


if __name__ == "__main__":
    main()
