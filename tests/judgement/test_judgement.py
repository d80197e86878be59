"""One answer on a policy: each row is what its own command computes, and one sentence by rule."""

import dataclasses
import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine import plain
from backtest.judgement import growth, rule, survival
from backtest.judgement.accounts import (
    JudgedAccount,
    choose_venue,
    describe_separation,
    find_benchmark,
)
from backtest.judgement.costs import judge_costs
from backtest.judgement.judge_policy import JudgedRow, write_cost, write_crashes
from backtest.judgement.judgement import (
    list_reversed,
    name_limits,
    name_none,
    write_years_needed,
)
from backtest.judgement.outcomes import check_code, list_forecasts
from backtest.report.charts import draw_declared
from backtest.results import hash_source
from backtest.results.result import Lack
from backtest.risk.leverage_sizes import Scaled
from backtest.risk.paths import choose_funding
from backtest.search.equal_risk import hold_at_equal_risk
from backtest.strategies import Capped, Constant, TailHedge, VolTarget
from tests import kit
from tests.judgement.courts import Blind, Calm, Sized, make_market, make_test
from tests.kit import call, check_refused, free_venue, slow
from tests.options.listed_markets import make_markets, make_venue

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
COSTLY = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}
LIMITED = {"slippage.max_participation": 0.05}
FEW = 199
"""Draws of the bootstrap, where a test asks nothing of how narrow an interval is."""


@pytest.fixture(scope="module")
def calm() -> tuple[bt.Backtest, bt.Judgement, list[JudgedRow]]:
    """Return one judgement of all that several tests look at; a large capital is not filled."""
    venue = COSTLY["venue"].override(LIMITED)
    test = make_test(make_market(2.0, seed=1), venue=venue, account=bt.Account())
    rows: list[JudgedRow] = []
    return test, test.judge(Calm(), progress=rows.append), rows


@pytest.fixture(scope="module")
def short() -> bt.Judgement:
    """Return a judgement of 90 days, too few for paths: what its rows say is quick to know."""
    close = 100.0 + np.sin(np.arange(90.0))
    market = kit.market_of(close, "1D", terms={"instrument": "SHORT"})
    test = make_test(market, venue=COSTLY["venue"], account=bt.Account())
    return test.judge(Calm(), draws=99, compile=False)


@pytest.fixture
def few(monkeypatch) -> dict[str, int]:
    """Return settings of a judgement, where a test asks nothing of how rare a loss is either.

    A probability of 1 % takes 2,000 paths, which users cannot go below.
    """
    monkeypatch.setattr(survival, "LEAST_PATHS", 80)
    return {"draws": FEW, "paths": 80}


# 1. Better than constant?


def test_the_constant_is_scaled_to_the_volatility_of_the_policy(calm):
    """Excess returns b become f + (s_p / s_b) (b - f) of the same days, and d = ln(p / b)."""
    test, judged, _ = calm
    result = test.run(Calm())
    constant = hold_at_equal_risk(result)

    own = result.returns.to_numpy()
    other = constant.result.returns.to_numpy()
    ratio = np.std(own, ddof=1) / np.std(other, ddof=1)
    by_hand = np.log1p(own) - np.log1p(ratio * other)
    decided = np.flatnonzero(own != 0.0)[0]

    row = judged.growth.loc["M1"]
    assert ratio == pytest.approx(1.0, abs=0.01)
    n = int(row["n"])
    assert len(own) - n <= decided + 1
    assert row["difference"] == pytest.approx(np.mean(by_hand[-n:]) * 365.25, rel=1e-3)
    assert judged.differences["M1"].to_numpy() == pytest.approx(by_hand[-n:])


def test_the_interval_is_that_of_a_comparison(calm):
    """The bootstrap of ``bt.compare``, of the same differences with the same seed."""
    _, judged, _ = calm
    row = judged.growth.loc["M1"]
    gaps = judged.differences["M1"]
    again = growth.test_difference(gaps, int(row["n"]) / row["years"], 1_999, 0)

    assert row["low"] == again["low"]
    assert row["high"] == again["high"]
    assert row["low"] < row["difference"] < row["high"]


def test_a_day_of_several_markets_is_the_mean_of_those_there_are():
    times = pd.date_range("2024-01-01", periods=60, tz="UTC")
    one = pd.Series(np.linspace(0.01, 0.02, 60), times)
    other = pd.Series(0.03, times[20:])
    nothing = pd.Series(0.0, times)
    days = {
        "A": growth.DailyGrowth(one, nothing, 365.0),
        "B": growth.DailyGrowth(other, nothing[20:], 365.0),
    }

    row, table = growth.pool_growth(days, 99, 0)

    assert table["pooled"].iloc[0] == pytest.approx(0.01)
    assert table["pooled"].iloc[-1] == pytest.approx(0.5 * (0.02 + 0.03))
    assert row["n"] == 60
    assert row["difference"] == pytest.approx(365.0 * table["pooled"].mean())


