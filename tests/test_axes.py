"""What an entry's cell promises, checked on the entry: strategy, data and target."""

import inspect
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from probes import ALGORITHMS, GAMMA, PROBES, SPACES, Array
from torch import Tensor

from zoo import registry
from zoo.config import field_info
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.protocol import Progress, Transition
from zoo.spec import Spec
from zoo.taxonomy import Cell

OBS = spaces.Box(-4, 4, (2,), np.float32)

# Small and quick where an entry has such a setting at all.
SETTINGS: dict[str, Any] = {
    "gamma": GAMMA,
    "hidden": (64, 64),
    "learning_rate": 0.003,
    "learning_starts": 0,
    "train_every": 8,
    "num_updates": 1,
    "batch_size": 128,
    "capacity": 10_000,
    "num_steps": 8,
    "target_every": 10,
    "tau": 0.1,
    "log_std_init": -0.7,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cell(name: str) -> Cell:
    return registry.load_class(name).cell


def entries(**axes: str) -> list[Any]:
    """The (name, form of the action) of every entry in the cells that agree with `axes`, in all forms it supports."""
    names = [name for name in ALGORITHMS if all(getattr(cell(name), axis) == value for axis, value in axes.items())]
    pairs = [(name, form) for name in names for form in forms(name)]
    return [pytest.param(*pair, id="-".join(pair)) for pair in pairs]


def forms(name: str) -> list[str]:
    return [form for form, space in SPACES.items() if isinstance(space, registry.load_class(name).spaces)]


def make(name: str, spec: Spec, seed: int = 0, **settings: Any) -> Any:
    cls = registry.load_class(name)
    known = field_info(cls.Config)
    config = cls.Config(**{key: value for key, value in {**SETTINGS, **settings}.items() if key in known})
    return registry.make(name, spec, config, SeedSequence(seed))


def uniform(spec: Spec, num_envs: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Uniformly random actions as algorithms see them, (B, ...), and their log-probabilities, (B,)."""
    if isinstance(spec.action_space, spaces.Box):
        action = rng.uniform(-1, 1, (num_envs, *spec.action_shape)).astype(np.float32)
        log_prob = -np.log(2) * action.shape[-1]
    else:
        sizes = np.array(spec.action_sizes)
        action = rng.integers(sizes, size=(num_envs, len(sizes))).reshape(num_envs, *spec.action_shape)
        log_prob = -np.log(sizes).sum()
    return action, np.full(num_envs, log_prob, np.float32)


def learn_from_chance(algo: Any, probe: str, num_updates: int) -> None:
    """Updates on the data of a policy that knows nothing; the algorithm itself never acts."""
    envs = Envs(vectorize(PROBES[probe].make, 8), SeedSequence(1))
    envs.reset()
    buffer, rng = algo.make_buffer(envs.spec, 8), np.random.default_rng(2)
    done, steps = 0, 0
    while done < num_updates:
        transition, alive, *_ = envs.step(*uniform(envs.spec, 8, rng))
        buffer.add(transition, alive)
        steps += 8
        for batch in buffer.batches():
            algo.update(batch, Progress(steps, 100_000))
            buffer.learned(batch)
            done += 1


def spec_of(probe: str) -> Spec:
    env = PROBES[probe].make()
    return Spec(env.observation_space, env.action_space)


# Data: may it come from another policy?

CHANCE = [(*param.values, f"obs_action-{param.values[1]}") for param in entries(data="off")]
CHANCE += [(name, form, "tracking-box") for name, form, _ in CHANCE if form == "box"]


@pytest.mark.parametrize(("name", "probe"), [pytest.param(n, p, id=f"{n}-{p}") for n, _, p in CHANCE])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_off_policy_entries_learn_from_chance(name: str, probe: str, seed: int) -> None:
    algo = make(name, spec_of(probe), seed)
    learn_from_chance(algo, probe, 600)  # after 300, one run in eight of TD3 still prefers the wrong action
    states, obs = PROBES[probe].states, PROBES[probe].observations()
    action = spec_of(probe).decode_action(algo.greedy(torch.from_numpy(obs)).detach().numpy())
    wrong = [(state, choice) for state, choice in zip(states, action, strict=True) if not right(probe, state, choice)]
    assert not wrong


def right(probe: str, state: float, action: Any) -> bool:
    is_best = PROBES[probe].is_best
    assert is_best is not None
    return is_best(state, action)


def sightings(name: str, form: str) -> tuple[list[float], list[list[float]]]:
    """The observations that were stored, and those of each batch that an update saw, in a short run.

    Episodes of five steps; now and then an environment has no step to add.
    """
    algo = make(name, Spec(OBS, SPACES[form]), num_steps=4, batch_size=8)
    buffer, rng = algo.make_buffer(Spec(OBS, SPACES[form]), 2), np.random.default_rng(0)
    stored, seen, zero = [], [], np.zeros(2, np.float32)
    for step in range(40):
        tags = (np.arange(2) + 2 * step) / 128  # exact in float32
        obs = np.stack([tags, zero], -1).astype(np.float32)
        with torch.no_grad():
            action, _ = algo.act(torch.from_numpy(obs), Progress(step, 40))
        ended, alive = np.full(2, step % 5 == 4), rng.random(2) < 0.9
        next_obs = obs + np.float32([2 / 128, 0])
        transition = Transition(obs, action.numpy(), zero + step, next_obs, ended, ended & False, zero)
        buffer.add(transition, alive)
        stored += tags[alive].tolist()
        for batch in buffer.batches():
            seen.append(batch.obs[..., 0].flatten().tolist())
            algo.update(batch, Progress(step, 40))
            if cell(name).data == "on":
                assert not list(buffer.batches())
    return stored, seen


@pytest.mark.parametrize(("name", "form"), entries(data="on"))
def test_on_policy_entries_see_each_step_at_most_once(name: str, form: str) -> None:
    stored, seen = sightings(name, form)
    assert len(seen) > 3
    times = Counter(tag for batch in seen for tag in batch)
    assert set(times.values()) == {1}
    assert times.keys() <= set(stored)
    # What a later rollout holds is newer than all of the one before.
    for earlier, later in pairwise(seen):
        assert max(earlier) < min(later)


@pytest.mark.parametrize(("name", "form"), entries(data="on"))
def test_on_policy_entries_learn_from_every_step_and_keep_none(name: str, form: str) -> None:
    spec = Spec(OBS, SPACES[form])
    buffer = make(name, spec, num_steps=4, batch_size=8).make_buffer(spec, 2)
    rng, rows, yielded = np.random.default_rng(0), 0, 0
    for _ in range(24):
        obs, zero = rng.normal(size=(2, 2)).astype(np.float32), np.zeros(2)
        action, log_prob = uniform(spec, 2, rng)
        buffer.add(Transition(obs, action, zero, obs, zero > 0, zero > 0, log_prob), zero == 0)
        rows += 2
        yielded += sum(batch.reward.numel() for batch in buffer.batches())
        assert sum(batch.reward.numel() for batch in buffer.batches()) == 0
        # Learned from as soon as a rollout is full, unless one is under way.
        assert buffer.pending == (yielded < rows)
    assert yielded == rows


@pytest.mark.parametrize(("name", "form"), entries())
def test_make_buffer_leaves_the_algorithm_as_it_was(name: str, form: str) -> None:
    spec = Spec(OBS, SPACES[form])
    algo = make(name, spec, num_steps=4, batch_size=8)
    before = vars(algo).copy()
    first, second = algo.make_buffer(spec, 2), algo.make_buffer(spec, 4)
    assert first is not second
    assert vars(algo) == before  # the same objects under the same names


def test_a_replay_would_be_noticed() -> None:
    _, seen = sightings("dqn", "discrete")
    assert max(Counter(tag for batch in seen for tag in batch).values()) > 1


# Target: what is estimated?


def observations(seed: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(6, 2)).astype(np.float32))


@pytest.mark.parametrize(("name", "form"), entries(target="q"))
@torch.no_grad()
def test_q_depends_on_the_action(name: str, form: str) -> None:
    spec, obs = Spec(OBS, SPACES[form]), observations()
    algo = make(name, spec)
    if cell(name).strategy == "value":
        q = algo.q(obs)
        assert q.shape == (6, *spec.action_sizes)
        assert (q.std(-1) > 0).all()
        return
    first, second = (torch.from_numpy(uniform(spec, 6, np.random.default_rng(seed))[0]) for seed in (0, 1))
    differs = (first != second).reshape(6, -1).any(-1)
    assert differs.any()
    q_first, q_second = (algo.critic(obs, action) for action in (first, second))
    assert q_first.shape[-1:] == (6,)
    assert torch.equal(q_first != q_second, differs.expand_as(q_first))


@pytest.mark.parametrize(("name", "form"), entries(target="v", strategy="policy"))
def test_v_cannot_depend_on_the_action(name: str, form: str) -> None:
    critic = make(name, Spec(OBS, SPACES[form])).critic
    assert list(inspect.signature(critic.forward).parameters) == ["obs"]
    assert critic(observations()).shape == (6,)


# Strategy: is the action read off a value?


@pytest.mark.parametrize(("name", "form"), entries(strategy="value", target="q"))
def test_value_based_entries_train_nothing_but_q(name: str, form: str) -> None:
    algo = make(name, spec_of(f"obs_action-{form}"))
    for num_updates in (0, 12):  # at the start, and once the target has moved
        learn_from_chance(algo, f"obs_action-{form}", num_updates)
        trained = {key for key, parameter in algo.named_parameters() if parameter.requires_grad}
        frozen = {key for key, parameter in algo.named_parameters() if not parameter.requires_grad}
        assert trained == {f"q.{key}" for key, _ in algo.q.named_parameters()}
        assert frozen == {f"target_q.{key}" for key, _ in algo.q.named_parameters()}
        storage = {parameter.data_ptr() for parameter in algo.parameters()}
        assert len(storage) == len(trained) + len(frozen)


@pytest.mark.parametrize(("name", "form"), entries(strategy="policy"))
def test_policies_move(name: str, form: str) -> None:
    algo = make(name, spec_of(f"obs_action-{form}"), batch_size=32)
    before = {key: parameter.clone() for key, parameter in algo.actor.named_parameters()}
    learn_from_chance(algo, f"obs_action-{form}", 4)  # some policies wait for their critics
    assert before
    still = [key for key, parameter in algo.actor.named_parameters() if torch.equal(parameter, before[key])]
    assert not still


@pytest.mark.parametrize(("name", "form"), entries(target="q") + entries(strategy="policy", target="v"))
@torch.no_grad()
def test_only_value_based_entries_read_the_action_off_their_critic(name: str, form: str) -> None:
    obs = observations()
    algo = make(name, Spec(OBS, SPACES[form]))
    reads = cell(name).strategy == "value"
    before = algo.greedy(obs)
    for parameter in (algo.q if reads else algo.critic).parameters():
        parameter.neg_()
    assert torch.equal(before, algo.greedy(obs)) != reads
