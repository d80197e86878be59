"""A picture of a page's first chart and headline numbers, drawn by a browser that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from backtest.errors import DataError
from backtest.report.html import write_html
from backtest.report.page import Chart, Page, Section

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
"""Names under which a browser of the Chromium family is installed."""
WIDTH = 1280
HEAD = 700
"""Pixels above and below the chart."""
PATIENCE = 60.0
"""Seconds that a browser may take."""


def write_png(page: Page, path: Path) -> None:
    """Draw the head and the first chart of a page.

    The page itself is drawn, by a browser without a window: a second way to draw charts would be
    another picture.

    Raises
    ------
    DataError
        If no browser is installed, or it draws nothing.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="backtest-report-") as folder:
        source, target = Path(folder) / "page.html", Path(folder) / "page.png"
        chart = next(iter(page.charts), None)
        source.write_text(
            write_html(keep_first(page, chart), is_picture=True), encoding="utf-8", newline="\n"
        )
        height = HEAD + (0 if chart is None else chart.height)
        shoot(browser, source, target, height, Path(folder) / "profile")
        shutil.copyfile(target, path)


def keep_first(page: Page, chart: Chart | None) -> Page:
    """Return a page of its head and one chart."""
    if chart is None:
        return replace(page, sections=())
    section = next(each for each in page.sections if chart in each.blocks)
    return replace(page, sections=(Section(section.key, section.title, section.lead, [chart]),))


def find_browser() -> str:
    """Return the path of a browser.

    Raises
    ------
    DataError
        If none is installed.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise DataError(
            "a picture is drawn by Chromium, Chrome or Edge, found none of them",
            where=f"PATH, searched for {', '.join(BROWSERS)}",
            cure="install one (Debian: apt install chromium), or write HTML and print or save from "
            "there: every chart has a button that saves it as a picture",
        )
    return found


def shoot(browser: str, source: Path, target: Path, height: int, profile: Path) -> None:
    """Let a browser draw a file.

    Raises
    ------
    DataError
        If it draws nothing.
    """
    flags = [
        "--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-quic", f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}",
        "--virtual-time-budget=10000", f"--screenshot={target}",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses a sandbox to root; the page is our own
    try:
        done = subprocess.run(
            [browser, *flags, source.as_uri()],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    except subprocess.TimeoutExpired:
        words = [f"nothing drawn in {PATIENCE:g} s"]
    if not target.is_file():
        raise DataError(
            f"a browser must draw the picture, {Path(browser).name} did not: {words[0]}",
            where=browser,
            cure="try another browser, or write HTML",
        )
