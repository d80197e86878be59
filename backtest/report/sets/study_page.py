"""The report page of a study: what the search found, and how much of it is luck."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import (
    DataError,
    FloatArray,
    capitalize,
    format_number,
    format_percent,
    format_probability,
    format_span,
    format_value,
)
from backtest.measures import find_cautions, name_measure, read_risk_name
from backtest.measures.measure_table import ABOUT
from backtest.report.basis.assumptions import build_assumptions
from backtest.report.basis.data_quality import NOTHING, Background
from backtest.report.page.figures import build_chart, build_layout, draw_line, draw_points
from backtest.report.page.page import (
    SYNTHETIC,
    Block,
    Chart,
    Fact,
    Page,
    Paragraph,
    Section,
    Table,
    name_columns,
)
from backtest.report.page.report_numbers import format_measure
from backtest.report.sets.explored import Explored, Importance, explore_study, measure_importance
from backtest.report.sets.sweep_page import (
    build_landscape,
    build_plateau,
    format_explored,
    list_sets,
)
from backtest.tune import (
    describe_budget,
    describe_deflated,
    describe_overfitting,
    find_measures,
    name_evidence,
    name_short,
    write_verdict,
)

if TYPE_CHECKING:
    from backtest.tune import Study, Verdict

MOST_POINTS = 3000
COMPARED = (
    "total_return", "cagr", "volatility", "sharpe", "max_drawdown", "calmar", "turnover",
    "liquidations",
)  # fmt: skip


def build_study(study: Study, background: Background = NOTHING) -> Page:
    if not study.trials:
        raise DataError(
            "a report of a study needs at least one set, this one evaluated none; continue it with "
            "bt.tune(resume=True)"
        )
    explored = explore_study(study)
    measure = functools.cache(lambda: measure_importance(explored))
    facts = study.facts
    return Page(
        kind="study",
        title=f"{facts['policy']['name']}: {study.trials:,} sets searched for the best "
        f"{' and '.join(study.objectives)}",
        manifest=facts,
        notices=list_study_notices(study),
        summary=summarize_study(study, explored),
        facts=list_study_facts(study, explored),
        write_sections=lambda: build_study_sections(study, explored, measure(), background),
        collect=lambda: collect_study_numbers(study, measure()),
    )


def build_study_sections(
    study: Study, explored: Explored, found: Importance | None, background: Background
) -> list[Section]:
    folder = str(study.facts["id"]) if study.folder is None else study.folder.resolve().name
    return [
        build_luck(study),
        Section("search", "How the search went", "Every trial in its order, and the best so far.",
                [draw_search(study, explored),
                 Paragraph(f"Sampler: {describe_budget(study.facts)}.", "note"),
                 *([Paragraph(f"{study.spending}.", "note")] if study.spending else [])]),
        *build_landscape(explored, found),
        build_plateau(explored),
        Section("trials", "Trials", "Search by any word or number.",
                [list_sets(explored, caption_trials(study), "study.table")]),
        *build_assumptions(study.manifest, [folder], (describe_parts(study),), background),
    ]  # fmt: skip


def caption_trials(study: Study) -> str:
    first = "the chosen one first, then " if study.best_trial >= 0 else ""
    return f"Sets, {first}by their own score"


def describe_parts(study: Study) -> str:
    facts = study.facts
    constraints = ", ".join(facts["constraints"])
    kept = f"the rest ({facts['holdout']}) is the holdout" if facts["holdout"] else "no holdout"
    searched = format_span({**facts["data"], "end": facts["searched"]})
    return f"Searched on {searched}; {kept}. Sets must keep: {constraints}."


def list_study_notices(study: Study) -> list[str]:
    notices = [SYNTHETIC] if study.facts["data"]["synthetic"] else []
    if not study.complete:
        notices.append("Unfinished: the best so far, by its own score.")
    if study.best_trial < 0:
        notices.append("No set keeps the constraints.")
    elif cautions := find_cautions(study.table.iloc[study.best_trial]):
        notices.append(f"The chosen set has {cautions} in the search.")
    names = tuple(f"{each['name']} =" for each in study.facts["space"]["dimensions"])
    said = (text if text.startswith(names) else capitalize(text) for text in study.warnings)
    return [*notices, *(f"{text}." for text in said)]


def summarize_study(study: Study, explored: Explored) -> str:
    lead = f"{capitalize(write_verdict(study))}."
    return lead if study.best_trial < 0 else f"{lead} {describe_winner(study, explored)}"


def describe_winner(study: Study, explored: Explored) -> str:
    values = ", ".join(f"{name} = {format_value(each)}" for name, each in study.best_values.items())
    found = format_explored(explored, explored.values[study.best_trial])
    text = (
        f"Of {study.trials:,} sets the chosen one is {values}, "
        f"with a {name_measure(explored.name)} of {found} in the search."
    )
    verdict = study.verdict
    if verdict is not None and not math.isnan(verdict.holdout_score):
        holdout = format_holdout_score(study, verdict)
        text += f" On the holdout, which the search never saw, it is {holdout}."
    return text


def format_holdout_score(study: Study, verdict: Verdict) -> str:
    name = study.objectives[0]
    holdout = {} if study.outcome is None else study.outcome.holdout
    if name in holdout:
        return format_measure(name, holdout[name])
    return format_number(verdict.holdout_score)


def list_study_facts(study: Study, explored: Explored) -> list[Fact]:
    verdict, what = study.verdict, name_measure(explored.name)
    if study.best_trial < 0:
        return [Fact("Sets", f"{study.trials:,}", "none keeps the constraints")]
    best = format_explored(explored, explored.values[study.best_trial])
    facts = [Fact(f"Best {what}", best, "search")]
    if verdict is not None:
        facts += [
            Fact("On the holdout", format_holdout_score(study, verdict),
                 f"looked at {count_looks(study)}"),
            Fact(name_short(study.facts), format_probability(verdict.deflated_sharpe),
                 "probability that it is more than luck"),
            Fact("Overfitting", format_number(verdict.overfitting),
                 "probability that the best is no better than the median"),
        ]  # fmt: skip
    return facts


def count_looks(study: Study) -> str:
    looks = 0 if study.verdict is None else study.verdict.looks
    return {0: "never", 1: "once"}.get(looks, f"{looks:,} times")


# --------------------------------------------------------------------------------------- the luck


def build_luck(study: Study) -> Section:
    lead = "What the winner is worth, given the number of trials."
    verdict = study.verdict
    if verdict is None or study.best_trial < 0:
        text = "The study is not finished, or no set keeps the constraints: there is no verdict."
        return Section("verdict", "How much of it is luck", lead, [Paragraph(text)])
    sentences = (
        describe_deflated(verdict.deflated_sharpe, name_evidence(study.facts)),
        describe_overfitting(verdict.overfitting),
    )
    blocks: list[Block] = [
        tabulate_verdict(study, verdict),
        *(Paragraph(f"{capitalize(each)}.") for each in sentences),
        tabulate_best(study),
        tabulate_settings(study),
    ]
    return Section("verdict", "How much of it is luck", lead, blocks)


def describe_elsewhere(verdict: Verdict) -> str:
    policies = ", ".join(verdict.other_policies)
    where = "in other searches of the store on some of the same bars"
    return f"{where}: {policies}" if policies else where


def tabulate_verdict(study: Study, verdict: Verdict) -> Table:
    is_pooled, short = study.facts.get("pool") == "mean", name_short(study.facts)
    rows = (
        ("sets tried", f"{verdict.trials:,}", "in this study"),
        ("sets tried elsewhere", f"{verdict.other_trials:,}", describe_elsewhere(verdict)),
        ("worth independent sets", format_number(verdict.effective_trials),
         "by the correlation of their returns"),
        ("Sharpe of the best", format_number(verdict.sharpe),
         "in the search" + ", of the mean of the markets' returns" * is_pooled),
        ("Sharpe of luck", format_number(verdict.lucky_sharpe),
         "to be expected of the best of so many without skill"),
        (short[0].lower() + short[1:], format_probability(verdict.deflated_sharpe),
         "probability that the true one is above that of luck"),
        ("probability of overfitting", format_number(verdict.overfitting),
         "how often the best of one half of time was no better than the median in the other"),
        ("objective of the best", format_number(verdict.score), "its own"),
        ("median of its neighbors", format_number(verdict.plateau), "a plateau is near its own"),
        ("highest objective found", format_number(verdict.plain_score),
         f"median of the neighbors there {format_number(verdict.plain_plateau)}"),
        ("neighbors that keep all constraints", format_percent(verdict.kept), ""),
        ("objective on the holdout", format_number(verdict.holdout_score), "never searched"),
    )  # fmt: skip
    return Table("Verdict", name_columns("", "value", "what it is", text=["what it is"]), rows)


def tabulate_best(study: Study) -> Table:
    known: dict[str, Any] = {} if study.best is None else dict(study.best)
    holdout = {} if study.outcome is None else study.outcome.holdout
    every = dict.fromkeys((*COMPARED, *find_measures(study)))
    names = [name for name in every if name in ABOUT or read_risk_name(name) is not None]
    rows = tuple(
        (
            name_measure(name),
            format_measure(name, float(known[name])),
            format_measure(name, holdout[name]) if name in holdout else "n/a",
        )
        for name in names
        if name in known
    )
    note = "The account begins with fresh capital at the first bar of the holdout."
    columns = name_columns("measure", "search", "holdout")
    return Table("The winner, searched and held out", columns, rows, note)


def tabulate_settings(study: Study) -> Table:
    values = study.best_values
    rows = []
    for each in study.facts["space"]["dimensions"]:
        name = each["name"]
        if each["kind"] in ("float", "int"):
            span = f"{each['low']:g} to {each['high']:g}"
        else:
            span = ", ".join(map(str, each["options"]))
        rows.append((name, format_value(values.get(name)), span + (", log" if each["log"] else "")))
    fixed = study.facts["space"].get("fixed", {})
    rows += [(name, format_value(value), "fixed") for name, value in fixed.items()]
    columns = name_columns("parameter", "value", "searched", text=["searched"])
    return Table("The winner's parameters", columns, tuple(rows))


# ------------------------------------------------------------------------------------- the search


def draw_search(study: Study, explored: Explored) -> Chart:
    values = explored.values
    sign = float(explored.better)
    kept = explored.is_kept & np.isfinite(values)
    running = np.fmax.accumulate(np.where(kept, sign * values, np.nan)) * sign
    rows = choose_points(values, kept, sign)
    steps = np.flatnonzero(np.diff(running, prepend=np.nan) != 0.0)
    steps = np.unique(np.append(steps[np.isfinite(running[steps])], len(running) - 1))
    traces = []
    for name, mine, color in (("excluded", ~kept, "neutral"), ("trial", kept, "step_3")):
        chosen = rows[mine[rows]]
        traces.append(
            draw_points(chosen.astype(np.float64), values[chosen], name, color, size=4,
                        showlegend=bool(len(chosen)),
                        hovertemplate="trial %{x:,}: %{y:.4g}<extra></extra>")
        )  # fmt: skip
    traces.append(
        draw_line(steps.astype(np.float64), running[steps], "best so far", showlegend=True,
                  line={"shape": "hv", "width": 1.6}, hovertemplate="best up to %{x:,}: %{y:.4g}")
    )  # fmt: skip
    if study.best_trial >= 0:
        best = study.best_trial
        traces.append(
            draw_points([best], [float(values[best])], "chosen", "loss", size=12, stroke=2,
                        symbol="circle-open", showlegend=True,
                        hovertemplate="chosen: %{y:.4g}<extra></extra>")
        )  # fmt: skip
    layout = build_layout(340, showlegend=True)
    layout["xaxis"]["title"] = {"text": "trial"}
    layout["yaxis"]["title"] = {"text": name_measure(explored.name)}
    layout["yaxis"]["range"] = find_axis_range(values[kept])
    caption = (
        f"{len(rows):,} of {len(values):,} trials. The chosen set is the one whose neighbors do "
        "best too, so it need not be the highest point. Gray trials break a constraint and are "
        "excluded; very poor ones lie below the chart."
    )
    return build_chart("search", "Objective over the search", caption, traces, layout)


def choose_points(values: FloatArray, kept: Any, sign: float) -> Any:
    n = len(values)
    if n <= MOST_POINTS:
        return np.arange(n)
    worth = np.where(kept, sign * values, -np.inf)
    best = np.argsort(-worth, kind="stable")[: MOST_POINTS // 3]
    return np.union1d(best, np.linspace(0, n - 1, MOST_POINTS - len(best)).astype(np.int64))


def find_axis_range(values: FloatArray) -> list[float] | None:
    if not len(values):
        return None
    low, high = (float(each) for each in np.quantile(values, (0.05, 1.0)))
    room = 0.06 * (high - low) or 1.0
    return [low - room, high + room]


def collect_study_numbers(study: Study, found: Importance | None) -> dict[str, Any]:
    return {
        "study": study.to_dict() | {"folder": None},
        "importance": None if found is None else found.table["importance"].to_dict(),
        "front": len(study.front) if len(study.objectives) > 1 else None,
    }
