"""The formula of each policy for all lanes, and the loop over lanes, compiled once for all.

The loop calls a formula once per bar and instrument, through its address.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from backtest import _compile, core, engine
from backtest.margin import LEVELS
from backtest.policies import AccountView, Policy, number_elements
from backtest.policies.policy import BAR_FIELDS
from backtest.sweep.lanes import closes, loop, quiet, rows, trades
from backtest.sweep.lanes.rows import HELD, LANES, N_POSITION

MODULES = (rows, quiet, trades, closes, loop)
KINDS = (*["pointer"] * 6, *["whole"] * 2)
"""What the formula of lanes takes."""


@functools.cache
def find_block() -> _compile.Entry:
    """Return the loop over lanes, under a hash of its sources and of the rules."""
    paths = [*(Path(str(each.__file__)) for each in MODULES), Path(__file__)]
    texts = (path.read_text(encoding="utf-8") for path in paths)
    own = core.hash_texts(*texts, engine.hash_rules())[:12]
    return _compile.Entry("take_block", own, compile_block)


def write_lane_formula(
    policy: Policy,
    columns: tuple[str, ...],
    varied: frozenset[str],
    asked: frozenset[str],
    read: frozenset[str],
    *,
    has_own_columns: bool,
) -> engine.Recipe:
    """Return the recipe of the formula that decides for all lanes of an instrument.

    Of its parameters some are ``varied`` over lanes; those that no set has ``asked`` for are
    constants if they are 0 or 1. ``read`` are the fields of the account that it reads.
    """
    settings = number_elements(policy.settings())
    constants = {name for name, each in settings.items() if each in (0, 1)} - asked
    inside = "seen[{}]".format if has_own_columns else "seen_{}".format
    prices = range(len(BAR_FIELDS) - 1)
    given = [
        repr(each) if name in constants else engine.read_parameter(f"params[{k * LANES}]", each)
        for k, (name, each) in enumerate(settings.items())
    ]
    shared = [f"shared_{name.replace('.', '_at_')}" for name in settings]
    hoisted = [f"    {name} = {each}" for name, each in zip(shared, given, strict=True)]
    hoisted += [f"    bar_{k} = bar_numbers[{k}]" for k in prices]
    if not has_own_columns:
        hoisted += [f"    seen_{k} = seen[{k * LANES}]" for k in range(len(columns))]
    margin = dict.fromkeys(LEVELS, "(0.0,)")
    margin |= {name: "False" if name.startswith("is_") else "0.0" for name in engine.MARGIN_NUMBERS}
    venue = ", ".join(f"{name}={value}" for name, value in margin.items())
    shown = AccountView._fields[:-1]
    view = [f"shown[{at_row(k)}]" if each in read else "0.0" for k, each in enumerate(shown)]
    own = [inside(at_row(k) if has_own_columns else k) for k in range(len(columns))]
    lines = [
        engine.read_parameter(f"params[{at_row(k)}]", each) if name in varied else shared[k]
        for k, (name, each) in enumerate(settings.items())
    ]
    place = engine.Place(
        head=[
            "def decide(target, params, seen, memory, shown, bar_numbers, count, time):",
            f"    venue = MarginRules({venue})",
            *hoisted,
            "    is_negative = False",
            "    for lane in range(count):",
        ],
        settings=engine.write_settings(lines, policy),
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

    return engine.make_recipe(
        policy, columns, lambda memory, _: engine.write_decide(memory, place), "lanes"
    )


def locate_lane_formula(recipe: engine.Recipe) -> int:
    """Return the address of a formula of lanes, compiled if no folder has it."""
    return engine.find_address(recipe, KINDS, has_counts=False)


def is_formula_compiled(recipe: engine.Recipe) -> bool:
    """Return whether a folder has the formula of a recipe."""
    named = f"{recipe.name}-{engine.hash_rules()}"
    return recipe.is_complete and _compile.find_object(named) is not None


def at_row(k: int) -> str:
    return f"np.uint64({k * LANES} + lane)"


def compile_block(own: str, given: tuple[Any, ...]) -> _compile.ObjectFile:
    twins = engine.compile_general_rules(has_parts=False) | engine.compile_core()
    twins |= {
        id(rows.cell): _compile.jit(lambda row, i: np.uint64(row * LANES + i), forceinline=True),
        id(rows.lowest): _compile.find_lowest,
        id(loop.ask_lanes): _compile.jit(make_ask(), forceinline=True),
    }
    names = _compile.compile_rules(MODULES, twins)[loop]
    of_run = (*given[:4], *given[6:11], given[5].tally, given[11], 0, 1)  # of the loop of a run
    names["pass_alone"] = _compile.make_loop_call(of_run)
    return _compile.compile_twin(loop.take_block, names, own, given)


ARRAYS = ((0, 1), (2, 3), (4, None), (5, 6), (7, None), (8, None))
"""Places of the arrays among the arguments of a formula, each with that of its first number."""


def make_ask() -> Any:
    """Return what takes the place of ``ask_lanes``: calls of the formulas by their addresses."""
    read_number: Any = _compile.read_number
    call_lanes = _compile.make_call("q", ARRAYS, n_numbers=2)

    def ask_through_addresses(policies: Any, lanes: Any, i: int, time: int, local: int) -> bool:
        seen, columns, length = policies.seen, policies.columns, policies.lengths[i]
        for k in range(policies.n_columns[i]):
            for lane in range(LANES if policies.has_own_columns else 1):
                at = columns[i * LANES + lane]
                place = (k * length + local) * policies.stride
                seen[k * LANES + lane] = read_number(at, place)
        answered: int = call_lanes(
            policies.addresses[i], lanes.position, (i * N_POSITION + HELD.target) * LANES,
            policies.params, policies.params_at[i] * LANES, seen, policies.memory,
            policies.memory_at[i] * LANES, policies.shown, policies.bar, LANES, time,
        )  # fmt: skip
        return answered == 1

    return ask_through_addresses
