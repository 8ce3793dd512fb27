"""The cube: three questions, eight cells, one cell for every algorithm."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from zoo.errors import UserError


class Strategy(StrEnum):
    """Is the action read off a value, or drawn from a policy that is improved directly?"""

    VALUE = "value"
    POLICY = "policy"


class Data(StrEnum):
    """May the data come from another (older) policy?"""

    OFF = "off"
    ON = "on"


class Target(StrEnum):
    """What is estimated: Q(s, a) or V(s)?"""

    Q = "q"
    V = "v"


AXES: dict[str, type[StrEnum]] = {"strategy": Strategy, "data": Data, "target": Target}


@dataclass(frozen=True, init=False)
class Cell:
    """One cell of the cube, written `strategy/data/target`: Cell("policy/on/v")."""

    strategy: Strategy
    data: Data
    target: Target

    def __init__(self, path: str) -> None:
        parts = path.lower().split("/")
        if len(parts) != len(AXES):
            raise UserError(f"cell {path!r} is not strategy/data/target, for example 'policy/on/v'")
        for part, (name, axis) in zip(parts, AXES.items(), strict=True):
            object.__setattr__(self, name, parse_axis(name, axis, part))

    def __str__(self) -> str:
        return f"{self.strategy}/{self.data}/{self.target}"


def parse_axis(name: str, axis: type[StrEnum], value: str) -> StrEnum:
    """Return the member of `axis` that `value` names; a UserError that lists the members otherwise."""
    try:
        return axis(value.lower())
    except ValueError:
        raise UserError(f"{name} {value!r} is not one of {', '.join(axis)}") from None


CELLS: tuple[Cell, ...] = tuple(Cell("/".join(path)) for path in product(*AXES.values()))
