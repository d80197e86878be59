"""The venue's own listing of an instrument on the day of a fetch: ``venue.json`` beside the bars.

What a venue tells anybody is stored as it answers: contracts, and of ccxt the margin tiers where
they need no key. :meth:`backtest.Venue.read` reads the file. A listing that cannot be had is noted
in ``fetch.json`` and never stops a fetch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest import core
from backtest.core import format_time
from backtest.market.names import LISTING_FILE

APIS = {
    "binance-archive": ("https://fapi.binance.com", "/fapi/v1/"),
    "binance-archive-coinm": ("https://dapi.binance.com", "/dapi/v1/"),
}
"""Where the venue of an archive answers, and its paths; a mirror of the archive may have them.
Source: Binance, USD-M and COIN-M Futures, General Info (read 2026-11-29)."""
ENDPOINTS = ("exchangeInfo", "leverageBracket", "fundingInfo")
"""The second needs the key of an account at the venue: without one it is left out."""
LIKE = {
    "binance-archive": "binance-usdm", "binance-archive-coinm": "binance-coinm",
    "binance": "binance-usdm", "binance-coinm": "binance-coinm", "bybit": "bybit-linear",
    "okx": "okx", "hyperliquid": "hyperliquid", "bitmex": "bitmex", "deribit": "deribit",
}  # fmt: skip
"""The preset of the rules that no listing says, by source."""


def fetch_archive_listing(
    web: Any, source: str, symbol: str, *, base_url: str | None, now: int
) -> dict[str, Any]:
    """Return what Binance lists of a symbol today: its contract, and more where it tells anybody.

    ``web`` is a client of httpx, ``base_url`` a mirror, ``now`` the time that is noted, UTC ns.
    Raises DataError if Binance does not answer, or does not list the symbol.
    """
    home, path = APIS[source]
    address = (base_url or home).rstrip("/")
    parts: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        rows = ask_endpoint(web, f"{address}{path}{endpoint}", symbol)
        if rows:
            parts[endpoint] = rows

    # One answer has its rows in a table.
    if "exchangeInfo" in parts:
        parts["exchangeInfo"] = {"symbols": parts["exchangeInfo"]}
    else:
        raise core.DataError(f"{path}exchangeInfo of the venue has no {symbol}")
    return {**describe_listing(source, f"{address}{path}", now), **parts}


def ask_endpoint(web: Any, url: str, symbol: str) -> list[Any]:
    """Return the rows of a symbol at an endpoint of Binance, none where it is refused or not there.

    ``web`` is a client of httpx. Raises DataError if the answer cannot be read.
    """
    try:
        answer = web.get(url)
        if answer.status_code != 200:
            return []
        rows = answer.json()
    except Exception as error:  # httpx and JSON raise classes of their own
        raise core.DataError(f"the listing cannot be read, {type(error).__name__}") from error

    if isinstance(rows, Mapping):
        rows = rows.get("symbols", [])
    return [row for row in rows if isinstance(row, Mapping) and row.get("symbol") == symbol]


def read_exchange_listing(
    client: Any, source: str, market: Mapping[str, Any], now: int
) -> dict[str, Any]:
    """Return a market of ccxt as a listing, with its margin tiers if anybody may ask for them.

    ``client`` and ``market`` are of ccxt, ``now`` is UTC ns. Many exchanges give tiers to accounts
    alone: then the listing says why it has none.
    """
    symbol = str(market["symbol"])
    listing = describe_listing(source, f"ccxt, {source}", now)
    listing["markets"] = {symbol: dict(market)}
    if market.get("inverse") and source == "bybit":
        listing["like"] = "bybit-inverse"

    ask = getattr(client, "fetch_leverage_tiers", None)
    if ask is None:
        return {**listing, "tiers_missing": "this ccxt has no fetch_leverage_tiers of it"}
    try:
        tiers = ask([symbol])
    except Exception as error:  # ccxt raises classes of its own
        return {**listing, "tiers_missing": f"{type(error).__name__}: {str(error)[:120]}"}

    listing["tiers"] = {}
    if symbol in tiers:
        listing["tiers"][symbol] = tiers[symbol]
    return listing


def describe_listing(source: str, address: str, now: int) -> dict[str, Any]:
    return {"time": f"{format_time(now)}Z", "source": address, "like": LIKE[source]}


def save_listing(folder: Path, listing: Mapping[str, Any]) -> None:
    with core.replace_file(folder / LISTING_FILE) as draft:
        core.write_json_file(core.to_plain(listing), draft)
