"""What to fetch: a source and what it offers, an instrument, the bars, and whole days of UTC."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backtest.base import (
    Choice,
    ParameterError,
    TimeLike,
    format_duration,
    format_time,
    parse_duration,
)
from backtest.base import to_nanoseconds as to_ns
from backtest.base.units import DAY

KINDS = ("bars", "mark", "funding")


ARCHIVE = "binance-archive"
ARCHIVE_URL = "https://data.binance.vision"
"""Source: github.com/binance/binance-public-data, README, "Where do I access it"."""
MARKETS = ("um", "cm")


class Offer(NamedTuple):
    client: str
    kinds: tuple[str, ...]
    limits: Mapping[str, int]
    until: str = "until"
    ends_bars: bool = False
    rate: str | None = None
    mark: str | None = None


_NO_MARK = ("bars", "funding")

OFFERS: Mapping[str, Offer] = {
    "binance": Offer(
        "binanceusdm", KINDS, {"bars": 1000, "mark": 1000, "funding": 1000}, mark="markPrice"
    ),
    "binance-coinm": Offer(
        "binancecoinm", KINDS, {"bars": 1000, "mark": 1000, "funding": 1000}, mark="markPrice"
    ),
    "bybit": Offer("bybit", KINDS, {"bars": 1000, "mark": 1000, "funding": 200}),
    "okx": Offer("okx", KINDS, {"bars": 100, "mark": 100, "funding": 100}, until="after"),
    "hyperliquid": Offer("hyperliquid", _NO_MARK, {"bars": 5000, "funding": 500}, ends_bars=True),
    "bitmex": Offer("bitmex", _NO_MARK, {"bars": 500, "funding": 500}),
    # An hour's payment: ccxt's own fundingRate is the sum of eight, at every hour.
    "deribit": Offer("deribit", _NO_MARK, {"bars": 1000, "funding": 700}, rate="interest_1h"),
}
"""Sources: ccxt 4.5.64, the methods ``fetch_ohlcv`` and ``fetch_funding_rate_history`` of each
exchange and their limits (read 2026-11-20); tests compare ``kinds`` with its ``has``.
"""


SOURCES = (ARCHIVE, *OFFERS)
_SYMBOL = re.compile(r"[A-Z0-9_]{2,40}")


class Request(NamedTuple):
    """One instrument of one source over a span of whole days.

    Parameters
    ----------
    source : str
        One of ``SOURCES``.
    symbol : str
        As the source writes it (``"BTCUSDT"``), or as ccxt does (``"BTC/USDT:USDT"``).
    interval : int
        Length of a bar, ns; a whole part of a day.
    start : int
        The first open, UTC ns, a midnight.
    end : int or None
        The midnight before which the last bar opens; None: as far as the source has data.
    kinds : tuple of str
        Some of ``KINDS``; bars are always among them.
    market : str
        Of the archive: ``"um"`` (quoted in a stablecoin) or ``"cm"`` (in the coin).
    """

    source: str
    symbol: str
    interval: int
    start: int
    end: int | None
    kinds: tuple[str, ...] = KINDS
    market: str = "um"

    def identity(self) -> dict[str, Any]:
        return {
            "source": self.source,
            **({"market": self.market} if self.source == ARCHIVE else {}),
            "symbol": self.symbol,
            "interval": format_duration(self.interval),
            "kinds": list(self.kinds),
        }


def read_request(
    symbol: str,
    *,
    start: TimeLike,
    end: TimeLike | None = None,
    source: str = ARCHIVE,
    interval: str = "1m",
    without: Sequence[str] = (),
    market: str = "um",
) -> Request:
    Choice(*SOURCES).check("source", source)
    Choice(*MARKETS).check("market", market)
    if source != ARCHIVE and market != MARKETS[0]:
        raise ParameterError(
            f"market may only be chosen for {ARCHIVE}, got {market!r} for {source}: elsewhere the "
            "symbol decides, and binance-coinm is a source of its own"
        )
    for kind in without:
        Choice(*KINDS[1:]).check("without", kind)
    length = parse_duration(interval, "interval")
    if DAY % length:
        raise ParameterError(
            f"interval must divide a day, got {format_duration(length)}; resample shorter bars"
        )
    kinds = tuple(kind for kind in KINDS if kind not in without)
    _check_symbol(source, symbol)
    _check_offer(source, kinds)
    first = _read_day(start, "start")
    last = None if end is None else _read_day(end, "end")
    if last is not None and last <= first:
        raise ParameterError(
            f"end must be after the start, got {format_time(first)} to {format_time(last)}"
        )
    return Request(source, symbol, length, first, last, kinds, market)


def _check_symbol(source: str, symbol: str) -> None:
    if source == ARCHIVE and not _SYMBOL.fullmatch(symbol):
        raise ParameterError(
            "symbol must have capital letters, digits and _ only (BTCUSDT, or BTCUSD_PERP with "
            f"market='cm'), got {symbol!r}"
        )


def _check_offer(source: str, kinds: Sequence[str]) -> None:
    if source == ARCHIVE:
        return
    lacking = [kind for kind in kinds if kind not in OFFERS[source].kinds]
    if lacking:
        raise ParameterError(
            f"{source} has no history of {' and '.join(lacking)}; without={lacking}, and "
            "liquidations are tested on last prices"
        )


def _read_day(time: TimeLike, name: str) -> int:
    stamp = to_ns(time, name)
    if stamp % DAY:
        raise ParameterError(
            f"{name} must be a midnight of UTC, got {format_time(stamp)}; cut the market later"
        )
    return stamp
