"""The loop of several positions around its policies, compiled or plain, driven in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.account.portfolio_ledger import sum_book_terms
from backtest.account.portfolio_records import EQUITY, AccountState, Terms
from backtest.base.compiled_twins import bind_functions
from backtest.base.errors import AccountingError, PolicyError
from backtest.base.units import FloatArray, format_time
from backtest.engine import portfolio_loop
from backtest.engine.bar_loop import BROKEN, FULL, NEGATIVE
from backtest.engine.fee_days import TradedDays, start_day
from backtest.engine.loop_driver import CHUNK, PLAIN_CHUNK, Progress, add_traded
from backtest.engine.portfolio_inputs import (
    BookInputs,
    new_book_log,
    new_ledger_array,
    new_quotes,
    new_scratch,
    write_table,
)
from backtest.engine.portfolio_loop import BookTape, Desk
from backtest.engine.portfolio_policies import ask_plain
from backtest.engine.record import Outcome, new_record
from backtest.measures.tally import Tally
from backtest.policy import Policy
from backtest.venue.own_requirement import OwnMargin, make_own_twins


def describe_plain(own: OwnMargin | None) -> str:
    """Describe why a run is not compiled."""
    return "compile=False" if own is None else "the requirement is a Python object"


class DeskSwitch(NamedTuple):
    """First bar of new parameters of the policies, with their desk.

    ``policies`` are those of the desk, each with the names of its columns.
    """

    bar: int
    desk: Desk
    policies: list[tuple[Policy, tuple[str, ...]]]


def find_simulate(
    *, is_compiled: bool, own: OwnMargin | None = None, names: Sequence[str] = ()
) -> Callable[..., Any]:
    """Return the loop, compiled or in plain Python; with a requirement of one's own it is plain."""
    if own is not None:
        from backtest.engine.compile.general_compiler import MODULES  # noqa: PLC0415 - numba

        twins = make_own_twins(MODULES, own.rule, names, {"ask": ask_plain})
        simulate: Callable[..., Any] = twins.simulate_book
        return simulate
    if is_compiled:
        from backtest.engine.compile.general_compiler import compile_book_loop  # noqa: PLC0415 - numba

        return compile_book_loop()
    found: Callable[..., Any] = bind_functions(portfolio_loop, ask=ask_plain)["simulate_book"]
    return found


def run_book_loop(
    inputs: BookInputs,
    state: AccountState,
    desk: Desk,
    tally: Tally,
    first: int,
    policies: list[tuple[Policy, tuple[str, ...]]],
    *,
    is_compiled: bool,
    progress: Progress | None,
    own: OwnMargin | None = None,
    names: Sequence[str] = (),
    switches: Sequence[DeskSwitch] = (),
    traded: TradedDays | None = None,
) -> Outcome:
    """Run the account to the end of the markets, with a requirement of the user if there is one.

    From the bar of each of the ``switches`` on, in their order, its policies decide. An overlay
    keeps its memory.
    """
    is_compiled = is_compiled and own is None
    simulate = find_simulate(is_compiled=is_compiled, own=own, names=names)
    bind, pack = find_binders(is_compiled=is_compiled)
    n, total = len(state.margin), len(inputs.feed.time)
    chunk = CHUNK if is_compiled else PLAIN_CHUNK
    tape = new_tape(n, total - first, first, 4 * n * min(chunk, total) + 1024)
    kept = []
    seats = [DeskSwitch(first, desk, policies), *switches]
    counts = Counts(tally, traded)
    for seat, stop in zip(seats, [*(each.bar for each in switches), total], strict=True):
        keep_overlay(desk, seat.desk)
        desk = seat.desk
        bound = bind(desk, seat.policies)
        given = (inputs, state, desk, bound, counts, seat.bar, stop, tape, chunk, progress)
        counts, entries = drive(simulate, pack, *given)
        kept.append(entries)
    return Outcome(
        state=state,
        tally=counts.tally,
        traded=counts.traded,
        record=tape.record,
        entries=np.concatenate(kept),
        memory=desk.memory,
        plain_because="" if is_compiled else describe_plain(own),
    )


