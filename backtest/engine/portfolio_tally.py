"""The tally of an account with several positions: one bar of it added."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import AccountState, Ledger, MarketBar, add_ledgers
from backtest.account.portfolio_records import EQUITY, IS_RUINED, UNIT
from backtest.base.units import TOLERANCE
from backtest.measures import (
    Clock,
    Decay,
    Exposure,
    Tally,
    add_carry,
    add_free,
    finish_sample,
    fold_product,
    invert,
    mark_drawdown,
    raise_ratio,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray


class CloseFacts(NamedTuple):
    gross: float
    backing: float
    needed: float
    worst_backing: float
    worst_needed: float
    is_near: bool


def count_portfolio_bar(
    clock: Clock,
    tally: Tally,
    state: AccountState,
    before: FloatArray,
    started: float,
    quotes: MarketBar,
    ledger: Ledger,
    close: CloseFacts,
    log_returns: FloatArray,
    cap: float,
    held: FloatArray,
    t: int,
) -> Tally:
    """Return the tally with bar t added.

    ``before`` are the marks of the last close, ``started`` the equity then; ``log_returns`` of
    shape (n_bars, n) those of the marks. ``cap`` is that of gross leverage, ``held`` the quantities
    held over the bar.
    """
    unit, equity = state.wallet[UNIT], state.wallet[EQUITY]
    sample = add_free(clock, tally.sample, t)
    if clock.ends_sample[t] != 0.0:
        sample, _ = finish_sample(sample, unit)
    inverse = invert(equity)
    moved = ledger.flows + ledger.top_up
    base = tally.inverse if moved == 0.0 else invert(started + moved)
    first, ruin = tally.first_liquidation, tally.ruin
    if first < 0 and ledger.liquidations > 0:
        first = t
    if ruin < 0 and state.wallet[IS_RUINED] != 0.0:
        ruin = t
    first_ambiguous, first_both = tally.first_ambiguous, tally.first_both
    if first_ambiguous < 0 and ledger.ambiguous_bars > 0:
        first_ambiguous = t
    if first_both < 0 and ledger.both_reached > 0:
        first_both = t
    return Tally(
        first_unit=tally.first_unit,
        drawdown=mark_drawdown(tally.drawdown, unit, t),
        sample=sample,
        money=add_ledgers(tally.money, ledger),
        exposure=expose(tally.exposure, close, inverse, cap),
        decay=decay_portfolio(tally.decay, held, before, quotes, ledger, log_returns, base, t),
        bars=tally.bars + 1,
        equity=tally.equity + equity,
        first_liquidation=first,
        ruin=ruin,
        inverse=inverse,
        first_ambiguous=first_ambiguous,
        first_both=first_both,
    )


def expose(exposure: Exposure, close: CloseFacts, inverse: float, cap: float) -> Exposure:
    leverage = close.gross * inverse
    needed, backing = raise_ratio(
        exposure.peak_needed,
        exposure.peak_backing,
        close.worst_needed,
        close.worst_backing,
        close.gross > 0.0,
    )
    return Exposure(
        near=exposure.near + (1 if close.is_near else 0),
        over_cap=exposure.over_cap + (1 if is_over_cap(leverage, cap) else 0),
        leverage=exposure.leverage + leverage,
        peak_leverage=max(exposure.peak_leverage, leverage),
        peak_needed=needed,
        peak_backing=backing,
    )


def is_over_cap(leverage: float, cap: float) -> bool:
    return leverage > cap * (1.0 + TOLERANCE)


def decay_portfolio(
    decay: Decay,
    quantities: FloatArray,
    before: FloatArray,
    quotes: MarketBar,
    ledger: Ledger,
    log_returns: FloatArray,
    inverse: float,
    t: int,
) -> Decay:
    held, log, product = decay.decay_held, decay.decay_log, decay.decay_product
    if ledger.liquidations + ledger.stops + ledger.take_profits == 0:
        drift, grown = 0.0, 1.0
        for i in range(len(before)):
            move = log_returns[t, i]
            if quantities[i] != 0.0 and not math.isnan(move):
                scale = quantities[i] * inverse
                drift += scale * (abs(before[i]) * move)
                grown += scale * (quotes.mark_close[i] - before[i])
        if grown > 0.0:
            held, product = held + drift, product * grown
        log, product = fold_product(log, product)
    carry = add_carry(decay.carry, ledger, inverse)
    return Decay(decay_held=held, decay_log=log, decay_product=product, carry=carry)
