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
    ACCOUNT,
    BAR,
    CodeText,
    describe_function,
    describe_value,
    is_written_by_user,
    join_texts,
)
from backtest.engine.compiler import compile_part, hash_rules
from backtest.engine.policies import list_rules
from backtest.engine.shown import MARGIN_NUMBERS, N_SHOWN, PART, SETTING, WHOLE, Deciders
from backtest.margin import LEVELS
from backtest.policies import Policy, find_fields
from backtest.policies.policy import BAR_FIELDS


class Recipe(NamedTuple):
    """The text that calls the formulas of a policy, named by all that it depends on.

    ``names`` are those in the code of the formulas. ``is_complete`` says whether the name tells all
    of their code.
    """

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
    """Return the source text of a function that calls a policy's formula, and a name for it.

    The text is that of ``decide``, the function that is compiled, after the types Bar and Params
    that it uses. ``write`` returns the lines of ``decide``, given the type of the policy's memory
    and the code of its formulas.

    The name is how code that was compiled before is found. So it is a hash of all that decides the
    machine code: the text, the fields of the memory, the code of the formulas, and marks. It begins
    with ``prefix``, which says what the function is for.
    """
    # The formulas of the leverage and, if there is one, of the venue leverage.
    rule = p.formula_for(policy, columns)
    margin_rule = p.margin_formula_for(policy, columns)
    start = p.start_memory(policy)
    memory = None if start is None else type(start)
    code = describe_function(rule, {})
    if margin_rule is not None:
        code = join_texts(code, describe_function(margin_rule, {}))

    # The text: what a formula gets as bar and settings, and then ``decide``. A class needs a field,
    # also that of a policy without settings.
    fields_of_bar = [*BAR_FIELDS, *columns]
    fields_of_settings = [*policy.settings()] or ["nothing"]
    lines = ["class Bar(NamedTuple):"]
    lines += [f"    {name}: float" for name in fields_of_bar]
    lines += ["", "class Params(NamedTuple):"]
    lines += [f"    {name}: float" for name in fields_of_settings]
    lines += ["", *write(memory, code)]
    text = "\n".join(lines) + "\n"

    # Marks: what decides the machine code, or who may use it, and is not in the texts. They are the
    # class, the checks that formulas of users are compiled with, and whether the class is one that
    # no other process can import.
    marks = [type(policy).__qualname__]
    if any(map(is_written_by_user, list_rules(policy, columns))):
        marks.append(_compile.read_checks())
    if type(policy).__module__ not in sys.modules:  # pickled by value: of no use to others
        marks.append("by value")
    memory_text = describe_value(memory, {}).text
    return Recipe(
        name=f"{prefix}_{core.hash_texts(text, memory_text, code.text, *marks)}",
        text=text,
        rule=rule,
        margin_rule=margin_rule,
        memory=memory,
        names=code.names,
        is_complete=code.is_complete,
    )


def may_refer_to(code: CodeText | Recipe, names: frozenset[str]) -> bool:
    return bool(code.names & names) or not code.is_complete


class Place(NamedTuple):
    """Where ``decide`` stands: its head, what it reads, how deep, and what comes after it.

    ``settings``, ``bar`` and ``account`` are texts of code; ``slot`` is that of a slot of the
    memory.
    """

    head: Sequence[str]
    settings: Sequence[str]
    bar: Sequence[str]
    account: Sequence[str]
    end: Sequence[str]
    also: Sequence[str] = ()
    slot: Callable[[int], str] = "memory[{}]".format
    depth: int = 1


def write_decide(memory: type | None, place: Place) -> list[str]:
    """Return the lines of ``decide``, the function that calls a policy's formula, ``rule``.

    Without a memory they are, between the head and the end that ``place`` gives::

        bar = Bar(<texts of place.bar>)
        settings = Params(<texts of place.settings>)
        leverage = 1.0 * rule(settings, bar, account)

    ``memory`` is the type of the policy's memory, or None. Each of its numbers has a slot, which is
    read before the call and written after it.
    """
    slots = [place.slot(k) for k in range(len(getattr(memory, "_fields", ())))]
    if memory is None:
        call = ["leverage = 1.0 * rule(settings, bar, account)"]
    else:
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
    indent = "    " * place.depth
    return [*place.head, *(f"{indent}{line}" for line in body), *place.end]


def read_parameter(text: str, value: object) -> str:
    """Return source code that reads a setting from a number, with its own type.

    ``text`` is the code of the number, ``value`` an example of the setting: so ``params[0]``
    becomes ``int(params[0])`` for a whole number, and ``(params[0] != 0.0)`` for a flag. A text is
    no number, and stands in the code as it is.
    """
    if isinstance(value, bool):
        return f"({text} != 0.0)"
    if isinstance(value, int):
        return f"int({text})"
    if isinstance(value, str):
        return repr(value)
    return text


