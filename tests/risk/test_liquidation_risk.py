"""liquidation_risk() and max_leverage(): closed forms, single runs, several positions, refusals."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

import backtest as bt
from backtest import paths as models
from backtest.engine import BatchLoop, set_up_again
from backtest.indicators import touch_distance, touch_probability
from backtest.policies import observe, observe_together
from backtest.risk import growth_frontier
from backtest.risk.growth_frontier import REFINED, Outcomes, describe_best, refine_best
from backtest.risk.leverage_sizes import Scaled
from backtest.risk.leverage_trials import confirm, name_models, search_leverage
from backtest.risk.liquidations import PathEvents, describe_horizon
from backtest.risk.past_starts import PAST, bound_apart, describe_apart, measure_calm
from backtest.risk.path_drift import read_drift
from backtest.risk.path_runner import PathsRunner, observe_paths
from backtest.risk.scores import estimate
from backtest.strategies import Constant, Cppi, TailHedge, VolTarget
from tests import kit
from tests.kit import ask_test, check_refused, market_of, risk_of
from tests.options.listed_markets import make_markets, make_venue
from tests.risk.accounts import Hold, free_account, free_venue, liquidation_distance, still_market

SIGMA = 0.8
TERMS = {"venue": free_venue(), "account": free_account()}
WILD = models.GBM(volatility=1.2)
CALM = models.GBM(volatility=0.5)
GIVEN = {"probability": 0.5, "horizon": "3h", "models": [CALM], "paths": 40}
GBM = models.GBM(volatility=3.0)
SAME = {"rtol": 1e-12, "atol": 1e-9}
"""Of a capital of 1,000."""


def write_lead(row, horizon):
    """Return how a verdict begins: with what the median and the worst twentieth have left."""
    return (
        f"Half of the accounts have less than {row['equity_50']:,.2f} after {horizon}, one in "
        f"twenty less than {row['equity_05']:,.2f}. "
    )


@pytest.mark.parametrize("estimator", ["ewma", "parkinson", "garman-klass", "har"])
def test_paths_observed_together_have_their_own_columns(estimator):
    market = bt.Market.sample(bars=900)
    policy = VolTarget(half_life=40.0, estimator=estimator)
    drawn = bt.simulate_paths(market, paths=40, horizon="2d", seed=1)
    bars = drawn.draw(0, 40)
    first_path = drawn.leader.market_of(bars, 0, market, source="drawn")
    for some in drawn.leader.list_markets(bars, first_path, {}):
        k = len(some.rows["close"])
        alone = {i: observe(policy, some.pick(i)) for i in range(k)}
        together = observe_together(lambda some=some: policy.observe(some.join()), alone, k)
        assert list(together) == ([] if estimator == "har" else ["sigma"])
        found = observe_paths(policy, some, compared={0, k - 1})
        columns = [each["sigma"] for each in found]
        if together:
            columns = [*found[0]["sigma"].T]
        assert len(columns) == k
        assert all(np.array_equal(columns[i], alone[i]["sigma"], equal_nan=True) for i in alone)


def known(lever: float, days: float) -> float:
    distance = liquidation_distance(lever)
    drift = -0.5 * SIGMA**2
    return touch_probability(distance, SIGMA, days / 365, drift=drift)


def gbm_paths(**settings) -> bt.Paths:
    model = models.GBM(volatility=SIGMA)
    return bt.simulate_paths(still_market(), model, **{"horizon": "7d", "seed": 2, **settings})


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, 7, 30])
def test_paths_find_the_closed_form_from_2x_to_100x(days):
    # 7 leverages x 3 horizons at 99.99 % bounds, shared by 21 (Bonferroni)
    how = {"horizons": (f"{days}d",), "confidence": 1 - 1e-4 / 21}

    for lever in (2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0):
        wanted = known(lever, days)
        paths = gbm_paths(paths=10_000, horizon=f"{days}d")
        row = risk_of(paths, Hold(lever), **TERMS, **how).table.iloc[0]

        low = row.p_liquidation_simulation_low
        high = row.p_liquidation_simulation_high
        assert low <= wanted <= high, lever


@pytest.mark.slow
def test_compiled_and_plain_are_the_same_bits_in_any_number_of_threads():
    paths = gbm_paths(paths=300, horizon="2d")
    ways = ((True, 1), (True, 3), (False, 1))
    terms = [{**TERMS, "compile": flag, "threads": threads} for flag, threads in ways]

    first, *rest = (risk_of(paths, Hold(30.0), **each) for each in terms)

    for other in rest:
        assert first.table.equals(other.table)
        assert first.fan.equals(other.fan)
        assert first.hazard.equals(other.hazard)


def test_the_interval_is_that_of_clopper_and_pearson():
    found = estimate(10, 100, 0.95)
    assert found == pytest.approx((0.1, beta.ppf(0.025, 10, 91), beta.ppf(0.975, 11, 90)))
    assert estimate(0, 100, 0.95)[1:] == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)))


@pytest.mark.slow
def test_the_report_of_a_risk_says_what_happened():
    risk = risk_of(gbm_paths(paths=2000), Hold(30.0), **TERMS, horizons=("1d", "7d"))
    last = risk.table.iloc[-1]

    hazard = risk.hazard
    assert hazard["at_risk"].iloc[0] == 2000
    assert hazard["liquidated"].sum() == round(last.p_liquidation * 2000)
    assert 1 - np.prod(1 - hazard["hazard"]) == pytest.approx(last.p_liquidation)

    assert list(risk.fan.iloc[-1]) == sorted(risk.fan.iloc[-1])
    path = risk.path()
    assert path["price"].iloc[-1] < 1.0
    assert 0.0 < path["equity"].iloc[-1] < 1000.0
    assert math.isnan(last.p_margin_call)

    quiet = risk_of(gbm_paths(paths=50, horizon="1d"), Hold(0.0), **TERMS)
    check_refused(quiet.path, "no path was liquidated", bt.ParameterError)
    said = " ".join(quiet.summary().split())
    assert "No path lost the account within 1d: 50 paths show nothing under 6 %." in said


class Aging(bt.Policy):
    """Hold a turn more each day, from 2."""

    def leverage(self, bar, account):
        return 2.0 + math.floor(account.days)


@pytest.mark.parametrize(("policy", "terms"), [
    (Aging(), {"cash_rate": 0.5, "interest_on": "balance"}),
    (VolTarget(target=1.5, half_life=24.0), {}),
    (Aging(), {"fees": {"taker": 5e-4, "tiers": [bt.FeeTier(volume=5e3, maker=0.0, taker=1e-4)]}}),
])  # fmt: skip
def test_an_account_that_begins_in_history_is_that_of_a_run(policy, terms):
    """Each is new: its age, its memory, its tier of fees, and no interest for the bar before."""
    market = sample()
    venue = free_venue().override(terms)
    given = {"venue": venue, "account": free_account()}

    runner = begin(draw(market, horizon="3h"), policy, **given)
    setup = runner.setup._replace(account=given["account"])
    setup = set_up_again(setup, runner.paths.markets, np.ones((1, 120)), first=0, started=0)

    firsts = np.array([23, 40, 47, 90])
    assert dict(BatchLoop(setup, is_compiled=False).simulate_from(firsts[:0], 40)) == {}
    for k, lives in BatchLoop(setup, is_compiled=False).simulate_from(firsts, 40):
        first = int(firsts[k])
        head = market.prefix(min(first + 40, 120))
        run = bt.run(head, policy, **given, start=market.times[first])

        assert np.allclose(lives[0], run.bars["equity"], **SAME), first


def daily(n: int = 400, fall: int = 200) -> bt.Market:
    """Return days at 100, with a fall to 85 and back in one of them."""
    bars = market_of(np.full(n, 100.0), "1D", start="2021-01-01").bars()
    bars.loc[bars.index[fall], "low"] = 85.0
    return bt.Market.from_frames(bars)


def test_history_is_counted_from_every_day_by_hand():
    """10x die in a fall of 15 %: opened on its day or the day before, 2 of 398 with two days."""
    paths = bt.simulate_paths(daily(), models.GBM(volatility=0.1), paths=5, horizon="2d")
    risk = risk_of(paths, Hold(10.0), **TERMS)
    row = risk.table.loc["2d"]
    assert row["history"] == pytest.approx(2 / 398)
    assert row[["history_starts", "history_apart"]].tolist() == [398, 199]
    assert row["history_worst_year"] == pytest.approx(2 / 365)
    assert row["history_high"] == pytest.approx(beta.ppf(0.95, 2, 198))
    assert risk.verdict == write_lead(row, "2d") + (
        "The account is lost within 2d with a probability of 0 %: liquidation 0 %, ruin 0 %; "
        "history: 0.50 % of 398 starts."
    )

    half, twentieth, _, headline = risk.list_numbers()
    assert (half.value, twentieth.value) == (row["equity_50"], row["equity_05"])
    assert headline.note.endswith(
        "history: 0.50 % of 398 starts, 1 of 199 apart: at most 2.4 %, worst year 0.55 %, last "
        "prices"
    )
    assert risk.table.loc["1d", "history"] == pytest.approx(1 / 399)

    short = bt.simulate_paths(daily(300), models.GBM(volatility=0.1), paths=5, horizon="2d")
    risk = risk_of(short, Hold(10.0), **TERMS)
    assert risk.verdict.endswith("; history: too short.")
    assert risk.table[[*PAST]].isna().all(axis=None)
    assert "What history did" not in risk.summary()


def calm_days(fall: int = 200) -> bt.Market:
    """Return 400 days that move by 2 %, with a fall by 15 % in one, then 30 that move by 0.2 %."""
    moves = np.where(np.arange(430) % 2, 1.0, -1.0) * np.where(np.arange(430) < 400, 0.02, 0.002)
    bars = market_of(100.0 * np.exp(np.cumsum(moves)), "1D", start="2021-01-01").bars()
    bars.loc[bars.index[fall], "low"] = 80.0
    return bt.Market.from_frames(bars)


def test_in_calm_the_larger_of_model_and_history_is_the_probability():
    """A model of 5 % a year kills none; in history the fall kills those opened on its day or
    the day before, 2 of 428. A day's volatility is 0.2 % in the end, a year's about 1.9 %."""
    market = calm_days()
    model = models.GBM(volatility=0.05)

    assert measure_calm(market) == pytest.approx(0.2 / 1.9, rel=0.05)
    paths = bt.simulate_paths(market, model, paths=5, horizon="2d")
    risk = risk_of(paths, Hold(8.0), **TERMS, default_rate=1.0)
    row = risk.table.loc["2d"]
    assert [*risk.table][:2] == ["probability", "model_probability"]

    default = 1.0 - math.exp(-2 / 365)
    assert row["history"] == pytest.approx(2 / 428)
    assert row["probability"] == pytest.approx(1.0 - (1.0 - 2 / 428) * (1.0 - default))
    assert row["model_probability"] == row["p_default"] == 0.0
    assert risk.verdict == write_lead(row, "2d") + (
        "The account is lost within 2d with a probability of 1.01 %, history's frequency, as the "
        "market is calm (the model: 0 %)."
    )

    assert "a volatility of 0.11 of the last year's" in risk.details
    assert risk.list_numbers()[-1].value == row["probability"]


def test_outside_of_calm_and_for_an_account_that_goes_on_the_model_decides():
    wild = calm_days().prefix(400)
    calm = calm_days()
    model = models.GBM(volatility=0.05)
    paths = bt.simulate_paths(wild, model, paths=5, horizon="2d")
    risk = risk_of(paths, Hold(8.0), **TERMS)

    assert risk.table.loc["2d", "history"] > 0.0
    assert risk.table.loc["2d", "probability"] == 0.0

    # The account that goes on is another than those that history began anew.
    before = bt.run(calm, Hold(1.5), **TERMS)
    paths = bt.simulate_paths(calm, model, paths=5, horizon="2d")
    resumed = risk_of(paths, Hold(8.0), **{**TERMS, "account": before.account}, resume=before)
    assert resumed.table.loc["2d", "probability"] == 0.0
    assert "history knows no account that goes on" in resumed.details

    # An instrument that is not held has no say, and under a year there is no calm.
    assert math.isnan(measure_calm(calm.slice(100, 430)))
    both = bt.Markets({"A": calm, "B": calm})
    drawn = bt.simulate_paths(both, model, paths=2, horizon="2d")
    runner = begin(drawn, Hold(1.0), **TERMS, signal={"A": 0.0, "B": 0.5})
    assert [*runner.measure_calm()] == ["B"]


def test_the_probability_counts_every_cause_and_no_cause_is_hidden():
    """Flat accounts cannot be liquidated: what loses them is the venue, 63 % in a year at 1."""
    drawn = gbm_paths(paths=400, horizon="30d")
    account = free_account(margin_call=0.8, reserve=100.0, top_up_to=0.5)
    terms = {**TERMS, "account": account, "default_rate": 5.0}

    risk = risk_of(drawn, Hold(0.0), **terms)
    row = risk.table.loc["30d"]
    assert row["probability"] == row["p_default"] > 0.25

    chance = f"{100.0 * row['p_default']:.3g} %"
    assert risk.verdict.startswith(
        write_lead(row, "30d")
        + f"The account is lost within 30d with a probability of {chance}: liquidation 0 %, ruin "
        f"0 %, default of the venue {chance}"
    )

    head = risk.list_numbers()[-1]
    assert (head.name, head.value) == ("probability_30d", row["probability"])

    lines = risk.summary().splitlines()
    assert next(line.split()[1:3] for line in lines if line.startswith("30d")) == chance.split()

    hidden = [line for line in lines if "hidden columns" in line]
    assert not any(word in line for line in hidden for word in ("ruin", "default", "any cause"))


def test_one_path_is_lost_once_whatever_hits_it_first():
    """Four paths: liquidated and ruined, defaulted, both later than the horizon, called only."""
    firsts = {
        "p_liquidation": np.array([1, 9, 5, 9]),
        "p_ruin": np.array([2, 9, 9, 9]),
        "p_margin_call": np.array([9, 9, 9, 0]),
        "p_default": np.array([9, 0, 7, 9]),
    }
    wealth = np.zeros((1, 4))
    events = PathEvents(firsts, wealth, wealth, wealth, None)
    row = describe_horizon(events, 0, 4, np.arange(1.0, 10.0), 0.95)

    parts = ("model_probability", "p_liquidation", "p_ruin", "p_margin_call", "p_default")
    assert [row[name] for name in parts] == [0.5, 0.25, 0.25, 0.25, 0.25]


def test_starts_apart_bound_the_probability_from_above():
    """None of 48: 1 - .05^(1/48) = 6.05 %; a share of 0.8 % of them is none."""
    assert bound_apart(0.0, 48) == (0, pytest.approx(1.0 - 0.05 ** (1 / 48)))

    hits, high = bound_apart(0.008, 48)
    assert describe_apart(hits, 48, high) == "0 of 48 apart: at most 6.1 %"
    assert bound_apart(0.5, 48) == (24, pytest.approx(beta.ppf(0.95, 25, 24)))
    assert bound_apart(1.0, 3) == (3, 1.0)


def test_accounts_that_trade_options_are_refused():
    """Also under an overlay; stress answers for them."""
    paths = gbm_paths(paths=4, horizon="1d")
    rule = TailHedge(Constant(2.0))

    said = r"(?s)trade options, got .*TailHedge.*bt\.stress"
    with pytest.raises(bt.ParameterError, match=said):
        risk_of(paths, rule, **TERMS)
    with pytest.raises(bt.ParameterError, match=said):
        risk_of(paths, Hold(2.0), overlay=rule, **TERMS)
    with pytest.raises(bt.ParameterError, match=said):
        bt.Backtest(still_market(), **TERMS).max_leverage(
            rule, models=[models.GBM(volatility=SIGMA)]
        )

    with pytest.raises(bt.ParameterError, match=r"(?s)no prices of options, got 'PUT'.*bt\.stress"):
        bt.simulate_paths(make_markets(), "gbm")


@pytest.mark.filterwarnings("ignore:volatility is flat")
def test_a_result_that_holds_options_is_refused_until_they_are_closed():
    """Two puts of the tenth bar until 2023-01-08 12:00."""
    account = bt.Account(capital=100_000.0, requirement="deribit-standard")
    for bars, is_held in ((96, True), (24 * 9, False)):
        markets = make_markets(bars=bars)
        given = {"venue": make_venue(), "account": account}
        puts = pd.DataFrame({"PUT": [2.0]}, index=markets["BTC"].times[10:11])

        result = bt.run(markets, Constant(0.5), option_quantities=puts, **given)

        history = bt.Markets({"BTC": markets["BTC"]})
        model = models.GBM(volatility=SIGMA)
        paths = bt.simulate_paths(history, model, paths=4, horizon="4h", funding=None)
        terms = {**given, "resume": result}

        if is_held:
            with pytest.raises(bt.ParameterError, match=r"(?s)a result that holds PUT.*bt\.stress"):
                risk_of(paths, Constant(0.5), **terms)
        else:
            found = risk_of(paths, Constant(0.5), **terms)
            assert found.table["equity_50"].notna().all()


@pytest.mark.slow
def test_it_finds_the_leverage_of_the_closed_form():
    # without drift of the log price, 5 % in 7 days: |ln x| = -sigma sqrt(T) Phi^-1(0.025), and the
    # price of liquidation x = (L - 1) / (0.995 L), so L = 1 / (1 - 0.995 x)
    how = {"probability": 0.05, "horizon": "7d", "models": [models.GBM(volatility=0.8, drift=0.32)]}
    found = ask_test("max_leverage", still_market(), **TERMS, **how, paths=4000, seed=1)

    x = math.exp(-touch_distance(0.05, 0.8, 7 / 365))

    # the error of p is sqrt(0.05 * 0.95 / 4000) = 0.0034, 7 % of it; that of L some 3 %
    assert found.leverage == pytest.approx(1 / (1 - 0.995 * x), rel=0.04)

    row = found.table.loc["gbm"]
    assert row["p_liquidation"] <= 0.05 < row["p_liquidation_simulation_high"]
    assert row["is_monotone"]
    assert not row["is_limited"]
    assert found.grid["gbm"].is_monotonic_increasing


@pytest.mark.slow
def test_the_error_of_a_leverage_is_its_spread_over_seeds():
    """Of 24 seeds the deviation has an error of 15 %."""
    how = {"probability": 0.05, "horizon": "2d", "models": [models.GBM(volatility=0.8)]}
    found = [
        ask_test("max_leverage", still_market(), **TERMS, **how, paths=500, seed=seed)
        for seed in range(24)
    ]
    spread = np.std([each.leverage for each in found], ddof=1)
    errors = [each.table.loc["gbm", "leverage_error"] for each in found]
    assert 0.6 < spread / np.mean(errors) < 1.5
    assert " ± " in found[0].verdict
    assert "of accounts are wiped out" in found[0].verdict


@pytest.mark.slow
def test_the_worst_model_decides():
    how = {"probability": 0.1, "horizon": "2d", "models": [models.GBM(0.3), models.GBM(1.5)]}
    found = ask_test("max_leverage", still_market(), **TERMS, **how, paths=1000)
    assert list(found.table.index) == ["gbm", "gbm 2", "worst"]
    assert found.leverage == found.table.loc["gbm 2", "leverage"]
    assert found.leverage < 0.5 * found.table.loc["gbm", "leverage"]


class Tables:
    """The share of accounts that is liquidated grows as the cube of the size: 1 in 1,000 at 2x."""

    name, rough, count = "tables", 1000, 10_000

    def count_hits(self, sizes, count, most):
        return [count * min(1e-3 * (size / 2.0) ** 3, 1.0) for size in sizes]

    def count_ruined(self, size, count):
        return 0.25 * self.count_hits([size], count, math.inf)[0]


def test_the_gap_is_narrowed_to_a_hundredth():
    """1 % at 2 x 10^(1/3) = 4.31x."""
    row, rough = search_leverage(Tables(), np.geomspace(0.5, 100.0, 16), 0.01)
    assert 0.99 * 4.309 < row["leverage"] <= 4.31
    assert row["p_liquidation"] <= 0.01 < row["p_liquidation_simulation_high"]
    assert len(rough) == 16
    assert not row["is_limited"]

    # Of 10,000 paths 1 % has an error of a tenth of it, and the chance grows as the cube.
    of_chance = math.sqrt(0.99 / (10_000 * 0.01))
    assert row["leverage_error"] == pytest.approx(4.309 * of_chance / 3.0, rel=0.01)
    assert row["wiped_out"] == pytest.approx(0.0025, rel=0.02)


def test_a_leverage_at_the_end_of_the_grid_has_no_error():
    """At 4x .8 % are liquidated: no leverage that may be held reaches 1 %."""
    row, _ = search_leverage(Tables(), np.geomspace(0.5, 4.0, 16), 0.01)
    assert (row["leverage"], row["is_limited"]) == (pytest.approx(4.0), True)
    assert math.isnan(row["leverage_error"])
    assert row["wiped_out"] == pytest.approx(0.002)


def test_a_leverage_is_lowered_until_all_paths_confirm_it():
    tables = Tables()
    tables.paths = SimpleNamespace(count=10_000)
    row = {"leverage": 5.0, "leverage_error": math.nan, "wiped_out": 1.0, "is_limited": True}
    confirm(tables, row, 0.01, most=100.0)
    assert 4.2 < row["leverage"] < 4.31
    assert row["wiped_out"] == pytest.approx(0.0025, rel=0.1)  # of the size found
    assert not row["is_limited"]
    assert row["p_liquidation"] <= 0.01
    assert row["paths"] == 10_000


@pytest.mark.parametrize("start", [3.6, 4.309, 5.2])
def test_a_leverage_of_the_first_paths_is_bisected_on_all_of_them(start):
    """From three errors of .3 on each side, down to 1/64; those of 40,000 paths are half."""
    tables = Tables()
    tables.paths = SimpleNamespace(count=40_000)
    row = {"leverage": start, "leverage_error": 0.3}
    confirm(tables, row, 0.01, most=100.0)
    assert 4.309 * 0.99 < row["leverage"] <= 4.3089
    assert row["leverage_error"] == pytest.approx(0.15)
    assert row["paths"] == 40_000
    near = {"leverage": 4.0, "leverage_error": 0.3}
    confirm(tables, near, 0.01, most=4.2)
    assert 4.1 < near["leverage"] < 4.2


def test_no_size_is_run_twice_on_all_paths():
    counted = []

    class Counted(Tables):
        def count_hits(self, sizes, count, most):
            counted.extend(sizes)
            return super().count_hits(sizes, count, most)

        def count_ruined(self, size, count):
            return 0

    tables = Counted()
    tables.paths = SimpleNamespace(count=40_000)
    row = {"leverage": 4.309, "leverage_error": 0.3}
    confirm(tables, row, 0.01, most=100.0)
    assert row["leverage"] in counted
    assert len({*counted}) == len(counted)


def test_models_of_one_kind_are_numbered_among_themselves():
    market = bt.Market.sample(bars=300)
    drawn = [bt.simulate_paths(market, x, paths=2, horizon="2h") for x in ("filtered", CALM)]
    names = ["filtered", "filtered 2"]
    named = name_models([drawn[0], drawn[0], drawn[1], drawn[1]])
    assert [name for name in named if "long run" not in name] == [*names, "gbm", "gbm 2"]


@pytest.mark.slow
def test_models_of_todays_volatility_also_start_at_the_long_run_one():
    market = bt.Market.sample(bars=300)
    drawn = [bt.simulate_paths(market, x, paths=2, horizon="2h") for x in ("filtered", CALM)]
    named = name_models(drawn)
    assert [*named] == ["filtered", "filtered, long run", "gbm"]
    square = np.mean(np.diff(np.log(market.close)) ** 2)
    assert named["filtered, long run"].model.variance_now == pytest.approx(square, rel=1e-9)
    assert named["filtered"].model.variance_now != pytest.approx(square, rel=1e-3)


@pytest.mark.slow
def test_history_bounds_the_leverage_where_it_was_worse_than_models():
    """Two of 398 starts of two days see a fall of 15 %, which a calm model does not."""
    how = {"probability": 0.004, "horizon": "2d", "models": [models.GBM(0.05)]}
    found = ask_test("max_leverage", daily(), **TERMS, **how, paths=5000)
    assert found.bound_by == "history"
    assert found.leverage == pytest.approx(1 / (1 - 0.995 * 0.85), rel=0.01)
    assert found.leverage < 1 / (1 - 0.995 * 0.85) < found.table.loc["gbm", "leverage"]
    said = " ".join(found.summary().split())
    assert "within 2d with a probability of at most 0.4 %; the bound is history's own" in said
    assert "history's own frequency, 0 % there (0 of 199 apart: at most 1.5 %)." in said
    assert "Weights: signal 1. " in said
    how |= {"probability": 0.4, "models": [models.GBM(2.0)]}
    short = ask_test("max_leverage", daily(300), **TERMS, **how, paths=50)
    assert "; the bound is gbm, " in short.verdict
    assert "History is too short to count" in short.details


def test_a_policy_is_scaled_by_a_factor():
    policies = (Scaled(VolTarget(target=0.3), factor=2.0), VolTarget(target=0.6))
    runs = [bt.run(bt.Market.sample(bars=300), each, **TERMS) for each in policies]
    assert runs[0].metrics["final_equity"] == pytest.approx(runs[1].metrics["final_equity"])


def sample(seed: int = 0) -> bt.Market:
    return bt.Market.sample(bars=120, seed=seed)


@pytest.mark.parametrize(("policy", "terms"), [
    ({"A": Hold(6.0), "B": VolTarget(target=2.0, half_life=12.0)}, {}),
    (VolTarget(target=2.0, half_life=12.0), {"fill": "next_close"}),
    (VolTarget(target=2.0, half_life=12.0), {"fill": "same_close", "equity_stop": 0.2}),
])  # fmt: skip
def test_a_portfolio_goes_on_from_where_it_stands(policy, terms):
    history = bt.Markets({"A": sample(), "B": sample(1)})
    account = free_account(reserve=100.0, margin_call=0.9, top_up_to=0.5, **terms)
    given = {"venue": free_venue(), "account": account}
    before = bt.run(history, policy, **given, signal={"A": 0.7, "B": -0.3})
    paths = bt.simulate_paths(history, models.Stationary(block=6.0), paths=2, horizon="1d")
    risk = risk_of(paths, policy, **given, resume=before)
    lives = next(risk.runner.run_chunks())
    for i in range(2):
        joined = paths.markets_of(paths.draw_all(i, i + 1), 0, i, 10**6)
        whole = bt.run(joined, policy, **given, signal={"A": 0.7, "B": -0.3})
        bars = whole.bars.iloc[-24:]
        assert np.allclose(lives.wealth[i], bars["equity"] + bars["reserve"], rtol=1e-12)


def ended() -> bt.Result:
    market = bt.Markets({"A": sample().prefix(100), "B": sample(1).prefix(100)})
    return bt.run(market, Hold(2.0), **TERMS)


def risk_with(**given) -> object:
    given = {"paths": gbm_paths(paths=10), "policy": Hold(5.0), **TERMS, **given}
    return risk_of(given.pop("paths"), given.pop("policy"), **given)


def risk_of_two(**given) -> object:
    market = bt.Markets({"A": sample(), "B": sample(1)})
    return risk_with(paths=bt.simulate_paths(market, WILD, paths=2, horizon="2h"), **given)


def most(**given) -> object:
    return ask_test(
        "max_leverage", still_market(), **TERMS, **{"models": [models.GBM(0.5)], **given}
    )


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: risk_with(horizons=("8d",)), bt.ParameterError, "horizons must lie"),
    (lambda: risk_with(confidence=math.nan), bt.ParameterError, "confidence must be a number"),
    (lambda: risk_with(policy=Hold), bt.ParameterError, "add ()"),
    (lambda: most(probability=0.0), bt.ParameterError, "probability must be"),
    (lambda: most(probability=math.nan), bt.ParameterError, "probability must be a number"),
    (lambda: most(probability=0.001, paths=1000), bt.ParameterError, "at least 20"),
    (lambda: most(models=[]), bt.ParameterError, "at least one model"),
    (lambda: most(models="gbm"), bt.ParameterError, "models must be"),
    (lambda: risk_of_two(signal={"A": 0.5}), bt.ParameterError, "signal must be one for all"),
    (lambda: risk_of_two(account=5), bt.ParameterError, "account must be"),
    (lambda: risk_of_two(resume=ended()), bt.DataError, "must begin where the result ended"),
    (lambda: risk_of_two(policy={"A": Hold(1.0)}), bt.ParameterError, "none for B"),
    (lambda: risk_of_two(venue={"A": free_venue()}), bt.ParameterError, "none for B"),
])  # fmt: skip
def test_bad_arguments_are_refused(call, error, words):
    check_refused(call, words, error)


@pytest.mark.parametrize("names", [(), ("A", "B")])
def test_a_risk_without_a_fill_says_so(names):
    """A band of 100 turns around no position: the probability of 0 means nothing."""
    sample = {name: bt.Market.sample(bars=60, seed=k) for k, name in enumerate(names)}
    market = bt.Markets(sample) if names else still_market()
    terms = {"venue": kit.make_venue(), "account": free_account(max_leverage=20.0, band=100.0)}
    policy = Constant(leverage=5.0)
    paths = bt.simulate_paths(market, CALM, paths=20, horizon="12h")
    with pytest.warns(bt.NoFillWarning, match="on any of 20 paths, so nothing can be liquidated"):
        risk = risk_of(paths, policy, **terms)
    assert "band" in risk.settings["no_fill"]
    assert "! No order was filled on any path: " in risk.summary()


def test_the_largest_leverage_is_one_that_can_be_opened():
    """20x up to a notional of 10,000, 4x above: 4,000 can open 4x, or 4 / (1 + 0.01 * 4) at a cost.
    It was 20, at a probability of 0, although 3.85x was held."""
    brackets = [
        bt.Bracket(floor=0.0, cap=10_000.0, maintenance_rate=0.005, max_leverage=20.0),
        bt.Bracket(floor=10_000.0, cap=1e9, maintenance_rate=0.01, max_leverage=4.0),
    ]
    venue = free_venue().override(brackets=brackets)
    account = free_account(capital=4_000.0)
    found = ask_test("max_leverage", still_market(), venue=venue, account=account, **GIVEN)
    assert found.leverage == pytest.approx(4.0)
    dear = venue.override({"fees.taker": 0.006, "slippage.rate": 0.004})
    found = ask_test("max_leverage", still_market(), venue=dear, account=account, **GIVEN)
    assert found.leverage == pytest.approx(4.0 / 1.04)
    assert found.table.loc["gbm", "is_limited"]


def test_a_search_of_factors_that_ends_without_an_answer_says_so_and_which_limit_binds():
    """A venue that allows 2x liquidates no factor: "Up to a factor of 20" was no answer."""
    bracket = bt.Bracket(floor=0.0, cap=1e9, maintenance_rate=0.005, max_leverage=2.0)
    venue = free_venue().override(brackets=[bracket])
    given = {"venue": venue, "account": free_account(), **GIVEN}
    found = ask_test("max_leverage", still_market(), Constant(1.0), **given)
    assert found.is_limited
    assert found.verdict.startswith("No factor up to 20, the end of the search, has the account ")
    assert "initial margin cuts 100.00 % of the decisions on the first path" in found.details
    assert str(found.list_numbers()[0]) == "over 20"

    # Of one position it is the most that the venue allows.
    held = ask_test("max_leverage", still_market(), **given)
    assert held.verdict.startswith("No leverage up to 2, the most that venue and account allow, ")
    assert str(held.list_numbers()[0]) == "2, the most allowed"


def begin(paths, policy, **given) -> PathsRunner:
    fields = {name: each for name, each in given.items() if name != "compile"}
    return PathsRunner(paths, policy, bt.Backtest(paths.history, **fields))


def draw(market: bt.Market | bt.Markets, **terms) -> bt.Paths:
    return bt.simulate_paths(market, GBM, **{"paths": 4, "horizon": "12h", "seed": 2, **terms})


def costly() -> bt.Venue:
    return free_venue().override({"fees.taker": 5e-4, "slippage.rate": 2e-4})


class Noted(bt.Policy):
    """Hold what the last move says, and note how many bars were observed."""

    observed: ClassVar[list[int]] = []

    def observe(self, market):
        self.observed.append(market.n_bars)
        return {"size": np.abs(np.diff(market.close, prepend=market.close[0])) / market.close}

    def leverage(self, bar, account):
        return 50.0 * bar.size


@pytest.mark.parametrize(("policy", "account", "happens"), [
    (Hold(20.0), {}, "liquidations"),
    (Constant(leverage=15.0), {"margin": "isolated", "venue_leverage": 20.0}, "liquidations"),
    (Hold(8.0), {"margin_call": 0.05, "reserve": 200.0, "top_up_to": 0.03}, "calls"),
    (Hold(12.0), {"stop_loss": 0.02, "ruin_at": 0.5}, "is_ruined"),
])  # fmt: skip
def test_a_life_is_that_of_a_run_also_beside_an_instrument_not_held(policy, account, happens):
    given = {"venue": costly(), "account": free_account(**account)}
    runner = begin(draw(sample()), policy, **given)
    lives = runner.run_block(0, 4)
    assert getattr(lives, happens).any()
    for i in range(4):
        whole = runner.run_path(i)
        wealth = (whole.bars["equity"] + whole.bars["reserve"]).to_numpy()[1:]
        assert np.allclose(lives.wealth[i], wealth, **SAME)
        assert lives.liquidations[i].sum() == whole.metrics["liquidations"]
        assert lives.calls[i].sum() == whole.metrics["margin_calls"]
        assert lives.is_ruined[i].any() == bool(whole.metrics["ruined"])
        assert lives.bad_debt[i].sum() == pytest.approx(whole.metrics["bad_debt"])
    both = draw(bt.Markets({"A": sample(), "B": sample(1)}))
    two = begin(both, policy, signal={"A": 1.0, "B": 0.0}, **given).run_block(0, 4)
    for mine, theirs in zip(lives[1:6], two[1:6], strict=True):
        assert np.allclose(mine, theirs, **SAME)
    assert np.array_equal(lives.closes[0], two.closes[0])


@pytest.mark.parametrize("inner", [VolTarget(half_life=20.0), Noted()])
def test_runners_of_two_sizes_share_columns_and_keep_the_numbers_of_their_own(inner, monkeypatch):
    """A policy that takes arrays of paths, and one that observes them one by one."""
    monkeypatch.setattr(Noted, "observed", [])
    given = {"venue": costly(), "account": free_account()}
    both = draw(bt.Markets({"A": sample(), "B": sample(1)}))
    terms = {"signal": {"A": 1.0, "B": -1.0}, **given}
    first = begin(both, Scaled(inner, factor=2.0), **terms)
    second = first.with_policy(Scaled(inner, factor=9.0))
    first.run_block(0, 4)
    n_observed = len(Noted.observed)
    lives = second.run_block(0, 4)
    assert len(Noted.observed) == n_observed
    alone = begin(both, Scaled(inner, factor=9.0), **terms).run_block(0, 4)
    for mine, theirs in zip(lives[1:], alone[1:], strict=True):
        assert np.array_equal(mine, theirs)
    assert not np.array_equal(lives.wealth, first.run_block(0, 4).wealth)


class Short(bt.Policy):
    def leverage(self, bar, account):
        return -1.0 if account.days > 0.4 else 1.0


def test_a_negative_leverage_on_a_path_is_the_error_of_its_run():
    runner = begin(draw(sample()), Short(), venue=costly(), account=free_account())
    check_refused(lambda: runner.run_block(0, 4), "a leverage must be at least 0", bt.PolicyError)


def tiered() -> bt.Venue:
    """Return a venue whose fee falls by half after 20,000 traded."""
    tiers = [bt.FeeTier(volume=20_000.0, maker=2e-4, taker=2.5e-4)]
    return costly().override({"fees.tiers": tiers})


def test_a_result_of_one_goes_on_at_fee_tiers_and_with_no_other_overlay():
    """The hours of the run leave the first tier, so its volume must go on along the paths."""
    given = {"venue": tiered(), "account": free_account()}
    before = bt.run(sample(), Flip(), **given)
    paths = draw(sample(), horizon="1d", paths=2)
    given |= {"resume": before}
    risk = risk_of(paths, Flip(), **given)
    lives = next(risk.runner.run_chunks())
    for i in range(2):
        assert np.allclose(lives.wealth[i], risk.run(i).bars["equity"].to_numpy(), **SAME)
    other = {**given, "overlay": Constant(leverage=0.5)}
    said = "overlay must match the result, None"
    check_refused(lambda: risk_of(paths, Flip(), **other), said, bt.ParameterError)


class Flip(bt.Policy):
    """Hold 3 and 1 turns in turn."""

    def leverage(self, bar, account):
        return 3.0 if abs(account.leverage) < 2.0 else 1.0


def test_an_overlay_scales_the_only_position_too():
    halved = {**TERMS, "overlay": Constant(leverage=0.5)}
    half = risk_of(draw(sample()), Constant(leverage=4.0), **halved)
    two = risk_of(draw(sample()), Constant(leverage=2.0), **TERMS)
    assert np.allclose(half.fan, two.fan, **SAME)
    before = bt.run(sample(), Cppi(), **halved)
    goes_on = {**halved, "resume": before}  # with the equity that the policy remembers
    risk = risk_of(draw(sample()), Cppi(), **goes_on)
    assert np.array_equal(next(risk.runner.run_chunks()).wealth[0], risk.run(0).bars["equity"])


def test_growth_and_risk_by_leverage_are_those_of_the_paths(monkeypatch):
    """Rebalanced every bar, leverage L grows by prod(1 + L r); history rises by 0.1 % an hour."""
    sizes = np.array([1.0, 2.0, 150.0])
    monkeypatch.setattr(growth_frontier, "choose_grid", lambda *_: sizes)
    market = kit.market_of(100.0 * 1.001 ** np.arange(240), "1h", start="2023-01-01")
    how = {"horizon": "24h", "model": models.GBM(volatility=0.5), "paths": 12}
    found = ask_test("leverage_frontier", market, Constant(1.0), **TERMS, drift=0.4, **how)
    sources = ["paths with a drift of +40.00 % per year", "paths without drift", "history"]
    assert list(found.table.index.levels[0]) == sorted(sources)
    for source, drift in zip(sources, (0.4, 0.0), strict=False):
        closes = bt.simulate_paths(market, **how, drift=drift).closes(0, 12)
        moves = closes[:, 1:] / closes[:, :-1] - 1.0
        for size in sizes[:2]:
            growth = np.median(np.sum(np.log1p(size * moves), axis=1)) * 365
            assert found.table.loc[(source, size), "growth"] == pytest.approx(growth, rel=1e-6)
            assert found.table.loc[(source, size), "p_liquidation"] == 0.0
        assert found.table.loc[(source, 150.0), "p_liquidation"] > 0.9
    past = found.table.loc["history"]
    assert past["accounts"].tolist() == [9, 9, 9]
    assert past["growth"].iloc[1] == pytest.approx(8760 * math.log1p(0.002), rel=1e-6)
    assert "+40.00 %" in found.verdict
    assert "opens a horizon apart" in found.details
    how = {**how, "horizon": "240h"}
    longer = ask_test("leverage_frontier", market, Constant(1.0), **TERMS, drift=0.4, **how)
    assert "History has no row: it is no longer than 240h." in longer.details
    high = found.table["p_liquidation_simulation_high"].iloc[0]
    assert high == pytest.approx(1 - 0.025 ** (1 / 12))
    assert found.verdict.startswith("At no factor that was tried does the median account grow on ")
    assert ", the end of those tried; 0 % are wiped out" in found.verdict
    grown = replace(found, best=found.best.assign(growth=0.1))
    assert grown.verdict.startswith("The median account grows most at a factor of ")
    assert found.verdict.endswith("of accounts are liquidated there.")
    assert found.details.startswith("Its best is ")


def test_a_frontier_names_the_limit_that_cuts_orders_of_larger_factors(monkeypatch):
    """Initial margin of a half leaves 2x of any factor on 1x: growth is nearly flat beyond."""
    monkeypatch.setattr(growth_frontier, "choose_grid", lambda *_: np.array([1.0, 3.0, 4.0]))
    monkeypatch.setattr(growth_frontier, "REFINED", 2)
    market = kit.market_of(100.0 * 1.001 ** np.arange(120), "1h", start="2023-01-01")
    how = {"horizon": "24h", "model": models.GBM(volatility=0.05), "paths": 6, "drift": 0.5}
    terms = {**TERMS, "venue": kit.make_venue(max_leverage=2.0), "compile": False}
    found = ask_test("leverage_frontier", market, Constant(1.0), **terms, **how)

    cap = found.settings["cap"]
    assert cap["cause"] == "initial margin"
    assert cap["binds_from"] == pytest.approx(2.0, rel=0.02)
    assert "initial margin binds from a factor of about 2 on" in found.details
    assert ", past about 2, from where initial margin binds and growth is nearly flat" in (
        found.verdict
    )

    held = ask_test("leverage_frontier", market, **terms, **how)
    assert held.settings["cap"] is None


def test_a_drift_within_its_error_shrinks_to_none():
    """History's drift d with standard error s counts as d (1 - s^2 / d^2), at least 0."""
    moves = np.random.default_rng(4).normal(0.0005, 0.01, 2000)
    market = kit.market_of(100.0 * np.exp(np.cumsum(moves)), "1h", start="2023-01-01")
    ratios = np.exp(np.diff(np.log(market.close)))
    whole = math.log(ratios.mean()) * 8760
    error = ratios.std() / math.sqrt(len(ratios)) * 8760
    assert read_drift("history", market) == pytest.approx(whole)
    assert read_drift("shrunk", market) == pytest.approx(whole * max(0, 1 - (error / whole) ** 2))
    noise = kit.market_of(100.0 * np.exp(0.01 * (-1.0) ** np.arange(500)), "1h", start="2023-01-01")
    assert read_drift("shrunk", noise) == 0.0


