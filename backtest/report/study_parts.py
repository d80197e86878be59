"""What a study declares: the best trial, its search, and its selection bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

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
from backtest.search import GrowthTest, Study
from backtest.search.equal_risk import CONSTANT
from backtest.search.growth_test import OWN
from backtest.search.signal_shifts import SignalTest

WORTH_A_FOREST = 500
"""Least trials of a study whose page shows the importance of parameters."""


HARDLY = 0.1
"""Mean leverage under which an account is hardly invested."""


def draw_study_map(study: Study) -> Any:
    explored = explore_study(study)
    pair = explored.varied[:2]
    return draw_chart(draw_map(explored, *pair) if len(pair) == 2 else ShownChart("", "", "", None))


COMPARED = (
    "total_return", "cagr", "volatility", "sharpe", "max_drawdown", "calmar", "turnover",
    "liquidations",
)  # fmt: skip


def write_study_title(study: Study) -> str:
    sets = core.count_nouns(study.trials, "parameter set")
    return f"{study.policy_name}: {sets} searched for the best {name_measure(study.objective)}"


def write_study_details(study: Study) -> str:
    if study.best_trial < 0:
        return ""
    remarks = " ".join(map(core.capitalize, study.list_remarks()))
    explored, verdict = explore_study(study), study.verdict
    values = ", ".join(f"{x} = {core.format_value(each)}" for x, each in study.best_values.items())
    found = format_explored(explored, explored.values[study.best_trial])
    text = (
        f"The best of {study.trials:,} parameter sets is {values}, with a "
        f"{name_measure(explored.name)} of {found} in the search."
    )
    if verdict is not None and not math.isnan(verdict.holdout_score):
        text += f" On the holdout, outside the search, it is {format_holdout(study)}."
    data, searched = study.manifest["data"], study.manifest["searched"]
    parts = {
        " of the search": (data["start"], searched),
        " on the holdout": (searched, data["end"]),
    }
    text += "".join(f" {describe_short(*span, of)}".rstrip() for of, span in parts.items())
    if kept := name_constraints(study.manifest):
        text += f" Subject to {kept}."
    if pool := study.manifest.get("pool"):
        count = len(study.manifest["data"]["instruments"])
        text += f" Accounts: one in each of {count} markets; measures are their {pool}."
    return f"{remarks} {text}".lstrip()


def list_study_notices(study: Study) -> Iterator[str]:
    if not study.complete:
        more = "; it can be resumed" if study.folder is not None else "; nothing of it is stored"
        yield f"UNFINISHED: the best so far, by its own score{more}."
    if study.trials and study.best_trial < 0:
        yield "No parameter set can be chosen."
    elif study.trials and (idle := describe_idle(study)):
        yield idle
    if study.best_trial >= 0 and (cautions := find_cautions(study.table.iloc[study.best_trial])):
        yield f"The chosen set has {cautions} in the search."
    if study.trials and (unfilled := study.count_unfilled()):
        yield f"{unfilled:,} of {study.trials:,} parameter sets filled no order."
    names = tuple(f"{each['name']} =" for each in study.manifest["space"]["dimensions"])
    for text in study.warnings:
        yield f"{text if text.startswith(names) else core.capitalize(text)}."


def describe_idle(study: Study) -> str:
    """Return that the best trial was hardly invested, empty if it was."""
    held = measure_held(study)
    if not held < HARDLY:
        return ""
    return (
        f"Hardly invested: the best trial held a mean leverage of {held:.3f}x in the search. Its "
        f"ratios are those of an account that is mostly cash."
    )


def name_constraints(facts: Mapping[str, Any]) -> str:
    return ", ".join(facts["constraints"]).replace("ruined == 0", "no ruin")


def list_study_assumptions(study: Study) -> tuple[str, ...]:
    facts = study.manifest
    kept = f"the rest ({facts['holdout']}) is the holdout" if facts["holdout"] else "no holdout"
    searched = format_span({**facts["data"], "end": facts["searched"]})
    trials, seconds = facts["trials"], facts["seconds"]
    limits = [f"{trials:,} trials"] if trials is not None else []
    limits += [f"{seconds:g} s"] if seconds is not None else []
    limits += [f"{facts['patience']:,} without a gain"] if "patience" in facts else []
    how = "plateaus before spikes" if facts["robust"] else "the highest objective"
    return (
        f"Searched on {searched}; {kept}. Subject to {name_constraints(facts)}.",
        f"Sampler: {facts['sampler']} for {' or '.join(limits)} at most, seed {facts['seed']}; "
        f"{how}.",
    )


def list_study_numbers(study: Study) -> list[Headline]:
    if not study.trials or study.best_trial < 0:
        return [Headline("sets", "Sets", study.trials, "count", "none can be chosen")]
    explored, verdict = explore_study(study), study.verdict
    best = float(explored.values[study.best_trial])
    found = [Headline("best", f"Best {name_measure(explored.name)}", best, note="search",
                      text=format_explored(explored, best))]  # fmt: skip
    found.append(describe_held(study))
    if verdict is not None:
        found += [
            Headline("holdout", "On the holdout", verdict.holdout_score,
                     note=describe_looks(verdict.looks), text=format_holdout(study)),
            Headline("deflated_sharpe", "Deflated Sharpe ratio", verdict.deflated_sharpe,
                     "probability", "of the difference from constant leverage"),
            Headline("overfitting", "Overfitting", verdict.overfitting, "decimals",
                     "probability that the best is no better than the median"),
        ]  # fmt: skip
    return found


def measure_held(study: Study) -> float:
    """Return the mean leverage of the best trial in the search; NaN of an unfinished study."""
    lines = () if study.outcome is None else study.outcome.lines
    return float(lines[0][OWN]["mean_leverage"]) if lines else math.nan


def describe_held(study: Study) -> Headline:
    held = measure_held(study)
    note = "hardly invested" if held < HARDLY else "of the best trial, in the search"
    return Headline("mean_leverage", "Mean leverage", held, "turns", note)


def describe_looks(looks: int | None) -> str:
    if looks is None:
        return "accesses not counted: no store"
    if looks == 0:
        return "never accessed"
    return "accessed once" if looks == 1 else f"accessed {looks:,} times"


def format_holdout(study: Study) -> str:
    name, outcome = study.objective, study.outcome
    if outcome is not None and name in outcome.holdout:
        return format_measure(name, outcome.holdout[name])
    return core.format_number(math.nan if study.verdict is None else study.verdict.holdout_score)


def list_study_parts(study: Study) -> list[Part]:
    if not study.trials:
        return []
    explored = explore_study(study)
    luck = "What the best trial is worth, given the number of trials."
    parts = [
        Part("equity", "The best trial over time", "In the search, and after the line on the "
             "holdout, which was not searched.", lambda: [*draw_winner(study)]),
        Part("winner", "Best trial", "In the search, and where it was not searched.",
             lambda: list_winner(study), "both"),
        Part("verdict", "Selection bias", luck, lambda: list_luck(study), "both"),
    ]  # fmt: skip
    more = [
        Part("history", "History of the search", "Scores in the order of the trials.",
             lambda: [draw_history(study)], is_half=True),
    ]  # fmt: skip
    if study.trials >= WORTH_A_FOREST:
        share = "Share of the variance of the score over the declared ranges."
        more.append(
            Part("importance", "Which parameters matter", share, lambda: list_importance(study),
                 is_half=True)
        )  # fmt: skip
    return [*parts, *list_landscape(explored, study.curves, "study.table", *more)]


def draw_winner(study: Study) -> Iterator[ShownChart]:
    """Yield the equity of the best trial beside constant leverage, over search and holdout."""
    if study.curves is None:
        return
    names = [name for name in (OWN, CONSTANT) if name in study.curves]
    split = core.to_nanoseconds(study.manifest["searched"], "searched")
    ends = pd.DatetimeIndex(study.curves.index).as_unit("ns").asi8[[0, -1]]
    has_holdout = bool(ends[0] < split < ends[1])
    about = (
        "One unit of money. Constant leverage has the costs and the volatility of the best trial, "
        "in the search and on the holdout each; where none has it, there is no line."
    )
    yield ShownChart(
        "equity", "The best trial over time", about, study.curves[names], "accounts",
        {OWN: "accent", CONSTANT: "neutral"}, has_legend=True, height=400,
        lines=((split, "holdout"),) if has_holdout else (),
    )  # fmt: skip


def draw_history(study: Study) -> ShownChart:
    """Draw the scores of the trials in their order, and the best so far."""
    table = study.table
    score = table["score"].to_numpy(dtype=np.float64)
    is_feasible = (table["violation"].to_numpy() == 0.0) & np.isfinite(score)
    known = np.where(is_feasible, score, np.nan)
    best = np.fmax.accumulate(known) if len(known) else known
    left_out = int(np.sum(~is_feasible))
    about = "The line is the best so far; the lowest twentieth lies below the chart. "
    about += f"{left_out:,} of {len(score):,} trials are not drawn: "
    about += "they were ruined, failed, filled no order or break a constraint."
    name = name_measure(study.objective)
    drawn = pd.DataFrame({name: known, "best so far": best}, index=np.arange(1, len(score) + 1))
    return ShownChart("history", "History of the search", about, drawn, "history",
                      {name: "step_3", "best so far": "accent"}, "trial", name,
                      height=320)  # fmt: skip


def list_importance(study: Study) -> list[Shown]:
    try:
        table = study.importance()
    except core.ParameterError as error:  # scores do not differ
        return [f"{core.capitalize(str(error))}."]
    heads = {"share": Head("share", "of the variance", "percent"),
             "noise": Head("of permuted scores", "largest of 19", "percent"),
             "is_over_noise": Head("over it", "", "claim")}  # fmt: skip
    bars = 100.0 * table["share"].rename_axis(["parameters"])
    bars.index = pd.MultiIndex.from_product([bars.index, [1]])
    return [
        ShownChart("importance", "Importance", "% of the variance.", bars, "tornado"),
        ShownTable(table, labels=Head("parameters"), heads=heads),
    ]


def list_luck(study: Study) -> list[Shown]:
    verdict = study.verdict
    growth = GrowthTest() if verdict is None else verdict.growth
    if verdict is None or study.best_trial < 0:
        return ["No verdict: the study is unfinished, or no set can be chosen."]
    signal = verdict.signal or SignalTest()
    policies = ", ".join(verdict.other_policies)
    candidates = 0 if study.outcome is None else len(study.outcome.candidates)
    median = verdict.plain_plateau
    around = f"; the median of the neighbors there is {core.format_number(median)}"
    around *= math.isfinite(median)
    known = {
        "parameter sets tried": (verdict.trials, "count", "in this study"),
        "parameter sets tried elsewhere": (verdict.other_trials, "count", "in other "
                                           "searches of the store on some of the same bars"
                                           f"{': ' * bool(policies)}{policies}"),
        "log growth over constant leverage": (growth.difference, "percent", "a year, at "
                                              "equal risk, over search and holdout"),
        "p-value, adjusted": (growth.p_adjusted, "probability", "of that difference, for its "
                              f"{growth.trials:,.0f} independent differences"),
        "p-value of shifts in time": (signal.p_value, "probability", "share of "
                                      f"{signal.shifts:,} shifts whose best set is as good"),
        "independent trials": (verdict.effective_trials, "count",
                               "by how these differences correlate"),
        "expected maximum Sharpe": (verdict.lucky_sharpe, "decimals",
                                    "of that many trials under the null"),
        "deflated Sharpe ratio": (verdict.deflated_sharpe, "probability",
                                  "of the returns less those of constant leverage"),
        "probability of backtest overfitting (CSCV)": (
            verdict.overfitting, "decimals",
            "how often the best of one half of time was no better than the median in the other"),
        "objective of the chosen set": (verdict.score, "decimals", "its own"),
        "median of its neighbors": (verdict.plateau, "decimals", "near its own on a plateau"),
        "highest": (verdict.plain_score if candidates > 1 else math.nan,
                                     "decimals", f"objective of {candidates} candidates{around}"),
        "neighbors within constraints": (verdict.kept, "percent", ""),
        "objective on the holdout": (verdict.holdout_score, "decimals", "outside the search"),
    }  # fmt: skip
    rows = {
        name: {"value": STYLES[style](value), "what it is": words}
        for name, (value, style, words) in known.items()
        if math.isfinite(value) and (value or name != "parameter sets tried elsewhere")
    }
    return [ShownTable(rows, "Selection bias", heads={"value": Head("value", "", "decimals")})]


def find_short_parts(study: Study) -> dict[str, tuple[str, ...]]:
    """Return the measures that are not shown of the search, and of the holdout."""
    found = {}
    for where, days in zip(("search", "holdout"), study.days_of_parts, strict=True):
        names = () if shows_growth(days) else EXTRAPOLATED
        found[where] = tuple(name for name in names if name not in study.objective)
    return found


def list_winner(study: Study) -> list[Shown]:
    space, best = study.manifest["space"], study.best
    values, settings = study.best_values if best is not None else {}, {}
    for each in space["dimensions"]:
        if each["kind"] in ("float", "int"):
            span = f"{each['low']:g} to {each['high']:g}"
        else:
            span = ", ".join(map(str, each["options"]))
        settings[each["name"]] = {"value": core.format_value(values.get(each["name"])),
                                  "searched": span + ", log" * bool(each["log"])}  # fmt: skip
    settings |= {name: {"value": core.format_value(value), "searched": "fixed"}
                 for name, value in space.get("fixed", {}).items()}  # fmt: skip
    known: dict[str, Any] = {} if best is None else dict(best)
    outcome = study.outcome
    holdout, parts = ({}, ()) if outcome is None else (outcome.holdout, outcome.lines)
    found = pd.DataFrame({"search": known, "holdout": holdout} if holdout else {"search": known})
    words = [study.objective, *study.manifest["constraints"]]
    own = (word.removeprefix("-").partition(" ")[0] for word in words)
    names = [n for n in dict.fromkeys((*COMPARED, *own)) if n in ABOUT and n in known]
    measured = found.loc[names]
    hidden = find_short_parts(study)
    for where, of_part in hidden.items():
        if where in measured:
            measured.loc[[name for name in of_part if name in names], where] = math.nan
    lines = {
        f"{name}, {where}": {
            measure: math.nan if measure in hidden[where] else line.get(measure, math.nan)
            for measure in COMPARED[1:]
        }
        for where, each in zip(("search", "holdout"), parts, strict=False)
        for name, line in each.items()
    }
    fresh = "The account begins with fresh capital at the first bar of the holdout."
    note = (
        "Constant leverage has the signal, the costs and the volatility of the best trial; buy and "
        "hold is the unlevered market without costs."
    )
    lacks = () if outcome is None else outcome.lacks
    for where, lack in zip(("in the search", "on the holdout"), lacks, strict=False):
        if lack:
            note += f" There is no constant leverage {where}: {lack}."
    heads = list_heads("decimals", ("value", "search", "holdout"), "")
    return [
        ShownTable(settings if values else None, "Parameters of the best trial", "",
                   Head("parameter"), heads),
        ShownTable(measured if names else None,
                   "Best trial, search and holdout" if holdout else "Best trial",
                   fresh if holdout else "", Head("measure"), heads, has_measures=True),
        ShownTable(lines or None, "Against its benchmarks", note, Head("account"),
                   columns=COMPARED[1:]),
    ]  # fmt: skip
