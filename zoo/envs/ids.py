"""Names of environments: what they mean, and the environment that one names."""

import re
from typing import Any

import gymnasium as gym

from zoo.errors import UserError, nearest

EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "ale_py": "atari", "shimmy": "atari"}


def resolve_id(name: str) -> str:
    """The registered id that `name` means: itself, or the newest version where it names none.

    A UserError with the nearest id for an unknown one; ids of optional packages are registered on the way.
    """
    if name.startswith("ALE/"):
        _import_atari()
    if name in gym.registry:
        return name
    versions = [spec.version for spec in gym.registry.values() if spec.id == f"{name}-v{spec.version}"]
    if versions:
        return f"{name}-v{max(version for version in versions if version is not None)}"
    names = {re.sub(r"-v\d+$", "", known) for known in gym.registry if "/" not in known}
    stem, dash, version = name.partition("-v")
    if dash and stem in names:
        known = ", ".join(sorted(spec.id for spec in gym.registry.values() if spec.name == stem))
        raise UserError(f"environment {stem!r} has no version {version!r}; known: {known}")
    hint = nearest(stem, names)
    if not hint.startswith("; did"):
        hint = "; `python -c 'import gymnasium; gymnasium.pprint_registry()'` lists what is installed"
    raise UserError(f"unknown environment {name!r}{hint}")


def _import_atari() -> None:
    try:
        import ale_py
    except ImportError:
        raise UserError("Atari games need an extra: pip install -e '.[atari]'") from None
    gym.register_envs(ale_py)


def make_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """One environment; a UserError that names the extra where its package is missing."""
    try:
        return gym.make(env_id, **kwargs)
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        entry = str(gym.spec(env_id).entry_point)
        extra = next((extra for package, extra in EXTRAS.items() if package in entry), None)
        hint = f"pip install -e '.[{extra}]'" if extra else str(error)
        raise UserError(f"{env_id} needs a package that is not installed: {hint}") from None
    except (gym.error.Error, TypeError) as error:
        raise UserError(f"{env_id} cannot be made: {error}") from None
