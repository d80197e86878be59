"""HTTP downloads from one server: retried, and bounded in size and time."""

from __future__ import annotations

import datetime as dt
import email.utils
import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from backtest.base import DataError, ParameterError, Place
from backtest.market.fetch.backoff import Retrier, TransientFailure

if TYPE_CHECKING:
    import httpx

ABSENT = frozenset({404, 410})
TRANSIENT = frozenset({408, 418, 425, 429})
"""Status codes below 500 that may pass; Binance answers 418 to too many requests."""

_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


def find_unreachable(error: BaseException | None) -> OSError | None:
    """Return the cause of an error if no server was reached; None for other errors.

    Examples
    --------
    >>> find_unreachable(ConnectionRefusedError()), find_unreachable(ConnectionResetError())
    (ConnectionRefusedError(), None)
    """
    while error is not None:
        is_unknown = isinstance(error, (socket.gaierror, ConnectionRefusedError))
        if isinstance(error, OSError) and (is_unknown or error.errno in _UNREACHABLE):
            return error
        error = error.__cause__ or error.__context__
    return None


class Downloader(NamedTuple):
    """Downloads files below one base address, with the retries of ``retrier``."""

    client: httpx.Client
    base: str
    retrier: Retrier

    def get(self, path: str, limit: int) -> bytes | None:
        """Return a file of at most ``limit`` bytes; None if the server has no such file.

        Raises DataError if the server refuses, or the file is too large or does not arrive.
        """
        url = f"{self.base}/{path}"
        content: bytes | None = self.retrier.call(url, lambda: self._get(url, limit))
        return content

    def _get(self, url: str, limit: int) -> bytes | None:
        import httpx  # noqa: PLC0415 - only where something is fetched

        started = self.retrier.clock()
        try:
            with self.client.stream("GET", url) as response:
                if response.status_code in ABSENT:
                    return None
                _check_status(response, url)
                return self._read(response, url, limit, started)
        except httpx.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
            is_away = find_unreachable(error) is not None
            raise TransientFailure(reason, is_away=is_away) from error

    def _read(self, response: httpx.Response, url: str, limit: int, started: float) -> bytes:
        content = bytearray()
        deadline = self.retrier.policy.deadline
        for chunk in response.iter_raw():
            self.retrier.check()
            content += chunk
            if len(content) > limit:
                raise DataError(
                    f"a file must have at most {limit:,} bytes, has more",
                    where=url,
                    cure="check the base address: this is not the archive's file",
                )
            if self.retrier.clock() - started > deadline:
                raise TransientFailure(f"it took over {deadline:g} s")
        return bytes(content)


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status == 200:
        return
    if status in TRANSIENT or status >= 500:
        wait = read_wait(response.headers.get("Retry-After"), time.time())
        raise TransientFailure(f"the HTTP status was {status}", wait)
    raise DataError(
        f"the HTTP status must be 200, got {status}",
        where=url,
        cure="check the base address; some venues refuse whole countries, and --base-url takes "
        "the address of a mirror",
    )


def read_wait(text: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for; None if it is absent or unreadable.

    ``text`` is a number of seconds or a date, ``now`` is in seconds since 1970.

    Examples
    --------
    >>> read_wait("7", 0.0), read_wait("Thu, 01 Jan 1970 00:00:09 GMT", 2.0), read_wait("x", 0.0)
    (7.0, 7.0, None)
    """
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=dt.UTC)
    return max(0.0, aware.timestamp() - now)


@contextmanager
def open_downloader(base: str, retrier: Retrier, parallel: int) -> Iterator[Downloader]:
    """Open an HTTP client for one base address.

    Raises ParameterError if the address is not valid, or httpx is not installed.
    """
    check_address(base)
    try:
        import httpx  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ParameterError(
            "downloads need httpx, which is not installed",
            where="backtest data fetch",
            cure="pip install 'leverage-backtest[fetch]'",
        ) from error
    limits = httpx.Limits(max_connections=parallel, max_keepalive_connections=parallel)
    headers = {"Accept-Encoding": "identity", "User-Agent": "leverage-backtest"}
    timeout = httpx.Timeout(retrier.policy.silence)
    with httpx.Client(timeout=timeout, limits=limits, headers=headers) as client:
        yield Downloader(client, base.rstrip("/"), retrier)


def check_address(base: str) -> None:
    """Refuse a base address that does not name a server."""
    url = urlsplit(base)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ParameterError(
            f"a base address must begin with http:// or https:// and name a server, got {base!r}",
            where=Place("base_url"),
            cure="write for example https://data.binance.vision",
        )
