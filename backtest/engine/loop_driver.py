"""The bar loop around one policy, compiled or plain, driven in chunks."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np

from backtest.account.account_records import State
from backtest.account.bar import live_bar
from backtest.account.ledger import Log
from backtest.base.compile_choice import pop_kernels
from backtest.base.errors import AccountingError, PolicyError
from backtest.base.interrupts import hold_signals
from backtest.base.units import FloatArray, format_time
from backtest.engine import bar_loop as loop
from backtest.engine.bar_loop import Formula, Tape
from backtest.engine.compile import background_compiler, plain_or_compiled
from backtest.engine.compile.recipe import (
    ROOT_NAMES,
    Recipe,
    pack_brackets,
    pack_columns,
    write_recipe,
)
from backtest.engine.loop_inputs import Inputs
from backtest.measures.tally import Tally, start_tally
from backtest.policy.combinators import Combinator
from backtest.policy.error_location import bind_plain, locate_numba_error
from backtest.policy.policy import Policy
from backtest.venue.requirement import MarginRules

CHUNK, PLAIN_CHUNK = 65_536, 4_096
"""Bars between two signs of life, compiled and in plain Python."""

Progress = Callable[[int, int], None]


class Outcome(NamedTuple):
    """Where the loop ended, what it recorded, and what it has accumulated."""

    state: State
    tally: Tally
    memory: tuple[float, ...]
    book: FloatArray
    entries: FloatArray
    plain_because: str


class Machine(NamedTuple):
    """The loop with all arguments that stay the same from chunk to chunk.

    ``inputs`` are what the loop takes, ``plain`` the same for plain Python, ``columns`` the
    policy's by name.
    """

    simulate: Callable[..., Any]
    policy: Policy
    inputs: Inputs
    plain: Inputs
    formula: Formula
    columns: Mapping[str, FloatArray]
    pack: Callable[[MarginRules], MarginRules]

    def at(self, t: int, stop: int) -> tuple[Machine, int]:
        """Return the loop under the margin table of bar t, and up to which bar it may go."""
        changes = dict(self.plain.changes)
        stop = min(stop, *(bar for bar in changes if bar > t), stop)
        return (self.with_table(changes[t]) if t in changes else self), stop

    def with_table(self, table: MarginRules) -> Machine:
        """Return the loop under another margin table."""
        plain, inputs = self.plain.rules, self.inputs.rules
        return self._replace(
            plain=self.plain._replace(rules=plain.with_margin(table)),
            inputs=self.inputs._replace(rules=inputs.with_margin(self.pack(table))),
        )


def pack_inputs(
    recipe: Recipe, policy: Policy, inputs: Inputs, columns: Mapping[str, FloatArray]
) -> tuple[Inputs, Formula]:
    """Return the inputs and the formula's arguments as the compiled loop takes them."""
    packed = inputs.rules.with_margin(pack_brackets(inputs.rules.instrument.margin))
    formula = Formula(
        params=tuple(policy.settings().values()) or (0.0,),
        columns=pack_columns(columns),
        wants_root=True if recipe.names & ROOT_NAMES else None,
    )
    return inputs._replace(rules=packed), formula


def build_compiled(
    policy: Policy,
    inputs: Inputs,
    columns: Mapping[str, FloatArray],
    recipe: Recipe | None = None,
) -> Machine:
    """Return the loop compiled around the policy; numba compiles it at the first call."""
    from backtest.engine.compile import loop_compiler  # noqa: PLC0415 - numba loads where it is used

    recipe = write_recipe(policy, tuple(columns)) if recipe is None else recipe
    compiled = loop_compiler.load_policy(loop_compiler.compile_core(), recipe)
    loaded, formula = pack_inputs(recipe, policy, inputs, columns)
    return Machine(compiled.simulate, policy, loaded, inputs, formula, columns, pack_brackets)


def build_plain(policy: Policy, inputs: Inputs, columns: Mapping[str, FloatArray]) -> Machine:
    """Return the loop as ordinary Python around the policy; lists are quicker there."""
    bound = {**vars(loop), "decide": bind_plain(policy, tuple(columns))}
    function = types.FunctionType(loop.simulate.__code__, bound, "simulate")
    lists = inputs._replace(
        feed=type(inputs.feed)(*(array.tolist() for array in inputs.feed)),
        clock=type(inputs.clock)(True, *(array.tolist() for array in inputs.clock[1:])),
    )
    formula = Formula(None, tuple(columns.values()), True)
    return Machine(function, policy, lists, inputs, formula, columns, lambda table: table)


