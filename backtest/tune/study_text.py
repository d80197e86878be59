"""Sentences about a study: its verdict, and what it spent its trials on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backtest.base import (
    format_probability,
)
from backtest.sweep import count_sets
from backtest.tune.plateau import NEIGHBOUR, PLAIN, Robustness
from backtest.tune.search_loop import NOT_ADAPTIVE, SEARCH
from backtest.tune.search_outcome import plan_candidates, reserve_trials

if TYPE_CHECKING:
    from backtest.tune.study import Study

LIKELY = 0.95
"""Least deflated Sharpe ratio that counts as evidence."""
EVEN = 0.5
"""Probability of overfitting above which the verdict mentions it."""


def describe_budget(facts: Mapping[str, Any]) -> str:
    trials, seconds = facts["budget"]["trials"], facts["budget"]["seconds"]
    limits = [f"{trials:,} trials"] if trials is not None else []
    limits += [f"{seconds:g} s"] if seconds is not None else []
    how = "plateaus before spikes" if facts["robust"] else "the plain optimum"
    return f"{facts['sampler']} for {' or '.join(limits)} at most, seed {facts['seed']}; {how}"


def find_measures(study: Study) -> list[str]:
    words = [*study.objectives, *study.facts["constraints"]]
    return [word.removeprefix("-").partition(" ")[0] for word in words]


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


def format_sets(n: int) -> str:
    return "a single set" if n == 1 else f"{n:,} sets"


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
