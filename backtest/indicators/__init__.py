"""Estimators for policies: causal, one value per bar, for one parameter value or many at once.

Each takes a market and returns values that are known at the close of each bar. The columns of the
first n bars are the first n values of the columns of all bars, bit for bit. A parameter given as an
array of shape (k,) gives columns of shape (n_bars, k).

==========  ===================================================================================
word        what it is, and its unit
==========  ===================================================================================
lane        one value of each parameter: a column of what is returned
k           the number of lanes
half_life   bars after which a bar weighs half as much
decay       2^(-1 / half_life): the weight of a bar relative to the next one
needed      bars, or returns, from which on a value is known
variance    of the return of one bar
squares     squared log returns of bars
sigma       volatility per sqrt(year)
scale       what a value by bar is multiplied by, the bars per year for example
loss        positive, a fraction of the notional, net of funding
trail       what a forecast remembers of the bars before
stress      the regime of high variance; the other one is calm
==========  ===================================================================================
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.indicators.averages import walk_covariances
    from backtest.indicators.drift import Drift, Sharpe, floored_kelly, rolling_drift
    from backtest.indicators.drift import rolling_sharpe
    from backtest.indicators.estimators import VOLATILITY_ESTIMATORS, WEIGHTED_ESTIMATORS
    from backtest.indicators.estimators import close_to_close_volatility
    from backtest.indicators.estimators import ewma_volatility, implied_volatility, volatility
    from backtest.indicators.estimators import volatility_feedback
    from backtest.indicators.fitted_models import find_backcast, garch_volatility, har_volatility
    from backtest.indicators.flows import open_interest_change, predicted_funding, taker_imbalance
    from backtest.indicators.forecasts import NOTHING_SEEN, find_day, forecast_liquidation
    from backtest.indicators.forecasts import forecast_reach, forecast_volatility
    from backtest.indicators.needed_bars import warm_up
    from backtest.indicators.regimes import Regimes, learned_regimes
    from backtest.indicators.returns import funding_forecast, leverage_skew, log_returns
    from backtest.indicators.returns import long_returns, settled_funding, traded_returns
    from backtest.indicators.tails import TAIL_MODELS, Tail, tail_losses
    from backtest.indicators.trends import atr, average_wilder, trend_sign, trend_strength
    from backtest.indicators.trends import true_range
    from backtest.margin.calculators import touch_distance, touch_probability
    from backtest.market.clock import bars_per_year
else:
    __getattr__ = find_lazily(__name__, {
        "indicators.averages": "walk_covariances",
        "indicators.drift": "Drift Sharpe floored_kelly rolling_drift rolling_sharpe",
        "indicators.estimators": (
            "VOLATILITY_ESTIMATORS WEIGHTED_ESTIMATORS close_to_close_volatility ewma_volatility "
            "implied_volatility volatility volatility_feedback"
        ),
        "indicators.fitted_models": "find_backcast garch_volatility har_volatility",
        "indicators.flows": "open_interest_change predicted_funding taker_imbalance",
        "indicators.forecasts": (
            "NOTHING_SEEN find_day forecast_liquidation forecast_reach forecast_volatility"
        ),
        "indicators.needed_bars": "warm_up",
        "indicators.regimes": "Regimes learned_regimes",
        "indicators.returns": (
            "funding_forecast leverage_skew log_returns long_returns settled_funding "
            "traded_returns"
        ),
        "indicators.tails": "TAIL_MODELS Tail tail_losses",
        "indicators.trends": "atr average_wilder trend_sign trend_strength true_range",
        "margin.calculators": "touch_distance touch_probability",
        "market.clock": "bars_per_year",
    })  # fmt: skip

__all__ = [
    "TAIL_MODELS", "VOLATILITY_ESTIMATORS", "WEIGHTED_ESTIMATORS", "Drift", "Regimes", "Sharpe",
    "Tail", "atr", "bars_per_year", "close_to_close_volatility", "ewma_volatility",
    "floored_kelly", "forecast_reach", "funding_forecast", "garch_volatility", "har_volatility",
    "implied_volatility", "learned_regimes", "leverage_skew", "log_returns", "long_returns",
    "open_interest_change", "predicted_funding", "rolling_drift", "rolling_sharpe",
    "settled_funding", "tail_losses", "taker_imbalance", "touch_distance", "touch_probability",
    "traded_returns", "trend_sign", "trend_strength", "true_range", "volatility",
    "volatility_feedback", "warm_up",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
