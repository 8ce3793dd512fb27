"""Compilation of whole updates: forward, backward, clipping and optimiser as one graph.

Small networks on a CPU spend their time in dispatch, so the unit is an algorithm's `step`: a function of tensors,
with all noise drawn outside. Compiled or not, the same numbers come out, to rounding.
"""

import shutil
import warnings
from typing import Any

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph

from zoo.buffers import Buffer
from zoo.errors import UserError

WORTH_IT = 5000  # steps: compiling takes 5 to 30 s and saves 0.5 to 5 ms a step
COMPILERS = ("g++", "clang++", "c++")
VERSIONS = 1000


class Unfuse(CustomGraphPass):
    """b + A·B as a product and a sum, which joins the activation's kernel; fused, b is copied to every row first."""

    def __call__(self, graph: Graph) -> None:
        ops = torch.ops.aten
        for fused, plain in ((ops.addmm.default, ops.mm.default), (ops.baddbmm.default, ops.bmm.default)):
            for node in graph.find_nodes(op="call_function", target=fused):
                bias, left, right = node.args
                with graph.inserting_before(node):
                    product = graph.call_function(plain, (left, right))
                    total = graph.call_function(ops.add.Tensor, (product, bias))
                product.meta["val"] = total.meta["val"] = node.meta["val"]
                node.replace_all_uses_with(total)
                graph.erase_node(node)

    def uuid(self) -> Any:
        """Of graphs compiled and kept: another one after a change here."""
        return get_hash_for_files((__file__,))


OPTIONS: dict[str, Any] = {
    "post_grad_custom_post_pass": Unfuse(),
    "cpp_wrapper": True,  # kernels are called from C++ as well: 50 µs a step
    "cpp.use_decompose_tanh": True,  # 2 / (1 + exp(-2x)) - 1 takes a third of the time
}


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
    dynamo = torch._dynamo.config
    dynamo.trace_autograd_ops = True  # torch.autograd.grad inside the graph
    # Runs of different settings in one process are versions of one function, of which torch by default allows 8.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = VERSIONS
    algo.step = torch.compile(algo.step, fullgraph=True, options=OPTIONS)
    return True
