"""The last part of a run's summary: the statement of the account, and what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.account.terms import MONEY_TERMS, SIGNS
from backtest.base import (
    choose_decimals,
    format_number,
    format_paragraph,
    format_percent,
    format_price,
    format_time,
)
from backtest.engine.option_results import explain_options
from backtest.engine.option_rolls import tabulate_rolls
from backtest.measures.measure_table import COSTS, find_cost_rates
from backtest.measures.option_profit import EXPLAINED
from backtest.venue import find_charged

if TYPE_CHECKING:
    from backtest.engine.run_options import RunOptions
    from backtest.engine.run_record import RunRecord

WARM = 24
"""Bars without a decision at the start that are not mentioned."""
MOST_LISTED = 8
"""Number of liquidations that are listed; the others are counted."""
MOST_CASES = 5
"""Liquidations of the pool that a summary tells."""


def summarize_account(result: RunRecord) -> Iterator[str]:
    final = result.metrics["final_equity"]
    start = find_start(result)
    decimals = choose_decimals(start)
    venue = result.venues[result.names[0]]
    is_charged = find_charged(venue.rates())
    labels = {"interest": f"interest on the {venue.interest_on}"} if is_charged else {}
    yield f"{'':28}{'money':>14}{'per year, of equity':>22}"
    yield f"  {'equity at the start':26}{start:>14,.{decimals}f}"
    for name, amount, rate in list_statement(result):
        money = f"{amount:+,.{decimals}f}" if amount != 0.0 else "0"
        yearly = "" if rate is None or amount == 0.0 else format_percent(rate)
        yield f"  {labels.get(name, name):26}{money:>14}{yearly:>22}".rstrip()
    yield f"  {'equity at the end':26}{final:>14,.{decimals}f}"
    reserve = float(result.of_account("reserve")[-1])
    if reserve > 0.0:
        yield f"  {'left in the reserve':26}{reserve:>14,.{decimals}f}"


def list_statement(result: RunRecord) -> Iterator[tuple[str, float, float | None]]:
    """Yield the change of equity term by term: words, amount, and rate per year of some costs."""
    metrics, rates = result.metrics, find_cost_rates(result.tally, result.span)
    for term in MONEY_TERMS:
        amount = term.sign * metrics.get(term.name, 0.0)
        if term.name in COSTS:
            yield term.words, amount, -rates[term.name]
        elif term.name == "price_pnl" or (amount != 0.0 and term.name != "flows"):
            yield term.words, amount, None
    moved = {"deposits and withdrawals": metrics["flows"] - metrics["top_ups"]}
    moved["top-ups from the reserve"] = metrics["top_ups"]
    yield from ((words, amount, None) for words, amount in moved.items() if amount != 0.0)


def find_start(result: RunRecord) -> float:
    first = result.bars.iloc[0]
    gains = sum(sign * first[name] for name, sign in SIGNS.items() if name in first)
    return float(first["equity"] - gains)


def summarize_events(result: RunRecord) -> Iterator[str]:
    metrics = result.metrics
    yield from summarize_liquidations(result)
    yield from format_paragraph("Other events", ", ".join(list_other_events(result)))
    target = result.of_positions("target")
    first = int(np.argmax(~np.isnan(target).all(axis=1)))
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


def summarize_liquidations(result: RunRecord) -> Iterator[str]:
    count, loss = int(result.metrics["liquidations"]), result.metrics["liquidation_loss"]
    cases = [*list_cases(result)]
    decimals = choose_decimals(result.account.capital)
    text = f"{count:,}, loss {loss:,.{decimals}f}" if count else "none"
    yield from format_paragraph("Liquidations", text, *cases)
    if not cases:
        yield from list_liquidations(result)


COUNTED = {
    "delisted": "delisted",
    "margin_added": "margin added",
    "margin_returned": "margin returned",
    "margin_refused": "margin refused",
}


def list_other_events(result: RunRecord) -> list[str]:
    metrics, kinds = result.metrics, result.events["kind"]
    failed = metrics["calls_failed"]
    more = f" ({failed:.0f} failed)" if failed > 0.0 else ""
    late = int((kinds == "time_stop").sum())
    by_time = f" ({late:,} by time)" if late else ""
    others = [f"stops {metrics['stops']:.0f}{by_time}"]
    others += [f"margin calls {metrics['margin_calls']:.0f}{more}"]
    if metrics["take_profits"] > 0.0:
        others.insert(1, f"take-profits {metrics['take_profits']:.0f}")
    for kind, words in COUNTED.items():
        if count := int((kinds == kind).sum()):
            others.append(f"{words} {count:,}")
    others += list_option_events(kinds)
    refused = result.events.loc[kinds == "withdrawal_refused", "amount"].sum()
    if refused > 0.0:
        others.append(f"withdrawals refused {refused:,.2f}")
    if later := result.manifest["data"].get("flows_after_the_end"):
        others.append(f"flows after the last bar, ignored: {later}")
    if boundless := count_boundless(result):
        others.append(f"an infinite leverage asked for at {boundless:,} closes")
    if metrics["bad_debt"] > 0.0:
        others.append(f"bad debt {metrics['bad_debt']:,.2f}")
    return others


def list_cases(result: RunRecord) -> Iterator[str]:
    groups = list(result.contagion().groupby("liquidation", sort=True))
    for number, causes in groups[:MOST_CASES]:
        yield f"liquidation {number}, {describe_case(causes)}"
    if len(groups) > MOST_CASES:
        yield f"and {len(groups) - MOST_CASES} more: result.contagion()"


def describe_case(causes: pd.DataFrame) -> str:
    when = causes["time"].iloc[0].strftime("%Y-%m-%d %H:%M")
    fallen = causes[causes["share"] > 0.0].sort_values("share", ascending=False, kind="stable")
    shares = ", ".join(
        f"{name} {format_percent(float(share), 0)}"
        for name, share in zip(fallen["cause"], fallen["share"], strict=True)
    )
    pulled = causes.loc[causes["profit"] > 0.0, "cause"]
    rest = f"; closed in profit: {', '.join(pulled)}" if len(pulled) else ""
    return f"{when}: caused by {shares}{rest}"


def describe_left(result: RunRecord) -> str:
    left = result.metrics["final_equity"]
    text = f"equity {left:,.2f}" if left >= 0.005 else "equity 0"
    line = result.account.ruin_at
    return text if line is None else f"{text}, its line {100.0 * line:g} % of the capital paid in"


def list_liquidations(result: RunRecord) -> Iterator[str]:
    events = result.events
    rows = np.flatnonzero(events["kind"] == "liquidation")
    if len(rows) == 0:
        return
    has_loss = events["kind"].shift(-1) == "liquidation_loss"  # it follows its liquidation
    losses = events["amount"].shift(-1).where(has_loss, 0.0)
    decimals = choose_decimals(result.account.capital)
    yield f"  {'bar (UTC)':18}{'price':>12}{'notional':>15}{'liquidation loss':>18}{'equity':>14}"
    for row in rows[:MOST_LISTED]:
        event = events.iloc[row]
        equity = result.bars["equity"].loc[event["time"]]
        yield (
            f"  {event['time']:%Y-%m-%d %H:%M}  {format_price(event['price']):>12}"
            f"{event['amount']:>15,.{decimals}f}{losses.iloc[row]:>18,.{decimals}f}"
            f"{equity:>14,.{decimals}f}"
            f"{'  ' + event['instrument'] if result.diversity else ''}"
        )
    if len(rows) > MOST_LISTED:
        yield f"  and {len(rows) - MOST_LISTED:,} more"


def count_boundless(result: RunRecord) -> int:
    return int(np.isinf(result.of_positions("target")).any(axis=1).sum())


def describe_options(result: RunRecord, options: RunOptions) -> Iterator[str]:
    metrics, decay = result.metrics, result.metrics["premium_decay"]
    turns = [format_number(metrics[f"{name}_options_leverage"]) for name in ("mean", "peak")]
    does = "lose" if decay > 0.0 else "earn"
    yield (
        f"{len(options.names):,} held; leverage by delta mean {turns[0]}, peak {turns[1]}; they "
        f"{does} {format_percent(abs(decay))} of equity a day by time"
    )
    total = explain_options(result, options, "option").loc["total"]
    places = choose_decimals(result.account.capital)
    parts = ", ".join(f"{name} {total[name]:+,.{places}f}" for name in EXPLAINED)
    share = metrics["unexplained_share"]
    yield (
        f"price profit {total['price_pnl']:+,.{places}f}: {parts}; the rests are "
        f"{format_percent(share)} of the moves of single bars"
    )
    yield from describe_rolls(result, options)
    yield from describe_hedging(result)
    yield "quotes fill orders of any size: their depth is not in the data"


def describe_rolls(result: RunRecord, options: RunOptions) -> Iterator[str]:
    table = tabulate_rolls(result, options, "leg")
    for leg, row in table.iloc[: -1 if len(table) == 2 else None].iterrows():
        n = int(row["rolls"])
        premium, proceeds, fees, spread, cost = (
            format_percent(float(row[name]))
            for name in ("premium", "proceeds", "fees", "spread", "cost")
        )
        yield (
            f"{leg}: {n:,} {'roll' if n == 1 else 'rolls'}; premium {premium}, proceeds "
            f"{proceeds}, fees {fees}: a cost of {cost} of mean equity a year, with {spread} of "
            "spread paid"
        )


def describe_hedging(result: RunRecord) -> Iterator[str]:
    places = choose_decimals(result.account.capital)
    for name, row in result.hedging_error().iterrows():
        yield (
            f"hedged with {name}: profit {row['profit']:+,.{places}f}, by gamma "
            f"{row['theory']:+,.{places}f}; error {row['error']:+,.{places}f}, standard deviation "
            f"{row['deviation']:,.{places}f} (of a hedge at each close "
            f"{row['expected_deviation']:,.{places}f}); costs of the hedge "
            f"{row['costs']:,.{places}f}"
        )


def list_option_events(kinds: pd.Series) -> list[str]:
    counts = kinds.value_counts()
    words = {"expiry": "expiries", "unquoted": "orders without a quote"}
    return [f"{words[kind]} {counts[kind]:,}" for kind in words if counts.get(kind, 0)]
