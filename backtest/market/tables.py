"""Tables by UTC time as they were read, and settlements: their cadence, gaps and bars.

Also parts of a market, groups of its bars, and markets of longer bars.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from backtest import core
from backtest.core import BoolArray, DataError, FloatArray, IntArray, ParameterError
from backtest.core.code_names import pd
from backtest.core.units import DAY, HOUR, MINUTE, SECOND

MarkGaps = Literal["last"] | None
FundingGaps = Literal["zero"] | None
PRICES = ("open", "high", "low", "close")
TIME_NAMES = ("time", "date", "timestamp", "open_time", "datetime")
PAYMENT_NAMES = (
    "payment", "fundingtimestamp", "funding_timestamp", "nextfundingtime", "next_funding_time",
    "nextfundingtimestamp", "next_funding_timestamp", "funding_next_apply",
)  # fmt: skip
"""Columns with the time at which a rate in force is paid, ours first.

Sources: Tardis ``derivative_ticker``, Bybit ``tickers``, Gate ``contracts``, ccxt 4.5.64
``fetch_funding_rate``.
"""
NOTHING = ("", "0", "0.0", "nan", "None", "null")
"""How feeds write that there is no next payment."""
LEAD = "payment"
"""The column of the time from a rate's stamp to its payment, ns."""
SUMMED = ("volume", "taker_buy_volume", "quote_volume", "trades")
"""Columns that add up over bars; of a bar that was filled in they are 0."""
FLAG = "is_closed"
_FLAG_NAME = re.compile(
    "(is_?|bar_?|candle_?|kline_?)?(confirm|confirmed|completed?|closed|final|finished|done)"
)
"""Columns that say whether a bar is finished: OKX, OANDA, Binance's streams and what reads them."""
_FINISHED = ("1", "1.0", "true", "t", "yes", "y", "done", "closed", "complete", "completed",
             "final", "finished")  # fmt: skip
_UNFINISHED = ("0", "0.0", "false", "f", "no", "n", "open", "incomplete", "partial", "pending",
               "unfinished", "forming", "live")  # fmt: skip
BY_BARS = "pd.Series(values, index=market.times)"
"""The cure of a Series by anything but time: what is given by position is an array."""
BY_TIMES = "pd.DataFrame(values, index=markets.times, columns=markets.names)"


