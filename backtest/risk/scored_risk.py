"""liquidation_risk(): the risk of an account, and on request the score of such forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backtest import core
from backtest.core import Progress
from backtest.core.fields import INNER_SHARE
from backtest.engine import AnyPolicy, Conditions, plain
from backtest.results import Result
from backtest.risk.liquidations import LiquidationRisk, RiskTerms, measure_risk
from backtest.risk.path_runner import PathsRunner
from backtest.risk.paths import Paths, simulate_paths
from backtest.risk.replays import check_replayed, replay_risk
from backtest.risk.scores import Scored


@core.record_making
@core.checked_only("paths", "resume", "compile", "progress")
def liquidation_risk(
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    paths: Paths | None = None,
    resume: Result | None = None,
    horizons: Sequence[str] | None = None,
    confidence: float = 0.95,
    default_rate: float = 0.0,
    recovery: float = 0.0,
    score: bool = False,
    threads: int = 1,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
) -> LiquidationRisk:
    """Answer :meth:`backtest.Backtest.liquidation_risk`, which documents it."""
    threads = core.Whole(1).check("threads", threads)
    terms = read_terms(RiskTerms(horizons, confidence, default_rate, recovery))
    if paths is None:
        paths = simulate_paths(plain(conditions).market)
    runner = PathsRunner(paths, policy, conditions, resume, compile)
    if score:
        check_replayed(runner)
    risk = measure_risk(runner, terms, threads=threads, progress=progress)
    if not score:
        return risk

    scored = score_risk(risk, threads=threads, progress=progress)
    return replace(
        risk,
        scores=scored.scores,
        intervals=scored.intervals,
        forecasts=scored.forecasts,
    )


def read_terms(stated: RiskTerms) -> RiskTerms:
    """Return the terms of a risk as numbers; raise ParameterError for one that is not allowed."""
    confidence = INNER_SHARE.check("confidence", stated.confidence)
    default_rate = core.Real(0.0, 100.0).check("default_rate", stated.default_rate)
    core.warn_of_high_rate("default_rate", default_rate)

    recovery = core.Real(0.0, 1.0).check("recovery", stated.recovery)
    if recovery > 0.0 and default_rate == 0.0:
        raise core.ParameterError(
            f"recovery must be left out without default_rate, got {recovery:g}"
        )
    return RiskTerms(stated.horizons, confidence, default_rate, recovery)


def score_risk(
    risk: LiquidationRisk,
    *,
    threads: int,
    progress: Progress | None = None,
    more: Mapping[str, float] | None = None,
) -> Scored:
    """Return how good forecasts as those of a risk were at past dates.

    ``more`` are probabilities that are told of other horizons, of the same account.
    """
    told = {str(name): float(x) for name, x in risk.table["probability"].items()}
    past = risk.find_past(max(told, key=core.parse_duration))
    runner: Any = risk.runner
    whole = told | dict(more or {})
    return replay_risk(runner, whole, past, threads=threads, progress=progress).tabulate()
