"""Experiments with several instruments: their tables, flags, weights and errors."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.cli.build import Experiment, build_experiment
from backtest.cli.command import COMMANDS
from backtest.cli.experiment import (
    draft_experiment,
    find_key,
    name_flag,
    read_flags,
    read_keys,
)
from backtest.cli.first_screen import COMMANDS as SCREEN
from backtest.experiments.venue_table import complete_preset
from backtest.strategies import Constant, VolTarget
from backtest.venue.symbols import names_symbol
from tests.kit import ask, call, check_refused

HOURS = 24 * 20
BTC = "binance-usdm:BTCUSDT"
FOLDERS = ["data/BTCUSDT", "data/ETHUSDT"]
DATA = 'data.path = "data"\n'
TWO = {"BTCUSDT": Constant(leverage=2.0), "ETHUSDT": Constant(leverage=0.4)}
RUN = ("run", "--data", "data", "--policy", "constant", "--set", "leverage=2")


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Two markets, BTCUSDT with 480 bars and ETHUSDT with the last 380 of them."""
    folder = tmp_path_factory.mktemp("stored")
    for seed, (name, first) in enumerate({"BTCUSDT": 0, "ETHUSDT": 100}.items()):
        market = bt.Market.sample(bars=HOURS, seed=seed).slice(first, HOURS)
        frames = {"funding": market.funding(), "mark": market.mark()}
        bt.Market.from_frames(market.bars(), instrument=name, **frames).save(folder / name)
    return folder


