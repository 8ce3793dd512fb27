"""A saved agent, which may be a stranger's: nothing in it is executed, and all of it is checked before use."""

from typing import Any

import torch
from numpy.random import SeedSequence
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from zoo import registry
from zoo.config import build
from zoo.envs.normalize import ObsNormalizer
from zoo.errors import UserError, brief
from zoo.spec import Spec
from zoo.storage.agent import DESCRIPTION, SCHEMA, WEIGHTS, Agent
from zoo.storage.description import Description
from zoo.storage.files import Folder
from zoo.storage.tensors import check_tensors, read_tensors
from zoo.storage.untrusted import SLACK, TENSORS_LIMIT, TEXT_LIMIT, Budget, read_json


def load_agent(folder: Folder) -> Agent:
    """Load what `Agent.write` wrote. Raises UserError, in one line, which names what does not fit.

    The files may be a stranger's. The network is made under a budget that follows from the size of the file of weights:
    what fits the description, but not the file, is refused before it is allocated. Names, types and shapes are then
    compared with the file's header before any weight is read, and all weights are read before any is assigned.
    """
    for name in (DESCRIPTION, WEIGHTS):
        if not folder.exists(name):
            raise UserError(f"no saved agent in {folder.path}: {name} is missing")
    try:
        return _load(folder)
    except UserError as error:
        raise UserError(brief(str(error))) from None


def _load(folder: Folder) -> Agent:
    description, weights = f"{folder.path / DESCRIPTION}", f"{folder.path / WEIGHTS}"
    described, spec, config = _read_description(description, read_json(folder, DESCRIPTION))
    try:
        with read_tensors(folder, WEIGHTS, limit=TENSORS_LIMIT, header_limit=TEXT_LIMIT) as saved:
            agent = _make(description, described, spec, config, budget=2 * saved.size + SLACK)
            expected = agent.weights()
            check_tensors(weights, described.algorithm, saved.tensors, expected)
            tensors = {key: saved.tensors.get_tensor(key) for key in expected}
            _check_values(weights, tensors)
            agent.load_state_dict(tensors, strict=False)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{weights} cannot be read: {error}") from None
    return agent


def _read_description(file: str, data: Any) -> tuple[Description, Spec, Any]:
    """Return the description, its Spec and the algorithm's Config. Raises UserError, which names what is wrong."""
    schema = data.pop("schema", None) if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{file} has schema {schema!r}; expected {SCHEMA}")
    try:
        description = Description.model_validate(data)
        spec, cls = description.spec(), registry.load_class(description.algorithm)
    except ValidationError as error:
        first = error.errors()[0]
        where, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise UserError(f"{file}: {where}: {message[0].lower()}{message[1:]}") from None
    except (AssertionError, ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"{file}: {error}") from None
    return description, spec, _config(file, cls.Config, description.config)


def _config(file: str, cls: type, values: dict[str, Any]) -> Any:
    """Return the algorithm's settings; those that the file lacks, since they are newer, have their defaults.

    Raises UserError if a setting is unknown, out of range or of another type.
    """
    config: Any = build(cls, values, file)
    for key, value in registry.to_json(config).items():
        # Text would pass as a number, as it does on the command line; a saved agent has numbers.
        if key in values and values[key] != value:
            raise UserError(f"{file}: {key} = {values[key]!r}; expected it as it is saved: {value!r}")
    return config


def _make(file: str, described: Description, spec: Spec, config: Any, *, budget: int) -> Agent:
    """Make an untrained agent of at most `budget` bytes. Raises UserError if there is no such network."""
    try:
        with Budget(budget):
            algo = registry.make(described.algorithm, spec, config, SeedSequence(0))
            normalizer = ObsNormalizer(spec.observation_space) if described.normalize_obs else None
            return Agent(described.algorithm, algo, spec, normalizer)
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]  # torch adds lines about its own source
        raise UserError(f"{file} describes a network that cannot be made: {reason}") from None


def _check_values(file: str, tensors: dict[str, Tensor]) -> None:
    """Raise UserError, which names the tensor, if there are values that no agent can act with."""
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f"{file}: {key!r} has values that are NaN or infinite")
    if (tensors.get("obs_normalizer.var", torch.zeros(())) < 0).any():
        raise UserError(f"{file}: 'obs_normalizer.var' has negative values; expected variances")
