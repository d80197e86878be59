"""Where on a segment of a bar's path the stop of a position acts, and at which price."""

import pytest

from backtest.account.price_walk import place_stop

LONG, SHORT = 1.0, -1.0


@pytest.mark.parametrize(("side", "start", "end", "stop", "place", "price"), [
    (LONG, 100.0, 90.0, 95.0, 0.5, 95.0),  # 5 of the 10 down
    (LONG, 100.0, 80.0, 95.0, 0.25, 95.0),
    (SHORT, 100.0, 120.0, 115.0, 0.75, 115.0),
    (LONG, 94.0, 90.0, 95.0, 0.0, 94.0),  # beyond it already: at once, at the price of now
    (SHORT, 116.0, 120.0, 115.0, 0.0, 116.0),
    (LONG, 100.0, 100.0, 95.0, 1.0, 100.0),  # no way to go
])  # fmt: skip
def test_a_stop_acts_where_the_segment_meets_it(side, start, end, stop, place, price):
    assert place_stop(side, start, end, stop) == (place, price)
