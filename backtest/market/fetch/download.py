"""Files by HTTP: asked for again where the failure may pass, bounded in size and time."""

from __future__ import annotations

import datetime as dt
import email.utils
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from backtest.base.errors import DataError, ParameterError
from backtest.market.fetch.backoff import RetryPolicy

if TYPE_CHECKING:
    import httpx

ABSENT = frozenset({404, 410})
PASSING = frozenset({408, 418, 425, 429})
"""Refusals that pass, besides all of 5xx; 418 is Binance's word for too many requests."""

_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)

Notice = Callable[[str], None]


class TransientFailure(Exception):  # noqa: N818 - it is an answer to be asked for again, not yet an error
    """A failure that may pass.

    Parameters
    ----------
    reason : str
        For the message, should it not pass.
    wait : float or None
        Seconds that the venue asks for.
    is_away : bool
        Whether no server was reached at all.
    """

    def __init__(self, reason: str, wait: float | None = None, *, is_away: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.is_away = is_away


class Retrier:
    """Asks again with patience; when the venue says wait, all threads wait.

    Parameters
    ----------
    patience : RetryPolicy
        How often and how long.
    pause : callable
        Waits for some seconds; True where the work is to stop.
    clock : callable
        Seconds that only grow.
    notice : callable, optional
        Told, before each wait, what failed and how long it will be.
    """

    def __init__(
        self,
        patience: RetryPolicy,
        pause: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        notice: Notice | None = None,
    ) -> None:
        self.patience = patience
        self.pause = pause
        self.clock = clock
        self.notice = notice
        self.retries = 0
        self._is_reached = False
        self._told = ""
        self._quiet_until = 0.0
        self._lock = threading.Lock()

    def call(self, what: str, ask: Callable[[], Any]) -> Any:
        """Return what ``ask`` returns, at the first attempt that does not raise TransientFailure.

        Raises
        ------
        DataError
            If none does, the venue asks for more patience than there is, or no server is reached
            and none was before.
        """
        for attempt in range(self.patience.attempts):
            self._keep_quiet()
            try:
                answer = ask()
            except TransientFailure as failure:
                last = failure
            else:
                self._is_reached = True
                return answer
            self._is_reached |= not last.is_away
            if not self._is_reached and attempt + 1 >= self.patience.away:
                raise _away(what, last.reason)
            if attempt + 1 < self.patience.attempts:
                self._wait(what, attempt, last)
        raise DataError(
            f"an answer must arrive whole, did not in {self.patience.attempts} attempts: "
            f"{last.reason}",
            where=what,
            cure="run the same command again later: what has arrived is kept",
        )

    def _wait(self, what: str, attempt: int, failure: TransientFailure) -> None:
        wait = failure.wait
        if wait is not None and wait > self.patience.asked:
            raise DataError(
                f"a venue must let us go on within {self.patience.asked:g} s, asks for {wait:g} s",
                where=what,
                cure="run the same command again after that: what has arrived is kept",
            )
        with self._lock:
            self.retries += 1
            if wait is not None:
                self._quiet_until = max(self._quiet_until, self.clock() + wait)
        pause = self.patience.delay(what, attempt) if wait is None else wait
        self._tell(what, attempt, failure, pause)
        if wait is None:
            self._pause(pause)

    def _tell(self, what: str, attempt: int, failure: TransientFailure, pause: float) -> None:
        """Say what failed; of a server that is away, once for all that ask."""
        with self._lock:
            is_known = failure.is_away and failure.reason == self._told
            self._told = failure.reason
        if self.notice is not None and not is_known:
            most = self.patience.attempts if self._is_reached else self.patience.away
            turn = f"attempt {attempt + 2} of {most}"
            self.notice(f"{what}: {failure.reason}; asking again in {pause:.1f} s, {turn}")

    def _keep_quiet(self) -> None:
        with self._lock:
            left = self._quiet_until - self.clock()
        if left > 0.0:
            self._pause(left)

    def check(self) -> None:
        """Raise Cancelled where the work was given up."""
        self._pause(0.0)

    def _pause(self, seconds: float) -> None:
        if self.pause(seconds):
            raise Cancelled


def find_unreachable(error: BaseException | None) -> OSError | None:
    """Return the cause of an error, where it is that no server was reached: refused, no such name.

    Examples
    --------
    >>> find_unreachable(ConnectionRefusedError()), find_unreachable(ConnectionResetError()), find_unreachable(None)
    (ConnectionRefusedError(), None, None)
    """
    while error is not None:
        is_unknown = isinstance(error, (socket.gaierror, ConnectionRefusedError))
        if isinstance(error, OSError) and (is_unknown or error.errno in _NO_WAY):
            return error
        error = error.__cause__ or error.__context__
    return None


def _away(what: str, reason: str) -> DataError:
    return DataError(
        f"a server must be reached, was not: {reason}",
        where=what,
        cure="check the network, the proxy, and the address (--base-url); then run the same "
        "command again: what has arrived is kept",
    )


class Cancelled(Exception):  # noqa: N818 - another thread has the error
    """The work was given up while this thread waited."""


class Downloader:
    """A client of one base address.

    Parameters
    ----------
    client : httpx.Client
        With its limits of time.
    base : str
        What every path is appended to.
    retrier : Retrier
        Its patience is that of every file.
    """

    def __init__(self, client: httpx.Client, base: str, retrier: Retrier) -> None:
        self.client = client
        self.base = base.rstrip("/")
        self.retrier = retrier

    def get(self, path: str, limit: int) -> bytes | None:
        """Return a file, None where the venue has none.

        Parameters
        ----------
        path : str
            Below the base.
        limit : int
            The most bytes that are taken.

        Raises
        ------
        DataError
            If it is refused, too large, or does not arrive.
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
            raise TransientFailure(reason, is_away=find_unreachable(error) is not None) from error

    def _read(self, response: httpx.Response, url: str, limit: int, started: float) -> bytes:
        content = bytearray()
        for chunk in response.iter_raw():
            self.retrier.check()
            content += chunk
            if len(content) > limit:
                raise DataError(
                    f"a file must have at most {limit:,} bytes, has more",
                    where=url,
                    cure="check the base address: this is not the archive's file",
                )
            if self.retrier.clock() - started > self.retrier.patience.deadline:
                raise TransientFailure(f"it took over {self.retrier.patience.deadline:g} s")
        return bytes(content)


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status == 200:
        return
    if status in PASSING or status >= 500:
        wait = read_wait(response.headers.get("Retry-After"), time.time())
        raise TransientFailure(f"the answer was {status}", wait)
    raise DataError(
        f"the answer must be 200, was {status}",
        where=url,
        cure="check the base address; some venues refuse whole countries: a mirror can be given "
        "with --base-url",
    )


def read_wait(text: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After asks for; None where it says nothing readable.

    Parameters
    ----------
    text : str or None
        Seconds, or a date.
    now : float
        Seconds since 1970.

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
def connect(base: str, retrier: Retrier, parallel: int) -> Iterator[Downloader]:
    """Yield a client of a base address.

    Raises
    ------
    ParameterError
        If the address cannot be one, or httpx is not installed.
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
    timeout = httpx.Timeout(retrier.patience.silence)
    with httpx.Client(timeout=timeout, limits=limits, headers=headers) as client:
        yield Downloader(client, base, retrier)


def check_address(base: str) -> None:
    """Refuse what is no address of a server.

    Raises
    ------
    ParameterError
        If it is none.
    """
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ParameterError(
            f"a base address must begin with http:// or https:// and name a server, was {base!r}",
            where="base_url",
            cure="write for example https://data.binance.vision",
        )
