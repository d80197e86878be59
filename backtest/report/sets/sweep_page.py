"""The report page of a sweep: the best sets, where they lie, and how wide the plateau is."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import capitalize, clip, format_number, format_percent, format_value, name_folder
from backtest.engine import count_unfilled
from backtest.measures import count_cautions, find_cautions, name_measure
from backtest.measures.measure_table import ABOUT
from backtest.report.basis.assumptions import build_assumptions
from backtest.report.basis.data_quality import NOTHING, Background
from backtest.report.page.page import (
    SYNTHETIC,
    Block,
    Fact,
    Page,
    Paragraph,
    SearchTable,
    Section,
    Table,
    name_columns,
)
from backtest.report.page.report_numbers import format_measure
from backtest.report.sets.explored import (
    EXPLAINS,
    Explored,
    Importance,
    explore_sweep,
    find_neighbors,
    measure_importance,
)
from backtest.report.sets.set_charts import draw_importance, draw_map, draw_parallel, draw_profile

if TYPE_CHECKING:
    from backtest.sweep import Sweep

NO_HOLDOUT = (
    "A sweep has no holdout: its best set is chosen and measured on the same prices. "
    "backtest tune estimates how much of that is luck."
)
UNMEASURED = "Too few sets, or one parameter only: importance is not measured."
UNEXPLAINED = "The forest explains almost nothing: the order means nothing."
TOP = 10
MAPS = 3
PROFILES = 8
LISTED = 500
MARKING = ("ruined", "ruin_time", "cagr", "max_drawdown")
SHOWN = ("sharpe", "total_return", "max_drawdown", "turnover", "liquidations")


def build_sweep(sweep: Sweep, background: Background = NOTHING) -> Page:
    explored = explore_sweep(sweep, background.objective)
    measure = functools.cache(lambda: measure_importance(explored))
    sets = f"{len(sweep.table):,} sets of {', '.join(sweep.parameters)}"
    return Page(
        kind="sweep",
        title=clip(f"{sweep.manifest['policy']['name']}: {sets}", 200),
        manifest=sweep.manifest,
        notices=list_sweep_notices(sweep, explored),
        summary=summarize_sweep(explored),
        facts=list_sweep_facts(explored),
        write_sections=lambda: build_sweep_sections(sweep, explored, measure(), background),
        collect=lambda: collect_sweep_numbers(sweep, explored, measure()),
    )


def build_sweep_sections(
    sweep: Sweep, explored: Explored, found: Importance | None, background: Background
) -> list[Section]:
    folder = name_folder(f"sweep {sweep.manifest['policy']['name']}", sweep.manifest["id"])
    more = () if explored.name == "sharpe" else ("--objective", explored.name)
    lead = f"Ranked by {name_measure(explored.name)}; ruined sets stand last."
    if caution := count_cautions(read_rows(explored, TOP)):
        lead += f" {capitalize(caution)}: see their notes."
    return [
        Section("best", "The best sets", lead, [tabulate_sets("Best sets", explored, TOP)]),
        *build_landscape(explored, found),
        build_plateau(explored),
        Section("sets", "All sets", "Search by any word or number.",
                [list_sets(explored, "Sets by rank", "sweep.table")]),
        *build_assumptions(sweep.manifest, [folder, *more], (describe_sets(sweep), NO_HOLDOUT),
                           background),
    ]  # fmt: skip


def describe_sets(sweep: Sweep) -> str:
    drawn, asked = sweep.manifest["drawn"], sweep.manifest["sets"]["asked"]
    how = f"drawn by {drawn['method']}, seed {drawn['seed']}" if drawn else "given"
    return f"{asked:,} sets were {how}; {len(sweep.table):,} were run."


def list_sweep_notices(sweep: Sweep, explored: Explored) -> list[str]:
    notices = [SYNTHETIC] if sweep.manifest["data"]["synthetic"] else []
    if not sweep.complete:
        notices.append(f"Interrupted: {len(sweep.table):,} of {sweep.manifest['sets']['asked']:,} "
                       "sets were run.")  # fmt: skip
    if explored.is_ruined[explored.best]:
        notices.append("Every set was ruined; the best is the one that lived longest.")
    unfilled = count_unfilled(sweep.metrics)
    if unfilled:
        notices.append(f"{unfilled:,} of {len(sweep.table):,} sets filled no order.")
    return notices


def summarize_sweep(explored: Explored) -> str:
    best, what = explored.best, name_measure(explored.name)
    settings = ", ".join(
        f"{name} = {format_value(explored.table[name].iloc[best])}" for name in explored.varied
    )
    near = find_neighbors(explored)
    count, median = int(near.sum()), format_median(explored, near)
    beside = f"The {count:,} sets near it have a median of {median}."
    if count == 1:
        beside = f"The one set near it has {median}."
    if not np.isfinite(explored.values[near]).any():
        beside = "No other set is near it."
    return (
        f"The best {what} of {len(explored.table):,} sets is "
        f"{format_explored(explored, explored.values[best])}, with {settings}. {beside}"
    )


def list_sweep_facts(explored: Explored) -> list[Fact]:
    near = find_neighbors(explored)
    best = format_explored(explored, explored.values[explored.best])
    around, overall = format_median(explored, near), format_median(explored)
    return [
        Fact(f"Best {name_measure(explored.name)}", best, "by its own score"),
        Fact("Near it", around, f"median of {near.sum():,}"),
        Fact("All sets", overall, f"median of {len(explored.table):,}"),
        Fact("Ruined", format_percent(explored.is_ruined.mean()),
             f"{explored.is_ruined.sum():,} ruined, {(~explored.is_kept).sum():,} failed"),
    ]  # fmt: skip


def format_median(explored: Explored, chosen: Any = slice(None)) -> str:
    known = explored.values[chosen][np.isfinite(explored.values[chosen])]
    return format_explored(explored, float(np.median(known)) if len(known) else np.nan)


def format_explored(explored: Explored, value: float) -> str:
    if explored.name in ABOUT:
        return format_measure(explored.name, float(value))
    return format_number(float(value))


# --------------------------------------------------------------------------------------- sections


def build_landscape(explored: Explored, found: Importance | None) -> Iterator[Section]:
    names = explored.varied if found is None else list(found.table.index)
    pairs = list(combinations(names[:3], 2))[:MAPS]
    if pairs:
        lead = "Where good sets lie, by the parameters that matter most."
        maps = [draw_map(explored, x, y) for x, y in pairs]
        yield Section("map", "Where the best lie", lead, maps)
    blocks: list[Block] = (
        [Paragraph(UNMEASURED, "note")] if found is None else [draw_importance(found)]
    )
    if found is not None and found.explained < EXPLAINS:
        blocks.append(Paragraph(UNEXPLAINED, "note"))
    blocks += [draw_profile(explored, name) for name in names[:PROFILES]]
    if len(names) > 1:
        blocks.append(draw_parallel(explored))
    lead = "Which parameters matter, and how the measure changes along each."
    yield Section("parameters", "What matters", lead, blocks)


def build_plateau(explored: Explored) -> Section:
    near = find_neighbors(explored)
    lead = "Whether the best set is one of many good ones, or alone."
    if not near.any():
        text = "No other set is near the best: whether it is a plateau or a spike cannot be told."
        return Section("plateau", "The plateau around the best", lead, [Paragraph(text)])
    columns = name_columns(
        "sets", "count", "lowest", "a tenth below", "median", "a tenth above", "highest", "ruined"
    )
    groups = {
        "the best": np.arange(len(near)) == explored.best,
        "its neighbors": near,
        "all": np.ones(len(near), dtype=np.bool_),
    }
    rows = tuple((name, *describe_group(explored, chosen)) for name, chosen in groups.items())
    note = (
        "Neighbors differ from the best by at most a tenth of the range covered, or one step of "
        "the grid, in every parameter. A best far above its neighbors sits on a spike: it may be "
        "chance."
    )
    table = Table(f"{name_measure(explored.name)} around the best", columns, rows, note)
    return Section("plateau", "The plateau around the best", lead, [table])


def describe_group(explored: Explored, chosen: Any) -> list[str]:
    values = explored.values[chosen]
    known = values[np.isfinite(values)]
    levels = (0.0, 0.1, 0.5, 0.9, 1.0)
    spread = np.quantile(known, levels) if len(known) else np.full(len(levels), np.nan)
    ruined = format_percent(float(explored.is_ruined[chosen].mean()))
    return [f"{chosen.sum():,}", *(format_explored(explored, each) for each in spread), ruined]


def tabulate_sets(caption: str, explored: Explored, count: int) -> Table:
    measures = [name for name in dict.fromkeys((explored.name, *SHOWN)) if name in explored.table]
    words = [name for name in explored.parameters if explored.table[name].dtype.kind not in "fiu"]
    notes = [find_cautions(row) for row in read_rows(explored, count)]
    columns = name_columns(
        "rank",
        *((name, str(facts["unit"])) for name, facts in explored.parameters.items()),
        *map(name_measure, measures),
        *(["note"] if any(notes) else []),
        text=[*words, "note"],
    )
    chosen = explored.order[:count]
    table = explored.table.iloc[chosen]
    texts = [
        [format_value(value) for value in table[name].tolist()] for name in explored.parameters
    ]
    texts += [[format_measure(name, float(v)) for v in table[name].tolist()] for name in measures]
    texts += [notes] if any(notes) else []
    ranks = (str(place) for place in range(1, len(chosen) + 1))
    return Table(caption, columns, tuple(zip(ranks, *texts, strict=True)))


def read_rows(explored: Explored, count: int) -> list[dict[Any, float]]:
    names = [name for name in MARKING if name in explored.table]
    return explored.table[names].iloc[explored.order[:count]].to_dict("records")


def list_sets(explored: Explored, caption: str, whole: str) -> SearchTable:
    table = tabulate_sets(caption, explored, LISTED)
    total = len(explored.table)
    note = (
        f"All {total:,} sets."
        if total <= LISTED
        else f"The best {LISTED} of {total:,} sets. All of them are in {whole}."
    )
    return SearchTable(table._replace(note=note), ())


def collect_sweep_numbers(
    sweep: Sweep, explored: Explored, found: Importance | None
) -> dict[str, Any]:
    best = explored.table.iloc[explored.order[:TOP]]
    return {
        "objective": explored.name,
        "sets": len(explored.table),
        "ruined": int(explored.is_ruined.sum()),
        "best": [{**row, "note": find_cautions(row)} for row in best.to_dict("records")],
        "neighbours": explored.values[find_neighbors(explored)],
        "importance": None if found is None else found.table["importance"].to_dict(),
        "explained": None if found is None else found.explained,
        "manifest": sweep.manifest,
    }
