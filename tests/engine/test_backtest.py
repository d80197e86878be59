"""bt.Backtest: a test described once, its methods, the short form of a run, and its files."""

import importlib
import inspect
import re

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.engine.conditions import FIELDS
from backtest.experiments import files
from backtest.search.problem import Search
from backtest.strategies import Constant, VolTarget
from tests.kit import check_refused, run_python, simulate_pair

MARKET = bt.Market.sample(bars=240)
GIVEN = {"venue": "binance-usdm:BTCUSDT", "account": bt.Account(capital=5e3, band=0.1)}
TEST = bt.Backtest(MARKET, **GIVEN)
METHODS = [
    name for name, value in vars(bt.Backtest).items()
    if inspect.isfunction(value) and name != "save"
]  # fmt: skip
"""What a test is asked; ``save`` is of its file."""


@pytest.mark.parametrize(("call", "said"), [
    (lambda: bt.Backtest(MARKET), "bt.Backtest needs venue, account"),
    (lambda: bt.Backtest(MARKET, **GIVEN, samplng="1d"), "'samplng' (did you mean 'sampling'"),
    (lambda: TEST.replace(account=5e3), "account must be an Account"),
    (lambda: TEST.replace(sampling="1x"), "sampling"),
    (lambda: TEST.replace(start="2030-01-01"), "start must lie before the last bar"),
    (lambda: TEST.replace(start="2023-01-05", end="2023-01-03"),
        "start must lie before end, got 2023-01-05 and 2023-01-03"),
    (lambda: TEST.replace(signal="no-such-rule"), "signal must be a number"),
    (lambda: TEST.replace(account=bt.Account(venue_leverage=999.0)), "venue_leverage"),
    (lambda: TEST.run(Constant(), venue="x"), "venue is a field of the test"),
    (lambda: bt.run(MARKET, Constant(), **GIVEN, band=1), "bt.run has no argument 'band'"),
    (lambda: TEST.tune(Constant, trails=9), "no argument 'trails' (did you mean 'trials'"),
    (lambda: TEST.tune(Constant, resume=1), "resume must be True or False, got 1"),
    (lambda: TEST.walk_forward(Constant, store=3), "store must be the path of a folder or None"),
])  # fmt: skip
def test_a_test_is_checked_when_it_is_made(call, said):
    check_refused(call, said)


def test_the_short_form_of_a_run_is_the_run_of_a_test():
    policy = Constant(leverage=2.0)
    cut = {"start": MARKET.times[24], "end": MARKET.times[200], "sampling": "12h"}

    by_method = TEST.replace(**cut).run(policy)
    short = bt.run(MARKET, policy, **GIVEN, **cut)
    assert len(by_method.time) == 176
    assert by_method.manifest["id"] == short.manifest["id"]


def read_defaults(function):
    """Return the default of each parameter of a function, by name."""
    parameters = inspect.signature(function).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def test_the_defaults_of_a_run_are_those_of_the_fields_and_of_the_method():
    """They are written twice, where an editor shows them."""
    of_run = read_defaults(bt.run)
    of_method = read_defaults(bt.Backtest.run)
    of_fields = read_defaults(bt.Backtest)

    for name in FIELDS:
        assert of_run.pop(name) == of_fields[name]
    of_method.pop("self")
    assert of_run == of_method


def test_the_defaults_of_a_method_are_those_of_the_function_that_answers_it():
    for name in METHODS:
        code = inspect.getsource(inspect.unwrap(getattr(bt.Backtest, name)))
        ((module, function),) = re.findall(r"from (backtest[\w.]*) import ([a-z]\w+)", code)

        of_function = read_defaults(getattr(importlib.import_module(module), function))
        of_method = read_defaults(getattr(bt.Backtest, name))
        for parameter in of_function.keys() & of_method.keys():
            assert of_method[parameter] == of_function[parameter], f"{name}: {parameter}"


def test_a_search_has_the_defaults_of_tune():
    """Of ``robust`` alone it has another: validations without it are not robust."""
    of_tune = read_defaults(bt.Backtest.tune)
    of_search = read_defaults(Search)
    of_search.pop("robust")

    assert of_search == {name: of_tune[name] for name in of_search}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_names_what_is_no_argument(name):
    method = getattr(TEST, name)
    needed = {
        "policy": None, "policies": {}, "state": None, "fills": None, "sets": {}, "rules": {},
        "rule": None, "drift": 0.0,
    }  # fmt: skip
    parameters = inspect.signature(method).parameters
    arguments = {name: needed[name] for name in parameters if name in needed}

    with pytest.raises(bt.ParameterError, match=f"Backtest.{name} has no argument 'oops'"):
        method(**arguments, oops=1)
    with pytest.raises(bt.ParameterError, match=r"venue is a field .* test.replace\(venue="):
        method(**arguments, venue="x")


@pytest.mark.parametrize("name", ["tune", "decide", "liquidation_risk", "objective"])
def test_who_looks_for_a_method_as_a_function_is_shown_the_method(name):
    with pytest.raises(AttributeError) as raised:
        getattr(bt, name)

    assert str(raised.value) == f"bt.{name} is a method: bt.Backtest(market, ...).{name}(...)"


def test_a_field_and_a_method_never_share_a_name():
    """What an instance holds hides a method of its class: `test.decide` was None, not a verb."""
    result = TEST.run(Constant(), compile=False)
    for thing in (TEST, result):
        methods = {name for name in dir(type(thing)) if callable(getattr(type(thing), name))}
        assert not methods & vars(thing).keys()

    methods = {name for name in dir(bt.Backtest) if callable(getattr(TEST, name))}
    assert not {*FIELDS} & methods


