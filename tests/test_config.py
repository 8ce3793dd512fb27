"""Settings: read, validated, described."""

from dataclasses import FrozenInstanceError
from typing import Any, Literal

import numpy as np
import pytest

from zoo.algos.a2c import A2C
from zoo.algos.ppo import PPO
from zoo.config import Field, Kind, build, config, describe, field_info, schedule
from zoo.errors import UserError
from zoo.settings import Run


@config
class Example:
    """One field of each kind."""

    steps: int = Field(10, ge=1, description="a count")
    gamma: float = Field(0.9, ge=0, le=1, description="a fraction")
    clip: float | None = Field(None, gt=0, description="an optional number")
    seed: int | None = Field(3, ge=0, description="an optional count")
    hidden: tuple[int, ...] = Field((64, 64), min_length=1, description="widths")
    whiten: bool = Field(True, description="a switch")
    activation: Literal["tanh", "relu"] = Field("tanh", description="a name")


def test_annotations_are_described() -> None:
    assert {name: describe(field) for name, field in field_info(Example).items()} == {
        "steps": Kind(int, (), optional=False),
        "gamma": Kind(float, (), optional=False),
        "clip": Kind(float, (), optional=True),
        "seed": Kind(int, (), optional=True),
        "hidden": Kind(tuple, (), optional=False),
        "whiten": Kind(bool, (), optional=False),
        "activation": Kind(str, ("tanh", "relu"), optional=False),
    }


