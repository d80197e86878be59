"""Estimators for policies: causal, one value per bar, for one parameter value or many at once.

Each takes a market and returns values that are known at the close of each bar. The columns of the
first n bars are the first n values of the columns of all bars, bit for bit. A parameter given as an
array of shape (k,) gives columns of shape (n_bars, k).
"""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.features.attached_volatility import implied_volatility
    from backtest.features.book_calculator import BookCalculation, calculate_book, choose_nearest
    from backtest.features.carry import funding_forecast, predicted_funding
    from backtest.features.close_volatility import close_to_close_volatility, ewma_volatility
    from backtest.features.continued_columns import find_continuation, keep_continuations
    from backtest.features.drawdown import Drawdown, drawdown_state
    from backtest.features.drift import Drift, rolling_drift
    from backtest.features.estimators import VOLATILITY_ESTIMATORS, WEIGHTED_ESTIMATORS, volatility
    from backtest.features.failure_map import FailureMap
    from backtest.features.first_passage import forecast_reach, liquidation_probability
    from backtest.features.first_passage import touch_distance, touch_probability
    from backtest.features.garch import find_backcast, garch_volatility, gjr_volatility
    from backtest.features.har import har_volatility
    from backtest.features.liquidation_calculator import Calculation, calculate_liquidation
    from backtest.features.liquidation_forecast import VolatilityState, find_day
    from backtest.features.liquidation_forecast import forecast_liquidation, forecast_volatility
    from backtest.features.margin_rules import effective_initial, read_open_interest
    from backtest.features.published_funding import published_funding
    from backtest.features.range_volatility import garman_klass_volatility, parkinson_volatility
    from backtest.features.range_volatility import rogers_satchell_volatility, yang_zhang_volatility
    from backtest.features.realised_volatility import realised_volatility
    from backtest.features.regimes import RegimeVolatility, Regimes, learned_regimes
    from backtest.features.regimes import learned_volatility, regime_probabilities
    from backtest.features.returns import bars_per_year, count_by_calendar, log_returns
    from backtest.features.returns import long_returns, settled_funding, traded_returns
    from backtest.features.tails import TAIL_MODELS, Tail, cornish_fisher_tail
    from backtest.features.tails import filtered_historical_tail, historical_tail, normal_tail
    from backtest.features.tails import tail_losses
    from backtest.features.trailing_performance import Sharpe, rolling_sharpe, sharpe_error
    from backtest.features.trend import excess_momentum, trend_sign, trend_strength

open_door(__name__)

__all__ = [
    "TAIL_MODELS",
    "VOLATILITY_ESTIMATORS",
    "WEIGHTED_ESTIMATORS",
    "Drawdown",
    "Drift",
    "RegimeVolatility",
    "Regimes",
    "Sharpe",
    "Tail",
    "bars_per_year",
    "close_to_close_volatility",
    "cornish_fisher_tail",
    "drawdown_state",
    "ewma_volatility",
    "excess_momentum",
    "filtered_historical_tail",
    "forecast_reach",
    "funding_forecast",
    "garch_volatility",
    "garman_klass_volatility",
    "gjr_volatility",
    "har_volatility",
    "historical_tail",
    "implied_volatility",
    "learned_regimes",
    "learned_volatility",
    "liquidation_probability",
    "log_returns",
    "long_returns",
    "normal_tail",
    "parkinson_volatility",
    "predicted_funding",
    "published_funding",
    "realised_volatility",
    "regime_probabilities",
    "rogers_satchell_volatility",
    "rolling_drift",
    "rolling_sharpe",
    "settled_funding",
    "sharpe_error",
    "tail_losses",
    "touch_distance",
    "touch_probability",
    "traded_returns",
    "trend_sign",
    "trend_strength",
    "volatility",
    "yang_zhang_volatility",
]