def test_each_market_has_its_own_color_in_the_chart_of_differences(calm):
    _, judged, _ = calm
    gaps = judged.differences["M1"]
    several = pd.DataFrame({"A": gaps, "B": 2.0 * gaps, "C": 0.5 * gaps, "pooled": gaps})
    chart = draw_declared(dataclasses.replace(judged, differences=several).draw_differences())
    lines = {trace["name"]: trace["line"] for trace in chart.figure["data"]}
    assert [*lines] == ["pooled", "A", "B", "C"]
    assert len({line["color"] for line in lines.values()}) == 4

    # Pooled is the same line where there is one market.
    alone = draw_declared(judged.draw_differences())
    assert [trace["name"] for trace in alone.figure["data"]] == ["M1"]


@pytest.mark.parametrize("leverage", [2.0, *slow([0.5, 1.0])])
def test_a_constant_leverage_differs_from_itself_by_exactly_nothing(leverage):
    found = make_test(make_market(1.0, seed=2), **COSTLY).judge(Constant(leverage))
    row = found.growth.loc["pooled"]
    assert row["difference"] == 0.0
    assert row["low"] == 0.0
    assert row["high"] == 0.0
    assert found.outcome in (rule.NOT_TIMED, rule.UNSAFE)


@pytest.mark.slow
def test_a_constant_leverage_that_is_liquidated_is_unsafe():
    found = make_test(make_market(2.0, seed=2), **COSTLY).judge(Constant(60.0))
    assert found.outcome == rule.UNSAFE
    assert found.verdict.startswith("Unsafe: Constant")


def test_an_account_that_held_nothing_is_not_timed_and_not_tested():
    found = make_test(make_market(1.0, seed=2), **COSTLY).judge(Constant(0.0))
    assert found.outcome == rule.NOT_TIMED
    assert "Constant filled no order on M2: it decided 0 or NaN" in found.verdict
    assert found.growth.loc["M2", "why"] == "the account held nothing"


def test_the_years_that_a_difference_needs_grow_with_the_square_of_its_noise():
    """Half widths fall with the root of time: .06 to .02 takes 3 ^ 2 times as long."""
    assert growth.count_years_needed(0.02, 0.06, 3.0) == pytest.approx(27.0)
    assert math.isnan(growth.count_years_needed(0.0, 0.06, 3.0))
    assert math.isnan(growth.count_years_needed(1e-4, 0.06, 3.0))


# 2 to 6: one computation, called.


def test_the_timing_is_that_of_the_timing_test(calm):
    test, judged, _ = calm
    own = bt.timing_test(test.run(Calm()))

    row = judged.timing.loc["M1"]
    assert row["p_growth"] == own.p_growth
    assert row["shifts"] == len(own.table)
    assert row["fills"] == test.run(Calm()).metrics["fills"]


@pytest.mark.slow
def test_the_probability_of_loss_is_that_of_the_risk():
    """At ten times the market, where some paths lose the account."""
    test = make_test(make_market(2.0, seed=3), **COSTLY)
    policy = Constant(15.0)
    judged = test.judge(policy).survival.set_index("horizon")

    how: dict[str, Any] = {"funding": choose_funding(test.venue), "model": "filtered"}
    month = bt.simulate_paths(test.market, paths=2_000, horizon="30d", **how)
    own = test.liquidation_risk(policy, paths=month, horizons=["7d", "30d"]).table
    year = bt.simulate_paths(test.market, paths=250, horizon="365d", **how)
    own = pd.concat([own, test.liquidation_risk(policy, paths=year, horizons=["365d"]).table])

    for name in ("probability", "history"):
        assert judged[name].tolist() == own[name].tolist()
    assert judged["paths"].tolist() == own["model_probability"].tolist()
    assert own["model_probability"].iloc[1] > 0.0


@pytest.mark.slow
def test_the_largest_scale_is_that_of_its_command():
    test = make_test(make_market(2.0, seed=3), **COSTLY)
    own = test.max_leverage(
        Calm(), models=["filtered"], paths=2_000, evaluations=survival.EVALUATIONS
    )
    judged = test.judge(Calm()).limits.loc["M3"]
    assert judged["largest_scale"] == own.leverage
    assert judged["evaluations"] <= 8

    tried = own.grid.index.to_numpy()
    assert len(tried) <= 8
    chance = own.grid.max(axis=1)
    assert (chance[tried <= own.leverage] <= 0.01).all()
    assert (chance[tried > own.leverage] > 0.01).all()


def test_beside_the_largest_scale_stands_the_growth_of_the_account_at_it(calm):
    """One account on history, by hand: the mean of ln(1 + r) a day since the first decision."""
    test, judged, rows = calm
    limits = judged.limits.loc["M1"]
    result = test.run(Scaled(Calm(), factor=limits["largest_scale"]))
    returns = result.returns.to_numpy()
    n = int(judged.growth.loc["M1", "n"])
    by_hand = np.mean(np.log1p(returns[-n:])) * 365.25
    assert limits["growth_at_scale"] == pytest.approx(by_hand, rel=1e-3)

    text = f"it made {100.0 * limits['growth_at_scale']:+,.2f} % of log growth a year on"
    assert any(text in row.text for row in rows)
    tables = [block for part in judged.list_parts() for block in part.blocks]
    assert any("growth_at_scale" in getattr(table, "columns", ()) for table in tables)


class Cautious(bt.Policy):
    """Hold twice the equity, and the equity alone in a drawdown of a tenth."""

    def leverage(self, bar, account):
        """Return 2, or 1 in a drawdown."""
        return 2.0 if account.drawdown < 0.1 else 1.0


