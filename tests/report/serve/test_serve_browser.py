"""``backtest serve`` in a browser: a list to filter and sort, runs compared, a study followed."""

import shutil
import threading

import pytest

import backtest as bt
from backtest.base.atomic_files import LOCK, hold_lock_file
from backtest.report.serve.server import Server
from backtest.tune.journal import OUTCOME, TRIALS, Journal
from tests.report.reported import watched_page
from tests.report.serve.served import HOSTILE, batch_of, begin_again, live
from tests.report.test_report_browser import contrast
from tests.tuning import stand_in

pytestmark = pytest.mark.slow

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ROWS = "tbody tr"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a store of three runs, one of them under a hostile name, and a damaged one."""
    folder = tmp_path_factory.mktemp("served") / "results"
    for days, leverage in ((40, 0.5), (40, 2.0), (35, 3.0)):
        last = live(leverage, days).save(folder)
    shutil.copytree(last, folder / HOSTILE)
    damaged = folder / "constant-00112233445566cc"
    shutil.copytree(last, damaged)
    (damaged / "bars.parquet").unlink()
    return folder


@pytest.fixture(scope="module")
def server(store):
    with Server(store, "127.0.0.1", 0) as started:
        threading.Thread(target=started.serve_forever, args=(0.02,), daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def visit(browser, server):
    """Return how to open an address in a window of its own."""
    contexts = []

    def visit(path="", width=1440, **settings):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **settings))
        return watched_page(contexts[-1], server.url + path)

    yield visit
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [390, 1280, 1440])
def test_the_list_fits_the_screen_in_silence_and_asks_for_nothing(visit, server, width):
    page = visit(width=width)
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.locator(ROWS).count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if width > 1000:
        box = "document.querySelector('.scroll')"
        assert page.evaluate(f"{box}.scrollWidth") <= page.evaluate(f"{box}.clientWidth")
    assert (page.trouble, page.requests) == ([], [server.url])
    assert page.locator("tr.broken").inner_text().count("bars.parquet is missing") == 1
    assert "<script>alert(1)" in page.locator("table").inner_text()
    assert page.evaluate("document.scripts.length") == 2


def test_the_list_is_filtered_and_sorted(visit):
    page = visit()
    page.fill(".words", "leverage=2.0")
    assert page.locator(ROWS).count() == 1
    assert page.inner_text(".count") == "1 of 1 shown"
    page.fill(".words", "")
    page.select_option(".kind-of", "damaged")
    assert page.locator(ROWS).count() == 1
    page.select_option(".kind-of", "run")
    column = page.locator(f"{ROWS} td:nth-child(7)")  # volatility

    def values():
        return [float(text.rstrip(" %").replace(",", "")) for text in column.all_inner_texts()]

    page.get_by_role("button", name="volatility").click()
    assert values() == sorted(values(), reverse=True)
    assert page.get_attribute("th:has-text('volatility')", "aria-sort") == "descending"
    page.get_by_role("button", name="volatility").click()
    assert values() == sorted(values())
    page.select_option(".kind-of", "")
    assert "damaged" in page.locator(ROWS).last.inner_text(), "what has no value stands last"
    page.fill(".words", "<b>none</b>")
    assert page.locator(ROWS).count() == 0
    assert page.trouble == []


def test_ticked_runs_are_compared_though_a_filter_hides_them(visit):
    page = visit()
    assert page.is_disabled("#compare")
    for words in ("leverage=0.5", "leverage=2.0"):
        page.fill(".words", words)
        page.locator("input[name=run]").check()
    assert page.inner_text(".chosen") == "2 ticked, baseline Constant(leverage=0.5)"
    page.click("#compare")
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    assert page.inner_text("h1") == "Constant leverage=0.5 against Constant leverage=2.0"
    assert page.locator("[data-chart=accounts] .trace").count() >= 4
    assert page.trouble == []
    page.click("text=All results")
    page.wait_for_selector(".list")


def test_without_scripts_runs_can_be_compared_too(visit):
    page = visit(java_script_enabled=False)
    assert page.locator(ROWS).count() == 5
    for words in ("leverage=0.5", "leverage=2.0"):
        page.locator(ROWS, has_text=words).locator("input").check()
    page.click("#compare")
    assert "against" in page.inner_text("h1")


def test_a_report_opens_from_the_list_under_a_hostile_name(visit):
    page = visit()
    page.locator(ROWS, has_text="alert(1)").locator("a").click()
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    assert page.inner_text("h1").startswith("Constant")
    assert page.trouble == []


def test_words_stand_out_and_the_button_changes_the_paper(visit):
    """Contrast of WCAG 2.2 AA: 4.5 for text."""
    page = visit(color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    for color in ("rgb(21, 25, 30)", "rgb(255, 255, 255)"):
        assert page.evaluate(paper) == color
        seen = page.evaluate(
            "['h1', '.sort', '.list a', '.under', '.broken .under', '.chosen', '.subtitle']"
            ".map(each => getComputedStyle(document.querySelector(each)).color)"
        )
        assert min(contrast(each, color) for each in seen) >= 4.5
        page.click("#theme")
    assert page.trouble == []


def test_the_list_can_be_used_by_keyboard_and_read_aloud(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.className || document.activeElement.type"))
    assert {"words", "kind-of", "sort", "checkbox", "scroll"} <= seen
    counts = page.evaluate(
        "['h1', 'main', 'table:not(:has(caption))', 'thead th:not([scope])',"
        " 'input:not(label *):not([aria-label])'].map(e => document.querySelectorAll(e).length)"
    )
    assert counts == [1, 1, 0, 0, 0]


def test_a_running_study_is_followed_until_it_is_finished(visit, store, tmp_path, monkeypatch):
    stand_in(put=monkeypatch.setattr)
    finished, aside = begin_again(store, tmp_path)
    folder = finished.folder
    lock = hold_lock_file(folder / LOCK)
    lock.__enter__()
    journal = Journal(folder, finished.facts["id"])
    journal.append(batch_of([1.0, 3.0, 2.0], 2.0))
    page = visit(f"live/{folder.name}", 390)
    assert page.inner_text("#sets") == "3"
    assert page.inner_text("#of") == "of 40 asked for"
    assert page.inner_text("#best") == "3"
    assert page.inner_text("#values").split() == ["x", "3"]
    assert page.is_visible("progress")
    journal.append(batch_of([2.5, 4.0], 4.0))
    page.wait_for_selector("#sets:text-is('5')", timeout=30_000)
    assert page.inner_text("#best") == "4"
    assert page.inner_text("#high") == "4 after 5 of 5"
    assert page.locator("#path path").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    (folder / TRIALS).rename(tmp_path / "other trials")
    for part in (TRIALS, OUTCOME):
        (aside / part).rename(folder / part)
    page.wait_for_selector("html[data-state=finished]", state="attached", timeout=30_000)
    assert page.inner_text("#report") == "Read the report"
    asked = len(page.requests)
    page.wait_for_timeout(2500)
    assert len(page.requests) == asked, "it stops asking"
    assert page.trouble == []
    shutil.rmtree(folder)
