"""Moments: the one reader of times, columns of stamps or a single one, whoever wrote them.

Whole numbers are seconds below 1e11, ms below 1e14, us below 1e17 and else ns since 1970, in one
unit per column, from 1973 to 2100. Those that could be a date, 20240403 or 202404031000, are
refused, and so are the clocks of other programs, by their names. Text begins with the year of four
digits, as ISO 8601 has it. A time without a zone is refused, unless the caller says in which it was
written.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from backtest.core import errors, units
from backtest.core.code_names import is_frame, is_series, pd
from backtest.core.errors import BacktestError, DataError, ParameterError
from backtest.core.json_values import repr_plain

TableT = TypeVar("TableT")
Stamps: TypeAlias = "pd.Index | pd.Series"

UNITS = (units.SECOND, 10**6, 10**3, 1)
"""Nanoseconds of the units of whole numbers: s, ms, us and ns."""
UNIT_NAMES = ("s", "ms", "us", "ns")
BOUNDS = (10**11, 10**14, 10**17)
"""The numbers from which the next unit is meant."""
FIRST_EPOCH, LAST_EPOCH = 94_694_400 * units.SECOND, 4_133_980_800 * units.SECOND
"""1973 and 2101 in ns: smaller whole numbers are mostly numbers of rows, or dates."""
FIRST_YEAR, LAST_YEAR = 1678, 2261
"""The years that nanoseconds can hold in full."""
FIRST_DAY, LAST_DAY = 19_700_101, 21_010_101
CLOCK_DIGITS = (0, 4, 6, 9)
"""How many digits of a time of day may follow the eight of a date: none, HHMM, with SS, with ms."""

_YEAR_FIRST = re.compile(r"\d{4}[-/.]\d|\d{8}T")
_ENDS_IN_ZONE = r"[T ]\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$"
_UTC_NAMES = ("z", "UTC", "GMT")
_NAME_OF_UTC = re.compile(r"\s?(?:z|UTC|GMT)$")
_NUMBER = re.compile(r"\d{1,19}(?:\.\d*)?")
_YEAR = re.compile(r"\d{4}")
_USUAL = re.compile(r"(?:19|20)\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?Z?")


class Clock(NamedTuple):
    """A clock of another program, which makes ``per_second`` counts from ``origin`` on.

    ``origin`` is in s since 1970, ``cure`` the formula of epochs that are read here.
    """

    name: str
    per_second: float
    origin: int
    cure: str


CLOCKS = (
    Clock(
        name="ticks of .NET, of 100 ns since the year 1",
        per_second=1e7,
        origin=-62_135_596_800,
        cure="time // 10 - 62_135_596_800_000_000, which are us since 1970",
    ),
    Clock(
        name="FILETIME of Windows, ticks of 100 ns since 1601",
        per_second=1e7,
        origin=-11_644_473_600,
        cure="time // 10 - 11_644_473_600_000_000, which are us since 1970",
    ),
    Clock(
        name="days of Excel since 1899-12-30",
        per_second=1.0 / 86_400.0,
        origin=-25_569 * 86_400,
        cure="((time - 25_569) * 86_400).round(), which are s since 1970 (24_107 in a workbook of "
        "the date system 1904)",
    ),
)
"""Sources: learn.microsoft.com, ``DateTime.Ticks``, ``FILETIME``, and the date systems of Excel."""

LAST_TICKS = 788_918_400 * units.SECOND
"""1995 in ns: ticks of 100 ns that are read as ns lie before."""
HUNDREDTHS = frozenset(
    length * units.SECOND // 100
    for length in (60, 180, 3600, 7200, 14_400, 21_600, 28_800, 43_200, 86_400)
)
"""Usual lengths of bars in ticks of 100 ns, read as ns; bars of 3, 9 or 18 s may be just that."""

OF_FILE = "; timezone='UTC' reads them as UTC, or name the zone in which they were written"
OF_FRAME = (
    "; frame.tz_localize('UTC'), or frame['time'].dt.tz_localize('UTC') of a column, makes them UTC"
)
"""Cures of stamps without a zone, in a file and in a frame of Python."""


def read_stamps(
    stamps: Stamps,
    *,
    name: str,
    timezone: str | None = None,
    is_file: bool = False,
    error: type[BacktestError] = DataError,
) -> units.IntArray:
    """Return a column of times as int64 UTC nanoseconds of shape (n,); raise ``error`` otherwise.

    Stamps are times of pandas, texts with the year first, or whole numbers since 1970 in s, ms, us
    or ns. ``timezone`` is the zone of stamps without one; if it is omitted, these are refused.
    ``name`` says what holds the stamps, and ``is_file`` whether that is a file: the error of a
    missing zone then tells how to read the file, else how to change the frame.
    """
    # The usual table: its index is of times, and no series is made of it unless for an error.
    if isinstance(stamps, pd.DatetimeIndex):
        return _to_utc(stamps, stamps, name, timezone=timezone, is_file=is_file, error=error)

    written = pd.Series(stamps.array)
    kind = written.dtype.kind
    if kind in "iuf":
        return _read_epochs(written, name, error)
    if kind == "M":
        index = pd.DatetimeIndex(written)
        return _to_utc(index, written, name, timezone=timezone, is_file=is_file, error=error)

    texts = written.astype(str).str.strip()
    texts = texts.where(written.notna(), "")
    is_number = texts.str.fullmatch(_NUMBER.pattern).to_numpy(dtype=np.bool_)
    if len(texts) and is_number.all():
        return _read_epochs(pd.to_numeric(texts), name, error)

    # A column of numbers since 1970 with a few other texts: those texts are the fault.
    if 2 * is_number.sum() > len(texts):
        raise _unreadable(texts, ~is_number, name, error)

    # Fractions and powers of ten, 6.38448E+17, are numbers too: those of another clock.
    if len(texts) and not is_number.any():
        numbers = pd.to_numeric(texts, errors="coerce")
        _refuse_clock(numbers, texts, name, error)
    index = _read_texts(texts, name, error)
    return _to_utc(index, texts, name, timezone=timezone, is_file=is_file, error=error)


def _read_texts(texts: pd.Series, name: str, error: type[BacktestError]) -> pd.DatetimeIndex:
    """Return the times of texts, NaT where they are none; with a zone if all have one.

    Raises ``error`` if all are times, and some have a zone while others have none.
    """
    utc_texts = texts
    if texts.str.endswith(_UTC_NAMES).any():
        utc_texts = texts.str.replace(_NAME_OF_UTC.pattern, "Z", regex=True)
    has_year_first = utc_texts.str.match(_YEAR_FIRST.pattern)
    times = pd.to_datetime(
        utc_texts.where(has_year_first), format="ISO8601", utc=True, errors="coerce"
    )

    # Texts that are no times are refused where they are read, and say nothing of zones here.
    is_time = times.notna()
    has_zone = utc_texts.str.contains(_ENDS_IN_ZONE)
    is_naive = is_time & ~has_zone
    if is_time.all() and is_naive.any() and has_zone.any():
        row = int(np.flatnonzero(is_naive != is_naive.iloc[0])[0])
        raise error(
            f"stamps must all have a zone or none, got {utc_texts.iloc[0]!r} and "
            f"{utc_texts.iloc[row]!r} ({name}, row {row}); write them all in UTC, ending in Z"
        )
    if is_naive.any():
        times = times.dt.tz_localize(None)
    return pd.DatetimeIndex(times)


def _to_utc(
    index: pd.DatetimeIndex,
    written: Stamps,
    name: str,
    *,
    timezone: str | None,
    is_file: bool,
    error: type[BacktestError],
) -> units.IntArray:
    """Return times as UTC ns, of shape (n,).

    Times without a zone are of ``timezone``; without that they are refused, with the cure of a file
    (``is_file``) or of a frame. Refused as well are times that ns cannot hold, or that a change of
    clocks leaves out or repeats. ``written`` are the stamps as an error shows them, ``name`` what
    holds them.
    """
    if not _are_usual(index):
        years = index.year.to_numpy()
        is_bad = ~((years >= FIRST_YEAR) & (years <= LAST_YEAR))  # NaT has no year
        if is_bad.any():
            raise _unreadable(written, is_bad, name, error)

    if index.tz is None and timezone is None:
        first = index[0] if len(index) else "none"
        cure = OF_FRAME
        if is_file:
            cure = OF_FILE
        raise error(f"stamps must have a time zone, got {first} ({name}, row 0){cure}")
    if index.tz is None:
        index = index.tz_localize(check_timezone(timezone), ambiguous="NaT", nonexistent="NaT")
        is_bad = np.asarray(index.isna())
        if is_bad.any():
            place = f"{name}, where clocks change in {timezone}"
            raise _unreadable(written, is_bad, place, error)
    return np.array(index.as_unit("ns").asi8, dtype=np.int64)


def _are_usual(index: pd.DatetimeIndex) -> bool:
    """Return whether all times are of 1973 to 2100, which is known without the year of each."""
    nanoseconds = UNITS[UNIT_NAMES.index(index.unit)]
    stamps = index.asi8
    is_usual = (stamps >= FIRST_EPOCH // nanoseconds) & (stamps < LAST_EPOCH // nanoseconds)
    return bool(is_usual.all())


def _read_epochs(numbers: pd.Series, name: str, error: type[BacktestError]) -> units.IntArray:
    """Return epochs (n,), times since 1970 as numbers, in ns.

    The size of a number says in which unit it is written: s, ms, us or ns (:data:`BOUNDS`).
    Raises ``error`` unless all are whole numbers of one unit, from 1973 to 2100; for numbers that
    read as a date, as 20210519; and for those that count from another day than 1970.
    """
    floats = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse_clock(numbers, numbers, name, error)

    # From 2^53 on floats skip whole numbers, so that one may have been rounded.
    limit = 2.0**53 if numbers.dtype.kind == "f" else 2.0**63
    is_whole = floats == np.trunc(floats)
    is_bad = ~(is_whole & (floats >= 0.0) & (floats < limit))

    # The unit of each by its size, as the number of ns in it.
    known = numbers.fillna(0).to_numpy()
    epochs = np.where(is_bad, 0, known).astype(np.int64)
    units_meant = np.searchsorted(BOUNDS, epochs, side="right")
    factors = np.array(UNITS)[units_meant]
    is_bad |= epochs < FIRST_EPOCH // factors
    is_bad |= epochs >= LAST_EPOCH // factors
    is_bad |= _may_be_dates(epochs)

    if is_bad.any():
        raise _unreadable(numbers, is_bad, name, error)
    if (factors != factors[:1]).any():
        raise _report_units(epochs, factors, name, error)
    stamps = np.asarray(epochs * factors)
    _refuse_ticks(stamps, numbers, name, error)
    return stamps


def _may_be_dates(epochs: units.IntArray) -> units.BoolArray:
    """Return where whole numbers may be dates, YYYYMMDD, with a time of day or none.

    By their size alone such numbers would be read as epochs of 1970.
    """
    may_be = np.zeros(epochs.shape, dtype=np.bool_)
    for digits in CLOCK_DIGITS:
        low = FIRST_DAY * 10**digits
        high = LAST_DAY * 10**digits

        rows = np.flatnonzero((epochs >= low) & (epochs < high))
        days = pd.Series(epochs[rows] // 10**digits).astype(str)
        dates = pd.to_datetime(days, format="%Y%m%d", errors="coerce")
        may_be[rows] |= dates.notna().to_numpy()
    return may_be


def _report_units(
    epochs: units.IntArray, factors: units.IntArray, name: str, error: type[BacktestError]
) -> BacktestError:
    """Return the error of a column whose epochs are in several units, with two rows that differ.

    ``factors`` are the ns in the unit of each row. The row that is named is one that differs from
    the first; but if all others differ from the first alike, the first is the odd one.
    """
    is_odd = factors != factors[0]
    if factors.size > 2 and is_odd[1:].all() and (factors[1:] == factors[1]).all():
        is_odd = ~is_odd
    row = int(np.argmax(is_odd))
    usual = int(np.argmax(~is_odd))
    return error(
        f"epochs must all be in one unit, got {int(epochs[usual])} and {int(epochs[row])} "
        f"({name}, row {row}); some venues went from ms to us within a file"
    )


def _refuse_clock(
    numbers: pd.Series, written: pd.Series, name: str, error: type[BacktestError]
) -> None:
    """Raise if numbers are of another clock; ``written`` are as they stand there, 6.38448E+17."""
    floats = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    is_text = numbers is not written
    if is_text and np.isnan(floats).any():
        return
    clock = find_clock(floats)
    if clock is not None:
        raise error(
            f"stamps must be epochs since 1970 or texts, got {written.iloc[0]} ({name}, row 0), "
            f"which are {clock.name}; {clock.cure}"
        )


def find_clock(numbers: units.FloatArray) -> Clock | None:
    """Return the clock of another program that numbers of shape (n,) are of, if any.

    They lie in 1973 to 2100 by that clock. Ticks of 100 ns are ns of 1973, 1974 or 1990 as well:
    several that are all whole minutes are taken for that. No day of Excel is one of those.
    """
    known = numbers[np.isfinite(numbers)]
    if not known.size:
        return None

    are_minutes = np.unique(known).size > 1 and not (known % units.MINUTE).any()
    for clock in CLOCKS:
        first = (FIRST_EPOCH // units.SECOND - clock.origin) * clock.per_second
        last = (LAST_EPOCH // units.SECOND - clock.origin) * clock.per_second
        is_inside = bool(((known >= first) & (known < last)).all())
        if is_inside and not are_minutes:
            return clock
    return None


def _refuse_ticks(
    stamps: units.IntArray, written: pd.Series, name: str, error: type[BacktestError]
) -> None:
    """Raise ``error`` if stamps, ns since 1970, look like ticks of 100 ns of another clock.

    Read as ns, such ticks lie before 1995, and the bars are a hundredth of a usual length apart.
    """
    if stamps.size < 3 or stamps.max() >= LAST_TICKS:
        return
    gaps, counts = np.unique(np.diff(np.unique(stamps)), return_counts=True)
    usual = 0
    if gaps.size:
        usual = int(gaps[counts.argmax()])
    if usual in HUNDREDTHS:
        seconds = usual / units.SECOND
        raise error(
            f"stamps must be epochs since 1970 or texts, got {written.iloc[0]} ({name}, row 0), "
            f"bars of {seconds:g} s in {units.format_time(int(stamps[0]))[:4]}: they look like "
            "ticks of 100 ns of another clock; write them as 2021-05-19T12:00Z, or in s since 1970"
        )


def by_dates(table: TableT) -> TableT:
    """Return a series or frame whose index, of times of pyarrow or Python, is of pandas' times.

    Anything else is returned as it is.
    """
    if not is_series(table) and not is_frame(table):
        return table
    dates = as_dates(table.index)
    if dates is table.index:
        return table
    dated: Any = table.set_axis(dates)
    return dated  # type: ignore[no-any-return]


def as_dates(index: pd.Index) -> pd.Index:
    """Return an index of pyarrow's or Python's times as pandas' own; any other as it is."""
    if isinstance(index, pd.DatetimeIndex):
        return index
    is_times = getattr(index.dtype, "kind", "") == "M" or index.inferred_type == "datetime"
    if not is_times:
        return index
    return pd.DatetimeIndex(index, name=index.name)


