"""Training from Python: what is shown and where, what the agent remembers, and what ends a run early."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small import TIMES, small

import zoo
from runs.test_checkpoint import StopError, assert_same_end, rows_of
from zoo.errors import UserError
from zoo.runs.recorder import Recorder

CHECKS = {"eval_every": 40, "validation_episodes": 2, "eval_episodes": 3}
Rows = list[dict[str, float]]


def train(**more: Any) -> zoo.Agent:
    own = {key: more.pop(key) for key in ("out", "on_row", "init", "checkpoint_every") if key in more}
    return zoo.train("a2c", "CartPole-v1", **own, **small("a2c", **CHECKS | more))


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def timeless(rows: Rows) -> Rows:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


# History


def test_an_agent_has_all_rows_of_its_training_and_a_loaded_one_reads_them(tmp_path: Path) -> None:
    seen: Rows = []
    agent = train(out=tmp_path / "run", on_row=seen.append)
    written = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in written] == [40, 80, 120]
    assert {"policy_loss", "eval_return"} <= written[-1].keys()
    for history in (agent.history, seen, *(zoo.load(tmp_path / path).history for path in ("run", "run/best"))):
        assert history == written


def test_without_a_run_there_is_no_history(tmp_path: Path) -> None:
    agent = train()
    assert [row["step"] for row in agent.history] == [40, 80, 120]
    agent.save(tmp_path / "agent")
    assert zoo.load(tmp_path / "agent").history == []


@pytest.mark.filterwarnings("ignore:the budget changes")
def test_a_run_that_goes_on_has_the_rows_from_its_start(tmp_path: Path) -> None:
    train(out=tmp_path / "run")
    result = zoo.resume(tmp_path / "run", total_steps=160)
    assert [row["step"] for row in result.agent.history] == [40, 80, 120, 160]


# on_row ends a run


@pytest.mark.parametrize("answer", [None, True, 0, ""])
def test_only_false_ends_a_run(answer: Any) -> None:
    assert len(train(on_row=lambda row: answer).history) == 3


def test_false_ends_a_run_in_good_order(tmp_path: Path) -> None:
    whole, folder = train(), tmp_path / "run"
    agent = train(out=folder, on_row=lambda row: row["step"] < 80)
    assert timeless(agent.history) == timeless(whole.history)[:2]
    stopped = {"step": 80, "by": "on_row", "reason": "on_row returned False"}
    assert read(folder / "config.json")["stopped"] == read(folder / "evaluation.json")["stopped"] == stopped
    returns = zoo.evaluate(zoo.load(folder), "CartPole-v1", episodes=3).returns.tolist()
    assert read(folder / "evaluation.json")["returns"] == returns


def test_false_with_the_last_row_is_no_early_end(tmp_path: Path) -> None:
    train(out=tmp_path / "run", on_row=lambda row: row["step"] < 120)
    assert "stopped" not in read(tmp_path / "run" / "config.json")
    assert "stopped" not in read(tmp_path / "run" / "evaluation.json")


@pytest.mark.parametrize("log_every", [40, 44])  # at the end of a rollout, and within one
def test_a_run_that_false_ended_goes_on_as_if_it_had_never_stopped(log_every: int, tmp_path: Path) -> None:
    train(out=tmp_path / "whole", log_every=log_every)
    train(out=tmp_path / "halved", log_every=log_every, on_row=lambda row: row["step"] < 80)
    zoo.resume(tmp_path / "halved")
    assert_same_end(tmp_path / "whole", tmp_path / "halved")
    assert "stopped" not in read(tmp_path / "halved" / "config.json")
    ends = [read(tmp_path / name / "evaluation.json") for name in ("whole", "halved")]
    assert ends[0]["returns"] == ends[1]["returns"]
    assert "stopped" not in ends[1]


# stop_at ends a run


def checks_of(rows: Rows) -> list[tuple[float, float]]:
    return [(row["step"], row["eval_return"]) for row in rows if "eval_return" in row]


LEARNS = {"total_steps": 1200, "eval_every": 100, "log_every": 50, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stop_at") / "whole"
    train(out=folder, **LEARNS)
    return folder


def goal_of(folder: Path) -> tuple[float, float]:
    """Step and return of a check that is neither the first nor the last, and better than all before it."""
    checks = checks_of(rows_of(folder))
    better = [(step, score) for i, (step, score) in enumerate(checks) if score > max([0, *dict(checks[:i]).values()])]
    assert len(better) > 1
    assert better[1][0] < checks[-1][0]
    return better[1]


def test_the_first_check_that_reaches_stop_at_ends_the_run(whole: Path, tmp_path: Path) -> None:
    step, goal = goal_of(whole)
    agent = train(out=tmp_path / "run", stop_at=goal, **LEARNS)
    assert timeless(agent.history) == [row for row in rows_of(whole) if row["step"] <= step]
    stopped = read(tmp_path / "run" / "config.json")["stopped"]
    assert stopped == read(tmp_path / "run" / "evaluation.json")["stopped"]
    assert (stopped["step"], stopped["by"]) == (step, "stop_at")
    assert f"a return of {goal:.1f}" in stopped["reason"]
    # The figure is that of other episodes than those that decided.
    assert read(tmp_path / "run" / "evaluation.json")["returns"] == (
        zoo.evaluate(zoo.load(tmp_path / "run"), "CartPole-v1", episodes=3).returns.tolist()
    )


def test_a_return_that_no_check_has_changes_nothing(whole: Path, tmp_path: Path) -> None:
    train(out=tmp_path / "run", stop_at=501, **LEARNS)
    assert rows_of(tmp_path / "run") == rows_of(whole)
    assert "stopped" not in read(tmp_path / "run" / "config.json")


def test_stop_at_without_checks_is_refused() -> None:
    with pytest.raises(UserError, match="stop_at = 400 needs checks on the way, but eval_every = 0 makes none in"):
        train(stop_at=400, eval_every=0)


def test_a_run_that_dies_after_it_reached_stop_at_ends_there(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, goal = goal_of(whole)

    def die(*args: Any) -> None:
        raise StopError

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "finish", die)
        with pytest.raises(StopError):
            train(out=tmp_path / "run", stop_at=goal, **LEARNS)
    result = zoo.resume(tmp_path / "run", on_row=lambda row: pytest.fail("it goes on"))
    assert result.stopped is not None
    assert (result.stopped.step, result.stopped.by) == (step, "stop_at")
    assert read(tmp_path / "run" / "config.json")["stopped"]["step"] == step


def test_a_run_that_stop_at_ended_goes_on_without_it_when_it_is_resumed(whole: Path, tmp_path: Path) -> None:
    _, goal = goal_of(whole)
    train(out=tmp_path / "run", stop_at=goal, **LEARNS)
    with pytest.warns(UserWarning, match="had reached stop_at; it goes on to 1,200 steps without it"):
        result = zoo.resume(tmp_path / "run")
    assert_same_end(whole, tmp_path / "run")
    assert result.stopped is None
    config = read(tmp_path / "run" / "config.json")
    assert (config["run"]["stop_at"], config["sources"]["stop_at"]) == (None, "resume")
    assert "stopped" not in config


def test_a_run_that_on_row_ended_keeps_stop_at_when_it_is_resumed(whole: Path, tmp_path: Path) -> None:
    step, goal = goal_of(whole)
    train(out=tmp_path / "run", stop_at=goal, on_row=lambda row: False, **LEARNS)
    result = zoo.resume(tmp_path / "run")
    assert result.stopped is not None
    assert (result.stopped.step, result.stopped.by) == (step, "stop_at")


# Saved weights to start from


def test_training_starts_from_the_weights_of_an_agent_or_a_folder(tmp_path: Path) -> None:
    first = train(out=tmp_path / "first", total_steps=400)
    expected = zoo.evaluate(first, "CartPole-v1", episodes=3).returns.tolist()
    still = {"total_steps": 20, "learning_rate": 1e-30, "seed": 5}
    run, final = tmp_path / "first", f"{tmp_path}/first/final"
    starts: dict[str, tuple[Any, str | None]] = {
        "run": (run, str(run)),
        "text": (final, final),
        "agent": (first, "an agent of a2c"),
        "none": (None, None),
    }
    for name, (init, record) in starts.items():
        train(out=tmp_path / name, init=init, **still)
        found = read(tmp_path / name / "evaluation.json")["returns"]
        assert (found == expected) is (name != "none"), name
        assert read(tmp_path / name / "config.json").get("init") == record


def test_weights_that_do_not_fit_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    first = train()
    with pytest.raises(UserError, match=r"other weights: .*; settings that differ: hidden"):
        train(init=first, hidden=(9,), out=tmp_path / "run")
    with pytest.raises(UserError, match="init is a int; expected an agent"):
        train(init=3, out=tmp_path / "run")
    with pytest.raises(UserError, match="nowhere cannot be opened"):
        train(init=tmp_path / "nowhere", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_started_from_saved_weights_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    first = train(seed=7)

    def fail_at(step: int) -> Callable[[dict[str, float]], None]:
        def on_row(row: dict[str, float]) -> None:
            if row["step"] >= step:
                raise StopError

        return on_row

    train(init=first, out=tmp_path / "whole", checkpoint_every=20)
    with pytest.raises(StopError):
        train(init=first, out=tmp_path / "halved", checkpoint_every=20, on_row=fail_at(80))
    del first
    zoo.resume(tmp_path / "halved", checkpoint_every=20)
    assert_same_end(tmp_path / "whole", tmp_path / "halved")
    assert read(tmp_path / "halved" / "config.json")["init"] == "an agent of a2c"


def test_without_a_checkpoint_its_first_weights_are_gone(tmp_path: Path) -> None:
    def fail(row: dict[str, float]) -> None:
        raise StopError

    with pytest.raises(StopError):
        train(init=train(), out=tmp_path / "run", on_row=fail)
    with pytest.raises(UserError, match="was to start from saved weights and has no checkpoint; train anew"):
        zoo.resume(tmp_path / "run")


# What is no argument


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_row": None}, "on_row is None; expected a function of a row of metrics"),
        ({"on_row": 5}, "on_row is 5; expected"),
        ({"env_kwargs": {"f": object}}, "cannot be kept as JSON"),
    ],
)
def test_wrong_arguments_are_refused_before_a_folder_is_made(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(**arguments, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_what_makes_no_environment_is_refused(tmp_path: Path) -> None:
    agent = train()
    for use in (lambda env: zoo.train("a2c", env, out=tmp_path / "run"), lambda env: zoo.evaluate(agent, env)):
        for env in (5, None, ["CartPole-v1"]):
            with pytest.raises(UserError, match=r"the environment is .*; expected the name of an environment, an env"):
                use(env)  # type: ignore[no-untyped-call]
    assert not list(tmp_path.iterdir())


def test_a_run_that_goes_on_is_shown_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(out=tmp_path / "run")
    with pytest.warns(UserWarning, match="the budget changes"):
        zoo.resume(tmp_path / "run", total_steps=160)
    assert capsys.readouterr().err == ""
    with pytest.warns(UserWarning, match="the budget changes"):
        zoo.resume(tmp_path / "run", total_steps=200, progress=True)
    assert "200/200 (100%)" in capsys.readouterr().err
    with pytest.raises(UserError, match="on_row is None"):
        zoo.resume(tmp_path / "run", on_row=None)  # type: ignore[arg-type]
