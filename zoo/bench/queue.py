"""Run the jobs of a sweep, each in a process of its own with one thread. A job that crashes does not stop the others.

A job returns its result through a pipe of its own. Whatever it, its environment or a library prints goes to another
pipe, whose last lines describe the end of a job that returned nothing.
"""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from selectors import EVENT_READ, BaseSelector, DefaultSelector
from typing import IO, Any, Protocol

from zoo.bench.plan import Job

OnProgress = Callable[[Job, dict[str, float]], None]
CHUNK = 2**20  # bytes, at least what a pipe holds
LAST = 50  # lines that are kept of what a job prints
WIDTH = 10_000  # bytes that are kept of a line


@dataclass(frozen=True)
class JobEnd:
    """The end of a job: its result, or the error that ended it."""

    job: Job
    result: dict[str, Any] | None
    error: str | None


class Queue(Protocol):
    """Where jobs run."""

    def run(self, queue: list[Job], on_progress: OnProgress) -> Iterator[JobEnd]:
        """Run jobs and yield what becomes of each, as it comes; `on_progress` is called with the progress of each."""


class LocalQueue:
    """A queue of this machine with `jobs` processes; leaving `run` ends those that still run."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.running: dict[str, subprocess.Popen[bytes]] = {}  # by the key of the job
        self.lock = threading.Lock()
        self.stopped = False

    def run(self, queue: list[Job], on_progress: OnProgress) -> Iterator[JobEnd]:
        """Run jobs and yield what becomes of each, as it comes; `on_progress` is called with the progress of each."""
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._one, job, on_progress) for job in queue]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                self._stop()
                for future in futures:
                    future.cancel()

    def _one(self, job: Job, on_progress: OnProgress) -> JobEnd:
        read, write = os.pipe()
        with os.fdopen(read, "rb", buffering=0) as channel:
            try:
                process = self._start(job, write)
            except OSError as error:
                return JobEnd(job, None, f"could not be started: {error}")
            finally:
                os.close(write)
            if process is None:
                return JobEnd(job, None, "stopped before it began")
            with process:
                answer, words = _follow(process, channel, job, on_progress)
        with self.lock:
            del self.running[job.key]
        code = process.returncode
        if code == 0 and answer.result is not None:
            return JobEnd(job, answer.result, None)
        return JobEnd(job, None, describe(code, answer.error.splitlines() if answer.error else words))

    def _start(self, job: Job, channel: int) -> subprocess.Popen[bytes] | None:
        with self.lock:
            if not self.stopped:
                self.running[job.key] = start(channel)
            return self.running.get(job.key)

    def _stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.running.values():
                process.terminate()


def start(channel: int) -> subprocess.Popen[bytes]:
    """Start the process of a job, which answers through the descriptor `channel`; its stdout has all that it prints."""
    command = [sys.executable, "-P", "-m", "zoo.bench.job", str(channel)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=environment, pass_fds=(channel,), **pipes)


@dataclass
class Answer:
    """What a job has answered so far: its result, or the error that ended it."""

    on_row: Callable[[dict[str, float]], None]
    result: dict[str, Any] | None = None
    error: str | None = None
    rest: bytes = b""  # of a line that is not whole yet

    def hear(self, chunk: bytes) -> None:
        """Add bytes that were read."""
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            data = _parsed(line)
            if "result" in data:
                self.result = data["result"]
            elif "error" in data:
                self.error = data["error"]
            elif data:
                self.on_row(data)


def _parsed(line: bytes) -> dict[str, Any]:
    """Parse a line; {} unless it is a JSON object. A process that the environment forked may write to the pipe, too."""
    try:
        data = json.loads(line)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


@dataclass
class Words:
    """The last lines of what a process prints, in bounded memory."""

    kept: deque[bytes] = field(default_factory=lambda: deque([b""], maxlen=LAST))

    def hear(self, chunk: bytes) -> None:
        """Add bytes that were read."""
        first, *lines = chunk.split(b"\n")
        self.kept[-1] = (self.kept[-1] + first)[:WIDTH]
        self.kept.extend(line[:WIDTH] for line in lines)

    def lines(self) -> list[str]:
        """Return the lines as text."""
        return [line.decode(errors="replace") for line in self.kept]


def _hear(selector: BaseSelector, timeout: float) -> None:
    """Read what is there and pass it on; unregister pipes that ended."""
    for key, _ in selector.select(timeout):
        chunk = os.read(key.fd, CHUNK)
        if chunk:
            key.data(chunk)
        else:
            selector.unregister(key.fileobj)


def _follow(
    process: subprocess.Popen[bytes], channel: IO[bytes], job: Job, on_progress: OnProgress
) -> tuple[Answer, list[str]]:
    """Read the answer of a job and the last lines that it prints, until its process ends.

    Processes that it leaves behind may keep the pipes open, so the end of the pipes is not waited for.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # it has failed already
        process.stdin.write(json.dumps(job.to_json()).encode() + b"\n")
        process.stdin.flush()  # and left open: its end tells the job that nobody is there any more
    answer, words = Answer(lambda row: on_progress(job, row)), Words()
    with DefaultSelector() as selector:
        selector.register(channel, EVENT_READ, answer.hear)
        selector.register(process.stdout, EVENT_READ, words.hear)
        ended = False
        while selector.get_map() and not ended:
            ended = process.poll() is not None  # asked first: then all that it wrote lies in the pipes
            _hear(selector, 0 if ended else 1)
    process.wait()
    with suppress(BrokenPipeError):
        process.stdin.close()
    return answer, words.lines()


def describe(code: int, errors: list[str]) -> str:
    """Describe the end of a process in one line: the last line that it printed, or the signal that killed it."""
    last = next((line.strip() for line in reversed(errors) if line.strip()), "")
    if code < 0:
        return f"killed by signal {-code}" + (f": {last}" if last else "")
    return last or f"exit code {code}"
