"""The drawings of the page of concepts, as SVG: a bar with its steps, and an account by price."""

from __future__ import annotations

STYLE = (
    "text{font:13px sans-serif;fill:#888}.small{font-size:11px}line,path,rect{stroke:#888;"
    "fill:none;stroke-width:1.5}.up{fill:#2a9d8f55;stroke:#2a9d8f}.red{stroke:#d1495b}"
    ".blue{stroke:#3a7ca5}.dash{stroke-dasharray:4 4}.dot{fill:#888}"
)
OPEN, HIGH, LOW, CLOSE = 150, 40, 240, 80
"""Heights of the prices of the candle."""
AT_OPEN = (
    "1 deposits, withdrawals, top-ups", "2 funding at the open", "3 interest",
    "4 gap check: liquidation or stop", "5 fill of the decision",
)  # fmt: skip
INSIDE = "6 funding inside the bar, 7 the walk: stops, liquidations"
QUANTITY, ENTRY, WALLET, RATE = 1.0, 100.0, 25.0, 0.05
"""The account: 4x long, with a maintenance rate of 5 %."""


def draw_all() -> dict[str, str]:
    """Return the text of each drawing by the name of its file."""
    return {"bar.svg": draw_bar(), "account.svg": draw_account()}


def draw(width: int, height: int, title: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
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
    body = f'<rect x="310" y="{CLOSE}" width="40" height="{OPEN - CLOSE}" class="up"/>'
    walk = f"M200 {OPEN} L280 {LOW} L400 {HIGH} L470 {CLOSE}"
    prices = {"high": HIGH, "close": CLOSE, "open": OPEN, "low": LOW}
    return draw(680, 300, "The eight steps of a bar", [
        line(330, HIGH, 330, LOW), body,
        *(line(200, y, 500, y, "dash") for y in prices.values()),
        *(text(506, y + 4, name) for name, y in prices.items()),
        f'<path d="{walk}" class="blue"/>',
        *(f'<circle cx="{x}" cy="{y}" r="4" class="dot"/>'
          for x, y in ((200, OPEN), (280, LOW), (400, HIGH), (470, CLOSE))),
        *(text(190, OPEN - 62 + 18 * k, step, "small", "end") for k, step in enumerate(AT_OPEN)),
        text(292, LOW + 22, INSIDE, "small", "middle"),
        text(506, CLOSE + 24, "8 record, and decide:", "small"),
        text(506, CLOSE + 40, "fills at the next open", "small"),
    ])  # fmt: skip


def draw_account() -> str:
    def x(price: float) -> float:
        return 60 + (price - 70) * 10

    def y(money: float) -> float:
        return 250 - money * 4

    def line_of(money: dict[float, float], style: str) -> str:
        (a, first), (b, last) = money.items()
        return line(x(a), y(first), x(b), y(last), style)

    liquidation = (ENTRY * QUANTITY - WALLET) / (QUANTITY * (1.0 - RATE))
    equity = {p: WALLET + QUANTITY * (p - ENTRY) for p in (75.0, 120.0)}
    margin = {p: RATE * QUANTITY * p for p in (70.0, 120.0)}
    return draw(680, 300, "Equity and margin of a long position by price", [
        line(x(70), y(0), x(120), y(0)), text(x(120), y(0) + 34, "mark price", "", "end"),
        line(x(70), y(WALLET), x(120), y(WALLET), "dash"), text(x(70), y(WALLET) - 6, "wallet 25"),
        line_of(equity, "blue"), text(x(110), y(equity[120.0]) + 20, "equity", "", "end"),
        line_of(margin, "red"), text(x(118), y(margin[120.0]) - 6, "maintenance margin", "", "end"),
        line(x(ENTRY), y(0), x(ENTRY), y(WALLET), "dash"),
        text(x(ENTRY), y(0) + 18, "entry 100", "", "middle"),
        line(x(liquidation), y(0), x(liquidation), y(RATE * liquidation), "red"),
        text(x(liquidation), y(0) + 18, f"liquidation {liquidation:.2f}", "", "middle"),
    ])  # fmt: skip
