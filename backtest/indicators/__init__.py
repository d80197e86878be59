"""Estimators for policies: causal, one value per bar, for one parameter value or many at once.

Each takes a market and returns values that are known at the close of each bar. The columns of the
first n bars are the first n values of the columns of all bars, bit for bit. A parameter given as an
array of shape (k,) gives columns of shape (n_bars, k).
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
    from backtest.indicators.needed_bars import warm_up
    from backtest.indicators.regimes import Regimes, learned_regimes
    from backtest.indicators.returns import funding_forecast, leverage_skew, log_returns
    from backtest.indicators.returns import long_returns, settled_funding, traded_returns
    from backtest.indicators.tails import NOTHING_SEEN, TAIL_MODELS, Tail, find_day
    from backtest.indicators.tails import forecast_liquidation, forecast_reach, forecast_volatility
    from backtest.indicators.tails import tail_losses
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
        "indicators.needed_bars": "warm_up",
        "indicators.regimes": "Regimes learned_regimes",
        "indicators.returns": (
            "funding_forecast leverage_skew log_returns long_returns settled_funding "
            "traded_returns"
        ),
        "indicators.tails": (
            "NOTHING_SEEN TAIL_MODELS Tail find_day forecast_liquidation forecast_reach "
            "forecast_volatility tail_losses"
        ),
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
