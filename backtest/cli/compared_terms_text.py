"""The venues, accounts and margin modes of a comparison, as flags and files give them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from backtest.account import Account
from backtest.base import ParameterError
from backtest.cli.experiment_draft import Draft, DraftTable, GivenFlag, located, overlay
from backtest.cli.experiment_venue import build_venue, split_preset
from backtest.venue import Venue


def read_venue_flags(flag: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
    """Yield the venue that all accounts share, or the several that are compared."""
    if len(texts) == 1:
        yield GivenFlag(flag, "venue", "preset", texts[0])
    else:
        yield GivenFlag(flag, "compare", "venues", list(texts))


def read_margin_flag(flag: str, text: str) -> Iterator[GivenFlag]:
    """Yield the margin mode of the account, or the several that are compared."""
    modes = [each.strip() for each in text.split(",")]
    if len(modes) == 1:
        yield GivenFlag(flag, "account", "margin", modes[0])
    else:
        yield GivenFlag(flag, "compare", "margins", modes)


def replace_terms(draft: Draft, terms: dict[str, Any]) -> dict[str, Any]:
    """Return the terms of a comparison, with several venues and accounts where they are given."""
    table = draft.tables.get("compare", {})
    changed = dict(terms)
    if "venues" in table:
        changed["venues"] = build_venues(draft, table["venues"])
        del changed["venue"]
    if isinstance(table.get("accounts"), str):
        changed["accounts"] = table["accounts"]
    elif "accounts" in table:
        changed["accounts"] = build_accounts(draft, table["accounts"])
        del changed["account"]
    return changed


def build_venues(draft: Draft, given: Any) -> dict[str, Venue]:
    """Return venues by label: the presets of a list, or tables as ``[venue]``.

    The fields of ``[venue]`` hold for all of them, except the preset.
    """
    where, folder = draft.locate("compare", ("venues",)), draft.find_base("compare", "venues")
    shared = {k: v for k, v in draft.tables.get("venue", {}).items() if k != "preset"}
    tables = label_presets(given, where) if isinstance(given, list) else given
    found = {}
    for label, table in tables.items():
        place = f"{where}, {label}"
        if not isinstance(table, dict) or "preset" not in table:
            raise ParameterError(
                f"a venue of a comparison must be a table with a preset, got {table!r:.80}",
                where=place,
                cure="write [compare.venues.LABEL] with preset = 'binance-usdm:BTCUSDT'",
            )
        own = overlay(shared, table)
        preset = split_preset(str(own["preset"]), place, folder)
        found[str(label)] = build_venue(DraftTable(own, place, folder), preset)
    return found


def label_presets(texts: Sequence[str], where: str) -> dict[str, dict[str, Any]]:
    """Return a table for each preset, by its venue's name, or by its whole text if names repeat."""
    names = Counter(text.partition(":")[0] for text in texts)
    labels = [name if names[name := text.partition(":")[0]] == 1 else text for text in texts]
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise ParameterError(
            f"the venues to compare must be different, {twice[0]} was given twice",
            where=where,
            cure="give another venue, or the same one with another @DATE",
        )
    return {label: {"preset": text} for label, text in zip(labels, texts, strict=True)}


def build_accounts(draft: Draft, given: dict[str, Any]) -> dict[str, Account]:
    """Return accounts by label: ``[account]`` with the fields of each label's table."""
    where, shared = draft.locate("compare", ("accounts",)), draft.tables.get("account", {})
    found = {}
    for label, table in given.items():
        place = f"{where}, {label}"
        if not isinstance(table, dict):
            raise ParameterError(
                f"an account of a comparison must be a table, got {table!r:.80}",
                where=place,
                cure="write [compare.accounts.LABEL] with fields as in [account]",
            )
        with located(place):
            found[label] = Account.from_dict(overlay(shared, table))
    return found
