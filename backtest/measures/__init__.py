"""Measures of accounts and forecasts: performance, tails, attribution, calibration, luck.

Functions of arrays. Those named here can be used on their own, without a run, as ``bt.measures``.
"""

from backtest.measures.attribution import (
    AccountHistory,
    Attribution,
    attribute,
    attribute_by,
)
from backtest.measures.break_even import break_even_drift, break_even_leverage
from backtest.measures.calibration import Calibration, calibrate
from backtest.measures.coverage import (
    LikelihoodRatio,
    conditional_coverage,
    independence,
    unconditional_coverage,
)
from backtest.measures.deflated_sharpe import (
    SharpeMoments,
    deflated_sharpe,
    deflated_sharpe_of_returns,
    estimate_moments,
    expected_max_sharpe,
    min_track_record_length,
    probabilistic_sharpe,
)
from backtest.measures.history import monthly_returns, rolling_measures, worst_drawdowns
from backtest.measures.influence import STATISTICS, Sampled
from backtest.measures.leverage_cycle import LeverageProfile, profile_leverage
from backtest.measures.margin_use import idle_cash, return_on_margin
from backtest.measures.market_fit import MarketFit, fit_market
from backtest.measures.market_states import find_bulls, find_thirds
from backtest.measures.overfitting import Overfitting, probability_of_backtest_overfitting
from backtest.measures.paired_bootstrap import Differences, compare_pairs, holm
from backtest.measures.performance import (
    compound_growth,
    expected_shortfall,
    max_drawdown,
    value_at_risk,
)
from backtest.measures.realized_gains import Realization, realization
from backtest.measures.return_shape import (
    certainty_equivalent,
    kurtosis,
    omega,
    sharpe_error,
    skewness,
    tail_ratio,
    ulcer_index,
)
from backtest.measures.superiority import Superiority, find_confidence_set, find_superiority
from backtest.measures.trial_luck import effective_trials

__all__ = [
    "STATISTICS",
    "AccountHistory",
    "Attribution",
    "Calibration",
    "Differences",
    "LeverageProfile",
    "LikelihoodRatio",
    "MarketFit",
    "Overfitting",
    "Realization",
    "Sampled",
    "SharpeMoments",
    "Superiority",
    "attribute",
    "attribute_by",
    "break_even_drift",
    "break_even_leverage",
    "calibrate",
    "certainty_equivalent",
    "compare_pairs",
    "compound_growth",
    "conditional_coverage",
    "deflated_sharpe",
    "deflated_sharpe_of_returns",
    "effective_trials",
    "estimate_moments",
    "expected_max_sharpe",
    "expected_shortfall",
    "find_bulls",
    "find_confidence_set",
    "find_superiority",
    "find_thirds",
    "fit_market",
    "holm",
    "idle_cash",
    "independence",
    "kurtosis",
    "max_drawdown",
    "min_track_record_length",
    "monthly_returns",
    "omega",
    "probabilistic_sharpe",
    "probability_of_backtest_overfitting",
    "profile_leverage",
    "realization",
    "return_on_margin",
    "rolling_measures",
    "sharpe_error",
    "skewness",
    "tail_ratio",
    "ulcer_index",
    "unconditional_coverage",
    "value_at_risk",
    "worst_drawdowns",
]
