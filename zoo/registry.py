"""registry.yaml: cells to algorithms, algorithms to classes, papers and tuned settings; loaded and checked once.

What the tuned settings reached is measured, not chosen, and stands in scores.yaml.
Classes are named by import strings and imported when asked for, so that reading the registry needs no torch.
ZOO_REGISTRY names further registry files (separated as in PATH) whose algorithms join these.
"""

import importlib
import inspect
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from zoo.config import field_info, is_config
from zoo.errors import UserError, nearest, said
from zoo.taxonomy import AXES, CELLS, Cell, parse_axis

if TYPE_CHECKING:
    from numpy.random import SeedSequence

    from zoo.protocol import Algorithm
    from zoo.spec import Spec


class CellEntry(BaseModel):
    """Who fills a cell, and why they need a model of the environment, if they do."""

    model_config = ConfigDict(extra="forbid")

    algorithm: str | None = None
    also: list[str] = []
    model: str | None = None

    @property
    def algorithms(self) -> list[str]:
        """The cell's algorithms, the canonical one first."""
        return ([self.algorithm] if self.algorithm else []) + self.also


class Score(BaseModel):
    """What the tuned settings reached: mean returns of fixed-seed evaluation episodes, over seeds of training."""

    model_config = ConfigDict(extra="forbid")

    median: float
    low: float
    high: float
    seeds: int
    episodes: int = 100
    commit: str  # that was measured
    date: date

    def __str__(self) -> str:
        if self.seeds == 1:
            return f"{self.median:g} (one seed)"
        return f"{self.median:g} (median of {self.seeds} seeds, from {self.low:g} to {self.high:g})"