def _unreadable(
    written: Stamps, is_bad: units.BoolArray, name: str, error: type[BacktestError]
) -> BacktestError:
    """Return the error of rows that have no readable time, with the value of the first of them.

    ``is_bad`` says which rows these are, ``written`` has all values as they stand in the data, and
    ``name`` says what holds them.
    """
    count = int(is_bad.sum())
    rows = "row" if count == 1 else "rows"
    row = int(np.argmax(is_bad))
    value = written.array[row]
    if isinstance(value, str):
        value = repr(value)
    return error(
        f"every row needs a readable time, got {value} in {count} "
        f"{rows} ({name}, row {row}); write it as 2021-05-19T12:00Z, the year "
        "first, or as an epoch in s, ms, us or ns from 1973 to 2100, or drop the row"
    )


def warn_of_outside(what: str, stamps: units.IntArray, start: int, end: int) -> None:
    """Warn of stamps before ``start``, or not before ``end``, UTC ns, with their number."""
    early = int((stamps < start).sum())
    late = int((stamps >= end).sum())
    if early + late == 0:
        return

    first = units.format_time(start)
    last = units.format_time(end)
    text = (
        f"{what}: {early + late:,} of {stamps.size:,}, {early:,} before {first} and {late:,} from "
        f"{last} on UTC"
    )
    errors.warn_caller(text, errors.OutsideWarning)


