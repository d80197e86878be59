"""``backtest data inspect``: report on the quality of data, whether or not they load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from backtest.base import format_percent
from backtest.cli.data_import_command import (
    Columns,
    Decimal,
    FundingInterval,
    Interval,
    Sessions,
    Timezone,
    read_columns,
)
from backtest.cli.flags import AsJson, flag
from backtest.cli.printing import print_json, print_paragraph, print_table
from backtest.cli.progress import show_activity
from backtest.market import (
    BarsQuality,
    Count,
    Defect,
    FundingQuality,
    Gaps,
    InstrumentSpan,
    MarkQuality,
    PanelQuality,
    Quality,
    find_in_folders,
    inspect_panel,
    is_panel,
    list_names,
    quality,
)
from backtest.market.panel_quality import LEAST_RETURNS

EXAMPLES = """
backtest data inspect btc
backtest data inspect user_data/data/binance/futures --instrument BTCUSDT --interval 1h
backtest data inspect bars.csv funding.csv --json
backtest data inspect btc eth     [dim]# each market, and how they fit together[/dim]
"""

MOST_CADENCES = 12

Instruments = Annotated[
    list[str] | None, flag("Name of the instrument; repeat for more.", "--instrument")
]


def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="A folder, or files; several folders for several markets.",
            metavar="PATH...",
            show_default=False,
        ),
    ],
    *,
    columns: Columns = None,
    instrument: Instruments = None,
    interval: Interval = None,
    funding_interval: FundingInterval = None,
    timezone: Timezone = None,
    sessions: Sessions = False,
    decimal: Decimal = ".",
    as_json: AsJson = False,
) -> None:
    """Report every defect of data, even if they do not load.

    Nothing is repaired. The last table shows what the data are fit for: loading without repairs,
    liquidations inside the bar, funding, studies of minutes. Of several markets, each is reported,
    and then their common span, the holes in one where others trade, and their correlations.
    """
    names = instrument or []
    is_whole = not names and len(paths) == 1 and len(list_names(paths)) > 1
    if columns is None and (is_whole or is_panel(paths, names)):
        more = {"interval": interval, "funding_interval": funding_interval, "timezone": timezone}
        with show_activity("inspecting"):
            panel = inspect_panel(paths, instrument, sessions=sessions, **more)
        report_panel(panel, as_json)
        return
    named = names[0] if names else None
    chosen = find_in_folders(paths, named)
    if chosen is not None:
        paths, named = [chosen.path], chosen.instrument
    with show_activity("inspecting"):
        report = quality(
            paths,
            columns=read_columns(columns),
            instrument=named,
            interval=interval,
            funding_interval=funding_interval,
            timezone=timezone,
            sessions=sessions,
            decimal=decimal,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        print_quality(report)


def report_panel(panel: PanelQuality, as_json: bool) -> None:
    if as_json:
        print_json(panel.to_dict())
        return
    for report in panel.reports.values():
        print_quality(report)
        typer.echo("")
    print_panel(panel)


def print_quality(report: Quality) -> None:
    typer.secho(report.instrument or report.source, bold=True)
    for note in report.notes:
        print_paragraph(note)
    for name, text in report.filled.items():
        print_paragraph(f"{name}: {text}")
    columns = ("", "bars", "mark") if report.mark else ("", "bars")
    tables = [table for table in (report.bars, report.mark) if table is not None]
    if tables:
        print_table(columns if report.bars else ("", "mark"), list(_tabulate_bars(tables)))
    if report.beside:
        _print_table(("mark beside last", ""), _tabulate_mark(report.beside).items())
    if report.funding:
        _print_table(("funding", ""), _tabulate_funding(report.funding).items())
    found = [*_list_gaps(report), *_list_firsts(report), *_list_outliers(report)]
    if found:
        _print_table(("where", ""), found)
    if report.defects:
        _print_defects(report.defects)
    rows = [(each.use, each.fit, "; ".join(each.reasons)) for each in report.verdicts]
    _print_table(("fit for", "", "because"), rows)


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    typer.echo("")
    print_table(columns, rows)


def _tabulate_bars(tables: Sequence[BarsQuality]) -> Iterator[Sequence[str]]:
    volume = [table.zero_volume for table in tables]
    rows: dict[str, list[str]] = {
        "rows": [f"{table.rows:,}" for table in tables],
        "from": [table.start for table in tables],
        "to": [table.end for table in tables],
        "interval": [table.interval or "unknown" for table in tables],
        "missing": [_format_gaps(table.gaps) for table in tables],
        "repeated times": [
            f"{table.duplicates:,} ({table.conflicting:,} differ)" if table.duplicates else "0"
            for table in tables
        ],
        "out of order": [f"{table.disordered:,}" for table in tables],
        "off the boundary": [_format_count(table.off_boundary) for table in tables],
        "cannot be read": [", ".join(table.unread) or "none" for table in tables],
        "impossible prices": [_format_count(table.bad_prices) for table in tables],
        "impossible ranges": [_format_count(table.bad_ranges) for table in tables],
        "flat": [_format_count(table.flat) for table in tables],
        "no volume": ["no column" if each is None else _format_count(each) for each in volume],
        "outliers": [f"{table.outliers.count:,}" for table in tables],
    }
    yield from ((name, *cells) for name, cells in rows.items())


def _tabulate_mark(beside: MarkQuality) -> dict[str, str]:
    return {
        "coverage of the bars": format_percent(beside.coverage),
        "over the last price": f"{beside.ratio:.4g} at the median, where it is furthest from 1",
        "wicks": f"{_format_count(beside.wicks)}; longest {format_percent(beside.longest_wick)}",
        "stale": _format_count(beside.stale),
    }


def _tabulate_funding(funding: FundingQuality) -> dict[str, str]:
    rates = [format_percent(each, 4, is_signed=True) for each in (funding.lowest, funding.highest)]
    priced, predicted = format_percent(funding.priced, 1), format_percent(funding.predicted, 1)
    covered = "unknown" if funding.coverage is None else format_percent(funding.coverage)
    most = "unknown" if funding.most_in_a_bar is None else f"{funding.most_in_a_bar}"
    return {
        "settlements": f"{funding.settlements:,}, {funding.start} to {funding.end}",
        "every": _format_cadences(funding),
        "missing": _format_gaps(funding.missing),
        "settled twice": f"{funding.duplicates:,}",
        "out of order": f"{funding.disordered:,}",
        "off the boundary": f"up to {funding.furthest_stamp:g} s; over a minute: "
        f"{funding.off_boundary.count:,}",
        "rates": f"{' to '.join(rates)}; {funding.at_largest:,} at the largest size",
        "median size": f"{format_percent(funding.typical, 4)} per 8 hours, where it is largest",
        "not believable": _format_count(funding.unbelievable),
        "coverage of the bars": covered,
        "most in one bar": most,
        "with a price / predicted": f"{priced} / {predicted}",
    }


def _format_cadences(funding: FundingQuality) -> str:
    parts = [f"{each.every} from {each.start}" for each in funding.cadences[:MOST_CADENCES]]
    more = len(funding.cadences) - MOST_CADENCES
    return ", ".join(parts) + (f" and {more} changes more" if more > 0 else "") or "unknown"


def _format_count(count: Count) -> str:
    if not count.count:
        return "0"
    run = f", up to {count.longest} in a row" if count.longest > 1 else ""
    return f"{count.count:,} ({format_percent(count.share)}){run}"


def _format_gaps(gaps: Gaps) -> str:
    if not gaps.count:
        return "0"
    plural = "s" if gaps.count > 1 else ""
    return f"{gaps.missing:,} in {gaps.count} gap{plural}, longest {gaps.longest}"


def _list_outliers(report: Quality) -> Iterator[tuple[str, str]]:
    for kind, table in (("", report.bars), ("mark ", report.mark)):
        for each in table.outliers.furthest if table else ():
            size = f"{format_percent(each.distance, 1)} away, {each.moves:.0f} typical moves"
            yield f"outlier: {kind}{each.price}", f"{each.time}, {size}"


def _list_gaps(report: Quality) -> Iterator[tuple[str, str]]:
    for kind, gaps in (
        ("bar", report.bars.gaps if report.bars else None),
        ("mark bar", report.mark.gaps if report.mark else None),
        ("settlement", report.funding.missing if report.funding else None),
    ):
        for gap in gaps.first if gaps else ():
            plural = "s" if gap.missing > 1 else ""
            yield f"{gap.missing} {kind}{plural} missing", f"{gap.start} to {gap.end}"


def _list_firsts(report: Quality) -> Iterator[tuple[str, str]]:
    counts: dict[str, Count | None] = {}
    for kind, table in (("", report.bars), ("mark: ", report.mark)):
        if table is not None:
            counts[f"{kind}off the boundary"] = table.off_boundary
            counts[f"{kind}impossible price"] = table.bad_prices
            counts[f"{kind}impossible range"] = table.bad_ranges
            counts[f"{kind}flat"] = table.flat
            counts[f"{kind}no volume"] = table.zero_volume
    if report.beside:
        counts |= {"wick": report.beside.wicks, "stale mark": report.beside.stale}
    if report.funding:
        counts["stamp off the boundary"] = report.funding.off_boundary
        counts["rate not believable"] = report.funding.unbelievable
    for name, count in counts.items():
        if count is not None and count.first is not None:
            last = f", last {count.last}" if count.count > 1 else ""
            yield f"first {name}", f"{count.first}{last}"


def _print_defects(defects: Sequence[Defect]) -> None:
    typer.echo("")
    typer.secho("What the loader refuses", bold=True)
    for each in defects:
        print_paragraph(each)


MOST_COLUMNS = 8
"""Instruments with a column of their own in the table of correlations."""


def print_panel(panel: PanelQuality) -> None:
    typer.secho(f"{len(panel.instruments)} instruments together", bold=True)
    print_paragraph(f"{panel.bars:,} bars, {panel.start} to {panel.end} UTC")
    print_paragraph(
        f"all instruments have {panel.common_bars:,} of them, {panel.common_start} to "
        f"{panel.common_end} UTC"
        if panel.common_bars
        else "no bar is common to all instruments"
    )
    typer.echo("")
    columns = ("instrument", "from", "to", "bars", "missing")
    print_table(columns, map(_list_span, panel.instruments), right=("bars",))
    if len(panel.instruments) > 1:
        _print_correlations(panel)
    typer.echo("")
    if panel.refused:
        typer.secho("What does not load", fg="yellow", bold=True)
        print_paragraph(panel.refused)
    else:
        print_paragraph("they load as a panel")


def _list_span(each: InstrumentSpan) -> Sequence[str]:
    where = f", first {each.first_missing}, where {each.beside} has one" if each.missing else ""
    return each.name, each.start, each.end, f"{each.bars:,}", f"{each.missing:,}{where}"


def _print_correlations(panel: PanelQuality) -> None:
    names = [each.name for each in panel.instruments]
    shown = names[:MOST_COLUMNS]
    typer.echo("")
    typer.secho(f"Correlations of {panel.period} log returns", bold=True)
    rows = ((name, *_format_row(panel, name, shown)) for name in names)
    print_table(("", *shown), rows, right=shown)
    if any(np.isnan(panel.correlations[a][b]) for a in names for b in shown):
        print_paragraph(f"no number: fewer than {LEAST_RETURNS} common returns")
    if len(names) > len(shown):
        print_paragraph(f"columns of {len(names) - len(shown)} more: --json has all of them")


def _format_row(panel: PanelQuality, name: str, shown: Sequence[str]) -> Iterator[str]:
    for other in shown:
        value = panel.correlations[name][other]
        yield "" if np.isnan(value) else f"{value:.2f}"
