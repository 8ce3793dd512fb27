"""Rung 2: identical weights, batches and noise; every parameter, target and moment after 1 and after 20 updates.

In float32 within 1e-6 after one update and 1e-5 after twenty; in float64 within 1e-10.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Generator, Tensor

from zoo.crosscheck.check import Check
from zoo.crosscheck.sb3 import Space, Stub, Twins, make, precision
from zoo.protocol import Progress, Segment, Transition, map_fields

OBS = spaces.Box(-10, 10, (5,), np.float32)
DISCRETE, BOX = spaces.Discrete(4), spaces.Box(-1, 1, (3,), np.float32)
NOW = Progress(1000, 1_000_000_000)
TOLERANCES = {torch.float32: (1e-6, 1e-5), torch.float64: (1e-10, 1e-10)}
STEPS, ENVS, SAMPLES = 8, 4, 32


def world(g: Generator) -> Transition[Tensor]:
    """Return random transitions with ends of both kinds, (T, B, ...); actions and log-probabilities are zeros."""
    shape = STEPS, ENVS
    stream, final = torch.randn(STEPS + 1, ENVS, 5, generator=g), torch.randn(*shape, 5, generator=g)
    terminated = torch.rand(shape, generator=g) < 0.15
    truncated = ~terminated & (torch.rand(shape, generator=g) < 0.15)
    next_obs = torch.where((terminated | truncated)[..., None], final, stream[1:])
    reward, zeros = torch.randn(shape, generator=g), torch.zeros(shape)
    return Transition(stream[:-1], zeros, reward, next_obs, terminated, truncated, zeros)


def rollout(algo: Any, g: Generator) -> Transition[Tensor]:
    """Return random transitions with actions of the present policy, (T, B, ...)."""
    batch = world(g)
    with torch.no_grad():
        policy = algo.actor(batch.obs)
        action = policy.sample(algo.actor.noise(STEPS, ENVS, generator=g).to(batch.obs.dtype))
        if action.is_floating_point():
            action = action.float().to(batch.obs.dtype)  # their buffer keeps no more of it
        return batch._replace(action=action, log_prob=policy.log_prob(action))


def fill(model: Any, batch: Transition[Tensor]) -> None:
    """Fill their rollout buffer as their collect_rollouts does: a truncation adds γ V(final) to its reward."""
    buffer, dtype = model.rollout_buffer, batch.obs.numpy().dtype
    with torch.no_grad():
        values = model.policy.predict_values(batch.obs.flatten(0, 1)).reshape(STEPS, ENVS)
        final = model.policy.predict_values(batch.next_obs.flatten(0, 1)).reshape(STEPS, ENVS)
    done = (batch.terminated | batch.truncated).numpy()
    buffer.observations = batch.obs.numpy().copy()
    buffer.actions = batch.action.reshape(STEPS, ENVS, -1).numpy().astype(dtype)
    buffer.rewards = (batch.reward + model.gamma * batch.truncated * final).numpy()
    buffer.episode_starts = np.concatenate([np.zeros((1, ENVS)), done[:-1]]).astype(dtype)
    buffer.values, buffer.log_probs = values.numpy(), batch.log_prob.numpy()
    buffer.advantages, buffer.returns = np.zeros_like(buffer.rewards), np.zeros_like(buffer.rewards)
    buffer.pos, buffer.full, buffer.generator_ready = STEPS, True, False
    buffer.compute_returns_and_advantage(last_values=final[-1], dones=done[-1])


def update_on_policy(twins: Twins, count: int) -> None:
    """Update both from one rollout; their order of samples, environment by environment, is mapped to ours."""
    batch = rollout(twins.algo, twins.generator)
    fill(twins.model, batch)
    orders = [np.random.default_rng((count, epoch)).permutation(STEPS * ENVS) for epoch in range(20)]
    ours = [torch.from_numpy(order % STEPS * ENVS + order // STEPS) for order in orders]
    if isinstance(twins.model, stable_baselines3.PPO):  # A2C makes one update of all rows
        epochs, size = twins.algo.config.num_epochs, twins.algo.config.batch_size
        twins.algo._minibatches = lambda total: [index for order in ours[:epochs] for index in order.split(size)]
    remaining = iter(orders)
    with patch.object(np.random, "permutation", lambda total: next(remaining)):
        twins.model.train()
    twins.algo.update(batch, NOW)


def as_segment(batch: Transition[Tensor]) -> Segment:
    """Return the rows of a rollout, (T, B, ...), as a replay sample of single transitions, (1, TB, ...)."""
    return drawn(map_fields(lambda field: field.flatten(0, 1)[None], batch))


def drawn(rows: Transition[Tensor]) -> Segment:
    """Return rows, (n, N, ...), as a sample of a uniform replay."""
    count = rows.reward.shape[1]
    return Segment(rows, weight=torch.ones(count), slot=torch.arange(count), error=torch.zeros(count))


def sample(twins: Twins) -> Segment:
    """Draw a random replay sample, (1, N, ...)."""
    g, shape, space = twins.generator, (1, SAMPLES), twins.model.action_space
    if isinstance(space, spaces.Discrete):
        action = torch.randint(int(space.n), shape, generator=g)
    else:
        action = 2 * torch.rand(*shape, *space.shape, generator=g) - 1
    obs, next_obs = (torch.randn(*shape, 5, generator=g) for _ in range(2))
    terminated = torch.rand(shape, generator=g) < 0.2
    truncated = ~terminated & (torch.rand(shape, generator=g) < 0.2)
    reward, unused = torch.randn(shape, generator=g), torch.zeros(shape)
    return drawn(Transition(obs, action, reward, next_obs, terminated, truncated, unused))


def theirs(batch: Segment) -> ReplayBufferSamples:
    """Return the same sample in their form, where a truncation is no end."""
    action = batch.action.reshape(len(batch.slot), -1)
    rows = map_fields(lambda field: field[0], batch.rows)
    done = rows.terminated.to(rows.obs.dtype)[:, None]
    return ReplayBufferSamples(rows.obs, action, rows.next_obs, done, rows.reward[:, None])


def update_off_policy(twins: Twins, count: int) -> None:
    """Update both from one random sample."""
    batch = sample(twins)
    update_both(twins, batch, theirs(batch), count)


def update_both(twins: Twins, batch: Segment, samples: ReplayBufferSamples, count: int) -> None:
    """Make one update of each from its own form of the same sample, with the same noise in both."""
    twins.model.replay_buffer = SimpleNamespace(sample=lambda size, env=None: samples)
    draws = [torch.randn(batch.action.shape, generator=twins.generator) for _ in range(2)]
    if twins.name == "td3":
        twins.algo.step = partial(_with_noise, type(twins.algo).step, twins.algo, count)
    if twins.name == "sac":
        pending = iter([draws[0], draws[1][None]])
        twins.algo.actor.noise = lambda *shape, generator: next(pending)
    remaining = iter(draws)
    torch.manual_seed(count)
    with patch.object(torch.distributions.normal, "_standard_normal", lambda *args, **kwargs: next(remaining)):
        twins.model.train(gradient_steps=1, batch_size=len(batch.slot))
    if twins.name == "dqn":
        twins.model._on_step()  # moves the target copy; in their loop it comes before the next update
    twins.algo.update(batch, NOW)


def _with_noise(step: Any, algo: Any, seed: int, batch: Segment, noise: Tensor, with_policy: bool) -> Any:
    """Call TD3's step with the noise that theirs draws from the global stream."""
    torch.manual_seed(seed)
    scale = algo.config.target_noise
    drawn = torch.empty_like(batch.action).normal_(0, scale) / scale
    return step(algo, batch, drawn[None], with_policy)


