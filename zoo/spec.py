"""The spaces of an environment as algorithms see them.

Algorithms see observations and actions in one form: images and floats as they are, Discrete observations as
integers, Box actions flat and in [-1, 1], Discrete actions counted from 0.
"""

import math
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from zoo.errors import EnvError, UserError
from zoo.spaces import Array, Flat, Stacked, cast, complaint, is_image, shown

__all__ = ["Array", "Model", "Outcomes", "Spec", "Unfit", "check_space", "clip", "is_atari"]

OBSERVATIONS = (spaces.Box, spaces.Discrete)
ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Unfit(Exception):  # noqa: N818
    """Says what is wrong with rewards or observations, (B, ...), and in which environment: the first that is wrong."""

    def __init__(self, what: str, fits: Array, values: Array | None = None) -> None:
        self.index = int(np.argmin(fits.reshape(len(fits), -1).all(1)))
        super().__init__(what if values is None else f"{what}: {values[self.index]}")


class Outcomes(NamedTuple):
    """What each of A actions may lead to from each of N observations: K outcomes, arrays or tensors."""

    next_obs: Any  # (N, A, K, ...)
    probability: Any  # (N, A, K), the sum over K is 1
    reward: Any  # (N, A, K)
    terminated: Any  # (N, A, K), flags, or how likely it is


class Model(Protocol):
    """What an environment does, known rather than learned."""

    def outcomes(self, obs: Array, actions: Array) -> Outcomes:
        """Return what `actions`, (A, ...) in the environment's units, lead to from observations, (N, ...)."""


