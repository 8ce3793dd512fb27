"""Environments as the loop sees them: numbered episodes, true successors, one seed for each episode.

`Envs` resets what ended, with the next episode's own seed, so an episode is replayable from its seed and its actions.
A vector environment that resets itself (zoo.envs.autoreset) yields the same transitions; it is seeded once, by its
first reset, and only all of its episodes together are replayable, from there.
"""

from collections import deque
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.random import SeedSequence

from zoo.envs.autoreset import OWN_RESETS, autoreset_mode
from zoo.envs.foreign import watched
from zoo.envs.normalize import ObsNormalizer, RewardClipper, RewardNormalizer
from zoo.errors import DivergedError, EnvError
from zoo.protocol import NONE, Episode, Step, Transition
from zoo.spec import Array, Spec, Unfit

LARGEST = float(np.finfo(np.float32).max)  # rewards are stored as float32


class Envs:
    """`num_envs` environments stepped together; numpy in, numpy out. `obs` is what to act on next, (B, ...)."""

    obs: Array
    actions: deque[Array]  # what a replay takes, the newest last
    saved = (
        *("num_episodes", "first", "numbers", "returns", "lengths", "_alive", "obs", "actions"),
        *("obs_normalizer", "reward_normalizer"),
    )

    def __init__(
        self,
        vector: VectorEnv[Any, Any, Any],
        seeds: SeedSequence,
        *,
        scale_actions: bool = True,
        obs_normalizer: ObsNormalizer | None = None,
        reward_normalizer: RewardNormalizer | RewardClipper | None = None,
    ) -> None:
        self.vector, self.mode, self.seeds = watched(vector), autoreset_mode(vector), seeds
        self.spec = Spec(vector.single_observation_space, vector.single_action_space, scale_actions=scale_actions)
        self.obs_normalizer, self.reward_normalizer = obs_normalizer, reward_normalizer
        self.num_envs = vector.num_envs
        self.num_episodes = 0  # started so far
        self.first = 0  # the number of the episode with which all were reset last
        self.actions = deque()
        self.numbers = np.zeros(self.num_envs, np.int64)  # of the running episodes
        self.returns, self.lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        self._all, self._zeros = np.ones(self.num_envs, np.bool_), np.zeros(self.num_envs, np.float32)
        self._alive = self._all.copy()

    def reset(self) -> Array:
        """Start an episode in every environment; returns the first observations, (B, ...)."""
        self.first = self.num_episodes
        self.returns[:], self.lengths[:], self._alive = 0, 0, self._all.copy()
        self.actions.clear()
        self.obs = self.encode(self.start(self._all), self.numbers)
        if self.obs_normalizer is not None:
            self.obs, _ = self.obs_normalizer.whiten(self.obs, self.obs, NONE, self._all)
        return self.obs

    def step(self, action: Array, log_prob: Array | None = None) -> Step:
        """Take one step of every environment; `log_prob`, if it is known, goes into the record.

        Raises EnvError for a reward or an observation that is not finite in the type in which it is stored.
        """
        if action.dtype.kind == "f" and not np.isfinite(action).all():
            raise DivergedError(f"the policy became NaN: it acts {action[0]}; earlier checkpoints are whole")
        obs, numbers, decoded = self.obs, self.numbers, self.spec.decode_action(action)
        self.actions.append(decoded)
        first, reward, terminated, truncated, infos = self.vector.step(decoded.copy())  # it may write into its own
        next_obs, alive, ended = first, self._all, terminated | truncated
        if self.mode is not AutoresetMode.DISABLED:
            next_obs, alive, begun, self._alive = OWN_RESETS[self.mode](first, infos, ended, self._alive)
            self.begin(begun)
            reward, ended = np.where(alive, reward, 0.0), ended & alive
        elif np.count_nonzero(ended):
            first = self.start(ended)
        self.lengths += alive
        fits = np.abs(reward) <= LARGEST  # not so of NaN
        if np.count_nonzero(fits) < self.num_envs:  # `all` takes three times as long for a few
            raise self._error(Unfit("reward is NaN or infinite as float32", fits, reward), numbers, decoded)
        next_obs = self.encode(next_obs, numbers, decoded)
        self.returns += reward
        (rows,) = ended.nonzero()
        if self.reward_normalizer is not None:
            reward = self.reward_normalizer.scale(reward, rows, alive)
        episodes = self._finish(rows, numbers) if rows.size else []
        self.obs = self.encode(first, self.numbers) if episodes else next_obs
        if self.obs_normalizer is not None:
            self.obs, next_obs = self.obs_normalizer.whiten(self.obs, next_obs, rows, self._alive)
        log_prob = self._zeros if log_prob is None else log_prob
        return Step(Transition(obs, action, reward, next_obs, terminated, truncated, log_prob), alive, episodes)

    def _finish(self, rows: Array, numbers: Array) -> list[Episode]:
        """Return the episodes that ended in `rows`; actions that belong to no running one are dropped."""
        ended = [Episode(int(numbers[i]), float(self.returns[i]), int(self.lengths[i])) for i in rows]
        self.returns[rows], self.lengths[rows] = 0, 0
        while self.mode is AutoresetMode.DISABLED and len(self.actions) > self.lengths.max():
            self.actions.popleft()
        return ended

    def start(self, rows: Array) -> Array:
        """Start the next episodes in `rows`; returns all observations as they come."""
        seeds = self.begin(rows)
        if self.mode is AutoresetMode.DISABLED:
            return self.vector.reset(seed=seeds, options={"reset_mask": rows.copy()})[0]
        return self.vector.reset(seed=seeds[0])[0]  # one seed for all, once

    def begin(self, rows: Array) -> list[int | None]:
        """Number the episodes that start in `rows`; returns their seeds, None for the other rows."""
        seeds: list[int | None] = [None] * self.num_envs
        self.numbers = self.numbers.copy()  # who holds the old ones keeps them
        for i in np.flatnonzero(rows).tolist():
            self.numbers[i], seeds[i] = self.num_episodes, episode_seed(self.seeds, self.num_episodes)
            self.num_episodes += 1
        return seeds

    def encode(self, given: Array, numbers: Array, action: Array | None = None) -> Array:
        """Return observations as algorithms see them, (B, ...). Raises EnvError if one of them is none.

        `numbers` are the episodes that they belong to, `action` what led to them unless they are an episode's first.
        """
        try:
            return self.spec.encode_obs(given, self.num_envs)
        except Unfit as unfit:
            raise self._error(unfit, numbers, action) from None

    def _error(self, unfit: Unfit, numbers: Array, action: Array | None) -> EnvError:
        """Return the error that says where `unfit` was found."""
        i, own = unfit.index, self.mode is AutoresetMode.DISABLED
        seed = episode_seed(self.seeds, int(numbers[i]) if own else self.first)
        episode = f"the episode with seed {seed}" if own else f"its episode (all began with seed {seed})"
        given = "" if action is None else f", given action {action[i]}"
        return EnvError(f"environment {i}, step {self.lengths[i]} of {episode}{given}: the {unfit}")

    def check_state(self) -> bool:
        """Whether a restored state makes sense."""
        due = int(self.lengths.max()) if self.mode is AutoresetMode.DISABLED else 0
        kind = (self.num_envs, *(self.spec.action_space.shape or ())), self.spec.action_space.dtype
        counts = 0 <= due <= len(self.actions) and 0 <= self.first < self.num_episodes
        rows = (self.numbers >= 0) & (self.numbers < self.num_episodes) & (self.lengths >= 0)
        return counts and bool(rows.all()) and all((action.shape, action.dtype) == kind for action in self.actions)

    def close(self) -> None:
        """Close the environments and their processes."""
        self.vector.close()


def episode_seed(seeds: SeedSequence, number: int) -> int:
    """Return the seed of episode `number` of a stream, 31 bits (what every environment accepts)."""
    child = SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, number))
    return int(child.generate_state(1)[0] >> 1)
