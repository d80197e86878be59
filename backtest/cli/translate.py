"""Errors of Python's functions in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from backtest.base.errors import BacktestError
from backtest.cli.draft import Draft

_PHRASES = (
    (re.compile(r"\bpass (?=\w+=)"), ""),
    (re.compile(r"\bresume=False\b"), "leave out --resume"),
    (re.compile(r"\bequal_risk=False\b"), "leave out --equal-risk"),
    (re.compile(r"\bstore='?([^',]+)'?"), r"--results \1"),
    (re.compile(r"\bsets=([\d_]+)"), lambda found: f"--draws {found[1].replace('_', '')}"),
    (re.compile(r"\b(resume|full)=True\b"), r"--\1"),
    (re.compile(r"\b(metrics|sampler|holdout)='([^']*)'"), r"--\1 \2"),
)
"""What a cure says in Python, and what is typed instead."""

_PLACES = ("sets", "space", "fix", "objective", "constraints", "bt.sweep", "bt.tune", "bt.compare")
"""How the places begin that flags and tables of a search speak of."""


@contextmanager
def explained(draft: Draft, table: str) -> Iterator[None]:
    """Say in which flags or which file an error lies, and its cure in flags.

    Parameters
    ----------
    draft : Draft
        What was said.
    table : str
        The table that the arguments came from.
    """
    try:
        yield
    except BacktestError as error:
        where = error.where
        if where.startswith(_PLACES):
            words = re.split(", |; | and | or ", where)
            place = draft.place(table, words)
            known = {*_PLACES, *(flag.group for flag in draft.flags)}
            told = known if place.startswith("-") else ()  # a flag says it already
            rest = [word for word in words if not word.startswith("bt.") and word not in told]
            where = ": ".join(filter(None, [place, ", ".join(rest)]))
        raise type(error)(error.problem, where=where, cure=in_flags(error.cure)) from error


def in_flags(text: str) -> str:
    """Return a cure with flags in place of keywords.

    Examples
    --------
    >>> in_flags("pass resume=True to go on with it"), in_flags("write holdout='25%' or '90d'")
    ('--resume to go on with it', "write --holdout 25% or '90d'")
    """
    for pattern, phrase in _PHRASES:
        text = pattern.sub(phrase, text)
    return text
