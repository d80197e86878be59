"""A picture of a page's first chart and headline numbers, drawn by a browser that is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from backtest.base.errors import DataError
from backtest.report.page.html import write_html
from backtest.report.page.page import Chart, Page

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
"""Names under which a browser of the Chromium family is installed."""
WIDTH, HEIGHT = 1280, 1600
"""Pixels of the window in which a page is measured."""
TALLEST = 8_000
"""Pixels of the highest picture."""
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
        profile = Path(folder) / "profile"
        shoot(browser, source, target, measure_height(browser, source, profile), profile)
        shutil.copyfile(target, path)


def keep_first(page: Page, chart: Chart | None) -> Page:
    """Return a page of its head and one chart."""
    if chart is None:
        return replace(page, write_sections=list)
    section = next(each for each in page.sections if chart in each.blocks)
    return replace(page, write_sections=lambda: [replace(section, blocks=[chart])])


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


def measure_height(browser: str, source: Path, profile: Path) -> int:
    """Return how high a page is when it is drawn, in pixels.

    Raises
    ------
    DataError
        If the browser draws nothing in time.
    """
    flags = [*list_flags(profile, HEIGHT), "--dump-dom"]
    words, drawn = start(browser, [*flags, source.as_uri()])
    said = re.search(r'<html[^>]* data-height="(\d+)"', drawn)
    if said is None:
        raise refuse(browser, words)
    return min(int(said[1]), TALLEST)


def shoot(browser: str, source: Path, target: Path, height: int, profile: Path) -> None:
    """Let a browser draw a file.

    Raises
    ------
    DataError
        If it draws nothing.
    """
    flags = [*list_flags(profile, height), f"--screenshot={target}"]
    words, _ = start(browser, [*flags, source.as_uri()])
    if not target.is_file():
        raise refuse(browser, words)


def list_flags(profile: Path, height: int) -> list[str]:
    """Return how a browser is started: without a window, a network or anything of the user's."""
    flags = [
        "--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-quic", f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}",
        "--virtual-time-budget=10000",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses a sandbox to root; the page is our own
    return flags


def start(browser: str, words: list[str]) -> tuple[str, str]:
    """Return what a browser complained of last, and what it printed."""
    try:
        done = subprocess.run(
            [browser, *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nothing drawn in {PATIENCE:g} s", ""
    complaints = done.stderr.strip().splitlines()
    return complaints[-1] if complaints else f"exit code {done.returncode}", done.stdout


def refuse(browser: str, words: str) -> DataError:
    """Return the error of a browser that draws nothing."""
    return DataError(
        f"a browser must draw the picture, {Path(browser).name} did not: {words}",
        where=browser,
        cure="try another browser, or write HTML",
    )