TABLE = frozenset({"venue"})
OF_MARGIN = frozenset({"*", "maintenance", "margin_ratio", "liquidation_price"})
"""Fields of the account for which the requirement of a close is computed."""
KINDS = (*["pointer"] * 7, *["whole"] * 4)
"""What the formula of a run takes."""

COUNTER = itertools.count()

_addresses: dict[str, int] = {}
_refusals: dict[str, Exception] = {}


def find_address(recipe: Recipe, kinds: tuple[str, ...], *, has_counts: bool) -> int:
    """Return the address of a compiled formula; it is compiled if it was not before.

    The address stays valid. A formula that numba refused raises the same error again, without
    another attempt. ``kinds`` are the types of its arguments.
    """
    with _compile.COMPILER_LOCK:
        if not recipe.is_complete:  # the name does not tell all of its code
            recipe = recipe._replace(name=f"{recipe.name}_{next(COUNTER)}")
        if recipe.name in _addresses:
            return _addresses[recipe.name]
        if recipe.name in _refusals:
            raise _refusals[recipe.name].with_traceback(None)

        name = f"{recipe.name}-{hash_rules()}"
        named = recipe._replace(name=name)
        compile_now = functools.partial(compile_part, named, kinds, has_counts=has_counts)
        try:
            loaded = _compile.load_or_compile(name, compile_now, is_kept=recipe.is_complete)
        except Exception as error:
            _refusals[recipe.name] = error
            raise
        _addresses[recipe.name] = loaded.address
        return loaded.address


class Formula(NamedTuple):
    """Where a formula is, and what the loop prepares for it: the table, the account, the bar."""

    address: int
    has_table: bool
    account: int
    has_bar: bool


def compile_formula(policy: Policy, columns: tuple[str, ...], width: int) -> Formula:
    """Return the compiled formula of a policy, and what the loop must prepare before it is called.

    ``columns`` are the names of what the policy observes, ``width`` is how many brackets the
    largest margin table has. Margin table, fields of the account and bar are prepared only for a
    formula that reads them.
    """
    write = functools.partial(write_formula_part, policy, columns, width)
    recipe = make_recipe(policy, columns, write, "portfolio_policy")
    has_table = may_refer_to(recipe, TABLE)
    address = find_address(recipe, KINDS, has_counts=has_table)

    # A formula takes itself, the bar and the account: columns are fields of the bar, by name.
    rules = [rule for rule in (recipe.rule, recipe.margin_rule) if rule is not None]
    reads_columns_alone = all(find_fields(rule, BAR) <= {*columns} for rule in rules)
    return Formula(
        address=address,
        has_table=has_table,
        account=max(map(find_wanted, rules)),
        has_bar=not reads_columns_alone,
    )


def write_settings(texts: Sequence[str], policy: Policy) -> list[str]:
    """Return source code for each setting of a policy, from that of each of its numbers.

    A setting that is a tuple takes as many of ``texts`` as it has elements: ``["params[0]",
    "params[1]"]`` becomes ``["(params[0], params[1],)"]`` for a pair.
    """
    left = iter(texts)
    settings = []
    for value in policy.settings().values():
        if isinstance(value, tuple):
            elements = [next(left) for _ in value]
            settings.append(f"({', '.join(elements)},)")
        else:
            settings.append(next(left))
    return settings


def find_wanted(rule: Callable[..., Any]) -> int:
    """Return how much of the account a rule reads: WHOLE, PART or 0 for nothing."""
    fields = find_fields(rule, ACCOUNT)
    if not fields:
        return 0
    return WHOLE if fields & OF_MARGIN else PART


def write_formula_part(
    policy: Policy, columns: tuple[str, ...], width: int, memory: type | None, code: CodeText
) -> list[str]:
    """Return the source lines of ``decide``, which the loop of a run calls for a policy's decision.

    For a policy with one setting and one column they are like these::

        def decide(shown, seen, params, columns, ..., local, length):
            venue = MarginRules(...)
            account = AccountView(shown[0], shown[1], ..., venue)
            bar = Bar(time / 1e9, seen[0], ..., columns[0 * length + local])
            settings = Params(params[0])
            leverage = 1.0 * rule(settings, bar, account)
            return leverage

    The arguments of ``decide`` are those that ``ask_address`` of :func:`.compiler.make_ask` hands
    over, in its order::

        shown          the fields of the account that a policy sees, in the order of AccountView
        seen           the fields of the bar, but its time
        params         the numbers of ``policy.settings()``, in their order
        columns        the columns of the policy, one after another, each ``length`` long
        memory         the numbers of its memory, read and written
        margin         the numbers of the margin rules, in the order of MARGIN_NUMBERS
        levels         the columns of the margin table, each ``width`` long, of which ``count`` hold
        time, local    when the bar opens, ns; the row of the columns that is seen

    A venue leverage that the policy decides is written into ``shown``, where the loop reads it.
    """
    # A formula that cannot name the margin table is written without one.
    if not may_refer_to(code, TABLE):
        width = 0
    head = [
        "def decide(",
        "    shown, seen, params, columns, memory, margin, levels, count, time, local, length",
        "):",
    ]
    if width > 0:
        head.append(f"    table = carray(levels, ({len(LEVELS) * width},))")
    also = []
    if p.sets_margin(policy):
        also.append(f"shown[{SETTING}] = 1.0 * margin_rule(settings, bar, account)")

    view = [f"shown[{k}]" for k in range(N_SHOWN)]
    place = Place(
        head=head,
        settings=write_settings(write_parameters(policy, code), policy),
        bar=[
            "time / 1e9",
            *(f"seen[{k}]" for k in range(len(BAR_FIELDS) - 1)),
            *(f"columns[{k} * length + local]" for k in range(len(columns))),
        ],
        account=[
            f"venue = MarginRules({', '.join(write_margin(width))})",
            f"account = AccountView({', '.join(view)}, venue)",
        ],
        also=also,
        end=["    return leverage"],
    )
    return write_decide(memory, place)


