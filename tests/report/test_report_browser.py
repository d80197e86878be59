"""Reports in a browser: every chart draws, nothing is fetched or goes wrong, all can be used."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.report.render import write_page
from backtest.report.write import build_page
from backtest.strategies import Constant, VolTarget
from tests.comparing import compare_policies
from tests.tuning import seek, stand_in

pytestmark = pytest.mark.slow

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
HOSTILE = "</script><script>document.title='broken'</script>\u202e" + "x" * 10_000
DARK_PAPER = "rgb(21, 25, 30)"


@pytest.fixture(scope="module")
def files(result, tmp_path_factory):
    """Return the files of a run, of the same under a hostile name, and of the other kinds."""
    folder = tmp_path_factory.mktemp("reports")
    manifest = json.loads(json.dumps(result.manifest))
    manifest["policy"]["text"] = HOSTILE
    manifest["data"]["instrument"] = HOSTILE
    values = {"target": np.linspace(0.1, 1.5, 8), "half_life": [12.0, 24.0, 72.0, 168.0]}
    values["estimator"] = ["ewma", "parkinson"]
    market = bt.Market.sample(bars=24 * 8)
    sweep = bt.sweep(market, VolTarget, values, venue=VENUE, account=bt.Account(), compile=False)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    long = bt.Market.sample(bars=24 * 50)
    policies = {"calm": Constant(leverage=0.5), HOSTILE: VolTarget()}
    with pytest.MonkeyPatch.context() as patch:
        stand_in(put=patch.setattr)
        study = seek(store=folder / "store", trials=80)
    pages = {
        "run": build_page(result),
        "hostile": build_page(dataclasses.replace(result, manifest=manifest)),
        "sweep": build_page(sweep),
        "study": build_page(study),
        "comparison": build_page(compare_policies(long, policies, draws=99, **terms)),
    }
    return {name: write_page(page, folder / f"{name}.html") for name, page in pages.items()}


def open_page(context, file):
    """Open a file and wait for its charts; keep what went wrong and what was asked for."""
    page = context.new_page()
    page.trouble, page.requests = [], []
    page.on("console", lambda message: page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate("document.documentElement.dataset.ready") == "yes"
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-chart]')].every(box => box.layout)"
    )
    return page


@pytest.fixture
def visit(browser, files):
    """Return how to open a file in a window of its own."""
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
    ("run", 1440, 6),
    ("run", 390, 6),
    ("hostile", 390, 6),
    ("sweep", 390, 6),
    ("study", 390, 3),
    ("study", 1440, 3),
    ("comparison", 390, 4),
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
    assert min(counts) > 0
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.title() != "broken"
    assert "\u202e" not in page.content()
    assert page.evaluate("document.scripts.length") == 4  # data, packed plotly, ours, plotly
    if name == "hostile":
        assert page.inner_text("h1").startswith("</script><script>document.title")


def test_dark_and_light_follow_the_system_and_the_button(visit):
    page = visit("run", color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    chart = "document.querySelector('.main-svg').style.background"
    assert page.evaluate(paper) == page.evaluate(chart) == DARK_PAPER
    page.click("#theme")
    assert page.evaluate(paper) == page.evaluate(chart) == "rgb(255, 255, 255)"
    assert page.inner_text("#theme") == "Dark"
    page.click("#theme")
    assert page.evaluate(paper) == DARK_PAPER
    assert page.trouble == []


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
    low, high = (pd.Timestamp(each) for each in range_)
    assert low < pd.Timestamp(stamp) < high
    assert high - low <= pd.Timedelta("10D")
    assert page.trouble == []


def test_the_keyboard_reaches_everything(visit):
    page = visit("run")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = set()
    active = "document.activeElement"
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate(f"{active}.tagName + '.' + {active}.className"))
        assert page.evaluate(f"getComputedStyle({active}).outlineStyle") != "none"
    assert {"DIV.scroll", "INPUT.words", "SUMMARY."} <= seen


def test_words_stand_out_from_the_paper(page):
    """Contrast of WCAG 2.2 AA: 4.5 for text."""
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        colors = page.evaluate(
            "['h1', '.lead', '.note', 'thead th', '.notice', '.link', 'nav a', 'code']"
            ".map(each => getComputedStyle(document.querySelector(each)).color)"
        )
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert min(contrast(color, paper) for color in colors) >= 4.5
    page.evaluate("document.documentElement.dataset.theme = 'auto'")


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colors' luminance."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    values = np.array([float(each) for each in color[4:-1].split(",")]) / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def test_without_scripts_the_tables_are_there(visit, browser, files):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(files["run"].as_uri())
    assert "charts need JavaScript" in page.inner_text("main")
    assert page.locator("table").count() >= 10
    assert page.locator(".ledger tbody tr").count() == 50
    context.close()


def test_the_scale_can_be_chosen(page):
    axis = "document.querySelector('[data-chart=story]')._fullLayout.yaxis"
    for name, kind in (("linear scale", "linear"), ("log scale", "log")):
        page.get_by_label(name).first.check()
        page.wait_for_function(f"{axis}.type === '{kind}'")
    assert page.trouble == []


def test_what_is_folded_draws_when_it_is_opened(browser, files):
    page = browser.new_page()
    page.goto(files["run"].as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert not page.is_visible("[data-chart=rolling]")
    page.click("#time summary")
    page.wait_for_selector("[data-chart=rolling] .main-svg")
    page.close()
