"""Pictures of a summary: learning curves, performance and sample-efficiency profiles, score against time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from zoo.bench import escape
from zoo.bench.summary import normalize
from zoo.statistics import Estimate, estimate, iqm
from zoo.storage.files import Folder

Data = dict[str, Any]
STYLES = {"zoo": "-", "sb3": "--"}


def draw(summary: Data, folder: Folder) -> None:
    """Write them all as PNG and SVG."""
    import matplotlib as mpl

    mpl.rcdefaults()  # whatever a matplotlibrc in the working directory says
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "zoo"  # the same data, the same file
    for env in summary["envs"]:
        with _figure(folder, re.sub(r"[^\w.-]", "-", f"curve-{env}")) as axes:
            _curves(summary, env, axes)
    with _figure(folder, "performance-profile") as axes:
        _performance(summary, axes)
    with _figure(folder, "sample-efficiency") as axes:
        _efficiency(summary, axes)
    with _figure(folder, "score-against-time") as axes:
        _times(summary, axes)


@contextmanager
def _figure(folder: Folder, name: str) -> Iterator[Any]:
    import matplotlib.pyplot as plt

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
    """Write a figure in the format that its name ends in."""
    with folder.write(name) as file:
        figure.savefig(file, format=name.rpartition(".")[2], **how)


def _color(summary: Data, row: Data) -> Any:
    import matplotlib as mpl

    names = list(dict.fromkeys(each["name"] for each in summary["rows"] if each["side"] != "random"))
    return mpl.colormaps["tab10"](names.index(row["name"]) % 10)


def _runs(summary: Data, row: Data, env: str) -> list[Data]:
    return [run for run in summary["runs"] if (run["id"], run["env"]) == (row["id"], env) and run["status"] == "done"]


def _learners(summary: Data) -> list[Data]:
    return [row for row in summary["rows"] if row["side"] != "random"]


def _curves(summary: Data, env: str, axes: Any) -> None:
    for row in _learners(summary):
        runs = _runs(summary, row, env)
        points = min((len(run["curve"]) for run in runs), default=0)
        if not points:
            continue
        steps = [run["curve"][:points] for run in runs]
        x = np.mean([[step for step, _ in curve] for curve in steps], axis=0)
        values = np.array([[value for _, value in curve] for curve in steps])
        bands = [estimate(column) for column in values.T]
        color = _color(summary, row)
        axes.plot(
            x, [band.value for band in bands], STYLES[row["side"]], color=color, label=escape.figure(row["label"])
        )
        axes.fill_between(x, [band.low for band in bands], [band.high for band in bands], color=color, alpha=0.15)
    axes.set(
        xlabel="steps", ylabel="return", title=f"{escape.figure(env)}: IQM over seeds with 95% intervals", xscale="log"
    )


def _normalized(summary: Data, row: Data) -> list[float]:
    found = [(run["env"], run["end"]) for env in summary["envs"] for run in _runs(summary, row, env)]
    scores = (normalize(env, Estimate(end, end, end)) for env, end in found)
    return [score.value for score in scores if score is not None]


def _performance(summary: Data, axes: Any) -> None:
    thresholds = np.linspace(0, 1.1, 111)
    for row in _learners(summary):
        scores = np.array(_normalized(summary, row))
        if scores.size:
            share = [(scores >= threshold).mean() for threshold in thresholds]
            axes.plot(
                thresholds, share, STYLES[row["side"]], color=_color(summary, row), label=escape.figure(row["label"])
            )
    axes.set(xlabel="normalised score τ", ylabel="share of runs above τ", title="Performance profile, all environments")


def _tenths(env: str, run: Data) -> Any:
    """The normalised scores of a run after each tenth of its budget, (10,); none where nothing is known of `env`."""
    scores = (normalize(env, Estimate(value, value, value)) for _, value in run["curve"])
    curve = [score.value for score in scores if score is not None]
    return np.interp(np.linspace(0, 1, 10), np.linspace(0, 1, len(curve)), curve) if curve else None


def _efficiency(summary: Data, axes: Any) -> None:
    for row in _learners(summary):
        curves = [_tenths(env, run) for env in summary["envs"] for run in _runs(summary, row, env)]
        values = [curve for curve in curves if curve is not None]
        if values:
            y = [iqm(column) for column in np.array(values).T]
            axes.plot(
                np.linspace(10, 100, 10),
                y,
                STYLES[row["side"]],
                color=_color(summary, row),
                label=escape.figure(row["label"]),
            )
    axes.set(
        xlabel="% of the budget",
        ylabel="normalised score (IQM over runs)",
        title="Sample efficiency",
        ylim=(-0.1, None),
    )


def _times(summary: Data, axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    markers = dict(zip(summary["envs"], "osD^vP*X<>", strict=False))
    for row in _learners(summary):
        color = _color(summary, row)
        look = {"facecolors": color if row["side"] == "zoo" else "none", "edgecolors": [color]}
        axes.scatter([], [], marker=".", s=120, label=escape.figure(row["label"]), **look)
        for env, marker in markers.items():
            x, y = row["cells"][env]["seconds"], row["cells"][env]["normalized"]
            if x and y is not None:
                axes.scatter(x, y, marker=marker, **look)
    for env, marker in markers.items():
        axes.scatter([], [], marker=marker, color="grey", label=escape.figure(env))
    axes.set(xlabel="training time, s", ylabel="normalised score", xscale="log", title="Score against time, one thread")
    axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
