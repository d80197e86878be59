"""The policies of a run: what they observed, and how the loop asks them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest._compile.bytecode import (
    ACCOUNT,
    BAR,
    describe_function,
    find_code_names,
    find_fields,
)
from backtest._compile.interruptions import hold_signals
from backtest._compile.plain_formula import as_float64, make_plain
from backtest.account import Account, measure_stop, pick_instrument
from backtest.core import RAISED, FloatArray, IntArray, Number, ParameterError, repr_plain
from backtest.engine.checks import give_each
from backtest.engine.inputs import read_cost
from backtest.engine.shown import MARGIN_NUMBERS, N_SHOWN, SETTING, WHOLE, Deciders
from backtest.margin import LEVELS, MarginRules, pick_rules
from backtest.margin.portfolio_kernels import BracketTables
from backtest.market import Market, Markets, find_clock
from backtest.policies import AccountView, Policy, may_read_of_account
from backtest.policies import policy as p
from backtest.policies.combined_parts import name_tuple
from backtest.policies.observing import observe, observe_checked
from backtest.policies.parameters import change_settings, number_elements
from backtest.policies.policy_errors import as_number, make_policy_error
from backtest.venue import Venue
from backtest.venue.trade_costs import pick_cost

SEEN_PRICES = ("open", "high", "low", "close", "mark_close", "volume")
CALLED = ctypes.CFUNCTYPE(ctypes.c_double, *[ctypes.c_int64] * 11)
"""The type of a compiled formula: seven addresses, the number of levels, and TIME_AND_BAR."""
TIME_AND_BAR = slice(8, 10)
"""Where a call has the time, ns, and the bar of the policy; the last argument is its length."""
N_BAR = len(p.BAR_FIELDS)


class ObservedPolicy(NamedTuple):
    """A policy with its columns, from bar ``first`` of the clock on, and how they were checked."""

    policy: Policy
    market: Market
    columns: dict[str, FloatArray]
    first: int
    causality: str


# Which policy decides for what.


def assign_policies(
    policy: object, markets: Markets, overlay: object
) -> tuple[dict[str, Policy], Policy | None]:
    """Return the policy of each instrument by name, checked, and the overlay or None."""
    policies = give_each(policy, markets, one="policy")
    for name, of_instrument in policies.items():
        check_policy(of_instrument, f"policy of {name}" if len(policies) > 1 else "policy")
    return policies, check_overlay(overlay)


def check_policy(policy: object, name: str) -> Policy:
    """Return a policy; ParameterError if it is none, or is a class."""
    if isinstance(policy, Policy):
        return policy
    text = f"{name} must be a Policy, got {repr_plain(policy)}"
    if isinstance(policy, type):
        text = f"{text}; add () to make one of the class"
    raise ParameterError(text)


def check_overlay(overlay: object) -> Policy | None:
    """Return the overlay, if it reads and decides nothing that belongs to one position."""
    if overlay is None:
        return None
    policy = check_policy(overlay, "overlay")
    if p.sets_margin(policy):
        raise ParameterError(
            "overlay must not define venue_leverage, for it has no position whose margin it could "
            f"move, got {type(policy).__name__}"
        )

    rules = list_rules(policy, ())
    orders = getattr(type(policy), "option_orders", None)
    if orders is not None:
        rules.append(orders)
    names: set[str] = set()
    for rule in rules:
        names.update(describe_function(rule, {}).names)
    of_position = [f"account.{name}" for name in ("venue", "liquidation_price") if name in names]
    if of_position:
        raise ParameterError(
            "overlay must not read a venue or a liquidation price, for it scales the portfolio, "
            f"got {type(policy).__name__}, which reads {' and '.join(of_position)}"
        )
    return policy


# What policies observe.


def observe_policies(
    policies: Mapping[str, Policy],
    overlay: Policy | None,
    markets: Markets,
    venues: Mapping[str, Venue],
    signal: FloatArray,
    *,
    is_checked: bool = True,
) -> list[ObservedPolicy]:
    """Return each policy with its columns, that of the overlay last.

    ``signal`` has shape (n, n_bars). A policy observes the market of its instrument, with the
    signal limited to the directions -1 to 1 and the margin rates of the venue. Unless
    ``is_checked``, it is not tested again for looking ahead.
    """
    look = observe_checked if is_checked else observe_again
    observed = []
    for i, (name, market) in enumerate(markets.items()):
        first, stop = markets.spans[i].tolist()
        directions = np.clip(signal[i, first:stop], -1.0, 1.0)
        market_shown = venues[name].show_margin(market).with_signal(directions)

        policy = policies[name]
        columns, causality = look(policy, market_shown)
        observed.append(ObservedPolicy(policy, market_shown, columns, first, str(causality)))

    observed += observe_overlay(overlay, markets, signal, is_checked=is_checked)
    return observed


def observe_overlay(
    overlay: Policy | None, markets: Markets, signal: FloatArray, *, is_checked: bool = True
) -> list[ObservedPolicy]:
    """Return the overlay, the policy of the whole account, with its columns: a list of one or none.

    It observes the index of the portfolio: one market made of all, weighted by their signals of
    shape (n, n_bars). Before the first signal there is no index, and its columns are NaN.
    """
    if overlay is None:
        return []

    # The index from the first bar on at which an instrument has a signal.
    index = markets.index(signal.T)
    begin = int(np.argmax(np.any(signal != 0.0, axis=0)))
    index_from_signal = index
    if begin > 0:
        index_from_signal = index.slice(begin, index.n_bars)

    look = observe_checked if is_checked else observe_again
    columns, causality = look(overlay, index_from_signal)
    unknown = np.full(begin, np.nan)
    columns = {name: np.concatenate([unknown, values]) for name, values in columns.items()}
    return [ObservedPolicy(overlay, index, columns, 0, str(causality))]


def observe_again(policy: Policy, market: Market) -> tuple[dict[str, FloatArray], str]:
    """Return the columns of a policy that was checked before, and how they were checked."""
    return observe(policy, market), "checked before"


TERMS = ("stop_distance", "slippage", "taker")
"""What a formula may read of the account's stop and the venue's costs, as a column of its bar."""


def list_terms(cls: type[Policy], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield which of ``TERMS`` a policy reads, as pairs: the name of its column, and the term.

    A combined policy reads what its parts read, in columns that begin with the prefix of the part.
    """
    parts = getattr(cls, "parts", ())
    for part in parts:
        yield from list_terms(part.policy, f"{prefix}{part.prefix}")

    if parts:
        return
    names = find_code_names(p.formula_of(cls))
    for term in TERMS:
        if term in names:
            yield f"{prefix}{term}", term


