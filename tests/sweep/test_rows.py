"""A row of a sweep is its run, in lanes and set by set, whatever varies and whatever else runs."""

import math
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.signals.rules import read_named
from backtest.strategies import Constant, Ladder, LiquidationDistance, VolTarget
from backtest.sweep.lanes import runner
from backtest.sweep.set_evaluator import Evaluator, Rows
from backtest.sweep.sets import VariedTest, grid
from tests.agreement import Scripted, Swinging, trust_data
from tests.cases import make_full_case, make_portfolio_case
from tests.kit import Loud
from tests.sweep.sweeps import LEAN, Modes, are_equal

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
BINANCE = bt.Venue.preset("binance-usdm", "BTCUSDT")
BARS = 1_000
SAMPLE = bt.Market.sample(bars=BARS)


class Scaled(bt.Policy):
    """Ask for a multiple of the leverage in the market's column ``target``."""

    scale: Annotated[float, bt.Range(0.0, 50.0)] = 1.0

    def observe(self, market):
        return {"target": market.columns["target"]}

    def leverage(self, bar, account):
        return bar.target * self.scale


class Past(NamedTuple):
    """What :class:`Remembers` remembers."""

    n: float
    peak: float


class Remembers(bt.Policy):
    scale: Annotated[float, bt.Range(0.0, 50.0)] = 1.0

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


class Branching(bt.Policy):
    """Every branch of ``observe`` is watched: what one set reads another may not."""

    fast: bool = True
    a: Annotated[float, bt.Range(1.0, 500.0)] = 10.0
    b: Annotated[float, bt.Range(1.0, 500.0)] = 20.0

    @property
    def is_slow(self):
        return not self.fast

    def choose(self):
        return (self.b if self.is_slow else self.a) ** 0.9

    def observe(self, market):
        return {"sigma": bt.indicators.ewma_volatility(market, self.choose())}

    def leverage(self, bar, account):
        return 0.3 / bar.sigma


def assert_rows_are_runs(evaluator: Evaluator, sets, rows: Rows, every: int = 1, **span) -> None:
    """Compare every set with its single run; a set that fails must fail alone too. A run takes
    longer than a row: of many sets every so many are compared."""
    for k in range(0, len(rows.done), every):
        values = {name: column[k] for name, column in sets.items()}
        if rows.errors[k]:
            with pytest.raises(bt.BacktestError):
                evaluator.replay(values, **span)
            continue

        result = evaluator.replay(values, **span)
        for name, column in rows.metrics.items():
            alone = result.metrics[name]
            is_same = are_equal(name, column[k], alone, evaluator.varied.test.account.capital)
            assert is_same, (k, name, column[k], alone)

        if rows.sampled:
            given = (rows.returns[:, k], result.returns.to_numpy())
            np.testing.assert_allclose(*given, rtol=1e-9, atol=1e-12)


def by_bar(*values: float) -> pd.Series:
    bars = np.linspace(0, BARS, len(values), endpoint=False).astype(int)
    return pd.Series(list(values), index=SAMPLE.times[bars])


RNG = np.random.default_rng(0)
MARKET = SAMPLE.with_columns(
    width=pd.Series(np.abs(SAMPLE.close - SAMPLE.open)).rolling(14).mean().to_numpy(),
    dear=1e-4 * (1.0 + np.arange(BARS) % 7),
    target=np.where(np.arange(BARS) % 7 == 0, 2.0 + np.sin(np.arange(BARS) / 11.0), np.nan),
)  # fmt: skip
COSTLY = bt.Venue(
    contract=bt.Contract(lot=0.001, min_notional=5.0),
    brackets=[bt.Bracket(0.0, 2e4, 100.0, 0.005), bt.Bracket(2e4, 1e9, 40.0, 0.012)],
    fees=bt.Fees(taker=5e-4, maker=2e-4, per_order=0.7),
    slippage=bt.Slippage(rate=1e-4),
    liquidation=bt.Liquidation(fee=0.004, slippage=0.001, impact=0.3, mode="partial", step=0.4),
)
TIERS = [bt.FeeTier(3e4, 3e-4, 1e-4), bt.FeeTier(1e5, 1e-4, -1e-4)]
ISOLATED = {"margin": "isolated", "venue_leverage": 40.0}
STOPS = {
    "stop_loss": bt.Multiple(4.0, "width"), "take_profit": 0.05, "trailing_stop": 0.05,
    "equity_stop": 0.2,
}  # fmt: skip


