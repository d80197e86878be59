"""Comparisons of results: differences, several instruments, equal risk, and what is refused."""

import dataclasses
import json
import math
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine import run_again
from backtest.report.write import build_head
from backtest.results import STATISTICS, load_saved
from backtest.search.comparison import TITLES
from backtest.search.equal_risk import (
    MOST_RUNS,
    hold_at_equal_risk,
    read_decisions,
    scale_to_volatility,
    set_up_constant,
)
from backtest.strategies import Constant, Cppi, VolTarget
from tests.kit import bars_market, check_refused, compare_policies, free_venue

MARKET = bt.Market.sample(bars=24 * 60).resample("4h")
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(capital=10_000.0, max_leverage=10.0)
POLICIES = {"target": VolTarget(), "cppi": Cppi(), "one": Constant(leverage=1.0)}
TERMS_OF_ONE = {"venue": VENUE, "account": ACCOUNT}
ONE = {"one": Constant()}
MARKETS = bt.Markets({"A": bt.Market.sample(bars=480), "B": bt.Market.sample(bars=480, seed=1)})
TERMS = {"venue": VENUE, "account": bt.Account(), "sampling": "12h"}
LEVERS = {"one": Constant(leverage=1), "two": Constant(leverage=2), "target": VolTarget()}


def compare(policies=POLICIES, market=MARKET, **settings):
    settings = {**TERMS_OF_ONE, "draws": 199, "equal_risk": False, **settings}
    return compare_policies(market, policies, **settings)


def run(policy, market=MARKET, **settings):
    return bt.run(market, policy, **{**TERMS_OF_ONE, **settings})


def pick(rows, policy, measure="log_growth"):
    """Return the one row of a policy and a measure."""
    picked = rows[(rows["policy"] == policy) & (rows["measure"] == measure)]
    assert len(picked) == 1
    return picked.iloc[0]


@pytest.fixture(scope="module")
def plain():
    return compare()


def crash(*falls):
    """Return two months of hours in which the price falls between two bars, by (bar, share)."""
    steps = 0.005 * np.random.default_rng(0).standard_normal(1_440)
    for bar, share in falls:
        steps[bar] = math.log(1.0 - share)

    close = 100.0 * np.exp(np.cumsum(steps))
    opens = np.concatenate([close[:1], close[:-1]])

    for bar, _ in falls:
        opens[bar] = close[bar]
    return bars_market(opens, close)


HALF = crash((700, 0.5))
"""Half of the price is lost over night: whoever has 3x is ruined."""


def test_a_row_is_the_run_of_its_policy_to_the_bit(plain):
    assert plain.names == ("target", "cppi", "one")

    for name, policy in POLICIES.items():
        result = run(policy)
        measures = dict(plain.table.loc[name, list(result.metrics)])
        assert measures == pytest.approx(dict(result.metrics), rel=0, abs=0, nan_ok=True)
        assert plain.results[name].manifest["id"] == result.manifest["id"]

        growth = math.log1p(result.metrics["total_return"]) / (60 / 365)
        assert plain.table.loc[name, "log_growth"] == pytest.approx(growth, rel=1e-9)


def test_results_of_earlier_runs_are_taken_as_they_are(plain, tmp_path):
    results = {name: run(policy) for name, policy in POLICIES.items()}
    results["cppi"] = load_saved(results["cppi"].save(tmp_path))
    comparison = compare(results)

    assert comparison.results["one"] is results["one"]
    pd.testing.assert_frame_equal(comparison.differences, plain.differences)


@pytest.mark.parametrize(("changes", "named"), [
    ({"market": MARKET.prefix(180)}, "market data, end"),
    ({"account": bt.Account(capital=9_000.0, max_leverage=10.0)}, "account.capital"),
    ({"venue": free_venue()}, "venue.fees.taker"),
    ({"signal": -1.0}, "signal"),
    ({"sampling": "12h"}, "sampling"),
    ({"start": "2023-01-05"}, "start"),
    ({"overlay": Constant(leverage=0.5)}, "overlay"),
    ({"market": bt.Markets(dict.fromkeys("AB", MARKET))}, "market data"),
])  # fmt: skip
def test_a_result_under_other_terms_is_refused_and_says_which(changes, named):
    other = run(Constant(), **changes)
    with pytest.raises(bt.ParameterError) as refusal:
        compare({"one": Constant(), "other": other})

    assert "'other'" in str(refusal.value)
    for name in named.split(", "):
        assert name in str(refusal.value)


