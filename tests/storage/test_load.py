"""Loading what a stranger made: no code runs, memory stays bounded, and whatever does not fit is named in one line."""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.random import Generator, SeedSequence
from probes import ALGORITHMS
from safetensors.torch import load_file, save_file
from small import small

import zoo
from zoo import registry
from zoo.cli import main
from zoo.envs.normalize import ObsNormalizer
from zoo.errors import UserError
from zoo.runs.resumed import settings_of
from zoo.spec import Spec
from zoo.storage.agent import DESCRIPTION, WEIGHTS, Agent
from zoo.storage.description import SPACE_LIMIT
from zoo.storage.untrusted import ROWS_LIMIT, TEXT_LIMIT

BOX = spaces.Box(np.array([-1, -2, 0], np.float32), np.array([1, 2, np.inf], np.float32))
ACTIONS = {"ppo": spaces.Box(-2, 2, (2,)), "dqn": spaces.Discrete(3, start=-1), "a2c": spaces.MultiDiscrete([2, 3])}
OBSERVATIONS = {"ppo": BOX, "dqn": spaces.Discrete(5), "a2c": spaces.Box(0, 255, (9, 9, 2), np.uint8)}
BASES = sorted(ACTIONS)

each_base = pytest.mark.parametrize("base", BASES)


def save(folder: Path, name: str, *, normalize: bool = False, **settings: Any) -> Path:
    """An untrained agent's folder."""
    box = spaces.Discrete not in registry.load_class(name).spaces
    action = ACTIONS.get(name, ACTIONS["ppo"] if box else ACTIONS["dqn"])
    spec = Spec(OBSERVATIONS.get(name, BOX), action)
    config = registry.load_class(name).Config(**{"hidden": (4, 3)} | settings)
    normalizer = ObsNormalizer(spec.observation_space) if normalize else None
    Agent(name, registry.make(name, spec, config, SeedSequence(0)), spec, normalizer).save(folder)
    return folder


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good agents; tests spoil copies."""
    root = tmp_path_factory.mktemp("good")
    return {name: save(root / name, name, normalize=name == "ppo") for name in BASES}


@pytest.fixture
def folder(originals: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the ppo agent, to be spoilt."""
    return shutil.copytree(originals["ppo"], tmp_path / "agent")


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A test that hangs (on a pipe, for instance) fails."""

    def give_up(*_: Any) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(folder: Path, *parts: str) -> str:
    """The one short line with which loading refuses a folder; it holds these parts."""
    with pytest.raises(UserError) as caught:
        zoo.load(folder)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert len(message.splitlines()) == 1
    assert len(message) < 700
    return message


def act(agent: Agent) -> None:
    """Both policies give actions of the right shape."""
    agent.spec.observation_space.seed(0)
    obs = agent.spec.observation_space.sample()
    for deterministic in (True, False):
        action, _ = agent.predict(obs, deterministic=deterministic)
        assert np.shape(action) == agent.spec.action_space.shape


def describe(folder: Path, path: str, value: Any) -> None:
    """Change one value of agent.json: "config.gamma"; `...` deletes it."""
    data = json.loads((folder / DESCRIPTION).read_text())
    *parents, last = path.split(".")
    place = data
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    (folder / DESCRIPTION).write_text(json.dumps(data))


def write_weights(folder: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    """A file of weights with any header, as an object or as bytes, and any claim of its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", size) + text + data)


