"""The policies of a run: what they observed, and how the loop asks them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest._compile.bytecode import describe_function, find_code_names, find_fields
from backtest._compile.object_code import hold_signals
from backtest._compile.plain_formula import as_float64, make_plain
from backtest.account import Account, measure_stop, pick_instrument
from backtest.core import RAISED, FloatArray, IntArray, Number, ParameterError, repr_plain
from backtest.engine.checks import give_each
from backtest.engine.inputs import read_cost
from backtest.engine.loop import N_SHOWN, SETTING, WHOLE, Deciders
from backtest.margin import LEVELS, MarginRules, pick_rules
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
CALLED = ctypes.CFUNCTYPE(ctypes.c_double, *[ctypes.c_int64] * 11)  # as a compiled formula
N_BAR = len(p.BAR_FIELDS)


class ObservedPolicy(NamedTuple):
    policy: Policy
    market: Market
    columns: dict[str, FloatArray]
    first: int
    causality: str


def assign_policies(
    policy: object, markets: Markets, overlay: object
) -> tuple[dict[str, Policy], Policy | None]:
    """Return the policy of each instrument by name, checked, and the overlay or None."""
    policies = give_each(policy, markets, one="policy")
    for name, each in policies.items():
        check_policy(each, f"policy of {name}" if len(policies) > 1 else "policy")
    return policies, check_overlay(overlay)


def check_policy(policy: object, name: str) -> Policy:
    if isinstance(policy, Policy):
        return policy
    add = "; add () to make one of the class" * isinstance(policy, type)
    raise ParameterError(f"{name} must be a Policy, got {repr_plain(policy)}{add}")


def check_overlay(given: object) -> Policy | None:
    if given is None:
        return None
    overlay = check_policy(given, "overlay")
    if p.sets_margin(overlay):
        raise ParameterError(
            "overlay must not define venue_leverage, for it has no position whose margin it could "
            f"move, got {type(overlay).__name__}"
        )
    orders = getattr(type(overlay), "option_orders", None)
    rules = [*list_rules(overlay, ()), *([] if orders is None else [orders])]
    names = {name for each in rules for name in describe_function(each, {}).names}
    read = [name for name in ("venue", "liquidation_price") if name in names]
    if read:
        raise ParameterError(
            "overlay must not read a venue or a liquidation price, for it scales the portfolio, "
            f"got {type(overlay).__name__}, which reads "
            f"{' and '.join(f'account.{name}' for name in read)}"
        )
    return overlay


def observe_policies(
    policies: Mapping[str, Policy],
    overlay: Policy | None,
    markets: Markets,
    venues: Mapping[str, Venue],
    signal: FloatArray,
    *,
    is_checked: bool = True,
) -> list[ObservedPolicy]:
    look = observe_checked if is_checked else observe_again
    found = []
    for row, name, (first, stop) in zip(signal, markets.names, markets.spans.tolist(), strict=True):
        shown = venues[name].show_margin(markets[name])
        market = shown.with_signal(np.clip(row[first:stop], -1.0, 1.0))
        columns, causality = look(policies[name], market)
        found.append(ObservedPolicy(policies[name], market, columns, first, str(causality)))
    return [*found, *observe_overlay(overlay, markets, signal, is_checked=is_checked)]


def observe_overlay(
    overlay: Policy | None, markets: Markets, signal: FloatArray, *, is_checked: bool = True
) -> list[ObservedPolicy]:
    if overlay is None:
        return []
    index = markets.index(signal.T)
    look = observe_checked if is_checked else observe_again
    begin = int(np.argmax(np.any(signal != 0.0, axis=0)))
    columns, causality = look(overlay, index.slice(begin, index.n_bars) if begin else index)
    unknown = np.full(begin, np.nan)
    columns = {name: np.concatenate([unknown, values]) for name, values in columns.items()}
    return [ObservedPolicy(overlay, index, columns, 0, str(causality))]


TERMS = ("stop_distance", "slippage", "taker")
"""What a formula may read of the account's stop and the venue's costs, as a column of its bar."""


def list_terms(cls: type[Policy], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the column and the name of each of ``TERMS`` that a policy, or a part of it, reads."""
    parts = getattr(cls, "parts", ())
    for part in parts:
        yield from list_terms(part.policy, f"{prefix}{part.prefix}")
    names = [] if parts else find_code_names(p.formula_of(cls))
    yield from ((f"{prefix}{name}", name) for name in TERMS if name in names)


