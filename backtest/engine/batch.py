"""One account, or many alike, through the loop."""

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
from backtest.engine.loop import (
    Deciders,
)
from backtest.engine.option_trader import Legs, make_trader
from backtest.engine.policies import ObservedPolicy, gather_deciders
from backtest.engine.run_setup import Setup
from backtest.margin import OwnMargin
from backtest.policies import Policy
from backtest.results import Tally, start_tally
from backtest.results.record import Outcome

Compile: TypeAlias = bool | Literal["now"]
"""Whether compiled code is used: a short run does not wait for the compiler, but ``now``."""


class Switch(NamedTuple):
    bar: int
    observed: list[ObservedPolicy]


def run_account(
    setup: Setup,
    *,
    is_compiled: Compile,
    progress: core.Progress | None,
    switches: Sequence[Switch] = (),
) -> Outcome:
    run = partial(take, setup, progress=progress, switches=switches)
    choice = choose_loop(setup, is_compiled=is_compiled)
    if choice != "compiled":
        outcome = run(is_compiled=False)
        return outcome._replace(plain_because="") if choice == "sooner" else outcome
    try:
        return run(is_compiled=True)
    except driver.OverflowedFormula:
        return run(is_compiled=True, has_overflowed=True)


def choose_loop(setup: Setup, *, is_compiled: Compile) -> Literal["compiled", "plain", "sooner"]:
    """Return which loop an account takes; ``"sooner"`` is plain Python where nothing is compiled.

    Says on stderr that the engine is compiled first, where it is.
    """
    read_mode()  # a wrong word is refused where nothing compiles, too
    if not is_compiled or isinstance(setup.account.requirement, OwnMargin):
        return "plain"
    if is_loop_compiled(has_options=bool(setup.markets.options)):
        return "compiled"
    n = (len(setup.inputs.feed.time) - setup.first) * len(setup.markets)
    if is_compiled != "now" and is_plain_sooner(n):
        return "sooner"
    if BUILD.folder is None:  # `backtest compile` says what it does
        text = (
            "compiling the engine once on this machine, about 60 s; later runs take 2 s "
            "(backtest compile does it beforehand)"
        )
        with contextlib.suppress(OSError, ValueError, AttributeError):  # without a stderr
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one line there is
    return "compiled"


def is_loop_compiled(*, has_options: bool) -> bool:
    return driver.find_entry("simulate_batch", has_parts=has_options).is_compiled()


def begin(setup: Setup) -> tuple[AccountInputs, AccountState, Deciders, Tally]:
    """Return the inputs, state, policy table and tally with which a run starts or resumes."""
    inputs, resume = setup.inputs, setup.resume
    deciders = gather_deciders(setup, setup.observed)
    if resume is None:
        state = start_account_state(setup)
    else:
        options = start_options(inputs.terms.options, inputs.feed.options)
        names: list[str] = [*setup.markets.options]
        held: Any = resume.options
        for j, name in enumerate(() if held is None else held.terms.names):
            quantity = float(held.record.quantity[-1, j])
            if quantity != 0.0:
                if name not in names:
                    raise core.ParameterError(
                        "the markets of a resumed run must list the options that are held, got "
                        f"none named {name!r}"
                    )
                k = names.index(name)
                options.positions.quantities[k] = quantity
                options.priced[k] = held.record.value[-1, j]
                options.paid[k] = held.entries[-1, j]
        state = copy_state(resume.state)._replace(options=options)
        deciders.memory[:] = resume.memory
    tally = start_tally(float(state.wallet.unit), float(state.wallet.equity), setup.first)
    return inputs, state, deciders, tally


def list_policies(observed: Sequence[ObservedPolicy]) -> list[tuple[Policy, tuple[str, ...]]]:
    return [(each.policy, tuple(each.columns)) for each in observed]


def copy_state(state: AccountState) -> AccountState:
    copied: AccountState = copy_arrays(state)
    copied.cursor[:] = 0
    held = view_holdings(copied.positions, copied.held.amounts, copied.held.prices)
    return copied._replace(held=held)


def copy_arrays(record: Any) -> Any:
    return type(record)._make(
        copy_arrays(each) if isinstance(each, tuple) else each.copy() for each in record
    )


def take(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: core.Progress | None,
    switches: Sequence[Switch] = (),
    has_overflowed: bool = False,
) -> Outcome:
    whole = AccountRun(
        setup, is_compiled=is_compiled, switches=switches, has_overflowed=has_overflowed
    )
    whole.advance(len(setup.inputs.feed.time), progress)
    return whole.find_outcome()


