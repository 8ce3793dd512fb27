"""Optimisers against torch.optim, step by step, on a small network."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.parts.critics import polyak_
from zoo.parts.optim import Adam
from zoo.parts.rmsprop import RMSprop

STEPS = 20
PAIRS = {"adam": (Adam, torch.optim.Adam), "rmsprop": (RMSprop, torch.optim.RMSprop)}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}

each_optimizer = pytest.mark.parametrize("name", PAIRS)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def network(dtype: torch.dtype, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)


def loss_of(net: nn.Module, step: int) -> Tensor:
    """A new batch for each step, with gradients on both sides of a norm of one."""
    generator = torch.Generator().manual_seed(step)
    dtype = next(net.parameters()).dtype
    x = torch.randn(16, 3, generator=generator).to(dtype)
    y = 3 * torch.randn(16, 2, generator=generator).to(dtype)
    return (step % 4 + 0.1) * (net(x) - y).square().mean()


def learning_rate(step: int) -> float:
    return 1e-2 * (1 - step / STEPS)


def run_zoo(net: nn.Module, optimizer: Any, steps: range = range(STEPS)) -> list[Tensor]:
    return [optimizer.minimize(loss_of(net, step), learning_rate(step)) for step in steps]


def run_torch(net: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float | None) -> list[Tensor]:
    norms = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        optimizer.zero_grad()
        loss_of(net, step).backward()
        limit = float("inf") if max_norm is None else max_norm
        norms.append(nn.utils.clip_grad_norm_(net.parameters(), limit))
        optimizer.step()
    return norms


def flat(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


def distance(mine: nn.Module, theirs: nn.Module) -> float:
    return float((flat(mine) - flat(theirs)).abs().max())


@each_optimizer
@each_dtype
@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("eps", [1e-8, 1e-5, 0.1])
def test_steps_equal_torchs(name: str, dtype: torch.dtype, max_norm: float | None, eps: float) -> None:
    mine, theirs = network(dtype), network(dtype)
    ours, reference = PAIRS[name]
    norms = run_zoo(mine, ours(mine.parameters(), max_grad_norm=max_norm, eps=eps))
    expected = run_torch(theirs, reference(theirs.parameters(), eps=eps), max_norm)
    torch.testing.assert_close(torch.stack(norms), torch.stack(expected), rtol=1e-5, atol=0)
    assert distance(mine, theirs) < TOLERANCE[dtype]
    assert distance(mine, network(dtype)) > 1e-2


@pytest.mark.parametrize(
    ("name", "setting"),
    [("adam", {"betas": (0.5, 0.9)}), ("rmsprop", {"alpha": 0.9})],
)
def test_decay_rates_equal_torchs(name: str, setting: dict[str, Any]) -> None:
    mine, theirs = network(torch.float64), network(torch.float64)
    ours, reference = PAIRS[name]
    run_zoo(mine, ours(mine.parameters(), **setting))
    run_torch(theirs, reference(theirs.parameters(), **setting), None)
    assert distance(mine, theirs) < 1e-10


@each_optimizer
def test_clipping_matters_and_only_sometimes(name: str) -> None:
    free, clipped = network(torch.float64), network(torch.float64)
    ours, _ = PAIRS[name]
    run_zoo(free, ours(free.parameters()))
    norms = torch.stack(run_zoo(clipped, ours(clipped.parameters(), max_grad_norm=1.0)))
    assert (norms < 1).any()
    assert (norms > 1).any()
    assert distance(free, clipped) > 1e-4


class AdamEpsBeforeCorrection(Adam):
    """ε added to the uncorrected moment: the paper's ε̂, which torch does not use."""

    def direction(self, gradient: Tensor) -> Tensor:
        super().direction(gradient)
        rate = (1 - self.beta2_power).sqrt() / (1 - self.beta1_power)
        return self.exp_avg / (self.exp_avg_sq.sqrt() + self.eps) * rate


class RMSpropEpsInside(RMSprop):
    """ε under the square root, as TensorFlow has it."""

    def direction(self, gradient: Tensor) -> Tensor:
        super().direction(gradient)
        return gradient / (self.square_avg + self.eps).sqrt()


@pytest.mark.parametrize(("name", "wrong"), [("adam", AdamEpsBeforeCorrection), ("rmsprop", RMSpropEpsInside)])
def test_epsilon_in_the_wrong_place_would_show(name: str, wrong: Callable[..., Any]) -> None:
    mine, theirs = network(torch.float32), network(torch.float32)
    run_zoo(mine, wrong(mine.parameters(), eps=1e-5))
    run_torch(theirs, PAIRS[name][1](theirs.parameters(), eps=1e-5), None)
    assert distance(mine, theirs) > 10 * TOLERANCE[torch.float32]


@each_optimizer
def test_saved_state_continues_identically(name: str) -> None:
    ours, _ = PAIRS[name]
    whole = network(torch.float32)
    optimizer = ours(whole.parameters())
    run_zoo(whole, optimizer, range(STEPS // 2))
    saved = copy.deepcopy((whole.state_dict(), optimizer.state_dict()))
    run_zoo(whole, optimizer, range(STEPS // 2, STEPS))

    resumed, forgetful = network(torch.float32, seed=1), network(torch.float32, seed=1)
    restored = ours(resumed.parameters())
    resumed.load_state_dict(saved[0])
    restored.load_state_dict(saved[1])
    run_zoo(resumed, restored, range(STEPS // 2, STEPS))
    assert distance(resumed, whole) == 0

    forgetful.load_state_dict(saved[0])
    run_zoo(forgetful, ours(forgetful.parameters()), range(STEPS // 2, STEPS))
    assert distance(forgetful, whole) > 1e-3


@each_optimizer
def test_state_leaves_the_parameters_to_the_networks(name: str) -> None:
    net = network(torch.float32)
    optimizer = PAIRS[name][0](net.parameters())
    assert list(optimizer.parameters()) == []
    # One flat vector for each moment: 3·8 + 8 + 8·2 + 2 parameters.
    assert {tuple(moment.shape) for moment in optimizer.state_dict().values()} <= {(1,), (50,)}


@each_optimizer
def test_learning_rate_may_be_a_tensor(name: str) -> None:
    number, tensor = network(torch.float64), network(torch.float64)
    PAIRS[name][0](number.parameters()).minimize(loss_of(number, 1), 0.25)
    PAIRS[name][0](tensor.parameters()).minimize(loss_of(tensor, 1), torch.tensor(0.25))
    assert distance(number, tensor) == 0


@pytest.mark.parametrize("tau", [0.0, 0.005, 0.5, 1.0])
def test_polyak_mixes_every_parameter(tau: float) -> None:
    target, source = network(torch.float64, seed=0), network(torch.float64, seed=1)
    before, other = flat(target).clone(), flat(source).clone()
    polyak_(target, source, tau)
    torch.testing.assert_close(flat(target), (1 - tau) * before + tau * other, rtol=0, atol=1e-12)
    assert torch.equal(flat(source), other)


def test_polyak_with_tau_one_copies_exactly() -> None:
    target, source = network(torch.float32, seed=0), network(torch.float32, seed=1)
    polyak_(target, source, 1.0)
    assert torch.equal(flat(target), flat(source))
