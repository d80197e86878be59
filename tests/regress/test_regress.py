"""Which changes of a policy, its rules and its data a baseline catches, and how they are told."""

import math
from dataclasses import replace

import numpy as np
import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from backtest.measures.measure_table import METRICS
from backtest.regress import compare_baselines, take_baseline
from backtest.regress.trace import (
    NEITHER,
    WORSE,
    Band,
    choose_bands,
    compare_returns,
    read_band,
)
from backtest.regress.verdict import list_tables, write_text
from tests.kit import Hold, check_refused, make_venue, simulate_pair
from tests.regress.baselines import DAYS, VENUE, disturb, market, run, take


def columns_at_first(verdict):
    return [move.column for move in verdict.bars.at_first]


@pytest.mark.slow
def test_the_unchanged_project_never_alarms(was):
    for _ in range(3):
        verdict = compare_baselines(was, take())
        assert (verdict.status, verdict.exit_code) == ("same", 0)
        assert "bit by bit" in verdict.basis
        assert not verdict.changes
        assert not verdict.moved


@pytest.mark.slow
def test_a_policy_constant_off_by_one_percent_is_named_at_its_first_decision(was):
    verdict = compare_baselines(was, take(run(leverage=2.02)))
    assert verdict.exit_code == 1
    assert verdict.bars.first == 0
    assert columns_at_first(verdict) == ["target"]
    assert verdict.bars.at_first[0].step == "target leverage of the policy"
    assert [change.name for change in verdict.changes] == ["policy.settings.leverage"]


def test_a_fee_off_by_a_tenth_of_a_basis_point_is_named_with_its_step_and_size(was):
    other = VENUE.override({"fees.taker": VENUE.fees.taker + 1e-5})
    now = take(run(venue=other))
    verdict = compare_baselines(was, now)
    assert verdict.exit_code == 1
    assert verdict.bars.first == 1
    assert columns_at_first(verdict)[0] == "fees"
    assert [str(change) for change in verdict.changes] == ["venue.fees.taker: 0.0005 -> 0.00051"]
    change = now.metrics["final_equity"] - was.metrics["final_equity"]
    assert sum(verdict.bars.terms.values()) == pytest.approx(change, rel=1e-6)
    assert "worse in" in verdict.reason
    assert {each.name: each.direction for each in verdict.moved}["fees"] == WORSE


def test_funding_shifted_by_one_bar_is_named_at_the_first_settlement_that_moved(was):
    verdict = compare_baselines(was, take(run(data=market(shift=1))))
    assert verdict.exit_code == 1
    paid = np.flatnonzero(was.trace.columns["funding"])[0]
    assert verdict.bars.first == paid
    assert columns_at_first(verdict)[0] == "funding"
    assert verdict.bars.data.bar <= paid
    assert "data.content_hash" in [change.name for change in verdict.changes]


def test_one_bar_of_data_that_changed_is_named(was):
    verdict = compare_baselines(was, take(run(data=market(bar=500, factor=1.001))))
    assert verdict.exit_code == 1
    assert verdict.bars.data.bar == 500
    assert verdict.bars.data.count == 1
    assert verdict.bars.first == 500
    assert columns_at_first(verdict)[0] == "close"
    assert "data differ" in write_text([verdict])


@pytest.mark.parametrize("what", ["funding", "mark"])
def test_data_of_a_kind_that_are_gone_cannot_be_measured(what):
    sample = bt.Market.sample(bars=24 * 4)
    frames = {"funding": sample.funding(), "mark": sample.mark()}
    whole = take(run(data=bt.Market.from_frames(sample.bars(), **frames)))
    del frames[what]
    less = take(run(data=bt.Market.from_frames(sample.bars(), **frames)))
    for mode in ("exact", "tolerance", "statistical"):
        verdict = compare_baselines(whole, less, mode=mode)
        assert verdict.exit_code == 2
        assert f"{what}" in verdict.reason
        assert "the run lacks data" in verdict.reason
    assert compare_baselines(less, whole).exit_code == 1


def test_other_bars_cannot_be_measured(was):
    shorter = take(run(data=market().prefix(24 * DAYS - 1)))
    verdict = compare_baselines(was, shorter)
    assert verdict.exit_code == 2
    assert "960 of" in verdict.reason
    assert "959 of" in verdict.reason


def test_a_measure_that_is_computed_otherwise_moves_though_all_bars_are_the_same(was):
    now = take()
    verdict = compare_baselines(was, replace(now, metrics={**now.metrics, "sharpe": -9.0}))
    assert verdict.exit_code == 1
    assert verdict.bars.is_same
    assert verdict.reason == "worse in sharpe"


def test_the_same_platform_means_the_same_bytes(was):
    verdict = compare_baselines(was, disturb(was, 1.0 + 1e-15))
    assert verdict.exit_code == 1
    assert NEITHER in verdict.reason
    assert verdict.bars.is_exact


