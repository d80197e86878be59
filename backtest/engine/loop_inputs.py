"""Convert market, venue and account to the plain records and arrays that the bar loop takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.account import (
    AccountRules,
    InstrumentRules,
    Rules,
    find_factor,
    is_price_distance,
)
from backtest.account.account_records import CLOSE, PARTIAL, TAKEOVER
from backtest.base import (
    FloatArray,
    IntArray,
    Rate,
    parse_duration,
)
from backtest.market import has_gaps
from backtest.venue import (
    MarginRules,
    find_charged,
    find_newest,
    has_spread,
    pick_cost,
    read_rules,
)
from backtest.venue.venue import DATED

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.market import Market
    from backtest.venue import Venue


MODES = {"close": CLOSE, "takeover": TAKEOVER, "partial": PARTIAL}


def read_account_rules(venue: Venue, account: Account, margin: MarginRules) -> Rules:
    taker, maker, slippage, spread, liquidation_fee, worsening = (
        find_newest(pick_cost(venue, name)) for name in DATED
    )
    step, per_order = venue.liquidation.step, venue.fees.per_order
    instrument = InstrumentRules(
        is_inverse=True if venue.contract.kind == "inverse" else None,
        is_isolated=True if account.margin == "isolated" else None,
        has_stop=True if account.stop_loss is not None else None,
        has_impact=True if venue.slippage.impact > 0.0 else None,
        has_rounding=True if has_rounding(venue) else None,
        keeps_entry=True,
        marks_entry=True,
        margin=margin,
        lot=venue.contract.lot,
        min_notional=venue.contract.min_notional or 0.0,
        fee=taker * (1.0 - venue.fees.maker_share) + maker * venue.fees.maker_share,
        taker=taker,
        slippage=slippage + 0.5 * spread if has_spread(venue) else slippage,
        impact=venue.slippage.impact,
        participation=float(venue.slippage.max_participation or math.inf),
        liquidation_mode=MODES[venue.liquidation.mode],
        liquidation_fee=liquidation_fee,
        liquidation_slippage=worsening,
        step=0.0 if isinstance(step, str) else step,
        full_below=venue.liquidation.full_below,
        is_funded_by_wallet=venue.isolated_funding == "wallet",
        min_leverage=account.min_leverage,
        max_leverage=find_constant(account.max_leverage),
        band=account.band,
        stop_loss=find_factor(account.stop_loss),
        fills_late=True if account.fill == "next_close" else None,
        fills_early=True if account.fill == "same_close" else None,
        has_exits=True if account.has_exits else None,
        take_profit=find_factor(account.take_profit),
        trailing_stop=find_factor(account.trailing_stop),
        equity_stop=account.equity_stop or 0.0,
        is_stop_distance=True if is_price_distance(account.stop_loss) else None,
        is_profit_distance=True if is_price_distance(account.take_profit) else None,
        is_trail_distance=True if is_price_distance(account.trailing_stop) else None,
        has_limits=True if has_limits(account) else None,
        rounds_price=True if venue.contract.round_to_tick else None,
        tick=venue.contract.tick,
        has_auto_margin=True if account.auto_margin else None,
        has_profit_share=True if venue.profit_share() < 1.0 else None,
        has_order_fee=True if has_order_fee(venue) else None,
        has_liquidation_impact=True if venue.liquidation.impact > 0.0 else None,
        profit_share=venue.profit_share(),
        order_fee=0.0 if isinstance(per_order, pd.Series) else per_order,
        liquidation_impact=venue.liquidation.impact,
        full_below_health=venue.liquidation.full_below_health,
    )
    return Rules(account=read_whole(venue, account), instrument=instrument)


def read_whole(venue: Venue, account: Account) -> AccountRules:
    return AccountRules(
        has_interest=True if has_interest(venue) else None,
        is_loan=venue.interest_on == "loan",
        top_up_to=account.top_up_to or 1.0,
        ruin_at=account.ruin_at or 0.0,
    )


def has_interest(venue: Venue) -> bool:
    return bool(find_charged(venue.rates()))


def has_order_fee(venue: Venue) -> bool:
    return bool(np.any(np.asarray(venue.fees.per_order) > 0.0))


def has_rounding(venue: Venue) -> bool:
    contract, most = venue.contract, venue.slippage.max_participation
    return contract.lot > 0.0 or (contract.min_notional or 0.0) > 0.0 or most is not None


def has_limits(account: Account) -> bool:
    return isinstance(account.max_leverage, pd.Series)


def find_constant(limit: Rate) -> float:
    return math.inf if isinstance(limit, pd.Series) else limit


def read_plan(venue: Venue, account: Account) -> dict[str, Any]:
    call = account.margin_call or 0.0
    return {
        "margin_call": call,
        "has_top_up": account.top_up_to is not None,
        "grace": -1.0 if venue.call_grace is None else float(venue.call_grace),
        "grace_ratio": account.top_up_to or call * (1.0 - 1e-11),
        "is_halting": account.after_liquidation == "halt",
    }


def read_margin_tables(
    venue: Venue, account: Account, time: IntArray, first: int
) -> list[tuple[int, MarginRules]]:
    setting, is_isolated = account.venue_leverage or 0.0, account.margin == "isolated"
    return [
        (first + table.first, read_rules(venue.with_table(table), setting, is_isolated))
        for table in venue.in_use(time[first:])
    ]


def measure_log_returns(price: FloatArray, *, is_inverse: bool) -> FloatArray:
    returns = np.full(len(price), np.nan)
    before, after = price[:-1], price[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        returns[1:] = np.log(2.0 - before / after if is_inverse else after / before)
    returns[~np.isfinite(returns)] = np.nan
    return returns


def mark_samples(market: Market, sampling: str) -> FloatArray:
    return mark_ends(market, max(parse_duration(sampling, "sampling"), 1))


def mark_ends(market: Market, period: int) -> FloatArray:
    ends = np.zeros(market.n_bars)
    if period % market.interval == 0 and not has_gaps(market):
        step = period // market.interval
        passed = (market.start % period) // market.interval
        ends[step - 1 - passed :: step] = 1.0
    else:
        bucket = market.time // period
        ends[:-1] = bucket[1:] != bucket[:-1]
    ends[-1] = 1.0
    return ends
