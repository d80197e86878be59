"""What a study declares: the best trial, its search, and its selection bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.number_text import STYLES, Head
from backtest.core.result_parts import (
    Headline,
    Part,
    Shown,
    ShownChart,
    ShownTable,
)
from backtest.report.explored_sets import explore_study, format_explored
from backtest.report.page import format_measure, format_span, list_heads
from backtest.report.set_parts import draw_map, list_landscape
from backtest.report.write import draw_chart
from backtest.results import (
    find_cautions,
    name_measure,
)
from backtest.results.measure_table import ABOUT
from backtest.results.run_record import EXTRAPOLATED, describe_short, shows_growth
from backtest.search import Study
from backtest.search.equal_risk import CONSTANT
from backtest.search.growth_test import OWN
from backtest.search.signal_shifts import SignalTest
from backtest.search.winner import Verdict

WORTH_A_FOREST = 500
"""Least trials of a study whose page shows the importance of parameters."""
HARDLY = 0.1
"""Mean leverage under which an account is hardly invested."""


def draw_study_map(study: Study) -> Any:
    """Return a map over the first two parameters that were varied, or an empty figure."""
    explored = explore_study(study)
    if len(explored.varied) < 2:
        return draw_chart(ShownChart("", "", "", None))
    x, y = explored.varied[:2]
    return draw_chart(draw_map(explored, x, y))


# The sentences of a study.


def write_study_title(study: Study) -> str:
    sets = core.count_nouns(study.trials, "parameter set")
    return f"{study.policy_name}: {sets} searched for the best {name_measure(study.objective)}"


def write_study_details(study: Study) -> str:
    """Return the best set, its outcome in the search and on the holdout, and what limits both."""
    if study.best_trial < 0:
        return ""
    sentences = [core.capitalize(remark) for remark in study.list_remarks()]

    explored = explore_study(study)
    values = study.best_values.items()
    parameters = ", ".join(f"{name} = {core.format_value(value)}" for name, value in values)
    outcome = format_explored(explored, explored.values[study.best_trial])
    sentences.append(
        f"The best of {study.trials:,} parameter sets is {parameters}, with a "
        f"{name_measure(explored.name)} of {outcome} in the search."
    )
    verdict = study.verdict
    if verdict is not None and not math.isnan(verdict.holdout_score):
        holdout = format_holdout(study)
        sentences.append(f"On the holdout, outside the search, it is {holdout}.")

    data = study.manifest["data"]
    searched = study.manifest["searched"]
    sentences.append(describe_short(data["start"], searched, " of the search"))
    sentences.append(describe_short(searched, data["end"], " on the holdout"))

    constraints = name_constraints(study.manifest)
    if constraints:
        sentences.append(f"Subject to {constraints}.")
    pool = study.manifest.get("pool")
    if pool:
        n_markets = len(data["instruments"])
        sentences.append(
            f"Accounts: one in each of {n_markets} markets; measures are their {pool}."
        )
    return " ".join(filter(None, sentences))


def list_study_notices(study: Study) -> Iterator[str]:
    if not study.complete:
        cure = "nothing of it is stored"
        if study.folder is not None:
            cure = "it can be resumed"
        yield f"UNFINISHED: the best so far, by its own score; {cure}."

    if study.trials and study.best_trial < 0:
        yield "No parameter set can be chosen."
    elif study.trials:
        idle = describe_idle(study)
        if idle:
            yield idle

    if study.best_trial >= 0:
        cautions = find_cautions(study.table.iloc[study.best_trial])
        if cautions:
            yield f"The chosen set has {cautions} in the search."
    if study.trials:
        unfilled = study.count_unfilled()
        if unfilled:
            yield f"{unfilled:,} of {study.trials:,} parameter sets filled no order."

    # The name of a parameter stays as it is.
    dimensions = study.manifest["space"]["dimensions"]
    starts = tuple(f"{dimension['name']} =" for dimension in dimensions)
    for warning in study.warnings:
        if warning.startswith(starts):
            yield f"{warning}."
        else:
            yield f"{core.capitalize(warning)}."


def describe_idle(study: Study) -> str:
    """Return that the best trial was hardly invested, empty if it was."""
    held = measure_held(study)
    if not held < HARDLY:
        return ""
    return (
        f"Hardly invested: the best trial held a mean leverage of {held:.3f}x in the search. "
        "Its ratios are those of an account that is mostly cash."
    )


def name_constraints(facts: Mapping[str, Any]) -> str:
    return ", ".join(facts["constraints"]).replace("ruined == 0", "no ruin")


def list_study_assumptions(study: Study) -> tuple[str, ...]:
    facts = study.manifest
    searched = format_span({**facts["data"], "end": facts["searched"]})
    rest = "no holdout"
    if facts["holdout"]:
        rest = f"the rest ({facts['holdout']}) is the holdout"

    limits = []
    if facts["trials"] is not None:
        limits.append(f"{facts['trials']:,} trials")
    if facts["seconds"] is not None:
        limits.append(f"{facts['seconds']:g} s")
    if "patience" in facts:
        limits.append(f"{facts['patience']:,} without a gain")

    choice = "the highest objective"
    if facts["robust"]:
        choice = "plateaus before spikes"
    return (
        f"Searched on {searched}; {rest}. Subject to {name_constraints(facts)}.",
        f"Sampler: {facts['sampler']} for {' or '.join(limits)} at most, seed {facts['seed']}; "
        f"{choice}.",
    )


# Its figures.


def list_study_numbers(study: Study) -> list[Headline]:
    if not study.trials or study.best_trial < 0:
        return [Headline("sets", "Sets", study.trials, "count", "none can be chosen")]

    explored = explore_study(study)
    best = float(explored.values[study.best_trial])
    numbers = [
        Headline(
            name="best",
            title=f"Best {name_measure(explored.name)}",
            value=best,
            note="search",
            text=format_explored(explored, best),
        ),
        describe_held(study),
    ]
    verdict = study.verdict
    if verdict is None:
        return numbers
    return [
        *numbers,
        Headline(
            name="holdout",
            title="On the holdout",
            value=verdict.holdout_score,
            note=describe_looks(verdict.looks),
            text=format_holdout(study),
        ),
        Headline(
            name="deflated_sharpe",
            title="Deflated Sharpe ratio",
            value=verdict.deflated_sharpe,
            style="probability",
            note="of the difference from constant leverage",
        ),
        Headline(
            name="overfitting",
            title="Overfitting",
            value=verdict.overfitting,
            style="decimals",
            note="probability that the best is no better than the median",
        ),
    ]


def measure_held(study: Study) -> float:
    """Return the mean leverage of the best trial in the search; NaN of an unfinished study."""
    if study.outcome is None or not study.outcome.lines:
        return math.nan
    return float(study.outcome.lines[0][OWN]["mean_leverage"])


def describe_held(study: Study) -> Headline:
    held = measure_held(study)
    note = "hardly invested" if held < HARDLY else "of the best trial, in the search"
    return Headline(
        "mean_leverage",
        "Mean leverage",
        held,
        "turns",
        note,
    )


def describe_looks(looks: int | None) -> str:
    """Return how often the holdout was looked at; None of a study without a store."""
    if looks is None:
        return "accesses not counted: no store"
    if looks == 0:
        return "never accessed"
    if looks == 1:
        return "accessed once"
    return f"accessed {looks:,} times"


def format_holdout(study: Study) -> str:
    name = study.objective
    outcome = study.outcome
    if outcome is not None and name in outcome.holdout:
        return format_measure(name, outcome.holdout[name])
    if study.verdict is None:
        return core.format_number(math.nan)
    return core.format_number(study.verdict.holdout_score)


# Its parts, in the order of the page.


def list_study_parts(study: Study) -> list[Part]:
    if not study.trials:
        return []
    parts = [
        Part(
            key="equity",
            title="The best trial over time",
            lead=("In the search, and after the line on the holdout, which was not searched."),
            blocks=lambda: [*draw_winner(study)],
        ),
        Part(
            key="winner",
            title="Best trial",
            lead="In the search, and where it was not searched.",
            blocks=lambda: list_winner(study),
            shows="both",
        ),
        Part(
            key="verdict",
            title="Selection bias",
            lead="What the best trial is worth, given the number of trials.",
            blocks=lambda: list_luck(study),
            shows="both",
        ),
    ]
    explored = explore_study(study)
    search = list_search_parts(study)
    return [*parts, *list_landscape(explored, study.curves, "study.table", *search)]


def list_search_parts(study: Study) -> list[Part]:
    history = Part(
        key="history",
        title="History of the search",
        lead="Scores in the order of the trials.",
        blocks=lambda: [draw_history(study)],
        is_half=True,
    )
    if study.trials < WORTH_A_FOREST:
        return [history]

    importance = Part(
        key="importance",
        title="Which parameters matter",
        lead="Share of the variance of the score over the declared ranges.",
        blocks=lambda: list_importance(study),
        is_half=True,
    )
    return [history, importance]


def draw_winner(study: Study) -> Iterator[ShownChart]:
    """Yield the equity of the best trial beside constant leverage, over search and holdout."""
    if study.curves is None:
        return

    # A line where the holdout begins, if the curves show both sides of it.
    split = core.to_nanoseconds(study.manifest["searched"], "searched")
    start, end = pd.DatetimeIndex(study.curves.index).as_unit("ns").asi8[[0, -1]]
    lines: tuple[tuple[int, str], ...] = ()
    if start < split < end:
        lines = ((split, "holdout"),)

    names = [name for name in (OWN, CONSTANT) if name in study.curves]
    yield ShownChart(
        key="equity",
        title="The best trial over time",
        caption=(
            "One unit of money. Constant leverage has the costs and the volatility of the best "
            "trial, in the search and on the holdout each; where none has it, there is no line."
        ),
        table=study.curves[names],
        kind="accounts",
        colors={OWN: "accent", CONSTANT: "neutral"},
        has_legend=True,
        height=400,
        lines=lines,
    )


def draw_history(study: Study) -> ShownChart:
    """Draw the scores of the trials in their order, and the best so far."""
    table = study.table
    score = table["score"].to_numpy(dtype=np.float64)
    is_feasible = (table["violation"].to_numpy() == 0.0) & np.isfinite(score)
    known = np.where(is_feasible, score, np.nan)
    best = known
    if len(known):
        best = np.fmax.accumulate(known)

    measure = name_measure(study.objective)
    n_left_out = int(np.sum(~is_feasible))
    columns = {measure: known, "best so far": best}
    return ShownChart(
        key="history",
        title="History of the search",
        caption=(
            "The line is the best so far; the lowest twentieth lies below the chart. "
            f"{n_left_out:,} of {len(score):,} trials are not drawn: "
            "they were ruined, failed, filled no order or break a constraint."
        ),
        table=pd.DataFrame(columns, index=np.arange(1, len(score) + 1)),
        kind="history",
        colors={measure: "step_3", "best so far": "accent"},
        x="trial",
        y=measure,
        height=320,
    )


def list_importance(study: Study) -> list[Shown]:
    try:
        table = study.importance()
    except core.ParameterError as error:  # scores do not differ
        return [f"{core.capitalize(str(error))}."]

    bars = 100.0 * table["share"].rename_axis(["parameters"])
    bars.index = pd.MultiIndex.from_product([bars.index, [1]])
    chart = ShownChart(
        key="importance",
        title="Importance",
        caption="% of the variance.",
        table=bars,
        kind="tornado",
    )
    heads = {
        "share": Head("share", "of the variance", "percent"),
        "noise": Head("of permuted scores", "largest of 19", "percent"),
        "is_over_noise": Head("over it", "", "claim"),
    }
    return [chart, ShownTable(table, labels=Head("parameters"), heads=heads)]


class Finding(NamedTuple):
    """A number of the selection bias, how it is written, and what it is."""

    name: str
    value: float
    style: str
    about: str


def list_luck(study: Study) -> list[Shown]:
    """Return a table of what the best trial is worth, without numbers that are unknown."""
    verdict = study.verdict
    if verdict is None or study.best_trial < 0:
        return ["No verdict: the study is unfinished, or no set can be chosen."]

    n_candidates = 0
    if study.outcome is not None:
        n_candidates = len(study.outcome.candidates)
    findings = [
        *list_trial_luck(verdict),
        *list_plateau_luck(verdict, n_candidates),
        Finding(
            name="objective on the holdout",
            value=verdict.holdout_score,
            style="decimals",
            about="outside the search",
        ),
    ]

    rows = {}
    for finding in findings:
        if math.isfinite(finding.value):
            text = STYLES[finding.style](finding.value)
            rows[finding.name] = {"value": text, "what it is": finding.about}
    heads = {"value": Head("value", "", "decimals")}
    return [ShownTable(rows, caption="Selection bias", heads=heads)]


def list_trial_luck(verdict: Verdict) -> Iterator[Finding]:
    """Yield how many sets were tried, and what that many find by chance."""
    yield Finding(
        name="parameter sets tried",
        value=verdict.trials,
        style="count",
        about="in this study",
    )
    if verdict.other_trials:
        where = "in other searches of the store on some of the same bars"
        if verdict.other_policies:
            where = f"{where}: {', '.join(verdict.other_policies)}"
        yield Finding(
            name="parameter sets tried elsewhere",
            value=verdict.other_trials,
            style="count",
            about=where,
        )

    growth = verdict.growth
    yield Finding(
        name="log growth over constant leverage",
        value=growth.difference,
        style="percent",
        about="a year, at equal risk, over search and holdout",
    )
    yield Finding(
        name="p-value, adjusted",
        value=growth.p_adjusted,
        style="p-value",
        about=f"of that difference, for its {growth.trials:,.0f} independent differences",
    )
    signal = verdict.signal or SignalTest()
    yield Finding(
        name="p-value of shifts in time",
        value=signal.p_value,
        style="p-value",
        about=f"share of {signal.shifts:,} shifts whose best set is as good",
    )

    yield Finding(
        name="independent trials",
        value=verdict.effective_trials,
        style="count",
        about="by how these differences correlate",
    )
    yield Finding(
        name="expected maximum Sharpe",
        value=verdict.lucky_sharpe,
        style="decimals",
        about="of that many trials under the null",
    )
    yield Finding(
        name="deflated Sharpe ratio",
        value=verdict.deflated_sharpe,
        style="probability",
        about="of the returns less those of constant leverage",
    )
    yield Finding(
        name="probability of backtest overfitting (CSCV)",
        value=verdict.overfitting,
        style="decimals",
        about="how often the best of one half of time was no better than the median in the other",
    )


def list_plateau_luck(verdict: Verdict, n_candidates: int) -> Iterator[Finding]:
    """Yield whether the chosen set lies on a plateau, compared with the highest candidate."""
    yield Finding(
        name="objective of the chosen set",
        value=verdict.score,
        style="decimals",
        about="its own",
    )
    yield Finding(
        name="median of its neighbors",
        value=verdict.plateau,
        style="decimals",
        about="near its own on a plateau",
    )

    if n_candidates > 1:
        about = f"objective of {n_candidates} candidates"
        if math.isfinite(verdict.plain_plateau):
            median = core.format_number(verdict.plain_plateau)
            about = f"{about}; the median of the neighbors there is {median}"
        yield Finding(
            name="highest",
            value=verdict.plain_score,
            style="decimals",
            about=about,
        )

    yield Finding(
        name="neighbors within constraints",
        value=verdict.kept,
        style="percent",
        about="",
    )


# The best trial, and its benchmarks.

COMPARED = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "max_drawdown",
    "calmar",
    "turnover",
    "liquidations",
)
"""Measures of the best trial and of its benchmarks."""
SPANS = ("search", "holdout")


def list_winner(study: Study) -> list[Shown]:
    return [
        tabulate_winner_parameters(study),
        tabulate_winner_measures(study),
        tabulate_benchmarks(study),
    ]


def tabulate_winner_parameters(study: Study) -> ShownTable:
    space = study.manifest["space"]
    values = study.best_values if study.best is not None else {}
    rows = {}
    for dimension in space["dimensions"]:
        name = dimension["name"]
        value = core.format_value(values.get(name))
        rows[name] = {"value": value, "searched": describe_range(dimension)}
    for name, value in space.get("fixed", {}).items():
        rows[name] = {"value": core.format_value(value), "searched": "fixed"}

    return ShownTable(
        rows if values else None,
        caption="Parameters of the best trial",
        labels=Head("parameter"),
        heads=list_heads("decimals", ("value",), unit=""),
    )


def describe_range(dimension: Mapping[str, Any]) -> str:
    if dimension["kind"] in ("float", "int"):
        span = f"{dimension['low']:g} to {dimension['high']:g}"
    else:
        span = ", ".join(map(str, dimension["options"]))
    if dimension["log"]:
        return f"{span}, log"
    return span


def tabulate_winner_measures(study: Study) -> ShownTable:
    """Show the measures of the best trial in the search and on the holdout."""
    best = {} if study.best is None else dict(study.best)
    columns: dict[str, Any] = {"search": best}
    caption = "Best trial"
    note = ""
    if study.outcome is not None and study.outcome.holdout:
        columns["holdout"] = study.outcome.holdout
        caption = "Best trial, search and holdout"
        note = "The account begins with fresh capital at the first bar of the holdout."

    names = list_winner_measures(study, best)
    measured = pd.DataFrame(columns).loc[names]
    hidden = find_short_parts(study)
    for span in columns:
        unknown = [name for name in hidden[span] if name in names]
        measured.loc[unknown, span] = math.nan
    return ShownTable(
        measured if names else None,
        caption=caption,
        note=note,
        labels=Head("measure"),
        heads=list_heads("decimals", SPANS, unit=""),
        has_measures=True,
    )


def list_winner_measures(study: Study, best: Mapping[str, Any]) -> list[str]:
    """Return the measures that are compared, those of objective and constraints last."""
    names = [*COMPARED]
    for words in (study.objective, *study.manifest["constraints"]):
        name, _, _ = words.removeprefix("-").partition(" ")
        names.append(name)
    return [name for name in dict.fromkeys(names) if name in ABOUT and name in best]


def find_short_parts(study: Study) -> dict[str, tuple[str, ...]]:
    """Return the measures that are not shown of the search, and of the holdout."""
    hidden: dict[str, tuple[str, ...]] = {}
    for span, days in zip(SPANS, study.days_of_parts, strict=True):
        hidden[span] = ()
        if not shows_growth(days):
            # A search by growth has no other score to show.
            hidden[span] = tuple(name for name in EXTRAPOLATED if name not in study.objective)
    return hidden


def tabulate_benchmarks(study: Study) -> ShownTable:
    """Show the best trial beside constant leverage and the market, of each span."""
    measures = COMPARED[1:]
    hidden = find_short_parts(study)
    sentences = [
        "Constant leverage has the signal, the costs and the volatility of the best trial; buy "
        "and hold is the unlevered market without costs."
    ]
    rows = {}
    if study.outcome is not None:
        # Without a holdout there is one span.
        for span, lines in zip(SPANS, study.outcome.lines, strict=False):
            for account, line in lines.items():
                shown = {**line, **dict.fromkeys(hidden[span], math.nan)}
                row = {measure: shown.get(measure, math.nan) for measure in measures}
                rows[f"{account}, {span}"] = row

        places = ("in the search", "on the holdout")
        for place, lack in zip(places, study.outcome.lacks, strict=False):
            if lack:
                sentences.append(f"There is no constant leverage {place}: {lack}.")

    return ShownTable(
        rows or None,
        caption="Against its benchmarks",
        note=" ".join(sentences),
        labels=Head("account"),
        columns=measures,
    )
