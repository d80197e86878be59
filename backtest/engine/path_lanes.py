"""One account on many paths: histories laid end to end, through which one call of the loop goes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest._compile import COMPILER_LOCK
from backtest.account import AccountState
from backtest.account.records import new_quotes, view_holdings
from backtest.core import BacktestError, FloatArray, IntArray
from backtest.core.structs import Struct, Structs
from backtest.engine import driver
from backtest.engine import loop as steps
from backtest.engine import policies as p
from backtest.engine.batch import begin, bind_policies, copy_state
from backtest.engine.inputs import AccountInputs, DailyFees
from backtest.engine.loop import DONE
from backtest.engine.policies import ObservedPolicy, gather_deciders
from backtest.engine.run_setup import Setup
from backtest.engine.shown import Deciders
from backtest.engine.tape import (
    BEGIN,
    FIRST,
    FLOWED,
    N_CLOSES,
    N_LIVES,
    SETTLED,
    STARTED,
    STOP,
    Lanes,
    RunTape,
    has_way,
)

FOREVER = 2**40
"""A day that never comes."""
N_PLACES = STARTED + 1
"""Columns of ``Lanes.places``."""


class LaneFault(Exception):  # noqa: N818 - no error of the user's: a run of the lane gives it
    def __init__(self, lane: int) -> None:
        super().__init__(f"lane {lane}")
        self.lane = lane


# Markets and policies, laid end to end.


class Laid(NamedTuple):
    """The markets and the policies of some lanes, laid end to end as if they were one long market.

    A lane is one history of the account. Every lane has ``width`` bars, with settlements and flows
    at the same ones. ``known`` of shape (lanes, n + 1), or of one row for all lanes, has the bar
    from which on each policy is asked.
    """

    inputs: AccountInputs
    deciders: Deciders
    observed: list[ObservedPolicy]
    known: IntArray
    width: int
    lanes: int


def lay(
    setup: Setup,
    lanes: int = 1,
    columns: Sequence[Mapping[str, FloatArray]] | None = None,
    known: IntArray | None = None,
    repeated: AccountInputs | None = None,
    **drawn: FloatArray,
) -> Laid:
    """Lay one account on many paths of prices end to end, as if they were one long market.

    Each path is a lane, a history of the account of ``setup``; its width is the number of bars.
    ``drawn`` are the fields of the feed that differ by lane, by name, and ``columns`` the columns
    of each policy: both of lanes * width bars.

    ``known`` of shape (lanes, policies) is the bar of its lane from which on each policy is asked;
    policies that it leaves out have that of the setup. ``repeated`` are the inputs of
    :func:`repeat_inputs` for as many lanes, if the caller has them.
    """
    observed = [policy._replace(first=0) for policy in setup.observed]
    if columns is not None:
        for i, columns_of_lanes in enumerate(columns):
            observed[i] = observed[i]._replace(columns={**columns_of_lanes})

    # Each policy of a lane is asked from a bar on, counted from the first bar of all lanes.
    width = len(setup.inputs.feed.time)
    deciders_of_one = gather_deciders(setup, setup.observed)
    asked_from = np.repeat(deciders_of_one.known[None], lanes, axis=0)
    if known is not None:
        first_bars = width * np.arange(lanes)
        n_policies = known.shape[1]
        asked_from[:, :n_policies] = first_bars[:, None] + known
    # The loop writes into the spans, so each thread has its own.
    inputs = repeated or repeat_inputs(setup, lanes, drawn)
    feed: Any = inputs.feed
    span = feed.span.copy()
    return Laid(
        inputs=inputs._replace(feed=feed._replace(**drawn, span=span)),
        deciders=lay_deciders(deciders_of_one, observed, lanes),
        observed=observed,
        known=asked_from,
        width=width,
        lanes=lanes,
    )


def repeat_inputs(setup: Setup, lanes: int, drawn: Collection[str]) -> AccountInputs:
    """Return inputs in which the bars of the setup stand ``lanes`` times, end to end.

    Fields of the feed named in ``drawn`` are left as they are: they differ by lane, and the caller
    writes them.
    """
    inputs: AccountInputs = setup.inputs
    width = len(inputs.feed.time)
    fields: dict[str, Any] = {}
    for name in {*inputs.feed._fields} - {*drawn, "options"}:
        fields[name] = lay_field(name, getattr(inputs.feed, name), lanes, width)
    feed: Any = inputs.feed._replace(**fields)

    # At the first bar of a market no interest is due: 0 years, at the first bar of each lane.
    if setup.first == 0:
        years = np.broadcast_to(inputs.feed.years, (width,)).copy()
        years[0] = 0.0
        feed = feed._replace(years=np.tile(years, lanes))
    if inputs.fees is None:
        return inputs._replace(feed=feed)

    # With fees by what was traded, each lane is counted bar by bar, as a run is: so clock and log
    # returns go on through all lanes.
    clock = type(inputs.clock)(*(np.tile(field, lanes) for field in inputs.clock))
    log_returns = np.tile(inputs.log_returns, (lanes, 1))
    return inputs._replace(feed=feed, clock=clock, log_returns=log_returns)


def lay_field(name: str, values: FloatArray, lanes: int, width: int) -> FloatArray:
    """Repeat a field of the feed that is the same in all lanes, lane after lane.

    ``width`` is the bars of a lane. How it is repeated follows from the field:

    - ``asset_*``, (n_assets, n_bars): along its bars;
    - ``funding_bar`` and ``flow_bar``, the bar of each payment: as bars that count on from lane to
      lane;
    - the other fields of payments, and those with a value for each bar: as they are;
    - a field that is neither of bars nor of payments: not at all.
    """
    if name.startswith("asset_"):
        return np.tile(values, (1, lanes))
    if name in {"funding_bar", "flow_bar"}:
        first_bars = width * np.arange(lanes)
        return (values + first_bars[:, None]).ravel()

    is_of_payments = name.startswith(("funding_", "flow_"))
    is_of_bars = width > 1 and len(values) == width
    if is_of_payments or is_of_bars:
        return np.concatenate([values] * lanes)
    return values


def lay_deciders(deciders: Deciders, observed: Sequence[ObservedPolicy], lanes: int) -> Deciders:
    """Return policies for lanes that lie end to end; their columns are those of ``observed``.

    ``deciders`` are the policies for one lane. All lanes begin with their first bar.
    """
    columns, columns_at = p.flatten_columns([*observed])
    return deciders._replace(
        columns=columns,
        columns_at=columns_at,
        lengths=deciders.lengths * lanes,
        firsts=np.zeros_like(deciders.firsts),
        tradable=np.concatenate([deciders.tradable] * lanes),
        index_bars=np.tile(deciders.index_bars, (1, lanes)),
    )


def place_lanes(
    feed: Any, begins: IntArray, firsts: IntArray, stops: IntArray, started: Any
) -> IntArray:
    """Return where each lane lies in the long market: rows of ``Lanes.places``, a lane each.

    ``begins``, ``firsts`` and ``stops`` are bars: where the market of a lane begins, where its
    account begins, and one past its last bar. ``started`` is when the account began, ns: a time for
    each lane, or one for all. A row also has the first settlement of funding and flow of money of
    its lane.
    """
    places = np.zeros((len(begins), N_PLACES), np.int64)
    places[:, BEGIN] = begins
    places[:, FIRST] = firsts
    places[:, STOP] = stops
    places[:, SETTLED] = np.searchsorted(feed.funding_bar, begins)
    places[:, FLOWED] = np.searchsorted(feed.flow_bar, begins)
    places[:, STARTED] = started
    return places


# The numbers of an account, which begin each lane again.


class FlatAccount(NamedTuple):
    """The numbers of an account and of its policies' memory, as one array.

    The arrays of ``state``, all but those of options, and the memory of ``deciders`` are views.
    """

    numbers: FloatArray
    state: AccountState
    deciders: Deciders


def lay_flat(state: AccountState, deciders: Deciders) -> FlatAccount:
    """Copy an account and its policies' memory so that all their numbers lie in one array.

    The arrays and structs of the new account are views of parts of that array. So to put the
    account back to its start, for the next lane, is to copy one array over it.
    """
    leaves = {"amounts": state.held.amounts, "prices": state.held.prices, "memory": deciders.memory}
    # The rest of ``held`` are columns of the positions, made again below. Options have no numbers
    # here: an account on paths holds none.
    names = [name for name in state._fields if name not in ("held", "options")]
    for name in names:
        leaves[name] = getattr(state, name)

    # One array of all numbers. Those of whole numbers have eight bytes too: they are copied as if
    # they were floats, which changes no byte.
    arrays = [driver.view_leaf(leaf).view(np.float64) for leaf in leaves.values()]
    numbers = np.concatenate(arrays)

    # Each leaf again, as a view of its part of that array.
    ends = np.cumsum([len(array) for array in arrays])
    parts = np.split(numbers, ends[:-1])
    views: dict[str, Any] = {}
    for (name, leaf), part in zip(leaves.items(), parts, strict=True):
        views[name] = view_as(leaf, part)

    fields = {name: views[name] for name in names}
    held = view_holdings(fields["positions"], views["amounts"], views["prices"])
    return FlatAccount(
        numbers=numbers,
        state=state._replace(held=held, **fields),
        deciders=deciders._replace(memory=views["memory"]),
    )


def view_as(like: Any, part: Any) -> Any:
    """Return a part of the numbers as what it was before: structs, a struct or an array."""
    if isinstance(like, Structs):
        return Structs(like.kind, len(like), part)
    if isinstance(like, Struct):
        return type(like).from_buffer(part)
    return part.view(like.dtype)


# The lives of an account.


class PreparedLanes(NamedTuple):
    """What one call of the loop needs for lanes.

    ``records`` are quotes, scratch and ledger. The lanes of the tape have room for as many places
    as pass at once, which each call writes; none where terms change on the way (not ``is_same``),
    as such lanes pass one by one.
    """

    loop: driver.BoundLoop
    inputs: AccountInputs
    terms: Any
    state: AccountState
    bound: Deciders
    records: tuple[Any, ...]
    tape: RunTape
    is_same: bool


class BatchLoop:
    """Simulates one account on many paths, with its policies compiled once.

    Each path is a lane: one history of the account from its start. What the account was at each
    close is written into an array of *lives*, a column for each bar, whose rows are those of
    ``Lanes.lives``: the first :data:`N_CLOSES`, or with ``has_extremes`` all.
    """

    def __init__(self, setup: Setup, *, is_compiled: bool, has_extremes: bool = False) -> None:
        """Bind the loop to the policies of the setup, and keep the account at its start."""
        self.setup = setup
        self.n_rows = N_LIVES if has_extremes else N_CLOSES
        _, self.state, self.deciders, self.tally = begin(setup)
        self.loop = bind_policies(setup, self.deciders, is_compiled=is_compiled)
        self.has_overflowed = False

    def simulate(self, laid: Laid, first: int) -> FloatArray:
        """Simulate all lanes; return what the account was at each close: (k, lanes, width).

        The k rows are those of ``Lanes.lives``; bars before ``first`` of a lane are 0. Raises
        LaneFault if a policy returned a negative leverage, or the books did not balance.
        """
        begins = np.arange(laid.lanes) * laid.width
        places = place_lanes(
            laid.inputs.feed,
            begins,
            firsts=begins + first,
            stops=begins + laid.width,
            started=laid.deciders.start[0],
        )
        lives = np.zeros((self.n_rows, laid.lanes * laid.width))
        self.prepare(laid, lives)(places)
        return lives.reshape(self.n_rows, laid.lanes, laid.width)

    def simulate_from(self, firsts: IntArray, width: int) -> Iterator[tuple[int, FloatArray]]:
        """Simulate the account anew from each of some bars of its own market; yield each history.

        ``firsts`` are these bars, rising; a history has ``width`` bars, or fewer at the end of the
        data. Yields pairs: the place of the bar in ``firsts``, and what the account was at each
        close, of shape (k, bars of the history). That array is written over later: use it before
        the next one. Raises LaneFault as :meth:`simulate` does.

        Histories may overlap, but one call of the loop has one column for each bar of the market.
        So each call, a *pass*, takes histories that do not overlap.
        """
        setup = self.setup
        feed = setup.inputs.feed
        years = np.broadcast_to(feed.years, feed.time.shape).copy()
        inputs = setup.inputs._replace(feed=feed._replace(years=years, span=feed.span.copy()))
        deciders = gather_deciders(setup, setup.observed)
        # At most so many lives of ``width`` bars do not overlap: the quotient, rounded up.
        n_bars = len(years)
        most_lives = -(-n_bars // width)
        lives = np.zeros((self.n_rows, n_bars))
        laid = Laid(
            inputs=inputs,
            deciders=deciders,
            observed=setup.observed,
            known=np.repeat(deciders.known[None], most_lives, axis=0),
            width=width,
            lanes=most_lives,
        )
        take_pass = self.prepare(laid, lives)

        left = np.arange(len(firsts))
        while len(left):
            chosen = choose_apart(firsts, left, width)
            left = np.setdiff1d(left, chosen)
            begins = firsts[chosen]
            stops = np.minimum(begins + width, n_bars)
            places = place_lanes(feed, begins, begins, stops, feed.time[begins])
            # The market of each life begins with the data, not with the life.
            places[:, BEGIN] = 0
            lives[:] = 0.0

            # An account that is new owes no interest for the bar before: its first bar is no time,
            # until the pass is over.
            years_before = years[begins]
            years[begins] = 0.0
            try:
                take_pass(places)
            except LaneFault as fault:
                raise LaneFault(chosen[fault.lane]) from fault
            years[begins] = years_before
            for k, first, stop in zip(chosen, begins.tolist(), stops.tolist(), strict=True):
                yield k, lives[:, first:stop]

    def prepare(self, laid: Laid, lives: FloatArray) -> Callable[[IntArray], None]:
        """Return a function that simulates lanes, which may be called repeatedly.

        ``laid`` are the markets and policies of the lanes. The function takes rows of
        :func:`place_lanes`, which say at which bars each lane begins and ends; it writes what the
        account was at each close into ``lives``, of shape (rows, bars of all lanes), and raises
        LaneFault for the first lane that has a fault.

        A fault may come from compiled code alone: its whole numbers have 64 bits, those of Python
        have no end. So after the first fault, policies of users decide in plain Python, in all
        threads, and the lanes are simulated again.
        """
        # Another thread may be in :meth:`decide_in_python`, which writes the loop, and then the
        # flag. So the flag is read first: where it is set, the loop is the new one.
        has_overflowed = self.has_overflowed
        loop = self.loop
        prepared = self.prepare_lanes(laid, lives, loop, has_overflowed=has_overflowed)

        # In both cases a fault cannot come from compiled whole numbers.
        decides_in_python = has_overflowed or not loop.is_compiled

        def take_lanes(places: IntArray) -> None:
            """Take the account through the lanes of some places; raises LaneFault."""
            # Another thread met an overflow since: what was prepared here has the old loop.
            if not decides_in_python and self.has_overflowed:
                self.prepare(laid, lives)(places)
                return

            try:
                self.pass_through(prepared, places)
            except LaneFault:
                if decides_in_python:
                    raise
                self.decide_in_python()
                self.prepare(laid, lives)(places)

        return take_lanes

    def prepare_lanes(
        self, laid: Laid, lives: FloatArray, loop: driver.BoundLoop, *, has_overflowed: bool
    ) -> PreparedLanes:
        """Return what one call of the loop needs: an account and records in memory of their own.

        ``lives`` is the array into which the loop writes what the account was at each close.
        """
        # The account and the memory of its policies lie in one array, so that one copy of it
        # begins a lane again. What the loop writes into the deciders is a copy too.
        deciders = laid.deciders._replace(
            memory=self.deciders.memory,
            start=laid.deciders.start.copy(),
            known=laid.deciders.known.copy(),
        )
        numbers, state, deciders = lay_flat(copy_state(self.state), deciders)
        loop, bound = self.bind_lanes(laid, deciders, loop, has_overflowed=has_overflowed)

        # Terms that stay the same are packed here, once; others on the way, lane by lane.
        inputs = driver.copy_terms(laid.inputs)
        is_same = inputs.fees is None and not inputs.changes
        terms = inputs.terms
        if is_same and loop.pack is not None:  # the loop is compiled
            terms = loop.pack(inputs.terms)

        # The tape has the places of the lanes that pass in one call. Single bars are not recorded.
        n_instruments = len(self.setup.markets)
        n_assets = len(state.priced)
        n_places = laid.lanes if is_same else 0
        lanes = Lanes(
            places=np.zeros((n_places, N_PLACES), np.int64),
            known=laid.known,
            lives=lives,
            begun=numbers.copy(),
            numbers=numbers,
        )
        tape = driver.new_tape(n_instruments, n_bars=0, first=0, capacity=0)._replace(lanes=lanes)
        tape.is_on[0] = 0

        records = (
            new_quotes(n_instruments, n_assets),
            driver.new_scratch(n_instruments, n_assets, has_extremes=has_way(lives)),
            driver.new_ledger(n_instruments),
        )
        return PreparedLanes(
            loop=loop,
            inputs=inputs,
            terms=terms,
            state=state,
            bound=bound,
            records=records,
            tape=tape,
            is_same=is_same,
        )

    def bind_lanes(
        self, laid: Laid, deciders: Deciders, loop: driver.BoundLoop, *, has_overflowed: bool
    ) -> tuple[driver.BoundLoop, Deciders]:
        """Return the loop for some lanes, and their policies in the form in which it asks them.

        ``deciders`` are the policies, in plain Python, on the columns of these lanes. There are
        three cases.

        - A compiled loop with compiled policies stays, and so do the addresses of their formulas.
        - A loop in plain Python stays, and asks the methods of policies.
        - A compiled loop that calls policies in plain Python is bound anew, as these read the
          columns of these lanes.
        """
        # All is compiled: neither the loop nor a policy has a reason to be in plain Python.
        if loop.is_compiled and not loop.plain_because:
            compiled = loop.deciders[0]
            bound = deciders._replace(
                methods=0,
                addresses=compiled.addresses,
                wants_table=compiled.wants_table,
                wants_account=compiled.wants_account,
                wants_bar=compiled.wants_bar,
            )
            return loop, bound

        # In plain Python, policies are asked by methods that read the columns of these lanes.
        bound = deciders._replace(methods=tuple(map(p.bind, laid.observed)))
        if not loop.is_compiled:
            return loop, bound

        # The compiled loop calls these methods back. What they warn of was said before.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop = bind_policies(self.setup, bound, is_compiled=True, has_overflowed=has_overflowed)
        return loop, loop.deciders[0]

    def pass_through(self, prepared: PreparedLanes, places: IntArray) -> None:
        """Simulate the account in some lanes; LaneFault names the first with a fault.

        ``places`` are rows of :func:`place_lanes`, one a lane. Lanes whose terms stay the same
        (``is_same``) are simulated by one call of the loop, which reads their bars from the places.
        Others need a call each.
        """
        tape = prepared.tape
        if not prepared.is_same:
            for k, place in enumerate(places):
                self.run_alone(prepared, tape, place, k)
            return

        # The array of places stays, so that a call need not pack its arguments again. It may have
        # room for more lanes: the rest begin where they stop, so they have no bars.
        n_lanes = len(places)
        tape.lanes.places[:n_lanes] = places
        tape.lanes.places[n_lanes:] = places[-1]
        tape.lanes.places[n_lanes:, FIRST] = places[-1, STOP]

        # The last two arguments, bars from and to, are not read: places have those of each lane.
        inputs = prepared.inputs
        with np.errstate(all="ignore"):
            reached, reason = prepared.loop.simulate(
                prepared.terms,
                inputs.feed,
                inputs.clock,
                inputs.log_returns,
                prepared.bound,
                prepared.state,
                *prepared.records,
                self.tally,
                tape,
                0,
                0,
            )
        if reason != DONE:
            # Lanes pass in their order, so the bar reached lies in the first that has not ended.
            lane = int(np.searchsorted(places[:, STOP], reached, side="right"))
            raise LaneFault(lane)

    def run_alone(self, prepared: PreparedLanes, tape: RunTape, place: IntArray, k: int) -> None:
        """Simulate the account in lane k by a call of its own, as a run is; raises LaneFault.

        It is for accounts whose terms change on the way: fees by what was traded, or margin tables
        by date. ``place`` is the row of the lane: where its columns begin, its first bar, and one
        past its last.
        """
        inputs = prepared.inputs
        first = int(place[FIRST])
        stop = int(place[STOP])
        if inputs.fees is not None:
            inputs = pad_fees(inputs, inputs.fees, n_before=int(place[BEGIN]), stop=stop)

        # The account begins anew; the tape holds this lane alone, as lane 0 of one.
        lanes = tape.lanes._replace(places=place[None], known=tape.lanes.known[k : k + 1])
        steps.begin_lane(lanes, inputs.feed, prepared.bound, prepared.state, 0)

        # Nobody asks the plain policies of a lane, so the bound ones stand for them.
        part = driver.LoopPart(
            simulate=prepared.loop.simulate,
            pack=prepared.loop.pack,
            deciders=prepared.bound,
            bound=prepared.bound,
        )
        traded = None
        if self.setup.resume is not None:
            traded = self.setup.resume.traded

        try:
            drive = driver.Drive(
                inputs,
                prepared.state,
                part,
                counts=driver.Counts(self.tally.copy(), traded),
                tape=tape,
                first=first,
            )
            drive.advance(stop)
        except BacktestError as error:
            raise LaneFault(k) from error

    def decide_in_python(self) -> None:
        """Let policies of users decide in plain Python from now on, called by the compiled loop.

        Any thread calls it once whole numbers of a compiled formula may have gone beyond 64 bits.
        The warning of it follows where the lanes end (:meth:`warn_of_overflow`).
        """
        with COMPILER_LOCK:
            if self.has_overflowed:  # another thread was first
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.loop = bind_policies(
                    self.setup, self.deciders, is_compiled=True, has_overflowed=True
                )
            self.has_overflowed = True

    def warn_of_overflow(self) -> None:
        """Warn if whole numbers of a policy went beyond 64 bits; not in a thread of lanes."""
        if self.has_overflowed and self.loop.plain_because:
            core.warn_caller(f"the lanes ran in plain Python: {self.loop.plain_because}")


def pad_fees(inputs: AccountInputs, fees: DailyFees, n_before: int, stop: int) -> AccountInputs:
    """Return inputs whose days of fees cover the feed: bars before and after a lane have none."""
    n_after = len(inputs.feed.time) - stop
    day = np.pad(fees.day, (n_before, n_after), constant_values=(0, FOREVER))
    return inputs._replace(fees=fees._replace(day=day))


def choose_apart(firsts: IntArray, left: IntArray, width: int) -> list[int]:
    """Choose histories that do not overlap, for one call of the loop: places in ``firsts``.

    ``firsts`` are the bars at which histories of ``width`` bars begin, rising, and ``left`` the
    places of those that are still to be simulated.
    """
    chosen = []
    stop = 0
    for k in left.tolist():
        if firsts[k] >= stop:
            chosen.append(k)
            stop = int(firsts[k]) + width
    return chosen
