"""The charts of a run: equity, returns, positions, costs, trades, and what a book is made of."""

from __future__ import annotations

import calendar
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest import core
from backtest.account.events import Mark
from backtest.account.money import MONEY_TERMS, TRADE_COSTS
from backtest.core.code_names import pd
from backtest.core.number_text import Head
from backtest.core.result_parts import Panel, Shown, ShownChart, ShownTable
from backtest.core.units import DAY
from backtest.results import find_periods, monthly_returns, run_record, tables, worst_drawdowns
from backtest.results.promises import compare_liquidations

if TYPE_CHECKING:
    from backtest.results import Result


PARTS_OF_TRADES = (*tables.COSTS,)
COMMON = ("fill", "funding", "interest", "expense")
MAX_ROWS = 2000


def choose_rows(events: pd.DataFrame, most: int = MAX_ROWS) -> core.IntArray:
    kind = events["kind"].astype(str)
    rows = events[~kind.isin(PARTS_OF_TRADES)]
    if len(rows) <= most:
        return rows.index.to_numpy(dtype=np.int64)
    place = rows["amount"].abs().groupby(kind.loc[rows.index]).rank(method="first", ascending=False)
    is_common = kind.loc[rows.index].isin(COMMON)
    order = np.lexsort((place.to_numpy(), is_common.to_numpy()))
    return np.sort(rows.index.to_numpy(dtype=np.int64)[order[:most]])


MAX_MARKS = 400
"""Most marks of one kind; if there are more, the largest are drawn."""


def place_marks(
    result: Result, chosen: pd.DataFrame, height: core.FloatArray, kinds_of: Mapping[str, Mark],
    most: int,
) -> pd.DataFrame:  # fmt: skip
    """Return where events are marked: at a height by bar, with label, symbol, color and row."""
    size = chosen["amount"].abs().groupby(chosen["kind"], observed=True)
    shown = chosen[size.rank(method="first", ascending=False) <= most]
    kinds = shown["kind"].astype(str)
    at = np.searchsorted(result.time, pd.DatetimeIndex(shown["time"]).as_unit("ns").asi8)
    total, drawn = chosen["kind"].astype(str).value_counts(), kinds.value_counts()
    labels = {
        kind: f"{kinds_of[kind].words} "
        f"({f'largest {drawn[kind]:,} of ' * bool(drawn[kind] < n)}{n:,})"
        for kind, n in zip(map(str, total.index), total, strict=True)
    }
    found = pd.DataFrame({
        "y": height[at],
        "label": [labels[kind] for kind in kinds],
        "symbol": [kinds_of[kind].symbol for kind in kinds],
        "color": [kinds_of[kind].color for kind in kinds],
        "row": pd.Index(choose_rows(result.events)).get_indexer(shown.index),
        "place": [list(kinds_of).index(kind) for kind in kinds],
    }, index=core.utc_index(result.span.named[at]))  # fmt: skip
    return found.sort_values("place", kind="stable")


DATED = ("peak", "trough", "recovery")
WORST, SHALLOW = 10, 0.1
"""Most falls of the table, and the share of the worst under which one is left out."""


def find_drawdowns(result: Result) -> pd.DataFrame:
    unit, span, first_peak = result.of_account("unit"), result.span, result.first_peak
    falls = worst_drawdowns(unit, span.closes, start=span.start, first_peak=first_peak, count=WORST)
    shift = pd.Timedelta(int(span.closes[0] - span.named[0]), "ns")
    for name in DATED:
        stamps = falls[name]
        falls[name] = stamps.where(stamps <= pd.Timestamp(span.start, tz="UTC"), stamps - shift)
    return falls


TIME_AFTER_RUIN = 0.1
"""Time after ruin that charts show, as a fraction of the time before it."""


def find_end(result: Result) -> int:
    """Return the time at which the axis ends: a tenth after ruin, 0 for the end of the run."""
    if result.tally.ruin < 0:
        return 0
    ruin = result.span.time_of(result.tally.ruin)
    lived = ruin - result.span.start
    end = ruin + max(int(TIME_AFTER_RUIN * lived), 2 * result.interval)
    return min(end, int(result.span.named[-1]))


