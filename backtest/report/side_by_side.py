"""Two results side by side: their curves, what differs in measures and settings, since when.

The *first* and the *second* are the results in the order in which they were named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest import core, results
from backtest.core.code_names import pd
from backtest.core.number_text import Head
from backtest.core.result_parts import Panel, ShownChart, ShownTable
from backtest.report import render
from backtest.report.charts import draw_declared
from backtest.report.page import (
    Block,
    Chart,
    Page,
    Paragraph,
    Section,
    Table,
    write_measure,
    write_table,
)
from backtest.report.policy_phrase import write_phrase
from backtest.report.run_figures import list_hidden_measures
from backtest.report.write import showing
from backtest.results.measure_table import ABOUT, name_measure

RUN = "run"
SAME = 1e-9
"""Relative difference up to which two numbers are the same."""
RISKS = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "max_drawdown",
    "calmar",
    "es_95",
    "liquidations",
    "ruin_time",
    "final_equity",
)
USES = (
    "mean_leverage",
    "peak_leverage",
    "turnover",
    "fills",
    "price_pnl",
    "fees",
    "slippage",
    "impact",
    "funding",
    "interest",
    "liquidation_loss",
)
"""Measures of the two tables, in their order."""
UNSAID = (
    "id",
    "files",
    "sha256",
    "content",
    "title",
    "note",
    "outcome",
    "indices",
    "held",
    "margin_tables",
    "promises",
    "format",
    "causality",
    "policy.text",
    "policy.source_hash",
    "policy_module",
)
"""What a manifest has that is no setting."""
MAX_LETTERS = 100
"""Longest name of a result, and longest value of a setting."""
FEW = 4
"""Values of a list up to which their count is not said."""


class Pair(NamedTuple):
    """Two results with the names by which the page tells them apart."""

    first: Any
    second: Any
    names: tuple[str, str]

    @property
    def both(self) -> tuple[Any, Any]:
        return (self.first, self.second)

    @property
    def is_run(self) -> bool:
        return bool(self.first.kind == RUN)


def write_pair(folders: tuple[Path, Path], path: Path, format_: str) -> Path:
    """Load two results of one kind and write the page that compares them; return the path."""
    first, second = map(results.load_saved, folders)
    if first.kind != second.kind:
        raise core.ParameterError(
            f"two results side by side must be of one kind, got a {first.kind} "
            f"({folders[0].name}) and a {second.kind} ({folders[1].name})"
        )
    with showing(folders[0]), showing(folders[1]):
        return render.write_page(build_pair_page(first, second), path, format_)


def build_pair_page(first: Any, second: Any) -> Page:
    pair = Pair(first, second, name_pair(first, second))
    settings = [*list_settings(pair)]
    measures = list_measures(pair)
    difference = None
    if pair.is_run:
        difference = find_first_difference(pair)

    def list_sections() -> list[Section]:
        measured = Section(
            key="measures",
            title="Measures",
            lead=f"{name_both(pair)} The arrow shows the change from the first to the second.",
            blocks=list_tables(pair, measures),
        )
        sections = [measured, show_settings(settings)]

        if pair.is_run:
            sections.append(show_difference(difference))
            chart = draw_pair(pair)
            if chart is not None:
                sections.insert(0, Section("story", "Both over time", "", [chart]))
        return sections

    ids = [first.manifest["id"], second.manifest["id"]]
    return Page(
        kind="comparison",
        manifest={
            **first.manifest,
            "id": f"{ids[0]} {ids[1]}",
            "data": describe_both(pair),
        },
        title=core.clip(f"{pair.names[0]} against {pair.names[1]}", render.MAX_TITLE),
        notices=list_notices(pair),
        marked_summary=write_verdict(pair, len(settings)),
        details="",
        facts=[],
        write_sections=list_sections,
        collect=lambda: {
            "results": ids,
            "measures": measures,
            "settings": {name: list(values) for name, *values in settings},
            "first_difference": difference,
        },
        collect_window=lambda: None,
    )


def show_settings(settings: list[tuple[str, str, str]]) -> Section:
    block: Block = Paragraph("All settings are the same.")
    if settings:
        block = tabulate_settings(settings)
    return Section(
        key="settings",
        title="Settings that differ",
        lead="Only what is not the same in both.",
        blocks=[block],
        is_half=True,
    )


def show_difference(difference: Difference | None) -> Section:
    block: Block = Paragraph("No bar that both have differs.")
    if difference is not None:
        block = tabulate_difference(difference)
    return Section(
        key="bar",
        title="First bar that differs",
        lead="",
        blocks=[block],
        is_half=True,
    )


def name_pair(first: Any, second: Any) -> tuple[str, str]:
    """Return a name for each result; equal ones are told apart by their ids."""
    name = name_result(first)
    other = name_result(second)
    if name == other:
        name = f"{name} ({str(first.manifest['id'])[:8]})"
        other = f"{other} ({str(second.manifest['id'])[:8]})"
    return core.clip(name, MAX_LETTERS), core.clip(other, MAX_LETTERS)


def name_result(result: Any) -> str:
    if result.kind == RUN:
        return write_phrase(result.manifest)
    return str(result.heading)


def list_notices(pair: Pair) -> list[str]:
    first, second = read_data(pair)
    notices = []
    if any(first.get(key) != second.get(key) for key in ("start", "end")):
        span = f"{first.get('start')} to {first.get('end')}"
        other = f"{second.get('start')} to {second.get('end')}"
        shared = "they share no bar, so no curves are shown"
        if max(first["start"], second["start"]) < min(first["end"], second["end"]):
            shared = "curves begin at 1 where both have bars, measures are of each whole run"
        notices.append(f"They cover different times, {span} and {other}: {shared}.")

    if first.get("instrument") != second.get("instrument"):
        notices.append(
            f"They are of different markets, {name_instrument(first)} and "
            f"{name_instrument(second)}: what differs is not the policy alone."
        )
    elif first.get("content_hash") != second.get("content_hash"):
        notices.append("Their data are not the same.")
    return notices


def describe_both(pair: Pair) -> Mapping[str, Any]:
    """Return the data of the first result, under the instruments of both."""
    first, second = read_data(pair)
    names = dict.fromkeys((name_instrument(first), name_instrument(second)))
    return {**first, "instrument": " and ".join(names)}


def read_data(pair: Pair) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what the manifests of both say of their data; nothing of a result without any."""
    first = pair.first.manifest.get("data") or {}
    second = pair.second.manifest.get("data") or {}
    return first, second


