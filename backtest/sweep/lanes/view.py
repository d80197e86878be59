"""What policies see of the accounts of lanes."""

from __future__ import annotations

from backtest.account import Terms
from backtest.account.records import CASH, EQUITY, PEAK, RESERVE, SINCE_POOL, UNIT
from backtest.engine.loop import DAY_NS
from backtest.policy import AccountView
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.rows import LANES, LanePolicies, Lanes, cell, spot
from backtest.venue import find_maintenance

NAMES = (
    "equity", "peak_equity", "drawdown", "leverage", "position", "wallet", "reserve",
    "bars_since_liquidation", "bars_since_stop", "days", "gross_leverage", "net_leverage",
    "maintenance",
)  # fmt: skip
"""What lanes show: not the entry of a position, its margin ratio or its liquidation price."""
(
    SEEN_EQUITY, SEEN_PEAK, SEEN_DRAWDOWN, SEEN_LEVERAGE, SEEN_POSITION, SEEN_WALLET, SEEN_RESERVE,
    SINCE_LIQUIDATION, SINCE_STOP, SEEN_DAYS, SEEN_GROSS, SEEN_NET, SEEN_MAINTENANCE,
) = (AccountView._fields.index(name) for name in NAMES)  # fmt: skip


def show_accounts(terms: Terms, policies: LanePolicies, lanes: Lanes, time: int) -> None:
    account, shown = lanes.account, policies.shown
    days = (time + policies.interval - policies.start) / DAY_NS
    for lane in range(LANES):
        equity, unit = account[cell(EQUITY, lane)], account[cell(UNIT, lane)]
        peak = account[cell(PEAK, lane)]
        shown[cell(SEEN_EQUITY, lane)] = equity
        shown[cell(SEEN_PEAK, lane)] = equity * (peak / unit)
        shown[cell(SEEN_DRAWDOWN, lane)] = 1.0 - unit / peak
        shown[cell(SEEN_WALLET, lane)] = account[cell(CASH, lane)]
        shown[cell(SEEN_RESERVE, lane)] = account[cell(RESERVE, lane)]
        shown[cell(SEEN_DAYS, lane)] = days
        shown[cell(SEEN_GROSS, lane)] = 0.0
        shown[cell(SEEN_NET, lane)] = 0.0
    for i in range(len(lanes.signal)):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            add_position(terms, policies, lanes, i)
    for lane in range(LANES):
        equity = account[cell(EQUITY, lane)]
        gross, net = shown[cell(SEEN_GROSS, lane)], shown[cell(SEEN_NET, lane)]
        shown[cell(SEEN_GROSS, lane)] = gross / equity if equity > 0.0 else 0.0
        shown[cell(SEEN_NET, lane)] = net / equity if equity > 0.0 else 0.0


def add_position(terms: Terms, policies: LanePolicies, lanes: Lanes, i: int) -> None:
    position, shown = lanes.position, policies.shown
    unit, is_crossed = abs(lanes.prices[r.CLOSE, i]), not terms.rules.brackets.are_isolated[i]
    for lane in range(LANES):
        quantity = position[spot(i, r.QUANTITY, lane)]
        if is_crossed:
            shown[cell(SEEN_WALLET, lane)] += quantity * position[spot(i, r.ENTRY, lane)]
        shown[cell(SEEN_GROSS, lane)] += abs(quantity) * unit
        shown[cell(SEEN_NET, lane)] += quantity * unit


def show_positions(terms: Terms, policies: LanePolicies, lanes: Lanes, i: int, t: int) -> None:
    position, shown = lanes.position, policies.shown
    account, unit = lanes.account, abs(lanes.prices[r.CLOSE, i])
    for lane in range(LANES):
        quantity, equity = position[spot(i, r.QUANTITY, lane)], account[cell(EQUITY, lane)]
        is_shown = (quantity != 0.0) & (equity > 0.0)
        shown[cell(SEEN_LEVERAGE, lane)] = quantity * unit / equity if is_shown else 0.0
        shown[cell(SEEN_POSITION, lane)] = quantity
        shown[cell(SINCE_STOP, lane)] = t - position[spot(i, r.LAST_STOP, lane)]
    if terms.rules.brackets.are_isolated[i]:
        for lane in range(LANES):
            shown[cell(SINCE_LIQUIDATION, lane)] = t - position[spot(i, r.LAST_HIT, lane)]
    else:
        for lane in range(LANES):
            shown[cell(SINCE_LIQUIDATION, lane)] = t - account[cell(SINCE_POOL, lane)]
    for lane in range(LANES if policies.wants_maintenance else 0):
        notional = abs(position[spot(i, r.QUANTITY, lane)]) * unit
        own = find_maintenance(terms.rules.brackets, i, notional) if notional != 0.0 else 0.0
        shown[cell(SEEN_MAINTENANCE, lane)] = own