def list_returns(result: Result) -> Iterator[Shown]:
    months = monthly_returns(result.time, result.of_account("unit"), result.tally.first_unit)
    names = [*calendar.month_abbr[1:], "year"]
    heads = {name: Head(name, "%", "points") for name in names}
    note = "Simple returns of the unit value by calendar month, UTC, in per cent."
    partial = [list_partial(result, "M", "%b %Y"), list_partial(result, "D", "%Y-%m-%d")]
    of_months, of_all = (f"Partial: {', '.join(each)}." if each else ""
                         for each in (partial[0], partial[0] + partial[1]))  # fmt: skip
    yield ShownTable(months.set_axis(names, axis=1), "Monthly returns",
                     f"{note} {of_months}".rstrip(), Head("year", "", "whole"), heads,
                     is_tinted=True)  # fmt: skip
    yield draw_years(result)
    yield ShownTable({each: {"value": result.metrics[each]} for each in OF_RETURNS},
                     "Measures of returns", of_all, Head("measure"), has_measures=True)  # fmt: skip
    yield draw_distribution(result)


def list_partial(result: Result, unit: str, style: str) -> list[str]:
    start, end = pd.Timestamp(result.span.start), pd.Timestamp(int(result.span.closes[-1]))
    slack = pd.Timedelta(days=4 if result.is_session else 0)  # days without a session
    first, last = start.to_period(unit), (end - pd.Timedelta(1, "ns")).to_period(unit)
    cut = [first] if start - first.start_time > slack else []
    cut += [last] if (last + 1).start_time - end > slack else []
    return [each.strftime(style) for each in dict.fromkeys(cut)]


OF_RETURNS = (
    "best_day", "worst_day", "best_month", "worst_month", "positive_days", "skewness",
    "excess_kurtosis", "omega", "tail_ratio", "gain_to_pain", "ulcer", "es_95",
)  # fmt: skip


def draw_years(result: Result) -> ShownChart:
    name, _, unit = run_record.follow_market(result)
    years = pd.DatetimeIndex(find_periods(result.time, "year")).year
    own = pd.Series(result.of_account("unit")).groupby(years).last()
    held = pd.Series(unit).groupby(years).last()
    own_before = own.shift(fill_value=result.tally.first_unit)
    table = pd.DataFrame({
        "account": own / own_before.where(own_before > 0.0) - 1.0,
        "buy and hold" if name == "1x" else "benchmark, unlevered":
            held / held.shift(fill_value=1.0) - 1.0,
    })  # fmt: skip
    table.index = pd.Index([str(year) for year in table.index])
    colors = dict(zip(map(str, table), ("accent", "neutral"), strict=True))
    return ShownChart("years", "Returns of calendar years", "Compared with the unlevered market, "
                      "without costs.", table, "bars", colors, percent="y", has_legend=True,
                      size="beside", height=240)  # fmt: skip


def draw_distribution(result: Result) -> ShownChart:
    returns, metrics = result.returns.to_numpy(), result.metrics
    table = count_values("returns", returns, min(60, max(12, math.isqrt(len(returns)) * 2)))
    marks = {"VaR 95 %": -metrics["var_95"], "ES 95 %": -metrics["es_95"],
             "ES 99 %": -metrics["es_99"]}  # fmt: skip
    caption = f"Returns per {result.manifest['sampling']}; losses to the left."
    return ShownChart("distribution", "Distribution of returns", caption, table, "bars",
                      {"returns": "accent"}, percent="x", y="count", size="beside", height=330,
                      marks=tuple(marks.values()), mark_names=tuple(marks))  # fmt: skip


def count_values(name: str, values: Any, bins: int) -> pd.DataFrame:
    counts, edges = np.histogram(values, bins)
    return pd.DataFrame({name: counts}, index=0.5 * (edges[1:] + edges[:-1]))


MIN_WINDOW = 8
"""Samples of a rolling window below which none is drawn."""


def list_charted(result: Result) -> list[Shown]:
    """Return a chart of each column that the policies ask to be drawn."""
    index = core.utc_index(result.span.named)
    return [
        ShownChart(name.replace(" ", "_"), core.capitalize(name), column.text,
                   pd.DataFrame({name: column.values}, index=index), height=240)
        for name, column in result.charted.items()
    ]  # fmt: skip