class Defects(list[str]):
    """What is wrong with data, where, and how to mend it: ``rule, value (place); cure``."""

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Add an error of data that is raised inside, and go on after it."""
        try:
            yield
        except DataError as error:
            self.append(str(error))

    def refuse(self, where: str) -> None:
        """Raise what is wrong as one DataError, a numbered line each; nothing if all is right."""
        if len(self) == 1:
            raise DataError(self[0])
        if self:
            listed = "".join(f"\n{n:>3}. {defect}" for n, defect in enumerate(self, start=1))
            raise DataError(f"market data has {len(self)} defects ({where}){listed}")


@dataclass(eq=False)
class TimedTable:
    """Columns by time (UTC ns), as read; ``name`` is the file or frame that they came from."""

    name: str
    time: IntArray
    columns: dict[str, FloatArray]

    def rows(self, kept: slice | IntArray | BoolArray) -> TimedTable:
        columns = {key: values[kept] for key, values in self.columns.items()}
        return TimedTable(self.name, self.time[kept], columns)

    def between(self, start: int, end: int) -> TimedTable:
        return self.rows((self.time >= start) & (self.time < end))

    @property
    def has_prices(self) -> bool:
        return {*PRICES} <= {*self.columns}

    @cached_property
    def ordered(self) -> TimedTable:
        """The table in order of time, each time once; the first row of equal ones."""
        if is_increasing(self.time):
            return self
        return self.rows(np.unique(self.time, return_index=True)[1])


def is_increasing(time: IntArray) -> bool:
    return bool((time[1:] > time[:-1]).all())


LEAST_PRICE, MOST_PRICE, MOST_VOLUME = 1e-15, 1e15, 1e18
INT_LIMITS = (2.0**31 - 1.0, 2.0**32 - 1.0)
"""What programs write for an unknown number; those of longer types are above the largest price."""


def is_price(values: FloatArray) -> BoolArray:
    """Return which values can be prices; the limits of a type of numbers are none."""
    is_sound = (values >= LEAST_PRICE) & (values <= MOST_PRICE)
    for limit in INT_LIMITS:
        is_sound &= values != limit
    return np.asarray(is_sound)


def lacks_prices(table: TimedTable) -> BoolArray:
    """Return which rows of a table of prices hold none at all, of shape (n,)."""
    if not table.has_prices:
        return np.zeros(table.time.size, dtype=np.bool_)

    is_empty = np.ones(table.time.size, dtype=np.bool_)
    for name in PRICES:
        is_empty &= np.isnan(table.columns[name])
    return is_empty


def spacing(time: IntArray) -> int | None:
    """Return the most common positive gap between times that rise, in ns; of equals the smallest.

    None without a positive gap.
    """
    gaps = np.diff(time)
    if gaps.size and gaps[0] > 0 and (gaps == gaps[0]).all():  # without sorting them
        return int(gaps[0])

    gaps, counts = np.unique(gaps[gaps > 0], return_counts=True)
    if not gaps.size:
        return None
    return int(gaps[counts.argmax()])


class Schema(NamedTuple):
    known: tuple[str, ...]
    n_required: int
    others: Literal["keep", "ignore", "refuse"]


SCHEMAS = {
    "bars": Schema((*PRICES, "volume"), 4, "keep"),
    "mark": Schema(PRICES, 4, "ignore"),
    "funding": Schema(("rate", "mark"), 1, "refuse"),
}


def read_frame(
    frame: pd.DataFrame,
    schema: Schema,
    defects: Defects,
    *,
    name: str,
    timezone: str | None,
    is_file: bool = False,
) -> TimedTable:
    """Return the columns of a frame that a schema knows as arrays of floats, by UTC time.

    ``name`` is the file or frame, for messages; ``timezone`` is that of stamps without one. A
    column that cannot be read is left out, and added to ``defects``; so are columns that lack, or
    that the schema refuses. Raises DataError where nothing can be read: without rows, without
    stamps, or with two columns of one name. Bars lose a last one that is marked as unfinished.
    """
    if not len(frame):
        raise DataError(f"data must have rows, found none ({name})")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"column names must be unique, {twice!r} is twice ({name})")

    check_levels(frame, name)
    frame = rename_known(frame, (*TIME_NAMES, *schema.known), name)
    stamps, time_column = find_stamps(frame, name=name)
    present = [column for column in frame.columns if column != time_column]

    # The time of the payment of a rate in force belongs to rates alone.
    payments = []
    if "rate" in schema.known:
        payments = [column for column in present if is_payment(column)]
    others = [column for column in present if column not in {*schema.known, *payments}]
    note_other_columns(schema, present, others, defects, name=name)

    wanted = schema.known
    if schema.others == "keep":
        wanted += list_texts(others)
    columns = read_columns(
        frame, [column for column in wanted if column in present], defects, name=name
    )

    # A rate in force is paid some time after its stamp: that is a column too.
    time = core.read_stamps(stamps, name=name, timezone=timezone, is_file=is_file)
    if payments:
        due = frame[payments]
        columns[LEAD] = read_leads(due, time, name=name, timezone=timezone, is_file=is_file)
    table = TimedTable(name, time, columns)
    is_of_bars = {*PRICES} <= {*wanted}
    if is_of_bars:
        return leave_out_unfinished(table, frame)
    return table


def read_columns(
    frame: pd.DataFrame, names: Sequence[Any], defects: Defects, *, name: str
) -> dict[str, FloatArray]:
    """Return some columns of a frame as new arrays of floats, of shape (n,), by their names.

    A column of yes and no becomes 1 and 0. One that cannot be read is left out and added to
    ``defects``. ``name`` is the file or frame, for messages.
    """
    columns = {}
    numbers = read_short(frame)
    for column in names:
        # A short table of floats alone has nothing that could not be read.
        if numbers is not None:
            columns[column] = clean_floats(numbers[:, frame.columns.get_loc(column)])
            continue

        read = to_floats
        if is_text_flag(column, frame):
            read = read_flag_texts
        with defects.catch():
            columns[column] = read(frame[column], column=column, name=name)
    return columns


def check_levels(frame: pd.DataFrame, name: str) -> None:
    """Raise DataError of columns with several names each, as yfinance has for its tickers."""
    if frame.columns.nlevels == 1:
        return
    first = frame.columns[0]
    raise DataError(
        f"columns must have one name each, found {first!r} ({name}); "
        f"frame.xs({first[-1]!r}, axis=1, level=-1) has those of one instrument"
    )


def list_texts(columns: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of columns that are texts."""
    return tuple(column for column in columns if isinstance(column, str))


