"""The HTML report of a sweep: what is in it, and what it does in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from zoo.bench.plan import presets
from zoo.bench.report import report

HOSTILE = "</script><script>throw new Error('closed')</script><!-- \"q\" 'q' & π \u2028 {{summary}}"
CARTPOLE, PENDULUM = "CartPole-v1", "Pendulum-v1"
SCORES = ("iqm", "low", "high", "normalized", "normalized_low", "normalized_high")
COSTS = ("steps_per_second", "seconds", "parameters", "memory")


def cell(status: str, reason: str | None = None, failed_seeds: int = 0, **numbers: float) -> dict[str, Any]:
    """A result on an environment; what is not given is null."""
    rest = {"status": status, "reason": reason, "seeds": 4 if numbers else 0, "failed_seeds": failed_seeds}
    return {**dict.fromkeys(SCORES + COSTS), **rest, "without": [], **numbers}


def done(iqm: float, failed_seeds: int = 0, **numbers: float) -> dict[str, Any]:
    """A finished result whose interval is ±5."""
    score = {"normalized": iqm / 100, "normalized_low": iqm / 100 - 0.05, "normalized_high": iqm / 100 + 0.05}
    return cell("done", None, failed_seeds, iqm=iqm, low=iqm - 5, high=iqm + 5, **score, **numbers)


def row(side: str, name: str, path: str | None, *cells: dict[str, Any]) -> dict[str, Any]:
    """A row of the table; cells belong to CartPole and Pendulum."""
    axes = dict(zip(("strategy", "data", "target"), path.split("/") if path else (None,) * 3, strict=True))
    named = {"id": f"{side}/{name}" if path else side, "side": side, "name": name, "title": f"the {name}", "cell": path}
    return {**named, **axes, "cells": dict(zip((CARTPOLE, PENDULUM), cells, strict=True))}


def run(row: str, env: str, seed: int, values: list[float | None], error: str | None = None) -> dict[str, Any]:
    """A run with a checkpoint every 100 steps."""
    return {
        "id": row,
        "env": env,
        "seed": seed,
        "status": "failed" if error else "done",
        "error": error,
        "end": None if error else values[-1],
        "curve": [[100 * (i + 1), value] for i, value in enumerate(values)],
        "seconds": 20.0,
        "command": f"zoo run {row.split('/')[-1]} --env {env} --seed {seed}",
        "settings": {"run": {"seed": seed, "ray_address": None}, "config": {"hidden": [64, 64], "note": HOSTILE}},
        "versions": {"torch": "2.11"},
        "machine": {"cores": 2},
        "commit": None,
    }


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """Two entries, a twin and the random policy on two environments; something of everything that can happen."""
    speed = {"steps_per_second": 5000.0, "seconds": 120.0, "parameters": 9000, "memory": 400_000_000}
    ends = {"zoo/ppo": (0.0, 10.0, 20.0, 100.0), "sb3/ppo": (40.0, 50.0, 60.0, 70.0), "zoo/dqn": (1.0, 2.0, 3.0, 4.0)}
    runs = [run(name, CARTPOLE, seed, [0.0, end]) for name, each in ends.items() for seed, end in enumerate(each)]
    return {
        "title": f"zoo bench {HOSTILE}",
        "command": "zoo bench --preset quick",
        "commit": None,
        "created": "2026-01-31T12:00:00",
        "machine": {"system": "Linux", "processor": "x86", "cores": 2},
        "versions": {"python": "3.11.7"},
        "envs": [CARTPOLE, PENDULUM],
        "references": {CARTPOLE: {"random": 0.0, "best": 100.0, "source": "a <b>table</b>"}},
        "rows": [
            row("random", "random", None, done(0.0), cell("missing")),
            row("zoo", "ppo", "policy/on/v", done(15.0, **speed), done(90.0, failed_seeds=1)),
            row(
                "sb3",
                "ppo",
                "policy/on/v",
                done(55.0) | {"without": ["double"]},
                cell("failed", HOSTILE, failed_seeds=3),
            ),
            row("zoo", "dqn", "value/off/q", done(2.5), cell("unsupported", "needs Discrete actions")),
        ],
        "runs": [
            *runs,
            run("zoo/ppo", PENDULUM, 0, [5.0, None, 90.0]),
            run("zoo/ppo", PENDULUM, 1, [5.0], error=f"RuntimeError: {HOSTILE}"),
        ],
    }


class Elements(HTMLParser):
    """Addresses that a page refers to, and the text of its data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str | None] = []
        self.data = ""
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.inside = ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        self.data += data if self.inside else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def test_summary_is_recovered_unharmed(summary: dict[str, Any]) -> None:
    assert json.loads(Elements(report(summary)).data) == summary


