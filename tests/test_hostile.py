"""Folders of whole runs that a stranger made: a run that goes on writes to nothing outside."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo import runs
from zoo.errors import UserError


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


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped."""
    folder = tmp_path_factory.mktemp("stranger") / "run"
    given = {"total_steps": 300, "seed": 3, "hidden": (8,), "log_every": 50, "eval_every": 100, "eval_episodes": 1}
    settings = runs.prepare("a2c", "CartPole-v1", given, source="test")

    def stop(row: dict[str, float]) -> None:
        if row["step"] >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(settings, "CartPole-v1", out=folder, checkpoint_every=50, on_row=stop)
    return folder


WRITTEN = [
    *("config.json", "config.json.part", "metrics.jsonl", "evaluation.json", "evaluation.json.part", ".lock"),
    *("notes.txt", "checkpoints/manifest.json.part", "checkpoints/000000000300.safetensors.part"),
    *("checkpoints/000000000300.safetensors", "final/agent.json.part", "final/agent.safetensors.part"),
    *("best/agent.json", "best/agent.safetensors"),
]
FOLDERS = ["checkpoints", "tensorboard", "final", "best", "last"]


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All that is in a folder."""
    return {
        str(file.relative_to(folder)): (file.lstat().st_mode, b"" if file.is_dir() else file.read_bytes())
        for file in folder.rglob("*")
    }


def plant(run: Path, name: str, make: Callable[[Path], None]) -> None:
    """Put what `make` makes in the place of a file or folder of a run."""
    place = run / name
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    make(place)


def go_on(run: Path) -> str:
    """What refuses a run that goes on, if anything does."""
    try:
        zoo.resume(run, checkpoint_every=50)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.filterwarnings("ignore:.*metrics.jsonl has:UserWarning")
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_run_that_goes_on_writes_to_nothing_outside(name: str, kind: str, stranger: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".bashrc").write_text("mine")
    run = Path(shutil.copytree(stranger, tmp_path / "run"))
    make = {
        "link": lambda place: place.symlink_to(os.path.relpath(outside / ".bashrc", place.parent)),
        "hard link": lambda place: place.hardlink_to(outside / ".bashrc"),
        "pipe": os.mkfifo,
    }
    before = tree(outside)
    plant(run, name, make[kind])
    refusal = go_on(run)
    assert tree(outside) == before
    assert not refusal or f"{run / name}" in refusal
    assert "\n" not in refusal
    if name.endswith(".part"):
        assert not refusal  # what is left of a kill is replaced


@pytest.mark.parametrize("name", FOLDERS)
def test_a_run_that_goes_on_follows_no_linked_folder(name: str, stranger: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(stranger / "checkpoints", outside)
    (outside / "000000000001.safetensors").write_text("mine")
    run = Path(shutil.copytree(stranger, tmp_path / "run"))
    before = tree(outside)
    plant(run, name, lambda place: place.symlink_to(outside))
    assert go_on(run) == f"{run / name} is not a folder; links are not followed"
    assert tree(outside) == before
