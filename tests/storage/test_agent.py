"""How agents act with deterministic=False, which leaves a training alone, and how one takes another's weights."""

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
from zoo import registry, runs
from zoo.envs.envs import Envs
from zoo.envs.make import vectorize
from zoo.envs.normalize import ObsNormalizer
from zoo.errors import UserError
from zoo.parts.critics import Q
from zoo.parts.networks import Policy, V
from zoo.parts.squashed import Deterministic, SquashedPolicy
from zoo.protocol import END, Optimizer, Progress
from zoo.settings import resolve
from zoo.spec import Spec
from zoo.storage.agent import Agent
from zoo.training.loop import Inline, Learner
from zoo.training.weights import weights_of

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
    net = next(getattr(algo, name) for name in ("actor", "q", "v") if hasattr(algo, name))
    with torch.no_grad():
        if isinstance(net, SquashedPolicy):
            net.mean.bias.fill_(0.8)
            net.log_std.bias.fill_(-1.5)
        elif isinstance(net, Deterministic):
            last_linear(net).bias.fill_(0.9)
        elif isinstance(net, Policy) and net.is_box:
            last_linear(net).bias.fill_(0.6)
            net.log_std.fill_(-1.0)
        elif not isinstance(net, V):  # whose actions are ε-greedy, by what a model says
            head = net.advantage if isinstance(net, Q) else last_linear(net)
            head.bias.copy_(torch.tensor([2.0, 0.0, -1.0]))
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
    if hasattr(algo, "v"):
        probabilities = policy_probabilities(agent, obs)
        return lambda x: ((algo.actions[:, 0].numpy() <= x[:, None]) * probabilities).sum(1)
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
        if hasattr(algo, "v"):
            q = algo.action_values(state, algo.model(state), algo.v)[0].numpy()
        elif hasattr(algo, "q"):
            q = algo.q(state)[0].numpy()
        else:
            logits = algo.actor.net(state)[0].double().numpy()
            return np.array(np.exp(logits) / np.exp(logits).sum())
    epsilon = algo.config.epsilon_end
    return np.array(epsilon / len(q) + (1 - epsilon) * (np.arange(len(q)) == q.argmax()))


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


OBSERVATIONS: dict[str, Any] = {
    "box": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "doubles": spaces.Box(-1, 1, (3,), np.float64),
    "image": spaces.Box(0, 255, (9, 9, 2), np.uint8),
    "discrete": spaces.Discrete(5, start=-2),
}
IMAGE = np.arange(162).reshape(9, 9, 2)


def untrained(space: str) -> Agent:
    spec = Spec(OBSERVATIONS[space], spaces.Discrete(3))
    config = registry.load_class("ppo").Config(hidden=(4,))
    return Agent("ppo", registry.make("ppo", spec, config, SeedSequence(0)), spec)


def choice(agent: Agent, obs: Any) -> Any:
    """What the network answers, whatever `predict` does before it."""
    with torch.no_grad():
        return agent.algo.greedy(torch.from_numpy(obs)).numpy().tolist()


