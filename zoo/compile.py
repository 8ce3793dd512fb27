"""Compilation of whole updates: forward, backward, clipping and optimiser as one graph.

Small networks on a CPU spend their time in dispatch, so the unit is an algorithm's `step`: a function of tensors,
with all noise drawn outside. Compiled or not, the same numbers come out, to rounding.
"""

import inspect
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch

from zoo.buffers import Buffer
from zoo.errors import UserError

WORTH_IT = 5000  # steps: compiling takes 5 to 30 s and saves 0.5 to 5 ms a step
COMPILERS = ("g++", "clang++", "c++")
PLAIN = ("CONSTANT_MATCH", "EQUALS_MATCH")  # torch's names for conditions on numbers, text and the like


def compile_step(algo: Any, buffer: Buffer, mode: str, total_steps: int) -> bool:
    """Whether `algo.step` runs compiled from now on.

    `mode` is on, off or auto, which depends on the settings alone, never on a stopwatch: on how many steps the run
    takes, `algo.steps_per_batch` (or one) for each batch. A UserError where `on` finds no compiler.
    """
    num_steps = buffer.num_batches(total_steps) * getattr(algo, "steps_per_batch", 1)
    if mode == "off" or not hasattr(algo, "step") or (mode == "auto" and num_steps < WORTH_IT):
        return False
    if not any(map(shutil.which, COMPILERS)):
        missing = f"no C++ compiler ({', '.join(COMPILERS)}) on this machine"
        if mode == "on":
            raise UserError(f"compile = on, but there is {missing}; install one, or use --compile auto")
        warnings.warn(f"updates run uncompiled, and slower: {missing}", stacklevel=2)
        return False
    from zoo.products import OPTIONS  # which imports torch's compiler: two seconds that uncompiled runs do without

    torch._dynamo.config.trace_autograd_ops = True  # torch.autograd.grad inside the graph
    options: dict[str, Any] = {**OPTIONS, "guard_filter_fn": _worth_checking(algo.step)}
    algo.step = torch.compile(_with_code_of_its_own(algo.step), fullgraph=True, options=options)
    return True


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