def read_weights(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a file of weights."""
    content = (folder / WEIGHTS).read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


# That all of these checks let good files pass


@each_base
def test_what_was_saved_loads_and_acts(base: str, originals: dict[str, Path]) -> None:
    agent = zoo.load(originals[base])
    act(agent)
    saved = load_file(originals[base] / WEIGHTS)
    assert saved.keys() == agent.weights().keys()
    assert all(torch.equal(value, saved[key]) for key, value in agent.weights().items())


def test_a_file_from_before_a_setting_was_added_loads_with_its_default(folder: Path) -> None:
    describe(folder, "config.gamma", ...)
    assert zoo.load(folder).algo.config.gamma == registry.load_class("ppo").Config().gamma


def test_a_large_replay_costs_nothing_until_training(originals: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(originals["dqn"], tmp_path / "agent")
    describe(tmp_path / "agent", "config.capacity", 10**12)
    act(zoo.load(tmp_path / "agent"))


# The description

OBS, ACT = "spaces.observation_space", "spaces.action_space"
DISCRETE = {"type": "Discrete", "n": 3, "start": 0, "dtype": "int64"}
SWITCHES = {"type": "MultiBinary", "shape": [2]}
GIANT = {"type": "Box", "low": ["0.0"], "high": ["1.0"], "dtype": "float32", "shape": [10**4] * 8}
FLAT = {"type": "Flat", "source": DISCRETE, "masks": 3}
MULTI = {"type": "MultiDiscrete", "nvec": [2, 2], "start": [0, 0], "dtype": "int64"}

# What is changed -> its new value, and what the one line must name
DESCRIPTIONS: dict[str, tuple[str, Any, list[str]]] = {
    "schema newer": ("schema", 2, ["schema 2; expected 1"]),
    "schema text": ("schema", "1", ["schema '1'"]),
    "schema missing": ("schema", ..., ["schema None"]),
    "extra key": ("class", "os:system", ["class", "not permitted"]),
    "missing key": ("normalize_obs", ..., ["normalize_obs", "required"]),
    "algorithm unknown": ("algorithm", "pppo", ["unknown algorithm 'pppo'", "did you mean 'ppo'?"]),
    "algorithm an import string": ("algorithm", "os:system", ["unknown algorithm 'os:system'"]),
    "algorithm its own import string": ("algorithm", "zoo.algos.ppo:PPO", ["unknown algorithm"]),
    "algorithm a path": ("algorithm", "../../ppo", ["unknown algorithm"]),
    "algorithm a list": ("algorithm", ["ppo"], ["algorithm", "valid string"]),
    "algorithm very long": ("algorithm", "p" * 500_000, ["algorithm", "100 characters"]),
    "algorithm another": ("algorithm", "a2c", ["no setting"]),
    "config a list": ("config", [], ["config", "valid dictionary"]),
    "config unknown setting": ("config.gama", 0.9, ["no setting 'gama'", "did you mean 'gamma'?"]),
    "config very long key": ("config." + "g" * 500_000, 0.9, ["config.ggg", "100 characters"]),
    "config out of range": ("config.gamma", 1.5, ["gamma = 1.5", "less than or equal to 1"]),
    "config huge number": ("config.gamma", 10**400, ["gamma = 1000"]),
    "config text for a number": ("config.gamma", "0.99", ["gamma = '0.99'", "0.99"]),
    "config text for widths": ("config.hidden", "4,3", ["hidden = '4,3'", "[4, 3]"]),
    "config null": ("config.gamma", None, ["gamma = None", "valid number"]),
    "config object": ("config.gamma", {"a": 1}, ["gamma = {'a': 1}", "valid number"]),
    "config no layers": ("config.hidden", [], ["hidden", "at least 1 item"]),
    "config negative width": ("config.hidden", [-4, 3], ["hidden", "greater than or equal to 1"]),
    "config activation": ("config.activation", "os.system", ["activation", "'tanh' or 'relu'"]),
    "spaces null": ("spaces", None, ["spaces", "valid dictionary"]),
    "space missing": (OBS, ..., [OBS, "required"]),
    "space unknown": (f"{OBS}.type", "Text", [OBS, "'Text'", "'Box'"]),
    "space of another kind": (f"{OBS}.type", "Discrete", [f"{OBS}.Discrete.n", "required"]),
    "space not supported": (OBS, MULTI, ["observation space", "is not supported"]),
    "space extra key": (f"{OBS}.seed", 1, [f"{OBS}.Box.seed", "not permitted"]),
    "scale_actions text": ("spaces.scale_actions", "no", ["scale_actions", "valid boolean"]),
    "shape text": (f"{OBS}.shape", ["3"], ["shape.0", "valid integer"]),
    "shape real": (f"{OBS}.shape", [3.5], ["shape.0", "valid integer"]),
    "shape true": (f"{OBS}.shape", [True], ["shape.0", "valid integer"]),
    "shape negative": (f"{OBS}.shape", [-3], ["shape.0", "greater than or equal to 0"]),
    "shape another": (f"{OBS}.shape", [4], ["3 low and 3 high bounds; shape [4] needs 1 or 4"]),
    "shape of many dimensions": (f"{OBS}.shape", [1] * 100_000, ["shape", "at most 32"]),
    "shape giant": (f"{OBS}.shape", [10**9], ["shape.0", f"{SPACE_LIMIT}"]),
    "shape giant product": (OBS, GIANT, ["observation_space", f"expected at most {SPACE_LIMIT:,}"]),
    "shape whose product overflows": (ACT, SWITCHES | {"shape": [2**22] * 3}, ["action_space", "at most 4,194,304"]),
    "masks of other actions": (OBS, FLAT, ["3 action masks", "expected 0"]),
    "bounds not as many": (f"{OBS}.low", ["0.0"], ["1 low and 3 high bounds"]),
    "bounds NaN": (f"{OBS}.low", ["nan"] * 3, ["low has values that are no float32"]),
    "bounds words": (f"{OBS}.low", ["a", "b", "c"], ["could not convert", "'a'"]),
    "bounds numbers": (f"{OBS}.low", [0, 0, 0], ["low.0", "valid string"]),
    "bounds too large": (f"{OBS}.high", ["1e300"] * 3, ["high has values that are no float32"]),
    "bounds the wrong way round": (f"{OBS}.low", ["5.0"] * 3, ["low values must be less than or equal to high"]),
    "dtype an object": (f"{OBS}.dtype", "object", [f"{OBS}.Box.dtype", "'float32'"]),
    "dtype a record": (f"{OBS}.dtype", "f4,O", [f"{OBS}.Box.dtype", "'float32'"]),
    "dtype of fewer values": (f"{OBS}.dtype", "uint8", ["low has values that are no uint8"]),
    "dtype unsuitable for normalising": (OBS, DISCRETE, ["normalize_obs needs observations of floats"]),
    "no choices": (ACT, DISCRETE | {"n": 0}, ["n: ", "greater than or equal to 1"]),
    "choices beyond the dtype": (ACT, DISCRETE | {"n": 10**30}, ["are no int64"]),
    "start beyond the dtype": (ACT, DISCRETE | {"start": 120, "n": 100, "dtype": "int8"}, ["100 values", "no int8"]),
    "choices in text": (ACT, MULTI | {"nvec": ["2", "2"]}, ["nvec has values that are no int64"]),
    "choices ragged": (ACT, MULTI | {"nvec": [[2], [2, 3]]}, ["inhomogeneous"]),
    "choices that wrap around": (ACT, MULTI | {"nvec": [2, 2**32 + 2], "dtype": "int32"}, ["nvec", "no int32"]),
    "choices negative": (ACT, MULTI | {"nvec": [2, -2]}, ["positive"]),
    "choices not as many": (ACT, MULTI | {"start": [0]}, ["same shape"]),
    "action space another": (ACT, DISCRETE, ["'algo.actor.log_std' has shape (2,) of F32", "expects no such tensor"]),
    "normalising not wanted": ("normalize_obs", False, ["'obs_normalizer.count'", "expects no such tensor"]),
    "normalising a number": ("normalize_obs", 1, ["normalize_obs", "valid boolean"]),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_wrong_description_is_named(case: str, folder: Path) -> None:
    path, value, parts = DESCRIPTIONS[case]
    describe(folder, path, value)
    refused(folder, str(folder), *parts)


TEXTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read"),
    "no object": (b"[1]", "schema None"),
    "null": (b"null", "schema None"),
    "not UTF-8": (b'{"schema": "\xff"}', "cannot be read"),
    "deep lists": (b"[" * 500_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 200_000, "nested too deeply"),
    "many digits": (b'{"schema": ' + b"9" * 500_000 + b"}", "cannot be read"),
    "a key twice": (b'{"schema": 1, "schema": 1}', "the same key twice"),
    "NaN": (b'{"schema": NaN}', "NaN is no number"),
    "infinity": (b'{"schema": -Infinity}', "-Infinity is no number"),
    "many keys": (b'{"schema": 1,' + b",".join(b'"%d": 0' % i for i in range(70_000)) + b"}", "required"),
    "too long": (b" " * (TEXT_LIMIT + 1), f"more than {TEXT_LIMIT:,} bytes"),
    "a pickle": (pickle.dumps({"schema": 1}), "cannot be read"),
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("file", [DESCRIPTION, "config.json"])
def test_a_wrong_json_file_is_named(case: str, file: str, folder: Path) -> None:
    text, message = TEXTS[case]
    (folder / file).write_bytes(text)
    if file == DESCRIPTION:
        refused(folder, str(folder / DESCRIPTION), message)
        return
    with pytest.raises(UserError, match=r"config\.json"):
        settings_of(folder)


ROW = b'{"step": 10, "seconds": 0.5, "policy_loss": -1.0}\n'
ROWS: dict[str, tuple[bytes, str]] = {
    **{case: (ROW + text + b"\n", message) for case, (text, message) in TEXTS.items() if "schema" not in message},
    "no object": (b"[1]\n", "line 1 is no row of metrics"),
    "null": (ROW + b"null\n", "line 2 is no row of metrics"),
    "many keys": (b"{}\n", "line 1 is no row of metrics"),
    "too long": (b" " * (ROWS_LIMIT + 1), f"more than {ROWS_LIMIT:,} bytes"),
    "text": (ROW.replace(b"-1.0", b'"[bold]"'), "line 1 is no row of metrics"),
    "overflow": (ROW.replace(b"-1.0", b"1e999"), "line 1 is no row of metrics"),
    "a large step": (ROW.replace(b"10", b"9" * 400), "line 1 is no row of metrics"),
    "no step": (ROW.replace(b'"step": 10, ', b""), "line 1 is no row of metrics"),
    "an empty line": (b"\n" + ROW, "cannot be read"),
}


@pytest.mark.parametrize("case", ROWS)
def test_wrong_rows_spoil_the_history_alone(case: str, folder: Path) -> None:
    text, message = ROWS[case]
    (folder / "metrics.jsonl").write_bytes(text)
    agent = zoo.load(folder)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        _ = agent.history
    assert "metrics.jsonl" in str(raised.value)
    assert len(str(raised.value)) < 700
    assert "\n" not in str(raised.value)


def test_a_row_under_way_is_left_out_and_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "metrics.jsonl").write_bytes(ROW + ROW[:-9])
    assert zoo.load(folder).history == [{"step": 10, "seconds": 0.5, "policy_loss": -1.0}]
    (folder / "metrics.jsonl").rename(tmp_path / "elsewhere.jsonl")
    (folder / "metrics.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(UserError, match="not a plain file"):
        _ = zoo.load(folder).history


# Memory


def test_memory_is_bounded_before_anything_is_allocated(folder: Path, tmp_path: Path) -> None:
    giants: dict[str, Callable[[Path], None]] = {
        "widths": lambda at: describe(at, "config.hidden", [16_000, 16_000]),
        "layers": lambda at: describe(at, "config.hidden", [1] * 100_000),
        "width beyond memory": lambda at: describe(at, "config.hidden", [10**6, 10**6]),
        "width beyond 64 bits": lambda at: describe(at, "config.hidden", [10**18, 10**18]),
        "space": lambda at: describe(at, OBS, {**box_json(), "shape": [2 * 10**8]}),
        "space within its limit": lambda at: describe(at, OBS, {**box_json(), "shape": [10**6]}),
        "choices": lambda at: describe(at, ACT, DISCRETE | {"n": 10**12}),
        "many switches": lambda at: describe(at, ACT, SWITCHES | {"shape": [SPACE_LIMIT, 1000]}),
        "many parts": lambda at: describe(at, OBS, FLAT | {"source": many_boxes("Tuple"), "masks": 0}),
        "many named parts": lambda at: describe(at, OBS, FLAT | {"source": many_boxes("Dict"), "masks": 0}),
        "many choices": lambda at: describe(at, ACT, MULTI | {"nvec": [10**9] * 9, "start": [0] * 9}),
        "text": lambda at: os.truncate(at / DESCRIPTION, 2**40),
        "weights": lambda at: os.truncate(at / WEIGHTS, 2**40),
        "header": lambda at: write_weights(at, b"{}", length=2**60),
        "tensor": lambda at: write_weights(at, {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        "spaces at their limit": spaces_at_their_limit,
    }
    for name in ALGORITHMS:
        save(tmp_path / name, name)
        describe(tmp_path / name, "config.hidden", [16_000, 16_000])
    for name, spoil in giants.items():
        spoil(shutil.copytree(folder, tmp_path / name))
    folders = [folder, *(tmp_path / name for name in [*ALGORITHMS, *giants])]
    done = subprocess.run([sys.executable, "-c", PEAK, *folders], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded, *others, last = (int(line) for line in done.stdout.splitlines())
    assert max(others) - loaded < 300, others
    assert last - loaded < 1000


# Each line: the peak of this process in MB after an attempt; only the first may succeed.
PEAK = """
import resource, sys, torch, zoo
torch.set_num_threads(1)
for number, folder in enumerate(sys.argv[1:]):
    try:
        zoo.load(folder)
        assert number == 0, folder
    except zoo.UserError:
        assert number > 0, folder
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10))
"""


def spaces_at_their_limit(folder: Path) -> None:
    """What costs most of all that is allowed: a small network's images, and many bounds of actions."""
    describe(folder, OBS, {**box_json(), "shape": [35, SPACE_LIMIT // 35, 1], "dtype": "uint8"})
    describe(folder, ACT, {**box_json(), "shape": [SPACE_LIMIT]})
    describe(folder, "normalize_obs", False)


def many_boxes(kind: str) -> dict[str, Any]:
    """A Tuple or a Dict of spaces of which each is within the limit."""
    box = box_json() | {"shape": [SPACE_LIMIT], "dtype": "float64"}
    parts = [box if kind == "Tuple" else {"name": str(number), "space": box} for number in range(200)]
    return {"type": kind, "parts": parts}


def box_json() -> dict[str, Any]:
    return {"type": "Box", "low": ["0.0"], "high": ["1.0"], "dtype": "float32"}


# The weights

BIAS, MATRIX = "algo.critic.net.3.bias", "algo.actor.net.1.weight"

# What happens to the tensors -> what the one line must name
TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], list[str]]] = {
    "float64": (
        lambda t: t.update({BIAS: t[BIAS].double()}),
        [BIAS, "(3,) of F64", "ppo here expects shape (3,) of F32"],
    ),
    "int8": (lambda t: t.update({BIAS: t[BIAS].to(torch.int8)}), [BIAS, "of I8", "of F32"]),
    "bfloat16": (lambda t: t.update({BIAS: t[BIAS].bfloat16()}), [BIAS, "of BF16", "of F32"]),
    "as many bytes of int32": (lambda t: t.update({BIAS: t[BIAS].view(torch.int32)}), [BIAS, "of I32", "of F32"]),
    "complex": (lambda t: t.update({BIAS: t[BIAS].to(torch.complex64)}), [BIAS, "of C64"]),
    "transposed": (lambda t: t.update({MATRIX: t[MATRIX].T.contiguous()}), [MATRIX, "(3, 4)", "(4, 3)"]),
    "flat": (lambda t: t.update({MATRIX: t[MATRIX].flatten()}), [MATRIX, "(12,)", "(4, 3)"]),
    "empty": (lambda t: t.update({MATRIX: torch.zeros(0)}), [MATRIX, "(0,)", "(4, 3)"]),
    "missing": (lambda t: t.pop(BIAS), [BIAS, "no value", "(3,) of F32"]),
    "all missing": (lambda t: t.clear(), ["no value", "and 14 more"]),
    "extra": (lambda t: t.update({"zzz": torch.zeros(1)}), ["'zzz'", "expects no such tensor"]),
    "a path": (lambda t: t.update({"../../x": torch.zeros(1)}), ["'../../x'", "expects no such tensor"]),
    "an optimiser": (
        lambda t: t.update({"algo.optimizer.exp_avg": torch.zeros(1)}),
        ["'algo.optimizer.exp_avg'", "expects no such tensor"],
    ),
    "a terminal's command": (lambda t: t.update({"\x1b[2J\nx": torch.zeros(1)}), [r"'\x1b[2J\nx'"]),
    "a very long name": (lambda t: t.update({"x" * 500_000: torch.zeros(1)}), ["'xxx", "expects no such tensor"]),
    "NaN": (lambda t: t[MATRIX].view(-1)[5].fill_(np.nan), [f"{MATRIX!r} has values that are NaN"]),
    "infinite": (lambda t: t[BIAS].view(-1)[0].fill_(-np.inf), [f"{BIAS!r} has values that are NaN or infinite"]),
    "negative variance": (lambda t: t["obs_normalizer.var"].neg_(), ["obs_normalizer.var", "expected variances"]),
}


