"""Measures of accounts and forecasts: performance, tails, attribution, calibration, luck.

Functions of arrays. Those named here can be used on their own, without a run, as ``bt.measures``.
"""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.measures.attribution import AccountHistory, Attribution, Period, attribute
    from backtest.measures.attribution import attribute_by, find_periods, read_account_history
    from backtest.measures.ranking import count_cautions, find_cautions, is_lost
    from backtest.measures.ranking import name_sharpe
    from backtest.measures.differences import STATISTICS, Differences, Sampled
    from backtest.measures.differences import choose_block, compare_pairs, draw_histories
    from backtest.measures.differences import find_block_length, holm
    from backtest.measures.differences import pair_differences
    from backtest.measures.performance import average_covariances, diversification_ratio
    from backtest.measures.performance import monthly_returns, risk_shares
    from backtest.measures.performance import worst_drawdowns
    from backtest.measures.luck import Overfitting, SharpeMoments, deflated_sharpe
    from backtest.measures.luck import deflated_sharpe_of_returns, effective_trials
    from backtest.measures.luck import estimate_moments, expected_max_sharpe
    from backtest.measures.luck import probabilistic_sharpe
    from backtest.measures.luck import probability_of_backtest_overfitting, sharpe_error
    from backtest.measures.luck import simulate_luck
    from backtest.measures.measure_table import annualize_ratios, find_cost_rates
    from backtest.measures.measure_table import measure_accounts, measure_run, name_measure
    from backtest.measures.measure_table import read_aversion
    from backtest.measures.option_profit import OptionQuotes, OptionTerms
    from backtest.measures.option_profit import compute_prices, compute_volatilities, explain_profit
    from backtest.measures.option_profit import measure_greeks, multiply, weigh_gamma
    from backtest.measures.performance import Calibration, MarketFit, calibration
    from backtest.measures.performance import certainty_equivalent, compound_growth
    from backtest.measures.performance import expected_shortfall, fit_market, max_drawdown, ratio
    from backtest.measures.performance import sample_moves, sampled_returns, value_at_risk
    from backtest.measures.ranking import Constraint, Objective, ObjectiveLike, check_metric
    from backtest.measures.ranking import find_direction, order_sets, rank_by_objective
    from backtest.measures.ranking import read_constraints, read_objective
    from backtest.measures.ranking import total_violation
    from backtest.measures.measure_table import RunSpan, Samples, drawdown_dates
    from backtest.measures.tally import Clock, Tally, add_free, finish_sample
    from backtest.measures.tally import flatten_tally, fold_product, grow_free, invert, is_deeper
    from backtest.measures.tally import make_tally, mark_drawdown, name_tally, needs_folding
    from backtest.measures.tally import raise_ratio, read_tally, start_tally
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
    "calibration",
    "certainty_equivalent",
    "compare_pairs",
    "compound_growth",
    "deflated_sharpe",
    "deflated_sharpe_of_returns",
    "effective_trials",
    "estimate_moments",
    "expected_max_sharpe",
    "expected_shortfall",
    "fit_market",
    "holm",
    "max_drawdown",
    "monthly_returns",
    "probabilistic_sharpe",
    "probability_of_backtest_overfitting",
    "sharpe_error",
    "value_at_risk",
    "worst_drawdowns",
]
