"""Whether anything was timed, whether promises were kept, and what the search tried."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backtest import core
from backtest.judgement.accounts import JudgedAccount, has_one_value
from backtest.judgement.growth import DailyGrowth
from backtest.results.promises import BROKEN, KEPT, TOO_EARLY
from backtest.search.selection_luck import deflate_alone
from backtest.search.shifts import FEW_FILLS
from backtest.search.timing import timing_test
from backtest.search.trials import LOOKS, TRIED, read_notes

VERDICTS = (KEPT, BROKEN, TOO_EARLY)
OF_OPTIONS = "options have no leverage that is shifted in time"
"""Why the timing of a policy of options is not tested."""


def judge_timing(account: JudgedAccount, **how: Any) -> dict[str, Any]:
    """Return fills, mean leverage and the shift test of growth of one account."""
    metrics = account.result.metrics
    row: dict[str, Any] = {
        "fills": int(metrics["fills"]),
        "mean_leverage": float(metrics["mean_leverage"]),
        "is_one_value": has_one_value(account.result),
    }
    if account.result.options is not None:
        return row | {"why": OF_OPTIONS}
    if row["fills"] < FEW_FILLS:
        return row | {"why": f"not timed: {core.count_nouns(row['fills'], 'fill')}"}

    tested = timing_test(account.result, **how)
    return row | {
        "p_growth": tested.p_growth,
        "shifts": len(tested.table),
        "leverage_timing": tested.leverage_timing,
        "timing_error": tested.timing_error,
        "why": tested.why,
    }


def list_promises(account: JudgedAccount) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each promise of the policy, with what came."""
    columns = ["rule", "bound", "value", "low", "high", "n", "n_needed", "verdict"]
    promises = account.result.promises[columns]
    records: Any = promises.to_dict("records")
    for name, row in zip(promises.index, records, strict=True):
        yield str(name), {**row, "why": ""}


def count_verdicts(rows: Mapping[Any, Mapping[str, Any]]) -> str:
    """Return how many promises were kept, not kept, and are too early to judge."""
    counts = Counter(str(row["verdict"]) for row in rows.values())
    return write_counts(counts) or "it promises nothing"


def write_counts(counts: Mapping[str, int]) -> str:
    """Return how often each verdict came, as clauses; empty if none did."""
    came = [verdict for verdict in VERDICTS if counts.get(verdict)]
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in came)


class SearchNotes:
    """What a store has counted on the bars of some accounts: sets tried, and looks at holdouts."""

    def __init__(self, store: Path | None) -> None:
        self.store = store
        self.tried: dict[tuple[str, str], int] = {}
        self.looks: set[str] = set()

    def read(self, account: JudgedAccount) -> tuple[int, int] | None:
        """Return the sets tried on the bars of an account, and the looks; None without a store."""
        if self.store is None:
            return None

        data = account.result.manifest["data"]
        whole = {"data": data, "searched": data["end"]}
        tried = {}
        for note in read_notes(self.store, TRIED, whole):
            tried[note["study"], note["policy"]] = int(note["sets"])

        held_out = {"data": data, "searched": data["start"]}
        notes = read_notes(self.store, LOOKS, held_out)
        looks = {repr(sorted(note.items())) for note in notes}

        # Markets may share a study, or a look: pooled, each counts once.
        self.tried |= tried
        self.looks |= looks
        return sum(tried.values()), len(looks)

    @property
    def pooled(self) -> tuple[int, int] | None:
        if self.store is None:
            return None
        return sum(self.tried.values()), len(self.looks)


def judge_search(
    counted: tuple[int, int] | None,
    difference: core.FloatArray | None,
    p_value: float,
) -> dict[str, Any]:
    """Return trials and looks, and how sure the difference is after so many trials.

    ``deflated_sharpe`` is that of the daily differences of log growth, ``p_adjusted`` their p-value
    by Sidak (1967). Without the returns of the trials all count as independent.
    """
    trials = 1
    looks = math.nan
    if counted is not None:
        tried, looked = counted
        trials = max(tried, 1)
        looks = float(looked)

    row: dict[str, Any] = {
        "is_counted": counted is not None,
        "trials": trials,
        "looks": looks,
        "n": 0,
        "deflated_sharpe": math.nan,
        "p_adjusted": math.nan,
    }
    if difference is None or not np.any(difference):
        return row

    row["n"] = len(difference)
    row["deflated_sharpe"] = deflate_alone(difference, float(trials))

    # 1 - (1 - p)^trials, exact for a small p; a p that is not known stays NaN.
    if p_value < 1.0:
        row["p_adjusted"] = -math.expm1(trials * math.log1p(-p_value))
    elif p_value == 1.0:
        row["p_adjusted"] = 1.0
    return row


def read_difference(daily: DailyGrowth | None) -> core.FloatArray | None:
    if daily is None:
        return None
    return np.asarray(daily.difference, dtype=np.float64)
