"""Bad market data are refused with the rule, the value, the place and the cure; all at once."""

import numpy as np
import pytest

from backtest.base.errors import DataError, ParameterError
from tests.market.bad_frames import CASES
from tests.market.good_frames import Case, cell, good, hourly, load


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


def test_a_frame_without_usable_times_does_not_hide_the_defects_of_the_others():
    frames = good()
    frames["bars"] = frames["bars"].tz_localize(None)
    frames["mark"].iloc[3, 0] = np.nan
    frames["funding"].iloc[1, 0] = 0.5
    with pytest.raises(DataError, match="3 defects") as refused:
        load(frames)
    assert "stamps must have a time zone" in str(refused.value)
    assert "mark open must be positive" in str(refused.value)
    assert "funding rates must lie within" in str(refused.value)


def test_a_bad_column_does_not_hide_the_defects_of_the_other_columns():
    frames = good()
    cell("bars", "open", 2, "-")(frames)
    cell("bars", "close", 5, -3.0)(frames)
    with pytest.raises(DataError, match="2 defects") as refused:
        load(frames)
    assert "open must be numbers, got '-'" in str(refused.value)
    assert "close must be positive and finite, got -3.0" in str(refused.value)


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


@pytest.mark.parametrize(("name", "rules"), [
    (
        "a bar off the grid",  # which leaves a hole, and has no mark bar of its own
        [
            "bars must open 1h apart",
            "bars must follow each other",
            "every bar must have a mark",
        ],
    ),
    ("the same settlement from two sources, 7 ms apart", ["each settlement must occur once"]),
    ("the same settlement twice", ["funding stamps must have each time once"]),
    ("missing bars", ["bars must follow each other"]),
    ("shorter mark bars", ["mark bars must open with the bars"]),
    ("longer mark bars", ["mark bars must open with the bars"]),
    ("unsorted bars", ["bars must be in order of time"]),
])  # fmt: skip
def test_one_fault_is_not_reported_as_others(name, rules):
    frames = good()
    next(case for case in CASES if case.name == name).spoil(frames)
    with pytest.raises(DataError) as refused:
        load(frames)
    assert str(refused.value).count("where:") == len(rules) + (len(rules) > 1)
    for rule in rules:
        assert rule in str(refused.value)


def test_bars_that_are_not_as_long_as_said_are_refused_once():
    with pytest.raises(DataError) as refused:
        load(good(), interval="5m")
    assert refused.value.problem == ("bars must open 5m apart, as given, they open 1h apart")
    assert "interval='1h'" in refused.value.cure


@pytest.mark.parametrize(("arguments", "rule", "cure"), [
    ({"mark_gaps": "lst"}, "mark_gaps must be 'last' or None, got 'lst'; did you", "'last'"),
    ({"funding_gaps": True}, "funding_gaps must be 'zero' or None, got True", "'zero'"),
    ({"timezone": "Mars"}, "timezone must be the name of a zone, got 'Mars'", "'UTC'"),
    ({"interval": "1x"}, "a duration is a positive whole number", "'1h'"),
    ({"between": "2023"}, "between must be a pair of times, got '2023'", "between=("),
    ({"between": ("soon", None)}, "a time must be readable, got 'soon'", "2021-05-19"),
    ({"between": ("2022-12-31", None)},
     "a span must lie inside the bars and hold one, got 2022-12-31 to 2023-01-04",
     "between=('2023-01-01', '2023-01-04')"),
    ({"between": ("2023-01-02", "2023-01-02")}, "a span must lie inside the bars and hold one",
     "between=('2023-01-01', '2023-01-04')"),
])  # fmt: skip
def test_an_argument_that_means_nothing_is_refused(arguments, rule, cure):
    with pytest.raises(ParameterError) as refused:
        load(good(), **arguments)
    assert rule in refused.value.problem
    assert cure in refused.value.cure


@pytest.mark.parametrize("name", ["bars", "mark", "funding"])
def test_what_is_no_frame_is_refused(name):
    with pytest.raises(DataError, match=f"{name} must be a pandas DataFrame, got list"):
        load({**good(), name: [[1, 2]]})


def test_local_times_that_a_clock_change_skips_are_refused():
    frames = {"bars": good()["bars"].set_axis(hourly(start="2023-03-25", zone=None))}
    with pytest.raises(DataError) as refused:
        load(frames, timezone="Europe/Berlin")
    assert "stamps must be moments" in str(refused.value)
    assert "write the stamps in UTC" in str(refused.value)