def name_instrument(data: Mapping[str, Any]) -> str:
    return data.get("instrument") or "unnamed instrument"


def write_verdict(pair: Pair, n_settings: int) -> str:
    verb = "differs" if n_settings == 1 else "differ"
    differing = f"{core.count_nouns(n_settings, 'setting')} {verb}."
    if not pair.is_run:
        return differing

    first = pair.first.metrics
    second = pair.second.metrics
    return (
        f"The first returned {core.format_percent(first['total_return'])} and the second "
        f"{core.format_percent(second['total_return'])}; their worst drawdowns were "
        f"{core.format_percent(first['max_drawdown'])} and "
        f"{core.format_percent(second['max_drawdown'])}. {differing}"
    )


def draw_pair(pair: Pair) -> Chart | None:
    """Return both unit values from the first close of both, and the second over the first."""
    first = read_units(pair.first)
    second = read_units(pair.second)
    start = max(first.index[0], second.index[0])
    end = min(first.index[-1], second.index[-1])
    if start >= end:
        return None

    index = first.index.union(second.index)
    index = index[(index >= start) & (index <= end)]
    table = pd.DataFrame(index=index)
    table["first"] = begin_at_one(first, index)
    table["second"] = begin_at_one(second, index)
    with np.errstate(invalid="ignore", divide="ignore"):
        table["ratio"] = table["second"] / table["first"]

    shown = ShownChart(
        key="story",
        title="Both over time",
        caption="Unit values at closes, free of deposits, from the first close that both have.",
        table=table,
        panels=(
            Panel("Value of 1", ("first", "second"), height=2.2, scale="log"),
            Panel("Second over first", ("ratio",)),
        ),
        height=460,
        colors={
            "first": "neutral",
            "second": "accent",
            "ratio": "ink",
        },
        labels={"first": f"first: {pair.names[0]}", "second": f"second: {pair.names[1]}"},
    )
    return draw_declared(shown)


def read_units(result: Any) -> pd.Series[float]:
    unit = result.of_account("unit") / result.tally.first_unit
    return pd.Series(unit, index=core.utc_index(result.span.named))


def begin_at_one(units: pd.Series[float], index: pd.DatetimeIndex) -> Any:
    """Return the last unit value known at each time over that of the first, NaN after a ruin."""
    times: Any = index.union(pd.DatetimeIndex(units.index))
    known = units.reindex(times).ffill().reindex(index)
    if not known.iloc[0] > 0.0:
        return math.nan
    return known / known.iloc[0]


def list_measures(pair: Pair) -> dict[str, tuple[float, float]]:
    """Return the measures of both by name; of results that are no runs, their numbers."""
    if not pair.is_run:
        first = {number.name: number.value for number in pair.first.list_numbers()}
        second = {number.name: number.value for number in pair.second.list_numbers()}
        return {name: (first[name], second[name]) for name in first if name in second}

    hidden = {*list_hidden_measures(pair.first), *list_hidden_measures(pair.second)}
    measures = {}
    for name in (*RISKS, *USES):
        values = (pair.first.metrics[name], pair.second.metrics[name])
        is_known = not all(map(math.isnan, values))
        is_unused = name in USES and not any(values)
        if is_known and not is_unused and name not in hidden:
            measures[name] = values
    return measures


