"""Run the jobs of a sweep as tasks of a Ray cluster; a task whose node is lost is tried again on another."""

from collections.abc import Iterator
from typing import Any

from zoo.bench.job import execute
from zoo.bench.plan import Job
from zoo.bench.queue import JobEnd, OnProgress, describe
from zoo.machine import start_ray

RETRIES = 3


class RayQueue:
    """A queue on Ray: an existing cluster at `address`, or one on this machine, bound to loopback."""

    def __init__(self, address: str | None, jobs: int | None = None) -> None:
        self.ray, _ = start_ray(address, num_cpus=jobs)

    def run(self, queue: list[Job], on_progress: OnProgress) -> Iterator[JobEnd]:
        """Run jobs and yield what becomes of each, as it comes; progress is not reported."""
        remote = self.ray.remote(num_cpus=1, max_retries=RETRIES)(_execute)
        pending = {remote.remote(job.to_json()): job for job in queue}
        while pending:
            (done, *_), _ = self.ray.wait(list(pending), num_returns=1)
            job = pending.pop(done)
            try:
                yield JobEnd(job, self.ray.get(done), None)
            except Exception as error:  # whatever a task raised, or the loss of its node
                yield JobEnd(job, None, describe(1, str(error).splitlines()))


def _execute(job: dict[str, Any]) -> dict[str, Any]:
    return execute(Job(**job), lambda row: None)
