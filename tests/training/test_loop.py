"""The loop: the same seed gives the same run, whole rollouts, metrics that are means, copies that lag."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import SeedSequence
from probes import ALGORITHMS, ScriptedEnv
from remotes import SMALL
from small import same, small, trained

import zoo
from zoo import registry
from zoo.buffers import ReplayBuffer, RolloutBuffer
from zoo.runs.assemble import _inline
from zoo.runs.prepare import prepare
from zoo.training.weights import load_weights, weights_of


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_gives_the_same_run_and_another_does_not(name: str) -> None:
    weights, rows = trained(name)
    again, rows_again = trained(name)
    assert same(weights, again)
    assert rows == rows_again
    assert not same(weights, trained(name, seed=1)[0])


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_the_buffer_hears_of_each_update_before_the_next_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    cls, buffer = registry.load_class(name), {"dqn": ReplayBuffer, "ppo": RolloutBuffer}[name]

    def spy(owner: type, method: str) -> None:
        original = getattr(owner, method)

        def call(self: Any, batch: Any, *rest: Any) -> Any:
            calls.append((method, id(batch)))
            return original(self, batch, *rest)

        monkeypatch.setattr(owner, method, call)

    spy(cls, "update")
    spy(buffer, "learned")
    trained(name)
    assert len(calls) > 4
    assert [method for method, _ in calls] == ["update", "learned"] * (len(calls) // 2)
    assert [batch for _, batch in calls[::2]] == [batch for _, batch in calls[1::2]]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_metrics_are_means_over_updates_whose_tensors_are_let_go(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = registry.load_class(name)
    update, values, alive = algorithm.update, {}, []

    def watched(*args: Any) -> dict[str, torch.Tensor]:
        assert not [key for key, tensor in alive if tensor() is not None]
        metrics = update(*args)
        alive[:] = [(key, weakref.ref(value)) for key, value in metrics.items()]
        for key, value in metrics.items():
            values.setdefault(key, []).append(value.item())
        return metrics

    monkeypatch.setattr(algorithm, "update", watched)
    rows = trained(name, log_every=10_000)[1]
    assert len(values["grad_norm"]) > 1
    assert {key: rows[-1][key] for key in values} == pytest.approx({key: np.mean(each) for key, each in values.items()})


def test_training_leaves_the_global_random_streams_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    trained("ppo")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize(
    ("total_steps", "num_steps", "steps"),
    [(1, 10, 20), (120, 10, 120), (121, 10, 140), (7, 1, 8), (30, 60, 120)],
    ids=["less than a rollout", "whole rollouts", "one more step", "rollouts of one step", "longer than episodes"],
)
def test_a_run_ends_on_a_whole_rollout(total_steps: int, num_steps: int, steps: int) -> None:
    _, rows = trained("a2c", total_steps=total_steps, num_steps=num_steps)
    assert rows[-1]["step"] == steps
    assert "policy_loss" in rows[-1]


def test_episodes_of_one_step_train() -> None:
    agent = zoo.train("a2c", ScriptedEnv, **small("a2c"))
    assert all(torch.isfinite(value).all() for value in agent.state_dict().values())


def test_a_lagging_copy_acts_with_old_weights_until_it_is_refreshed() -> None:
    prepared = prepare("impala", "CartPole-v1", SMALL | {"lag": 3}, source="argument")
    agent, source, _ = _inline(prepared, "CartPole-v1", SeedSequence(0), SeedSequence(1), None)
    algo = agent.algo
    before = weights_of(algo)
    torch.testing.assert_close(weights_of(source.actor), before, rtol=0, atol=0)
    load_weights(algo, before + 1)
    for _ in range(2):
        source.learned()
        torch.testing.assert_close(weights_of(source.actor), before, rtol=0, atol=0)
    source.learned()
    torch.testing.assert_close(weights_of(source.actor), before + 1, rtol=0, atol=0)
    source.close()
