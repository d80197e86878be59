"""Searches on several markets: every number of a study is that of a run."""

import pandas as pd
import pytest

import backtest as bt
from backtest.base.errors import ParameterError
from tests.kit import Hold, make_venue, simulate_pair

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


@pytest.mark.parametrize(("settings", "message"), [
    ({"policy": {"AAA": Hold(), "BBB": Hold()}}, "one policy for all instruments"),
    ({"venue": {"AAA": make_venue()}}, "none for BBB"),
])  # fmt: skip
def test_what_a_search_of_several_cannot_do_is_refused(settings, message):
    with pytest.raises(ParameterError, match=message):
        seek(**settings)
