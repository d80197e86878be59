"""Properties that hold for every account: drawn markets, venues and settings.

``BACKTEST_CASES`` is the number of cases of each property, 8 if it is not given; a case that fails
is printed with its draws.
"""

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.strategies import Constant
from tests.scenes import coin_venue, venue_of

CASES = settings(
    max_examples=int(os.environ.get("BACKTEST_CASES", "8")), deadline=None, phases=[Phase.generate]
)
COSTS: dict[str, Any] = {
    "fees": {"taker": 0.0006, "maker": 0.0002},
    "slippage": {"rate": 0.0003},
    "liquidation": {"fee": 0.01},
}
START = pd.Timestamp("2022-03-01", tz="UTC")
pytestmark = pytest.mark.filterwarnings("ignore::backtest.core.errors.BandWarning")


class Lean(bt.Policy):
    """More leverage the lower the price; it trades at most closes."""

    level: Annotated[float, bt.Range(0.0, 1e6, "turns")] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return level 100 / close."""
        return min(self.level * 100.0 / bar.close, 14.0)


@dataclass(frozen=True)
class Case:
    """A drawn account, without lots: what scales must scale exactly."""

    seed: int
    level: float
    side: float
    band: float
    margin: str

    @property
    def policy(self) -> Lean:
        return Lean(level=self.level)

    def frame(self, *, start: pd.Timestamp = START, price: float = 100.0, n: int = 48) -> Any:
        """Return hourly bars with wicks, from this price."""
        rng = np.random.default_rng(self.seed)
        close = price * np.exp(np.cumsum(0.012 * rng.standard_normal(n)))
        opens = np.append(price, close[:-1])
        wick = np.exp(0.004 * np.abs(rng.standard_normal((2, n))))
        bars = {
            "open": opens,
            "high": np.maximum(opens, close) * wick[0],
            "low": np.minimum(opens, close) / wick[1],
            "close": close,
            "volume": 1e9,
        }
        return pd.DataFrame(bars, index=pd.date_range(start, periods=n, freq="1h"))

    def market(self, **more: Any) -> bt.Market:
        bars = self.frame(**more)
        rng = np.random.default_rng(self.seed + 1)
        rates = {"rate": 0.0005 * rng.standard_normal(len(bars) // 8)}
        funding = pd.DataFrame(rates, index=bars.index[::8])
        # The bars are made up, so that those of a shifted start may lie after today.
        return bt.Market.from_frames(bars, funding=funding, now=bars.index[-1])

    def account(self, capital: float = 1000.0, **more: Any) -> bt.Account:
        if self.margin == "isolated":
            more["venue_leverage"] = 15.0
        return bt.Account(capital=capital, margin=self.margin, band=self.band, **more)

    def run(self, market: Any = None, **more: Any) -> bt.Result:
        """Run the case, or what is changed of it."""
        settings = {
            "policy": self.policy,
            "venue": venue_of(**COSTS),
            "account": self.account(),
            "signal": self.side,
            **more,
        }
        return bt.run(self.market() if market is None else market, **settings)

    def test(self, market: bt.Market) -> bt.Backtest:
        """Return the case as a test of a market."""
        venue = venue_of(**COSTS)
        return bt.Backtest(market, venue=venue, account=self.account(), signal=self.side)


cases = st.builds(
    Case,
    seed=st.integers(0, 2**31),
    level=st.floats(0.2, 9.0),
    side=st.sampled_from([1.0, -1.0, 0.5]),
    band=st.sampled_from([0.0, 0.1, 0.4]),
    margin=st.sampled_from(["cross", "isolated"]),
)


def equity_of(result: bt.Result) -> np.ndarray:
    return result.bars["equity"].to_numpy()


def assert_near(one: Any, other: Any, rel: float = 1e-9) -> None:
    values = np.asarray(one)
    expected = np.asarray(other)
    assert values.shape == expected.shape

    tolerance = rel * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(values, expected, rtol=rel, atol=tolerance)


def holds(**draws: Any) -> Callable[[Any], Any]:
    """Declare a property of a case, and of what is drawn beside it."""
    return lambda test: CASES(given(case=cases, **draws)(test))


@holds()
def test_profit_is_the_sum_of_its_terms(case):
    result = case.run()
    bars = result.bars
    costs = ["fees", "slippage", "impact", "funding", "liquidation_loss"]
    profit = bars["price_pnl"] + bars["bad_debt"] - bars[costs].sum(axis=1)
    assert_near(bars["equity"].diff()[1:], profit[1:])

    split = result.attribution()
    if math.isfinite(split.growth):
        assert math.isclose(split.terms.sum(), split.growth, abs_tol=1e-9)


@holds(scale=st.floats(0.01, 1e4))
def test_capital_scales_money(case, scale):
    other = case.run(account=case.account(1000.0 * scale))
    assert_near(equity_of(other) / scale, equity_of(case.run()))


@holds(scale=st.floats(0.01, 1e4))
def test_prices_scale_quantities_alone(case, scale):
    policy = Lean(level=case.level * scale)
    other = case.run(case.market(price=100.0 * scale), policy=policy)
    assert_near(equity_of(other), equity_of(case.run()))


@holds(days=st.integers(1, 3000))
def test_days_shift_nothing(case, days):
    other = case.run(case.market(start=START + pd.Timedelta(days=days)))
    assert equity_of(other).tolist() == equity_of(case.run()).tolist()


@holds()
def test_a_market_is_markets_of_one(case):
    market = case.market()
    single = case.run(market)
    of_one = case.run(bt.Markets({"ONE": market}), signal={"ONE": case.side})

    assert equity_of(of_one).tolist() == equity_of(single).tolist()
    assert of_one.manifest["id"] == single.manifest["id"]


@holds(levels=st.lists(st.floats(0.2, 9.0), min_size=1, max_size=4, unique=True))
def test_a_row_of_a_sweep_is_a_run(case, levels):
    market = case.market()
    table = case.test(market).sweep(Lean, {"level": levels}).table

    for level in levels:
        row = table[table["level"] == level].iloc[0]
        run = case.run(market, policy=Lean(level=level))
        assert row["final_equity"] == pytest.approx(run.metrics["final_equity"], rel=1e-9)


@holds()
def test_a_replay_of_the_fills_is_the_run(case):
    market = case.market()
    result = case.run(market)
    test = bt.Backtest(market, venue=venue_of(**COSTS), account=case.account())

    assert_near(test.replay(result.fills).bars["equity"], equity_of(result))


@holds(bar=st.integers(2, 45))
def test_a_decision_is_that_of_the_next_bar(case, bar):
    market = case.market()
    known = market.slice(0, bar + 1)
    next_open = float(market.open[bar + 1])
    rates = dict(zip(market.funding_time.tolist(), market.funding_rate.tolist(), strict=True))
    funding = rates.get(int(market.time[bar + 1]))  # None where the next open settles nothing
    state = case.run(known)
    decision = case.test(known).decide(case.policy, state=state, at=next_open, funding=funding)

    after = case.run(market.slice(0, bar + 2))
    is_next = (after.fills["time"] == after.bars.index[-1]) & (after.fills["kind"] == "order")
    filled = after.fills[is_next]["quantity"].sum()
    assert sum(decision.order.values()) == pytest.approx(filled, rel=1e-9, abs=1e-9)


@holds()
def test_an_inverse_position_is_a_linear_one_of_the_other_coin(case):
    """In coins, a long of the price is a short of 1 / price, quoted in coins, of equal leverage."""
    bars = case.frame()
    reciprocal = 1.0 / bars[["open", "low", "high", "close"]].set_axis(bars.columns[:4], axis=1)
    policy = Constant(leverage=min(case.level, 3.0))
    terms = {"account": case.account(), "compile": False}
    free = {"liquidation": {"fee": 0.0}}

    market = bt.Market.from_frames(bars)
    inverse = bt.run(market, policy, venue=coin_venue(**free), signal=case.side, **terms)
    dual = bt.Market.from_frames(reciprocal.assign(volume=1e9))
    linear = bt.run(dual, policy, venue=venue_of(**free), signal=-case.side, **terms)
    assert_near(equity_of(inverse), equity_of(linear))


@holds(name=st.sampled_from(["A", "Z"]))
def test_an_untouched_instrument_changes_nothing(case, name):
    untouched = dataclasses.replace(case, seed=case.seed + 7).market()
    markets = bt.Markets({"M": case.market(), name: untouched})
    result = case.run(markets, signal={"M": case.side, name: 0.0})

    assert_near(equity_of(result), equity_of(case.run()))


def draw_market(case: Case, name: str, **more: Any) -> bt.Market:
    """Return a market of an instrument's own seed."""
    return dataclasses.replace(case, seed=case.seed + ord(name)).market(**more)


