"""Which file is what: the project's own layout, freqtrade's, Binance's archive, or bare files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.bounded_reads import parse_json, read_small
from backtest.base.errors import DataError, did_you_mean
from backtest.base.units import format_duration, parse_duration
from backtest.market.read.files import SUFFIXES, stem_of, suffix_of

_ROLES = ("bars", "mark", "funding")
_FREQTRADE = re.compile(
    r"(?P<pair>[^-]+)-(?P<timeframe>\d+[smhdw])-(?P<kind>futures|mark|funding_rate)"
)
_KINDS = {"futures": "bars", "mark": "mark", "funding_rate": "funding"}
_BINANCE = re.compile(
    r"(?P<pair>[A-Z0-9]+(_[A-Z0-9]+)?)-(?P<what>\d+(?:mo|[smhdw])|fundingRate|aggTrades|trades)"
    r"-(?P<date>\d{4}-\d\d(-\d\d)?)"
)
_OTHER_KLINES = ("indexPriceKlines", "premiumIndexKlines")
TRADES = "trades"
"""The timeframe of files that hold single trades."""

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
    """The files of one market, several of a kind where each holds a part of the time.

    ``has_same_funding``: the files of funding are not parts but hold the same settlements.
    """

    bars: tuple[Path, ...] = ()
    mark: tuple[Path, ...] = ()
    funding: tuple[Path, ...] = ()
    rate_column: str = "rate"
    instrument: str = ""
    interval: str | None = None
    synthetic: bool = False
    sessions: bool = False
    filled: Mapping[str, str] = {}
    has_same_funding: bool = False


class _Named(NamedTuple):
    """A file whose name follows freqtrade's pattern or Binance's; the latter's holds one period."""

    path: Path
    pair: str
    timeframe: str
    role: str
    period: str = ""

    @property
    def instrument(self) -> str:
        """BTC_USDT_USDT as BTCUSDT: base and quote; Binance's name as it is."""
        return self.pair if self.period else "".join(self.pair.split("_")[:2])

    def is_called(self, name: str) -> bool:
        """Whether a name means this pair: BTCUSDT, BTC_USDT_USDT or BTC/USDT:USDT."""
        spelled = re.sub(r"[/:]", "_", name)
        return name == self.instrument or spelled == self.pair


def find_layout(
    paths: Sequence[Path],
    *,
    instrument: str | None = None,
    interval: str | None = None,
    funding_interval: str | None = None,
    joins: bool = False,
    needs_bars: bool = True,
) -> Layout:
    """Return which of the paths, or of the files in the one folder, is what.

    Parameters
    ----------
    paths : sequence of Path
        One folder, or one or several files.
    instrument, interval : str or None
        Which to take where a folder of freqtrade's holds several.
    funding_interval : str or None
        Which files of funding to take, by the interval in their names.
    joins : bool
        Whether several nameless files of a kind are parts of one table.
    needs_bars : bool
        Whether mark or funding alone are refused.

    Raises
    ------
    DataError
        If a path is missing, no bars are found, or the choice is not unique.
    """
    for path in paths:
        _check_exists(path)
    paths = _take_funding(paths, funding_interval)
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise DataError(
            f"one folder or several files are loaded, were {len(paths)} paths",
            where=", ".join(map(str, paths)),
            cure="load each folder as a market of its own",
        )
    if folders:
        return _in_folder(folders[0], instrument, interval, funding_interval, needs_bars=needs_bars)
    named = [file for file in map(_parse, paths) if file]
    where = ", ".join(map(str, paths))
    if len(named) < len(paths):
        return _by_role(paths, where, instrument, joins=joins, needs_bars=needs_bars)
    layout = _by_name(named, where, instrument, interval, needs_bars=needs_bars)
    used = {*layout.bars, *layout.mark, *layout.funding}
    unused = [path.name for path in paths if path not in used]
    if unused:
        raise DataError(
            f"files given one by one must belong together, {', '.join(unused)} does not",
            where=where,
            cure="leave it out, or give mark and funding of the same pair (mark of the same bars)",
        )
    return layout


