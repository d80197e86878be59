"""The venue of a command from a listing: by file, beside the bars, in an experiment, shown."""

import json
from pathlib import Path

import pytest

import backtest as bt
from backtest.cli.build import build_test
from backtest.experiments.draft import Draft
from tests.kit import ask, call, check_refused
from tests.venue.test_listing import DAY, ENTRY, FILE, PNUT, TIERS

LISTING = {
    "time": f"{DAY}T10:00Z", "source": "test", "like": "binance-usdm",
    "exchangeInfo": {"symbols": [ENTRY]}, "tiers": {PNUT: TIERS[PNUT]},
}  # fmt: skip


def save_market(folder: Path, name: str = "PNUTUSDT", listing: object = None) -> Path:
    bars = bt.Market.sample(bars=60).bars()
    bt.Market.from_frames(bars, instrument=name).save(folder)
    if listing is not None:
        (folder / "venue.json").write_text(json.dumps(listing), encoding="utf-8")
    return folder


def build(data: Path | list[str], **venue: object) -> bt.Backtest:
    paths = data if isinstance(data, list) else [str(data)]
    return build_test(Draft({"data": {"path": paths}, "venue": venue}))


@pytest.mark.filterwarnings("ignore")
def test_a_listing_beside_the_bars_must_be_chosen(tmp_path):
    folder = save_market(tmp_path / "pnut", listing=LISTING)
    check_refused(lambda: build(folder), "--venue auto uses", bt.ParameterError)

    venue = build(folder, preset="auto").venue
    listed = bt.Venue.read(LISTING, PNUT)
    assert venue == listed.override({"in_force.preset": "venue.json#PNUTUSDT"})
    assert build(folder, preset="binance-usdm:ADAUSDT").venue.in_force.symbol == "ADAUSDT"

    bare = save_market(tmp_path / "bare")
    check_refused(
        lambda: build(bare, preset="auto"), "needs venue.json beside the bars of", bt.ParameterError
    )
    check_refused(lambda: build(["sample"], preset="auto"), "needs venue.json", bt.ParameterError)


@pytest.mark.filterwarnings("ignore")
def test_tiers_that_a_venue_keeps_for_accounts_are_those_of_the_preset(tmp_path):
    entry = {**ENTRY, "symbol": "ADAUSDT", "baseAsset": "ADA"}
    lacking = {key: value for key, value in LISTING.items() if key != "tiers"}
    listing = {**lacking, "exchangeInfo": {"symbols": [entry]}}
    ada = save_market(tmp_path / "ada", "ADAUSDT", listing)

    with pytest.warns(UserWarning, match="which the venue gives to accounts only"):
        venue = build(ada, preset="auto").venue
    assert venue.contract.tick == 0.00001
    assert venue.brackets == bt.Venue.preset("binance-usdm", "ADAUSDT").brackets

    pnut = save_market(tmp_path / "pnut", listing=lacking)
    check_refused(
        lambda: build(pnut, preset="auto"), "PNUTUSDT.brackets: are needed", bt.VenueError
    )


@pytest.mark.filterwarnings("ignore")
def test_each_instrument_of_several_has_its_own_symbol(tmp_path):
    names = ("PNUTUSDT", "KSMUSDT")
    folders = [str(save_market(tmp_path / name, name)) for name in names]

    venues = build(folders, preset=f"file:{FILE}?like=binance-usdm&date={DAY}").venue
    assert [venue.in_force.symbol for venue in venues.values()] == [*names]

    venues = build(folders, listing=str(FILE), KSMUSDT={"preset": "binance-usdm:KSMUSDT"}).venue
    assert [venue.in_force.like for venue in venues.values()] == ["binance-usdm:BTCUSDT", None]

    venues = build(folders, listing=str(FILE), contract={"lot": 2.0}).venue
    assert [venue.contract.lot for venue in venues.values()] == [2.0, 2.0]


@pytest.mark.filterwarnings("ignore")
def test_an_experiment_names_a_listing_beside_it(tmp_path, capsys):
    save_market(tmp_path / "pnut")
    (tmp_path / "tiers.json").write_text(json.dumps(TIERS), encoding="utf-8")
    text = f"""
[data]
path = "pnut"
[venue]
listing = "tiers.json"
symbol = "{PNUT}"
date = {DAY}
contract.lot = 1.0
"""
    (tmp_path / "test.toml").write_text(text, encoding="utf-8")

    result = ask(capsys, "run", str(tmp_path / "test.toml"), "--no-save")
    assert result["metrics"]

    code, shown, _ = call(capsys, "run", str(tmp_path / "test.toml"), "--no-save")
    assert code == 0
    assert "of the listing tiers.json#PNUTUSDT of 2026-09-29" in " ".join(shown.split())
    assert "all others of binance-usdm:BTCUSDT" in " ".join(shown.split())


@pytest.mark.parametrize(("venue", "said"), [
    ({"symbol": PNUT}, "venue.symbol is of a listing"),
    ({"listing": str(FILE), "preset": "binance-usdm:BTCUSDT"}, "must be given without a preset"),
    ({"listing": str(FILE), "symbol": 3}, "venue.symbol: must be text"),
    ({"preset": "file:#X"}, "a listing must name its file"),
    ({"preset": "file:nowhere.json"}, "does not exist"),
])  # fmt: skip
def test_contradictory_keys_are_refused(tmp_path, venue, said):
    folder = save_market(tmp_path / "pnut")
    check_refused(lambda: build(folder, **venue), said, bt.BacktestError)


def test_a_command_shows_a_listing(capsys):
    shown = ask(capsys, "venues", "read", str(FILE), "--symbol", PNUT)
    assert shown["venue"]["in_force"]["preset"] == "listing_tiers.json#PNUTUSDT"
    assert shown["venue"]["contract"]["lot"] == "unknown"

    code, out, _ = call(capsys, "venues", "read", str(FILE), "--symbol", PNUT, "--at", DAY)
    assert code == 0
    text = " ".join(out.split())
    assert "listing_tiers.json#PNUTUSDT, 2026-09-29" in text
    assert "Unknown: lot, tick, min_notional." in text

    assert call(capsys, "venues", "read", str(FILE))[0] == 2
    assert call(capsys, "venues", "binance-usdm:BTCUSDT", "--symbol", "X")[0] == 2
