"""Drive the loop in chunks, compiled or in plain Python, and say what went wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest import _compile, core
from backtest import account as a
from backtest._compile import bind_functions, bytecode
from backtest._compile.arguments import Caller, flatten
from backtest.account import records
from backtest.account.cut_counts import CAUSES, N_SUMS
from backtest.account.events import ENTRY, Entries
from backtest.account.money import Money, sum_changes, sum_ledger
from backtest.account.records import new_quotes
from backtest.core import Progress
from backtest.core.structs import Struct, Structs
from backtest.engine import inputs as feeds
from backtest.engine import loop as loop_steps
from backtest.engine.compiler import compile_loop, hash_rules
from backtest.engine.formulas import bind_compiled
from backtest.engine.held_closes import fill_closes
from backtest.engine.inputs import AccountInputs, pack_terms
from backtest.engine.loop import DONE, FULL, NEGATIVE
from backtest.engine.policies import Callbacks, ask_plain
from backtest.engine.shown import Deciders
from backtest.engine.tape import N_LIVES, Lanes, RunTape, has_way
from backtest.policies import Combinator, Policy, formula_for, written_formulas
from backtest.results import tables
from backtest.results.record import Closes, HeldAtCloses, new_closes, new_record
from backtest.results.tally import Tally

if TYPE_CHECKING:
    from backtest.results.run_data import RunData


NO_CUTS = np.zeros((0, len(CAUSES), N_SUMS))
"""In a loop that does not count what limits cut."""
CHUNK = 65_536
PLAIN_CHUNK = 4_096
"""Bars between two reports of progress, compiled and in plain Python."""
LOGGED = 1024
"""Rows of the log beyond four a bar and instrument."""
Formulas = list[tuple[Policy, tuple[str, ...]]]
Pack = Callable[[a.Terms], a.Terms]

# Records of an account that is new.


def new_scratch(
    n: int, assets: int, cuts: core.FloatArray = NO_CUTS, *, has_extremes: bool = False
) -> a.Scratch:
    return records.new_scratch(n, assets, cuts, has_extremes=has_extremes)


def new_cuts(n: int) -> core.FloatArray:
    return np.zeros((n + 1, len(CAUSES), N_SUMS))


def new_ledger(n: int) -> Structs[Money]:
    """Return the ledger of n instruments, and last of the account."""
    return Structs(Money, n + 1)


def new_event_log(capacity: int) -> a.EventLog:
    return a.EventLog(np.empty(capacity, ENTRY), *np.zeros((2, 1), np.int64))


def new_bar(
    terms: a.Terms, feed: a.MarketFeed, state: a.AccountState, cuts: core.FloatArray = NO_CUTS
) -> a.AccountBar:
    """Return room for one bar of an account: quotes, scratch, ledger and log, all empty."""
    n = len(state.positions)
    assets = len(state.priced)
    return a.AccountBar(
        terms=terms,
        feed=feed,
        state=state,
        quotes=new_quotes(n, assets),
        scratch=new_scratch(n, assets, cuts),
        ledger=new_ledger(n),
        log=new_event_log(4 * LOGGED),
    )


def new_tape(n: int, n_bars: int, first: int, capacity: int, n_options: int = 0) -> RunTape:
    """Return a tape for ``n_bars`` from bar ``first`` on, and ``capacity`` events at first."""
    record, terms = new_record(n_bars, n, n_options)
    return RunTape(
        log=new_event_log(capacity),
        record=record,
        terms=terms,
        cursor=np.array([first, first], np.int64),
        before=np.zeros(n),
        is_on=np.ones(1, np.int64),
        units=np.zeros(0),
        pool=np.zeros(2),
        lanes=Lanes(
            places=np.zeros((0, 6), np.int64),
            known=np.zeros((0, n + 1), np.int64),
            lives=np.zeros((N_LIVES, 0)),
            begun=np.zeros(0),
            numbers=np.zeros(0),
        ),
    )


def list_arrays(state: a.AccountState) -> list[Any]:
    """Return the arrays of a state that hold something, each once: what is held are views."""
    leaves: list[Any] = []
    for name, field in state._asdict().items():
        if name != "held":
            leaves += flatten(field)
    leaves += [state.held.amounts, state.held.prices]
    return [array for array in map(view_leaf, leaves) if array.size > 0]


def view_leaf(leaf: Any) -> Any:
    return leaf.numbers.ravel() if isinstance(leaf, Struct | Structs) else leaf


# The loop, compiled or in plain Python, and the policies that it asks.


@functools.cache
def find_entry(name: str, *, has_parts: bool) -> _compile.Entry:
    compile_for = partial(compile_loop, name, has_parts=has_parts)
    return _compile.Entry(f"{name}_with_options" if has_parts else name, hash_rules(), compile_for)


class CompiledCalls:
    """Calls of a function of the loop whose first argument holds the terms of the account."""

    def __init__(self, name: str) -> None:
        self.without_options = Caller(find_entry(name, has_parts=False))
        self.with_options = Caller(find_entry(name, has_parts=True))

    def bind(self, terms: a.Terms, *arguments: Any) -> Callable[[], Any]:
        """Return the call; what must be compiled for it is compiled before."""
        caller = self.with_options
        if terms.instruments is feeds.WITHOUT_OPTIONS:
            caller = self.without_options
        return caller.bind(terms, *arguments)

    def __call__(self, terms: a.Terms, *arguments: Any) -> Any:
        return self.bind(terms, *arguments)()


def find_simulate(*, is_compiled: bool) -> Callable[..., Any]:
    """Return the loop: compiled, or in plain Python with policies that are called."""
    if is_compiled:
        return CompiledCalls("simulate_batch")
    plain: Callable[..., Any] = bind_functions(loop_steps, ask=ask_plain)["simulate_batch"]
    return plain


class LoopPart(NamedTuple):
    """The loop, and the policies that it asks in one part of a run.

    ``pack`` makes terms for compiled code of terms, and is None in plain Python. ``bound`` are the
    policies as the loop asks them, ``deciders`` the same in plain Python.
    """

    simulate: Callable[..., Any]
    pack: Pack | None
    deciders: Deciders
    bound: Deciders

    @property
    def is_compiled(self) -> bool:
        return self.pack is not None


class BoundLoop(NamedTuple):
    """The loop, with the policies of each part of a run.

    ``plain_because`` says why the loop, or a policy, is in plain Python; else it is "".
    """

    simulate: Callable[..., Any]
    pack: Pack | None
    deciders: list[Deciders]
    plain_because: str

    @property
    def is_compiled(self) -> bool:
        return self.pack is not None

    def find_part(self, deciders: Deciders, k: int = 0) -> LoopPart:
        """Return the loop with the policies of part k, which are ``deciders`` in plain Python."""
        return LoopPart(self.simulate, self.pack, deciders, self.deciders[k])


def bind_loop(
    asked: Sequence[tuple[Deciders, Formulas]],
    *,
    is_compiled: bool,
    has_own: bool = False,
    has_orders: bool = False,
    has_overflowed: bool = False,
) -> BoundLoop:
    """Return the loop, compiled or in plain Python, with the policies that it asks.

    ``asked`` has for each part of a run its policies, as the loop reads them in plain Python, and
    their formulas. Warns of policies that could not be compiled.

    The whole loop stays in plain Python without ``is_compiled``, or if the margin requirement is a
    Python object (``has_own``). Otherwise it is compiled, and single policies may stay in plain
    Python, which it calls back: those that trade options (``has_orders``), that the compiler
    refuses, or whose whole numbers went beyond 64 bits before (``has_overflowed``).
    """
    plain_because = ""
    if has_own:
        plain_because = "the requirement is a Python object"
    elif not is_compiled:
        plain_because = "compile=False"
    if plain_because:
        deciders = [of_part for of_part, _ in asked]
        return BoundLoop(find_simulate(is_compiled=False), None, deciders, plain_because)

    # Policies that stay in plain Python, by the name of their class, and why the compiler refused.
    callbacks = Callbacks()
    reasons: dict[str, str] = {}

    def call_back(
        refusal: Exception | None,
        deciders: Deciders,
        policy: Policy,
        columns: tuple[str, ...],
        i: int,
    ) -> int:
        """Return the address at which the loop calls a policy that stays in plain Python."""
        if refusal is not None:
            reasons[type(policy).__name__] = explain_refusal(refusal, policy)
        return callbacks.add(deciders, policy, columns, i)

    bound = []
    for deciders_of_part, formulas in asked:
        bound_part = bind_compiled(
            deciders_of_part,
            formulas,
            call_back=call_back,
            has_orders=has_orders,
            has_overflowed=has_overflowed,
        )
        bound.append(bound_part)

    simulate = find_simulate(is_compiled=True)
    if callbacks.functions:
        simulate = partial(callbacks.simulate, CompiledCalls("simulate_batch").bind)
    if reasons:
        sentences = [f"{name} runs in plain Python: {reason}" for name, reason in reasons.items()]
        core.warn_caller("; ".join(sentences))
    return BoundLoop(simulate, pack_terms, bound, "; ".join(reasons.values()))


# The terms bar by bar.


def read_tables(inputs: AccountInputs, first: int) -> a.Terms:
    """Return the terms with the margin tables that hold before bar ``first``."""
    terms = inputs.terms
    for bar, i, table in inputs.changes:
        if bar < first:
            terms = feeds.write_table(terms, i, table)
    return terms


def copy_terms(inputs: AccountInputs) -> AccountInputs:
    """Return inputs with a copy of all terms, which bars write into; all else is shared.

    Threads share inputs, so each account writes into terms of its own: dated costs, multipliers,
    the venue leverage decided, and the room in which a portfolio's margin is computed.
    """
    terms: a.Terms = copy_arrays(inputs.terms)
    return inputs._replace(terms=terms._replace(instruments=copy(terms.instruments)))


def copy_arrays(record: Any) -> Any:
    """Return a copy of a named tuple in which no array shares memory; other values are shared."""
    copies = []
    for field in record:
        if isinstance(field, tuple) and hasattr(field, "_fields"):
            copies.append(copy_arrays(field))
        elif isinstance(field, np.ndarray | Struct | Structs):
            copies.append(field.copy())
        else:
            copies.append(field)
    return type(record)._make(copies)


NO_RATES = b""
"""The bytes of fee rates that are not written yet: those of no rates."""


class TermsInTime:
    """The terms of an account bar by bar: margin tables by date, fees by what it traded.

    ``terms`` are those of the bar that :meth:`at` was asked of last, ``packed`` the same for the
    loop: for compiled code, or as they are in plain Python (``pack`` is None).
    """

    def __init__(self, inputs: AccountInputs, first: int, pack: Pack | None) -> None:
        """Begin with the tables that hold before bar ``first``; :meth:`at` must come next."""
        self.inputs = inputs
        self.pack = pack
        self.terms = read_tables(inputs, first)
        self.packed: a.Terms | None = None  # to be packed again, where terms have changed
        self.charged = NO_RATES

    def at(self, t: int, stop: int, traded: a.TradedDays | None) -> tuple[int, Any]:
        """Write the terms that hold at bar t; return at which bar they may change next.

        That bar is at most ``stop``. Margin tables change at dates, fees by tiers at the first bar
        of a day. Also returns what was traded by day, with the day of bar t begun. Terms are packed
        for compiled code only where they have changed. It must be called at each bar that it
        returns, as a table is written at its own bar only.
        """
        # Tables by date. A new table has the fees of its date, so those by tiers are written anew.
        for bar, i, table in self.inputs.changes:
            if bar > t:
                stop = min(stop, bar)
            elif bar == t:
                self.terms = feeds.write_table(self.terms, i, table)
                self.packed = None
                self.charged = NO_RATES

        # Fees by tiers: those of what was traded in the days before.
        fees = self.inputs.fees
        if fees is not None:
            traded, next_day = feeds.start_day(fees.day, traded, t)
            stop = min(stop, next_day)
            rates = fees.find(traded.past)
            if rates.tobytes() != self.charged:
                self.terms = fees.write(self.terms, rates)
                self.packed = None
                self.charged = rates.tobytes()

        if self.packed is None:
            self.packed = self.terms if self.pack is None else self.pack(self.terms)
        return stop, traded


def find_terms(inputs: AccountInputs, t: int, traded: a.TradedDays | None) -> a.Terms:
    """Return the terms of an account in bar t, with the tables and fees in force then."""
    terms_in_time = TermsInTime(inputs, t, None)
    terms_in_time.at(t, t + 1, traded)
    return terms_in_time.terms


# The way of an account through its bars.


class Counts(NamedTuple):
    """What a run adds up: its tally, what it traded by day, and what limits cut."""

    tally: Tally
    traded: a.TradedDays | None
    cuts: core.FloatArray = NO_CUTS


class SavedBar(NamedTuple):
    """An account as it was before some bars: its arrays, and the legs of its option orders."""

    arrays: list[Any]
    legs: list[Any]


class Drive:
    """Simulates an account bar by bar; it can stop at any bar, and goes on from there.

    ``state`` and ``tape`` are written, ``counts`` are those so far, and ``t`` is the next bar. The
    bars at which it stops change no number.
    """

    def __init__(
        self,
        inputs: AccountInputs,
        state: a.AccountState,
        part: LoopPart,
        *,
        counts: Counts,
        tape: RunTape,
        first: int,
        chunk: int = CHUNK,
    ) -> None:
        """Begin to simulate an account from bar ``first``, at most ``chunk`` bars in one call.

        ``part`` is the loop with the policies that decide. A call that ends with a fault is undone:
        ``arrays`` lists all that it may have written.
        """
        self.inputs = inputs
        self.state = state
        self.part = part
        self.counts = counts
        self.tape = tape
        self.first = first
        self.t = first
        self.chunk = chunk

        # Room for one bar, which the loop writes over. Simulated paths may need the least and the
        # most equity inside a bar: then the scratch has room for these extremes.
        n_instruments = len(state.positions)
        n_assets = len(state.priced)
        lives = tape.lanes.lives
        has_extremes = lives.shape[1] > 0 and has_way(lives)
        self.scratch = new_scratch(n_instruments, n_assets, counts.cuts, has_extremes=has_extremes)
        self.ledger = new_ledger(n_instruments)
        self.quotes = new_quotes(n_instruments, n_assets)
        self.terms = TermsInTime(inputs, first, part.pack)
        self.entries: list[Entries] = []

        # What bars read and write, and what is put back before they are simulated again: the
        # account, the memory of its policies, the tally, hedges ordered, and what limits cut.
        arrays = [*list_arrays(state), part.deciders.memory, counts.tally.numbers]
        arrays += [self.scratch.plans.column("target_contracts"), self.scratch.cuts]
        self.arrays = [array for array in arrays if array.size > 0]
        if inputs.trader is not None:
            inputs.trader.begin(inputs.feed.options, state, self.scratch, tape)

    def advance(self, stop: int, progress: Progress | None = None) -> None:
        """Simulate the account up to bar ``stop``."""
        while self.t < stop:
            self.advance_chunk(min(stop, self.t + self.chunk))
            core.report_progress(progress, self.t - self.first, stop - self.first)

    def advance_chunk(self, stop: int) -> None:
        """Simulate the account by one call of the loop: to ``stop``, or to where its terms change.

        If the loop stops before that, all that it wrote is put back. There are two cases. The log
        of events was full: it is made larger, and the caller calls again from the same bar. Or a
        bar had a fault: the account is simulated again up to that bar, as the error needs it there,
        and the error is raised.
        """
        t = self.t
        tally = self.counts.tally
        stop, traded = self.terms.at(t, stop, self.counts.traded)
        traded_before = tally.money.traded
        saved = self.save()

        reached, reason = self.call(self.part.bound, t, stop)
        if reason != DONE:
            equity_at_fault = float(self.state.wallet.equity)
            ledger_at_fault = self.ledger.copy()
            self.put_back(saved)

            # The next call takes the same bars, with a log that is twice as large.
            if reason == FULL:
                n_entries = len(self.tape.log.entries)
                self.tape = self.tape._replace(log=new_event_log(2 * n_entries))
                return

            # Up to the bar of the fault, and not through it: the equity is that before the bar.
            self.call(self.part.bound, t, reached)
            if reason == NEGATIVE:
                raise self.find_decision_error(reached)
            change = equity_at_fault - float(self.state.wallet.equity)
            raise report_imbalance(change, ledger_at_fault, self.inputs, reached)

        if traded is not None:
            traded = traded.add(tally.money.traded - traded_before)
        self.counts = self.counts._replace(traded=traded)
        self.t = reached

        # The log is room for a chunk: its entries are kept, and it begins anew.
        written = self.tape.log.written[0]
        if written > 0:
            self.entries.append(self.tape.log.entries[:written].copy())
            self.tape.log.written[0] = 0

    def save(self) -> SavedBar:
        """Return copies of all that bars write and :meth:`put_back` must write back."""
        trader = self.inputs.trader
        legs = [] if trader is None else [leg.copy() for leg in trader.listed.legs]
        return SavedBar(arrays=[array.copy() for array in self.arrays], legs=legs)

    def put_back(self, saved: SavedBar) -> None:
        """Write the account back as it was saved, and empty the log of its events."""
        for array, before in zip(self.arrays, saved.arrays, strict=True):
            array[...] = before
        self.tape.log.written[0] = 0
        if self.inputs.trader is not None:
            self.inputs.trader.put_back(saved.legs)

    def call(self, bound: Deciders, t: int, stop: int) -> tuple[int, int]:
        """Call the loop from bar t to ``stop``; return the bar that it reached, and why."""
        inputs = self.inputs
        with np.errstate(all="ignore"):
            reached, why = self.part.simulate(
                self.terms.packed,
                inputs.feed,
                inputs.clock,
                inputs.log_returns,
                bound,
                self.state,
                self.quotes,
                self.scratch,
                self.ledger,
                self.counts.tally,
                self.tape,
                t,
                stop,
            )
        return reached, why

    def find_decision_error(self, t: int) -> core.PolicyError:
        """Return the error of a decision that is not allowed, at the close of bar t.

        The account must stand before bar t. A compiled formula says only that something is wrong.
        So the bar is simulated once more in plain Python, where the policy may raise its own error.
        If nothing is wrong there, a whole number of the compiled formula went beyond 64 bits.
        """
        error = report_bad_decision(self.inputs, t)
        has_plain_policies = self.part.deciders.methods != 0
        if not has_plain_policies or not self.part.is_compiled:
            return error

        inputs = self.inputs
        with np.errstate(all="ignore"):
            _, reason = find_simulate(is_compiled=False)(
                self.terms.terms,
                inputs.feed,
                inputs.clock,
                inputs.log_returns,
                self.part.deciders,
                self.state,
                self.quotes,
                self.scratch,
                self.ledger,
                self.counts.tally,
                self.tape,
                t,
                t + 1,
            )
        if reason == DONE:
            return OverflowedFormula(str(error))
        return error

    def take_entries(self) -> Entries:
        """Return the log of all bars so far."""
        return np.concatenate([self.tape.log.entries[:0], *self.entries])


def measure_account(
    inputs: AccountInputs,
    state: a.AccountState,
    deciders: Deciders,
    tally: Tally,
    first: int,
    *,
    has_units: bool,
    progress: Progress | None,
    simulate: Callable[..., Any] | None = None,
) -> core.FloatArray:
    """Simulate an account over all bars by the compiled loop; return its unit value at each close.

    The values have shape (n_bars - first,); without ``has_units`` there are none. No record of bars
    is written: ``state`` and ``tally`` are what the account becomes and counts. ``deciders`` must
    be bound to compiled formulas. ``simulate`` is a :class:`CompiledCalls` of the caller's thread,
    which packs inputs that it had before only once.
    """
    n_bars = len(inputs.feed.time)
    units = np.zeros(0)
    if has_units:
        units = np.zeros(n_bars - first)

    # A tape that is off writes nothing but the units, so it needs no room for bars and events.
    tape = new_tape(len(state.positions), n_bars=0, first=first, capacity=0)
    tape = tape._replace(units=units)
    tape.is_on[0] = 0

    if simulate is None:
        simulate = find_simulate(is_compiled=True)
    part = LoopPart(simulate, pack_terms, deciders, bound=deciders)
    drive = Drive(
        copy_terms(inputs), state, part, counts=Counts(tally, None), tape=tape, first=first
    )
    drive.advance(n_bars, progress)
    return units


# What went wrong.


class OverflowedFormula(core.PolicyError):
    """A compiled formula gave no number where plain Python does: its whole numbers are larger."""


def report_imbalance(
    change: float, ledger: Structs[Money], inputs: AccountInputs, t: int
) -> core.AccountingError:
    """Return the error of a bar whose ledger does not explain the change of equity."""
    money = Money()
    sum_ledger(ledger, money)
    terms = float(sum_changes(money))
    return core.AccountingError(
        f"equity changed by {change!r} in bar {t}, "
        f"{core.format_time(int(inputs.feed.time[t]))} UTC, its terms add up to {terms!r}, a "
        f"difference of {change - terms!r}; ledger {ledger.tolist()}; this is a defect of the "
        "engine: please report it with this text"
    )


def report_bad_decision(inputs: AccountInputs, t: int) -> core.PolicyError:
    """Return the error of a leverage that is negative or, of an overlay, infinite."""
    return core.PolicyError(
        "a leverage must be at least 0 or NaN, which leaves the position, and that of an overlay "
        f"finite, at the close of bar {t}, {core.format_time(int(inputs.feed.time[t]))} UTC; "
        "return max(0.0, ...): the signal sets the direction"
    )


def explain_refusal(refusal: Exception, policy: Policy) -> str:
    """Return in words why a policy's formula was not compiled."""
    rules = []
    if isinstance(policy, Combinator):
        rules = [*written_formulas(type(policy))]
    return bytecode.explain_refusal(refusal, formula_for(policy, ()), rules)


