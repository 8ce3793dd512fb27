"""State comes back as it was, or is refused by name: values of other types and values that make no sense."""

import copy
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs.test_checkpoint import (
    StopError,
    change,
    reseal,
    rows_of,
    train,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from zoo.errors import UserError
from zoo.runs.checkpoint import FOLDER, MANIFEST
from zoo.storage.state import pack
from zoo.training.loop import Learner


def test_an_object_must_say_what_its_state_is() -> None:
    with pytest.raises(TypeError, match="object names no attributes in `saved`"):
        pack({"what": object()}, "", {})


VALUES: list[Any] = [None, -1, 2**70, -(2**40), 1.5, "x", [], [["a"]], {}]
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "d3qn": ("d3qn", {}),
    "sarsa": ("sarsa", {"num_steps": 5}),
    "ddpg": ("ddpg", {}),
    "a2c": ("a2c", {"normalize_obs": True, "normalize_reward": True}),
    "impala_replay": ("impala_replay", {"lag": 3}),
}
Place = tuple[str | int, ...]


def places(state: Any, path: Place = ()) -> Iterator[Place]:
    """Where there is something in plain data: each part of it, and each part of these."""
    if path:
        yield path
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def assign(state: Any, place: Place, value: Any) -> None:
    for key in place[:-1]:
        state = state[key]
    state[place[-1]] = value


@pytest.fixture(scope="module")
def halted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of a case of PLAIN that stopped halfway, with one checkpoint and 30 steps to go."""

    @functools.cache
    def make(case: str) -> Path:
        name, changes = PLAIN[case]
        folder = tmp_path_factory.mktemp("halted") / "run"
        with pytest.raises(StopError):
            train(folder, name, stop_at=120, every=55, hidden=(4,), eval_every=60, compile="off", **changes)
        for file in sorted((folder / FOLDER).glob("*.safetensors"))[:-1]:
            file.unlink()
        manifest = json.loads((folder / FOLDER / MANIFEST).read_text())
        manifest["checkpoints"] = manifest["checkpoints"][-1:]
        (folder / FOLDER / MANIFEST).write_text(json.dumps(manifest))
        config = json.loads((folder / "config.json").read_text())
        config["run"]["total_steps"] = manifest["checkpoints"][-1]["step"] + 30
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def outcome_of(run: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Go on with a run for no more steps than are left of it, with room for a rollout: how it ended."""
    steps = 0
    original = Learner.finished

    def finished(self: Learner, total_steps: int) -> bool:
        nonlocal steps
        steps += 1
        assert steps < 200, "it trains for ever"
        return original(self, total_steps)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "finished", finished)
        patch.setattr(os, "fsync", lambda _: None)
        try:
            zoo.resume(run)
        except UserError as error:
            return "refused" if "\n" not in str(error) else "refused in several lines"
    return "trained"


def assert_refused_or_trained(
    case: str, chosen: Callable[[list[Any]], list[Any]], halted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = halted(case)
    (file,) = (original / FOLDER).glob("*.safetensors")
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    state = json.loads(metadata["state"])
    ends = {"refused": 0, "trained": 0}
    for place, value in chosen([(place, value) for place in places(state) for value in VALUES]):
        run = original.with_name("changed")
        shutil.copytree(original, run)
        edited = copy.deepcopy(state)
        assign(edited, place, value)
        save_file(tensors, run / FOLDER / file.name, {"schema": metadata["schema"], "state": json.dumps(edited)})
        reseal(run)
        try:
            ends[outcome_of(run, monkeypatch)] += 1
        except BaseException as error:
            raise AssertionError(f"{'.'.join(map(str, place))} = {value!r}") from error
        shutil.rmtree(run)
    assert ends["refused"] > ends["trained"], ends


@pytest.mark.filterwarnings("ignore:episodes in environment", "ignore:.*rows before it are lost")
@pytest.mark.parametrize("case", PLAIN)
def test_a_plain_value_of_another_type_is_refused_or_trains(
    case: str, halted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(len(case))
    assert_refused_or_trained(
        case, lambda changes: [changes[i] for i in rng.permutation(len(changes))[:25]], halted, monkeypatch
    )


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore:episodes in environment", "ignore:.*rows before it are lost")
@pytest.mark.parametrize("case", PLAIN)
def test_any_plain_value_of_another_type_is_refused_or_trains(
    case: str, halted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_refused_or_trained(case, lambda changes: changes, halted, monkeypatch)


Edit = Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]


def retyped(end: str, fn: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    """Replace the tensors whose names have this in them."""
    return lambda t, s: t.update({key: fn(value) for key, value in t.items() if end in key})


NONSENSE: dict[str, tuple[str, Edit, str]] = {
    "samples without end": (
        "d3qn",
        lambda t, s: s["learner"]["buffer"].update(_unlearned=2**52, _stored=2**52),
        "buffer",
    ),
    "a negative priority": (
        "d3qn",
        lambda t, s: s["learner"]["buffer"]["_priorities"].update(largest=-1.0),
        "_priorities",
    ),
    "sums that are no scalars": ("d3qn", retyped("learner.sums", lambda x: x.expand(2).clone()), "learner has"),
    "sums of counts": ("d3qn", retyped("learner.sums", lambda x: x.long()), "learner has"),
    "counts of nothing": ("d3qn", lambda t, s: s["learner"]["counts"].update(x=1), "learner has"),
    "more steps since a report than ever": (
        "d3qn",
        lambda t, s: s["learner"].update(since_report=10**6),
        "learner has",
    ),
    "fewer lengths than returns": ("d3qn", lambda t, s: s["recorder"].update(lengths=[]), "recorder has"),
    "time that runs back": ("d3qn", lambda t, s: s["recorder"].update(elapsed=-1.0), "recorder has"),
    "actions of another type": ("d3qn", retyped("envs.actions", lambda x: x.double()), "envs has"),
    "actions by the million": (
        "d3qn",
        retyped("envs.actions", lambda x: x.new_zeros(2**20, 0)),
        "actions has no elements",
    ),
    "noise that is NaN": ("ddpg", retyped("noise.state", lambda x: x * torch.nan), "noise has"),
    "noise of integers": ("ddpg", retyped("noise.state", lambda x: x.long()), "noise has"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_values_of_the_right_type_that_make_no_sense_are_refused(
    case: str, halted: Callable[[str], Path], tmp_path: Path
) -> None:
    name, edit, message = NONSENSE[case]
    run = Path(shutil.copytree(halted(name), tmp_path / "run"))
    before = rows_of(run)
    change(run, edit)
    with pytest.raises(UserError, match=rf"does not fit this run: [\w. ]*{message}"):
        zoo.resume(run)
    assert rows_of(run) == before
