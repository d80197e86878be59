"""Compile the loop over lanes, once for all accounts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, typeof
from numba.core import cgutils
from numba.core.types import BaseNamedTuple, UniTuple
from numba.extending import intrinsic

from backtest.base.compiler import Shared, jit, share_record
from backtest.engine import (
    compile_core,
    compile_general_rules,
    find_general_folder,
    find_general_loop,
    jit_modules,
    mark_sources,
)
from backtest.engine.compiler import INNER, LOCK, OPTIONS
from backtest.sweep.lanes import closes, lane_rules, loop, prices, quiet, rows, trades, view
from backtest.sweep.lanes.formula import ask_through_addresses
from backtest.sweep.lanes.rows import LANES

MODULES = (rows, lane_rules, prices, quiet, trades, closes, view, loop)

INLINED = frozenset(
    {
        "spot", "term", "read_rules", "make_kind", "quote_open", "size_lane", "bound_cost", "plan",
        "fill_lanes", "round_as_isolated", "trade_lane", "widen", "pick", "look_at_one",
        "close_one", "count_close", "count_lane",
    }
)  # fmt: skip


@functools.cache
def compile_lanes() -> dict[str, Any]:
    names: dict[str, Any] = {**compile_general_rules(has_parts=False), **compile_core()}

    def choose(name: str) -> dict[str, Any]:
        if name == "take_block":
            return {**OPTIONS, "nogil": True}
        return {**INNER, "forceinline": name in INLINED}

    mark = mark_sources(*MODULES, compiler=__file__)
    jit_modules(MODULES, names, find_general_folder(), choose, mark=mark)
    inner: dict[str, Any] = {**OPTIONS, "cache": False, "forceinline": True}
    names["cell"] = jit(find_cell, **inner)
    names["lowest"] = find_lowest
    names["share"] = share_record
    names["ask_lanes"] = jit(ask_through_addresses, **inner)
    return names


def find_loop_of_runs(arguments: tuple[Any, ...]) -> tuple[int, Any, tuple[Any, ...]]:
    """Return the address of the loop of one account, what it returns, and what it takes."""
    address, _ = find_general_loop(arguments[0])(*arguments[:-2], 0, -1)
    kinds = tuple(typeof(each) for each in arguments)  # type: ignore[no-untyped-call]
    taken = tuple(Shared(each) if isinstance(each, BaseNamedTuple) else each for each in kinds)
    return int(address), UniTuple(int64, 2), taken  # type: ignore[no-untyped-call]


_loops: dict[Any, tuple[Callable[..., Any], int]] = {}


def find_lane_loop(arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], int]:
    """Return the loop over lanes, and the address of the loop of runs that it calls."""
    key = describe_kinds(arguments)
    with LOCK:
        if key not in _loops:
            address, result, kinds = find_loop_of_runs(arguments)
            names = compile_lanes()
            names["pass_alone"] = write_call(result, kinds)
            _loops[key] = names["take_block"], address
        return _loops[key]


def describe_kinds(value: Any) -> Any:
    if isinstance(value, tuple):
        return type(value).__name__, *map(describe_kinds, value)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.ndim, value.flags.c_contiguous, value.flags.writeable
    return type(value)


def write_call(result: Any, kinds: tuple[Any, ...]) -> Any:
    @intrinsic
    def call(
        _context: Any,
        address: Any,
        _terms: Any,
        _feed: Any,
        _clock: Any,
        _log_returns: Any,
        _deciders: Any,
        _state: Any,
        _quotes: Any,
        _scratch: Any,
        _ledger: Any,
        _tally: Any,
        _tape: Any,
        _start: Any,
        _stop: Any,
    ) -> Any:
        def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            kind = context.call_conv.get_function_type(result, kinds)
            found, fault = (each.pointee for each in kind.args[:2])
            function = builder.inttoptr(arguments[0], kind.as_pointer())
            place = cgutils.alloca_once(builder, found)  # type: ignore[no-untyped-call]
            packed = context.get_arg_packer(kinds).as_arguments(builder, arguments[1:])
            status = cgutils.alloca_once(builder, fault)  # type: ignore[no-untyped-call]
            builder.call(function, [place, status, *packed])
            return context.get_returned_value(builder, result, builder.load(place))

        return result(address, *kinds), build

    return call


def find_cell(row: int, i: int) -> Any:
    return np.uint64(row * LANES + i)


@intrinsic
def find_lowest(_context: Any, bits: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return bits(bits), build