def check_timezone(timezone: str | None) -> str | None:
    try:
        pd.Timestamp(0, tz=timezone)
    except (LookupError, ValueError, TypeError, OSError, OverflowError) as error:
        raise ParameterError(
            f"timezone must be the name of a zone ('Europe/Berlin'), got {repr_plain(timezone)}"
        ) from error
    return timezone


def to_nanoseconds(time: units.TimeLike, name: str = "a time") -> int:
    """Return a time as UTC nanoseconds; a time without a zone is read as UTC."""
    try:
        if isinstance(time, str):
            return _read_one(time)
        if isinstance(time, int | np.integer):
            return _read_one(int(time))
        stamp: Any = pd.Timestamp(time if isinstance(time, units.TIMES) else None)
        if not stamp.tzinfo:
            stamp = stamp.tz_localize("UTC")
        stamp = stamp.as_unit("ns")
    except (DataError, ValueError, TypeError):
        stamp = pd.NaT

    if pd.isna(stamp):
        raise ParameterError(
            f"{name} must be a time such as 2021-05-19 or 2021-05-19T12:00 (UTC), year first, or "
            f"an epoch from 1973 to 2100, got {repr_plain(time)}"
        )
    return int(stamp.value)


@lru_cache(maxsize=1024)
def _read_one(time: str | int) -> int:
    """Return a number or text as UTC nanoseconds; a text of four digits is a year."""
    text = _NAME_OF_UTC.sub("Z", str(time).strip())
    if isinstance(time, str) and _YEAR.fullmatch(text):
        text = f"{text}-01-01"
    if _USUAL.fullmatch(text):
        return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))
    return int(read_stamps(pd.Index([text]), name="a time", timezone="UTC")[0])


def as_of(rate: float | pd.Series, time: units.IntArray, key: str) -> units.FloatArray:
    """Return the value in force at each time: of shape (n,), or (1,) for a constant.

    ``time`` are rising times, UTC ns. A value of a series is in force from its time on. ``key``
    names the setting in the error of a series that begins after the first time.
    """
    if not is_series(rate):
        return np.array([float(rate)])

    # The last row of the series that is not later than each time; -1 if all are.
    stamps = pd.DatetimeIndex(rate.index).as_unit("ns").asi8
    rows = np.searchsorted(stamps, time, side="right") - 1
    if rows[0] < 0:
        raise ParameterError(
            f"{key}: a series must begin by the first bar, {units.format_time(int(time[0]))} UTC, "
            f"got one from {units.format_time(int(stamps[0]))} UTC"
        )
    return np.asarray(rate.to_numpy(dtype=np.float64)[rows])
