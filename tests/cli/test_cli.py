"""The command line: what it prints, what it leaves behind, and how it refuses."""

import contextlib
import inspect
import io
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import imageio.v3 as imageio
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from probes import known_settings

import zoo
from zoo import cli, registry, runs
from zoo.algos.ppo import PPO
from zoo.cli import main
from zoo.cli.display import stages
from zoo.config import field_info
from zoo.runs.display import display
from zoo.settings import Run
from zoo.taxonomy import AXES, CELLS

ALGORITHMS = sorted(registry.load().algorithms)
SCRIPT = Path(sys.executable).with_name("zoo")
SMALL_PPO = ["--num-envs", "2", "--num-steps", "16", "--batch-size", "16", "--num-epochs", "1"]
BRIEF = ["--total-steps", "64", "--eval-episodes", "3", "--validation-episodes", "1", "--seed", "1"]

each_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that whatever a command leaves behind is seen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_REGISTRY", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    return tmp_path


def call(*arguments: object) -> CompletedProcess[str]:
    """What `zoo ARGUMENTS` would do, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert isinstance(stopped.value.code, int)
    return CompletedProcess(arguments, stopped.value.code, out.getvalue(), err.getvalue())


def output(*arguments: object) -> str:
    """The output of a command that must work."""
    done = call(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def run_ppo(env: str, folder: Path) -> CompletedProcess[str]:
    return call("run", "ppo", "--env", env, "--out", folder, *SMALL_PPO, *BRIEF)


@pytest.fixture(scope="module", params=["CartPole", "Pendulum"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CompletedProcess[str]:
    """A run with discrete and one with continuous actions; `args` is its folder."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    done = run_ppo(request.param, folder)
    done.args = folder
    return done


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cartpole"
    run_ppo("CartPole", folder)
    return folder


