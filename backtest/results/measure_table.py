"""The measures of an account: name, unit, direction, meaning and function (docs/metrics.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Never, TypeVar

import numpy as np

from backtest.account.money import GROWTH_TERMS, MONEY_TERMS, SIGNS, SUMMED
from backtest.core import FloatArray, IntArray, did_you_mean, format_time
from backtest.core.code_names import pd
from backtest.core.units import DAY, YEAR_DAYS
from backtest.results import performance
from backtest.results.luck import effective_observations, probability_of_skill, sharpe_error
from backtest.results.tally import Tally, flatten_tally

OPTION_COSTS = ("options_cost_annual", "options_spread_annual")


class Accounts:
    """The tally of n accounts: arrays of shape (n,) by name, and their values at the end."""

    def __init__(
        self, tally: Mapping[str, Any], span: RunSpan, unit: FloatArray, equity: FloatArray
    ) -> None:
        self.tally, self.span, self.years = tally, span, span.years
        self.unit, self.equity = unit, equity
        self.is_ruined = tally["ruin"] >= 0

    def read(self, name: str) -> FloatArray:
        return np.array(self.tally[name], dtype=np.float64)

    def find_days(self, name: str) -> FloatArray:
        """Return the days from the start to the close of a bar; NaN for a bar below 0."""
        bar = self.tally[name]
        row = np.maximum(bar - self.span.first, 0).astype(np.int64)
        return np.where(bar >= 0, (self.span.closes[row] - self.span.start) / DAY, np.nan)

    @cached_property
    def growth(self) -> FloatArray:
        return np.asarray(self.unit / self.tally["first_unit"])

    @cached_property
    def cagr(self) -> FloatArray:
        rates = np.array(
            [performance.find_growth_rate(each, self.years) for each in self.growth.tolist()]
        )
        return np.where(self.is_ruined, -1.0, rates)

    @cached_property
    def drawdown(self) -> FloatArray:
        return np.asarray(1.0 - self.tally["low"] / self.tally["low_peak"])

    @cached_property
    def leverage(self) -> FloatArray:
        return np.asarray(self.tally["leverage"] / self.tally["bars"])

    def find_deviation(self, name: str) -> FloatArray:
        n = self.tally["samples"]
        return np.asarray(np.sqrt(self.tally[name] / np.where(n > 1, n - 1.0, np.nan)))

    def annualize(self, deviation: FloatArray) -> FloatArray:
        return annualize_ratios(self.tally["excess_mean"], deviation, self.span.periods)

    def find_turnover(self) -> FloatArray:
        mean = self.tally["equity"] / self.tally["bars"]
        traded = self.tally["traded"] / np.where(mean > 0.0, mean, np.nan)
        return np.asarray(traded / self.years)

    def find_return_on_margin(self) -> FloatArray:
        mean, tally = self.tally["initial"] / self.tally["bars"], self.tally
        profit = sum(SIGNS[name] * tally[name] for name in SUMMED if name != "flows")
        return np.asarray(profit / np.where(mean > 0.0, mean, np.nan) / self.years)

    def find_sortino(self) -> FloatArray:
        n = self.tally["samples"]
        return self.annualize(np.sqrt(self.tally["downside"] / np.where(n > 0, n, np.nan)))

    def find_peak_ratio(self) -> FloatArray:
        backing = self.tally["peak_backing"]
        return np.where(backing > 0.0, self.tally["peak_needed"] / backing, np.inf)

    def find_equivalents(self) -> FloatArray:
        """Return the certainty equivalents per year of mean (1 + r)^-2; NaN without returns."""
        mean = self.tally["disutility"] / self.tally["samples"]
        growth = [math.sqrt(1.0 / each) if each != 0.0 else math.inf for each in mean.tolist()]
        rates = [performance.find_growth_rate(each, 1.0 / self.span.periods) for each in growth]
        return np.where(np.isnan(mean), np.nan, rates)


class Path:
    def __init__(
        self, samples: Samples, periods: float, fall: Tally, span: RunSpan, unit: FloatArray
    ) -> None:
        self.samples, self.periods = samples, periods
        self.fall, self.span, self.unit = fall, span, unit

    @property
    def excess(self) -> FloatArray:
        return self.samples.returns - self.samples.risk_free

    @cached_property
    def fit(self) -> performance.MarketFit:
        return performance.fit_market(
            self.excess, self.samples.market - self.samples.risk_free, self.periods
        )

    @cached_property
    def days(self) -> FloatArray:
        return performance.calendar_returns(self.span.opens, self.unit, self.fall.first_unit, "D")

    @cached_property
    def months(self) -> FloatArray:
        return performance.calendar_returns(self.span.opens, self.unit, self.fall.first_unit, "M")

    def find_ulcer(self) -> float:
        peaks = np.maximum.accumulate(np.maximum(self.unit, self.fall.first_unit))
        return math.sqrt(float(np.mean((1.0 - self.unit / peaks) ** 2)))

    def read(self, name: str) -> float:
        return float(getattr(self.fit, name))

    def find_drawdown_days(self) -> float:
        if self.fall.low == self.fall.low_peak:
            return 0.0
        is_over, closes = self.fall.recovered >= 0, self.span.closes
        end = self.span.time_of(self.fall.recovered) if is_over else int(closes[-1])
        return (end - self.span.time_of(self.fall.drawdown_peak)) / DAY

    def is_recovered(self) -> bool:
        return self.fall.low == self.fall.low_peak or self.fall.recovered >= 0

    def find_decay(self) -> float:
        if self.fall.ruin >= 0:
            return math.nan
        drag = self.fall.decay_held - (self.fall.decay_log + math.log(self.fall.decay_product))
        return drag / self.span.years + self.fall.carry / self.span.years


class Measure(NamedTuple):
    """``better`` is 1 if larger is better, -1 if smaller is, 0 for neither.

    ``part`` says what ``of`` takes: ``"core"`` and ``"all"`` the tally of :class:`Accounts`,
    ``"returns"`` and ``"path"`` a :class:`Path`. Without ``of`` it is the tally's sum of its name.
    """

    unit: str
    better: int
    meaning: str
    part: str = "all"
    of: Callable[[Any], Any] | None = None

    def find(self, name: str, source: Any) -> Any:
        return source.read(name) if self.of is None else self.of(source)


V = TypeVar("V")


class Measures(dict[str, V]):
    """Measures by name; an unknown name raises KeyError with the nearest one."""

    def __missing__(self, name: object) -> Never:
        raise KeyError(f"no measure is called {name!r}{did_you_mean(name, self)}")


FRACTION, ROOT, MONEY, COUNT, DAYS = "fraction", "per sqrt(year)", "money", "count", "days"
A_YEAR, TURNS, LOSS, FLAG = "fraction per year", "x of equity", "log growth per year", "0 or 1"

ABOUT: dict[str, Measure] = {
    "total_return": Measure(
        FRACTION, 1, "growth from start to end, free of deposits", "core", lambda a: a.growth - 1.0,
    ),
    "cagr": Measure(
        A_YEAR, 1, "growth of the account per year, compounded", "core", lambda a: a.cagr,
    ),
    "volatility": Measure(
        ROOT, -1, "standard deviation of returns, annualized", "core",
        lambda a: a.find_deviation("squares") * math.sqrt(a.span.periods),
    ),
    "sharpe": Measure(
        ROOT, 1, "mean return over the risk-free rate per unit of deviation", "core",
        lambda a: a.annualize(a.find_deviation("excess_squares")),
    ),
    "sortino": Measure(
        ROOT, 1, "return over the risk-free rate per unit of downside", "all",
        Accounts.find_sortino,
    ),
    "max_drawdown": Measure(
        FRACTION, -1, "deepest fall from a running peak, at bar closes", "core",
        lambda a: a.drawdown,
    ),
    "drawdown_days": Measure(
        DAYS, -1, "from the peak of the deepest fall to recovery, or the end", "path",
        Path.find_drawdown_days,
    ),
    "recovered": Measure(
        FLAG, 1, "whether the peak before the deepest fall was reached again", "path",
        Path.is_recovered,
    ),
    "calmar": Measure(
        "per year", 1, "growth per year for each unit of the deepest fall", "core",
        lambda a: np.where(a.drawdown > 0.0, a.cagr / a.drawdown, np.nan),
    ),
    "var_95": Measure(
        FRACTION, -1, "value at risk of a sampling period at 95 %", "returns",
        lambda p: performance.value_at_risk(p.samples.returns, 0.95),
    ),
    "es_95": Measure(
        FRACTION, -1, "expected shortfall (CVaR) of a sampling period at 95 %", "returns",
        lambda p: performance.expected_shortfall(p.samples.returns, 0.95),
    ),
    "var_99": Measure(
        FRACTION, -1, "value at risk of a sampling period at 99 %", "returns",
        lambda p: performance.value_at_risk(p.samples.returns, 0.99),
    ),
    "es_99": Measure(
        FRACTION, -1, "expected shortfall (CVaR) of a sampling period at 99 %", "returns",
        lambda p: performance.expected_shortfall(p.samples.returns, 0.99),
    ),
    "sharpe_error": Measure(
        ROOT, 0, "standard error of the Sharpe ratio", "returns",
        lambda p: sharpe_error(p.excess, p.periods, n=effective_observations(p.excess)),
    ),
    "probabilistic_sharpe": Measure(
        FRACTION, 1, "probability that the true Sharpe is above 0", "returns",
        lambda p: probability_of_skill(p.excess),
    ),
    "alpha": Measure(A_YEAR, 1, "return that beta times the market does not explain", "returns"),
    "alpha_error": Measure(A_YEAR, 0, "HAC standard error of alpha", "returns"),
    "beta": Measure("number", 0, "slope of returns on unlevered market returns", "returns"),
    "beta_error": Measure("number", 0, "HAC standard error of beta", "returns"),
    "skewness": Measure(
        "number", 1, "third standardized moment of returns, without bias", "returns",
        lambda p: performance.measure_shape(p.samples.returns)[0],
    ),
    "excess_kurtosis": Measure(
        "number", -1, "fourth standardized moment less 3, without bias", "returns",
        lambda p: performance.measure_shape(p.samples.returns)[1],
    ),
    "omega": Measure(
        "number", 1, "sum of gains over sum of losses", "returns",
        lambda p: performance.gain_over_loss(p.samples.returns),
    ),
    "tail_ratio": Measure(
        "number", 1, "95 % quantile of returns over the 5 % quantile, without signs", "returns",
        lambda p: performance.tail_ratio(p.samples.returns),
    ),
    "gain_to_pain": Measure(
        "number", 1, "sum of monthly returns over sum of monthly losses", "path",
        lambda p: performance.gain_over_loss(p.months) - 1.0,
    ),
    "ulcer": Measure(
        FRACTION, -1, "root mean square of the drawdown at bar closes", "path", Path.find_ulcer,
    ),
    "best_day": Measure(FRACTION, 1, "largest return of a day", "path", lambda p: p.days.max()),
    "worst_day": Measure(FRACTION, 1, "smallest return of a day", "path", lambda p: p.days.min()),
    "best_month": Measure(
        FRACTION, 1, "largest return of a month", "path", lambda p: p.months.max(),
    ),
    "worst_month": Measure(
        FRACTION, 1, "smallest return of a month", "path", lambda p: p.months.min(),
    ),
    "positive_days": Measure(
        FRACTION, 1, "share of days with a gain", "path", lambda p: np.mean(p.days > 0.0),
    ),
    "certainty_equivalent": Measure(
        A_YEAR, 1, "sure growth worth as much at a relative risk aversion of 3", "all",
        Accounts.find_equivalents,
    ),
    "turnover": Measure(
        "per year", -1, "traded notional over mean equity", "core", Accounts.find_turnover,
    ),
    "fills": Measure(COUNT, -1, "fills of orders and exits, without liquidations", "core"),
    "price_pnl": Measure(MONEY, 1, "profit of price moves, before any cost"),
    **{x.name: Measure(MONEY, -1, x.measure, "core") for x in MONEY_TERMS if x.is_cost},
    "liquidations": Measure(COUNT, -1, "times that a price triggered a liquidation", "core"),
    "liquidation_loss": Measure(MONEY, -1, "what liquidations cost beyond the price move"),
    "bad_debt": Measure(MONEY, -1, "shortfall of the account, covered by the insurance fund"),
    "ruined": Measure(
        FLAG, -1, "whether a loss ruined the account", "core",
        lambda a: np.array(a.is_ruined, dtype=np.float64),
    ),
    "ruin_time": Measure(
        DAYS, 1, "from the start to ruin; NaN where there was none", "core",
        lambda a: a.find_days("ruin"),
    ),
    "time_to_first_liquidation": Measure(
        DAYS, 1, "from the start; NaN where there was none", "all",
        lambda a: a.find_days("first_liquidation"),
    ),
    "near_liquidation_share": Measure(
        FRACTION, -1, "closes within 10 % of the liquidation price", "path",
        lambda p: p.fall.near / p.fall.bars,
    ),
    "stops": Measure(COUNT, -1, "stops of any kind that closed the position at a loss limit"),
    "take_profits": Measure(COUNT, 0, "take-profits that closed the position"),
    "ambiguous_bars": Measure(
        COUNT, -1, "bars the account survives only if prices move together",
    ),
    "both_reached": Measure(
        COUNT, -1, "bars that reach a take-profit, and a stop or the liquidation price",
    ),
    "margin_calls": Measure(
        COUNT, -1, "closes at which the margin ratio rose over the call", "all",
        lambda a: a.read("calls"),
    ),
    "calls_met": Measure(COUNT, 0, "margin calls that ended with the ratio under the call again"),
    "calls_failed": Measure(COUNT, -1, "margin calls that ended otherwise"),
    "liquidated_after_call": Measure(
        COUNT, -1, "calls that a liquidation followed", "all", lambda a: a.read("liquidated_calls"),
    ),
    "time_to_liquidation_after_call": Measure(
        DAYS, 1, "mean from a call to that liquidation", "all",
        lambda a: a.read("call_days") / a.read("liquidated_calls"),
    ),
    "mean_leverage": Measure(
        TURNS, 0, "mean of notional over equity at closes", "all", lambda a: a.leverage,
    ),
    "peak_leverage": Measure(TURNS, -1, "highest notional over equity at a close"),
    "gross_over_cap": Measure(
        FRACTION, -1, "closes above the cap of gross leverage", "all",
        lambda a: a.tally["over_cap"] / a.tally["bars"],
    ),
    "peak_margin_ratio": Measure(
        FRACTION, -1, "highest maintenance over what backs the position", "all",
        Accounts.find_peak_ratio,
    ),
    "mean_margin_use": Measure(
        FRACTION, -1, "mean of initial margin over equity at closes", "all",
        lambda a: a.tally["initial_share"] / a.tally["bars"],
    ),
    "return_on_margin": Measure(
        A_YEAR, 1, "net profit per year over mean initial margin", "all",
        Accounts.find_return_on_margin,
    ),
    "leverage_decay": Measure(
        LOSS, -1, "growth lost to volatility, funding, interest and fees", "path", Path.find_decay,
    ),
    "flows": Measure(
        MONEY, 0, "deposits less withdrawals, and top-ups", "all",
        lambda a: a.tally["flows"] + a.tally["top_up"],
    ),
    "top_ups": Measure(
        MONEY, 0, "moved from the reserve to the account after margin calls", "all",
        lambda a: a.read("top_up"),
    ),
    "final_equity": Measure(
        MONEY, 1, "equity at the last close, without the reserve", "core",
        lambda a: np.array(a.equity, dtype=np.float64),
    ),
}  # fmt: skip


def list_parts(*parts: str) -> tuple[str, ...]:
    return tuple(name for name, each in ABOUT.items() if each.part in parts)


METRICS = tuple(ABOUT)
CORE, PATH, OF_RETURNS = list_parts("core"), list_parts("returns", "path"), list_parts("returns")
STREAMED = list_parts("core", "all")


def measure_run(
    tally: Tally, span: RunSpan, unit: FloatArray, equity: float, samples: Samples
) -> dict[str, float]:
    """Return all measures of one account by name.

    ``unit`` (n_bars,) are values at closes, ``equity`` is that at the end. Money is in the
    settlement currency, times in days, the rest fractions (0.25 is 25 %).
    """
    many = {name: np.array([value]) for name, value in flatten_tally(tally).items()}
    measured = measure_accounts(many, span, unit[-1:], np.array([equity]))
    path = Path(samples, span.periods, tally, span, unit)
    of_path = {name: ABOUT[name].find(name, path) for name in PATH}
    return {name: float(of_path[name] if name in PATH else measured[name][0]) for name in METRICS}


def measure_accounts(
    tally: Mapping[str, Any], span: RunSpan, unit: FloatArray, equity: FloatArray
) -> dict[str, FloatArray]:
    """Return the measures of many accounts, each array of shape (n_accounts,)."""
    accounts = Accounts(tally, span, unit, equity)
    with np.errstate(all="ignore"):
        names = STREAMED if "near" in tally else CORE
        return {name: ABOUT[name].find(name, accounts) for name in names}


def measure_returns(samples: Samples, periods: float) -> dict[str, float]:
    path: Any = Path(samples, periods, *[None] * 3)  # type: ignore[arg-type] # not asked for
    return {name: ABOUT[name].find(name, path) for name in OF_RETURNS}


def find_cost_rates(tally: Tally, span: RunSpan) -> dict[str, float]:
    """Return costs per year as fractions of mean equity, by name; NaN if there never was any."""
    mean = tally.equity / tally.bars
    scale = mean if mean > 0.0 else math.nan
    return {name: getattr(tally.money, name) / scale / span.years for name in GROWTH_TERMS}


def annualize_ratios(mean: FloatArray, deviation: FloatArray, periods: float) -> FloatArray:
    """Return mean over deviation, annualized; NaN if the deviation is below 1e-12."""
    known = np.where(deviation >= performance.LEAST_DEVIATION, deviation, np.nan)
    return np.asarray(mean / known * math.sqrt(periods))


def name_measure(name: str) -> str:
    short, _, level = name.partition("_")
    if short in ("var", "es"):
        return f"{'VaR' if short == 'var' else 'ES'} {level} %"
    known = {"price_1x": "unlevered price", "cagr": "CAGR", "price_pnl": "price profit and loss"}
    known |= {"ulcer": "ulcer index", "positive_days": "share of positive days"}
    known["volatility_drag"] = "variance drag"
    known |= {each: each.capitalize() for each in ("sharpe", "sortino", "calmar")}
    return known.get(name, name.replace("_", " "))


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

    def name_of(self, bar: int) -> int:
        """Return the moment that names the close of a bar, in ns, as :attr:`named`."""
        row = bar - self.first
        return self.start if row < 0 else int(self.named[row])

    def day_of(self, bar: int) -> str:
        time = self.name_of(bar)
        if bar >= self.first and not self.is_daily:
            time -= 1
        return format_time(time - time % DAY)

    def describe_close(self, bar: int) -> str:
        if self.is_daily:
            return f"on {self.day_of(bar)}"
        return f"at {pd.Timestamp(self.time_of(bar)):%Y-%m-%d %H:%M} UTC"

    def time_of(self, bar: int) -> int:
        """Return the close of a bar in ns; the start for the bar before the first."""
        row = bar - self.first
        return self.start if row < 0 else int(self.closes[row])


class Samples(NamedTuple):
    """Simple returns per sampling period, each of shape (n_samples,)."""

    returns: FloatArray
    risk_free: FloatArray
    market: FloatArray
