"""Environments as the loop sees them: numbered episodes, true successors, one seed for each episode.

`Envs` owns the resets. With autoreset DISABLED (every environment that this package makes itself) it resets only
what ended, with the next episode's own seed, so an episode is replayable from its seed and its actions. A vector
environment that insists on NEXT_STEP or SAME_STEP yields the same transitions through the same method; its
episodes are seeded once, by its first reset, and only all of them together are replayable, from there.
"""

import multiprocessing
import warnings
from collections import deque
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from numpy.random import SeedSequence

from zoo.envs.autoreset import autoreset_mode
from zoo.envs.cast import cast, complaint
from zoo.envs.normalize import ObsNormalizer, RewardNormalizer
from zoo.envs.workers import end
from zoo.errors import DivergedError, EnvError, said
from zoo.protocol import Episode, Step, Transition
from zoo.spec import Array, Spec

LARGEST = float(np.finfo(np.float32).max)  # rewards are stored as float32
TIMEOUT = 300.0  # seconds that environments in processes of their own may take for a step


# What a step returns beside observations: name, numpy's letters for its kinds, and these in words.
PARTS = (("rewards", "biuf", "numbers"), ("terminated", "b", "True or False"), ("truncated", "b", "True or False"))


class Outcome(NamedTuple):
    """What one step of a vector environment really did, whatever its autoreset mode."""

    next_obs: Array  # the true successors
    reward: Array
    terminated: Array
    truncated: Array
    alive: Array  # False where the step only reset an ended environment
    obs: Array  # what to act on next


