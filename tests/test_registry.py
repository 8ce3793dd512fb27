"""registry.yaml against the classes it names, and registries of users, whole and broken."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from numpy.random import SeedSequence
from torch import nn

import zoo
from zoo import UserError, registry
from zoo.config import field_info
from zoo.envs.ids import resolve_id
from zoo.settings import Run, resolve
from zoo.spec import Spec
from zoo.taxonomy import CELLS, Cell

OWN = Path(__file__).parents[1] / "registry.yaml"
ENTRIES = registry.load().algorithms
MEMBERS = "cell", "spaces", "Config", "make_buffer", "act", "greedy", "update"
TUNED = [(name, env) for name, entry in ENTRIES.items() for env in entry.envs]

TOY = '''
from gymnasium.spaces import Discrete
from torch import nn

from zoo.buffers.rollout import RolloutBuffer
from zoo.config import Field, config
from zoo.parts.networks import Policy
from zoo.parts.optim import Adam
from zoo.taxonomy import Cell


@config
class ToyConfig:
    num_steps: int = Field(4, ge=1, description="steps per environment in a rollout")
    learning_rate: float = Field(0.1, gt=0, description="step size")


class Toy(nn.Module):
    """REINFORCE with rewards for returns."""

    cell, spaces, Config = Cell("policy/on/v"), (Discrete,), ToyConfig

    def __init__(self, spec, config, generator):
        super().__init__()
        self.config, self.generator = config, generator
        self.actor = Policy(spec, (8,), "tanh")
        self.optimizer = Adam(self.parameters(), eps=1e-8, max_grad_norm=1.0)

    def make_buffer(self, spec, num_envs):
        return RolloutBuffer(spec, num_envs, self.config.num_steps)

    def act(self, obs, progress):
        policy = self.actor(obs)
        action = policy.sample(self.actor.noise(len(obs), generator=self.generator))
        return action, policy.log_prob(action)

    def greedy(self, obs):
        return self.actor(obs).mode()

    def update(self, batch, progress):
        loss = -(batch.reward * self.actor(batch.obs).log_prob(batch.action)).mean()
        return {"policy_loss": loss.detach(), "grad_norm": self.optimizer.minimize(loss, self.config.learning_rate)}
'''

TOY_ENTRY = "class: zoo_toy:Toy, title: Toy, equation: none, paper: none"
TOY_REGISTRY = f"""
cells:
  "policy/on/v": {{also: [toy]}}
algorithms:
  toy: {{{TOY_ENTRY}, envs: {{CartPole-v1: {{num_envs: 2, num_steps: 8}}}}}}
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's registry, to be written by the test, and the module of a toy algorithm beside it."""
    (tmp_path / "zoo_toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ZOO_REGISTRY", str(tmp_path / "mine.yaml"))
    yield tmp_path / "mine.yaml"
    sys.modules.pop("zoo_toy", None)


# The registry of the package


def test_own_file_has_the_eight_cells_and_no_other() -> None:
    assert list(yaml.safe_load(OWN.read_text(encoding="utf-8"))["cells"]) == [str(cell) for cell in CELLS]
    assert len(CELLS) == 8
    cells = registry.load().cells
    assert all(entry.algorithms for entry in cells.values())
    assert {path for path, entry in cells.items() if entry.model} == {"value/off/v", "value/on/v"}


@pytest.mark.parametrize("name", ENTRIES)
def test_class_stands_in_the_cell_that_it_names(name: str) -> None:
    cls = registry.load_class(name)
    assert [path for path, entry in registry.load().cells.items() if name in entry.algorithms] == [str(cls.cell)]
    assert registry.load().cell_of(name) == cls.cell


@pytest.mark.parametrize("name", ENTRIES)
def test_class_is_an_algorithm_with_no_common_parent(name: str) -> None:
    cls = registry.load_class(name)
    assert cls.__bases__ == (nn.Module,)
    assert all(hasattr(cls, member) for member in MEMBERS)
    assert (OWN.parent / registry.get(name).source).is_file()


