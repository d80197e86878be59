"""The charts of a run: equity, returns, positions, costs, trades, and what a book is made of."""

from __future__ import annotations

import calendar
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest import core
from backtest.account.events import Mark
from backtest.account.money import MONEY_TERMS, TRADE_COSTS
from backtest.core.code_names import pd
from backtest.core.number_text import Head
from backtest.core.result_parts import Panel, Shown, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.report.rate_notes import name_term
from backtest.results import find_periods, monthly_returns, run_record, tables, worst_drawdowns
from backtest.results.promises import compare_liquidations
from backtest.results.run_record import find_currency

if TYPE_CHECKING:
    from backtest.results import Result


PARTS_OF_TRADES = (*tables.COSTS,)
"""Events that are costs of the trade before them."""
COMMON = ("fill", "funding", "interest", "expense")
"""A ledger that is too long leaves out the smallest of these events first."""
MAX_ROWS = 2000
"""Most rows of a ledger."""


def choose_rows(events: pd.DataFrame, most: int = MAX_ROWS) -> core.IntArray:
    """Return the rows of a ledger in their order: rare events first, then the largest amounts."""
    kinds = events["kind"].astype(str)
    rows = events[~kinds.isin(PARTS_OF_TRADES)]
    numbers = rows.index.to_numpy(dtype=np.int64)
    if len(rows) <= most:
        return numbers

    # The last key of lexsort is the first by which it sorts.
    kinds = kinds.loc[rows.index]
    rank_in_kind = rows["amount"].abs().groupby(kinds).rank(method="first", ascending=False)
    is_common = kinds.isin(COMMON)
    order = np.lexsort((rank_in_kind.to_numpy(), is_common.to_numpy()))
    return np.sort(numbers[order[:most]])


MAX_MARKS = 400
"""Most marks of one kind; if there are more, the largest are drawn."""


def place_marks(
    result: Result,
    chosen: pd.DataFrame,
    height: core.FloatArray,
    kinds_of: Mapping[str, Mark],
    most: int,
) -> pd.DataFrame:
    """Return the marks of events: their height, label, symbol, color and row of the ledger.

    Of each kind the ``most`` largest events are marked, in the order of ``kinds_of``; ``height`` is
    by bar.
    """
    amounts_by_kind = chosen["amount"].abs().groupby(chosen["kind"], observed=True)
    rank_in_kind = amounts_by_kind.rank(method="first", ascending=False)
    shown = chosen[rank_in_kind <= most]
    kinds = shown["kind"].astype(str)
    labels = label_marks(chosen["kind"].astype(str), kinds, kinds_of)

    # Where a mark stands, and in which row of the ledger a click finds its event.
    times = pd.DatetimeIndex(shown["time"]).as_unit("ns").asi8
    bars = np.searchsorted(result.time, times)
    ledger = pd.Index(choose_rows(result.events))
    marks = [kinds_of[kind] for kind in kinds]
    order = list(kinds_of)
    columns = {
        "y": height[bars],
        "label": [labels[kind] for kind in kinds],
        "symbol": [mark.symbol for mark in marks],
        "color": [mark.color for mark in marks],
        "row": ledger.get_indexer(shown.index),
        "place": [order.index(kind) for kind in kinds],
    }
    table = pd.DataFrame(columns, index=core.utc_index(result.span.named[bars]))
    return table.sort_values("place", kind="stable")


def label_marks(
    chosen: Iterable[str],
    shown: Iterable[str],
    kinds_of: Mapping[str, Mark],
) -> dict[str, str]:
    """Return the words of each kind, with how many there are and how many of them are drawn."""
    n_shown = Counter(shown)
    labels = {}
    for kind, total in Counter(chosen).items():
        count = f"{total:,}"
        if n_shown[kind] < total:
            count = f"largest {n_shown[kind]:,} of {count}"
        labels[kind] = f"{kinds_of[kind].words} ({count})"

    return labels


DATED = ("peak", "trough", "recovery")
"""Columns of drawdowns that are times."""
WORST = 10
"""Most falls of the table."""
SHALLOW = 0.1
"""Share of the worst fall under which one is left out."""