KEPT: dict[str, tuple[str, Any, Any]] = {
    "float32": ("box", np.ones(3, np.float32), np.ones((1, 3), np.float32)),
    "float64": ("box", np.array([1.0, 2.0, 3.0]), np.array([[1, 2, 3]], np.float32)),
    "a list": ("box", [1, 2.5, True], np.array([[1, 2.5, 1]], np.float32)),
    "a batch of lists": ("box", [[1, 2, 3], [4, 5, 6]], np.array([[1, 2, 3], [4, 5, 6]], np.float32)),
    "a tensor": ("box", torch.arange(3), np.array([[0, 1, 2]], np.float32)),
    "float16": ("box", np.ones(3, np.float16), np.ones((1, 3), np.float32)),
    "precision that a network has not": ("doubles", np.array([0.1, 0.2, 0.3]), np.array([[0.1, 0.2, 0.3]], np.float32)),
    "an image": ("image", IMAGE.astype(np.uint8), IMAGE[None].astype(np.uint8)),
    "an image of int64": ("image", IMAGE, IMAGE[None].astype(np.uint8)),
    "an image of lists": ("image", IMAGE.tolist(), IMAGE[None].astype(np.uint8)),
    "a number": ("discrete", -2, np.array([0])),
    "numbers of int8": ("discrete", np.array([2, 0], np.int8), np.array([4, 2])),
    "none": ("box", np.zeros((0, 3)), np.zeros((0, 3), np.float32)),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_cast_that_keeps_values_is_made(case: str) -> None:
    space, obs, encoded = KEPT[case]
    agent = untrained(space)
    action, _ = agent.predict(obs)
    assert np.atleast_1d(action).tolist() == choice(agent, encoded)
    assert np.ndim(action) == (np.ndim(obs) if isinstance(obs, int) else np.ndim(np.asarray(obs))) - len(
        agent.spec.obs_shape
    )


REFUSED: dict[str, tuple[str, Any, str]] = {
    "an image of 300": ("image", np.full((9, 9, 2), 300), "observation holds 300, which does not fit uint8"),
    "a negative image": ("image", np.full((9, 9, 2), -1), "observation holds -1, which does not fit uint8"),
    "an image of floats": ("image", np.full((9, 9, 2), 0.5), "observation is of float64; its space is of uint8"),
    "an image of float32": (
        "image",
        np.ones((9, 9, 2), np.float32),
        "observation is of float32; its space is of uint8",
    ),
    "NaN": ("box", [0, np.nan, 0], r"observation is NaN or infinite as float32: \[ *0. nan  0.\]"),
    "NaN of float32": ("box", np.full((2, 3), np.nan, np.float32), r"NaN or infinite as float32: \[nan nan nan\]"),
    "infinity": ("box", np.array([0, 0, -np.inf], np.float32), r"NaN or infinite as float32: \[ *0. *0. -inf\]"),
    "beyond float32": ("box", [0, 0, 1e300], r"observation holds 1e\+300, which does not fit float32"),
    "text": ("box", ["1", "2", "3"], "observation is of <U1; its space is of float32"),
    "a text": ("discrete", "1", "observation is of <U1; its space is of int64"),
    "None": ("box", None, r"observation is of object|of shape \(\)"),
    "complex": ("box", np.zeros(3, np.complex64), "observation is of complex64; its space is of float32"),
    "ragged": ("box", [[1, 2, 3], [1, 2]], "observation is no array of one shape"),
    "a tensor with a gradient": ("box", torch.ones(3, requires_grad=True), "observation is no array"),
    "another shape": ("box", np.zeros(4, np.float32), r"observation of shape \(4,\); expected \(3,\) or a batch"),
    "a number for a vector": ("box", 1.0, r"observation of shape \(\); expected \(3,\) or a batch"),
    "too many axes": ("box", np.zeros((2, 2, 3)), r"observation of shape \(2, 2, 3\); expected \(3,\) or a batch"),
    "channels first": ("image", np.zeros((2, 9, 9), np.uint8), r"shape \(2, 9, 9\); expected \(9, 9, 2\) or"),
    "a vector for a number": ("discrete", np.zeros((2, 2), np.int64), r"observation of shape \(2, 2\); expected \(\)"),
    "a choice too large": ("discrete", 3, r"observation is outside of Discrete\(5, start=-2\): 3"),
    "a choice too small": ("discrete", np.array([0, -3]), r"observation is outside of Discrete\(5, start=-2\): -3"),
    "a fraction of a choice": ("discrete", 0.5, "observation is of float64; its space is of int64"),
    "a choice that wraps around": ("discrete", np.uint64(2**63 + 1), "does not fit int64|which"),
}


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_in_one_line(case: str, deterministic: bool) -> None:
    space, obs, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as raised:
        untrained(space).predict(obs, deterministic=deterministic)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "started", [True, 0, [True, False], np.array([1, 0]), np.zeros(2, np.bool_), torch.ones(2)[:0] > 0]
)
def test_an_episode_start_is_a_flag_for_all_or_for_each(started: Any) -> None:
    count = 0 if isinstance(started, torch.Tensor) else 2
    action, _ = untrained("box").predict(np.zeros((count, 3)), episode_start=started, deterministic=False)
    assert len(action) == count


