"""Build the policies and the venues of an experiment, for all instruments or for each."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backtest.base import ParameterError, Text, VenueError, did_you_mean, list_values
from backtest.cli.experiment_data import list_seeds, names_several
from backtest.cli.experiment_draft import Draft, DraftTable, flatten, overlay
from backtest.cli.find_policy import read_policy
from backtest.cli.typed_values import warn_of_large_costs
from backtest.market import Market, Markets
from backtest.policy import Policy
from backtest.venue import Venue, has_other_unit, preset_files

DEFAULT_POLICY = "vol-target"
DEFAULT_VENUE = "binance-usdm:BTCUSDT"


def split_by_name(
    entries: Mapping[str, Any], names: Sequence[str], *, known: Sequence[str], table: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    single = {
        name: dict(entry)
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and name not in known
    }
    for name in single:
        if name not in names:
            raise ParameterError(
                f"{table}.{name} must be of an instrument of the data, {', '.join(names)}"
                + did_you_mean(name, [*names, *known])
            )
    return {name: entry for name, entry in entries.items() if name not in single}, single


# ---------------------------------------------------------------------------------------- policies


def build_policy(section: DraftTable) -> Policy:
    """Build the policy with its settings."""
    name = section.entries.get("name", DEFAULT_POLICY)
    settings = flatten(section.entries.get("settings", {}))
    return read_policy(name, settings, section.folder)


def build_policies(section: DraftTable, names: Sequence[str]) -> Policy | dict[str, Policy]:
    """Build one policy for all instruments, or one for each where tables name them."""
    of_all, single = split_by_name(section.entries, names, known=("settings",), table="policy")
    if not single:
        return build_with_own(section, names)
    missing = [name for name in names if name not in single]
    if missing and "name" not in of_all:
        raise ParameterError(
            f"each instrument must have a policy, {missing[0]!r} has none: policy.name is that of "
            "all that have none"
        )
    return {
        name: build_policy(section._replace(entries=single.get(name, of_all))) for name in names
    }


def build_overlay(section: DraftTable) -> Policy:
    """Build the overlay, which settings alone do not name."""
    if "name" not in section.entries:
        raise ParameterError(
            f"overlay.name is needed, got {', '.join(flatten(section.entries))} only"
        )
    return build_policy(section)


def build_with_own(section: DraftTable, names: Sequence[str]) -> Policy | dict[str, Policy]:
    """Build one policy, or one by instrument if settings such as ``BTCUSDT.target`` name some."""
    settings = flatten(section.entries.get("settings", {}))
    shared = {key: each for key, each in settings.items() if key.rpartition(".")[0] not in names}
    if len(shared) == len(settings):
        return build_policy(section)
    found = {}
    for name in names:
        own = {key.rpartition(".")[2]: each for key, each in settings.items()
               if key.rpartition(".")[0] == name}  # fmt: skip
        entries = {**section.entries, "settings": {**shared, **own}}
        found[name] = build_policy(section._replace(entries=entries))
    return found


def list_policies(policy: Policy | Mapping[str, Policy]) -> list[Policy]:
    return list(dict.fromkeys(list_values(policy)))


def name_policies(policy: Policy | Mapping[str, Policy]) -> str:
    return ", ".join(dict.fromkeys(type(each).__name__ for each in list_policies(policy)))


# ------------------------------------------------------------------------------------------ venues


def build_venues(draft: Draft, markets: Markets) -> Venue | dict[str, Venue]:
    """Build the venue of each instrument; one for all if the preset names a symbol."""
    section = draft.section("venue", path="preset")
    of_all, single = split_by_name(
        section.entries, markets.names, known=[*Venue.__dataclass_fields__], table="venue"
    )
    base = section._replace(entries=of_all)
    data = draft.section("data", path="path")
    is_several = names_several(data) and not list_seeds(data)  # samples have no symbol
    text = of_all.get("preset", find_default(draft, is_several=is_several))
    if not single and (text is None or ":" in text or not is_several):
        preset = None if text is None else split_preset(text, section.folder)
        venue = build_venue(base, preset)
        if not is_several:
            warn_of_other_symbol(preset, next(iter(markets.values())))
        return venue
    own = {name: base._replace(entries={**of_all, **single.get(name, {})}) for name in markets}
    in_file = draft.from_file.get("venue", {})
    whole = {
        name
        for name in markets
        if any(isinstance(x, Mapping) and "contract" in x for x in (in_file, in_file.get(name)))
    }
    return {
        name: build_own_venue(own[name], None if name in whole else text, name, market)
        for name, market in markets.items()
    }


def find_default(draft: Draft, *, is_several: bool) -> str | None:
    """Return the preset without one in the draft; None if the file gives a venue in full.

    That of several instruments leaves out the symbol.
    """
    if "contract" in draft.from_file.get("venue", {}):
        return None
    return DEFAULT_VENUE.partition(":")[0] if is_several else DEFAULT_VENUE


def build_own_venue(section: DraftTable, default: str | None, name: str, market: Market) -> Venue:
    """Build the venue of one instrument, whose preset may leave the symbol out.

    ``default`` is the preset that it has otherwise; None if its entries are a venue in full.
    """
    given = section.entries.get("preset", default)
    if given is None:
        return build_venue(section, None)
    text = complete_preset(Text().check(f"venue.{name}.preset", given), name, market)
    preset = split_preset(text, section.folder)
    is_named = market.instrument or not names_symbol(preset.symbol, name)
    venue = build_venue(section, preset)
    warn_of_other_symbol(preset if is_named else None, market)
    return venue


def split_preset(text: str, folder: Path = Path()) -> preset_files.PresetName:
    name = preset_files.parse_name(text)
    is_file = name.venue.endswith(preset_files.SUFFIXES)
    return name._replace(venue=str(folder / name.venue)) if is_file else name


def build_venue(section: DraftTable, preset: preset_files.PresetName | None) -> Venue:
    """Build the venue: a preset overridden by the entries, or the entries alone."""
    table = {name: entry for name, entry in section.entries.items() if name != "preset"}
    if preset is not None:
        under = preset_files.read_preset(*preset)
        if "brackets" in table:
            under = {name: under[name] for name in under if name not in ("in_force", "earlier")}
        table = overlay(drop_other_least(under, table.get("contract")), table)
    venue = Venue.from_dict(table)
    warn_of_large_costs(flatten(section.entries))
    return venue


def drop_other_least(preset: Mapping[str, Any], changes: object) -> Mapping[str, Any]:
    held = preset["contract"]
    kind = changes.get("kind") if isinstance(changes, Mapping) else None
    if kind is None or not has_other_unit(held.get("kind", "linear"), kind):
        return preset
    return {**preset, "contract": {x: held[x] for x in held if x != "min_notional"}}


def warn_of_other_symbol(preset: preset_files.PresetName | None, market: Market) -> None:
    if preset is None or market.synthetic:
        return
    symbol = preset.symbol
    if not market.instrument:
        warnings.warn(
            "the data do not name their instrument; the venue's rules (brackets, lot, least "
            f"notional) are those of {symbol}: name it, --instrument {symbol}, or choose other "
            "rules, --venue NAME:SYMBOL",
            stacklevel=2,
        )
    elif not names_symbol(symbol, market.instrument):
        warnings.warn(
            f"the venue's rules (brackets, lot, least notional) are those of {symbol}, "
            f"the prices are those of {market.instrument}",
            stacklevel=2,
        )


def names_symbol(symbol: str, instrument: str) -> bool:
    word = re.sub(r"^PF_|[-_](SWAP|PERPETUAL|PERP)$", "", symbol.upper()).replace("XBT", "BTC")
    plain = re.sub(r"[^A-Z0-9]", "", instrument.upper()).replace("XBT", "BTC")
    return re.sub(r"[^A-Z0-9]", "", word) in plain


def complete_preset(text: str, name: str, market: Market) -> str:
    venue, at, date = text.partition("@")
    if ":" in venue or venue.endswith(preset_files.SUFFIXES):
        return text
    known = [each.symbol for each in preset_files.available() if each.venue == venue]
    names = [each for each in (name, market.instrument) if each]
    exact = [each for each in names if each in known]
    alike = [symbol for each in names for symbol in known if names_symbol(symbol, each)]
    found = exact or sorted(alike, key=len, reverse=True)
    if known and not found:
        raise VenueError(
            f"the venue must have a margin table of each instrument, {venue} has none of "
            f"{names[-1]!r}; 'backtest venues import' takes one from ccxt, and an experiment gives "
            f"it, [venue.{name}] with preset = 'NAME:SYMBOL'"
        )
    return f"{venue}:{found[0] if found else names[-1]}{at}{date}"
