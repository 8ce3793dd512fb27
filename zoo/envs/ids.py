"""Names of environments: what they mean, and the environment that one names.

CartPole             the newest version that gymnasium knows
Pong                 ALE/Pong-v5, as any Atari game that no other id has the name of
package:Name-v0      imports the package first, which registers the id
path/to/file.py:f    what f, a function or a class in that file, returns

The last two run code. Only names that a caller gave may come here, never one that was read from a file, unless
`runs_code` says that it is none of these, and `is_supplied` that what it means is gymnasium's own, or of an extra.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym

from zoo.envs import minatar
from zoo.errors import UserError, brief, located, nearest
from zoo.spec import is_atari

ATARI_EXTRA = "Atari games need an extra: pip install -e '.[atari]'"
EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "ale_py": "atari", "zoo.envs.minatar": "minatar"}


def runs_code(name: str) -> bool:
    """Whether a name is that of a package or a file, which resolving it imports."""
    return ":" in name


# Where environments lie that may be made because a run's folder names them: in gymnasium, and in the extras.
SUPPLIED = (
    *(f"gymnasium.envs.{family}." for family in ("classic_control", "toy_text", "box2d", "mujoco")),
    *("ale_py.", f"{minatar.__name__}:"),
)


def is_supplied(env_id: str) -> bool:
    """Whether an id is registered as one of gymnasium's own, but for those on JAX, or of an extra."""
    return str(getattr(gym.registry.get(env_id), "entry_point", None)).startswith(SUPPLIED)


def is_file(name: str) -> bool:
    """Whether a name is that of an object in a Python file."""
    return name.rpartition(":")[0].endswith(".py")


def resolve_id(name: str) -> str:
    """Return what `name` means: itself, or with the newest version where it has none.

    Imports the package or the file that it names; ids of optional packages are registered on the way. Raises UserError,
    with the nearest id, for an unknown one.
    """
    if is_file(name):
        load_name(name, "env")
        return name
    module, colon, bare = name.rpartition(":")
    if name.endswith(".py") or (colon and not (module and bare)):
        lacking = "" if module or not colon else " (a package or a file stands before the colon)"
        expected = "package:Name-v0, or a function or class, path/to/file.py:make_env"
        raise UserError(f"environment {name!r}: expected {expected}{lacking}")
    if colon:
        before = set(gym.registry)
        import_module(module, name)
        return f"{module}:{_resolve_in(module, bare, set(gym.registry) - before)}"
    if name.startswith("ALE/"):
        _import_atari()
    if name.startswith("MinAtar/"):
        minatar.register()
    found = _registered(name, _newest(name, atari=name.startswith("ALE/")))
    if found is None and _has_atari():
        found = _registered(name, f"ALE/{name}-v5", _newest(name, atari=True))
    return found or _refuse(name)


def _registered(*names: str) -> str | None:
    return next((name for name in names if name in gym.registry), None)


def _newest(name: str, *, atari: bool) -> str:
    """Return the id of the newest version of a name, among Atari games or all others; a name of none if there is none.

    `Pong` is ALE/Pong-v5, though ale_py has a Pong-v4, too.
    """
    found = [spec for spec in gym.registry.values() if spec.id == f"{name}-v{spec.version}"]
    versions = [spec.version or 0 for spec in found if is_atari(spec.id) == atari]
    return f"{name}-v{max(versions, default='none')}"


def _refuse(name: str) -> NoReturn:
    names = {re.sub(r"-v\d+$", "", known) for known in gym.registry if "/" not in known}
    stem, dash, version = name.partition("-v")
    if dash and stem in names:
        known = ", ".join(sorted(spec.id for spec in gym.registry.values() if spec.name == stem))
        raise UserError(f"environment {stem!r} has no version {version!r}; known: {known}")
    hint = _file_hint(name, "make_env") or nearest(stem, names)
    if not hint.startswith("; the") and not hint.startswith("; did"):
        hint = "; `python -c 'import gymnasium; gymnasium.pprint_registry()'` lists what is installed"
        hint += "" if _has_atari() else f", and {ATARI_EXTRA}"
    raise UserError(f"unknown environment {name!r}{hint}")


