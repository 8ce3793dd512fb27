"""What a run is given: a seed is drawn where none is set."""

from pathlib import Path

import pytest

from zoo import runs
from zoo.errors import UserError


def test_no_seed_is_not_seed_zero_and_is_recorded() -> None:
    settings = [runs.prepare("ppo", "CartPole-v1", {}, source="argument") for _ in range(2)]
    assert settings[0].run.seed != settings[1].run.seed
    assert runs.prepare("ppo", "CartPole-v1", {"seed": 0}, source="argument").run.seed == 0


def test_a_new_folder_is_one_that_is_not_there(tmp_path: Path) -> None:
    runs.check_new(tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    for name, message in (("", "exists"), ("file", "exists"), ("link", "exists"), ("file/a/b", "file is no folder")):
        with pytest.raises(UserError, match=f"{message}.*choose another --out"):
            runs.check_new(tmp_path / name)
