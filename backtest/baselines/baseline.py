"""The regression gate: a baseline is the record of a run, to compare later runs with.

:func:`take_baseline` records a result, ``baseline_files.py`` keeps it as a JSON file for review
with a Parquet file of its bars, and ``verdict.py`` compares it with a later run. Each part
of a baseline has a file, with what differs between two of them: ``facts.py``, ``bands.py``
(tolerances), ``trace.py`` (bars) and ``noise.py`` (returns).

=============  ==========================================================================
word           what it is
=============  ==========================================================================
baseline       facts, host, measures, bands and trace of a run, and why it was rewritten
was, now       a baseline, and the run that is compared with it
fact           an input of a run by its dotted name: data, policy, venue, account, engine
host           the platform: system, processor, libraries
measure        a number of a run by its name in docs/metrics.md, or of a walk
band           the tolerance of a measure: relative, absolute, or open ("any")
trace          the account at each bar; its columns are in the order of a bar's steps
move           what differs: a measure, a column of the trace, or a fact
direction      whether a measure that moved became better, worse, or neither
noise          the difference in returns beside what chance alone would make of it
mode           what decides: "exact" every bar, "tolerance" the measures alone
verdict        the same, moved or not measured, with the reason and all moves
walk           a walk forward; its baseline is that of its re-optimized account
=============  ==========================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backtest import core
from backtest.baselines.bands import FIGURES, OVERFIT, Band, check_bands, choose_bands
from backtest.baselines.facts import (
    describe_host,
    describe_judgement,
    describe_run,
    describe_walk,
    list_changes,
    list_host_changes,
)
from backtest.baselines.trace import Trace, take_trace
from backtest.judgement.judgement import Judgement
from backtest.results import Result
from backtest.search import WalkForward

EXACT = "exact"
TOLERANCE = "tolerance"
MODES = (EXACT, TOLERANCE)


@dataclass(frozen=True)
class Baseline:
    """The record of a run, or of the account of a walk forward.

    ``experiment`` is the path of its file, relative to the baseline's folder, None for a test's
    result; ``facts`` are the inputs, ``host`` the platform, ``metrics`` and ``bands`` all measures
    and their tolerances, ``trace`` the account at each bar, ``history`` each rewrite with its
    reason and the old values.
    """

    name: str
    experiment: str | None
    mode: str
    facts: Mapping[str, Any]
    host: Mapping[str, str]
    metrics: Mapping[str, float]
    bands: Mapping[str, Band]
    trace: Trace
    history: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        check_bands(self.metrics, self.bands)

    def is_other_than(self, other: Baseline) -> bool:
        """Return whether anything that a run records differs from another baseline."""
        if list_changes(self.facts, other.facts) or self.host != other.host:
            return True
        if self.metrics.keys() != other.metrics.keys() or list_moved(self, other):
            return True
        return not self.trace.is_same(other.trace)


def take_baseline(
    result: Result | WalkForward | Judgement,
    name: str,
    *,
    experiment: str | None = None,
    mode: str = EXACT,
    tolerance: Mapping[str, object] | None = None,
) -> Baseline:
    """Return the baseline of a result; of a walk, the baseline of its re-optimized account.

    Of a judgement it is that of its account on the first market, with the figures of all.

    ``tolerance`` names measures or patterns, ``{"*": "5%", "sharpe": 0.05}``; the last match
    applies. Other measures have a relative tolerance of 1e-9.
    """
    account = choose_account(result)
    facts = describe_run(account)
    metrics = {measure: float(value) for measure, value in account.metrics.items()}

    if isinstance(result, WalkForward):
        # The parameters differ from fold to fold, so they are not facts of the policy.
        policy = facts["policy"]
        facts["policy"] = {key: policy[key] for key in ("name", "source_hash")}
        facts |= describe_walk(result)
        metrics |= list_walk_measures(result)
    if isinstance(result, Judgement):
        facts |= describe_judgement(result)
        metrics |= result.measures

    return Baseline(
        name=name,
        experiment=experiment,
        mode=check_mode(mode),
        facts=facts,
        host=describe_host(),
        metrics=metrics,
        bands=choose_bands(metrics, tolerance or {}, {}),
        trace=take_trace(account),
    )


def choose_account(result: Result | WalkForward | Judgement) -> Result:
    """Return the account whose bars a baseline keeps."""
    if isinstance(result, WalkForward):
        return result.result
    if not isinstance(result, Judgement):
        return result

    if not result.accounts or result.faults:
        faults = "; ".join(f"{name} failed: {why}" for name, why in result.faults.items())
        raise core.DataError(
            "the baseline of a judgement needs its accounts on all markets, "
            f"got {faults or 'a loaded one: judge again'}"
        )
    return next(iter(result.accounts.values()))


def list_walk_measures(walk: WalkForward) -> dict[str, float]:
    """Return the figures of a walk as measures."""
    measures = {name: float(walk.figures[figure]) for name, (figure, _) in FIGURES.items()}
    measures[OVERFIT] = float(walk.pbo)
    return measures


def check_mode(mode: str) -> str:
    return str(core.Choice(*MODES).check("mode", mode))


def rewrite_baseline(old: Baseline, new: Baseline, reason: str) -> Baseline:
    """Return a baseline that replaces an old one, with the reason and old values in its history.

    Name, experiment, mode and tolerances are those of the old one.
    """
    stripped = reason.strip()
    if not stripped:
        raise core.ParameterError("rewriting a baseline needs a reason, got none")

    entry = {
        "reason": stripped,
        "changed": [str(change) for change in list_changes(old.facts, new.facts)],
        "platform": list_host_changes(old.host, new.host),
        "metrics": list_moved(old, new),
    }
    return replace(
        new,
        name=old.name,
        experiment=old.experiment,
        mode=old.mode,
        bands={name: old.bands.get(name, band) for name, band in new.bands.items()},
        history=(*old.history, core.to_plain(entry)),
    )


def list_moved(old: Baseline, new: Baseline) -> dict[str, float]:
    """Return the old values of the measures that are gone or differ."""
    moved = {}
    for name, value in old.metrics.items():
        now = new.metrics.get(name)
        if has_moved(value, now):
            moved[name] = value
    return moved


def has_moved(was: float, now: float | None) -> bool:
    """Return whether a measure differs or is gone (None); NaN is the same as NaN."""
    if now is None:
        return True
    return was != now and not (math.isnan(was) and math.isnan(now))