@pytest.mark.parametrize("case", TENSORS)
def test_wrong_tensors_are_named_and_nothing_is_assigned(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assign(*_: Any, **__: Any) -> None:
        raise AssertionError("something was assigned")

    monkeypatch.setattr(Agent, "load_state_dict", assign)
    spoil, parts = TENSORS[case]
    tensors = load_file(folder / WEIGHTS)
    spoil(tensors)
    save_file(tensors, folder / WEIGHTS)
    refused(folder, str(folder / WEIGHTS), *parts)


def test_an_assignment_would_be_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def assign(*_: Any, **__: Any) -> None:
        raise AssertionError("something was assigned")

    monkeypatch.setattr(Agent, "load_state_dict", assign)
    with pytest.raises(AssertionError, match="assigned"):
        zoo.load(folder)


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS: dict[str, tuple[Any, bytes, int | None, str]] = {
    "no header": (b"", b"", None, "header"),
    "empty": ({}, b"", None, "no value"),
    "no object": ([], b"", None, "header"),
    "length of 2^63": ({}, b"", 2**63, "its header has 9,223,372,036,854,775,808 bytes"),
    "length above the limit": ({}, b"", TEXT_LIMIT + 1, "its header has"),
    "length beyond the file": ({}, b"", 1000, "header length"),
    "deep": (b"[" * 100_000, b"", None, "header"),
    "shape beyond the data": ({"x": ENTRY | {"shape": [10**12]}}, b"\0" * 4, None, "invalid shape"),
    "shape beyond 64 bits": ({"x": ENTRY | {"shape": [2**63, 2**63]}}, b"\0" * 4, None, "overflow"),
    "negative shape": ({"x": ENTRY | {"shape": [-1]}}, b"\0" * 4, None, "-1"),
    "offsets swapped": ({"x": ENTRY | {"data_offsets": [4, 0]}}, b"\0" * 4, None, "header"),
    "offsets beyond the file": ({"x": ENTRY | {"data_offsets": [2**40, 2**40 + 4]}}, b"\0" * 4, None, "header"),
    "data that overlap": ({"x": ENTRY, "y": ENTRY}, b"\0" * 4, None, "header"),
    "data left over": ({"x": ENTRY}, b"\0" * 8, None, "not fully covered"),
    "unknown type": ({"x": ENTRY | {"dtype": "OBJ"}}, b"\0" * 4, None, "OBJ"),
    "a name twice": (b'{"x": %b, "x": %b}' % ((json.dumps(ENTRY).encode(),) * 2), b"\0" * 4, None, "no value"),
    "many tensors": (
        {f"{i:x}": ENTRY | {"shape": [0], "data_offsets": [0, 0]} for i in range(14_000)},
        b"",
        None,
        "more",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_wrong_header_is_named(case: str, folder: Path) -> None:
    header, data, length, message = HEADERS[case]
    write_weights(folder, header, data, length)
    refused(folder, str(folder / WEIGHTS), message)


# Files that are no files


def link_to(target: str) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return spoil


def link_to_a_good_one(file: Path) -> None:
    shutil.move(file, file.parent.parent / "elsewhere")
    file.symlink_to("../elsewhere")


def replace_by(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        file.unlink()
        make(file)

    return spoil


NO_FILES: dict[str, Callable[[Path], None]] = {
    "link to a good file": link_to_a_good_one,
    "link to an endless device": link_to("/dev/zero"),
    "link to nowhere": link_to("nowhere"),
    "link to itself": link_to(WEIGHTS),
    "link to the system": link_to("/etc/passwd"),
    "folder": replace_by(Path.mkdir),
    "pipe": replace_by(os.mkfifo),
}


@pytest.mark.parametrize("case", NO_FILES)
@pytest.mark.parametrize("file", [DESCRIPTION, WEIGHTS])
def test_only_plain_files_are_read(case: str, file: str, folder: Path) -> None:
    NO_FILES[case](folder / file)
    refused(folder, f"{folder / file} is not a plain file")


@pytest.mark.parametrize("case", NO_FILES)
def test_only_a_plain_config_is_read(case: str, folder: Path) -> None:
    (folder / "config.json").write_text('{"algorithm": "ppo", "env": "Pendulum-v1"}')
    assert settings_of(folder)["env"] == "Pendulum-v1"
    NO_FILES[case](folder / "config.json")
    with pytest.raises(UserError, match="not a plain file"):
        settings_of(folder)


@pytest.mark.parametrize("file", [DESCRIPTION, WEIGHTS])
def test_a_missing_file_is_named(file: str, folder: Path) -> None:
    (folder / file).unlink()
    refused(folder, f"no saved agent in {folder}: {file} is missing")


# Code


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def write_pickle(file: Path, canary: Canary) -> None:
    file.write_bytes(pickle.dumps(canary))


def write_checkpoint(file: Path, canary: Canary) -> None:
    torch.save({"weight": canary}, file)


def behind_a_header(file: Path, canary: Canary) -> None:
    file.write_bytes(struct.pack("<Q", 2) + b"{}" + pickle.dumps(canary))


@pytest.mark.parametrize("file", [DESCRIPTION, WEIGHTS])
@pytest.mark.parametrize("write", [write_pickle, write_checkpoint, behind_a_header])
def test_a_pickle_is_not_unpickled(
    write: Callable[[Path, Canary], None], file: str, folder: Path, tmp_path: Path
) -> None:
    write(folder / file, Canary(tmp_path / "marker"))
    refused(folder, str(folder / file), "cannot be read")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("write", [write_pickle, write_checkpoint])
def test_the_pickle_would_run_code(write: Callable[[Path, Canary], None], tmp_path: Path) -> None:
    write(tmp_path / "file", Canary(tmp_path / "marker"))
    if write is write_pickle:
        pickle.loads((tmp_path / "file").read_bytes())
    else:
        torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "marker").exists()


def evaluate(folder: Path) -> tuple[Any, str]:
    """Exit code and what `zoo eval` writes to standard error."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err), pytest.raises(SystemExit) as stopped:
        main(["eval", str(folder), "--episodes", "1"])
    return stopped.value.code, err.getvalue()


@pytest.fixture
def run_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with a module beside it, which makes a file when it is imported."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "canary.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'marker')!r})\n")
    yield folder
    sys.modules.pop("canary", None)


# The settings of a run -> what `zoo eval` says
CONFIGS: dict[str, tuple[Any, str]] = {
    "a module to import": ({"algorithm": "ppo", "env": "canary:Canary-v0"}, "add --env canary:Canary-v0"),
    "no such algorithm": ({"algorithm": "canary:Canary", "env": "Pendulum-v1"}, "unknown algorithm 'canary:Canary'"),
    "an environment of other spaces": ({"algorithm": "ppo", "env": "CartPole-v1"}, "was trained for observation_space"),
    "environment a list": ({"algorithm": "ppo", "env": ["Pendulum-v1"]}, "names no algorithm and environment"),
    "environment null": ({"algorithm": "ppo", "env": None}, "names no algorithm and environment"),
    "environment very long": ({"algorithm": "ppo", "env": "x" * 500_000}, "names no algorithm and environment"),
    "algorithm a number": ({"algorithm": 1, "env": "Pendulum-v1"}, "names no algorithm and environment"),
    "a list": ([], "names no algorithm and environment"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_eval_refuses_a_wrong_config_and_imports_nothing(case: str, run_folder: Path, tmp_path: Path) -> None:
    config, message = CONFIGS[case]
    (run_folder / "config.json").write_text(json.dumps(config))
    code, error = evaluate(run_folder)
    assert (code, len(error.splitlines())) == (2, 1)
    assert message in error
    assert not (tmp_path / "marker").exists()


def test_the_module_would_run_code(run_folder: Path, tmp_path: Path) -> None:
    with contextlib.suppress(gym.error.Error):
        gym.make("canary:Canary-v0")
    assert (tmp_path / "marker").exists()


# What an attempt leaves behind

EVENTS: list[str] | None = None  # while it is a list, what happens in this process
CODE = {"exec", "compile", "import", "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
CODE |= {"subprocess.Popen", "ctypes.dlopen", "os.mkdir", "os.remove", "os.rename", "socket.connect"}


WRITE = os.O_WRONLY | os.O_RDWR


def notice(event: str, args: tuple[Any, ...]) -> None:
    if EVENTS is not None and (event in CODE or (event == "open" and args[2] & WRITE)):
        EVENTS.append(f"{event} {args}")


sys.addaudithook(notice)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Whatever runs code, imports a module or writes a file."""
    global EVENTS
    EVENTS = found = []
    try:
        yield found
    finally:
        EVENTS = None


def test_code_is_noticed(tmp_path: Path) -> None:
    with watched() as events:
        pickle.loads(pickle.dumps(Canary(tmp_path / "marker")))
        (tmp_path / "file").write_text("x")
        exec("pass")
    assert {event.split()[0] for event in events} >= {"pickle.find_class", "os.mkdir", "open", "compile", "exec"}


@pytest.mark.parametrize("case", ["good", "wrong tensor", "giant", "wrong description"])
def test_an_attempt_leaves_nothing_behind(case: str, folder: Path) -> None:
    if case == "wrong tensor":
        tensors = load_file(folder / WEIGHTS)
        save_file(tensors | {BIAS: tensors[BIAS] * np.nan}, folder / WEIGHTS)
    elif case != "good":
        describe(folder, "config.hidden", [10**6, 10**6] if case == "giant" else [0])
    with contextlib.suppress(UserError):
        zoo.load(folder)  # what is imported lazily is imported now
    files = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    stream, device = torch.get_rng_state(), torch.get_default_device()
    with watched() as events:
        if case == "good":
            zoo.load(folder)
        else:
            refused(folder)
    assert events == []
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()} == files
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.get_default_device() == device
    assert torch.empty(2**24).nbytes == 2**26  # no budget is left in force


# Any file at all

FILES = 200  # for each of the good agents
NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, "", "1", "nan", "-inf", "1e999"),
    *([], {}, [[]], [0], [10**12], [1] * 2000, [-1], ["x"], [None], [1.5], "os:system", "../../x", "\x00", "\ud800"),
    *(
        "float64",
        "uint8",
        "object",
        "Box",
        "Discrete",
        "MultiDiscrete",
        "F64",
        "I8",
        "F4",
        [2**62, 4],
        [4, 0],
        [0, 2**40],
    ),
]