def find_drawdowns(result: Result) -> pd.DataFrame:
    """Return the worst drawdowns; their times name bars as the tables of the result do."""
    span = result.span
    falls = worst_drawdowns(
        result.of_account("unit"),
        span.closes,
        start=span.start,
        first_peak=result.first_peak,
        count=WORST,
    )

    # A time after the start is the close of a bar, which tables name by its open.
    start = pd.Timestamp(span.start, tz="UTC")
    shift = pd.Timedelta(int(span.closes[0] - span.named[0]), "ns")
    for name in DATED:
        stamps = falls[name]
        falls[name] = stamps.where(stamps <= start, stamps - shift)
    return falls


TIME_AFTER_RUIN = 0.1
"""Time after ruin that charts show, as a fraction of the time before it."""


def find_end(result: Result) -> int:
    """Return the time at which the axis ends: a tenth after ruin, 0 for the end of the run."""
    if result.tally.ruin < 0:
        return 0
    ruin = result.span.time_of(result.tally.ruin)
    time_before = ruin - result.span.start
    time_after = max(int(TIME_AFTER_RUIN * time_before), 2 * result.interval)
    return min(ruin + time_after, int(result.span.named[-1]))


# Returns.


def list_returns(result: Result) -> Iterator[Shown]:
    """Yield returns by month and year, and the measures beside their distribution."""
    partial_months = list_partial(result, "M", "%b %Y")
    partial_days = list_partial(result, "D", "%Y-%m-%d")
    yield tabulate_months(result, partial_months)
    yield draw_years(result)
    yield ShownTable(
        {name: {"value": result.metrics[name]} for name in OF_RETURNS},
        caption="Measures of returns",
        note=describe_partial([*partial_months, *partial_days]),
        labels=Head("measure"),
        has_measures=True,
    )
    yield draw_distribution(result)


def tabulate_months(result: Result, partial_months: list[str]) -> ShownTable:
    unit = result.of_account("unit")
    months = monthly_returns(result.time, unit, result.tally.first_unit)
    names = [*calendar.month_abbr[1:], "year"]
    note = "Simple returns of the unit value by calendar month, UTC, in per cent."
    return ShownTable(
        months.set_axis(names, axis=1),
        caption="Monthly returns",
        note=f"{note} {describe_partial(partial_months)}".rstrip(),
        labels=Head("year", "", "whole"),
        heads={name: Head(name, "%", "points") for name in names},
        is_tinted=True,
    )


def describe_partial(names: list[str]) -> str:
    if not names:
        return ""
    return f"Partial: {', '.join(names)}."


def list_partial(result: Result, unit: str, style: str) -> list[str]:
    """Return the first and the last period of a unit where the run has only a part of it.

    A bar is of the period in which it opens; a session may close with the open of the next.
    """
    start = pd.Timestamp(result.span.start)
    end = pd.Timestamp(int(result.span.closes[-1]))
    first = start.to_period(unit)
    last = pd.Timestamp(int(result.time[-1])).to_period(unit)

    slack = pd.Timedelta(0)
    if result.is_session:
        slack = pd.Timedelta(days=4)  # days without a session
    partial = []
    if start - first.start_time > slack:
        partial.append(first)
    if (last + 1).start_time - end > slack:
        partial.append(last)
    return [period.strftime(style) for period in dict.fromkeys(partial)]


OF_RETURNS = (
    "best_day",
    "worst_day",
    "best_month",
    "worst_month",
    "positive_days",
    "skewness",
    "excess_kurtosis",
    "omega",
    "tail_ratio",
    "gain_to_pain",
    "ulcer",
    "es_95",
)
"""Measures that are shown beside the distribution of returns."""


def draw_years(result: Result) -> ShownChart:
    """Draw the returns of the account and of its market by calendar year."""
    market = run_record.follow_market(result)
    name = "buy and hold" if market.name == "1x" else "benchmark, unlevered"
    years = pd.DatetimeIndex(find_periods(result.time, "year")).year

    # A year begins at the value at which the one before it ended.
    account_end = pd.Series(result.of_account("unit")).groupby(years).last()
    account_start = account_end.shift(fill_value=result.tally.first_unit)
    market_end = pd.Series(market.unit).groupby(years).last()
    market_start = market_end.shift(fill_value=1.0)

    columns = {
        # A year after ruin has no return.
        "account": account_end / account_start.where(account_start > 0.0) - 1.0,
        name: market_end / market_start - 1.0,
    }
    table = pd.DataFrame(columns)
    table.index = pd.Index([str(year) for year in table.index])
    return ShownChart(
        key="years",
        title="Returns of calendar years",
        caption="Compared with the unlevered market, without costs.",
        table=table,
        kind="bars",
        colors={"account": "accent", name: "neutral"},
        percent="y",
        has_legend=True,
        size="beside",
        height=240,
    )


