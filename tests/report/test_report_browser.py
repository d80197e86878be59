"""Reports in a browser: every chart draws, nothing is fetched or goes wrong, all can be used."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
import backtest.report
from backtest.core.number_text import format_percent
from backtest.report.render import write_page
from backtest.report.write import build_page
from backtest.strategies import Constant
from tests.report.conftest import live
from tests.report.layout import list_faults

pytestmark = pytest.mark.slow

TEMPLATES = Path(backtest.report.__file__).with_name("templates")

HOSTILE = "</script><script>document.title='broken'</script>\u202e" + "x" * 10_000


@pytest.fixture(scope="module")
def files(result, sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    manifest = json.loads(json.dumps(result.manifest))
    manifest["policy"] |= {"text": HOSTILE, "name": HOSTILE, "settings": {}}
    manifest["data"]["instrument"] = HOSTILE

    hostile = dataclasses.replace(result, manifest=manifest)
    pages = {"run": build_page(result), "hostile": build_page(hostile), "sweep": build_page(sweep)}
    pages["stress"] = build_page(bt.stress(live(Constant(3.0), days=30), bt.crashes()[:6]))
    pages["ruined"] = build_page(live(Constant(20.0), days=120))
    return {name: write_page(page, folder / f"{name}.html") for name, page in pages.items()}


def open_page(context, file):
    """Open a file and wait for its charts; keep what went wrong and what was asked for."""
    page = context.new_page()
    page.set_default_timeout(300_000)  # a machine under load draws late, which is no fault here
    page.trouble = []
    page.requests = []

    page.on("console", lambda message: page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))

    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate("document.documentElement.dataset.ready") == "yes"

    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for box in page.query_selector_all("[data-chart]"):
        box.scroll_into_view_if_needed()
        page.wait_for_function("box => box.layout", arg=box)
    return page


@pytest.fixture
def visit(browser, files):
    contexts = []

    def visit(name, width=1280, **settings):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **settings))
        return open_page(contexts[-1], files[name])

    yield visit

    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def page(browser, files):
    """Return the report of the run, on light paper; tests share it and leave no search behind."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield open_page(context, files["run"])
    context.close()


@pytest.mark.parametrize(("name", "width", "charts"), [
    ("run", 1440, 2),
    ("hostile", 390, 2),
    ("sweep", 390, 0),
])  # fmt: skip
def test_every_chart_draws_in_silence_and_without_a_request(visit, files, name, width, charts):
    page = visit(name, width)
    assert page.trouble == []
    assert page.requests == [files[name].as_uri()]

    counts = page.evaluate(
        "[...document.querySelectorAll('[data-chart]')].map(box =>"
        " box.querySelectorAll('.main-svg .trace, .main-svg .hm, .main-svg .point').length)"
    )
    assert len(counts) >= charts
    assert min(counts, default=1) > 0

    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.title() != "broken"
    assert "\u202e" not in page.content()

    has_library = 2 * bool(charts)  # packed, and unpacked; an explorer needs none
    assert page.evaluate("document.scripts.length") == 2 + has_library  # data, ours
    if name == "hostile":
        assert page.inner_text("h1").startswith("</script><script>document.title")


def test_the_ledger_is_searched_by_words(page, result):
    page.fill(".search .words", "liquidation")
    rows = page.locator(".ledger tbody tr")

    assert rows.count() == result.metrics["liquidations"]
    page.fill(".search .words", "2023-01-20 flow")
    assert rows.count() == 1
    page.fill(".search .words", "")

    before = rows.count()
    page.click(".more")
    assert rows.count() > before

    page.fill(".search .words", "<b>no such</b>")
    assert rows.count() == 0
    assert page.inner_text(".count") == "0 of 0 shown"

    page.fill(".search .words", "")


@pytest.mark.parametrize(("zone", "offset"), [("America/New_York", 300), ("Asia/Kolkata", -330)])
def test_charts_show_utc_whatever_the_zone_of_the_reader(visit, page, zone, offset):
    """Plotly takes a number for a time of the reader's zone: in New York lines were 5 h early."""
    times = (
        "() => { const box = document.querySelector('[data-chart=story]');"
        " return box.calcdata[0].map(point => point.x); }"
    )
    elsewhere = visit("run", timezone_id=zone)
    assert elsewhere.evaluate(times) == page.evaluate(times)  # also of the hour that a spring skips
    assert elsewhere.evaluate("new Date(2023, 0, 1).getTimezoneOffset()") == offset
    assert elsewhere.evaluate(times)[0] == elsewhere.evaluate(
        "() => Number(document.querySelector('[data-chart=story]').data[0].x[0])"
    )


def test_a_mark_leads_to_its_row_and_a_row_to_its_time(page):
    page.evaluate(
        "(() => { const box = document.querySelector('[data-chart=story]');"
        " const trace = box.data.find(each => each.name.startsWith('liquidation ('));"
        " box.emit('plotly_click', {points: [{customdata: trace.customdata[1]}]}); })()"
    )

    row = page.locator("tr.found")
    assert row.count() == 1
    assert "liquidation" in row.inner_text()

    stamp = row.locator("button").inner_text()
    row.locator("button").click()

    range_ = page.evaluate("document.querySelector('[data-chart=story]').layout.xaxis.range")
    low = pd.Timestamp(range_[0])
    high = pd.Timestamp(range_[1])
    assert low < pd.Timestamp(stamp) < high
    assert high - low <= pd.Timedelta("10D")
    assert page.trouble == []


READ = "name => document.querySelector(`.facts [data-measure=${name}]`).textContent"


