"""A decision equals that of a run: leverage, order and cuts, bit for bit."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.account import bar as bar_steps
from backtest.account import fills, ledger
from backtest.account.order_limits import CAUSES, COUNT, CUT, count_decisions
from backtest.engine.batch import run_account
from backtest.engine.run_result import finish
from backtest.engine.run_setup import set_up_run
from tests.agreement import Swinging, trust_data
from tests.cases import PRICES, Case, make_exit_case, make_full_case

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Reading(bt.Policy):
    """Follow the target, less after losses and for some time after a stop."""

    def observe(self, market):
        """Return the column that rides along."""
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        """Return the target, scaled by what the account says."""
        scale = 1.0 - 0.5 * account.drawdown
        scale *= 1.0 + 0.01 * min(account.bars_since_stop, account.bars_since_liquidation, 9.0)
        scale *= 1.0 + 0.1 * math.tanh(account.peak_equity / account.equity + 0.01 * account.days)
        scale *= 1.0 + 0.01 * min(account.margin_ratio, 1.0)
        return bar.target * scale


def jolt(case: Any) -> Any:
    """Return a random case whose bars open away from the closes before them."""
    rng = np.random.default_rng([case.seed, 40])

    def move(bars: pd.DataFrame, mark: pd.DataFrame | None) -> dict[str, Any]:
        factor = np.exp(rng.normal(0.0, 0.002, len(bars)))[:, None]
        prices = [*PRICES]
        moved = None if mark is None else mark.assign(**mark[prices] * factor)
        return {"bars": bars.assign(**bars[prices] * factor), "mark": moved}

    if isinstance(case, Case):
        return replace(case, **move(case.bars, case.mark))
    tapes = {n: replace(tape, **move(tape.bars, tape.mark)) for n, tape in case.tapes.items()}
    return replace(case, tapes=tapes)


class Whole:
    """A run of a random account, and what it did in each bar."""

    def __init__(self, case: Any) -> None:
        given = jolt(case).for_engine(bt)
        self.market, self.signal = given.pop("market"), given.pop("signal")
        if getattr(case, "overlay", None) is not None:
            hours = case.overlay.every / 3_600_000_000_000
            given["overlay"] = Swinging(level=case.overlay.level, hours=hours)
        self.terms = given
        self.markets = {"TEST": self.market} if isinstance(self.market, bt.Market) else self.market
        self.setup = set_up_run(
            self.market, Reading(), signal=self.signal, **{"overlay": None, **given}
        )
        self.cuts: dict[int, np.ndarray] = {}
        with pytest.MonkeyPatch.context() as patch:
            for module in (bar_steps, bar_steps, fills):
                patch.setattr(module, "count_decisions", self.count)
            self.outcome = run_account(self.setup, is_compiled=False, progress=None)
        self.names = self.setup.markets.names

    def count(self, bar: Any, t: int, equity: float) -> None:
        """Count the decisions of a bar alone."""
        bar.scratch.cuts[:] = 0.0
        count_decisions(bar, t, equity)
        self.cuts[t] = bar.scratch.cuts.copy()

    def rows(self, t: int, i: int, kinds: tuple[int, ...]) -> np.ndarray:
        """Return the entries of some kinds of an instrument in bar t."""
        entries = self.outcome.entries
        rows = entries[(entries[:, 0] == t) & np.isin(entries[:, 1], kinds)]
        return rows[rows[:, 8] == i]

    def order(self, t: int, i: int) -> float:
        """Return the contracts that the decision traded in bar t."""
        return float(sum(self.rows(t, i, (ledger.FILL,))[:, 3].tolist()))

    def list_bars(self) -> list[int]:
        """Return the closes after which every instrument goes on, and none is closed by force."""
        forced = (*ledger.STOP_KINDS, ledger.LIQUIDATED, ledger.RUINED)
        entries = self.outcome.entries
        bad = {int(t) for t in entries[np.isin(entries[:, 1], forced), 0]}
        found = []
        for t in range(2, self.setup.markets.n_bars - 2):
            goes_on = all(not a <= t or t + 2 < b for a, b in self.setup.markets.spans.tolist())
            if goes_on and t + 1 not in bad and self.outcome.of_account("equity")[t] > 0.0:
                found.append(t)
        return found

    def stated(self, t: int) -> dict[str, Any]:
        """Return what bar t + 1 brings: its prices and settlements."""
        fill = self.terms["account"].fill
        at, mark, funding = {}, {}, {}
        markets = dict(self.setup.markets.items())
        markets |= {
            each.name: each.prices for each in self.terms["account"].collateral
            if isinstance(each.prices, bt.Market)
        }  # fmt: skip
        time = int(self.setup.markets.time[t + 1])
        for name, market in markets.items():
            row = int(np.searchsorted(market.time, time))
            if row >= market.n_bars or market.time[row] != time or market.time[0] == time:
                continue
            price = market.close if fill == "next_close" else market.open
            at[name], mark[name] = float(price[row]), float(market.mark_open[row])
            if name in self.names:
                kept = market.funding_time >= time
                kept &= market.funding_time < time + market.interval
                frame = {"rate": market.funding_rate[kept], "mark": market.funding_mark[kept]}
                stamps = pd.DatetimeIndex(market.funding_time[kept], tz="UTC")
                funding[name] = pd.DataFrame(frame, index=stamps)
        if fill == "same_close":
            at = {name: price for name, price in at.items() if name not in self.names}
        return {"at": at, "mark": mark, "funding": funding}

    def prefix(self, t: int) -> dict[str, Any]:
        """Return market and signal up to the close of bar t."""
        market = self.market.prefix(t + 1)
        signal = self.signal[: t + 1]
        if isinstance(market, bt.Markets):
            signal = signal[list(market.names)]
        return {"market": market, "signal": signal}


def describe(whole: Whole, t: int, i: int) -> dict[str, Any]:
    """Return the cuts of the decision of an instrument that filled in bar t."""
    sums = whole.cuts[t][i] if t in whole.cuts else np.zeros((len(CAUSES), CUT + 1))
    rows = zip(CAUSES[1:], sums[1:], strict=True)
    return {cause: float(each[CUT]) for cause, each in rows if each[COUNT]}


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def compare(whole: Whole, t: int, decision: Any) -> list[str]:
    """Return where a decision differs from the run's."""
    wrong = []
    decided = whole.outcome.of_positions("target")[t]
    for name, got in decision.leverage.items():
        i = whole.names.index(name)
        if not same(got, float(decided[i])):
            wrong.append(f"bar {t} leverage of {name}: {got!r}, run {decided[i]!r}")
        order = whole.order(t + 1, i)
        if not same(decision.order[name], order):
            wrong.append(f"bar {t} order of {name}: {decision.order[name]!r}, run {order!r}")
        cuts = {each.cause: each.turns for each in decision.cuts if each.instrument == name}
        expected = describe(whole, t + 1, i)
        if cuts != expected:
            wrong.append(f"bar {t} cuts of {name}: {cuts}, run {expected}")
    return wrong


