"""What a run declares in sentences: its verdict, notices, details and assumptions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest import core
from backtest.account.account import find_pause_ends
from backtest.account.events import Event
from backtest.account.money import COSTS, MONEY_TERMS
from backtest.core.number_text import STYLES, Measured, strip_marks
from backtest.core.units import DAY
from backtest.market import split_notes
from backtest.policies import sets_margin
from backtest.report import run_charts
from backtest.report.basis import describe_filled
from backtest.report.rate_notes import list_rate_notes
from backtest.report.run_figures import count_days
from backtest.results import run_record
from backtest.results.benchmark import describe_benchmark
from backtest.results.limit_orders import describe_limit_orders
from backtest.results.ranking import DOUBTS
from backtest.results.run_data import find_causes
from backtest.results.run_options import explain_idle_options

if TYPE_CHECKING:
    from backtest.results import Result


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
