"""Cures as they are typed: flags and repairs in place of Python's keywords."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from backtest.base.errors import BacktestError

Phrase: TypeAlias = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

IMPORT = "data import"
_FLAGS = (
    *(
        "interval",
        "funding_interval",
        "timezone",
        "instrument",
        "mark_gaps",
        "funding_gaps",
        "resample",
        "calendar",
    ),
    *("sampling", "venue_leverage", "margin_call", "top_up_to", "reserve"),
)
"""Keywords of Python that are flags of the same name."""

_OTHERS = (
    *("repair", "columns", "decimal", "side", "entry", "leverage", "margin", "capital"),
    *("quantity", "volatility", "multiplier", "without", "market", "base_url", "cluster"),
)
"""Further places of errors that are flags of the same name."""


def _flag(name: str) -> str:
    """Return the flag of a keyword."""
    return f"--{name.replace('_', '-')}"


def _in_span(found: re.Match[str]) -> str:
    """Return the flags that cut out ``between=('2021-01-01 08:00', '2022-01-01')``."""
    start, end = (time.replace(" ", "T") for time in found.groups())
    return f"--from {start} --to {end}"


def _in_columns(found: re.Match[str]) -> str:
    """Return the flag for ``columns={'time': 0, 'open': 1, ...}``."""
    return "--columns " + re.sub(r"[{}' ]", "", found[1]).replace(":", "=")


_PHRASES: tuple[Phrase, ...] = (
    (re.compile(r"bt\.import_market\(\.\.\., ([^)]*)\)"), r"\1"),
    (re.compile(r"decimal=','"), "--decimal ,"),
    (re.compile(r"between=\('([^']+)', '([^']+)'\)"), _in_span),
    (re.compile(r"\bbetween=(?!\()"), "--from and --to"),
    (re.compile(r"\bsessions=True\b"), "--sessions"),
    (re.compile(r"\bcolumns=(\{[^}]*\})"), _in_columns),
    (re.compile(r", or build a Venue from its parts"), ""),
    (re.compile(r"frame\.sort_index\(\)"), "--repair sort"),
    (
        re.compile(r"frame\[~frame\.index\.duplicated\(\)\]"),
        "--repair drop-duplicates (=first or =last where they differ)",
    ),
    (re.compile(r"bars\['volume'\]\.fillna\(0\.0\)"), "--repair volume-gaps=zero"),
    (re.compile(r"repair='([\w=-]+)'"), r"--repair \1"),
    (re.compile(r"convert it first: frame\['[^']*'\]\.astype\(float\)"), "write it as numbers"),
    (re.compile(r", for example with pandas: frame\.to_parquet\('bars\.parquet'\)"), ""),
    (re.compile(r"index the frame by time, or name"), "name"),
    (
        re.compile(r" \(to_csv writes an index without a name: give it index_label='time'\)"),
        ", or say which it is: --columns time=NAME,open=...",
    ),
    *((re.compile(rf"\b{name}='?([^' ,;)]+)'?"), rf"{_flag(name)} \1") for name in _FLAGS),
    *((re.compile(rf"\b{name}=(?=\W|$)"), _flag(name)) for name in _FLAGS),
)
"""What a cure says in Python, and what is typed instead."""

_PLACES = {
    "bt.run, start": ("--start",),
    "between, start": ("--from", "--start"),
    "between, end": ("--to", "--end"),
    "between": ("--from", "--to", "--start", "--end"),
    "start": ("--from",),
    "end": ("--to",),
    "source": ("--source",),
    **{name: (_flag(name),) for name in (*_FLAGS, *_OTHERS)},
}
"""How the places begin that flags speak of, and those flags."""

_OF_IMPORTS = re.compile(r"--(?:repair|columns|decimal)\b")
_GAPS = re.compile(r"--(mark-gaps|funding-gaps) (\w+)")


def type_cure(cure: str, *, command: str = "") -> str:
    """Return a cure in the words of the command line.

    Parameters
    ----------
    cure : str
        As the functions of Python say it.
    command : str
        The command that was typed. What only an import can do names that command, and in an import
        gaps are filled by repairs.

    Examples
    --------
    >>> type_cure("cut them, between=('2021-01-01 08:00', '2022-01-01'); or give sessions=True")
    'cut them, --from 2021-01-01T08:00 --to 2022-01-01; or give --sessions'
    >>> type_cure("sort them: frame.sort_index()")
    'sort them: backtest data import FILE --repair sort'
    >>> type_cure("give mark_gaps='last'", command="data import")
    'give --repair mark-gaps=last'
    """
    for pattern, phrase in _PHRASES:
        cure = pattern.sub(phrase, cure)
    if command == IMPORT:
        return _GAPS.sub(r"--repair \1=\2", cure)
    return _OF_IMPORTS.sub(lambda found: f"backtest {IMPORT} FILE {found[0]}", cure, count=1)


def type_error(error: BacktestError, words: Sequence[str]) -> str:
    """Return an error with its cures as they are typed, also those of the defects it lists.

    Parameters
    ----------
    error : BacktestError
        What was refused.
    words : sequence of str
        The command line, without the program's name.
    """
    command = " ".join(words[:2])
    typed = type(error)(error.problem, where=type_place(error.where, words), cure=error.cure)
    return "\n".join(
        type_cure(line, command=command) if line.lstrip().startswith("cure:") else line
        for line in str(typed).split("\n")
    )


def type_place(where: str, words: Sequence[str]) -> str:
    """Return a place that names the flags that were typed in place of an argument of Python.

    Examples
    --------
    >>> type_place("between, for bars.csv", ["run", "--from", "2021"])
    '--from, for bars.csv'
    >>> type_place("interval", ["run", "mine.toml"])
    'interval'
    >>> type_place("backtest liq: bt.calculate_liquidation, side", ["liq", "--side", "lon"])
    'backtest liq: --side'
    """
    where = where.replace("bt.calculate_liquidation, ", "")
    where = re.sub(r"^resample\('[^']*'\)", "resample", where)
    lead, colon, rest = where.rpartition(": ")
    return lead + colon + _type_word(rest, words)


def _type_word(where: str, words: Sequence[str]) -> str:
    """Return a place of one argument as the flags of it that were typed."""
    given = {word.partition("=")[0] for word in words}
    for lead, flags in _PLACES.items():
        rest = where.removeprefix(lead)
        said = ", ".join(flag for flag in flags if flag in given)
        if said and rest != where and rest[:1] in ("", ",", ":"):
            return said + rest
    return where
