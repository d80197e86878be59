"""Which file holds what: our own folders, freqtrade's, Binance's archive, or single files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest import core
from backtest.core import DataError, ParameterError, did_you_mean, format_duration, parse_duration
from backtest.market.files import SUFFIXES, check_exists, stem_of, suffix_of
from backtest.market.read_options import ReadOptions

ROLES = ("bars", "mark", "funding")
_FREQTRADE = re.compile(
    r"(?P<pair>[^-]+)-(?P<timeframe>\d+[smhdwM])-(?P<kind>futures|mark|funding_rate)"
)
_KINDS = {"futures": "bars", "mark": "mark", "funding_rate": "funding"}
_BINANCE = re.compile(
    r"(?P<pair>[A-Z0-9]+(_[A-Z0-9]+)?)-(?P<what>\d+(?:mo|[smhdw])|fundingRate)"
    r"-(?P<date>\d{4}-\d\d(-\d\d)?)"
)
MONTHS = ("mo", "M")
"""Ends of the lengths of bars that are calendar months."""
_OTHER_KLINES = frozenset({"indexPriceKlines", "premiumIndexKlines"})
_FACTS: Mapping[str, type] = {
    **dict.fromkeys(("instrument", "interval"), str),
    **dict.fromkeys(("synthetic", "sessions"), bool),
    "filled": dict,
}
WORDS_OF_TYPES = {str: "text", bool: "true or false", dict: "an object"}
_CURE = (
    "name the files bars.*, mark.* and funding.* (parquet, feather or csv), keep freqtrade's "
    "names (BTC_USDT_USDT-1h-futures.feather) or Binance's (BTCUSDT-1h-2021-01.zip), or give the "
    "path of one file of bars"
)


class NamedFile(NamedTuple):
    """A file by its name; ``pair`` is empty if it is neither freqtrade's nor of the archive."""

    path: Path
    role: str
    pair: str = ""
    timeframe: str = ""
    is_archive: bool = False

    @property
    def instrument(self) -> str:
        if self.is_archive:
            return self.pair
        return "".join(self.pair.split("_")[:2])

    @property
    def names(self) -> tuple[str, ...]:
        """What the instrument may be called: BTCUSDT, BTC_USDT_USDT or BTC/USDT:USDT."""
        parts = self.pair.split("_")
        if len(parts) != 3:
            return self.instrument, self.pair
        coin, quote, settlement = parts
        return self.instrument, self.pair, f"{coin}/{quote}:{settlement}"


def parse_name(path: Path) -> NamedFile:
    """Return the role of a file (bars, mark or funding), and what its name says of the market.

    Names of freqtrade and of Binance's archive also say the pair and the length of bars.
    """
    stem = stem_of(path)
    if match := _FREQTRADE.fullmatch(stem):
        return NamedFile(path, _KINDS[match["kind"]], match["pair"], match["timeframe"])

    match = _BINANCE.fullmatch(stem)
    if match and _OTHER_KLINES.isdisjoint(path.parts):
        pair = match["pair"]
        if match["what"] == "fundingRate":
            return NamedFile(path, "funding", pair, is_archive=True)

        # Klines of both kinds have the same name, in folders of their own.
        role = "bars"
        if "markPriceKlines" in path.parts:
            role = "mark"
        return NamedFile(path, role, pair, match["what"], is_archive=True)

    # Any other name: the role that it has among its words.
    words = re.split(r"[^a-z]+", stem.lower())
    for role in ROLES:
        if role in words:
            return NamedFile(path, role)
    return NamedFile(path, "bars")


def find_layout(
    paths: Sequence[Path], options: ReadOptions, *, needs_bars: bool
) -> tuple[dict[str, list[Path]], dict[str, Any]]:
    """Return the files of each role (bars, mark, funding), and the facts known of their market.

    ``paths`` are one folder, or files. ``options`` say which instrument and length of bars to
    choose where there are several. The facts are what ``market.json`` in a folder, or the names of
    the files, say. Raises DataError if ``needs_bars`` and there are none.
    """
    for path in paths:
        check_exists(path)

    where = ", ".join(map(str, paths))
    is_folder = any(path.is_dir() for path in paths)
    if is_folder and len(paths) > 1:
        raise DataError(f"one folder or several files are loaded, got {len(paths)} ({where})")

    if is_folder:
        layout = _lay_out_folder(paths[0], options, needs_bars=needs_bars)
    else:
        layout = _lay_out_files(paths, where, options)

    if needs_bars and not has_bars(layout.files):
        inside = sorted(paths[0].iterdir()) if is_folder else paths
        names = ", ".join(path.name for path in inside[:8]) or "nothing"
        raise DataError(f"there must be bars, found {names} ({where}); {_CURE}")
    return _group_by_role(layout, where), layout.facts


