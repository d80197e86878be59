"""Tools that do not depend on markets: errors, units, declared values, files, compiled code."""

from typing import TYPE_CHECKING

from backtest.base.later_import import open_door

if TYPE_CHECKING:
    from backtest.base.atomic_files import LockHeldError, held_folder, hold_lock_file, is_lock_held
    from backtest.base.atomic_files import replace_file, replace_folder
    from backtest.base.atomic_files import temporary_folder, write_file
    from backtest.base.black_kernels import Greeks, is_possible, log_ratio, normalized_price
    from backtest.base.black_kernels import price_and_slope, scalar_greeks, scalar_price
    from backtest.base.cache_folder import find_lasting_folder, read_bytes
    from backtest.base.checked_calls import check_broadcast, check_lengths, check_shape, checked
    from backtest.base.checked_calls import checked_fields, checked_only, is_path
    from backtest.base.code_identity import CodeText, describe_bytecode, describe_function
    from backtest.base.code_identity import describe_value, find_references, hash_texts, join_texts
    from backtest.base.code_identity import name_callable
    from backtest.base.compile_choice import compiling_first
    from backtest.base.compile_choice import is_plain_sooner, name_types, set_single
    from backtest.base.compile_choice import tell_of_compiling, write_mark
    from backtest.base.compiler import cfunc, jit
    from backtest.base.compiled_twins import bind_functions, choose_number, describe_target
    from backtest.base.compiled_twins import find_own_functions, make_twin
    from backtest.base.errors import AccountingError, BacktestError, BandWarning, DataError, Fault
    from backtest.base.errors import InfiniteLeverageWarning, LastPriceWarning
    from backtest.base.errors import NoFillWarning, ParameterError
    from backtest.base.errors import PolicyError, VenueDateWarning, VenueError, WeightWarning
    from backtest.base.errors import describe_fault, did_you_mean, warn_caller
    from backtest.base.fields import (
        Cost,
        Currency,
        DatedCost,
        Duration,
        Flag,
        FloatSeries,
        Rate,
        Text,
        Time,
        Timed,
    )
    from backtest.base.fields import Whole, check_names, read_time, read_timed
    from backtest.base.formula_functions import raise_to
    from backtest.base.values import FrozenTable, copy_frozen, float_if_single, freeze
    from backtest.base.values import list_values, name_values, pick_value
    from backtest.base.thread_pool import hold_signals
    from backtest.base.json_values import from_plain, open_plain, parse_json, read_small, repr_given
    from backtest.base.json_values import repr_plain, to_json, to_plain
    from backtest.base.kernels import compile_helpers, list_sources
    from backtest.base.kernels import compile_module
    from backtest.base.later_import import call_later
    from backtest.base.normal import mills_ratio, normal_cdf, normal_density
    from backtest.base.number_text import count_nouns, format_bps, format_chance
    from backtest.base.number_text import format_change, format_clock, format_days, format_hours
    from backtest.base.number_text import format_leverage, format_magnitude, format_money
    from backtest.base.number_text import format_number, format_pair, format_percent, format_price
    from backtest.base.number_text import format_price_at_tick, format_probability, format_rate
    from backtest.base.number_text import format_setting, format_signed, format_value
    from backtest.base.saved_result import Making, attach_saved_making, find_making, making_to_json
    from backtest.base.saved_result import read_provenance, record_making, recording_command
    from backtest.base.saved_result import write_provenance
    from backtest.base.fields import Choice, Condition, Declaration, Number, Range, check_number
    from backtest.base.fields import check_range, read_number, read_range
    from backtest.base.saved_result import damage_error, discard_folder, explain_other_metrics
    from backtest.base.saved_result import hash_file, name_folder, read_json_file, read_manifest
    from backtest.base.saved_result import reading_folder, save_folder, write_folder_manifest
    from backtest.base.saved_result import write_json_file, write_parquet
    from backtest.base.result_parts import Headline, Panel, Part, Shown, ShownChart, ShownTable
    from backtest.base.result_parts import list_changes
    from backtest.base.saved_result import Kind, Origin, Reportable, SavedResult
    from backtest.base.saved_result import describe_origin, list_records
    from backtest.base.saved_result import SettingsResult, compute_id, find_version
    from backtest.base.saved_result import find_versions
    from backtest.base.compiler import share_record
    from backtest.base.number_text import Head, capitalize, clip, escape_directions, find_head
    from backtest.base.number_text import format_cell, format_round_money
    from backtest.base.number_text import format_table, keep_units
    from backtest.base.thread_pool import count_cores, run_in_threads
    from backtest.base.units import BoolArray, FloatArray, IntArray, Numbers, TimeLike, find_coin
    from backtest.base.units import find_currency, format_duration, format_span, format_time
    from backtest.base.units import is_currency, parse_duration, parse_size, to_nanoseconds
    from backtest.base.units import utc_index
    from backtest.base.values import (
        AS_TUPLE,
        Faults,
        Value,
        declared,
        find_declarations,
        list_changed,
    )
    from backtest.base.values import name_place

open_door(__name__)
