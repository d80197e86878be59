"""One account on many paths: histories laid end to end, which one call of the loop lives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from backtest.engine.inputs import AccountInputs
from backtest.engine.loop import BEGIN, DONE, FIRST, N_LIVES, STOP, Deciders, Lanes, RunTape
from backtest.engine.policies import ObservedPolicy, gather_deciders
from backtest.engine.run_setup import Setup

FOREVER = 2**40
"""A day that never comes."""


class LaneFault(Exception):  # noqa: N818 - no error of the user's: a run of the lane gives it
    def __init__(self, lane: int) -> None:
        super().__init__(f"lane {lane}")
        self.lane = lane


class Laid(NamedTuple):
    """The markets and the policies of some lanes, end to end.

    Every lane has ``width`` bars, and settlements and flows at the same ones. ``known`` of shape
    (lanes, n + 1), or of one row for all lanes, has the bar from which on each policy is asked.
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
    **drawn: FloatArray,
) -> Laid:
    """Return lanes that differ only in some fields of the feed and in columns, end to end.

    Both are given of shape (lanes * width, ...). ``known`` of shape (lanes, n) has the bar of its
    lane from which on each policy is asked, by default that of the columns of the setup.
    """
    given = [own.columns for own in setup.observed] if columns is None else columns
    pairs = zip(setup.observed, given, strict=True)
    observed = [policy._replace(columns={**own}, first=0) for policy, own in pairs]
    inputs, width = setup.inputs, len(setup.inputs.feed.time)
    fields = dict(drawn)
    for name in {*inputs.feed._fields} - {*drawn, "options"}:
        each = getattr(inputs.feed, name)
        if name.startswith("asset_"):
            fields[name] = np.tile(each, (1, lanes))
        elif name in {"funding_bar", "flow_bar"}:
            fields[name] = (each + np.arange(lanes)[:, None] * width).ravel()
        elif name.startswith(("funding_", "flow_")) or len(each) == width > 1:
            fields[name] = np.concatenate([each] * lanes)
        else:
            fields[name] = each.copy()  # the loop changes the span of the feed
    feed: Any = inputs.feed._replace(**fields)
    if setup.first == 0:  # at which no interest is due, also of lanes that begin later
        years = np.broadcast_to(inputs.feed.years, (width,)).copy()
        years[0] = 0.0
        feed = feed._replace(years=np.tile(years, lanes))
    laid = inputs._replace(feed=feed)
    if inputs.fees is not None:  # which count what is traded, and so every bar
        tally = [np.tile(each, lanes) for each in inputs.clock]
        laid = laid._replace(
            clock=type(inputs.clock)(*tally),
            log_returns=np.tile(inputs.log_returns, (lanes, 1)),
        )
    one = gather_deciders(setup, setup.observed)
    joined, at = p.flatten_columns(observed)
    deciders = one._replace(
        columns=joined,
        columns_at=at,
        lengths=one.lengths * lanes,
        firsts=np.zeros_like(one.firsts),
        tradable=np.concatenate([one.tradable] * lanes),
        index_bars=np.tile(one.index_bars, (1, lanes)),
    )
    asked_from = np.repeat(one.known[None], lanes, axis=0)
    if known is not None:
        begins = width * np.arange(lanes)
        asked_from[:, : known.shape[1]] = known + begins[:, None]
    return Laid(laid, deciders, observed, asked_from, width, lanes)


def lay_flat(state: AccountState, deciders: Deciders) -> tuple[FloatArray, AccountState, Deciders]:
    """Return the numbers of an account, all but its options, and of the memory, as one array.

    The arrays of the state and the memory that are returned are views of it.
    """
    names = [name for name in state._fields if name not in ("held", "options")]
    leaves = [state.held.amounts, state.held.prices, *(getattr(state, name) for name in names)]
    leaves.append(deciders.memory)
    arrays = [driver.view_leaf(each).view(np.float64) for each in leaves]
    numbers = np.concatenate(arrays)
    parts = np.split(numbers, np.cumsum([len(each) for each in arrays])[:-1])
    views = (view_as(each, part) for each, part in zip(leaves, parts, strict=True))
    amounts, prices = next(views), next(views)
    own: dict[str, Any] = {name: next(views) for name in names}
    held = view_holdings(own["positions"], amounts, prices)
    return numbers, state._replace(held=held, **own), deciders._replace(memory=next(views))


