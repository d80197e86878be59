"""Count the sets of a validation among all that were tried on the same bars, and record them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import FloatArray, format_time
from backtest.tune import (
    CountTries,
    OtherTrials,
    SpanTries,
    count_other_trials,
    describe_market,
    describe_policy,
    read_tries,
    record_tries,
)
from backtest.tune.other_trials import NO_TRIALS

if TYPE_CHECKING:
    from backtest.sweep import Sets
    from backtest.validation.fold_search import SearchedFold
    from backtest.validation.tuning_procedure import Procedure


def read_other_tries(
    store: str | Path | None, procedure: Procedure, manifest: Mapping[str, Any]
) -> CountTries:
    """Return the function that counts what other searches in the store tried.

    The store is read once. Without one, nothing was tried.
    """
    if store is None:
        return lambda _first, _stop: NO_TRIALS
    tries = list(read_tries(Path(store)))

    def count(first: int, stop: int) -> OtherTrials:
        facts = describe_search(procedure, manifest)
        start, end = name_span(procedure, first, stop)
        span = {"data": {**facts["data"], "start": start}, "searched": end}
        return count_other_trials(tries, {**facts, **span})

    return count


def describe_search(procedure: Procedure, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a validation as a study describes its search of the whole market."""
    data = describe_market(procedure.terms.market)
    terms = ("venue", "account", "signal", "overlay", "sampling", "calendar", "space")
    return {
        "id": manifest["id"],
        "data": data,
        "searched": data["end"],
        "policy": describe_policy(procedure.base),
        **{name: manifest[name] for name in terms if name in manifest},
    }


def name_span(procedure: Procedure, first: int, stop: int) -> tuple[str, str]:
    """Return the times at which bars ``first`` up to ``stop`` begin and end, as text."""
    market = procedure.terms.market
    end = int(market.time[stop - 1]) + market.interval
    return format_time(int(market.time[first])), format_time(end)


def record_folds(
    store: Path,
    procedure: Procedure,
    manifest: Mapping[str, Any],
    found: Sequence[SearchedFold],
) -> None:
    """Record the sets that were tried on the train span of each fold."""
    tried = []
    for fold in found:
        start, stop = name_span(procedure, fold.span.train, fold.span.train_stop)
        tried.append(SpanTries(start, stop, fold.sets, fold.sharpes, fold.is_kept))
    record_tries(store, describe_search(procedure, manifest), tried)


def record_drawn(
    store: Path,
    procedure: Procedure,
    manifest: Mapping[str, Any],
    sets: Sets,
    sharpes: FloatArray,
) -> None:
    """Record the sets that were tried on all groups; those without a Sharpe ratio failed."""
    facts = describe_search(procedure, manifest)
    span = (facts["data"]["start"], facts["data"]["end"])
    record_tries(store, facts, [SpanTries(*span, sets, sharpes, np.isfinite(sharpes))])
