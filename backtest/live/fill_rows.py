"""The fills of a replay: a table of facts, checked and placed on the bars of its markets."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    IntArray,
    ParameterError,
    did_you_mean,
    format_time,
    repr_plain,
)
from backtest.venue import compute_value

if TYPE_CHECKING:
    from backtest.engine import Setup

NEEDED = ("time", "instrument", "quantity", "price")
KINDS = (
    "order", "stop", "liquidation", "takeover", "expiry", "delisting", "ruin", "conversion",
    "bad_debt",
)  # fmt: skip
WITHOUT_RANGE = ("bad_debt", "takeover", "liquidation", "expiry", "delisting", "ruin")


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


def read_fills(setup: Setup, given: pd.DataFrame, tolerance: float) -> dict[int, list[Fact]]:
    table = check_table(given)
    names = (*setup.markets.names, *(each.name for each in setup.account.collateral))
    only = setup.markets.names[0]
    stamps = read_times(table)
    rows = zip(
        stamps.tolist(), read_names(table, names, only), *read_numbers(table), read_kinds(table),
        read_steps(table), strict=True,
    )  # fmt: skip
    check_currency(table, setup)
    facts: dict[int, list[Fact]] = defaultdict(list)
    for k, row in enumerate(rows):
        fact = make_fact(setup, names, *row)
        bar = place_on_bar(setup, fact, k)
        check_range(setup, fact, bar, k, tolerance, has_reference=fact.reference != fact.price)
        facts[bar].append(fact)
    return {bar: sort_facts(own, setup, bar) for bar, own in facts.items()}


def check_table(given: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in NEEDED if name not in given and name != "instrument"]
    if missing:
        raise ParameterError(
            f"fills must have the columns {', '.join(NEEDED)}, got no {', '.join(missing)}; "
            "bt.read_fills reads ccxt's fetch_my_trades"
        )
    return given.reset_index(drop=True)


def read_times(table: pd.DataFrame) -> IntArray:
    """Return the stamps of fills, UTC ns."""
    column = table["time"]
    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        kind = str(column.dtype)
        raise ParameterError(
            f"the times of fills must be dates with a time zone, got {kind}; convert them with "
            "pd.to_datetime(fills['time'], utc=True)"
        )
    if column.isna().any():
        raise_row("a fill must have a time", "NaT", int(np.argmax(column.isna())))
    found: IntArray = pd.DatetimeIndex(column).tz_convert("UTC").as_unit("ns").asi8
    return found


def read_names(table: pd.DataFrame, names: tuple[str, ...], only: str) -> list[str]:
    if "instrument" not in table:
        return [only] * len(table)
    found = table["instrument"].astype(str).tolist()
    is_debt = table["kind"].astype(str) == "bad_debt" if "kind" in table else [False] * len(found)
    for k, (name, is_free) in enumerate(zip(found, is_debt, strict=True)):
        if name not in names and not is_free:
            rule = f"a fill must be of an instrument of the market, {', '.join(names)}"
            raise_row(rule, f"{name!r}{did_you_mean(name, names)}", k)
    return found


def warn_without_fees(count: int) -> None:
    if count:
        warnings.warn(f"{count:,} fills have no fee, and pay none", stacklevel=2)


def read_numbers(table: pd.DataFrame) -> tuple[list[float], ...]:
    warn_without_fees(0 if "fee" in table else len(table))
    table = table if "fee" in table else table.assign(fee=0.0)
    table = table if "reference" in table else table.assign(reference=table["price"])
    columns: dict[str, FloatArray] = {
        name: pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
        for name in ("quantity", "price", "reference", "fee")
    }
    is_stated = ~np.isnan(columns["reference"])
    columns["reference"] = np.where(is_stated, columns["reference"], columns["price"])
    is_debt = np.zeros(len(table), dtype=bool)
    if "kind" in table:
        is_debt = (table["kind"].astype(str) == "bad_debt").to_numpy()
    rules = {
        "quantity": np.isfinite(columns["quantity"]) & ((columns["quantity"] != 0.0) | is_debt),
        "price": ((columns["price"] > 0.0) & np.isfinite(columns["price"])) | is_debt,
        "reference": ((columns["reference"] > 0.0) & np.isfinite(columns["reference"])) | is_debt,
        "fee": np.isfinite(columns["fee"]),
    }
    texts = {"quantity": "finite and not 0", "fee": "a finite number"}
    for name, is_good in rules.items():
        if not is_good.all():
            k = int(np.argmin(is_good))
            rule = f"{name} must be {texts.get(name, 'over 0')}"
            raise_row(rule, repr_plain(table[name].iloc[k]), k)
    return tuple(each.tolist() for each in columns.values())


def read_kinds(table: pd.DataFrame) -> list[str]:
    if "kind" not in table:
        return ["order"] * len(table)
    found = table["kind"].astype(str).tolist()
    for k, kind in enumerate(found):
        if kind not in KINDS:
            rule = f"kind must be one of {', '.join(KINDS)}"
            raise_row(rule, f"{kind!r}{did_you_mean(kind, KINDS)}", k)
    return found


def read_steps(table: pd.DataFrame) -> list[int]:
    if "step" not in table:
        return [-1] * len(table)
    values = pd.to_numeric(table["step"], errors="coerce").fillna(-1)
    return [int(each) for each in values.tolist()]


def check_currency(table: pd.DataFrame, setup: Setup) -> None:
    """Require fees in the settlement currency, as far as both are said."""
    settled = setup.markets.currency
    if "fee_currency" not in table or not settled:
        return
    fees = table["fee"].to_numpy(dtype=np.float64) if "fee" in table else np.zeros(len(table))
    for k, (text, fee) in enumerate(zip(table["fee_currency"].astype(str), fees, strict=True)):
        if text not in ("", "nan", "None", settled) and fee != 0.0:
            raise_row(f"fees must be in the settlement currency, {settled}", text, k)


def raise_row(rule: str, found: str, k: int) -> None:
    raise ParameterError(f"{rule}, got {found} (row {k} of fills)")


def make_fact(
    setup: Setup, names: tuple[str, ...], time: int, name: str, quantity: float, price: float,
    reference: float, fee: float, kind: str, step: int,
) -> Fact:  # fmt: skip
    place = names.index(name) if name in names else 0
    value, filled = reference, price
    if place < len(setup.markets) and kind != "bad_debt":
        contract = setup.venues[setup.markets.names[place]].contract
        is_inverse = contract.kind == "inverse"
        value = float(compute_value(contract.size, is_inverse, reference))
        filled = float(compute_value(contract.size, is_inverse, price))
    return Fact(time, place, name, quantity, price, reference, fee, kind, step, value, filled)


def place_on_bar(setup: Setup, fact: Fact, k: int) -> int:
    time = setup.markets.time
    bar = int(np.searchsorted(time, fact.time, side="right")) - 1
    if bar < setup.first or fact.time >= int(time[-1]) + setup.markets.interval:
        raise DataError(
            f"a fill must lie within the replay, from {format_time(int(time[setup.first]))} to "
            f"{format_time(int(time[-1]) + setup.markets.interval)}, got {format_time(fact.time)} "
            f"(row {k} of fills)"
        )
    return bar


def check_range(
    setup: Setup, fact: Fact, bar: int, k: int, tolerance: float, *, has_reference: bool
) -> None:
    if fact.kind in WITHOUT_RANGE or fact.place >= len(setup.markets):
        return
    feed, i = setup.inputs.feed, fact.place
    low, high = float(feed.low[bar, i]), float(feed.high[bar, i])
    if bar > 0 and fact.time == int(feed.time[bar]):
        last: FloatArray = feed.close[bar - 1 : bar, i]
        low, high = float(np.nanmin([low, *last])), float(np.nanmax([high, *last]))
    room = 1e-9 if has_reference else tolerance
    is_resting = fact.step == 7 and fact.kind == "order"  # fills at a limit that the open passed
    if not is_resting and not low * (1.0 - room) <= fact.reference <= high * (1.0 + room):
        raise DataError(
            f"a fill must lie in the range of its bar, {low:.10g} to {high:.10g}, got "
            f"{fact.reference:.10g} (row {k} of fills, {fact.name} at {format_time(fact.time)}); "
            "give the price before slippage as reference, or raise range_tolerance"
        )


def sort_facts(own: list[Fact], setup: Setup, bar: int) -> list[Fact]:
    opened, is_late = int(setup.markets.time[bar]), setup.account.fill == "same_close"
    placed = [
        fact._replace(step=0)
        if is_late and fact.step < 0 and fact.time == opened and fact.kind == "order"
        else fact
        for fact in own
    ]
    return sorted(placed, key=lambda fact: fact.time)
