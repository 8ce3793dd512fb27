"""Draw a summary: learning curves, performance and sample-efficiency profiles, score against time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from zoo.bench import escape
from zoo.bench.store import Finished
from zoo.bench.summary import Contender, Summary, normalize
from zoo.statistics import Estimate, estimate, iqm
from zoo.storage.files import Folder

STYLES = {"zoo": "-", "sb3": "--"}


def draw(summary: Summary, folder: Folder) -> None:
    """Write all figures as PNG and SVG."""
    for env in summary.envs:
        with _figure(folder, re.sub(r"[^\w.-]", "-", f"curve-{env}")) as axes:
            _curves(summary, env, axes)
    with _figure(folder, "performance-profile") as axes:
        _performance(summary, axes)
    with _figure(folder, "sample-efficiency") as axes:
        _efficiency(summary, axes)
    with _figure(folder, "score-against-time") as axes:
        _times(summary, axes)


def pyplot() -> Any:
    """Import matplotlib's pyplot, set up to draw into files with default settings, whatever a matplotlibrc says."""
    import matplotlib as mpl

    mpl.rcdefaults()
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "zoo"  # the same data, the same file
    import matplotlib.pyplot as plt

    return plt


@contextmanager
def _figure(folder: Folder, name: str) -> Iterator[Any]:
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7.6, 4), layout="constrained")
    yield axes
    if not np.isfinite(axes.dataLim.minposx):  # nothing that a logarithmic axis could show
        axes.set_xscale("linear")
        axes.text(0.5, 0.5, "no results", ha="center", transform=axes.transAxes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize="small", loc="outside right upper")
    save(figure, folder, f"{name}.png", dpi=150)
    save(figure, folder, f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def save(figure: Any, folder: Folder, name: str, **how: Any) -> None:
    """Write a figure in the format of the name's ending."""
    with folder.write(name) as file:
        figure.savefig(file, format=name.rpartition(".")[2], **how)


def plot_curve(axes: Any, done: list[Finished], style: str, **look: Any) -> None:
    """Draw a learning curve: the interquartile mean over seeds at each check, with a band of its 95% interval."""
    points = min((len(each.curve) for each in done), default=0)
    if not points:
        return
    x = np.mean([[step for step, _ in each.curve[:points]] for each in done], axis=0)
    values = np.array([[value for _, value in each.curve[:points]] for each in done])
    bands = [estimate(column) for column in values.T]
    (line,) = axes.plot(x, [band.value for band in bands], style, **look)
    low, high = [band.low for band in bands], [band.high for band in bands]
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15)


def _look(summary: Summary, row: Contender) -> dict[str, Any]:
    """Return label and colour of a row; a twin has the colour of its entry."""
    import matplotlib as mpl

    names = list(dict.fromkeys(each.name for each in _learners(summary)))
    return {"label": escape.figure(row.label), "color": mpl.colormaps["tab10"](names.index(row.name) % 10)}


def _learners(summary: Summary) -> list[Contender]:
    return [row for row in summary.contenders if row.side != "random"]


def _done(summary: Summary, row: Contender, env: str) -> list[Finished]:
    trials = [trial for trial in summary.trials if (trial.job.row, trial.job.env) == (row.id, env)]
    return [trial.finished for trial in trials if trial.finished]


def _curves(summary: Summary, env: str, axes: Any) -> None:
    for row in _learners(summary):
        plot_curve(axes, _done(summary, row, env), STYLES[row.side], **_look(summary, row))
    title = f"{escape.figure(env)}: IQM over seeds with 95% intervals"
    axes.set(xlabel="steps", ylabel="return", title=title, xscale="log")


def _normalized(summary: Summary, row: Contender) -> list[float]:
    found = [(env, each.end) for env in summary.envs for each in _done(summary, row, env)]
    scores = (normalize(env, Estimate(end, end, end)) for env, end in found)
    return [score.value for score in scores if score is not None]


def _performance(summary: Summary, axes: Any) -> None:
    thresholds = np.linspace(0, 1.1, 111)
    for row in _learners(summary):
        scores = np.array(_normalized(summary, row))
        if scores.size:
            share = [(scores >= threshold).mean() for threshold in thresholds]
            axes.plot(thresholds, share, STYLES[row.side], **_look(summary, row))
    axes.set(xlabel="normalised score τ", ylabel="share of runs above τ", title="Performance profile, all environments")


def _tenths(env: str, done: Finished) -> Any:
    """Return the normalised scores of a run after each tenth of its budget, (10,); None if they are unknown."""
    scores = (normalize(env, Estimate(value, value, value)) for _, value in done.curve)
    curve = [score.value for score in scores if score is not None]
    return np.interp(np.linspace(0, 1, 10), np.linspace(0, 1, len(curve)), curve) if curve else None


def _efficiency(summary: Summary, axes: Any) -> None:
    for row in _learners(summary):
        curves = [_tenths(env, each) for env in summary.envs for each in _done(summary, row, env)]
        values = [curve for curve in curves if curve is not None]
        if values:
            y = [iqm(column) for column in np.array(values).T]
            axes.plot(np.linspace(10, 100, 10), y, STYLES[row.side], **_look(summary, row))
    label = "normalised score (IQM over runs)"
    axes.set(xlabel="% of the budget", ylabel=label, title="Sample efficiency", ylim=(-0.1, None))


def _times(summary: Summary, axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    markers = dict(zip(summary.envs, "osD^vP*X<>", strict=False))
    for row in _learners(summary):
        look = _look(summary, row)
        label, color = look["label"], look["color"]
        dot = {"facecolors": color if row.side == "zoo" else "none", "edgecolors": [color]}
        axes.scatter([], [], marker=".", s=120, label=label, **dot)
        for env, marker in markers.items():
            standing = row.standings[env]
            if standing.seconds and standing.normalized:
                axes.scatter(standing.seconds, standing.normalized.value, marker=marker, **dot)
    for env, marker in markers.items():
        axes.scatter([], [], marker=marker, color="grey", label=escape.figure(env))
    axes.set(xlabel="training time, s", ylabel="normalised score", xscale="log", title="Score against time, one thread")
    axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
