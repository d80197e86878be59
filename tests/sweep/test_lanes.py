"""The loop over lanes lives every bar as a single run does."""

import sys
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget
from backtest.sweep.lanes.runner import LaneRunner
from backtest.sweep.set_evaluator import Evaluator, Rows
from tests.cases import make_case
from tests.sweep.sweeps import are_equal

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
LEAN = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125
)


class Scaled(bt.Policy):
    """Ask for a multiple of the leverage in the market's column ``target``."""

    scale: Annotated[float, bt.Range(0.0, 10.0)] = 1.0

    def observe(self, market):
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        return bar.target * self.scale


class Past(NamedTuple):
    n: float
    peak: float


class Remembers(bt.Policy):
    """Look at most of what a policy may see of its account, and remember."""

    scale: Annotated[float, bt.Range(0.0, 10.0)] = 1.0

    def observe(self, market):
        return {"target": market.columns["target"] * self.scale}

    def start(self):
        return Past(0.0, self.scale)

    def leverage(self, bar, account, memory):
        rested = min(account.bars_since_liquidation, account.bars_since_stop, 10.0) / 10.0
        asked = bar.target * (1.0 - 0.5 * account.drawdown) * (0.5 + 0.5 * rested)
        if account.margin_ratio > 0.9:
            asked = 0.5 * asked
        return asked, Past(memory.n + 1.0, max(memory.peak, account.equity))


def assert_rows_are_runs(evaluator: Evaluator, sets, rows: Rows, every: int = 1, **span) -> None:
    """Compare every set with its single run; a set that fails must fail alone too.

    A run takes longer than a row: of many sets every so many are compared.
    """
    for k in range(0, len(rows.done), every):
        values = {name: column[k] for name, column in sets.items()}
        if rows.errors[k]:
            with pytest.raises(bt.BacktestError):
                evaluator.replay(values, **span)
            continue
        result = evaluator.replay(values, **span)
        for name, column in rows.metrics.items():
            alone = result.metrics[name]
            is_same = are_equal(name, column[k], alone, evaluator.base.account.capital)
            assert is_same, (k, name, column[k], alone)
        if rows.returns is not None:
            given = (rows.returns[:, k], result.returns.to_numpy())
            np.testing.assert_allclose(*given, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 5])
def test_a_row_is_its_run_in_every_mode(seed: int):
    """Random markets, venues and accounts: linear and inverse, cross and isolated, all modes."""
    case = make_case(seed).for_engine(bt)
    account, venue = case["account"], case["venue"]
    rng = np.random.default_rng(seed)
    sets = {
        "scale": np.r_[1.0, rng.uniform(0.2, 3.0, 3)],
        "account.band": np.r_[account.band, rng.uniform(0.0, 0.5, 3)],
    }
    if seed % 2:
        sets["venue.fees.taker"] = np.r_[venue.fees.taker, rng.uniform(0.0, 0.001, 3)]
        sets["account.capital"] = account.capital * np.r_[1.0, rng.uniform(0.5, 2.0, 3)]
    policy = Scaled if seed % 4 < 2 else Remembers
    evaluator = Evaluator(
        case["market"], policy, venue=venue, account=account, signal=case["signal"]
    )
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.done.all()
    assert_rows_are_runs(evaluator, sets, rows)


@pytest.fixture(scope="module")
def lean() -> tuple[Evaluator, dict[str, np.ndarray]]:
    """Return the simplest kind of account, with more sets than one block takes."""
    rng = np.random.default_rng(0)
    n = 150
    sets = {
        "target": rng.uniform(0.1, 2.0, n),
        "half_life": rng.choice([24.0, 72.0, 168.0], n),
        "account.band": rng.uniform(0.0, 0.3, n),
        "account.max_leverage": rng.uniform(1.0, 60.0, n),
    }
    market = bt.Market.sample(bars=2_000)
    evaluator = Evaluator(market, VolTarget, venue=LEAN, account=bt.Account(), threads=1)
    return evaluator, sets