@pytest.mark.parametrize(
    "started", [[True], [True] * 3, [[True, False]], 2, [0.0, 1.0], "yes", np.nan, [[1], [1, 0]], [None] * 2]
)
def test_another_episode_start_is_refused(started: Any) -> None:
    with pytest.raises(UserError, match=r"episode_start (has shape|is no array).*"):
        untrained("box").predict(np.zeros((2, 3)), episode_start=started)


# Starting from another agent


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_an_agent_takes_all_weights_of_another_and_no_optimiser(name: str, form: type) -> None:
    other, agent = make(name, SPACES[form]), beginner(name, SPACES[form])
    for module in other.modules():
        if isinstance(module, Optimizer):
            for tensor in module.buffers():  # type: ignore[attr-defined]
                tensor.add_(1)
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    agent.start_from(other)
    obs = np.array([0.3, -0.2, 0.5], np.float32)
    np.testing.assert_array_equal(agent.predict(obs)[0], other.predict(obs)[0])
    for key, value in agent.state_dict().items():
        assert torch.equal(value, other.state_dict()[key] if key in agent.weights() else before[key]), key
    assert any("optimizer" in key for key in before.keys() - agent.weights().keys())
    first = next(iter(other.algo.parameters()))
    with torch.no_grad():
        first.add_(1)  # they share nothing
    assert not torch.equal(first, next(iter(agent.algo.parameters())))


def beginner(name: str, space: Any, *, obs: Any = OBS, scale: bool = True, normalize: bool = False) -> Agent:
    spec = Spec(obs, space, scale_actions=scale)
    algo = registry.make(name, spec, registry.load_class(name).Config(hidden=(8,)), SeedSequence(1))
    return Agent(name, algo, spec, ObsNormalizer(obs) if normalize else None)


BOX = SPACES[spaces.Box]


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (lambda: beginner("a2c", BOX), "has algorithm = ppo, this run a2c"),
        (lambda: beginner("ppo", BOX, normalize=True), "has normalize_obs = False, this run True"),
        (lambda: beginner("ppo", BOX, scale=False), "has scale_actions = True, this run False"),
        (lambda: beginner("ppo", SPACES[spaces.Discrete]), "trained for action_space"),
        (lambda: beginner("ppo", BOX, obs=spaces.Box(-2, 2, (3,))), "trained for observation_space"),
    ],
)
def test_what_differs_is_named_and_nothing_changes(agent: Callable[[], Agent], message: str) -> None:
    mine = agent()
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    with pytest.raises(UserError, match=message):
        mine.start_from(beginner("ppo", BOX))
    assert all(torch.equal(value, before[key]) for key, value in mine.state_dict().items())


def test_observation_statistics_come_along_before_anything_is_observed() -> None:
    given = {"seed": 0, "num_envs": 2, "num_steps": 8, "batch_size": 16, "total_steps": 64, "normalize_obs": True}
    agent = zoo.train("ppo", "Pendulum-v1", **given, eval_episodes=0)
    settings = runs.prepare("ppo", "Pendulum-v1", given, source="test")
    learner, _ = runs.assemble(settings, "Pendulum-v1", SeedSequence(1), SeedSequence(2), init=agent)
    assert isinstance(learner.source, Inline)
    envs, saved = learner.source.envs, agent.obs_normalizer
    assert saved is not None
    raw = Envs(vectorize("Pendulum-v1", 2), SeedSequence(2)).reset()
    saved.update(raw)
    np.testing.assert_array_equal(envs.obs, saved(raw))
    assert envs.obs_normalizer is not None
    assert float(envs.obs_normalizer.count) == float(saved.count)
    learner.source.close()


def test_a_policy_that_lags_starts_from_the_same_weights() -> None:
    agent = zoo.train("dqn", "CartPole-v1", seed=0, total_steps=512, learning_starts=8, hidden=(8,), eval_every=0)
    settings = runs.prepare("dqn", "CartPole-v1", {"lag": 3, "seed": 1, "hidden": (8,)}, source="test")
    learner, _ = runs.assemble(settings, "CartPole-v1", SeedSequence(1), SeedSequence(2), init=agent)
    assert isinstance(learner.source, Inline)
    assert learner.source.copy is not None
    np.testing.assert_array_equal(weights_of(learner.source.copy), weights_of(agent.algo))
    learner.source.close()
