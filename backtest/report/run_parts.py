"""What a run declares: its tables and charts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest import core
from backtest.account.events import Event
from backtest.account.money import COSTS, MONEY_TERMS
from backtest.core.code_names import pd
from backtest.core.number_text import Head
from backtest.core.result_parts import Part, Shown, ShownChart, ShownTable
from backtest.engine.target_cuts import WORDS
from backtest.report import run_charts
from backtest.report.option_parts import list_charts, list_tables
from backtest.report.overview import draw_overview
from backtest.report.page import list_heads, name_unit
from backtest.report.run_figures import count_days
from backtest.report.run_sentences import describe_equity_stops, find_pauses
from backtest.report.trade_parts import choose_trades, is_adjusted, list_trades, name_trades
from backtest.results import phases, run_record
from backtest.results.limit_orders import count_limit_orders
from backtest.results.measure_table import ABOUT, find_cost_rates
from backtest.results.promises import judge_promises, split_volatility
from backtest.results.rolls import collect_options

if TYPE_CHECKING:
    from backtest.results import Result


LEAST_SHARE = 0.05
"""Limits are mentioned if they moved the decisions that they touched by this share on average."""


def list_pauses(result: Result) -> list[Shown]:
    pauses = find_pauses(result)
    if len(pauses.begins) == 0:
        return []

    until = ["end" if end == pauses.last else core.format_time(end) for end in pauses.ends.tolist()]
    begins = core.utc_index(pauses.begins).rename("from")
    shown = pd.DataFrame({"until": until, "days": pauses.days}, index=begins)
    heads = {"until": Head("until", "UTC"), "days": Head("days", "", "decimals")}
    return [ShownTable(shown, labels=Head("from", "UTC"), heads=heads)]


def list_parts(result: Result) -> list[Part]:
    names = Counter(Event(kind).kind.name for kind in result.entries["kind"].tolist())
    told = ("", *run_charts.COMMON, "liquidation")
    rare = {name.replace("_", " "): {"times": n} for name, n in names.items() if name not in told}
    rows = {name: {"value": value, "unit": name_unit(name) if name in ABOUT else ""}
            for name, value in result.metrics.items()}  # fmt: skip
    heads = {"value": Head("value", "", "decimals"), "unit": Head("unit")}
    measures = ShownTable(rows, "All measures", "", Head("measure"), heads, has_measures=True)
    cuts = result.target_cut_rows
    total = next((row for row in cuts if row.get("instrument", "all") == "all"), None)
    has_cuts = (
        total is not None
        and total["decisions"] > 0
        and any(
            row["cause"] != "all"
            and row["mean_distance"]
            >= LEAST_SHARE * max(abs(row["mean_asked"]), abs(total["mean_asked"]))
            for row in cuts[1:]
        )
    )
    return [
        Part("equity", "The account over time", "", lambda: [draw_overview(result)]),
        Part("promise", "Did the policy keep its promise?",
             "What the policy declares, and what it realized.",
             lambda: [tabulate_promises(result)], "both", is_half=True),
        Part("target", "Realized volatility over the target", "The factors multiply.",
             lambda: [tabulate_factors(result)], is_half=True),
        Part("computed", "What the policy computed", "Columns that it decides on, at closes.",
             lambda: run_charts.list_charted(result)),
        Part("returns", "Returns", "By month and year, and how they are distributed.",
             lambda: run_charts.list_returns(result)),
        Part("rolling", "Over time", "How steady the account was.",
             lambda: run_charts.list_rolling(result)),
        Part("drawdowns", "Drawdowns", "At bar closes, free of deposits.",
             lambda: list_falls(result), is_half=True),
        Part("liquidations", "Liquidations", "What was closed by force, and why.",
             lambda: list_liquidations(result), "both", is_half=True),
        Part("pauses", "Pauses after equity stops", describe_equity_stops(result),
             lambda: list_pauses(result), "both", is_half=True),
        Part("positions", "Margin", "What the positions tied up, and how much of it they needed.",
             lambda: run_charts.list_positions(result)),
        Part("exposure", "Instruments",
             "What was held, and which instruments carried risk and profit.",
             lambda: [] if result.has_one_position
             else list_instruments(result)),
        Part("costs", "Costs", "From price to profit; the terms add up.",
             lambda: list_costs(result), "both"),
        *([Part("costs of options", "Cost of options", "", lambda: list_tables(result), "both"),
           Part("options", "Options over time", "What the options added to the account's leverage, "
                "what they cost, which part of their profit each Greek explains.",
                lambda: list_charts(result))] if result.options is not None else []),
        Part("lots" if is_adjusted(result) else "trades", name_trades(result),
             "After all costs; the year is the year of exit.", lambda: list_trades(result)),
        Part("phases", "Market phases", "When it gained, and what it paid then.",
             lambda: list_phases(result)),
        Part("targets", "Targets",
             "How far each limit kept the account from its target leverage.",
             lambda: [tabulate_targets(result)], "both" if has_cuts else "page",
             is_folded=not has_cuts),
        Part("happened", "Other events", "How often what else happened.",
             lambda: [ShownTable(rare, labels=Head("other events"), empty="")], "summary"),
        Part("events", "Event ledger", "All events in order. Search by any word.",
             lambda: [tabulate_ledger(result)], is_folded=True),
        Part("measures", "All measures",
             "Money is in the settlement currency. docs/metrics.md "
             "defines each measure.", lambda: [measures], is_folded=True),
    ]  # fmt: skip


def list_costs(result: Result) -> Iterator[Shown | Callable[[], ShownChart]]:
    rows, reserve = list_statement(result), float(result.of_account("reserve")[-1])
    start, end = run_record.find_start(result), result.metrics["final_equity"]
    largest = max(abs(start), *(abs(amount) for _, amount, _ in rows))
    lines = {"equity at the start": {"amount": core.format_money(start), "rate": ""}}
    for words, amount, rate in rows:
        share = "" if rate is None else core.format_percent(rate)
        lines[words] = {"amount": format_signed(amount, largest), "rate": share}
    lines["equity at the end"] = {"amount": core.format_money(end), "rate": ""}
    if reserve > 0.0:
        lines["left in the reserve"] = {"amount": core.format_money(reserve), "rate": ""}
    heads = list_heads("money", ("amount",), run_charts.find_currency(result) or "money")
    is_yearly = run_record.shows_growth(count_days(result))
    per = "a year" if is_yearly else f"in {count_days(result):,.0f} days"
    heads |= {"rate": Head(per, "of equity", "percent")}
    yield ShownTable(lines, "Statement of the account", "", Head("statement"), heads)
    yield tabulate_instruments(result)
    yield lambda: run_charts.draw_costs(result)


def list_statement(result: Result) -> list[tuple[str, float, float | None]]:
    """Return the change of equity term by term: words, amount, and the rate of some costs.

    Rates are of the mean equity, a year, of a run of few days over all of it.
    """
    metrics, rates = result.metrics, find_cost_rates(result.tally, result.span)
    if not run_record.shows_growth(count_days(result)):
        rates = {name: rate * result.span.years for name, rate in rates.items()}
    rows: list[tuple[str, float, float | None]] = []
    for term in MONEY_TERMS:
        amount = term.sign * metrics.get(term.name, 0.0)
        if term.name == "price_pnl" or (amount != 0.0 and term.name != "flows"):
            rows.append((term.words, amount, -rates[term.name] if term.name in COSTS else None))
    moved = {"deposits and withdrawals": metrics["flows"] - metrics["top_ups"]}
    moved["top-ups from the reserve"] = metrics["top_ups"]
    return rows + [(words, amount, None) for words, amount in moved.items() if amount != 0.0]


def format_signed(amount: float, largest: float) -> str:
    """Format an amount with its sign, with the decimals of the largest one of its column."""
    if amount == 0.0:
        return "0"
    is_large = abs(largest) >= 10.0 and abs(amount) >= 0.005
    text = f"{amount:,.2f}" if is_large else core.format_money(amount)
    return f"{'+' * (amount > 0.0)}{text}"


def tabulate_instruments(result: Result) -> ShownTable:
    if result.has_one_position:
        return ShownTable(None)
    table = result.attribution("instrument")
    dust = 1e-9 * float(np.max(np.abs(table.to_numpy()), initial=0.0))
    shown = table.where(table.abs() > dust, 0.0)
    shown = shown.loc[(shown != 0.0).any(axis=1), (shown != 0.0).any(axis=0)]
    note = "Here costs that were paid are positive, and are subtracted."
    if "account" in shown.index:
        note += " The row of the account belongs to no instrument."
    return ShownTable(shown, "Money by instrument", note, Head("instrument"),
                      list_heads("money", shown, unit=""),
                      empty="No instrument made or cost anything.")  # fmt: skip


def list_instruments(result: Result) -> list[Shown]:
    """Return the charts by instrument, and the use of capital beside the correlations."""
    *charts, last = run_charts.list_exposure(result)
    capital = tabulate_capital(result)
    is_map = isinstance(last, ShownChart) and last.size == "beside"
    return [*charts, capital, last] if is_map else [*charts, last, capital]


def tabulate_capital(result: Result) -> ShownTable:
    table = result.capital()
    own = table.loc["account", ["mean_margin", "profit"]].abs().max()
    shown = table if own > 1e-9 * result.account.capital else table.drop(index="account")
    money = list_heads("money", ("mean_margin", "peak_margin", "profit"), "")
    note = (
        "Initial margin at closes; use is margin over equity, the return is a year's profit. Risk "
        "is the share of the variance: before with equal weights, after as held."
    )
    return ShownTable(shown, "Use of capital", note, Head("instrument"),
                      list_heads("percent", shown, "") | money)  # fmt: skip


PHASE_TITLES = {
    "volatility": ("Volatility of 30 days", "chance"),
    "trend": ("Trend of 90 days", "decimals"),
    "drawdown": ("Fall from the high of up to 365 days", "chance"),
    "bull_bear": ("Bull and bear markets", "decimals"),
}


def list_phases(result: Result) -> Iterator[Shown]:
    """Return a table of each way to name phases that tells at least two apart."""
    columns = phases.list_columns(result)
    labeled = [name for name in columns if name not in phases.BUILT_IN]
    for column in (*phases.BUILT_IN, *labeled):
        title, style = PHASE_TITLES.get(column, (column, "decimals"))
        if column in labeled and not phases.has_labels(columns[column], column):
            continue
        if column == phases.BULL_BEAR and not phases.has_months(result.time):
            continue
        table = result.measures_by(column)
        if len(table.drop(index=phases.NOT_YET, errors="ignore")) > 1:
            yield tabulate_phases(table, title, style)


PHASE_HEADS = {
    "log_growth": Head("growth", "log", "growth"),
    "mean_leverage": Head("leverage", "mean", "turns"),
    "p_value": Head("p-value", "growth", "p-value"),
}
"""What a page shows of phases: as many columns as three tables in a row have room for."""


def tabulate_phases(table: pd.DataFrame, title: str, style: str) -> ShownTable:
    texts = list(table.attrs["says"])
    heads = PHASE_HEADS
    columns = [*PHASE_HEADS]
    if "from" in table:
        texts.append("Each phase has as many bars of this run, so its edges are its own.")
        heads = {"from": Head("range", "", style, until="to"), **PHASE_HEADS}
        columns = ["from", "to", *PHASE_HEADS]
    texts.append("result.measures_by() has all columns.")
    return ShownTable(table[columns], title, " ".join(texts), Head("market"), heads)


FACTORS = {
    "bias": "bias of the forecast, mean r² over mean sigma²",
    "dispersion": "dispersion of the forecast, which adds leverage where it is too low",
    "rest": "band, caps, fills and the sampling period",
    "realized": "(realized / target)², the product",
}


def tabulate_promises(result: Result) -> ShownTable:
    rows = {}
    for row in judge_promises(result):
        name, horizon = str(row["measure"]), float(row["horizon"])
        is_share = name not in ABOUT or name_unit(name) != ABOUT[name].unit or name == "volatility"
        is_count = name == "liquidations" and horizon > 0.0
        style = core.format_percent if is_share or is_count else core.format_number
        bound = style(row["bound"]) + f" in {horizon:,.0f} bars" * bool(horizon)
        value = style(row["value"])
        if is_count:
            value = f"{row['value']:,.0f}; {row['expected']:,.2f} expected "
            value += f"({row['low']:,.0f} to {row['high']:,.0f})"
        elif row["low"] < row["high"]:
            value += f" ({style(row['low'])} to {style(row['high'])})"
        verdict = str(row["verdict"])
        if math.isfinite(row["n_needed"]):
            verdict += f": {row['n']:,} of about {row['n_needed']:,.0f} observations"
        rows[str(row["name"])] = {
            "promised": f"{row['rule']} {bound}",
            "realized": value,
            "verdict": verdict,
        }
    note = "Bounds have a tolerance. In parentheses: 95 % intervals, by which they are judged."
    return ShownTable(rows or None, "Promises", note, Head("promise"))


def tabulate_factors(result: Result) -> ShownTable:
    found = result.promises
    targets = found.loc[(found["measure"] == "volatility") & (found["rule"] == "about"), "bound"]
    split = None if targets.empty else split_volatility(result, float(targets.iloc[0]))
    table = None if split is None else split.rename(index=FACTORS).to_frame("factor")
    note = "r are returns of the mark by bar, sigma their volatility as forecast before them."
    return ShownTable(table, "Volatility over its target", note, Head("factor of"),
                      list_heads("decimals", ("factor",), ""))  # fmt: skip


def list_falls(result: Result) -> list[Shown]:
    falls = run_charts.find_drawdowns(result)
    falls = falls[falls["depth"] >= run_charts.SHALLOW * falls["depth"].max()]
    style = "%Y-%m-%d" if result.span.is_daily else "%Y-%m-%d %H:%M"
    shown = falls.assign(**{name: falls[name].dt.strftime(style).fillna("not yet")
                            for name in run_charts.DATED})  # fmt: skip
    shown.index = pd.Index(range(1, len(shown) + 1), name="rank")
    heads = {
        "depth": Head("depth", "", "percent"), "peak": Head("peak", "UTC"),
        "trough": Head("trough", "UTC"), "recovery": Head("recovered", "UTC"),
        "days_down": Head("falling", "days", "days"),
        "days_under_water": Head("under water", "days", "days"),
    }  # fmt: skip
    note = "One that has not recovered counts to the end."
    empty = "The account never closed below an earlier peak: there is no drawdown."
    return [ShownTable(shown[[*heads]], "Worst drawdowns", note,
                       Head("rank", "", "count"), heads, empty=empty)]  # fmt: skip


def list_liquidations(result: Result) -> list[Shown]:
    if not (result.entries["kind"] == Event.LIQUIDATED).any():
        return []
    events = result.events.assign(instrument=result.events["instrument"].astype(str))
    is_loss = events["kind"].shift(-1) == "liquidation_loss"
    events["loss"] = events["amount"].shift(-1).where(is_loss, 0.0)
    hits = events[events["kind"] == "liquidation"].set_index("time")
    shown = hits[["instrument", "price", "amount", "loss"]].assign(
        equity=result.bars["equity"].loc[hits.index].to_numpy()
    )
    heads = list_heads("money", ("loss", "equity"), "") | {
        "price": Head("price", "", "price"), "amount": Head("notional", "", "money"),
    }  # fmt: skip
    rows = {}
    for _, group in result.contagion().groupby("liquidation"):
        shares = group[group["share"] >= 0.005].sort_values("share", ascending=False)
        winners = group[group["profit"] > 0.0]
        pairs = zip(shares["cause"], shares["share"], strict=True)
        won = zip(winners["cause"], winners["profit"], strict=True)
        rows[group["time"].iloc[0]] = {
            "causes": ", ".join(f"{cause} {core.format_percent(share)}" for cause, share in pairs),
            "closed in profit": ", ".join(f"{cause} {core.format_money(x)}" for cause, x in won)
            or "none",
        }
    note = (
        "A cause is a share of the fall of what backs the positions over their requirement since "
        "the last high of the account. Profit is since the entry, at the prices of the liquidation."
    )
    return [
        ShownTable(shown, "Liquidations", labels=Head("bar", "UTC"), heads=heads),
        ShownTable(rows or None, "Liquidation attribution of cross positions", note,
                   Head("time", "UTC")),
    ]  # fmt: skip


def tabulate_targets(result: Result) -> ShownTable:
    rows = pd.DataFrame(list(result.target_cut_rows))
    if not len(rows):
        return ShownTable(rows, empty="The result was saved without the cuts of its targets.")
    rows.index = pd.Index([WORDS.get(cause, "all decisions") for cause in rows["cause"]])
    means = {"mean_asked": "target", "mean_held": "actual", "mean_shortfall": "target less actual",
             "mean_distance": "tracking gap"}  # fmt: skip
    turns = {name: Head(label, "mean", "turns") for name, label in means.items()}
    heads = {
        "instrument": Head("instrument"), "decisions": Head("decisions", "", "count"),
        "share": Head("share", "", "percent"), **turns, "days": Head("days", "", "count"),
    }  # fmt: skip
    note = (
        "Leverage at the fill price, before its costs. Target less actual is negative where the "
        "limit left more leverage than the target; the tracking gap is its absolute value."
    )
    shown = rows[[name for name in heads if name in rows]]
    return ShownTable(shown, "Target and actual leverage", note, Head("limit"), heads)


def tabulate_ledger(result: Result) -> ShownTable:
    events = result.events
    rows, n = run_charts.choose_rows(events), len(events)
    is_cost = events["kind"].isin(run_charts.PARTS_OF_TRADES).to_numpy()
    owner = np.maximum(np.maximum.accumulate(np.where(is_cost, -1, np.arange(n))), 0)
    paid = np.bincount(owner, weights=np.where(is_cost, events["amount"], 0.0), minlength=n)
    has_cost = np.bincount(owner, weights=is_cost, minlength=n) > 0.0
    shown = events.loc[rows].assign(cost=np.where(has_cost, paid, np.nan)[rows])
    total = int((~is_cost).sum())
    is_ratio = shown["kind"].isin(["margin_call", "call_met", "call_partly_met", "call_failed"])
    table = pd.DataFrame({
        "event": shown["kind"].astype(str).str.replace("_", " "),
        "instrument": shown["instrument"].astype(str),
        "price": shown["price"],
        "quantity": shown["quantity"].where(shown["quantity"] != 0.0),
        "amount": shown["amount"].where(~is_ratio),
        **({"ratio": shown["amount"].where(is_ratio)} if is_ratio.any() else {}),
        "cost": shown["cost"],
    }).set_axis(shown["time"].dt.strftime("%Y-%m-%d %H:%M"))  # fmt: skip
    heads = list_heads("money", ("amount", "cost")) | {
        "price": Head("price", "", "price"), "quantity": Head("quantity", "contracts"),
        "ratio": Head("margin ratio", "", "percent"),
    }  # fmt: skip
    note = (
        "The time is the open of the bar in which it happened. The amount of a trade is its "
        "notional; funding above 0 is paid. The cost of a trade is its fee, slippage and impact, "
        "of a liquidation its loss beyond the price move."
    )
    if len(rows) < total:
        note = (
            f"{len(rows):,} of {total:,} events: every liquidation, stop, call and flow that "
            f"fits, and the largest fills and payments. All are in result.events. {note}"
        )
    return ShownTable(table, "Events", note, Head("time", "UTC"), heads, most=run_charts.MAX_ROWS,
                      is_searched=True)  # fmt: skip


def collect_run(result: Result) -> dict[str, Any]:
    trades, split = choose_trades(result), result.attribution()
    counts, manifest = result.events["kind"].value_counts(), result.manifest
    falls, limits = run_charts.find_drawdowns(result), dict[str, Any]()
    first = run_record.find_first_decision(result)
    if result.account.fill == "limit":
        limits["limit_orders"] = count_limit_orders(result.limit_orders)
    return {
        "id": manifest["id"],
        "policy": manifest["policy"]["text"],
        "data": manifest["data"],
        "metrics": dict(result.metrics),
        "attribution": {**split.terms.to_dict(), "growth": split.growth}
        if result.has_one_position
        else dict(split.to_dict("index")),
        "drawdowns": falls.astype(dict.fromkeys(run_charts.DATED, str)).to_dict("records"),
        "contagion": result.contagion().astype({"time": str}).to_dict("records"),
        "trades": {
            "view": trades.view,
            "measures": trades.measures.to_dict(),
            "unallocated": trades.unallocated.to_dict(),
        },
        **limits,
        **collect_options(result),
        "events": {str(kind): int(n) for kind, n in counts.items() if n},
        "target_cuts": list(result.target_cut_rows),
        "no_fill": result.no_fill or None,
        "decided_from": None if first is None else core.format_time(int(result.time[first])),
        "infinite_leverage": run_record.count_boundless(result),
        "manifest": manifest,
    }
