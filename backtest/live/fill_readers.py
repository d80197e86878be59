"""Read fills: a table of named columns, or what ccxt's ``fetch_my_trades`` returns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import DataError, checked_only, describe_fault, repr_plain
from backtest.live.fill_rows import warn_without_fees
from backtest.live.snapshot_of_run import shorten

COLUMNS = ("time", "instrument", "quantity", "price", "fee", "fee_currency", "kind")
CCXT = ("timestamp", "symbol", "side", "amount", "price")
NAMED = ("time", "quantity", "price")
WHERE = "bt.read_fills"


@checked_only("names")
def read_fills(
    source: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return fills as :func:`backtest.replay` takes them.

    Parameters
    ----------
    source : str, Path, DataFrame or sequence of mappings
        A CSV or JSON file, a table, or a list: of the columns ``time``, ``instrument``,
        ``quantity``, ``price`` and ``fee``, with what else :attr:`Result.fills` has; or of what
        ccxt's ``fetch_my_trades`` returns.
    names : mapping of str to str, optional
        Our instruments by the symbol of the source. Default: ``BTC/USDT:USDT`` is ``BTCUSDT``.

    Raises
    ------
    DataError
        If columns are missing, or a row cannot be read.
    """
    table = open_table(source)
    read = next((r for r, needs in READERS.items() if set(needs) <= set(table.columns)), None)
    if read is None:
        raise DataError(
            f"fills must have the columns {', '.join(NAMED)}, or ccxt's {', '.join(CCXT)}, got "
            f"{', '.join(map(str, table.columns))}",
            where=WHERE,
            cure="rename the columns; instrument, fee and kind may stand beside them",
        )
    try:
        found = read(table)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"a row of fills cannot be read: {error}",
            where=WHERE,
            cure="check the table for empty cells and other formats",
        ) from error
    symbols = {x: shorten(x) if "/" in x else x for x in found["instrument"].astype(str)}
    symbols |= names or {}
    found["instrument"] = found["instrument"].astype(str).map(symbols)
    kept = [*COLUMNS, *(name for name in ("reference", "step") if name in found)]
    return found[kept].sort_values("time", kind="stable", ignore_index=True)


def open_table(source: Any) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source.reset_index() if source.index.name is not None else source.copy()
    if isinstance(source, str | Path):
        path = Path(source)
        try:
            if path.suffix.lower() == ".json":
                return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
            return pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise DataError(
                f"fills must be a readable CSV or JSON file, got {describe_fault(error)}",
                where=f"{WHERE}, {path}",
                cure=f"give a file with the columns {', '.join(COLUMNS[:5])}",
            ) from error
    if isinstance(source, Sequence) and all(isinstance(each, Mapping) for each in source):
        return pd.DataFrame([dict(each) for each in source], columns=None if source else CCXT)
    raise DataError(
        f"fills must be a file, a table or a list of mappings, got {repr_plain(source)}",
        where=WHERE,
        cure="pass a path, a DataFrame, or what fetch_my_trades returns",
    )


def to_time(values: pd.Series) -> pd.Series:
    is_date = pd.api.types.is_datetime64_any_dtype(values)
    numbers = pd.Series(np.nan, values.index) if is_date else pd.to_numeric(values, errors="coerce")
    if len(values) and numbers.notna().all():
        return pd.to_datetime(numbers.astype(np.int64), unit="ms", utc=True).astype(
            "datetime64[ns, UTC]"
        )
    return pd.to_datetime(values, utc=True).astype("datetime64[ns, UTC]")


def sign(size: pd.Series, side: pd.Series) -> pd.Series:
    sizes, known = size.astype(np.float64), {"buy": 1.0, "sell": -1.0}
    found = side.astype(str).str.lower().map(known)
    if found.isna().any():
        raise ValueError(f"a side must be buy or sell, got {side[found.isna()].iloc[0]!r}")
    if (sizes < 0.0).any():
        raise ValueError(
            f"a size beside a side must not be negative, got {sizes[sizes < 0.0].iloc[0]:g}"
        )
    return sizes * found.astype(np.float64)


def make(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """Return a table of fills; currency and kind may be left out."""
    given = {"fee_currency": "", "kind": "order", **columns}
    found = pd.DataFrame(given, index=table.index)
    for name in ("quantity", "price", "fee"):
        found[name] = found[name].astype(np.float64)
    return found


def read_named(table: pd.DataFrame) -> pd.DataFrame:
    known = {name: table[name] for name in (*COLUMNS, "reference", "step") if name in table}
    warn_without_fees(0 if "fee" in table else len(table))
    fee = known.pop("fee", 0.0)
    instrument = known.pop("instrument", "")
    known["time"] = to_time(table["time"])
    return make(table, **known, fee=fee, instrument=instrument)


def read_ccxt_trades(table: pd.DataFrame) -> pd.DataFrame:
    given: Any = table["fee"] if "fee" in table else [{}] * len(table)
    fees = [each if isinstance(each, Mapping) else {} for each in given]
    warn_without_fees(sum(each.get("cost") is None for each in fees))
    return make(
        table,
        time=to_time(table["timestamp"]),
        instrument=table["symbol"],
        quantity=sign(table["amount"], table["side"]),
        price=table["price"],
        fee=[float(each.get("cost") or 0.0) for each in fees],
        fee_currency=[str(each.get("currency") or "") for each in fees],
    )


READERS = {read_ccxt_trades: CCXT, read_named: NAMED}