@pytest.mark.parametrize("cash", [0.0, 0.08])
def test_differences_are_those_of_the_table(cash):
    venue = free_venue(interest_on="balance", cash_rate=cash)
    comparison = compare(venue=venue, account=bt.Account())
    table = comparison.table

    for measure in TITLES:
        for name in ("cppi", "one"):
            row = pick(comparison.differences, name, measure)
            difference = table.loc[name, measure] - table.loc["target", measure]
            assert row["difference"] == pytest.approx(difference, rel=1e-9, abs=1e-12)
            if measure in STATISTICS:
                assert row["low"] <= row["difference"] <= row["high"]
            else:
                assert (row["basis"], row["distinguishable"]) == ("no test", False)
                assert np.isnan([row["low"], row["high"], row["p_value"]]).all()


def test_another_baseline_turns_the_signs_and_the_family(plain):
    turned = compare(baseline="one")
    assert (plain.baseline, turned.baseline) == ("target", "one")
    assert set(turned.differences["against"]) == {"one"}
    assert len(turned.differences) == 4 * 2

    for measure in TITLES:
        forth = pick(plain.differences, "one", measure)["difference"]
        back = pick(turned.differences, "target", measure)["difference"]
        assert back == -forth

    tested = plain.differences[plain.differences["basis"] == "test"]
    assert (tested["p_holm"] >= tested["p_value"]).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_other_ones(plain):
    text = json.dumps(plain.to_dict(), sort_keys=True)
    assert json.dumps(compare().to_dict(), sort_keys=True) == text

    other = compare(seed=1)
    assert other.manifest["id"] != plain.manifest["id"]
    assert (other.differences["difference"] == plain.differences["difference"]).all()
    assert (other.differences["low"] != plain.differences["low"]).any()


def test_too_few_returns_give_differences_without_intervals():
    with pytest.warns(UserWarning, match="20 returns are too few"):
        comparison = compare(market=MARKET.prefix(6 * 20))

    assert set(comparison.differences["basis"]) == {"too few returns"}
    assert comparison.differences["low"].isna().all()
    text = str(comparison)
    assert "±" not in text
    assert "Yearly figures are extrapolated from 20 days." in " ".join(text.split())


@pytest.mark.slow
def test_a_ruined_account_stands_below_all_without_a_test():
    policies = {
        "calm": Constant(leverage=0.5), "three": Constant(leverage=3.0),
        "half": Constant(leverage=0.6),
    }  # fmt: skip
    comparison = compare(policies, HALF, venue=free_venue(), account=bt.Account())
    assert comparison.ruined == ("three",)
    assert comparison.order[-1] == "three"
    assert comparison.table.loc["three", "log_growth"] == -math.inf
    assert "three was RUINED" in str(comparison)

    growth = pick(comparison.differences, "three")
    assert growth[["difference", "low", "high"]].tolist() == [-math.inf] * 3
    assert (growth["basis"], growth["distinguishable"]) == ("ruin", True)
    assert math.isnan(growth["p_value"])

    sharpe = pick(comparison.differences, "three", "sharpe")
    assert (sharpe["basis"], sharpe["distinguishable"]) == ("ruin", False)
    assert math.isnan(sharpe["difference"])

    # ruin is no test, and does not count among them
    tested = pick(comparison.differences, "half")
    assert tested["p_holm"] == tested["p_value"]


