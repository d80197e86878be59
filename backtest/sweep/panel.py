"""What sets share of a market and a signal: columns of policies, checked, and inputs of runs."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakSet

import numpy as np

from backtest import core, engine, policies, signals
from backtest.account import AccountState, without_flows_before
from backtest.market import Market, Markets, find_clock, read_weights, show_signal
from backtest.policies import Policy, number_elements, split_name
from backtest.results import RunSpan, Tally, start_tally
from backtest.sweep.lanes.rows import LANES, PriceTable
from backtest.sweep.sets import (
    OVERLAY,
    Sets,
    SetValues,
    VariedTest,
    find_codes,
    find_values,
    is_in_range,
    take_part,
    take_sets,
)
from backtest.venue import Venue

KEPT = 4
"""Flat arrays of columns and overlays that are kept; neighbors in the order of scoring share."""
MOST_SETS = 32
"""Most sets that are checked for look-ahead."""

LEAST_TOGETHER = 4
"""Fewer sets that differ in what they read are observed one by one."""

_T = TypeVar("_T")
Observed = dict[str, core.FloatArray]


class LastUsed(Generic[_T]):
    """Values by key, at most ``most``: the one used longest ago leaves for a new one.

    The lock is held while a value is made, so that threads do not make the same one twice.
    """

    def __init__(self, most: int, lock: threading.RLock) -> None:
        self.most = most
        self._lock = lock
        self._values: OrderedDict[Hashable, _T] = OrderedDict()

    def find(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the value of a key, made if there is none; the least used one then leaves."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                while len(self._values) > self.most:
                    self._values.popitem(last=False)

            # The end is the key that was used last.
            self._values.move_to_end(key)
            return self._values[key]


class Scored(NamedTuple):
    """Measures of shape (n_sets,) by name, and sampled returns of shape (n_samples, n_sets).

    ``decided`` (n_sets,) are the shares of the bars on which they decided. ``alone`` counts the
    bars that sets passed alone, by reason; None of a set without a block.
    """

    metrics: dict[str, core.FloatArray]
    returns: core.FloatArray
    decided: core.FloatArray
    alone: core.IntArray | None = None


class FlatColumns(NamedTuple):
    """The columns of all policies in one array, and the bar from which on each is asked.

    The policies are kept with them, so that no id of their columns is used again.
    """

    observed: list[engine.ObservedPolicy]
    columns: core.FloatArray
    known: core.IntArray


class NotCompiled(Exception):  # noqa: N818 - a reason to sweep in plain Python
    """The policy cannot be compiled."""


class BlockFault(Exception):  # noqa: N818 - a reason to run the sets one by one
    """A lane of a block cannot go on."""


class Watched:
    """A policy for ``observe``, which notes the settings that are read of it."""

    def __init__(self, policy: Policy, values: SetValues) -> None:
        self._policy = policy
        self._values = values
        self._read: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        """Return what the policy has by a name; a setting that is read is noted in ``_read``."""
        if name in self._values:
            self._read[name] = None
            return self._values[name]

        # Who asks for all settings may read each of them.
        if name == "settings":
            self._read.update(dict.fromkeys(self._values))
            return lambda: dict(self._values)

        # Methods of the policy are bound to this object, so that what they read is seen too.
        attribute = inspect.getattr_static(type(self._policy), name)
        if hasattr(attribute, "__get__"):
            return attribute.__get__(self, type(self._policy))
        return attribute

    def __repr__(self) -> str:
        self._read.update(dict.fromkeys(self._values))
        return repr(self._policy)

    def reads(self) -> tuple[str, ...]:
        """Return the names of the settings that were read, one for each element of a tuple."""
        read = {name: value for name, value in self._values.items() if name in self._read}
        return tuple(number_elements(read))


class LentRoom:
    """What one thread uses for its sets one after another: records, and calls with what was packed.

    ``room`` is that of blocks, None before the first; ``simulate`` is the loop of single sets.
    """

    def __init__(self) -> None:
        self.room: Any = None
        self.simulate = engine.CompiledCalls("simulate_batch")


TRIED: WeakSet[type[Policy]] = WeakSet()
"""Classes whose columns for arrays were once compared with those of each set of a block."""
FEW_TOGETHER = 16
"""Sets of a block up to which one is compared with its own observation; of more, three are."""


class Columns:
    """Columns of a policy on one market, once for equal values of what they depend on."""

    def __init__(
        self,
        market: Market,
        build: Callable[[SetValues], Policy],
        memory: float,
    ) -> None:
        self.market = show_signal(market, find_clock(market))
        self.build = build
        self.memory = memory
        self.reads: tuple[str, ...] = ()
        self.takes_arrays = True

        self._checked: dict[tuple[object, ...], policies.Causality] = {}
        self._kept: OrderedDict[tuple[object, ...], Observed] = OrderedDict()
        self._lock = threading.Lock()

    def of_one(
        self,
        values: SetValues,
        seen: Mapping[Any, Observed] = core.NOTHING,
    ) -> Observed:
        """Return the columns of one set: those in ``seen``, those that are kept, or new ones.

        ``seen`` has columns by the values of what ``observe`` reads, as :meth:`observe_together`
        returns them. New ones are kept.
        """
        with self._lock:
            key = self._find_key(values)
            if key in seen:
                return seen[key]
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]

        return self._keep(values, self._observe_alone(values))

    def observe_together(self, sets: Sequence[SetValues]) -> dict[Any, Observed]:
        """Return the columns of sets that differ in numbers, where the policy takes arrays of them.

        By key, see :meth:`of_one`; empty where the policy takes no arrays. They are not kept, so
        that the next block has their memory. All sets of the first call for a class, and one or
        three of each later one, are compared with their own observation; once one differs, or it
        raises, each set is observed alone: ``takes_arrays`` is False from then on.
        """
        # Sets that are equal in what ``observe`` reads have one key.
        by_key = {self._find_key(values): values for values in sets}
        different = list(by_key.values())
        n = len(different)
        if n < LEAST_TOGETHER or not self.takes_arrays:
            return {}

        # Only numbers with a fraction become arrays: a window of bars is a whole number.
        varied = self._find_varied(different)
        for name in varied:
            if not all(isinstance(values.get(name), float) for values in different):
                return {}
        policy = self.build(different[0])
        if not policies.takes_arrays(policy):
            return {}

        # Some of the sets alone, to compare with.
        alone = {}
        for place in choose_compared(type(policy), n):
            alone[place] = self._observe_alone(different[place])

        # All of them at once: in place of each number that varies the policy is shown an array.
        settings = dict(policy.settings())
        for name in varied:
            settings[name] = np.array([values[name] for values in different])
        shown: Any = Watched(policy, settings)

        def observe_all() -> Any:
            return type(policy).observe(shown, self.market)

        together = policies.observe_together(observe_all, alone, n)
        self.takes_arrays = bool(together)
        if not together:
            return {}

        # The class has passed, so later blocks compare a few sets alone.
        TRIED.add(type(policy))

        # The columns are (n_bars, n): each set has its own (n_bars,).
        observed = {}
        for k, values in enumerate(different):
            own_columns = {name: column[:, k] for name, column in together.items()}
            observed[self._find_key(values)] = own_columns
        return observed

    def _find_varied(self, sets: Sequence[SetValues]) -> list[str]:
        """Return the names of what ``observe`` reads and sets differ in."""
        varied = []
        for name in self.reads:
            different = {values.get(name) for values in sets}
            if len(different) > 1:
                varied.append(name)
        return varied

    def _find_key(self, values: SetValues) -> tuple[object, ...]:
        """Return the values of a set that ``observe`` reads: equal ones have the same columns."""
        return tuple(map(values.get, self.reads))

    def _keep(self, values: SetValues, seen: Observed) -> Observed:
        """Keep the columns of a set; those used longest ago leave when memory is full.

        All sets are taken to need as much memory as this one. Returns the columns.
        """
        size = sum(column.nbytes for column in seen.values())
        with self._lock:
            self._kept[self._find_key(values)] = seen
            while len(self._kept) > 1 and size * len(self._kept) > self.memory:
                self._kept.popitem(last=False)
        return seen

    def check_causal(self, values: SetValues) -> policies.Causality | None:
        """Check the columns of one set for look-ahead; return None if they cannot be observed.

        Sets that are alike in all that ``observe`` reads are checked once. Where building or
        observing the policy raises, nothing is checked: the run of the set gives the reason.
        """
        failed: list[core.BacktestError] = []

        def observe_whole() -> Observed:
            try:
                return self._observe_alone(values)
            except core.BacktestError as error:
                failed.append(error)
                return {}

        try:
            policy = self.build(values)
        except core.BacktestError:
            return None
        shown = number_elements(policy.settings())
        key = self._find_key(shown)
        if key in self._checked:
            return self._checked[key]

        seen, causality = policies.check_once(policy, self.market, observe_whole)
        if failed:
            return None
        self._keep(values, dict(seen))

        # The key again: to observe a set may show that ``observe`` reads a setting that was not
        # known, as at the first call of all. Then keys have one more value.
        key = self._find_key(shown)
        self._checked[key] = causality
        return causality

    def _observe_alone(self, values: SetValues) -> Observed:
        """Return the columns of one set, and note which settings they depend on.

        Adds settings that were read for the first time to ``reads``. All that is kept then leaves,
        as its keys do not have these settings: sets that differ in them would share columns.
        """
        policy = self.build(values)
        watched: Any = Watched(policy, policy.settings())
        try:
            seen = policies.observe(watched, self.market)
            reads = watched.reads()
        except Exception:
            # The wrapper may lack something that the policy uses. A fault of the policy itself is
            # raised again here; if there is none, the columns may depend on each of its settings.
            seen = policies.observe(policy, self.market)
            reads = tuple(number_elements(policy.settings()))

        with self._lock:
            missing = [name for name in reads if name not in self.reads]
            if missing:
                self.reads = (*self.reads, *missing)
                self._kept.clear()
        return seen


def choose_compared(kind: type[Policy], n: int) -> Sequence[int]:
    """Return which of n sets are also observed alone, to compare: all of a class the first time."""
    if kind not in TRIED:
        return range(n)

    # Few sets are observed quickly, so that three more would take most of the time.
    n_compared = 3
    if n <= FEW_TOGETHER:
        n_compared = 1

    # Blocks of the same size are compared at the same places.
    rng = np.random.default_rng(n)
    places: list[int] = rng.integers(0, n, n_compared).tolist()
    return places


def find_own(values: SetValues, name: str) -> dict[str, Any]:
    """Return the parameters of the policy of one instrument."""
    parameters = {}
    for key, value in find_values(values, name).items():
        head, _ = split_name(key)
        if not head:
            parameters[key] = value
    return parameters


def list_ends(sets: Sets) -> list[dict[str, Any]]:
    """Return sets in which numbers are highest or lowest, many at once, and one for each word.

    They stand for all sets where code is checked. At most :data:`MOST_SETS`; without any parameter
    one empty set.
    """
    if not sets:
        return [{}]
    numbers = []
    words = []
    for values in sets.values():
        if values.dtype.kind in "Ob":  # texts, objects and claims
            words.append(values)
        else:
            numbers.append(values)

    # Rows of sets, in the order in which they were chosen, each once: the keys of a dict.
    rows: dict[int, None] = {}

    # Of each number, of the rows in which it is highest the one in which most others are highest
    # too; then the same with lowest. Arrays are (n_numbers, n_sets).
    if numbers:
        for find_end in (np.max, np.min):
            is_end = np.array([values == find_end(values) for values in numbers])
            n_ends_of_row = is_end.sum(axis=0)
            rank = np.where(is_end, n_ends_of_row, -1)
            best_rows = rank.argmax(axis=1)
            rows |= dict.fromkeys(best_rows.tolist())

    # Of each word the first row that has it.
    for values in words:
        _, firsts = np.unique(find_codes(values), return_index=True)
        rows |= dict.fromkeys(firsts.tolist())
    chosen = list(rows)[:MOST_SETS]
    return [take_sets(sets, row) for row in chosen]


class Panel:
    """Data that sets share which have the same signal and the same bars.

    ``repeats`` counts the panels of a kind, in each of which the same sets are simulated.
    """

    repeats = 1

    def __init__(
        self,
        varied: VariedTest,
        whole: Markets,
        memory: float,
        rule: signals.SignalRule | None,
        venues: Sequence[tuple[str, Venue]],
        first: int,
        stop: int | None,
    ) -> None:
        self.varied = varied
        self.first = first
        self.markets = whole
        if stop is not None:
            self.markets = whole.prefix(stop)
        self.seen = find_clock(self.markets).seen
        self.span = self._measure_span()

        self.weights = self._read_weights(whole, rule)
        self.columns = self._lay_out_columns(dict(venues), memory)
        observe = partial(engine.observe_overlay, markets=self.seen, signal=self.weights)
        self._observe_overlay = lru_cache(KEPT)(observe)

        # The first setup is made in full, and the others from it. Its terms are what it varies of
        # account, venue and signal. One lock is for all that threads share: to make a setup by its
        # terms asks for the first one.
        self._lock = threading.RLock()
        self._first_setup: engine.Setup | None = None
        self._first_terms: tuple[tuple[str, Any], ...] = ()
        self._setups_by_terms: LastUsed[engine.Setup] = LastUsed(LANES, self._lock)

        # What is the same for many sets: prices by sizes of brackets, calls by the types of what
        # policies hold, and columns laid end to end by the ids of their arrays.
        self._price_tables: LastUsed[PriceTable] = LastUsed(KEPT, self._lock)
        self._bound_deciders: LastUsed[engine.Deciders] = LastUsed(LANES, self._lock)
        self._flat_columns: LastUsed[FlatColumns] = LastUsed(KEPT, self._lock)

        # Rooms that no thread uses now.
        self._idle_rooms: list[LentRoom] = []

    def _measure_span(self) -> RunSpan:
        """Return the bars of accounts, their closes, and how many sampling periods they make."""
        test = self.varied.test
        markets = self.markets
        closes = markets.time[self.first :] + markets.interval
        periods = engine.count_periods(test.calendar, test.sampling, markets, self.first)
        return RunSpan(int(markets.time[self.first]), closes, self.first, periods)

    def _read_weights(
        self,
        whole: Markets,
        rule: signals.SignalRule | None,
    ) -> core.FloatArray:
        """Return the signal by instrument, (n_markets, n_bars of the panel).

        ``whole`` are the markets to their last bar, the panel may stop earlier. A rule is given all
        of it, so that panels that stop at different bars have the same signal. That it does not
        look ahead is checked by the evaluator, once.
        """
        # Signals are by the bars on which policies decide, which may be longer than those traded.
        test = self.varied.test
        whole_clock = find_clock(whole).seen
        first = find_clock(self.markets).at(self.first)
        if rule is not None:
            weights = rule.weigh(whole_clock, is_checked=False)
            return read_weights(weights, self.seen, first=first)

        # Several markets have weights by instrument, which are read by time.
        signal: Any = test.signal
        if not isinstance(test.market, Market):
            return read_weights(signal, self.seen, first=first)

        # A single market may have a number or a column: that has a row for each bar of the whole
        # market, and is cut afterwards.
        directions = signals.resolve_signal(signal, test.market)
        weights_of_whole = engine.read_signals(directions, whole_clock, first, is_alone=True)
        return np.ascontiguousarray(weights_of_whole[:, : self.seen.n_bars])

    def _lay_out_columns(self, venues: Mapping[str, Venue], memory: float) -> list[Columns]:
        """Return the columns by instrument, on markets with their signal and rules of margin."""
        memory_of_one = memory / len(self.markets)
        laid_out = []
        for row, name, span in zip(self.weights, self.seen.names, self.seen.spans, strict=True):
            # The signal in the bars that the instrument has. A weight over 1 is its size, which the
            # account applies: a policy sees a full signal.
            first, stop = span
            signal = np.clip(row[first:stop], -1.0, 1.0)

            with_margin = venues[name].show_margin(self.seen[name])
            shown = with_margin.with_signal(signal)
            laid_out.append(Columns(shown, self.varied.build_policy, memory=memory_of_one))
        return laid_out

    @contextmanager
    def lend_room(self) -> Iterator[LentRoom]:
        """Lend a room to a thread, the one that was given back last, or a new one.

        Another thread may take the last one in between, so it is asked for, not looked for.
        """
        try:
            room = self._idle_rooms.pop()
        except IndexError:
            room = LentRoom()
        try:
            yield room
        finally:
            self._idle_rooms.append(room)

    def check_ends(self, sets: Sets) -> Iterator[policies.Causality]:
        """Check overlay and columns of sets at the ends of their parameters for look-ahead.

        Yields what the check of each policy found. Raises PolicyError for what looks ahead.
        """
        # To observe an overlay checks it: the call is made for the error it may raise, and what it
        # returns stays in the cache for the runs.
        for parameters in list_ends(take_part(sets, f"{OVERLAY}.")):
            named = {f"{OVERLAY}.{name}": value for name, value in parameters.items()}
            self._observe_overlay(self.varied.build_overlay(named))

        for name, columns in zip(self.seen.names, self.columns, strict=True):
            for values in list_ends(find_own(sets, name)):
                causality = columns.check_causal(values)
                if causality is not None:
                    yield causality

    def check_set(self, values: SetValues) -> None:
        """Check the columns of one set for look-ahead in each market."""
        for name, columns in zip(self.seen.names, self.columns, strict=True):
            columns.check_causal(find_values(values, name))

    def set_up(self, values: SetValues) -> engine.Setup:
        """Return the setup of one set.

        The first set of a panel is set up in full, and kept. The setups of all others are made from
        it, by what they differ in: one with its terms (account, venue and signal) differs in
        policies alone, any other in all but the bars and the signal.
        """
        policy = self.varied.build_policies(values)
        _, term_names = self._split_names(values)
        terms = tuple((name, values[name]) for name in term_names)

        # Policies alone differ.
        first_setup = self._first_setup
        if first_setup is not None and terms == self._first_terms:
            return engine.set_up_policies(first_setup, self._observe(policy, values))

        # A panel that begins after the test leaves out the flows before it; flows before the start
        # of the test itself are refused.
        account = self.varied.build_account(values)
        changes: dict[str, Any] = {"market": self.markets, "signal": self.weights.T}
        begins = engine.find_first_bar(self.markets, self.varied.test.start)
        if self.first > begins:
            account = without_flows_before(account, int(self.markets.time[self.first]))
            changes["account"] = account
            changes["start"] = core.utc_index(self.markets.time)[self.first]
        observed = self._observe(policy, values)

        # Asked again under the lock: another thread may have set up the first set meanwhile.
        with self._lock:
            if self._first_setup is None:
                test = self.varied.build_test(values, **changes)
                self._first_terms = terms
                self._first_setup = engine.set_up(test, policy, observed=observed)
                return self._first_setup

        venue = self.varied.build_venue(values)
        return engine.set_up_like(self._first_setup, venue, account, observed)

    def set_up_lanes(
        self,
        like: engine.Setup,
        sets: Sequence[SetValues],
    ) -> list[engine.Setup]:
        """Return the setups of sets, made from that of another set, ``like``.

        All sets have the same names, and ``like`` has one policy for all markets. A setup is put
        together from three parts: the *base*, which is account and venue, the *policy*, and the
        *columns* that it observes in each market. Each of the three is made once for sets that are
        equal in what decides it. Sets with the same three objects have the same setup, also as one
        object: a block computes once for all lanes that share it.
        """
        parameter_names, term_names = self._split_names(sets[0])
        parameter_sets = [pick_names(values, parameter_names) for values in sets]

        # What serves many sets comes first: columns from one call for all, and one policy for all,
        # whose numbers lanes read beside it.
        observed_together = [columns.observe_together(parameter_sets) for columns in self.columns]
        pattern = like.observed[0].policy
        shared_policy = self._share_policy(pattern, parameter_sets)

        # The overlay is the same for all. Formulas may read costs of the venue or the distance of
        # the account's stop, as columns that differ between bases.
        overlay = like.observed[len(self.columns) :]
        reads_terms = self._reads_terms(like)

        setups = []
        setup_of_parts: dict[tuple[int, ...], engine.Setup] = {}
        for values, parameters in zip(sets, parameter_sets, strict=True):
            base = self._find_base(like, values, term_names)
            policy = shared_policy
            if policy is None:
                policy = self.varied.change_policy(pattern, parameters)
            columns = self._find_columns(parameters, observed_together)

            # Parts are compared by identity, as equal columns are expensive to compare. An id is
            # not used again while its object lives, as these do in the setup that is kept here.
            parts = (id(base.inputs), id(policy), *map(id, columns))
            if parts not in setup_of_parts:
                observed = [*self._show(policy, columns), *overlay]
                if reads_terms:
                    observed = engine.show_terms(observed, base.account, base.venues)
                setup_of_parts[parts] = base._replace(
                    policies=dict.fromkeys(self.markets.names, policy),
                    observed=observed,
                )
            setups.append(setup_of_parts[parts])

        return setups

    def _find_base(
        self,
        like: engine.Setup,
        values: SetValues,
        term_names: Sequence[str],
    ) -> engine.Setup:
        """Return a setup with the account and the venue of a set.

        That is ``like`` where sets vary no terms. The others are made in full, once for equal
        terms, and are kept for later blocks.
        """
        if not term_names:
            return like
        terms = tuple((name, values[name]) for name in term_names)
        return self._setups_by_terms.find(terms, partial(self.set_up, values))

    def _find_columns(
        self,
        parameters: SetValues,
        observed_together: Sequence[Mapping[Any, Observed]],
    ) -> list[Observed]:
        """Return the columns of a policy in each market, those observed together if there are any.

        They are the same object for all sets that are equal in what ``observe`` reads.
        """
        by_market = []
        for columns, together in zip(self.columns, observed_together, strict=True):
            by_market.append(columns.of_one(parameters, together))
        return by_market

    def _share_policy(
        self,
        pattern: Policy,
        sets: Sequence[SetValues],
    ) -> Policy | None:
        """Return the policy of the first set to stand for all; None if it cannot.

        It can if the sets differ in fractional numbers alone, which lanes read beside it, and if it
        has no memory. Policies of the other sets are not built, so their numbers are checked here.
        """
        first = self.varied.change_policy(pattern, sets[0])
        if policies.start_memory(first) is not None or not policies.holds_settings_alone(first):
            return None

        declared = first.parameters()
        for name in sets[0]:
            if name not in declared:
                return None
            column = np.array([values[name] for values in sets])
            if column.dtype != np.float64 or not is_in_range(declared[name].space, column):
                return None
        return first

    @staticmethod
    def _split_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return the names of the policy's parameters, and those of terms and signals."""
        parameters = []
        terms = []
        for name in names:
            head, _ = split_name(name)
            if head:
                terms.append(name)
            else:
                parameters.append(name)
        return parameters, terms

    def _reads_terms(self, like: engine.Setup) -> bool:
        """Return whether some policy observes terms of the account or the venue."""
        kinds = {type(observed.policy) for observed in like.observed}
        return any(any(engine.list_terms(kind)) for kind in kinds)

    def _show(
        self,
        policy: Policy,
        columns: Sequence[Observed],
    ) -> list[engine.ObservedPolicy]:
        """Return one policy with its columns in each market."""
        observed = []
        firsts = self.seen.spans[:, 0].tolist()
        for market_columns, seen, first in zip(self.columns, columns, firsts, strict=True):
            observed.append(engine.ObservedPolicy(policy, market_columns.market, seen, first, ""))
        return observed

    def _observe(
        self,
        policy: Policy | Mapping[str, Policy],
        values: SetValues,
    ) -> list[engine.ObservedPolicy]:
        """Return the policies of a set with their columns in each market, and the overlay's.

        ``policy`` is one for all markets, or one by name.
        """
        observed = []
        firsts = self.seen.spans[:, 0].tolist()
        for columns, name, first in zip(self.columns, self.seen.names, firsts, strict=True):
            of_market = core.pick_value(policy, name)
            seen = columns.of_one(find_own(values, name))
            observed.append(engine.ObservedPolicy(of_market, columns.market, seen, first, ""))
        return [*observed, *self._observe_overlay(self.varied.build_overlay(values))]

    def begin(self, setup: engine.Setup) -> tuple[AccountState, engine.Deciders, Tally]:
        """Return state, policy table and tally of a parameter set at the first bar."""
        state = engine.start_account_state(setup)
        wallet = state.wallet
        tally = start_tally(float(wallet.unit), float(wallet.equity), self.first)
        return state, self.find_deciders(setup), tally

    def find_deciders(self, setup: engine.Setup) -> engine.Deciders:
        """Return the policy table of a parameter set.

        The compiled calls, and the columns laid end to end, are kept for sets like it; its
        settings, its memory and what policies are shown are its own.
        """
        observed = setup.observed
        n = len(self.markets)

        def bind() -> engine.Deciders:
            deciders = engine.gather_deciders(setup, observed)
            return engine.bind_compiled(deciders, engine.list_policies(observed))

        def flatten() -> FlatColumns:
            columns, _ = engine.flatten_columns(observed)
            return FlatColumns(observed, columns, engine.find_known_bars(observed, n))

        try:
            pattern = self._bound_deciders.find(find_table_kind(setup, n), bind)
        except core.BacktestError:
            raise
        except Exception as refusal:  # numba may raise anything; the policy does not run here
            text = engine.explain_refusal(refusal, observed[0].policy)
            raise NotCompiled(text) from refusal

        ids_of_columns = tuple(id(one.columns) for one in observed)
        flat = self._flat_columns.find(ids_of_columns, flatten)

        # Arrays that the simulation of this set writes: what policies are shown, and their answers.
        own: dict[str, Any] = {}
        for name in ("shown", "bar", "margin", "levels"):
            own[name] = np.zeros_like(getattr(pattern, name))

        # What it reads. The compiled calls are those of the pattern, so there are no methods of
        # plain Python, which 0 says.
        own["params"], _ = engine.flatten_settings(observed)
        own["memory"], _ = engine.flatten_memory(observed)
        own["columns"] = flat.columns
        own["known"] = flat.known
        return pattern._replace(methods=0, **own)

    def find_table(self, setup: engine.Setup) -> PriceTable:
        """Return the table of prices of setups with the same sizes of brackets.

        It is empty at first: blocks write the bars that they need, and note them in it.
        """
        brackets = setup.inputs.terms.rules.brackets
        shape = setup.inputs.feed.open.shape

        def make() -> PriceTable:
            return PriceTable(np.empty((*shape, 4)), set())

        key = (brackets.sizes.tobytes(), brackets.are_inverse.tobytes())
        return self._price_tables.find(key, make)


def pick_names(values: Mapping[str, _T], names: Iterable[str]) -> dict[str, _T]:
    """Return the values of some names."""
    return {name: values[name] for name in names}


def find_table_kind(setup: engine.Setup, n: int) -> tuple[Hashable, ...]:
    """Return what the policy tables of two setups have in common when one call serves both.

    That is how wide brackets are, whether the n markets share a policy, and the types of all
    settings with their words: numbers alone may differ.
    """
    width = setup.inputs.terms.rules.brackets.floors.shape[1]

    # One policy for all markets counts once, before the overlay.
    of_markets = setup.observed[:n]
    overlay = setup.observed[n:]
    is_shared = len({id(observed.policy) for observed in of_markets}) == 1
    if is_shared:
        of_markets = of_markets[:1]

    kinds: list[tuple[str, type, str]] = []
    for observed in [*of_markets, *overlay]:
        for name, value in observed.policy.settings().items():
            word = value if isinstance(value, str) else ""
            kinds.append((name, type(value), word))
    return (width, is_shared, *kinds)
