"""Environments so small that their values are known in closed form, and one whose every transition is known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from zoo import registry
from zoo.config import field_info
from zoo.settings import Run

Array = NDArray[Any]

ALGORITHMS = sorted(registry.load().algorithms)
GAMMA = 0.8


def known_settings(name: str, **wanted: Any) -> dict[str, Any]:
    """Those of the wanted settings that a run of algorithm `name` has at all."""
    fields = field_info(Run) | field_info(registry.load_class(name).Config)
    return {key: value for key, value in wanted.items() if key in fields}


class Move(NamedTuple):
    """What a probe does with an action."""

    reward: float
    state: float
    terminated: bool
    truncated: bool


class ProbeEnv(gym.Env[Any, Any]):
    """A state machine whose state is its observation: a whole number, or a vector of one float."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        starts: tuple[float, ...],
        move: Callable[[np.random.Generator, float, Any], Move],
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.starts, self.move = starts, move

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.starts[self.np_random.integers(len(self.starts))]
        return self.observe(self.state), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        reward, self.state, terminated, truncated = self.move(self.np_random, self.state, action)
        return self.observe(self.state), reward, terminated, truncated, {}

    def observe(self, state: float) -> Any:
        if isinstance(self.observation_space, spaces.Discrete):
            return np.int64(state)
        return np.array([state], np.float32)


@dataclass(frozen=True)
class Probe:
    """An environment, and what a perfect agent knows of it at each of `states`."""

    make: Callable[[], ProbeEnv]
    states: tuple[float, ...]
    values: tuple[float, ...] | None = None  # V of each state, whatever the policy does
    is_best: Callable[[float, Any], bool] | None = None  # whether (state, action) is the best, or near it for a Box

    @property
    def space(self) -> type:
        """The type of its action space."""
        return type(self.make().action_space)

    def observations(self) -> Array:
        """The states as a batch of observations."""
        env = self.make()
        return np.stack([env.observe(state) for state in self.states])


FLOATS = spaces.Box(-4, 4, (1,), np.float32)
SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(2, start=1),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(-1, 1, (1,), np.float32),
}


def best(space: spaces.Space[Any], choice: int) -> Any:
    """The action that means `choice`, 0 or 1, in a space of any form."""
    if isinstance(space, spaces.Discrete):
        return space.start + choice
    if isinstance(space, spaces.MultiDiscrete):
        return np.array([choice, 2 * choice])
    return np.array([choice - 0.5], np.float32)


def score(space: spaces.Space[Any], action: Any, choice: int) -> float:
    """At most 1, and that only for `best(space, choice)`."""
    distance = np.asarray(action) - best(space, choice)
    if isinstance(space, spaces.Box):
        return 1.0 - 4.0 * float(np.square(distance).sum())
    return float(np.mean(np.where(distance == 0, 1.0, -1.0)))


