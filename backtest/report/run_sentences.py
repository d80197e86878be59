"""What a run declares in sentences: its verdict, notices, details and assumptions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from backtest.report.basis import describe_filled
from backtest.report.rate_notes import has_dividends, list_rate_notes
from backtest.report.run_figures import count_days
from backtest.results import run_record
from backtest.results.benchmark import describe_benchmark
from backtest.results.limit_orders import describe_limit_orders
from backtest.results.ranking import DOUBTS
from backtest.results.run_data import find_causes
from backtest.results.run_options import explain_idle_options
from backtest.results.run_record import find_currency
from backtest.venue.symbols import advise_rules, describe_other_symbol

if TYPE_CHECKING:
    from backtest.results import Result


SMALLEST_SHOWN = 0.005
"""An amount below this reads 0.00."""


def write_verdict(result: Result) -> str:
    return strip_marks(write_marked_verdict(result))


def write_marked_verdict(result: Result) -> str:
    """Return the verdict; its measures are between the marks of :class:`Measured`."""
    metrics = result.metrics

    def write_measure(name: str, style: str) -> str:
        return Measured(STYLES[style](metrics[name]), name, style).marked

    # What the account made of its capital, beside the market.
    start = core.format_money(run_record.find_start(result))
    final = write_measure("final_equity", "money")
    currency = find_currency(result)
    if currency:
        final = f"{final} {currency}"

    days = count_days(result)
    if metrics["ruined"]:
        days = metrics["ruin_time"]
    made = write_measure("total_return", "percent")

    held = run_record.measure_holding(result)
    market = f"{core.format_percent(held.total_return)} for buy and hold"
    if held.name != "1x":
        market = f"{market} of {len(result.names)} instruments, unlevered"
    if has_dividends(result):
        market = f"{market} without dividends"

    # How near it came to its end, and what it paid.
    fall = write_measure("max_drawdown", "percent")
    return (
        f"{start} became {final} in {days:,.0f} days{describe_deposits(metrics)}: "
        f"a return of {made}, against {market}. "
        f"The account was at most {fall} below its peak, {describe_hits(result)}, "
        f"and {describe_costs(result)}."
    )


def describe_deposits(metrics: Mapping[str, float]) -> str:
    """Return what was paid in besides the capital, as a clause, or nothing."""
    top_ups = metrics["top_ups"]
    deposits = metrics["flows"] - top_ups

    sources = []
    if deposits:
        sources.append(f"{core.format_money(deposits)} of net deposits")
    if top_ups:
        sources.append(f"{core.format_money(top_ups)} from the reserve")
    if not sources:
        return ""
    return f", with {' and '.join(sources)}"


def describe_hits(result: Result) -> str:
    """Return how often the account was liquidated, and what else was closed with that."""
    hits = int(result.metrics["liquidations"])
    if hits == 0:
        text = "was never liquidated"
    elif hits == 1:
        text = "was liquidated once"
    else:
        count = Measured(f"{hits:,}", "liquidations", "count").marked
        text = f"was liquidated {count} times"

    # A cross position in profit is closed with the one that lost.
    n_victims = int((find_causes(result)["profit"] > 0.0).sum())
    if n_victims == 0:
        return text
    victims = core.count_nouns(n_victims, "position")
    return f"{text} with {victims} in profit closed too"


def describe_costs(result: Result) -> str:
    """Return what the account paid or received in costs together, and in dividends.

    A run books the dividends of stocks as funding; they are no cost of holding them.
    """
    amounts = {name: result.metrics[name] for name in COSTS}
    dividends = 0.0
    if has_dividends(result):
        dividends = -amounts["funding"]
        amounts["funding"] = 0.0

    cost = sum(amounts.values())
    verb = "paid" if cost >= 0.0 else "received"
    text = f"{verb} {core.format_money(abs(cost))} in {name_costs(amounts)}"
    if dividends == 0.0:
        return text

    verb = "received" if dividends > 0.0 else "paid"
    return f"{text}, and {verb} {core.format_money(abs(dividends))} in dividends"


def name_costs(metrics: Mapping[str, float]) -> str:
    """Return the words of the costs that a run had, as in "fees, slippage and funding"."""
    costs = [term.words for term in MONEY_TERMS if term.is_cost and metrics[term.name] != 0.0]
    if not costs:
        return "costs"
    if len(costs) == 1:
        return costs[0]
    return f"{', '.join(costs[:-1])} and {costs[-1]}"


def write_sentences(find: Callable[[Result], Iterator[str]]) -> Callable[[Result], tuple[str, ...]]:
    """Return a function whose texts are sentences; the name of an instrument stays as it is."""

    def write(result: Result) -> tuple[str, ...]:
        sentences = []
        for text in find(result):
            sentence = f"{text}."
            if not text.startswith(result.names):
                sentence = core.capitalize(sentence)
            sentences.append(sentence)
        return tuple(sentences)

    return write


@write_sentences
def list_notices(result: Result) -> Iterator[str]:
    """Yield what to know before the figures are believed."""
    if result.no_fill:
        yield f"NO FILL: no order was filled: {result.no_fill}"
    if result.metrics["ruined"]:
        yield describe_ruin(result)
    yield from list_other_rules(result)
    yield from list_missing_data(result)
    yield from list_table_gaps(result)

    idle = explain_idle_options(result)
    if idle:
        yield idle
    n_boundless = run_record.count_boundless(result)
    if n_boundless:
        yield f"an infinite target leverage at {n_boundless:,} closes"

    first = run_record.find_first_decision(result)
    if first is not None and first > 0:
        time = core.format_time(int(result.time[first]))
        yield (
            f"decided from {time} UTC on, bar {first:,}: before, its columns were not known yet; "
            "earlier data, or a later --start, bt.run(start=...), warm them up"
        )

    # A ruined or paused account is asked for nothing, and options have no target.
    is_asked = not result.metrics["ruined"] and result.account.equity_stop is None
    last = run_record.find_last_decision(result)
    if last is not None and is_asked and result.options is None:
        n_closes = len(result.time) - 1 - last
        time = core.format_time(int(result.time[last + 1]))
        yield (
            f"no decision at the last {n_closes:,} closes, from {time} UTC on: the position was "
            "left as it was; a column may have no value there"
        )

    yield from list_rate_notes(result)
    late_flows = result.manifest["data"].get("flows_after_the_end")
    if late_flows:
        yield f"flows after the last bar, ignored: {late_flows}"
    is_refused = result.entries["kind"] == Event.REFUSED
    refused = float(result.entries["amount"][is_refused].sum())
    if refused >= SMALLEST_SHOWN:
        yield (
            f"withdrawals of {core.format_money(refused)} were refused: an account keeps its "
            "initial margin"
        )


def describe_ruin(result: Result) -> str:
    """Return when the account was ruined, and what was left of it."""
    when = result.span.describe_close(result.tally.ruin)
    days = result.metrics["ruin_time"]

    final = result.metrics["final_equity"]
    equity = "0"
    if final >= SMALLEST_SHOWN:
        equity = f"{final:,.2f}"
    line = result.account.ruin_at
    if line is not None:
        equity = f"{equity}, its line {100.0 * line:g} % of the capital paid in"
    return (
        f"RUINED {when}, after {days:,.1f} days: equity {equity}, no trade since. "
        "Returns after the ruin count as 0 in volatility, VaR and ES"
    )


def list_other_rules(result: Result) -> Iterator[str]:
    """Yield which instruments have the rules of another symbol, and how to give their own."""
    data = result.manifest["data"]
    instruments: Mapping[str, Any] = data.get("instruments") or {result.names[0]: data}
    for name, facts in instruments.items():
        instrument = facts.get("instrument")
        if not instrument or name not in result.venues:
            continue

        venue = result.venues[name]
        text = describe_other_symbol(venue, instrument, synthetic=facts["synthetic"])
        if text:
            cure = advise_rules(
                venue,
                instrument,
                has_sessions=bool(facts.get("sessions")),
            )
            yield f"{text}: {cure}"


def list_missing_data(result: Result) -> Iterator[str]:
    """Yield what the data do not have: marks and funding of perpetuals, values."""
    data = result.manifest["data"]
    instruments: Mapping[str, Any] = data.get("instruments") or {"": data}
    perpetuals = pick_perpetuals(result, instruments)

    unmarked = []
    unfunded = []
    for name, facts in perpetuals.items():
        if facts.get("liquidations_tested_on") == "last prices":
            unmarked.append(name)
        if not facts.get("funding_events"):
            unfunded.append(name)
    if unmarked:
        yield (
            f"no mark prices{name_those(unmarked)}: "
            "liquidations tested on last prices, which swing wider"
        )
    if unfunded:
        yield f"no funding rates{name_those(unfunded)}: none is charged"

    clauses = []
    for name, facts in instruments.items():
        filled, _ = split_notes(facts.get("filled", {}))
        if filled:
            clauses.append(f"{describe_filled(filled)}{name_those([name])}")
    if clauses:
        yield f"missing values were filled in: {core.clip('; '.join(clauses), 300)}"


def pick_perpetuals(result: Result, instruments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the instruments with marks and funding: not spot, no sessions."""
    spot = {name for name, venue in result.venues.items() if venue.contract.is_spot}
    if "instruments" not in result.manifest["data"] and spot:
        return {}  # one instrument, which has no name in the manifest
    with_sessions = {name for name, facts in instruments.items() if facts.get("sessions")}
    others = {*spot, *with_sessions}
    return {name: facts for name, facts in instruments.items() if name not in others}


