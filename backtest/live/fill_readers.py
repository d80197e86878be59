"""Read fills: a table of named columns, or what ccxt's ``fetch_my_trades`` returns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from backtest.base import DataError, checked_only, describe_fault, repr_plain
from backtest.live.fill_rows import warn_without_fees
from backtest.live.snapshot_of_run import shorten

NEEDED = ("time", "instrument", "quantity", "price", "fee")
COLUMNS = (*NEEDED, "fee_currency", "kind", "reference", "step")
CCXT = ("timestamp", "symbol", "side", "amount", "price")
SIDES = {"buy": 1.0, "sell": -1.0}


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
    is_of_ccxt = set(CCXT) <= set(table.columns)
    if not is_of_ccxt and not {"time", "quantity", "price"} <= set(table.columns):
        raise DataError(
            f"fills must have the columns {', '.join(NEEDED)} (instrument and fee may be left "
            f"out), or ccxt's {', '.join(CCXT)}, got {', '.join(map(str, table.columns))}"
        )
    try:
        found = read_trades(table) if is_of_ccxt else table[[x for x in COLUMNS if x in table]]
        unit: Any = "ms" if pd.api.types.is_numeric_dtype(found["time"]) else None
        stamps = pd.to_datetime(found["time"], unit=unit, utc=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"a row of fills cannot be read: {error}") from error
    found = found.assign(time=stamps.astype("datetime64[ns, UTC]"))
    if "instrument" in found:
        symbols = {x: shorten(x) if "/" in x else x for x in found["instrument"].astype(str)}
        found["instrument"] = found["instrument"].astype(str).map(symbols | dict(names or {}))
    return found.sort_values("time", kind="stable", ignore_index=True)


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
                f"fills must be a readable CSV or JSON file, got {describe_fault(error)} ({path})"
            ) from error
    if isinstance(source, Sequence) and all(isinstance(each, Mapping) for each in source):
        return pd.DataFrame([dict(each) for each in source], columns=None if source else CCXT)
    raise DataError(
        f"fills must be a file, a table or a list of mappings, got {repr_plain(source)}"
    )


def read_trades(table: pd.DataFrame) -> pd.DataFrame:
    given: Any = table["fee"] if "fee" in table else [{}] * len(table)
    fees = [each if isinstance(each, Mapping) else {} for each in given]
    warn_without_fees(sum(each.get("cost") is None for each in fees))
    amounts = table["amount"].astype("float64")
    if (amounts < 0.0).any():
        raise DataError(
            f"the amount of a trade must be at least 0, beside its side, got {amounts.min():g}"
        )
    columns = {
        "time": table["timestamp"],
        "instrument": table["symbol"],
        "quantity": [SIDES[side] * n for side, n in zip(table["side"], amounts, strict=True)],
        "price": table["price"].astype("float64"),
        "fee": [float(each.get("cost") or 0.0) for each in fees],
        "fee_currency": [str(each.get("currency") or "") for each in fees],
    }
    return pd.DataFrame(columns)