def _take_funding(paths: Sequence[Path], interval: str | None) -> list[Path]:
    """Return paths without files of funding of another interval, by their names.

    Raises
    ------
    DataError
        If an interval is said and no file of funding has it.
    """
    folders = [path for path in paths if path.is_dir()]
    if interval is None or folders:
        return list(paths)
    length = parse_duration(interval, where="funding_interval")
    funding = {p: f.timeframe for p in paths if (f := _parse(p)) and f.role == "funding"}
    said = {path: timeframe for path, timeframe in funding.items() if timeframe}
    kept = [p for p, t in said.items() if parse_duration(t, where=str(p)) == length]
    if not kept:
        raise DataError(
            "funding_interval must be that of a file of funding, was "
            f"{format_duration(length)!r}, found {_some(sorted({*said.values()})) or 'none'}",
            where=", ".join(map(str, paths[:1])),
            cure="leave it out, or choose one that is there: it is read from names such as "
            "BTC_USDT_USDT-8h-funding_rate.feather",
        )
    return [path for path in paths if path not in said or path in kept]


def _in_folder(
    folder: Path,
    instrument: str | None,
    interval: str | None,
    funding_interval: str | None,
    *,
    needs_bars: bool,
) -> Layout:
    inside = sorted(path for path in folder.iterdir() if suffix_of(path) in SUFFIXES)
    files = _take_funding(inside, funding_interval)
    own = [path for path in files if stem_of(path) in _ROLES]
    named = [file for file in map(_parse, files) if file]
    facts = _read_facts(folder / "market.json")
    if any(stem_of(path) == "bars" for path in own) or (own and not needs_bars):
        _same_instrument(instrument, facts.get("instrument"), folder)
        layout = _by_role(own, str(folder), instrument, needs_bars=needs_bars)
        return layout._replace(**facts) if facts else layout
    if named:
        return _by_name(named, str(folder), instrument, interval, needs_bars=needs_bars)
    found = ", ".join(path.name for path in sorted(folder.iterdir())[:8]) or "nothing"
    raise DataError(f"a folder must hold bars, found {found}", where=str(folder), cure=_CURE)


def _by_role(
    paths: Sequence[Path],
    where: str,
    instrument: str | None,
    *,
    joins: bool = False,
    needs_bars: bool = True,
) -> Layout:
    """Return files by the role their names begin with or say; a nameless one is the bars."""
    chosen: dict[str, list[Path]] = {role: [] for role in _ROLES}
    for path in paths:
        chosen[_role(path) or "bars"].append(path)
    for role, files in chosen.items():
        if len(files) > 1 and not joins:
            raise DataError(
                f"one file of {role} is needed, found {files[0].name} and {files[1].name}",
                where=where,
                cure=f"keep one; or name the files bars, mark and funding if one is not {role}",
            )
    if not chosen["bars"] and needs_bars:
        raise _no_bars(where, [path.name for path in paths])
    return Layout(
        bars=tuple(chosen["bars"]),
        mark=tuple(chosen["mark"]),
        funding=tuple(chosen["funding"]),
        rate_column=find_rate_column(chosen["funding"]),
        instrument=instrument or "",
    )


def find_rate_column(paths: Sequence[Path]) -> str:
    """Return where files of funding have the rate: freqtrade writes it as the open."""
    files = [_parse(path) for path in paths]
    return "open" if any(file and not file.period for file in files) else "rate"


def _by_name(
    files: Sequence[_Named],
    where: str,
    instrument: str | None,
    interval: str | None,
    *,
    needs_bars: bool,
) -> Layout:
    bars = [file for file in files if file.role == "bars"]
    if not bars and needs_bars:
        raise _no_bars(where, [file.path.name for file in files])
    if not bars:
        return _by_role([file.path for file in files], where, instrument, needs_bars=False)
    if instrument is not None:
        bars = [file for file in bars if file.is_called(instrument)] or _none(
            "instrument", instrument, {file.instrument for file in bars}, where
        )
    _one({file.pair for file in bars}, "instrument", {f.instrument for f in bars}, where)
    if interval is not None and any(file.timeframe != TRADES for file in bars):
        length = parse_duration(interval, where="interval")
        bars = [f for f in bars if parse_duration(f.timeframe, where=where) == length] or _none(
            "interval", format_duration(length), {file.timeframe for file in bars}, where
        )
    _one({file.timeframe for file in bars}, "interval", {f.timeframe for f in bars}, where)
    return _companions(bars, files, where)


