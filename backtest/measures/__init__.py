"""Measures of accounts and forecasts: performance, tails, attribution, calibration, luck.

Functions of arrays. Those named here can be used on their own, without a run, as ``bt.measures``.
"""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.measures.attribution import AccountHistory, Attribution, Period, attribute
    from backtest.measures.attribution import PHASES, attribute_by, find_periods, find_phase
    from backtest.measures.attribution import read_account_history, sum_by_phase
    from backtest.measures.differences import STATISTICS, Differences, Sampled, compare_pairs
    from backtest.measures.differences import find_block_length, holm, pair_differences
    from backtest.measures.luck import Overfitting, SharpeMoments, deflated_sharpe
    from backtest.measures.luck import deflated_sharpe_of_returns, effective_observations
    from backtest.measures.luck import effective_trials
    from backtest.measures.luck import estimate_moments, expected_max_sharpe, probabilistic_sharpe
    from backtest.measures.luck import probability_of_backtest_overfitting, sharpe_error
    from backtest.measures.luck import simulate_luck
    from backtest.measures.measure_table import RunSpan, Samples, annualize_ratios
    from backtest.measures.measure_table import find_cost_rates, measure_accounts, measure_run
    from backtest.measures.measure_table import Measures, name_measure
    from backtest.measures.option_profit import OptionQuotes, OptionTerms, compute_prices
    from backtest.measures.option_profit import compute_volatilities, explain_profit, measure_greeks
    from backtest.measures.option_profit import multiply, weigh_gamma
    from backtest.measures.performance import Calibration, MarketFit, average_covariances
    from backtest.measures.performance import calendar_returns, calibration, certainty_equivalent
    from backtest.measures.performance import compound_growth, diversification_ratio
    from backtest.measures.performance import excess_kurtosis, expected_shortfall, fit_market
    from backtest.measures.performance import gain_over_loss, max_drawdown, monthly_returns, ratio
    from backtest.measures.performance import risk_shares, sample_moves, sampled_returns, skewness
    from backtest.measures.performance import tail_ratio, value_at_risk
    from backtest.measures.performance import worst_drawdowns
    from backtest.measures.ranking import Constraint, Objective, ObjectiveLike, check_metric
    from backtest.measures.ranking import count_cautions, find_cautions, find_direction, is_lost
    from backtest.measures.ranking import name_sharpe, order_sets, rank_by_objective
    from backtest.measures.ranking import read_constraints, read_objective, total_violation
    from backtest.measures.tally import Clock, Tally, add_free, finish_sample, flatten_tally
    from backtest.measures.tally import fold_product, grow_free, invert, is_deeper, make_tally
    from backtest.measures.tally import mark_drawdown, name_tally, needs_folding, raise_ratio
    from backtest.measures.tally import read_tally, start_tally
    from backtest.measures.trades import Fills, TradeRows, TradeView, list_trades, measure_trades
    from backtest.measures.trades import reduce_spans, split_trades

open_door(__name__)

__all__ = [
    "STATISTICS",
    "AccountHistory",
    "Attribution",
    "Calibration",
    "Differences",
    "MarketFit",
    "Overfitting",
    "Sampled",
    "SharpeMoments",
    "attribute",
    "attribute_by",
    "calendar_returns",
    "calibration",
    "certainty_equivalent",
    "compare_pairs",
    "compound_growth",
    "deflated_sharpe",
    "deflated_sharpe_of_returns",
    "effective_observations",
    "effective_trials",
    "estimate_moments",
    "excess_kurtosis",
    "expected_max_sharpe",
    "expected_shortfall",
    "fit_market",
    "gain_over_loss",
    "holm",
    "max_drawdown",
    "monthly_returns",
    "probabilistic_sharpe",
    "probability_of_backtest_overfitting",
    "sharpe_error",
    "skewness",
    "tail_ratio",
    "value_at_risk",
    "worst_drawdowns",
]
