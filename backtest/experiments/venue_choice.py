"""Which listing is the venue of an instrument: one that is named, or that beside its bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest import core
from backtest.market import Market, Markets
from backtest.market.clock import list_calls
from backtest.market.names import LISTING_FILE
from backtest.venue import Venue, listing, preset_files

AUTO = "auto"
OF_LISTING = ("listing", "symbol", "like", "date")
"""Keys of ``[venue]`` that name a listing, its symbol, its preset and its day."""
BESIDE = "beside"
"""Marks, among the entries of one instrument, a listing that ``auto`` found beside the bars."""


def choose_listings(
    table: Mapping[str, Any], markets: Markets, *, has_files: bool
) -> dict[str, Any]:
    """Return the table of a venue with a listing for each text ``auto`` or ``file:``.

    A listing without a symbol is that of each instrument. Raises ParameterError where a listing
    lies beside the bars and no venue is chosen: which of the two was meant is for the user to say.
    """
    chosen = dict(table)
    if has_files and not is_chosen(table):
        refuse_silence(markets)

    is_shared = names_listing(table)
    if not is_shared and not any(names_listing(table.get(name)) for name in markets.names):
        check_keys(table, markets)
        return chosen

    if len(markets) == 1 and is_shared:
        (name,) = markets.names
        entries = chosen.pop(name, None)
        within = entries if isinstance(entries, Mapping) else {}
        return complete_listing({**chosen, **within}, name, markets[name])

    # Of several instruments each gets an entry of its own, under what holds for all.
    shared = {name: chosen.pop(name) for name in ("preset", *OF_LISTING) if name in chosen}
    for name, market in markets.items():
        entries = chosen.get(name, {})
        if "preset" not in entries:
            entries = {**shared, **entries}
        if names_listing(entries):
            entries = complete_listing(entries, name, market)
        chosen[name] = entries
    if is_shared:
        return {"preset": "", **chosen}
    return {**shared, **chosen}


def names_listing(entries: Any) -> bool:
    """Return whether the entries of a venue name a listing, by its file or as a preset."""
    if not isinstance(entries, Mapping):
        return False
    return "listing" in entries or is_listing(entries.get("preset"))


def is_listing(preset: Any) -> bool:
    is_text = isinstance(preset, str)
    return is_text and (preset == AUTO or preset.startswith(listing.SCHEME))


def is_chosen(table: Mapping[str, Any]) -> bool:
    """Return whether a venue is named or written, for all instruments or for some."""
    single = [entries for entries in table.values() if isinstance(entries, Mapping)]
    for entries in (table, *single):
        if "preset" in entries or "listing" in entries or "contract" in entries:
            return True
    return False


def refuse_silence(markets: Markets) -> None:
    """Raise a ParameterError for the first instrument with a listing beside its bars."""
    for name, market in markets.items():
        file = find_listing(market)
        if file is not None:
            raise core.ParameterError(
                f"a venue must be chosen where {LISTING_FILE} lies beside the bars, got none for "
                f"{market.instrument or name}; --venue {AUTO} uses {file}, --venue NAME:SYMBOL a "
                "preset"
            )


def find_listing(market: Market) -> Path | None:
    """Return the listing beside the bars of a market, None if there is none."""
    try:
        (_, paths, _), *_ = list_calls(market.source)
    except (SyntaxError, ValueError):
        return None

    for path in map(Path, paths):
        folder = path if path.is_dir() else path.parent
        file = folder / LISTING_FILE
        if file.is_file():
            return file
    return None


def complete_listing(entries: Mapping[str, Any], name: str, market: Market) -> dict[str, Any]:
    """Return the entries of an instrument with the keys of its listing, without a preset."""
    complete = {"symbol": market.instrument or name, **entries}
    preset = complete.pop("preset", None)
    if preset and "listing" in complete:
        raise core.ParameterError(
            f"venue.listing must be given without a preset, got {preset!r}; like= names the preset "
            "of the other rules"
        )

    if preset == AUTO:
        file = require_listing(name, market)
        complete |= {"listing": str(file), BESIDE: True}
        complete.setdefault("like", find_like(file))
    elif preset:
        complete |= name_listing(preset)
    return complete


def require_listing(name: str, market: Market) -> Path:
    """Return the listing beside the bars; raise a ParameterError if there is none."""
    file = find_listing(market)
    if file is None:
        raise core.ParameterError(
            f"--venue {AUTO} needs {LISTING_FILE} beside the bars of "
            f"{market.instrument or name}, which `backtest data fetch` writes; got none"
        )
    return file


def name_listing(preset: str) -> dict[str, Any]:
    """Return the keys of a listing that a text ``file:`` states."""
    parsed = listing.parse_listing_name(preset)
    stated = {"listing": parsed.path, "symbol": parsed.symbol, "like": parsed.like}
    entries: dict[str, Any] = {key: value for key, value in stated.items() if value}
    if parsed.date is not None:
        entries["date"] = parsed.date
    return entries


def find_like(file: Path) -> str:
    """Return the preset that a fetched listing names, Binance's if it names none."""
    content = core.read_json_file(file)
    if not isinstance(content, Mapping):
        return listing.DEFAULT_LIKE
    return str(content.get("like") or listing.DEFAULT_LIKE)


def check_keys(table: Mapping[str, Any], markets: Markets) -> None:
    """Raise a ParameterError if there is a key of a listing, and no listing."""
    single = [table[name] for name in markets.names if isinstance(table.get(name), Mapping)]
    for entries in (table, *single):
        for key in OF_LISTING[1:]:
            if key in entries:
                raise core.ParameterError(f"venue.{key} is of a listing: it needs venue.listing")


def read_entries(entries: Mapping[str, Any]) -> Venue:
    """Return the venue of a listing that the entries of an instrument name."""
    for name in ("listing", "symbol", "like"):
        if not isinstance(entries.get(name, ""), str):
            raise core.ParameterError(f"venue.{name}: must be text, got {entries[name]!r:.60}")

    file = entries["listing"]
    symbol = entries["symbol"]
    like = entries.get("like", listing.DEFAULT_LIKE)
    if BESIDE in entries and not listing.find_listings(file, symbol)[-1].tiers:
        return read_without_tiers(file, symbol, like)
    return Venue.read(file, symbol, like, entries.get("date"))


def read_without_tiers(file: str, symbol: str, like: str) -> Venue:
    """Return the preset of a symbol with the contract of its listing, which has no tiers.

    Binance gives tiers to accounts only, so a fetch without a key has none.
    """
    name = listing.name_plainly(symbol)
    venue, _, _ = like.partition(":")
    if name not in preset_files.read_tables(venue):
        raise core.VenueError(
            f"{file}: {symbol}.brackets: are needed, the venue gives tiers to accounts only and "
            f"{venue} has no table of {name}; save fetch_leverage_tiers() of yours as 'tiers' there"
        )

    core.warn_caller(
        f"{file} has no tiers of {symbol}, which the venue gives to accounts only: the margin "
        f"brackets are those of {venue}:{name}"
    )
    preset = Venue.preset(venue, name)
    newest = listing.find_listings(file, symbol)[-1]
    contract, _ = listing.read_contract(newest, preset.contract.to_dict(), f"{venue}:{name}")
    return preset.override(contract=contract)
