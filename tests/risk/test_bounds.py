"""bounds(): a run under intrabar="path" and under "worst", by hand."""

import pandas as pd
import pytest

import backtest as bt
from tests.risk.accounts import Hold, free_account, free_venue

FLAT = (100, 100, 100, 100)
LEGS = {"A": 0.5, "B": -0.5}


def bars_of(rows):
    index = pd.date_range("2023-01-01", periods=len(rows), freq="1h", tz="UTC")
    frame = pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=index, dtype=float)
    return bt.Market.from_frames(frame)


HEDGED = bt.Markets({
    "A": bars_of([FLAT, FLAT, (100, 106, 94, 100), FLAT]),
    "B": bars_of([FLAT, FLAT, (100, 107, 93, 100), FLAT]),
})  # fmt: skip


def live(markets, lever, signal=None, **terms):
    return bt.run(
        markets, Hold(lever), venue=free_venue(), account=free_account(**terms), signal=signal,
        compile=False,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["path", "worst"])
def test_a_hedge_holds_along_the_path_and_not_at_both_extremes(way):
    # 30x of 1000 in two legs: 150 contracts of A, -150 of B at 100. Along the path both are at
    # their lows together (-900 + 1050), then at their highs (900 - 1050): 850 is over the margin.
    # At the low of A and the high of B at once, a share s of the way leaves 1000 - 1950 s, and
    # needs 0.005 x 150 (200 + s): s = 850 / 1950.75, where 150 + 0.75 s are left.
    left = 150.0 + 0.75 * 850.0 / 1950.75
    found = bt.bounds(live(HEDGED, 30.0, LEGS, intrabar=way))
    assert found.table.loc["final_equity"].tolist() == pytest.approx([1000.0, left])
    assert found.table.loc["liquidations"].tolist() == [0.0, 1.0]
    assert found.table.loc["max_drawdown"].tolist() == pytest.approx([0.0, 1.0 - left / 1000.0])
    assert found.bars.index.tolist() == [pd.Timestamp("2023-01-01 02:00", tz="UTC")]
    assert found.bars["instruments"].tolist() == ["A, B"]
    assert found.bars[["path", "worst"]].iloc[0].tolist() == pytest.approx([1000.0, left])
    assert found.verdict == (
        "The runs part in 1 of 4 bars, first at 2023-01-01 02:00 UTC: final equity is "
        "1,000.00 under path and 150.33 under worst."
    )


def test_a_position_alone_takes_its_adverse_extreme_first_under_both():
    # 2x of 1000 at 100: 20 contracts; the stop at 95 loses 100 though 105 would have paid 100
    found = bt.bounds(live(HEDGED["A"], 2.0, stop_loss=0.05, take_profit=0.05))
    assert found.table.loc["final_equity"].tolist() == pytest.approx([900.0, 900.0])
    assert len(found.bars) == 0
    assert found.verdict == "The runs agree in all 4 bars: final equity 900.00."
    assert "adverse extreme first under both" in found.summary()


def test_the_terms_of_the_run_are_kept():
    """Signals of each bar, start and sampling; the account alone has another way."""
    signal = pd.DataFrame({"A": [1.0, 0.5, 0.5, 0.5], "B": [0.0, -0.5, -0.5, -0.5]},
                          index=pd.to_datetime(HEDGED["A"].time, utc=True))  # fmt: skip
    result = bt.run(
        HEDGED, Hold(4.0), venue=free_venue(), account=free_account(), signal=signal,
        compile=False, start="2023-01-01 01:00", sampling="1h",
    )  # fmt: skip
    other = bt.bounds(result).runs["worst"]
    for name in ("sampling", "calendar", "signal", "venue", "policy", "data"):
        assert other.manifest[name] == result.manifest[name]
    pd.testing.assert_frame_equal(other.bars, result.bars)


def test_what_has_no_two_ways_is_refused(tmp_path):
    limit = bt.run(
        HEDGED, Hold(2.0), venue=free_venue(), compile=False,
        account=free_account(fill="limit", offset=0.01),
    )  # fmt: skip
    with pytest.raises(bt.ParameterError, match="an account with limit orders: detail="):
        bt.bounds(limit)
    loaded = bt.Result.load(live(HEDGED, 2.0).save(tmp_path))
    with pytest.raises(bt.ParameterError, match="a loaded result"):
        bt.bounds(loaded)
