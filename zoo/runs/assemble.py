"""Learners and agents, made from settings."""

from functools import partial
from typing import Any, cast

from gymnasium.vector import AutoresetMode
from numpy.random import SeedSequence

from zoo import registry
from zoo.actors.cluster import Cluster
from zoo.actors.processes import Processes
from zoo.actors.remote import Assignment, Remote
from zoo.buffers import ReplayBuffer
from zoo.envs.autoreset import autoreset_mode
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.envs.models import ExactModel, exact_model
from zoo.envs.normalize import ObsNormalizer, RewardClipper, RewardNormalizer
from zoo.envs.task import Task
from zoo.errors import UserError, told
from zoo.protocol import Algorithm, Buffer, Discounted, Source, WithModel
from zoo.settings import Settings
from zoo.spec import Model, Spec
from zoo.storage.agent import Agent
from zoo.training.compile import compile_step
from zoo.training.kernels.acting import DirectActor
from zoo.training.loop import Inline, Learner


def assemble(
    settings: Settings,
    task: Task,
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
        agent, source, buffer = _inline(settings, task, make_stream, train_stream, init)
    else:
        agent, source, buffer = _remote(settings, task, make_stream, train_stream, init)
    algo: Algorithm = agent.algo
    size = {"total_steps": settings.run.total_steps, "num_envs": source.num_envs}
    compiled = compile_step(algo, buffer, settings.run.compile, kernels=settings.run.kernels, **size)
    if compiled and settings.run.kernels == "auto" and isinstance(source, Inline):
        source.actor = cast(Algorithm, DirectActor(source.actor))
    return Learner(algo, source, buffer), agent


def _agent(
    settings: Settings,
    task: Task,
    spec: Spec,
    make_stream: SeedSequence,
    init: Agent | None,
    normalizer: ObsNormalizer | None = None,
) -> Agent:
    """Make the agent. Weights and statistics of `init` must be there before anything acts or observes."""
    if isinstance(settings.config, WithModel) and settings.config.model == "exact":
        spec.model = _exact_model(settings, task)
    algo = registry.make(settings.algorithm, spec, settings.config, make_stream, settings.run.device)
    agent = Agent(settings.algorithm, algo, spec, normalizer)
    if init is not None:
        agent.start_from(init)
    return agent


def _exact_model(settings: Settings, task: Task) -> ExactModel:
    """Return the model of the environment as it is. Raises UserError if the run changes what it observes or rewards."""
    for name in ("normalize_obs", "normalize_reward", "clip_reward"):
        if getattr(settings.run, name):
            raise UserError(f"{name} does not go with model = exact, which knows the environment's own numbers")
    return exact_model(task)


def _inline(
    settings: Settings, task: Task, make_stream: SeedSequence, train_stream: SeedSequence, init: Agent | None
) -> tuple[Agent, Inline, Buffer]:
    run = settings.run
    vector = vectorize(task, run.num_envs, run.vec)
    envs = Envs(
        vector,
        train_stream,
        scale_actions=run.scale_actions,
        obs_normalizer=ObsNormalizer(vector.single_observation_space) if run.normalize_obs else None,
        reward_normalizer=_reward_normalizer(settings),
    )
    if run.normalize_obs:
        envs.spec.num_frames = 1  # each stack is whitened as a whole, by the statistics of its own step
    agent = _agent(settings, task, envs.spec, make_stream, init, envs.obs_normalizer)
    algo: Algorithm = agent.algo
    buffer = _make_buffer(settings, algo, envs.spec, envs.num_envs)
    acting = None
    if run.lag:
        acting = registry.make(settings.algorithm, envs.spec, settings.config, make_stream.spawn(1)[0], run.device)
    return agent, Inline(algo, envs, copy=acting, lag=run.lag), buffer


def _make_buffer(settings: Settings, algo: Algorithm, spec: Spec, num_envs: int) -> Buffer:
    """Make the algorithm's buffer. Raises UserError if it is none, or if the run would end before the first update.

    Only a replay lets it: a run ends on a whole rollout, or after its first segments.
    """
    buffer = algo.make_buffer(spec, num_envs)
    if not isinstance(buffer, Buffer):
        found = f"algorithm {settings.algorithm!r}: make_buffer returns {told(buffer, repr):.100}"
        raise UserError(f"{found}; expected a buffer, such as zoo.buffers.RolloutBuffer")
    total = settings.run.total_steps
    if isinstance(buffer, ReplayBuffer) and (first := first_update(buffer)) - num_envs >= total:
        starts, every = f"learning_starts = {buffer.learning_starts:,}", f"an update every {buffer.train_every:,} steps"
        raise UserError(
            f"total_steps = {total:,}: {settings.algorithm} would end untrained, as its first update comes at step "
            f"{first:,} ({starts}, then {every}); take more steps, or a lower learning_starts"
        )
    return buffer


def first_update(buffer: ReplayBuffer) -> int:
    """Return the step at which an empty replay is first learned from; each step adds `num_envs` transitions."""
    each, every = buffer.num_envs, buffer.train_every
    idle = buffer.learning_starts // each * each  # the last step that is too early
    due = (idle // every + 1) * every
    return -(-due // each) * each


def _reward_normalizer(settings: Settings) -> RewardNormalizer | RewardClipper | None:
    """Return what scales rewards, if anything. Raises UserError if it needs a discount, which the algorithm has not."""
    if not settings.run.normalize_reward:
        return RewardClipper() if settings.run.clip_reward else None
    if not isinstance(settings.config, Discounted):
        raise UserError(f"normalize_reward needs a discount, but {settings.algorithm} has no setting 'gamma'")
    return RewardNormalizer(settings.run.num_envs, settings.config.gamma)


def _make(name: str, config: Any, model: Model | None, spec: Spec, seeds: SeedSequence) -> Algorithm:
    spec.model = model
    return registry.make(name, spec, config, seeds)


def _remote(
    settings: Settings, task: Task, make_stream: SeedSequence, train_stream: SeedSequence, init: Agent | None
) -> tuple[Agent, Remote, Buffer]:
    run = settings.run
    vector = vectorize(task, 1, run.vec)
    spec = Spec(vector.single_observation_space, vector.single_action_space, scale_actions=run.scale_actions)
    mode = autoreset_mode(vector)
    vector.close()
    agent = _agent(settings, task, spec, make_stream, init)
    algo: Algorithm = agent.algo
    buffer = _make_buffer(settings, algo, spec, run.actors * run.num_envs)
    assignment = Assignment(
        make=partial(_make, settings.algorithm, settings.config, spec.model),
        task=task,
        num_envs=run.num_envs,
        vec=run.vec,
        scale_actions=run.scale_actions,
        clip_reward=run.clip_reward,
        num_steps=buffer.num_steps,
        # Each episode may end in a row that only resets.
        max_rows=buffer.num_steps * (2 if mode is AutoresetMode.NEXT_STEP else 1),
        total_steps=run.total_steps,
        seeds=train_stream,
    )
    backend = Processes(algo, spec, assignment) if run.engine == "processes" else Cluster(spec, run.ray_address)
    return agent, Remote(algo, assignment, spec, backend, run.actors), buffer