class AlgorithmEntry(BaseModel):
    """One algorithm: where it is, what it is, and its tuned settings for each environment."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    path: str = Field(alias="class", pattern=r"^[\w.]+:\w+$")
    title: str
    equation: str
    paper: str
    envs: dict[str, dict[str, Any]] = {}
    presets: dict[str, dict[str, Any]] = {}

    @property
    def source(self) -> str:
        """The file of its class, relative to the directory that holds the package."""
        return self.path.partition(":")[0].replace(".", "/") + ".py"


class Registry(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    cells: dict[str, CellEntry] = {}
    algorithms: dict[str, AlgorithmEntry] = {}

    def cell_of(self, name: str) -> Cell:
        """Return the cell in which `name` is registered."""
        return next(Cell(path) for path, entry in self.cells.items() if name in entry.algorithms)


def _own_file() -> Path:
    """Beside this module in a wheel; one level up in a checkout."""
    packaged = Path(__file__).parent / "registry.yaml"
    return packaged if packaged.exists() else packaged.parent.parent / packaged.name


def _read(path: Path) -> Registry:
    try:
        return Registry.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError:
        raise UserError(f"registry {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"registry {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"registry {path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UserError(f"registry {path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    # An unknown key explains a missing one, so it comes first.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if "[key]" in first["loc"]:
        return f"{where}: keys are text; quote it (a bare on, off, yes or no is a boolean in YAML)"
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg'].lower()}"
    models = (Registry, CellEntry, AlgorithmEntry)
    model = models[{"cells": 1, "algorithms": 2}.get(str(first["loc"][0]), 0)]
    known = [field.alias or name for name, field in model.model_fields.items()]
    return f"unknown key {where!r}{nearest(str(first['loc'][-1]), known)}"


def read(paths: Iterable[Path]) -> Registry:
    """Return the registries of these files as one: later files add algorithms, or settings for further environments.

    Raises UserError if one says something else of an algorithm, or of its settings, than a file before it.
    """
    merged = Registry(cells={str(cell): CellEntry() for cell in CELLS})
    for path in paths:
        part = _read(path)
        for name, algorithm in part.algorithms.items():
            known = merged.algorithms.get(name)
            merged.algorithms[name] = algorithm if known is None else _joined(known, algorithm, f"{path}: {name}")
        for key, entry in part.cells.items():
            cell = merged.cells[str(Cell(key))]
            names = list(dict.fromkeys(cell.algorithms + entry.algorithms))
            cell.algorithm, cell.also = (names[0], names[1:]) if names else (None, [])
            cell.model = entry.model or cell.model
    _check(merged)
    return merged


def _joined(known: AlgorithmEntry, more: AlgorithmEntry, place: str) -> AlgorithmEntry:
    """Return an entry with the settings of both."""
    for field in ("path", "title", "equation", "paper"):
        said, here = getattr(known, field), getattr(more, field)
        if said != here:
            label = AlgorithmEntry.model_fields[field].alias or field
            raise UserError(
                f"registry {place} is registered already, with {label} {said!r}, not {here!r}; choose another name, "
                "or repeat what is registered to add settings"
            )
    for kind in ("envs", "presets"):
        mine, theirs = getattr(known, kind), getattr(more, kind)
        for name in mine.keys() & theirs.keys():
            if mine[name] != theirs[name]:
                raise UserError(f"registry {place} has other settings for {name} already; a preset may have them")
    return known.model_copy(update={"envs": known.envs | more.envs, "presets": known.presets | more.presets})


def _check(registry: Registry) -> None:
    """Raise UserError unless every algorithm stands in exactly one cell, and every cell has one."""
    placed: dict[str, str] = {}
    for key, cell in registry.cells.items():
        for name in cell.algorithms:
            if name not in registry.algorithms:
                hint = nearest(name, registry.algorithms)
                raise UserError(f"cell {key} names {name!r}, which is not among the algorithms{hint}")
            if name in placed:
                raise UserError(f"algorithm {name!r} stands in two cells: {placed[name]} and {key}")
            placed[name] = key
        if not cell.algorithms:
            raise UserError(f"cell {key} has no algorithm")
    for name in registry.algorithms.keys() - placed.keys():
        raise UserError(f"algorithm {name!r} stands in no cell")


@cache
def _load(extra: str) -> Registry:
    return read([_own_file(), *(Path(part) for part in extra.split(os.pathsep) if part)])


def load() -> Registry:
    """Return the registry, with the files that ZOO_REGISTRY names."""
    return _load(os.environ.get("ZOO_REGISTRY", ""))


def get(name: str) -> AlgorithmEntry:
    """Return the entry of an algorithm. Raises UserError, with the nearest name, for an unknown one."""
    algorithms = load().algorithms
    if name not in algorithms:
        raise UserError(f"unknown algorithm {name!r}{nearest(name, algorithms)}")
    return algorithms[name]


@cache
def _scores() -> dict[str, dict[str, Score]]:
    text = (Path(__file__).parent / "scores.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, dict[str, Score]]).validate_python(yaml.safe_load(text))


def scores(name: str) -> dict[str, Score]:
    """Return what the tuned settings of an algorithm reached, by environment; empty where nothing was measured."""
    return _scores().get(name, {})


def lookup(path: str | Cell) -> list[str]:
    """Return the names of a cell's algorithms, the canonical one first; empty where the cell is."""
    return load().cells[str(path if isinstance(path, Cell) else Cell(path))].algorithms


def find(**axes: str | None) -> dict[Cell, CellEntry]:
    """Return the cells that agree with the given axes (strategy, data, target), in the order of the cube."""
    wanted = {name: parse_axis(name, AXES[name], value) for name, value in axes.items() if value is not None}
    return {
        cell: load().cells[str(cell)]
        for cell in CELLS
        if all(getattr(cell, name) == value for name, value in wanted.items())
    }


def load_class(name: str) -> "type[Algorithm]":
    """Return the class of an algorithm, imported now.

    Raises UserError if it cannot be imported, or if a member of zoo.protocol.Algorithm is missing or a wrong one.
    """
    path = get(name).path
    module, _, attribute = path.partition(":")
    try:
        algorithm: type[Algorithm] = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise UserError(f"algorithm {name!r}: {path} cannot be imported: {said(error)}") from None
    problem = next(_problems(name, algorithm), None)
    if problem is not None:
        raise UserError(f"algorithm {name!r}: {path} {problem}")
    return algorithm


# The methods that an algorithm must have and those that it may have, with what they are called with.
METHODS = {"make_buffer": "spec, num_envs", "act": "obs, progress", "greedy": "obs", "update": "batch, progress"}
OPTIONAL = {"step": None, "steps_per_batch": "num_envs"}


