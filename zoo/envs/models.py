"""Exact models: what environments do that are known in full, the classic ones as dynamics, toy text as tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.envs.dynamics import DYNAMICS, Dynamics, successors
from zoo.envs.dynamics.tables import Tables, tables
from zoo.envs.ids import make_env
from zoo.envs.task import Task
from zoo.errors import UserError
from zoo.spec import Array, Outcomes

TOY_TEXT = ("CliffWalking-v1", "CliffWalkingSlippery-v1", "FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4")
MODELS = (*DYNAMICS, *TOY_TEXT)
CELLS_LIMIT = 2**14  # of a map of FrozenLake
SCREEN = {"max_episode_steps", "render_mode"}  # arguments that change nothing of what actions lead to


class ExactModel:
    """The model of one environment, which its id and its arguments name: a saved agent needs no more to have it again.

    Time limits are no part of it. Raises UserError for an environment without one.
    """

    def __init__(self, env_id: str, kwargs: Mapping[str, Any]) -> None:
        if env_id not in MODELS:
            raise UserError(
                f"{env_id} has no exact model (known: {', '.join(MODELS)}); model = learned learns one from experience"
            )
        self.env_id, self.kwargs = env_id, {name: value for name, value in kwargs.items() if name not in SCREEN}
        self.source: Dynamics | Tables
        if env_id in TOY_TEXT:
            self.source = self._tables()
        else:
            self.source = self._dynamics()

    def _dynamics(self) -> Dynamics:
        try:
            return DYNAMICS[self.env_id](**self.kwargs)
        except TypeError as error:
            raise UserError(f"the exact model of {self.env_id} with {self.kwargs}: {error}") from None

    def _tables(self) -> Tables:
        rows = self.kwargs.get("desc")
        if rows is None and self.kwargs.get("map_name", "4x4") is None:
            raise UserError(f"{self.env_id} draws a map at random, which has no one model; name one with desc")
        if rows is not None and not (isinstance(rows, list) and all(isinstance(row, str) for row in rows)):
            raise UserError(f'{self.env_id}: desc is no list of rows, such as ["SF", "FG"]')
        if rows is not None and sum(map(len, rows)) > CELLS_LIMIT:
            raise UserError(f"{self.env_id}: the exact model of a map has at most {CELLS_LIMIT:,} cells")
        env = make_env(self.env_id, **self.kwargs)
        try:
            return tables(env)
        finally:
            env.close()

    def outcomes(self, obs: Array, actions: Array) -> Outcomes:
        """Return what `actions`, (A, ...) in the environment's units, lead to from observations, (N, ...)."""
        if isinstance(self.source, Tables):
            rows = Tables(*(table[obs[:, None], actions] for table in self.source))  # (N, A, K)
            return Outcomes(rows.next_state, rows.probability, rows.reward, rows.terminated)
        next_obs, reward, terminated = successors(self.source, obs, actions)
        one = np.ones((*reward.shape, 1))
        return Outcomes(next_obs[:, :, None], one, reward[..., None], terminated[..., None])


def exact_model(task: Task) -> ExactModel:
    """Return the exact model of a task. Raises UserError, which says what to do instead, if it has none."""
    name = task.plain_id
    if name is None:
        raise UserError(
            "model = exact is for an id with nothing around it; wrappers, stacked frames, masks and environments of "
            "one's own have no known model: use model = learned"
        )
    return ExactModel(name, task.kwargs)
