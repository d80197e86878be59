"""Contagion from the record of a run: the causes of each liquidation of the cross positions.

A cause *stands* at level times its Euler share of the requirement less what it has gained, and what
it took of ``D = M - level R`` since the last high of the unit value is the change of that. The log
has where the causes stand at a liquidation, with the gains of its bar alone
(:func:`backtest.account.contagion.log_causes`); the gains of the bars before are in the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.account import ledger
from backtest.account.contagion import CAUSED, OF_COLLATERAL, OF_FLOWS, OF_RULES
from backtest.base import FloatArray, IntArray, utc_index

if TYPE_CHECKING:
    from backtest.engine.run_closes import RunCloses

ROUNDING = 1e-9
"""Share of a fall that is rounding, and counts as none."""


def share_causes(run: RunCloses) -> FloatArray:
    """Return the entries of a run with the share of each cause in place of where it stands.

    Those that have none and gained nothing are left out.
    """
    entries, size = np.array(run.entries), len(run.names) + 3
    rows = np.flatnonzero(entries[:, 1] == CAUSED).reshape(-1, size)
    for own in rows:
        stood = find_stands(run, int(entries[own[0], 0]) - run.span.first)
        falls = entries[own, 2] - stood
        falls[-1] = -falls[-1] - falls[:-1].sum()  # D falls, and rules take what is left over
        falls = np.maximum(falls, 0.0)
        shares = falls / falls.sum() if falls.sum() > 0.0 else np.eye(size)[-1]
        entries[own, 2] = np.where(shares > ROUNDING, shares, 0.0)
    is_none = (entries[:, 1] == CAUSED) & (entries[:, 2] == 0.0) & ~(entries[:, 4] > 0.0)
    return np.asarray(entries[~is_none])


def find_stands(run: RunCloses, stop: int) -> FloatArray:
    """Return where the causes stood at the last high before a bar, and their gains since."""
    unit = run.of_account("unit")[:stop]
    highs = np.maximum.accumulate(np.concatenate(([run.first_peak], unit)))
    rows = np.flatnonzero(unit >= highs[:-1])
    if not len(rows):
        return run.before.stands + sum_gains(run, slice(0, stop))
    high = int(rows[-1])
    closes, n = run.read_closes(slice(high, high + 1)), len(run.names)
    stands = np.zeros(n + 3)
    shares = np.append(closes.share[0], closes.collateral_share)
    stands[: n + 1] = run.account.requirement.level * shares
    stands[np.flatnonzero(find_isolated(run))] = 0.0
    stands[n + OF_RULES] = closes.distance[0]
    return stands + sum_gains(run, slice(high + 1, stop))


def sum_gains(run: RunCloses, rows: slice) -> FloatArray:
    """Return what each cause gained in some bars, of shape (n + 3,); of rules it is not known."""
    n, found = len(run.names), np.zeros(len(run.names) + 3)
    held, account = run.record.take(rows).positions, run.record.take(rows).account
    costs = held.fees + held.slippage + held.impact + held.funding + held.liquidation_loss
    gains = held.price_pnl - costs
    if run.options is not None:
        own = run.options.record
        net = own.price_pnl - own.fees - own.slippage - own.liquidation_loss
        gains = gains + run.options.sum_by_underlying(net[rows], n)
    found[:n] = np.where(find_isolated(run), 0.0, gains.sum(axis=0))
    found[n + OF_COLLATERAL] = (account.collateral_pnl - account.conversion).sum()
    found[n + OF_FLOWS] = (account.flows - account.interest).sum()
    return found


def find_isolated(run: RunCloses) -> FloatArray:
    return np.array([mode == "isolated" for mode in run.modes])


def contagion_table(
    time: IntArray, names: Sequence[str], entries: FloatArray, first: int
) -> pd.DataFrame:
    labels = np.array([*names, "collateral", "flows", "rules"], dtype=object)
    is_cause, numbers = entries[:, 1] == CAUSED, number_liquidations(entries)
    pairs = numbers * len(labels) + entries[:, 8]
    is_closed = np.isin(pairs, pairs[entries[:, 1] == ledger.LIQUIDATED])
    gained = np.where(is_closed, np.maximum(entries[:, 4], 0.0), 0.0)
    is_shown = is_cause & ((entries[:, 2] > 0.0) | (gained > 0.0))
    chosen, hits = entries[is_shown], numbers[is_shown]
    bar = chosen[:, 0].astype(np.int64) - first
    return pd.DataFrame(
        {
            "liquidation": hits,
            "time": utc_index(time[bar]),
            "cause": labels[chosen[:, 8].astype(np.int64)],
            "share": chosen[:, 2],
            "quantity": chosen[:, 3],
            "profit": gained[is_shown],
        }
    )


def number_liquidations(entries: FloatArray) -> IntArray:
    is_cause = entries[:, 1] == CAUSED
    begins = is_cause & ~np.concatenate(([False], is_cause[:-1]))
    falls = np.concatenate(([False], np.diff(entries[:, 8]) <= 0.0)) & is_cause
    return np.cumsum(begins | falls)
