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

ABOUT: dict[str, Measure] = {
    "total_return": Measure(
        FRACTION, 1, "growth from start to end, free of deposits", "core", domain=RETURN
    ),
    "cagr": Measure(A_YEAR, 1, "growth of the account per year, compounded", "core", domain=RETURN),
    "volatility": Measure(
        ROOT, -1, "standard deviation of returns, annualized", "core", domain=SIZE
    ),
    "sharpe": Measure(ROOT, 1, "mean return over the risk-free rate per unit of deviation", "core"),
    "sortino": Measure(ROOT, 1, "return over the risk-free rate per unit of downside"),
    "max_drawdown": Measure(
        FRACTION, -1, "deepest fall from a running peak, at bar closes", "core", domain=SHARE
    ),
    "drawdown_days": Measure(
        DAYS, -1, "from the peak of the deepest fall to recovery, or the end", "path", domain=SIZE
    ),
    "recovered": Measure(
        FLAG, 1, "whether the peak before the deepest fall was reached again", "path", domain=SHARE
    ),
    "calmar": Measure("per year", 1, "growth per year for each unit of the deepest fall", "core"),
    "var_95": Measure(
        FRACTION, -1, "value at risk of a sampling period at 95 %", "path", domain=LOSSES
    ),
    "es_95": Measure(
        FRACTION,
        -1,
        "expected shortfall (CVaR) of a sampling period at 95 %",
        "path",
        domain=LOSSES,
    ),
    "var_99": Measure(
        FRACTION, -1, "value at risk of a sampling period at 99 %", "path", domain=LOSSES
    ),
    "es_99": Measure(
        FRACTION,
        -1,
        "expected shortfall (CVaR) of a sampling period at 99 %",
        "path",
        domain=LOSSES,
    ),
    "sharpe_error": Measure(ROOT, 0, "standard error of the Sharpe ratio", "path", domain=SIZE),
    "probabilistic_sharpe": Measure(
        FRACTION, 1, "probability that the true Sharpe is above 0", "path", domain=SHARE
    ),
    "alpha": Measure(A_YEAR, 1, "return that beta times the market does not explain", "path"),
    "alpha_error": Measure(A_YEAR, 0, "HAC standard error of alpha", "path", domain=SIZE),
    "beta": Measure("number", 0, "slope of returns on unlevered market returns", "path"),
    "beta_error": Measure("number", 0, "HAC standard error of beta", "path", domain=SIZE),
    "skewness": Measure("number", 1, "third standardized moment of returns, without bias", "path"),
    "excess_kurtosis": Measure(
        "number", -1, "fourth standardized moment less 3, without bias", "path"
    ),
    "omega": Measure("number", 1, "sum of gains over sum of losses", "path", domain=SIZE),
    "tail_ratio": Measure(
        "number",
        1,
        "95 % quantile of returns over the 5 % quantile, without signs",
        "path",
        domain=SIZE,
    ),
    "gain_to_pain": Measure(
        "number", 1, "sum of monthly returns over sum of monthly losses", "path", domain=RETURN
    ),
    "ulcer": Measure(
        FRACTION, -1, "root mean square of the drawdown at bar closes", "path", domain=SHARE
    ),
    "best_day": Measure(FRACTION, 1, "largest return of a day", "path", domain=RETURN),
    "worst_day": Measure(FRACTION, 1, "smallest return of a day", "path", domain=RETURN),
    "best_month": Measure(FRACTION, 1, "largest return of a month", "path", domain=RETURN),
    "worst_month": Measure(FRACTION, 1, "smallest return of a month", "path", domain=RETURN),
    "positive_days": Measure(FRACTION, 1, "share of days with a gain", "path", domain=SHARE),
    "certainty_equivalent": Measure(
        A_YEAR, 1, "sure growth worth as much at a relative risk aversion of 3", domain=RETURN
    ),
    "turnover": Measure("per year", -1, "traded notional over mean equity", "core", domain=SIZE),
    "fills": Measure(
        COUNT, 0, "fills of orders and exits, without liquidations", "core", domain=SIZE
    ),
    "price_pnl": Measure(MONEY, 1, "profit of price moves, before any cost"),
    **{x.name: Measure(MONEY, -1, x.measure, "core") for x in MONEY_TERMS if x.is_cost},
    "liquidations": Measure(
        COUNT, -1, "times that a price triggered a liquidation", "core", domain=SIZE
    ),
    "liquidation_loss": Measure(MONEY, -1, "what liquidations cost beyond the price move"),
    "bad_debt": Measure(
        MONEY, -1, "shortfall of the account, covered by the insurance fund", domain=SIZE
    ),
    "ruined": Measure(FLAG, -1, "whether a loss ruined the account", "core", domain=SHARE),
    "ruin_time": Measure(
        DAYS, 1, "from the start to ruin; NaN where there was none", "core", domain=SIZE
    ),
    "time_to_first_liquidation": Measure(
        DAYS, 1, "from the start; NaN where there was none", domain=SIZE
    ),
    "near_liquidation_share": Measure(
        FRACTION, -1, "closes within 10 % of the liquidation price", "path", domain=SHARE
    ),
    "stops": Measure(
        COUNT, -1, "stops of any kind that closed the position at a loss limit", domain=SIZE
    ),
    "take_profits": Measure(COUNT, 0, "take-profits that closed the position", domain=SIZE),
    "ambiguous_bars": Measure(
        COUNT, -1, "bars the account survives only if prices move together", domain=SIZE
    ),
    "both_reached": Measure(
        COUNT, -1, "bars that reach a take-profit, and a stop or the liquidation price", domain=SIZE
    ),
    "margin_calls": Measure(
        COUNT, -1, "closes at which the margin ratio rose over the call", domain=SIZE
    ),
    "calls_met": Measure(
        COUNT, 0, "margin calls that ended with the ratio under the call again", domain=SIZE
    ),
    "calls_failed": Measure(COUNT, -1, "margin calls that ended otherwise", domain=SIZE),
    "liquidated_after_call": Measure(COUNT, -1, "calls that a liquidation followed", domain=SIZE),
    "time_to_liquidation_after_call": Measure(
        DAYS, 1, "mean from a call to that liquidation", domain=SIZE
    ),
    "mean_leverage": Measure(TURNS, 0, "mean of notional over equity at closes", domain=SIZE),
    "peak_leverage": Measure(TURNS, -1, "highest notional over equity at a close", domain=SIZE),
    "gross_over_cap": Measure(FRACTION, -1, "closes above the cap of gross leverage", domain=SHARE),
    "peak_margin_ratio": Measure(
        FRACTION, -1, "highest maintenance over what backs the position", domain=SHARE
    ),
    "mean_margin_use": Measure(
        FRACTION, -1, "mean of initial margin over equity at closes", domain=MARGIN_USE
    ),
    "return_on_margin": Measure(A_YEAR, 1, "net profit per year over mean initial margin"),
    "leverage_decay": Measure(
        LOSS, -1, "growth lost to volatility, funding, interest and fees", "path"
    ),
    "flows": Measure(MONEY, 0, "deposits less withdrawals, and top-ups"),
    "top_ups": Measure(MONEY, 0, "moved from the reserve to the account after margin calls"),
    "final_equity": Measure(MONEY, 1, "equity at the last close, without the reserve", "core"),
}


