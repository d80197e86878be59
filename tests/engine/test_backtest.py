"""bt.Backtest: a test described once, its methods and their short forms, and its files."""

import inspect
import pydoc

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.cli import build
from backtest.cli.experiment import read_parameters
from backtest.engine.backtest import FIELDS
from backtest.strategies import Constant, VolTarget
from tests.kit import check_refused, simulate_pair

MARKET = bt.Market.sample(bars=240)
GIVEN = {"venue": "binance-usdm:BTCUSDT", "account": bt.Account(capital=5e3, band=0.1)}
TEST = bt.Backtest(MARKET, **GIVEN)
SHORT = ("run", "sweep", "tune", "objective", "walk_forward", "cross_validate", "liquidation_risk",
         "max_leverage", "sensitivity", "capacity", "decide", "replay")  # fmt: skip


@pytest.mark.parametrize(("call", "said"), [
    (lambda: bt.Backtest(MARKET), "bt.Backtest needs venue, account"),
    (lambda: bt.Backtest(MARKET, **GIVEN, samplng="1d"), "'samplng'; did you mean 'sampling'"),
    (lambda: TEST.replace(account=5e3), "account must be an Account"),
    (lambda: TEST.replace(sampling="1x"), "sampling"),
    (lambda: TEST.replace(start="2030-01-01"), "start must lie before the last bar"),
    (lambda: TEST.replace(signal="no-such-rule"), "signal must be a number"),
    (lambda: TEST.replace(account=bt.Account(venue_leverage=999.0)), "venue_leverage"),
    (lambda: TEST.run(Constant(), venue="x"), "venue is a field of the test"),
    (lambda: bt.run(TEST, Constant(), band=1), "bt.run has no argument 'band'"),
    (lambda: bt.sweep(TEST, Constant, {}, account=1), "a test has its own fields, got account"),
])  # fmt: skip
def test_a_test_is_checked_when_it_is_made(call, said):
    check_refused(call, said)


def test_a_method_is_its_short_form():
    held = Constant(leverage=2.0)
    cut = {"start": MARKET.times[24], "end": MARKET.times[200], "sampling": "12h"}
    one = TEST.replace(**cut).run(held)
    other = bt.run(MARKET, held, **GIVEN, **cut)
    assert (one.manifest["id"], len(one.time)) == (other.manifest["id"], 176)
    sets = {"leverage": [1.0, 2.0]}
    rows = bt.sweep(MARKET, Constant, sets, **GIVEN).table
    pd.testing.assert_frame_equal(TEST.sweep(Constant, sets).table, rows)
    result = TEST.run(held)
    pd.testing.assert_frame_equal(bt.bounds(result).table, TEST.bounds(held).table)
    drawn = bt.simulate_paths(MARKET, "gbm", paths=4, horizon="1d")
    found = TEST.liquidation_risk(held, paths=drawn, resume=result).table
    same = bt.liquidation_risk(drawn, held, **{**GIVEN, "account": result})
    pd.testing.assert_frame_equal(same.table, found)


@pytest.mark.parametrize("name", SHORT)
def test_a_short_form_shows_every_field_and_documents_none(name):
    function = getattr(bt, name)
    assert {*FIELDS[1:]} <= {*inspect.signature(function).parameters}
    assert all(f"{each}:" in pydoc.plain(pydoc.render_doc(function)) for each in FIELDS[1:])
    fields = {*FIELDS[1:]} - {"start" if name == "replay" else ""}
    assert not fields & read_parameters(inspect.getdoc(function)).keys()
    given = {"market": TEST, "policy": None, "state": None, "fills": None, "sets": {}}
    named = {k: given[k] for k in inspect.signature(function).parameters if k in given}
    said = r"no argument 'oops'.*overlay.*decision_interval.*end"
    with pytest.raises(bt.ParameterError, match=said):
        function(**named, oops=1)
    own = inspect.signature(getattr(bt.Backtest, name)).parameters
    assert not {"market", *fields} & own.keys()
    assert callable(getattr(TEST, name))