def show_terms(
    observed: Sequence[ObservedPolicy], account: Account, venues: Mapping[str, Venue]
) -> list[ObservedPolicy]:
    """Add the columns of ``TERMS`` (stop distance, costs) to observed policies that read them.

    Raises ParameterError if a policy reads the distance of a stop, and the account has none.
    """
    with_terms = list(observed)
    # One policy for each instrument; an overlay after them has no venue.
    for i, (name, before) in enumerate(zip(venues, observed, strict=False)):
        columns = dict(before.columns)
        for column, term in list_terms(type(before.policy)):
            if column not in before.columns:
                settings = account.for_instrument(name)
                columns[column] = measure_term(term, before, settings, venues[name])

        if len(columns) > len(before.columns):
            with_terms[i] = before._replace(columns=columns)
    return with_terms


def measure_term(term: str, observed: ObservedPolicy, account: Account, venue: Venue) -> FloatArray:
    """Return one of ``TERMS`` at each close of the policy's market: of shape (n_bars,).

    It is a fraction of the price: a cost of the venue, or the distance to the nearest stop from an
    entry at that close, with slippage, on the side of the signal; NaN where no stop has a distance.
    Raises ParameterError for a distance if the account has no stop.
    """
    market = observed.market
    cost = "fees.taker" if term == "taker" else "slippage.rate"
    rate = read_cost(pick_cost(venue, cost), market, f"venue.{cost}")
    if term != "stop_distance":
        return np.array(np.broadcast_to(rate, (market.n_bars,)))

    stops = [stop for stop in (account.stop_loss, account.trailing_stop) if stop is not None]
    if not stops:
        raise ParameterError(
            f"{type(observed.policy).__name__} sizes a position by its stop; give one, "
            "Account(stop_loss=0.05) or Account(stop_loss='2*atr') for example, got none"
        )
    side = np.where(market.signal < 0.0, -1.0, 1.0)
    entry = market.close * (1.0 + side * rate)
    distances = []
    for stop in stops:
        distance = measure_stop(stop, market, entry)
        distances.append(np.where(distance > 0.0, distance, np.nan))
    return np.asarray(np.fmin.reduce(distances))


