"""Making environments: ids, factories or objects become one vector environment that says where it fails."""

import atexit
import copy
import os
import re
import signal
import traceback
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.utils import seeding
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from zoo.errors import EnvError, UserError, nearest
from zoo.machine import safe_path
from zoo.spec import Array

EnvLike = str | gym.Env[Any, Any] | Callable[[], gym.Env[Any, Any]]

EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "ale_py": "atari", "shimmy": "atari"}


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


class Guard(gym.Wrapper[Any, Any, Any, Any]):
    """Says in which environment, episode and step something went wrong; as text, which also leaves a process.

    Observations leave it with the shape and type of their space: no later cast changes them in silence.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self.index, self.count = index, 0
        self.seed: int | None = None
        self.shape, self.dtype = env.observation_space.shape, np.dtype(env.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.seed, self.count = seed, 0
        try:
            obs, info = self.env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            raise self._error("in reset", error) from error
        return self._typed(obs), info

    def step(self, action: Any) -> Any:
        self.count += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except (Exception, SystemExit) as error:
            raise self._error(f"given action {action}", error) from error
        return self._typed(obs), reward, terminated, truncated, info

    def _typed(self, obs: Any) -> Any:
        """The observation as its space says; an EnvError where a cast would change more than its precision."""
        if type(obs) is np.ndarray and obs.dtype == self.dtype and obs.shape == self.shape:
            return obs
        try:
            given = np.asarray(obs)
        except ValueError as error:
            raise self._error(f"its observation is no array of one shape: {error}") from None
        if given.shape != self.shape:
            raise self._error(f"its observation has shape {given.shape}; its space says {self.shape}")
        if given.dtype.kind not in ("biuf" if self.dtype.kind == "f" else "biu"):
            raise self._error(f"its observation is of {given.dtype}; its space is of {self.dtype}")
        with np.errstate(over="ignore"):
            typed = given.astype(self.dtype)
        kept = np.isfinite(typed) == np.isfinite(given) if self.dtype.kind == "f" else typed == given
        if not kept.all():
            raise self._error(f"its observation holds {given[~kept].flat[0]}, which no {self.dtype} of its space holds")
        return typed

    def _error(self, what: str, cause: BaseException | None = None) -> EnvError:
        text = f"environment {self.index} failed in step {self.count} of the episode with seed {self.seed}, {what}"
        return _explained(text, cause)


def _explained(text: str, cause: BaseException | None) -> EnvError:
    if cause is None:
        return EnvError(text)
    if isinstance(cause, SystemExit):
        return EnvError(f"{text}: it called sys.exit({cause.code!r})")
    trace = "".join(traceback.format_exception(cause)).rstrip()
    return EnvError(f"{text}: {type(cause).__name__}: {cause}\n{trace}")


def _guarded(factory: Callable[[], gym.Env[Any, Any]], index: int) -> gym.Env[Any, Any]:
    try:
        return Guard(factory(), index)
    except SystemExit as error:
        raise _explained(f"environment {index} failed when it was made", error) from error


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that stop a run


def _in_worker(factory: Callable[[], gym.Env[Any, Any]], learner: int) -> gym.Env[Any, Any]:
    """Make an environment; in a process other than the `learner`'s, leave it to that one to decide when to stop."""
    if os.getpid() != learner:  # gymnasium makes one here, too, to see its spaces
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    return factory()


ASYNC: "weakref.WeakSet[AsyncVectorEnv]" = weakref.WeakSet()


def end(vector: AsyncVectorEnv) -> None:
    """End the processes of environments that cannot be asked to close; they ignore gentler signals."""
    for process in vector.processes:
        process.kill()
    for process in vector.processes:
        process.join(5)
    vector.closed = True


@atexit.register  # before multiprocessing's own: that would wait for processes which ignore its SIGTERM
def _end_all() -> None:
    for vector in list(ASYNC):
        if not vector.closed:
            end(vector)


class Sync(VectorEnv[Any, Any, Any]):
    """Environments stepped one after another in this process, reset only when asked; no infos.

    gymnasium's SyncVectorEnv does the same, but its copies and infos take as long as eight CartPoles.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, factories: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        self.envs = [factory() for factory in factories]
        self.num_envs = len(self.envs)
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        shape = self.single_observation_space.shape or ()
        self.obs = np.zeros((self.num_envs, *shape), self.single_observation_space.dtype)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset all, or those of options["reset_mask"], each with its own seed; all observations, (B, ...)."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        for i in np.flatnonzero(mask).tolist():
            self.obs[i], _ = self.envs[i].reset(seed=None if seed is None else seed[i])
        return self.obs.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Observations, rewards, terminated and truncated, (B, ...) each."""
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        for i, env in enumerate(self.envs):
            self.obs[i], rewards[i], terminated[i], truncated[i], _ = env.step(actions[i])
        return self.obs.copy(), rewards, terminated, truncated, {}

    def close_extras(self, **kwargs: Any) -> None:
        """Close them all."""
        for env in self.envs:
            env.close()