class _Layout(NamedTuple):
    """The files of one market, and what is noted or named of it."""

    files: Sequence[NamedFile]
    facts: dict[str, Any]
    is_ours: bool = False  # a folder with the names that this program writes


def _lay_out_folder(folder: Path, options: ReadOptions, *, needs_bars: bool) -> _Layout:
    """Return the layout of a folder: the files of our own names, or those of one pair.

    Our own names are bars, mark and funding; pairs are in the names of freqtrade's files and of
    Binance's archive, of which ``options`` choose one.
    """
    files = list_files(folder)
    ours = [file for file in files if stem_of(file.path) in ROLES]
    if has_our_bars(ours) or (ours and not needs_bars):
        return _Layout(ours, _read_folder_facts(folder, options), is_ours=True)

    named = [file for file in files if file.pair]
    if has_bars(named):
        return _Layout(*_choose_files(named, str(folder), options))
    return _Layout(named, {})


def _lay_out_files(paths: Sequence[Path], where: str, options: ReadOptions) -> _Layout:
    """Return the layout of files that were given one by one.

    If the name of each names a pair, as freqtrade and Binance's archive do, all must be of one
    market, and a file that is not is an error. Else their roles are taken as they are.
    """
    files = [*map(parse_name, paths)]
    is_each_named = all(file.pair for file in files)
    if not is_each_named or not has_bars(files):
        return _Layout(files, {})

    chosen, facts = _choose_files(files, where, options)
    unused = [file.path.name for file in files if file not in chosen]
    if unused:
        raise DataError(
            f"files given one by one must belong together, {', '.join(unused)} does not "
            f"({where}); give mark and funding of the same pair, mark of the same bars"
        )
    return _Layout(chosen, facts)


def _group_by_role(layout: _Layout, where: str) -> dict[str, list[Path]]:
    """Return the paths of each role: bars, mark and funding.

    Several files of a role are joined later, if their names differ in dates alone; others are two
    tables, which raises DataError. ``where`` is for messages.
    """
    paths_by_role: dict[str, list[Path]] = {role: [] for role in ROLES}
    for file in layout.files:
        paths_by_role[file.role].append(file.path)

    for role, parts in paths_by_role.items():
        # Files of different dates are joined, others are two tables.
        stems = {re.sub(r"[\W\d_]+", "", stem_of(path)) for path in parts}
        if len(parts) > 1 and (layout.is_ours or len(stems) > 1):
            raise DataError(
                f"one file of {role} is needed, found {parts[0].name} and {parts[1].name} ({where})"
            )
    return paths_by_role


def has_bars(files: Sequence[NamedFile]) -> bool:
    return any(file.role == "bars" for file in files)


def has_our_bars(files: Sequence[NamedFile]) -> bool:
    return any(stem_of(file.path) == "bars" for file in files)


def list_files(folder: Path) -> list[NamedFile]:
    """Return the tables in a folder by what their names say."""
    return [*map(parse_name, list_tables(folder))]


def _read_folder_facts(folder: Path, options: ReadOptions) -> dict[str, Any]:
    """Return what a folder of ours says of its market; raise if another instrument is wanted."""
    path = folder / "market.json"
    facts = read_facts(path)
    instrument = facts.get("instrument")
    if options.instrument and instrument and options.instrument != instrument:
        raise DataError(
            f"instrument must be the folder's, got {options.instrument!r} against "
            f"{instrument!r} ({path})"
        )
    return facts


def list_tables(path: Path) -> list[Path]:
    """Return the files of a folder that may hold tables, by name; a file is itself."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if suffix_of(file) in SUFFIXES)


def _choose_files(
    named: Sequence[NamedFile], where: str, options: ReadOptions
) -> tuple[list[NamedFile], dict[str, Any]]:
    """Return the files of one instrument and length of bars, and the facts that their names say.

    ``options`` choose where there are several; without a choice, several are an error. Marks must
    have the length of the bars.
    """

    def list_lengths(file: NamedFile) -> tuple[str, ...]:
        """Return the length of a file's bars as it is written, and as we write it."""
        length = file.timeframe
        if length.endswith(MONTHS):
            return (length, length)
        return (length, format_duration(parse_duration(length, where)))

    length = ""
    if options.interval:
        length = format_duration(options.interval)
    bars = [file for file in named if file.role == "bars"]
    bars = _choose_one(bars, "instrument", options.instrument, lambda file: file.names, where)
    bars = _choose_one(bars, "interval", length, list_lengths, where)

    pair = bars[0].pair
    timeframe = bars[0].timeframe
    facts: dict[str, Any] = {"instrument": bars[0].instrument}
    if not timeframe.endswith(MONTHS):
        facts["interval"] = timeframe

    # Marks and funding of the same pair; marks of another length than the bars are of no use.
    marks = []
    funding = []
    other_lengths = set()
    for file in named:
        if file.pair != pair:
            continue
        if file.role == "funding":
            funding.append(file)
        elif file.role == "mark" and file.timeframe == timeframe:
            marks.append(file)
        elif file.role == "mark":
            other_lengths.add(file.timeframe)
    if other_lengths and not marks:
        others = " and ".join(sorted(other_lengths))
        facts["filled"] = {"mark": f"not used: mark bars are {others}, bars {timeframe}"}
    return [*bars, *marks, *funding], facts


