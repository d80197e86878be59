"""The sentence of a judgement, by rule."""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest import core
from backtest.judgement.survival import SAFE
from backtest.search.shifts import FEW_FILLS

UNSAFE = "unsafe"
NOT_TIMED = "not timed"
BETTER = "better"
WORSE = "worse"
NOT_TESTED = "not tested"
NO_EVIDENCE = "no evidence of a difference"
OUTCOMES = (UNSAFE, NOT_TIMED, BETTER, WORSE, NOT_TESTED, NO_EVIDENCE)
"""What a judgement says, in the order in which it is asked."""
LEAST_GAIN = 0.005
"""Log growth a year over constant leverage from which on better is worth its name."""
REQUIREMENTS = ("better", "safe", "timed")


class Findings(NamedTuple):
    """What the rule reads. Numbers that could not be measured are NaN.

    ``chance`` is the highest probability of losing the account in 30 days, over markets, of paths
    and history; ``ruined`` are the markets on which the account was. ``timed`` are the markets on
    which it filled 10 orders and decided more than one leverage; ``is_one_value``: it decided one
    on every market. ``tested`` are those with a constant leverage at equal risk, of ``markets``.
    """

    markets: tuple[str, ...]
    ruined: tuple[str, ...]
    chance: float
    chance_market: str
    chance_source: str
    timed: tuple[str, ...]
    fills: int
    is_one_value: bool
    is_timing_tested: bool
    tested: tuple[str, ...]
    difference: float
    low: float
    high: float
    n: int
    years_needed: float
    why: str

    @property
    def is_unsafe(self) -> bool:
        return bool(self.ruined) or self.chance > SAFE

    @property
    def is_known_safe(self) -> bool:
        return not self.ruined and self.chance <= SAFE

    @property
    def is_better(self) -> bool:
        return self.low > 0.0 and self.difference >= LEAST_GAIN

    @property
    def place(self) -> str:
        """The markets that were compared, as the sentence names them."""
        if len(self.tested) < len(self.markets):
            return f"on {len(self.tested)} of these {len(self.markets)}"
        return self.whole_place

    @property
    def whole_place(self) -> str:
        """All markets that were judged, as the sentence names them."""
        if len(self.markets) == 1:
            return f"on {self.markets[0]}"
        return f"on these {len(self.markets)}"


def decide(findings: Findings) -> str:
    """Return the outcome: the first of the rules that holds."""
    if findings.is_unsafe:
        return UNSAFE
    if findings.is_timing_tested and not findings.timed:
        return NOT_TIMED

    if findings.is_better:
        return BETTER
    if findings.high < 0.0:
        return WORSE

    if not findings.tested or math.isnan(findings.difference):
        return NOT_TESTED
    return NO_EVIDENCE


def list_met(findings: Findings) -> tuple[str, ...]:
    """Return the requirements that are met; what could not be tested meets none."""
    met = []
    if findings.timed and findings.is_better:
        met.append("better")
    if findings.is_known_safe:
        met.append("safe")
    if findings.timed:
        met.append("timed")
    return tuple(met)


def check_requirements(required: list[str] | tuple[str, ...]) -> list[str]:
    known = core.Choice(*REQUIREMENTS)
    return [known.check("require", name.strip()) for name in required]


def write_sentence(findings: Findings, policy: str) -> str:
    """Return the outcome of a policy in one sentence."""
    outcome = decide(findings)
    if outcome == UNSAFE:
        return f"Unsafe: {write_danger(findings, policy)}."
    if outcome == NOT_TIMED:
        return f"Not timed: {write_untimed(findings, policy)}."
    if outcome == NOT_TESTED:
        return f"Not tested: {policy} has no constant leverage to be compared with, {findings.why}."

    gap = core.format_percent(findings.difference, is_signed=True)
    low = core.format_percent(findings.low, is_signed=True)
    high = core.format_percent(findings.high, is_signed=True)
    interval = f"95 %: {low} to {high}; {findings.n:,} days"
    figures = f"{gap} of log growth a year {findings.place} ({interval})"

    if outcome == BETTER:
        return f"Better: {policy} grew more than constant leverage at equal risk, by {figures}."
    if outcome == WORSE:
        return f"Worse: {policy} grew less than constant leverage at equal risk, by {figures}."
    return (
        f"No evidence of a difference: against constant leverage at equal risk {policy} made "
        f"{figures}."
    )


def write_danger(findings: Findings, policy: str) -> str:
    if findings.ruined:
        return f"{policy} lost its account on {', '.join(findings.ruined)}"

    chance = core.format_chance(findings.chance)
    source = "simulated paths"
    if findings.chance_source == "history":
        source = "its own history"
    return (
        f"{policy} loses its account within 30 days with a probability of {chance} on "
        f"{findings.chance_market}, by {source}; {core.format_chance(SAFE)} is the limit"
    )


def write_untimed(findings: Findings, policy: str) -> str:
    fills = core.count_nouns(findings.fills, "fill")
    if findings.fills == 0:
        return (
            f"{policy} filled no order {findings.whole_place}: it decided 0 or NaN, or nothing "
            "could be filled"
        )
    if findings.is_one_value:
        return f"{policy} decided one leverage throughout {findings.whole_place} ({fills})"
    return (
        f"{policy} has {fills} {findings.whole_place}, under {FEW_FILLS} on each, and timed nothing"
    )
