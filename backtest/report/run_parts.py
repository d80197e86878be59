"""What a run declares: its figures, tables and charts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest import core
from backtest.account.account import find_pause_ends
from backtest.account.events import Event
from backtest.account.money import COSTS, MONEY_TERMS
from backtest.core.code_names import pd
from backtest.core.number_text import STYLES, Head, Measured, strip_marks
from backtest.core.result_parts import Panel, Part, Shown, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.engine.target_cuts import WORDS
from backtest.market import split_notes
from backtest.policies import sets_margin
from backtest.policies.combinators import SCHEDULED
from backtest.report import run_charts
from backtest.report.basis import describe_filled
from backtest.report.overview import draw_overview
from backtest.report.page import list_heads, name_unit
from backtest.report.rate_notes import list_rate_notes
from backtest.report.run_figures import count_days
from backtest.results import phases, run_record
from backtest.results.benchmark import describe_benchmark
from backtest.results.limit_orders import count_limit_orders, describe_limit_orders
from backtest.results.measure_table import ABOUT, find_cost_rates
from backtest.results.option_profit import EXPLAINED
from backtest.results.promises import judge_promises, split_volatility
from backtest.results.ranking import DOUBTS
from backtest.results.rolls import collect_options
from backtest.results.run_data import find_causes
from backtest.results.run_options import explain_idle_options
from backtest.results.trade_measures import ROLL_COSTS

if TYPE_CHECKING:
    from backtest.results import Result, Trades


LEAST_SHARE = 0.05
"""Limits are mentioned if they moved the decisions that they touched by this share on average."""


def write_verdict(result: Result) -> str:
    return strip_marks(write_marked_verdict(result))


def write_marked_verdict(result: Result) -> str:
    """Return the verdict; its measures are between the marks of :class:`Measured`."""
    metrics, held = result.metrics, run_record.measure_holding(result)
    market = "" if held.name == "1x" else f" of {len(result.names)} instruments, unlevered"
    hits = int(metrics["liquidations"])
    count = Measured(f"{hits:,}", "liquidations", "count").marked
    words = {0: "was never liquidated", 1: "was liquidated once"}
    flows, top_ups = metrics["flows"] - metrics["top_ups"], metrics["top_ups"]
    added = [f"{core.format_money(flows)} of net deposits"] if flows else []
    added += [f"{core.format_money(top_ups)} from the reserve"] if top_ups else []
    victims = int((find_causes(result)["profit"] > 0.0).sum())
    pulled = f" with {victims:,} position{'s' * (victims > 1)} in profit closed too"
    cost = sum(metrics[name] for name in COSTS)
    days = metrics["ruin_time"] if metrics["ruined"] else count_days(result)

    def say(name: str, style: str) -> str:
        return Measured(STYLES[style](metrics[name]), name, style).marked

    return (
        f"{core.format_money(run_record.find_start(result))} became "
        f"{say('final_equity', 'money')}{f' {run_charts.find_currency(result)}'.rstrip()} in "
        f"{days:,.0f} days{', with ' * bool(added)}{' and '.join(added)}: a return "
        f"of {say('total_return', 'percent')}, against "
        f"{core.format_percent(held.total_return)} for buy and hold{market}. The account was at "
        f"most {say('max_drawdown', 'percent')} below its peak, "
        f"{words.get(hits, f'was liquidated {count} times')}"
        f"{pulled * bool(victims)}, and {'paid' if cost >= 0.0 else 'received'} "
        f"{core.format_money(abs(cost))} in {name_costs(metrics)}."
    )


def name_costs(metrics: Mapping[str, float]) -> str:
    """Return the words of the costs that a run had, as in "fees, slippage and funding"."""
    costs = [term.words for term in MONEY_TERMS if term.is_cost and metrics[term.name] != 0.0]
    if not costs:
        return "costs"
    *others, last = costs
    return f"{', '.join(others)} and {last}" if others else last


def write_sentences(find: Callable[[Result], Iterator[str]]) -> Callable[[Result], tuple[str, ...]]:
    """Return a function whose texts are sentences; the name of an instrument stays as it is."""

    def write(result: Result) -> tuple[str, ...]:
        return tuple(
            f"{text if text.startswith(result.names) else core.capitalize(text)}."
            for text in find(result)
        )

    return write


@write_sentences
def list_notices(result: Result) -> Iterator[str]:
    metrics, data = result.metrics, result.manifest["data"]
    if result.no_fill:
        yield f"NO FILL: no order was filled: {result.no_fill}"
    if metrics["ruined"]:
        left, line = metrics["final_equity"], result.account.ruin_at
        of = "" if line is None else f", its line {100.0 * line:g} % of the capital paid in"
        yield (
            f"RUINED {result.span.describe_close(result.tally.ruin)}, after "
            f"{metrics['ruin_time']:,.1f} days: equity {f'{left:,.2f}' if left >= 0.005 else '0'}"
            f"{of}, no trade since. Returns after the ruin count as 0 in volatility, VaR and ES"
        )
    instruments: Mapping[str, Any] = data.get("instruments") or {"": data}
    spot = {name for name, venue in result.venues.items() if venue.contract.is_spot}
    is_spot = "instruments" not in data and bool(spot)
    perpetual = {name: each for name, each in instruments.items()
                 if not (is_spot or name in spot or each.get("sessions"))}  # fmt: skip
    unmarked = [name for name, each in perpetual.items()
                if each.get("liquidations_tested_on") == "last prices"]  # fmt: skip
    if unmarked:
        where = name_those(unmarked)
        yield f"no mark prices{where}: liquidations tested on last prices, which swing wider"
    unfunded = [name for name, each in perpetual.items() if not each.get("funding_events")]
    if unfunded:
        yield f"no funding rates{name_those(unfunded)}: none is charged"
    filled = {name: split_notes(each.get("filled", {}))[0] for name, each in instruments.items()}
    if said := [f"{describe_filled(each)}{name_those([x])}" for x, each in filled.items() if each]:
        yield f"missing values were filled in: {core.clip('; '.join(said), 300)}"
    tables = result.manifest.get("margin_table", "")
    found = tables if isinstance(tables, Mapping) else {"": tables}
    starts = ("the margin table", "the oldest")
    for text in sorted({text for text in found.values() if text.startswith(starts)}):
        names = [name for name, each in found.items() if each == text and name]
        yield f"{', '.join(names)}: {text}" if names else text
    if idle := explain_idle_options(result):
        yield idle
    if boundless := run_record.count_boundless(result):
        yield f"an infinite target leverage at {boundless:,} closes"
    first = run_record.find_first_decision(result)
    if first is not None and first > 0:
        yield (
            f"decided from {core.format_time(int(result.time[first]))} UTC on, bar {first:,}: "
            "before, its columns were not known yet; earlier data, or bt.run(start=...), warm them "
            "up"
        )
    yield from list_rate_notes(result)
    if later := data.get("flows_after_the_end"):
        yield f"flows after the last bar, ignored: {later}"


def name_those(names: list[str]) -> str:
    return f" of {core.clip(', '.join(names), 120)}" if any(names) else ""


def write_details(result: Result) -> str:
    short = run_record.describe_short(result.span.start, result.span.closes[-1])
    texts = [short] if short else []
    cap, metrics = result.account.max_gross_leverage, result.metrics
    if math.isfinite(cap) and (over := metrics["gross_over_cap"]) > 0.0:
        counts = {row["cause"]: row["decisions"] for row in result.target_cut_rows
                  if row.get("instrument", "all") == "all"}  # fmt: skip
        taken, by_bands = counts.get("cap_over_band", 0), counts.get("band_over_cap", 0)
        by_bands /= result.record.n_bars
        parts = {"bands had left it there at the fills, up to a tenth above": by_bands,
                 "prices carried it there": max(over - by_bands, 0.0)}  # fmt: skip
        texts.append(
            f"Gross leverage was above the cap of {cap:.2f}x at "
            f"{core.format_percent(over)} of closes: "
            f"{', '.join(f'at {core.format_percent(x)} {w}' for w, x in parts.items() if x)}."
        )
        texts += [f"The cap forced {taken:,} trades inside their bands."] if taken else []
    if stops := describe_equity_stops(result):
        texts.append(stops)
    if result.account.fill == "limit":
        texts.append(f"Limit orders: {describe_limit_orders(result.limit_orders)}.")
    # how many bars hang on the way of prices inside them, and where to look
    bound = "" if result.account.fill == "limit" else "bounds() gives the worst case, "
    cures = {"ambiguous_bars": bound, "both_reached": "the worse is assumed to come first; "}
    firsts = (result.tally.first_ambiguous, result.tally.first_both)
    for (measure, doubt), first in zip(DOUBTS.items(), firsts, strict=True):
        if n := metrics[measure]:
            time = core.format_time(int(result.time[int(first) - result.span.first]))
            bars = f"In {n:,.0f} bar{'s' * (n > 1)}, first {time} UTC,"
            texts.append(f"{bars} {doubt}: {cures[measure]}detail= uses shorter bars.")
    return " ".join(texts)


def describe_equity_stops(result: Result) -> str:
    """Return how often the equity stop acted, and for how long the account stayed out."""
    is_stop = result.entries["kind"] == Event.EQUITY_STOPPED
    times = len(np.unique(result.entries["bar"][is_stop]))
    pauses = find_pauses(result)
    if times == 0 and len(pauses.begins) == 0:
        return ""
    often = "once" if times == 1 else f"{times:,} times"
    text = f"The equity stop acted {often}"
    if len(pauses.begins) == 0:
        return f"{text}."
    share = core.format_percent(float(pauses.days.sum()) / count_days(result))
    return f"{text}; the account stayed out {share} of the time."


class Pauses(NamedTuple):
    """When the account stayed out after equity stops: times, ns, at most the end of the run."""

    begins: core.IntArray
    ends: core.IntArray
    last: int

    @property
    def days(self) -> core.FloatArray:
        days: core.FloatArray = (self.ends - self.begins) / DAY
        return days


def find_pauses(result: Result) -> Pauses:
    """Return the pauses of a run, each from the open of the bar in which it began."""
    begun = result.entries["bar"][result.entries["kind"] == Event.PAUSED]
    opens = result.time[begun - result.span.first]
    last = int(result.span.closes[-1])
    ends = np.minimum(find_pause_ends(result.account, opens), last)
    return Pauses(opens, ends.astype(np.int64), last)


def list_pauses(result: Result) -> list[Shown]:
    pauses = find_pauses(result)
    if len(pauses.begins) == 0:
        return []

    until = ["end" if end == pauses.last else core.format_time(end) for end in pauses.ends.tolist()]
    begins = core.utc_index(pauses.begins).rename("from")
    shown = pd.DataFrame({"until": until, "days": pauses.days}, index=begins)
    heads = {"until": Head("until", "UTC"), "days": Head("days", "", "decimals")}
    return [ShownTable(shown, labels=Head("from", "UTC"), heads=heads)]


@write_sentences
def list_assumptions(result: Result) -> Iterator[str]:
    account = result.account
    yield run_record.measure_holding(result).text
    if result.benchmark is not None:
        yield describe_benchmark(result.manifest, result.metrics)
    if account.fill == "same_close":
        yield "fills at the close of the decision are optimistic: at a price known before"
    if account.intrabar == "worst":
        yield "each position meets its adverse extreme at once: a bound, not an estimate"
    if sets_margin(result.policies):
        yield "a policy decides the venue leverage of its position, and moves margin with it"
    for name, venue in result.venues.items():
        if venue.margin is not None:
            yield f"the margin table of {name} moves by rule: {venue.margin!r}"
    isolated: dict[str, list[str]] = {}
    for name in result.names:
        own = account.for_instrument(name)
        if own.margin == "isolated":
            rest = "is added to it before a liquidation" if own.auto_margin else "does not back it"
            text = (f"isolated: the margin of a position is its notional / "
                    f"{own.venue_leverage or 1.0:g}, the venue leverage; the rest of the "
                    f"available balance {rest}")  # fmt: skip
            isolated.setdefault(text, []).append(name)
    for text, names in isolated.items():
        yield text if len(names) == len(result.names) else f"{', '.join(names)} {text}"
    if result.options is not None:
        yield "quotes fill orders of any size: their depth is not in the data"


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


FILLS_PER_TRIP = 20
"""Fills per round trip from which the page shows lots: the policy keeps its position adjusted."""
GROUPED = {
    "trades": Head("closed", "", "count"), "open": Head("open", "", "count"),
    "win_rate": Head("win rate", "", "percent"),
    "profit_factor": Head("profit factor", "", "decimals"),
    **list_heads("money", ("expectancy", "mean_win", "mean_loss", "best", "worst")),
    "longest_losing_run": Head("losing run", "trades", "count"),
    "mean_days": Head("held", "days, mean", "decimals"),
}  # fmt: skip
VIEWS = {
    "trip": "A round trip goes from flat to flat.",
    "fifo": "The account adjusts its position all the time, so lots are shown: contracts that one "
    "fill opened and a later one closed, first in first out. result.trades has the round trips.",
}
NOUNS = {"trip": "round trips", "fifo": "lots"}
"""What a page calls the trades that it shows."""


def choose_trades(result: Result) -> Trades:
    trades = result.trades
    return trades.lots("fifo") if is_adjusted(result) else trades


def is_adjusted(result: Result) -> bool:
    """Return whether most fills adjust a position, so that lots say more than round trips."""
    fills = int((result.entries["kind"] == Event.FILL).sum())
    trips = result._round_trips
    return fills > FILLS_PER_TRIP * max(trips["trades"] + trips["open"], 1)


def name_trades(result: Result) -> str:
    return core.capitalize(NOUNS["fifo" if is_adjusted(result) else "trip"])


def list_trades(result: Result) -> list[Shown]:
    trades = choose_trades(result)
    closed = pd.DataFrame(trades)[(trades["ended"] != "open").to_numpy()]
    if closed.empty:
        return []
    missing = trades.unallocated[trades.unallocated != 0.0].map(core.format_money)
    left = "; ".join(f"{str(name).replace('_', ' ')} {x}" for name, x in missing.items())
    noun = NOUNS[trades.view]
    note = VIEWS[trades.view]
    if left:
        note += f" Money of no {noun.removesuffix('s')}: {left}."
    found, realized = trades.realization(), ""
    is_any = found["realized_gains"] + found["realized_losses"] > 0
    if is_any and not math.isnan(found["difference"]):
        realized = (
            f"The account realized {core.format_percent(found['pgr'])} of the gains and "
            f"{core.format_percent(found['plr'])} of the losses that were open on days held"
            f"{' with a sale' * (len(trades._run.names) > 1)}: a difference of "
            f"{core.format_percent(found['difference'], is_signed=True)}, standard error "
            f"{core.format_percent(found['standard_error'])} if all are independent."
        )
    several = ["instrument"] if trades["instrument"].nunique() > 1 else []
    rows = {"all": trades.measures.to_dict()}
    for by in ("year", "side", *several, "ended"):
        groups = trades.measures_by(by).drop(index="open", errors="ignore")  # type: ignore[arg-type]
        named = groups.to_dict("index") if len(groups) > 1 else {}
        for name, row in named.items():
            year = f"{name:%Y}" if isinstance(name, pd.Timestamp) else str(name)
            rows[f"{by}: {year.replace('_', ' ')}"] = row
    table = pd.DataFrame.from_dict(rows, orient="index")[[*GROUPED]].astype(np.float64)
    shown = table.loc[:, (table.fillna(0.0) != 0.0).any(axis=0)]
    factor = "Profit factor: gross profit over gross loss."
    heads = GROUPED | {"longest_losing_run": Head("losing run", noun, "count")}
    measures = ShownTable(shown, f"Measures of {noun}", factor, Head(noun), heads)
    return [note, measures, realized, *run_charts.list_trade_charts(closed, noun)]


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


MONEY = (
    "options", "hedge", "profit", "theory", "error", "deviation", "expected_deviation", "costs",
)  # fmt: skip


def list_tables(result: Result) -> Iterator[Shown]:
    legs = result.rolls("leg")
    legs = legs.iloc[: -1 if len(legs) == 2 else None]
    heads = list_heads("percent", ROLL_COSTS, "a year") | {"rolls": Head("rolls", "", "count")}
    note = (
        "Cost is premium less proceeds, and fees; the spread is what fills were worse than marks."
    )
    yield ShownTable(legs, "Cost by leg, of the mean equity", note, Head("leg"), heads)
    heads = list_heads("money", EXPLAINED) | {"price_pnl": Head("profit", "money", "money")}
    note = (
        "Before fees, slippage and the costs of liquidations. The rests are "
        f"{core.format_percent(result.metrics['unexplained_share'])} of what single options moved "
        "in single bars."
    )
    yield ShownTable(result.explained()[["price_pnl", *EXPLAINED]], "Price profit of each option",
                     note, Head("option"), heads)  # fmt: skip
    if result.options is not None and result.options.hedged:
        table = result.hedging_error().T.loc[[*MONEY, "volatility", "implied_volatility"]]
        table.index = table.index.str.replace("_", " ")
        note = (
            "The deviation is the standard deviation of the error; that expected is of a hedge at "
            "each close under normal returns."
        )
        heads = {str(name): Head(str(name), "", "money") for name in table}
        yield ShownTable(table, "Hedging error of each instrument", note, Head("money"), heads)


def list_charts(result: Result) -> Iterator[Shown]:
    index = core.utc_index(result.span.named)
    names = ["options_leverage", "net_delta", "gamma", "vega", "theta"]
    table = result.greeks[names].set_axis(index)
    table = table.rename(columns={"options_leverage": "options by delta", "net_delta": "net delta"})
    table["instruments, gross"] = result.bars["gross_leverage"].to_numpy()
    panels = (
        Panel("Leverage, x", ("options by delta", "instruments, gross", "net delta"), 1.6),
        Panel("Gamma: change of delta per 1 % of price", ("gamma",)),
        Panel("Vega: money per point of volatility", ("vega",)),
        Panel("Theta: money per day", ("theta",)),
    )
    caption = (
        "Greeks of all options at each close, in money. Leverage by delta adds the absolute deltas "
        "of the options of each underlying over the equity; net delta adds all instruments with "
        "their signs."
    )
    colors = {"options by delta": "accent", "instruments, gross": "neutral", "net delta": "loss"}
    yield ShownChart("greeks", "Greeks through time", caption, table, colors=colors,
                     height=680, panels=panels)  # fmt: skip
    rolls = result.rolls()
    names = [c if leg == SCHEDULED else f"{leg}:{c}"
             for leg, c in zip(rolls["leg"], rolls["contract"], strict=True)]  # fmt: skip
    shown = pd.DataFrame({
        "held": [f"{row['opened']:%Y-%m-%d} to {row['closed']:%Y-%m-%d}, {row['ended']}"
                 for row in rolls.to_dict("records")],
        "contracts": rolls["quantity"].where(rolls["side"] == "long", -rolls["quantity"]),
        **{name: rolls[name] for name in ROLL_COSTS},
    }).set_axis(names)  # fmt: skip
    note = "Premium and proceeds of what was sold are negative; an open one counts at its mark."
    yield ShownTable(shown, "Cost by roll", note, Head("contract"), list_heads("money", ROLL_COSTS))
    parts = result.explained("bar").cumsum().set_axis(index)
    parts = parts.rename(columns={"price_pnl": "price profit"})
    yield ShownChart("explained", "P&L attribution",
                     "The parts add up to the price profit in "
                     "each bar: each Greek at its start times the move of forward, volatility or "
                     "time, and the rest.", parts[["price profit", *EXPLAINED]], y="money",
                     has_legend=True, height=340)  # fmt: skip
