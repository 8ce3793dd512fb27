"""A trained algorithm with all that it needs to act on raw observations; what runs save and users load."""

import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo import registry
from zoo.envs.normalize import ObsNormalizer
from zoo.errors import EnvError, UserError, said
from zoo.protocol import END, Algorithm, Optimizer
from zoo.spaces import Array, Flat, cast, complaint, joined_masks, shown
from zoo.spec import Spec, Unfit
from zoo.storage.description import Description, describe, describe_model
from zoo.storage.files import METRICS, Folder, open_folder
from zoo.storage.state import saved_names
from zoo.storage.tensors import differences, forms, write_tensors
from zoo.storage.untrusted import Row, read_rows

SCHEMA = 1
WEIGHTS, DESCRIPTION = "agent.safetensors", "agent.json"


class Agent(nn.Module):
    """An algorithm, the spaces it was made for, and the observation statistics that it was trained with."""

    run: Path | None = None  # the folder of the run that it is from

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
        action_masks: Any = None,
    ) -> tuple[Array, Any]:
        """Return (action, state) for one observation or a batch of them, (N, ...), in the environment's own units.

        With `deterministic=False` the behaviour policy acts as at the end of a training, exploration included: ε at
        its end, noise on actions, no warm-up. It draws from a stream of its own, so that training goes on as if nobody
        had asked. `episode_start`, a flag or (N,) of them, says which observations begin an episode, where
        Ornstein-Uhlenbeck noise starts anew; nothing else depends on it. `state` belongs to Stable-Baselines3's
        interface: agents here keep none, and return what they were given. `action_masks`, (A,) or (N, A), says which
        actions are allowed, to an agent that was trained with masks.

        Raises UserError if an observation has another shape, or values that the type of its space does not hold.
        """
        encoded = _encoded(obs, self.spec, action_masks)
        single = encoded.shape == self.spec.obs_shape
        batch = encoded[None] if single else encoded
        started = None if episode_start is None else _flags(episode_start, len(batch))
        action = self.respond(batch, deterministic, started)
        return (action[0] if single else action), state

    def respond(self, encoded: Array, deterministic: bool = True, started: Array | None = None) -> Array:
        """Return actions in the environment's units for observations in the algorithm's form, (N, ...)."""
        obs = encoded if self.obs_normalizer is None else self.obs_normalizer(encoded)
        return self.spec.decode_action(self.act(obs, deterministic, started))

    @torch.inference_mode()
    def act(self, obs: Array, deterministic: bool = True, started: Array | None = None) -> Array:
        """Return actions in the algorithm's own units for observations in its own form (normalised), (N, ...)."""
        tensor = torch.as_tensor(obs, device=next(self.algo.parameters()).device)
        if deterministic:
            action: Tensor = self.algo.greedy(tensor)
        else:
            action, _ = self._behaviour.act(tensor, END._replace(started=started))
        return action.cpu().numpy()

    @cached_property
    def _behaviour(self) -> Any:
        """Return the algorithm with the same weights, but copies of what acting changes, such as the generator."""
        behaviour = copy.copy(self.algo)
        for name in saved_names(self.algo):
            setattr(behaviour, name, copy.deepcopy(getattr(self.algo, name)))
        return behaviour

    @cached_property
    def history(self) -> list[Row]:
        """The rows of metrics of its training, the oldest first, as `pandas.DataFrame(agent.history)` takes them.

        They are no part of a saved agent: one that was loaded from a run's folder reads that run's when it is asked for
        them, another one has none. Raises UserError if they cannot be read.
        """
        if self.run is None:
            return []
        with open_folder(self.run) as folder:
            return read_rows(folder, METRICS)

    def start_from(self, other: "Agent") -> None:
        """Take the weights of another agent, target networks included, and its observation statistics.

        Raises UserError, which names what differs, unless algorithm, spaces, and names and shapes of weights agree.
        """
        for what, theirs, mine in (
            ("algorithm", other.name, self.name),
            ("normalize_obs", other.obs_normalizer is not None, self.obs_normalizer is not None),
            ("scale_actions", other.spec.scale_actions, self.spec.scale_actions),
        ):
            if theirs != mine:
                raise UserError(f"the agent to start from has {what} = {theirs}, this run {mine}; they must agree")
        other.spec.check_same(self.spec)
        weights = other.weights()
        wrong = differences(self.name, forms(weights), forms(self.weights()))
        if wrong:
            given, config = (registry.to_json(agent.algo.config) for agent in (other, self))
            apart = ", ".join(key for key in config if config[key] != given.get(key))
            raise UserError(f"the agent to start from has other weights: {wrong}; settings that differ: {apart}")
        self.load_state_dict(weights, strict=False)

    def weights(self) -> dict[str, Tensor]:
        """Return what acting needs: all parameters and statistics, without the state of optimisers."""
        optimizers = tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, Optimizer))
        return {key: value for key, value in self.state_dict().items() if not key.startswith(optimizers)}

    def save(self, path: str | Path) -> None:
        """Write agent.safetensors and agent.json into the folder at `path`, made if it is missing.

        Raises UserError if it cannot be made.
        """
        with open_folder(Path(path), make=True) as folder:
            self.write(folder)

    def write(self, folder: Folder) -> None:
        """Write agent.safetensors and agent.json into an open folder."""
        description = Description.model_construct(
            algorithm=self.name,
            config=registry.to_json(self.algo.config),
            spaces=describe(self.spec),
            normalize_obs=self.obs_normalizer is not None,
            model=describe_model(self.spec),
        )
        with folder.write(WEIGHTS) as file:
            write_tensors(file, self.weights())
        described = description.model_dump()
        if described["model"] is None:
            del described["model"]
        folder.write_json(DESCRIPTION, {"schema": SCHEMA} | described)


