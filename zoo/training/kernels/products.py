"""Matrix products of a compiled graph, by oneDNN's `brgemm`, which torch calls in kernels of its own.

Against torch's own products: no time lost per call, and AVX-512 on every maker's processors, where MKL uses it on
Intel's alone. On processors that oneDNN has no kernels for, torch's `brgemm` takes MKL's or another library's product.
"""

import math
from typing import Any

import torch
import torch._inductor.lowering  # before the templates, which import one another in a circle
from torch import Tensor
from torch._inductor.codegen.cpp_template import CppTemplate
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.ir import ExternKernel, FixedLayout, TensorBox
from torch._inductor.lowering import register_lowering
from torch._inductor.utils import parallel_num_threads
from torch._inductor.virtualized import V
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

FEW = 32  # columns of a product
PANEL = 128  # columns that are worked out at a time, so that caches hold what they are made from
WORTH_THREADS = 2**17  # multiplications: 2 µs, and what follows finds its rows in the caches of its own core

aten = torch.ops.aten


class Products(CustomGraphPass):
    """The pass over a graph."""

    def __call__(self, graph: Graph) -> None:
        _unfuse(graph)
        _turn(graph)
        if torch.get_float32_matmul_precision() == "highest":  # brgemm rounds no factors
            _name(graph)

    def uuid(self) -> Any:
        """Of graphs compiled and kept: another one after a change here."""
        return get_hash_for_files((__file__,)), torch.get_float32_matmul_precision()


def _unfuse(graph: Graph) -> None:
    """b + A·B as a product and a sum, which joins the activation's kernel; fused, b is copied to every row first."""
    for fused, plain in ((aten.addmm.default, aten.mm.default), (aten.baddbmm.default, aten.bmm.default)):
        for node in graph.find_nodes(op="call_function", target=fused):
            bias, left, right = node.args
            with graph.inserting_before(node):
                _replace(node, _add(graph, aten.add.Tensor, _add(graph, plain, left, right), bias))


def _turn(graph: Graph) -> None:
    """Aᵀ·B with few columns, the gradient of a first layer, as (Bᵀ·A)ᵀ: the smaller factor is the one transposed."""
    for node in graph.find_nodes(op="call_function", target=aten.mm.default):
        left, right = node.args
        num_rows, num_columns = node.meta["val"].shape
        few = statically_known_true(num_columns <= FEW) and statically_known_true(num_columns < num_rows)
        if few and statically_known_true(left.meta["val"].stride(0) == 1):
            with graph.inserting_before(node):
                turned = [_add(graph, aten.permute.default, factor, [1, 0]) for factor in (right, left)]
                _replace(node, _add(graph, aten.permute.default, _add(graph, aten.mm.default, *turned), [1, 0]))


def _name(graph: Graph) -> None:
    """Products in float32 on the processor become `zoo::product`, which is compiled as below."""
    plain = (aten.mm.default, aten.bmm.default)
    for node in [node for op in plain for node in graph.find_nodes(op="call_function", target=op)]:
        value = node.meta["val"]
        if value.device.type == "cpu" and value.dtype == torch.float32:
            with graph.inserting_before(node):
                _replace(node, _add(graph, torch.ops.zoo.product.default, *node.args))


def _add(graph: Graph, op: Any, *args: Any) -> Node:
    """Return a new node, and in its meta what comes out: a tensor without data."""
    node = graph.call_function(op, args)
    node.meta["val"] = op(*map_arg(args, lambda arg: arg.meta["val"]))
    return node


def _replace(old: Node, new: Node) -> None:
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)


def product(left: Tensor, right: Tensor) -> Tensor:
    """A·B, (M, N), or a stack of them, (E, M, N); of a left factor (M, K) or (E, M, K) and a right one."""
    return torch.matmul(left, right)


torch.library.define("zoo::product", "(Tensor left, Tensor right) -> Tensor")
torch.library.impl("zoo::product", "CPU", product)
torch.library.register_fake("zoo::product", product)

CODE = """
#include <torch/csrc/inductor/cpp_prefix.h>

namespace at::native::cpublas {{
void brgemm(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, const float*, const float*, float*, bool);
}}

extern "C" {signature}
{{
    constexpr int64_t threads = {threads}, panel = {panel};
    const int64_t num_products = {num_products}, num_rows = {num_rows}, num_columns = {num_columns}, depth = {depth};
    const int64_t share = (num_rows + threads - 1) / threads;
    {spread}
    for (int64_t i = 0; i < num_products; ++i)
        for (int64_t row = 0; row < num_rows; row += share)
            for (int64_t column = 0; column < num_columns; column += panel)
                at::native::cpublas::brgemm(
                    std::min(share, num_rows - row), std::min(panel, num_columns - column), depth,
                    depth, num_columns, num_columns, false, &{left}, &{right}, &{result}, false);
}}
"""


class Product(CppTemplate):
    """The code of a product: each thread works out a share of the rows, panel by panel."""

    def render(self, **given: Any) -> str:
        """Return a function in C++, of the kernel that is `given` and, at last, of the buffer for its result."""
        kernel, result = given["kernel"], given.get("template_buffer_node") or self.output_node
        left, right = self.input_nodes
        stack = ["i"] * (len(self.layout.size) - 2)
        return CODE.format(
            signature=kernel.def_kernel({"left": left, "right": right}, {"result": result}),
            spread="#pragma omp parallel for collapse(2) num_threads(threads)" if self.num_threads > 1 else "",
            threads=self.num_threads,
            panel=PANEL,
            num_products=kernel.size(result, 0) if stack else 1,
            num_rows=kernel.size(left, -2),
            num_columns=kernel.size(right, -1),
            depth=kernel.size(left, -1),
            left=kernel.index(left, [*stack, "row", 0]),
            right=kernel.index(right, [*stack, 0, "column"]),
            result=kernel.index(result, [*stack, "row", "column"]),
        )


@register_lowering(torch.ops.zoo.product.default, type_promotion_kind=None)
def _compiled(left: TensorBox, right: TensorBox) -> TensorBox:
    factors = [ExternKernel.require_contiguous_strides(ExternKernel.realize_input(factor)) for factor in (left, right)]
    *rows, depth = factors[0].get_size()
    size = [*rows, factors[1].get_size()[-1]]
    large = V.graph.sizevars.statically_known_geq(math.prod(size) * depth, WORTH_THREADS)
    layout = FixedLayout(torch.device("cpu"), torch.float32, size)
    threads = parallel_num_threads() if large else 1
    result: TensorBox = Product("product", factors, layout, threads).generate().output_node()
    return result


OPTIONS: dict[str, Any] = {
    "post_grad_custom_post_pass": Products(),
    "epilogue_fusion": False,  # a product's function has no place for what follows
    "size_asserts": False,  # torch's guards have checked the sizes before
    "cpp_wrapper": True,  # kernels are called from C++ as well: 50 µs a step
    "cpp.use_decompose_tanh": True,  # 2 / (1 + exp(-2x)) - 1 takes a third of the time
}
