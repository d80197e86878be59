"""Venue presets: dated tables with sources, from the package or from a user's file.

There is one TOML or JSON file per venue, in ``backtest/venue/presets`` or of the user's own. Each
symbol has a title and groups: ``contract``, ``fees``, ``slippage`` and ``liquidation`` have the
fields of these parts of a :class:`~backtest.Venue`, ``brackets`` a list of them, ``rules`` other
fields of the venue, ``funding`` those of :class:`~backtest.venue.funding.FundingTerms`. A group has
a date and a source, and may be a list of such tables, oldest first. ``common`` holds the groups
that symbols share. The date of a group is the day it came into force or, if the source does not say
that, the day it was read. The table in force at a day is the last one dated on or before it.
Presets are not updated automatically.
"""

from __future__ import annotations

import datetime as dt
import difflib
import itertools
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from backtest import core
from backtest.core import Declaration, Fault, Text, TimeLike, Value, VenueError, did_you_mean
from backtest.market.names import is_listed, split_pair

FOLDER = Path(__file__).with_name("presets")
SUFFIXES = (".toml", ".json")
COMMON = "common"
LATEST = "latest"
"""In place of a day: only the newest table of each group."""
GROUPS = ("contract", "fees", "slippage", "liquidation", "brackets", "rules", "funding")

Group = dict[str, Any]


class Tables(Declaration):
    """A list of tables with a date and a source, oldest first, or one of them."""

    def read(self, value: Any) -> tuple[Group, ...]:
        """Return tables with a date and a source, the earliest first.

        ``value`` is a list of them, by rising dates, or a single table. Raises Fault if a table
        lacks its date or its source, or if dates do not rise.
        """
        tables = value
        if isinstance(value, Mapping):
            tables = [value]
        is_list = isinstance(tables, list | tuple)
        if not is_list or not all(isinstance(table, Mapping) for table in tables):
            raise Fault("must be a table with a date and a source, or a list of them")

        try:
            dates = [dt.date.fromisoformat(table.get("date")).isoformat() for table in tables]
        except (TypeError, ValueError):
            raise Fault("must have a date such as '2021-05-19' in each table") from None
        if not all(str(table.get("source", "")).strip() for table in tables):
            raise Fault("must have a source in each table")
        if dates != sorted(set(dates)):
            raise Fault("must have tables of rising dates", ", ".join(dates))

        # Dates may be written in other ways of ISO 8601, such as 20210519.
        return tuple({**table, "date": date} for table, date in zip(tables, dates, strict=True))


class VenueTables(Value, kw_only=True):
    title: Annotated[str, Text()]
    contract: Annotated[Sequence[Group], Tables()]
    fees: Annotated[Sequence[Group], Tables()]
    slippage: Annotated[Sequence[Group], Tables()]
    liquidation: Annotated[Sequence[Group], Tables()]
    brackets: Annotated[Sequence[Group], Tables()]
    rules: Annotated[Sequence[Group], Tables()] = ()
    funding: Annotated[Sequence[Group], Tables()] = ()

    def choose(self, day: str | None) -> dict[str, tuple[Group, str | None]]:
        """Return the table of each group in force on a day, and the day of the next one."""
        chosen = {}
        for group in GROUPS:
            tables = getattr(self, group)
            if tables:
                chosen[group] = choose_table(tables, day)
        return chosen

    @property
    def dates(self) -> tuple[str, ...]:
        return tuple(table["date"] for table in self.brackets)


class Preset(NamedTuple):
    """A symbol of a venue; date and source are those of its newest margin table."""

    venue: str
    symbol: str
    title: str
    date: str
    source: str
    dates: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.venue}:{self.symbol}"


class PresetName(NamedTuple):
    """A parsed ``venue:SYMBOL@date``; ``at`` is None without ``@``, for the tables of all days."""

    venue: str
    symbol: str
    at: str | None


class GroupSource(NamedTuple):
    group: str
    date: str
    source: str
    until: str | None


