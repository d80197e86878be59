"""One account through its markets: inputs, the loops, ``run``, and its ``Result``."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.engine.batch import begin, copy_state, gather_deciders
    from backtest.engine.batch import run_account, take
    from backtest.engine.batch import BatchLoop, Laid, LaneFault, LaterBars
    from backtest.engine.batch import lay_alike, lay_each
    from backtest.engine.feed_arrays import read_assets
    from backtest.engine.compiler import bind_compiled, build_call
    from backtest.engine.compiler import compile_general_rules, find_general_folder
    from backtest.engine.compiler import find_general_loop
    from backtest.engine.compiler import compile_at_address, compile_core, jit_modules
    from backtest.engine.compiler import mark_sources
    from backtest.engine.recipe import Place, make_recipe
    from backtest.engine.recipe import read_parameter, write_decide
    from backtest.engine.result import CountedResult
    from backtest.engine.loop import Deciders
    from backtest.engine.signal_rules import Directions, read_directions
    from backtest.engine.feed_arrays import TradedDays, start_day
    from backtest.engine.feed_arrays import as_of, earn_cash, measure_years
    from backtest.engine.signal_rules import compute_signal
    from backtest.engine.signal_rules import change_rule, read_named, read_rule, resolve_signal
    from backtest.engine.trades import collect_limit_orders, describe_limit_orders
    from backtest.engine.lookahead import (
        Causality,
        check_causality,
        is_ours,
        observe,
    )
    from backtest.engine.lookahead import observe_checked, start_check
    from backtest.engine.driver import Progress, explain_refusal
    from backtest.engine.feed_arrays import mark_ends, mark_samples
    from backtest.engine.manifest import describe_bars, describe_data, describe_history
    from backtest.engine.manifest import describe_venue
    from backtest.engine.manifest import hash_source, read_tables_in_use
    from backtest.engine.run_result import count_unfilled, warn_of_unfilled
    from backtest.engine.trades import collect_options
    from backtest.engine.option_inputs import check_columns, schedule_options
    from backtest.engine.policy_contract import Finding, check_policy
    from backtest.engine.driver import new_event_log, new_ledger_array, new_quotes
    from backtest.engine.driver import new_cuts, new_scratch
    from backtest.engine.checks import check_periods, check_run
    from backtest.engine.checks import count_periods, read_venues
    from backtest.engine.closes import find_failure_value, look_at_close
    from backtest.engine.driver import Counts, bind_loop, drive
    from backtest.engine.driver import find_simulate, new_tape
    from backtest.engine.driver import read_tables, report_bad_decision
    from backtest.engine.driver import summarize_account
    from backtest.engine.inputs import AccountInputs, read_inputs
    from backtest.engine.inputs import pack_terms, start_account_state, write_table
    from backtest.engine.policies import ObservedPolicy, ask_plain
    from backtest.engine.policies import assign_policies, check_overlay, flatten_columns
    from backtest.engine.policies import flatten_settings, make_deciders, observe_overlay
    from backtest.engine.policies import observe_policies, replace_policies
    from backtest.engine.closes import RunTape
    from backtest.engine.run_setup import Setup, end_expired, set_up, set_up_again
    from backtest.engine.run_setup import read_signals, set_up_like
    from backtest.engine.closes import is_over_cap
    from backtest.engine.record import AccountFields, Outcome, PositionFields, Record
    from backtest.engine.result import Result
    from backtest.engine.result_files import name_result
    from backtest.engine.run_setup import append_last_bar, check_rules
    from backtest.engine.run_setup import is_same_account, join_resumed, read_resume
    from backtest.engine.run import run
    from backtest.engine.run_data import RunOptions, explain_idle_options
    from backtest.engine.run_record import SHORT, count_boundless, find_start, measure_holding
    from backtest.engine.run_result import finish
    from backtest.engine.run_setup import set_up_run, take_markets, widen_market
    from backtest.engine.checks import warn_of_market, warn_of_weights
    from backtest.engine.checks import warn_once
    from backtest.engine.signal_rules import describe_signal_check, join_checks
    from backtest.engine.signal_rules import read_signal
    from backtest.engine.signal_rules import SignalRule
    from backtest.engine.run import Segment, merge_segments, run_switched
    from backtest.engine.run_result import is_large
    from backtest.engine.run_setup import check_terms
    from backtest.engine.trades import Trades

open_door(__name__)
