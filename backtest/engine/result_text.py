"""The text summary of a run, for a terminal of 80 columns or more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account.leverage_limits import describe_limit
from backtest.account.multiple import Multiple
from backtest.base.number_text import (
    format_bps,
    format_number,
    format_percent,
    format_price,
    format_setting,
)
from backtest.base.text_layout import capitalize, format_paragraph
from backtest.base.units import DAY, format_span, format_time
from backtest.engine.benchmark import describe_benchmark
from backtest.engine.checks_text import describe_checks
from backtest.engine.loop_inputs import has_order_fee
from backtest.engine.manifest import read_tables
from backtest.engine.run_record import sample_risk_free
from backtest.engine.target_cuts_text import describe_isolated, describe_targets
from backtest.measures.cautions import AFTER_RUIN
from backtest.measures.performance import max_drawdown, ratio, sampled_returns
from backtest.measures.run_measures import COSTS
from backtest.venue.interest import describe_interest, find_charged

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord
    from backtest.venue import Venue
    from backtest.venue.dated_tables import InUse

FILLS = {
    "next_close": "fills at the next close",
    "same_close": "fills at the close of the decision (optimistic: at a price known before)",
}
"""When decisions fill, if not at the next open."""
WARM = 24
"""Bars without a decision at the start that are not mentioned."""
SHORT = 330.0
"""Days of a run under which its yearly figures are said to be extrapolated."""
MOST_LISTED = 8
"""Number of liquidations that are listed; the others are counted."""
MEASURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("total return", "total_return", format_percent),
    ("cagr", "cagr", format_percent),
    ("volatility, annual", "volatility", format_percent),
    ("Sharpe", "sharpe", format_number),
    ("Sortino", "sortino", format_number),
    ("max drawdown", "max_drawdown", format_percent),
    ("Calmar", "calmar", format_number),
    ("VaR 95 % of {} returns", "var_95", format_percent),
    ("ES 95 %", "es_95", format_percent),
    ("VaR 99 %", "var_99", format_percent),
    ("ES 99 %", "es_99", format_percent),
)
"""The rows of the table of measures: label, measure and format."""
RATIOS = ("sharpe", "sortino")
"""Measures that are marked if the account was ruined: returns after the ruin count as 0."""


class BuyAndHold(NamedTuple):
    """Measures of holding the instrument unlevered: price only, no costs."""

    total_return: float
    volatility: float
    sharpe: float
    max_drawdown: float


def write_summary(result: RunRecord) -> str:
    """Return what happened to the account: data, measures, costs, liquidations, checks.

    Lines are at most 80 characters wide where no single word is wider, without colors. Money is
    in the settlement currency.
    """
    sections = (
        summarize_setting, compare_measures, summarize_risk, summarize_account, summarize_events,
        summarize_checks,
    )  # fmt: skip
    return "\n\n".join("\n".join(section(result)) for section in sections)


# --------------------------------------------------------------------------------------- what ran


def summarize_setting(result: RunRecord) -> Iterator[str]:
    """Yield the policy, the data, the venue and the account, a paragraph each."""
    if result.no_fill:
        yield from format_paragraph("NO FILL", f"no order was filled: {result.no_fill}")
    yield from format_paragraph("Policy", str(result.manifest["policy"]["text"]))
    yield from format_paragraph("Data", *describe_market(result))
    yield from format_paragraph(
        "Venue", describe_venue(result.manifest, result.venue), *describe_table_dates(result)
    )
    account = filter(None, (describe_account(result), describe_isolated(result.account)))
    yield from format_paragraph("Account", *account)


def describe_market(result: RunRecord) -> Iterator[str]:
    """Yield the instrument and its span, and the caveats of the data."""
    data = result.manifest["data"]
    name = data["instrument"] or "unnamed instrument"
    span = format_span(data)
    yield f"{name}, {span}, {data['bars']:,} bars of {data['interval']}"
    if data["synthetic"]:
        yield "SYNTHETIC: these prices are made up"
    if data["liquidations_tested_on"] == "last prices":
        yield "no mark prices: liquidations tested on last prices"
    if "dividends" in data:
        yield f"dividends: {data['dividends']}, booked as funding"
    elif data["funding_events"] == 0:
        yield "no funding rates: none is charged"


def describe_venue(manifest: Mapping[str, Any], venue: Venue) -> str:
    """Return the preset, contract, brackets, costs and liquidation rules, in one sentence."""
    tables = read_tables(manifest, venue)
    parts = [
        "rules of your own" if venue.in_force is None else venue.in_force.preset,
        f"{venue.contract.kind} contract",
        ", then ".join(describe_brackets(each) for each in tables),
        f"taker {format_bps(venue.fees.taker)}",
    ]
    if venue.fees.maker_share > 0.0:
        parts.append(f"maker {format_bps(venue.fees.maker)} for {venue.fees.maker_share:.0%}")
    if venue.fees.tiers:
        parts.append(f"{len(venue.fees.tiers)} fee tiers by volume")
    if has_order_fee(venue):
        per_order = venue.to_dict()["fees"]["per_order"]
        parts.append(f"{format_setting(per_order)} per order")
    parts.append(f"slippage {format_bps(venue.slippage.rate)}")
    if venue.slippage.impact > 0.0:
        parts.append(f"impact {venue.slippage.impact:g}")
    close = venue.liquidation
    parts.append(f"liquidation: {close.mode}")
    if close.mode != "takeover":
        size = f" and impact {close.impact:g}" if close.impact > 0.0 else ""
        parts[-1] += f" at {format_bps(close.slippage)} worse{size}, fee {format_bps(close.fee)}"
    if venue.profit_share() < 1.0:
        parts.append(f"{venue.profit_share():.0%} of unrealized profit backs orders")
    interest = describe_interest(venue.interest_on, venue.rates())
    if interest:
        parts.append(f"interest {interest}")
    return ", ".join(parts)


def describe_brackets(table: InUse) -> str:
    """Return the size and the date of a margin table, in a few words."""
    count = "1 bracket" if len(table.brackets) == 1 else f"{len(table.brackets)} brackets"
    day = "" if table.since is None else f" of {table.since}"
    return f"{count}{day} up to {table.brackets[0].max_leverage:g}x"


def describe_table_dates(result: RunRecord) -> Iterator[str]:
    """Yield a sentence if the margin tables are of other days, or change in the run."""
    text = str(result.manifest.get("margin_table", ""))
    if text.startswith(("the margin table", "the oldest")):
        yield text


def describe_account(result: RunRecord) -> str:
    """Return the margin mode and every setting that is not the default."""
    account = result.account
    setting = account.venue_leverage
    parts = [
        f"{account.margin} margin",
        "venue leverage as needed" if setting is None else f"venue leverage {setting:g}x",
    ]
    shown = {
        "least leverage": account.min_leverage,
        "band": account.band,
        "stop at": account.stop_loss,
        "take profit at": account.take_profit,
        "trailing stop at": account.trailing_stop,
        "equity stop at": account.equity_stop,
        "margin call at": account.margin_call,
        "reserve": account.reserve,
        "top up to": account.top_up_to,
        "ruined at": account.ruin_at,
    }
    parts += [
        f"{name} {value}" if isinstance(value, Multiple) else f"{name} {value:g}"
        for name, value in shown.items()
        if value
    ]
    if limit := describe_limit(account.max_leverage):
        parts.append(f"most leverage {limit}")
    parts += [FILLS[account.fill]] if account.fill in FILLS else []
    if account.flows is not None:
        parts.append(f"{len(account.flows)} dated flows")
    if account.auto_margin:
        parts.append("automatic margin")
    if account.after_liquidation == "halt":
        parts.append("halts after a liquidation")
    signal = str(result.manifest["signal"]).partition(" sha256")[0]
    if signal != "constant 1":
        parts.append(f"signal: {signal}")
    return ", ".join(parts)


# --------------------------------------------------------------------------------------- measures


def compare_measures(result: RunRecord) -> Iterator[str]:
    """Yield the account's measures, next to those of holding the instrument at 1x."""
    held = measure_holding(result)._asdict()
    yield f"{'':28}{'account':>14}{'buy and hold 1x':>20}"
    for label, name, format_value in MEASURES:
        theirs = format_value(held[name]) if name in held else ""
        row = f"  {label_measure(label, name, result):26}"
        yield f"{row}{format_value(result.metrics[name]):>14}{theirs:>20}".rstrip()
    is_inverse = result.venue.contract.kind == "inverse"
    unit = "in the quote currency, " if is_inverse else ""
    yield f"  Buy and hold: the mark price from the first close on; {unit}price only, no costs."
    yield from describe_sample(result)