# From which bar on a policy is asked.


class WarmUp(NamedTuple):
    """From which bar on a policy is asked, and which of its columns never have a value."""

    bar: int
    never: tuple[str, ...]


def find_warm_up(columns: Mapping[str, FloatArray]) -> WarmUp:
    """Return the warm-up of a policy: the first bar at which each of its columns has had a value.

    From that bar on it is asked. Columns that never have a value do not count, so that a policy may
    do without them; they are named in the answer.
    """
    bar = 0
    never = []

    for name, column in columns.items():
        first = find_first_value(column)
        if first is None:
            never.append(name)
        else:
            bar = max(bar, first)
    return WarmUp(bar, tuple(never))


def find_first_value(column: FloatArray) -> int | None:
    """Return the first bar at which a column has a value, None if it never has one.

    Most columns have one early. So the first 64 bars are read, and then longer and longer
    beginnings, rather than the whole column at once.
    """
    n_read = 64
    while True:
        is_known = ~np.isnan(column[:n_read])
        if is_known.any():
            return int(is_known.argmax())
        if n_read >= len(column):
            return None
        n_read *= 16


def measure_decided(
    warm_ups: Sequence[WarmUp], begins: Sequence[int], first: int, n_bars: int, *, has_traded: bool
) -> float:
    """Return the share of the bars from ``first`` on at which some policy was asked, in [0, 1].

    ``warm_ups`` and ``begins`` have an item for each policy: its warm-up, and the bar at which its
    market begins. 0 if each policy has a column that never had a value, and nothing was traded:
    then no warm-up ended.
    """
    if not has_traded and all(warm_up.never for warm_up in warm_ups):
        return 0.0
    asked_from = [begin + warm_up.bar for begin, warm_up in zip(begins, warm_ups, strict=False)]
    n_asked = n_bars - max(min(asked_from), first)
    return max(n_asked, 0) / (n_bars - first)


def measure_observed(
    observed: Sequence[ObservedPolicy], markets: Markets, first: int, *, has_traded: bool
) -> float:
    """Return the share of the bars from ``first`` on at which some observed policy was asked.

    Only policies of instruments count, and bars are those that policies see
    (:func:`measure_decided`).
    """
    clock = find_clock(markets)
    of_instruments = observed[: len(markets)]
    return measure_decided(
        [find_warm_up(own.columns) for own in of_instruments],
        [own.first for own in of_instruments],
        clock.at(first),
        clock.seen.n_bars,
        has_traded=has_traded,
    )


# The policies as arrays of the loop.


def flatten(parts: list[FloatArray]) -> tuple[FloatArray, IntArray]:
    """Return arrays joined into one, and the place at which each begins."""
    edges = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    joined = np.concatenate(parts) if parts else np.zeros(0)
    return joined, edges[:-1].copy()