def test_of_two_lost_accounts_nothing_is_compared(tmp_path):
    """Two halvings leave .05^2 and .075^2 of the money: neither is ruined, nor is one higher."""
    policies = {
        "a": Constant(leverage=1.9), "b": Constant(leverage=1.85),
        "calm": Constant(leverage=0.5),
    }  # fmt: skip
    market = crash((300, 0.5), (700, 0.5))
    comparison = compare(policies, market, venue=free_venue(), account=bt.Account())
    assert comparison.lost == ("a", "b")
    assert not comparison.ruined

    row = pick(comparison.differences, "b")
    assert (row["basis"], row["distinguishable"]) == ("both lost", False)
    assert np.isnan([row["difference"], row["low"], row["high"], row["p_value"]]).all()
    assert pick(comparison.differences, "calm")["basis"] == "test"

    text = comparison.summary()
    assert "Nothing is compared between lost accounts: a, b" in text
    assert text.count("both lost") == 4
    assert "b (" not in text

    markdown = comparison.report(tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| b | both lost | both lost | both lost | both lost |" in markdown
    notices = build_head(comparison).notices
    assert "Nothing is compared between lost accounts: a, b." in notices


def load(tmp_path):
    return bt.Result.load(run(Constant(leverage=3.0)).save(tmp_path))


def walk(_):
    """A walk was run again with the parameters of its last span alone, without a word."""
    result = run(Constant(leverage=3.0))
    policy = {**result.manifest["policy"], "switches": []}
    return dataclasses.replace(result, manifest={**result.manifest, "policy": policy})


@pytest.mark.parametrize(("call", "words"), [
    (lambda _: compare(ONE), "results must be two or more"),
    (lambda _: compare(baseline="tarket"), "did you mean 'target'"),
    (lambda _: compare(confidence=0.999), "draws must be 999 or more"),
    (lambda _: compare(draws=10), "draws must be 99"),
    (lambda _: bt.compare({"a": run(Constant()), "b": Constant()}), "to a Result each"),
])  # fmt: skip
def test_what_is_refused_says_why(call, words, tmp_path):
    check_refused(lambda: call(tmp_path), words, bt.ParameterError)


@pytest.mark.slow
def test_equal_risk_leaves_volatilities_equal(plain):
    """To a thousandth: lots of 0.001 BTC are some 20 of 10,000 money."""
    scaled = compare(equal_risk=True)
    calmest = plain.table["volatility"].idxmin()
    target = plain.table["volatility"].min()

    np.testing.assert_allclose(scaled.table["volatility"], target, rtol=1e-3)
    np.testing.assert_array_equal(scaled.table["unscaled_volatility"], plain.table["volatility"])
    assert scaled.table["scale"].max() == 1.0
    assert (scaled.table["scale"] > 0.0).all()
    assert scaled.table.loc[calmest, "fees"] == plain.table.loc[calmest, "fees"]
    assert "known only afterwards" in " ".join(scaled.notices)


@pytest.mark.slow
def test_constant_leverage_at_equal_risk_of_a_constant_leverage_is_itself():
    """At half of the volatility it is half of the leverage; a loaded one cannot be held."""
    result = run(Constant(leverage=2.0), MARKET.prefix(120))
    same = hold_at_equal_risk(result)
    assert same.scale == pytest.approx(2.0, rel=1e-3)
    assert same.result.returns.to_numpy() == pytest.approx(result.returns.to_numpy(), rel=1e-2)

    half = hold_at_equal_risk(result, volatility=0.5 * result.metrics["volatility"])
    assert half.scale == pytest.approx(1.0, rel=0.05)
    assert half.distance < 5e-3
    assert half.result.metrics["fees"] > 0.0

    loaded = hold_at_equal_risk(dataclasses.replace(result, setup=None))
    assert loaded.why == "a loaded result cannot be run again"


def search_jumping(jump, liquidations=0.0):
    """Search the scale of half the volatility where it jumps, and return it with the scales tried.

    Volatility is in proportion to the scale, but is off by ``jump`` to either side at two of three
    scales, as with a no-trade band, where another bar trades as the leverage changes.
    """
    tried = []

    def run_at(scale, nearest=None, band_factor=1.0):
        place = round(1000.0 * scale)
        side = 1.0 if place % 2 else -1.0
        off = 0.0 if place % 3 == 0 else side * jump
        metrics = {"volatility": 0.6 * scale * (1.0 + off), "ruined": 0.0}
        metrics["liquidations"] = liquidations
        tried.append(scale)
        return SimpleNamespace(metrics=metrics)

    found = scale_to_volatility(run_at(1.0), 0.3, most=math.inf, run_at=run_at)
    return found, len(tried) - 1


def test_the_search_for_equal_risk_finds_a_volatility_that_jumps_with_the_leverage():
    """A constant leverage of a band had the volatility, and was said not to be found."""
    found, n_runs = search_jumping(jump=0.03)
    assert found.distance <= 0.01
    assert MOST_RUNS < n_runs <= 4 * MOST_RUNS
    assert search_jumping(jump=0.03)[0].scale == found.scale

    liquidated, n_runs = search_jumping(jump=0.03, liquidations=1.0)
    assert liquidated.distance > 0.01
    assert n_runs == MOST_RUNS


class Late(bt.Policy):
    """Decide from bar 40 on, and trade inside its band."""

    def observe(self, market):
        bars = np.arange(market.n_bars)
        swing = 1.0 + 0.5 * np.sin(bars / 9.0)
        return {"size": np.where(bars < 40, np.nan, swing)}

    def leverage(self, bar, account):
        return bar.size


def test_constant_leverage_at_equal_risk_decides_and_trades_as_the_policy_may():
    """It is flat until the policy decided, at the close of bar 40, and has the policy's band in
    proportion: 0.25 times its own mean leverage over the policy's."""
    market = MARKET.prefix(240)
    result = run(Late(), market, account=bt.Account(band=0.25), sampling="4h", compile=False)
    held = hold_at_equal_risk(result, exact=0.01)
    assert held.distance <= 0.01

    bars = held.result.bars
    assert (bars["leverage"].iloc[:41] == 0.0).all()
    assert bars["leverage"].iloc[41] != 0.0

    mean = bars["leverage"].iloc[40:].mean()
    share = mean / result.bars["leverage"].iloc[40:].mean()
    distance = np.abs(bars["leverage"].iloc[41:] - held.scale)
    assert distance.max() <= 0.25 * share * 1.2  # a bar's move beyond the band
    assert held.result.metrics["fills"] < 0.2 * len(bars)


def test_constant_leverage_opens_less_than_its_band_and_follows_a_signal_that_turns():
    """A band of 0.25 in the account would keep a flat account flat at 0.1x, and let 0.1x stand
    when the signal turns."""
    market = MARKET.prefix(120)
    signal = np.where(np.arange(market.n_bars) < 60, 0.1, -0.1)
    result = run(Constant(1.0), market, account=bt.Account(), signal=signal, compile=False)

    decided = read_decisions(result)
    banded = result.setup._replace(account=bt.Account(band=0.25))
    setup = set_up_constant(banded, 1.0, decided, band_share=1.0)
    leverage = run_again(result, setup).bars["leverage"].to_numpy()
    assert leverage[2] == pytest.approx(0.1, abs=0.01)
    assert leverage[62] == pytest.approx(-0.1, abs=0.01)


class Fixed(bt.Policy):
    """Hold one leverage; the page of the policy ``Constant`` has no row of a constant one."""

    level: Annotated[float, bt.Range(0, 200)] = 1.0

    def leverage(self, bar, account):
        return self.level


@pytest.mark.parametrize(("policy", "why"), [
    (Fixed(level=0.0), "the account held nothing"),
    (Fixed(level=90.0), "the account was ruined"),
])  # fmt: skip
def test_an_account_without_constant_leverage_says_why(policy, why):
    terms = {"account": bt.Account(max_leverage=200.0), "compile": False}
    result = run(policy, MARKET.prefix(120), **terms)

    check_refused(lambda: bt.equal_risk(result), why, bt.ParameterError)
    assert why in " ".join(result.summary().split())


def test_a_verdict_names_buy_and_hold_and_the_baseline_where_they_grew_more(plain):
    best = plain.order[0]
    yearly = float(plain.table.loc[best, "cagr"])
    growth = float((1.0 + plain.returns[best]).prod()) - 1.0  # the days are too few for a year

    market = {**plain.manifest["market"], "cagr": yearly + 0.1, "total_return": growth + 0.1}
    manifest = {**plain.manifest, "market": market}
    details = dataclasses.replace(plain, manifest=manifest).details
    assert f"Buy and hold grew by {100.0 * (growth + 0.1):.2f} % in " in details
    assert f"more than {best}'s {100.0 * growth:.2f} % in " in details

    market = {**market, "cagr": yearly - 0.1}
    manifest = {**plain.manifest, "market": market, "baseline": best}
    details = dataclasses.replace(plain, manifest=manifest).details
    assert details.endswith(f"The baseline {best} grew most.")


def test_the_return_of_buy_and_hold_is_that_of_the_mark_price(plain):
    close = MARKET.mark_close
    assert plain.manifest["market"]["total_return"] == pytest.approx(close[-1] / close[0] - 1.0)


def test_an_account_that_holds_nothing_cannot_be_scaled():
    levers = {"none": Constant(leverage=0.0), "one": Constant(), "two": Constant(leverage=2.0)}
    with pytest.warns(UserWarning, match="its risk is not equal"):
        comparison = compare(levers, equal_risk=True)
    none, one, two = comparison.table["volatility"][[*levers]]
    assert none == 0.0
    assert two == pytest.approx(one, rel=2e-3)
    assert pick(comparison.differences, "one", "sharpe")["basis"] == "undefined"

    still = compare({"a": Constant(leverage=0.0), "b": Constant(leverage=0.0)}, equal_risk=True)
    assert not still.manifest["equal_risk"]


@pytest.mark.parametrize(("make", "why"), [
    (load, "was loaded"),
    (walk, "changed its parameters on the way"),
], ids=["loaded", "walk"])  # fmt: skip
def test_a_result_that_cannot_be_run_again_is_compared_as_measured(make, why, tmp_path):
    other = make(tmp_path)
    calm = run(Constant(leverage=0.1))
    with pytest.warns(UserWarning, match=f"three {why}, and is compared as measured"):
        comparison = bt.compare({"calm": calm, "three": other}, draws=199)

    assert comparison.table.loc["three", "volatility"] == other.metrics["volatility"]
    assert comparison.table.loc["three", "scale"] == 1.0
    assert "at volatilities of" in comparison.verdict


def test_accounts_are_compared_at_equal_risk_by_default():
    """Constants of 1x and 2x differ by their costs alone then, and the sentence says at what."""
    market = MARKET.prefix(120)
    terms = {"venue": free_venue(), "account": ACCOUNT, "sampling": "4h", "compile": False}
    single = bt.run(market, Constant(leverage=1.0), **terms)
    double = bt.run(market, Constant(leverage=2.0), **terms)
    comparison = bt.compare({"one": single, "two": double}, draws=199)

    one, two = comparison.table["volatility"]
    assert two == pytest.approx(one, rel=1e-3)
    assert comparison.table.loc["two", "scale"] == pytest.approx(0.5, rel=0.02)
    assert f"at a volatility of {100.0 * one:.2f} % a year" in comparison.verdict


class SignalVol(bt.Policy):
    """Hold less of an instrument with a larger weight, so that a scaled signal would be undone."""

    def observe(self, market):
        return {"size": np.abs(np.broadcast_to(market.signal, market.n_bars))}

    def leverage(self, bar, account):
        return 1.0 / bar.size


@pytest.mark.slow
def test_equal_risk_scales_the_positions_of_several():
    """Volatilities meet; neither policies nor the overlay see the scale."""
    markets = MARKETS.prefix(240)
    policies = {"calm": Constant(leverage=1), "bold": SignalVol()}
    terms = {**TERMS, "sampling": "4h", "draws": 99, "confidence": 0.9, "equal_risk": True}
    overlay = VolTarget(target=0.4, half_life=12)
    signal = {"A": 0.5, "B": 0.25}
    table = compare_policies(markets, policies, **terms, overlay=overlay, signal=signal).table
    assert table.loc["bold", "volatility"] == pytest.approx(
        table.loc["calm", "volatility"], rel=1e-3
    )
    assert table.loc["calm", "scale"] == 1.0
    assert 0.2 < table.loc["bold", "scale"] < 0.9

    # One of several is one alone.
    of_one = bt.Markets({"A": markets["A"]})
    single = compare_policies(markets["A"], policies, **terms, signal=0.5, overlay=None)
    many = compare_policies(of_one, policies, **terms, signal={"A": 0.5}, overlay=None)
    np.testing.assert_array_equal(single.table["scale"], many.table["scale"])


def test_accounts_are_marked_that_hang_on_the_way_inside_bars():
    account = bt.Account(take_profit=0.002, stop_loss=0.002)
    terms = {**TERMS, "account": account}
    results = {name: bt.run(MARKETS, policy, **terms) for name, policy in LEVERS.items()}
    counts = {name: result.metrics["both_reached"] for name, result in results.items()}
    assert counts["one"] > 0

    notices = bt.compare(results, draws=99).notices
    (notice,) = [text for text in notices if text.startswith("Bars in which a take-profit")]
    assert f"one {counts['one']:,.0f}, two {counts['two']:,.0f}" in notice
    assert not any("hedge" in text for text in notices)
