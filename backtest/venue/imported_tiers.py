"""Leverage tiers of other programs, written as venue tables for ``--venue FILE.toml:SYMBOL``.

ccxt's ``fetchLeverageTiers`` and freqtrade's tier files (``binance_leverage_tiers.json``) are JSON:
a list of tiers per symbol, each with ``minNotional``, ``maxNotional``, ``maintenanceMarginRate``
and ``maxLeverage``. They say nothing of fees and contracts: those are taken from a preset.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import write_file
from backtest.base.errors import VenueError, did_you_mean
from backtest.venue import preset_files, preset_schema
from backtest.venue.brackets import Bracket
from backtest.venue.venue import Venue

COLUMNS = ("floor", "cap", "max_leverage", "maintenance_rate", "amount")
NAMES = ("minNotional", "maxNotional", "maxLeverage", "maintenanceMarginRate")
AMOUNTS = ("maintAmt", "cum", "mmDeduction")
COUNTED = ("maxSz", "contracts", "numNonContractUnits")
"""What the venue's own answer has where ccxt passes on sizes, not notionals."""
MOST_BYTES = 200 << 20
CURE = "give what ccxt's fetchLeverageTiers returns as JSON, or freqtrade's tier file"


def read_tiers(file: Path, symbol: str, unit: float | None = None) -> list[Bracket]:
    """Return the brackets of a symbol from a JSON file of leverage tiers.

    Parameters
    ----------
    file : Path
        Of ccxt (``fetchLeverageTiers`` or ``fetchMarketLeverageTiers``) or freqtrade.
    symbol : str
        As the file has it, ``"BTC/USDT:USDT"``.
    unit : float, optional
        What a unit of the file's sizes is worth in the settlement currency, where it counts
        contracts or coins. Default: it has notionals.

    Raises
    ------
    VenueError
        If the file cannot be read, has no such symbol, or its tiers are no table.
    """
    tiers = find_symbol(read_json(file), symbol, file)
    counted = any(name in _info(tier) for tier in tiers for name in COUNTED)
    if counted and unit is None:
        raise VenueError(
            f"the tiers of {symbol} are in contracts or coins, notionals are needed",
            where=str(file),
            cure="say with --unit what one of them is worth in the settlement currency; a venue "
            "that charges a tier's rate on the whole position asks for more than such a table",
        )
    scale = 1.0 if unit is None else unit
    return [
        _read_tier(tier, scale, f"{file}, {symbol}, tier {k + 1}") for k, tier in enumerate(tiers)
    ]


def read_json(file: Path) -> Any:
    """Return the content of a JSON file.

    Raises
    ------
    VenueError
        If it is none, or too large.
    """
    if not file.is_file():
        raise VenueError(
            f"leverage tiers must be in a file, {str(file)!r} does not exist",
            where=f"FILE, searched from {Path.cwd()}",
            cure=CURE,
        )
    if file.stat().st_size > MOST_BYTES:
        raise VenueError(
            f"a file of leverage tiers must be at most {MOST_BYTES >> 20} MiB, "
            f"was {file.stat().st_size >> 20}",
            where=str(file),
            cure=CURE,
        )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VenueError(
            f"leverage tiers must be JSON: {error}", where=str(file), cure=CURE
        ) from error


def find_symbol(content: Any, symbol: str, file: Path) -> list[Mapping[str, Any]]:
    """Return the tiers of a symbol; a bare list is that of the symbol its tiers name."""
    if isinstance(content, list):
        named = {str(_field(tier, "symbol")) for tier in content} - {"None"}
        content = {(named.pop() if len(named) == 1 else symbol): content}
    if not isinstance(content, Mapping) or symbol not in content:
        known = list(content) if isinstance(content, Mapping) else []
        shown = ", ".join(map(str, known[:5])) + (", ..." if len(known) > 5 else "")
        raise VenueError(
            f"the file must have tiers of {symbol!r}, has {shown or 'none'}"
            + did_you_mean(symbol, map(str, known)),
            where=str(file),
            cure="give --symbol as the file has it, for example BTC/USDT:USDT",
        )
    tiers = content[symbol]
    if not isinstance(tiers, list) or not tiers or not all(isinstance(t, Mapping) for t in tiers):
        raise VenueError(
            f"the tiers of {symbol} must be a list of objects, were {tiers!r:.60}",
            where=str(file),
            cure=CURE,
        )
    return tiers