def test_another_platform_means_a_billionth_per_bar_and_the_output_says_so(was):
    elsewhere = {**was.host, "numpy": "1.99"}
    verdict = compare_baselines(was, replace(disturb(was, 1.0 + 1e-12), host=elsewhere))
    assert verdict.exit_code == 0
    assert "to 1e-9 relative per bar" in verdict.basis
    assert f"numpy {was.host['numpy']} -> 1.99" in verdict.basis
    verdict = compare_baselines(was, replace(disturb(was, 1.0 + 1e-8), host=elsewhere))
    assert verdict.exit_code == 1
    assert not verdict.bars.is_exact


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_fee_of_one_venue_is_named_with_its_instrument():
    markets = simulate_pair(60)
    terms = {"account": bt.Account(capital=1_000.0), "overlay": Hold(0.5), "compile": False}
    was, now = (
        take_baseline(
            bt.run(
                markets,
                Hold(2.0),
                venue={"AAA": make_venue(taker=0.001), "BBB": make_venue(taker=taker)},
                sampling="1h",
                **terms,
            ),
            "pair",
        )
        for taker in (0.001, 0.0011)
    )
    verdict = compare_baselines(was, now)
    assert verdict.exit_code == 1
    # BBB is listed in bar 6: decided at its close, filled in bar 7
    assert verdict.bars.first == 7
    assert [each.step for each in verdict.bars.at_first][:2] == ["fees", "fees of BBB"]
    assert "venue.BBB.fees.taker: 0.001 -> 0.0011" in [str(each) for each in verdict.changes]
    moved = now.metrics["final_equity"] - was.metrics["final_equity"]
    assert sum(verdict.bars.terms.values()) == pytest.approx(moved, rel=1e-9)


@pytest.mark.parametrize(("given", "band"), [
    ("5%", Band(relative=0.05)),
    ("0.05", Band(absolute=0.05)),
    (0.05, Band(absolute=0.05)),
    (2, Band(absolute=2.0)),
    ("any", Band()),
    ({"relative": 1e-9}, Band(relative=1e-9)),
])  # fmt: skip
def test_a_tolerance_is_read_and_written(given, band):
    assert read_band(given, "t") == band
    assert read_band(band.to_data(), "t") == band


@pytest.mark.parametrize(
    "given", ["-1", "x", "nan", "inf", "", None, True, [], {"relative": "y"}, {"rel": 1}, "-5%"]
)
def test_a_tolerance_that_is_none_is_refused(given):
    check_refused(lambda: read_band(given, "t"), "t must be a number from 0")


def test_a_band_holds_its_ends_and_what_does_not_exist():
    assert Band(absolute=0.1).holds(0.0, -0.1)
    assert not Band(absolute=0.1).holds(0.0, 0.11)
    assert Band(relative=0.0).holds(math.nan, math.nan)
    assert Band(relative=0.0).holds(math.inf, math.inf)
    assert not Band(relative=1.0).holds(math.nan, 1.0)
    assert not Band(relative=1.0).holds(math.inf, 1.0)
    assert Band().holds(math.nan, 1.0)
    assert Band(relative=1e-9).holds(0.0, 1e-17)


def test_the_last_pattern_that_names_a_measure_holds():
    bands = choose_bands(METRICS, {"*": "5%", "es_*": 0.1, "es_99": "any"}, {})
    assert bands["sharpe"] == Band(relative=0.05)
    assert bands["es_95"] == Band(absolute=0.1)
    assert bands["es_99"].is_open
    with pytest.raises(ParameterError, match="did you mean 'sharpe'"):
        choose_bands(METRICS, {"sharp": 1}, {})


@pytest.mark.slow
def test_a_move_for_the_better_fails_unless_it_is_allowed():
    held = take(mode="tolerance", tolerance={"*": "any", "fees": 0.0})
    cheaper = take(run(venue=VENUE.override({"fees.taker": 4e-4})))
    verdict = compare_baselines(held, cheaper)
    assert (verdict.exit_code, verdict.reason) == (1, "better in fees")
    verdict = compare_baselines(held, cheaper, allow_better=["fees"])
    assert (verdict.exit_code, verdict.accepted) == (0, ("fees",))
    assert "allowed" in write_text([verdict])
    dearer = take(run(venue=VENUE.override({"fees.taker": 6e-4})))
    assert compare_baselines(held, dearer, allow_better=["*"]).exit_code == 1
    with pytest.raises(ParameterError, match="did you mean 'sharpe'"):
        compare_baselines(held, cheaper, allow_better=["sharp"])


def grow(changes, was):
    """Return the baseline with daily log returns of N(0, 2 %), and changes to them, planted."""
    steps = np.random.default_rng(7).normal(0.0, 0.02, len(changes)) + changes
    ends = np.tile(np.arange(24) == 23, len(changes)).astype(float)
    unit = 10_000.0 * np.repeat(np.exp(np.cumsum(steps)), 24)
    n = len(ends)
    hours = was.trace.time[0] + np.arange(n) * was.trace.interval
    columns = {name: np.zeros(n) for name in was.trace.columns}
    columns |= {"unit": unit, "equity": unit, "ends_sample": ends}
    return replace(was.trace, time=hours, columns=columns, inputs=None, first_unit=10_000.0)


