"""The engine against the plain reference, on one account with several positions."""

from __future__ import annotations

import math
import warnings
from typing import Annotated, Any

import numpy as np

import backtest as bt
from backtest.engine.lookahead import causality
from backtest.engine.lookahead.causality_checker import Causality
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


def trust_columns(monkeypatch: Any) -> None:
    """Leave out the check that columns do not look ahead: here they are the market's own."""
    sound = Causality(cuts=1_000_000, has_columns=True)
    monkeypatch.setattr(causality, "check_causality", lambda *_, **__: sound)


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
    compare("cash", bars["cash"], floats(out.cash))
    for name in MONEY:
        compare(name, bars[name], rows[name])
    compare("costs of fills", bars["slippage"] + bars["impact"], rows["slippage"])
    held = read_positions(result, case, len(scale))
    for i, name in enumerate(out.names):
        unit = unit_of(case, name)
        quantity = floats([row[i] for row in out.quantity])
        compare(f"quantity of {name}", held["quantity"][i], quantity, unit)
        margin = floats([row[i] for row in out.margin])
        compare(f"margin of {name}", held["margin"][i], margin)
    return [text for _, text in sorted(found)]


def place_of(case: PortfolioCase, name: str) -> slice:
    """Return the bars of one instrument on the clock."""
    index = case.tapes[name].bars.index
    first = int(np.searchsorted(case.clock.asi8, index.asi8[0]))
    return slice(first, first + len(index))


def unit_of(case: PortfolioCase, name: str) -> np.ndarray:
    """Return the value of one contract at each close of the clock, 0 without a bar."""
    tape, contract = case.tapes[name], case.venues[name]["contract"]
    close = (tape.bars if tape.mark is None else tape.mark)["close"].to_numpy()
    unit, size = np.zeros(len(case.clock)), contract["size"]
    unit[place_of(case, name)] = size * close if contract["kind"] == "linear" else size / close
    return unit


def read_positions(result: Any, case: PortfolioCase, n_bars: int) -> dict[str, np.ndarray]:
    """Return quantities and margins on the clock, by instrument; 0 without a bar."""
    table = result.positions
    codes = table["instrument"].cat.codes.to_numpy()
    found = {}
    for each in ("quantity", "margin"):
        values, rows = table[each].to_numpy(), np.zeros((len(case.tapes), n_bars))
        for i, name in enumerate(case.tapes):
            rows[i, place_of(case, name)] = values[codes == i]
        found[each] = rows
    return found


def assert_agrees(case: PortfolioCase, label: str, *, is_compiled: bool = False) -> Outcome:
    """Run a case through both; the engine must equal the reference to 1e-9."""
    out = simulate(*case.for_reference())
    wrong = differences(case, out, run_engine(case, is_compiled=is_compiled))
    assert not wrong, f"{label}:\n" + "\n".join(wrong[:12])
    return out
