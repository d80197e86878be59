"""What sets share of a market and a signal: columns of policies, checked, and inputs of runs."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias, TypeVar
from weakref import WeakSet

import numpy as np

from backtest import core, engine, policies, signals
from backtest.account import AccountState, without_flows_before
from backtest.market import Market, Markets, find_clock, read_weights, show_signal
from backtest.policies import Policy, number_elements, split_name
from backtest.results import RunSpan, Tally, start_tally
from backtest.sweep import sets as s
from backtest.sweep.lanes.rows import LANES, PriceTable
from backtest.sweep.sets import OVERLAY, Sets, VariedTest, find_values, take_sets
from backtest.venue import Venue

KEPT = 4
"""Flat arrays of columns and overlays that are kept; neighbors in the order of scoring share."""
MOST_SETS = 32
"""Most sets that are checked for look-ahead."""

LEAST_TOGETHER = 4
"""Fewer sets that differ in what they read are observed one by one."""

_T = TypeVar("_T")
Kept: TypeAlias = OrderedDict[Hashable, _T]
Observed = dict[str, core.FloatArray]


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

    The policies stand beside them, so that no id of their columns is used again.
    """

    observed: list[engine.ObservedPolicy]
    columns: core.FloatArray
    known: core.IntArray


class NotCompiled(Exception):  # noqa: N818 - a reason to sweep in plain Python
    """The policy cannot be compiled."""


class BlockFault(Exception):  # noqa: N818 - a reason to run the sets one by one
    """A lane of a block cannot go on."""


class Watched:
    def __init__(self, policy: Policy, values: Mapping[str, Any]) -> None:
        self._policy = policy
        self._values = values
        self._read: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            self._read[name] = None
            return self._values[name]
        if name == "settings":
            self._read.update(dict.fromkeys(self._values))
            return lambda: dict(self._values)
        found = inspect.getattr_static(type(self._policy), name)
        return found.__get__(self, type(self._policy)) if hasattr(found, "__get__") else found

    def __repr__(self) -> str:
        self._read.update(dict.fromkeys(self._values))
        return repr(self._policy)

    def reads(self) -> tuple[str, ...]:
        read = {name: each for name, each in self._values.items() if name in self._read}
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
        self, market: Market, build: Callable[[Mapping[str, Any]], Policy], memory: float
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
        self, values: Mapping[str, Any], seen: Mapping[Any, Observed] = core.NOTHING
    ) -> Observed:
        with self._lock:
            key = self._find_key(values)
            if key in seen:
                return seen[key]
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        return self._keep(values, self._observe_alone(values))

    def observe_together(self, sets: Sequence[Mapping[str, Any]]) -> dict[Any, Observed]:
        """Return the columns of sets that differ in numbers, where the policy takes arrays of them.

        They are not kept, so that the next block has their memory. All sets of the first call for a
        class, and one or three of each later one, are compared with their own observation; once one
        differs, or it raises, each set is observed alone.
        """
        some = list({self._find_key(each): each for each in sets}.values())
        differ = [name for name in self.reads if len({each.get(name) for each in some}) > 1]
        is_apt = all(isinstance(each.get(name), float) for each in some for name in differ)
        if len(some) < LEAST_TOGETHER or not is_apt or not self.takes_arrays:
            return {}
        policy = self.build(some[0])
        if not policies.takes_arrays(policy):
            return {}
        compared = range(len(some))
        if type(policy) in TRIED:
            n_compared = 1 if len(some) <= FEW_TOGETHER else 3
            rng = np.random.default_rng(len(some))
            compared = rng.integers(0, len(some), n_compared).tolist()
        alone = {k: self._observe_alone(some[k]) for k in compared}
        arrays = {name: np.array([each[name] for each in some]) for name in differ}
        shown: Any = Watched(policy, {**policy.settings(), **arrays})
        seen = policies.observe_together(
            lambda: type(policy).observe(shown, self.market), alone, len(some)
        )
        self.takes_arrays = bool(seen)
        if seen:
            TRIED.add(type(policy))
        return {
            self._find_key(values): {name: each[:, k] for name, each in seen.items()}
            for k, values in enumerate(some if seen else ())
        }

    def _find_key(self, values: Mapping[str, Any]) -> tuple[object, ...]:
        return tuple(map(values.get, self.reads))

    def _keep(self, values: Mapping[str, Any], seen: Observed) -> Observed:
        size = sum(column.nbytes for column in seen.values())
        with self._lock:
            self._kept[self._find_key(values)] = seen
            while len(self._kept) > 1 and size * len(self._kept) > self.memory:
                self._kept.popitem(last=False)
        return seen

    def check_causal(self, values: Mapping[str, Any]) -> policies.Causality | None:
        """Check the columns of one set for look-ahead; return None if they cannot be observed.

        Sets that are alike in all that ``observe`` reads are checked once.
        """
        failed: list[core.BacktestError] = []

        def observe_whole() -> Observed:
            try:
                return self._observe_alone(values)
            except core.BacktestError as error:  # the run of the set gives the reason
                failed.append(error)
                return {}

        try:
            policy = self.build(values)
        except core.BacktestError:
            return None
        shown = number_elements(policy.settings())
        if self._find_key(shown) in self._checked:
            return self._checked[self._find_key(shown)]
        seen, causality = policies.check_once(policy, self.market, observe_whole)
        if failed:
            return None
        self._keep(values, dict(seen))
        self._checked[self._find_key(shown)] = causality
        return causality

    def _observe_alone(self, values: Mapping[str, Any]) -> Observed:
        policy = self.build(values)
        watched: Any = Watched(policy, policy.settings())
        try:
            seen = policies.observe(watched, self.market)
            reads = watched.reads()
        except Exception:  # the wrapper may lack something that the policy uses
            seen = policies.observe(policy, self.market)
            reads = tuple(number_elements(policy.settings()))
        with self._lock:
            missing = [name for name in reads if name not in self.reads]
            if missing:
                self.reads = (*self.reads, *missing)
                self._kept.clear()
        return seen