def note_other_columns(
    schema: Schema, present: Sequence[Any], others: Sequence[Any], defects: Defects, *, name: str
) -> None:
    """Add to ``defects`` the columns that lack, and those that a schema does not allow.

    ``present`` are all columns but the time, ``others`` those of them that the schema does not
    know; ``name`` is the file or frame, for messages.
    """
    needed = schema.known[: schema.n_required]
    missing = [column for column in needed if column not in present]
    names = [str(column) for column in others]
    shown = ", ".join(names) or "no other"
    for column in missing:
        near = core.did_you_mean(column, names)
        defects.append(f"a column {column!r} is needed, found {shown}{near} ({name})")

    if schema.others == "keep":
        for column in others:
            if not isinstance(column, str):
                defects.append(f"column names must be text, found {column!r} ({name})")

    # Beside a column that lacks, another one may be it under a wrong name: that was said above.
    elif schema.others == "refuse" and not missing:
        listed = " and ".join(schema.known)
        for column in others:
            near = core.did_you_mean(str(column), schema.known)
            defects.append(f"columns must be {listed}, found {column!r}{near} ({name})")


def read_leads(
    frame: pd.DataFrame, time: IntArray, *, name: str, timezone: str | None, is_file: bool
) -> FloatArray:
    """Return how long after its stamp each rate is paid, ns of shape (n,); NaN if unknown.

    ``frame`` holds columns of times of payment. Where a row has several, the earliest that is not
    before its stamp counts.
    """
    leads = np.full(time.size, np.nan)
    has_payment = np.zeros(time.size, dtype=np.bool_)
    for column, values in frame.items():
        rows = find_known_payments(values)
        if not rows.size:
            continue

        paid = core.read_stamps(
            values.iloc[rows], name=f"{name}, {column}", timezone=timezone, is_file=is_file
        )
        lead = np.full(time.size, np.nan)
        lead[rows] = paid - time[rows]
        has_payment[rows] = True
        leads = np.fmin(leads, np.where(lead >= 0.0, lead, np.nan))

    # A feed may lag behind a payment for a moment. Where half of the rows or more are late, the
    # column has the time of the payment before, not of the one to come.
    late = int((has_payment & np.isnan(leads)).sum())
    if 2 * late >= has_payment.sum():
        columns = " and ".join(map(str, frame.columns))
        raise DataError(
            f"a rate in force needs the time of its payment, at its stamp or later, got {columns} "
            f"before it or empty in {int(np.isnan(leads).sum())} of {time.size} rows ({name}); "
            "leave the column out if the rates were paid at their stamps"
        )
    return leads


def find_known_payments(values: pd.Series) -> IntArray:
    """Return the rows of a column of times of payment that have one."""
    is_known = values.notna()
    if values.dtype.kind in "iuf":
        is_known &= values != 0
    elif values.dtype.kind != "M":
        is_known &= ~values.astype(str).str.strip().isin(NOTHING)
    return np.flatnonzero(is_known.to_numpy(dtype=np.bool_))


def is_flag(name: object) -> bool:
    """Return whether a column is called as one that says which bars are finished."""
    return _FLAG_NAME.fullmatch(plain_name(name)) is not None


def is_text_flag(name: str, frame: pd.DataFrame) -> bool:
    return is_flag(name) and frame[name].dtype.kind not in "iufb"


def read_flag(values: pd.Series) -> FloatArray | None:
    """Return a column that says which bars are finished as 1, 0, and NaN for empty cells.

    Numbers of 1 and 0, and words such as yes and no, are read. None if the column holds anything
    else.
    """
    if values.dtype.kind in "iufb":
        flag = values.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        words = values.astype(str).str.strip()
        words = words.str.lower().where(values.notna(), "")

        # A word that is none of these is -1, which no flag has, so the column is refused below.
        flag = np.full(len(words), -1.0)
        flag[words == ""] = np.nan
        flag[words.isin(_UNFINISHED)] = 0.0
        flag[words.isin(_FINISHED)] = 1.0

    is_empty = np.isnan(flag)
    is_known = np.isin(flag, (0.0, 1.0))
    if (is_empty | is_known).all():
        return flag
    return None


def read_flag_texts(values: pd.Series, *, column: str, name: str) -> FloatArray:
    """Return a flag of texts as 1 and 0; raise if one of them is unknown."""
    flag = read_flag(values)
    if flag is not None:
        return flag
    row = next(k for k in range(len(values)) if read_flag(values.iloc[k : k + 1]) is None)
    raise DataError(
        f"{column} must be yes or no, true or false or 1 or 0 by whether a bar is finished, got "
        f"{values.iloc[row]!r} ({name}, row {row}); write it so, or leave out the bars that are "
        "not finished before you drop the column"
    )


