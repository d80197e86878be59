"""The summary of a run of several positions, for a terminal."""

from __future__ import annotations

from typing import Any

import pandas as pd

from backtest.base.number_text import format_leverage, format_percent

MOST_CASES = 5
"""Liquidations of the pool that a summary tells."""


def write_portfolio_summary(result: Any) -> str:
    """Return a text summary: what it was, what came out, by instrument, who pulled whom down."""
    metrics, data = result.metrics, result.manifest["data"]
    rows = [
        ("markets", f"{', '.join(result.names)}, {data['interval']} bars"),
        ("from", f"{data['start']} to {data['end']}, {data['bars']:,} bars"),
        ("policy", str(result.manifest["policy"]["text"])),
    ]
    if result.manifest["overlay"] is not None:
        rows.append(("overlay", str(result.manifest["overlay"]["text"])))
    rows += [
        ("final equity", f"{metrics['final_equity']:,.2f}"),
        ("total return", format_percent(metrics["total_return"])),
        ("cagr", format_percent(metrics["cagr"])),
        ("volatility", format_percent(metrics["volatility"])),
        ("sharpe", f"{metrics['sharpe']:.2f}"),
        ("max drawdown", format_percent(metrics["max_drawdown"])),
        (
            "leverage",
            f"{format_leverage(metrics['mean_leverage'])} gross on average, at most "
            f"{format_leverage(metrics['peak_leverage'])}; "
            f"net {format_leverage(metrics['mean_net_leverage'])}",
        ),
        (
            "diversification",
            f"ratio {metrics['diversification_ratio']:.2f}, "
            f"{metrics['effective_bets']:.2f} effective bets of {len(result.names)}",
        ),
        (
            "liquidations",
            f"{metrics['liquidations']:.0f}, loss {metrics['liquidation_loss']:,.2f}, "
            f"bad debt {metrics['bad_debt']:,.2f}",
        ),
        ("ruined", "yes" if metrics["ruined"] else "no"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, "", write_attribution(result), *write_cases(result)])


def write_attribution(result: Any) -> str:
    """Return the money of each instrument by term as text."""
    table = result.attribution()
    shown = table.loc[:, (table != 0.0).any(axis=0)]
    return str(shown.to_string(float_format=lambda value: f"{value:,.2f}"))


def write_cases(result: Any) -> list[str]:
    """Return the liquidations of the pool in words: what fell, and who closed in profit."""
    table = result.contagion()
    if table.empty:
        return []
    lines = [""]
    groups = list(table.groupby("liquidation", sort=True))
    for number, causes in groups[:MOST_CASES]:
        lines.append(f"liquidation {number}, {describe_case(causes)}")
    if len(groups) > MOST_CASES:
        lines.append(f"and {len(groups) - MOST_CASES} more: result.contagion()")
    return lines


def describe_case(causes: pd.DataFrame) -> str:
    """Return one liquidation in words."""
    when = causes["time"].iloc[0].strftime("%Y-%m-%d %H:%M")
    fallen = causes[causes["share"] > 0.0].sort_values("share", ascending=False, kind="stable")
    shares = ", ".join(
        f"{name} {format_percent(float(share), 0)}"
        for name, share in zip(fallen["cause"], fallen["share"], strict=True)
    )
    pulled = causes.loc[causes["profit"] > 0.0, "cause"]
    rest = f"; in profit when it happened: {', '.join(pulled)}" if len(pulled) else ""
    return f"{when}: fell by {shares}{rest}"
