"""Environments in processes of their own, and the signals and ends of these."""

import signal
import subprocess
import sys
import time

from numpy.random import SeedSequence

from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.machine import SIGNALS


def test_making_processes_leaves_the_signals_of_this_one_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    envs = Envs(vectorize("CartPole-v1", 2, "async"), SeedSequence(0))
    assert [signal.getsignal(number) for number in SIGNALS] == before
    envs.close()


def test_processes_that_nobody_closed_end_with_the_program() -> None:
    """They ignore the signal by which multiprocessing would end them, and would be waited for."""
    program = """
import numpy as np
from numpy.random import SeedSequence
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
kept = Envs(vectorize("CartPole-v1", 2, "async"), SeedSequence(0))
kept.reset()
import builtins
builtins.kept = kept
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert time.monotonic() - began < 60
