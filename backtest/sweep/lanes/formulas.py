"""The formula of each policy for all lanes, and the loop over lanes, compiled once for all.

The loop calls a formula once per bar and instrument, through its address.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backtest import _compile, core, engine
from backtest.margin import LEVELS
from backtest.policies import (
    AccountView,
    Combinator,
    Policy,
    find_fields,
    formula_of,
    number_elements,
)
from backtest.policies.policy import BAR_FIELDS
from backtest.sweep.lanes import closes, loop, quiet, rows, trades
from backtest.sweep.lanes.rows import HELD, LANES, N_POSITION

MODULES = (rows, quiet, trades, closes, loop)
KINDS = (*["pointer"] * 6, *["whole"] * 2)
"""What the formula of lanes takes."""


@functools.cache
def find_block() -> _compile.Entry:
    """Return the loop over lanes, under a hash of its sources and of the rules."""
    paths = [Path(str(module.__file__)) for module in MODULES]
    paths.append(Path(__file__))
    texts = (path.read_text(encoding="utf-8") for path in paths)
    own = core.hash_texts(*texts, engine.hash_rules())[:12]
    return _compile.Entry("simulate_block", own, compile_block)


def find_observed_texts(kind: type[Policy]) -> frozenset[str]:
    """Return the parameters of a policy that are texts, and that its formula never reads.

    Such a text only chooses what the policy observes, so sets that differ in it can share a
    formula. The answer is empty for a policy whose formula may read any text unseen: a combinator,
    one whose formula is made, and one whose formula calls a method or reads a property.
    """
    if issubclass(kind, Combinator) or hasattr(kind, "make_formula"):
        return frozenset()

    # The fields of the policy itself, the first argument of its formula. One that is no parameter
    # is a method or a property, which may read any.
    declared = kind.parameters()
    fields_read = find_fields(formula_of(kind), 0)
    if not fields_read <= declared.keys():
        return frozenset()
    texts = {name for name, parameter in declared.items() if isinstance(parameter.default, str)}
    return frozenset(texts - fields_read)


def list_numbers(policy: Policy) -> list[str]:
    """Return the names of the parameters of a policy that are numbers, in their order."""
    settings = number_elements(policy.settings())
    return [name for name, value in settings.items() if isinstance(value, int | float)]


def write_lane_formula(
    policy: Policy,
    columns: tuple[str, ...],
    varied: frozenset[str],
    swept: frozenset[str],
    fields_read: frozenset[str],
    *,
    has_own_columns: bool,
) -> engine.Recipe:
    """Return the text and the name of a function that decides for all lanes of an instrument.

    A lane is the account of one parameter set. The function reads what all lanes share, and then
    decides in a loop over lanes. Its text is like this one::

        def decide(target, params, seen, memory, shown, bar_numbers, count, time):
            shared_half_life = params[64]
            for lane in range(count):
                account = AccountView(...)
                bar = Bar(...)
                settings = Params(params[lane], shared_half_life)
                leverage = 1.0 * rule(settings, bar, account)
                target[lane] = leverage + target[64 + lane]

    Four sets of names decide it: the ``columns`` that the policy observes; the parameters that are
    ``varied`` over lanes, read in the loop; those that are ``swept``, as others are constants if
    they are 0 or 1; and ``fields_read``, those of the account that the policy reads.

    Its arguments are arrays of rows, with a number for each lane (:func:`make_ask`)::

        target         row 0: the leverage to write; row 1: 0, or NaN if the lane decides nothing
        params         a row for each number of ``policy.settings()``, in their order
        seen           a row for each column of the policy, at this bar
        memory         a row for each number of its memory, read and written
        shown          a row for each field of the account, in the order of AccountView
        bar_numbers    the fields of the bar, but its time: numbers that all lanes share
        count, time    how many lanes; when the bar opens, ns
    """
    # One formula serves all texts that it does not read.
    settings = dict(number_elements(policy.settings()))
    for name in find_observed_texts(type(policy)):
        settings[name] = ""

    # Parameters by lane are read in the loop; others are named before it.
    shared = {name: f"shared_{name.replace('.', '_at_')}" for name in settings}
    of_lane = []
    for k, (name, value) in enumerate(settings.items()):
        if name in varied:
            of_lane.append(engine.read_parameter(f"params[{at_row(k)}]", value))
        else:
            of_lane.append(shared[name])

    # The text around what the policy decides, its ``leverage``: before it, and after it.
    place = engine.Place(
        head=[
            "def decide(target, params, seen, memory, shown, bar_numbers, count, time):",
            f"    venue = MarginRules({write_venue()})",
            *write_shared(settings, shared, swept),
            *write_seen(columns, has_own_columns=has_own_columns),
            "    is_negative = False",
            "    for lane in range(count):",  # what follows is indented by 2 levels: ``depth``
        ],
        settings=engine.write_settings(of_lane, policy),
        bar=["time / 1e9", *name_bar(columns, has_own_columns=has_own_columns)],
        account=[f"account = AccountView({', '.join(list_shown(fields_read))}, venue)"],
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


def write_general_formula(
    policy: Policy, columns: tuple[str, ...], fields_read: frozenset[str], *, has_own_columns: bool
) -> engine.Recipe:
    """Return the recipe of the formula that serves every sweep of a policy: all numbers vary."""
    numbers = frozenset(list_numbers(policy))
    return write_lane_formula(
        policy,
        columns,
        varied=numbers,
        swept=numbers,
        fields_read=fields_read,
        has_own_columns=has_own_columns,
    )


def write_venue() -> str:
    """Return the arguments of margin rules that are empty: lanes show none."""
    arguments = dict.fromkeys(LEVELS, "(0.0,)")
    for name in engine.MARGIN_NUMBERS:
        arguments[name] = "False" if name.startswith("is_") else "0.0"
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def write_shared(
    settings: Mapping[str, Any], shared: Mapping[str, str], swept: frozenset[str]
) -> list[str]:
    """Return lines of code that read the parameters that lanes share, before the loop over lanes.

    ``settings`` are the parameters by name, with the values of one set: their kinds count.
    ``shared`` are the variables that the lines assign, by parameter. A parameter that is 0 or 1,
    and is not ``swept``, is written as a constant: so the compiler drops the branches that it rules
    out.
    """
    lines = []
    for k, (name, value) in enumerate(settings.items()):
        text = engine.read_parameter(f"params[{k * LANES}]", value)
        if value in (0, 1) and name not in swept:
            text = repr(value)
        lines.append(f"    {shared[name]} = {text}")
    return lines


def write_seen(columns: tuple[str, ...], *, has_own_columns: bool) -> list[str]:
    """Return lines that read the bar, and columns that all lanes share, before the loop."""
    lines = [f"    bar_{k} = bar_numbers[{k}]" for k in range(len(BAR_FIELDS) - 1)]
    if not has_own_columns:
        lines += [f"    seen_{k} = seen[{k * LANES}]" for k in range(len(columns))]
    return lines


def name_bar(columns: tuple[str, ...], *, has_own_columns: bool) -> list[str]:
    """Return where the fields of a bar but its time stand, and then its columns."""
    of_bar = [f"bar_{k}" for k in range(len(BAR_FIELDS) - 1)]
    of_columns = [f"seen_{k}" for k in range(len(columns))]
    if has_own_columns:
        of_columns = [f"seen[{at_row(k)}]" for k in range(len(columns))]
    return of_bar + of_columns


def list_shown(fields_read: frozenset[str]) -> list[str]:
    """Return where the fields of the account that a policy sees stand; 0 for one it never reads."""
    shown = []
    for k, name in enumerate(AccountView._fields[:-1]):
        shown.append(f"shown[{at_row(k)}]" if name in fields_read else "0.0")
    return shown


def locate_lane_formula(recipe: engine.Recipe) -> int:
    """Return the address of a formula of lanes, compiled if no folder has it."""
    return engine.find_address(recipe, KINDS, has_counts=False)


def is_formula_compiled(recipe: engine.Recipe) -> bool:
    """Return whether a folder has the formula of a recipe."""
    named = f"{recipe.name}-{engine.hash_rules()}"
    return recipe.is_complete and _compile.find_object(named) is not None


def at_row(k: int) -> str:
    """Return the text of the place of a lane in row k."""
    return f"np.uint64({k * LANES} + lane)"


def compile_block(own: str, given: tuple[Any, ...]) -> _compile.ObjectFile:
    """Return the compiled loop over lanes, an object file named ``own``.

    ``given`` are sample arguments of :func:`.simulate_block`: numba compiles for their types.

    Numba compiles the modules of lanes as they are written, but for a few functions that need an
    instruction, an address or an unsigned number, which plain Python lacks. Each of these has a
    *twin*, written for numba. ``twins`` has them by the ``id`` of the function that they stand for;
    the rules of the account have those of a run. ``simulate_alone`` becomes a call of the compiled
    loop of a run.
    """
    twins = engine.compile_account_rules(has_parts=False) | engine.compile_scalar_rules()
    twins[id(rows.cell)] = _compile.jit(find_cell, forceinline=True)
    twins[id(rows.pick_first)] = _compile.find_lowest
    twins[id(rows.select)] = _compile.choose_number
    twins[id(rows.read_once)] = _compile.read_record
    twins[id(loop.ask_lanes)] = _compile.jit(make_ask(), forceinline=True)
    globals_of_loop = _compile.compile_rules(MODULES, twins)[loop]

    # A lane that is simulated alone in a bar calls the loop of a run, which is compiled apart.
    given_to_run = list_arguments_of_run(given)
    globals_of_loop["simulate_alone"] = _compile.make_loop_call(given_to_run)
    return _compile.compile_twin(loop.simulate_block, globals_of_loop, own, given)


def find_cell(row: int, i: int) -> Any:
    """Return the place of lane i in a row: without a sign, so that no bounds are wrapped."""
    return np.uint64(row * LANES + i)


def list_arguments_of_run(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return such arguments as the loop of a run takes, in its order, from those of a block.

    The order is that of the call in :func:`.loop.simulate_bar`. The call cannot use this list:
    numba returns no records in a tuple.
    """
    terms, market, _policies, lanes, single, _start, _stop = given
    first_bar = 0
    stop_bar = 1
    return (
        terms,
        *market,
        single.deciders,
        single.state,
        single.quotes,
        single.scratch,
        single.ledger,
        lanes.tally,
        single.tape,
        first_bar,
        stop_bar,
    )


