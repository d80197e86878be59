"""Fee tiers of lanes: each lane's own volume chooses its rates, from one UTC day to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from backtest.base.units import FloatArray
from backtest.engine.fee_days import FeeSchedule, Rates, TradedDays, start_traded
from backtest.sweep.lanes.block_task import GroupTask
from backtest.sweep.lanes.lane_rows import FEE, LANES, TAKER, TRADED


class LaneFees(NamedTuple):
    """The fee tiers of a block, the rates of its lanes below the first tier, and their volumes."""

    schedule: FeeSchedule
    first: Rates
    traded: TradedDays


def start_fees(task: GroupTask, terms: Mapping[str, FloatArray]) -> LaneFees | None:
    """Return the fee tiers of a block before its first bar; None if the venue has none.

    ``terms`` are the fields in which lanes differ, of shape (LANES,).
    """
    schedule = task.inputs.fees
    if schedule is None:
        return None
    fees = task.venue.fees
    taker, maker, share = (
        np.broadcast_to(terms.get(f"venue.fees.{name}", getattr(fees, name)), (LANES,))
        for name in ("taker", "maker", "maker_share")
    )
    traded = start_traded(int(schedule.day[task.first]), LANES)
    return LaneFees(schedule, Rates(taker, maker, share), traded)


def charge_day(
    fees: LaneFees | None, block: FloatArray, t: int, stop: int
) -> tuple[LaneFees | None, int]:
    """Write the rates of the day of bar t into a block; return the bar after that day, or stop."""
    if fees is None:
        return None, stop
    schedule = fees.schedule
    traded = fees.traded.at(int(schedule.day[t]))
    rates = schedule.choose(traded, fees.first)
    rows = block.reshape(-1, LANES)
    rows[TAKER], rows[FEE] = rates.taker, rates.blended
    return fees._replace(traded=traded), min(stop, schedule.find_end(t))


def copy_traded(fees: LaneFees | None, block: FloatArray) -> FloatArray:
    """Return what the lanes have traded so far; nothing without fee tiers."""
    return np.empty(0) if fees is None else block.reshape(-1, LANES)[TRADED].copy()


def add_lanes(fees: LaneFees | None, block: FloatArray, before: FloatArray) -> LaneFees | None:
    """Return the fee tiers after some bars, before which the lanes had traded ``before``."""
    if fees is None:
        return None
    return fees._replace(traded=fees.traded.add(block.reshape(-1, LANES)[TRADED] - before))
