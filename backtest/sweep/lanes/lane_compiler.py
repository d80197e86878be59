"""Compile the loop over lanes, and the formula of a policy for all lanes."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import typeof
from numba.extending import intrinsic

from backtest.account import AccountRules, InstrumentRules, Quote, State
from backtest.base import (
    CodeText,
    FloatArray,
    cfunc,
    describe_function,
    jit,
    make_twin,
    share_record,
)
from backtest.engine import (
    Place,
    compile_at_address,
    compile_core,
    count_slots,
    jit_modules,
    make_recipe,
    mark_sources,
    may_refer_to,
    read_parameter,
    write_decide,
)
from backtest.engine.compile.loop_compiler import INNER, OPTIONS
from backtest.engine.compile.recipe import ROOT_NAMES
from backtest.policy import Policy, formula_for
from backtest.sweep.lanes import (
    full_bars,
    lane_fees,
    lane_loop,
    lane_measures,
    lane_rows,
    lane_trades,
    quick_looks,
)
from backtest.sweep.lanes.lane_rows import LANES, ROWS, RUN, Cursor, Kind, Setup
from backtest.venue import LEVELS, MarginRules

MODULES = (lane_rows, quick_looks, full_bars, lane_trades, lane_measures, lane_loop, lane_fees)

CALLED = frozenset(
    {
        "advance_block",
        "advance_days",
        "begin_day",
        "charge_lanes",
        "count_seen",
        "count_later",
        "fold_products",
        "copy_own_columns",
        "raise_bound",
        "take_samples",
        "write_equity",
    }
)

LOOPS = ("advance_block", "advance_days")

TABLE_NAMES = frozenset({"venue", *ROOT_NAMES})


class Shape(NamedTuple):
    columns: tuple[tuple[str, bool], ...]
    constants: tuple[tuple[str, Any], ...]
    is_inverse: bool | None
    is_isolated: bool | None
    has_flows: bool | None
    n_brackets: int
    is_slow: bool = False


class Lanes(NamedTuple):
    names: dict[str, Any]
    paths: dict[types.ModuleType, Path]


LOCK = threading.RLock()


@functools.cache
def compile_lanes(*, n_brackets: int, is_inlined: bool = True) -> Lanes:
    core = compile_core(is_inlined=is_inlined, n_brackets=n_brackets)
    names = dict(core.names)

    def choose(name: str) -> dict[str, Any]:
        if name in LOOPS:
            return {**OPTIONS, "nogil": True}
        return {**INNER, "forceinline": is_inlined and name not in CALLED}

    place = core.folder / (f"brackets-{n_brackets}" if is_inlined else "called")
    mark = mark_sources(*MODULES, compiler=__file__)
    paths = jit_modules(MODULES, names, place, choose, mark=mark)
    options = {**OPTIONS, "cache": False, "forceinline": True}
    names |= {name: jit(function, **options) for name, function in INSTRUCTIONS.items()}
    names |= {"cell": jit(find_cell, **options), "share": share_record}
    return Lanes(names, paths)


_live: dict[str, Any] = {}


def types_of_live(setup: Setup, block: FloatArray, at: Cursor) -> list[Any]:
    arguments = (*setup[2:6], setup.log, block, at, True, True, 0)
    return [typeof(each) for each in arguments]  # type: ignore[no-untyped-call] # numba's


def is_cold() -> bool:
    path = compile_lanes(n_brackets=0, is_inlined=False).paths[full_bars]
    found = (path.parent / "__pycache__").glob(f"{path.stem}.{full_bars.live_lanes.__name__}-*")
    return not any(found)


def compile_live_types(types_: list[Any]) -> Any:
    key = str(types_)
    with LOCK:
        if key not in _live:
            compiled = compile_lanes(n_brackets=0, is_inlined=False)
            path = compiled.paths[full_bars]
            function = make_twin(full_bars.live_lanes, compiled.names, path)  # type: ignore[arg-type]
            options: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "cache": True}
            _live[key] = cfunc(numba.int64(*types_), function, **options)
        return _live[key]


def compile_for(
    loop: Any, market: tuple[Any, ...], live: list[Any], decide: Any, at: Cursor
) -> None:
    pointer = numba.types.FunctionType(numba.int64(*live))
    first = [typeof(each) for each in market]  # type: ignore[no-untyped-call] # numba's
    last = [typeof(each) for each in (decide, at, 0, 0)]  # type: ignore[no-untyped-call]
    loop.compile((*first, pointer, *last))


def find_cell(row: int, i: int) -> Any:
    return np.uint64(row * LANES + i)


@intrinsic
def write_vector(_context: Any, matrix: Any, k: Any, first: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        width = builder.extract_value(array.shape, 1)
        cell = builder.add(builder.mul(arguments[1], width), arguments[2])
        at = builder.gep(array.data, [cell])
        whole = ir.VectorType(ir.DoubleType(), RUN)
        none = ir.Constant(whole, ir.Undefined)
        one = builder.insert_element(none, arguments[3], ir.Constant(ir.IntType(32), 0))
        every = ir.Constant(ir.VectorType(ir.IntType(32), RUN), [0] * RUN)
        run = builder.shuffle_vector(one, none, every)
        builder.store(run, builder.bitcast(at, whole.as_pointer()), align=8)
        return context.get_dummy_value()

    return numba.void(matrix, k, first, value), build


INSTRUCTIONS: dict[str, Any] = {
    "no_lanes": lambda: np.uint64(0),
    "lane_bit": lambda i, is_on: np.uint64(is_on) << np.uint64(i),
    "all_lanes": lambda: np.uint64(2**64 - 1),
    "has_run": lambda found, first: (found >> np.uint64(first)) & np.uint64(255) != np.uint64(0),
    "write_run": lambda a, k, i, x: write_vector(a, k, i, x),  # type: ignore[call-arg]  # noqa: PLW0108
}


@functools.cache
def signature() -> Any:
    number, whole = numba.float64, numba.int64
    line = numba.types.Array(number, 1, "C")
    matrix = numba.types.Array(number, 2, "C")
    flags = numba.types.Array(whole, 1, "C")
    prices = [number] * 5
    return numba.void(
        line, line, matrix, matrix, flags, whole, *prices, *([number] * 6), whole, whole,
    )  # fmt: skip


class LanePolicy(NamedTuple):
    decide: Any
    n_rows: int


def compile_part(policy: Policy, shape: Shape) -> LanePolicy:
    """Return a policy's formula for all lanes of a block.

    It depends only on the policy's class, the types of its parameters, and ``shape``.
    """

    def write(memory: type | None, code: CodeText) -> list[str]:
        wants_root = may_refer_to(code, ROOT_NAMES)
        return write_part(policy.settings(), shape, memory, wants_root=wants_root)

    loop = compile_lanes(n_brackets=1)
    mark = loop.paths[lane_loop].name  # it holds a hash of the loop's sources
    recipe = make_recipe(policy, tuple(name for name, _ in shape.columns), write, "lanes", mark)
    names = {"compute_unit": loop.names["compute_unit"], "Kind": Kind, "np": np}
    folder = compile_core().folder
    decide = compile_at_address(recipe, folder, signature(), names, has_counts=False)
    return LanePolicy(decide, len(policy.settings()) + count_slots(recipe.memory))


def write_part(
    settings: Mapping[str, Any], shape: Shape, memory: type | None, *, wants_root: bool
) -> list[str]:
    first = len(ROWS)
    constants = dict(shape.constants)
    prices = ("open", "high", "low", "close", "mark", "volume")
    has_flows = True if shape.has_flows is not None else None
    target = write_cell(ROWS.index("target"))
    place = Place(
        head=[
            f"KIND = Kind(None, None, {has_flows})",
            "",
            f"def decide(block, brackets, shared, own, flags, time, {', '.join(prices)}, funding,",
            "           days, value, multiplier, initial, t, k):",
            "    is_any_negative = False",
            "    at = -1",
            *write_shared(shape),
            f"    for i in range({LANES}):",
            f"        if {write_cell(ROWS.index('is_done'))} == 0.0:",
        ],
        settings=[
            read_setting(first + k, value, constants.get(name))
            for k, (name, value) in enumerate(settings.items())
        ],
        bar=["time", *prices, "funding", *write_columns(shape)],
        account=write_account(shape, wants_root=wants_root),
        end=[
            f"            {target} = leverage",
            "            is_any_negative |= leverage < 0.0",
            "        else:",
            f"            {target} = np.nan",
            "    if is_any_negative:",
            f"        for i in range({LANES}):",
            f"            if {target} < 0.0:",
            "                at = i",
            "    flags[0] = at",
            "    flags[1] = 0",
        ],
        slot=lambda k: write_cell(first + len(settings) + k),
        depth=3,
    )
    return write_decide(memory, place)


def read_setting(row: int, value: object, constant: object) -> str:
    if constant is not None:
        return repr(constant)
    return read_parameter(write_cell(row), 0.0 if isinstance(value, str) else value)


def write_cell(row: int) -> str:
    return f"block[np.uint64({row * LANES} + i)]"


def write_shared(shape: Shape) -> list[str]:
    names = [name for name, is_own in shape.columns if not is_own]
    return [f"    shared_{name} = shared[{k}, t]" for k, name in enumerate(names)]


def write_columns(shape: Shape) -> list[str]:
    owned = [name for name, is_own in shape.columns if is_own]
    return [
        f"own[k, {owned.index(name) * LANES} + i]" if is_own else f"shared_{name}"
        for name, is_own in shape.columns
    ]


def write_account(shape: Shape, *, wants_root: bool) -> list[str]:
    n = shape.n_brackets
    levels = {
        name: f"({', '.join(f'brackets[{k * n + j}]' for j in range(n))},)"
        for k, name in enumerate(LEVELS)
    }
    cell = {name: write_cell(ROWS.index(name)) for name in ROWS}
    size = len(LEVELS) * n
    flags = {"is_inverse": shape.is_inverse, "is_isolated": shape.is_isolated}
    margin = {
        **levels, "close_fee": cell["close_fee"], "taker": cell["taker"],
        "size": f"brackets[{size}]", "setting": cell["setting"],
        "is_inverse": bool(shape.is_inverse), "is_isolated": bool(shape.is_isolated),
        "is_valued_at_entry": f"brackets[{size + 1}] != 0.0", "multiplier": "multiplier",
        "initial_multiplier": "initial",
    }  # fmt: skip
    instrument: dict[str, Any] = dict.fromkeys(InstrumentRules._fields, "0.0")
    kinds = ("has_", "fills_", "rounds_", "is_")
    instrument |= dict.fromkeys(each for each in instrument if each.startswith(kinds))
    instrument |= {"is_funded_by_wallet": False}
    instrument |= {**flags, "keeps_entry": True, "marks_entry": True, "margin": "margin"}
    account: dict[str, Any] = dict.fromkeys(AccountRules._fields, "0.0")
    account |= {"has_interest": None}
    state = dict.fromkeys(State._fields, "0.0")
    state |= dict.fromkeys(("is_called", "is_over", "is_ruined", "is_call_open"), "False")
    state |= dict.fromkeys(("funding_next", "flow_next"), "0")
    state |= {
        "balances": "balances", "equity": "equity", "reserve": cell["reserve"],
        "since": f"t - {cell['last_liquidation']}", "since_stop": f"t - {cell['last_stop']}",
        "last_funding": "funding", "unit": "compute_unit(KIND, block, i, equity)",
        "peak": cell["peak"],
    }  # fmt: skip
    if shape.is_slow:
        state |= {"since": cell["seen_since"], "since_stop": cell["seen_since_stop"]}
        state |= {"peak": cell["seen_peak"]}
    quote = dict.fromkeys(Quote._fields, "value")
    quote |= {"multiplier": "multiplier", "initial": "initial"}
    quote |= dict.fromkeys(("volume", "sigma", "adv", "order_fee"), "0.0")
    return [
        f"margin = {write_record('MarginRules', margin)}",
        f"instrument = {write_record('InstrumentRules', instrument)}",
        f"rules = Rules({write_record('AccountRules', account)}, instrument)",
        f"position = Position({cell['quantity']}, {cell['entry']}, {cell['margin']}, value)",
        f"balances = make_balances({cell['cash']}, position)",
        "equity = compute_equity(instrument, balances, value)",
        f"state = {write_record('State', state)}",
        f"quote = {write_record('Quote', quote)}",
        f"account = show_account(rules, state, quote, days, {True if wants_root else None})",
    ]


def write_record(name: str, fields: Mapping[str, object]) -> str:
    return f"{name}({', '.join(f'{field}={text}' for field, text in fields.items())})"


def pad_brackets(rules: MarginRules, least: int) -> MarginRules:
    n = max(len(rules.floors), least)
    step = 2 if n <= 8 else 4
    n = n if n == 1 else -(-n // step) * step
    return MarginRules._make(
        (*value, *(value[-1:] * (n - len(value)))) if name in LEVELS else value
        for name, value in rules._asdict().items()
    )


def reads_table(policy: Policy) -> bool:
    return may_refer_to(describe_function(formula_for(policy, ()), {}), TABLE_NAMES)


def pack_margin(rules: MarginRules) -> np.ndarray:
    levels = [np.asarray(getattr(rules, name), dtype=np.float64) for name in LEVELS]
    return np.concatenate([*levels, [rules.size, float(rules.is_valued_at_entry)]])
