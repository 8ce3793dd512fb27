"""Compilation of whole updates: forward, backward, clipping and optimiser as one graph.

Small networks on a CPU spend their time in dispatch, so the unit is an algorithm's `step`: a function of tensors,
with all noise drawn outside. Compiled or not, the same numbers come out, to rounding.
"""

import getpass
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

from zoo.errors import UserError, brief
from zoo.protocol import Buffer, FewGuards, Minibatched, Stepwise
from zoo.training.kernels.compiler import compile_whole, compiler_errors, refusal

LOG = logging.getLogger(__name__)
WORTH_IT = 5000  # steps: compiling takes 5 to 30 s and saves 0.5 to 5 ms a step
COMPILERS = ("g++", "clang++", "c++")
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # the variable that names the folder of torch's compiler


def compile_step(
    algo: Any, buffer: Buffer, mode: str, *, kernels: str = "auto", total_steps: int, num_envs: int
) -> bool:
    """Whether `algo.step` runs compiled from now on.

    `mode` is on, off or auto, which depends on `count_steps`, so on the settings alone, never on a stopwatch. Where
    nothing can be compiled, for want of a compiler or of a place for its files, updates run uncompiled with a warning;
    with `on`, this is a UserError. The step itself does the same if it turns out later. `kernels` is auto or torch:
    products by kernels of the zoo's own, where they come out right, or by torch's.
    """
    if mode == "off":
        return False
    if not isinstance(algo, Stepwise):
        if mode == "on":
            warnings.warn("compile = on changes nothing: the algorithm has no method 'step' to compile", stacklevel=2)
        return False
    if mode == "auto" and count_steps(algo, buffer, total_steps=total_steps, num_envs=num_envs) < WORTH_IT:
        return False
    if not any(map(shutil.which, COMPILERS)):
        _do_without(mode, f"no C++ compiler ({', '.join(COMPILERS)}) is on this machine; install one")
        return False
    try:
        _make_folder()
        LOG.info("loading the compiler, and trying it on a product (once; cached)")
        few_guards = isinstance(algo, FewGuards) and algo.few_guards
        compiled = compile_whole(algo.step, kernels=kernels, few_guards=few_guards)
    except OSError as error:  # first of all: without a folder, what knows torch's errors cannot be imported
        _do_without(mode, _no_place(error))
        return False
    except Exception as error:
        cause = refusal(error)
        if cause is None:
            raise
        _do_without(mode, _no_place(cause))
        return False
    algo.step = _or_plain(algo, compiled, mode)
    return True


def count_steps(algo: Stepwise, buffer: Buffer, *, total_steps: int, num_envs: int) -> int:
    """Return how many times a run calls `algo.step`, roughly."""
    each = algo.steps_per_batch(num_envs) if isinstance(algo, Minibatched) else 1
    return buffer.num_batches(total_steps) * each


def _make_folder() -> None:
    """Make the folder of torch's compiler; an OSError where that fails.

    torch makes it while it is imported, and an import that failed halfway can never be repeated in this process.
    """
    if CACHE not in os.environ:
        try:
            user = re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
        except (KeyError, ModuleNotFoundError, OSError):  # nobody has this number
            user = f"uid_{os.getuid()}"
        os.environ[CACHE] = os.path.join(tempfile.gettempdir(), f"torchinductor_{user}")
    os.makedirs(os.path.abspath(os.environ[CACHE]), exist_ok=True)


def _or_plain(algo: Any, compiled: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """`compiled`, and from the moment on at which torch fails to compile, at the first call or later, the plain step.

    The log is told before the first call, which takes long. Nothing is done twice: torch compiles the whole of a step
    (fullgraph) with tensors without data, before it executes any of it and before it changes anything.
    """
    plain, begun = algo.step, False

    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal begun
        if not begun:
            LOG.info("compiling the update (once; cached)")
        begun = True
        try:
            return compiled(*args, **kwargs)
        except compiler_errors() as error:
            cause = refusal(error)
            if cause is None:
                raise
            _do_without(mode, _no_place(cause))
        algo.step = plain
        return plain(*args, **kwargs)

    return step


def _no_place(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if "error: " in line]  # of all that a C++ compiler says
    said = lines[0] if lines else error
    return brief(f"torch cannot compile here ({said}); let {CACHE} name a folder with space for it")


def _do_without(mode: str, reason: str) -> None:
    """A UserError where a run insists on compilation, else a warning."""
    if mode == "on":
        raise UserError(f"compile = on, but {reason}, or use --compile auto") from None
    warnings.warn(f"updates run uncompiled, and slower: {reason}", stacklevel=3)