class CartPoles(CartPoleVectorEnv):
    """gymnasium's CartPoles stepped as one array, reset only when asked; each starts as the single one of its seed."""

    metadata = CartPoleVectorEnv.metadata | {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, num_envs: int = 1, **kwargs: Any) -> None:
        super().__init__(num_envs, **kwargs)
        self.state: Any = np.zeros((4, num_envs))
        self.never = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset all, or those of options["reset_mask"], each with its own seed; all observations, (B, 4)."""
        mask = (options or {}).get("reset_mask", ~self.never)
        for i in np.flatnonzero(mask).tolist():
            rng, _ = seeding.np_random(None if seed is None else seed[i])
            self.state[:, i] = rng.uniform(self.low, self.high, 4)
        self.steps[mask] = 0
        return self.state.T.astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Observations, rewards, terminated and truncated, (B, ...) each."""
        taken = super().step(action)
        self.prev_done = self.never  # which it would reset in its next step
        return taken


# Vector environments that reset themselves, by their entry points, and the same ones that do not.
RESET_WHEN_ASKED = {"gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv": CartPoles}


def _native(env_id: str, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """The id's own vector environment, which resets only when asked where that is known."""
    spec = copy.deepcopy(gym.spec(env_id))
    spec.vector_entry_point = RESET_WHEN_ASKED.get(str(spec.vector_entry_point), spec.vector_entry_point)
    return gym.make_vec(spec, num_envs, vectorization_mode="vector_entry_point", **kwargs)


MUJOCO = {"HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"}
POOLED = {"CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", *MUJOCO}


class Pool(VectorEnv[Any, Any, Any]):
    """envpool's environments as gymnasium's: with gymnasium's spaces, seeded by `reset`. (arXiv:2206.10558)

    They have one seed, that of their first episodes, so each is reset in the very step that ends an episode: left
    alone, it would spend the next one on it. One that ends of itself in the very step at which its time is up counts
    as truncated.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, env_id: str, num_envs: int, **kwargs: Any) -> None:
        try:
            import envpool
        except ImportError:
            raise UserError("--vec envpool needs a package: pip install -e '.[envpool]'") from None
        if env_id not in POOLED:  # its Pendulum, for one, moves by the speed before that is clipped
            known = ", ".join(sorted(POOLED))
            raise UserError(f"envpool's {env_id} is not known to be gymnasium's task; known: {known}; use --vec sync")
        single = make_env(env_id, **kwargs)
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.action_space = batch_space(single.action_space, num_envs)
        self.num_envs = num_envs
        single.close()
        self.make = partial(envpool.make, env_id, env_type="gymnasium", num_envs=num_envs, num_threads=1, **kwargs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset all; `seed` is that of the first environment, the others' follow."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the types of its own spaces
            self.pool = self.make(seed=seed)
            obs, _ = self.pool.reset()
            self.dtype = self.pool.action_space.dtype
        return obs, {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Observations, rewards, terminated and truncated, (B, ...) each; where one ended, final_obs has the last."""
        obs, rewards, terminated, truncated, _ = self.pool.step(actions.astype(self.dtype))
        ended = np.flatnonzero(terminated | truncated).astype(np.int32)
        if not ended.size:
            return obs, rewards, terminated, truncated, {}
        first, infos = self.pool.reset(ended)
        final, obs = obs, obs.copy()
        obs[infos["env_id"]] = first
        return obs, rewards, terminated, truncated, {"final_obs": final}


class Borrowed(gym.Wrapper[Any, Any, Any, Any]):
    """A caller's own environment, which stays open when we are done with it."""

    def close(self) -> None:
        """Leave it open."""


def vectorize(env: EnvLike, num_envs: int, vec: str = "sync", **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` copies of an environment id, of a factory's product, or (num_envs = 1) of an environment itself.

    `vec`: sync steps them in this process, async each in its own, native uses the id's own vector environment, envpool
    that package's. A UserError where there is none.
    """
    if isinstance(env, gym.Env):
        if num_envs != 1:
            raise UserError(f"one environment object cannot be {num_envs} environments; pass a function that makes one")
        return Sync([lambda: Guard(Borrowed(env), 0)])
    factory = partial(make_env, resolve_id(env), **kwargs) if isinstance(env, str) else env
    if vec == "native":
        if not isinstance(env, str) or gym.spec(resolve_id(env)).vector_entry_point is None:
            raise UserError(f"{env} has no vector environment of its own; use --vec sync or --vec async")
        return _native(resolve_id(env), num_envs, **kwargs)
    if vec == "envpool":
        if not isinstance(env, str):
            raise UserError(f"envpool makes environments of ids, not of {env}; use --vec sync or --vec async")
        return Pool(resolve_id(env), num_envs, **kwargs)
    factories = [partial(_guarded, factory, index) for index in range(num_envs)]
    if vec == "async":
        factories = [partial(_in_worker, each, os.getpid()) for each in factories]
        with safe_path():
            vector = AsyncVectorEnv(factories, autoreset_mode=AutoresetMode.DISABLED)
        ASYNC.add(vector)
        return vector
    return Sync(factories)
