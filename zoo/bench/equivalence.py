"""Rung 3 of the cross-check: compare the learning curves of entries and of their twins.

Both sides train with the same settings, environments and budgets, over several seeds. They are equivalent if the 90%
interval of the difference of their interquartile means lies within a margin that is stated here, before anything is
trained: 5% of the range from a random policy to a solved environment for the return at the end, and 10% of it for the
area under the curve (two one-sided tests at 5%, Schuirmann 1987).
"""

from dataclasses import dataclass, replace

import numpy as np

from zoo.bench import escape, figures
from zoo.bench.plan import Job, Plan, plan, presets
from zoo.bench.store import Finished, Trial
from zoo.bench.tables import markdown_table
from zoo.errors import UserError
from zoo.spec import Array
from zoo.statistics import Estimate, estimate, iqm_difference
from zoo.storage.files import Folder

PRESET = "twins"
# Mean returns of a uniformly random policy and of a solved environment, rounded: margins must not move with the
# measured constants of references.yaml.
RANGES = {"CartPole-v1": (22.0, 500.0), "Pendulum-v1": (-1230.0, -150.0)}
MARGINS = {"end": 0.05, "area": 0.10}
INTRODUCTION = """\
Written by `zoo crosscheck --rung 3`. Interquartile means over seeds with 95% bootstrap intervals, of the mean return of
100 episodes at the end and of the area under the curve; their difference with its 90% interval, which must lie within
the margin.
"""


@dataclass(frozen=True)
class Comparison:
    """The finished runs of an entry and of its twin on an environment, of `seeds` planned on each side."""

    algorithm: str
    env: str
    steps: int
    seeds: int
    zoo: list[Finished]
    sb3: list[Finished]

    @property
    def name(self) -> str:
        """Its name in files."""
        return f"{self.algorithm}-{self.env}"


@dataclass(frozen=True)
class Verdict:
    """The two sides of a comparison by one measure."""

    comparison: Comparison
    measure: str
    zoo: Estimate
    sb3: Estimate
    difference: Estimate
    margin: float

    @property
    def equivalent(self) -> bool:
        """Whether the interval of the difference lies within the margin."""
        return -self.margin < self.difference.low and self.difference.high < self.margin


def twins(names: list[str], seeds: int | None) -> Plan:
    """Plan the sweep for these entries, or for all of the preset. Raises UserError if it does not train one of them."""
    known = presets()[PRESET].algorithms
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"no curves to compare for {', '.join(unknown)}; there are some for: {', '.join(known)}")
    sweep = plan(PRESET, algorithms=names, envs=[], seeds=seeds, against="sb3")
    jobs = [job for job in sweep.jobs if job.algorithm]  # nothing is compared with the random policy
    return replace(sweep, rows=[row for row in sweep.rows if row[1]], jobs=jobs)


def compare(sweep: Plan, trials: dict[str, Trial]) -> list[Comparison]:
    """Put entries beside their twins, for each environment; `trials` are by the key of the job."""
    names = dict.fromkeys(name for _, name in sweep.rows)
    pairs = [(name, env) for name in names for env in sweep.envs if (name, env) not in sweep.unsupported]
    return [_comparison([job for job in sweep.jobs if (job.algorithm, job.env) == pair], trials) for pair in pairs]


def _comparison(jobs: list[Job], trials: dict[str, Trial]) -> Comparison:
    done: dict[str, list[Finished]] = {"zoo": [], "sb3": []}
    for job in jobs:
        if job.key in trials and (finished := trials[job.key].finished):
            done[job.side].append(finished)
    seeds = len({job.seed for job in jobs})
    return Comparison(jobs[0].algorithm, jobs[0].env, jobs[0].total_steps, seeds, **done)


def judge(comparison: Comparison) -> list[Verdict]:
    """Compare the return at the end and the area under the curve; nothing while a run is missing."""
    if min(len(comparison.zoo), len(comparison.sb3)) < comparison.seeds:
        return []
    low, high = RANGES[comparison.env]
    verdicts = []
    for measure, share in MARGINS.items():
        ours, theirs = (_values(done, measure) for done in (comparison.zoo, comparison.sb3))
        difference = estimate(ours, theirs, statistic=iqm_difference, confidence=0.90)
        margin = share * (high - low)
        verdicts.append(Verdict(comparison, measure, estimate(ours), estimate(theirs), difference, margin))
    return verdicts


def _values(done: list[Finished], measure: str) -> Array:
    """Return a measure of each run, (seeds,); the area under a curve is the mean of its checks."""
    return np.array([each.end if measure == "end" else np.mean([value for _, value in each.curve]) for each in done])


def cells(verdict: Verdict) -> list[str]:
    """Format a row of the table: entry, environment, measure, both sides and their difference."""
    numbers = [str(verdict.zoo), str(verdict.sb3), str(verdict.difference), f"±{verdict.margin:.0f}"]
    return [verdict.comparison.algorithm, verdict.comparison.env, verdict.measure, *numbers]


def markdown(verdicts: list[Verdict]) -> str:
    """Format the page: the table, and the figure of each pair."""
    header = ["entry", "environment", "steps", "seeds", "measure", "zoo", "SB3", "difference", "margin", "equivalent"]
    rows = []
    for verdict in verdicts:
        name, env, *rest = cells(verdict)
        run = [name, env, f"{verdict.comparison.steps:,}", str(verdict.comparison.seeds)]
        rows.append([*run, *rest, "yes" if verdict.equivalent else "**no**"])
    names = dict.fromkeys(verdict.comparison.name for verdict in verdicts)
    pictures = "\n".join(f"![Learning curves of {name}]({name}.svg)" for name in names)
    table = markdown_table(header, rows)
    return f"# Learning curves of both libraries\n\n{INTRODUCTION}\n{table}\n\n{pictures}\n"


def draw(comparison: Comparison, folder: Folder) -> None:
    """Draw the learning curves of both sides into NAME.svg."""
    plt = figures.pyplot()
    figure, axes = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    figures.plot_curve(axes, comparison.zoo, ".-", label="zoo")
    figures.plot_curve(axes, comparison.sb3, ".--", label="Stable-Baselines3")
    title = f"{comparison.algorithm} on {comparison.env}, {comparison.seeds} seeds"
    axes.set(xlabel="steps", ylabel="return", title=escape.figure(title))
    if comparison.zoo or comparison.sb3:
        axes.legend()
    figures.save(figure, folder, f"{comparison.name}.svg", metadata={"Date": None})
    plt.close(figure)