ARRAYS = (
    (0, 1),  # the position: the target of instrument i
    (2, 3),  # params
    (4, None),  # seen
    (5, 6),  # memory
    (7, None),  # shown
    (8, None),  # bar_numbers
)
"""The arrays among the arguments of a call in :func:`make_ask`, which follow the address.

Each is a pair: the place of the array, and the place of the number that says at which of its
numbers the part of the policy begins; None if it begins with the array.
"""


def make_ask() -> Any:
    """Return the compiled form of ``loop.ask_lanes``: it calls a policy's formula by its address.

    The formula is the function that :func:`write_lane_formula` writes. Compiled code has only its
    address, and the machine knows no names or types. So the call gives its arguments in their
    order, as arrays and the places in them at which the numbers of a policy begin (:data:`ARRAYS`):
    row k begins at k * LANES. The formula writes the leverage of each lane, and answers 0 if one of
    them is negative, else 1.
    """
    read_number: Any = _compile.read_number
    # "q": it returns a whole number of 64 bits. After the arrays come two numbers, count and time.
    call_formula = _compile.make_call("q", ARRAYS, n_numbers=2)

    def read_columns(policies: Any, i: int, local: int) -> None:
        """Write what the columns of policy i have at bar ``local`` into ``policies.seen``, by lane.

        The columns of a lane lie end to end in memory, each ``lengths[i]`` bars long, in steps of
        ``stride`` numbers. ``policies.columns`` has the address at which those of a lane begin.
        """
        # Lanes that share their columns have those of the first lane.
        n_lanes = LANES if policies.has_own_columns else 1
        for k in range(policies.n_columns[i]):
            numbers_before = (k * policies.lengths[i] + local) * policies.stride
            for lane in range(n_lanes):
                address = policies.columns[i * LANES + lane]
                policies.seen[k * LANES + lane] = read_number(address, numbers_before)

    read_bar = _compile.jit(read_columns, forceinline=True)

    def ask_address(policies: Any, lanes: Any, i: int, time: int, local: int) -> bool:
        """Write the leverages that policy i decides; return whether none is negative.

        ``time`` is the open of the bar, ns; ``local`` is the bar as the columns count it. What
        lanes show of accounts and bar must be written before. The formula writes into the row
        ``leverage`` of the position, and reads the row ``muted`` after it.
        """
        read_bar(policies, i, local)
        # Arrays in the order of ARRAYS: each is followed by the place at which the part of policy i
        # begins, if there is one.
        answer: int = call_formula(
            policies.addresses[i],
            lanes.position,
            (i * N_POSITION + HELD.leverage) * LANES,
            policies.params,
            policies.params_at[i] * LANES,
            policies.seen,
            policies.memory,
            policies.memory_at[i] * LANES,
            policies.shown,
            policies.bar,
            LANES,
            time,
        )
        return answer == 1

    return ask_address
