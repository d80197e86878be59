"""Whose rules a venue has: whether the symbol of a preset is that of an instrument."""

from __future__ import annotations

import re

from backtest.market import find_coin
from backtest.venue import preset_files
from backtest.venue.venue import Venue

FOR_ALL = ("STOCK",)
"""Symbols of presets whose rules hold for every instrument of the venue."""

STOCKS = "reg-t:STOCK"
"""The preset that is suggested for stocks."""

OF_VENUES = re.compile(r"^P[FI]_|[-_](SWAP|PERPETUAL|PERP)$")
"""What venues put around the name of a perpetual."""


def describe_other_symbol(venue: Venue, instrument: str, *, synthetic: bool) -> str:
    """Return that a venue has the rules of another symbol than the instrument, or nothing.

    Nothing is said of rules that come from no preset or listing, and of synthetic prices.
    """
    terms = venue.in_force
    if terms is None or synthetic or names_symbol(terms.symbol, instrument):
        return ""
    return f"{describe_rules(terms.symbol)}, the prices are for {instrument}"


def describe_rules(symbol: str) -> str:
    """Return a clause that names the symbol of a venue's rules."""
    return f"the venue's rules (brackets, lot, minimum notional) are for {symbol}"


def advise_rules(venue: Venue, instrument: str, *, has_sessions: bool = False) -> str:
    """Return the advice, for a message, how to give the rules of an instrument itself.

    ``venue`` has those of another symbol. Its own are in a preset of the same venue, or in a
    listing. What has sessions is a stock, which the venue of stocks has whatever its symbol.
    """
    if has_sessions:
        return f"give its own, --venue {STOCKS}"

    house, _, _ = venue.preset_of_rules.partition(":")
    symbol = find_preset_symbol(house, instrument)
    if symbol is not None:
        return f"give its own, --venue {house}:{symbol}"
    return f"give its own, {advise_listing(instrument)}"


def find_preset_symbol(house: str, *names: str) -> str | None:
    """Return the symbol under which the presets of a venue have an instrument, None without one.

    ``names`` are those of the instrument. A symbol of that very name is its own, or else the
    longest that is of the same coin.
    """
    symbols = [preset.symbol for preset in preset_files.available() if preset.venue == house]
    same = [name for name in names if name in symbols]
    if same:
        return same[0]

    alike = [symbol for name in names for symbol in symbols if names_symbol(symbol, name)]
    return max(alike, key=len, default=None)


def advise_listing(instrument: str) -> str:
    """Return how to give rules that no preset has: from a file of what the venue lists."""
    return (
        f"--venue file:LISTING.json (Venue.read(file, {instrument!r}) in Python), or --venue auto "
        "where `backtest data fetch` saved venue.json"
    )


def names_symbol(symbol: str, instrument: str) -> bool:
    """Return whether an instrument is that of a symbol, by whole names.

    ``BTCUSDT`` is that of ``BTC/USDT:USDT``, of ``BTC`` and ``BTC-USD``, but ``WBTCUSDT`` is none
    of them, and ``ETHFIUSDT`` not ``ETH``.
    """
    if symbol in FOR_ALL:
        return True

    coin, word = read_coin(symbol)
    for part in instrument.split(":"):
        part_coin, part_word = read_coin(part)
        if part_coin == coin and part_word.startswith(word):
            return True
    return False


def read_coin(name: str) -> tuple[str, str]:
    """Return the coin in a name, and the name in plain letters; XBT is BTC."""
    plain = OF_VENUES.sub("", name.upper()).replace("XBT", "BTC")
    coin = find_coin(plain) or re.split(r"[^A-Z0-9]", plain)[0]
    word = re.sub(r"[^A-Z0-9]", "", plain)
    return coin, word