def make_fall() -> bt.Market:
    """Return 150 days that fall by a fifth."""
    close = np.linspace(100.0, 80.0, 150) + 0.3 * np.sin(1.7 * np.arange(150))
    return kit.market_of(close, "1D", terms={"instrument": "FALL"})


def test_the_leverage_beside_the_risk_is_that_of_the_new_account_and_not_of_the_run():
    """After a fall of a fifth the account of the run decides 1, and a new one 2."""
    test = make_test(make_fall())
    result = test.run(Cautious(), compile=False)
    account = JudgedAccount("FALL", plain(test), Cautious(), result, Lack(""))
    drawn = survival.draw_paths(account, "7d", 2, seed=0, model="gbm")
    opened = survival.open_account(account, drawn, compile=False)

    first = survival.read_first_leverage(opened)
    assert first == 2.0
    assert account.leverage_today == pytest.approx(1.0, rel=0.01)
    text = survival.write_first_leverage({"first_leverage": first, "leverage_today": 1.049})
    assert text.startswith("a new account decides 2.00x at the last close; ")
    assert text.endswith("has 1.05x")


def test_a_limit_that_binds_is_named_with_the_scale_from_which_it_does():
    """Four times the equity at a venue that allows two: from half the policy on it is cut to 2."""
    market = kit.market_of(np.full(20, 100.0), "1D", terms={"instrument": "FLAT"})
    bracket = bt.Bracket(floor=0.0, cap=1e9, maintenance_rate=0.25, max_leverage=2.0)
    test = make_test(market, venue=free_venue().override(brackets=[bracket]))
    scaled = test.run(Scaled(Constant(4.0), factor=5.0), compile=False)
    limits = survival.describe_cap(test.run(Constant(4.0), compile=False), scaled, 5.0)

    assert limits["cap"] == "initial margin"
    assert (limits["cap_share"], limits["cap_leverage"]) == (1.0, pytest.approx(2.0))
    assert limits["cap_from"] == pytest.approx(0.5)
    assert survival.write_cap(limits) == (
        "initial margin cuts 100.00 % of the decisions there, to 2.00x on average, and binds from "
        "a scale of about 0.5 on"
    )

    # Where nothing cuts, nothing is said.
    free = test.run(Constant(1.0), compile=False)
    assert survival.describe_cap(free, free, 1.0)["cap"] == ""


def test_a_search_that_ends_without_an_answer_does_not_state_one(short):
    limits = short.limits.assign(
        largest_scale=19.09,
        growth_at_scale=-0.5,
        drawdown_at_scale=0.4,
        is_limited=True,
        cap="initial margin",
        cap_share=0.9,
        cap_leverage=2.0,
        cap_from=0.5,
    )
    shown = dataclasses.replace(short, limits=limits)
    (headline,) = (number for number in shown.list_numbers() if number.name == "largest_scale")
    assert headline.note.endswith("; there it made -50.00 % of log growth a year on history")
    assert str(headline) == "over 19"
    assert "no scale that was tried" in headline.note
    assert name_limits(limits)["largest_scale"].tolist() == ["over 19"]

    (part,) = (part for part in shown.list_parts() if part.key == "survival")
    texts = [block for block in part.blocks if isinstance(block, str)]
    assert texts[0].startswith("SHORT: no scale up to the end of the search is lost")
    assert "binds from a scale of about 0.5" in texts[1]
    told = survival.write_scale({**limits.loc["SHORT"]}, 2_000)
    assert told.startswith("no scale up to 19.1, the end of the search, is lost with over 1 % in")

    # A scale with a larger one that is lost stays a number.
    found = name_limits(limits.assign(largest_scale=15.123, is_limited=False))
    assert found["largest_scale"].tolist() == ["15.1"]


def test_a_constant_at_a_scale_is_the_constant_of_that_leverage():
    test = make_test(make_market(1.0, seed=2))
    result = test.run(Constant(1.0))
    account = JudgedAccount("M2", plain(test), Constant(1.0), result, Lack(""))
    scaled = account.run_scaled(2.0, compile=False)
    own = test.run(Constant(2.0))
    assert scaled.of_account("equity").tolist() == own.of_account("equity").tolist()
    assert growth.measure_growth(scaled) == growth.measure_growth(own)


def test_growth_at_a_scale_that_ruins_is_minus_infinity():
    ruined: Any = SimpleNamespace(metrics={"ruined": 1.0})
    assert growth.measure_growth(ruined) == -math.inf
    limits = {"growth_at_scale": -math.inf, "drawdown_at_scale": 1.0}
    assert survival.write_history_at_scale(limits, is_walk=False) == "there it is ruined on history"


