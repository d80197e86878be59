"""Venue presets: dated tables with sources, from the package or from a user's TOML file.

There is one TOML file per venue, in ``backtest/venue/presets`` or of the user's own. Each symbol is
a table of groups (``contract``, ``fees``, ``slippage``, ``liquidation``, ``brackets``, ``rules``,
``funding``). A group has a date and a source, and may be an array of such tables, oldest first.
``[common]`` holds the groups that symbols share. The date of a group is the day it came into force
or, if the source does not say that, the day it was read. The table in force at a day is the last
one dated on or before it. Presets are not updated automatically.
"""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base import (
    Either,
    Phrase,
    TimeLike,
    VenueError,
    did_you_mean,
    format_time,
    is_path,
    repr_plain,
    to_nanoseconds,
)
from backtest.venue.preset_schema import GROUPS, NEEDED, find_defects
from backtest.venue.tier_tables import TIERS, add_own_groups, read_tier_tables

FOLDER = Path(__file__).with_name("presets")
SUFFIX = ".toml"
COMMON = "common"
BUILD_VENUE = Either(", or build a Venue from its parts", "")
HISTORY, LATEST = "history", "latest"
"""Choices other than a day: the margin tables of all days, or only the newest of each group."""

Group = dict[str, Any]


class Preset(NamedTuple):
    """One symbol of one venue, with the date and source of its newest margin table.

    ``dates`` lists the days of all its margin tables, oldest first.
    """

    venue: str
    symbol: str
    title: str
    date: str
    source: str
    dates: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name for the flag ``--venue``."""
        return f"{self.venue}:{self.symbol}"


class PresetName(NamedTuple):
    """A parsed ``venue:SYMBOL@date``; ``at`` is None without ``@``, for the tables of all days."""

    venue: str
    symbol: str
    at: str | None

    def is_before(self, date: str) -> bool:
        """Whether ``at`` is a day before ``date``."""
        return self.at not in (None, HISTORY, LATEST) and str(self.at) < date


class GroupSource(NamedTuple):
    """The source of one group of a preset, and the day it came into force (or was read).

    ``until`` is the day of the next table of that group, None for the newest.
    """

    group: str
    date: str
    source: str
    until: str | None


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
    """Return every preset of one venue, or of one file."""
    return [_make_preset(venue, symbol, groups) for symbol, groups in _load(venue).items()]


def to_markdown() -> str:
    """Return the presets as a Markdown table: symbols with the days of their margin tables."""
    lines = ["| venue | symbols, with the days of their margin tables |", "|---|---|"]
    for venue in _venues():
        alike = [
            f"{', '.join(f'`{each.symbol}`' for each in group)} ({', '.join(group[0].dates)})"
            for group in group_alike(in_file(venue))
        ]
        lines.append(f"| `{venue}` | {'; '.join(alike)} |")
    return "\n".join(lines)


def group_alike(presets: Sequence[Preset]) -> list[list[Preset]]:
    """Return presets in groups of the same venue, days and source, in their order."""
    groups: dict[tuple[object, ...], list[Preset]] = {}
    for each in presets:
        groups.setdefault((each.venue, each.dates, each.source), []).append(each)
    return [*groups.values()]


def _make_preset(venue: str, symbol: str, groups: Mapping[str, Any]) -> Preset:
    tables = groups["brackets"]
    dates = tuple(table["date"] for table in tables)
    return Preset(venue, symbol, groups["title"], dates[-1], tables[-1]["source"], dates)


def parse_name(text: str, *, where: str) -> PresetName:
    """Parse ``venue:SYMBOL`` or ``venue:SYMBOL@2021-05-19``.

    Raises VenueError if it is not a venue and a symbol, or the date is invalid.

    Examples
    --------
    >>> parse_name("binance-usdm:BTCUSDT@2021-05-19", where="doc")
    PresetName(venue='binance-usdm', symbol='BTCUSDT', at='2021-05-19')
    """
    pair, at_sign, date = str(text).rpartition("@")
    if not at_sign or SUFFIX in date:  # no date, or the sign is part of a path
        pair, at_sign, date = str(text), "", ""
    venue, colon, symbol = pair.rpartition(":")
    if venue and colon and symbol and (date or not at_sign):
        return PresetName(venue, symbol, read_at(date, where=where) if date else None)
    known = [each.name for each in available()]
    own = [each for each in known if each.startswith(f"{pair}:")]
    own = own or [each for each in known if pair and each.startswith(pair)]
    hint = "" if own else did_you_mean(text, known)
    raise VenueError(
        f"a preset is a venue, a colon and a symbol, got {text!r}{hint}",
        where=where,
        cure=f"choose one of {name_some(own or known)}, with @DATE for the tables of that day, "
        f"@{LATEST} for the newest, or FILE{SUFFIX}:SYMBOL",
    )


def read_at(text: str, *, where: str) -> str:
    """Return the text after an ``@``, checked: a day, ``"history"`` or ``"latest"``."""
    return text if text in (HISTORY, LATEST) else read_day(text, where=where)


def split_day(symbol: str, at: TimeLike | None) -> tuple[str, TimeLike | None]:
    """Return the symbol and the choice of ``SYMBOL@DATE``; ``at`` is the one of a plain symbol.

    Raises VenueError if both are given.
    """
    name, sign, date = symbol.partition("@")
    if not sign:
        return symbol, at
    if at is not None or not date:
        raise VenueError(
            f"the day of a preset must be given once, got {symbol!r} and at={at!r}",
            where="Venue.preset",
            cure=f"write {name}@2021-05-19, or give at='2021-05-19'",
        )
    return name, read_at(date, where=f"Venue.preset, {symbol}")


def read_day(at: TimeLike | dt.date, *, where: str) -> str:
    """Return the day of a time in UTC, as ``2021-05-19``."""
    time = str(at) if isinstance(at, dt.date) and not isinstance(at, dt.datetime) else at
    return format_time(to_nanoseconds(time, where=where))[:10]


# ------------------------------------------------------------------------------------ one of them


def origins(venue: str, symbol: str, at: TimeLike | None = None) -> list[GroupSource]:
    """Return the source of each group of a preset that is in force at a day.

    Raises VenueError if there is no such venue or symbol.
    """
    tables = _find(venue, symbol)
    day = _read_choice(at)
    found = ((group, *_choose(tables[group], day)) for group in GROUPS if group in tables)
    return [GroupSource(group, table["date"], table["source"], end) for group, table, end in found]


def read_preset(venue: str, symbol: str, at: TimeLike | None = None) -> dict[str, Any]:
    """Return one preset as plain data for ``Venue.from_dict``.

    ``venue`` and ``at`` are those of :meth:`backtest.Venue.preset`.

    Raises VenueError if there is no such venue or symbol.
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


