"""Rates in force: what feeds repeat until it is paid is one settlement, not one at each stamp.

Tardis, the tickers of venues and ccxt's ``fetch_funding_rate`` record the next rate at every stamp,
with the time of its payment beside it.
"""

from __future__ import annotations

import numpy as np

from backtest import core
from backtest.core import BoolArray, DataError
from backtest.market.tables import LEAD, TimedTable


def settle_rates(table: TimedTable, notes: dict[str, str]) -> TimedTable:
    """Return one settlement for each time of payment, with the last rate before it.

    Payments after the last stamp of the table are left out. A warning and ``notes`` count both, but
    for settlements that are stamped with their own time of payment.
    """
    ordered = table.rows(np.argsort(table.time, kind="stable"))
    lead, rate = ordered.columns[LEAD], ordered.columns["rate"]
    is_known: BoolArray = ~np.isnan(lead) & ~np.isnan(rate)
    known = ordered.rows(is_known)
    if not known.time.size:
        raise DataError(f"a rate in force needs a rate and its payment in a row ({table.name})")

    # The last row of each payment; the settlement's own mark is not that of the sample.
    payment = known.time + known.columns[LEAD].astype(np.int64)
    paid, last = np.unique(payment[::-1], return_index=True)
    is_over = paid <= ordered.time[-1]
    rows = (payment.size - 1 - last)[is_over]
    columns = {"rate": known.columns["rate"][rows]}
    if bool((known.columns[LEAD] == 0.0).all()):
        columns |= {name: known.columns[name][rows] for name in known.columns if name != LEAD}
    if is_over.all() and paid.size == table.time.size and not known.columns[LEAD].any():
        return TimedTable(table.name, paid, columns)

    settled = core.count_nouns(int(is_over.sum()), "settlement")
    note = f"{settled} of {table.time.size:,} rates in force, the last before each payment"
    if not is_over.all():
        later = core.count_nouns(int((~is_over).sum()), "payment")
        note = f"{note}; {later} after the end left out"
    notes["sampled_rates"] = note
    core.warn_caller(f"{note} ({table.name})")
    return TimedTable(table.name, paid[is_over], columns)