@pytest.fixture(autouse=True)
def folder(stored: Path, tmp_path, monkeypatch):
    """A folder in which ``data`` holds the two markets."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(stored)
    return tmp_path


def build(text: str = "", **flags: Any) -> Experiment:
    file = Path("e.toml") if text else None
    if file is not None:
        file.write_text(text)

    keys: dict[str, Any] = {}
    for table in ("run", "data", "policy", "venue", "account"):
        for key in read_keys(table).values():
            keys[name_flag(key).strip("-")] = key

    entries: list[Any] = []
    for name, value in flags.items():
        texts = value if isinstance(value, list) else [value]
        entries += read_flags(keys[name], texts)

    return build_experiment(draft_experiment(file, entries))


def test_a_flag_has_a_whole_sentence_of_its_own():
    for module in {row.module for row in SCREEN.values()}:
        import_module(f"backtest.cli.{module}")
    for name, declared in COMMANDS.items():
        keys = {*(declared.keys or "").split()}
        texts = [find_key(key).text for key in keys]
        assert len({*texts}) == len(texts), name
        assert all(x.endswith(".") and x.count("(") == x.count(")") for x in texts), texts


@pytest.mark.parametrize("flags", [
    {"data": FOLDERS},
    {"data": ["data"]},
    {"data": ["data"], "instrument": ["BTCUSDT", "ETHUSDT"]},
    {"data": FOLDERS, "instrument": ["BTCUSDT", "ETHUSDT"]},
])  # fmt: skip
def test_flags_name_several_markets(flags):
    test, policy, _ = build(**flags)

    assert test.market == bt.Markets.load("data")
    assert isinstance(policy, VolTarget)
    assert test.signal is None
    assert test.venue == bt.Venue.preset("binance-usdm", ["BTCUSDT", "ETHUSDT"])
    assert test.overlay is None


def test_several_samples_are_markets_named_after_their_seeds():
    flags = build(data=["sample:1", "sample"], to="2023-01-03")
    file = build('data = {path = ["sample:1", "sample"], to = "2023-01-03"}')
    own = {"sample-1": bt.Market.sample(seed=1), "sample-0": bt.Market.sample()}

    for test, *_ in (flags, file):
        assert test.market == bt.Markets(own).between(None, "2023-01-03")
        assert test.venue == bt.Venue.preset("binance-usdm", "BTCUSDT")

    assert build(data=["sample:1"]).test.market == own["sample-1"]


@pytest.mark.parametrize(("text", "settings", "policy", "overlay"), [
    (f"{DATA}policy.BTCUSDT = {{name = 'constant', settings = {{leverage = 2}}}}\n"
     "policy.ETHUSDT.name = 'vol-target'", [],
     {"BTCUSDT": Constant(leverage=2), "ETHUSDT": VolTarget()}, None),
    (f"{DATA}overlay = {{name = 'vol-target', settings = {{target = 0.3}}}}", [],
     VolTarget(), VolTarget(target=0.3)),
    (DATA, ["overlay.name=VolTarget(target=0.5)"], VolTarget(), VolTarget(target=0.5)),
    (f"{DATA}policy.name = 'constant'", ["leverage=0.4", "BTCUSDT.leverage=2",
     "overlay.name=vol-target", "overlay.target=0.3"], TWO, VolTarget(target=0.3)),
    (f"{DATA}policy = {{name = 'constant', settings = {{leverage = 0.4, 'BTCUSDT.leverage' = 2}}}}",
     [], TWO, None),
])  # fmt: skip
def test_policies_settings_and_the_overlay_are_by_instrument(text, settings, policy, overlay):
    """The names that vary in sweeps are settings of a run too, so its best set can run again."""
    found = build(text, set=settings)
    assert found.policy == policy
    assert found.test.overlay == overlay


def test_a_venue_is_completed_by_the_symbol_of_each():
    cheap = ["venue.fees.taker=0.0004"]
    venue = build(data=FOLDERS, venue="binance-usdm@latest", set=cheap).test.venue["ETHUSDT"]
    assert venue.fees.taker == 4e-4
    assert venue.brackets == bt.Venue.preset("binance-usdm", "ETHUSDT", at="latest").brackets

    assert complete_preset("reg-t", "AAPL", bt.Market.sample(bars=2)) == "reg-t:STOCK"  # of each

    fine = build(data=FOLDERS, set=["venue.contract.lot=0.5"]).test.venue  # was: in full
    assert [each.contract.lot for each in fine.values()] == [0.5, 0.5]

    said = "are for BTCUSDT, the prices are for ETHUSDT; --venue NAME without a symbol"
    with pytest.warns(UserWarning, match=said) as warned:
        one = build(data=FOLDERS, venue="binance-usdm:BTCUSDT").test.venue
    assert len(warned) == 1
    assert one == bt.Venue.preset("binance-usdm", "BTCUSDT")


def name_bars(folder, instrument):
    """Write bars of an instrument, and return their folder."""
    bt.Market.from_frames(bt.Market.sample(bars=48).bars(), instrument=instrument).save(folder)
    return str(folder)


@pytest.mark.parametrize("named", [{}, {"venue": "binance-usdm"}], ids=["no venue", "its name"])
def test_the_only_instrument_has_its_own_rules(tmp_path, named):
    eth = build(data=name_bars(tmp_path / "eth", "ETHUSDT"), **named).test.venue
    assert eth == bt.Venue.preset("binance-usdm", "ETHUSDT")


def test_an_instrument_without_a_preset_is_run_by_other_rules_unless_its_venue_is_named(tmp_path):
    folder = name_bars(tmp_path / "comp", "COMPUSDT")
    with pytest.warns(UserWarning, match="are for BTCUSDT, the prices are for COMPUSDT"):
        assert build(data=folder).test.venue == bt.Venue.preset("binance-usdm", "BTCUSDT")
    with pytest.raises(bt.VenueError, match="binance-usdm has none of 'COMPUSDT'"):
        build(data=folder, venue="binance-usdm")


def test_tables_are_the_venues_of_their_instruments():
    venue = build(
        f"""{DATA}
        [venue]
        fees = {{taker = 0.001}}
        [venue.ETHUSDT]
        preset = "bitmex:ETHUSDT"
        fees = {{taker = 0.002}}
        """
    ).test.venue

    assert venue["BTCUSDT"].fees.taker == 0.001
    assert venue["BTCUSDT"].brackets == bt.Venue.preset("binance-usdm", "BTCUSDT").brackets
    assert venue["ETHUSDT"].fees.taker == 0.002
    assert venue["ETHUSDT"].brackets == bt.Venue.preset("bitmex", "ETHUSDT").brackets


def test_fields_of_the_account_may_be_by_instrument():
    account = build(
        f"{DATA}account = {{margin = {{BTCUSDT = 'cross', ETHUSDT = 'isolated'}}, band = 0.1, "
        "venue_leverage = 5}"
    ).test.account

    assert account.margin["ETHUSDT"] == "isolated"
    assert account.band == 0.1

    own = ["account.venue_leverage.BTCUSDT=5", "account.venue_leverage.ETHUSDT=3"]
    typed = build(data=FOLDERS, set=own).test.account
    assert typed.venue_leverage["BTCUSDT"] == 5

    typed = build(data=FOLDERS, set=["account.venue_leverage=7"]).test.account
    assert typed.venue_leverage == 7.0


def write_weights(path: str, every: int = 1) -> pd.DataFrame:
    index = pd.date_range("2023-01-01", periods=HOURS, freq="h", tz="UTC", name="time")[::every]
    frame = pd.DataFrame({"BTCUSDT": 0.75, "ETHUSDT": -0.25}, index=index)
    frame.iloc[0, 0] = np.nan
    if path.endswith(".csv"):
        frame.to_csv(path)
    elif path.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.reset_index().to_feather(path)
    return frame


@pytest.mark.parametrize("path", ["w.csv", "w.parquet", "w.feather"])
def test_weights_come_from_a_file(path):
    frame = write_weights(path)
    test = build(data=["data"], weights=path).test
    expected = bt.signals.from_frame(bt.Markets.load("data"), frame)
    pd.testing.assert_frame_equal(test.signal, expected, check_freq=False)
    assert test.signal["BTCUSDT"].iloc[0] == 0.0

    again = build(f'{DATA}run.weights = "{path}"').test.signal
    pd.testing.assert_frame_equal(again, expected, check_freq=False)


def write(path: str, text: str) -> str:
    Path(path).write_text(text)
    return path


def test_a_run_of_several_prints_and_saves_its_account(capsys, folder: Path):
    write_weights("w.csv")
    code, _, err = call(
        capsys, *RUN, "--set", "run.weights=w.csv", "--set", "overlay.name=Constant(leverage=1)"
    )
    assert code == 0
    assert err == ""
    (saved,) = Path("results").iterdir()

    found = ask(capsys, *RUN, "--set", "run.weights=w.csv", "--no-save")
    assert set(found["attribution"]) >= {"BTCUSDT", "ETHUSDT", "total"}
    assert found["contagion"] == []

    markets = bt.Markets.load("data")
    weights = bt.signals.from_frame(markets, write_weights("w.csv"))
    venue = bt.Venue.preset("binance-usdm", [*markets])
    terms = {"venue": venue, "account": bt.Account(), "signal": weights}
    result = bt.run(markets, Constant(leverage=2), **terms)

    assert found["metrics"]["total_return"] == result.metrics["total_return"]
    assert saved.is_dir()


@pytest.mark.slow
def test_weights_by_a_rule():
    markets = bt.Markets.load("data")
    for flags, text in (
        ({"data": FOLDERS, "allocate": "inverse-volatility"}, ""),
        ({}, f"{DATA}run.allocate = 'inverse-volatility'"),
    ):
        test, *_ = build(text, **flags)
        assert test.signal.equals(bt.allocate.inverse_volatility(markets))

    rule = "run.allocate = 'inverse-volatility'"
    more = "run.allocate_settings.half_life = 48"
    test, *_ = build(f"{DATA}{rule}\n{more}", set=["allocate.every=6"])
    assert test.signal.equals(bt.allocate.inverse_volatility(markets, half_life=48, every=6))

    test, *_ = build(f"{DATA}{rule}\nrun.decision_interval = '4h'")
    assert test.signal.equals(bt.allocate.inverse_volatility(markets.resample("4h")))

    test, *_ = build(f"{DATA}run.allocate = 'equal'")
    assert test.signal.equals(bt.allocate.equal(markets))

    test, *_ = build(f"{DATA}run.allocate = 'risk-budget'", set=["allocate.half_life=48"])
    assert test.signal == bt.allocate.RiskBudget(dict.fromkeys(markets.names, 1.0), half_life=48.0)

    budgets = "run.allocate_settings.budgets = {BTCUSDT = 0.7, ETHUSDT = 0.3}"
    test, *_ = build(f"{DATA}run.allocate = 'risk-budget'\n{budgets}")
    assert test.signal == bt.allocate.RiskBudget({"BTCUSDT": 0.7, "ETHUSDT": 0.3})

    again = ["signal.budgets.BTCUSDT=0.2"]  # as a sweep says it
    test, *_ = build(f"{DATA}run.allocate = 'risk-budget'\n{budgets}", set=again)
    assert test.signal == bt.allocate.RiskBudget({"BTCUSDT": 0.2, "ETHUSDT": 0.3})


ROW = "2023-01-01T00:00:00Z"
REFUSED = [
    (lambda: build(data=["data"], instrument=["BTCUSDT", "ETHUSD"]),
     "must be among the data, got 'ETHUSD' (did you mean 'ETHUSDT'"),
    (lambda: build(data=["sample:1", "data/X"]), "got sample:1, data/X"),
    (lambda: build(data=FOLDERS, weights=write("w.csv", f"time,BTC\n{ROW},1\n")), "'BTC'"),
    (lambda: build(data=FOLDERS, weights=write("w.csv", f"time,BTCUSDT\n{ROW},inf\n")), "finite"),
    (lambda: build(data=FOLDERS, weights=write("w.csv", "time,BTCUSDT\n2022-01-01T00:00Z,1\n")),
     "a row inside the panel"),
    (lambda: build(data=FOLDERS, set=["overlay.target=0.3"]), "overlay.name is needed"),
    (lambda: build(f"{DATA}policy.BTCUSDT = {{name = 'cppi'}}"),
     "each instrument must have a policy, 'ETHUSDT' has none"),
    (lambda: build(f"{DATA}venue.XRPUSDT = {{preset = 'bybit-linear:XRPUSDT'}}"),
     "venue.XRPUSDT must be of an instrument of the data, BTCUSDT, ETHUSDT"),
    (lambda: build(data=FOLDERS, set=["venue.rules.maintenance_multiplier=2"]),
     "BTCUSDT, ETHUSDT; for all of them it is venue.maintenance_multiplier"),
    (lambda: build(f"{DATA}run.allocate = 'equl'"), "run.allocate must be one of equal, inverse-"),
    (lambda: build(f"{DATA}run.allocate = 'equal'\nrun.weights = 'w.csv'"), "run.weights and "),
    (lambda: build(f"{DATA}run.allocate = 'equal'\nrun.allocate_settings.window = 3"),
     "run.allocate_settings: equal has no setting 'window'; use no settings"),
    (lambda: build(f"{DATA}run.signal = 1"), "run.signal of several instruments must be a rule"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_a_bad_experiment_of_several_is_refused(make, words):
    check_refused(make, words)


@pytest.mark.parametrize(("symbol", "instrument", "is_same"), [
    ("BTCUSDT", "BTCUSDT", True), ("BTCUSDT", "BTC/USDT:USDT", True),
    ("BTCUSDT", "BTC_USDT_USDT", True), ("BTCUSDT", "btc-usdt", True),
    ("BTCUSDT", "BINANCE:BTCUSDT", True), ("BTCUSDT", "BTCUSDT_240628", True),
    ("ETH", "ETHUSDT", True), ("ETH", "ETH", True), ("ETH", "ETH-PERP", True),
    ("PF_XBTUSD", "BTCUSDT", True), ("XBTUSD", "BTCUSD", True), ("BTC-USD", "BTCUSDT", True),
    ("BTC-USDT-SWAP", "BTCUSDT", True), ("BTC_USDC-PERPETUAL", "BTCUSDC", True),
    ("BTC-PERPETUAL", "BTCUSD", True), ("STOCK", "SPY", True), ("BTCUSD_PERP", "BTCUSD", True),
    ("ETH", "ETHFIUSDT", False), ("OP", "OPENUSDT", False), ("SOL", "SOLVUSDT", False),
    ("BTCUSDT", "WBTCUSDT", False), ("OP", "TOPUSDT", False), ("ETH", "STETHUSDT", False),
    ("BTCUSDT", "ETHUSDT", False), ("BTC_USDC-PERPETUAL", "BTCUSDT", False),
    ("PEPEUSDT", "1000PEPEUSDT", False), ("BTCUSDT", "BTCDOMUSDT", False),
])  # fmt: skip
def test_rules_are_those_of_an_instrument_by_whole_names(symbol, instrument, is_same):
    assert names_symbol(symbol, instrument) is is_same
