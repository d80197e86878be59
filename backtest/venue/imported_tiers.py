"""Import of leverage tiers from other programs, as venue files for ``--venue FILE.json:SYMBOL``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backtest.base import ParameterError, VenueError, did_you_mean, is_currency, write_file
from backtest.base.units import TOLERANCE
from backtest.venue.preset_files import GROUPS, PresetName, find_preset, read_tables
from backtest.venue.venue import Bracket, Venue

AMOUNTS = ("maintAmt", "cum", "mmDeduction")
SIZES = ("maxSz", "contracts", "numNonContractUnits")


def read_tiers(file: Path, symbol: str, unit: float | None = None) -> list[Bracket]:
    """Return the brackets of a symbol from a JSON file of leverage tiers.

    The file comes from ccxt (``fetchLeverageTiers`` or ``fetchMarketLeverageTiers``) or freqtrade,
    and ``symbol`` is written as there, ``"BTC/USDT:USDT"``. If its sizes are in contracts or coins,
    ``unit`` is the worth of one in the settlement currency; by default they are notionals.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VenueError(f"{file}: leverage tiers must be JSON: {error}") from error
    tables = content if isinstance(content, Mapping) else {symbol: content}
    if symbol not in tables:
        known = [*map(str, tables)]
        raise VenueError(
            f"{file} must have tiers of {symbol!r}, got {', '.join(known[:5]) or 'none'}"
            + did_you_mean(symbol, known)
        )
    rows: list[Bracket] = []
    scale = 1.0 if unit is None else unit
    try:
        for tier in tables[symbol]:
            info = {**(tier.get("info") or {}), **tier}
            if unit is None and any(name in info for name in SIZES):
                raise VenueError(
                    f"{file}: the tiers of {symbol} are in contracts or coins, notionals are "
                    "needed; unit says what one of them is worth in the settlement currency"
                )
            floor = float(tier["minNotional"]) * scale
            before = rows[-1].cap if rows else 0.0
            if unit is not None and 0.0 < floor - before <= unit * (1.0 + TOLERANCE):
                floor = before  # the next tier begins with the next contract
            cap = tier.get("maxNotional")
            end = math.inf if cap is None else float(cap) * scale
            most, rate = float(tier["maxLeverage"]), float(tier["maintenanceMarginRate"])
            given = [float(info[each]) for each in AMOUNTS if info.get(each) not in (None, "")]
            rows.append(Bracket(floor, end, most, rate, given[0] * scale if given else None))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VenueError(
            f"{file}: {symbol}, tier {len(rows) + 1} must have the numbers minNotional, "
            f"maxNotional, maxLeverage and maintenanceMarginRate: {error}"
        ) from error
    except ParameterError as error:
        raise VenueError(f"{file}: {symbol}, tier {len(rows) + 1}: {error}") from error
    return rows


def plain_symbol(symbol: str) -> str:
    """Return ccxt's name of an instrument without punctuation and settlement currency."""
    return re.sub(r"[^A-Za-z0-9_-]", "", symbol.partition(":")[0])


def read_settlement(symbol: str) -> str | None:
    """Return the settlement currency in ccxt's name of an instrument, None if it has none."""
    found = symbol.partition(":")[2].partition("-")[0]
    return found if is_currency(found) else None


def write_venue(
    file: Path,
    symbol: str,
    brackets: Sequence[Bracket],
    *,
    date: str,
    source: str,
    like: PresetName,
    settles: str | None = None,
) -> Venue:
    """Add a margin table to a file of venue tables, and return the resulting venue.

    The name of the file ends with ``.json``; its folder is created if necessary. ``date`` is the
    day from which the table holds. ``like`` names the preset whose fees, liquidation, kind of
    contract and other rules are used. ``settles`` is the settlement currency, by default that of
    ``like``.
    """
    tables = read_tables(str(file)) if file.is_file() else {}
    held = {name: each.to_dict() for name, each in tables.items()}
    groups = held.get(symbol) or _borrow_groups(symbol, like)
    if settles is not None:
        groups["contract"][-1]["settles"] = settles
    complete = Venue.preset(*like).override(brackets=list(brackets)).brackets  # with amounts
    table = {"date": date, "source": source, "brackets": [row.to_dict() for row in complete]}
    others = [each for each in groups["brackets"] if each["date"] != date]
    groups["brackets"] = sorted([*others, table], key=lambda each: str(each["date"]))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps({**held, symbol: groups}, indent=1, ensure_ascii=False).encode())
    return Venue.preset(str(file), symbol, at=date)


def _borrow_groups(symbol: str, like: PresetName) -> dict[str, Any]:
    name, tables = f"{Path(like.venue).stem}:{like.symbol}", find_preset(like.venue, like.symbol)
    groups: dict[str, Any] = {
        group: [{**each, "source": f"as {name}: {each['source']}"} for each in given[-1:]]
        for group in GROUPS
        if (given := getattr(tables, group))
    }
    if symbol != like.symbol:
        groups["contract"][0] |= {
            "size": 1.0,
            "lot": 0.0,
            "tick": 1e-8,
            "source": f"kind and least notional as {name}; steps not known: no rounding",
        }
    title = f"{symbol}, imported; other rules as {name}"
    return {"title": title, **groups, "brackets": []}