TABLE_GAPS = ("the margin table", "the oldest")
"""How texts of margin tables begin that do not cover the run."""


def list_table_gaps(result: Result) -> Iterator[str]:
    """Yield where dated margin tables do not cover the run, each text once."""
    texts = result.manifest.get("margin_table", "")
    if not isinstance(texts, Mapping):
        texts = {"": texts}

    gaps = {text for text in texts.values() if text.startswith(TABLE_GAPS)}
    for gap in sorted(gaps):
        names = [name for name, text in texts.items() if name and text == gap]
        if names:  # the one instrument of a run has none
            yield f"{', '.join(names)}: {gap}"
        else:
            yield gap


def name_those(names: list[str]) -> str:
    """Return " of A, B", or nothing for the one instrument without a name."""
    if not any(names):
        return ""
    return f" of {core.clip(', '.join(names), 120)}"


def write_details(result: Result) -> str:
    """Return what qualifies the figures: a short run, a cap, equity stops, doubtful bars."""
    sentences = []
    short = run_record.describe_short(result.span.start, result.span.closes[-1])
    if short:
        sentences.append(short)

    has_cap = math.isfinite(result.account.max_gross_leverage)
    if has_cap and result.metrics["gross_over_cap"] > 0.0:
        sentences += list_over_cap(result)

    stops = describe_equity_stops(result)
    if stops:
        sentences.append(stops)
    if result.account.fill == "limit":
        orders = describe_limit_orders(result.limit_orders)
        sentences.append(f"Limit orders: {orders}.")
    sentences += list_doubts(result)
    return " ".join(sentences)