def _encoded(obs: Any, spec: Spec, masks: Any) -> Array:
    """Return one observation or a batch of them as algorithms see them.

    Raises UserError if the shape is another, or if a cast would change more than the precision of a value.
    """
    given = _flattened(obs, spec, masks) if isinstance(spec.observation_space, Flat) else _array("observation", obs)
    if masks is not None and not spec.num_masks:
        raise UserError("action_masks are for agents that were trained with --action-masks; this one was not")
    dtype = spec.obs_dtype
    if given.dtype != dtype:
        typed, kept = cast(given, dtype)
        if not kept.all():
            raise UserError(f"observation {complaint(given, kept, dtype)}")
        given = typed
    if spec.obs_shape not in (given.shape, given.shape[1:]):
        raise UserError(f"observation of shape {given.shape}; expected {spec.obs_shape} or a batch of these")
    single = given.shape == spec.obs_shape
    batch = given[None] if single else given
    try:
        encoded = spec.encode_obs(batch, len(batch))
    except Unfit as unfit:
        raise UserError(str(unfit)) from None
    return encoded[0] if single else encoded


def _flattened(obs: Any, spec: Spec, masks: Any) -> Array:
    """Return one observation or a batch of them as vectors. Raises UserError for what is not in their space."""
    space = spec.observation_space
    assert isinstance(space, Flat)
    try:
        if not space.is_batch(obs):
            return space.flatten(obs, joined_masks(masks, spec.action_sizes) if space.masks else None)
        each = [joined_masks(mask, spec.action_sizes) for mask in ([None] if masks is None else masks) if space.masks]
        return space.flatten_batch(obs, each if space.masks else None)
    except UserError:
        raise
    except EnvError as error:
        raise UserError(str(error)) from None
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"observation is none of {shown(space)}: {said(error)}") from None


def _flags(given: Any, count: int) -> Array:
    """Return `episode_start` as an array of flags, (count,). Raises UserError unless it is one flag or so many."""
    array = _array("episode_start", given)
    flags, kept = cast(array, np.dtype(np.bool_))
    if not kept.all() or flags.shape not in ((), (count,)):
        raise UserError(
            f"episode_start has shape {array.shape} of {array.dtype}; expected True or False, or {count} of these"
        )
    return np.array(np.broadcast_to(flags, count))


def _array(name: str, given: Any) -> Array:
    """Return an argument as an array. Raises UserError if it is none."""
    if isinstance(given, np.ndarray):
        return given
    try:
        return np.asarray(given)
    except (RuntimeError, TypeError, ValueError) as error:  # of a ragged list; of a tensor on another device
        raise UserError(f"{name} is no array of one shape: {error}") from None