def gather_deciders(setup: Any, observed: list[ObservedPolicy]) -> Deciders:
    """Return the observed policies of a setup in the form that the loop reads: arrays of numbers.

    Policies of the n instruments come first; place n is that of the overlay. Parameters, columns
    and memories of all policies are joined end to end, and ``.._at`` says where those of each
    begin.
    """
    markets = setup.markets
    clock = find_clock(markets)
    n = len(markets)
    n_policies = len(observed)
    n_levels = setup.inputs.terms.rules.brackets.floors.shape[1]

    params, params_at = flatten_settings(observed)
    columns, columns_at = flatten_columns(observed)
    memory, memory_at = flatten_memory(observed)
    seen_time, seen_bars = read_seen_bars(clock)

    # Place n is that of the overlay: not asked, if the setup has none.
    asks = np.zeros(n + 1, np.int64)
    asks[:n_policies] = 1
    reads_price = [reads_liquidation_price(each.policy) for each in observed]
    sets_margin = [p.sets_margin(each.policy) for each in observed]
    lengths = [each.market.n_bars for each in observed]
    firsts = [each.first for each in observed]

    # The numbers that a policy is shown lie side by side, so that `bind` reads them at once: those
    # of the bar, its time first; then those of the account, with room for the venue leverage last.
    numbers = np.zeros(N_BAR + SETTING + 1)
    return Deciders(
        methods=tuple(map(bind, observed)),
        addresses=np.zeros(n + 1, np.int64),
        params=params,
        params_at=params_at,
        columns=columns,
        columns_at=columns_at,
        lengths=np.array(lengths, np.int64),
        firsts=np.array([*firsts, 0], np.int64),
        known=find_known_bars(observed, n),
        memory=memory,
        memory_at=memory_at,
        asks=asks,
        wants_price=np.array(reads_price, np.int64),
        wants_table=np.ones(n + 1, np.int64),
        wants_account=np.full(n + 1, WHOLE),
        wants_bar=np.ones(n + 1, np.int64),
        index_bars=read_index(observed, n, clock.seen.n_bars),
        rows=clock.rows,
        seen_time=seen_time,
        seen_bars=seen_bars,
        tradable=np.ascontiguousarray(markets.tradable().T, dtype=np.int64),
        sets_margin=np.array(sets_margin, np.int64),
        shown=numbers[N_BAR:],
        bar=numbers[1:N_BAR],
        margin=np.zeros(len(MARGIN_NUMBERS)),
        levels=np.zeros(len(LEVELS) * n_levels),
        width=n_levels,
        interval=clock.seen.interval,
        start=np.array([setup.inputs.started], np.int64),
    )


def read_seen_bars(clock: Any) -> tuple[IntArray, FloatArray]:
    """Return time and prices of the longer bars that policies see, (6, n_seen, n); or no bars."""
    if clock.is_every:
        return np.zeros(1, np.int64), np.zeros((6, 1, 1))
    panel = clock.seen.panel()
    rows = [getattr(panel, name).T for name in SEEN_PRICES]
    return np.asarray(clock.seen.time), np.ascontiguousarray(np.stack(rows))


def reads_liquidation_price(policy: Policy) -> bool:
    price = frozenset({"liquidation_price"})
    return any(may_read_of_account(rule, price) for rule in list_rules(policy, ()))


def find_known_bars(observed: Sequence[ObservedPolicy], n: int) -> IntArray:
    """Return the bar from which on each policy is asked, (n + 1,): its own bar, counted from 0."""
    known = np.zeros(n + 1, np.int64)
    known[: len(observed)] = [find_warm_up(each.columns).bar for each in observed]
    return known


def flatten_settings(observed: list[ObservedPolicy]) -> tuple[FloatArray, IntArray]:
    """Return the parameters of all policies in one array, and the place of each policy."""
    parts = []
    for own in observed:
        settings = number_elements(own.policy.settings()).values()
        numbers = [float(x) if isinstance(x, int | float) else np.nan for x in settings]
        parts.append(np.array(numbers or [0.0], dtype=np.float64))
    return flatten(parts)


