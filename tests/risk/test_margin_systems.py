"""Margin systems: closed forms of what rules tie up, cover and need; accounts by hand."""

import math
import re
import shlex
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

import backtest as bt
from backtest.cli import risks
from backtest.risk import margin_calibration, margin_levels, margin_systems
from backtest.venue.margin_rules import (
    Buffer,
    Hours,
    OpenInterest,
    OpenInterestTier,
    Volatility,
)
from tests.kit import call, check_refused
from tests.scenes import bracket, venue_of
from tests.venue.test_margin_by_rule import days_of

Q = NormalDist().inv_cdf(0.99)
VENUE = venue_of(brackets=[bracket(leverage=100.0, rate=0.001)])
Normal = partial(Volatility, shape="normal")


def compare(market, rules, venue=VENUE, **more):
    test = bt.Backtest(market, venue=venue, account=bt.Account())
    return test.compare_margin(rules, **{"paths": 0, "accounts": 10} | more)


def swing(size, days):
    """Return daily returns of one size with alternating signs."""
    return size * np.where(np.arange(days) % 2, -1.0, 1.0)


def test_constant_volatility_ties_up_a_constant_margin():
    found = compare(days_of(swing(0.02, 60)), {"flat": None, "ewma": Normal(days=1.0)})
    row = found.table.loc["ewma"]
    assert row["mean"] == pytest.approx(Q * 0.02, rel=1e-12)
    assert row["peak_to_trough"] == pytest.approx(1.0, rel=1e-12)
    assert row["rise_30d"] == pytest.approx(0.0, abs=1e-12)
    assert found.table.loc["flat", "peak"] == 0.001
    breaches = found.coverage["breaches"]
    # A maintenance margin is not meant to cover a day's loss, and is not tested against it.
    assert [*breaches.index.unique("rule")] == ["ewma"]
    assert breaches["ewma", "long"] == breaches["ewma", "short"] == 0


def test_two_states_of_volatility_rise_by_their_closed_form():
    """After n days of a volatility r times the old one: m grows by sqrt(l^n + (1 - l^n) r^2)."""
    decay, r = 0.7, 3.0
    market = days_of([*swing(0.01, 120), *swing(0.03, 120)])
    row = compare(market, {"ewma": Normal(lambda_=decay, days=1.0)}).table.loc["ewma"]
    for n in (1, 5, 30):
        wanted = math.sqrt(decay**n + (1.0 - decay**n) * r * r)
        assert row[f"rise_{n}d"] == pytest.approx(wanted - 1.0, rel=1e-9)
        assert row[f"points_{n}d"] == pytest.approx(Q * 0.01 * (wanted - 1.0), rel=1e-9)
    assert row["peak_to_trough"] == pytest.approx(r, rel=1e-9)


def test_what_a_buffer_costs_and_spares():
    market = days_of([*swing(0.03, 60), *swing(0.01, 60), *swing(0.012, 60)])
    inner = Volatility(lambda_=0.7, days=1.0)
    table = compare(market, {"plain": inner, "buffer": Buffer(inner, 0.25)}).table
    assert table.loc["plain", "cost"] == 0.0
    assert 0.0 < table.loc["buffer", "cost"] <= 0.25
    assert table.loc["buffer", "peak_to_trough"] < table.loc["plain", "peak_to_trough"]


def test_hours_cost_what_they_tie_up_in_force():
    """Twice the margin from 22 to 6 o'clock costs a third more; closes are all at night."""
    market = days_of(swing(0.02, 30), per_day=24)
    inner = Volatility(days=1.0)
    table = compare(market, {"plain": inner, "nights": Hours(inner, weekend=1.0, night=2.0)}).table
    assert table.loc["nights", "cost"] == pytest.approx(1.0 / 3.0, rel=1e-12)
    assert table.loc["nights", "peak_to_trough"] == pytest.approx(2.0, rel=1e-12)


def test_a_hand_made_row_of_margins():
    row = np.array([0.1, 0.2, 0.15, 0.3])
    found = margin_systems.measure_procyclicality(row, row)
    assert found["mean"] == pytest.approx(0.1875)
    assert found["peak_to_trough"] == pytest.approx(3.0)
    assert found["rise_1d"] == pytest.approx(1.0)
    assert found["points_1d"] == pytest.approx(0.15)
    assert math.isnan(found["rise_5d"])