def leave_out_unfinished(table: TimedTable, frame: pd.DataFrame) -> TimedTable:
    """Return the table without its last bar, if that bar alone is marked as unfinished.

    Vendors mark it in a column of yes and no, such as "is_closed"; ``frame`` still has it. The bar
    is dropped with a warning. Marks of other bars are left: the report of data quality shows them.
    """
    for column in filter(is_flag, frame.columns):
        flag = read_flag(frame[column])
        if flag is None or table.time.size < 2:
            continue

        rows = np.flatnonzero(flag != 1.0)  # an empty cell is no yes
        if rows.size == 1 and table.time[rows[0]] == table.time.max():
            opened = core.format_time(int(table.time[rows[0]]))
            core.warn_caller(
                f"the last bar left out, {opened} UTC: {column!r} marks it as unfinished "
                f"({table.name})"
            )
            return table.rows(flag == 1.0)
    return table


def plain_name(name: object) -> str:
    """Return a name in lower case, with an underscore for what is no letter or digit."""
    return _make_plain(str(name))


@lru_cache(maxsize=1024)
def _make_plain(text: str) -> str:
    """Return a text as :func:`plain_name` does; kept, for tables have the same few columns."""
    return re.sub(r"\W+", "_", text.strip().lower())


def is_payment(name: object) -> bool:
    plain = plain_name(name)
    return plain in PAYMENT_NAMES or re.fullmatch(rf"{LEAD}_\d+", plain) is not None


def spell_columns(frame: pd.DataFrame, known: Collection[str], where: str) -> dict[str, Any]:
    """Return the columns of a frame by their plain names: lower case, with underscores.

    Raises DataError if two columns have one plain name that is ``known``.
    """
    found: dict[str, Any] = {}
    for column in frame.columns:
        plain = plain_name(column)
        if plain in known and plain in found:
            raise DataError(
                f"one column may be {plain!r}, whatever its case, found {found[plain]!r} and "
                f"{column!r} ({where}); rename one of them"
            )
        found[plain] = column
    return found


def rename_known(frame: pd.DataFrame, known: Collection[str], where: str) -> pd.DataFrame:
    """Return a frame whose columns that are ``known`` are spelled as ours; others stay.

    Raises DataError if two columns are one of ours; ``where`` is the file or frame.
    """
    spelled = spell_columns(frame, known, where)
    our_names = {}
    for name in known:
        if name in spelled and spelled[name] != name:
            our_names[spelled[name]] = name
    if not our_names:
        return frame.copy(deep=False)  # to rename takes forty times as long
    return frame.rename(columns=our_names)


SHORT = 10_000
"""Rows up to which a table of floats is read as one array: pandas takes .05 ms for each column."""


def read_short(frame: pd.DataFrame) -> FloatArray | None:
    """Return a short table of float64 alone as an array of shape (n, columns), else None."""
    if len(frame) > SHORT:
        return None
    numbers = frame.to_numpy()
    if numbers.dtype != np.float64:
        return None
    return numbers


def clean_floats(numbers: FloatArray) -> FloatArray:
    """Return a copy with one bit pattern for zero and one for NaN: one hash per value."""
    floats = np.ascontiguousarray(numbers + 0.0)  # -0.0 becomes 0.0
    floats[np.isnan(floats)] = np.nan
    return floats


def to_floats(values: pd.Series, *, column: str, name: str) -> FloatArray:
    """Return a column as a new float64 array of shape (n,); cells without a value are NaN.

    Raises DataError with the first cell that is no number; ``column`` and ``name`` (of the file or
    frame) are for the message.
    """
    if values.dtype.kind in "iufb" or values.isna().all():
        return clean_floats(values.to_numpy(dtype=np.float64, na_value=np.nan))

    rule = f"{column} must be numbers"
    if values.dtype.kind in "Mm":
        raise DataError(f"{rule}, found {values.dtype} ({name}, row 0); drop the column")
    texts = values.astype(str)
    is_number = pd.to_numeric(texts, errors="coerce").notna()
    bad = np.flatnonzero(~is_number & values.notna())
    if not bad.size:
        raise DataError(
            f"{rule}, got {texts.iloc[0]!r}, numbers written as text ({name}, row 0); "
            f"frame[{column!r}].astype(float)"
        )
    row = bad[0]
    raise DataError(
        f"{rule}, got {texts.iloc[row]!r} in {bad.size} of {len(values)} cells "
        f"({name}, row {row}); correct the cell, or drop the column"
    )