def list_rolling(result: Result) -> list[Shown]:
    """Return rolling windows of 90 days, or a quarter of the run if that is less."""
    periods, samples = result.span.periods, result.samples
    days = min(90.0, result.span.years * 365.0 / 4.0)
    n = int(days / 365.0 * len(samples.returns) / result.span.years)
    if n < MIN_WINDOW:
        return []
    frame = pd.DataFrame({"own": samples.returns, "market": samples.market,
                          "excess": samples.returns - samples.risk_free},
                         index=result.returns.index)  # fmt: skip
    rolling = frame.rolling(n)
    deviation, root = rolling.std(), math.sqrt(periods)
    gross = pd.Series(result.bars["gross_leverage"].to_numpy())
    mean = gross.rolling(max(n * len(gross) // len(frame), 1)).mean().to_numpy()
    known = np.where(deviation["excess"] > 1e-12, deviation["excess"], np.nan)
    table = pd.DataFrame({
        "Sharpe": rolling["excess"].mean() / known * root,
        "volatility": deviation["own"] * root,
        "market": deviation["market"] * root,
        "leverage": mean[result.ends_sample != 0.0],
        "beta": rolling["own"].cov(frame["market"]) / rolling["market"].var(),
    }, index=frame.index)  # fmt: skip
    volatility = ["volatility", "market"]
    for row in result.manifest.get("promises", ()):
        if row[1] == "volatility":
            table["target"] = row[2]
            volatility.append("target")
    sharpe = [Panel("Sharpe", ("Sharpe",))]
    if not run_record.shows_growth(365.0 * result.span.years):  # a yearly figure of few days
        sharpe = []
    panels = (
        *sharpe,
        Panel("Volatility", tuple(volatility), percent=True, from_zero=True),
        Panel("Mean leverage, x", ("leverage",), from_zero=True),
        Panel("Beta", ("beta",)),
    )
    colors = {"market": "neutral", "target": "loss"}
    return [ShownChart("rolling", f"Rolling windows of {days:,.0f} days", "Each value is of the "
                       "window that ends there, annualized as the measures of the run.", table,
                       colors=colors, height=440, panels=panels, dotted=("target",),
                       until=find_end(result))]  # fmt: skip


def draw_margin(result: Result) -> ShownChart:
    """Return what the account had as margin, how near it was to all of it, and the forecast."""
    bars = result.bars
    table = pd.DataFrame({
        "in use": bars["initial_margin"].to_numpy(),
        "available": bars["available"].to_numpy(),
        "margin ratio": np.minimum(bars["margin_ratio"].to_numpy(), LARGEST_RATIO),
    }, index=core.utc_index(result.span.named))  # fmt: skip
    panels = [
        Panel("Margin", ("in use", "available"), 1.4, from_zero=True),
        Panel("Margin ratio: 100 % is liquidation", ("margin ratio",), 1, True, True),
    ]
    caption = "The margin in use is the initial margin of what is held."
    if not result.has_one_position:
        caption += " The margin ratio is of the cross positions."

    rules = {
        f"multiplier of {name}": result.margin_multipliers[name].to_numpy()
        for name, venue in result.venues.items()
        if venue.margin is not None
    }
    if rules:
        table = table.assign(**rules)
        panels.append(Panel("Margin by rule: multiplier of the margin table", tuple(rules)))
    if result.has_one_position:
        forecast = bars["liquidation_probability"].to_numpy()
        if np.nanmax(forecast, initial=0.0) > LEAST_FORECAST:
            table["forecast"] = forecast
            title = "Forecast: liquidation price touched within a day"
            panels.append(Panel(title, ("forecast",), 1, True, True))
            caption += " The forecast is the probability to touch the liquidation price."
    colors = {"in use": "loss", "available": "accent", "forecast": "loss"}
    return ShownChart(
        "positions", "Margin", caption, table, colors=colors, height=130 + 110 * len(panels),
        panels=tuple(panels), until=find_end(result),
    )  # fmt: skip


LARGEST_RATIO = 1.5
"""A higher margin ratio is drawn as this one."""
LEAST_FORECAST = 1e-4
"""Largest forecast that is not drawn: on an axis of its own it would look large."""
SAID = 0.005
"""Expected liquidations under which none is as good as certain, and nothing is said."""


def list_positions(result: Result) -> Iterator[Shown]:
    yield draw_margin(result)
    if not result.has_one_position:
        return
    step = max(round(DAY / result.interval), 1)
    found = compare_liquidations(result, result.bars["liquidation_probability"].to_numpy()[::step],
                                 step)  # fmt: skip
    if not found.value and not found.expected >= SAID:
        return
    text = (
        f"Liquidations: {found.expected:,.2f} days with one were forecast, {found.value:,.0f} "
        "occurred"
    )
    if found.n < found.n_least:
        yield f"{text}: too early to judge."
        return
    yield (
        f"{text}; with 95 % probability from {found.low:,.0f} to {found.high:,.0f} if the "
        "forecasts are right."
    )


def find_currency(result: Result) -> str:
    """Return the settlement currency; empty where not every venue says one."""
    said = {each.contract.settles or "" for each in result.venues.values()}
    return said.pop() if len(said) == 1 else ""


def draw_costs(result: Result) -> ShownChart:
    account = result.record.account
    table = pd.DataFrame({
        x.words: getattr(account, x.name) for x in MONEY_TERMS if x.sign < 0 and not x.is_of_assets
    }, index=core.utc_index(result.span.named)).cumsum()  # fmt: skip
    shown = table.loc[:, (table != 0.0).any(axis=0)]
    return ShownChart("costs_over_time", "Costs so far", "Paid since the start; below 0 is earned.",
                      shown, y=find_currency(result) or "money", has_legend=True, size="beside",
                      height=300)  # fmt: skip


MIN_TRADES = 3
"""Closed trades below which no chart is drawn."""


def list_trade_charts(closed: pd.DataFrame, noun: str) -> Iterator[Shown]:
    if len(closed) < MIN_TRADES:
        return
    profit = closed["profit"].to_numpy(dtype=np.float64)
    exits = pd.DatetimeIndex(closed["exit_time"])
    days = (closed["exit_time"] - closed["entry_time"]).dt.total_seconds().to_numpy() / 86_400.0
    bins = min(40, max(8, 2 * math.isqrt(len(profit))))
    for key, title, values, unit in (("profits", f"Profit of {noun}", profit, "money"),
                                     ("holding", "Time held", days, "days")):  # fmt: skip
        yield ShownChart(key, title, "", count_values(noun, values, bins), "bars", x=unit,
                         size="third", height=210)  # fmt: skip
    groups: dict[str, tuple[Any, Any]] = {
        "reason of exit": (closed["ended"].astype(str).str.replace("_", " ").to_numpy(), None),
        "month": (exits.month, calendar.month_abbr),
        "weekday": (exits.day_of_week, calendar.day_abbr),
        "hour, UTC": (exits.hour, range(24)),
    }
    for name, (group, words) in groups.items():
        table = pd.DataFrame({"profit": profit}).groupby(group).sum()
        if words is not None:
            table.index = table.index.map(words.__getitem__)
        if len(table) > 1:
            yield ShownChart(f"by_{name.split()[0].rstrip(',')}", f"Profit by {name}", "", table,
                             "bars", size="third", height=210)  # fmt: skip


def list_exposure(result: Result) -> Iterator[Shown]:
    index, names = core.utc_index(result.span.named), list(result.names)
    caption = "Notional over equity at closes: longs are stacked above 0, shorts below."
    yield ShownChart("exposure", "Exposure by instrument", caption,
                     result.exposures.set_axis(index), "area", y="leverage, x", has_legend=True,
                     height=340)  # fmt: skip
    risk = result.risk()[[*names, "diversification_ratio"]].set_axis(index)
    ratio = risk.rename(columns={"diversification_ratio": "ratio"})
    panels = (Panel("Share of the variance", tuple(names), 2.2, percent=True),
              Panel("Diversification ratio", ("ratio",)))  # fmt: skip
    caption = (
        "From exponentially weighted covariances of mark returns with a half-life of 30 days. A "
        "share below 0 is a hedge."
    )
    yield ShownChart("risk_shares", "Where the risk came from", caption,
                     ratio if len(names) > 1 else None, height=460, panels=panels)  # fmt: skip
    own = result.record.held
    costs = sum(own[name] for name in TRADE_COSTS)
    profits = pd.DataFrame(np.nan_to_num(own["price_pnl"] - costs).cumsum(axis=0), index, names)
    caption = "Profit after costs so far, by instrument."
    yield ShownChart("profit_shares", "Where the profit came from", caption, profits,
                     y=find_currency(result) or "money", has_legend=True, height=300)  # fmt: skip
    ends = result.ends_sample != 0.0
    if len(names) > 1 and ends.sum() >= MIN_WINDOW:
        with np.errstate(divide="ignore", invalid="ignore"):
            moves = pd.DataFrame(np.diff(np.log(result.marks[ends]), axis=0), columns=names)
        found: Any = moves.corr().rename_axis(index="", columns=" ").stack()
        caption = f"Of log returns of the mark per {result.manifest['sampling']}."
        yield ShownChart("correlations", "Correlation of the instruments", caption,
                         found.to_frame("correlation"), "heat", size="beside", height=300,
                         limits=(-1.0, 1.0))  # fmt: skip
