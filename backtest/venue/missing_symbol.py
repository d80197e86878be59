"""What to do about a symbol that has no preset, as text for errors."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
