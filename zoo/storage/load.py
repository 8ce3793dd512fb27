"""A saved agent, which may be a stranger's: nothing in it is executed, and all of it is checked before use."""

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.random import SeedSequence
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator
from safetensors import SafetensorError
from torch import Tensor

from zoo import registry
from zoo.config import build
from zoo.envs.normalize import ObsNormalizer
from zoo.errors import UserError
from zoo.spec import Array, Spec, numbers
from zoo.storage.agent import DESCRIPTION, SCHEMA, WEIGHTS, Agent
from zoo.storage.files import Folder
from zoo.storage.tensors import check_tensors, read_tensors
from zoo.storage.untrusted import SLACK, TENSORS_LIMIT, TEXT_LIMIT, Budget, brief, read_json

SPACE_LIMIT = 2**22  # elements of a space: an image of 1024 x 1024 x 4


def load_agent(folder: Folder) -> Agent:
    """The agent that `Agent.write` wrote; a UserError, one line, that names what does not fit.

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
    name, spec, config, normalize = _read_description(description, read_json(folder, DESCRIPTION))
    try:
        with read_tensors(folder, WEIGHTS, limit=TENSORS_LIMIT, header_limit=TEXT_LIMIT) as saved:
            agent = _make(description, name, spec, config, normalize, budget=2 * saved.size + SLACK)
            expected = agent.weights()
            check_tensors(weights, name, saved.tensors, expected)
            tensors = {key: saved.tensors.get_tensor(key) for key in expected}
            _check_values(weights, tensors)
            agent.load_state_dict(tensors, strict=False)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{weights} cannot be read: {error}") from None
    return agent


Integer = Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
Number = Literal[Integer, "bool", "float16", "float32", "float64"]


class _Strict(BaseModel):
    """JSON of exactly these keys and types."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _Box(_Strict):
    type: Literal["Box"]
    low: Annotated[list[str], FailFast()]
    high: Annotated[list[str], FailFast()]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=SPACE_LIMIT)]], Field(max_length=32)]
    dtype: Number

    @model_validator(mode="after")
    def _has_bounds_that_fit(self) -> Self:
        size = math.prod(self.shape)
        if size > SPACE_LIMIT:
            raise ValueError(f"shape {self.shape} has {size:,} elements; expected at most {SPACE_LIMIT:,}")
        if not len(self.low) == len(self.high) in {1, size}:
            found = f"{len(self.low)} low and {len(self.high)} high"
            raise ValueError(f"{found} bounds; shape {self.shape} needs 1 or {size} of each")
        for name in ("low", "high"):
            if not _fits(numbers(getattr(self, name)), self.dtype):
                raise ValueError(f"{name} has values that are no {self.dtype}")
        return self


class _Discrete(_Strict):
    type: Literal["Discrete"]
    n: Annotated[int, Field(ge=1)]
    start: int
    dtype: Integer

    @model_validator(mode="after")
    def _fits_its_dtype(self) -> Self:
        if not all(_fits(np.array(value), self.dtype) for value in (self.n, self.start, self.start + self.n - 1)):
            raise ValueError(f"{self.n} values from {self.start} on are no {self.dtype}")
        return self


class _MultiDiscrete(_Strict):
    type: Literal["MultiDiscrete"]
    nvec: list[Any]
    start: list[Any]
    dtype: Integer

    @model_validator(mode="after")
    def _fits_its_dtype(self) -> Self:
        for name in ("nvec", "start"):
            if not _fits(np.array(getattr(self, name)), self.dtype):
                raise ValueError(f"{name} has values that are no {self.dtype}")
        return self


def _fits(values: Array, dtype: str) -> bool:
    """Whether these are numbers that `dtype` holds exactly; a cast would wrap others around in silence."""
    if values.dtype.kind not in "iuf":
        return False
    with np.errstate(all="ignore"):
        return bool((values.astype(dtype).astype(values.dtype) == values).all())


_Space = Annotated[_Box | _Discrete | _MultiDiscrete, Field(discriminator="type")]


class _Spaces(_Strict):
    observation_space: _Space
    action_space: _Space
    scale_actions: bool


class _Description(_Strict):
    """agent.json, besides its schema."""

    algorithm: Annotated[str, Field(max_length=100)]
    config: dict[Annotated[str, Field(max_length=100)], Any]
    spaces: _Spaces
    normalize_obs: bool


def _read_description(file: str, data: Any) -> tuple[str, Spec, Any, bool]:
    """Algorithm, spaces, config and whether observations are normalised; a UserError that names what is wrong."""
    schema = data.pop("schema", None) if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{file} has schema {schema!r}; expected {SCHEMA}")
    try:
        _Description.model_validate(data)
        spec, cls = Spec.from_json(data["spaces"]), registry.load_class(data["algorithm"])
    except ValidationError as error:
        first = error.errors()[0]
        where, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise UserError(f"{file}: {where}: {message[0].lower()}{message[1:]}") from None
    except (AssertionError, ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"{file}: {error}") from None
    return data["algorithm"], spec, _config(file, cls.Config, data["config"]), data["normalize_obs"]


def _config(file: str, cls: type, values: dict[str, Any]) -> Any:
    """The algorithm's settings; those that are missing, since they are newer than the file, have their defaults."""
    config: Any = build(cls, values, file)
    for key, value in registry.to_json(config).items():
        # Text would pass as a number, as it does on the command line; a saved agent has numbers.
        if key in values and values[key] != value:
            raise UserError(f"{file}: {key} = {values[key]!r}; expected it as it is saved: {value!r}")
    return config


def _make(file: str, name: str, spec: Spec, config: Any, normalize: bool, *, budget: int) -> Agent:
    """An untrained agent as described, of at most `budget` bytes; a UserError where that is no network."""
    try:
        with Budget(budget):
            algo = registry.make(name, spec, config, SeedSequence(0))
            return Agent(name, algo, spec, ObsNormalizer(spec.observation_space) if normalize else None)
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]  # torch adds lines about its own source
        raise UserError(f"{file} describes a network that cannot be made: {reason}") from None


def _check_values(file: str, tensors: dict[str, Tensor]) -> None:
    """A UserError that names the first tensor with values that no agent can act with."""
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f"{file}: {key!r} has values that are NaN or infinite")
    if (tensors.get("obs_normalizer.var", torch.zeros(())) < 0).any():
        raise UserError(f"{file}: 'obs_normalizer.var' has negative values; expected variances")
