"""Measures of accounts and forecasts: performance, tails, attribution, calibration, luck.

Functions of arrays. Those named here can be used on their own, without a run, as ``bt.measures``.
"""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.measures.attribution import AccountHistory, Attribution, Period, attribute
    from backtest.measures.attribution import attribute_by, find_periods, read_account_history
    from backtest.measures.calibration import Calibration, calibration
    from backtest.measures.cautions import count_cautions, describe_left_out, find_cautions, is_lost
    from backtest.measures.cautions import name_sharpe
    from backtest.measures.deflated_sharpe import SharpeMoments, deflated_sharpe
    from backtest.measures.deflated_sharpe import deflated_sharpe_of_returns, estimate_moments
    from backtest.measures.deflated_sharpe import expected_max_sharpe, min_track_record_length
    from backtest.measures.deflated_sharpe import probabilistic_sharpe
    from backtest.measures.history import monthly_returns, rolling_measures, worst_drawdowns
    from backtest.measures.influence_functions import STATISTICS, Sampled
    from backtest.measures.lots import reduce_spans, split_trades
    from backtest.measures.market_fit import MarketFit, fit_market
    from backtest.measures.measure_names import RiskMeasure, name_measure, read_aversion
    from backtest.measures.measure_names import read_risk_name
    from backtest.measures.option_profit import OptionQuotes, OptionTerms, compute_payoffs
    from backtest.measures.option_profit import compute_prices, compute_volatilities, explain_profit
    from backtest.measures.option_profit import measure_greeks, multiply, weigh_gamma
    from backtest.measures.overfitting import Overfitting, probability_of_backtest_overfitting
    from backtest.measures.paired_bootstrap import Differences, choose_block, compare_pairs
    from backtest.measures.paired_bootstrap import draw_histories, holm, pair_differences
    from backtest.measures.path_measures import AccountPath, PathSums, Samples, drawdown_dates
    from backtest.measures.path_measures import sum_path
    from backtest.measures.performance import compound_growth, expected_shortfall, max_drawdown
    from backtest.measures.performance import ratio, sample_moves, sampled_returns, value_at_risk
    from backtest.measures.portfolio_risk import average_covariances, diversification_ratio
    from backtest.measures.portfolio_risk import risk_shares
    from backtest.measures.ranking import Constraint, Objective, ObjectiveLike, check_metric
    from backtest.measures.ranking import find_direction, order_sets, pareto, rank_by_objective
    from backtest.measures.ranking import read_constraints, read_objective, read_objectives
    from backtest.measures.ranking import total_violation
    from backtest.measures.return_shape import certainty_equivalent, kurtosis, omega, sharpe_error
    from backtest.measures.return_shape import skewness, tail_ratio, ulcer_index
    from backtest.measures.run_measures import annualize_ratios, find_cost_rates
    from backtest.measures.run_measures import measure_accounts, measure_run
    from backtest.measures.run_span import RunSpan
    from backtest.measures.stored_tally import flatten_tally, read_tally
    from backtest.measures.superiority import Superiority, find_confidence_set, find_superiority
    from backtest.measures.tally import Clock, Decay, Drawdown, Exposure, Sample, Tally, add_carry
    from backtest.measures.tally import add_decay, add_free, count_bar, find_near, finish_sample
    from backtest.measures.tally import fold_product, grow_free, invert, is_deeper, is_near
    from backtest.measures.tally import mark_drawdown, needs_folding, raise_ratio, start_tally
    from backtest.measures.tally import update_drawdown, update_peaks
    from backtest.measures.trade_measures import measure_trades
    from backtest.measures.trade_rows import Fills, TradeRows, TradeView, list_trades
    from backtest.measures.trial_luck import effective_trials, simulate_luck

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
    "Superiority",
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
    "find_confidence_set",
    "find_superiority",
    "fit_market",
    "holm",
    "kurtosis",
    "max_drawdown",
    "min_track_record_length",
    "monthly_returns",
    "omega",
    "probabilistic_sharpe",
    "probability_of_backtest_overfitting",
    "rolling_measures",
    "sharpe_error",
    "skewness",
    "tail_ratio",
    "ulcer_index",
    "value_at_risk",
    "worst_drawdowns",
]
