"""Last lines of summaries: what was filled in, chosen about the data, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backtest.base.text_layout import format_paragraph
from backtest.market.tables.repairs import split_notes


def describe_checks(
    manifest: Mapping[str, Any], notes: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    """Yield the last lines of a summary.

    ``notes`` are those of ``Market.filled`` by what their lines begin with: the instrument and a
    comma, or nothing.
    """
    filled: list[str] = []
    chosen: list[str] = []
    for start, of_market in notes.items():
        for lines, found in zip((filled, chosen), split_notes(of_market), strict=True):
            lines += [f"{start}{name}: {how}" for name, how in found.items()]
    yield from format_paragraph("Filled", *(filled or ["nothing; the data had no gaps"]))
    if chosen:
        yield from format_paragraph("Data choices", *chosen)
    causality = f"causality: {manifest['causality']}"
    yield from format_paragraph("Checked", f"the books balance at every bar; {causality}")
    if manifest["compiled"] != "yes":
        yield from format_paragraph("Plain Python", str(manifest["compiled"]))
