"""Settings as frozen dataclasses: types, ranges and help text stand beside each field, once.

`Field(default, ge=..., description=...)` is pydantic's; a class made with `config` rejects unknown names and
values out of range, whether they come from Python, registry.yaml or the command line (as text).
"""

import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin

import pydantic
from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo

from zoo.errors import UserError, nearest, told

__all__ = ["Field", "Kind", "Plain", "Widths", "build", "config", "describe", "field_info", "is_config", "schedule"]

T = TypeVar("T")

Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]  # of a network's hidden layers
DEPTH = 16  # of arguments inside one another


def _check_plain(value: Any, depth: int = 0) -> None:
    if depth > DEPTH:
        raise ValueError(f"nested more than {DEPTH} deep")
    if isinstance(value, dict | list | tuple):
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_plain(part, depth + 1)
    elif not (value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))):
        kind = f"the {type(value).__name__} {told(value, repr):.50}"
        raise ValueError(f"{kind} cannot be kept as JSON; a function that makes the environment may use anything")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values`. Raises ValueError unless JSON can hold them: it has text, finite numbers and lists of them."""
    _check_plain(values)
    return values


Plain = Annotated[dict[str, Any], AfterValidator(_plain)]  # what JSON can hold


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, validated dataclass."""
    settings = ConfigDict(extra="forbid", allow_inf_nan=False)
    return pydantic.dataclasses.dataclass(frozen=True, config=settings)(cls)  # type: ignore[return-value]


def is_config(cls: Any) -> bool:
    """Whether `cls` is a class made with `config`."""
    return is_pydantic_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]


def build(cls: type[T], values: Mapping[str, Any], owner: str) -> T:
    """Make an instance of `cls`. Raises UserError, which names `owner`, the field, its value and what was expected."""
    known = field_info(cls)
    for name in values:
        if name not in known:
            raise UserError(f"{owner} has no setting {name!r}{nearest(name, known)}")
    try:
        return cls(**{name: _from_text(value, describe(known[name])) for name, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:1])
        given = f"{told(first['input'], repr):.200}"
        raise UserError(f"{owner}: {name} = {given}: {_explain(first, known.get(name))}") from None


FORMS = {int: "; write it as 100000, 100k or 1e5", tuple: "; write it as 64,64"}


def _explain(error: Any, field: FieldInfo | None) -> str:
    """Say what is wrong with a value, and the form of numbers; a field with a pattern describes it."""
    if field is not None and error["type"] == "string_pattern_mismatch":
        return f"expected {field.description}"
    message = error["msg"].removeprefix("Value error, ")
    form = FORMS.get(describe(field).type, "") if field is not None and error["type"] == "int_parsing" else ""
    return f"{message[0].lower()}{message[1:]}{form}"


FACTORS = {"k": 3, "m": 6}  # powers of ten
LARGEST = 10**300  # larger whole numbers take long to write down


def whole_number(text: str) -> int | str:
    """The whole number that a text means: 100k, 1e5, 100,000. The text itself if it means none, or has digits alone."""
    text = text.replace(",", "") if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text) else text
    if text.lstrip("+-").isdigit():
        return text
    power = FACTORS.get(text[-1:].lower(), 0)
    try:
        value = Decimal(text[:-1]) * 10**power if power else Decimal(text)
        return int(value) if abs(value) < LARGEST and value == value.to_integral_value() else text
    except ArithmeticError:  # of what is no number
        return text


def _parts(text: str) -> tuple[str, ...]:
    """Return the parts of 64,64, which may also be written [64,64], (64, 64) or 64x64."""
    inner = text[1:-1] if (text[:1], text[-1:]) in (("[", "]"), ("(", ")")) else text
    separator = "x" if re.fullmatch(r"\d+( ?x ?\d+)+", inner) else ","
    return tuple(part.strip() for part in inner.split(separator) if part.strip())


def _from_text(value: Any, kind: "Kind") -> Any:
    """Text as people type it: 1e5 for a whole number, 64,64 for a tuple, none for an optional."""
    if isinstance(value, bool) and kind.type is not bool:
        return str(value)
    if not isinstance(value, str):
        return value
    if kind.optional and value.lower() in ("none", "null"):
        return None
    if kind.type is dict:
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UserError(f'{value!r:.200} is no JSON: {error}; expected an object such as {{"g": 9.0}}') from None
    if kind.type is tuple:
        return _parts(value.strip())
    return whole_number(value) if kind.type is int else value


@dataclass(frozen=True)
class Kind:
    """What a field takes: values of `type`, which are one of `choices` if there are any, and none if `optional`."""

    type: type
    choices: tuple[str, ...]
    optional: bool


def describe(field: FieldInfo) -> Kind:
    """Read the annotation of a field: `int`, `float | None`, `Literal["a", "b"]`, `tuple[int, ...]` and the like."""
    hint = field.annotation
    alternatives = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    first = next(each for each in alternatives if each is not types.NoneType)
    optional = types.NoneType in alternatives
    if get_origin(first) is Literal:
        return Kind(str, get_args(first), optional)
    return Kind(get_origin(first) or first, (), optional)


def field_info(cls: type) -> dict[str, FieldInfo]:
    """Field name -> pydantic's FieldInfo (annotation, default, description), in the order of the class."""
    declared: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
    return {field.name: declared[field.name] for field in fields(cls)}


def schedule(start: float, end: float | None, progress: float) -> float:
    """start + (end - start)·progress; constant where `end` is None."""
    return start if end is None else start + (end - start) * progress