def write_parameters(policy: Policy, code: CodeText) -> list[str]:
    """Return the text of each number of the settings of a policy."""
    texts = []
    for k, (name, value) in enumerate(p.number_elements(policy.settings()).items()):
        # A choice that only indicators read makes no other formula.
        if isinstance(value, str) and not may_refer_to(code, frozenset({name})):
            texts.append(read_parameter(f"params[{k}]", 0.0))
        else:
            texts.append(read_parameter(f"params[{k}]", value))
    return texts


def write_margin(width: int) -> list[str]:
    """Return source code for each field of the margin rules, such as ``"taker=margin[1]"``.

    ``width`` is how many brackets the table has room for, 0 if the formula reads no table. A column
    of the table is a part of one array: the first is ``"floors=table[0:0 + count]"``.
    """
    fields = []
    for k, name in enumerate(LEVELS):
        level = f"table[{k * width}:{k * width} + count]" if width > 0 else "(0.0,)"
        fields.append(f"{name}={level}")

    for k, name in enumerate(MARGIN_NUMBERS):
        number = f"margin[{k}] != 0.0" if name.startswith("is_") else f"margin[{k}]"
        fields.append(f"{name}={number}")
    return fields


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
    """Return the policies as the compiled loop asks them: each by the address of its formula.

    ``policies`` has each policy with the names of its columns. A policy stays in plain Python if it
    orders options (``has_orders`` allows it), if numba refuses it, or if a user wrote it and its
    whole numbers went beyond 64 bits (``has_overflowed``). The loop then calls it at the address
    that ``call_back`` returns. Without ``call_back``, a refusal is raised.
    """
    addresses = deciders.addresses.copy()
    wants_table = np.zeros(len(addresses), np.int64)
    wants_account = np.zeros(len(addresses), np.int64)
    wants_bar = np.zeros(len(addresses), np.int64)

    for i, (policy, columns) in enumerate(policies):
        formula = find_formula(
            deciders,
            policy,
            columns,
            i,
            call_back=call_back,
            orders_options=has_orders and p.trades_options(policy),
            has_overflowed=has_overflowed,
        )
        addresses[i] = formula.address
        wants_table[i] = formula.has_table
        wants_account[i] = formula.account
        wants_bar[i] = formula.has_bar
    return deciders._replace(
        addresses=addresses,
        wants_table=wants_table,
        wants_account=wants_account,
        wants_bar=wants_bar,
        methods=0,
    )


def find_formula(
    deciders: Deciders,
    policy: Policy,
    columns: tuple[str, ...],
    i: int,
    *,
    call_back: Callable[..., int] | None,
    orders_options: bool,
    has_overflowed: bool,
) -> Formula:
    """Return the compiled formula of policy i or, if it has none, a call of its plain Python.

    A policy has none if numba refuses it, for whatever reason; if it orders options, as a formula
    returns a leverage alone; or if its whole numbers went beyond 64 bits before. Then ``call_back``
    is given the error, or None, and returns the address of a function that calls the plain policy.
    The arguments are those of :func:`bind_compiled`, for one policy.
    """
    refusal: Exception | None = None
    try:
        if has_overflowed:
            refuse_of_user(policy, columns)
        if not orders_options:
            return compile_formula(policy, columns, deciders.width)
    except Exception as error:  # numba raises what it likes; no policy runs here
        if call_back is None:
            raise
        refusal = error

    # Here the formula was refused, or the policy orders options.
    if call_back is None:
        raise TypeError("a policy that orders options is called back, never compiled")
    address = call_back(refusal, deciders, policy, columns, i)
    account = WHOLE
    if not orders_options:
        account = find_wanted_back(policy, columns)
    return Formula(address, has_table=False, account=account, has_bar=True)


def find_wanted_back(policy: Policy, columns: tuple[str, ...]) -> int:
    """Return how much of the account a policy in plain Python reads, at least PART.

    The error of such a policy shows the account, so it must be there also where no rule reads it.
    """
    rules = list_rules(policy, columns)
    return max(PART, *map(find_wanted, rules))
