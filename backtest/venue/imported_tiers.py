"""Import of leverage tiers from other programs, as venue files for ``--venue FILE.json:SYMBOL``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backtest.base import ParameterError, VenueError, did_you_mean, is_currency, write_file
from backtest.base.units import TOLERANCE
from backtest.venue.preset_files import GROUPS, PresetName, find_preset, read_tables
from backtest.venue.venue import Bracket, Venue

NAMES = ("minNotional", "maxNotional", "maxLeverage", "maintenanceMarginRate")
AMOUNTS = ("maintAmt", "cum", "mmDeduction")
SIZES = ("maxSz", "contracts", "numNonContractUnits")
MOST_BYTES = 200 << 20


def read_tiers(file: Path, symbol: str, unit: float | None = None) -> list[Bracket]:
    """Return the brackets of a symbol from a JSON file of leverage tiers.

    The file comes from ccxt (``fetchLeverageTiers`` or ``fetchMarketLeverageTiers``) or freqtrade,
    and ``symbol`` is written as there, ``"BTC/USDT:USDT"``. If its sizes are in contracts or coins,
    ``unit`` is the worth of one in the settlement currency; by default they are notionals.
    """
    tiers = _find_tiers(_read_json(file), symbol, file)
    if unit is None and any(name in _info(tier) for tier in tiers for name in SIZES):
        raise VenueError(
            f"{file}: the tiers of {symbol} are in contracts or coins, notionals are needed; unit "
            "says what one of them is worth in the settlement currency"
        )
    scale = 1.0 if unit is None else unit
    rows = [
        _read_tier(tier, scale, f"{file}: {symbol}, tier {k}") for k, tier in enumerate(tiers, 1)
    ]
    return rows if unit is None else _close_steps(rows, unit)


def _close_steps(rows: Sequence[Bracket], unit: float) -> list[Bracket]:
    caps = [0.0, *(row.cap for row in rows[:-1])]
    return [
        replace(row, floor=cap) if 0.0 < row.floor - cap <= unit * (1.0 + TOLERANCE) else row
        for cap, row in zip(caps, rows, strict=True)
    ]


def _read_json(file: Path) -> Any:
    if not file.is_file():
        raise VenueError(f"file of leverage tiers {str(file)!r} does not exist in {Path.cwd()}")
    if file.stat().st_size > MOST_BYTES:
        raise VenueError(f"{file}: leverage tiers must be at most {MOST_BYTES >> 20} MiB")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise VenueError(f"{file}: leverage tiers must be JSON: {error}") from error


def _find_tiers(content: Any, symbol: str, file: Path) -> list[Mapping[str, Any]]:
    if isinstance(content, list):
        named = {str(tier.get("symbol")) for tier in content if isinstance(tier, Mapping)}
        named -= {"None"}
        content = {(named.pop() if len(named) == 1 else symbol): content}
    known = [*map(str, content)] if isinstance(content, Mapping) else []
    if symbol not in known:
        raise VenueError(
            f"{file} must have tiers of {symbol!r}, got {', '.join(known[:5]) or 'none'}"
            + did_you_mean(symbol, known)
        )
    tiers = content[symbol]
    if not isinstance(tiers, list) or not tiers or not all(isinstance(t, Mapping) for t in tiers):
        raise VenueError(f"{file}: tiers of {symbol} must be a list of objects, got {tiers!r:.60}")
    return tiers


def _read_tier(tier: Mapping[str, Any], scale: float, where: str) -> Bracket:
    floor, cap, leverage, rate = (_read_number(tier.get(name), name, where) for name in NAMES)
    info = {**_info(tier), **tier}
    initial = info.get("initialMargin")  # of Bybit, whose rates are in percent for some contracts
    if initial not in (None, "") and _read_number(initial, "initialMargin", where) * leverage > 10:
        rate /= 100
    amount = next((info[name] for name in AMOUNTS if info.get(name) not in (None, "")), None)
    deduction = None if amount is None else _read_number(amount, "amount", where) * scale
    end = math.inf if math.isnan(cap) else cap * scale
    try:
        return Bracket(floor * scale, end, leverage, rate, deduction)
    except ParameterError as error:
        raise VenueError(f"{where}: {error}") from error


def _read_number(value: Any, name: str, where: str) -> float:
    if value is None and name == "maxNotional":
        return math.nan
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise VenueError(f"{where}: {name} must be a number, got {value!r:.60}")


def _info(tier: Mapping[str, Any]) -> Mapping[str, Any]:
    info = tier.get("info")
    return info if isinstance(info, Mapping) else {}


# ----------------------------------------------------------------------------------- writing tables


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
