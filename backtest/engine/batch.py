"""One account through the loop, in plain Python or compiled."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest._compile.object_code import BUILD, read_mode
from backtest.account import AccountState
from backtest.account.events import Entries
from backtest.account.records import TradedDays, start_options, view_holdings
from backtest.core import FloatArray
from backtest.engine import driver
from backtest.engine.inputs import AccountInputs, start_account_state
from backtest.engine.option_trader import Legs, make_trader
from backtest.engine.policies import ObservedPolicy, gather_deciders
from backtest.engine.run_setup import Setup
from backtest.engine.shown import Deciders
from backtest.engine.tape import RunTape
from backtest.margin import OwnMargin
from backtest.policies import Policy
from backtest.results import Tally, start_tally
from backtest.results.record import Outcome

Compile: TypeAlias = bool | Literal["now"]
"""Whether compiled code is used: a short run does not wait for the compiler, but ``now``."""


class Switch(NamedTuple):
    """The policies that decide from a bar on."""

    bar: int
    observed: list[ObservedPolicy]


def run_account(
    setup: Setup,
    *,
    is_compiled: Compile,
    progress: core.Progress | None,
    switches: Sequence[Switch] = (),
) -> Outcome:
    """Simulate an account from its first bar to its last; return its record.

    From the bar of each switch on, the policies of the switch decide. Where the whole numbers of a
    compiled formula go beyond 64 bits, the account is simulated again with that formula in Python.
    """
    run = partial(simulate, setup, progress=progress, switches=switches)
    choice = choose_loop(setup, is_compiled=is_compiled)

    if choice == "plain":
        return run(is_compiled=False)
    if choice == "sooner":
        return run(is_compiled=False)._replace(plain_because="")
    try:
        return run(is_compiled=True)
    except driver.OverflowedFormula:
        return run(is_compiled=True, has_overflowed=True)


def choose_loop(setup: Setup, *, is_compiled: Compile) -> Literal["compiled", "plain", "sooner"]:
    """Return which loop an account runs through: the compiled one, or the one in plain Python.

    ``"plain"`` is what was asked for, or what a margin requirement of the user's needs.
    ``"sooner"`` is plain Python too, for a short run that would wait for the compiler longer than
    it takes. If the engine must be compiled first, a line on stderr says so.
    """
    read_mode()  # refuses a wrong word of the environment, also where nothing is compiled
    if not is_compiled or isinstance(setup.account.requirement, OwnMargin):
        return "plain"
    if is_loop_compiled(has_options=bool(setup.markets.options)):
        return "compiled"

    n_bars = len(setup.inputs.feed.time) - setup.first
    if is_compiled != "now" and is_plain_sooner(n_bars * len(setup.markets)):
        return "sooner"
    if BUILD.folder is None:  # `backtest compile` says what it does
        text = (
            "compiling the engine once on this machine, a minute or two of CPU and longer where "
            "others work; later runs take 2 s (backtest compile does it beforehand, and shows how "
            "far it is)"
        )
        with contextlib.suppress(OSError, ValueError, AttributeError):  # without a stderr
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one line there is
    return "compiled"


def is_loop_compiled(*, has_options: bool) -> bool:
    return driver.find_entry("simulate_batch", has_parts=has_options).is_compiled()


MOST_PLAIN = 50_000
"""Bars times parameter sets times instruments that plain Python takes where nothing is compiled.

