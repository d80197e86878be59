"""Load the files that a layout names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from backtest.base.units import format_duration, parse_duration
from backtest.market.read.csv_files import FIRST_LINE
from backtest.market.read.files import read_file
from backtest.market.read.funding_files import choose_funding
from backtest.market.read.layouts import Layout, find_layout, find_rate_column
from backtest.market.read.vendors import rename
from backtest.market.tables.assemble import Facts, MarketFrames, assemble, examine
from backtest.market.tables.defects import Defect
from backtest.market.tables.joined_frames import SourceFrame
from backtest.market.tables.read_options import ReadOptions


def load_facts(
    paths: Sequence[Path],
    choices: ReadOptions,
    *,
    mark: Sequence[Path] = (),
    funding: Sequence[Path] = (),
    joins: bool = False,
) -> Facts:
    """Return the checked arrays of one folder or several files; parameters of ``open_files``.

    Raises
    ------
    DataError
        If no layout fits, or listing every defect of every file.
    """
    layout, frames = open_files(paths, choices, mark=mark, funding=funding, joins=joins)
    facts = assemble(frames, complete_options(choices, layout), where=", ".join(map(str, paths)))
    facts["filled"] = {**facts["filled"], **layout.filled}
    return facts


def inspect_files(paths: Sequence[Path], choices: ReadOptions) -> list[Defect]:
    """Return every defect of one folder or several files: the report on their quality.

    Raises
    ------
    DataError
        If no layout fits.
    """
    layout, frames = open_files(paths, choices)
    return examine(frames, complete_options(choices, layout))[1]


def open_files(
    paths: Sequence[Path],
    choices: ReadOptions,
    *,
    mark: Sequence[Path] = (),
    funding: Sequence[Path] = (),
    joins: bool = False,
) -> tuple[Layout, MarketFrames]:
    """Return what the files are, and their content or why it cannot be read.

    Parameters
    ----------
    paths : sequence of Path
        One folder, or one or several files.
    choices : ReadOptions
        Which to take, and under what names columns stand.
    mark, funding : sequence of Path
        Files that are so whatever their names say.
    joins : bool
        Whether several nameless files of a kind are parts of one table.

    Raises
    ------
    DataError
        If no layout fits.
    """
    layout = find_layout(
        paths,
        instrument=choices.instrument or None,
        interval=format_duration(choices.interval) if choices.interval else None,
        funding_interval=choices.funding_text,
        joins=joins,
    )
    if mark:
        layout = layout._replace(mark=tuple(mark))
    if funding:
        layout = layout._replace(
            funding=tuple(funding), rate_column=find_rate_column(funding), has_same_funding=False
        )
    return choose_funding(layout, read_layout(layout, choices), choices)


def read_layout(layout: Layout, choices: ReadOptions) -> MarketFrames:
    """Return the content of the files of a layout, or why it cannot be read."""
    return MarketFrames(
        *(
            tuple(_read_part(path, role, layout, choices) for path in paths)
            for role, paths in (
                ("bars", layout.bars),
                ("mark", layout.mark),
                ("funding", layout.funding),
            )
        )
    )


def complete_options(choices: ReadOptions, layout: Layout) -> ReadOptions:
    """Return the caller's choices, and where they are silent what the folder says."""
    stated = parse_duration(layout.interval, where="interval") if layout.interval else None
    known_gaps = "zero" if "funding_gaps" in layout.filled else None  # accepted when it was saved
    return choices._replace(
        instrument=layout.instrument or choices.instrument,
        interval=choices.interval or stated,
        funding_gaps=choices.funding_gaps or known_gaps,
        sessions=choices.sessions or layout.sessions,
        synthetic=layout.synthetic,
    )


def _read_part(path: Path, role: str, layout: Layout, choices: ReadOptions) -> SourceFrame:
    chosen = _columns_of(role, choices.columns)
    times = [chosen[name] for name in ("time",) if name in chosen]
    frame = read_file(path, times, choices.decimal)
    line = None if isinstance(frame, Defect) else frame.attrs.get(FIRST_LINE)
    if not isinstance(frame, Defect):
        frame = rename(frame, role, chosen, choices.instrument, where=str(path))
    if not isinstance(frame, Defect) and role == "funding":
        frame = _rate_of(frame, layout.rate_column)
    return SourceFrame(path.name, frame, is_file=True, first_line=line)


def _columns_of(role: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the names of one kind of table: those of mark and funding begin with its name."""
    if role == "bars":
        return {ours: theirs for ours, theirs in columns.items() if "." not in ours}
    lead = f"{role}."
    return {n.removeprefix(lead): theirs for n, theirs in columns.items() if n.startswith(lead)}


def _rate_of(frame: pd.DataFrame, rate_column: str) -> pd.DataFrame:
    """Return funding with its rate in ``rate``; freqtrade writes it as open, beside zeros."""
    if rate_column == "rate" or rate_column not in frame:
        return frame
    zeros = [name for name in ("high", "low", "close", "volume") if name in frame]
    return frame.drop(columns=zeros).rename(columns={rate_column: "rate"})