@pytest.mark.parametrize("name", ENTRIES)
def test_settings_of_the_run_and_of_the_algorithm_never_share_a_name(name: str) -> None:
    assert not field_info(Run).keys() & field_info(registry.load_class(name).Config).keys()


@pytest.mark.parametrize(("name", "env"), TUNED)
def test_tuned_settings_resolve_on_an_environment_that_exists(name: str, env: str) -> None:
    if env.startswith("ALE/"):
        pytest.importorskip("ale_py")
    assert resolve_id(env) == env
    settings = resolve(name, env, {})
    values = registry.to_json(settings.run) | registry.to_json(settings.config)
    tuned = ENTRIES[name].envs[env]
    assert {key: values[key] for key in tuned} == tuned  # a number that YAML reads as text would differ
    assert {key for key, source in settings.sources.items() if source == "registry"} == tuned.keys()


def test_lookup_gives_the_canonical_algorithm_first() -> None:
    assert registry.lookup("policy/on/v")[:2] == zoo.lookup(Cell("POLICY/on/V"))[:2] == ["ppo", "a2c"]
    assert registry.lookup("value/on/v") == ["tdv"]


@pytest.mark.parametrize("path", ["", "policy", "policy/on", "policy/on/v/x", "policy/maybe/v", "on/policy/v"])
def test_lookup_refuses_what_is_no_cell(path: str) -> None:
    with pytest.raises(UserError, match="is not"):
        registry.lookup(path)


def test_find_by_axes() -> None:
    assert list(registry.find()) == list(CELLS)
    assert [str(cell) for cell in registry.find(strategy="policy", target="v")] == ["policy/off/v", "policy/on/v"]
    assert [str(cell) for cell in registry.find(strategy="value", data="on", target="q")] == ["value/on/q"]
    with pytest.raises(UserError, match="off, on"):
        registry.find(data="maybe")


def test_unknown_algorithm_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'ppo'"):
        registry.get("poo")


# Registries of users


def test_user_algorithm_joins_the_cube_and_trains(user: Path, tmp_path: Path) -> None:
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    assert registry.lookup("policy/on/v") == [*registry.read([OWN]).cells["policy/on/v"].algorithms, "toy"]
    agent = zoo.train("toy", "CartPole", total_steps=64, seed=0, eval_episodes=2, eval_every=0, out=tmp_path / "run")
    assert agent.algo.config.num_steps == 8
    weights, untrained = agent.weights(), zoo.train("toy", "CartPole", total_steps=1, seed=0, eval_episodes=0).weights()
    assert any(not torch.equal(weights[key], untrained[key]) for key in weights)
    loaded = zoo.load(tmp_path / "run")
    assert all(torch.equal(weights[key], value) for key, value in loaded.weights().items())
    assert zoo.evaluate(loaded, "CartPole-v1", episodes=2).mean > 0


def test_user_settings_join_those_of_the_package(user: Path) -> None:
    ppo = ENTRIES["ppo"].model_dump(by_alias=True) | {"envs": {"Taxi-v4": {"gamma": 0.5}}}
    user.write_text(yaml.safe_dump({"algorithms": {"ppo": ppo}}), encoding="utf-8")
    assert registry.get("ppo").envs == ENTRIES["ppo"].envs | {"Taxi-v4": {"gamma": 0.5}}
    assert resolve("ppo", "Taxi-v4", {}).config.gamma == 0.5


