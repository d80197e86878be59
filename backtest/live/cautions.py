"""What must be known before the orders of a decision are sent: old data, pauses, odd figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from backtest import core
from backtest.account import AccountState
from backtest.core import format_percent, format_price, format_time
from backtest.core.units import DAY, HOUR
from backtest.engine import Setup
from backtest.live.book import Order, format_leverage
from backtest.live.contracts import Caution
from backtest.live.state import AccountSnapshot
from backtest.live.stated import Stated, find_price
from backtest.market import Market, Markets, find_clock, find_later_sessions
from backtest.policies import AccountView
from backtest.venue.symbols import advise_rules, describe_other_symbol

FRESH = 2
"""Bars, or sessions, after whose end data are old."""
BY_MARGIN = ("margin_share", "initial_margin", "venue_leverage", "wallet", "max_gross_leverage")
"""Causes of a cut that say that the account has no more margin."""
FAR = 0.1
"""A move from the last price that is named."""
TOO_FAR = 0.5
"""A move from the last price that looks like a slip of the pen, and stops the order."""
OVERSHOOT = 1.5
"""How many times the leverage decided an order that adds may leave."""
MAX_FUNDING = 0.05
"""A larger rate of one settlement is likely a percentage: venues cap it below."""
NEAR_LIMIT = 1e-6
"""Rounding by which a notional may be over the table of the venue."""


def find_cautions(setup: Setup, stated: Stated, now: int) -> Iterator[Caution]:
    """Yield what the data, the venue, stated figures and the columns of policies give to say."""
    yield from find_age(setup.markets, now)
    yield from find_other_rules(setup)
    yield from find_unknown(setup)

    if find_clock(setup.markets).rows[-1] < 0:
        interval = core.format_duration(setup.markets.decision_interval)
        yield Caution(f"policies decide every {interval}, not at the last close", stops=False)

    for name, market in setup.markets.items():
        yield from find_far_prices(name, market, stated)
    yield from find_large_funding(stated)
    yield from find_cold_columns(setup)


def find_age(markets: Markets, now: int) -> Iterator[Caution]:
    """Yield what the present says against the data: they are old, or their last bar is open."""
    end = int(markets.time[-1]) + markets.interval
    if now < end:
        yield Caution(f"the last bar closes at {format_time(end)}, after now, {format_time(now)}")
        return

    allowed = FRESH * markets.interval
    unit = f"bars of {core.format_duration(markets.interval)}"
    if markets.sessions and markets.interval <= DAY:
        # As late in the session after next as the data end in theirs.
        last_day = int(markets.time[-1]) // DAY * DAY
        allowed = find_later_sessions(markets.time, FRESH)[-1].value - last_day
        unit = "sessions"
    if now - end <= allowed:
        return

    hours = (now - end) / HOUR
    age = f"{hours:.3g} h" if hours < 48.0 else f"{hours / 24.0:.4g} d"
    yield Caution(f"the data end at {format_time(end)}, {age} ago, more than {FRESH} {unit}")


def find_other_rules(setup: Setup) -> Iterator[Caution]:
    """Yield which instruments have the brackets, the lot and the minimum of another symbol."""
    for name, market in setup.markets.items():
        if not market.instrument:
            continue
        text = describe_other_symbol(
            setup.venues[name],
            market.instrument,
            synthetic=market.synthetic,
        )
        if text:
            cure = advise_rules(
                setup.venues[name],
                market.instrument,
                has_sessions=market.sessions,
            )
            yield Caution(f"{text}: {cure}", instrument=name)


def find_unknown(setup: Setup) -> Iterator[Caution]:
    """Yield what no source says of the orders that each venue accepts, with the cure."""
    for name, venue in setup.venues.items():
        unknown = venue.contract.unknown
        if not unknown:
            continue

        changes = ", ".join(f'"contract.{step}": ...' for step in unknown)
        yield Caution(
            f"no source gives {', '.join(unknown)} of {name}: the venue may round or refuse the "
            f"order; venue.override({{{changes}}}) with the figures of its listing, or --set "
            f"venue.contract.{unknown[0]}=...",
            stops=False,
            instrument=name,
        )


def find_far_prices(name: str, market: Market, stated: Stated) -> Iterator[Caution]:
    """Yield which price of the next bar is far from the last one."""
    price, mark = find_price(market, name, stated)
    moves = [("price", price, float(market.close[-1]))]
    if name in stated.mark:
        moves.append(("mark", mark, float(market.mark_close[-1])))

    for noun, stated_price, last in moves:
        move = stated_price / last - 1.0
        if abs(move) <= FAR:
            continue
        side = "over" if move > 0.0 else "under"
        yield Caution(
            f"the {noun} {format_price(stated_price)} of {name} is {format_percent(abs(move))} "
            f"{side} the last one, {format_price(last)}",
            stops=abs(move) > TOO_FAR,
        )


def find_large_funding(stated: Stated) -> Iterator[Caution]:
    for name, table in stated.funding.items():
        if len(table) == 0:
            continue
        largest = float(table["rate"].abs().max())
        if largest > MAX_FUNDING:
            yield Caution(
                f"the funding of {name} is {format_percent(largest)} of the notional, as stated"
            )


def find_cold_columns(setup: Setup) -> Iterator[Caution]:
    """Yield which columns of a policy have no value at the last close."""
    for policy in setup.observed:
        n_bars = policy.market.n_bars
        cold = [name for name, values in policy.columns.items() if np.isnan(values[n_bars - 1])]
        if cold:
            yield Caution(
                f"{type(policy.policy).__name__} has no value of {', '.join(cold)} after "
                f"{n_bars:,} bars: the warm-up is too short, or the data have a gap"
            )


def find_other_account(setup: Setup, snapshot: AccountSnapshot) -> Iterator[Caution]:
    """Yield where a snapshot is not of this account: other instruments, modes, an earlier time."""
    names = setup.markets.names
    for name, held in snapshot.positions.items():
        if name in names:
            mode = setup.account.for_instrument(name).margin
            if held.mode not in (None, mode):
                yield Caution(f"{name} is held in {held.mode} margin, the account has {mode}")
        elif held.quantity != 0.0:
            cure = "add its data: one more --data (another market in Python)"
            without = [known for known in names if known not in snapshot.positions]
            if without:
                cure = (
                    f'names= of from_ccxt maps its symbol to {without[0]!r} ("names" in a JSON of '
                    f"ccxt's answers), or {cure}"
                )
            yield Caution(
                f"the snapshot has positions in {name}, which is not in the market, "
                f"{', '.join(names)}; {cure}"
            )

    if snapshot.time is None:
        return
    stamp = core.to_nanoseconds(snapshot.time)
    if stamp < int(setup.markets.time[-1]):
        yield Caution(f"the snapshot is of {format_time(stamp)}, before the last bar")


def find_later_times(snapshot: AccountSnapshot, now: int) -> Iterator[Caution]:
    """Yield what a snapshot says was read, or opened, after the present, ``now``, ns."""
    times = {"the snapshot is of": snapshot.time}
    for name, held in snapshot.positions.items():
        if held.quantity != 0.0:
            times[f"the position in {name} was opened at"] = held.opened

    for event, time in times.items():
        if time is None:
            continue
        stamp = core.to_nanoseconds(time)
        if stamp > now:
            yield Caution(f"{event} {format_time(stamp)}, after now, {format_time(now)}")


def find_ruin(equity: float) -> Iterator[Caution]:
    """Yield that an account has lost its equity, if it has: the result of a run may end so."""
    if not equity > 0.0:
        yield Caution(f"the account has an equity of {core.format_money(equity)}: it may not act")


def find_pause(setup: Setup, state: AccountState) -> Iterator[Caution]:
    """Yield that an equity stop pauses the account, if it does at the next open."""
    until = state.wallet.paused_until
    if not until > int(setup.markets.time[-1]) + setup.markets.interval:
        return
    end = "for good" if math.isinf(until) else f"until {format_time(int(until))}"
    yield Caution(f"an equity stop pauses the account {end}: nothing is ordered", stops=False)


def find_blocked(
    setup: Setup,
    orders: Mapping[str, Order],
    leverage: Mapping[str, float],
    ratio: float,
) -> Iterator[Caution]:
    """Yield what keeps the account from its decision: a margin call, a stop, no margin left."""
    call = setup.account.margin_call or 1.0
    if ratio >= call:
        yield Caution(
            f"the margin ratio {format_percent(ratio)} is over the call at {format_percent(call)}"
        )

    for name, order in orders.items():
        if order.is_forced:
            yield Caution(
                f"{name} is stopped or liquidated at this price, which drops the decision",
                instrument=name,
            )

        causes = [cut.cause for cut in order.cuts if cut.cause in BY_MARGIN]
        if causes and order.size == 0.0 and not math.isnan(leverage[name]):
            yield Caution(
                f"the order of {name} was cut to 0 by {', '.join(causes)}", instrument=name
            )


def find_excess(
    orders: Mapping[str, Order],
    target: Mapping[str, float],
    after: Sequence[AccountView],
) -> Iterator[Caution]:
    """Yield what an order that adds to a position leaves beyond the decision or the table."""
    for (name, order), view in zip(orders.items(), after, strict=True):
        if not order.size * view.position > 0.0:
            continue  # a reduction always passes

        leverage = abs(view.leverage)
        decided = abs(target[name])
        if leverage > OVERSHOOT * decided:
            yield Caution(
                f"the order leaves {format_leverage(leverage)} of {name}, over {OVERSHOOT:g} times "
                f"the {format_leverage(decided)} decided",
                instrument=name,
            )

        notional = leverage * view.equity
        if notional > order.limit * (1.0 + NEAR_LIMIT):
            yield Caution(
                f"the order leaves a notional of {core.format_money(notional)} of {name}, over the "
                f"{core.format_money(order.limit)} that the margin table of the venue allows",
                instrument=name,
            )