def live(
    policy: Policy,
    inputs: Inputs,
    columns: Mapping[str, FloatArray],
    state: State,
    memory: tuple[float, ...],
    first: int,
    *,
    is_compiled: bool,
    progress: Progress | None,
) -> Outcome:
    """Take the account through the bars from ``first`` on, compiled where the policy compiles."""
    because = "compile=False"
    if is_compiled:
        order = order_compiled(policy, inputs, columns, state, memory, first)
        n_bars = len(inputs.seen.time) - first
        if plain_or_compiled.is_loop_plain(order, policy, inputs.rules, n_bars):
            machine = build_plain(policy, inputs, columns)
            with suppress(NotTheSame):
                return answer_first(machine, order, state, memory, first, progress)
        machine = build_compiled(policy, inputs, columns, order.recipe)
        because = try_compiled(machine, state, memory, first)
        if not because:
            plain_or_compiled.mark_ready(order)
            return drive(machine, state, memory, first, progress, "")
        warnings.warn(
            f"{type(policy).__name__} runs in plain Python, some hundred times slower: {because}",
            stacklevel=4,
        )
    machine = build_plain(policy, inputs, columns)
    return drive(machine, state, memory, first, progress, because, chunk=PLAIN_CHUNK)


def order_compiled(
    policy: Policy,
    inputs: Inputs,
    columns: Mapping[str, FloatArray],
    state: State,
    memory: Any,
    first: int,
) -> plain_or_compiled.LoopOrder:
    """Return the order of the compiled loop for a run."""
    recipe = write_recipe(policy, tuple(columns))
    packed, formula = pack_inputs(recipe, policy, inputs, columns)
    given = (packed.rules, packed.plan, packed.feed, packed.clock, packed.seen, formula)
    tally = start_tally(state.unit, state.equity, first)
    rest = (state, tally, memory, new_tape(1, 1, first), first, first)
    return plain_or_compiled.order_loop(recipe, (*given, *rest))


class NotTheSame(Exception):  # noqa: N818 - a reason to compile first
    """Plain Python raised where compiled code may go on, as at the root of a negative number."""


def answer_first(
    machine: Machine,
    order: plain_or_compiled.LoopOrder,
    state: State,
    memory: Any,
    first: int,
    progress: Progress | None,
) -> Outcome:
    """Run in plain Python, and have the loop compiled in the background for the next time.

    Raises
    ------
    NotTheSame
        If the policy raised what it may not raise when compiled.
    """
    try:
        with background_compiler.ended_by_interrupts():
            outcome = drive(machine, state, memory, first, progress, "", chunk=PLAIN_CHUNK)
    except PolicyError as error:
        if error.__cause__ is None or isinstance(error.__cause__, (AttributeError, NameError)):
            raise
        raise NotTheSame from error
    background_compiler.start(pop_kernels(), order)
    return outcome


def try_compiled(machine: Machine, state: State, memory: Any, first: int) -> str:
    """Compile by living no bar at all; return why it cannot be done, or nothing."""
    try:
        tape = new_tape(1, 1, first)
        tally = start_tally(state.unit, state.equity, first)
        advance(machine, state, tally, memory, tape, first, first)
    except Exception as refusal:  # numba raises what it likes; the policy itself does not run here
        return explain_refusal(refusal, machine.policy)
    return ""


def explain_refusal(refusal: Exception, policy: Policy) -> str:
    """Return the line and the reason for which numba refused a policy, in one line.

    A combinator's formula is generated: the line is that of its own ``combine``, or of the policy
    of its that does not compile.
    """
    from backtest.engine.compile.loop_compiler import explain  # noqa: PLC0415 - numba loads where it is used

    told = explain(refusal, policy)
    place = locate_numba_error(str(refusal), type(policy)) if isinstance(policy, Combinator) else ""
    return f"{place}: {told.partition(': ')[2]}" if place else told


