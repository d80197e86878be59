"""Sets side by side: their rows are those of sets taken one by one."""

import warnings
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.strategies import Capped, Constant, VolTarget
from backtest.sweep.lanes import runner
from backtest.sweep.lanes.formulas import find_observed_texts
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets import VariedTest
from tests.agreement import trust_data
from tests.kit import bars_market, flat, make_market, make_venue
from tests.sweep.sweeps import MONEY

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
HOURS = pd.date_range("2024-01-01", periods=999, freq="1h", tz="UTC")
SHAPES: list[tuple[int, ...]] = []


class Count(NamedTuple):
    """What :class:`Jumpy` remembers."""

    bars: float


class Jumpy(bt.Policy):
    """Ask for noise times a scale; now and then for nothing, for everything, or for no change."""

    scale: Annotated[float, bt.Range(0.0, 1e3)] = 1.0
    seed: Annotated[int, bt.Range(0, 1000)] = 0
    wild: Annotated[float, bt.Range(0.0, 1.0)] = 0.1
    mode: Annotated[str, bt.Choice("noise", "twice")] = "noise"

    def start(self):
        return Count(0.0)

    def observe(self, market):
        rng = np.random.default_rng([self.seed, len(market.instrument)])
        noise = rng.uniform(0.5, 1.5, 999)
        draw = rng.random(999)

        noise[draw < self.wild] = np.nan
        noise[draw < 0.5 * self.wild] = 0.0
        noise[draw < 0.05 * self.wild] = np.inf

        noise = noise[: market.n_bars]
        return {"noise": noise, "spare": noise * 2.0}

    def leverage(self, bar, account, memory):
        size = self.scale * (bar.spare - bar.noise) if bar.close > 0.0 else 0.0
        size = 2.0 * size if self.mode == "twice" else size
        size *= 1.0 - 0.5 * account.drawdown + 0.01 * account.leverage
        size *= account.peak_equity / (2.0 * account.equity + 1e-3 * abs(account.position))
        size *= 0.3 if account.bars_since_liquidation < 9.0 else account.days / (1.0 + account.days)
        size = abs(size)
        return (0.5 * size if memory.bars % 3.0 == 2.0 else size), Count(memory.bars + 1.0)


