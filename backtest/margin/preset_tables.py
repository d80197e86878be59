"""Tables of margin presets by date, and the assets by which instruments are grouped."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from backtest import core
from backtest.core import ParameterError, repr_plain
from backtest.market import split_pair
from backtest.venue import preset_files
from backtest.venue.preset_files import Group, choose_table

Names = Sequence[str]


QUOTES = re.compile(r"[-_/]?(USDT|USDC|BUSD|FDUSD|USD|PERP|SWAP).*")


ALIASES = {"XBT": "BTC", "PF_XBT": "BTC", "PF_ETH": "ETH"}


def find_asset(instrument: str) -> str:
    """Return the coin of an instrument: BTC of "BTCUSDT", "BTC-PERPETUAL", "XBTUSD" and "btc"."""
    name = instrument.upper()
    coin, quote = split_pair(name)
    asset = coin
    if "USD" not in quote:
        asset = QUOTES.sub("", name) or name
    return ALIASES.get(asset, asset)


def find_margins(name: str, at: core.TimeLike | None) -> tuple[Group, Group]:
    """Return a margin preset, and its table in force at a time."""
    presets = load_margins()
    if name not in presets:
        raise core.VenueError(
            f"there are no margin rules {repr_plain(name)}{core.did_you_mean(str(name), presets)}; "
            f"known are {', '.join(presets)}"
        )
    content = presets[name]
    table, _ = choose_table(content["tables"], preset_files.read_day(at))
    return content, table


@functools.cache
def load_margins() -> dict[str, Group]:
    return tomllib.loads(Path(__file__).with_name("margin_presets.toml").read_text("utf-8"))


def group_by_asset(instruments: Names | Mapping[str, Names]) -> dict[str, tuple[str, ...]]:
    """Return the instruments of each group: as a mapping has them, or those of a list by coin."""
    if isinstance(instruments, Mapping):
        return {str(group): tuple(names) for group, names in instruments.items()}
    if isinstance(instruments, str) or not isinstance(instruments, Sequence):
        raise ParameterError(f"instruments must be a list of names, got {repr_plain(instruments)}")

    groups: dict[str, tuple[str, ...]] = {}
    for instrument in instruments:
        name = core.Text().check("instruments", instrument)
        asset = find_asset(name)
        groups[asset] = (*groups.get(asset, ()), name)
    return groups