def _read_tier(tier: Mapping[str, Any], scale: float, where: str) -> Bracket:
    floor, cap, leverage, rate = (_number(tier.get(name), name, where) for name in NAMES)
    info = {**_info(tier), **tier}
    amount = next((info[name] for name in AMOUNTS if info.get(name) not in (None, "")), None)
    return Bracket(
        floor * scale,
        math.inf if math.isnan(cap) else cap * scale,
        leverage,
        rate,
        None if amount is None else _number(amount, "amount", where) * scale,
    )


def _number(value: Any, name: str, where: str) -> float:
    """Return a number, also of a text; NaN for a cap that is not said."""
    if value is None and name == "maxNotional":
        return math.nan
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise VenueError(f"{name} must be a number, was {value!r:.60}", where=where, cure=CURE)


def _info(tier: Mapping[str, Any]) -> Mapping[str, Any]:
    info = tier.get("info")
    return info if isinstance(info, Mapping) else {}


def _field(tier: Any, name: str) -> Any:
    return tier.get(name) if isinstance(tier, Mapping) else None


# ----------------------------------------------------------------------------------- writing tables


def write_symbol(symbol: str) -> str:
    """Return ccxt's name of an instrument without its signs.

    Examples
    --------
    >>> write_symbol("BTC/USDT:USDT"), write_symbol("BTCUSDT")
    ('BTCUSDT', 'BTCUSDT')
    """
    return re.sub(r"[^A-Za-z0-9_-]", "", symbol.partition(":")[0])


def write_venue(
    file: Path,
    symbol: str,
    brackets: Sequence[Bracket],
    *,
    date: str,
    source: str,
    like: preset_files.Name,
) -> Venue:
    """Put a margin table into a file of venue tables, and return the venue it makes.

    A file that is there keeps its other symbols and, of this one, its tables of other days.

    Parameters
    ----------
    file : Path
        Ends with ``.toml``; its folder is made where it does not exist.
    symbol : str
        Its name in the file.
    brackets : sequence of Bracket
        The margin table.
    date, source : str
        The day it holds from, and where it comes from.
    like : Name
        The preset whose fees, liquidation and other rules it takes, and the kind of contract.

    Raises
    ------
    VenueError
        If the brackets are no table, or the file that is there is none of venue tables.
    """
    held = preset_files.read_tables(file) if file.is_file() else {}
    groups = held.get(symbol) or _borrow(symbol, like)
    rows = [[getattr(row, name) for name in COLUMNS] for row in _complete(brackets, like)]
    table = {"date": date, "source": source, "columns": list(COLUMNS), "rows": rows}
    others = [each for each in groups.get("brackets", []) if each["date"] != date]
    groups["brackets"] = sorted([*others, table], key=lambda each: str(each["date"]))
    text = "\n".join(_write_groups(name, each) for name, each in {**held, symbol: groups}.items())
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, text.encode())
    return Venue.preset(str(file), symbol, at=date)


def _complete(brackets: Sequence[Bracket], like: preset_files.Name) -> Sequence[Bracket]:
    """Return the brackets with their amounts, checked as a venue's."""
    return Venue.preset(*like).override(brackets=list(brackets)).brackets


def _borrow(symbol: str, like: preset_files.Name) -> dict[str, Any]:
    """Return the groups of a preset for another symbol: its steps of quantity are not known."""
    name = f"{Path(like.venue).stem}:{like.symbol}"
    tables = preset_files.read_tables(like.venue)[like.symbol]
    groups: dict[str, Any] = {
        group: [{**tables[group][-1], "source": f"as {name}: {tables[group][-1]['source']}"}]
        for group in preset_schema.GROUPS
        if group in tables and group != "brackets"
    }
    if symbol != like.symbol:
        (contract,) = groups["contract"]
        contract |= {"size": 1.0, "lot": 0.0, "tick": 1e-8}
        contract["source"] = f"kind and least notional as {name}; steps not known: no rounding"
    return {"title": f"{symbol}, imported; other rules as {name}", **groups}


def _write_groups(symbol: str, groups: Mapping[str, Any]) -> str:
    """Return a symbol's groups as TOML."""
    key = symbol if re.fullmatch(r"[A-Za-z0-9_-]+", symbol) else json.dumps(symbol)
    lines = [f"[{key}]", f"title = {_write_value(groups['title'])}", ""]
    for group in preset_schema.GROUPS:
        for table in groups.get(group, []):
            lines += [f"[[{key}.{group}]]"]
            lines += [f"{name} = {_write_value(value)}" for name, value in table.items()]
            lines += [""]
    return "\n".join(lines)


def _write_value(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + "".join(f"  {_write_value(row)},\n" for row in value) + "]"
    if isinstance(value, list):
        return f"[{', '.join(map(_write_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
