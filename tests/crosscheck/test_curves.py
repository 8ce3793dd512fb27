"""Learning curves of both libraries: what is kept of them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from zoo.cli import cli
from zoo.crosscheck import curves
from zoo.errors import UserError
from zoo.storage.files import open_folder


def test_curves_are_trained_into_a_folder_once(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder, folder.locked():
        result = CliRunner().invoke(cli, ["crosscheck", "sac", "--rung", "3", "--out", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert f"{tmp_path} is in use" in str(result.exception)


RUN = {"side": "zoo", "pair": "sac-Pendulum-v1", "seed": 0, "curve": [[1, -5.0]], "end": -1.0, "settings": {}}


@pytest.mark.parametrize("half", ['{"side": "zoo", "pai', "5", ""])
def test_half_a_line_of_curves_is_dropped(half: str, tmp_path: Path) -> None:
    (tmp_path / "curves.jsonl").write_text(f"{json.dumps(RUN)}\n{half}")
    with open_folder(tmp_path) as folder:
        store = curves.Store(folder)
        assert store.runs == [RUN]
        store.add(RUN)
    assert (tmp_path / "curves.jsonl").read_text() == f"{json.dumps(RUN)}\n" * 2


@pytest.mark.parametrize(
    "line", ["5", "[]", "{}", '{"side": "zoo"', json.dumps(RUN | {"end": None}), json.dumps(RUN | {"curve": [5]})]
)
def test_a_line_that_is_no_curve_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "curves.jsonl").write_text(f"{json.dumps(RUN)}\n{line}\n")
    with open_folder(tmp_path) as folder, pytest.raises(UserError, match=r"curves\.jsonl, line 2: no run of a comp"):
        curves.Store(folder)
