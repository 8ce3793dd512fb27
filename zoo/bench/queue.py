"""Jobs of a sweep, each in a process of its own with one thread; one that crashes is a result, and stops no other."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from zoo.bench.plan import Job

Watch = Callable[[Job, dict[str, float]], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its result, or the error that ended it."""

    job: Job
    result: dict[str, Any] | None
    error: str | None


class Local:
    """A queue that keeps `jobs` processes busy; leaving it ends those that still run."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.running: dict[int, subprocess.Popen[str]] = {}
        self.lock = threading.Lock()
        self.stopped = False

    def run(self, queue: list[Job], watch: Watch) -> Iterator[Outcome]:
        """The outcomes as they come; `watch` sees the progress of each job."""
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._one, job, watch) for job in queue]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                self._stop()
                for future in futures:
                    future.cancel()

    def _one(self, job: Job, watch: Watch) -> Outcome:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "zoo.bench.job"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self.lock:
            if self.stopped:
                return Outcome(job, None, "stopped before it began")
            process = self.running[id(job)] = subprocess.Popen(command, env=environment, **pipes)
        with process:
            result, errors = _follow(process, job, watch)
        with self.lock:
            del self.running[id(job)]
        code = process.returncode
        if code == 0 and result is not None:
            return Outcome(job, result, None)
        return Outcome(job, None, describe(code, errors))

    def _stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.running.values():
                process.terminate()


def _follow(process: "subprocess.Popen[str]", job: Job, watch: Watch) -> tuple[dict[str, Any] | None, list[str]]:
    """The result that a job's process prints, if it comes to that, and what it writes to stderr."""
    assert process.stdin is not None
    assert process.stdout is not None
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or []))
    reader.start()
    process.stdin.write(json.dumps(job.to_json()) + "\n")
    process.stdin.flush()  # and left open: its end tells the job that nobody is there any more
    result = None
    for line in process.stdout:
        data = json.loads(line)
        if "result" in data:
            result = data["result"]
        else:
            watch(job, data)
    reader.join()
    process.stdin.close()
    return result, errors


def describe(code: int, errors: list[str]) -> str:
    """How a process ended, in one line: its last words, or the signal that killed it."""
    last = next((line.strip() for line in reversed(errors) if line.strip()), "")
    if code < 0:
        return f"killed by signal {-code}" + (f": {last}" if last else "")
    return last or f"exit code {code}"
