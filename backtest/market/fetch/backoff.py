"""How long to wait before asking again: twice as long each time, and never all at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to wait.

    Parameters
    ----------
    attempts : int
        In all, the first among them.
    first, longest : float
        Seconds before the second attempt, and before any.
    deadline : float
        Seconds that one file may take.
    silence : float
        Seconds without a byte.
    asked : float
        Seconds that are waited at most where the venue says how long.
    seed : int
        Of the jitter.
    away : int
        Attempts, in all, at a server that cannot be reached, while none has answered yet.
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
        """Return the seconds before the next attempt, ``attempt`` from 0.

        Notes
        -----
        min(longest, first 2^attempt) (1 + u) / 2, u uniform in [0, 1) from a hash of the seed, what
        is asked for and the attempt: the same in whatever order threads come to it.

        Examples
        --------
        >>> patience = RetryPolicy(first=1.0)
        >>> [0.5 <= patience.delay("a", n) / 2**n < 1.0 for n in range(3)]
        [True, True, True]
        >>> patience.delay("a", 0) == patience.delay("b", 0)
        False
        """
        digest = hashlib.sha256(f"{self.seed}:{what}:{attempt}".encode()).digest()
        uniform = int.from_bytes(digest[:7], "big") / 2**56
        return min(self.longest, self.first * 2.0**attempt) * (1.0 + uniform) / 2.0
