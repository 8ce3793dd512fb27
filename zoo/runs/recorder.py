"""The record of a run: rows of metrics, evaluations on the way, the best agent and the final one."""

import json
import os
import platform
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.random import SeedSequence

from zoo.envs.task import Task
from zoo.errors import StorageError, UserError
from zoo.runs.checkpoint import FOLDER as CHECKPOINTS
from zoo.settings import Settings
from zoo.storage.agent import Agent
from zoo.storage.files import METRICS, NOTES, Folder
from zoo.storage.untrusted import Row, is_row, read_json
from zoo.training.evaluation import Evaluation, evaluate
from zoo.training.loop import Report

if TYPE_CHECKING:
    from zoo.runs.events import Events

CONFIG, EVALUATION, TENSORBOARD = "config.json", "evaluation.json", "tensorboard"
FILES = (CONFIG, METRICS, EVALUATION, NOTES)
FOLDERS = (TENSORBOARD, CHECKPOINTS, "final", "best", "last")
COLUMNS = ("step", "seconds", "steps_per_second", "episode_return", "episode_length", "eval_return")
RECENT_EPISODES = 100
ROW_LIMIT = 2**20  # bytes in which a row ends


@dataclass(frozen=True)
class Stop:
    """Where and why a run ended before its budget was used up: by its setting `stop_at`, or by `on_row`."""

    step: int
    by: Literal["stop_at", "on_row"]
    reason: str

    def __str__(self) -> str:
        return f"step {self.step:,}, early: {self.reason}"


@dataclass(frozen=True)
class Result:
    """The result of a run: the agent, its settings, its evaluation, its duration, its folder and its stop (if any)."""

    agent: Agent
    settings: Settings
    evaluation: Evaluation | None
    seconds: float
    folder: Path | None
    stopped: Stop | None = None


