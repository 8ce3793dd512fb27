"""Composite observations arrive flat, and only allowed actions are ever taken."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from probes import ALGORITHMS, known_settings
from worlds import Observing

import zoo
from zoo import registry
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.envs.task import Task
from zoo.errors import EnvError, UserError
from zoo.parts.critics import Q
from zoo.parts.discrete import EpsilonGreedy
from zoo.parts.networks import Policy
from zoo.spaces import Flat
from zoo.spec import Spec

NESTED = spaces.Dict(
    {
        "speed": spaces.Box(-1, 1, (2,), np.float32),
        "gear": spaces.Discrete(3, start=1),
        "lights": spaces.MultiBinary(2),
        "where": spaces.Tuple([spaces.MultiDiscrete([2, 2]), spaces.Box(0, 9, (1,), np.int64)]),
    }
)
SEEN = {
    "speed": np.array([0.5, -1], np.float32),
    "gear": 2,
    "lights": [1, 0],
    "where": (np.array([1, 0]), np.array([7])),
}


@pytest.mark.parametrize("vec", ["sync", "async"])
def test_a_dict_arrives_as_gymnasium_flattens_it(vec: str) -> None:
    envs = Envs(vectorize(partial(Observing, NESTED, SEEN, SEEN), 2, vec), SeedSequence(0))
    first = envs.reset()
    # In the order of gymnasium's Dict: gear and where one-hot, the numbers as they are.
    by_hand = {"speed": [0.5, -1], "gear": [0, 1, 0], "lights": [1, 0], "where": [0, 1, 1, 0, 7]}
    expected = [number for key in NESTED.spaces for number in by_hand[key]]
    assert first.dtype == np.float32
    assert first.tolist() == [expected] * 2
    assert envs.step(np.zeros(2, np.int64)).transition.next_obs.tolist() == [expected] * 2
    envs.close()


@pytest.mark.parametrize(
    ("space", "seen", "expected"),
    [
        (spaces.MultiBinary(3), np.array([1, 0, 1]), [1, 0, 1]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
        (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), (1, 0), [0, 1, 1, 0]),
    ],
)
def test_so_do_other_spaces_that_are_no_vector(space: spaces.Space[Any], seen: Any, expected: list[int]) -> None:
    envs = Envs(vectorize(partial(Observing, space, seen, seen), 1), SeedSequence(0))
    assert envs.reset().tolist() == [expected]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": np.zeros(3, np.float32)}, r"observation\['speed'\] has shape \(3,\); its space says \(2,\)"),
        ({"gear": 4}, r"observation\['gear'\] is 4, which is not in Discrete\(3, start=1\)"),
        ({"gear": 0}, r"observation\['gear'\] is 0, which is not in"),  # an index of -1 would be the last one
        ({"where": (np.array([1, 0]), np.array([7.5]))}, r"\['where'\]\[1\] is of float64; its space is of int64"),
        ({"where": (np.array([1, 0]),)}, r"observation\['where'\] is no tuple of 2"),
        ({"speed": np.array([np.nan, 0], np.float32)}, "NaN or infinite"),
    ],
)
def test_a_part_that_its_space_does_not_hold_is_named(change: dict[str, Any], message: str) -> None:
    envs = Envs(vectorize(partial(Observing, NESTED, SEEN, SEEN | change), 1), SeedSequence(0))
    envs.reset()
    with pytest.raises(EnvError, match=message):
        envs.step(np.zeros(1, np.int64))


def test_a_missing_part_is_named() -> None:
    seen = {key: value for key, value in SEEN.items() if key != "gear"}
    envs = Envs(vectorize(partial(Observing, NESTED, seen, seen), 1), SeedSequence(0))
    with pytest.raises(EnvError, match="has no 'gear'; expected"):
        envs.reset()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            spaces.Dict({"camera": spaces.Box(0, 255, (64, 64, 3), np.uint8)}),
            "the image .* would become one flat vector",
        ),
        (spaces.Dict({"words": spaces.Text(9)}), "has no fixed size"),
        (spaces.Dict({"parts": spaces.Sequence(spaces.Discrete(2))}), "has no fixed size"),
        (spaces.Dict({}), "is empty"),
    ],
)
def test_what_is_no_vector_is_refused_in_one_line(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        vectorize(partial(Observing, space, None, None), 1)
    assert "\n" not in str(raised.value)


def test_an_agent_for_a_dict_predicts_from_dicts_and_survives_its_file(tmp_path: Any) -> None:
    make = partial(Observing, NESTED, SEEN, SEEN)
    agent = zoo.train(
        "ppo", lambda: gym.wrappers.TimeLimit(make(), 8), seed=0, total_steps=64, num_steps=64, eval_every=0
    )
    agent.save(tmp_path / "agent")
    loaded = zoo.load(tmp_path / "agent")
    assert loaded.spec.observation_space == agent.spec.observation_space == Flat(NESTED)
    action, _ = loaded.predict(SEEN)
    assert action == agent.predict(SEEN)[0]
    batch = {
        "speed": np.stack([SEEN["speed"]] * 2),
        "gear": np.array([2, 2]),
        "lights": np.array([[1, 0]] * 2),
        "where": (np.array([[1, 0]] * 2), np.array([[7]] * 2)),
    }
    assert loaded.predict(batch)[0].tolist() == [action] * 2
    with pytest.raises(UserError, match="has no 'gear'"):
        loaded.predict({"speed": SEEN["speed"]})
    with pytest.raises(UserError, match=r"is not in Discrete\(3, start=1\)"):
        loaded.predict(SEEN | {"gear": 0})
    assert zoo.evaluate(loaded, lambda: gym.wrappers.TimeLimit(make(), 8), episodes=2).lengths.tolist() == [8, 8]


# Masks


class Corridor(gym.Env[Any, Any]):
    """States 0 to 4; each allows another pair of the four actions, and fails on any other action.

    The one that moves on is the larger of the two in even states and the smaller in odd ones; the other ends the
    episode. With `wide`, the action has two dimensions, of which the second is free.
    """

    ALLOWED = ((0, 1), (1, 2), (2, 3), (0, 3), (1, 3))

    def __init__(self, *, wide: bool = False, reports: bool = True) -> None:
        self.wide, self.reports = wide, reports
        self.observation_space = spaces.Box(0, 1, (5,), np.float32)
        self.action_space = spaces.MultiDiscrete([4, 2]) if wide else spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = 0
        return self._seen()

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        mask = np.isin(np.arange(4), self.ALLOWED[self.state]).astype(np.int8)
        masks = (mask, np.ones(2, np.int8)) if self.wide else mask
        return np.eye(5, dtype=np.float32)[self.state], {"action_mask": masks} if self.reports else {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        choice = int(action[0] if self.wide else action)
        assert choice in self.ALLOWED[self.state], f"action {choice} in state {self.state}"
        moves = choice == self.ALLOWED[self.state][1 - self.state % 2]
        ended = not moves or self.state == 4
        self.state += not ended
        obs, info = self._seen()
        return obs, float(moves), ended, False, info


CHOOSING = [name for name in ALGORITHMS if spaces.Discrete in registry.load_class(name).spaces]
WIDE = [name for name in CHOOSING if spaces.MultiDiscrete in registry.load_class(name).spaces]
SMALL = {
    "total_steps": 6000,
    "num_steps": 8,
    "num_envs": 4,
    "learning_starts": 200,
    "train_every": 4,
    "batch_size": 32,
    "learning_rate": 0.003,
    "critic_learning_rate": 0.01,
    "exploration_fraction": 0.5,
    "hidden": (32,),
    "gamma": 0.9,
    "compile": "off",
    "eval_every": 0,
    "eval_episodes": 0,
    "seed": 0,
}


def learn(name: str, make: Callable[[], gym.Env[Any, Any]], **settings: Any) -> zoo.Agent:
    return zoo.train(name, make, action_masks=True, **known_settings(name, **{**SMALL, **settings}))


@pytest.mark.parametrize("name", CHOOSING)
def test_an_environment_that_fails_on_masked_actions_is_learned(name: str) -> None:
    agent = learn(name, Corridor)
    assert zoo.evaluate(agent, Corridor, episodes=5).mean == 5.0
    # Exploration keeps to the masks, too: otherwise this fails.
    zoo.evaluate(agent, Corridor, episodes=100, deterministic=False)


@pytest.mark.parametrize("name", WIDE)
def test_so_is_one_whose_actions_have_two_dimensions(name: str) -> None:
    agent = learn(name, partial(Corridor, wide=True), total_steps=3000)
    zoo.evaluate(agent, partial(Corridor, wide=True), episodes=20, deterministic=False)


@pytest.mark.parametrize("name", CHOOSING)
def test_control_without_masks_it_fails(name: str) -> None:
    with pytest.raises(EnvError, match=r"action \d in state"):
        zoo.train(name, Corridor, **known_settings(name, **SMALL))


@pytest.mark.parametrize(
    "settings", [{"engine": "processes", "actors": 2, "num_envs": 2}, {"vec": "async"}, {"normalize_obs": True}]
)
def test_masks_reach_actors_and_statistics(settings: dict[str, Any]) -> None:
    agent = learn("ppo", Corridor, total_steps=600, **settings)
    zoo.evaluate(agent, Corridor, episodes=20, deterministic=False)


# Four actions of which the first and the last are allowed, and how a network sees that.
ALLOWED = (0, 3)
OBS = torch.tensor([[0.1, -0.3, 1, 0, 0, 1]])
SPEC = Spec(Flat(spaces.Box(-1, 1, (2,)), 4), spaces.Discrete(4))


def test_a_masked_policy_is_the_softmax_over_what_is_allowed() -> None:
    torch.manual_seed(0)
    policy = Policy(SPEC, (8,), "tanh")
    policy.net[-1].weight.data.normal_()
    logits = policy.net(OBS)[0, list(ALLOWED)]
    chances = (logits.exp() / logits.exp().sum()).detach()
    masked = policy(OBS)
    for action in range(4):
        expected = chances[ALLOWED.index(action)] if action in ALLOWED else 0.0
        assert masked.log_prob(torch.tensor([action])).exp().item() == pytest.approx(float(expected), abs=1e-6)
    assert masked.entropy().item() == pytest.approx(-float((chances * chances.log()).sum()), abs=1e-6)
    masked.entropy().sum().backward()
    assert all(parameter.grad is None or bool(parameter.grad.isfinite().all()) for parameter in policy.parameters())


@torch.no_grad()
def test_epsilon_greedy_explores_what_is_allowed_alone() -> None:
    torch.manual_seed(0)
    q = Q(SPEC, (8,), "relu")
    values = q.body(OBS) @ q.advantage.weight.T + q.advantage.bias
    found = q(OBS.expand(40_000, -1))
    policy = EpsilonGreedy(found, 0.4, masked=True)
    drawn = policy.sample(policy.noise(40_000, generator=torch.Generator().manual_seed(1)))
    best = max(ALLOWED, key=lambda action: float(values[0, action]))
    counts = [int((drawn == action).sum()) / 40_000 for action in range(4)]
    expected = [0.2 * (action in ALLOWED) + 0.6 * (action == best) for action in range(4)]
    assert counts == pytest.approx(expected, abs=0.01)
    mean = sum(expected[action] * float(values[0, action]) for action in ALLOWED)
    assert policy.mean(found)[0].item() == pytest.approx(mean, abs=1e-5)
    assert policy.log_prob(torch.full((40_000,), best))[0].exp().item() == pytest.approx(expected[best], abs=1e-6)
    # Control: without the masks, the same values explore all four.
    plain = EpsilonGreedy(found, 0.4).sample(policy.noise(40_000, generator=torch.Generator().manual_seed(1)))
    assert {0, 1, 2, 3} == set(plain.tolist())


@torch.no_grad()
@pytest.mark.parametrize("worth", [-2e8, -1e15])
def test_the_worst_values_are_still_better_than_what_is_not_allowed(worth: float) -> None:
    torch.manual_seed(0)
    q = Q(SPEC, (8,), "relu")
    q.advantage.bias.fill_(worth)
    found = q(OBS.expand(1000, -1))
    assert int(found[0].argmax()) in ALLOWED
    policy = EpsilonGreedy(found, 0.5, masked=True)
    drawn = policy.sample(policy.noise(1000, generator=torch.Generator().manual_seed(1)))
    assert set(drawn.tolist()) == set(ALLOWED)
    assert policy.mean(found)[0].item() == pytest.approx(worth, rel=1e-3)


@torch.no_grad()
def test_a_dueling_mean_is_over_the_allowed_actions_alone() -> None:
    torch.manual_seed(0)
    q = Q(SPEC, (8,), "relu", dueling=True)
    assert q.value is not None
    features = q.body(OBS)
    value, advantage = q.value(features)[0], q.advantage(features)[0, list(ALLOWED)]
    expected = value + advantage - advantage.sum() / 2
    assert q(OBS)[0, list(ALLOWED)].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    # What a forbidden action is worth changes nothing, and an end, where all are forbidden, is no division by 0.
    before = q(OBS)[0, list(ALLOWED)].tolist()
    q.advantage.bias[1] += 100
    assert q(OBS)[0, list(ALLOWED)].tolist() == before
    assert q(torch.zeros(1, 6)).isfinite().all()


@torch.no_grad()
def test_where_an_episode_has_ended_nothing_is_worth_anything_but_nothing_is_infinite() -> None:
    ended = torch.tensor([[0.1, -0.3, 0, 0, 0, 0]])
    q = Q(SPEC, (8,), "relu")
    policy = EpsilonGreedy(q(ended), 0.4, masked=True)
    action = policy.sample(policy.noise(1, generator=torch.Generator().manual_seed(1)))
    assert 0 <= int(action) < 4
    assert 0.0 * float(policy.mean(q(ended))) == 0.0


def test_predict_takes_the_mask_of_an_agent_that_was_trained_with_masks(tmp_path: Any) -> None:
    learn("dqn", Corridor, total_steps=400).save(tmp_path / "agent")
    agent = zoo.load(tmp_path / "agent")
    obs = np.eye(5, dtype=np.float32)[0]
    for allowed in range(4):
        action, _ = agent.predict(obs, action_masks=np.eye(4, dtype=np.int8)[allowed])
        assert action == allowed
    actions, _ = agent.predict(np.stack([obs] * 4), action_masks=np.eye(4))
    assert actions.tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="action_mask is none; expected 4 values of 0 and 1"):
        agent.predict(obs)
    plain = zoo.train("dqn", "CartPole-v1", seed=0, total_steps=10, learning_starts=0, train_every=1, eval_every=0)
    with pytest.raises(UserError, match="action_masks are for agents that were trained with --action-masks"):
        plain.predict(np.zeros(4), action_masks=[1, 1])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ((np.ones(2), np.ones(4)), r"expected 4 \+ 2 values of 0 and 1"),  # as many in all, in the wrong order
        ((np.ones(4),), r"expected 4 \+ 2 values"),
        ([[1, 1, 1, 1], [1, 1]], r"expected 4 \+ 2 values"),
        ([1, 1, 1, 1, 1, 2], r"expected 4 \+ 2 values"),
        (["a"] * 6, r"expected 4 \+ 2 values"),
        (5, r"expected 4 \+ 2 values"),
        ([0, 0, 0, 0, 1, 1], r"action_mask \[0 0 0 0 1 1\] allows no action"),
        ((np.ones(4), np.zeros(2)), "allows no action"),
    ],
)
def test_a_mask_of_another_form_is_refused(mask: Any, message: str) -> None:
    agent = learn("ppo", partial(Corridor, wide=True), total_steps=32)
    obs = np.eye(5, dtype=np.float32)
    with pytest.raises(UserError, match=message) as raised:
        agent.predict(obs[0], action_masks=mask)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=message):
        agent.predict(obs[:2], action_masks=[[1] * 6, mask])
    with pytest.raises(EnvError, match=message):
        zoo.evaluate(agent, lambda: Masking(mask), episodes=1)
    for good in ((np.ones(4), [0, 1]), [1, 1, 1, 1, 0, 1]):
        assert agent.predict(obs[0], action_masks=good)[0][1] == 1
    with pytest.raises(UserError, match="1 action_masks for 2 observations; expected one for each"):
        agent.predict(obs[:2], action_masks=[[1] * 6])


class Masking(Corridor):
    """Reports a mask of the wrong form."""

    def __init__(self, mask: Any) -> None:
        super().__init__(wide=True)
        self.mask = mask

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        return super()._seen()[0], {"action_mask": self.mask}


def test_masks_behind_stacks_are_evaluated_by_an_id_alone() -> None:
    agent = learn("ppo", Corridor, total_steps=32, frame_stack=3)
    assert zoo.evaluate(agent, Corridor, episodes=2).returns.shape == (2,)


def test_environments_without_masks_and_actions_without_choices_are_refused() -> None:
    with pytest.raises(EnvError, match="action_mask is none; expected 4 values"):
        learn("ppo", partial(Corridor, reports=False))
    with pytest.raises(UserError, match="action masks are for choices; this environment's actions are Box"):
        zoo.train("ppo", "Pendulum-v1", action_masks=True)


def test_taxi_sends_masks_and_does_not_change_unless_asked() -> None:
    plain = Envs(vectorize("Taxi-v4", 1), SeedSequence(0))
    assert plain.spec.num_masks == 0
    assert plain.reset().shape == (1,)
    masked = Envs(vectorize(Task("Taxi-v4", action_masks=True), 1), SeedSequence(0))
    obs = masked.reset()
    assert (masked.spec.num_masks, obs.shape) == (6, (1, 506))
    _, info = gym.make("Taxi-v4").reset(seed=int(masked.vector.envs[0].seed))
    assert obs[0, -6:].tolist() == info["action_mask"].tolist()
    assert obs[0, :500].argmax() == plain.obs[0]


def test_a_state_that_allows_nothing_is_refused() -> None:
    class Stuck(Corridor):
        def _seen(self) -> tuple[Any, dict[str, Any]]:
            return np.zeros(5, np.float32), {"action_mask": np.zeros(4)}

    with pytest.raises(EnvError, match="allows no action"):
        learn("ppo", Stuck)
