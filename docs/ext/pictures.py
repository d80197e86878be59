"""The pictures of pages: drawings of concepts, and the report of an account.

python -m docs.ext.pictures draws them again; make docs does too. The report needs Chromium (Debian:
apt install chromium) and Playwright; where one is missing, its picture stays as it is.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = Path(__file__).parents[1] / "pictures"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDTH = 1280
"""Width of the window that shows the report, in pixels."""
STILL = "#equity .chart[data-chart] svg"
"""What is there once the chart of the first section is drawn."""

Scheme = Literal["light", "dark"]
REPORTS: Mapping[Scheme, str] = {"light": "run.png", "dark": "run-dark.png"}
"""The picture of the report by the color scheme of who looks at it."""

STYLE = (
    "text{font:15px sans-serif;fill:#888}line,path,rect{stroke:#888;"
    "fill:none;stroke-width:1.5}.up{fill:#2a9d8f55;stroke:#2a9d8f}.red{stroke:#d1495b}"
    ".blue{stroke:#3a7ca5}.dash{stroke-dasharray:4 4}.dot{fill:#888}"
)
OPEN, HIGH, LOW, CLOSE = 150, 40, 240, 80
"""Heights of the prices of the candle."""
QUANTITY, ENTRY, WALLET, RATE = 1.0, 100.0, 25.0, 0.05
"""The account: 4x long, with a maintenance rate of 5 %."""


def draw_all() -> dict[str, str]:
    """Return the text of each drawing by the name of its file."""
    return {"bar.svg": draw_bar(), "account.svg": draw_account()}


def draw(width: int, height: int, title: str, parts: list[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return (
        f"{head}\n<title>{title}</title>\n<style>{STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str = "") -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{style}"/>'


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{words}</text>'


def draw_bar() -> str:
    walk = {70: OPEN, 150: LOW, 270: HIGH, 340: CLOSE}
    prices = {"high": HIGH, "close": CLOSE, "open": OPEN, "low": LOW}
    steps = "M" + " L".join(f"{x} {y}" for x, y in walk.items())
    return draw(440, 270, "The eight steps of a bar", [
        line(205, HIGH, 205, LOW),
        f'<rect x="190" y="{CLOSE}" width="30" height="{OPEN - CLOSE}" class="up"/>',
        *(line(70, y, 370, y, "dash") for y in prices.values()),
        *(text(376, y + 5, name) for name, y in prices.items()),
        f'<path d="{steps}" class="blue"/>',
        *(f'<circle cx="{x}" cy="{y}" r="4" class="dot"/>' for x, y in walk.items()),
        text(60, OPEN + 5, "1 to 5", "", "end"), text(118, LOW - 62, "6, 7"),
        text(340, CLOSE - 12, "8", "", "middle"),
    ])  # fmt: skip


def draw_account() -> str:
    def x(price: float) -> float:
        return 10 + (price - 70) * 8

    def y(money: float) -> float:
        return 250 - money * 4

    def line_of(money: dict[float, float], style: str) -> str:
        (a, first), (b, last) = money.items()
        return line(x(a), y(first), x(b), y(last), style)

    liquidation = (ENTRY * QUANTITY - WALLET) / (QUANTITY * (1.0 - RATE))
    equity = {p: WALLET + QUANTITY * (p - ENTRY) for p in (75.0, 120.0)}
    margin = {p: RATE * QUANTITY * p for p in (70.0, 120.0)}
    return draw(440, 300, "Equity and margin of a long position by price", [
        line(x(70), y(0), x(120), y(0)), text(x(120), y(0) + 34, "mark price", "", "end"),
        line(x(70), y(WALLET), x(120), y(WALLET), "dash"), text(x(70), y(WALLET) - 6, "wallet 25"),
        line_of(equity, "blue"), text(x(110), y(equity[120.0]) + 20, "equity", "", "end"),
        line_of(margin, "red"), text(x(118), y(margin[120.0]) - 6, "maintenance margin", "", "end"),
        line(x(ENTRY), y(0), x(ENTRY), y(WALLET), "dash"),
        text(x(ENTRY), y(0) + 18, "entry 100", "", "middle"),
        line(x(liquidation), y(0), x(liquidation), y(RATE * liquidation), "red"),
        text(x(liquidation), y(0) + 18, f"liquidation {liquidation:.2f}", "", "middle"),
    ])  # fmt: skip


def write_report(path: Path) -> None:
    """Write the report of an account at 5x on the sample."""
    import backtest as bt
    from backtest.report.render import write_html
    from backtest.report.write import build_page
    from backtest.strategies import Constant

    account = bt.Account(capital=10_000.0, margin="isolated", venue_leverage=5.0)
    result = bt.run(
        bt.Market.sample(), Constant(5.0), venue="binance-usdm:BTCUSDT", account=account
    )
    path.write_text(write_html(build_page(result)), encoding="utf-8")


def picture_report(files: Mapping[Scheme, Path]) -> str:
    """Take the picture of the report in each color scheme into its file.

    Return why not, or an empty text.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "Playwright is not installed"
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return "Chromium is not installed"

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        page_file = Path(folder) / "report.html"
        write_report(page_file)
        browser = started.chromium.launch(executable_path=chromium, args=[*FLAGS])
        for scheme, file in files.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme=scheme)
            page.goto(page_file.as_uri())
            picture_first_section(page, file)
        browser.close()
    return ""


def picture_first_section(page: Page, file: Path) -> None:
    """Take the picture of an open report, down to the end of its first section."""
    page.wait_for_selector(STILL)

    # The identity of the run is that of this checkout: the picture must not depend on it.
    page.add_style_tag(content=".kind code, #theme { visibility: hidden }")
    box = page.locator("#equity").bounding_box()
    if box is None:
        raise RuntimeError("the report has no section #equity")
    height = box["y"] + box["height"]
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
    page.screenshot(path=file, full_page=True, clip=clip)


def main() -> None:
    for name, drawing in draw_all().items():
        (PICTURES / name).write_text(drawing, encoding="utf-8")
    missing = picture_report({scheme: PICTURES / name for scheme, name in REPORTS.items()})
    if missing:
        names = " and ".join(REPORTS.values())
        sys.stdout.write(f"{names} in docs/pictures stay as they are: {missing}\n")


if __name__ == "__main__":
    main()
