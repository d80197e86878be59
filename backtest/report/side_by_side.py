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
    "total_return", "cagr", "volatility", "sharpe", "max_drawdown", "calmar", "es_95",
    "liquidations", "ruin_time", "final_equity",
)  # fmt: skip
USES = (
    "mean_leverage", "peak_leverage", "turnover", "fills", "price_pnl", "fees", "slippage",
    "impact", "funding", "interest", "liquidation_loss",
)  # fmt: skip
"""Measures of the two tables, in their order."""
UNSAID = ("id", "files", "sha256", "content", "title", "note", "outcome", "indices", "held",
          "margin_tables", "promises", "format", "causality", "policy.text", "policy.source_hash",
          "policy_module")  # fmt: skip
"""What a manifest has that is no setting."""
MAX_LETTERS = 100


class Pair(NamedTuple):
    """Two results with the names by which the page tells them apart."""

    first: Any
    second: Any
    names: tuple[str, str]


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
    is_run = first.kind == RUN
    difference = find_first_difference(pair) if is_run else None
    measures = list_measures(pair)

    def list_sections() -> list[Section]:
        sections = []
        if is_run and (chart := draw_pair(pair)) is not None:
            sections.append(Section("story", "Both over time", "", [chart]))
        lead = "The arrow shows the change from the first to the second."
        tables = list_tables(pair, measures)
        sections.append(Section("measures", "Measures", lead, tables))
        blocks: list[Block] = [Paragraph("All settings are the same.")]
        if settings:
            blocks = [tabulate_settings(pair, settings)]
        lead = "Only what is not the same in both."
        sections.append(Section("settings", "Settings that differ", lead, blocks, is_half=True))
        if is_run:
            blocks = [tabulate_difference(pair, difference)] if difference else []
            blocks = blocks or [Paragraph("No bar that both have differs.")]
            sections.append(Section("bar", "First bar that differs", "", blocks, is_half=True))
        return sections

    return Page(
        kind="comparison",
        manifest={**first.manifest, "id": f"{first.manifest['id']} {second.manifest['id']}"},
        title=core.clip(f"{pair.names[0]} against {pair.names[1]}", render.MAX_TITLE),
        notices=list_notices(pair),
        marked_summary=write_verdict(pair, len(settings)),
        details="",
        facts=[],
        write_sections=list_sections,
        collect=lambda: {
            "results": [first.manifest["id"], second.manifest["id"]],
            "measures": measures,
            "settings": {name: list(values) for name, *values in settings},
            "first_difference": difference,
        },
        collect_window=lambda: None,
    )


def name_pair(first: Any, second: Any) -> tuple[str, str]:
    """Return a name for each result; equal ones are told apart by their ids."""
    names = [
        write_phrase(each.manifest) if each.kind == RUN else str(each.heading)
        for each in (first, second)
    ]
    if names[0] == names[1]:
        ids = (str(each.manifest["id"])[:8] for each in (first, second))
        names = [f"{name} ({id_})" for name, id_ in zip(names, ids, strict=True)]
    return core.clip(names[0], MAX_LETTERS), core.clip(names[1], MAX_LETTERS)


def list_notices(pair: Pair) -> list[str]:
    spans = [each.manifest.get("data") or {} for each in (pair.first, pair.second)]
    notices = []
    if any(spans[0].get(key) != spans[1].get(key) for key in ("start", "end")):
        texts = [f"{each.get('start')} to {each.get('end')}" for each in spans]
        notices.append(
            f"They cover different times, {texts[0]} and {texts[1]}: curves begin at 1 where both "
            "have bars, measures are of each whole run."
        )
    if spans[0].get("content_hash") != spans[1].get("content_hash"):
        notices.append("Their data are not the same.")
    return notices


def write_verdict(pair: Pair, n_settings: int) -> str:
    differ = core.count_nouns(n_settings, "setting")
    text = f"{differ} differ{'s' if n_settings == 1 else ''}."
    if pair.first.kind != RUN:
        return text
    returns = [
        core.format_percent(each.metrics["total_return"]) for each in (pair.first, pair.second)
    ]
    falls = [
        core.format_percent(each.metrics["max_drawdown"]) for each in (pair.first, pair.second)
    ]
    return (
        f"The return was {returns[0]} and is {returns[1]}, the worst drawdown was {falls[0]} and "
        f"is {falls[1]}; {text}"
    )


def draw_pair(pair: Pair) -> Chart | None:
    """Return both unit values from the first close of both, and the second over the first."""
    series = []
    for each in (pair.first, pair.second):
        unit = each.of_account("unit") / each.tally.first_unit
        series.append(pd.Series(unit, index=core.utc_index(each.span.named)))
    start, end = max(x.index[0] for x in series), min(x.index[-1] for x in series)
    if start >= end:
        return None

    index = series[0].index.union(series[1].index)
    index = index[(index >= start) & (index <= end)]
    table = pd.DataFrame(index=index)
    for name, values in zip(("first", "second"), series, strict=True):
        held = values.reindex(index.union(values.index)).ffill().reindex(index)
        table[name] = held / held.iloc[0] if held.iloc[0] > 0.0 else math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        table["ratio"] = table["second"] / table["first"]
    panels = (
        Panel("Value of 1", ("first", "second"), 2.2, scale="log"),
        Panel("Second over first", ("ratio",)),
    )
    labels = {"first": f"first: {pair.names[0]}", "second": f"second: {pair.names[1]}"}
    caption = "Unit values at closes, free of deposits, from the first close that both have."
    return draw_declared(
        ShownChart("story", "Both over time", caption, table, panels=panels, height=460,
                   colors={"first": "neutral", "second": "accent", "ratio": "ink"},
                   labels=labels)
    )  # fmt: skip


