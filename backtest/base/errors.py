"""The errors a user can meet: each states the rule, the value found, where, and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BacktestError(Exception):
    """Something the user can mend.

    Parameters
    ----------
    problem : str
        The rule and the value that broke it, in one sentence.
    where : str
        The file, parameter, bar or command-line flag where it was found.
    cure : str
        What to do about it.
    """

    def __init__(self, problem: str, *, where: str, cure: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.problem}\n  where: {self.where}\n  cure:  {self.cure}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.problem, self.where, self.cure)


def _rebuild(kind: type[BacktestError], problem: str, where: str, cure: str) -> BacktestError:
    return kind(problem, where=where, cure=cure)


class DataError(BacktestError):
    """Market data that cannot be trusted, or a file that cannot be read."""


class ParameterError(BacktestError):
    """A parameter outside its range, or of the wrong type."""


class PolicyError(BacktestError):
    """A policy that raises, looks ahead, or returns what no account can hold."""


class VenueError(BacktestError):
    """Venue rules that contradict themselves, or an unknown venue."""


class AccountingError(BacktestError):
    """The books do not balance. Never the user's fault, always fatal to the run."""


class VenueDateWarning(UserWarning):
    """A venue's rules that are not known to have held on the days they are used for."""


class LastPriceWarning(UserWarning):
    """Liquidations are tested on last prices: the market has no mark prices."""


class NoFillWarning(UserWarning):
    """A run in which no order was filled."""


class InfiniteLeverageWarning(UserWarning):
    """A policy that asked for an infinite leverage: most often a division by zero."""


LONGEST_NAME = 100
"""Letters of a name that a known one may be near to: longer ones take long to compare."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or an empty string.

    Examples
    --------
    >>> did_you_mean("targt", ["target", "half_life"])
    "; did you mean 'target'?"
    >>> did_you_mean("zzz", ["target"])
    ''
    """
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return ""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
