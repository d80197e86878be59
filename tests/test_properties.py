"""Properties that hold for every account: drawn markets, venues and settings.

``BACKTEST_CASES`` is the number of cases of each property, 12 if it is not given; a case that fails
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
    max_examples=int(os.environ.get("BACKTEST_CASES", "12")), deadline=None, phases=[Phase.generate]
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
        high, low = np.maximum(opens, close) * wick[0], np.minimum(opens, close) / wick[1]
        bars = {"open": opens, "high": high, "low": low, "close": close, "volume": 1e9}
        return pd.DataFrame(bars, index=pd.date_range(start, periods=n, freq="1h"))

    def market(self, **more: Any) -> bt.Market:
        bars = self.frame(**more)
        rng = np.random.default_rng(self.seed + 1)
        rates = {"rate": 0.0005 * rng.standard_normal(len(bars) // 8)}
        funding = pd.DataFrame(rates, index=bars.index[::8])
        return bt.Market.from_frames(bars, funding=funding)

    def account(self, capital: float = 1000.0, **more: Any) -> bt.Account:
        isolated = {"venue_leverage": 15.0} if self.margin == "isolated" else {}
        return bt.Account(capital=capital, margin=self.margin, band=self.band, **isolated, **more)

    def run(self, market: Any = None, **more: Any) -> bt.Result:
        terms = {"venue": venue_of(**COSTS), "account": self.account(), "signal": self.side}
        policy = more.pop("policy", self.policy)
        market = self.market() if market is None else market
        return bt.run(market, policy, **{**terms, **more})


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
    one, other = np.asarray(one), np.asarray(other)
    assert one.shape == other.shape
    np.testing.assert_allclose(one, other, rtol=rel, atol=rel * max(1.0, np.abs(other).max()))


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
    other = case.run(bt.Markets({"ONE": market}), signal={"ONE": case.side})
    assert equity_of(other).tolist() == equity_of(case.run(market)).tolist()
    assert other.manifest["id"] == case.run(market).manifest["id"]


@holds(levels=st.lists(st.floats(0.2, 9.0), min_size=1, max_size=4, unique=True))
def test_a_row_of_a_sweep_is_a_run(case, levels):
    market, terms = case.market(), {"venue": venue_of(**COSTS), "account": case.account()}
    table = bt.Backtest(market, signal=case.side, **terms).sweep(Lean, {"level": levels})
    for level in levels:
        alone = case.run(market, policy=Lean(level=level))
        row = table.table[table.table["level"] == level].iloc[0]
        assert row["final_equity"] == pytest.approx(alone.metrics["final_equity"], rel=1e-9)


@holds()
def test_a_replay_of_the_fills_is_the_run(case):
    result = case.run()
    again = bt.Backtest(
        bt.Backtest.of(result).market, venue=venue_of(**COSTS), account=case.account()
    ).replay(result.fills)
    assert_near(again.bars["equity"], equity_of(result))


@holds(bar=st.integers(2, 45))
def test_a_decision_is_that_of_the_next_bar(case, bar):
    market, terms = case.market(), {"venue": venue_of(**COSTS), "account": case.account()}
    known, until = market.slice(0, bar + 1), market.slice(0, bar + 2)
    before, after = case.run(known), case.run(until)
    told = bt.Backtest(known, signal=case.side, **terms).decide(
        case.policy, state=before, at=float(market.open[bar + 1])
    )
    time = after.bars.index[-1]
    filled = after.fills[(after.fills["time"] == time) & (after.fills["kind"] == "order")]
    assert sum(told.order.values()) == pytest.approx(filled["quantity"].sum(), rel=1e-9, abs=1e-9)


@holds()
def test_an_inverse_position_is_a_linear_one_of_the_other_coin(case):
    """In coins, a long of the price is a short of 1 / price, quoted in coins, of equal leverage."""
    bars = case.frame()
    dual = 1.0 / bars[["open", "low", "high", "close"]].set_axis(bars.columns[:4], axis=1)
    free = {"liquidation": {"fee": 0.0}}
    one, other = (
        bt.run(bt.Market.from_frames(frame), Constant(leverage=min(case.level, 3.0)), venue=venue,
               account=case.account(), signal=side, compile=False)
        for frame, venue, side in (
            (bars, coin_venue(**free), case.side),
            (dual.assign(volume=1e9), venue_of(**free), -case.side),
        )
    )  # fmt: skip
    assert_near(equity_of(one), equity_of(other))


@holds(name=st.sampled_from(["A", "Z"]))
def test_an_untouched_instrument_changes_nothing(case, name):
    beside = dataclasses.replace(case, seed=case.seed + 7).market()
    both = bt.Markets({"M": case.market(), name: beside})
    result = case.run(both, signal={"M": case.side, name: 0.0})
    assert_near(equity_of(result), equity_of(case.run()))


@holds(order=st.permutations("ABC"))
def test_the_order_of_instruments_changes_nothing(case, order):
    def run(names: Any) -> np.ndarray:
        own = {name: dataclasses.replace(case, seed=case.seed + ord(name)) for name in names}
        markets = bt.Markets({name: each.market() for name, each in own.items()})
        return equity_of(case.run(markets, signal={"A": 0.3, "B": -0.4, "C": case.side / 3}))

    assert_near(run(order), run("ABC"))


@holds(share=st.floats(0.0, 1.0), amount=st.floats(-300.0, 900.0))
def test_a_flow_in_two_parts_is_that_flow(case, share, amount):
    def run(*parts: tuple[float, float]) -> np.ndarray:
        flows = pd.Series({START + pd.Timedelta(hours=h): each for h, each in parts})
        return equity_of(case.run(account=case.account(flows=flows)))

    hours = 20.25, 20.5  # one bar: both are there at its next open
    parts = [*zip(hours, (share * amount, (1.0 - share) * amount), strict=True)]
    assert_near(run(*parts), run((20.25, amount)))


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
    plain, other = case.run(), case.run(account=limited)
    if plain.bars["equity"].min() > 1.0:
        assert equity_of(other).tolist() == equity_of(plain).tolist()


@holds(quantile=st.floats(0.9, 0.999), lambda_=st.floats(0.5, 0.99))
def test_a_margin_rule_is_its_recorded_series(case, quantile, lambda_):
    rule = bt.margin_rules.Volatility(quantile=quantile, lambda_=lambda_, cap=12.0)
    venue = venue_of(**COSTS)
    found = case.run(venue=venue.override(margin=rule))
    series = found.margin_multipliers.iloc[:, 0]
    same = case.run(venue=venue.override(margin_multiplier=series))
    assert equity_of(same).tolist() == equity_of(found).tolist()


@holds(
    shock=st.floats(-0.2, -0.005), coefficient=st.floats(0.001, 0.05),
    kind=st.sampled_from([bt.Linear, bt.SquareRoot]), insurance=st.sampled_from([0.0, 50.0]),
)  # fmt: skip
def test_a_cascade_of_one_market_is_the_cascade(case, shock, coefficient, kind, insurance):
    rng = np.random.default_rng(case.seed)
    n, price = 40, 100.0
    rows = pd.DataFrame({"side": np.where(rng.random(n) < 0.7, "long", "short"),
                         "quantity": rng.uniform(0.5, 3.0, n),
                         "entry": rng.uniform(96.0, 106.0, n)})  # fmt: skip
    rows["collateral"] = rows["quantity"] * rows["entry"] / rng.uniform(1.0, 12.0, n)
    venue = venue_of(liquidation={"fee": 0.004, "slippage": 0.002, "mode": "close"})
    terms = {"impact": kind(coefficient), "volume": 1_000.0, "insurance": insurance}
    crowd = bt.Crowd.from_positions(rows, price=price)
    one = bt.cascade(crowd, venue, shock=shock, adl=None, **terms)
    cash = dict(enumerate(rows["collateral"]))
    books = bt.BookCrowd.from_positions(
        rows.assign(account=range(n), market="A"), cash, {"A": price}
    )
    several = bt.cascade(books, venue, shock={"A": shock}, **terms)
    assert several.liquidated == one.liquidated
    assert_near(several.rounds["price A"], one.rounds["price"], 1e-12)
    assert_near(several.deficit, one.deficit)
    assert several.accounts["round"].tolist() == one.accounts["round"].tolist()
    assert_near(several.accounts["haircut"], one.haircuts)


@holds(order=st.permutations("ABC"))
def test_budgets_follow_their_instruments(case, order):
    own = {name: dataclasses.replace(case, seed=case.seed + ord(name)) for name in "ABC"}
    budgets = {"A": 0.5, "B": 0.3, "C": 0.2}

    def allocate(names: Any) -> pd.DataFrame:
        markets = bt.Markets({name: own[name].market(n=4 * 24) for name in names})
        wanted = {name: budgets[name] for name in names}
        return bt.allocate.risk_budget(markets, wanted, half_life=3, every=24)

    assert_near(allocate(order)[[*"ABC"]], allocate("ABC")[[*"ABC"]])