class Recorder:
    """Turns reports into rows, evaluates on the way, keeps the best agent, and writes the folder if there is one.

    A checkpoint may be taken during an evaluation: the row that waits for it belongs to the state.
    """

    saved = ("next_eval", "returns", "lengths", "best", "elapsed", "written", "row")
    returns: deque[float]
    lengths: deque[int]
    best: float | None
    row: Row | None  # not yet complete

    def __init__(
        self,
        settings: Settings,
        agent: Agent,
        eval_env: Task,
        validation: SeedSequence,
        started: float,
        init: str | None = None,
    ) -> None:
        self.settings, self.agent, self.init = settings, agent, init
        self.eval_env, self.validation, self.started = eval_env, validation, started
        every = settings.run.eval_every
        self.eval_every = max(settings.run.total_steps // 10, 1) if every is None else every
        self.next_eval = self.eval_every
        self.returns, self.lengths = deque(maxlen=RECENT_EPISODES), deque(maxlen=RECENT_EPISODES)
        self.best = None
        self.last = (0, started)
        self.elapsed = 0.0  # seconds, at the last checkpoint
        self.written = 0  # bytes of metrics, at the last checkpoint
        self.row = None
        self.folder: Folder | None = None
        self.config: dict[str, Any] = {}  # what config.json holds
        self.files = ExitStack()
        self.events: Events | None = None

    def open(self, folder: Folder, step: int | None = None) -> None:
        """Write into `folder` from now on; with `step`, go on where a checkpoint of that step was taken."""
        self.folder = folder
        with _storage(folder):
            self._open(folder, step)

    def _open(self, folder: Folder, step: int | None) -> None:
        from zoo.runs.events import Events  # which imports protobuf

        folder.check(files=FILES, folders=FOLDERS)
        if step is None:
            init = {} if self.init is None else {"init": self.init}
            self.config = self.settings.to_json() | init | versions()
        else:
            self.config = self._resumed_config(folder, step)
            self.started = time.monotonic() - self.elapsed
            self.last = (step, time.monotonic())
        folder.write_json(CONFIG, self.config)
        self.metrics = self.files.enter_context(folder.append(METRICS))
        self._cut_metrics(folder)
        with folder.folder(TENSORBOARD, make=True) as inner:
            self.events = Events(inner, step)

    def _resumed_config(self, folder: Folder, step: int) -> dict[str, Any]:
        """Return what the folder says of a run that goes on at `step`. Raises UserError if it cannot go on."""
        before = read_json(folder, CONFIG)
        record = before | self.settings.to_json()
        total = self.settings.run.total_steps
        if total <= step and total != before["run"].get("total_steps"):
            raise UserError(f"{folder.path} has taken {step:,} steps; a budget of {total:,} leaves none: name more")
        if not step and "init" in before:
            raise UserError(
                f"{folder.path} was to start from saved weights and has no checkpoint; train anew with another --out"
            )
        earlier = before.get("resumed", [])
        if not isinstance(earlier, list):
            raise UserError(f"{folder.path / CONFIG}: resumed = {earlier!r:.50}; expected a list")
        record.pop("stopped", None)
        return record | {"resumed": [*earlier, {"step": step} | versions()]}

    def _cut_metrics(self, folder: Folder) -> None:
        """Drop the rows that are newer than the checkpoint; warn if older ones are lost."""
        size = os.fstat(self.metrics.fileno()).st_size
        if size >= self.written:
            self.metrics.truncate(self.written)
            return
        file, lost = folder.path / METRICS, "rows before it are lost"
        start = self.metrics.seek(max(size - ROW_LIMIT, 0))
        whole = self.metrics.read(ROW_LIMIT).rfind(b"\n") + 1
        if start and not whole:
            raise UserError(f"{file} ends in {ROW_LIMIT:,} bytes without a line; remove it to go on without its rows")
        self.metrics.truncate(start + whole)
        warnings.warn(
            f"{file} has {size:,} bytes, the checkpoint was taken after {self.written:,}: {lost}", stacklevel=2
        )

    def mark(self) -> None:
        """Flush the rows to the disk, and note the time and their size: state of the checkpoint that follows."""
        os.fsync(self.metrics.fileno())
        self.elapsed, self.written = time.monotonic() - self.started, os.fstat(self.metrics.fileno()).st_size

    def check_state(self) -> bool:
        """Whether a restored state makes sense."""
        if len(self.returns) != len(self.lengths) or self.elapsed < 0:
            return False
        return self.row is None or is_row(self.row)

    def rows(self, reports: Iterator[Report], on_step: Callable[[], None] = lambda: None) -> Iterator[Row]:
        """Yield a row for each report, and first the one that a checkpoint left incomplete, until `stop_at` is reached.

        `on_step` is called as by `evaluate`.
        """
        if self.row is not None:
            yield self._complete(self.row, on_step)
        while not self.reached() and (report := next(reports, None)) is not None:
            self.row = self._begin(report)
            yield self._complete(self.row, on_step)

    def reached(self) -> str:
        """Say that a check on the way reached `stop_at`, if one has; the first that does is the best, which is kept."""
        goal = self.settings.run.stop_at
        if goal is None or self.best is None or self.best < goal:
            return ""
        return f"the check there has a return of {self.best:,.1f}, and stop_at is {goal:,g}"

    def _begin(self, report: Report) -> Row:
        """Return the row of a report: step, seconds, steps per second, returns of the last episodes, losses."""
        self.returns.extend(episode.episode_return for episode in report.episodes)
        self.lengths.extend(episode.length for episode in report.episodes)
        now = time.monotonic()
        row: Row = {
            "step": report.step,
            "seconds": now - self.started,
            "steps_per_second": (report.step - self.last[0]) / max(now - self.last[1], 1e-9),
        }
        if self.returns:
            row["episode_return"] = float(np.mean(self.returns))
            row["episode_length"] = float(np.mean(self.lengths))
        for name in COLUMNS:
            if name in report.metrics:
                raise UserError(
                    f"{self.settings.algorithm}: update returns a metric {name!r}, the name of a column of every run; "
                    "give it another one"
                )
        return row | report.metrics

    def _complete(self, row: Row, on_step: Callable[[], None]) -> Row:
        """Add the evaluation, if one is due, and write the row."""
        step = int(row["step"])
        if self.eval_every and step >= self.next_eval:
            row["eval_return"] = self._validate(on_step)
            self.next_eval = step - step % self.eval_every + self.eval_every
        self.last, self.row = (step, time.monotonic()), None
        if self.folder is not None:
            with _storage(self.folder):
                self.metrics.write(f"{json.dumps(row)}\n".encode())
                self.metrics.flush()
            self._plot(row)
        return row

    def _plot(self, row: Row) -> None:
        """Write TensorBoard's events; warn if that fails, and write no more."""
        try:
            if self.events is not None:
                self.events.add(row)
        except Exception as error:
            self._close_events()
            warnings.warn(f"no TensorBoard events from step {row['step']:,} on: {error}", stacklevel=2)

    def _validate(self, on_step: Callable[[], None]) -> float:
        run = self.settings.run
        checked = evaluate(
            self.agent,
            self.eval_env,
            episodes=run.validation_episodes,
            seed=self.validation,
            threads=run.threads,
            on_step=on_step,
        )
        mean = checked.mean
        if self.best is None or mean > self.best:
            self.best = mean
            self._save("best")
        return mean

    def _save(self, name: str) -> None:
        if self.folder is not None:
            with _storage(self.folder), self.folder.folder(name, make=True) as inner:
                self.agent.write(inner)

    def finish(self, on_step: Callable[[], None] = lambda: None, stopped: Stop | None = None) -> Result:
        """Evaluate and save the final agent; `on_step` is called as by `evaluate`."""
        seconds = time.monotonic() - self.started
        run, evaluation = self.settings.run, None
        if run.eval_episodes:
            evaluation = evaluate(
                self.agent, self.eval_env, episodes=run.eval_episodes, threads=run.threads, on_step=on_step
            )
        self._save("final")
        if self.best is None:
            self._save("best")
        if self.folder is not None:
            self._close_record(self.folder, seconds, evaluation, stopped)
        path = self.folder.path if self.folder else None
        return Result(self.agent, self.settings, evaluation, seconds, path, stopped)

    def _close_record(
        self, folder: Folder, seconds: float, evaluation: Evaluation | None, stopped: Stop | None
    ) -> None:
        """Write the evaluation, and then where the run was stopped: until that stands there, its end is repeated."""
        stop = {} if stopped is None else {"stopped": asdict(stopped)}
        with _storage(folder):
            if evaluation is not None:
                folder.write_json(EVALUATION, {"seconds": seconds} | stop | evaluation.to_json())
            if stop:
                folder.write_json(CONFIG, self.config | stop)

    def rescue(self) -> None:
        """Save the agent of a run that is interrupted or fails as `last`, if its weights are finite."""
        if all(bool(parameter.isfinite().all()) for parameter in self.agent.parameters()):
            with suppress(StorageError):  # what stopped the run is the news
                self._save("last")

    def close(self) -> None:
        """Close the files."""
        with suppress(OSError):
            self.files.close()
        self._close_events()

    def _close_events(self) -> None:
        events, self.events = self.events, None
        with suppress(OSError):
            if events is not None:
                events.close()


@contextmanager
def _storage(folder: Folder) -> Iterator[None]:
    """Raise StorageError instead of OSError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder.path} cannot be written: {error}; the last checkpoint is whole") from error


def versions() -> dict[str, Any]:
    """Return versions and machine, for the record of a run."""
    packages = {"zoo": "actor-critic-zoo", **{name: name for name in ("torch", "numpy", "gymnasium")}}
    return {
        "versions": {"python": platform.python_version()} | {key: version(name) for key, name in packages.items()},
        "machine": {"system": platform.platform(), "processor": platform.machine()},
    }
