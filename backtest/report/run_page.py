"""What the page of a run has beside its sections: title, chips, and windows of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backtest import core
from backtest.report import render
from backtest.report.figures import to_text
from backtest.report.overview import SHADED, list_endings
from backtest.report.page import Page
from backtest.report.policy_phrase import list_chips, write_phrase
from backtest.report.run_charts import find_drawdowns
from backtest.report.window import collect_window

if TYPE_CHECKING:
    from backtest.results import Result


def dress_page(page: Page, result: Result) -> Page:
    """Return the page of a run with its phrase as the title, and what its windows need."""

    def collect() -> dict[str, Any]:
        return collect_window(result)

    return replace(
        page,
        title=core.clip(write_phrase(result.manifest), render.MAX_TITLE),
        chips=list_chips(result),
        collect_window=collect,
        landmarks=tuple(list_landmarks(result)),
    )


def list_landmarks(result: Result) -> Iterator[tuple[str, str, str]]:
    """Yield windows by name, each from one time to another: the worst drawdown, and the ends."""
    falls = find_drawdowns(result).iloc[:SHADED]
    if len(falls):
        worst = falls.iloc[0]
        yield "Worst drawdown", to_text(worst["peak"].value), to_text(worst["trough"].value)

    first = next(list_endings(result), None)
    if first is not None:
        time, name = first
        label = "Ruin" if "ruined" in name else "Liquidation"
        yield label, to_text(time), to_text(time)
