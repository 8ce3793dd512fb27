"""Observations as the type of their space, and what does not fit it, in words."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from zoo.errors import EnvError
from zoo.spec import Array, Spec


def cast(given: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """`given` as `dtype`, and which of its values that kept but for their precision: none if it is of another kind."""
    if not _is_kind(given, dtype):
        return given, np.zeros(given.shape, np.bool_)
    with np.errstate(over="ignore"):
        typed = given.astype(dtype)
    return typed, np.isfinite(typed) == np.isfinite(given) if dtype.kind == "f" else typed == given


def complaint(given: Array, kept: Array, dtype: np.dtype[Any]) -> str:
    """What is wrong with an observation whose values are not all `kept` by a cast to `dtype`."""
    if not _is_kind(given, dtype):
        return f"is of {given.dtype}; its space is of {dtype}"
    return f"holds {given[~kept].flat[0]}, which does not fit {dtype}"


def _is_kind(given: Array, dtype: np.dtype[Any]) -> bool:
    return given.dtype.kind in ("biuf" if dtype.kind == "f" else "biu")


class Unfit(Exception):  # noqa: N818
    """Says what is wrong with rewards or observations, (B, ...), and in which environment: the first that is wrong."""

    def __init__(self, what: str, fits: Array, values: Array | None = None) -> None:
        self.index = int(np.argmin(fits.reshape(len(fits), -1).all(1)))
        super().__init__(what if values is None else f"{what}: {values[self.index]}")


def as_spec(given: Array, spec: Spec, num_envs: int) -> Array:
    """Observations of another type than `spec` says, cast to it.

    Raises EnvError if they have another shape, Unfit if the cast would change more than their precision.
    """
    shape = (num_envs, *spec.obs_shape)
    if given.shape != shape:
        raise EnvError(f"the environments' observations have shape {given.shape}; expected {shape}")
    obs, kept = cast(given, spec.obs_dtype)
    if not kept.all():
        raise Unfit(f"observation {complaint(given, kept, spec.obs_dtype)}", kept)
    return obs


def range_of(spec: Spec) -> tuple[Callable[[Array], Array] | None, str]:
    """Which values of encoded observations are right, and what the others are; None where any value is."""
    if spec.obs_dtype.kind == "f":
        return np.isfinite, "NaN or infinite as float32"
    if isinstance(spec.observation_space, spaces.Discrete):
        return partial(_is_count, spec.observation_space.n), f"outside of {spec.observation_space}"
    return None, ""


def _is_count(n: int, encoded: Array) -> Array:
    return (encoded >= 0) & (encoded < n)
