"""A walk: one account through all test spans, nothing known before its time, and its verdict."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.core import format_probability
from backtest.engine.run import Segment, run_switched
from backtest.policies.lookahead import rewrite_after
from backtest.results.luck import probability_of_skill
from backtest.search import deflate_alone
from backtest.search.validation import estimate_overfitting, find_rank
from backtest.search.walk_forward import count_ways, list_warnings, measure_defaults
from backtest.search.winner import warn_of_few_fills
from backtest.strategies import Constant
from tests.kit import ask_test, bars_market, check_refused, make_venue, simulate_pair
from tests.validation.worlds import ACCOUNT, TERMS, VENUE, Lever, make_market

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # test spans under 200 bars
MARKET = make_market(110)  # 440 bars of 6 h
SMALL = {"trials": 4, "robust": False, "sampler": "sobol", "train": "50d", "test": "20d"}
FALLEN = 0.3
DAYS = 365 * 4
PLANTED = {"trials": 16, "sampler": "sobol", "robust": False}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def walk(store):
    return ask_test("walk_forward", MARKET, Lever, **TERMS, **SMALL, store=store)


def test_a_walk_has_the_rows_and_columns_of_the_page(walk):
    times = ["train_start", "train_end", "test_start", "test_end"]
    rest = ["in_sample", "out_of_sample", "rank", "shrinkage", "difference", "trials"]
    assert list(walk.folds.columns) == [*times, "size", "window", *rest, "deflated_sharpe"]

    assert len(walk.folds) == 3  # 50 + 3 x 20 days
    assert walk.folds["test_end"].iloc[-1] == pd.Timestamp(MARKET.end, tz="UTC")
    assert (walk.folds["rank"].between(0.0, 1.0)).all()

    folds = walk.folds
    assert np.allclose(folds["difference"], folds["out_of_sample"] - folds["in_sample"])
    positive = folds["in_sample"] > 0.0
    assert np.isnan(folds.loc[~positive, "shrinkage"]).all()
    ratio = folds["out_of_sample"] / folds["in_sample"]
    assert np.allclose(folds.loc[positive, "shrinkage"], ratio[positive])


def test_objectives_of_a_winner_are_those_of_fresh_accounts_on_both_spans(walk):
    row = walk.folds.iloc[1]
    policy = Lever(size=row["size"], window=int(row["window"]))
    for name, start, end in (
        ("in_sample", row["train_start"], row["train_end"]),
        ("out_of_sample", row["test_start"], row["test_end"]),
    ):
        seen = MARKET.prefix(MARKET.times.searchsorted(end))
        assert bt.run(seen, policy, **TERMS, start=start).metrics["sharpe"] == row[name]


def test_a_walk_from_a_start_trains_and_tests_from_there():
    """It begins on day 30 of 110: 50 days to train, tests of 20 days and of the last 10."""
    start = MARKET.times[4 * 30]
    late = ask_test("walk_forward", MARKET, Lever, **TERMS, **SMALL, start=start)

    days = (late.folds[["train_start", "test_start", "test_end"]] - MARKET.times[0]).to_numpy()
    assert (days / np.timedelta64(1, "D")).tolist() == [[30, 80, 100], [50, 100, 110]]

    row = late.folds.iloc[0]
    policy = Lever(size=row["size"], window=int(row["window"]))
    seen = MARKET.prefix(4 * 80)

    assert row["in_sample"] == bt.run(seen, policy, **TERMS, start=start).metrics["sharpe"]
    assert late.manifest["data"]["start"] == "2024-01-31"


def test_a_space_of_one_set_walks_as_one_run_bit_for_bit():
    only = {"space": {"size": [1.5]}, "fix": {"window": 5}}
    walk = ask_test("walk_forward", MARKET, Lever, **TERMS, **SMALL, **only)
    policy = Lever(size=1.5, window=5)
    alone = bt.run(MARKET, policy, **TERMS, start=walk.folds["test_start"].iloc[0])

    assert np.array_equal(walk.result.record.values, alone.record.values, equal_nan=True)
    assert walk.result.manifest["id"] == alone.manifest["id"]
    assert repr(dict(walk.result.metrics)) == repr(dict(alone.metrics))
    pd.testing.assert_frame_equal(walk.result.bars, alone.bars, check_exact=True)
    assert math.isnan(walk.pbo)


@pytest.mark.slow
def test_one_fold_is_a_search_with_that_holdout():
    common = {"trials": 8, "robust": True, "seed": 3}
    walk = ask_test("walk_forward", MARKET, Lever, **TERMS, train="80d", test="30d", **common)
    study = ask_test("tune", MARKET, Lever, **TERMS, **common, holdout="30d")

    row = walk.folds.iloc[0]
    assert {"size": row["size"], "window": row["window"]} == study.best_values
    assert row["in_sample"] == study.verdict.score
    assert row["out_of_sample"] == study.verdict.holdout_score
    assert row["deflated_sharpe"] == study.verdict.deflated_sharpe
    assert row["trials"] == study.trials


@pytest.mark.slow
def test_a_fold_of_two_objectives_trades_the_knee_of_its_frontier():
    common = {"trials": 8, "objective": ["cagr", "max_drawdown"]}
    walk = ask_test("walk_forward", MARKET, Lever, **TERMS, train="80d", test="30d", **common)
    study = ask_test("tune", MARKET, Lever, **TERMS, holdout="30d", **common)

    row = walk.folds.iloc[0]
    found = study.frontier(draws=5)
    for name in ("size", "window"):
        assert row[name] == study.best_values[name] == found.points.loc[found.knee, name]
    assert "were chosen by CAGR and max drawdown" in walk.describe_search()


def test_other_bars_after_a_fold_change_nothing_up_to_it(walk):
    stop = MARKET.times.searchsorted(walk.folds["test_end"].iloc[1])
    other = rewrite_after(MARKET, stop - 1, np.random.default_rng(1))
    again = ask_test("walk_forward", other, Lever, **TERMS, **SMALL)
    pd.testing.assert_frame_equal(again.folds.iloc[:2], walk.folds.iloc[:2], check_exact=True)

    n = stop - (MARKET.n_bars - len(walk.result.close))
    for one, other in zip(again.result.record[:2], walk.result.record[:2], strict=True):
        for name in set(one._fields) - {"target"}:  # the last one is a decision of the next fold
            assert np.array_equal(getattr(one, name)[:n], getattr(other, name)[:n])

    trials_before = walk.trials[walk.trials["fold"] < 2]
    trials_again = again.trials[again.trials["fold"] < 2]
    pd.testing.assert_frame_equal(trials_before, trials_again, check_exact=True)

    assert not again.folds.iloc[2:].equals(walk.folds.iloc[2:])


def test_the_account_is_carried_over_the_boundaries(walk):
    assert walk.result.metrics["final_equity"] > 0.0

    switches = walk.result.manifest["policy"]["switches"]
    changes = int((walk.folds[["size", "window"]].diff().iloc[1:] != 0.0).any(axis=1).sum())
    assert len(switches) == 1 + changes

    first = walk.folds["test_start"].iloc[0]
    fixed = bt.run(MARKET, Lever(**switches[0]["settings"]), **TERMS, start=first)
    assert np.array_equal(walk.fixed.record.values, fixed.record.values, equal_nan=True)


def test_efficiency_is_growth_out_of_sample_over_growth_in_sample(walk):
    days = (walk.folds["test_end"].iloc[-1] - walk.folds["test_start"].iloc[0]).days
    growth = math.log1p(walk.result.metrics["total_return"]) / (days / 365)
    assert walk.figures["growth_out_of_sample"] == pytest.approx(growth)

    inside = walk.figures["growth_in_sample"]
    assert walk.efficiency_difference == pytest.approx(growth - inside)
    expected = growth / inside if inside > 0.0 else math.nan
    assert walk.efficiency == pytest.approx(expected, nan_ok=True)


def test_stability_says_how_far_winners_move(walk):
    size = (walk.folds["size"] - 0.1) / 3.9
    low, high = np.quantile(size, [0.25, 0.75])
    assert walk.stability.loc["size", "interquartile_range"] == pytest.approx(high - low)

    held = np.mean(np.abs(np.diff(size)) <= 0.1)
    assert walk.stability.loc["size", "plateau_held"] == pytest.approx(held)
    assert -1.0 <= walk.stability["rank_correlation"].iloc[0] <= 1.0


def test_ranks_and_overfitting_by_hand():
    """Winners at ranks 1, 0.5 and 0.2: two of three are no better than the median."""
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert [find_rank(scores, row) for row in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]

    found = estimate_overfitting(pd.Series([1.0, 0.5, 0.2, math.nan]), 3)
    assert found == pytest.approx(2 / 3)

    # Wilson's interval of 2 of 3 with z = 1.96: centre (2/3 + 0.640) / (1 + 1.280) = 0.573
    assert 0.5 * (found.low + found.high) == pytest.approx(0.573, abs=1e-3)


def test_the_accounts_of_a_stored_walk_are_loaded_and_checked(walk, store):
    folder = next(path for path in store.iterdir() if path.is_dir())
    loaded = bt.WalkForward.load(folder)
    assert loaded.summary() == walk.summary()
    assert dict(loaded.result.metrics) == pytest.approx(dict(walk.result.metrics), nan_ok=True)

    (folder / "accounts" / "result" / "manifest.json").write_text("{}")
    check_refused(lambda: bt.WalkForward.load(folder), "restore the file", bt.DataError)


@pytest.mark.parametrize(("given", "match"), [
    ({"resume": True}, "resume needs the store"),
    ({"store": 5}, "store must be"),
    ({"space": {"account.band": (0.0, 0.5)}}, "parameters of policies"),
    ({"trials": 2}, "trials"),
    ({"train": "20d"}, "200 bars"),
    ({"constraints": {"sharpe": ">= 100"}}, "first train span"),
])  # fmt: skip
def test_arguments_that_cannot_be_are_refused(given, match):
    check_refused(
        lambda: ask_test("walk_forward", MARKET, Lever, **TERMS, **{**SMALL, **given}), match
    )


@pytest.mark.slow
def test_a_signal_of_any_form_leads_an_account_whose_winners_differ():
    market = make_market(90, seed=1)
    turns = np.sign(np.sin(np.arange(market.n_bars) / 25.0))
    market = market.with_columns(mood=turns)

    forms = (turns, pd.Series(turns, index=market.times), "mood", -1.0, np.full(len(turns), -1.0))
    how = {**TERMS, **SMALL, "objective": "total_return"}

    walks = [ask_test("walk_forward", market, Lever, **how, signal=each) for each in forms]
    assert all(each.folds["size"].nunique() > 1 for each in walks)

    ends = [each.result.metrics["final_equity"] for each in walks]
    assert ends[:3] == [ends[0]] * 3
    assert ends[0] != ends[3]
    assert ends[3:] == [ends[3]] * 2

    assert walks[0].result.signal[-90:].tolist() == turns[-90:].tolist()


@pytest.fixture(scope="module")
def fallen():
    bars = MARKET.bars()

    bars.loc[bars.index[300:], ["open", "high", "low", "close"]] *= 0.5
    terms = {**TERMS, "account": bt.Account(capital=10_000.0, max_leverage=1.0)}
    keep = {"max_drawdown": f"<= {FALLEN}"}
    return ask_test(
        "walk_forward", bt.Market.from_frames(bars), Lever, **terms, **SMALL, constraints=keep
    )


def make_walk(fallen, *, skill=0.4, pbo=0.4, **figures):
    """Return the same walk with 3 of 5 winners over the median, 1 of 5 searches with evidence."""
    folds = pd.DataFrame({"rank": [0.9, 0.8, 0.7, 0.2, 0.5], "trials": [4] * 5,
                          "deflated_sharpe": [0.1] * 4 + [0.96]})  # fmt: skip
    found = {"pbo": {"value": pbo, "low": 0.1, "high": 0.8}, "probabilistic_sharpe": skill}
    found |= {"broken": {}, **figures}
    return replace(fallen, folds=folds, figures={**fallen.figures, **found})


def test_chance_alone_by_hand(walk):
    """3 of 4 fair cases or more: (4 + 1) / 16."""
    folds = pd.DataFrame({"rank": [0.8, 0.6, 1.0, 0.5, math.nan]})
    assert replace(walk, folds=folds).chance == (3, 4, 2.0, 0.3125)


@pytest.mark.parametrize(("skill", "pbo", "words"), [
    (0.4, 0.4, "2 of 5 chosen sets were no better than the median (2.5"),
    (0.99, 0.8, "yet 2 of 5 chosen sets were no better than the median (2.5"),
    (0.99, 0.4, "3 of 5 chosen sets were better than the median (2.5 by chance)"),
    (0.4, 0.56, "The choice is no better than chance: the overfitting probability is 0.56"),
    (0.99, 0.56, "The choice is no better than chance: the overfitting probability is 0.56"),
])  # fmt: skip
def test_a_verdict_says_what_chance_would_give(fallen, skill, pbo, words):
    made = make_walk(fallen, skill=skill, pbo=pbo)

    assert words in f"{made.verdict}. {made.details}"
    assert ("than chance:" in made.details) == (pbo > 0.5)
    assert len(made.verdict.split()) <= 32
    assert made.chance[:3] == (3, 5, 2.5)


def test_sets_of_folds_do_not_deflate_what_they_never_saw_but_other_walks_do(walk, tmp_path):
    returns = walk.result.returns.to_numpy()
    assert walk.probabilistic_sharpe == pytest.approx(probability_of_skill(returns), rel=1e-12)

    found = format_probability(walk.probabilistic_sharpe)
    assert f"probabilistic Sharpe ratio {found} out of sample; " in walk.verdict
    assert "deflated" not in walk.verdict

    facts = {**walk.manifest, "searched": str(walk.folds["test_start"].iloc[0])}
    other = {**facts, "id": "trained for longer"}
    assert [count_ways(tmp_path, each) for each in (facts, facts, other)] == [1, 1, 2]
    assert count_ways(None, other) == 1
    assert deflate_alone(returns, 2) < deflate_alone(returns, 1) == walk.probabilistic_sharpe

    two = replace(walk, figures={**walk.figures, "ways": 2})
    assert "out of sample, deflated by 2 ways of choosing; " in two.verdict


def test_a_verdict_names_the_benchmark_that_grew_more(fallen):
    own = fallen.result.metrics
    lines = {
        "buy and hold": {"cagr": own["cagr"] + 0.5, "total_return": 0.6, "volatility": 0.8},
        "constant leverage at equal risk": {"cagr": own["cagr"] - 0.1, "volatility": 0.4},
    }

    told = make_walk(fallen, beside=lines).details
    assert re.search(r"\bBuy and hold grew by 60.00 % in \d+ days at a volatility of 80.00", told)
    assert "onstant leverage" not in told

    lines["buy and hold"]["cagr"] = own["cagr"] - 0.2
    assert "uy and hold" not in make_walk(fallen, beside=lines).details


def test_a_walk_without_constant_leverage_says_why_in_the_terminal_too(fallen):
    """Its row was missing from the table, and only the page said why."""
    why = "no constant leverage was found within 1 % of its volatility"
    alone = replace(fallen, figures={**fallen.figures, "lack": why})
    told = " ".join(alone.summary().split())
    assert f"No constant leverage stands beside it: {why}." in told


def test_a_constraint_that_the_account_broke_is_a_notice(fallen, tmp_path):
    """30 % were asked, more came, and the page said so nowhere."""
    fall = fallen.result.metrics["max_drawdown"]
    assert fall > FALLEN

    assert fallen.figures["broken"] == {"max_drawdown <= 0.3": fall}
    assert f"max_drawdown <= 0.3 (it came to {fall:.4g})" in fallen.notices[0]

    assert fallen.notices == bt.WalkForward.load(fallen.save(tmp_path)).notices
    assert "broke" not in "".join(make_walk(fallen).notices)


def test_the_market_and_constant_leverage_at_equal_risk_are_rows_of_the_table(walk, fallen):
    beside = walk.figures["beside"]
    held = beside["constant leverage at equal risk"]
    assert held["volatility"] == pytest.approx(walk.result.metrics["volatility"], rel=1e-3)
    assert held["fees"] > 0.0

    market = beside["buy and hold"]
    close = MARKET.close[-len(walk.result.close) :]
    assert market["total_return"] == pytest.approx(close[-1] / close[0] - 1.0, rel=1e-9)

    text = walk.summary()
    rows = (
        "re-optimized",
        "static parameters",
        "defaults",
        "constant leverage at equal risk",
        "buy and hold",
    )
    for name in rows:
        assert f"\n{name} " in text

    # an account that may hold 1x cannot take more risk than the unlevered market
    assert [*fallen.figures["beside"]] == ["buy and hold", "constant leverage at equal risk"]


class Lucky(bt.Policy):
    phase: Annotated[int, bt.Range(0, 999)] = 0

    def observe(self, market):
        day = market.time // 86_400_000_000_000
        value = np.sin((day + 1.0) * (self.phase + 1.0) * 12.9898) * 43758.5453
        return {"bet": (value - np.floor(value) > 0.5).astype(np.float64)}

    def leverage(self, bar, account):
        return bar.bet


class Good(bt.Policy):
    threshold: Annotated[float, bt.Range(-3.0, 3.0)] = 0.0

    def observe(self, market):
        return {"hint": market.columns["hint"]}

    def leverage(self, bar, account):
        return 1.0 if bar.hint > self.threshold else 0.0


def plant() -> bt.Market:
    """Return a random walk of days whose column hint has a correlation of 0.33 with the next."""
    rng = np.random.default_rng(5)
    steps = rng.normal(0.0, 0.02, DAYS)
    hint = np.append(steps[1:], 0.0) / 0.02 * 0.35 + rng.normal(0.0, 1.0, DAYS)
    close = 100.0 * np.exp(np.cumsum(steps))
    opened = np.concatenate(([100.0], close[:-1]))

    return bars_market(opened, close, "D", terms={"instrument": "PLANTED"}, hint=hint)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "word"), [(Lucky, "no evidence"), (Good, "evidence that it")])
def test_the_verdict_of_a_walk_tells_luck_from_skill(policy, word):
    terms = {"venue": VENUE.override(fees={"taker": 1e-4, "maker": 1e-4}), "account": ACCOUNT}
    how = {"train": "365d", "test": "120d", **PLANTED}
    fallen = ask_test("walk_forward", plant(), policy, **terms, **how)
    print(fallen)  # noqa: T201 - the page of validations quotes it
    assert fallen.verdict.startswith(word)


MARKETS = simulate_pair(480)  # hours; BBB is listed at bar 48, and delisted at bar 432
PAIR_TERMS = {
    "venue": {"AAA": make_venue(), "BBB": make_venue(taker=0.001)},
    "account": bt.Account(capital=1_000.0),
    "sampling": "6h",
}
PAIR_SMALL = {**SMALL, "seed": 1, "train": "10d", "test": "5d"}
ONE = MARKETS["AAA"]
RULE_TERMS = {**PAIR_TERMS, "venue": make_venue(taker=0.001)}


def test_the_account_lives_through_the_winners_of_all_folds():
    walk = ask_test("walk_forward", MARKETS, Lever, **PAIR_TERMS, **PAIR_SMALL)

    switches = walk.result.manifest["policy"]["switches"]
    assert [each["settings"]["size"] for each in switches] == walk.folds["size"].tolist()

    # The winner of the first fold trades 5 days of 24 hours in both.
    assert walk.result.record.n_bars == walk.fixed.record.n_bars == 240
    first = walk.result.record.values[:120]
    fixed = walk.fixed.record.values[:120]
    assert np.array_equal(first, fixed, equal_nan=True)
    assert walk.result.metrics["final_equity"] != walk.fixed.metrics["final_equity"]

    fills = walk.result.events["kind"] == "fill"
    assert sum(walk.figures["trades"]) == int(fills.sum())


@pytest.mark.slow
def test_a_walk_begins_before_an_instrument_is_listed():
    """The check of columns took those of all instruments for those listed in a part of a span."""
    late = bt.Markets({"AAA": MARKETS["AAA"], "BBB": MARKETS["AAA"].slice(200, 480)})
    terms = {**PAIR_TERMS, "venue": make_venue()}
    search = {**PAIR_SMALL, "robust": True, "overlay": Lever(0.5, 2)}
    walk = ask_test("walk_forward", late, Lever, **terms, **search)

    assert walk.manifest["overlay"] == repr(Lever(0.5, 2))
    assert f"under {Lever(0.5, 2)!r} " in " ".join(walk.summary().split())
    assert walk.result.overlay == Lever(0.5, 2)

    assert len(walk.folds) > 1


def test_the_account_trades_the_signal_of_each_fold():
    # windows of 4 up to the boundary and of 20 after it, by hand: one signal of both
    few = bt.signals.Breakout(window=4)
    many = bt.signals.Breakout(window=20)
    policy = Constant(leverage=1.0)
    turn = 300
    segments = [Segment(0, turn, policy, few), Segment(turn, 480, policy, many)]

    found = run_switched(bt.Backtest(ONE, **RULE_TERMS), segments)
    joined = np.concatenate([few.compute(ONE)[:turn], many.compute(ONE)[turn:]])
    alone = bt.run(ONE, policy, **RULE_TERMS, signal=joined)

    assert np.array_equal(found.record.values, alone.record.values, equal_nan=True)
    assert np.array_equal(found.signal, alone.signal)

    switches = found.manifest["policy"]["switches"]
    assert [each["signal"] for each in switches] == ["breakout:4", "breakout:20"]
    assert found.manifest["signal"].startswith("breakout:4 (and 1 others) sha256:")


@pytest.mark.parametrize(("is_judged", "where"), [(True, "the holdout"), (False, "its test span")])
def test_the_fills_of_a_fold_are_of_its_test_span(is_judged, where):
    """A walk has no holdout, and warned of fills in one."""
    parts = [SimpleNamespace(fills=90), SimpleNamespace(fills=3)]
    task = SimpleNamespace(is_judged=is_judged)
    (told,) = warn_of_few_fills(task, parts)
    assert told.startswith(f"the best trial has 3 fills in {where}, fewer than")
    assert [*warn_of_few_fills(task, parts[:1])] == []


def test_warnings_of_folds_that_differ_in_numbers_alone_are_one():
    """1 fill and 2 fills are of one kind; what all folds say is said of all."""
    span = SimpleNamespace(test=0, stop=1_000)
    texts = [["few bars", "1 fill in the holdout"], ["few bars", "2 fills in the holdout"]]
    texts.append(["few bars"])
    folds = [SimpleNamespace(span=span, outcome=SimpleNamespace(warnings=each)) for each in texts]
    assert [*list_warnings(folds, [50, 50, 50])] == [
        "in all 3 folds, as in the first of them: few bars",
        "in 2 of 3 folds, as in the first of them: 1 fill in the holdout",
    ]


def test_books_that_do_not_balance_are_no_missing_row():
    """The defaults of a walk may be refused; a fault of the accounting ends the walk."""

    def fail(_values, **_span):
        raise bt.AccountingError("the books must balance")

    broken: Any = SimpleNamespace(replay=fail)
    with pytest.raises(bt.AccountingError):
        measure_defaults(broken, first=0)