class AccountRun:
    """An account of a setup on its way through the bars; ``drive`` takes it from bar to bar.

    From the bar of each switch on, other policies decide: the part after it has a drive of its own.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        is_compiled: bool,
        switches: Sequence[Switch] = (),
        has_overflowed: bool = False,
    ) -> None:
        self.setup = setup
        inputs, self.state, deciders, tally = begin(setup)
        self.parts = [Switch(setup.first, setup.observed), *switches]
        self.legs = Legs({}, {}, set())
        self.traders = [make_trader(setup, each.observed, self.legs) for each in self.parts]
        asked = []
        for k, (part, trader) in enumerate(zip(self.parts, self.traders, strict=True)):
            own = gather_deciders(setup, part.observed) if k else deciders
            own = own if trader is None else trader.bind(own)
            asked.append((own, list_policies(part.observed)))
        self.deciders = [own for own, _ in asked]
        self.memory = deciders
        has_orders = any(self.traders)
        if has_orders:  # which policies write
            options = inputs.feed.options
            options = options._replace(targets=options.targets.copy())
            inputs = inputs._replace(feed=inputs.feed._replace(options=options))
        self.inputs = inputs
        self.loop = driver.bind_loop(
            asked,
            is_compiled=is_compiled,
            has_own=isinstance(setup.account.requirement, OwnMargin),
            has_orders=has_orders,
            has_overflowed=has_overflowed,
        )
        n, total, first = len(self.state.positions), len(inputs.feed.time), setup.first
        self.chunk = driver.PLAIN_CHUNK if self.loop.plain_because else driver.CHUNK
        k = len(self.state.options.targets)
        room = 4 * n * min(self.chunk, total) + driver.LOGGED + 4 * k
        self.tape = driver.new_tape(n, total - first, first, room, k)
        traded = None if setup.resume is None else setup.resume.traded
        self.counts = driver.Counts(tally, traded, driver.new_cuts(n))
        self.stops = [*(each.bar for each in switches), total]
        self.entries: list[Entries] = []
        self.part = 0
        self.drive = self.begin_part()

    def begin_part(self) -> driver.Drive:
        """Return what drives the account through the bars of its part, with what it remembers."""
        own, before = self.deciders[self.part], self.memory
        n = len(self.state.positions)
        if len(own.rows) > 1:
            own.memory[-1] = before.memory[-1]
        if own.asks[n]:  # the overlay goes on
            own.memory[own.memory_at[n] :] = before.memory[before.memory_at[n] :]
        self.memory = own
        return driver.Drive(
            self.loop.simulate,
            self.loop.pack,
            self.inputs._replace(trader=self.traders[self.part]),
            self.state,
            own,
            self.loop.deciders[self.part],
            self.counts,
            self.parts[self.part].bar,
            self.tape,
            self.chunk,
        )

    def advance(self, stop: int, progress: core.Progress | None = None) -> None:
        """Take the account through its bars up to bar ``stop``."""
        while self.drive.t < stop:
            end = self.stops[self.part]
            self.drive.advance(min(stop, end), progress)
            if self.drive.t == end and self.part + 1 < len(self.parts):
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
            is_compiled=self.loop.pack is not None,
            legs={number: leg for number, (_, leg) in self.legs.owners.items()},
            hedged=frozenset(self.legs.hedged),
        )


MOST_PLAIN = 50_000
"""Bars times parameter sets times instruments that plain Python takes where nothing is compiled.

A bar takes plain Python about 200 us, so this many take 10 s; the compiler takes 60 s once.
"""


def is_plain_sooner(n: int) -> bool:
    """Return whether ``n`` bars times sets times instruments do not wait for the compiler."""
    return read_mode() != "now" and n <= MOST_PLAIN


def bind_policies(
    setup: Setup, deciders: Deciders, *, is_compiled: bool, has_overflowed: bool = False
) -> driver.BoundLoop:
    has_own = isinstance(setup.account.requirement, OwnMargin)
    asked = [(deciders, list_policies(setup.observed))]
    return driver.bind_loop(
        asked, is_compiled=is_compiled, has_own=has_own, has_overflowed=has_overflowed
    )


class LaterBars:
    """An account that goes on from a state, some bars at a time, without a record."""

    def __init__(
        self,
        setup: Setup,
        state: AccountState,
        memory: FloatArray,
        traded: TradedDays | None,
        *,
        is_compiled: bool,
    ) -> None:
        self.setup, self.state = setup, state
        _, _, self.deciders, tally = begin(setup)
        self.deciders.memory[:] = memory
        self.counts = driver.Counts(tally, traded)
        self.loop = bind_policies(setup, self.deciders, is_compiled=is_compiled)
        self.tape = driver.new_tape(len(setup.markets), 0, setup.first, 0)
        self.tape.is_on[0] = 0

    @property
    def tally(self) -> Tally:
        return self.counts.tally.copy()

    def pass_bars(self, inputs: AccountInputs, first: int, stop: int) -> None:
        loop, (bound,) = self.loop, self.loop.deciders
        given = (inputs, self.state, self.deciders, bound, self.counts, first, self.tape)
        drive = driver.Drive(loop.simulate, loop.pack, *given)
        drive.advance(stop)
        self.counts = drive.counts

    def measure(self, find: Callable[..., float], inputs: AccountInputs, t: int) -> float:
        """Return what a function finds in bar t from a copy of the state before it."""
        terms = driver.find_terms(inputs, t, self.counts.traded)
        with np.errstate(all="ignore"):
            return float(find(driver.new_bar(terms, inputs.feed, copy_state(self.state)), t))