def saved(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def squeezed(text: str) -> str:
    return "".join(text.split())


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of a printed table, the lines of a wrapped cell joined."""
    for is_row, lines in itertools.groupby(text.splitlines(), key=lambda line: line.startswith("│")):
        if is_row:
            columns = zip(*(line.split("│")[1:-1] for line in lines), strict=True)
            yield [squeezed(" ".join(column)) for column in columns]


# list, lookup, show


def test_list_shows_all_eight_cells() -> None:
    shown = list(table_rows(output("list")))
    entries = [registry.load().cells[str(cell)] for cell in CELLS]
    texts = [", ".join(entry.algorithms) + (" with a model" if entry.model else "") for entry in entries]
    assert [text for row in shown for text in row[2:]] == list(map(squeezed, texts))
    assert [row[:2] for row in shown] == [
        [strategy, f"{data}-policy"] for strategy in ("value", "policy") for data in ("off", "on")
    ]


def test_list_json_has_eight_cells_all_filled() -> None:
    cells = json.loads(output("list", "--json"))
    assert len({cell["cell"] for cell in cells}) == len(cells) == 8
    assert all(cell["algorithms"] for cell in cells)
    assert {cell["cell"] for cell in cells if cell["model"]} == {"value/off/v", "value/on/v"}
    assert {name for cell in cells for name in cell["algorithms"]} == set(ALGORITHMS)


@pytest.mark.parametrize("cell", [str(cell) for cell in CELLS])
def test_lookup_cell_names_its_algorithms_and_why_they_need_a_model(cell: str) -> None:
    entry = registry.load().cells[cell]
    text = output("lookup", cell)
    assert text.startswith(f"{cell}\n")
    for name in entry.algorithms:
        algorithm = registry.get(name)
        assert f"{name}: {algorithm.title} ({algorithm.paper})" in text
        assert algorithm.equation in text
    assert ("no model-free entry" in text) == (entry.model is not None)
    assert (entry.model or "") in text
    assert [each["cell"] for each in json.loads(output("lookup", cell, "--json"))] == [cell]


CHOICES = list(itertools.product(("value", "policy", None), ("off", "on", None), ("q", "v", None)))


@pytest.mark.parametrize("axes", CHOICES[:-1], ids=lambda axes: "/".join(axis or "*" for axis in axes))
def test_lookup_by_any_subset_of_axes(axes: tuple[str | None, ...]) -> None:
    given = {f"--{name}": axis for name, axis in zip(AXES, axes, strict=True) if axis}
    cells = json.loads(output("lookup", *itertools.chain.from_iterable(given.items()), "--json"))
    product = ("/".join(path) for path in itertools.product(("value", "policy"), ("off", "on"), ("q", "v")))
    assert [each["cell"] for each in cells] == [path for path in product if set(path.split("/")) >= {*axes} - {None}]


@each_algorithm
def test_lookup_algorithm_tells_its_facts(name: str) -> None:
    entry = registry.get(name)
    text, facts = output("lookup", name), json.loads(output("lookup", name, "--json"))
    assert all(fact in text for fact in (entry.title, entry.equation, entry.paper, entry.source, *entry.envs))
    assert name in registry.lookup(facts["cell"])
    assert facts["actions"] == [space.__name__ for space in registry.load_class(name).spaces]
    assert f"zoo run {name} --env" in text
    measured = registry.scores(name)
    assert (facts["settings"], facts["tuned"]) == ([*entry.envs], [env for env in entry.envs if env in measured])
    assert re.findall(r"(\S+) \(not measured\)", text) == [env for env in entry.envs if env not in measured]


def test_show_says_where_each_value_came_from() -> None:
    command = "show", "ppo", "--env", "Pendulum", "--gamma", "0.5"
    shown = json.loads(output(*command, "--json"))
    tuned = registry.get("ppo").envs["Pendulum-v1"]
    values = shown["run"] | shown["config"]
    assert shown["env"] == "Pendulum-v1"
    assert {name: values[name] for name in tuned} == tuned | {"gamma": 0.5}
    expected = {**dict.fromkeys(values, "default"), **dict.fromkeys(tuned, "registry"), "gamma": "command line"}
    assert shown["sources"] == expected

    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output(*command).splitlines() if "│" in line]
    assert {line[0]: line[2] for line in lines if line[0]} == expected
    assert ["gamma", "0.5", "command line", field_info(PPO.Config)["gamma"].description] in lines


@each_algorithm
def test_show_without_environment_is_the_defaults(name: str) -> None:
    shown = json.loads(output("show", name, "--json"))
    assert set(shown["sources"].values()) == {"default"}
    for part, cls in (("run", Run), ("config", registry.load_class(name).Config)):
        assert shown[part] == registry.to_json(cls())


def test_settings_never_have_the_name_of_an_option() -> None:
    options = {str(param.name) for command in (cli.run, cli.show) for param in [*command.extra, *command.params]}
    arguments = inspect.signature(zoo.train).parameters.keys() - {"settings"}
    assert (options | arguments | {"help"}) - field_info(Run).keys() == registry.RESERVED


@each_algorithm
def test_help_explains_every_setting(name: str) -> None:
    text = squeezed(output("run", name, "--help"))
    for cls in (Run, registry.load_class(name).Config):
        for setting, field in field_info(cls).items():
            assert field.description, setting
            # Between the two stands no more than the kind of value.
            pattern = rf"--{setting.replace('_', '-')}.{{1,60}}?{re.escape(squeezed(field.description))}"
            assert re.search(pattern, text), setting


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["list", "--help"], ["run", "--help"]])
def test_help_and_version_are_no_mistakes(arguments: list[str]) -> None:
    assert output(*arguments)


@pytest.mark.parametrize("arguments", [[], ["run"]])
def test_a_command_left_out_shows_the_help(arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert "Usage: zoo" in done.stdout


# run


def test_run_says_what_came_of_it_in_plain_text(finished: CompletedProcess[str]) -> None:
    folder, lines = finished.args, finished.stdout.splitlines()
    assert (finished.returncode, finished.stderr) == (0, "")
    assert all(character.isprintable() for line in finished.stdout.split("\n") for character in line)
    assert lines[0].startswith(f"ppo on {folder.name}-v1, seed 1, 64 steps")
    evaluation, where, following = lines[-3:]
    assert f"{saved(folder / 'evaluation.json')['mean']:.1f}" in evaluation
    assert where.split()[-1] == str(folder)
    assert f"zoo watch {folder}" in following
    assert f"zoo eval {folder}" in following


def test_run_fills_its_folder(finished: CompletedProcess[str]) -> None:
    folder = finished.args
    assert {"config.json", "metrics.jsonl", "evaluation.json"} <= {each.name for each in folder.iterdir()}
    agents = [folder / which / file for which in ("final", "best") for file in ("agent.safetensors", "agent.json")]
    assert all(file.is_file() for file in agents)
    assert list((folder / "tensorboard").glob("events.*"))

    config = saved(folder / "config.json")
    assert (config["algorithm"], config["run"]["seed"], config["run"]["total_steps"]) == ("ppo", 1, 64)
    assert config["sources"]["batch_size"] == "command line"
    assert config["versions"]["torch"] == torch.__version__

    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 64
    evaluation = saved(folder / "evaluation.json")
    assert len(evaluation["returns"]) == len(evaluation["lengths"]) == 3
    assert evaluation["mean"] == pytest.approx(sum(evaluation["returns"]) / 3)


@each_algorithm
def test_run_every_algorithm(name: str, workplace: Path) -> None:
    env = "CartPole" if Discrete in registry.load_class(name).spaces else "Pendulum"
    early = known_settings(name, learning_starts=8, train_every=8)
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in early.items()]
    folder = output("run", name, "--env", env, *BRIEF, *flags, "--quiet").strip()
    assert Path(folder).parent == Path("runs")
    agent = zoo.load(folder)
    assert agent.name == name
    assert zoo.evaluate(agent, f"{env}-v1", episodes=3).mean == saved(workplace / folder / "evaluation.json")["mean"]


def test_quiet_prints_the_folder_and_nothing_else() -> None:
    assert output("run", "ppo", "--env", "CartPole", "--out", "here", "--quiet", *SMALL_PPO, *BRIEF) == "here\n"


class Terminal(io.StringIO):
    """What a terminal is sent."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "expected"),
    [
        (io.StringIO, False, ["ppo on CartPole-v1, seed 1, 64 steps -> here", "compiling", "64/64 (100%)"]),
        (Terminal, False, ["compiling", "ppo on CartPole-v1, seed 1, 64 steps -> here", "64 steps"]),
        (io.StringIO, True, []),
        (Terminal, True, []),
    ],
)
def test_what_the_log_says_is_shown_before_the_first_row(
    stream: type[io.StringIO], quiet: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    settings = runs.prepare("ppo", "CartPole", {"seed": 1, "total_steps": 64}, source="test")
    with contextlib.redirect_stdout(stream()) as out, display(settings, Path("here"), quiet=quiet) as update:
        logging.getLogger("zoo.training.compile").info("compiling the update")
        time.sleep(0.5)  # until the panel is drawn again
        update({"step": 64, "seconds": 1.0, "eval_return": 20.0})
    places = [out.getvalue().find(text) for text in expected]
    assert -1 not in places
    assert places == sorted(places)
    assert ("eval_return" in out.getvalue()) is not quiet
    logging.getLogger("zoo.training.compile").info("later")
    assert "later" not in out.getvalue()
    assert bool(out.getvalue()) is not quiet


def test_an_early_end_is_said_with_the_check_that_decided(workplace: Path) -> None:
    more = ["--stop-at", "1", "--eval-every", "32", "--out", "here"]
    shown = output("run", "ppo", "--env", "CartPole", *SMALL_PPO, *BRIEF, *more)
    check = json.loads((workplace / "here" / "metrics.jsonl").read_text().splitlines()[-1])["eval_return"]
    assert f"stopped at   step 32, early: the check there has a return of {check:.1f}, and stop_at is 1\n" in shown
    assert saved(workplace / "here" / "config.json")["run"]["stop_at"] == 1


def test_run_starts_from_saved_weights(cartpole: Path, workplace: Path) -> None:
    command = ["run", "ppo", "--env", "CartPole", "--quiet", *SMALL_PPO, *BRIEF, "--learning-rate", "1e-30"]
    output(*command, "--out", "on", "--from", cartpole, "--seed", "2")
    output(*command, "--out", "anew", "--seed", "2")
    first, on, anew = (saved(at / "evaluation.json")["returns"] for at in (cartpole, Path("on"), Path("anew")))
    assert first == on != anew
    assert saved(workplace / "on" / "config.json")["init"] == str(cartpole)
    refused(
        "settings that differ: learning_rate, hidden", *command, "--from", cartpole, "--hidden", "9", "--out", "other"
    )
    refused("has algorithm = ppo, this run a2c", "run", "a2c", "--env", "CartPole", "--from", cartpole)
    refused("observation_space", "run", "ppo", "--env", "Pendulum", "--from", cartpole)
    refused("nowhere", *command, "--from", "nowhere")


def test_console_script_in_a_process_of_its_own(workplace: Path) -> None:
    command = [SCRIPT, "run", "ppo", "--env", "CartPole", "--out", "here", *SMALL_PPO, *BRIEF]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert done.stderr == b""
    assert not {b"\x1b", b"\r"} & {bytes([byte]) for byte in done.stdout}
    assert (workplace / "here" / "final").is_dir()


def test_interrupted_run_keeps_its_agent(workplace: Path) -> None:
    command = [SCRIPT, "run", "ppo", "--env", "CartPole", "--out", "here", *SMALL_PPO]
    process = subprocess.Popen(
        [*command, "--total-steps", "1e7", "--log-every", "100", "--eval-every", "0", "--compile", "off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores the signal, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ppo on CartPole-v1")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"\s*zoo: SIGINT at step [\d,]+; go on with: zoo run --resume here\s*", err)
    assert (workplace / "here" / "last" / "agent.safetensors").is_file()
    assert zoo.evaluate(zoo.load("here", "last"), "CartPole-v1", episodes=1).mean > 0


# eval, watch


def test_eval_repeats_the_figure_of_the_run(finished: CompletedProcess[str]) -> None:
    command = "eval", finished.args, "--episodes", "3"
    recorded = saved(finished.args / "evaluation.json")
    first = output(*command)
    assert output(*command) == first
    assert f"return {recorded['mean']:.1f} ±" in first
    assert json.loads(output(*command, "--json"))["returns"] == recorded["returns"]
    assert json.loads(output(*command, "--json", "--seed", "1"))["returns"] != recorded["returns"]


def test_eval_of_the_best_agent_is_that_agent(cartpole: Path) -> None:
    shown = json.loads(output("eval", cartpole, "--which", "best", "--episodes", "3", "--json"))
    assert shown["returns"] == zoo.evaluate(zoo.load(cartpole, "best"), "CartPole-v1", episodes=3).returns.tolist()


def test_eval_and_watch_take_the_path_of_an_agent(
    cartpole: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for which in ("final", "best"):
        arguments = "--episodes", "3", "--json"
        assert output("eval", cartpole / which, *arguments) == output("eval", cartpole, "--which", which, *arguments)
    assert "->" in output("watch", cartpole / "best", "--video", "x.gif")
    monkeypatch.chdir(cartpole / "best")
    assert output("eval", ".", "--episodes", "3") == output("eval", cartpole, "--which", "best", "--episodes", "3")
    monkeypatch.chdir(workplace)
    zoo.load(cartpole).save("alone")
    refused("alone is not a run's folder", "eval", "alone")
    refused("is not a run's folder", "run", "--resume", cartpole / "best")


def test_watch_writes_a_gif_of_the_first_evaluation_episode(cartpole: Path, workplace: Path) -> None:
    text = output("watch", cartpole, "--video", "x.gif")
    assert (workplace / "x.gif").read_bytes().startswith(b"GIF8")
    frames = imageio.imread("x.gif")
    first = saved(cartpole / "evaluation.json")["returns"][0]
    begun = ["playing 1 episode", f"writing {len(frames)} pictures to x.gif"]
    assert text.splitlines() == [*begun, f"return {first:.1f} -> x.gif"]
    assert frames.shape[1:] == (400, 600, 3)
    assert (frames[0] != frames[-1]).any()


def test_watch_shows_a_terminal_what_it_is_at(cartpole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stdout(Terminal()) as out, stages() as say:
        say("writing 3 pictures to [bold]x.gif")
        time.sleep(0.3)
    assert "writing 3 pictures to [bold]x.gif" in out.getvalue()


def test_watch_prints_nothing_of_pygame_and_sdl(cartpole: Path) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER", "SDL_AUDIODRIVER")
    env = {name: value for name, value in os.environ.items() if name not in (*hidden, "PYGAME_HIDE_SUPPORT_PROMPT")}
    command = [SCRIPT, "watch", cartpole, "--video", "x.gif"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["playing", "writing", "return"]


def test_watch_shows_a_window_where_there_is_a_screen(cartpole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert output("watch", cartpole) == f"return {saved(cartpole / 'evaluation.json')['returns'][0]:.1f}\n"


@pytest.mark.skipif(sys.platform == "darwin", reason="a screen is taken for granted there")
def test_watch_without_a_screen_asks_for_a_video(cartpole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    refused("--video", "watch", cartpole)
    refused("nowhere is not a run's folder", "watch", "nowhere")


# Mistakes


def refused(fix: str, *arguments: object) -> None:
    """The command is refused in one line that holds `fix`; it prints and leaves nothing else."""
    before = sorted(Path().rglob("*"))
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"zoo: [^\n]+\n", done.stderr), done.stderr
    assert fix in done.stderr
    assert sorted(Path().rglob("*")) == before


MISTAKES = {
    "run ppo --env CartPol": "did you mean 'CartPole'?",
    "run ppo --env cartpole-v1": "did you mean 'CartPole'?",
    "run ppo --env Pendulum-v9": "Pendulum-v1",
    "run ppo --env Xqzw": "pprint_registry",
    "run ppo": "--env ENV",
    "run poo --env CartPole": "did you mean 'ppo'?",
    "run ppo CartPole": "an environment is named by --env: zoo run ppo --env CartPole",
    "run ppo CartPole --seed 1": "zoo run ppo --env CartPole",
    "show ppo CartPole": "zoo show ppo --env CartPole",
    "run ppo --env CartPole fast": "unexpected argument 'fast'; settings are flags: zoo run ppo --help",
    "run --env CartPole": "which algorithm? Put it first: zoo run ALGORITHM --env CartPole",
    "run --env CartPole ppo": "which algorithm? Put it first: zoo run ppo --env CartPole",
    "run --gamma 0.9 --env CartPole": "zoo run ALGORITHM --gamma 0.9 --env CartPole",
    "run --resum runs/x": "--resume",
    "show --env CartPole": "which algorithm? Put it first: zoo show ALGORITHM --env CartPole",
    "run ppo --env CartPole --lr 0.1": "no such option --lr; did you mean --learning-rate?",
    "run ppo --env CartPole --no-normalise-obs": "did you mean --no-normalize-obs?",
    "run ppo --env CartPole --xqzw 1": "zoo run ppo --help lists them",
    "run ppo --env CartPole --gama 0.9": "--gamma",
    "run ppo --env CartPole --gamma 1.5": "gamma = '1.5': input should be less than or equal to 1",
    "run ppo --env CartPole --gamma nan": "finite",
    "run ppo --env CartPole --gamma high": "valid number",
    "run ppo --env CartPole --total-steps 1.5": "valid integer",
    "run dqn --env CartPole --total-steps 1000 --out here": "its first update comes at step 1,024",
    "run ppo --env CartPole --num-envs 0": "input should be greater than or equal to 1",
    "run ppo --env CartPole --seed -1": "greater than or equal to 0",
    "run ppo --env CartPole --hidden 64,x": "write it as 64,64",
    "run ppo --env CartPole --num-envs many": "write it as 100000, 100k or 1e5",
    "run ppo --env CartPole --seed 1k5": "write it as 100000, 100k or 1e5",
    "run ppo --env CartPole --hidden 64,0": "hidden",
    "run ppo --env CartPole --vec asinc": "'async'",
    "run ppo --env CartPole --device gpu": "device = 'gpu': expected cpu, cuda or cuda:N",
    "run ppo --env CartPole --device cuda": "--device cpu",
    "run ppo --env CartPole --num-envs 1 --num-steps 16 --batch-size 64": "set batch_size to 16 or less",
    "run ppo --env CartPole --out /dev/null/here": "choose another --out",
    "run ppo --env CartPole --checkpoint-every=": "as 5min",
    "run ppo --env FrozenLake --vec native": "--vec sync",
    "show poo": "did you mean 'ppo'?",
    "show ppo --env CartPol": "did you mean 'CartPole'?",
    "show ppo --gamma 2": "ppo: gamma = '2': input should be less than or equal to 1",
    "lookup poo": "did you mean 'ppo'?",
    "lookup policy/on": "'policy/on/v'",
    "lookup policy/onn/v": "off, on",
    "lookup --data onn": "off, on",
    "lookup --strategy greedy": "value, policy",
    "lookup --target g": "q, v",
    "lookup --dat on": "--data",
    "lookup ppo --data on": "not both",
    "lookup": "--data on --target q",
    "lookup value": "zoo lookup --strategy value",
    "lookup ON": "zoo lookup --data on",
    "lookup q": "zoo lookup --target q",
    "lst": "list",
    "traim": "no such command 'traim'; did you mean 'run'?",
    "evl runs/x": "did you mean 'eval'?",
    "xqzw": "known: bench, crosscheck, diff, eval, list, lookup, run, show, watch",
    "bench --seeds 100000000 --dry-run": "--seeds",
    "bench --ray-address here --dry-run": "--engine ray",
    "bench --algos , --dry-run": "--algos ',' names nothing",
    "bench --envs= --dry-run": "--envs '' names nothing",
    "bench speed --against ,": "--against ',' names nothing",
    "bench --envs CartPol --dry-run": "did you mean 'CartPole'?",
    "bench --seeds many --dry-run": "--seeds",
    "list extra": "extra",
    "eval nowhere": "config.json",
    "eval": "RUN",
    "watch nowhere --video x.gif": "config.json",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_are_refused_in_one_line_with_the_fix(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(MISTAKES[command], *command.split())


def test_mistake_wrong_action_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PPO, "spaces", (Discrete,))
    refused("ppo needs actions of type Discrete", "run", "ppo", "--env", "Pendulum")
    monkeypatch.setattr(PPO, "spaces", (Box,))
    refused("ppo needs actions of type Box", "run", "ppo", "--env", "CartPole")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_mistake_folder_exists(kind: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "taken").mkdir() if kind == "folder" else (workplace / "taken").touch()
    command = "run", "ppo", "--env", "CartPole", "--out", "taken"
    monkeypatch.setattr(runs, "run", lambda *_, **__: pytest.fail("it compiles"))
    refused("choose another --out", *command)


def test_mistake_unwritable_folder(workplace: Path) -> None:
    workplace.chmod(0o500)
    folder = "here" if os.geteuid() else "/proc/here"  # few places are unwritable for root
    refused("choose another --out", "run", "ppo", "--env", "CartPole", "--out", folder, "--compile", "off")


def test_mistake_registry_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_REGISTRY", "nowhere.yaml")
    refused("nowhere.yaml", "list")


@pytest.mark.parametrize("suffix", [".avi", ""])
def test_mistake_unknown_kind_of_video(suffix: str, cartpole: Path) -> None:
    refused(".gif", "watch", cartpole, "--video", f"x{suffix}")


def test_mistake_video_into_a_folder_that_is_not_there(cartpole: Path) -> None:
    refused("nowhere/x.gif", "watch", cartpole, "--video", "nowhere/x.gif")


BROKEN = {
    "final/agent.safetensors": b"",
    "final/agent.json": b"{",
    "config.json": b"{}",
}


@pytest.mark.parametrize("file", BROKEN)
def test_mistake_broken_run(file: str, workplace: Path) -> None:
    run_ppo("CartPole", workplace / "here")
    (workplace / "here" / file).write_bytes(BROKEN[file])
    refused(Path(file).name if file == "config.json" else "here/final", "eval", "here")
    (workplace / "here" / file).unlink()
    refused(Path(file).name, "eval", "here")


# Speed


@pytest.mark.parametrize("command", [None, ["list"], ["list", "--json"], ["lookup", "policy/on/v"], ["--help"]])
def test_what_needs_no_torch_imports_none(command: list[str] | None) -> None:
    imported = modules_after("import zoo" if command is None else f"zoo.cli.main({command})")
    assert {"torch", "numpy"}.isdisjoint(imported)


def test_imports_of_torch_are_seen() -> None:
    assert "torch" in modules_after("zoo.train")


@pytest.mark.parametrize("mode", ["off", "on"])
def test_only_a_compiled_run_imports_the_compiler(mode: str) -> None:
    run = f"zoo.train('a2c', 'CartPole-v1', total_steps=40, eval_every=0, eval_episodes=0, compile='{mode}')"
    assert ("torch._inductor" in modules_after(run)) is (mode == "on")


def modules_after(statement: str) -> list[str]:
    """The modules that a new interpreter has imported after a statement."""
    lines = ["import contextlib, sys, zoo, zoo.cli", "with contextlib.suppress(SystemExit):", f"    {statement}"]
    if statement == "import zoo":
        lines = [statement, "import sys"]
    program = "\n".join([*lines, "print('\\n', *sys.modules)"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return str(done.stdout).splitlines()[-1].split()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "a2c", "--env", "Cart\udcffPole"],
        ["run", "a2c", "--env", "CartPole", "--out", "\udcff"],
        ["run", "--resume", "\udcff"],
        ["eval", "\udcff"],
    ],
)
def test_a_name_that_is_not_utf8_costs_one_line(arguments: list[str], workplace: Path) -> None:
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"zoo: the argument '.*\\udcff.*' is not UTF-8; choose another name\n", done.stderr)
    assert not list(workplace.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "a2c", "--env", "CartPole", "--out", "a\0b"],
        ["run", "a2c", "--env", "Cart\0Pole"],
        ["run", "--resume", "a\0b"],
        ["eval", "a\0b"],
        ["watch", "a\0b", "--video", "x.gif"],
        ["bench", "--dry-run", "--out", "a\0b"],
        ["crosscheck", "--rung", "3", "--out", "a\0b"],
        ["lookup", "p\0po"],
    ],
)
def test_a_name_with_a_nul_byte_costs_one_line(arguments: list[str]) -> None:
    refused("has a NUL byte; choose another name", *arguments)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: zoo.load(path),
        lambda path: zoo.resume(path),
        lambda path: zoo.train("a2c", "CartPole-v1", total_steps=10, out=path),
        lambda path: zoo.train("a2c", path, total_steps=10),
    ],
)
def test_so_it_does_in_python(use: Callable[[str], object]) -> None:
    with pytest.raises(zoo.UserError, match=r"a.*b"):
        use("a\0b")


