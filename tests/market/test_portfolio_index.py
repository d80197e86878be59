"""The portfolio index is the price of one unit of equity that holds the weights of a signal."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import DataError, ParameterError
from backtest.market import read_weights, weights_to_frame
from tests.kit import check_refused, make_market

A = [(100, 100, 100, 100), (100, 120, 90, 110), (110, 121, 99, 99), (99, 99, 99, 99)]
B = [(50, 50, 50, 50), (50, 55, 40, 45), (45, 54, 45, 54), (54, 54, 54, 54)]
PAIR = bt.Markets({"A": make_market(A), "B": make_market(B)})


def test_the_index_by_hand():
    # Bar 0 holds nothing. Bar 1: A closes up, so it goes open, low, high, close: 1, .9, 1.2, 1.1
    # of its open; B closes down: 1, 1.1, .8, .9. The halves add up to 1, 1, 1, 1.
    # Bar 2: A goes down from 110: 1, 1.1, .9, .9; B up from 45: 1, 1, 1.2, 1.2 -> 1, 1.05, 1.05,
    # 1.05. Bar 3 is flat at 1.05.
    index = PAIR.index({"A": 0.5, "B": 0.5})

    np.testing.assert_allclose(index.open, [1.0, 1.0, 1.0, 1.05], rtol=1e-15)
    np.testing.assert_allclose(index.high, [1.0, 1.0, 1.05, 1.05], rtol=1e-15)
    np.testing.assert_allclose(index.low, [1.0, 1.0, 1.0, 1.05], rtol=1e-15)
    np.testing.assert_allclose(index.close, [1.0, 1.0, 1.05, 1.05], rtol=1e-15)

    assert np.isnan(index.volume).all()
    assert not index.has_mark
    np.testing.assert_array_equal(index.mark_low, index.low)
    assert index.instrument == "portfolio"


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_an_index_of_a_part_is_the_part_of_the_index(n):
    flat = make_market([(10, 10, 10, 10)] * 6)
    rising = [(100, 100, 100, 100), (110, 110, 110, 110), (121, 121, 121, 121)]
    markets = bt.Markets({"X": flat, "Y": make_market(rising, start="2024-01-01 01:00")})

    whole = markets.index()
    part = markets.prefix(n).index()

    np.testing.assert_array_equal(part.close, whole.close[:n])
    np.testing.assert_array_equal(part.mark_high, whole.mark_high[:n])


def test_an_index_that_reaches_zero_is_an_error():
    # In bar 1, A at its high and B at its low: 1 + 5 x 0.2 - 12 x 0.2.
    words = "stay over 0, falls to -0.4 with weights of 17 in total in bar 1, 2024-01-01 01:00 UTC"
    check_refused(lambda: PAIR.index({"A": 5.0, "B": 12.0}), words, DataError)

    check_refused(lambda: PAIR.index({"B": -10.0}), "stay over 0", DataError)


def frame(**changes: object) -> pd.DataFrame:
    return pd.DataFrame({"A": 0.5, "B": -0.5} | changes, index=PAIR.times)


def test_weights_are_read_by_time_and_name():
    backwards = frame().iloc[::-1][["B", "A"]]
    np.testing.assert_array_equal(read_weights(backwards, PAIR), [[0.5] * 4, [-0.5] * 4])

    of_tokyo = frame().tz_convert("Asia/Tokyo").iloc[1:3]
    np.testing.assert_array_equal(read_weights(of_tokyo, PAIR)[0], [0.0, 0.5, 0.5, 0.0])

    np.testing.assert_array_equal(read_weights(frame(B=np.nan), PAIR)[1], [0.0] * 4)

    np.testing.assert_array_equal(read_weights(frame()[["A"]], PAIR)[1], [0.0] * 4)

    times = PAIR.times.union(PAIR.times + pd.Timedelta("4h"))
    wider = frame().reindex(times).fillna(0.25)
    np.testing.assert_array_equal(read_weights(wider, PAIR), read_weights(frame(), PAIR))

    back = weights_to_frame(read_weights(of_tokyo, PAIR), PAIR)
    assert back.columns.tolist() == ["A", "B"]
    np.testing.assert_array_equal(read_weights(back, PAIR), read_weights(of_tokyo, PAIR))


def test_weights_of_the_whole_are_weights_of_a_part():
    markets = bt.Markets({"A": make_market(A), "L": make_market(B[2:], start="2024-01-01 02:00")})
    given = pd.DataFrame({"A": 0.5, "L": 0.5}, index=markets.times)
    part = markets.prefix(2)

    assert part.names == ("A",)
    np.testing.assert_array_equal(read_weights(given, part), [[0.5, 0.5]])
    np.testing.assert_array_equal(read_weights({"A": 1.0, "L": 1.0}, part), [[1.0, 1.0]])


BAD = {
    "unknown": (frame(C=1.0), "got 'C'"),
    "two columns": (frame()[["A", "A"]], "'A' has several"),
    "no zone": (frame().tz_localize(None), "must have a time zone"),
    "between bars": (frame().set_axis(PAIR.times + pd.Timedelta("30min")), "the open of a bar, 4"),
    "infinite": (
        frame(A=[0.0, np.inf, 0.0, 0.0]),
        "1 of 8 are not, first for 'A' at 2024-01-01 01:00",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_refused(case):
    signal, words = BAD[case]
    check_refused(lambda: PAIR.index(signal), words, ParameterError)


def test_marks_funding_and_what_is_listed_late_by_hand():
    """A is held by a half, then by a fifth; L has the bars 1 and 2 and is held by a half in 2.

    Opens: 1; 1; 1 + 0.5 * 0.1 = 1.05; 1.05 * (1 - 0.2 * 0.1 + 0.5 * 0.2) = 1.134. A goes by 1,
    0.9, 1.2, 1.1 in bar 1 and by 1, 1.1, 0.9, 0.9 in bar 2, L by 1, 1, 1.2, 1.2; the marks of A
    are a tenth higher. A settlement is paid on what was held in the bar before it.
    """
    on_a = pd.Series([0.01, 0.02], index=PAIR.times[2:])
    on_l = pd.Series([0.03], index=PAIR.times[2:3])
    marks_of_a = PAIR["A"].bars() * 1.1
    a = make_market(A, mark=marks_of_a, funding=on_a, funding_gaps="zero")
    late = make_market(B[1:3], start="2024-01-01 01:00", funding=on_l, funding_gaps="zero")
    markets = bt.Markets({"A": a, "L": late})
    weights = {"A": [0.5, 0.2, np.nan, 0.0], "L": [0.9, 0.5, 0.9, 0.0]}

    index = markets.index(pd.DataFrame(weights, index=PAIR.times))

    expected = {
        # bar 0, 1, 2, 3
        "open": [1.0, 1.0, 1.05, 1.134],
        "high": [1.0, 1.1, 1.05 * 1.08, 1.134],
        "low": [1.0, 0.95, 1.05, 1.134],
        "close": [1.0, 1.05, 1.134, 1.134],
        "mark_open": [1.0, 1.05, 1.05 * 1.02, 1.134],
        "mark_high": [1.0, 1.16, 1.05 * 1.098, 1.134],
        "mark_low": [1.0, 0.995, 1.05 * 1.02, 1.134],
        "mark_close": [1.0, 1.105, 1.05 * 1.098, 1.134],
    }  # fmt: skip
    found = {name: getattr(index, name) for name in expected}
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(expected), rtol=1e-12)
    np.testing.assert_allclose(index.funding_rate, [0.5 * 0.01, 0.2 * 0.02], rtol=1e-9)
