"""The engine against the oracle, on random accounts of one position and of several.

``BACKTEST_REFERENCE_CASES=100000`` runs the nightly lot. The oracle itself is held to hand
arithmetic in the other files of this folder.
"""

import os
from collections import Counter
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pandas as pd
import pytest

from backtest import Multiple
from backtest.account.events import EVENTS
from backtest.account.money import FILL_COSTS
from tests import cases
from tests.agreement import (
    CALLS,
    KINDS_OF_EVENTS,
    assert_agrees,
    differences,
    run_engine,
    trust_data,
)
from tests.option_cases import make_option_case
from tests.oracle import COSTS, KIND_OF_COLUMN, Outcome, simulate

CASES = int(os.environ.get("BACKTEST_REFERENCE_CASES", "500"))
BLOCKS = 10
LIVELY = 10
"""An account of one position with much in it that holds it to the end."""

LEAST = {  # of 600 cases, in how many it must happen
    "event": {
        "fill": 500, "fee": 300, "slippage": 300, "impact": 80, "funding": 300, "interest": 300,
        "stop": 60, "liquidation": 100, "liquidation_loss": 100, "margin_call": 60, "top_up": 40,
        "bad_debt": 40, "flow": 100, "withdrawal_refused": 40, "ruin": 60, "call_met": 40,
        "call_partly_met": 15, "call_failed": 40, "margin_added": 10,
    },
    "path": {
        "liquidated in a gap": 20, "liquidated after funding": 5,
        "cross liquidated in the bar": 50, "isolated liquidated in the bar": 30,
        "stopped in a gap": 20, "stop in the bar": 50, "partial step": 20, "flipped": 100,
        "shrunk by initial margin": 60,
        "shrunk by the wallet": 30, "left alone: NaN": 50,
        "left alone: band": 50, "left alone: small": 30, "wallet empty: M pays": 20,
        "ruined": 30, "halted": 10, "ruined: gone": 15, "ruined: under the line": 30,
        "ruined: poor": 5, "ruined with a position": 15, "margin added": 8,
        "wallet emptied for margin": 5, "reduced by force": 15, "call partly met": 15,
    },
    "liquidated": {
        f"{margin} {kind} {mode}": 2
        for margin in ("cross", "isolated")
        for kind in ("linear", "inverse")
        for mode in ("close", "takeover", "partial", "partial by bracket")
    },
}  # fmt: skip


LEAST_SEVERAL = {
    cases.make_portfolio_case: {
        "walked: path": 30, "walked: worst": 15, "cross liquidated in the bar": 6,
        "isolated liquidated in the bar": 15, "stop in the bar": 10, "stopped in a gap": 1,
        "walked: highs first": 40, "walked: lows first": 40,
        "shrunk by initial margin": 8, "cut alone": 30, "scaled to the cap": 30, "flipped": 40,
        "cut by the balance": 6, "bands narrowed by the cap": 1, "pool: partial": 4,
        "pool: close": 1, "pool: takeover": 1, "a step passed over": 1, "converted": 2,
        "ruined when flat": 1, "ruined with a position": 1, "wallet empty: M pays": 5,
    },
    cases.make_mode_case: {
        "equity stop in the bar": 15, "equity stop in a gap": 3,
    },
    cases.make_limit_case: {
        "limit order filled": 60, "resting orders shrunk together": 5,
        "limit order cancelled: empty wallet": 1, "take_profit at the close": 10,
    },
    cases.make_full_case: {
        "take_profit in the bar": 20, "trailing_stop in the bar": 25, "margin added": 2,
        "pays expenses": 40,
    },
    cases.make_margin_case: {
        "margin_added": 30, "margin_returned": 40, "margin_refused": 30,
        "margins share interest": 2,
    },
    cases.make_spot_case: {
        "pays for coins": 30, "pays expenses": 30, "shrunk by initial margin": 10,
        "cross liquidated in the bar": 5, "cut by the balance": 5,
        "pool: takeover": 1, "pool: close": 1, "partial step": 5,
    },
    make_option_case: {
        "sold an option": 40, "liquidated with options": 20, "expired in the money": 30,
        "expired short": 20, "premiums cut by the balance": 8, "unquoted": 10,
        "partial step of an option": 3, "longs sold for the balance": 1, "walked: worst": 10,
        "pool: close": 8, "pool: partial": 5, "pool: takeover": 1, "coin": 20, "cash": 40,
    },
}  # fmt: skip
"""How many of the first 100 random accounts of several positions take each path, at least."""


STOPS = ("stop_loss", "take_profit", "trailing_stop")


def fix(stop):
    """Return a stop, or a table of stops by instrument, with multiples fixed at the entry."""
    if isinstance(stop, dict):
        fixed = {name: fix(each) for name, each in stop.items()}
        return fixed if any(fixed[name] is not stop[name] for name in stop) else stop
    return replace(stop, fixed=True) if isinstance(stop, Multiple) else stop