A bar takes plain Python about 200 us, so this many take 10 s; the compiler takes 60 s once.
"""


def is_plain_sooner(n: int) -> bool:
    """Return whether ``n`` bars times sets times instruments do not wait for the compiler."""
    return read_mode() != "now" and n <= MOST_PLAIN


# Where a run begins.


def begin(setup: Setup) -> tuple[AccountInputs, AccountState, Deciders, Tally]:
    """Return inputs, state, policies and tally with which a run starts, or resumes another one.

    A resumed run goes on from the state of the account and the memory of its policies; what it
    counts begins anew.
    """
    deciders = gather_deciders(setup, setup.observed)
    if setup.resume is None:
        state = start_account_state(setup)
    else:
        options = resume_options(setup)
        state = copy_state(setup.resume.state)._replace(options=options)
        deciders.memory[:] = setup.resume.memory

    tally = start_tally(float(state.wallet.unit), float(state.wallet.equity), setup.first)
    return setup.inputs, state, deciders, tally


def copy_option_targets(inputs: AccountInputs) -> AccountInputs:
    """Return inputs whose orders of options are their own; the rest stays shared."""
    options = inputs.feed.options
    options = options._replace(targets=options.targets.copy())
    return inputs._replace(feed=inputs.feed._replace(options=options))


def resume_options(setup: Setup) -> Any:
    """Return the options that the earlier run held at its last close, for the run that resumes it.

    Contracts are numbered by the markets of a run, so they may have other numbers now: they are
    found by name. Raises ParameterError if one that is held is not listed now.
    """
    inputs = setup.inputs
    resume: Any = setup.resume
    options = start_options(inputs.terms.options, inputs.feed.options)
    before: Any = resume.options
    if before is None:  # a run without options
        return options

    listed: list[str] = [*setup.markets.options]
    for number_before, name in enumerate(before.terms.names):
        quantity = float(before.record.quantity[-1, number_before])
        if quantity == 0.0:
            continue
        if name not in listed:
            raise core.ParameterError(
                "the markets of a resumed run must list the options that are held, got "
                f"none named {name!r}"
            )
        number = listed.index(name)
        options.positions.quantities[number] = quantity
        options.priced[number] = before.record.value[-1, number_before]
        options.paid[number] = before.entries[-1, number_before]
    return options


def list_policies(observed: Sequence[ObservedPolicy]) -> list[tuple[Policy, tuple[str, ...]]]:
    return [(own.policy, tuple(own.columns)) for own in observed]


def copy_state(state: AccountState) -> AccountState:
    """Return a copy that shares no memory; its cursor begins again."""
    copied: AccountState = driver.copy_arrays(state)
    copied.cursor[:] = 0
    held = view_holdings(copied.positions, copied.held.amounts, copied.held.prices)
    return copied._replace(held=held)


# One account, through all of its bars.


def simulate(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: core.Progress | None,
    switches: Sequence[Switch] = (),
    has_overflowed: bool = False,
) -> Outcome:
    """Simulate an account over all of its bars; return where it ended, and its record."""
    run = AccountRun(
        setup, is_compiled=is_compiled, switches=switches, has_overflowed=has_overflowed
    )
    run.advance(len(setup.inputs.feed.time), progress)
    return run.find_outcome()


class AccountRun:
    """Simulates the account of a setup, whose policies may change at given bars.

    The bars in which the same policies decide are a *part* of the run. ``parts``, ``stops``,
    ``traders`` and ``deciders`` have an item for each part; ``part`` is the number of the current
    one, and ``drive`` simulates its bars.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        is_compiled: bool,
        switches: Sequence[Switch] = (),
        has_overflowed: bool = False,
    ) -> None:
        """Begin an account whose policies change at the bars of some switches.

        ``is_compiled`` asks for the compiled loop, ``has_overflowed`` for formulas of users in
        plain Python, as their whole numbers went beyond 64 bits in a run before.
        """
        # The account at its start, and what it counts.
        self.setup = setup
        shared_inputs, self.state, first_deciders, tally = begin(setup)
        traded = None if setup.resume is None else setup.resume.traded
        self.counts = driver.Counts(tally, traded, driver.new_cuts(len(self.state.positions)))

        # The parts, from one switch to the next. Events of parts that are over are in ``entries``.
        n_bars = len(shared_inputs.feed.time)
        self.parts = [Switch(setup.first, setup.observed), *switches]
        self.stops = [*(switch.bar for switch in switches), n_bars]
        self.part = 0
        self.entries: list[Entries] = []

        # Inputs are shared by runs, but bars write into the terms, and policies that trade options
        # write their orders into the feed: both are copied. All traders know the same legs.
        self.legs = Legs({}, {}, set())
        self.traders = [make_trader(setup, part.observed, self.legs) for part in self.parts]
        self.inputs = driver.copy_terms(shared_inputs)
        if any(self.traders):
            self.inputs = copy_option_targets(self.inputs)

        # One loop is bound for the policies of all parts. ``memory`` is that of the policies that
        # decide now: those of the first part.
        self.deciders = self.gather_parts(first_deciders)
        self.memory = first_deciders
        self.loop = self.bind_loop(is_compiled=is_compiled, has_overflowed=has_overflowed)

        # The tape has room for the events of a chunk of bars; the drive needs all of the above.
        self.chunk = driver.PLAIN_CHUNK if self.loop.plain_because else driver.CHUNK
        self.tape = self.make_tape(n_bars)
        self.drive = self.begin_part()

    def bind_loop(self, *, is_compiled: bool, has_overflowed: bool) -> driver.BoundLoop:
        """Return the loop over the bars with the formulas of the policies of all parts."""
        formulas = [list_policies(part.observed) for part in self.parts]
        return driver.bind_loop(
            [*zip(self.deciders, formulas, strict=True)],
            is_compiled=is_compiled,
            has_own=isinstance(self.setup.account.requirement, OwnMargin),
            has_orders=any(self.traders),
            has_overflowed=has_overflowed,
        )

    def make_tape(self, n_bars: int) -> RunTape:
        """Return a tape for the record of all bars, and for the usual events of a chunk of them.

        Usual are four events in a bar of an instrument, and four of an option. If a chunk has more,
        its log is made larger, and the chunk is taken once more.
        """
        n_instruments = len(self.state.positions)
        n_options = len(self.state.options.targets)
        n_usual = 4 * n_instruments * min(self.chunk, n_bars) + 4 * n_options
        first = self.setup.first
        return driver.new_tape(
            n_instruments,
            n_bars - first,
            first,
            capacity=n_usual + driver.LOGGED,
            n_options=n_options,
        )

    def gather_parts(self, first_deciders: Deciders) -> list[Deciders]:
        """Return the policies of each part of the run, in the form that the loop reads.

        A part is bars in which the same policies decide. ``first_deciders`` are those of the first
        part, which are gathered already. A trader of options decides in place of the policies of
        its part.
        """
        gathered = []
        for k, (part, trader) in enumerate(zip(self.parts, self.traders, strict=True)):
            deciders = first_deciders
            if k > 0:
                deciders = gather_deciders(self.setup, part.observed)
            if trader is not None:
                deciders = trader.bind(deciders)
            gathered.append(deciders)
        return gathered

    def begin_part(self) -> driver.Drive:
        """Return what simulates the bars of part ``self.part``, with the policies of that part.

        Its policies begin with a memory of their own. Two things go on from the part before: the
        memory of the overlay, which switches do not change, and the highest unit value at a
        decision. Both are copied from ``self.memory``, which until then has the policies of that
        part.
        """
        deciders = self.deciders[self.part]
        before = self.memory

        # Where policies decide on longer bars, that highest value is the last number of the memory.
        if len(deciders.rows) > 1:
            deciders.memory[-1] = before.memory[-1]
        # The overlay is the policy after those of the instruments; the memory ends with its own.
        overlay = len(self.state.positions)
        if deciders.asks[overlay]:
            first_number = deciders.memory_at[overlay]
            first_before = before.memory_at[overlay]
            deciders.memory[first_number:] = before.memory[first_before:]

        self.memory = deciders
        return driver.Drive(
            self.inputs._replace(trader=self.traders[self.part]),
            self.state,
            self.loop.find_part(deciders, self.part),
            counts=self.counts,
            tape=self.tape,
            first=self.parts[self.part].bar,
            chunk=self.chunk,
        )

    def advance(self, stop: int, progress: core.Progress | None = None) -> None:
        """Simulate the account up to bar ``stop``, part by part."""
        while self.drive.t < stop:
            end_of_part = self.stops[self.part]
            self.drive.advance(min(stop, end_of_part), progress)

            # The next part goes on with what was counted; the events of this one are kept.
            if self.drive.t == end_of_part and self.part + 1 < len(self.parts):
                self.counts = self.drive.counts
                self.entries.append(self.drive.take_entries())
                self.part += 1
                self.drive = self.begin_part()

    def find_outcome(self) -> Outcome:
        """Return where the account ended."""
        counts = self.drive.counts
        return Outcome(
            state=self.state,
            tally=counts.tally,
            traded=counts.traded,
            record=self.tape.record,
            entries=np.concatenate([*self.entries, self.drive.take_entries()]),
            memory=self.memory.memory,
            plain_because=self.loop.plain_because,
            cuts=counts.cuts,
            is_compiled=self.loop.is_compiled,
            legs={number: leg for number, (_, leg) in self.legs.owners.items()},
            hedged=frozenset(self.legs.hedged),
        )