@holds(order=st.permutations("ABC"))
def test_the_order_of_instruments_changes_nothing(case, order):
    def run(names: Any) -> np.ndarray:
        markets = bt.Markets({name: draw_market(case, name) for name in names})
        return equity_of(case.run(markets, signal={"A": 0.3, "B": -0.4, "C": case.side / 3}))

    assert_near(run(order), run("ABC"))


@holds(share=st.floats(0.0, 1.0), amount=st.floats(-300.0, 900.0))
def test_a_flow_in_two_parts_is_that_flow(case, share, amount):
    def run(*parts: tuple[float, float]) -> np.ndarray:
        flows = pd.Series({START + pd.Timedelta(hours=hour): part for hour, part in parts})
        return equity_of(case.run(account=case.account(flows=flows)))

    # one bar: both are there at its next open
    in_parts = run((20.25, share * amount), (20.5, (1.0 - share) * amount))
    assert_near(in_parts, run((20.25, amount)))


@holds()
def test_a_saved_result_and_test_load_as_they_are(case):
    result = case.run()
    with tempfile.TemporaryDirectory() as folder:
        again = bt.Result.load(result.save(folder))
        test = bt.Backtest.load(bt.Backtest.of(result).save(Path(folder, "test")))

    assert equity_of(again).tolist() == equity_of(result).tolist()
    assert dict(again.metrics) == pytest.approx(dict(result.metrics), rel=0, nan_ok=True)
    assert equity_of(test.run(case.policy, compile=False)).tolist() == equity_of(result).tolist()