def run_to(whole: Whole, t: int) -> Any:
    """Return the result of the run up to the close of bar t."""
    given = {"overlay": None, **whole.terms, **whole.prefix(t)}
    market = given.pop("market")
    setup = set_up_run(market, Reading(), **given)
    outcome = run_account(setup, is_compiled=False, progress=None)
    return finish(setup, outcome, calendar="365")


def decide_like(whole: Whole, t: int) -> Any:
    """Return the decision at the close of bar t."""
    state = run_to(whole, t)
    return bt.decide(Reading(), **whole.prefix(t), **whole.terms, state=state, **whole.stated(t))


def is_gap(whole: Whole, t: int, decision: Any) -> bool:
    """Return whether every stated price differs from the last close."""
    last = {name: float(m.close[-1]) for name, m in whole.setup.markets.prefix(t + 1).items()}
    return all(decision.price[name] != last[name] for name in decision.price)


class Count:
    """What was compared: bars, those that trade, by kind; and what differed."""

    def __init__(self) -> None:
        self.runs = self.bars = self.trading = self.gaps = 0
        self.kinds: set[tuple[bool, str]] = set()
        self.wrong: list[str] = []

    def add(self, case: Any, per_run: int) -> None:
        """Compare some bars of the run of a case, most of them with an order."""
        whole = Whole(case)
        rng, free = np.random.default_rng([case.seed, 41]), whole.list_bars()
        busy = [t for t in free if any(whole.order(t + 1, i) for i in range(len(whole.names)))]
        account = whole.terms["account"]
        self.runs += bool(free)
        for t in {*rng.permutation(busy)[: per_run - 1].tolist(), *rng.permutation(free)[:1]}:
            decision = decide_like(whole, int(t))
            self.bars += 1
            self.gaps += is_gap(whole, int(t), decision)
            self.trading += any(decision.order.values())
            self.kinds.add((len(whole.names) == 1, account.fill))
            self.wrong += [f"seed {case.seed}, {text}" for text in compare(whole, int(t), decision)]


@pytest.mark.parametrize("make", [make_exit_case, make_full_case])
def test_a_decision_is_that_of_the_run(make, monkeypatch):
    trust_data(monkeypatch)
    count = Count()
    count.add(make(0), 2)
    assert not count.wrong, "\n".join(count.wrong)
    assert count.bars


@pytest.mark.slow
def test_decisions_at_200_bars_of_50_runs_are_those_of_the_runs(monkeypatch):
    """One position and several, every fill mode; most of the bars trade."""
    trust_data(monkeypatch)
    count = Count()
    for seed in range(36):
        count.add(make_exit_case(seed), 5)
        count.add(make_full_case(seed), 4)
    assert not count.wrong, f"{len(count.wrong)}:\n" + "\n".join(count.wrong[:20])
    assert count.runs >= 50
    assert count.bars >= 200
    assert count.trading >= 0.6 * count.bars
    assert count.gaps >= 0.6 * count.bars
    assert len(count.kinds) == 6
