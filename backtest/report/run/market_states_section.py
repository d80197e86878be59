"""The report section on market states: all measures in bull and bear, calm and stress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.measures import name_measure
from backtest.report.page.page import Section, Table, name_columns
from backtest.report.page.report_numbers import format_measure, name_unit

if TYPE_CHECKING:
    import pandas as pd

    from backtest.engine import Result

OF_PHASE = (
    "A bear market begins after the peak from which the mark price falls by 20 %, a bull market "
    "after the trough from which it rises by 20 %. Phases are known in hindsight only."
)
OF_VOLATILITY = (
    "Thirds of the volatility forecast at the close before each sampling period; the first period "
    "has none."
)


def build_states(result: Result) -> Section:
    """Return the section on market states."""
    lead = (
        "The account by the state of its market. The periods of a state count as if they followed "
        "one another."
    )
    tables = [
        tabulate_states("By market phase", result.measures_by("phase"), OF_PHASE),
        tabulate_states("By market volatility", result.measures_by("volatility"), OF_VOLATILITY),
    ]
    return Section("states", "Market states", lead, [each for each in tables if each.rows])


def tabulate_states(title: str, table: pd.DataFrame, note: str) -> Table:
    """Return a table with a row per measure and a column per state."""
    if table.empty:
        return Table(title, name_columns("measure"), (), note)
    names = [str(name) for name in table.index]
    days = ("days", *(f"{value:,.0f}" for value in table["days"]), "")
    rows = tuple(
        (
            name_measure(each),
            *(format_measure(each, value) for value in table[each]),
            name_unit(each),
        )
        for each in table.columns[1:]
    )
    columns = name_columns("measure", *names, "unit", text=["unit"])
    return Table(title, columns, (days, *rows), note)
