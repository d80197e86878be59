"""Explain why a study evaluated fewer sets than its budget of trials allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backtest.sweep import count_sets
from backtest.tune.plateau import NEIGHBOUR, PLAIN, Robustness
from backtest.tune.search_loop import NOT_ADAPTIVE, SEARCH
from backtest.tune.winner import plan_candidates, reserve_trials

if TYPE_CHECKING:
    from backtest.tune.study_record import StudyRecord

ENDED = {
    "grid": "its grid has no more sets",
    "de": "its population has converged",
    "auto": "every set of the space was tried, or nothing was gained any more",
}
"""Why a sampler ends early, for samplers with a single reason."""

NO_MORE = "as no further candidate lies apart from the others"


def explain_spending(study: StudyRecord) -> str:
    """Return why a finished study evaluated fewer different sets than it was given trials.

    Empty if it did not, if only the time was limited, or if the study is unfinished.
    """
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


def list_reasons(study: StudyRecord, limit: int, searched: int, judged: int) -> Iterator[str]:
    """Yield where trials were left, or spent twice."""
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


def explain_end(study: StudyRecord) -> str:
    """Return why the search ended before its share of the trials was spent."""
    if study.facts["budget"]["seconds"] is not None:
        return "its time was up or its sampler had no more sets to propose"
    if len(study.objectives) > 1 and study.facts["sampler"] not in NOT_ADAPTIVE:
        return "which its directions could not share or did not need"
    return ENDED.get(study.facts["sampler"], "its sampler had no more sets to propose")