def test_a_field_and_a_method_never_share_a_name():
    """What an instance holds hides a method of its class: `test.decide` was None, not a verb."""
    result = TEST.run(Constant(), compile=False)
    for thing in (TEST, result):
        methods = {name for name in dir(type(thing)) if callable(getattr(type(thing), name))}
        assert not methods & vars(thing).keys()
    assert not {*FIELDS} & {each for each in dir(bt.Backtest) if callable(getattr(TEST, each))}
    verbs = [name for name in bt.__all__ if hasattr(getattr(bt, name), "as_method")]
    assert {"run", "decide", "stress"} <= {*verbs}
    assert all(callable(getattr(TEST, name)) for name in verbs)


def test_decide_is_a_verb_of_a_test():
    state, now = bt.AccountSnapshot(equity=5e3), MARKET.times[-1] + pd.Timedelta("1h")
    decision = TEST.decide(Constant(leverage=2.0), state=state, now=now)
    same = bt.decide(Constant(leverage=2.0), TEST, state=state, now=now)
    assert decision.order == same.order
    assert decision.order[MARKET.instrument] > 0.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_test_is_loaded_as_it_was_saved(tmp_path):
    """A file where everything has a name; else a folder."""
    MARKET.save(tmp_path / "hours")
    loaded, wave = bt.Market.load(tmp_path / "hours"), np.sin(np.arange(200.0))
    dear = bt.Venue.preset("binance-usdm", "BTCUSDT").override({"fees.taker": 1e-3})
    part = bt.Market.sample().slice(0, 200)
    pair = {"market": simulate_pair(200), "account": bt.Account(), "overlay": VolTarget()}
    for k, (changes, is_file) in enumerate([
        ({"market": loaded.slice(10, 210), "start": "2023-01-02", "decision_interval": "4h"}, True),
        ({"market": part, "venue": dear, "signal": "rsi:14:30:70", "end": "2023-01-08"}, True),
        ({"market": loaded.slice(0, 200), "signal": pd.Series(wave, part.times)}, False),
        ({"market": part.with_columns(wave=wave), "signal": wave}, False),
        ({**pair, "signal": {"AAA": 0.5, "BBB": -0.2}}, False),
    ]):  # fmt: skip
        test = TEST.replace(**changes)
        path = test.save(tmp_path / f"{k}.toml")
        assert (path.suffix == ".toml") == is_file
        if is_file:
            path.write_text(f"{path.read_text()}[tune]\ntrials = 9\n")
        again = bt.Backtest.load(path)
        runs = [each.run(VolTarget()).metrics for each in (test, again)]
        assert runs[0]["final_equity"] == runs[1]["final_equity"]


def test_a_part_of_the_data_is_saved_by_loading_it_once(tmp_path, monkeypatch):
    MARKET.save(tmp_path / "hours")
    loads, load = [], build.load_data
    monkeypatch.setattr(build, "load_data", lambda draft: loads.append(draft) or load(draft))
    whole = bt.Market.load(tmp_path / "hours")
    for k, part in enumerate((whole.slice(10, 210), whole, whole.between("2023-01-02"), MARKET)):
        path = TEST.replace(market=part).save(tmp_path / f"{k}.toml")
        assert path.suffix == ".toml"
        assert ("from" in path.read_text()) == (k != 1)
        assert len(loads) == k + 1


def test_a_result_keeps_its_test_and_a_loaded_one_reads_its_market_again(tmp_path):
    folder = MARKET.save(tmp_path / "hours")
    wave = pd.Series(np.sin(np.arange(240.0)), MARKET.times)
    test = TEST.replace(market=bt.Market.load(folder), signal=wave, start="2023-01-02")
    result = test.run(Constant())
    assert result.backtest is test
    loaded = bt.Result.load(result.save(tmp_path / "results"))
    again = loaded.backtest.run(Constant())
    assert again.metrics["final_equity"] == result.metrics["final_equity"]
    MARKET.slice(0, 239).save(tmp_path / "other")
    (folder / "bars.parquet").write_bytes((tmp_path / "other" / "bars.parquet").read_bytes())
    bare = loaded.backtest
    check_refused(lambda: bare.run(Constant()), "result.backtest.replace(market=", bt.DataError)
    found = bare.replace(market=MARKET).run(Constant())
    assert found.metrics["final_equity"] == result.metrics["final_equity"]
    assert "not read" in repr(bare)