class Envs:
    """`num_envs` environments stepped together; numpy in, numpy out. `obs` is what to act on next, (B, ...)."""

    obs: Array
    saved = (
        *("num_episodes", "first", "numbers", "returns", "lengths", "_alive", "obs", "actions"),
        *("obs_normalizer", "reward_normalizer"),
    )
    actions: deque[Array]  # what a replay takes, the newest last

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
        self.mode = autoreset_mode(vector)
        self._advance = {
            AutoresetMode.DISABLED: self._advance_disabled,
            AutoresetMode.NEXT_STEP: self._advance_next_step,
            AutoresetMode.SAME_STEP: self._advance_same_step,
        }[self.mode]
        self.obs_normalizer, self.reward_normalizer = obs_normalizer, reward_normalizer
        self.num_episodes = 0  # started so far
        self.first = 0  # the number of the episode with which all were reset last
        self.actions = deque()
        self.numbers = np.zeros(self.num_envs, np.int64)  # of the running episodes
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, np.int64)
        self.failed = False
        self._obs_shape = (self.num_envs, *self.spec.obs_shape)
        self._all = np.ones(self.num_envs, np.bool_)
        self._zeros = np.zeros(self.num_envs, np.float32)
        self._alive = self._all.copy()

    def reset(self) -> Array:
        """Start an episode in every environment; returns the first observations, (B, ...)."""
        self.first = self.num_episodes
        obs = self._reset(self._all)
        self._alive = self._all.copy()
        self.actions.clear()
        self.obs = self._observe(self._encode(obs, self.numbers), self._all)
        return self.obs

    def step(self, action: Array, log_prob: Array | None = None) -> Step:
        """One step of every environment; `log_prob`, if it is known, goes into the record.

        Raises EnvError for a reward or an observation that is not finite in the type in which it is stored.
        """
        obs, numbers = self.obs, self.numbers.copy()
        if action.dtype.kind == "f" and not np.isfinite(action).all():
            raise DivergedError(f"the policy became NaN: it acts {action[0]}; earlier checkpoints are whole")
        decoded = self.spec.decode_action(action)
        self.actions.append(decoded)
        out = self._advance(decoded)
        self.lengths += out.alive
        if self.mode is AutoresetMode.NEXT_STEP:
            out = out._replace(reward=np.where(out.alive, out.reward, 0.0))
        self._check_reward(out.reward, numbers, decoded)
        next_obs = self._encode(out.next_obs, numbers, decoded)
        self.returns += out.reward * out.alive
        (ended,) = ((out.terminated | out.truncated) & out.alive).nonzero()
        episodes = [Episode(int(numbers[i]), float(self.returns[i]), int(self.lengths[i])) for i in ended]
        self.returns[ended], self.lengths[ended] = 0, 0
        if ended.size and self.mode is AutoresetMode.DISABLED:
            self._forget()

        reward = out.reward
        if self.reward_normalizer is not None:
            reward = self.reward_normalizer.scale(reward, ended, out.alive)
        if ended.size:  # final observations are whitened before the first ones of new episodes are counted
            acted_on, final = self._encode(out.obs, self.numbers), self._normalize(next_obs[ended])
            self.obs = self._observe(acted_on, self._alive)
            next_obs = self.obs.copy()
            next_obs[ended] = final
        else:
            self.obs = next_obs = self._observe(next_obs, self._alive)
        log_prob = self._zeros if log_prob is None else log_prob
        transition = Transition(obs, action, reward, next_obs, out.terminated, out.truncated, log_prob)
        return Step(transition, out.alive, episodes)

    def close(self) -> None:
        """Close the environments and their processes."""
        if self.failed and isinstance(self.vector, AsyncVectorEnv):
            end(self.vector)
        else:
            self.vector.close()

    def check_state(self) -> bool:
        """Whether a restored state makes sense."""
        due = int(self.lengths.max()) if self.mode is AutoresetMode.DISABLED else 0
        kind = self.vector.action_space.shape, self.spec.action_space.dtype
        return (
            0 <= due <= len(self.actions)
            and bool(((self.numbers >= 0) & (self.numbers < self.num_episodes) & (self.lengths >= 0)).all())
            and 0 <= self.first < self.num_episodes
            and all((action.shape, action.dtype) == kind for action in self.actions)
        )

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Step or reset the vector environment; an EnvError for whatever goes wrong in it, also if nothing comes."""
        try:
            if isinstance(self.vector, AsyncVectorEnv):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about errors, which are raised as well
                    getattr(self.vector, f"{method}_async")(*args, **kwargs)
                    return getattr(self.vector, f"{method}_wait")(timeout=TIMEOUT)
            return getattr(self.vector, method)(*args, **kwargs)
        except (EnvError, KeyboardInterrupt):  # an interrupted call leaves processes at work
            self.failed = True
            raise
        except multiprocessing.TimeoutError:
            self.failed = True
            raise EnvError(f"no answer from the environments' processes within {TIMEOUT:.0f} seconds") from None
        except (EOFError, ConnectionError) as error:
            self.failed = True
            ended = wait([process.sentinel for process in self.vector.processes], timeout=5)
            dead = [str(i) for i, process in enumerate(self.vector.processes) if process.sentinel in ended]
            raise EnvError(f"the process of environment {', '.join(dead)} died ({type(error).__name__})") from None
        except BaseException as error:
            self.failed = True
            raise EnvError(f"the environments failed in {method}: {said(error)}") from error

    def replay(self) -> Array:
        """Bring new environments to where a restored state had them, by its seeds and actions.

        Returns the columns in which that did not lead to the restored observation; their episodes start anew.
        """
        if self.mode is AutoresetMode.DISABLED:
            obs = self._replay_episodes()
        else:
            obs = self._call("reset", seed=episode_seed(self.seeds, self.first))[0]
            for action in self.actions:
                obs = self._act(action)[0]
        obs = self._normalize(self._encode(obs, self.numbers))
        other = (obs != self.obs).reshape(self.num_envs, -1).any(1)
        if not other.any():
            return np.flatnonzero(other)
        if self.mode is not AutoresetMode.DISABLED:
            self.reset()
            return np.arange(self.num_envs)
        obs = self._observe(self._encode(self._reset(other), self.numbers), other)
        self.obs = np.where(other.reshape(-1, *[1] * (obs.ndim - 1)), obs, self.obs)
        return np.flatnonzero(other)

    def _replay_episodes(self) -> Array:
        """Episodes of different lengths come to their ends together: each starts when its first action is due."""
        seeds = [episode_seed(self.seeds, int(number)) for number in self.numbers]
        obs, _ = self._call("reset", seed=seeds)
        length, ended = int(self.lengths.max()), ~self._all
        for t in range(length):
            starts = ended | (self.lengths == length - t)
            if starts.any():
                self._call("reset", seed=seeds, options={"reset_mask": starts})
            # Until an environment's episode starts, it takes the actions of the one before.
            obs, _, terminated, truncated, _ = self._act(self.actions[t - length])
            ended = terminated | truncated
        if ended.any() or (self.lengths == 0).any():
            obs, _ = self._call("reset", seed=seeds, options={"reset_mask": ended | (self.lengths == 0)})
        return np.asarray(obs)

    def _reset(self, rows: Array) -> Array:
        """Start episodes in these rows; returns all observations."""
        self.returns[rows], self.lengths[rows] = 0, 0
        seeds = self._begin(rows)
        if self.mode is AutoresetMode.DISABLED:
            obs, _ = self._call("reset", seed=seeds, options={"reset_mask": rows.copy()})
        else:  # resets of its own: it takes one seed, once
            obs, _ = self._call("reset", seed=seeds[0])
        return np.asarray(obs)

    def _act(self, action: Array) -> Any:
        """Step the vector environment with a copy, which it may write into: what is kept is replayed later.

        Raises EnvError for rewards that are no numbers, and for flags that are neither True nor False.
        """
        taken = self._call("step", action.copy())
        for values, (name, kinds, expected) in zip(taken[1:4], PARTS, strict=True):
            if np.asarray(values).dtype.kind not in kinds:
                raise EnvError(f"the environments' {name} are of {np.asarray(values).dtype}; expected {expected}")
        return taken

    def _check_reward(self, reward: Array, numbers: Array, action: Array) -> None:
        fits = np.abs(reward) <= LARGEST  # not so of NaN
        if np.count_nonzero(fits) < self.num_envs:  # `all` takes three times as long for a few
            raise self._refusal("reward is NaN or infinite as float32", reward, fits, numbers, action)

    def _encode(self, obs: Array, numbers: Array, action: Array | None = None) -> Array:
        """Observations as algorithms see them, (B, ...); an EnvError where one of them is no such number.

        `numbers` are the episodes that they belong to, `action` what led to them unless they are an episode's first.
        """
        given, dtype = np.asarray(obs), self.spec.obs_dtype
        if given.shape != self._obs_shape:
            raise EnvError(f"the environments' observations have shape {given.shape}; expected {self._obs_shape}")
        if given.dtype != dtype:
            obs, kept = cast(given, dtype)
            if not kept.all():
                raise self._refusal(f"observation {complaint(given, kept, dtype)}", None, kept, numbers, action)
        encoded = self.spec.encode_obs(obs)
        space = self.spec.observation_space
        fits: Array
        if self.spec.obs_dtype.kind == "f":
            fits = np.isfinite(encoded)
        elif isinstance(space, spaces.Discrete):
            fits = (encoded >= 0) & (encoded < space.n)
        else:
            return encoded
        if np.count_nonzero(fits) < fits.size:
            what = "NaN or infinite as float32" if self.spec.obs_dtype.kind == "f" else f"outside of {space}"
            raise self._refusal(f"observation is {what}", obs, fits, numbers, action)
        return encoded

    def _refusal(self, what: str, values: Array | None, fits: Array, numbers: Array, action: Array | None) -> EnvError:
        """Says where `what` was found: in the first environment that does not fit, with its value if there are any."""
        i = int(np.argmin(fits.reshape(self.num_envs, -1).all(1)))
        if self.mode is AutoresetMode.DISABLED:
            episode = f"the episode with seed {episode_seed(self.seeds, int(numbers[i]))}"
        else:
            episode = f"its episode (all began with seed {episode_seed(self.seeds, self.first)})"
        where = f"environment {i}, step {self.lengths[i]} of {episode}"
        given = "" if action is None else f", given action {action[i]}"
        return EnvError(f"{where}{given}: the {what}" + ("" if values is None else f": {values[i]}"))

    def _forget(self) -> None:
        """Drop the actions that belong to no running episode."""
        longest = int(self.lengths.max())
        while len(self.actions) > longest:
            self.actions.popleft()

    def _begin(self, rows: Array) -> list[int | None]:
        """Number the episodes that start in `rows` and return their seeds, None for the other rows."""
        seeds: list[int | None] = [None] * self.num_envs
        for i in np.flatnonzero(rows):
            self.numbers[i] = self.num_episodes
            seeds[i] = episode_seed(self.seeds, self.num_episodes)
            self.num_episodes += 1
        return seeds

    def _observe(self, obs: Array, rows: Array) -> Array:
        """Whiten observations after the statistics took in `rows`, those that are acted on (SB3's VecNormalize)."""
        if self.obs_normalizer is not None:
            self.obs_normalizer.update(obs[rows])
        return self._normalize(obs)

    def _normalize(self, obs: Array) -> Array:
        return obs if self.obs_normalizer is None else self.obs_normalizer(obs)

    def _advance_disabled(self, action: Array) -> Outcome:
        next_obs, reward, terminated, truncated, _ = self._act(action)
        obs, ended = next_obs, terminated | truncated
        if np.count_nonzero(ended):
            obs, _ = self._call("reset", seed=self._begin(ended), options={"reset_mask": ended})
        return Outcome(next_obs, reward, terminated, truncated, self._all, obs)

    def _advance_same_step(self, action: Array) -> Outcome:
        obs, reward, terminated, truncated, infos = self._act(action)
        next_obs, ended = obs, terminated | truncated
        if ended.any():
            final = np.stack([infos["final_obs"][i] for i in np.flatnonzero(ended)])  # (E, ...)
            next_obs = obs.astype(np.result_type(obs, final))  # no cast in silence: that is judged later
            next_obs[ended] = final
            self._begin(ended)
        return Outcome(next_obs, reward, terminated, truncated, self._all, obs)

    def _advance_next_step(self, action: Array) -> Outcome:
        # After an episode's end comes a row that only resets: its action is ignored and its reward means nothing.
        obs, reward, terminated, truncated, _ = self._act(action)
        alive = self._alive
        if not alive.all():
            self._begin(~alive)
        self._alive = ~((terminated | truncated) & alive)
        return Outcome(obs, reward, terminated, truncated, alive, obs)


def episode_seed(seeds: SeedSequence, number: int) -> int:
    """The seed of episode `number` of a stream, 31 bits (what every environment accepts)."""
    child = SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, number))
    return int(child.generate_state(1)[0] >> 1)
