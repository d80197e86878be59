"""Compile the rules and the loop, once for all accounts, and a formula for each policy.

The rules are compiled twice, into two sets of twins, which do not call each other. Those of
:func:`compile_scalar_rules` are the rules of one position, inlined for formulas of policies, whose
public functions they stand for. Those of :func:`compile_account_rules` are all rules, called by the
loop, where inlining all would cost minutes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from backtest import _compile, core
from backtest import account as a
from backtest.account import bar, quiet  # and with them the modules of all rules
from backtest.account.records import FLAGS, NUMBERS, InstrumentRules
from backtest.core.structs import view_numbers
from backtest.engine import closes, held_closes, loop, shown, tape
from backtest.engine.shown import MARGIN_NUMBERS
from backtest.margin import (
    LEVELS,
    MarginRules,
    brackets,
    option_kernels,
    option_values,
    portfolio_kernels,
    strategy_kernels,
)
from backtest.margin import functions as margin
from backtest.options import implied_kernels, pricing
from backtest.options.pricing import SIGNS
from backtest.policies import view
from backtest.results import tally
from backtest.venue import contract_value

CORE = (
    contract_value, brackets, margin, a.position, a.orders, a.liquidation, a.events, tally, view,
)  # fmt: skip
"""Rules of one position: inlined into what calls them."""
MODULES = (
    portfolio_kernels, core.elementary, core.black_kernels, option_values, strategy_kernels,
    option_kernels, a.money, a.records, a.options, a.balance, a.forced_options, a.option_pool,
    a.order_limits, a.cut_counts, a.fills, a.limit_orders, a.payments, a.margin_calls,
    a.margin_moves, a.causes, a.pool_liquidation, a.ruin, a.equity_floors, a.exits, a.price_walk,
    bar, quiet, closes, shown, tape, held_closes, loop,
)  # fmt: skip
"""Rules of the account, and the loop."""


PUBLIC = (
    (margin.maintenance, "scalar_maintenance"),
    (margin.largest_notional, "scalar_largest_notional"),
    (margin.survivable_notional, "scalar_survivable_notional"),
    (margin.liquidation_price, "scalar_liquidation_price"),
    (margin.bankruptcy_price, "scalar_bankruptcy_price"),
)
OPTION_FUNCTIONS: tuple[tuple[Any, str], ...] = (
    (pricing.price, "scalar_price"),
    (pricing.greeks, "scalar_greeks"),
    (pricing.implied_volatility, "scalar_implied"),
    (pricing.bs, "scalar_bs"),
)
MATH = ("exp", "log", "power", "mills_ratio", "normal_density", "normal_cdf")
REPLACING = {
    "natural_exp": "exp", "natural_log": "log", "round_to": "round_scaled",
    "choose_larger": "larger", "choose_smaller": "smaller", "find_sign": "sign",
    "choose_by": "pick", "keep_within": "bound",
}  # fmt: skip
"""What formulas call in place of functions of math and NumPy, with its scalar function."""
PUBLIC_NAMES = frozenset(function.__name__ for function, _ in PUBLIC)


@functools.cache
def compile_scalar_rules() -> dict[int, Any]:
    """Compile the rules of one position, and tell numba what formulas of users may call.

    Returns *twins*: compiled functions by the ``id`` of the plain function that each stands for.
    These are inlined into what calls them.

    Formulas of users may also call public functions, which take arrays and check their arguments.
    Compiled code needs neither. So numba is told, once for the whole process, what to compile in
    place of each: for functions of margin its scalar rule, for those of options and mathematics a
    kernel. The tables above (PUBLIC, OPTION_FUNCTIONS, MATH, REPLACING) pair them.
    """
    twins = list_replacements()
    _compile.compile_rules(CORE, twins, left_out=PUBLIC_NAMES, inlines_all=True)

    # Functions of margin. Their scalar rules are among the twins.
    for public, scalar in PUBLIC:
        compiled = twins[id(vars(margin)[scalar])]
        _compile.register_overload(public, compiled, replaced=REPLACED, literals=LITERALS)

    # Functions of options and of mathematics have kernels of their own, no rules of an account.
    kernels = _compile.compile_functions(implied_kernels)
    for public, scalar in OPTION_FUNCTIONS:
        _compile.register_overload(public, kernels[scalar], replaced=REPLACED, literals=LITERALS)

    elementary = core.elementary
    for name in MATH:
        _compile.register_overload(getattr(elementary, name), kernels[name], is_inlined=True)
    for name, scalar in REPLACING.items():
        _compile.register_overload(getattr(elementary, name), kernels[scalar], is_inlined=True)
    _compile.register_power(elementary.raise_to, kernels["power"])
    return twins


def list_replacements() -> dict[int, Any]:
    """Return compiled functions whose text differs from the plain one, by ``id`` of the plain.

    A plain floor first asks whether its number is finite, and a plain choice whether it is of
    arrays. Compiled code needs neither: it has floats alone, and floors an infinity to itself.
    """
    return {
        id(a.orders.floor): _compile.jit(lambda size: np.floor(size), forceinline=True),  # noqa: PLW0108 - numba compiles it
        id(brackets.choose): _compile.jit(
            lambda condition, yes, no: yes if condition else no, forceinline=True
        ),
    }


REPLACED = {"multiplier": "(venue.multiplier if multiplier is None else multiplier)"}
LITERALS: dict[str, tuple[str, dict[str, Any]]] = {
    "kind": ("sign", SIGNS),
    "settlement": ("is_coin", {"cash": False, "coin": True}),
}


def compile_part(recipe: Any, kinds: tuple[str, ...], *, has_counts: bool) -> _compile.ObjectFile:
    """Return the compiled formula of a policy, as an object file.

    ``recipe`` has its text, its name and the functions that it calls; ``kinds`` are the types of
    its arguments.
    """
    compile_scalar_rules()  # lets formulas call public functions
    formulas = {}
    if recipe.rule is not None:
        formulas["rule"] = recipe.rule
    if recipe.margin_rule is not None:
        formulas["margin_rule"] = recipe.margin_rule

    names = {"MarginRules": MarginRules, "AccountView": view.AccountView, "Memory": recipe.memory}
    return _compile.compile_text(
        recipe.name, recipe.text, formulas, names, kinds, has_counts=has_counts
    )


def compile_loop(
    name: str, object_name: str, arguments: tuple[Any, ...], *, has_parts: bool
) -> _compile.ObjectFile:
    """Return the object of a function of the loop; ``has_parts`` if it may hold options."""
    compile_account_rules(has_parts=has_parts)
    module = ENTRIES[name]
    space = SPACES[has_parts][module]
    return _compile.compile_twin(getattr(module, name), space, object_name, arguments)


ENTRIES = {"simulate_batch": loop, "fill_closes": held_closes}
"""The functions that Python calls compiled, each with its module."""
SPACES: dict[bool, dict[ModuleType, dict[str, Any]]] = {}
"""The globals of compiled modules, by whether the account may hold options."""


@functools.cache
def compile_account_rules(*, has_parts: bool) -> dict[int, Any]:
    """Compile all rules of the account and the loop, and return their twins by identity.

    Writes the globals of the compiled modules into SPACES: entries are compiled in them. Without
    parts, no account may hold options, and their functions return constants. The first twins are
    functions whose compiled text is another one than the plain.
    """
    jit = _compile.jit
    return_always = _compile.return_always
    pick = jit(portfolio_kernels.pick_rules, forceinline=True)
    twins = list_replacements() | {
        id(a.records.write_tuple): jit(return_always(None), forceinline=True),
        id(loop.locate): _compile.locate_function,
        id(loop.ask): jit(make_ask(), forceinline=True),
        id(portfolio_kernels.ask_own): jit(return_always(0.0), forceinline=True),
        # not inside a function, whose stack would be gone
        id(a.records.by_reference): _compile.share_record,
        id(view_numbers): _compile.view_memory,
        id(portfolio_kernels.pick_rules): pick,
        id(a.records.pick_instrument): jit(write_pick(pick), forceinline=True),
    }

    SPACES[has_parts] = _compile.compile_rules(
        (*CORE, *MODULES), twins, left_out=PUBLIC_NAMES, has_options=has_parts
    )
    return twins


def write_pick(pick_rules: Any) -> Callable[..., Any]:
    """Return ``pick_instrument`` as compiled code needs it: it builds the rules of one instrument.

    Plain code finds these rules as a record in ``terms.instruments``. Compiled code has arrays
    instead, a column for each number and flag. So the function is written as a text that names
    every field: ``InstrumentRules(lot=terms.numbers[i, 0], ..., has_stop=terms.flags[i, 0] != 0,
    ...)``.
    """
    fields = []
    for column, name in enumerate(NUMBERS):
        fields.append(f"{name}=terms.numbers[i, {column}]")
    for column, name in enumerate(FLAGS):
        fields.append(f"{name}=terms.flags[i, {column}] != 0")

    # The two that are neither numbers nor flags.
    fields.append("margin=pick_rules(terms.rules.brackets, i)")
    fields.append("liquidation_mode=terms.modes[i]")

    text = f"def pick_instrument(terms, i):\n    return InstrumentRules({', '.join(fields)})\n"
    names = {"pick_rules": pick_rules, "InstrumentRules": InstrumentRules}
    module = _compile.import_source("pick_instrument", text, names)
    pick: Callable[..., Any] = module.pick_instrument
    return pick


ARRAYS = (
    (0, None),  # shown
    (1, None),  # bar
    (2, 3),  # params, and params_at[i]
    (4, 5),  # columns, and columns_at[i]
    (6, 7),  # memory, and memory_at[i]
    (8, None),  # margin
    (9, None),  # levels
)
"""The arrays among the arguments of the call in :func:`make_ask`, which follow the address.