def test_coverage_counts_periods_that_do_not_overlap():
    closes = np.array([100.0, 90.0, 100.0, 120.0, 120.0, 100.0, 99.0])
    long, short = margin_systems.measure_coverage(np.full(7, 0.1), closes, 2, 0.99)
    assert (long["periods"], long["breaches"], short["breaches"]) == (3, 1, 1)
    assert math.isnan(long["kupiec_p"])

    # Sixty falls of 50 % are over a margin of 10 %, where 1.2 of 120 are expected.
    closes = np.tile([100.0, 50.0], 61)[:121]
    long, _ = margin_systems.measure_coverage(np.full(121, 0.1), closes, 1, 0.99)
    assert (long["breaches"], long["expected"]) == (60, pytest.approx(1.2))
    assert long["kupiec_p"] < 1e-12

    closes = 100.0 * np.exp(np.cumsum(swing(0.2, 2001)))
    long, _ = margin_systems.measure_coverage(np.full(2001, 0.19), closes, 1, 0.5)
    assert (long["breaches"], long["expected"]) == (0, 1000.0)
    assert long["kupiec_p"] < 1e-12


def hand(*bars, shares=0.5, sides=(1.0,), margin=0.1):
    """Run accounts that begin with bars of open, high, low and close."""
    table = np.array(bars, dtype=np.float64).T[:, :, None]
    time = np.arange(len(bars)) * 3_600_000_000_000
    n = len(sides)
    accounts = np.zeros(n, np.int64), np.array(sides), np.full(n, shares)
    wide = np.ones((len(bars), 1))
    forced = {"fee": 0.01, "slippage": 0.02, "mode": "close"}
    venue = venue_of(brackets=[bracket(leverage=40.0, rate=0.01)], liquidation=forced)
    prices = margin_levels.Prices(time, *table)
    drawn = margin_systems.DrawnAccounts(*accounts)
    return margin_systems.simulate_accounts(prices, margin * wide, venue, drawn)


def test_an_account_fails_at_the_worst_price_of_a_bar_by_hand():
    """Leverage 4^.5 = 2: backing .5; at 60: equity .1, margin .06; called, since .08 is over it."""
    calm = (100.0, 100.0, 65.0, 70.0)  # equity .15 * .8 = .12 over .065
    assert hand((100, 100, 90, 100), calm)["calls"] == 0.0
    near = hand((100, 100, 90, 100), (100.0, 100.0, 56.0, 70.0))  # .06 * .8 = .048 under .056
    years = 2 / 365 / 24
    assert near["calls"] == pytest.approx(1.0 / years)
    assert near["liquidations"] == 0.0
    gone = hand((100, 100, 90, 100), (100.0, 100.0, 30.0, 70.0))
    missing = 0.02 * 0.3 + 0.2  # equity .5 - .7 = -.2, and slippage of .006
    assert gone["liquidations"] == pytest.approx(1.0 / years)
    assert gone["bad_debt"] == pytest.approx(missing / years)
    assert gone["fund_used"] == pytest.approx(missing)


def test_a_short_fails_where_prices_rise_and_begins_again():
    found = hand((100, 150, 99, 100), (100, 150, 99, 100), sides=(-1.0,))
    assert found["liquidations"] == pytest.approx(2.0 / (2 / 365 / 24))


def test_on_paths_margins_go_on_from_history():
    market = bt.Market.sample(bars=24 * 60)
    rules = {"ewma": Volatility(days=1.0), "buffer": Buffer(Volatility(days=1.0))}
    found = compare(market, rules, paths=20, horizon="10d", seed=3)
    assert found.accounts.equals(compare(market, rules, paths=20, horizon="10d", seed=3).accounts)
    calls = found.accounts.xs("paths", level="where")["liquidations"]
    assert calls["buffer"] <= calls["ewma"]


@pytest.mark.slow
def test_the_least_quantile_on_gaussian_paths_has_a_closed_form():
    """With a known volatility, marks of a day leave q s on one side with 2 (1 - F(q)), on either
    with twice that: n days are within it in (1 - 4 (1 - F(q)))^n."""
    test = bt.Backtest(days_of(swing(0.02, 400), per_day=1), venue=VENUE, account=bt.Account())
    days, share = 10, 0.1
    model = bt.paths.GBM(volatility=0.02 * math.sqrt(365.0), drift=0.0)
    how = {"paths": 1500, "horizon": f"{days}d", "model": model, "seed": 1}
    found = test.calibrate_margin(Normal(lambda_=0.9999, days=1.0), shortfall=share, **how)
    wanted = 1.0 - 0.25 * (1.0 - (1.0 - share) ** (1.0 / days))
    assert found.low < found.value < found.high
    # 10 % of 1,500 paths have a standard error of 0.8 %, of 1 - F one of 8 %: 0.0002.
    assert found.value == pytest.approx(wanted, abs=0.0006)
    assert found.reversals == 0.0
    assert np.isinf(found.crashes["least"]).all()  # a quantile of 2 % a day covers no crash