def advance_book(
    inputs: BookInputs,
    state: AccountState,
    desk: Desk,
    policies: list[tuple[Policy, tuple[str, ...]]],
    counts: Counts,
    first: int,
    stop: int,
    *,
    requirement: object,
    names: Sequence[str],
    is_compiled: bool,
) -> tuple[Counts, float]:
    """Take an account up to bar ``stop``; return the counts, and the flows of the first bar.

    State and memory change in place.
    """
    own = requirement if isinstance(requirement, OwnMargin) else None
    is_compiled = is_compiled and own is None
    simulate = find_simulate(is_compiled=is_compiled, own=own, names=names)
    bind, pack = find_binders(is_compiled=is_compiled)
    n, chunk = len(state.margin), CHUNK if is_compiled else PLAIN_CHUNK
    tape = new_tape(n, stop - first, first, 4 * n * min(chunk, stop - first) + 1024)
    bound = bind(desk, policies)
    given = (inputs, state, desk, bound, counts, first, stop, tape, chunk, None)
    counts, _ = drive(simulate, pack, *given)
    return counts, float(tape.record.account.flows[0])


class Counts(NamedTuple):
    """What a run adds up: its measures, and the volumes that choose fee tiers, if there are any."""

    tally: Tally
    traded: TradedDays | None


def drive(
    simulate: Callable[..., Any],
    pack: Callable[[Terms], Terms] | None,
    inputs: BookInputs,
    state: AccountState,
    desk: Desk,
    bound: Desk,
    counts: Counts,
    first: int,
    total: int,
    tape: BookTape,
    chunk: int,
    progress: Progress | None,
) -> tuple[Counts, FloatArray]:
    """Take the account up to bar ``total`` in chunks; return the counts and the events.

    ``pack`` gives the terms the form that the loop takes, ``bound`` is the desk that it asks, and
    ``desk`` the one whose memory it changes. State and tape change in place.
    """
    n, assets = len(state.margin), len(state.priced)
    scratch, ledger, quotes = new_scratch(n, assets), new_ledger_array(n), new_quotes(n, assets)
    kept: list[FloatArray] = []
    terms, t = read_tables(inputs, first), first
    tally, traded = counts
    while t < total:
        for bar, i, margin in inputs.changes:
            terms = write_table(terms, i, margin) if bar == t else terms
        later = [bar for bar, _, _ in inputs.changes if bar > t]
        stop = min(t + chunk, total, *later)
        if inputs.fees is not None:
            traded, end = start_day(inputs.fees.day, traded, t)
            terms, stop = inputs.fees.write(terms, traded), min(stop, end)
        saved = save_book(state, desk)
        packed = terms if pack is None else pack(terms)
        given = (
            packed,
            inputs.feed,
            inputs.clock,
            inputs.log_returns,
            bound,
            state,
            quotes,
            scratch,
        )
        with np.errstate(all="ignore"):
            counted, reached, why = simulate(*given, ledger, tally, tape, t, stop)
        if why == FULL:
            restore_book(saved, state, desk)
            tape.log.written[0] = 0
            tape = tape._replace(log=new_book_log(2 * len(tape.log.entries)))
            continue
        if why == BROKEN:
            after, entered = state.wallet[EQUITY], ledger.copy()
            restore_book(saved, state, desk)
            tape.log.written[0] = 0
            with np.errstate(all="ignore"):
                simulate(*given, ledger, tally, tape, t, reached)  # once more, to the bar before
            change = float(after - state.wallet[EQUITY])
            raise report_book_imbalance(change, entered, inputs, reached)
        if why == NEGATIVE:
            raise report_bad_decision(inputs, reached)
        traded = add_traded(traded, tally, counted)
        tally, t = counted, reached
        kept.append(tape.log.entries[: tape.log.written[0]].copy())
        tape.log.written[0] = 0
        if progress is not None:
            progress(t - first, total - first)
    return Counts(tally, traded), np.concatenate(kept)


def read_tables(inputs: BookInputs, first: int) -> Terms:
    """Return the terms with the margin tables in force before bar ``first``."""
    terms = inputs.terms
    for bar, i, margin in inputs.changes:
        terms = write_table(terms, i, margin) if bar < first else terms
    return terms


class BookSummary(NamedTuple):
    """Where a run without a record ended; ``units`` are the unit values at closes, if wanted."""

    state: AccountState
    tally: Tally
    units: FloatArray


