"""HTML for notebooks: the head of a result with its equity, and what goes into a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from backtest.account import Account
from backtest.base import (
    FloatArray,
    IntArray,
    Reportable,
    clip,
    format_time,
    list_changed,
    repr_plain,
)
from backtest.market import Market, Markets
from backtest.policy import Policy
from backtest.report.charts import LIGHT, thin_rows
from backtest.report.page import Fact
from backtest.report.pictures import escape_text
from backtest.report.write import build_head
from backtest.risk import Paths
from backtest.venue import Venue

WIDTH, HEIGHT = 560, 90
COLUMNS = 4
"""Headline numbers in a row."""
DRAWN = ("run",)
LONGEST = 200
"""Longest title in characters."""


def write_cell(source: Reportable) -> str:
    if source._is_empty:
        return f"<div><b>{escape_text(repr(source))}</b></div>"
    page = build_head(source)
    chart = draw_equity_svg(source) if source.kind in DRAWN else ""
    name = "result" if source.kind in DRAWN else page.kind.replace("-", "_").replace(" ", "_")
    more = f'{name}.report("report.html") writes the whole report.'
    return (
        f"<div><b>{escape_text(clip(page.title, LONGEST))}</b><br>"
        f"<small>{escape_text(' '.join([f'{page.subtitle}.', *page.notices]))}</small>"
        f"{chart}{write_facts_table(page.facts)}"
        f"<small>{escape_text(f'{page.summary} {more}')}</small></div>"
    )


def write_facts_table(facts: Sequence[Fact]) -> str:
    cells = [
        f'<td style="text-align:left;padding:2px 18px 2px 0;vertical-align:top">'
        f'<span style="opacity:.7">{label}</span><br><b>{value}</b><br>'
        f'<small style="opacity:.7">{note}</small></td>'
        for label, value, note in (map(escape_text, fact) for fact in facts)
    ]
    lines = (cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS))
    rows = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f"<table>{rows}</table>"


def draw_equity_svg(result: Any) -> str:
    unit = result.of_account("unit") / result.tally.first_unit
    return draw_line_svg(result.span.closes, unit, "unit value")


def draw_line_svg(time: IntArray, values: FloatArray, title: str) -> str:
    rows = thin_rows(time, values, buckets=280)
    x = rescale(time[rows].astype(np.float64), 0.0, float(WIDTH))
    y = rescale(values[rows], HEIGHT - 2.0, 2.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title} over time" style="display:block;max-width:100%">'
        f'<polyline fill="none" stroke="{LIGHT["accent"]}" stroke-width="1.2" points="{points}"/>'
        "</svg>"
    )


def rescale(values: FloatArray, low: float, high: float) -> FloatArray:
    least, span = float(np.min(values)), float(np.ptp(values))
    if span == 0.0:
        return np.full(len(values), (low + high) / 2.0)
    return low + (values - least) / span * (high - low)


def write_view(source: Any) -> str:
    title, facts = describe(source)
    chart = draw_line_svg(source.time, source.close, "close") if isinstance(source, Market) else ""
    return (
        f"<div><b>{escape_text(clip(title, LONGEST))}</b>{chart}"
        f"{write_facts_table(list(facts))}</div>"
    )


def describe(source: Any) -> tuple[str, Iterator[Fact]]:
    match source:
        case Market():
            return source.instrument or source.source, describe_market(source)
        case Markets():
            return ", ".join(source.names), describe_markets(source)
        case Venue():
            return f"Venue, {source.contract.kind} contract", describe_value(source)
        case Account():
            return "Account", describe_value(source)
        case Paths():
            return repr(source).strip("<>"), iter(())
        case _:
            return f"{type(source).__name__}: {source.summary()}", describe_policy(source)


def describe_span(source: Market | Markets) -> Iterator[Fact]:
    yield Fact("bars", f"{source.n_bars:,}")
    yield Fact("from", format_time(int(source.start)), "UTC")
    yield Fact("to", format_time(int(source.end)), "UTC")


def describe_markets(markets: Markets) -> Iterator[Fact]:
    yield from describe_span(markets)
    if markets.options:
        yield Fact("options", f"{len(markets.options):,}", "listed")


def describe_market(market: Market) -> Iterator[Fact]:
    yield from describe_span(market)
    yield Fact("last close", f"{market.close[-1]:,.6g}")
    yield Fact("mark prices", "yes" if market.has_mark else "no")
    yield Fact("settlements", f"{len(market.funding_time):,}", "of funding")
    yield Fact("columns", ", ".join(market.columns) or "none")
    yield Fact("data", "synthetic" if market.synthetic else "given")


def describe_value(source: Venue | Account) -> Iterator[Fact]:
    shown = (each for each in list_changed(source) if each[0] != "earlier")
    yield from (Fact(name, clip(text, 60)) for name, text in shown)


def describe_policy(policy: Policy) -> Iterator[Fact]:
    for name, value in policy.settings().items():
        space = policy.parameters()[name].space if name in policy.parameters() else None
        yield Fact(name, repr_plain(value).strip("'"), getattr(space, "unit", ""))
    if policy.fails_when:
        yield Fact("fails when", "", policy.fails_when)