Each is a pair: the place of the array, and the place of the number that says at which of its
numbers the part of the policy begins; None if it begins with the array.
"""

FLOORS = LEVELS.index("floors")
CAPS = LEVELS.index("caps")
RATES = LEVELS.index("rates")
AMOUNTS = LEVELS.index("amounts")
LEVERAGES = LEVELS.index("leverages")
"""Columns of a margin table in ``deciders.levels``, one after another."""

CLOSE_FEE = MARGIN_NUMBERS.index("close_fee")
TAKER = MARGIN_NUMBERS.index("taker")
SIZE = MARGIN_NUMBERS.index("size")
SETTING = MARGIN_NUMBERS.index("setting")
IS_INVERSE = MARGIN_NUMBERS.index("is_inverse")
IS_ISOLATED = MARGIN_NUMBERS.index("is_isolated")
IS_VALUED_AT_ENTRY = MARGIN_NUMBERS.index("is_valued_at_entry")
MULTIPLIER = MARGIN_NUMBERS.index("multiplier")
INITIAL_MULTIPLIER = MARGIN_NUMBERS.index("initial_multiplier")
"""Places of the other numbers of margin rules in ``deciders.margin``."""


def write_margin_rules(deciders: Any, tables: Any, i: int) -> int:
    """Write the margin rules of instrument i where the formula of its policy reads them.

    Returns how many brackets they have. ``deciders.levels`` gets the columns of the margin table
    one after another, each ``width`` long. ``deciders.margin`` gets the other numbers, a flag as 1
    or 0.
    """
    levels = deciders.levels
    width = deciders.width
    n_levels: int = tables.counts[i]
    for k in range(n_levels):
        levels[FLOORS * width + k] = tables.floors[i, k]
        levels[CAPS * width + k] = tables.caps[i, k]
        levels[RATES * width + k] = tables.rates[i, k]
        levels[AMOUNTS * width + k] = tables.amounts[i, k]
        levels[LEVERAGES * width + k] = tables.leverages[i, k]

    numbers = deciders.margin
    numbers[CLOSE_FEE] = tables.close_fees[i]
    numbers[TAKER] = tables.takers[i]
    numbers[SIZE] = tables.sizes[i]
    numbers[SETTING] = tables.settings[i]
    numbers[IS_INVERSE] = 1.0 if tables.are_inverse[i] else 0.0
    numbers[IS_ISOLATED] = 1.0 if tables.are_isolated[i] else 0.0
    numbers[IS_VALUED_AT_ENTRY] = 1.0 if tables.are_valued_at_entry[i] else 0.0
    numbers[MULTIPLIER] = tables.multipliers[i]
    numbers[INITIAL_MULTIPLIER] = tables.initial_multipliers[i]
    return n_levels


def make_ask() -> Any:
    """Return ``loop.ask`` for compiled code: it calls the formula of a policy by its address.

    The formula is a C function, ``decide`` of :func:`.formulas.write_formula_part`. It gets seven
    pointers to numbers, and then four whole numbers. Some arrays are shared by all policies, such
    as ``params``: the argument after it says at which number the part of policy i begins, and the
    pointer is to that (:data:`ARRAYS`).
    """
    call_formula = _compile.make_call("d", ARRAYS, n_numbers=4)
    write_rules = _compile.jit(write_margin_rules, forceinline=True)

    def ask_address(deciders: Any, terms: Any, _quotes: Any, i: int, time: int, local: int) -> Any:
        """Return the leverage that policy i decides at row ``local`` of its columns.

        What the loop shows a policy, ``shown`` and ``bar``, must be written before.
        """
        # Only policies that read rules of margin get them; a table of others has one level, which
        # they do not read. The overlay, the policy after those of the instruments, never gets any.
        n_levels = 1
        is_overlay = i == len(deciders.addresses) - 1
        if not is_overlay and deciders.wants_table[i] == 1:
            n_levels = write_rules(deciders, terms.rules.brackets, i)

        return call_formula(
            deciders.addresses[i],
            deciders.shown,
            deciders.bar,
            deciders.params,
            deciders.params_at[i],
            deciders.columns,
            deciders.columns_at[i],
            deciders.memory,
            deciders.memory_at[i],
            deciders.margin,
            deciders.levels,
            n_levels,
            time,
            local,
            deciders.lengths[i],
        )

    return ask_address


@functools.cache
def hash_rules() -> str:
    """Return a hash of all texts that decide what the compiled loop and formulas are."""
    modules = (*CORE, *MODULES, core.units, *_compile.list_sources(implied_kernels))
    here = Path(__file__)
    paths = [Path(str(module.__file__)) for module in dict.fromkeys(modules)]
    paths += [here, here.with_name("formulas.py")]
    texts = (path.read_text(encoding="utf-8") for path in paths)
    return core.hash_texts(*texts, *_compile.read_compiler())[:12]