@pytest.mark.parametrize(("made", "fell", "alone", "first"), [
    (-math.inf, 1.0, "over 19: ruined on history", "the whole walk is ruined on history"),
    (-0.8, 0.9, "over 19: fell 90.00 % on history", "the whole walk made -80.00 % of log growth"),
])  # fmt: skip
def test_a_largest_scale_that_history_does_not_survive_reads_as_no_advice(
    short, made, fell, alone, first
):
    """A headline of 19 stood above the words that history is ruined there."""
    limits = short.limits.assign(
        largest_scale=19.09,
        growth_at_scale=made,
        drawdown_at_scale=fell,
        is_limited=True,
    )
    settings = {**short.settings, "tune": 24}
    walked = dataclasses.replace(short, limits=limits, settings=settings)
    headline = walked.show_scale()
    assert str(headline) == alone
    assert headline.note.startswith(f"no size to trade: there {first}")
    assert "; of the last fold's set: no scale that was tried" in headline.note

    row = survival.write_scale({**limits.loc["SHORT"]}, 2_000, is_walk=True)
    assert row.startswith(f"no size to trade: at scale 19.1, {first}")
    assert "over 1 % in 30d, by the last fold's set" in row


def test_a_judgement_of_several_markets_says_that_their_shared_account_is_not_judged():
    account = bt.Account(max_gross_leverage=3.0)
    conditions = bt.Backtest(make_market(1.0, seed=1), account=account, venue=free_venue())
    told = describe_separation(plain(conditions), 3)
    assert told.startswith("Each of these 3 markets is judged in an account of its own")
    assert "one cross account of them all, where they share margin, is not judged" in told
    assert "max_gross_leverage is not used" in told
    assert "not used" not in describe_separation(plain(make_test(make_market(1.0, seed=1))), 2)
    assert describe_separation(plain(conditions), 1) == ""


def test_the_crashes_are_those_of_the_stress_test(calm):
    test, judged, _ = calm
    own = bt.stress(test.run(Calm()))
    falls = own.settings["falls"]
    alive = [name for name in falls if not own.table["liquidated"][name]]

    row = judged.limits.loc["M1"]
    assert row["n_survived"] == len(alive)
    assert row["survived"] == max(alive, key=falls.__getitem__)
    assert row["survived_fall"] == max(falls[name] for name in alive)


def test_a_page_says_none_where_every_crash_or_no_crash_is_survived():
    limits = pd.DataFrame(
        {
            "n_crashes": [2, 2, 0],
            "survived": ["worst", "", ""],
            "fatal": ["", "mildest", ""],
        },
        index=["all", "no", "untested"],
    )
    shown = name_none(limits)
    assert shown["fatal"].tolist() == ["none", "mildest", ""]
    assert shown["survived"].tolist() == ["worst", "none", ""]
    assert limits["fatal"].tolist() == ["", "mildest", ""]


def test_crashes_of_which_none_is_survived_are_one_sentence():
    row = {"n_crashes": 2, "survived": "", "fatal": "mildest", "fatal_fall": 0.25}
    assert write_crashes(row) == "no crash replayed is survived, not even mildest (-25.00 %)"


def test_the_costs_are_those_of_attribution_and_sensitivity(calm):
    test, judged, _ = calm
    split = test.run(Calm()).attribution()
    own = test.sensitivity(Calm(), factors=["fees", "slippage", "volatility"])
    rows = judged.costs.set_index("cost")

    assert rows.loc["fees", "given_up"] == -split.fees / split.years
    assert rows.loc["decay", "given_up"] == -split.volatility_drag / split.years
    assert rows.loc["fees", "growth_at_step"] == own.table.loc[("fees", 2.0), "growth"]
    assert rows.loc["decay", "growth_at_step"] == own.table.loc[("volatility", 1.25), "growth"]
    assert rows["growth"].tolist() == [own.base] * 4


def make_cost(given_up: float, growth: float, growth_at_step: float) -> dict[str, Any]:
    return {
        "given_up": given_up,
        "growth": growth,
        "growth_at_step": growth_at_step,
        "step": 2.0,
        "n": 362,
    }


def test_a_row_of_a_cost_names_its_growth_and_says_where_more_of_it_helped():
    row = make_cost(0.0025, -0.1873, -0.1742)
    text = write_cost("slippage", row)
    assert text == (
        "slippage took 0.25 % of log growth a year; compound growth -18.73 % a year as run, "
        "-17.42 % at 2 times the slippage (n 362); not by the slippage: other positions were held "
        "on the way"
    )
    costs = pd.DataFrame([{"cost": "slippage", **row}], index=["BTC"])
    (note,) = list_reversed(costs)
    assert note.startswith("Growth moved against more of the cost: BTC slippage. ")

    usual = make_cost(0.0025, -0.1873, -0.19)
    assert write_cost("slippage", usual).endswith("the slippage (n 362)")
    assert "other positions on the way" in note
    assert list_reversed(costs.assign(growth_at_step=-0.19)) == []

    # A higher volatility is another market: what sizes by it holds less.
    decay = costs.assign(cost="decay", step=1.25)
    assert list_reversed(decay) == [
        "BTC: growth is higher at 1.25 times the volatility, where the policy holds other sizes: "
        "its row of decay shows them too, and not the drag alone."
    ]
    assert write_cost("decay", {**row, "step": 1.25}).endswith(
        "; not the drag alone: the policy holds other sizes at that volatility"
    )

    # What is negative was added; more of it adds more, as of dividends.
    assert "decay added 15.91 % of log growth a year against leverage 1; " in write_cost(
        "decay", make_cost(-0.1591, -0.4, -0.45)
    )
    paid = write_cost("dividends", make_cost(-0.0271, 0.66, 0.7204))
    assert paid.startswith("dividends added 2.71 % of log growth a year; ")
    assert paid.endswith("72.04 % at 2 times the dividends (n 362)")


