"""One side of one workload, timed in a process of its own: python -m zoo.bench.stopwatch < task.json.

{"import": seconds, "build": ..., "first": ..., "steps_per_second": ..., "memory": bytes, ...} comes back. Learning is
timed between two moments at which both sides have made all the updates that are due.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

PARTS = ("act", "env", "store", "update")
TASK = dict[str, Any]  # side, algorithm, env, settings, warmup, steps, threads, profile


class Watch:
    """Notes when the warm-up and the work that counts are over."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.started: float | None = None

    def at(self, step: int) -> None:
        """All updates due by `step` are made."""
        if self.started is None and step >= self.warmup:
            self.started, self.first_step = time.perf_counter(), step

    def rate(self, step: int) -> float:
        """Steps a second since the warm-up."""
        assert self.started is not None
        return (step - self.first_step) / (time.perf_counter() - self.started)


def zoo_side(task: TASK) -> dict[str, Any]:
    """This package."""
    from numpy.random import SeedSequence

    from zoo import runs
    from zoo.machine import processor

    prepared = runs.prepare(task["algorithm"], task["env"], _settings(task), source="benchmark")
    built = time.perf_counter()
    learner, _ = runs.assemble(prepared, task["env"], *SeedSequence(0).spawn(2))
    watch, total = Watch(task["warmup"]), task["warmup"] + task["steps"]
    built = time.perf_counter() - built
    first = time.perf_counter()
    with (
        processor(task["threads"], prepared.run.precision),
        profiled(learner, watch) if task["profile"] else nothing() as seconds,
    ):
        for _ in learner.reports(total_steps=total, log_every=total, on_step=lambda: watch.at(learner.step)):
            pass
        rate = watch.rate(learner.step)
    assert watch.started is not None
    whole = sum(seconds.values())
    shares = {part: value / whole for part, value in seconds.items()} if whole else {}
    learner.source.close()
    return {"build": built, "first": watch.started - first, "steps_per_second": rate, "shares": shares}


@contextmanager
def nothing() -> Iterator[dict[str, float]]:
    """No profile."""
    yield {}


@contextmanager
def profiled(learner: Any, watch: Watch) -> Iterator[dict[str, float]]:
    """Seconds after the warm-up that go to acting, the environment, storing and sampling, and updating."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(owner: Any, name: str, part: str) -> None:
        method = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                if watch.started is not None:
                    seconds[part] += time.perf_counter() - began

        setattr(owner, name, wrapper)

    timed(learner.algo, "act", "act")
    timed(learner.source.envs, "step", "env")
    timed(learner.algo, "update", "update")
    timed(learner.buffer, "add", "store")
    if hasattr(learner.buffer, "samples"):
        timed(learner.buffer, "samples", "store")
    yield seconds


def _settings(task: TASK) -> dict[str, Any]:
    total = task["warmup"] + task["steps"]
    own = {"total_steps": total, "seed": 0, "threads": task["threads"], "compile": task.get("compile", "on")}
    return {**own, **task["settings"]}


def sb3_side(task: TASK) -> dict[str, Any]:
    """Stable-Baselines3."""
    from zoo.crosscheck import theirs

    return _twin(task, theirs.model)


def sbx_side(task: TASK) -> dict[str, Any]:
    """SBX, the same in JAX."""
    import sbx
    import torch

    from zoo.crosscheck import theirs

    torch.set_num_threads(task["threads"])
    classes = {name: getattr(sbx, name.upper()) for name in ("ppo", "dqn", "sac", "ddpg", "td3")}

    def model(settings: Any) -> Any:
        return theirs.model(settings, classes=classes)

    return _twin(task, model)


def _twin(task: TASK, make: Callable[[Any], Any]) -> dict[str, Any]:
    from zoo.crosscheck import theirs
    from zoo.settings import resolve

    settings = resolve(task["algorithm"], task["env"], _settings(task), preset="sb3", use_tuned=False)
    watch = Watch(task["warmup"])

    built = time.perf_counter()
    model = make(settings)
    built = time.perf_counter() - built
    first = time.perf_counter()
    theirs.learn(model, settings.run.total_steps, watch.at)
    rate = watch.rate(model.num_timesteps)
    assert watch.started is not None
    return {"build": built, "first": watch.started - first, "steps_per_second": rate, "shares": {}}


def env_side(task: TASK) -> dict[str, Any]:
    """The limit: the environment alone, under random actions."""
    from numpy.random import SeedSequence

    from zoo.envs import Envs
    from zoo.vector import vectorize

    settings = task["settings"]
    envs = Envs(vectorize(task["env"], settings.get("num_envs", 1), settings.get("vec", "sync")), SeedSequence(0))
    envs.reset()
    space = envs.vector.action_space
    space.seed(0)
    actions = [np.asarray(space.sample(), dtype=envs.spec.action_dtype) for _ in range(256)]
    zeros = np.zeros(envs.num_envs, np.float32)
    steps = max(min(task["steps"], 40_000) // envs.num_envs, 1000)
    began = time.perf_counter()
    for step in range(steps):
        envs.step(actions[step % 256], zeros)
    rate = steps * envs.num_envs / (time.perf_counter() - began)
    envs.close()
    return {"build": 0.0, "first": 0.0, "steps_per_second": rate, "shares": {}}


def flops_side(task: TASK) -> dict[str, Any]:
    """The other limit: multiplications of all updates, and this machine's rate at them; operations for one step."""
    import torch
    from numpy.random import SeedSequence
    from torch.utils.flop_counter import FlopCounterMode

    from zoo import runs
    from zoo.products import OPTIONS

    torch.set_num_threads(task["threads"])
    prepared = runs.prepare(task["algorithm"], task["env"], _settings({**task, "compile": "off"}), source="benchmark")
    learner, _ = runs.assemble(prepared, task["env"], *SeedSequence(0).spawn(2))
    total = task["warmup"] + min(task["steps"], task["warmup"])
    with FlopCounterMode(display=False) as counter:
        for _ in learner.reports(total_steps=total, log_every=total):
            pass
    learner.source.close()
    matrix = torch.rand(256, 256)
    multiply = torch.compile(torch.mm, options=OPTIONS)
    multiply(matrix, matrix)
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(50):
            multiply(matrix, matrix)
        rates.append(50 * 2 * 256**3 / (time.perf_counter() - began))
    return {"flops": counter.get_total_flops() / learner.step, "rate": float(np.median(rates))}


PACKAGES = {"zoo": "zoo.runs", "sb3": "stable_baselines3", "sbx": "sbx"}
SIDES = {"zoo": zoo_side, "sb3": sb3_side, "sbx": sbx_side, "env": env_side, "flops": flops_side}


def main() -> None:
    """Read a task, time it, print what came out."""
    task = json.load(sys.stdin)
    began = time.perf_counter()
    if task["side"] in PACKAGES:
        import_module(PACKAGES[task["side"]])
    imported = time.perf_counter() - began
    result = SIDES[task["side"]](task)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"import": imported, "memory": memory, **result}))


if __name__ == "__main__":
    main()
