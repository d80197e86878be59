"""Compile the formula of a policy for all lanes of a block of several positions.

As :func:`backtest.engine.portfolio.book_compiler.compile_formula`, for policies that read of the
account what lanes show (:mod:`backtest.sweep.books.book_lane_view`). The loop calls it once per bar
and instrument, through its address.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from backtest.base import cache_folder
from backtest.base.code_identity import describe_function, describe_value, hash_texts
from backtest.base.compiled_files import cfunc
from backtest.engine.compile.loop_compiler import compile_core, jit_tree
from backtest.engine.portfolio.book_compiler import (
    LEVEL_NAMES,
    MARGIN_NUMBERS,
    POINTER,
    build_call,
    find_book_folder,
    find_fields,
)
from backtest.policy import Policy, formula_for, start_memory
from backtest.policy.policy import BAR_FIELDS
from backtest.policy.view import AccountView
from backtest.sweep.books.book_lane_rows import N_POSITION, TARGET
from backtest.sweep.lanes.lane_rows import LANES
from backtest.venue import MarginRules

_loaded: dict[str, Any] = {}


class LaneShape(NamedTuple):
    """What differs between the lanes of a block: some parameters, and the columns or not.

    What does not is read once for all lanes, so that a choice by it is made once. ``read`` are the
    fields of the account that the policy reads.
    """

    varied: frozenset[str]
    has_own_columns: bool
    read: frozenset[str]


def compile_lane_formula(
    policy: Policy, columns: tuple[str, ...], varied: frozenset[str], *, has_own_columns: bool
) -> int:
    """Return the address of a policy's formula for all lanes, for bars with these columns.

    It depends only on the policy's class, the types of its parameters and its
    :class:`LaneShape`. Texts are constants.
    """
    shape = LaneShape(varied, has_own_columns, find_read(policy, columns))
    rule = formula_for(policy, columns)
    start = start_memory(policy)
    memory = None if start is None else type(start)
    code = describe_function(rule, {})
    text = write_lane_formula(policy.settings(), columns, memory, shape)
    slots = describe_value(memory, {}).text
    name = f"book_lanes_{hash_texts(text, slots, code.text, type(policy).__qualname__)}"
    if code.is_complete and name in _loaded:
        return int(_loaded[name].address)
    path = cache_folder.write_once(find_book_folder() / f"{name}.py", text)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    module.__dict__.update(compile_core().names)
    module.__dict__.update(
        NamedTuple=NamedTuple,
        MarginRules=MarginRules,
        AccountView=AccountView,
        np=np,
        rule=jit_tree(rule, {}),
        Memory=memory,
        __name__=name,
    )
    spec.loader.exec_module(module)
    whole = numba.int64
    options: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "cache": code.is_complete}
    function = cfunc(whole(*[POINTER] * 6, whole, whole), module.decide, **options)
    _loaded[name] = function  # kept, so that its address stays valid
    return int(function.address)


def find_read(policy: Policy, columns: tuple[str, ...]) -> frozenset[str]:
    """Return the fields of the account that a policy's formula reads; ``"*"`` for any."""
    return find_fields(formula_for(policy, columns), 2)


