"""How pages look in a browser: size, overlaps, overflow, empty halves, sheets, accessibility.

    python -m benchmarks.pages [--scheme light] report.html ...
    python -m benchmarks.pages --plots FOLDER

Each page is opened 1280 and 400 pixels wide, in light and dark, and printed. It needs Chromium and
Playwright; with axe-playwright-python it also lists violations of accessibility. The exit code is 1
if anything is wrong. Pages make no request, and neither does this. ``benchmarks.page_kinds`` writes
a page of every kind.

``--plots`` writes the page of a run through the last year, and through the last three, of a FOLDER
of hourly bars, and prints as JSON its bytes and, as the least of three visits, the seconds from the
start of the navigation until the first screen is sketched, until its plots can be used, and until
the last plot of the whole page is drawn; ``cpu`` are those of the page's process until then.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import describe_machine, print_json
from tests.report.conftest import FLAGS
from tests.report.layout import list_faults

WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
MOST_BYTES = 2_300_000


def list_axe(page: Any) -> list[str]:
    """Return the violations of accessibility, each once with how often; none without axe."""
    try:
        from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - it may be missing
    except ImportError:
        return []
    found = Axe().run(page).response["violations"]
    return [f"axe: {each['id']} at {len(each['nodes'])} places" for each in found]


PATIENCE = 300_000
"""Milliseconds until a page is given up: to draw late, under load, is no fault."""
OPEN_ALL = "() => document.querySelectorAll('details').forEach((each) => { each.open = true; })"
IS_DRAWN = "(box) => box.layout && Math.abs(box.layout.width - box.clientWidth) <= 1"


def open_page(context: Any, file: Path, trouble: list[str]) -> Any:
    """Open a file and wait for its first screen; what goes wrong is added to ``trouble``."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(file.resolve().as_uri())
    if page.query_selector("[id=page-data]"):  # the list of a store is ready at once
        page.wait_for_selector("html[data-ready]", state="attached")
    return page


def draw_all(page: Any) -> None:
    """Scroll to each chart that is shown, and wait until it is drawn at the width that it has."""
    for box in page.query_selector_all("[data-chart]"):
        if box.is_visible():
            box.scroll_into_view_if_needed()
            page.wait_for_function(IS_DRAWN, arg=box)


def inspect(browser: Any, file: Path, schemes: list[str]) -> tuple[list[str], int]:
    """Return what is wrong with a page, with all its parts unfolded, and its sheets of paper."""
    faults = []
    n_sheets = 0
    size = file.stat().st_size
    if size > MOST_BYTES:
        faults.append(f"takes {size:,} bytes")

    for width in WIDTHS:
        context = browser.new_context(viewport={"width": width, "height": 900})
        trouble: list[str] = []
        page = open_page(context, file, trouble)
        if width == max(WIDTHS):
            n_sheets = count_sheets(page)
        page.evaluate(OPEN_ALL)
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            draw_all(page)
            found = [*list_faults(page), *list_axe(page)]
            faults += [f"{width} {scheme}: {fault}" for fault in found]
        faults += [f"{width}: {message}" for message in trouble]
        context.close()
    return faults, n_sheets


def count_sheets(page: Any) -> int:
    """Return the sheets of paper that an open page takes."""
    printed: bytes = page.pdf(prefer_css_page_size=True)
    return len(re.findall(rb"/Type\s*/Page\b", printed))


NOTE_READY = """
new MutationObserver(() => { window.readyAt = window.readyAt || performance.now(); })
  .observe(document, { subtree: true, attributes: true, attributeFilter: ["data-ready"] });
"""
"""Notes when all plots in view are drawn."""
SCREEN, WHOLE = 900, 20_000
"""Heights of a window that shows the first screen, and the whole page, so that all is drawn."""
VISITS = 3


def visit(browser: Any, file: Path, height: int) -> tuple[float, float, float]:
    """Return the seconds until a page is sketched, and drawn, and those of CPU that it took."""
    context = browser.new_context(viewport={"width": 1280, "height": height})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    page.add_init_script(NOTE_READY)
    page.goto(file.resolve().as_uri())
    page.wait_for_function("() => window.readyAt")

    sketched, drawn = page.evaluate(
        "[performance.getEntriesByName('sketched')[0].startTime, window.readyAt]"
    )
    metrics = session.send("Performance.getMetrics")["metrics"]
    (used,) = (each["value"] for each in metrics if each["name"] == "ProcessTime")
    context.close()
    return sketched / 1e3, drawn / 1e3, used


def time_plots(browser: Any, file: Path) -> dict[str, float]:
    """Return the bytes of a page and the least seconds until its plots are drawn."""
    screens = [visit(browser, file, SCREEN) for _ in range(VISITS)]
    wholes = [visit(browser, file, WHOLE) for _ in range(VISITS)]
    sketched = min(visited[0] for visited in screens)
    screen = min(visited[1] for visited in screens)
    last = min(visited[1] for visited in wholes)
    used = min(visited[2] for visited in wholes)
    times = {"sketched": sketched, "first_screen": screen, "last_plot": last, "cpu": used}
    return {"bytes": file.stat().st_size} | {name: round(took, 2) for name, took in times.items()}


def time_runs(browser: Any, data: Path) -> dict[str, Any]:
    """Return what the pages of a run through one year and through three take."""
    import pandas as pd  # noqa: PLC0415 - only where pages are made

    import backtest as bt  # noqa: PLC0415
    from backtest.strategies import VolTarget  # noqa: PLC0415

    market = bt.Market.load(data, mark_gaps="last", funding_gaps="zero")  # both begin later
    report: dict[str, Any] = {"machine": describe_machine()}
    with tempfile.TemporaryDirectory() as folder:
        for years in (1, 3):
            cut = market.between(start=market.times[-1] - pd.Timedelta(days=365 * years))
            account = bt.Account(capital=10_000, band=0.1)
            result = bt.run(cut, VolTarget(), venue="binance-usdm:BTCUSDT", account=account)
            file = result.report(Path(folder) / f"{years}.html")
            report[f"{years} years"] = time_plots(browser, file)
    return report


def inspect_all(browser: Any, files: list[Path], schemes: list[str]) -> int:
    """Print what is wrong with each page; return how much that is."""
    n_faults = 0
    for file in files:
        faults, sheets = inspect(browser, file, schemes)
        n_faults += len(faults)
        sys.stdout.write(f"{file.name}: {file.stat().st_size:,} bytes, {sheets} sheets\n")
        for fault in dict.fromkeys(faults):
            sys.stdout.write(f"  {fault}\n")
        sys.stdout.flush()
    return n_faults


def main() -> None:
    """Inspect the files that are given, or time the plots of runs."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - it may be missing

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--scheme", choices=SCHEMES, help="only one (both)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER")
    flags = parser.parse_args()

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        if flags.plots:
            print_json(time_runs(browser, flags.plots))
        n_faults = inspect_all(browser, flags.files, [flags.scheme] if flags.scheme else [*SCHEMES])
        browser.close()
    sys.exit(n_faults > 0)


if __name__ == "__main__":
    main()
