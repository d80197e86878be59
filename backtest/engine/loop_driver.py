"""The bar loop around one policy, compiled or plain, driven in chunks."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Log, State, live_bar
from backtest.base import (
    AccountingError,
    FloatArray,
    PolicyError,
    bind_functions,
    format_time,
    hold_signals,
    warn_caller,
    write_mark,
)
from backtest.engine import bar_loop as loop
from backtest.engine.bar_loop import Formula, Tape
from backtest.engine.compile.plain_or_compiled import estimate_plain, find_mark, try_plain
from backtest.engine.compile.recipe import (
    ROOT_NAMES,
    Recipe,
    pack_brackets,
    pack_columns,
    write_recipe,
)
from backtest.engine.fee_days import TradedDays, start_day, with_fees
from backtest.engine.loop_inputs import Inputs
from backtest.engine.record import Outcome, new_record_of_one
from backtest.measures import Tally, start_tally
from backtest.policy import (
    Combinator,
    Policy,
    bind_plain,
    formula_for,
    locate_numba_error,
    may_read_of_account,
)
from backtest.venue import MarginRules

CHUNK, PLAIN_CHUNK = 65_536, 4_096
"""Bars between two reports of progress, compiled and in plain Python."""
QUICK_CHUNK = 1_048_576
"""Bars between two reports of progress of the compiled loop of one position."""
LOGGED = 131_072
"""Events for which a run has memory at first."""

Progress = Callable[[int, int], None]


class LoopStart(NamedTuple):
    state: State
    memory: Any
    first: int
    traded: TradedDays | None = None
    tally: Tally | None = None

    def start_tally(self) -> Tally:
        if self.tally is not None:
            return self.tally
        return start_tally(self.state.unit, self.state.equity, self.first)


def go_on(before: Outcome, memory: tuple[float, ...], first: int) -> LoopStart:
    return LoopStart(before.state, memory, first, before.traded, before.tally)


class LoopRunner(NamedTuple):
    simulate: Callable[..., Any]
    policy: Policy
    inputs: Inputs
    plain: Inputs
    formula: Formula
    columns: Mapping[str, FloatArray]
    pack: Callable[[MarginRules], MarginRules]

    def at(self, t: int, stop: int) -> tuple[LoopRunner, int]:
        changes = dict(self.plain.changes)
        stop = min(stop, *(bar for bar in changes if bar > t), stop)
        return (self.with_table(changes[t]) if t in changes else self), stop

    def with_table(self, table: MarginRules) -> LoopRunner:
        plain, inputs = self.plain.rules, self.inputs.rules
        return self._replace(
            plain=self.plain._replace(rules=plain.with_margin(table)),
            inputs=self.inputs._replace(rules=inputs.with_margin(self.pack(table))),
        )

    def with_fees(self, traded: TradedDays | None, t: int) -> tuple[LoopRunner, Any, int]:
        schedule = self.plain.fees
        if schedule is None:
            return self, None, len(self.plain.feed.time)
        traded, end = start_day(schedule.day, traded, t)
        rates = schedule.choose(traded)
        plain, inputs = (
            each._replace(rules=with_fees(each.rules, rates)) for each in (self.plain, self.inputs)
        )
        return self._replace(plain=plain, inputs=inputs), traded, end


def pack_inputs(
    recipe: Recipe, policy: Policy, inputs: Inputs, columns: Mapping[str, FloatArray]
) -> tuple[Inputs, Formula]:
    packed = inputs.rules.with_margin(pack_brackets(inputs.rules.instrument.margin))
    formula = Formula(
        params=tuple(policy.settings().values()) or (0.0,),
        columns=pack_columns(columns),
        wants_root=True if recipe.names & ROOT_NAMES else None,
    )
    return inputs._replace(rules=packed), formula


def build_compiled(
    policy: Policy, inputs: Inputs, columns: Mapping[str, FloatArray], recipe: Recipe
) -> LoopRunner:
    from backtest.engine.compile import loop_compiler  # noqa: PLC0415 - loads numba

    simulate = loop_compiler.load_policy_loop(recipe)
    loaded, formula = pack_inputs(recipe, policy, inputs, columns)
    return LoopRunner(simulate, policy, loaded, inputs, formula, columns, pack_brackets)


def build_plain(policy: Policy, inputs: Inputs, columns: Mapping[str, FloatArray]) -> LoopRunner:
    lists = inputs._replace(
        feed=type(inputs.feed)(*(array.tolist() for array in inputs.feed)),
        clock=type(inputs.clock)(True, *(array.tolist() for array in inputs.clock[1:])),
    )
    has_root = may_read_of_account(formula_for(policy, tuple(columns)), ROOT_NAMES)
    formula = Formula(None, tuple(columns.values()), True if has_root else None)
    return LoopRunner(
        bind_simulate(policy, columns), policy, lists, inputs, formula, columns, lambda table: table
    )


def bind_simulate(policy: Policy, columns: Mapping[str, FloatArray]) -> Callable[..., Any]:
    bound = bind_functions(loop, decide=bind_plain(policy, tuple(columns)))
    simulate: Callable[..., Any] = bound["simulate"]
    return simulate


def run_loop(
    policy: Policy,
    inputs: Inputs,
    columns: Mapping[str, FloatArray],
    begin: LoopStart,
    *,
    stop: int,
    is_compiled: bool,
    progress: Progress | None,
) -> Outcome:
    because = "compile=False"
    if is_compiled:
        recipe = write_recipe(policy, tuple(columns))
        mark = find_loop_mark(recipe, policy, inputs, columns, begin)
        seconds = estimate_plain(inputs.rules, stop - begin.first)

        def run_plainly() -> Outcome:
            plain = build_plain(policy, inputs, columns)
            return run_chunks(plain, begin, stop, progress, "", PLAIN_CHUNK)

        found = None
        if recipe.is_complete:
            found = try_plain(run_plainly, mark, seconds, [(policy, tuple(columns))])
        if found is not None:
            return found
        runner = build_compiled(policy, inputs, columns, recipe)
        because = try_compiled(runner, begin)
        if not because:
            if recipe.is_complete:
                write_mark(mark)
            return run_chunks(runner, begin, stop, progress, "")
        warn_caller(
            f"{type(policy).__name__} runs in plain Python, some hundred times slower: {because}"
        )
    plain = build_plain(policy, inputs, columns)
    return run_chunks(plain, begin, stop, progress, because, PLAIN_CHUNK)


def find_loop_mark(
    recipe: Recipe,
    policy: Policy,
    inputs: Inputs,
    columns: Mapping[str, FloatArray],
    begin: LoopStart,
) -> Path:
    state, memory, first = begin.state, begin.memory, begin.first
    packed, formula = pack_inputs(recipe, policy, inputs, columns)
    given = (packed.rules, packed.plan, packed.feed, packed.clock, packed.seen, formula)
    rest = (state, begin.start_tally(), memory, new_tape(1, 1, first), first, first)
    return find_mark(recipe, (*given, *rest))


def try_compiled(runner: LoopRunner, begin: LoopStart) -> str:
    state, memory, first = begin.state, begin.memory, begin.first
    try:
        tape = new_tape(1, 1, first)
        run_bars(runner, state, begin.start_tally(), memory, tape, first, first)
    except Exception as refusal:  # numba raises what it likes; the policy itself does not run here
        return explain_refusal(refusal, runner.policy)
    return ""


def explain_refusal(refusal: Exception, policy: Policy) -> str:
    from backtest.engine.compile.loop_compiler import explain_compile_error  # noqa: PLC0415 - loads numba

    reason = explain_compile_error(refusal, policy)
    place = locate_numba_error(str(refusal), type(policy)) if isinstance(policy, Combinator) else ""
    return f"{place}: {reason.partition(': ')[2]}" if place else reason


def new_tape(n_bars: int, capacity: int, first: int) -> Tape:
    log = Log(True, np.empty((capacity, 8)), np.zeros(1, dtype=np.int64))
    return Tape(log, new_record_of_one(n_bars), np.array([first, first], dtype=np.int64))


def run_bars(
    runner: LoopRunner, state: State, tally: Tally, memory: Any, tape: Tape, start: int, stop: int
) -> tuple[State, Tally, Any, int, int]:
    rules, plan, feed, clock, seen = runner.inputs[:5]
    given = (rules, plan, feed, clock, seen, runner.formula)
    is_plain = isinstance(runner.simulate, types.FunctionType)
    with np.errstate(all="ignore"), nullcontext() if is_plain else hold_signals():
        out: tuple[State, Tally, Any, int, int] = runner.simulate(
            *given, state, tally, memory, tape, start, stop
        )
    return out


def run_chunks(
    runner: LoopRunner,
    begin: LoopStart,
    total: int,
    progress: Progress | None,
    because: str,
    chunk: int = QUICK_CHUNK,
) -> Outcome:
    state, memory, first, traded, _ = begin
    tape = new_tape(total - first, min(2 * total + 256, LOGGED), first)
    tally = begin.start_tally()
    charged: list[tuple[int, float]] = []
    t = first
    while t < total:
        runner, stop = runner.at(t, min(t + chunk, total))
        runner, traded, end = runner.with_fees(traded, t)
        charged.append((t, runner.plain.rules.instrument.fee))
        begun = (state, tally, memory)
        try:
            state, tally, memory, reached, why = run_bars(runner, *begun, tape, t, min(stop, end))
        except PolicyError:
            raise
        except Exception as error:
            raise find_fault(runner, begun, t, int(tape.cursor[0]), error) from error
        traded = add_traded(traded, begun[1], tally)
        if why == loop.FULL:
            tape = tape._replace(log=enlarge(tape.log))
        elif why == loop.BROKEN:
            raise report_imbalance(runner, state, reached)
        elif why == loop.NEGATIVE:
            raise find_fault(runner, begun, t, reached, ValueError("a negative leverage"))
        t = reached
        if progress is not None:
            progress(t - first, total - first)
    return Outcome(
        state=state,
        tally=tally,
        memory=memory,
        record=tape.record,
        entries=tape.log.entries[: tape.log.written[0]].copy(),
        plain_because=because,
        traded=traded,
        charged=tuple(charged),
    )


def enlarge(log: Log) -> Log:
    room = np.empty_like(log.entries)
    return log._replace(entries=np.concatenate((log.entries, room)))


def add_traded(traded: TradedDays | None, before: Tally, after: Tally) -> TradedDays | None:
    if traded is None:
        return None
    return traded.add(after.money.traded - before.money.traded)


def find_fault(
    runner: LoopRunner, begun: tuple[State, Tally, Any], start: int, t: int, error: Exception
) -> Exception:
    if t > start:
        tape = new_tape(t - start, 8 * (t - start) + 4096, start)
        begun = run_bars(runner, *begun, tape, start, t)[:3]
    columns = tuple(runner.columns.values())
    plain = runner._replace(
        simulate=bind_simulate(runner.policy, runner.columns),
        inputs=runner.plain,
        formula=Formula(None, columns, True),
    )
    try:
        run_bars(plain, *begun, new_tape(1, 4096, t), t, t + 1)
    except PolicyError as found:
        return found
    return error


def report_imbalance(runner: LoopRunner, state: State, t: int) -> AccountingError:
    inputs, log = runner.plain, new_tape(0, 1, t).log._replace(is_on=None)
    after, ledger, _ = live_bar(inputs.rules, inputs.plan, inputs.feed, state, log, t)
    terms = {name: float(value) for name, value in ledger._asdict().items() if value != 0.0}
    change, total = float(after.equity - state.equity), float(loop.sum_terms(ledger))
    return AccountingError(
        f"equity changed by {change!r} in bar {t}, {format_time(int(inputs.feed.time[t]))} UTC, "
        f"its terms add up to {total!r}, a difference of {change - total!r}; ledger {terms}; this "
        "is a defect of the engine: please report it with this text"
    )