def available() -> list[Preset]:
    presets = []
    for venue in find_files():
        for symbol, read in read_tables(venue).items():
            tables = read()
            newest = tables.brackets[-1]
            presets.append(
                Preset(
                    venue=venue,
                    symbol=symbol,
                    title=tables.title,
                    date=tables.dates[-1],
                    source=newest["source"],
                    dates=tables.dates,
                )
            )
    return presets


def group_alike(presets: Sequence[Preset]) -> list[list[Preset]]:
    """Return presets by venue, dates and source of their margin tables."""
    groups: dict[tuple[object, ...], list[Preset]] = {}
    for preset in presets:
        key = (preset.venue, preset.dates, preset.source)
        groups.setdefault(key, []).append(preset)
    return [*groups.values()]


def split_day(text: str) -> tuple[str, str | None]:
    """Return a name, and the day after its last ``@``, None if there is none."""
    name, sign, date = text.rpartition("@")
    if not sign or any(suffix in date for suffix in SUFFIXES):  # the sign is part of a path
        return text, None
    return name, date and read_day(date)


def parse_name(text: str) -> PresetName:
    """Return the venue, symbol and day in the name of a preset, ``venue:SYMBOL@day``.

    The day is None without one. Raises VenueError, with near names, for a text that is no such
    name.
    """
    pair, day = split_day(str(text))
    venue, colon, symbol = pair.rpartition(":")
    # A day that is empty was left out after its sign.
    if venue and colon and symbol and day != "":
        return PresetName(venue, symbol, day)

    names = [preset.name for preset in available()]
    longer = [name for name in names if text and name.startswith(text)]
    hint = did_you_mean(text, names)
    if longer:
        hint = f" (did you mean {longer[0]!r}?)"
    raise VenueError(
        f"a preset is a venue, a colon and a symbol, got {text!r}{hint}; 'backtest venues' lists "
        f"them, @2021-05-19 after one selects the tables of that day, @{LATEST} the newest"
    )


def read_day(at: TimeLike | dt.date | None) -> str | None:
    """Return the UTC day of a time as a text, 2021-05-19; ``"latest"`` and None as they are."""
    if at is None or (isinstance(at, str) and at == LATEST):
        return at

    # A date of Python has no time of day: its text is read as midnight of UTC.
    time: Any = at
    if isinstance(at, dt.date) and not isinstance(at, dt.datetime):
        time = str(at)
    stamp = core.to_nanoseconds(time, "the day of a preset")
    return core.format_time(stamp)[:10]


def origins(venue: str, symbol: str, at: TimeLike | None = None) -> list[GroupSource]:
    chosen = find_preset(venue, symbol).choose(read_day(at))
    sources = []
    for group, (table, until) in chosen.items():
        sources.append(GroupSource(group, table["date"], table["source"], until))
    return sources


def read_preset(venue: str, symbol: str, at: TimeLike | None = None) -> dict[str, Any]:
    """Return the fields of a venue as plain data, from a preset of the package or a user's file.

    ``at`` is the day whose tables count, ``"latest"`` for the newest. Without it the newest count,
    and margin tables of earlier days are given as ``earlier``.
    """
    tables = find_preset(venue, symbol)
    chosen = tables.choose(read_day(at))

    # The groups of fields, such as fees. ``rules`` are fields of the venue itself, and how often
    # funding is paid is none.
    data: dict[str, Any] = {}
    for group, (table, _) in chosen.items():
        if group != "funding":
            data[group] = {name: table[name] for name in table if name not in ("date", "source")}
    data |= data.pop("rules", {})

    # The brackets of the day, or the newest ones.
    newest, until = chosen["brackets"]
    in_force = {"preset": f"{Path(venue).stem}:{symbol}", "since": newest["date"], "until": until}
    data["brackets"] = newest["brackets"]
    data["in_force"] = in_force

    # Without a day, those before them too: each holds until the date of the next one.
    if at is None and len(tables.brackets) > 1:
        in_force["since"] = tables.dates[0]
        data["earlier"] = []
        for table, later in itertools.pairwise(tables.brackets):
            data["earlier"].append({"until": later["date"], "brackets": table["brackets"]})
    return data