KINDS = [
    cases.make_case, cases.make_exit_case, cases.make_portfolio_case, cases.make_mode_case,
    cases.make_full_case, cases.make_margin_case, cases.make_dated_case, cases.make_limit_case,
    cases.make_spot_case, cases.make_cold_case, make_option_case,
]  # fmt: skip
TIES = {("make_exit_case", 491)}
"""Rounding decides them: a liquidation fee of the maintenance rate leaves M - R at 0 in each step,
so that the rest is liquidated, or stays until its stop."""


# Kind after kind in each block, which share the markets of their seeds.
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "block", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, BLOCKS))]
)
def test_the_engine_equals_the_oracle(make, block, monkeypatch):
    """Every money column of every bar, and every ledger total, to 1e-9 of equity or turnover."""
    trust_data(monkeypatch)
    whole = CASES // BLOCKS
    first = block * whole
    for seed in range(first, first + (whole if block else min(whole, 3))):
        if (make.__name__, seed) not in TIES:
            case = make(seed)
            out = assert_agrees(case, f"{make.__name__}({seed})")
            SEEN[make.__name__, seed] = seen_in(case, out)
            assert_ledger_agrees(out)


def test_every_kind_of_event_is_compared():
    """A resting order and a missing quote carry no money, and the oracle has no event of them."""
    kinds = {event.kind.name for event in EVENTS} | {*FILL_COSTS.values()}
    assert kinds - {*KINDS_OF_EVENTS, *CALLS} == {"limit_order", "unquoted"}


SEEN: dict[tuple[str, int], set[tuple[str, str]]] = {}
"""What happened in each case that the oracle has lived in this process."""


def find_seen(make: cases.Maker, seed: int) -> set[tuple[str, str]]:
    """Return what happens in a case, which the oracle lives unless it did so before."""
    if (make.__name__, seed) not in SEEN:
        case = make(seed)
        out = simulate(*case.for_oracle())
        SEEN[make.__name__, seed] = seen_in(case, out)
        assert_ledger_agrees(out)
    return SEEN[make.__name__, seed]


def seen_in(case: cases.PortfolioCase, out: Outcome) -> set[tuple[str, str]]:
    """Return what happened in a case, as the groups and names of ``LEAST``. How an account was
    liquidated is that of its only instrument."""
    seen = {("event", event.kind) for event in out.events}
    seen |= {("path", path) for path in out.paths}
    seen |= {("path", "ruined")} if any(out.ruined) else set()
    seen |= {("path", "halted")} if any(out.halted) else set()
    if out.names == ("TEST",) and out.count("liquidation"):
        venue = case.venues["TEST"]
        margin = case.account["margin"]["TEST"]
        by = " by bracket" if venue["liquidation"]["step"] == "bracket" else ""
        mode = venue["liquidation"]["mode"]
        mode += by if mode == "partial" else ""
        seen.add(("liquidated", f"{margin} {venue['contract']['kind']} {mode}"))
    return seen


@pytest.mark.slow
def test_random_cases_reach_every_rule():
    """Each kind of event, each rare path and each way of liquidation, often enough."""
    counts: Counter[tuple[str, str]] = Counter()
    for seed in range(600):
        make = (cases.make_case, cases.make_exit_case)[seed % 2]
        counts.update(find_seen(make, seed))
    missing = {
        f"{group}: {name}": counts[group, name]
        for group, least in LEAST.items()
        for name, number in least.items()
        if counts[group, name] < number
    }
    assert not missing


def assert_ledger_agrees(out: Outcome) -> None:
    """§6: each column is the sum of its kind of row; conversions have their notional."""
    names = {*COSTS, "bad_debt", "top_up"} - {"conversion"}
    kinds = {name: (KIND_OF_COLUMN.get(name, name),) for name in names}
    for column, names in (kinds | {"flows": ("flow", "top_up")}).items():
        with localcontext(prec=40):
            off = sum(getattr(out, column)) - sum(out.total(kind) for kind in names)
            size = sum(abs(event.amount) for event in out.events if event.kind in names)
        assert abs(off) <= Decimal("1e-30") * size


@pytest.mark.slow
@pytest.mark.parametrize("make", list(LEAST_SEVERAL), ids=lambda make: make.__name__)
def test_random_accounts_of_several_reach_the_rules(make):
    """Each rare path, often enough."""
    counts: Counter[tuple[str, str]] = Counter()
    for seed in range(100):
        counts.update(find_seen(make, seed))
    missing = {
        path: counts["path", path]
        for path, number in LEAST_SEVERAL[make].items()
        if counts["path", path] < number
    }
    assert not missing


@pytest.mark.parametrize(("seed", "columns"), [
    (None, ["equity", "cash", "margin", "fees", "realized_pnl", "initial_margin", "quantity"]),
    (3, ["equity", "cash", "fees", "liquidation_loss", "funding", "available"]),
])  # fmt: skip
def test_the_comparison_sees_an_error_in_one_bar(seed, columns):
    """An error of 1e-6 of the capital in one bar is found, and that alone."""
    case = cases.make_case(LIVELY) if seed is None else cases.make_portfolio_case(seed)
    out = simulate(*case.for_oracle())
    result = run_engine(case)
    assert differences(case, out, result) == []
    for column in columns:
        tables = {"bars": result.bars.copy(), "positions": result.positions.copy()}
        table = tables["positions" if column in ("margin", "quantity") else "bars"]
        off = 1e-6 * float(out.capital)
        off /= float(case.tapes["TEST"].bars["close"].iloc[-1]) if column == "quantity" else 1.0
        table.iloc[-1, table.columns.get_loc(column)] += off
        found = differences(case, out, Changed(result, **tables))
        assert len(found) == 1
        assert f" {column}" in found[0]