@pytest.mark.parametrize(("paths", "unknown"), [(4, 0.1), (5, 0.125)])
def test_days_of_unknown_margin_are_left_out_up_to_a_tenth(monkeypatch, paths, unknown):
    """On that many of 40 paths no margin is known: 4 of 40 are a tenth, 5 are refused."""
    measure = margin_levels.measure_levels

    def forget(rule, days, time, venue):
        found = measure(rule, days, time, venue)
        if found.daily.ndim == 2:
            found.daily[:, :paths] = np.nan
        return found

    monkeypatch.setattr(margin_calibration, "measure_levels", forget)
    test = bt.Backtest(days_of(swing(0.02, 60), per_day=1), venue=VENUE, account=bt.Account())
    model = bt.paths.GBM(volatility=0.02 * math.sqrt(365.0), drift=0.0)
    how = {"shortfall": 0.5, "paths": 40, "horizon": "5d", "model": model, "seed": 1}
    rule = Volatility(lambda_=0.9999, days=1.0)
    if unknown > 0.1:
        said = "the margin must be known on 90 % of the days of the paths, got 88 % of 240 with"
        check_refused(lambda: test.calibrate_margin(rule, **how), said, bt.DataError)
        return
    found = test.calibrate_margin(rule, **how)
    assert found.settings["unknown_days"] == unknown
    assert "not known on 10.00 % of these days, which are left out" in found.details


def test_a_crash_on_the_last_day_of_history_is_no_shortfall_of_paths():
    market = days_of([*swing(0.02, 100), -0.5], per_day=1)
    test = bt.Backtest(market, venue=VENUE, account=bt.Account())
    model = bt.paths.GBM(volatility=0.02 * math.sqrt(365.0), drift=0.0)
    rule = Normal(lambda_=0.9999, days=1.0)
    found = test.calibrate_margin(rule, shortfall=0.5, horizon="5d", model=model, seed=1)
    assert found.value < 0.99


def test_marks_inside_the_days_count_from_every_close_and_on_both_sides():
    """Days of two bars: closes 100, 110, 99; marks between 95 and 112, then 90 and 111.

    Within a day of 100, 12 % up; of 110, 1 - 90 / 110 = 18.2 % down; within two days of 100 12 %.
    """
    hours = np.array([24, 36, 48, 60]) * 3_600_000_000_000
    rows = [[100, 112, 95, 105], [105, 111, 104, 110], [110, 111, 108, 109], [109, 109, 90, 99]]
    columns = np.array(rows, dtype=np.float64).T[:, :, None]
    bars = margin_levels.Prices(hours, *columns)
    closes = np.array([24, 48, 72]) * hours[0] // 24

    for days in (1, 2):
        worst = margin_calibration.find_worst(bars, closes, days, 100.0)[:, 0]
        np.testing.assert_allclose(worst, [0.12, 1.0 - 90 / 110, 0.0], rtol=1e-12)

    # From 104 instead of 100 the fall to 90, within two days, is the larger.
    worst = margin_calibration.find_worst(bars, closes, 2, 104.0)[0, 0]
    assert worst == pytest.approx(1.0 - 90 / 104)


def test_the_first_days_of_a_volatility_are_no_procyclicality():
    """A first return of 0.1 % and then 2 %: the trough of 0.1 % is warm-up, not a margin."""
    moves = swing(0.02, 90)
    moves[0] = 0.001
    row = compare(days_of(moves), {"ewma": Normal(days=1.0)}).table.loc["ewma"]
    # After 23 days (the half-life of .97) the mean square has over half of its weight at 2 %.
    assert row["peak_to_trough"] < 1.05
    assert margin_systems.count_warm_up(Buffer(Normal(days=1.0))) == 23
    assert margin_systems.count_warm_up(None) == 0


def calibrate(rule, market=None, **more):
    market = bt.Market.sample(bars=24 * 90) if market is None else market
    test = bt.Backtest(market, venue=VENUE, account=bt.Account())
    return test.calibrate_margin(rule, **{"shortfall": 0.2, "horizon": "10d", **more})