def compare(name: str, title: str, action: Space, update: Callable[..., None], **settings: Any) -> Iterator[Check]:
    """Compare twins after 1 and after 20 updates, in both precisions."""
    for dtype, tolerances in TOLERANCES.items():
        with precision(dtype):
            twins = make(name, partial(Stub, OBS, action), 1 if update is update_off_policy else ENVS, **settings)
            update(twins, count=1)
            worst = [twins.difference()]
            for count in range(2, 21):
                update(twins, count=count)
            worst.append(twins.difference())
        bits = "float32" if dtype == torch.float32 else "float64"
        for total, found, tolerance in zip((1, 20), worst, tolerances, strict=True):
            what = f"{title}: {total} update{'s' * (total > 1)}, {bits}"
            yield Check(name, 2, "SB3", what, found, tolerance)


ON = {"hidden": (16, 16), "ent_coef": 0.01}
PPO = ON | {"batch_size": 8, "num_steps": STEPS, "num_epochs": 3, "learning_rate": 1e-3}
CLIPPED = PPO | {"clip_eps": 0.02}  # ratios leave it on both sides
A2C = ON | {"num_steps": STEPS}
OFF = {"hidden": (16, 16), "batch_size": SAMPLES, "learning_rate": 1e-3, "capacity": 100}


def ppo() -> Iterator[Check]:
    """Compare both action spaces, clipped values, and a rollout that ends early because of its KL."""
    yield from compare("ppo", "discrete", DISCRETE, update_on_policy, **CLIPPED)
    yield from compare("ppo", "Box", BOX, update_on_policy, **CLIPPED)
    yield from compare("ppo", "clipped value loss", DISCRETE, update_on_policy, **CLIPPED, clip_value=0.1)
    early = PPO | {"learning_rate": 3e-3, "target_kl": 2e-4}
    yield from compare("ppo", "KL stop", DISCRETE, update_on_policy, **early)


def a2c() -> Iterator[Check]:
    """Compare both action spaces, with RMSprop, λ = 1 and below."""
    yield from compare("a2c", "discrete", DISCRETE, update_on_policy, **A2C)
    yield from compare("a2c", "Box, λ = 0.9", BOX, update_on_policy, **A2C, lam=0.9)
    yield from compare("a2c", "whitened advantages", DISCRETE, update_on_policy, **A2C, normalize_advantage=True)


def dqn() -> Iterator[Check]:
    """Compare Huber losses, with the target copied every third update, or moved by τ."""
    yield from compare("dqn", "Huber, hard copies", DISCRETE, update_off_policy, **OFF, target_every=3)
    yield from compare("dqn", "Huber, Polyak", DISCRETE, update_off_policy, **OFF, target_every=1, tau=0.01)


def ddpg() -> Iterator[Check]:
    """Compare with one critic and an update of the policy each time."""
    yield from compare("ddpg", "Box", BOX, update_off_policy, **OFF)


def td3() -> Iterator[Check]:
    """Compare with twin critics, smoothed targets and a delayed policy."""
    yield from compare("td3", "Box", BOX, update_off_policy, **OFF)


def sac() -> Iterator[Check]:
    """Compare learned and fixed temperatures."""
    yield from compare("sac", "learned temperature", BOX, update_off_policy, **OFF)
    yield from compare("sac", "fixed temperature", BOX, update_off_policy, **OFF, alpha=0.2, learn_alpha=False)


CHECKS = {"ppo": ppo, "a2c": a2c, "dqn": dqn, "ddpg": ddpg, "td3": td3, "sac": sac}