def test_one_window_is_shown_by_all_charts_and_its_figures_are_computed(page, result):
    """The last 30 of 80 days: return, volatility and fall from the unit values; no Sharpe ratio."""
    page.click(".window [data-days='0']")  # from the end, not from where a test before it was
    page.click(".window [data-days='30']")
    unit = result.of_account("unit") / result.tally.first_unit
    ends = result.ends_sample.nonzero()[0]
    inside = unit[ends[-31] :]
    fall = (1.0 - inside / np.maximum.accumulate(inside)).max()

    assert page.evaluate(READ, "total_return") == f"{100 * (inside[-1] / inside[0] - 1):.2f} %"
    assert page.evaluate(READ, "max_drawdown") == f"{100 * fall:.2f} %"

    volatility = result.returns.to_numpy()[-30:].std(ddof=1) * 365**0.5
    assert page.evaluate(READ, "volatility") == f"{100 * volatility:.2f} %"
    assert "of-run" in page.evaluate(
        "document.querySelector('.facts [data-measure=es_95]').parentElement.className"
    )

    page.evaluate("document.querySelector('[data-chart=rolling]').scrollIntoView()")
    page.wait_for_function(
        "() => document.querySelector('[data-chart=rolling]').layout.xaxis.range[0]"
        " === document.querySelector('[data-chart=story]').layout.xaxis.range[0]"
    )

    page.click(".window [data-days='0']")
    whole = format_percent(result.metrics["total_return"])
    assert page.evaluate(READ, "total_return") == whole
    assert page.trouble == []


@pytest.mark.parametrize(("name", "width", "scheme"), [
    ("run", 1280, "light"),
    ("run", 400, "dark"),
    ("ruined", 400, "light"),  # its legend has four rows
])  # fmt: skip
def test_nothing_overlaps_overflows_or_leaves_half_a_row_empty(visit, name, width, scheme):
    page = visit(name, width, color_scheme=scheme)
    assert list_faults(page) == []


def test_a_click_shows_the_equity_of_a_set_and_sliders_say_how_far_the_nearest_is(visit, sweep):
    page = visit("sweep")
    assert page.locator(".explorer .set").count() == 15  # 5 targets, 3 half-lives, at one band
    assert page.locator(".explorer .mark.best").count() == 1
    assert page.inner_text(".explored h3") == "The best set"

    page.locator(".explorer .set").nth(3).click()
    assert page.inner_text(".explored h3") == "The chosen set beside the best"
    assert page.locator(".explorer .curve.selected").count() == 1
    assert "15 of 15 places lie on the sliders" in page.inner_text(".said")

    page.locator(".controls select").nth(1).select_option("parameter account.band")
    assert page.locator(".explorer .set").count() == 10
    page.locator(".controls select").nth(3).select_option("measure max_drawdown")

    label = page.inner_text(".explored th")
    page.locator(".explored [role=application]").press("ArrowLeft")
    assert page.inner_text(".explored th") != label
    page.locator(".explored [role=application]").press("ArrowRight")
    assert page.inner_text(".explored th") == label
    assert page.trouble == []


NOT_DRAWN = "[...document.querySelectorAll('[data-chart]')].filter(box => !box.layout).length"


def test_plots_are_drawn_as_they_come_into_view_and_all_of_them_for_print(browser, files):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(files["run"].as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate("document.querySelector('[data-chart=story]').layout.height") == 860
    assert page.evaluate(NOT_DRAWN) > 0

    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(NOT_DRAWN) == 0
    page.close()


def test_the_first_screen_is_drawn_before_the_library_is_compiled(browser, files):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script("window.requestAnimationFrame = () => 0")  # the library waits for it
    page.goto(files["run"].as_uri())
    page.wait_for_selector("[data-chart=story] canvas")

    colors = page.evaluate(
        "(() => { const still = document.querySelector('[data-chart=story] canvas');"
        " const { data } = still.getContext('2d').getImageData(0, 0, still.width, still.height);"
        " return [...new Set(new Uint32Array(data.buffer))]; })()"
    )
    assert {0xFFAE5F1F, 0xFF0D49C0} <= {*colors}  # the account and its drawdown, as ABGR
    assert page.evaluate("window.Plotly === undefined")
    page.close()


def test_a_loss_of_all_is_written_beside_the_name_of_its_scenario(visit):
    """-100.00 beside 2021-05-19, on a screen of 360 pixels."""
    page = visit("stress", 360)
    assert "-100.00" in page.locator(".bartext").all_text_contents()
    assert list_faults(page) == []


def test_a_narrow_axis_of_dates_has_two_of_them_and_few(browser):
    """February to December with room for three: half years have July alone, quarters three."""
    text = (TEMPLATES / "charts.js").read_text("utf-8")
    start, end = (text.index(mark) for mark in ("// Steps of the calendar", "// Fit the axes of"))
    context = browser.new_context()
    page = context.new_page()
    page.set_content(f"<script>{text[start:end]}</script>")
    step, count = page.evaluate("""() => {
      const span = [Date.UTC(2023, 1, 5), Date.UTC(2023, 11, 20)];
      const step = chooseDateStep(span, 3);
      return [step, countDates(step, span)];
    }""")
    assert (step, count) == ("M3", 3)

    spans = [0.4, 1, 3, 7, 20, 45, 58.8, 80, 200, 365, 730, 1500, 3152]
    counts = page.evaluate(
        """(spans) => spans.map((days) => {
      const span = [Date.UTC(2021, 10, 21), Date.UTC(2021, 10, 21) + days * 864e5];
      return countDates(chooseDateStep(span, 3), span);
    })""",
        spans,
    )
    assert min(counts) >= 2
    assert max(counts) <= 4
    context.close()


@pytest.mark.parametrize("name", ["run", "sweep"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser, files, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = open_page(context, files[name])

    violations = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
    context.close()
