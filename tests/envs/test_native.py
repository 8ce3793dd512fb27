"""Environments stepped as arrays are those of `sync`."""

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence

from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.protocol import Transition


def test_native_cart_poles_are_those_of_sync_episode_for_episode() -> None:
    native, sync = (Envs(vectorize("CartPole-v1", 4, vec), SeedSequence(3)) for vec in ("native", "sync"))
    assert native.mode is AutoresetMode.DISABLED
    native.spec.check_same(sync.spec)
    rng, lengths = np.random.default_rng(0), []
    np.testing.assert_allclose(native.reset(), sync.reset(), rtol=0, atol=1e-7)
    for t in range(1600):
        upright = sync.obs[:, 2] + 0.3 * sync.obs[:, 3] > 0  # keeps the pole up until the time limit
        action = np.where((t < 400) | (rng.random(4) < 0.01), rng.integers(2, size=4), upright)
        one, other = (envs.step(action, np.zeros(4, np.float32)) for envs in (native, sync))
        for name, mine, theirs in zip(Transition._fields, one.transition, other.transition, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5, err_msg=name)
        assert one.alive.all()
        assert one.episodes == other.episodes
        lengths += [episode.length for episode in one.episodes]
    assert len(lengths) > 40
    assert max(lengths) == 500
    native.close()
    sync.close()
