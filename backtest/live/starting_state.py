"""The state of an account at its last close, from a snapshot; and what policies remember."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import (
    AccountState,
    Terms,
    compute_account_equity,
    is_under_limit,
)
from backtest.account.portfolio_records import (
    CASH,
    EQUITY,
    HIGHEST,
    IS_CONVERTING,
    IS_OVER,
    IS_RUINED,
    OVERLAY,
    PAID_IN,
    PEAK,
    RESERVE,
    SCALE,
    SINCE_POOL,
    UNIT,
)
from backtest.base import (
    FloatArray,
    ParameterError,
    format_time,
    from_plain,
    to_plain,
    write_file,
)
from backtest.base.units import DAY
from backtest.engine import (
    Glimpse,
    ObservedPolicy,
    TradedDays,
    place_funding,
    read_index,
    start_account_state,
)
from backtest.engine.fee_days import WINDOW
from backtest.engine.portfolio_policies import BAR_NUMBERS
from backtest.live.facts import find_account_reads
from backtest.live.snapshot import AccountSnapshot, HeldPosition
from backtest.policy import AccountView, bind_plain, start_memory
from backtest.venue import compute_value

if TYPE_CHECKING:
    from backtest.base import IntArray
    from backtest.engine import Setup
    from backtest.live.facts import Completed


FLAT = HeldPosition(quantity=0.0)


def list_held(setup: Setup, snapshot: AccountSnapshot) -> list[HeldPosition]:
    return [snapshot.positions.get(name, FLAT) for name in setup.markets.names]


def value_price(setup: Setup, i: int, price: float | None, value: float | None) -> float:
    if value is not None:
        return value
    contract = setup.venues[setup.markets.names[i]].contract
    if price is None:
        return 0.0
    return float(compute_value(contract.size, contract.kind == "inverse", price))


def list_entries(setup: Setup, held: list[HeldPosition]) -> list[float]:
    return [
        value_price(setup, i, each.entry, each.entry_value) if each.quantity != 0.0 else 0.0
        for i, each in enumerate(held)
    ]


def list_marks(setup: Setup) -> list[float]:
    is_listed = setup.markets.spans[:, 1] == setup.markets.n_bars
    return [
        value_price(setup, i, float(market.mark_close[-1]), None) if is_listed[i] else 0.0
        for i, market in enumerate(setup.markets.values())
    ]


def find_cash(
    setup: Setup, snapshot: AccountSnapshot, entries: list[float], collateral: float
) -> float:
    if snapshot.cash is not None:
        return snapshot.cash
    held, marks = list_held(setup, snapshot), list_marks(setup)
    paid, worth = 0.0, 0.0
    for name, each, entry, mark in zip(setup.markets.names, held, entries, marks, strict=True):
        if setup.account.for_instrument(name).margin == "isolated":
            worth += each.margin + each.quantity * (mark - entry)
        else:
            paid += each.quantity * entry
            worth += each.quantity * mark
    if snapshot.wallet is not None:
        return snapshot.wallet - paid
    return (snapshot.equity or 0.0) - worth - collateral


def find_unit(completed: Completed, equity: float) -> tuple[float, float]:
    snapshot = completed.snapshot
    if snapshot.unit is not None and snapshot.unit_peak is not None:
        return snapshot.unit, snapshot.unit_peak
    peak = snapshot.peak_equity
    known = equity if peak is None or "peak_equity" in completed.as_equity else peak
    return equity, max(known, equity)


def find_since(snapshot: AccountSnapshot, each: HeldPosition, name: str) -> float:
    own, whole = getattr(each, name), getattr(snapshot, name)
    return float(own if own is not None else math.inf if whole is None else whole)


def find_last_funding(setup: Setup, whose: IntArray) -> list[float]:
    feed, rates = setup.inputs.feed, [math.nan] * len(setup.markets)
    for i, rate in zip(whose.tolist(), feed.funding_rate.tolist(), strict=True):
        rates[i] = rate
    return rates


def find_traded(setup: Setup, snapshot: AccountSnapshot) -> TradedDays | None:
    if setup.inputs.fees is None:
        return None
    past = np.zeros(WINDOW)
    past[-1] = snapshot.traded_30d or 0.0
    return TradedDays(int(setup.markets.time[-1]) // DAY, 0.0, past)


def find_highest(completed: Completed, equity: float) -> float:
    known = completed.snapshot.highest_equity
    return equity if known is None else known


def start_several(setup: Setup, completed: Completed, terms: Terms) -> AccountState:
    snapshot, feed, t = completed.snapshot, setup.inputs.feed, setup.markets.n_bars - 1
    has_overlay = setup.overlay is not None
    state = start_account_state(setup.inputs, setup.account, t, has_overlay=has_overlay)
    held = list_held(setup, snapshot)
    entries, marks = list_entries(setup, held), list_marks(setup)
    state.held.quantities[:] = [each.quantity for each in held]
    state.held.entries[:] = entries
    state.held.values[:] = marks
    state.marked[:] = marks
    state.margin[:] = [each.margin for each in held]
    state.best[:] = list_best(setup, held)
    state.factor[:] = [1.0 if each.overlay is None else each.overlay for each in held]
    state.opened[:] = [find_opened(each) for each in held]
    state.since[:] = [find_since(snapshot, x, "bars_since_liquidation") for x in held]
    state.since_stop[:] = [find_since(snapshot, x, "bars_since_stop") for x in held]
    state.is_halted[:] = [1 if each.halted else 0 for each in held]
    for i, each in enumerate(held):
        if each.venue_leverage is not None:
            state.setting[i] = each.venue_leverage
    state.last_funding[:] = find_last_funding(setup, feed.funding_instrument)
    amounts = snapshot.collateral
    if amounts is not None:
        named = [each.name for each in setup.account.collateral]
        state.held.amounts[:] = [amounts.get(name, 0.0) for name in named]
    state.held.prices[:] = feed.asset_mark_close[:, t]
    state.priced[:] = feed.asset_mark_close[:, t]
    write_wallet(setup, completed, state, terms, entries)
    return state


def find_opened(held: HeldPosition) -> float:
    """Return when a position was opened, ns; NaN if it is flat, or that is unknown."""
    is_known = held.quantity != 0.0 and held.opened is not None
    return float(held.opened.value) if is_known else math.nan


def list_best(setup: Setup, held: list[HeldPosition]) -> list[float]:
    return [
        value_price(setup, i, each.best_price, each.best_value) if each.quantity != 0.0 else 0.0
        for i, each in enumerate(held)
    ]


def write_wallet(
    setup: Setup, completed: Completed, state: AccountState, terms: Terms, entries: list[float]
) -> None:
    snapshot, wallet = completed.snapshot, state.wallet
    assets = float(np.sum(state.held.amounts * state.held.prices))
    wallet[CASH] = find_cash(setup, snapshot, entries, assets)
    equity = compute_account_equity(terms, state)
    wallet[EQUITY], wallet[RESERVE] = equity, snapshot.reserve or 0.0
    wallet[UNIT], wallet[PEAK] = find_unit(completed, equity)
    wealth = equity + wallet[RESERVE]
    wallet[SCALE] = wallet[UNIT] / wealth if wealth > 0.0 else 1.0
    wallet[PAID_IN] = wealth if snapshot.paid_in is None else snapshot.paid_in
    wallet[HIGHEST] = find_highest(completed, equity)
    wallet[IS_RUINED] = 0.0 if equity > 0.0 else 1.0
    wallet[IS_OVER] = 1.0 if snapshot.halted else 0.0
    if snapshot.overlay is not None:
        wallet[OVERLAY] = snapshot.overlay
    whole = snapshot.bars_since_liquidation
    wallet[SINCE_POOL] = math.inf if whole is None else whole
    wallet[IS_CONVERTING] = 1.0 if is_under_limit(terms, state, equity) else 0.0


Numbers = list[tuple[float, ...]]


class Remembered(NamedTuple):
    numbers: Numbers
    text: str


def start_numbers(setup: Setup) -> Numbers:
    return [tuple(map(float, start_memory(p.policy) or ())) for p in setup.observed]


def name_policies(setup: Setup) -> list[str]:
    names = list(setup.markets.names)
    return [*names, "overlay"][: len(setup.observed)]


def recall(setup: Setup, file: Path | None) -> Remembered:
    first = start_numbers(setup)
    if not any(first):
        return Remembered(first, "")
    if file is not None and file.exists():
        return Remembered(read_memory(setup, file, first), f"memory of {file.name}")
    reading = [p for p, kept in zip(setup.observed, first, strict=True) if kept and reads(p)]
    if not reading:
        rebuilt = [rebuild(setup, i) if kept else kept for i, kept in enumerate(first)]
        return Remembered(rebuilt, f"memory rebuilt from {setup.markets.n_bars:,} bars")
    if file is not None:
        return Remembered(first, f"memory begins now, in {file.name}")
    kind = type(reading[0].policy).__name__
    raise ParameterError(
        f"{kind} remembers what it saw of the account, which history cannot rebuild, got no "
        "memory; keep it between decisions with memory='policy.json'"
    )


def reads(policy: ObservedPolicy) -> bool:
    return bool(find_account_reads(policy.policy) - {"venue"})


def rebuild(setup: Setup, i: int) -> tuple[float, ...]:
    policy = setup.observed[i]
    decide = bind_plain(policy.policy, tuple(policy.columns))
    columns, kept = tuple(policy.columns.values()), start_memory(policy.policy)
    numbers = tuple(map(float, kept))
    nothing = (math.nan,) * (len(AccountView._fields) - 1)
    view = AccountView._make((*nothing, None))
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


# ------------------------------------------------------------------------------------- the file


def read_memory(setup: Setup, file: Path, first: Numbers) -> Numbers:
    last = int(setup.markets.time[-1])
    try:
        data: Any = from_plain(json.loads(file.read_text(encoding="utf-8")))
        stamp, rows = int(data["time"]), (data["before"], data["after"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ParameterError(
            f"memory must be a file that bt.decide wrote, got {error!r} ({file}); delete it to "
            "begin anew"
        ) from error
    names = name_policies(setup)
    before = last - int(setup.markets.time[-2]) if setup.markets.n_bars > 1 else 0
    if stamp not in (last, last - before):
        raise ParameterError(
            f"memory must be that of the last close or the one before, {format_time(last)}, "
            f"got {format_time(stamp)} ({file}); delete it to begin anew"
        )
    kept = rows[0] if stamp == last else rows[1]
    sizes = {name: len(numbers) for name, numbers in zip(names, first, strict=True)}
    if {name: len(numbers) for name, numbers in kept.items()} != sizes:
        raise ParameterError(
            f"memory must be of these policies, {sizes}, got that of others ({file}); give each "
            "policy a file of its own"
        )
    return [tuple(map(float, kept[name])) for name in names]


def keep_memory(setup: Setup, file: Path, before: Numbers, after: Numbers) -> None:
    names = name_policies(setup)
    data = {
        "time": int(setup.markets.time[-1]),
        "before": dict(zip(names, before, strict=True)),
        "after": dict(zip(names, after, strict=True)),
    }
    write_file(file, (json.dumps(to_plain(data), indent=1) + "\n").encode("utf-8"))
