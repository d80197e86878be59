"""Text summary of a walk, for a terminal of 80 columns or more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backtest.base import (
    format_number,
    format_paragraph,
    format_percent,
    format_probability,
    format_span,
    format_time,
)
from backtest.measures import describe_left_out
from backtest.tune import name_evidence
from backtest.validation.interval_estimates import EVIDENCE
from backtest.validation.walk_figures import read_figures

if TYPE_CHECKING:
    from backtest.validation.validation_files import WalkRecord

EVEN = 0.5
OF_FOLDS = re.compile(r"in \d+ of \d+ folds")
MEASURES = ("total_return", "cagr", "volatility", "sharpe", "max_drawdown", "fees", "liquidations")
SHARES = ("total_return", "cagr", "volatility", "max_drawdown")


def write_verdict(walk: WalkRecord) -> str:
    if walk.result is None:
        return "no verdict: accounts that begin anew in every fold pay nothing for switching"
    if walk.result.metrics["ruined"]:
        n, where = walk.result.metrics["ruined"], ""
        if "pool" in walk.manifest:
            where = f" in {n:.0f} of {len(walk.manifest['data']['instruments'])} markets"
        return f"do not trust it: the re-tuned account was ruined out of sample{where}"
    deflated, pbo = walk.deflated_sharpe, float(walk.pbo)
    number = f"{name_evidence(walk.manifest)} {format_probability(deflated)} out of sample"
    count = walk.chance["better_than_median"]
    n, by_chance = count.n, f", where chance alone gives {count.expected:g}"
    lost = f"{n - count.found} of {n} winners were no better than the median set{by_chance}"
    if deflated < EVIDENCE:
        return (
            f"no evidence that re-tuning finds what lasts: {number}, and {EVIDENCE} or more would "
            f"be evidence; {lost if n else 'a single set leaves nothing to choose'}"
        )
    if math.isnan(pbo):
        return f"evidence of a gain out of sample, {number}; a single set leaves nothing to choose"
    if pbo > EVEN:
        return (
            f"the policy gains out of sample, but choosing its parameters adds nothing: {number}, "
            f"yet {lost}"
        )
    won = f"{count.found} of {n} winners were better than the median set{by_chance}"
    if walk.pbo.high >= EVEN:
        return (
            f"the policy gains out of sample, and it is not clear that choosing its parameters "
            f"adds anything: {number}; {won}, and as many or more with probability "
            f"{format_probability(count.p_value)}"
        )
    return f"evidence that it lasts: {number}, and {won}"


def write_summary(walk: WalkRecord) -> str:
    parts = [
        [*format_paragraph("Verdict", write_verdict(walk)), *describe_walk(walk)],
        list(describe_accounts(walk)),
        list(describe_choice(walk)),
        [line for text in walk.warnings for line in format_paragraph("Warning", text)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def describe_walk(walk: WalkRecord) -> Iterator[str]:
    facts, folds = walk.manifest, walk.folds
    total = f"{len(folds)} folds, {int(folds['trials'].sum()):,} sets in all"
    yield from format_paragraph(
        "Walk", f"{name_procedure(facts)}: {total}{describe_others(walk.figures)}"
    )
    name = facts["data"]["instrument"] or "unnamed instrument"
    notes = ["SYNTHETIC: these prices are made up"] if facts["data"]["synthetic"] else []
    first = f"{folds['test_start'].iloc[0]:%Y-%m-%d}"
    end = format_time(folds["test_end"].iloc[-1].as_unit("ns").value)
    tested = format_span({**facts["data"], "start": first, "end": end}).removesuffix(" UTC")
    yield from format_paragraph("Data", f"{name}, tested {tested}", *notes)
    yield from describe_pool(facts)
    rules = ", ".join(facts["constraints"])
    yield from format_paragraph("Objective", f"{facts['objective']}, where {rules}")


def describe_pool(facts: Mapping[str, Any]) -> Iterator[str]:
    if "pool" in facts:
        yield from format_paragraph(
            "Accounts",
            f"one in each of {len(facts['data']['instruments'])} markets; measures are searched by "
            f"their {facts['pool']}, returns and the measures below are means",
            describe_left_out(facts),
        )
    elif facts.get("markets_left_out"):
        yield from format_paragraph("Markets", describe_left_out(facts))


def name_procedure(facts: Mapping[str, Any]) -> str:
    above = f", under {facts['overlay']}" if "overlay" in facts else ""
    return f"{facts['policy']['text']}{above}"


def describe_others(figures: Mapping[str, Any]) -> str:
    if not figures.get("other_trials"):
        return ""
    policies = figures["other_policies"]
    named = f"{'policies' if len(policies) > 1 else 'policy'} {', '.join(policies)}"
    return (
        f"; {figures['other_trials']:,} sets that other searches tried on some of the same bars "
        f"({named}) count as trials too"
    )


def describe_accounts(walk: WalkRecord) -> Iterator[str]:
    results = {"tuned once": walk.fixed}
    results = {"re-tuned": walk.result, **results} if walk.result is not None else results
    yield f"  {'':26}" + "".join(f"{name:>14}" for name in results)
    for name in MEASURES:
        write = format_percent if name in SHARES else format_number
        cells = "".join(f"{write(each.metrics[name]):>14}" for each in results.values())
        yield f"  {name:26}{cells}"


def describe_choice(walk: WalkRecord) -> Iterator[str]:
    figures = walk.figures
    inside = read_figures(figures, "growth_in_sample")
    outside = read_figures(figures, "growth_out_of_sample")
    ratio = "" if math.isnan(walk.efficiency) else f", efficiency {walk.efficiency:.2f}"
    yield from format_paragraph(
        "Efficiency",
        f"log growth per year {format_percent(inside)} in sample, {format_percent(outside)} out "
        f"of sample{ratio}, difference {format_percent(walk.efficiency_difference)}",
    )
    pbo = walk.pbo
    if not math.isnan(pbo):
        yield from format_paragraph(
            "Winners",
            f"mean rank {figures['mean_rank']:.2f} out of sample (1 best, 0.5 the median); "
            f"probability of overfitting {pbo:.2f}, interval {pbo.low:.2f} to {pbo.high:.2f}",
        )
    searches = walk.chance["searches_with_evidence"]
    if searches.n:
        yield from format_paragraph(
            "Searches",
            f"{searches.found} of {searches.n} train spans had a winner with a deflated Sharpe "
            f"ratio of {EVIDENCE} or more; chance alone gives {searches.expected:.2g}",
        )
    yield from describe_gap(figures)


def describe_gap(figures: Any) -> Iterator[str]:
    gap = figures.get("against_fixed")
    if not gap or not math.isfinite(read_figures(gap, "low")):
        return
    is_clear = read_figures(gap, "p_value") <= 0.05
    words = "more than noise" if is_clear else "within noise"
    yield from format_paragraph(
        "Re-tuning",
        f"log growth per year {format_percent(read_figures(gap, 'difference'))} against tuned "
        f"once, 95 % interval {format_percent(read_figures(gap, 'low'))} to "
        f"{format_percent(read_figures(gap, 'high'))}: {words}",
    )


def summarize_choice(walk: WalkRecord) -> str:
    lines = [" ".join(line.split()) for line in describe_choice(walk)]
    heads = ("Efficiency", "Winners", "Searches", "Re-tuning")
    text = " ".join(lines)
    for head in heads:
        text = text.replace(f"{head} ", f"|{head}: ", 1)
    return " ".join(f"{part.strip()}." for part in text.split("|") if part.strip())
