"""Searches on several markets: every number of a study is that of a run."""

import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from backtest.tune.looks import shares_bars
from tests.portfolio.portfolio_helpers import Hold, make_venue, simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MARKETS = simulate_pair(60)
VENUES = {"AAA": make_venue(), "BBB": make_venue(taker=0.001)}
ACCOUNT = bt.Account(capital=1_000.0, margin={"AAA": "cross", "BBB": "isolated"}, venue_leverage=5)
TERMS = {"venue": VENUES, "account": ACCOUNT, "sampling": "1h", "compile": False}
SPACE = {"level": (0.1, 2.0), "account.band": (0.0, 0.1)}


def seek(markets=MARKETS, **settings):
    wanted = {"space": SPACE, "trials": 6, "robust": False, **TERMS, **settings}
    return bt.tune(markets, wanted.pop("policy", Hold), **wanted)


@pytest.mark.slow
def test_the_best_of_a_study_is_its_runs(tmp_path):
    overlay = Hold(0.5)
    study = seek(overlay=overlay, store=tmp_path)
    split, best = 45, study.best_values
    terms = {**TERMS, "account": ACCOUNT.override({"band": best["account.band"]})}
    policy = Hold(best["level"])
    searched = bt.run(MARKETS.prefix(split), policy, overlay=overlay, **terms)
    held = bt.run(MARKETS, policy, overlay=overlay, start=MARKETS.times[split], **terms)
    for name in ("sharpe", "final_equity", "turnover"):
        assert study.best[name] == searched.metrics[name]
        assert study.outcome.holdout[name] == held.metrics[name]
    assert (
        study.replay().metrics["sharpe"]
        == bt.run(MARKETS, policy, overlay=overlay, **terms).metrics["sharpe"]
    )
    again = seek(overlay=overlay, store=tmp_path, resume=True)
    assert again.look(best)["sharpe"] == study.outcome.holdout["sharpe"]
    assert again.best_venue == VENUES
    with pytest.raises(ParameterError, match="was already started"):
        seek(overlay=overlay, store=tmp_path)
    assert again.best_values == best


@pytest.mark.slow
def test_the_same_sets_under_another_overlay_are_other_tries(tmp_path):
    found = [
        seek(space={"level": (0.1, 2.0)}, store=tmp_path, **more)
        for more in ({}, {"overlay": Hold(0.5)}, {"overlay": Hold(0.7)})
    ]
    assert [each.verdict.other_trials for each in found] == [0, 6, 12]


def test_an_instrument_listed_in_the_holdout_is_not_searched():
    # BBB is listed at bar 6, the search ends before
    split = 5
    weights = pd.DataFrame({"AAA": 1.0, "BBB": -0.5}, index=MARKETS.times)
    rule = bt.ScenarioMargin(moves=[(-0.1, 1.0), (0.1, 1.0)], groups={"B": ["BBB"]})
    account = bt.Account(capital=1_000.0, requirement=rule, band={"AAA": 0.0, "BBB": 0.1})
    sets = {"level": (0.5, 1.0)}
    with pytest.warns(UserWarning, match="BBB is first listed in the holdout"):
        study = seek(space=sets, signal=weights, account=account, holdout=55 / 60, trials=4)
    policy = Hold(study.best_values["level"])
    terms = {**TERMS, "account": account}
    alone = bt.run(MARKETS.prefix(split), policy, signal=weights, **terms)
    assert study.best["final_equity"] == alone.metrics["final_equity"]
    whole = bt.run(MARKETS, policy, signal=weights, start=MARKETS.times[split], **terms)
    assert study.outcome.holdout["final_equity"] == whole.metrics["final_equity"]


def test_a_part_of_a_panel_keeps_the_terms_of_the_whole():
    rule = bt.ScenarioMargin(
        moves={"*": [(-0.1, 1.0)], "pair": [(0.2, 1.0)], "BBB": [(0.3, 1.0)]},
        groups={"pair": ["AAA"], "last": ["BBB"]},
        products={"one": ["pair", "last"]},
        across="same row",
    )
    assert rule.without({"BBB"}) == bt.ScenarioMargin(
        moves={"*": [(-0.1, 1.0)], "pair": [(0.2, 1.0)]},
        groups={"pair": ["AAA"]},
        products={"one": ["pair"]},
        across="same row",
    )
    with pytest.raises(ParameterError, match="an unknown 'CCC'"):
        bt.run(MARKETS.prefix(5), Hold(), **{**TERMS, "venue": {**VENUES, "CCC": make_venue()}})


def test_a_field_of_the_venue_varies_in_all_venues():
    sweep = bt.sweep(MARKETS, Hold, {"level": [1.0], "venue.fees.taker": [0.0, 0.01]}, **TERMS)
    for fee, row in zip((0.0, 0.01), sweep.table.itertuples(), strict=True):
        venues = {name: make_venue(taker=fee) for name in VENUES}
        alone = bt.run(MARKETS, Hold(1.0), **{**TERMS, "venue": venues})
        assert row.final_equity == alone.metrics["final_equity"]
    assert sweep.manifest["venue"]["BBB"]["fees"]["taker"] == 0.001


def test_rules_between_values_hold_for_each_instrument():
    with pytest.raises(ParameterError, match=r"venue_leverage must be at most 20 .* got 25"):
        bt.sweep(MARKETS, Hold, {"level": [1.0], "account.venue_leverage": [5.0, 25.0]}, **TERMS)
    mixed = {**TERMS, "account": ACCOUNT.override({"max_leverage": {"AAA": 2.0, "BBB": 1.0}})}
    with pytest.raises(
        ParameterError, match=r"account.min_leverage: must be at most max_leverage 1, got 1"
    ):
        bt.sweep(MARKETS, Hold, {"level": [1.0], "account.min_leverage": [1.5]}, **mixed)


def test_other_studies_of_an_instrument_count():
    span = {"start": "2024-01-01", "stop": "2024-02-01", "synthetic": False}
    several = {**span, "prices": {"AAA": "a", "BBB": "b"}}
    one = {**span, "prices": {"BBB": "c"}}
    assert shares_bars(several, one)
    assert not shares_bars(several, {**one, "synthetic": True})
    assert shares_bars(several, {**one, "prices": {"BBB": "a"}, "synthetic": True})
    assert not shares_bars(several, {**one, "prices": {"CCC": "c"}})
    assert not shares_bars(several, {**one, "start": "2024-02-01", "stop": "2024-03-01"})


@pytest.mark.parametrize(("settings", "message"), [
    ({"policy": {"AAA": Hold(), "BBB": Hold()}}, "one policy for all instruments"),
    ({"venue": {"AAA": make_venue()}}, "none for BBB"),
])  # fmt: skip
def test_what_a_search_of_several_cannot_do_is_refused(settings, message):
    with pytest.raises(ParameterError, match=message):
        seek(**settings)
