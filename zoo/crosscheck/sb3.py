"""Make a Stable-Baselines3 model and an entry of the zoo as twins: equal settings and, tensor by tensor, weights."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import torch
from gymnasium import spaces
from numpy.random import SeedSequence
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common import policies, preprocessing
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from zoo import registry
from zoo.parts.critics import EnsembleLinear
from zoo.settings import resolve
from zoo.spec import Spec

MOMENTS = {"exp_avg", "exp_avg_sq", "square_avg"}  # of Adam and RMSprop

Space = spaces.Space[Any]


class Stub(gym.Env[Any, Any]):
    """An environment of random observations."""

    def __init__(self, obs: Space, action: Space) -> None:
        self.observation_space, self.action_space = obs, action

    def reset(self, **kwargs: Any) -> Any:
        """Return a random observation."""
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        """Return a random observation and reward 0."""
        return self.observation_space.sample(), 0.0, False, False, {}


@dataclass(frozen=True)
class Pair:
    """A parameter here and its counterpart in Stable-Baselines3: one tensor, or several of an ensemble."""

    ours: Tensor
    theirs: tuple[Tensor, ...]
    combine: Callable[[Iterable[Tensor]], Tensor]

    def copy(self) -> None:
        """Copy theirs into ours."""
        with torch.no_grad():
            self.ours.copy_(self.combine(self.theirs))

    def difference(self) -> float:
        """Return the largest absolute difference."""
        return (self.ours.detach() - self.combine(self.theirs).detach()).abs().max().item()


def _only(tensors: Iterable[Tensor]) -> Tensor:
    (tensor,) = tensors
    return tensor


def _weights(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.T for tensor in tensors])


def _biases(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor[None] for tensor in tensors])


def pair_layers(ours: nn.Module, *theirs: Iterable[nn.Module]) -> Iterator[Pair]:
    """Pair the linear layers of a network, in order, with those of one network of theirs or of an ensemble's."""
    mine = [layer for layer in ours.modules() if isinstance(layer, nn.Linear | EnsembleLinear)]
    nets = [[layer for net in nets for layer in net.modules() if isinstance(layer, nn.Linear)] for nets in theirs]
    for layer, *others in zip(mine, *nets, strict=True):
        ensemble = isinstance(layer, EnsembleLinear)
        yield Pair(layer.weight, tuple(each.weight for each in others), _weights if ensemble else _only)
        yield Pair(layer.bias, tuple(each.bias for each in others), _biases if ensemble else _only)


@dataclass(frozen=True)
class Twins:
    """An entry, its model, and the tensors that must stay equal."""

    name: str
    algo: Any
    model: Any
    nets: dict[str, list[Pair]]
    optimizers: dict[str, tuple[Any, Any]]  # ours and theirs
    generator: torch.Generator

    def copy(self) -> None:
        """Copy their weights into ours, target networks included."""
        for pair in chain.from_iterable(self.nets.values()):
            pair.copy()

    def difference(self) -> float:
        """Return the largest absolute difference over parameters, target networks and optimiser moments."""
        pairs = {id(pair.ours): pair for pair in chain.from_iterable(self.nets.values())}
        found = [pair.difference() for pair in pairs.values()]
        for ours, theirs in self.optimizers.values():
            for name in MOMENTS & dict(ours.named_buffers()).keys():
                found += [pair.difference() for pair in _moments(name, ours, theirs, pairs)]
        return max(found, key=lambda value: (value != value, value))


def _moments(name: str, ours: Any, theirs: Any, pairs: dict[int, Pair]) -> Iterator[Pair]:
    """Pair a running moment of both optimisers, parameter by parameter."""
    pieces = getattr(ours, name).split([p.numel() for p in ours.params])
    for param, piece in zip(ours.params, pieces, strict=True):
        pair = pairs[id(param)]
        # Theirs makes its moments at the first step, which TD3's actor takes later than its critics.
        state = tuple(theirs.state[p].get(name, torch.zeros_like(p)) for p in pair.theirs)
        yield Pair(piece.view_as(param), state, pair.combine)


Parts = tuple[dict[str, list[Pair]], dict[str, tuple[Any, Any]]]


def _actor_v(algo: Any, model: Any) -> Parts:
    theirs = model.policy
    actor = list(pair_layers(algo.actor, [theirs.mlp_extractor.policy_net, theirs.action_net]))
    if isinstance(model.action_space, spaces.Box):
        actor.append(Pair(algo.actor.log_std, (theirs.log_std,), _only))
    critic = list(pair_layers(algo.critic, [theirs.mlp_extractor.value_net, theirs.value_net]))
    return {"actor": actor, "critic": critic}, {"all": (algo.optimizer, theirs.optimizer)}


def _q(algo: Any, model: Any) -> Parts:
    nets = {
        "q": list(pair_layers(algo.q, [model.q_net])),
        "target": list(pair_layers(algo.target_q, [model.q_net_target])),
    }
    return nets, {"q": (algo.optimizer, model.policy.optimizer)}


def _actor_q(algo: Any, model: Any) -> Parts:
    nets = {
        "actor": list(pair_layers(algo.actor, [model.actor.mu])),
        "critic": list(pair_layers(algo.critic, *([net] for net in model.critic.q_networks))),
        "target_actor": list(pair_layers(algo.target_actor, [model.actor_target.mu])),
        "target_critic": list(pair_layers(algo.target_critic, *([net] for net in model.critic_target.q_networks))),
    }
    return nets, {
        "actor": (algo.actor_optimizer, model.actor.optimizer),
        "critic": (algo.critic_optimizer, model.critic.optimizer),
    }


