"""How pages look in a browser: size, overlaps, overflow, empty halves, sheets, accessibility.

    python -m benchmarks.pages report.html ...

Each page is opened 1280 and 400 pixels wide, in light and dark, and printed. It needs Chromium and
Playwright; with axe-playwright-python it also lists violations of accessibility. The exit code is 1
if anything is wrong. Pages make no request, and neither does this.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def draw_all(page: Any) -> None:
    """Scroll to each chart that is not folded, and wait until it is drawn."""
    for box in page.query_selector_all("[data-chart]"):
        if box.is_visible():
            box.scroll_into_view_if_needed()
            page.wait_for_function("box => box.layout", arg=box)


def inspect(browser: Any, file: Path) -> Iterator[str]:
    """Yield what is wrong with a page."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        yield f"takes {size:,} bytes"
    for width in WIDTHS:
        for scheme in SCHEMES:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            page = context.new_page()
            trouble: list[str] = []
            page.on("console", lambda message, to=trouble: to.append(message.text))
            page.on("pageerror", lambda error, to=trouble: to.append(str(error)))
            page.goto(file.resolve().as_uri())
            page.wait_for_selector("html[data-ready]", state="attached")
            draw_all(page)
            for fault in [*trouble, *list_faults(page), *list_axe(page)]:
                yield f"{width} {scheme}: {fault}"
            context.close()


def count_sheets(browser: Any, file: Path) -> int:
    """Return the sheets of paper that a page takes."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    printed: bytes = page.pdf(prefer_css_page_size=True)
    page.close()
    return len(re.findall(rb"/Type\s*/Page\b", printed))


def main() -> None:
    """Inspect the files that are given."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - it may be missing

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    n_faults = 0
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        for name in sys.argv[1:]:
            file = Path(name)
            faults = [*inspect(browser, file)]
            n_faults += len(faults)
            sheets = count_sheets(browser, file)
            sys.stdout.write(f"{file.name}: {file.stat().st_size:,} bytes, {sheets} sheets\n")
            for fault in dict.fromkeys(faults):
                sys.stdout.write(f"  {fault}\n")
        browser.close()
    sys.exit(n_faults > 0)


if __name__ == "__main__":
    main()
