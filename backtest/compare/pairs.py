"""The differences of a comparison: a row per measure and pair of accounts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base.units import BoolArray, FloatArray, IntArray
from backtest.measures.influence import STATISTICS, Sampled
from backtest.measures.paired_bootstrap import compare_pairs, holm, subtract

LEAST_SAMPLES = 30
"""Returns under which no interval is given."""
ALIKE = 1e-4
"""Two accounts are alike where the root mean square of the difference of their returns is at most
this share of that of the returns."""

TEST, SAME, RUIN, FEW, NONE = "test", "alike", "ruin", "too few returns", "undefined"
"""What a row of differences rests on."""

COLUMNS = (
    "policy",
    "against",
    "measure",
    "difference",
    "low",
    "high",
    "p_value",
    "p_holm",
    "distinguishable",
    "basis",
)


class BootstrapRules(NamedTuple):
    """How differences are tested."""

    confidence: float
    draws: int
    seed: int


def tabulate_pairs(
    sampled: Sampled,
    names: Sequence[str],
    ruined: BoolArray,
    rules: BootstrapRules,
    progress: Callable[[int, int], None] | None,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return a row per measure and pair of accounts, and the mean length of blocks by measure.

    Parameters
    ----------
    sampled : Sampled
        All accounts, also those that were ruined.
    names : sequence of str
        Theirs.
    ruined : BoolArray of shape (k,)
        Which of them were.
    """
    pairs = np.array(list(combinations(range(len(names)), 2)), dtype=np.int64)
    bases = np.array([find_basis(sampled.returns, pair, ruined) for pair in pairs], dtype=object)
    living = sampled._replace(returns=np.where(ruined[:, None], 0.0, sampled.returns))
    whole = rules.draws * len(STATISTICS)
    tables, blocks = [], {}
    for place, measure in enumerate(STATISTICS):
        tell = offset_progress(progress, place * rules.draws, whole)
        found, block = estimate_pairs(living, pairs, bases, measure, rules, tell)
        if block:
            blocks[measure] = block
        if measure == "log_growth":
            set_ruined_growth(found, ruined, pairs)
        unknown = np.isnan(found["difference"]) & (bases != RUIN)
        rows: dict[str, Any] = {
            "policy": [names[one] for one, _ in pairs],
            "against": [names[other] for _, other in pairs],
            "measure": measure,
            **found,
            "basis": np.where(unknown, NONE, bases),
        }
        tables.append(pd.DataFrame(rows))
    return correct_p_values(pd.concat(tables, ignore_index=True), rules.confidence), blocks


def find_basis(returns: FloatArray, pair: IntArray, ruined: BoolArray) -> str:
    """Return what the differences of two accounts can rest on."""
    if ruined[pair].any():
        return RUIN
    one, other = returns[pair]
    if len(one) < LEAST_SAMPLES:
        return FEW
    apart = np.sqrt(np.mean((one - other) ** 2))
    size = np.sqrt(max(np.mean(one**2), np.mean(other**2)))
    return SAME if apart <= ALIKE * size else TEST


def offset_progress(
    progress: Callable[[int, int], None] | None, done: int, total: int
) -> Callable[[int], None] | None:
    """Return what takes note of the histories of one measure among those of all."""
    return None if progress is None else lambda more: progress(done + more, total)


def estimate_pairs(
    sampled: Sampled,
    pairs: IntArray,
    bases: Any,
    measure: str,
    rules: BootstrapRules,
    tell: Callable[[int], None] | None,
) -> tuple[dict[str, FloatArray], int]:
    """Return the columns of one measure, NaN where nothing is known, and the length of blocks."""
    statistic = STATISTICS[measure]
    value = statistic.scale(sampled) * statistic.estimate(statistic.read(sampled)).value
    gap = subtract(value, pairs)
    found = {name: np.full(len(pairs), np.nan) for name in ("low", "high", "p_value")}
    found = {"difference": np.where(bases == RUIN, np.nan, gap), **found}
    tested = np.isin(bases, (TEST, SAME))
    if not tested.any():
        return found, 0
    drawn = compare_pairs(
        sampled,
        pairs[tested],
        measure,
        confidence=rules.confidence,
        draws=rules.draws,
        rng=np.random.default_rng(rules.seed),
        progress=tell,
    )
    for name, column in found.items():
        column[tested] = getattr(drawn, name)
    return found, drawn.block


def set_ruined_growth(found: dict[str, FloatArray], ruined: BoolArray, pairs: IntArray) -> None:
    """Write the log growth of ruined accounts, -inf, into the differences they are part of.

    Of two ruined accounts there is none.
    """
    growth = np.where(ruined, -np.inf, 0.0)
    with np.errstate(invalid="ignore"):
        gap = subtract(growth, pairs)
    rows = ruined[pairs].any(axis=1)
    for name in ("difference", "low", "high"):
        found[name][rows] = gap[rows]


def correct_p_values(rows: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return rows of differences with corrected p-values, and which are more than noise.

    The correction is Holm's, over the tests of one measure. The fall of one account and not of
    another is decided without a test.
    """
    corrected = np.full(len(rows), np.nan)
    for measure in STATISTICS:
        family = ((rows["measure"] == measure) & (rows["basis"] == TEST)).to_numpy()
        corrected[family] = holm(rows["p_value"].to_numpy()[family])
    is_fall = np.isinf(rows["difference"].to_numpy())
    decided = is_fall | (np.nan_to_num(corrected, nan=1.0) <= 1.0 - confidence + 1e-12)
    table = rows.assign(p_holm=corrected, distinguishable=decided)
    return table[list(COLUMNS)]


def orient_pairs(pairs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the rows of one account against all others, as differences of those from it."""
    turned = pairs["policy"] == baseline
    rows = pairs[turned | (pairs["against"] == baseline)].copy()
    turned = turned[rows.index]
    rows.loc[turned, ["policy", "against"]] = rows.loc[turned, ["against", "policy"]].to_numpy()
    rows.loc[turned, "difference"] *= -1.0
    rows.loc[turned, ["low", "high"]] = -rows.loc[turned, ["high", "low"]].to_numpy()
    numbers = ["difference", "low", "high"]
    rows[numbers] += 0.0  # no -0.0
    return rows.reset_index(drop=True)
