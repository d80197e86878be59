"""What speaks against acting on a decision, and what became of it in the next bar."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import ledger
from backtest.account.portfolio_ledger import RESTED
from backtest.base import format_duration, format_hours, format_percent, format_price, format_time
from backtest.live.decision import Caution
from backtest.live.next_bar import find_price
from backtest.market import find_clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.base import FloatArray, IntArray
    from backtest.engine import Setup
    from backtest.live.facts import Completed
    from backtest.live.next_bar import Stated
    from backtest.live.snapshot import AccountSnapshot
    from backtest.policy import AccountView


BY_MARGIN = ("initial_margin", "venue_leverage", "wallet", "margin_call", "max_gross_leverage")

FAR, TOO_FAR = 0.1, 0.5
"""Moves from the last price that are named, and that look like a slip of the pen."""

MOST_FUNDING = 0.05
"""A larger rate of one settlement is likely a percentage: venues cap it below."""


def find_old_data(setup: Setup, now: int | None) -> Iterator[Caution]:
    end, interval = int(setup.markets.time[-1]) + setup.markets.interval, setup.markets.interval
    if now is not None and now - end > interval:
        text = (
            f"the data end at {format_time(end)}, {format_hours(now - end)} ago, "
            f"more than a bar of {format_duration(interval)}"
        )
        yield Caution(text, stops=True)
    if now is not None and now < end:
        text = f"the last bar closes at {format_time(end)}, after now, {format_time(now)}"
        yield Caution(text, stops=True)


def find_wait(setup: Setup) -> Iterator[Caution]:
    markets = setup.markets
    if not find_clock(markets).is_at_close(markets.n_bars - 1):
        every = format_duration(markets.decide)
        yield Caution(f"policies decide every {every}, not at the last close", stops=False)


def find_slips(setup: Setup, stated: Stated) -> Iterator[Caution]:
    for name, market in setup.markets.items():
        last = (float(market.close[-1]), float(market.mark_close[-1]))
        stated_prices = find_price(market, name, stated)
        for word, price, known in zip(("price", "mark"), stated_prices, last, strict=True):
            move = price / known - 1.0
            if abs(move) > FAR and (word == "price" or name in stated.mark):
                text = (
                    f"the {word} {format_price(price)} of {name} is {format_percent(abs(move))} "
                    f"{'over' if move > 0.0 else 'under'} the last one, {format_price(known)}"
                )
                yield Caution(text, stops=abs(move) > TOO_FAR)
    for name, frame in stated.funding.items():
        largest = float(frame["rate"].abs().max()) if len(frame) else 0.0
        if largest > MOST_FUNDING:
            text = f"the funding of {name} is {format_percent(largest)} of the notional, as stated"
            yield Caution(text, stops=True)


def find_cold_columns(setup: Setup) -> Iterator[Caution]:
    for policy in setup.observed:
        last = policy.market.n_bars - 1
        cold = [name for name, values in policy.columns.items() if np.isnan(values[last])]
        if cold:
            text = (
                f"{type(policy.policy).__name__} does not know {', '.join(cold)} after "
                f"{last + 1:,} bars: the warm-up is too short, or the data have a gap"
            )
            yield Caution(text, stops=True)


def find_other_account(setup: Setup, snapshot: AccountSnapshot) -> Iterator[Caution]:
    names = setup.markets.names
    others = [n for n, x in snapshot.positions.items() if n not in names and x.quantity != 0.0]
    if others:
        yield Caution(
            f"the snapshot has positions in {', '.join(others)}, which are not in the market "
            f"({', '.join(names)})",
            stops=True,
        )
    for name, held in snapshot.positions.items():
        if name not in names or held.mode is None:
            continue
        wanted = setup.account.for_instrument(name).margin
        if held.mode != wanted:
            text = f"{name} is held in {held.mode} margin, the account says {wanted}"
            yield Caution(text, stops=True)
    end = int(setup.markets.time[-1]) + setup.markets.interval
    if snapshot.time is not None and snapshot.time.value < end - setup.markets.interval:
        text = f"the snapshot is of {format_time(snapshot.time.value)}, before the last bar"
        yield Caution(text, stops=True)


def find_assumed(completed: Completed) -> Iterator[Caution]:
    for text in completed.texts:
        yield Caution(text, stops=completed.is_read)


def find_margin(setup: Setup, ratio: float) -> Iterator[Caution]:
    call = setup.account.margin_call or 1.0
    if ratio >= call:
        text = (
            f"the margin ratio {format_percent(ratio)} is over the call at {format_percent(call)}"
        )
        yield Caution(text, stops=True)


def find_blocked(setup: Setup, filled: Filled, leverage: Any) -> Iterator[Caution]:
    for i, name in enumerate(setup.markets.names):
        if filled.is_forced(i):
            text = f"{name} is stopped or liquidated at this price, which drops the decision"
            yield Caution(text, stops=True)
        cut = filled.cuts[i]
        if cut is None or filled.sum_fills(i) != 0.0 or math.isnan(leverage[name]):
            continue
        causes = [cause for cause in cut.cuts if cause in BY_MARGIN]
        if causes:
            yield Caution(f"the order of {name} was cut to 0 by {', '.join(causes)}", stops=True)


CAPACITY = 4_096
"""Entries that the log of one bar may have."""
OWNER = 8
ORDERS = (ledger.FILL, ledger.TIME_STOPPED)
FORCED = (*(kind for kind in ledger.STOP_KINDS if kind not in ORDERS), ledger.LIQUIDATED)


class Filled(NamedTuple):
    entries: FloatArray
    views: tuple[AccountView, ...]
    equity: float
    cuts: tuple[CutsOfOne | None, ...]

    def sum_fills(self, i: int) -> float:
        return float(sum(self._find_orders(i)[:, 3].tolist()))

    def find_value(self, i: int) -> float:
        rows = self._find_orders(i)
        traded = rows[rows[:, 3] != 0.0]
        return float(traded[-1, 2]) if len(traded) else float("nan")

    def sum_costs(self, i: int) -> dict[str, float]:
        rows = self._of(i)
        filled = rows[np.isin(rows[:, 1], ORDERS)]
        names = ("fee", "slippage", "impact")
        return {name: float(filled[:, 5 + k].sum()) for k, name in enumerate(names)}

    def is_forced(self, i: int) -> bool:
        return bool(np.isin(self._of(i)[:, 1], FORCED).any())

    def _find_orders(self, i: int) -> FloatArray:
        rows = self._of(i)
        resting = np.flatnonzero(rows[:, 1] == RESTED)
        last = resting[0] if len(resting) else len(rows)
        at_market = np.flatnonzero(np.isin(rows[:last, 1], ORDERS))
        return np.asarray(rows[np.concatenate([at_market, resting])])

    def _of(self, i: int) -> FloatArray:
        rows = self.entries
        return rows if rows.shape[1] <= OWNER else rows[rows[:, OWNER] == i]


class CutsOfOne(NamedTuple):
    asked: float
    held: float
    cuts: Mapping[str, float]


def pick_cuts(found: Any, whose: IntArray, t: int, n: int) -> tuple[CutsOfOne | None, ...]:
    picked: list[CutsOfOne | None] = [None] * n
    for row in np.flatnonzero(found.bar == t).tolist():
        own = {name: float(cut[row]) for name, cut in found.cuts.items() if cut[row] != 0.0}
        asked, held = float(found.asked[row]), float(found.held[row])
        picked[int(whose[row])] = CutsOfOne(asked, held, own)
    return tuple(picked)