def label_measure(label: str, name: str, result: RunRecord) -> str:
    """Return the label of a measure; that of a ratio says what a ruined account adds to it."""
    text = label.format(result.manifest["sampling"])
    return f"{text} (0 after ruin)" if name in RATIOS and result.metrics["ruined"] else text


def describe_sample(result: RunRecord) -> Iterator[str]:
    """Yield lines that say that days after ruin count, and that yearly figures are extrapolated."""
    if result.metrics["ruined"]:
        yield f"  {capitalize(AFTER_RUIN)}."
    days = (int(result.span.closes[-1]) - result.span.start) / DAY
    if days < SHORT:
        yield f"  Yearly figures are extrapolated from {days:,.1f} days."


def measure_holding(result: RunRecord) -> BuyAndHold:
    """Return the measures of the mark price itself, from the first close to the last.

    Returns are sampled and annualized as the account's are, over the same risk-free rate.
    """
    unit = result.mark / result.mark[0]
    returns = sampled_returns(unit, result.ends_sample, 1.0)
    excess = returns - sample_risk_free(result)
    periods = result.span.periods
    has_spread = len(returns) > 1
    volatility = float(np.std(returns, ddof=1)) if has_spread else math.nan
    deviation = float(np.std(excess, ddof=1)) if has_spread else math.nan
    return BuyAndHold(
        total_return=float(unit[-1]) - 1.0,
        volatility=volatility * math.sqrt(periods),
        sharpe=ratio(float(np.mean(excess)), deviation, periods) if has_spread else math.nan,
        max_drawdown=max_drawdown(unit),
    )


