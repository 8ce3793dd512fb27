"""Making vector environments: what cannot be one, and which kind is chosen."""

import pytest
from probes import ScriptedEnv

from zoo.envs.ids import make_env
from zoo.envs.make import vectorize
from zoo.errors import UserError
from zoo.settings import resolve


def test_what_cannot_be_vectorised_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be 2 environments"):
        vectorize(ScriptedEnv(), 2)
    with pytest.raises(UserError, match="no vector environment of its own"):
        vectorize("FrozenLake-v1", 2, "native")
    with pytest.raises(UserError, match="cannot be made"):
        make_env("CartPole-v1", no_such_argument=1)


@pytest.mark.parametrize(
    ("env", "num_envs", "vec"),
    [
        ("CartPole-v1", 8, "native"),
        ("CartPole-v1", 7, "sync"),
        ("Acrobot-v1", 16, "native"),
        ("FrozenLake-v1", 64, "sync"),
    ],
)
def test_auto_is_decided_by_the_settings_and_recorded(env: str, num_envs: int, vec: str) -> None:
    assert resolve("ppo", env, {"num_envs": num_envs}).run.vec == vec
    assert resolve("ppo", env, {"num_envs": num_envs, "vec": "async"}).run.vec == "async"