def test_the_funding_of_stocks_is_called_dividends():
    close = 100.0 + np.sin(np.arange(200.0))
    stocks = kit.market_of(close, "1D", terms={"instrument": "SPX", "sessions": True})
    for market, name in ((stocks, "dividends"), (make_fall(), "funding")):
        test = make_test(market)
        result = test.run(Constant(1.0), compile=False)
        account = JudgedAccount("A", plain(test), Constant(1.0), result, Lack(""))
        rows = dict(judge_costs(account, compile=False))
        assert [*rows] == ["fees", "slippage", name, "decay"]


def test_the_capital_at_half_the_growth_is_that_of_the_capacity(calm):
    test, judged, _ = calm
    own = test.capacity(Calm())
    row = judged.limits.loc["M1"]
    assert row["capacity"] == own.verdict
    assert row["half_growth"] == own.half_growth > 0.0


@pytest.mark.slow
def test_the_promises_are_those_of_the_run(few):
    test = make_test(make_market(1.0, seed=5), **COSTLY)
    policy = VolTarget(target=0.3, half_life=20.0)
    own = test.run(policy).promises
    judged = test.judge(policy, **few).promises.set_index("promise")

    assert judged["verdict"].tolist() == own["verdict"].tolist()
    assert judged["value"].tolist() == own["value"].tolist()


def test_the_data_of_a_judgement_begin_where_its_account_did(short):
    """Of 90 days from 2020-01-01 on; those before a start are history, which was not traded."""
    settings = {**short.settings, "starts": {"SHORT": "2020-02-01"}}
    data = dataclasses.replace(short, settings=settings).describe_data()
    assert (data["start"], data["bars"]) == ("2020-02-01", 90 - 31)
    assert short.settings["starts"] == {"SHORT": "2020-01-01"}
    assert short.describe_data()["bars"] == 90


def test_margin_tables_of_other_dates_are_said_once_a_market():
    market = make_market(1.0, seed=6)
    real = bt.Market(**market.fields() | {"instrument": "BTCUSDT"}, source="test")
    test = make_test(real, **COSTLY)
    result = test.run(Constant(1.0), compile=False)
    account = JudgedAccount("BTC", plain(test), Constant(1.0), result, Lack(""))
    (misfit,) = account.misfits
    assert misfit.startswith("BTC: the oldest margin table of binance-usdm:BTCUSDT")
    assert "but the run uses it from 2015-01-01 on" in misfit


def test_the_margin_tables_of_other_dates_stand_among_the_notices(short):
    (misfit,) = short.settings["misfits"]
    assert f"{misfit}." in short.notices
    assert misfit.startswith("SHORT: the oldest margin table")


@pytest.mark.slow
def test_the_trials_are_those_that_the_store_has_counted(tmp_path, few):
    """Five sets and the default: p of the difference by Sidak is 1 - (1 - p) ^ n."""
    test = make_test(make_market(1.0, seed=5), **COSTLY)
    study = test.tune(VolTarget, trials=8, sampler="sobol", robust=False, store=tmp_path)
    found = test.judge(VolTarget(half_life=20.0), **few, store=tmp_path)
    row = found.search.loc["M5"]
    assert row["trials"] == study.trials
    assert row["looks"] == study.looks == 1

    p_value = found.growth.loc["M5", "p_value"]
    assert row["p_adjusted"] == pytest.approx(1.0 - (1.0 - p_value) ** study.trials)

    uncounted = test.judge(VolTarget(half_life=20.0), **few)
    assert "not counted" in uncounted.summary()


# The sentence, by rule.


def find(**changes: Any) -> rule.Findings:
    usual = rule.Findings(
        markets=("A", "B"),
        ruined=(),
        chance=0.001,
        chance_market="A",
        chance_source="paths",
        timed=("A", "B"),
        fills=100,
        is_one_value=False,
        is_timing_tested=True,
        tested=("A", "B"),
        difference=0.05,
        low=0.01,
        high=0.09,
        n=1_000,
        years_needed=2.0,
        why="",
    )
    return usual._replace(**changes)


NOTHING = {"difference": math.nan, "low": math.nan, "high": math.nan, "tested": ()}
CASES = [
    ({}, rule.BETTER, ("better", "safe", "timed")),
    ({"chance": 0.0101}, rule.UNSAFE, ("better", "timed")),
    ({"chance": 0.01}, rule.BETTER, ("better", "safe", "timed")),
    ({"chance": math.nan}, rule.BETTER, ("better", "timed")),
    ({"ruined": ("A",)}, rule.UNSAFE, ("better", "timed")),
    ({"timed": ()}, rule.NOT_TIMED, ("safe",)),
    ({"timed": (), "chance": 0.5}, rule.UNSAFE, ()),
    ({"difference": 0.004, "low": 0.001}, rule.NO_EVIDENCE, ("safe", "timed")),
    ({"difference": 0.005, "low": 0.001}, rule.BETTER, ("better", "safe", "timed")),
    ({"difference": -0.004, "low": -0.006, "high": -0.001}, rule.WORSE, ("safe", "timed")),
    ({"low": -0.01}, rule.NO_EVIDENCE, ("safe", "timed")),
    ({**NOTHING, "why": "constant leverage is liquidated"}, rule.NOT_TESTED, ("safe", "timed")),
    ({**NOTHING, "timed": (), "is_timing_tested": False}, rule.NOT_TESTED, ("safe",)),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "outcome", "met"), CASES)
