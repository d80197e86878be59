"""Chains of quotes: their files, their forwards, their defects, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.kit import check_refused
from tests.options.quotes import NOW, ROWS, make_chain, make_rows


def test_a_sound_chain_has_no_defects():
    chain = make_chain()
    found = chain.inspect()
    assert found.rows.empty
    assert "no defect found" in repr(found)
    assert found.table[["quotes", "two_sided"]].iloc[0].tolist() == [78, 78]
    implied = chain.implied()
    np.testing.assert_allclose(implied["mark_iv"], implied["iv"], atol=1e-9)


def test_each_defect_is_counted_and_named():
    rows = make_rows(days=(30.0,))
    rows["quoted"] = rows["time"]
    rows.loc[0, "bid"] = rows.loc[0, "ask"] * 1.1
    rows.loc[1, "mark"] += 2e-4
    rows.loc[3, "ask"] = 0.5 * (1.0 - rows.loc[3, "strike"] / rows.loc[3, "forward"])
    rows.loc[3, "bid"] = np.nan
    rows.loc[5, "quoted"] -= pd.Timedelta("6min")
    rows.loc[9, "forward"] *= 1.0002
    rows = pd.concat([rows, rows.iloc[[7]]])
    late = rows.iloc[[8]].assign(expiry=rows["time"].iloc[0])
    found = bt.Chain.from_frame(pd.concat([rows, late]), settlement="coin").inspect()
    expected = dict.fromkeys(found.total.index, 0)
    expected |= dict.fromkeys(("crossed", "outside_bounds", "stale", "forward_differs"), 1)
    expected |= {"duplicated": 1, "expired": 1, "disagrees": 1}
    assert found.total.to_dict() == expected
    assert "bid is above the ask" in repr(found)
    assert found.rows.set_index("check").loc["crossed", "name"].startswith("BTC-31JAN26-")


@pytest.mark.parametrize("settlement", ["cash", "coin"])
def test_forwards_by_parity_and_by_the_index(settlement: str):
    rows = make_rows(days=(30.0, 60.0), settlement=settlement)
    expected = rows["forward"].iloc[0]
    rows["future"] = "BTC-X"
    rows.loc[rows.index, "forward_known"] = rows["forward"]
    is_first = rows["expiry"] == rows["expiry"].min()
    rows.loc[:, "future"] = None
    rows.loc[~is_first & (rows["kind"] == "put"), "bid"] = np.nan  # no pair in the second expiry
    table = bt.Chain.from_frame(rows, settlement=settlement).table
    by_expiry = table.groupby("expiry")[["forward", "forward_source"]].first()
    assert by_expiry["forward_source"].tolist() == ["parity", "index"]
    assert by_expiry["forward"].iloc[0] == pytest.approx(expected, rel=1e-9)
    assert by_expiry["forward"].iloc[1] == 100.0


def test_files_of_both_layouts(tmp_path: Path):
    rows = make_rows()
    rows.to_parquet(tmp_path / "plain.parquet")
    rows.assign(time=rows["time"].astype(str), expiry=rows["expiry"].astype(str)).to_csv(
        tmp_path / "plain.csv", index=False
    )
    deribit = rows.rename(
        columns={
            "time": "timestamp", "expiry": "expiry_datetime", "kind": "option_type",
            "bid": "bid_price", "ask": "ask_price", "mark": "mark_price",
            "iv": "implied_volatility", "forward": "underlying_", "index": "index_price",
            "underlying": "currency",
        }
    ).rename(columns={"underlying_": "underlying"})  # fmt: skip
    deribit["instrument_name"] = "BTC-X"
    deribit["futures_instrument_name"] = "BTC-F"
    deribit.to_parquet(tmp_path / "deribit.parquet")
    plain = bt.Chain.load(tmp_path / "plain.parquet", settlement="coin")
    venue = bt.Chain.load(tmp_path / "deribit.parquet")
    text = bt.Chain.load(tmp_path / "plain.csv", settlement="coin")
    assert (venue.settlement, set(venue.table["forward_source"])) == ("coin", {"future"})
    deribit["futures_instrument_name"] = ["SYN.BTC-F", *["BTC-F"] * (len(deribit) - 1)]
    sources = bt.Chain.from_frame(deribit).table["forward_source"]
    assert sources.value_counts().to_dict() == {"future": len(deribit) - 1, "synthetic": 1}
    for other in (venue, text):
        pd.testing.assert_frame_equal(
            plain.table[["strike", "kind", "bid", "ask"]],
            other.table[["strike", "kind", "bid", "ask"]],
        )


def test_a_folder_is_one_chain_of_all_snapshots(tmp_path: Path):
    for k in (1, 0):
        rows = make_rows(time=NOW + pd.Timedelta(days=k))
        rows.to_parquet(tmp_path / f"day-{1 - k}.parquet")
    chain = bt.Chain.load(tmp_path, settlement="coin")
    assert chain.times.tolist() == [NOW, NOW + pd.Timedelta(days=1)]
    assert "156 quotes in 2 snapshots" in repr(chain.inspect())
    with pytest.raises(bt.DataError, match="needs files that end in"):
        bt.Chain.load(tmp_path.joinpath("none").mkdir() or tmp_path / "none")


BAD_CHAINS = [
    (ROWS.drop(columns="strike"), "coin", "needs the columns strike"),
    (ROWS.iloc[:0], "coin", "at least one row"),
    (ROWS, None, "settlement must be"),
    (ROWS.assign(strike=-1.0), "coin", "strike must be positive"),
    (ROWS.assign(expiry=pd.NaT), "coin", "expiry"),
    (ROWS.assign(ask=np.inf), "coin", "must be finite"),
]


@pytest.mark.parametrize(("frame", "settlement", "words"), BAD_CHAINS)
def test_bad_chains_get_one_clear_error(frame, settlement, words):
    check_refused(lambda: bt.Chain.from_frame(frame, settlement=settlement), words)
