"""The venues of an experiment: ``[venue]``, by instrument where it says so, and ``[lending]``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest import core
from backtest.experiments import venue_choice
from backtest.experiments.data_table import is_sample, list_texts
from backtest.experiments.draft import Draft
from backtest.experiments.instrument_tables import build_by_instrument
from backtest.experiments.tables import DEFAULT_VENUE, SAMPLE
from backtest.margin import RateCurve
from backtest.market import Market, Markets, is_panel
from backtest.venue import Venue, preset_files
from backtest.venue.symbols import describe_other_symbol, describe_rules, find_preset_symbol


def build_venues(draft: Draft, markets: Markets) -> Venue | dict[str, Venue]:
    """Return the venue of ``[venue]``, or one for each instrument.

    Warns where the rules of a preset are those of another symbol than the prices.
    """
    data = draft.table("data")
    paths = list_texts(data.get("path", SAMPLE))
    instruments = list_texts(data.get("instrument", []))
    has_symbols = not is_sample(paths)
    is_several = is_panel([Path(path) for path in paths], instruments)

    table = venue_choice.choose_listings(dict(draft.table("venue")), markets, has_files=has_symbols)
    if has_symbols and "listing" not in table:
        if is_several:
            complete_presets(table, markets)
        else:
            complete_preset_of_one(table, markets)
    table.setdefault("preset", DEFAULT_VENUE)

    venue: Venue | dict[str, Venue] = build_by_instrument(
        "venue", table, markets.names, [*Venue.__dataclass_fields__], build_venue
    )
    if has_symbols:
        for name, market in markets.items():
            warn_of_other_symbol(core.pick_value(venue, name), name, market, len(markets))
    return venue


def complete_presets(table: dict[str, Any], markets: Markets) -> None:
    """Write into ``table`` a preset with its own symbol for each instrument.

    Nothing is written if the preset of all has a symbol, or if there is none.
    """
    shared = table.setdefault("preset", DEFAULT_VENUE.partition(":")[0])
    if not shared or ":" in shared:
        return

    for name, market in markets.items():
        entries = table.get(name, {})
        if not isinstance(entries, Mapping):
            raise core.ParameterError(f"venue.{name}: must be a table, got {entries!r:.60}")
        if "listing" in entries:
            continue
        preset = complete_preset(entries.get("preset", shared), name, market)
        table[name] = {**entries, "preset": preset}


def complete_preset_of_one(table: dict[str, Any], markets: Markets) -> None:
    """Write into ``table`` the preset with the symbol of the only instrument, as of several.

    Where the experiment names no venue, and the usual one has no such symbol, nothing is written:
    the usual venue is taken whole, and a warning says whose rules these are.
    """
    name, market = next(iter(markets.items()))
    if market.synthetic or not market.instrument:
        return

    usual = DEFAULT_VENUE.partition(":")[0]
    if "preset" not in table and find_preset_symbol(usual, name, market.instrument) is None:
        return
    shared = table.get("preset", usual)
    if shared:
        table["preset"] = complete_preset(shared, name, market)


def warn_of_other_symbol(venue: Venue, name: str, market: Market, n_markets: int) -> None:
    """Warn if the rules of a venue are for another symbol than the prices of an instrument."""
    instrument = market.instrument
    text = describe_other_symbol(venue, instrument or name, synthetic=market.synthetic)
    if not text:
        return

    if n_markets > 1:
        text = f"{text}; --venue NAME without a symbol uses the rules of each instrument"
    elif not instrument:
        terms: Any = venue.in_force
        text = (
            f"the data do not name their instrument; {describe_rules(terms.symbol)}: name it, "
            f"--instrument {terms.symbol}, or choose other rules, --venue NAME:SYMBOL"
        )
    warnings.warn(text, stacklevel=3)


def build_venue(entries: Mapping[str, Any]) -> Venue:
    """Return the venue of a table: a listing, a preset, or one that is written whole."""
    naming = ("preset", venue_choice.BESIDE, *venue_choice.OF_LISTING)
    terms = {name: entry for name, entry in entries.items() if name not in naming}
    if "listing" in entries:
        return venue_choice.read_entries(entries).override(terms)
    if not entries["preset"]:
        return Venue.from_dict(terms)
    return Venue.preset(*preset_files.parse_name(entries["preset"])).override(terms)


def complete_preset(text: str, name: str, market: Market) -> str:
    """Return ``venue:SYMBOL`` for ``venue``, with the symbol of an instrument."""
    venue, at, date = text.partition("@")
    if ":" in venue or venue.endswith(preset_files.SUFFIXES):
        return text

    names = [known for known in (name, market.instrument) if known]
    is_known = any(file.venue == venue for file in preset_files.available())
    if not is_known:  # the preset says what there is
        return f"{venue}:{names[-1]}{at}{date}"

    symbol = find_preset_symbol(venue, *names)
    if symbol is None:
        raise core.VenueError(
            f"the venue must have a margin table of each instrument, {venue} has none of "
            f"{names[-1]!r}; an experiment gives one, [venue.{name}] with preset = "
            "'NAME:SYMBOL' or 'file:LISTING.json'"
        )
    return f"{venue}:{symbol}{at}{date}"


def apply_lending(draft: Draft, venue: Any, markets: Markets) -> Any:
    """Return the venue, or each of them, with the rates of ``[lending]``, if that is there."""
    terms = dict(draft.table("lending"))
    if not terms:
        return venue

    utilization = terms.pop("utilization", None)
    curve = RateCurve.from_dict(terms, where="lending")
    if utilization is None or (len(markets) > 1 and isinstance(utilization, str)):
        raise core.ParameterError(
            "lending.utilization is needed, 0.8 for example, or for one market the name of a "
            f"column of its bars, got {utilization!r}"
        )
    rates = curve.rates(next(iter(markets.values())), utilization)
    for one_venue in core.list_values(venue):
        refuse_other_rates(one_venue, [*rates])

    changes = {"interest_on": "loan", **rates}
    if isinstance(venue, Mapping):
        return {name: one_venue.override(changes) for name, one_venue in venue.items()}
    return venue.override(changes)


def refuse_other_rates(venue: Venue, names: list[str]) -> None:
    """Raise a ParameterError if a venue has rates of its own beside those of ``[lending]``."""
    stated = [name for name in names if repr(getattr(venue, name)) not in ("0", "0.0")]
    if venue.interest_on == "balance":
        stated.append("interest_on")
    if stated:
        raise core.ParameterError(
            f"rates must come from [lending] or from the venue, got venue.{stated[0]} too"
        )