def show_terms(
    observed: Sequence[ObservedPolicy], account: Account, venues: Mapping[str, Venue]
) -> list[ObservedPolicy]:
    """Return observed policies with the columns of ``TERMS`` that their formulas read.

    Raises ParameterError if one reads the distance of a stop, and the account has none.
    """
    found = list(observed)
    for k, (name, own) in enumerate(zip(venues, observed, strict=False)):
        read = [each for each in list_terms(type(own.policy)) if each[0] not in own.columns]
        if read:
            setting = own, account.for_instrument(name), venues[name]
            more = {column: measure_term(term, *setting) for column, term in read}
            found[k] = own._replace(columns={**own.columns, **more})
    return found


def measure_term(term: str, own: ObservedPolicy, account: Account, venue: Venue) -> FloatArray:
    market, cost = own.market, "fees.taker" if term == "taker" else "slippage.rate"
    rate = read_cost(pick_cost(venue, cost), market, f"venue.{cost}")
    if term != "stop_distance":
        return np.array(np.broadcast_to(rate, (market.n_bars,)))
    stops = [each for each in (account.stop_loss, account.trailing_stop) if each is not None]
    if not stops:
        raise ParameterError(
            f"{type(own.policy).__name__} sizes a position by its stop; give one, "
            "Account(stop_loss=0.05) or Account(stop_loss='2*atr') for example, got none"
        )
    entry = market.close * (1.0 + np.where(market.signal < 0.0, -1.0, 1.0) * rate)
    found = [measure_stop(each, market, entry) for each in stops]
    return np.asarray(np.fmin.reduce([np.where(each > 0.0, each, np.nan) for each in found]))


def observe_again(policy: Policy, market: Market) -> tuple[dict[str, FloatArray], str]:
    """Return the columns of a policy that was checked before, and how they were checked."""
    return observe(policy, market), "checked before"


class WarmUp(NamedTuple):
    """From which bar on a policy is asked, and which of its columns never have a value."""

    bar: int
    never: tuple[str, ...]


def find_warm_up(columns: Mapping[str, FloatArray]) -> WarmUp:
    """Return the first bar at which each column has had a value: the policy is asked from it on.

    Columns that never have one do not count, so that a policy may do without them.
    """
    firsts = {name: find_first_value(column) for name, column in columns.items()}
    never = tuple(name for name, first in firsts.items() if first is None)
    return WarmUp(max((first for first in firsts.values() if first is not None), default=0), never)


def find_first_value(column: FloatArray) -> int | None:
    """Return the first bar with a value, None of a column without any."""
    stop = 64
    while True:  # most are known early, so longer and longer beginnings are read
        is_known = ~np.isnan(column[:stop])
        if is_known.any():
            return int(is_known.argmax())
        if stop >= len(column):
            return None
        stop *= 16


def measure_decided(
    warm_ups: Sequence[WarmUp], begins: Sequence[int], first: int, n_bars: int, *, has_traded: bool
) -> float:
    """Return the share of the bars from ``first`` on at which a policy of some was asked.

    ``begins`` are the bars at which their markets begin. 0 if each has a column without any value
    and nothing was traded: then none was warm at any bar.
    """
    if not has_traded and all(each.never for each in warm_ups):
        return 0.0
    asked = [begin + each.bar for begin, each in zip(begins, warm_ups, strict=False)]
    return max(n_bars - max(min(asked), first), 0) / (n_bars - first)


def measure_observed(
    observed: Sequence[ObservedPolicy], markets: Markets, first: int, *, has_traded: bool
) -> float:
    """Return the same of observed policies, those of instruments, in the bars that they see."""
    clock, own = find_clock(markets), observed[: len(markets)]
    return measure_decided(
        [find_warm_up(each.columns) for each in own],
        [each.first for each in own],
        clock.at(first),
        clock.seen.n_bars,
        has_traded=has_traded,
    )


def flatten(parts: list[FloatArray]) -> tuple[FloatArray, IntArray]:
    """Return arrays joined into one, and the place at which each begins."""
    at = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    return (np.concatenate(parts) if parts else np.zeros(0)), at[:-1].copy()