def flatten_columns(observed: list[ObservedPolicy]) -> tuple[FloatArray, IntArray]:
    """Return the columns of all policies in one array, and the place of each policy."""
    return flatten([np.concatenate([*own.columns.values(), np.zeros(1)]) for own in observed])


def flatten_memory(observed: list[ObservedPolicy]) -> tuple[FloatArray, IntArray]:
    """Return the first memory of all policies in one array, and the place of each policy."""
    parts = []
    for own in observed:
        memory = p.start_memory(own.policy) or ()
        parts.append(np.array([*memory, 0.0], dtype=np.float64))
    return flatten(parts)


def read_index(observed: list[ObservedPolicy], n: int, n_bars: int) -> FloatArray:
    """Return the bars of the portfolio index as the overlay sees them, of shape (7, n_bars)."""
    has_overlay = len(observed) > n
    if not has_overlay:
        return np.zeros((7, 1))

    index = observed[-1].market
    prices = [getattr(index, name) for name in SEEN_PRICES]
    return np.ascontiguousarray(np.stack([*prices, find_last_funding(index, n_bars)]))


def find_last_funding(market: Market, n_bars: int) -> FloatArray:
    """Return the last funding rate that is known at each close, NaN before the first."""
    rates = np.full(n_bars, np.nan)
    closes = market.time + market.interval
    bars = np.searchsorted(closes, market.funding_time, side="right")
    is_inside = bars < n_bars
    # Of several settlements in a bar the last one stays.
    rates[bars[is_inside]] = market.funding_rate[is_inside]

    # The bar of the last settlement so far, -1 before the first.
    bar_if_settled = np.where(np.isnan(rates), -1, np.arange(n_bars))
    last_bar = np.maximum.accumulate(bar_if_settled)
    return np.where(last_bar >= 0, rates[np.maximum(last_bar, 0)], np.nan)


# The policies in plain Python.


def bind(observed: ObservedPolicy) -> Callable[..., float]:
    """Return the function that the loop in plain Python calls for the decisions of a policy.

    It is ``answer`` below. What does not change from bar to bar is made here, once: the formulas,
    and which of the numbers shown they read. Formulas work on values of Number, which divides and
    overflows as a number of compiled code does.
    """
    policy = observed.policy
    names = tuple(observed.columns)
    columns = tuple(observed.columns.values())
    plain_policy = make_plain_settings(policy)

    # The formula of the leverage, and that of the venue leverage if there is one.
    rules = list_rules(policy, names)
    decide = bind_formula(policy, plain_policy, make_plain(rules[0]))
    margin_formula = None
    if len(rules) > 1:
        margin_formula = make_plain(rules[1])

    # To make a Number takes time: only those are made that the rules read, by their places among
    # the numbers shown. The place after them stands for the venue.
    places = find_read(rules)
    place_of_venue = N_BAR + N_SHOWN
    places_of_numbers = [place for place in places if place < place_of_venue]
    reads_venue = place_of_venue in places

    # Named tuples are made by ``tuple.__new__``, without their slower constructor.
    bar_type: Any = name_tuple("Bar", (*p.BAR_FIELDS, *names))
    make = tuple.__new__

    def answer(deciders: Any, venue: Any, i: int, time: int, local: int) -> float:
        """Return the leverage that policy i decides at bar ``local``; NaN leaves the position.

        ``time`` is the open of the bar, ns; ``local`` is the row of its columns. Reads what the
        loop has shown: the bar, to which time and columns are added here, and the account. Writes
        the memory of the policy and, where it decides one, the venue leverage: the last number.
        Raises an error of the policy, with its bar, for what it raises, a negative leverage, or a
        venue leverage of 0 or less.
        """
        # All numbers that policies are shown: N_BAR of the bar, the time in seconds first, then
        # N_SHOWN of the account, and last room for the venue leverage.
        numbers = deciders.shown.base
        numbers[0] = time / 1e9
        values = numbers.tolist()
        for place in places_of_numbers:
            values[place] = Number(values[place])
        if reads_venue:
            venue = MarginRules._make(map(as_float64, venue))

        account: Any = make(AccountView, (*values[N_BAR:place_of_venue], venue))
        fields = values[:N_BAR]
        for column in columns:
            fields.append(Number(column[local]))
        bar = make(bar_type, fields)

        # ``rule`` is the formula that runs, for an error. NaN decides nothing, and is allowed.
        rule = "leverage"
        venue_leverage = math.nan
        try:
            leverage = decide(deciders, i, bar, account)
            if margin_formula is not None:
                rule = "venue_leverage"
                venue_leverage = as_number(margin_formula(plain_policy, bar, account))
                numbers[-1] = venue_leverage
        except RAISED as error:
            raise make_policy_error(policy, bar, account, local, error, rule) from error
        if leverage < 0.0:
            raise make_policy_error(policy, bar, account, local, leverage, "leverage")
        if venue_leverage <= 0.0:
            raise make_policy_error(policy, bar, account, local, venue_leverage, rule)
        return leverage

    return answer


