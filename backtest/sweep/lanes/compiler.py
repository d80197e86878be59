"""Compile the loop over lanes, once for all accounts.

The loop calls a formula once per bar and instrument, through its address.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from backtest import _compile, engine
from backtest._compile.compiler import compile_entry, jit, read_kinds
from backtest.sweep.lanes import closes, loop, quiet, rows, trades
from backtest.sweep.lanes.rows import LANES, N_POSITION, TARGET

MODULES = (rows, quiet, trades, closes, loop)


@functools.cache
def compile_lanes() -> dict[str, Any]:
    twins = engine.compile_general_rules(has_parts=False) | engine.compile_core()
    twins |= {
        id(rows.cell): jit(find_cell, forceinline=True),
        id(rows.lowest): find_lowest,
        id(loop.ask_lanes): jit(ask_through_addresses, forceinline=True),
    }

    def compile_one(rule: Any, twin: Any) -> Any:
        return jit(twin, forceinline="is_inlined" in vars(rule))

    spaces: dict[ModuleType, dict[str, Any]] = {}
    engine.make_twins(MODULES, spaces, twins, compile_one)
    return spaces[loop]


def compile_block(own: str, given: tuple[Any, ...]) -> _compile.ObjectFile:
    """Return the object ``own`` of the loop over lanes, for its arguments."""
    names = compile_lanes()
    run_of = (*given[:4], *given[6:11], given[5].tally, given[11], 0, 1)  # of the loop of a run
    kinds = tuple(
        engine.Shared(each) if isinstance(each, types.BaseNamedTuple) else each
        for each in read_kinds(run_of)
    )
    names["pass_alone"] = write_call(types.UniTuple(int64, 2), kinds)  # type: ignore[no-untyped-call]
    block: Any = loop.take_block
    twin = _compile.make_twin(block, names, Path(str(loop.__file__)))
    return compile_entry(jit(twin, is_linked=False), own, read_kinds(given))


def write_call(result: Any, kinds: tuple[Any, ...]) -> Any:
    @intrinsic
    def call(_context: Any, address: Any, *_given: Any) -> Any:
        def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            taken = cgutils.unpack_tuple(builder, arguments[1])  # type: ignore[no-untyped-call]
            kind = context.call_conv.get_function_type(result, kinds)
            found, fault = (each.pointee for each in kind.args[:2])
            function = builder.inttoptr(arguments[0], kind.as_pointer())
            place = cgutils.alloca_once(builder, found)  # type: ignore[no-untyped-call]
            packed = context.get_arg_packer(kinds).as_arguments(builder, taken)
            status = cgutils.alloca_once(builder, fault)  # type: ignore[no-untyped-call]
            builder.call(function, [place, status, *packed])
            return context.get_returned_value(builder, result, builder.load(place))

        taken = types.StarArgTuple(kinds)  # type: ignore[no-untyped-call]
        return result(address, taken), build

    return call


def find_cell(row: int, i: int) -> Any:
    return np.uint64(row * LANES + i)


@intrinsic
def find_lowest(_context: Any, bits: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return bits(bits), build


@intrinsic
def read_number(_context: Any, address: Any, k: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())
        return builder.load(builder.gep(pointer, [arguments[1]]))

    return numba.float64(address, k), build


@intrinsic
def call_lanes(
    _context: Any,
    address: Any,
    position: Any,
    target_at: Any,
    params: Any,
    params_at: Any,
    seen: Any,
    memory: Any,
    memory_at: Any,
    shown: Any,
    bar: Any,
    count: Any,
    time: Any,
) -> Any:
    given = (
        address, position, target_at, params, params_at, seen, memory, memory_at, shown, bar,
        count, time,
    )  # fmt: skip

    arrays = ((1, 2), (3, 4), (5, None), (6, 7), (8, None), (9, None))
    return int64(*given), engine.build_call(ir.IntType(64), arrays, n_numbers=2)


def ask_through_addresses(policies: Any, lanes: Any, i: int, time: int, local: int) -> bool:
    seen, columns, length = policies.seen, policies.columns, policies.lengths[i]
    for k in range(policies.n_columns[i]):
        for lane in range(LANES if policies.has_own_columns else 1):
            at = columns[i * LANES + lane]
            place = (k * length + local) * policies.stride
            seen[k * LANES + lane] = read_number(at, place)  # type: ignore[call-arg]
    answered: int = call_lanes(  # type: ignore[call-arg]
        policies.addresses[i], lanes.position, (i * N_POSITION + TARGET) * LANES, policies.params,
        policies.params_at[i] * LANES, seen, policies.memory, policies.memory_at[i] * LANES,
        policies.shown, policies.bar, LANES, time,
    )  # fmt: skip
    return answered == 1