def test_page_refers_to_nothing_outside(summary: dict[str, Any]) -> None:
    page = report(summary)
    assert Elements(page).addresses == ["data:,"]
    assert set(re.findall(r"\w+://[\w./]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|import\(|XMLHttpRequest|WebSocket", page)


def test_numbers_that_are_not_json_are_refused(summary: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        report({**summary, "title": float("nan")})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium, for all tests of this file."""
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and ChromeDriver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    switches = "headless no-sandbox disable-gpu disable-quic disable-dev-shm-usage no-first-run disable-sync"
    for switch in [*switches.split(), "disable-background-networking", "disable-component-update"]:
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome:
        yield chrome


class Page:
    """A report in a browser."""

    def __init__(self, browser: webdriver.Chrome, file: Path) -> None:
        self.browser = browser
        self.resize(1366, 900)
        browser.get(file.as_uri())

    def resize(self, width: int, height: int) -> None:
        """Show it on a screen of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def find(self, selector: str) -> WebElement:
        """The first element that fits."""
        return self.browser.find_element("css selector", selector)

    def each(self, selector: str, value: str) -> list[str]:
        """A property of every element that fits, for example dataset.id."""
        script = f"return [...document.querySelectorAll(arguments[0])].map((element) => element.{value})"
        return list(self.browser.execute_script(script, selector))

    def rows(self) -> list[str]:
        """The table's rows, from the top."""
        return self.each("#results tbody tr", "dataset.id")

    def lines(self, env: str) -> list[str]:
        """The rows that a chart draws."""
        return self.each(f"figure[data-env='{env}'] .line", "dataset.id")

    def cell(self, row: str, column: int) -> str:
        """The text of a cell: columns 5 and 6 are CartPole and Pendulum."""
        return self.each(f"#results tr[data-id='{row}'] > *", "innerText")[column]

    def header(self, name: str) -> WebElement:
        """The button that sorts by a column."""
        return self.browser.find_element("xpath", f"//thead//button[.='{name}']")

    def choose(self, control: str, option: str) -> None:
        """Pick an option of a selector."""
        self.find(f"select[name={control}] option[value='{option}']").click()


def opened(browser: webdriver.Chrome, folder: Path, summary: dict[str, Any]) -> Page:
    """The report, just opened; nothing from before is in the log."""
    browser.get_log("browser")
    file = folder / "report.html"
    file.write_text(report(summary), encoding="utf-8")
    return Page(browser, file)


@pytest.fixture
def page(browser: webdriver.Chrome, tmp_path: Path, summary: dict[str, Any]) -> Iterator[Page]:
    """The report, just opened; whatever a test does to it, the console stays empty."""
    yield opened(browser, tmp_path, summary)
    assert browser.get_log("browser") == []


def test_console_would_show_an_error(browser: webdriver.Chrome, tmp_path: Path, summary: dict[str, Any]) -> None:
    opened(browser, tmp_path, {**summary, "rows": None})
    assert any("TypeError" in entry["message"] for entry in browser.get_log("browser"))


def test_strings_are_shown_as_they_are(page: Page, summary: dict[str, Any]) -> None:
    assert page.each("h1", "textContent") == [summary["title"]]
    assert page.browser.title.startswith("zoo bench </script>")
    assert "a <b>table</b>" in page.find("figcaption").text
    assert "python 3.11.7" in page.find("#facts").text
    assert "commit" not in page.find("#facts").text
    assert page.browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_table_is_accessible(page: Page) -> None:
    assert page.find("caption").text
    assert set(page.each("#results th", "scope")) == {"col", "row"}
    assert all(text.strip() for text in page.each("button", "textContent"))


def test_cells_say_what_became_of_them(page: Page) -> None:
    assert page.cell("zoo/ppo", 5).strip() == "15 [10, 20]"
    assert page.cell("zoo/ppo", 6).split("\n") == ["90 [85, 95]", "1 seed failed"]
    assert page.cell("sb3/ppo", 5).split("\n") == ["55 [50, 60]", "without double"]
    assert page.cell("random", 6) == "not run"
    assert page.cell("zoo/dqn", 6) == "needs Discrete actions"
    assert page.cell("sb3/ppo", 6).startswith("3 seeds failed: </script>")


def test_header_sorts_both_ways_and_back(page: Page) -> None:
    given = ["random", "zoo/ppo", "sb3/ppo", "zoo/dqn"]
    best = ["sb3/ppo", "zoo/ppo", "zoo/dqn", "random"]
    assert page.rows() == given
    for expected, order in [(best, "descending"), (best[::-1], "ascending"), (given, None)]:
        page.header(CARTPOLE).click()
        assert page.rows() == expected
        assert page.each("th[aria-sort]", "ariaSort") == ([order] if order else [])


def test_missing_values_come_last_both_ways(page: Page) -> None:
    for _ in range(2):
        page.header(PENDULUM).click()
        assert page.rows()[0] == "zoo/ppo"
    for name, first in [("target", "zoo/dqn"), ("target", "zoo/ppo")]:
        page.header(name).click()
        assert page.rows()[0] == first
        assert page.rows()[-1] == "random"


def test_enter_sorts_and_keeps_the_focus(page: Page) -> None:
    page.header("entry").send_keys(Keys.ENTER)
    assert page.rows() == ["zoo/dqn", "zoo/ppo", "sb3/ppo", "random"]
    page.browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.rows()[0] == "random"


@pytest.mark.parametrize(
    ("control", "option", "rows"),
    [
        ("strategy", "value", ["zoo/dqn"]),
        ("data", "on", ["zoo/ppo", "sb3/ppo"]),
        ("target", "q", ["zoo/dqn"]),
        ("side", "zoo", ["zoo/ppo", "zoo/dqn"]),
    ],
)
def test_filters_apply_to_rows_curves_and_runs(page: Page, control: str, option: str, rows: list[str]) -> None:
    everything = page.lines(CARTPOLE)
    page.choose(control, option)
    assert page.rows() == rows
    assert page.lines(CARTPOLE) == page.each("#legend button", "dataset.id") == rows
    assert set(page.each("#runs details:not([hidden])", "dataset.id")) == set(rows)
    assert page.find("#count").text.startswith(f"{len(rows)} of 4 entries shown")
    page.find("#restart").click()
    assert page.lines(CARTPOLE) == everything == ["zoo/ppo", "sb3/ppo", "zoo/dqn"]
    assert len(page.rows()) == 4


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("normalized", "0.15 [0.1, 0.2]"),
        ("speed", "5,000"),
        ("time", "2 min"),
        ("parameters", "9,000"),
        ("memory", "400 MB"),
    ],
)
def test_metric_changes_the_cells(page: Page, metric: str, text: str) -> None:
    before = page.find("caption").text
    page.choose("metric", metric)
    assert page.cell("zoo/ppo", 5).strip() == text
    assert page.cell("zoo/dqn", 6) == "needs Discrete actions"
    assert page.find("caption").text != before


