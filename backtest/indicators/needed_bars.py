"""How many bars indicators need before their first value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backtest import core
from backtest.core.units import DAY
from backtest.indicators import (
    drift,
    estimators,
    fitted_models,
    flows,
    forecasts,
    kernels,
    lanes,
    regimes,
    tails,
    trends,
)
from backtest.indicators import returns as r

FUNDING = 8 * DAY // 24
"""The time between two settlements at most venues, ns."""

Settings = Mapping[str, Any]


@core.checked
def warm_up(name: str, *, interval: str | None = None, **settings: Any) -> int:
    """Return how many bars an indicator needs before its first value.

    The first value of a market of n bars is at bar ``warm_up(...)``, counted from 0. A run with
    ``start=`` at that bar, or later, decides from its first bar on.

    Parameters
    ----------
    name : str
        An indicator of this module, ``"ewma_volatility"`` for example.
    interval : str, optional
        Length of a bar, such as ``"1h"``: needed where days or settlements of funding count.
    **settings
        Parameters of the indicator, as it takes them; of arrays the longest counts.

    Returns
    -------
    int
        Bars. ``"har_volatility"``: of a market that begins at midnight and never closes, else
        fewer. ``"funding_forecast"``: of settlements every 8 hours from the first bar on.

    Raises
    ------
    ParameterError
        If the name or a setting is unknown or out of range, or the interval is needed and missing.

    Examples
    --------
    >>> warm_up("ewma_volatility", half_life=72)
    72
    >>> warm_up("volatility", interval="1h", estimator="har")
    3143
    """
    count = NEEDED[str(core.Choice(*NEEDED).check("name", name))]
    signature = inspect.signature(find_indicator(name))
    defaults = {}
    required = []
    for parameter in signature.parameters.values():
        if parameter.name == "market":
            continue
        defaults[parameter.name] = parameter.default
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
    core.check_names(name, settings, list(defaults), required, noun="setting")

    length = None
    if interval is not None:
        length = core.parse_duration(interval, "interval")
    needed = count({**defaults, **settings}, read_interval(name, length))
    return int(np.max(needed))


def find_indicator(name: str) -> Callable[..., Any]:
    """Return an indicator by its name."""
    modules = (
        r,
        estimators,
        fitted_models,
        flows,
        forecasts,
        tails,
        trends,
        drift,
        regimes,
    )
    indicators = (getattr(module, name) for module in modules if hasattr(module, name))
    indicator: Callable[..., Any] = next(indicators)
    return indicator


Interval = Callable[[], int]
"""Returns the length of a bar, ns, or raises that it is missing."""


def read_interval(name: str, interval: int | None) -> Interval:
    """Return a function that returns an interval in ns, or raises that the indicator needs it."""

    def read() -> int:
        if interval is None:
            raise core.ParameterError(
                f"{name} needs the interval of the bars to count them, interval='1h' for example"
            )
        return interval

    return read


def count_most_needed(half_life: lanes.OneOrMany) -> int:
    """Return the returns that the longest half-life needs."""
    return int(np.max(lanes.count_needed(half_life)))


def count_volatility(settings: Settings, interval: Interval) -> int:
    names = lanes.list_lanes("estimator", settings["estimator"])
    needed = count_most_needed(settings["half_life"])
    return max(count_estimator(name, needed, interval) for name in names)


def count_estimator(name: str, needed: int, interval: Interval) -> int:
    """Return how many bars an estimator of volatility needs for its first value.

    ``needed`` are the bars that it would need as an average of returns between closes.
    """
    core.Choice(*estimators.VOLATILITY_ESTIMATORS).check("estimator", name)
    if name == "garch":
        return fitted_models.FIRST_RETURNS
    if name == "har":
        return count_days({"first": fitted_models.FIRST_DAYS}, interval)
    if name == "ewma":
        return needed

    # An average of ranges, from low to high, has one in each bar. Returns begin at the second bar.
    return needed - 1


def count_days(settings: Settings, interval: Interval) -> int:
    """Return the bars of the first day, of the longest window and of the days of the first fit."""
    first: int = core.Whole(10).check("first", settings["first"])
    days = 1 + max(fitted_models.WITHOUT_PAUSE) + first
    return days * (DAY // interval()) - 1


def count_tail(settings: Settings, _interval: Interval) -> int:
    """Return the returns before the first VaR or ES of all lanes.

    That is a window of losses, and for filtered losses the returns of the first forecast of
    volatility before them. Settings have one value, or one for each lane of a sweep.
    """
    lanes.check_bars("horizon", settings["horizon"])
    windows, horizons, levels = np.broadcast_arrays(
        lanes.read_windows(settings["window"]),
        *lanes.broadcast(settings["horizon"], settings["level"]),
    )
    most_losses = 0
    lists = (windows.tolist(), horizons.tolist(), levels.tolist())
    for window, horizon, level in zip(*lists, strict=True):
        losses = count_losses(window, int(horizon), level)
        most_losses = max(most_losses, losses)

    # Filtered losses are those after the first forecast.
    most_before = 0
    before_forecast = count_most_needed(settings["half_life"])
    for model in lanes.list_lanes("model", settings["model"]):
        core.Choice(*tails.TAIL_MODELS).check("model", model)
        if model == "filtered-historical":
            most_before = before_forecast
    return most_before + most_losses


def count_losses(window: int, horizon: int, level: float) -> int:
    """Return the bars before a window of losses is full; the first loss ends after its bars."""
    is_scaled = (1.0 - level) * window < tails.MIN_TAIL * horizon
    if is_scaled:
        return window
    return window - 1 + horizon


def count_window(settings: Settings, _: Interval) -> core.IntArray:
    return lanes.read_windows(settings["window"])


def count_lookback(settings: Settings, _: Interval) -> core.IntArray:
    lanes.check_bars("lookback", settings["lookback"])
    return np.atleast_1d(settings["lookback"]).astype(np.int64)


def count_half_life(settings: Settings, _: Interval) -> core.IntArray:
    return lanes.count_needed(settings["half_life"])


def count_funding(settings: Settings, interval: Interval) -> int:
    """Return the bars of a half-life, or to the second settlement if that is later."""
    second = -(-FUNDING // interval())
    return max(second, count_most_needed(settings["half_life"]))


def count_atr(settings: Settings, _: Interval) -> core.IntArray:
    lanes.check_bars("window", settings["window"])
    return np.atleast_1d(settings["window"]).astype(np.int64) - 1


def count_strength(settings: Settings, interval: Interval) -> int:
    lookback = int(np.max(count_lookback(settings, interval)))
    return max(lookback, count_most_needed(settings["half_life"]))


def count_regimes(settings: Settings, _: Interval) -> int:
    return max(kernels.WARM, count_most_needed(settings["half_life"]))


def count_imbalance(settings: Settings, _: Interval) -> core.IntArray:
    """Return the bars before the last one of a half-life: each is of its own bar, as a range is."""
    return lanes.count_needed(settings["half_life"]) - 1


def count_bars(settings: Settings, _: Interval) -> int:
    bars: int = core.Whole(1).check("bars", settings["bars"])
    return bars


def count_none(_: Settings, __: Interval) -> int:
    return 0


def count_return(_: Settings, __: Interval) -> int:
    return 1


NEEDED: dict[str, Callable[[Settings, Interval], Any]] = {
    "atr": count_atr,
    "close_to_close_volatility": count_window,
    "ewma_volatility": count_half_life,
    "forecast_reach": count_volatility,
    "funding_forecast": count_funding,
    "garch_volatility": lambda settings, _: core.Whole(100).check("first", settings["first"]),
    "har_volatility": count_days,
    "implied_volatility": count_none,
    "learned_regimes": count_regimes,
    "leverage_skew": count_none,
    "log_returns": count_return,
    "long_returns": count_return,
    "open_interest_change": count_bars,
    "predicted_funding": count_none,
    "rolling_drift": count_window,
    "rolling_sharpe": count_window,
    "settled_funding": count_none,
    "tail_losses": count_tail,
    "taker_imbalance": count_imbalance,
    "traded_returns": count_return,
    "trend_sign": count_lookback,
    "trend_strength": count_strength,
    "true_range": count_none,
    "volatility": count_volatility,
    "volatility_feedback": count_none,
}
"""The bars before the first value of each indicator."""
