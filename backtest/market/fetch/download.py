"""HTTP downloads from one server: retried as failures allow, and bounded in size and time."""

from __future__ import annotations

import datetime as dt
import email.utils
import errno
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from backtest.base import DataError, ParameterError

if TYPE_CHECKING:
    import httpx


ABSENT = frozenset({404, 410})
TRANSIENT = frozenset({408, 418, 425, 429})

_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
AGAIN = "fetch again later: what has arrived is kept"


def find_unreachable(error: BaseException | None) -> OSError | None:
    while error is not None:
        is_unknown = isinstance(error, (socket.gaierror, ConnectionRefusedError))
        if isinstance(error, OSError) and (is_unknown or error.errno in _UNREACHABLE):
            return error
        error = error.__cause__ or error.__context__
    return None


Notice = Callable[[str], None]


@dataclass(frozen=True)
class RetryPolicy:
    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    deadline: float = 180.0
    silence: float = 20.0
    asked: float = 600.0
    seed: int = 0
    away: int = 2

    def delay(self, what: str, attempt: int) -> float:
        digest = hashlib.sha256(f"{self.seed}:{what}:{attempt}".encode()).digest()
        uniform = int.from_bytes(digest[:7], "big") / 2**56
        return min(self.longest, self.first * 2.0**attempt) * (1.0 + uniform) / 2.0


class TransientFailure(Exception):  # noqa: N818 - asked again; an error only after the last attempt
    def __init__(self, reason: str, wait: float | None = None, *, is_away: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.is_away = is_away


class Canceled(Exception):  # noqa: N818 - another thread has the error
    """The download was given up while this thread waited."""


@dataclass
class Retrier:
    policy: RetryPolicy
    pause: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic
    notice: Notice | None = None
    retries: int = 0
    _is_reached: bool = False
    _last_reason: str = ""
    _quiet_until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, what: str, ask: Callable[[], Any]) -> Any:
        attempt = 0
        while True:
            self._sleep(max(self._quiet_until - self.clock(), 0.0))
            try:
                answer = ask()
            except TransientFailure as failure:
                self._is_reached |= not failure.is_away
                attempt += 1
                self._wait(what, attempt, failure)
            else:
                self._is_reached = True
                return answer

    def check(self) -> None:
        if self.pause(0.0):
            raise Canceled

    def _wait(self, what: str, attempt: int, failure: TransientFailure) -> None:
        most = self.policy.attempts if self._is_reached else self.policy.away
        wait = failure.wait
        if attempt >= most:
            raise self._final_error(what, failure)
        if wait is not None and wait > self.policy.asked:
            raise DataError(
                f"the server asks for a wait of {wait:g} s, more than {self.policy.asked:g} s "
                f"({what}); {AGAIN}"
            )
        delay = self.policy.delay(what, attempt - 1) if wait is None else wait
        with self._lock:
            self.retries += 1
            is_known = failure.is_away and failure.reason == self._last_reason
            self._last_reason = failure.reason
            if wait is not None:
                self._quiet_until = max(self._quiet_until, self.clock() + wait)
        if self.notice is not None and not is_known:  # one notice for all threads that fail alike
            turn = f"attempt {attempt + 1} of {most}"
            self.notice(f"{what}: {failure.reason}; asking again in {delay:.1f} s, {turn}")
        self._sleep(delay if wait is None else 0.0)

    def _final_error(self, what: str, failure: TransientFailure) -> DataError:
        if self._is_reached:
            return DataError(
                f"the download failed {self.policy.attempts} times: {failure.reason} ({what}); "
                f"{AGAIN}"
            )
        return DataError(
            f"cannot reach the server: {failure.reason} ({what}); check the network, the proxy and "
            f"base_url, then {AGAIN}"
        )

    def _sleep(self, seconds: float) -> None:
        if seconds > 0.0 and self.pause(seconds):
            raise Canceled


class Downloader(NamedTuple):
    client: httpx.Client
    base: str
    retrier: Retrier

    def get(self, path: str, limit: int) -> bytes | None:
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
                    f"a file must have at most {limit:,} bytes, has more ({url}): not the "
                    "archive's file"
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
        f"the HTTP status must be 200, got {status} ({url}); some venues refuse whole countries, "
        "and base_url takes the address of a mirror"
    )


def read_wait(text: str | None, now: float) -> float | None:
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
    check_address(base)
    try:
        import httpx  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ParameterError(
            "downloads need httpx, which is not installed; pip install 'leverage-backtest[fetch]'"
        ) from error
    limits = httpx.Limits(max_connections=parallel, max_keepalive_connections=parallel)
    headers = {"Accept-Encoding": "identity", "User-Agent": "leverage-backtest"}
    timeout = httpx.Timeout(retrier.policy.silence)
    with httpx.Client(timeout=timeout, limits=limits, headers=headers) as client:
        yield Downloader(client, base.rstrip("/"), retrier)


def check_address(base: str) -> None:
    url = urlsplit(base)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ParameterError(
            f"base_url must begin with http:// or https:// and name a server, got {base!r}"
        )
