"""Runs and their folders: settings resolved, an agent trained, everything about it written down."""

from zoo.runs.api import load, log_every, resume, run, train
from zoo.runs.assemble import assemble
from zoo.runs.prepare import check_new, default_folder, prepare
from zoo.runs.resumed import resumed_settings, settings_of

__all__ = [
    "assemble",
    "check_new",
    "default_folder",
    "load",
    "log_every",
    "prepare",
    "resume",
    "resumed_settings",
    "run",
    "settings_of",
    "train",
]
