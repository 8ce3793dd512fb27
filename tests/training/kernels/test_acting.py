"""A DirectActor acts as its algorithm does, bit for bit, and notices whatever is done to its networks."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.random import SeedSequence
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from zoo import registry
from zoo.protocol import Progress
from zoo.spec import Spec
from zoo.training.kernels.acting import DirectActor

each_entry = pytest.mark.parametrize("name", sorted(registry.load().algorithms))


def make(name: str) -> Any:
    cls = registry.load_class(name)
    env = gym.make("Pendulum-v1" if cls.spaces == (gym.spaces.Box,) else "CartPole-v1")
    spec = Spec(env.observation_space, env.action_space, scale_actions=True)
    return registry.make(name, spec, cls.Config(hidden=(8, 8)), SeedSequence(0))


def obs_of(algo: Any) -> Tensor:
    width = 3 if type(algo).spaces == (gym.spaces.Box,) else 4
    return torch.randn(50, width, generator=torch.Generator().manual_seed(0))


def act(actor: Any, algo: Any) -> list[Tensor]:
    """Some actions and log-probabilities, with the same noise each time."""
    algo.generator.manual_seed(1)
    found = []
    for step in (0, 10**6):
        with torch.inference_mode():
            found += actor.act(obs_of(algo), Progress(step, 10**6, np.ones(50, np.bool_)))
    return [each for each in found if each is not None]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) > 0 and all(map(torch.equal, first, second))


@each_entry
def test_it_acts_as_the_algorithm_does(name: str) -> None:
    algo = make(name)
    attributes = list(vars(algo))
    assert same(act(DirectActor(algo), algo), act(algo, algo))
    assert [each for each in vars(algo) if each not in attributes] == []


@each_entry
def test_torchs_way_of_calling_modules_is_not_gone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algo = make(name)
    actor = DirectActor(algo)

    def call(self: nn.Module, *args: Any) -> Any:
        raise AssertionError(f"torch's call of {type(self).__name__}")

    monkeypatch.setattr(nn.Module, "__call__", call)
    act(actor, algo)
    with pytest.raises(AssertionError, match="torch's call"):
        act(algo, algo)


@each_entry
def test_it_follows_the_weights(name: str) -> None:
    algo = make(name)
    actor = DirectActor(algo)
    before = act(actor, algo)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in algo.parameters():
            parameter.add_(torch.randn(parameter.shape))
    assert same(act(actor, algo), act(algo, algo))
    assert not same(act(actor, algo), before)


def last_layer(algo: Any) -> nn.Linear:
    return next(each for each in reversed(list(algo.actor.modules())) if isinstance(each, nn.Linear))


def replace_layer(algo: Any) -> None:
    algo.actor.net[-1] = nn.Linear(8, 2)


def replace_parameter(algo: Any) -> None:
    last_layer(algo).weight = nn.Parameter(torch.randn(2, 8))


class Loud(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return -100 * super().forward(x)


def replace_class(algo: Any) -> None:
    last_layer(algo).__class__ = Loud


def replace_method(algo: Any) -> None:
    layer = last_layer(algo)
    vars(layer)["forward"] = lambda x: -100 * nn.Linear.forward(layer, x)


def replace_network(algo: Any) -> None:
    algo.actor = make("a2c").actor
    last_layer(algo).weight.data.normal_()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "forward hook": lambda algo: last_layer(algo).register_forward_hook(lambda module, args, out: out.flip(-1) * 100),
    "pre-hook": lambda algo: last_layer(algo).register_forward_pre_hook(lambda module, args: (-100 * args[0],)),
    "hook of the network": lambda algo: algo.actor.register_forward_hook(
        lambda module, args, out: type(out)(-100 * out.log_probs)
    ),
    "weight_norm": lambda algo: parametrizations.weight_norm(
        last_layer(algo)
    ).parametrizations.weight.original0.data.mul_(-1000),
    "mask": lambda algo: prune.custom_from_mask(last_layer(algo), "weight", torch.zeros(2, 8)),
    "another layer": replace_layer,
    "another parameter": replace_parameter,
    "another network": replace_network,
    "another class": replace_class,
    "another method": replace_method,
    "one more layer": lambda algo: algo.actor.net.append(Loud(2, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_changes_of_a_network_count_whenever_they_are_made(change: str, moment: str) -> None:
    algo = make("a2c")
    last_layer(algo).weight.data.mul_(500)  # so that actions differ from state to state
    before = act(algo, algo)
    actor = DirectActor(algo) if moment == "after" else None
    CHANGES[change](algo)
    actor = actor or DirectActor(algo)
    assert same(act(actor, algo), act(algo, algo))
    assert not same(act(actor, algo), before)


def test_hooks_of_all_modules_fire() -> None:
    algo, fired = make("a2c"), []
    actor = DirectActor(algo)
    with nn.modules.module.register_module_forward_hook(lambda module, args, out: fired.append(module)):
        act(actor, algo)
    assert last_layer(algo) in fired


class Counting(nn.Module):
    """An entry that keeps a count as it acts, and whose network is of a kind that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.dropout = nn.Linear(1, 1), nn.Sequential(nn.Dropout(), nn.Linear(1, 1))
        self.count = 0

    def act(self, obs: Tensor, progress: Progress | None) -> tuple[Tensor, None]:
        self.count += 1
        if self.count == 2:
            raise ValueError("in the middle")
        assert isinstance(self.net, nn.Linear)
        return self.dropout(self.net(obs)), None


def test_state_and_errors_are_the_algorithms_own() -> None:
    algo = Counting()
    actor = DirectActor(algo)  # type: ignore[arg-type]
    assert list(actor.stand_ins) == ["net"]
    modules, obs = (algo.net, algo.dropout), torch.ones(1, 1)
    actor.act(obs, Progress(0, 1))
    with pytest.raises(ValueError, match="in the middle"):
        actor.act(obs, Progress(0, 1))
    assert algo.count == 2
    assert (algo.net, algo.dropout) == modules
    assert not {"net", "dropout"} & vars(algo).keys()
    algo.eval()  # and dropout, which depends on the mode, hears of it
    assert torch.equal(actor.act(obs, Progress(0, 1))[0], algo.act(obs, None)[0])
