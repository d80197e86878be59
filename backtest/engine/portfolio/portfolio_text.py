"""The summary of a run of several positions, for a terminal of 80 columns or more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from backtest.account.account import Account
from backtest.base.number_text import format_leverage, format_number, format_percent
from backtest.base.text_layout import format_paragraph
from backtest.base.units import format_span
from backtest.engine.benchmark import describe_benchmark
from backtest.engine.checks_text import describe_checks
from backtest.engine.portfolio.portfolio_tables import field
from backtest.engine.result_text import (
    FILLS,
    MEASURES,
    describe_sample,
    describe_venue,
    label_measure,
)
from backtest.engine.target_cuts_text import describe_targets

MOST_CASES = 5
"""Liquidations of the pool that a summary tells."""


def write_portfolio_summary(result: Any) -> str:
    """Return a text summary: what ran, what came out, by instrument, who pulled whom down."""
    sections = (
        summarize_setting, list_measures, summarize_risk, summarize_instruments, summarize_events,
        summarize_checks,
    )  # fmt: skip
    return "\n\n".join("\n".join(section(result)) for section in sections)


# --------------------------------------------------------------------------------------- what ran


def summarize_setting(result: Any) -> Iterator[str]:
    """Yield the policies, the data, the venues and the account, a paragraph each."""
    manifest = result.manifest
    if result.no_fill:
        yield from format_paragraph("NO FILL", f"no order was filled: {result.no_fill}")
    yield from format_paragraph("Policy", str(manifest["policy"]["text"]))
    if manifest["overlay"] is not None:
        yield from format_paragraph("Overlay", str(manifest["overlay"]["text"]))
    weights = str(manifest["signal"]).partition(" sha256")[0]
    yield from format_paragraph("Weights", "given as a frame" if weights == "frame" else weights)
    yield from format_paragraph("Data", *describe_panel(result))
    yield from format_paragraph("Venue", *describe_venues(result))
    yield from format_paragraph("Account", *describe_book_account(result.account, result.names))


def describe_panel(result: Any) -> Iterator[str]:
    """Yield the instruments and their span, and the caveats of the data."""
    data = result.manifest["data"]
    span = format_span(data)
    yield f"{', '.join(result.names)}, {span}, {data['bars']:,} bars of {data['interval']}"
    if data["synthetic"]:
        yield "SYNTHETIC: these prices are made up"
    each = data["instruments"]
    marked = [n for n in result.names if each[n].get("liquidations_tested_on") == "last prices"]
    if marked:
        yield f"no mark prices of {', '.join(marked)}: liquidations tested on last prices"
    paying = [n for n in result.names if "dividends" in each[n]]
    if paying:
        yield f"dividends of {', '.join(paying)}, booked as funding"
    unfunded = [n for n in result.names if n not in paying and each[n].get("funding_events") == 0]
    if unfunded:
        yield f"no funding rates of {', '.join(unfunded)}: none is charged"


def describe_venues(result: Any) -> Iterator[str]:
    """Yield the rules of each venue once, with its instruments, and tables of other days."""
    found: dict[str, list[str]] = {}
    for name in result.names:
        text = describe_venue(result.manifest, result.venues[name])
        found.setdefault(text, []).append(name)
    for text, names in found.items():
        yield text if len(found) == 1 else f"{', '.join(names)}: {text}"
    yield from list_other_days(result)


def list_other_days(result: Any) -> Iterator[str]:
    """Yield the margin tables of other days than those of the run, each with its instruments."""
    said: dict[str, list[str]] = {}
    for name, text in result.manifest.get("margin_table", {}).items():
        if text.startswith(("the margin table", "the oldest")):
            said.setdefault(text, []).append(name)
    for text, names in said.items():
        yield f"{', '.join(names)}: {text}"


def describe_book_account(account: Account, names: Sequence[str]) -> Iterator[str]:
    """Yield the margin and the capital, every setting that is given, and what backs positions."""
    modes: dict[str, list[str]] = {}
    for name in names:
        modes.setdefault(account.for_instrument(name).margin, []).append(name)
    each = [f"{mode} margin of {', '.join(of)}" for mode, of in modes.items()]
    margin = f"{next(iter(modes))} margin" if len(modes) == 1 else ", ".join(each)
    assets = [f"{each.amount:,.10g} {each.name}" for each in account.collateral]
    backed = f" and collateral of {', '.join(assets)}" if assets else ""
    yield f"{margin}, capital {account.capital:,.10g}{backed}"
    if account != type(account)(capital=account.capital):
        yield repr(account)
    if account.fill in FILLS:
        yield FILLS[account.fill]
    if backing := describe_isolated_positions(account, names):
        yield backing


def describe_isolated_positions(account: Account, names: Sequence[str]) -> str:
    """Return what backs the isolated positions; empty if all are cross positions."""
    own = {name: account.for_instrument(name) for name in names}
    isolated = [name for name in names if own[name].margin == "isolated"]
    if not isolated:
        return ""
    settings = ", ".join(f"{n} {own[n].venue_leverage or 1.0:g}" for n in isolated)
    return (
        f"isolated: the margin of a position is its notional / the venue leverage ({settings}); "
        "the rest of the balance does not stand behind it"
    )


# ------------------------------------------------------------------------------ what came out


def list_measures(result: Any) -> Iterator[str]:
    """Yield the measures of the account, a line each."""
    metrics = result.metrics
    yield f"  {'final equity':26}{metrics['final_equity']:>14,.2f}"
    for label, name, format_value in MEASURES:
        yield f"  {label_measure(label, name, result):26}{format_value(metrics[name]):>14}"
    yield from describe_sample(result)


def summarize_risk(result: Any) -> Iterator[str]:
    """Yield the leverage, the targets, and how the positions diversified."""
    metrics = result.metrics
    yield from format_paragraph(
        "Leverage",
        f"{format_leverage(metrics['mean_leverage'])} gross on average, at most "
        f"{format_leverage(metrics['peak_leverage'])}; "
        f"net {format_leverage(metrics['mean_net_leverage'])}; peak margin ratio "
        f"{format_percent(metrics['peak_margin_ratio'])}",
        *describe_cap(result.account.max_gross_leverage, metrics),
    )
    rows = [row for row in result.cut_rows if row["instrument"] == "all"]
    boundless = count_boundless(result)
    more = [f"an infinite leverage asked for at {boundless:,} closes"] if boundless else []
    idle = [
        row["instrument"]
        for row in result.cut_rows
        if row["cause"] == "all" and not (row["decisions"] and row["mean_asked"])
    ]
    if idle and len(idle) < len(result.names) and not boundless:
        more.append(f"never a target but 0 for {', '.join(idle)}")
    yield from format_paragraph("Targets", *describe_targets(rows, " per instrument"), *more)
    fills = int((result.events["kind"] == "fill").sum())
    turnover = format_number(metrics["turnover"])
    yield from format_paragraph(
        "Trading", f"{fills:,} fills; turnover {turnover} times equity per year"
    )
    yield from format_paragraph(
        "Diversity",
        f"diversification ratio {format_number(metrics['diversification_ratio'])}, "
        f"{format_number(metrics['effective_bets'])} effective bets of {len(result.names)}",
    )
    yield from format_paragraph("Benchmark", describe_benchmark(result.manifest, metrics))


def describe_cap(cap: float, metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield how far prices carried the gross leverage over its cap; nothing without a cap."""
    if cap == math.inf:
        return
    if metrics["gross_over_cap"] > 0.0:
        yield (
            f"above the cap of {format_leverage(cap)} at "
            f"{format_percent(metrics['gross_over_cap'])} of closes: the cap limits targets at "
            "fills, not what prices do between them"
        )
    else:
        yield f"never above the cap of {format_leverage(cap)} at a close"


