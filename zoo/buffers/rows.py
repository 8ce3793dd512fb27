"""Rows of transitions: allocated, checked, and counted before they are allocated."""

import numpy as np
import psutil
from gymnasium import spaces

from zoo.errors import UserError
from zoo.protocol import Transition
from zoo.spec import Array, Spec


def allocate(spec: Spec, *shape: int) -> Transition[Array]:
    """Return zeroed arrays for transitions of `spec`, each with the leading `shape`."""
    return Transition(
        obs=np.zeros((*shape, *spec.obs_shape), spec.obs_dtype),
        action=np.zeros((*shape, *spec.action_shape), spec.action_dtype),
        reward=np.zeros(shape, np.float32),
        next_obs=np.zeros((*shape, *spec.obs_shape), spec.obs_dtype),
        terminated=np.zeros(shape, np.bool_),
        truncated=np.zeros(shape, np.bool_),
        log_prob=np.zeros(shape, np.float32),
    )


def in_spaces(rows: Transition[Array], spec: Spec) -> bool:
    """Whether the discrete actions and observations of `rows` are among those of `spec`."""
    choices = [] if isinstance(spec.action_space, spaces.Box) else [(rows.action, np.array(spec.action_sizes))]
    if isinstance(spec.observation_space, spaces.Discrete):
        choices += [(obs, spec.observation_space.n) for obs in (rows.obs, rows.next_obs)]
    return all(((values >= 0) & (values < count)).all() for values, count in choices)


def check_memory(what: str, count: int, row_bytes: int, setting: str, *, each: int = 1) -> None:
    """Raise UserError, with the arithmetic, unless so many transitions fit the free memory.

    `setting` is what to make smaller, and `each` how many transitions one of it stands for.
    """
    needed, free = count * row_bytes, psutil.virtual_memory().available
    if needed > free:
        most = max(int(0.8 * free / row_bytes) // each, 1)
        raise UserError(
            f"{what} of {count:,} transitions x {row_bytes:,} bytes = {needed / 2**30:.1f} GiB does not fit the "
            f"{free / 2**30:.1f} GiB of free memory; set {setting} to {most:,} or less"
        )
