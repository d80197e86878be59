"""The venue tables that come with the package, or lie in a user's file: dated, with sources.

One TOML file per venue, in ``backtest/venues`` or of the user's own. A symbol is a table; each
group of its figures (``contract``, ``fees``, ``slippage``, ``liquidation``, ``brackets``,
``rules``, ``funding``) carries a date and a source, and may be an array of such tables, oldest
first. ``[common]`` holds the groups that symbols share. A group's date is the day its figures
came into force where the source says it, else the day they were read: so the one in force at a
day is the last that is dated on or before it. Nothing here renews itself.
"""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.errors import VenueError, did_you_mean
from backtest.base.units import TimeLike, format_time, to_nanoseconds
from backtest.venue.preset_schema import GROUPS, NEEDED, find_defects

FOLDER = Path(__file__).with_name("venues")
SUFFIX = ".toml"
COMMON = "common"
HISTORY, LATEST = "history", "latest"
"""In place of a day: the newest of each group, with the margin tables of all days, or alone."""

Group = dict[str, Any]


class Preset(NamedTuple):
    """One symbol of one venue; ``date`` and ``source`` are those of its newest margin table.

    ``dates`` are those of all its margin tables, oldest first.
    """

    venue: str
    symbol: str
    title: str
    date: str
    source: str
    dates: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is written for ``--venue``."""
        return f"{self.venue}:{self.symbol}"


class Name(NamedTuple):
    """What ``venue:SYMBOL@date`` says; ``at`` is None where there is no ``@``: the history."""

    venue: str
    symbol: str
    at: str | None

    def is_before(self, date: str) -> bool:
        """Tell whether a day is asked for, and it lies before another."""
        return self.at not in (None, HISTORY, LATEST) and str(self.at) < date


class Origin(NamedTuple):
    """Where one group of a preset's figures comes from, and the day they held (or were read).

    ``until`` is the day of the next table of that group, None for the newest.
    """

    group: str
    date: str
    source: str
    until: str | None


class FundingTerms(NamedTuple):
    """How a venue makes its funding rate: of :func:`backtest.funding.rate`.

    ``interval`` is the time between settlements and ``period`` the one that ``interest``,
    ``clamp`` and the rate are of; ``cap`` is the largest payment of one interval, of either sign.
    """

    interval: str
    period: str
    interest: float
    clamp: float
    cap: float
    date: str
    source: str


# ------------------------------------------------------------------------------------ what there is


def available() -> list[Preset]:
    """Return every preset of the package, by venue and symbol.

    Examples
    --------
    >>> "binance-usdm:BTCUSDT" in [preset.name for preset in available()]
    True
    """
    return [each for venue in _venues() for each in in_file(venue)]


def in_file(venue: str) -> list[Preset]:
    """Return every preset of one venue, or of one file.

    Raises
    ------
    VenueError
        If there is no such venue, or its file is no table of presets.
    """
    return [_describe(venue, symbol, groups) for symbol, groups in _load(venue).items()]


def to_markdown() -> str:
    """Return the presets as a table: of each symbol the days of its margin tables."""
    lines = ["| venue | symbols, with the days of their margin tables |", "|---|---|"]
    for venue in _venues():
        symbols = (f"`{each.symbol}` ({', '.join(each.dates)})" for each in in_file(venue))
        lines.append(f"| `{venue}` | {', '.join(symbols)} |")
    return "\n".join(lines)


def _describe(venue: str, symbol: str, groups: Mapping[str, Any]) -> Preset:
    tables = groups["brackets"]
    dates = tuple(table["date"] for table in tables)
    return Preset(venue, symbol, groups["title"], dates[-1], tables[-1]["source"], dates)


def parse_name(text: str, *, where: str) -> Name:
    """Return what ``venue:SYMBOL`` or ``venue:SYMBOL@2021-05-19`` says.

    Raises
    ------
    VenueError
        If it is not a pair, or the date is none.

    Examples
    --------
    >>> parse_name("binance-usdm:BTCUSDT@2021-05-19", where="doc")
    Name(venue='binance-usdm', symbol='BTCUSDT', at='2021-05-19')
    """
    pair, at_sign, date = str(text).rpartition("@")
    if not at_sign or SUFFIX in date:  # none, or a sign inside a path
        pair, at_sign, date = str(text), "", ""
    venue, colon, symbol = pair.rpartition(":")
    if venue and colon and symbol and (date or not at_sign):
        return Name(venue, symbol, read_at(date, where=where) if date else None)
    known = [each.name for each in available()]
    own = [each for each in known if each.startswith(f"{pair}:")]
    hint = "" if own else did_you_mean(text, known)
    known = own or known
    raise VenueError(
        f"a preset is a venue, a colon and a symbol, was {text!r}{hint}",
        where=where,
        cure=f"choose one of {', '.join(known)}, with @DATE for that day's tables alone, @{LATEST} "
        f"for the newest alone, or FILE{SUFFIX}:SYMBOL",
    )


def read_at(text: str, *, where: str) -> str:
    """Return what stands after an ``@``: a day, ``"history"`` or ``"latest"``.

    Raises
    ------
    ParameterError
        If it is none of these.
    """
    return text if text in (HISTORY, LATEST) else read_day(text, where=where)


def read_day(at: TimeLike | dt.date, *, where: str) -> str:
    """Return a day as ``2021-05-19``, that of a time in UTC.

    Raises
    ------
    ParameterError
        If it is no time.
    """
    time = str(at) if isinstance(at, dt.date) and not isinstance(at, dt.datetime) else at
    return format_time(to_nanoseconds(time, where=where))[:10]


# ------------------------------------------------------------------------------------ one of them


def origins(venue: str, symbol: str, at: TimeLike | None = None) -> list[Origin]:
    """Return the date and source of each group of a preset's figures in force at a day.

    Raises
    ------
    VenueError
        If there is no such venue or symbol.
    """
    tables = _find(venue, symbol)
    day = _read_choice(at)
    found = ((group, *_choose(tables[group], day)) for group in GROUPS if group in tables)
    return [Origin(group, table["date"], table["source"], end) for group, table, end in found]


def read(venue: str, symbol: str, at: TimeLike | None = None) -> dict[str, Any]:
    """Return the plain data of one preset, as ``Venue.from_dict`` reads them.

    Parameters
    ----------
    venue : str
        One of the package's, or the path of a TOML file.
    symbol : str
        The symbol.
    at : str or Timestamp, optional
        Default, or ``"history"``: of every group the newest table, and the margin tables before
        it. A day in UTC: of every group the last table dated on or before it, or the oldest where
        all are later. ``"latest"``: the newest of each.

    Raises
    ------
    VenueError
        If there is no such venue or symbol.
    """
    tables = _find(venue, symbol)
    day = _read_choice(at)
    chosen = {group: _choose(tables[group], day) for group in GROUPS if group in tables}
    data = {group: _strip(table) for group, (table, _) in chosen.items() if group != "funding"}
    rules = data.pop("rules", {})
    table, until = chosen["brackets"]
    in_force = {"preset": f"{Path(venue).stem}:{symbol}", "since": table["date"], "until": until}
    history = {}
    dated = tables["brackets"]
    if is_history(at) and len(dated) > 1:
        in_force["since"] = dated[0]["date"]
        history["earlier"] = [
            {"until": after["date"], "brackets": _list_rows(before)}
            for before, after in itertools.pairwise(dated)
        ]
    return {
        **data,
        **rules,
        "brackets": _list_rows(table),
        "in_force": {name: value for name, value in in_force.items() if value is not None},
        **history,
    }


def _list_rows(table: Group) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def funding_terms(venue: str, symbol: str, at: TimeLike | None = None) -> FundingTerms | None:
    """Return how the venue makes its funding rate; None where it has none, or none is known.

    Raises
    ------
    VenueError
        If there is no such venue or symbol.

    Examples
    --------
    >>> terms = funding_terms("binance-usdm", "BTCUSDT")
    >>> terms.interval, terms.interest, terms.clamp
    ('8h', 0.0001, 0.0005)
    """
    tables = _find(venue, symbol)
    if "funding" not in tables:
        return None
    table, _ = _choose(tables["funding"], _read_choice(at))
    interval: str = table["interval"]
    return FundingTerms(
        interval,
        str(table.get("period", interval)),
        float(table["interest"]),
        float(table["clamp"]),
        float(table.get("cap", "inf")),
        table["date"],
        table["source"],
    )


def is_history(at: TimeLike | None) -> bool:
    """Tell whether the margin tables of all days are asked for, and not those of one."""
    return at is None or at == HISTORY


def _read_choice(at: TimeLike | None) -> str | None:
    """Return the day that is asked for; None for the newest of each group."""
    return None if at is None or at in (HISTORY, LATEST) else read_day(at, where="at")


def _choose(tables: list[Group], day: str | None) -> tuple[Group, str | None]:
    """Return the table in force at a day, and the day of the next one."""
    begun = [k for k, table in enumerate(tables) if day is None or table["date"] <= day]
    k = begun[-1] if begun else 0
    return tables[k], tables[k + 1]["date"] if k + 1 < len(tables) else None


def _strip(table: Group) -> Group:
    return {name: value for name, value in table.items() if name not in ("date", "source")}


def _find(venue: str, symbol: str) -> dict[str, Any]:
    symbols = _load(venue)
    if symbol not in symbols:
        raise VenueError(
            f"symbol must be one that {venue} has a table for, was {symbol!r}"
            + did_you_mean(str(symbol).upper(), symbols),
            where=f"Venue.preset({venue!r}, ...)",
            cure=f"choose one of {', '.join(symbols)}, or build a Venue from its parts",
        )
    found: dict[str, Any] = symbols[symbol]
    return found


# --------------------------------------------------------------------------------- reading a file


def read_tables(venue: str | Path) -> dict[str, dict[str, Any]]:
    """Return all that a venue's file says: by symbol the title, and by group the dated tables.

    Raises
    ------
    VenueError
        If there is no such venue, or its file is no table of presets.
    """
    return copy.deepcopy(_load(str(venue)))


def _venues() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def _load(venue: str) -> dict[str, dict[str, Any]]:
    """Return the symbols of a venue: of each its title, and its groups as lists by date."""
    path = Path(venue) if str(venue).endswith(SUFFIX) else FOLDER / f"{venue}{SUFFIX}"
    if not path.is_file():
        raise _refuse(venue)
    return _parse(path, path.stat().st_mtime_ns)


def _refuse(venue: str) -> VenueError:
    """Return the error of a venue that there is not."""
    if str(venue).endswith(SUFFIX):
        return VenueError(
            f"a file of venue tables must be there, {str(venue)!r} does not exist",
            where=f"Venue.preset({venue!r}, ...), searched from {Path.cwd()}",
            cure="give the path of a file that 'backtest venues import' wrote",
        )
    venues = _venues()
    return VenueError(
        f"venue must be a known preset, was {venue!r}" + did_you_mean(str(venue).lower(), venues),
        where="Venue.preset",
        cure=f"choose one of {', '.join(venues)}, or build a Venue from its parts",
    )


@lru_cache(maxsize=64)
def _parse(path: Path, changed: int) -> dict[str, dict[str, Any]]:  # noqa: ARG001 - part of the key
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VenueError(
            f"a file of venue tables must be TOML: {error}", where=str(path), cure="mend that line"
        ) from error
    common = content.pop(COMMON, {})
    symbols = {
        symbol: _read_symbol({**common, **_check_table(table, f"{path.name}, {symbol}")})
        for symbol, table in content.items()
    }
    defects = [
        f"[{symbol}] {defect}"
        for symbol, groups in symbols.items()
        for defect in find_defects(groups)
    ]
    if defects or not symbols:
        raise VenueError(
            "a file of venue tables must have a symbol, each with dated groups:\n  "
            + "\n  ".join(defects or ["it has none"]),
            where=str(path),
            cure="see the files in backtest/venues",
        )
    return symbols


def _check_table(table: object, where: str) -> Mapping[str, Any]:
    if isinstance(table, Mapping):
        return table
    raise VenueError(
        f"a symbol must be a table of groups, was {table!r:.60}",
        where=where,
        cure=f"write [SYMBOL.{NEEDED[0]}] and the other groups",
    )


def _read_symbol(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a symbol's title and groups, each group a list of dated tables."""
    return {
        name: value if name == "title" or isinstance(value, list) else [value]
        for name, value in table.items()
    }
