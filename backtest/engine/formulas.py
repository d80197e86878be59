"""The formula of each policy, as code that the compiled loop calls by its address."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, core
from backtest import policies as p
from backtest._compile.bytecode import (
    CodeText,
    describe_function,
    describe_value,
    is_written_by_user,
    join_texts,
)
from backtest.engine.compiler import compile_part, hash_rules
from backtest.engine.loop import N_SHOWN, PART, SETTING, WHOLE, Deciders
from backtest.engine.policies import list_rules
from backtest.margin import LEVELS
from backtest.policies import Policy, find_fields
from backtest.policies.policy import BAR_FIELDS


class Recipe(NamedTuple):
    name: str
    text: str
    rule: Any
    margin_rule: Any
    memory: type | None
    names: frozenset[str]
    is_complete: bool


def make_recipe(
    policy: Policy,
    columns: tuple[str, ...],
    write: Callable[[type | None, CodeText], list[str]],
    prefix: str,
) -> Recipe:
    rule, margin_rule = p.formula_for(policy, columns), p.margin_formula_for(policy, columns)
    start = p.start_memory(policy)
    memory = None if start is None else type(start)
    code = describe_function(rule, {})
    if margin_rule is not None:
        code = join_texts(code, describe_function(margin_rule, {}))
    fields = [f"    {name}: float" for name in policy.settings()] or ["    nothing: float"]
    lines = ["class Bar(NamedTuple):", *(f"    {name}: float" for name in (*BAR_FIELDS, *columns))]
    lines += ["", "class Params(NamedTuple):", *fields, "", *write(memory, code)]
    text = "\n".join(lines) + "\n"
    slots = describe_value(memory, {}).text
    is_of_user = any(map(is_written_by_user, list_rules(policy, columns)))
    marks = [type(policy).__qualname__]
    if is_of_user:
        marks.append(_compile.read_checks())
    if type(policy).__module__ not in sys.modules:  # pickled by value: of no use to others
        marks.append("by value")
    name = f"{prefix}_{core.hash_texts(text, slots, code.text, *marks)}"
    return Recipe(name, text, rule, margin_rule, memory, code.names, code.is_complete)


def may_refer_to(code: CodeText | Recipe, names: frozenset[str]) -> bool:
    return bool(code.names & names) or not code.is_complete


class Place(NamedTuple):
    head: Sequence[str]
    settings: Sequence[str]
    bar: Sequence[str]
    account: Sequence[str]
    end: Sequence[str]
    also: Sequence[str] = ()
    slot: Callable[[int], str] = "memory[{}]".format
    depth: int = 1


def write_decide(memory: type | None, place: Place) -> list[str]:
    slots = [place.slot(k) for k in range(len(getattr(memory, "_fields", ())))]
    call = ["leverage = 1.0 * rule(settings, bar, account)"]
    if memory is not None:
        call = [
            f"before = Memory({', '.join(slots)})",
            "leverage, after = rule(settings, bar, account, before)",
            f"if len(after) != {len(slots)}:",
            "    raise ValueError('a memory must keep its length')",
            "leverage = 1.0 * leverage",
        ]
    body = [
        *place.account,
        f"bar = Bar({', '.join(place.bar)})",
        f"settings = Params({', '.join(place.settings or ['0.0'])})",
        *call,
        *(f"{slot} = 1.0 * after[{k}]" for k, slot in enumerate(slots)),
        *place.also,
    ]
    return [*place.head, *("    " * place.depth + line for line in body), *place.end]


def read_parameter(text: str, value: object) -> str:
    if isinstance(value, bool):
        return f"({text} != 0.0)"
    if isinstance(value, int):
        return f"int({text})"
    return repr(value) if isinstance(value, str) else text


TABLE = frozenset({"venue"})
OF_MARGIN = frozenset({"*", "maintenance", "margin_ratio", "liquidation_price"})
"""Fields of the account for which the requirement of a close is computed."""
MARGIN_NUMBERS = (
    "close_fee", "taker", "size", "setting", "is_inverse", "is_isolated", "is_valued_at_entry",
    "multiplier", "initial_multiplier",
)  # fmt: skip
KINDS = (*["pointer"] * 7, *["whole"] * 4)
"""What the formula of a run takes."""

COUNTER = itertools.count()

_kept: dict[str, int] = {}
_refused: dict[str, Exception] = {}


def find_address(recipe: Recipe, kinds: tuple[str, ...], *, has_counts: bool) -> int:
    """Return the address of a formula, compiled if no folder has it; it stays valid.

    What numba raised for a formula is raised again without another attempt.
    """
    with _compile.COMPILER_LOCK:
        if not recipe.is_complete:  # the name does not tell all of its code
            recipe = recipe._replace(name=f"{recipe.name}_{next(COUNTER)}")
        if recipe.name in _kept:
            return _kept[recipe.name]
        if recipe.name in _refused:
            raise _refused[recipe.name].with_traceback(None)
        name = f"{recipe.name}-{hash_rules()}"
        named = recipe._replace(name=name)
        compile_now = functools.partial(compile_part, named, kinds, has_counts=has_counts)
        try:
            found = _compile.load_or_compile(name, compile_now, is_kept=recipe.is_complete)
        except Exception as error:
            _refused[recipe.name] = error
            raise
        _kept[recipe.name] = found.address
        return found.address


class Formula(NamedTuple):
    """Where a formula is, and what the loop prepares for it: the table, the account, the bar."""

    address: int
    has_table: bool
    account: int
    has_bar: bool


def compile_formula(policy: Policy, columns: tuple[str, ...], width: int) -> Formula:
    write = functools.partial(write_formula_part, policy, columns, width)
    recipe = make_recipe(policy, columns, write, "portfolio_policy")
    has_table = may_refer_to(recipe, TABLE)
    address = find_address(recipe, KINDS, has_counts=has_table)
    rules = [each for each in (recipe.rule, recipe.margin_rule) if each is not None]
    return Formula(
        address,
        has_table,
        max(map(find_wanted, rules)),
        not all(find_fields(each, 1) <= {*columns} for each in rules),
    )


def write_settings(texts: Sequence[str], policy: Policy) -> list[str]:
    """Return what stands for each setting of a policy, given that of each number."""
    left = iter(texts)
    return [
        f"({', '.join(next(left) for _ in value)},)" if isinstance(value, tuple) else next(left)
        for value in policy.settings().values()
    ]


def find_wanted(rule: Callable[..., Any]) -> int:
    read = find_fields(rule, 2)
    return (WHOLE if read & OF_MARGIN else PART) if read else 0


def write_formula_part(
    policy: Policy, columns: tuple[str, ...], width: int, memory: type | None, code: CodeText
) -> list[str]:
    width = width if may_refer_to(code, TABLE) else 0
    numbered = p.number_elements(policy.settings())
    for name, each in numbered.items():  # choices that only indicators read make no other formula
        if isinstance(each, str) and not may_refer_to(code, frozenset({name})):
            numbered[name] = 0.0
    bar = ["time / 1e9", *(f"seen[{k}]" for k in range(len(BAR_FIELDS) - 1))]
    view = [f"shown[{k}]" for k in range(N_SHOWN)]
    table = [f"{name}=table[{k * width}:{k * width} + count]" for k, name in enumerate(LEVELS)]
    if width == 0:  # the formula does not read it
        table = [f"{name}=(0.0,)" for name in LEVELS]
    numbers = [
        f"{name}=margin[{k}]" + (" != 0.0" if name.startswith("is_") else "")
        for k, name in enumerate(MARGIN_NUMBERS)
    ]
    place = Place(
        head=[
            "def decide(",
            "    shown, seen, params, columns, memory, margin, levels, count, time, local, length",
            "):",
            *([f"    table = carray(levels, ({len(LEVELS) * width},))"] if width else []),
        ],
        settings=write_settings(
            [read_parameter(f"params[{k}]", x) for k, x in enumerate(numbered.values())], policy
        ),
        bar=[*bar, *(f"columns[{k} * length + local]" for k in range(len(columns)))],
        account=[
            f"venue = MarginRules({', '.join([*table, *numbers])})",
            f"account = AccountView({', '.join(view)}, venue)",
        ],
        also=[f"shown[{SETTING}] = 1.0 * margin_rule(settings, bar, account)"]
        if p.sets_margin(policy)
        else [],
        end=["    return leverage"],
    )
    return write_decide(memory, place)


def refuse_of_user(policy: Policy, columns: tuple[str, ...]) -> None:
    if any(map(is_written_by_user, list_rules(policy, columns))):
        raise TypeError("whole numbers beyond 64 bits are not supported in compiled code")


def bind_compiled(
    deciders: Deciders,
    policies: list[tuple[Policy, tuple[str, ...]]],
    *,
    call_back: Callable[..., int] | None = None,
    has_orders: bool = False,
    has_overflowed: bool = False,
) -> Deciders:
    """Return the policies by address; ``call_back`` gives that of one which stays in Python.

    So do those that order options, if ``has_orders``, and those of users whose whole numbers went
    beyond 64 bits, if one ``has_overflowed``; else each that numba refuses.
    """
    addresses, wants = deciders.addresses.copy(), np.zeros((3, len(deciders.addresses)), np.int64)
    for i, (policy, columns) in enumerate(policies):
        refusal, called = None, has_orders and p.trades_options(policy)
        formula: Any
        try:
            if has_overflowed:
                refuse_of_user(policy, columns)
            formula = None if called else compile_formula(policy, columns, deciders.width)
        except Exception as error:  # numba raises what it likes; no policy runs here
            if call_back is None:
                raise
            formula, refusal = None, error
        if formula is None and call_back is not None:
            address = call_back(refusal, deciders, policy, columns, i)
            rules = list_rules(policy, columns)
            account = WHOLE if called else max(PART, *map(find_wanted, rules))  # errors show a part
            formula = Formula(address, has_table=False, account=account, has_bar=True)
        addresses[i] = formula.address
        wants[:, i] = formula.has_table, formula.account, formula.has_bar
    return deciders._replace(
        addresses=addresses,
        wants_table=wants[0],
        wants_account=wants[1],
        wants_bar=wants[2],
        methods=0,
    )