def places(data: Any) -> list[tuple[Any, Any]]:
    """Each (container, key) of a JSON value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else []
    return [place for key, value in items for place in [(data, key), *places(value)]]


def change_json(data: Any, rng: Generator) -> bytes:
    """A description or a header with one thing changed: a value, a key, two values exchanged, a key twice."""
    found = places(data)
    (at, key), (other, second) = (found[rng.integers(len(found))] for _ in range(2))
    match rng.integers(6):
        case 0 | 1:
            at[key] = NASTY[rng.integers(len(NASTY))]
        case 2:
            del at[key]
        case 3:
            at[key], other[second] = other[second], at[key]
        case 4 if isinstance(at, dict):
            at[str(NASTY[rng.integers(len(NASTY))])] = at.pop(key)
        case _:
            text = json.dumps(data)
            return text.replace(f'"{key}":', f'"{second}": 1, "{key}":', 1).encode()
    return json.dumps(data).encode()


def change_bytes(content: bytes, rng: Generator) -> bytes:
    """Bits flipped, bytes overwritten, cut out, put in or put twice, or the end cut off."""
    data, start = bytearray(content), int(rng.integers(len(content) + 1))
    stop = min(len(data), start + int(rng.integers(1, 40)))
    match rng.integers(6):
        case 0:
            for place in rng.integers(len(data), size=rng.integers(1, 9)):
                data[place] ^= 1 << int(rng.integers(8))
        case 1:
            data[start:stop] = rng.bytes(stop - start)
        case 2:
            del data[start:stop]
        case 3:
            data[start:start] = rng.bytes(20)
        case 4:
            data[start:start] = data[start:stop]
        case _:
            del data[start:]
    return bytes(data)


def change_header(folder: Path, rng: Generator) -> None:
    """A file of weights with another header or another length of it, or only a few bits of it flipped."""
    header, data = read_weights(folder)
    match rng.integers(4):
        case 0:
            write_weights(folder, change_json(header, rng), data)
        case 1:
            write_weights(folder, header, data, int(rng.integers(2 ** int(rng.integers(1, 63)))))
        case 2:
            write_weights(folder, change_bytes(json.dumps(header).encode(), rng), data)
        case _:
            names = rng.permutation(list(header)).tolist()
            write_weights(folder, dict(zip(names, header.values(), strict=True)), data)


def change(folder: Path, marker: Path, rng: Generator) -> None:
    """Spoil one of an agent's files."""
    file = folder / (DESCRIPTION, WEIGHTS)[rng.integers(2)]
    match rng.integers(8):
        case 0:
            write_pickle(file, Canary(marker))
        case 1 | 2:
            file.write_bytes(change_bytes(file.read_bytes(), rng))
        case _ if file.name == WEIGHTS:
            change_header(folder, rng)
        case _:
            file.write_bytes(change_json(json.loads(file.read_text()), rng))