def check_list(symbols: object) -> list[str]:
    """Return a list of symbols, each named once."""
    names = list(symbols) if isinstance(symbols, list | tuple) else []
    plain = {each.partition("@")[0] for each in names if isinstance(each, str)}
    if not names or len(plain) < len(names):
        raise VenueError(
            f"symbol must be a name, or a list of different names, got {repr_plain(symbols)}",
            where="Venue.preset",
            cure="give ['BTCUSDT', 'ETHUSDT'] for a table of venues by name",
        )
    return names


def _list_rows(table: Group) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def group_at(venue: str, symbol: str, group: str, at: TimeLike | None) -> Group | None:
    """Return the table of one group in force at a day; None if the symbol has no such group."""
    tables = _find(venue, symbol)
    return _choose(tables[group], _read_choice(at))[0] if group in tables else None


def is_history(at: TimeLike | None) -> bool:
    """Whether a choice stands for the margin tables of all days."""
    return at is None or (isinstance(at, str) and at == HISTORY)


def _read_choice(at: TimeLike | None) -> str | None:
    is_word = isinstance(at, str) and at in (HISTORY, LATEST)
    return None if at is None or is_word else read_day(at, where="at")


def _choose(tables: list[Group], day: str | None) -> tuple[Group, str | None]:
    begun = [k for k, table in enumerate(tables) if day is None or table["date"] <= day]
    k = begun[-1] if begun else 0
    return tables[k], tables[k + 1]["date"] if k + 1 < len(tables) else None


def _strip(table: Group) -> Group:
    return {name: value for name, value in table.items() if name not in ("date", "source")}


