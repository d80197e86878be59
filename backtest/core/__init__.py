"""Tools that do not depend on markets: errors, units, declared values, files."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.core import atomic_files, black_kernels, elementary, errors, moments, number_text
    from backtest.core import public_math, units
    from backtest.core.atomic_files import LockHeldError, drafted_folder, hold_lock_file
    from backtest.core.atomic_files import is_lock_held, keep_tables, replace_file, write_file
    from backtest.core.atomic_files import writing
    from backtest.core.black_kernels import Greeks, scalar_greeks, scalar_price
    from backtest.core.checked_calls import check_broadcast, check_shape, checked, checked_fields
    from backtest.core.checked_calls import checked_only, is_path
    from backtest.core.code_names import Carried, arch, sp
    from backtest.core.code_versions import find_version, hash_texts
    from backtest.core.elementary import Number
    from backtest.core.errors import AccountingError, BacktestError, BandWarning, DataError, Fault
    from backtest.core.errors import HighRateWarning, InfiniteLeverageWarning, LastPriceWarning
    from backtest.core.errors import NoFillWarning, OutsideWarning, ParameterError, PolicyError
    from backtest.core.errors import RAISED
    from backtest.core.errors import VenueDateWarning, VenueError, WeightWarning, describe_fault
    from backtest.core.errors import describe_fraction, describe_high_rate, did_you_mean
    from backtest.core.errors import warn_caller, warn_of_high_rate
    from backtest.core.fields import ANY_NUMBER, Choice, Condition, Cost, DatedCost, Declaration
    from backtest.core.fields import Duration, Flag, FloatSeries, Real, Range, Rate, Text, Time
    from backtest.core.fields import Timed, Whole, check_names, check_range, read_number, read_time
    from backtest.core.fields import to_numbers, to_real
    from backtest.core.json_values import decode_text, from_plain, parse_json, read_object
    from backtest.core.json_values import read_json_file, read_small, write_json_file
    from backtest.core.json_values import repr_given, repr_plain, to_json, to_plain
    from backtest.core.moments import Stamps, as_dates, as_of, by_dates, check_timezone
    from backtest.core.moments import read_stamps, to_nanoseconds, warn_of_outside
    from backtest.core.number_text import Head, capitalize, clip, count_nouns, escape_directions
    from backtest.core.number_text import format_bps, format_cell, format_chance, format_money
    from backtest.core.number_text import format_number, format_percent, format_price
    from backtest.core.number_text import format_p_value, format_probability, format_round_money
    from backtest.core.number_text import format_setting, format_signed, format_value, keep_units
    from backtest.core.parquet_tables import list_records
    from backtest.core.result_parts import Headline, NOTHING, Panel, Part, Shown, ShownChart
    from backtest.core.result_parts import ShownTable
    from backtest.core.provenance import KEPT, Making, compute_id, find_versions, read_making
    from backtest.core.provenance import read_provenance
    from backtest.core.provenance import record_making, recording_command
    from backtest.core.result_folders import UNFINISHED, damage_error, discard_folder, hash_file
    from backtest.core.result_folders import name_folder, name_result
    from backtest.core.saved_result import Reportable, SavedResult, name_policy
    from backtest.core.units import BoolArray, DAY, FloatArray, IntArray, Progress, TimeLike
    from backtest.core.units import format_duration, format_time, parse_duration, report_progress
    from backtest.core.units import utc_index
    from backtest.core.values import AS_TUPLE, Faults, FrozenTable, Value, describe_value
    from backtest.core.values import find_declarations, float_if_single, freeze, list_changed
    from backtest.core.values import list_values, pick_value
else:
    __getattr__ = find_lazily(__name__, {
        "core": (
            "atomic_files black_kernels elementary errors moments number_text public_math units"
        ),
        "core.atomic_files": (
            "LockHeldError drafted_folder hold_lock_file is_lock_held keep_tables replace_file "
            "write_file writing"
        ),
        "core.black_kernels": "Greeks scalar_greeks scalar_price",
        "core.checked_calls": (
            "check_broadcast check_shape checked checked_fields checked_only is_path"
        ),
        "core.code_names": "Carried arch sp",
        "core.code_versions": "find_version hash_texts",
        "core.elementary": "Number",
        "core.errors": (
            "AccountingError BacktestError BandWarning DataError Fault HighRateWarning "
            "InfiniteLeverageWarning LastPriceWarning NoFillWarning OutsideWarning ParameterError "
            "PolicyError RAISED VenueDateWarning VenueError WeightWarning describe_fault "
            "describe_fraction describe_high_rate did_you_mean warn_caller warn_of_high_rate"
        ),
        "core.fields": (
            "ANY_NUMBER Choice Condition Cost DatedCost Declaration Duration Flag FloatSeries "
            "Range Rate Real Text Time Timed Whole check_names check_range read_number read_time "
            "to_numbers to_real"
        ),
        "core.json_values": (
            "decode_text from_plain parse_json read_json_file read_object read_small repr_given "
            "repr_plain to_json to_plain write_json_file"
        ),
        "core.moments": (
            "Stamps as_dates as_of by_dates check_timezone read_stamps to_nanoseconds "
            "warn_of_outside"
        ),
        "core.number_text": (
            "Head capitalize clip count_nouns escape_directions format_bps format_cell "
            "format_chance format_money format_number format_percent format_price "
            "format_p_value format_probability format_round_money format_setting format_signed "
            "format_value keep_units"
        ),
        "core.parquet_tables": "list_records",
        "core.provenance": (
            "KEPT Making compute_id find_versions read_making read_provenance record_making "
            "recording_command"
        ),
        "core.result_folders": (
            "UNFINISHED damage_error discard_folder hash_file name_folder name_result"
        ),
        "core.result_parts": "Headline NOTHING Panel Part Shown ShownChart ShownTable",
        "core.saved_result": "Reportable SavedResult name_policy",
        "core.units": (
            "BoolArray DAY FloatArray IntArray Progress TimeLike format_duration format_time "
            "parse_duration report_progress utc_index"
        ),
        "core.values": (
            "AS_TUPLE Faults FrozenTable Value describe_value find_declarations float_if_single "
            "freeze list_changed list_values pick_value"
        ),
    })  # fmt: skip
