"""The quality report: what market data hold, and which rules they break."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backtest import core
from backtest.core import IntArray, ParameterError, format_duration, format_time
from backtest.core.code_names import pd
from backtest.market import layouts, loading
from backtest.market import tables as timed
from backtest.market.market import Market
from backtest.market.markets import Markets
from backtest.market.read_options import ReadOptions
from backtest.market.rule_subjects import Hit, Rule, Subject
from backtest.market.rules import DOUBT, LISTED, RULES
from backtest.market.tables import SCHEMAS, Defects, read_frame, spacing

HALF_PRECISION = Rule("half precision", layouts.ROLES, DOUBT, lambda _: [])
"""The doubt of prices that were kept in 16 bits, which a note shows and the values do not."""


@dataclass(frozen=True)
class Finding:
    """The rows of a table that break a rule.

    ``level`` is error or doubt, ``share`` a fraction of the rows, ``longest`` the longest run of
    them, ``places`` names some; of rows that are missing, ``count`` is their number and ``longest``
    the longest gap.
    """

    table: str
    rule: str
    level: str
    count: int = 0
    share: float = 0.0
    longest: int = 0
    first: str = ""
    last: str = ""
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quality:
    """The quality report of a market or of files; times are UTC, shares fractions.

    ``facts`` describes each table (bars, mark, funding), ``findings`` counts what breaks a rule,
    ``defects`` lists what :meth:`Market.load` refuses, ``filled`` what was filled or repaired by
    choice.
    """

    source: str
    instrument: str
    facts: Mapping[str, Mapping[str, Any]]
    findings: tuple[Finding, ...] = ()
    defects: tuple[str, ...] = ()
    filled: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return dataclasses.asdict(self)

    def to_frame(self) -> pd.DataFrame:
        """Return the findings, a row each, by table and rule."""
        names = pd.Index([column.name for column in dataclasses.fields(Finding)])
        rows = [dataclasses.astuple(finding) for finding in self.findings]
        return pd.DataFrame(rows, columns=names).set_index(["table", "rule"])

    def find(self, table: str, rule: str) -> Finding:
        """Return what breaks a rule in a table; its count is 0 if nothing does."""
        for finding in self.findings:
            if (finding.table, finding.rule) == (table, rule):
                return finding
        return Finding(table, rule, "")


def build_quality(
    subjects: Mapping[str, Subject], filled: Mapping[str, str], **known: Any
) -> Quality:
    """Return the report on tables by role: facts of each, and what breaks a rule.

    ``filled`` are the notes of loading, ``known`` the other fields of the report.
    """
    findings = []
    for rule in RULES:
        for role, subject in subjects.items():
            if role not in rule.roles:
                continue
            hits = rule.find(subject)
            if hits:
                findings.append(count_hits(rule, subject, hits))

    # Tables with prices in half precision. Loading has noted all of them in one text.
    note = filled.get(loading.HALF, "")
    for role, subject in subjects.items():
        if loading.has_half_precision(note, role):
            rows = Hit(subject.time, places=(note,))
            findings.append(count_hits(HALF_PRECISION, subject, [rows]))

    return Quality(
        facts={role: describe_table(subject) for role, subject in subjects.items()},
        findings=tuple(findings),
        filled=dict(filled),
        **known,
    )


def count_hits(rule: Rule, subject: Subject, hits: Sequence[Hit]) -> Finding:
    """Return the finding of a rule in a table: how many rows break it, and the longest run of them.

    Where rows are missing, their number is counted, and the longest is the largest gap.
    """
    time = np.unique(np.concatenate([hit.time for hit in hits]))
    places: list[str] = []
    missing: list[int] = []
    for hit in hits:
        places += hit.places
        if hit.missing is not None:
            missing += hit.missing.tolist()

    if missing:
        count = sum(missing)
        longest = max(missing)
    else:
        count = time.size
        longest = find_longest_run(rule, subject, time)

    return Finding(
        table=subject.role,
        rule=rule.name,
        level=rule.level,
        count=count,
        share=min(count / max(subject.table.time.size, 1), 1.0),
        longest=longest,
        first=format_time(int(time[0])),
        last=format_time(int(time[-1])),
        places=tuple(places[:LISTED]),
    )


def find_longest_run(rule: Rule, subject: Subject, time: IntArray) -> int:
    """Return the longest run of rows in a row that break a rule: how many rows.

    ``time`` are the times of the rows that do, rising.
    """
    # A bar without a mark has no row in the table of marks, so it is counted among the bars.
    table = subject.table.ordered
    if subject.bars is not None and rule.name == "bars without a mark":
        table = subject.bars

    # A run begins where the row is not the one after the last, and ends where the next begins.
    rows = np.searchsorted(table.time, time)
    steps = np.diff(rows, prepend=-2, append=rows[-1] + 2)
    starts = np.flatnonzero(steps != 1)
    return int(np.diff(starts).max())


def describe_table(subject: Subject) -> dict[str, Any]:
    """Return the facts of a table: rows, times, rates, and how much of the bars it covers."""
    time = subject.whole.time
    if subject.role == "funding":
        step: int | None = timed.cadence(time)
        end = int(time[-1])
    else:
        step = spacing(time) or subject.interval
        end = int(time[-1]) + (step or 0)

    every = None
    if step:
        every = format_duration(step)
        if subject.role == "funding":
            every = describe_cadence(time, step)
    facts: dict[str, Any] = {
        "rows": int(time.size),
        "from": format_time(timed.nearest_minute(int(time[0]))),
        "to": format_time(timed.nearest_minute(end)),
        "every": every,
    }

    no_rates = np.empty(0)
    rate = subject.whole.columns.get("rate", no_rates)
    if subject.role == "funding" and not np.isnan(rate).all():
        facts["lowest"] = float(np.nanmin(rate))
        facts["highest"] = float(np.nanmax(rate))

    # What of the bars it covers.
    if subject.bars is None or not subject.interval:
        return facts
    if subject.role == "mark":
        facts["coverage"] = float(subject.is_marked.mean())
    elif subject.role == "funding" and subject.covered is not None:
        span = subject.span
        covered = subject.covered
        length = span.end - span.start
        length_covered = max(covered.end - covered.start, 0)
        facts["coverage"] = float(length_covered / length)
    return facts


def describe_cadence(time: IntArray, usual: int) -> str:
    """Return the distance of payments in words: the usual one, or from shortest to longest.

    ``usual`` is the most common distance, ns: it counts if at least half of them are so long.
    """
    gaps = timed.nearest_minute(np.diff(time))
    gaps = gaps[gaps > 0]
    n_usual = np.count_nonzero(gaps == usual)
    if 2 * n_usual >= gaps.size:
        return format_duration(usual)

    shortest = format_duration(int(gaps.min()))
    longest = format_duration(int(gaps.max()))
    return f"{shortest} to {longest}"


def inspect_market(market: Market) -> Quality:
    """Return the report of a market that is loaded."""
    frames = {"bars": market.bars(), "mark": market.mark(), "funding": market.funding()}
    tables = {}
    for role, frame in frames.items():
        if frame is not None:
            tables[role] = read_frame(frame, SCHEMAS[role], Defects(), name=role, timezone=None)
    return build_quality(
        loading.make_subjects(tables, market.interval, sessions=market.sessions),
        market.filled,
        source=repr(market),
        instrument=market.instrument,
    )


def inspect_files(paths: Sequence[Path], options: ReadOptions) -> Quality:
    """Return the report on files, also on those that a market would refuse.

    What loading would refuse is among its defects.
    """
    frames, options, filled = loading.open_files(paths, options, needs_bars=False)
    source = ", ".join(map(str, paths))
    subjects, defects, notes = loading.read_frames(frames, options)
    if loading.HALF in notes:
        filled = {**filled, loading.HALF: notes[loading.HALF]}

    # Stamps without a zone are a defect; what else is wrong shows if they are read as UTC.
    n_tables = sum(map(bool, frames.values()))
    if options.timezone is None and len(subjects) < n_tables:
        as_utc = options._replace(timezone="UTC")
        subjects, defects_as_utc, _ = loading.read_frames(frames, as_utc)
        for defect in defects_as_utc:
            if defect not in defects:
                defects.append(defect)
    if not frames["bars"]:
        defects = Defects([f"a market needs bars, found none ({source})"])

    with_columns = {role: table for role, table in subjects.items() if table.table.columns}
    return build_quality(
        with_columns,
        filled,
        source=source,
        instrument=options.instrument,
        defects=tuple(defects),
    )


@core.checked
def quality(
    data: Market | Markets | str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str | int] | None = None,
    instrument: str | Sequence[str] | None = None,
    interval: str | None = None,
    timezone: str | None = None,
    sessions: bool | None = None,
) -> Any:
    """Return a report on the quality of data; nothing is changed.

    Raises DataError if there is no such path; ParameterError if an argument is unknown or
    unreadable.

    Parameters
    ----------
    data : Market, Markets, path, or sequence of paths
        A folder or files are read even if :meth:`Market.load` refuses them.
    instrument : str or sequence of str, optional
        Which of several instruments. Default: all.
    columns, interval, timezone, sessions
        As in :meth:`Market.load`; a market has its own.

    Returns
    -------
    Quality, or dict of str to Quality
        Gaps, duplicates, odd prices, the mark compared with the last price, and the settlements of
        funding; of several markets, by name.

    Examples
    --------
    >>> report = quality(Market.sample(bars=240))
    >>> report.facts["bars"]["rows"], report.defects
    (240, ())
    """
    if isinstance(data, Market):
        return inspect_market(data)
    if isinstance(data, Markets):
        return {name: inspect_market(market) for name, market in data.items()}

    if isinstance(data, (str, Path)):
        data = [data]
    paths = [*map(Path, data)]
    if not paths:
        raise ParameterError("quality needs a path, got none")
    if isinstance(instrument, str):
        instrument = [instrument]
    names = [*(instrument or ())]
    terms = {"interval": interval, "timezone": timezone, "sessions": sessions}

    if layouts.is_panel(paths, names):
        reports = {}
        for name, place in layouts.find_sources(paths, names or None).items():
            options = loading.read_options(terms | {"instrument": place.instrument})
            reports[name] = inspect_files([place.path], options)
        return reports

    first_name = names[0] if names else None
    chosen_paths, chosen = layouts.find_in_folders(paths, first_name)
    options = loading.read_options(terms | {"instrument": chosen, "columns": columns})
    return inspect_files(chosen_paths, options)