def list_parts(*parts: str) -> tuple[str, ...]:
    return tuple(name for name, measure in ABOUT.items() if measure.part in parts)


METRICS = tuple(ABOUT)
CORE = list_parts("core")
PATH = list_parts("path")
STREAMED = list_parts("core", "all")


def measure_run(
    tally: Tally, span: RunSpan, unit: FloatArray, equity: float, samples: Samples
) -> dict[str, float]:
    """Return all measures of one account by name.

    ``unit`` (n_bars,) are values at closes, ``equity`` is that at the end. Money is in the
    settlement currency, times in days, the rest fractions (0.25 is 25 %).
    """
    many = {name: np.array([value]) for name, value in tally.to_dict().items()}
    measured = measure_accounts(many, span, unit[-1:], np.array([equity]))
    measures: dict[str, Any] = {name: values[0] for name, values in measured.items()}
    measures |= measure_path(tally, span, unit)
    measures |= measure_returns(samples, span.periods)
    return {name: float(measures[name]) for name in METRICS}


def measure_accounts(
    tally: Mapping[str, Any], span: RunSpan, unit: FloatArray, equity: FloatArray
) -> dict[str, FloatArray]:
    """Return the measures of many accounts, each array of shape (n_accounts,).

    ``tally`` has arrays of this shape by name; measures that are not found here are its sums.
    """
    with np.errstate(all="ignore"):
        measures = measure_core(tally, span, unit) | measure_rest(tally, span)
    measures["final_equity"] = equity

    columns = {name: measures[name] if name in measures else tally[name] for name in STREAMED}
    return {name: np.array(column, dtype=np.float64) for name, column in columns.items()}


