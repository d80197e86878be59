"""Which changes a baseline catches, how they are told; its files; baselines of walks."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import baselines, core
from backtest.baselines import bands
from backtest.baselines.noise import compare_returns
from backtest.baselines.verdict import MetricMove
from backtest.baselines.verdict_text import count_statuses, list_headline, list_tables
from backtest.core import DataError, ParameterError
from backtest.results.measure_table import METRICS
from backtest.strategies import Constant
from tests.kit import (
    AT_BINANCE,
    Hold,
    ask,
    ask_test,
    call,
    check_refused,
    make_venue,
    simulate_pair,
)
from tests.store.conftest import SEARCH, SPANS
from tests.validation.worlds import POLICY, Lever, make_market

DAYS = 40
VENUE = AT_BINANCE["venue"]
EXPERIMENT = """
data.path = "data"
policy.name = "held.py:Held"
validate = {train = "50d", test = "20d", trials = 4, sampler = "sobol", robust = false}
"""


def market(*, bar=None, shift=0):
    """Forty days of the sample, the close of a bar changed, or its funding some bars later."""
    sample = bt.Market.sample(bars=24 * DAYS)
    bars = sample.bars()
    if bar is not None:
        bars.iloc[bar, bars.columns.get_loc("close")] *= 1.001
        bars["high"] = bars[["high", "close"]].max(axis=1)
        bars["low"] = bars[["low", "close"]].min(axis=1)

    funding = sample.funding()
    funding.index += pd.Timedelta(hours=shift)
    is_inside = funding.index < bars.index[-1]
    return bt.Market.from_frames(bars, funding=funding[is_inside], instrument="BTCUSDT")


def run(*, leverage=2.0, venue=VENUE, data=None):
    terms = {"venue": venue, "account": bt.Account(band=0.05)}
    return bt.run(market() if data is None else data, Constant(leverage), **terms)


def take(result=None, **more):
    return baselines.take_baseline(run() if result is None else result, "calm", **more)


def replace_columns(baseline, columns):
    return replace(baseline, trace=replace(baseline.trace, columns=columns))


def disturb(baseline, factor):
    """Return a baseline whose equity is larger by a factor."""
    columns = baseline.trace.columns
    return replace_columns(baseline, {**columns, "equity": columns["equity"] * factor})


@pytest.fixture(scope="module")
def was():
    return take()


def columns_at_first(verdict):
    return [move.column for move in verdict.bars.at_first]


def test_a_fee_off_by_a_tenth_of_a_basis_point_is_named_with_its_step_and_size(was):
    now = take(run(venue=VENUE.override({"fees.taker": VENUE.fees.taker + 1e-5})))
    verdict = baselines.compare_baselines(was, now)

    assert verdict.exit_code == 1
    assert verdict.bars.first == 1
    assert columns_at_first(verdict)[0] == "fees"
    assert [str(change) for change in verdict.changes] == ["venue.fees.taker: 0.0005 -> 0.00051"]

    moved = now.metrics["final_equity"] - was.metrics["final_equity"]
    assert sum(verdict.bars.terms.values()) == pytest.approx(moved, rel=1e-6)

    directions = {move.name: move.direction for move in verdict.moved}
    assert "worse in" in verdict.reason
    assert directions["fees"] == bands.WORSE


def test_funding_shifted_by_one_bar_is_named_at_the_first_settlement_that_moved(was):
    verdict = baselines.compare_baselines(was, take(run(data=market(shift=1))))
    first_paid = np.flatnonzero(was.trace.columns["funding"])[0]

    assert verdict.exit_code == 1
    assert verdict.bars.first == first_paid
    assert columns_at_first(verdict)[0] == "funding"
    assert verdict.bars.data.bar <= first_paid
    assert "data.content_hash" in [change.name for change in verdict.changes]


def test_one_bar_of_data_that_changed_is_named(was):
    verdict = baselines.compare_baselines(was, take(run(data=market(bar=500))))

    assert verdict.exit_code == 1
    assert verdict.bars.data.bar == 500
    assert verdict.bars.data.count == 1
    assert verdict.bars.first == 500
    assert columns_at_first(verdict)[0] == "close"
    assert "data differ" in baselines.write_text([verdict])


@pytest.mark.parametrize("what", ["funding", "mark"])
def test_data_of_a_kind_that_are_gone_cannot_be_measured(what):
    sample = bt.Market.sample(bars=24 * 4)
    frames = {"funding": sample.funding(), "mark": sample.mark()}
    whole = take(run(data=bt.Market.from_frames(sample.bars(), **frames)))
    del frames[what]
    less = take(run(data=bt.Market.from_frames(sample.bars(), **frames)))

    for mode in ("exact", "tolerance"):
        verdict = baselines.compare_baselines(whole, less, mode=mode)
        assert verdict.exit_code == 2
        assert what in verdict.reason
        assert "the run lacks data" in verdict.reason

    assert baselines.compare_baselines(less, whole).exit_code == 1


def test_other_bars_cannot_be_measured(was):
    verdict = baselines.compare_baselines(was, take(run(data=market().prefix(24 * DAYS - 1))))

    assert verdict.exit_code == 2
    assert "960 of" in verdict.reason
    assert "959 of" in verdict.reason


def test_a_measure_that_is_computed_otherwise_moves_though_all_bars_are_the_same(was):
    now = take()
    now = replace(now, metrics={**now.metrics, "sharpe": -9.0})
    verdict = baselines.compare_baselines(was, now)

    assert verdict.exit_code == 1
    assert verdict.bars.is_same
    assert verdict.reason == "worse in sharpe"


def test_the_same_platform_means_the_same_bytes_and_another_one_a_billionth_per_bar(was):
    verdict = baselines.compare_baselines(was, disturb(was, 1.0 + 1e-15))
    assert verdict.exit_code == 1
    assert verdict.bars.is_exact
    assert bands.NEITHER in verdict.reason

    elsewhere = {**was.host, "numpy": "1.99"}
    for factor, exit_code in ((1.0 + 1e-12, 0), (1.0 + 1e-8, 1)):
        now = replace(disturb(was, factor), host=elsewhere)
        verdict = baselines.compare_baselines(was, now)
        assert verdict.exit_code == exit_code
        assert not verdict.bars.is_exact
        assert "to 1e-9 relative per bar" in verdict.basis
        assert f"numpy {was.host['numpy']} -> 1.99" in verdict.basis


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_fee_of_one_venue_is_named_with_its_instrument():
    markets = simulate_pair(60)

    def take_pair(fee_of_second):
        venues = {"AAA": make_venue(taker=0.001), "BBB": make_venue(taker=fee_of_second)}
        account = bt.Account(capital=1_000.0)
        result = bt.run(
            markets, Hold(2.0), venue=venues, account=account, overlay=Hold(0.5), sampling="1h"
        )
        return baselines.take_baseline(result, "pair")

    was = take_pair(0.001)
    now = take_pair(0.0011)
    verdict = baselines.compare_baselines(was, now)
    assert verdict.exit_code == 1
    assert "venue.BBB.fees.taker: 0.001 -> 0.0011" in [str(change) for change in verdict.changes]

    # BBB is listed in bar 6: decided at its close, filled in bar 7
    assert verdict.bars.first == 7
    assert [move.step for move in verdict.bars.at_first][:2] == ["fees", "fees of BBB"]
    moved = now.metrics["final_equity"] - was.metrics["final_equity"]
    assert sum(verdict.bars.terms.values()) == pytest.approx(moved, rel=1e-9)


@pytest.mark.parametrize(("given", "band"), [
    ("5%", bands.Band(relative=0.05)),
    ("0.05", bands.Band(absolute=0.05)),
    (0.05, bands.Band(absolute=0.05)),
    (2, bands.Band(absolute=2.0)),
    ("any", bands.Band()),
    ({"relative": 1e-9}, bands.Band(relative=1e-9)),
])  # fmt: skip
def test_a_tolerance_is_read_and_written(given, band):
    assert bands.read_band(given, "t") == band
    assert bands.read_band(band.to_data(), "t") == band


@pytest.mark.parametrize(
    "given", ["-1", "x", "nan", "inf", "", None, True, [], {"relative": "y"}, {"rel": 1}, "-5%"]
)
def test_a_tolerance_that_is_none_is_refused(given):
    check_refused(lambda: bands.read_band(given, "t"), "t must be a number from 0")


TOO_WIDE = ["100001%", {"relative": 1000.5}, {"relative": "1e300"}]


@pytest.mark.parametrize("given", TOO_WIDE, ids=str)
def test_a_relative_tolerance_that_cannot_fail_is_refused(given):
    check_refused(lambda: bands.read_band(given, "t"), "t must be at most 1000 relative")
    assert bands.read_band({"relative": 1000.0}, "t").relative == 1000.0


def test_a_baseline_that_cannot_fail_is_refused(was):
    """An absolute tolerance may be 1,000 times its measure, or 1,000; of money, 1,000 times the
    largest amount, here the equity of some 10,000."""

    check_refused(lambda: take(tolerance={"*": "any"}), "a tolerance of at least one measure")
    check_refused(lambda: take(tolerance={"sharpe": 1e5}), "tolerance of sharpe must be at most")
    check_refused(lambda: take(tolerance={"impact": 1e8}), "tolerance of impact must be at most")
    check_refused(lambda: replace(was, metrics={}), "must have measures, got none")

    assert was.metrics["impact"] == 0.0
    assert take(tolerance={"impact": 1e6}).bands["impact"].absolute == 1e6
    assert take(tolerance={"*": "any", "fees": 0.0}).bands["sharpe"].is_open


def invent_measure(baseline):
    metrics = {**baseline.metrics, "invented": 1.0}
    chosen = {**baseline.bands, "invented": bands.Band(relative=0.1)}
    return replace(baseline, metrics=metrics, bands=chosen)


def lose_measure(baseline):
    metrics = dict(baseline.metrics)
    del metrics["sharpe"]
    return replace(baseline, metrics=metrics)


def invent_column(baseline):
    columns = {**baseline.trace.columns, "invented": baseline.trace.time * 0.5}
    return replace_columns(baseline, columns)


def lose_column(baseline):
    columns = dict(baseline.trace.columns)
    del columns["unit"]
    return replace_columns(baseline, columns)


UNLIKE = {  # what the verdict says: how the baseline differs from the run
    "the run lacks measures of the baseline: invented": invent_measure,
    "the baseline lacks measures of the run: sharpe": lose_measure,
    "the run lacks columns of bars of the baseline: invented": invent_column,
    "the baseline lacks columns of bars of the run: unit": lose_column,
}


@pytest.mark.parametrize("mode", ["exact", "tolerance"])
@pytest.mark.parametrize("reason", UNLIKE)
def test_what_the_run_has_is_compared_not_what_the_file_lists(reason, mode, was):
    verdict = baselines.compare_baselines(UNLIKE[reason](was), was, mode=mode)

    assert verdict.exit_code == 2
    assert verdict.reason.startswith(reason)
    assert "--update" in verdict.reason


def test_the_counts_always_name_what_moved_and_what_was_not_measured(was):
    same = baselines.compare_baselines(was, was)
    other = replace(was, metrics={**was.metrics, "sharpe": -9.0})
    moved = baselines.compare_baselines(was, other)
    assert count_statuses([same]) == "1 baseline: 1 same, 0 moved, 0 not measured"
    assert count_statuses([same, moved]) == "2 baselines: 1 same, 1 moved, 0 not measured"

    skipped = replace(same, status=baselines.SKIPPED)
    assert count_statuses([skipped]) == ("1 baseline: 0 same, 0 moved, 0 not measured, 1 skipped")


def test_a_band_holds_its_ends_and_what_does_not_exist():
    assert bands.Band(absolute=0.1).holds(0.0, -0.1)
    assert not bands.Band(absolute=0.1).holds(0.0, 0.11)

    for x in (math.nan, math.inf):
        assert bands.Band(relative=0.0).holds(x, x)
        assert not bands.Band(relative=1.0).holds(x, 1.0)

    assert bands.Band().holds(math.nan, 1.0)
    assert bands.Band(relative=1e-9).holds(0.0, 1e-17)


def test_the_last_pattern_that_names_a_measure_holds():
    chosen = bands.choose_bands(METRICS, {"*": "5%", "es_*": 0.1, "es_99": "any"}, {})

    assert chosen["sharpe"] == bands.Band(relative=0.05)
    assert chosen["es_95"] == bands.Band(absolute=0.1)
    assert chosen["es_99"].is_open

    check_refused(lambda: bands.choose_bands(METRICS, {"sharp": 1}, {}), "did you mean 'sharpe'")


@pytest.mark.slow
def test_a_move_for_the_better_fails_unless_it_is_allowed():
    held = take(mode="tolerance", tolerance={"*": "any", "fees": 0.0})
    cheaper = take(run(venue=VENUE.override({"fees.taker": 4e-4})))
    verdict = baselines.compare_baselines(held, cheaper)
    assert (verdict.exit_code, verdict.reason) == (1, "better in fees")

    verdict = baselines.compare_baselines(held, cheaper, allow_better=["fees"])
    assert (verdict.exit_code, verdict.accepted) == (0, ("fees",))
    assert "allowed" in baselines.write_text([verdict])

    dearer = take(run(venue=VENUE.override({"fees.taker": 6e-4})))
    verdict = baselines.compare_baselines(held, dearer, allow_better=["*"])
    assert verdict.exit_code == 1

    with pytest.raises(ParameterError, match="did you mean 'sharpe'"):
        baselines.compare_baselines(held, cheaper, allow_better=["sharp"])


def grow(changes, was):
    """Return the baseline with daily log returns of N(0, 2 %), and changes to them, planted."""
    n_days = len(changes)
    steps = np.random.default_rng(7).normal(0.0, 0.02, n_days) + changes
    unit = 10_000.0 * np.repeat(np.exp(np.cumsum(steps)), 24)
    ends = np.tile(np.arange(24) == 23, n_days).astype(float)
    hours = was.trace.time[0] + np.arange(24 * n_days) * was.trace.interval

    columns = {name: np.zeros(24 * n_days) for name in was.trace.columns}
    columns |= {"unit": unit, "equity": unit, "ends_sample": ends}
    return replace(was.trace, time=hours, columns=columns, inputs=None, first_unit=10_000.0)


def draw_noise():
    """Four hundred daily differences of deviation 0.2 %, of mean 0 by construction."""
    noise = np.random.default_rng(1).normal(0.0, 0.002, 400)
    return noise - noise.mean()


def planted(was, changes):
    """Compare returns with those that have changes planted."""
    unchanged = grow(np.zeros(len(changes)), was)
    return compare_returns(unchanged, grow(changes, was))


@pytest.mark.slow
def test_a_policy_that_got_worse_or_better_beyond_noise_is_told(was):
    # the differences have mean -/+ 0.2 % and deviation 0.2 %: 20 standard errors at 400 days
    noise = draw_noise()
    assert planted(was, noise - 0.002).verdict == "worse"

    better = planted(was, noise + 0.002)
    assert better.verdict == "better"
    assert better.low < 0.002 * 365 < better.high
    assert better.p_value == pytest.approx(1 / 2000)


def test_noise_is_indistinguishable(was):
    comparison = planted(was, draw_noise())

    assert comparison.verdict == "indistinguishable"
    assert comparison.low < 0.0 < comparison.high
    assert not comparison.reason


@pytest.mark.parametrize("change", [0.0, 1e-14])
def test_the_same_returns_and_rounding_need_no_test(was, change):
    comparison = planted(was, np.full(400, change))

    assert comparison.verdict == "indistinguishable"
    assert comparison.reason == "every return is the same"
    assert (comparison.low, comparison.difference, comparison.high) == (0.0, 0.0, 0.0)


def test_few_returns_have_no_test(was):
    comparison = planted(was, np.full(20, 1e-3))

    assert comparison.verdict == "unknown"
    assert comparison.reason == "20 returns are too few, 30 are needed"


def test_ruin_needs_no_test(was):
    whole = grow(np.zeros(400), was)
    unit = whole.columns["unit"].copy()
    unit[5000:] = 0.0
    ruined = replace(whole, columns={**whole.columns, "unit": unit})
    assert compare_returns(whole, ruined).verdict == "worse"
    assert compare_returns(ruined, whole).verdict == "better"

    unknown = np.where(unit > 0.0, unit, np.nan)
    lost = replace(whole, columns={**whole.columns, "unit": unknown})
    assert compare_returns(whole, lost).verdict == "unknown"

    grown = grow(np.full(400, 0.002), was)  # and yet it was closed at its line of ruin
    assert compare_returns(whole, grown, is_ruined=True).verdict == "worse"
    assert compare_returns(grown, whole, was_ruined=True).verdict == "better"


def list_first_cells(table):
    return [row[0] for row in table[1]]


def test_a_verdict_always_shows_the_five_headline_measures(was):
    """Also where nothing moved; a measure that a walk does not have is left out."""
    names = ["total_return", "cagr", "sharpe", "max_drawdown", "final_equity"]
    same = baselines.compare_baselines(was, was)
    text = baselines.write_text([same])
    assert list_first_cells(list_headline(same)) == names
    assert all(name in text for name in names)

    shifted = {**was.metrics, "sharpe": was.metrics["sharpe"] * 1.1}
    moved = baselines.compare_baselines(was, replace(was, metrics=shifted))
    rows = list_headline(moved)[1]
    assert [row[0] for row in rows if row[-1] == "moved"] == ["sharpe"]

    walk = replace(was, metrics={"sharpe": was.metrics["sharpe"]})
    walked = baselines.compare_baselines(walk, walk)
    assert list_first_cells(list_headline(walked)) == ["sharpe"]


def test_what_moved_within_its_noise_is_in_neither_the_table_nor_the_headline(was):
    """Before: the headline said "worse in sharpe" beside "within noise: sharpe"."""
    noise = draw_noise()
    base = replace(was, trace=grow(np.zeros(400), was))
    moved = {name: was.metrics[name] * 1.01 for name in ("cagr", "sharpe", "volatility", "fees")}
    now = replace(was, trace=grow(noise, was), metrics={**was.metrics, **moved})
    verdict = baselines.compare_baselines(base, now)

    hidden = {move.name for move in verdict.within_noise}
    assert hidden == {*moved} & {*verdict.noise.within} != set()
    assert {*list_first_cells(next(list_tables(verdict)))} == {*moved} - hidden
    assert not [name for name in hidden if name in verdict.reason]
    assert f"noise: {len(hidden)} moved within noise: " in baselines.write_text([verdict])

    # Where nothing else moved, the run did all the same.
    only_hidden = {**was.metrics, **{name: moved[name] for name in hidden}}
    silent = baselines.compare_baselines(base, replace(now, metrics=only_hidden))
    assert silent.exit_code == 1
    assert silent.reason == f"{bands.NEITHER}: what moved is within noise"

    beyond = baselines.compare_baselines(base, replace(now, trace=grow(noise - 0.002, was)))
    assert "cagr" not in {move.name for move in beyond.within_noise}


def test_the_same_run_makes_the_same_bytes_sorted_and_indented(was, tmp_path):
    one = baselines.save_baseline(was, tmp_path / "a")
    two = baselines.save_baseline(take(), tmp_path / "b")
    names = sorted(path.name for path in one.parent.iterdir())
    assert names == sorted(path.name for path in two.parent.iterdir())
    for name in names:
        assert (one.parent / name).read_bytes() == (two.parent / name).read_bytes()

    text = one.read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert json.loads(text)["metrics"]["sharpe"]["tolerance"] == {"relative": 1e-9}


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=1, sort_keys=True))


def test_tolerances_and_mode_may_be_edited_by_hand(was, tmp_path):
    path = baselines.save_baseline(was, tmp_path)
    edit(path, lambda data: data["metrics"]["sharpe"].update(tolerance="5%"))
    edit(path, lambda data: data.update(mode="tolerance"))

    back = baselines.load_baseline(path)
    assert back.bands["sharpe"] == bands.Band(relative=0.05)
    assert back.mode == "tolerance"


DAMAGE = {  # name: what is done to the file of a baseline
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:400]),
    "another format": lambda path: edit(path, lambda data: data.update(format=7)),
    "no tolerance": lambda path: edit(path, lambda data: data["metrics"]["fees"].pop("tolerance")),
    "no measures": lambda path: edit(path, lambda data: data.update(metrics={})),
    "measures of text": lambda path: edit(
        path, lambda data: data["metrics"]["fees"].update(value="x")
    ),
    "a number for a measure": lambda path: edit(
        path, lambda data: data["metrics"].update(fees=1.0)
    ),
    "no file of bars": lambda path: edit(path, lambda data: data["bars"].pop("file")),
    "a tolerance without an end": lambda path: edit(
        path, lambda data: data["metrics"]["fees"].update(tolerance={"relative": 1e9})
    ),
    "only tolerances without an end": lambda path: edit(
        path, lambda data: [each.update(tolerance="any") for each in data["metrics"].values()]
    ),
    "facts of a list": lambda path: edit(path, lambda data: data.update(facts=[])),
    "an experiment of numbers": lambda path: edit(path, lambda data: data.update(experiment=[1])),
    "bars of nothing": lambda path: edit(path, lambda data: data["bars"].update(interval=0)),
    "bars without end": lambda path: edit(
        path, lambda data: data["bars"].update(interval=math.inf)
    ),
    "a file elsewhere": lambda path: edit(path, lambda data: data["bars"].update(file="../x")),
    "half the bars": lambda path: [
        bars.write_bytes(bars.read_bytes()[:9000]) for bars in path.parent.glob("*.parquet")
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_baseline_is_refused(damage, was, tmp_path):
    path = baselines.save_baseline(was, tmp_path)
    DAMAGE[damage](path)

    with pytest.raises(DataError, match=re.escape(f"{tmp_path}")) as refused:
        baselines.load_baseline(path)
    assert "KeyError" not in str(refused.value)
    assert "subscriptable" not in str(refused.value)


@pytest.mark.slow
def test_a_writer_that_fails_anywhere_leaves_the_old_baseline(was, tmp_path, monkeypatch):
    path = baselines.save_baseline(was, tmp_path)
    write = core.write_file
    later = take(run(leverage=3.0))

    for stage in (1, 2):
        calls = []

        def full(target, content, calls=calls, stage=stage):
            calls.append(target)
            if len(calls) == stage:
                raise OSError(28, "No space left on device")
            write(target, content)

        monkeypatch.setattr(core, "write_file", full)
        with pytest.raises(DataError, match="No space left"):
            baselines.save_baseline(later, tmp_path)
        assert not baselines.load_baseline(path).is_other_than(was)

    monkeypatch.setattr(core, "write_file", write)
    baselines.save_baseline(later, tmp_path)
    assert baselines.load_baseline(path).is_other_than(was)
    assert not list(tmp_path.glob(".new-*"))


def test_a_rewritten_baseline_keeps_reason_old_values_tolerances_and_mode():
    held = take(mode="tolerance", tolerance={"sharpe": 0.5}, experiment="../calm.toml")
    renewed = baselines.rewrite_baseline(held, take(run(leverage=3.0)), " bolder ")
    assert renewed.bands == held.bands
    assert (renewed.mode, renewed.experiment) == ("tolerance", "../calm.toml")

    (entry,) = renewed.history
    assert entry["reason"] == "bolder"
    assert entry["metrics"]["sharpe"] == held.metrics["sharpe"]
    assert "policy.settings.leverage: 2.0 -> 3.0" in entry["changed"]

    assert len(baselines.rewrite_baseline(renewed, held, "back").history) == 2
    check_refused(lambda: baselines.rewrite_baseline(held, held, "  "), "needs a reason")


def test_no_baseline_at_all_is_no_pass(tmp_path):
    check_refused(lambda: baselines.find_baselines([tmp_path]), "no baseline to check", DataError)

    gone = [tmp_path / "gone.json"]
    check_refused(lambda: baselines.find_baselines(gone), "there is no baseline")

    assert baselines.combine_exit_codes([]) == 2


def test_names_of_files_are_harmless():
    assert baselines.name_baseline("../../x") == "x"
    assert baselines.name_baseline("<script>") == "script"
    assert baselines.name_baseline("\u202e" + "a" * 10_000) == "a" * 100
    assert baselines.name_baseline("///") == "baseline"


@pytest.fixture(scope="module")
def walk():
    return ask_test("walk_forward", make_market(90), Lever, **SEARCH, **SPANS)


@pytest.fixture(scope="module")
def walked(walk):
    return baselines.take_baseline(walk, "calm-walk")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_walk_is_recorded_with_its_account_its_figures_and_its_winners(walk, walked, tmp_path):
    years = len(walk.result.close) / (4 * 365)
    growth = math.log1p(walk.result.metrics["total_return"]) / years
    assert walked.metrics["walk_growth"] == pytest.approx(growth)
    assert walked.metrics["walk_growth_fixed"] == walk.figures["growth_fixed"]
    assert walked.metrics["walk_pbo"] == float(walk.pbo)
    assert walked.metrics["sharpe"] == walk.result.metrics["sharpe"]
    assert len(walked.trace.time) == len(walk.result.close)

    sizes = [winner["size"] for winner in walked.facts["winners"]]
    assert sizes == walk.folds["size"].tolist()
    assert walked.facts["walk"]["trials"] == 4
    assert "switches" not in walked.facts["policy"]

    loaded = baselines.load_baseline(baselines.save_baseline(walked, tmp_path))
    assert not loaded.is_other_than(walked)
    assert baselines.compare_baselines(loaded, walked).status == "same"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_moved_winner_is_named_and_is_no_cause(walked):
    winners = [{"size": 1.25}, *walked.facts["winners"][1:]]
    better = walked.metrics["walk_efficiency_difference"] + 7.0
    metrics = {**walked.metrics, "walk_efficiency_difference": better, "walk_pbo": 0.9}
    now = replace(walked, facts={**walked.facts, "winners": winners}, metrics=metrics)

    verdict = baselines.compare_baselines(walked, now)
    assert (verdict.status, verdict.exit_code) == ("moved", 1)
    assert {move.name for move in verdict.moved} == {"walk_efficiency_difference", "walk_pbo"}
    assert json.loads(json.dumps(verdict.to_dict()))["changes"][0]["kind"] == "winners"

    for text in (baselines.write_text([verdict]), baselines.write_markdown([verdict])):
        assert "winners[0].size" in text
        assert "1.25" in text
        assert "no recorded fact" in text
        assert "walk_pbo" in text

    allowed = baselines.compare_baselines(walked, now, allow_better=["walk_eff*"])
    assert allowed.accepted == ("walk_efficiency_difference",)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_walk_is_recorded_and_checked_at_the_command_line(tmp_path, monkeypatch, capsys):
    make_market(90).save(tmp_path / "data")
    (tmp_path / "held.py").write_text(POLICY)
    (tmp_path / "calm.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)

    words = ("regress", "record", "calm.toml", "--walk", "--tolerance", "walk_*=1%")
    assert call(capsys, *words)[0] == 0
    checked = ask(capsys, "regress", "check")["baselines"][0]
    assert (checked["name"], checked["status"]) == ("calm-walk", "same")
    assert checked["metrics"]["walk_growth"]["inside"]

    (tmp_path / "calm.toml").write_text(EXPERIMENT.replace("trials = 4", "trials = 16"))
    code, text, _ = call(capsys, "regress", "check", "--summary", "out.md")
    assert code == 1
    assert "walk.trials: 4 -> 16" in text
    assert "winners changed" in text
    assert "walk_growth" in (tmp_path / "out.md").read_text()


def test_the_summary_of_a_pull_request_has_six_rows_and_folds_the_rest():
    names = ("total_return", "cagr", "sharpe", "max_drawdown", "final_equity", "liquidations")
    moves = [
        MetricMove(name, 1.0, 2.0 if name == "sharpe" else 1.0, bands.Band(relative=1e-9), "better")
        for name in (*names, "turnover")
    ]
    text = baselines.write_markdown(
        [baselines.RegressVerdict("calm", "moved", "x", metrics=(*moves,))]
    )
    seen, _, folded = text.partition("<details>")
    assert [row.split(" | ")[0] for row in seen.splitlines() if row.startswith("| ")] == [
        "| measure",
        *(f"| {name}" for name in names),
    ]
    assert "| sharpe | 1 | 2 | \N{UPWARDS ARROW} +100 % |" in seen
    assert "calm: moved: x" in folded