def view_as(like: Any, part: Any) -> Any:
    if isinstance(like, Structs):
        return Structs(like.kind, len(like), part)
    return type(like).from_buffer(part) if isinstance(like, Struct) else part.view(like.dtype)


def place_lanes(
    feed: Any, begins: IntArray, firsts: IntArray, stops: IntArray, started: Any
) -> IntArray:
    """Return the rows of ``Lanes.places``, of lanes whose settlements and flows are from begins."""
    events = [np.searchsorted(x, begins) for x in (feed.funding_bar, feed.flow_bar)]
    times = np.broadcast_to(started, begins.shape)
    return np.stack([begins, firsts, stops, *events, times], axis=1)


class BatchLoop:
    """Simulates one account on many paths, with its policies compiled once."""

    def __init__(self, setup: Setup, *, is_compiled: bool) -> None:
        self.setup = setup
        _, self.state, self.deciders, self.tally = begin(setup)
        self.loop = bind_policies(setup, self.deciders, is_compiled=is_compiled)
        self.has_overflowed = False

    def live(self, laid: Laid, first: int) -> FloatArray:
        """Return the rows of ``Lanes.lives`` of lanes from bar ``first`` on, (8, lanes, width).

        Raises LaneFault if a policy returned a negative leverage, or the books did not balance.
        """
        begins, started = np.arange(laid.lanes) * laid.width, laid.deciders.start[0]
        places = place_lanes(laid.inputs.feed, begins, begins + first, begins + laid.width, started)
        lives = np.zeros((N_LIVES, laid.lanes * laid.width))
        self.prepare(laid, lives)(places)
        return lives.reshape(N_LIVES, laid.lanes, laid.width)

    def live_from(self, firsts: IntArray, width: int) -> Iterator[tuple[int, FloatArray]]:
        """Yield the same rows, (8, width), of an account that is new at each of some bars.

        Its setup is that of the whole market, and its histories may overlap; they end with the
        data. With the rows comes the place of the bar in ``firsts``, which rise. Rows that are
        yielded are written again later. Raises LaneFault as :meth:`live` does.
        """
        setup, feed = self.setup, self.setup.inputs.feed
        years = np.broadcast_to(feed.years, feed.time.shape).copy()
        inputs = setup.inputs._replace(feed=feed._replace(years=years, span=feed.span.copy()))
        deciders = gather_deciders(setup, setup.observed)
        lives = np.zeros((N_LIVES, len(years)))
        laid = Laid(inputs, deciders, setup.observed, deciders.known[None], width, 1)
        go = self.prepare(laid, lives)
        left = np.arange(len(firsts))
        while len(left):  # those that do not overlap go together
            chosen, stop = [], 0
            for k in left.tolist():
                if firsts[k] >= stop:
                    chosen.append(k)
                    stop = int(firsts[k]) + width
            begins, left = firsts[chosen], np.setdiff1d(left, chosen)
            stops = np.minimum(begins + width, len(years))
            places = place_lanes(feed, begins, begins, stops, feed.time[begins])
            places[:, BEGIN], lives[:] = 0, 0.0
            own, years[begins] = years[begins], 0.0  # no interest is due for the bar before
            try:
                go(places)
            except LaneFault as fault:
                raise LaneFault(chosen[fault.lane]) from fault
            years[begins] = own
            for k, first, end in zip(chosen, begins.tolist(), stops.tolist(), strict=True):
                yield k, lives[:, first:end]

    def prepare(self, laid: Laid, lives: FloatArray) -> Callable[[IntArray], None]:
        """Return what takes the account through some places of lanes, and writes ``lives``."""
        deciders = laid.deciders._replace(
            memory=self.deciders.memory,
            start=laid.deciders.start.copy(),
            known=laid.deciders.known.copy(),
        )
        numbers, state, deciders = lay_flat(copy_state(self.state), deciders)
        has_overflowed = self.has_overflowed  # read before the loop, which is written before it
        loop = self.loop
        if loop.pack is not None and not loop.plain_because:
            names = ("addresses", "wants_table", "wants_account", "wants_bar")
            addresses = {name: getattr(loop.deciders[0], name) for name in names}
            bound = deciders._replace(methods=0, **addresses)
        else:
            bound = deciders._replace(methods=tuple(map(p.bind, laid.observed)))
            if loop.pack is not None:  # policies in plain Python are called back with their own
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    loop = bind_policies(
                        self.setup, bound, is_compiled=True, has_overflowed=has_overflowed
                    )
                (bound,) = loop.deciders
        inputs, n, assets = laid.inputs, len(self.setup.markets), len(state.priced)
        tape, begun = driver.new_tape(n, 0, 0, 0), numbers.copy()
        tape.is_on[0] = 0
        scratch = driver.new_scratch(n, assets, has_extremes=True)
        records = new_quotes(n, assets), scratch, driver.new_ledger(n)
        market = (inputs.feed, inputs.clock, inputs.log_returns)
        is_same = inputs.fees is None and not inputs.changes
        terms = inputs.terms if loop.pack is None or not is_same else loop.pack(inputs.terms)

        def pass_through(places: IntArray) -> None:
            lanes = Lanes(
                places=places if is_same else places[:0],
                known=np.repeat(laid.known, len(places) // len(laid.known), axis=0),
                lives=lives,
                begun=begun,
                numbers=numbers,
            )
            on = tape._replace(lanes=lanes)
            if not is_same:
                for k, place in enumerate(places):
                    self.live_one(loop, (inputs, state, bound), on, place, k)
                return
            with np.errstate(all="ignore"):
                reached, why = loop.simulate(
                    terms, *market, bound, state, *records, self.tally, on, 0, 0
                )
            if why != DONE:
                raise LaneFault(int(np.searchsorted(places[:, STOP], reached, side="right")))

        is_called_back = has_overflowed or loop.pack is None

        def go(places: IntArray) -> None:
            if not is_called_back and self.has_overflowed:
                self.prepare(laid, lives)(places)
                return
            try:
                pass_through(places)
            except LaneFault:  # a whole number may be beyond 64 bits
                if is_called_back:
                    raise
                self.call_back()
                self.prepare(laid, lives)(places)

        return go

    def call_back(self) -> None:
        """Let policies of users decide in plain Python from now on, in any thread."""
        with COMPILER_LOCK:
            if self.has_overflowed:
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # told where the lanes end, see tell_overflow
                self.loop = bind_policies(
                    self.setup, self.deciders, is_compiled=True, has_overflowed=True
                )
            self.has_overflowed = True

    def tell_overflow(self) -> None:
        """Warn if whole numbers of a policy went beyond 64 bits; not in a thread of lanes."""
        if self.has_overflowed and self.loop.plain_because:
            core.warn_caller(f"the lanes ran in plain Python: {self.loop.plain_because}")

    def live_one(
        self, loop: driver.BoundLoop, given: tuple[Any, ...], tape: RunTape, place: IntArray, k: int
    ) -> None:
        """Live a lane whose terms change on the way: fees by what was traded."""
        inputs, state, bound = given
        if inputs.fees is not None:
            begin, rest = int(place[BEGIN]), len(inputs.feed.time) - int(place[STOP])
            day = np.pad(inputs.fees.day, (begin, rest), constant_values=(0, FOREVER))
            inputs = inputs._replace(fees=inputs.fees._replace(day=day))
        lanes = tape.lanes._replace(places=place[None], known=tape.lanes.known[k : k + 1])
        steps.begin_lane(lanes, inputs.feed, bound, state, 0)
        traded = None if self.setup.resume is None else self.setup.resume.traded
        first, stop = int(place[FIRST]), int(place[STOP])
        counts = driver.Counts(self.tally.copy(), traded)
        try:
            given = (inputs, state, bound, bound, counts, first, tape)
            driver.Drive(loop.simulate, loop.pack, *given).advance(stop)
        except BacktestError as error:
            raise LaneFault(k) from error