def count_boundless(result: Any) -> int:
    """Return the number of closes at which a policy asked for an infinite leverage."""
    return int(np.isinf(field(result.positions_record, "target")).any(axis=1).sum())


def summarize_instruments(result: Any) -> Iterator[str]:
    """Yield the money of each instrument by term."""
    table = result.attribution()
    shown = table.loc[:, (table != 0.0).any(axis=0)]
    if shown.empty:
        yield "No instrument made or cost anything."
        return
    yield from shown.to_string(float_format=lambda x: f"{round(x, 2) + 0.0:,.2f}").splitlines()


# ------------------------------------------------------------------------------ what happened


def summarize_events(result: Any) -> Iterator[str]:
    """Yield liquidations with their causes, then stops, margin calls and ruin."""
    metrics = result.metrics
    count = int(metrics["liquidations"])
    lost = (
        f"{count:,}, loss {metrics['liquidation_loss']:,.2f}, bad debt {metrics['bad_debt']:,.2f}"
    )
    yield from format_paragraph("Liquidations", lost if count else "none", *list_cases(result))
    failed = metrics["calls_failed"]
    more = f" ({failed:.0f} failed)" if failed > 0.0 else ""
    others = [f"stops {metrics['stops']:.0f}", f"margin calls {metrics['margin_calls']:.0f}{more}"]
    delisted = int((result.events["kind"] == "delisted").sum())
    others += [f"delisted {delisted}"] if delisted else []
    yield from format_paragraph("Other events", ", ".join(others))
    if metrics["ruined"]:
        yield from format_paragraph(
            "RUINED",
            f"{result.span.describe_close(result.tally.ruin)}, after "
            f"{metrics['ruin_time']:,.1f} days: equity {metrics['final_equity']:,.2f}, no trade "
            "since",
        )


def list_cases(result: Any) -> Iterator[str]:
    """Yield the liquidations of the pool in words: their causes, and who closed in profit."""
    table = result.contagion()
    groups = list(table.groupby("liquidation", sort=True))
    for number, causes in groups[:MOST_CASES]:
        yield f"liquidation {number}, {describe_case(causes)}"
    if len(groups) > MOST_CASES:
        yield f"and {len(groups) - MOST_CASES} more: result.contagion()"


def describe_case(causes: pd.DataFrame) -> str:
    """Return one liquidation in words."""
    when = causes["time"].iloc[0].strftime("%Y-%m-%d %H:%M")
    fallen = causes[causes["share"] > 0.0].sort_values("share", ascending=False, kind="stable")
    shares = ", ".join(
        f"{name} {format_percent(float(share), 0)}"
        for name, share in zip(fallen["cause"], fallen["share"], strict=True)
    )
    pulled = causes.loc[causes["profit"] > 0.0, "cause"]
    rest = f"; closed in profit: {', '.join(pulled)}" if len(pulled) else ""
    return f"{when}: caused by {shares}{rest}"


def summarize_checks(result: Any) -> Iterator[str]:
    """Yield which data were filled in, and what was checked."""
    instruments = result.manifest["data"]["instruments"]
    notes = {f"{name}, ": each.get("filled", {}) for name, each in instruments.items()}
    yield from describe_checks(result.manifest, notes)