PPO = ENTRIES["ppo"].model_dump(by_alias=True) | {"envs": {}, "presets": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "zoo_toy:Toy"}, "ppo is registered already, with class 'zoo.algos.ppo:PPO', not 'zoo_toy:Toy'"),
        ({"title": "Toy"}, "ppo is registered already, with title"),
        ({"envs": {"CartPole-v1": {"gamma": 0.5}}}, "ppo has other settings for CartPole-v1 already"),
        ({"presets": {"sb3": {"gamma": 0.5}}}, "ppo has other settings for sb3 already"),
    ],
)
def test_an_algorithm_of_the_package_is_not_replaced(changes: dict[str, Any], message: str, user: Path) -> None:
    user.write_text(yaml.safe_dump({"algorithms": {"ppo": PPO | changes}}), encoding="utf-8")
    with pytest.raises(UserError, match=rf"^registry .*mine\.yaml: {re.escape(message)}[^\n]*$"):
        registry.load()


def test_user_presets_join_those_of_the_package(user: Path) -> None:
    more = {"presets": {"slow": {"learning_rate": 1e-5}}, "envs": ENTRIES["ppo"].envs}
    user.write_text(yaml.safe_dump({"algorithms": {"ppo": PPO | more}}), encoding="utf-8")
    assert registry.get("ppo").presets == ENTRIES["ppo"].presets | more["presets"]
    assert resolve("ppo", "Taxi-v4", {}, preset="slow").config.learning_rate == 1e-5