def _companions(bars: Sequence[_Named], files: Iterable[_Named], where: str) -> Layout:
    """Return the bars with their pair's funding, and its mark bars of the same length."""
    pair = [file for file in files if file.pair == bars[0].pair]
    marks = [file for file in pair if file.role == "mark"]
    funding = sorted(
        (file for file in pair if file.role == "funding" and file.timeframe),
        key=lambda file: parse_duration(file.timeframe, where=where),
    ) or [file for file in pair if file.role == "funding"]
    is_same = len({file.timeframe for file in funding}) == len(funding) > 1
    timeframe = bars[0].timeframe
    same = [file for file in marks if timeframe in (file.timeframe, TRADES)]
    others = " and ".join(sorted({file.timeframe for file in marks}))
    unused = f"not used: mark bars are {others}, bars {timeframe}"
    return Layout(
        bars=_once(bars, "bars", where),
        mark=_once(same, "mark", where),
        funding=tuple(file.path for file in funding)
        if is_same
        else _once(funding, "funding", where),
        rate_column="rate" if bars[0].period else "open",
        instrument=bars[0].instrument,
        interval=None if timeframe == TRADES else timeframe,
        filled={"mark": unused} if marks and not same else {},
        has_same_funding=is_same,
    )


def _once(files: Sequence[_Named], role: str, where: str) -> tuple[Path, ...]:
    """Return the files in the order of their periods, of which each may be there once."""
    ordered = sorted(files, key=lambda file: (file.period, file.path.name))
    for first, second in pairwise(ordered):
        if first.period == second.period:
            _one({first.path, second.path}, role, {first.path.name, second.path.name}, where)
    return tuple(file.path for file in ordered)


def _one(found: Iterable[object], what: str, names: Iterable[str], where: str) -> None:
    if len({*found}) <= 1:
        return
    choices = sorted(names)
    raise DataError(
        f"one {what} is loaded at a time, found {_some(choices)}",
        where=where,
        cure="keep one of the files"
        if what in _ROLES
        else f"say which: {what}={choices[0]!r}, or give the paths of its files",
    )


def _none(what: str, wanted: str, names: Iterable[str], where: str) -> list[_Named]:
    raise DataError(
        f"{what} must be among the files, was {wanted!r}{did_you_mean(wanted, names)}",
        where=where,
        cure=f"choose one of {_some(sorted(names))}",
    )


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + rest


def _no_bars(where: str, names: Sequence[str]) -> DataError:
    return DataError(f"there are no bars, found {', '.join(names)}", where=where, cure=_CURE)


def _parse(path: Path) -> _Named | None:
    if suffix_of(path) not in SUFFIXES:
        return None
    match = _FREQTRADE.fullmatch(stem_of(path))
    if match:
        return _Named(path, match["pair"], match["timeframe"], _KINDS[match["kind"]])
    match = _BINANCE.fullmatch(stem_of(path))
    if match is None or any(name in path.parts for name in _OTHER_KLINES):
        return None
    what = match["what"]
    if what == "fundingRate":
        return _Named(path, match["pair"], "", "funding", match["date"])
    role = "mark" if "markPriceKlines" in path.parts else "bars"
    timeframe = TRADES if what.lower().endswith("trades") else what
    return _Named(path, match["pair"], timeframe, role, match["date"])


def _role(path: Path) -> str | None:
    file = _parse(path)
    if file:
        return file.role
    words = re.split(r"[^a-z]+", stem_of(path).lower())
    return next((role for role in _ROLES if role in words), None)


def _check_exists(path: Path) -> None:
    if path.exists():
        return
    parent = path.parent
    near = did_you_mean(path.name, (p.name for p in parent.iterdir())) if parent.is_dir() else ""
    raise DataError(
        f"a path must exist, {str(path)!r} does not{near}",
        where=f"searched from {Path.cwd()}",
        cure="correct the path",
    )


def _same_instrument(wanted: str | None, found: str | None, folder: Path) -> None:
    if wanted and found and wanted != found:
        raise DataError(
            f"instrument must be the folder's, was {wanted!r} against {found!r}",
            where=str(folder / "market.json"),
            cure=f"leave instrument out, or give {found!r}",
        )


def _read_facts(path: Path) -> dict[str, Any]:
    """Return what ``market.json`` says, an empty dict where there is none."""
    if not path.is_file():
        return {}
    facts = parse_json(read_small(path, cure="correct it"), path, cure="correct it")
    if not isinstance(facts, dict):
        raise DataError("market.json must be an object", where=str(path), cure="write {...}")
    for key, value in facts.items():
        if key not in _FACTS or not isinstance(value, _FACTS[key]):
            wanted = f"a {_FACTS[key].__name__}" if key in _FACTS else f"one of {', '.join(_FACTS)}"
            raise DataError(
                f"{key!r} in market.json must be {wanted}, was {value!r}"
                + did_you_mean(key, _FACTS),
                where=str(path),
                cure="correct or remove it",
            )
    return facts
