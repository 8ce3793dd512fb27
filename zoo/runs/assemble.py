"""Learners and agents, made from settings."""

from functools import partial
from typing import Any, cast

from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence

from zoo import registry
from zoo.actors.cluster import Cluster
from zoo.actors.processes import Processes
from zoo.actors.remote import Job, Remote
from zoo.envs.autoreset import autoreset_mode
from zoo.envs.envs import Envs
from zoo.envs.make import EnvLike, vectorize
from zoo.envs.normalize import ObsNormalizer, RewardNormalizer
from zoo.errors import UserError
from zoo.protocol import Algorithm, Buffer, Discounted, Source
from zoo.settings import Settings
from zoo.spec import Spec
from zoo.storage.agent import Agent
from zoo.training.compile import compile_step
from zoo.training.kernels.acting import DirectActor
from zoo.training.loop import Inline, Learner


def assemble(
    settings: Settings,
    env: EnvLike,
    make_stream: SeedSequence,
    train_stream: SeedSequence,
    *,
    init: Agent | None = None,
) -> tuple[Learner, Agent]:
    """Make a learner and the agent that it trains, as `settings` say; both untrained, or with the weights of `init`.

    Raises UserError if `init` does not fit.
    """
    source: Source
    if settings.run.engine == "inline":
        agent, source, buffer = _inline(settings, env, make_stream, train_stream, init)
    else:
        agent, source, buffer = _remote(settings, env, make_stream, train_stream, init)
    algo: Algorithm = agent.algo
    size = {"total_steps": settings.run.total_steps, "num_envs": source.num_envs}
    compiled = compile_step(algo, buffer, settings.run.compile, kernels=settings.run.kernels, **size)
    if compiled and settings.run.kernels == "auto" and isinstance(source, Inline):
        source.actor = cast(Algorithm, DirectActor(source.actor))
    return Learner(algo, source, buffer), agent


def _agent(
    settings: Settings,
    spec: Spec,
    make_stream: SeedSequence,
    init: Agent | None,
    normalizer: ObsNormalizer | None = None,
) -> Agent:
    """Make the agent. Weights and statistics of `init` must be there before anything acts or observes."""
    algo = registry.make(settings.algorithm, spec, settings.config, make_stream, settings.run.device)
    agent = Agent(settings.algorithm, algo, spec, normalizer)
    if init is not None:
        agent.start_from(init)
    return agent


def _inline(
    settings: Settings, env: EnvLike, make_stream: SeedSequence, train_stream: SeedSequence, init: Agent | None
) -> tuple[Agent, Inline, Buffer]:
    run = settings.run
    vector = vectorize(env, run.num_envs, run.vec)
    envs = Envs(
        vector,
        train_stream,
        scale_actions=run.scale_actions,
        obs_normalizer=ObsNormalizer(vector.single_observation_space) if run.normalize_obs else None,
        reward_normalizer=_reward_normalizer(settings) if run.normalize_reward else None,
    )
    agent = _agent(settings, envs.spec, make_stream, init, envs.obs_normalizer)
    algo: Algorithm = agent.algo
    buffer = algo.make_buffer(envs.spec, envs.num_envs)
    acting = None
    if run.lag:
        acting = registry.make(settings.algorithm, envs.spec, settings.config, make_stream.spawn(1)[0], run.device)
    return agent, Inline(algo, envs, copy=acting, lag=run.lag), buffer


def _reward_normalizer(settings: Settings) -> RewardNormalizer:
    """Return what scales rewards. Raises UserError if the algorithm has no discount, which it needs."""
    if not isinstance(settings.config, Discounted):
        raise UserError(f"normalize_reward needs a discount, but {settings.algorithm} has no setting 'gamma'")
    return RewardNormalizer(settings.run.num_envs, settings.config.gamma)


def _make(name: str, config: Any, spec: Spec, seeds: SeedSequence) -> Algorithm:
    return registry.make(name, spec, config, seeds)


def _remote(
    settings: Settings, env: EnvLike, make_stream: SeedSequence, train_stream: SeedSequence, init: Agent | None
) -> tuple[Agent, Remote, Buffer]:
    run = settings.run
    vector = vectorize(env, 1, run.vec)
    spec = Spec(vector.single_observation_space, vector.single_action_space, scale_actions=run.scale_actions)
    mode = autoreset_mode(vector)
    vector.close()
    agent = _agent(settings, spec, make_stream, init)
    algo: Algorithm = agent.algo
    buffer = algo.make_buffer(spec, run.actors * run.num_envs)
    job = Job(
        make=partial(_make, settings.algorithm, settings.config),
        env=env,
        num_envs=run.num_envs,
        vec=run.vec,
        scale_actions=run.scale_actions,
        num_steps=buffer.num_steps,
        # Each episode may end in a row that only resets.
        max_rows=buffer.num_steps * (2 if mode is AutoresetMode.NEXT_STEP else 1),
        total_steps=run.total_steps,
        seeds=train_stream,
    )
    backend = Processes(algo, spec, job) if run.engine == "processes" else Cluster(spec, run.ray_address)
    return agent, Remote(algo, job, spec, backend, run.actors), buffer
