"""The formula of each policy for all lanes, and the loop over lanes, found without numba."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from backtest import _compile, core, engine
from backtest._compile.code_identity import CodeText
from backtest.margin import LEVELS, MarginRules
from backtest.policies import AccountView, Policy, number_elements
from backtest.policies.policy import BAR_FIELDS
from backtest.sweep.lanes import closes, loop, quiet, rows, trades
from backtest.sweep.lanes.rows import LANES

MODULES = (rows, quiet, trades, closes, loop)
KINDS = (*["pointer"] * 6, *["whole"] * 2)
"""What the formula of lanes takes."""


@functools.cache
def hash_lanes() -> str:
    """Return a hash of the sources of the loop over lanes, and of the rules."""
    here = Path(__file__)
    paths = [*(Path(str(each.__file__)) for each in MODULES), here, here.with_name("compiler.py")]
    texts = (path.read_text(encoding="utf-8") for path in paths)
    return core.hash_texts(*texts, engine.hash_rules())[:12]


@functools.cache
def find_block() -> _compile.Entry:
    """Return the loop over lanes."""

    def compile_for(own: str, given: tuple[Any, ...]) -> _compile.ObjectFile:
        from backtest.sweep.lanes.compiler import compile_block  # noqa: PLC0415 - loads numba

        return compile_block(own, given)

    return _compile.Entry("take_block", hash_lanes(), compile_for)


class LaneShape(NamedTuple):
    varied: frozenset[str]
    constants: frozenset[str]
    has_own_columns: bool
    read: frozenset[str]


def locate_lane_formula(
    policy: Policy,
    columns: tuple[str, ...],
    varied: frozenset[str],
    asked: frozenset[str],
    read: frozenset[str],
    *,
    has_own_columns: bool,
) -> int:
    numbered = number_elements(policy.settings())
    constants = {name for name, each in numbered.items() if each in (0, 1)} - asked
    shape = LaneShape(varied, frozenset(constants), has_own_columns, read)

    def write(memory: type | None, _: CodeText) -> list[str]:
        return write_lane_formula(policy, columns, memory, shape)

    recipe = engine.make_recipe(policy, columns, write, "lanes")
    records = {"MarginRules": MarginRules, "AccountView": AccountView}
    return engine.find_address(recipe, KINDS, records, has_counts=False)


def write_lane_formula(
    policy: Policy,
    columns: tuple[str, ...],
    memory: type | None,
    shape: LaneShape,
) -> list[str]:
    inside = "seen[{}]".format if shape.has_own_columns else "seen_{}".format
    prices, settings = range(len(BAR_FIELDS) - 1), number_elements(policy.settings())
    given = [
        repr(each)
        if name in shape.constants
        else engine.read_parameter(f"params[{k * LANES}]", each)
        for k, (name, each) in enumerate(settings.items())
    ]
    shared = [f"shared_{name.replace('.', '_at_')}" for name in settings]
    hoisted = [f"    {name} = {each}" for name, each in zip(shared, given, strict=True)]
    hoisted += [f"    bar_{k} = bar_numbers[{k}]" for k in prices]
    if not shape.has_own_columns:
        hoisted += [f"    seen_{k} = seen[{k * LANES}]" for k in range(len(columns))]
    margin = dict.fromkeys(LEVELS, "(0.0,)")
    margin |= {name: "False" if name.startswith("is_") else "0.0" for name in engine.MARGIN_NUMBERS}
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
        settings=engine.write_settings(
            [
                engine.read_parameter(f"params[{at_row(k)}]", each)
                if name in shape.varied
                else shared[k]
                for k, (name, each) in enumerate(settings.items())
            ],
            policy,
        ),
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