def outcome(folder: Path) -> str:
    """Refused or loaded, which is what may happen, or something else."""
    try:
        with watched() as events:
            agent = zoo.load(folder)
    except UserError as error:
        return f"ran {events}" if events else "refused" if len(str(error).splitlines()) == 1 else f"long: {error}"
    except Exception as error:
        return f"loading: {error!r}"
    try:
        act(agent)
    except Exception as error:
        return f"acting: {error!r}"
    return f"ran {events}" if events else "loaded"


@each_base
def test_any_file_is_refused_by_name_or_acts(base: str, originals: dict[str, Path], tmp_path: Path) -> None:
    folder, marker = tmp_path / "agent", tmp_path / "marker"
    act(zoo.load(originals[base]))  # what is imported lazily is imported now
    outcomes = {}
    for number in range(FILES):
        shutil.copytree(originals[base], folder, dirs_exist_ok=True)
        change(folder, marker, np.random.default_rng(number))
        outcomes[number] = outcome(folder)
    counts = Counter(outcomes.values())
    print(f"{base}: {dict(counts)}")
    assert counts.keys() == {"refused", "loaded"}, outcomes
    assert counts["refused"] > 0.7 * FILES
    assert not marker.exists()


def spoil(folder: Path, how: str) -> None:
    weights, description = folder / WEIGHTS, folder / DESCRIPTION
    if how == "missing":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "not json":
        description.write_text("{")
    else:
        data = json.loads(description.read_text())
        changes: dict[str, Any] = {
            "schema": {"schema": 99},
            "algorithm": {"algorithm": "a2c"},
            "shape": {"config": data["config"] | {"hidden": [9]}},
            "unknown": {"config": data["config"] | {"gama": 1}},
        }
        description.write_text(json.dumps(data | changes[how]))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "is missing"),
        ("truncated", "cannot be read"),
        ("not json", "cannot be read"),
        ("schema", "schema 99; expected 1"),
        ("algorithm", "no setting"),
        ("shape", "has shape"),
        ("unknown", "did you mean 'gamma'"),
    ],
)
def test_a_damaged_agent_is_refused_by_name(how: str, message: str, tmp_path: Path) -> None:
    zoo.train("ppo", "CartPole-v1", out=tmp_path / "run", **small("ppo"))
    spoil(tmp_path / "run" / "final", how)
    with pytest.raises(UserError, match=message):
        zoo.load(tmp_path / "run")
