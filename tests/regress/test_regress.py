"""Which changes of a policy, its rules and its data a baseline catches, and how they are told."""

from dataclasses import replace

import numpy as np
import pytest

import backtest as bt
from backtest.regress import compare_baselines
from backtest.regress.text import write_text
from backtest.regress.tolerances import NEITHER, WORSE
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
