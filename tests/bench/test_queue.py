"""Jobs in processes of their own: whatever becomes of one is an outcome."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
from sweeps import TINY

from zoo.bench import plan as planning
from zoo.bench.plan import job
from zoo.bench.queue import LAST, WIDTH, Answer, JobEnd, LocalQueue, Words, describe


def test_a_job_that_crashes_stops_no_other(tiny: None) -> None:
    good, bad = job("random", "", "CartPole-v1", 0, {}), job("zoo", "ppo", "CartPole-v1", 0, TINY)
    bad.settings["run"]["total_steps"] = -1
    outcomes = {outcome.job.row: outcome for outcome in LocalQueue(2).run([bad, good], lambda job, row: None)}
    assert outcomes["random"].error is None
    assert outcomes["random"].result is not None
    assert outcomes["zoo/ppo"].result is None
    assert "total_steps" in str(outcomes["zoo/ppo"].error)


@pytest.mark.parametrize(
    ("code", "errors", "expected"),
    [
        (-9, [], "killed by signal 9"),
        (1, ["Traceback\n", "ValueError: what\n", "\n"], "ValueError: what"),
        (3, [], "exit code 3"),
    ],
)
def test_an_end_is_described_in_a_line(code: int, errors: list[str], expected: str) -> None:
    assert describe(code, errors) == expected


MEDDLE = """
import os, signal, subprocess, sys
from gymnasium.envs.classic_control import CartPoleEnv
def noise():
    print("python says [/red]", flush=True)
    os.write(1, b'{{"result": {{}}}}\\n'), os.write(2, b"\\xff\\xfe no text")
noise()
step = CartPoleEnv.step
def meddle(self, action):
    {}
    return step(self, action)
CartPoleEnv.step = meddle
"""


def meddled(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> JobEnd:
    """What becomes of a job in whose environment, at each step, `what` happens; it prints while it is imported, too."""
    (folder / "sitecustomize.py").write_text(MEDDLE.format(what))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(planning.__file__).parents[2])]))
    (outcome,) = LocalQueue(1).run([job("random", "", "CartPole-v1", 0, {})], lambda job, row: None)
    return outcome


def test_what_an_environment_prints_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = meddled("noise()", tmp_path, monkeypatch)
    quiet = meddled("pass", tmp_path, monkeypatch)
    assert noisy.error is None
    assert noisy.result is not None
    assert quiet.result is not None
    assert noisy.result["returns"] == quiet.result["returns"]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", r"killed by signal 9: .* no text"),
        ("os.write(2, b'\\n\\xff\\x80 garbage'); os._exit(3)", "\N{REPLACEMENT CHARACTER}{2} garbage"),
        ("os._exit(0)", r".* no text"),
        ("os.write(1, b'x' * 10**7); raise ValueError('full')", r"ValueError: full"),
        ("[print('y' * 100) for _ in range(10**5)]; raise ValueError('full')", r"ValueError: full"),
        ("subprocess.Popen(['sleep', '60']); raise ValueError('left')", r"ValueError: left"),
        ("raise ValueError('[/red] ' + chr(27))", r"ValueError: \[/red\] \x1b"),
        ("os.closerange(0, 100); os._exit(4)", r".* no text"),
    ],
)
def test_any_end_of_a_job_is_an_outcome(what: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    outcome = meddled(what, tmp_path, monkeypatch)
    assert outcome.result is None
    assert re.fullmatch(error, outcome.error or "")
    assert time.monotonic() - began < 50


def test_a_job_that_cannot_be_started_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/proc/nothing")
    (outcome,) = LocalQueue(1).run([job("random", "", "CartPole-v1", 0, {})], lambda job, row: None)
    assert "could not be started" in str(outcome.error)


def test_an_answer_is_heard_in_pieces_and_half_of_one_is_none() -> None:
    rows: list[dict[str, float]] = []
    answer = Answer(rows.append)
    text = b'{"step": 1.0}\nnobody said this\n[1]\n{"step": 2.0}\n{"result": {"end": 3}}\n{"result": {"end'
    for i in range(0, len(text), 7):
        answer.hear(text[i : i + 7])
    assert rows == [{"step": 1.0}, {"step": 2.0}]
    assert answer.result == {"end": 3}


def test_words_are_bounded_in_lines_and_width() -> None:
    words = Words()
    for _ in range(1000):
        words.hear(b"a" * 5_000 + b"\n" * 3 + b"b" * 30_000)
    assert len(words.lines()) == LAST
    assert max(map(len, words.lines())) == WIDTH
    words.hear(b"\nla")
    words.hear(b"st\n")
    assert words.lines()[-2:] == ["last", ""]