def chosen(space: spaces.Space[Any], action: Any, chance: float = 0.5) -> int:
    """Which of the two choices an action means; a Box action means 1 the more often the larger it is.

    So its values are linear in the action, and a deterministic policy has a slope to climb.
    """
    if isinstance(space, spaces.Discrete):
        return int(action - space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return int(action[0])
    return int(chance < (1.0 + float(action[0])) / 2)


def constant_move(rng: np.random.Generator, state: float, action: Any) -> Move:
    return Move(1.0, state, True, False)


def obs_move(rng: np.random.Generator, state: float, action: Any) -> Move:
    return Move(state, state, True, False)


def delayed_move(rng: np.random.Generator, state: float, action: Any) -> Move:
    return Move(state, 1, state == 1, False)


def action_move(space: spaces.Space[Any], rng: np.random.Generator, state: float, action: Any) -> Move:
    return Move(score(space, action, 1), state, True, False)


def obs_action_move(space: spaces.Space[Any], rng: np.random.Generator, state: float, action: Any) -> Move:
    return Move(score(space, action, int(state > 0)), state, True, False)


def tracking_move(rng: np.random.Generator, state: float, action: Any) -> Move:
    return Move(-float(np.square(action[0] - state)), state, True, False)


def endless_move(rng: np.random.Generator, state: float, action: Any) -> Move:
    return Move(1.0, state, False, True)


def both_flags_move(rng: np.random.Generator, state: float, action: Any) -> Move:
    # The last observation is the first one, which has a value: bootstrapping from it would show.
    return Move(1.0, 1 - state, state == 1, state == 1)


def final_obs_move(rng: np.random.Generator, state: float, action: Any) -> Move:
    # From 0 one step to 1, cut off there; from 1 one step to the end.
    return Move(1.0, 1, False, True) if state == 0 else Move(-1.0, 0, True, False)


def wait_move(space: spaces.Space[Any], rng: np.random.Generator, state: float, action: Any) -> Move:
    # Half a reward at once, or a whole one after a step without any.
    if state == 1:
        return Move(1.0, 1, True, False)
    return Move(0.0, 1, False, False) if chosen(space, action, rng.random()) else Move(0.5, 0, True, False)


def stay_move(
    space: spaces.Space[Any], terminated: bool, leave: float, rng: np.random.Generator, state: float, action: Any
) -> Move:
    # Leaving earns `leave` at once. Staying earns less and is always cut off, which costs nothing of the future
    # unless it is a termination as well.
    stays = chosen(space, action, rng.random())
    return Move(1.0, state, terminated, True) if stays else Move(leave, state, True, False)


def make_probes() -> dict[str, Probe]:
    """Every probe, named `probe-form of the action`."""
    probes: dict[str, Probe] = {}
    for form, space in SPACES.items():
        one, two = (partial(ProbeEnv, spaces.Discrete(n), space) for n in (1, 2))
        signs = partial(ProbeEnv, FLOATS, space, (-1.0, 1.0))
        found = {
            "action": Probe(
                partial(one, (0,), partial(action_move, space)),
                (0,),
                is_best=lambda state, action, space=space: score(space, action, 1) > 0.8,
            ),
            "obs_action": Probe(
                partial(signs, partial(obs_action_move, space)),
                (-1.0, 1.0),
                is_best=lambda state, action, space=space: score(space, action, int(state > 0)) > 0.8,
            ),
        }
        if form != "multidiscrete":  # two forms are enough where the subject is not the action
            found |= {
                "constant": Probe(partial(one, (0,), constant_move), (0,), (1.0,)),
                "obs": Probe(partial(signs, obs_move), (-1.0, 1.0), (-1.0, 1.0)),
                "delayed": Probe(partial(two, (0,), delayed_move), (0, 1), (GAMMA, 1.0)),
                "endless": Probe(partial(one, (0,), endless_move), (0,), (1 / (1 - GAMMA),)),
                "both_flags": Probe(partial(two, (0,), both_flags_move), (0, 1), (1 + GAMMA, 1.0)),
                "final_obs": Probe(partial(two, (0, 1), final_obs_move), (0, 1), (1 - GAMMA, -1.0)),
                "wait": Probe(
                    partial(two, (0,), partial(wait_move, space)),
                    (0,),
                    is_best=lambda state, action, space=space: chosen(space, action) == 1,
                ),
                "stay": Probe(
                    partial(one, (0,), partial(stay_move, space, False, 1.3)),
                    (0,),
                    is_best=lambda state, action, space=space: chosen(space, action) == 1,
                ),
                "leave": Probe(
                    partial(one, (0,), partial(stay_move, space, True, 2.0)),
                    (0,),
                    is_best=lambda state, action, space=space: chosen(space, action) == 0,
                ),
            }
        probes |= {f"{name}-{form}": probe for name, probe in found.items()}
    uneven = spaces.Box(-3, 1, (1,), np.float32)
    targets = (-2.0, -1.0, 0.0)
    probes["tracking-box"] = Probe(
        partial(ProbeEnv, FLOATS, uneven, targets, tracking_move),
        targets,
        is_best=lambda state, action: abs(float(action[0]) - state) < 0.4,
    )
    return probes


PROBES = make_probes()


class TruncationIsTermination(gym.Wrapper[Any, Any, Any, Any]):
    """The mistake that the truncation probes exist for."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated or truncated, False, info


class Ending(NamedTuple):
    """How long an episode of ScriptedEnv is, and how it ends."""

    length: int
    terminated: bool
    truncated: bool


SCRIPT = (
    Ending(1, True, False),
    Ending(3, False, True),
    Ending(1, False, True),
    Ending(1, True, True),
    Ending(4, True, True),
    Ending(2, True, False),
    Ending(7, False, True),
)


class ScriptedEnv(gym.Env[Any, Any]):
    """Episodes end as a table says, or (`script` None) as their seed does; no two steps look alike.

    The observation is (copy, episode // 2¹⁶, episode % 2¹⁶, time): the episode's number, or its seed. Rewards are
    multiples of 1/8, which float32 holds exactly.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(
        self, copy: int = 0, script: tuple[Ending, ...] | None = SCRIPT, seeds: list[Any] | None = None
    ) -> None:
        self.copy, self.script = copy, script
        self.seeds = [] if seeds is None else seeds  # those that `reset` was given
        self.numbers = count(copy)  # copies start at different places of the table

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.time = 0
        if self.script is None:
            assert seed is not None, "an episode that its seed decides needs one"
            self.episode = seed
            self.ending = Ending(1 + seed % 4, seed // 4 % 3 != 0, seed // 4 % 3 != 1)
        else:
            self.episode = next(self.numbers)
            self.ending = self.script[self.episode % len(self.script)]
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        assert self.time < self.ending.length, "a step after the end of an episode"
        reward = (7 * (self.episode % 1000) + 3 * self.time + self.copy) / 8 - float(action)
        self.time += 1
        ends = self.time == self.ending.length
        return self.observe(), reward, ends and self.ending.terminated, ends and self.ending.truncated, {}

    def observe(self) -> Array:
        return np.array([self.copy, self.episode >> 16, self.episode & 0xFFFF, self.time], np.float32)


def scripted_action(obs: Array) -> Array:
    """A deterministic policy for ScriptedEnv, any number of rows."""
    return obs.sum(-1).astype(np.int64) % 3


def transitions(env: gym.Env[Any, Any], seeds: Iterator[int | None]) -> Iterator[tuple[Any, ...]]:
    """What really happens in one environment, episode after episode: rows of `row`'s form."""
    for seed in seeds:
        obs, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            action = scripted_action(obs)
            next_obs, reward, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
            yield row(obs, action, reward, next_obs, terminated, truncated)
            obs = next_obs


def row(obs: Any, action: Any, reward: Any, next_obs: Any, terminated: Any, truncated: Any) -> tuple[Any, ...]:
    """One transition as plain, hashable data."""
    return (
        tuple(np.asarray(obs).tolist()),
        int(action),
        float(reward),
        tuple(np.asarray(next_obs).tolist()),
        bool(terminated),
        bool(truncated),
    )
