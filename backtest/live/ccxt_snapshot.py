"""Read the fields of a snapshot from the unified structures of ccxt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backtest.base import Choice, ParameterError, repr_plain

WHERE = "bt.AccountSnapshot.from_ccxt"


def read_ccxt(
    balance: Mapping[str, Any],
    positions: Sequence[Mapping[str, Any]],
    currency: str,
    total: str,
    names: Mapping[str, str],
) -> dict[str, Any]:
    """Return the fields of a snapshot that a balance and the positions give."""
    Choice("equity", "wallet").check("total", total, where=f"{WHERE}, total")
    own = balance.get(currency)
    if not isinstance(own, Mapping) or own.get("total") is None:
        raise ParameterError(
            f"a balance must have the total of {currency}, got {repr_plain(own)}",
            where=f"{WHERE}, balance",
            cure="pass what fetch_balance() returns, and currency= of the settlement",
        )
    held = {}
    for each in positions:
        if float(each.get("contracts") or 0.0) != 0.0:
            symbol = str(each.get("symbol"))
            held[names.get(symbol, shorten(symbol))] = read_position(each, symbol)
    return {total: float(own["total"]), "positions": held}


def shorten(symbol: str) -> str:
    """Return the instrument of a unified symbol.

    Examples
    --------
    >>> shorten("BTC/USDT:USDT"), shorten("ETH/USD:ETH-251226")
    ('BTCUSDT', 'ETHUSD-251226')
    """
    pair, _, settled = symbol.partition(":")
    _, dash, expiry = settled.partition("-")
    return pair.replace("/", "") + dash + expiry


def read_position(given: Mapping[str, Any], symbol: str) -> dict[str, Any]:
    """Return the fields of one position; ccxt gives its size without a sign."""
    side = {"long": 1.0, "short": -1.0}.get(str(given.get("side")))
    if side is None:
        raise ParameterError(
            f"a position must have the side long or short, got {given.get('side')!r}",
            where=f"{WHERE}, {symbol}",
            cure="pass what fetch_positions() returns",
        )
    mode = given.get("marginMode")
    return {
        "quantity": side * abs(float(given["contracts"])),
        "entry": given.get("entryPrice"),
        "margin": find_margin(given) if mode == "isolated" else 0.0,
        "mode": mode,
    }


def find_margin(given: Mapping[str, Any]) -> float:
    """Return what is posted: the collateral without its profit, or else the initial margin."""
    collateral, profit = given.get("collateral"), given.get("unrealizedPnl")
    if collateral is not None and profit is not None:
        return float(collateral) - float(profit)
    return float(given.get("initialMargin") or 0.0)
