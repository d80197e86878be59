"""Which file holds what: our own layout, freqtrade's, Binance's archive, or single files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from backtest.base import (
    DataError,
    did_you_mean,
    format_duration,
    parse_duration,
    parse_json,
    read_small,
)
from backtest.market.read.files import SUFFIXES, stem_of, suffix_of
from backtest.market.tables.read_options import ReadOptions

ROLES = ("bars", "mark", "funding", "dividends")
TRADES = "trades"

_FREQTRADE = re.compile(
    r"(?P<pair>[^-]+)-(?P<timeframe>\d+[smhdw])-(?P<kind>futures|mark|funding_rate)"
)
_KINDS = {"futures": "bars", "mark": "mark", "funding_rate": "funding"}
_BINANCE = re.compile(
    r"(?P<pair>[A-Z0-9]+(_[A-Z0-9]+)?)-(?P<what>\d+(?:mo|[smhdw])|fundingRate|aggTrades|trades)"
    r"-(?P<date>\d{4}-\d\d(-\d\d)?)"
)
_OTHER_KLINES = ("indexPriceKlines", "premiumIndexKlines")
_FACTS: Mapping[str, type] = {
    "instrument": str,
    "interval": str,
    "synthetic": bool,
    "sessions": bool,
    "filled": dict,
}
_CURE = (
    "name the files bars.*, mark.* and funding.* (parquet, feather or csv), keep freqtrade's "
    "names (BTC_USDT_USDT-1h-futures.feather) or Binance's (BTCUSDT-1h-2021-01.zip), or give the "
    "path of one file of bars"
)


class Layout(NamedTuple):
    bars: tuple[Path, ...] = ()
    mark: tuple[Path, ...] = ()
    funding: tuple[Path, ...] = ()
    dividends: tuple[Path, ...] = ()
    rate_column: str = "rate"
    instrument: str = ""
    interval: str | None = None
    synthetic: bool = False
    sessions: bool = False
    filled: Mapping[str, str] = {}
    has_same_funding: bool = False


class NamedFile(NamedTuple):
    path: Path
    pair: str
    timeframe: str
    role: str
    period: str = ""

    @property
    def instrument(self) -> str:
        return self.pair if self.period else "".join(self.pair.split("_")[:2])

    def is_called(self, name: str) -> bool:
        """Whether a name means this pair: BTCUSDT, BTC_USDT_USDT or BTC/USDT:USDT."""
        return name == self.instrument or re.sub(r"[/:]", "_", name) == self.pair

    def lasts(self, length: int, where: str) -> bool:
        """Whether the timeframe is ``length`` ns."""
        return parse_duration(self.timeframe, where) == length


def find_layout(
    paths: Sequence[Path], options: ReadOptions, *, joins: bool = False, needs_bars: bool = True
) -> Layout:
    for path in paths:
        _check_exists(path)
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise DataError(
            f"one folder or several files are loaded, got {len(paths)} paths "
            f"({', '.join(map(str, paths))})"
        )
    if folders:
        return _in_folder(folders[0], options, needs_bars=needs_bars)
    paths = _select_funding(paths, options.funding_interval)
    named = [file for file in map(parse_name, paths) if file]
    where = ", ".join(map(str, paths))
    if len(named) < len(paths):
        return _by_role(paths, where, options.instrument, joins=joins, needs_bars=needs_bars)
    layout = _by_name(named, where, options, needs_bars=needs_bars)
    used = {*layout.bars, *layout.mark, *layout.funding}
    unused = [path.name for path in paths if path not in used]
    if unused:
        raise DataError(
            f"files given one by one must belong together, {', '.join(unused)} does not ({where}); "
            "give mark and funding of the same pair, mark of the same bars"
        )
    return layout


def _select_funding(paths: Sequence[Path], length: int | None) -> Sequence[Path]:
    if length is None:
        return paths
    funding = {p: f for p in paths if (f := parse_name(p)) and f.role == "funding" and f.timeframe}
    kept = [path for path, file in funding.items() if file.lasts(length, str(path))]
    if not kept:
        found = _shorten(sorted({file.timeframe for file in funding.values()})) or "none"
        raise DataError(
            f"funding_interval must be that of a file of funding, got {format_duration(length)!r}, "
            f"found {found} ({', '.join(map(str, paths[:1]))}); it is read from names such as "
            "BTC_USDT_USDT-8h-funding_rate.feather"
        )
    return [path for path in paths if path not in funding or path in kept]


def _in_folder(folder: Path, options: ReadOptions, *, needs_bars: bool) -> Layout:
    inside = sorted(path for path in folder.iterdir() if suffix_of(path) in SUFFIXES)
    files = _select_funding(inside, options.funding_interval)
    own = [path for path in files if stem_of(path) in ROLES]
    named = [file for file in map(parse_name, files) if file]
    facts = read_facts(folder / "market.json")
    if any(stem_of(path) == "bars" for path in own) or (own and not needs_bars):
        _check_instrument(options.instrument, facts.get("instrument"), folder)
        layout = _by_role(own, str(folder), options.instrument, needs_bars=needs_bars)
        return layout._replace(**facts) if facts else layout
    if named:
        return _by_name(named, str(folder), options, needs_bars=needs_bars)
    found = ", ".join(path.name for path in sorted(folder.iterdir())[:8]) or "nothing"
    raise DataError(f"a folder must hold bars, found {found} ({folder}); {_CURE}")


def _by_role(
    paths: Sequence[Path],
    where: str,
    instrument: str,
    *,
    joins: bool = False,
    needs_bars: bool = True,
) -> Layout:
    chosen: dict[str, list[Path]] = {role: [] for role in ROLES}
    for path in paths:
        chosen[_find_role(path) or "bars"].append(path)
    for role, files in chosen.items():
        if len(files) > 1 and not joins:
            raise DataError(
                f"one file of {role} is needed, found {files[0].name} and {files[1].name} "
                f"({where}); name them bars, mark and funding if one is not {role}"
            )
    if not chosen["bars"] and needs_bars:
        raise _no_bars(where, paths)
    return Layout(
        bars=tuple(chosen["bars"]),
        mark=tuple(chosen["mark"]),
        funding=tuple(chosen["funding"]),
        dividends=tuple(chosen["dividends"]),
        rate_column=find_rate_column(chosen["funding"]),
        instrument=instrument,
    )


def find_rate_column(paths: Sequence[Path]) -> str:
    files = [parse_name(path) for path in paths]
    return "open" if any(file and not file.period for file in files) else "rate"


def _by_name(
    files: Sequence[NamedFile], where: str, options: ReadOptions, *, needs_bars: bool
) -> Layout:
    bars = [file for file in files if file.role == "bars"]
    if not bars:
        paths = [file.path for file in files]
        if needs_bars:
            raise _no_bars(where, paths)
        return _by_role(paths, where, options.instrument, needs_bars=False)
    name, length = options.instrument, options.interval
    if name:
        known = {file.instrument for file in bars}
        bars = [f for f in bars if f.is_called(name)] or _refuse("instrument", name, known, where)
    _check_one("instrument", {f.pair for f in bars}, {f.instrument for f in bars}, where)
    timeframes = {file.timeframe for file in bars}
    if length is not None and timeframes != {TRADES}:
        text = format_duration(length)
        bars = [f for f in bars if f.lasts(length, where)] or _refuse(
            "interval", text, timeframes, where
        )
        timeframes = {file.timeframe for file in bars}
    _check_one("interval", timeframes, timeframes, where)
    return _add_companions(bars, files, where)


def _add_companions(bars: Sequence[NamedFile], files: Iterable[NamedFile], where: str) -> Layout:
    pair = [file for file in files if file.pair == bars[0].pair]
    marks = [file for file in pair if file.role == "mark"]
    funding = [file for file in pair if file.role == "funding"]
    timed = [file for file in funding if file.timeframe]
    timed.sort(key=lambda file: parse_duration(file.timeframe, where))
    funding = timed or funding
    is_same = len({file.timeframe for file in funding}) == len(funding) > 1
    timeframe = bars[0].timeframe
    same = [file for file in marks if timeframe in (file.timeframe, TRADES)]
    others = " and ".join(sorted({file.timeframe for file in marks}))
    unused = f"not used: mark bars are {others}, bars {timeframe}"
    return Layout(
        bars=_by_period(bars, "bars", where),
        mark=_by_period(same, "mark", where),
        funding=tuple(file.path for file in funding)
        if is_same
        else _by_period(funding, "funding", where),
        rate_column="rate" if bars[0].period else "open",
        instrument=bars[0].instrument,
        interval=None if timeframe == TRADES else timeframe,
        filled={"mark": unused} if marks and not same else {},
        has_same_funding=is_same,
    )


def _by_period(files: Sequence[NamedFile], role: str, where: str) -> tuple[Path, ...]:
    ordered = sorted(files, key=lambda file: (file.period, file.path.name))
    for first, second in pairwise(ordered):
        if first.period == second.period:
            names = {first.path.name, second.path.name}
            _check_one(role, {first.path, second.path}, names, where)
    return tuple(file.path for file in ordered)


def _check_one(what: str, found: Iterable[object], names: Iterable[str], where: str) -> None:
    if len({*found}) <= 1:
        return
    choices = sorted(names)
    more = "" if what in ROLES else f"; {what}={choices[0]!r}, or the paths of its files"
    raise DataError(f"one {what} is loaded at a time, found {_shorten(choices)} ({where}){more}")


def _refuse(what: str, wanted: str, names: Iterable[str], where: str) -> NoReturn:
    raise DataError(
        f"{what} must be among the files, got {wanted!r}{did_you_mean(wanted, names)}; there are "
        f"{_shorten(sorted(names))} ({where})"
    )


def _shorten(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + rest


def _no_bars(where: str, paths: Sequence[Path]) -> DataError:
    names = ", ".join(path.name for path in paths)
    return DataError(f"there are no bars, found {names} ({where}); {_CURE}")


def parse_name(path: Path) -> NamedFile | None:
    if suffix_of(path) not in SUFFIXES:
        return None
    match = _FREQTRADE.fullmatch(stem_of(path))
    if match:
        return NamedFile(path, match["pair"], match["timeframe"], _KINDS[match["kind"]])
    match = _BINANCE.fullmatch(stem_of(path))
    if match is None or any(name in path.parts for name in _OTHER_KLINES):
        return None
    what = match["what"]
    if what == "fundingRate":
        return NamedFile(path, match["pair"], "", "funding", match["date"])
    role = "mark" if "markPriceKlines" in path.parts else "bars"
    timeframe = TRADES if what.lower().endswith("trades") else what
    return NamedFile(path, match["pair"], timeframe, role, match["date"])


def _find_role(path: Path) -> str | None:
    file = parse_name(path)
    if file:
        return file.role
    words = re.split(r"[^a-z]+", stem_of(path).lower())
    return next((role for role in ROLES if role in words), None)


def _check_exists(path: Path) -> None:
    if path.exists():
        return
    parent = path.parent
    near = did_you_mean(path.name, (p.name for p in parent.iterdir())) if parent.is_dir() else ""
    raise DataError(f"a path must exist, {str(path)!r} does not{near}; searched from {Path.cwd()}")


def _check_instrument(wanted: str, found: str | None, folder: Path) -> None:
    if wanted and found and wanted != found:
        raise DataError(
            f"instrument must be the folder's, got {wanted!r} against {found!r} "
            f"({folder / 'market.json'})"
        )


def read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    facts = parse_json(read_small(path), path)
    if not isinstance(facts, dict):
        raise DataError(f"market.json must be an object ({path})")
    for key, value in facts.items():
        if key not in _FACTS or not isinstance(value, _FACTS[key]):
            wanted = f"a {_FACTS[key].__name__}" if key in _FACTS else f"one of {', '.join(_FACTS)}"
            raise DataError(
                f"{key!r} in market.json must be {wanted}, got "
                f"{value!r}{did_you_mean(key, _FACTS)} ({path})"
            )
    return facts
