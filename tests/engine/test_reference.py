"""The engine against the reference, whose rules are first held to hand arithmetic.

The random cases (tests/cases.py) hold the engine to it, column by column and ledger kind by ledger
kind, to 1e-9 of the larger of equity and turnover. ``BACKTEST_REFERENCE_CASES=100000`` runs the
nightly lot. The hand arithmetic is in test_reference_trades.py and test_reference_liquidation.py.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import backtest as bt
from tests.cases import Case, make_case, make_exit_case
from tests.reference import COSTS, KIND_OF_COLUMN, Brackets, Outcome, simulate

CASES = int(os.environ.get("BACKTEST_REFERENCE_CASES", "2000"))
BLOCKS = 8
TOLERANCE = 1e-9
LIVELY = 31  # a case with much in it that holds a position to the end


# ------------------------------------------------------------------ the margin table by other means


@st.composite
def tables(draw: st.DrawFn) -> Brackets:
    """Draw a convex table of 1 to 4 brackets."""
    count = draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, 10_000), min_size=count, max_size=count))
    rates = sorted(draw(st.sets(st.integers(1, 999), min_size=count, max_size=count)))
    edges = np.cumsum([0, *widths]).tolist()
    return Brackets(
        floors=tuple(map(Decimal, edges[:-1])),
        caps=tuple(map(Decimal, edges[1:])),
        rates=tuple(Decimal(rate) / 1000 for rate in rates),
        leverages=(Decimal(1),) * count,
    )


@given(tables(), st.integers(0, 40_000))
def test_requirement_is_the_maximum_of_the_lines(table, notional):
    """§3: max_k (r_k N - c_k), with the recursion of the amounts."""
    amounts = [Decimal(0)]
    for k in range(1, len(table.rates)):
        amounts.append(amounts[-1] + table.floors[k] * (table.rates[k] - table.rates[k - 1]))
    lines = [rate * notional - c for rate, c in zip(table.rates, amounts, strict=True)]
    assert table.requirement(Decimal(notional)) == max(lines)


@given(tables(), st.integers(-30_000, 30_000), st.sampled_from([1, -1]))
def test_boundary_is_where_bisection_finds_it(table, cash, side):
    """cash + side n - MM(n) changes sign there and nowhere else."""

    def surplus(notional: Decimal) -> Decimal:
        return cash + side * notional - table.requirement(notional)

    with localcontext(prec=40):
        low, high = Decimal(0), Decimal(10) ** 9
        if (surplus(low) > 0) == (surplus(high) > 0):
            root = table.boundary(Decimal(cash), side)
            assert root is None or root == 0
            return
        for _ in range(120):
            middle = (low + high) / 2
            same = (surplus(middle) > 0) == (surplus(low) > 0)
            low, high = (middle, high) if same else (low, middle)
        root = table.boundary(Decimal(cash), side)
        assert root is not None
        assert abs(root - low) <= Decimal("1e-20") * max(root, 1)


# ---------------------------------------------------------------------- what the random cases reach
LEAST = {  # of 600 cases, in how many it must happen
    "event": {
        "fill": 500, "fee": 300, "slippage": 300, "impact": 80, "funding": 300, "interest": 300,
        "stop": 60, "liquidation": 100, "liquidation_loss": 100, "margin_call": 60, "top_up": 40,
        "bad_debt": 40, "flow": 100, "withdrawal_refused": 40, "ruin": 60, "call_met": 40,
        "call_partly_met": 15, "call_failed": 40, "margin_added": 30,
    },
    "path": {
        "liquidated in a gap": 20, "liquidated after funding": 15, "liquidated in the bar": 80,
        "stopped in a gap": 20, "stopped in the bar": 50, "stop and liquidation in one bar": 15,
        "partial step": 20, "flipped": 100, "shrunk by initial margin": 150,
        "shrunk by the wallet": 30, "cut by volume": 20, "left alone: NaN": 50,
        "left alone: band": 50, "left alone: small": 30, "wallet empty: M pays": 20,
        "ruined": 30, "halted": 10, "ruined: gone": 15, "ruined: under the line": 30,
        "ruined: poor": 5, "ruined with a position": 15, "margin added": 20,
        "wallet emptied for margin": 15, "reduced by force": 15, "call partly met": 15,
        "left alone: no money for the order": 1,
    },
    "liquidated": {
        f"{margin} {kind} {mode}": 4
        for margin in ("cross", "isolated")
        for kind in ("linear", "inverse")
        for mode in ("close", "takeover", "partial", "partial by bracket")
    },
}  # fmt: skip


def seen_in(case: Case, out: Outcome) -> set[tuple[str, str]]:
    """Return what happened in a case, as the groups and names of ``LEAST``."""
    seen = {("event", event.kind) for event in out.events}
    seen |= {("path", path) for path in out.paths}
    seen |= {("path", "ruined")} if any(out.ruined) else set()
    seen |= {("path", "halted")} if any(out.halted) else set()
    if out.count("liquidation"):
        by = " by bracket" if case.liquidation["step"] == "bracket" else ""
        mode = case.liquidation["mode"]
        mode += by if mode == "partial" else ""
        seen.add(("liquidated", f"{case.account['margin']} {case.contract['kind']} {mode}"))
    return seen


@pytest.mark.slow
def test_random_cases_reach_every_rule():
    """Each kind of event, each rare path and each way of liquidation, often enough."""
    counts: Counter[tuple[str, str]] = Counter()
    for seed in range(600):
        case = make_case(seed)
        out = simulate(*case.for_reference())
        counts.update(seen_in(case, out))
        assert_ledger_agrees(out)
    missing = {
        f"{group}: {name}": counts[group, name]
        for group, least in LEAST.items()
        for name, number in least.items()
        if counts[group, name] < number
    }
    assert not missing


def assert_ledger_agrees(out: Outcome) -> None:
    """§6: each column is the sum of its kind of row in the ledger."""
    kinds = {name: (KIND_OF_COLUMN.get(name, name),) for name in (*COSTS, "bad_debt", "top_up")}
    for column, names in (kinds | {"flows": ("flow", "top_up")}).items():
        with localcontext(prec=40):
            off = sum(getattr(out, column)) - sum(out.total(kind) for kind in names)
            size = sum(abs(event.amount) for event in out.events if event.kind in names)
        assert abs(off) <= Decimal("1e-30") * size


# ----------------------------------------------------------------- the engine against the reference
MONEY = (
    "equity", "cash", "margin", "price_pnl", "fees", "slippage", "impact", "funding", "interest",
    "liquidation_loss", "flows", "bad_debt",
    "initial_margin", "available", "realized_pnl", "unrealized_pnl",
)  # fmt: skip
LEDGER = (
    "fill", "fee", "slippage", "impact", "funding", "interest", "stop", "liquidation",
    "liquidation_loss", "top_up", "bad_debt", "flow", "withdrawal_refused", "ruin", "margin_added",
    "trailing_stop", "equity_stop", "take_profit",
)  # fmt: skip
CALLS = ("margin_call", "call_met", "call_partly_met", "call_failed")


class Scripted(bt.Policy):
    """Replay targets that ride along as a column."""

    def observe(self, market):
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        return bar.target


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    range(BLOCKS),
)
def test_engine_equals_the_reference(block):
    """Every money column of every bar, and every ledger total, to 1e-9 of equity or turnover."""

    @settings(
        max_examples=-(-CASES // BLOCKS),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # a seed does not shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(draw=st.integers(0, 10**9 - 1))
    def agrees(draw: int) -> None:
        compare(seed=block * 10**9 + draw)

    agrees()


@pytest.mark.slow
def test_engine_equals_the_reference_with_fill_modes_and_stops():
    """The same, with fills at closes, take-profits, trailing and equity stops, and multiples."""
    for seed in range(10**6, 10**6 + 125):
        compare(seed, make_exit_case)


def compare(seed: int, make: Callable[[int], Case] = make_case) -> None:
    """Run the case of a seed through both."""
    compare_case(make(seed), f"{make.__name__}({seed})")


def compare_case(case: Case, name: str) -> None:
    """Run one case through both and collect every difference, first bar first."""
    expected = simulate(*case.for_reference())
    result = bt.run(policy=Scripted(), compile=False, **case.for_engine(bt))
    scale = scales(expected)
    last = horizon(case, expected, result.bars["equity"].to_numpy(), scale)
    wrong = differences(case, expected, result.bars, scale, last)
    if last == len(scale):
        wrong += ledger_differences(expected, result.events, scale)
        wrong += call_differences(expected, result.metrics)
    assert not wrong, f"{name}:\n" + "\n".join(wrong[:12])


@pytest.mark.parametrize("column", [*MONEY, "position", "margin_ratio", "liquidation_price"])
def test_comparison_sees_an_error_in_one_bar(column):
    """The table of the reference passes; an error of 1e-7 of the capital in one bar does not."""
    case = make_case(LIVELY)
    out = simulate(*case.for_reference())
    scale = scales(out)
    names = {"position": "quantity"}
    columns = (*MONEY, "position", "margin_ratio", "liquidation_price")
    bars = pd.DataFrame({name: floats(getattr(out, names.get(name, name))) for name in columns})
    assert differences(case, out, bars, scale, len(scale)) == []
    held = int(np.flatnonzero(bars["position"] * bars["liquidation_price"].notna())[-1])
    money = 1e-7 * float(scale[held])
    weight = {
        "position": abs(unit(case, marks(case)[held])),
        "margin_ratio": float(out.backing[held]),
        "liquidation_price": money / bars.loc[held, "liquidation_price"] / 1e-3,
    }
    bars.loc[held, column] += money / weight.get(column, 1.0)
    found = differences(case, out, bars, scale, len(scale))
    assert len(found) == 1
    assert found[0].startswith(f"bar {held} {column}:")


def scales(out: Outcome) -> np.ndarray:
    """The larger of equity and turnover, so far: what rounding is measured by."""
    largest = np.maximum(floats(out.equity), floats(out.traded))
    return np.maximum(np.maximum.accumulate(largest), float(out.capital))


def horizon(case: Case, out: Outcome, equity: np.ndarray, scale: np.ndarray) -> int:
    """How many bars to compare: up to an isolated equity that is rounding dust in one of the two.

    A wallet that an order spent to the last bit holds 0 or some 1e-17 of what it held. Whether the
    account is ruined when its margin is lost too is then decided by rounding.
    """
    if case.account["margin"] == "cross":
        return len(scale)
    dust = np.zeros(len(scale), dtype=bool)
    for values in (floats(out.equity), equity):
        dust |= (values != 0) & (np.abs(values) <= 1e-12 * scale)
    return int(np.argmax(dust)) + 1 if dust.any() else len(scale)


def differences(
    case: Case, out: Outcome, bars: pd.DataFrame, scale: np.ndarray, last: int
) -> list[str]:
    """Return the differences of the bar table, in bar order."""
    found: list[tuple[int, str]] = []
    value = np.abs([float(unit(case, price)) for price in marks(case)])
    columns = {name: (floats(getattr(out, name)), np.ones_like(scale)) for name in MONEY}
    columns["position"] = (floats(out.quantity), value)
    for name, (expected, weight) in columns.items():
        got = bars[name].to_numpy(dtype=float)
        off = ~(np.abs(got - expected) * weight <= TOLERANCE * scale)
        found += [
            (int(t), f"bar {t} {name}: {got[t]!r}, reference {expected[t]!r}")
            for t in np.flatnonzero(off[:last])[:3]
        ]
    found += margin_differences(case, out, bars, scale, last)
    return [text for _, text in sorted(found)]


def margin_differences(
    case: Case, out: Outcome, bars: pd.DataFrame, scale: np.ndarray, last: int
) -> list[tuple[int, str]]:
    """Compare the ratio and the price of liquidation by what they mean in money."""
    found = []
    ratios = bars["margin_ratio"].to_numpy(dtype=float)
    prices = bars["liquidation_price"].to_numpy(dtype=float)
    for t in range(last):
        allowed = TOLERANCE * float(scale[t])
        ratio = float(out.margin_ratio[t])
        money = abs(ratios[t] - ratio) * float(out.backing[t])  # E * MM/E
        if not money <= allowed * max(1.0, ratio):
            found.append((t, f"bar {t} margin_ratio: {ratios[t]!r}, reference {ratio!r}"))
        if not is_liquidation_price(case, out, t, prices[t], allowed):
            expected = out.liquidation_price[t]
            found.append((t, f"bar {t} liquidation_price: {prices[t]!r}, reference {expected}"))
    return found


def is_liquidation_price(case: Case, out: Outcome, t: int, price: float, allowed: float) -> bool:
    """Compare the notional there, or put the price back into "backing = requirement".

    A position of nothing may have any price; a price at a notional of nothing may be none.
    """
    held = abs(float(out.quantity[t]))
    if held * abs(unit(case, marks(case)[t])) <= allowed:
        return True
    expected = out.liquidation_price[t]
    at = [float(p) for p in (expected, price) if p is not None and not math.isnan(p)]
    notionals = [held * abs(unit(case, p)) for p in at]
    if len(at) < 2:
        return max(notionals, default=0.0) <= allowed
    if abs(notionals[0] - notionals[1]) <= allowed:
        return True
    moved = float(out.quantity[t]) * (unit(case, price) - unit(case, marks(case)[t]))
    required = out.tables[t].requirement(Decimal(notionals[1]))
    if case.venue["maintenance_at"] == "entry":
        required = out.requirement[t]
    return abs(float(out.backing[t]) + moved - float(required)) <= allowed


def ledger_differences(out: Outcome, events: pd.DataFrame, scale: np.ndarray) -> list[str]:
    """Return the kinds whose totals differ; calls carry no money and are counted."""
    turnover = max(float(sum(out.traded)), float(scale[-1]))
    totals = events.groupby("kind")["amount"].sum()
    wrong = [
        f"ledger {kind}: {totals.get(kind, 0.0)!r}, reference {float(out.total(kind))!r}"
        for kind in LEDGER
        if not abs(totals.get(kind, 0.0) - float(out.total(kind))) <= TOLERANCE * turnover
    ]
    for kind in CALLS:
        count = int((events["kind"] == kind).sum())
        if count != out.count(kind):
            wrong.append(f"ledger {kind}: {count}, reference {out.count(kind)}")
    return wrong


def call_differences(out: Outcome, metrics: Mapping[str, float]) -> list[str]:
    """Return the measures of margin calls that differ, and calls that did not end once."""
    waits = floats(out.waits)
    expected = {
        "margin_calls": out.count("margin_call"),
        "calls_met": out.count("call_met"),
        "calls_failed": out.count("call_failed"),
        "liquidated_after_call": len(waits),
        "time_to_liquidation_after_call": waits.mean() if len(waits) else math.nan,
    }
    wrong = [
        f"{name}: {metrics[name]!r}, reference {value!r}"
        for name, value in expected.items()
        if not np.isclose(metrics[name], value, rtol=1e-12, atol=0.0, equal_nan=True)
    ]
    ended = metrics["calls_met"] + metrics["calls_failed"]
    if metrics["margin_calls"] - ended not in (0.0, 1.0):
        wrong.append(f"of {metrics['margin_calls']} calls {ended} ended")
    return wrong


def floats(values: list[Any]) -> np.ndarray:
    """Return a column of the reference as an array."""
    return np.array([math.nan if value is None else float(value) for value in values])


def marks(case: Case) -> np.ndarray:
    """Return the mark closes."""
    frame = case.bars if case.mark is None else case.mark
    return frame["close"].to_numpy()


def unit(case: Case, price: float) -> float:
    """Return the value of one contract (§1)."""
    size = case.contract["size"]
    return size * price if case.contract["kind"] == "linear" else -size / price
