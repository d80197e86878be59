"""Compile the loop over lanes of several positions, once for all accounts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba import typeof
from numba.core import cgutils
from numba.extending import intrinsic

from backtest.base import jit, share_record
from backtest.engine import (
    compile_core,
    compile_general_rules,
    find_general_folder,
    find_general_loop,
    jit_modules,
    mark_sources,
)
from backtest.engine.compile.general_compiler import LOCK
from backtest.engine.compile.loop_compiler import INNER, OPTIONS
from backtest.sweep.lanes.lane_compiler import find_cell
from backtest.sweep.portfolios import (
    portfolio_lane_close,
    portfolio_lane_collateral,
    portfolio_lane_exits,
    portfolio_lane_fills,
    portfolio_lane_isolated,
    portfolio_lane_loop,
    portfolio_lane_measures,
    portfolio_lane_payments,
    portfolio_lane_prices,
    portfolio_lane_rows,
    portfolio_lane_rules,
    portfolio_lane_view,
)
from backtest.sweep.portfolios.portfolio_lane_formula import ask_through_addresses

MODULES = (
    portfolio_lane_rows, portfolio_lane_rules, portfolio_lane_isolated, portfolio_lane_collateral,
    portfolio_lane_payments, portfolio_lane_prices, portfolio_lane_fills, portfolio_lane_exits,
    portfolio_lane_close, portfolio_lane_measures, portfolio_lane_view, portfolio_lane_loop,
)  # fmt: skip

INLINED = frozenset(
    {
        "spot", "read_rules", "quote_open", "widen", "read_costs", "size_lane", "bound_cost",
        "bound_pool", "bound_isolated", "move_lane_margin", "write_fill", "round_as_isolated",
        "mark_fallback",
    }
)  # fmt: skip


@functools.cache
def compile_portfolio_lanes() -> dict[str, Any]:
    names: dict[str, Any] = {**compile_general_rules(has_parts=False), **compile_core().names}

    def choose(name: str) -> dict[str, Any]:
        if name == "advance_portfolios":
            return {**OPTIONS, "nogil": True}
        return {**INNER, "forceinline": name in INLINED}

    mark = mark_sources(*MODULES, compiler=__file__)
    jit_modules(MODULES, names, find_general_folder(), choose, mark=mark)
    inner: dict[str, Any] = {**OPTIONS, "cache": False, "forceinline": True}
    names["cell"] = jit(find_cell, **inner)
    names["share"] = share_record
    names["ask_lanes"] = jit(ask_through_addresses, **inner)
    return names


def find_loop_of_runs(arguments: tuple[Any, ...]) -> tuple[int, Any, tuple[Any, ...]]:
    with LOCK:
        loop = find_general_loop(arguments[0])
        kinds = tuple(typeof(each) for each in arguments)  # type: ignore[no-untyped-call]
        loop.compile(kinds)
        compiled = loop.overloads[kinds]
        name = compiled.fndesc.llvm_func_name
        address = compiled.library.get_pointer_to_function(name)
        return int(address), compiled.signature.return_type, kinds


_loops: dict[str, Callable[..., Any]] = {}


def find_lane_loop(arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], int]:
    with LOCK:
        address, result, kinds = find_loop_of_runs(arguments)
        key = str(kinds)
        if key not in _loops:
            names = compile_portfolio_lanes()
            names["pass_alone"] = write_call(result, kinds)
            _loops[key] = names["advance_portfolios"]
        return _loops[key], address


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
