"""What a run's folder, which may be a stranger's, may ask for, and what is said of a run that goes on changed."""

import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from runs.test_checkpoint import rewritten, rows_of, train
from zoo import runs
from zoo.cli import main
from zoo.errors import UserError
from zoo.runs import api
from zoo.runs.resumed import command, resumed_settings


def test_a_longer_budget_is_announced(tmp_path: Path) -> None:
    train(tmp_path / "run", "a2c")
    with pytest.warns(UserWarning, match="the budget changes from 480 to 600 steps"):
        result = zoo.resume(tmp_path / "run", total_steps=600)
    assert result.settings.run.total_steps == 600
    assert rows_of(tmp_path / "run")[-1]["step"] == 600
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [each["step"] for each in config["resumed"]] == [480]


@pytest.mark.filterwarnings("ignore:the budget changes")
def test_a_budget_that_is_used_up_changes_nothing(tmp_path: Path) -> None:
    train(tmp_path / "run", "a2c")
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="has taken 480 steps; a budget of 100 leaves none: name more"):
        zoo.resume(tmp_path / "run", total_steps=100)
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


def test_changed_versions_are_listed(tmp_path: Path) -> None:
    train(tmp_path / "run", "a2c")
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    config["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"not go on bit for bit; changed since it began: torch 1\.0 -> "):
        zoo.resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message", "flags"),
    [
        ({"engine": "ray"}, "a Ray cluster", {"engine": "ray"}),
        (
            {"engine": "ray", "ray_address": "evil.example:6379"},
            "--engine ray --ray-address evil.example:6379",
            {"engine": "ray", "ray_address": "evil.example:6379"},
        ),
        ({"engine": "ray", "ray_address": "$(touch /tmp/x)"}, "--ray-address '$(touch /tmp/x)'", {"engine": "ray"}),
        ({"engine": "processes", "actors": 1000}, "in 1,000 processes", {"actors": 1000, "num_envs": 2}),
        ({"num_envs": 65536}, "actors 1 x num_envs 65,536 = 65,536 environments", {"num_envs": 65536, "actors": 1}),
        ({"vec": "async", "num_envs": 500}, "in 500 processes", {"actors": 1, "num_envs": 500}),
    ],
)
def test_what_reaches_beyond_this_machine_must_be_repeated(
    changes: dict[str, Any], message: str, flags: dict[str, Any], stopped: Path, tmp_path: Path
) -> None:
    run = rewritten(stopped, tmp_path, changes)
    with pytest.raises(UserError, match=re.escape(message)):
        resumed_settings(run, None, {})
    if len(flags) < len(changes):
        with pytest.raises(UserError, match="to go on, repeat it"):
            resumed_settings(run, None, flags)
    else:
        assert resumed_settings(run, None, {name: str(value) for name, value in flags.items()}).run.num_envs
    wrong = {
        name: "processes" if value == "ray" else 7 if isinstance(value, int) else "x" for name, value in flags.items()
    }
    with pytest.raises(UserError, match="repeats settings, and changes none"):
        resumed_settings(run, None, wrong)


def test_endless_evaluations_are_refused(stopped: Path, tmp_path: Path) -> None:
    run = rewritten(stopped, tmp_path, {"eval_episodes": 10**13})
    with pytest.raises(UserError, match="eval_episodes = 10000000000000: input should be less than or equal to"):
        zoo.resume(run)


