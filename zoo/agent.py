"""A trained algorithm with all that it needs to act on raw observations; what runs save and users load."""

import json
from pathlib import Path
from typing import Any

import torch
from numpy.random import SeedSequence
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo import registry
from zoo.algos.base import Algorithm, Progress
from zoo.config import build
from zoo.errors import UserError
from zoo.normalize import ObsNormalizer
from zoo.spec import Array, Spec

SCHEMA = 1
WEIGHTS, DESCRIPTION = "agent.safetensors", "agent.json"


class Agent(nn.Module):
    """An algorithm, the spaces it was made for, and the observation statistics that it was trained with."""

    def __init__(self, name: str, algo: Algorithm, spec: Spec, obs_normalizer: ObsNormalizer | None = None) -> None:
        super().__init__()
        self.name, self.spec = name, spec
        self.algo: Any = algo
        self.obs_normalizer = obs_normalizer

    def predict(
        self,
        obs: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Array, Any]:
        """(action, state) for one observation or a batch of them, (N, ...), in the environment's own units.

        `state` and `episode_start` belong to Stable-Baselines3's interface: agents here keep no state, and return
        what they were given. With `deterministic=False` the behaviour policy acts, exploration included.
        """
        obs = self.spec.encode_obs(obs)
        single = obs.shape == self.spec.obs_shape
        batch = obs[None] if single else obs
        if batch.shape[1:] != self.spec.obs_shape:
            raise UserError(f"observation of shape {obs.shape}; expected {self.spec.obs_shape} or a batch of these")
        if self.obs_normalizer is not None:
            batch = self.obs_normalizer(batch)
        action = self.spec.decode_action(self.act(batch, deterministic))
        return (action[0] if single else action), state

    @torch.inference_mode()
    def act(self, obs: Array, deterministic: bool = True) -> Array:
        """Actions of the algorithm, in its own units, for observations in its own form (normalised), (N, ...)."""
        tensor = torch.as_tensor(obs, device=next(self.algo.parameters()).device)
        action: Tensor = self.algo.greedy(tensor) if deterministic else self.algo.act(tensor, Progress(1, 1))[0]
        return action.cpu().numpy()

    def weights(self) -> dict[str, Tensor]:
        """What acting needs: every parameter and statistic but the optimisers' moments."""
        return {key: value for key, value in self.state_dict().items() if "optimizer" not in key}

    def save(self, folder: Path) -> None:
        """Write agent.safetensors and agent.json into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "schema": SCHEMA,
            "algorithm": self.name,
            "config": registry.to_json(self.algo.config),
            "spaces": self.spec.to_json(),
            "normalize_obs": self.obs_normalizer is not None,
        }
        save_file({key: value.contiguous() for key, value in self.weights().items()}, folder / WEIGHTS)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load_agent(folder: Path) -> Agent:
    """The agent that `Agent.save` wrote; a UserError that names what does not fit. No file can run code."""
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"no saved agent in {folder}: {name} is missing")
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        saved = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError, OSError) as error:
        raise UserError(f"the agent in {folder} cannot be read: {error}") from None
    schema = description.get("schema") if isinstance(description, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{folder / DESCRIPTION} has schema {schema!r}; expected {SCHEMA}")
    try:
        name, spec = description["algorithm"], Spec.from_json(description["spaces"])
        config: Any = build(registry.load_class(name).Config, description["config"], f"{folder / DESCRIPTION}")
        normalizer = ObsNormalizer(spec.observation_space) if description["normalize_obs"] else None
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, AssertionError, ValueError) as error:
        raise UserError(f"{folder / DESCRIPTION} does not describe an agent: {error!r}") from None
    algo = registry.make(name, spec, config, SeedSequence(0))
    agent = Agent(name, algo, spec, normalizer)
    expected = agent.weights()
    for key in sorted(expected.keys() | saved.keys()):
        found, wanted = (tuple(side[key].shape) if key in side else None for side in (saved, expected))
        if found != wanted:
            raise UserError(f"{folder / WEIGHTS}: {key} has shape {found}; {name} here expects {wanted}")
    agent.load_state_dict(saved, strict=False)
    return agent