def find_stamps(frame: pd.DataFrame, *, name: str) -> tuple[core.Stamps, str | None]:
    """Return the stamps of a frame, and the column that they are; None if they are its index.

    Raises DataError if there is no column of times, or more than one.
    """
    index = core.as_dates(frame.index)
    if isinstance(index, pd.DatetimeIndex) or index.name in TIME_NAMES:
        return index, None

    candidates = [column for column in TIME_NAMES if column in frame.columns]
    if len(candidates) == 1:
        return frame[candidates[0]], candidates[0]
    if candidates:
        listed = " and ".join(candidates)
        raise DataError(
            f"one column of times is needed, found {listed} ({name}); join a day and its time of "
            "day in one column, or drop the other"
        )
    columns = ", ".join(map(str, frame.columns)) or "none"
    raise DataError(
        f"one column of times is needed, found none among the columns {columns} ({name}); index "
        f"the frame by time, name a column one of {', '.join(TIME_NAMES)} (to_csv writes an index "
        "without a name: give it index_label='time'), or name them by columns (backtest data "
        "import --columns time=NAME,open=...)"
    )


def read_dates(
    index: pd.Index,
    argument: str,
    cure: str = BY_TIMES,
    *,
    error: Any = ParameterError,
) -> IntArray:
    """Return the stamps of an index of dates as int64, UTC ns; each must be there once.

    ``argument`` is what the index is of, and ``cure`` ends the message, if it is none. ``error`` is
    the class that is raised.
    """
    index = core.as_dates(index)
    if not isinstance(index, pd.DatetimeIndex):
        raise error(
            f"{argument} must be an array, or be indexed by time, was by {type(index).__name__}; "
            f"{cure}"
        )
    stamps = core.read_stamps(index, name=argument, error=error)
    if index.has_duplicates:
        twice = index[index.duplicated()][0]
        raise error(
            f"{argument} must have one row per time, {twice} is there twice; "
            f"{argument}[~{argument}.index.duplicated()] keeps the first"
        )
    return stamps


class SourceFrame(NamedTuple):
    name: str
    content: pd.DataFrame | DataError
    is_file: bool = False


def read_table(
    parts: Sequence[SourceFrame], schema: Schema, timezone: str | None, defects: Defects
) -> TimedTable | None:
    """Return some files or frames as one table, the oldest rows first; None if one is no table.

    What is wrong with any of them is added to ``defects``. ``timezone`` is that of stamps without
    one.
    """
    tables = []
    for part in parts:
        with defects.catch():
            if isinstance(part.content, DataError):
                raise part.content
            table = read_frame(
                part.content,
                schema,
                defects,
                name=part.name,
                timezone=timezone,
                is_file=part.is_file,
            )
            # Some venues write the newest row first.
            if part.is_file and is_increasing(-table.time):
                table = table.rows(slice(None, None, -1))
            tables.append(table)

    # One that could not be read is a defect already.
    if len(tables) < len(parts) or not tables:
        return None
    tables.sort(key=lambda table: int(table.time[0]))
    if len(tables) == 1:
        return tables[0]
    return join_tables(tables, defects)


def join_tables(tables: Sequence[TimedTable], defects: Defects) -> TimedTable | None:
    """Return tables one after the other as one; None if their columns differ, which is a defect."""
    first = tables[0]
    for other in tables[1:]:
        differing = ", ".join(sorted({*first.columns} ^ {*other.columns}))
        if not differing:
            continue
        # A column that could not be read is a defect already.
        if not defects:
            defects.append(
                "files of one table must have the same columns, "
                f"{first.name} and {other.name} differ in {differing}"
            )
        return None

    columns = {}
    for name in first.columns:
        columns[name] = np.concatenate([table.columns[name] for table in tables])
    time = np.concatenate([table.time for table in tables])
    return TimedTable(f"{first.name} and {len(tables) - 1} more", time, columns)


JITTER = MINUTE
"""How far a stamp may be from the boundary that it belongs to, ns."""

MAX_RATE = 0.10
"""The largest rate of one settlement that is accepted, as a fraction; venues cap well below."""

MAX_CLOSURE = 14 * DAY
"""How far from the first or last session a span may begin or end and still be inside, ns."""

USUAL = 8 * HOUR
_Time = TypeVar("_Time", int, IntArray)


