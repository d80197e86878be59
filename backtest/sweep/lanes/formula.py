"""Compile the formula of a policy for all lanes of a block.

As :func:`backtest.engine.compiler.compile_formula`, for policies that read of the
account what lanes show (:mod:`backtest.sweep.lanes.view`). The loop calls it
once per bar and instrument, through its address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from backtest import engine
from backtest.base import CodeText
from backtest.engine.compiler import MARGIN_NUMBERS, POINTER
from backtest.policy import AccountView, Combinator, Policy, combinator_of, find_fields, formula_for
from backtest.policy.policy import BAR_FIELDS
from backtest.sweep.lanes.rows import LANES, N_POSITION, TARGET
from backtest.venue import LEVELS, MarginRules


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
    *,
    has_own_columns: bool,
) -> int:
    constants = {name for name, each in policy.settings().items() if each in (0, 1)} - asked
    shape = LaneShape(varied, frozenset(constants), has_own_columns, find_read(policy, columns))

    def write(memory: type | None, _: CodeText) -> list[str]:
        return write_lane_formula(policy.settings(), columns, memory, shape)

    recipe = engine.make_recipe(policy, columns, write, "lanes")
    records = {"MarginRules": MarginRules, "AccountView": AccountView, "np": np}
    whole = numba.int64
    signature = whole(*[POINTER] * 6, whole, whole)
    folder = engine.find_general_folder()
    function = engine.compile_at_address(recipe, folder, signature, records, has_counts=False)
    return int(function.address)


def find_read(policy: Policy, columns: tuple[str, ...]) -> frozenset[str]:
    if not isinstance(policy, Combinator):
        return find_fields(formula_for(policy, columns), 2)
    found = find_fields(combinator_of(type(policy)).combine, 2)
    for part, asked in zip(policy.parts, policy.policies, strict=True):
        own = (each for each in columns if each.startswith(part.prefix))
        found |= find_read(asked, tuple(each.removeprefix(part.prefix) for each in own))
    return found


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
            "    for lane in range(count):",
        ],
        settings=[
            engine.read_parameter(f"params[{at_row(k)}]", each)
            if name in shape.varied
            else f"shared_{name}"
            for k, (name, each) in enumerate(settings.items())
        ],
        bar=["time", *(f"bar_{k}" for k in prices), *own],
        account=[f"account = AccountView({', '.join(view)}, venue)"],
        end=["        target[np.uint64(lane)] = leverage", "    return 1"],
        slot=lambda k: f"memory[{at_row(k)}]",
        depth=2,
    )
    return engine.write_decide(memory, place)


def at_row(k: int) -> str:
    return f"np.uint64({k * LANES} + lane)"


# ------------------------------------------------------------------------ calls through addresses


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
    return numba.int64(*given), engine.build_call(ir.IntType(64), arrays, n_numbers=2)


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