def _find(venue: str, symbol: str) -> dict[str, Any]:
    symbols = _load(venue)
    if symbol not in symbols:
        raise VenueError(
            f"symbol must be one that {venue} has a table for, got {symbol!r}"
            + did_you_mean(str(symbol).upper(), symbols),
            where=f"Venue.preset({venue!r}, ...)",
            cure=Phrase("{}{}", cure_missing_symbol(venue, symbol, [*symbols]), BUILD_VENUE),
        )
    found: dict[str, Any] = symbols[symbol]
    return found


# --------------------------------------------------------------------------------- reading a file


def read_tables(venue: str | Path) -> dict[str, dict[str, Any]]:
    """Return the content of a venue's file: by symbol its title and its groups of dated tables."""
    return copy.deepcopy(_load(str(venue)))


def _venues() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def _load(venue: str) -> dict[str, dict[str, Any]]:
    path = Path(venue) if str(venue).endswith(SUFFIX) else FOLDER / f"{venue}{SUFFIX}"
    if not is_path(path) or not path.is_file():
        raise _unknown_venue(venue)
    return _parse(path, path.stat().st_mtime_ns)


def _unknown_venue(venue: str) -> VenueError:
    if str(venue).endswith(SUFFIX):
        return VenueError(
            f"a file of venue tables is needed, {str(venue)!r} does not exist",
            where=f"Venue.preset({venue!r}, ...), searched from {Path.cwd()}",
            cure="give the path of a file that 'backtest venues import' wrote",
        )
    venues = _venues()
    return VenueError(
        f"venue must be a known preset, got {venue!r}" + did_you_mean(str(venue).lower(), venues),
        where="Venue.preset",
        cure=Phrase("choose one of {}{}", ", ".join(venues), BUILD_VENUE),
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
    shared = content.pop(TIERS, None) if path.parent == FOLDER else None
    listed = {} if shared is None else read_tier_tables(path.with_suffix(".csv"), shared)
    own = {
        symbol: _as_lists({**common, **_check_table(table, f"{path.name}, {symbol}")})
        for symbol, table in content.items()
    }
    listed = {symbol: {**_as_lists(common), **groups} for symbol, groups in listed.items()}
    symbols = {
        symbol: add_own_groups(listed.get(symbol, {}), own.get(symbol, {}))
        for symbol in {**own, **listed}
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
            cure="see the files in backtest/venue/presets",
        )
    return symbols


def _check_table(table: object, where: str) -> Mapping[str, Any]:
    if isinstance(table, Mapping):
        return table
    raise VenueError(
        f"a symbol must be a table of groups, got {table!r:.60}",
        where=where,
        cure=f"write [SYMBOL.{NEEDED[0]}] and the other groups",
    )


def _as_lists(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if name == "title" or isinstance(value, list) else [value]
        for name, value in table.items()
    }


ASKED = ("bybit", "okx")
"""Exchanges that give their leverage tiers to anyone; others ask for a key."""


def name_some(names: Sequence[str]) -> str:
    """Return names as text: all of up to a dozen, else the first ten and where the rest are.

    Examples
    --------
    >>> name_some([str(k) for k in range(60)])
    "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 50 more ('backtest venues' lists them)"
    """
    if len(names) <= 12:
        return ", ".join(names)
    return f"{', '.join(names[:10])} and {len(names) - 10} more ('backtest venues' lists them)"


def cure_missing_symbol(venue: str, symbol: str, known: Sequence[str]) -> str:
    """Return what to do about a symbol without a table: the known ones, and the import."""
    asked = next((f"--exchange {each}" for each in ASKED if str(venue).startswith(each)), "")
    dollars = re.fullmatch(r"([A-Z0-9]+)[-_/]?(USD[TC])(-SWAP)?", str(symbol).upper())
    name = f"{dollars[1]}/{dollars[2]}:{dollars[2]}" if dollars else "BASE/QUOTE:SETTLEMENT"
    return (
        f"choose one of {name_some(known)}; or import its leverage tiers as ccxt has them: "
        f"backtest venues import {asked or 'tiers.json'} --venue mine --symbol {name} "
        f"--like {venue}:{known[0]}"
    )
