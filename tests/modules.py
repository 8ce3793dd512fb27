"""What must hold of every network, as of any module of torch: hooks fire, parametrisations and masks count.

Each change of a network's layers is compared with another network of the same weights, changed by hand.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from zoo.parts.critics import EnsembleLinear

Layer = nn.Linear | nn.Conv2d | EnsembleLinear


def layers(net: nn.Module) -> list[tuple[str, Any]]:
    """The modules with a weight of their own, by name."""
    return [(name, each) for name, each in net.named_modules() if isinstance(each, Layer)]


def mask(weight: Tensor) -> Tensor:
    """Every other number."""
    return (torch.arange(weight.numel()).reshape(weight.shape) % 2).float()


def hooked(layer: Layer) -> None:
    layer.register_forward_hook(lambda module, args, out: 2 * out)


def hooked_by_hand(layer: Layer) -> None:
    layer.weight.mul_(2)
    layer.bias.mul_(2)  # type: ignore[union-attr]


def hooked_before(layer: Layer) -> None:
    layer.register_forward_pre_hook(lambda module, args: (2 * args[0],))


def doubled(layer: Layer) -> None:
    layer.weight.mul_(2)


def weight_norm(layer: Layer) -> None:
    """weight = g v / ‖v‖, with twice the length."""
    parametrizations.weight_norm(layer).parametrizations.weight.original0.mul_(2)


def spectral_norm(layer: Layer) -> None:
    parametrizations.spectral_norm(layer, n_power_iterations=200)
    layer.weight  # noqa: B018  # the first 200 of its iterations
    layer.eval()  # no further ones


def divided_by_its_norm(layer: Layer) -> None:
    layer.weight.div_(torch.linalg.matrix_norm(layer.weight.flatten(1), 2))


def pruned(layer: Layer) -> None:
    prune.custom_from_mask(layer, "weight", mask(layer.weight))


def masked(layer: Layer) -> None:
    layer.weight.mul_(mask(layer.weight))


CHANGES: dict[str, tuple[Callable[[Any], None], Callable[[Any], None]]] = {
    "forward hook": (hooked, hooked_by_hand),
    "forward pre-hook": (hooked_before, doubled),
    "weight_norm": (weight_norm, doubled),
    "spectral_norm": (spectral_norm, divided_by_its_norm),
    "pruning mask": (pruned, masked),
}
each_change = pytest.mark.parametrize("change", CHANGES)
each_way = pytest.mark.parametrize("way", ["uncompiled", "compiled"])


def changed(net: nn.Module, change: str, *, by_hand: bool = False) -> nn.Module:
    """A copy of `net` with all of its layers changed."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for _, layer in layers(net):
            CHANGES[change][by_hand](layer)
    return net


def assert_changes_count(net: nn.Module, change: str, way: str, number: Callable[[nn.Module], Tensor]) -> None:
    """`number` is what comes out of a network, as a tensor that gradients flow through."""
    own, expected = changed(net, change), number(changed(net, change, by_hand=True))
    torch.testing.assert_close(run(own, way, number), expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(number(net), expected, rtol=1e-2, atol=1e-4)  # what would come out without the change
    gradients = torch.autograd.grad(run(own, way, number).sum(), list(own.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def run(net: nn.Module, way: str, number: Callable[[nn.Module], Tensor]) -> Tensor:
    if way == "uncompiled":
        return number(net)
    torch.compiler.reset()  # torch allows a function only so many graphs
    compiled: Callable[[], Tensor] = torch.compile(lambda: number(net), fullgraph=True, backend="eager")
    return compiled()


def assert_every_hook_fires(net: nn.Module, number: Callable[[nn.Module], Tensor]) -> None:
    """Once a call for every module, the network itself included."""
    fired: list[nn.Module] = []
    for module in net.modules():
        module.register_forward_hook(lambda module, args, out: fired.append(module))
    number(net)
    assert sorted(map(id, fired)) == sorted(map(id, net.modules()))