def draw(n: int, **ranges: tuple[float, float]) -> dict[str, np.ndarray]:
    """Draw values of each name evenly; two underscores stand for a dot."""
    return {name.replace("__", "."): RNG.uniform(*each, n) for name, each in ranges.items()}


SIZES = draw(12, target=(0.5, 2.0), account__band=(0.0, 0.2))
WIDE = draw(12, scale=(2.0, 14.0), venue__fees__per_order=(0.0, 3.0), account__band=(0.0, 0.5),
            venue__liquidation__impact=(0.1, 1.0))  # fmt: skip
EXITS = draw(
    128, scale=(0.2, 3.0), account__stop_loss__multiple=(2.0, 30.0),
    account__take_profit=(0.01, 0.2), account__trailing_stop=(0.01, 0.2),
    account__equity_stop=(0.05, 0.6),
)  # fmt: skip
ROWS: dict[str, tuple[Any, bt.Venue, dict[str, Any], dict[str, Any]]] = {
    "stops of all kinds": (Remembers, BINANCE, STOPS, EXITS),
    "stops, filled at the next close": (Remembers, BINANCE, STOPS | {"fill": "next_close"}, EXITS),
    "pauses after equity stops": (
        Scaled, BINANCE, {"equity_stop": 0.1, "after_stop": "2d"},
        draw(6, scale=(2.0, 6.0), account__equity_stop=(0.02, 0.1))
        | {"account.after_stop": np.array(["continue", "halt", "12h", "next month", "2d", "halt"],
                                          dtype=object)},
    ),
    "loans, filled at the same close": (
        Remembers, BINANCE.override(interest_on="loan", borrow_rate=0.08, cash_rate=0.02),
        {"fill": "same_close", "stop_loss": 0.1},
        draw(128, scale=(0.2, 4.0), account__band=(0.0, 0.5), account__stop_loss=(0.02, 0.5)),
    ),
    "wallets that add margin, and calls": (
        Scaled, COSTLY.override(profit_counts=0.3, call_grace=3),
        {"auto_margin": True, "margin_call": 0.6} | ISOLATED, WIDE,
    ),
    "profits that do not count": (
        Scaled, COSTLY.override(profit_counts="losses", call_grace=2), {"margin_call": 0.3}, WIDE,
    ),
    "words and switches": (
        Scaled, COSTLY, {"auto_margin": True} | ISOLATED,
        {
            "account.auto_margin": np.array([True, False, True, False]),
            "venue.profit_counts": np.array(["losses", "losses", 0.25, 0.25], dtype=object),
            "venue.fees.per_order": np.array([0.5, 0.5, 1.0, 2.0]),
            "scale": np.full(4, 12.0),
        },
    ),
    "two multipliers": (
        VolTarget, LEAN.override(
            initial_multiplier=by_bar(1.0, 60.0, 1.0, 25.0), maintenance_multiplier=3.0),
        {}, SIZES | {"venue.maintenance_multiplier": np.r_[3.0, 1.0, np.nan, [3.0] * 8, 90.0]},
    ),
    "a limit by date, whole ticks": (
        VolTarget, LEAN.override({"contract.round_to_tick": True, "contract.tick": 25.0}),
        {"max_leverage": by_bar(np.inf, 1.5, 0.0, 3.0, 0.7), "stop_loss": 0.1}, SIZES,
    ),
    "fee tiers": (
        VolTarget, LEAN.override({"fees.maker_share": 0.3, "fees.tiers": TIERS}), {},
        SIZES | draw(12, venue__fees__taker=(4e-4, 1e-3), account__capital=(1e3, 1e5)),
    ),
    "a dear closing fee": (
        Scaled, LEAN.override(includes_close_fee=True), {},
        draw(6, venue__fees__taker=(0.0, 0.003), scale=(1.0, 8.0)),
    ),
    "words, numbers and flags": (
        Modes, BINANCE, {},
        grid({"mode": ["plain", "both"], "kind": ["x", "y"], "scale": [0.5, 2.0],
              "count": [1, 3], "is_on": [True, False]}),
    ),
    "numbers of lists": (
        Ladder, LEAN, {},
        draw(96, levels__0=(0.5, 3.0), levels__2=(0.0, 1.0), volatilities__1=(0.3, 2.0)),
    ),
    "limit orders": (
        VolTarget, BINANCE, {"fill": "limit", "offset": 0.002, "max_holding": "2d"},
        draw(3, account__offset=(0.0, 0.004)),
    ),
    "costs over time": (
        VolTarget, BINANCE.override({"fees.taker": "dear", "slippage.spread": "dear"}), {}, SIZES,
    ),
    "decided settings": (
        LiquidationDistance, BINANCE, {"margin": "isolated", "venue_leverage": 10.0},
        draw(4, distance=(0.05, 0.3)),
    ),
    "a signal's rule": (
        VolTarget, BINANCE, {"signal": "rsi:14:30:60", "band": 0.02},
        grid({"target": [0.3, 0.9], "signal.window": [5, 14], "signal.low": [25.0, 40.0]}),
    ),
    "columns that other sets do not share": (
        Branching, LEAN, {},
        {"fast": np.array([True, False] * 6), "a": np.repeat([5.0, 50.0], 6),
         "b": np.tile([7.0, 70.0, 200.0], 4)},
    ),
}  # fmt: skip


