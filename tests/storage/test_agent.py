"""`predict` and `evaluate` with deterministic=False act as a training does at its end, and leave a training alone."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from numpy.typing import NDArray
from scipy.stats import chisquare, kstwobign, norm

import zoo
from zoo import registry
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.parts.networks import Policy
from zoo.parts.squashed import Deterministic, SquashedPolicy
from zoo.protocol import END, Progress
from zoo.settings import resolve
from zoo.spec import Spec
from zoo.storage.agent import Agent
from zoo.training.loop import Inline, Learner

Array = NDArray[Any]
Cdf = Callable[[Array], Array]

OBS = spaces.Box(-1, 1, (3,))
SPACES: dict[type, Any] = {spaces.Box: spaces.Box(-1, 1, (1,)), spaces.Discrete: spaces.Discrete(3)}
ENTRIES = sorted(registry.load().algorithms)
FORMS = [(name, form) for name in ENTRIES for form in SPACES if form in registry.load_class(name).spaces]
WITH_WARM_UP = ["ddpg", "sac", "td3"]
DRAWS = 4000


def make(name: str, space: Any, **settings: Any) -> Agent:
    """An agent whose policy is far from uniform."""
    spec, cls = Spec(OBS, space), registry.load_class(name)
    algo: Any = registry.make(name, spec, cls.Config(hidden=(8,), **settings), SeedSequence(0))
    net = algo.actor if hasattr(algo, "actor") else algo.q
    with torch.no_grad():
        if isinstance(net, SquashedPolicy):
            net.mean.bias.fill_(0.8)
            net.log_std.bias.fill_(-1.5)
        elif isinstance(net, Deterministic):
            last_linear(net).bias.fill_(0.9)
        elif isinstance(net, Policy) and net.is_box:
            last_linear(net).bias.fill_(0.6)
            net.log_std.fill_(-1.0)
        else:
            last_linear(net).bias.copy_(torch.tensor([2.0, 0.0, -1.0]))
    return Agent(name, algo, spec)


def last_linear(net: Any) -> Any:
    return [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)][-1]


def distance(sample: Array, cdf: Cdf) -> float:
    """The p-value of Kolmogorov and Smirnov; on a grid, since clipped actions have atoms at both ends."""
    grid = np.linspace(-1, 1, 2001)
    empirical = np.searchsorted(np.sort(sample), grid, side="right") / len(sample)
    largest = np.abs(empirical - cdf(grid)).max()
    return float(kstwobign.sf(largest * math.sqrt(len(sample))))


def uniform(x: Array) -> Array:
    return (x + 1) / 2


def clipped(mean: float, std: float) -> Cdf:
    """A normal, clipped to [-1, 1]."""
    return lambda x: np.where(x < 1, norm.cdf(x, mean, std), 1.0)


def policy_cdf(agent: Agent, obs: Array) -> Cdf:
    """How likely an action up to x is in one state, from what the network says there."""
    algo = agent.algo
    with torch.no_grad():
        out = algo.actor(torch.from_numpy(obs[None]))
    if isinstance(algo.actor, Deterministic):
        return clipped(out.item(), algo.config.noise_std)
    mean, std = out.mean.item(), math.exp(out.log_std.item())
    if isinstance(algo.actor, SquashedPolicy):
        return lambda x: norm.cdf(np.arctanh(np.clip(x, -1 + 1e-12, 1 - 1e-12)), mean, std)
    return clipped(mean, std)


def policy_probabilities(agent: Agent, obs: Array) -> Array:
    """Softmax, or ε-greedy with ε at its end."""
    algo, state = agent.algo, torch.from_numpy(obs[None])
    with torch.no_grad():
        if not hasattr(algo, "q"):
            logits = algo.actor.net(state)[0].double().numpy()
            return np.array(np.exp(logits) / np.exp(logits).sum())
        q = algo.q(state)[0].numpy()
    epsilon = algo.config.epsilon_end
    return np.array(epsilon / 3 + (1 - epsilon) * (np.arange(3) == q.argmax()))


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_stochastic_actions_follow_the_policy_at_the_end_of_a_training(name: str, form: type) -> None:
    settings = {"noise_std": 0.3} if name in ("ddpg", "td3") else {}
    agent = make(name, SPACES[form], **settings)
    obs = np.array([0.3, -0.5, 0.1], np.float32)
    action, _ = agent.predict(np.tile(obs, (DRAWS, 1)), deterministic=False)
    if form is spaces.Box:
        assert distance(action[:, 0], policy_cdf(agent, obs)) > 1e-3
        assert distance(action[:, 0], uniform) < 1e-9
    else:
        counts, probability = np.bincount(action, minlength=3), policy_probabilities(agent, obs)
        assert chisquare(counts, DRAWS * probability).pvalue > 1e-3
        assert chisquare(counts).pvalue < 1e-9


@pytest.mark.parametrize("name", WITH_WARM_UP)
def test_warm_up_would_be_noticed(name: str) -> None:
    agent = make(name, SPACES[spaces.Box])
    obs = np.array([0.3, -0.5, 0.1], np.float32)
    with torch.no_grad():
        action, _ = agent.algo.act(torch.from_numpy(np.tile(obs, (DRAWS, 1))), Progress(1, 1))
    assert distance(action[:, 0].numpy(), uniform) > 1e-3
    assert distance(action[:, 0].numpy(), policy_cdf(agent, obs)) < 1e-9


class Echo(gym.Env[Any, Any]):
    """One step; its reward is the action."""

    observation_space, action_space = OBS, SPACES[spaces.Box]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.array([0.3, -0.5, 0.1], np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(3, np.float32), float(action[0]), True, False, {}


@pytest.mark.parametrize("name", WITH_WARM_UP)
def test_stochastic_evaluation_plays_the_policy(name: str) -> None:
    agent = make(name, SPACES[spaces.Box])
    found = zoo.evaluate(agent, Echo, episodes=DRAWS, deterministic=False, num_envs=100).returns
    assert distance(found, policy_cdf(agent, np.array([0.3, -0.5, 0.1], np.float32))) > 1e-3


@pytest.mark.parametrize("name", ENTRIES)
def test_the_end_is_after_every_warm_up_and_schedule(name: str) -> None:
    config = registry.load_class(name).Config()
    assert END.fraction == 1
    assert getattr(config, "learning_starts", 0) < END.step


def test_one_episode_start_stands_for_all_and_restarts_the_noise() -> None:
    agent = make("ddpg", SPACES[spaces.Box], noise="ou", noise_std=1.0)
    obs = np.zeros((DRAWS, 3), np.float32)
    mean = agent.predict(obs[0])[0].item()
    for _ in range(50):
        going_on, _ = agent.predict(obs, deterministic=False)
    restarted, _ = agent.predict(obs, episode_start=np.ones(DRAWS, np.bool_), deterministic=False)
    together, _ = agent.predict(obs, episode_start=True, deterministic=False)
    assert distance(restarted[:, 0], clipped(mean, 0.1)) > 1e-3
    assert distance(together[:, 0], clipped(mean, 0.1)) > 1e-3
    assert distance(going_on[:, 0], clipped(mean, 0.1)) < 1e-9


def trained(name: str, ask: Callable[[Agent, Envs], None]) -> Array:
    """All weights after a short training, in which `ask` is called between steps."""
    env = "Pendulum-v1" if registry.load_class(name).spaces == (spaces.Box,) else "CartPole-v1"
    settings = {"learning_starts": 8, "train_every": 1, "num_steps": 4, "batch_size": 8, "hidden": (8,), "noise": "ou"}
    config_type = registry.load_class(name).Config
    known = {key: value for key, value in settings.items() if key in config_type.__dataclass_fields__}
    config = resolve(name, env, known, use_tuned=False).config
    envs = Envs(vectorize(env, 2), SeedSequence(0))
    algo: Any = registry.make(name, envs.spec, config, SeedSequence(1))
    agent = Agent(name, algo, envs.spec)
    learner = Learner(algo, Inline(algo, envs), algo.make_buffer(envs.spec, 2))
    for _ in learner.reports(total_steps=80, log_every=80, on_step=lambda: ask(agent, envs)):
        pass
    envs.close()
    return torch.cat([p.detach().flatten() for p in algo.parameters()]).numpy()


def predict_in_between(agent: Agent, envs: Envs) -> None:
    for deterministic in (True, False):
        agent.predict(envs.obs, deterministic=deterministic)
        agent.predict(envs.obs[:1], deterministic=deterministic)


@pytest.mark.parametrize("name", ENTRIES)
def test_predicting_between_two_steps_leaves_a_training_as_it_was(name: str) -> None:
    alone = trained(name, lambda agent, envs: None)
    np.testing.assert_array_equal(trained(name, predict_in_between), alone)
    # Control: acting with the algorithm itself is noticed.
    disturbed = trained(name, lambda agent, envs: agent.algo.act(torch.from_numpy(envs.obs), END)[0])
    assert (disturbed != alone).any()


def test_predictions_see_weights_that_were_trained_since() -> None:
    agent = make("sac", SPACES[spaces.Box])
    obs = np.zeros((DRAWS, 3), np.float32)
    agent.predict(obs, deterministic=False)
    with torch.no_grad():
        agent.algo.actor.mean.bias.fill_(-0.8)
    action, _ = agent.predict(obs, deterministic=False)
    assert distance(action[:, 0], policy_cdf(agent, obs[0])) > 1e-3
    assert not [key for key in agent.state_dict() if "behaviour" in key]