def test_decide_is_a_verb_of_a_test():
    state = bt.AccountSnapshot(equity=5e3)
    now = MARKET.times[-1] + pd.Timedelta("1h")
    decision = TEST.decide(Constant(leverage=2.0), state=state, now=now)
    assert decision.order[MARKET.instrument] > 0.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_test_is_loaded_as_it_was_saved(tmp_path):
    """A file where everything has a name; else a folder."""
    MARKET.save(tmp_path / "hours")
    loaded = bt.Market.load(tmp_path / "hours")
    part = bt.Market.sample().slice(0, 200)
    wave = np.sin(np.arange(200.0))
    dear = bt.Venue.preset("binance-usdm", "BTCUSDT").override({"fees.taker": 1e-3})
    pair = {"market": simulate_pair(200), "account": bt.Account(), "overlay": VolTarget()}
    cases = [  # what is changed, and whether it is saved as one file
        ({"market": loaded.slice(10, 210), "start": "2023-01-02", "decision_interval": "4h"}, True),
        ({"market": part, "venue": dear, "signal": "rsi:14:30:70", "end": "2023-01-08"}, True),
        ({"market": loaded.slice(0, 200), "signal": pd.Series(wave, part.times)}, False),
        ({"market": part.with_columns(wave=wave), "signal": wave}, False),
        ({**pair, "signal": {"AAA": 0.5, "BBB": -0.2}}, False),
    ]  # fmt: skip

    for k, (changes, is_file) in enumerate(cases):
        test = TEST.replace(**changes)
        path = test.save(tmp_path / f"{k}.toml")
        assert (path.suffix == ".toml") == is_file
        if is_file:  # the table of a job is no part of it
            path.write_text(f"{path.read_text()}[tune]\ntrials = 9\n")

        again = bt.Backtest.load(path)
        expected = test.run(VolTarget()).metrics["final_equity"]
        assert again.run(VolTarget()).metrics["final_equity"] == expected


def test_a_test_is_loaded_without_the_tables_of_jobs_and_refused_with_an_unknown_one(tmp_path):
    file = tmp_path / "mine.toml"

    file.write_text("[data]\nto = '2023-01-08'\n[tune]\ntirals = 9\n")
    with pytest.warns(UserWarning, match=r"mine\.toml: loaded without \[tune\]; policies"):
        loaded = bt.Backtest.load(file)  # what tune has belongs to the command
    assert type(loaded) is bt.Backtest

    file.write_text("[dta]\nto = '2023-01-08'\n[tune]\ntrials = 9\n")
    with pytest.raises(bt.ParameterError, match=r"dta: an experiment has no such table \(did"):
        bt.Backtest.load(file)

    file.write_text("[data]\nuntil = '2023-01-08'\n")
    with pytest.raises(bt.ParameterError, match=r"data\.until: no such key"):
        bt.Backtest.load(file)


def test_loading_and_saving_a_test_needs_no_command_line(tmp_path):
    file = tmp_path / "mine.toml"
    again = tmp_path / "again.toml"
    file.write_text("[data]\nto = '2023-01-08'\n")

    code = f"import sys, backtest as bt; test = bt.Backtest.load({str(file)!r}); "
    code += f"test.save({str(again)!r}); "
    code += "print([x for x in sys.modules if x.startswith(('backtest.cli', 'typer'))])"
    assert run_python(code) == "[]"
    assert "sample" in again.read_text()


def test_a_part_of_the_data_is_saved_by_loading_it_once(tmp_path, monkeypatch):
    MARKET.save(tmp_path / "hours")
    whole = bt.Market.load(tmp_path / "hours")
    loads = []
    load = files.load_data

    def note(draft):
        loads.append(draft)
        return load(draft)

    monkeypatch.setattr(files, "load_data", note)
    parts = (whole.slice(10, 210), whole, whole.between("2023-01-02"), MARKET)
    for k, part in enumerate(parts):
        path = TEST.replace(market=part).save(tmp_path / f"{k}.toml")
        is_cut = part is not whole
        assert path.suffix == ".toml"
        assert ("from" in path.read_text()) == is_cut
        assert len(loads) == k + 1


def test_a_result_keeps_its_test_and_a_loaded_one_reads_its_market_again(tmp_path):
    folder = MARKET.save(tmp_path / "hours")
    wave = pd.Series(np.sin(np.arange(240.0)), MARKET.times)
    test = TEST.replace(market=bt.Market.load(folder), signal=wave, start="2023-01-02")
    result = test.run(Constant())
    assert bt.Backtest.of(result) is test

    loaded = bt.Result.load(result.save(tmp_path / "results"))
    again = bt.Backtest.of(loaded).run(Constant())
    assert again.metrics["final_equity"] == result.metrics["final_equity"]

    # Once the folder holds other bars, the test of the loaded result has no market.
    MARKET.slice(0, 239).save(tmp_path / "other")
    (folder / "bars.parquet").write_bytes((tmp_path / "other" / "bars.parquet").read_bytes())
    bare = bt.Backtest.of(loaded)
    cure = "bt.Backtest.of(result).replace(market="
    check_refused(lambda: bare.run(Constant()), cure, bt.DataError)
    assert "not read" in repr(bare)

    cured = bare.replace(market=MARKET).run(Constant())
    assert cured.metrics["final_equity"] == result.metrics["final_equity"]
