"""Baselines and verdicts: what is caught, how it is named, and what is no alarm."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest
import backtest as bt
from backtest.base.errors import DataError, ParameterError
from backtest.engine import manifest
from backtest.measures.measure_names import ABOUT
from backtest.measures.run_measures import METRICS
from backtest.regress import (
    assert_policy,
    baseline_files,
    compare_baselines,
    load_baseline,
    report_failure,
    rewrite_baseline,
    save_baseline,
    take_baseline,
)
from backtest.regress.baseline_files import check_unique_names, find_baselines, name_baseline
from backtest.regress.moved_bars import compare_traces
from backtest.regress.noise import compare_returns
from backtest.regress.run_identity import NOT_OF_THE_ENGINE, list_engine, shorten_lists
from backtest.regress.tolerances import (
    BETTER,
    NEITHER,
    WORSE,
    Band,
    choose_bands,
    find_direction,
    read_band,
)
from backtest.regress.verdict import describe_noise
from backtest.regress.verdict_markdown import write_markdown
from backtest.regress.verdict_text import write_text
from backtest.regress.verdict_words import combine_exit_codes, draw_pair
from backtest.strategies import Constant
from tests.markets import bars_market

DAYS = 40
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(band=0.05)


def market(*, bar=None, field="close", factor=1.0, shift=0):
    """Forty days of the sample, one value of a bar changed, or its funding some bars later."""
    sample = bt.Market.sample(bars=24 * DAYS)
    bars, funding = sample.bars(), sample.funding()
    if bar is not None:
        bars.iloc[bar, bars.columns.get_loc(field)] *= factor
        bars["high"] = bars[["open", "high", "low", "close"]].max(axis=1)
        bars["low"] = bars[["open", "high", "low", "close"]].min(axis=1)
    funding.index += pd.Timedelta(hours=shift)
    keep = funding.index < bars.index[-1]
    return bt.Market.from_frames(bars, funding=funding[keep], instrument="BTCUSDT")


def run(*, leverage=2.0, venue=VENUE, account=ACCOUNT, data=None, **more):
    terms = {"venue": venue, "account": account, "compile": False, **more}
    return bt.run(market() if data is None else data, Constant(leverage), **terms)


def take(result=None, **more):
    return take_baseline(run() if result is None else result, "calm", **more)


@pytest.fixture(scope="module")
def was():
    return take()


def columns_at_first(verdict):
    return [move.column for move in verdict.bars.at_first]


# --------------------------------------------------------------------------- what is (not) caught


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


def test_data_that_no_number_rests_on_may_change_and_it_is_said(was):
    verdict = compare_baselines(was, take(run(data=market(bar=500, field="volume", factor=2.0))))
    assert verdict.exit_code == 0
    assert verdict.bars.data.bar == 500
    assert "data changed" in write_text([verdict])


def test_a_predicted_funding_rate_that_changed_is_named_by_its_bar():
    def take_with(predicted):
        sample = bt.Market.sample(bars=24 * 4)
        funding = sample.funding().assign(predicted=predicted)
        data = bt.Market.from_frames(sample.bars(), funding=funding, instrument="BTCUSDT")
        return take(run(data=data))

    rates = np.linspace(1e-4, 2e-4, 12)
    held, other = take_with(rates), take_with(np.where(np.arange(12) == 5, 9e-4, rates))
    verdict = compare_baselines(held, other)
    assert verdict.exit_code == 0
    assert (verdict.bars.data.bar, verdict.bars.data.count) == (40, 1)
    assert "data.content_hash" in [change.name for change in verdict.changes]
    assert compare_baselines(held, take_with(rates)).bars.data is None
    none, nan = take(run(data=market().prefix(96))), take_with(np.nan)
    assert (none.trace.inputs[:90] == nan.trace.inputs[:90]).all()


@pytest.mark.parametrize("what", ["funding", "mark", "dividends"])
def test_data_of_a_kind_that_are_gone_cannot_be_measured(what):
    sample = bt.Market.sample(bars=24 * 4)
    frames = {"funding": sample.funding(), "mark": sample.mark()}
    if what == "dividends":  # a market has funding or dividends
        paid = pd.DataFrame({"amount": [1.0]}, index=sample.index[48:49])
        frames = {"dividends": paid, "mark": sample.mark()}
    whole = take(run(data=bt.Market.from_frames(sample.bars(), **frames)))
    del frames[what]
    less = take(run(data=bt.Market.from_frames(sample.bars(), **frames)))
    for mode in ("exact", "tolerance", "statistical"):
        verdict = compare_baselines(whole, less, mode=mode)
        assert verdict.exit_code == 2
        assert f"{what}" in verdict.reason
        assert "the run lacks data" in verdict.reason
    assert compare_baselines(less, whole).exit_code == 1


def test_the_engine_is_all_that_computes_a_run_and_nothing_that_shows_it():
    root = Path(backtest.__file__).parent
    files = list_engine(root)
    computing = ("account/steps.py", "venue/venue.py", "policy/combinators.py", "measures/tally.py")
    assert {*computing, "features/rolling_kernels.py", "market/market.py"} <= {*files}
    assert not {"engine/result_text.py", "sweep/lanes/lane_loop.py", "cli/app.py"} & {*files}
    assert all((root / name).is_file() for name in NOT_OF_THE_ENGINE)


def test_prices_alone_that_differ_are_no_move_of_the_account(was):
    close = was.trace.columns["close"].copy()
    close[7] += 1.0
    other = replace(was.trace, columns={**was.trace.columns, "close": close})
    moves = compare_traces(was.trace, other, is_exact=True)
    assert moves.is_same
    assert [move.column for move in moves.moves] == ["close"]


def test_another_engine_version_alone_is_told_and_no_alarm(was, monkeypatch):
    find = manifest.find_version
    monkeypatch.setattr(
        manifest, "find_version", lambda name: "9.9" if name.startswith("lever") else find(name)
    )
    verdict = compare_baselines(was, take())
    assert verdict.exit_code == 0
    assert [change.name for change in verdict.changes] == ["engine.version"]
    assert "-> 9.9" in write_text([verdict])


def test_other_bars_cannot_be_measured(was):
    shorter = take(run(data=market().prefix(24 * DAYS - 1)))
    verdict = compare_baselines(was, shorter)
    assert verdict.exit_code == 2
    assert "960 of" in verdict.trouble.problem
    assert "959 of" in verdict.trouble.problem


def test_a_measure_that_is_no_more_cannot_be_measured(was):
    now = take()
    fewer = {name: value for name, value in now.metrics.items() if name != "sharpe"}
    verdict = compare_baselines(was, replace(now, metrics=fewer))
    assert verdict.exit_code == 2
    assert "sharpe" in verdict.reason


def test_a_measure_that_is_computed_otherwise_moves_though_all_bars_are_the_same(was):
    now = take()
    verdict = compare_baselines(was, replace(now, metrics={**now.metrics, "sharpe": -9.0}))
    assert verdict.exit_code == 1
    assert verdict.bars.is_same
    assert verdict.reason == "worse in sharpe"


@pytest.mark.slow
def test_compiled_and_plain_runs_are_the_same_bytes(was):
    verdict = compare_baselines(was, take(run(compile=True)))
    assert verdict.exit_code == 0
    assert verdict.bars.is_exact


def test_a_loaded_result_is_compared_like_the_run(was, tmp_path):
    loaded = bt.Result.load(run().save(tmp_path))
    assert compare_baselines(was, take(loaded)).exit_code == 0


# ---------------------------------------------------------------------------------- the platform


def disturb(baseline, factor, column="equity"):
    columns = {**baseline.trace.columns}
    columns[column] = columns[column] * factor
    return replace(baseline, trace=replace(baseline.trace, columns=columns))


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


def test_money_is_rounded_relative_to_what_is_at_stake(was):
    bars = np.flatnonzero(was.trace.columns["price_pnl"])
    columns = {**was.trace.columns, "price_pnl": was.trace.columns["price_pnl"].copy()}
    columns["price_pnl"][bars[0]] += 1e-6  # of some 20,000 at stake
    other = replace(was.trace, columns=columns)
    assert compare_traces(was.trace, other, is_exact=False).is_same
    assert compare_traces(was.trace, other, is_exact=True).first == bars[0]


def test_nan_equals_nan_and_zero_equals_minus_zero(was):
    result = run(account=bt.Account(band=0.05, after_liquidation="halt"))
    table = take(result).trace.columns
    assert not any(np.signbit(values[values == 0.0]).any() for values in table.values())


def test_a_policy_hash_of_another_python_is_told_with_a_caution(was):
    policy = {**was.facts["policy"], "source_hash": "f" * 64}
    now = replace(was, facts={**was.facts, "policy": policy})
    assert "bytecode" not in write_text([compare_baselines(was, now)])
    now = replace(now, host={**was.host, "python": "3.99"})
    assert "the source may be the same" in " ".join(
        write_text([compare_baselines(was, now)]).split()
    )


def test_the_platform_names_what_rounds(was):
    assert {"cpu", "cpu_features", "numpy", "numba", "llvmlite", "libm"} <= {*was.host}


# -------------------------------------------------------------------------- bands, directions


@pytest.mark.parametrize(
    ("given", "band"),
    [
        ("5%", Band(relative=0.05)),
        ("0.05", Band(absolute=0.05)),
        (0.05, Band(absolute=0.05)),
        (2, Band(absolute=2.0)),
        ("any", Band()),
        ({"relative": 1e-9}, Band(relative=1e-9)),
    ],
)
def test_a_tolerance_is_read_and_written(given, band):
    assert read_band(given, where="t") == band
    assert read_band(band.to_data(), where="t") == band


@pytest.mark.parametrize(
    "given", ["-1", "x", "nan", "inf", "", None, True, [], {"relative": "y"}, {"rel": 1}, "-5%"]
)
def test_a_tolerance_that_is_none_is_refused(given):
    with pytest.raises(ParameterError, match="a tolerance must be"):
        read_band(given, where="t")


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
    bands = choose_bands(METRICS, {"*": "5%", "es_*": 0.1, "es_99": "any"}, {}, where="t")
    assert bands["sharpe"] == Band(relative=0.05)
    assert bands["es_95"] == Band(absolute=0.1)
    assert bands["es_99"].is_open
    with pytest.raises(ParameterError, match="did you mean 'sharpe'"):
        choose_bands(METRICS, {"sharp": 1}, {}, where="t")


def test_directions_follow_the_measure():
    assert find_direction("sharpe", 1.0, 2.0) == BETTER
    assert find_direction("max_drawdown", 0.1, 0.2) == WORSE
    assert find_direction("mean_leverage", 1.0, 2.0) == NEITHER
    assert find_direction("ruin_time", math.nan, 3.0) == WORSE
    assert find_direction("time_to_first_liquidation", 3.0, math.nan) == BETTER
    assert find_direction("sharpe", math.nan, 3.0) == NEITHER


@pytest.mark.slow
def test_in_tolerance_mode_measures_decide_and_bars_are_told(was):
    wide = take(mode="tolerance", tolerance={"*": "any", "sharpe": "10%"})
    verdict = compare_baselines(wide, take(run(leverage=2.02)))
    assert verdict.exit_code == 0
    assert verdict.bars.first == 0
    tight = take(mode="tolerance", tolerance={"*": "any", "mean_leverage": "0.1%"})
    verdict = compare_baselines(tight, take(run(leverage=2.02)))
    assert verdict.exit_code == 1
    assert verdict.reason == "neither better nor worse in mean_leverage"


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


def test_in_exact_mode_an_allowed_measure_explains_the_bars_and_no_other_measure(was):
    better = replace(
        disturb(was, 1.001), metrics={**was.metrics, "sharpe": was.metrics["sharpe"] + 1.0}
    )
    assert compare_baselines(was, better).exit_code == 1
    assert compare_baselines(was, better, allow_better=["sharpe"]).exit_code == 0
    dearer = replace(better, metrics={**better.metrics, "fees": was.metrics["fees"] + 1.0})
    verdict = compare_baselines(was, dearer, allow_better=["*"])
    assert (verdict.exit_code, verdict.reason) == (1, "worse in fees")
    assert compare_baselines(was, disturb(was, 1.0 + 1e-15), allow_better=["*"]).exit_code == 1


def test_an_unknown_mode_is_refused(was):
    with pytest.raises(ParameterError, match="exact, tolerance, statistical"):
        compare_baselines(was, was, mode="fuzzy")


# ------------------------------------------------------------------------------------- statistics


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


@pytest.mark.slow
def test_of_differences_as_large_as_is_called_detectable_most_are_found(was):
    noise = draw_noise()
    least = planted(was, noise).detectable / 365.0
    assert planted(was, noise + 1.3 * least).verdict == "better"
    assert planted(was, noise + 0.3 * least).verdict == "indistinguishable"


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


@pytest.mark.slow
def test_in_statistical_mode_the_words_are_worse_better_and_indistinguishable(was):
    noise = draw_noise()
    base = replace(was, trace=grow(np.zeros(400), was), mode="statistical")
    changes = {"worse": noise - 0.002, "better": noise + 0.002, "indistinguishable": noise}
    verdicts = [
        compare_baselines(base, replace(was, trace=grow(each, was)))
        for each in (*changes.values(), 0 * noise)
    ]
    assert [verdict.word for verdict in verdicts] == [*changes, "indistinguishable"]
    text = " ".join(write_text(verdicts).split())
    for word in changes:
        assert f"calm: {word}: log growth" in text
    assert "95 % interval" in text
    assert "detectable in about 4 of 5 cases: 0.0" in text
    assert "calm: indistinguishable: every return is the same" in text
    assert text.endswith("4 baselines: 2 indistinguishable, 1 worse, 1 better")
    assert "**indistinguishable**" in write_markdown(verdicts)
    assert verdicts[2].to_dict()["word"] == "indistinguishable"


def test_a_comparison_that_can_find_nothing_says_so(was):
    noise = compare_baselines(was, take(run(leverage=2.02))).noise
    assert describe_noise(noise._replace(detectable=math.inf)).endswith(
        "no difference could have been detected"
    )


# ------------------------------------------------------------------------------------------ files


def test_a_baseline_comes_back_as_it_was_written(was, tmp_path):
    back = load_baseline(save_baseline(was, tmp_path))
    assert compare_baselines(back, was).exit_code == 0
    assert not back.is_other_than(was)
    assert (back.name, back.mode, back.bands) == (was.name, was.mode, was.bands)


def test_the_same_run_makes_the_same_bytes_sorted_and_indented(was, tmp_path):
    one, two = (save_baseline(each, tmp_path / name) for each, name in ((was, "a"), (take(), "b")))
    names = sorted(path.name for path in one.parent.iterdir())
    assert names == sorted(path.name for path in two.parent.iterdir())
    for name in names:
        assert (one.parent / name).read_bytes() == (two.parent / name).read_bytes()
    text = one.read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    document = json.loads(text)
    assert document["metrics"]["sharpe"]["tolerance"] == {"relative": 1e-9}
    assert len(document["equity"]["thinned"]) == 48
    assert {*document["hashes"]} == {"data", "policy_source", "venue", "account", "engine"}


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=1, sort_keys=True))


def test_tolerances_and_mode_may_be_edited_by_hand_and_nothing_else(was, tmp_path):
    path = save_baseline(was, tmp_path)
    edit(path, lambda data: data["metrics"]["sharpe"].update(tolerance="5%"))
    edit(path, lambda data: data.update(mode="tolerance"))
    back = load_baseline(path)
    assert back.bands["sharpe"] == Band(relative=0.05)
    assert back.mode == "tolerance"
    edit(path, lambda data: data["metrics"]["sharpe"].update(value=3.0))
    with pytest.raises(DataError, match="changed by hand"):
        load_baseline(path)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:400]),
    "empty": lambda path: path.write_text(""),
    "a list": lambda path: path.write_text("[]"),
    "another format": lambda path: edit(path, lambda data: data.update(format=7)),
    "no metrics": lambda path: edit(path, lambda data: data.pop("metrics")),
    "metrics of text": lambda path: edit(path, lambda data: data.update(metrics="x")),
    "not finite": lambda path: path.write_text(path.read_text().replace("10000.0", "NaN", 1)),
    "no mode": lambda path: edit(path, lambda data: data.pop("mode")),
    "no tolerance": lambda path: edit(path, lambda data: data["metrics"]["fees"].pop("tolerance")),
    "a name of another": lambda path: path.rename(path.with_name("other.json")),
    "no bars": lambda path: next(path.parent.glob("*.parquet")).unlink(),
    "half the bars": lambda path: [
        bars.write_bytes(bars.read_bytes()[:9000]) for bars in path.parent.glob("*.parquet")
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_baseline_is_refused(damage, was, tmp_path):
    DAMAGE[damage](save_baseline(was, tmp_path))
    (path,) = tmp_path.glob("*.json")
    with pytest.raises(DataError) as caught:
        load_baseline(path)
    assert str(tmp_path) in caught.value.where


def test_bars_of_another_run_are_refused(was, tmp_path):
    path = save_baseline(was, tmp_path / "a")
    other = save_baseline(take(run(leverage=3.0)), tmp_path / "b")
    theirs, mine = (next(each.parent.glob("*.parquet")) for each in (other, path))
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(DataError, match="recorded bars"):
        load_baseline(path)


@pytest.mark.slow
def test_a_writer_that_fails_anywhere_leaves_the_old_baseline(was, tmp_path, monkeypatch):
    path = save_baseline(was, tmp_path)
    write = baseline_files.write_file
    for stage in (1, 2):
        calls = []

        def full(target, content, calls=calls, stage=stage):
            calls.append(target)
            if len(calls) == stage:
                raise OSError(28, "No space left on device")
            write(target, content)

        monkeypatch.setattr(baseline_files, "write_file", full)
        with pytest.raises(DataError, match="No space left"):
            save_baseline(take(run(leverage=3.0)), tmp_path)
        assert not load_baseline(path).is_other_than(was)
    monkeypatch.setattr(baseline_files, "write_file", write)
    save_baseline(take(run(leverage=3.0)), tmp_path)
    assert load_baseline(path).is_other_than(was)
    assert not list(tmp_path.glob(".new-*"))


def test_a_rewritten_baseline_takes_its_old_bars_away(was, tmp_path):
    save_baseline(was, tmp_path)
    save_baseline(take(run(leverage=3.0)), tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_columns_with_the_same_bytes_are_written_once(was, tmp_path):
    save_baseline(was, tmp_path)
    names = baseline_files.pq.read_schema(next(tmp_path.glob("*.parquet"))).names
    assert "equity" in names
    assert "unit" not in names


def test_a_rewritten_baseline_keeps_reason_old_values_tolerances_and_mode():
    held = take(mode="tolerance", tolerance={"sharpe": 0.5}, experiment="../calm.toml")
    renewed = rewrite_baseline(held, take(run(leverage=3.0)), " bolder ")
    assert renewed.bands == held.bands
    assert (renewed.mode, renewed.experiment) == ("tolerance", "../calm.toml")
    (entry,) = renewed.history
    assert entry["reason"] == "bolder"
    assert entry["metrics"]["sharpe"] == held.metrics["sharpe"]
    assert "policy.settings.leverage: 2.0 -> 3.0" in entry["changed"]
    assert len(rewrite_baseline(renewed, held, "back").history) == 2
    with pytest.raises(ParameterError, match="needs a reason"):
        rewrite_baseline(held, held, "  ")


def test_two_baselines_of_one_name_are_refused(tmp_path):
    paths = [tmp_path / "a" / "x.json", tmp_path / "b" / "X.json"]
    with pytest.raises(DataError, match="'X' has two"):
        check_unique_names(paths, ["x", "X"])


def test_no_baseline_at_all_is_no_pass(tmp_path):
    with pytest.raises(DataError, match="no baseline to check"):
        find_baselines([tmp_path])
    with pytest.raises(DataError, match="there is no baseline"):
        find_baselines([tmp_path / "gone.json"])
    assert combine_exit_codes([]) == 2


def test_names_of_files_are_harmless():
    assert name_baseline("../../x") == "x"
    assert name_baseline("<script>") == "script"
    assert name_baseline("\u202e" + "a" * 10_000) == "a" * 100
    assert name_baseline("///") == "baseline"


def test_long_lists_and_series_are_told_by_their_hash():
    short = shorten_lists({"flows": {f"2023-{day}": 1.0 for day in range(100)}, "fees": [1, 2]})
    assert short["flows"].startswith("100 entries, sha256:")
    assert short["fees"] == [1, 2]


# ------------------------------------------------------------------------------------------- told


def test_the_text_is_100_columns_wide_and_says_what_moved(was):
    text = write_text(
        [compare_baselines(was, take(run(leverage=2.02))), compare_baselines(was, was)]
    )
    assert max(map(len, text.splitlines())) <= 100
    for words in ("calm: moved: worse in", "bar 0 of 960", "policy.settings.leverage: 2.0 -> 2.02",
                  "bit by bit", "2 baselines: 1 same, 1 moved"):  # fmt: skip
        assert words in text


def test_whatever_goes_wrong_is_a_verdict_that_never_passes():
    verdict = report_failure("x", ZeroDivisionError("division by zero"))
    assert verdict.exit_code == 2
    assert "ZeroDivisionError: division by zero" in verdict.reason
    assert combine_exit_codes([report_failure("y", DataError("p", where="w", cure="c"))]) == 2


def test_curves_that_are_not_finite_are_drawn():
    assert draw_pair([1.0, math.nan], [1.0, 2.0]) == ("▁·", "▁█", "")
    assert draw_pair([1.0, 1.0], [1.0, 1.0]) == ("▅▅", "▅▅", "")


# --------------------------------------------------------------------------------- assert_policy


@pytest.fixture(scope="module")
def result():
    return run()


def test_bounds_that_hold_are_true(result):
    metrics = result.metrics
    expected = assert_policy(result)
    assert expected.sharpe >= metrics["sharpe"]
    assert expected.sharpe <= metrics["sharpe"] + 1
    assert 0.0 <= expected.max_drawdown < 1.0
    assert expected.fees > 0
    assert expected.liquidations == 0
    assert expected.sharpe != 99
    assert expected.final_equity == pytest.approx(metrics["final_equity"])
    assert expected.sharpe >= assert_policy(result).sharpe


def test_a_bound_that_fails_says_measure_value_bound_and_meaning(result):
    with pytest.raises(AssertionError) as caught:
        assert_policy(result).sharpe >= 99.0  # noqa: B015 - it raises by itself
    text = str(caught.value)
    assert text.startswith(f"sharpe must be at least 99.0, was {result.metrics['sharpe']!r}")
    for words in (
        ABOUT["sharpe"].meaning,
        "more is better",
        "Constant(leverage=2.0)",
        "960 bars of 1h",
    ):
        assert words in text


@pytest.mark.parametrize(
    "check",
    [
        lambda x: x.max_drawdown <= 0.0,
        lambda x: x.max_drawdown < 0.0,
        lambda x: x.sharpe > 1e9,
        lambda x: x.liquidations == 7,
        lambda x: x.liquidations != 0,
        lambda x: x.ruin_time >= 0,  # NaN holds nothing
        lambda x: x.ruin_time != 0,
        lambda x: x.sharpe >= assert_policy(run(leverage=0.0)).final_equity,
    ],
)
def test_each_comparison_raises_where_it_does_not_hold(check, result):
    with pytest.raises(AssertionError, match=r"must be .*was"):
        check(assert_policy(result))


def test_mistakes_with_bounds_are_refused_with_a_cure(result):
    with pytest.raises(ParameterError, match="did you mean 'sharpe'"):
        _ = assert_policy(result).sharp
    with pytest.raises(ParameterError, match="a bound must be a number"):
        assert_policy(result).sharpe >= "1"  # noqa: B015
    with pytest.raises(ParameterError, match="a bound must be a number"):
        assert_policy(result).sharpe >= math.nan  # noqa: B015, PLW0177
    with pytest.raises(ParameterError, match="compared with a bound"):
        assert assert_policy(result).sharpe
    with pytest.raises(ParameterError, match="takes a result"):
        assert_policy({"sharpe": 1.0})


def test_every_measure_has_a_meaning():
    assert {*METRICS} == {*ABOUT}


def test_bars_of_a_year_are_compared_where_the_data_have_no_funding():
    quiet = bars_market(np.full(48, 100.0), np.full(48, 100.0))
    one = take_baseline(run(data=quiet), "quiet")
    assert compare_baselines(one, take_baseline(run(data=quiet), "quiet")).exit_code == 0


def of_before_the_carry(now, *, decay=None):
    """A baseline as it was before leverage_decay had the carry in it."""
    drag = now.metrics["volatility_drag"] if decay is None else decay
    kept = {k: v for k, v in now.metrics.items() if k not in ("volatility_drag", "carry_decay")}
    bands = {name: now.bands[name] for name in kept} | {"leverage_decay": Band(absolute=0.5)}
    return replace(now, metrics=kept | {"leverage_decay": drag}, bands=bands)


def test_an_older_leverage_decay_is_compared_with_the_volatility_drag(was):
    verdict = compare_baselines(of_before_the_carry(was), was)
    assert (verdict.status, verdict.moved) == ("same", ())
    assert verdict.renamed == ("leverage_decay of this baseline is today's volatility_drag",)
    for text in (write_text([verdict]), write_markdown([verdict]).replace("\\", "")):
        assert "leverage_decay of this baseline is today's volatility_drag" in text
    assert verdict.to_dict()["renamed"] == list(verdict.renamed)
    assert "volatility_drag" in verdict.to_dict()["metrics"]
    assert compare_baselines(was, was).renamed == ()


def test_an_older_leverage_decay_that_moved_is_named_as_today(was):
    old = of_before_the_carry(was, decay=was.metrics["volatility_drag"] + 1.0)
    (moved,) = compare_baselines(old, was).moved
    assert (moved.name, moved.direction) == ("volatility_drag", BETTER)


def test_a_rewritten_baseline_takes_the_tolerance_to_the_present_name(was):
    new = rewrite_baseline(of_before_the_carry(was), was, "the carry is part of it")
    assert new.bands["volatility_drag"] == Band(absolute=0.5)
    assert new.bands["leverage_decay"] == was.bands["leverage_decay"]