@pytest.mark.slow
def test_a_row_is_its_run_among_three_blocks(lean):
    evaluator, sets = lean
    rows = evaluator.evaluate(sets, returns=True)
    assert_rows_are_runs(evaluator, sets, rows, every=10)


@pytest.mark.slow
def test_liquidated_and_ruined_rows_are_their_runs(lean):
    venue = lean[0].base.venue
    market = bt.Market.sample(bars=2_000)
    evaluator = Evaluator(market, Constant, venue=venue, account=bt.Account())
    sets = {"leverage": np.linspace(5.0, 95.0, 16)}
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.metrics["liquidations"].sum() > 0
    assert_rows_are_runs(evaluator, sets, rows)


@pytest.mark.slow
def test_rows_do_not_depend_on_threads_order_or_neighbours(lean):
    evaluator, sets = lean
    rows = evaluator.evaluate(sets)
    evaluator._runner().threads = 3
    order = np.random.default_rng(1).permutation(150)
    other = evaluator.evaluate({name: column[order] for name, column in sets.items()})
    evaluator._runner().threads = 1
    for name, column in rows.metrics.items():
        np.testing.assert_array_equal(other.metrics[name], column[order])


@pytest.mark.slow
def test_an_account_may_begin_and_end_inside_the_market(lean):
    evaluator, sets = lean
    some = {name: column[:8] for name, column in sets.items()}
    rows = evaluator.evaluate(some, first=700, stop=1_500, returns=True)
    assert_rows_are_runs(evaluator, some, rows, first=700, stop=1_500)


def test_the_bars_of_an_account_that_begins_later_only_warm_its_columns():
    market = bt.Market.sample(bars=600)
    result = bt.run(market, VolTarget(), venue=VENUE, account=bt.Account(), start=market.times[200])
    assert result.bars.index[0] == market.times[200]
    assert np.isfinite(result.bars["target"].iloc[0])
    with pytest.raises(bt.ParameterError, match="start must lie before the last bar"):
        bt.run(market, VolTarget(), venue=VENUE, account=bt.Account(), start="2100-01-01")


class Loud(bt.Policy):
    """Ask for a negative leverage when a parameter says so, or raise."""

    least: Annotated[float, bt.Range(-5.0, 5.0)] = 1.0

    def leverage(self, bar, account):
        if self.least > 4.0:
            raise ValueError("too loud")
        return self.least


@pytest.mark.slow
def test_a_set_that_fails_is_a_row_with_its_cause_and_the_others_go_on():
    market = bt.Market.sample(bars=300)
    evaluator = Evaluator(market, Loud, venue=VENUE, account=bt.Account())
    sets = {"least": np.array([1.0, -1.0, 2.0, 4.5])}
    rows = evaluator.evaluate(sets)
    assert [bool(error) for error in rows.errors] == [False, True, False, True]
    assert "negative" in rows.errors[1] or "at least 0" in rows.errors[1]
    assert "too loud" in rows.errors[3]
    assert rows.done.all()
    assert np.isfinite(rows.metrics["sharpe"][[0, 2]]).all()


@pytest.mark.slow
def test_a_ruined_set_is_a_row_with_its_time():
    venue = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0
    )
    time = np.arange(40)
    close = np.where(time < 20, 100.0, 40.0) * np.where(time % 2 == 0, 1.0, 1.001)
    index = pd.date_range("2024-01-01", periods=40, freq="h", tz="UTC", unit="ns")
    bars = pd.DataFrame({"open": close, "high": close, "low": close, "close": close}, index=index)
    market = bt.Market.from_frames(bars.assign(volume=1.0), instrument="TEST")
    evaluator = Evaluator(market, Constant, venue=venue, account=bt.Account(max_leverage=50))
    rows = evaluator.evaluate({"leverage": np.array([1.0, 20.0])})
    assert rows.metrics["ruined"].tolist() == [0.0, 1.0]
    assert rows.metrics["ruin_time"][1] == 21 / 24
    assert np.isfinite(rows.metrics["sharpe"]).all()


