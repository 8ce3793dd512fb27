"""Acting without what torch's calls cost: for one observation, that is a third of a small network's time.

torch looks for hooks at each call of a module, and finds parameters and layers as attributes by a search of its own.
"""

import copy
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from zoo.protocol import Algorithm, Progress

# Modules whose `forward` depends on nothing that changes but parameters.
LAYERS = (nn.Linear, nn.Conv2d, nn.Flatten, nn.Tanh, nn.ReLU, nn.Sequential)
NETWORKS = (
    "zoo.parts.networks",
    "zoo.parts.cnn",
    "zoo.parts.critics",
    "zoo.parts.models",
    "zoo.parts.squashed",
)  # where others are; by name: not every entry imports both


class DirectActor:
    """What acts for `algo`: `algo.act`, during which its networks are stand-ins that share their parameters.

    Where a network has hooks or parametrisations, or a layer, a parameter, a class or a method of it was replaced, the
    networks themselves are called. Outside `act` nothing of `algo` differs.
    """

    def __init__(self, algo: Algorithm) -> None:
        self.algo = algo
        children = {name: child for name, child in algo.named_children() if _is_known(child)}  # type: ignore[attr-defined]
        self.stand_ins = {name: _stand_in(child) for name, child in children.items()}
        modules = [module for child in children.values() for module in child.modules()]
        every = torch.nn.modules.module  # hooks of all modules of the process
        self.hooks = [every._global_forward_hooks, every._global_forward_pre_hooks]
        self.hooks += [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        owners: list[Any] = [each for module in modules for each in (module._parameters, module._modules)]
        parts = [(owner, name, part) for owner in owners for name, part in owner.items()]
        parts += [(algo._modules, name, child) for name, child in children.items()]  # type: ignore[attr-defined]
        self.owners, self.names, self.parts = ([part[i] for part in parts] for i in range(3))
        self.modules, self.kinds = modules, list(map(type, modules))
        self.attributes = [*map(vars, modules), *owners]
        self.sizes = list(map(len, self.attributes))  # a method that is set on a module, a layer that is appended

    def act(self, obs: Tensor, progress: Progress) -> tuple[Tensor, Tensor | None]:
        """Return what `algo.act` returns."""
        if any(self.hooks) or not self._is_as_made():
            return self.algo.act(obs, progress)
        attributes = vars(self.algo)
        attributes.update(self.stand_ins)  # found before torch's modules are
        try:
            return self.algo.act(obs, progress)
        finally:
            for name in self.stand_ins:
                del attributes[name]

    def _is_as_made(self) -> bool:
        same = all(map(is_, map(dict.get, self.owners, self.names), self.parts))
        return same and list(map(len, self.attributes)) == self.sizes and list(map(type, self.modules)) == self.kinds


def _is_known(network: nn.Module) -> bool:
    """Whether stand-ins are right for `network`, and of use: targets, which are not trained, do not act."""
    trained = any(parameter.requires_grad for parameter in network.parameters())
    kinds = {type(module) for module in network.modules()}
    own = any("forward" in vars(module) for module in network.modules())
    return trained and not own and all(kind in LAYERS or kind.__module__ in NETWORKS for kind in kinds)


def _stand_in(module: nn.Module) -> nn.Module:
    """Return a module with the same parameters, found at once, whose call is its `forward`."""
    stand_in = copy.copy(module)
    stand_in.__class__ = _called_directly(type(module))
    children = {name: _stand_in(child) for name, child in module.named_children()}
    vars(stand_in).update({**module._parameters, **children, "in_turn": list(children.values())})
    return stand_in


def _called_directly(cls: type[nn.Module]) -> type[nn.Module]:
    return type(cls.__name__, (cls,), {"__call__": _call_in_turn if cls is nn.Sequential else cls.forward})


def _call_in_turn(self: Any, x: Tensor) -> Tensor:
    for layer in self.in_turn:
        x = layer(x)
    return x