@pytest.mark.parametrize("solve", ["quantile", "days", "lambda_", "buffer"])
def test_every_number_of_a_rule_is_solved_or_its_nearest_is_named(solve):
    rule = Buffer(Volatility()) if solve == "buffer" else Volatility()
    found = calibrate(rule, solve=solve)
    nearest = found.settings["nearest"]
    if math.isfinite(found.value):
        assert nearest["paths"] <= 0.2
        assert found.settings["history"]["share"] <= 0.2
        said = f"{found.name} {found.value:.5g} leaves a shortfall on "
    else:
        assert max(nearest["paths"], found.settings["history"]["share"]) > 0.2
        said = f"No {found.name} leaves a shortfall on at most 20.00 %; the nearest, "
    assert found.verdict.startswith(said)
    assert " of the paths and " in found.verdict
    assert found.verdict.endswith("of history's windows.")


def test_days_are_found_at_defaults_of_rule_and_model():
    found = calibrate(Volatility(), solve="days")
    assert math.isfinite(found.value)
    assert found.settings["nearest"]["paths"] <= 0.2
    assert "days" in str(found.list_numbers()[0].note)


def test_where_no_value_suffices_the_nearest_is_named():
    """Margins of 0.011 days of a volatility: any quantile up to .99999 is broken."""
    found = calibrate(Volatility(days=0.001 + 0.01), shortfall=0.5)
    share = found.settings["nearest"]["paths"]
    assert share > 0.5
    assert found.settings["nearest"]["value"] == 0.99999
    past = found.settings["history"]["share"]
    assert found.verdict == (
        f"No quantile leaves a shortfall on at most 50.00 %; the nearest, 0.99999, leaves one on "
        f"{100 * share:.2f} % of the paths and {100 * past:.2f} % of history's windows."
    )


def test_a_value_holds_in_history_too_where_paths_are_calmer():
    """Every tenth day of 6 % among 1 %: paths of 0.5 % a day need less than history did."""
    moves = swing(0.01, 200)
    moves[::10] = 0.06
    test = bt.Backtest(days_of(moves, per_day=1), venue=VENUE, account=bt.Account())
    calm = bt.paths.GBM(volatility=0.005 * math.sqrt(365.0), drift=0.0)
    rule = Normal(lambda_=0.9999, days=1.0)
    how = {"shortfall": 0.1, "horizon": "20d", "model": calm, "seed": 1}
    found = test.calibrate_margin(rule, solve="days", **how)
    assert found.settings["nearest"]["paths"] == 0.0
    assert found.settings["history"]["share"] <= 0.1
    assert found.value > found.high


@pytest.mark.parametrize(("count", "share"), [(40, 0.5), (60, 0.4), (500, 0.04)])
def test_ranks_are_those_of_a_binomial(count, share):
    """Each end is the nearest to the middle beyond which 2.5 % lie: at 40, .5 not 27 but 26."""
    assert margin_calibration.find_ranks(20_000, 1e-3) == (20, 29, 11)
    chance = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count)]
    _, most, least = margin_calibration.find_ranks(count, share)
    assert math.fsum(chance[: most + 1]) >= 0.975 > math.fsum(chance[:most])
    assert math.fsum(chance[: least + 1]) < 0.025 <= math.fsum(chance[: least + 2])


def test_what_cannot_be_compared_or_calibrated_is_refused():
    market = days_of(swing(0.02, 30))
    rule = Volatility(days=1.0)
    test = bt.Backtest(market, venue=VENUE, account=bt.Account())
    check_refused(lambda: test.compare_margin({}), "got none")
    check_refused(lambda: test.compare_margin({"a": 3}), "rules.a must be a rule")
    for name, value in (("coverage", 1.0), ("accounts", 0), ("paths", -1), ("seed", 0.5)):
        check_refused(lambda n=name, v=value: test.compare_margin({"a": rule}, **{n: v}), name)
    check_refused(lambda: test.calibrate_margin(rule, shortfall=0.9), "shortfall must be over 0")
    check_refused(lambda: test.calibrate_margin(rule, paths=100), "at least 20 / shortfall, 20,000")
    tiers = [OpenInterestTier(0.0, 0.1)]
    check_refused(lambda: test.calibrate_margin(OpenInterest("oi", tiers)), "must be of volatility")
    said = "one of lambda_, quantile, days"
    check_refused(lambda: test.calibrate_margin(rule, solve="cap"), said)
    both = bt.Markets({"A": market, "B": market})
    check_refused(lambda: test.replace(market=both).compare_margin({"a": rule}), "needs one market")
    for name, kept in (("margin_multiplier", 2.0), ("maintenance_multiplier", 1.5)):
        moved = test.replace(venue=VENUE.override({name: kept}))
        words = f"leave venue.{name} out and scale the rates of venue.brackets, got {kept}"
        check_refused(lambda moved=moved: moved.compare_margin({"a": rule}), words)
        check_refused(lambda moved=moved: moved.calibrate_margin(rule), words)
    ruled = test.replace(venue=VENUE.override(margin=rule))
    words = "leave venue.margin out and give its rule as an argument, got Volatility"
    check_refused(lambda: ruled.compare_margin({"a": rule}), words)
    check_refused(lambda: ruled.calibrate_margin(rule), words)
    short = days_of([0.01])
    check_refused(lambda: compare(short, {"a": Hours(rule)}), "two days on which every rule")


