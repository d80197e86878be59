"""Load the files that a layout names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from backtest.sources.assemble import Facts, Frames, assemble, examine
from backtest.sources.choices import Choices
from backtest.sources.defects import Defect
from backtest.sources.files import read_file
from backtest.sources.layouts import Layout, find_layout
from backtest.units import format_duration, parse_duration


def load_facts(paths: Sequence[Path], choices: Choices) -> Facts:
    """Return the checked arrays of one folder or several files.

    Raises
    ------
    DataError
        If no layout fits, or listing every defect of every file.
    """
    layout, frames = open_files(paths, choices)
    facts = assemble(frames, with_layout(choices, layout), where=", ".join(map(str, paths)))
    facts["filled"] = {**facts["filled"], **layout.filled}
    return facts


def inspect_files(paths: Sequence[Path], choices: Choices) -> list[Defect]:
    """Return every defect of one folder or several files: the report on their quality.

    Raises
    ------
    DataError
        If no layout fits.
    """
    layout, frames = open_files(paths, choices)
    return examine(frames, with_layout(choices, layout))[1]


def open_files(paths: Sequence[Path], choices: Choices) -> tuple[Layout, Frames]:
    """Return what the files are, and their content or why it cannot be read.

    Raises
    ------
    DataError
        If no layout fits.
    """
    layout = find_layout(
        paths,
        instrument=choices.instrument or None,
        interval=format_duration(choices.interval) if choices.interval else None,
    )
    mark, funding = layout.mark, layout.funding
    return layout, Frames(
        bars=read_file(layout.bars),
        mark=read_file(mark) if mark else None,
        funding=_read_funding(funding, layout.rate_column) if funding else None,
        names=(layout.bars.name, mark.name if mark else "", funding.name if funding else ""),
    )


def with_layout(choices: Choices, layout: Layout) -> Choices:
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


def _read_funding(path: Path, rate_column: str) -> pd.DataFrame | Defect:
    """Return funding with its rate in ``rate``; freqtrade writes it as open, beside zeros."""
    frame = read_file(path)
    if isinstance(frame, Defect) or rate_column == "rate" or rate_column not in frame:
        return frame
    zeros = [name for name in ("high", "low", "close", "volume") if name in frame]
    return frame.drop(columns=zeros).rename(columns={rate_column: "rate"})