def gather_deciders(setup: Any, observed: list[ObservedPolicy]) -> Deciders:
    markets, n = setup.markets, len(setup.markets)
    width = setup.inputs.terms.rules.brackets.floors.shape[1]
    params, params_at = flatten_settings(observed)
    columns, columns_at = flatten_columns(observed)
    memory, memory_at = flatten_memory(observed)
    clock, price = find_clock(markets), frozenset({"liquidation_price"})
    numbers = np.zeros(N_BAR + SETTING + 1)  # of bar and account, which `bind` reads at once
    seen_time, seen_bars = np.zeros(1, np.int64), np.zeros((6, 1, 1))
    if not clock.is_every:  # the longer bars that policies see
        panel, seen_time = clock.seen.panel(), np.asarray(clock.seen.time)
        rows = [getattr(panel, name).T for name in SEEN_PRICES]
        seen_bars = np.ascontiguousarray(np.stack(rows))
    rules = [list_rules(each.policy, ()) for each in observed]
    wants_price = [any(may_read_of_account(rule, price) for rule in own) for own in rules]
    return Deciders(
        methods=tuple(map(bind, observed)),
        addresses=np.zeros(n + 1, np.int64),
        params=params,
        params_at=params_at,
        columns=columns,
        columns_at=columns_at,
        lengths=np.array([each.market.n_bars for each in observed], np.int64),
        firsts=np.array([each.first for each in observed] + [0], np.int64),
        known=find_known_bars(observed, n),
        memory=memory,
        memory_at=memory_at,
        asks=np.array([1] * len(observed) + [0] * (n + 1 - len(observed)), np.int64),
        wants_price=np.array(wants_price, np.int64),
        wants_table=np.ones(n + 1, np.int64),
        wants_account=np.full(n + 1, WHOLE),
        wants_bar=np.ones(n + 1, np.int64),
        index_bars=read_index(observed, n, clock.seen.n_bars),
        rows=clock.rows,
        seen_time=seen_time,
        seen_bars=seen_bars,
        tradable=np.ascontiguousarray(markets.tradable().T, dtype=np.int64),
        sets_margin=np.array([p.sets_margin(each.policy) for each in observed], np.int64),
        shown=numbers[N_BAR:],
        bar=numbers[1:N_BAR],
        margin=np.zeros(9),
        levels=np.zeros(5 * width),
        width=width,
        interval=clock.seen.interval,
        start=np.array([setup.inputs.started], np.int64),
    )


def find_known_bars(observed: Sequence[ObservedPolicy], n: int) -> IntArray:
    """Return the bar from which on each policy is asked, (n + 1,): its own bar, counted from 0."""
    known = np.zeros(n + 1, np.int64)
    known[: len(observed)] = [find_warm_up(each.columns).bar for each in observed]
    return known


def flatten_settings(observed: list[ObservedPolicy]) -> tuple[FloatArray, IntArray]:
    """Return the parameters of all policies in one array, and the place of each policy."""
    numbers = []
    for each in observed:
        own = number_elements(each.policy.settings()).values()
        plain = [float(x) if isinstance(x, int | float) else np.nan for x in own]
        numbers.append(np.array(plain or [0.0], dtype=np.float64))
    return flatten(numbers)


def flatten_columns(observed: list[ObservedPolicy]) -> tuple[FloatArray, IntArray]:
    """Return the columns of all policies in one array, and the place of each policy."""
    return flatten([np.concatenate([*own.columns.values(), np.zeros(1)]) for own in observed])


def flatten_memory(observed: list[ObservedPolicy]) -> tuple[FloatArray, IntArray]:
    """Return the first memory of all policies in one array, and the place of each policy."""
    begun = [p.start_memory(each.policy) or () for each in observed]
    return flatten([np.array([*each, 0.0], dtype=np.float64) for each in begun])


def read_index(observed: list[ObservedPolicy], n: int, n_bars: int) -> FloatArray:
    """Return the bars of the portfolio index as the overlay sees them, of shape (7, n_bars)."""
    if len(observed) == n:
        return np.zeros((7, 1))
    index = observed[-1].market
    funding = np.full(n_bars, np.nan)
    rows = np.searchsorted(index.time + index.interval, index.funding_time, side="right")
    inside = rows < n_bars
    funding[rows[inside]] = index.funding_rate[inside]
    prices = [getattr(index, name) for name in SEEN_PRICES]
    known = np.maximum.accumulate(np.where(np.isnan(funding), -1, np.arange(n_bars)))
    last = np.where(known >= 0, funding[np.maximum(known, 0)], np.nan)
    return np.ascontiguousarray(np.stack([*prices, last]))


