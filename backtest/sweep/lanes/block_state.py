"""The state of a block before its first bar, and its measures after the last bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.base import FloatArray
from backtest.engine.fee_days import WINDOW
from backtest.measures import measure_accounts
from backtest.policy import start_memory
from backtest.sweep.lane_groups import CAPITAL, COMMON, FEES, OWN
from backtest.sweep.lanes.block_task import ROW, GroupTask, begin_rows
from backtest.sweep.lanes.lane_fees import LaneFees
from backtest.sweep.lanes.lane_rows import LANES, ROWS
from backtest.sweep.policy_columns import find_reads
from backtest.sweep.sets.sets import take_sets
from backtest.venue import find_newest

CACHE_LINE = 64
"""Bytes of a cache line."""

TALLIED = {
    "low": "low", "low_peak": "low_peak", "samples": "samples", "squares": "squares",
    "excess_mean": "excess_mean", "excess_squares": "excess_squares", "equity": "equity_sum",
    "fees": "fees", "slippage": "slippage", "impact": "impact", "funding": "funding",
    "interest": "interest", "traded": "traded", "liquidations": "liquidations", "ruin": "ruin",
}  # fmt: skip

TALLIED_MORE = {
    "downside": "downside", "price_pnl": "price_pnl", "liquidation_loss": "liquidation_loss",
    "flows": "flows", "top_up": "top_up", "bad_debt": "bad_debt", "stops": "stops",
    "calls": "calls", "first_liquidation": "first_liquidation", "near": "near",
    "leverage": "leverage_sum", "peak_leverage": "peak_leverage", "peak_needed": "peak_needed",
    "peak_backing": "peak_backing", "decay_held": "decay_held", "decay_log": "decay_log",
    "decay_product": "decay_product", "calls_met": "calls_met", "calls_failed": "calls_failed",
    "liquidated_calls": "liquidated_calls", "call_days": "call_days",
    "take_profits": "take_profits", "carry": "carry", "disutility": "disutility",
}  # fmt: skip


def make_aligned(n: int) -> FloatArray:
    per_line = CACHE_LINE // 8
    raw = np.zeros(n + per_line)
    first = -(raw.ctypes.data // 8) % per_line
    return raw[first : first + n]


def start_block(
    task: GroupTask, values: Mapping[str, np.ndarray], terms: Mapping[str, FloatArray], n_rows: int
) -> FloatArray:
    whole = make_aligned((len(ROWS) + n_rows) * LANES)
    block = whole.reshape(-1, LANES)
    block[: len(ROWS)] = task.begun[:, None]
    for name, value in read_own_rows(task, terms).items():
        block[ROW[name]] = value
    settings = task.policy.settings()
    for k, (name, setting) in enumerate(settings.items()):
        if not isinstance(setting, str):
            block[len(ROWS) + k] = np.asarray(values.get(name, setting))
    block[len(ROWS) + len(settings) :] = start_memories(task, values)
    return whole


def read_own_rows(task: GroupTask, terms: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    rows: dict[str, Any] = {
        row: terms[name] for name, row in {**COMMON, **OWN}.items() if name in terms
    }
    if "slip" in rows:
        rows["slip"] = rows["slip"] + 0.5 * find_newest(task.venue.slippage.spread)
    if any(name in terms for name in FEES):
        fees = task.venue.fees
        taker = terms.get("venue.fees.taker", np.full(LANES, find_newest(fees.taker)))
        maker = terms.get("venue.fees.maker", find_newest(fees.maker))
        share = terms.get("venue.fees.maker_share", fees.maker_share)
        rows |= {"taker": taker, "fee": taker * (1.0 - share) + maker * share}
        rows |= {"close_fee": taker} if task.venue.includes_close_fee else {}
    rows = {row: np.where(np.isnan(value), 0.0, value) for row, value in rows.items()}
    if any(name in terms for name in (*CAPITAL, "account.ruin_at")):
        capital, reserve = (
            terms.get(f"account.{name}", task.begun[ROW[row]])
            for name, row in (("capital", "cash"), ("reserve", "reserve"))
        )
        rows |= begin_rows(capital, reserve, rows.get("ruin_at", task.begun[ROW["ruin_at"]]))
    return rows


def start_memories(task: GroupTask, values: Mapping[str, np.ndarray]) -> FloatArray:
    """Return the initial memory of the policy, of shape (n_fields, LANES) or (n_fields, 1)."""
    memory = start_memory(task.policy)
    if memory is None:
        return np.zeros((0, 1))
    reads = find_reads(task.policy, "start")
    if not any(name in values for name in reads):
        return np.array(memory, dtype=np.float64)[:, None]
    own = [start_memory(task.columns.build(take_sets(values, i))) for i in range(LANES)]
    return np.array(own, dtype=np.float64).T


def start_fees(task: GroupTask, terms: Mapping[str, FloatArray]) -> LaneFees | None:
    """Return the fee tiers of a block before its first bar; None if the venue has none.

    ``terms`` are the fields in which lanes differ, of shape (LANES,).
    """
    schedule = task.inputs.fees
    if schedule is None:
        return None
    first = np.empty((3, LANES))
    for row, name in enumerate(("taker", "maker", "maker_share")):
        first[row] = terms.get(f"venue.fees.{name}", getattr(task.venue.fees, name))
    return LaneFees(
        day=schedule.day,
        tiers=np.array([(tier.volume, tier.taker, tier.maker) for tier in schedule.tiers]),
        first=first,
        past=np.zeros((WINDOW, LANES)),
        now=np.array([schedule.day[task.first], 0], dtype=np.int64),
        begun=np.zeros(LANES),
        volume=np.zeros(LANES),
    )


def read_metrics(task: GroupTask, block: FloatArray, n: int) -> dict[str, FloatArray]:
    rows = block.reshape(-1, LANES)[:, :n]
    names = {**TALLIED, **(TALLIED_MORE if task.kind.is_full is not None else {})}
    tally: dict[str, Any] = {name: rows[ROW[row]] for name, row in names.items()}
    n_bars = len(task.span.closes)
    tally |= {"bars": n_bars, "first_unit": rows[ROW["first_unit"]], "over_cap": np.zeros(n)}
    return measure_accounts(tally, task.span, rows[ROW["unit"]], rows[ROW["equity"]])