def summarize_risk(result: RunRecord) -> Iterator[str]:
    """Yield the worst drawdown with its dates, the leverage, the targets, and the trading."""
    metrics = result.metrics
    yield from format_paragraph("Drawdown", describe_drawdown(result))
    yield from format_paragraph(
        "Leverage",
        f"mean {format_number(metrics['mean_leverage'])}, "
        f"peak {format_number(metrics['peak_leverage'])}; "
        f"peak margin ratio {format_percent(metrics['peak_margin_ratio'])}; within 10 % of the "
        f"liquidation price at {format_percent(metrics['near_liquidation_share'])} of closes",
        f"decay {format_percent(metrics['leverage_decay'])} of log growth per year: "
        f"{format_percent(metrics['volatility_drag'])} to volatility, "
        f"{format_percent(metrics['carry_decay'])} to carry",
        f"margin used {format_percent(metrics['mean_margin_used'])} of equity, "
        f"peak {format_percent(metrics['peak_margin_used'])}",
    )
    fills = int((result.events["kind"] == "fill").sum())
    turnover = format_number(metrics["turnover"])
    yield from format_paragraph("Targets", *describe_targets(result.cut_rows))
    yield from format_paragraph(
        "Trading", f"{fills:,} fills; turnover {turnover} times equity per year"
    )
    if result.benchmark is not None:
        yield from format_paragraph("Benchmark", describe_benchmark(result.manifest, metrics))


def describe_drawdown(result: RunRecord) -> str:
    """Return the depth of the worst drawdown, its dates, its length and whether it is over."""
    fall, metrics, span = result.tally.drawdown, result.metrics, result.span
    if fall.low == fall.low_peak:
        return "none"
    is_over = fall.recovered >= 0
    end = f"recovered {span.day_of(fall.recovered)}" if is_over else "not recovered by the end"
    return (
        f"{format_percent(metrics['max_drawdown'])} from {span.day_of(fall.drawdown_peak)} "
        f"to {span.day_of(fall.drawdown_trough)}, {end}; "
        f"{metrics['drawdown_days']:,.0f} days under water"
    )


# ------------------------------------------------------------------------------------- the account


def summarize_account(result: RunRecord) -> Iterator[str]:
    """Yield the statement of the account: from the first equity to the last, with every cost."""
    metrics = result.metrics
    rows = [("price profit and loss", metrics["price_pnl"], "")]
    for name in COSTS:
        rate = -metrics[f"{name}_annual"]
        rows.append((name, -metrics[name], "" if metrics[name] == 0.0 else format_percent(rate)))
    rows += [
        ("liquidation loss", -metrics["liquidation_loss"], ""),
        ("bad debt, the venue's loss", metrics["bad_debt"], ""),
        ("deposits and withdrawals", metrics["flows"] - metrics["top_ups"], ""),
        ("top-ups from the reserve", metrics["top_ups"], ""),
    ]
    final = metrics["final_equity"]
    start = find_start(result)
    decimals = 2 if abs(start) >= 100.0 else 6
    always = ("price profit and loss", *COSTS)
    is_charged = find_charged(result.venue.rates())
    labels = {"interest": f"interest on the {result.venue.interest_on}"} if is_charged else {}
    yield f"{'':28}{'money':>14}{'per year, of equity':>22}"
    yield f"  {'equity at the start':26}{start:>14,.{decimals}f}"
    for name, amount, yearly in rows:
        if amount != 0.0 or name in always:
            money = f"{amount:+,.{decimals}f}" if amount != 0.0 else "0"
            yield f"  {labels.get(name, name):26}{money:>14}{yearly:>22}".rstrip()
    yield f"  {'equity at the end':26}{final:>14,.{decimals}f}"
    if result.state.reserve > 0.0:
        yield f"  {'left in the reserve':26}{result.state.reserve:>14,.{decimals}f}"