def make_plain_settings(policy: Policy) -> Policy:
    """Return a copy of a policy whose numbers divide and overflow as compiled ones do."""
    own = change_settings(policy, {})
    for name, value in policy.settings().items():
        object.__setattr__(own, name, as_float64(value))
    return own


def bind_formula(policy: Policy, plain_policy: Policy, formula: Any) -> Callable[..., float]:
    """Return a function of the Deciders, i, bar and account that decides a leverage by ``formula``.

    The formula reads its parameters from ``plain_policy``, the same policy with numbers as compiled
    code has them. A policy with a memory reads and writes it in ``deciders.memory``.
    """
    start = p.start_memory(policy)
    if start is None:
        return lambda _deciders, _i, bar, account: as_number(formula(plain_policy, bar, account))

    memory_type = type(start)
    n_memory = len(start)

    def decide(deciders: Any, i: int, bar: Any, account: Any) -> float:
        """Return the leverage of a formula with memory, and write its new memory in place.

        TypeError if the memory changes its length.
        """
        first = deciders.memory_at[i]
        memory = deciders.memory[first : first + n_memory]
        before = memory_type(*map(Number, memory.flat))
        decided, after = formula(plain_policy, bar, account, before)

        leverage = as_number(decided)
        numbers_after = [*map(as_number, after)]
        if len(numbers_after) != n_memory:
            text = f"a memory must keep its length {n_memory}, got {repr_plain(after)}"
            raise TypeError(text)
        memory[:] = numbers_after
        return leverage

    return decide


def list_rules(policy: Policy, columns: tuple[str, ...]) -> list[Callable[..., Any]]:
    """Return the formula of a policy, and that of its venue leverage if it has one."""
    rules = (p.formula_for(policy, columns), p.margin_formula_for(policy, columns))
    return [rule for rule in rules if rule is not None]


def ask_plain(deciders: Deciders, terms: Any, quotes: Any, i: int, time: int, local: int) -> float:
    """Return the answer of policy i; an overlay, which comes last, is shown the last rules."""
    n = len(terms.instruments)
    rules = pick_instrument(terms, min(i, n - 1)).margin
    if i < n:
        quote = quotes.instruments[i]
        rules = rules._replace(multiplier=quote.multiplier, initial_multiplier=quote.initial)
    return float(deciders.methods[i](deciders, rules, i, time, local))


