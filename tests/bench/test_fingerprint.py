"""Results survive edits that change no number, and no others."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import zoo
from zoo import registry
from zoo.bench import fingerprint as module
from zoo.bench.fingerprint import fingerprint, modules

ROOTS = ["copied.runs", "copied.algos.ppo"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, by another name, that tests may change."""
    folder = Path(shutil.copytree(Path(zoo.__file__).parent, tmp_path / "copied"))
    for file in folder.rglob("*.py"):
        file.write_text(re.sub(r"\b(from|import) zoo\b", r"\1 copied", file.read_text()))
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    for function in (module._file, module._source):
        function.cache_clear()


def now() -> str:
    forget()
    return fingerprint(ROOTS)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("errors.py", '"""A mistake in a command', '"""Something wrong in a command'),
        (
            "parts/targets.py",
            "    *bases, last = base.unbind()",
            "    # Backwards.\n    *bases, last = base.unbind()",
        ),
        ("training/evaluation.py", "expected a whole number of at least", "needs at least"),
        ("training/compile.py", "updates run uncompiled, and slower", "slower, uncompiled"),
        ("algos/ppo.py", 'description="passes over each rollout"', 'description="epochs"'),
        ("envs/envs.py", "import deque\n", "import deque  # of actions\n"),
        ("runs/display.py", "steps/s", "steps a second"),
        ("bench/figures.py", "alpha=0.15", "alpha=0.2"),
        ("algos/sac.py", "self.config.gamma", "0.5"),
    ],
)
def test_what_cannot_change_a_number_keeps_results(file: str, old: str, new: str, package: Path) -> None:
    before = now()
    edit(package / file, old, new)
    assert now() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("parts/targets.py", "1 - lam", "2 - lam"),
        ("training/evaluation.py", "EVALUATION = 1_000_003", "EVALUATION = 1_000_004"),
        ("algos/ppo.py", "Field(3e-4", "Field(2e-4"),
        ("algos/ppo.py", "from zoo.parts.targets import gae", "from zoo.parts.targets import lambda_return as gae"),
        ("parts/networks.py", "import torch.nn.functional as F", "import torch.nn.functional2 as F"),
        ("machine.py", '"highest"', '"high"'),
    ],
)
def test_what_changes_a_number_does_not(file: str, old: str, new: str, package: Path) -> None:
    before = now()
    edit(package / file, old.replace("from zoo", "from copied"), new.replace("from zoo", "from copied"))
    assert now() != before


def test_every_module_of_training_counts(package: Path) -> None:
    found = modules(ROOTS)
    assert {"copied.envs.envs", "copied.parts.optim", "copied.training.kernels.products", "copied.algos.ppo"} <= found
    assert not {name for name in found if re.match(r"copied\.(cli|bench|crosscheck|runs\.video)", name)}
    keys = {now()}
    for count, name in enumerate(sorted(found), 2):
        file = module._file(name)
        assert file is not None
        file.write_text(f"{file.read_text()}\nCONSTANT = {count}\n")
        keys.add(now())
        assert len(keys) == count, name


def test_a_module_that_moves_counts_as_before(package: Path) -> None:
    before = now()
    (package / "maths").mkdir()
    (package / "maths" / "__init__.py").write_text('"""Recursions."""\n')
    (package / "parts" / "targets.py").rename(package / "maths" / "targets.py")
    for file in package.rglob("*.py"):
        file.write_text(file.read_text().replace("copied.parts.targets", "copied.maths.targets"))
    assert now() == before
    edit(package / "maths" / "targets.py", "1 - lam", "2 - lam")
    assert now() != before


def test_entries_do_not_share_more_than_they_import() -> None:
    files = {name: modules(["zoo.runs", registry.get(name).path.partition(":")[0]]) for name in ("ppo", "sac")}
    apart = {"zoo.algos.ppo", "zoo.algos.sac", "zoo.parts.noise", "zoo.parts.critics", "zoo.parts.squashed"}
    assert files["ppo"] ^ files["sac"] == apart