def _choose_one(
    bars: Sequence[NamedFile],
    noun: str,
    wanted: str,
    list_names: Callable[[NamedFile], tuple[str, ...]],
    where: str,
) -> list[NamedFile]:
    """Return those files of bars that are of one instrument, or of one length.

    ``noun`` says which of the two, ``wanted`` is the one to choose, empty for the only one there
    is. ``list_names`` gives what a file may be called, the usual name first. Raises DataError if no
    file fits, or if those that fit are of several.
    """
    known = set()
    known_of_chosen = set()
    chosen = []
    for file in bars:
        names = list_names(file)
        known.add(names[0])
        if not wanted or wanted in names:
            chosen.append(file)
            known_of_chosen.add(names[0])

    in_order = sorted(known)
    listed = ", ".join(in_order[:10])
    if not chosen:
        raise DataError(
            f"{noun} must be among the files, got {wanted!r}{did_you_mean(wanted, in_order)}; "
            f"there are {listed} ({where})"
        )
    if len(known_of_chosen) > 1:
        raise DataError(
            f"one {noun} is loaded at a time, found {listed} ({where}); "
            f"{noun}={in_order[0]!r}, or the paths of its files"
        )
    return chosen


def read_facts(path: Path) -> dict[str, Any]:
    """Return what market.json says of a market; nothing without the file.

    DataError if a key or the type of its value is unknown.
    """
    if not path.is_file():
        return {}
    facts = core.parse_json(core.read_small(path), path)
    if not isinstance(facts, dict):
        raise DataError(f"market.json must be an object ({path})")

    for key, value in facts.items():
        if key in _FACTS and isinstance(value, _FACTS[key]):
            continue
        wanted = f"one of {', '.join(_FACTS)}"
        near = did_you_mean(key, _FACTS)
        if key in _FACTS:
            wanted = WORDS_OF_TYPES[_FACTS[key]]
            near = ""
        raise DataError(f"{key!r} in market.json must be {wanted}, got {value!r}{near} ({path})")
    return facts


class MarketSource(NamedTuple):
    """Where one market is: a path, and the instrument to choose if the path holds several.

    ``names`` are those that it may be called, the default first; ``currency`` is the settlement
    currency, as the files say it. ``folder`` is the name of its folder, if that holds no other.
    """

    names: tuple[str, ...]
    path: Path
    instrument: str | None = None
    currency: str = ""
    folder: str = ""


def find_sources(
    paths: Sequence[Path], instruments: Sequence[str] | None
) -> dict[str, MarketSource]:
    """Return where each market is, by name: those of ``instruments``, or all that the paths hold.

    Raises ParameterError for an instrument that is not there or given twice, and for a path that
    holds none of them.
    """
    sources: list[MarketSource] = []
    sources_by_path: dict[Path, list[MarketSource]] = {}
    for path in paths:
        if path.is_dir():
            sources_of_path = _list_markets(path, is_named=len(paths) > 1)
        else:  # a file, or a path that is missing: the loader says so
            name = parse_name(path).instrument or stem_of(path)
            sources_of_path = [MarketSource((name,), path)]
        sources += sources_of_path
        sources_by_path[path] = sources_of_path

    if instruments is None:
        return _name_all(sources)
    if len({*instruments}) < len(instruments):
        raise ParameterError(f"each instrument is given once, got {', '.join(instruments)}")
    chosen = {name: _choose(name, sources) for name in instruments}
    _check_all_used(sources_by_path, [*chosen.values()], instruments)
    return chosen


def _name_all(sources: Sequence[MarketSource]) -> dict[str, MarketSource]:
    """Return each source under a name of its own: that of its instrument, or of its folder.

    The folder names a market whose instrument is in two folders. Raises DataError if two still have
    one name.
    """
    counts = Counter(source.names[0] for source in sources)
    by_name: dict[str, MarketSource] = {}
    for source in sources:
        name = source.names[0]
        if counts[name] > 1 and source.folder:
            name = source.folder
        first = by_name.setdefault(name, source)
        if first is not source:
            raise DataError(
                f"each market must have a name of its own, {name!r} occurs twice "
                f"({first.path}, {source.path}); bt.Markets({{name: Market.load(...), ...}}) names "
                "them"
            )
    return by_name


