"""Examples of public names: those of ``examples.md``, each with the lines that set it up."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".md")
POLICIES = ("Constant", "VolTarget")
SETUP = {
    "market": "market = bt.Market.sample(bars=720)",
    "markets": 'markets = bt.Markets({"A": market, "B": bt.Market.sample(bars=720, seed=1)})',
    "venue": 'venue = bt.Venue.preset("binance-usdm", "BTCUSDT")',
    "account": "account = bt.Account(capital=10_000)",
    "result": "result = bt.run(market, VolTarget(), venue=venue, account=account)",
}
"""The line that makes each name, in the order of use; a later one may need the earlier."""
NEEDS = {"markets": {"market"}, "result": {"market", "venue", "account", "VolTarget"}}


@cache
def read_examples() -> dict[str, str]:
    """Return the code of each example by its public name."""
    parts = re.split(r"^## (\S+)\n", SOURCE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name: set_up(code) for name, code in zip(parts[::2], parts[1::2], strict=True)}


def set_up(code: str) -> str:
    """Return code after the imports and lines that make the names it uses."""
    used = set(re.findall(r"(?<![\w.\"])[A-Za-z]\w*(?!\w*=[^=])", code))
    for name, needed in NEEDS.items():
        used |= needed if name in used else set()
    policies = [name for name in POLICIES if name in used]
    lines = ["import backtest as bt"]
    lines += [f"from backtest.strategies import {', '.join(policies)}"] * bool(policies)
    made = [line for name, line in SETUP.items() if name in used]
    return "\n".join([*lines, "", *made, code.strip()]) + "\n"