def test_several_user_registries(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    other = tmp_path / "other.yaml"
    other.write_text(TOY_REGISTRY.replace("toy:", "doll:").replace("[toy]", "[doll]"), encoding="utf-8")
    monkeypatch.setenv("ZOO_REGISTRY", os.pathsep.join([str(user), "", str(other)]))
    assert registry.lookup("policy/on/v")[-2:] == ["toy", "doll"]


def test_user_registry_may_join_a_cell_that_needs_a_model(user: Path) -> None:
    user.write_text(TOY_REGISTRY.replace("policy/on/v", "value/on/v"), encoding="utf-8")
    entry = registry.load().cells["value/on/v"]
    assert entry.algorithms == ["tdv", "toy"]
    assert entry.model is not None


# What is wrong -> what the one line must name: the place, and the nearest fix
BROKEN = {
    "cellz: {}": ["mine.yaml", "'cellz'", "did you mean 'cells'?"],
    "cells: {policy/on/v: {algoritm: ppo}}": ["mine.yaml", "cells.policy/on/v.algoritm", "did you mean 'algorithm'?"],
    f"algorithms: {{toy: {{{TOY_ENTRY}, env: {{}}}}}}": ["mine.yaml", "algorithms.toy.env", "did you mean 'envs'?"],
    f"algorithms: {{toy: {{{TOY_ENTRY.replace('class:', 'clas:')}}}}}": ["algorithms.toy", "did you mean 'class'?"],
    "algorithms: {toy: {title: Toy, equation: none, paper: none}}": ["mine.yaml", "algorithms.toy.class", "required"],
    f"algorithms: {{toy: {{{TOY_ENTRY.replace('toy:Toy', 'toy.Toy')}}}}}": ["mine.yaml", "algorithms.toy.class"],
    f"algorithms: {{toy: {{{TOY_ENTRY}, envs: {{Taxi-v4: 3}}}}}}": ["mine.yaml", "algorithms.toy.envs.Taxi-v4"],
    f"algorithms: {{toy: {{{TOY_ENTRY}}}}}": ["'toy'", "no cell"],
    "cells: {policy/on/v: {also: [poo]}}": ["policy/on/v", "'poo'", "did you mean 'ppo'?"],
    "cells: {policy/on/q: {also: [ppo]}}": ["'ppo'", "policy/on/q", "policy/on/v"],
    "cells: {policy/onn/v: {also: [ppo]}}": ["'onn'", "off, on"],
    "cells: {policy: {on: {v: {also: [ppo]}}}}": ["mine.yaml", "cells.policy"],
    "cells: {on: {also: [ppo]}}": ["mine.yaml", "cells", "quote"],
    "cells: {policy/on/v: {also: [on]}}": ["mine.yaml", "cells.policy/on/v.also"],
    "cells: {policy/on/v: [ppo": ["mine.yaml", "not valid YAML", "line 1"],
    "- cells": ["mine.yaml", "dictionary"],
    "\t": ["mine.yaml", "not valid YAML"],
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_registry_is_refused_in_one_line_that_names_the_place(text: str, user: Path) -> None:
    user.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        registry.load()
    message = str(refused.value)
    assert [part for part in BROKEN[text] if part not in message] == [], message
    assert "\n" not in message


def test_empty_registry_adds_nothing(user: Path) -> None:
    user.touch()
    assert registry.load() == registry.read([OWN])


def test_missing_registry_is_refused(user: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml does not exist"):
        registry.load()


def test_folder_for_a_registry_is_refused(user: Path) -> None:
    user.mkdir()
    with pytest.raises(UserError, match=r"mine\.yaml"):
        registry.load()


def test_registry_that_is_not_text_is_refused(user: Path) -> None:
    user.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        registry.load()


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("num_steps", "num_step", ["toy on CartPole-v1", "'num_step'", "did you mean 'num_steps'?"]),
        ("num_envs", "number_envs", ["toy on CartPole-v1", "did you mean 'num_envs'?"]),
        ("num_steps: 8", "num_steps: 0", ["toy on CartPole-v1", "num_steps = 0", "greater than or equal to 1"]),
        ("zoo_toy:Toy", "zoo_toy:Tony", ["'toy'", "zoo_toy:Tony", "cannot be imported"]),
        ("zoo_toy:Toy", "zoo_tony:Toy", ["'toy'", "zoo_tony:Toy", "cannot be imported"]),
    ],
)
def test_broken_entry_is_refused_when_it_is_used(old: str, new: str, parts: list[str], user: Path) -> None:
    user.write_text(TOY_REGISTRY.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        resolve("toy", "CartPole-v1", {})
    assert [part for part in parts if part not in str(refused.value)] == []


# What is wrong with the class, as an edit of the toy -> what the one line must say
WRONG = {
    "no module": ("class Toy(nn.Module):", "class Toy:", ["is no class derived from torch.nn.Module"]),
    "no class": ("class Toy(nn.Module):", "Toy = 3\n\n\nclass Doll(nn.Module):", ["is no class"]),
    "no cell": (
        'cell, spaces, Config = Cell("policy/on/v"), (Discrete,),',
        "spaces, Config = (Discrete,),",
        ["no 'cell'"],
    ),
    "no spaces": (
        'cell, spaces, Config = Cell("policy/on/v"), (Discrete,),',
        'cell, Config = Cell("policy/on/v"),',
        ["'spaces'"],
    ),
    "no Config": (
        'Config = Cell("policy/on/v"), (Discrete,), ToyConfig',
        '_ = Cell("policy/on/v"), (Discrete,), 0',
        ["'Config'"],
    ),
    "no make_buffer": ("def make_buffer", "def make_a_buffer", ["has no 'make_buffer'"]),
    "no act": ("def act", "def acts", ["has no 'act'"]),
    "no greedy": ("def greedy", "def greedily", ["has no 'greedy'"]),
    "no update": ("def update", "def updated", ["has no 'update'"]),
    "a cell as text": ('Cell("policy/on/v")', '"policy/on/v"', ["cell = 'policy/on/v'", "Cell('policy/on/v')"]),
    "another cell": (
        'Cell("policy/on/v")',
        'Cell("policy/off/v")',
        ["cell = Cell('policy/off/v')", "expected Cell('policy/on/v')"],
    ),
    "a space, not in a tuple": ("(Discrete,)", "Discrete", ["spaces = ", "such as (Discrete,)"]),
    "no spaces in the tuple": ("(Discrete,)", "()", ["spaces = ()"]),
    "a space, not its class": ("(Discrete,)", "(Discrete(2),)", ["spaces = (Discrete(2),)"]),
    "a plain Config": ("@config", "", ["Config = ", "ToyConfig", "made with zoo.config.config"]),
    "a dataclass": ("@config", "from dataclasses import dataclass\n@dataclass", ["made with zoo.config.config"]),
    "a Config, not its class": ("ToyConfig\n\n    def", "ToyConfig()\n\n    def", ["made with zoo.config.config"]),
    "a setting of the run": ("num_steps: int", "seed: int", ["'seed'", "setting of every run"]),
    "an option of commands": ("num_steps: int", "out: int", ["'out'", "option of commands"]),
    "help": ("num_steps: int", "help: int", ["'help'", "option of commands"]),
    "a number for a method": ("def greedy", "greedy = 3\n    def _greedy", ["greedy = 3", "expected a method"]),
    "too few arguments": ("def greedy(self, obs)", "def greedy(self)", ["'greedy'", "greedy(obs)", "too many"]),
    "too many arguments": (
        "update(self, batch, progress)",
        "update(self, batch, progress, rate)",
        ["'update'", "'rate'"],
    ),
    "a step that is none": ("def greedy", "step = 3\n\n    def greedy", ["step = 3"]),
    "a number of steps": ("def greedy", "steps_per_batch = 3\n\n    def greedy", ["steps_per_batch = 3", "a method"]),
    "guards as text": (
        "def greedy",
        'few_guards = "no"\n\n    def greedy',
        ["few_guards = 'no'", "expected True or False"],
    ),
    "saved as text": (
        "def greedy",
        'saved = ("generator")\n\n    def greedy',
        ["saved = 'generator'", "('generator',)"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_class_is_refused_in_one_line_that_names_the_member(case: str, user: Path) -> None:
    right, wrong, parts = WRONG[case]
    assert right in TOY
    (user.parent / "zoo_toy.py").write_text(TOY.replace(right, wrong), encoding="utf-8")
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        registry.load_class("toy")
    message = str(refused.value)
    assert message.startswith("algorithm 'toy': zoo_toy:Toy ")
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message


KEPT = "self.config, self.generator = config, generator"


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (KEPT, "self.config = config", "sets no self.generator"),
        (KEPT, "self.generator = generator", "sets no self.config"),
        (KEPT, f"{KEPT}.clone_state()", "self.generator is another one"),
        ("def greedy", "saved = ('generator', 'average')\n\n    def greedy", "sets no self.average"),
    ],
)
def test_what_init_must_keep_is_looked_for_when_it_is_made(right: str, wrong: str, message: str, user: Path) -> None:
    assert right in TOY
    text = TOY.replace("self.config.num_steps", "4").replace(right, wrong)
    (user.parent / "zoo_toy.py").write_text(text, encoding="utf-8")
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    spec = Spec(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
    with pytest.raises(UserError, match=f"algorithm 'toy': .*{message}"):
        registry.make("toy", spec, registry.load_class("toy").Config(), SeedSequence(0))


@pytest.mark.parametrize("wrong", ["def (", "raise ValueError('no')", "undefined", "import sys; sys.exit(3)"])
def test_a_module_that_cannot_be_imported_costs_one_line(wrong: str, user: Path) -> None:
    (user.parent / "zoo_toy.py").write_text(f"{TOY}\n{wrong}\n", encoding="utf-8")
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    with pytest.raises(UserError, match=r"zoo_toy:Toy cannot be imported: [^\n]+$"):
        registry.load_class("toy")


@pytest.mark.parametrize("wrong", ["return None", "return 3", "RolloutBuffer(spec, num_envs, 8)"])
def test_what_is_no_buffer_costs_one_line(wrong: str, user: Path) -> None:
    right = "return RolloutBuffer(spec, num_envs, self.config.num_steps)"
    assert right in TOY
    (user.parent / "zoo_toy.py").write_text(TOY.replace(right, wrong), encoding="utf-8")
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    with pytest.raises(UserError, match=r"^algorithm 'toy': make_buffer returns (None|3); expected a buffer[^\n]+$"):
        zoo.train("toy", "CartPole-v1", total_steps=8, seed=0, eval_episodes=0)


@pytest.mark.parametrize("name", ["step", "seconds", "steps_per_second", "episode_return", "eval_return"])
def test_a_metric_with_the_name_of_a_column_costs_one_line(name: str, user: Path) -> None:
    assert '"policy_loss"' in TOY
    (user.parent / "zoo_toy.py").write_text(TOY.replace('"policy_loss"', f'"{name}"'), encoding="utf-8")
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    with pytest.raises(UserError, match=rf"^toy: update returns a metric '{name}'[^\n]+$"):
        zoo.train("toy", "CartPole-v1", total_steps=64, seed=0, eval_episodes=0)


def test_an_entry_without_a_step_says_that_nothing_is_compiled(user: Path) -> None:
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    given = {"total_steps": 8, "seed": 0, "eval_episodes": 0}
    with pytest.warns(UserWarning, match="compile = on changes nothing: the algorithm has no method 'step'"):
        zoo.train("toy", "CartPole-v1", compile="on", **given)
    zoo.train("toy", "CartPole-v1", compile="auto", **given)  # without a warning, which would be an error


def test_rewards_are_normalised_by_a_discount(user: Path) -> None:
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    with pytest.raises(UserError, match="normalize_reward needs a discount, but toy has no setting 'gamma'"):
        zoo.train("toy", "CartPole-v1", total_steps=8, seed=0, normalize_reward=True, eval_episodes=0)


def test_optimisers_are_known_by_their_type(user: Path) -> None:
    """Under whatever name: their moments stay out of a saved agent, and a network called optimizer stays in."""
    for old, new in (("self.optimizer", "self.descent"), ("self.actor", "self.optimizer_net")):
        toy = user.parent / "zoo_toy.py"
        toy.write_text(toy.read_text().replace(old, new), encoding="utf-8")
    user.write_text(TOY_REGISTRY, encoding="utf-8")
    agent = zoo.train("toy", "CartPole-v1", total_steps=8, seed=0, eval_episodes=0)
    assert {key.split(".")[1] for key in agent.state_dict()} == {"descent", "optimizer_net"}
    assert {key.split(".")[1] for key in agent.weights()} == {"optimizer_net"}


@pytest.mark.parametrize(
    "tag", ["object/apply:os.system ['touch ran']", "object/new:os.system ['touch ran']", "name:os.system"]
)
@pytest.mark.parametrize("place", ["{}", "cells: {}", "algorithms: {{ppo: {{envs: {{CartPole-v1: {{gamma: {}}}}}}}}}"])
def test_python_in_a_registry_is_refused_and_never_run(
    tag: str, place: str, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user.parent)
    user.write_text(place.format(f"!!python/{tag}"), encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.yaml is not valid YAML"):
        registry.load()
    assert not Path("ran").exists()


def test_python_tags_would_run_with_an_unsafe_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    yaml.load("!!python/object/apply:os.system ['touch ran']", yaml.UnsafeLoader)
    assert Path("ran").exists()


@pytest.mark.parametrize("name", [name for name, env in TUNED if env.startswith("MinAtar/")])
def test_entries_learn_from_planes(name: str) -> None:
    pytest.importorskip("minatar")
    small = {"total_steps": 64, "num_envs": 2, "num_steps": 8, "batch_size": 8, "num_epochs": 1, "learning_starts": 32}
    known = {**field_info(Run), **field_info(registry.load_class(name).Config)}
    settings: dict[str, Any] = {key: value for key, value in small.items() if key in known}
    agent = zoo.train(name, "MinAtar/Breakout", seed=0, eval_every=0, eval_episodes=0, compile="off", **settings)
    obs = np.zeros((10, 10, 4), np.bool_)
    assert agent.predict(obs)[0] in agent.spec.action_space
    assert [module for module in agent.modules() if isinstance(module, torch.nn.Conv2d)]