def choose_table(tables: Sequence[Group], day: str | None) -> tuple[Group, str | None]:
    """Return the table in force on a day, and the day of the next one, None if it is the last.

    ``tables`` are dated, the oldest first. Without a day the last one is in force, before the first
    day the first one.
    """
    chosen = 0  # the first, for a day before it
    for k, table in enumerate(tables):
        if day in (None, LATEST) or table["date"] <= str(day):
            chosen = k
    if chosen + 1 == len(tables):
        return tables[chosen], None
    return tables[chosen], tables[chosen + 1]["date"]


def find_preset(venue: str, symbol: str) -> VenueTables:
    symbols = read_tables(venue)
    if symbol not in symbols:
        near = suggest_symbol(str(symbol).upper(), symbols)
        raise VenueError(
            f"symbol must be one that {venue} has a table for, got {symbol!r}{near}; 'backtest "
            "venues' lists them, --venue file:LISTING.json (Venue.read() in Python) gives others, "
            "or --venue auto where venue.json lies beside the bars"
        )
    return symbols[symbol]()


def suggest_symbol(symbol: str, known: Iterable[str]) -> str:
    """Return a near symbol as a question, or nothing; COMPUSDT is no slip for OPUSDT.

    Of a coin that venues list, only symbols of that coin are near. Else the coins are compared, as
    two names of one quote currency are alike by their ends.
    """
    coin, quote = split_pair(symbol)
    if not coin:
        return did_you_mean(symbol, known)

    symbols = {}
    for name in known:
        known_coin, known_quote = split_pair(name)
        if known_coin == coin:
            return did_you_mean(symbol, [name])
        if known_quote == quote and abs(len(known_coin) - len(coin)) <= 1:
            symbols[known_coin] = name
    near = []
    if not is_listed(coin):
        near = difflib.get_close_matches(coin, [*symbols], n=1, cutoff=0.6)
    if not near:
        return ""
    return f" (did you mean {symbols[near[0]]!r}?)"


def find_files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.iterdir()) if path.suffix in SUFFIXES}


def read_tables(venue: str) -> dict[str, Callable[[], VenueTables]]:
    """Return for each symbol of a venue a function that reads its tables.

    ``venue`` is the name of a preset, or the path of a user's file in the same form. The tables of
    a symbol are checked when its function is called. Raises VenueError if there is no such file or
    preset.
    """
    if str(venue).endswith(SUFFIXES):
        path = Path(venue)
        if not core.is_path(path) or not path.is_file():
            raise VenueError(f"venue file {str(venue)!r} does not exist in {Path.cwd()}")
        return read_file(path, path.stat().st_mtime_ns)

    files = find_files()
    if venue not in files:
        hint = did_you_mean(str(venue).lower(), files)
        raise VenueError(
            f"venue must be a known preset, got {venue!r}{hint}; known are {', '.join(files)}"
        )
    return read_file(files[venue], files[venue].stat().st_mtime_ns)


@lru_cache(maxsize=64)
def read_file(path: Path, changed: int) -> dict[str, Callable[[], VenueTables]]:  # noqa: ARG001 - part of the key
    """Return by symbol the function that reads its tables from a file, and checks them.

    So a file of hundreds of symbols is read at once, and only the tables that are used are checked.
    ``changed`` is when the file was written: a new one is read again.
    """
    content = parse_file(path)
    tables: dict[str, Any] = {}
    if isinstance(content, Mapping):
        tables = dict(content)
    common = tables.pop(COMMON, {})
    if not tables or not isinstance(common, Mapping):
        raise VenueError(
            f"{path} must have a table for at least one symbol, and {COMMON!r} must be a table"
        )

    readers: dict[str, Callable[[], VenueTables]] = {}
    for name, table in tables.items():
        whole = table
        if isinstance(table, Mapping):
            whole = {**common, **table}
        read = partial(VenueTables.from_dict, whole, where=f"{path.name}: {name}")
        readers[name] = cache(read)
    return readers


def parse_file(path: Path) -> Any:
    """Return the content of a TOML or JSON file; raise VenueError if it is none."""
    try:
        text = core.decode_text(path.read_bytes())
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=core.read_object)
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise VenueError(f"{path} must be {path.suffix[1:].upper()}: {error}") from error
