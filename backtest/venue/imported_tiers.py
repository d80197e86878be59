"""Import of leverage tiers from other programs, as venue files for ``--venue FILE.toml:SYMBOL``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backtest.base import VenueError, did_you_mean, is_currency, write_file
from backtest.base.units import TOLERANCE
from backtest.venue import preset_files, preset_schema
from backtest.venue.brackets import Bracket
from backtest.venue.venue import Venue

COLUMNS = ("floor", "cap", "max_leverage", "maintenance_rate", "amount")
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
            f"the tiers of {symbol} are in contracts or coins, notionals are needed",
            where=str(file),
            cure="give with --unit what one of them is worth in the settlement currency; a venue "
            "that charges a tier's rate on the whole position asks for more than such a table",
        )
    scale = 1.0 if unit is None else unit
    rows = [
        _read_tier(tier, scale, f"{file}, {symbol}, tier {k}") for k, tier in enumerate(tiers, 1)
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
        problem = f"leverage tiers must be in a file, {str(file)!r} does not exist"
        raise _refuse(problem, f"FILE, searched from {Path.cwd()}")
    size = file.stat().st_size
    if size > MOST_BYTES:
        problem = f"a file of leverage tiers must be at most {MOST_BYTES >> 20} MiB"
        raise _refuse(f"{problem}, got {size >> 20}", file)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refuse(f"leverage tiers must be JSON: {error}", file) from error


def _find_tiers(content: Any, symbol: str, file: Path) -> list[Mapping[str, Any]]:
    if isinstance(content, list):
        named = {str(tier.get("symbol")) for tier in content if isinstance(tier, Mapping)}
        named -= {"None"}
        content = {(named.pop() if len(named) == 1 else symbol): content}
    if not isinstance(content, Mapping) or symbol not in content:
        known = list(content) if isinstance(content, Mapping) else []
        shown = ", ".join(map(str, known[:5])) + (", ..." if len(known) > 5 else "")
        raise VenueError(
            f"the file must have tiers of {symbol!r}, got {shown or 'none'}"
            + did_you_mean(symbol, map(str, known)),
            where=str(file),
            cure="give --symbol as the file has it, for example BTC/USDT:USDT",
        )
    tiers = content[symbol]
    if not isinstance(tiers, list) or not tiers or not all(isinstance(t, Mapping) for t in tiers):
        raise _refuse(f"the tiers of {symbol} must be a list of objects, got {tiers!r:.60}", file)
    return tiers


def _read_tier(tier: Mapping[str, Any], scale: float, where: str) -> Bracket:
    floor, cap, leverage, rate = (_number(tier.get(name), name, where) for name in NAMES)
    info = {**_info(tier), **tier}
    initial = info.get("initialMargin")  # of Bybit, whose rates are in percent for some contracts
    if initial not in (None, "") and _number(initial, "initialMargin", where) * leverage > 10:
        rate /= 100
    amount = next((info[name] for name in AMOUNTS if info.get(name) not in (None, "")), None)
    return Bracket(
        floor * scale,
        math.inf if math.isnan(cap) else cap * scale,
        leverage,
        rate,
        None if amount is None else _number(amount, "amount", where) * scale,
    )


def _number(value: Any, name: str, where: str) -> float:
    if value is None and name == "maxNotional":
        return math.nan
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise _refuse(f"{name} must be a number, got {value!r:.60}", where)


def _info(tier: Mapping[str, Any]) -> Mapping[str, Any]:
    info = tier.get("info")
    return info if isinstance(info, Mapping) else {}


def _refuse(problem: str, where: object) -> VenueError:
    cure = "give what ccxt's fetchLeverageTiers returns as JSON, or freqtrade's tier file"
    return VenueError(problem, where=str(where), cure=cure)


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
    like: preset_files.PresetName,
    settles: str | None = None,
) -> Venue:
    """Add a margin table to a file of venue tables, and return the resulting venue.

    The name of the file ends with ``.toml``; its folder is created if necessary. ``date`` is the
    day from which the table holds. ``like`` names the preset whose fees, liquidation, kind of
    contract and other rules are used. ``settles`` is the settlement currency, by default that of
    ``like``.
    """
    held = preset_files.read_tables(file) if file.is_file() else {}
    groups = held.get(symbol) or _borrow_groups(symbol, like)
    if settles is not None:
        groups["contract"][-1]["settles"] = settles
    complete = Venue.preset(*like).override(brackets=list(brackets)).brackets  # with amounts
    rows = [[getattr(row, name) for name in COLUMNS] for row in complete]
    table = {"date": date, "source": source, "columns": list(COLUMNS), "rows": rows}
    others = [each for each in groups.get("brackets", []) if each["date"] != date]
    groups["brackets"] = sorted([*others, table], key=lambda each: str(each["date"]))
    text = "\n".join(_write_groups(name, each) for name, each in {**held, symbol: groups}.items())
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, text.encode())
    return Venue.preset(str(file), symbol, at=date)


def _borrow_groups(symbol: str, like: preset_files.PresetName) -> dict[str, Any]:
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