def is_same(first: float, second: float) -> bool:
    """Return whether two numbers differ by rounding at most; NaN is the same as NaN."""
    if first == second:
        return True
    return bool(np.isclose(first, second, rtol=SAME, atol=1e-12, equal_nan=True))


def list_tables(pair: Pair, measures: Mapping[str, tuple[float, float]]) -> list[Block]:
    """Return the tables of return and risk, and of leverage and costs; or one of all numbers."""
    if not pair.is_run:
        return [tabulate_measures(measures, "Numbers")]
    risks = {name: measures[name] for name in RISKS if name in measures}
    uses = {name: measures[name] for name in USES if name in measures}
    return [
        tabulate_measures(risks, "Return and risk"),
        tabulate_measures(uses, "Leverage and costs"),
    ]


def tabulate_measures(measures: Mapping[str, tuple[float, float]], title: str) -> Table:
    rows = {}
    for name, (first, second) in measures.items():
        rows[name_measure(name)] = {
            "first": write_measure(name, first),
            "second": write_measure(name, second),
            "change": write_change(name, first, second),
        }
    shown = ShownTable(
        rows,
        caption=title,
        labels=Head("measure"),
        heads={
            "first": Head("first", "", "money"),
            "second": Head("second", "", "money"),
            "change": Head("change"),
        },
    )
    return write_table(shown)


def name_both(pair: Pair) -> str:
    return f"First: {pair.names[0]}. Second: {pair.names[1]}."


def write_change(name: str, first: float, second: float) -> str:
    """Return the arrow of a change, its size, and whether it is for the better."""
    if is_same(first, second):
        return "="
    if math.isnan(first) or math.isnan(second):
        return "only one has it"

    arrow = "▲" if second > first else "▼"
    size = write_measure(name, abs(second - first)).replace(" %", " points")
    better = 0
    if name in ABOUT:
        better = ABOUT[name].better
    if better == 0:
        return f"{arrow} {size}"

    is_better = (second > first) == (better > 0)
    word = "better" if is_better else "worse"
    return f"{arrow} {size} {word}"


def list_settings(pair: Pair) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each setting that differs, and its text in both."""
    first = dict(flatten_manifest(pair.first.manifest))
    second = dict(flatten_manifest(pair.second.manifest))
    for name in dict.fromkeys((*first, *second)):
        text = first.get(name, "not set")
        other = second.get(name, "not set")
        if text == other:
            continue

        words = name.replace(".settings", "").replace("_", " ").replace(".", " ")
        yield words, core.clip(text, MAX_LETTERS), core.clip(other, MAX_LETTERS)


def flatten_manifest(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{above}.{key}" if above else str(key)
        if name in UNSAID:
            continue

        if isinstance(value, Mapping):
            yield from flatten_manifest(value, name)
        elif isinstance(value, list) and len(value) > FEW:
            yield name, f"{len(value):,} rows, {core.format_setting(value)}"
        elif value is None:
            yield name, "none"
        else:
            yield name, core.format_setting(value)


def tabulate_settings(settings: list[tuple[str, str, str]]) -> Table:
    rows = {name: {"first": first, "second": second} for name, first, second in settings}
    shown = ShownTable(
        rows,
        caption="Settings",
        labels=Head("setting"),
        heads={"first": Head("first"), "second": Head("second")},
    )
    return write_table(shown)


class Difference(NamedTuple):
    """The first bar at which two runs part: its open, and what each had, by column."""

    time: str
    values: dict[str, tuple[float, float]]


def find_first_difference(pair: Pair) -> Difference | None:
    """Return the first bar that both have and in which a number differs, None if there is none."""
    first = pair.first.bars
    second = pair.second.bars
    index = first.index.intersection(second.index)
    if index.empty:
        return None

    # All numbers of the bars that both have, of shape (n_bars, n_columns).
    is_numeric = pd.api.types.is_numeric_dtype
    columns = [name for name in first if name in second and is_numeric(first[name])]
    values = first.loc[index, columns].to_numpy(dtype=np.float64)
    others = second.loc[index, columns].to_numpy(dtype=np.float64)

    differs = ~np.isclose(values, others, rtol=SAME, atol=1e-12, equal_nan=True)
    rows = np.flatnonzero(differs.any(axis=1))
    if len(rows) == 0:
        return None

    row = int(rows[0])
    differing = {}
    for place in np.flatnonzero(differs[row]).tolist():
        in_first = float(values[row, place])
        in_second = float(others[row, place])
        differing[columns[place]] = (in_first, in_second)
    return Difference(
        time=core.format_time(int(index[row].value)),
        values=differing,
    )


def tabulate_difference(difference: Difference) -> Table:
    rows = {}
    for name, (first, second) in difference.values.items():
        rows[name.replace("_", " ")] = {"first": first, "second": second}
    shown = ShownTable(
        rows,
        caption="First bar that differs",
        note=f"The bar that opens at {difference.time} UTC.",
        labels=Head("column"),
        heads={"first": Head("first", "", "money"), "second": Head("second", "", "money")},
    )
    return write_table(shown)
