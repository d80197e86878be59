"""Print how the data of several instruments fit together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import typer

from backtest.cli.printing import print_paragraph, print_table
from backtest.market.panel_quality import LEAST_RETURNS, InstrumentSpan, PanelQuality

MOST_COLUMNS = 8
"""Instruments with a column of their own in the table of correlations."""


def print_panel(panel: PanelQuality) -> None:
    """Print the spans, holes and correlations, and whether the data load as a panel."""
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
        print_paragraph(panel.cure)
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