def test_results_are_saved_and_loaded(tmp_path):
    market = bt.Market.sample(bars=24 * 40)
    found = compare(market, {"ewma": Volatility(days=1.0)}, paths=5, horizon="5d")
    loaded = type(found).load(found.save(tmp_path))
    assert loaded.verdict == found.verdict
    assert loaded.table.equals(found.table)
    test = bt.Backtest(market, venue=VENUE, account=bt.Account())
    how = {"horizon": "5d"}
    solved = test.calibrate_margin(Buffer(Volatility()), solve="buffer", shortfall=0.2, **how)
    assert solved.name == "share"
    again = type(solved).load(solved.save(tmp_path))
    assert again.value == solved.value
    assert "share" in again.summary()


def draw_garch(chains, steps, seed, alpha, beta, burn):
    """Yield returns of chains of a mean variance of (2 % a day)^2, a step after the other."""
    rng = np.random.default_rng(seed)
    variance = np.ones(chains)
    for t in range(burn + steps):
        shock = np.sqrt(variance) * rng.standard_normal(chains)
        if t >= burn:
            yield 0.02 * shock
        variance = 1.0 - alpha - beta + alpha * shock**2 + beta * variance


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["normal", "empirical"])
def test_the_buffer_that_makes_margins_stable_is_that_of_brute_force(shape):
    """The quantile of all losses over the mean of the margins that follow the volatility.

    These are a quantile of one side times the volatility: the normal one, or, as they are known a
    day before, that of returns over the volatility of the day before.
    """
    decay = 0.9
    terms = {"alpha": 0.1, "beta": 0.85, "burn": 300}
    losses = []
    ratios = []
    volatilities = []
    total = weight = volatility = 0.0
    for t, move in enumerate(draw_garch(2_000, 1_000, 11, **terms)):
        losses.append(np.abs(move))
        if t > 200:
            ratios.append(np.abs(move) / volatility)
        total = decay * total + move**2
        weight = decay * weight + 1.0
        volatility = np.sqrt(total / weight)
        if t > 200:
            volatilities.append(volatility)
    factor = Q if shape == "normal" else np.quantile(ratios, 0.98)
    wanted = np.quantile(losses, 0.98) / (factor * np.mean(volatilities))

    history = np.concatenate([*draw_garch(1, 60_000, 13, **terms)])
    rules = {
        "stable": Volatility(lambda_=0.9999, days=1.0),
        "sensitive": Volatility(lambda_=decay, days=1.0, shape=shape),
    }
    found = compare(days_of(history, per_day=1), rules)
    buffer = found.levels["stable"].iloc[-1] / found.table.loc["sensitive", "mean"]
    assert buffer == pytest.approx(wanted, rel=0.02)


PRINTED = [
    line.strip().removeprefix("backtest ")
    for line in (risks.margin.__doc__ or "").splitlines()
    if line.strip().startswith("backtest margin")
]


@pytest.mark.slow
@pytest.mark.parametrize("line", PRINTED)
def test_every_call_that_the_help_of_the_command_prints_answers(
    line, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    code, text, errors = call(capsys, *shlex.split(line))
    assert code == 0, errors
    said = " ".join(text.split())
    assert any(word in said for word in ("leaves a shortfall on", "least is tied up"))


@pytest.mark.slow
def test_every_call_that_the_page_prints_answers():
    """Of the form test.calibrate_margin(rule, ...): on the sample, with the rule of the page."""
    page = (Path(__file__).parents[2] / "docs" / "margin-systems.md").read_text(encoding="utf-8")
    calls = re.findall(r"`(test\.calibrate_margin\([^`]*\))`", page)
    assert calls
    test = bt.Backtest(bt.Market.sample(), venue="binance-usdm:BTCUSDT", account=bt.Account())
    for text in calls:
        found = eval(text, {"test": test, "rule": Volatility(days=1.0)})
        assert "history's windows" in found.verdict
