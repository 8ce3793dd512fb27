"""The same actors on a Ray cluster."""

import os
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from remotes import ON_POLICY, SMALL, SPEC, assert_newest, impatient_after_the_first_segment, learn, remote, stamped
from stamps import VECTORS, Stamps

import zoo
from zoo.actors.cluster import Cluster, RayWorker
from zoo.envs.task import Task
from zoo.errors import ActorError, DivergedError, EnvError, UserError
from zoo.protocol import Progress


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EnvError("it fell"), EnvError),
        (DivergedError("it fell"), DivergedError),
        (UserError("it fell"), UserError),
        (ValueError("it fell"), ActorError),
        (type("os", (Exception,), {})("it fell"), ActorError),
    ],
)
def test_an_error_in_an_actor_on_ray_is_of_the_same_kind_here(error: Exception, kind: type[Exception]) -> None:
    """Ray stands aside: what it raises for an error in a method has the error as its `cause`."""

    class RayTaskError(Exception):
        cause = error

    def get(reference: str) -> None:
        raise RayTaskError("a traceback\nof many lines")

    cluster = Cluster.__new__(Cluster)
    exceptions = SimpleNamespace(RayTaskError=RayTaskError, RayError=OSError)
    cluster.ray = SimpleNamespace(exceptions=exceptions, get=get, wait=lambda pending, **_: (pending, []))
    cluster.pending = {"a reference": 7}
    with pytest.raises(kind, match=f"^actor 7 failed: {type(error).__name__}: it fell$") as raised:
        cluster.ready(1.0)
    assert type(raised.value) is kind


def test_an_actor_on_ray_makes_its_environments_where_an_error_is_heard() -> None:
    """Ray takes an actor that cannot be made for one that was lost, to be replaced."""
    source = remote("impala", actors=1)
    with closing(source):
        worker = RayWorker(replace(source.assignment, task=Task("NoSuchEnv-v0")), SPEC)
        assert worker.count() == 0
        with pytest.raises(UserError, match="NoSuchEnv"):
            worker.collect((np.zeros(3, np.float32), 0), 0)


def test_the_same_actors_run_on_ray() -> None:
    pytest.importorskip("ray")
    for name in ("a2c", "impala"):
        settings = SMALL | {"engine": "ray", "actors": 2}
        agent = zoo.train(name, "CartPole-v1", **settings)  # type: ignore[arg-type]
        assert all(torch.isfinite(value).all() for value in agent.state_dict().values())


@pytest.fixture
def ray_finds_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the extra `ray`: skipped without it. Its workers import what tests hand them."""
    pytest.importorskip("ray")
    here = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]))


# In the matrix but for one: those on Ray and in processes differ in who carries messages alone.
SOME = [name if name == "ppo" else pytest.param(name, marks=pytest.mark.matrix) for name in ON_POLICY]


@pytest.mark.usefixtures("ray_finds_tests")
@pytest.mark.parametrize("name", SOME)
def test_on_policy_entries_learn_from_the_newest_weights_on_ray(name: str) -> None:
    assert_newest(*learn(stamped(name, VECTORS[AutoresetMode.NEXT_STEP], vec="native", engine="ray"), 400))


@pytest.mark.usefixtures("ray_finds_tests")
def test_an_actor_on_ray_is_slow_not_hung_while_it_takes_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient_after_the_first_segment(partial(Stamps, pause=0.1), monkeypatch, "ray") as source:
        for _ in range(30):
            source.step(Progress(0, 100))
    with (
        impatient_after_the_first_segment(partial(Stamps, hangs_in=40), monkeypatch, "ray") as source,
        pytest.raises(ActorError, match="no step of actors 0 in 1 seconds"),
    ):
        source.step(Progress(0, 100))


def test_ray_imports_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    for name in ("zoo", "json", "numpy", "msgpack"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nraise ImportError\n")
    monkeypatch.chdir(tmp_path)
    zoo.train("a2c", "CartPole-v1", **(SMALL | {"engine": "ray", "actors": 1}))  # type: ignore[arg-type]
    assert not (tmp_path / "sprung").exists()