class Spec:
    """The shapes and dtypes of one environment's observations and actions.

    `scale_actions` maps [-1, 1] onto the bounds of a Box; without it the policy acts in the environment's own
    units and is clipped to the bounds (as Stable-Baselines3's on-policy algorithms do). Unbounded dimensions are
    never scaled; bounds as large as the numbers of their type, or of float32, are none, nor are integers from
    ±(2³¹ - 1) on.

    Integers of a Box are rounded so that each has an equal share of what the policy acts in: of [-1, 1] where that is
    scaled, else of [low - ½, high + ½], to which the action is clipped before it is rounded to the nearest.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], *, scale_actions: bool = True
    ) -> None:
        for kind, space, known in (
            ("observation", observation_space, OBSERVATIONS),
            ("action", action_space, ACTIONS),
        ):
            if not isinstance(space, known):
                names = ", ".join(each.__name__ for each in known)
                raise UserError(
                    f"{kind} space {shown(space)} is not supported (known: {names}); a gymnasium wrapper such as "
                    f"Flatten{kind.capitalize()} or Transform{kind.capitalize()} can turn it into one of these"
                )
        if action_space.shape and 0 in action_space.shape:
            raise UserError(f"action space {shown(action_space)} has no dimension to choose in; expected at least one")
        self.observation_space, self.action_space = observation_space, action_space
        self.model: Model | None = None  # the environment's own, for entries that look ahead with it
        self.is_bounded = True  # whether every dimension of a Box action is (discrete actions always are)
        self.scale_actions = scale_actions
        self.obs_shape: tuple[int, ...] = observation_space.shape or ()
        self.is_image = is_image(observation_space)
        if isinstance(observation_space, spaces.Discrete):
            self.obs_dtype: np.dtype[Any] = np.dtype(np.int64)
        else:
            self.obs_dtype = np.dtype(observation_space.dtype if self.is_image else np.float32)
        # All but the newest of these frames along an observation's first axis are those of the steps before it.
        self.num_frames = observation_space.frames if isinstance(observation_space, Stacked) else 1
        self.num_masks = observation_space.masks if isinstance(observation_space, Flat) else 0
        if isinstance(action_space, spaces.Box):
            self._set_box(action_space)
        else:
            self.action_shape: tuple[int, ...] = (
                () if isinstance(action_space, spaces.Discrete) else (len(self.action_sizes),)
            )
            self.action_dtype: np.dtype[Any] = np.dtype(np.int64)
        choices = 0 if isinstance(action_space, spaces.Box) else sum(self.action_sizes)
        if self.num_masks not in (0, choices):
            raise UserError(f"{self.num_masks:,} action masks for {shown(action_space)}; expected {choices:,}, or none")

    def _set_box(self, space: spaces.Box) -> None:
        self.action_shape = (math.prod(space.shape),)
        self.action_dtype = np.dtype(np.float32)
        self.is_rounded = not np.issubdtype(space.dtype, np.floating)
        low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
        limit = _limit(space.dtype)
        bounded = (-limit < low) & (high < limit)
        self.is_bounded = bool(bounded.all())
        half = 0.5 if self.is_rounded else 0.0  # of the share of an integer
        low, high = low - half, high + half
        scaled = bounded & self.scale_actions
        centre, span = 0.5 * low[scaled] + 0.5 * high[scaled], 0.5 * high[scaled] - 0.5 * low[scaled]
        # Clipping comes first, in the policy's units; then centre + span·action; then floor(½ + ·) of integers.
        self._clip = np.where(scaled, -1.0, low), np.where(scaled, 1.0, high)
        self._centre = np.full_like(low, half)
        self._span = np.ones_like(low)
        self._centre[scaled], self._span[scaled] = half + centre, span
        self._castable = _castable(np.dtype(space.dtype)) if self.is_rounded else (-np.inf, np.inf)

    @property
    def action_bounds(self) -> tuple[Array, Array]:
        """The lowest and the highest Box action as algorithms act, (A,) each; infinite where there is none."""
        return self._clip

    @property
    def action_sizes(self) -> tuple[int, ...]:
        """Number of choices in each discrete action dimension; of dimensions (A,) for a Box."""
        if isinstance(self.action_space, spaces.Discrete):
            return (int(self.action_space.n),)
        if isinstance(self.action_space, spaces.MultiDiscrete):
            return tuple(int(n) for n in self.action_space.nvec.reshape(-1))
        if isinstance(self.action_space, spaces.MultiBinary):
            return (2,) * math.prod(self.action_space.shape)
        return self.action_shape

    def encode_obs(self, given: Array, num_envs: int) -> Array:
        """Return observations of `num_envs` environments as algorithms see them; without a copy if the dtype fits.

        Raises EnvError if they have another shape, and Unfit if one of them has a value that its space cannot have.
        """
        obs = np.asarray(given)
        if obs.dtype != self.obs_dtype or obs.shape != (num_envs, *self.obs_shape):
            obs = self._as_dtype(obs, (num_envs, *self.obs_shape))
        if isinstance(self.observation_space, spaces.Discrete):
            encoded = obs - self.observation_space.start
            fits = (encoded >= 0) & (encoded < self.observation_space.n)
        elif self.obs_dtype.kind == "f":
            encoded, fits = obs, np.isfinite(obs)
        else:
            return obs
        if np.count_nonzero(fits) < fits.size:  # `all` takes three times as long for a few
            is_float = self.obs_dtype.kind == "f"
            otherwise = "NaN or infinite as float32" if is_float else f"outside of {shown(self.observation_space)}"
            raise Unfit(f"observation is {otherwise}", fits, obs)
        return encoded

    def _as_dtype(self, given: Array, shape: tuple[int, ...]) -> Array:
        if given.shape != shape:
            raise EnvError(f"the environments' observations have shape {given.shape}; expected {shape}")
        obs, kept = cast(given, self.obs_dtype)
        if not kept.all():
            raise Unfit(f"observation {complaint(given, kept, self.obs_dtype)}", kept)
        return obs

    def decode_action(self, action: Array) -> Array:
        """Return actions of an algorithm, (B, ...), as environments take them: clipped, scaled, shaped, typed."""
        space = self.action_space
        if isinstance(space, spaces.Box):
            decoded = self._centre + self._span * clip(action, *self._clip)
            if self.is_rounded:
                decoded = clip(np.floor(decoded), *self._castable)  # before the cast, which would wrap around
            # Rounding must not leave the bounds of the space's own dtype.
            decoded = decoded.astype(space.dtype).reshape(-1, *space.shape)
            return clip(decoded, space.low, space.high)
        if isinstance(space, spaces.MultiDiscrete):
            return action.reshape(-1, *space.shape).astype(space.dtype) + space.start
        if isinstance(space, spaces.MultiBinary):
            return action.reshape(-1, *space.shape).astype(space.dtype)
        assert isinstance(space, spaces.Discrete)
        return (action + space.start).astype(space.dtype)

    def check_same(self, other: "Spec") -> None:
        """Raise UserError, which names the space, if an environment, `other`, has other spaces than this one."""
        for kind in ("observation_space", "action_space"):
            mine, theirs = getattr(self, kind), getattr(other, kind)
            if mine != theirs:
                found = f"the agent was trained for {kind} {shown(mine)}; this environment's is {shown(theirs)}"
                raise UserError(f"{found}; what surrounded it in training (stacks, wrappers) must surround this one")


def clip(x: Array, low: Array | float, high: Array | float) -> Array:
    """Do what np.clip does, which takes four times as long for a few numbers."""
    clipped: Array = np.minimum(np.maximum(x, low), high)
    return clipped


def _limit(dtype: Any) -> float:
    """Return the magnitude from which on a bound counts as none."""
    if not np.issubdtype(dtype, np.floating):
        return 2.0**31 - 1
    return min(float(np.finfo(dtype).max), float(np.finfo(np.float32).max))


def _castable(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the outermost float64 numbers that a type of integers can hold.

    2⁶³ - 1 itself would be rounded to 2⁶³.
    """
    if dtype == np.bool_:
        return 0.0, 1.0
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return float(low), float(high) if int(float(high)) == high else float(np.nextafter(high, 0.0))


def check_space(name: str, spec: Spec, supported: tuple[type, ...]) -> None:
    """Raise UserError unless the action space is one that the algorithm supports."""
    choices = spaces.MultiDiscrete in supported and isinstance(spec.action_space, spaces.MultiBinary)  # of two each
    if not isinstance(spec.action_space, supported) and not choices:
        names = ", ".join(space.__name__ for space in supported)
        raise UserError(f"{name} needs actions of type {names}; this environment's are {shown(spec.action_space)}")


def is_atari(name: str) -> bool:
    """Whether an id is one of ale_py's games, of which gymnasium knows once ale_py is imported."""
    spec = gym.registry.get(name.rpartition(":")[2])
    return spec is not None and str(spec.entry_point).startswith("ale_py")
