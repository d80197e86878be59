"""Files of market data as the fields of a market: read, named, repaired, cut and checked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from backtest import core
from backtest.core import DataError, ParameterError, format_duration, parse_duration
from backtest.core.units import DAY, SECOND
from backtest.market import rules
from backtest.market import tables as timed
from backtest.market.files import read_file
from backtest.market.layouts import ROLES, find_layout, list_tables, parse_name
from backtest.market.names import rename_columns
from backtest.market.read_options import ReadOptions, time_text
from backtest.market.rule_subjects import Subject
from backtest.market.rules import apply_repairs, count_uncovered, drop_duplicates
from backtest.market.sampled import settle_rates
from backtest.market.shifted import warn_of_odd_hours
from backtest.market.tables import (
    PRICES,
    SCHEMAS,
    Defects,
    SourceFrame,
    TimedTable,
    lacks_prices,
    plain_name,
)

SHORTEST, LONGEST = 26 * DAY, 36 * DAY
"""How far apart bars of calendar months open, also on days of trading, ns."""

SINCE_1904 = 2_082_844_800 * SECOND
"""From 1904, from which old Macs, QuickTime and LabVIEW count, to 1970, ns."""

HALVES = ("float16", "halffloat[pyarrow]")
DIVIDENDS = (
    "dividend", "dividends", "div", "divcash", "dividend_amount", "cash_dividend", "distributions",
)  # fmt: skip
"""Columns with the cash that a share pays: of yfinance, Tiingo, Alpha Vantage and others."""

HALF = "half_precision"
"""The note of prices that were kept in 16 bits."""

Frames = Mapping[str, Sequence[SourceFrame]]


def read_options(given: Mapping[str, Any]) -> ReadOptions:
    """Return how data are read, from the arguments of a call by name, checked.

    Arguments that are not about reading are ignored. Repairs that fill gaps set the argument of
    that name, too, if it was not given. Times and lengths become ns.
    """
    repair = given.get("repair", ())
    if isinstance(repair, str):
        repair = [repair]
    repairs = rules.parse_repairs(repair)
    ways = dict(word.split("=") for word in repairs if "=" in word)
    timezone = given.get("timezone")
    core.check_timezone(timezone)
    columns = given.get("columns") or {}
    check_columns(columns)

    times: dict[str, Any] = {}
    for name in ("since", "until", "now"):
        if given.get(name) is not None:
            times[name] = core.to_nanoseconds(given[name], name)
    interval = given.get("interval")
    if interval is not None:
        interval = core.parse_duration(interval, "interval")
    return ReadOptions(
        instrument=given.get("instrument") or "",
        interval=interval,
        timezone=timezone,
        mark_gaps=given.get("mark_gaps") or ways.get("mark-gaps"),
        funding_gaps=given.get("funding_gaps") or ways.get("funding-gaps"),
        sessions=given.get("sessions"),
        columns={ours: str(theirs) for ours, theirs in columns.items()},
        repairs=repairs,
        **times,
    )


def check_columns(columns: Mapping[str, Any]) -> None:
    """Raise ParameterError for a name of another table, ``mark.time``, that none has."""
    known = []
    for role in ROLES[1:]:
        known += [f"{role}.{name}" for name in ("time", *SCHEMAS[role].known)]
    known.append(f"funding.{timed.LEAD}")

    for ours in columns:
        if "." in ours:
            core.Choice(*known).check("columns of another table", ours)


def load_fields(
    paths: Sequence[Path], options: ReadOptions, **more: Sequence[str]
) -> dict[str, Any]:
    """Return the fields of the market in files, but for its source; ``more`` paths by role."""
    frames, options, filled = open_files(paths, options, more=more)
    fields = load_frames(frames, options, where=", ".join(map(str, paths)), is_of_files=True)
    return {**fields, "filled": {**fields["filled"], **filled}}


def open_files(
    paths: Sequence[Path],
    options: ReadOptions,
    *,
    needs_bars: bool = True,
    more: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[Frames, ReadOptions, Mapping[str, str]]:
    """Read the files of a market; return their tables, the options completed, and earlier notes.

    - The tables are listed by role: bars, mark or funding. A file that cannot be read has its error
      in place of its table, so that all faults can be reported together.
    - Options that the caller left out are completed from the folder's ``market.json`` or from the
      names of the files. The instrument of the files wins over that of the caller.
    - The notes say what was filled in when the market was saved, by name of the repair.

    ``paths`` are files or folders. ``more`` has paths by role, which replace those that were found
    for it. With ``needs_bars`` an error is raised where no file has bars.
    """
    files, facts = find_layout(paths, options, needs_bars=needs_bars)
    for role, places in more.items():
        files[role] = []
        for place in places:
            files[role] += list_tables(Path(place))

    # Gaps of funding that the user accepted when the market was saved are accepted again.
    filled = facts.get("filled", {})
    funding_gaps = options.funding_gaps
    if not funding_gaps and "funding_gaps" in filled:
        funding_gaps = "zero"
    interval = options.interval
    if not interval and facts.get("interval"):
        interval = parse_duration(facts["interval"], "interval")
    sessions = options.sessions
    if sessions is None:
        sessions = facts.get("sessions", False)
    options = options._replace(
        instrument=facts.get("instrument") or options.instrument,
        interval=interval,
        funding_gaps=funding_gaps,
        sessions=sessions,
        synthetic=facts.get("synthetic", False),
    )

    frames = {}
    for role in ROLES:
        frames[role] = [_read_part(path, role, options) for path in files[role]]
    return frames, options, filled


def _read_part(path: Path, role: str, options: ReadOptions) -> SourceFrame:
    """Return the table of a file with our names of columns; its content is the error if it has one.

    ``role`` is bars, mark or funding. Errors are kept, so that all files are read before any of
    them is raised.
    """
    named = parse_name(path)
    chosen = _choose_columns(options, role)
    try:
        frame = read_file(path, chosen)
        instrument = options.instrument or named.instrument
        if len(frame):
            frame = rename_columns(frame, role, chosen, str(path), instrument)
    except DataError as error:
        return SourceFrame(path.name, error)

    # freqtrade writes rates as opens of bars whose other prices are 0.
    if role == "funding" and named.pair and not named.is_archive:
        zeros = ["high", "low", "close", "volume"]
        frame = frame.drop(columns=zeros, errors="ignore").rename(columns={"open": "rate"})
    return SourceFrame(path.name, frame, is_file=True)


def _choose_columns(options: ReadOptions, role: str) -> dict[str, str]:
    """Return the names of columns in files of a role: those of bars have no role before them."""
    if role == "bars":
        return {ours: theirs for ours, theirs in options.columns.items() if "." not in ours}
    chosen = {}
    for ours, theirs in options.columns.items():
        if ours.startswith(f"{role}."):
            chosen[ours.removeprefix(f"{role}.")] = theirs
    return chosen


def read_frames(
    frames: Frames, options: ReadOptions
) -> tuple[Mapping[str, Subject], Defects, dict[str, str]]:
    """Return the tables by role (bars, mark, funding), all their defects, and notes of repairs.

    Nothing is raised here: a defect is added to the list, so that all can be reported together,
    and a table that cannot be read is left out. Bars are read first, as their length is needed for
    the other tables. Mark and funding are cut to the time of the bars.
    """
    tables: dict[str, TimedTable] = {}
    defects = Defects()
    filled: dict[str, str] = {}
    interval: int | None = None
    for role in ROLES:
        parts = frames.get(role, ())
        table = timed.read_table(parts, SCHEMAS[role], options.timezone, defects)
        if table is None:
            continue

        if timed.LEAD in table.columns:
            table = settle_rates(table, filled)
        elif role == "funding" and len(parts) > 1:
            # Two files may hold the same settlements.
            table = table.rows(np.argsort(table.time, kind="stable"))
            table, _ = drop_duplicates(table, "", None)
        if role == "mark" and options.mark_gaps == "last":
            table = table.rows(~lacks_prices(table))

        note_half_precision(parts, role, filled)
        if role == "bars":
            interval = find_interval(table, options, defects)
        tables[role] = apply_repairs(table, role, options.repairs, interval, filled, defects)

    if "bars" in tables:
        tables["bars"] = cut_bars(tables["bars"], options, interval)
        find_future(tables["bars"], options, defects)
    subjects = make_subjects(tables, interval, sessions=options.has_sessions)
    find_defects(subjects, options, defects, filled)
    return subjects, defects, filled


def cut_bars(bars: TimedTable, options: ReadOptions, interval: int | None) -> TimedTable:
    """Return the bars that open from ``options.since`` up to, not including, ``options.until``.

    ``interval`` is the length of a bar, ns, None if unknown. Raises ParameterError if the span does
    not lie in the days of the bars, or holds none.
    """
    if options.since is None and options.until is None:
        return bars
    if options.since is not None and options.until is not None and options.until <= options.since:
        raise ParameterError(
            "since and until must be the begin and the end of a span, in this order, got "
            f"{time_text(options.since)} and {time_text(options.until)}"
        )

    first = int(bars.time.min())
    last = int(bars.time.max())
    known = timed.Span(first, last + (interval or 0))
    span = known.replace(options.since, options.until)
    cut = bars.between(*span)
    is_inside = options.clips or known.has_days_of(span, sessions=options.has_sessions)
    if not is_inside or not cut.time.size:
        raise ParameterError(
            "since and until must lie in the days of the bars and hold one, got "
            f"{span} ({bars.name}, {known})"
        )
    return cut


def has_half_precision(note: str, role: str) -> bool:
    """Return whether a note of :func:`note_half_precision` is of a table of a role.

    A note names columns and role: "open, close of mark in half precision (float16)".
    """
    return f" of {role} in " in note


def note_half_precision(parts: Sequence[SourceFrame], role: str, notes: dict[str, str]) -> None:
    """Warn of prices that were kept in 16 bits, of three digits, and note them in ``notes``.

    ``parts`` are the tables of a role (bars, mark or funding) as they were read. The note is what
    :func:`has_half_precision` looks through.
    """
    for part in parts:
        if isinstance(part.content, DataError):
            continue
        kinds = part.content.dtypes
        if not any(str(kind) in HALVES for kind in set(kinds)):
            continue

        halves = []
        for name, kind in kinds.items():
            if plain_name(name) in (*PRICES, "rate", "mark") and str(kind) in HALVES:
                halves.append(str(name))
        if not halves:
            continue

        note = f"{', '.join(halves)} of {role} in half precision (float16), of three digits"
        rules.add_note(notes, HALF, note)
        core.warn_caller(
            f"{note}: 60,017 became 60,032 ({part.name}); give float64, as the source has them"
        )


def find_future(bars: TimedTable, options: ReadOptions, defects: Defects) -> None:
    """Add a defect if the last bar opens after tomorrow: its stamps count from another beginning.

    ``options.now`` is the present in UTC ns, None for that of the clock. Generated markets may be
    of any time.
    """
    now = options.now
    if now is None:
        now = time.time_ns()
    first = int(bars.time.min())
    last = int(bars.time.max())
    if options.synthetic or last <= now + DAY:
        return

    cure = "give now= if they were generated, or correct the stamps"
    since = first - SINCE_1904
    if since >= core.moments.FIRST_EPOCH and last - SINCE_1904 <= now + DAY:
        cure = (
            f"as counted since 1904, as old Macs do, they begin at {core.format_time(since)}: "
            f"less {SINCE_1904 // SECOND:_} in s, {SINCE_1904 // 10**6:_} in ms and "
            f"{SINCE_1904 // 1000:_} in us they count from 1970"
        )
    defects.append(
        f"no bar may open after tomorrow, the last opens at {core.format_time(last)} UTC "
        f"({bars.name}); {cure}"
    )


def find_interval(bars: TimedTable, options: ReadOptions, defects: Defects) -> int | None:
    """Return the length of a bar in ns: the one that was given, or the usual distance of opens.

    In a market with sessions that is the shortest distance. Adds to ``defects``, and returns None,
    if no length is known; also adds a length that is not the one given.
    """
    time = bars.ordered.time
    gaps = np.diff(time)

    # Months are of several lengths, all between two limits.
    are_months = gaps.size > 1 and SHORTEST <= gaps.min() < gaps.max() <= LONGEST
    if are_months and not options.has_sessions:
        defects.append(
            f"bars of calendar months have no one length, they are {gaps.min() // DAY} to "
            f"{gaps.max() // DAY} days long ({bars.name}); load bars of a day or a week, or "
            "sessions=True, which makes each as long as the shortest"
        )
        return None

    apart = timed.spacing(time)
    if options.has_sessions and apart is not None:
        apart = int(gaps.min())
    length = options.interval or apart
    if length is None or length % SECOND:
        distance = "all open at one time"
        if length:
            distance = f"are {format_duration(length)} apart"
        defects.append(
            f"the length of a bar must be known, in whole seconds: bars {distance} ({bars.name}); "
            "interval='1h', or more bars"
        )
        return None

    if options.has_sessions or apart is None or apart == length:
        return length
    defects.append(
        f"bars must open {format_duration(length)} apart, as given, they open "
        f"{format_duration(apart)} apart ({bars.name})"
    )
    return apart


def make_subjects(
    tables: Mapping[str, TimedTable], interval: int | None, *, sessions: bool
) -> dict[str, Subject]:
    """Return the tables by role as what rules of data read: mark and funding cut to the bars.

    ``interval`` is the length of a bar, ns; where it is unknown, or there are no bars, nothing is
    cut.
    """
    subjects = {}
    bars = tables.get("bars")
    for role, table in tables.items():
        cut = table
        beside = None
        if role != "bars" and bars is not None and interval:
            start = int(bars.time.min())
            if role == "funding":
                start -= interval // 4  # a stamp may be that early and belong to the open
            cut = table.between(start, int(bars.time.max()) + interval)
            beside = bars.ordered

        subjects[role] = Subject(role, cut, table.ordered, interval, sessions, beside)
    return subjects


def find_defects(
    subjects: Mapping[str, Subject], options: ReadOptions, defects: Defects, filled: dict[str, str]
) -> None:
    """Add to ``defects`` what is wrong with tables; else note in ``filled`` which gaps are filled.

    ``subjects`` are the tables by role: bars, mark and funding, of which the last two may lack.
    Gaps of these are no defects where ``options`` accept them.
    """
    bars = subjects.get("bars")
    mark = subjects.get("mark")
    funding = subjects.get("funding")

    # The time that mark and funding cover, for the cure: what users may cut the bars to. Gaps that
    # are accepted do not narrow it, and their rules are left out: a rule names its repair.
    repairs = []
    covered = None
    if bars is not None and bars.interval:
        covered = bars.span
    if mark is not None and options.mark_gaps == "last" and mark.is_marked.any():
        repairs.append("mark-gaps=last")
    elif mark is not None and covered is not None:
        covered = covered.within(mark.covered)
    if funding is not None and options.funding_gaps == "zero":
        repairs.append("funding-gaps=zero")
    elif funding is not None and covered is not None and not options.has_sessions:
        covered = covered.within(funding.covered)

    cure = name_covered(bars, covered)
    for subject in subjects.values():
        defects += rules.list_defects(subject, cure, repairs)
    if not defects and bars is not None:
        note_filled(bars, mark, funding, options, filled, has_repairs=bool(repairs))


def name_covered(bars: Subject | None, covered: timed.Span | None) -> str:
    """Return the cure, for messages, of tables that do not cover the bars: to cut the bars.

    ``covered`` is the time that mark and funding both cover, None if there is none.
    """
    if bars is not None and covered is not None:
        interval = bars.interval or 0
        is_inside = (bars.time >= covered.start) & (bars.time + interval <= covered.end)
        inside = bars.time[is_inside]

        if inside.size:
            span = rules.name_span(int(inside[0]), int(inside[-1]) + interval)
            return f"cut the bars to what is covered, {span}"
    return "no bar has all of them: load files that overlap, or leave one out"


def note_filled(
    bars: Subject,
    mark: Subject | None,
    funding: Subject | None,
    options: ReadOptions,
    filled: dict[str, str],
    *,
    has_repairs: bool,
) -> None:
    """Note in ``filled`` which bars have no mark of their own, and which settlements lack.

    Called where the data have no defects: what lacks here was accepted by choice (``has_repairs``).
    """
    if mark is not None and not mark.is_marked.all():
        absent = bars.time[~mark.is_marked]
        first = int(absent[0])
        end = int(absent[-1]) + (bars.interval or 0)
        stretch = timed.Span(first, end)
        filled["mark_gaps"] = f"last: {absent.size} of {bars.time.size} bars, {stretch}"

    if funding is None:
        if not options.has_sessions:
            filled["funding"] = "none given"
        return
    # What a market with sessions pays, dividends, has no cadence by which any could lack.
    if has_repairs and funding.covered is not None and not options.has_sessions:
        missing = count_missing_settlements(funding, funding.covered)
        if missing:
            filled["funding_gaps"] = f"zero: {missing} settlements missing in {funding.span}"


def count_missing_settlements(funding: Subject, covered: timed.Span) -> int:
    """Return how many settlements of funding are missing in the time of the bars.

    Before and after ``covered``, the time from the first settlement to the last one, and in the
    gaps between settlements.
    """
    span = funding.span
    every = timed.cadence(funding.once)
    uncovered = count_uncovered(span, covered, every)
    missing = int(uncovered.sum())

    gaps = timed.missing_settlements(funding.once, span.start, span.end)
    for gap in gaps:
        missing += gap.missing
    return missing


def load_frames(
    frames: Frames,
    options: ReadOptions,
    *,
    where: str,
    is_of_files: bool = False,
) -> dict[str, Any]:
    """Return the fields of a market by name, all but its source; raise all that is wrong at once.

    Prices without a mark of their own are also the marks, and settlements without one have NaN.
    Files, whose stamps somebody else wrote, are warned of where they settle at odd hours.
    """
    subjects, defects, filled = read_frames(frames, options)
    defects.refuse(where)
    bars = subjects["bars"].table.ordered
    mark = subjects.get("mark")
    funding = subjects.get("funding")
    if funding is None:
        warn_of_dividends(bars)
    elif is_of_files:
        warn_of_odd_hours(funding)
    no_volume = np.zeros(bars.time.size)

    prices = {}
    others = {}
    for name, values in bars.columns.items():
        if name in PRICES:
            prices[name] = values
        elif name != "volume":
            others[name] = values
    return {
        **prices,
        **pick_marks(prices, mark),
        **pick_settlements(funding),
        "time": bars.time,
        "volume": bars.columns.get("volume", no_volume),
        "instrument": options.instrument,
        "interval": subjects["bars"].interval,
        "has_mark": mark is not None,
        "columns": others,
        "synthetic": options.synthetic,
        "sessions": options.has_sessions,
        "filled": filled,
    }


def warn_of_dividends(bars: TimedTable) -> None:
    """Warn of a column of dividends, which pays nothing: only funding is paid."""
    for name, values in bars.columns.items():
        if plain_name(name) not in DIVIDENDS:
            continue
        n_paid = int(np.count_nonzero(values > 0.0))
        if n_paid:
            core.warn_caller(
                f"the {core.count_nouns(n_paid, 'dividend')} of the column {name!r} are not paid "
                f"({bars.name}): give them as funding, a row at the open of each ex-date with "
                "rate = -dividend / close before, mark = that close"
            )


def pick_marks(
    prices: Mapping[str, core.FloatArray], mark: Subject | None
) -> dict[str, core.FloatArray]:
    """Return the mark prices of bars, named ``mark_open`` and so on, each of shape (n_bars,).

    ``prices`` are the last prices by name, ``mark`` the table of mark bars, None without one. A bar
    without a mark bar has its last prices as marks.
    """
    marks = {}
    for name, last_prices in prices.items():
        marks[f"mark_{name}"] = last_prices
        if mark is not None:
            marked = last_prices.copy()
            marked[mark.is_marked] = mark.marked[1].columns[name]
            marks[f"mark_{name}"] = marked
    return marks


def pick_settlements(funding: Subject | None) -> dict[str, Any]:
    """Return the settlements of funding as fields of a market: none without a table of them."""
    settled = TimedTable("", np.empty(0, np.int64), {"rate": np.empty(0)})
    if funding is not None:
        settled = funding.table.ordered
    unknown_marks = np.full(settled.time.size, np.nan)
    return {
        "funding_time": settled.time,
        "funding_rate": settled.columns["rate"],
        "funding_mark": settled.columns.get("mark", unknown_marks),
    }