def find_start(result: RunRecord) -> float:
    """Return the equity before the first bar, computed back from the first bar."""
    first = result.bars.iloc[0]
    costs = first[[*COSTS, "liquidation_loss"]].sum()
    gains = first[["price_pnl", "flows", "bad_debt"]].sum()
    return float(first["equity"] + costs - gains)


def summarize_events(result: RunRecord) -> Iterator[str]:
    """Yield liquidations one by one, then stops, margin calls, bad debt and ruin."""
    metrics = result.metrics
    count = int(metrics["liquidations"])
    yield from format_paragraph("Liquidations", str(count) if count else "none")
    yield from list_liquidations(result)
    failed = metrics["calls_failed"]
    more = f" ({failed:.0f} failed)" if failed > 0.0 else ""
    others = [f"stops {metrics['stops']:.0f}", f"margin calls {metrics['margin_calls']:.0f}{more}"]
    if metrics["take_profits"] > 0.0:
        others.insert(1, f"take-profits {metrics['take_profits']:.0f}")
    refused = result.events.loc[result.events["kind"] == "withdrawal_refused", "amount"].sum()
    if refused > 0.0:
        others.append(f"withdrawals refused {refused:,.2f}")
    later = result.manifest["data"]["flows_after_the_end"]
    if later:
        others.append(f"flows after the last bar, ignored: {later}")
    boundless = int(np.isinf(result.bars["target"]).sum())
    if boundless:
        others.append(f"an infinite leverage asked for at {boundless:,} closes")
    if metrics["bad_debt"] > 0.0:
        others.append(f"bad debt {metrics['bad_debt']:,.2f}")
    yield from format_paragraph("Other events", ", ".join(others))
    first = int(np.argmax(result.bars["target"].notna()))
    if first > WARM:
        time = format_time(int(result.time[first]))
        text = f"no decision before {time} UTC, bar {first:,}: its columns were not known yet; "
        text += "earlier data, or bt.run(start=...), warm them up"
        yield from format_paragraph("Warming up", text)
    if metrics["ruined"]:
        days = f"{metrics['ruin_time']:,.1f} days"
        when = result.span.describe_close(result.tally.ruin)
        text = f"{when}, after {days}: {describe_left(result)}, no trade since"
        yield from format_paragraph("RUINED", text)


def describe_left(result: RunRecord) -> str:
    """Return the final equity of a ruined account, and its threshold of ruin if any."""
    left = result.metrics["final_equity"]
    text = f"equity {left:,.2f}" if left >= 0.005 else "equity 0"
    line = result.account.ruin_at
    return text if line is None else f"{text}, its line {100.0 * line:g} % of the capital paid in"


def list_liquidations(result: RunRecord) -> Iterator[str]:
    """Yield one line per liquidation: bar, price, notional, loss and equity."""
    events = result.events
    rows = np.flatnonzero(events["kind"] == "liquidation")
    if len(rows) == 0:
        return
    has_loss = events["kind"].shift(-1) == "liquidation_loss"  # it follows its liquidation
    losses = events["amount"].shift(-1).where(has_loss, 0.0)
    yield f"  {'bar (UTC)':18}{'price':>12}{'notional':>15}{'liquidation loss':>18}{'equity':>14}"
    for row in rows[:MOST_LISTED]:
        event = events.iloc[row]
        equity = result.bars["equity"].loc[event["time"]]
        yield (
            f"  {event['time']:%Y-%m-%d %H:%M}  {format_price(event['price']):>12}"
            f"{event['amount']:>15,.2f}{losses.iloc[row]:>18,.2f}{equity:>14,.2f}"
        )
    if len(rows) > MOST_LISTED:
        yield f"  and {len(rows) - MOST_LISTED:,} more"


def summarize_checks(result: RunRecord) -> Iterator[str]:
    """Yield which data were filled in, and what was checked."""
    yield from describe_checks(result.manifest, {"": result.manifest["data"]["filled"]})
