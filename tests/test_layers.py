"""Who may import whom, what nobody may do, and how long things may get, read from the source with ast."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from torch import nn

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted((ROOT / "zoo").rglob("*.py"))
}
SOURCES = {module: file.read_text(encoding="utf-8") for module, file in FILES.items()}

# Which folders each folder may import. The vocabulary, the files that lie flat in zoo/, may be imported by all.
MAY_IMPORT = {
    "parts": set[str](),
    "buffers": set[str](),
    "envs": set[str](),
    "algos": {"parts", "buffers"},
    "storage": {"envs"},
    "actors": {"buffers", "envs", "training"},
    "training": {"envs", "storage"},
    "runs": {"actors", "buffers", "envs", "storage", "training"},
    "crosscheck": {"parts", "runs", "storage", "training"},
    "bench": {"crosscheck", "envs", "runs", "storage", "training"},
    "cli": {"bench", "crosscheck", "envs", "runs", "storage", "training"},
}
DOORS = {"zoo", "zoo.__main__"}  # which lead to all of it
ALGORITHMS = [module for module in FILES if module.startswith("zoo.algos.")]

UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "__import__", "torch.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load"}
NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)

each_module = pytest.mark.parametrize("module", FILES)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imported(source: str, *, lazily: bool = True) -> set[str]:
    """The modules that a source imports; without `lazily` only those that importing it imports."""
    tree = ast.parse(source)
    nodes = ast.walk(tree) if lazily else iter(tree.body)
    return {module for node in nodes for module in _modules(node)}


def _modules(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        package = str(node.module)
        names = [f"{package}.{alias.name}" for alias in node.names]
        yield from (name if name in FILES else package for name in names)


def zoo_imports(module: str) -> set[str]:
    return {name for name in imported(SOURCES[module]) if within(name, ("zoo",))}


def dangers(source: str) -> set[str]:
    """What could run code that is only data."""
    nodes = list(ast.walk(ast.parse(source)))
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    keywords = {keyword.arg for node in nodes if isinstance(node, ast.Call) for keyword in node.keywords}
    names = {
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    modules = {name.partition(".")[0] for name in imported(source)}
    return (calls | names) & UNSAFE_CALLS | modules & UNSAFE_MODULES | keywords & {"allow_pickle"}


def private(source: str) -> set[str]:
    """What of torch a source uses that begins with an underscore: names of its modules, attributes of nn.Module."""
    nodes = list(ast.walk(ast.parse(source)))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    imports = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [
        (f"{node.module}.{alias.name}", alias.asname or alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if within(str(node.module), ("torch",))
    ]
    known = {"torch", *(name for _, name in froms)}
    used = {name for name in map(ast.unparse, attributes) if name.partition(".")[0] in known}
    used |= {path for path, _ in froms} | {alias.name for alias in imports if within(alias.name, ("torch",))}
    of_modules = {name for name in vars(nn.Module()) if name.startswith("_")}
    return {name for name in used if re.search(r"\._(?!_)", name)} | {each.attr for each in attributes} & of_modules


def functions(source: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(source))
    return {
        f"{node.name}, line {node.lineno}": node
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def depth(node: ast.AST) -> int:
    """How many blocks stand inside one another; an elif stands beside its if."""
    below = max((depth(child) for child in ast.iter_child_nodes(node)), default=0)
    if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        body = max(depth(child) for child in node.body)
        return max(1 + body, depth(node.orelse[0]))
    return below + isinstance(node, NESTING)


# Who may import whom


def folder(module: str) -> str:
    """The folder of a module; "" for the vocabulary."""
    name = module.removeprefix("zoo").removeprefix(".").partition(".")[0]
    return name if name in MAY_IMPORT else ""


@pytest.mark.parametrize("module", [module for module in FILES if module not in DOORS])
def test_folders_import_downwards(module: str) -> None:
    found = {folder(name) for name in zoo_imports(module)} - {"", folder(module)}
    assert found <= MAY_IMPORT.get(folder(module), set())


def test_folders_stand_above_one_another_and_are_all_named() -> None:
    list(TopologicalSorter(MAY_IMPORT).static_order())
    assert {file.parent.name for file in (ROOT / "zoo").glob("*/*.py")} == set(MAY_IMPORT)
    assert len(list((ROOT / "zoo").glob("*.py"))) <= 10 + len(DOORS)


@pytest.mark.parametrize("module", ["zoo.parts.targets", "zoo.parts.optim", "zoo.errors"])
def test_the_maths_imports_nothing_but_errors(module: str) -> None:
    assert zoo_imports(module) <= {"zoo.errors"}


@pytest.mark.parametrize("module", ALGORITHMS)
def test_algorithms_import_no_settings_of_runs(module: str) -> None:
    assert not zoo_imports(module) & {"zoo.registry", "zoo.settings"}


@each_module
def test_classes_of_algorithms_are_imported_by_name_only(module: str) -> None:
    assert not zoo_imports(module) & set(ALGORITHMS)


@pytest.mark.parametrize("module", [module for module in FILES if folder(module) in ("actors", "envs", "training")])
def test_the_loop_and_its_sources_know_no_settings(module: str) -> None:
    # An actor in another process is told an algorithm's name, and makes it there.
    assert not zoo_imports(module) & {"zoo.registry", "zoo.settings"}


@pytest.mark.parametrize("module", [module for module in FILES if not within(module, ("zoo.crosscheck",))])
def test_stable_baselines3_stays_in_crosscheck(module: str) -> None:
    assert not [name for name in imported(SOURCES[module]) if within(name, ("stable_baselines3", "sb3_contrib"))]


def test_no_module_needs_itself_to_be_imported() -> None:
    graph = {module: imported(source, lazily=False) & FILES.keys() for module, source in SOURCES.items()}
    list(TopologicalSorter(graph).static_order())


@each_module
def test_no_star_imports(module: str) -> None:
    nodes = ast.walk(ast.parse(SOURCES[module]))
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]


# What nobody may do


@each_module
def test_no_data_can_run_code(module: str) -> None:
    assert not dangers(SOURCES[module])


@pytest.mark.parametrize("module", [module for module in FILES if not within(module, ("zoo.training.kernels",))])
def test_private_names_of_torch_stay_behind_one_door(module: str) -> None:
    assert not private(SOURCES[module])


# How long things may get


@pytest.mark.parametrize("module", ALGORITHMS)
def test_an_algorithm_is_read_in_one_go(module: str) -> None:
    assert len(SOURCES[module].splitlines()) <= 180


@each_module
def test_functions_are_short_and_shallow(module: str) -> None:
    found = functions(SOURCES[module])
    assert not {name: size for name, node in found.items() if (size := node.end_lineno - node.lineno + 1) > 40}
    assert not {name: size for name, node in found.items() if (size := depth(node)) > 3}


# That these checks can fail


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import zoo.runs", "zoo.runs"),
        ("from zoo import registry", "zoo.registry"),
        ("from zoo.algos import ppo", "zoo.algos.ppo"),
        ("from zoo.algos.ppo import PPO", "zoo.algos.ppo"),
        ("def f():\n    from zoo.envs.envs import Envs", "zoo.envs.envs"),
        ("from stable_baselines3.common import utils", "stable_baselines3.common"),
    ],
)
def test_imports_are_seen(source: str, module: str) -> None:
    assert imported(source) == {module}


def test_cycles_are_seen() -> None:
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import dumps",
        "torch.load(file)",
        "from torch import load",
        "from yaml import unsafe_load as safe_load",
        "yaml.load(text, yaml.SafeLoader)",
        "x = [eval(text)]",
        "exec(text)",
        "np.load(file, allow_pickle=True)",
    ],
)
def test_dangers_are_seen(source: str) -> None:
    assert dangers(source)


def test_what_is_safe_is_no_danger() -> None:
    assert not dangers("policy.eval()\nyaml.safe_load(text)\nnp.load(file)\nself.load()")


@pytest.mark.parametrize(
    "source",
    [
        "import torch._dynamo",
        "from torch._inductor.lowering import register_lowering",
        "from torch import _C",
        "torch._foreach_add_(a, b)",
        "with torch._dynamo.config.patch(x=1): pass",
        "from torch import nn\nnn.modules.module._global_forward_hooks",
        "layer._parameters['weight']",
    ],
)
def test_private_names_are_seen(source: str) -> None:
    assert private(source)


def test_names_that_are_public_or_our_own_are_not_private() -> None:
    assert not private("torch.__version__\nself._count()\nfrom zoo.parts.cnn import _small_cnn\n_small_cnn(1)")


@pytest.mark.parametrize(
    ("source", "levels"),
    [
        ("x = 1", 0),
        ("if a:\n  x\nelif b:\n  x\nelif c:\n  x\nelse:\n  x", 1),
        ("for a in b:\n  with c:\n    try:\n      while d:\n        if e:\n          x\n    finally:\n      x", 5),
        ("if a:\n  x\nelse:\n  if b:\n    x\n  y", 2),
        ("if a:\n  x\nelif b:\n  for c in d:\n    x", 2),
    ],
)
def test_depth_counts_blocks(source: str, levels: int) -> None:
    assert depth(ast.parse(source)) == levels


def test_modules_were_found() -> None:
    assert {"zoo", "zoo.cli", "zoo.training.loop", "zoo.protocol", "zoo.algos.ppo"} <= FILES.keys()


# tests/ has the folders of zoo/, and a module's tests stand where its name says. These stand elsewhere:
ELSEWHERE = {
    **dict.fromkeys([module for module in ALGORITHMS if module != "zoo.algos.sac"], "algos/test_oracles.py"),
    "zoo.buffers.priorities": "buffers/test_replay.py",
    "zoo.buffers.rows": "buffers/test_rollout.py",
    **dict.fromkeys(
        [f"zoo.cli.{name}" for name in ("display", "options", "output", "taxonomy", "train")], "cli/test_cli.py"
    ),
    "zoo.cli.sweep": "cli/test_bench.py",
    **dict.fromkeys(
        [f"zoo.crosscheck.{name}" for name in ("check", "data", "oracles", "sb3", "updates")],
        "crosscheck/test_crosscheck.py",
    ),
    **dict.fromkeys(
        [
            f"zoo.envs.dynamics.{name}"
            for name in ("acrobot", "cartpole", "mountain_car", "mountain_car_continuous", "pendulum", "scalars")
        ],
        "envs/test_dynamics.py",
    ),
    "zoo.envs.replay": "runs/test_checkpoint.py",
    "zoo.parts.discrete": "parts/test_policies.py",
    "zoo.parts.rmsprop": "parts/test_optim.py",
    "zoo.protocol": "test_registry.py",
    "zoo.runs.assemble": "runs/test_api.py",
    "zoo.runs.stopping": "test_faults.py",
    "zoo.settings": "test_config.py",
    "zoo.storage.untrusted": "storage/test_load.py",
    "zoo.training.weights": "actors/test_remote.py",
}
# Tests of a whole folder.
OF_FOLDERS = {"algos/test_oracles", "cli/test_cli", "crosscheck/test_crosscheck", "crosscheck/test_sb3_findings"}


def test_tests_stand_where_the_names_of_modules_say() -> None:
    tests = ROOT / "tests"
    modules = {module.removeprefix("zoo.").replace(".", "/") for module in FILES if module not in DOORS}
    found = {str(file.relative_to(tests).with_suffix("")) for file in tests.rglob("test_*.py")}
    named = {name.replace("test_", "") for name in found}
    without = {name for name in modules - named if (ROOT / "zoo" / f"{name}.py").exists()}
    assert {f"zoo.{name.replace('/', '.')}" for name in without} == set(ELSEWHERE)
    assert all((tests / file).exists() for file in ELSEWHERE.values())
    in_folders = {name for name in found if "/" in name and name.replace("test_", "") not in modules}
    assert in_folders == OF_FOLDERS