def evaluate(market, policy, venue, account: Any = None, *, rule: Any = None, **fields: Any):
    test = bt.Backtest(market, venue=venue, account=account or bt.Account(), **fields)
    return Evaluator(VariedTest(test, policy, rule=rule))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ROWS)
def test_a_row_is_its_run(kind):
    policy, venue, terms, sets = ROWS[kind]
    given = {"signal": np.where(np.arange(BARS) // 170 % 2 == 0, 1.0, -0.7), **terms}
    signal = given.pop("signal")
    account = bt.Account(**given)
    rule = read_named(signal, MARKET) if isinstance(signal, str) else None
    evaluator = evaluate(MARKET, policy, venue, account, rule=rule, signal=signal)

    rows = evaluator.evaluate(sets, returns=True)
    assert rows.done.all()
    assert not any(rows.errors)
    assert_rows_are_runs(evaluator, sets, rows, every=max(1, len(rows.done) // 12))


@pytest.mark.slow
def test_a_row_that_decides_on_longer_bars_is_its_run():
    market = bt.decide_every(SAMPLE.slice(2, 999), "4h")
    evaluator = evaluate(market, VolTarget, BINANCE, bt.Account(stop_loss=0.03))
    sets = draw(6, target=(0.5, 3.0))
    assert_rows_are_runs(evaluator, sets, evaluator.evaluate(sets, returns=True))


@pytest.mark.parametrize(("seeds", "compiled"), [
    (range(12), False), pytest.param(range(60), True, marks=pytest.mark.slow)
])  # fmt: skip
def test_rows_of_random_accounts_are_runs(seeds, compiled, monkeypatch):
    """In plain Python no record is written."""
    trust_data(monkeypatch)
    for seed in seeds:
        make = make_full_case if seed % 2 else make_portfolio_case
        case = make(seed)
        overlay = None
        if case.overlay:
            hours = case.overlay.every / 3_600_000_000_000
            overlay = Swinging(level=case.overlay.level, hours=hours)

        sets = {"account.band": np.array([0.0, 0.3]), "account.capital": np.array([9e3, 4e4])}
        test = bt.Backtest(**case.for_engine(bt), overlay=overlay)
        evaluator = Evaluator(VariedTest(test, Scripted()), compile=compiled)

        rows = evaluator.evaluate(sets, returns=True)
        assert_rows_are_runs(evaluator, sets, rows)
        assert len(rows.done) == 2


@pytest.fixture(scope="module")
def lean() -> tuple[Evaluator, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    sets = {
        "target": rng.uniform(0.1, 2.0, 150),
        "half_life": rng.choice([24.0, 72.0, 168.0], 150),
        "account.band": rng.uniform(0.0, 0.3, 150),
        "account.max_leverage": rng.uniform(1.0, 60.0, 150),
    }

    evaluator = evaluate(SAMPLE, VolTarget, LEAN)
    evaluator.threads = 1
    return evaluator, sets


@pytest.mark.slow
def test_rows_do_not_depend_on_threads_order_or_neighbours(lean):
    evaluator, sets = lean
    rows = evaluator.evaluate(sets)

    evaluator.threads = 3
    order = np.random.default_rng(1).permutation(150)
    other = evaluator.evaluate({name: column[order] for name, column in sets.items()})
    evaluator.threads = 1

    for name, column in rows.metrics.items():
        np.testing.assert_array_equal(other.metrics[name], column[order])


@pytest.mark.slow
def test_an_account_may_begin_and_end_inside_the_market(lean):
    evaluator, sets = lean
    some = {name: column[:4] for name, column in sets.items()}
    rows = evaluator.evaluate(some, first=300, stop=800, returns=True)
    assert_rows_are_runs(evaluator, some, rows, first=300, stop=800)


@pytest.mark.slow
def test_ctrl_c_returns_what_is_done(lean, monkeypatch):
    evaluator, sets = lean
    score = runner.score_sets

    def interrupted(*args, **kwargs):
        blocks = score(*args, **kwargs)
        yield next(blocks)
        blocks.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "score_sets", interrupted)
    rows = evaluator.evaluate(sets)
    assert 0 < rows.done.sum() < 150
    assert np.isnan(rows.metrics["sharpe"][~rows.done]).all()


@pytest.mark.slow
def test_a_set_that_fails_is_a_row_with_its_cause_and_the_others_go_on(capfd):
    evaluator = evaluate(SAMPLE.prefix(300), Loud, BINANCE)
    rows = evaluator.evaluate({"least": np.array([1.0, -1.0, 2.0, 4.5])})

    assert [bool(error) for error in rows.errors] == [False, True, False, True]
    assert "at least 0" in rows.errors[1]
    assert "too loud" in rows.errors[3]

    assert rows.done.all()
    assert np.isfinite(rows.metrics["sharpe"][[0, 2]]).all()
    assert "too loud" not in capfd.readouterr().err


def test_a_number_out_of_its_range_fails_its_set_alone_in_a_block():
    """Sets of a block share a policy; the check of their numbers is one of the whole column."""
    evaluator = evaluate(SAMPLE.prefix(200), VolTarget, BINANCE)
    targets = np.array([0.2, 0.3, 99.0, 0.4, 0.5, math.nan, 0.6, 0.7])
    rows = evaluator.evaluate({"target": targets})

    assert [bool(error) for error in rows.errors] == [k in (2, 5) for k in range(8)]
    assert "target must be 0.05 to 2" in rows.errors[2]

    kept = [0, 1, 3, 4, 6, 7]
    again = evaluator.evaluate({"target": targets[kept]})
    for name, column in again.metrics.items():
        assert column.tobytes() == rows.metrics[name][kept].tobytes(), name


def test_sets_that_contradict_themselves_are_rows_with_their_cause():
    evaluator = evaluate(SAMPLE.prefix(100), Constant, BINANCE)
    sets = {"account.min_leverage": [2.0, 0.0, 1.0], "account.max_leverage": [1.0, 1.0, 0.5]}
    sets = {name: np.array(values) for name, values in sets.items()}
    rows = evaluator.evaluate(sets, returns=True)

    assert ["min_leverage" in error for error in rows.errors] == [True, False, True]
    assert rows.done.all()
    assert np.isnan(rows.returns[:, [0, 2]]).all()
    assert_rows_are_runs(evaluator, sets, rows._replace(sampled={}))


@pytest.mark.compiled
@pytest.mark.parametrize("terms", [{}, {"margin": "isolated", "venue_leverage": 20.0}])
def test_rows_of_accounts_whose_orders_take_a_share_as_margin_are_runs(terms):
    """Of 70 sets some are cut at all orders, which they pass alone, and some at none."""
    account = bt.Account(**terms)
    evaluator = evaluate(SAMPLE, Constant, BINANCE, account)
    sets = {
        "leverage": np.tile(np.linspace(0.5, 9.0, 7), 10),
        "account.margin_share": np.repeat([*np.geomspace(0.02, 0.9, 9), np.nan], 7),
    }

    rows = evaluator.evaluate(sets)
    assert evaluator.simulated[0] == 70
    assert_rows_are_runs(evaluator, sets, rows, 6)

    use = rows.metrics["mean_margin_use"]
    assert (use[:7] < 0.025).all()
    assert use[6] < 0.3 * use[-1]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_rows_of_isolated_accounts_that_impact_cuts_are_runs(sign):
    """The wallet cuts the largest; the profit of prices is the run's to 1e-9 of turnover."""
    venue = BINANCE.override({"slippage.impact": 3.0, "contract.lot": 0.0})
    account = bt.Account(capital=1e8, margin="isolated", venue_leverage=3.0)
    terms = {"venue": venue, "account": account, "signal": sign * np.ones(BARS)}

    test = bt.Backtest(SAMPLE, **terms)
    table = test.sweep(Constant, {"leverage": np.linspace(0.5, 6.0, 6)}).table

    for _, row in table.iterrows():
        run = bt.run(SAMPLE, Constant(row["leverage"]), **terms)
        for name in ("price_pnl", "fees", "impact", "final_equity"):
            most = 1e-9 * (float(run.tally.money.traded) + account.capital)
            assert row[name] == pytest.approx(run.metrics[name], abs=most)