@holds()
def test_a_limit_of_loss_that_cannot_be_reached_is_none(case):
    limited = case.account(daily_loss=0.999999, weekly_loss=0.999999)
    plain = case.run()
    other = case.run(account=limited)

    if plain.bars["equity"].min() > 1.0:
        assert equity_of(other).tolist() == equity_of(plain).tolist()


@holds(quantile=st.floats(0.9, 0.999), lambda_=st.floats(0.5, 0.99))
def test_a_margin_rule_is_its_recorded_series(case, quantile, lambda_):
    rule = bt.margin_rules.Volatility(quantile=quantile, lambda_=lambda_, cap=12.0)
    venue = venue_of(**COSTS)
    by_rule = case.run(venue=venue.override(margin=rule))

    series = by_rule.margin_multipliers.iloc[:, 0]
    by_series = case.run(venue=venue.override(margin_multiplier=series))
    assert equity_of(by_series).tolist() == equity_of(by_rule).tolist()


@holds(
    shock=st.floats(-0.2, -0.005), coefficient=st.floats(0.001, 0.05),
    kind=st.sampled_from([bt.Linear, bt.SquareRoot]), insurance=st.sampled_from([0.0, 50.0]),
)  # fmt: skip
def test_a_cascade_of_one_market_is_the_cascade(case, shock, coefficient, kind, insurance):
    rng = np.random.default_rng(case.seed)
    n = 40
    price = 100.0
    rows = pd.DataFrame({
        "side": np.where(rng.random(n) < 0.7, "long", "short"),
        "quantity": rng.uniform(0.5, 3.0, n),
        "entry": rng.uniform(96.0, 106.0, n),
    })  # fmt: skip
    rows["collateral"] = rows["quantity"] * rows["entry"] / rng.uniform(1.0, 12.0, n)
    venue = venue_of(liquidation={"fee": 0.004, "slippage": 0.002, "mode": "close"})
    terms = {"impact": kind(coefficient), "volume": 1_000.0, "insurance": insurance}

    crowd = bt.Crowd.from_positions(rows, price=price)
    one = bt.cascade(crowd, venue, shock=shock, adl=None, **terms)

    cash = dict(enumerate(rows["collateral"]))
    of_accounts = rows.assign(account=range(n), market="A")
    books = bt.BookCrowd.from_positions(of_accounts, cash, {"A": price})
    several = bt.cascade(books, venue, shock={"A": shock}, **terms)

    assert several.liquidated == one.liquidated
    assert_near(several.rounds["price A"], one.rounds["price"], 1e-12)
    assert_near(several.deficit, one.deficit)
    assert several.accounts["round"].tolist() == one.accounts["round"].tolist()
    assert_near(several.accounts["haircut"], one.haircuts)


@holds(order=st.permutations("ABC"))
def test_budgets_follow_their_instruments(case, order):
    budgets = {"A": 0.5, "B": 0.3, "C": 0.2}

    def allocate(names: Any) -> pd.DataFrame:
        markets = bt.Markets({name: draw_market(case, name, n=4 * 24) for name in names})
        in_order = {name: budgets[name] for name in names}
        # Three returns of three instruments may have a long combination without risk, twelve not.
        weights = bt.allocate.risk_budget(markets, in_order, half_life=12, every=24)
        return weights[[*"ABC"]]

    assert_near(allocate(order), allocate("ABC"))