def _file_hint(module: str, attribute: str) -> str:
    """Return how an object in a file is named, where there is a file that is called so; empty if there is none."""
    file = Path(f"{module}.py")
    return f"; the file {file} is there, and --env {file}:{attribute} names what it has" if os.path.isfile(file) else ""


def _resolve_in(module: str, name: str, registered: set[str]) -> str:
    """Return the id that `name` means, which a module that was just imported should have registered."""
    try:
        return resolve_id(name)
    except UserError:
        if any(re.sub(r"-v\d+$", "", known) == re.sub(r"-v\d+$", "", name) for known in gym.registry):
            raise
        ids = ", ".join(sorted(registered)) or "none"
        hint = f"; it has a {name}, which path/to/file.py:{name} names" if hasattr(sys.modules[module], name) else ""
        raise UserError(f"{module} registers no id {name!r} with gymnasium (it registered: {ids}){hint}") from None


def import_module(module: str, name: str) -> Any:
    """Import the module that a name begins with. Raises UserError if that fails."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            hint = _file_hint(module, name.rpartition(":")[2]) or "; a file is named path/to/file.py:make_env"
            raise UserError(f"{name}: no module {module!r} is installed or on PYTHONPATH{hint}") from None
        raise UserError(f"{name}: {module} cannot be imported: {located(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{name}: {module} cannot be imported: {located(error)}") from error


def load_name(name: str, setting: str) -> Any:
    """Return the function or class that module:name or path/to/file.py:name names.

    Raises UserError if there is none, or if the module cannot be imported.
    """
    path, _, attribute = name.rpartition(":")
    if not path or not attribute:
        raise UserError(f"{setting} {name!r}: expected module:Name or path/to/file.py:Name")
    module = _load_file(Path(path), name) if is_file(name) else import_module(path, name)
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{name}: {path} has no function or class {attribute!r}{nearest(attribute, known)}")
    return found


def _load_file(path: Path, name: str) -> Any:
    """Import a Python file, once; its folder joins the end of the module path, so that it finds what lies beside it."""
    try:
        path = path.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{name}: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    key = f"{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if key in sys.modules:
        return sys.modules[key]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(key, path)
    assert spec is not None  # of a path that ends in .py
    assert spec.loader is not None
    module = sys.modules[key] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[key]  # a part of it, which the next import would find
        if not isinstance(error, Exception | SystemExit):
            raise
        raise UserError(f"{name}: {path} cannot be imported: {located(error)}") from error
    return module


def _import_atari() -> None:
    if not _has_atari():
        raise UserError(ATARI_EXTRA)


def _has_atari() -> bool:
    """Import ale_py, which registers its games, if it is installed."""
    try:
        import ale_py
    except ImportError:
        return False
    gym.register_envs(ale_py)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else each game says who made it
    return True


def make_env(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make one environment. Raises UserError, which names the extra where its package is missing."""
    with explained(name, kwargs):
        env = load_name(name, "env")(**kwargs) if is_file(name) else gym.make(name, **kwargs)
    if not isinstance(env, gym.Env):
        raise UserError(f"{name} returned {type(env).__name__}; expected a gymnasium.Env")
    return env


@contextmanager
def explained(name: str, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Raise UserError, which says where and why, for whatever goes wrong while `name` is made."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        entry = getattr(gym.registry.get(name.rpartition(":")[2]), "entry_point", None)
        extra = next((extra for package, extra in EXTRAS.items() if package in str(entry)), None)
        if extra and isinstance(error, gym.error.DependencyNotInstalled | ImportError):
            raise UserError(f"{name} needs a package that is not installed: pip install -e '.[{extra}]'") from None
        given = f" with {kwargs}" if kwargs else ""
        raise UserError(brief(f"{name} cannot be made{given}: {located(error)}")) from error
