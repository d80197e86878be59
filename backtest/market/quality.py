"""The quality report: what market data hold, which rules they break, and what they are fit for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest import base
from backtest.base import BacktestError, IntArray, ParameterError, format_duration, format_time
from backtest.base.units import HOUR, MINUTE
from backtest.market import loading, rules
from backtest.market import tables as timed
from backtest.market.files import find_sources, open_files
from backtest.market.loading import Read, ReadOptions, make_subjects, read_frames, read_options
from backtest.market.market import Market
from backtest.market.markets import Markets
from backtest.market.rules import LISTED, RULES, Hit, Rule, Subject, measure_mark, measure_rates
from backtest.market.tables import NAIVE, PRICES, Defect, TimedTable, nearest_minute, spacing

Fit: TypeAlias = Literal["yes", "with care", "no"]
FITS: tuple[Fit, ...] = ("yes", "with care", "no")
USES = {"bars": ("liquidation", "minutes"), "mark": ("liquidation",), "funding": ("funding",)}
"""What each table is used for, besides loading."""

_NOTE = "stamps have no time zone: read as UTC for this report; the loader asks for timezone="
_FILLED = {
    "liquidation": ("mark_gaps", "bar_gaps", "widen_range"),
    "funding": ("funding_gaps",),
    "minutes": ("bar_gaps", "volume_gaps"),
}


@dataclass(frozen=True)
class Finding:
    """The rows of a table that break a rule.

    ``share`` is a fraction of the rows, ``longest`` the longest run of them, ``places`` names some;
    of rows that are missing, ``count`` is their number and ``longest`` the longest gap.
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