def bind_policies(
    setup: Setup, deciders: Deciders, *, is_compiled: bool, has_overflowed: bool = False
) -> driver.BoundLoop:
    return driver.bind_loop(
        [(deciders, list_policies(setup.observed))],
        is_compiled=is_compiled,
        has_own=isinstance(setup.account.requirement, OwnMargin),
        has_overflowed=has_overflowed,
    )


class LaterBars:
    """Simulates an account from a given state on, some bars at a time, without a record."""

    def __init__(
        self,
        setup: Setup,
        state: AccountState,
        memory: FloatArray,
        traded: TradedDays | None,
        *,
        is_compiled: bool,
    ) -> None:
        """Begin an account from a state, and from the memory of its policies there.

        The bars write into ``state``. ``traded`` is what the account traded by day, for fees with
        tiers; None without any.
        """
        self.setup = setup
        self.state = state

        # Of a new account come the policies and a tally of 0, but not its state.
        _, _, self.deciders, tally = begin(setup)
        self.deciders.memory[:] = memory
        self.counts = driver.Counts(tally, traded)
        self.loop = bind_policies(setup, self.deciders, is_compiled=is_compiled)

        # A tape that is off records no bars and no events, so it needs no room.
        self.tape = driver.new_tape(len(setup.markets), n_bars=0, first=setup.first, capacity=0)
        self.tape.is_on[0] = 0
        self.drive: driver.Drive | None = None

    @property
    def tally(self) -> Tally:
        return self.counts.tally.copy()

    def pass_bars(self, inputs: AccountInputs, first: int, stop: int) -> None:
        """Simulate the account in bars ``first`` to ``stop`` of some inputs."""
        drive = self.find_drive(inputs, first)
        drive.advance(stop)
        self.counts = drive.counts
        self.drive = drive

    def find_drive(self, inputs: AccountInputs, first: int) -> driver.Drive:
        """Return the drive through these inputs that has come to a bar, or a new one.

        Its arguments are packed for compiled code; those of a new one would be packed again.
        """
        drive = self.drive
        if drive is not None and drive.inputs is inputs and drive.t == first:
            return drive
        return driver.Drive(
            inputs,
            self.state,
            self.loop.find_part(self.deciders),
            counts=self.counts,
            tape=self.tape,
            first=first,
        )

    def measure(self, find: Callable[..., float], inputs: AccountInputs, t: int) -> float:
        """Return what a function finds in bar t from a copy of the state before it."""
        terms = driver.find_terms(inputs, t, self.counts.traded)
        bar = driver.new_bar(terms, inputs.feed, copy_state(self.state))
        with np.errstate(all="ignore"):
            return float(find(bar, t))
