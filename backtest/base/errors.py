"""Errors and warnings for users: each error has the rule, the value found, where, and the cure."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias


class BacktestError(Exception):
    """Base of all errors that a user can fix.

    Parameters
    ----------
    problem : str
        The rule and the value that broke it, in one sentence.
    where : str
        The file, parameter, bar or command-line flag where it was found.
    cure : str
        How to fix it. A text that names arguments of a function is a
        :class:`~backtest.base.errors.Phrase`, from which the command line names flags.
    """

    def __init__(self, problem: str, *, where: str = "", cure: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.cure = cure

    def __str__(self) -> str:
        where = f"\n  where: {self.where}" if self.where else ""
        cure = f"\n  cure:  {self.cure}" if self.cure else ""
        return f"{self.problem}{where}{cure}"

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), self.problem, where=self.where, cure=self.cure), ()


class Fault(ValueError):  # noqa: N818 - a finding; users see a ParameterError
    """A rule that a value breaks, without the name of what holds it: ``must be at least 0``.

    ``found`` is what was found if that is not the value itself.
    """

    def __init__(self, rule: str, found: str = "") -> None:
        super().__init__(rule)
        self.found = found


class DataError(BacktestError):
    """Invalid market data, or a file that cannot be read."""


class ParameterError(BacktestError):
    """A parameter outside its range, or of the wrong type."""


class PolicyError(BacktestError):
    """A policy that raises, looks ahead, or returns an impossible leverage."""


class VenueError(BacktestError):
    """Contradictory venue rules, or an unknown venue."""


class AccountingError(BacktestError):
    """The books do not balance: a bug in this package, always fatal to the run."""


class VenueDateWarning(UserWarning):
    """Venue rules used on days on which they are not known to have been in force."""


class LastPriceWarning(UserWarning):
    """Liquidations are tested on last prices: the market has no mark prices."""


class NoFillWarning(UserWarning):
    """A run in which no order was filled."""


class InfiniteLeverageWarning(UserWarning):
    """A policy returned an infinite leverage, most often from a division by zero."""


class BandWarning(UserWarning):
    """A band that keeps most targets of an instrument from being traded."""


class WeightWarning(UserWarning):
    """Weights that leave bars or an instrument flat because rows or numbers are missing."""


LONGEST_NAME = 100
"""Length above which a name is not compared with known ones: it would take too long."""


def describe_fault(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


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


PACKAGE = str(Path(__file__).parents[1]) + os.sep


def warn_caller(text: str, category: type[Warning] = UserWarning) -> None:
    level, frame = 2, sys._getframe(1)
    while frame.f_code.co_filename.startswith(PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)


class Argument(NamedTuple):
    name: str
    value: object = ...

    def __str__(self) -> str:
        return self.name if self.value is ... else f"{self.name}={self.value!r}"


class Either(NamedTuple):
    """A text for Python, with its replacement at the command line."""

    python: str
    typed: str | Argument

    def __str__(self) -> str:
        return self.python


Piece: TypeAlias = str | Argument | Either


class Phrase(str):
    """A text with ``{}`` slots, which are filled with its pieces in order.

    A phrase may be a piece of another.

    Examples
    --------
    >>> Phrase("give {} there", Argument("mark_gaps", "last"))
    "give mark_gaps='last' there"
    """

    text: str
    pieces: tuple[Piece, ...]

    def __new__(cls, text: str, *pieces: Piece) -> Phrase:
        phrase = super().__new__(cls, text.format(*pieces))
        phrase.text, phrase.pieces = text, pieces
        return phrase

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.text, *self.pieces

    def fill(self, write: Callable[[Piece], str]) -> str:
        """Return the text with each piece written by a given function."""
        return self.text.format(*map(write, self.pieces))


class Place(str):
    arguments: tuple[str, ...]
    details: tuple[str, ...]
    of: str

    def __new__(cls, arguments: str | tuple[str, ...], *details: str, of: str = "") -> Place:
        names = (arguments,) if isinstance(arguments, str) else arguments
        place = super().__new__(cls, ", ".join(filter(None, [of, " and ".join(names), *details])))
        place.arguments, place.details, place.of = names, details, of
        return place

    def __getnewargs_ex__(self) -> tuple[tuple[object, ...], dict[str, str]]:
        return (self.arguments, *self.details), {"of": self.of}


def join_phrases(separator: str, texts: Iterable[str]) -> Phrase:
    different = list(dict.fromkeys(filter(None, texts)))
    return Phrase(separator.join(["{}"] * len(different)), *different)
