"""What a run is told, resolved once: an algorithm's Config and the run's own settings, and where each came from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from zoo import registry
from zoo.config import Field, Plain, build, config, field_info
from zoo.errors import UserError, nearest

Vec = Literal["auto", "sync", "async", "native", "envpool"]
Precision = Literal["float32", "bfloat16"]
Engine = Literal["inline", "processes", "ray"]
Compile = Literal["auto", "on", "off"]
Kernels = Literal["auto", "torch"]

# Ids that are the same stepped as arrays, bit for bit (zoo.envs.dynamics).
NATIVE = {"Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"}
# Environments from which on arrays are faster, measured with 1 to 64 of each id (docs/performance.md): they are level
# with 2 to 6, with 10 of the cheapest, MountainCarContinuous.
MANY = 8
ATARI = {"atari": True, "frame_stack": 4, "clip_reward": True}  # of ale_py's games: Mnih et al. 2015, Methods


@config
class Run:
    """The settings of a run, whatever the algorithm."""

    total_steps: int = Field(100_000, ge=1, description="environment steps to train for, all environments together")
    num_envs: int = Field(1, ge=1, le=2**16, description="environments stepped together")
    seed: int | None = Field(None, ge=0, description="seed of everything; none draws one and records it")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N")
    threads: int = Field(1, ge=1, le=256, description="torch's threads; small networks are fastest with one")
    precision: Precision = Field("float32", description="of matrix products; bfloat16 is faster on CPUs with AMX")
    compile: Compile = Field("auto", description="compile updates: auto does where a run makes thousands of them")
    kernels: Kernels = Field("auto", description="matrix products of compiled updates: the zoo's own, or torch's alone")
    engine: Engine = Field("inline", description="where actors run: in this process, in processes, or on Ray")
    actors: int = Field(1, ge=1, le=2**10, description="actor processes, each with num_envs environments")
    lag: int = Field(0, ge=0, description="inline engine: updates between refreshes of the policy that acts")
    ray_address: str | None = Field(None, description="an existing Ray cluster; none starts a local one")
    vec: Vec = Field("auto", description="who steps environments: this process, processes of their own, native code")
    env_kwargs: Plain = Field({}, description='arguments of the environment, as JSON: {"g": 9.0}')
    wrap: tuple[str, ...] = Field((), description="wrappers, innermost first: module:Wrapper or file.py:Wrapper")
    atari: bool = Field(False, description="every 4th frame, 84x84 and grey, after 30 no-ops at most; for ale_py's ids")
    frame_stack: int = Field(1, ge=1, le=64, description="observations shown together, the newest last; 4 with --atari")
    action_masks: bool = Field(False, description="take only actions that the environment's info['action_mask'] allows")
    normalize_obs: bool = Field(False, description="whiten observations by running statistics")
    normalize_reward: bool = Field(False, description="scale rewards by the running deviation of the return")
    clip_reward: bool = Field(False, description="learn from the signs of rewards, report themselves; on with --atari")
    scale_actions: bool = Field(True, description="map [-1, 1] onto the bounds of Box actions, rather than only clip")
    eval_every: int | None = Field(
        None, ge=0, description="steps between checks for the best agent; none is 10%, 0 never"
    )
    validation_episodes: int = Field(10, ge=1, le=10**6, description="episodes of each of these evaluations")
    eval_episodes: int = Field(100, ge=0, le=10**6, description="episodes of the evaluation at the end")
    stop_at: float | None = Field(None, description="end the run once a check on the way has this return")
    log_every: int | None = Field(None, ge=1, description="steps between rows of metrics; none is 1% of the run")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run. `sources` says for each setting: default, registry or command line."""

    algorithm: str
    env: str
    run: Run
    config: Any
    sources: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "algorithm": self.algorithm,
            "env": self.env,
            "run": registry.to_json(self.run),
            "config": registry.to_json(self.config),
            "sources": self.sources,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], owner: str) -> "Settings":
        """Return the Settings that `to_json` described. Raises UserError, which names `owner`, where they are none."""
        for key in ("run", "config", "sources"):
            if not isinstance(data.get(key), dict):
                raise UserError(f"{owner} has no settings: {key} is missing")
        return cls(
            algorithm=data["algorithm"],
            env=data["env"],
            run=build(Run, data["run"], owner),
            config=build(registry.load_class(data["algorithm"]).Config, data["config"], owner),
            sources={str(name): str(source) for name, source in data["sources"].items()},
        )


def resolve(
    algorithm: str,
    env: str,
    overrides: Mapping[str, Any],
    *,
    source: str = "command line",
    preset: str | None = None,
    use_tuned: bool = True,
) -> Settings:
    """Defaults, those of Atari games, the preset, registry.yaml's settings for `env`, `overrides`; later ones win.

    A UserError names what is unknown or invalid.
    """
    cls, entry = registry.load_class(algorithm), registry.get(algorithm)
    known_run, known_config = field_info(Run), field_info(cls.Config)
    _check_names(algorithm, overrides, [*known_config, *known_run])
    if preset is not None and preset not in entry.presets:
        raise UserError(f"{algorithm} has no preset {preset!r}; it has: {', '.join(entry.presets) or 'none'}")
    as_atari = bool(env) and use_tuned and overrides.get("atari", True) is not False and _is_atari(env)
    layers = {
        "Atari": ATARI if as_atari else {},
        f"preset {preset}": entry.presets[preset] if preset else {},
        "registry": entry.envs.get(env, {}) if use_tuned else {},
        source: overrides,
    }
    merged: dict[str, Any] = {}
    sources = dict.fromkeys((*known_run, *known_config), "default")
    for label, layer in layers.items():
        merged |= layer
        sources |= dict.fromkeys(layer, label)
    owner = f"{algorithm} on {env}" if env else algorithm
    run: Run = build(Run, {name: value for name, value in merged.items() if name in known_run}, owner)
    return Settings(
        algorithm=algorithm,
        env=env,
        run=replace(run, vec=_choose_vec(env, run)),
        config=build(cls.Config, {name: value for name, value in merged.items() if name in known_config}, owner),
        sources=sources,
    )


def _is_atari(env: str) -> bool:
    from zoo.spec import is_atari  # which needs gymnasium; to list settings needs none

    return is_atari(env)


def _choose_vec(env_id: str, run: Run) -> Vec:
    """Return what auto stands for: native where that is known to be the same and pays, sync everywhere else."""
    if run.vec != "auto" or not env_id:
        return run.vec
    is_plain = not run.env_kwargs and not run.wrap and run.frame_stack == 1 and not (run.action_masks or run.atari)
    return "native" if env_id in NATIVE and run.num_envs >= MANY and is_plain else "sync"


def _check_names(algorithm: str, overrides: Mapping[str, Any], known: list[str]) -> None:
    """A UserError for the first setting that nobody has, in the registry or in `overrides`."""
    entry = registry.get(algorithm)
    for where, settings in (*entry.envs.items(), *entry.presets.items()):
        for name in settings:
            if name not in known:
                raise UserError(f"registry: {algorithm} on {where} has no setting {name!r}{nearest(name, known)}")
    for name in overrides:
        if name not in known:
            raise UserError(f"{algorithm} has no setting {name!r}{nearest(name, known)}")
