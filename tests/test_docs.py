"""The documentation says what is true: generated parts are current, links resolve, commands parse, the example runs."""

import ast
import contextlib
import importlib.util
import inspect
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import torch
from probes import known_settings

import zoo
from zoo import registry, runs
from zoo.cli import cli, main
from zoo.cli.options import AlgorithmGroup, require_env

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Pages whose files, commands and scripts work as they are printed.
EXAMPLES = [DOCS / "adding-an-algorithm.md", DOCS / "environments.md"]
NOTEBOOK = DOCS / "python.md"
FILES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
ALGORITHMS = sorted(registry.load().algorithms)
SAFE = {"list", "lookup", "show"}  # commands that are run as they stand

each_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def fenced(text: str) -> Iterator[tuple[str, str]]:
    """Language and body of each fenced code block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each `zoo` command in console blocks."""
    for language, body in fenced(text):
        if language in ("console", "sh", "bash", "shell"):
            for line in body.replace("\\\n", " ").splitlines():
                yield from _commands_of_line(line.removeprefix("$ "))


def _commands_of_line(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for is_operator, words in groupby(lexer, key=lambda word: set(word) <= set("&|;")):
        arguments = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        if not is_operator and arguments[:1] == ["zoo"]:
            yield arguments[1:]


COMMANDS = [(file, command) for file in FILES for command in commands(read(file))]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_REGISTRY", raising=False)


def printed(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write the files of a page into `folder`, where Python and the registry find them; returns its other scripts."""
    scripts = []
    for language, body in fenced(read(page)):
        name = re.match(r"# (\w+\.(?:py|yaml))\n", body)
        if name is not None:
            (folder / name[1]).write_text(body, encoding="utf-8")
            monkeypatch.delitem(sys.modules, Path(name[1]).stem, raising=False)
        elif language == "python":
            scripts.append(body)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    if (folder / "mine.yaml").exists():
        monkeypatch.setenv("ZOO_REGISTRY", str(folder / "mine.yaml"))
    return scripts


def call(arguments: list[str]) -> tuple[Any, str]:
    """Exit code and output of `zoo ARGUMENTS`, in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code, out.getvalue()


# Generated parts


@pytest.fixture
def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/generate.py at work on a copy of the documentation."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DOCS", tmp_path / "docs")
    shutil.copytree(DOCS, tmp_path / "docs")
    return module


def generate(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    return stopped.value.code


def test_generated_parts_are_current(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (generate(generator, monkeypatch, "--check"), capsys.readouterr().out) == (0, "")


@pytest.mark.parametrize("page", ["taxonomy.md", "algorithms/ppo.md"])
def test_stale_parts_are_named_left_alone_by_a_check_and_mended(
    page: str, generator: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = generator.DOCS / page
    current = read(file)
    stale = current.replace("CartPole-v1", "CartPole-v0", 1)
    file.write_text(stale, encoding="utf-8")
    assert (generate(generator, monkeypatch, "--check"), capsys.readouterr().out) == (1, f"docs/{page}\n")
    assert read(file) == stale
    assert (generate(generator, monkeypatch), read(file)) == (0, current)


def test_page_without_markers_is_refused(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    file = generator.DOCS / "algorithms" / "ppo.md"
    file.write_text(read(file).replace(generator.END, ""), encoding="utf-8")
    assert str(file) in generate(generator, monkeypatch)


# Pages


@each_algorithm
def test_every_algorithm_has_a_page_that_names_its_cell(name: str) -> None:
    entry, text = registry.get(name), read(DOCS / "algorithms" / f"{name}.md")
    assert f"`{registry.load().cell_of(name)}`" in text
    assert f"](../../{entry.source})" in text
    assert f"](algorithms/{name}.md)" in read(DOCS / "index.md")
    assert all(f"| {env} |" in text.partition("## Score")[2] for env in entry.envs)


def test_no_page_is_left_over() -> None:
    assert sorted(file.stem for file in (DOCS / "algorithms").iterdir()) == ALGORITHMS


@each_algorithm
def test_every_metric_is_explained(name: str, tmp_path: Path) -> None:
    env = registry.load_class(name).spaces[-1].__name__
    small = known_settings(name, num_steps=8, batch_size=8, learning_starts=8, train_every=8, eval_episodes=0)
    small |= known_settings(name, total_steps=32, eval_every=16, validation_episodes=1, seed=0)
    zoo.train(name, "Pendulum-v1" if env == "Box" else "CartPole-v1", out=tmp_path / "run", num_envs=1, **small)
    logged = {key for line in read(tmp_path / "run" / "metrics.jsonl").splitlines() for key in json.loads(line)}
    explained = set(re.findall(r"`(\w+)`", read(DOCS / "algorithms" / f"{name}.md") + read(DOCS / "index.md")))
    assert {"grad_norm", "eval_return"} <= logged
    assert not logged - explained


# Links


def anchors(text: str) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, folder: Path) -> list[str]:
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, fragment = link.partition("#")
        if ":" in path:
            continue
        file = folder / path
        if (path and not file.exists()) or (fragment and fragment not in anchors(read(file) if path else text)):
            found.append(link)
    return found


@each_file
def test_relative_links_resolve(file: Path) -> None:
    assert not broken_links(read(file), file.parent)


@pytest.mark.parametrize("link", ["nowhere.md", "index.md#no-such-heading", "#no-such-heading"])
def test_broken_links_are_noticed(link: str) -> None:
    assert broken_links(f"[a](https://example.org) [b](index.md#concepts) [c]({link})", DOCS) == [link]


# Commands


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """`zoo` reads its arguments and resolves settings, but trains, evaluates and shows nothing."""

    def resolve_only(algorithm: str, overrides: dict[str, Any], env: str | None = None, **others: Any) -> None:
        runs.prepare(algorithm, require_env(algorithm, env), overrides, source="command line")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    groups = [cli, *(command for command in cli.commands.values() if isinstance(command, click.Group))]
    for name, command in (pair for group in groups for pair in group.commands.items()):
        if isinstance(command, AlgorithmGroup) and name not in SAFE:
            monkeypatch.setattr(command, "action", resolve_only)
            monkeypatch.setattr(command, "callback", lambda **values: None)
        elif not isinstance(command, click.Group) and name not in SAFE:
            monkeypatch.setattr(command, "callback", lambda **values: None)


@pytest.mark.parametrize(("file", "command"), COMMANDS, ids=[f"{file.stem}-{' '.join(c)}" for file, c in COMMANDS])
def test_commands_parse(
    file: Path, command: list[str], parser: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if file in EXAMPLES:
        printed(file, tmp_path, monkeypatch)
    code, output = call(command)
    assert code == 0, output


@pytest.mark.parametrize(
    "command",
    [
        "run pppo --env Pendulum",
        "run ppo --env Pendulom",
        "run ppo --env Pendulum --gama 0.9",
        "run ppo --env Pendulum --gamma 2",
        "evaluate runs/first",
        "eval runs/first --episode 10",
        "lookup policy/on/w",
    ],
)
def test_wrong_commands_are_noticed(command: str, parser: None) -> None:
    assert call(command.split())[0] == 2


def test_commands_are_found() -> None:
    text = "```console\n$ A=b zoo list && zoo run ppo \\\n  --env X  # why\nls | zoo\n```\n```python\nzoo list\n```\n"
    assert list(commands(text)) == [["list"], ["run", "ppo", "--env", "X"], []]
    assert {file.stem for file, _ in COMMANDS} >= {*ALGORITHMS, "README", EXAMPLES[0].stem}


OWN = inspect.signature(zoo.train).parameters.keys()  # what are no settings


@each_file
def test_python_calls_of_train_have_known_settings(file: Path) -> None:
    trees = [ast.parse(body) for language, body in fenced(read(file)) if language == "python"]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "zoo.train" and file not in EXAMPLES:
            name, env = map(ast.literal_eval, node.args)
            words = [word for word in node.keywords if word.arg not in (None, *OWN)]
            given = {word.arg: ast.literal_eval(word.value) for word in words}
            runs.prepare(name, env, given, source="argument")


# The examples


def test_the_notebook_works_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for language, body in fenced(read(NOTEBOOK)):
        if language == "python":
            exec(compile(body, str(NOTEBOOK), "exec"), names)
    assert names["curve"][-1][0] == 8000
    ends = [json.loads(read(Path(f"runs/{name}/config.json"))) for name in ("second", "third")]
    assert [end["stopped"]["by"] for end in ends] == ["on_row", "stop_at"]
    assert ends[0]["stopped"]["step"] == ends[1]["stopped"]["step"] < 8000


def run_example(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a page says: its commands, then its scripts."""
    scripts = printed(page, folder, monkeypatch)
    for command in commands(read(page)):
        code, output = call(command)
        assert code == 0, output
    for script in scripts:
        exec(compile(script, str(page), "exec"), {})


def test_the_example_of_an_algorithm_works_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(EXAMPLES[0], tmp_path, monkeypatch)
    rows = [json.loads(line) for line in read(Path("runs/first/metrics.jsonl")).splitlines()]
    assert rows[-1]["step"] >= 2000
    assert {"policy_loss", "value_loss"} <= rows[-1].keys()
    assert "onestep" in capsys.readouterr().out


def test_so_does_that_of_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(EXAMPLES[1], tmp_path, monkeypatch)
    assert float(capsys.readouterr().out.split()[-1]) == 5.0  # ten rounds, half a point each