def test_nothing_starts_before_reach_is_checked(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rewritten(stopped, tmp_path, {"engine": "processes", "actors": 1000})
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    monkeypatch.setattr(api, "run", lambda *_, **__: pytest.fail("it started"))
    with pytest.raises(SystemExit) as raised:
        main(["run", "--resume", str(run)])
    assert raised.value.code == 2
    assert f"zoo run --resume {run} --actors 1000 --num-envs 2" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "torch finds no CUDA GPU here"),
        ({"engine": "processes", "actors": 2, "vec": "async"}, "--vec async is for --engine inline"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_before_it_starts(
    changes: dict[str, Any], message: str, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        zoo.resume(rewritten(stopped, tmp_path, changes))
    with pytest.raises(UserError, match=message):
        runs.prepare("dqn", "CartPole-v1", changes, source="test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_steps": "500"}, None),
        ({"env_kwargs": {"max_episode_steps": 0}}, "cannot be made with {'max_episode_steps': 0}: ValueError"),
        ({"env_kwargs": {"render_mode": 5}}, None),
        ({"env_kwargs": json.loads('{"a":' * 900 + "1" + "}" * 900)}, "nested more than 16 deep"),
        ({"wrap": ["\x1b[2J:" + "x" * 5000]}, "asks for code of its own"),
    ],
)
def test_an_edited_record_costs_one_line(
    changes: dict[str, Any], message: str | None, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rewritten(stopped, tmp_path, changes)
    with pytest.raises(SystemExit) as raised:
        main(["run", "--resume", str(run)])
    shown = capsys.readouterr().err
    assert raised.value.code == (0 if message is None else 2)
    if message is not None:
        assert message in shown
        assert len(shown.splitlines()) == 1
        assert len(shown) < 700


def test_a_budget_that_is_missing_is_the_default(stopped: Path, tmp_path: Path) -> None:
    run = rewritten(stopped, tmp_path, {})
    record = json.loads((run / "config.json").read_text())
    del record["run"]["total_steps"]
    (run / "config.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="the budget changes from 100,000 to 400 steps"):
        assert zoo.resume(run, total_steps=400).settings.run.total_steps == 400


@pytest.mark.parametrize("name", ["eval", "resume"])
def test_a_strangers_text_commands_no_terminal(
    name: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rewritten(stopped, tmp_path, {})
    record = json.loads((run / "config.json").read_text())
    record |= {"env": "x:\x1b]0;title\x07" + "y" * 900} if name == "eval" else {"versions": {"torch": "\x1b[2J" * 999}}
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        main(["eval", str(run)] if name == "eval" else ["run", "--resume", str(run)])
    shown = capsys.readouterr().err
    assert r"\x1b" in shown
    assert all(character.isprintable() for line in shown.split("\n") for character in line)
    assert max(map(len, shown.splitlines())) < 700


def test_a_refusal_is_one_line_whatever_has_changed(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rewritten(stopped, tmp_path, {})
    with pytest.raises(SystemExit):
        main(["run", "--resume", str(run), "--total-steps", "250"])
    shown = capsys.readouterr().err
    assert shown.startswith("zoo: ")
    assert "a budget of 250 leaves none" in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("env", "changes", "flags"),
    [
        ("CartPole-v1", {}, ""),
        ("mine:Env-v0", {}, " --env mine:Env-v0"),
        ("my file.py:f", {"wrap": ("a:W", "b.py:V")}, " --env 'my file.py:f' --wrap a:W,b.py:V"),
        ("CartPole-v1", {"env_kwargs": {"xml": "a.xml"}}, """ --env-kwargs '{"xml": "a.xml"}'"""),
        ("make_env", {}, " --env path/to/file.py:make_env"),
        ("CartPole-v1", {"engine": "processes", "actors": 1000}, " --actors 1000 --num-envs 2"),
    ],
)
def test_suggested_commands_repeat_what_a_folder_may_not_ask_for(
    env: str, changes: dict[str, Any], flags: str, stopped: Path
) -> None:
    settings = resumed_settings(stopped, None, {})
    settings = replace(settings, env=env, run=replace(settings.run, **changes))
    assert command("run --resume", Path("a run"), settings) == f"zoo run --resume 'a run'{flags}"
    assert command("eval", Path("run"), settings) == f"zoo eval run{'' if 'actors' in changes else flags}"


def test_an_interrupted_run_says_how_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(row: dict[str, float]) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("import gymnasium as gym\ndef make(): return gym.make('CartPole-v1')")
    settings = runs.prepare("a2c", "own.py:make", {"total_steps": 100, "eval_every": 0, "log_every": 10}, source="test")
    with pytest.raises(KeyboardInterrupt, match=r"go on with: zoo run --resume run --env own\.py:make$"):
        runs.run(settings, "own.py:make", out=Path("run"), on_row=press)
