"""One account through its markets: inputs, the loops, ``run``, and its ``Result``."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.engine.account_loop import begin, copy_state, gather_deciders
    from backtest.engine.account_loop import run_account, take
    from backtest.engine.batch import BatchLoop, Laid, LaneFault, LaterBars
    from backtest.engine.batch import lay_alike, lay_each
    from backtest.engine.bar_loop import Seen, count_days
    from backtest.engine.feed_arrays import read_assets
    from backtest.engine.compile.general_compiler import bind_compiled, build_call
    from backtest.engine.compile.general_compiler import compile_general_rules, find_general_folder
    from backtest.engine.compile.general_compiler import find_general_loop
    from backtest.engine.compile.loop_compiler import compile_at_address, compile_core, jit_modules
    from backtest.engine.compile.loop_compiler import mark_sources
    from backtest.engine.compile.recipe import Place, Recipe, count_slots, make_recipe, may_refer_to
    from backtest.engine.compile.recipe import read_parameter, write_decide
    from backtest.engine.result import CountedResult, count_at
    from backtest.engine.deciders import Deciders
    from backtest.engine.directions import Directions, read_directions
    from backtest.engine.fee_days import TradedDays, start_day
    from backtest.engine.feed_arrays import as_of, earn_cash, measure_years, place_flows
    from backtest.engine.feed_arrays import place_funding
    from backtest.engine.frame_signals import compute_frame
    from backtest.engine.indicator_rules import change_rule, read_named, read_rule, resolve_signal
    from backtest.engine.limit_orders import collect_limit_orders, describe_limit_orders
    from backtest.engine.lookahead import (
        Causality,
        LookAheadCheck,
        check_causality,
        is_ours,
        observe,
    )
    from backtest.engine.lookahead import observe_checked, start_check
    from backtest.engine.portfolio_driver import Progress, explain_refusal
    from backtest.engine.loop_inputs import mark_ends, mark_samples
    from backtest.engine.manifest import describe_bars, describe_data, describe_history
    from backtest.engine.manifest import describe_venue
    from backtest.engine.manifest import hash_source, read_tables_in_use
    from backtest.engine.target_cuts import count_unfilled, warn_of_unfilled
    from backtest.engine.option_rolls import collect_options
    from backtest.engine.option_schedule import check_columns, schedule_options
    from backtest.engine.policy_contract import Finding, check_policy
    from backtest.engine.portfolio_driver import new_event_log, new_ledger_array, new_quotes
    from backtest.engine.portfolio_driver import new_cuts, new_scratch
    from backtest.engine.portfolio_checks import check_periods, check_portfolio
    from backtest.engine.portfolio_checks import count_periods, read_venues
    from backtest.engine.portfolio_close import find_failure_value, is_near_failure, look_at_close
    from backtest.engine.portfolio_driver import Counts, bind_loop, drive
    from backtest.engine.portfolio_driver import find_simulate, list_kernel_arguments, new_tape
    from backtest.engine.portfolio_driver import read_tables, report_bad_decision
    from backtest.engine.portfolio_driver import summarize_portfolio
    from backtest.engine.portfolio_inputs import PortfolioInputs, read_portfolio_inputs
    from backtest.engine.portfolio_inputs import pack_terms, start_account_state, write_table
    from backtest.engine.portfolio_policies import Glimpse, ObservedPolicy, ask_plain
    from backtest.engine.portfolio_policies import assign_policies, check_overlay, flatten_columns
    from backtest.engine.portfolio_policies import flatten_settings, make_deciders, observe_overlay
    from backtest.engine.portfolio_policies import observe_policies, read_index, replace_policies
    from backtest.engine.portfolio_recording import RunTape
    from backtest.engine.run_setup import Setup, end_expired, set_up, set_up_again
    from backtest.engine.run_setup import read_signals, set_up_like
    from backtest.engine.portfolio_tally import is_over_cap
    from backtest.engine.position_tables import compute_notionals, measure_profits
    from backtest.engine.record import AccountFields, Outcome, PositionFields, Record
    from backtest.engine.result import Result
    from backtest.engine.result_files import name_result
    from backtest.engine.resumed_run import append_last_bar, check_rules
    from backtest.engine.resumed_run import is_same_account, join_resumed, read_resume
    from backtest.engine.run import run
    from backtest.engine.run_kinds import read_metrics
    from backtest.engine.run_options import RunOptions
    from backtest.engine.run_record import SHORT, count_boundless, find_start, measure_holding
    from backtest.engine.run_record import sample_risk_free
    from backtest.engine.run_result import finish
    from backtest.engine.run_setup import needs_general_loop, set_up_run, take_markets, widen_market
    from backtest.engine.run_warnings import warn_of_last_prices, warn_of_market, warn_of_weights
    from backtest.engine.run_warnings import warn_once
    from backtest.engine.signal_checks import describe_signal_check, join_checks
    from backtest.engine.signal_checks import read_signal
    from backtest.engine.signal_rule import SignalRule, write_word
    from backtest.engine.switched_run import Segment, merge_segments, run_switched
    from backtest.engine.target_cuts import is_large
    from backtest.engine.run_setup import check_terms
    from backtest.engine.trades import Trades

open_door(__name__)