def bind(observed: ObservedPolicy) -> Callable[..., float]:
    policy, names = observed.policy, tuple(observed.columns)
    own, columns = change_settings(policy, {}), tuple(observed.columns.values())
    for name, value in policy.settings().items():
        object.__setattr__(own, name, as_float64(value))
    rules = list_rules(policy, names)
    read = find_read(rules)
    few, has_venue = [k for k in read if k < N_BAR + N_SHOWN], N_BAR + N_SHOWN in read
    formula, *others = map(make_plain, rules)
    margin_formula = others[0] if others else None
    start, make = p.start_memory(policy), tuple.__new__
    memory_type, n_memory = type(start), len(start or ())
    bar_type: Any = name_tuple("Bar", (*p.BAR_FIELDS, *names))

    def answer(deciders: Any, venue: Any, i: int, time: int, local: int) -> float:
        numbers = deciders.shown.base
        numbers[0] = time / 1e9
        told = numbers.tolist()
        for k in few:  # what the rules read of them
            told[k] = Number(told[k])
        if has_venue:
            venue = MarginRules._make(map(as_float64, venue))
        account: Any = make(AccountView, (*told[N_BAR : N_BAR + N_SHOWN], venue))
        own_bar = told[:N_BAR]
        for each in columns:
            own_bar.append(Number(each[local]))
        bar, rule, setting = make(bar_type, own_bar), "leverage", math.nan
        try:
            if start is None:
                value = as_number(formula(own, bar, account))
            else:
                at = deciders.memory_at[i]
                memory = deciders.memory[at : at + n_memory]
                decided, kept = formula(own, bar, account, memory_type(*map(Number, memory.flat)))
                value, after = as_number(decided), [*map(as_number, kept)]
                if len(after) != n_memory:
                    text = f"a memory must keep its length {n_memory}, got {repr_plain(kept)}"
                    raise TypeError(text)
                memory[:] = after
            if margin_formula is not None:
                rule = "venue_leverage"
                numbers[-1] = setting = as_number(margin_formula(own, bar, account))
        except RAISED as error:
            raise make_policy_error(policy, bar, account, local, error, rule) from error
        if value < 0.0 or setting <= 0.0:
            wrong = (value, "leverage") if value < 0.0 else (setting, rule)
            raise make_policy_error(policy, bar, account, local, *wrong)
        return value

    return answer


def list_rules(policy: Policy, columns: tuple[str, ...]) -> list[Callable[..., Any]]:
    found = (p.formula_for(policy, columns), p.margin_formula_for(policy, columns))
    return [each for each in found if each is not None]


def ask_plain(deciders: Deciders, terms: Any, quotes: Any, i: int, time: int, local: int) -> float:
    rules = pick_instrument(terms, min(i, len(terms.instruments) - 1)).margin
    if i < len(terms.instruments):
        rules = rules._replace(
            multiplier=quotes.instruments[i].multiplier,
            initial_multiplier=quotes.instruments[i].initial,
        )
    return float(deciders.methods[i](deciders, rules, i, time, local))


def find_read(rules: Sequence[Any]) -> list[int]:
    """Return the places of what rules may read of the bar and the account, with its venue."""
    fields = [*((1, name) for name in p.BAR_FIELDS), *((2, name) for name in AccountView._fields)]
    read = {at: frozenset().union(*(find_fields(rule, at) for rule in rules)) for at in (1, 2)}
    return [k for k, (at, name) in enumerate(fields) if read[at] & {"*", name}]


class Callbacks:
    """Policies in plain Python which the compiled loop calls; what one raises ends the run."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.brackets: Any = None
        self.venues: dict[int, tuple[bytes, MarginRules]] = {}
        self.gate: Any = None
        self.error: BaseException | None = None

    def add(self, deciders: Deciders, policy: Policy, columns: tuple[str, ...], i: int) -> int:
        has_venue = N_BAR + N_SHOWN in find_read(list_rules(policy, columns))
        method = deciders.methods[i]
        own = min(i, len(deciders.asks) - 2)  # an overlay has no venue of its own

        def call(*given: int) -> float:
            gate = self.gate
            try:
                gate.is_closed = False
                if gate.kept:
                    gate.open()
                venue: Any = self.read_venue(own) if has_venue else self.read_venue
                found: float = method(deciders, venue, i, given[8], given[9])
            except BaseException as error:
                self.error = error
                return -1.0  # which stops the loop
            else:
                return found
            finally:
                gate.is_closed = True  # ctypes drops what is raised outside of the try

        self.kept.append(CALLED(call))
        return int(ctypes.cast(self.kept[-1], ctypes.c_void_p).value or 0)

    def read_venue(self, i: int) -> MarginRules:
        rates = b"".join(self.brackets[1 + len(LEVELS) :])  # which the loop may change
        if self.venues.get(i, (b"", None))[0] != rates:
            found = [np.asarray(each).tolist() for each in pick_rules(self.brackets, i)]
            rules = MarginRules._make(tuple(x) if isinstance(x, list) else x for x in found)
            self.venues[i] = rates, rules
        return self.venues[i][1]

    def simulate(self, bind: Callable[..., Callable[[], Any]], terms: Any, *given: Any) -> Any:
        """Run the loop that ``bind`` prepares for its arguments; signals come in bar by bar."""
        self.brackets, self.venues = terms.rules.brackets, {}
        run = bind(terms, *given)
        with hold_signals() as self.gate:
            found = run()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return found
