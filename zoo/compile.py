"""Compilation of whole updates: forward, backward, clipping and optimiser as one graph.

Small networks on a CPU spend their time in dispatch, so the unit is an algorithm's `step`: a function of tensors,
with all noise drawn outside. Compiled or not, the same numbers come out, to rounding.
"""

import shutil
import warnings
from typing import Any

import torch

from zoo.buffers import Buffer
from zoo.errors import UserError

WORTH_IT = 5000  # steps: compiling takes 5 to 30 s and saves 0.5 to 5 ms a step
COMPILERS = ("g++", "clang++", "c++")
VERSIONS = 1000


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

    dynamo = torch._dynamo.config
    dynamo.trace_autograd_ops = True  # torch.autograd.grad inside the graph
    # Runs of different settings in one process are versions of one function, of which torch by default allows 8.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = VERSIONS
    algo.step = torch.compile(algo.step, fullgraph=True, options=OPTIONS)
    return True