def summarize_book(
    inputs: BookInputs,
    state: AccountState,
    desk: Desk,
    tally: Tally,
    first: int,
    *,
    has_units: bool,
    is_compiled: bool,
    progress: Progress | None,
) -> BookSummary:
    """Take the account to the end of the markets without recording its bars.

    For compiled code, ``desk`` has the addresses of compiled formulas.
    """
    pack = None
    if is_compiled:
        from backtest.engine.compile.general_compiler import pack_terms  # noqa: PLC0415 - numba

        pack = pack_terms
    tape = new_tape(len(state.margin), 0, first, 0)
    tape.is_on[0] = 0
    units = np.zeros(len(inputs.feed.time) - first if has_units else 0)
    tape, chunk = tape._replace(units=units), CHUNK if is_compiled else PLAIN_CHUNK
    counts, total = Counts(tally, None), len(inputs.feed.time)
    given = (inputs, state, desk, desk, counts, first, total, tape, chunk, progress)
    counts, _ = drive(find_simulate(is_compiled=is_compiled), pack, *given)
    return BookSummary(state, counts.tally, units)


def find_binders(
    *, is_compiled: bool
) -> tuple[
    Callable[[Desk, list[tuple[Policy, tuple[str, ...]]]], Desk], Callable[[Terms], Terms] | None
]:
    """Return the functions that give a desk and the terms the form that the loop takes."""
    if not is_compiled:
        return (lambda desk, _: desk), None
    from backtest.engine.compile.general_compiler import bind_compiled, pack_terms  # noqa: PLC0415

    return bind_compiled, pack_terms


def keep_overlay(before: Desk, desk: Desk) -> None:
    """Give the overlay of a desk the memory that it has in the one before."""
    n = len(desk.asks) - 1
    if desk.asks[n]:
        desk.memory[desk.memory_at[n] :] = before.memory[before.memory_at[n] :]


def list_kernel_arguments(inputs: BookInputs, state: AccountState, desk: Desk, tally: Tally) -> Any:
    """Return arguments of the types that the compiled loop is called with."""
    n, assets = len(state.margin), len(state.priced)
    return (
        inputs.terms._replace(instruments=0),
        inputs.feed,
        inputs.clock,
        inputs.log_returns,
        desk._replace(deciders=0),
        state,
        new_quotes(n, assets),
        new_scratch(n, assets),
        new_ledger_array(n),
        tally,
        new_tape(n, 1, 0, 1),
        0,
        0,
    )


def new_tape(n: int, n_bars: int, first: int, capacity: int) -> BookTape:
    """Return an empty tape for ``n_bars`` bars of n instruments from bar ``first``."""
    return BookTape(
        log=new_book_log(capacity),
        record=new_record(n_bars, n, has_closes=True),
        cursor=np.array([first, first], np.int64),
        before=np.zeros(n),
        is_on=np.ones(1, np.int64),
        units=np.zeros(0),
    )


def list_arrays(state: AccountState, desk: Desk) -> list[Any]:
    """Return the arrays that a run changes."""
    held = state.held
    return [*held, *(each for each in state if each is not held), desk.memory]


def save_book(state: AccountState, desk: Desk) -> list[Any]:
    """Return copies of the arrays that a run changes."""
    return [each.copy() for each in list_arrays(state, desk)]


def restore_book(saved: list[Any], state: AccountState, desk: Desk) -> None:
    """Write the copies back."""
    for each, copy in zip(list_arrays(state, desk), saved, strict=True):
        each[...] = copy


def report_book_imbalance(
    change: float, ledger: FloatArray, inputs: BookInputs, t: int
) -> AccountingError:
    """Return the error of books that do not balance at bar t, with both sides."""
    terms = float(sum_book_terms(ledger))
    return AccountingError(
        f"equity changed by {change!r}, its terms add up to {terms!r}, "
        f"a difference of {change - terms!r}",
        where=f"bar {t}, {format_time(int(inputs.feed.time[t]))}; ledger {ledger.tolist()}",
        cure="this is a defect of the engine: please report it with this text",
    )


def report_bad_decision(inputs: BookInputs, t: int) -> PolicyError:
    """Return the error of a decision that is not allowed."""
    return PolicyError(
        "a leverage must be at least 0 or NaN, which leaves the position, and that of an overlay "
        "finite",
        where=f"close of bar {t}, {format_time(int(inputs.feed.time[t]))}",
        cure="return max(0.0, ...): the signal sets the direction; limit what an overlay returns",
    )
