"""Retries: which failures may pass, how long to wait before asking again, and when to give up."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backtest.base import DataError

Notice = Callable[[str], None]


@dataclass(frozen=True)
class RetryPolicy:
    """How often to ask again, and how long to wait in between.

    Parameters
    ----------
    attempts : int
        Attempts in all, the first one included.
    first, longest : float
        Seconds to wait before the second attempt, and at most before any attempt.
    deadline : float
        Seconds that one file may take.
    silence : float
        Seconds without a byte after which a connection is broken.
    asked : float
        The longest wait, in seconds, that is granted to a server that says how long to wait.
    seed : int
        Seed of the jitter.
    away : int
        Attempts in all while no server has been reached yet.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    deadline: float = 180.0
    silence: float = 20.0
    asked: float = 600.0
    seed: int = 0
    away: int = 2

    def delay(self, what: str, attempt: int) -> float:
        """Return the seconds to wait after an attempt, counted from 0.

        The delay doubles with each attempt up to ``longest``, times a jitter in [0.5, 1). The
        jitter is a hash of the seed, ``what`` and the attempt, so it does not depend on threads.
        """
        digest = hashlib.sha256(f"{self.seed}:{what}:{attempt}".encode()).digest()
        uniform = int.from_bytes(digest[:7], "big") / 2**56
        return min(self.longest, self.first * 2.0**attempt) * (1.0 + uniform) / 2.0


class TransientFailure(Exception):  # noqa: N818 - asked again; an error only after the last attempt
    """A failure that may pass: its reason, and the wait in seconds that the server asks for.

    ``is_away`` is True if no server was reached at all.
    """

    def __init__(self, reason: str, wait: float | None = None, *, is_away: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.is_away = is_away


class Canceled(Exception):  # noqa: N818 - another thread has the error
    """The download was given up while this thread waited."""


@dataclass
class Retrier:
    """Retries calls that fail in passing. A wait that the server asks for holds up all threads.

    ``pause`` waits for some seconds and returns True if the download is to be given up; ``clock``
    is monotonic, in seconds; ``notice`` is called before each wait with a text.
    """

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
        """Return what ``ask`` returns at the first attempt without a TransientFailure.

        Raises DataError if all attempts fail, or the server asks for a longer wait than the policy
        grants.
        """
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
        """Raise Canceled if the download was given up."""
        if self.pause(0.0):
            raise Canceled

    def _wait(self, what: str, attempt: int, failure: TransientFailure) -> None:
        """Wait after a failed attempt, or raise the final error."""
        most = self.policy.attempts if self._is_reached else self.policy.away
        wait = failure.wait
        if attempt >= most:
            raise self._final_error(what, failure)
        if wait is not None and wait > self.policy.asked:
            raise DataError(
                f"the server asks for a wait of {wait:g} s, more than {self.policy.asked:g} s",
                where=what,
                cure="run the same command again after that; what has arrived is kept",
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
                f"the download failed {self.policy.attempts} times: {failure.reason}",
                where=what,
                cure="run the same command again later; what has arrived is kept",
            )
        return DataError(
            f"cannot reach the server: {failure.reason}",
            where=what,
            cure="check the network, the proxy, and the address (--base-url); then run the same "
            "command again: what has arrived is kept",
        )

    def _sleep(self, seconds: float) -> None:
        if seconds > 0.0 and self.pause(seconds):
            raise Canceled
