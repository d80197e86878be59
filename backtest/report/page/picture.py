"""Draw the head and the first chart of a page as a PNG, with an installed browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from backtest.base import DataError
from backtest.report.page.html import write_html
from backtest.report.page.page import Page

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
    "microsoft-edge",
)  # fmt: skip
"""Names under which a browser of the Chromium family is installed."""
WIDTH, HEIGHT = 1280, 1600
"""Size in pixels of the window in which a page is measured."""
TALLEST = 8_000
"""Greatest height of a picture in pixels."""
PATIENCE = 60.0
"""Timeout of a browser run in seconds."""


def write_png(page: Page, path: Path) -> None:
    """Draw the head and the first chart of a page.

    A headless browser draws the page itself, so that the picture shows the same chart. It runs
    twice, first to measure the height of the page. Raises DataError if it draws nothing.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="backtest-report-") as folder:
        source, target = Path(folder) / "page.html", Path(folder) / "page.png"
        source.write_text(write_html(keep_first(page), is_picture=True), "utf-8", newline="\n")
        drawn, complaint = run_browser(browser, source, HEIGHT, "--dump-dom")
        height = re.search(r'<html[^>]* data-height="(\d+)"', drawn)
        if height is not None:
            tall = min(int(height[1]), TALLEST)
            _, complaint = run_browser(browser, source, tall, f"--screenshot={target}")
        if not target.is_file():
            raise DataError(
                f"a browser must draw the picture, {Path(browser).name} did not: {complaint}",
                where=browser,
                cure="try another browser, or write HTML",
            )
        shutil.copyfile(target, path)


def keep_first(page: Page) -> Page:
    """Return a page with the head and the first chart only."""
    chart = next(iter(page.charts), None)
    if chart is None:
        return replace(page, write_sections=list)
    section = next(each for each in page.sections if chart in each.blocks)
    return replace(page, write_sections=lambda: [replace(section, blocks=[chart])])


def find_browser() -> str:
    """Return the path of an installed browser, or raise DataError."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise DataError(
            "a picture is drawn by Chromium, Chrome or Edge, found none of them",
            where=f"PATH, searched for {', '.join(BROWSERS)}",
            cure="install one (Debian: apt install chromium), or write HTML and print or save from "
            "there: every chart has a button that saves it as a picture",
        )
    return found


def run_browser(browser: str, source: Path, height: int, task: str) -> tuple[str, str]:
    """Run a headless browser on a page; return its output and its last error message.

    It gets no network and a profile of its own.
    """
    flags = [
        "--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-quic", f"--user-data-dir={source.parent / 'profile'}",
        f"--window-size={WIDTH},{height}", "--virtual-time-budget=10000",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses a sandbox to root; the page is our own
    try:
        done = subprocess.run(
            [browser, *flags, task, source.as_uri()],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"nothing drawn in {PATIENCE:g} s"
    complaints = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return done.stdout, complaints[-1]