def find_read(rules: Sequence[Any]) -> list[int]:
    """Return which numbers that a policy is shown its rules may read: their places, rising.

    The numbers of the bar come first, from N_BAR on those of the account, and last its venue.
    ``rules`` are the policy's formulas.
    """
    # A rule is a function of the policy, the bar and the account.
    read_of_bar: set[str] = set()
    read_of_account: set[str] = set()
    for rule in rules:
        read_of_bar |= find_fields(rule, BAR)
        read_of_account |= find_fields(rule, ACCOUNT)

    # A star among them stands for all fields.
    places = []
    for k, name in enumerate(p.BAR_FIELDS):
        if read_of_bar & {"*", name}:
            places.append(k)
    for k, name in enumerate(AccountView._fields):
        if read_of_account & {"*", name}:
            places.append(N_BAR + k)
    return places


FIRST_TERM = BracketTables._fields.index("close_fees")
"""The first column of brackets that is no level: those before it are counts and levels."""


def read_margin_rules(brackets: BracketTables, i: int) -> MarginRules:
    """Return the margin rules of instrument i in numbers and tuples, as a policy reads a venue."""
    fields = []
    for field in pick_rules(brackets, i):
        value = np.asarray(field).tolist()
        if isinstance(value, list):
            value = tuple(value)
        fields.append(value)
    return MarginRules._make(fields)


class Callbacks:
    """Policies in plain Python which the compiled loop calls; what one raises ends the run.

    ``functions`` keeps what is called by address alive, as compiled code does not.
    """

    def __init__(self) -> None:
        self.functions: list[Any] = []
        self.brackets: Any = None
        self.venues: dict[int, tuple[bytes, MarginRules]] = {}
        self.gate: Any = None
        self.error: BaseException | None = None

    def add(self, deciders: Deciders, policy: Policy, columns: tuple[str, ...], i: int) -> int:
        """Return an address at which compiled code can call policy i, which stays in plain Python.

        ``deciders`` are the policies as the loop reads them, ``columns`` the names of what this one
        observes.
        """
        reads_venue = N_BAR + N_SHOWN in find_read(list_rules(policy, columns))
        method = deciders.methods[i]
        instrument = min(i, len(deciders.asks) - 2)  # an overlay has no venue of its own

        def call(*arguments: int) -> float:
            """Return the leverage that the policy decides, or -1, which stops the loop.

            ``arguments`` are those of a compiled formula (:data:`CALLED`). ctypes drops what is
            raised into compiled code. So an error is kept here, for :meth:`simulate` to raise.
            Signals of the system, such as Ctrl-C, wait at a gate, open only while the policy runs.
            """
            gate = self.gate
            try:
                # First the signals that came while compiled code ran, then each at once.
                gate.is_closed = False
                if gate.waiting:
                    gate.open()

                # Margin rules are read for a policy that looks at them; others never look here.
                venue: Any = self.read_venue
                if reads_venue:
                    venue = self.read_venue(instrument)
                time, local = arguments[TIME_AND_BAR]
                leverage: float = method(deciders, venue, i, time, local)
            except BaseException as error:
                self.error = error
                return -1.0
            else:
                return leverage
            finally:
                gate.is_closed = True

        function = CALLED(call)
        self.functions.append(function)
        return int(ctypes.cast(function, ctypes.c_void_p).value or 0)

    def read_venue(self, i: int) -> MarginRules:
        """Return the margin rules of instrument i, read again if the loop has changed its terms.

        The brackets are set when the account begins; the loop writes fees and multipliers of all
        instruments. Their bytes are compared, as that is cheaper than to read them.
        """
        terms = b"".join(self.brackets[FIRST_TERM:])
        terms_before, rules = self.venues.get(i, (b"", None))
        if rules is None or terms_before != terms:
            rules = read_margin_rules(self.brackets, i)
            self.venues[i] = (terms, rules)
        return rules

    def simulate(self, bind: Callable[..., Callable[[], Any]], terms: Any, *arguments: Any) -> Any:
        """Run the loop that ``bind`` prepares for its arguments; signals come in bar by bar."""
        self.brackets = terms.rules.brackets
        self.venues = {}
        run = bind(terms, *arguments)
        with hold_signals() as self.gate:
            returned = run()

        error = self.error
        self.error = None
        if error is not None:
            raise error
        return returned