def draw_distribution(result: Result) -> ShownChart:
    returns = result.returns.to_numpy()
    bins = min(60, max(12, 2 * math.isqrt(len(returns))))
    marks = {
        "VaR 95 %": -result.metrics["var_95"],
        "ES 95 %": -result.metrics["es_95"],
        "ES 99 %": -result.metrics["es_99"],
    }
    return ShownChart(
        key="distribution",
        title="Distribution of returns",
        caption=f"Returns per {result.manifest['sampling']}; losses to the left.",
        table=count_values("returns", returns, bins),
        kind="bars",
        colors={"returns": "accent"},
        percent="x",
        y="count",
        size="beside",
        height=330,
        marks=tuple(marks.values()),
        mark_names=tuple(marks),
    )


def count_values(name: str, values: Any, bins: int) -> pd.DataFrame:
    """Return a histogram: counts by the middles of bins."""
    counts, edges = np.histogram(values, bins)
    middles = 0.5 * (edges[1:] + edges[:-1])
    return pd.DataFrame({name: counts}, index=middles)


def list_charted(result: Result) -> list[Shown]:
    """Return a chart of each column that the policies ask to be drawn."""
    index = core.utc_index(result.span.named)
    charts: list[Shown] = []
    for name, column in result.charted.items():
        charts.append(
            ShownChart(
                key=name.replace(" ", "_"),
                title=core.capitalize(name),
                caption=column.text,
                table=pd.DataFrame({name: column.values}, index=index),
                height=240,
            )
        )
    return charts


# Rolling windows.

MIN_WINDOW = 8
"""Samples of a rolling window below which none is drawn."""
LEAST_DEVIATION = 1e-12
"""Deviation of returns below which they do not differ but for rounding: no Sharpe ratio."""


def list_rolling(result: Result) -> list[Shown]:
    """Return rolling windows of 90 days, or a quarter of the run if that is less.

    There is none if a window has too few returns. A target of volatility that the policy promises
    is drawn beside what was realized.
    """
    years = result.span.years
    days = min(90.0, years * 365.0 / 4.0)
    n_samples = int(days / 365.0 * len(result.samples.returns) / years)
    if n_samples < MIN_WINDOW:
        return []

    table = roll_measures(result, n_samples)
    volatility = ["volatility", "market"]
    for _, measure, bound, *_ in result.manifest.get("promises", ()):
        if measure == "volatility":
            table["target"] = bound
            volatility.append("target")

    panels = [
        Panel("Volatility", tuple(volatility), percent=True, from_zero=True),
        Panel("Mean leverage, x", ("leverage",), from_zero=True),
        Panel("Beta", ("beta",)),
    ]
    if run_record.shows_growth(365.0 * years):  # of few days no yearly figure
        panels.insert(0, Panel("Sharpe", ("Sharpe",)))
    chart = ShownChart(
        key="rolling",
        title=f"Rolling windows of {days:,.0f} days",
        caption=(
            "Each value is of the window that ends there, annualized as the measures of the run."
        ),
        table=table,
        colors={"market": "neutral", "target": "loss"},
        height=440,
        panels=tuple(panels),
        dotted=("target",),
        until=find_end(result),
    )
    return [chart]


