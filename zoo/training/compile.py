"""Compilation of whole updates: forward, backward, clipping and optimiser as one graph.

Small networks on a CPU spend their time in dispatch, so the unit is an algorithm's `step`: a function of tensors,
with all noise drawn outside. Compiled or not, the same numbers come out, to rounding.
"""

import getpass
import inspect
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch

from zoo.errors import UserError
from zoo.machine import safe_path
from zoo.protocol import Buffer, Minibatched, Stepwise
from zoo.storage.untrusted import brief

WORTH_IT = 5000  # steps: compiling takes 5 to 30 s and saves 0.5 to 5 ms a step
COMPILERS = ("g++", "clang++", "c++")
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # the variable that names the folder of torch's compiler
PLAIN = ("CONSTANT_MATCH", "EQUALS_MATCH")  # torch's names for conditions on numbers, text and the like


def compile_step(algo: Any, buffer: Buffer, mode: str, *, total_steps: int, num_envs: int) -> bool:
    """Whether `algo.step` runs compiled from now on.

    `mode` is on, off or auto, which depends on `count_steps`, so on the settings alone, never on a stopwatch. Where
    nothing can be compiled, for want of a compiler or of a place for its files, updates run uncompiled with a warning;
    with `on`, this is a UserError. The step itself does the same if it turns out later.
    """
    if mode == "off" or not isinstance(algo, Stepwise):
        return False
    if mode == "auto" and count_steps(algo, buffer, total_steps=total_steps, num_envs=num_envs) < WORTH_IT:
        return False
    if not any(map(shutil.which, COMPILERS)):
        _do_without(mode, f"no C++ compiler ({', '.join(COMPILERS)}) is on this machine; install one")
        return False
    try:
        compiled = _compiled(algo.step)
    except OSError as error:
        _do_without(mode, _no_place(error))
        return False
    algo.step = _or_plain(algo, compiled, mode)
    return True


def count_steps(algo: Stepwise, buffer: Buffer, *, total_steps: int, num_envs: int) -> int:
    """How many times a run calls `algo.step`, roughly."""
    each = algo.steps_per_batch(num_envs) if isinstance(algo, Minibatched) else 1
    return buffer.num_batches(total_steps) * each


def _compiled(step: Any) -> Callable[..., Any]:
    """`step` as torch compiles it, once it is called; an OSError where torch cannot write."""
    _make_folder()
    with safe_path():  # torch tries in another process what the processor can do
        from torch._inductor.cpu_vec_isa import pick_vec_isa

        from zoo.training.kernels.products import OPTIONS

        pick_vec_isa()
    torch._dynamo.config.trace_autograd_ops = True  # torch.autograd.grad inside the graph
    options: dict[str, Any] = {**OPTIONS, "guard_filter_fn": _worth_checking(step)}
    return torch.compile(_with_code_of_its_own(step), fullgraph=True, options=options)


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

    Nothing is done twice: torch compiles the whole of a step (fullgraph) with tensors without data, before it executes
    any of it and before it changes anything.
    """
    plain = algo.step

    def step(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = _cause(error)
            if cause is None:
                raise
            _do_without(mode, _no_place(cause))
        algo.step = plain
        return plain(*args, **kwargs)

    return step


def _cause(error: BaseException | None) -> BaseException | None:
    """What the machine refused, a file or the C++ compiler's work, behind an error of torch's compiler; or nothing."""
    refusals = (OSError, torch._inductor.exc.CppCompileError)  # a full disk is met by the C++ compiler, too
    while error is not None and not isinstance(error, refusals):
        inner = error.inner_exception if isinstance(error, torch._dynamo.exc.BackendCompilerFailed) else None
        error = inner or error.__cause__ or error.__context__
    return error


def _no_place(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if "error: " in line]  # of all that a C++ compiler says
    said = lines[0] if lines else error
    return brief(f"torch cannot compile here ({said}); let {CACHE} name a folder with space for it")


def _do_without(mode: str, reason: str) -> None:
    """A UserError where a run insists on compilation, else a warning."""
    if mode == "on":
        raise UserError(f"compile = on, but {reason}, or use --compile auto") from None
    warnings.warn(f"updates run uncompiled, and slower: {reason}", stacklevel=3)


def _with_code_of_its_own(method: MethodType) -> MethodType:
    """`method` with a copy of its code, where torch keeps its graphs: no other algorithm finds them there."""
    function = method.__func__
    copy = FunctionType(function.__code__.replace(), function.__globals__, closure=function.__closure__)
    copy.__defaults__, copy.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return MethodType(copy, method.__self__)


def _worth_checking(step: MethodType) -> Callable[[Sequence[Any]], list[bool]]:
    """Which conditions of a graph torch is to check at each call: on `step`'s arguments, on attributes of the algorithm
    that are plain values, on torch itself.

    The others are hundreds, on settings, layers and their weights, of which only the numbers ever change.
    """
    arguments = {"", *inspect.signature(step).parameters}

    def is_worth(condition: Any) -> bool:
        own = re.fullmatch(r"self\.\w+", condition.name) and condition.guard_type in PLAIN
        return bool(own) or re.split(r"\W", condition.name)[0] in arguments

    return lambda conditions: [is_worth(each) for each in conditions]
