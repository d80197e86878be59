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

    policies = {name: getattr(strategies, name) for name in strategies.__all__}
    pages = {f"policies/{p.title()}": write_page(name, p) for name, p in policies.items()}
    rows = [
        [f"[`{name}`](policies/{p.title()}.md)", p.summary(), p.fails_when]
        for name, p in policies.items()
    ]
    table = write_table(["policy", "what it does", "when it fails"], rows)
    return pages | {"policies": f"# The policies of the library\n\n{table}"}


def write_page(name: str, policy: Any) -> str:
    about = (inspect.getdoc(policy) or "").split("\n", 1)[1]
    rule, _, source = about.partition("Source:")
    rows = [
        [f"`{each.name}`", f"`{each.default!r}`", str(each.space)]
        for each in policy.parameters().values()
    ]
    return (
        f"# {name}\n\n{policy.summary()}\n\n{indent_rule(rule)}\n\n"
        f"**Source.** {indent_rule(source)}\n\n"
        f"**When it fails.** {policy.fails_when}\n\n"
        "## On the sample\n\n"
        f"```python\n{write_run(name, policy)}```\n\n"
        + (f"## Parameters\n\n{write_table(['name', 'default', 'range'], rows)}" if rows else "")
    )


def indent_rule(text: str) -> str:
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text.strip()).replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        p if i % 2 else re.sub(r"([*_<\[\]|^~])", r"\\\1", p) for i, p in enumerate(parts)
    )


def write_run(name: str, policy: Any) -> str:
    import backtest as bt

    inner = INNER.get(name, "VolTarget(target=0.6)") if issubclass(policy, bt.Combinator) else ""
    arguments = ", ".join(filter(None, [inner, SETTINGS.get(name, "")]))
    isolated = 'margin="isolated", venue_leverage=5.0, ' if name in ISOLATED else ""
    stop = "stop_loss=0.05, " if name == "FixedRisk" else ""
    is_trading = hasattr(policy, "option_orders")
    rule = 'requirement="deribit-standard", ' if is_trading else ""
    names = sorted({name, *re.findall(r"([A-Z]\w+)\(", inner)})
    return (
        "import backtest as bt\n"
        f"from backtest.strategies import {', '.join(names)}\n\n"
        f"market = bt.Market.sample(bars={OPTION_BARS if is_trading else BARS})\n"
        + (f"{DATA[name]}\n" if name in DATA else "")
        + 'venue = bt.Venue.preset("binance-usdm", "BTCUSDT")\n'
        + (OPTIONS if is_trading else "")
        + f"account = bt.Account({isolated}{rule}{stop}band=0.1)\n"
        f"result = bt.run(market, {name}({arguments}), venue=venue, account=account)\n"
        'daily = result.bars[["equity", "leverage"]].resample("1D").last()\n'
        'figure = daily.plot(backend="plotly", facet_row="variable")\n'
        "figure.update_yaxes(matches=None).update_layout(showlegend=False)\n"
    )