class Changed:
    """A result with other tables."""

    def __init__(self, result: object, bars: pd.DataFrame, positions: pd.DataFrame) -> None:
        self.result, self.bars, self.positions = result, bars, positions

    def __getattr__(self, name: str) -> object:
        return getattr(self.result, name)


@pytest.mark.slow
def test_stops_fixed_at_the_entry_equal_the_oracle(monkeypatch):
    """Drawn accounts of one position and of several, whose multiples keep the entry's distance."""
    trust_data(monkeypatch)
    tried = 0
    for make in (cases.make_exit_case, cases.make_full_case):
        for seed in range(24):
            case = make(seed)
            stops = {name: fix(case.account.get(name)) for name in STOPS}
            if any(stops[name] is not case.account.get(name) for name in STOPS):
                case = replace(case, account={**case.account, **stops})
                assert_agrees(case, f"{make.__name__}({seed})", is_compiled=False)
                tried += 1
    assert tried > 20


@pytest.mark.parametrize("block", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [
    cases.make_case, cases.make_portfolio_case, cases.make_limit_case, cases.make_full_case,
    cases.make_spot_case,
], ids=lambda make: make.__name__)  # fmt: skip
def test_shares_of_margin_equal_the_oracle(make, block, monkeypatch):
    """Drawn accounts under brackets, with a limit of initial margin by instrument or for all."""
    trust_data(monkeypatch)
    cut = 0
    for seed in range(24) if block else (4,):
        case = make(seed)
        rng = np.random.default_rng([81, seed])
        if "moves" in (getattr(case, "requirement", None) or {}):
            continue
        names = list(getattr(case, "tapes", {}))
        shares = {name: float(np.exp(rng.uniform(-5.0, -0.5))) for name in names}
        if not names or seed % 3 == 0:
            shares = float(np.exp(rng.uniform(-5.0, -0.5)))
        case = replace(case, account={**case.account, "margin_share": shares})
        out = assert_agrees(case, f"{make.__name__}({seed})", is_compiled=False)
        cut += out.paths["cut to its share"]
    assert cut > 40 * block, cut


@pytest.mark.slow
@pytest.mark.parametrize("make", [
    cases.make_case, cases.make_exit_case, cases.make_portfolio_case, cases.make_mode_case,
    cases.make_limit_case, cases.make_full_case, cases.make_spot_case,
], ids=lambda make: make.__name__)  # fmt: skip
def test_limits_of_loss_equal_the_oracle(make, monkeypatch):
    """Drawn accounts with limits by the day and the week, of both bases and in three time zones."""
    trust_data(monkeypatch)
    acted: Counter[str] = Counter()
    for seed in range(16):
        case = make(seed)
        rng = np.random.default_rng([80, seed])
        share = float(np.exp(rng.uniform(np.log(0.002), np.log(0.2))))
        limits = {
            "daily_loss": share if seed % 4 != 3 else None,
            "weekly_loss": min(0.9, 1.5 * share) if seed % 2 else None,
            "daily_basis": ("day", "initial")[seed % 3 % 2],
            "day": ("UTC", "Europe/Prague", "America/New_York")[seed % 3],
        }
        case = replace(case, account={**case.account, **limits})
        out = assert_agrees(case, f"{make.__name__}({seed})", is_compiled=False)
        acted.update(event.kind for event in out.events if event.kind.endswith("_loss"))
    assert acted["daily_loss"] > 3, acted


@pytest.mark.parametrize("block", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [
    cases.make_case, cases.make_exit_case, cases.make_portfolio_case, cases.make_mode_case,
    cases.make_limit_case, cases.make_full_case, cases.make_spot_case,
], ids=lambda make: make.__name__)  # fmt: skip
def test_pauses_after_equity_stops_equal_the_oracle(make, block, monkeypatch):
    """Drawn accounts that stay out for good, for hours or days, or until the next month."""
    trust_data(monkeypatch)
    pauses = 0
    for seed in range(16 if block else 2):
        case = make(seed)
        rng = np.random.default_rng([96, seed])
        limits = {
            "equity_stop": float(np.exp(rng.uniform(np.log(0.002), np.log(0.2)))),
            "after_stop": ("6h", "halt", "next month", "2d")[seed % 4],
            "day": "UTC",
        }
        case = replace(case, account={**case.account, **limits})
        out = assert_agrees(case, f"{make.__name__}({seed})", is_compiled=False)
        pauses += sum(event.kind == "pause" for event in out.events)
    assert pauses > 0