def test_legend_toggles_a_line(page: Page) -> None:
    button = page.find("#legend [data-id='sb3/ppo']")
    for pressed, lines in [("false", ["zoo/ppo", "zoo/dqn"]), ("true", ["zoo/ppo", "sb3/ppo", "zoo/dqn"])]:
        button.click()
        assert button.get_attribute("aria-pressed") == pressed
        assert page.lines(CARTPOLE) == lines
    button.click()
    page.find("#restart").click()
    assert page.lines(CARTPOLE) == ["zoo/ppo", "sb3/ppo", "zoo/dqn"]


def test_chart_shows_the_values_at_a_checkpoint(page: Page) -> None:
    chart, tip = page.find(f"figure[data-env='{CARTPOLE}'] .chart"), f"figure[data-env='{CARTPOLE}'] .tip"
    chart.send_keys(Keys.ARROW_RIGHT)
    assert page.find(tip).text.startswith("step 100\n")
    chart.send_keys(Keys.ARROW_RIGHT)
    shown = page.find(tip).text.split("\n")
    # Interquartile means; the bands reach from the lowest seed to the highest.
    assert shown == ["step 200", "ppo (sb3) 55 [40, 70]", "ppo 15 [0, 100]", "dqn 2.5 [1, 4]"]
    chart.send_keys(Keys.ESCAPE)
    assert not page.find(tip).is_displayed()
    webdriver.ActionChains(page.browser).move_to_element_with_offset(chart, chart.size["width"] // 3, 0).perform()
    assert page.find(tip).text.split("\n") == shown


def test_chart_leaves_out_failed_runs_and_gaps(page: Page) -> None:
    chart = page.find(f"figure[data-env='{PENDULUM}'] .chart")
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.lines(PENDULUM) == ["zoo/ppo"]
    assert page.find(f"figure[data-env='{PENDULUM}'] .tip").text == "step 300\nppo 90 [90, 90]"


def ticks(page: Page, env: str) -> list[str]:
    """The numbers beside the vertical axis of a chart."""
    return page.each(f"figure[data-env='{env}'] .chart > text[text-anchor='end']", "textContent")[:-1]


def test_one_wild_seed_is_cut_off_and_flattens_nothing(
    browser: webdriver.Chrome, tmp_path: Path, summary: dict[str, Any]
) -> None:
    wild = run("zoo/ppo", CARTPOLE, 4, [0.0, -1e6])
    caption = f"figure[data-env='{CARTPOLE}'] figcaption"
    before = ticks(opened(browser, tmp_path, summary), CARTPOLE)
    assert "cut off" not in Page(browser, tmp_path / "report.html").find(caption).text
    page = opened(browser, tmp_path, {**summary, "runs": [*summary["runs"], wild]})
    assert page.find(caption).text.endswith("; seeds reach from -1,000,000 to 100, cut off")
    # The medians are ppo's 10, sb3's 55 and dqn's 2.5: half as much again is -27.5 to 82.5.
    assert ticks(page, CARTPOLE) == ["0", "50"]
    (overflow,) = page.browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((each) => getComputedStyle(each).overflow)",
        f"figure[data-env='{CARTPOLE}'] .chart > svg:has(.line)",
    )
    assert overflow == "hidden"
    assert before == ["0", "50", "100"]  # of seeds from 0 to 100, whose medians fill more than half
    page.find("#legend [data-id='zoo/ppo']").click()
    assert "cut off" not in page.find(caption).text
    assert "cut off" not in page.find(f"figure[data-env='{PENDULUM}'] figcaption").text


