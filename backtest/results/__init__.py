"""Results of runs: records, tables, measures, and the store of saved results."""

from typing import TYPE_CHECKING

from backtest.core import open_door

if TYPE_CHECKING:
    from backtest.results.attribution import PHASES, find_phase, sum_by_phase
    from backtest.results.attribution import AccountHistory, Attribution, Period, attribute
    from backtest.results.attribution import attribute_by, find_periods, read_account_history
    from backtest.results.care import FolderCheck, KeptFolder, choose_deletions, delete_chosen
    from backtest.results.care import verify_folder
    from backtest.results.differences import Differences, STATISTICS, Sampled, compare_pairs
    from backtest.results.differences import find_block_length, holm, pair_differences
    from backtest.results.manifest import describe_search
    from backtest.results.listing import Filter, StoreEntry, count_kinds, describe_note
    from backtest.results.listing import describe_origin, find_folder, list_folders, list_kinds
    from backtest.results.listing import list_results, load_saved, name_fault, open_folder
    from backtest.results.listing import read_entry, read_kinds, read_time_or_age, read_usable
    from backtest.results.listing import sort_entries
    from backtest.results.luck import Overfitting, SharpeMoments, deflated_sharpe
    from backtest.results.luck import deflated_sharpe_of_returns, effective_observations
    from backtest.results.luck import effective_trials, estimate_moments, expected_max_sharpe
    from backtest.results.luck import probabilistic_sharpe, probability_of_backtest_overfitting
    from backtest.results.luck import sharpe_error, simulate_luck
    from backtest.results.manifest import describe_data, describe_history, describe_venue
    from backtest.results.manifest import hash_source, read_tables_in_use
    from backtest.results.measure_table import Measures, RunSpan, Samples, annualize_ratios
    from backtest.results.measure_table import find_cost_rates, measure_accounts, measure_run
    from backtest.results.measure_table import name_measure
    from backtest.results.option_profit import OptionQuotes, OptionTerms, compute_prices
    from backtest.results.option_profit import compute_volatilities, explain_profit, measure_greeks
    from backtest.results.option_profit import multiply, weigh_gamma
    from backtest.results.performance import Calibration, MarketFit, average_covariances
    from backtest.results.performance import calibration, certainty_equivalent, compound_growth
    from backtest.results.performance import diversification_ratio, expected_shortfall, fit_market
    from backtest.results.performance import max_drawdown, monthly_returns, ratio, risk_shares
    from backtest.results.performance import sample_moves, sampled_returns, value_at_risk
    from backtest.results.performance import worst_drawdowns
    from backtest.results.ranking import Constraint, Objective, ObjectiveLike, check_metric
    from backtest.results.ranking import count_cautions, find_cautions, find_direction, is_lost
    from backtest.results.ranking import name_sharpe, order_sets, rank_by_objective
    from backtest.results.ranking import read_constraints, read_objective, total_violation
    from backtest.results.record import AccountFields, Outcome, PositionFields
    from backtest.results.result import Result
    from backtest.results.run_options import explain_idle_options
    from backtest.results.tally import Clock, Tally, add_free, finish_sample, flatten_tally
    from backtest.results.tally import fold_product, grow_free, invert, is_deeper, make_tally
    from backtest.results.tally import mark_drawdown, name_tally, needs_folding, raise_ratio
    from backtest.results.tally import read_tally, start_tally
    from backtest.results.trade_measures import Fills, TradeRows, TradeView, list_trades
    from backtest.results.trade_measures import measure_trades, reduce_spans, split_trades
    from backtest.results.trades import Trades

open_door(__name__)
