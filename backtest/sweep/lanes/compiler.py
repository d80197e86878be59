"""Compile the loop over lanes, once for all accounts, and the formulas of policies for all lanes.

The loop calls a formula once per bar and instrument, through its address.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import int64, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic

from backtest import base, engine
from backtest.base.compiler import jit
from backtest.engine.compiler import INNER, LOCK, MARGIN_NUMBERS, OPTIONS, POINTER
from backtest.policy import AccountView, Policy
from backtest.policy.policy import BAR_FIELDS
from backtest.sweep.lanes import closes, loop, quiet, rows, trades
from backtest.sweep.lanes.rows import LANES, N_POSITION, TARGET
from backtest.venue import LEVELS, MarginRules

MODULES = (rows, quiet, trades, closes, loop)

INLINED = frozenset(
    {
        "spot", "term", "read_rules", "make_kind", "quote_open", "size_lane", "bound_cost", "plan",
        "fill_lanes", "round_as_isolated", "trade_lane", "widen", "pick", "look_at_one",
        "close_one", "count_close",
    }
)  # fmt: skip


@functools.cache
def compile_lanes() -> dict[str, Any]:
    inner: dict[str, Any] = {**OPTIONS, "cache": False, "forceinline": True}
    twins = engine.compile_general_rules(has_parts=False) | engine.compile_core()
    twins |= {
        id(rows.cell): jit(find_cell, **inner),
        id(rows.lowest): find_lowest,
        id(loop.ask_lanes): jit(ask_through_addresses, **inner),
    }

    def compile_one(name: str, twin: Any) -> Any:
        if name == "take_block":
            return jit(twin, **OPTIONS, nogil=True)
        return jit(twin, **INNER, forceinline=name in INLINED)

    texts = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in MODULES]
    mark = f"-{base.hash_texts(*texts, Path(__file__).read_text(encoding='utf-8'))}"
    spaces: dict[ModuleType, dict[str, Any]] = {}
    folder = engine.find_general_folder()
    engine.make_twins(MODULES, folder, spaces, twins, compile_one, mark=mark)
    return spaces[loop]


def find_loop_of_runs(arguments: tuple[Any, ...]) -> tuple[int, Any, tuple[Any, ...]]:
    address, _ = engine.find_general_loop(arguments[0])(*arguments[:-2], 0, -1)
    kinds = tuple(typeof(each) for each in arguments)  # type: ignore[no-untyped-call]
    taken = tuple(
        engine.Shared(each) if isinstance(each, types.BaseNamedTuple) else each for each in kinds
    )
    return int(address), types.UniTuple(int64, 2), taken  # type: ignore[no-untyped-call]


_loops: dict[Any, tuple[Callable[..., Any], int]] = {}


def find_lane_loop(arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], int]:
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


# ----------------------------------------------------------------------------------- formulas


class LaneShape(NamedTuple):
    varied: frozenset[str]
    constants: frozenset[str]
    has_own_columns: bool
    read: frozenset[str]


def compile_lane_formula(
    policy: Policy,
    columns: tuple[str, ...],
    varied: frozenset[str],
    asked: frozenset[str],
    read: frozenset[str],
    *,
    has_own_columns: bool,
) -> int:
    constants = {name for name, each in policy.settings().items() if each in (0, 1)} - asked
    shape = LaneShape(varied, frozenset(constants), has_own_columns, read)

    def write(memory: type | None, _: engine.CodeText) -> list[str]:
        return write_lane_formula(policy.settings(), columns, memory, shape)

    recipe = engine.make_recipe(policy, columns, write, "lanes")
    records = {"MarginRules": MarginRules, "AccountView": AccountView, "np": np}
    whole = int64
    signature = whole(*[POINTER] * 6, whole, whole)
    folder = engine.find_general_folder()
    function = engine.compile_at_address(recipe, folder, signature, records, has_counts=False)
    return int(function.address)


def write_lane_formula(
    settings: Mapping[str, Any],
    columns: tuple[str, ...],
    memory: type | None,
    shape: LaneShape,
) -> list[str]:
    inside = "seen[{}]".format if shape.has_own_columns else "seen_{}".format
    prices = range(len(BAR_FIELDS) - 1)
    given = [
        repr(each)
        if name in shape.constants
        else engine.read_parameter(f"params[{k * LANES}]", each)
        for k, (name, each) in enumerate(settings.items())
    ]
    hoisted = [f"    shared_{name} = {each}" for name, each in zip(settings, given, strict=True)]
    hoisted += [f"    bar_{k} = bar_numbers[{k}]" for k in prices]
    if not shape.has_own_columns:
        hoisted += [f"    seen_{k} = seen[{k * LANES}]" for k in range(len(columns))]
    margin = dict.fromkeys(LEVELS, "(0.0,)")
    margin |= {name: "False" if name.startswith("is_") else "0.0" for name in MARGIN_NUMBERS}
    venue = ", ".join(f"{name}={value}" for name, value in margin.items())
    shown = AccountView._fields[:-1]
    view = [f"shown[{at_row(k)}]" if each in shape.read else "0.0" for k, each in enumerate(shown)]
    own = [inside(at_row(k) if shape.has_own_columns else k) for k in range(len(columns))]
    place = engine.Place(
        head=[
            "def decide(target, params, seen, memory, shown, bar_numbers, count, time):",
            f"    venue = MarginRules({venue})",
            *hoisted,
            "    is_negative = False",
            "    for lane in range(count):",
        ],
        settings=[
            engine.read_parameter(f"params[{at_row(k)}]", each)
            if name in shape.varied
            else f"shared_{name}"
            for k, (name, each) in enumerate(settings.items())
        ],
        bar=["time / 1e9", *(f"bar_{k}" for k in prices), *own],
        account=[f"account = AccountView({', '.join(view)}, venue)"],
        end=[
            f"        leverage += target[{at_row(1)}]",
            "        target[np.uint64(lane)] = leverage",
            "        is_negative |= leverage < 0.0",
            "    return 0 if is_negative else 1",
        ],
        slot=lambda k: f"memory[{at_row(k)}]",
        depth=2,
    )
    return engine.write_decide(memory, place)


def at_row(k: int) -> str:
    return f"np.uint64({k * LANES} + lane)"


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
            seen[k * LANES + lane] = read_number(at, k * length + local)  # type: ignore[call-arg]
    answered: int = call_lanes(  # type: ignore[call-arg]
        policies.addresses[i], lanes.position, (i * N_POSITION + TARGET) * LANES, policies.params,
        policies.params_at[i] * LANES, seen, policies.memory, policies.memory_at[i] * LANES,
        policies.shown, policies.bar, LANES, time,
    )  # fmt: skip
    return answered == 1
