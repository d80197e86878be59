"""What a run declares: its parts, and their tables.

From top to bottom: the list of the parts, each part in the order of the page, and the JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest import core
from backtest.account.events import Event
from backtest.account.money import COSTS, MONEY_TERMS
from backtest.core.code_names import pd
from backtest.core.number_text import Head
from backtest.core.result_parts import MONEY, Part, Shown, ShownChart, ShownTable
from backtest.engine.target_cuts import WORDS
from backtest.report import run_charts
from backtest.report.option_charts import list_first_charts
from backtest.report.option_parts import list_option_costs, list_option_history
from backtest.report.overview import draw_overview
from backtest.report.page import list_heads, name_unit
from backtest.report.rate_notes import name_term
from backtest.report.run_figures import count_days
from backtest.report.run_sentences import (
    SMALLEST_SHOWN,
    describe_equity_stops,
    find_pauses,
    pick_account_cuts,
)
from backtest.report.trade_parts import choose_trades, is_adjusted, list_trades, name_trades
from backtest.results import phases, run_record
from backtest.results.limit_orders import count_limit_orders
from backtest.results.measure_table import ABOUT, find_cost_rates
from backtest.results.promises import judge_promises, split_volatility
from backtest.results.rolls import collect_options
from backtest.results.run_record import find_currency

if TYPE_CHECKING:
    from backtest.results import Result


LEAST_SHARE = 0.05
"""Limits are mentioned if they moved the decisions that they touched by this share on average."""


def list_parts(result: Result) -> list[Part]:
    """Return the parts of the page in their order."""
    parts = [
        *list_account_parts(result),
        *list_position_parts(result),
        *list_money_parts(result),
    ]
    if result.options is not None:
        parts += list_option_parts(result)
    return [*parts, *list_trade_parts(result), *list_record_parts(result)]


def list_account_parts(result: Result) -> list[Part]:
    return [
        Part(
            key="payoff",
            title="Options",
            lead="What they pay, and how their value moves.",
            blocks=lambda: list_first_charts(result),
        ),
        Part(
            key="equity",
            title="The account over time",
            lead="",
            blocks=lambda: [draw_overview(result)],
        ),
        Part(
            key="promise",
            title="Did the policy keep its promise?",
            lead="What the policy declares, and what it realized.",
            blocks=lambda: [tabulate_promises(result)],
            shows="both",
            is_half=True,
        ),
        Part(
            key="target",
            title="Realized volatility over the target",
            lead="The factors multiply.",
            blocks=lambda: [tabulate_factors(result)],
            is_half=True,
        ),
        Part(
            key="computed",
            title="What the policy computed",
            lead="Columns that it decides on, at closes.",
            blocks=lambda: run_charts.list_charted(result),
        ),
        Part(
            key="returns",
            title="Returns",
            lead="By month and year, and how they are distributed.",
            blocks=lambda: run_charts.list_returns(result),
        ),
        Part(
            key="rolling",
            title="Over time",
            lead="How steady the account was.",
            blocks=lambda: run_charts.list_rolling(result),
        ),
    ]


def list_position_parts(result: Result) -> list[Part]:
    return [
        Part(
            key="drawdowns",
            title="Drawdowns",
            lead="At bar closes, free of deposits.",
            blocks=lambda: [tabulate_falls(result)],
            is_half=True,
        ),
        Part(
            key="liquidations",
            title="Liquidations",
            lead="What was closed by force, and why.",
            blocks=lambda: list_liquidations(result),
            shows="both",
            is_half=True,
        ),
        Part(
            key="pauses",
            title="Pauses after equity stops",
            lead=describe_equity_stops(result),
            blocks=lambda: list_pauses(result),
            shows="both",
            is_half=True,
        ),
        Part(
            key="positions",
            title="Margin",
            lead="What the positions tied up, and how much of it they needed.",
            blocks=lambda: run_charts.list_positions(result),
        ),
    ]


def list_money_parts(result: Result) -> list[Part]:
    return [
        Part(
            key="exposure",
            title="Instruments",
            lead="What was held, and which instruments carried risk and profit.",
            blocks=lambda: list_instruments(result),
        ),
        Part(
            key="costs",
            title="Costs",
            lead="From price to profit; the terms add up.",
            blocks=lambda: list_costs(result),
            shows="both",
        ),
    ]


def list_option_parts(result: Result) -> list[Part]:
    return [
        Part(
            key="costs of options",
            title="Cost of options",
            lead="",
            blocks=lambda: list_option_costs(result),
            shows="both",
        ),
        Part(
            key="options",
            title="Options over time",
            lead=("What each cost, and which part of their profit each Greek explains."),
            blocks=lambda: list_option_history(result),
        ),
    ]


def list_trade_parts(result: Result) -> list[Part]:
    is_cut = has_large_cuts(result)
    return [
        Part(
            key="lots" if is_adjusted(result) else "trades",
            title=name_trades(result),
            lead="After all costs; the year is the year of exit.",
            blocks=lambda: list_trades(result),
        ),
        Part(
            key="phases",
            title="Market phases",
            lead="When it gained, and what it paid then.",
            blocks=lambda: list_phases(result),
        ),
        Part(
            key="targets",
            title="Targets",
            lead="How far each limit kept the account from its target leverage.",
            blocks=lambda: [tabulate_targets(result)],
            shows="both" if is_cut else "page",
            is_folded=not is_cut,
        ),
    ]


def list_record_parts(result: Result) -> list[Part]:
    return [
        Part(
            key="happened",
            title="Other events",
            lead="How often what else happened.",
            blocks=lambda: [tabulate_rare_events(result)],
            shows="summary",
        ),
        Part(
            key="events",
            title="Event ledger",
            lead="All events in order. Search by any word.",
            blocks=lambda: [tabulate_ledger(result)],
            is_folded=True,
        ),
        Part(
            key="measures",
            title="All measures",
            lead=f"{MONEY} docs/metrics.md defines each measure.",
            blocks=lambda: [tabulate_measures(result)],
            is_folded=True,
        ),
    ]


def has_large_cuts(result: Result) -> bool:
    """Return whether a limit moved what it touched by a share that is mentioned."""
    cuts = result.target_cut_rows
    totals = pick_account_cuts(cuts)
    if not totals or not totals[0]["decisions"] > 0:
        return False

    usual_target = abs(totals[0]["mean_asked"])
    for cut in cuts[1:]:
        if cut["cause"] == "all":
            continue
        target = max(abs(cut["mean_asked"]), usual_target)
        if cut["mean_distance"] >= LEAST_SHARE * target:
            return True
    return False


# The parts of the page, in its order.


def tabulate_promises(result: Result) -> ShownTable:
    rows = {}
    for promise in judge_promises(result):
        bound, realized = write_promise(promise)
        verdict = str(promise["verdict"])
        if math.isfinite(promise["n_needed"]):
            needed = f"{promise['n']:,} of about {promise['n_needed']:,.0f} observations"
            verdict = f"{verdict}: {needed}"
        rows[str(promise["name"])] = {
            "promised": f"{promise['rule']} {bound}",
            "realized": realized,
            "verdict": verdict,
        }

    return ShownTable(
        rows or None,
        caption="Promises",
        note="Bounds have a tolerance. In parentheses: 95 % intervals, by which they are judged.",
        labels=Head("promise"),
    )


def write_promise(promise: Mapping[str, Any]) -> tuple[str, str]:
    """Return the bound of a promise and what was realized, as texts."""
    measure = str(promise["measure"])
    horizon = float(promise["horizon"])
    is_count = measure == "liquidations" and horizon > 0.0
    write = core.format_number
    if is_count or is_share(measure):
        write = core.format_percent

    bound = write(promise["bound"])
    if horizon:
        bound = f"{bound} in {horizon:,.0f} bars"

    low = promise["low"]
    high = promise["high"]
    if is_count:
        counts = f"{promise['value']:,.0f}; {promise['expected']:,.2f} expected"
        return bound, f"{counts} ({low:,.0f} to {high:,.0f})"

    realized = write(promise["value"])
    if low < high:
        realized = f"{realized} ({write(low)} to {write(high)})"
    return bound, realized


def is_share(measure: str) -> bool:
    """Return whether a measure is a fraction, which reads as a percentage."""
    if measure == "volatility" or measure not in ABOUT:
        return True
    return name_unit(measure) != ABOUT[measure].unit


FACTORS = {
    "bias": "bias of the forecast, mean r² over mean sigma²",
    "dispersion": "dispersion of the forecast, which adds leverage where it is too low",
    "rest": "band, caps, fills and the sampling period",
    "realized": "(realized / target)², the product",
}


def tabulate_factors(result: Result) -> ShownTable:
    """Show why volatility differed from its target, where the policy promises one."""
    promises = result.promises
    is_target = (promises["measure"] == "volatility") & (promises["rule"] == "about")
    targets = promises.loc[is_target, "bound"]
    split = None
    if not targets.empty:
        split = split_volatility(result, float(targets.iloc[0]))

    table = None
    if split is not None:
        table = split.rename(index=FACTORS).to_frame("factor")
    return ShownTable(
        table,
        caption="Volatility over its target",
        note="r are returns of the mark by bar, sigma their volatility as forecast before them.",
        labels=Head("factor of"),
        heads=list_heads("decimals", ("factor",), unit=""),
    )


def tabulate_falls(result: Result) -> ShownTable:
    """Show the drawdowns that are not shallow beside the worst."""
    falls = run_charts.find_drawdowns(result)
    falls = falls[falls["depth"] >= run_charts.SHALLOW * falls["depth"].max()]

    style = "%Y-%m-%d" if result.span.is_daily else "%Y-%m-%d %H:%M"
    shown = falls.copy()
    for name in run_charts.DATED:
        shown[name] = falls[name].dt.strftime(style).fillna("not yet")
    shown.index = pd.Index(range(1, len(shown) + 1), name="rank")

    heads = {
        "depth": Head("depth", "", "percent"),
        "peak": Head("peak", "UTC"),
        "trough": Head("trough", "UTC"),
        "recovery": Head("recovered", "UTC"),
        "days_down": Head("falling", "days", "days"),
        "days_under_water": Head("under water", "days", "days"),
    }
    return ShownTable(
        shown[[*heads]],
        caption="Worst drawdowns",
        note="One that has not recovered counts to the end.",
        labels=Head("rank", "", "count"),
        heads=heads,
        empty="The account never closed below an earlier peak: there is no drawdown.",
    )


LEAST_CAUSE = 0.005
"""A cause of a liquidation is named from half a percent of the fall on."""


def list_liquidations(result: Result) -> list[Shown]:
    if not (result.entries["kind"] == Event.LIQUIDATED).any():
        return []
    return [tabulate_liquidations(result), tabulate_causes(result)]


def tabulate_liquidations(result: Result) -> ShownTable:
    events = result.events.assign(instrument=result.events["instrument"].astype(str))

    # The loss of a liquidation beyond the price move is the event after it.
    has_loss = events["kind"].shift(-1) == "liquidation_loss"
    events["loss"] = events["amount"].shift(-1).where(has_loss, 0.0)

    hits = events[events["kind"] == "liquidation"].set_index("time")
    shown = hits[["instrument", "price", "amount", "loss"]].copy()
    shown["equity"] = result.bars["equity"].loc[hits.index].to_numpy()
    return ShownTable(
        shown,
        caption="Liquidations",
        labels=Head("bar", "UTC"),
        heads={
            **list_heads("money", ("loss", "equity"), unit=""),
            "price": Head("price", "", "price"),
            "amount": Head("notional", "", "money"),
        },
    )


def tabulate_causes(result: Result) -> ShownTable:
    """Show what brought a cross account down, and what it closed in profit."""
    rows = {}
    for _, group in result.contagion().groupby("liquidation"):
        causes = group[group["share"] >= LEAST_CAUSE]
        causes = causes.sort_values("share", ascending=False)
        winners = group[group["profit"] > 0.0]

        shares = []
        for cause, share in zip(causes["cause"], causes["share"], strict=True):
            shares.append(f"{cause} {core.format_percent(share)}")
        profits = []
        for cause, profit in zip(winners["cause"], winners["profit"], strict=True):
            profits.append(f"{cause} {core.format_money(profit)}")
        rows[group["time"].iloc[0]] = {
            "causes": ", ".join(shares),
            "closed in profit": ", ".join(profits) or "none",
        }

    return ShownTable(
        rows or None,
        caption="Liquidation attribution of cross positions",
        note=(
            "A cause is a share of the fall of what backs the positions over their requirement "
            "since the last high of the account. Profit is since the entry, at the prices of the "
            "liquidation."
        ),
        labels=Head("time", "UTC"),
    )


def list_pauses(result: Result) -> list[Shown]:
    """Return a table of when the account stayed out after equity stops; nothing if it never did."""
    pauses = find_pauses(result)
    if len(pauses.begins) == 0:
        return []

    until = []
    for end in pauses.ends.tolist():
        if end == pauses.last:
            until.append("end")
        else:
            until.append(core.format_time(end))

    begins = core.utc_index(pauses.begins).rename("from")
    shown = pd.DataFrame({"until": until, "days": pauses.days}, index=begins)

    heads = {"until": Head("until", "UTC"), "days": Head("days", "", "decimals")}
    return [ShownTable(shown, labels=Head("from", "UTC"), heads=heads)]


def list_instruments(result: Result) -> list[Shown]:
    """Return the charts by instrument, and the use of capital beside the correlations."""
    if result.has_one_position:
        return []

    *charts, last = run_charts.list_exposure(result)
    capital = tabulate_capital(result)
    if isinstance(last, ShownChart) and last.size == "beside":
        return [*charts, capital, last]
    return [*charts, last, capital]


DUST = 1e-9
"""Share of the capital, or of the largest amount, that is the rounding of sums, not money."""


def tabulate_capital(result: Result) -> ShownTable:
    """Show what each instrument used of the capital, and what it earned with that."""
    table = result.capital()
    largest = table.loc["account", ["mean_margin", "profit"]].abs().max()
    if not largest > DUST * result.account.capital:
        table = table.drop(index="account")

    money = ("mean_margin", "peak_margin", "profit")
    return ShownTable(
        table,
        caption="Use of capital",
        note=(
            "Initial margin at closes; use is margin over equity, the return is a year's profit. "
            "Risk is the share of the variance: before with equal weights, after as held."
        ),
        labels=Head("instrument"),
        heads={
            **list_heads("percent", table, unit=""),
            **list_heads("money", money, unit=""),
        },
    )


def list_costs(result: Result) -> Iterator[Shown | Callable[[], ShownChart]]:
    yield tabulate_statement(result)
    yield tabulate_instruments(result)
    yield lambda: run_charts.draw_costs(result)


def tabulate_statement(result: Result) -> ShownTable:
    """Show how the equity at the start became that at the end."""
    terms = list_statement(result)
    start = run_record.find_start(result)
    largest = max(abs(start), *(abs(term.amount) for term in terms))

    rows = {"equity at the start": write_amount(start)}
    for term in terms:
        share = ""
        if term.rate is not None:
            share = core.format_percent(term.rate)
        rows[term.words] = {"amount": format_signed(term.amount, largest), "rate": share}

    rows["equity at the end"] = write_amount(result.metrics["final_equity"])
    reserve = float(result.of_account("reserve")[-1])
    if reserve > 0.0:
        rows["left in the reserve"] = write_amount(reserve)

    days = count_days(result)
    period = "a year"
    if not run_record.shows_growth(days):
        period = f"in {days:,.0f} days"
    currency = find_currency(result) or "money"
    return ShownTable(
        rows,
        caption="Statement of the account",
        labels=Head("statement"),
        heads={
            **list_heads("money", ("amount",), unit=currency),
            "rate": Head(period, "of equity", "percent"),
        },
    )


def write_amount(amount: float) -> dict[str, str]:
    """Return the row of an amount that is no change, and has no rate."""
    return {"amount": core.format_money(amount), "rate": ""}


class StatementTerm(NamedTuple):
    """A term of the change of equity: its words, its signed amount, and the rate of some costs."""

    words: str
    amount: float
    rate: float | None = None


def list_statement(result: Result) -> list[StatementTerm]:
    """Return the change of equity term by term: the amounts add up to it.

    Rates are of the mean equity, a year, of a run of few days over all of it.
    """
    metrics = result.metrics
    rates = find_cost_rates(result.tally, result.span)
    if not run_record.shows_growth(count_days(result)):
        rates = {name: rate * result.span.years for name, rate in rates.items()}

    terms: list[StatementTerm] = []
    for term in MONEY_TERMS:
        amount = term.sign * metrics.get(term.name, 0.0)
        is_moved = amount != 0.0 and term.name != "flows"
        if term.name != "price_pnl" and not is_moved:
            continue
        rate = None
        if term.name in COSTS:
            rate = -rates[term.name]
        terms.append(StatementTerm(name_term(result, term), amount, rate))

    # Flows are two terms: what was paid in or out, and what the reserve paid in.
    top_ups = metrics["top_ups"]
    deposits = metrics["flows"] - top_ups
    if deposits != 0.0:
        terms.append(StatementTerm("deposits and withdrawals", deposits))
    if top_ups != 0.0:
        terms.append(StatementTerm("top-ups from the reserve", top_ups))
    return terms


def format_signed(amount: float, largest: float) -> str:
    """Format an amount with its sign, with the decimals of the largest one of its column."""
    if amount == 0.0:
        return "0"

    text = core.format_money(amount)
    if abs(largest) >= 10.0 and abs(amount) >= SMALLEST_SHOWN:
        text = f"{amount:z,.2f}"
    if amount > 0.0:
        return f"+{text}"
    return text


def tabulate_instruments(result: Result) -> ShownTable:
    """Show the money of each instrument, without rows and columns of rounding alone."""
    if result.has_one_position:
        return ShownTable(None)

    table = result.attribution("instrument")
    dust = DUST * float(np.max(np.abs(table.to_numpy()), initial=0.0))
    shown = table.where(table.abs() > dust, 0.0)
    is_money = shown != 0.0
    shown = shown.loc[is_money.any(axis=1), is_money.any(axis=0)]

    note = "Here costs that were paid are positive, and are subtracted."
    if "account" in shown.index:
        note = f"{note} The row of the account belongs to no instrument."
    return ShownTable(
        shown,
        caption="Money by instrument",
        note=note,
        labels=Head("instrument"),
        heads=list_heads("money", shown, unit=""),
        empty="No instrument made or cost anything.",
    )


PHASE_TITLES = {
    "volatility": ("Volatility of 30 days", "chance"),
    "trend": ("Trend of 90 days", "decimals"),
    "drawdown": ("Fall from the high of up to 365 days", "chance"),
    "bull_bear": ("Bull and bear markets", "decimals"),
}
"""Titles of tables of phases, and how the edges of their phases are written."""


def list_phases(result: Result) -> Iterator[Shown]:
    """Yield a table of each way to name phases that tells at least two apart."""
    columns = phases.list_columns(result)
    labeled = [name for name in columns if name not in phases.BUILT_IN]
    for column in (*phases.BUILT_IN, *labeled):
        if column in labeled and not phases.has_labels(columns[column], column):
            continue
        if column == phases.BULL_BEAR and not phases.has_months(result.time):
            continue

        table = result.measures_by(column)
        known = table.drop(index=phases.NOT_YET, errors="ignore")
        if len(known) > 1:
            title, style = PHASE_TITLES.get(column, (column, "decimals"))
            yield tabulate_phases(table, title, style)


PHASE_HEADS = {
    "log_growth": Head("growth", "log", "growth"),
    "mean_leverage": Head("leverage", "mean", "turns"),
    "p_value": Head("p-value", "growth", "p-value"),
}
"""What a page shows of phases: as many columns as three tables in a row have room for."""


def tabulate_phases(table: pd.DataFrame, title: str, style: str) -> ShownTable:
    sentences = list(table.attrs["says"])
    heads = PHASE_HEADS
    columns = [*PHASE_HEADS]
    if "from" in table:
        sentences.append("Each phase has as many bars of this run, so its edges are its own.")
        heads = {"from": Head("range", "", style, until="to"), **PHASE_HEADS}
        columns = ["from", "to", *PHASE_HEADS]
    sentences.append("`result.measures_by()` has all columns.")

    return ShownTable(
        table[columns],
        caption=title,
        note=" ".join(sentences),
        labels=Head("market"),
        heads=heads,
    )


CUT_HEADS = {
    "instrument": Head("instrument"),
    "decisions": Head("decisions", "", "count"),
    "share": Head("share", "", "percent"),
    "mean_asked": Head("target", "mean", "turns"),
    "mean_held": Head("actual", "mean", "turns"),
    "mean_shortfall": Head("target less actual", "mean", "turns"),
    "mean_distance": Head("tracking gap", "mean", "turns"),
    "days": Head("days", "", "count"),
}


def tabulate_targets(result: Result) -> ShownTable:
    """Show how far each limit moved the decisions that it touched."""
    rows = pd.DataFrame(list(result.target_cut_rows))
    if not len(rows):
        return ShownTable(rows, empty="The result was saved without the cuts of its targets.")

    rows.index = pd.Index([WORDS.get(cause, "all decisions") for cause in rows["cause"]])
    columns = [name for name in CUT_HEADS if name in rows]
    return ShownTable(
        rows[columns],
        caption="Target and actual leverage",
        note=(
            "Leverage at the fill price, before its costs. Target less actual is negative where "
            "the limit left more leverage than the target; the tracking gap is its absolute value."
        ),
        labels=Head("limit"),
        heads=CUT_HEADS,
    )


def tabulate_rare_events(result: Result) -> ShownTable:
    """Count the events that no other part of the summary shows."""
    kinds = Counter(Event(kind).kind.name for kind in result.entries["kind"].tolist())
    shown_elsewhere = ("", *run_charts.COMMON, "liquidation")

    rows = {}
    for name, count in kinds.items():
        if name not in shown_elsewhere:
            rows[name.replace("_", " ")] = {"times": count}
    return ShownTable(rows, labels=Head("other events"), empty="")


CALLS = ("margin_call", "call_met", "call_partly_met", "call_failed")
"""Events whose amount is a margin ratio."""


def tabulate_ledger(result: Result) -> ShownTable:
    """Show the events in order; the cost of a trade is in the row of its fill."""
    events = result.events
    is_cost = events["kind"].isin(run_charts.PARTS_OF_TRADES).to_numpy()
    costs = sum_costs(events["amount"].to_numpy(), is_cost)
    rows = run_charts.choose_rows(events)

    shown = events.loc[rows]
    is_ratio = shown["kind"].isin(CALLS)
    columns = {
        "event": shown["kind"].astype(str).str.replace("_", " "),
        "instrument": shown["instrument"].astype(str),
        "price": shown["price"],
        "quantity": shown["quantity"].where(shown["quantity"] != 0.0),
        "amount": shown["amount"].where(~is_ratio),
    }
    if is_ratio.any():
        columns["ratio"] = shown["amount"].where(is_ratio)
    columns["cost"] = pd.Series(costs[rows], shown.index)
    table = pd.DataFrame(columns)

    note = (
        "The time is the open of the bar in which it happened. The amount of a trade is its "
        "notional; funding above 0 is paid. The cost of a trade is its fee, slippage and impact, "
        "of a liquidation its loss beyond the price move."
    )
    n_events = int((~is_cost).sum())
    if len(rows) < n_events:
        note = (
            f"{len(rows):,} of {n_events:,} events: every liquidation, stop, call and flow that "
            f"fits, and the largest fills and payments. All are in result.events. {note}"
        )
    return ShownTable(
        table.set_axis(shown["time"].dt.strftime("%Y-%m-%d %H:%M")),
        caption="Events",
        note=note,
        labels=Head("time", "UTC"),
        heads={
            **list_heads("money", ("amount", "cost")),
            "price": Head("price", "", "price"),
            "quantity": Head("quantity", "contracts"),
            "ratio": Head("margin ratio", "", "percent"),
        },
        most=run_charts.MAX_ROWS,
        is_searched=True,
    )


def sum_costs(amounts: core.FloatArray, is_cost: core.BoolArray) -> core.FloatArray:
    """Return the costs of each event, NaN without any; costs follow their event."""
    n_events = len(amounts)
    places = np.where(is_cost, -1, np.arange(n_events))
    owners = np.maximum(np.maximum.accumulate(places), 0)

    sums = np.bincount(owners, weights=np.where(is_cost, amounts, 0.0), minlength=n_events)
    counts = np.bincount(owners, weights=is_cost, minlength=n_events)
    return np.where(counts > 0.0, sums, np.nan)


def tabulate_measures(result: Result) -> ShownTable:
    rows = {}
    for name, value in result.metrics.items():
        unit = name_unit(name) if name in ABOUT else ""
        rows[name] = {"value": value, "unit": unit}
    return ShownTable(
        rows,
        caption="All measures",
        labels=Head("measure"),
        heads={"value": Head("value", "", "decimals"), "unit": Head("unit")},
        has_measures=True,
    )


def collect_run(result: Result) -> dict[str, Any]:
    """Return what the JSON of a run holds."""
    manifest = result.manifest
    trades = choose_trades(result)
    falls = run_charts.find_drawdowns(result)
    falls = falls.astype(dict.fromkeys(run_charts.DATED, str))

    events = {}
    for kind, count in result.events["kind"].value_counts().items():
        if count:  # a category without events is counted too
            events[str(kind)] = int(count)

    limits: dict[str, Any] = {}
    if result.account.fill == "limit":
        limits["limit_orders"] = count_limit_orders(result.limit_orders)
    first = run_record.find_first_decision(result)
    decided_from = None
    if first is not None:
        decided_from = core.format_time(int(result.time[first]))

    return {
        "id": manifest["id"],
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
        "attribution": collect_attribution(result),
        "drawdowns": falls.to_dict("records"),
        "contagion": result.contagion().astype({"time": str}).to_dict("records"),
        "trades": {
            "view": trades.view,
            "measures": trades.measures.to_dict(),
            "unallocated": trades.unallocated.to_dict(),
        },
        **limits,
        **collect_options(result),
        "events": events,
        "target_cuts": list(result.target_cut_rows),
        "no_fill": result.no_fill or None,
        "decided_from": decided_from,
        "infinite_leverage": run_record.count_boundless(result),
        "manifest": manifest,
    }


def collect_attribution(result: Result) -> dict[Any, Any]:
    """Return the terms of log growth of one position, or of money by instrument."""
    split = result.attribution()
    if result.has_one_position:
        return {**split.terms.to_dict(), "growth": split.growth}
    return dict(split.to_dict("index"))
