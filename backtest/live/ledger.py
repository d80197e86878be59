"""The ledger of shadows: one row per experiment and day, in one Parquet file, and its drift."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.results.listing import LEDGER_FOLDER

FILE = "ledger.parquet"
LOCK = "ledger.lock"
KEYS = ["experiment", "day"]
LEAST_DAYS = 20
"""Days from which on a drift is judged."""
ERRORS = 2.0
"""Standard errors that a drift must exceed to be said."""


def find_ledger(store: Path) -> Path:
    return store / LEDGER_FOLDER / FILE


def read_ledger(store: Path) -> pd.DataFrame:
    """Return the rows of a store's ledger, none if there is no file."""
    path = find_ledger(store)
    if not path.exists():
        return pd.DataFrame(columns=KEYS)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise core.DataError(
            f"{path}: must be the ledger of `backtest shadow`, {core.describe_fault(error)}; move "
            "it away to begin a new one"
        ) from error


def record(store: Path, shadow: Any) -> str:
    """Write the days of a shadow into the ledger; return its drift as a sentence, or nothing.

    A day of the same experiment is replaced; where its fills were others, a warning says so.
    """
    rows = shadow.days.reset_index()
    rows["day"] = pd.DatetimeIndex(rows["day"]).strftime("%Y-%m-%d")
    rows.insert(0, "experiment", shadow.name)
    rows["fills"] = shadow.fills_hash

    path = find_ledger(store)
    with core.writing(path, "ledger"), core.hold_lock_file(path.with_name(LOCK)):
        known = read_ledger(store)
        is_replaced = known["experiment"].eq(shadow.name) & known["day"].isin(rows["day"])
        warn_of_other_fills(known[is_replaced], shadow, path)

        # Pandas warns where one of the tables is empty.
        tables = [table for table in (known[~is_replaced], rows) if len(table)]
        ledger = pd.concat(tables, ignore_index=True).sort_values(KEYS, ignore_index=True)
        with core.replace_file(path) as draft:
            ledger.to_parquet(draft)

    return describe_drift(ledger[ledger["experiment"] == shadow.name])


def warn_of_other_fills(replaced: pd.DataFrame, shadow: Any, path: Path) -> None:
    """Warn if days of the ledger are replaced that came from other fills."""
    fills = replaced.get("fills", pd.Series(dtype=str))
    others = replaced[fills.ne(shadow.fills_hash)]
    if len(others) == 0:
        return

    core.warn_caller(
        f"other fills replace {core.count_nouns(len(others), 'day')} of {shadow.name} in {path}: "
        f"{others['day'].min()} to {others['day'].max()}"
    )


def describe_drift(rows: pd.DataFrame) -> str:
    """Return a drift of an account from its policy over two standard errors, as a sentence.

    The drift of a day is what all parts but deposits came to, over the equity of the policy.
    """
    parts = [
        "timing",
        "sizes",
        "orders",
        "prices",
        "fees",
        "funding",
        "unexplained",
    ]
    shares = (rows[parts].sum(axis=1) / rows["policy"]).to_numpy(dtype=np.float64)
    if len(shares) < LEAST_DAYS:
        return ""

    mean = float(shares.mean())
    error = float(shares.std(ddof=1)) / math.sqrt(len(shares))
    if not abs(mean) > ERRORS * error:
        return ""

    evidence = "no variation"
    if error > 0.0:
        evidence = f"{abs(mean) / error:.1f} standard errors"
    return (
        f"Over {len(shares)} days the account drifts from its policy by "
        f"{core.format_bps(mean)} of equity a day, {evidence}."
    )
