"""What is asked for: one instrument of one source, its bars' length, whole days of UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.units import DAY, TimeLike, format_duration, format_time, parse_duration
from backtest.base.units import to_nanoseconds as to_ns
from backtest.market.fetch.source_offers import ARCHIVE, MARKETS, OFFERS

KINDS = ("bars", "mark", "funding")
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
        The midnight before which the last bar opens; None: as far as there is.
    kinds : tuple of str
        Of ``KINDS``, bars always among them.
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
        """Return all but the span: what the files of one folder have in common."""
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
    """Return what is asked for, checked.

    Raises
    ------
    ParameterError
        If an argument is unknown, unreadable, or not offered by the source.
    """
    _check_choice("source", source, SOURCES)
    _check_choice("market", market, MARKETS)
    if source != ARCHIVE and market != MARKETS[0]:
        raise ParameterError(
            f"market is a choice of {ARCHIVE} only, was {market!r} for {source}",
            where="market",
            cure="leave it out; binance-coinm is a source of its own, elsewhere the symbol says it",
        )
    for kind in without:
        _check_choice("without", kind, KINDS[1:])
    length = parse_duration(interval, where="interval")
    if DAY % length:
        raise ParameterError(
            f"bars must be a whole part of a day, were {format_duration(length)}",
            where="interval",
            cure="fetch shorter ones, and resample them: backtest run --resample",
        )
    kinds = tuple(kind for kind in KINDS if kind not in without)
    _check_symbol(source, symbol)
    _check_offer(source, kinds)
    first = _read_day(start, "start")
    last = None if end is None else _read_day(end, "end")
    if last is not None and last <= first:
        raise ParameterError(
            f"a span must end after it starts, was {format_time(first)} to {format_time(last)}",
            where="end",
            cure="give a later day",
        )
    return Request(source, symbol, length, first, last, kinds, market)


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ParameterError(
            f"{name} must be one of {', '.join(known)}, was {value!r}{did_you_mean(value, known)}",
            where=name,
            cure=f"choose one of {', '.join(known)}",
        )


def _check_symbol(source: str, symbol: str) -> None:
    """Refuse what cannot be a part of an address; ccxt looks symbols up itself."""
    if source == ARCHIVE and not _SYMBOL.fullmatch(symbol):
        raise ParameterError(
            f"a symbol of the archive is capital letters, digits and _, was {symbol!r}",
            where="symbol",
            cure="write it as the venue does: BTCUSDT, or BTCUSD_PERP with --market cm",
        )


def _check_offer(source: str, kinds: Sequence[str]) -> None:
    if source == ARCHIVE:
        return
    lacking = [kind for kind in kinds if kind not in OFFERS[source].kinds]
    if lacking:
        raise ParameterError(
            f"{source} must offer what is asked for, has no history of {' and '.join(lacking)}",
            where="source",
            cure=f"say --without {' --without '.join(lacking)}; liquidations are then tested on "
            "last prices",
        )


def _read_day(time: TimeLike, name: str) -> int:
    stamp = to_ns(time, where=name)
    if stamp % DAY:
        raise ParameterError(
            f"a fetch is of whole days of UTC, {name} was {format_time(stamp)}",
            where=name,
            cure=f"give {format_time(stamp // DAY * DAY)}; cut the market later with --from, --to",
        )
    return stamp