def _problems(name: str, cls: Any) -> Iterator[str]:
    """Return what keeps `cls` from being the algorithm `name`, in words that follow its path."""
    from torch import nn

    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        yield "is no class derived from torch.nn.Module"
    for member in ("cell", "spaces", "Config", *METHODS):
        if not hasattr(cls, member):
            yield f"has no {member!r}"
    cell = load().cell_of(name)
    if cls.cell != cell:
        found = f"Cell('{cls.cell}')" if isinstance(cls.cell, Cell) else repr(cls.cell)
        yield f"has cell = {found}; expected Cell('{cell}'), where the registry has it"
    if not _are_spaces(cls.spaces):
        yield f"has spaces = {cls.spaces!r}; expected a tuple of classes of gymnasium.spaces, such as (Discrete,)"
    yield from _problems_of_config(cls.Config)
    for method, arguments in (METHODS | OPTIONAL).items():
        if hasattr(cls, method):
            yield from _problems_of_method(cls, method, arguments)
    saved = getattr(cls, "saved", ())
    if not (isinstance(saved, tuple) and all(isinstance(each, str) for each in saved)):
        yield f"has saved = {saved!r}; expected a tuple of attributes' names, such as ('generator',)"
    few_guards = getattr(cls, "few_guards", False)
    if not isinstance(few_guards, bool):
        yield f"has few_guards = {few_guards!r}; expected True or False"


def _are_spaces(value: Any) -> bool:
    from gymnasium.spaces import Space

    is_tuple = isinstance(value, tuple) and len(value) > 0
    return is_tuple and all(isinstance(each, type) and issubclass(each, Space) for each in value)


# What commands and zoo.train are told beside settings.
RESERVED = {"algorithm", "env", "preset", "out", "init", "resume", "checkpoint_every", "quiet", "json", "help"}
RESERVED |= {"progress", "on_row"}


def _problems_of_config(config: Any) -> Iterator[str]:
    from zoo.settings import Run  # which needs this module

    if not is_config(config):
        yield f"has Config = {config!r}; expected a class made with zoo.config.config"
    for field in field_info(config):
        if field in field_info(Run):
            yield f"has a setting {field!r}, which is the name of a setting of every run; give it another one"
        if field in RESERVED:
            yield f"has a setting {field!r}, which is the name of an option of commands; give it another one"


def _problems_of_method(cls: type, name: str, arguments: str | None) -> Iterator[str]:
    method = inspect.getattr_static(cls, name)
    if not inspect.isfunction(method):
        yield f"has {name} = {method!r}; expected a method"
    if arguments is not None:
        try:
            inspect.signature(method).bind(cls, *arguments.split(", "))
        except TypeError as error:
            yield f"has a method {name!r} that cannot be called as {name}({arguments}): {error}"


def make(name: str, spec: "Spec", config: Any, seeds: "SeedSequence", device: str = "cpu") -> "Algorithm":
    """Return an untrained algorithm; its weights and its later randomness come from `seeds` alone.

    A UserError where it does not support the action space.
    """
    import torch

    from zoo.spec import check_space

    cls = load_class(name)
    check_space(name, spec, cls.spaces)
    weights, noise = (int(seed) for seed in seeds.generate_state(2))
    generator = torch.Generator(device).manual_seed(noise)
    devices = [torch.device(device)] if device != "cpu" else []
    with torch.random.fork_rng(devices), torch.device(device):
        torch.manual_seed(weights)
        algorithm = cls(spec, config, generator)
    kept = {"config": config, "generator": generator}
    for member in [*kept, *getattr(cls, "saved", ())]:
        if not hasattr(algorithm, member):
            raise UserError(f"algorithm {name!r}: __init__ sets no self.{member}, which a run needs")
    for member, given in kept.items():
        if getattr(algorithm, member) is not given:
            raise UserError(f"algorithm {name!r}: self.{member} is another one than __init__ was given")
    return algorithm


def to_json(config: Any) -> dict[str, Any]:
    """Return a Config as plain data: tuples become lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
