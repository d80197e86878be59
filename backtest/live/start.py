"""The state of an account at its last close, from a snapshot; and what policies remember."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account import AccountState, Terms, compute_account_equity, is_under_limit
from backtest.account import portfolio_records as r
from backtest.base import FloatArray, ParameterError
from backtest.base.units import DAY
from backtest.engine import (
    Glimpse,
    TradedDays,
    place_funding,
    read_index,
    start_account_state,
)
from backtest.engine.fee_days import WINDOW
from backtest.engine.portfolio_policies import BAR_NUMBERS
from backtest.live.snapshot import AccountSnapshot, HeldPosition
from backtest.policy import (
    AccountView,
    Combinator,
    Policy,
    bind_plain,
    combinator_of,
    formula_for,
    margin_formula_for,
    may_read_of_account,
    start_memory,
)
from backtest.venue import compute_value

if TYPE_CHECKING:
    from backtest.engine import Setup

FLAT = HeldPosition(quantity=0.0)
BEHIND = {
    "peak_equity": "peak_equity",
    "drawdown": "peak_equity",
    "reserve": "reserve",
    "bars_since_liquidation": "bars_since_liquidation",
    "bars_since_stop": "bars_since_stop",
    "days": "started",
}
"""Facts of a snapshot by the field of the account that shows them to a policy."""
OF_RULES = {
    "trailing_stop": ("best_price", "compares with it"),
    "equity_stop": ("highest_equity", "compares with it"),
    "max_holding": ("opened", "counts from it"),
}


# ------------------------------------------------------------------ what must be known


def check_known(setup: Setup, snapshot: AccountSnapshot) -> None:
    """Require the facts that the policies and the rules of the account read."""
    lacking = [need for need in list_needs(setup) if not is_known(setup, snapshot, need[0])]
    if lacking:
        facts = ", ".join(dict.fromkeys(fact for fact, _ in lacking))
        readers = "; ".join(dict.fromkeys(reader for _, reader in lacking))
        raise ParameterError(
            f"state must have what the policy and the account read, got no {facts}: {readers}"
        )


def list_needs(setup: Setup) -> Iterator[tuple[str, str]]:
    for policy in setup.observed:
        reads = find_account_reads(policy.policy)
        for name, fact in BEHIND.items():
            if name in reads:
                yield fact, f"{type(policy.policy).__name__} reads account.{name}"
    for name, (fact, reader) in OF_RULES.items():
        if getattr(setup.account, name) not in (None, 0.0):
            yield fact, f"{name} {reader}"
    if setup.overlay is not None:
        yield "overlay", "the overlay keeps it where it returns NaN"


def find_account_reads(policy: Policy) -> frozenset[str]:
    fields = AccountView._fields
    if isinstance(policy, Combinator):
        rule: Any = combinator_of(type(policy)).combine
        own = frozenset(f for f in fields if may_read_of_account(rule, frozenset({f})))
        return own.union(*(find_account_reads(each) for each in policy.policies))
    rules = [each for each in (formula_for(policy, ()), margin_formula_for(policy, ())) if each]
    return frozenset(
        f for f in fields if any(may_read_of_account(rule, frozenset({f})) for rule in rules)
    )


def is_known(setup: Setup, snapshot: AccountSnapshot, fact: str) -> bool:
    held = {name: each for name, each in snapshot.positions.items() if each.quantity != 0.0}
    if fact == "peak_equity" and snapshot.unit is not None:
        return True
    if fact == "best_price":
        of_all = held.values()
        return all(each.best_price is not None or each.best_value is not None for each in of_all)
    if fact == "opened":
        stopped = [n for n in setup.markets.names if setup.account.for_instrument(n).max_holding]
        return all(held[name].opened is not None for name in stopped if name in held)
    if getattr(snapshot, fact) is not None:
        return True
    own = [snapshot.positions.get(name) for name in setup.markets.names]
    is_of_each = fact in ("bars_since_liquidation", "bars_since_stop")
    return is_of_each and all(each and getattr(each, fact) is not None for each in own)


# ------------------------------------------------------------------ the state


def start_account(setup: Setup, snapshot: AccountSnapshot, terms: Terms) -> AccountState:
    has_overlay = setup.overlay is not None
    last = setup.markets.n_bars - 1
    state = start_account_state(setup.inputs, setup.account, last, has_overlay=has_overlay)
    held = [snapshot.positions.get(name, FLAT) for name in setup.markets.names]
    is_listed = setup.markets.spans[:, 1] == setup.markets.n_bars
    for i, (each, market) in enumerate(zip(held, setup.markets.values(), strict=True)):
        is_open = each.quantity != 0.0
        mark = value_price(setup, i, market.mark_close[-1], None) if is_listed[i] else 0.0
        best = value_price(setup, i, each.best_price, each.best_value)
        state.held.quantities[i] = each.quantity
        state.held.entries[i] = value_price(setup, i, each.entry, each.entry_value) * is_open
        state.held.values[i] = state.marked[i] = mark
        state.margin[i] = each.margin
        state.best[i] = best * is_open
        state.factor[i] = 1.0 if each.overlay is None else each.overlay
        state.opened[i] = each.opened.value if is_open and each.opened is not None else math.nan
        state.since[i] = find_since(snapshot, each, "bars_since_liquidation")
        state.since_stop[i] = find_since(snapshot, each, "bars_since_stop")
        state.is_halted[i] = 1 if each.halted else 0
        if each.venue_leverage is not None:
            state.setting[i] = each.venue_leverage
    feed = setup.inputs.feed
    state.last_funding[:] = math.nan
    state.last_funding[feed.funding_instrument] = feed.funding_rate
    if snapshot.collateral is not None:
        names = [each.name for each in setup.account.collateral]
        state.held.amounts[:] = [snapshot.collateral.get(name, 0.0) for name in names]
    state.held.prices[:] = state.priced[:] = feed.asset_mark_close[:, last]
    write_wallet(setup, snapshot, state, terms)
    return state


def value_price(setup: Setup, i: int, price: float | None, value: float | None) -> float:
    if value is not None:
        return value
    contract = setup.venues[setup.markets.names[i]].contract
    if price is None:
        return 0.0
    return float(compute_value(contract.size, contract.kind == "inverse", price))


def find_since(snapshot: AccountSnapshot, held: HeldPosition, name: str) -> float:
    own, whole = getattr(held, name), getattr(snapshot, name)
    return float(own if own is not None else math.inf if whole is None else whole)


def write_wallet(
    setup: Setup, snapshot: AccountSnapshot, state: AccountState, terms: Terms
) -> None:
    wallet, whole = state.wallet, snapshot.bars_since_liquidation
    wallet[r.CASH] = find_cash(setup, snapshot, state)
    equity = compute_account_equity(terms, state)
    wallet[r.EQUITY], wallet[r.RESERVE] = equity, snapshot.reserve or 0.0
    wallet[r.UNIT] = equity if snapshot.unit is None else snapshot.unit
    peak = max(snapshot.peak_equity or equity, equity)
    wallet[r.PEAK] = peak if snapshot.unit_peak is None else snapshot.unit_peak
    wealth = equity + wallet[r.RESERVE]
    wallet[r.SCALE] = wallet[r.UNIT] / wealth if wealth > 0.0 else 1.0
    wallet[r.PAID_IN] = wealth if snapshot.paid_in is None else snapshot.paid_in
    wallet[r.HIGHEST] = equity if snapshot.highest_equity is None else snapshot.highest_equity
    wallet[r.IS_RUINED] = 0.0 if equity > 0.0 else 1.0
    wallet[r.IS_OVER] = 1.0 if snapshot.halted else 0.0
    if snapshot.overlay is not None:
        wallet[r.OVERLAY] = snapshot.overlay
    wallet[r.SINCE_POOL] = math.inf if whole is None else whole
    wallet[r.IS_CONVERTING] = 1.0 if is_under_limit(terms, state, equity) else 0.0


def find_cash(setup: Setup, snapshot: AccountSnapshot, state: AccountState) -> float:
    if snapshot.cash is not None:
        return snapshot.cash
    paid, worth = 0.0, 0.0
    for i, name in enumerate(setup.markets.names):
        quantity, entry = float(state.held.quantities[i]), float(state.held.entries[i])
        mark = float(state.marked[i])
        if setup.account.for_instrument(name).margin == "isolated":
            worth += float(state.margin[i]) + quantity * (mark - entry)
        else:
            paid += quantity * entry
            worth += quantity * mark
    if snapshot.wallet is not None:
        return snapshot.wallet - paid
    collateral = float(np.sum(state.held.amounts * state.held.prices))
    return (snapshot.equity or 0.0) - worth - collateral


def find_traded(setup: Setup, snapshot: AccountSnapshot) -> TradedDays | None:
    if setup.inputs.fees is None:
        return None
    past = np.zeros(WINDOW)
    past[-1] = snapshot.traded_30d or 0.0
    return TradedDays(int(setup.markets.time[-1]) // DAY, 0.0, past)


# ------------------------------------------------------------------ what policies remember


def rebuild_memories(setup: Setup) -> list[tuple[float, ...]]:
    """Return what the policies remember at the last close, from the bars that they saw."""
    found = []
    for i, policy in enumerate(setup.observed):
        kept = tuple(map(float, start_memory(policy.policy) or ()))
        if kept and find_account_reads(policy.policy) - {"venue"}:
            raise ParameterError(
                f"{type(policy.policy).__name__} remembers what it saw of the account, which a "
                "snapshot does not know; decide from the result of a run"
            )
        found.append(rebuild(setup, i) if kept else kept)
    return found


def rebuild(setup: Setup, i: int) -> tuple[float, ...]:
    policy = setup.observed[i]
    decide = bind_plain(policy.policy, tuple(policy.columns))
    columns = tuple(policy.columns.values())
    numbers = tuple(map(float, start_memory(policy.policy)))
    view = AccountView._make((*[math.nan] * (len(AccountView._fields) - 1), None))
    bars, time = list_bars(setup, i), policy.market.time.tolist()
    with np.errstate(all="ignore"):
        for t in range(policy.market.n_bars - 1):
            seen = Glimpse(time[t], t, bars[:, t])
            _, numbers = decide(None, columns, numbers, seen, view, float(bars[6, t]), t)
    return tuple(numbers)


def list_bars(setup: Setup, i: int) -> FloatArray:
    """Return the bars that a policy saw, of shape (7, n_bars)."""
    policy, n = setup.observed[i], len(setup.markets)
    if i == n:
        return read_index(setup.observed, n, setup.markets.n_bars)
    market = policy.market
    names = ["mark_close" if name == "mark" else name for name in BAR_NUMBERS[:-1]]
    paid = place_funding(market, setup.venues[setup.markets.names[i]], 0)
    known = np.searchsorted(paid["funding_bar"], np.arange(market.n_bars), side="right") - 1
    rates = np.concatenate([paid["funding_rate"], [math.nan]])
    return np.stack([*(getattr(market, name) for name in names), rates[known]])
