"""Text summary of a study, for a terminal of 80 columns or more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backtest.base import (
    format_number,
    format_paragraph,
    format_percent,
    format_probability,
    format_span,
    format_value,
)
from backtest.measures import describe_left_out, find_cautions
from backtest.sweep import count_sets
from backtest.tune.plateau import BY_SCORE, NEIGHBOUR, PLAIN, Robustness
from backtest.tune.search_loop import NOT_ADAPTIVE, SEARCH
from backtest.tune.search_outcome import plan_candidates, reserve_trials

if TYPE_CHECKING:
    from backtest.tune.luck import Verdict
    from backtest.tune.study import Study

SHOWN: Mapping[str, Callable[[float], str]] = {
    "total_return": format_percent,
    "cagr": format_percent,
    "volatility": format_percent,
    "sharpe": format_number,
    "max_drawdown": format_percent,
    "calmar": format_number,
    "turnover": format_number,
    "liquidations": format_number,
}

LIKELY = 0.95
"""Least deflated Sharpe ratio that counts as evidence."""
EVEN = 0.5
"""Probability of overfitting above which the verdict mentions it."""

NOT_RANKED = "the plain optimum: too few candidates to rank by neighbors"


def write_summary(study: Study, resume: str = "resume=True") -> str:
    lead = [*format_paragraph("Verdict", write_verdict(study)), *describe_search(study, resume)]
    parts = [lead, list(describe_best(study))]
    if study.verdict is not None and study.best is not None:
        parts.append(list(describe_plateau(study, study.verdict)))
        parts.append(list(describe_luck(study, study.verdict)))
        parts.append(list(describe_holdout(study, study.verdict)))
    parts.append([line for text in study.warnings for line in format_paragraph("Warning", text)])
    return "\n\n".join("\n".join(part) for part in parts if part)


def describe_search(study: Study, resume: str) -> Iterator[str]:
    facts, data = study.facts, study.facts["data"]
    names = ", ".join(each["name"] for each in facts["space"]["dimensions"])
    yield from format_paragraph(
        "Study", f"{facts['policy']['name']}: {study.trials:,} sets of {names}"
    )
    name = data["instrument"] or "unnamed instrument"
    searched = format_span({**data, "end": facts["searched"]})
    span = f"{name}, searched from {searched}"
    notes = ["SYNTHETIC: these prices are made up"] if data["synthetic"] else []
    yield from format_paragraph("Data", span, *notes)
    if "pool" in facts:
        yield from format_paragraph(
            "Accounts",
            f"one in each of {len(data['instruments'])} markets; measures are their "
            f"{facts['pool']}, and luck is that of returns on the days that all have",
            describe_left_out(facts),
        )
    elif facts.get("markets_left_out"):
        yield from format_paragraph("Markets", describe_left_out(facts))
    rules = ", ".join(facts["constraints"])
    yield from format_paragraph("Objective", f"{' and '.join(study.objectives)}, where {rules}")
    spending = explain_spending(study)
    spent = [spending] if spending else []
    yield from format_paragraph("Search", describe_budget(facts), *spent)
    if study.trials:
        unfilled = study.count_unfilled()
        if unfilled:
            yield from format_paragraph(
                "No fill", f"{unfilled:,} of {study.trials:,} sets filled no order"
            )
    if not study.complete:
        rest = f"{resume} continues it" if study.folder is not None else "nothing of it is stored"
        yield from format_paragraph("UNFINISHED", f"the best so far, by its own score; {rest}")


def describe_budget(facts: Mapping[str, Any]) -> str:
    trials, seconds = facts["budget"]["trials"], facts["budget"]["seconds"]
    limits = [f"{trials:,} trials"] if trials is not None else []
    limits += [f"{seconds:g} s"] if seconds is not None else []
    how = "plateaus before spikes" if facts["robust"] else "the plain optimum"
    return f"{facts['sampler']} for {' or '.join(limits)} at most, seed {facts['seed']}; {how}"


def describe_best(study: Study) -> Iterator[str]:
    best = study.best
    if best is None:
        yield from format_paragraph("Best", "none")
        return
    values = ", ".join(
        f"{name} = {format_value(value)}" for name, value in study.best_values.items()
    )
    yield from format_paragraph("Best", values)
    if cautions := find_cautions(best):
        yield from format_paragraph("Caution", f"the best set has {cautions} in the search")
    holdout = {} if study.outcome is None else study.outcome.holdout
    yield f"  {'':26}{'search':>14}{'holdout' if holdout else '':>14}".rstrip()
    for name in dict.fromkeys([*SHOWN, *find_measures(study)]):
        write = SHOWN.get(name, format_number)
        if name in best:
            there = write(holdout[name]) if name in holdout else ""
            yield f"  {name:26}{write(best[name]):>14}{there:>14}".rstrip()


def find_measures(study: Study) -> list[str]:
    words = [*study.objectives, *study.facts["constraints"]]
    return [word.removeprefix("-").partition(" ")[0] for word in words]


def describe_plateau(study: Study, verdict: Verdict) -> Iterator[str]:
    name = study.objectives[0]
    own, around = format_number(verdict.score), format_number(verdict.plateau)
    lines = [f"{name} {own}, median of its neighbors {around}"]
    if study.outcome is not None and study.facts["robust"]:
        is_ranked = study.outcome.chosen_by != BY_SCORE
        lines += list(describe_ranking(study, verdict)) if is_ranked else [NOT_RANKED]
        n = len(study.outcome.candidates)
        if n > 1:
            lines.append(
                f"the highest {name} of {n} candidates is {format_number(verdict.plain_score)}, "
                f"median of the neighbors there {format_number(verdict.plain_plateau)}"
            )
        else:
            lines.append("there was one candidate only: nothing was ranked")
    if verdict.kept < 1.0:
        share = 100.0 * (1.0 - verdict.kept)
        lines.append(f"{share:.0f} % of its neighbors break a constraint or are ruined")
    yield from format_paragraph("Plateau", *lines)
    if len(study.objectives) > 1:
        front = format_sets(len(study.front))
        yield from format_paragraph("Front", f"{front} that no other beats in all objectives")


def describe_ranking(study: Study, verdict: Verdict) -> Iterator[str]:
    rule, names = study.facts["robust"], study.objectives
    quantile, width = 100 * rule["quantile"], 100 * rule["width"]
    place = "ranked first by" if len(names) == 1 else f"the knee of all objectives, by {names[0]}"
    if study.outcome is not None and len(study.outcome.candidates) == 1:
        place = "worth"
    yield (
        f"{place} {format_number(verdict.robust_score)}: the {quantile:.0f} % quantile of its "
        f"neighbors (within {width:.0f} % of each range), half over the whole time, half over "
        f"{rule['parts']} parts of it"
    )


def describe_luck(study: Study, verdict: Verdict) -> Iterator[str]:
    if math.isnan(verdict.effective_trials) and "pool" in study.facts:
        yield from format_paragraph(
            "Luck",
            describe_deflated(verdict.deflated_sharpe, name_evidence(study.facts)),
            describe_overfitting(verdict.overfitting),
        )
        return
    yield from format_paragraph(
        "Luck",
        f"Sharpe ratio {format_number(verdict.sharpe)}, chosen from {describe_tried(verdict)}, "
        f"worth {format_independent(verdict.effective_trials)}; the luckiest of so many without "
        f"skill would show about {format_number(verdict.lucky_sharpe)}",
        describe_deflated(verdict.deflated_sharpe),
        describe_overfitting(verdict.overfitting),
    )


def describe_tried(verdict: Verdict) -> str:
    if not verdict.other_trials:
        return format_sets(verdict.trials)
    policies = ", ".join(verdict.other_policies)
    named = f" ({'policies' if len(verdict.other_policies) > 1 else 'policy'} {policies})"
    return (
        f"{format_sets(verdict.trials + verdict.other_trials)}: {verdict.trials:,} of this study, "
        f"{verdict.other_trials:,} of other searches on some of the same bars"
        f"{named if policies else ''}"
    )


def write_verdict(study: Study) -> str:
    verdict = study.verdict
    if not study.trials:
        return "no verdict: nothing was evaluated"
    if verdict is None:
        return "no verdict yet: the study is not finished"
    if study.best is None:
        return f"no winner: none of {format_sets(verdict.trials)} keeps all constraints"
    tried = format_sets(verdict.trials + verdict.other_trials)
    deflated = verdict.deflated_sharpe
    if math.isnan(deflated):
        return "it cannot be told whether the winner is more than luck: too few returns or sets"
    number = f"its {name_evidence(study.facts)} is {format_probability(deflated)}"
    if deflated < LIKELY:
        return (
            f"no evidence that the winner is more than luck: {number}, and {LIKELY} or more would "
            f"be evidence, after {tried}"
        )
    doubt = ""
    if verdict.overfitting > EVEN:
        doubt = (
            f"; but the best set of one half of the time was no better than the median in the "
            f"other half in {100.0 * verdict.overfitting:.0f} % of the splits"
        )
    return f"the winner is more than the luck of {tried} explains: {number}{doubt}"


def name_evidence(facts: Mapping[str, Any]) -> str:
    if facts.get("pool", "mean") == "mean":
        return "deflated Sharpe ratio"
    return f"bootstrap probability of the {facts['pool']} Sharpe ratio"


def name_short(facts: Mapping[str, Any]) -> str:
    return "Deflated Sharpe" if facts.get("pool", "mean") == "mean" else "Bootstrap"


def describe_deflated(probability: float, name: str = "deflated Sharpe ratio") -> str:
    if math.isnan(probability):
        return f"{name}: not enough returns to tell"
    is_evidence = probability >= LIKELY
    words = "more than luck explains" if is_evidence else "no evidence that it is more than luck"
    return (
        f"{name} {format_probability(probability)}, the probability that it is "
        f"truly above that of luck: {words}"
    )


def describe_overfitting(probability: float) -> str:
    if math.isnan(probability):
        return "probability of backtest overfitting: not enough sets or returns to tell"
    return (
        f"probability of backtest overfitting {probability:.2f}: so often was the best set of one "
        "half of the time no better than the median in the other half"
    )


def describe_holdout(study: Study, verdict: Verdict) -> Iterator[str]:
    if study.outcome is None or not study.outcome.holdout:
        return
    times = "once" if study.looks == 1 else f"{study.looks:,} times"
    worn = "" if study.looks == 1 else "; each look makes it less independent"
    kept = "" if study.folder is not None else " (no store: other searches are not known)"
    yield from format_paragraph(
        "Holdout",
        f"{study.objectives[0]} {format_number(verdict.holdout_score)}, in the search "
        f"{format_number(verdict.score)}; looked at {times}{kept}{worn}",
    )


def format_sets(n: int) -> str:
    return "a single set" if n == 1 else f"{n:,} sets"


def format_independent(value: float) -> str:
    if math.isnan(value):
        return "an unknown number of independent ones"
    n = round(value)
    return "a single independent one" if n == 1 else f"{n:,} independent ones"


ENDED = {
    "grid": "its grid has no more sets",
    "auto": "every set of the space was tried, or nothing was gained any more",
}

NO_MORE = "as no further candidate lies apart from the others"


def explain_spending(study: Study) -> str:
    limit = study.facts["budget"]["trials"]
    if limit is None or not study.complete or study.trials >= limit:
        return ""
    counts = {
        stage: sum(count_sets(each.sets) for each in study.batches if each.stage == stage)
        for stage in (SEARCH, NEIGHBOUR)
    }
    reasons = "; ".join(list_reasons(study, limit, counts[SEARCH], counts[NEIGHBOUR]))
    return (
        f"{study.trials:,} of {limit:,} trials: {counts[SEARCH]:,} in the search and "
        f"{counts[NEIGHBOUR]:,} as neighbors of candidates; {reasons}"
    )


def list_reasons(study: Study, limit: int, searched: int, judged: int) -> Iterator[str]:
    given = study.facts["robust"]
    rule = Robustness(**given) if given else PLAIN
    allotted = limit - reserve_trials(rule, limit, is_robust=bool(given))
    if searched < allotted:
        yield f"the search left {allotted - searched:,}, {explain_end(study)}"
    unused = limit - allotted - judged
    if unused > 0:
        plan = plan_candidates(rule, limit - allotted, is_robust=bool(given))
        is_full = judged >= plan.candidates * plan.rule.neighbours
        why = "too few for one more candidate in every round" if is_full else NO_MORE
        yield f"{unused:,} reserved for neighbors were left, {why}"
    repeated = searched + judged - study.trials
    if repeated > 0:
        yield f"{repeated:,} went to sets that had been evaluated before"


def explain_end(study: Study) -> str:
    if study.facts["budget"]["seconds"] is not None:
        return "its time was up or its sampler had no more sets to propose"
    if len(study.objectives) > 1 and study.facts["sampler"] not in NOT_ADAPTIVE:
        return "which its directions could not share or did not need"
    return ENDED.get(study.facts["sampler"], "its sampler had no more sets to propose")
