"""Processes that the package starts import nothing from the folder in which it is used."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zoo.crosscheck import mutations
from zoo.machine import safe_path

CANARIES = ("zoo", "json", "numpy", "multiprocessing", "ctypes")
CANARY = 'import os\nwith open(os.environ["CANARY"], "a") as file:\n    file.write(__file__ + "\\n")\n'
A2C = '{"num_envs": 1, "num_steps": 5}'
STARTS = {
    "bench": """
        from zoo.bench.plan import job
        from zoo.bench.queue import LocalQueue
        (outcome,) = LocalQueue(1).run([job("random", "", "CartPole-v1", 0, {})], print)
        assert outcome.error is None, outcome.error
    """,
    "speed": f"""
        from zoo.bench import speed
        workload = speed.Workload(algorithm="a2c", env="CartPole-v1", warmup=5, steps=5, settings={A2C})
        assert speed.run(workload, "env", 1)["steps_per_second"] > 0
    """,
    "environments": """
        import multiprocessing
        from zoo.envs.make import vectorize
        multiprocessing.set_start_method("spawn")
        vector = vectorize("CartPole-v1", 1, "async")
        vector.reset(seed=[0])
        vector.close()
    """,
    "compile": f"""
        import zoo
        zoo.train("a2c", "CartPole-v1", total_steps=20, compile="on", eval_episodes=1, **{A2C})
    """,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with modules under familiar names, which tell when they are executed."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in CANARIES:
        (folder / f"{name}.py").write_text(CANARY)
    return folder


def execute(command: list[str], folder: Path, **more: str) -> tuple[str, str]:
    """The files that were executed, and what was said, of a command in `folder`."""
    log = folder.parent / "canary"
    environment = {**os.environ, "CANARY": str(log), "PYTHONPATH": package(), "OMP_NUM_THREADS": "1", **more}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return log.read_text() if log.exists() else "", done.stderr if done.returncode else ""


def package() -> str:
    """The folder that holds the package under test."""
    return str(Path(mutations.zoo.__file__).parent.parent)


@pytest.mark.parametrize("start", STARTS)
def test_nothing_of_the_working_directory_is_executed(start: str, folder: Path) -> None:
    driver = folder.parent / "driver.py"  # as the script `zoo`: its own folder is on the path, and no other
    driver.write_text(f"import sys\nif __name__ == '__main__':{STARTS[start]}")
    cache = str(folder.parent / "cache")  # an empty one: else torch's compiler would not try the processor again
    executed, failed = execute(
        [sys.executable, str(driver), str(folder.parent / "out")], folder, TORCHINDUCTOR_CACHE_DIR=cache
    )
    assert executed == ""
    assert failed == ""


@pytest.mark.parametrize("command", [["-m", "zoo.bench.job"], ["-c", "import multiprocessing"]])
def test_control_the_modules_would_be_executed(command: list[str], folder: Path) -> None:
    assert execute([sys.executable, *command], folder)[0] != ""
    (folder.parent / "canary").unlink()
    assert execute([sys.executable, "-P", *command], folder)[0] == ""


def test_planted_mistakes_are_looked_for_in_the_copy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], dict[str, str], str]] = []

    def run(command: list[str], env: dict[str, str], cwd: Path, **_: Any) -> Any:
        seen.append((command, env, str(cwd)))
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    mutations._try(mutations.load()[0])
    ((command, env, copy),) = seen
    assert command[1:4] == ["-P", "-m", "zoo"]
    assert env["PYTHONPATH"] == f"{copy}{os.pathsep}/somewhere"


@pytest.mark.parametrize("before", [None, "", "1"])
def test_safe_path_leaves_the_environment_as_it_was(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    with safe_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ.get("PYTHONSAFEPATH") == before