def list_over_cap(result: Result) -> Iterator[str]:
    """Yield how often gross leverage was above its cap, and what brought it there."""
    share = result.metrics["gross_over_cap"]
    cuts = pick_account_cuts(result.target_cut_rows)
    decisions = {row["cause"]: row["decisions"] for row in cuts}
    by_bands = decisions.get("band_over_cap", 0) / result.record.n_bars
    by_prices = max(share - by_bands, 0.0)

    causes = []
    if by_bands:
        causes.append(
            f"at {core.format_percent(by_bands)} bands had left it there at the fills, "
            "up to a tenth above"
        )
    if by_prices:
        causes.append(f"at {core.format_percent(by_prices)} prices carried it there")
    yield (
        f"Gross leverage was above the cap of {result.account.max_gross_leverage:.2f}x "
        f"at {core.format_percent(share)} of closes: {', '.join(causes)}."
    )

    n_forced = decisions.get("cap_over_band", 0)
    if n_forced:
        yield f"The cap forced {n_forced:,} trades inside their bands."


def pick_account_cuts(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the cuts of targets over all instruments: all decisions, then by cause."""
    return [row for row in rows if row.get("instrument", "all") == "all"]


def list_doubts(result: Result) -> Iterator[str]:
    """Yield how many bars hang on the way of prices inside them, and where to look."""
    bound = "bounds() gives the worst case, "
    if result.account.fill == "limit":
        bound = ""  # bounds() refuses limit orders
    cures = {
        "ambiguous_bars": bound,
        "both_reached": "the worse is assumed to come first; ",
    }
    first_bars = {
        "ambiguous_bars": result.tally.first_ambiguous,
        "both_reached": result.tally.first_both,
    }

    for measure, doubt in DOUBTS.items():
        n_bars = result.metrics[measure]
        if not n_bars:
            continue
        row = int(first_bars[measure]) - result.span.first
        time = core.format_time(int(result.time[row]))
        bars = core.count_nouns(int(n_bars), "bar")
        yield f"In {bars}, first {time} UTC, {doubt}: {cures[measure]}detail= uses shorter bars."


def describe_equity_stops(result: Result) -> str:
    """Return how often the equity stop acted, and for how long the account stayed out."""
    is_stop = result.entries["kind"] == Event.EQUITY_STOPPED
    n_stops = len(np.unique(result.entries["bar"][is_stop]))
    pauses = find_pauses(result)
    if n_stops == 0 and len(pauses.begins) == 0:
        return ""

    often = "once" if n_stops == 1 else f"{n_stops:,} times"
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
    bars = result.entries["bar"][result.entries["kind"] == Event.PAUSED]
    opens = result.time[bars - result.span.first]
    last = int(result.span.closes[-1])

    ends = np.minimum(find_pause_ends(result.account, opens), last)
    return Pauses(opens, ends.astype(np.int64), last)


@write_sentences
def list_assumptions(result: Result) -> Iterator[str]:
    """Yield what the run assumes about the market, fills and margin."""
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
    yield from list_isolated(result)
    if result.options is not None:
        yield "quotes fill orders of any size: their depth is not in the data"


def list_isolated(result: Result) -> Iterator[str]:
    """Yield what backs isolated positions; equal terms are said once."""
    names_by_text: dict[str, list[str]] = {}
    for name in result.names:
        terms = result.account.for_instrument(name)
        if terms.margin != "isolated":
            continue
        use = "does not back it"
        if terms.auto_margin:
            use = "is added to it before a liquidation"
        text = (
            "isolated: the margin of a position is its notional / "
            f"{terms.venue_leverage or 1.0:g}, the venue leverage; the rest of the "
            f"available balance {use}"
        )
        names_by_text.setdefault(text, []).append(name)

    for text, names in names_by_text.items():
        if len(names) == len(result.names):
            yield text
        else:
            yield f"{', '.join(names)} {text}"