@pytest.mark.slow
def test_ctrl_c_returns_what_is_done(lean, monkeypatch):
    evaluator, sets = lean

    def interrupted(self, *args, **kwargs):
        blocks = runner_score(self, *args, **kwargs)
        yield next(blocks)
        blocks.close()
        raise KeyboardInterrupt

    runner_score = LaneRunner.score
    monkeypatch.setattr(LaneRunner, "score", interrupted)
    rows = evaluator.evaluate(sets)
    assert 0 < rows.done.sum() < 150
    assert np.isnan(rows.metrics["sharpe"][~rows.done]).all()


@pytest.mark.slow
def test_what_a_compiled_policy_raises_is_not_printed(capfd):
    evaluator = Evaluator(bt.Market.sample(bars=50), Loud, venue=VENUE, account=bt.Account())
    before = sys.unraisablehook
    evaluator.evaluate({"least": np.array([4.5])})
    assert sys.unraisablehook is before
    assert "too loud" not in capfd.readouterr().err


class Branching(bt.Policy):
    """Read one parameter or another, through a property, a helper and a power."""

    fast: bool = True
    a: Annotated[float, bt.Range(1.0, 500.0)] = 10.0
    b: Annotated[float, bt.Range(1.0, 500.0)] = 20.0
    scale: Annotated[float, bt.Range(0.1, 3.0)] = 1.0

    @property
    def is_slow(self):
        return not self.fast

    def choose(self):
        return (self.b if self.is_slow else self.a) ** 0.9

    def observe(self, market):
        sigma = bt.features.ewma_volatility(market, self.choose())
        return {"sigma": sigma}

    def leverage(self, bar, account):
        return 0.3 * self.scale / bar.sigma


@pytest.mark.slow
def test_columns_are_shared_only_by_sets_that_read_the_same():
    """Every branch of ``observe`` is watched: what one set reads another may not."""
    rng = np.random.default_rng(4)
    sets = {
        "fast": np.array([True, False] * 6),
        "a": np.repeat([5.0, 50.0], 6),
        "b": np.tile([7.0, 70.0, 200.0], 4),
        "scale": rng.uniform(0.5, 2.0, 12),
    }
    market = bt.Market.sample(bars=400)
    evaluator = Evaluator(market, Branching, venue=LEAN, account=bt.Account())
    assert_rows_are_runs(evaluator, sets, evaluator.evaluate(sets))


@pytest.mark.slow
def test_powers_of_many_parameters_are_those_of_one():
    sets = {"a": np.random.default_rng(5).uniform(2.0, 400.0, 64)}
    market = bt.Market.sample(bars=100)
    evaluator = Evaluator(market, Branching, venue=LEAN, account=bt.Account())
    rows = evaluator.evaluate(sets)
    (columns,) = evaluator._runner()._find_panel(0, None).columns
    assert columns.is_together
    assert_rows_are_runs(evaluator, sets, rows)


def test_sets_that_contradict_themselves_are_rows_with_their_cause():
    market = bt.Market.sample(bars=100)
    evaluator = Evaluator(market, Constant, venue=VENUE, account=bt.Account())
    sets = {
        "account.min_leverage": np.array([2.0, 0.0, 1.0]),
        "account.max_leverage": np.array([1.0, 1.0, 0.5]),
    }
    rows = evaluator.evaluate(sets, returns=True)
    assert ["min_leverage" in error for error in rows.errors] == [True, False, True]
    assert rows.done.all()
    assert np.isnan(rows.returns[:, [0, 2]]).all()
    assert np.isfinite(rows.returns[:, 1]).all()
    assert_rows_are_runs(evaluator, sets, rows._replace(returns=None))
    rows = evaluator.evaluate({name: column[::2] for name, column in sets.items()})
    assert all("min_leverage" in error for error in rows.errors)