def test_run_is_described_once_it_is_opened(page: Page) -> None:
    assert page.each("#runs .detail", "innerText") == []
    failed = page.browser.find_elements("css selector", "#runs details")[-1]
    wait = WebDriverWait(page.browser, 5)
    failed.find_element("css selector", "summary").click()
    wait.until(lambda _: page.each("#runs .detail", "innerText"))
    (text,) = page.each("#runs .detail", "innerText")
    for part in (
        "zoo run ppo --env Pendulum-v1 --seed 1",
        "RuntimeError: </script>",
        "cores 2",
        "torch 2.11",
        "[64,64]",
    ):
        assert part in text
    button = failed.find_element("css selector", "button.copy")
    button.click()
    wait.until(lambda _: button.text != "Copy")
    assert button.text == "Copied" or page.browser.execute_script("return String(getSelection())").startswith("zoo run")


def test_reopened_run_is_described_once(page: Page) -> None:
    toggle = """
        const [details, done] = [document.querySelector("#runs details"), arguments[0]];
        let left = 3;
        details.addEventListener("toggle", () => --left ? details.open = !details.open : done());
        details.open = true;
    """
    page.browser.execute_async_script(toggle)
    assert len(page.each("#runs .detail", "innerText")) == 1


@pytest.mark.parametrize(("width", "height"), [(360, 640), (390, 844), (1366, 900), (2560, 1440)])
def test_page_never_scrolls_sideways(page: Page, width: int, height: int) -> None:
    page.resize(width, height)
    page.browser.refresh()
    page.browser.execute_script("for (const each of document.querySelectorAll('summary')) each.click()")
    page.find(".chart").send_keys(Keys.ARROW_RIGHT)
    sizes = "[document.documentElement, document.querySelector('.scroll')].map((e) => e.scrollWidth - e.clientWidth)"
    over, table = page.browser.execute_script(f"return {sizes}")
    assert over == 0
    assert table == 0
    page.browser.execute_script("document.querySelector('h1').style.width = '3000px'")
    assert page.browser.execute_script(f"return {sizes}")[0] > 0


def many(summary: dict[str, Any], envs: list[str]) -> dict[str, Any]:
    """The summary with the results on CartPole for each of these environments."""
    rows = [{**each, "cells": dict.fromkeys(envs, each["cells"][CARTPOLE])} for each in summary["rows"]]
    return {**summary, "rows": rows, "runs": [], "envs": envs}


@pytest.mark.parametrize("preset", ["standard", "full"])
def test_all_environments_of_a_preset_are_seen_at_once(
    preset: str, browser: webdriver.Chrome, tmp_path: Path, summary: dict[str, Any]
) -> None:
    envs = list(presets()[preset].envs)
    page = opened(browser, tmp_path, many(summary, envs))
    page.resize(1400, 900)
    places = page.browser.execute_script(
        "return [...document.querySelectorAll('#results thead th')].map((each) => each.getBoundingClientRect().right)"
    )
    assert len(places) == 5 + len(envs)
    assert max(places) < 1400


def test_a_score_is_on_the_first_screen_of_a_telephone(page: Page) -> None:
    page.resize(400, 800)
    page.browser.refresh()
    cell = page.browser.execute_script(
        "return document.querySelector('#results tbody tr td:nth-child(6)').getBoundingClientRect().toJSON()"
    )
    assert 0 < cell["left"] < cell["right"] <= 400
    assert 0 < cell["top"] < cell["bottom"] <= 800


def test_empty_sweep_is_a_page_too(browser: webdriver.Chrome, tmp_path: Path, summary: dict[str, Any]) -> None:
    page = opened(browser, tmp_path, {**summary, "rows": [], "runs": [], "envs": [], "references": {}})
    assert page.find("#count").text == "0 of 0 entries shown, 0 of 0 runs"
    assert browser.get_log("browser") == []
