"""Matrix products of a compiled graph, each in the form that is fastest on this processor."""

import math
from typing import Any

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.ir import FallbackKernel, TensorBox
from torch._inductor.lowering import permute, register_lowering
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

from zoo.machine import mkl_is_narrow

FEW = 32  # columns of a product
LARGE = 64 * 256 * 256  # multiplications of a product
NOTHING_ELSE: tuple[Any, ...] = (None, "none", [], "")  # no bias, no function after the product

aten = torch.ops.aten


class Products(CustomGraphPass):
    """The pass over a graph: oneDNN takes products of `large` multiplications or more, MKL the others."""

    def __init__(self, large: float) -> None:
        self.large = large

    def __call__(self, graph: Graph) -> None:
        _unfuse(graph)
        _turn(graph)
        _use_onednn(graph, self.large)

    def uuid(self) -> Any:
        """Of graphs compiled and kept: another one after a change here."""
        return get_hash_for_files((__file__,)), self.large


def _unfuse(graph: Graph) -> None:
    """b + A·B as a product and a sum, which joins the activation's kernel; fused, b is copied to every row first."""
    for fused, plain in ((aten.addmm.default, aten.mm.default), (aten.baddbmm.default, aten.bmm.default)):
        for node in graph.find_nodes(op="call_function", target=fused):
            bias, left, right = node.args
            with graph.inserting_before(node):
                _replace(node, _add(graph, aten.add.Tensor, _add(graph, plain, left, right), bias))


def _turn(graph: Graph) -> None:
    """Aᵀ·B with few columns, the gradient of a first layer, as (Bᵀ·A)ᵀ: a fifth of the time with four columns."""
    for node in graph.find_nodes(op="call_function", target=aten.mm.default):
        left, right = node.args
        num_rows, num_columns = node.meta["val"].shape
        few = statically_known_true(num_columns <= FEW) and statically_known_true(num_columns < num_rows)
        if few and statically_known_true(left.meta["val"].stride(0) == 1):
            with graph.inserting_before(node):
                turned = [_add(graph, aten.permute.default, factor, [1, 0]) for factor in (right, left)]
                _replace(node, _add(graph, aten.permute.default, _add(graph, aten.mm.default, *turned), [1, 0]))


def _use_onednn(graph: Graph, large: float) -> None:
    """Large products by oneDNN; stacked matrices one by one, so that whoever reads them puts them together uncopied."""
    onednn = torch.ops.zoo.product.default
    for plain in (aten.mm.default, aten.bmm.default):
        for node in graph.find_nodes(op="call_function", target=plain):
            left, right = (factor.meta["val"] for factor in node.args)
            fits = left.device.type == "cpu" and left.dtype == torch.float32
            if not fits or not statically_known_true(left.shape[-2] * left.shape[-1] * right.shape[-1] >= large):
                continue
            with graph.inserting_before(node):
                if left.ndim == 2:
                    _replace(node, _add(graph, onednn, *node.args))
                    continue
                pairs = [[_add(graph, aten.select.int, each, 0, i) for each in node.args] for i in range(len(left))]
                products = [_add(graph, aten.unsqueeze.default, _add(graph, onednn, *pair), 0) for pair in pairs]
                _replace(node, _add(graph, aten.cat.default, products))


def _add(graph: Graph, op: Any, *args: Any) -> Node:
    """A new node, and in its meta what comes out: a tensor without data."""
    node = graph.call_function(op, args)
    node.meta["val"] = op(*map_arg(args, lambda arg: arg.meta["val"]))
    return node


def _replace(old: Node, new: Node) -> None:
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)


def product(left: Tensor, right: Tensor) -> Tensor:
    """A·B by oneDNN."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.t(), *NOTHING_ELSE)
    return result


def _product_shape(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(len(left), right.shape[1])


torch.library.define("zoo::product", "(Tensor left, Tensor right) -> Tensor")
torch.library.impl("zoo::product", "CPU", product)
torch.library.register_fake("zoo::product", _product_shape)


@register_lowering(torch.ops.zoo.product.default, type_promotion_kind=None)
def _called_from_cpp(left: TensorBox, right: TensorBox) -> TensorBox:
    linear = torch.ops.mkldnn._linear_pointwise.default
    return TensorBox.create(FallbackKernel.create(linear, left, permute(right, [1, 0]), *NOTHING_ELSE))


OPTIONS: dict[str, Any] = {
    "post_grad_custom_post_pass": Products(LARGE if mkl_is_narrow() else math.inf),
    "cpp_wrapper": True,  # kernels are called from C++ as well: 50 µs a step
    "cpp.use_decompose_tanh": True,  # 2 / (1 + exp(-2x)) - 1 takes a third of the time
}
