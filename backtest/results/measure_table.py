"""The measures of an account: name, unit, direction, meaning and function (docs/metrics.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Never, TypeVar

import numpy as np

from backtest.account.money import GROWTH_TERMS, MONEY_TERMS, SIGNS, SUMMED
from backtest.core import FloatArray, IntArray, did_you_mean, format_time
from backtest.core.code_names import pd
from backtest.core.units import DAY, YEAR_DAYS
from backtest.results import performance
from backtest.results.luck import effective_observations, probability_of_skill, sharpe_error
from backtest.results.tally import Tally

OPTION_COSTS = ("options_cost_annual", "options_spread_annual")


class Measure(NamedTuple):
    """``better`` is 1 if larger is better, -1 if smaller is, 0 for neither.

    ``part`` says what it is measured of: ``"core"`` and ``"all"`` the tally, the first in each
    sweep and the second where a sweep is asked for it (``metrics="all"``); ``"path"`` the returns
    and the unit values of a run, which sweeps have not. ``domain`` holds the lowest and the highest
    value that the measure can have; bounds are checked against it.
    """

    unit: str
    better: int
    meaning: str
    part: str = "all"
    domain: tuple[float, float] = (-math.inf, math.inf)


V = TypeVar("V")


class Measures(dict[str, V]):
    """Measures by name, to be read; an unknown name raises KeyError with the nearest one.

    A dict of its own, as a ``MappingProxyType`` goes into no other process.
    """

    def __missing__(self, name: object) -> Never:
        raise KeyError(f"no measure is called {name!r}{did_you_mean(name, self)}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> Never:
        raise TypeError("measures can only be read; dict(metrics) is a copy that can be changed")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


FRACTION = "fraction"
ROOT = "per sqrt(year)"
MONEY = "money"
COUNT = "count"
DAYS = "days"
A_YEAR = "fraction per year"
TURNS = "x of equity"
LOSS = "log growth per year"
FLAG = "0 or 1"

SHARE = (0.0, 1.0)
SIZE = (0.0, math.inf)
RETURN = (-1.0, math.inf)
"""A return of unit values, which never are below 0."""
LOSSES = (-math.inf, 1.0)
"""Losses of a period: gains are negative, and no more than all is lost."""
MARGIN_USE = (0.0, 10.0)
"""An initial margin over ten times the equity: its maintenance would have liquidated before."""


def list_costs() -> dict[str, Measure]:
    """Return the measures of the terms of money that are costs."""
    costs = {}
    for term in MONEY_TERMS:
        if term.is_cost:
            costs[term.name] = Measure(
                unit=MONEY,
                better=-1,
                meaning=term.measure,
                part="core",
            )
    return costs


ABOUT: dict[str, Measure] = {
    "total_return": Measure(
        unit=FRACTION,
        better=1,
        meaning="growth from start to end, free of deposits",
        part="core",
        domain=RETURN,
    ),
    "cagr": Measure(
        unit=A_YEAR,
        better=1,
        meaning="growth of the account per year, compounded",
        part="core",
        domain=RETURN,
    ),
    "volatility": Measure(
        unit=ROOT,
        better=-1,
        meaning="standard deviation of returns, annualized",
        part="core",
        domain=SIZE,
    ),
    "sharpe": Measure(
        unit=ROOT,
        better=1,
        meaning="mean return over the risk-free rate per unit of deviation",
        part="core",
    ),
    "sortino": Measure(
        unit=ROOT,
        better=1,
        meaning="return over the risk-free rate per unit of downside",
    ),
    "max_drawdown": Measure(
        unit=FRACTION,
        better=-1,
        meaning="deepest fall from a running peak, at bar closes",
        part="core",
        domain=SHARE,
    ),
    "drawdown_days": Measure(
        unit=DAYS,
        better=-1,
        meaning="from the peak of the deepest fall to recovery, or the end",
        part="path",
        domain=SIZE,
    ),
    "recovered": Measure(
        unit=FLAG,
        better=1,
        meaning="whether the peak before the deepest fall was reached again",
        part="path",
        domain=SHARE,
    ),
    "calmar": Measure(
        unit="per year",
        better=1,
        meaning="growth per year for each unit of the deepest fall",
        part="core",
    ),
    "var_95": Measure(
        unit=FRACTION,
        better=-1,
        meaning="value at risk of a sampling period at 95 %",
        part="path",
        domain=LOSSES,
    ),
    "es_95": Measure(
        unit=FRACTION,
        better=-1,
        meaning="expected shortfall (CVaR) of a sampling period at 95 %",
        part="path",
        domain=LOSSES,
    ),
    "var_99": Measure(
        unit=FRACTION,
        better=-1,
        meaning="value at risk of a sampling period at 99 %",
        part="path",
        domain=LOSSES,
    ),
    "es_99": Measure(
        unit=FRACTION,
        better=-1,
        meaning="expected shortfall (CVaR) of a sampling period at 99 %",
        part="path",
        domain=LOSSES,
    ),
    "sharpe_error": Measure(
        unit=ROOT,
        better=0,
        meaning="standard error of the Sharpe ratio",
        part="path",
        domain=SIZE,
    ),
    "probabilistic_sharpe": Measure(
        unit=FRACTION,
        better=1,
        meaning="probability that the true Sharpe is above 0",
        part="path",
        domain=SHARE,
    ),
    "alpha": Measure(
        unit=A_YEAR,
        better=1,
        meaning="return that beta times the market does not explain",
        part="path",
    ),
    "alpha_error": Measure(
        unit=A_YEAR,
        better=0,
        meaning="HAC standard error of alpha",
        part="path",
        domain=SIZE,
    ),
    "beta": Measure(
        unit="number",
        better=0,
        meaning="slope of returns on unlevered market returns",
        part="path",
    ),
    "beta_error": Measure(
        unit="number",
        better=0,
        meaning="HAC standard error of beta",
        part="path",
        domain=SIZE,
    ),
    "skewness": Measure(
        unit="number",
        better=1,
        meaning="third standardized moment of returns, without bias",
        part="path",
    ),
    "excess_kurtosis": Measure(
        unit="number",
        better=-1,
        meaning="fourth standardized moment less 3, without bias",
        part="path",
    ),
    "omega": Measure(
        unit="number",
        better=1,
        meaning="sum of gains over sum of losses",
        part="path",
        domain=SIZE,
    ),
    "tail_ratio": Measure(
        unit="number",
        better=1,
        meaning="95 % quantile of returns over the 5 % quantile, without signs",
        part="path",
        domain=SIZE,
    ),
    "gain_to_pain": Measure(
        unit="number",
        better=1,
        meaning="sum of monthly returns over sum of monthly losses",
        part="path",
        domain=RETURN,
    ),
    "ulcer": Measure(
        unit=FRACTION,
        better=-1,
        meaning="root mean square of the drawdown at bar closes",
        part="path",
        domain=SHARE,
    ),
    "best_day": Measure(
        unit=FRACTION,
        better=1,
        meaning="largest return of a day",
        part="path",
        domain=RETURN,
    ),
    "worst_day": Measure(
        unit=FRACTION,
        better=1,
        meaning="smallest return of a day",
        part="path",
        domain=RETURN,
    ),
    "best_month": Measure(
        unit=FRACTION,
        better=1,
        meaning="largest return of a month",
        part="path",
        domain=RETURN,
    ),
    "worst_month": Measure(
        unit=FRACTION,
        better=1,
        meaning="smallest return of a month",
        part="path",
        domain=RETURN,
    ),
    "positive_days": Measure(
        unit=FRACTION,
        better=1,
        meaning="share of days with a gain",
        part="path",
        domain=SHARE,
    ),
    "certainty_equivalent": Measure(
        unit=A_YEAR,
        better=1,
        meaning="sure growth worth as much at a relative risk aversion of 3",
        domain=RETURN,
    ),
    "turnover": Measure(
        unit="per year",
        better=-1,
        meaning="traded notional over mean equity",
        part="core",
        domain=SIZE,
    ),
    "fills": Measure(
        unit=COUNT,
        better=0,
        meaning="fills of orders and exits, without liquidations",
        part="core",
        domain=SIZE,
    ),
    "price_pnl": Measure(
        unit=MONEY,
        better=1,
        meaning="profit of price moves, before any cost",
    ),
    **list_costs(),
    "liquidations": Measure(
        unit=COUNT,
        better=-1,
        meaning="times that a price triggered a liquidation",
        part="core",
        domain=SIZE,
    ),
    "liquidation_loss": Measure(
        unit=MONEY,
        better=-1,
        meaning="what liquidations cost beyond the price move",
    ),
    "bad_debt": Measure(
        unit=MONEY,
        better=-1,
        meaning="shortfall of the account, covered by the insurance fund",
        domain=SIZE,
    ),
    "ruined": Measure(
        unit=FLAG,
        better=-1,
        meaning="whether a loss ruined the account",
        part="core",
        domain=SHARE,
    ),
    "ruin_time": Measure(
        unit=DAYS,
        better=1,
        meaning="from the start to ruin; NaN where there was none",
        part="core",
        domain=SIZE,
    ),
    "time_to_first_liquidation": Measure(
        unit=DAYS,
        better=1,
        meaning="from the start; NaN where there was none",
        domain=SIZE,
    ),
    "near_liquidation_share": Measure(
        unit=FRACTION,
        better=-1,
        meaning="closes within 10 % of the liquidation price",
        part="path",
        domain=SHARE,
    ),
    "stops": Measure(
        unit=COUNT,
        better=-1,
        meaning="stops of any kind that closed the position at a loss limit",
        domain=SIZE,
    ),
    "take_profits": Measure(
        unit=COUNT,
        better=0,
        meaning="take-profits that closed the position",
        domain=SIZE,
    ),
    "ambiguous_bars": Measure(
        unit=COUNT,
        better=-1,
        meaning="bars the account survives only if prices move together",
        domain=SIZE,
    ),
    "both_reached": Measure(
        unit=COUNT,
        better=-1,
        meaning="bars that reach a take-profit, and a stop or the liquidation price",
        domain=SIZE,
    ),
    "margin_calls": Measure(
        unit=COUNT,
        better=-1,
        meaning="closes at which the margin ratio rose over the call",
        domain=SIZE,
    ),
    "calls_met": Measure(
        unit=COUNT,
        better=0,
        meaning="margin calls that ended with the ratio under the call again",
        domain=SIZE,
    ),
    "calls_failed": Measure(
        unit=COUNT,
        better=-1,
        meaning="margin calls that ended otherwise",
        domain=SIZE,
    ),
    "liquidated_after_call": Measure(
        unit=COUNT,
        better=-1,
        meaning="calls that a liquidation followed",
        domain=SIZE,
    ),
    "time_to_liquidation_after_call": Measure(
        unit=DAYS,
        better=1,
        meaning="mean from a call to that liquidation",
        domain=SIZE,
    ),
    "mean_leverage": Measure(
        unit=TURNS,
        better=0,
        meaning="mean of notional over equity at closes",
        domain=SIZE,
    ),
    "peak_leverage": Measure(
        unit=TURNS,
        better=-1,
        meaning="highest notional over equity at a close",
        domain=SIZE,
    ),
    "gross_over_cap": Measure(
        unit=FRACTION,
        better=-1,
        meaning="closes above the cap of gross leverage",
        domain=SHARE,
    ),
    "peak_margin_ratio": Measure(
        unit=FRACTION,
        better=-1,
        meaning="highest maintenance over what backs the position",
        domain=SHARE,
    ),
    "mean_margin_use": Measure(
        unit=FRACTION,
        better=-1,
        meaning="mean of initial margin over equity at closes",
        domain=MARGIN_USE,
    ),
    "return_on_margin": Measure(
        unit=A_YEAR,
        better=1,
        meaning="net profit per year over mean initial margin",
    ),
    "leverage_decay": Measure(
        unit=LOSS,
        better=-1,
        meaning="growth lost to volatility, funding, interest and fees",
        part="path",
    ),
    "flows": Measure(
        unit=MONEY,
        better=0,
        meaning="deposits less withdrawals, and top-ups",
    ),
    "top_ups": Measure(
        unit=MONEY,
        better=0,
        meaning="moved from the reserve to the account after margin calls",
    ),
    "final_equity": Measure(
        unit=MONEY,
        better=1,
        meaning="equity at the last close, without the reserve",
        part="core",
    ),
}


def list_parts(*parts: str) -> tuple[str, ...]:
    return tuple(name for name, measure in ABOUT.items() if measure.part in parts)


METRICS = tuple(ABOUT)
CORE = list_parts("core")
PATH = list_parts("path")
STREAMED = list_parts("core", "all")


def measure_run(
    tally: Tally,
    span: RunSpan,
    unit: FloatArray,
    equity: float,
    samples: Samples,
) -> dict[str, float]:
    """Return all measures of one account by name.

    ``unit`` (n_bars,) are values at closes, ``equity`` is that at the end. Money is in the
    settlement currency, times in days, the rest fractions (0.25 is 25 %).
    """
    # One account is measured as many are, of arrays of one.
    numbers = tally.to_dict()
    tally_of_one = {name: np.array([number]) for name, number in numbers.items()}
    measured = measure_accounts(tally_of_one, span, unit[-1:], np.array([equity]))
    measures: dict[str, Any] = {name: values[0] for name, values in measured.items()}
    measures |= measure_path(tally, span, unit)
    measures |= measure_returns(samples, span.periods)
    return {name: float(measures[name]) for name in METRICS}


def measure_accounts(
    tally: Mapping[str, Any],
    span: RunSpan,
    unit: FloatArray,
    equity: FloatArray,
) -> dict[str, FloatArray]:
    """Return the measures of many accounts, each array of shape (n_accounts,).

    ``tally`` has arrays of this shape by name; measures that are not found here are its sums.
    """
    with np.errstate(all="ignore"):
        measures = measure_core(tally, span, unit) | measure_rest(tally, span)
    measures["final_equity"] = equity

    columns = {}
    for name in STREAMED:
        column = measures[name] if name in measures else tally[name]
        columns[name] = np.array(column, dtype=np.float64)
    return columns


def measure_core(
    tally: Mapping[str, Any],
    span: RunSpan,
    unit: FloatArray,
) -> dict[str, Any]:
    """Return the measures that each sweep has, of many accounts.

    ``tally`` has what was summed over bars: ``ruin`` is the bar of a ruin, -1 without one, ``low``
    the unit value at the deepest fall and ``low_peak`` the peak before it; ``squares`` are of the
    sampled returns, ``excess_squares`` of those over the risk-free rate, less their means.
    """
    growth = unit / tally["first_unit"]
    rates = [performance.find_growth_rate(factor, span.years) for factor in growth.tolist()]
    is_ruined = tally["ruin"] >= 0
    cagr = np.where(is_ruined, -1.0, rates)
    drawdown = 1.0 - tally["low"] / tally["low_peak"]

    # Deviations with n - 1 degrees of freedom: of returns, and of those over the risk-free rate.
    n = tally["samples"]
    freedom = np.where(n > 1, n - 1.0, np.nan)
    deviation = np.sqrt(tally["squares"] / freedom)
    excess_deviation = np.sqrt(tally["excess_squares"] / freedom)
    sharpe = performance.annualize_ratios(tally["excess_mean"], excess_deviation, span.periods)

    mean_equity = tally["equity"] / tally["bars"]
    positive_equity = np.where(mean_equity > 0.0, mean_equity, np.nan)
    return {
        "total_return": growth - 1.0,
        "cagr": cagr,
        "volatility": deviation * math.sqrt(span.periods),
        "sharpe": sharpe,
        "max_drawdown": drawdown,
        "calmar": np.where(drawdown > 0.0, cagr / drawdown, np.nan),
        "turnover": tally["traded"] / positive_equity / span.years,
        "ruined": is_ruined,
        "ruin_time": count_days_to(tally["ruin"], span),
    }


def measure_rest(tally: Mapping[str, Any], span: RunSpan) -> dict[str, Any]:
    """Return the measures that a sweep has where it is asked for all, of many accounts.

    A sweep that was not asked has zeros in the rows of its tally that it does not count, and leaves
    what follows from them out.
    """
    n = tally["samples"]
    mean_downside = tally["downside"] / np.where(n > 0, n, np.nan)
    downside = np.sqrt(mean_downside)
    sortino = performance.annualize_ratios(tally["excess_mean"], downside, span.periods)

    # The bar of the highest margin ratio may have no backing at all.
    backing = tally["peak_backing"]
    peak_margin_ratio = np.where(backing > 0.0, tally["peak_needed"] / backing, np.inf)

    profit = sum(SIGNS[name] * tally[name] for name in SUMMED if name != "flows")
    mean_margin = tally["initial"] / tally["bars"]
    positive_margin = np.where(mean_margin > 0.0, mean_margin, np.nan)
    return {
        "sortino": sortino,
        "certainty_equivalent": find_sure_growth(tally["disutility"] / n, span.periods),
        "time_to_first_liquidation": count_days_to(tally["first_liquidation"], span),
        "margin_calls": tally["calls"],
        "liquidated_after_call": tally["liquidated_calls"],
        "time_to_liquidation_after_call": tally["call_days"] / tally["liquidated_calls"],
        "mean_leverage": tally["leverage"] / tally["bars"],
        "gross_over_cap": tally["over_cap"] / tally["bars"],
        "peak_margin_ratio": peak_margin_ratio,
        "mean_margin_use": tally["initial_share"] / tally["bars"],
        "return_on_margin": profit / positive_margin / span.years,
        "flows": tally["flows"] + tally["top_up"],
        "top_ups": tally["top_up"],
    }


def count_days_to(bar: Any, span: RunSpan) -> FloatArray:
    """Return the days from the start to the close of bars; NaN for bars of -1: there is none."""
    row = np.maximum(bar - span.first, 0).astype(np.int64)
    days = (span.closes[row] - span.start) / DAY
    return np.where(bar >= 0, days, np.nan)


def find_sure_growth(disutility: Any, periods: float) -> FloatArray:
    """Return the certainty equivalent per year of mean disutilities, the mean of 1 / (1 + r)^2."""
    period = 1.0 / periods  # in years
    rates = []
    for mean in disutility.tolist():
        factor = math.inf
        if mean != 0.0:
            factor = math.sqrt(1.0 / mean)
        rates.append(performance.find_growth_rate(factor, period))
    return np.where(np.isnan(disutility), np.nan, rates)


def measure_path(
    tally: Tally,
    span: RunSpan,
    unit: FloatArray,
) -> dict[str, float]:
    """Return the measures of the unit values at all closes."""
    first_unit = tally.first_unit
    days = performance.calendar_returns(span.opens, unit, first_unit, "D")
    months = performance.calendar_returns(span.opens, unit, first_unit, "M")
    peaks = np.maximum.accumulate(np.maximum(unit, first_unit))
    drawdown = 1.0 - unit / peaks

    # The deepest fall lasts from its peak to its recovery, or to the end of the run.
    has_fallen = tally.low != tally.low_peak
    has_recovered = tally.recovered >= 0
    drawdown_days = 0.0
    if has_fallen:
        end = int(span.closes[-1])
        if has_recovered:
            end = span.time_of(tally.recovered)
        drawdown_days = (end - span.time_of(tally.drawdown_peak)) / DAY

    return {
        "drawdown_days": drawdown_days,
        "recovered": has_recovered or not has_fallen,
        "gain_to_pain": performance.gain_over_loss(months) - 1.0,
        "ulcer": math.sqrt(float(np.mean(drawdown**2))),
        "best_day": days.max(),
        "worst_day": days.min(),
        "best_month": months.max(),
        "worst_month": months.min(),
        "positive_days": np.mean(days > 0.0),
        "near_liquidation_share": tally.near / tally.bars,
        "leverage_decay": find_leverage_decay(tally, span),
    }


def find_leverage_decay(tally: Tally, span: RunSpan) -> float:
    """Return the growth lost to volatility and costs, per year; NaN after ruin."""
    if tally.ruin >= 0:
        return math.nan

    # Simple returns less log returns; of the latter the last ones still stand as a product.
    log_growth = tally.decay_log + math.log(tally.decay_product)
    drag = tally.decay_held - log_growth
    return drag / span.years + tally.carry / span.years


def measure_returns(samples: Samples, periods: float) -> dict[str, float]:
    """Return the measures of the returns per sampling period."""
    returns = samples.returns
    excess = returns - samples.risk_free
    excess_market = samples.market - samples.risk_free
    fit = performance.fit_market(excess, excess_market, periods)
    skewness, excess_kurtosis = performance.measure_shape(returns)
    return {
        "var_95": performance.value_at_risk(returns, 0.95),
        "es_95": performance.expected_shortfall(returns, 0.95),
        "var_99": performance.value_at_risk(returns, 0.99),
        "es_99": performance.expected_shortfall(returns, 0.99),
        "sharpe_error": sharpe_error(excess, periods, n=effective_observations(excess)),
        "probabilistic_sharpe": probability_of_skill(excess),
        **fit._asdict(),
        "skewness": skewness,
        "excess_kurtosis": excess_kurtosis,
        "omega": performance.gain_over_loss(returns),
        "tail_ratio": performance.tail_ratio(returns),
    }


def find_cost_rates(tally: Tally, span: RunSpan) -> dict[str, float]:
    """Return costs per year as fractions of mean equity, by name; NaN if there never was any."""
    mean_equity = tally.equity / tally.bars
    if mean_equity <= 0.0:
        mean_equity = math.nan
    rates = {}
    for name in GROWTH_TERMS:
        amount: float = getattr(tally.money, name)
        rates[name] = amount / mean_equity / span.years
    return rates


MEASURE_NAMES = {
    "price_1x": "unlevered price",
    "cagr": "CAGR",
    "price_pnl": "price profit and loss",
    "ulcer": "ulcer index",
    "positive_days": "share of positive days",
    "volatility_drag": "variance drag",
    "sharpe": "Sharpe",
    "sortino": "Sortino",
    "calmar": "Calmar",
}
"""Names of measures that are not their words in lower case."""


def name_measure(name: str) -> str:
    """Return a measure or a term as pages name it."""
    short, _, level = name.partition("_")
    if short == "var":
        return f"VaR {level} %"
    if short == "es":
        return f"ES {level} %"
    return MEASURE_NAMES.get(name, name.replace("_", " "))


class RunSpan(NamedTuple):
    """Time that a run covers: its start and the closes of its bars in ns, and samples per year."""

    start: int
    closes: IntArray
    first: int
    periods: float

    @property
    def opens(self) -> IntArray:
        """The opens of bars, in ns; all bars are as long as the first."""
        return self.closes - (int(self.closes[0]) - self.start)

    @property
    def years(self) -> float:
        return (int(self.closes[-1]) - self.start) / (YEAR_DAYS * DAY)

    @property
    def is_daily(self) -> bool:
        return int(self.closes[0]) - self.start >= DAY

    @property
    def named(self) -> IntArray:
        """Moments that name the closes, ns: the dates of bars of a day or longer, their opens."""
        return self.opens if self.is_daily else self.closes

    def day_of(self, bar: float) -> str:
        """Return the date of a bar; that of the start for the bar before the first."""
        row = int(bar) - self.first
        time = self.start
        if row >= 0:
            time = int(self.named[row])
            if not self.is_daily:
                time -= 1  # a close at midnight belongs to the day before
        return format_time(time - time % DAY)

    def describe_close(self, bar: float) -> str:
        if self.is_daily:
            return f"on {self.day_of(bar)}"
        return f"at {pd.Timestamp(self.time_of(bar)):%Y-%m-%d %H:%M} UTC"

    def time_of(self, bar: float) -> int:
        """Return the close of a bar in ns; the start for the bar before the first."""
        row = int(bar) - self.first
        if row < 0:
            return self.start
        return int(self.closes[row])


class Samples(NamedTuple):
    """Simple returns per sampling period, each of shape (n_samples,)."""

    returns: FloatArray
    risk_free: FloatArray
    market: FloatArray