def test_the_first_rule_that_holds_is_the_sentence(changes, outcome, met):
    found = find(**changes)
    assert rule.decide(found) == outcome
    assert rule.list_met(found) == met

    sentence = rule.write_sentence(found, "Mine")
    assert sentence.lower().startswith(outcome)
    assert "Mine" in sentence
    assert "\n" not in sentence


def test_the_sentence_names_the_markets_that_were_compared():
    assert "on these 2 (" in rule.write_sentence(find(), "Mine")
    assert "on 1 of these 2 (" in rule.write_sentence(find(tested=("A",)), "Mine")
    assert "on A (" in rule.write_sentence(find(markets=("A",), tested=("A",)), "Mine")


def test_the_years_until_a_difference_shows_count_those_seen():
    """27 years of :func:`count_years_needed` hold the 3 that were tested."""
    sentence = write_years_needed(find(years_needed=27.0))
    assert "after about 27 years in all, those seen included, on these 2." in sentence


def test_a_loss_that_no_path_had_is_shown_by_how_many_paths_there_are(calm):
    _, judged, _ = calm
    none = judged.survival.assign(paths=0.0, history=0.0, high=0.00184, n=2_000)
    (number,) = [
        each
        for each in dataclasses.replace(judged, survival=none).list_numbers()
        if each.name == "chance"
    ]
    assert str(number) == "0 of 2,000"
    assert "at most 0.184 % by the model" in number.note

    some = judged.survival.assign(paths=0.004, history=0.0)
    (number,) = [
        each
        for each in dataclasses.replace(judged, survival=some).list_numbers()
        if each.name == "chance"
    ]
    assert str(number) == "0.4 %"
    assert number.note == "highest: M1, by paths"


def test_a_share_of_few_starts_has_its_bound_beside_it():
    """One start that was not lost says little: up to 95 % are possible."""
    row = {
        "why": "", "paths": 0.0, "low": 0.0, "high": 0.0145, "n": 252,
        "history": 0.0, "history_high": 0.95, "starts": 2.0, "starts_apart": 1.0,
    }  # fmt: skip
    told = "paths 0 % (0 % to 1.45 %, n 252); history 0 % (at most 95 %, n 2, 1 apart)"
    assert survival.write_chance(row) == told


def test_the_larger_of_paths_and_history_is_the_danger():
    rows = {
        ("A", "7d"): {"paths": 0.9, "history": 0.9},
        ("A", "30d"): {"paths": 0.01, "history": 0.03},
        ("B", "30d"): {"paths": 0.02, "history": math.nan},
    }
    assert survival.find_worst(rows) == ("A", "history", 0.03)


# What it is given, and what it gives out.


@pytest.mark.slow
def test_each_market_is_judged_in_an_account_of_its_own(few):
    one = make_market(1.0, seed=6)
    other = make_market(0.9, seed=7)
    alone = make_test(one, **COSTLY).judge(Calm(), **few)
    both = make_test(one, **COSTLY).judge(Calm(), markets=[one, other], **few)
    panel = make_test(bt.Markets({"M6": one, "M7": other}), **COSTLY).judge(Calm(), **few)

    for table in ("growth", "timing", "survival"):
        mine = getattr(alone, table).loc[["M6"]]
        pd.testing.assert_frame_equal(getattr(both, table).loc[["M6"]], mine)
        pd.testing.assert_frame_equal(getattr(panel, table).loc[["M6"]], mine)
    assert both.growth.loc["pooled", "n"] == max(both.growth["n"][:2])


class Loud(Calm):
    """The same leverage, and one constant more."""

    LEVEL = 2.0


def test_forecasts_are_scored_with_the_code_that_made_them(calm):
    test, found, _ = calm
    forecast = list_forecasts(found)[0]
    loud = type("Calm", (Loud,), {})
    combined = Capped(loud(), cap=3.0)

    assert forecast.source_hash == hash_source(Calm)
    for policy in (loud(), combined):
        name = type(policy).__name__
        check_refused(
            lambda policy=policy: forecast.find(test.market, lambda _: policy),
            f"{name} is not the code that the forecast was made with: give the file as it was",
            bt.DataError,
        )
    # Policies of the package have a version; what saved no hash is not compared.
    check_code(Constant(1.0), forecast.source_hash)
    check_code(Capped(Constant(1.0)), forecast.source_hash)
    check_code(loud(), "")


def test_a_risk_keeps_the_hash_of_its_policy(calm):
    test, _, _ = calm
    paths = bt.simulate_paths(test.market, "gbm", paths=10, horizon="1d", funding=None)
    risk = test.liquidation_risk(Calm(), paths=paths, horizons=["1d"])
    assert {forecast.source_hash for forecast in list_forecasts(risk)} == {hash_source(Calm)}


