"""Read fills from ccxt, exports of Binance, Bybit and OKX, vectorbt and freqtrade."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import DataError, checked_only, describe_fault, repr_plain
from backtest.live.fill_rows import warn_without_fees
from backtest.live.snapshot_of_run import shorten
from backtest.live.web_exports import (
    keep_fills,
    read_binance_web,
    read_bybit_log,
    read_bybit_web,
    read_okx_web,
    read_rows,
)

COLUMNS = ("time", "instrument", "quantity", "price", "fee", "fee_currency", "kind")
CCXT = ("timestamp", "symbol", "side", "amount", "price")
WHERE = "bt.read_fills"
BYBIT_KINDS = {"BustTrade": "takeover", "Delivery": "expiry", "Settle": "expiry"}
BYBIT_TRADES = ("Trade", "AdlTrade", "BlockTrade", *BYBIT_KINDS)
OKX_LIQUIDATIONS = tuple(range(100, 108))
OKX_DELIVERIES = (112, 113)
FREQTRADE_STOPS = ("stop_loss", "trailing_stop_loss", "stoploss_on_exchange", "emergency_exit")


class Layout(NamedTuple):
    name: str
    needs: tuple[str, ...]
    read: Callable[[pd.DataFrame], pd.DataFrame]


@checked_only("names")
def read_fills(
    source: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the fills in an export, as :func:`backtest.replay` takes them.

    Parameters
    ----------
    source : str, Path, DataFrame or sequence of mappings
        A CSV or JSON file, a table, or a list. Known are: what ccxt's ``fetch_my_trades`` returns;
        the fields of Binance's account trade list, of Bybit's execution list and of OKX's fills;
        the files that their web sites export (trade history of Binance and Bybit, transaction log
        of Bybit, trading history of OKX), whose times are UTC unless they name a zone;
        vectorbt's ``orders.records_readable``; freqtrade's trades; and the columns of
        :attr:`Result.fills`.
    names : mapping of str to str, optional
        Our instruments by the symbol of the source. Default: ``BTC/USDT:USDT`` and
        ``BTC-USDT-SWAP`` are ``BTCUSDT``.

    Raises
    ------
    DataError
        If the layout is not known, or a row cannot be read.
    """
    table = open_table(source).rename(columns={"contracts": "Contracts"})
    layout = next((each for each in LAYOUTS if set(each.needs) <= set(table.columns)), None)
    if layout is None:
        known = "; ".join(f"{each.name}: {', '.join(each.needs)}" for each in LAYOUTS)
        raise DataError(
            f"fills must have a known layout, got the columns {', '.join(map(str, table.columns))}",
            where=WHERE,
            cure=f"rename columns to one of these: {known}",
        )
    try:
        found = layout.read(table)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"a row of {layout.name} cannot be read: {error}",
            where=WHERE,
            cure="check the export for empty cells and other formats",
        ) from error
    known_names = {} if names is None else names
    found["instrument"] = [known_names.get(x, x) if x in known_names else strip(x)
                           for x in found["instrument"].astype(str)]  # fmt: skip
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
            return read_rows(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"fills must be a readable CSV or JSON file, got {describe_fault(error)}",
                where=f"{WHERE}, {path}",
                cure="give the export of your exchange",
            ) from error
    if isinstance(source, Sequence) and all(isinstance(each, Mapping) for each in source):
        return pd.DataFrame([dict(each) for each in source], columns=None if source else CCXT)
    raise DataError(
        f"fills must be a file, a table or a list of mappings, got {repr_plain(source)}",
        where=WHERE,
        cure="pass a path, a DataFrame, or what fetch_my_trades returns",
    )


def strip(symbol: str) -> str:
    if "/" in symbol:
        return shorten(symbol)
    return symbol.removesuffix("-SWAP").replace("-", "") if symbol.endswith("-SWAP") else symbol


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


def read_own(table: pd.DataFrame) -> pd.DataFrame:
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


def read_binance(table: pd.DataFrame) -> pd.DataFrame:
    return make(
        table,
        time=to_time(table["time"]),
        instrument=table["symbol"],
        quantity=sign(table["qty"], table["side"]),
        price=table["price"],
        fee=table["commission"],
        fee_currency=table["commissionAsset"],
    )