class Span(NamedTuple):
    """Time from ``start`` up to but not including ``end``, ns."""

    start: int
    end: int

    def within(self, other: Span | None) -> Span:
        """Return the part of the span that lies in another one; all of it without one."""
        if other is None:
            return self
        return Span(max(self.start, other.start), min(self.end, other.end))

    def replace(self, start: int | None, end: int | None) -> Span:
        """Return the span with another start or end."""
        if start is None:
            start = self.start
        if end is None:
            end = self.end
        return Span(start, end)

    def has_days_of(self, other: Span, *, sessions: bool) -> bool:
        """Return whether each UTC day of another span is a day of this one.

        With ``sessions`` the other may begin earlier or end later by a usual closure.
        """
        room = 0
        if sessions:
            room = MAX_CLOSURE
        first_day = (self.start - room) // DAY
        last_day = (self.end - 1 + room) // DAY

        first_of_other = other.start // DAY
        last_of_other = (other.end - 1) // DAY
        return first_day <= first_of_other and last_of_other <= last_day

    def __str__(self) -> str:
        start = core.format_time(self.start)
        end = core.format_time(self.end)
        return f"{start} to {end} UTC"


def place_on_bars(
    stamps: IntArray, time: IntArray, interval: int, jitter: int = JITTER
) -> tuple[IntArray, BoolArray]:
    """Return the bar that each settlement belongs to, and whether it is paid at its open.

    ``stamps`` are increasing, of shape (n_events,); ``time`` holds the opens of the bars, of shape
    (n_bars,); all times are in ns. Both results have shape (n_events,). The bar is -1 for a stamp
    before the first bar, and n_bars for one at the open after the last bar. What is paid at the
    open is paid by the position held before it.
    """
    # A stamp a little before an open belongs to that open.
    width = min(jitter, interval // 4)
    latest = stamps + width
    bar = np.searchsorted(time, latest, side="right") - 1
    opened = time[np.maximum(bar, 0)]

    # One at the close of its bar, where no bar follows at once, is at the open of the next.
    closed = opened + interval
    is_at_close = (bar >= 0) & (latest >= closed)
    is_near_open = np.abs(stamps - opened) <= width
    return bar + is_at_close, is_at_close | is_near_open


def cadence(time: IntArray) -> int:
    """Return the most common time between settlements in ns, without jitter; 8 h if unknown."""
    times_in_minutes = np.zeros_like(time)
    np.cumsum(_gaps(time), out=times_in_minutes[1:])
    return spacing(times_in_minutes) or USUAL


def coverage(time: IntArray, start: int, end: int) -> tuple[int, int]:
    """Return the time that settlements in a span cover, as (start, end) in ns.

    A settlement covers the time to the next one, and from the one before. Where all settlements lie
    before the span, or all after it, it is the time that all of them cover. ``start`` and ``end``
    are of the span, ns; stamps may lie JITTER before the boundary that they are of.
    """
    first = int(np.searchsorted(time, start - JITTER))
    last = int(np.searchsorted(time, end)) - 1
    is_outside = first == time.size or last < 0
    if is_outside:
        usual = cadence(time)
        return int(time[0]) - usual, int(time[-1]) + usual

    # A span between two settlements has ``first`` after ``last``: both cover it, from its two ends.

    # A gap that is too long, where settlements are missing, counts as the longest usual one.
    gaps = np.minimum(_gaps(time), _limit(time))

    # Stamps lie some ms off the boundary: less than a second.
    covered_from = int(time[first]) - find_longer_gap(gaps, first) - SECOND
    covered_to = int(time[last]) + find_longer_gap(gaps, last) + SECOND
    return covered_from, covered_to


def find_longer_gap(gaps: IntArray, k: int) -> int:
    """Return the longer of the gaps before and after settlement k, in ns.

    ``gaps`` (n - 1,) has the gap after each settlement but the last. One that is alone has the
    usual gap.
    """
    before = max(k - 1, 0)
    beside = gaps[before : k + 1]
    return int(beside.max(initial=0)) or USUAL


class SettlementGap(NamedTuple):
    """Two settlements between which some are missing: their stamps, ns.

    ``missing`` is how many, ``distance`` how far apart settlements beside the gap are, ns.
    """

    before: int
    after: int
    missing: int
    distance: int


def missing_settlements(time: IntArray, start: int, end: int) -> list[SettlementGap]:
    """Return the gaps between settlements in a span of time, ns.

    ``time`` are the stamps of all settlements, rising. A gap counts by the settlement before it,
    from ``start`` on, and by the one after it, before ``end``.
    """
    gaps = _gaps(time)
    if gaps.size < 1:
        return []

    # A gap is longer than any usual distance, or than 1.5 times the longer of those beside it.
    limit = _limit(time)
    longer_beside = find_longer_beside(gaps, limit)
    is_gap = (gaps > limit) | (2 * gaps > 3 * longer_beside)

    before = time[:-1]
    after = time[1:]
    is_inside = (before >= start - JITTER) & (after < end)
    rows = np.flatnonzero(is_gap & is_inside)

    # A gap among hours lacks hours, also where most of the file is every 8 hours.
    usual = cadence(time)
    gaps_before = np.append(usual, gaps[:-1])
    gaps_after = np.append(gaps[1:], usual)
    shorter = np.minimum(gaps_before, gaps_after)[rows]
    n_steps = np.round(gaps[rows] / shorter).astype(np.int64)
    missing = np.maximum(n_steps - 1, 1)

    table = np.stack([before[rows], after[rows], missing, shorter], axis=1)
    return [SettlementGap._make(row) for row in table.tolist()]


def find_longer_beside(gaps: IntArray, limit: int) -> IntArray:
    """Return the longer of the gaps before and after each, at most the limit, which the ends have.

    A gap that is half as long again as both is one in which a settlement lacks.
    """
    capped = np.minimum(gaps, limit)
    gaps_before = np.append(limit, capped[:-1])
    gaps_after = np.append(capped[1:], limit)
    return np.asarray(np.maximum(gaps_before, gaps_after))


def _limit(time: IntArray) -> int:
    """Return the longest time between settlements in which none lacks, ns."""
    return max(USUAL, cadence(time)) + HOUR // 2


def _gaps(time: IntArray) -> IntArray:
    return nearest_minute(np.diff(time))


def nearest_minute(time: _Time) -> _Time:
    """Round times in ns to whole minutes, to remove the jitter of stamps."""
    return (time + MINUTE // 2) // MINUTE * MINUTE


NEIGHBORS = 5
"""Groups at either end that show when a group usually begins and ends."""

MARK_PRICES = tuple(f"mark_{name}" for name in PRICES)
_MONDAY = 4 * DAY  # 1970-01-05; the epoch was a Thursday


def grid_origin(length: int) -> int:
    """Return a time at which bars of a length open: of weeks a Monday, else the epoch."""
    if length % (7 * DAY) == 0:
        return _MONDAY
    return 0


class BarGroups(NamedTuple):
    """Complete groups of bars, from bar ``first`` up to bar ``stop`` of the market.

    ``time`` holds the opens of the longer bars (UTC ns) and ``starts`` the first bar of each group,
    counted from ``first``, both of shape (n_groups,). ``size`` is the number of bars in each group,
    0 if it varies.
    """

    time: IntArray
    starts: IntArray
    first: int = 0
    stop: int = 0
    size: int = 0

    def total(self, values: FloatArray) -> FloatArray:
        """Return the sum of each group, of shape (n_groups,)."""
        if self.size:  # NumPy rounds the two sums differently
            by_group = values.reshape(-1, self.size)
            return np.asarray(by_group.sum(axis=1))
        return np.asarray(np.add.reduceat(values, self.starts))

    def last(self, values: FloatArray) -> FloatArray:
        """Return the last value of each group, of shape (n_groups,)."""
        stops = np.append(self.starts[1:], len(values))
        return np.asarray(values[stops - 1])

    def ohlc(
        self, opens: FloatArray, highs: FloatArray, lows: FloatArray, closes: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return first open, highest high, lowest low, last close, each of shape (n_groups,)."""
        return (
            opens[self.starts],
            np.maximum.reduceat(highs, self.starts),
            np.minimum.reduceat(lows, self.starts),
            self.last(closes),
        )


def compare_ends(offset: IntArray, edges: IntArray) -> tuple[bool, bool]:
    """Return whether the first stretch begins late, and the last ends early, beside its neighbors.

    ``offset`` is the time of each bar since its stretch began, ns; stretches lie between ``edges``.
    A single stretch has no neighbors to be complete by.
    """
    begins = offset[edges[:-1]]
    ends = offset[edges[1:] - 1]
    if len(begins) < 2:
        return True, True

    usual_begin = np.median(begins[1 : 1 + NEIGHBORS])
    usual_end = np.median(ends[-1 - NEIGHBORS : -1])
    is_late = bool(begins[0] > usual_begin)
    is_early = bool(ends[-1] < usual_end)
    return is_late, is_early


def group_bars(time: IntArray, interval: int, length: int, *, sessions: bool) -> BarGroups:
    """Return the groups of bars that open in the same UTC-aligned stretch of ``length`` ns.

    ``time`` holds the opens, UTC ns. The first and the last stretch are complete if bars reach to
    their ends, in a market with ``sessions`` if they begin and end as usual for the five beside
    them.
    """
    origin = grid_origin(length)
    since = time - origin
    check_length(since, interval, length, sessions=sessions)

    # Rows at which a stretch begins, and one after the last row: a group lies between two edges.
    stretch = since // length
    starts = np.flatnonzero(np.diff(stretch, prepend=stretch[0] - 1))
    edges = np.append(starts, len(time))

    # Stretches at either end that are not complete are left out.
    offset = since - stretch * length
    is_late = offset[0] > 0
    is_early = offset[-1] + interval < length
    if sessions:
        is_late, is_early = compare_ends(offset, edges)
    if is_late:
        edges = edges[1:]
    if is_early:
        edges = edges[:-1]

    size = length // interval
    if len(edges) < 2:
        bars = "bars" if sessions else f"{size} bars"
        raise ParameterError(
            f"at least one whole group of {bars} is needed, found none in {time.size} bars"
        )
    # Groups of several sizes have none in common: 0.
    if sessions or (np.diff(edges) != size).any():
        size = 0

    first = int(edges[0])
    return BarGroups(
        time=stretch[edges[:-1]] * length + origin,
        starts=edges[:-1] - first,
        first=first,
        stop=int(edges[-1]),
        size=size,
    )


def check_length(since: IntArray, interval: int, length: int, *, sessions: bool) -> None:
    """Raise ParameterError unless bars fit into stretches of a length, ns.

    ``since`` is the open of each bar, counted from where the first stretch begins.
    """
    bar_length = core.format_duration(interval)
    wanted = core.format_duration(length)
    if sessions:
        if length < interval:
            raise ParameterError(f"bars must become longer than {bar_length}, got {wanted}")
    elif length < interval or length % interval:
        raise ParameterError(f"bars must become a multiple of {bar_length}, got {wanted}")
    elif int(since[0]) % interval:
        raise ParameterError(
            f"bars must open on multiples of {bar_length} in UTC to be resampled to {wanted}"
        )

    first_length = since // length
    last_length = (since + interval - 1) // length
    across = np.count_nonzero(last_length != first_length)
    if across:
        raise ParameterError(
            f"a bar must not reach from one {wanted} of UTC time into the next, {across} of "
            f"{since.size} do; stamp each session within its own day of UTC"
        )


def slice_fields(
    market: Any, rows: slice, *, funding_from: int, end: int | None = None
) -> dict[str, Any]:
    """Return the fields of a market of some bars, at least one, and of the funding of their time.

    Settlements stamped from ``funding_from`` up to but not including ``end`` (UTC ns, by default
    the last close) are kept.
    """
    if end is None:
        last_open = int(market.time[rows][-1])
        end = last_open + market.interval
    first = np.searchsorted(market.funding_time, funding_from)
    stop = np.searchsorted(market.funding_time, end)

    fields: dict[str, Any] = market.fields()
    for name, value in fields.items():
        if not isinstance(value, np.ndarray):
            continue
        if name.startswith("funding_"):
            fields[name] = value[first:stop]
        else:
            fields[name] = value[rows]

    columns = {}
    for name, values in market.columns.items():
        columns[name] = values[rows]
    fields["columns"] = columns
    return fields


def resample_fields(market: Any, length: int, groups: BarGroups | None = None) -> dict[str, Any]:
    """Return the fields of a market of longer bars, of ``length`` ns, aligned to UTC.

    ``groups`` says which bars make each longer one; by default those of its stretch of time.
    Settlements of funding stay as they are. A longer bar has the extremes of its bars, their sums
    of volumes and trades, and the last value of any other column.
    """
    if groups is None:
        groups = group_bars(market.time, market.interval, length, sessions=market.sessions)
    # A settlement stamped up to a quarter of a bar before the first open belongs to that open.
    funding_from = int(groups.time[0]) - market.interval // 4
    end = int(groups.time[-1]) + length
    bars = slice(groups.first, groups.stop)
    fields = slice_fields(market, bars, funding_from=funding_from, end=end)

    prices = dict(zip(PRICES, groups.ohlc(*map(fields.__getitem__, PRICES)), strict=True))
    marks = dict(zip(MARK_PRICES, prices.values(), strict=True))
    if market.has_mark:
        combined = groups.ohlc(*map(fields.__getitem__, MARK_PRICES))
        marks = dict(zip(MARK_PRICES, combined, strict=True))

    columns = {}
    for name, values in fields["columns"].items():
        if name in SUMMED:
            columns[name] = groups.total(values)
        else:
            columns[name] = groups.last(values)

    filled = dict(market.filled)
    n_after = market.n_bars - groups.stop
    if groups.first or n_after:
        filled["resample"] = (
            f"{groups.first} bars before the first whole group and {n_after} after the last dropped"
        )
    return fields | {
        **prices,
        **marks,
        "interval": length,
        "decision_interval": 0,
        "time": groups.time,
        "volume": groups.total(fields["volume"]),
        "columns": columns,
        "filled": filled,
    }
