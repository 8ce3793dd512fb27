"""Train a Stable-Baselines3 model with our settings, and evaluate it as ours are."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from inspect import signature
from typing import Any, cast

import numpy as np
import torch
from numpy.random import SeedSequence
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from zoo.config import schedule
from zoo.crosscheck.sb3 import COUNTERPARTS, arguments
from zoo.runs import task_of
from zoo.settings import Settings
from zoo.spec import Array, Spec
from zoo.storage.agent import Agent
from zoo.training.evaluation import Evaluation, evaluate


@dataclass(frozen=True)
class Trained:
    """The result of a run of theirs."""

    evaluation: Evaluation
    seconds: float  # of training, checks on the way included
    parameters: int
    ignored: list[str]  # settings that they do not have


# What `_arguments` turns into something of theirs, besides the settings that both sides share.
FOLLOWED = (
    "hidden activation optimizer learning_rate_end clip_eps_end log_std_init train_every num_updates noise noise_std "
    "exploration_fraction epsilon_start epsilon_end alpha learn_alpha target_entropy"
)
NOISES = {"gaussian": NormalActionNoise, "ou": OrnsteinUhlenbeckActionNoise}


def train(settings: Settings, on_row: Callable[[dict[str, float]], None] = lambda row: None) -> Trained:
    """Train their algorithm; `on_row` is called with steps and return of each check on the way."""
    run = settings.run
    started = time.monotonic()
    trained = model(settings)
    env = trained.get_env()
    agent = cast(Agent, _Agent(trained, Spec(env.observation_space, env.action_space, scale_actions=False)))
    callback = _Checks(agent, settings, SeedSequence(run.seed).spawn(3)[2], on_row)
    trained.learn(run.total_steps, callback=callback)
    callback.check()
    seconds = time.monotonic() - started
    evaluation = evaluate(agent, task_of(settings), episodes=run.eval_episodes)
    parameters = sum(p.numel() for p in trained.policy.parameters() if p.requires_grad)
    return Trained(evaluation, seconds, parameters, ignored(settings))


def ignored(settings: Settings) -> list[str]:
    """Return the settings that differ from our defaults and do not exist there: they train without them."""
    known = {*COUNTERPARTS[settings.algorithm].shared.split(), *FOLLOWED.split()}
    ours, default = asdict(settings.config), asdict(type(settings.config)())
    return [name for name in ours if name not in known and ours[name] != default[name]]


def model(settings: Settings, classes: Mapping[str, Any] | None = None) -> Any:
    """Make their model, untrained, on environments of its own; `classes` are those of another library, by entry."""
    run = settings.run
    torch.set_num_threads(run.threads)
    env: Any = DummyVecEnv([task_of(settings)] * run.num_envs)
    spec = Spec(env.observation_space, env.action_space, scale_actions=False)
    if run.normalize_obs or run.normalize_reward:
        gamma = settings.config.gamma
        env = VecNormalize(env, norm_obs=run.normalize_obs, norm_reward=run.normalize_reward, gamma=gamma)
    given, cls = _arguments(settings, spec), COUNTERPARTS[settings.algorithm].model
    if classes is not None:  # SBX's networks are not torch's, and its DQN does not clip gradients
        given["policy_kwargs"] = {"net_arch": given["policy_kwargs"]["net_arch"]}
        cls = classes[settings.algorithm]
        given = {name: value for name, value in given.items() if name in signature(cls).parameters}
    return cls("MlpPolicy", env, seed=run.seed, device="cpu", **given)


class _Agent:
    """Their model with the members of an agent that `evaluate` uses."""

    obs_normalizer = None

    def __init__(self, model: Any, spec: Spec) -> None:
        self.model, self.spec = model, spec

    def act(self, obs: Array, deterministic: bool = True, started: Array | None = None) -> Array:
        """Return actions in the environment's units, (N, ...)."""
        normalizer = self.model.get_vec_normalize_env()
        if normalizer is not None:
            obs = normalizer.normalize_obs(obs)
        action: Array = self.model.predict(obs, episode_start=started, deterministic=deterministic)[0]
        return action


class _Checks(BaseCallback):
    """Evaluates after each tenth of the steps, before the next rollout begins."""

    def __init__(
        self,
        agent: Agent,
        settings: Settings,
        seeds: SeedSequence,
        on_row: Callable[[dict[str, float]], None],
    ) -> None:
        super().__init__()
        self.agent, self.settings, self.seeds, self.on_row = agent, settings, seeds, on_row
        self.next_check = settings.run.eval_every or 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.next_check:
            self.check()

    def check(self) -> None:
        """Evaluate now."""
        run = self.settings.run
        every = run.eval_every or run.total_steps
        found = evaluate(self.agent, task_of(self.settings), episodes=run.validation_episodes, seed=self.seeds).mean
        self.on_row({"step": self.num_timesteps, "eval_return": found})
        self.next_check = self.num_timesteps - self.num_timesteps % every + every


def learn(trained: Any, total_steps: int, on_rollout: Callable[[int], None]) -> None:
    """Train a model; `on_rollout` is called with the steps so far whenever all updates that are due are made."""
    trained.learn(total_steps, callback=_Rollouts(on_rollout))


class _Rollouts(BaseCallback):
    def __init__(self, on_rollout: Callable[[int], None]) -> None:
        super().__init__()
        self.on_rollout = on_rollout

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.on_rollout(self.num_timesteps)


def _arguments(settings: Settings, spec: Spec) -> dict[str, Any]:
    """Return the keyword arguments of their class, schedules and exploration included."""
    given = asdict(settings.config)
    found = arguments(settings.algorithm, settings.config)
    for name, theirs in (("learning_rate", "learning_rate"), ("clip_eps", "clip_range")):
        if f"{name}_end" in given and given[f"{name}_end"] is not None:
            found[theirs] = _schedule(given[name], given[f"{name}_end"])
    if "train_every" in given:
        found |= {"train_freq": given["train_every"], "gradient_steps": given["num_updates"]}
    if settings.algorithm == "dqn":
        # Ours counts updates between two copies, theirs steps.
        found["target_update_interval"] = given["target_every"] * given["train_every"] // given["num_updates"]
        found["exploration_fraction"] = given["exploration_fraction"]
        found["exploration_initial_eps"], found["exploration_final_eps"] = given["epsilon_start"], given["epsilon_end"]
    if "noise" in given and given["noise"] != "none":
        mean = np.zeros(spec.action_sizes[0])
        found["action_noise"] = NOISES[given["noise"]](mean, mean + given["noise_std"])
    if "log_std_init" in given:
        found["policy_kwargs"]["log_std_init"] = given["log_std_init"]
    return found


def _schedule(start: float, end: float) -> Callable[[float], float]:
    """Return a linear schedule as a function of the remaining share of the run, from 1 to 0."""
    return lambda left: schedule(start, end, 1 - left)