def _check_all_used(
    sources_by_path: Mapping[Path, Sequence[MarketSource]],
    chosen: Sequence[MarketSource],
    instruments: Sequence[str],
) -> None:
    """Raise ParameterError if a path holds none of the instruments that are chosen."""
    for path, sources in sources_by_path.items():
        if any(source in chosen for source in sources):
            continue
        held = ", ".join(source.names[0] for source in sources)
        raise ParameterError(
            f"each path must hold an instrument that is chosen, {path} has {held}, chosen are "
            f"{', '.join(instruments)}; add one of the path's, or leave the path out"
        )


def _list_markets(folder: Path, *, is_named: bool) -> list[MarketSource]:
    """Return the markets in a folder; raise DataError if there are none."""
    listed = _list_folder(folder, is_named=is_named)
    if listed:
        return listed
    inside = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    names = ", ".join(inside[:8]) or "nothing"
    raise DataError(
        f"a folder must hold markets, found {names} ({folder}); give a folder with a "
        "folder for each market (bars.*, mark.*, funding.*), or files named as "
        "freqtrade or Binance's archive does"
    )


def is_panel(paths: Sequence[Path], instruments: Sequence[str] = ()) -> bool:
    """Return whether paths hold several markets, or one in a folder in a folder."""
    if len(instruments) > 1 or (len(paths) > 1 and any(map(Path.is_dir, paths))):
        return True
    if len(paths) != 1 or not paths[0].is_dir() or instruments:
        return False

    sources = _list_folder(paths[0])
    return len(sources) > 1 or any(source.path != paths[0] for source in sources)


def find_in_folders(
    paths: Sequence[Path], instrument: str | None
) -> tuple[Sequence[Path], str | None]:
    """Return the paths of one market, and the instrument to load from them."""
    if instrument is None or len(paths) != 1 or not is_panel(paths):
        return paths, instrument
    chosen = _choose(instrument, _list_folder(paths[0]))
    return [chosen.path], chosen.instrument


def _list_folder(folder: Path, *, is_named: bool = False) -> list[MarketSource]:
    """Return the markets whose files are in a folder or, if there are none, in its subfolders.

    With ``is_named`` a market that is alone in the folder may be named after it; in subfolders it
    always may.
    """
    sources = _list_in_folder(folder, is_named=is_named)
    if sources:
        return sources
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            sources += _list_in_folder(path, is_named=True)
    return sources


def _list_in_folder(folder: Path, *, is_named: bool) -> list[MarketSource]:
    """Return the markets in the files of a folder: one of our own names, or those of pairs.

    ``is_named``: the folder may give the market its name, as several folders hold markets.
    """
    files = list_files(folder)
    folder_name = folder.resolve().name
    if has_our_bars(files):
        noted = read_facts(folder / "market.json").get("instrument", "")
        in_order = (folder_name, noted) if is_named else (noted, folder_name)
        return [MarketSource(tuple(filter(None, in_order)), folder)]

    pairs = {file.pair: file for file in files if file.pair and file.role == "bars"}
    sources = []
    for file in pairs.values():
        # Of several markets in a folder, each is chosen by its own name.
        names = file.names
        currency = find_settlement(file)
        if len(pairs) > 1:
            sources.append(MarketSource(names, folder, file.names[0], currency))
        elif is_named:
            names = (*names, folder_name)
            sources.append(MarketSource(names, folder, None, currency, folder_name))
        else:
            sources.append(MarketSource(names, folder, None, currency))
    return sources


def find_settlement(file: NamedFile) -> str:
    """Return the settlement currency that freqtrade's name says, USDT of BTC_USDT_USDT."""
    if file.is_archive:
        return ""
    _, _, after_coin = file.pair.partition("_")
    _, _, settlement = after_coin.partition("_")
    return settlement.partition("-")[0]


def _choose(name: str, sources: Sequence[MarketSource]) -> MarketSource:
    """Return the only source of a name; raise ParameterError if there is none, or several."""
    fits = [source for source in sources if name in source.names]
    if len(fits) == 1:
        return fits[0]
    if fits:
        places = ", ".join(str(source.path) for source in fits)
        raise ParameterError(
            f"instruments must be found once, {name!r} is in {len(fits)} places ({places})"
        )

    names: list[str] = []
    for source in sources:
        names += source.names
    listed = ", ".join(source.names[0] for source in sources)
    raise ParameterError(
        f"instruments must be among the data, got {name!r}{did_you_mean(name, names)}; there "
        f"are {listed}"
    )