def find_own(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in find_values(values, name).items() if not split_name(k)[0]}


def list_ends(sets: Sets) -> list[dict[str, Any]]:
    """Return sets in which numbers are highest or lowest, many at once, and one for each word."""
    numbers = [values for values in sets.values() if values.dtype.kind not in "Ob"]
    rows: dict[int, None] = {} if sets else {0: None}
    for find_end in (np.max, np.min) if numbers else ():
        is_end = np.array([values == find_end(values) for values in numbers])
        votes = np.where(is_end, is_end.sum(axis=0), -1)
        rows |= dict.fromkeys(votes.argmax(axis=1).tolist())
    for values in (each for each in sets.values() if each.dtype.kind in "Ob"):
        rows |= dict.fromkeys(np.unique(s.find_codes(values), return_index=True)[1].tolist())
    return [take_sets(sets, row) for row in list(rows)[:MOST_SETS]]


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
        self.varied, test = varied, varied.test
        markets = whole if stop is None else whole.prefix(stop)
        self.markets, self.first = markets, first
        closes = markets.time[first:] + markets.interval
        periods = engine.count_periods(test.calendar, test.sampling, markets, first)
        self.span = RunSpan(int(markets.time[first]), closes, first, periods)
        clock, known = find_clock(markets), find_clock(whole).seen
        self.seen = clock.seen
        signal: Any = test.signal
        if rule is not None:
            signal = rule.weigh(known, is_checked=False)
        if isinstance(test.market, Market) and rule is None:
            given = signals.resolve_signal(signal, test.market)
            weights = engine.read_signals(given, known, clock.at(first), is_alone=True)
            self.weights = np.ascontiguousarray(weights[:, : self.seen.n_bars])
        else:
            self.weights = read_weights(signal, self.seen, first=clock.at(first))
        self.columns = []
        by_name = dict(venues)
        for row, name, span in zip(self.weights, self.seen.names, self.seen.spans, strict=True):
            seen = by_name[name].show_margin(self.seen[name])
            own = seen.with_signal(np.clip(row[span[0] : span[1]], -1.0, 1.0))
            self.columns.append(Columns(own, self.varied.build_policy, memory / len(markets)))
        self._lock = threading.RLock()
        self._pattern: engine.Setup | None = None
        self._pattern_terms: tuple[tuple[str, Any], ...] = ()
        self._terms: Kept[engine.Setup] = OrderedDict()
        observe = partial(engine.observe_overlay, markets=self.seen, signal=self.weights)
        self._observe_overlay = lru_cache(KEPT)(observe)
        self._tables: Kept[PriceTable] = OrderedDict()
        self._deciders: Kept[engine.Deciders] = OrderedDict()
        self._flat: Kept[FlatColumns] = OrderedDict()
        self._rooms: list[LentRoom] = []

    def _find(self, kept: Kept[_T], key: Hashable, make: Callable[[], _T], most: int) -> _T:
        """Return the value of a key; ``kept`` has at most ``most``, the last used ones."""
        with self._lock:
            if key not in kept:
                kept[key] = make()
                while len(kept) > most:
                    kept.popitem(last=False)
            kept.move_to_end(key)
            return kept[key]

    @contextmanager
    def lend_room(self) -> Iterator[LentRoom]:
        """Lend a room to a thread, the one that was given back last."""
        try:
            room = self._rooms.pop()
        except IndexError:
            room = LentRoom()
        try:
            yield room
        finally:
            self._rooms.append(room)

    def check_ends(self, sets: Sets) -> Iterator[policies.Causality]:
        for overlay in list_ends(s.take_part(sets, f"{OVERLAY}.")):
            named = {f"{OVERLAY}.{name}": value for name, value in overlay.items()}
            self._observe_overlay(self.varied.build_overlay(named))
        for name, columns in zip(self.seen.names, self.columns, strict=True):
            found = (columns.check_causal(values) for values in list_ends(find_own(sets, name)))
            yield from (each for each in found if each is not None)

    def check_set(self, values: Mapping[str, Any]) -> None:
        for name, columns in zip(self.seen.names, self.columns, strict=True):
            columns.check_causal(find_values(values, name))

    def set_up(self, values: Mapping[str, Any]) -> engine.Setup:
        policy = self.varied.build_policies(values)
        _, term_names = self._split_names(values)
        terms = tuple((name, values[name]) for name in term_names)
        pattern = self._pattern
        if pattern is not None and terms == self._pattern_terms:
            return engine.set_up_policies(pattern, self._observe(policy, values))

        account = self.varied.build_account(values)
        changes: dict[str, Any] = {"market": self.markets, "signal": self.weights.T}
        begins = engine.find_first_bar(self.markets, self.varied.test.start)
        if self.first > begins:  # flows before the start of the test itself are refused
            account = without_flows_before(account, int(self.markets.time[self.first]))
            changes |= {"account": account, "start": core.utc_index(self.markets.time)[self.first]}
        observed = self._observe(policy, values)
        with self._lock:
            if self._pattern is None:
                test = self.varied.build_test(values, **changes)
                self._pattern_terms = terms
                self._pattern = engine.set_up(test, policy, observed=observed)
                return self._pattern
        venue = self.varied.build_venue(values)
        return engine.set_up_like(self._pattern, venue, account, observed)

    def set_up_lanes(
        self, like: engine.Setup, sets: Sequence[Mapping[str, Any]]
    ) -> list[engine.Setup]:
        """Return the setups of sets like that of another one, whose policy serves all markets.

        Sets have the same names. Of each, only the numbers that it changes are checked. Where they
        lie in their ranges and policies have no memory, the policy of the first set stands for all.
        """
        own_names, term_names = self._split_names(sets[0])
        own_sets = [{name: values[name] for name in own_names} for values in sets]
        observed_together = [each.observe_together(own_sets) for each in self.columns]
        pattern, reads_terms = like.observed[0].policy, self._reads_terms(like)
        above = like.observed[len(self.columns) :]
        shared = self._share_policy(pattern, own_sets)

        setups = []
        alike: dict[tuple[int, ...], engine.Setup] = {}
        for values, own in zip(sets, own_sets, strict=True):
            # Account and venue: those of the other set, unless sets vary them.
            terms = tuple((name, values[name]) for name in term_names)
            setup = like
            if terms:
                setup = self._find(self._terms, terms, partial(self.set_up, values), LANES)

            policy = self.varied.change_policy(pattern, own) if shared is None else shared
            pairs = zip(self.columns, observed_together, strict=True)
            columns = [each.of_one(own, seen) for each, seen in pairs]
            key = (id(setup.inputs), id(policy), *map(id, columns))
            if key not in alike:
                observed = self._show(policy, columns)
                observed += above
                if reads_terms:
                    observed = engine.show_terms(observed, setup.account, setup.venues)
                policies_by_name = dict.fromkeys(self.markets.names, policy)
                alike[key] = setup._replace(policies=policies_by_name, observed=observed)
            setups.append(alike[key])
        return setups

    def _share_policy(self, pattern: Policy, sets: Sequence[Mapping[str, Any]]) -> Policy | None:
        """Return the policy of the first set; None unless the others differ in numbers alone."""
        first = self.varied.change_policy(pattern, sets[0])
        if policies.start_memory(first) is not None or not policies.holds_settings_alone(first):
            return None

        declared = first.parameters()
        for name in sets[0]:
            values = np.array([each[name] for each in sets])
            space = declared[name].space if name in declared else None
            if values.dtype != np.float64 or not s.is_in_range(space, values):
                return None
        return first

    @staticmethod
    def _split_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return the names of the policy's parameters, and those of terms and signals."""
        own = [name for name in names if not split_name(name)[0]]
        return own, [name for name in names if split_name(name)[0]]

    def _reads_terms(self, like: engine.Setup) -> bool:
        return any(any(engine.list_terms(type(each.policy))) for each in like.observed)

    def _show(self, policy: Policy, columns: Sequence[Observed]) -> list[engine.ObservedPolicy]:
        """Return one policy with its columns in each market."""
        firsts = self.seen.spans[:, 0].tolist()
        return [
            engine.ObservedPolicy(policy, each.market, seen, first, "")
            for each, seen, first in zip(self.columns, columns, firsts, strict=True)
        ]

    def _observe(
        self, policy: Policy | Mapping[str, Policy], values: Mapping[str, Any]
    ) -> list[engine.ObservedPolicy]:
        found = []
        for k, (each, name) in enumerate(zip(self.columns, self.seen.names, strict=True)):
            one, own = core.pick_value(policy, name), find_own(values, name)
            columns = each.of_one(own)
            first = int(self.seen.spans[k, 0])
            found.append(engine.ObservedPolicy(one, each.market, columns, first, ""))
        return [*found, *self._observe_overlay(self.varied.build_overlay(values))]

    def begin(self, setup: engine.Setup) -> tuple[AccountState, engine.Deciders, Tally]:
        """Return state, policy table and tally of a parameter set at the first bar."""
        state = engine.start_account_state(setup)
        tally = start_tally(float(state.wallet.unit), float(state.wallet.equity), self.first)
        return state, self.find_deciders(setup), tally

    def find_deciders(self, setup: engine.Setup) -> engine.Deciders:
        """Return the policy table of a parameter set."""
        n, width = len(self.markets), setup.inputs.terms.rules.brackets.floors.shape[1]
        is_same = len({id(each.policy) for each in setup.observed[:n]}) == 1
        shown = setup.observed[:1] + setup.observed[n:] if is_same else setup.observed
        settings = [each.policy.settings().items() for each in shown]
        kinds = ((k, type(v), v if isinstance(v, str) else "") for own in settings for k, v in own)

        observed = setup.observed

        def bind() -> engine.Deciders:
            made = engine.gather_deciders(setup, observed)
            return engine.bind_compiled(made, engine.list_policies(observed))

        def flatten() -> FlatColumns:
            columns, _ = engine.flatten_columns(observed)
            return FlatColumns(observed, columns, engine.find_known_bars(observed, n))

        try:
            pattern = self._find(self._deciders, (width, is_same, *kinds), bind, LANES)
        except core.BacktestError:
            raise
        except Exception as refusal:  # numba may raise anything; the policy does not run here
            text = engine.explain_refusal(refusal, observed[0].policy)
            raise NotCompiled(text) from refusal
        key = tuple(id(each.columns) for each in observed)
        flat = self._find(self._flat, key, flatten, KEPT)
        rooms = ("shown", "bar", "margin", "levels")
        own: dict[str, Any] = {name: np.zeros_like(getattr(pattern, name)) for name in rooms}
        own["params"], _ = engine.flatten_settings(observed)
        own["memory"], _ = engine.flatten_memory(observed)
        own |= {"columns": flat.columns, "known": flat.known}
        return pattern._replace(methods=0, **own)

    def find_table(self, setup: engine.Setup) -> PriceTable:
        brackets, shape = setup.inputs.terms.rules.brackets, setup.inputs.feed.open.shape

        key = brackets.sizes.tobytes(), brackets.are_inverse.tobytes()
        return self._find(self._tables, key, lambda: PriceTable(np.empty((*shape, 4)), set()), KEPT)
