"""How training uses the machine: its processor, and processes beside this one."""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import torch

from zoo.errors import UserError


@contextmanager
def torch_settings(threads: int, precision: str = "float32") -> Iterator[None]:
    """Inside, torch computes as `set_processor` says; afterwards as before."""
    before, flushes = torch.get_num_threads(), flushes_subnormals()
    products = torch.get_float32_matmul_precision()
    set_processor(threads, precision)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushes)
        torch.set_float32_matmul_precision(products)


def set_processor(threads: int, precision: str = "float32") -> None:
    """Give torch so many threads, and take numbers too small for full precision for 0.

    Adam's moments of a parameter without gradients decay to such subnormal numbers, and the processor takes a hundred
    times as long for each operation on them. With precision bfloat16, factors of matrix products are rounded to its 8
    bits and summed in float32, where the processor can do that faster.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("medium" if precision == "bfloat16" else "highest")


def flushes_subnormals() -> bool:
    """Whether subnormal results are taken for 0 in this thread."""
    return float(torch.full((), 1e-38) * 0.1) == 0


def peak_memory() -> int:
    """Return the most memory that this process has taken so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def safe_path() -> Iterator[None]:
    """Start Python processes inside, without the working directory on their path."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONSAFEPATH", None)
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def nothing_from_here() -> Iterator[None]:
    """Import nothing from the working directory inside: a file there may have the name of a package."""
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if not _is_here(entry)]
    try:
        yield
    finally:
        sys.path[:] = before


def _is_here(entry: str) -> bool:
    try:
        return os.path.samefile(entry or ".", ".")
    except OSError:  # of an entry that is not there
        return False


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that stop a run


def device_of(algo: Any) -> torch.device:
    """Return the device of an algorithm's parameters."""
    return next(iter(algo.parameters())).device


def obey_parent() -> None:
    """Leave it to the process that started this one when to stop, and end, whatever goes on, once that has ended."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def start_ray(address: str | None, *, num_cpus: int | None = None) -> tuple[Any, bool]:
    """Ray, and whether this call joined the cluster at `address`, or started one that listens on this machine alone.

    Whoever did that ends it with `ray.shutdown`; where Ray was in use before, nothing changes. Raises UserError if it
    is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs an extra: pip install 'actor-critic-zoo[ray]'") from None
    if ray.is_initialized():
        return ray, False
    # "local": without it Ray would join whatever cluster it finds on this machine.
    local = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False, "num_cpus": num_cpus}
    # Ray's workers import from the folder in which it is started.
    with safe_path(), contextlib.chdir("/"):
        ray.init(log_to_driver=False, **({"address": address} if address else local))
    return ray, True