def read_bybit(table: pd.DataFrame) -> pd.DataFrame:
    kinds = table["execType"] if "execType" in table else pd.Series("Trade", table.index)
    kept = table[kinds.isin(BYBIT_TRADES)]
    kinds = kinds[kept.index]
    return make(
        kept,
        time=to_time(kept["execTime"]),
        instrument=kept["symbol"],
        quantity=sign(kept["execQty"], kept["side"]),
        price=kept["execPrice"],
        fee=kept["execFee"],
        fee_currency=kept["feeCurrency"].fillna("") if "feeCurrency" in kept else "",
        kind=kinds.map(BYBIT_KINDS).fillna("order"),
    )


def read_okx(table: pd.DataFrame) -> pd.DataFrame:
    subtypes = pd.to_numeric(table.get("subType", pd.Series(1, table.index)), errors="coerce")
    kinds = np.where(subtypes.isin(OKX_LIQUIDATIONS), "liquidation", "order")
    kinds = np.where(subtypes.isin(OKX_DELIVERIES), "expiry", kinds)
    return make(
        table,
        time=to_time(table["fillTime"] if "fillTime" in table else table["ts"]),
        instrument=table["instId"],
        quantity=sign(table["fillSz"], table["side"]),
        price=table["fillPx"],
        fee=-table["fee"].astype(np.float64),
        fee_currency=table["feeCcy"],
        kind=kinds,
    )


def read_vectorbt(table: pd.DataFrame) -> pd.DataFrame:
    time = table["Timestamp"] if "Timestamp" in table else table["Index"]
    return make(
        table,
        time=to_time(time),
        instrument=table["Column"].astype(str),
        quantity=sign(table["Size"], table["Side"]),
        price=table["Price"],
        fee=table["Fees"],
    )


def read_freqtrade(table: pd.DataFrame) -> pd.DataFrame:
    side = np.where(table.get("is_short", pd.Series(False, table.index)).astype(bool), -1.0, 1.0)
    amount = table["amount"].to_numpy(dtype=np.float64)
    reason = table.get("exit_reason", pd.Series("", table.index)).astype(str)
    kinds = np.where(reason.isin(FREQTRADE_STOPS), "stop", "order")
    kinds = np.where(reason == "liquidation", "liquidation", kinds)
    parts = []
    for word, direction, kind in (("open", side, "order"), ("close", -side, kinds)):
        price = table[f"{word}_rate"].astype(np.float64)
        fee = table[f"fee_{word}"].astype(np.float64) * amount * price
        part = make(
            table, time=to_time(table[f"{word}_date"]), instrument=table["pair"],
            quantity=direction * amount, price=price, fee=fee, kind=kind,
        )  # fmt: skip
        parts.append(part[part["time"].notna() & part["price"].notna()])
    return pd.concat(parts)


def read_web(
    read: Callable[[pd.DataFrame], dict[str, Any]], column: str
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def read_table(table: pd.DataFrame) -> pd.DataFrame:
        kept = keep_fills(table, column)
        return make(kept, **read(kept))

    return read_table


LAYOUTS = (
    Layout(
        "Binance's trade history",
        ("Symbol", "Side", "Price", "Quantity", "Fee", "Realized Profit"),
        read_web(read_binance_web, "Side"),
    ),
    Layout(
        "Bybit's trade history",
        ("Contracts", "Direction", "Filled Qty", "Filled Price", "Filled Type", "Fees Paid"),
        read_web(read_bybit_web, "Filled Type"),
    ),
    Layout(
        "Bybit's transaction log",
        ("Currency", "Contract", "Type", "Direction", "Quantity", "Filled Price", "Fee Paid"),
        read_web(read_bybit_log, "Type"),
    ),
    Layout(
        "OKX's trading history",
        ("Trade Type", "Symbol", "Action", "Amount", "Filled Price", "Fee", "Fee Unit"),
        read_web(read_okx_web, "Action"),
    ),
    Layout("Bybit", ("symbol", "side", "execPrice", "execQty", "execFee", "execTime"), read_bybit),
    Layout("OKX", ("instId", "side", "fillPx", "fillSz", "fee", "feeCcy"), read_okx),
    Layout(
        "Binance",
        ("symbol", "side", "price", "qty", "commission", "commissionAsset", "time"),
        read_binance,
    ),
    Layout("ccxt", CCXT, read_ccxt_trades),
    Layout("vectorbt", ("Column", "Size", "Price", "Fees", "Side"), read_vectorbt),
    Layout(
        "freqtrade",
        ("pair", "amount", "open_date", "open_rate", "close_date", "close_rate", "fee_open",
         "fee_close"),
        read_freqtrade,
    ),
    Layout("backtest", ("time", "quantity", "price"), read_own),
)  # fmt: skip
