"""A page for each built-in policy, from its class and a run on one market."""

from __future__ import annotations

import inspect
import re
from typing import Any

from docs.ext.markdown import write_table

BARS = 24 * 90
OPTION_BARS = 24 * 45
"""For policies that trade options: each option is valued at each bar."""
INNER = {
    "Average": "VolTarget(target=0.6), Constant(1.0)",
    "Lowest": "VolTarget(target=0.6), Cppi()",
    "Scheduled": "VolTarget(target=0.6), Constant(0.5)",
}
"""What a combinator takes; a volatility target of 0.6 if it is not named here."""
ISOLATED = ("LiquidationDistance",)
"""Policies that move the margin of an isolated position."""
SETTINGS = {
    "Capped": "cap=1.5",
    "Cooldown": "bars=48",
    "Kelly": "window=720",
    "Scheduled": "since=20230215",
    "SharpeScaling": "window=720",
    "TailRisk": "window=1000",
}
"""Settings for a market of some weeks."""
DATA = {
    "ImpliedVolTarget": "market = market.with_columns(implied_volatility=[0.6] * market.n_bars)"
}
"""Columns of the market that a policy reads."""


OPTIONS = """
options = bt.Option.grid(
    "BTC", strikes=range(25_000, 45_001, 5_000), start="2023-01-06", end="2023-03-31"
)
surfaces = bt.Surfaces.fit(bt.Chain.sample())
market = bt.Markets({"BTC": market, **options}, surfaces={"BTC": surfaces}, max_age="100d")
costs = bt.OptionCosts(
    fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125, tick=0.1, spread=0.02
)
venue = venue.override(option_costs=costs)
"""
"""Listed options, for policies that trade them."""


def list_pages() -> dict[str, str]:
    from backtest import strategies

    pages = {}
    rows = []
    for name in strategies.__all__:
        policy = getattr(strategies, name)
        page = f"policies/{policy.title()}"
        pages[page] = write_page(name, policy)
        rows.append([f"[`{name}`]({page}.md)", policy.summary(), policy.fails_when])

    table = write_table(["policy", "what it does", "when it fails"], rows)
    pages["policies"] = f"# The policies of the library\n\n{table}"
    return pages


def write_page(name: str, policy: Any) -> str:
    about = (inspect.getdoc(policy) or "").split("\n", 1)[1]
    rule, _, source = about.partition("Source:")
    page = (
        f"# {name}\n\n{policy.summary()}\n\n{escape_rule(rule)}\n\n"
        f"**Source.** {escape_rule(source)}\n\n"
        f"**When it fails.** {policy.fails_when}\n\n"
        "## On the sample\n\n"
        f"```python\n{write_run(name, policy)}```\n\n"
    )

    rows = [
        [f"`{parameter.name}`", f"`{parameter.default!r}`", str(parameter.space)]
        for parameter in policy.parameters().values()
    ]
    if rows:
        page += f"## Parameters\n\n{write_table(['name', 'default', 'range'], rows)}"
    return page


def escape_rule(text: str) -> str:
    """Return the text of a docstring as Markdown, whose marks outside of code are escaped."""
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text.strip()).replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    for place in range(0, len(parts), 2):  # code stands in between
        parts[place] = re.sub(r"([*_<\[\]|^~])", r"\\\1", parts[place])
    return "".join(parts)


def write_run(name: str, policy: Any) -> str:
    """Return the code of a run on the sample, which draws its equity and leverage."""
    import backtest as bt

    inner = ""
    if issubclass(policy, bt.Combinator):
        inner = INNER.get(name, "VolTarget(target=0.6)")
    arguments = ", ".join(filter(None, [inner, SETTINGS.get(name, "")]))
    names = sorted({name, *re.findall(r"([A-Z]\w+)\(", inner)})

    is_trading = hasattr(policy, "option_orders")
    n_bars = OPTION_BARS if is_trading else BARS
    lines = [
        "import backtest as bt",
        f"from backtest.strategies import {', '.join(names)}\n",
        f"market = bt.Market.sample(bars={n_bars})",
    ]
    if name in DATA:
        lines.append(DATA[name])
    lines.append('venue = bt.Venue.preset("binance-usdm", "BTCUSDT")')

    terms = []
    if name in ISOLATED:
        terms += ['margin="isolated"', "venue_leverage=5.0"]
    if is_trading:
        lines.append(OPTIONS.removesuffix("\n"))
        terms.append('requirement="deribit-standard"')
    if name == "FixedRisk":
        terms.append("stop_loss=0.05")
    terms.append("band=0.1")

    lines += [
        f"account = bt.Account({', '.join(terms)})",
        f"result = bt.run(market, {name}({arguments}), venue=venue, account=account)",
        'daily = result.bars[["equity", "leverage"]].resample("1D").last()',
        'figure = daily.plot(backend="plotly", facet_row="variable")',
        "figure.update_yaxes(matches=None).update_layout(showlegend=False)\n",
    ]
    return "\n".join(lines)