def _soft(algo: Any, model: Any) -> Parts:
    actor = model.actor
    nets = {
        "actor": list(pair_layers(algo.actor, [actor.latent_pi, actor.mu, actor.log_std])),
        "critic": list(pair_layers(algo.critic, *([net] for net in model.critic.q_networks))),
        "target_critic": list(pair_layers(algo.target_critic, *([net] for net in model.critic_target.q_networks))),
    }
    optimizers = {
        "actor": (algo.actor_optimizer, actor.optimizer),
        "critic": (algo.critic_optimizer, model.critic.optimizer),
    }
    if model.log_ent_coef is not None:
        nets["alpha"] = [Pair(algo.log_alpha, (model.log_ent_coef,), lambda tensors: _only(tensors).squeeze())]
        optimizers["alpha"] = (algo.alpha_optimizer, model.ent_coef_optimizer)
    return nets, optimizers


@dataclass(frozen=True)
class Counterpart:
    """The counterpart of an entry in Stable-Baselines3."""

    model: Any  # the class
    shared: str  # settings that both sides know
    match: Callable[[Any, Any], Parts]  # networks and optimisers of an entry and of a model


# All entries that have a twin: every other list of them follows from this one.
COUNTERPARTS = {
    "ppo": Counterpart(
        PPO,
        "num_steps batch_size num_epochs gamma lam learning_rate clip_eps clip_value target_kl ent_coef vf_coef "
        "max_grad_norm normalize_advantage",
        _actor_v,
    ),
    "a2c": Counterpart(
        A2C,
        "num_steps gamma lam learning_rate optimizer_eps ent_coef vf_coef max_grad_norm normalize_advantage",
        _actor_v,
    ),
    "dqn": Counterpart(
        DQN, "capacity learning_starts batch_size n_step gamma tau target_every learning_rate max_grad_norm", _q
    ),
    "ddpg": Counterpart(DDPG, "capacity learning_starts batch_size n_step gamma tau learning_rate", _actor_q),
    "td3": Counterpart(
        TD3,
        "capacity learning_starts batch_size n_step gamma tau learning_rate policy_delay target_noise "
        "target_noise_clip",
        _actor_q,
    ),
    "sac": Counterpart(SAC, "capacity learning_starts batch_size n_step gamma tau learning_rate", _soft),
}

# Settings that have another name there; other shared ones have the same.
RENAMED = {
    "num_steps": "n_steps",
    "n_step": "n_steps",
    "num_epochs": "n_epochs",
    "lam": "gae_lambda",
    "clip_eps": "clip_range",
    "clip_value": "clip_range_vf",
    "optimizer_eps": "rms_prop_eps",
    "capacity": "buffer_size",
    "target_every": "target_update_interval",
    "target_noise": "target_policy_noise",
}
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}


def arguments(name: str, config: Any) -> dict[str, Any]:
    """Return the keyword arguments of their class for our settings."""
    known = {key: getattr(config, key) for key in COUNTERPARTS[name].shared.split()}
    found = {RENAMED.get(key, key): value for key, value in known.items()}
    net = {"pi": list(config.hidden), "vf": list(config.hidden)} if name in ("ppo", "a2c") else list(config.hidden)
    found["policy_kwargs"] = {"net_arch": net, "activation_fn": ACTIVATIONS[config.activation]}
    if name == "sac":
        found["ent_coef"] = f"auto_{config.alpha}" if config.learn_alpha else config.alpha
        found["target_entropy"] = "auto" if config.target_entropy is None else config.target_entropy
    if name == "a2c":
        found["use_rms_prop"] = config.optimizer == "rmsprop"
    return found


def make(name: str, env: Callable[[], gym.Env[Any, Any]], num_envs: int = 1, **settings: Any) -> Twins:
    """Make twins in torch's default dtype, with the preset that reproduces Stable-Baselines3 and these settings."""
    resolved = resolve(name, "", settings, preset="sb3")
    vector = DummyVecEnv([env] * num_envs)
    model = COUNTERPARTS[name].model("MlpPolicy", vector, seed=0, device="cpu", **arguments(name, resolved.config))
    model.set_logger(Logger(folder=None, output_formats=[]))
    spec = Spec(vector.observation_space, vector.action_space, scale_actions=resolved.run.scale_actions)
    algo: Any = registry.make(name, spec, resolved.config, SeedSequence(0))
    if torch.get_default_dtype() == torch.float64:
        algo.double()
        model.policy.double()
        _double_temperature(model)
    nets, optimizers = COUNTERPARTS[name].match(algo, model)
    twins = Twins(name, algo, model, nets, optimizers, torch.Generator().manual_seed(0))
    twins.copy()
    return twins


def _double_temperature(model: Any) -> None:
    """Convert SAC's temperature, which is outside the policy's module."""
    if not isinstance(model, SAC):
        return
    if model.log_ent_coef is None:
        model.ent_coef_tensor = model.ent_coef_tensor.double()
    else:
        model.log_ent_coef.data = model.log_ent_coef.data.double()


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Compute in `dtype` on both sides; for float64, their cast of observations to float32 is disabled."""

    def keep(obs: Any, space: Space, normalize_images: bool = True) -> Any:
        return obs if dtype == torch.float64 else preprocessing.preprocess_obs(obs, space, normalize_images)

    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(dtype)
    torch.set_num_threads(1)
    try:
        with patch.object(policies, "preprocess_obs", keep):
            yield
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)