def test_rows_are_told_in_the_order_of_the_questions(calm):
    _, judged, rows = calm
    questions = [row.question for row in rows]
    assert [*dict.fromkeys(questions)] == [
        "growth", "timing", "survival", "costs", "promises", "search",
    ]  # fmt: skip

    told = next(str(row) for row in rows if row.question == "timing")
    assert told.startswith("Was anything timed? M1: ")
    assert f"{judged.timing.loc['M1', 'fills']} fills" in told


def test_the_venue_is_that_of_the_symbol_with_what_was_changed():
    market = make_market(1.0, seed=6)
    ether = bt.Market(**market.fields() | {"instrument": "ETHUSDT"}, source="test")
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT").override({"slippage.rate": 0.003})
    found, caution = choose_venue(venue, ether)
    assert found == bt.Venue.preset("binance-usdm", "ETHUSDT").override({"slippage.rate": 0.003})
    assert caution == ""

    same, caution = choose_venue(venue, market)
    assert same is venue
    assert caution == "M6 is judged by the rules of BTCUSDT, its venue lists none of it"


class Failing(bt.Policy):
    """Raise where prices are over 100 times what they were."""

    def observe(self, market):
        """Return nothing, or fail."""
        if market.close.max() > 1e4:
            raise ValueError("too high")
        return {}

    def leverage(self, bar, account):
        """Return more after a rise."""
        return 2.0 if bar.close > bar.open else 1.0


@pytest.mark.slow
def test_a_market_that_fails_is_a_row_with_its_cause():
    good = make_market(0.5, seed=8)
    fields = good.fields()
    names = ["open", "high", "low", "close"]
    marks = [f"mark_{name}" for name in names]
    raised = {name: 1e3 * fields[name] for name in (*names, *marks)}
    bad = bt.Market(**fields | raised | {"instrument": "BAD"}, source="test")

    found = make_test(good, **COSTLY).judge(
        Failing(), markets={"GOOD": good, "BAD": bad}, draws=FEW
    )

    assert set(found.faults) == {"BAD"}
    assert "too high" in found.growth.loc["BAD", "why"]
    assert any("BAD failed" in each for each in found.notices)
    assert found.outcome == rule.NO_EVIDENCE
    assert "on 1 of these 2" in found.verdict

    # What is forecast is of an instrument, whatever its market is called.
    assert {forecast.instrument for forecast in list_forecasts(found)} == {"M8"}

    check_refused(lambda: make_test(bad, **COSTLY).judge(Failing()), "too high", bt.PolicyError)


def test_policies_of_options_are_neither_compared_nor_timed(monkeypatch):
    def leave_out(account):
        raise bt.ParameterError("left out, as plain Python takes half a minute")

    monkeypatch.setattr(survival, "judge_crashes", leave_out)
    account = bt.Account(capital=100_000.0, requirement="deribit-standard")
    test = bt.Backtest(make_markets(bars=72), venue=make_venue(), account=account)
    found = test.judge(TailHedge(Constant(1.0)))

    assert found.growth.loc["BTC", "why"] == "options have no leverage of their own"
    assert found.timing.loc["BTC", "why"] == "options have no leverage that is shifted in time"
    assert found.timing.loc["BTC", "fills"] >= 10
    assert "no prices of options" in found.survival.loc["BTC", "why"].iloc[0]
    assert found.costs["growth_at_step"].notna().all()
    assert found.outcome == rule.NOT_TESTED
    assert found.met == ()


