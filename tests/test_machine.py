"""How training uses the machine."""

import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

import zoo
from zoo.machine import flushes_subnormals, nothing_from_here, peak_memory, safe_path, torch_settings


@pytest.fixture(autouse=True)
def untouched() -> None:
    torch.set_flush_denormal(False)


def test_subnormal_numbers_are_zero_inside_and_numbers_outside() -> None:
    threads, tiny = torch.get_num_threads(), torch.full((64,), 1e-38)
    assert not flushes_subnormals()
    with torch_settings(threads + 1):
        assert flushes_subnormals()
        assert torch.get_num_threads() == threads + 1
        assert (tiny * 0.1 == 0).all()
        with torch_settings(1):
            pass
        assert flushes_subnormals()
    assert (tiny * 0.1 > 0).all()
    assert torch.get_num_threads() == threads


def test_it_ends_with_an_error() -> None:
    with pytest.raises(KeyError), torch_settings(1):
        raise KeyError
    assert not flushes_subnormals()


def test_training_leaves_the_processor_as_it_was() -> None:
    zoo.train("a2c", "CartPole-v1", total_steps=40, seed=0, eval_episodes=1)
    assert not flushes_subnormals()
    assert np.float32(1e-38) * np.float32(0.1) > 0


def test_bfloat16_rounds_the_factors_of_products_alone() -> None:
    a, b = torch.rand(256, 256), torch.rand(256, 256)
    exact = a.double() @ b.double()
    with torch_settings(1, "bfloat16"):
        assert torch.get_float32_matmul_precision() == "medium"
        error = ((a @ b) - exact).abs().max() / exact.abs().max()
    assert error < 2**-8  # exact where the processor has no bfloat16
    assert torch.get_float32_matmul_precision() == "highest"
    assert ((a @ b) - exact).abs().max() / exact.abs().max() < 1e-6


def test_peak_memory_is_in_bytes_on_linux_and_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    now = psutil.Process().memory_info().rss
    if sys.platform == "linux":
        assert 0.9 * now < peak_memory() < 2**40  # the kernel counts coarsely
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 * 2**20))
    for platform, expected in {"linux": 3 * 2**30, "darwin": 3 * 2**20}.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert peak_memory() == expected


def first_on_the_path() -> str:
    """Where a Python process that runs a command looks first."""
    command = [sys.executable, "-c", "import sys; print(repr(sys.path[0]))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("before", [None, "", "1"])
def test_children_do_not_look_into_the_working_directory(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert first_on_the_path() == "''"  # the control: the working directory
    if before is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    with contextlib.suppress(KeyError), safe_path():
        assert first_on_the_path() != "''"
        raise KeyError
    assert os.environ.get("PYTHONSAFEPATH") == before


def test_nothing_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    kept = ["/nowhere", str(tmp_path.parent), *sys.path]
    given = ["", ".", str(tmp_path), str(tmp_path / "link"), *kept]
    monkeypatch.setattr(sys, "path", list(given))
    with contextlib.suppress(KeyError), nothing_from_here():
        assert sys.path == kept
        raise KeyError
    assert sys.path == given
