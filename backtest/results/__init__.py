"""Results of runs: records, tables, measures, and the store of saved results."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.results.attribution import AccountHistory, Attribution, attribute, attribute_by
    from backtest.results.attribution import find_periods
    from backtest.results.differences import Differences, STATISTICS, Sampled, compare_pairs
    from backtest.results.differences import find_block_length, holm, pair_differences
    from backtest.results.forecasts import Calibration, calibration
    from backtest.results.listing import StoreEntry, count_kinds, describe_note, describe_origin
    from backtest.results.listing import find_folder, list_folders, list_results, load_saved
    from backtest.results.listing import open_folder, read_entry, read_usable
    from backtest.results.luck import SharpeMoments, deflated_sharpe, deflated_sharpe_of_returns
    from backtest.results.luck import effective_observations, estimate_moments
    from backtest.results.luck import expected_max_sharpe, probabilistic_sharpe, sharpe_error
    from backtest.results.manifest import describe_data, describe_search, describe_venue, find_held
    from backtest.results.manifest import hash_source, read_tables_in_use
    from backtest.results.measure_table import RunSpan, find_cost_rates, measure_accounts
    from backtest.results.measure_table import name_measure
    from backtest.results.option_profit import OptionQuotes, OptionState, OptionTerms
    from backtest.results.option_profit import compute_prices, compute_volatilities
    from backtest.results.overfitting import Overfitting, probability_of_backtest_overfitting
    from backtest.results.performance import MarketFit, annualize_ratios
    from backtest.results.performance import certainty_equivalent, compound_growth
    from backtest.results.performance import expected_shortfall, fit_market, max_drawdown
    from backtest.results.performance import monthly_returns, sampled_returns, value_at_risk
    from backtest.results.performance import worst_drawdowns
    from backtest.results.ranking import Constraint, Objective, ObjectiveLike, check_metric
    from backtest.results.ranking import check_objective
    from backtest.results.ranking import RUIN, count_cautions, find_cautions, find_far_bounds
    from backtest.results.ranking import is_lost, rank_by_objective, read_constraints
    from backtest.results.ranking import read_objective, total_violation
    from backtest.results.phases import turning_points
    from backtest.results.record import AccountFields, Outcome, PositionFields
    from backtest.results.result import Result
    from backtest.results.run_options import explain_idle_options
    from backtest.results.selection import Filter, read_kinds, read_time_or_age, sort_entries
    from backtest.results.tally import Clock, Tally, add_free, finish_sample, fold_product
    from backtest.results.tally import grow_free, invert, is_deeper, mark_drawdown, raise_ratio
    from backtest.results.tally import start_tally
    from backtest.results.trades import Trades
    from backtest.results.trial_luck import effective_trials, simulate_luck
    from backtest.results.upkeep import choose_deletions, delete_chosen, verify_folder
else:
    __getattr__ = find_lazily(__name__, {
        "results.attribution": "AccountHistory Attribution attribute attribute_by find_periods",
        "results.differences": (
            "Differences STATISTICS Sampled compare_pairs find_block_length holm pair_differences"
        ),
        "results.forecasts": "Calibration calibration",
        "results.listing": (
            "StoreEntry count_kinds describe_note describe_origin find_folder list_folders "
            "list_results load_saved open_folder read_entry read_usable"
        ),
        "results.luck": (
            "SharpeMoments deflated_sharpe deflated_sharpe_of_returns effective_observations "
            "estimate_moments expected_max_sharpe probabilistic_sharpe sharpe_error"
        ),
        "results.manifest": (
            "describe_data describe_search describe_venue find_held hash_source "
            "read_tables_in_use"
        ),
        "results.measure_table": "RunSpan find_cost_rates measure_accounts name_measure",
        "results.option_profit": (
            "OptionQuotes OptionState OptionTerms compute_prices compute_volatilities"
        ),
        "results.overfitting": "Overfitting probability_of_backtest_overfitting",
        "results.performance": (
            "MarketFit annualize_ratios certainty_equivalent "
            "compound_growth expected_shortfall fit_market max_drawdown monthly_returns "
            "sampled_returns value_at_risk worst_drawdowns"
        ),
        "results.ranking": (
            "Constraint Objective ObjectiveLike RUIN check_metric check_objective count_cautions "
            "find_cautions find_far_bounds is_lost rank_by_objective read_constraints "
            "read_objective total_violation"
        ),
        "results.phases": "turning_points",
        "results.record": "AccountFields Outcome PositionFields",
        "results.result": "Result",
        "results.run_options": "explain_idle_options",
        "results.selection": "Filter read_kinds read_time_or_age sort_entries",
        "results.tally": (
            "Clock Tally add_free finish_sample fold_product grow_free invert is_deeper "
            "mark_drawdown raise_ratio start_tally"
        ),
        "results.trades": "Trades",
        "results.trial_luck": "effective_trials simulate_luck",
        "results.upkeep": "choose_deletions delete_chosen verify_folder",
    })  # fmt: skip