REFUSALS = [
    ({"tune": 2}, "tune must be"),
    ({"paths": 100}, "paths must be"),
    ({"draws": 1}, "draws must be"),
    ({"seed": -1}, "seed must be"),
    ({"markets": {}}, "markets must be one or more"),
    ({"markets": [1.0]}, "must be a Market"),
    ({"markets": [make_market(1.0, seed=6)] * 2}, "markets must be of different instruments"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSALS)
def test_bad_arguments_are_refused_in_one_sentence(changes, words):
    test = make_test(make_market(1.0, seed=6), **COSTLY)
    check_refused(lambda: test.judge(Calm(), **changes), words)


def test_requirements_that_are_none_are_refused(calm):
    _, judged, _ = calm
    assert judged.list_unmet(["timed"]) == []
    check_refused(lambda: judged.list_unmet(["timd"]), "did you mean 'timed'")


@pytest.fixture(scope="module")
def walked() -> tuple[bt.Backtest, bt.WalkForward]:
    """Return a test and its walk, which the judgement of a search is held to."""
    test = make_test(make_market(2.0, seed=5), **COSTLY)
    return test, test.walk_forward(Sized(), trials=4)


@pytest.mark.slow
def test_a_walk_is_judged_on_its_test_spans_alone(walked, tmp_path, few):
    test, walk = walked
    found = test.judge(Sized(), tune=4, **few, store=tmp_path)

    assert found.growth.loc["M5", "n"] <= len(walk.result.returns)
    assert found.growth.loc["M5", "max_drawdown"] == walk.result.metrics["max_drawdown"]
    assert "only out of sample" in found.details

    # The walk is read from the store, whose table of folds has the sizes of all spans.
    again = test.judge(Sized(), tune=4, **few, store=tmp_path)
    pd.testing.assert_frame_equal(again.costs, found.costs)


@pytest.mark.slow
def test_costs_of_a_walk_are_those_of_the_account_whose_policy_changed(walked, few):
    """Growth as run is that of the walk; more costs leave less; no set alone has that growth."""
    test, walk = walked
    sizes = walk.folds["size"]
    assert sizes.nunique() > 1

    costs = test.judge(Sized(), tune=4, **few).costs.set_index("cost")
    growth = walk.result.metrics["cagr"]
    assert (costs["growth"] == growth).all()
    assert costs.loc["fees", "growth_at_step"] < growth

    begun = test.replace(start=walk.folds["test_start"].iloc[0])
    for size in sizes.unique():
        assert begun.run(Sized(size=size)).metrics["cagr"] != growth


def test_the_benchmark_of_a_constant_is_its_own_account():
    result = make_test(make_market(1.0, seed=2)).run(Constant(2.0))
    assert find_benchmark(result).result is result
    moving = make_test(make_market(1.0, seed=2)).run(Calm())
    assert find_benchmark(moving).result is not moving


# The command line.


@pytest.mark.slow
def test_the_command_prints_rows_the_sentence_and_its_exit_code(tmp_path, capsys):
    folder = tmp_path / "m9"
    make_market(1.0, seed=9).save(folder)
    policy = tmp_path / "mine.py"
    policy.write_text(
        "import backtest as bt\n\nclass Mine(bt.Policy):\n    '''Hold more after a rise.'''\n\n"
        "    def leverage(self, bar, account):\n"
        "        return 2.0 if bar.close > bar.open else 1.0\n"
    )

    given = ["judge", f"{policy}:Mine", "--data", folder, "--no-save"]
    code, out, told = call(capsys, *given, "--require", "timed,safe")
    assert code == 0, told
    assert "Was anything timed? M9:" in told
    assert "pooled" not in told + out
    assert "No evidence of a difference" in out

    code, out, told = call(capsys, *given, "--require", "better", "--json")
    data = json.loads(out)
    assert code == (0 if "better" in data["met"] else 1)
    assert data["next"].startswith("Next: ")
    assert {row["market"] for row in data["growth"]} == {"M9", "pooled"}

    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "bars.feather").write_bytes(b"no table")
    code, out, told = call(capsys, *given, "--data", bad, "--draws", "99")
    assert code == 2
    assert f"Better than constant? {bad}: failed: " in told
    assert "on 1 of these 2" in out

    for words in ("best", "", "better,"):
        code, _, told = call(capsys, *given, "--require", words)
        assert code == 2
        assert "must be one of better, safe, timed" in told
        assert told.count("\n") == 1


@pytest.mark.slow
def test_a_judgement_is_recorded_and_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_market(1.0, seed=9).save(tmp_path / "m9")
    (tmp_path / "calm.toml").write_text(
        "[data]\npath = 'm9'\n[policy]\nname = 'vol-target'\n"
        "[policy.settings]\nhalf_life = 20.0\n[judge]\ndraws = 199\n"
    )

    code, out, told = call(capsys, "regress", "record", "calm.toml", "--judge")
    assert code == 0, told
    assert "calm-judged" in out, told
    code, out, told = call(capsys, "regress", "check")
    assert code == 0, told
    assert "calm-judged" in out, told

    kept = json.loads((tmp_path / "baselines" / "calm-judged.json").read_text())
    assert "judged_difference pooled" in kept["metrics"]
    assert kept["facts"]["judged"]["outcome"] in rule.OUTCOMES

    code, _, told = call(capsys, "regress", "record", "calm.toml", "--judge", "--walk")
    assert code == 2


# Truth: what it finds where the truth is known.


def judge_growth_alone(policy: bt.Policy, markets: list[bt.Market]) -> str:
    """Return what the rule says of the difference, of accounts that are safe and timed."""
    found = {}
    for market in markets:
        test = make_test(market)
        account = JudgedAccount(market.instrument, test, policy, test.run(policy), Lack(""))
        daily = growth.measure_daily(account, hold_at_equal_risk(account.result))
        found[market.instrument] = daily

    pooled, _ = growth.pool_growth(found, 999, 0)

    names = tuple(found)
    judged = find(markets=names, tested=names, timed=names)
    measured = {name: pooled[name] for name in ("difference", "low", "high", "n", "years_needed")}
    return rule.decide(judged._replace(**measured))


@pytest.mark.parametrize("n_seeds", [1, *slow([10])])
def test_a_policy_that_knows_calm_is_better_on_three_markets_of_eight_years(n_seeds):
    said = []
    for k in range(n_seeds):
        markets = [make_market(8.0, seed=100 + 3 * k + j) for j in range(3)]
        said.append(judge_growth_alone(Calm(), markets))
    assert said.count(rule.BETTER) >= 0.8 * n_seeds


@pytest.mark.parametrize("n_seeds", [1, *slow([40])])
def test_noise_is_better_in_a_tenth_of_the_seeds_at_most(n_seeds):
    said = []
    for seed in range(n_seeds):
        markets = [make_market(3.0, seed=300 + 3 * seed + j, drift=0.0) for j in range(3)]
        said.append(judge_growth_alone(Blind(), markets))
    assert said.count(rule.BETTER) <= 0.1 * n_seeds
