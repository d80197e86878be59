"""Fills: a table of named columns or of ccxt, checked and placed on the bars of a market."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    ParameterError,
    checked_only,
    describe_fault,
    did_you_mean,
    format_time,
    repr_plain,
)
from backtest.live.snapshot import shorten
from backtest.venue import compute_value

if TYPE_CHECKING:
    from backtest.base import BoolArray, IntArray
    from backtest.engine import Setup

NEEDED = ("time", "instrument", "quantity", "price", "fee")
COLUMNS = (*NEEDED, "fee_currency", "kind", "reference", "step")
CCXT = ("timestamp", "symbol", "side", "amount", "price")
SIDES = {"buy": 1.0, "sell": -1.0}
KINDS = (
    "order", "stop", "liquidation", "takeover", "expiry", "delisting", "ruin", "conversion",
    "bad_debt",
)  # fmt: skip
WITHOUT_RANGE = ("bad_debt", "takeover", "liquidation", "expiry", "delisting", "ruin")


@checked_only("names")
def read_fills(
    source: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return fills as :func:`backtest.replay` takes them.

    Parameters
    ----------
    source : str, Path, DataFrame or sequence of mappings
        A CSV or JSON file, a table, or a list: of the columns ``time``, ``instrument``,
        ``quantity``, ``price`` and ``fee``, with what else :attr:`Result.fills` has; or of what
        ccxt's ``fetch_my_trades`` returns.
    names : mapping of str to str, optional
        Our instruments by the symbol of the source. Default: ``BTC/USDT:USDT`` is ``BTCUSDT``.

    Raises
    ------
    DataError
        If columns are missing, or a row cannot be read.
    """
    table = open_table(source)
    is_of_ccxt = set(CCXT) <= set(table.columns)
    if not is_of_ccxt and not {"time", "quantity", "price"} <= set(table.columns):
        raise DataError(
            f"fills must have the columns {', '.join(NEEDED)} (instrument and fee may be left "
            f"out), or ccxt's {', '.join(CCXT)}, got {', '.join(map(str, table.columns))}"
        )
    try:
        found = read_trades(table) if is_of_ccxt else table[[x for x in COLUMNS if x in table]]
        unit: Any = "ms" if pd.api.types.is_numeric_dtype(found["time"]) else None
        stamps = pd.to_datetime(found["time"], unit=unit, utc=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"a row of fills cannot be read: {error}") from error
    found = found.assign(time=stamps.astype("datetime64[ns, UTC]"))
    if "instrument" in found:
        symbols = {x: shorten(x) if "/" in x else x for x in found["instrument"].astype(str)}
        found["instrument"] = found["instrument"].astype(str).map(symbols | dict(names or {}))
    return found.sort_values("time", kind="stable", ignore_index=True)


def open_table(source: Any) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source.reset_index() if source.index.name is not None else source.copy()
    if isinstance(source, str | Path):
        path = Path(source)
        try:
            if path.suffix.lower() == ".json":
                return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
            return pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise DataError(
                f"fills must be a readable CSV or JSON file, got {describe_fault(error)} ({path})"
            ) from error
    if isinstance(source, Sequence) and all(isinstance(each, Mapping) for each in source):
        return pd.DataFrame([dict(each) for each in source], columns=None if source else CCXT)
    raise DataError(
        f"fills must be a file, a table or a list of mappings, got {repr_plain(source)}"
    )


def read_trades(table: pd.DataFrame) -> pd.DataFrame:
    given: Any = table["fee"] if "fee" in table else [{}] * len(table)
    fees = [each if isinstance(each, Mapping) else {} for each in given]
    warn_without_fees(sum(each.get("cost") is None for each in fees))
    amounts = table["amount"].astype("float64")
    if (amounts < 0.0).any():
        raise DataError(
            f"the amount of a trade must be at least 0, beside its side, got {amounts.min():g}"
        )
    columns = {
        "time": table["timestamp"],
        "instrument": table["symbol"],
        "quantity": [SIDES[side] * n for side, n in zip(table["side"], amounts, strict=True)],
        "price": table["price"].astype("float64"),
        "fee": [float(each.get("cost") or 0.0) for each in fees],
        "fee_currency": [str(each.get("currency") or "") for each in fees],
    }
    return pd.DataFrame(columns)


# ------------------------------------------------------------------ fills of a replay


class Fact(NamedTuple):
    time: int
    place: int
    name: str
    quantity: float
    price: float
    reference: float
    fee: float
    kind: str
    step: int
    value: float
    filled: float

    def is_by(self, name: str, step: int, due: int) -> bool:
        is_own = self.name == name or self.kind == "bad_debt"
        return is_own and self.step == step and (step == 2 or self.time == due)


def place_fills(setup: Setup, given: pd.DataFrame, tolerance: float) -> dict[int, list[Fact]]:
    """Return the fills of each bar, in order."""
    names = (*setup.markets.names, *(each.name for each in setup.account.collateral))
    table = complete_fills(given, names, setup.markets.currency)
    stamps = read_stamps(table["time"])
    bars = find_bars(setup, stamps)
    is_late, opens = setup.account.fill == "same_close", setup.markets.time
    facts: dict[int, list[Fact]] = defaultdict(list)
    rows: Any = table.to_dict(orient="records")
    for k, row in enumerate(rows):
        bar, time, step = int(bars[k]), int(stamps[k]), int(row["step"])
        if is_late and step < 0 and time == int(opens[bar]) and row["kind"] == "order":
            step = 0
        fact = make_fact(setup, names, time, row | {"step": step})
        check_range(setup, fact, bar, k, tolerance)
        facts[bar].append(fact)
    return {bar: sorted(own, key=lambda fact: fact.time) for bar, own in facts.items()}