@pytest.mark.slow
def test_flows_before_a_later_start_belong_to_an_earlier_time():
    market = bt.Market.sample(bars=300)
    flows = pd.Series([500.0, -200.0], index=market.times[[50, 200]])
    evaluator = Evaluator(market, Constant, venue=VENUE, account=bt.Account(flows=flows))
    sets = {"leverage": np.array([0.5, 2.0])}
    rows = evaluator.evaluate(sets, first=100)
    assert (rows.metrics["flows"] == -200.0).all()
    assert_rows_are_runs(evaluator, sets, rows, first=100)


class Once(bt.Policy):
    """Ask at the first bar only, and hold."""

    scale: Annotated[float, bt.Range(0.0, 50.0)] = 1.0

    def observe(self, market):
        return {"asked": np.where(np.arange(market.n_bars) == 0, 1.0, np.nan)}

    def leverage(self, bar, account):
        return bar.asked * self.scale


class Timid(bt.Policy):
    """Ask for less in a drawdown."""

    scale: Annotated[float, bt.Range(0.0, 50.0)] = 1.0

    def leverage(self, bar, account):
        return self.scale * (1.0 - 0.9 * account.drawdown)


def make_path(close: np.ndarray, start: np.ndarray | None = None) -> bt.Market:
    """Return an hourly market that opens at the closes before, unless said otherwise."""
    index = pd.date_range("2024-01-01", periods=len(close), freq="h", tz="UTC", unit="ns")
    start = np.r_[close[0], close[:-1]] if start is None else start
    prices = {"open": start, "high": np.maximum(start, close), "low": np.minimum(start, close)}
    bars = pd.DataFrame({**prices, "close": close, "volume": 1.0}, index=index)
    return bt.Market.from_frames(bars, instrument="TEST")


@pytest.mark.slow
def test_a_lane_is_liquidated_by_its_own_closing_fee():
    """The quick look takes in the dearest of the lanes, not the first set's rules."""
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT@2024-10-24")
    venue = venue.override(includes_close_fee=True)
    market = make_path(np.r_[100.0, np.linspace(100.0, 88.0, 60)])
    evaluator = Evaluator(market, Once, venue=venue, account=bt.Account())
    sets = {"venue.fees.taker": np.array([0.0, 0.003]), "scale": np.array([1.0, 10.0])}
    rows = evaluator.evaluate(sets, returns=True)
    assert rows.metrics["liquidations"].tolist() == [0.0, 1.0]
    assert_rows_are_runs(evaluator, sets, rows)


@pytest.mark.slow
def test_a_policy_sees_its_drawdown_free_of_flows_after_a_sweep_without_any():
    """Its compiled part is that of accounts with flows, not the one kept from the first sweep."""
    market = bt.Market.sample(bars=300)
    flows = pd.Series([5_000.0, -3_000.0], index=market.times[[50, 200]])
    sets = {"scale": np.array([0.5, 1.7, 2.5])}
    for account in (bt.Account(), bt.Account(flows=flows)):
        evaluator = Evaluator(market, Timid, venue=VENUE, account=account)
        assert_rows_are_runs(evaluator, sets, evaluator.evaluate(sets, returns=True))


@pytest.mark.slow
def test_a_withdrawal_of_more_than_the_last_equity_is_counted_as_in_a_run():
    """A gap has earned it; the unit value waits a bar, here the last of a day."""
    close = np.r_[np.full(23, 100.0), np.full(40, 200.0)]
    market = make_path(close, start=close)
    flows = pd.Series([-15_000.0], index=market.times[[23]])
    evaluator = Evaluator(market, Once, venue=VENUE, account=bt.Account(flows=flows))
    sets = {"scale": np.array([0.9, 1.0])}
    rows = evaluator.evaluate(sets, returns=True)
    assert (rows.metrics["flows"] == -15_000.0).all()
    assert_rows_are_runs(evaluator, sets, rows)
