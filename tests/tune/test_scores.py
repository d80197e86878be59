"""Searches with the real evaluator: a score is that of a run, and ``objective`` returns it."""

import math

import pandas as pd
import pytest

import backtest as bt
from backtest.core.errors import ParameterError
from backtest.strategies import Constant, VolTarget
from tests.kit import Hold, ask_test, check_refused, make_venue, simulate_pair

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MARKET = bt.Market.sample(bars=24 * 20)
TERMS = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}
SEARCH = {"trials": 4, "sampler": "sobol", "robust": False, "seed": 1}


APART = {name: bt.Market.sample(bars=24 * 15, seed=k) for k, name in enumerate("AB")}
MARKETS = simulate_pair(60)
VENUES = {"AAA": make_venue(), "BBB": make_venue(taker=0.001)}
ACCOUNT = bt.Account(capital=1_000.0, margin={"AAA": "cross", "BBB": "isolated"}, venue_leverage=5)
PAIR = {"venue": VENUES, "account": ACCOUNT, "sampling": "1h"}
SPACE = {"level": (0.1, 2.0), "account.band": (0.0, 0.1)}


@pytest.mark.parametrize(("market", "policy", "given", "space"), [
    (MARKET, VolTarget,
     {"objective": {"cagr": 1.0, "max_drawdown": -0.5}, "holdout": "7d",
      "fix": {"estimator": "ewma", "power": 1.0}},
     {"target": (0.1, 1.0), "half_life": (24, 120)}),
    (MARKET, Constant, {"signal": "breakout", "holdout": None},
     {"leverage": (0.5, 2.0), "signal.window": (10, 90)}),
    (APART, VolTarget, {"accounts": "separate", "pool": "worst"}, {"target": (0.1, 1.0)}),
], ids=["one account", "a varied rule", "separate accounts"])  # fmt: skip
def test_scores_are_those_of_a_search(market, policy, given, space):
    table = ask_test("tune", market, policy, **TERMS, **given, **SEARCH, space=space).table
    score = ask_test("objective", market, policy, **TERMS, **given)

    scores = [score({name: row[name] for name in space}) for row in table.to_dict("records")]
    assert scores == table["score"].tolist()


@pytest.mark.parametrize(("given", "leverage", "score"), [
    ({"constraints": {"max_drawdown": "<= 0.01"}}, 3.0, -math.inf),
    ({"account": bt.Account(max_leverage=100)}, 50.0, -math.inf),
    ({}, 0.0, -math.inf),
    ({"objective": lambda measures: math.nan}, 1.0, math.nan),
], ids=["a broken constraint", "ruin", "no order filled", "not defined"])  # fmt: skip
def test_what_has_no_score_is_minus_infinity_or_nan(given, leverage, score):
    found = ask_test("objective", MARKET, Constant, **{**TERMS, **given})({"leverage": leverage})
    assert found == pytest.approx(score, nan_ok=True)


@pytest.mark.parametrize(("given", "values", "problem"), [
    ({}, {"leverage": -1.0}, "leverage"),
    ({}, {"lever": 1.0}, "leverage"),
    ({}, 1.0, "mapping"),
    ({"objective": ["sharpe", "cagr"]}, {}, "Backtest.objective needs one objective, got 2"),
])  # fmt: skip
def test_what_cannot_be_is_refused(given, values, problem):
    check_refused(
        lambda: ask_test("objective", MARKET, Constant, **TERMS, **given)(values), problem
    )


def seek_pair(markets=MARKETS, **settings):
    wanted = {"space": SPACE, "trials": 6, "robust": False, **PAIR, **settings}
    return ask_test("tune", markets, wanted.pop("policy", Hold), **wanted)


@pytest.mark.slow
def test_the_best_of_a_study_is_its_runs(tmp_path):
    overlay = Hold(0.5)
    study = seek_pair(overlay=overlay, store=tmp_path)

    split = 45
    best = study.best_values
    terms = {**PAIR, "account": ACCOUNT.override({"band": best["account.band"]})}
    policy = Hold(best["level"])

    searched = bt.run(MARKETS.prefix(split), policy, overlay=overlay, **terms)
    held = bt.run(MARKETS, policy, overlay=overlay, start=MARKETS.times[split], **terms)

    for name in ("sharpe", "final_equity", "turnover"):
        assert study.best[name] == searched.metrics[name]
        assert study.outcome.holdout[name] == held.metrics[name]

    replayed = study.replay()
    whole = bt.run(MARKETS, policy, overlay=overlay, **terms)
    assert replayed.metrics["sharpe"] == whole.metrics["sharpe"]

    again = seek_pair(overlay=overlay, store=tmp_path, resume=True)
    assert again.look(best)["sharpe"] == study.outcome.holdout["sharpe"]
    assert again.best_venue == VENUES
    check_refused(lambda: seek_pair(overlay=overlay, store=tmp_path), "was already started")
    assert again.best_values == best


def test_an_instrument_listed_in_the_holdout_is_not_searched():
    # BBB is listed at bar 6, the search ends before
    split = 5
    weights = pd.DataFrame({"AAA": 1.0, "BBB": -0.5}, index=MARKETS.times)
    rule = bt.ScenarioMargin(moves=[(-0.1, 1.0), (0.1, 1.0)], groups={"B": ["BBB"]})
    account = bt.Account(capital=1_000.0, requirement=rule, band={"AAA": 0.0, "BBB": 0.1})

    sets = {"level": (0.5, 1.0)}
    with pytest.warns(UserWarning, match="BBB is first listed in the holdout"):
        study = seek_pair(space=sets, signal=weights, account=account, holdout=55 / 60, trials=4)

    policy = Hold(study.best_values["level"])
    terms = {**PAIR, "account": account}
    alone = bt.run(MARKETS.prefix(split), policy, signal=weights, **terms)
    assert study.best["final_equity"] == alone.metrics["final_equity"]

    whole = bt.run(MARKETS, policy, signal=weights, start=MARKETS.times[split], **terms)
    assert study.outcome.holdout["final_equity"] == whole.metrics["final_equity"]


@pytest.mark.parametrize(("settings", "message"), [
    ({"policy": {"AAA": Hold(), "BBB": Hold()}}, "one policy for all instruments"),
    ({"venue": {"AAA": make_venue()}}, "none for BBB"),
])  # fmt: skip
def test_what_a_search_of_several_cannot_do_is_refused(settings, message):
    check_refused(lambda: seek_pair(**settings), message, ParameterError)
