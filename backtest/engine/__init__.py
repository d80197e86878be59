"""One account through its markets: inputs, the loops, ``run``, and its ``Result``."""

from typing import TYPE_CHECKING

from backtest.core import open_door

if TYPE_CHECKING:
    from backtest.engine.backtest import AnyPolicy, Backtest, BacktestFields, after_run
    from backtest.engine.backtest import bind_methods, end_expired, method, read_test, short_form
    from backtest.engine.batch import BatchLoop, Compile, Laid, LaneFault, LaterBars, begin
    from backtest.engine.batch import copy_state, gather_deciders, is_loop_compiled, lay
    from backtest.engine.batch import run_account
    from backtest.engine.checks import check_periods, check_run, count_periods, give_each
    from backtest.engine.checks import read_venues, warn_of_flows, warn_of_market
    from backtest.engine.checks import warn_once
    from backtest.engine.compiler import build_call, compile_core, compile_general_rules
    from backtest.engine.compiler import make_twins
    from backtest.engine.driver import Counts, Progress, bind_loop, drive, explain_refusal
    from backtest.engine.driver import find_entry, new_cuts
    from backtest.engine.driver import new_event_log, new_ledger, new_quotes, new_scratch
    from backtest.engine.driver import new_tape, read_tables, report_bad_decision, summarize_account
    from backtest.engine.equal_risk import BUY_AND_HOLD, CONSTANT, ScaledAccount, find_growth
    from backtest.engine.equal_risk import hold_at_equal_risk, measure_market, name_better
    from backtest.engine.equal_risk import scale_to_volatility
    from backtest.engine.formulas import MARGIN_NUMBERS, bind_compiled, find_address
    from backtest.engine.formulas import write_settings
    from backtest.engine.inputs import AccountInputs, earn_cash, mark_ends
    from backtest.engine.inputs import mark_samples, measure_years, pack_terms, read_assets
    from backtest.engine.inputs import start_account_state, start_day, start_wallet, write_table
    from backtest.engine.loop import LIQUIDATED, Deciders, RunTape, find_failure_value
    from backtest.engine.loop import is_over_cap, look_at_close
    from backtest.engine.batch import is_plain_sooner, tell_of_compiling
    from backtest.engine.policies import ObservedPolicy, ask_plain, assign_policies, check_overlay
    from backtest.engine.policies import flatten_columns, flatten_settings, make_deciders
    from backtest.engine.policies import observe_overlay, observe_policies, replace_policies
    from backtest.engine.policy_contract import Finding, check_policy
    from backtest.engine.recipe import Place, hash_rules, make_recipe, read_parameter
    from backtest.engine.recipe import write_decide
    from backtest.engine.run import Segment, count_unfilled, finish, merge_segments, run
    from backtest.engine.run import run_switched, warn_of_unfilled
    from backtest.engine.run_setup import Setup, append_last_bar, check_rules
    from backtest.engine.run_setup import is_same_account, join_resumed, read_resume
    from backtest.engine.run_setup import read_signals, set_up, set_up_again, set_up_like
    from backtest.engine.run_setup import set_up_run
    from backtest.engine.compiler import Shared

open_door(__name__)
