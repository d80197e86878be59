"""Errors and warnings for users: each error has the rule, the value found, and where."""

from __future__ import annotations

import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class BacktestError(Exception):
    """Base of all errors that a user can fix: one sentence with rule, value and place.

    An error that lists several faults has a line each.
    """


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


class HighRateWarning(UserWarning):
    """A fee over 1 %, or a rate over 100 % a year or 10 % at a settlement."""


class BandWarning(UserWarning):
    """A band that keeps most targets of an instrument from being traded."""


class WeightWarning(UserWarning):
    """Weights that leave bars or an instrument flat because rows or numbers are missing."""


class OutsideWarning(UserWarning):
    """Stamps of a signal, weights, flows or a ledger that lie outside the market."""


MAX_NAME = 100
"""Length above which a name is not compared with known ones: it would take too long."""


RAISED = (Exception, SystemExit)
"""What code of a user may raise. One that exits has not answered, whatever its exit code."""


def describe_fault(error: Exception) -> str:
    """Return what an error says, on one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())


PERCENT = re.compile(r"\s*([+-]?\d*\.?\d+)\s*%\s*")


def describe_fraction(value: object) -> str:
    """Return the fraction that a percentage stands for, as an advice after a rule, or nothing."""
    match = PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return ""
    return f", {float(match[1]) / 100.0:g} for {match[1]} %"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    if not isinstance(name, str) or len(name) > MAX_NAME:
        return ""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if not near:
        return ""
    return f" (did you mean {near[0]!r}?)"


PACKAGE = str(Path(__file__).parents[1]) + os.sep


HIGHEST = {"of the notional": 0.01, "a year": 1.0, "of the notional at a settlement": 0.1}
"""By what it is of, the fee or rate over which a figure likely is a percentage."""


def describe_high_rate(name: str, rate: float, per: str = "a year") -> Iterator[str]:
    """Yield a warning if a fee or rate likely is a percentage: over 1 %, 100 % a year, or 10 %."""
    if rate > HIGHEST[per]:
        shown = f"{rate:.2%}".replace("%", " %")
        yield f"{name} is {rate:g}, {shown} {per}: rates are fractions, 0.01 is 1 %"


def warn_of_high_rate(name: str, rate: float, per: str = "a year") -> None:
    for text in describe_high_rate(name, rate, per):
        warn_caller(text, HighRateWarning)


TOLD: set[tuple[str, type[Warning], str, int]] = set()
"""Warnings that were shown: text, category, file and line."""
SHOW = warnings.showwarning
"""What shows a warning where nobody collects it."""


def warn_caller(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the first caller outside of this package.

    A line that says the same again is silent, as the filters of Python say. Python forgets what was
    said when a filter changes, which observing a policy does: a loop of runs would warn in each.
    """
    level = 2
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(PACKAGE) and frame.f_back is not None:
        level += 1
        frame = frame.f_back

    module = str(frame.f_globals.get("__name__", ""))
    action = find_action(text, category, module, frame.f_lineno)
    if action in {"default", "module", "once"} and warnings.showwarning is SHOW:
        said = (text, category, frame.f_code.co_filename, frame.f_lineno)
        if said in TOLD:
            return
        TOLD.add(said)
    warnings.warn(text, category, stacklevel=level)


def find_action(text: str, category: type[Warning], module: str, line: int) -> str:
    """Return what the first filter that fits does with a warning of a line."""
    for action, message, kind, of_module, at in warnings.filters:
        fits = is_match(message, text) and is_match(of_module, module) and at in {0, line}
        if fits and issubclass(category, kind):
            return action
    return "default"


def is_match(pattern: Any, text: str) -> bool:
    """Return whether a text fits the pattern of a filter: None, a regular expression or a text."""
    if pattern is None:
        return True
    if isinstance(pattern, str):
        return pattern == text
    return pattern.match(text) is not None