def write_lane_formula(
    settings: Mapping[str, Any],
    columns: tuple[str, ...],
    memory: type | None,
    shape: LaneShape,
) -> str:
    """Return the source of the module that calls a policy's formula for all lanes."""
    fields, slots = list(settings), list(getattr(memory, "_fields", ()))
    given = [
        read_row(k, settings[name]) if name in shape.varied else f"shared_{name}"
        for k, name in enumerate(fields)
    ] or ["0.0"]
    names = list(BAR_FIELDS)
    inside = "seen[{}]".format if shape.has_own_columns else "seen_{}".format
    seen = ["time", *(f"bar_{k}" for k in range(len(names) - 1))]
    seen += [inside(at_row(k) if shape.has_own_columns else k) for k in range(len(columns))]
    hoisted = [
        f"    shared_{name} = {read_row(k, settings[name], 0)}" for k, name in enumerate(fields)
    ]
    hoisted += [f"    bar_{k} = bar[{k}]" for k in range(len(names) - 1)]
    if not shape.has_own_columns:
        hoisted += [f"    seen_{k} = seen[{k * LANES}]" for k in range(len(columns))]
    margin = dict.fromkeys(LEVEL_NAMES, "(0.0,)")
    margin |= {name: "False" if name.startswith("is_") else "0.0" for name in MARGIN_NUMBERS}
    venue = ", ".join(f"{name}={value}" for name, value in margin.items())
    shown = AccountView._fields[:-1]
    view = [f"sheet[{at_row(k)}]" if each in shape.read else "0.0" for k, each in enumerate(shown)]
    lines = ["class Bar(NamedTuple):"]
    lines += [f"    {name}: float" for name in (*names, *columns)]
    lines += ["", "class Params(NamedTuple):"]
    lines += [f"    {name}: float" for name in fields] or ["    nothing: float"]
    lines += [
        "",
        "def decide(target, params, seen, memory, sheet, bar, count, time):",
        f"    venue = MarginRules({venue})",
        *hoisted,
        "    for lane in range(count):",
        f"        settings = Params({', '.join(given)})",
        f"        now = Bar({', '.join(seen)})",
        f"        account = AccountView({', '.join(view)}, venue)",
    ]
    if memory is None:
        lines += ["        target[np.uint64(lane)] = 1.0 * rule(settings, now, account)"]
    else:
        before = ", ".join(f"memory[{at_row(k)}]" for k in range(len(slots)))
        lines += [f"        before = Memory({before})"]
        lines += ["        leverage, after = rule(settings, now, account, before)"]
        lines += [f"        memory[{at_row(k)}] = 1.0 * after[{k}]" for k in range(len(slots))]
        lines += ["        target[np.uint64(lane)] = 1.0 * leverage"]
    return "\n".join([*lines, "    return 1"]) + "\n"


def at_row(k: int) -> str:
    """Return the source of the index of a lane in a row."""
    return f"np.uint64({k * LANES} + lane)"


def read_row(k: int, value: object, lane: int | None = None) -> str:
    """Return the source that reads a lane's parameter in its type; a text is a constant."""
    at = at_row(k) if lane is None else f"{k * LANES + lane}"
    if isinstance(value, bool):
        return f"(params[{at}] != 0.0)"
    if isinstance(value, int):
        return f"int(params[{at}])"
    return repr(value) if isinstance(value, str) else f"params[{at}]"


# ------------------------------------------------------------------------ calls through addresses


@intrinsic
def read_number(_context: Any, address: Any, k: Any) -> Any:
    """Return number k of an array at an address."""

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
    sheet: Any,
    bar: Any,
    count: Any,
    time: Any,
) -> Any:
    """Call a compiled formula for all lanes, with pointers into the arrays of a block."""
    given = (
        address, position, target_at, params, params_at, seen, memory, memory_at, sheet, bar,
        count, time,
    )  # fmt: skip

    arrays = ((1, 2), (3, 4), (5, None), (6, 7), (8, None), (9, None))
    return numba.int64(*given), build_call(ir.IntType(64), arrays, n_numbers=2)


def ask_through_addresses(
    seats: Any, sheets: Any, i: int, count: int, time: int, local: int
) -> bool:
    """Write the leverages that the policies of instrument i decide; False if one raised."""
    seen, columns, length = seats.seen, seats.columns, seats.lengths[i]
    for k in range(seats.n_columns[i]):
        for lane in range(count if seats.has_own_columns else 1):
            at = columns[i * LANES + lane]
            seen[k * LANES + lane] = read_number(at, k * length + local)  # type: ignore[call-arg]
    answered: int = call_lanes(  # type: ignore[call-arg]
        seats.addresses[i], sheets.position, (i * N_POSITION + TARGET) * LANES, seats.params,
        seats.params_at[i] * LANES, seen, seats.memory, seats.memory_at[i] * LANES, seats.sheet,
        seats.bar, count, time,
    )  # fmt: skip
    return answered == 1