class Fitness(NamedTuple):
    use: str
    fit: Fit
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quality:
    """The quality report of a market or of files; times are UTC, shares fractions.

    ``facts`` describes each table (bars, mark, funding), ``findings`` counts what breaks a rule,
    ``defects`` lists what :meth:`Market.load` refuses, ``filled`` what was filled or repaired by
    choice, ``notes`` how the files were read for this report.
    """

    source: str
    instrument: str
    facts: Mapping[str, Mapping[str, Any]]
    findings: tuple[Finding, ...] = ()
    defects: tuple[Defect, ...] = ()
    filled: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    verdicts: tuple[Fitness, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        plain = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return plain | {
            "facts": {name: dict(table) for name, table in self.facts.items()},
            "findings": [dataclasses.asdict(each) for each in self.findings],
            "defects": [*map(str, self.defects)],
            "filled": dict(self.filled),
            "verdicts": [each._asdict() for each in self.verdicts],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the findings, a row each, by table and rule."""
        names = pd.Index([each.name for each in dataclasses.fields(Finding)])
        rows = [dataclasses.astuple(each) for each in self.findings]
        return pd.DataFrame(rows, columns=names).set_index(["table", "rule"])

    def find(self, table: str, rule: str) -> Finding:
        """Return what breaks a rule in a table; its count is 0 if nothing does."""
        none = Finding(table, rule, "")
        return next((e for e in self.findings if (e.table, e.rule) == (table, rule)), none)

    def fit_for(self, use: str) -> Fit:
        """Return the verdict on a use: "loading", "liquidation", "funding" or "minutes".

        Raises KeyError if there is no such use.
        """
        return {verdict.use: verdict.fit for verdict in self.verdicts}[use]


# ------------------------------------------------------------------------------------- one market


def build_quality(
    read: Read,
    *,
    source: str,
    instrument: str = "",
    sessions: bool = False,
    defects: Sequence[Defect] = (),
    filled: Mapping[str, str],
    notes: tuple[str, ...] = (),
) -> Quality:
    subjects = make_subjects(read, sessions=sessions)
    facts = {name: describe_table(each) for name, each in subjects.items() if name in USES}
    found = [
        (rule, count_hits(rule, subject))
        for rule in RULES
        for role, subject in subjects.items()
        if role in rule.roles and role in USES
    ]
    kept = [(rule, finding) for rule, finding in found if finding.count]
    doubts = list_doubts(facts, read.interval)
    verdicts = assess_fitness(kept, doubts, defects, filled)
    findings = tuple(finding for _, finding in kept)
    return Quality(
        source, instrument, facts, findings, tuple(defects), dict(filled), notes, verdicts
    )


def count_hits(rule: Rule, subject: Subject) -> Finding:
    hits: list[Hit] = [*rule.find(subject)]
    finding = Finding(subject.role, rule.name, rule.level)
    if not hits:
        return finding
    time = np.unique(np.concatenate([hit.time for hit in hits]))
    count, longest = time.size, 1
    if hits[0].missing is not None:
        missing = np.concatenate([hit.missing for hit in hits if hit.missing is not None])
        count, longest = int(missing.sum()), int(missing.max())
    else:
        all_rows = subject.bars.time if rule.name == "bars without a mark" else subject.time  # type: ignore[union-attr]
        rows = np.searchsorted(all_rows, time)
        longest = int(
            np.diff(np.flatnonzero(np.diff(rows, prepend=-2, append=rows[-1] + 2) != 1)).max()
        )
    size = max(subject.table.time.size, 1)
    return dataclasses.replace(
        finding,
        count=count,
        share=min(count / size, 1.0),
        longest=longest,
        first=format_time(int(time[0])),
        last=format_time(int(time[-1])),
        places=tuple(place for hit in hits for place in hit.places)[:LISTED],
    )


def describe_table(subject: Subject) -> dict[str, Any]:
    table, time = subject.table, subject.whole.time
    facts: dict[str, Any] = {"rows": int(table.time.size)}
    if subject.role == "funding":
        return {**facts, **_describe_funding(subject)}
    step = spacing(time) or subject.interval
    facts["from"], facts["to"] = format_time(int(time[0])), format_time(int(time[-1]) + (step or 0))
    facts["every"] = format_duration(step) if step else None
    unread = [name for name in PRICES if name not in table.columns]
    facts |= {"cannot be read": ", ".join(unread)} if unread else {}
    if subject.role == "mark" and subject.bars is not None:
        ratio, wicks = measure_mark(subject), rules.measure_wicks(subject)
        facts["coverage"] = float(subject.is_marked.mean())
        facts["ratio"] = ratio.value if ratio else 1.0
        facts["longest wick"] = float(wicks.max(initial=0.0))
    return facts


def _describe_funding(subject: Subject) -> dict[str, Any]:
    whole, time = subject.whole, subject.whole.time
    rate = whole.columns.get("rate", np.full(time.size, np.nan))
    known = rate[~np.isnan(rate)]
    scale = measure_rates(time, rate)
    step = min(timed.cadence(time), HOUR)
    offset = np.abs((time + step // 2) % step - step // 2)
    facts = {
        "from": format_time(int(nearest_minute(time[0]))),
        "to": format_time(int(nearest_minute(time[-1]))),
        "every": list_cadences(time),
        "furthest stamp": float(offset.max() / 1e9),
        "lowest": float(known.min()) if known.size else None,
        "highest": float(known.max()) if known.size else None,
        "at the largest size": int((np.abs(known) == np.abs(known).max()).sum())
        if known.size
        else 0,
        "median size": scale.value if scale else None,
    }
    for name in ("mark", "predicted"):
        values = whole.columns.get(name)
        facts[f"with {name}"] = 0.0 if values is None else float(np.isfinite(values).mean())
    if subject.bars is not None and subject.interval and subject.covered is not None:
        start, end = subject.span
        low, high = subject.covered
        facts["coverage"] = float(max(high - low, 0) / (end - start))
        bar, _ = timed.place_on_bars(subject.time, subject.bars.time, subject.interval)
        facts["most in a bar"] = int(np.bincount(np.maximum(bar, 0)).max()) if bar.size else 0
    return facts


def list_cadences(time: IntArray) -> list[str]:
    gaps = nearest_minute(np.diff(time))
    usual = [
        (int(gap), int(start))
        for row, (gap, start) in enumerate(zip(gaps, time, strict=False))
        if gap == gaps[max(row - 1, 0)] or (row + 1 < gaps.size and gap == gaps[row + 1])
    ]
    found: list[tuple[int, int]] = []
    for gap, start in usual:
        if gap and (not found or found[-1][0] != gap):
            found.append((gap, start))
    return [
        f"{format_duration(gap)} from {format_time(int(nearest_minute(start)))}"
        for gap, start in found
    ]


def list_doubts(
    facts: Mapping[str, Mapping[str, Any]], interval: int | None
) -> Iterator[tuple[str, Fit, str]]:
    for role, table in facts.items():
        if "cannot be read" in table:
            for use in USES[role]:
                yield use, "no", f"{table['cannot be read']} of {role} cannot be read"
    if "bars" not in facts:
        yield "liquidation", "no", "no bars"
        yield "minutes", "no", "no bars"
    elif (interval or HOUR) > MINUTE:
        yield "minutes", "no", "bars are longer than a minute"
    if "mark" not in facts:
        yield "liquidation", "with care", "no mark: liquidations tested on last prices"
    if interval is not None and interval > HOUR:
        text = f"bars of {format_duration(interval)} hide the path inside"
        yield "liquidation", "with care", text
    if "funding" not in facts:
        yield "funding", "no", "no funding"
    elif "mark" not in facts and facts["funding"]["with mark"] < 1.0:
        text = "paid on last prices: neither a mark nor prices of settlement"
        yield "funding", "with care", text


def assess_fitness(
    found: Sequence[tuple[Rule, Finding]],
    doubts: Iterator[tuple[str, Fit, str]],
    defects: Sequence[Defect],
    filled: Mapping[str, str],
) -> tuple[Fitness, ...]:
    reasons: dict[str, list[tuple[Fit, str]]] = {
        "loading": [("no", f"{len(defects)} defect{'s' * (len(defects) > 1)}")] if defects else [],
        **{use: [] for use in ("liquidation", "funding", "minutes")},
    }
    for rule, finding in found:
        is_worth = finding.share >= rule.least_share and finding.longest >= rule.least_run
        for use in USES[finding.table]:
            if use in rule.spoils:
                reasons[use].append(("no", describe_finding(finding)))
            elif use in rule.doubts and is_worth:
                reasons[use].append(("with care", describe_finding(finding)))
    for use, fit, text in doubts:
        reasons[use].append((fit, text))
    for use, names in _FILLED.items():
        reasons[use] += [
            ("with care", f"{name} filled, {filled[name]}") for name in names if name in filled
        ]
    return tuple(
        Fitness(
            use,
            max((fit for fit, _ in each), key=FITS.index, default="yes"),
            tuple(text for fit in ("no", "with care") for own, text in each if own == fit),
        )
        for use, each in reasons.items()
    )


def describe_finding(finding: Finding) -> str:
    text = f"{finding.table}: {finding.count:,} {finding.rule}"
    if finding.longest > 1:
        text += f", up to {finding.longest:,} in a row"
    is_scale = finding.rule in ("on another scale", "away from last prices", "high")
    return f"{text}, {finding.places[0]}" if is_scale else text


def inspect_market(market: Market) -> Quality:
    last = {name: getattr(market, name) for name in (*PRICES, "volume")}
    mark = {name: getattr(market, f"mark_{name}") for name in PRICES}
    rates = {name: getattr(market, f"funding_{name}") for name in ("rate", "mark", "predicted")}
    tables = {"bars": TimedTable("bars", market.time, last)}
    if market.has_mark:
        tables["mark"] = TimedTable("mark", market.time, mark)
    if market.funding_time.size:
        tables["funding"] = TimedTable("funding", market.funding_time, rates)
    return build_quality(
        Read(tables, [], {}, market.interval),
        source=repr(market),
        instrument=market.instrument,
        sessions=market.sessions,
        filled=market.filled,
    )


def inspect_files(paths: Sequence[Path], options: ReadOptions) -> tuple[Quality, TimedTable | None]:
    files = open_files(paths, options, joins=True, needs_bars=False)
    source, options = ", ".join(map(str, paths)), files.options
    read = read_frames(files.frames, options)
    defects: list[Defect] = loading.find_defects(
        read, make_subjects(read, sessions=options.sessions), options, {}
    )
    if not files.layout.bars:
        defects = [Defect(f"a market needs bars, found none ({source})")]
    notes: tuple[str, ...] = ()
    if any(defect.startswith(NAIVE) for defect in defects):
        options, notes = options._replace(timezone="UTC"), (_NOTE,)
        read = read_frames(files.frames, options)
    report = build_quality(
        read._replace(tables={name: each for name, each in read.tables.items() if each.columns}),
        source=source,
        instrument=options.instrument,
        sessions=options.sessions,
        defects=defects,
        filled=files.layout.filled,
        notes=notes,
    )
    return report, read.tables.get("bars")


# --------------------------------------------------------------------------------- several markets


class InstrumentSpan(NamedTuple):
    name: str
    start: str
    end: str
    bars: int
    missing: int
    first_missing: str = ""
    beside: str = ""


@dataclass(frozen=True)
class PanelQuality:
    """How the data of several instruments fit together.

    ``start`` and ``end`` bound all bars, ``common_start`` and ``common_end`` those that all
    instruments have; empty if there are none. ``instruments`` has the span of each, and the bars
    that it lacks where another has one. ``refused`` says what does not load, or why the markets do
    not load together; it is empty if they do. ``reports`` has the report on each instrument.
    """

    start: str
    end: str
    bars: int
    common_start: str
    common_end: str
    common_bars: int
    instruments: tuple[InstrumentSpan, ...]
    refused: str = ""
    reports: Mapping[str, Quality] = field(default_factory=dict)

    def fit_for(self, use: str) -> Fit:
        """Return the worst verdict of the instruments on a use; see :meth:`Quality.fit_for`."""
        return max((each.fit_for(use) for each in self.reports.values()), key=FITS.index)

    def to_dict(self) -> dict[str, Any]:
        """Return the reports on the markets and on the panel as plain data."""
        facts = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        facts["instruments"] = [each._asdict() for each in self.instruments]
        reports = facts.pop("reports")
        return {"markets": {name: each.to_dict() for name, each in reports.items()}, "panel": facts}


def inspect_panel(
    paths: Sequence[str | Path], instruments: Sequence[str] | None = None, **options: Any
) -> PanelQuality:
    sources = find_sources([Path(path) for path in paths], instruments)
    reports: dict[str, Quality] = {}
    times: dict[str, IntArray] = {}
    for name, source in sources.items():
        read = read_options(instrument=source.instrument, **options)
        reports[name], bars = inspect_files([source.path], read)
        if bars is not None:
            times[name] = bars.ordered.time
    alone = [name for name, report in reports.items() if report.defects]
    refused = f"by themselves: {', '.join(alone)}" if alone else ""
    try:
        _ = alone or Markets.load(*paths, instruments=instruments, **options)
    except BacktestError as error:
        refused = str(error)
    return measure_panel(times, refused, reports)


def measure_panel(
    times: Mapping[str, IntArray], refused: str, reports: Mapping[str, Quality]
) -> PanelQuality:
    clock = np.unique(np.concatenate([*times.values(), np.empty(0, np.int64)]))
    step = max((spacing(time) or 0 for time in times.values()), default=0)
    shared, spans = clock, []
    for name, own in times.items():
        shared = np.intersect1d(shared, own, assume_unique=True)
        inside = clock[(clock >= own[0]) & (clock <= own[-1])]
        missing = np.setdiff1d(inside, own, assume_unique=True)
        where = ("", "")
        if missing.size:
            beside = (n for n, time in times.items() if np.isin(missing[0], time))
            where = (format_time(int(missing[0])), next(beside, ""))
        spans.append(
            InstrumentSpan(name, *_find_ends(own, step), int(own.size), int(missing.size), *where)
        )
    whole = (*_find_ends(clock, step), int(clock.size))
    common = (*_find_ends(shared, step), int(shared.size))
    return PanelQuality(*whole, *common, tuple(spans), refused, reports)


def _find_ends(time: IntArray, step: int) -> tuple[str, str]:
    if not time.size:
        return "", ""
    return format_time(int(time[0])), format_time(int(time[-1]) + step)


@base.checked
def quality(
    data: Market | Markets | str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str | int] | None = None,
    instrument: str | None = None,
    interval: str | None = None,
    funding_interval: str | None = None,
    timezone: str | None = None,
    sessions: bool = False,
    decimal: str = ".",
) -> Any:
    """Return a report on the quality of data and their fitness for use; nothing is changed.

    Raises DataError if there is no such path, or it holds several instruments and none is chosen;
    ParameterError if an argument is unknown or unreadable.

    Parameters
    ----------
    data : Market, Markets, path, or sequence of paths
        A folder or files are read even if :meth:`Market.load` refuses them.
    columns, decimal
        As in :func:`backtest.import_market`, for files with other names or decimal commas.
    instrument, interval, funding_interval, timezone, sessions
        As in :meth:`Market.load`; a market has its own.

    Returns
    -------
    Quality, or PanelQuality of several markets
        Gaps, duplicates, odd prices, the mark compared with the last price, the cadence of
        funding, and a verdict per use. Of several markets, the report on each, their common span,
        and the holes in one where others trade.

    Examples
    --------
    >>> report = quality(Market.sample(bars=240))
    >>> report.fit_for("liquidation")
    'yes'
    """
    if isinstance(data, Market):
        return inspect_market(data)
    if isinstance(data, Markets):
        reports = {name: inspect_market(each) for name, each in data.items()}
        return measure_panel({name: each.time for name, each in data.items()}, "", reports)
    paths = [data] if isinstance(data, (str, Path)) else data
    if not len(paths):
        raise ParameterError("quality needs a path, got none")
    options = read_options(
        instrument=instrument,
        interval=interval,
        timezone=timezone,
        sessions=sessions,
        funding_interval=funding_interval,
        columns=columns,
        decimal=decimal,
    )
    return inspect_files([Path(path) for path in paths], options)[0]
