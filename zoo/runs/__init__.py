"""Runs and their folders: settings resolved, an agent trained, everything about it written down."""

from zoo.runs.api import load, log_every, resume, run
from zoo.runs.assemble import assemble
from zoo.runs.prepare import check_new, default_folder, prepare, task_of
from zoo.runs.resumed import command, recorded_task, resumed_settings, run_of, settings_of

__all__ = [
    "assemble",
    "check_new",
    "command",
    "default_folder",
    "load",
    "log_every",
    "prepare",
    "recorded_task",
    "resume",
    "resumed_settings",
    "run",
    "run_of",
    "settings_of",
    "task_of",
]