def measure_core(tally: Mapping[str, Any], span: RunSpan, unit: FloatArray) -> dict[str, Any]:
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

    n = tally["samples"]
    freedom = np.where(n > 1, n - 1.0, np.nan)
    deviation = np.sqrt(tally["excess_squares"] / freedom)
    mean_equity = tally["equity"] / tally["bars"]
    return {
        "total_return": growth - 1.0,
        "cagr": cagr,
        "volatility": np.sqrt(tally["squares"] / freedom) * math.sqrt(span.periods),
        "sharpe": performance.annualize_ratios(tally["excess_mean"], deviation, span.periods),
        "max_drawdown": drawdown,
        "calmar": np.where(drawdown > 0.0, cagr / drawdown, np.nan),
        "turnover": tally["traded"] / np.where(mean_equity > 0.0, mean_equity, np.nan) / span.years,
        "ruined": is_ruined,
        "ruin_time": count_days_to(tally["ruin"], span),
    }


def measure_rest(tally: Mapping[str, Any], span: RunSpan) -> dict[str, Any]:
    """Return the measures that a sweep has where it is asked for all, of many accounts.

    A sweep that was not asked has zeros in the rows of its tally that it does not count, and leaves
    what follows from them out.
    """
    n = tally["samples"]
    downside = np.sqrt(tally["downside"] / np.where(n > 0, n, np.nan))
    backing = tally["peak_backing"]
    mean_margin = tally["initial"] / tally["bars"]
    profit = sum(SIGNS[name] * tally[name] for name in SUMMED if name != "flows")
    return {
        "sortino": performance.annualize_ratios(tally["excess_mean"], downside, span.periods),
        "certainty_equivalent": find_sure_growth(tally["disutility"] / n, span.periods),
        "time_to_first_liquidation": count_days_to(tally["first_liquidation"], span),
        "margin_calls": tally["calls"],
        "liquidated_after_call": tally["liquidated_calls"],
        "time_to_liquidation_after_call": tally["call_days"] / tally["liquidated_calls"],
        "mean_leverage": tally["leverage"] / tally["bars"],
        "gross_over_cap": tally["over_cap"] / tally["bars"],
        "peak_margin_ratio": np.where(backing > 0.0, tally["peak_needed"] / backing, np.inf),
        "mean_margin_use": tally["initial_share"] / tally["bars"],
        "return_on_margin": profit / np.where(mean_margin > 0.0, mean_margin, np.nan) / span.years,
        "flows": tally["flows"] + tally["top_up"],
        "top_ups": tally["top_up"],
    }


def count_days_to(bar: Any, span: RunSpan) -> FloatArray:
    """Return the days from the start to the close of bars; NaN for bars of -1: there is none."""
    row = np.maximum(bar - span.first, 0).astype(np.int64)
    return np.where(bar >= 0, (span.closes[row] - span.start) / DAY, np.nan)


def find_sure_growth(disutility: Any, periods: float) -> FloatArray:
    """Return the certainty equivalent per year of mean disutilities, the mean of 1 / (1 + r)^2."""
    rates = []
    for mean in disutility.tolist():
        factor = math.sqrt(1.0 / mean) if mean != 0.0 else math.inf
        rates.append(performance.find_growth_rate(factor, 1.0 / periods))
    return np.where(np.isnan(disutility), np.nan, rates)


def measure_path(tally: Tally, span: RunSpan, unit: FloatArray) -> dict[str, float]:
    """Return the measures of the unit values at all closes."""
    first_unit = tally.first_unit
    days = performance.calendar_returns(span.opens, unit, first_unit, "D")
    months = performance.calendar_returns(span.opens, unit, first_unit, "M")
    peaks = np.maximum.accumulate(np.maximum(unit, first_unit))

    has_fallen = tally.low != tally.low_peak
    has_recovered = tally.recovered >= 0
    end = span.time_of(tally.recovered) if has_recovered else int(span.closes[-1])
    drawdown_days = (end - span.time_of(tally.drawdown_peak)) / DAY
    return {
        "drawdown_days": drawdown_days if has_fallen else 0.0,
        "recovered": has_recovered or not has_fallen,
        "gain_to_pain": performance.gain_over_loss(months) - 1.0,
        "ulcer": math.sqrt(float(np.mean((1.0 - unit / peaks) ** 2))),
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
    drag = tally.decay_held - (tally.decay_log + math.log(tally.decay_product))
    return drag / span.years + tally.carry / span.years


def measure_returns(samples: Samples, periods: float) -> dict[str, float]:
    """Return the measures of the returns per sampling period."""
    returns = samples.returns
    excess = returns - samples.risk_free
    fit = performance.fit_market(excess, samples.market - samples.risk_free, periods)
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
    mean = tally.equity / tally.bars
    scale = mean if mean > 0.0 else math.nan
    return {name: getattr(tally.money, name) / scale / span.years for name in GROWTH_TERMS}


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
        return self.start if row < 0 else int(self.closes[row])


class Samples(NamedTuple):
    """Simple returns per sampling period, each of shape (n_samples,)."""

    returns: FloatArray
    risk_free: FloatArray
    market: FloatArray
