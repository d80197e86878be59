"""Ask an exchange for leverage tiers through ccxt, for ``backtest venues import --exchange``."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import write_file
from backtest.base.errors import VenueError, did_you_mean
from backtest.venue.imported_tiers import plain_symbol

WHERE = "--exchange"
BY_HAND = (
    "write what ccxt's fetch_leverage_tiers returns with your own key to a JSON file, and give "
    "that file instead of --exchange"
)


def fetch_tiers(exchange: str, symbol: str, folder: Path) -> Path:
    """Write the leverage tiers of a symbol, as ccxt returns them, to a JSON file; return its path.

    Raises VenueError if ccxt is not installed or has no such exchange or no tiers of it, or if the
    exchange does not answer.
    """
    ccxt = import_ccxt()
    client = connect(ccxt, exchange)
    try:
        if client.has.get("fetchMarketLeverageTiers") is True:
            tiers = client.fetch_market_leverage_tiers(symbol)
        else:
            tiers = client.fetch_leverage_tiers([symbol])
    except ccxt.BaseError as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise VenueError(
            f"{exchange} must answer with leverage tiers, got {type(error).__name__}: {reason}",
            where=f"{WHERE} {exchange} --symbol {symbol}",
            cure=f"write the symbol as ccxt does, BTC/USDT:USDT; or {BY_HAND}",
        ) from error
    file = folder / f"{exchange}-{plain_symbol(symbol)}-tiers.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(tiers, indent=1).encode())
    return file


def import_ccxt() -> Any:
    """Return ccxt, which is imported only here."""
    try:
        return importlib.import_module("ccxt")
    except ModuleNotFoundError as error:
        raise VenueError(
            "leverage tiers of an exchange need ccxt, which is not installed",
            where=WHERE,
            cure="pip install 'leverage-backtest[fetch]'; or give a file of tiers",
        ) from error


def connect(ccxt: Any, exchange: str) -> Any:
    """Return ccxt's client of an exchange that has leverage tiers."""
    if exchange not in ccxt.exchanges:
        raise VenueError(
            f"exchange must be one of ccxt, got {exchange!r}"
            + did_you_mean(exchange, ccxt.exchanges),
            where=WHERE,
            cure="choose for example bybit or okx",
        )
    client = getattr(ccxt, exchange)({"enableRateLimit": True, "timeout": 20_000})
    if not (client.has.get("fetchLeverageTiers") or client.has.get("fetchMarketLeverageTiers")):
        raise VenueError(
            f"{exchange} must have leverage tiers in ccxt, got none",
            where=WHERE,
            cure="choose another exchange, or write the brackets to [venue] of an experiment",
        )
    return client
