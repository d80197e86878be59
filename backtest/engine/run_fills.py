"""The fills of a run: every change of a position as a row, with its prices, fee and kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import parse_duration, utc_index
from backtest.engine.feed_arrays import place_funding
from backtest.engine.result_tables import price_of, value_of
from backtest.market import place_on_bars, read_settlements

if TYPE_CHECKING:
    from backtest.engine.run_data import RunData

FILL_COLUMNS = (
    "time", "instrument", "quantity", "price", "reference", "fee", "fee_currency", "kind", "step",
)  # fmt: skip
STOPS = ("stop", "trailing_stop", "equity_stop", "take_profit", "time_stop")
CHANGES = (
    "fill", *STOPS, "liquidation", "delisted", "ruin", "conversion", "bad_debt", "expiry",
)  # fmt: skip
WORSENING = ("slippage", "impact")
CHARGES = ("fee", "liquidation_loss")
STEPS = {
    "flow": 1, "withdrawal_refused": 1, "top_up": 1, "interest": 3,
    "unquoted": 5,
}  # fmt: skip
DECIDED = {"same_close": 0, "next_open": 5, "next_close": 8}


class Settled(NamedTuple):
    stamps: list[int]
    n_open: int


def tabulate_fills(result: RunData, events: pd.DataFrame) -> pd.DataFrame:
    """Return the fills of a run, a row for each change of a position or of the collateral.

    ``time`` is the open for what happens there, one ns before the end of the bar at its close, and
    two before it for stops and liquidations inside. ``step`` is the step of the bar. ``price`` has
    slippage and impact, ``reference`` has not. The ``fee`` of a liquidation is all that it cost.
    """
    rows = list(list_fills(result, events))
    table = pd.DataFrame(rows, columns=[*FILL_COLUMNS])
    table["time"] = utc_index(np.array([row["time"] for row in rows], dtype=np.int64))
    for name in ("quantity", "price", "reference", "fee"):
        table[name] = table[name].astype(np.float64)
    table["step"] = table["step"].astype(np.int64)
    return table


def list_fills(result: RunData, events: pd.DataFrame) -> Iterator[dict[str, Any]]:
    settled, scan = find_settlements(result), Scan(result)
    row: dict[str, Any] | None = None
    for event in list_events(result, events):
        kind = event["kind"]
        if kind in (*WORSENING, *CHARGES):
            add_cost(result, row, event)
            continue
        if row is not None:
            yield row
            row = None
        scan.read(event, settled)
        if kind in CHANGES and (event["quantity"] != 0.0 or kind == "bad_debt"):
            row = make_row(result, event, scan)
    if row is not None:
        yield row


def list_events(result: RunData, events: pd.DataFrame) -> Iterator[dict[str, Any]]:
    who = (
        events["instrument"].astype(str)
        if "instrument" in events
        else [result.names[0]] * len(events)
    )
    stamps = pd.DatetimeIndex(events["time"]).as_unit("ns").asi8
    names = ("price", "quantity", "amount")
    parts = (events[name].to_numpy(dtype=np.float64).tolist() for name in names)
    kinds = events["kind"].astype(str).tolist()
    for time, kind, own, *numbers in zip(stamps.tolist(), kinds, who, *parts, strict=True):
        yield {
            "time": time,
            "kind": kind,
            "instrument": own,
            **dict(zip(names, numbers, strict=True)),
        }


class Scan:
    def __init__(self, result: RunData) -> None:
        self.fill = DECIDED.get(result.account.fill, 5)  # a limit order may fill later
        self.time, self.step, self.last = -1, 0, ""
        self.paid: dict[str, int] = {}
        self.stamp = 0
        self.expiries = find_option_expiries(result)
        self.resting: set[str] = set()
        self.held: dict[str, float] = defaultdict(float)

    def read(self, event: Mapping[str, Any], settled: Mapping[tuple[str, int], Settled]) -> None:
        kind, name = event["kind"], event["instrument"]
        if event["time"] != self.time:
            self.time, self.step, self.last, self.paid = event["time"], 0, "", {}
            self.resting = set()
        if kind == "limit_order":
            self.resting.add(name)
        if kind in ("funding", "dividend"):
            self._pay(name, settled.get((name, self.time), Settled([], 0)))
        else:
            self.step = self._find_step(kind, name)
        if kind not in ("bad_debt", "margin_added"):
            self.last = f"funding {name}" if kind in ("funding", "dividend") else kind
        if kind in CHANGES and kind != "bad_debt":
            self.held[name] += event["quantity"]

    def _find_step(self, kind: str, name: str) -> int:
        if kind == "fill":
            return 7 if name in self.resting else self.fill
        if kind in ("delisted", "ruin"):
            return 8
        if kind == "expiry":
            self.stamp = self.expiries.get(name, self.time)
            return 2 if self.stamp <= self.time else 6
        if kind == "conversion":  # after interest it belongs to a liquidation
            return 1 if self.step <= 1 else 4 if self.step <= 4 else 7
        is_by_funding = kind == "liquidation" and self.last == f"funding {name}"
        if kind in (*STOPS, "liquidation") and not is_by_funding:
            return 4 if self.step <= 4 else 7
        return max(self.step, STEPS.get(kind, 0))

    def _pay(self, name: str, settled: Settled) -> None:
        if name not in self.paid:
            is_early = self.step < 5 and abs(self.held[name]) > 0.0
            self.paid[name] = 0 if is_early or not settled.n_open else settled.n_open
        k = self.paid[name]
        self.paid[name] = k + 1
        self.step = 2 if k < settled.n_open else 6
        self.stamp = settled.stamps[k] if k < len(settled.stamps) else self.time


def find_option_expiries(result: RunData) -> dict[str, int]:
    """Return the times at which the options of a run expire, ns by name."""
    if result.options is None:
        return {}
    return dict(zip(result.options.names, result.options.terms.expiries.tolist(), strict=True))


def find_settlements(result: RunData) -> dict[tuple[str, int], Settled]:
    found: dict[tuple[str, int], Settled] = {}
    for name, market in (result.markets or {}).items():
        placed = place_funding(market, result.venues[name], 0)
        kept = place_stamps(market, result.venues[name])
        for bar, is_open, stamp in zip(
            placed["funding_bar"].tolist(), placed["funding_is_open"].tolist(), kept, strict=True
        ):
            key = (name, int(market.time[bar]))
            own = found.get(key, Settled([], 0))
            found[key] = Settled([*own.stamps, stamp], own.n_open + is_open)
    return found


def place_stamps(market: Any, venue: Any) -> list[int]:
    jitter = parse_duration(venue.funding_jitter)
    time = read_settlements(market).time
    bar, _ = place_on_bars(time, market.time, market.interval, jitter)
    stamps: list[int] = time[(bar >= 0) & (bar < market.n_bars)].tolist()
    return stamps


def make_row(result: RunData, event: Mapping[str, Any], scan: Scan) -> dict[str, Any]:
    kind, name = event["kind"], event["instrument"]
    quantity, price, fee, reference = event["quantity"], event["price"], 0.0, event["price"]
    if kind == "bad_debt":
        quantity, fee = 0.0, -event["amount"]
    elif kind == "conversion":
        asset = next(each for each in result.account.collateral if each.name == name)
        reference = price / (1.0 - asset.slippage) if asset.slippage < 1.0 else price
    return {
        "time": find_stamp(result, scan), "instrument": name, "quantity": quantity,
        "price": price, "reference": reference, "fee": fee,
        "fee_currency": result.manifest["data"].get("currency") or "",
        "kind": name_kind(result, event), "step": scan.step,
    }  # fmt: skip


def find_stamp(result: RunData, scan: Scan) -> int:
    """Return when a fill happened, ns."""
    if scan.step < 6:
        return scan.time
    if scan.step == 6:
        return max(scan.stamp, scan.time)
    return scan.time + result.interval - (2 if scan.step == 7 else 1)


def name_kind(result: RunData, event: Mapping[str, Any]) -> str:
    kind, venue = event["kind"], result.venues.get(event["instrument"])
    if kind == "fill" or kind in STOPS:
        return "order" if kind == "fill" else "stop"
    if kind == "liquidation":
        modes = {each.liquidation.mode for each in ([venue] if venue else result.list_venues())}
        return "takeover" if modes == {"takeover"} else "liquidation"
    if kind == "delisted":
        return "expiry" if venue is not None and venue.contract.expires is not None else "delisting"
    return str(kind)


def add_cost(result: RunData, row: dict[str, Any] | None, event: Mapping[str, Any]) -> None:
    if row is None or row["kind"] == "conversion":
        return
    if event["kind"] in CHARGES:
        row["fee"] += event["amount"]
        return
    venue = result.venues.get(row["instrument"])
    if venue is None:  # the price of an option is its value
        row["reference"] -= event["amount"] / row["quantity"]
        return
    value = float(value_of(venue, np.array([row["reference"]]))[0])
    before = value - event["amount"] / row["quantity"]
    row["reference"] = float(price_of(venue, np.array([before]))[0])
