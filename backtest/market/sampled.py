"""Rates in force: what feeds repeat until it is paid is one settlement, not one at each stamp.

Tardis, the tickers of venues and ccxt's ``fetch_funding_rate`` record the next rate at every stamp,
with the time of its payment beside it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from backtest import core
from backtest.core import BoolArray, DataError, IntArray
from backtest.core.code_names import pd
from backtest.core.units import DAY, HOUR
from backtest.market.tables import (
    JITTER,
    LEAD,
    USUAL,
    TimedTable,
    find_known_payments,
    nearest_minute,
)

MOST_PAYMENTS = 0.75
"""The largest share of rows with a payment of their own: the time of a payment repeats until it."""
LEAST_AHEAD = 0.9
"""The least share of rows whose payment is not before their stamp: feeds lag for a moment."""
FARTHEST = DAY + JITTER
"""How long after a stamp the next payment may be, ns."""


def find_payments(frame: pd.DataFrame, stamps: Any, known: Collection[Any]) -> list[Any]:
    """Return the columns that hold the time of the next payment, whatever their names.

    They are times on whole hours, at the stamp of their row or up to a day later, that repeat.
    ``stamps`` is the column of stamps, and those ``known`` are not asked.
    """
    columns = []
    time = None
    for name in frame.columns:
        if name in known or name == stamps:
            continue
        payments = read_repeated(frame[name])
        if payments is None:
            continue
        if time is None:
            time = core.read_stamps(frame[stamps], name=str(stamps), timezone="UTC", is_file=True)
            # Rows as far apart as settlements are these, not samples between them.
            gaps = np.diff(np.sort(time))
            if time.size < 2 or np.median(gaps) >= USUAL:
                return []

        # A column that is the stamp itself says nothing of payments to come.
        rows, paid = payments
        ahead = paid - time[rows]
        is_to_come = (ahead >= 0) & (ahead <= FARTHEST)
        if is_to_come.mean() >= LEAST_AHEAD and ahead.any():
            columns.append(name)
    return columns


def read_repeated(values: pd.Series) -> tuple[IntArray, IntArray] | None:
    """Return rows and times, UTC ns, of a column that may hold the times of payments to come.

    None if it may not. Such times repeat from sample to sample, until the payment is made, and lie
    on whole hours. Rows with a 0 or an empty text have no time, and are left out.
    """
    if values.dtype.kind == "b":
        return None
    rows = find_known_payments(values)
    codes, distinct = pd.factorize(values.iloc[rows])
    if not rows.size or len(distinct) > MOST_PAYMENTS * rows.size:
        return None

    try:
        times = core.read_stamps(pd.Series(distinct), name="", timezone="UTC", is_file=True)
    except DataError:  # no times
        return None
    if (nearest_minute(times) % HOUR).any():
        return None
    return rows, np.asarray(times[codes])


def settle_rates(table: TimedTable, notes: dict[str, str]) -> TimedTable:
    """Return one settlement for each time of payment, with the last rate before it.

    Payments after the last stamp of the table are left out. A warning and ``notes`` count both, but
    for settlements that are stamped with their own time of payment.
    """
    ordered = table.rows(np.argsort(table.time, kind="stable"))
    lead = ordered.columns[LEAD]
    rate = ordered.columns["rate"]
    is_known: BoolArray = ~np.isnan(lead) & ~np.isnan(rate)
    known = ordered.rows(is_known)
    if not known.time.size:
        raise DataError(f"a rate in force needs a rate and its payment in a row ({table.name})")

    # Of each payment the last row counts: backwards it is the first, which np.unique finds.
    time_of_payment = known.time + known.columns[LEAD].astype(np.int64)
    paid, places_from_end = np.unique(time_of_payment[::-1], return_index=True)
    last_rows = known.time.size - 1 - places_from_end

    # One after the last stamp is still to come.
    is_over = paid <= ordered.time[-1]
    last_rows = last_rows[is_over]

    # The mark of a sample is not that of the settlement, unless it is stamped with its payment.
    columns = {"rate": known.columns["rate"][last_rows]}
    is_stamped_when_paid = not known.columns[LEAD].any()
    if is_stamped_when_paid:
        for name, values in known.columns.items():
            if name != LEAD:
                columns[name] = values[last_rows]

    # Nothing was chosen or left out, so nothing is said.
    if is_stamped_when_paid and is_over.all() and paid.size == table.time.size:
        return TimedTable(table.name, paid, columns)

    settled = core.count_nouns(int(is_over.sum()), "settlement")
    note = f"{settled} of {table.time.size:,} rates in force, the last before each payment"
    if not is_over.all():
        later = core.count_nouns(int((~is_over).sum()), "payment")
        note = f"{note}; {later} after the end left out"
    notes["sampled_rates"] = note
    core.warn_caller(f"{note} ({table.name})")
    return TimedTable(table.name, paid[is_over], columns)
