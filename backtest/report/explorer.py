"""What the explorer of a search holds: its sets, their measures, marks and equity curves.

The browser chooses axes, colors and neighbors itself (``templates/explorer.js``); this file
writes only what it cannot know. Values are packed as those of charts are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.core.result_parts import ShownExplorer
from backtest.report.figures import to_datetimes
from backtest.report.page import Explorer
from backtest.results import name_measure
from backtest.results.measure_table import ABOUT
from backtest.results.ranking import thin_order

MOST_SETS = 1_500
"""Sets that are drawn; more cannot be told apart, and make a page slow."""
MEASURES = (
    "sharpe",
    "total_return",
    "cagr",
    "volatility",
    "max_drawdown",
    "calmar",
    "turnover",
    "mean_leverage",
    "liquidations",
)
"""The measures that can be chosen, beside the objective."""


def write_explorer(shown: ShownExplorer, hidden: tuple[str, ...] = ()) -> Explorer:
    """Return the block of a page, without the measures that are hidden."""
    measures = [measure for measure in shown.data["measures"] if measure["name"] not in hidden]
    data = {**shown.data, "measures": measures}
    return Explorer(shown.key, shown.title, shown.caption, data)


def describe_sets(explored: Any, curves: pd.DataFrame | None) -> dict[str, Any]:
    """Return the sets of a search and their curves, for the explorer of its page."""
    from backtest.sweep import find_failed  # noqa: PLC0415 - no page of a run needs sweeps

    rows = thin_order(explored.order, MOST_SETS)
    table = explored.table.iloc[rows]
    place_of = {str(label): place for place, label in enumerate(table.index)}
    names = list_names(explored)
    return {
        "total": len(explored.table),
        "parameters": [describe_parameter(explored, table, name) for name in names],
        "measures": list_measures(explored, rows),
        "objective": explored.name,
        "best": int(np.flatnonzero(rows == explored.best)[0]),
        "near": explored.near[rows].astype(np.float64),
        "ruined": explored.is_ruined[rows].astype(np.float64),
        "failed": find_failed(table).astype(np.float64),
        "labels": [f"{label}" for label in table.index],
        "default": find_default(explored),
        "curves": pack_curves(curves, place_of),
    }


def is_numeric(column: pd.Series) -> bool:
    """Return whether all values of a column are numbers."""
    is_bool = pd.api.types.is_bool_dtype(column)
    is_number = pd.api.types.is_numeric_dtype(column) and not is_bool
    return is_number and not column.isna().any()


def list_names(explored: Any) -> list[str]:
    """Return the parameters that differ among the sets; all of them if none does."""
    return explored.varied or list(explored.parameters)


def describe_parameter(explored: Any, table: pd.DataFrame, name: str) -> dict[str, Any]:
    """Return a parameter with the values of the sets: numbers, or codes of words."""
    column = table[name]
    about = explored.parameters[name]
    unit = str(about["unit"])
    if is_numeric(column):
        values = column.to_numpy(dtype=np.float64)
        is_positive = bool(values.min() > 0.0)
        return {
            "name": name,
            "unit": unit,
            "log": bool(about["log"]) and is_positive,
            "values": values,
        }

    texts = column.astype(object).map(core.format_setting)
    codes, words = pd.factorize(texts, sort=True)
    return {
        "name": name,
        "unit": unit,
        "log": False,
        "words": list(words),
        "values": codes.astype(np.float64),
    }


def find_default(explored: Any) -> dict[str, Any] | None:
    """Return the defaults of the parameters that have one, by name; None if not all have."""
    defaults: dict[str, Any] = {}
    for name in list_names(explored):
        about = explored.parameters[name]
        value = about.get("default", about.get("value"))
        if value is None or isinstance(value, Mapping | list):
            return None

        # Numbers stay; anything else is the text that an axis has.
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = core.format_setting(value)
        defaults[name] = value
    return defaults


def list_measures(explored: Any, rows: core.IntArray) -> list[dict[str, Any]]:
    """Return the measures that can be chosen, the objective first, with the values of the sets."""
    measures = [describe_measure(explored.name, explored.better, explored.values[rows])]
    for name in MEASURES:
        if name == explored.name or name not in explored.table:
            continue

        better = 0
        if name in ABOUT:
            better = ABOUT[name].better
        values = explored.table[name].to_numpy(dtype=np.float64)
        measures.append(describe_measure(name, better, values[rows]))
    return measures


def describe_measure(name: str, better: int, values: core.FloatArray) -> dict[str, Any]:
    return {
        "name": name,
        "title": name_measure(name),
        "better": better,
        "form": name_form(name),
        "values": np.where(np.isfinite(values), values, np.nan),
    }


def name_form(name: str) -> str:
    """Return how the browser writes a measure."""
    if name not in ABOUT:
        return "number"

    unit = ABOUT[name].unit
    if unit.startswith("fraction") or name == "volatility":
        return "percent"
    if unit == "count":
        return "count"
    return "number"


def pack_curves(curves: pd.DataFrame | None, place_of: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the curves of the sets that are drawn, one after the other, and the constant."""
    if curves is None:
        return None
    sets = [name for name in curves if str(name) in place_of]
    known = curves[sets].dropna(how="all")
    if not sets or not len(known):
        return None

    constant = None
    constants = [name for name in curves if str(name).startswith("constant")]
    if constants:
        values = curves[constants[0]].loc[known.index].to_numpy(dtype=np.float64)
        constant = {"name": str(constants[0]), "values": values}
    return {
        "times": to_datetimes(pd.DatetimeIndex(known.index).as_unit("ns").asi8),
        "places": [place_of[str(name)] for name in sets],
        "units": known.to_numpy(dtype=np.float64).T.ravel(),
        "constant": constant,
    }