def list_measures(pair: Pair) -> dict[str, tuple[float, float]]:
    """Return the measures of both by name; of results that are no runs, their numbers."""
    if pair.first.kind != RUN:
        numbers = [{x.name: x.value for x in each.list_numbers()} for each in pair[:2]]
        return {
            name: (numbers[0][name], numbers[1][name]) for name in numbers[0] if name in numbers[1]
        }
    hidden = {*list_hidden_measures(pair.first), *list_hidden_measures(pair.second)}
    metrics = (pair.first.metrics, pair.second.metrics)
    return {
        name: (metrics[0][name], metrics[1][name])
        for name in (*RISKS, *USES)
        if name not in hidden and not all(math.isnan(each[name]) for each in metrics)
    }


def is_same(first: float, second: float) -> bool:
    return first == second or bool(np.isclose(first, second, rtol=SAME, atol=1e-12, equal_nan=True))


def list_tables(pair: Pair, measures: Mapping[str, tuple[float, float]]) -> list[Block]:
    """Return the tables of return and risk, and of leverage and costs; or one of all numbers."""
    if pair.first.kind != RUN:
        return [tabulate_measures(pair, measures, "Numbers")]
    groups = {"Return and risk": RISKS, "Leverage and costs": USES}
    return [
        tabulate_measures(pair, {x: measures[x] for x in names if x in measures}, title)
        for title, names in groups.items()
    ]


def tabulate_measures(pair: Pair, measures: Mapping[str, tuple[float, float]], title: str) -> Table:
    rows = {}
    for name, (first, second) in measures.items():
        rows[name_measure(name)] = {
            "first": write_measure(name, first),
            "second": write_measure(name, second),
            "change": write_change(name, first, second),
        }
    heads = {"first": Head("first"), "second": Head("second"), "change": Head("change")}
    return write_table(ShownTable(rows, title, name_both(pair), Head("measure"), heads))


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
    better = ABOUT[name].better if name in ABOUT else 0
    if better == 0:
        return f"{arrow} {size}"
    word = "better" if (second > first) == (better > 0) else "worse"
    return f"{arrow} {size} {word}"


def list_settings(pair: Pair) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each setting that differs, and its text in both."""
    texts = [dict(flatten_manifest(each.manifest)) for each in (pair.first, pair.second)]
    for name in dict.fromkeys((*texts[0], *texts[1])):
        first, second = (each.get(name, "not set") for each in texts)
        if first != second:
            words = name.replace(".settings", "").replace("_", " ").replace(".", " ")
            yield words, core.clip(first, MAX_LETTERS), core.clip(second, MAX_LETTERS)


def flatten_manifest(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{above}.{key}" if above else str(key)
        if name in UNSAID:
            continue
        if isinstance(value, Mapping):
            yield from flatten_manifest(value, name)
        elif isinstance(value, list) and len(value) > 4:
            yield name, f"{len(value):,} rows, {core.format_setting(value)}"
        else:
            yield name, "none" if value is None else core.format_setting(value)


def tabulate_settings(pair: Pair, settings: list[tuple[str, str, str]]) -> Table:
    rows = {name: {"first": first, "second": second} for name, first, second in settings}
    heads = {"first": Head("first"), "second": Head("second")}
    return write_table(ShownTable(rows, "Settings", name_both(pair), Head("setting"), heads))


class Difference(NamedTuple):
    """The first bar at which two runs part: its open, and what each had, by column."""

    time: str
    values: dict[str, tuple[float, float]]


def find_first_difference(pair: Pair) -> Difference | None:
    """Return the first bar that both have and in which a number differs, None if there is none."""
    bars = (pair.first.bars, pair.second.bars)
    columns = [
        name for name in bars[0] if name in bars[1] and pd.api.types.is_numeric_dtype(bars[0][name])
    ]
    index = bars[0].index.intersection(bars[1].index)
    if index.empty:
        return None
    values = [each.loc[index, columns].to_numpy(dtype=np.float64) for each in bars]
    differs = ~np.isclose(values[0], values[1], rtol=SAME, atol=1e-12, equal_nan=True)
    rows = np.flatnonzero(differs.any(axis=1))
    if len(rows) == 0:
        return None
    row = int(rows[0])
    return Difference(
        time=core.format_time(int(index[row].value)),
        values={
            columns[k]: (float(values[0][row, k]), float(values[1][row, k]))
            for k in np.flatnonzero(differs[row]).tolist()
        },
    )


def tabulate_difference(pair: Pair, found: Difference) -> Table:
    rows = {
        name.replace("_", " "): {"first": first, "second": second}
        for name, (first, second) in found.values.items()
    }
    heads = {"first": Head("first", "", "money"), "second": Head("second", "", "money")}
    note = f"The bar that opens at {found.time} UTC. {name_both(pair)}"
    return write_table(ShownTable(rows, "First bar that differs", note, Head("column"), heads))