@pytest.mark.slow
def test_a_venue_defaults_at_an_exponential_time():
    """Flat accounts: within T years it is 1 - exp(-rate T); 40 % of what is there remains."""
    drawn = gbm_paths(paths=200, horizon="3d")
    account = bt.Account(capital=1_000.0, reserve=250.0, margin_call=0.8, top_up_to=0.5)
    found = risk_of(
        drawn,
        Hold(0.0),
        venue=TERMS["venue"],
        account=account,
        horizons=("1d", "3d"),
        default_rate=60.0,
        recovery=0.4,
        confidence=1 - 1e-6,
    )
    for days, (_, row) in zip((1, 3), found.table.iterrows(), strict=True):
        wanted = 1.0 - math.exp(-60.0 * days / 365)
        assert row.p_default_simulation_low <= wanted <= row.p_default_simulation_high
        assert row.p_liquidation == 0.0
    assert found.table.equity_05.iloc[-1] == pytest.approx(250.0 + 0.4 * 1_000.0)
    assert found.table.equity_95.iloc[-1] == 1_250.0
    assert "default of the venue" in found.summary()
    assert "p_default" not in risk_of(drawn, Hold(0.0), **TERMS).table
    check_refused(
        lambda: risk_of(drawn, Hold(1.0), **TERMS, recovery=0.5),
        "recovery must be left out without default_rate",
    )


def test_the_best_size_is_refined_between_sizes_and_its_end_is_named():
    """Growth of Kelly, mu f - (sigma f)^2 / 2, mu .4 and sigma .5, is highest at 1.6."""

    def simulate(size: float) -> Outcomes:
        shocks = np.linspace(-0.2, 0.2, 201)  # whose median is 0
        growth = 0.4 * size - 0.5 * (0.5 * size) ** 2 + shocks
        return Outcomes(growth, growth < -1.0, growth < -2.0)

    known = {size: simulate(size) for size in (0.5, 1.0, 2.0, 4.0)}
    refine_best(known, simulate)
    best = describe_best(known, seed=1)
    assert best["size"] == pytest.approx(1.6, rel=0.005)
    assert best["growth"] == pytest.approx(0.32, rel=1e-4)
    assert best["growth_error"] > 0.0
    assert best["is_at_end"] is False

    low = {size: simulate(size) for size in (0.1, 0.2)}
    refine_best(low, simulate)
    assert describe_best(low, seed=1)["size"] == 0.2
    assert describe_best(low, seed=1)["is_at_end"] is True
    assert len(low) == 2 + REFINED