# What follows at each close, after a run.


def measure_closes(setup: Any, run: RunData, rows: slice) -> Closes:
    """Compute margin, backing and failing prices at the closes of some rows of a finished run.

    They are not recorded, but computed from the record when they are asked for, by the same rules
    as the run, plain or compiled. Row 0 is the first bar of the account. The answer has a row for
    each of ``rows``.
    """
    inputs = setup.inputs
    first = setup.first
    n_instruments = len(setup.markets.names)
    begin, stop, _ = rows.indices(run.record.n_bars)
    caller = None
    if setup.is_compiled:
        has_parts = len(inputs.terms.options.instruments) > 0
        caller = Caller(find_entry("fill_closes", has_parts=has_parts))

    # ``state`` is room: each call writes into it what was held at a close.
    state = feeds.start_account_state(setup)
    held = read_held(run, n_instruments, first)
    closes = new_closes(stop - begin, n_instruments)

    # One call for all rows between two changes of margin tables, as these have the same terms.
    for row, end in pairwise(find_edges(inputs, first, begin, stop)):
        # A table that changes at a bar is in force at its close: so changes before the next bar
        # count.
        terms = read_tables(inputs, first + row + 1)
        if caller is not None:
            terms = pack_terms(terms)

        bar = new_bar(terms, inputs.feed, state)
        held_of_rows = HeldAtCloses(*(field[row:end] for field in held))
        # Views: what is written into them is in ``closes``.
        closes_of_rows = Closes(*(field[row - begin : end - begin] for field in closes))
        fill = fill_closes if caller is None else caller
        with np.errstate(all="ignore"):
            fill(bar, held_of_rows, closes_of_rows, first + row)
    return closes


def find_edges(inputs: AccountInputs, first: int, begin: int, stop: int) -> list[int]:
    """Return the rows at which stretches with the same margin tables begin, and ``stop``.

    The first is ``begin``. Row 0 is bar ``first`` of the market.
    """
    changed_rows = [bar - first for bar, _instrument, _table in inputs.changes]
    edges = {begin, stop, *(row for row in changed_rows if begin < row < stop)}
    return sorted(edges)


def read_held(run: RunData, n: int, first: int) -> HeldAtCloses:
    """Return what the account of a run held at its closes."""
    record = run.record
    amounts = tables.count_assets(run.state.held.amounts, run.entries, n, first, record.n_bars)
    return HeldAtCloses(
        cash=record.account.cash,
        quantity=record.positions.quantity,
        entry=record.positions.entry,
        margin=record.positions.margin,
        amounts=amounts,
        options=record.options.quantity,  # type: ignore[union-attr] # a loaded record has closes
    )