def draw_noise():
    """Four hundred daily differences of deviation 0.2 %, of mean 0 by construction."""
    noise = np.random.default_rng(1).normal(0.0, 0.002, 400)
    return noise - noise.mean()


def planted(was, changes):
    return compare_returns(grow(np.zeros(len(changes)), was), grow(changes, was))


@pytest.mark.slow
def test_a_policy_that_got_worse_or_better_beyond_noise_is_told(was):
    # the differences have mean -/+ 0.2 % and deviation 0.2 %: 20 standard errors at 400 days
    noise = draw_noise()
    assert planted(was, noise - 0.002).verdict == "worse"
    found = planted(was, noise + 0.002)
    assert found.verdict == "better"
    assert found.low < 0.002 * 365 < found.high
    assert found.p_value == pytest.approx(1 / 2000)


def test_noise_is_indistinguishable(was):
    noise = draw_noise()
    found = planted(was, noise)
    assert found.verdict == "indistinguishable"
    assert found.low < 0.0 < found.high
    assert not found.is_same


def test_what_could_have_been_detected_is_said_per_year(was):
    """Means of 400 days scatter by 0.2 % / 20: 2.8 times that is found in four of five cases."""
    found = planted(was, np.random.default_rng(3).normal(0.0, 0.002, 400))
    assert found.detectable == pytest.approx(2.8 * 0.002 / 20.0 * 365.0, rel=0.2)
    assert found.detectable > found.high - found.difference


def test_the_same_returns_rounding_few_returns_and_ruin_need_no_test(was):
    for changes in (np.zeros(400), np.full(400, 1e-14)):
        found = planted(was, changes)
        assert (found.verdict, found.is_same) == ("indistinguishable", True)
        assert (found.low, found.difference, found.high) == (0.0, 0.0, 0.0)
    found = planted(was, np.full(20, 1e-3))
    assert (found.verdict, found.reason) == ("unknown", "20 returns are too few, 30 are needed")
    whole = grow(np.zeros(400), was)
    unit = whole.columns["unit"].copy()
    unit[5000:] = 0.0
    ruined = replace(whole, columns={**whole.columns, "unit": unit})
    lost = replace(whole, columns={**whole.columns, "unit": np.where(unit > 0.0, unit, np.nan)})
    assert compare_returns(whole, lost).verdict == "unknown"
    assert compare_returns(whole, ruined).verdict == "worse"
    assert compare_returns(ruined, whole).verdict == "better"
    grown = grow(np.full(400, 0.002), was)  # and yet it was closed at its line of ruin
    assert compare_returns(whole, grown, is_ruined=True).verdict == "worse"
    assert compare_returns(grown, whole, was_ruined=True).verdict == "better"


@pytest.mark.slow
def test_in_statistical_mode_returns_decide(was):
    noise = draw_noise()
    base = replace(was, trace=grow(np.zeros(400), was), mode="statistical")
    same = replace(was, trace=grow(noise, was))
    better = replace(was, trace=grow(noise + 0.002, was))
    assert compare_baselines(base, same).exit_code == 0
    assert compare_baselines(base, same, mode="exact").exit_code == 1
    verdict = compare_baselines(base, better)
    assert (verdict.exit_code, verdict.word) == (1, "better")
    assert verdict.reason.startswith("log growth +0.7")
    allowed = compare_baselines(base, better, allow_better=["log_growth"])
    assert (allowed.exit_code, allowed.word) == (0, "better")
    assert "which is allowed" in allowed.reason
    few = replace(base, trace=grow(np.zeros(20), was))
    assert compare_baselines(few, replace(few, trace=grow(np.full(20, 1e-3), was))).exit_code == 2


def test_what_is_not_listed_lies_within_its_noise_and_is_counted(was):
    noise = draw_noise()
    base = replace(was, trace=grow(np.zeros(400), was))
    moved = {name: was.metrics[name] * 1.01 for name in ("cagr", "sharpe", "volatility", "fees")}
    now = replace(was, trace=grow(noise, was), metrics={**was.metrics, **moved})
    verdict = compare_baselines(base, now)
    hidden = {each.name for each in verdict.within_noise}
    assert hidden == {*moved} & {*verdict.noise.within} != set()
    table = next(list_tables(verdict))
    assert {row[0] for row in table.rows} == {*moved} - hidden
    assert table.note.startswith(f"{len(hidden)} moved within noise: ")
    beyond = compare_baselines(base, replace(now, trace=grow(noise - 0.002, was)))
    assert "cagr" not in {each.name for each in beyond.within_noise}