def test_a_file_of_checks_in_a_folder_that_is_not_there_costs_one_line() -> None:
    refused("there is no folder nowhere", "crosscheck", "qac", "--rung", "2", "--json", "nowhere/x.json")


@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_a_file_of_checks_replaces_nothing_but_files(kind: str, workplace: Path) -> None:
    file = workplace / "x.json"
    if kind == "pipe":
        os.mkfifo(file)
    if kind == "link":
        file.symlink_to("elsewhere.json")
    target = os.devnull if kind == "device" else file
    refused("is no plain file", "crosscheck", "qac", "--rung", "2", "--json", target)


def test_standard_output_takes_any_text(workplace: Path) -> None:
    """As an environment of a stranger's run may be called."""
    program = "import sys; from zoo.cli.output import standard_streams\nwith standard_streams(): print('\\ud800')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("\\ud800\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "ppo", "--env", "bandit"], "the file bandit.py is there, and --env bandit.py:make_env names what it"),
        (["run", "ppo", "--env", "bandit:Bandit"], "--env bandit.py:Bandit names what it has"),
        (["run", "ppo", "--env", ":make_env"], "a package or a file stands before the colon"),
        (["run", "ppo", "--resume", "x"], "the folder of a run names its algorithm: zoo run --resume RUN"),
        (["run", "--resume", "x", "--stop-at", "5"], "takes everything from the run's folder: leave out --stop-at"),
        (["eval", "{run}", "bandit.py:f"], "an environment is named by --env: zoo eval {run} --env bandit.py:f"),
        (["watch", "{run}", "bandit.py:f"], "an environment is named by --env: zoo watch {run} --env bandit.py:f"),
        (["run", "ppo", "--env", "CartPole", "--from", ""], "'--from': '' names no folder"),
        (["show", "ppo", "--env", "CartPole", "--wrap", "nosuch:W"], "no module 'nosuch' is installed"),
        (
            ["eval", "{run}/final", "--which", "best"],
            "of which 'best' does not choose; name its run: {run}",
        ),
        (
            ["run", "ppo", "--env", "CartPole", "--stop-at", "9", "--total-steps", "64", "--eval-every", "65"],
            "needs checks on the way, but eval_every = 65 makes none in 64 steps",
        ),
        (
            ["bench", "--envs", "CartPole", "--action-masks", "--against", "sb3", "--dry-run"],
            "--action-masks: the entries of --against sb3 know no masks",
        ),
    ],
)
def test_what_is_named_in_the_wrong_place_is_told_the_right_one(
    arguments: list[str], message: str, cartpole: Path, workplace: Path
) -> None:
    (workplace / "bandit.py").touch()
    refused(message.replace("{run}", str(cartpole)), *(each.replace("{run}", str(cartpole)) for each in arguments))