def roll_measures(result: Result, n_samples: int) -> pd.DataFrame:
    """Return measures of the samples up to each one, and the mean leverage of their bars."""
    samples = result.samples
    columns = {
        "own": samples.returns,
        "market": samples.market,
        "excess": samples.returns - samples.risk_free,
    }
    frame = pd.DataFrame(columns, index=result.returns.index)
    rolling = frame.rolling(n_samples)
    deviation = rolling.std()
    excess = np.where(deviation["excess"] > LEAST_DEVIATION, deviation["excess"], np.nan)

    leverage = pd.Series(result.bars["gross_leverage"].to_numpy())
    n_bars = max(n_samples * len(leverage) // len(frame), 1)
    mean_leverage = leverage.rolling(n_bars).mean().to_numpy()

    yearly = math.sqrt(result.span.periods)
    measures = {
        "Sharpe": rolling["excess"].mean() / excess * yearly,
        "volatility": deviation["own"] * yearly,
        "market": deviation["market"] * yearly,
        "leverage": mean_leverage[result.ends_sample != 0.0],
        "beta": rolling["own"].cov(frame["market"]) / rolling["market"].var(),
    }
    return pd.DataFrame(measures, index=frame.index)


# Margin.

LARGEST_RATIO = 1.5
"""A higher margin ratio is drawn as this one."""
LEAST_FORECAST = 1e-4
"""Largest forecast that is not drawn: on an axis of its own it would look large."""
SAID = 0.005
"""Expected liquidations under which none is as good as certain, and nothing is said."""


def draw_margin(result: Result) -> ShownChart:
    """Return what the account had as margin, how near it was to all of it, and the forecast."""
    bars = result.bars
    columns = {
        "in use": bars["initial_margin"].to_numpy(),
        "available": bars["available"].to_numpy(),
        "margin ratio": np.minimum(bars["margin_ratio"].to_numpy(), LARGEST_RATIO),
    }
    panels = [
        Panel("Margin", ("in use", "available"), height=1.4, from_zero=True),
        make_share_panel("Margin ratio: 100 % is liquidation", "margin ratio"),
    ]
    sentences = ["The margin in use is the initial margin of what is held."]
    if not result.has_one_position:
        sentences.append("The margin ratio is of the cross positions.")

    rules = {}
    for name, venue in result.venues.items():
        if venue.margin is not None:
            rules[f"multiplier of {name}"] = result.margin_multipliers[name].to_numpy()
    if rules:
        columns |= rules
        panels.append(Panel("Margin by rule: multiplier of the margin table", tuple(rules)))

    if result.has_one_position:
        forecast = bars["liquidation_probability"].to_numpy()
        if np.nanmax(forecast, initial=0.0) > LEAST_FORECAST:
            columns["forecast"] = forecast
            title = "Forecast: liquidation price touched within a day"
            panels.append(make_share_panel(title, "forecast"))
            sentences.append("The forecast is the probability to touch the liquidation price.")
    return ShownChart(
        key="positions",
        title="Margin",
        caption=" ".join(sentences),
        table=pd.DataFrame(columns, index=core.utc_index(result.span.named)),
        colors={
            "in use": "loss",
            "available": "accent",
            "forecast": "loss",
        },
        height=130 + 110 * len(panels),
        panels=tuple(panels),
        until=find_end(result),
    )


def make_share_panel(title: str, column: str) -> Panel:
    """Return a panel of a share, in per cent from 0 on."""
    return Panel(title, (column,), percent=True, from_zero=True)


def list_positions(result: Result) -> Iterator[Shown]:
    yield draw_margin(result)
    if result.has_one_position:
        yield judge_forecasts(result)


def judge_forecasts(result: Result) -> str:
    """Return how many liquidations were forecast and occurred; empty if hardly one of either."""
    step = max(round(DAY / result.interval), 1)
    forecasts = result.bars["liquidation_probability"].to_numpy()[::step]
    days = compare_liquidations(result, forecasts, step)
    if not days.value and not days.expected >= SAID:
        return ""

    text = (
        f"Liquidations: {days.expected:,.2f} days with one were forecast, "
        f"{days.value:,.0f} occurred"
    )
    if days.n < days.n_least:
        return f"{text}: too early to judge."
    return (
        f"{text}; with 95 % probability from {days.low:,.0f} to {days.high:,.0f} if the "
        "forecasts are right."
    )


# Costs and trades.


def draw_costs(result: Result) -> ShownChart:
    account = result.record.account
    costs = [term for term in MONEY_TERMS if term.sign < 0 and not term.is_of_assets]
    columns = {name_term(result, term): getattr(account, term.name) for term in costs}
    table = pd.DataFrame(columns, index=core.utc_index(result.span.named)).cumsum()
    return ShownChart(
        key="costs_over_time",
        title="Costs so far",
        caption="Paid since the start; below 0 is earned.",
        table=table.loc[:, (table != 0.0).any(axis=0)],
        y=find_currency(result) or "money",
        has_legend=True,
        size="beside",
        height=300,
    )


MIN_TRADES = 3
"""Closed trades below which no chart is drawn."""


def list_trade_charts(closed: pd.DataFrame, noun: str) -> Iterator[Shown]:
    if len(closed) < MIN_TRADES:
        return

    profit = closed["profit"].to_numpy(dtype=np.float64)
    held = closed["exit_time"] - closed["entry_time"]
    days = held.dt.total_seconds().to_numpy() / 86_400.0
    bins = min(40, max(8, 2 * math.isqrt(len(profit))))
    yield ShownChart(
        key="profits",
        title=f"Profit of {noun}",
        caption="",
        table=count_values(noun, profit, bins),
        kind="bars",
        x="money",
        size="third",
        height=210,
    )
    yield ShownChart(
        key="holding",
        title="Time held",
        caption="",
        table=count_values(noun, days, bins),
        kind="bars",
        x="days",
        size="third",
        height=210,
    )
    yield from list_profit_charts(closed, profit)


def list_profit_charts(closed: pd.DataFrame, profit: core.FloatArray) -> Iterator[ShownChart]:
    """Yield the profit by reason and time of exit, where there is more than one of them."""
    exits = pd.DatetimeIndex(closed["exit_time"])
    groupings: dict[str, tuple[str, Any, Any]] = {
        "by_reason": ("reason of exit", closed["ended"].astype(str).str.replace("_", " "), None),
        "by_month": ("month", exits.month, calendar.month_abbr),
        "by_weekday": ("weekday", exits.day_of_week, calendar.day_abbr),
        "by_hour": ("hour, UTC", exits.hour, range(24)),
    }
    for key, (title, groups, words) in groupings.items():
        table = pd.DataFrame({"profit": profit}).groupby(np.asarray(groups)).sum()
        if len(table) == 1:
            continue

        if words is not None:
            table.index = table.index.map(words.__getitem__)
        yield ShownChart(
            key=key,
            title=f"Profit by {title}",
            caption="",
            table=table,
            kind="bars",
            size="third",
            height=210,
        )


# What several instruments were.


def list_exposure(result: Result) -> Iterator[Shown]:
    yield draw_exposure(result)
    yield draw_risk_shares(result)
    yield draw_profit_shares(result)
    is_sampled = np.sum(result.ends_sample != 0.0) >= MIN_WINDOW
    if len(result.names) > 1 and is_sampled:
        yield draw_correlations(result)


def draw_exposure(result: Result) -> ShownChart:
    return ShownChart(
        key="exposure",
        title="Exposure by instrument",
        caption="Notional over equity at closes: longs are stacked above 0, shorts below.",
        table=result.exposures.set_axis(core.utc_index(result.span.named)),
        kind="area",
        y="leverage, x",
        has_legend=True,
        height=340,
    )


FEW_RETURNS = 30
"""Returns from which on a covariance is shown."""


def draw_risk_shares(result: Result) -> ShownChart:
    names = result.names
    table = None
    if len(names) > 1:
        table = result.risk()[[*names, "diversification_ratio"]]
        table = table.set_axis(core.utc_index(result.span.named))
        table = table.rename(columns={"diversification_ratio": "ratio"})
        # Covariances of a few returns are noise, which would stretch the axes of all that follows.
        if len(table) > 2 * FEW_RETURNS:
            table.iloc[:FEW_RETURNS] = math.nan
    return ShownChart(
        key="risk_shares",
        title="Where the risk came from",
        caption=(
            "From exponentially weighted covariances of mark returns with a half-life of 30 days. "
            f"A share below 0 is a hedge. Shown from {FEW_RETURNS} returns on."
        ),
        table=table,
        height=460,
        panels=(
            Panel("Share of the variance", tuple(names), height=2.2, percent=True),
            Panel("Diversification ratio", ("ratio",)),
        ),
    )


def draw_profit_shares(result: Result) -> ShownChart:
    held = result.record.held
    costs = sum(held[name] for name in TRADE_COSTS)
    profits = np.nan_to_num(held["price_pnl"] - costs).cumsum(axis=0)
    return ShownChart(
        key="profit_shares",
        title="Where the profit came from",
        caption="Profit after costs so far, by instrument.",
        table=pd.DataFrame(profits, core.utc_index(result.span.named), list(result.names)),
        y=find_currency(result) or "money",
        has_legend=True,
        height=300,
    )


def draw_correlations(result: Result) -> ShownChart:
    marks = result.marks[result.ends_sample != 0.0]
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.diff(np.log(marks), axis=0)
    correlations = pd.DataFrame(returns, columns=list(result.names)).corr()
    pairs: Any = correlations.rename_axis(index="", columns=" ").stack()
    return ShownChart(
        key="correlations",
        title="Correlation of the instruments",
        caption=f"Of log returns of the mark per {result.manifest['sampling']}.",
        table=pairs.to_frame("correlation"),
        kind="heat",
        size="beside",
        height=300,
        limits=(-1.0, 1.0),
    )