def make_markets(rng: np.random.Generator, n_bars: int) -> bt.Markets:
    """Return one to four wild markets with funding; some are listed late, or delisted early."""
    found = {}
    for k in range(int(rng.integers(1, 5))):
        first = 0
        if k and rng.random() < 0.4:
            first = int(rng.integers(0, n_bars // 3))
        stop = n_bars
        if k and rng.random() < 0.4:
            stop = n_bars - int(rng.integers(0, n_bars // 3))

        steps = rng.normal(0.0, rng.uniform(0.005, 0.03), n_bars)
        steps[rng.random(n_bars) < 0.01] *= 8.0
        close = 100.0 * np.exp(np.cumsum(steps))
        start = np.concatenate(([100.0], close[:-1])) * np.exp(rng.normal(0.0, 1e-3, n_bars))
        wick = 1.0 + np.abs(rng.normal(0.0, 0.005, (2, n_bars)))
        high = np.maximum(start, close) * wick[0]
        low = np.minimum(start, close) / wick[1]
        volume = rng.uniform(10.0, 1e4, n_bars)

        rows = slice(first, stop)
        stamps = HOURS[rows][:: int(rng.integers(3, 9))]
        stamps = stamps + pd.Timedelta(minutes=20 * int(rng.integers(0, 2)))
        rates = pd.Series(rng.normal(0.0, 1e-3, len(stamps)), index=stamps)

        terms = {"funding": rates, "instrument": "ABCD"[: k + 1], "funding_gaps": "zero"}
        own = {"high": high[rows], "low": low[rows], "volume": volume[rows], "terms": terms}
        market = bars_market(start[rows], close[rows], start=HOURS[first], **own)
        found["ABCD"[: k + 1]] = market
    return bt.Markets(found, currency="USDT")


def make_collateral(markets: bt.Markets, draws: np.ndarray) -> list[bt.Collateral]:
    rates: dict[str, Any] = {"rate": 0.9}
    if draws[2] < 0.5:
        rates = {"tiers": [(0.0, 4e3, 0.95), (4e3, 1e5, 0.6)]}
    own = bt.Collateral("OWN", amount=40.0, prices=markets["A"], slippage=1e-3, **rates)
    return [own, bt.Collateral("LOAN", amount=-500.0 * draws[3], prices=1.0, rate=1.0)]


def make_case(seed: int, n_bars: int, n_sets: int) -> tuple[Evaluator, dict[str, np.ndarray]]:
    """Return random markets, an account and sets; the largest leverages are liquidated."""
    rng = np.random.default_rng([seed, 17])
    markets = make_markets(rng, n_bars)
    pick = rng.random(12)
    more = rng.random(12)
    third = rng.random(4)

    caps = np.array([2e4, 1e5, np.inf]) * rng.uniform(0.2, 5.0)
    lots = {"lot": 0.01, "min_notional": 5.0} if pick[0] < 0.5 else {"lot": 0.0}
    venue = bt.Venue(
        contract=bt.Contract(kind="inverse" if more[0] < 0.2 else "linear", **lots),
        brackets=[
            bt.Bracket(0.0, caps[0], 50.0, 0.005),
            bt.Bracket(caps[0], caps[1], 25.0, 0.01),
            bt.Bracket(caps[1], caps[2], 10.0, 0.03),
        ],
        fees=bt.Fees(taker=5e-4 * (pick[1] < 0.7), maker=1e-4),
        slippage=bt.Slippage(
            rate=2e-4 * (pick[2] < 0.7),
            max_participation=0.05 if pick[3] < 0.2 else None,
            impact=0.5 if more[1] < 0.3 else 0.0,
            impact_window="6h",
        ),
        borrow_rate=0.3 if more[2] < 0.3 else 0.0,
        cash_rate=0.1 if more[2] < 0.2 else 0.0,
        interest_on=["balance", "loan"][seed % 2],
        liquidation=bt.Liquidation(
            mode=["close", "takeover", "partial"][int(3 * pick[4])], fee=0.01, slippage=1e-3
        ),
    )

    flows = pd.Series([500.0, -300.0], index=markets.times[[5, n_bars // 2]])
    margin: Any = "cross"
    if more[3] < 0.25:
        margin = "isolated"
    elif more[3] < 0.5:
        margin = dict.fromkeys(markets.names, "cross") | {"A": "isolated"}
    account = bt.Account(
        capital=10_000.0, band=0.1 * (pick[5] < 0.5), max_leverage=20.0,
        min_leverage=0.05 if pick[6] < 0.2 else 0.0,
        after_liquidation="halt" if pick[7] < 0.3 else "continue",
        flows=flows if pick[8] < 0.3 else None, ruin_at=0.3 if pick[9] < 0.4 else None,
        requirement=bt.Brackets(level=1.05 if pick[10] < 0.1 else 1.0),
        intrabar="worst" if pick[11] < 0.3 else "path",
        max_gross_leverage=(4.0, 15.0, np.inf)[seed % 3],
        margin=margin,
        venue_leverage=15.0, stop_loss=0.03 if more[4] < 0.4 else None,
        trailing_stop=0.05 if more[5] < 0.2 else None, take_profit=0.08 if more[6] < 0.2 else None,
        collateral=make_collateral(markets, third) if third[0] < 0.1 else (),
        negative_limit=[0.0, 3e3][int(third[1] < 0.5)] if third[0] < 0.1 else None,
    )  # fmt: skip

    weights = rng.choice([-0.5, 0.0, 0.3, 1.0], (n_bars // 20 + 1, len(markets)))
    table = weights.repeat(20, axis=0)[:n_bars]
    signal: pd.DataFrame | None = None
    if rng.random() < 0.6:
        signal = pd.DataFrame(table, index=markets.times, columns=list(markets.names))

    policy = Capped.over(Jumpy) if more[8] < 0.2 else Jumpy
    test = bt.Backtest(markets, venue=venue, account=account, sampling="4h", signal=signal)

    sets = {
        "scale": np.geomspace(0.2, 60.0, n_sets),
        "seed": rng.integers(0, 3, n_sets),
        "wild": np.full(n_sets, 0.1 * rng.random()),
        "mode": np.array([*rng.choice(["noise", "twice"], n_sets)], object),
        "account.band": rng.choice([0.0, 0.02, 0.2], n_sets),
        "account.capital": rng.choice([1e3, 1e4, 2e5], n_sets),
    }
    if more[8] < 0.2:
        own = {"scale", "seed", "wild", "mode"}
        sets = {f"{Jumpy.title()}_{k}" if k in own else k: each for k, each in sets.items()}
    return Evaluator(VariedTest(test, policy)), sets


def require_equal(rows: Any, others: Any) -> None:
    """Compare all measures of two sweeps, and their returns."""
    assert rows.errors == others.errors
    scale = 1e5 + np.nan_to_num(others.metrics["turnover"])
    left = np.clip(np.nan_to_num(1.0 + others.metrics["total_return"], nan=1.0), 1e-4, 1.0)

    for name, column in rows.metrics.items():
        other = others.metrics[name]
        # who lost nearly all has as many digits less of what is left
        away = np.abs(column - other) <= 1e-9 / left * np.maximum(np.abs(other), 1e-3)
        money = np.abs(column - other) <= 1e-9 * scale if name in MONEY else False

        same = away | money | (np.isnan(column) & np.isnan(other)) | (column == other)
        assert same.all(), (name, column[~same], other[~same])

    apart = np.abs(np.nan_to_num(rows.returns) - np.nan_to_num(others.returns))
    assert (apart <= 1e-9 / left).all()
    np.testing.assert_array_equal(np.isnan(rows.returns), np.isnan(others.returns))


@pytest.mark.parametrize(("seeds", "least"), [
    pytest.param((2, 53), (0, 0), marks=pytest.mark.compiled),
    pytest.param(range(40), (40, 400), marks=pytest.mark.slow),
])  # fmt: skip
def test_blocks_of_random_accounts_have_the_rows_of_their_sets(seeds, least, monkeypatch):
    """One isolated position and three, or many accounts; some are liquidated, and some ruined. Of
    seed 53, what a ruined account has left is withdrawn."""
    trust_data(monkeypatch)
    found = np.zeros(2)
    for seed in seeds:
        evaluator, sets = make_case(seed, 600, 24)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            monkeypatch.setattr(runner, "LEAST_LANES", 2)
            rows = evaluator.evaluate(sets, returns=True)
            monkeypatch.setattr(runner, "LEAST_LANES", 1_000)
            require_equal(rows, evaluator.evaluate(sets, returns=True))

        found += [rows.metrics[name].sum() for name in ("ruined", "liquidations")]
    assert (found > least).all()


TIERS = [bt.FeeTier(1e4, 3e-4, 1e-4), bt.FeeTier(4e4, 1e-4, 0.0)]
TAKEN: dict[str, tuple[Any, Any, Any]] = {
    "several isolated positions": (
        {}, {"margin": "isolated", "venue_leverage": 15.0, "stop_loss": 0.2}, {}
    ),
    "a taker fee in the margin": (
        {"includes_close_fee": True}, {}, {"venue.fees.taker": np.repeat([4e-4, 8e-4], 35)}
    ),
    "fees by what was traded": (
        {"fees.tiers": TIERS}, {}, {"venue.fees.taker": np.linspace(4e-4, 8e-4, 70)}
    ),
}  # fmt: skip


@pytest.mark.compiled
@pytest.mark.parametrize("kind", TAKEN)
def test_accounts_are_taken_in_lanes(kind, monkeypatch):
    """Two blocks, whose prices are written once; none of their sets is taken alone."""
    trust_data(monkeypatch)
    changed, terms, more = TAKEN[kind]
    markets = make_markets(np.random.default_rng(5), 600)
    assert len(markets) == 3

    venue = make_venue(taker=5e-4, slippage=1e-4, maintenance_rate=0.01, max_leverage=50)
    account = bt.Account(band=0.02, max_leverage=20.0, **terms)
    test = bt.Backtest(markets, venue=venue.override(changed), account=account, sampling="4h")
    evaluator = Evaluator(VariedTest(test, Jumpy))
    sets = {"scale": np.geomspace(0.2, 60.0, 70), "seed": np.arange(70) % 3, **more}

    with monkeypatch.context() as patch:
        patch.setattr(runner, "score_set", None)
        rows = evaluator.evaluate(sets, returns=True)

    monkeypatch.setattr(runner, "LEAST_LANES", 1_000)
    require_equal(rows, evaluator.evaluate(sets, returns=True))
    assert rows.metrics["liquidations"].sum() > (10 if more else 100)
    assert evaluator.simulated[:2] == (70, 70)

    untiered = Evaluator(VariedTest(test.replace(venue=venue), Jumpy)).evaluate(sets)
    assert (untiered.metrics["fees"] > 1.01 * rows.metrics["fees"]).any() == bool(more)


@pytest.mark.compiled
def test_bars_that_sets_take_alone_are_counted_by_reason():
    """Two flows of eight sets: 16 of 2,400 bars."""
    market = bt.Market.sample(bars=300)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    flows = pd.Series([500.0, -300.0], index=market.times[[50, 90]])
    test = bt.Backtest(market, venue=venue, account=bt.Account(flows=flows))
    sweep = test.sweep(Constant, {"leverage": np.linspace(0.1, 0.8, 8)})

    assert sweep.evaluator.simulated.alone.tolist() == [16, 0, 0, 0, 0, 0]
    assert sweep.manifest["simulated"] == (
        "8 sets were simulated in blocks, 0 one by one; bars of a block simulated by themselves: "
        "0.67 % for a flow, or the end of an instrument."
    )


@pytest.mark.compiled
@pytest.mark.parametrize(("n_sets", "in_blocks"), [(90, 0), (110, 110)])
def test_many_sets_of_few_bars_wait_for_the_compiler(n_sets, in_blocks, monkeypatch):
    """To set up a run costs as much as 10,000 bars: 110 x 10,048 are over a million, 90 are not."""
    monkeypatch.setattr(runner, "LEAST_BAR_SETS", 1_000_000)
    monkeypatch.setattr(runner, "is_formula_compiled", lambda _: False)
    assert count_taken(n_sets) == (in_blocks, n_sets - in_blocks)


@pytest.mark.compiled
def test_few_sets_take_lanes_whose_formula_is_compiled(monkeypatch):
    monkeypatch.setattr(runner, "LEAST_BAR_SETS", 1_000_000)
    assert count_taken(8) == (8, 0)


class Named(bt.Policy):
    """Hold what a column says; its name is another by the text."""

    size: Annotated[float, bt.Range(0.0, 10.0)] = 1.0
    name: Annotated[str, bt.Choice("one", "other")] = "one"

    def observe(self, market):
        return {self.name: market.close * self.size}

    def leverage(self, bar, account):
        return self.size


class Called(bt.Policy):
    """Read a text by a property of the policy."""

    size: Annotated[float, bt.Range(0.0, 10.0)] = 1.0
    side: Annotated[str, bt.Choice("all", "half")] = "all"

    @property
    def share(self):
        return 0.5 if self.side == "half" else 1.0

    def leverage(self, bar, account):
        return self.size * self.share


@pytest.mark.parametrize(
    ("kind", "texts"),
    [(VolTarget, {"estimator"}), (Named, {"name"}), (Called, set()), (Jumpy, set()),
     (Capped, set())],
)  # fmt: skip
def test_a_text_that_no_decision_reads_is_found(kind, texts):
    assert find_observed_texts(kind) == texts


@pytest.mark.compiled
def test_sets_that_observe_by_different_texts_share_a_block(monkeypatch):
    """12 sets of three estimators are one block, of which each row is that of its own run."""
    sets = {
        "target": np.linspace(0.2, 0.9, 12),
        "estimator": np.array(["ewma", "parkinson", "yang-zhang"] * 4, dtype=object),
    }
    test = bt.Backtest(
        bt.Market.sample(bars=2_000), venue="binance-usdm:BTCUSDT", account=bt.Account()
    )
    evaluator = Evaluator(VariedTest(test, VolTarget), threads=2)
    rows = evaluator.evaluate(sets, returns=True)
    assert evaluator.simulated[:2] == (12, 0)

    monkeypatch.setattr(runner, "LEAST_LANES", 1_000)
    require_equal(rows, evaluator.evaluate(sets, returns=True))
    assert len(set(rows.metrics["total_return"])) == 12


@pytest.mark.compiled
def test_sets_whose_texts_choose_the_columns_are_run_one_by_one(monkeypatch):
    monkeypatch.setattr(runner, "LEAST_BAR_SETS", 0)
    sets = {
        "size": np.linspace(0.2, 0.9, 8),
        "name": np.array(["one", "other"] * 4, dtype=object),
    }
    test = bt.Backtest(
        bt.Market.sample(bars=400), venue="binance-usdm:BTCUSDT", account=bt.Account()
    )
    evaluator = Evaluator(VariedTest(test, Named))
    rows = evaluator.evaluate(sets)
    assert evaluator.simulated[:2] == (0, 8)
    assert np.isfinite(rows.metrics["total_return"]).all()


@pytest.mark.compiled
def test_few_sets_take_the_formula_of_all_numbers_if_theirs_is_not_compiled(monkeypatch):
    """The formula in which the target alone varies is missing, that of all numbers is there."""
    monkeypatch.setattr(runner, "LEAST_BAR_SETS", 1_000_000)
    asked = []

    def is_compiled(recipe):
        asked.append(recipe)
        return len(asked) > 1

    sets = {"target": np.linspace(0.2, 0.9, 8)}
    test = bt.Backtest(
        bt.Market.sample(bars=480), venue="binance-usdm:BTCUSDT", account=bt.Account()
    )
    evaluator = Evaluator(VariedTest(test, VolTarget), threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "is_formula_compiled", is_compiled)
        rows = evaluator.evaluate(sets, returns=True)
    assert evaluator.simulated[:2] == (8, 0)
    assert len({recipe.name for recipe in asked}) == 2

    monkeypatch.setattr(runner, "LEAST_LANES", 1_000)
    require_equal(rows, evaluator.evaluate(sets, returns=True))


def count_taken(n_sets):
    """Return how many sets of 48 bars were simulated in blocks, and how many one by one."""
    test = bt.Backtest(
        bt.Market.sample(bars=48), venue="binance-usdm:BTCUSDT", account=bt.Account()
    )
    sweep = test.sweep(Constant, {"leverage": np.linspace(0.1, 0.8, n_sets)})
    return sweep.evaluator.simulated[:2]


@pytest.mark.compiled
@pytest.mark.parametrize("n", [1, 2])
def test_the_cap_of_gross_leverage_overrules_bands_in_lanes(n):
    """A short of 1x at 100 is 1.5x of what is left at 120. The band of 0.9, of both together, keeps
    it, the cap of 1.2 does not, which it passes by over a tenth."""
    bars = [flat(close) for close in (100, 100, 100, 120, 120, 120)]
    names = ["A", "B"][:n]
    markets = bt.Markets(dict.fromkeys(names, make_market(bars)), currency="USDT")
    account = bt.Account(capital=1_000.0, band=0.9 / n, max_gross_leverage=1.2)
    test = bt.Backtest(
        markets,
        venue=make_venue(taker=0.001),
        account=account,
        signal=dict.fromkeys(names, -1.0 / n),
    )
    sizes = np.array([1.0, 2.0, 3.0, 4.0])

    sweep = test.sweep(Constant, {"account.capital": 1_000.0 * sizes})
    run = test.run(Constant(), compile=False)

    assert sweep.evaluator.simulated.in_blocks == 4
    assert run.metrics["fills"] == 2.0 * n
    assert sweep.table["fills"].tolist() == [2.0 * n] * 4
    final = pytest.approx(run.metrics["final_equity"] * sizes, rel=1e-12)
    assert sweep.table["final_equity"].to_numpy() == final


class Together(bt.Policy):
    """Say that columns may be observed together, and mix them if ``is_mixed``."""

    takes_arrays = True
    length: Annotated[float, bt.Range(1.0, 1e3)] = 5.0
    is_mixed: bool = False

    def observe(self, market):
        """Return a column for each length."""
        whole = np.outer(market.close / market.close[0], np.atleast_1d(self.length)) / 100.0
        whole = whole.mean(axis=1, keepdims=True) + 0.0 * whole if self.is_mixed else whole
        SHAPES.append(np.shape(self.length))
        return {"size": whole if np.ndim(self.length) else whole[:, 0]}

    def leverage(self, bar, account):
        """Return the column."""
        return bar.size


@pytest.mark.compiled
@pytest.mark.parametrize("is_mixed", [False, True])
def test_sets_of_a_block_are_observed_together_where_their_columns_are_their_own(
    is_mixed, monkeypatch
):
    market = bt.Market.sample(bars=300)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    test = bt.Backtest(market, venue=venue, account=bt.Account())
    evaluator = Evaluator(VariedTest(test, Together), threads=1)
    sets = {"length": np.geomspace(1.0, 400.0, 40).repeat(2), "is_mixed": np.full(80, is_mixed)}

    SHAPES.clear()
    rows = evaluator.evaluate(sets, returns=True)
    assert SHAPES.count((32,)) == 1
    assert SHAPES.count((8,)) == (0 if is_mixed else 1)

    monkeypatch.setattr(runner, "LEAST_LANES", 1_000)
    evaluator = Evaluator(VariedTest(test, Together), threads=1)
    require_equal(rows, evaluator.evaluate(sets, returns=True))
