"""Compile the loop over lanes of several positions, once for all accounts.

It calls the loop of a single run, and the policies' formulas, through their addresses, so that
neither is compiled again for it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import typeof
from numba.core import cgutils
from numba.extending import intrinsic

from backtest.base import cache_folder
from backtest.base.code_identity import hash_texts
from backtest.base.compiled_files import jit
from backtest.base.compiled_twins import find_own_functions, make_twin
from backtest.base.shared_records import share_record
from backtest.engine.compile.loop_compiler import INNER, OPTIONS, compile_core
from backtest.engine.portfolio.book_compiler import compile_book, find_book_folder
from backtest.sweep.books import book_lane_close, book_lane_fills, book_lane_loop, book_lane_rows
from backtest.sweep.lanes.lane_compiler import find_cell
from backtest.sweep.lanes.lane_rows import LANES

MODULES = (book_lane_rows, book_lane_fills, book_lane_close, book_lane_loop)
"""The modules to compile; each uses only those before it."""

INLINED = frozenset({"spot", "read_rules", "quote_open", "widen", "read_costs"})
"""Small functions that are called for every lane."""

LOCK = threading.RLock()
"""Held while anything is compiled."""


@functools.cache
def compile_book_lanes() -> dict[str, Any]:
    """Return the compiled functions of :data:`MODULES` by name; the loop compiles when called."""
    core, book = compile_core(), compile_book()
    sources = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in MODULES]
    mark = hash_texts(*sources, Path(__file__).read_text(encoding="utf-8"))
    names: dict[str, Any] = {**book, **core.names}
    for module in MODULES:
        names |= {k: v for k, v in vars(module).items() if k not in names or k.isupper()}
    names["__name__"] = book_lane_loop.__name__
    for module, source in zip(MODULES, sources, strict=True):
        path = find_book_folder() / f"{module.__name__.removeprefix('backtest.')}-{mark}.py"
        cache_folder.write_once(path, source)
        for name, function in find_own_functions(module):
            options = {**INNER, "forceinline": name in INLINED}
            if name == "advance_books":
                options = {**OPTIONS, "nogil": True}
            names[name] = jit(make_twin(function, names, path), **options)
    inner: dict[str, Any] = {**OPTIONS, "cache": False, "forceinline": True}
    names["cell"] = jit(find_cell, **inner)
    names["share"] = share_record
    names["ask_lane"] = jit(ask_through_address, **inner)
    return names


def find_loop_of_runs(arguments: tuple[Any, ...]) -> tuple[int, Any, tuple[Any, ...]]:
    """Return the address of the compiled loop of a run, what it returns, and its types."""
    with LOCK:
        loop: Any = compile_book()["simulate_book"]
        kinds = tuple(typeof(each) for each in arguments)  # type: ignore[no-untyped-call]
        loop.compile(kinds)
        compiled = loop.overloads[kinds]
        name = compiled.fndesc.llvm_func_name
        address = compiled.library.get_pointer_to_function(name)
        return int(address), compiled.signature.return_type, kinds


_loops: dict[str, Callable[..., Any]] = {}


def find_lane_loop(arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], int]:
    """Return the loop over lanes, and the address of the loop of a run of ``arguments``."""
    with LOCK:
        address, result, kinds = find_loop_of_runs(arguments)
        key = str(kinds)
        if key not in _loops:
            names = compile_book_lanes()
            names["pass_alone"] = write_call(result, kinds)
            _loops[key] = names["advance_books"]
        return _loops[key], address


def write_call(result: Any, kinds: tuple[Any, ...]) -> Any:
    """Return a function that calls compiled code of some types at an address."""

    @intrinsic
    def call(
        _context: Any,
        address: Any,
        _terms: Any,
        _feed: Any,
        _clock: Any,
        _log_returns: Any,
        _desk: Any,
        _book: Any,
        _scene: Any,
        _room: Any,
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


@intrinsic
def call_lane_formula(  # noqa: PLR0913, PLR0917 - what a formula takes
    _context: Any,
    address: Any,
    sheet: Any,
    bar: Any,
    params: Any,
    params_at: Any,
    columns: Any,
    memory: Any,
    memory_at: Any,
    margin: Any,
    levels: Any,
    count: Any,
    time: Any,
    local: Any,
    length: Any,
) -> Any:
    """Call a compiled formula with the parameters, columns and memory of one lane."""
    given = (
        address, sheet, bar, params, params_at, columns, memory, memory_at, margin, levels, count,
        time, local, length,
    )  # fmt: skip

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        double, whole = ir.DoubleType(), ir.IntType(64)
        pointer = double.as_pointer()

        def point(k: int, at: Any = None) -> Any:
            array = context.make_array(signature.args[k])(context, builder, arguments[k])
            return array.data if at is None else builder.gep(array.data, [at])

        kind = ir.FunctionType(double, [pointer] * 7 + [whole] * 4)
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        pointers = [
            point(1),
            point(2),
            point(3, arguments[4]),
            builder.inttoptr(arguments[5], pointer),
            point(6, arguments[7]),
            point(8),
            point(9),
        ]
        return builder.call(function, [*pointers, *arguments[10:14]])

    return numba.float64(*given), build


def ask_through_address(seats: Any, i: int, lane: int, time: int, local: int) -> Any:
    """Return the leverage that a compiled formula decides in one lane."""
    return call_lane_formula(  # type: ignore[call-arg]
        seats.addresses[i], seats.sheet, seats.bar, seats.params,
        lane * seats.n_params + seats.params_at[i], seats.columns[i * LANES + lane], seats.memory,
        lane * seats.n_memory + seats.memory_at[i], seats.margin, seats.levels, 1, time, local,
        seats.lengths[i],
    )  # fmt: skip
