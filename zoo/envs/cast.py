"""Observations as the type of their space, and what does not fit it, in words."""

from typing import Any

import numpy as np

from zoo.spec import Array


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