@pytest.mark.parametrize(
    ("name", "given_value", "expected"),
    [
        ("steps", "1e5", 100_000),
        ("steps", "2_000", 2000),
        ("steps", "100k", 100_000),
        ("steps", "1.5K", 1500),
        ("steps", "2M", 2_000_000),
        ("steps", "100,000", 100_000),
        ("steps", "1e20", 10**20),
        ("steps", 1e5, 100_000),
        ("gamma", "1e-3", 0.001),
        ("gamma", "1", 1.0),
        ("clip", "0.2", 0.2),
        ("clip", "none", None),
        ("clip", "None", None),
        ("clip", "null", None),
        ("seed", "none", None),
        ("seed", "1e3", 1000),
        ("hidden", "64,64", (64, 64)),
        ("hidden", "64, 32,", (64, 32)),
        ("hidden", "[64,32]", (64, 32)),
        ("hidden", "(64, 32)", (64, 32)),
        ("hidden", "64x32x16", (64, 32, 16)),
        ("hidden", "64", (64,)),
        ("hidden", [32, 16], (32, 16)),
        ("whiten", "true", True),
        ("whiten", "False", False),
        ("whiten", "no", False),
        ("whiten", "0", False),
        ("whiten", False, False),
        ("activation", "relu", "relu"),
    ],
)
def test_settings_may_be_typed_as_text(name: str, given_value: Any, expected: Any) -> None:
    value = getattr(build(Example, {name: given_value}, "example"), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gamma", 1.5, "less than or equal to 1"),
        ("gamma", "-0.1", "greater than or equal to 0"),
        ("gamma", float("nan"), "finite"),
        ("gamma", "inf", "finite"),
        ("gamma", "none", "valid number"),
        ("gamma", True, "valid number"),  # YAML reads a bare `on` as a boolean
        ("steps", 0, "greater than or equal to 1"),
        ("steps", "1.5", "valid integer"),
        ("steps", "inf", "valid integer"),
        ("steps", "many", "valid integer, unable to parse string as an integer; write it as 100000, 100k or 1e5"),
        ("steps", "k", "valid integer"),
        ("steps", "1e9999999999", "valid integer"),
        ("steps", "1,5", "valid integer"),
        ("steps", "1.0005k", "valid integer"),
        ("steps", "", "valid integer"),
        ("steps", True, "valid integer"),
        ("steps", None, "valid integer"),
        ("clip", 0, "greater than 0"),
        ("hidden", "", "at least 1 item"),
        ("hidden", "64,wide", "valid integer, unable to parse string as an integer; write it as 64,64"),
        ("hidden", "x64", "valid integer"),
        ("hidden", "[64", "valid integer"),
        ("whiten", "perhaps", "valid boolean"),
        ("whiten", 2, "valid boolean"),
        ("activation", "sine", "'tanh' or 'relu'"),
        ("activation", True, "'tanh' or 'relu'"),
    ],
)
def test_invalid_settings_name_owner_field_value_and_range(name: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        build(Example, {name: value}, "example")
    message = str(caught.value)
    assert message.startswith(f"example: {name} = ")
    shown = value.split(",")[-1] if isinstance(value, str) else str(value)
    assert shown in message
    assert expected in message
    assert "\n" not in message


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^example has no setting 'gama'; did you mean 'gamma'\?$"):
        build(Example, {"gama": 0.9}, "example")


def test_unknown_setting_without_a_near_one_lists_all() -> None:
    known = "activation, clip, gamma, hidden, seed, steps, whiten"
    with pytest.raises(UserError, match=f"^example has no setting 'zzz'; known: {known}$"):
        build(Example, {"zzz": 1}, "example")


def test_settings_are_frozen() -> None:
    built = build(Example, {}, "example")
    assert built == Example()
    with pytest.raises(FrozenInstanceError):
        built.gamma = 0.5  # type: ignore[misc]


def test_python_callers_are_validated_too() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Example(gamma=2.0)
    with pytest.raises((TypeError, ValueError), match="gama"):
        Example(gama=0.9)  # type: ignore[call-arg]


@pytest.mark.parametrize("cls", [Example, Run, PPO.Config, A2C.Config])
def test_every_setting_has_help_and_a_valid_default(cls: type) -> None:
    info = field_info(cls)
    assert all(field.description for field in info.values())
    defaults = {name: field.default for name, field in info.items()}
    assert build(cls, defaults, "defaults") == cls()


def test_field_info_keeps_the_order_of_the_class() -> None:
    assert list(field_info(Example)) == ["steps", "gamma", "clip", "seed", "hidden", "whiten", "activation"]


@pytest.mark.parametrize("seed", [2**53 + 1, 2**100 + 1])
def test_large_seeds_are_read_exactly(seed: int) -> None:
    assert build(Run, {"seed": str(seed)}, "run").seed == seed


@pytest.mark.parametrize("hidden", ["0", "64,-5"])
@pytest.mark.parametrize("cls", [PPO.Config, A2C.Config])
def test_hidden_widths_must_be_positive(cls: type, hidden: str) -> None:
    with pytest.raises(UserError, match="hidden"):
        build(cls, {"hidden": hidden}, "ppo")


@pytest.mark.parametrize(
    ("start", "end", "progress", "expected"),
    [
        (1.0, 0.0, 0.0, 1.0),
        (1.0, 0.0, 0.25, 0.75),
        (1.0, 3.0, 0.5, 2.0),
        (1.0, 0.0, 1.0, 0.0),
        (1.0, None, 0.5, 1.0),
    ],
)
def test_schedule_goes_from_start_to_end_or_stays(
    start: float, end: float | None, progress: float, expected: float
) -> None:
    assert schedule(start, end, progress) == expected


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"a": NaN}', "the float nan cannot be kept as JSON"),
        ('{"a": [1, -Infinity]}', "the float -inf cannot be kept as JSON"),
        ({"a": [float("nan")]}, "the float nan cannot be kept as JSON"),
        ({"a": {"b": lambda: 0}}, "cannot be kept as JSON; a function that makes the environment may use anything"),
        ({"a": np.float32(1)}, "the float32 .* cannot be kept as JSON"),
        (nested(960), "nested more than 16 deep"),
        ("[" * 5000, "is no JSON: .*recursion"),
        ('{"a": ' + "9" * 5000 + "}", "is no JSON: .*digits"),
    ],
)
def test_arguments_are_what_json_can_hold(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        build(Run, {"env_kwargs": given}, "here")
    assert len(str(raised.value)) < 700
    assert "\n" not in str(raised.value)


def test_all_else_is_taken_as_it_is() -> None:
    given = {"a": [1, 2.5, None, True, "x", {"b": []}], "c": (1, 2)}
    assert build(Run, {"env_kwargs": given}, "here").env_kwargs == given
    assert build(Run, {"env_kwargs": nested(15)}, "here").env_kwargs == nested(15)
