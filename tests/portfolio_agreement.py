"""The engine against the plain reference, on one account with several positions."""

from __future__ import annotations

import math
import warnings
from typing import Annotated, Any

import numpy as np

import backtest as bt
from tests.portfolio_cases import PortfolioCase, Swing
from tests.reference_portfolio import Outcome, simulate

TOLERANCE = 1e-9
MONEY = (
    "price_pnl", "collateral_pnl", "fees", "funding", "interest", "liquidation_loss", "flows",
    "bad_debt", "conversion",
)  # fmt: skip


class Scripted(bt.Policy):
    """Replay targets that ride along as a column."""

    def observe(self, market):
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        return bar.target


class Swinging(bt.Policy):
    """Answer as :class:`Swing` does, from the time of the bar alone."""

    level: Annotated[float, bt.Range(0.0, 10.0)] = 1.0
    hours: Annotated[float, bt.Range(0.0, 1000.0)] = 1.0

    def observe(self, market):
        every = round(self.hours * 3_600_000_000_000)
        return {"asked": Swing(self.level, every).answers(market.time)}

    def leverage(self, bar, account):
        return bar.asked


def run_engine(case: PortfolioCase, *, is_compiled: bool = False) -> Any:
    """Run a case through the engine."""
    overlay = None
    if case.overlay is not None:
        overlay = Swinging(level=case.overlay.level, hours=case.overlay.every / 3_600_000_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bt.run(
            policy=Scripted(), overlay=overlay, compile=is_compiled, **case.for_engine(bt)
        )


def floats(values: Any) -> np.ndarray:
    """Return a column of the reference as an array."""
    return np.array([math.nan if value is None else float(value) for value in values])


def scales(out: Outcome) -> np.ndarray:
    """The larger of equity and turnover, so far: what rounding is measured by."""
    largest = np.maximum(floats(out.equity), floats(out.traded))
    return np.maximum(np.maximum.accumulate(largest), float(out.capital))


def differences(case: PortfolioCase, out: Outcome, result: Any) -> list[str]:
    """Return where the engine differs from the reference, first bar first."""
    scale, bars = scales(out), result.bars
    found: list[tuple[int, str]] = []

    def compare(name: str, got: Any, expected: np.ndarray, weight: Any = 1.0) -> None:
        values = np.asarray(got, dtype=float)
        off = ~(np.abs(values - expected) * weight <= TOLERANCE * scale)
        found.extend(
            (int(t), f"bar {t} {name}: {values[t]!r}, reference {expected[t]!r}")
            for t in np.flatnonzero(off)[:2]
        )

    compare("equity", bars["equity"], floats(out.equity))
    compare("reserve", bars["reserve"], floats(out.reserve))
    rows = {name: floats(values) for name, values in out.rows.items()}
    if hasattr(result, "positions"):
        compare("cash", bars["cash"], floats(out.cash))
        for name in MONEY:
            compare(name, bars[name], rows[name])
    compare("costs of fills", bars["slippage"] + bars["impact"], rows["slippage"])
    for i, name in enumerate(out.names):
        quantity = floats([held[i] for held in out.quantity])
        margin = floats([posted[i] for posted in out.margin])
        unit = unit_of(case, name)
        held = position_of(result, name, case.clock)
        compare(f"quantity of {name}", held["quantity"], quantity, unit)
        if "margin" in held:
            compare(f"margin of {name}", held["margin"], margin)
    return [text for _, text in sorted(found)]


def unit_of(case: PortfolioCase, name: str) -> np.ndarray:
    """Return the value of one contract at each close of the clock, 0 without a bar."""
    tape, contract = case.tapes[name], case.venues[name]["contract"]
    close = (tape.bars if tape.mark is None else tape.mark)["close"].reindex(case.clock)
    size = contract["size"]
    unit = size * close if contract["kind"] == "linear" else size / close
    return np.asarray(unit.fillna(0.0))


def position_of(result: Any, name: str, clock: Any) -> dict[str, np.ndarray]:
    """Return quantity and margin of one instrument on the clock, 0 without a bar."""
    if not hasattr(result, "positions"):  # a run of one position
        return {"quantity": result.bars["position"].to_numpy()}
    table = result.positions
    rows = table[table["instrument"] == name].set_index("time").reindex(clock)
    return {each: rows[each].fillna(0.0).to_numpy() for each in ("quantity", "margin")}


def assert_agrees(case: PortfolioCase, label: str, *, is_compiled: bool = False) -> Outcome:
    """Run a case through both; the engine must equal the reference to 1e-9."""
    out = simulate(*case.for_reference())
    wrong = differences(case, out, run_engine(case, is_compiled=is_compiled))
    assert not wrong, f"{label}:\n" + "\n".join(wrong[:12])
    return out
