"""The headline figures of a run, with what each is compared with and what it means.

Three of them are large on a page: the return, the worst drawdown, and how near the account came to
liquidation. What a run of few days, or a ruined one, does not show is left out here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest import core
from backtest.account.money import COSTS
from backtest.core.result_parts import Headline
from backtest.core.units import DAY
from backtest.report.overview import holds_constant
from backtest.report.rate_notes import has_dividends
from backtest.results import compound_growth, run_record
from backtest.results.measure_table import ABOUT, find_cost_rates
from backtest.results.result import Lack

if TYPE_CHECKING:
    from backtest.results import Result

PREMIUMS = "options_cost_annual"
DEFINITIONS = {
    "constant_return": "return of the constant leverage that had the same volatility on the same "
    "capital, with its costs; chosen in hindsight",
    "costs": "fees, slippage, impact, funding, interest and liquidation losses, over the mean "
    "equity",
    "round_trips": "positions from flat to flat that were closed",
    "nearest_distance": "smallest move of the mark price, inside a bar, that would have liquidated "
    "a position, as a fraction of the price",
}
"""What figures mean that are no measures of their own."""
YEARLY = (
    "sharpe",
    "sortino",
    "alpha",
    "alpha_error",
    "certainty_equivalent",
    "return_on_margin",
)
"""Yearly measures that a run of few days does not show, beside growth per year."""


class Nearest(NamedTuple):
    """The nearest that a mark came to a liquidation price inside a bar.

    ``distance`` is a fraction of the mark, ``time`` names the close of the bar, in ns.
    """

    distance: float
    time: int
    instrument: str


def count_days(result: Result) -> float:
    """Return the days that a run covers."""
    return (int(result.span.closes[-1]) - result.span.start) / DAY


def list_hidden_measures(result: Result) -> tuple[str, ...]:
    """Return the measures that are not shown of this run; its data always has them."""
    hidden: list[str] = []
    if not run_record.shows_growth(count_days(result)):
        hidden += [*run_record.EXTRAPOLATED, *YEARLY]
    if result.metrics["ruined"]:
        hidden += run_record.OF_RUINED
    return tuple(dict.fromkeys(hidden))


def find_nearest(result: Result) -> Nearest | None:
    """Return where a mark came nearest to the liquidation price of a held position.

    None if no position had one. The position of a bar is that at its close, after its fill.
    """
    price = result.liquidation_prices
    quantity = result.of_positions("quantity")
    with np.errstate(invalid="ignore", divide="ignore"):
        below = 1.0 - price / result.quotes.mark_low  # a long position, which a fall liquidates
        above = price / result.quotes.mark_high - 1.0
    away = np.select([quantity > 0.0, quantity < 0.0], [below, above], default=np.nan)
    if not np.isfinite(away).any():
        return None

    row, place = np.unravel_index(np.nanargmin(away), away.shape)
    return Nearest(
        distance=max(float(away[row, place]), 0.0),
        time=int(result.span.named[row]),
        instrument=result.names[int(place)],
    )


def list_numbers(result: Result) -> list[Headline]:
    """Return the headline figures, as a terminal lists them; hidden measures are among them."""
    figures = [*list_growth(result), *list_risks(result), *list_use(result)]
    return [define(figure) for figure in figures]


def define(figure: Headline) -> Headline:
    """Return a figure with what it means."""
    about = DEFINITIONS.get(figure.name, "")
    if not about and figure.name in ABOUT:
        about = ABOUT[figure.name].meaning
    return figure._replace(about=about)


def list_growth(result: Result) -> Iterator[Headline]:
    """Yield the return beside its benchmarks, and what it is a year."""
    metrics = result.metrics
    held = run_record.measure_holding(result)
    market = "buy and hold" if held.name == "1x" else held.name
    yield Headline(
        name="total_return",
        title="Return",
        value=metrics["total_return"],
        style="percent",
        note=f"{market} {core.format_percent(held.total_return)}",
        is_large=True,
    )
    if not holds_constant(result):
        yield describe_constant(result)

    days = count_days(result)
    year = "a year"
    if days < run_record.SHORT:
        year = f"a year, from {days:,.0f} days"
    yield Headline(
        "cagr",
        "CAGR",
        metrics["cagr"],
        "percent",
        year,
    )
    if metrics["ruined"]:
        note = f"of {days:,.0f}; no trade since"
        yield Headline(
            "ruin_time",
            "Days until ruin",
            metrics["ruin_time"],
            "days",
            note,
        )
    else:
        note = f"{market} {core.format_number(held.sharpe)}"
        yield Headline(
            "sharpe",
            "Sharpe",
            metrics["sharpe"],
            "decimals",
            note,
        )
    note = f"{market} {core.format_percent(held.volatility)}"
    yield Headline(
        "volatility",
        "Volatility",
        metrics["volatility"],
        "percent",
        note,
    )


def describe_constant(result: Result) -> Headline:
    """Return the return of constant leverage at equal risk, or why there is none."""
    title = "Constant leverage"
    constant = result._constant
    if isinstance(constant, Lack):
        note = f"none at equal risk: {constant.why}"
        return Headline(
            "constant_return",
            title,
            math.nan,
            "percent",
            note,
        )

    final = core.format_money(constant.final_equity)
    note = (
        f"return of {constant.leverage:z.2f}x at the same volatility and capital; "
        f"final equity {final}"
    )
    if run_record.shows_growth(count_days(result)):
        growth = float(compound_growth(constant.unit[-1], result.span.years))
        note = f"{note}, CAGR {core.format_percent(growth)}"
    value = float(constant.unit[-1]) - 1.0
    return Headline(
        "constant_return",
        title,
        value,
        "percent",
        note,
    )


def list_risks(result: Result) -> Iterator[Headline]:
    """Yield drawdown, tail, leverage, and liquidations or how near the nearest one was."""
    metrics = result.metrics
    yield Headline(
        name="max_drawdown",
        title="Worst drawdown",
        value=metrics["max_drawdown"],
        style="percent",
        note=describe_fall(result),
        is_large=True,
    )
    if not metrics["ruined"]:
        note = "CAGR over the worst drawdown"
        yield Headline(
            "calmar",
            "Calmar",
            metrics["calmar"],
            "decimals",
            note,
        )
    note = f"95 %, returns per {result.manifest['sampling']} (CVaR)"
    yield Headline(
        "es_95",
        "Expected shortfall",
        metrics["es_95"],
        "percent",
        note,
    )
    note = describe_leverage(result)
    yield Headline(
        "mean_leverage",
        "Leverage",
        metrics["mean_leverage"],
        "turns",
        note,
    )

    # The third large figure: liquidations, or how near the nearest one was.
    hits = metrics["liquidations"]
    nearest = find_nearest(result)
    is_large = hits > 0.0 or nearest is None
    note = describe_forced(result)
    yield Headline(
        "liquidations",
        "Liquidations",
        hits,
        "count",
        note,
        is_large=is_large,
    )
    if nearest is not None and not is_large:
        yield describe_nearest(result, nearest)


def describe_nearest(result: Result, nearest: Nearest) -> Headline:
    price = "the price"
    if len(result.names) > 1:
        price = f"the price of {nearest.instrument}"
    return Headline(
        name="nearest_distance",
        title="Nearest liquidation",
        value=nearest.distance,
        style="percent",
        note=f"of {price}, inside a bar, {core.format_time(nearest.time)}",
        is_large=True,
    )


def describe_leverage(result: Result) -> str:
    """Return what the mean leverage is a mean of, its peak, and the peak of the margin ratio."""
    metrics = result.metrics
    kind = "mean"
    if result.diversity:
        kind = f"gross, {result.diversity['mean_net_leverage']:z.2f}x net"
    note = f"{kind}; peak {metrics['peak_leverage']:.2f}x"

    ratio = metrics["peak_margin_ratio"]
    if ratio > 0.0:
        note = f"{note}, margin ratio {core.format_percent(ratio)}"
    return note


def describe_fall(result: Result) -> str:
    """Return when the deepest drawdown was, or ``none``."""
    fall = result.tally
    span = result.span
    if fall.low == fall.low_peak:
        return "none"

    end = "not recovered"
    if fall.recovered >= 0:
        end = f"recovered {span.day_of(fall.recovered)}"
    peak = span.day_of(fall.drawdown_peak)
    trough = span.day_of(fall.drawdown_trough)
    days = result.metrics["drawdown_days"]
    return f"{peak} to {trough}, {end}; {days:,.0f} days under water"


FORCED = {
    "margin calls": "margin_calls",
    "failed": "calls_failed",
    "stops": "stops",
    "take-profits": "take_profits",
}
"""What else closes a position without a decision, or asks for money: words by measure."""


def describe_forced(result: Result) -> str:
    """Return what liquidations cost, and how often other events closed or called."""
    metrics = result.metrics
    clauses = []
    loss = metrics["liquidation_loss"]
    if loss:
        clauses.append(f"cost {core.format_money(loss)}")

    for words, name in FORCED.items():
        if metrics[name]:
            clauses.append(f"{words} {metrics[name]:,.0f}")
    return ", ".join(clauses)


def list_use(result: Result) -> Iterator[Headline]:
    """Yield costs and trading; of few days those of the whole time, not of a year."""
    metrics = result.metrics
    rates = find_cost_rates(result.tally, result.span)
    days = count_days(result)
    turnover = "turnover"
    years = 1.0
    period = "a year"
    if not run_record.shows_growth(days):
        turnover = "turnover_so_far"
        years = result.span.years
        period = f"in {days:,.0f} days"

    note = f"of mean equity {period}"
    if PREMIUMS in metrics:
        note = f"{note}, without premiums"

    # Dividends are booked as funding, and are no cost of holding a stock.
    costs = years * sum(rates[name] for name in COSTS)
    if has_dividends(result):
        costs -= years * rates["funding"]
        note = f"{note}, without dividends"
    yield Headline("costs", "Costs", costs, "percent", note)
    yield Headline(
        turnover,
        "Turnover",
        years * metrics["turnover"],
        "turns",
        period,
    )
    yield Headline(
        "fills",
        "Fills",
        metrics["fills"],
        "count",
        "orders and exits",
    )
    yield describe_trips(result)

    # Of options and of several instruments.
    if PREMIUMS in metrics:
        peak = core.format_number(metrics["peak_options_leverage"])
        value = metrics["mean_options_leverage"]
        note = f"mean; peak {peak}x"
        yield Headline(
            "mean_options_leverage",
            "Options by delta",
            value,
            "turns",
            note,
        )
        note = "of mean equity a year: premiums less proceeds, with fees"
        yield Headline(
            PREMIUMS,
            "Cost of options",
            metrics[PREMIUMS],
            "percent",
            note,
        )
    ratio = result.diversity.get("diversification_ratio", math.nan)
    if not math.isnan(ratio):
        note = "weighted volatilities over portfolio volatility"
        yield Headline(
            "diversification_ratio",
            "Diversification",
            ratio,
            "decimals",
            note,
        )


def describe_trips(result: Result) -> Headline:
    """Return how many positions were closed, how many are open, and how they went."""
    trips = result._round_trips
    notes = ["from flat to flat"]
    if trips["open"]:
        notes.append(f"{trips['open']:,.0f} open")

    if trips["trades"]:
        notes.append(f"{core.format_percent(trips['win_rate'])} won")
        notes.append(f"profit factor {core.format_number(trips['profit_factor'])}")
        share = core.format_percent(trips["time_in_market"])
        notes.append(f"in the market at {share} of closes")
    note = "; ".join(notes)
    return Headline(
        "round_trips",
        "Round trips",
        trips["trades"],
        "count",
        note,
    )
