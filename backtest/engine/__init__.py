"""One account through its markets: inputs, the loops, ``run``, and its ``Result``."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.account.records import new_quotes
    from backtest.engine.batch import Compile, LaterBars, begin, copy_state, is_loop_compiled
    from backtest.engine.batch import is_plain_sooner, list_policies, run_account
    from backtest.engine.checks import check_run, check_settlement, count_periods, give_each
    from backtest.engine.checks import read_venues, warn_of_flows, warn_of_market, warn_once
    from backtest.engine.compiler import compile_account_rules, compile_scalar_rules, hash_rules
    from backtest.engine.conditions import AnyPolicy, Conditions, end_expired, fields, plain
    from backtest.engine.conditions import recall, restore, setting
    from backtest.engine.driver import CompiledCalls, Counts, Drive, LoopPart, OverflowedFormula
    from backtest.engine.driver import TermsInTime, bind_loop, copy_terms, explain_refusal
    from backtest.engine.driver import find_entry, find_terms, measure_account, new_bar, new_cuts
    from backtest.engine.driver import new_ledger, new_scratch, new_tape, report_bad_decision
    from backtest.engine.formulas import Place, Recipe, bind_compiled, find_address
    from backtest.engine.formulas import make_recipe, read_parameter
    from backtest.engine.formulas import write_decide, write_settings
    from backtest.engine.inputs import AccountInputs, earn_cash, mark_samples, measure_years
    from backtest.engine.inputs import pack_terms, read_assets, start_account_state, start_day
    from backtest.engine.shown import MARGIN_NUMBERS, Deciders
    from backtest.engine.tape import DAY_OPEN, LEAST_WEALTH, LIQUIDATED, MOST_WEALTH, N_CLOSES
    from backtest.engine.tape import RUINED, WEALTH, RunTape
    from backtest.engine.closes import find_failure_value, is_over_cap, look_at_close
    from backtest.engine.path_lanes import BatchLoop, LaneFault, lay, repeat_inputs
    from backtest.engine.policies import ObservedPolicy, ask_plain, assign_policies, flatten_columns
    from backtest.engine.policies import WarmUp, find_known_bars, find_warm_up, measure_decided
    from backtest.engine.policies import flatten_memory, flatten_settings, gather_deciders
    from backtest.engine.policies import measure_observed, observe_overlay, observe_policies
    from backtest.engine.policies import find_first_value, list_terms, show_terms
    from backtest.engine.run import Segment, count_unfilled, finish, merge_segments
    from backtest.engine.run import run_again, run_switched
    from backtest.engine.run_setup import Setup, append_last_bar, check_bars_left, check_rules
    from backtest.engine.run_setup import find_first_bar, is_same_account, join_resumed
    from backtest.engine.run_setup import read_resume, read_signals, set_up
    from backtest.engine.run_setup import set_up_again, set_up_like, set_up_policies, set_up_run
else:
    __getattr__ = find_lazily(__name__, {
        "account.records": "new_quotes",
        "engine.batch": (
            "Compile LaterBars begin copy_state is_loop_compiled is_plain_sooner list_policies "
            "run_account"
        ),
        "engine.checks": (
            "check_run check_settlement count_periods give_each read_venues warn_of_flows "
            "warn_of_market warn_once"
        ),
        "engine.closes": "find_failure_value is_over_cap look_at_close",
        "engine.compiler": "compile_account_rules compile_scalar_rules hash_rules",
        "engine.conditions": "AnyPolicy Conditions end_expired fields plain recall restore setting",
        "engine.driver": (
            "CompiledCalls Counts Drive LoopPart OverflowedFormula TermsInTime bind_loop "
            "copy_terms explain_refusal find_entry find_terms measure_account new_bar new_cuts "
            "new_ledger new_scratch new_tape report_bad_decision"
        ),
        "engine.formulas": (
            "Place Recipe bind_compiled find_address make_recipe read_parameter write_decide "
            "write_settings"
        ),
        "engine.inputs": (
            "AccountInputs earn_cash mark_samples measure_years pack_terms read_assets "
            "start_account_state start_day"
        ),
        "engine.path_lanes": "BatchLoop LaneFault lay repeat_inputs",
        "engine.policies": (
            "ObservedPolicy WarmUp ask_plain assign_policies find_known_bars find_warm_up "
            "flatten_columns flatten_memory flatten_settings gather_deciders measure_decided "
            "find_first_value list_terms measure_observed observe_overlay observe_policies "
            "show_terms"
        ),
        "engine.run": "Segment count_unfilled finish merge_segments run_again run_switched",
        "engine.run_setup": (
            "Setup append_last_bar check_bars_left check_rules find_first_bar is_same_account "
            "join_resumed read_resume read_signals set_up set_up_again set_up_like "
            "set_up_policies set_up_run"
        ),
        "engine.shown": "MARGIN_NUMBERS Deciders",
        "engine.tape": (
            "DAY_OPEN LEAST_WEALTH LIQUIDATED MOST_WEALTH N_CLOSES RUINED RunTape WEALTH"
        ),
    })  # fmt: skip
