"""The wheel: it holds what the package reads, and works far from the checkout."""

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-isolation"] if find_spec("hatchling") else []
    command = [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def python(folder: Path, program: str, cwd: Path) -> list[str]:
    """The lines that a program prints when it imports from `folder`; -P keeps the working directory out of it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return str(done.stdout).splitlines()


def test_wheel_holds_every_module_and_the_registry(unpacked: Path) -> None:
    files = (file for suffix in ("py", "yaml", "html") for file in (ROOT / "zoo").rglob(f"*.{suffix}"))
    modules = {file.relative_to(ROOT).as_posix() for file in files}
    packed = {file.relative_to(unpacked).as_posix() for file in unpacked.rglob("*") if file.is_file()}
    metadata = {file for file in packed if ".dist-info/" in file}
    assert packed - metadata == modules | {"zoo/registry.yaml", "zoo/py.typed"}
    assert (unpacked / "zoo" / "registry.yaml").read_bytes() == (ROOT / "registry.yaml").read_bytes()
    assert any(file.endswith("/licenses/LICENSE") for file in metadata)


def test_wheel_works_far_from_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    (where,) = python(unpacked, "import zoo; print(zoo.__file__)", tmp_path)
    assert Path(where).is_relative_to(unpacked)
    listed = "\n".join(python(unpacked, "from zoo.cli import main; main(['list'])", tmp_path))
    assert "ppo" in listed
    assert "zoo run ALGORITHM" in listed
    assert python(unpacked, "from zoo.cli import main; main(['--version'])", tmp_path)[0].startswith("zoo")


def test_the_package_lists_what_it_imports_when_it_is_used(tmp_path: Path) -> None:
    program = "import sys, zoo; print(*dir(zoo)); print('torch' in sys.modules)"
    names, torch_is_there = python(ROOT, program, tmp_path)
    assert {"train", "evaluate", "load", "resume", "lookup", "Agent", "Evaluation", "UserError"} <= set(names.split())
    assert torch_is_there == "False"


def test_wheel_loads_its_classes(unpacked: Path, tmp_path: Path) -> None:
    program = "from zoo import registry; print(*(registry.load_class(n).__name__ for n in registry.load().algorithms))"
    (names,) = python(unpacked, program, tmp_path)
    assert "PPO" in names.split()


def test_constraints_pin_every_requirement_to_a_version_that_it_allows() -> None:
    """Those of the extras, too: written by `.ci/freeze`."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [each for group in project["optional-dependencies"].values() for each in group]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement
