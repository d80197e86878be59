"""Bad market data are refused with the rule, the value, the place and the cure; all at once."""

import numpy as np
import pytest

from backtest.base.errors import DataError
from tests.market.bad_frames import CASES
from tests.market.good_frames import Case, good, hourly, load


def test_the_frames_that_cases_spoil_are_good():
    market = load(good())
    assert market.n_bars == 72
    assert market.has_mark
    assert market.funding_time.size == 9
    assert dict(market.filled) == {}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_defect_is_named_with_its_value_place_and_cure(case: Case):
    frames = good()
    case.spoil(frames)
    with pytest.raises(DataError) as refused:
        load(frames)
    message = str(refused.value)
    for part in (case.rule, case.value, case.place, case.cure):
        assert part in message, message


def test_all_defects_are_listed_in_one_error_with_their_own_place_and_cure():
    frames = good()
    for name in ("a NaN price", "a negative volume", "a mark that begins late",
                 "a missing settlement", "a funding rate in percent"):  # fmt: skip
        next(case for case in CASES if case.name == name).spoil(frames)
    with pytest.raises(DataError) as refused:
        load(frames)
    error = refused.value
    assert error.problem.startswith("market data has 5 defects\n  1. close must be positive")
    assert "\n  5. " in error.problem
    assert error.problem.count("\n     where: ") == 5
    assert error.problem.count("\n     cure:  ") == 5
    assert error.where == "the frames given"
    assert error.cure == "correct each of the defects listed above"
    assert max(map(len, error.problem.splitlines())) < 200


def test_the_span_in_the_cure_of_uncovered_bars_is_accepted():
    frames = good()
    frames["mark"] = frames["mark"].iloc[6:]
    frames["funding"] = frames["funding"].iloc[3:]
    with pytest.raises(DataError) as refused:
        load(dict(frames))
    span = ("2023-01-01 16:00", "2023-01-04")
    assert str(refused.value).count(f"between={span}") == 2
    market = load(dict(frames), between=span)
    assert market.n_bars == 56
    assert dict(market.filled) == {}


def test_what_is_filled_by_choice_does_not_shorten_the_span_in_the_cure():
    frames = good()
    frames["mark"] = frames["mark"].iloc[30:]
    frames["funding"] = frames["funding"].iloc[3:]
    with pytest.raises(DataError) as refused:
        load(dict(frames), mark_gaps="last")
    assert "between=('2023-01-01 16:00', '2023-01-04')" in refused.value.cure
    with pytest.raises(DataError) as refused:
        load(dict(frames), funding_gaps="zero")
    assert "between=('2023-01-02 06:00', '2023-01-04')" in refused.value.cure


def test_the_stretch_in_the_cure_of_missing_bars_is_accepted():
    frames = good()
    frames["bars"] = frames["bars"].drop(frames["bars"].index[[10, 11, 40]])
    assert load(frames, between=("2023-01-02 17:00", "2023-01-04")).n_bars == 31


def test_a_defect_outside_the_span_asked_for_does_not_count():
    frames = good()
    frames["bars"].iloc[2, 3] = np.nan
    frames["mark"].iloc[3, 1] = -1.0
    frames["funding"].iloc[0, 0] = np.nan
    assert load(frames, between=("2023-01-02", None)).n_bars == 48


def test_local_times_that_a_clock_change_skips_are_refused():
    frames = {"bars": good()["bars"].set_axis(hourly(start="2023-03-25", zone=None))}
    with pytest.raises(DataError) as refused:
        load(frames, timezone="Europe/Berlin")
    assert "stamps must be moments" in str(refused.value)
    assert "write the stamps in UTC" in str(refused.value)