def complete_fills(given: pd.DataFrame, names: tuple[str, ...], settled: str) -> pd.DataFrame:
    missing = [name for name in ("time", "quantity", "price") if name not in given]
    if missing:
        raise ParameterError(
            f"fills must have the columns {', '.join(NEEDED)}, got no {', '.join(missing)}; "
            "bt.read_fills reads ccxt's fetch_my_trades"
        )
    if not isinstance(given["time"].dtype, pd.DatetimeTZDtype):
        raise ParameterError(
            f"the times of fills must be dates with a time zone, got {given['time'].dtype}; "
            "convert them with pd.to_datetime(fills['time'], utc=True)"
        )
    warn_without_fees(0 if "fee" in given else len(given))
    usual: Any = {
        "instrument": names[0],
        "fee": 0.0,
        "kind": "order",
        "step": -1,
        "fee_currency": "",
    }
    lacking = {name: x for name, x in usual.items() if name not in given}
    table = given.reset_index(drop=True).assign(**lacking)
    if "reference" not in table:
        table["reference"] = table["price"]
    for name in ("quantity", "price", "reference", "fee", "step"):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype("float64")
    table["reference"] = table["reference"].fillna(table["price"])
    table["step"] = table["step"].fillna(-1.0)
    for name in ("instrument", "kind", "fee_currency"):
        table[name] = table[name].astype(str)
    check_rows(given.reset_index(drop=True), table, names, settled)
    return table


def check_rows(
    given: pd.DataFrame, table: pd.DataFrame, names: tuple[str, ...], settled: str
) -> None:
    is_debt = table["kind"] == "bad_debt"
    sizes, fees = table["quantity"], table["fee"]
    is_known = table["fee_currency"].isin(["", "nan", "None", settled]) | (not settled)
    rules: list[tuple[str, str, Any]] = [
        ("time", "a fill must have a time", table["time"].notna()),
        ("instrument", f"a fill must be of an instrument of the market, {', '.join(names)}",
         table["instrument"].isin(names) | is_debt),
        ("kind", f"kind must be one of {', '.join(KINDS)}", table["kind"].isin(KINDS)),
        ("quantity", "quantity must be finite and not 0",
         np.isfinite(sizes) & ((sizes != 0.0) | is_debt)),
        ("fee", "fee must be a finite number", np.isfinite(fees)),
        ("fee_currency", f"fees must be in the settlement currency, {settled}",
         is_known | (fees == 0.0)),
    ]  # fmt: skip
    for name in ("price", "reference"):
        is_good = (table[name] > 0.0) & np.isfinite(table[name])
        rules.append((name, f"{name} must be over 0", is_good | is_debt))
    near = {"instrument": names, "kind": KINDS}
    for name, rule, is_good in rules:
        if not is_good.all():
            k = int(np.argmin(is_good))
            found = given[name].iloc[k]
            hint = did_you_mean(str(found), near[name]) if name in near else ""
            raise ParameterError(f"{rule}, got {repr_plain(found)}{hint} (row {k} of fills)")


def warn_without_fees(count: int) -> None:
    if count:
        warnings.warn(f"{count:,} fills have no fee, and pay none", stacklevel=2)


def read_stamps(column: pd.Series) -> IntArray:
    """Return times as UTC ns."""
    return np.asarray(pd.DatetimeIndex(column).tz_convert("UTC").as_unit("ns").asi8)


def find_bars(setup: Setup, stamps: IntArray) -> IntArray:
    time = setup.markets.time
    bars = np.searchsorted(time, stamps, side="right") - 1
    start, end = int(time[setup.first]), int(time[-1]) + setup.markets.interval
    outside: BoolArray = (bars < setup.first) | (stamps >= end)
    if outside.any():
        k = int(np.argmax(outside))
        raise DataError(
            f"a fill must lie within the replay, from {format_time(start)} to {format_time(end)}, "
            f"got {format_time(int(stamps[k]))} (row {k} of fills)"
        )
    return np.asarray(bars)


def make_fact(setup: Setup, names: tuple[str, ...], time: int, row: Mapping[str, Any]) -> Fact:
    name, kind = row["instrument"], row["kind"]
    place = names.index(name) if name in names else 0
    value, filled = row["reference"], row["price"]
    if place < len(setup.markets) and kind != "bad_debt":
        contract = setup.venues[setup.markets.names[place]].contract
        is_inverse = contract.kind == "inverse"
        value, filled = (
            float(compute_value(contract.size, is_inverse, x)) for x in (value, filled)
        )
    return Fact(
        time, place, name, row["quantity"], row["price"], row["reference"], row["fee"], kind,
        row["step"], value, filled,
    )  # fmt: skip


def check_range(setup: Setup, fact: Fact, bar: int, k: int, tolerance: float) -> None:
    is_resting = fact.step == 7 and fact.kind == "order"  # fills at a limit that the open passed
    if fact.kind in WITHOUT_RANGE or fact.place >= len(setup.markets) or is_resting:
        return
    feed, i = setup.inputs.feed, fact.place
    low, high = float(feed.low[bar, i]), float(feed.high[bar, i])
    if bar > 0 and fact.time == int(feed.time[bar]):
        last = feed.close[bar - 1, i]
        low, high = float(np.nanmin([low, last])), float(np.nanmax([high, last]))
    room = 1e-9 if fact.reference != fact.price else tolerance
    if not low * (1.0 - room) <= fact.reference <= high * (1.0 + room):
        raise DataError(
            f"a fill must lie in the range of its bar, {low:.10g} to {high:.10g}, got "
            f"{fact.reference:.10g} (row {k} of fills, {fact.name} at {format_time(fact.time)}); "
            "give the price before slippage as reference, or raise range_tolerance"
        )