def new_tape(n_bars: int, capacity: int, first: int) -> Tape:
    """Return an empty tape for ``n_bars`` bars from bar ``first``."""
    log = Log(True, np.empty((capacity, 8)), np.zeros(1, dtype=np.int64))
    book = np.zeros((len(loop.RECORDED), n_bars))
    return Tape(log, book, np.array([first, first], dtype=np.int64))


def advance(
    machine: Machine,
    state: State,
    tally: Tally,
    memory: Any,
    tape: Tape,
    start: int,
    stop: int,
) -> tuple[State, Tally, Any, int, int]:
    """Take the account through some bars; numpy's rules hold for divisions by zero."""
    inputs = machine.inputs
    is_plain = isinstance(machine.simulate, types.FunctionType)
    with np.errstate(all="ignore"), nullcontext() if is_plain else hold_signals():
        out: tuple[State, Tally, Any, int, int] = machine.simulate(
            inputs.rules,
            inputs.plan,
            inputs.feed,
            inputs.clock,
            inputs.seen,
            machine.formula,
            state,
            tally,
            memory,
            tape,
            start,
            stop,
        )
    return out


def drive(
    machine: Machine,
    state: State,
    memory: Any,
    first: int,
    progress: Progress | None,
    because: str,
    chunk: int = CHUNK,
) -> Outcome:
    """Advance chunk by chunk to the end, keeping what is logged."""
    total = len(machine.plain.seen.time)
    tape = new_tape(total - first, 2 * min(chunk, total) + 256, first)
    tally = start_tally(state.unit, state.equity, first)
    kept: list[FloatArray] = []
    t = first
    while t < total:
        machine, stop = machine.at(t, min(t + chunk, total))
        begun = (state, tally, memory)
        try:
            state, tally, memory, reached, why = advance(
                machine, state, tally, memory, tape, t, stop
            )
        except PolicyError:
            raise
        except Exception as error:
            raise find_fault(machine, begun, t, int(tape.cursor[0]), error) from error
        kept.append(tape.log.entries[: tape.log.written[0]].copy())
        tape.log.written[0] = 0
        if why == loop.FULL:
            larger = np.empty((2 * len(tape.log.entries), 8))
            tape = tape._replace(log=tape.log._replace(entries=larger))
        elif why == loop.BROKEN:
            raise report_imbalance(machine, state, reached)
        elif why == loop.NEGATIVE:
            raise find_fault(machine, begun, t, reached, ValueError("a negative leverage"))
        t = reached
        if progress is not None:
            progress(t - first, total - first)
    entries = kept[0] if len(kept) == 1 else np.concatenate(kept)
    return Outcome(state, tally, memory, tape.book, entries, because)


def find_fault(
    machine: Machine, begun: tuple[State, Tally, Any], start: int, t: int, error: Exception
) -> Exception:
    """Return the policy's error at bar t with what it saw, by living up to that bar again."""
    state, tally, memory = begun
    tape = new_tape(max(t - start, 1), 8 * (t - start) + 4096, start)
    if t > start:
        state, tally, memory, _, _ = advance(machine, state, tally, memory, tape, start, t)
    inputs = machine.plain
    log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
    after, _, quote = live_bar(inputs.rules, inputs.plan, inputs.feed, state, log, t)
    view = loop.show_account(inputs.rules, after, quote, loop.count_days(inputs.seen, t), True)
    decide = bind_plain(machine.policy, tuple(machine.columns))
    columns = tuple(machine.columns.values())
    try:
        with np.errstate(all="ignore"):
            decide(None, columns, memory, inputs.seen, view, after.last_funding, t)
    except PolicyError as found:
        return found
    return error


def report_imbalance(machine: Machine, state: State, t: int) -> AccountingError:
    """Return the error of books that do not balance at bar t, with both sides."""
    inputs = machine.plain
    log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
    after, ledger, _ = live_bar(inputs.rules, inputs.plan, inputs.feed, state, log, t)
    change, terms = after.equity - state.equity, loop.balance(ledger)
    return AccountingError(
        f"equity changed by {change!r}, its terms add up to {terms!r}, "
        f"a difference of {change - terms!r}",
        where=f"bar {t}, {format_time(int(inputs.seen.time[t]))}; {ledger}",
        cure="this is a defect of the engine: please report it with this text",
    )
