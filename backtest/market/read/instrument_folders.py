"""The markets that folders hold: one each, or several by the names of their files or folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from backtest.base import DataError, ParameterError, did_you_mean, format_time
from backtest.base.units import DAY
from backtest.market.market import Market
from backtest.market.panel_data import PanelData
from backtest.market.read.files import SUFFIXES, stem_of, suffix_of
from backtest.market.read.folder import load_data
from backtest.market.read.layouts import NamedFile, parse_name, read_facts
from backtest.market.tables.read_options import ReadOptions, time_text


class MarketSource(NamedTuple):
    """Where one market is: a path, and the instrument to choose if the path holds several.

    ``name`` is the one that the market gets by default. ``also`` are other names for it, and
    ``currency`` is the settlement currency, as the files say them.
    """

    name: str
    path: Path
    instrument: str | None = None
    also: tuple[str, ...] = ()
    currency: str = ""

    def is_called(self, name: str) -> bool:
        return name in (self.name, *self.also)


def find_sources(
    paths: Sequence[Path], instruments: Sequence[str] | None
) -> dict[str, MarketSource]:
    found = [source for path in paths for source in _list_sources(path, is_only=len(paths) == 1)]
    if instruments is not None:
        return {name: _choose(name, found) for name in _check_names(instruments)}
    named: dict[str, MarketSource] = {}
    for source in found:
        if source.name in named:
            first = named[source.name].path
            raise DataError(
                f"each market must have a name of its own, {source.name!r} occurs twice ({first}, "
                f"{source.path}); bt.Markets({{name: Market.load(...), ...}}) names them"
            )
        named[source.name] = source
    return named


def is_panel(paths: Sequence[Path], instruments: Sequence[str] = ()) -> bool:
    if len(instruments) > 1 or (len(paths) > 1 and any(path.is_dir() for path in paths)):
        return True
    if len(paths) != 1 or not paths[0].is_dir() or instruments:
        return False
    return not _list_in_folder(paths[0]) and bool(_list_in_folders(paths[0]))


def find_in_folders(paths: Sequence[Path], instrument: object) -> MarketSource | None:
    if not isinstance(instrument, str) or not is_panel(paths) or len(paths) != 1:
        return None
    return _choose(instrument, _list_in_folders(paths[0]))


def list_names(paths: Sequence[Path]) -> list[str]:
    return [each.name for path in paths for each in _list_sources(path, is_only=len(paths) == 1)]


def _list_in_folders(path: Path) -> list[MarketSource]:
    return [
        source
        for folder in sorted(path.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for source in _name_after_folder(_list_in_folder(folder), folder)
    ]


def _list_sources(path: Path, *, is_only: bool) -> list[MarketSource]:
    if not path.is_dir():  # a file, or a path that is missing: the loader says so
        file = parse_name(path)
        return [MarketSource(file.instrument if file else stem_of(path), path)]
    found = _list_in_folder(path) or _list_in_folders(path)
    if not found:
        inside = ", ".join(sorted(each.name for each in path.iterdir())[:8]) or "nothing"
        raise DataError(
            f"a folder must hold markets, found {inside} ({path}); give a folder with a folder for "
            "each market (bars.*, mark.*, funding.*), or files named as freqtrade or Binance's "
            "archive does"
        )
    return found if is_only else _name_after_folder(found, path)


def _name_after_folder(found: list[MarketSource], folder: Path) -> list[MarketSource]:
    if len(found) != 1 or found[0].path != folder:
        return found
    (only,) = found
    return [only._replace(name=folder.resolve().name, also=(only.name, *only.also))]


def _list_in_folder(folder: Path) -> list[MarketSource]:
    files = [path for path in sorted(folder.iterdir()) if suffix_of(path) in SUFFIXES]
    if any(stem_of(path) == "bars" for path in files):
        facts = read_facts(folder / "market.json")
        name = folder.resolve().name
        return [MarketSource(facts.get("instrument") or name, folder, also=(name,))]
    return list(_list_pairs(folder, [file for file in map(parse_name, files) if file]))


def _list_pairs(folder: Path, files: Sequence[NamedFile]) -> Iterator[MarketSource]:
    pairs = {file.pair: file for file in files if file.role == "bars"}
    for pair, file in pairs.items():
        parts = pair.split("_")
        is_perpetual = not file.period and len(parts) == 3
        yield MarketSource(
            file.instrument,
            folder,
            file.instrument if len(pairs) > 1 else None,
            also=(pair, f"{parts[0]}/{parts[1]}:{parts[2]}") if is_perpetual else (pair,),
            currency=parts[2].partition("-")[0] if is_perpetual else "",
        )


def _choose(name: str, found: Sequence[MarketSource]) -> MarketSource:
    fits = [source for source in found if source.is_called(name)]
    if not fits:
        names = [each for source in found for each in (source.name, *source.also)]
        raise ParameterError(
            f"instruments must be among the data, got {name!r}{did_you_mean(name, names)}; there "
            f"are {', '.join(source.name for source in found)}"
        )
    if len(fits) > 1:
        places = ", ".join(str(source.path) for source in fits)
        raise ParameterError(
            f"instruments must be found once, {name!r} is in {len(fits)} places ({places})"
        )
    return fits[0]


def _check_names(instruments: Sequence[str]) -> Sequence[str]:
    if len({*instruments}) < len(instruments):
        raise ParameterError(f"instruments must be given once each, got {', '.join(instruments)}")
    return instruments


LONGEST_CLOSURE = 14 * DAY
"""How far from the first or last session a span may begin or end and still be inside."""


def load_markets(
    paths: Sequence[Path], instruments: Sequence[str] | None, options: ReadOptions
) -> tuple[dict[str, Market], dict[str, str]]:
    if not paths:
        raise ParameterError("load needs a path, got none")
    sources = find_sources(paths, instruments)
    markets = {
        name: _load(name, source, options._replace(clips=True)) for name, source in sources.items()
    }
    return markets, {name: source.currency for name, source in sources.items()}


def _load(name: str, source: MarketSource, options: ReadOptions) -> Market:
    options = options._replace(instrument=source.instrument or "")
    try:
        data = load_data([source.path], options)
    except ParameterError as error:  # an argument that does not fit this market
        raise ParameterError(f"{name}: {error}") from error
    return Market(**data.fields(), source=options.expression([source.path]))


def check_between(markets: PanelData, between: tuple[int | None, int | None]) -> None:
    slack = LONGEST_CLOSURE if markets.sessions else markets.interval - 1
    low, high = between
    is_early = low is not None and markets.start - low > slack
    is_late = high is not None and high - markets.end > slack
    if is_early or is_late:
        wrong = low if is_early else high
        raise ParameterError(
            f"between must lie inside the panel, {format_time(markets.start)} to "
            f"{format_time(markets.end)}, got one that {'begins' if is_early else 'ends'} at "
            f"{time_text(int(wrong or 0))}"
        )
