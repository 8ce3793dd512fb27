"""Environments as the loop sees them: numbered episodes, true successors, one seed for each episode.

`Envs` owns the resets. With autoreset DISABLED (every environment that this package makes itself) it resets only
what ended, with the next episode's own seed, so an episode is replayable from its seed and its actions. A vector
environment that insists on NEXT_STEP or SAME_STEP yields the same transitions through the same method; its
episodes are seeded once, by its first reset, and are not replayable one by one.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.random import SeedSequence

from zoo.buffers import Transition
from zoo.errors import UserError, nearest
from zoo.normalize import ObsNormalizer, RewardNormalizer
from zoo.spec import Array, Spec

EnvLike = str | gym.Env[Any, Any] | Callable[[], gym.Env[Any, Any]]

EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "ale_py": "atari", "shimmy": "atari"}


class Episode(NamedTuple):
    """One finished episode; `number` counts the episodes started before it."""

    number: int
    episode_return: float  # undiscounted, of the environment's own rewards
    length: int


class Outcome(NamedTuple):
    """What one step of a vector environment really did, whatever its autoreset mode."""

    next_obs: Array  # the true successors
    reward: Array
    terminated: Array
    truncated: Array
    alive: Array  # False where the step only reset an ended environment
    obs: Array  # what to act on next


class Step(NamedTuple):
    """What `Envs.step` returns."""

    transition: Transition  # (B, ...)
    alive: Array  # which rows are real steps, (B,)
    episodes: list[Episode]  # those that ended


class Envs:
    """`num_envs` environments stepped together; numpy in, numpy out. `obs` is what to act on next, (B, ...)."""

    obs: Array

    def __init__(
        self,
        vector: VectorEnv[Any, Any, Any],
        seeds: SeedSequence,
        *,
        scale_actions: bool = True,
        obs_normalizer: ObsNormalizer | None = None,
        reward_normalizer: RewardNormalizer | None = None,
    ) -> None:
        self.vector: Any = vector  # gymnasium declares one seed for all, and takes one for each
        self.seeds = seeds
        self.spec = Spec(vector.single_observation_space, vector.single_action_space, scale_actions=scale_actions)
        self.num_envs = vector.num_envs
        self.mode = AutoresetMode(vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._advance = {
            AutoresetMode.DISABLED: self._advance_disabled,
            AutoresetMode.NEXT_STEP: self._advance_next_step,
            AutoresetMode.SAME_STEP: self._advance_same_step,
        }[self.mode]
        self.obs_normalizer, self.reward_normalizer = obs_normalizer, reward_normalizer
        self.num_episodes = 0  # started so far
        self.numbers = np.zeros(self.num_envs, np.int64)  # of the running episodes
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, np.int64)
        self._all = np.ones(self.num_envs, np.bool_)
        self._alive = self._all

    def reset(self) -> Array:
        """Start an episode in every environment; returns the first observations, (B, ...)."""
        seeds = self._begin(self._all)
        # A vector environment with resets of its own takes one seed, once.
        obs, _ = self.vector.reset(seed=seeds if self.mode is AutoresetMode.DISABLED else seeds[0])
        self.returns[:], self.lengths[:], self._alive = 0, 0, self._all
        self.obs = self._observe(obs)
        return self.obs

    def step(self, action: Array, log_prob: Array) -> Step:
        """One step of every environment."""
        obs, numbers = self.obs, self.numbers.copy()
        out = self._advance(self.spec.decode_action(action))
        self.returns += out.reward * out.alive
        self.lengths += out.alive
        ended = np.flatnonzero((out.terminated | out.truncated) & out.alive)
        episodes = [Episode(int(numbers[i]), float(self.returns[i]), int(self.lengths[i])) for i in ended]
        self.returns[ended], self.lengths[ended] = 0, 0

        reward = out.reward
        if self.reward_normalizer is not None:
            reward = self.reward_normalizer.scale(reward, ended, out.alive)
        self.obs = next_obs = self._observe(out.obs)
        if ended.size:
            next_obs = next_obs.copy()
            next_obs[ended] = self._normalize(self.spec.encode_obs(out.next_obs[ended]))
        transition = Transition(obs, action, reward, next_obs, out.terminated, out.truncated, log_prob)
        return Step(transition, out.alive, episodes)

    def close(self) -> None:
        """Close the environments and their processes."""
        self.vector.close()

    def _begin(self, rows: Array) -> list[int | None]:
        """Number the episodes that start in `rows` and return their seeds, None for the other rows."""
        seeds: list[int | None] = [None] * self.num_envs
        for i in np.flatnonzero(rows):
            self.numbers[i] = self.num_episodes
            seeds[i] = episode_seed(self.seeds, self.num_episodes)
            self.num_episodes += 1
        return seeds

    def _observe(self, obs: Array) -> Array:
        obs = self.spec.encode_obs(obs)
        if self.obs_normalizer is not None:
            self.obs_normalizer.update(obs)
        return self._normalize(obs)

    def _normalize(self, obs: Array) -> Array:
        return obs if self.obs_normalizer is None else self.obs_normalizer(obs)

    def _advance_disabled(self, action: Array) -> Outcome:
        next_obs, reward, terminated, truncated, _ = self.vector.step(action)
        obs, ended = next_obs, terminated | truncated
        if ended.any():
            obs, _ = self.vector.reset(seed=self._begin(ended), options={"reset_mask": ended})
        return Outcome(next_obs, reward, terminated, truncated, self._all, obs)

    def _advance_same_step(self, action: Array) -> Outcome:
        obs, reward, terminated, truncated, infos = self.vector.step(action)
        next_obs, ended = obs, terminated | truncated
        if ended.any():
            next_obs = obs.copy()
            for i in np.flatnonzero(ended):
                next_obs[i] = infos["final_obs"][i]
            self._begin(ended)
        return Outcome(next_obs, reward, terminated, truncated, self._all, obs)

    def _advance_next_step(self, action: Array) -> Outcome:
        # After an episode's end comes a row that only resets: its action is ignored and its reward means nothing.
        obs, reward, terminated, truncated, _ = self.vector.step(action)
        alive = self._alive
        if not alive.all():
            self._begin(~alive)
        self._alive = ~((terminated | truncated) & alive)
        return Outcome(obs, reward, terminated, truncated, alive, obs)


def episode_seed(seeds: SeedSequence, number: int) -> int:
    """The seed of episode `number` of a stream, 31 bits (what every environment accepts)."""
    child = SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, number))
    return int(child.generate_state(1)[0] >> 1)


def resolve_id(name: str) -> str:
    """The registered id that `name` means: itself, or the newest version where it names none.

    A UserError with the nearest id for an unknown one; ids of optional packages are registered on the way.
    """
    if name.startswith("ALE/"):
        _import_atari()
    if name in gym.registry:
        return name
    versions = [spec.version for spec in gym.registry.values() if spec.id == f"{name}-v{spec.version}"]
    if versions:
        return f"{name}-v{max(version for version in versions if version is not None)}"
    names = {re.sub(r"-v\d+$", "", known) for known in gym.registry if "/" not in known}
    stem, dash, version = name.partition("-v")
    if dash and stem in names:
        known = ", ".join(sorted(spec.id for spec in gym.registry.values() if spec.name == stem))
        raise UserError(f"environment {stem!r} has no version {version!r}; known: {known}")
    hint = nearest(stem, names)
    if not hint.startswith("; did"):
        hint = "; `python -c 'import gymnasium; gymnasium.pprint_registry()'` lists what is installed"
    raise UserError(f"unknown environment {name!r}{hint}")


def _import_atari() -> None:
    try:
        import ale_py
    except ImportError:
        raise UserError("Atari games need an extra: pip install -e '.[atari]'") from None
    gym.register_envs(ale_py)


def make_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """One environment; a UserError that names the extra where its package is missing."""
    try:
        return gym.make(env_id, **kwargs)
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        entry = str(gym.spec(env_id).entry_point)
        extra = next((extra for package, extra in EXTRAS.items() if package in entry), None)
        hint = f"pip install -e '.[{extra}]'" if extra else str(error)
        raise UserError(f"{env_id} needs a package that is not installed: {hint}") from None
    except (gym.error.Error, TypeError) as error:
        raise UserError(f"{env_id} cannot be made: {error}") from None


class Borrowed(gym.Wrapper[Any, Any, Any, Any]):
    """A caller's own environment, which stays open when we are done with it."""

    def close(self) -> None:
        """Leave it open."""


def vectorize(env: EnvLike, num_envs: int, vec: str = "sync", **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` copies of an environment id, of a factory's product, or (num_envs = 1) of an environment itself.

    `vec`: sync steps them in this process, async each in its own, native uses the id's own vector environment.
    """
    if isinstance(env, gym.Env):
        if num_envs != 1:
            raise UserError(f"one environment object cannot be {num_envs} environments; pass a function that makes one")
        return SyncVectorEnv([lambda: Borrowed(env)], autoreset_mode=AutoresetMode.DISABLED)
    factory = partial(make_env, resolve_id(env), **kwargs) if isinstance(env, str) else env
    if vec == "native":
        if not isinstance(env, str) or gym.spec(resolve_id(env)).vector_entry_point is None:
            raise UserError(f"{env} has no vector environment of its own; use --vec sync or --vec async")
        return gym.make_vec(resolve_id(env), num_envs, vectorization_mode="vector_entry_point", **kwargs)
    factories = [factory] * num_envs
    if vec == "async":
        return AsyncVectorEnv(factories, autoreset_mode=AutoresetMode.DISABLED)
    return SyncVectorEnv(factories, autoreset_mode=AutoresetMode.DISABLED)
